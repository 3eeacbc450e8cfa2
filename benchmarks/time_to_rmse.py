"""Seconds of training until RMSE on the test rows is low enough, for fastrec and its peers; writes results/time_to_rmse.md"""
import ctypes,gc,sys,warnings
from contextlib import redirect_stdout
from io import StringIO
from statistics import mean,median
from report import Report,settings
from fastrec.all import *
from torch.utils.data import DataLoader as TorchLoader,TensorDataset
warnings.simplefilter('ignore')

class SkipValidation(Callback):
    def before_validate(self): raise CancelValidException

class Split:
    "Training and test rows, and the predictions of a bias-free guess for what training has not seen"
    def __init__(self, train, test):
        self.train,self.test,self.mean = train,test,train.rating.mean()
        self.users,self.items = (pd.Index(train[c].unique()) for c in ('user','item'))

    def codes(self, df): return self.users.get_indexer(df.user),self.items.get_indexer(df.item)
    def rmse(self, pred): return float(np.sqrt(np.mean((np.clip(pred, 1, 5)-self.test.rating.to_numpy())**2)))

    def rmse_of(self, p, q, b_u, b_i, mean):
        "RMSE of factors and biases; what is unknown has none"
        u,i = self.codes(self.test)
        return self.rmse(mean + np.where(u<0, 0, b_u[u]) + np.where(i<0, 0, b_i[i]) + np.where((u<0)|(i<0), 0, (p[u]*q[i]).sum(1)))

def memory(key):
    "`VmRSS` or, since it was last reset, the peak `VmHWM` of this process, in MB"
    return int(re.search(key+r':\s+(\d+)', Path('/proc/self/status').read_text(encoding='utf-8'))[1])/1024

def cost(f):
    "Seconds of `f`, and the MB it needed at its peak beyond what was there before"
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # otherwise memory that is free, but not given back, would hide what is used
    Path('/proc/self/clear_refs').write_text('5', encoding='utf-8')
    before,start = memory('VmRSS'),time.perf_counter()
    f()
    return time.perf_counter()-start,memory('VmHWM')-before

def fastrec(s, bs=512, epochs=5, n_factors=50, lr=None):
    both = pd.concat([s.train, s.test], ignore_index=True)
    dls = RecDataLoaders.from_df(both, IndexSplitter(range(len(s.train), len(both))), item_name='item', seed=0, bs=bs)
    learn = learner(dls, n_factors=n_factors, lr=lr)
    with learn.no_bar(),learn.no_logging(): t = cost(lambda: learn.fit_one_cycle(epochs, cbs=SkipValidation()))
    return t,s.rmse(learn.predict_df(s.test, unknown='average').to_numpy())

def stock_fastai(s, bs, epochs, lr, wd, n_factors=50):
    frame = s.train[['user','item','rating']].astype(dict(user='str', item='str', rating='float32'))
    dls = CollabDataLoaders.from_df(frame, valid_pct=.001, seed=0, bs=bs)
    learn = collab_learner(dls, n_factors=n_factors, y_range=(.5,5.5), wd=wd)
    with learn.no_bar(),learn.no_logging(): t = cost(lambda: learn.fit_one_cycle(epochs, lr, cbs=SkipValidation()))
    rec = RecLearner.from_learner(learn)
    return t,s.rmse(rec.predict_df(s.test.astype(dict(user='str', item='str')), unknown='average').to_numpy())

def torch_loop(s, bs, epochs, lr, wd, n_factors=50):
    "EmbeddingDotBias in the plainest loop: a torch DataLoader, AdamW, mean squared error"
    u,i = s.codes(s.train)
    data = TensorDataset(torch.from_numpy(np.stack([u,i], 1)), torch.from_numpy(s.train.rating.to_numpy('float32')))
    torch.manual_seed(0)
    model = EmbeddingDotBias(n_factors, len(s.users), len(s.items), (.5,5.5))
    opt = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=wd)
    def train():
        for _ in range(epochs):
            for x,y in TorchLoader(data, bs, shuffle=True):
                opt.zero_grad()
                F.mse_loss(model(x), y).backward()
                opt.step()
    t = cost(train)
    u,i = s.codes(s.test)
    with torch.no_grad(): pred = model(torch.from_numpy(np.stack([u.clip(0), i.clip(0)], 1))).numpy()
    return t,s.rmse(np.where((u<0)|(i<0), s.mean, pred))

def surprise(s, **kwargs):
    import surprise
    data = surprise.Dataset.load_from_df(s.train[['user','item','rating']], surprise.Reader(rating_scale=(1,5))).build_full_trainset()
    model = surprise.SVD(random_state=0, **kwargs)
    t = cost(lambda: model.fit(data))
    return t,s.rmse([model.predict(u, i).est for u,i in zip(s.test.user, s.test.item)])

def cornac(s, **kwargs):
    from cornac.data import Dataset
    from cornac.models import MF
    data = Dataset.from_uir(list(s.train[['user','item','rating']].itertuples(index=False, name=None)), seed=0)
    model = MF(use_bias=True, seed=0, num_threads=1, **kwargs)
    t = cost(lambda: model.fit(data))
    order = [list(data.uid_map).index(s.users[0])==0, list(data.iid_map).index(s.items[0])==0]
    assert all(order) and list(data.uid_map)==list(s.users) and list(data.iid_map)==list(s.items)
    return t,s.rmse_of(model.u_factors, model.i_factors, model.u_biases, model.i_biases, model.global_mean)

def lenskit(s, kind, **kwargs):
    from lenskit.data import from_interactions_df,ItemList,RecQuery
    from lenskit.training import TrainingOptions
    from lenskit.als import BiasedMFScorer
    from lenskit.flexmf import FlexMFExplicitScorer
    data = from_interactions_df(s.train.rename(columns=dict(user='user_id', item='item_id'))[['user_id','item_id','rating']])
    model = dict(als=BiasedMFScorer, flexmf=FlexMFExplicitScorer)[kind](**kwargs)
    t = cost(lambda: model.train(data, TrainingOptions(rng=0)))
    pred = pd.Series(np.nan, s.test.index)
    for u,g in s.test.groupby('user'): pred[g.index] = model(RecQuery(user_id=u), ItemList(item_ids=g.item.to_numpy())).scores()
    return t,s.rmse(pred.fillna(s.mean).to_numpy())

def myfm(s, rank, n_iter):
    import myfm,scipy.sparse as sp
    def rows(df):
        u,i = s.codes(df)
        cols = np.concatenate([u, i+len(s.users)])
        keep = np.concatenate([u>=0, i>=0])
        return sp.csr_matrix((np.ones(keep.sum()), (np.tile(np.arange(len(df)), 2)[keep], cols[keep])), shape=(len(df), len(s.users)+len(s.items)))
    model = myfm.MyFMRegressor(rank=rank, random_seed=0)
    x,y = rows(s.train),s.train.rating.to_numpy()
    t = cost(lambda: model.fit(x, y, n_iter=n_iter, grouping=[0]*len(s.users)+[1]*len(s.items)))
    return t,s.rmse(model.predict(rows(s.test)))

sgd = (1024,1e-2,.4),(512,5e-3,.4),(64,5e-3,.1)  # batch size, learning rate, weight decay
systems = {
    'ml-100k': {
        'fastrec': [partial(fastrec, bs=2048, epochs=3, n_factors=10, lr=.05), partial(fastrec, epochs=3), partial(fastrec)],
        'Cornac MF (compiled)': [partial(cornac, k=10, max_iter=n, learning_rate=.01, lambda_reg=.02) for n in (15,25,40)] + [partial(cornac, k=50, max_iter=60, learning_rate=.01, lambda_reg=.1), partial(cornac, k=200, max_iter=100, learning_rate=.005, lambda_reg=.08)],
        'Surprise SVD (compiled)': [partial(surprise, n_factors=k, n_epochs=n, lr_all=.01, reg_all=.1) for k,n in ((10,20),(10,30),(100,60))],
        'LensKit BiasedMF ALS (compiled)': [partial(lenskit, kind='als', embedding_size=k) for k in (25,50)],
        'myFM Bayesian MF (compiled)': [partial(myfm, rank=10, n_iter=n) for n in (20,50,100)],
        'stock fastai': [partial(stock_fastai, bs=bs, epochs=5, lr=lr, wd=wd) for bs,lr,wd in sgd],
        'PyTorch loop': [partial(torch_loop, bs=bs, epochs=5, lr=lr, wd=wd) for bs,lr,wd in sgd],
        'LensKit FlexMF (PyTorch)': [partial(lenskit, kind='flexmf', embedding_size=50, epochs=n) for n in (10,30)]},
    'ml-1m': {
        'fastrec': [partial(fastrec, bs=8192, epochs=2, lr=.03), partial(fastrec, bs=4096, epochs=4, lr=1e-2), partial(fastrec)],
        'Cornac MF (compiled)': [partial(cornac, k=10, max_iter=n, learning_rate=.01, lambda_reg=.02) for n in (10,25,50)],
        'Surprise SVD (compiled)': [partial(surprise, n_factors=k, n_epochs=n, lr_all=.01, reg_all=.05) for k,n in ((20,10),(50,20))],
        'LensKit BiasedMF ALS (compiled)': [partial(lenskit, kind='als', embedding_size=50)],
        'myFM Bayesian MF (compiled)': [partial(myfm, rank=10, n_iter=n) for n in (20,50)],
        'stock fastai': [partial(stock_fastai, bs=4096, epochs=5, lr=1e-2, wd=.2)],
        'PyTorch loop': [partial(torch_loop, bs=4096, epochs=5, lr=1e-2, wd=.2)]}}

def splits(name):
    "The official folds of ml-100k; a random tenth of ml-1m"
    if name=='ml-100k':
        folds = movielens_folds(name)
        return [Split(*folds[f]) for f in settings['time_to_rmse']['folds'].split()]
    ratings = movielens(name)
    test = np.random.default_rng(0).permutation(len(ratings))[:len(ratings)//10]
    return [Split(ratings.drop(ratings.index[test]), ratings.iloc[test])]

def shown(f): return ', '.join(f'{k} {v}' for k,v in f.keywords.items() if k!='kind') or 'defaults'

def main(names=()):
    c = settings['time_to_rmse']
    rep = Report('time_to_rmse', 'data', 'system', 'settings', 'RMSE', 'training, s', 'MB', 'M ratings/s', 'as a multiple of the fastest fastrec to reach it')
    for name in names or systems:
        goals,data,runs = [float(o) for o in c[name].split()],splits(name),{}
        for s in data:
            for system,fs in systems[name].items():
                for f in fs:
                    with redirect_stdout(StringIO()): runs.setdefault((system,f), []).append(f(s))
                    print(name, system, shown(f), runs[system,f][-1], file=sys.stderr, flush=True)
        res = {k: (mean(r for _,r in v),median(t for (t,_),_ in v),median(mb for (_,mb),_ in v)) for k,v in runs.items()}
        fastest = {g: min((t for (system,_),(r,t,_) in res.items() if system=='fastrec' and r<=g), default=math.nan) for g in goals}
        for (system,f),(r,t,mb) in res.items():
            passed = [f'{g:g}: {t/fastest[g]:.2g}×' for g in goals if r<=g]
            epochs = next((f.keywords[k] for k in ('epochs','max_iter','n_epochs') if k in f.keywords), 5 if system=='fastrec' else None)
            rep.add(name, system, shown(f), f'{r:.4f}', f'{t:.2f}', f'{mb:.0f}', f'{epochs*len(data[0].train)/t/1e6:.2f}' if epochs else '', ', '.join(passed))
    rep.write()

if __name__=='__main__': main(sys.argv[1:])
