"""What a learner gains that begins with the one of a month ago, `learner(dls, init=earlier)`, beside a new one; writes results/next_month.md"""
import time,warnings
from report import Report,settings
from fastrec.all import *
warnings.simplefilter('ignore')

_held,_earlier = .1,.9  # of all rows, at random, on which everything is judged; of the others, the first, which the earlier learner has
_fits = {  # what a new learner is called with, and one that begins with the earlier
    'fit_one_cycle': ((5,), {}, (2,), dict(pct_start=.01)),
    'fit_als': ((), {}, (), dict(n_sweep=4)),
    'fit_bayes': ((), {}, (), dict(n_sweep=40)),
    'fit_ials': ((), {}, (), dict(n_sweep=4))}
_inits = 'earlier','earlier.extend(new)'  # the second for gradients alone: solvers find new rows in their first sweep

def rows_of(is_held, share):
    "The first `share` of the rows that are not held out"
    rows = np.flatnonzero(~is_held)
    return rows[:int(len(rows)*share)]

def loaders(ratings, is_held, share, seed):
    "Loaders of the first `share` of those `ratings`, in the order of time, that are not held out; what is held out is for validation"
    rows = rows_of(is_held, share)
    df = pd.concat([ratings.iloc[rows],ratings[is_held]], ignore_index=True)
    return RecDataLoaders.from_df(df, IndexSplitter(range(len(rows), len(df))), seed=seed)

def run(dls, fit, args, kwargs, init=lambda: None):
    "A learner from `init()`, after the `fit`, and of that the last RMSE or NDCG, the number of sweeps or epochs, and the seconds of both"
    start = time.perf_counter()
    learn = learner(dls, metrics=list_metrics() if fit=='fit_ials' else rmse, init=init())
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    took = time.perf_counter()-start
    return learn,(float(learn.history['ndcg_at_10' if fit=='fit_ials' else 'rmse'].iloc[-1]),len(learn.history),took)

def call(fit, args, kwargs): return f'`{fit}({", ".join([*map(str, args), *(f"{k}={v:g}" for k,v in kwargs.items())])})`'

def _n_inits(fit): return 2 if fit=='fit_one_cycle' else 1

def of_seed(ratings, seed):
    "What each fit reaches with a new learner, and with one from each of `_inits`, by the fit and which of these"
    is_held = np.random.default_rng(seed).random(len(ratings))<_held
    before,now = (loaders(ratings, is_held, share, seed) for share in (_earlier,1))
    new = ratings.iloc[rows_of(is_held, 1)[len(before.train_ds):]]
    res = {}
    for fit,(args,kwargs,*again) in _fits.items():
        earlier,_ = run(before, fit, args, kwargs)
        inits = [None,lambda: earlier,lambda: earlier.extend(new)][:_n_inits(fit)+1]
        for k,init in enumerate(inits): res[fit,k] = run(now, fit, *again, init)[1] if k else run(now, fit, args, kwargs)[1]
    return res

def main():
    c = settings['next_month']
    rep = Report('next_month', 'release', 'new learner', 'its sweeps or epochs', 'RMSE, or NDCG@10 of `fit_ials`', '`init`', 'fit', 'sweeps or epochs',
                 'RMSE or NDCG@10', 'worse by', 'each', 'of its sweeps or epochs', 'of its seconds', 'to reach')
    goal = f'≤ {c["max_loss"]} in ≤ {c.getfloat("max_share"):.0%}'
    for release in c['releases'].split():
        ratings = movielens(release).sort_values('timestamp', kind='stable').reset_index(drop=True)
        found = [of_seed(ratings, int(seed)) for seed in c[f'seeds_{release[3:]}'].split()]
        for fit,(args,kwargs,*again) in _fits.items():
            cold,*warm = (np.array([o[fit,k] for o in found]).T for k in range(1+_n_inits(fit)))
            a,m,s = cold.mean(1)
            for name,o in zip(_inits, warm):
                worse = (o[0]-cold[0])*(-1 if fit=='fit_ials' else 1)
                b,n,t = o.mean(1)
                rep.add(release, call(fit, args, kwargs), f'{m:.3g}', f'{a:.4f}', f'`{name}`', call(fit, *again), f'{n:.3g}', f'{b:.4f}',
                        f'**{worse.mean():.4f}**', ' '.join(f'{v:.4f}' for v in worse), f'**{n/m:.0%}**', f'{t/s:.0%}', goal)
    rep.write()

if __name__=='__main__': main()
