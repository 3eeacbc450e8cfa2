"""Dataloaders: what they make of good frames, and what they say to bad ones"""

import random,sys
from functools import partial
import warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import CollabDataLoaders,collab_learner
from fastai.data.transforms import ColSplitter,EndSplitter,IndexSplitter
from fastai.callback.tracker import SaveModelCallback
from fastai.interpret import Interpretation
from fastai.torch_core import noop
from conftest import quietly,write_release
from fastrec.data import loaders
from fastrec.data.loader import RatingsDL
from fastrec.all import LeaveLastSplitter,RecDataLoaders,SeededSplitter,TimeSplitter,UserSplitter,dot_learner,learner,load_recommender,nn_learner,sample_ratings

def all_rows(dl):
    "Every row of an epoch as labels, sorted"
    df = pd.concat([dl.decode(b) for b in dl])
    return df.sort_values(list(df), ignore_index=True)

def expected(df, names=('user','title','rating')):
    df = df[list(names)].astype({names[1]: 'str'})
    return df.sort_values(list(names), ignore_index=True)

# ------------------------------------------------------------------ what an epoch holds
def test_epoch_is_a_permutation(ratings, dls):
    first,second = (torch.cat([x for x,_ in dls.train]) for _ in range(2))
    assert not first.equal(second)
    both = pd.concat([all_rows(dls.train), all_rows(dls.valid.new())])
    assert len(both)==6000 and sorted(both.rating)==sorted(ratings.rating)
    train = all_rows(dls.train)
    assert len(train)==4800 and len(train.merge(ratings.astype(dict(title='str')), on=['user','title','rating']))==4800

@pytest.mark.parametrize('n,bs,sizes', [(1001,400,[400,301,300]), (800,400,[400,400]), (401,400,[201,200]), (400,400,[400]), (5,2,[2,2,1])])
def test_batch_sizes(n, bs, sizes):
    df = pd.DataFrame(dict(user=np.arange(n+1)%7, item=np.arange(n+1), rating=1.))
    make = lambda **kw: RecDataLoaders.from_df(df, IndexSplitter([n]), bs=bs, **kw).train
    assert [len(x) for x,_ in make()]==sizes and len(make())==len(sizes)
    whole = make(drop_last=True)
    assert [len(x) for x,_ in whole]==[bs]*(n//bs) and len(whole)==n//bs

def test_batches_fit_the_model(dls):
    x,y = dls.one_batch()
    assert (x.dtype,x.shape,y.dtype,y.shape)==(torch.int32,(256,2),torch.float32,(256,))
    assert isinstance(dls, CollabDataLoaders) and dls.n_inp==1 and dls.device==torch.device('cpu')

@pytest.mark.parametrize('make', [lambda s: s, lambda s: s.astype(str), lambda s: s.astype(float), lambda s: s.astype('category'), lambda s: s.astype('int64'),
                                  lambda s: s.astype(object), lambda s: s.astype(str).astype('category'), lambda s: pd.to_datetime(s, unit='s'), lambda s: s.astype('Int64')])
def test_labels_of_any_type(ratings, make):
    df = ratings.assign(user=make(ratings.user), title=make(ratings['item']))
    dls = RecDataLoaders.from_df(df, seed=1, bs=256)
    stranger = df.head(1).assign(user=make(pd.Series([ratings.user.max()+1])).to_numpy())
    with pytest.warns(UserWarning, match="1 of 1 rows: 1 unknown in 'user'"): assert not len(dls.test_dl(stranger, unknown='drop').dataset)
    got = dls.test_dl(df[df.user.isin(dls.classes['user'].labels.tolist())], unknown='drop')
    assert (dls.train_ds.decode(got.dataset.x).user.to_numpy()==df.user.loc[got.dataset.index].to_numpy()).all()
    assert all_rows(dls.train).title.isin(df.title.astype(dls.classes['title'].labels.dtype)).all()
    plain = RecDataLoaders.from_df(ratings.assign(title=ratings['item']), seed=1, bs=256)
    if df.title.dtype.kind in 'if': assert plain.train_ds.x.equal(dls.train_ds.x)

def test_vocabulary_is_of_training_rows(ratings):
    dls = RecDataLoaders.from_df(ratings, UserSplitter(seed=1), bs=64)
    train,valid = UserSplitter(seed=1)(ratings)
    assert list(dls.classes['user'])==['#na#', *sorted(ratings.user.iloc[train].unique())]
    assert (dls.valid_ds.x[:,0]==0).all() and (dls.train_ds.x>0).all()

def test_repeated_pairs_are_kept(ratings):
    with pytest.warns(UserWarning, match="50% of the rows repeat a pair of 'user' and 'title'.*drop_duplicates"): dls = RecDataLoaders.from_df(pd.concat([ratings]*2), EndSplitter(.5), bs=64)
    assert len(dls.train_ds)==len(dls.valid_ds)==len(ratings)

@pytest.mark.parametrize('splitter', [TimeSplitter(), LeaveLastSplitter(), UserSplitter(seed=1), ColSplitter('held'), IndexSplitter([1,2,3]), EndSplitter()])
def test_any_splitter(ratings, splitter):
    df = ratings.assign(held=ratings.timestamp%5==0)
    train,valid = splitter(df)
    dls = RecDataLoaders.from_df(df, splitter, bs=64)
    assert (len(dls.train_ds),len(dls.valid_ds))==(len(train),len(valid))
    assert sorted(dls.train_ds.y.tolist())==sorted(df.rating.iloc[list(train)])

@pytest.mark.parametrize('make', [list, np.asarray, pd.Series, torch.tensor])
def test_masks_are_masks(ratings, make):
    mask = (ratings.timestamp%5==0).tolist()
    dls = RecDataLoaders.from_df(ratings, lambda o: (make([not m for m in mask]),make(mask)), bs=64)
    assert len(dls.valid_ds)==sum(mask) and sorted(dls.valid_ds.y.tolist())==sorted(ratings.rating[mask])

def test_overlap_is_said(ratings):
    with pytest.warns(UserWarning, match='^10 validation rows are training rows too'): RecDataLoaders.from_df(ratings, lambda o: (range(6000),range(10)), bs=64)

def test_numbered_columns(ratings):
    with pytest.warns(UserWarning, match='taken for users: 0, items: 1, ratings: 2; if that is wrong, name them with user_name'):
        dls = RecDataLoaders.from_df(ratings[['user','title','rating']].set_axis(range(3), axis=1), bs=64)
    assert list(dls.show_batch(show=False))==[0,1,2]

def test_sizes_and_path(ratings, tmp_path):
    dls = RecDataLoaders.from_df(ratings, bs=64, val_bs=100, path=tmp_path)
    assert (dls.train.bs,dls.valid.bs,dls.path)==(64,100,tmp_path) and RecDataLoaders.from_df(ratings, bs=64).valid.bs==512
    assert [len(x) for x, in dls.test_dl(dls.train_ds.decode(dls.train_ds.x[:9]), bs=4)]==[4,3,2]

def test_seed(ratings):
    def batches(seed): return torch.cat([torch.cat([x, y[:,None].int()], 1) for _ in range(2) for x,y in RecDataLoaders.from_df(ratings, seed=seed, bs=64).train])
    state = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    assert batches(3).equal(batches(3)) and not batches(3).equal(batches(4))
    assert torch.get_rng_state().equal(state[0]) and (np.random.get_state()[1]==state[1]).all() and random.getstate()==state[2]
    order = lambda seed: next(iter(RecDataLoaders.from_df(ratings, EndSplitter(), seed=seed, bs=64).train))[0]
    assert order(3).equal(order(np.int64(3))) and not order(3).equal(order(4))

@pytest.mark.parametrize('splitter,error', [('date', "splitter='date' must be a function of a frame, such as TimeSplitter"), (TimeSplitter, r'call it first, as in splitter=TimeSplitter\(\)'), (5, 'splitter=5 must be'), (.1, r'splitter=0\.1 must be a function.*; a share of the rows is valid_pct=0\.1')])
def test_what_is_no_splitter(ratings, splitter, error):
    with pytest.raises(TypeError, match=error): RecDataLoaders.from_df(ratings, splitter)

@pytest.mark.parametrize('n,bs', [(100_000,512), (30_000,256), (6000,64), (640,64), (600,60), (100,10), (10,2), (2,1)])
def test_batches_of_small_frames(ratings, n, bs):
    "An epoch has some steps, however few the ratings are"
    ratings = ratings.head(n) if n<=6000 else sample_ratings(2000, 1000, n)
    dls = RecDataLoaders.from_df(ratings, valid_pct=.5 if n==2 else .2, seed=1)
    assert (dls.train.bs,dls.valid.bs)==(bs,8*bs)

# ------------------------------------------------------------------ columns
def test_columns_by_name_then_by_place(ratings):
    moved = ratings[['timestamp','rating','title','item','user']]
    assert RecDataLoaders.from_df(moved, bs=64).train_ds.cat_names==['user','title']
    other = ratings.rename(columns=dict(user='who', title='what', rating='stars'))[['who','what','stars','timestamp']]
    with pytest.warns(UserWarning, match="taken for users: 'who', items: 'what', ratings: 'stars'; if"): dls = RecDataLoaders.from_df(other, bs=64)
    assert (dls.cat_names,dls.rating_name)==(['who','what'],'stars')
    raw = ratings[['user','item','rating','timestamp']]
    assert RecDataLoaders.from_df(raw, bs=64).cat_names==['user','item']
    assert RecDataLoaders.from_df(raw.rename(columns=dict(user='userId', item='movieId')), bs=64).cat_names==['userId','movieId']
    assert RecDataLoaders.from_df(ratings, bs=64, item_name='item').item_name=='item'

def test_from_csv_and_movielens(tmp_path, ratings):
    ratings.to_csv(tmp_path/'r.csv', index=False)
    a,b = RecDataLoaders.from_csv(tmp_path/'r.csv', seed=1, bs=64),RecDataLoaders.from_df(ratings, seed=1, bs=64)
    assert a.train_ds.x.equal(b.train_ds.x) and a.train_ds.y.equal(b.train_ds.y)
    odd = ratings.astype(dict(title='str')).replace(dict(title={ratings.title[0]: 'None'})).to_csv(tmp_path/'odd.csv', index=False)
    assert 'None' in set(RecDataLoaders.from_csv(tmp_path/'odd.csv', seed=1, bs=64).classes['title'])
    assert len(RecDataLoaders.from_movielens('ml-25m', write_release(tmp_path, 'ml-25m'), bs=2).train_ds)==4

@pytest.mark.parametrize('change,error', [
    (lambda d: d[['user','rating']], r'2 columns \(user, rating\); user, item and rating are needed'),
    (lambda d: d[:0], 'has no rows'),
    (lambda d: d.assign(rating=d.rating.astype(str)), "column 'rating' is of type (str|object), '4.0'.*must be numbers.*to_numeric"),
    (lambda d: d.assign(rating=d.rating.where(d.index>=3)), "3 of 6000 rows have no 'rating': fill them, or.*dropna=True"),
    (lambda d: d.assign(rating=d.rating.where(d.index>=3500)), "3500 of 6000 rows have no 'rating': if such a row is a choice, .* with a 1 for each; or leave these rows out with dropna=True"),
    (lambda d: d.assign(user=d.user.where(d.index>=2)), "2 of 6000 rows have no 'user'"),
    (lambda d: d.assign(title=d.title.where(d.index>=4)), "4 of 6000 rows have no 'title'"),
    (lambda d: d.assign(rating=d.rating.where(d.index>=1, np.inf)), "'rating' holds 1 ratings that are not finite"),
    (lambda d: d.assign(user=d.user.astype(object).where(d.index>=1, 'x')), "column 'user' mixes types, mixed-integer: convert it to one"),
    (lambda d: d[['title','item','rating']], "such as 'user', and the first, 'title', holds something else: name theirs with user_name, out of title, item, rating"),
    (lambda d: d[['user','timestamp','rating']], "such as 'title', and the second, 'timestamp', holds something else: name theirs with item_name"),
    (lambda d: d[['user','title','timestamp']].assign(how=3), "such as 'rating', and the third, 'timestamp', holds something else"),
    (lambda d: pd.concat([d, d[['user']]], axis=1), "several columns 'user'"),
    (lambda d: d.assign(user=2.**60+d.user), 'floating numbers of 2..53 and more'),
    (lambda d: d.assign(rating=d.rating.astype('int64')+2**24), 'beyond 2..24'),
    (lambda d: d.assign(rating=d.rating.astype(complex)), "is of type complex128"),
    (lambda d: d[:1], 'the validation part is empty')])
def test_bad_frames(ratings, change, error):
    ratings = ratings.assign(rating=ratings.rating.where(ratings.index>0, 4.))
    with pytest.raises(ValueError, match=error): RecDataLoaders.from_df(change(ratings))

@pytest.mark.parametrize('kwargs,error', [
    (dict(user_name='usr'), "has no column 'usr'; it has user, item, title"),
    (dict(rating_name='title'), 'must be three columns'),
    (dict(valid_pct=False), 'valid_pct=False must be a share between 0 and 1'), (dict(valid_pct=20), 'valid_pct=20'), (dict(valid_pct=-.2), 'valid_pct=-0.2'),
    (dict(splitter=lambda o: (range(6000),[])), 'validation part is empty: of 6000 rows the splitter gave 6000 to training'),
    (dict(splitter=lambda o: (range(6000),[6000])), 'gave row 6000 for validation; there are 0 to 5999'),
    (dict(splitter=lambda o: (range(10,6000),[-1])), 'gave row -1 for validation'), (dict(splitter=lambda o: ([.5,1.],[2])), 'gave float64 for training'),
    (dict(splitter=lambda o: ([5,6,5],[2])), 'gave 1 rows for training several times, 5 for one'), (dict(bs=0), 'bs=0 must be at least 1'), (dict(val_bs=-1), 'val_bs=-1'),
    (dict(splitter=IndexSplitter([])), 'validation part is empty'),
    (dict(splitter=lambda o: ([],range(6000))), 'the training part is empty: of 6000 rows the splitter gave 6000 to validation'), (dict(bs=5000), '4800 training rows are fewer than one batch: pass bs=4800 or less, or leave it out'),
    (dict(splitter=lambda o: 3), 'the splitter gave int, where two lists of row numbers are needed'), (dict(splitter=lambda o: ([1],[2],[3])), 'the splitter gave tuple, where two lists')])
def test_bad_arguments(ratings, kwargs, error):
    with pytest.raises(ValueError, match=error): RecDataLoaders.from_df(ratings, **kwargs)

def test_unknown_keyword(ratings):
    with pytest.raises(TypeError, match='valid_percent'): RecDataLoaders.from_df(ratings, valid_percent=.1)
    with pytest.raises(TypeError, match="splits"): RecDataLoaders.from_df(ratings, splits=([1],[2]))
    with pytest.raises(TypeError, match='ratings must be a DataFrame, not list'): RecDataLoaders.from_df([1,2,3])

def test_dropna(ratings):
    holes = ratings.assign(user=ratings.user.where(ratings.index>=2), rating=ratings.rating.where(ratings.index%1000!=7))
    with pytest.warns(UserWarning, match="2 of 6000 rows have no 'user', 6 of 6000 rows have no 'rating'; left out"):
        dls = RecDataLoaders.from_df(holes, EndSplitter(.5), bs=64, dropna=True)
    assert (len(dls.train_ds),len(dls.valid_ds))==(2995,2997)
    assert len(all_rows(dls.train).merge(ratings.astype(dict(title='str')), on=['user','title','rating']))==2995

# ------------------------------------------------------------------ new frames
@pytest.fixture
def full(ratings):
    with pytest.warns(UserWarning, match='50% of the rows repeat'): return RecDataLoaders.from_df(pd.concat([ratings]*2), EndSplitter(.5), bs=64)

def test_test_dl_reads_by_label(ratings, full):
    new = ratings.head(40)[::-1]
    want = full.test_dl(new).dataset.x
    shuffled = new.title.cat.set_categories(new.title.cat.categories[::-1])
    for o in (new.astype(dict(title='str')), new.assign(title=shuffled), new[['title','timestamp','user']], new.astype(dict(user=float)), new.set_index('timestamp')):
        dl = full.test_dl(o)
        assert dl.dataset.x.equal(want) and (dl.dataset.y is None)==('rating' not in o)
    assert full.test_dl(new, with_labels=False).dataset.y is None
    assert full.test_dl(new).decode(full.test_dl(new).one_batch()).user.tolist()==new.user.tolist()

@pytest.mark.parametrize('change,error', [
    (lambda d: d.assign(user=d.user.astype(str)), "'user' holds text .* but the model was trained on numbers .*convert it, or were columns swapped"),
    (lambda d: d.rename(columns=dict(user='title', title='user')), "'user' holds text"),
    (lambda d: d.assign(title=1), "'title' holds numbers"),
    (lambda d: d.drop(columns='title'), "no column 'title'"),
    (lambda d: d.assign(user=d.user.where(d.index>0)), "1 of 5 rows have no 'user': fill or drop them"),
    (lambda d: d.assign(rating='five'), "'rating' is of type (str|object)"), (lambda d: d.assign(rating=np.nan), 'with_labels=False to ignore the ratings')])
def test_bad_new_frames(ratings, full, change, error):
    with pytest.raises(ValueError, match=error): full.test_dl(change(ratings.head()))

def test_unknown_labels(ratings, full):
    new = ratings.head(6).astype(dict(title='str'))
    new.loc[[1,4],'user'] = -7
    new.loc[4,'title'] = new.title[0][:-1]
    what = r"2 of 6 rows: 1 unknown in 'user' \(-7\) and 1 unknown in 'title'"
    with pytest.raises(KeyError, match=what): full.test_dl(new)
    with pytest.warns(UserWarning, match=what+'.*the average stands in'): dl = full.test_dl(new, unknown='average')
    assert (dl.dataset.x==0).nonzero().tolist()==[[1,0],[4,0],[4,1]]
    with pytest.warns(UserWarning, match=what+'.*left out'): dl = full.test_dl(new, unknown='drop')
    assert dl.dataset.index.tolist()==[0,2,3,5] and len(dl.dataset.y)==4
    named = new.set_index(pd.Index(list('abcdef')))
    with pytest.warns(UserWarning): assert full.test_dl(named, unknown='drop').dataset.index.tolist()==list('acdf')
    with pytest.raises(ValueError, match="unknown='skip' must be"): full.test_dl(new, unknown='skip')
    with pytest.raises(TypeError, match='not list'): full.test_dl([1,2])

def test_one_row_and_no_row(ratings, full):
    learn = learner(full)
    assert learn.get_preds(dl=full.test_dl(ratings.head(1)))[0].shape==(1,)
    assert len(full.test_dl(ratings.head(0)))==0

# ------------------------------------------------------------------ showing
def test_show(dls, capsys):
    assert len(dls.show_batch(max_n=4, show=False))==4
    assert list(dls.show_batch(show=False))==['user','title','rating']
    dls.show_batch(max_n=3)
    learn = learner(dls)
    learn.show_results(max_n=2)
    shown = capsys.readouterr().out
    assert 'rating_pred' in shown and 'user' in shown and ('(19' in shown or '(20' in shown)
    res = dls.valid.show_results(b := dls.valid.one_batch(), learn.get_preds(dl=[b])[0], max_n=2, show=False)
    assert list(res)==['user','title','rating','rating_pred'] and len(res)==2 and res.rating.tolist()==b[1][:2].tolist()
    b = dls.one_batch()
    assert dls.decode_batch(b, max_n=2)[0]==tuple(dls.decode(b).iloc[0])
    assert dls.show_batch(unique=True, max_n=3, show=False).shape==(3,3)

# ------------------------------------------------------------------ as fastai's
def test_new_empty_keeps_vocabularies(dls):
    empty = dls.new_empty()
    assert len(empty.train)==0==len(list(empty.train)) and list(empty.classes['user'])==list(dls.classes['user'])

def test_stock_collab_learner_takes_them(dls):
    for use_nn in (False,True):
        learn = collab_learner(dls, n_factors=5, use_nn=use_nn, y_range=(.5,5.5))
        with learn.no_logging(): learn.fit(3, 5e-3)
        first,*_,last = learn.recorder.values
        assert last[0]<first[0]

def test_each_process_has_a_gpu_of_its_own(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    for there,rank,want in (('cuda:0',None,'cuda:0'),('cuda:0','1','cuda:1'),('cuda:0','2','cuda:0'),('cpu','1','cpu')):
        monkeypatch.setattr(loaders, 'default_device', lambda: torch.device(there))
        monkeypatch.setenv('LOCAL_RANK', rank) if rank else monkeypatch.delenv('LOCAL_RANK', raising=False)
        assert loaders._own_device()==torch.device(want)

def test_a_label_of_another_type_is_found_in_validation_too(ratings):
    with pytest.raises(ValueError, match="column 'user' mixes types"):
        RecDataLoaders.from_df(ratings.assign(user=ratings.user.astype(object).where(ratings.index>=1, 'x')), IndexSplitter([0]), bs=64)

def test_labels_keep_their_own_type(ratings):
    mixed = ratings.assign(user=pd.Series([2 if o%2 else 1.5 for o in ratings.user], dtype=object))
    with pytest.warns(UserWarning, match='rows repeat'): assert [type(o) for o in RecDataLoaders.from_df(mixed, seed=1).classes['user'].labels]==[float,int]

def test_the_device_may_be_text(ratings): assert learner(RecDataLoaders.from_df(ratings, seed=1, device='cpu')).dls.device==torch.device('cpu')

@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
def test_batches_on_cuda(ratings):
    dls = RecDataLoaders.from_df(ratings, seed=1, bs=256, device='cuda')
    x,y = dls.one_batch()
    assert x.is_cuda and y.is_cuda and dls.train_ds.x.is_cuda
    assert dls.cpu().one_batch()[0].device.type=='cpu'

def test_times_travel_with_the_codes(ratings):
    dates = ratings.assign(when=pd.to_datetime(ratings.timestamp, unit='s', utc=True))
    plain,seconds,when = (RecDataLoaders.from_df(o, seed=1, **kw) for o,kw in ((ratings,{}),(ratings,dict(time_name='timestamp')),(dates,dict(time_name='when'))))
    assert torch.equal(seconds.train_ds.x, when.train_ds.x) and torch.equal(seconds.train_ds.x[:,:2], plain.train_ds.x)
    train = ratings.iloc[SeededSplitter(seed=1)(ratings)[0]]
    assert seconds.train_ds.x[:,2].tolist()==train.timestamp.tolist()
    shown = seconds.show_batch(show=False)
    assert list(shown)==['user','title','rating','timestamp'] and shown.timestamp.dtype.kind=='M'
    assert torch.equal(seconds.train_ds.encode(seconds.train_ds.decode(*seconds.train_ds[:5])).x, seconds.train_ds.x[:5])
    assert seconds.test_dl(ratings.head(3)).dataset.x.shape==(3,3) and seconds.test_dl(ratings.head(3).drop(columns='timestamp')).dataset.x.shape==(3,2)

@pytest.mark.parametrize('make', [dot_learner, partial(dot_learner, sparse=True), nn_learner])
def test_times_change_nothing_for_who_ignores_them(ratings, make):
    def fitted(**kwargs):
        learn = make(RecDataLoaders.from_df(ratings, seed=1, **kwargs))
        with learn.no_logging(): learn.fit_one_cycle(1)
        return learn
    a,b = fitted(),fitted(time_name='timestamp')
    assert all(torch.equal(p, q) for p,q in zip(a.model.parameters(), b.model.parameters()))
    assert np.array_equal(a.predict_df(ratings.head(9)), b.predict_df(ratings.head(9))) and a.recommend(n=2).equals(b.recommend(n=2))

@pytest.mark.parametrize('change,error', [(lambda t: t*1000, "'timestamp' holds 1.*divide milliseconds by 1000"), (lambda t: t.where(t.index>2, 0), '3 such in all.*leave rows without a time out'),
                                          (lambda t: t.map(lambda o: (o,)), 'is of type .* where times are needed'), (lambda t: t.where(t.index>0), "1 of 6000 rows have no 'timestamp'")])
def test_bad_times(ratings, change, error):
    with pytest.raises(ValueError, match=error): RecDataLoaders.from_df(ratings.assign(timestamp=change(ratings.timestamp)), time_name='timestamp')

def test_missing_times(ratings):
    gap = ratings.assign(timestamp=pd.to_datetime(ratings.timestamp, unit='s').where(ratings.index!=5))
    with pytest.warns(UserWarning, match="1 of 6000 rows have no 'timestamp'; left out"): dls = RecDataLoaders.from_df(gap, time_name='timestamp', dropna=True)
    assert len(dls.train_ds)+len(dls.valid_ds)==5999
    with pytest.raises(ValueError, match="no column 'when'"): RecDataLoaders.from_df(ratings, time_name='when')
    dls = RecDataLoaders.from_df(ratings, time_name='timestamp')
    with pytest.raises(ValueError, match="rows have no 'timestamp'"): dls.test_dl(gap)

def test_from_parquet_is_from_df(tmp_path):
    pytest.importorskip('pyarrow')
    df = sample_ratings(50, 40, 1000).astype(dict(user='str')).assign(when=lambda o: pd.to_datetime(o.timestamp, unit='s'))
    df['title'] = df.title.astype('category')
    parts = [df[300:], df[:300].astype(dict(title='str'))]
    for i,o in enumerate(parts): o.to_parquet(tmp_path/f'{i}.parquet', row_group_size=70)
    got = RecDataLoaders.from_parquet(tmp_path/'0.parquet', rows=50, seed=1, time_name='when', bs=64)
    want = RecDataLoaders.from_df(parts[0].reset_index(drop=True), seed=1, time_name='when', bs=64)
    for a,b in zip((got.train_ds,got.valid_ds), (want.train_ds,want.valid_ds)):
        assert torch.equal(a.x, b.x) and torch.equal(a.y, b.y)
        assert all(list(a.classes[k].labels)==list(b.classes[k].labels) for k in b.classes)

def test_from_parquet_names_what_is_wrong(tmp_path, monkeypatch):
    pytest.importorskip('pyarrow')
    df = sample_ratings(50, 40, 1000)
    df.assign(title=df.title.mask(df.index==7)).to_parquet(tmp_path/'gaps.parquet')
    with pytest.raises(ValueError, match="1 of 1000 rows have no 'title'"): RecDataLoaders.from_parquet(tmp_path/'gaps.parquet', bs=64)
    with pytest.warns(UserWarning, match='left out'): assert len(RecDataLoaders.from_parquet(tmp_path/'gaps.parquet', bs=64, dropna=True, valid_pct=.5).train_ds) in (499,500)
    with pytest.raises(ValueError, match="no column 'stars'"): RecDataLoaders.from_parquet(tmp_path/'gaps.parquet', rating_name='stars')
    with pytest.raises(FileNotFoundError): RecDataLoaders.from_parquet(tmp_path/'nothing.parquet')
    monkeypatch.setitem(sys.modules, 'pyarrow.dataset', None)
    with pytest.raises(ImportError, match=r"pyarrow is needed for this: pip install pyarrow"): RecDataLoaders.from_parquet(tmp_path/'gaps.parquet')

# ------------------------------------------------------------------ all rows, and users who have none
_fits = ['fit_bias','fit_als','fit_bayes','fit_ials','fit_ease','fit_blend','fit_one_cycle','fit_sgd']

@pytest.mark.parametrize('fit', _fits)
def test_all_rows_may_be_trained_on(fit, tmp_path):
    if fit=='fit_sgd': pytest.importorskip('numba')
    df = sample_ratings(n_users=120, n_items=60, n_ratings=1500)
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=0))
    assert (len(learn.dls.train_ds),len(learn.dls.valid_ds))==(len(df),0)
    with quietly(),warnings.catch_warnings(action='ignore'): getattr(learn, fit)(*[2]*(fit=='fit_one_cycle'))  # of little taste
    assert learn.history.valid_loss.isna().all() and learn.history.train_loss.notna().all()
    lists = learn.recommend(n=3)
    assert lists.user.nunique()==df.user.nunique()
    learn.save_recommender(tmp_path/'rec')
    again = load_recommender(tmp_path/'rec').recommend(n=3)
    assert again.user.tolist()==lists.user.tolist() and (again.title.astype(str)==lists.title.astype(str)).mean()>.99
    for ask in (learn.evaluate,learn.validate):
        with pytest.raises(ValueError, match='no held-out ratings|there is none to validate|are preferences'): ask()

def test_a_split_that_holds_none_out_unasked_is_refused(ratings):
    with pytest.raises(ValueError, match='validation part is empty.*pass valid_pct=0 without a splitter'): RecDataLoaders.from_df(ratings, IndexSplitter([]))

def test_what_nothing_is_measured_for_is_not_watched(ratings):
    learn = learner(RecDataLoaders.from_df(ratings, valid_pct=0, seed=0, bs=64))
    with pytest.raises(ValueError, match="SaveModelCallback watches 'valid_loss', and what is recorded is train_loss: hold rows out"): learn.fit_one_cycle(1, cbs=SaveModelCallback())

def test_users_of_whom_all_is_held_out_are_told():
    df = sample_ratings(n_users=120, n_items=60, n_ratings=1500)
    name = df.user.iloc[0]
    held = np.flatnonzero(df.user==name)
    learn = learner(RecDataLoaders.from_df(df, IndexSplitter(held), seed=0))
    with quietly(): learn.fit_als(2)
    assert learn.dls.valid_ds.strangers.tolist()==[name]
    with pytest.warns(UserWarning, match=f"1 users get no list, such as {name}: .* valid_pct=0"): lists = learn.recommend(n=2)
    assert lists.user.nunique()==119 and len(learn.recommend(lists.user.iloc[0], n=2))==2  # nothing is told of one who is asked for

def test_fastais_own_interpretation(ratings):
    learn = learner(RecDataLoaders.from_df(ratings, seed=1))
    with learn.no_bar():
        top = Interpretation.from_learner(learn)
        losses,idx,rows = top.top_losses(3, items=True)
        assert rows.iloc[0].rating==learn.dls.valid_ds.y[idx[0]] and losses[0]==top.losses.max()
        shown = top.dl.show_results([o[:2] for o in top.dl.dataset[:]], (torch.tensor([1.,2.]),), show=False)
        assert shown.rating_pred.tolist()==[1,2] and list(shown)[:2]==['user','title']
        top.show_results([0,2]),top.plot_top_losses(3)

def test_names_are_of_items_or_of_users_and_years_of_neither():
    df = pd.DataFrame(dict(Name=['Dune','Heat','Dune'], Year=[1984,1995,2021], Rating=[3.,4,5], Date=['2024-01-02']*3, Person=['Ann','Bo','Cy']))
    with pytest.warns(UserWarning, match="items: 'Name'.*") as told: dls = RecDataLoaders.from_df(df, valid_pct=0)
    assert dls.train_ds.cat_names==['Person','Name']
    told = ' '.join(str(o.message) for o in told)
    assert "1 of 'Name' have several of 'Year', 'Dune' for one" not in told  # half of the names: these may be years of ratings
    more = pd.concat([df, df.assign(Name=['Alien','Jaws','Big'])])
    line = """df['Name'] += ' (' + df['Year'].astype(str) + ')'"""
    with pytest.warns(UserWarning, match="1 of 'Name' have several of 'Year', 'Dune' for one") as told: RecDataLoaders.from_df(more, valid_pct=0)
    assert any(str(o.message).endswith(line) for o in told)
    exec(line, dict(df=more))
    with warnings.catch_warnings():
        warnings.filterwarnings('error', message='.*have several of')
        with pytest.warns(UserWarning, match='taken for'): dls = RecDataLoaders.from_df(more, valid_pct=0)
    assert 'Dune (1984)' in dls.classes['Name'] and 'Dune (2021)' in dls.classes['Name']
    with pytest.warns(UserWarning, match="users: 'Name', items: 'Film'"): RecDataLoaders.from_df(df.rename(columns=dict(Person='Film')), valid_pct=0)
    with pytest.raises(ValueError, match="'Year', holds something else"): RecDataLoaders.from_df(df.rename(columns=dict(Name='Called')), valid_pct=0)

def test_a_file_takes_its_splitter_in_the_same_place_as_a_frame(tmp_path, ratings):
    ratings.to_csv(tmp_path/'r.csv', index=False)
    dls = RecDataLoaders.from_csv(tmp_path/'r.csv', TimeSplitter())
    assert len(dls.valid_ds)==len(RecDataLoaders.from_df(ratings, TimeSplitter()).valid_ds)
    assert dls.valid_ds.x.equal(RecDataLoaders.from_csv(tmp_path/'r.csv', splitter=TimeSplitter()).valid_ds.x)

@pytest.mark.parametrize('beside', [{}, dict(time_name='timestamp'), dict(weight_name='weight')])
def test_fastais_own_plot_of_top_losses_shows_a_table(ratings, beside, monkeypatch):
    "Without a word it showed nothing"
    df,shown = ratings.assign(weight=1.5)[['user','title','rating',*beside.values()]],[]
    monkeypatch.setattr('fastrec.data.loader.display_frame', shown.append)
    learn = learner(RecDataLoaders.from_df(df, seed=1, bs=64, **beside))
    with learn.no_bar():
        learn.fit_als(2)
        top = Interpretation.from_learner(learn)
        for o in (3, range(150)): top.plot_top_losses(o)
    losses,idx = top.top_losses(150)
    for o,n in zip(shown, (3,150), strict=True):
        assert list(o)[:3]==['user','title','rating'] and list(o)[-2:]==['rating_pred','loss'] and len(o)==n
        np.testing.assert_allclose(o.loss, losses[:n].numpy(), atol=1e-5)
        np.testing.assert_allclose(o.loss, (o.rating-o.rating_pred)**2, atol=1e-5)
        assert o.title.tolist()==top.dl.items.title.iloc[idx[:n].numpy()].tolist()

@pytest.mark.parametrize('name', 'wif after_item before_batch create_batches create_item create_batch retain sample shuffle_fn do_batch'.split())
def test_what_no_batch_goes_through_is_refused(dls, name):
    for make in (partial(RatingsDL, dls.train_ds), dls.train.new):
        with pytest.raises(TypeError, match=f'would never call {name}: pass'): make(**{name: noop})

def test_what_batches_go_through_is_taken(dls):
    called = []
    note = called.append
    dl = dls.train.new(bs=64, before_iter=partial(note, 'before'), after_batch=lambda b: note('batch') or b, after_iter=partial(note, 'after'))
    n = len(list(dl))
    assert called==['before',*['batch']*2*n,'after'] and dl.new().bs==64
