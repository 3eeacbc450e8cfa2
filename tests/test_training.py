"""The training loop against fastai's own, sparse updates against the formula, and fits that fail, stop and go on"""
import math,subprocess,sys,warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np,pytest,torch
from fastai.callback.all import (ActivationStats,Callback,CancelBatchException,GradientAccumulation,GradientClip,ParamScheduler,SaveModelCallback,SchedCos,
                                 TerminateOnNaNCallback,combine_scheds)
from fastai.collab import CollabDataLoaders,EmbeddingDotBias
from fastai.learner import AvgSmoothLoss,Learner,Metric,Recorder
from fastai.optimizer import SGD,Adam,OptimWrapper,RMSProp
from torch import nn
from fastrec.all import (DeepMF,DotBias,FusedAdam,RecDataLoaders,RecLearner,RowRMSProp,dot_learner,learner,load_learner,nn_learner,partial,sample_ratings)

@pytest.fixture(autouse=True, params=['lean','stock'])
def loop(request, monkeypatch):
    "Everything on this page by our loop, and by fastai's"
    monkeypatch.setattr(RecLearner, 'lean', request.param=='lean')


def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])

def both(dls, arch=DotBias, fit=lambda o: o.fit_one_cycle(2), loss_func=None, cbs=(), **kwargs):
    "The same fit by our loop and by fastai's"
    res = []
    for lean in (True,False):
        learn = learner(dls, arch, 8, seed=3, loss_func=loss_func, **kwargs, shrink=False)
        learn.lean = lean
        learn.add_cbs([o() for o in cbs])
        with learn.no_logging(): fit(learn)
        res.append(learn)
    return res

# ------------------------------------------------------------------ the same as fastai's loop
fits = dict(fit=lambda o: o.fit(2), one_cycle=lambda o: o.fit_one_cycle(2, 1e-2), flat_cos=lambda o: o.fit_flat_cos(2, 1e-2), sgdr=lambda o: o.fit_sgdr(2, 1))

@pytest.mark.parametrize('name', fits)
@pytest.mark.parametrize('sparse', [False,True])
def test_same_record_as_fastai(dls, name, sparse):
    ours,stock = both(dls, fit=fits[name], sparse=sparse)
    a,b = ours.recorder,stock.recorder
    assert torch.allclose(weights(ours), weights(stock), atol=1e-5)
    assert np.allclose(a.losses, b.losses, atol=1e-5) and np.allclose(a.values, b.values, atol=1e-5)
    assert a.lrs==pytest.approx(b.lrs, rel=0) and a.iters==b.iters and len(a.lrs)%len(dls.train)==0<len(a.lrs)
    for k in getattr(b, 'hps', {}): assert list(map(float, a.hps[k]))==list(map(float, b.hps[k]))
    assert ours.train_iter==stock.train_iter and ours.pct_train==stock.pct_train

@pytest.mark.parametrize('kwargs', [dict(cbs=[GradientClip]), dict(cbs=[lambda: GradientAccumulation(64)]), dict(cbs=[lambda: Recorder(train_metrics=True)]),
                                    dict(loss_func=nn.L1Loss()), dict(opt_func=Adam), dict(opt_func=partial(OptimWrapper, opt=torch.optim.SGD)),
                                    dict(arch=DeepMF), dict(arch=DeepMF, sparse=True), dict(y_range=False), dict(bias=False), dict(clip=True), dict(wd_bn_bias=True)], ids=' '.join)
def test_same_weights_as_fastai(dls, kwargs):
    ours,stock = both(dls, **kwargs)
    assert torch.allclose(weights(ours), weights(stock), atol=1e-5)
    assert np.allclose(ours.recorder.values, stock.recorder.values, atol=1e-5)

def test_nobody_is_left_out_of_the_gradient(dls):
    "Whoever listens between prediction and step, or has hooked the model, gets what fastai would give"
    class Look(Callback):
        def __init__(self): self.seen = []
        def after_loss(self): self.seen.append((self.pred.shape, self.loss_grad.requires_grad))
    seen,learn = [],dot_learner(dls, 4, shrink=False)
    with learn.no_logging(): learn.fit(1)
    assert learn.by_hand==learn.lean
    look = Look()
    with learn.no_logging(): learn.fit(1, cbs=look)
    assert look.seen[0][1] and len(look.seen)==len(dls.train)+len(dls.valid)
    late = Look()
    class Joining(Callback):
        def after_batch(self):
            if self.training and self.iter==3: self.learn.add_cb(late)
    with learn.no_logging(): learn.fit(1, cbs=Joining())
    assert len(late.seen)==len(dls.train)-4+len(dls.valid)
    learn.remove_cb(late)
    h = learn.model.register_forward_hook(lambda *_: seen.append(1))
    with learn.no_logging(): learn.fit(1)
    h.remove()
    assert len(seen)==len(dls.train)+len(dls.valid)

# ------------------------------------------------------------------ what is replaced is used
class SwitchesLoss(Callback):
    "From the fourth batch of an epoch on, another loss"
    def before_batch(self): self.learn.loss_func = nn.L1Loss() if self.training and self.iter>2 else nn.MSELoss()

class Hooks(Callback):
    "In the middle of an epoch, a hook that halves predictions, or on the weights one that halves gradients"
    def __init__(self, on): self.on = on
    def before_batch(self):
        if not self.training or self.iter!=2: return
        m = self.learn.model
        self.h = m.register_forward_hook(lambda m,x,y: y/2) if self.on=='model' else m.i_bias.weight.register_hook(lambda g: g/2)
    def after_train(self): self.h.remove()

class Evaluates(Callback):
    def before_batch(self): self.learn.model.train(self.iter%2==0)

class Floor(ParamScheduler):
    def _update_val(self, pct):
        super()._update_val(pct)
        self.learn.opt.set_hyper('lr', max(self.learn.opt.hypers[-1]['lr'], 5e-3))

class Plain(AvgSmoothLoss):
    "The plain mean of all losses"
    def reset(self): self.all,self.val,self.count = [],torch.tensor(0.),0
    def accumulate(self, learn): self.all.append(learn.loss.detach())
    @property
    def value(self): return torch.stack(self.all).mean()

def scheduled(learn): learn.fit(2, cbs=Floor(dict(lr=combine_scheds([.5,.5], [SchedCos(1e-2, 1e-3), SchedCos(1e-3, 1e-4)]))))

def with_mean(learn):
    learn.model.mean = nn.Parameter(torch.as_tensor(learn.model.mean).clone())
    learn.fit(2)

def averaged(learn):
    learn.recorder.smooth_loss = Plain()
    learn.fit(2)

replaced = dict(loss=dict(cbs=[SwitchesLoss]), model_hook=dict(cbs=[lambda: Hooks('model')]), weight_hook=dict(cbs=[lambda: Hooks('weight')]),
                eval=dict(cbs=[Evaluates], clip=True, fit=lambda o: o.fit(2, .1)), schedule=dict(fit=scheduled), mean=dict(fit=with_mean), average=dict(fit=averaged))

@pytest.mark.parametrize('name', replaced)
def test_what_is_replaced_within_a_fit_is_used(dls, name):
    ours,stock = both(dls, **replaced[name])
    plain,_ = both(dls, **{k: v for k,v in replaced[name].items() if k=='clip'})
    assert torch.allclose(weights(ours), weights(stock), atol=1e-5) and np.allclose(ours.recorder.values, stock.recorder.values, atol=1e-5)
    assert ours.recorder.values[-1]!=plain.recorder.values[-1]

@pytest.mark.filterwarnings('ignore:save_recommender will refuse')
@pytest.mark.parametrize('cls,name', [(DotBias,'score_pairs'), (DotBias,'bounded'), (DotBias,'side_rows'), (nn.MSELoss,'forward')])
def test_patched_methods_are_used(dls, monkeypatch, cls, name):
    before = getattr(cls, name)
    monkeypatch.setattr(cls, name, lambda *args: before(*args)*.9 if name!='side_rows' else [o*.9 for o in before(*args)])
    ours,stock = both(dls)
    assert torch.allclose(weights(ours), weights(stock), atol=1e-5)

@pytest.mark.parametrize('name', ['_backward','_do_grad_opt'])
@pytest.mark.parametrize('where', ['subclass','object','Learner','RecLearner'])
def test_own_steps_of_a_learner_are_used(dls, monkeypatch, name, where):
    "A method that does nothing: no step moves a weight"
    n,learn = 0,dot_learner(dls, 4, shrink=False, wd=0.)
    def nothing(*_):
        nonlocal n
        n += 1
    if where=='subclass': learn.__class__ = type('Own', (RecLearner,), {name: nothing})
    elif where=='object': setattr(learn, name, nothing)
    else: monkeypatch.setattr(dict(Learner=Learner, RecLearner=RecLearner)[where], name, nothing)
    before = learn.model.i_weight.weight[1:].clone()
    with learn.no_logging(): learn.fit(1)
    assert n==len(dls.train) and learn.model.i_weight.weight[1:].equal(before)

def test_statistics_of_activations(dls):
    "fastai takes its hooks off and puts them on again within an epoch"
    learn,stats = dot_learner(dls, 4, shrink=False),ActivationStats(every=4)
    with learn.no_logging(): learn.fit(1, cbs=stats)
    assert len(stats.stats)==-(-len(dls.train)//4) and all(o is not None for o in stats.stats)

def test_a_callback_may_skip_the_first_batch(dls):
    "Of the first epoch or of all, in a learner that is new or not"
    class Skip(Callback):
        def __init__(self, n): self.n = n
        def before_batch(self):
            if self.training and self.iter==0 and self.epoch<self.n: raise CancelBatchException
    learn = dot_learner(dls, 4)
    with learn.no_logging():
        for n in (1,2): learn.fit(2, cbs=Skip(n))
    assert learn.by_hand==learn.lean

def test_no_bar_for_nobody_held_out(capsys):
    "fastprogress warns of one, which would be the end of this test"
    from fastai.callback.progress import ProgressCallback
    learn = dot_learner(RecDataLoaders.from_df(sample_ratings(50, 30, 400), valid_pct=0), 4, cbs=ProgressCallback())
    if not learn.lean: pytest.skip("fastai's own loop warns")
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        learn.fit(1)
        learn.fit_bias(2)

def test_a_step_without_rows_changes_nothing(dls):
    learn = dot_learner(dls, 4, sparse=True, shrink=False)
    with learn.no_logging(): learn.fit(1)
    opt,w = learn.opt,learn.model.u_weight.weight
    before = w.detach().clone()
    w.grad = torch.sparse_coo_tensor(torch.zeros(1, 0, dtype=torch.long), torch.zeros(0, w.shape[1]), w.shape)
    opt.step()
    assert w.equal(before)

def test_a_subclass_of_a_standard_callback_is_called(dls):
    class Counting(Recorder):
        n,name = 0,'recorder'
        def after_batch(self):
            self.n += 1
            super().after_batch()
    learn = dot_learner(dls, 4, shrink=False)
    learn.remove_cb(Recorder)
    learn.add_cb(Counting())
    with learn.no_logging(): learn.fit(1)
    assert learn.recorder.n==len(dls.train)+len(dls.valid)

def test_bar_shows_the_loss(dls, capsys):
    from fastai.callback.progress import ProgressCallback
    learn,comments = dot_learner(dls, 4, cbs=ProgressCallback(), shrink=False),[]
    class Comment(Callback):
        order = 80
        def after_batch(self): comments.append(self.learn.progress.pbar.comment)
    with learn.no_logging(): learn.fit(1, cbs=Comment())
    assert any(c.startswith(('0.','1.')) for c in comments)

def test_schedules_of_any_kind(dls):
    "A schedule that is no function of fastai's is called as it is"
    from fastai.callback.schedule import ParamScheduler
    learn = dot_learner(dls, 4, shrink=False)
    with learn.no_logging(): learn.fit(1, cbs=ParamScheduler({'lr': lambda pct: 1e-3*(1+pct)}))
    assert learn.recorder.hps['lr'][0]==1e-3 and learn.recorder.hps['lr'][-1]==pytest.approx(2e-3, rel=.1)

# ------------------------------------------------------------------ what is frozen
@pytest.mark.parametrize('kwargs', [dict(), dict(opt_func=Adam), dict(arch=DeepMF), dict(sparse=True)], ids=' '.join)
def test_what_is_frozen_stays(dls, kwargs):
    "Bit by bit, though an earlier fit has left gradients of 0 and averages, also if it is frozen between two epochs"
    class FreezeLater(Callback):
        def before_epoch(self):
            if self.epoch==1: self.model.tables[1][0].requires_grad_(False)
        def after_train(self):
            if self.epoch==0: self.kept = self.model.tables[1][0].weight.detach().clone()
    def halves(m): return [[w for es in m.tables for w in es[0].parameters()],[w for w in m.parameters() if not any(w is es[0].weight for es in m.tables)]]
    learn = learner(dls, kwargs.pop('arch', DotBias), 8, seed=3, splitter=halves, **kwargs)
    with learn.no_logging():
        learn.fit(1, wd=.3)
        learn.freeze()
        before,rest = ([w.detach().clone() for w in ws] for ws in halves(learn.model))
        learn.fit(2, wd=.3)
        assert all(w.equal(o) for w,o in zip(halves(learn.model)[0], before))
        assert not all(w.equal(o) for w,o in zip(halves(learn.model)[1], rest))
        learn.unfreeze()
        freeze = FreezeLater()
        learn.fit(3, wd=.3, cbs=freeze)
    table = learn.model.tables[1][0].weight.detach()
    assert table[1:].equal(freeze.kept[1:]) and not learn.model.tables[0][0].weight.equal(before[0])

# ------------------------------------------------------------------ sparse updates
def test_sparse_step_by_the_formula():
    g = torch.Generator().manual_seed(0)
    w,codes,values = torch.randn(6, 3, generator=g),torch.tensor([4,1,4,0]),torch.randn(4, 3, generator=g)
    p,lr,wd,beta = nn.Parameter(w.clone()),.1,.3,.95
    opt,v = RowRMSProp([p], lr=lr, wd=wd),torch.zeros(6)
    for t in (1,2):
        p.grad = torch.sparse_coo_tensor(codes[None], values, p.shape)
        opt.step()
        opt.zero_grad()
        for r in (0,1,4):
            grad = values[codes==r].sum(0) + wd*(codes==r).sum()/len(codes)*w[r]
            v[r] = beta*v[r] + (1-beta)*(grad**2).mean()
            w[r] -= lr*grad/(v[r]/(1-beta**t))**.5
    assert torch.allclose(p, w, atol=1e-6) and p.grad is None

def test_only_rows_of_the_batch_move(dls):
    learn = learner(dls, sparse=True, n_factors=4)
    learn.create_opt()
    before = [p.detach().clone() for p in learn.model.parameters()]
    x,y = dls.one_batch()
    learn.model.mse_step(x, y)
    learn.opt.step()
    for p,o,codes in zip((learn.model.u_weight,learn.model.i_weight), (before[0],before[1]), x.T):
        moved = (p.weight!=o).any(1).nonzero()[:,0]
        assert moved.tolist()==codes.unique().tolist()

@pytest.mark.parametrize('loop', ['lean'], indirect=True)  # fastai's gives the same weights, as is tested above
@pytest.mark.parametrize('arch', [DotBias,DeepMF])
def test_sparse_as_accurate_as_dense(arch, loop):
    ratings = sample_ratings()
    def reached(sparse):
        learn = learner(RecDataLoaders.from_df(ratings, seed=1), arch, sparse=sparse)
        with learn.no_logging(): learn.fit_one_cycle(5)
        return learn.recorder.values[-1][-1]
    assert reached(True)<reached(False)+.003

def test_sparse_lives_with_the_rest(dls, arch, tmp_path):
    learn = learner(dls, arch, sparse=True, path=tmp_path)
    with learn.no_logging(),learn.no_bar():
        assert learn.lr_find().valley>0
        learn.fit_one_cycle(2, cbs=[SaveModelCallback(monitor='rmse', with_opt=True), GradientAccumulation(3*dls.train.bs)])
    learn.load('model', with_opt=True)
    learn.export('l.pkl')
    loaded = load_learner(tmp_path/'l.pkl')
    assert loaded.model.sparse and torch.equal(weights(loaded), weights(learn))

def test_sparse_where_tables_are_big(ratings):
    small,big = (RecDataLoaders.from_df(ratings, seed=1, bs=bs) for bs in (4,3))  # of 100 rows in the tables for each in a batch it pays
    assert 300<sum(map(len, small.classes.values()))<400 and not learner(small).model.sparse and learner(big).model.sparse
    dls = small
    assert not learner(big, sparse=False).model.sparse and learner(small, sparse=True).model.sparse
    assert isinstance(learner(dls, sparse=True).opt_func([nn.Parameter(torch.ones(1))], lr=1.), RowRMSProp)

@pytest.mark.parametrize('make,error', [
    (lambda d: learner(d, sparse=True, opt_func=Adam), 'sparse=True leaves gradients that Adam cannot use'),
    (lambda d: learner(d, sparse=True, opt_func=partial(FusedAdam, decouple_wd=True)), 'sparse=True leaves gradients that FusedAdam cannot use'),
    (lambda d: learner(d, sparse=True, opt_func=partial(RowRMSProp, decouple_wd=True)), 'RowRMSProp cannot do decouple_wd=True'),
    (lambda d: learner(d, sparse=True, cbs=GradientClip(1.)), 'GradientClip cannot clip the gradients of sparse=True')])
def test_what_sparse_excludes(dls, make, error):
    with pytest.raises((TypeError,ValueError), match=error), (learn := make(dls)).no_logging(): learn.fit(1)

def test_clipping_in_one_fit(dls):
    learn = learner(dls, sparse=True)
    with pytest.raises(TypeError, match='GradientClip cannot clip'): learn.fit(1, cbs=GradientClip)
    assert not [o for o in learn.cbs if isinstance(o, GradientClip)]

# ------------------------------------------------------------------ fits that fail, stop and go on
def spoil(learn, at):
    "Make the loss of batch `at` nan"
    class Spoil(Callback):
        order = -50
        def before_batch(self):
            if self.training and self.train_iter==at: self.learn.yb = (self.y*math.nan,)
    return Spoil()

@pytest.mark.parametrize('each', [True,False], ids=['each batch','each epoch'])
def test_nan_stops_and_keeps_the_weights(dls, arch, each, monkeypatch):
    if not each: monkeypatch.setattr(RecLearner, '_watches_each', lambda self: False)
    learn = learner(dls, arch, seed=2)
    with learn.no_logging(): learn.fit(1)
    before,n = weights(learn),len(dls.train)
    with pytest.raises(FloatingPointError, match='step 0 of epoch 0, for user and title'), learn.no_logging(): learn.fit(1, cbs=spoil(learn, 0))
    assert torch.equal(weights(learn), before) if arch is DotBias or not each else weights(learn).isfinite().all()
    with learn.no_logging(): learn.fit(1)
    assert weights(learn).isfinite().all() and len(learn.history)==1

@pytest.mark.parametrize('precision', ['to_bf16','to_fp16'])
@pytest.mark.parametrize('each', [True,False], ids=['each batch','each epoch'])
def test_nan_stops_in_half_precision(dls, precision, each, monkeypatch):
    "On a CPU, where nothing scales gradients and leaves bad steps out"
    if not each: monkeypatch.setattr(RecLearner, '_watches_each', lambda self: False)
    learn = getattr(learner(dls, y_range=False, seed=2), precision)()
    with pytest.raises(FloatingPointError, match='the loss is no finite number'), learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit(2, 1e20)
    assert weights(learn).isfinite().all()

def test_nan_names_step_users_and_items(dls):
    learn = learner(dls, seed=2, lr=.5)
    with pytest.raises(FloatingPointError) as e, learn.no_logging(): learn.fit(1, cbs=spoil(learn, 3))
    msg = str(e.value)
    assert 'step 3 of epoch 0' in msg and 'Try a lower lr (it was 0.5)' in msg
    assert any(repr(o) in msg for o in dls.classes['title'].labels)

def test_nan_left_to_those_who_handle_it(dls):
    learn = learner(dls, seed=2)
    with learn.no_logging(): learn.fit(1, cbs=[spoil(learn, 3), TerminateOnNaNCallback()])
    assert learn.train_iter<len(dls.train)

def test_ctrl_c_leaves_a_usable_learner(dls, arch):
    class CtrlC(Callback):
        def before_step(self):
            if self.train_iter==2: raise KeyboardInterrupt
    learn = learner(dls, arch)
    logger = learn.logger
    with pytest.raises(KeyboardInterrupt): learn.fit_one_cycle(2, cbs=CtrlC())
    assert learn.logger is logger and all(p.grad is None or not p.grad.abs().sum() for p in learn.model.parameters())
    assert np.isfinite(learn.predict_grid()).all()
    with learn.no_logging(): learn.fit_one_cycle(1)
    assert len(learn.history)==1

@pytest.mark.parametrize('kwargs', [{}, dict(arch=DeepMF, ps=.2), dict(sparse=True)], ids=str)
@pytest.mark.parametrize('same', [True,False], ids=['same learner','new learner'])
def test_resuming_equals_not_stopping(dls, kwargs, same, tmp_path):
    class Stop(Callback):
        def before_epoch(self):
            if self.epoch==2: raise KeyboardInterrupt
    whole,learn = (learner(dls, seed=5, path=tmp_path, **kwargs) for _ in range(2))
    with whole.no_logging(): whole.fit_one_cycle(4)
    with pytest.raises(KeyboardInterrupt), learn.no_logging(): learn.fit_one_cycle(4, cbs=[SaveModelCallback(every_epoch=True, with_opt=True), Stop()])
    if not same: learn = learner(dls, seed=5, path=tmp_path, **kwargs)
    learn.load('model_1', with_opt=True)
    with learn.no_logging(): learn.fit_one_cycle(4, start_epoch=2)
    assert torch.equal(weights(learn), weights(whole))
    assert learn.history.index.tolist()==[2,3] and learn.history.rmse.equals(whole.history.rmse[2:])

# ------------------------------------------------------------------ threads
@pytest.fixture
def two_threads():
    "PyTorch on two threads, as in a process that has set nothing"
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)

class Threads(Callback):
    "How many threads each batch has"
    order = -50
    def before_fit(self): self.seen = set()
    def before_batch(self): self.seen.add(torch.get_num_threads())

@pytest.mark.parametrize('fit', [lambda l,**kw: l.fit(1, **kw), lambda l,**kw: l.fit_als(4, 2, **kw), lambda l,**kw: l.fit_ials(4, 2, **kw), lambda l,**kw: l.fit_bayes(3, 4, **kw), lambda l,**kw: l.fit_bias(**kw)])
def test_a_fit_works_on_one_thread(dls, fit, two_threads):
    learn,threads = dot_learner(dls, 4),Threads()
    with learn.no_logging(): fit(learn, cbs=threads)
    assert threads.seen=={1} and torch.get_num_threads()==2

def test_threads_are_put_back_after_an_error(dls, two_threads):
    class CtrlC(Callback):
        def before_step(self): raise KeyboardInterrupt
    learn = dot_learner(dls, 4)
    with pytest.raises(KeyboardInterrupt), learn.no_logging(): learn.fit(1, cbs=CtrlC())
    assert torch.get_num_threads()==2

def test_big_steps_are_shared(ratings, two_threads):
    learn,threads = dot_learner(RecDataLoaders.from_df(ratings, seed=1, bs=4096), 1024),Threads()
    with learn.no_logging(): learn.fit(1, cbs=threads)
    assert threads.seen=={2}

def test_a_thread_that_starts_during_a_fit_has_its_own(dls, two_threads):
    class Look(Callback):
        def before_batch(self):
            with ThreadPoolExecutor(1) as pool: seen.add(pool.submit(torch.get_num_threads).result())
    seen,learn = set(),dot_learner(dls, 4)
    with learn.no_logging(): learn.fit(1, cbs=Look())
    assert seen=={2}

def test_fits_in_two_threads(ratings, two_threads):
    "Each gives what it gives alone, and the last puts the setting back"
    def learners(): return [dot_learner(RecDataLoaders.from_df(ratings, seed=o, bs=256), 4) for o in range(4)]
    def fitted(learn):
        with learn.no_bar(),learn.no_logging(): learn.fit(2)
        return weights(learn)
    alone = list(map(fitted, learners()))
    with ThreadPoolExecutor(4) as pool: together = list(pool.map(fitted, learners()))
    assert all(torch.equal(a, b) for a,b in zip(alone, together)) and torch.get_num_threads()==2

@pytest.mark.parametrize('what', ['module','callback'])
def test_whatever_draws_follows_from_the_seed(ratings, what):
    "Also where the module or the callback is not known to draw"
    class Look(Callback):
        run_valid = False
        def before_batch(self): drawn[-1].append(torch.rand(()).item())
    drawn,ends = [],[]
    for k in range(2):
        learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256), 4)
        if what=='module': learn.model.layers[0].append(nn.RReLU())
        torch.manual_seed(k)
        drawn.append([])
        with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=Look() if what=='callback' else None)
        ends.append(weights(learn))
    assert torch.equal(*ends) and drawn[0]==drawn[1] and len(set(drawn[0]))==len(drawn[0])

# ------------------------------------------------------------------ a GPU
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('sparse', [False,True])
def test_same_on_cuda(ratings, sparse):
    res = []
    for device in ('cpu','cuda'):
        learn = learner(RecDataLoaders.from_df(ratings, seed=1, device=torch.device(device)), n_factors=8, sparse=sparse)
        with learn.no_logging(): learn.fit_one_cycle(2)
        res.append(learn)
    assert abs(res[0].recorder.values[-1][-1]-res[1].recorder.values[-1][-1])<.02
    assert not any(o.is_cuda for o in res[1].recorder.losses)

@pytest.mark.parametrize('loop', ['lean'], indirect=True)
def test_another_fastai_means_its_own_loop(loop):
    "Told once, at the first fit"
    code = '''
import warnings
from fastai.learner import Recorder
after_batch = Recorder.after_batch
def other(self): after_batch(self)
other.__qualname__ = 'Recorder.after_batch'
Recorder.after_batch = other
from fastrec.all import *
learn = learner(RecDataLoaders.from_df(sample_ratings(30, 20, 300)), n_factors=2)
with warnings.catch_warnings(record=True) as told, learn.no_bar(), learn.no_logging():
    warnings.simplefilter('always')
    for _ in range(2): learn.fit(1)
print(learn.lean, [str(o.message) for o in told if 'Recorder.after_batch' in str(o.message)])
'''
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=110)
    assert done.stdout.startswith("False [\"fastai's Recorder.after_batch is not what") and done.stdout.count('is not what')==1, done.stderr

# ------------------------------------------------------------------ checkpoints of other optimizers
def goes_on(dls, path, before, after):
    "The weights after an epoch each, with a checkpoint between them that goes from one optimizer to the other"
    first,then = (learner(dls, n_factors=8, seed=3, shrink=False, path=path, **k) for k in (before,after))
    with first.no_logging(),then.no_logging():
        first.fit(1)
        first.save('between')
        then.load('between')
        then.n_fits = 1  # the order of batches is that of a second fit
        then.fit(1)
        first.fit(1)
    return weights(first),weights(then)

@pytest.mark.parametrize('ways', [(Adam,FusedAdam),(FusedAdam,Adam)])
def test_a_fit_goes_on_from_a_checkpoint_of_fastais_adam(dls, tmp_path, ways):
    a,b = goes_on(dls, tmp_path, *(dict(opt_func=o) for o in ways))
    assert torch.allclose(a, b, atol=1e-5)

@pytest.mark.parametrize('before,after', [(dict(opt_func=partial(SGD, mom=.9)),{}), (dict(opt_func=partial(RMSProp, mom=.9)),{}), (dict(sparse=True),{}), ({},dict(sparse=True)),
                                          (dict(opt_func=Adam),dict(sparse=True))],
                         ids=['SGD','RMSProp','sparse','to sparse','Adam to sparse'])
def test_the_state_of_another_optimizer_is_left_out_and_told(dls, tmp_path, before, after):
    with pytest.warns(UserWarning, match='begins anew'): goes_on(dls, tmp_path, dict(sparse=False) | before, dict(sparse=False) | after)

# ------------------------------------------------------------------ what fastai's Learner takes
def test_weights_of_the_loss_are_trained_as_in_fastai(dls):
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.log = nn.Parameter(torch.zeros(()))
        def forward(self, pred, y): return ((pred-y)**2).mean()*torch.exp(-self.log)+self.log
    res = []
    for opt_func in (FusedAdam,Adam):
        loss = Scaled()
        learn = learner(dls, n_factors=8, seed=3, loss_func=loss, opt_func=opt_func, splitter=lambda m: [list(m.parameters()),list(loss.parameters())])
        with learn.no_logging(): learn.fit(1)
        res.append(loss.log.item())
    assert res[0]==pytest.approx(res[1], abs=1e-5) and abs(res[0])>.01
    stray = nn.Parameter(torch.zeros(1))
    learn = learner(dls, splitter=lambda m: [list(m.parameters()),[stray]])
    with pytest.raises(TypeError, match='other weights than the model has, or the loss.*splitter takes weights'): learn.fit(1)

def test_models_without_tables_are_refused(dls):
    learn = dot_learner(dls, 4)
    with pytest.raises(TypeError, match='DataParallel hides the tables.*distrib_ctx'): learn.model = nn.DataParallel(learn.model)
    with pytest.raises(TypeError, match='Sequential has no tables'): learn.model = nn.Sequential(learn.model)
    with pytest.raises(TypeError, match='EmbeddingDotBias has no tables.*from_learner'): RecLearner(dls, EmbeddingDotBias(4, *learn.model.sizes), nn.MSELoss())
    with learn.no_logging(): learn.fit(1)

def test_a_batch_outside_of_a_fit(dls):
    "As fastai's own tests take one"
    learn = dot_learner(dls, 4, shrink=False)
    learn.create_opt()
    learn.training,learn.cbs,before = True,learn.cbs.filter(lambda o: False),weights(learn)
    b = dls.one_batch()
    with torch.no_grad(): want = nn.functional.mse_loss(learn.model(b[0]), b[1])
    learn.one_batch(0, b)
    assert learn.loss.item()==pytest.approx(want.item(), rel=1e-5) and not weights(learn).equal(before)

# ------------------------------------------------------------------ batches of another form
class Column(Callback):
    def before_batch(self): self.learn.xb,self.learn.yb = (self.x[:8],),(self.y[:8,None],)
class Empty(Callback):
    def before_batch(self):
        if self.training and self.iter==2: self.learn.xb,self.learn.yb = (self.x[:0],),(self.y[:0],)
class Three(Callback):
    def before_batch(self): self.learn.yb = self.y,torch.ones_like(self.y)
class Broken(Metric):
    name,value = 'broken',None
    def reset(self): pass
    def accumulate(self, learn): raise IndexError('on purpose')

@pytest.mark.filterwarnings('ignore:Using a target size')
def test_a_batch_of_another_form_goes_the_way_of_fastai(dls):
    ours,stock = both(dls, cbs=[Column])
    assert torch.allclose(weights(ours), weights(stock), atol=1e-5)
    for cb,error in ((Empty(),(FloatingPointError, 'step 2 of epoch 0, which has no rows')), (Three(),(TypeError, 'positional arguments'))):
        learn = dot_learner(dls, 4)
        with learn.no_logging(),pytest.raises(error[0], match=error[1]): learn.fit(1, cbs=cb)

def test_a_table_of_half_precision(dls):
    def fit(learn):
        learn.model.u_bias.half()
        learn.fit(1)
    ours,stock = both(dls, fit=fit, sparse=False)
    assert np.allclose(ours.recorder.losses, stock.recorder.losses, atol=1e-3)

def test_rows_of_an_epoch_may_be_fewer(dls):
    dls.train.get_idxs = lambda: list(range(100))
    dls.train.bs = 64
    learn = dot_learner(dls, 4)
    with learn.no_logging(): learn.fit(1)
    assert len(learn.recorder.losses)==2 and 'all training rows' in learn.shrink_to_biases.why_not

def test_an_error_names_the_callback_as_in_fastai(dls):
    learn = dot_learner(dls, 4, metrics=Broken())
    with learn.no_logging(),pytest.raises(IndexError, match='in `Recorder` when calling event `after_batch`:\n\ton purpose'): learn.fit(1)

# ------------------------------------------------------------------ other people's rows
def test_a_model_of_other_labels_is_refused(ratings):
    "However it comes, and everything stays"
    some,others = (RecDataLoaders.from_df(ratings[ratings.user%2==k], seed=1) for k in (0,1))
    a,b = dot_learner(some, 4),dot_learner(others, 4)
    model = b.model
    with pytest.raises(ValueError, match='other labels than the model'): RecLearner(others, a.model, nn.MSELoss())
    with pytest.raises(ValueError, match='other labels than the model'): b.model = a.model
    with pytest.raises(ValueError, match='other labels than the model'): a.dls = others
    assert b.model is model and a.dls is some
    b.model = dot_learner(RecDataLoaders.from_df(ratings[ratings.user%2==1], seed=1), 6).model  # the same labels
    assert b.model.width==6

def test_a_model_of_a_smaller_range_is_refused(ratings):
    dls,low = (RecDataLoaders.from_df(o, seed=1) for o in (ratings,ratings.assign(rating=ratings.rating/2)))
    with pytest.raises(ValueError, match='outside the range of the model'): dot_learner(dls, 4).model = dot_learner(low, 4).model

def test_rows_without_weight_are_outside_no_range(ratings):
    df = ratings.assign(weight=1.)
    df.loc[df.index[:9],['rating','weight']] = -1000,0
    learn = dot_learner(RecDataLoaders.from_df(df, seed=1, weight_name='weight'), 4)
    learn.dls = learn.dls

# ------------------------------------------------------------------ fastai's loaders
@pytest.fixture
def stock_dls(ratings):
    with warnings.catch_warnings(action='ignore'):  # fastai warns of pandas' read-only arrays
        return CollabDataLoaders.from_df(ratings[['user','title','rating']].astype(dict(title=str)), seed=42, bs=64)

def test_loaders_of_fastai_take_the_place_of_others(stock_dls):
    learn = learner(stock_dls, n_factors=4)
    with learn.no_logging():
        learn.fit(1)
        before = list(learn.validate())
        assert list(learn.validate(dl=stock_dls.valid))==pytest.approx(before, rel=1e-5)
        assert torch.allclose(learn.get_preds(dl=stock_dls.valid)[0], learn.get_preds()[0])
        learn.dls = stock_dls
        assert type(learn.dls) is RecDataLoaders and list(learn.validate())==before
        learn.fit(1)

def test_batches_of_fastai_of_other_people_are_refused(stock_dls, ratings):
    learn = dot_learner(RecDataLoaders.from_df(ratings[ratings.user%2==0], seed=1), 4)
    for ask in (learn.validate,learn.get_preds):
        with pytest.raises(ValueError, match='other labels'): ask(dl=stock_dls.valid)
    with pytest.raises(ValueError, match='other labels'): learn.dls = stock_dls

def test_a_column_of_targets_is_compared_row_by_row(dls):
    "It was compared with each prediction"
    learn = dot_learner(dls, 4)
    x,y = dls.valid.one_batch()
    assert learn.validate(dl=[(x,y[:,None])])==learn.validate(dl=[(x,y)])
