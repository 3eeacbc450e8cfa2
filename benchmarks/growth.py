"""Time and memory as the data grow: seconds per million ratings of an epoch, and of loading, fit_sgd and fit_als, and a step against the size of the
tables; writes results/growth.md, growth_fits.md and steps.md"""
import gc,resource,sys,tempfile
from statistics import median
from report import Report,settings
from fastrec.all import *

class Steps(Callback):
    "Stop a fit after `n` steps, and know what each took"
    order = 100
    def __init__(self, n): self.n,self.stamps = n,[]
    def after_batch(self):
        self.stamps.append(time.perf_counter())
        if len(self.stamps)>self.n: raise CancelFitException
    def before_validate(self): raise CancelValidException

def step_us(learn, n):
    "Median microseconds of `n` steps"
    cb = Steps(n)
    with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=cb)
    return median(np.diff(cb.stamps))*1e6

def long_tail(n, users, items, seed=0):
    "Random ratings in which every user and item occurs, some of them often"
    rng = np.random.default_rng(seed)
    draw = lambda k: np.concatenate([np.arange(k), np.minimum((k*rng.random(max(n-k, 0))**2.5).astype('int32'), k-1)])[:n]
    return pd.DataFrame(dict(user=rng.permutation(draw(users)), item=rng.permutation(draw(items)), rating=rng.integers(1, 6, n).astype('float32')))

def by_ratings(c):
    rep = Report('growth', 'ratings', 'users', 'items', 'to the first batch, s', 'updates', 'an epoch, s', 's per million ratings', 'peak memory, GB')
    step_us(learner(RecDataLoaders.from_df(sample_ratings(), seed=0)), 5)  # what is compiled, and read from files
    for row in c['sizes'].split(','):
        n,users,items = map(int, row.split())
        df = long_tail(n, users, items)
        start = time.perf_counter()
        dls = RecDataLoaders.from_df(df, seed=0, valid_pct=.01, bs=c.getint('bs'))
        dls.one_batch()
        loaded = time.perf_counter()-start
        learn = learner(dls)
        with learn.no_bar(),learn.no_logging():
            start = time.perf_counter()
            learn.fit_one_cycle(1)
            t = time.perf_counter()-start
        rep.add(f'{n:,}', f'{users:,}', f'{items:,}', f'{loaded:.1f}', 'sparse' if learn.model.sparse else 'dense', f'{t:.1f}', f'**{t/n*1e6:.2f}**',
                f'{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20:.1f}')
        del df,dls,learn
        gc.collect()
    rep.write()

def seconds_of_sweep(dls, fit, n_sweep=6, **kwargs):
    "Median seconds of a sweep but the first, which has to prepare"
    from big import Stamps
    learn,stamps = learner(dls, seed=0),Stamps(time.process_time)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(n_sweep=n_sweep, **kwargs, cbs=stamps)
    return median(stamps.of_sweeps[1:])

def costs_of_fits(n, *size):
    "Seconds of one processor to load `n` generated ratings, and for a sweep of each fit"
    from big import generate
    with tempfile.TemporaryDirectory() as d:
        generate(Path(d)/'ratings.parquet', n, *size)
        start = time.process_time()
        dls = RecDataLoaders.from_parquet(Path(d)/'ratings.parquet', seed=0, valid_pct=.01)
        loading = time.process_time()-start
    return np.array([loading,seconds_of_sweep(dls, 'fit_sgd', n_factors=50),seconds_of_sweep(dls, 'fit_als', n_factors=30)])

def by_fits(c):
    from big import forget_peak,peak_gb
    torch.set_num_threads(1)  # so that seconds of processors are those of the clock on a machine that is idle
    rep = Report('growth_fits', 'ratings', 'users', 'items', 'loading from Parquet, s per million', 'a pass of `fit_sgd(50)`', 'a sweep of `fit_als(30)`', 'peak memory, GB')
    sizes = [tuple(map(int, o.split())) for o in c['fit_sizes'].split(',')]
    costs_of_fits(*sizes[0])  # what is compiled, and read from files
    found = []
    for n,*size in sizes:
        forget_peak()
        found.append(costs_of_fits(n, *size)/n*1e6)
        rep.add(f'{n:,}', *(f'{o:,}' for o in size), *(f'{o:.3f}' for o in found[-1]), f'{peak_gb():.1f}')
        gc.collect()
    rep.add('dearest over cheapest', '', '', *(f'**{o:.1f}**: ≤ 2' for o in np.max(found, 0)/np.min(found, 0)), '')
    rep.write()

def by_tables(c):
    bs,items,n = c.getint('bs'),c.getint('items'),c.getint('steps')
    rep = Report('steps', 'users', 'items', 'sparse, µs a step', 'dense, µs', 'stock fastai, µs', 'to reach')
    learns,stocks = {},{}
    for users,k in [*((int(o),items) for o in c['users'].split()),tuple(map(int, c['ml25m'].split()))]:
        df = long_tail(max(users, 2*n*bs), users, k)
        dls = RecDataLoaders.from_df(df, seed=0, valid_pct=.01, bs=bs)
        learns[users,k] = learner(dls, sparse=True),learner(dls, sparse=False) if users<=c.getint('max_dense') else None
        if users<=c.getint('max_stock'):
            stock = CollabDataLoaders.from_df(df.iloc[:max(users, 100*bs)], seed=0, valid_pct=.01, bs=bs)
            stocks[users,k] = collab_learner(stock, n_factors=50, y_range=(.5,5.5))
    for l,_ in learns.values(): step_us(l, n)  # every page of the tables has been touched
    rounds = [{k: step_us(l, n) for k,(l,_) in learns.items()} for _ in range(c.getint('repeats'))]
    sparse = {k: median(r[k] for r in rounds) for k in learns}
    base,top = [o for o in learns if o[0]==10**4][0],max(learns)
    grown = median(r[top]/r[base] for r in rounds)
    for k,(l,d) in learns.items():
        dense,stock = step_us(d, 30) if d else None,step_us(stocks[k], 15) if k in stocks else None
        goal = f'**{grown:.2f}×** the step at 10,000: ≤ {c["max_growth"]}' if k==top else f'**{stock/sparse[k]:.0f}×** faster than stock: ≥ {c["min_stock"]}' if k[1]!=items else ''
        rep.add(f'{k[0]:,}', f'{k[1]:,}', f'{sparse[k]:,.0f}', *('' if o is None else f'{o:,.0f}' for o in (dense,stock)), goal)
    rep.write()

if __name__=='__main__':
    if 'fits' not in sys.argv:
        by_ratings(settings['growth'])
        by_tables(settings['growth'])
    by_fits(settings['growth'])
