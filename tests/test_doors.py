"""What comes in with a call: names of columns, truth values, sizes, labels that are no text, and names that answers have taken"""
import re,warnings
from fractions import Fraction
import numpy as np,pandas as pd,pytest,torch
from scipy import sparse
from conftest import quietly
from frames import side_columns
from fastrec.all import (LeaveLastSplitter,RecDataLoaders,RecInterpretation,Recommender,TimeSplitter,UserSplitter,check_ratings,cross_validate,
                         dot_learner,k_folds,load_recommender,nn_learner,sample_ratings,train_test)
from fastrec.data.frames import as_frame
from fastrec.data.times import as_seconds
from fastrec.data.kinds import factorized
from fastrec.data.labels import Vocab

pytestmark = pytest.mark.filterwarnings('error::UserWarning')

@pytest.fixture(scope='module')
def small():
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)[['user','title','rating','timestamp']]
    return df.astype(dict(title='str'))

@pytest.fixture(scope='module')
def learn(small):
    res = dot_learner(RecDataLoaders.from_df(small, bs=32, seed=1), 3)
    with quietly(): res.fit(1)
    return res

def read(df, **kwargs): return RecDataLoaders.from_df(df, bs=32, seed=1, **kwargs)

# ------------------------------------------------------------------ names of columns
@pytest.mark.parametrize('name', [['user'], ('user',), {'user'}, {}, True, 1.5, 3, slice(None), np.array(['user'])], ids=repr)
@pytest.mark.parametrize('argument', ['user_name','item_name','rating_name','time_name'])
def test_no_name_of_a_column(small, tmp_path, argument, name):
    small.to_csv(tmp_path/'r.csv', index=False)
    small.to_parquet(tmp_path/'r.parquet')
    for f,o in ((read,small), (lambda o, **k: RecDataLoaders.from_csv(o, bs=32, **k),tmp_path/'r.csv'),
                (lambda o, **k: RecDataLoaders.from_parquet(o, bs=32, **k),tmp_path/'r.parquet')):
        with pytest.raises((TypeError,ValueError), match='cannot be the name of a column|has no column'): f(o, **{argument: name})
    assert (check_ratings(small, **{argument: name}).severity=='refused').any()

@pytest.mark.parametrize('splitter', [lambda n: TimeSplitter(time_name=n), lambda n: LeaveLastSplitter(user_name=n), lambda n: UserSplitter(user_name=n)])
def test_splitters_take_no_other_names(small, splitter):
    for n in (['user'],True): pytest.raises(TypeError, splitter(n), small).match('cannot be the name of a column')
    pytest.raises(ValueError, splitter('who'), small).match("no column 'who'")

def test_columns_of_a_file_are_text(small, tmp_path):
    small.set_axis(range(4), axis=1).to_parquet(tmp_path/'r.parquet')
    with pytest.raises(ValueError, match="no column 3; .*'3' is there as text"):
        RecDataLoaders.from_parquet(tmp_path/'r.parquet', user_name='0', item_name='1', rating_name='2', time_name=3, bs=32)

def test_an_index_that_says_more_is_not_passed_over(small):
    odd = small.rename(columns=dict(user='userID')).assign(userName='Ann').set_index('userID')
    with pytest.raises(ValueError, match="'userID' is the index of the frame, and 'userName'"): read(odd)
    with pytest.raises(ValueError, match="'item' is the index of the frame, and 'title'"): read(small.assign(item=1).set_index('item'))
    assert read(small.rename_axis('user')).train_ds.cat_names==['user','title']

@pytest.mark.parametrize('name', 'rank score similarity bias stars preference count mean std loss factors rating_pred'.split())
def test_names_that_answers_have(small, name):
    for kind in ('user','title'):
        with pytest.raises(ValueError, match=f'cannot be called {name!r}'):
            read(small.rename(columns={kind: name}), **{('user' if kind=='user' else 'item')+'_name': name}, rating_name='rating')

def test_names_beside_losses(small):
    with pytest.raises(ValueError, match="cannot be called 'loss'"): read(small.rename(columns=dict(rating='loss')), rating_name='loss')
    with pytest.raises(ValueError, match="cannot be called 'rating_pred'"): read(small.rename(columns=dict(timestamp='rating_pred')), time_name='rating_pred')

def test_old_bundles_keep_their_labels(learn):
    "A recommender whose columns are called as those of the answers are shows both"
    for name,f in (('score',lambda o: o.recommend(n=2)), ('rank',lambda o: o.recommend(n=2)), ('similarity',lambda o: o.similar(o.ds.classes[o.ds.item_name].labels[0], 2))):
        rec = Recommender(learn.model, learn.ds.new_empty(), learn.seen)
        rec.ds.classes = dict(user=learn.dls.classes['user'], **{name: Vocab(learn.dls.classes['title'].labels, name)})
        rec.ds.cat_names,rec.ds.item_name = ['user',name],name
        got = f(rec)
        assert got.columns.is_unique and set(got[f'{name}_label'])<=set(learn.dls.classes['title'].labels) and pd.api.types.is_numeric_dtype(got[name])

# ------------------------------------------------------------------ truth values and numbers
@pytest.mark.parametrize('value', [pd.NA, 'no', [], {}, np.array([1,2]), pd.Series([1,2]), 2, float('nan'), None], ids=repr)
def test_no_truth_value(small, learn, tmp_path, value):
    interp = RecInterpretation.from_learner(learn)
    calls = [lambda: learn.predict(1, 'x', std=value), lambda: learn.predict_df(small, std=value), lambda: read(small, dropna=value), lambda: read(small, drop_last=value),
             lambda: read(small, shard=value), lambda: interp.item_bias(ascending=value), lambda: interp.top_losses(largest=value), lambda: interp.item_pca and interp.embeddings(is_item=value),
             lambda: interp.pca_ends(is_item=value), lambda: interp.error_by_count(is_item=value), lambda: interp.plot_pca(interactive=value),
             lambda: learn.save_recommender(tmp_path/'b', seen=value), lambda: dot_learner(learn.dls, use_nn=value)]
    if value is not None: calls += [lambda: learn.dls.test_dl(small, with_labels=value), lambda: dot_learner(learn.dls, sparse=value)]
    for f in calls:
        with pytest.raises(TypeError, match='must be True or False|does not know'): f()
    assert not (tmp_path/'b').exists()

def test_small_and_large_numbers(learn):
    some = learn.dls.classes['title'].labels[0]
    assert learn.recommend(n=np.int8(2)).equals(learn.recommend(n=2)) and learn.similar(some, np.int8(2)).equals(learn.similar(some, 2))
    assert learn.similar_users(learn.dls.classes['user'].labels[0], np.uint8(2)).shape==(2,2)
    assert len(learn.recommend(min_count=2**70))==0 and learn.recommend(min_count=Fraction(1, 2)).equals(learn.recommend())
    with pytest.raises(ValueError, match='must be a finite number'): learn.recommend(min_count=10**400)
    with warnings.catch_warnings(action='ignore'): assert learn.evaluate(k=np.int8(3)).equals(learn.evaluate(k=3))
    for bad in ('x',2.5,None,True,[3]):
        with pytest.raises(TypeError, match='must be a whole number'): learn.evaluate(k=bad)
        if bad is not None: pytest.raises(TypeError, RecDataLoaders.from_df, sample_ratings(), bs=bad).match('must be a whole number')

# ------------------------------------------------------------------ labels and times
def test_broken_text(small):
    broken = pd.Series(['\ud800'+str(k%5) for k in range(300)], dtype=object)
    for df in (small.assign(title=broken), small.assign(title=broken).to_dict('list')):
        with pytest.raises(ValueError, match=r"\\ud800.*which is no text"): read(df)
    with pytest.raises(ValueError, match=r"side column 'job' holds '\\ud800'"):
        side_columns(pd.DataFrame(dict(user=[1,2], job=pd.Series(['\ud800','x'], dtype=object))), [1,2], 'user')

def test_marks_of_databases_are_told_in_short_frames():
    for mark in ('NULL','\\N','<NA>','#N/A'):
        with pytest.warns(UserWarning, match=re.escape(f'{mark!r} in 5 rows')):
            RecDataLoaders.from_df(pd.DataFrame(dict(user=[1,2,3,4,5], title=[mark]*5, rating=[1,2,3,4,5])), bs=2, seed=0)
        df = pd.DataFrame(dict(user=['Ann','Bob','Cid']*2, title=['Heat','Up',mark]*2, rating=[1,2,3,4,5,4]))
        with pytest.warns(UserWarning, match=re.escape(f'{mark!r} in 2 rows')): RecDataLoaders.from_df(df, bs=2, seed=0)

def test_days_and_years_are_no_seconds():
    for times in ([18665,18699], [2020,2021], ['18665','18699'], pd.Series([2020,2021], dtype=object)):
        with pytest.warns(UserWarning, match='seconds of 1970 to 1973'): as_seconds(pd.Series(times, name='when'))
    assert as_seconds(pd.Series([pd.Timestamp('1970-01-02')])).tolist()==[86400]

def test_leading_zeros_of_titles(tmp_path):
    pd.DataFrame(dict(user=['a','b','c']*2, title=['00000','00005']*3, rating=[1,2,3,4,5,4])).to_csv(tmp_path/'r.csv', index=False, sep='\t')
    dls = RecDataLoaders.from_csv(tmp_path/'r.csv', splitter=lambda o: (range(4),range(4,6)), bs=2)
    assert list(dls.classes['title'].labels)==['00000','00005']

def test_summed_entries_are_told():
    m = sparse.coo_matrix(([1.,2.,3.],([0,0,1],[1,1,0])))
    with pytest.warns(UserWarning, match='1 of 3 entries of the matrix repeat a row and column and are added up'): df = as_frame(m)
    assert sorted(df.itertuples(index=False, name=None))==[(0,1,3.),(1,0,3.)]
    as_frame(sparse.coo_matrix(([1.,2.],([0,1],[1,0]))))

def test_complex_numbers():
    rows = [[1+0j,2j,5+0j,1+0j],[2+0j,1j,3+0j,1+0j]]*5
    with pytest.warns(UserWarning, match='taken for'), pytest.raises(ValueError, match='complex'): RecDataLoaders.from_df(rows, bs=2)

def test_numbers_kept_as_objects_stay_numbers():
    df = pd.DataFrame(dict(user=[1,2,3], age=[20.,30.,40.]))
    for a,b in zip(side_columns(df, [1,2,3], 'user'), side_columns(df.astype(object), [1,2,3], 'user')): assert np.array_equal(a, b)

def test_columns_that_are_tuples():
    with pytest.raises(ValueError, match=r"have 2 levels, \('data', 'user'\)"): as_frame([{('data','user'): 1, ('data','item'): 2}])

# ------------------------------------------------------------------ batches of one row, and folds
def test_batch_norm_needs_two_rows(small):
    wide = dict(y_range=(0,6))
    split = lambda n: lambda o: (np.arange(n),np.arange(n, len(o)))
    for n,bs in ((10,1),(1,1),(11,2)):
        learn = nn_learner(RecDataLoaders.from_df(small, split(n), bs=bs), 3, **wide)
        before = [p.clone() for p in learn.model.parameters()]
        for f in (learn.fit,learn.fit_one_cycle): pytest.raises(ValueError, f, 1).match(f'batch norm needs two rows.* bs={bs} leaves one alone')
        assert all(map(torch.equal, before, learn.model.parameters()))
        with quietly(): nn_learner(learn.dls, 3, use_bn=False, **wide).fit(1)
    with quietly(): nn_learner(RecDataLoaders.from_df(small, split(11), bs=5), 3, **wide).fit(1)

def test_folds_pass_the_door(small):
    want = k_folds(small, 3, 1)
    for o in (small.convert_dtypes(dtype_backend='pyarrow'),small.to_dict('list')):
        for a,b in zip(want.values(), k_folds(o, 3, 1).values()): assert all(x.title.tolist()==y.title.tolist() for x,y in zip(a, b))
    assert train_test(small.to_dict('list'), lambda o: ([0,1],[2]))[1].title[0]==small.title[2]
    fit = lambda dls: dot_learner(dls, 0)
    folds = {n: tuple(o.to_dict('list') for o in pair) for n,pair in want.items()}
    assert cross_validate(fit, folds, seed=1, bs=32).drop(columns='seconds').equals(cross_validate(fit, want, seed=1, bs=32).drop(columns='seconds'))
    for bad in ('ratings.csv',None): pytest.raises(TypeError, k_folds, bad).match('must be a DataFrame')
    for kwargs in (dict(n=2.5),dict(seed='x')): pytest.raises(TypeError, k_folds, small, **kwargs).match('must be a whole number')
