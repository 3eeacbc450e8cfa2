"""`search`: known optima, what is stopped, fails or is interrupted, and which rows are never looked at"""
import logging,random,sys,warnings
from functools import partial
import matplotlib.pyplot as plt,numpy as np,pandas as pd,pytest,torch
from fastai.collab import CollabDataLoaders
from fastai.data.core import DataLoaders
from fastai.learner import Callback
from conftest import seldom
from fastrec.all import LeaveLastSplitter,RecDataLoaders,RecLearner,SampledSoftmaxLoss,TimeSplitter,choose_fit,cross_validate,k_folds,learner,sample_ratings,search
from fastrec.evaluate.questions import trial_of
from fastrec.evaluate.spaces import all_combinations,check_space
import optuna

sample = sample_ratings()
ratings = sample[sample.user.isin(sample.user.unique()[:100])]
warned = pytest.warns(UserWarning)

@pytest.fixture(scope='module')
def dls(): return RecDataLoaders.from_df(ratings, seed=1)

def shifted(dls, shift, fails=()):
    "A learner that predicts the mean rating plus `shift` - .3: its RMSE is the root of a parabola"
    if shift in fails: raise RuntimeError(f'no model at {shift}')
    learn = learner(dls, n_factors=1, y_range=False, shrink=False)
    for w in learn.model.parameters(): w.data.zero_()
    learn.model.mean.fill_(dls.train_ds.y.mean()+shift-.3)
    return learn

def by_lr(dls, lr=7e-3, n_epoch=4):
    learn = learner(dls, n_factors=4)
    learn.fit_one_cycle(n_epoch, lr)
    return learn

def by_als(dls, reg=None):
    learn = learner(dls)
    learn.fit_als(reg=reg)
    return learn

def same(a, b): pd.testing.assert_frame_equal(a.table.drop(columns='seconds'), b.table.drop(columns='seconds'))

def test_the_lowest_point_of_a_parabola_is_found(dls):
    found = search(shifted, dict(shift=(-2.,2.)), dls, n_trials=25)
    t = found.table
    y = np.concatenate([dls.train_ds.y.numpy()])
    assert len(t)==25 and (t.state=='complete').all() and t['shift'].between(-2, 2).all()
    assert abs(found.best['shift']-.3)<.25 and found.best['shift']==t['shift'][t.rmse.idxmin()]
    assert t.rmse.min()==pytest.approx(y.std(), rel=.05)
    assert type(found.best['shift']) is float and t.note.eq('').all() and (t.seconds>0).all()

def test_a_measure_of_lists_is_to_be_large(dls):
    def make(dls, upside_down):
        learn = shifted(dls, 0)
        counts = dls.train_ds.counts(1).float()
        learn.model.i_bias.weight.data.copy_((-counts if upside_down else counts)[:,None]/1000)
        return learn
    found = search(make, dict(upside_down=[True,False]), dls, measure='ndcg_at_5')
    assert found.best==dict(upside_down=False)
    inner = found.task.loaders[0]
    assert found.table.ndcg_at_5[1]==make(inner, False).evaluate(k=5).ndcg_at_5['model']

@pytest.mark.parametrize('data', ['loaders','folds'])
def test_a_seed_gives_the_same_again(dls, data):
    data = dls if data=='loaders' else k_folds(ratings, 2)
    run = partial(search, partial(by_lr, n_epoch=1), dict(lr=(1e-3,.1,'log')), data, n_trials=2)
    first = run(seed=3)
    same(first, run(seed=3))
    assert first.best!=run(seed=4).best

def test_random_numbers_outside_are_left_alone():
    "Also where neither loaders nor learner have a seed"
    dls = RecDataLoaders.from_df(ratings)
    before = random.getstate(),np.random.get_state()[1].copy(),torch.get_rng_state()
    search(by_lr, dict(lr=(1e-3,.1,'log')), dls, n_trials=2)
    search(by_als, dict(reg=[1.]), k_folds(ratings, 2))
    assert random.getstate()==before[0] and (np.random.get_state()[1]==before[1]).all() and torch.equal(torch.get_rng_state(), before[2])

def test_only_training_rows_are_looked_at(dls):
    "All rows of the search are rows of training, each once; other ratings in validation change nothing"
    found = search(by_als, dict(reg=[.1,1.,10.]), dls)
    inner = found.task.loaders[0]
    rows = lambda *sets: sorted((u,i,r) for ds in sets for u,i,r in ds.decode(ds.x, ds.y).astype(str).itertuples(index=False))
    assert rows(inner.train_ds, inner.valid_ds)==rows(dls.train_ds)
    assert len(inner.valid_ds)==len(dls.train_ds)//5
    other = RecDataLoaders.from_df(ratings, seed=1)
    other.valid_ds.y.fill_(1.)
    same(found, search(by_als, dict(reg=[.1,1.,10.]), other))

def test_a_splitter_holds_out_what_it_takes():
    dls = RecDataLoaders.from_df(ratings, TimeSplitter(), time_name='timestamp', seed=0)
    inner = search(by_als, dict(reg=[1.]), dls, splitter=TimeSplitter()).task.loaders[0]
    assert inner.train_ds.x[:,2].max()<=inner.valid_ds.x[:,2].min()

@pytest.mark.long
def test_folds_give_the_mean_of_cross_validate():
    folds = k_folds(ratings, 3)
    found = search(by_als, dict(reg=[.3,3.]), folds, measure='mae')
    for reg,value in found.table[['reg','mae']].itertuples(index=False):
        def fit(dls):
            learn = learner(dls)
            with learn.no_bar(),learn.no_logging(): learn.fit_als(reg=reg)
            return learn
        assert cross_validate(fit, folds, seed=0).mae['mean']==pytest.approx(value, abs=1e-6)

good = [5e-3,6e-3,7e-3,8e-3,9e-3]

def test_what_falls_behind_is_stopped_after_an_epoch(dls):
    epochs = []
    class Count(Callback):
        def after_epoch(self): epochs.append(self.epoch)
    def make(dls, lr):
        learn = learner(dls, n_factors=4, cbs=Count())
        learn.fit_one_cycle(4, lr)
        return learn
    space = dict(lr=good+[1e-7])
    found = search(make, space, dls)
    last = found.table.iloc[-1]
    assert found.table.state.tolist()==['complete']*5+['pruned']
    assert np.isnan(last.rmse) and last.note.startswith('stopped after epoch 2, at ')
    assert epochs==[*range(4)]*5+[0,1]
    assert (search(make, space, dls, prune=False).table.state=='complete').all()

def test_sweeps_of_solvers_are_epochs_too(dls):
    def make(dls, reg):
        learn = learner(dls)
        learn.fit_als(reg=reg, n_sweep=6, tol=None)
        return learn
    found = search(make, dict(reg=[1.,1.2,1.4,1.6,1.8,1e-3]), dls)
    assert found.table.state.tolist()==['complete']*5+['pruned']

def test_what_falls_behind_is_stopped_between_folds():
    found = search(shifted, dict(shift=[.3,.31,.32,.33,.34,2.]), k_folds(ratings, 3))
    assert found.table.state.tolist()==['complete']*5+['pruned'] and found.table.note[5].startswith('stopped after fold 1, at ')

def test_a_measure_that_is_not_recorded_stops_nothing(dls):
    found = search(by_lr, dict(lr=good+[1e-7]), dls, measure='mae')
    assert (found.table.state=='complete').all()

def test_a_trial_that_fails_is_kept_and_named(dls):
    with pytest.warns(UserWarning, match='2 of 4 trials failed, the first of them trial 1: RuntimeError: no model at 1'):
        found = search(partial(shifted, fails=(1,2)), dict(shift=[0,1,2,3]), dls)
    assert found.table.state.tolist()==['complete','failed','failed','complete']
    assert found.table.note[2]=='RuntimeError: no model at 2' and found.best==dict(shift=0)

def test_nothing_but_failures_has_no_best(dls):
    with warned: found = search(partial(shifted, fails=(1,2)), dict(shift=[1,2]), dls)
    with pytest.raises(ValueError, match='no trial was completed: RuntimeError: no model at 1'): found.best
    with pytest.raises(ValueError, match='no trial was completed'): found.refit()
    found.plot()
    plt.close()

def test_a_model_without_the_measure_fails(dls):
    def make(dls, reg):
        learn = learner(dls)
        learn.fit_ease(reg=reg)
        return learn
    with pytest.warns(UserWarning, match='rmse is nan: a model of choices'): found = search(make, dict(reg=[10.]), dls)
    assert found.table.state.tolist()==['failed']

def test_lists_stop_what_falls_behind(dls):
    def make(dls, lr):
        learn = learner(dls, n_factors=4, loss_func=SampledSoftmaxLoss())
        learn.lr_find(show_plot=False, num_it=5)  # which records no epoch
        learn.fit_one_cycle(4, lr)
        return learn
    found = search(make, dict(lr=[.02,.021,.022,.023,.024,1e-8]), dls, measure='ndcg_at_10')
    assert found.table.state.tolist()==['complete']*5+['pruned'] and found.table.note[5].startswith('stopped after epoch 2')

@pytest.mark.parametrize('fit', ['fit_bias',*seldom('fit_bayes'),'fit_ials','fit_ease','fit_blend'])
def test_every_fit_can_be_searched(dls, fit):
    def make(dls, n):
        learn = learner(dls)
        getattr(learn, fit)(**(dict(n_sweep=n) if fit in ('fit_bayes','fit_ials') else {}))
        return learn
    found = search(make, dict(n=[2]), dls, measure='ndcg_at_10')
    assert found.table.state.tolist()==['complete'] and 0<found.table.ndcg_at_10[0]<1

def test_a_failure_deep_in_a_fit_leaves_the_loaders_free(dls):
    "A loss that is no number, from within fastai's loop"
    def make(dls, lr):
        learn = learner(dls, n_factors=4, y_range=False)
        learn.fit(1, lr)
        return learn
    with pytest.warns(UserWarning, match='1 of 2 trials failed, the first of them trial 0: FloatingPointError'):
        found = search(make, dict(lr=[1e30,1e-3]), dls)
    assert found.table.state.tolist()==['failed','complete'] and 'around_fits' not in vars(found.task.loaders[0])

def test_an_interruption_keeps_what_was_tried(dls):
    def make(dls, shift):
        if shift==2: raise KeyboardInterrupt
        return shifted(dls, shift)
    with pytest.warns(UserWarning, match='interrupted in trial 2'): found = search(make, dict(shift=[0,1,2,3]), dls)
    assert found.table.state.tolist()==['complete','complete','interrupted'] and found.best==dict(shift=0)

def test_no_trial_begins_after_its_time(dls):
    assert len(search(shifted, dict(shift=(0.,1.)), dls, seconds=1e-9))==1

def test_the_best_is_fitted_to_all_training_rows(dls):
    found = search(by_lr, dict(lr=[7e-3,1e-5], n_epoch=[3]), dls)
    learn,own = found.refit(),by_lr(dls, **found.best)
    assert found.best==dict(lr=7e-3, n_epoch=3) and learn.dls is dls
    assert torch.equal(learn.model.u_weight.weight, own.model.u_weight.weight)
    assert not [o for o in learn.cbs if type(o).__name__=='TellEpochs'] and len(learn.cbs)==len(own.cbs)
    folds = search(shifted, dict(shift=[0]), k_folds(ratings, 2))
    with pytest.raises(ValueError, match='pass the loaders'): folds.refit()
    assert folds.refit(dls).dls is dls

def test_choices_of_any_kind_come_to_make_as_they_are(dls):
    seen = []
    def make(dls, layers, reg, f):
        seen.append((layers,reg,f))
        return shifted(dls, 0)
    with pytest.warns(UserWarning, match='all 4 trials measure'): found = search(make, dict(layers=[[5],[6,7]], reg=[None,1], f=[max]), dls)
    assert seen==[([5],None,max),([5],1,max),([6,7],None,max),([6,7],1,max)]
    assert found.table.reg[0] is None and found.best['f'] is max

def test_whole_numbers_stay_whole(dls):
    def make(dls, n, m): return shifted(dls, n/4)
    found = search(make, dict(n=(0,4), m=(1,1000,'log')), dls, n_trials=6)
    assert all(type(o.settings[k]) is int for o in found.trials for k in 'nm')

def test_stock_loaders_are_read(dls):
    stock = CollabDataLoaders.from_df(ratings, seed=1, item_name='title', rating_name='rating', bs=64)
    assert len(search(by_als, dict(reg=[1.]), stock))==1

def test_picture(dls):
    found = search(shifted, dict(shift=(.1,2.,'log'), fails=[(),(9,)]), dls, n_trials=5)
    a,b = found.plot()
    assert a.get_xscale()=='log' and a.get_ylabel()=='rmse' and (a.get_xlabel(),b.get_xlabel())==('shift','fails')
    stars = [o.get_offsets()[0].tolist() for o in a.collections if len(o.get_sizes()) and o.get_sizes()[0]==160]
    assert stars==[[found.best['shift'],found.table.rmse.min()]]
    plt.close()

def test_optuna_says_nothing_and_stays_as_it_is(dls, capfd):
    optuna.logging.set_verbosity(optuna.logging.INFO)
    before = warnings.filters[:]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        search(shifted, dict(shift=(.1,1.,'log')), dls, n_trials=12)
    assert 'study' not in capfd.readouterr().err
    assert optuna.logging.get_verbosity()==logging.INFO and warnings.filters==before

def test_without_optuna_it_says_what_to_install(dls, monkeypatch):
    monkeypatch.setitem(sys.modules, 'optuna', None)
    with pytest.raises(ImportError, match='optuna is needed for this: pip install optuna'): search(by_als, dict(reg=[1.]), dls)

def never(dls, a, b=1, *, c=2): raise AssertionError('nothing may run')
nan = float('nan')

@pytest.mark.parametrize('space,error,text', [
    ({}, ValueError, 'space is empty'), ([1], TypeError, 'must be a dict'), (dict(a=1), TypeError, r"space\['a'\]=1 must be"),
    (dict(a=[]), ValueError, 'is empty'), (dict(a=(1,1)), ValueError, 'from a lower'), (dict(a=(2,1)), ValueError, 'from a lower'),
    (dict(a=(0,1,'log')), ValueError, 'begin above 0'), (dict(a=(nan,1)), ValueError, r"space\['a'\]\[0\]=nan"),
    (dict(a=(0,np.inf)), ValueError, 'finite'), (dict(a=('x','y')), TypeError, 'must be a number'), (dict(a=(0,1,'ln')), ValueError, 'must be'),
    (dict(a=(1,2,3,4)), ValueError, 'must be'), (dict(a=[1,nan]), ValueError, 'nan among'), (dict(a=[1,1]), ValueError, 'twice'),
    (dict(a=(True,False)), TypeError, 'must be a number'), (dict(a='abc'), TypeError, 'list of choices'), ({1: [1]}, TypeError, 'must be a text'),
    (dict(a=[1], bb=[1]), ValueError, "did you mean 'b'|it takes a, b, c"), (dict(b=[1]), ValueError, "make needs 'a'"),
    (dict(a=[1], dls=[1]), ValueError, "'dls', which make does not take"), (dict(a=[1], seconds=[1]), ValueError, 'column of the table')])
def test_a_wrong_space_is_told_before_anything_runs(dls, space, error, text):
    with pytest.raises(error, match=text): search(never, space, dls)

@pytest.mark.parametrize('kwargs,error,text', [
    (dict(measure='stars'), ValueError, "measure='stars' is not known: there are rmse, mae, precision_at_10"), (dict(measure='ndcg_at_0'), ValueError, 'not known'),
    (dict(measure='ndcg'), ValueError, 'not known'), (dict(measure='novelty'), ValueError, 'not known'), (dict(measure=max), TypeError, 'must be a name'),
    (dict(n_trials=0), ValueError, 'n_trials=0'), (dict(n_trials=2.5), TypeError, 'n_trials'), (dict(seed=-1), ValueError, 'seed'), (dict(seconds=0), ValueError, 'above 0'),
    (dict(prune=1), TypeError, 'prune=1'), (dict(min_rating=nan), ValueError, 'min_rating'), (dict(bs=5), TypeError, "does not know 'bs'"),
    (dict(data=ratings), TypeError, 'must be dataloaders or folds'), (dict(data={}), ValueError, 'no folds'), (dict(make=5), TypeError, 'make=5 must be a function'),
    (dict(make=lambda: 0), TypeError, 'must take the loaders first'), (dict(data=k_folds(ratings, 2), splitter=TimeSplitter()), ValueError, 'no splitter')])
def test_other_wrong_arguments_are_told_before_anything_runs(dls, kwargs, error, text):
    with pytest.raises(error, match=text): search(**(dict(make=never, space=dict(a=[1]), data=dls)|kwargs))

def test_a_make_that_no_setting_can_mend_ends_the_search(dls):
    with pytest.raises(TypeError, match='make must return the fitted RecLearner, not NoneType'): search(lambda _, a: None, dict(a=(0,1)), dls)
    with pytest.raises(ValueError, match='on the loaders that it is given'): search(lambda _, shift: shifted(dls, shift), dict(shift=(0,1)), dls)

def test_combinations():
    check_space(dict(a=range(3), b=(0,1.)))
    assert len(all_combinations(dict(a=[1,2,3], b=[4,5]), 6))==6 and all_combinations(dict(a=[1,2,3], b=[4,5]), 5)==[]

def test_the_name_of_a_measure_is_read_once(dls, monkeypatch):
    module,read = sys.modules['fastrec.evaluate.search'],[]
    then = module._read_measure
    monkeypatch.setattr(module, '_read_measure', lambda o: read.append(o) or then(o))
    search(shifted, dict(shift=[0.,.3]), dls, n_trials=2, measure='mae')
    assert read==['mae']
    with pytest.raises(ValueError, match='is not known'): search(shifted, dict(shift=[0.]), None, measure='speed')  # before anything else

def test_settings_that_change_nothing_are_told(dls):
    def deaf(dls, wd): return shifted(dls, .5)  # which forgets to pass it on
    with pytest.warns(UserWarning, match='all 3 trials measure .*, whatever the settings: they make no difference here'):
        search(deaf, dict(wd=[.1,.2,.3]), dls, n_trials=3)

@pytest.mark.parametrize('call', [learner, choose_fit, lambda o: search(by_lr, dict(lr=(1e-3,1e-2)), o)])
def test_who_is_given_other_loaders_says_its_own_name(call):
    name = getattr(call, '__name__', '').replace('<lambda>', 'search')
    with pytest.raises(TypeError, match=rf'^{name}\(\) needs RecDataLoaders, .* not DataLoaders'): call(DataLoaders.from_dsets([0], [0], bs=1))

popular_is_better = pytest.mark.filterwarnings('ignore:.*what is popular:UserWarning')

def fails_in(monkeypatch, name, error):
    def fit(self, *args, **kwargs): raise error
    monkeypatch.setattr(RecLearner, name, fit)

@popular_is_better
def test_choose_fit_goes_on_where_a_fit_fails(monkeypatch):
    dls = RecDataLoaders.from_df(ratings, seed=1)
    fails_in(monkeypatch, 'fit_als', FloatingPointError('steps went astray'))
    table,learn = choose_fit(dls, 60, fits=dict(fit_bias={}, fit_als={}))
    assert list(table.index)==['fit_bias','fit_als','popularity'] and table.attrs['best']==learn.last_fit[0]=='fit_bias'
    assert table.failed['fit_als']=='steps went astray' and table.loc['fit_als',['rmse','ndcg_at_10']].isna().all()
    assert table.failed.drop('fit_als').isna().all() and np.isfinite(table.rmse['fit_bias'])
    with pytest.raises(FloatingPointError, match='went astray'): choose_fit(dls, 60, fits=dict(fit_als={}))

def test_rows_of_a_pair_stay_together_where_settings_are_chosen():
    "Otherwise what is left to find in a log is what people did once, by chance"
    rng = np.random.default_rng(0)
    bought = sample_ratings(n_users=300, n_items=150, n_ratings=2400)[['user','title']]
    looked = bought.assign(title=rng.permutation(bought.title))
    log = pd.concat([bought,bought,bought,looked], ignore_index=True).assign(rating=1)
    log['weight'] = [1.]*3*len(bought) + [.1]*len(looked)
    dls = RecDataLoaders.from_df(log, seed=1, weight_name='weight')
    def pairs(ds): return set(map(tuple, ds.x.tolist()))
    seen = []
    def make(dls, n_sweep):
        seen.append(dls)
        learn = learner(dls)
        with learn.no_bar(),learn.no_logging(): learn.fit_ials(2, n_sweep)
        return learn
    search(make, dict(n_sweep=[2]), dls, measure='ndcg_at_10', seed=3)
    trial = trial_of(learner(dls), None)[0]
    for o in (*seen,trial): assert len(o.valid_ds)>500 and not pairs(o.train_ds)&pairs(o.valid_ds)
    found = choose_fit(dls, 60, by='ndcg_at_10', fits=dict(fit_ials={}))[0].ndcg_at_10
    assert found['fit_ials']>1.15*found['popularity']

@popular_is_better
def test_choose_fit_goes_on_where_a_fit_cannot_be_measured(monkeypatch):
    real = RecLearner.evaluate
    def evaluate(self, *args, **kwargs):
        if self.last_fit[0]=='fit_als': raise MemoryError('no room for lists')
        return real(self, *args, **kwargs)
    monkeypatch.setattr(RecLearner, 'evaluate', evaluate)
    table,learn = choose_fit(RecDataLoaders.from_df(ratings, seed=1), 60, fits=dict(fit_bias={}, fit_als={}))
    assert table.failed['fit_als']=='no room for lists' and table.attrs['best']==learn.last_fit[0]=='fit_bias'

@popular_is_better
def test_choose_fit_keeps_a_round_after_which_all_fail(monkeypatch):
    dls = RecDataLoaders.from_df(sample_ratings(n_ratings=30_000), seed=1)
    real,tried = RecLearner.fit_bias,[]
    def fit(self, *args, **kwargs):
        tried.append(len(self.ds))
        if len(tried)==2: raise MemoryError('no room')
        return real(self, *args, **kwargs)
    monkeypatch.setattr(RecLearner, 'fit_bias', fit)
    with pytest.warns(UserWarning, match=r'could be done on 24,000 ratings \(no room\)'): table,learn = choose_fit(dls, 60, fits=dict(fit_bias={}))
    assert len(tried)==3 and tried[0]<tried[1] and tried[2]==len(dls.train_ds)
    assert np.isfinite(table.rmse['fit_bias']) and table.attrs['ratings']<4000 and len(learn.ds)==len(dls.train_ds)

@popular_is_better
def test_choose_fit_takes_the_next_best_where_the_best_fails_on_all_ratings(monkeypatch):
    dls = RecDataLoaders.from_df(ratings, seed=1)
    want = choose_fit(dls, 60, by='ndcg_at_10', fits=dict(fit_bias={}, fit_ials={}))[0]
    assert want.attrs['best']=='fit_ials' and 'failed' not in want
    real = RecLearner.fit_ials
    def fit(self, *args, **kwargs):
        if len(self.ds)==len(dls.train_ds): raise RuntimeError('no room')
        return real(self, *args, **kwargs)
    monkeypatch.setattr(RecLearner, 'fit_ials', fit)
    table,learn = choose_fit(dls, 60, by='ndcg_at_10', fits=dict(fit_bias={}, fit_ials={}))
    assert table.attrs['best']==learn.last_fit[0]=='fit_bias' and table.failed['fit_ials']=='on all ratings: no room'

@popular_is_better
@pytest.mark.parametrize('given', [True,False])
def test_choose_fit_refuses_wrong_arguments(given, monkeypatch):
    "A refusal of arguments that were given is an error, one of a fit as it is a row"
    fails_in(monkeypatch, 'fit_als', ValueError('not for these'))
    fits = dict(fit_als=dict(n_sweep=3) if given else {}, fit_bias={})
    if not given: assert choose_fit(RecDataLoaders.from_df(ratings, seed=1), 60, fits=fits)[0].failed['fit_als']=='not for these'
    else:
        with pytest.raises(ValueError, match='not for these'): choose_fit(RecDataLoaders.from_df(ratings, seed=1), 60, fits=fits)

@pytest.mark.filterwarnings('ignore:no fit was found whose lists')
def test_choose_fit_splits_as_it_is_told():
    df = sample_ratings(n_users=100, n_items=60, n_ratings=3000)
    dls,seen = RecDataLoaders.from_df(df, LeaveLastSplitter(2), time_name='timestamp', seed=1),[]
    def splitter(frame):
        seen.append((frame,*LeaveLastSplitter(2)(frame)))
        return seen[-1][1:]
    table,learn = choose_fit(dls, 60, by='ndcg_at_10', fits=dict(fit_bias={}), splitter=splitter)
    (frame,train,valid), = seen
    assert len(frame)==len(dls.train_ds) and len(learn.dls.train_ds)==len(frame)
    learn = learner(RecDataLoaders.from_df(frame, lambda _: (train,valid), time_name='timestamp', seed=1))
    with learn.no_bar(),learn.no_logging(): learn.fit_bias()
    assert table.ndcg_at_10['fit_bias']==pytest.approx(learn.evaluate().ndcg_at_10['model'], abs=1e-6)

def test_the_end_of_a_short_trial_does_not_stop_a_longer_one():
    "The last epoch is of a model drawn to biases; in the middle of a longer fit the same epoch was behind it, and was stopped"
    rng = np.random.default_rng(1)
    df = pd.DataFrame(dict(user=np.repeat(np.arange(600), 5), item=rng.integers(200, size=3000), rating=rng.integers(1, 6, 3000)))
    dls = RecDataLoaders.from_df(df.drop_duplicates(['user','item']), seed=0)
    def make(dls, n_epoch):
        learn = learner(dls)
        learn.fit_one_cycle(n_epoch)
        return learn
    with warnings.catch_warnings(action='ignore'):
        found = search(make, dict(n_epoch=[3,6]), dls, n_trials=8, seed=0)
    trials = found.trials[0].trial.study.trials
    assert {o.params['n_epoch'] for o in trials}=={'3','6'}
    assert any(o.state.name=='COMPLETE' and o.params['n_epoch']=='6' for o in trials)
    for o in trials:
        if o.state.name=='COMPLETE': assert [*o.intermediate_values]==[*range(int(o.params['n_epoch'])-1)]

def test_rows_that_count_nothing_are_not_enough():
    df = sample_ratings(n_users=130, n_items=70, n_ratings=3500, seed=5)
    weight = np.where(np.arange(len(df))%100, 0., 1.)
    with pytest.raises(ValueError, match='are too few: it needs 50'): choose_fit(RecDataLoaders.from_df(df.assign(weight=weight), seed=1, weight_name='weight'), fits=dict(fit_bias={}))
