"""Closed-form fits: against dense equations and a grid of regularizations, on data at the edges, and what comes after them"""
import warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.tracker import EarlyStoppingCallback
from fastai.learner import load_learner
from conftest import release_path,seldom
from fastai.callback.core import Callback
from fastrec.fit import gibbs
from fastrec.fit.equation_loops import LoopedEquations
from fastrec.all import (BPRLoss,IndexSplitter,RecDataLoaders,RecInterpretation,SeededSplitter,dot_learner,learner,load_recommender,movielens_folds,
                         nn_learner,sample_ratings)

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

@pytest.mark.filterwarnings('ignore:(all ratings|each of)')
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

@pytest.mark.parametrize('first', [[],['fit_ials'],['fit_ials','fit_ease'],['fit_bias','fit_ials']], ids='-'.join)
@pytest.mark.parametrize('y_range,want', [((.5,5.5),(.5,5.5)), ((0,9),(0,9)), (None,(1.,5.)), (False,None)])
def test_a_range_that_was_asked_for_is_kept_and_one_that_was_inferred_is_cut(y_range, want, first, tmp_path):
    "Also if it is the one that would be inferred, after fits of choices, by draws, and from saved weights, a folder and `init`"
    df = frame(*zip(*grid), [1+(u+i)%5 for u,i in grid])
    learn = dot_learner(loaders(df), y_range=y_range, path=tmp_path)
    assert learn.settings().rule['y_range']==('half a step beyond the ratings' if y_range is None else 'given')
    with learn.no_logging(),warnings.catch_warnings(action='ignore'):
        for fit in first: getattr(learn, fit)()
        learn.fit_als(2, 2)
        assert learn.model.y_range==want
        learn.fit_bayes(3, 3)
        assert learn.model.y_range==want and learn.model.range_is_inferred==(y_range is None)
        learn.save('m')
        rec = load_recommender(learn.save_recommender(tmp_path/'rec'))
        for init in (learn,rec):
            later = learner(loaders(df), init=init)
            assert later.settings().rule['y_range']==('that of init' if y_range is None else 'given')
            later.fit_bayes(3, 2)
            later.fit_als(4, 2)
            assert later.model.y_range==want
        assert not learner(loaders(df), y_range=(0,7), init=rec).model.range_is_inferred
        other = dot_learner(loaders(df), y_range=None if y_range else (0,8), path=tmp_path)
        other.fit_bayes(3, 3)
        other.load('m')
        other.fit_als(4, 2)
        assert other.model.y_range==want

def test_the_scale_of_all_rows_is_that_of_an_inferred_range():
    "As the command line knows it: training may lack the best and the worst rating"
    df = frame(*zip(*grid), [2+(u+i)%3 for u,i in grid])
    dls = loaders(df)
    dls.train_ds.scale = 1.,5.
    learn = dot_learner(dls)
    assert learn.model.y_range==(.5,5.5)
    assert learn.settings().loc['y_range'].tolist()==[(.5,5.5),'half a step beyond the ratings','ratings from 1 to 5']
    with learn.no_logging(): learn.fit_als(2, 2)
    assert learn.model.y_range==(1.,5.)

def test_any_learner_becomes_one_of_biases(ratings):
    learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256))
    with learn.no_logging(): learn.fit_bias()
    assert learn.model.item_factors.shape[1]==0 and learn.history.rmse.iloc[-1]<1.05

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

# ------------------------------------------------------------------ least squares
def dense_rows(ds, other, reg, power, k, mean):
    "One side's rows by a float64 ridge regression each, from the codes and ratings"
    rows,cols = ds.x.long().T.flip(0) if k else ds.x.long().T
    res = torch.zeros(len(list(ds.classes.values())[k]), other.shape[1]).double()
    for r in rows.unique():
        here = cols[rows==r]
        z = torch.cat([other[here,:-1], torch.ones(len(here), 1)], 1).double()
        y = ds.y[rows==r].double()-mean-other[here,-1].double()
        res[r] = torch.linalg.solve(z.T@z + reg*len(here)**power*torch.eye(z.shape[1]).double(), z.T@y)
    return res

@pytest.mark.parametrize('power', [0,.5,1])
def test_als_equals_dense_equations(power):
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500)
    learn = dot_learner(loaders(df, 100), y_range=False)
    with learn.no_logging(): learn.fit_als(5, 40, reg=2, power=power, tol=0)
    ds,m = learn.dls.train_ds,learn.model
    users,items = (torch.cat([e.weight.detach() for e in es], 1) for es in m.tables)
    want = dense_rows(ds, users, 2, power, 1, float(m.mean))
    assert torch.allclose(items[1:].double(), want[1:], atol=1e-4)
    off = learn.predict_df(ds.decode(ds.x))-ds.y.numpy()
    assert learn.history.train_loss.iloc[-1]==pytest.approx((off**2).mean(), abs=1e-5)

def test_als_objective_falls_and_goes_on():
    dls = loaders(sample_ratings(n_users=100, n_items=80, n_ratings=4000), 400)
    once,twice = dot_learner(dls, seed=1),dot_learner(dls, seed=1)
    with once.no_logging(): once.fit_als(4, 8, reg=1.3, tol=0)
    with twice.no_logging():
        twice.fit_als(4, 4, reg=1.3, tol=0)
        twice.fit_als(4, 4, reg=1.3, tol=0)
    assert (once.history.train_loss.diff().iloc[1:]<0).all()
    assert torch.equal(once.model.u_weight.weight, twice.model.u_weight.weight)

# ------------------------------------------------------------------ draws
@pytest.fixture(scope='module')
def bayes():
    ratings,truth = sample_ratings(with_truth=True)
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=42))
    with learn.no_logging(),learn.no_bar(): learn.fit_bayes(4, 80)
    return learn,ratings.iloc[SeededSplitter(seed=42)(ratings)[1]],truth

def test_posterior_mean_is_near_the_noise_floor():
    "Where there are enough ratings to know everybody; what can't be known of the 60 ratings a user has in the sample costs 5%"
    ratings,truth = sample_ratings(n_users=1000, n_items=300, n_ratings=240_000, with_truth=True)
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=42))
    with learn.no_logging(): learn.fit_bayes(3, 60)
    valid = ratings.iloc[SeededSplitter(seed=42)(ratings)[1]]
    rmse = np.sqrt(((learn.predict_df(valid, unknown='average')-valid.rating)**2).mean())
    assert rmse<truth.best_rmse(valid)*1.02
    assert learn.history.rmse.iloc[-1]==pytest.approx(rmse, abs=2e-3)

@pytest.mark.parametrize('n_fit,n_kept', [(3,10), (40,18), *seldom((15,15), (500,18))])
def test_draws_of_many_rows_are_thinned(n_fit, n_kept, monkeypatch):
    learn = dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=60, n_items=40, n_ratings=900), seed=42, bs=64))
    n_rows = sum(map(len, learn.dls.classes.values()))
    monkeypatch.setattr(gibbs, '_most_bytes', n_fit*4*4*n_rows)  # rows of three factors and a bias
    with warnings.catch_warnings(record=True) as told, learn.no_logging(),learn.no_bar():
        warnings.simplefilter('always')
        learn.fit_bayes(3, 20)
    assert learn.model.n_draws==n_kept and learn.settings().value['n_draws']==min(max(n_fit, 10), 100)
    assert learn.settings().loc['n_draws','from'].endswith(f'; {n_kept} are kept')
    assert learner(learn.dls, init=learn).settings().value['n_factors']==3
    assert [str(o.message) for o in told if 'keeps' in str(o.message)]==([] if n_kept==18 else
        [f'keeps {n_kept} draws of 18, evenly spread over the sweeps, for more take over 2 GB: pass n_draws to have them'])
    with learn.no_logging(),learn.no_bar(): learn.fit_bayes(3, 20, burn=2, n_draws=16)
    assert learn.model.n_draws==16 and learn.settings().loc['n_draws',['value','rule']].tolist()==[16,'given']

@pytest.mark.parametrize('burn', [0,3])
def test_the_record_is_of_the_draws_that_are_kept(burn):
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=900)
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=42, bs=64))
    with learn.no_logging(): learn.fit_bayes(3, 5, burn=burn)
    assert learn.model.n_draws==5-burn
    assert learn.history.rmse.iloc[-1]==pytest.approx(learn.validate()[1], abs=1e-5)

def test_how_much_columns_say_is_learned_again_by_a_fit_that_goes_on(monkeypatch):
    from fastrec.fit.priors import Columns
    learn,drawn = dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=60, n_items=40, n_ratings=900), seed=42, bs=64)),[]
    draw_lam = Columns.draw_lam
    def look(self, *args):
        draw_lam(self, *args)
        drawn.append(float(self.lam))
    with learn.no_logging(): learn.fit_bayes(3, 12, side='implicit')
    monkeypatch.setattr(Columns, 'draw_lam', look)
    with learn.no_logging(): learn.fit_bayes(3, 12, side='implicit')
    assert len(drawn)==4 and all(o!=1 for o in drawn)  # after 5 and 10 sweeps, for users and for items

def test_intervals_cover(bayes):
    learn,valid,_ = bayes
    p = learn.predict_df(valid, unknown='average', std=True)
    inside = ((valid.rating-p.iloc[:,0]).abs()<1.645*p['std']).mean()
    assert .88<=inside<=.92

@pytest.mark.filterwarnings('ignore:.*unknown in|.*left out')
def test_intervals_of_the_unknown_cover_too(tmp_path):
    "Users and films of whom nothing is known are predicted as the average, which most differ from"
    df = sample_ratings(n_users=400, n_items=300, n_ratings=24_000)
    rng = np.random.default_rng(0)
    is_new = [df[k].isin(rng.choice(df[k].unique(), n, replace=False)) for k,n in (('user',60),('title',60))]
    learn = dot_learner(RecDataLoaders.from_df(df[~(is_new[0]|is_new[1])], seed=0))
    with learn.no_logging(),learn.no_bar(): learn.fit_bayes()
    valid = learn.dls.valid_ds.decode(*learn.dls.valid_ds[:])
    std = {}
    for name,rows in dict(known=valid, user=df[is_new[0]&~is_new[1]], item=df[is_new[1]&~is_new[0]], both=df[is_new[0]&is_new[1]]).items():
        p = learn.predict_df(rows, unknown='average', std=True)
        inside = ((rows.rating-p.iloc[:,0]).abs()<1.645*p['std']).mean()
        std[name] = p['std'].mean()
        assert .85<=inside<=(.99 if name=='both' else .96), (name,inside)  # wide intervals go beyond the scale of the ratings
    assert std['known']<min(std['user'], std['item']) and max(std['user'], std['item'])<std['both']
    nobody = pd.DataFrame(dict(user=[-1], title=['nothing']))
    there = load_recommender(learn.save_recommender(tmp_path/'films'))
    assert np.allclose(there.predict_df(nobody, unknown='average', std=True), learn.predict_df(nobody, unknown='average', std=True), atol=1e-4)
    new = learn.fold_in(valid.head(3)[['title','rating']].assign(title=learn.dls.classes['title'].labels[:3]))
    one,none = (new.predict(title, unknown='average', std=True)[1] for title in (learn.dls.classes['title'].labels[0],'nothing'))
    assert one<none

def test_std_of_one_rating(bayes):
    learn,valid,_ = bayes
    row = valid.iloc[0]
    mean,std = learn.predict(row.user, row.title, std=True)
    p = learn.predict_df(valid.head(1), std=True)
    assert mean==pytest.approx(p.iloc[0,0], abs=1e-6) and std==pytest.approx(p.iloc[0,1], abs=1e-6)
    with pytest.raises(ValueError, match='fit it with fit_bayes'): dot_learner(learn.dls).predict(row.user, row.title, std=True)

def test_recommend_weighs_the_uncertainty(bayes):
    learn,valid,_ = bayes
    users = valid.user.unique()[:5].tolist()
    grid = {z: learn.recommend(users, n=3, z=z) for z in (0.,-1.,1.)}
    frame = grid[-1.][['user','title']]
    p = learn.predict_df(frame)
    spread = learn.model.spread(learn.dls.train_ds.encode(frame, with_labels=False).x)
    inside = (p<5).to_numpy()
    assert inside.sum()>3 and np.allclose(grid[-1.].score[inside], (p-spread.numpy())[inside], atol=1e-3)
    assert grid[1.].score.mean()>grid[0.].score.mean()+.01>grid[-1.].score.mean()+.02

def test_everything_works_on_the_posterior(bayes, tmp_path):
    learn,valid,_ = bayes
    grid = learn.predict_grid()
    some = valid[valid.title.isin(learn.dls.classes['title'].labels) & valid.user.isin(learn.dls.classes['user'].labels)].head(20)
    at = [learn.dls.classes[n].lookup(some[n])-1 for n in ('user','title')]
    assert np.allclose(grid[at[0],at[1]], learn.predict_df(some), atol=1e-4)
    assert len(learn.similar(some.title.iloc[0], n=3))==3 and len(RecInterpretation.from_learner(learn).item_bias(5))==5
    learn.path = tmp_path
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    assert np.allclose(loaded.predict_df(some, std=True), learn.predict_df(some, std=True), atol=1e-6)

def test_fold_in_by_the_same_equations(bayes):
    "A user folded in with their own training ratings is predicted for about as the sampler does"
    learn,*_ = bayes
    ds = learn.dls.train_ds
    own = ds.decode(ds.x, ds.y)
    user = own.user.mode()[0]
    new = learn.fold_in(own[own.user==user][['title','rating']])
    titles = own.title.unique()[:200]
    a,b = (o.predict_grid(u, titles)[0].numpy() for o,u in ((learn,[user]),(new,None)))
    assert np.abs(a-b).mean()<.1 and np.corrcoef(a, b)[0,1]>.97
    nobody = learn.fold_in(pd.DataFrame(dict(title=[], rating=[])).astype(dict(rating='float32')))
    assert np.abs(nobody.predict_grid(None, titles)[0].numpy()-learn.predict_grid(None, titles).mean(0).numpy()).mean()<.05

def test_same_seed_same_draws():
    dls = loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100)
    def drawn(**kwargs):
        learn = dot_learner(dls, seed=3)
        with learn.no_logging(): learn.fit_bayes(3, 12, side='implicit', **kwargs)
        return learn.model.u_weight.weight
    assert torch.equal(drawn(), drawn()) and drawn(n_draws=3).shape[1]==9

@pytest.mark.parametrize('fit', ['fit_bias','fit_als','fit_ials'])
def test_same_seed_same_solution(fit):
    def fitted():
        learn = dot_learner(loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100), seed=3)
        with learn.no_logging(): getattr(learn, fit)()
        return learn.model.state_dict()
    a,b = fitted(),fitted()
    assert all(torch.equal(a[k], b[k]) for k in a)

def test_interrupted_sampling_keeps_its_draws():
    class CtrlC(Callback):
        def before_epoch(self):
            if self.epoch==9: raise KeyboardInterrupt
    dls = loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100)
    learn = dot_learner(dls, seed=3)
    with pytest.raises(KeyboardInterrupt), learn.no_logging(): learn.fit_bayes(3, 20, burn=4, cbs=CtrlC())
    assert learn.model.n_draws==5 and len(learn.recommend(n=1))
    with learn.no_logging(): learn.fit_bayes(3, 6)
    assert learn.model.n_draws==6

def users_frame(dls, **cols): return pd.DataFrame(dict(user=dls.classes['user'].labels, **{k: f(len(dls.classes['user'])-1) for k,f in cols.items()}))

@pytest.mark.parametrize('change,error', [
    (lambda f: f.iloc[1:], "side has no row for 1 of"), (lambda f: pd.concat([f, f.head(1)]), 'several times'),
    (lambda f: f.assign(age=f.age.where(f.index>0)), "side has no value in 'age' for"), (lambda f: f.rename(columns=dict(user='who')), "side has neither 'user' nor 'title'"),
    (lambda f: f.assign(age=np.inf), 'not finite'), (lambda f: 'implizit', "side='implizit' must be 'implicit'")])
def test_bad_side(change, error):
    dls = loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100)
    learn = dot_learner(dls)
    with pytest.raises(ValueError, match=error), learn.no_logging(): learn.fit_bayes(3, 6, side=change(users_frame(dls, age=lambda n: np.arange(n)*1e6)))

def test_side_frames():
    dls = loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100)
    learn = dot_learner(dls)
    users = users_frame(dls, age=lambda n: np.arange(n)*1e9, job=lambda n: np.where(np.arange(n)%2, 'a|b', 'c'), same=np.ones)
    with pytest.warns(UserWarning, match="'same' is the same for all"), learn.no_logging(): learn.fit_bayes(3, 10, side=['implicit',users])
    assert np.isfinite(learn.history).all().all()

@pytest.mark.parametrize('call,error', [(lambda l: l.fit_als(reg=-1), 'reg=-1 must be'), (lambda l: l.fit_als(2.5), 'n_factors=2.5'), (lambda l: l.fit_bayes(n_sweep=5, burn=5), 'burn=5'),
                                        (lambda l: l.fit_bayes(n_draws=0), 'n_draws=0'), (lambda l: l.fit_als(4, reg=0), 'make the regularization stronger')])
def test_bad_solver_arguments(call, error):
    learn = dot_learner(loaders(sample_ratings(n_users=60, n_items=40, n_ratings=300), 100))
    with pytest.raises(ValueError, match=error), learn.no_logging(): call(learn)

def test_new_users_have_their_uncertainty(bayes):
    "The more a new user has rated, the surer the predictions"
    learn,*_ = bayes
    own = learn.dls.train_ds.decode(learn.dls.train_ds.x, learn.dls.train_ds.y)
    mine = own[own.user==own.user.mode()[0]][['title','rating']]
    titles = own.title[~own.title.isin(mine.title)].unique()[:40]
    none,few,many = (learn.fold_in(mine.head(n)) for n in (0,3,80))
    std = [np.mean([o.predict(title, std=True)[1] for title in titles]) for o in (none,few,many)]
    assert std[0]>std[1]>std[2]
    assert len(many.recommend(n=5, z=-1.))==5

def test_ratings_after_choices_keep_their_range():
    learn = dot_learner(loaders(sample_ratings(n_users=60, n_items=40, n_ratings=1500), 100))
    with learn.no_logging():
        learn.fit_ials(4, 3)
        assert learn.model.is_preference
        learn.fit_als(4, 3)
    assert not learn.model.is_preference and learn.model.y_range==(1,5)

# ------------------------------------------------------------------ days
@pytest.fixture(scope='module')
def moody():
    "Ratings with planted deviations of users' days"
    df,truth = sample_ratings(n_users=200, n_items=120, n_ratings=12_000, noise=.6, with_truth=True)
    rng = np.random.default_rng(1)
    day,mood = rng.integers(6, size=len(df)),rng.normal(0, .6, (df.user.max()+1, 6))
    df['rating'] = (truth.mean(df)+mood[df.user,day]+rng.normal(0, .6, len(df))).round().clip(1, 5).astype('float32')
    df['timestamp'] = (11_000+day)*86400+rng.integers(86400, size=len(df))
    return df,mood

@pytest.fixture(scope='module')
def daily(moody):
    learn = dot_learner(RecDataLoaders.from_df(moody[0], time_name='timestamp', seed=42))
    with learn.no_logging(),learn.no_bar(): learn.fit_bayes(3, 60, time='1D')
    return learn

def test_days_are_found(moody, daily):
    df,mood = moody
    plain = dot_learner(daily.dls)
    with plain.no_logging(),plain.no_bar(): plain.fit_bayes(3, 60)
    assert daily.validate()[1]<.95*plain.validate()[1]
    assert daily.history.rmse.iloc[-1]==pytest.approx(daily.validate()[1], abs=2e-3)
    e = daily.model.time_effects[0]
    planted = mood[daily.dls.classes['user'].decode(e.keys//2**31),(e.keys%2**31-11_000).numpy()]
    assert np.corrcoef(planted, e.mean)[0,1]>.8 and float(e.variance)**.5==pytest.approx(.6, abs=.1)

def test_intervals_with_days_cover(moody, daily):
    valid = moody[0].iloc[SeededSplitter(seed=42)(moody[0])[1]]
    for frame in (valid, valid.drop(columns='timestamp')):
        p = daily.predict_df(frame, std=True)
        assert .87<=((valid.rating-p.iloc[:,0]).abs()<1.645*p['std']).mean()<=.945

def test_unknown_times_are_average_and_less_sure(moody, daily, tmp_path):
    row = moody[0].head(3)
    known,other,none = (daily.predict_df(o, std=True) for o in (row, row.assign(timestamp=20_000*86400), row.drop(columns='timestamp')))
    assert np.allclose(other, none) and not np.allclose(known.iloc[:,0], none.iloc[:,0]) and (known['std']<none['std']).all()
    assert daily.predict(row.user.iloc[0], row.title.iloc[0])==pytest.approx(none.iloc[0,0], abs=1e-6)
    assert np.allclose(daily.predict_df(row.assign(timestamp=pd.to_datetime(row.timestamp, unit='s')), std=True), known)
    daily.path = tmp_path
    daily.export('l.pkl')
    assert np.allclose(load_learner(tmp_path/'l.pkl').predict_df(row, std=True), known, atol=1e-6)
    new = daily.fold_in(row[['title','rating']])
    assert new.predict(row.title.iloc[0], std=True)[1]>known['std'].mean() and len(daily.recommend(n=2, z=-1.))==2*len(daily.dls.classes['user'].labels)

def test_sampling_days_goes_on_and_repeats(moody):
    def fitted(*sweeps):
        learn = dot_learner(RecDataLoaders.from_df(moody[0].head(3000), time_name='timestamp', seed=4))
        with learn.no_logging(),learn.no_bar():
            for n in sweeps: learn.fit_bayes(2, n, time=['1D','10min'], side='implicit')
        return learn
    a,b,on = fitted(8),fitted(8),fitted(8, 4)
    assert torch.equal(a.model.time_effects[0].effects, b.model.time_effects[0].effects) and on.model.n_draws==4
    assert not torch.equal(on.model.time_effects[0].effects[0], a.model.time_effects[0].effects[-1])
    assert np.corrcoef(on.model.time_effects[0].mean, a.model.time_effects[0].mean)[0,1]>.2

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('fit,kwargs', [('fit_als',dict(n_sweep=3, tol=0)),('fit_ials',dict(n_sweep=3)),('fit_bayes',dict(n_factors=3, n_sweep=40, side='implicit', time='1D'))])
def test_solvers_on_cuda(moody, fit, kwargs):
    rmses = []
    for device in ('cpu','cuda'):
        learn = dot_learner(RecDataLoaders.from_df(moody[0], time_name='timestamp', seed=42, device=device))
        with learn.no_logging(),learn.no_bar(): getattr(learn, fit)(**kwargs)
        rmses.append(learn.recorder.values[-1][0] if fit=='fit_ials' else float(learn.validate()[1]))
        assert len(learn.recommend(n=2)) and learn.model.u_weight.weight.device.type==device
    assert rmses[0]==pytest.approx(rmses[1], abs=1e-3 if fit!='fit_bayes' else .01)

@pytest.mark.parametrize('time,error', [('1D', "name that column in RecDataLoaders"), ('fortnight', "time='fortnight' is no span"), ('1ms', 'must be a second or more')])
def test_bad_time(moody, time, error):
    learn = dot_learner(RecDataLoaders.from_df(moody[0].head(500), seed=4, bs=64, **({} if time=='1D' else dict(time_name='timestamp'))))
    with pytest.raises(ValueError, match=error): learn.fit_bayes(2, 4, time=time)

def test_thompson_draws(bayes):
    learn,*_ = bayes
    users = learn.dls.classes['user'].labels[:20]
    a,b,c = (learn.recommend(users, n=5, draw=s) for s in (0,0,-1))
    assert a.equals(b) and not a.title.equals(c.title)
    (p,b_u),(q,b_i) = ((o[0][...,:-1],o[0][...,-1]) for o in learn.model.draws())
    u,i = (torch.from_numpy(learn.dls.classes[n].lookup(a[n])).long() for n in ('user','title'))
    assert np.allclose(((p[u]*q[i]).sum(1)+b_u[u]+b_i[i]+learn.model.mean).clamp(1, 5), a.score, atol=1e-4)
    with pytest.raises(ValueError, match='there are draws 0 to'): learn.recommend(draw=1000)
    with pytest.raises(ValueError, match='one or the other'): learn.recommend(z=1., draw=1)
    with pytest.raises(ValueError, match='fit it with fit_bayes'): dot_learner(learn.dls).recommend(draw=1)

# ------------------------------------------------------------------ more than there is room for
@pytest.mark.parametrize('fit,what', [
    (lambda l: l.fit_als(100_000), 'the equations of 100,000 factors'), (lambda l: l.fit_ials(100_000), 'the equations of 100,000 factors'), (lambda l: l.fit_bayes(100_000), 'the equations of 100,000 factors'),
    (lambda l: l.fit_als(10**20), 'the equations'), (lambda l: l.fit_als(3000), 'how sure the rows of 3,000 factors are'),
    (lambda l: l.fit_bayes(4, 10**7, n_draws=10**6), '1,000,000 draws')], ids=range(6))
def test_more_than_there_is_room_for(dls, fit, what, monkeypatch):
    "The learner is as it was"
    learn = dot_learner(dls, 3)
    before,model = learn.predict_grid(),learn.model
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 10**9)
    with pytest.raises(ValueError, match=f'cpu has no room for {what}.*, .*: pass fewer n_.*It has 1.0 GB'): fit(learn)
    assert learn.model is model and learn.predict_grid().equal(before) and learn.n_fits==0
    with learn.no_logging(): learn.fit_als(3, 1)

@pytest.mark.parametrize('fit', [lambda l, k: l.fit_als(k, 1), lambda l, k: l.fit_bayes(k, 1, burn=0)], ids=['als','bayes'])
def test_room_is_that_of_the_largest_block(ratings, fit, monkeypatch):
    for o in ('equation_loops','solvers'): monkeypatch.setattr(f'fastrec.fit.{o}.may_run', lambda device: False)
    monkeypatch.setattr('fastrec.fit.borne_out._left_out', lambda ds: [])
    learn,told,made = dot_learner(RecDataLoaders.from_df(ratings, seed=1)),[],[]
    monkeypatch.setattr('fastrec.fit.solvers.need_memory', lambda n, *args: told.append(n))
    bmm = torch.bmm
    def watched(a, b):
        made.append((len(a)*a.shape[1]*b.shape[2],a.numel()))
        return bmm(a, b)
    monkeypatch.setattr(torch, 'bmm', watched)
    with learn.no_logging(): fit(learn, 80)
    most = max(16*n+4*z for n,z in made)
    assert .95*most<max(told)<1.05*most

@pytest.mark.parametrize('fit', [lambda l, k: l.fit_als(k, 1, reg=1), *seldom(lambda l, k: l.fit_bayes(k, 1, burn=0))], ids=['als','bayes'])
def test_room_is_that_of_rows_that_are_added_up_at_once(ratings, fit, monkeypatch):
    learn,told,made = dot_learner(RecDataLoaders.from_df(ratings, seed=1)),[],[]
    monkeypatch.setattr('fastrec.fit.solvers.need_memory', lambda n, *args: told.append(n))
    sums = LoopedEquations._added_up
    def watched(self, *args):
        res = sums(self, *args)
        made.append(16*res[0].numel())
        return res
    monkeypatch.setattr(LoopedEquations, '_added_up', watched)
    with learn.no_logging(): fit(learn, 80)
    assert .95*max(made)<max(told)<1.05*max(made)

@pytest.mark.parametrize('size', [1e-12,1e10,1e12,1e17])
def test_ratings_too_large_or_too_small_are_named(size):
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1200)
    learn = dot_learner(loaders(df.assign(rating=df.rating*size), 100))
    with learn.no_logging(),learn.no_bar():
        learn.fit_bias(reg=2.)
        state = learn.fit_state()
        for fit in ('fit_als','fit_bayes'):
            with pytest.raises(ValueError, match=r"ratings in 'rating' have a standard deviation of 1.*bring the ratings nearer to 1"): getattr(learn, fit)(4, 3)
            assert learn.fit_state()==state
        with pytest.raises(ValueError, match='bring the ratings nearer to 1'): learn.fit_blend(weight=.2)
        assert learn.fit_state()==state
        learn.fit_ials(4, 2)

@pytest.mark.parametrize('size', [1e-8,1e8])
def test_ratings_of_any_other_size_are_fitted_alike(size):
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1200)
    grids = []
    for k in (1.,size):
        learn = dot_learner(loaders(df.assign(rating=df.rating*k), 100))
        with learn.no_logging(),learn.no_bar(): learn.fit_als(4, 5)
        grids.append(learn.predict_grid()/k)
    assert torch.allclose(*grids, atol=.01)

def test_ratings_whose_squares_are_no_numbers_are_refused():
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1200)
    with pytest.raises(ValueError, match="'rating' holds ratings of 5.0e.30, whose squares are too large for float32"): loaders(df.assign(rating=df.rating*1e30))

# ------------------------------------------------------------------ choices in a fit of ratings
@pytest.mark.parametrize('fit', [lambda l: l.fit_als(4, 2), lambda l: l.fit_bias(), lambda l: l.fit_bayes(2, 4), lambda l: l.fit(1), lambda l: l.fit_ials(4, 2), lambda l: l.fit_ease(), lambda l: l.fit_blend(weight=.3)],
                         ids='als bias bayes gradients ials ease blend'.split())
def test_choices_in_a_fit_of_ratings_are_told(fit, request):
    "Once, and only where nothing can be learned from them"
    clicks = sample_ratings(100, 60, 2000)[['user','title']].assign(rating=1)
    learn = learner(RecDataLoaders.from_df(clicks, seed=1, device='cpu'))
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        fit(learn)
    is_told = sum('all ratings are 1' in str(o.message) and 'fit_ials' in str(o.message) for o in told)
    assert is_told==(request.node.callspec.id in ('als','bias','bayes','gradients'))

def test_a_fit_of_ratings_after_one_of_choices_is_told():
    clicks = sample_ratings(100, 60, 2000)[['user','title']].assign(rating=1)
    learn = learner(RecDataLoaders.from_df(clicks, seed=1, device='cpu'), loss_func=BPRLoss())
    with learn.no_bar(),learn.no_logging():
        learn.fit(1)
        with pytest.warns(UserWarning, match='all ratings are 1'): learn.fit_als(2, 2)
