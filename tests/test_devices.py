"""Everything on a pretended CUDA device and a pretended MPS device, `pretended.py`: the same answers as on the CPU, no mixed devices, no float64 on MPS,
the waits counted. Then devices that are not there or are full, and what of a real GPU can be tried without one"""
import functools,gc,re,warnings
from configparser import ConfigParser
import matplotlib.pyplot as plt,numpy as np,pandas as pd,pytest,torch,torch.nn.functional as F
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from fastai.callback.all import CSVLogger,Callback,EarlyStoppingCallback,GradientAccumulation,GradientClip,SaveModelCallback,ShortEpochCallback
from fastai.callback.core import CancelEpochException,CancelFitException,CancelTrainException,CancelValidException
from fastai.collab import CollabDataLoaders,collab_learner
from fastai.learner import load_learner
from fastai.optimizer import Adam,OptimWrapper
from pretended import Pretended,is_there,missing_kernels
from conftest import catalogue,seldom
from fastrec.answer import byte_screens,lists
from fastrec.fit import equations,optimizers,solvers
from fastrec.base import devices
from fastrec.all import (DeepMF,DotBias,RecDataLoaders,RecInterpretation,RecLearner,Seen,default_device,learner,load_recommender,
                         nn_learner,partial,sample_ratings)

@pytest.fixture
def as_drawn(monkeypatch):
    "Draws of few ratings as they are: held-out rows would bear out no taste, and all would be biases"
    monkeypatch.setattr('fastrec.fit.borne_out._left_out', lambda ds: [])

both,mostly_cuda = (pytest.mark.parametrize('device', ['cuda',*mps]) for mps in (['mps'],seldom('mps')))

def kinds(name, on_cuda, on_mps, slow=()):
    "Cases of `name` on either device: all kinds on one, `slow` ones seldom, and as seldom on MPS, where solvers use the CPU, one of those that take the same way"
    rest = [('cuda',o) for o in slow]+[('mps',o) for o in on_mps]
    return pytest.mark.parametrize(f'device,{name}', [*(('cuda',o) for o in on_cuda if o not in slow), *seldom(*rest)])

@functools.cache
def frame(): return sample_ratings(n_users=30, n_items=25, n_ratings=500, seed=0)

def loaders(device, bs=64, **kwargs): return RecDataLoaders.from_df(frame(), seed=1, bs=bs, device=device, **kwargs)

def sides():
    d = frame()
    users = d.drop_duplicates('user')[['user']].assign(age=lambda o: np.arange(len(o))%17, job=lambda o: np.where(np.arange(len(o))%3==0, 'a', 'b|c'))
    return ['implicit', users]

@contextmanager
def pretending(device, **kwargs):
    "The pretended device, of whose rule for solvers on MPS everybody knows already"
    with warnings.catch_warnings(),Pretended(device, **kwargs) as gpu:
        warnings.filterwarnings('ignore', 'fit_bias, fit_als')
        yield gpu
        assert not missing_kernels(gpu.ops, device.upper())

# ------------------------------------------------------------------ the harness
def tensors(device): return [o.to(device) for o in (torch.ones(4, 3), torch.tensor(1.), torch.tensor([0,1]), torch.tensor([True,False,True,True]))]

# d, d0, di, dm: floats (4,3), one number, codes and a mask on the device; h, h0, hi, hm: the same on the host
cases = {  # by the rules of PyTorch's own FakeTensorMode('cuda'), and of CUDA where these are laxer
    'd+h': 'raises', 'd+h0': 'there', 'h+d0': 'raises', 'd0+h0': 'there', 'torch.mul(d, d, out=torch.empty_like(h))': 'raises', 'd@h.T': 'raises',
    'torch.cat([d,h])': 'raises', 'torch.stack([d0,h0])': 'raises', 'torch.where(d>0, d, h0)': 'there', 'd[hi]': 'there', 'h[di]': 'raises', 'd[hm]': 'there',
    'h[dm]': 'raises', 'd.clone().index_put_((hi,), h[:2])': 'raises', 'd.index_select(0, hi)': 'raises', 'F.embedding(hi, d)': 'raises', 'd.masked_fill(hm[:,None], 0.)': 'raises',
    'h.clone().copy_(d)': 'here', 'd.clone().copy_(h)': 'there', 'torch.searchsorted(d[0], h[0])': 'raises', 'torch.isin(di, hi)': 'raises', 'd.clamp(min=h0)': 'there',
    'F.mse_loss(d, h)': 'raises', 'd.new_zeros(3)': 'there', 'torch.zeros_like(d, device="cpu")': 'here', 'torch.zeros(3, device=d.device)': 'there',
    'torch.tensor([1.], device=d.device)': 'there', 'h.to(d)': 'there', 'd.cpu()': 'here', 'd.T.unflatten(1, (2,2))': 'there', 'd.numpy()': 'raises', 'np.asarray(d)': 'raises',
    'np.asarray(d.cpu())': None, 'torch.randn(3, generator=torch.Generator(), device=d.device)': 'raises', 'torch.randn(3, generator=torch.Generator(d.device), device=d.device)': 'there',
    'torch.randperm(3, generator=torch.Generator(d.device))': 'raises', 'torch.sparse_coo_tensor(di[None], d[:2], (4,3), check_invariants=False).coalesce()': 'there',
    'd.requires_grad_().sum().backward() or d.grad': 'there', 'torch.nn.Linear(3, 2).to(d.device)(d)': 'there', 'd.tolist()': None, 'repr(d)': None}

@both
@pytest.mark.parametrize('case', cases)
def test_refuses_what_a_device_would(device, case):
    want = cases[case]
    with Pretended(device):
        h,h0,hi,hm = tensors('cpu')
        d,d0,di,dm = tensors(device)
        if want!='raises':
            res = eval(case)
            assert want is None or is_there(res)==(want=='there')==(res.device.type==device)
            return
        with pytest.raises((RuntimeError,TypeError), match='same device|numpy|on the same device|generator|CPU scalars'): eval(case)
    assert not torch.cuda.is_available() or device=='mps'

def test_only_mps_has_no_float64():
    with Pretended('cuda'): assert torch.ones(2, device='cuda').double().dtype==torch.float64
    with Pretended('mps'):
        for f in (lambda: torch.ones(2, device='mps').double(), lambda: torch.ones(2).double().to('mps'), lambda: torch.zeros(2, dtype=torch.float64, device='mps')):
            with pytest.raises(TypeError, match='float64'): f()

@pytest.mark.parametrize('f,n', [(lambda d: d.sum().item(), 1), (lambda d: d+1, 0), (lambda d: d.cpu(), 1), (lambda d: d.to('cpu', non_blocking=True), 1), (lambda d: torch.ones(2).to(d), 1),
                                 (lambda d: torch.ones(2).to(d.device, non_blocking=True), 0), (lambda d: d[d>0], 1), (lambda d: d.where(d>0, 0.), 0), (lambda d: d.nonzero(), 1),
                                 (lambda d: d.long().flatten().bincount(), 2), (lambda d: d.unique(), 1), (lambda d: d.new_zeros(2).index_add_(0, d[0].long(), d[0]), 0),
                                 (lambda d: torch.linalg.cholesky(torch.eye(2, device=d.device)), 1), (lambda d: torch.linalg.cholesky_ex(torch.eye(2, device=d.device)), 0),
                                 (lambda d: d.mul_(torch.tensor(2.)), 0), (lambda d: float(d.sum()), 1), (lambda d: bool((d>0).all()), 1), (lambda d: d.tolist(), 1)])
def test_waits_are_counted(f, n):
    with Pretended() as gpu:
        d = torch.ones(1, 2, device='cuda')
        with gpu.counting() as waits: f(d)
    assert sum(waits.values())==n, waits

def test_the_device_has_a_generator_of_its_own():
    with Pretended() as gpu:
        torch.manual_seed(3)
        state,a = torch.get_rng_state(),torch.rand(3, device='cuda')
        assert torch.equal(torch.get_rng_state(), state) and not torch.equal(torch.rand(3, device='cuda'), a)
        torch.manual_seed(3)
        assert torch.equal(torch.rand(3, device='cuda'), a)

def test_a_device_may_be_full():
    for device in ('cuda','mps'):
        with Pretended(device, capacity=1000):
            a = torch.zeros(200, device=device)
            with pytest.raises(RuntimeError, match='out of memory'): torch.zeros(200, device=device)
            del a
            torch.zeros(200, device=device)

def test_saving_leaves_a_tensor_where_it_lies():
    with Pretended() as gpu:
        d = torch.zeros(200, device='cuda')
        torch.save(d, BytesIO())
        gc.collect()
        assert is_there(d) and gpu.live==800
        del d
        assert gpu.live==0

def test_a_missing_kernel_is_found(): assert missing_kernels({'aten.add.Tensor':1,'aten.mm.default SparseCsr':1}, 'MPS')==['aten.mm.default SparseCsr']

# ------------------------------------------------------------------ as on the CPU
def same(a, b, at=''):
    "Are the nested results `a` and `b` the same, numbers to rounding?"
    assert type(a) is type(b), at
    if isinstance(a, dict): a,b = list(a.items()),list(b.items())
    if isinstance(a, pd.DataFrame): pd.testing.assert_frame_equal(a, b, rtol=2e-3, atol=2e-4, obj=at)
    elif isinstance(a, pd.Series): pd.testing.assert_series_equal(a, b, rtol=2e-3, atol=2e-4, obj=at)
    elif isinstance(a, torch.Tensor): assert torch.allclose(a.float(), b.float(), rtol=2e-3, atol=2e-4), at
    elif isinstance(a, float): assert a==pytest.approx(b, rel=2e-3, abs=2e-4), at
    elif isinstance(a, (list,tuple)):
        assert len(a)==len(b), at
        for i,(o,p) in enumerate(zip(a, b)): same(o, p, f'{at}.{i}' if not isinstance(o, tuple) else f'{at}.{o[0]}')
    else: assert a==b, at

fits = dict(dot=(DotBias, {}, lambda l: l.fit_one_cycle(2)), sparse=(DotBias, dict(sparse=True), lambda l: l.fit_one_cycle(2)),
            net=(DeepMF, dict(layers=[8], ps=.1, embed_p=.1, shrink=False), lambda l: l.fit_one_cycle(2)),
            bias=(DotBias, {}, lambda l: l.fit_bias()), als=(DotBias, {}, lambda l: l.fit_als(3, 4)), ials=(DotBias, {}, lambda l: l.fit_ials(3, 4)),
            bayes=(DotBias, {}, lambda l: l.fit_bayes(3, 6, burn=3)), sides=(DotBias, {}, lambda l: l.fit_bayes(3, 8, burn=5, side=sides(), time=['1D','1h'])))

def fitted(device, fit):
    arch,kwargs,f = fits[fit]
    learn = learner(loaders(device, **(dict(time_name='timestamp') if fit=='sides' else {})), arch, n_factors=4, **kwargs)
    with learn.no_logging(): f(learn)
    return learn

def answers(learn, tmp):
    "What the learner answers, and what it answers when fitted on, saved and loaded"
    d,users,items = frame(),learn.ds.classes['user'].labels,learn.ds.classes['title'].labels
    new,rated = d[d.user==users[0]].drop(columns='user'),learn.model.item_factors.shape[1]>0
    def ask(rec):
        res = dict(pair=rec.predict(users[0], items[0]), rows=rec.predict_df(d[:50]), grid=rec.predict_grid().cpu(), all=rec.recommend(n=3))
        if rated:
            new_user = rec.fold_in(new)
            res.update(similar=rec.similar(items[0], 3), new=new_user.recommend(n=3))
        if hasattr(rec.model, 'n_draws'):
            res.update(std=rec.predict(users[0], items[0], std=True), z=rec.recommend(n=3, z=-1.), new_z=new_user.recommend(n=3, z=1.))
        return res
    def ask_more(rec):
        "What a loaded one gives by the same lines"
        res = dict(part=rec.predict_grid(users[:3], items[:5]).cpu(), few=rec.recommend(users[:3], n=3), damped=rec.recommend(users[:3], n=3, damping=.5),
                   blocks=rec.recommend(n=3, max_bytes=4*128*7), of=rec.recommend(users[:3], items=items[:9], exclude_seen=d[:100]),
                   file=pd.read_parquet(rec.recommend(n=2, path=tmp/'lists.parquet')))
        if rated:
            res.update(diverse=rec.recommend(n=3, diversity=.4, damping=.2), users=rec.similar_users(users[0], 3),
                       new_rows=rec.fold_in(new).predict(items[0]), none=rec.fold_in(new[:0]).predict_grid().cpu())
        if hasattr(rec.model, 'n_draws'):
            res.update(std_rows=rec.predict_df(d[:50], std=True), draw=rec.recommend(n=3, draw=2))
            nobody = pd.DataFrame(dict(user=[users[0],-1,-1], title=['nothing',items[0],'nothing']))
            with warnings.catch_warnings(action='ignore'):
                res['std_unknown'] = rec.predict_df(nobody, unknown='average', std=True)
                res['std_nothing'] = rec.fold_in(d[:9]).predict_df(nobody, unknown='average', std=True)
        return res
    res = dict(history=learn.history, losses=[float(o) for o in learn.recorder.losses], asked=ask(learn), more=ask_more(learn), evaluated=learn.evaluate())
    if not learn.model.is_preference: res.update(valid=list(learn.validate()), noise=learn.noise)
    with learn.no_bar():
        for name,kwargs in dict(valid={}, train=dict(ds_idx=0), inputs=dict(with_input=True)).items():
            res[f'preds {name}'] = [o.cpu() for o in learn.get_preds(**kwargs)]
        preds,targs = learn.get_preds(dl=learn.dls.train)  # in the order of the rows, though drawn in another
        assert targs.squeeze().cpu().equal(learn.dls.train_ds.y.cpu()), 'another order'
    learn.recorder.plot_loss(skip_start=0)
    learn.plot_metrics()
    plt.close('all')
    device = learn.dls.device
    res['loaded'] = ask(load_recommender(learn.save_recommender(tmp/'saved'), device))
    learn.path = tmp
    learn.save('weights')
    learn.load('weights')
    res['again'] = learn.predict_grid().cpu()
    learn.export('all.pkl')
    for cpu in (True,False):
        loaded = load_learner(tmp/'all.pkl', cpu=cpu)
        assert loaded.model.mean.device.type==('cpu' if cpu else device.type) if isinstance(loaded.model, DotBias) else True
        res[f'exported {cpu}'] = loaded.predict_df(d[:20]),loaded.predict_grid().cpu(),loaded.recommend(n=2, exclude_seen=False)
    return res

@functools.cache
def on_cpu(f, *args):
    "What `f` gives on the CPU"
    return f('cpu', *args)

def compared(f, device, *args):
    want = on_cpu(f, *args)
    with pretending(device) as gpu:
        got = f(device, *args)
    same(got, want)
    return gpu

def fitted_answers(device, fit):
    from tempfile import TemporaryDirectory
    with TemporaryDirectory() as d: return answers(fitted(device, fit), Path(d))

@kinds('fit', [o for o in fits if o!='bayes'], ['dot','sparse','net','als','ials','sides'])
@pytest.mark.filterwarnings('ignore:load_learner')
def test_answers_as_on_the_cpu(device, fit): compared(fitted_answers, device, fit)

weighed_fits = {**{k: v for k,v in fits.items() if k!='sides'}, 'ease': (DotBias, {}, lambda l: l.fit_ease()), 'blend': (DotBias, {}, lambda l: l.fit_blend())}

def weighed(device, fit):
    "What a fit of rows of weights 0, 1 and 3 records and answers"
    arch,kwargs,f = weighed_fits[fit]
    df = frame().assign(weight=lambda o: np.array([0,1,3])[np.arange(len(o))%3])
    learn = learner(RecDataLoaders.from_df(df, seed=1, bs=64, device=device, weight_name='weight'), arch, n_factors=4, **kwargs)
    with learn.no_logging(): f(learn)
    res = dict(history=learn.history, grid=learn.predict_grid().cpu(), evaluated=learn.evaluate(), noise=learn.noise)
    if not learn.model.is_preference: res.update(valid=list(learn.validate()), train=list(learn.validate(ds_idx=0)))
    return res

@kinds('fit', weighed_fits, ['dot','net','bayes','ease','blend'], slow=['bayes'])
def test_weights_as_on_the_cpu(device, fit): compared(weighed, device, fit)

reasons_of = {**{k: fits[k] for k in ('dot','net','als','ials','bayes')}, **{k: weighed_fits[k] for k in ('ease','blend')}}

def explained(device, fit):
    "What speaks for a film that was rated, and for one that was not, to somebody of training and to somebody new"
    d,film = frame(),frame().title[0]
    items = d.drop_duplicates('title')[['title']].assign(genre=lambda o: np.where(np.arange(len(o))%3==0, 'a', 'b'), year=lambda o: np.arange(len(o))%7)
    arch,kwargs,f = reasons_of[fit]
    learn = learner(RecDataLoaders.from_df(d[d.title!=film], seed=1, bs=64, device=device, items=items), arch, n_factors=4, **kwargs)
    with learn.no_logging(): f(learn)
    user,rated = d.user[1],d.title[1]
    new = learn.fold_in(d[(d.user==user) & (d.title!=film)].drop(columns='user'))
    res = []
    for rec,who in ((learn,user),(new,'new user')):
        for ranking in (False,True)[:1+(fit=='blend')]:
            res += [rec.explain_features(who, film, ranking=ranking).sort_values('feature'),rec.explain(who, rated, ranking=ranking).sort_values('title')]
        res += [rec.deciding(who),rec.what_if(who, rated, d[d.user==user].title.iloc[-1])]
    return [o.reset_index(drop=True) if isinstance(o, pd.DataFrame) else o for o in res]

@kinds('fit', reasons_of, reasons_of, slow=['net','blend'])
def test_reasons_as_on_the_cpu(device, fit): compared(explained, device, fit)

first_calls = dict(show_batch=lambda l: l.dls.show_batch(show=False), valid=lambda l: l.dls.valid.one_batch(), lr_find=lambda l: l.lr_find(show_plot=False), validate=lambda l: l.validate())

loads = pytest.mark.skipif(torch.__version__.startswith('2.9.'), reason='with PyTorch 2.9 what was saved on the pretended device loses its mark')

def in_any_order(device, name):
    "What is asked after parts of the ratings were iterated"
    learn = learner(loaders(device), n_factors=4)
    with learn.no_logging(),learn.no_bar(): first_calls[name](learn)
    users = learn.ds.classes['user'].labels[:3]
    return [learn.recommend(users, n=3), learn.evaluate(), learn.fold_in(frame()[:5].drop(columns='user')).predict_grid().cpu(), learn.noise]

@both
@pytest.mark.parametrize('name', [pytest.param(o, marks=loads) if o=='lr_find' else o for o in first_calls])
def test_whichever_part_was_iterated_first(device, name): compared(in_any_order, device, name)

def record(learn): return [float(o) for o in learn.recorder.losses],list(map(float, learn.recorder.lrs)),[list(o) for o in learn.recorder.values]

def looked_for_a_rate(device, sparse):
    learn = learner(loaders(device, path=on_disk()), n_factors=4, sparse=sparse)
    with learn.no_logging(),learn.no_bar():
        found = learn.lr_find()
        learn.recorder.plot_lr_find()
    plt.close('all')
    losses,rates,_ = record(learn)
    return float(found.valley),[o for o,lr in zip(losses, rates) if lr<=1]  # beyond, steps overshoot, and rounding grows with each

@functools.cache
def on_disk():
    from tempfile import mkdtemp
    return mkdtemp()

@mostly_cuda
@pytest.mark.parametrize('sparse', [False,True])
@loads
def test_lr_find_draws_its_picture(device, sparse): compared(looked_for_a_rate, device, sparse)

def stopped(device, error):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.train_iter==10: raise error
    learn = learner(loaders(device), n_factors=4)
    with learn.no_logging():
        try: learn.fit(2, cbs=Stop())
        except KeyboardInterrupt: pass
        assert not any(map(is_there, learn.recorder.losses)) if device!='cpu' else True
        if error is not CancelEpochException: learn.recorder.plot_loss(skip_start=0, with_valid=False)
        plt.close('all')
        res = record(learn)
        learn.fit(1)
    return res,record(learn)

@both
@pytest.mark.parametrize('error', [KeyboardInterrupt,CancelFitException,CancelEpochException,CancelTrainException])
def test_stopped_fits_can_be_drawn_and_go_on(device, error): compared(stopped, device, error)

def with_callbacks(device, make, kwargs):
    learn = learner(loaders(device, path=on_disk()), n_factors=4, **kwargs)
    with learn.no_logging():
        learn.fit(2, cbs=make())
        learn.fit(1)
    return record(learn)

callbacks = [lambda: GradientClip(.1), lambda: GradientAccumulation(128), lambda: SaveModelCallback(), lambda: EarlyStoppingCallback(), lambda: ShortEpochCallback(.5),
             lambda: CSVLogger(fname=Path(on_disk())/'log.csv')]

@mostly_cuda
@pytest.mark.parametrize('make,kwargs', [*((o,{}) for o in callbacks), (lambda: [], dict(opt_func=Adam)), (lambda: [], dict(loss_func=torch.nn.L1Loss())),
                                         (lambda: [], dict(loss_func=torch.nn.L1Loss(), sparse=True)), (lambda: [], dict(y_range=False))], ids=range(10))
def test_callbacks_optimizers_losses(device, make, kwargs):
    want = with_callbacks('cpu', make, kwargs)
    with pretending(device): same(with_callbacks(device, make, kwargs), want)

@both
@pytest.mark.parametrize('half', ['to_fp16','to_bf16'])
def test_half_precision(device, half):
    with pretending(device):
        learn = getattr(learner(loaders(device), n_factors=4), half)()
        with learn.no_logging():
            before = learn.validate()[-1]
            learn.fit_one_cycle(3)
        assert learn.recorder.values[-1][-1]<before and len(learn.recommend(n=2))

@both
def test_training_metrics_and_a_loss_that_is_no_number(device):
    class Spoil(Callback):
        order = -50
        def before_batch(self):
            if self.training and self.train_iter==3: self.learn.yb = (self.y*np.nan,)
    with pretending(device):
        learn = learner(loaders(device), n_factors=4, seed=2)
        learn.recorder.train_metrics = True
        with learn.no_logging(): learn.fit(1)
        learn.recorder.train_metrics = False
        before = learn.predict_grid()
        with pytest.raises(FloatingPointError, match='step 3 of epoch 0, for user and title'), learn.no_logging(): learn.fit(1, cbs=Spoil())
        assert torch.equal(learn.predict_grid(), before)

def resumed(device):
    class PowerCut(Callback):
        def before_epoch(self):
            if self.epoch==2: raise KeyboardInterrupt
    kwargs = dict(arch=DeepMF, n_factors=4, layers=[8], ps=.3, seed=5)
    whole,first,rest = (learner(loaders(device, path=on_disk()), **kwargs) for _ in range(3))
    with whole.no_logging(),first.no_logging(),rest.no_logging():
        whole.fit_one_cycle(3)
        with pytest.raises(KeyboardInterrupt): first.fit_one_cycle(3, cbs=[SaveModelCallback(every_epoch=True, with_opt=True), PowerCut()])
        torch.rand(5, device=device)  # what others draw meanwhile
        rest.load('model_1', with_opt=True).fit_one_cycle(3, start_epoch=2)
    assert torch.equal(whole.predict_grid(), rest.predict_grid())
    return whole.predict_grid().cpu()

@both
@pytest.mark.filterwarnings('ignore::DeprecationWarning')
def test_resuming_equals_not_stopping(device): compared(resumed, device)

tables = 'item_bias user_bias item_pca user_pca pca_ends embeddings top_losses error_by_count calibration'.split()
pictures = 'plot_bias plot_pca plot_top_losses plot_error_by_count plot_calibration show_results'.split()

def interpreted(device, fit):
    learn = fitted(device, fit)
    it = RecInterpretation.from_learner(learn)
    for name in pictures: getattr(it, name)(*[[0,1]]*(name=='show_results'))
    plt.close('all')
    of_training = RecInterpretation.from_learner(learn, ds_idx=0).top_losses(3)
    return {name: getattr(it, name)() for name in tables},of_training,learn.dls.show_batch(show=False).columns.tolist(),learn.show_results()

@pytest.mark.usefixtures('as_drawn')
@kinds('fit', ['dot','net','bayes'], ['net'])
def test_interpretation(device, fit): compared(interpreted, device, fit)

def of_stock(device, use_nn):
    dls = CollabDataLoaders.from_df(frame()[['user','title','rating']], seed=1, bs=64, device=device)
    stock = collab_learner(dls, n_factors=4, use_nn=use_nn, y_range=(.5,5.5), **(dict(layers=[8]) if use_nn else {}))
    learn = RecLearner.from_learner(stock)
    with learn.no_logging():
        learn.validate()
        shapes = learn.recommend(n=3).shape,learn.predict_df(frame()[:9]).shape
        learn.fit(1)
    assert learn.dls.device.type==device and next(learn.model.parameters()).device.type==device
    return shapes

@both
@pytest.mark.parametrize('use_nn', [False,True])
def test_learners_of_stock_fastai(device, use_nn): compared(of_stock, device, use_nn)

@both
def test_the_default_device(device):
    with pretending(device):
        dls = RecDataLoaders.from_df(frame(), seed=1, bs=64)
        assert dls.device==default_device() and dls.device.type==device
        learn = learner(dls, n_factors=3)
        with learn.no_logging(): learn.fit(1)
        assert all(is_there(o) for o in (dls.train_ds.x,learn.model.mean,learn.model.u_weight.weight))
        assert not any(map(is_there, dls.cpu().one_batch())) and all(map(is_there, dls.to(device).one_batch()))

# ------------------------------------------------------------------ seeds
@kinds('fit', ['net','sides'], ['net'])
def test_seeds_reach_the_device(device, fit):
    "The same numbers whatever else is drawn there, as other processes may have done, and nobody else's numbers are touched"
    grids = []
    with pretending(device) as gpu:
        for state in (1,2):
            gpu.seed(state)
            before = gpu.random.clone()
            learn = fitted(device, fit)
            assert torch.equal(gpu.random, before)
            grids.append(learn.predict_grid())
            new = [learn.fold_in(frame()[:9].drop(columns='user')).predict_grid() for _ in range(2)]
            assert torch.equal(*new)
        assert torch.equal(*grids)
        other = learner(learn.dls, fits[fit][0], n_factors=4, seed=7, **fits[fit][1])
        with other.no_logging(): fits[fit][2](other)
        assert not torch.equal(other.predict_grid(), grids[0])

@pytest.mark.usefixtures('as_drawn')
def test_without_a_seed_chance_is_torchs():
    grids = []
    for seed in (3,3,4):
        dls = RecDataLoaders.from_df(frame(), seed=1, bs=64, device='cpu')
        dls.seed = None
        torch.manual_seed(seed)
        learn = learner(dls, n_factors=3)
        with learn.no_logging(): learn.fit_bayes(3, 4, burn=1)
        grids.append(learn.predict_grid())
    assert torch.equal(grids[0], grids[1]) and not torch.equal(grids[0], grids[2])

# ------------------------------------------------------------------ MPS
def test_mps_is_told_once_that_solvers_use_the_cpu():
    devices._tell_of_mps.cache_clear()
    learns = []
    with warnings.catch_warnings(record=True) as told,Pretended('mps'):
        warnings.simplefilter('always')
        for _ in range(2):
            learn = learner(loaders('mps'), n_factors=3)
            with learn.no_logging():
                learn.fit(1)
                assert not [o for o in told if 'CPU' in str(o.message)] or learns
                learn.fit_bias()
                learn.fit_als(3, 2)
                assert is_there(learn.model.u_weight.weight) and is_there(learn.dls.train_ds.x)
                learn.fit(1)
            learns.append(learn)
    mine = [str(o.message) for o in told if 'CPU' in str(o.message)]
    assert len(mine)==1 and 'compute on the CPU' in mine[0] and "device='cpu'" in mine[0]

def test_a_stopped_solver_on_mps_keeps_its_last_sweep():
    class Stop(Callback):
        def before_epoch(self):
            if self.epoch==3: raise KeyboardInterrupt
    grids = {}
    for device in ('cpu','mps'):
        with pretending('mps'):
            learn = learner(loaders(device), n_factors=3)
            with learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_als(3, 9, tol=0, cbs=Stop())
            assert is_there(learn.model.mean)==(device=='mps')
            grids[device] = learn.predict_grid().cpu()
    assert torch.allclose(*grids.values(), atol=1e-5)

# ------------------------------------------------------------------ how often the host waits
class SkipValidation(Callback):
    def before_validate(self): raise CancelValidException()

def waits(gpu, f, *sizes):
    "How many waits each unit of the second of two `sizes` of `f` adds to the first"
    counts = []
    for n in sizes:
        with gpu.counting() as c: f(n)
        counts.append(c)
    return {k: (v-counts[0][k])/(sizes[1]-sizes[0]) for k,v in counts[1].items() if v!=counts[0][k]}

@pytest.mark.parametrize('device,kwargs', [('cuda',{}), ('mps',{}), ('cuda',dict(sparse=True)), ('cuda',dict(arch=DeepMF, layers=[8])), ('mps',dict(opt_func=Adam))], ids=lambda o: o if isinstance(o, str) else ' '.join(o) or 'plain')
def test_no_wait_in_a_batch_and_two_in_an_epoch(device, kwargs):
    with pretending(device) as gpu:  # what `shrink` asks once after all epochs is left out
        fits = {bs: learner(loaders(device, bs=bs, val_bs=bs), n_factors=4, shrink=False, **kwargs) for bs in (64,16)}
        epochs = {}
        for bs,learn in fits.items():
            with learn.no_logging():
                learn.fit(1)  # which brings the ratings there
                epochs[bs] = waits(gpu, learn.fit, 1, 3)
    assert sum(epochs[64].values())<=2 and epochs[64]==epochs[16], epochs

solving = dict(bias=lambda l,n,**kw: l.fit_bias(n, tol=0, **kw), given=lambda l,n,**kw: l.fit_bias(n, reg=3, tol=0, **kw), als=lambda l,n,**kw: l.fit_als(3, n, tol=0, **kw),
               ials=lambda l,n,**kw: l.fit_ials(3, n, **kw), bayes=lambda l,n,**kw: l.fit_bayes(3, n, burn=n-1, n_draws=1, **kw),
               sides=lambda l,n,**kw: l.fit_bayes(3, n, burn=n-1, n_draws=1, side=sides(), time=['1D','1h'], **kw))

@pytest.mark.usefixtures('as_drawn')
@pytest.mark.parametrize('fit', solving)
def test_two_waits_in_a_sweep_however_many_blocks(fit, monkeypatch):
    small = partial(cut_small, equations.cut)
    for o in (equations,solvers): monkeypatch.setattr(o, 'cut', small)
    with pretending('cuda') as gpu:
        def run(n):
            learn = learner(loaders('cuda', time_name='timestamp'), n_factors=3)
            with learn.no_logging(): solving[fit](learn, n, cbs=SkipValidation())
        found = waits(gpu, run, 4, 6)
    assert sum(found.values())<=2, found

@pytest.mark.parametrize('size,n', [((30,25),3),((300,7000),2)], ids=['exact','screened'])
def test_a_wait_in_a_block_of_recommend(size, n, monkeypatch):
    "Beside the two for its result, scores and places"
    byte_screens.works.cache_clear()
    with pretending('cuda') as gpu:
        rec = catalogue(*(torch.randn(o, 6, generator=torch.Generator().manual_seed(o)) for o in size))
        rec.model.to('cuda')
        rec.seen = Seen(torch.tensor([[1,1],[2,3]]), size[0]+1, size[1]+1)
        rec.seen.counts.clamp_(min=1)
        sides = [f(torch.arange(1, o+1, device='cuda')) for f,o in zip((rec.model.user_side,rec.model.item_side), size)]
        assert (byte_screens.make_screen(rec.model, *sides, n, size[0]) is None)==(size[0]<256)
        blocks,counts = [],[]
        monkeypatch.setattr(lists, 'by_blocks', lambda f,n,size: blocks.append(-(-n//size)) or by_blocks(f, n, size))
        for max_bytes in (2**28,size[0]*size[1]*8):
            with gpu.counting() as c: rec.recommend(n=n, max_bytes=max_bytes)
            counts.append(sum(c.values()))
    assert blocks[1]>blocks[0] and counts[1]-counts[0]<=3*(blocks[1]-blocks[0]), c

by_blocks = lists.by_blocks

def cut_small(cut, lengths, budget): return cut(lengths, 150)

def test_solvers_cut_few_blocks_for_a_gpu():
    lengths = np.sort(np.random.default_rng(0).integers(1, 2000, 50_000))
    pieces = [list(equations.cut(lengths, b)) for b in (2**15,2**22)]
    assert len(pieces[1])<len(pieces[0])/10
    for p in pieces:
        assert p[0].start==0 and p[-1].stop==len(lengths) and all(a.stop==b.start for a,b in zip(p, p[1:]))
    assert all((o.stop-o.start)*lengths[o.stop-1]<=2**22 for o in pieces[1])

# ------------------------------------------------------------------ devices that are not there, or full
@pytest.mark.parametrize('device', ['cuda:99','gpu','meta','mps','xpu'])
def test_a_device_that_is_not_there(device, tmp_path):
    dls = RecDataLoaders.from_df(frame(), seed=1, bs=64, device='cpu')
    saved = learner(dls, n_factors=3).save_recommender(tmp_path/'saved')
    learn = learner(dls, n_factors=3)
    asks = [lambda: loaders(device), lambda: dls.to(device), lambda: load_recommender(saved, device), lambda: learn.to(device), lambda: learn.to(device=device)]
    for f in asks+[learn.cuda]*(device=='mps' and not torch.cuda.is_available()):
        with pytest.raises(ValueError, match="device='(%s|cuda)' is (none to compute on|not there).*pass" % device) as e: f()
        assert len(str(e.value).splitlines())==1
    assert dls.device==torch.device('cpu')==learn.model.mean.device

@pytest.mark.parametrize('device', ['',0,[],False], ids=['nothing','index','list','flag'])
def test_what_names_no_device(device, tmp_path):
    "Only `None` leaves it to us. A whole number is that of a GPU"
    if device==0 and torch.accelerator.is_available(): pytest.skip('there is a device 0')
    dls = loaders('cpu')
    learn = learner(dls, n_factors=3)
    saved = learn.save_recommender(tmp_path/'saved')
    for f in (lambda: loaders(device), lambda: dls.to(device), lambda: load_recommender(saved, device), lambda: learn.to(device)):
        with pytest.raises(ValueError, match='is none to compute on' if device!=0 else 'is none to compute on|numbered from 0, are 0'): f()

@mostly_cuda
@pytest.mark.parametrize('kwargs', [{},dict(sparse=True),dict(opt_func=Adam),dict(opt_func=partial(OptimWrapper, opt=torch.optim.Adam)),dict(use_nn=True)], ids=['dense','sparse','stock',"PyTorch's",'net'])
def test_a_fit_goes_on_on_another_device(device, kwargs):
    "With what the optimizer knows of the first one"
    def twice(first, then):
        learn = learner(loaders(first), n_factors=3, **kwargs)
        for o in (first,then):
            learn.dls.to(o)
            with learn.no_logging(): learn.fit(1)
        assert is_there(next(learn.model.parameters()))==(then!='cpu')
        return [p.detach().cpu() for p in learn.model.parameters()]
    want = twice('cpu', 'cpu')
    for devices in (('cpu',device),(device,'cpu')):
        with pretending(device): got = twice(*devices)
        assert all(torch.allclose(a, b, atol=1e-4) for a,b in zip(got, want))

@pytest.mark.skipif(torch.cuda.is_available(), reason='there is CUDA')
@pytest.mark.parametrize('built,why', [(None, f'PyTorch {torch.__version__} was built without CUDA'), ('13.0', 'numbered from 0, are 0')], ids=['without','with'])
def test_why_there_is_no_cuda(monkeypatch, built, why):
    monkeypatch.setattr(torch.version, 'cuda', built)
    with pytest.raises(ValueError, match=f"device='cuda' is not there, for .*{re.escape(why)}: pass device='cpu'"): loaders('cuda')

def test_models_move_as_in_pytorch():
    learn = learner(loaders('cpu'), n_factors=3)
    assert learn.to('cpu') is learn.model and learn.to(torch.float64).u_weight.weight.dtype==torch.float64
    assert learn.to('cpu', torch.float32).u_weight.weight.dtype==torch.float32

@both
def test_another_device_of_that_kind_is_not_there(device):
    with pretending(device),pytest.raises(ValueError, match=f"device='{device}:7' is not there"): loaders(f'{device}:7')

@both
def test_a_full_device_is_refused_early(device, tmp_path):
    saved = learner(loaders('cpu'), n_factors=200).save_recommender(tmp_path/'saved')
    with pretending(device, capacity=4000),pytest.raises(ValueError, match=f"{device}:0 has no room for the ratings.*device='cpu'"): loaders(device)
    with pretending(device, capacity=40_000):
        with pytest.raises(ValueError, match=f'{device}:0 has no room for the model'): learner(loaders(device), n_factors=200)
        with pytest.raises(ValueError, match=f'{device}:0 has no room for the model'): load_recommender(saved, device)
        learner(loaders(device), n_factors=2)

@both
def test_lists_in_what_memory_there_is(device):
    "Blocks are halved where a device is full, on MPS too, which has no error of its own for that"
    with pretending(device) as gpu:
        learn = learner(loaders(device), n_factors=3)
        with learn.no_logging(): learn.fit(1)
        want = learn.recommend(n=3)
        gpu.capacity = gpu.live+12_000
        pd.testing.assert_frame_equal(learn.recommend(n=3), want)
        gpu.capacity = gpu.live
        with pytest.raises(RuntimeError, match='out of memory'): learn.recommend(n=3)

def test_without_a_fused_adam(monkeypatch):
    "The same numbers by PyTorch's plain steps"
    res = []
    for there in (True,False):
        if not there: monkeypatch.setattr(optimizers, 'adam', partial(no_fused, optimizers.adam))
        optimizers._has_fused_adam.cache_clear()
        learn = learner(loaders('cpu'), n_factors=4)
        with learn.no_logging(): learn.fit_one_cycle(2)
        assert optimizers._has_fused_adam('cpu')==there
        res.append(learn.predict_grid())
    optimizers._has_fused_adam.cache_clear()
    assert torch.allclose(*res, atol=1e-5)

def no_fused(adam, *args, fused, **kwargs):
    if fused: raise NotImplementedError("Could not run 'aten::_fused_adam_' with arguments from the 'CPU' backend")
    return adam(*args, fused=fused, **kwargs)

# ------------------------------------------------------------------ the benchmark that needs a GPU
@pytest.mark.long
def test_the_benchmark_for_gpus_is_ready(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parent.parent/'benchmarks'))
    import on_gpu,report
    written = {}
    monkeypatch.setattr(report.Report, 'write', lambda self: written.update({self.name: self.rows[2:]}))
    tiny = dict(size='500 30 20', bs='256', gibbs_size='1500 30 20', gibbs_factors='3', list_n='5', list_factors='8', list_bytes='65536', grid_users='20')
    settings = ConfigParser()
    settings.read_dict({'cuda': {**report.settings['cuda'], **tiny}})
    monkeypatch.setattr(on_gpu, 'settings', settings)
    monkeypatch.setattr(on_gpu, 'busy', lambda learn: 1.)  # the profiler needs the real one
    with pretending('cuda'): on_gpu.main()
    assert {k: len(v) for k,v in written.items()}=={'cuda': 2, 'cuda_gibbs': 1, 'cuda_grids': 3}
