"What callbacks and transforms of batches may change, what a fit then does, and what is said of it"
import contextlib,threading,warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.all import (Callback,CancelEpochException,CancelFitException,CancelTrainException,CSVLogger,CutMix,EarlyStoppingCallback,MixUp,ProgressCallback,ReduceLROnPlateau,
                                 SaveModelCallback)
from fastai.losses import MSELossFlat
from fastai.metrics import AccumMetric,mae,rmse
from fastcore.basics import noop
from torch.optim.swa_utils import AveragedModel
from conftest import seldom
from fastrec.fit.record import TellEpochs
from fastrec.all import BPRLoss,ItemTransform,RecDataLoaders,SampledSoftmaxLoss,learner,list_metrics,sample_ratings,set_seed

pytestmark = pytest.mark.filterwarnings('ignore:[^A-Z]*the tastes that were found')  # an epoch or two find few

@pytest.fixture
def dls(tmp_path): return RecDataLoaders.from_df(sample_ratings(), seed=42, path=tmp_path)

def quiet(dls, **kwargs):
    learn = learner(dls, **kwargs)
    learn.remove_cb(ProgressCallback)
    learn.logger = noop
    return learn

def weights(learn): return torch.cat([p.detach().flatten() for p in learn.model.parameters()])
def shrunk(learn): return learn.settings().loc['shrink'].tolist()
def callback(**events): return type('Changing', (Callback,), events)()

# ------------------------------------------------------------------ targets
def standardize(self): self.learn.yb = ((self.y-3.5)/1.1,)
def in_place(self): self.learn.yb[0].sub_(3.5).div_(1.1)
def flip(self): self.learn.yb = (6-self.y,)
def from_second_epoch(self):
    if self.epoch or not self.training: self.learn.yb = (self.y*0+2,)

@pytest.mark.parametrize('events,kwargs', [(dict(before_batch=standardize), dict(y_range=False)), (dict(before_batch=in_place), dict(y_range=False)),
                                           (dict(before_batch=flip), {}), (dict(after_pred=flip), {}), (dict(before_batch=standardize), dict(y_range=False, use_nn=True)),
                                           (dict(before_batch=from_second_epoch), {})],
                         ids=['standardized','in place','flipped','after the prediction','network','second epoch'])
@pytest.mark.parametrize('lean', [True,*seldom(False)], ids=['lean','stock'])
def test_a_model_of_other_targets_is_not_drawn_to_biases_of_ratings(dls, events, kwargs, lean):
    learn = quiet(dls, cbs=callback(**events), **kwargs)
    learn.lean = lean and learn.lean
    learn.fit_one_cycle(4)
    found = learn.history.rmse
    assert found.iloc[-1]<=found.iloc[-2]+.01 and shrunk(learn)[0]=='as trained' and 'other targets than the ratings' in shrunk(learn)[1]
    assert dls.train.n==len(dls.train_ds)
    learn.remove_cb(next(o for o in learn.cbs if type(o).__name__=='Changing'))
    learn.fit(1)
    assert 'other targets' not in shrunk(learn)[1]  # that was the fit before

class Halved(ItemTransform):
    def encodes(self, b): return b[0],(b[1]-3)/2

@pytest.mark.parametrize('features', [False,True])
def test_targets_of_a_transform_are_left_as_they_are(features, tmp_path):
    ratings,truth = sample_ratings(n_users=300, n_items=150, n_ratings=4000, with_truth=True)
    dls = RecDataLoaders.from_df(ratings, seed=1, **(truth.sides() if features else {}))
    for o in dls.loaders: o.after_batch.add(Halved())
    learn = quiet(dls, y_range=False)
    learn.fit_one_cycle(5)
    found = learn.history.rmse
    assert found.iloc[-1]<1.01*found.iloc[-2] and shrunk(learn)[0]=='as trained'

def test_a_new_model_counts_from_the_mean_of_what_it_sees(dls):
    learn = quiet(dls, y_range=False, cbs=callback(before_batch=lambda self: setattr(self.learn, 'yb', (self.y+100,))))
    learn.fit(1)
    assert abs(float(learn.model.mean)-100-dls.train_ds.mean())<1 and learn.history.rmse.iloc[0]<1.5
    before = float(learn.model.mean)
    learn.fit(1)
    assert float(learn.model.mean)==before

@pytest.mark.parametrize('same', [lambda y: y.clone(), lambda y: y[:,None], lambda y: y.half()], ids=['copy','column','half'])
def test_copies_of_ratings_are_ratings(dls, same):
    learn = quiet(dls, cbs=callback(before_batch=lambda self: setattr(self.learn, 'yb', (same(self.y),))), loss_func=MSELossFlat())
    learn.fit(2)
    assert shrunk(learn)[1]=='least error, beyond chance'

def test_a_fit_without_other_targets_is_what_it_was(dls):
    "Also if batches are looked at, and by fastai's own loop"
    learn,other = quiet(dls),quiet(dls, cbs=callback(before_batch=lambda self: None))
    for o in (learn,other): o.fit_one_cycle(2)
    assert weights(learn).equal(weights(other)) and learn.shrink_to_biases.chosen is not None

# ------------------------------------------------------------------ epochs that are compared
def test_epochs_that_are_compared_are_alike(dls):
    "The best of them is kept, and drawn to biases afterwards"
    def fitted(n, **kwargs):
        learn = quiet(dls, **kwargs)
        learn.fit(n, 3e-2, cbs=SaveModelCallback(monitor='rmse'))
        return learn
    learn,plain,one = fitted(6),fitted(6, shrink=False),quiet(dls)
    one.fit(1, 3e-2)
    recorded = learn.history.rmse
    assert recorded.is_monotonic_increasing and float(learn.validate()[1])<recorded.min()
    assert (recorded.diff().dropna()>0).all() and learn.shrink_to_biases.chosen is not None and shrunk(learn)[1]=='least error, beyond chance'
    assert abs(float(learn.validate()[1])-one.history.rmse.iloc[-1])<1e-4  # of the first epoch, drawn
    assert plain.history.rmse.idxmin()==0

@pytest.mark.parametrize('tracker', [SaveModelCallback,EarlyStoppingCallback,ReduceLROnPlateau])
def test_whoever_compares_epochs_gets_all_as_trained(dls, tracker):
    learn = quiet(dls)
    kwargs = dict(patience=9) if tracker is not SaveModelCallback else {}
    learn.fit(3, 3e-2, cbs=tracker('rmse', **kwargs))
    assert learn.history.rmse.is_monotonic_increasing and float(learn.validate()[1])<learn.history.rmse.iloc[-1]
    assert learn.shrink_to_biases.chosen is not None

@pytest.mark.parametrize('kwargs', [dict(every_epoch=True),dict(at_end=True)], ids=' '.join)
def test_what_saves_without_comparing_saves_the_last_epoch_drawn(dls, kwargs):
    learn,want = quiet(dls),quiet(dls)
    want.fit(3)
    learn.fit(3, cbs=SaveModelCallback('rmse', **kwargs))
    assert weights(learn).equal(weights(want)) and learn.history.equals(want.history)
    learn.load('model' if 'at_end' in kwargs else 'model_2', weights_only=False)
    assert weights(learn).equal(weights(want))

@pytest.mark.parametrize('shrink', [None,False])
def test_rows_with_few_ratings_are_solved_for_after_epochs_are_compared(shrink, tmp_path, monkeypatch):
    import fastrec.fit.few_ratings as few_ratings
    solved,solve = [],few_ratings.solve_few
    monkeypatch.setattr(few_ratings, 'solve_few', lambda model, ds: solved.append(1) or solve(model, ds))
    ratings,truth = sample_ratings(n_users=300, n_items=150, n_ratings=3000, with_truth=True)
    learn = quiet(RecDataLoaders.from_df(ratings, seed=1, path=tmp_path, **truth.sides()), shrink=shrink)
    learn.fit(3, cbs=SaveModelCallback('rmse'))
    assert len(solved)==1
    for es in learn.model.tables: assert all(torch.allclose(e.weight[0], e.weight[1:].mean(0), atol=1e-5) for e in es)
    learn.fit(2)
    assert len(solved)==2
    learn.fit_als(cbs=SaveModelCallback('rmse'))
    assert len(solved)==2

def test_a_cancelled_last_epoch_is_drawn_once(dls):
    def cancel(self):
        if self.epoch==1: raise CancelEpochException
    learn,want = quiet(dls),quiet(dls)
    cb = callback(after_train=cancel)
    cb.order = 70
    learn.fit(2, cbs=cb)
    want.fit(2)
    assert np.allclose(learn.shrink_to_biases.chosen, want.shrink_to_biases.chosen) and shrunk(learn)==shrunk(want)

# ------------------------------------------------------------------ several fits on the same loaders
def test_fits_in_threads_do_not_meet(dls):
    kwargs = [dict(seed=0),dict(seed=1),dict(seed=2, shrink=False),dict(loss_func=BPRLoss(), seed=3)]
    apart,together = ([quiet(dls, **o) for o in kwargs] for _ in range(2))
    for o in apart: o.fit(2)
    threads = [threading.Thread(target=o.fit, args=(2,)) for o in together]
    for o in threads: o.start()
    for o in threads: o.join()
    for a,b in zip(apart, together): assert weights(a).equal(weights(b))

@pytest.mark.parametrize('at', ['before_fit','before_epoch','before_train','after_batch','after_train','after_epoch'])
def test_a_fit_within_a_fit_leaves_it_alone(dls, at):
    def baseline(self):
        if self.epoch==0 and (at!='after_batch' or self.training and self.iter==5): quiet(dls, n_factors=2, shrink=None if at!='after_epoch' else False).fit(1)
    learn,want = quiet(dls),quiet(dls)
    learn.fit(2, cbs=callback(**{at: baseline}))
    want.fit(2)
    assert weights(learn).equal(weights(want)) and shrunk(learn)==shrunk(want)

@pytest.mark.parametrize('kwargs', [{},dict(use_nn=True, ps=.1),dict(loss_func=BPRLoss())], ids=['dot','dropout','choices'])
def test_set_seed_before_a_fit_fixes_it(kwargs):
    dls,found = RecDataLoaders.from_df(sample_ratings()),[]
    for seed in (3,3,4):
        set_seed(7)
        learn = quiet(dls, **kwargs)
        set_seed(seed)
        learn.fit(1)
        found.append(weights(learn))
    assert found[0].equal(found[1]) and not found[0].equal(found[2])

def test_fits_without_a_seed_differ():
    dls = RecDataLoaders.from_df(sample_ratings())
    learn = quiet(dls, shrink=False)
    orders = []
    learn.fit(2, cbs=callback(before_batch=lambda self: orders.append(self.xb[0]) if self.training and self.iter==0 else None))
    assert not orders[0].equal(orders[1])

# ------------------------------------------------------------------ what is refused
@pytest.mark.parametrize('name', 'History Noise Evaluate Freeze Model Seed'.split())
def test_a_callback_hides_nothing_of_the_learner(dls, name):
    learn = quiet(dls)
    cb = type(name, (Callback,), {})
    before = list(learn.cbs)
    for o in (cb,cb()):
        with pytest.raises(ValueError, match=f'{name} would be learn.{name.lower()}'): learn.fit(1, cbs=o)
    with pytest.raises(ValueError, match='another name'): learner(dls, cbs=cb())
    assert list(learn.cbs)==before
    learn.fit(1)

def test_a_callback_may_come_twice(dls):
    class Watch(Callback): n = 0
    learn = quiet(dls, cbs=Watch())
    learn.fit(1, cbs=Watch)

@pytest.mark.parametrize('mix', [MixUp,MixUp(),CutMix()], ids=str)
def test_codes_are_not_mixed(dls, mix):
    with pytest.raises(TypeError, match='cannot be mixed'): quiet(dls).fit(1, cbs=mix)

def test_metrics_that_are_set_later_are_checked(dls):
    learn = quiet(dls, loss_func=SampledSoftmaxLoss())
    learn.metrics = [rmse,mae]
    for o in (lambda: learn.fit(1), learn.validate, lambda: learn.lr_find(show_plot=False)):
        with pytest.raises(ValueError, match='metrics=rmse compares predictions with ratings'): o()
    learn.metrics = list_metrics()
    learn.fit(1)
    assert learn.history.ndcg_at_10.notna().all()

# ------------------------------------------------------------------ measuring within a fit
def measuring(at, measure):
    "A callback that measures at the event `at`, now and then, and hears nothing of what that causes"
    def measured(self):
        self.n = getattr(self, 'n', 0)+1
        if getattr(self, 'is_busy', False) or 'batch' in at and self.n%7!=3: return
        self.is_busy = True
        measure(self.learn)
        self.is_busy = False
    return callback(**{at: measured})

ways = dict(cycle=(lambda l,cb: l.fit_one_cycle(3, cbs=cb), {}), network=(lambda l,cb: l.fit_one_cycle(3, cbs=cb), dict(use_nn=True, ps=.2)), adam=(lambda l,cb: l.fit(3, cbs=cb), dict(shrink=False, wd=0.)),
            softmax=(lambda l,cb: l.fit_one_cycle(3, cbs=cb), dict(loss_func=SampledSoftmaxLoss())), bpr=(lambda l,cb: l.fit_one_cycle(3, cbs=cb), dict(loss_func=BPRLoss())),
            als=(lambda l,cb: l.fit_als(4, 4, tol=None, cbs=cb), {}), until=(lambda l,cb: l.fit_als(4, 9, tol=.02, reg=1., cbs=cb), {}), bayes=(lambda l,cb: l.fit_bayes(4, 6, cbs=cb), {}),
            saved=(lambda l,cb: l.fit(3, 3e-2, cbs=[SaveModelCallback('rmse'),cb]), {}), search=(lambda l,cb: l.fit(3, cbs=[TellEpochs('rmse', lambda *o: l.told.append(o)),cb]), {}))

@pytest.mark.parametrize('at', ['after_train','after_epoch',*seldom('after_validate','after_batch','before_train','before_validate','before_epoch')])
@pytest.mark.parametrize('measure', [lambda l: l.validate(0), lambda l: l.get_preds()], ids=['validate','get_preds'])
@pytest.mark.parametrize('way', ways)
def test_a_fit_goes_on_as_if_nothing_had_been_measured(way, measure, at, tmp_path):
    fit,kwargs = ways[way]
    dls = RecDataLoaders.from_df(sample_ratings(150, 80, 5000), seed=1, path=tmp_path)
    learn,want = (quiet(dls, n_factors=8, **kwargs) for _ in range(2))
    for o in (learn,want): o.told = []
    for o,cb in ((learn,measuring(at, measure)),(want,callback())):
        with warnings.catch_warnings(action='ignore'): fit(o, cb)
    assert weights(learn).equal(weights(want)) and learn.history.equals(want.history) and learn.told==want.told
    assert learn.settings().equals(want.settings()) and [type(o).__name__ for o in learn.cbs]==[type(o).__name__ for o in want.cbs]
    assert getattr(learn.recorder, 'hps', None)==getattr(want.recorder, 'hps', None)

def test_a_resumed_fit_goes_on_as_if_nothing_had_been_measured(dls):
    learn,want = quiet(dls),quiet(dls)
    for o in (learn,want): o.fit(2)
    learn.fit(3, start_epoch=1, cbs=measuring('after_train', lambda l: l.validate(0)))
    want.fit(3, start_epoch=1)
    assert weights(learn).equal(weights(want)) and learn.history.equals(want.history)

def test_what_was_frozen_in_batch_norm_stays_frozen_after_measuring(dls):
    "As the modes of all modules are put back, not one for all"
    learn,modes = quiet(dls, use_nn=True),[]
    norms = [m for m in learn.model.modules() if isinstance(m, torch.nn.BatchNorm1d)]
    def freeze(self): norms[0].eval()
    freezing = callback(before_train=freeze, after_batch=lambda self: modes.append((norms[0].training,self.model.training)) if self.training else None)
    learn.fit(1, cbs=[freezing,measuring('after_step', lambda l: l.validate())])
    assert set(modes)=={(False,True)}

@pytest.mark.parametrize('measure', [lambda l,cb: l.validate(cbs=cb), lambda l,cb: l.get_preds(cbs=cb)], ids=['validate','get_preds'])
@pytest.mark.parametrize('at', ['before_validate','after_batch','after_fit'])
def test_measuring_within_measuring(dls, at, measure):
    "Where fastai would wait for itself: it goes on if the callback leaves out what it causes, and is refused if that has no end"
    learn = quiet(dls)
    learn.fit(1)
    want = [learn.validate(),*learn.get_preds()]
    inner = []
    def once(self):
        if self.learn.n_measuring<2: inner.append(self.learn.validate())
    def always(self): self.learn.validate()
    measure(learn, callback(**{at: once}))
    assert inner and all(o==want[0] for o in inner)
    for fit in (lambda cb: measure(learn, cb), lambda cb: learn.fit(1, cbs=cb)):
        with pytest.raises(RuntimeError, match='would never end'): fit(callback(**{at: always}))
        assert learn.n_measuring==0

def test_threads_that_measure_take_turns(dls):
    learn = quiet(dls)
    learn.fit(2)
    want,history,values = [learn.validate(k) for k in (0,1)],learn.history,list(learn.recorder.values)
    found = [[],[]]
    threads = [threading.Thread(target=lambda k=k: found[k%2].extend(learn.validate(k%2) for _ in range(8))) for k in range(4)]
    for o in threads: o.start()
    for o in threads: o.join(60)
    assert want[0][0]<want[1][0]-.05 and all(list(o)==pytest.approx(list(w), abs=1e-5) for got,w in zip(found, want) for o in got) and list(map(len, found))==[16,16]
    assert learn.history.equals(history) and learn.recorder.values==values and learn.n_measuring==0

# ------------------------------------------------------------------ weights that a callback has averaged
class Averages(Callback):
    "Averages of epochs, as PyTorch makes them, and of steps"
    order = 70
    def before_fit(self): self.of_epochs,self.of_steps = AveragedModel(self.model),[p.detach().clone() for p in self.model.parameters()]
    def after_step(self):
        for e,p in zip(self.of_steps, self.model.parameters()): e.lerp_(p.detach(), .1)
    def after_epoch(self):
        if self.epoch>=2: self.of_epochs.update_parameters(self.model)

@pytest.mark.parametrize('kwargs', [dict(use_nn=False),dict(y_range=False),dict(use_nn=True)], ids=' '.join)
def test_averaged_weights_belong_to_the_mean_that_is_there(kwargs, monkeypatch):
    "A model that is drawn to biases has the mean that it was trained with"
    def errors():
        learn,cb = quiet(RecDataLoaders.from_df(sample_ratings(400, 200, 12_000), seed=1), seed=1, **kwargs),Averages()
        mean = getattr(learn.model, 'mean', torch.zeros(())).clone()
        learn.fit(6, cbs=cb)
        assert (learn.shrink_to_biases.chosen!=1).any() and torch.allclose(getattr(learn.model, 'mean', mean), mean, rtol=1e-6)
        res = []
        for averages in (cb.of_steps,[*cb.of_epochs.module.parameters()]):
            for p,o in zip(learn.model.parameters(), averages): p.data.copy_(o)
            res.append(float(learn.validate()[1]))
        return res
    of_steps,of_epochs = errors()
    monkeypatch.setattr('fastrec.fit.mixing.shrink', noop)  # so that the last epoch stays as trained
    steps_as_trained,epochs_as_trained = errors()
    assert abs(of_steps-steps_as_trained)<1e-5 and of_epochs<1.005*epochs_as_trained

# ------------------------------------------------------------------ measuring
@pytest.mark.parametrize('measure', [lambda o: o.validate(), lambda o: o.get_preds(), lambda o: o.lr_find(show_plot=False)], ids=['validate','get_preds','lr_find'])
def test_measuring_overwrites_no_file_of_a_fit(dls, measure):
    learn = quiet(dls, cbs=[SaveModelCallback('valid_loss', fname='kept'),CSVLogger('log.csv')], shrink=False)
    learn.fit(2)
    files = [dls.path/'models'/'kept.pth',learn.path/'log.csv']
    before,cbs = [o.read_bytes() for o in files[:1]],[*learn.cbs]
    log = files[1].read_text(encoding='utf-8')
    with torch.no_grad(): learn.model.u_weight.weight.mul_(3.)
    measure(learn)
    assert [files[0].read_bytes()]==before and sorted(map(str, learn.cbs))==sorted(map(str, cbs))
    if measure(learn) is not None: assert files[1].read_text(encoding='utf-8')==log or len(log.splitlines())==3

def test_lists_of_training_rows_are_told_to_be_none(dls):
    learn = quiet(dls, loss_func=SampledSoftmaxLoss())
    learn.fit(1)
    with pytest.warns(UserWarning, match='rows of training they have nothing to find'): assert learn.validate(0)[1] is None
    learn.recorder.train_metrics = True
    with pytest.warns(UserWarning, match='rows of training they have nothing to find'): learn.fit(1)
    assert learn.history.valid_ndcg_at_10.notna().all()

def test_rows_that_are_not_there_are_not_measured(dls):
    every = quiet(RecDataLoaders.from_df(sample_ratings(), valid_pct=0, seed=1))
    every.fit(1)
    for o in (every.get_preds,every.show_results,every.validate):
        with pytest.raises(ValueError, match='every row is trained on'): o()
    learn = quiet(dls)
    learn.fit(1)
    pairs = dls.test_dl(dls.valid.items.iloc[:5,:2])
    assert learn.get_preds(dl=pairs)[0].shape==(5,)
    for o in (lambda: learn.get_preds(dl=pairs, with_loss=True), lambda: learn.validate(dl=pairs)):
        with pytest.raises(ValueError, match='these rows have none'): o()

@pytest.mark.parametrize('says', [True,False,None])
def test_a_callback_of_ones_own_may_compare_epochs(says):
    "As one that stops trials does: then all rows of the record are of the model as trained"
    rng = np.random.default_rng(1)
    u,i = np.repeat(np.arange(2000), 5),rng.integers(500, size=10_000)
    stars = 3.5+rng.normal(0, .4, 2000)[u]+rng.normal(0, .5, 500)[i]+rng.normal(0, .9, 10_000)  # without tastes
    df = pd.DataFrame(dict(user=u, item=i, rating=stars.round().clip(1, 5)))
    class Watch(Callback):
        order = 70
        def before_fit(self): self.seen = []
        def after_epoch(self): self.seen.append(self.recorder.values[-1][-1])
    if says is not None: Watch.compares_epochs = says
    def fit(**kwargs):
        learn = learner(RecDataLoaders.from_df(df.drop_duplicates(['user','item']), seed=0), **kwargs)
        watch = Watch()
        with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(4, cbs=watch)
        return learn,watch.seen
    learn,seen = fit()
    final = learn.validate()[1]
    assert learn.is_compared==bool(says) and final<=seen[-1]+1e-6
    assert (abs(final-seen[-1])<1e-6)==(not says)

# ------------------------------------------------------------------ what is watched, frozen and measured
@pytest.mark.parametrize('comp', [None,np.greater])
def test_an_error_with_its_sign_turned_should_grow(dls, comp):
    learn = quiet(dls, metrics=AccumMetric(lambda pred, y: -((pred-y)**2).mean(), name='neg_mse'), shrink=False)
    cb = SaveModelCallback(monitor='neg_mse', comp=comp)
    with contextlib.redirect_stdout(None): learn.fit(5, 2e-2, cbs=cb)
    found = learn.history.neg_mse
    assert cb.best==found.max()>found.iloc[-1] and learn.validate()[1]==pytest.approx(found.max(), abs=1e-6)

class FreezeItems(Callback):
    def before_epoch(self):
        if self.epoch==1: self.kept = self.model.i_weight.requires_grad_(False).weight.clone()

def biases_alone(m): return [[m.u_bias.weight,m.i_bias.weight]]

@pytest.mark.parametrize('features', [False,True])
@pytest.mark.parametrize('way', ['frozen','left out'])
def test_what_no_step_moves_is_not_drawn_to_biases(way, features):
    "Frozen in the middle of a fit, or in no group of the optimizer; nor do rows that follow from features then"
    ratings,truth = sample_ratings(n_users=300, n_items=150, n_ratings=6000, with_truth=True)
    dls = RecDataLoaders.from_df(ratings, seed=1, **(truth.sides() if features else {}))
    learn = quiet(dls, seed=1, **(dict(splitter=biases_alone) if way=='left out' else {}))
    cb = FreezeItems()
    cb.kept = learn.model.i_weight.weight.clone()
    learn.fit(3, cbs=cb if way=='frozen' else None)
    assert learn.model.i_weight.weight[1:].equal(cb.kept[1:])
    assert shrunk(learn)[0]=='as trained' and 'frozen' in shrunk(learn)[1]
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        other = quiet(dls, seed=1)
        other.fit(3)
    assert other.shrink_to_biases.chosen is not None

@pytest.mark.parametrize('event', ['after_epoch','after_batch'])
@pytest.mark.parametrize('train_metrics', [False,True])
def test_what_measures_within_a_fit_changes_no_record_and_no_weight(dls, event, train_metrics):
    def measure(self):
        if self.busy or not (event=='after_epoch' or self.training and self.iter==3): return
        self.busy = True
        at = {k: vars(self.learn)[k] for k in 'xb yb pred loss iter n_iter num dl training epoch n_epoch'.split() if k in vars(self.learn)}
        self.learn.get_preds()
        self.learn.validate()
        vars(self.learn).update(at)
        self.model.train(self.training)
        self.busy = False
    res = []
    for cbs in ([],[callback(busy=False, **{event: measure})]):
        learn = quiet(dls, seed=1, shrink=False)
        learn.recorder.train_metrics = train_metrics
        learn.fit(2, cbs=cbs)
        res.append(learn)
    assert res[0].history.equals(res[1].history) and torch.equal(*(torch.stack(o.recorder.losses) for o in res))
    assert weights(res[0]).equal(weights(res[1]))

def test_to_measure_leaves_the_unknown_alone_and_a_fit_that_is_cut_short_does_not(dls):
    class Stop(Callback):
        def after_batch(self):
            if self.training and self.iter==5: raise CancelFitException
    learn = quiet(dls)
    learn.fit(2, cbs=Stop())
    for es in learn.model.tables:
        for e in es: assert torch.allclose(e.weight[0], e.weight[1:].mean(0), atol=1e-6)
    learn.model.u_bias.weight.data[0] = 2.
    before = weights(learn)
    with pytest.warns(UserWarning, match='average stands in'): new = dls.test_dl(pd.DataFrame(dict(user=[-1], title=dls.classes['title'][1])), unknown='average')
    with torch.no_grad(): want = learn.model.eval()(new.one_batch()[0])
    assert learn.get_preds(dl=new)[0].equal(want) and learn.predict(-1, dls.classes['title'][1], unknown='average')==want.item()
    learn.validate()
    assert weights(learn).equal(before)

@pytest.mark.parametrize('halve', [lambda self: self.y.data.mul_(.5), lambda self: np.multiply(self.y.numpy(), .5, out=self.y.numpy())], ids=['data','numpy'])
def test_targets_that_are_written_to_behind_the_back_of_pytorch_are_noticed(dls, halve):
    "Which counts neither"
    learn = quiet(dls, y_range=False, cbs=callback(before_batch=halve, run_valid=False))
    learn.fit(3)
    assert 'other targets than the ratings' in shrunk(learn)[1]
    assert learn.get_preds()[0].mean().item()==pytest.approx(dls.train_ds.y.mean().item()/2, abs=.05)

# ------------------------------------------------------------------ what fastai loses
def ended_early(self):
    if self.training and self.iter>=10: raise CancelTrainException

@pytest.mark.parametrize('loss', [None,SampledSoftmaxLoss()], ids=['ratings','choices'])
def test_columns_are_right_if_a_callback_ends_the_training_part(dls, loss):
    "fastai leaves out the loss of training there, and names the other columns by their neighbours"
    learn = quiet(dls, loss_func=loss)
    measured = {}
    class Measured(Callback):
        order = 60
        def after_epoch(self): measured[self.epoch] = float(self.recorder._valid_mets[-1].value)
    learn.fit(2, cbs=[callback(after_batch=ended_early), Measured()])
    assert learn.history.iloc[:,-1].tolist()==[*measured.values()] and learn.history.train_loss.notna().all() and len(measured)==2

def test_every_schedule_goes_on_at_its_epoch(dls):
    def epochs(fit, *args, **kwargs):
        learn,found = quiet(dls),[]
        getattr(learn, fit)(*args, cbs=callback(after_step=lambda self: found.append(self.epoch)), start_epoch=2, **kwargs)
        return sorted({*found})
    for fit,*args in (('fit',4),('fit_one_cycle',4),('fit_flat_cos',4),('fit_sgdr',2,1)): assert epochs(fit, *args)==[*range(2, 4 if len(args)==1 else 3)], fit
