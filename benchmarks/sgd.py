"""A pass of `fit_sgd` beside an epoch of `fit_one_cycle` and one of Cornac's MF, of the same width and threads; time to an RMSE of .92 on ml-100k's
folds; and ml-1m within ten seconds; writes results/sgd.md and results/sgd_error.md"""
import gc,os,sys,warnings
os.environ.setdefault('OMP_NUM_THREADS', '2')  # what shares work between threads is given one or two below
from contextlib import redirect_stdout
from io import StringIO
from statistics import median
from growth import Steps,long_tail
from report import Report,settings
from fastrec.all import *
from time_to_rmse import SkipValidation,cornac,cost,splits
warnings.simplefilter('ignore')

def seconds(f):
    gc.collect()
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def a_pass(fit, n=2):
    "Seconds of a pass of `fit(n_pass)`, and what it takes beside: from one pass and `n` more"
    one,more = seconds(lambda: fit(1)),seconds(lambda: fit(1+n))
    each = (more-one)/n
    return each,one-each

def ours(dls, k):
    def fit(n):
        learn = learner(dls)
        with learn.no_bar(),learn.no_logging(): learn.fit_sgd(k, n, lr=.01)
    return fit

def as_cornac(df):
    from cornac.data import Dataset
    codes = [pd.factorize(df[c])[0] for c in df.columns[:2]]
    sizes = [int(o.max())+1 for o in codes]
    maps = [{o: o for o in range(n)} for n in sizes]
    return Dataset(*sizes, *maps, (*codes,df.rating.to_numpy('float')), seed=0)

def cornacs(data, k, threads):
    from cornac.models import MF
    return lambda n: MF(k, max_iter=n, learning_rate=.01, lambda_reg=.02, use_bias=True, num_threads=threads, seed=0, early_stop=False).fit(data)

def an_epoch(dls, k, n_steps=300):
    "Seconds of an epoch of `fit_one_cycle`, from the median of some steps"
    learn,cb = learner(dls, n_factors=k),Steps(n_steps)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1, cbs=cb)
    return float(np.median(np.diff(cb.stamps)))*len(dls.train)

def passes(c):
    rep = Report('sgd', 'ratings', 'threads', 'a pass of `fit_sgd`, s', 'M ratings/s', 'before the first, s', "an epoch of Cornac's MF, s", 'ours over it',
                 'an epoch of `fit_one_cycle`, s', 'ours over it', 'to reach')
    rep.threads = None
    k,sizes = c.getint('n_factors'),[tuple(map(int, o.split())) for o in c['sizes'].split(',')]
    for n,users,items in sizes:
        df = long_tail(n, users, items)
        dls,data = RecDataLoaders.from_df(df, seed=0, valid_pct=.001, bs=512),as_cornac(df)
        for threads in (1,2):
            torch.set_num_threads(threads)
            fits = ours(dls, k),cornacs(data, k, threads)
            for f in fits: f(1)  # what is compiled, and read from files
            times = [[a_pass(f) for f in fits] for _ in range(c.getint('repeats'))]
            mine,before,its = (median(o[a][b] for o in times) for a,b in ((0,0),(0,1),(1,0)))
            ratio = median(o[0][0]/o[1][0] for o in times)
            epoch = an_epoch(dls, k)
            rep.add(f'{n:,}', threads, f'**{mine:.3f}**', f'{n/mine/1e6:.0f}', f'{before:.1f}', f'{its:.3f}', f'**{ratio:.2f}**', f'{epoch:.1f}', f'1/{epoch/mine:.0f}', c['to_reach'])
    rep.write()

def error(s, **kwargs):
    dls = RecDataLoaders.from_df(s.train, valid_pct=.001, seed=0, item_name='item')
    learn = learner(dls)
    with learn.no_bar(),learn.no_logging(): t = cost(lambda: learn.fit_sgd(**kwargs, cbs=SkipValidation()))
    return t,s.rmse(learn.predict_df(s.test, unknown='average').to_numpy())

tried = {
    'ml-100k': [('fit_sgd',error,dict(n_factors=10, n_sweep=8)), ('fit_sgd',error,dict(n_factors=16, n_sweep=10)), ('fit_sgd',error,{}), ('Cornac MF',cornac,dict(k=10, max_iter=25, learning_rate=.01, lambda_reg=.02)),
                ('Cornac MF',cornac,dict(k=50, max_iter=60, learning_rate=.01, lambda_reg=.1))],
    'ml-1m': [('fit_sgd',error,dict(n_factors=16, n_sweep=10)), ('fit_sgd',error,{}), ('fit_sgd',error,dict(n_factors=100)), ('Cornac MF',cornac,dict(k=10, max_iter=25, learning_rate=.01, lambda_reg=.02)),
              ('Cornac MF',cornac,dict(k=50, max_iter=25, learning_rate=.01, lambda_reg=.05))]}

def errors():
    torch.set_num_threads(1)
    rep = Report('sgd_error', 'data', 'system', 'settings', 'RMSE', 'training, s', 'to reach')
    goals = {'ml-100k': '.92 as soon as Cornac', 'ml-1m': '≤ .842 in 10 s'}
    for name,systems in tried.items():
        data = splits(name)
        error(data[0])  # what is compiled
        for system,f,kwargs in systems:
            with redirect_stdout(StringIO()): runs = [f(o, **kwargs) for o in data for _ in range(3)]
            shown = ', '.join(f'{k} {v}' for k,v in kwargs.items()) or 'defaults'
            rep.add(name, system, shown, f'**{np.mean([r for _,r in runs]):.4f}**', f'{median(t for (t,_),_ in runs):.2f}', goals[name])
    rep.write()

if __name__=='__main__':
    if 'passes' not in sys.argv: errors()
    if 'errors' not in sys.argv: passes(settings['sgd'])
