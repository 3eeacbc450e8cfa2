"""Modes of PyTorch that people set for other reasons: another default dtype, inference mode, no_grad, autocast on the CPU. Each answer is the one without"""
import functools,threading,warnings
from contextlib import contextmanager
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import CollabDataLoaders,collab_learner
from conftest import seldom
from fastrec.all import DeepMF,DotBias,RecDataLoaders,RecLearner,learner,load_recommender,nn_learner,rmse,sample_ratings
from fastrec.base.devices import exactly,making_weights

@contextmanager
def default_dtype(dtype):
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try: yield
    finally: torch.set_default_dtype(before)

modes = dict(float64=lambda: default_dtype(torch.float64), bfloat16=lambda: default_dtype(torch.bfloat16),
             float16=lambda: default_dtype(torch.float16), no_grad=torch.no_grad, inference=torch.inference_mode,
             autocast=lambda: torch.autocast('cpu', dtype=torch.bfloat16))
kinds = 'fit sparse nn bias als ials bayes'.split()
every_mode,every_kind = pytest.mark.parametrize('mode', ['float64','inference','autocast',*seldom('bfloat16', 'float16', 'no_grad')]),pytest.mark.parametrize('kind', kinds)
every_model = pytest.mark.parametrize('kind', [o for o in kinds if o not in ('sparse','als')])  # which leave one that answers as that of 'fit'

@functools.cache
def frame(): return sample_ratings(n_users=40, n_items=30, n_ratings=700, seed=0)

def mine(): return pd.DataFrame(dict(title=frame().title.unique()[:3].tolist(), rating=[5,5,1.]))

def quiet(learn):
    learn.remove_cbs([o for o in learn.cbs if type(o).__name__=='ProgressCallback'])
    learn.logger = lambda *_: None
    return learn

def fitted(kind):
    dls = RecDataLoaders.from_df(frame(), seed=1, bs=64)
    res = quiet(nn_learner(dls, n_factors=4) if kind=='nn' else learner(dls, n_factors=4, sparse=kind=='sparse'))
    if kind in ('fit','sparse','nn'): res.fit_one_cycle(2)
    elif kind=='bias': res.fit_bias()
    elif kind=='bayes': res.fit_bayes(3, 8)
    else: getattr(res, f'fit_{kind}')(4, 4)
    return res

@functools.cache
def as_usual(kind):
    with warnings.catch_warnings(action='ignore'):  # whichever test comes first
        res = fitted(kind)
        return res,answers(res)

def answers(rec):
    "What `rec` says, as arrays"
    users,titles = ([*v.labels[:5]] for v in rec.ds.classes.values())
    res = dict(predict=rec.predict(users[0], titles[0]), average=rec.predict(-9, titles[0], unknown='average'), grid=rec.predict_grid(users, titles),
               frame=rec.predict_df(pd.DataFrame(dict(user=users, title=titles))), lists=rec.recommend(users, n=3).score, damped=rec.recommend(users, n=3, damping=.5).score,
               folded=rec.fold_in(mine()).recommend(n=3).score, nobody=rec.fold_in(mine()[:0]).recommend(n=3).score,
               metrics=rec.evaluate(frame(), k=5).select_dtypes('number'))
    if rec.model.tables[0][0].embedding_dim:
        res['similar'] = rec.similar(titles[0], n=3).similarity
        res['diverse'] = rec.recommend(users, n=3, diversity=.4).score
    if type(rec.model).__name__=='PosteriorMean':
        res.update(std=rec.predict(users[0], titles[0], std=True), bold=rec.recommend(users, n=3, z=1.).score, draw=rec.recommend(users, n=3, draw=0).score)
    return {k: np.asarray(o, dtype=float) for k,o in res.items()}

def same(found, want):
    for k in want: np.testing.assert_allclose(found[k], want[k], atol=1e-4, rtol=1e-4, err_msg=k)

def near(found, want):
    "As far as predictions go, up to what bfloat16 rounds in training; items of lists may change places"
    for k in ('predict','average','grid','frame'): np.testing.assert_allclose(found[k], want[k], atol=.01, err_msg=k)

@every_mode
@every_model
@pytest.mark.filterwarnings('ignore')
def test_answers_are_those_without_the_mode(kind, mode):
    rec,want = as_usual(kind)
    with modes[mode](): found = answers(rec)
    same(found, want)
    same(answers(rec), want)

@every_mode
@every_kind
@pytest.mark.filterwarnings('ignore')
def test_fits_are_those_without_the_mode(kind, mode):
    with modes[mode](): res = fitted(kind)
    assert {o.dtype for o in res.model.state_dict().values() if o.is_floating_point()}=={torch.float32}
    if (kind,mode)==('nn','autocast'): near(answers(res), as_usual(kind)[1])  # it trains in bfloat16 if that is asked for
    else: same(answers(res), as_usual(kind)[1])
    if kind!='bayes' and kind!='ials': res.fit(1)  # and it goes on outside

@pytest.mark.filterwarnings('ignore')
def test_fits_in_autocast_use_the_weights_of_each_step():
    "PyTorch would keep rounded copies of those of the first batch"
    def fit():
        learn = quiet(learner(RecDataLoaders.from_df(sample_ratings(), seed=42), seed=1, use_nn=True))
        learn.fit_one_cycle(2)
        return learn
    plain = fit()
    with modes['autocast']():
        learn = fit()
        assert learn.history.rmse.iloc[-1]==pytest.approx(learn.evaluate().rmse['model'], abs=.002)
        assert learn.history.rmse.iloc[-1]==pytest.approx(plain.history.rmse.iloc[-1], abs=.01)
        before = list(learn.validate())
        learn.lr_find(num_it=5, show_plot=False)
        assert list(learn.validate())==pytest.approx(before, abs=1e-6)
        for o in learn.model.parameters(): o.data.zero_()
        assert learn.validate()[1]>before[1]+.05

@every_mode
@every_model
@pytest.mark.filterwarnings('ignore')
def test_loaded_in_the_mode_answers_there_and_outside(kind, mode, tmp_path):
    rec,want = as_usual(kind)
    path = rec.save_recommender(tmp_path/'rec')
    with modes[mode]():
        loaded = load_recommender(path)
        same(answers(loaded), want)
    same(answers(loaded), want)
    with modes[mode](): rec.save_recommender(tmp_path/'again')
    same(answers(load_recommender(tmp_path/'again')), want)

@pytest.mark.parametrize('make', [learner,nn_learner])
def test_weighed_rows_are_drawn_alike(make):
    df = frame().assign(w=1+np.arange(len(frame()))%3)
    def grid():
        learn = quiet(make(RecDataLoaders.from_df(df, weight_name='w', seed=1)))
        learn.fit(1)
        return learn.predict_grid()
    want = grid()
    with default_dtype(torch.float64): found = grid()
    assert (found-want).abs().max()<1e-4

@every_mode
def test_network_trains_in_the_mode_and_outside(mode):
    with modes[mode]():
        res = quiet(nn_learner(RecDataLoaders.from_df(frame(), seed=1, bs=64), n_factors=4))
        res.fit(1)
        res.lr_find(num_it=5, show_plot=False)
    res.fit(1)
    assert torch.isfinite(res.model.embeds[0].weight).all()

@pytest.mark.parametrize('mode', ['float64','inference','no_grad','autocast'])
def test_new_users_of_a_mode_take_more_of_them(mode):
    rec = as_usual('fit')[0]
    with modes[mode](): new = rec.fold_in(mine())
    assert not any(o.is_inference() for o in new.model.state_dict().values())
    assert new.fold_in(mine()).predict_grid().isfinite().all()

def test_prior_of_weights_from_inference_mode():
    dls = RecDataLoaders.from_df(frame(), seed=1, bs=64)
    rec = learner(dls, n_factors=4)
    with torch.inference_mode(): rec.model.u_weight.weight = torch.nn.Parameter(rec.model.u_weight.weight.clone(), requires_grad=False)
    assert rec.model.u_weight.weight.is_inference()
    assert rec.fold_in(mine()).predict_grid().isfinite().all()

@pytest.mark.parametrize('mode', ['float64','bfloat16','float16'])
def test_weights_do_not_depend_on_the_default(mode):
    def made():
        torch.manual_seed(0)
        return [*DotBias(3, 5, 6, mean=3.3).state_dict().values(), *DeepMF([(5,3),(6,2)], [7]).parameters(), torch.rand(1, dtype=torch.float32)]
    want = made()
    with modes[mode](): got = made()
    for a,b in zip(got, want): assert a.dtype==b.dtype and torch.equal(a, b)

def test_float32_is_of_one_thread():
    with default_dtype(torch.float64),making_weights():
        assert torch.empty(2).dtype==torch.float32 and torch.zeros(2, dtype=int).dtype==torch.int64
        there = []
        t = threading.Thread(target=lambda: there.append(torch.empty(2).dtype))
        t.start()
        t.join()
    assert there==[torch.float64]

@pytest.mark.parametrize('mode', ['float64','inference'])
@pytest.mark.filterwarnings('ignore')
def test_stock_learner_of_a_mode(mode):
    with modes[mode](): res = quiet(RecLearner.from_learner(collab_learner(CollabDataLoaders.from_df(frame()[['user','title','rating']], seed=1, bs=64), n_factors=4)))
    assert {o.dtype for o in res.model.parameters()}=={torch.float32}
    res.fit(1)
    res.fold_in(mine()).recommend()

def test_exactly_leaves_and_restores():
    with torch.inference_mode(),torch.autocast('cpu', dtype=torch.bfloat16):
        with exactly():
            assert torch.is_grad_enabled() and not torch.is_inference_mode_enabled() and not torch.is_autocast_enabled('cpu')
        assert torch.is_inference_mode_enabled() and torch.is_autocast_enabled('cpu')

def test_train_metrics_under_another_default():
    with default_dtype(torch.bfloat16):
        res = quiet(nn_learner(RecDataLoaders.from_df(frame(), seed=1, bs=64), n_factors=4, metrics=rmse))
        res.recorder.train_metrics = True
        res.fit(1)
    assert res.history.notna().all().all()

@pytest.mark.parametrize('call', [lambda l: RecDataLoaders.from_df(frame(), device='cpu'), lambda l: RecDataLoaders.from_df(frame()), lambda l: learner(l.dls),
    lambda l: l.fit(1), lambda l: l.fit_als(4, 2), lambda l: l.recommend(n=2), lambda l: l.predict_grid(), lambda l: l.predict_df(frame()[:3]),
    lambda l: l.fold_in(mine()), lambda l: l.evaluate(frame(), k=5), lambda l: l.extend(frame()[:3].assign(user=-1))])
def test_another_default_device_is_refused(call):
    learn,_ = as_usual('bias')
    with torch.device('meta'),pytest.raises(ValueError, match=r"torch.set_default_device\('meta'\).* pass device='meta' to the loaders"): call(learn)

@pytest.mark.parametrize('mode', [o for o in modes if o not in ('no_grad','inference')])
def test_interpretation_in_every_mode(mode):
    from fastrec.all import RecInterpretation,tastes
    learn = as_usual('als')[0]
    def ask():
        rec = RecInterpretation.from_learner(learn)
        return rec.item_pca(2),rec.user_pca(2),tastes(learn, frame().title[0]).drop(columns='beside')
    want = ask()
    with modes[mode]():
        for a,b in zip(ask(), want, strict=True): pd.testing.assert_frame_equal(a, b, atol=1e-4)
