"""Seconds and peak memory from files to the first batch, at ml-1m's and ml-25m's size; writes results/loading.md"""
import json,resource,subprocess,sys,tempfile
from statistics import median
from report import Report,settings
from fastrec.all import *

def write_csvs(path, rows, users, items, seed=0):
    "A folder like ml-25m's, of random ratings with a long tail"
    rng = np.random.default_rng(seed)
    ids = lambda n: np.minimum((n*rng.random(rows)**2.5).astype('int32'), n-1)+1
    df = pd.DataFrame(dict(userId=np.sort(ids(users)), movieId=ids(items), rating=rng.integers(1, 11, rows)/2, timestamp=rng.integers(8e8, 15e8, rows)))
    df.to_csv(path/'ratings.csv', index=False)
    pd.DataFrame(dict(movieId=range(1, items+1), title=[f'Film, {i} (1999)' for i in range(1, items+1)], genres='Drama')).to_csv(path/'movies.csv', index=False)

def load(path):
    "Load the folder in a process of its own: seconds, and the process's peak memory in GB"
    start = time.perf_counter()
    df = movielens('ml-25m', path)
    print(json.dumps(dict(rows=len(df), seconds=time.perf_counter()-start, gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss/2**20)))

def timed(f, repeats=3):
    "Median seconds of `f`, and its last result"
    res = []
    for _ in range(repeats):
        start = time.perf_counter()
        out = f()
        res.append(time.perf_counter()-start)
    return median(res),out

def from_df_rows(rep, c):
    n = c.getint('rows_df')
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(1, 70_000, n), item=rng.integers(1, 10_000, n), rating=rng.integers(1, 6, n).astype('float32')))
    t,dls = timed(lambda: RecDataLoaders.from_df(df, seed=0))
    stock,sdls = timed(lambda: CollabDataLoaders.from_df(df, seed=0, bs=512), 1)
    rep.add(f'from_df, {n:,} rows of integers', f'**{t:.2f}**', f'{stock:.1f}', f'< {c["max_seconds_df"]} s')
    titled = df.assign(item='Film number ' + df['item'].astype(str))
    t,_ = timed(lambda: RecDataLoaders.from_df(titled, seed=0), 1)
    rep.add(f'from_df, {n:,} rows with titles as text', f'**{t:.2f}**', '', f'< {c["max_seconds_df"]} s')
    t,_ = timed(dls.train.get_idxs)
    stock,_ = timed(sdls.train.get_idxs, 1)
    rep.add(f"order of an epoch, {len(dls.train_ds):,} rows", f'**{t:.2f}**', f'{stock:.1f}', f'< {c["max_seconds_order"]} s')

def main():
    c = settings['loading']
    rep = Report('loading', 'what', 'fastrec, s', 'stock fastai, s', 'to reach')
    t,df = timed(lambda: movielens(c['release']))
    rep.add(f'movielens("{c["release"]}"), {len(df):,} rows', f'**{t:.2f}**', '', f'< {c["max_seconds_release"]} s')
    with tempfile.TemporaryDirectory() as d:
        write_csvs(Path(d), *(c.getint(k) for k in ('rows_csv','users','items')))
        out = json.loads(subprocess.run([sys.executable, __file__, d], capture_output=True, text=True, check=True).stdout)
    rep.add(f'movielens("ml-25m") on a generated folder, {out["rows"]:,} rows', f'**{out["seconds"]:.1f}**, peak **{out["gb"]:.2f} GB**', '',
            f'< {c["max_seconds_csv"]} s, < {c["max_gb_csv"]} GB')
    from_df_rows(rep, c)
    rep.write()

if __name__=='__main__': load(sys.argv[1]) if len(sys.argv)>1 else main()
