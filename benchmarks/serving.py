"""From a fresh process to the first recommendation, by a saved recommender and by a pickle, and the load of a recommender of ml-32m's size; writes results/serving.md"""
import subprocess,tempfile
from statistics import median
from report import Report
from fastrec.all import *
from grids import factor_model,long_tail

by_bundle = "from fastrec.export import load_recommender; print(load_recommender({0!r}, 'cpu').recommend({1}, n=10).shape)"
by_pickle = "import warnings; warnings.simplefilter('ignore'); from fastrec.all import *; print(load_learner({0!r}).recommend({1}, n=10, exclude_seen=False).shape)"
bare = "import torch,pandas"

def seconds(code):
    start = time.perf_counter()
    subprocess.run([sys.executable, '-c', code], check=True, stdout=subprocess.DEVNULL, cwd='/')
    return time.perf_counter()-start

def at_ml_1m(folder):
    "A learner of ml-1m's size, of generated ratings, saved in both ways"
    x = long_tail(1_000_209, 6040, 3706).numpy()
    ratings = pd.DataFrame(dict(user=x[:,0], title=[f'Film {o} (1990)' for o in x[:,1]], rating=np.random.default_rng(0).integers(1, 6, len(x)).astype('float32')))
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=0, path=folder))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(n_sweep=2)
    learn.export('learner.pkl')
    return str(learn.save_recommender(folder/'bundle')),str(folder/'learner.pkl')

def at_ml_32m(folder, n_users=200_948, n_items=84_432, n=32_000_204):
    "Seconds to load a recommender of random factors, 50 wide, and the generated ratings of ml-32m's size"
    m,ds = factor_model(n_users, n_items, 50)
    m.classes = ds.classes = dict(user=Vocab(range(n_users), 'user'), item=Vocab([f'Film {o:06} (1990)' for o in range(n_items)], 'item'))
    Recommender(m, ds, Seen(long_tail(n, n_users, n_items), n_users+1, n_items+1)).save_recommender(folder/'big')
    res = []
    for _ in range(5):
        start = time.perf_counter()
        load_recommender(folder/'big', 'cpu')
        res.append(time.perf_counter()-start)
    return median(res),sum(o.stat().st_size for o in (folder/'big').iterdir())

if __name__=='__main__':
    with tempfile.TemporaryDirectory() as d:
        d,rep = Path(d),Report('serving', 'what', 'seconds', 'compared with', 'ratio', 'to reach')
        bundle,pickle = at_ml_1m(d)
        runs = [[seconds(o) for o in (by_bundle.format(bundle, 17),by_pickle.format(pickle, 17),bare)] for _ in range(8)][1:]
        ours,theirs,least = (median(o) for o in zip(*runs))
        rep.add("a process's start to its first recommendation, ml-1m's size", f'**{ours:.2f}**', f'`load_learner` {theirs:.2f}; PyTorch and pandas alone {least:.2f}', f'{ours/theirs:.2f}', '≤ .5')
        took,size = at_ml_32m(d)
        rep.add(f"load_recommender, ml-32m's size ({size/1e6:.0f} MB)", f'**{took:.2f}**', '', '', '< 2 s')
        rep.write()
