"""`fit_sgd`: its loop is the arithmetic it says, the same on any number of threads, and the solver is one like the others"""
import os,subprocess,sys,warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.core import Callback
from fastrec.all import (EarlyStoppingCallback,RecDataLoaders,SaveModelCallback,choose_fit,learner,load_recommender,
                         rmse,sample_ratings)
from fastrec.base.threads import one_thread
from fastrec.base import compiled as loops
from fastrec.fit import sgd as room,sgd_blocks as blocks_room
from fastrec.fit.sgd import _Fit,suited_lr
from fastrec.fit.sgd_blocks import Blocks,dealt,n_groups
from fastrec.fit.sgd_loops import learn_blocks,n_beside

pytestmark = pytest.mark.skipif(not loops.can_compile(), reason='numba is an extra')

def loaders(df=None, seed=1, **kwargs):
    with warnings.catch_warnings(action='ignore'): return RecDataLoaders.from_df(sample_ratings() if df is None else df, seed=seed, **kwargs)

def fit(learn, *args, **kwargs):
    with learn.no_bar(),learn.no_logging(): learn.fit_sgd(*args, **kwargs)
    return learn

def fitted(df=None, *args, seed=1, dl={}, **kwargs):
    with warnings.catch_warnings(action='ignore'): return fit(learner(loaders(df, seed, **dl), seed=seed), *args, **kwargs)  # that tell there is no taste

def error(learn): return float(learn.history.rmse.iloc[-1])
def tables(learn): return [e.weight.detach().clone() for es in learn.model.tables for e in es]
def same(a, b): return all(map(torch.equal, a, b))

@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

@pytest.fixture
def many_blocks(monkeypatch):
    "Eight groups of any data, each round shared by threads"
    monkeypatch.setattr(blocks_room, 'n_groups', lambda n: 8)
    monkeypatch.setattr(blocks_room, '_worth_threads', 0)

# ------------------------------------------------------------------ the loop
def by_hand(users, items, y, w, p, q, lr):
    "Steps as they are written in the notebook, in float64"
    sse,k = 0.,p.shape[1]-n_beside
    for u,i,r,weight in zip(users, items, y, w):
        step = min(lr*weight, max(lr, .25))
        a,b = p[u].copy(),q[i].copy()
        e = r-a[k]-b[k]-a[:k]@b[:k]
        sse += weight*e*e
        for row,own,other in ((p[u],a,b),(q[i],b,a)):
            row[:k] += step*(e*other[:k]-own[k+1]*own[:k])
            row[k] += step*(e-own[k+2]*own[k])
    return sse

@pytest.mark.parametrize('k', [0,1,7,8,50])
@pytest.mark.parametrize('weighed', [False,True])
def test_the_loop_is_the_arithmetic_that_it_says(k, weighed):
    rng = np.random.default_rng(k)
    n,sizes = 3000,(40,25)
    users,items = (rng.integers(m, size=n).astype('int32') for m in sizes)
    y = rng.normal(size=n).astype('float32')
    w = rng.lognormal(0, 2, n).astype('float32') if weighed else y[:0]
    rows = [np.abs(rng.normal(0, .2, (m,k+n_beside))).astype('float32') for m in sizes]
    rows[0][:,:k] *= rng.choice([-1,1], (sizes[0],k))
    want = [o.astype('float64') for o in rows]
    sse,states = np.zeros(1),np.array([5], 'uint64')
    before = sorted(zip(users, items, y, w if weighed else y))
    learn_blocks(np.array([0]), np.array([0,n]), users, items, y, w, *rows, np.float32(.03), states, sse)
    assert sorted(zip(users, items, y, w if weighed else y))==before and states[0]!=5  # in another order, all of them, and together
    by_sse = by_hand(users, items, y, w if weighed else np.ones(n), *want, .03)
    for a,b in zip(rows, want): assert np.allclose(a, b, atol=2e-4*max(1, np.abs(b).max()))
    assert abs(sse[0]/by_sse-1)<1e-4

def test_orders_are_random_and_differ():
    "Any rating may come first, and no pass has the order of another"
    users = np.arange(1000, dtype='int32')
    y,rows = np.zeros(1000, 'float32'),[np.zeros((1000,3), 'float32') for _ in range(2)]
    states,orders = np.array([1], 'uint64'),[]
    for _ in range(200):
        a = users.copy()
        learn_blocks(np.array([0]), np.array([0,1000]), a, a.copy(), y, y[:0], *rows, np.float32(.1), states, np.zeros(1))
        orders.append(a)
    orders = np.array(orders)
    assert len({*map(tuple, orders)})==200
    places = orders.argsort(1).mean(0)  # of each rating, 499.5 on average, with a standard error of 20
    assert np.abs(places-499.5).max()<5*20.5 and 18<places.std()<23

# ------------------------------------------------------------------ blocks
def a_deal(n=5000, sizes=(300,200), seed=0):
    rng = np.random.default_rng(seed)
    x = np.stack([(rng.random(n)**2*m).astype('int32') for m in sizes], 1)
    return x,rng.normal(size=n).astype('float32'),[np.bincount(x[:,k], minlength=m) for k,m in enumerate(sizes)]

def test_a_round_shares_no_row_and_a_pass_has_every_rating_once(many_blocks):
    x,y,counts = a_deal()
    blocks = Blocks(x, y, None, counts, np.random.default_rng(1))
    rounds = blocks._rounds()
    assert rounds.shape==(8,8) and sorted(rounds.ravel())==[*range(64)] and blocks.starts[-1]==len(y)
    for row in rounds:
        for side in (blocks.users,blocks.items):
            own = [{*side[blocks.starts[b]:blocks.starts[b+1]]} for b in row]
            assert sum(map(len, own))==len(set().union(*own))
    codes = [place.argsort() for place in blocks.places]
    again = sorted(zip(codes[0][blocks.users], codes[1][blocks.items], blocks.y))
    assert again==sorted(zip(*x.T, y))

def test_groups_have_as_many_ratings():
    "The most popular film of some thousands has hundreds of times as many as the median"
    counts = 30_000/np.arange(10, 4010)**.8
    sums = np.bincount(dealt(counts, 8, np.random.default_rng(0)), counts)
    assert sums.max()<1.05*sums.min()

def test_groups_follow_from_data_alone(threads):
    threads(1)
    want = [n_groups(o) for o in (0,1,10**5,10**6,25*10**6,10**10)]
    threads(3)
    assert want==[n_groups(o) for o in (0,1,10**5,10**6,25*10**6,10**10)]==[1,1,2,8,32,64]

def test_the_same_bits_on_any_number_of_threads(many_blocks, threads):
    found = []
    for n in (1,2,5):
        threads(n)
        found.append(tables(fitted(None, 9, 4)))
    with one_thread(): found.append(tables(fitted(None, 9, 4)))
    assert all(same(o, found[0]) for o in found[1:]) and found[0][0].std()>.01

def test_one_call_is_what_rounds_of_threads_are(monkeypatch, threads):
    monkeypatch.setattr(blocks_room, 'n_groups', lambda n: 4)
    threads(2)
    at_once = tables(fitted(None, 5, 3))
    monkeypatch.setattr(blocks_room, '_worth_threads', 0)
    assert same(tables(fitted(None, 5, 3)), at_once)

@pytest.mark.parametrize('n', [1,3,64])
def test_more_blocks_than_rows(n, monkeypatch):
    monkeypatch.setattr(blocks_room, 'n_groups', lambda _: n)
    df = pd.DataFrame(dict(user=[1,1,2,3,3], title=list('abacb'), rating=[1.,2,3,4,5]))
    learn = fit(learner(loaders(df, 0, valid_pct=.2), y_range=(.5,5.5)))
    assert learn.predict_grid().isfinite().all()

# ------------------------------------------------------------------ what it finds
def planted(seed, taste, n_users=600, n_items=300, n=12_000):
    rng = np.random.default_rng(seed)
    u,i = np.divmod(rng.choice(n_users*n_items, n, replace=False), n_items)
    p,q,b_u,b_i = rng.normal(size=n_users),rng.normal(size=n_items),rng.normal(0, 2, n_users),rng.normal(0, 2, n_items)
    y = b_u[u]+b_i[i]+taste*p[u]*q[i]+rng.normal(0, 4, n)
    return pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=y.clip(-10, 10).astype('float32')))

def beside_biases(df):
    learn = learner(loaders(df))
    with learn.no_bar(),learn.no_logging(): learn.fit_bias()
    return error(fitted(df))/error(learn)

@pytest.mark.parametrize('n', [(600,300,12_000),(3000,1500,12_000),(1000,500,40_000)], ids=str)
def test_without_taste_no_worse_than_biases(n):
    assert np.mean([beside_biases(planted(s, 0, *n)) for s in range(3)])<=1.003

def test_taste_is_found():
    assert np.mean([beside_biases(planted(s, 3)) for s in range(3)])<=.96
    assert beside_biases(sample_ratings())<.995

def test_tells_that_there_is_no_taste():
    with pytest.warns(UserWarning, match='no better than biases alone'): learn = fit(learner(loaders(planted(0, 0))))
    assert not learn.model.item_factors.any() and learn.settings().value['shrink'].startswith('100% biases alone')

@pytest.mark.parametrize('scale,shift', [(10,0),(1,3),(-1,6),(.01,0)], ids=['times ten','plus three','mirrored','a hundredth'])
def test_another_unit_gives_the_same_fit(scale, shift):
    df = sample_ratings()
    a,b = fitted(df, n_sweep=10),fitted(df.assign(rating=df.rating*scale+shift), n_sweep=10)
    assert abs(error(b)/abs(scale)/error(a)-1)<1e-3
    assert ((b.predict_grid()-shift)/scale-a.predict_grid()).abs().max()<.05

def test_without_factors_it_is_biases():
    learn = learner(loaders())
    with learn.no_bar(),learn.no_logging(): learn.fit_bias()
    assert abs(error(fitted(None, 0))/error(learn)-1)<.003
    assert (fitted(None, 5, reg=1e6, lr=1e-9).predict_grid()-learn.predict_grid()).abs().mean()<.04  # which has no rows held out

def test_seeds():
    a,b = (fitted(None, 6, 4) for _ in range(2))
    with warnings.catch_warnings(action='ignore'): c = fit(learner(loaders(), seed=2), 6, 4)
    assert same(tables(a), tables(b)) and not torch.equal(a.model.i_weight.weight, c.model.i_weight.weight)

@pytest.mark.parametrize('df', [sample_ratings(50, 30, 400).assign(user=1).drop_duplicates('title'), sample_ratings(50, 30, 400).assign(title='a').drop_duplicates('user')],
                         ids=['one user','one item'])
def test_a_single_row(df): assert fitted(df).predict_grid().isfinite().all()

def test_ratings_that_are_all_the_same():
    with pytest.warns(UserWarning, match='all ratings'): learn = fit(learner(RecDataLoaders.from_df(sample_ratings(50, 30, 400).assign(rating=4.), seed=1)))
    assert torch.allclose(learn.predict_grid(), torch.tensor(4.))

def test_predictions_are_cut_off_at_the_ratings():
    learn = fitted()
    lo,hi = learn.predict_grid().aminmax()
    assert learn.model.y_range==(1.,5.) and learn.model.clip and lo>=1 and hi<=5

# ------------------------------------------------------------------ weights
def weighed(df, w, *args, **kwargs): return fitted(df.assign(weight=w), *args, dl=dict(weight_name='weight', **kwargs))

def test_a_weight_of_0_is_absent_and_equal_weights_change_nothing():
    df = sample_ratings()
    assert same(tables(weighed(df, 3., 5, 4)), tables(fitted(df, 5, 4)))
    rng = np.random.default_rng(0)
    lies = df.assign(rating=np.where(rng.random(len(df))<.3, 1., df.rating))
    is_lie = (lies.rating!=df.rating).to_numpy()
    learn,without = weighed(lies, 1.-is_lie),fitted(df[~is_lie])
    assert (learn.predict_grid()-without.predict_grid()).abs().mean()<.15  # other rows are held out for validation
    assert (learn.predict_grid()-fitted(lies).predict_grid()).abs().mean()>.3

def test_a_weight_of_2_is_twice_the_rating():
    "If it is left as it is, and not divided by the unit in which weights add up to what they say"
    df = sample_ratings(200, 60, 8000)
    twice = (df.rating>=4).to_numpy()
    def grid(df):
        dls = loaders(df, valid_pct=.001, weight_name='weight' if 'weight' in df else None)
        if dls.train_ds.w is not None: dls.train_ds.w = dls.train_ds.w/dls.train_ds.w.min()
        with warnings.catch_warnings(action='ignore'): return fit(learner(dls, seed=1), 4).predict_grid()
    by_weight,by_rows,plain = map(grid, (df.assign(weight=1.+twice), pd.concat([df,df[twice]], ignore_index=True), df))
    assert (by_weight-by_rows).abs().mean()<.6*(plain-by_rows).abs().mean()

# ------------------------------------------------------------------ a solver like the others
def test_passes_are_the_record():
    learn = fitted(None, 8, 7)
    loss = learn.history.train_loss.to_numpy()
    assert len(loss)==7 and loss[-1]==loss.min()<.98*loss[0] and error(learn)==pytest.approx(float(rmse(*learn.get_preds())), abs=1e-4)

def test_callbacks_stop_and_save(tmp_path):
    learn = learner(loaders(), path=tmp_path)
    fit(learn, 8, 12, cbs=[EarlyStoppingCallback('rmse', min_delta=.5, patience=2), SaveModelCallback('rmse')])
    assert len(learn.history)==3
    assert float(rmse(*learn.get_preds()))==pytest.approx(learn.history.rmse.min(), abs=1e-4)

class Stop(Callback):
    def __init__(self, epoch, error=KeyboardInterrupt): self.at,self.error = epoch,error
    def before_train(self):
        if self.epoch==self.at: raise self.error

def test_interrupted_it_keeps_the_last_whole_pass():
    learn = learner(loaders())
    with pytest.raises(KeyboardInterrupt): fit(learn, 6, 9, cbs=Stop(4))
    assert len(learn.history)==4 and learn.last_fit[0]=='fit_sgd'
    with torch.no_grad(): mse = (learn.model.score_pairs(learn.dls.valid_ds.x).clamp(1, 5)-learn.dls.valid_ds.y).square().mean()
    assert abs(float(mse)**.5-error(learn))<1e-4

def test_interrupted_in_a_pass_nothing_is_half_done(monkeypatch):
    learn,n = learner(loaders(), seed=1),0
    real = Blocks.learn_once
    def learn_once(self, *args):
        nonlocal n
        res = real(self, *args)
        n += 1
        if n==3: raise KeyboardInterrupt
        return res
    monkeypatch.setattr(Blocks, 'learn_once', learn_once)
    with pytest.raises(KeyboardInterrupt): fit(learn, 6, 9)
    kept = tables(learn)
    monkeypatch.setattr(Blocks, 'learn_once', real)
    two = learner(loaders(), seed=1)
    with pytest.raises(KeyboardInterrupt): fit(two, 6, 9, cbs=Stop(2))
    assert len(learn.history)==2 and [o.shape for o in kept]==[o.shape for o in tables(two)]

def test_stopped_in_the_first_pass_everything_is_as_before():
    learn = fitted(None, 6, 3)
    model,record = learn.model,learn.history
    with pytest.raises(KeyboardInterrupt): fit(learn, 6, 9, cbs=Stop(0))
    assert learn.model is model and learn.history.equals(record)

@pytest.mark.parametrize('lr', [.4,50.,1e300])
def test_steps_that_go_astray_are_named(lr):
    learn = fitted(None, 6, 3)
    model = learn.model
    with pytest.raises(FloatingPointError, match='went astray.*pass a smaller lr'): fit(learn, 8, 9, lr=lr)
    assert learn.predict_grid().isfinite().all()
    if lr>1: assert learn.model is model

def plays():
    "How often somebody has played something: a few numbers are far above the others"
    rng = np.random.default_rng(52)
    df = pd.DataFrame(dict(user=rng.integers(0, 800, 20_000), artist=(rng.pareto(1, 20_000)*20).astype(int)%1500, plays=np.ceil(rng.lognormal(4, 1.8, 20_000))))
    return df.drop_duplicates(['user','artist'])

@pytest.mark.filterwarnings('ignore:(?s).*the tastes that were found:UserWarning')
def test_steps_that_nobody_asked_for_are_halved_until_none_goes_astray():
    dls = loaders(plays())
    learn = fit(learner(dls))
    row = learn.settings().loc['lr']
    assert row.rule=='0.6 over the sweeps, more for few ratings, at most 0.06, halved until none went astray' and row.value==suited_lr(dls.train_ds, 20, True)/2
    assert np.isfinite(learn.history.train_loss).all() and len(learn.history)==20
    assert error(learn)<error(fit(learner(dls), 0))*1.01  # biases alone
    assert error(fit(learner(dls), lr=row.value))==pytest.approx(error(learn), rel=.02)
    with pytest.raises(FloatingPointError, match='went astray'): fit(learner(dls), lr=row.value*4)

def test_begins_again_where_it_began(monkeypatch):
    "A pass that goes astray late leaves what shorter steps from the start give, as far as orders are the same"
    real,n = _Fit.learn_once,[]
    def astray(self, lr, reg):
        n.append(lr)
        if len(n)==3: raise FloatingPointError('astray')
        return real(self, lr, reg)
    monkeypatch.setattr(_Fit, 'learn_once', astray)
    learn = fit(learner(loaders()), 4, 5, reg=.1)
    first = n[0]
    assert n==pytest.approx([first,.8*first,.6*first, .5*first,.4*first,.3*first, .2*first,.1*first]) and len(learn.history)==5
    assert learn.settings().value['lr']==pytest.approx(first/2)
    assert fit(learner(loaders()), 4, 5, lr=first/2).history.rmse.iloc[-1]==pytest.approx(error(learn), rel=.01)

@pytest.mark.parametrize('kwargs,match', [(dict(lr=0), 'lr=0 must be above 0'), (dict(lr=np.nan), 'lr=nan'), (dict(lr='fast'), "lr='fast'"), (dict(reg=-1), 'reg=-1 must be 0 or more'),
    (dict(n_factors=2.5), 'n_factors=2.5'), (dict(n_factors=-1), 'n_factors=-1'), (dict(n_sweep=0), 'n_sweep=0'), (dict(n_factors=10**9), 'no room for the rows of 1,000,000,000 factors'),
    (dict(features=1), 'features=1')], ids=str)
def test_refuses(kwargs, match):
    learn = learner(loaders())
    model = learn.model
    with pytest.raises((ValueError,TypeError), match=match): fit(learn, **kwargs)
    assert learn.model is model and not learn.n_fits

def test_numbers_that_float32_has_no_squares_of_are_named():
    df = sample_ratings(50, 30, 400)
    with pytest.raises(ValueError, match='bring the ratings nearer to 1'): fit(learner(loaders(df.assign(rating=df.rating*1e12))))

def test_settings():
    learn = fitted()
    table = learn.settings()
    assert table.value[['n_factors','lr','reg','n_sweep']].tolist()==[50,.03,.06,20] and 'given' not in table.rule.tolist()
    assert table.rule['lr']=='0.6 over the sweeps, more for few ratings, at most 0.06'
    assert fit(learn).settings().loc['lr',['value','rule']].tolist()==[.01,'0.2 over the sweeps, as the fit went on']
    given = fitted(lr=.01).settings().rule  # as long as those of a fit that goes on
    assert given['lr']=='given' and given['reg']!='given'
    assert (fitted(None, 4, 3, lr=.02, reg=.1).settings().rule[['n_factors','n_sweep','lr','reg']]=='given').all()

# ------------------------------------------------------------------ going on
def test_goes_on_from_a_fit_of_the_same_width():
    "From one that has not seen what is held out"
    dls = loaders()
    ds = dls.train_ds
    earlier = fitted(pd.concat([ds.decode(ds.x), pd.Series(ds.y.numpy(), name='rating')], axis=1).head(len(ds)*4//5), 8)
    begun,new = fit(learner(dls, init=earlier), n_sweep=3),fit(learner(dls), 8, 3)
    assert begun.model.width==8 and error(begun)<error(new)-.0005
    assert begun.settings().rule['n_factors']=='that of init'
    with pytest.raises(ValueError, match='whose rows have 8: pass n_factors=8'): fit(learner(dls, init=earlier), 9)

def test_goes_on_after_fit_als_and_fit_als_after_it():
    learn = fitted(None, 8)
    with learn.no_bar(),learn.no_logging(): learn.fit_als(8, 4)
    assert error(fit(learn, 8, 8))<1.003*error(fitted(None, 0))
    gradients = learner(loaders())
    with gradients.no_bar(),gradients.no_logging(): gradients.fit_one_cycle(1)
    with pytest.raises(ValueError, match='trained by gradients'): fit(learner(loaders(), init=gradients))

# ------------------------------------------------------------------ what can be asked
def test_answers_newcomers_and_bundles(tmp_path):
    df = sample_ratings()
    learn = fitted(df, 8)
    learn.save_recommender(tmp_path/'rec')
    loaded = load_recommender(tmp_path/'rec', device='cpu')
    rows = df.head(50)
    assert np.allclose(loaded.predict_df(rows), learn.predict_df(rows), atol=1e-5)
    user = df.user.iloc[0]
    own = df[df.user==user].drop(columns='user')
    for rec in (learn,loaded):
        new = rec.fold_in(own)
        assert np.corrcoef(new.predict_grid()[0], rec.predict_grid()[learn.dls.classes['user'].encode([user])[0]-1])[0,1]>.9
        fresh = own.assign(user='somebody' if df.user.dtype==object else df.user.max()+1)
        with warnings.catch_warnings(action='ignore'): later = rec.extend(fresh)  # a folder has no ratings to solve for its items again
        assert len(later.recommend(fresh.user.iloc[0], n=5))==5
    why = learn.explain(user, learn.recommend(user, n=1).title.iloc[0])
    assert len(why) and np.isfinite(why.contribution).all()
    assert len(learn.similar(df.title.iloc[0], n=3))==3

def test_features_put_rows_where_nobody_has_rated():
    df,truth = sample_ratings(with_truth=True)
    gone = df.title.unique()[:20]
    items = truth.sides()[1] if isinstance(truth.sides(), tuple) else truth.sides()['items']
    dls = loaders(df[~df.title.isin(gone)], items=items)
    learn,without = fit(learner(dls), 8),fit(learner(dls), 8, features=False)
    held = df[df.title.isin(gone)]
    errors = [((o.predict_df(held)-held.rating)**2).mean() for o in (learn,without)]
    assert errors[0]<errors[1]

@pytest.mark.long
def test_choose_fit_tries_it(monkeypatch):
    dls = loaders(sample_ratings(100, 60, 1500))
    with warnings.catch_warnings(action='ignore'):
        assert 'fit_sgd' in choose_fit(dls, 2)[0].index
        import fastrec.evaluate.choosing as choosing
        monkeypatch.setattr(choosing, 'can_compile', lambda: False)
        assert 'fit_sgd' not in choose_fit(dls, 2)[0].index
        _,learn = choose_fit(dls, 2, fits=dict(fit_sgd=dict(n_sweep=3)))
    assert learn.last_fit[0]=='fit_sgd'

# ------------------------------------------------------------------ the compiler
def test_without_numba_it_says_how_to_install_it(monkeypatch):
    def none(name, package=None): raise ImportError('numba is needed for this: pip install numba')
    monkeypatch.setattr(room, 'need_package', none)
    learn = learner(loaders())
    model = learn.model
    with pytest.raises(ImportError, match='pip install numba'): fit(learn)
    assert learn.model is model and not learn.n_fits

def test_a_numba_that_is_switched_off_is_named():
    code = 'from fastrec.all import *; learner(RecDataLoaders.from_df(sample_ratings(50, 30, 400), seed=1)).fit_sgd()'
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, env={**os.environ, 'NUMBA_DISABLE_JIT': '1'})
    assert 'RuntimeError: fit_sgd is a compiled loop, and NUMBA_DISABLE_JIT switches numba off: unset it' in run.stderr

@pytest.mark.long
def test_who_waits_for_the_compiler_is_told(tmp_path):
    "Which waits for it but once, as machine code is kept"
    code = ('from fastrec.all import *; from fastrec.fit import sgd; from functools import partial; sgd.telling = partial(sgd.telling, seconds=.5)\n'
            'learn = learner(RecDataLoaders.from_df(sample_ratings(50, 30, 400), seed=1))\nwith learn.no_bar(): learn.fit_sgd(2, 2)')
    env = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path)}
    run = subprocess.run([sys.executable, '-W', 'ignore', '-c', code], capture_output=True, text=True, env=env)
    assert 'fit_sgd compiles its loop, which takes some seconds, once' in run.stdout, run.stderr
    assert [*tmp_path.rglob('*learn_blocks*.nbc')]
