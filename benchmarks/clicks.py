"""Clicks of many people: what they cost to load, fit, evaluate, list, save and extend, at several sizes; writes results/clicks.md.
Of other sizes, on the screen and into results/: python benchmarks/clicks.py 1000000 3000000"""
import json,subprocess,sys,tempfile,time
from big import Stamps,Steps  # sets the threads, before PyTorch is imported
import warnings
from report import Report,settings
from fastrec.all import *

_circles,_of_circle = 50,.7  # people of one taste, and the share of their clicks that is on its items
_tails = 1.5,2.  # of users and items: a higher power has fewer that are clicked more
_held_out = .1   # of the clicks, of which `evaluate` asks

def pairs(n, n_users, n_items, seed=0):
    "Codes of users and items of `n` different clicks, in random order: most on what a planted taste likes"
    rng = np.random.default_rng(seed)
    circle,found = rng.integers(_circles, size=n_users),np.empty(0, 'int64')
    while len(found)<n:
        size = int(1.2*(n-len(found)))+1000
        u,i = ((m*rng.random(size)**power).astype('int64') for m,power in zip((n_users,n_items), _tails))
        i = np.where(rng.random(size)<_of_circle, (i-i%_circles+circle[u]).clip(max=n_items-1), i)
        found = np.unique(np.concatenate([found, u*n_items+i]))
    found = rng.permutation(found)[:n]
    return found//n_items,found%n_items

def generate(folder, n, n_users, n_items):
    "Parquet files of what was clicked so far, and of the last day, a hundredth"
    import pyarrow as pa,pyarrow.parquet as pq
    u,i = pairs(n, n_users, n_items)
    titles = pa.array([f'Article {o:05}' for o in range(n_items)])
    for name,rows in (('before',slice(None, n-n//100)),('day',slice(n-n//100, None))):
        item = pa.DictionaryArray.from_arrays(i[rows].astype('int32'), titles)
        pq.write_table(pa.table(dict(user=u[rows].astype('int32'), item=item, rating=np.ones(len(u[rows]), 'float32'))), folder/f'{name}.parquet')

def _fitted(dls):
    "A learner by the defaults of `fit_ials`, and the seconds of the processor before its first sweep, and of a sweep"
    learn,start = learner(dls, seed=0),time.process_time()
    stamps = Stamps(time.process_time)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(cbs=stamps)
    sweep = np.median(stamps.of_sweeps)
    return learn,(time.process_time()-start-np.sum(stamps.of_sweeps),sweep)

def train(folder):
    "Everything that needs the learner"
    step = Steps()
    dls = step('load', lambda: RecDataLoaders.from_parquet(folder/'before.parquet', seed=0, valid_pct=_held_out))
    learn,_ = step('fit', lambda: _fitted(dls), lambda o: o[1])
    step('evaluate', lambda: learn.evaluate(k=10), lambda o: o.ndcg_at_10.tolist())
    step('list', lambda: learn.recommend(n=10, path=folder/'lists.parquet'))
    step('save', lambda: learn.save_recommender(folder/'rec', ratings=True), lambda o: sum(f.stat().st_size for f in o.iterdir())/1e6)

def serve(folder):
    "A new process that takes in the day"
    step = Steps()
    rec = step('open', lambda: load_recommender(folder/'rec'))
    day = pd.read_parquet(folder/'day.parquet')
    step('extend', lambda: rec.extend(day))

def steps(*args):
    "What the steps of a part took, by name, in a process of its own"
    out = subprocess.run([sys.executable, __file__, *map(str, args)], stdout=subprocess.PIPE, text=True, check=True).stdout
    return {o['what']: o for o in (json.loads(l.removeprefix('step ')) for l in out.splitlines() if l.startswith('step '))}

def cost(o): return f'{o["cpu"]:.1f} s, {o["gb"]:.1f} GB'

def measured(n, c):
    "A row for `n` clicks"
    with tempfile.TemporaryDirectory() as d:
        done = steps('generate', d, n, c['users'], c['items']) | steps('train', d) | steps('serve', d)
    (before,sweep),(found,popular) = done['fit']['told'],done['evaluate']['told']
    return [f'{n:,}', cost(done['load']), cost(done['fit']), f'{before:.1f} s', f'**{sweep:.2f} s**', cost(done['evaluate']), cost(done['list']), cost(done['save']),
            f'{done["save"]["told"]:.0f} MB', cost(done['extend']), f'{found:.3f}, {popular:.3f}']

def main(*sizes):
    c = settings['clicks']
    rep = Report('clicks', 'clicks', 'load', '`fit_ials`', 'of it before the first sweep', 'a sweep', '`evaluate`', "everyone's top 10, to a file", '`save_recommender`', 'its folder',
                 '`extend` by 1%', 'NDCG@10, and that of popularity')
    for n in sizes or map(int, c['sizes'].split()): rep.add(*measured(n, c))
    rep.write()

def _part(part, folder, *size):
    warnings.simplefilter('ignore')
    if part=='generate': Steps()('generate', lambda: generate(Path(folder), *map(int, size)))
    else: dict(train=train, serve=serve)[part](Path(folder))

if __name__=='__main__':
    if len(sys.argv)>1 and sys.argv[1] in ('generate','train','serve'): _part(*sys.argv[1:])
    else: main(*map(int, sys.argv[1:]))
