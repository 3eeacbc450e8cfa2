"""Every fit followed by every other fit, by an error, by Ctrl-C at each event, by save and load: weights move, predictions are finite, the record is the last fit's"""
import copy,os,sys
from pathlib import Path
import matplotlib.pyplot as plt,numpy as np,pandas as pd,pytest,torch
from fastai.callback.all import Callback,EarlyStoppingCallback,GradientClip,MixedPrecision
from fastai.callback.core import CancelEpochException,CancelFitException,CancelTrainException,event
from fastai.callback.progress import ProgressCallback
from fastai.learner import Learner,Recorder,load_learner
from fastai.optimizer import OptimWrapper
from torch import nn
import fastrec.fit
from conftest import seldom
from fastrec.all import DeepMF,DotBias,PosteriorMean,RecDataLoaders,RecLearner,dot_learner,learner,nn_learner,partial,sample_ratings

fits = dict(sgd=lambda l,**kw: l.fit(1, **kw), cycle=lambda l,**kw: l.fit_one_cycle(1, **kw), bias=lambda l,**kw: l.fit_bias(3, tol=0, **kw),
            als=lambda l,**kw: l.fit_als(3, 2, tol=0, **kw), ials=lambda l,**kw: l.fit_ials(3, 2, **kw), bayes=lambda l,**kw: l.fit_bayes(3, 4, burn=1, **kw))
n_epochs = dict(sgd=1, cycle=1, bias=3, als=2, ials=2, bayes=4)
by_gradients = 'sgd','cycle'

@pytest.fixture(scope='module')
def dls():
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    return RecDataLoaders.from_df(df, seed=1, bs=64, time_name='timestamp')

@pytest.fixture(params=[dict(), dict(arch=DeepMF, layers=[4]), dict(sparse=True)], ids=['dot','net','sparse'])
def kwargs(request): return request.param

def make(dls, n_factors=3, **kwargs): return learner(dls, n_factors=n_factors, seed=1, **kwargs)

def run(learn, how, **kwargs):
    with learn.no_logging(): fits[how](learn, **kwargs)

def grid(learn): return learn.predict_grid().clone()

def refused(learn, how):
    "Does the model there is forbid this fit?"
    return how in by_gradients and (isinstance(learn.model, PosteriorMean) or learn.model.is_preference)

def check(learn, how, before, same=False):
    "The fit has changed the predictions, unless a solver has solved the same again, to finite ones, and the record is its own"
    after = grid(learn)
    assert after.isfinite().all() and (same or not torch.equal(after, before))
    assert len(learn.recorder.values)==n_epochs[how] and len(learn.recorder.losses)>=n_epochs[how]
    assert learn.opt is None or {id(p) for p,*_ in learn.opt.all_params()}<={id(p) for p in learn.model.parameters()}
    rows = learn.dls.train_ds.decode(learn.dls.train_ds.x[:5])
    assert len(learn.recommend(n=2)) and np.isfinite(learn.predict_df(rows)).all()

# ------------------------------------------------------------------ one fit after another
@pytest.mark.parametrize('second', fits)
@pytest.mark.parametrize('first', fits)
def test_every_fit_after_every_fit(dls, kwargs, first, second):
    learn = make(dls, **kwargs)
    run(learn, first)
    before = grid(learn)
    if refused(learn, second):
        with pytest.raises(ValueError, match=r'train a new learner\(dls\)'): run(learn, second)
        assert torch.equal(grid(learn), before)
        return
    run(learn, second)
    check(learn, second, before, same=first==second in ('bias','ials'))

def test_weights_of_the_model_move(dls):
    "Not those of a model that was replaced"
    learn = make(dls)
    run(learn, 'sgd')
    run(learn, 'als')
    before = learn.model.u_weight.weight.detach().clone()
    run(learn, 'sgd')
    assert not torch.equal(learn.model.u_weight.weight, before)

@pytest.mark.parametrize('replace', [lambda l: setattr(l, 'model', copy.deepcopy(l.model)), lambda l: setattr(l.model, 'u_weight', copy.deepcopy(l.model.u_weight))], ids=['model','part'])
def test_a_replaced_model_is_trained(dls, replace):
    learn = make(dls)
    run(learn, 'sgd')
    replace(learn)
    before = learn.model.u_weight.weight.detach().clone()
    run(learn, 'sgd')
    assert not torch.equal(learn.model.u_weight.weight, before)

def test_an_optimizer_of_other_weights_is_refused(dls):
    model = make(dls).model
    learn = make(dls)
    learn.opt_func = OptimWrapper(opt=torch.optim.SGD(model.parameters(), lr=.1))
    with pytest.raises(TypeError, match='made for other weights than the model has'): run(learn, 'sgd')

def test_loaders_of_other_labels_are_refused(dls):
    learn,other = make(dls),RecDataLoaders.from_df(sample_ratings(n_users=31, n_items=20, n_ratings=300, seed=3), bs=64)
    with pytest.raises(ValueError, match='other labels than the model was made for'): learn.dls = other
    again = RecDataLoaders.from_df(sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0), seed=1, bs=32, time_name='timestamp')
    learn.dls = again
    run(learn, 'sgd')
    assert learn.dls is again

def test_sparse_stays_sparse(dls):
    learn = make(dls, sparse=True)
    run(learn, 'als')
    assert learn.model.sparse
    run(learn, 'sgd')
    assert 'row_sqr' in learn.opt.state[learn.model.u_weight.weight]

# ------------------------------------------------------------------ stopped at each event
class Stop(Callback):
    "Raise `error` the `at`-th time that `name` is heard"
    def __init__(self, name, at, error, order=200): self.name_,self.left,self.error,self.order = name,at,error,order
    def __call__(self, name):
        if name!=self.name_: return
        self.left -= 1
        if self.left==0: raise self.error

events = [o for o in vars(event) if not o.startswith('_') and o not in ('after_create',) and 'cancel' not in o]

def same_state(learn, state, before):
    model,opt,n_fits,last_fit,last_range,record = state
    return learn.model is model and learn.opt is opt and learn.n_fits==n_fits and learn.last_fit is last_fit and learn.last_range==last_range and vars(learn.recorder)==record and torch.equal(grid(learn), before)

@pytest.mark.parametrize('at,error', [(1,KeyboardInterrupt), *seldom((2,RuntimeError))], ids=['first, Ctrl-C','second, an error'])
@pytest.mark.parametrize('how', fits)
def test_stopped_at_each_event(dls, how, at, error):
    "Nothing has happened, or what has happened is whole: the model predicts, and the next fit goes on"
    heard,kept = 0,0
    for name in events:
        learn = make(dls)
        run(learn, 'bayes' if how=='bayes' else 'sgd')
        before,state = grid(learn),learn.fit_state()
        logger,cbs = learn.logger,list(learn.cbs)
        try: run(learn, how, cbs=Stop(name, at, error('stopped'), -200 if at==1 else 200))
        except error: heard += 1
        else: continue
        assert learn.logger is logger and list(learn.cbs)==cbs and grid(learn).isfinite().all()
        unchanged = same_state(learn, state, before)
        kept += unchanged
        early = 'before_fit','before_epoch','before_train',*(() if how in by_gradients else ('before_batch',))
        if at==1 and name in early: assert unchanged, name
        assert all(p.grad is None or p.grad.is_sparse or not p.grad.abs().sum() for p in learn.model.parameters())
        now = grid(learn)
        follow = 'als' if isinstance(learn.model, PosteriorMean) or learn.model.is_preference else 'sgd'
        run(learn, follow)
        check(learn, follow, now)
    assert heard>=8 and (how in by_gradients or at==2 or kept>=4)

@pytest.mark.parametrize('error', [CancelFitException,CancelEpochException,CancelTrainException])
@pytest.mark.parametrize('name', ['before_fit','before_epoch','before_train','before_batch'])
@pytest.mark.parametrize('how', ['bias','als','ials','bayes'])
def test_cancelled_before_a_sweep(dls, how, name, error):
    "A callback that cancels before the first sweep leaves the trained model, not the one that solvers begin with"
    learn = make(dls)
    run(learn, 'sgd')
    before,state = grid(learn),learn.fit_state()
    class Cancel(Callback): order = 1
    setattr(Cancel, name, lambda self: (_ for _ in ()).throw(error()))
    try: run(learn, how, cbs=Cancel())
    except error: pass
    assert same_state(learn, state, before)

# ------------------------------------------------------------------ refused and failed
bad = dict(bias=[dict(reg=-1), dict(n_sweep=0), dict(tol=-1), dict(n_sweep=2.5)], als=[dict(reg=-1), dict(reg=float('nan')), dict(n_factors=-1), dict(n_factors=True), dict(power=float('inf'))],
           ials=[dict(alpha0=0), dict(reg=0), dict(n_sweep=True), dict(power=float('nan'))],
           bayes=[dict(side='implizit'), dict(time='fortnight'), dict(burn=4, n_sweep=4), dict(n_draws=0), dict(n_draws=2.5), dict(side=pd.DataFrame(dict(who=[1])))])

@pytest.mark.parametrize('first', ['sgd','bayes'])
@pytest.mark.parametrize('how,kwargs', [(how,o) for how,os in bad.items() for o in os], ids=str)
def test_what_is_refused_changes_nothing(dls, first, how, kwargs):
    learn = make(dls)
    run(learn, first)
    before,state = grid(learn),learn.fit_state()
    with pytest.raises(ValueError), learn.no_logging(): getattr(learn, f'fit_{how}')(**kwargs)
    assert same_state(learn, state, before)

@pytest.mark.parametrize('kwargs,error', [(dict(n_epoch=-1), 'n_epoch=-1'), (dict(n_epoch=1.5), 'n_epoch=1.5'), (dict(n_epoch=1, lr=-1), 'lr=-1'), (dict(n_epoch=1, lr=float('nan')), 'lr=nan'),
                                          (dict(n_epoch=1, cbs=[MixedPrecision,'x']), "'x', which is not a Callback")])
def test_arguments_of_fit(dls, kwargs, error):
    learn = make(dls)
    run(learn, 'sgd')
    before,state,cbs = grid(learn),learn.fit_state(),list(learn.cbs)
    with pytest.raises((ValueError,TypeError), match=error): learn.fit(**kwargs)
    assert same_state(learn, state, before) and list(learn.cbs)==cbs

def test_failing_equations_change_nothing(dls):
    learn = make(dls)
    run(learn, 'sgd')
    before,state = grid(learn),learn.fit_state()
    with pytest.raises(ValueError, match='make the regularization stronger'), learn.no_logging(): learn.fit_als(4, reg=0)
    assert same_state(learn, state, before)

def test_draws_are_not_lost_to_fewer(dls):
    "Interrupted, a continued fit keeps the draws it has, or those from before if there were more"
    learn = make(dls)
    with learn.no_logging(): learn.fit_bayes(3, 12, burn=1)
    state,before = learn.fit_state(),grid(learn)
    with pytest.raises(KeyboardInterrupt): run(learn, 'bayes', cbs=Stop('before_epoch', 3, KeyboardInterrupt()))
    assert same_state(learn, state, before) and learn.model.n_draws==11
    with pytest.raises(KeyboardInterrupt), learn.no_logging(): learn.fit_bayes(3, 20, cbs=Stop('before_epoch', 15, KeyboardInterrupt()))
    assert learn.model.n_draws==14

def test_stopped_in_burn_in_is_said(dls):
    learn = make(dls)
    run(learn, 'sgd')
    before,state = grid(learn),learn.fit_state()
    with pytest.warns(UserWarning, match='stopped after 2 sweeps, before the first draw'), learn.no_logging():
        learn.fit_bayes(3, 20, burn=10, cbs=Stop('after_epoch', 2, CancelFitException()))
    assert same_state(learn, state, before)

@pytest.mark.parametrize('name', ['before_batch','after_backward','after_step','after_batch'])
def test_nan_in_the_first_step_leaves_the_weights(dls, name):
    learn = make(dls)
    run(learn, 'sgd')
    before = [p.detach().clone() for p in learn.model.parameters()]
    class Spoil(Callback):
        order = -50
        def before_batch(self): self.learn.yb = (self.y*float('nan'),) if self.training else self.yb
    with pytest.raises(FloatingPointError, match='no finite number'): run(learn, 'sgd', cbs=Spoil())
    assert all(torch.equal(a, b) for a,b in zip(before, learn.model.parameters()))

# ------------------------------------------------------------------ saved and loaded
@pytest.mark.parametrize('second', fits)
@pytest.mark.parametrize('first', fits)
def test_loaded_is_what_was_saved(dls, first, second, tmp_path):
    "`load` into a learner after another fit: the predictions that were saved, or a refusal that changes nothing"
    saved,other = make(dls, path=tmp_path),make(dls, path=tmp_path)
    run(saved, first)
    run(other, second)
    saved.save('m')
    want,before = grid(saved),grid(other)
    try: other.load('m')
    except ValueError as e:
        assert 'does not fit' in str(e) and torch.equal(grid(other), before)
        assert isinstance(saved.model, PosteriorMean)!=isinstance(other.model, PosteriorMean) or saved.model.u_weight.embedding_dim!=other.model.u_weight.embedding_dim
    else: assert torch.equal(grid(other), want) and other.model.is_preference==saved.model.is_preference

def test_range_travels_with_the_weights(dls, tmp_path):
    "A solver's model has no sigmoid, a new learner's has; the weights are of the same shape"
    saved,other = make(dls, path=tmp_path),make(dls, path=tmp_path)
    run(saved, 'als')
    saved.save('m', with_opt=False)
    with pytest.warns(UserWarning, match="doesn't contain an optimizer state"): other.load('m')
    assert other.model.clip and other.model.y_range==(1,5) and torch.equal(grid(other), grid(saved))
    before = grid(other)
    run(other, 'sgd')
    check(other, 'sgd', before)

@pytest.mark.parametrize('how', fits)
def test_exported_and_loaded(dls, how, tmp_path):
    learn = make(dls, path=tmp_path)
    run(learn, how)
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    assert torch.equal(grid(loaded), grid(learn)) and type(loaded.model) is type(learn.model)
    before = grid(learn)
    if not refused(learn, 'sgd'):
        run(learn, 'sgd')
        check(learn, 'sgd', before)

@pytest.mark.parametrize('how', fits)
def test_copied(dls, how):
    learn = make(dls)
    run(learn, how)
    twin,before = copy.deepcopy(learn),grid(learn)
    assert torch.equal(grid(twin), before)
    if refused(twin, 'sgd'): return
    run(twin, 'sgd')
    assert torch.equal(grid(learn), before) and not torch.equal(grid(twin), before)

def test_weights_of_other_labels_are_refused(dls, tmp_path):
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    renamed = df.assign(title='Another '+df.title.astype(str))
    saved,other = make(dls, path=tmp_path),make(RecDataLoaders.from_df(renamed, seed=1, bs=64, time_name='timestamp'), path=tmp_path)
    run(saved, 'sgd')
    saved.save('m')
    before = grid(other)
    with pytest.raises(ValueError, match='belong to other labels'): other.load('m')
    assert torch.equal(grid(other), before)

@pytest.mark.parametrize('how', ['sgd','als','bayes','blend'])
def test_weights_of_other_labels_are_refused_before_one_is_written(how):
    "A model alone, and one with a blend that ranks, of as many other users: weights, buffers and what a fit noted stay"
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    others = [make(RecDataLoaders.from_df(o, seed=1, bs=64, time_name='timestamp')) for o in (df,df.assign(user=df.user+1))]
    for o in others:
        if how=='blend':
            with o.no_bar(),o.no_logging(): o.fit_blend(weight=.3)
        else: run(o, how)
    m,state = (o.model for o in others)
    before = {k: v.clone() for k,v in m.state_dict().items()}
    noted = copy.deepcopy({k: v for k,v in vars(m).items() if k!='classes' and k[0]!='_'})
    with pytest.raises(RuntimeError, match='belong to other labels'): m.load_state_dict(state.state_dict())
    after = m.state_dict()
    assert [*after]==[*before] and all(torch.equal(v, after[k]) for k,v in before.items())
    assert str({k: v for k,v in vars(m).items() if k in noted})==str(noted)

def test_loaders_of_another_scale_are_refused(dls):
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    learn = make(dls)
    with pytest.raises(ValueError, match='outside the range of the model'): learn.dls = RecDataLoaders.from_df(df.assign(rating=df.rating*20), seed=1, bs=64, time_name='timestamp')
    assert learn.dls is dls

def test_a_loaded_learner_holds_nothing_to_fit(dls, tmp_path):
    learn = make(dls, path=tmp_path)
    run(learn, 'sgd')
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    for call in (lambda: loaded.fit(1), lambda: loaded.fit_one_cycle(1), lambda: loaded.lr_find(show_plot=False), loaded.validate, lambda: loaded.fit_als(3)):
        with pytest.raises(ValueError, match='a loaded learner holds no ratings'): call()

# ------------------------------------------------------------------ steps that ruin the weights
@pytest.mark.parametrize('kwargs', [dict(y_range=False), dict(y_range=False, sparse=True), dict(), dict(arch=DeepMF, y_range=False)], ids=str)
@pytest.mark.parametrize('lr', [1e20,1e30])
def test_ruined_weights_are_taken_back(dls, kwargs, lr):
    learn = make(dls, **kwargs)
    run(learn, 'sgd')
    before = grid(learn)
    try:
        with learn.no_logging(): learn.fit(1, lr)
    except FloatingPointError as e:
        assert 'back where the epoch began' in str(e) and torch.equal(grid(learn), before)
        run(learn, 'sgd')
        check(learn, 'sgd', before)
    else: assert grid(learn).isfinite().all()

@pytest.mark.parametrize('call', [lambda l: l.fit_one_cycle(1, float('nan')), lambda l: l.fit_one_cycle(1, float('inf')), lambda l: l.fit(1, wd=-1), lambda l: l.fit(1, lr=np.float32('nan')), lambda l: l.fit_flat_cos(1, float('nan'))])
def test_rates_that_are_no_numbers(dls, call):
    learn = make(dls)
    run(learn, 'sgd')
    before = grid(learn)
    with pytest.raises(ValueError, match='(lr|wd)='), learn.no_logging(): call(learn)
    assert torch.equal(grid(learn), before)

def test_an_interrupted_lr_find_puts_the_weights_back(dls, tmp_path):
    learn = make(dls, path=tmp_path)
    run(learn, 'sgd')
    before = grid(learn)
    learn.add_cb(Stop('after_batch', 30, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt): learn.lr_find(show_plot=False)
    assert torch.equal(grid(learn), before) and not [*(tmp_path/'models').iterdir()]

# ------------------------------------------------------------------ the record of a solver
@pytest.mark.parametrize('how', ['bias','als','bayes'])
def test_record_of_a_solver(dls, how):
    learn = make(dls)
    run(learn, how)
    r,n = learn.recorder,n_epochs[how]
    assert r.iters==list(range(1, n+1)) and len(r.losses)==len(r.lrs)==n and r.smooth_loss.beta==.98
    assert np.allclose(r.losses, learn.history.train_loss)
    ax = plt.figure().subplots()
    r.plot_loss(skip_start=0, ax=ax)
    assert len(ax.lines[0].get_xdata())==n
    plt.close(ax.figure)

def test_solver_with_training_metrics(dls):
    learn = make(dls)
    learn.remove_cb(Recorder)
    learn.add_cb(Recorder(train_metrics=True))
    run(learn, 'als')
    assert np.allclose(learn.history.train_rmse, learn.history.train_loss**.5, atol=1e-4)

def test_solver_in_half_precision(dls):
    "Callbacks that change batches see none of a sweep"
    learn = make(dls).to_fp16()
    run(learn, 'als')
    assert not torch.is_autocast_enabled('cuda') and learn.model.u_weight.weight.dtype==torch.float32

def test_solver_without_a_recorder(dls):
    learn = make(dls, default_cbs=False)
    with learn.no_logging(): learn.fit_als(3, 2)
    assert grid(learn).isfinite().all()

def test_solver_stops_early(dls):
    learn = make(dls)
    with learn.no_logging(): learn.fit_als(3, 50, tol=.05)
    assert 1<len(learn.history)<50 and abs(learn.history.train_loss.pow(.5).diff().iloc[-1])<.05

# ------------------------------------------------------------------ steps by hand
def hook(m, *args): hook.n += 1

@pytest.mark.parametrize('k', range(4))
@pytest.mark.parametrize('where', [lambda l: l.model, lambda l: l.model.u_weight], ids=['model','table'])
def test_hooks_are_called(dls, where, k):
    learn,hook.n = make(dls),0
    names = 'forward_hook','forward_pre_hook','full_backward_hook','full_backward_pre_hook'
    h = getattr(where(learn), f'register_{names[k]}')(hook)
    run(learn, 'sgd')
    h.remove()
    assert hook.n>=len(dls.train)

@pytest.mark.parametrize('first', ['fit_one_cycle','fit_bias','fit_als','fit_bayes','lr_find'])
def test_stopped_as_a_fit_puts_its_callbacks_away(dls, first, monkeypatch):
    learn,remove = learner(dls, n_factors=5),Learner.remove_cbs
    before = list(learn.cbs)
    def stop(self, cbs):
        monkeypatch.setattr(Learner, 'remove_cbs', remove)
        raise KeyboardInterrupt
    monkeypatch.setattr(Learner, 'remove_cbs', stop)
    args = dict(fit_als=(5,2), fit_bayes=(5,5), fit_one_cycle=(1,)).get(first, ())
    with pytest.raises(KeyboardInterrupt), learn.no_bar(), learn.no_logging(): getattr(learn, first)(*args)
    kept = [cb for cb in before if not isinstance(cb, ProgressCallback)]
    assert [cb for cb in learn.cbs if not isinstance(cb, ProgressCallback)]==kept
    if first=='fit_bayes': return  # gradients would spoil the mean of draws
    weights = [p.detach().clone() for p in learn.model.parameters()]
    with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-3)
    assert max(learn.recorder.lrs)==pytest.approx(1e-3) and not all(map(torch.equal, weights, learn.model.parameters()))

@pytest.mark.parametrize('register', [nn.modules.module.register_module_forward_hook, nn.modules.module.register_module_full_backward_hook])
def test_global_hooks_are_called(dls, register):
    learn,hook.n = make(dls),0
    h = register(hook)
    try: run(learn, 'sgd')
    finally: h.remove()
    assert hook.n>=len(dls.train)

def test_hooks_of_weights_are_called(dls):
    learn,hook.n = make(dls),0
    learn.model.u_weight.weight.register_post_accumulate_grad_hook(hook)
    run(learn, 'sgd')
    assert hook.n==len(dls.train)

def test_replaced_forward_is_called(dls):
    learn,n = make(dls),0
    forward = learn.model.forward
    def counted(x):
        nonlocal n
        n += 1
        return forward(x)
    learn.model.forward = counted
    run(learn, 'sgd')
    assert n==len(dls.train)+len(dls.valid)

@pytest.mark.parametrize('norm', [nn.utils.parametrizations.weight_norm, nn.utils.parametrizations.spectral_norm])
def test_parametrized_tables_move(dls, norm):
    learn = make(dls)
    norm(learn.model.u_weight)
    before = learn.model.u_weight.weight.detach().clone()
    run(learn, 'sgd')
    assert not learn.by_hand and not torch.equal(learn.model.u_weight.weight, before)

def test_max_norm_is_kept(dls):
    learn = make(dls, lr=.5)
    learn.model.u_weight.max_norm = .1
    run(learn, 'sgd')
    learn.predict_df(dls.train_ds.decode(dls.train_ds.x))
    assert learn.model.u_weight.weight[1:].norm(dim=1).max()<.2

# ------------------------------------------------------------------ networks and draws
@pytest.mark.parametrize('kwargs', [dict(lin_first=False), dict(lin_first=True), dict(bn_final=True), dict(use_bn=False), dict(ps=.2, embed_p=.1), dict(act_cls=nn.Tanh())], ids=str)
def test_grid_is_forward_for_any_order_of_layers(dls, kwargs):
    learn = nn_learner(dls, 3, layers=[5,4], seed=1, **kwargs)
    with learn.no_logging(): learn.fit(2, 1e-2)
    pairs = pd.MultiIndex.from_product([v.labels for v in dls.classes.values()], names=dls.classes).to_frame(index=False)
    assert np.allclose(learn.predict_grid().flatten(), learn.predict_df(pairs), atol=1e-5)

@pytest.mark.parametrize('layers', [lambda: [nn.Linear(6, 5), nn.BatchNorm1d(5), nn.ReLU(), nn.Linear(5, 1)], lambda: [nn.BatchNorm1d(6), nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Tanh(), nn.Linear(5, 1)],
                                    lambda: [nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5, affine=False), nn.Dropout(.5), nn.Linear(5, 1)]])
def test_grid_is_forward_for_own_layers(dls, layers):
    learn = nn_learner(dls, 3, layers=[5], seed=1)
    learn.model.layers = nn.Sequential(nn.Sequential(*layers()))
    with learn.no_logging(): learn.fit(3, 3e-2)
    pairs = pd.MultiIndex.from_product([v.labels for v in dls.classes.values()], names=dls.classes).to_frame(index=False)
    assert np.allclose(learn.predict_grid().flatten(), learn.predict_df(pairs), atol=1e-5)

def test_batch_statistics_are_refused(dls):
    "What they answer depends on who else is asked for"
    learn = nn_learner(dls, 3, layers=[5], seed=1)
    learn.model.layers = nn.Sequential(nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.BatchNorm1d(5, track_running_stats=False), nn.Linear(5, 1)))
    for call in (learn.predict_grid, learn.recommend):
        with pytest.raises(TypeError, match='without running statistics'): call()

def test_one_draw_has_no_spread(dls):
    learn = make(dls)
    with learn.no_logging(): learn.fit_bayes(3, 4, n_draws=1)
    user,title = (v.labels[0] for v in dls.classes.values())
    assert learn.model.n_draws==1 and np.isfinite(learn.predict(user, title))
    for call in (lambda: learn.predict(user, title, std=True), lambda: learn.recommend(user, z=1.)):
        with pytest.raises(ValueError, match='one draw'): call()
    assert len(learn.recommend(user, n=2, draw=0))==2

def test_effects_of_spans_are_taken_over_by_their_key(dls):
    "As many spans of other days are other spans"
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    later = df.assign(timestamp=df.timestamp+86400*1000)
    a,b = (RecDataLoaders.from_df(o, seed=1, bs=64, time_name='timestamp') for o in (df,later))
    learn = make(a)
    with learn.no_logging(): learn.fit_bayes(3, 6, time='30D')
    from fastrec.fit.priors import SpanSampler
    same,other = (SpanSampler(o.train_ds.x, 30*86400, learn.model.time_effects[0]) for o in (a,b))
    assert torch.equal(same.effects, learn.model.time_effects[0].effects[-1]) and (other.effects==0).all()
    assert same.precision==1/learn.model.time_effects[0].variance

def test_the_first_draw_of_rows_goes_on_without_the_effects_of_spans(monkeypatch):
    "The ratings that a fit which goes on begins with are those without the effects that the last draw had"
    from fastrec.fit.gibbs import Gibbs
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    learn = make(RecDataLoaders.from_df(df, seed=1, bs=64, time_name='timestamp'))
    with learn.no_logging(): learn.fit_bayes(3, 6, time='30D')
    effects,seen,draw_rows = learn.model.time_effects[0],[],Gibbs._draw_rows
    def look(self, k):
        seen.append((self.y.clone(), self.sides[k].y.clone()))
        return draw_rows(self, k)
    monkeypatch.setattr(Gibbs, '_draw_rows', look)
    with learn.no_logging(): learn.fit_bayes(3, 1, time='30D')
    y,targets = seen[0]
    at,known = effects.find(learn.dls.train_ds.x)
    left = y-effects.effects[-1][at]
    assert known.all() and torch.allclose(targets.sort().values, left.sort().values, atol=1e-4) and left.ne(y).any()

quick = 'FASTREC_KILLS' not in os.environ  # `make fuzz` stops at every line

@pytest.mark.parametrize('how', ['bias',*seldom('als'),'ials'])
def test_solver_stopped_at_any_line(how):
    "Ctrl-C wherever a solver is: its model is that of a whole sweep, or the one from before"
    df = sample_ratings(n_users=12, n_items=10, n_ratings=60, seed=0)
    dls = RecDataLoaders.from_df(df, seed=1)
    here = {str(Path(fastrec.fit.__file__).parent/f'{o}.py') for o in ('als','biases','ials','solvers')}
    def solve(learn, n): getattr(learn, f'fit_{how}')(*((n,) if how=='bias' else (2,n)), **({} if how=='ials' else dict(tol=0)))
    def solved(n, stop_at=None):
        learn,lines = make(dls),iter(range(10**6))
        def line(frame, event, arg):
            if event=='line' and next(lines)==stop_at: raise KeyboardInterrupt
            return line
        with learn.no_bar(),learn.no_logging():
            if stop_at is not None: sys.settrace(lambda frame, event, arg: line if frame.f_code.co_filename in here else None)
            try: solve(learn, n)
            except KeyboardInterrupt: return grid(learn),True
            finally: sys.settrace(None)
        return grid(learn),False
    whole = [grid(make(dls)), *(solved(n)[0] for n in (1,2))]
    found,k,stopped = set(),0,True
    while stopped:
        res,stopped = solved(2, k)
        same = [n for n,o in enumerate(whole) if torch.equal(res, o)]
        assert same, f'stopped at line {k}, the model is none of a whole sweep'
        found.add(same[0])
        k += 3 if quick else 1
    assert k>60 and found=={0,1,2}

@pytest.mark.parametrize('how,where', [('bayes','fastrec.fit.bayes._posterior_mean'), ('als','fastrec.fit.solvers._followed'), ('bias','fastrec.fit.solvers._followed')])
@pytest.mark.parametrize('error', [MemoryError,KeyboardInterrupt])
def test_a_fit_that_fails_at_its_end_leaves_what_was_there(dls, monkeypatch, how, where, error):
    "After the last sweep: where draws are averaged, or features followed"
    learn = make(dls)
    run(learn, 'ials')
    state,before,table = learn.fit_state(),grid(learn),learn.settings()
    def fail(*_, **__): raise error('no room')
    monkeypatch.setattr(where, fail)
    with pytest.raises(error): run(learn, how)
    assert same_state(learn, state, before) and learn.settings().equals(table)
    monkeypatch.undo()
    run(learn, how)
    assert learn.last_fit.name=='fit_'+how

# ------------------------------------------------------------------ what the last fit was
@pytest.mark.parametrize('how', fits)
def test_a_fit_that_changed_nothing_is_not_the_last_one(dls, how):
    learn = make(dls)
    run(learn, 'als')
    before,last_fit,table = grid(learn),learn.last_fit,learn.settings()
    class Watch(Callback):
        def before_fit(self): raise RuntimeError('stopped')
    with pytest.raises(RuntimeError): run(learn, how, cbs=Watch())
    assert learn.last_fit==last_fit and learn.last_fit[0]=='fit_als' and torch.equal(grid(learn), before) and learn.settings().equals(table)

def test_what_is_refused_or_looks_for_a_rate_is_not_the_last_fit(dls):
    learn = make(dls)
    run(learn, 'als')
    last_fit = learn.last_fit
    with learn.no_bar(),learn.no_logging(): learn.lr_find(show_plot=False)
    assert learn.last_fit==last_fit
    with pytest.raises(ValueError, match='watches'): learn.fit(1, cbs=EarlyStoppingCallback('accuracy'))
    assert learn.last_fit==last_fit
    state = learn.fit_state()
    run(learn, 'cycle')
    name,called,_ = learn.last_fit
    assert name=='fit' and called['n_epoch']==1
    learn.put_back(state)
    assert learn.last_fit==last_fit

@pytest.mark.parametrize('kwargs', [dict(), dict(sparse=True), dict(arch=DeepMF)], ids=' '.join)
def test_a_model_may_change_its_precision(kwargs):
    learn = learner(RecDataLoaders.from_df(sample_ratings(100, 60, 2000), seed=1), **kwargs)
    with learn.no_bar(),learn.no_logging():
        for precision in (torch.float64,torch.float32):
            learn.fit(1)
            learn.model.to(precision)
        learn.fit(1)
    assert all(w.dtype==torch.float32 and w.isfinite().all() for w in learn.model.parameters())
