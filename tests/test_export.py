"""Saved recommenders: the same answers as the learner's, nothing but a clear error from a damaged folder, and what was whole stays whole"""
import cloudpickle,dateutil.tz,datetime,decimal,json,os,pickle,shutil,signal,subprocess,sys,tempfile,time,urllib.request,uuid,warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from conftest import quietly,started
from fastrec.all import (BundleError,DeepMF,DotBias,RecDataLoaders,Vocab,check_savable,dot_learner,learner,load_recommender,nn_learner,sample_ratings)
import fastrec.export
from fastrec.export import bundle,files,loading
from fastrec.export.files import checksum
from fastrec.export.labels import pack_labels,unpack_labels
from test_predict import from_stock,same

def fitted(make, how, **kwargs):
    def f(ratings):
        learn = make(RecDataLoaders.from_df(ratings, seed=1, bs=256, **kwargs))
        with learn.no_logging(),learn.no_bar(): how(learn)
        return learn
    return f

one = lambda l: l.fit_one_cycle(1)
said_of_fit = 'metrics','fit','trained_with'
makers = {
    'dot': fitted(dot_learner, one), 'dot without range': fitted(lambda d: dot_learner(d, y_range=False), one), 'no biases': fitted(lambda d: dot_learner(d, bias=False), one),
    'nn': fitted(nn_learner, one), 'nn, odd': fitted(lambda d: nn_learner(d, (7,5), [9,6], ps=[.1,.1], embed_p=.1, act_cls=torch.nn.LeakyReLU(.3), bn_final=True), one), 'nn, no range': fitted(lambda d: nn_learner(d, y_range=False, use_bn=False), one),
    'fit_bias': fitted(dot_learner, lambda l: l.fit_bias()), 'fit_als': fitted(dot_learner, lambda l: l.fit_als(4, 3)), 'fit_ials': fitted(dot_learner, lambda l: l.fit_ials(4, 3)),
    'fit_bayes': fitted(dot_learner, lambda l: l.fit_bayes(3, 12, side='implicit')), 'days': fitted(dot_learner, lambda l: l.fit_bayes(3, 12, time=['30D','1D']), time_name='timestamp'),
    'stock dot': lambda r: from_stock(r, False), 'stock nn': lambda r: from_stock(r, True),
    'new users': lambda r: makers['dot'](r).fold_in(r.head(200).assign(user=lambda o: o.user+1_000_000)), 'numbers for titles': lambda r: makers['dot'](r.drop(columns='title')),
}

@pytest.fixture(scope='module', params=makers)
def pair(request, ratings, tmp_path_factory):
    "What was saved and what was loaded"
    with quietly(),warnings.catch_warnings(action='ignore'): rec = makers[request.param](ratings)
    return rec,load_recommender(rec.save_recommender(tmp_path_factory.mktemp('saved')/'bundle'), 'cpu'),ratings

# ------------------------------------------------------------------ conformance
def test_same_predictions(pair):
    rec,loaded,ratings = pair
    (users,items),names = [v.labels for v in rec.ds.classes.values()],rec.ds.cat_names
    frame = pd.DataFrame({names[0]: np.resize(users, 300), names[1]: np.resize(items, 300), 'timestamp': ratings.timestamp.head(300)})
    assert np.allclose(rec.predict_df(frame), loaded.predict_df(frame), atol=1e-6) and torch.allclose(rec.predict_grid(), loaded.predict_grid(), atol=1e-6)
    assert rec.predict(users[0], items[1])==pytest.approx(loaded.predict(users[0], items[1]), abs=1e-6)
    strange = frame.assign(**{names[0]: -5})
    with pytest.warns(UserWarning): a,b = (o.predict_df(strange, unknown='average') for o in (rec,loaded))
    assert np.allclose(a, b, atol=1e-6)
    for o in (rec,loaded):
        with pytest.raises(KeyError, match='-5 is not among'): o.predict(-5, items[0])

def test_same_recommendations(pair):
    rec,loaded,_ = pair
    users,items = (v.labels for v in rec.ds.classes.values())
    for kwargs in ({}, dict(users=users[3]), dict(n=3, items=list(items[:40]), exclude_seen=False), dict(min_count=4, users=list(users[:20]))):
        pd.testing.assert_frame_equal(rec.recommend(**kwargs), loaded.recommend(**kwargs), atol=1e-6, rtol=0, check_categorical=False)

def test_same_neighbours(pair):
    rec,loaded,_ = pair
    if not rec.model.item_factors.shape[1]: return
    user,item = (v.labels[2] for v in rec.ds.classes.values())
    pd.testing.assert_frame_equal(rec.similar(item), loaded.similar(item), atol=1e-6, rtol=0)
    pd.testing.assert_frame_equal(rec.similar_users(user), loaded.similar_users(user), atol=1e-6, rtol=0)

@pytest.mark.filterwarnings('ignore:.*differ from another of the same user and item')
def test_same_new_users(pair):
    rec,loaded,ratings = pair
    item = rec.ds.item_name
    mine = ratings.head(400).assign(user=lambda o: 10**6+o.index%30)
    mine = mine[mine[item].isin(rec.ds.classes[item].labels)]
    a,b = (o.fold_in(mine) for o in (rec,loaded))
    assert torch.allclose(a.predict_grid(), b.predict_grid(), atol=2e-5)
    assert torch.allclose(rec.fold_in(mine[:0]).predict_grid(), loaded.fold_in(mine[:0]).predict_grid(), atol=1e-6)

def test_same_uncertainty(pair):
    rec,loaded,ratings = pair
    frame = ratings.head(50)[lambda o: o[rec.ds.item_name].isin(rec.ds.classes[rec.ds.item_name].labels)].rename(columns=dict(user=rec.ds.user_name))
    if not hasattr(rec.model, 'draws'):
        for o in (rec,loaded):
            with pytest.raises(ValueError, match='fit it with fit_bayes'): o.recommend(z=1.)
        return
    assert np.allclose(rec.predict_df(frame, std=True), loaded.predict_df(frame, std=True), atol=1e-6)
    for kwargs in (dict(z=-1.), dict(draw=2)): assert same(rec.recommend(n=3, **kwargs), loaded.recommend(n=3, **kwargs))

def test_saved_again(pair, tmp_path):
    "A loaded recommender can be saved, and is what it was"
    _,loaded,_ = pair
    again = load_recommender(loaded.save_recommender(tmp_path/'again'), 'cpu')
    assert torch.equal(again.predict_grid(), loaded.predict_grid()) and again.noise==loaded.noise and again.manifest['model']==loaded.manifest['model']

def test_what_is_said_of_the_fit_stays(pair, tmp_path):
    "Measures, name and settings of the fit and the versions that it ran with outlive another save, unless measures are passed"
    _,loaded,_ = pair
    again = load_recommender(loaded.save_recommender(tmp_path/'again'), 'cpu')
    assert [again.manifest[o] for o in said_of_fit]==[loaded.manifest[o] for o in said_of_fit]
    assert load_recommender(again.save_recommender(tmp_path/'again', metrics=dict(ndcg=.3)), 'cpu').manifest['metrics']==dict(ndcg=.3)
    assert load_recommender(again.save_recommender(tmp_path/'again', metrics={}), 'cpu').manifest['metrics']=={}

@pytest.mark.parametrize('change', [lambda o: o.extend(pd.DataFrame(dict(user=[-1,-1], title=o.ds.classes['title'].labels[:2].tolist(), rating=[4.,5.]))),
                                    lambda o: o.without_users(o.ds.classes['user'].labels[0]), lambda o: o.without_items(o.ds.classes['title'].labels[0])],
                         ids=['extend','without_users','without_items'])
@pytest.mark.parametrize('is_loaded', [True,False])
def test_what_is_said_of_the_fit_outlives_who_comes_and_goes(ratings, tmp_path, change, is_loaded):
    learn = makers['fit_als'](ratings)
    before = load_recommender(learn.save_recommender(tmp_path/'b', ratings=True, metrics=dict(rmse=.9) if is_loaded else None), 'cpu')
    rec = change(before if is_loaded else learn)
    after = load_recommender(rec.save_recommender(tmp_path/'b'), 'cpu').manifest
    assert before.manifest['metrics'] and before.manifest['fit']['name']=='fit_als'
    assert [after[o] for o in said_of_fit]==[before.manifest[o] for o in said_of_fit]

# ------------------------------------------------------------------ what is in it
def test_manifest(ratings, tmp_path):
    learn = makers['dot'](ratings)
    m = load_recommender(learn.save_recommender(tmp_path/'b')).manifest
    assert m['metrics']['rmse']==pytest.approx(learn.history.rmse.iloc[-1])
    assert m['trained_with']['seed']==1 and m['trained_with']['n_fits']==1 and m['trained_with']['torch'].split('+')[0]==torch.__version__.split('+')[0]
    with pytest.raises(ValueError, match='pass fewer metrics'): learn.save_recommender(tmp_path/'b', metrics={str(k): .5 for k in range(10**5)})
    assert load_recommender(learn.save_recommender(tmp_path/'b', metrics=dict(ndcg=.3))).manifest['metrics']==dict(ndcg=.3)
    assert sorted(o.name[:5] for o in (tmp_path/'b').iterdir())==['manif','model','seen-']

def test_without_what_was_seen(ratings, tmp_path):
    learn = makers['dot'](ratings)
    loaded = load_recommender(learn.save_recommender(tmp_path/'b', seen=False))
    assert not list((tmp_path/'b').glob('seen-*')) and loaded.seen is None
    user = loaded.ds.classes['user'].labels[0]
    with pytest.raises(ValueError, match='what users have seen is not known here'): loaded.recommend(user)
    assert same(loaded.recommend(user, exclude_seen=ratings), learn.recommend(user)) and same(loaded.recommend(exclude_seen=False, min_count=5), learn.recommend(exclude_seen=False, min_count=5))

def bought(ratings):
    "Pairs of some rows of `ratings`, and of some that are nowhere in them"
    some = ratings.sample(frac=.3, random_state=0)[['user','title']]
    return pd.concat([some, ratings.assign(user=ratings.user.sample(frac=1, random_state=1).to_numpy()).head(200)[['user','title']]])

def listing(rec, **kwargs): return rec.recommend(n=8, **kwargs)

def test_lists_leave_out_what_they_were_measured_without(ratings, tmp_path):
    "In Python, in `evaluate`, by faiss, over HTTP and on the command line, until another frame says otherwise"
    from fastrec.command.main import main
    from fastrec.serve import Background,app
    learn,had = makers['fit_ials'](ratings),bought(ratings)
    folder = learn.save_recommender(tmp_path/'b', unlisted=had, ratings=True)
    rec = load_recommender(folder)
    want = listing(learn, exclude_seen=had)
    assert not same(want, listing(learn)) and same(listing(rec), want)
    assert same(listing(rec, exclude_seen=False), listing(learn, exclude_seen=False))
    assert rec.recommend_users(ratings.title[0], n=9).equals(learn.recommend_users(ratings.title[0], n=9, exclude_seen=had))
    held = ratings.sample(frac=.2, random_state=3).drop(columns='rating')
    with warnings.catch_warnings(action='ignore'): assert rec.evaluate(held).equals(learn.evaluate(held, exclude_seen=had))
    for again in (rec.save_recommender(tmp_path/'c'), load_recommender(tmp_path/'b').save_recommender(tmp_path/'c', ratings=True)): assert same(listing(load_recommender(again)), want)
    user = ratings.user[0]
    own = want[want.user==user].title.tolist()
    with Background(app(folder)) as service,urllib.request.urlopen(f'{service.url}/recommend?user={user}&n=8') as answer: got = json.load(answer)
    assert [o['item'] for o in got['items']]==own and got['notes']==[]
    assert main(['recommend',str(folder),str(user),'--n','8','--out',str(tmp_path/'lists.parquet')])==0
    assert pd.read_parquet(tmp_path/'lists.parquet').title.tolist()==own
    assert same(listing(load_recommender(rec.save_recommender(tmp_path/'c', unlisted=had.head(0)))), listing(learn, exclude_seen=False))
    without = load_recommender(rec.save_recommender(tmp_path/'c', seen=False))
    assert without.unlisted is None
    assert same(listing(load_recommender(without.save_recommender(tmp_path/'d', unlisted=had))), want)

def test_what_was_only_looked_at_need_not_be_kept(ratings, tmp_path):
    "`seen=False, unlisted=had`: lists leave out what was bought, and nothing else is there of what was seen"
    from safetensors import safe_open
    learn,had = makers['fit_ials'](ratings),bought(ratings)
    rec = load_recommender(learn.save_recommender(tmp_path/'b', seen=False, unlisted=had))
    want = listing(learn, exclude_seen=had)
    file, = (tmp_path/'b').glob('seen-*')
    with safe_open(file, 'pt') as f: assert sorted(f.keys())==['unlisted.items','unlisted.offsets']
    assert len(rec.own_unlisted.items)==len(had) and rec.seen is None
    again = load_recommender(rec.save_recommender(tmp_path/'c'))
    assert again.seen is None and same(listing(rec), want) and same(listing(again), want)
    left = had[had.title!=ratings.title[0]]
    assert same(listing(rec.without_items(ratings.title[0])), listing(learn.without_items(ratings.title[0]), exclude_seen=left))
    assert load_recommender(rec.save_recommender(tmp_path/'c', seen=False)).unlisted is None

@pytest.mark.filterwarnings('ignore:5 of the 60 new rows are of pairs')
@pytest.mark.parametrize('how', ['fit_ials','fit_bayes'])
def test_what_lists_leave_out_outlives_who_comes_and_goes(ratings, tmp_path, how):
    learn,had = makers[how](ratings),bought(ratings)
    rec = load_recommender(learn.save_recommender(tmp_path/'b', unlisted=had, ratings=True))
    users,gone = ratings.user.unique(),ratings.title.mode()[0]
    for change,left in ((lambda o: o.without_users(users[:3].tolist()), ~had.user.isin(users[:3])), (lambda o: o.without_items(gone), had.title!=gone)):
        assert same(listing(change(rec)), listing(change(learn), exclude_seen=had[left]))
    more = ratings.head(60).drop(columns='item').assign(user=users[5], title=lambda o: [f'New {k}' for k in range(50)]+[*ratings.title.unique()[:10]])
    new = rec.extend(more)
    saved = load_recommender(new.save_recommender(tmp_path/'c'))
    want = listing(learn.extend(more), exclude_seen=pd.concat([had, more[['user','title']]]))
    assert same(listing(new), want) and same(listing(saved), want)

def test_frames_of_what_lists_leave_out_are_checked(ratings, tmp_path):
    learn,had = makers['dot'](ratings),bought(ratings)
    strange = pd.concat([had, pd.DataFrame(dict(user=[-5], title=['Nowhere']))])
    with pytest.warns(UserWarning, match='unlisted, 1 of .* rows: .*they exclude nothing'): rec = load_recommender(learn.save_recommender(tmp_path/'b', unlisted=strange))
    assert same(listing(rec), listing(learn, exclude_seen=had))
    before = state(tmp_path/'b')
    with pytest.raises(ValueError, match="no column 'title'"): learn.save_recommender(tmp_path/'b', unlisted=had[['user']])
    with warnings.catch_warnings(action='ignore'),pytest.raises(ValueError, match='unlisted has no pair'): learn.save_recommender(tmp_path/'b', unlisted=strange.tail(1))
    for bad in ('yes',None,3,['a'],had):
        with pytest.raises(TypeError, match='(?s)seen=.* must be True or False'): learn.save_recommender(tmp_path/'b', seen=bad)
    for bad in ('yes',True,3,['a']):
        with pytest.raises(TypeError, match='unlisted must be a DataFrame.*It is a frame of pairs'): learn.save_recommender(tmp_path/'b', unlisted=bad)
    with pytest.raises(ValueError, match='ratings=True saves what users have seen'): learn.save_recommender(tmp_path/'b', seen=False, unlisted=had, ratings=True)
    assert state(tmp_path/'b')==before
    found = rec.own_unlisted.items
    rec.own_unlisted.items = torch.full_like(found, 10_000)
    with pytest.raises(ValueError, match='what lists leave out does not fit the labels'): rec.save_recommender(tmp_path/'b')
    assert state(tmp_path/'b')==before

days = pd.DatetimeIndex(np.array(['1500-01-01','2030-06-30T12:34:56'], 'datetime64[us]'))
def objects(*labels): return pd.Index(labels, dtype=object)

@pytest.mark.parametrize('labels,kind', [
    ([1,5,9], 'int64'), (np.array([3,200], 'uint8'), 'uint8'), ([-2**62,2**62], 'int64'), (np.array([1,2**64-1], 'uint64'), 'uint64'), (objects(1, 2**64-1), 'uint64'),
    (['a','b'], 'text'), (['','\u00e9\u4e2d\U0001F600','x'*5000], 'text'), (objects('a', 'b'), 'text'), ([True,False], 'bool'), (objects(True, False), 'bool'), ([.5,1.5], 'float64'),
    ([.5,np.inf], 'float64'), (pd.array([1,2**63], dtype='UInt64'), 'uint64'), (pd.array([1,5], dtype='Int64'), 'int64'), (pd.array([.5,5], dtype='Float64'), 'float64'),
    (pd.array([True,False], dtype='boolean'), 'bool'), (pd.CategoricalIndex(['b','a']), 'text'), (pd.CategoricalIndex([7,3]), 'int64'),
    (pd.to_datetime(['2020-01-01','2030-01-01']).as_unit('ns'), 'datetime64[ns]'), *((days.as_unit(o), f'datetime64[{o}]') for o in ('s','ms','us')),
    *((days[1:].tz_localize(o), f'datetime64[us, {o}]') for o in ('UTC','Europe/Berlin',datetime.timezone(datetime.timedelta(hours=5, minutes=30)))),
    (objects(datetime.date(1,1,1), datetime.date(2024,2,29)), 'date'), (objects(pd.Timestamp('2020-01-01', tz='Asia/Tokyo')), str(pd.to_datetime(['2020-01-01'], utc=True).dtype).replace('UTC', 'Asia/Tokyo'))])
def test_labels_of_any_kind(labels, kind):
    v = Vocab(pd.Index(labels), 'x')
    found,tensors = pack_labels(v)
    back = unpack_labels(found, tensors, 'x')
    assert found==kind and list(back)==list(v) and (v.encode(back.labels)>0).all() and (back.encode(v.labels)>0).all()
    assert getattr(back.labels, 'tz', None)==getattr(v.labels.infer_objects(), 'tz', None)

def test_labels_of_arrow():
    pa = pytest.importorskip('pyarrow')
    for values,dtype,kind in (([1,2**63],pa.uint64(),'uint64'), (['a','b'],pa.string(),'text'), (list(days[1:]),pa.timestamp('us', 'UTC'),'datetime64[us, UTC]'), ([datetime.date(2020,1,1)],pa.date32(),'date')):
        v = Vocab(pd.Index(pd.array(values, dtype=pd.ArrowDtype(dtype))), 'x')
        found,tensors = pack_labels(v)
        assert found==kind and list(unpack_labels(found, tensors, 'x'))==list(v)

@pytest.mark.parametrize('labels,error', [
    (objects(('a',1)), "labels of 'x' are of type tuple, .'a', 1. for one"), (pd.Index([('a',1)]), 'type tuple'), (objects(2**70), 'type int, 1180591620717411303424 for one'), (objects(1, 'a'), 'type int and str'),
    (objects(uuid.UUID(int=5)), 'type UUID'), (objects(decimal.Decimal('1.5')), 'type Decimal'), (objects(b'a'), "type bytes, b'a' for one"), (pd.to_timedelta([1], unit='s'), 'type Timedelta'),
    (pd.to_datetime(['2020-01-01']).tz_localize(dateutil.tz.tzoffset('x', 3600)), 'type Timestamp'), ([1.,np.nan], "a label of 'x' is missing"), (objects('a', None), "a label of 'x' is missing"), (objects('a', 'b\udcff'), 'is not valid text')])
def test_labels_that_cannot_be_saved(labels, error):
    with pytest.raises(ValueError, match=error): pack_labels(Vocab(pd.Index(labels), 'x'))

@pytest.mark.parametrize('kind,tensors', [('float16x',{}), ('int32',dict(values=torch.tensor([1]))), ('datetime64[us, dateutil/etc]',dict(steps=torch.tensor([1]))), ('datetime64[D]',{}), ('uint64',dict(values=torch.tensor([1])))])
def test_labels_of_no_kind(kind, tensors):
    with pytest.raises((BundleError,KeyError), match='not known here|are int64, not|steps'): unpack_labels(kind, tensors, 'x')

class Own(DotBias):
    def score(self, u, i, out=None): return super().score(u, i, out=out)
class Louder(DotBias):
    def forward(self, x): return super().forward(x)+1
class Act(torch.nn.ReLU): pass

@pytest.mark.skipif(os.name!='posix', reason='Windows has no such modes')
def test_all_files_of_a_folder_have_the_mode_of_new_files(ratings, tmp_path):
    "So that who may read one may read all, such as the user of a container"
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=0), 4, seed=0)
    (tmp_path/'new').touch()
    for _ in range(2): folder = learn.save_recommender(tmp_path/'films', ratings=True)
    assert {o.stat().st_mode for o in Path(folder).iterdir() if o.is_file()}=={(tmp_path/'new').stat().st_mode}


def test_models_that_cannot_be_saved(ratings, tmp_path):
    dls = RecDataLoaders.from_df(ratings, seed=1)
    for make,error in ((lambda: learner(dls, Own), 'a Own cannot be saved without a pickle.*use learn.export'), (lambda: learner(dls, Louder), 'a Louder cannot be saved'),
                       (lambda: nn_learner(dls, act_cls=Act()), 'a layer Act cannot be saved')):
        with pytest.warns(UserWarning, match=error): learn = make()
        for f in (check_savable, lambda o: o.save_recommender(tmp_path/'b')):
            with pytest.raises(ValueError, match=error): f(learn)
    learn = dot_learner(dls)
    learn.model.u_weight.weight.data[3,2] = np.nan
    with pytest.raises(ValueError, match='u_weight.weight has values that are not finite numbers'): learn.save_recommender(tmp_path/'b')
    assert not (tmp_path/'b').exists()

# ------------------------------------------------------------------ what is damaged
@pytest.fixture(scope='module')
def saved(ratings, tmp_path_factory): return makers['dot'](ratings).save_recommender(tmp_path_factory.mktemp('b')/'bundle')

def rewrite(folder, change):
    "Change the manifest, and give it the right checksum again"
    m = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    change(m)
    (folder/'manifest.json').write_text(json.dumps({**m, 'checksum': checksum(m)}), encoding='utf-8')

def swap_files(m): m['files'] = dict(zip(m['files'], reversed(m['files'].values())))
def other_name(name):
    def f(m): m['files'] = {name if k.startswith('model') else k: v for k,v in m['files'].items()}
    return f
def set_(*path, value):
    def f(m):
        for o in path[:-1]: m = m[o]
        m[path[-1]] = value
    return f

@pytest.mark.parametrize('damage,error', [
    (lambda d: (d/'manifest.json').unlink(), 'is not a saved recommender'), (lambda d: (d/'manifest.json').write_text('{', encoding='utf-8'), 'manifest.json is damaged'), (lambda d: (d/'manifest.json').write_text('[1]', encoding='utf-8'), 'does not describe'),
    (lambda d: (d/'manifest.json').write_text('['*100_000, encoding='utf-8'), 'manifest.json is damaged'), (lambda d: (d/'manifest.json').write_bytes(b' '*2**21), 'larger than a manifest'),
    (lambda d: (d/'manifest.json').write_text((d/'manifest.json').read_text(encoding='utf-8').replace('"clip": false', '"clip": true'), encoding='utf-8'), 'does not match its checksum'),
    (lambda d: rewrite(d, set_('version', value=2)), 'has version 2 of the format.*update fastrec'), (lambda d: rewrite(d, set_('version', value=None)), 'version None'),
    (lambda d: next(d.glob('model-*')).unlink(), 'has no file model-'), (lambda d: next(d.glob('seen-*')).write_bytes(b''), 'has 0 bytes, but'),
    (lambda d: (f := next(d.glob('model-*'))).write_bytes(f.read_bytes()[:-1]), 'were saved'), (lambda d: (f := next(d.glob('seen-*'))).write_bytes(f.read_bytes()[:-1]+b'x'), 'does not match its checksum'),
    (lambda d: rewrite(d, swap_files), 'were saved'), (lambda d: rewrite(d, other_name('../model-0123456789ab.safetensors')), 'not the name of a file'), (lambda d: rewrite(d, other_name('/etc/passwd')), 'not the name of a file'),
    (lambda d: (d/'more.pkl').write_bytes(b'\x80\x04.'), "holds 'more.pkl', which may be a pickle"), (lambda d: (f := next(d.glob('model-*'))).rename(d.parent/'elsewhere') and f.symlink_to(d.parent/'elsewhere'), 'or a link in its place'),
    (lambda d: rewrite(d, set_('model', 'kind', value='os.system')), "kind 'os.system' is not known"), (lambda d: rewrite(d, set_('columns', value=3)), 'does not fit together'),
    (lambda d: rewrite(d, set_('labels', value=['int64','int64'])), "labels of 'user' are int32, not int64"), (lambda d: rewrite(d, lambda m: m.pop('noise')), 'does not fit together'), (lambda d: rewrite(d, set_('files', value={})), '0 models'),
    (lambda d: rewrite(d, lambda m: [v['tensors'].update(counts=['int64',[10**12]]) for k,v in m['files'].items() if k[0]=='m']), 'holds other tensors than were saved')])
def test_damaged(saved, tmp_path, damage, error):
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    damage(folder)
    with pytest.raises((BundleError,FileNotFoundError), match=error): load_recommender(folder)

def test_folders_of_a_newer_fastrec_are_refused_with_what_to_do(saved, tmp_path):
    "Before anything else is read: what is new may stand anywhere"
    def newer(m):
        m.update(version=2, checksum_of='all', model=['new'], files='elsewhere', trained_with=dict(fastrec='9.1.0'))
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    rewrite(folder, newer)
    want = r'has version 2 of the format, from fastrec 9.1.0, and this is fastrec .*, which reads version 1: update fastrec, or save the model again'
    with pytest.raises(BundleError, match=want): load_recommender(folder)
    for odd in (None,3,dict(fastrec=7),{}):
        rewrite(folder, set_('trained_with', value=odd))
        with pytest.raises(BundleError, match='has version 2 of the format, and this is'): load_recommender(folder)
    kind = Path(shutil.copytree(saved, tmp_path/'kind'))
    rewrite(kind, set_('model', 'kind', value='transformer'))
    with pytest.raises(BundleError, match="the kind 'transformer' is not known here: if a newer fastrec saved it, update this one"): load_recommender(kind)

def test_mixed_up(saved, ratings, tmp_path):
    "Files that are whole, but of another model"
    other = makers['dot'](ratings.head(3000)).save_recommender(tmp_path/'other')
    for part in ('model','seen'):
        folder = Path(shutil.copytree(saved, tmp_path/part))
        mine,theirs = next(folder.glob(part+'-*')),next(other.glob(part+'-*'))
        shutil.copy(theirs, mine)
        m = json.loads((other/'manifest.json').read_text(encoding='utf-8'))['files'][theirs.name]
        with pytest.raises(BundleError, match='were saved'): load_recommender(folder)
        rewrite(folder, set_('files', mine.name, value=m))
        if part=='seen':
            with pytest.raises(BundleError, match='what users have seen does not fit the labels'): load_recommender(folder)

# ------------------------------------------------------------------ faults
def test_other_folders_are_left_alone(saved, tmp_path):
    (tmp_path/'thesis.txt').write_text('x', encoding='utf-8')
    with pytest.raises(ValueError, match="holds 'thesis.txt' and no saved recommender"): load_recommender(saved).save_recommender(tmp_path)
    assert [o.name for o in tmp_path.iterdir()]==['thesis.txt']

def test_a_manifest_of_another_program_is_left_alone(saved, tmp_path):
    (tmp_path/'manifest.json').write_text('{"name": "an app"}', encoding='utf-8')
    with pytest.raises(ValueError, match="holds 'manifest.json' and no saved recommender"): load_recommender(saved).save_recommender(tmp_path)
    assert (tmp_path/'manifest.json').read_text(encoding='utf-8')=='{"name": "an app"}'
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    (folder/'manifest.json').write_text('{"format":', encoding='utf-8')
    assert load_recommender(load_recommender(saved).save_recommender(folder))

def state(folder): return sorted((o.name,o.stat().st_size,o.stat().st_mtime_ns) for o in folder.iterdir())
def small(**kwargs): return dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0), seed=1, bs=64), 4, **kwargs)

def weight_norm(l): torch.nn.utils.parametrizations.weight_norm(l.model.u_weight)
def hook(l): l.model.register_forward_hook(lambda m,x,y: y+1)
def patched(l): l.model.forward = lambda x: torch.ones(len(x))
def on_model(**kwargs): return lambda l: vars(l.model).update(kwargs)
def column(name):
    def f(l): l.dls.train_ds.rating_name = name
    return f
def seen_elsewhere(l): l.dls._seen = small().fold_in(pd.DataFrame(dict(user=[1,1], title=l.dls.classes['title'].labels[:2], rating=3))).seen
def bad_counts(l): l.seen.counts = -l.seen.counts-1

@pytest.mark.parametrize('spoil,error', [
    (weight_norm, 'could not be loaded again'), (hook, 'its predictions are off by 1'), (patched, 'cannot be saved without a pickle'), (on_model(y_range=(0,np.inf)), 'no valid model.y_range'),
    (on_model(y_range=(np.nan,5)), 'no valid model.y_range'), (column(('a',1)), 'has a name that cannot be saved'), (column(1.5), 'the column 1.5 of the ratings'), (column(True), 'the column True'),
    (column(None), 'the column None'), (seen_elsewhere, 'what users have seen does not fit'), (bad_counts, 'counts of ratings do not fit')], ids=lambda o: getattr(o, '__name__', None))
def test_what_could_not_be_loaded_replaces_nothing(saved, tmp_path, spoil, error):
    folder,learn = Path(shutil.copytree(saved, tmp_path/'b')),small()
    learn.seen
    spoil(learn)
    before = state(folder)
    for f in (folder,tmp_path/'new'):
        with pytest.raises(ValueError, match=error): learn.save_recommender(f)
    assert state(folder)==before and load_recommender(folder) and not (tmp_path/'new'/'manifest.json').exists()

@pytest.mark.parametrize('metrics,error', [(dict(rmse=np.nan), r"metrics\['rmse'\] is nan"), (dict(a=1, b=float('inf')), r"metrics\['b'\]"), (dict(a=[.5,np.nan]), r"metrics\['a'\]"), (dict(a=object()), r"metrics\['a'\]"),
                                           (dict(a=torch.tensor(np.nan)), r"metrics\['a'\]"), (.5, 'metrics must be a dict'), ([('a',1)], 'metrics must be a dict')])
def test_metrics_that_cannot_be_saved(saved, tmp_path, metrics, error):
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    before = state(folder)
    with pytest.raises((ValueError,TypeError), match=error): small().save_recommender(folder, metrics=metrics)
    assert state(folder)==before

def test_metrics_as_people_have_them(tmp_path):
    metrics = {10: np.float32(.5), 2: torch.tensor(.25), 'folds': np.array([.5,.75]), 'n': np.int64(3), 'of': pd.Series([1,2]), 'by': dict(a=.5)}
    kept = load_recommender(small().save_recommender(tmp_path/'b', metrics=metrics)).manifest['metrics']
    assert kept=={'10': .5, '2': .25, 'folds': [.5,.75], 'n': 3, 'of': [1,2], 'by': dict(a=.5)}
    assert load_recommender(small().save_recommender(tmp_path/'b', metrics=pd.Series(dict(ndcg=.5)))).manifest['metrics']==dict(ndcg=.5)

def test_numbers_as_names_of_columns(saved, tmp_path):
    "They are saved as what they are, in the place of a good model"
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)[['user','title','rating']].set_axis([0,1,2], axis=1)
    learn = dot_learner(RecDataLoaders.from_df(df, user_name=0, item_name=1, rating_name=2, seed=1, bs=64), 4)
    loaded = load_recommender(learn.save_recommender(shutil.copytree(saved, tmp_path/'b')), 'cpu')
    assert loaded.ds.cat_names==[0,1] and loaded.ds.rating_name==2 and loaded.manifest['columns']==dict(user=0, item=1, rating=2, time=None)
    pd.testing.assert_frame_equal(loaded.recommend(n=3), learn.recommend(n=3), check_categorical=False)
    known = df[df[0].isin(learn.dls.classes[0].labels) & df[1].isin(learn.dls.classes[1].labels)]
    assert np.allclose(loaded.predict_df(known), learn.predict_df(known))
    mine = known[known[0]==known[0].iloc[0]][[1,2]]
    assert torch.equal(loaded.fold_in(mine).predict_grid(), learn.fold_in(mine).predict_grid())

def test_a_range_of_numpy(tmp_path):
    learn = small(y_range=np.array([0,5.5], 'float32'))
    learn.model.y_range = (np.float32(0),np.int64(6))
    assert load_recommender(learn.save_recommender(tmp_path/'b')).model.y_range==(0,6)

def failing(f, k, error):
    "`f`, but its `k`-th call raises `error`"
    calls = iter(range(1000))
    def g(*args, **kwargs):
        if next(calls)==k: raise error
        return f(*args, **kwargs)
    return g

@pytest.mark.parametrize('owner,name,calls', [(files,'save_file',2), (files,'_sync',3), (files,'sha256',2), (Path,'replace',3), (Path,'write_text',1), (bundle,'read_back',1)], ids=lambda o: o if isinstance(o, str) else '')
@pytest.mark.parametrize('error', [OSError(28, 'No space left on device'), KeyboardInterrupt()], ids=['full','interrupted'])
def test_a_step_that_fails(saved, tmp_path, monkeypatch, owner, name, calls, error):
    folder,learn = Path(shutil.copytree(saved, tmp_path/'b')),small()
    before = state(folder)
    for k in range(calls):
        with monkeypatch.context() as m:
            m.setattr(owner, name, failing(getattr(owner, name), k, error))
            with pytest.raises(type(error)): learn.save_recommender(folder)
        assert state(folder)==before and load_recommender(folder)

def test_a_folder_that_cannot_be_synchronised(tmp_path, monkeypatch):
    "Some file systems refuse, when the new recommender is in its place"
    def refuse(fd): raise OSError(22, 'Invalid argument')
    fsync,monkeypatch_at = os.fsync,lambda fd: refuse(fd) if os.path.isdir(f'/proc/self/fd/{fd}') else fsync(fd)
    monkeypatch.setattr(os, 'fsync', monkeypatch_at)
    assert load_recommender(small().save_recommender(tmp_path/'b'))

def test_interrupted_at_any_line(tmp_path):
    "Ctrl-C wherever the save is: what is loaded is the old recommender or the new one"
    old,new = small(),small(y_range=(0,6))
    folder = old.save_recommender(tmp_path/'b')
    class Stop(BaseException): pass
    def run(k):
        lines = iter(range(10**6))
        def line(frame, event, arg):
            if event=='line' and next(lines)==k: raise Stop
            return line
        here = Path(fastrec.export.__file__).parent
        sys.settrace(lambda frame, event, arg: line if Path(frame.f_code.co_filename).parent==here else None)
        try: new.save_recommender(folder)
        finally: sys.settrace(None)
    k,found = 0,set()
    while True:
        try: run(k)
        except Stop:
            found.add(load_recommender(folder, 'cpu').model.y_range)
            shutil.rmtree(folder)
            old.save_recommender(folder)
            k += 13 if n_kills==3 else 1
        else: break
    assert k>100 and len(found)==2

# ------------------------------------------------------------------ Windows, where a file that somebody reads can neither be removed nor replaced
def test_an_old_file_that_is_still_mapped(saved, tmp_path, monkeypatch):
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    held,unlink = {o.name for o in folder.glob('*.safetensors')},Path.unlink
    def refuse(self, *args, **kwargs):
        if self.name in held: raise PermissionError(13, 'The process cannot access the file because it is being used by another process')
        return unlink(self, *args, **kwargs)
    with monkeypatch.context() as m:
        m.setattr(Path, 'unlink', refuse)
        learn = small()
        assert same(load_recommender(learn.save_recommender(folder), 'cpu').recommend(n=2), learn.recommend(n=2))
    assert held<={o.name for o in folder.iterdir()}
    for o in held: os.utime(folder/o, (1e9,1e9))
    learn.save_recommender(folder)
    assert not held&{o.name for o in folder.iterdir()}

def test_a_manifest_that_somebody_reads(saved, tmp_path, monkeypatch):
    folder,replace,refused = Path(shutil.copytree(saved, tmp_path/'b')),Path.replace,[]
    def refuse(self, to, n):
        if Path(to).name=='manifest.json' and len(refused)<n: raise refused.append(to) or PermissionError(13, 'The process cannot access the file')
        return replace(self, to)
    before,learn = state(folder),small()
    monkeypatch.setattr('fastrec.base.files.time.sleep', lambda s: None)
    monkeypatch.setattr(Path, 'replace', lambda self, to: refuse(self, to, 100))
    with pytest.raises(PermissionError): learn.save_recommender(folder)
    assert state(folder)==before
    refused.clear()
    monkeypatch.setattr(Path, 'replace', lambda self, to: refuse(self, to, 3))
    assert same(load_recommender(learn.save_recommender(folder), 'cpu').recommend(n=2), learn.recommend(n=2)) and len(refused)==3

def test_a_failed_save_whose_files_cannot_be_removed(saved, tmp_path, monkeypatch):
    "The error is the first one"
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    def refuse(self, *args, **kwargs): raise PermissionError(13, 'in use')
    monkeypatch.setattr(Path, 'unlink', refuse)
    monkeypatch.setattr(bundle, 'read_back', failing(None, 0, OSError(28, 'No space left on device')))
    with pytest.raises(OSError, match='No space left'): small().save_recommender(folder)
    assert load_recommender(folder)

posix = pytest.mark.skipif(os.name!='posix', reason='by the limits and owners that POSIX knows')

@contextmanager
def full_disk(room=2000):
    "No file may have more than `room` bytes"
    import resource
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (room,limits[1]))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)

@posix
def test_disk_full(saved, tmp_path):
    "A save for which there is no room leaves the one before"
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    before = sorted((o.name,o.stat().st_size) for o in folder.iterdir())
    rec = load_recommender(folder)
    with full_disk(),pytest.raises(OSError, match='could not be written|too large'): rec.save_recommender(folder)
    assert sorted((o.name,o.stat().st_size) for o in folder.iterdir())==before and same(load_recommender(folder).recommend(), rec.recommend())

@posix
def test_read_only_folder(saved):
    "Who may read but not write, which as root is somebody else"
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    shutil.copytree(saved, folder/'b')
    rec,root = load_recommender(folder/'b'),os.geteuid()==0
    for o in (folder/'b',*(folder/'b').iterdir()): o.chmod(0o555)
    if root: os.seteuid(65534)
    try:
        with pytest.raises(OSError, match='could not be written'): rec.save_recommender(folder/'b')
        assert same(load_recommender(folder/'b').recommend(), rec.recommend())
    finally:
        if root: os.seteuid(0)
        (folder/'b').chmod(0o755)
        shutil.rmtree(folder)

saver = '''
from fastrec.export.loading import load_recommender
recs = [load_recommender(o, 'cpu') for o in sys.argv[1:3]]
ready(True)
for k in range(10**6): recs[k%2].save_recommender(sys.argv[3])
'''
trainer = '''
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastrec.all import *
learn = dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=200, n_items=120, n_ratings=2000), seed=1, bs=512, path=sys.argv[1]), 200)
learn.save('model')
ready(True)
with learn.no_bar(),learn.no_logging(): learn.fit(10**6, cbs=SaveModelCallback(comp=lambda *_: True))
'''
writer = '''
from fastrec.export.loading import load_recommender
rec = load_recommender(sys.argv[1], 'cpu')
rec.recommend(n=2, path=sys.argv[2])
ready(True)
for k in range(10**6): rec.recommend(n=2+k%2, path=sys.argv[2], max_bytes=2000)
'''
n_kills = int(os.environ.get('FASTREC_KILLS', 3))

def killed(code, args, n, check):
    "Kill `n` processes that run `code` at random moments, and `check` before and after"
    rng = np.random.default_rng(0)
    for _ in range(n):
        p,said = started(code, *args)
        assert said.recv()
        for _ in range(3):
            time.sleep(rng.uniform(0, .03))
            check()
        p.kill()
        p.join()
        check()

@pytest.fixture(scope='module')
def two(saved, ratings, tmp_path_factory):
    "Two saved recommenders of different kinds"
    return saved,makers['nn'](ratings).save_recommender(tmp_path_factory.mktemp('c')/'bundle')

def test_killed_while_saving(two, tmp_path):
    folder = load_recommender(two[0]).save_recommender(tmp_path/'b')
    def check(): assert load_recommender(folder, 'cpu').manifest['model']['kind'] in ('dot','net')
    killed(saver, (*two,folder), n_kills, check)

def test_killed_while_training(tmp_path):
    def check(): assert torch.load(tmp_path/'models'/'model.pth', weights_only=True)
    killed(trainer, (tmp_path,), max(n_kills//5, 2), check)

def test_killed_while_writing_parquet(two, tmp_path):
    def check(): assert len(pd.read_parquet(tmp_path/'recs.parquet')) in [k*len(load_recommender(two[0]).ds.classes['user'].labels) for k in (2,3)]
    killed(writer, (two[0],tmp_path/'recs.parquet'), max(n_kills//5, 2), check)

def test_leftovers_are_swept_away(saved, tmp_path):
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    old,new,foreign = folder/'model-0123456789ab.safetensors.part',folder/'seen-0123456789ab.safetensors',folder/'notes.txt'
    for o in (old,new,foreign): o.write_text('x', encoding='utf-8')
    os.utime(old, (1e9,1e9))
    load_recommender(folder).save_recommender(folder)
    assert not old.exists() and new.exists() and foreign.exists() and load_recommender(folder)

def test_a_killed_save_is_told_once_it_is_an_hour_old(saved, tmp_path):
    "Its manifest that was begun keeps its files until then, as for a save that goes on"
    from fastrec.export.files import files_left
    folder = Path(shutil.copytree(saved, tmp_path/'b'))
    left = {f'model-{"1"*12}.safetensors',f'seen-{"1"*12}.safetensors.part',f'manifest-{"1"*12}.json.part'}
    for o in left: (folder/o).touch()
    named = {o.name for o in folder.glob('*-*') if o.name not in left}
    assert files_left(folder, named)=={}
    for o in left: os.utime(folder/o, (time.time()-4000,)*2)
    assert {*files_left(folder, named)}==left
    load_recommender(folder).save_recommender(folder)
    assert not left & {o.name for o in folder.iterdir()}

def test_a_damaged_manifest_leaves_nothing_of_who_is_gone(saved, tmp_path):
    "What was saved with it goes with the next save, but not what is newer, or of a save that goes on"
    folder,rec = Path(shutil.copytree(saved, tmp_path/'b')),load_recommender(saved)
    old = {o.name for o in folder.glob('*.safetensors')}
    os.truncate(folder/'manifest.json', 99)
    kept = {f'seen-{"1"*12}.safetensors',f'manifest-{"1"*12}.json.part',f'seen-{"2"*12}.safetensors'}
    for o in kept: (folder/o).touch()
    for o in old: os.utime(folder/o, (time.time()-60,)*2)
    os.utime(folder/'manifest.json', (time.time()-50,)*2)
    rec.save_recommender(folder)
    names = {o.name for o in folder.iterdir()}
    assert not names&old and kept<=names and load_recommender(folder)

save_often = '''
from fastrec.export.loading import load_recommender
rec = load_recommender(sys.argv[1], 'cpu')
for _ in range(10): rec.save_recommender(sys.argv[2])
'''

def test_two_processes_save_to_one_folder(two, tmp_path):
    folder = tmp_path/'b'
    load_recommender(two[0]).save_recommender(folder)
    ps = [started(save_often, o, folder)[0] for o in two]
    while any(p.is_alive() for p in ps): assert load_recommender(folder, 'cpu').manifest['model']['kind'] in ('dot','net')
    assert [p.exitcode for p in ps]==[0,0] and load_recommender(folder).manifest['model']['kind'] in ('dot','net')

def test_without_fastai(saved):
    "Loading and asking imports neither fastai nor what comes with it"
    code = f"import sys,fastrec; r = fastrec.load_recommender({str(saved)!r}); r.recommend(n=3); print(sorted({{m.split('.')[0] for m in sys.modules}} & set('fastai torchvision spacy sklearn scipy matplotlib IPython fastprogress'.split())))"
    assert subprocess.check_output([sys.executable, '-c', code], text=True).strip()=='[]'

# ------------------------------------------------------------------ other ways to keep a model
def test_pickle_for_those_who_accept_it(ratings, tmp_path):
    learn = makers['dot'](ratings)
    learn.path = tmp_path
    learn.export('l.pkl')
    with pytest.warns(UserWarning, match='pickle'): loaded = load_learner(tmp_path/'l.pkl')
    assert np.allclose(loaded.predict_grid(), learn.predict_grid())

def exporting(tmp_path):
    "A learner that has been trained, and an export and weights of it in `tmp_path`"
    learn = small()
    learn.path = tmp_path
    with learn.no_logging(): learn.fit(1)
    learn.export('l.pkl')
    return learn,learn.save('w')

def test_an_export_leaves_the_learner_alone(tmp_path):
    learn,_ = exporting(tmp_path)
    held,opt,lists = learn.dls,learn.opt,learn.recommend(n=2)
    class Slow(Callback):
        "Asks the learner while it is pickled, and fails when told to"
        asked,fails = 0,False
        def __getstate__(self):
            rec = self.learn
            with ThreadPoolExecutor(1) as pool: assert same(pool.submit(rec.recommend, n=2).result(), lists) and len(rec.dls.train_ds)
            Slow.asked += 1
            if Slow.fails: raise TypeError('cannot be pickled')
            return {'learn': rec}
    learn.add_cb(Slow())
    learn.export('l.pkl', pickle_module=cloudpickle)
    Slow.fails = True
    with pytest.raises(TypeError, match='cannot be pickled'): learn.export('l.pkl', pickle_module=cloudpickle)
    with pytest.raises(FileNotFoundError, match='nowhere, where l.pkl would go, is not a folder'): learn.export('nowhere/l.pkl')
    with pytest.raises(FileExistsError, match='models is a folder or a device'): learn.export('models')
    assert learn.dls is held and learn.opt is opt and Slow.asked==2 and same(learn.recommend(n=2), lists)
    Slow.fails = False
    loaded = load_learner(tmp_path/'l.pkl')
    assert not len(loaded.dls.train_ds) and loaded.opt is None and all(cb.learn is loaded for cb in loaded.cbs)
    assert same(loaded.recommend(n=2, exclude_seen=False), learn.recommend(n=2, exclude_seen=False))
    assert sorted(o.name for o in tmp_path.iterdir())==['l.pkl','models']
    learn.remove_cbs(Slow)
    assert len(pickle.loads(pickle.dumps(learn)).dls.train_ds)==len(held.train_ds)  # a pickle that is no export has the ratings

@posix
def test_an_export_replaces_nothing_but_files(tmp_path):
    "A pipe, as a device, is there for others"
    os.mkfifo(tmp_path/'pipe')
    with pytest.raises(FileExistsError, match='pipe is a folder or a device'): small(path=tmp_path).export('pipe')
    assert (tmp_path/'pipe').is_fifo() and len([*tmp_path.iterdir()])==1

@posix
def test_exports_and_weights_on_a_full_disk(tmp_path):
    learn,file = exporting(tmp_path)
    before = {o: o.read_bytes() for o in (tmp_path/'l.pkl',file)}
    with full_disk():
        with pytest.raises(OSError, match=r'l\.pkl could not be written, the disk may be full: .*too large'): learn.export('l.pkl')
        with pytest.raises(OSError, match=r'w\.pth could not be written, the disk may be full: .*too large'): learn.save('w')
    assert {o: o.read_bytes() for o in tmp_path.rglob('*.*')}==before and len(learn.dls.train_ds)

@pytest.mark.skipif(sys.platform!='linux', reason='elsewhere names of files are text')
def test_folders_whose_names_are_no_text(tmp_path):
    folder = Path(os.fsdecode(os.fsencode(tmp_path)+b'/\xff\xfe'))
    folder.mkdir()
    learn,_ = exporting(folder)
    learn.load('w')
    loaded = load_recommender(learn.save_recommender(folder/'saved'), 'cpu')
    assert same(loaded.recommend(), learn.recommend()) and len(load_learner(folder/'l.pkl').recommend(n=1, exclude_seen=False))

def test_checkpoints_load_without_code(ratings, tmp_path, monkeypatch):
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1, path=tmp_path), shrink=False)
    with learn.no_logging(): learn.fit(2, cbs=SaveModelCallback(monitor='rmse'))
    state = torch.load(tmp_path/'models'/'model.pth', weights_only=True)
    assert all(torch.equal(v, learn.model.state_dict()[k]) for k,v in state.items())
    learn.save('both')
    asked,load = [],torch.load
    monkeypatch.setattr(torch, 'load', lambda *args, **kwargs: asked.append(kwargs) or load(*args, **kwargs))
    learn.load('both')
    assert asked[0]['weights_only']

def test_factors_as_parquet(pair, tmp_path):
    rec,_,_ = pair
    for file,vocab,tables in zip(rec.save_factors(tmp_path/'f'), rec.ds.classes.values(), rec.model.tables):
        df = pd.read_parquet(file)
        assert df[vocab.name].tolist()==list(vocab.labels) and np.allclose(np.stack(df.factors), tables[0].weight.detach()[1:]) and ('bias' in df)==(len(tables)==2)

def test_factors_beside_a_column_of_their_name(tmp_path):
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)[['user','title','rating']]
    for name in ('bias','factors'):
        with pytest.raises(ValueError, match=f"cannot be called '{name}'"): RecDataLoaders.from_df(df.rename(columns=dict(title=name)), item_name=name)

def test_faiss_finds_the_lists_of_a_blend(tmp_path):
    pytest.importorskip('faiss')
    df = sample_ratings(n_users=200, n_items=100, n_ratings=6000)
    dls = RecDataLoaders.from_df(df, seed=0)
    learn = learner(dls, seed=0)
    with learn.no_bar(),learn.no_logging():
        learn.fit_blend(weight=.3)
        with pytest.raises(ValueError, match=r"fit_blend\(choices='fit_ials'\)"): learn.faiss_index()
        learn.fit_blend(weight=.3, choices='fit_ials')
    users = dls.classes['user'].labels[:30]
    got,want = learn.faiss_index().search(users, n=7),learn.recommend(users, n=7)
    assert got.title.tolist()==want.title.tolist() and list(got)==list(want)
    assert np.allclose(got.score, want.score, atol=1e-4) and np.allclose(got.rating_pred, want.rating_pred, atol=1e-4)
    had,index = df[::3],learn.faiss_index()
    for o in (had,False): assert index.search(users, n=7, exclude_seen=o).title.tolist()==learn.recommend(users, n=7, exclude_seen=o).title.tolist()
    with pytest.raises(TypeError, match='exclude_seen'): index.search(users, exclude_seen='no')
    unknown = load_recommender(learn.save_recommender(tmp_path/'b', seen=False))
    with pytest.raises(ValueError, match='what users have seen is not known here'): unknown.faiss_index().search(users)

def test_faiss(pair):
    pytest.importorskip('faiss')
    rec,loaded,_ = pair
    users = rec.ds.classes[rec.ds.user_name].labels[:25]
    if isinstance(rec.model, DeepMF) or 'layers' in dict(rec.model.named_children()):
        with pytest.raises(ValueError, match='scores of a network are not products'): rec.faiss_index()
        return
    for o in (rec,loaded):
        got,want = o.faiss_index().search(users, n=7),o.recommend(users, n=7)
        assert np.allclose(got.score, want.score, atol=1e-5) and (got.iloc[:,2].astype(str)==want.iloc[:,2].astype(str)).mean()>.97  # but for ties
    with pytest.raises(ValueError, match="factory='nonsense' is not an index that faiss can build"): rec.faiss_index('nonsense')
    some = rec.faiss_index('HNSW16').search(users[0], n=5, exclude_seen=False)
    assert len(some)==5 and some['rank'].tolist()==[1,2,3,4,5]

def test_saved_index(ratings, tmp_path):
    faiss = pytest.importorskip('faiss')
    learn = makers['dot'](ratings)
    folder = learn.faiss_index().save(tmp_path/'i')
    index,labels,user = faiss.read_index(str(folder/'items.faiss')),pd.read_parquet(folder/'labels.parquet').title,learn.dls.classes['user'].labels[5]
    with torch.no_grad(): found = index.search(learn.model.user_side(torch.tensor([6])).numpy(), 5)[1][0]
    assert labels[found].tolist()==learn.recommend(user, n=5, exclude_seen=False).title.astype(str).tolist()
