"""Defaults on data of other units and shapes than MovieLens'"""
import functools,warnings
from functools import partial
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.core import Callback,CancelFitException
from fastai.callback.tracker import SaveModelCallback,TerminateOnNaNCallback
from fastai.losses import MSELossFlat
from fastai.metrics import mse
from torch.nn import functional as F
from conftest import seldom
from fastrec.evaluate import choosing
from fastrec.fit.chance import BesideChance
from fastrec.fit.mixing import digest_of,draw_to_biases
from fastrec.models.kept import is_new
from fastrec.all import BPRLoss,EarlyStoppingCallback,RecDataLoaders,RecInterpretation,ShrinkToBiases,choose_fit,learner,load_recommender,nn,sample_ratings

fits = dict(bias=lambda l: l.fit_bias(), als=lambda l: l.fit_als(8), bayes=lambda l: l.fit_bayes(8, 30), cycle=lambda l: l.fit_one_cycle(3), sgd=lambda l: l.fit_sgd())

def fitted(df, how, seed=1, **kwargs):
    if how=='sgd': pytest.importorskip('numba')
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=seed), **kwargs)
    with learn.no_bar(),learn.no_logging(): fits[how](learn)
    return learn

def rmse(learn): return float(learn.history.rmse.iloc[-1])

@functools.cache
def in_stars(how):
    "Ratings, and the error of the fit that is made of them as they are"
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    return df,rmse(fitted(df, how))

@pytest.mark.parametrize('scale,shift', [(10,0), (1,3), (-1,6), *seldom((.01,0), (1e-6,0))], ids=['times ten','plus three','mirrored','a hundredth','a millionth'])
@pytest.mark.parametrize('how', fits)
def test_another_unit_gives_the_same_fit(how, scale, shift):
    df,want = in_stars(how)
    got = rmse(fitted(df.assign(rating=df.rating*scale+shift), how))
    other_draws = how in ('bayes','cycle') and scale<0  # what is random at the start is not mirrored
    assert abs(got/abs(scale)/want-1)<(.03 if other_draws else .002)

@pytest.mark.parametrize('scale', [100, 1e-2, 1e-6], ids=str)
def test_another_unit_gives_the_same_sparse_fit(scale):
    df,_ = in_stars('bias')
    want,got = (rmse(fitted(df.assign(rating=df.rating*o), 'cycle', sparse=True, shrink=False))/o for o in (1,scale))
    assert abs(got/want-1)<.001

def planted(seed, taste, n_users=600, n_items=300, n=12_000):
    "Ratings on a scale from -10 to 10 with biases, and `taste` of one factor"
    rng = np.random.default_rng(seed)
    keys = rng.choice(n_users*n_items, n, replace=False)
    u,i = np.divmod(keys, n_items)
    p,q,b_u,b_i = rng.normal(size=n_users),rng.normal(size=n_items),rng.normal(0, 2, n_users),rng.normal(0, 2, n_items)
    y = b_u[u]+b_i[i]+taste*p[u]*q[i]+rng.normal(0, 4, n)
    return pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=y.clip(-10, 10).astype('float32')))

@pytest.mark.parametrize('how', ['als','bayes','cycle','sgd'])
def test_without_taste_no_worse_than_biases(how):
    with warnings.catch_warnings(action='ignore'):  # which tell just that
        ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in (planted(s, 0) for s in range(3))]
    assert np.mean(ratios)<=1.003

@pytest.mark.parametrize('how', ['als','bayes','sgd'])
def test_taste_is_found(how):
    ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in (planted(s, 3) for s in range(3))]
    assert np.mean(ratios)<=.95

def test_als_goes_on():
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    learn,new = fitted(df, 'als'),learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=1))
    before = learn.predict_grid()
    for o in (learn,new):
        with o.no_bar(),o.no_logging(): o.fit_als(8, 1)
    moved,anew = ((o.predict_grid()-before).std() for o in (learn,new))
    assert moved<.5*anew

def test_als_penalty_by_hand():
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    learn = learner(RecDataLoaders.from_df(df, seed=1))
    with pytest.raises(ValueError, match='pass reg too'): learn.fit_als(power=1)
    with learn.no_bar(),learn.no_logging():
        learn.fit_als(8, reg=1e6)
        assert learn.model.u_weight.weight.abs().max()<1e-3

@pytest.mark.parametrize('n_factors', [0,1,40])
def test_als_of_few_rows(n_factors):
    "Fewer users and items than factors"
    df = pd.DataFrame(dict(user=[1,1,2,3,3], title=list('abacb'), rating=[1.,2,3,4,5]))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.2, seed=0), n_factors=4, y_range=(.5,5.5))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(n_factors)
    assert learn.predict_grid().isfinite().all()

@pytest.mark.parametrize('how', ['als','bayes','bias','sgd'])
def test_ratings_that_are_all_the_same(how):
    df = sample_ratings(n_users=50, n_items=30, n_ratings=400).assign(rating=4.)
    with pytest.warns(UserWarning, match='all ratings'): learn = fitted(df, how)
    assert torch.allclose(learn.predict_grid(), torch.tensor(4.), atol=1e-3)

@pytest.mark.parametrize('n', [(120,60,1920), (300,150,8000)], ids=str)
def test_many_ratings_that_are_all_the_same_have_draws(n):
    with warnings.catch_warnings(action='ignore'): learn = fitted(sample_ratings(*n).assign(rating=4.), 'bayes')
    assert (learn.predict_grid()-4).abs().max()<.05

# ------------------------------------------------------------------ lists
def test_without_taste_lists_find_what_popularity_finds():
    "Who chooses what is independent of who it is, but for how much is chosen"
    rng = np.random.default_rng(0)
    weights = np.arange(5, 305)**-.8
    u,i = rng.integers(600, size=15_000),rng.choice(300, 15_000, p=weights/weights.sum())
    df = pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=1.)).drop_duplicates()
    def found(reg):
        learn = learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=1), y_range=(.5,1.5))
        with learn.no_bar(),learn.no_logging(): learn.fit_ials(reg=reg)
        res = learn.evaluate().ndcg_at_10
        return res['model']/res['popularity']
    with warnings.catch_warnings(action='ignore'): by_rule,weak = found(None),found(.002)
    assert by_rule>.95 and by_rule>weak+.1

def camps(strength, n_users=2000, n_items=400, n=8, seed=0):
    "What users of three tastes choose of items of which some are popular, and what is told of these, some of which nobody has chosen"
    rng = np.random.default_rng(seed)
    kind = rng.integers(8, size=n_items)
    tastes = rng.normal(size=(n_users,3))@rng.normal(size=(8,3)).T/3**.5
    popularity = 1.1*rng.normal(size=n_items)
    popularity[:20] = -np.inf
    order = (popularity+strength*tastes[:,kind]+rng.gumbel(size=(n_users,n_items))).argsort(1)[:,::-1]
    names = np.char.add('book ', np.arange(n_items).astype(str))
    df = pd.DataFrame(dict(user=np.arange(n_users).repeat(n), title=names[order[:,:n].ravel()], rating=1.)).sample(frac=1, random_state=seed)
    maker = rng.integers(90, size=n_items).astype(str)
    return df.reset_index(drop=True),pd.DataFrame(dict(kind=kind.astype(str), maker=maker), pd.Index(names, name='title'))

def beside_popularity(df, items, fit):
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=1, items=items), y_range=(.5,1.5))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
        getattr(learn, fit)()
        res = learn.evaluate().ndcg_at_10
    return res['model']/res['popularity']

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease'])
def test_without_taste_what_is_told_of_new_items_spoils_no_list(fit):
    "Those that nobody has chosen are as popular as others of their kind and maker, not as the most popular"
    for seed in range(3): assert beside_popularity(*camps(0, seed=seed), fit)>.97

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease'])
def test_taste_that_only_a_trial_shows_is_found(fit, monkeypatch):
    from fastrec.fit.held_back import HeldBack
    df,_ = camps(.8, seed=2)
    found = beside_popularity(df, None, fit)
    monkeypatch.setattr(HeldBack, 'in_errors', lambda self, gains: 0.)
    without = beside_popularity(df, None, fit)
    assert without==pytest.approx(1, rel=.02) and found>1.08

def circles(seed, n=300, people=4, things=8, each=5):
    "Choices of which four of five are among the things of a circle of a few people, and the others anything"
    rng = np.random.default_rng(seed)
    u = np.arange(n*people).repeat(each)
    inside = u//people*things + (rng.random(len(u))**2*things).astype(int)
    i = np.where(rng.random(len(u))<.8, inside, rng.integers(n*things, size=len(u)))
    return pd.DataFrame(dict(user=u, title=i, rating=1)).drop_duplicates(ignore_index=True)

@pytest.mark.parametrize('seed', [0,*seldom(1)])
def test_small_circles_are_found_by_a_trial(seed, monkeypatch):
    "Chance looks as strong as they do, so that by theory alone most of them is lost; a width that was asked for stays"
    dls = RecDataLoaders.from_df(circles(seed), seed=seed)
    def fitted(**kwargs):
        learn = learner(dls, **kwargs)
        with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
            learn.fit_ials()
            return learn,learn.evaluate().ndcg_at_10['model']
    learn,found = fitted()
    assert 'by a trial' in learn.settings().rule['reg'] and 'by a trial' in learn.settings().rule['n_factors']
    assert fitted(n_factors=24)[0].model.width==24
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(reg=.02)
    assert 'trial' not in learn.settings().rule['n_factors']
    monkeypatch.setattr('fastrec.fit.held_back.HeldBack.settings', lambda self, n_factors, alpha0, reg, wider: (n_factors,reg))
    assert found>1.3*fitted()[1]
    monkeypatch.setattr('fastrec.fit.ials._usual_width', lambda n: 128)  # as for many choices, for which nothing wider is tried
    rule = fitted()[0].settings().rule
    assert 'by a trial' in rule['reg'] and 'trial' not in rule['n_factors']

@pytest.mark.parametrize('seed', [0,1,2])
def test_unequal_activity_is_no_taste(seed):
    "Some people choose a lot: pairs of things are together more often than by chance then, and nobody likes one for another"
    from fastrec.fit.taste import has_taste
    rng = np.random.default_rng(seed)
    n_users,n_items = 300,200
    popular = rng.permutation(np.log(np.arange(1, n_items+1)))
    each = (5*np.exp(rng.normal(size=n_users)-.5)).round().clip(1, n_items//2).astype(int)
    order = (popular-rng.gumbel(size=(n_users,n_items))).argsort(1)
    items = np.concatenate([o[:n] for o,n in zip(order, each)])
    df = pd.DataFrame(dict(user=np.arange(n_users).repeat(each), title=items, rating=1))
    assert not has_taste(BesideChance(RecDataLoaders.from_df(df, seed=0).train_ds, .5, 32))

def test_weights_of_items_are_no_taste():
    "What is dear or long is not chosen more often, and a list by such weights is no match for one by how often things are chosen"
    rng = np.random.default_rng(3)
    n_users,n_items = 1000,500
    order = (rng.permutation(np.log(np.arange(1, n_items+1)))-rng.gumbel(size=(n_users,n_items))).argsort(1)
    each = (10*np.exp(.8*rng.normal(size=n_users)-.32)).round().clip(1, n_items//2).astype(int)
    items = np.concatenate([o[:n] for o,n in zip(order, each)])
    df = pd.DataFrame(dict(user=np.arange(n_users).repeat(each), title=items, rating=1, weight=np.exp(rng.normal(size=n_items))[items]))
    learn = learner(RecDataLoaders.from_df(df, seed=0, weight_name='weight'))
    for fit in ('fit_ials','fit_ease'):
        with pytest.warns(UserWarning, match='popular as rows are weighed'),learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        assert not learn.model.item_factors.any()
        if fit=='fit_ials': assert 'popularity has no factors' in learn.settings().rule['n_factors']

def by_popularity(n_users, n_items, n, seed, power=1.):
    "About `n` choices by anybody, of items that differ in how often they are chosen and in nothing else"
    rng = np.random.default_rng(1000*seed)
    share = np.arange(1, n_items+1)**-power
    items = rng.choice(n_items, n, p=share/share.sum())
    return pd.DataFrame(dict(user=rng.integers(n_users, size=n), title=items, rating=1)).drop_duplicates(ignore_index=True)

@pytest.mark.parametrize('seed', range(3))
def test_few_people_who_choose_a_lot_have_no_taste_by_a_little_that_is_sure(seed):
    from fastrec.fit.taste import has_taste
    ds = RecDataLoaders.from_df(by_popularity(12, 5000, 9000, seed, .8), seed=0).train_ds
    assert not has_taste(BesideChance(ds, .5, 32))

def test_more_items_are_asked_of_fewer_people(monkeypatch):
    from fastrec.fit import held_back
    ds = RecDataLoaders.from_df(by_popularity(500, 200, 8000, 0), seed=0).train_ds
    pairs = BesideChance(ds).pairs
    monkeypatch.setattr(held_back, '_most_scores', 100*pairs.sizes[1])
    assert sum(map(len, held_back._held_back(pairs)))==100

@pytest.mark.parametrize('context', [partial(torch.autocast, 'cpu', torch.bfloat16), *seldom(partial(torch.device, 'cpu'))])
@pytest.mark.parametrize('fit,kwargs', [('fit_ials',dict(n_sweep=1)), ('fit_ease',{})])
def test_a_trial_runs_within_other_modes(context, fit, kwargs):
    for df in (circles(0), by_popularity(700, 300, 6000, 0)):
        learn = learner(RecDataLoaders.from_df(df, seed=0))
        with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(),context(): getattr(learn, fit)(**kwargs)
        assert learn.predict_grid().isfinite().all()

def test_taste_is_found_where_theory_says_too_much_of_reg(monkeypatch):
    from fastrec.fit import taste
    from fastrec.fit.held_back import HeldBack
    df,_ = camps(.8, n_users=400)
    beside = BesideChance(RecDataLoaders.from_df(df, valid_pct=.1, seed=1).train_ds, .5, 16)
    monkeypatch.setattr(taste, '_together', 100.)  # neither strengths nor pairs answer
    monkeypatch.setattr(BesideChance, 'reg', lambda self, of_all=True: .2)
    for most in (.3,.1,.03,.01):  # the most `reg` that finds it
        monkeypatch.setattr(HeldBack, 'gain', lambda self, n, alpha0, reg: 5. if reg<most else -5.)
        assert taste.has_taste(beside)==(most>.2/9)

def test_choose_fit_tells_of_poor_lists_unless_it_was_told_what_for():
    dls = RecDataLoaders.from_df(sample_ratings(n_users=300, n_items=150, n_ratings=8000), seed=1)
    fits = dict(fit_als={}, fit_ials={})
    with pytest.warns(UserWarning, match="fit_als was chosen by its predictions, and its lists find less .* by='ndcg_at_10', by which fit_ials finds"):
        table,_ = choose_fit(dls, 60, fits=fits)
    assert table.ndcg_at_10['fit_als']<table.ndcg_at_10['popularity']
    choose_fit(dls, 60, by='rmse', fits=fits)  # which is not told

@pytest.mark.parametrize('fit', ['fit_als','fit_bayes','fit_ials','fit_sgd'])
def test_the_width_of_the_learner_is_that_of_its_fits(fit):
    if fit=='fit_sgd': pytest.importorskip('numba')
    learn = new_learner(n_factors=7)
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): getattr(learn, fit)(n_sweep=12)
    assert learn.settings().loc['n_factors',['value','rule']].tolist()==[7,'given']
    if fit!='fit_bayes': assert learn.model.u_weight.weight.shape[1]==7

def test_a_trial_of_taste_is_the_same_whatever_the_default_dtype():
    from fastrec.fit.held_back import HeldBack
    df,_ = camps(.8, n_users=400)
    beside = BesideChance(RecDataLoaders.from_df(df, valid_pct=.1, seed=1).train_ds, .5, 16)
    gains = []
    for dtype in (torch.float32,torch.float64):
        torch.set_default_dtype(dtype)
        try: gains.append(HeldBack(beside.pairs).gain(16, .5, .02))
        finally: torch.set_default_dtype(torch.float32)
    assert gains[0]==pytest.approx(gains[1], abs=1e-3)

def test_a_trial_of_taste_leaves_everybody_some_choices():
    from fastrec.fit.held_back import _held_back,_without
    df,_ = camps(0, n=2)
    pairs = BesideChance(RecDataLoaders.from_df(df, valid_pct=.01, seed=1).train_ds).pairs
    parts = [*_held_back(pairs)]
    for held in parts:
        left = _without(pairs, held)
        assert len(held)>100 and set(pairs.u[held])<=set(left.u) and len(held)+len(left)==len(pairs)
    every = np.concatenate(parts)
    assert len(parts)>1 and len({*every})==len(every)  # no choice is asked twice

# ------------------------------------------------------------------ rows that are held out
def new_learner(df=None, **kwargs):
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000) if df is None else df
    with warnings.catch_warnings(action='ignore'): return learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=1), **kwargs)

def train(learn, *args, **kwargs):
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): learn.fit(*args, **kwargs)

class Rows(Callback):
    "How many rows the epochs show"
    def before_fit(self): self.n = []
    def before_train(self): self.n.append(0)
    def before_batch(self):
        if self.training: self.n[-1] += len(self.yb[0])

def test_rows_are_held_out_of_the_epochs_and_given_back():
    learn,rows = new_learner(),Rows()
    train(learn, 2, cbs=rows)
    n,n_out = len(learn.dls.train_ds),len(learn.shrink_to_biases.left_out)
    assert 600<n_out<=n//10 and rows.n==[n-n_out]*2
    assert learn.dls.train.kept is None and learn.dls.train.n==n
    learn.remove_cb(ShrinkToBiases)
    train(learn, 1, cbs=rows)
    assert rows.n==[n]

@pytest.mark.parametrize('error', [KeyboardInterrupt,ValueError])
def test_rows_are_given_back_after_a_fit_that_stops(error):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.iter==3: raise error('stop')
    learn = new_learner()
    with pytest.raises(error): train(learn, 2, cbs=Stop())
    assert learn.dls.train.kept is None and learn.dls.train.n==len(learn.dls.train_ds)

def tasteless(seed=0, n=9000, n_users=2000, n_items=1500):
    "Ratings that follow from biases alone"
    rng = np.random.default_rng(seed)
    u,i = rng.integers(n_users, size=n),rng.integers(n_items, size=n)
    y = 3.5+rng.normal(0, .4, n_users)[u]+rng.normal(0, .5, n_items)[i]+rng.normal(0, .8, n)
    return pd.DataFrame(dict(user=u, title=i, rating=y.round().clip(1, 5)))

class StopAt(Callback):
    "Stops a fit within the second epoch, or after it"
    def __init__(self, event): setattr(self, event, self.stop)
    def stop(self):
        if self.epoch==1 and (not self.training or self.iter>3): raise CancelFitException

@pytest.mark.parametrize('cbs', [lambda: EarlyStoppingCallback('rmse', patience=1, min_delta=9), lambda: [SaveModelCallback('rmse'), EarlyStoppingCallback('rmse', patience=1, min_delta=9)],
                                 lambda: StopAt('after_epoch'), lambda: StopAt('after_batch'), lambda: SaveModelCallback('train_loss', comp=np.greater)], ids=['stop','save and stop','epoch','batch','save'])
def test_a_fit_that_a_callback_ends_is_drawn_to_biases(cbs, tmp_path):
    "What the callback leaves is drawn, also weights of an earlier epoch"
    learn,biases = (new_learner(tasteless(), path=tmp_path) for _ in range(2))
    biases.fit_bias()
    train(learn, 4, cbs=cbs())
    assert learn.shrink_to_biases.chosen is not None and learn.dls.train.kept is None
    assert learn.validate()[1]<1.01*biases.validate()[1] and learn.settings().rule['shrink']=='least error, beyond chance'
    for es in learn.model.tables: assert all(torch.allclose(e.weight[0], e.weight[1:].mean(0), atol=1e-6) for e in es)

@pytest.mark.parametrize('cbs', [lambda: [], lambda: SaveModelCallback('train_loss')], ids=['plain','save'])
@pytest.mark.parametrize('features', [False,True])
def test_a_model_is_drawn_once(cbs, features, tmp_path, monkeypatch):
    "Also if the last epoch, which has been drawn, was the best and is put back, and rows were solved for after that"
    n = []
    monkeypatch.setattr('fastrec.fit.shrinkage.draw_to_biases', lambda *args, draw=draw_to_biases, **kwargs: n.append(1) or draw(*args, **kwargs))
    ratings,truth = sample_ratings(n_users=300, n_items=150, n_ratings=8000, with_truth=True)
    with warnings.catch_warnings(action='ignore'): learn = learner(RecDataLoaders.from_df(ratings, seed=1, **(truth.sides() if features else {})), path=tmp_path)
    train(learn, 3, cbs=cbs())
    assert len(n)==1

def test_measuring_changes_nothing_of_what_was_drawn():
    "Nor within a fit, where a callback measures the model"
    class Measure(Callback):
        def after_train(self): self.n = self.learn.dls.train.n,self.learn.validate(),self.learn.dls.train.n
    learn,other = new_learner(tasteless()),new_learner(tasteless())
    train(other, 2)
    measure = Measure()
    train(learn, 2, cbs=measure)
    before,weights = learn.settings(),learn.model.u_weight.weight.clone()
    assert measure.n[0]==measure.n[2]==len(learn.dls.train_ds) and weights.equal(other.model.u_weight.weight)
    learn.validate(),learn.get_preds(ds_idx=0)
    assert learn.settings().equals(before) and learn.model.u_weight.weight.equal(weights) and learn.dls.train.n==len(learn.dls.train_ds)

def test_nothing_is_drawn_where_nothing_was_learned():
    class Never(Callback):
        def before_train(self): raise CancelFitException
    learn = new_learner()
    before = learn.model.u_weight.weight[1:].clone()
    train(learn, 2, cbs=Never())
    assert learn.shrink_to_biases.chosen is None and learn.model.u_weight.weight[1:].equal(before)
    learn = new_learner(y_range=False)
    train(learn, 1, 1e20, cbs=TerminateOnNaNCallback())  # whose model has no numbers
    assert learn.shrink_to_biases.chosen is None and learn.dls.train.kept is None

@pytest.mark.parametrize('loss', [MSELossFlat(),F.mse_loss,mse], ids=['MSELossFlat','F.mse_loss','mse'])
def test_any_mean_squared_error_is_one(loss):
    learn,want = new_learner(loss_func=loss),new_learner()
    for o in (learn,want): train(o, 1)
    assert np.allclose(learn.shrink_to_biases.chosen, want.shrink_to_biases.chosen, atol=1e-3)

@pytest.mark.parametrize('kwargs,why', [(dict(loss_func=nn.L1Loss()), 'not the mean squared error'), (dict(loss_func=nn.MSELoss(reduction='sum')), 'not the mean squared error'),
                                        (dict(bias=False), 'frozen'), (dict(loss_func=BPRLoss()), 'choices')], ids=['L1','sum','bias','BPR'])
def test_what_is_not_drawn_says_why(kwargs, why):
    with pytest.raises(ValueError, match=f'shrink=True.*{why}'): new_learner(shrink=True, **kwargs)
    learn = new_learner(**kwargs)
    if why=='choices': return
    for _ in range(2):
        assert learn.settings().value['shrink']=='as trained' and why in learn.settings().rule['shrink']
        train(learn, 1)

@pytest.mark.parametrize('kwargs', [dict(bias=False), dict(loss_func=nn.L1Loss()), dict(shrink=False)], ids=' '.join)
def test_nothing_is_held_out_of_what_it_is_not_made_for(kwargs):
    learn,rows = new_learner(**kwargs),Rows()
    train(learn, 1, cbs=rows)
    assert rows.n==[len(learn.dls.train_ds)]

@pytest.mark.parametrize('own', [dict(get_idxs=lambda: list(range(7200))), dict(n=5000)], ids=' '.join)
def test_an_order_or_a_part_of_somebody_elses_stays(own):
    learn,rows = new_learner(),Rows()
    for k,v in own.items(): setattr(learn.dls.train, k, v)
    train(learn, 1, cbs=rows)
    assert rows.n==[own.get('n', 7200)] and learn.dls.train.n==rows.n[0] and all(getattr(learn.dls.train, k) is v for k,v in own.items())

def test_nothing_is_held_out_while_a_rate_is_looked_for():
    learn,rows = new_learner(),Rows()
    learn.add_cb(rows)
    learn.lr_find(show_plot=False)
    assert learn.shrink_to_biases.chosen is None and learn.dls.train.n==len(learn.dls.train_ds)

@pytest.mark.parametrize('df', [pd.DataFrame(dict(user=[1]*60, title=range(60), rating=np.arange(60)%5+1.)),
                                pd.DataFrame(dict(user=range(600), title=np.arange(600)%50, rating=np.arange(600)%5+1.))], ids=['one user','one rating each'])
def test_nobody_loses_the_last_rating(df):
    learn = new_learner(df)
    train(learn, 1)
    ds,out = learn.dls.train_ds,learn.shrink_to_biases.left_out
    for k in (0,1):
        left = ds.counts(k)-torch.bincount(ds.x[out,k].long() if len(out) else torch.empty(0).long(), minlength=len(ds.counts(k)))
        assert ((left>0)==(ds.counts(k)>0)).all()
    assert learn.predict_grid().isfinite().all()

# ------------------------------------------------------------------ what was chosen
def test_settings_follow_the_model_that_there_is():
    class Stop(Callback):
        def before_train(self):
            if self.epoch==2: raise KeyboardInterrupt
    learn = new_learner(wd=.3)
    assert learn.settings().rule['wd']=='given' and learn.settings().rule['lr']!='given'
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_als(4, cbs=Stop())
    assert learn.last_fit[0]=='fit_als' and learn.settings().value['n_factors']==4  # the sweeps so far are the model
    with pytest.raises(ValueError): learn.fit_als(4, power=1)
    assert learn.last_fit[0]=='fit_als'

@pytest.mark.parametrize('fit', ['fit_one_cycle','fit_flat_cos','fit'])
def test_settings_are_those_of_the_last_fit(fit):
    learn = new_learner(shrink=False)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(1, .03, wd=.4)
    table = learn.settings()
    assert table.loc[['lr','wd'],'value'].tolist()==[.03,.4] and (table.rule[['lr','wd']]=='given').all()
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(1)
    assert learn.settings().value['lr']==learn.lr and not (learn.settings().rule[['lr','wd']]=='given').any()

@pytest.mark.filterwarnings('ignore::UserWarning')
@pytest.mark.parametrize('first', ['fit_als','fit_blend','init','frozen'])
@pytest.mark.parametrize('then', ['fit_one_cycle','fit_sgd'])
def test_rows_that_an_earlier_fit_has_learned_do_not_make_tastes_stronger(first, then):
    "As rows that are held out are praised by what has seen them"
    dls = RecDataLoaders.from_df(sample_ratings(n_users=150, n_items=300, n_ratings=12_000, seed=0), seed=1)
    learn = learner(dls, n_factors=16, seed=0)
    with learn.no_bar(),learn.no_logging():
        if first=='frozen':
            learn.model.u_bias.requires_grad_(False)
            learn.fit_one_cycle(3)
            learn.model.u_bias.requires_grad_(True)
        else: getattr(learn, 'fit_als' if first=='init' else first)()
        if first=='init': learn = learner(dls, init=learn, seed=0)
    assert learn.model.unseen_rows is None and not is_new(learn.model)
    with learn.no_bar(),learn.no_logging(): getattr(learn, then)(*([4] if then=='fit_one_cycle' else []))
    goes_on = then=='fit_one_cycle' or first!='frozen'
    weights = learn.shrink_to_biases.chosen if then=='fit_one_cycle' else learn.model.advised[:-1]
    assert (learn.model.unseen_rows is None)==goes_on and (not goes_on or first=='frozen' or weights[1]<=1)

def test_a_search_for_a_rate_changes_nothing():
    learn,plain = (learner(RecDataLoaders.from_df(sample_ratings(100, 60, 3000), seed=1), n_factors=8, seed=0) for _ in range(2))
    before = [w.detach().clone() for w in learn.model.parameters()]
    with learn.no_bar(),learn.no_logging(): learn.lr_find(show_plot=False)
    assert all(map(torch.equal, before, learn.model.parameters())) and is_new(learn.model)
    for o in (learn,plain):
        with o.no_bar(),o.no_logging(): o.fit(2)
    assert all(map(torch.equal, learn.model.parameters(), plain.model.parameters()))

def test_what_a_model_has_seen_goes_with_it():
    "A fit that is cancelled before it begins, or put back, leaves it as it was"
    learn = learner(RecDataLoaders.from_df(sample_ratings(100, 60, 3000), seed=1), n_factors=8, seed=0)
    class Stop(Callback):
        def before_epoch(self): raise CancelFitException
    with learn.no_bar(),learn.no_logging():
        learn.fit_als()
        learn.fit_sgd(20, cbs=Stop())
    assert learn.last_fit.name=='fit_als' and learn.model.unseen_rows is None
    with learn.no_bar(),learn.no_logging(): learn.fit_sgd(20)
    state,unseen = learn.fit_state(),learn.model.unseen_rows
    assert unseen is not None
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    learn.put_back(state)
    assert learn.model.unseen_rows==unseen

def test_other_loaders_make_no_tastes_stronger():
    "As rows that they hold out were trained on with the loaders before"
    df = sample_ratings().reset_index(drop=True)
    test,old,new = np.split(np.random.RandomState(0).permutation(len(df)), [len(df)//6, int(len(df)*.95)])
    def loaders(*parts): return RecDataLoaders.from_df(df, splitter=lambda _: (sorted(np.concatenate(parts)),sorted(test)), seed=1)
    learn,plain = (learner(loaders(old), seed=1, **kwargs) for kwargs in ({},dict(shrink=False)))
    for o in (learn,plain):
        train(o, 5)
        o.dls = loaders(old, new)
        train(o, 2, 1e-3)
    assert rmse(learn)<1.002*rmse(plain) and learn.shrink_to_biases.chosen[1]<=1 and learn.model.unseen_rows is None
    ds = learn.dls.train_ds
    rows = torch.tensor([7,3,5])
    assert digest_of(ds, rows)==digest_of(ds, rows.flip(0)) and digest_of(ds, rows)!=digest_of(ds, rows+1)

def _by_learn(learn, other, path): other.save(path/'a'), learn.load(path/'a')
def _by_state(learn, other, path): learn.model.load_state_dict(other.model.state_dict())
def _by_tensors(learn, other, path): learn.model.load_state_dict({k: v.clone() for k,v in other.model.state_dict().items()})
def _by_model(learn, other, path): learn.model = other.model
def _by_hand(learn, other, path):
    for w,o in zip(learn.model.parameters(), other.model.parameters()): w.data.copy_(o)

@pytest.mark.parametrize('take', [_by_learn,_by_state,_by_tensors,_by_model,_by_hand], ids=lambda f: f.__name__)
def test_weights_from_elsewhere_make_no_tastes_stronger(take, tmp_path):
    dls = RecDataLoaders.from_df(sample_ratings(), seed=1)
    learn,other = learner(dls, seed=1),learner(dls, seed=1, shrink=False)
    train(other, 10)
    take(learn, other, tmp_path)
    train(learn, 1, 1e-3)
    assert rmse(learn)<1.003*rmse(other) and learn.shrink_to_biases.chosen[1]<=1 and learn.model.unseen_rows is None

@pytest.mark.parametrize('take', [_by_learn,_by_state,_by_model], ids=lambda f: f.__name__)
def test_weights_that_have_not_seen_these_rows_say_so(take, tmp_path):
    "Those of a fit that held the same rows out; old files do not say so"
    dls = RecDataLoaders.from_df(sample_ratings(), seed=1)
    learn,other,want = (learner(dls, seed=1) for _ in range(3))
    for o in (other,want): train(o, 2)
    unseen = other.model.unseen_rows
    take(learn, other, tmp_path)
    assert unseen is not None and learn.model.unseen_rows==unseen
    train(learn, 1)
    assert learn.model.unseen_rows==unseen
    state = learn.model.state_dict()
    state._metadata['']['head'].pop('unseen_rows')
    learn.model.load_state_dict(state)
    assert learn.model.unseen_rows is None

def test_a_fit_that_is_stopped_or_fails_leaves_what_was_seen():
    learn = new_learner()
    train(learn, 1)
    unseen = learn.model.unseen_rows
    class Stop(Callback):
        def before_batch(self): raise KeyboardInterrupt
    learn.loss_func = nn.L1Loss()  # for which no rows are held out
    with pytest.raises(KeyboardInterrupt): train(learn, 1, cbs=Stop())
    assert learn.model.unseen_rows==unseen is not None
    with pytest.raises(FloatingPointError): train(learn, 1, 1e30)
    assert learn.model.unseen_rows==unseen
    train(learn, 1)
    assert learn.model.unseen_rows is None

def test_targets_that_change_within_a_fit_take_all_rows():
    class Change(Callback):
        def before_batch(self):
            if self.training and self.epoch: self.learn.yb = (6-self.y,)
    learn = new_learner()
    train(learn, 2, cbs=Change())
    assert learn.model.unseen_rows is None and not is_new(learn.model)

def test_an_average_of_epochs_is_not_new():
    "Though its copy was made when the model was"
    learn = new_learner()
    averaged = torch.optim.swa_utils.AveragedModel(learn.model)
    class Average(Callback):
        def after_epoch(self): averaged.update_parameters(self.model)
    assert is_new(averaged.module)
    train(learn, 2, cbs=Average())
    learn.model.load_state_dict(averaged.module.state_dict())
    assert learn.model.unseen_rows is None and not is_new(learn.model)

@pytest.mark.filterwarnings("ignore:.* of the rows repeat a pair")
def test_rows_of_a_pair_are_in_one_part():
    from fastrec.fit.mixing import held_out_parts
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(0, 11, 100), item=rng.integers(0, 9, 100), rating=rng.integers(1, 6, 100)))
    ds = RecDataLoaders.from_df(df, valid_pct=0, seed=1).train_ds
    rows = torch.cat(held_out_parts(ds, 10, 10))
    assert 50<len(rows)==len(rows.unique())<=100

def test_settings_say_that_nothing_was_held_out():
    learn = new_learner(sample_ratings(40, 30, 150))
    assert learn.settings().value['shrink']=='not yet'
    train(learn, 0)
    assert learn.settings().rule['shrink']=='no epoch was asked for'
    train(learn, 1)
    assert learn.settings().value['shrink']=='90% biases alone, tastes times 0.10' and learn.settings().rule['shrink']=='so few ratings say little of tastes'
    dense = new_learner(sample_ratings(12, 14, 160))
    train(dense, 1)
    assert dense.settings().value['shrink']=='as trained' and dense.settings().rule['shrink']=='fewer than 20 training ratings were held out'

@pytest.mark.parametrize('n,times', [(200,20), (200,100), (500,20)], ids=str)
@pytest.mark.parametrize('how', ['als','bayes'])
def test_rows_that_repeat_others_exactly_have_a_solution(how, n, times):
    df = planted(0, 2, 120, 60, 2000).round().head(n)
    with warnings.catch_warnings(action='ignore'):
        for seed in (1,2): assert fitted(pd.concat([df]*times), how, seed).predict_grid().isfinite().all()

def test_a_blend_of_one_pair_has_scores():
    df = pd.DataFrame(dict(user='a', title='x', rating=np.arange(100)%5+1.))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        learn = learner(RecDataLoaders.from_df(df, seed=1))
        with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    assert not [o for o in told if 'degrees of freedom' in str(o.message)]
    assert learn.model.lists_by.score_pairs(torch.tensor([[1,1]])).isfinite().all()

@pytest.mark.long
def test_choose_fit_leaves_out_what_would_ask():
    df = sample_ratings(300, 60, 3000).assign(rating=lambda o: (o.rating>3).astype(int), weight=1)
    with pytest.warns(UserWarning, match='fits of choices are left out'): table,_ = choose_fit(RecDataLoaders.from_df(df, seed=1), 2)
    assert {*table.index}-{'fit_sgd'}=={'fit_bias','fit_als','fit_one_cycle','fit_bayes','popularity'}
    with warnings.catch_warnings(action='ignore'): table,_ = choose_fit(RecDataLoaders.from_df(df, seed=1, weight_name='weight'), 2)
    assert {'fit_ials','fit_ease','fit_blend'}<{*table.index}
    differ = df.assign(weight=1+np.arange(len(df))%2)
    with pytest.warns(UserWarning, match='fits of choices are left out'): table,_ = choose_fit(RecDataLoaders.from_df(differ, seed=1, weight_name='weight'), 2)
    assert not {'fit_ials','fit_ease','fit_blend'} & {*table.index}

def test_choose_fit_keeps_to_choices_where_there_are_no_ratings():
    dls = RecDataLoaders.from_df(sample_ratings(n_users=100, n_items=60, n_ratings=1500).assign(rating=1.), seed=1)
    with warnings.catch_warnings(action='ignore'): table,learn = choose_fit(dls, 5)
    assert list(table.index)==['fit_bias','fit_ials','fit_ease','fit_blend','popularity'] and learn.last_fit[0]==table.attrs['best']

def test_choose_fit_tells_that_nobody_has_rated_twice():
    df = sample_ratings(300, 60, 3000).assign(user=range(3000))
    with warnings.catch_warnings(action='ignore'),pytest.raises(ValueError, match='hardly anybody has rated two things'):
        choose_fit(RecDataLoaders.from_df(df, seed=1), 2)

def test_choose_fit_says_what_is_better_where_there_is_no_time():
    dls = RecDataLoaders.from_df(sample_ratings(300, 60, 4000), seed=1)
    with pytest.warns(UserWarning, match='fit_als is better'): table,learn = choose_fit(dls, 1e-3, fits=dict(fit_bias={}, fit_als={}))
    assert learn.last_fit[0]=='fit_bias'

def test_of_equal_fits_the_faster_is_the_best(recwarn):
    from fastrec.evaluate.choosing import _best
    table = pd.DataFrame(dict(rmse=[.8,.8,.9,np.nan], seconds_on_all=[9.,1.,.1,np.nan]), index=['fit_als','fit_bias','fit_sgd','popularity'])
    assert _best(table, 'rmse', 5)=='fit_bias'==_best(table, 'rmse', 50) and not len(recwarn)
    with pytest.warns(UserWarning, match='fit_bias is better'): assert _best(table, 'rmse', .5)=='fit_sgd'

def test_choose_fit_leaves_out_what_takes_the_cube_of_items():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(400, size=14_000), title=range(14_000), rating=rng.integers(1, 6, 14_000)))
    with warnings.catch_warnings(action='ignore'): fits = choosing._usual_fits(RecDataLoaders.from_df(df, seed=1).train_ds)
    assert 'fit_ease' not in fits and {'fit_ials','fit_blend'}<{*fits}

def test_a_part_is_no_larger_for_one_who_rates_all():
    df = pd.concat([pd.DataFrame(dict(user=-1, title=range(3000), rating=np.arange(3000)%5+1)), sample_ratings(300, 60, 3000)[['user','rating']].assign(title=0)])
    with warnings.catch_warnings(action='ignore'): ds = RecDataLoaders.from_df(df, seed=1).train_ds
    for seed in range(5):
        part,_ = choosing._some_users(ds, 500, np.random.default_rng(seed))
        assert 500<=len(part)<600
    assert len(choosing._some_users(ds, len(ds), np.random.default_rng(0))[0])==len(ds)

# ------------------------------------------------------------------ ratings that tell little, or nothing normal
def mostly_fives(seed, n=40_000):
    df = planted(seed, .5, 1500, 800, n)
    return df.assign(rating=np.where(df.rating<df.rating.quantile(.05), df.rating.round().clip(-6, 0)/2+4, 5.).astype('float32'))

def few_each(seed): return planted(seed, 1., 3000, 1500, 12_000)

@pytest.mark.parametrize('data', [mostly_fives,few_each])
@pytest.mark.parametrize('how', ['als','bayes'])
def test_in_doubt_no_worse_than_biases(how, data):
    with warnings.catch_warnings(action='ignore'):
        ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in (data(s) for s in range(2))]
    assert np.mean(ratios)<=1.003

@pytest.mark.parametrize('how,most', [('cycle',1.04),('sgd',1.02),('als',1.03),*seldom(('bayes',1.06))])
def test_of_a_few_hundred_ratings_hardly_worse_than_biases(how, most):
    "Solvers keep what they have found of so few, which the prior holds small; gradients are believed by half"
    with warnings.catch_warnings(action='ignore'):
        frames = [planted(s, 0, 70, 50, 440) for s in range(6)]
        ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in frames]
    assert np.mean(ratios)<=most  # of 44 rows each

def test_a_fit_in_doubt_goes_on_from_where_it_is():
    "What it draws to, and the mean it counts from, stay as they are"
    df = planted(0, 6, 4000, 200, 16_000)  # who has rated four films, each of them rated by eighty
    with warnings.catch_warnings(action='ignore'):
        learn = fitted(df, 'als')
        a,w,n = learn.model.advised
        assert 0<=a<=1 and 0<w<=1 and n>1000  # there is taste, and some of it is believed
        before = rmse(learn)
        with learn.no_bar(),learn.no_logging():
            learn.fit_als(8)
            assert rmse(learn)<1.02*before
            learn.fit_bayes(8, 20)
    assert rmse(learn)<1.05*before and learn.settings().rule['shrink']=='least error, beyond chance'
    assert learn.predict_grid().isfinite().all()

@pytest.mark.parametrize('seed', [0,1])
def test_in_doubt_intervals_are_as_wide_as_held_out_ratings_vary(seed):
    with warnings.catch_warnings(action='ignore'): learn = fitted(planted(seed, 0., 4000, 2000, 24_000), 'bayes')  # that there is no taste is not the subject
    ds = learn.dls.valid_ds
    x = ds.x[:,:2]
    labels = [v.labels[x[:,k].numpy()-1] for k,v in enumerate(learn.dls.classes.values())]
    df = pd.DataFrame(dict(zip(learn.dls.classes, labels)))
    pred = learn.predict_df(df, std=True)
    z = (ds.y.numpy()-pred.iloc[:,0])/pred['std']
    assert learn.model.advised is not None and .9<(z**2).mean()<1.09

def test_without_taste_there_is_nothing_to_draw():
    with pytest.warns(UserWarning, match='no better than biases alone'): learn = fitted(planted(0, 0, 4000, 200, 16_000), 'als')
    assert not learn.model.item_factors.any() and learn.settings().value['shrink'].startswith('100% biases alone')
    for ask in (lambda: learn.similar('f3'), lambda: RecInterpretation.from_learner(learn).item_pca(2), lambda: RecInterpretation.from_learner(learn).similar_map()):
        with pytest.raises(ValueError, match='found no tastes'): ask()

def test_reports_the_error_of_what_there_is():
    df = planted(0, 0, 1500, 700, 8000)
    with warnings.catch_warnings(action='ignore'): learn = fitted(df, 'als')
    ds = learn.dls.train_ds
    with torch.no_grad(): mse = (learn.model.score_pairs(ds.x)-ds.y).square().mean()
    assert abs(float(learn.history.train_loss.iloc[-1])/float(mse)-1)<1e-4

# ------------------------------------------------------------------ networks
def test_a_network_without_taste_to_find_is_biases_and_answers_as_they_do():
    df = planted(0, 0, 1500, 700, 8000)
    with warnings.catch_warnings(action='ignore'): learn,biases = fitted(df, 'cycle', use_nn=True),fitted(df, 'bias')
    assert rmse(learn)<1.003*rmse(biases)<rmse(fitted(df, 'cycle', use_nn=True, shrink=False))
    assert learn.settings().value['shrink']=='100% biases alone'
    grid,of_biases = (o.predict_grid().numpy() for o in (learn,biases))
    assert np.corrcoef(grid.ravel(), of_biases.ravel())[0,1]>.995

def test_a_network_between_itself_and_biases_answers_alike_everywhere(tmp_path):
    df = sample_ratings()
    learn = fitted(df, 'cycle', use_nn=True, product=4)
    a, = learn.shrink_to_biases.chosen
    assert 0<a<1 and learn.model.i_bias.weight.any()
    pairs = df[['user','title']].head(50)
    want = learn.predict_df(pairs)
    learn.save_recommender(tmp_path/'net')
    np.testing.assert_allclose(load_recommender(tmp_path/'net').predict_df(pairs), want, atol=1e-5)
    np.testing.assert_allclose([learn.predict(u, t) for u,t in pairs.values[:5]], want[:5], atol=1e-5)
    own = df[df.user==df.user.iloc[0]]
    again = learn.fold_in(own[['title','rating']])
    known = learn.predict_df(own)
    assert np.corrcoef([again.predict(t) for t in own.title], known)[0,1]>.8

def test_weights_of_a_network_from_before_it_had_biases(tmp_path):
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1), use_nn=True)
    old = {k: v for k,v in learn.model.state_dict().items() if '_bias.' not in k}
    assert len(old)==len(learn.model.state_dict())-2
    nn.init.ones_(learn.model.i_bias.weight)
    learn.model.load_state_dict(old)
    assert not learn.model.i_bias.weight.any()
    assert not any(o.requires_grad for o in learn.model.biases)

# ------------------------------------------------------------------ choices without taste
def chosen(n, seed=0, n_users=800, n_items=200):
    "`n` different choices in which nobody has a taste; with 60,000 of them many are chosen by most"
    rng = np.random.default_rng(seed)
    weights = rng.lognormal(0, .8, n_users)[:,None]*np.arange(5, n_items+5)**-.8
    u,i = np.divmod(np.argsort(rng.exponential(size=weights.size)/weights.ravel())[:n], n_items)
    return pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=1.))

@pytest.mark.parametrize('n', [6000,20_000,60_000])
def test_lists_without_taste_are_those_of_popularity(n):
    learn = learner(RecDataLoaders.from_df(chosen(n), valid_pct=.1, seed=1), y_range=(.5,1.5))
    with learn.no_bar(),learn.no_logging(),pytest.warns(UserWarning, match='who chose what says no more'): learn.fit_ials()
    res = learn.evaluate().ndcg_at_10
    assert res['model']==res['popularity']>0
    assert learn.settings().rule['reg'].startswith('popularity')
    new = learn.fold_in(pd.DataFrame(dict(user=['new']*2, title=['f3','f9'], rating=1.))).recommend('new', n=3)
    assert not {'f3','f9'}&set(new.title)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(reg=.01)  # asked for
    assert learn.model.item_factors.any()

def test_taste_in_choices_is_found():
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=42))
    with learn.no_bar(),learn.no_logging(): learn.fit_ials()
    res = learn.evaluate().ndcg_at_10
    assert res['model']>1.3*res['popularity']

@pytest.mark.parametrize('how', ['fit_ials','fit_ease','fit_blend'])
def test_one_choice_each_is_popularity(how):
    rng = np.random.default_rng(0)
    share = 1/np.arange(1, 61)
    items = rng.choice(60, 400, p=share/share.sum())
    df = pd.DataFrame(dict(user=np.arange(400), title=items, rating=rng.integers(1, 6, 400)))
    with warnings.catch_warnings(action='ignore'):
        learn = learner(RecDataLoaders.from_df(df, seed=1))
        with learn.no_bar(),learn.no_logging(): getattr(learn, how)()
    counts = learn.dls.train_ds.counts(1)[1:]
    with pytest.warns(UserWarning, match='get no list'): lists = learn.recommend(n=5, exclude_seen=False)
    best = learn.dls.classes['title'].labels[counts.argsort(descending=True, stable=True)[:5].numpy()]
    assert (lists.groupby('user').title.apply(list)==pd.Series([list(best)]*learn.n_users, lists.user.unique())).all()

@pytest.mark.parametrize('kwargs,error,match', [(dict(fits=['fit_als']), TypeError, 'must be a dict'), (dict(fits=dict(fit_state={})), ValueError, 'is not a fit'),
    (dict(fits=dict(fit_ease={}), by='rmse'), ValueError, "by='rmse'")], ids=str)
def test_choose_fit_refuses(kwargs, error, match):
    with pytest.raises(error, match=match): choose_fit(new_learner().dls, 5, **kwargs)

def test_choose_fit_of_choices_alone_goes_by_lists():
    with warnings.catch_warnings(action='ignore'): table,learn = choose_fit(new_learner().dls, 5, fits=dict(fit_ials={}, fit_ease={}))
    assert table.attrs['best']==table.ndcg_at_10.drop('popularity').idxmax()==learn.last_fit[0]

def of_tastes(seed=0, n_users=300, n_items=200, n=6000, rank=4):
    "Twenty ratings a user by `rank` tastes, which vary by .6 together"
    rng = np.random.default_rng(seed)
    u,i = np.divmod(rng.choice(n_users*n_items, n, replace=False), n_items)
    p,q = (rng.normal(size=(o,rank)) for o in (n_users,n_items))
    return pd.DataFrame(dict(user=u, title=i, rating=(3 + .6/rank**.5*(p[u]*q[i]).sum(1) + rng.normal(0, .7, n)).clip(.5, 5.5)))

@pytest.mark.parametrize('seed', [0,*seldom(1, 2)])
def test_tastes_are_not_lost_where_rows_have_few_ratings(seed, tmp_path):
    dls = RecDataLoaders.from_df(of_tastes(seed), seed=0)
    def fit(learn, how='fit_als', **kwargs):
        with learn.no_bar(),learn.no_logging(): getattr(learn, how)(**kwargs)
        return rmse(learn)
    learn = learner(dls)
    biases,als,bayes = fit(learner(dls), 'fit_bias'),fit(learn),fit(learner(dls), 'fit_bayes')
    assert als<.96*biases and als<1.015*bayes
    assert learn.settings().value['spread']==learn.model.taste_spread
    rec = load_recommender(learn.save_recommender(tmp_path/'m', ratings=True))
    assert rec.model.taste_spread==learn.model.taste_spread
    for later in (learn,learner(dls, init=rec)): assert fit(later)<1.01*als  # nor by a fit that goes on
    given = learner(dls)
    fit(given, reg=1.)
    assert fit(given)<.97*biases

def test_a_fit_that_goes_on_learns_again_once_there_are_enough_ratings():
    many = of_tastes(0, n_users=60, n_items=40, n=2300, rank=2)
    few = learner(RecDataLoaders.from_df(many.sample(1200, random_state=0), seed=0), seed=0)
    with few.no_bar(),few.no_logging(): few.fit_als(4)
    few.model.taste_spread = 3.  # as a trial may find
    later = learner(RecDataLoaders.from_df(many, valid_pct=.1, seed=0), init=few)
    assert later.model.taste_spread==3
    with later.no_bar(),later.no_logging(): later.fit_als(4)
    assert later.model.taste_spread is None and 'spread' not in later.settings().index

def test_what_is_learned_stays_where_it_is_enough():
    "Two tastes with many ratings, and ratings without taste"
    many,none = (learner(RecDataLoaders.from_df(o, seed=0)) for o in (of_tastes(n_users=100, n_items=60, n=4000, rank=2),sample_ratings(n_users=300, n_items=150, n_ratings=4000)))
    for learn in (many,none):
        with learn.no_bar(),learn.no_logging(): learn.fit_als()
    assert many.model.taste_spread is None
    plain = learner(none.dls)
    with plain.no_bar(),plain.no_logging(): plain.fit_bias()
    assert rmse(none)<1.01*rmse(plain)

@pytest.mark.parametrize('nn', [False,True], ids=['dot','network'])
@pytest.mark.parametrize('n', [200,400,800])
def test_a_few_hundred_ratings_cost_gradients_little(n, nn):
    "Most users and items have one or two: nothing can be held out, and what was trained is mostly noise; the error was 5 to 12% above that of biases"
    df = sample_ratings(n_users=400, n_items=250, n_ratings=n)
    ratios = []
    for seed in range(3):
        dls = RecDataLoaders.from_df(df, valid_pct=.3, seed=seed)
        learn,plain = learner(dls, use_nn=nn, seed=0),learner(dls)
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(5)
        with plain.no_bar(),plain.no_logging(): plain.fit_bias()
        ratios.append(rmse(learn)/rmse(plain))
        assert 'biases alone' in learn.settings().value['shrink']
    assert np.mean(ratios)<1.02

def marks(seed):
    "Two hundred pupils with five exams each, who differ in nothing but how good they are"
    rng = np.random.default_rng(seed)
    pupil,exam = np.divmod(np.arange(1000), 5)
    y = 10+3*rng.normal(size=200)[pupil]+rng.normal(0, 2, 1000)
    return pd.DataFrame(dict(user=pupil, title=exam, rating=y.clip(0, 20)))

def mostly_zeros(seed):
    "A dense table in which three of five ratings are a 0 by chance"
    rng = np.random.default_rng(seed)
    u,i = (rng.random((150,80))<.3).nonzero()
    y = 5+.8*rng.normal(size=150)[u]+.8*rng.normal(size=80)[i]+rng.normal(0, 2, len(u))
    return pd.DataFrame(dict(user=u, title=i, rating=np.where(rng.random(len(u))<.6, 0, y.clip(1, 10).round())))

@pytest.mark.long
@pytest.mark.parametrize('data', [marks,mostly_zeros])
def test_draws_of_few_ratings_hold_no_taste_that_is_not_borne_out(data):
    "They were 1% and more worse than biases by default"
    ratios = []
    for seed in range(3):
        errors = []
        for fit in ('fit_bias','fit_bayes'):
            with warnings.catch_warnings(action='ignore'):  # which ask whether a 0 means 'not rated', and tell of no taste
                learn = learner(RecDataLoaders.from_df(data(seed), valid_pct=.1, seed=seed), seed=0)
                with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
            errors.append(rmse(learn))
        ratios.append(errors[1]/errors[0])
    assert np.mean(ratios)<1.003 and learn.model.advised[-1]>100

def dozens(seed, taste, n_users, n_items, share):
    "Ratings of a `share` of a small table, pure chance or two camps that like what the other doesn't, and the others to predict"
    rng = np.random.default_rng(seed)
    u,i = np.divmod(np.arange(n_users*n_items), n_items)
    y = rng.integers(1, 6, len(u))*1.
    if taste: y = 3+1.2*rng.choice([-1,1], n_users)[u]*rng.choice([-1,1], n_items)[i]+rng.normal(0, .4, len(u))
    df = pd.DataFrame(dict(user=u, title=i, rating=y))
    held = df.sample(frac=1-share, random_state=seed)
    train = df.drop(held.index)
    return train,held[held.user.isin(train.user) & held.title.isin(train.title)]

def error_on(train, held, fit, seed):
    learn = learner(RecDataLoaders.from_df(train, valid_pct=0), seed=seed)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    return float(((learn.predict_df(held)-held.rating.to_numpy())**2).mean())

@pytest.mark.long
@pytest.mark.parametrize('size', [(8,6,.7),(15,10,.7)], ids=['34','105'])
def test_draws_of_a_few_dozen_ratings_hold_no_taste_of_chance(size):
    "They were 22% and 7% worse than biases, in silence: too few rows were left to ask"
    errors = [[error_on(*dozens(seed, False, *size), fit, seed) for fit in ('fit_bias','fit_bayes')] for seed in range(3)]
    biases,draws = np.sqrt(np.mean(errors, 0))
    assert draws<1.01*biases

@pytest.mark.long
def test_draws_of_a_hundred_ratings_keep_a_strong_taste():
    "Of two camps, which biases know nothing of"
    errors = [[error_on(*dozens(seed, True, 15, 10, .7), fit, seed) for fit in ('fit_bias','fit_als','fit_bayes')] for seed in range(2)]
    biases,als,draws = np.sqrt(np.mean(errors, 0))
    assert draws<.5*biases and draws<1.15*als

def test_of_a_hundred_ratings_each_is_asked_once():
    from fastrec.fit.borne_out import _left_out
    df = pd.DataFrame(dict(user=np.arange(105)//7, title=np.arange(105)%7, rating=1.+np.arange(105)%5))
    ds = RecDataLoaders.from_df(df, valid_pct=0).train_ds
    parts = [o.tolist() for o in _left_out(ds)]
    assert len(parts)==10 and sorted(sum(parts, []))==sorted({*sum(parts, [])}) and sum(map(len, parts))>95
    for part in parts:
        left = np.delete(ds.x.numpy(), part, 0)
        assert all(len(np.unique(left[:,k]))==n-1 for k,n in enumerate(ds.sizes))

@pytest.mark.long
def test_what_draws_of_few_ratings_know_of_tastes_is_kept():
    "Nearly all of what they gain where nobody asks"
    gains = []
    for seed in range(3):
        df = planted(seed, 3, 150, 100, 3000)
        errors = []
        for part in (lambda *_: [], None):
            with pytest.MonkeyPatch.context() as m, warnings.catch_warnings(action='ignore'):
                if part: m.setattr('fastrec.fit.borne_out._left_out', part)
                errors.append(rmse(fitted(df, 'bayes')))
        of_biases = rmse(fitted(df, 'bias'))
        gains.append([of_biases-o for o in errors])
    plain,asked = np.mean(gains, 0)
    assert plain>0 and asked>.8*plain

@pytest.mark.parametrize('side', ['user','title'])
def test_draws_of_one_rating_each_have_a_spread(side):
    "Nothing can be left out of them to ask"
    n = 300
    one,many = np.arange(n),np.arange(n)%7
    df = pd.DataFrame(dict(user=one if side=='user' else many, title=many if side=='user' else one, rating=1.+np.arange(n)%5))
    with warnings.catch_warnings(action='ignore'):
        learn = learner(RecDataLoaders.from_df(df, valid_pct=0), seed=0)
        with learn.no_bar(),learn.no_logging(): learn.fit_bayes(4, 20)
    assert learn.model.advised is None and np.isfinite(learn.predict(0, 0, std=True)).all()
