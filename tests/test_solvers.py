"""Closed-form fits: against dense equations and a grid of regularizations, on data at the edges, and what comes after them"""
import warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import load_learner
from conftest import release_path
from fastrec.all import IndexSplitter,RecDataLoaders,RecInterpretation,dot_learner,movielens_folds,nn_learner,sample_ratings

def loaders(df, n_valid=1, **kwargs):
    "All but the last `n_valid` rows for training"
    n = len(df)-n_valid
    return RecDataLoaders.from_df(df, lambda o: (np.arange(n), np.arange(n, len(o))), bs=min(64, n), seed=0, **kwargs)

def frame(u, i, y): return pd.DataFrame(dict(user=list(u), item=list(i), rating=list(map(float, y))))

def test_fixed_point_in_double_precision():
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1200)
    learn = dot_learner(loaders(df, 100), y_range=False)
    with learn.no_logging(): learn.fit_bias(300, reg=(3,5), tol=0)
    ds,m = learn.dls.train_ds,learn.model
    x = torch.cat([torch.nn.functional.one_hot(c.long(), len(v))[:,1:] for c,v in zip(ds.x.T, ds.classes.values())]+[torch.ones(len(ds), 1)], 1).double()
    reg = torch.cat([torch.full((len(v)-1,), float(r)) for v,r in zip(ds.classes.values(), (3,5))]+[torch.zeros(1)]).double()
    want = torch.linalg.solve(x.T@x+reg.diag(), x.T@ds.y.double())
    assert torch.allclose(torch.cat([m.u_bias.weight[1:,0], m.i_bias.weight[1:,0], m.mean[None]]).double(), want, atol=1e-5)
    off = learn.predict_df(ds.decode(ds.x))-ds.y.numpy()
    assert learn.history.train_loss.iloc[-1]==pytest.approx((off**2).mean(), abs=1e-5)

def test_estimates_regularization_that_a_grid_cannot_beat_by_much():
    df = sample_ratings()
    dls = loaders(df, len(df)//5)
    def rmse(reg):
        learn = dot_learner(dls)
        with learn.no_logging(): learn.fit_bias(reg=reg)
        return learn.history.rmse.iloc[-1]
    grid = {r: rmse(r) for r in (.001,1.,2.,4.,8.,16.,32.)}
    assert rmse(None)<min(grid.values())+.001 and max(grid.values())>min(grid.values())+.003

def test_official_folds():
    folds = movielens_folds('ml-100k', release_path('ml-100k'))
    def rmse(name):
        train,test = folds[name]
        learn = dot_learner(loaders(pd.concat([train, test], ignore_index=True), len(test)))
        with learn.no_logging(): learn.fit_bias()
        return learn.history.rmse.iloc[-1]
    assert np.mean([rmse(f'u{k}') for k in range(1, 6)])<=.946

a,b = np.arange(7),np.arange(3)
grid = [(u,i) for u in a for i in b]
edges = {'additive': frame(*zip(*grid), [1+u%3+i for u,i in grid]), 'constant': frame(*zip(*grid), [4]*21), 'one item': frame(a, [0]*7, 1+a%5),
         'one user': frame([0]*7, a, 1+a%5), 'disjoint': frame(range(20), range(20), [1+k%5 for k in range(20)]), 'two rows': frame([1,2], [1,1], [3,4])}

@pytest.mark.parametrize('name', edges)
@pytest.mark.parametrize('reg', [None,0,.5])
def test_edges(name, reg):
    df = pd.concat([edges[name], edges[name].head(1)], ignore_index=True)
    learn = dot_learner(loaders(df))
    with learn.no_logging(): learn.fit_bias(100, reg=reg, tol=0)
    mse = learn.history.train_loss
    assert np.isfinite(mse).all() and all(w.isfinite().all() for w in learn.model.parameters())
    assert mse.iloc[-1]<=df.rating[:-1].var(ddof=0)+1e-6
    if name in ('additive','constant') and reg==0: assert mse.iloc[-1]<1e-6
    assert np.isfinite(learn.fold_in(frame([99], df.item[:1], [df.rating[0]])).predict(df.item[0]))

def test_what_comes_after(ratings, tmp_path):
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256))
    state = torch.get_rng_state()
    with learn.no_logging(): learn.fit_bias(cbs=EarlyStoppingCallback(monitor='rmse', patience=3))
    assert state.equal(torch.get_rng_state())
    after = learn.history.rmse.iloc[-1]
    assert learn.validate()[1]==pytest.approx(after, abs=1e-6) and list(learn.history)==['train_loss','valid_loss','rmse']
    grid = learn.predict_grid()
    assert grid.min()>=1 and grid.max()<=5
    best = learn.recommend(n=3, exclude_seen=False)
    items = RecInterpretation.from_learner(learn).item_bias()
    assert set(best.title)==set(items.title[:3])
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings(action='ignore'): loaded = load_learner(tmp_path/'l.pkl')
    assert loaded.predict_grid().equal(grid)
    with pytest.raises(ValueError, match='a loaded learner holds no ratings'): loaded.fit_bias()
    with learn.no_logging(): learn.fit_one_cycle(2)
    assert abs(learn.history.rmse.iloc[-1]-after)<.05

def test_a_range_of_ones_own_is_kept():
    df = frame(*zip(*grid), [2+(u+i)%4 for u,i in grid])
    for y_range,want in (((1,5),(1,5)),(None,(2.,5.)),(False,None)):
        learn = dot_learner(loaders(df), y_range=y_range)
        with learn.no_logging(): learn.fit_bias()
        assert learn.model.y_range==want
        assert np.isfinite(learn.fold_in(frame([50], [1], [1 if want==(1,5) else 2])).predict(1))

def test_any_learner_becomes_one_of_biases(ratings):
    learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256))
    with learn.no_logging(): learn.fit_bias()
    assert learn.model.item_factors.shape[1]==0 and learn.history.rmse.iloc[-1]<1

@pytest.mark.parametrize('kwargs,message', [(dict(reg=-1), 'reg=\\(-1, -1\\) must be'), (dict(reg=(1,2,3)), 'must be one number'), (dict(n_sweep=0), 'n_sweep=0')])
def test_refused(dls, kwargs, message):
    with pytest.raises(ValueError, match=message): dot_learner(dls).fit_bias(**kwargs)

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_biases_on_cuda(ratings):
    fits = []
    for device in ('cpu','cuda'):
        learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256, device=device))
        with learn.no_logging(): learn.fit_bias()
        fits.append(learn.model.i_bias.weight.detach().cpu())
    assert torch.allclose(*fits, atol=1e-5)
