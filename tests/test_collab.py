"""Models and learners: known answers, fastai's callbacks, repeatability, and what bad arguments get"""
import math,sys
from functools import partial
import numpy as np,pandas as pd,pytest,torch,torch.nn.functional as F
from fastai.callback.all import Callback,EarlyStoppingCallback,FetchPredsCallback,GradientClip,SaveModelCallback,TerminateOnNaNCallback,TrackerCallback
from fastai.callback.core import event
from fastai.learner import Learner,Recorder,load_learner
from fastai.collab import EmbeddingDotBias
from fastai.losses import BCEWithLogitsLossFlat,CrossEntropyLossFlat,L1LossFlat,MSELossFlat
from fastai.metrics import AccumMetric,mae,msle,rmse
from fastai.optimizer import SGD,Adam,OptimWrapper,RAdam,RMSProp,ranger
from fastai.torch_core import tensor,to_np
from fastcore.foundation import L
from conftest import release_path,settings,started
from fastrec.all import (BPRLoss,DeepMF,DotBias,FactorModel,FusedAdam,IndexSplitter,RecDataLoaders,RecLearner,UserSplitter,collab_learner,dot_learner,
                         learner,movielens_folds,nn_learner,scaled_wd)

def fit(learn, n=2, **kwargs):
    with learn.no_logging(): learn.fit_one_cycle(n, **kwargs)
    return learn

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

# ------------------------------------------------------------------ known answers
def test_finds_what_was_planted(sample, arch):
    ratings,truth = sample
    dls = RecDataLoaders.from_df(ratings, seed=1, bs=64)
    learn = fit(learner(dls, arch), 5)
    pred = to_np(learn.get_preds()[0])
    known = to_np((dls.valid_ds.x>0).all(1))
    pairs = dls.valid_ds.decode(dls.valid_ds.x)[known].merge(truth.items.reset_index()[['item','title']], on='title')
    assert np.corrcoef(pred[known], truth.expected(pairs))[0,1] > .7
    assert truth.best_rmse(ratings) < learn.recorder.values[-1][-1] < ratings.rating.std()*.93

def test_no_factors_is_the_bias_model():
    users,items = np.repeat(np.arange(12), 10),np.tile(np.arange(10), 12)
    df = pd.DataFrame(dict(user=users, item=items, rating=3 + users/12 - items/10))
    learn = dot_learner(RecDataLoaders.from_df(df, seed=1, bs=32), 0, y_range=False, wd=0.)
    assert fit(learn, 60, lr_max=.1).recorder.values[-1][-1] < .03

def test_forward_by_hand(dls):
    m = learner(dls, n_factors=3, y_range=False).model
    x = dls.one_batch()[0]
    dot = [m.u_weight.weight[u] @ m.i_weight.weight[i] + m.u_bias.weight[u,0] + m.i_bias.weight[i,0] for u,i in x.tolist()]
    assert torch.allclose(m(x), torch.stack(dot)+dls.train_ds.y.mean(), atol=1e-6)

def test_same_as_fastai_model(dls):
    learn,stock = learner(dls, n_factors=4, y_range=(0,5.5)),collab_learner(dls, n_factors=4, y_range=(0,5.5))
    stock.model.load_state_dict({k: v for k,v in learn.model.state_dict().items() if k!='mean'})
    x,y = dls.one_batch()
    assert torch.allclose(learn.model(x), stock.model(x), atol=1e-6)

def test_optimizer_equals_fastai_adam(dls):
    def trained(opt_func): return weights(fit(learner(dls, opt_func=opt_func, seed=5, wd=.1)))
    assert torch.allclose(trained(FusedAdam), trained(Adam), atol=2e-6)

def test_biases_are_not_decayed(dls):
    def after(**kwargs):
        learn = learner(dls, seed=1, lr=.01, wd=100., shrink=False, **kwargs)
        with learn.no_logging(): learn.fit(1)
        return learn.model.u_weight.weight.abs().mean().item(),learn.model.u_bias.weight.abs().mean().item()
    (f,b),(_,decayed) = after(),after(wd_bn_bias=True)
    assert f<.02 and b>.05 and decayed<.02

# ------------------------------------------------------------------ more than there is room for
@pytest.mark.parametrize('make,size', [
    (lambda d: learner(d, n_factors=10**9), r'[\d,]+\.\d GB'), (lambda d: nn_learner(d, layers=[10**6,10**5]), r'1,60\d\.\d GB'), (lambda d: nn_learner(d, (10**9,3)), r'[\d,]+\.\d GB'),
    *((lambda d, n=n, f=f: f(d, n_factors=n), 'more than a petabyte') for n in (2**62,10**20,10**400) for f in (dot_learner,nn_learner))], ids=range(9))
def test_more_than_there_is_room_for(dls, make, size, monkeypatch):
    "Nothing is made of a model that is too large"
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 3*10**9)
    for arch in (DotBias,DeepMF): monkeypatch.setattr(arch, '__init__', lambda *args, **kwargs: pytest.fail('a model was made'))
    with pytest.raises(ValueError, match=f'cpu has no room for the model, {size}: pass fewer n_factors or layers.*It has 3.0 GB'): make(dls)

@pytest.mark.parametrize('make', [lambda d: learner(d, n_factors=7), lambda d: learner(d, n_factors=0), lambda d: nn_learner(d, (3,5), layers=[6,4], use_bn=False), lambda d: nn_learner(d, 4, use_bn=False)], ids=range(4))
def test_the_size_of_a_model_is_known_before(dls, make, monkeypatch):
    told = []
    monkeypatch.setattr('fastrec.models.trainable.need_memory', lambda n, *args: told.append(n))
    assert told==[sum(p.nbytes for p in make(dls).model.parameters())]

def test_room_for_what_training_takes(dls, monkeypatch):
    "Gradients and two averages, unless rows are touched alone"
    n = 4*10_001*sum(map(len, dls.classes.values()))
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 2*n)
    assert learner(dls, n_factors=10_000, sparse=True)
    with pytest.raises(ValueError, match='no room for the model'): learner(dls, n_factors=10_000, sparse=False)

class OwnWay(DotBias):
    @classmethod
    def from_classes(cls, n_factors, classes, wide=10_000, **kwargs): return super().from_classes(wide, classes, **kwargs)

def test_room_for_a_model_made_in_its_own_way(dls, monkeypatch):
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 3*4*10_001*sum(map(len, dls.classes.values())))
    with pytest.raises(ValueError, match='no room for the model'): learner(dls, OwnWay, n_factors='some')
    assert learner(dls, OwnWay, n_factors='some', wide=3)

# ------------------------------------------------------------------ unknown users and items
def test_unknown_is_average(ratings, arch):
    dls = RecDataLoaders.from_df(ratings, UserSplitter(seed=1), seed=1, bs=64)
    learn = fit(learner(dls, arch), 4)
    for es in learn.model.tables:
        for e in es: assert torch.allclose(e.weight[0], e.weight[1:].mean(0), atol=1e-6)
    assert learn.recorder.values[-1][-1] < ratings.rating.std()
    new = pd.DataFrame(dict(user=[-1], title=[ratings.title[0]]))
    with pytest.warns(UserWarning, match='average stands in'): dl = dls.test_dl(new, unknown='average')
    if arch is DotBias:
        m = learn.model
        i = dls.classes['title'].lookup([ratings.title[0]])[0]
        logit = m.u_weight.weight[1:].mean(0) @ m.i_weight.weight[i] + m.u_bias.weight[1:].mean() + m.i_bias.weight[i,0] + m.mean
        assert torch.allclose(learn.get_preds(dl=dl)[0], torch.sigmoid(logit)*5+.5, atol=1e-5)

# ------------------------------------------------------------------ repeatability
@pytest.mark.parametrize('kwargs', [{}, dict(arch=DeepMF), dict(arch=DeepMF, ps=[.2], embed_p=.1)])
def test_same_seed_same_weights(ratings, kwargs):
    def run(seed):
        torch.rand(3); np.random.rand(3)
        return weights(fit(learner(RecDataLoaders.from_df(ratings, seed=seed, bs=256), **kwargs)))
    state = torch.get_rng_state()
    run(3)
    torch.set_rng_state(state); torch.rand(3)
    after = torch.get_rng_state()
    torch.set_rng_state(state)
    a = run(3)
    assert torch.get_rng_state().equal(after)
    assert a.equal(run(3)) and not a.equal(run(4))

def test_looking_changes_nothing(dls):
    a,b = learner(dls),learner(dls)
    fit(a)
    dls.show_batch(show=False); dls.one_batch()
    with b.no_bar(): b.lr_find(num_it=5, show_plot=False)
    assert weights(fit(b)).equal(weights(a))
    assert weights(fit(a)).equal(weights(fit(b)))

def test_each_fit_has_its_own_order(dls):
    learn,first = learner(dls),[]
    class Keep(Callback):
        def before_batch(self):
            if self.training and self.iter==0: first.append(self.x.clone())
    learn.add_cb(Keep())
    with learn.no_logging(): learn.fit(2); learn.fit(1)
    assert not any(first[i].equal(first[j]) for i,j in ((0,1),(0,2),(1,2)))

# ------------------------------------------------------------------ fastai's world
def test_save_model_keeps_the_smallest_rmse(dls, tmp_path):
    learn = learner(dls, path=tmp_path, lr=.1, wd=0., shrink=False)
    saver = SaveModelCallback(monitor='rmse', min_delta=.001)
    with learn.no_logging(): learn.fit(6, cbs=saver)
    rmses = [v[-1] for v in learn.recorder.values]
    assert rmses[-1]>min(rmses)+.001 and saver.best<=min(rmses)+.001 and saver.min_delta==-.001
    assert learn.validate()[-1]==pytest.approx(saver.best, abs=1e-5)

@pytest.mark.parametrize('metric,name', [(rmse,'rmse'), (mae,'mae'), (msle,'msle')])
def test_tracked_errors_should_fall(dls, metric, name):
    learn = learner(dls, metrics=metric)
    tracker = EarlyStoppingCallback(name, patience=3)
    with learn.no_logging(): learn.fit(2, cbs=tracker)
    assert tracker.comp is np.less and tracker.best==min(v[-1] for v in learn.recorder.values)

@pytest.mark.parametrize('name,falls', [('rmsle',True), ('rmse_stars',True), ('valid_mae',True), ('ndcg_at_10',False), ('rmsewhile',False)])
def test_errors_are_known_as_a_part_of_a_name(dls, name, falls):
    learn,tracker = learner(dls, metrics=AccumMetric(mae, name=name)),TrackerCallback(monitor=name)
    learn.add_cb(tracker)
    assert (tracker.comp is np.less)==falls

@pytest.mark.parametrize('of,names', [(dict(train_metrics=True), ['train_loss','train_rmse','valid_loss','valid_rmse']), (dict(train_metrics=True, valid_metrics=False), ['train_loss','rmse']),
                                      (dict(), ['train_loss','valid_loss','rmse']), (dict(valid_metrics=False), ['train_loss'])], ids=str)
@pytest.mark.parametrize('how', ['fit','fit_bias'])
def test_what_the_recorder_keeps_can_be_watched(dls, of, names, how, tmp_path):
    for name in ('train_loss','train_rmse','valid_loss','valid_rmse','rmse'):
        learn = learner(dls, path=tmp_path)
        vars(learn.recorder).update(of)
        with learn.no_bar(),learn.no_logging():
            if name not in names:
                with pytest.raises(ValueError, match=f'watches.*what is recorded is {", ".join(names)}'): getattr(learn, how)(1, cbs=SaveModelCallback(monitor=name))
                continue
            getattr(learn, how)(1, cbs=SaveModelCallback(monitor=name))
            assert 'valid_metrics' in of or list(learn.history)==names

def test_without_recorder_and_inside_fetch(dls):
    learn = learner(dls)
    with learn.no_logging(): learn.fit(1, cbs=FetchPredsCallback())
    learn.remove_cb(Recorder)
    assert learn.get_preds()[0].shape==(1200,)

def test_early_stopping(dls):
    learn = learner(dls, lr=.1, wd=0., cbs=EarlyStoppingCallback('rmse', patience=1))
    with learn.no_logging(): learn.fit(20)
    assert 2<=len(learn.recorder.values)<20 and learn.recorder.values[-1][-1]>learn.recorder.values[-2][-1]

def test_callbacks_and_schedules(dls, arch, tmp_path):
    learn = learner(dls, arch, path=tmp_path, metrics=[mae], cbs=[GradientClip(1.), TerminateOnNaNCallback()])
    with learn.no_bar(): found = learn.lr_find(num_it=20, show_plot=False)
    assert -7<np.log10(found.valley)<1
    with learn.no_logging():
        learn.fit_flat_cos(1); learn.fit_sgdr(1, 1); learn.freeze(); learn.fit(1, lr=slice(1e-3)); learn.unfreeze(); learn.fit_one_cycle(1, slice(1e-3), wd=.1)
    assert learn.recorder.metric_names==['epoch','train_loss','valid_loss','mae','time']
    learn.save('m'); before = weights(learn)
    with learn.no_logging(): learn.fit(1)
    assert not weights(learn).equal(before) and weights(learn.load('m')).equal(before)

@pytest.mark.parametrize('fit', ['fit_als','fit_bayes'])
def test_weights_of_a_model_that_a_solver_has_replaced(dls, tmp_path, fit):
    learn = learner(dls, path=tmp_path)
    with learn.no_bar(),learn.no_logging():
        learn.fit(1)
        learn.save('a')
        getattr(learn, fit)(4, 3)
    with pytest.raises(ValueError, match=f'a does not fit the .* of this learner, with which {fit} has replaced the one that was there: load it into a new learner'): learn.load('a')
    new = learner(dls, path=tmp_path).load('a')
    assert new.model.width==50

def test_get_preds(dls, arch):
    learn = fit(learner(dls, arch))
    record = [list(getattr(learn.recorder, o)) for o in ('lrs','losses','values','iters')]
    preds,targs = learn.get_preds()
    assert preds.shape==targs.shape==(1200,) and ((preds>.5)&(preds<5.5)).all()
    assert (preds-targs).pow(2).mean().sqrt().item()==pytest.approx(learn.validate()[-1], abs=1e-5)
    again = learn.get_preds(ds_idx=0, with_input=True, with_loss=True)
    assert again[0].shape==(4800,2) and again[3].shape==(4800,) and again[0].equal(dls.train_ds.x)
    assert [list(getattr(learn.recorder, o)) for o in ('lrs','losses','values','iters')]==record
    learn.recorder.plot_loss()

def test_reading_does_not_touch_the_model(dls):
    learn = fit(learner(dls))
    learn.model.train()
    titles = list(dls.classes['title'])[1:4]
    assert learn.model.bias(titles).shape==(3,) and learn.model.weight(titles).shape==(3,50) and learn.model.bias([*dls.classes['user']][1:3], is_item=False).shape==(2,)
    assert learn.model.bias(titles[0]).shape==(1,)
    with pytest.raises(KeyError, match="'5' is not among"): learn.model.bias(['5'], is_item=False)
    assert learn.model.i_bias.training and learn.model.i_weight.training

def test_export_loads_in_another_process(ratings, dls, arch, tmp_path):
    learn = fit(learner(dls, arch, path=tmp_path))
    pairs = ratings[ratings.title.isin(list(dls.classes['title']))].head(7)
    pairs.to_pickle(tmp_path/'pairs.pkl')
    learn.export()
    code = f"""import warnings; warnings.simplefilter('ignore')
import pandas as pd
from fastai.learner import load_learner
learn = load_learner(r'{tmp_path}/export.pkl')
with learn.no_bar(): ready(learn.get_preds(dl=learn.dls.test_dl(pd.read_pickle(r'{tmp_path}/pairs.pkl')))[0].tolist())"""
    assert np.allclose(started(code)[1].recv(), to_np(learn.get_preds(dl=dls.test_dl(pairs))[0]), atol=1e-6)
    fit(learn)

def test_plain_import():
    import fastrec
    assert (fastrec.learner,fastrec.dot_learner,fastrec.nn_learner)==(learner,dot_learner,nn_learner) and fastrec.__version__
    with pytest.raises(AttributeError, match="no attribute 'lerner'"): fastrec.lerner

# ------------------------------------------------------------------ arguments
def test_y_range(ratings):
    half = RecDataLoaders.from_df(ratings.assign(rating=ratings.rating-.5*(ratings.index%2)), seed=1, bs=64)
    assert learner(half).model.y_range==(.25,5.25)
    fine = RecDataLoaders.from_df(ratings.assign(rating=np.linspace(0, 10, len(ratings))), seed=1, bs=64)
    assert learner(fine, y_range=None).model.y_range==pytest.approx((-.05,10.05), abs=.02)
    dls = RecDataLoaders.from_df(ratings, seed=1, bs=64)
    assert learner(dls).model.y_range==(.5,5.5) and learner(dls, y_range=np.array([0,5])).model.y_range==(0,5)
    assert learner(RecDataLoaders.from_df(ratings.assign(rating=1), bs=64)).model.y_range==(.5,1.5)
    free = learner(dls, y_range=False)
    assert free.model.y_range is None and free.model.mean==pytest.approx(dls.train_ds.y.mean().item())
    deep = nn_learner(dls, y_range=False)
    assert deep.get_preds()[0].mean().item()==pytest.approx(dls.train_ds.y.mean().item(), abs=.5)

@pytest.mark.parametrize('y_range,error', [((1,4), r'training ratings lie outside y_range=\(1, 4\), 5 for one'), ((5,1), 'must be a pair'), (5, 'must be a pair'), ((1,2,3), 'must be a pair')])
def test_bad_y_range(dls, y_range, error):
    with pytest.raises(ValueError, match=error): learner(dls, y_range=y_range)

@pytest.mark.parametrize('y_range', [('0','5.5'), (math.nan,5), (0,math.inf), (True,6), '05', {0,6}, {0: 1, 6: 2}, (0,5.5j), ((0,),6), True, 0, [], tensor(6.)], ids=repr)
def test_no_range(dls, y_range):
    with pytest.raises(ValueError, match='must be a pair'): learner(dls, y_range=y_range)

@pytest.mark.parametrize('y_range', [[0,6], (tensor(0.),tensor(6.)), tensor([0.,6.]), np.array([0,6]), (np.float32(0),np.int64(6)), L(0,6)], ids=repr)
def test_ranges_of_any_kind(dls, y_range):
    found = learner(dls, y_range=y_range).model.y_range
    assert found==(0,6) and {type(o) for o in found}=={float}

@pytest.mark.parametrize('name,value', [*(('lr',o) for o in (0, -1, math.nan, math.inf, '1e-3', True, [1e-3,0], slice(-1, 1))), *(('wd',o) for o in (-.1, math.nan, 'x', True, slice(None, -1))),
                                        *(('seed',o) for o in (1.5, 3., '3', True, 2**80))], ids=repr)
def test_bad_numbers(dls, name, value):
    with pytest.raises(ValueError, match=f'{name}=.* must be a'): learner(dls, **{name: value})

def test_numbers_of_any_kind(dls):
    learn = learner(dls, n_factors=np.int64(5), lr=np.float32(.5), wd=tensor(.25), seed=np.int64(3))
    assert (learn.lr,learn.wd,learn.seed,learn.model.item_factors.shape[1])==(.5,.25,3,5) and type(learn.seed) is int and type(learn.lr) is float
    assert learner(dls, wd=0).wd==0 and learner(dls, lr=slice(1e-3)).lr==slice(1e-3) and learner(dls, seed=-1).seed==-1

@pytest.mark.parametrize('layers', [5, [0], ['50'], [50.], [True], (0,5.5), '5'], ids=repr)
def test_bad_layers(dls, layers):
    with pytest.raises(ValueError, match='layers=.* must be a list of whole numbers above 0'): nn_learner(dls, 8, layers)

def test_dropouts_are_as_many_as_layers(dls):
    "Of a shorter list fastai would make a network without its last layers"
    for ps in ([.1], [.1]*3):
        with pytest.raises(ValueError, match='as many dropouts as there are layers, 2'): nn_learner(dls, 8, [6,4], ps=ps)

def test_no_hidden_layers(dls):
    learn = nn_learner(dls, 8, [])
    x = dls.valid_ds.x[:50]
    with torch.no_grad(): want,grid = learn.model.eval()(x),learn.model.score_grid(*x.long().T)
    assert torch.allclose(grid.diagonal(), want, atol=1e-5) and want.std()>0

@pytest.mark.parametrize('loss_func', [torch.nn.MSELoss(reduction='none'), torch.nn.BCELoss(), lambda p: p.mean(), lambda p,y: 'small'])
def test_a_loss_that_cannot_compare_ratings(dls, loss_func):
    with pytest.raises(ValueError, match='does not give a number for predictions and ratings'): learner(dls, loss_func=loss_func)

@pytest.mark.parametrize('loss_func', [lambda p,y: -(p-y).pow(2).mean(), lambda p,y: F.softplus(-p*y).mean()])
def test_a_loss_for_something_else(dls, loss_func):
    with pytest.warns(UserWarning, match='is smaller for predictions that are wrong'): learner(dls, loss_func=loss_func)

@pytest.mark.parametrize('loss_func', [MSELossFlat(), L1LossFlat(), torch.nn.HuberLoss(), torch.nn.SmoothL1Loss(), torch.nn.MSELoss(reduction='sum'), torch.nn.PoissonNLLLoss(log_input=False), lambda p,y: (p-y).abs().pow(1.5).mean()])
def test_losses_for_ratings(dls, loss_func):
    learn = fit(learner(dls, loss_func=loss_func), 1)
    assert np.isfinite(learn.history.rmse.iloc[-1])

def test_losses_for_clicks(ratings):
    dls = RecDataLoaders.from_df(ratings.assign(rating=(ratings.rating>3)*1.), seed=1, bs=256)
    learn = fit(learner(dls, y_range=(0,1), loss_func=torch.nn.BCELoss()), 1)
    pairs = ratings.head(20)[['user','title']]
    assert np.allclose(learn.get_preds(dl=learn.dls.test_dl(pairs))[0], learn.predict_df(pairs), atol=1e-6)

@pytest.mark.parametrize('loss_func', [BCEWithLogitsLossFlat(), torch.nn.BCEWithLogitsLoss(), F.binary_cross_entropy_with_logits, CrossEntropyLossFlat(),
    torch.nn.CrossEntropyLoss(), torch.nn.SoftMarginLoss()])
def test_a_loss_that_makes_something_else_of_predictions(ratings, loss_func):
    "Lists, predictions of pairs and the range would be of scores, and `get_preds` of probabilities"
    dls = RecDataLoaders.from_df(ratings.assign(rating=(ratings.rating>3)*1.), seed=1, bs=256)
    for kwargs in ({}, dict(y_range=False)):
        with pytest.raises(ValueError, match='makes probabilities.*for likes pass NegativeBCELoss()'): learner(dls, loss_func=loss_func, **kwargs)
    learn = learner(dls)
    learn.loss_func = loss_func
    with pytest.raises(ValueError, match='makes probabilities'): fit(learn)
    assert not learn.n_fits

def of_torch(name, **kwargs): return partial(OptimWrapper, opt=getattr(torch.optim, name), **kwargs)

@pytest.mark.parametrize('opt_func,is_apart', [(None,True), (FusedAdam,True), (partial(FusedAdam, decouple_wd=False),False), (Adam,True), (partial(Adam, decouple_wd=False),False), (RAdam,True),
    (partial(RAdam, decouple_wd=False),False), (RMSProp,True), (ranger,True), (SGD,False), (partial(SGD, mom=.9),False), (of_torch('AdamW'),True), (of_torch('Adam'),False),
    (of_torch('NAdam'),False), (of_torch('Adamax'),False), (of_torch('SGD', momentum=.9),False), (of_torch('Adam', decoupled_weight_decay=True),True)])
def test_a_decay_that_is_part_of_slopes_is_none_by_default(dls, opt_func, is_apart):
    learn = learner(dls, opt_func=opt_func)
    assert learn.wd==(scaled_wd(dls) if is_apart else 0)
    assert ('part of the slopes' in learn.settings().rule['wd'])!=is_apart
    given = learner(dls, opt_func=opt_func, wd=.1)
    assert (given.wd,given.settings().rule['wd'])==(.1,'given')
    of_choices = learner(dls, opt_func=opt_func, loss_func=BPRLoss())
    assert (of_choices.wd>0)==is_apart and ('part of the slopes' in of_choices.settings().rule['wd'])!=is_apart

def test_the_trial_of_an_optimizer_moves_no_weights_of_others(dls):
    learn = fit(learner(dls), 1)
    before = weights(learn)
    for p in learn.model.parameters(): p.grad = torch.ones_like(p)
    learner(dls, opt_func=lambda *args, **kwargs: learn.opt)
    assert torch.equal(weights(learn), before)

@pytest.mark.parametrize('unit', [1e-6,1e9])
def test_the_unit_of_ratings_leaves_the_decay_as_it_is(ratings, unit):
    dls = RecDataLoaders.from_df(ratings.assign(rating=ratings.rating*unit), seed=1, bs=256)
    learn = learner(dls)
    assert learn.wd==scaled_wd(dls) and 'more ratings there are' in learn.settings().rule['wd']

def test_learns_by_adam_of_pytorch(ratings, dls):
    "As well as by that with a decay apart, nearly; it learned nothing"
    ours,theirs,none = (fit(learner(dls, shrink=False, **kwargs), 5).history.rmse.iloc[-1] for kwargs in
        (dict(n_factors=10), dict(n_factors=10, opt_func=of_torch('Adam')), dict(n_factors=0)))
    assert theirs<ours*1.02<none*1.02

@pytest.mark.parametrize('arch,n_factors', [(DotBias,2.5), (DotBias,(3,4)), (DotBias,-1), (DotBias,True), (DotBias,'50'), (DotBias,np.float64(5)), (DeepMF,0), (DeepMF,True), (DeepMF,(3,4,5)), (DeepMF,(3,0)), (DeepMF,(3,True))])
def test_bad_widths(dls, arch, n_factors):
    with pytest.raises(ValueError, match='n_factors='): learner(dls, arch, n_factors)

def test_inferred_range_misses_validation(ratings):
    df = ratings.assign(rating=ratings.rating.clip(upper=4).where(ratings.index>9, 5.))
    with pytest.warns(UserWarning, match='10 validation ratings lie outside .0.5, 4.5., the range inferred'): learner(RecDataLoaders.from_df(df, IndexSplitter(range(10)), bs=64))

def test_validation_outside_y_range(ratings):
    df = ratings.assign(rating=ratings.rating.clip(upper=4).where(ratings.index>9, 5.))
    with pytest.raises(ValueError, match='10 validation ratings lie outside'): learner(RecDataLoaders.from_df(df, IndexSplitter(range(10)), bs=64), y_range=(.5,4.5))

@pytest.mark.parametrize('call,error', [
    (lambda d: learner(d, n_factor=3), "learner.. does not know 'n_factor'; did you mean 'n_factors'"),
    (lambda d: dot_learner(d, layers=[3]), "does not know 'layers'"),
    (lambda d: nn_learner(d, layerz=[3]), "does not know 'layerz'; did you mean 'layers'"),
    (lambda d: learner(d, emb_szs={'user': 9}), "does not know 'emb_szs'; give the widths .* n_factors="), (lambda d: learner(d, config={}), "does not know 'config'; give its entries themselves"),
    (lambda d: learner(d, layers=[3]), "does not know 'layers'; a network has layers: pass DeepMF, or call nn_learner"), (lambda d: dot_learner(d, use_nn=True), 'call nn_learner'),
    (lambda d: learner(d, use_nn=(0,5)), 'use_nn=.0, 5. must be True or False'), (lambda d: learner(d, 50), r'write learner\(dls, n_factors=50\)'), (lambda d: learner(d, (0,5.5)), r'write learner\(dls, y_range=\(0, 5.5\)\)'),
    (lambda d: learner(d, DotBias(3, 9, 9)), 'arch must be a class, .* RecLearner.dls, model'), (lambda d: learner(d, torch.nn.Linear(2, 1)), 'else with Learner.dls, model, MSELossFlat'),
    (lambda d: learner(d, EmbeddingDotBias), 'must be DotBias, DeepMF'), (lambda d: learner(d, metrics='rmse'), "metrics='rmse': pass functions"), (lambda d: learner(d, metrics=[rmse,AccumMetric]), 'not names or classes'),
    (lambda d: learner(d, metrics=5), 'metrics=5'), (lambda d: learner(d, opt_func='adam'), "opt_func='adam' must be a function"), (lambda d: learner(d, opt_func=torch.optim.Adam), r'pass partial\(OptimWrapper, opt=Adam\)'),
    (lambda d: learner(d, loss_func='mse'), "loss_func='mse' must be a function"), (lambda d: learner(d, loss_func=torch.nn.L1Loss), r'L1Loss\(\), not the class'), (lambda d: learner(d, sparse='yes'), "sparse='yes' must be True"),
    (lambda d: learner(d.train_ds), 'needs RecDataLoaders, .* not RatingsTensors'), (lambda d: learner(pd.DataFrame()), 'not DataFrame'), (lambda d: learner(None), 'not NoneType'),
    (lambda d: learner(d, model=3), "does not know 'model'"), (lambda d: learner(d, sed=3), "did you mean 'seed'"), (lambda d: learner(d, arch=torch.nn.Linear), 'must be DotBias, DeepMF'),
    (lambda d: learner(d[0]), 'needs RecDataLoaders, .* not RatingsDL')])
def test_bad_arguments(dls, call, error):
    with pytest.raises(TypeError, match=error): call(dls)

def test_widths(dls):
    n_users,n_items = (len(v) for v in dls.classes.values())
    assert nn_learner(dls, 7, [5,3]).model.user_factors.shape==(n_users-1,7)
    m = nn_learner(dls, (7,4), [5,3], ps=[.1,.1], embed_p=.2).model
    assert (m.user_factors.shape[1],m.item_factors.shape[1])==(7,4) and m.emb_drop.p==.2
    assert [l.out_features for l in m.modules() if isinstance(l, torch.nn.Linear)]==[5,3,1]
    assert dot_learner(dls, 6).model.item_factors.shape==(n_items-1,6)

def test_one_row_left_over_and_batchnorm(ratings):
    dls = RecDataLoaders.from_df(ratings[:1001], IndexSplitter(range(200)), bs=400)
    fit(nn_learner(dls))

# ------------------------------------------------------------------ real data, other devices
def test_real_folds():
    c = settings['defaults']
    folds,rmses = movielens_folds(path=release_path('ml-100k')),[]
    for train,test in (folds[f] for f in c['folds'].split()):
        dls = RecDataLoaders.from_df(pd.concat([train,test], ignore_index=True), IndexSplitter(range(len(train), len(train)+len(test))), seed=1)
        rmses.append(fit(learner(dls), c.getint('epochs')).recorder.values[-1][-1])
    assert np.mean(rmses)<=c.getfloat('max_rmse_folds')

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('half', [False, True])
def test_trains_on_cuda(ratings, arch, half, tmp_path):
    dls = RecDataLoaders.from_df(ratings, seed=1, bs=256, device='cuda')
    learn = learner(dls, arch, path=tmp_path)
    if half: learn.to_fp16()
    assert fit(learn, 5).recorder.values[-1][-1]<1.
    assert next(learn.model.parameters()).is_cuda
    if arch is DotBias: assert learn.model.bias(ratings.title[:2]).device.type=='cpu'
    learn.export()
    assert next(load_learner(tmp_path/'export.pkl').model.parameters()).device.type=='cpu'

def test_a_range_that_cuts_off_can_be_trained(dls):
    learn = dot_learner(dls, 8, clip=True)
    with learn.no_logging(): learn.fit_one_cycle(4)
    assert learn.history.rmse.iloc[-1]<1.1 and learn.history.rmse.iloc[-1]<learn.history.rmse.iloc[0]
    lo,hi = learn.model.y_range
    assert lo<=learn.predict_grid().min() and learn.predict_grid().max()<=hi

def test_history(dls):
    learn = dot_learner(dls, 4)
    with pytest.raises(ValueError, match='fit first'): learn.history
    with learn.no_logging(): learn.fit(3)
    assert learn.history.index.tolist()==[0,1,2] and learn.plot_metrics('rmse', start=1).lines[0].get_xdata().tolist()==[1,2]
    with pytest.raises(ValueError, match="'mae' was not recorded; there are train_loss, valid_loss, rmse"): learn.plot_metrics('mae')
    learn.validate()
    assert len(learn.history)==3

class Everything(Callback):
    "Writes down every event"
    order = 70
    def __init__(self): self.seen = []
for e in vars(event):
    if e.startswith(('before_','after_')) and 'cancel' not in e and e!='after_create': setattr(Everything, e, lambda self, e=e: self.seen.append(e))

def test_events_as_in_fastai(dls):
    "A callback that has the events gets them, in fastai's order"
    runs = []
    for cls in (RecLearner,Learner):
        cb,made = Everything(),dot_learner(dls, 4)
        learn = cls(made.dls, made.model, made.loss_func, made.opt_func, lr=made.lr, cbs=cb)
        with learn.no_logging(): learn.fit(1)
        runs.append(cb.seen)
    assert runs[0]==runs[1] and {'before_batch','after_pred','after_loss','before_backward','before_step','after_step','after_batch'}<=set(runs[0])

def test_callbacks_may_come_and_go_in_a_fit(dls):
    class Leaving(Callback):
        n = 0
        def after_batch(self):
            self.n += 1
            if self.n==2: self.learn.remove_cb(self)
    cb,learn = Leaving(),dot_learner(dls, 4)
    with learn.no_logging(): learn.fit(1, cbs=cb)
    assert cb.n==2

def test_a_model_of_ones_own_says_how_it_is_made(dls):
    class Own(FactorModel, torch.nn.Module): pass
    with pytest.raises(TypeError, match='Own has no from_classes.*RecLearner'): learner(dls, Own)

def test_a_loss_may_name_an_activation(dls):
    "Only one that changes predictions is refused"
    class Named(torch.nn.MSELoss): activation = 'relu'
    assert type(learner(dls, loss_func=Named()).loss_func) is Named
