"""The main job from end to end: ratings with titles, a trained model, and what to watch next

    make demo                 on the built-in sample, offline
    make demo DATA=ml-100k    on a MovieLens release, downloaded once unless it is in fastai's data folder
"""
import sys,time
start = time.time()
import matplotlib
matplotlib.use('agg')
from fastcore.script import call_parse
from fastrec.all import *

def load(name):
    "Ratings frame called `name`, and the sample's truth if it is that"
    if name=='sample':
        print('Data: the built-in sample, drawn from a known model, since it needs no download and its best possible RMSE is known.\n'
              '      For real ratings: make demo DATA=ml-100k')
        return sample_ratings(with_truth=True)
    print(f'Data: the MovieLens release {name}, as you asked.')
    return movielens(name),None

def train(dls, n_factors):
    learn = learner(dls, n_factors=n_factors)
    learn.fit_one_cycle(5)
    return learn

def rmse_table(learn, biases, valid, truth):
    "RMSE on the ratings held out, from the simplest model to the best there can be"
    mean = float(learn.dls.train_ds.y.mean())
    res = {'always the mean rating': (valid.rating-mean).pow(2).mean()**.5, 'biases of user and film': biases.recorder.values[-1][-1],
           'biases and 50 factors': learn.recorder.values[-1][-1]}
    if truth: res['the best possible'] = truth.best_rmse(valid)
    return pd.Series(res, name='RMSE').round(4).to_frame()

def bias_table(learn, train, min_count=20):
    "The films of `train` with `min_count` ratings or more, by bias: liked beyond who rated them"
    films = train.groupby('title', observed=True).rating.agg(['count','mean'])
    films = films[films['count']>=min_count]
    return films.assign(bias=to_np(learn.model.bias(films.index))).sort_values('bias', ascending=False)[['bias','mean','count']].round(2)

def apart(xy, idx, gap=(.15,.035)):
    "Those of `idx`, in order, whose points lie at least `gap` (a share of the width and height) from the ones kept before"
    scaled,kept = (xy-xy.min(0))/np.ptp(xy, axis=0)/gap,[]
    for i in idx:
        if all(abs(scaled[i]-scaled[j]).max()>1 for j in kept): kept.append(i)
    return kept

def picture(learn, films, truth, path, top=60):
    "The learning curve, and the films along the two main axes of their factors, the `top` most rated by name where there is room"
    fig,(a,b) = plt.subplots(1, 2, figsize=(15,6.5), width_ratios=[1,2], layout='constrained')
    learn.recorder.plot_loss(ax=a)
    xy = learn.model.weight(films.index).pca(2).numpy()
    genre = truth.items.set_index('title').genre[films.index] if truth else pd.Series('films', films.index)
    for g in genre.unique(): b.scatter(*xy[genre==g].T, s=14, alpha=.7, label=g)
    for i in apart(xy, films['count'].to_numpy().argsort()[::-1][:top]): b.annotate(films.index[i], xy[i], fontsize=7)
    b.set(title='Films by taste, some of the most rated by name', xlabel='first principal component of the factors', ylabel='second')
    if truth: b.legend(title='planted genre')
    fig.savefig(path, dpi=110)

@call_parse
def main(
    data:str='sample', # 'sample', or a MovieLens release such as ml-100k
    out:str='fastrec-demo.png', # Where to save the picture
):
    "Train a recommender and show what it learned"
    try: ratings,truth = load(data)
    except (ValueError,OSError) as e: sys.exit(f'make demo: {e}')
    print(f'      {len(ratings):,} ratings of {ratings.title.nunique():,} films by {ratings.user.nunique():,} users, {ratings.rating.min():g} to {ratings.rating.max():g} stars\n')
    dls = RecDataLoaders.from_df(ratings, seed=42)
    in_train,in_valid = SeededSplitter(seed=42)(ratings)
    print('Training the biases alone:'); biases = train(dls, 0)
    print('\nTraining biases and 50 factors:'); learn = train(dls, 50)
    print(f'\nError on the {len(in_valid):,} ratings held out, in stars:\n{rmse_table(learn, biases, ratings.iloc[in_valid], truth).to_string()}')
    films = bias_table(learn, ratings.iloc[in_train])
    print(f'\nBest liked, once it is known who rated what:\n{films.head(5).to_string()}\n\nLeast liked:\n{films.tail(5)[::-1].to_string()}')
    user = ratings.user.value_counts().index[ratings.user.nunique()//10]
    liked = ratings[ratings.user==user].nlargest(5, 'rating')[['title','rating']]
    recs = learn.recommend(user, n=5)[['title','score']].round(2)
    print(f'\nUser {user} gave most stars to\n{liked.to_string(index=False)}\n\nand may like\n{recs.to_string(index=False)}')
    picture(learn, films, truth, out)
    print(f'\nThe picture is in {out}. All of it took {time.time()-start:.0f} s.')
