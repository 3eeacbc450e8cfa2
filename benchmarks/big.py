"""A hundred million ratings on one machine: read from Parquet, trained, evaluated, listed, saved and asked, each step with its seconds and memory;
writes results/big.md. Of another number of ratings, on the screen: python benchmarks/big.py 1000000"""
import ctypes,gc,json,os,re,subprocess,sys,tempfile,time
os.environ.setdefault('OMP_NUM_THREADS', '2')
os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # a thread that waits leaves its core to others
import resource,warnings
from report import Report,settings
from fastrec.all import *

# generated ratings

_rank,_piece = 8,2**20  # tastes that were planted, and ratings written at a time

def _planted(rng, n):
    "Biases and tastes of `n` users or items, float32"
    return rng.normal(0, .4, n).astype('float32'),rng.normal(0, .35, (n,_rank)).astype('float32')

_tails = 1.5,2.  # of users and items: a higher power has fewer that are rated more; with these few pairs repeat, as in real ratings

def _drawn(rng, n, first, size, power):
    "Codes below `n`, few of them often; each of those from `first` on occurs, as long as there is room"
    own = np.arange(first, min(first+size, n), dtype='int32')
    drawn = (n*rng.random(size-len(own))**power).astype('int32').clip(max=n-1)
    return rng.permutation(np.concatenate([own,drawn]))

def pieces(n_ratings, n_users, n_items, seed=0):
    "`n_ratings` in half stars by planted tastes, as codes of users and items and stars, a piece at a time"
    rng = np.random.default_rng(seed)
    (b_u,p),(b_i,q) = (_planted(rng, o) for o in (n_users,n_items))
    for first in range(0, n_ratings, _piece):
        size = min(_piece, n_ratings-first)
        u,i = (_drawn(rng, n, first, size, power) for n,power in zip((n_users,n_items), _tails))
        stars = 3.5+b_u[u]+b_i[i]+np.einsum('nk,nk->n', p[u], q[i])+rng.normal(0, .7, size)
        yield u,i,(np.round(2*stars)/2).clip(.5, 5).astype('float32')

def generate(file, *size):
    "Write the Parquet `file`: users are numbers, items titles"
    import pyarrow as pa,pyarrow.parquet as pq
    titles = pa.array([f'Film {o:06} (1999)' for o in range(size[2])])
    schema = pa.schema(dict(user=pa.int32(), title=pa.dictionary(pa.int32(), pa.string()), rating=pa.float32()))
    with pq.ParquetWriter(file, schema) as f:
        for u,i,y in pieces(*size): f.write_table(pa.table([u, pa.DictionaryArray.from_arrays(i, titles), y], schema))

# time and memory

_status,_reset = Path('/proc/self/status'),Path('/proc/self/clear_refs')

def peak_gb():
    "The most memory that this process has held, or since `forget_peak`, where that is possible"
    if not _reset.exists(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20
    return int(re.search(r'VmHWM:\s*(\d+)', _status.read_text(encoding='utf-8')).group(1))/2**20

def forget_peak():
    "Measure the peak from now on, without memory that is free but has not been given back"
    if not _reset.exists(): return
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _reset.write_text('5', encoding='utf-8')

class Steps:
    "Prints what each step took, for the process that has started this one"
    def __call__(self, what, f, told=lambda o: '', to_reach=''):
        forget_peak()
        start = time.perf_counter(),time.process_time()
        res = f()
        took = time.perf_counter()-start[0],time.process_time()-start[1]
        print('step', json.dumps(dict(what=what, seconds=took[0], cpu=took[1], gb=peak_gb(), told=told(res), to_reach=to_reach)), flush=True)
        return res

class Stamps(Callback):
    "What each sweep took, by a `clock`"
    order = 4  # before `Sweeps`
    def __init__(self, clock=time.perf_counter): self.clock,self.of_sweeps = clock,[]
    def before_batch(self):
        if self.training: self.start = self.clock()
    def after_batch(self):
        if self.training: self.of_sweeps.append(self.clock()-self.start)

# the steps

_top,_width_sgd,_width_als = 20,50,30
_held_out = .001  # of the ratings, so that not everybody is asked for

def _fitted(dls, fit, n_sweep, **kwargs):
    "A learner after `n_sweep` sweeps, and the seconds of the second, which has nothing to prepare"
    learn,stamps = learner(dls, seed=0),Stamps()
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(n_sweep=n_sweep, **kwargs, cbs=stamps)
    return learn,stamps.of_sweeps[1]

def _a_sweep(what):
    return lambda o: f'a {what} **{o[1]:.1f} s**'

def train(folder, c):
    "Everything that needs the ratings"
    step = Steps()
    dls = step('read, encode and split: `RecDataLoaders.from_parquet`', lambda: RecDataLoaders.from_parquet(folder/'ratings.parquet', seed=0, valid_pct=_held_out),
               lambda o: f'{o.train_ds.nbytes/1e9:.2f} GB of ratings', f'≤ {c["max_read"]} s')
    learn,_ = step(f'train: `fit_sgd({_width_sgd}, n_sweep=3)`', lambda: _fitted(dls, 'fit_sgd', 3, n_factors=_width_sgd), _a_sweep('pass'), f'a pass ≤ {c["max_pass"]} s')
    als,_ = step(f'train: `fit_als({_width_als}, n_sweep=2)`', lambda: _fitted(dls, 'fit_als', 2, n_factors=_width_als), _a_sweep('sweep'), f'a sweep ≤ {c["max_sweep"]} s')
    del als
    step('predict the held-out thousandth: `validate`', learn.validate, lambda o: f'RMSE {o[1]:.3f}')
    step('rank for those who have held-out ratings: `evaluate`', lambda: learn.evaluate(k=10), lambda o: f'NDCG@10 {o.ndcg_at_10["model"]:.4f}')
    step("everyone's top 20, without what they have rated, to Parquet: `recommend`", lambda: learn.recommend(n=_top, path=folder/'lists.parquet'), lambda o: f'{o.stat().st_size/1e6:.0f} MB')
    step('save: `save_recommender`', lambda: learn.save_recommender(folder/'rec'), lambda o: f'{sum(f.stat().st_size for f in o.iterdir())/1e6:.0f} MB')

def serve(folder, c):
    "A new process that answers"
    step = Steps()
    rec = step('load in a new process: `load_recommender`', lambda: load_recommender(folder/'rec'))
    users = rec.ds.classes['user'].labels
    step('the first list of 10', lambda: rec.recommend(users[1000], n=10))
    step('a list of 10', lambda: rec.recommend(users[-1], n=10))
    items = rec.ds.classes['title'].labels[:20]
    step('`fold_in` of somebody new', lambda: rec.fold_in(pd.DataFrame(dict(title=items, rating=4.))))

def _steps(part, folder, *args):
    "What the steps of a `part` took, in a process of its own"
    cmd = [sys.executable, __file__, part, str(folder), *map(str, args)]
    with subprocess.Popen(cmd, stdout=subprocess.PIPE, text=True) as p:
        for line in p.stdout:
            if line.startswith('step '): yield json.loads(line.removeprefix('step '))
    if p.returncode: raise SystemExit(f'{part} has failed')

def main(n=None):
    c = settings['big']
    size = [c.getint(o) for o in ('ratings','users','items')]
    if n is not None: size = [n,*(max(o*n//size[0], 100) for o in size[1:])]
    rep = Report('big', 'step', 'seconds', 'of processors', 'peak memory, GB', 'what came of it', 'to reach')
    with tempfile.TemporaryDirectory() as d:
        for part in ('generate','train','serve'):
            for o in _steps(part, d, *size):
                rep.add(o['what'], f'**{o["seconds"]:.2f}**', f'{o["cpu"]:.2f}', f'{o["gb"]:.2f}', o['told'], o['to_reach'])
    if n is None: rep.write()

def _part(part, folder, *size):
    warnings.simplefilter('ignore')
    folder,size = Path(folder),[*map(int, size)]
    if part=='generate': Steps()('{:,} ratings of {:,} users and {:,} items, generated'.format(*size), lambda: generate(folder/'ratings.parquet', *size),
                                 lambda o: f'{(folder/"ratings.parquet").stat().st_size/1e6:.0f} MB of Parquet')
    else: dict(train=train, serve=serve)[part](folder, settings['big'])

if __name__=='__main__':
    if len(sys.argv)>2: _part(*sys.argv[1:])
    else: main(*map(int, sys.argv[1:]))
