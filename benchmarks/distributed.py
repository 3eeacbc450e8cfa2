"""Two processes against one on this machine: an epoch of training and a fit in closed form on ml-1m, and everyone's lists by a local Ray
against `recommend` with two threads; writes results/distributed.md. With an argument it is one of the processes"""
import json,subprocess,sys,tempfile
from report import Report,settings
from fastrec.all import *
c = settings['distributed']
fits = dict(sgd=lambda o: o.fit_one_cycle(c.getint('epochs')), als=lambda o: o.fit_als(c.getint('n_factors'), tol=0), als30=lambda o: o.fit_als(30, tol=0))

def fit(kind):
    "Seconds of an epoch or sweep, RMSE, and the factors, on stdout and in a file"
    learn = learner(RecDataLoaders.from_df(movielens(c['release']), valid_pct=.1, seed=0, bs=c.getint('bs')), sparse=True, shrink=False)
    with learn.no_bar(),learn.no_logging(),learn.distrib_ctx():
        learn.fit(1)  # what a first fit loads isn't counted
        start = time.perf_counter()
        fits[kind](learn)
        took = (time.perf_counter()-start)/len(learn.history)
    if rank_distrib(): return
    torch.save(learn.model.item_factors, Path(tempfile.gettempdir())/f'fastrec-{kind}-{max(num_distrib(), 1)}.pt')
    print(json.dumps((took, float(learn.history.rmse.iloc[-1]))))

def launched(kind, n):
    cmd = [sys.executable, *(['-m','torch.distributed.run','--standalone',f'--nproc_per_node={n}'] if n>1 else []), __file__, kind]
    done = subprocess.run(cmd, capture_output=True, text=True)
    if done.returncode: sys.exit(done.stderr)
    return json.loads(done.stdout.splitlines()[-1])

def compare(rep, kind, what, goals):
    "A row for `kind`: medians of runs that take turns"
    one,two = zip(*[(launched(kind, 1),launched(kind, 2)) for _ in range(c.getint('repeats'))])
    (a,r1),(b,r2) = (tuple(np.median(o, axis=0)) for o in (one,two))
    f1,f2 = (torch.load(Path(tempfile.gettempdir())/f'fastrec-{kind}-{n}.pt') for n in (1,2))
    equal = f'RMSE {r1:.5f}, {r2:.5f}' + (f'; factors differ by {(f1-f2).abs().max():.0e}' if kind!='sgd' else '')
    rep.add(what, f'{a:.3f}', f'{b:.3f}', f'**{b/a:.2f}**', equal, goals)

def everyone(rep):
    "Lists for generated users by a local Ray and by `recommend`"
    users,items,k,each = (c.getint(o) for o in ('users','items','ray_factors','each'))
    g = torch.Generator().manual_seed(0)
    u,i = (torch.randn(n+1, k, generator=g)*.3 for n in (users,items))
    classes = dict(user=Vocab(np.arange(users), 'user'), item=Vocab(np.arange(items), 'item'))
    model = Dot(u, torch.zeros(users+1, 1), i, torch.zeros(items+1, 1))
    model.classes,model.fill_unknown = classes,noop
    x = torch.stack([torch.arange(1, users+1).repeat_interleave(each), torch.randint(1, items+1, (users*each,), generator=g)], 1).int()
    rec = Recommender(model, RatingsTensors(x[:0], torch.zeros(0), classes, 'rating'), Seen(x, users+1, items+1, torch.bincount(x[:,1], minlength=items+1)))
    folder = Path(tempfile.mkdtemp())
    bundle = rec.save_recommender(folder/'bundle')
    del rec,model,u,i,x
    run = 'import sys,time,torch; from fastrec.all import *; s = time.perf_counter(); {}; print(time.perf_counter()-s, __import__("resource").getrusage(__import__("resource").RUSAGE_SELF).ru_maxrss/2**20)'
    alone = run.format(f'load_recommender({str(bundle)!r}).recommend(n=20, path={str(folder/"alone.parquet")!r})')
    ray = run.format(f'recommend_distributed({str(bundle)!r}, {str(folder/"ray")!r}, n=20, workers=2)')
    (a,m),(b,_) = ([float(o) for o in subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True, cwd='/', env={**os.environ, 'OMP_NUM_THREADS': n}).stdout.split()[-2:]]
                   for code,n in ((alone,'2'),(ray,'1')))
    from pyarrow import parquet
    one,parts = parquet.ParquetFile(folder/'alone.parquet'),sorted((folder/'ray').glob('part-*'))
    same = one.read().equals(parquet.read_table(folder/'ray', columns=one.schema.names).cast(one.schema_arrow))
    rep.add(f'top 20 of {users:,} users × {items:,} items, {k} numbers each: `recommend` with two threads, Ray with two workers', f'{a:.1f}', f'{b:.1f}', f'**{b/a:.2f}**',
            f'{"equal" if same else "NOT EQUAL"}, {len(parts)} files; {m:.1f} GB in one process', '≤ 1.15')

def main():
    rep = Report('distributed', 'what', 'one, s', 'two, s', 'ratio', 'the same?', 'to reach')
    compare(rep, 'sgd', f'an epoch of ml-1m, batches of {c.getint("bs"):,}, sparse updates, {c["epochs"]} epochs', '≤ .65; RMSE within .003')
    compare(rep, 'als', f'a sweep of `fit_als({c["n_factors"]})` on ml-1m', '≤ .6; factors to 1e-4')
    compare(rep, 'als30', 'a sweep of `fit_als(30)`', '')
    everyone(rep)
    rep.write()

if __name__=='__main__': fit(sys.argv[1]) if sys.argv[1:] else main()
