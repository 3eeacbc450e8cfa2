"""What a learner gains that begins with the one of a month ago, `learner(dls, init=earlier)`, compared with a new one; writes results/next_month.md"""
import time,warnings
from report import Report,settings
from fastrec.all import *
from fastrec.fit.bayes import usual_sweeps
warnings.simplefilter('ignore')

_held,_earlier = .1,.9  # of all rows, at random, on which everything is judged; of the others, the first, which the earlier learner has
def few(*args, **kwargs): return lambda n: (args,kwargs)
def _bayes_again(n): return (),dict(n_sweep=usual_sweeps(n)*2//5)
_fits = {  # what a new learner is called with, and what one of `n` ratings that begins with the earlier
    'fit_one_cycle': ((5,), few(2, pct_start=.01)),
    'fit_sgd': ((), few(n_sweep=8)),
    'fit_als': ((), few(n_sweep=4)),
    'fit_bayes': ((), _bayes_again),
    'fit_ials': ((), few(n_sweep=4))}

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

def of_seed(ratings, seed):
    "What each fit reaches with a new learner, and with one from an earlier one"
    is_held = np.random.default_rng(seed).random(len(ratings))<_held
    before,now = (loaders(ratings, is_held, share, seed) for share in (_earlier,1))
    res = {}
    for fit,(args,again) in _fits.items():
        earlier,_ = run(before, fit, args, {})
        res[fit] = [run(now, fit, args, {})[1], run(now, fit, *again(len(now.train_ds)), lambda: earlier)[1]]
    return res

def main():
    c = settings['next_month']
    rep = Report('next_month', 'release', 'new learner', 'its sweeps or epochs', 'RMSE, or NDCG@10 of `fit_ials`', 'with `init=earlier`', 'sweeps or epochs',
                 'RMSE or NDCG@10', 'worse by', 'each', 'of its sweeps or epochs', 'of its seconds', 'to reach')
    goal = f'≤ {c["max_loss"]} in ≤ {c.getfloat("max_share"):.0%}'
    for release in c['releases'].split():
        ratings = movielens(release).sort_values('timestamp', kind='stable').reset_index(drop=True)
        found = [of_seed(ratings, int(seed)) for seed in c[f'seeds_{release[3:]}'].split()]
        for fit,(args,again) in _fits.items():
            cold,warm = (np.array([o[fit][k] for o in found]).T for k in (0,1))
            a,m,_ = cold.mean(1)
            worse = (warm[0]-cold[0])*(-1 if fit=='fit_ials' else 1)
            b,n,_ = warm.mean(1)
            s,t = (np.median(o[2]) for o in (cold,warm))  # not the mean: a loop may be compiled at its first call
            rep.add(release, call(fit, args, {}), f'{m:.3g}', f'{a:.4f}', call(fit, *again((1-_held)*len(ratings))), f'{n:.3g}', f'{b:.4f}',
                    f'**{worse.mean():.4f}**', ' '.join(f'{v:.4f}' for v in worse), f'**{n/m:.0%}**', f'{t/s:.0%}', goal)
    rep.write()

if __name__=='__main__': main()
