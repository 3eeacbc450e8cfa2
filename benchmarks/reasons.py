"""Are reasons true, and what do they cost: sums, moves without the strongest reason, and seconds, on ml-1m; writes results/reasons.md"""
import time,warnings
from report import Report
from fastrec.all import *
warnings.simplefilter('ignore')

fits = ['fit_als','fit_bayes','fit_ials','fit_ease','fit_blend','SGD','network']
n_pairs,n_folded,n_few,repeats = 1000,300,30,5

def fitted(name, dls):
    learn = nn_learner(dls, seed=0) if name=='network' else dot_learner(dls, seed=0)
    with learn.no_bar(),learn.no_logging():
        if name.startswith('fit_'): getattr(learn, name)()
        else: learn.fit_one_cycle(5)
    return learn

def some_pairs(dls, n, rng):
    users,titles = (dls.classes[o].labels for o in ('user','title'))
    return zip(rng.choice(users, n), rng.choice(titles, n))

def pair_sums(learn, n, ranking):
    "The median of what remains next to the row of the ratings, and milliseconds for a pair"
    rest,seconds = [],[]
    for user,title in some_pairs(learn.dls, n, np.random.default_rng(0)):
        start = time.perf_counter()
        why = learn.explain(user, title, ranking)
        seconds.append(time.perf_counter()-start)
        rest.append(abs(why.contribution[why.part=='remainder'].sum()))
    return np.median(rest),1000*np.median(seconds)

def moves(learn, by_user, n, ranking):
    "How far the sum of parts and contributions lies from the prediction, at most, where nothing is put down to training; rank correlations of how far the prediction moves without the strongest reason with `without`, the contribution, and moves without another"
    rows,off,rng = [],[],np.random.default_rng(1)
    for user,title in some_pairs(learn.dls, n, rng):
        rated = by_user[user]
        if len(rated)<5: continue
        def ask(ratings):
            new = learn.fold_in(ratings)
            x = torch.tensor([[1,int(learn.dls.classes['title'].lookup([title])[0])]])
            model = new.model.lists_by if ranking else new.model
            with torch.no_grad(): return float(model(x))
        new = learn.fold_in(rated)
        why = new.explain('new user', title, ranking)
        off.append(abs(why.contribution[why.part=='remainder'].sum()))
        own = why[why.part=='rated'].reset_index(drop=True)
        other = own.title[rng.integers(1, len(own))]
        now = why.attrs['prediction']
        moved = [now-ask(rated[rated.title!=o]) for o in (own.title[0],other)]
        rows.append((now-own['without'][0], own.contribution[0], *moved))
    corr = pd.DataFrame(rows, columns=['said','contribution','moved','other']).corr('spearman')
    return max(off),corr.said.moved,corr.contribution.moved,corr.said.other

def of_a_genre(name):
    "Of the lists of five by the sample, how many first reasons are of the film's genre, and how many of what people rated"
    ratings,truth = sample_ratings(with_truth=True)
    dls = RecDataLoaders.from_df(ratings, seed=42)
    genre = truth.items.set_index('title').genre
    lists = fitted(name, dls).recommend(n=5, why=1)
    lists = lists[lists.because_1.notna()]
    return (genre[lists.title].to_numpy()==genre[lists.because_1.astype(str)].to_numpy()).mean()

def best_of(f):
    "The fewest milliseconds of several calls"
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        f()
        seconds.append(time.perf_counter()-start)
    return 1000*min(seconds)

def main():
    rep = Report('reasons', 'model', 'sum off by', 'remainder, median', 'one pair, ms', 'moves as `without` says', 'as contributions say', 'without another',
                 "first reasons of the film's genre", 'all top 10, ms', 'times that with why=2')
    dls = RecDataLoaders.from_movielens('ml-1m', seed=0)
    train = dls.train_ds.decode(dls.train_ds.x, dls.train_ds.y)
    by_user = {u: o.drop(columns='user') for u,o in train.groupby('user')}
    for name in fits:
        learn = fitted(name, dls)
        is_tried,ranking = name=='network',name=='fit_blend'
        n = n_few if is_tried else n_pairs
        rest,ms = pair_sums(learn, n, ranking)
        off,*corr = moves(learn, by_user, n_few if is_tried else n_folded, ranking)
        alone = best_of(learn.recommend)
        both = '' if is_tried else f'{best_of(partial(learn.recommend, why=2))/alone:.1f}'
        rep.add(f'`{name}`' if name.startswith('fit_') else name, f'{off:.0e}', f'{rest:.3f}', f'{ms:.1f}', *(f'{o:.3f}' for o in corr),
                f'{of_a_genre(name):.2f}', f'{alone:.0f}', both)
    rep.write()

if __name__=='__main__': main()
