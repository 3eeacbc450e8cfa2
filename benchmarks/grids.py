"""Grids and everyone's top-n against stock fastai, implicit and faiss, in one run; writes results/grids.md, or, for another kind of
processor, `python benchmarks/grids.py avx2`, results/grids_avx2.md. Peers: pip install -e '.[bench]'"""
import sys,threading
from statistics import median
from report import Report,settings
from fastrec.all import *

def timed(*fs, repeats=5):
    "Median seconds of each of `fs`, run in turn, after one run that isn't counted"
    runs = []
    for k in range(repeats+1):
        run = []
        for f in fs:
            start = time.perf_counter()
            f()
            run.append(time.perf_counter()-start)
        if k: runs.append(run)
    return [median(o) for o in zip(*runs)]

def factor_model(n_users, n_items, k, seed=0):
    "A `Recommender` of random factors, and its factors as arrays, bias and all, for the peers"
    torch.manual_seed(seed)
    m = DotBias(k, n_users+1, n_items+1)
    for e in (m.u_weight,m.i_weight): nn.init.normal_(e.weight)
    classes = dict(user=Vocab(range(n_users), 'user'), item=Vocab(range(n_items), 'item'))
    ds = RatingsTensors(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0), classes, 'rating')
    return m,ds

def long_tail(n, n_users, n_items, seed=0):
    "`n` codes of users and items, the items with a long tail"
    rng = np.random.default_rng(seed)
    x = np.stack([rng.integers(1, n_users+1, n), (n_items*rng.random(n)**3).astype(int)+1], 1)
    return torch.from_numpy(x.astype('int32'))

def sides(m, n_users, n_items):
    with torch.no_grad(): return [f(torch.arange(1, n+1)) for f,n in ((m.user_side,n_users),(m.item_side,n_items))]

def trained(ratings):
    "Dot and NN learners on the whole catalogue, and the same weights in stock learners"
    dls = RecDataLoaders.from_df(ratings, seed=0)
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    sdls = CollabDataLoaders.from_df(frame, seed=0, bs=512, item_name='title')
    ours,stock = [learner(dls),nn_learner(dls)],[collab_learner(sdls, y_range=(.5,5.5)),collab_learner(sdls, use_nn=True, layers=[50], y_range=(.5,5.5))]
    for o in ours+stock:
        with o.no_bar(),o.no_logging(): o.fit_one_cycle(1)
    return ours,stock,frame

def against_stock(rep, ratings):
    ours,stock,frame = trained(ratings)
    pairs = pd.MultiIndex.from_product([frame.user.unique(), frame.title.unique()], names=['user','title']).to_frame(index=False)
    def stock_grid(o, bs):
        with o.no_bar(): return o.get_preds(dl=o.dls.test_dl(pairs, bs=bs))[0]
    for name,o,s,goal in zip(('dot','NN [50]'), ours, stock, ('≥ 100×','≥ 10×')):
        times = timed(o.predict_grid, *(partial(stock_grid, s, bs) for bs in (2**14,2**17)), repeats=3)
        rep.add(f'grid 943 × {pairs.title.nunique()}, {name}', f'**{times[0]*1000:.0f} ms**', f'stock fastai {min(times[1:])*1000:.0f} ms', f'{min(times[1:])/times[0]:.0f}× faster', goal)
    return ours[0]

def against_implicit(rep, learn):
    from implicit.als import AlternatingLeastSquares
    from scipy.sparse import csr_matrix
    x = torch.cat([learn.dls.train_ds.x, learn.dls.valid_ds.x])
    x = x[(x>0).all(1)]-1
    u,i = (o.numpy() for o in sides(learn.model, *(len(v)-1 for v in learn.dls.classes.values())))
    als = AlternatingLeastSquares(factors=u.shape[1], num_threads=torch.get_num_threads(), use_gpu=False)
    als.user_factors,als.item_factors = u,i
    seen = csr_matrix((np.ones(len(x), 'float32'), (x[:,0],x[:,1])), shape=(len(u),len(i)))
    ours,peer = timed(lambda: learn.recommend(n=10), lambda: als.recommend(np.arange(len(u)), seen, N=10, filter_already_liked_items=True), repeats=21)
    rep.add('top 10 unseen, everyone in ml-100k, 1 thread', f'**{ours*1000:.1f} ms**', f'implicit {peer*1000:.1f} ms', f'{ours/peer:.2f} of its time', '≤ 1.0')

def search(rep, n_users=4096, n_items=43_884, k=62, n=10):
    import faiss
    from implicit.cpu.topk import topk
    m,ds = factor_model(n_users, n_items, k)
    rec,(u,i) = Recommender(m, ds, None),sides(m, n_users, n_items)
    faiss.omp_set_num_threads(torch.get_num_threads())
    index = faiss.IndexFlatIP(u.shape[1])
    index.add(i.numpy())
    buffer = torch.empty(256, -(-n_items//64)*64)[:,:n_items]  # as ours: rows that begin at a cache line
    def bare():
        for b in u.split(len(buffer)): torch.mm(b, i.T, out=buffer[:len(b)])
    ours,imp,fai,mm = timed(lambda: rec.recommend(n=n, exclude_seen=False), lambda: topk(i.numpy(), u.numpy(), n, num_threads=torch.get_num_threads()),
                            lambda: index.search(u.numpy(), n), bare)
    for name,t,goal in (('implicit',imp,.5),('faiss, exact',fai,1.),('bare matrix products',mm,1.25)):
        rep.add(f'top {n} of {n_users} users × {n_items:,} items, {k+2} numbers each, 2 threads', f'**{ours:.3f} s**', f'{name} {t:.3f} s', f'{ours/t:.2f} of its time', f'≤ {goal}')

@contextmanager
def peak_memory():
    "A list that ends up with the GB by which this process grew inside, at most, looked at every 20 ms (Linux)"
    now = lambda: int(Path('/proc/self/statm').read_text(encoding='utf-8').split()[1])*os.sysconf('SC_PAGE_SIZE')/2**30
    before,res,stop = now(),[0.],threading.Event()
    def watch():
        while not stop.wait(.02): res[0] = max(res[0], now()-before)
    t = threading.Thread(target=watch)
    t.start()
    try: yield res
    finally:
        stop.set()
        t.join()

def everyone(rep, n_users=200_948, n_items=87_585, k=62, n=100, n_seen=32_000_204):
    m,ds = factor_model(n_users, n_items, k)
    seen = Seen(long_tail(n_seen, n_users, n_items), n_users+1, n_items+1)
    seen.counts.clamp_(min=1)
    u,i = sides(m, n_users, n_items)
    buffer,path = torch.empty(256, -(-n_items//64)*64)[:,:n_items],Path(tempfile.mkdtemp())/'recs.parquet'
    def bare():
        for b in u.split(len(buffer)): torch.mm(b, i.T, out=buffer[:len(b)])
    start = time.perf_counter()
    with peak_memory() as peak: Recommender(m, ds, seen).recommend(n=n, path=path)
    ours = time.perf_counter()-start
    start = time.perf_counter()
    bare()
    mm = time.perf_counter()-start
    shutil.rmtree(path.parent)
    rep.add(f'top {n} unseen of {n_users:,} users × {n_items:,} items, 2 threads, to Parquet', f'**{ours:.1f} s**, {peak[0]:.2f} GB more', f'bare matrix products {mm:.1f} s', f'{ours/mm:.2f} of their time', '≤ 1.4, ≤ 1 GB')

def cold_errors(ratings, folds, draw):
    "RMSE for each fold of users held out whole, by how many of their ratings are known; and the last learner"
    fold = np.random.default_rng(draw).permutation(ratings.user.max())[ratings.user-1] % folds
    errors = {n: [] for n in (0,5,10,20)}
    for f in range(folds):
        learn = learner(RecDataLoaders.from_df(ratings, MaskSplitter(fold==f), seed=draw))
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(5)
        test = ratings[(fold==f) & ratings.title.isin(learn.dls.classes['title'].labels)].sample(frac=1, random_state=draw)
        k = test.groupby('user').cumcount()
        for n in errors:
            known,rest = test[k<n],test[k>=n]
            with warnings.catch_warnings(action='ignore'): pred = learn.fold_in(known).predict_df(rest) if n else learn.predict_df(rest, unknown='average')
            errors[n].append(((pred-rest.rating)**2).mean()**.5)
    return errors,learn

def cold_users(rep, ratings, folds=5, draws=3):
    "Users held out whole: each once in each of `draws` divisions into folds"
    runs,learns = zip(*(cold_errors(ratings, folds, d) for d in range(draws)))
    for n,goal in zip(runs[0], (1.03,.975,.96,.93)):
        rep.add(f'users never trained on, {n} ratings known: RMSE', f'**{np.mean([r[n] for r in runs]):.4f}**', f'{draws} draws of {folds} folds', ' '.join(f'{np.mean(r[n]):.4f}' for r in runs), f'≤ {goal}')
    many = ratings.assign(user=ratings.user % 1000)[['user','title','rating']].groupby('user').head(20)
    many = many[many.title.isin(learns[-1].dls.classes['title'].labels)]
    t, = timed(lambda: learns[-1].fold_in(many), repeats=3)
    rep.add(f'fold_in of {many.user.nunique()} new users', f'**{t:.2f} s**', '', '', '< 1 s for 1,000')

def main():
    ratings = movielens(settings['speed']['release'])
    rep = Report('_'.join(['grids',*sys.argv[1:]]), 'what', 'fastrec', 'compared with', 'ratio', 'to reach')
    against_implicit(rep, against_stock(rep, ratings))
    torch.set_num_threads(2)
    search(rep)
    cold_users(rep, ratings)
    everyone(rep)
    rep.write()

if __name__=='__main__': main()
