"""Item-item weights: what `fit_ease` finds is the closed form, its users are their choices whoever asks, and what it cannot do is refused with what to do instead"""
import copy,json,warnings
from concurrent.futures import ThreadPoolExecutor
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.core import Callback,CancelFitException
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.metrics import mae
from safetensors.torch import load_file,save_file
from test_devices import both,frame,loaders,pretending,same
from conftest import seldom
from fastrec.all import (BundleError,DeepMF,Ease,RecDataLoaders,RecInterpretation,learner,load_recommender,
                         sample_ratings)
from fastrec.base import devices
from fastrec.export.files import checksum,sha256,tensor_specs
from fastrec.fit import ease
from fastrec.models.choices import choices_of

ratings = sample_ratings(n_users=80, n_items=60, n_ratings=2500, seed=0)

def loaded(df=ratings, **kwargs):
    with warnings.catch_warnings(action='ignore'): return RecDataLoaders.from_df(df, **{'seed': 1, 'bs': 64, **kwargs})  # what is told of frames is not the subject

def fitted(df=ratings, reg=20., dls=None, **kwargs):
    learn = learner(loaded(df) if dls is None else dls, n_factors=4)
    with learn.no_logging(),learn.no_bar(): learn.fit_ease(reg, **kwargs)
    return learn

@pytest.fixture(scope='module')
def learn(): return fitted()

def matrix(ds):
    "The choices as NumPy's array, without the unknown"
    x = np.zeros([len(v) for v in ds.classes.values()])
    x[tuple(ds.x[:,:2].numpy().T)] = 1
    return x[1:,1:]

def by_numpy(x, reg):
    p = np.linalg.inv(x.T@x+reg*np.eye(x.shape[1]))
    b = -p/np.diag(p)
    np.fill_diagonal(b, 0)
    return b

# ------------------------------------------------------------------ the closed form
@pytest.mark.parametrize('reg', [.5,20.,4000.])
def test_is_the_closed_form(reg):
    learn = fitted(reg=reg)
    x = matrix(learn.dls.train_ds)
    b = by_numpy(x, reg)
    assert np.allclose(learn.model.weight.detach(), b, atol=1e-5*np.abs(b).max(), rtol=1e-4) and learn.model.reg==reg
    assert np.allclose(learn.predict_grid(), x@b, atol=1e-5)

def test_blocks_of_columns_make_no_difference(learn, monkeypatch):
    for o,n in dict(_numbers=700, _rows=7, _measured=50).items(): monkeypatch.setattr(ease, o, n)
    other = fitted()
    assert torch.allclose(other.model.weight, learn.model.weight, atol=1e-6)

def test_a_pair_that_is_there_twice_counts_once():
    with warnings.catch_warnings(action='ignore'): twice,once = (fitted(dls=RecDataLoaders.from_df(o, splitter=lambda df: (range(len(df)-20),range(len(df)-20, len(df))), bs=64))
                                                                 for o in (pd.concat([ratings[:500],ratings]), ratings))
    assert torch.allclose(twice.predict_grid(), once.predict_grid(), atol=1e-6)

def test_values_weigh():
    x = choices_of(torch.tensor([1,1,2,3]), torch.tensor([0,1,1,2]), 4, 3, values=torch.tensor([2.,.5,1,3]))
    g = torch.zeros(3, 3)
    ease._gram(x, g)
    rows = np.array([[2,.5,0],[0,1,0],[0,0,3.]])
    assert np.allclose(g.tril(), np.tril(rows.T@rows)) and np.allclose(x(torch.arange(4)), [rows.mean(0),*rows])
    model = Ease(x, torch.tensor([[0,1.,0],[.5,0,0],[0,0,0]]))
    assert np.allclose(model.score_grid(torch.arange(1, 4), torch.arange(1, 4)).detach(), rows@model.weight.detach().numpy())

def test_stars_make_no_difference(learn):
    other = fitted(ratings.assign(rating=6-ratings.rating))
    assert torch.equal(other.model.weight, learn.model.weight) and other.history.equals(learn.history) and other.noise==learn.noise

def test_the_record_is_the_distance_from_1(learn):
    ds,history = learn.dls,learn.history
    def error(x): return float((learn.model.eval()(x)-1).square().mean())
    with torch.no_grad(): assert history.train_loss.iloc[0]==pytest.approx(error(ds.train_ds.x), rel=1e-4) and history.valid_loss.iloc[0]==pytest.approx(error(ds.valid_ds.x), rel=1e-4)
    assert list(history)==['train_loss','valid_loss'] and len(history)==1

def test_numbers_of_32_bits_are_enough():
    "With a weak reg and choices of a long tail the equations are far from well conditioned"
    rng = np.random.default_rng(0)
    popular = np.arange(3, 403)**-1.
    u,i = rng.integers(3000, size=60_000),rng.choice(400, 60_000, p=popular/popular.sum())
    learn = fitted(pd.DataFrame(dict(user=u, title=i, rating=1.)).drop_duplicates(), reg=1.)
    b = by_numpy(matrix(learn.dls.train_ds), 1.)
    assert np.abs(learn.model.weight.detach().numpy()-b).max()<1e-4

# ------------------------------------------------------------------ answers
def test_pairs_and_grids_agree(learn):
    ds = learn.dls.train_ds
    grid = learn.predict_grid()
    x = ds.x[:,:2].long()
    assert np.allclose(learn.predict_df(ds.decode(x)), grid[x[:,0]-1,x[:,1]-1], atol=1e-6)
    users,items = (v.labels for v in ds.classes.values())
    assert torch.equal(learn.predict_grid(users[3:9], items[[5,1,7]]), grid[3:9][:,[5,1,7]])
    assert torch.equal(learn.predict_grid(max_bytes=4*len(items)), grid)
    assert learn.predict(users[2], items[3])==pytest.approx(float(grid[2,3]), abs=1e-6)

def test_the_unknown_are_the_mean(learn):
    users,items = (v.labels for v in learn.ds.classes.values())
    grid = learn.predict_grid()
    assert learn.predict(-5, items[3], unknown='average')==pytest.approx(float(grid[:,3].mean()), abs=1e-6)
    assert learn.predict(users[3], 'unheard of', unknown='average')==pytest.approx(float(grid[3].mean()), abs=1e-6)

def test_what_is_kept_of_the_weights_outlives_predictions_of_the_unknown(learn):
    stranger = pd.DataFrame(dict(user=[10**9], title=learn.ds.classes['title'].labels[:1]))
    def versions_after():
        with pytest.warns(UserWarning, match='average'): learn.predict_df(stranger, unknown='average')
        return [o._version for o in (*learn.model.parameters(),*learn.model.buffers())]
    assert versions_after()==versions_after()

def test_lists_are_the_best_unseen_of_the_grid(learn):
    grid,ds = learn.predict_grid(),learn.dls
    for o in (ds.train_ds,ds.valid_ds): grid[tuple((o.x[:,:2].long()-1).T)] = -torch.inf
    grid[:,ds.train_ds.counts(1)[1:]==0] = -torch.inf
    best = grid.topk(5)
    for kwargs in ({}, dict(max_bytes=2**12)):
        lists = learn.recommend(n=5, **kwargs)
        there = best.values.isfinite()  # some have rated nearly everything
        assert np.allclose(lists.score, best.values[there], atol=1e-6)
        assert learn.ds.classes['title'].lookup(lists.title).tolist()==(best.indices+1)[there].tolist()
    seen = ratings[['user','title']].astype({'title': str})
    assert len(lists.astype({'title': str}).merge(seen, on=['user','title']))==0

def test_many_items_are_screened_by_nobody():
    "As many users and items as rough products are for"
    torch.manual_seed(0)
    x = choices_of(torch.randint(1, 301, (3000,)), torch.randint(8200, (3000,)), 301, 8200)
    model = Ease(x, torch.randn(8200, 8200)*(torch.rand(8200, 8200)<.01))
    users,items = torch.arange(1, 301),torch.arange(1, 8201)
    got = model.score(model.user_side(users), model.item_side(items[5:]))
    assert torch.allclose(got, (x(users)@model.weight)[:,5:], atol=1e-4)

def test_evaluate_finds_what_a_sum_finds():
    df = sample_ratings(seed=3)
    found = fitted(df, None).evaluate().ndcg_at_10
    assert found['model']>1.5*found['popularity']

def test_similar_is_partial_correlation(learn):
    x = matrix(learn.dls.train_ds)
    p = np.linalg.inv(x.T@x+20*np.eye(x.shape[1]))
    want = -p/np.sqrt(np.outer(np.diag(p), np.diag(p)))
    items = learn.ds.classes['title'].labels
    got = learn.similar(items[4], len(items))
    codes = learn.ds.classes['title'].lookup(got.title)-1
    assert np.allclose(got.similarity, want[4,codes], atol=1e-5) and 4 not in codes
    rows = x/np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-9)
    users = learn.ds.classes['user'].labels
    got = learn.similar_users(users[4], 5)
    others = rows@rows[4]
    others[4] = -1
    assert np.allclose(got.similarity, np.sort(others)[::-1][:5], atol=1e-5)

def test_what_the_average_chooses(learn):
    interp = RecInterpretation.from_learner(learn)
    grid = learn.predict_grid().mean(0)
    table = interp.item_bias()
    codes = learn.ds.classes['title'].lookup(table.title)-1
    assert np.allclose(table.preference, grid[codes], atol=1e-6) and (table.preference.diff().dropna()<=0).all()
    assert np.allclose(interp.user_bias().preference.sort_values(), learn.predict_grid().mean(1).sort().values, atol=1e-6)

# ------------------------------------------------------------------ newcomers
def test_newcomers_are_as_those_in_training(learn):
    ds = learn.dls.train_ds
    rated = ds.decode(*ds[:])
    new = learn.fold_in(rated.assign(user=rated.user+10_000))
    assert torch.equal(new.predict_grid(), learn.predict_grid()[ds.counts(0)[1:]>0])
    one = learn.fold_in(rated[rated.user==rated.user[0]].drop(columns='user'))
    assert one.recommend(n=7).title.tolist()==learn.recommend(rated.user[0], n=7, exclude_seen=rated).title.tolist()
    assert one.similar(rated.title[0], 3).equals(learn.similar(rated.title[0], 3))

def test_who_brings_nothing_is_the_average(learn):
    rated = learn.dls.train_ds.decode(*learn.dls.train_ds[:])
    none = learn.fold_in(rated[:0].drop(columns='user'))
    assert torch.allclose(none.predict_grid()[0], learn.predict_grid().mean(0), atol=1e-6)
    with pytest.warns(UserWarning, match='not in training: .*; left out'): strange = learn.fold_in(pd.DataFrame(dict(user=[1,2], title=['nothing known',rated.title[0]], rating=5.)), unknown='drop')
    assert torch.equal(strange.predict_grid()[:1], none.predict_grid()) and not torch.equal(strange.predict_grid()[1:], none.predict_grid())
    nobody = learn.predict(-5, rated.title[0], unknown='average')
    assert strange.predict(-5, rated.title[0], unknown='average')==pytest.approx(nobody, abs=1e-6)

# ------------------------------------------------------------------ saved, loaded, copied
def test_bundle(learn, tmp_path):
    rec = load_recommender(learn.save_recommender(tmp_path/'b'), 'cpu')
    assert torch.equal(rec.predict_grid(), learn.predict_grid()) and rec.model.is_preference and type(rec.model) is Ease
    pd.testing.assert_frame_equal(rec.recommend(n=3), learn.recommend(n=3), check_categorical=False)
    some = pd.DataFrame(dict(title=ratings.title.unique()[:4], rating=1.))
    assert torch.equal(rec.fold_in(some).predict_grid(), learn.fold_in(some).predict_grid())
    pd.testing.assert_frame_equal(rec.evaluate(learn.dls.train_ds.decode(*learn.dls.valid_ds[:])), learn.evaluate())
    again = load_recommender(rec.save_recommender(tmp_path/'c', seen=False), 'cpu')
    assert torch.equal(again.predict_grid(), learn.predict_grid()) and again.seen is None

def forged(folder, change):
    "The bundle in `folder` with `change` made to the tensors of its model, and checksums that fit"
    file, = folder.glob('model-*.safetensors')
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    manifest['files'][file.name].update(bytes=file.stat().st_size, sha256=sha256(file), tensors=tensor_specs(tensors))
    manifest['checksum'] = checksum(manifest)
    (folder/'manifest.json').write_text(json.dumps(manifest), encoding='utf-8')

def changed(name, f): return lambda t: t.update({name: f(t[name]).contiguous()})

@pytest.mark.parametrize('change', [changed('choices.items', lambda o: o+1000), changed('choices.items', lambda o: -o-1), changed('choices.offsets', lambda o: o.flip(0)), changed('choices.offsets', lambda o: o*2),
                                    changed('choices.values', lambda o: o[:-1]), changed('weight', lambda o: o[:-1]), changed('choices.offsets', lambda o: o[:-1])])
def test_forged_bundles_are_refused(learn, tmp_path, change):
    folder = learn.save_recommender(tmp_path/'b')
    load_recommender(folder, 'cpu')
    forged(folder, change)
    with pytest.raises(BundleError): load_recommender(folder, 'cpu')

def test_saved_exported_and_copied(tmp_path):
    learn = fitted()
    learn.path = tmp_path
    grid,other = learn.predict_grid(),fitted(reg=500.)
    learn.save('m')
    other.path = tmp_path
    assert not torch.equal(other.predict_grid(), grid)
    other.load('m')
    assert torch.equal(other.predict_grid(), grid)
    learn.export('l.pkl')
    with warnings.catch_warnings(action='ignore'): exported = load_learner(tmp_path/'l.pkl')
    assert torch.equal(exported.predict_grid(), grid) and torch.equal(copy.deepcopy(learn).predict_grid(), grid)
    some = pd.DataFrame(dict(title=ratings.title.unique()[:4], rating=1.))
    assert torch.equal(exported.fold_in(some).predict_grid(), learn.fold_in(some).predict_grid())
    dot = learner(learn.dls, n_factors=4, path=tmp_path)
    before = dot.predict_grid()
    with pytest.raises(ValueError, match='does not fit'): dot.load('m')
    assert torch.equal(dot.predict_grid(), before)

# ------------------------------------------------------------------ beside the other fits
others = dict(sgd=lambda l: l.fit(1), bias=lambda l: l.fit_bias(), als=lambda l: l.fit_als(3, 2), ials=lambda l: l.fit_ials(3, 2), bayes=lambda l: l.fit_bayes(3, 4, burn=1))

@pytest.mark.parametrize('kwargs', [{}, *seldom(dict(sparse=True)), dict(arch=DeepMF, layers=[4])], ids=['dot','sparse','net'])
@pytest.mark.parametrize('how', others)
def test_after_every_fit_and_before(learn, how, kwargs):
    other = learner(learn.dls, n_factors=3, **kwargs)
    with other.no_logging(),other.no_bar():
        others[how](other)
        other.fit_ease(20.)
        assert torch.equal(other.predict_grid(), learn.predict_grid()) and len(other.history)==1 and other.last_fit[:2]==('fit_ease',dict(reg=20.))
        if how=='sgd':
            with pytest.raises(ValueError, match='by fit_ease, and gradients would make'): other.fit(1)
            assert torch.equal(other.predict_grid(), learn.predict_grid())
            return
        others[how](other)
    assert not isinstance(other.model, Ease) and other.model.is_preference==(how=='ials') and (how=='bayes' or other.model.sparse==kwargs.get('sparse', False))
    assert other.predict_grid().isfinite().all() and len(other.recommend(n=2))

class At(Callback):
    order = -200
    def __init__(self, name, error): setattr(self, name, self.stop); self.error = error
    def stop(self): raise self.error

@pytest.mark.parametrize('name', ['before_fit','before_epoch','before_train','before_batch'])
@pytest.mark.parametrize('error', [KeyboardInterrupt(),RuntimeError('stopped'),CancelFitException()], ids=lambda o: type(o).__name__)
def test_stopped_it_leaves_the_model_from_before(learn, name, error):
    other = learner(learn.dls, n_factors=4, metrics=mae)
    with other.no_logging(),other.no_bar(): other.fit_als(3, 2)
    state,grid,kept = other.fit_state(),other.predict_grid(),(other.loss_func,list(other.metrics))
    try:
        with other.no_logging(),other.no_bar(): other.fit_ease(cbs=At(name, error))
    except type(error): pass
    assert other.fit_state()==state and torch.equal(other.predict_grid(), grid) and other.last_fit[0]=='fit_als' and (other.loss_func,list(other.metrics))==kept

@pytest.mark.parametrize('name', ['before_validate','after_epoch','after_fit'])
@pytest.mark.parametrize('how', ['fit_ease','fit_ials','fit_als','fit_bias'])
def test_what_is_whole_is_kept_by_every_solver(learn, how, name):
    other = learner(learn.dls, n_factors=4)
    with other.no_logging(),other.no_bar():
        other.fit_bias()
        before = other.predict_grid()
        with pytest.raises(KeyboardInterrupt): getattr(other, how)(cbs=At(name, KeyboardInterrupt()), **({} if how!='fit_bias' else dict(reg=100.)))
    assert other.last_fit[0]==how and not torch.equal(other.predict_grid(), before)
    if how=='fit_ease': assert torch.equal(other.predict_grid(), fitted(dls=learn.dls, reg=None).predict_grid())

def test_stopped_in_the_inverse(learn, monkeypatch):
    other = learner(learn.dls, n_factors=4)
    state,grid = other.fit_state(),other.predict_grid()
    monkeypatch.setattr(ease, '_as_weights', lambda p: (_ for _ in ()).throw(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt),other.no_logging(),other.no_bar(): other.fit_ease()
    assert other.fit_state()==state and torch.equal(other.predict_grid(), grid)

@pytest.mark.parametrize('call', [lambda l: l.validate(), lambda l: l.show_results(), lambda l: l.fit_one_cycle(1), lambda l: l.lr_find()])
def test_refused_as_preferences(learn, call):
    with pytest.raises(ValueError, match='preferences: use evaluate and recommend|by fit_ease, and gradients would'): call(learn)

@pytest.mark.parametrize('call', [lambda l,d: RecInterpretation.from_learner(l).item_pca(), lambda l,d: l.model.user_factors, lambda l,d: l.save_factors(d/'f'), lambda l,d: l.model.tables])
def test_no_factors_to_ask_for(learn, tmp_path, call):
    with pytest.raises(ValueError, match='no tables of factors: fit_ials makes one'): call(learn, tmp_path)
    assert not (tmp_path/'f').exists()

def test_no_index(learn):
    with pytest.raises(ValueError, match='faiss compares rows of factors.*use recommend'): learn.faiss_index()

# ------------------------------------------------------------------ refused
@pytest.mark.parametrize('reg,message', [(0,'must be above 0'), (-1,'must be above 0'), (float('nan'),'must be a finite number'), (float('inf'),'must be a finite number')])
def test_reg_is_above_0(reg, message):
    with pytest.raises(ValueError, match=message): fitted(reg=reg)

@pytest.mark.parametrize('fit,kwargs', [('fit_ials',dict(reg='1')), ('fit_ials',dict(alpha0='a')), ('fit_ials',dict(power='a')), ('fit_ease',dict(reg='a')), ('fit_als',dict(reg=True)),
    ('fit_als',dict(tol='a')), ('fit_als',dict(reg=1, power='x')), ('fit_bias',dict(reg=(1,None)))], ids=str)
def test_what_is_no_number_is_refused(learn, fit, kwargs):
    with pytest.raises(TypeError, match='must be a number'): getattr(learn, fit)(**kwargs)

def test_more_items_than_can_be_counted(monkeypatch):
    monkeypatch.setattr(ease, '_most_items', 59)
    with pytest.raises(ValueError, match='each pair of 60 items, 0 GB, and can do no more than 59: fit_ials needs no such table'): fitted()

def test_more_items_than_there_is_room_for(learn, monkeypatch):
    other = learner(learn.dls, n_factors=4)
    state = other.fit_state()
    monkeypatch.setattr(devices, '_always_free', 0)
    monkeypatch.setattr(devices, 'memory_there', lambda: 2*4*60*60-1)
    with pytest.raises(ValueError, match='no room for the weights of all pairs of 60 items.*fit_ials needs no such table'): other.fit_ease()
    assert other.fit_state()==state
    monkeypatch.setattr(devices, 'memory_there', lambda: 2*4*60*60)
    with other.no_logging(),other.no_bar(): other.fit_ease()

def test_told_and_refused_as_by_fit_ials(tmp_path):
    with pytest.raises(ValueError, match='Every row is, for fit_ease'): fitted(ratings.assign(rating=(ratings.rating>3).astype(int)))
    with pytest.raises(ValueError, match='fit_ease learns from what was chosen'): fitted(ratings.assign(rating=0))
    with pytest.raises(ValueError, match="not recorded by fit_ease: let it watch 'valid_loss'"): fitted(cbs=SaveModelCallback(monitor='mae'))
    learn = learner(loaded(path=tmp_path), n_factors=4)
    with learn.no_logging(),learn.no_bar(): learn.fit_ease(cbs=SaveModelCallback())
    assert (tmp_path/'models'/'model.pth').exists()

def test_a_loaded_learner_has_nothing_to_fit(learn, tmp_path):
    learn.path = tmp_path
    learn.export('l.pkl')
    with warnings.catch_warnings(action='ignore'): other = load_learner(tmp_path/'l.pkl')
    with pytest.raises(ValueError, match='no ratings to fit'): other.fit_ease()

# ------------------------------------------------------------------ the rule
def test_the_rule_is_near_the_best():
    df = sample_ratings(seed=0)
    dls = loaded(df, valid_pct=.1, bs=512)
    def ndcg(reg): return fitted(dls=dls, reg=reg).evaluate().ndcg_at_10['model']
    by_hand = {reg: ndcg(reg) for reg in (20,100,250,500,1000,2500)}
    assert ndcg(None)>=.97*max(by_hand.values()) and min(by_hand.values())<.9*max(by_hand.values())

def without_taste():
    rng = np.random.default_rng(0)
    weights = np.arange(5, 305)**-.8
    u,i = rng.integers(600, size=15_000),rng.choice(300, 15_000, p=weights/weights.sum())
    return pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=1.)).drop_duplicates()

@pytest.mark.parametrize('some', [2**17,4000])
def test_without_taste_it_is_popularity(some, monkeypatch):
    from fastrec.fit import taste
    monkeypatch.setattr(taste, '_some', some)
    with pytest.warns(UserWarning, match='no more than how much each person chooses and each thing is chosen'): learn = fitted(without_taste(), None)
    found = learn.evaluate().ndcg_at_10
    assert found['model']==pytest.approx(found['popularity'], rel=.02) and learn.settings().rule['reg'].startswith('popularity')
    assert learn.model.is_preference and len(learn.fold_in(pd.DataFrame(dict(title=['f1'], rating=1.))).recommend(n=3))==3
    with learn.no_logging(),learn.no_bar(): learn.fit_ease(100.)
    assert isinstance(learn.model, Ease)

def test_settings_tell_the_rule(learn):
    other = fitted(reg=None)
    ds = other.dls.train_ds
    row = other.settings().loc['reg']
    assert row.value==pytest.approx(60*(len(ds)/(ds.counts(0)>0).sum().item())**.5) and 'choices of a user' in row.rule and f'{len(ds):,} choices' in row['from']
    assert learn.settings().loc['reg'].rule=='given'

# ------------------------------------------------------------------ devices
def asked(device, tmp):
    d = frame()
    learn = learner(loaders(device), n_factors=4)
    with learn.no_logging(): learn.fit_ease(5.)
    users,items = (v.labels for v in learn.ds.classes.values())
    new = d[d.user==users[0]].drop(columns='user')
    def ask(rec):
        newcomer = rec.fold_in(new)
        return dict(pair=rec.predict(users[0], items[0]), rows=rec.predict_df(d[:50]), grid=rec.predict_grid().cpu(), part=rec.predict_grid(users[:3], items[:5]).cpu(), few=rec.recommend(users[:3], n=3),
                    blocks=rec.recommend(n=3, max_bytes=4*128*7), of=rec.recommend(users[:3], items=items[:9], exclude_seen=d[:100]), similar=rec.similar(items[0], 3).similarity,
                    users=rec.similar_users(users[0], 3).similarity, new=newcomer.recommend(n=3), none=rec.fold_in(new[:0]).predict_grid().cpu(), average=rec.predict(-5, items[1], unknown='average'))
    res = dict(history=learn.history, asked=ask(learn), evaluated=learn.evaluate(), noise=learn.noise, reg=learn.settings(), bias=RecInterpretation.from_learner(learn).item_bias())
    assert learn.model.weight.device==learn.dls.device
    res['loaded'] = ask(load_recommender(learn.save_recommender(tmp/'saved'), learn.dls.device))
    learn.path = tmp
    learn.save('weights')
    learn.load('weights')
    res['again'] = learn.predict_grid().cpu()
    with learn.no_logging(): learn.fit_als(3, 2)
    return res

@both
@pytest.mark.filterwarnings('ignore:load_learner')
def test_answers_as_on_the_cpu(device, tmp_path):
    want = asked('cpu', tmp_path/'cpu')
    with pretending(device): got = asked(device, tmp_path/'there')
    same(got, want)

def test_a_gpu_that_is_full(monkeypatch):
    "It needs room for a table more than the CPU"
    monkeypatch.setattr(devices, '_can_be_made', lambda n, device: n<3*4*25*25)
    with pretending('cuda'):
        learn = learner(loaders('cuda'), n_factors=4)
        with pytest.raises(ValueError, match='cuda.* has no room for the weights of all pairs of 25 items'): learn.fit_ease()

# ------------------------------------------------------------------ several threads
def test_threads_get_what_one_gets(learn):
    users = learn.ds.classes['user'].labels
    new = pd.DataFrame(dict(title=ratings.title.unique()[:4], rating=1.))
    calls = [lambda: learn.recommend(users[:9], n=4), lambda: learn.predict_grid(users[5:30]), lambda: learn.fold_in(new).predict_grid(), lambda: learn.similar(ratings.title[0], 3)]
    want = [f() for f in calls]
    with ThreadPoolExecutor(8) as pool: got = list(pool.map(lambda k: calls[k%4](), range(64)))
    for k,o in enumerate(got): assert torch.equal(o, want[k%4]) if isinstance(o, torch.Tensor) else o.equals(want[k%4])
