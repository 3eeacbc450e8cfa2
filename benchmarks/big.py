"""A hundred million ratings on one machine, step by step, each in a process of its own: seconds and peak memory; writes results/big.md

    python benchmarks/big.py               a hundred million
    python benchmarks/big.py 10000000      so many"""
import json,resource,subprocess,sys,tempfile
from report import Report
from fastrec.all import *

_shape = 650_164,59_047  # users four times those of ml-25m, and its items
_chunk = 5_000_000

def generate(path, n, seed=0):
    "`n` ratings with a long tail in a Parquet file, where every user and item occurs"
    import pyarrow as pa,pyarrow.parquet as pq
    rng = np.random.default_rng(seed)
    def ids(k, start, m):
        drawn = (k*rng.random(m)**2.5).astype('int32')
        once = np.arange(start, min(start+m, k), dtype='int32')
        drawn[:len(once)] = once
        return rng.permutation(drawn)
    with pq.ParquetWriter(path, pa.schema(dict(user=pa.int32(), item=pa.int32(), rating=pa.float32()))) as f:
        for start in range(0, n, _chunk):
            m = min(_chunk, n-start)
            users,items = (ids(k, start, m) for k in _shape)
            f.write_table(pa.table(dict(user=users, item=items, rating=rng.integers(1, 6, m).astype('float32'))))

def loaders(path): return RecDataLoaders.from_parquet(path/'ratings.parquet', user_name='user', item_name='item', rating_name='rating', valid_pct=.01, seed=0)

# ------------------------------------------------------------------ the steps: what each does, and what it hands on in the folder `path`
class Clock(Callback):
    "Seconds of each sweep"
    def before_fit(self): self.stamps = [time.perf_counter()]
    def after_epoch(self): self.stamps.append(time.perf_counter())

def fit(path, name, **kwargs):
    "Two sweeps of a fit: seconds of the second, and of rules and first sweep together"
    learn,clock = learner(loaders(path)),Clock()
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): getattr(learn, name)(cbs=clock, **kwargs)
    learn.save_recommender(path/name, seen=False)
    t = np.diff(clock.stamps)
    return t[-1],f'the first, with rules {clock.stamps[1]-start:.1f} s'

def timed(f):
    start = time.perf_counter()
    res = f()
    return time.perf_counter()-start,res

def read(path):
    t,dls = timed(lambda: loaders(path))
    return t,f'{dls.train_ds.nbytes/2**30:.2f} GB of codes and ratings'

def evaluate(path):
    rec,dls = load_recommender(path/'fit_als'),loaders(path)
    valid = pd.read_parquet(path/'ratings.parquet').iloc[:1_000_000]
    t,got = timed(lambda: rec.predict_many(valid))
    return t,'a million ratings predicted, by label'

steps = {
    'read from Parquet': read,
    'a pass of `fit_sgd`, 50 factors': partial(fit, name='fit_sgd', n_factors=50, n_sweep=2),
    'a sweep of `fit_als`, 30 factors': partial(fit, name='fit_als', n_factors=30, n_sweep=2)}

def one(name, path):
    t,note = steps[name](Path(path))
    print(json.dumps(dict(t=t, note=note, gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20)))
