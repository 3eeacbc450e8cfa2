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

def rmse_table(learn, biases, valid, truth):
    "RMSE on the ratings held out, from the simplest model to the best there can be"
    mean = float(learn.dls.train_ds.y.mean())
    res = {'always the mean rating': (valid.rating-mean).pow(2).mean()**.5, 'biases of user and film': biases.history.rmse.iloc[-1],
           'biases and 50 factors': learn.history.rmse.iloc[-1]}
    if truth: res['the best possible'] = truth.best_rmse(valid)
    return pd.Series(res, name='RMSE').round(4).to_frame()

def picture(learn, interp, truth, path):
    "The learning curves, and the films along the two main directions of taste, the most rated by name"
    fig,(a,b) = plt.subplots(1, 2, figsize=(15,6.5), width_ratios=[1,2], layout='constrained')
    learn.plot_metrics('train_loss', 'valid_loss', ax=a).set_ylabel('mean squared error')
    interp.plot_pca(show=50, color=truth.items.set_index('title').genre if truth else 'bias', ax=b)
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
    _,in_valid = SeededSplitter(seed=42)(ratings)
    biases,learn = learner(dls),learner(dls)
    print('The biases alone, in closed form:')
    biases.fit_bias()
    print('\nTraining biases and 50 factors:')
    learn.fit_one_cycle(5)
    print(f'\nError on the {len(in_valid):,} ratings held out, in stars:\n{rmse_table(learn, biases, ratings.iloc[in_valid], truth).to_string()}')
    interp = RecInterpretation.from_learner(learn)
    best,worst = (interp.item_bias(5, ascending=low, min_count=20).round(2).to_string(index=False) for low in (False,True))
    print(f'\nBest liked, once it is known who rated what:\n{best}\n\nLeast liked:\n{worst}')
    user = ratings.user.value_counts().index[ratings.user.nunique()//10]
    liked = ratings[ratings.user==user].nlargest(5, 'rating')[['title','rating']]
    print('\nLearning what people choose as well, for lists of what to watch next:')
    lists = learner(dls)
    lists.fit_blend()
    found = lists.evaluate().ndcg_at_10
    print(f'\nNDCG@10 of the lists, on what was held out: {found["model"]:.3f}, of lists of what is popular {found["popularity"]:.3f}')
    recs = lists.recommend(user, n=5).drop(columns=['user','score']).round(2)
    print(f'\nUser {user} gave most stars to\n{liked.to_string(index=False)}\n\nand may like\n{recs.to_string(index=False)}')
    picture(learn, interp, truth, out)
    print(f'\nThe picture is in {out}. All of it took {time.time()-start:.0f} s.')
