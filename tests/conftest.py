"""Fixtures: the sample, tiny releases in every layout, and the real ones where they are"""
import csv,gc,io,multiprocessing,os,sys,warnings
from contextlib import contextmanager
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import pytest,torch
from fastai.basics import defaults
from fastai.callback.progress import ProgressCallback
from fastai.data.external import fastai_cfg,fastai_path
from fastcore.xtras import Config
from fastrec.base.compiled import without_loops
from fastrec.all import DeepMF,DotBias,RatingsTensors,RecDataLoaders,Recommender,Vocab,learner,nn_learner,releases,sample_ratings

films = {1:'Hamlet (1996)', 7:'Hamlet (1996)', 3:"Amélie: Love, Luck & \"Chance\" (2001)", 20:'NA', 30:'Heat'}
rows = [(5,1,5,978300760), (5,7,3,978302109), (9,3,4,978301968), (9,20,1,978300275), (12,1,2,978824291)]

def write_release(path, name, rows=rows, films=films, eol='\n'):
    "A release of `films` and `rows` in the layout that `name` has"
    lay = releases[name]
    path.mkdir(parents=True, exist_ok=True)
    encoding = 'utf-8' if lay['sep']==',' else 'latin-1'
    lines = [lay['header']]*bool(lay['header']) + [lay['sep'].join(map(str, r)) for r in rows]
    (path/lay['ratings']).write_bytes((eol.join(lines)+eol).encode())
    if lay['sep']==',':
        out = io.StringIO(newline='')
        w = csv.writer(out, lineterminator=eol)
        w.writerows([('movieId','title','genres'), *((i,t,'Drama|Comedy') for i,t in films.items())])
        text = out.getvalue()
    else: text = eol.join(lay['item_sep'].join((str(i),t,'01-Jan-1996')) for i,t in films.items())+eol
    (path/lay['items']).write_bytes(text.encode(encoding))
    return path

settings = Config.find('settings.ini', Path(__file__).parent).d.parser

def release_path(name):
    path = fastai_path('data')/name
    if not path.exists(): pytest.skip(f"{name} is not in fastai's data folder, {path.parent}")
    return path

def as_script(code, args, conn):
    "Run `code` as `python -c` would; `ready` in it says something through `conn`"
    sys.argv = ['-c', *map(str, args)]
    sys.stdout = open(os.devnull, 'w', encoding='utf-8')
    torch.set_num_threads(1)
    exec(code, dict(__name__='__main__', sys=sys, ready=conn.send))

def started(code, *args):
    """A process that runs `code`, and the end of a pipe for what it says. It is forked, where that can be done, from a server
    that has imported fastrec, and has to do so no more"""
    ways = multiprocessing.get_all_start_methods()
    ctx = multiprocessing.get_context('forkserver' if 'forkserver' in ways else 'spawn')
    if 'forkserver' in ways: ctx.set_forkserver_preload(['fastrec.all'])
    ours,theirs = ctx.Pipe()
    process = ctx.Process(target=as_script, args=(code,args,theirs), daemon=True)
    process.start()
    theirs.close()
    return process,ours

kinds = ['fit_bias','fit_als','fit_ials','fit_ease','fit_blend','fit_bayes','net']

class Fitted(dict):
    "A learner of `ratings` by each of the `kinds`, fitted when it is first asked for"
    def __init__(self, ratings): self.ratings = ratings
    def __missing__(self, kind):
        dls = RecDataLoaders.from_df(self.ratings, seed=1)
        self[kind] = learn = (nn_learner if kind=='net' else learner)(dls)
        with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'):
            if kind=='net': learn.fit_one_cycle(2)
            elif kind=='fit_bayes': learn.fit_bayes(n_sweep=12, burn=4, n_draws=4)
            else: getattr(learn, kind)()
        return learn

@pytest.fixture(autouse=True)
def process_as_it_was():
    "Fail a test that changes its process for those that follow it: switched off loops, threads, objects that are never collected"
    threads = torch.get_num_threads()
    yield
    assert not without_loops.is_set() and torch.get_num_threads()==threads and not gc.get_freeze_count()

@pytest.fixture(scope='session')
def sample(): return sample_ratings(n_users=200, n_items=120, n_ratings=6000, with_truth=True)

@pytest.fixture(scope='session')
def ratings(sample): return sample[0]

@pytest.fixture
def dls(ratings): return RecDataLoaders.from_df(ratings, seed=1, bs=256)

@pytest.fixture(params=[DotBias, DeepMF])
def arch(request): return request.param

def seldom(*cases):
    "The `cases` of a parametrized test as those that `make fuzz` alone runs: they say little beyond the others"
    return [pytest.param(*o, marks=pytest.mark.long) if isinstance(o, tuple) else pytest.param(o, marks=pytest.mark.long) for o in cases]

def catalogue(u, i, seen=None):
    "A recommender with the factors `u` and `i`"
    m = DotBias(u.shape[1], len(u)+1, len(i)+1)
    for e,w in ((m.u_weight,u),(m.i_weight,i)): e.weight.data[1:] = w
    m.i_bias.weight.data.uniform_(-.5, .5)
    m.mean.fill_(3.5)
    classes = dict(user=Vocab(range(len(u)), 'user'), item=Vocab(range(len(i)), 'item'))
    return Recommender(m, RatingsTensors(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0), classes, 'rating'), seen)

@contextmanager
def quietly():
    "Learners made inside show no bars"
    callbacks = list(defaults.callbacks)
    defaults.callbacks[:] = [o for o in callbacks if o is not ProgressCallback]
    try: yield
    finally: defaults.callbacks[:] = callbacks

@pytest.fixture(autouse=True)
def quiet():
    with quietly(): yield
