"""The door for frames: what is read right, what is refused in one sentence, what is said once, and good data of which nothing is said"""
import gzip,io,re,uuid,warnings
from decimal import Decimal
from functools import partial
import numpy as np,pandas as pd,pytest,torch
from conftest import release_path
from frames import side_columns
from fastrec.all import LeaveLastSplitter,RecDataLoaders,TimeSplitter,UserSplitter,check_ratings,dot_learner,learner,movielens,sample_ratings
from fastrec.data import findings
from fastrec.fit import taste
from fastrec.data.frames import as_frame
from fastrec.data.times import as_seconds,as_times
from fastrec.data.kinds import factorized
from fastrec.data.columns import pick_columns
from fastrec.data.names import role_of
from fastrec.data.scales import share_of_repeats

pytestmark = pytest.mark.filterwarnings('error::UserWarning')

@pytest.fixture(scope='module')
def small(): return sample_ratings(n_users=60, n_items=40, n_ratings=1200, seed=0)[['user','title','rating','timestamp']].astype(dict(title='str'))

@pytest.fixture(scope='module')
def ids(): return sample_ratings(n_users=60, n_items=40, n_ratings=1200, seed=0)[['user','item','rating']]

def read(df, **kwargs): return RecDataLoaders.from_df(df, seed=1, bs=64, **kwargs)

def same(a, b): return a.train_ds.x.equal(b.train_ds.x) and a.train_ds.y.equal(b.train_ds.y) and [list(v) for v in a.classes.values()]==[list(v) for v in b.classes.values()]

def refused(f, match, error=ValueError):
    with pytest.raises(error, match=match) as e: f()
    assert len(str(e.value))<700
    return str(e.value)

def told(f, match):
    "What `f` gives; one warning is given, and it matches"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        res = f()
    assert len(found)==1, [str(o.message) for o in found]
    assert re.search(match, str(found[0].message)), str(found[0].message)
    return res

# ------------------------------------------------------------------ good data
def long_tail(n, users, items, rng): return (rng.zipf(1.3, n)*7919)%users+1,(rng.zipf(1.3, n)*104729)%items+1

def shape_of(what):
    "A frame like releases of this kind, without repeated pairs unless they belong there"
    rng = np.random.default_rng(3)
    u,i = (rng.integers(1, k, 9000) for k in (800,400)) if what!='clicks' else long_tail(9000, 800, 400, rng)
    df = pd.DataFrame(dict(u=u, i=i))
    if what not in ('clicks','ones'): df = df.drop_duplicates(ignore_index=True)
    n = len(df)
    when = rng.integers(1_500_000_000, 1_600_000_000, n)
    if what=='half stars': return df.set_axis(['userId','movieId'], axis=1).assign(rating=rng.choice(np.arange(1, 11)/2, n), timestamp=when)
    if what=='with titles': return df.set_axis(['userId','movieId'], axis=1).assign(rating=rng.choice(np.arange(1, 11)/2, n), timestamp=when, title='Film '+df.i.astype(str), genres='Drama')
    if what=='ten': return df.set_axis(['user_id','movie_id'], axis=1).assign(rating=rng.choice(11, n, p=[.002]+[.0998]*10), timestamp=when)
    if what=='reals': return df.set_axis(['user','joke'], axis=1).assign(rating=rng.uniform(-10, 10, n).round(2))
    if what=='clicks': return df.set_axis(['user','item'], axis=1).assign(count=rng.integers(1, 12, n))
    if what=='ones': return df.set_axis(['visitorid','itemid'], axis=1).assign(rating=1, timestamp=when*1000)
    if what=='thumbs': return df.set_axis(['user_id','item_id'], axis=1).assign(rating=rng.integers(0, 2, n).astype(bool))
    if what=='books': return df.set_axis(['User-ID','ISBN'], axis=1).assign(**{'Book-Rating': rng.integers(1, 11, n)}).astype(dict(ISBN=str))
    if what=='shop': return df.set_axis(['reviewerID','asin'], axis=1).assign(reviewerID=lambda o: 'A'+o.reviewerID.astype(str), asin=lambda o: 'B00'+o.asin.astype(str),
                                                                             reviewerName='x', overall=rng.integers(1, 6, n), summary='good', unixReviewTime=when)[
        ['overall','reviewerID','asin','reviewerName','summary','unixReviewTime']]
    if what=='percent': return df.set_axis(['uid','track_id'], axis=1).assign(score=rng.integers(0, 101, n))

@pytest.mark.parametrize('what', ['half stars','with titles','ten','reals','clicks','ones','thumbs','books','shop','percent'])
def test_nothing_is_said_of_good_data(what):
    df = shape_of(what)
    dls = read(df)
    assert dls.train_ds.n_ratings+len(dls.valid_ds)==len(df)
    assert not check_ratings(df).severity.isin(['refused','warning']).any()
    if 'timestamp' in df and what!='ones': read(df, time_name='timestamp', splitter=TimeSplitter())

def test_nothing_is_said_of_the_sample():
    for df in (sample_ratings(), sample_ratings().drop(columns='title')): assert not check_ratings(df).severity.isin(['refused','warning']).any() and read(df)

@pytest.mark.parametrize('name', ['ml-100k','ml-1m'])
def test_nothing_is_said_of_releases(name):
    df = movielens(name, release_path(name))
    read(df)
    times = df[df.timestamp>0]
    for splitter in (TimeSplitter(), LeaveLastSplitter(), UserSplitter()): splitter(times)
    assert not check_ratings(times).severity.isin(['refused','warning']).any()

# ------------------------------------------------------------------ containers
def test_any_container_is_read_alike(small, ids):
    pl,pa,sparse = (pytest.importorskip(o) for o in ('polars','pyarrow','scipy.sparse'))
    want = read(small)
    arrow = pa.Table.from_pandas(small, preserve_index=False)
    class Stream:
        def __arrow_c_stream__(self, requested_schema=None): return arrow.__arrow_c_stream__(requested_schema)
    for o in (pl.from_pandas(small), arrow, Stream(), small.to_dict('list'), small.to_dict('records'), small.to_records(index=False), dict(small), small.set_index(['user','title','timestamp']).rating): assert same(read(o), want)
    matrix = sparse.csr_matrix((ids.rating, (ids.user, ids['item'])))
    got = read(matrix)
    assert got.train_ds.cat_names==['user','item'] and got.train_ds.n_ratings+len(got.valid_ds)==len(ids) and float(got.train_ds.y.max())==5
    assert {type(o) for o in got.classes['user'].labels.tolist()}=={int}

@pytest.mark.parametrize('backend', ['pyarrow','numpy_nullable'])
def test_any_backend_is_read_alike(small, backend):
    pytest.importorskip('pyarrow')
    df = small.convert_dtypes(dtype_backend=backend)
    a,b = read(df, time_name='timestamp'),read(small, time_name='timestamp')
    assert same(a, b) and [v.labels.dtype for v in a.classes.values()]==[v.labels.dtype for v in b.classes.values()]
    for dls,new in ((a,small),(b,df)):
        known = new[new.user.isin(dls.classes['user'].labels)]
        assert dls.test_dl(known).dataset.x.equal(b.test_dl(small.loc[known.index]).dataset.x)

@pytest.mark.parametrize('change', [
    lambda d: d.assign(title=pd.Categorical(d.title, [*d.title.unique(),'Never rated'])), lambda d: d.astype(dict(title=object)), lambda d: d.astype(dict(title='string')),
    lambda d: d.astype(dict(rating='category')), lambda d: d.astype(dict(rating=pd.SparseDtype('float32', 0))), lambda d: d.astype(dict(user='category')), lambda d: d.astype(dict(user='UInt16')),
    lambda d: d.astype(dict(user=object)), lambda d: d.astype(dict(user=pd.SparseDtype('int64', 0))), lambda d: d.astype(dict(rating='Float64')), lambda d: d.astype(dict(rating=object)), lambda d: d.assign(rating=d.rating.map(lambda o: Decimal(str(o)))),
    lambda d: d.astype(dict(title=pd.CategoricalDtype(pd.Index(d.title.unique(), dtype='string'))))])
def test_any_dtype_is_read_alike(small, change):
    assert same(read(change(small)), read(small))
    assert read(small).test_dl(change(small.head(0)).copy()) is not None

def test_arrays_are_read_by_place(ids):
    for o in (ids.to_numpy('float64'), torch.tensor(ids.to_numpy('float64')), [tuple(o) for o in ids.itertuples(index=False)]):
        dls = told(lambda: read(o), "taken for users: (0|'user'), items: (1|'item'), ratings: (2|'rating')") if not isinstance(o, list) else told(lambda: read(o), 'taken for users: 0')
        assert dls.train_ds.y.equal(read(ids).train_ds.y) and [list(v) for v in dls.classes.values()]==[list(v) for v in read(ids).classes.values()]
        assert {type(k) for k in dls.classes[0].labels.tolist()}=={int}

def test_what_is_no_frame_is_named_in_full(small, tmp_path):
    pl = pytest.importorskip('polars')
    dls = read(small)
    class Odd: pass
    Odd.__module__,Odd.__qualname__ = 'elsewhere.core','DataFrame'
    for f in (RecDataLoaders.from_df, dls.test_dl, dot_learner(dls).predict_df, dot_learner(dls).fold_in, TimeSplitter(), check_ratings):
        if f is check_ratings: assert check_ratings(Odd()).finding[0].endswith('not elsewhere.core.DataFrame')
        else: refused(lambda: f(Odd()), r'must be a DataFrame, not elsewhere\.core\.DataFrame', TypeError)
    refused(lambda: read(pl.from_pandas(small).lazy()), r'not polars.*LazyFrame: call \.collect\(\) first', TypeError)
    refused(lambda: read(tmp_path/'r.csv'), 'read a file with from_csv', TypeError)
    refused(lambda: read(small.rating), 'not pandas.*Series', TypeError)
    refused(lambda: read(dict(user=[1,2], item=[1], rating=[1,2])), 'columns of the dict do not make a frame')
    refused(lambda: read(np.zeros((5,40))), r'shape \(5, 40\) is a table with a column for each item.*nonzero\(\)')
    refused(lambda: read(pd.concat({'a': small}, axis=1)), 'the columns of ratings have 2 levels')

# ------------------------------------------------------------------ columns
@pytest.mark.parametrize('names', ['user_id movie_id rating', 'userId movieId rating', 'UserID ItemID Stars', 'uid product_id star_rating', 'customer_id asin overall', 'reviewerID book_id score',
                                   'visitorid itemid value', 'User-ID ISBN Book-Rating', 'USER ITEM RATING', ' user  item  rating ', 'userName film_title ratings', 'member_id Title vote', 'user.id item.id rating.value'])
def test_usual_names_wherever_they_stand(ids, names):
    u,i,r = [f' {o} ' for o in names.split()] if names[0]==' ' else names.split()
    df = ids.set_axis([u,i,r], axis=1).assign(extra=1)
    for cols in ([r,u,i,'extra'], ['extra',i,u,r], [i,r,'extra',u]): assert pick_columns(df[cols])==[u,i,r]

@pytest.mark.parametrize('name,role', [('timestamp','time'),('ts','time'),('unixReviewTime','time'),('created_at','time'),('Date','time'),('datetime','time'),('review_date','time'),('playcount','count'),('clicks','count'),
                                       ('average_rating',None),('age',None),('gender',None),('occupation',None),('genres',None),('year','year'),('Release Year','year'),('Name','name'),(0,None),('Неделя',None)])
def test_roles_of_names(name, role): assert role_of(name)[0]==role

def test_place_is_said_and_nothing_else(ids):
    dls = told(lambda: read(ids.set_axis(['wer','was','wieviel'], axis=1)), "^taken for users: 'wer', items: 'was', ratings: 'wieviel'; if that is wrong, name them with user_name, item_name, rating_name$")
    assert dls.train_ds.cat_names==['wer','was']
    read(ids.set_axis(['wer','was','wieviel'], axis=1), user_name='wer', item_name='was', rating_name='wieviel')
    assert told(lambda: read(ids.set_axis(['wer','movieId','stars'], axis=1)), "users: 'wer', items: 'movieId'").train_ds.user_name=='wer'

@pytest.mark.parametrize('change,match', [
    (lambda d: d.set_axis(['c','a','b'], axis=1)[['b','a','c']].assign(b=lambda o: o.b+.5), "'b' holds [0-9.]+, which is no id: name the right column with user_name"),
    (lambda d: d.set_axis(list('abc'), axis=1).reset_index(), "'index' numbers the rows.*drop\\(columns='index'\\).*index_col=0"),
    (lambda d: d.set_axis(list('abc'), axis=1).reset_index(names='Unnamed: 0'), "'Unnamed: 0' numbers the rows"),
    (lambda d: d.set_axis(list('abc'), axis=1).reset_index(names='row').assign(row=lambda o: o.row+1), "'row' numbers the rows"),
    (lambda d: d.set_axis(list('abc'), axis=1).assign(c=np.random.default_rng(0).permutation(len(d))+5), "'c' holds ids or times, [0-9]+ for one, where ratings are needed: name the right column with rating_name"),
    (lambda d: d.rename(columns=dict(user='title', item='user')).assign(title='x')[['title','user','rating']].drop(columns='user'), "2 columns \\(title, rating\\)"),
    (lambda d: d.set_axis(list('abc'), axis=1)[['c','a','b']], "'c' holds few low numbers as ratings are, .* and 'b' ids"), (lambda d: d.set_axis(list('abc'), axis=1)[['a','c','b']], "'c' holds few low numbers"),
    (lambda d: d.set_axis(list('abc'), axis=1).assign(t=lambda o: 10**9+np.random.default_rng(0).permutation(len(o)))[['t','a','b','c']], "'t', which is in their place, holds times, 1[0-9]+ for one: name the columns with user_name, item_name, rating_name, out of a, b, c"),
    (lambda d: d.set_index(['user','item']), "1 columns.*'user' is its index, call .reset_index\\(\\) first"), (lambda d: d.assign(n=1).set_index('user'), "such as 'user', and the first, 'item', holds something else.*'user' is its index"),
    (lambda d: d[['user','item']], 'user, item and rating are needed; if people only choose, add ratings of 1: df.assign\\(rating=1\\)'),
    (lambda d: d.rename(columns=dict(user='rank')), "taken|cannot be called 'rank'"),
    (lambda d: pd.concat([d, d.rating], axis=1), "several columns 'rating'"),
    (lambda d: d.rename(columns=dict(item='item_x')).assign(item_y=1), "'item_x' and 'item_y', as a merge or a repeated name leaves them.*item_name")])
def test_columns_that_cannot_be_meant(ids, change, match): refused(lambda: read(change(ids)), match)

def test_ids_are_not_ratings_nor_films_users(ids):
    assert pick_columns(ids.set_axis(['userID','itemID','stars'], axis=1)[['stars','userID','itemID']])==['userID','itemID','stars']
    four = ids.set_axis(['userID','itemID','rating'], axis=1).assign(title=lambda o: 'Film '+o.itemID.astype(str))[['itemID','title','userID','rating']]
    assert read(four).train_ds.cat_names==['userID','title']
    saved = pd.read_csv(io.StringIO(ids.to_csv()))
    assert same(read(saved), read(ids))

@pytest.mark.parametrize('kwargs', [dict(rating_name='item'), dict(user_name='title'), dict(rating_name='title')])
def test_names_that_contradict_the_argument(ids, kwargs):
    refused(lambda: read(ids.assign(title='Film '+ids['item'].astype(str)), **kwargs), "names a column of (item|title)s|must be three columns")

def test_two_candidates_are_said(ids):
    df = ids.assign(product_id=ids['item']).rename(columns=dict(item='movie_id'))
    assert told(lambda: read(df), "'movie_id' is taken, though 'product_id' could be meant as well: name it with item_name").train_ds.item_name=='movie_id'
    read(df, item_name='product_id')

def test_a_user_in_every_row_is_said(ids):
    told(lambda: read(ids.assign(user=np.random.default_rng(0).permutation(len(ids)))), "each of the .* rows has a user of its own in 'user'.*user_name")

# ------------------------------------------------------------------ tables
@pytest.mark.parametrize('make', [lambda t: t, lambda t: t.fillna(0), lambda t: t.reset_index(), lambda t: t.fillna(0).reset_index(), lambda t: t.reset_index(drop=True), lambda t: t.fillna(0).reset_index(drop=True),
                                  lambda t: t.fillna(0).astype(int).reset_index(), lambda t: t.set_axis(range(t.shape[1]), axis=1).fillna(0), lambda t: t.iloc[:, :5].fillna(0), lambda t: t.iloc[:, :5].reset_index()])
@pytest.mark.parametrize('by', ['title','item'])
def test_a_table_is_refused_with_the_line_to_write(by, make):
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=1200, seed=0)
    table = make(ratings.pivot_table(index='user', columns=by, values='rating', observed=True))
    message = refused(lambda: read(table), 'is a table with a column for each item, .* a row for each rating is needed: df')
    assert 'dropna=True' not in message
    long = eval(message.split('is needed: ')[1], dict(df=table))
    n = (table.drop(columns='user', errors='ignore').fillna(0)!=0).sum().sum()
    assert len(long)==n and pick_columns(long)[1:]==['item','rating'] and (long.rating>0).all()

def test_a_sparse_or_real_table_is_refused():
    rng = np.random.default_rng(0)
    refused(lambda: read(pd.DataFrame.sparse.from_spmatrix(pytest.importorskip('scipy.sparse').random(50, 30, .2, format='csr'))), 'is a table')
    jokes = pd.DataFrame(np.where(rng.random((50,100))<.3, 99, rng.uniform(-10, 10, (50,100))))
    refused(lambda: read(jokes), 'is a table')
    assert check_ratings(jokes).severity.tolist()==['refused']

def test_long_frames_are_no_tables(ids):
    for df in (ids, ids.assign(age=30, sex=1, zip=7, job=2, year=1990, a=1, b=2, c=3, d=4), ids.head(60)): assert pick_columns(df)==['user','item','rating']

# ------------------------------------------------------------------ titles
@pytest.fixture
def merged():
    "As `ratings.merge(films)` gives it: films 1 and 7 share a title"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(userId=np.repeat(np.arange(50), 8), movieId=np.tile(np.arange(1, 9), 50), rating=rng.integers(1, 6, 400)))
    return df.assign(title=df.movieId.map({k: 'Hamlet' if k in (1,7) else f'Film {k}' for k in range(1, 9)}))

def test_shared_titles_are_told_apart(merged):
    dls = told(lambda: read(merged), r"1 titles are shared by several items, 'Hamlet' for one: told apart by 'movieId', as in 'Hamlet \[1\]'")
    assert dls.train_ds.item_name=='title' and {'Hamlet [1]','Hamlet [7]','Film 2'}<=set(dls.classes['title']) and 'Hamlet' not in set(dls.classes['title']) and len(dls.classes['title'])==9
    learn = dot_learner(dls)
    new = merged.head(8)
    assert learn.predict_df(new).index.equals(new.index) and dls.test_dl(new).dataset.x.equal(dls.test_dl(new.assign(title=lambda o: o.title.where(o.title!='Hamlet', 'Hamlet ['+o.movieId.astype(str)+']'))).dataset.x)
    assert learn.recommend(0, exclude_seen=merged[merged.movieId==1]).title.tolist().count('Hamlet [1]')==0
    refused(lambda: dls.test_dl(new[['userId','title']]), "unknown in 'title' \\('Hamlet'\\)", KeyError)
    assert read(merged, item_name='movieId').train_ds.item_name=='movieId'
    assert told(lambda: read(merged.astype(dict(title='category'))), 'shared').classes['title'].labels.tolist()==dls.classes['title'].labels.tolist()

def test_shared_titles_in_parquet(merged, tmp_path):
    pytest.importorskip('pyarrow')
    merged.to_parquet(tmp_path/'r.parquet')
    dls = told(lambda: RecDataLoaders.from_parquet(tmp_path/'r.parquet', seed=1, bs=64), "1 titles are shared by several items")
    assert same(dls, told(lambda: read(merged), 'shared'))

def test_a_headline_is_not_the_item(merged):
    for headline in ([f'Great {k}' for k in range(400)], np.random.default_rng(0).choice(['good','bad','so so'], 400)):
        dls = told(lambda: read(merged.assign(title=headline)), "'title' differs within 'movieId' as a headline does, so 'movieId' is taken for items.*item_name")
        assert dls.train_ds.item_name=='movieId' and len(dls.classes['movieId'])==9

def test_few_other_titles_are_said(merged):
    told(lambda: read(merged.assign(title=[f'Film {k}' if j!=11 else 'FILM four' for j,k in enumerate(merged.movieId)])), "1 rows have another 'title' than their 'movieId' has elsewhere, 4 for one")

# ------------------------------------------------------------------ labels
@pytest.mark.parametrize('make', [lambda o: uuid.UUID(int=int(o)), lambda o: (int(o),), lambda o: Decimal(int(o)), lambda o: str(o).encode(), lambda o: pd.Period(str(int(1970+o)), 'Y'), lambda o: pd.Timedelta(int(o), 's'),
                                  lambda o: pd.Timestamp('2020').date(), lambda o: frozenset([o]), lambda o: pd.Interval(0, int(o)), lambda o: complex(o), lambda o: [int(o)], lambda o: 2**70+int(o)])
def test_objects_that_are_no_labels(small, make):
    message = refused(lambda: read(small.assign(user=pd.Series([make(o) for o in small.user], dtype=object))), r"column 'user' .*\.astype\(str\)")
    assert "'user'" in message

@pytest.mark.parametrize('make', [lambda s: pd.to_datetime(s, unit='D'), lambda s: pd.to_datetime(s, unit='D', utc=True), lambda s: s.astype('uint64')+2**63, lambda s: s>9, lambda s: s.astype(str)])
def test_labels_of_these_kinds_are_fine(small, make):
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', message='.*rows repeat')
        dls = read(small.assign(user=make(small.user)))
    assert set(dls.classes['user'].labels)<=set(make(small.user))

def test_numbers_that_cannot_be_told_apart(small):
    refused(lambda: read(small.assign(user=small.user.add(2**24).astype('float32'))), "'user' holds labels as floating numbers of 2..24 and more")
    refused(lambda: read(small.assign(user=small.user+2.**53)), r'2\*\*53 and more')
    refused(lambda: read(small.assign(user=np.where(small.index%2, .3, .1+.2))), "'user' holds 0.3 and 0.30000000000000004, which are hardly two labels")
    refused(lambda: read(small.assign(user=small.user.astype(float).where(small.index>3, np.inf))), "'user' holds labels that are not finite")

of_singles = {
    'float32': lambda o: pd.Series(o, dtype='float32'), 'nullable': lambda o: pd.Series(o, dtype='Float32'),
    'with a gap': lambda o: pd.Series([*o,None], dtype='Float32'), 'Arrow': lambda o: pd.Series(np.float32(o), dtype='float32[pyarrow]'),
    'categories': lambda o: pd.Series(o, dtype='float32').astype('category')}

@pytest.mark.parametrize('make', of_singles.values(), ids=of_singles)
def test_times_that_float32_has_rounded_are_told_of(make):
    "They came a minute or two too early or late, without a word"
    seconds = np.array([1_500_000_077,1_500_000_007,1_400_000_003])
    with pytest.warns(UserWarning, match="'t' are float32, which holds numbers like 1500000128 only in steps of 128: they have been"):
        as_times(make(seconds).rename('t'))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        as_times(make(seconds//86_400*86_400).rename('t'))  # whole days
        as_times(make(seconds//86_400).rename('t'))         # numbers of days
        as_times(make([2019,2020,2021]).rename('t'))        # years

def test_rounded_times_are_told_of_when_they_are_read():
    df = sample_ratings(n_users=30, n_items=30, n_ratings=500)
    df['timestamp'] = np.arange(1_500_000_000, 1_500_000_000+7*len(df), 7)
    single = df.astype(dict(timestamp='float32'))
    for read in (partial(RecDataLoaders.from_df, time_name='timestamp'), partial(RecDataLoaders.from_df, splitter=TimeSplitter())):
        with pytest.warns(UserWarning, match='they have been rounded'): read(single)
        with warnings.catch_warnings():
            warnings.simplefilter('error')
            read(df.astype(dict(timestamp='float64')))
    assert check_ratings(single).finding.str.contains('they have been rounded').any()

@pytest.mark.parametrize('dtype,least', [('float32',2**24),('float16',2**11)])
def test_an_array_of_floats_holds_no_more_ids_than_its_type_tells_apart(ids, dtype, least):
    wide = ids.assign(user=ids.user+least)
    for o in (wide.to_numpy(dtype), torch.tensor(wide.to_numpy(dtype)), wide.astype(dtype)):
        with warnings.catch_warnings(action='ignore'): refused(lambda: read(o), 'floating numbers of 2..(24|11) and more, which cannot be told apart: read them as integers, float64 or text')
    with warnings.catch_warnings(action='ignore'): assert len(read(wide.to_numpy('float64'), valid_pct=0).classes[0])-1==ids.user.nunique()

def test_a_number_for_nobody_is_told_of(ids):
    "As text for nobody is; zero may also be the most popular item"
    rng = np.random.default_rng(0)
    ids = ids.assign(user=rng.integers(1, 61, len(ids)), item=rng.integers(1, 2000, len(ids)))
    for nobody in (-1,0):
        df = ids.assign(user=ids.user.where(ids.index%3>0, nobody))
        for o in (df, df.astype(dict(user=float)), df.astype(dict(user='Int64'))): told(lambda: read(o), f"column 'user' holds {nobody} in 400 rows, and no other number in more than .* df.replace")
        assert f'holds {nobody} in' in ' '.join(check_ratings(df).finding)
        assert read(ids.assign(user=ids.user.where(ids.index%60>0, nobody)))
    ranks = np.minimum(rng.zipf(1.8, len(ids))-1, 3000)
    assert read(ids.assign(item=ranks).drop_duplicates(['user','item'])) and read(ids.assign(user=ids.user-30))

def test_numbers_as_text_with_and_without_a_point_are_told_of(ids):
    text = ids.astype(dict(user=int)).astype(dict(user=str))
    both = text.assign(user=text.user+np.where(text.index%2, '.0', ''))
    told(lambda: read(both), "labels of 'user' are there with and without a point, .*regex=True")
    df = both.copy()
    exec(r"df['user'] = df['user'].str.replace(r'^(-?\d+)\.0$', r'\1', regex=True)", dict(df=df))
    assert df.user.equals(text.user) and read(text.assign(user=text.user+'.0'))

def test_ids_that_gaps_made_floats_are_whole_again(small):
    gaps = small.assign(user=small.user.where(small.index>=2))
    with pytest.warns(UserWarning, match='2 of 1200 rows'): dls = read(gaps, dropna=True)
    assert dls.classes['user'].labels.dtype=='int64' and dls.test_dl(small[5:].head(3)).dataset.x.shape==(3,2)

@pytest.mark.parametrize('mark', ['NULL','NA','\\N','nan','None','?','','n/a','-'])
def test_marks_for_missing_values(small, mark):
    odd = small.assign(user=small.user.astype(str).where(small.index%50>0, mark))
    refused(lambda: read(odd), "column 'user' holds '.*' in 24 rows, and numbers in all others: read it as missing, with from_csv.*na_values.*np.nan")

def test_films_may_be_called_none(small):
    for name in ('None','NA','Null'): assert name in set(read(small.replace(dict(title={small.title[0]: name}))).classes['title'])
    told(lambda: read(small.assign(title=small.title.where(small.index%7>0, ''))), "'title' holds '' in 172 rows: if that is a mark for a missing value")
    told(lambda: read(small.assign(user=('u'+small.user.astype(str)).where(small.index%7>0, 'NULL'), rating=1)), "'user' holds 'NULL' in 172 rows")

def test_labels_that_look_alike_are_said(small):
    one = small.title[0]
    for other in (one+' ', one.upper(), '  '+one.lower(), one.replace(' ', '  ')):
        dls = told(lambda: read(small.replace(dict(title={small.title[1]: other}))), "2 labels of 'title' differ from others only in case, spaces or the way accents are stored, .*unite them, say with")
        assert {one,other}<=set(dls.classes['title'])
    assert read(small.assign(user=np.where(small.index%2, 'aB3', 'Ab3')+small.user.astype(str))) is not None

@pytest.mark.parametrize('make', [lambda s: s.astype(str), lambda s: pd.to_datetime(s, unit='D'), lambda s: s.map(str).astype('category'), lambda s: s>0, lambda s: s.astype('string')])
def test_labels_of_another_kind_are_refused_everywhere(small, make):
    dls = read(small)
    learn = dot_learner(dls)
    other = small.assign(user=make(small.user))
    for f in (dls.test_dl, learn.predict_df, lambda d: learn.evaluate(d), lambda d: learn.recommend(n=2, exclude_seen=d)): refused(lambda: f(other), "'user' holds .* but the model was trained on numbers .*convert it")
    refused(lambda: learn.fold_in(small.head(5).assign(title=range(5)).drop(columns='user')), "'title' holds numbers")

def test_unknown_labels_that_are_known_otherwise(small):
    dls = read(small.assign(user=small.user.astype(str)))
    refused(lambda: dls.test_dl(small.head(3).assign(user=small.user.astype(float).astype(str))), f"is known as '{small.user[0]}'", KeyError)
    refused(lambda: dls.test_dl(small.head(3).assign(user=' '+small.user.astype(str))), f"is known as '{small.user[0]}'", KeyError)

def test_mixed_labels(small):
    refused(lambda: read(small.assign(title=small.title.astype(object).where(small.index>0, 7))), "'title' mixes types, mixed-integer: convert it to one")

# ------------------------------------------------------------------ ratings
@pytest.mark.parametrize('make,match', [
    (lambda r: r.astype(str), "'rating' is of type .*to_numeric"), (lambda r: r.astype(str).where(r.index!=7, 'five'), "'five' for one, where ratings must be numbers"),
    (lambda r: r.astype(str).str.replace('.', ','), r"str.replace\(',', '.'\).astype\(float\), or from_csv\(..., decimal=','\)"),
    (lambda r: r.astype(complex), 'complex128'), (lambda r: r.where(r.index>0, -np.inf), 'not finite'), (lambda r: pd.to_timedelta(r, unit='s'), 'timedelta'), (lambda r: pd.to_datetime(r, unit='D'), 'datetime'), (lambda r: r.astype('float64')*1e300, "holds ratings of 5.0e\\+300, whose squares are too large")])
def test_ratings_that_are_no_numbers(small, make, match): refused(lambda: read(small.assign(rating=make(small.rating))), match)

def skewed(n): return np.random.default_rng(0).zipf(1.8, n).clip(max=50_000)

@pytest.mark.parametrize('make,match', [
    (lambda r: r*0+3, "^all ratings in 'rating' are 3: there is no taste.*fit_ials.*rating_name"), (lambda r: r*0, "all ratings in 'rating' are 0"),
    (lambda r: r.where(r.index%5>1, 0), "40% of the ratings in 'rating' are 0, the others from 1 to 5: if 0 means 'not rated', leave these rows out with df"),
    (lambda r: r.where(r.index%9>0, -1), "11% of the ratings in 'rating' are -1"), (lambda r: r.where(r.index%9>0, 99), "are 99, the others from 1 to 5"),
    (lambda r: r.where(r.index%30==0, 5), "9[5-9].*% of the ratings in 'rating' are 5"),
    (lambda r: pd.Series(skewed(len(r))), "look like counts or amounts, from 1 to .*np.log1p.*fit_ials"),
    (lambda r: pd.Series(np.random.default_rng(0).integers(0, 5000, len(r))), 'different whole numbers up to [0-9]+, as ids are')])
def test_doubtful_ratings_are_said_once(small, make, match):
    df = small.assign(rating=make(small.rating).to_numpy())
    told(lambda: read(df), match)
    assert check_ratings(df).query("severity=='warning'").finding.map(lambda o: bool(re.search(match, o))).sum()==1

def test_repeats_are_said_of_stars_alone(small):
    twice = pd.concat([small]*2, ignore_index=True)
    told(lambda: read(twice), "50% of the rows repeat a pair of 'user' and 'title'.*drop_duplicates\\(\\['user', 'title'\\]")
    for df in (twice.assign(rating=1), twice.rename(columns=dict(rating='plays'))): read(df)
    u,i = (torch.arange(1, 400_001)%k+1 for k in (5000,300))
    assert abs(share_of_repeats(u.numpy(), i.numpy()) - (1-15_000/400_000))<.01

# ------------------------------------------------------------------ times
dated = lambda small, format: small.assign(when=pd.to_datetime(small.timestamp, unit='s').dt.strftime(format))

@pytest.mark.parametrize('format', ['%d/%m/%Y','%m/%d/%Y','%d.%m.%Y %H:%M','%Y-%m-%d','%Y/%m/%d','%Y-%m-%dT%H:%M:%SZ','%Y-%m-%d %H:%M:%S+0200','%b %d, %Y','%d %B %Y','%d-%m-%Y'])
def test_dates_in_text_are_dates(small, format):
    df = dated(small, format)
    train,valid = TimeSplitter(time_name='when')(df)
    day = df.timestamp//86400
    assert day.iloc[train].max()<=day.iloc[valid].min()+1 and len(valid)==240
    assert abs(as_seconds(df.when)-df.timestamp).max()<=86400+7200
    got = read(df, time_name='when')
    assert got.train_ds.x.shape[1]==3

@pytest.mark.parametrize('texts', [['01/02/2022','03/04/2022'], ['31/12/2022','12/31/2022'], ['01/02/22','13/02/22'], ['2022-01-01','yesterday'], ['spring','autumn'], ['2022-01-01','2022-01-01T00:00:00Z']])
def test_dates_in_doubt_are_refused(small, texts):
    df = small.assign(timestamp=np.resize(texts, len(small)))
    for f in (TimeSplitter(), LeaveLastSplitter(), lambda d: read(d, time_name='timestamp')): refused(lambda: f(df), r"column 'timestamp' holds text, .*pd.to_datetime\(df\['timestamp'\]")

def test_times_of_other_types_keep_their_order(small):
    stamps = pd.to_datetime(small.timestamp, unit='s')
    want = [list(o) for o in TimeSplitter()(small)]
    for o in (stamps, stamps.dt.tz_localize('UTC').dt.tz_convert('Asia/Tokyo'), small.timestamp.astype(str), small.timestamp*1000, small.timestamp.astype(float), stamps.astype(object), small.timestamp.astype('Int64'),
              stamps.dt.tz_localize('UTC').astype(str), stamps.astype('timestamp[ns][pyarrow]'), stamps-pd.Timedelta('30000D')):
        assert [list(p) for p in TimeSplitter()(small.assign(timestamp=o))]==want
    assert as_seconds(pd.Series([1_600_000_000.7])).tolist()==[1_600_000_000]

@pytest.mark.parametrize('make,match', [(lambda t: t*1000, 'divide milliseconds by 1000.*unit=.ms'), (lambda t: t*10**6, "divide microseconds.*unit='us'"), (lambda t: t*10**9, "nanoseconds.*unit='ns'"),
                                        (lambda t: pd.to_datetime(t, unit='s')-pd.Timedelta('30000D'), "holds Timestamp\\('19"), (lambda t: -t, 'holds -'), (lambda t: t.where(t.index>0, np.inf), 'holds inf')])
def test_times_that_are_no_seconds(small, make, match): refused(lambda: read(small.assign(timestamp=make(small.timestamp)), time_name='timestamp'), match)

def test_doubtful_times_are_said(small):
    told(lambda: read(small.assign(timestamp=small.timestamp//86400), time_name='timestamp'), "if they are days, convert them with pd.to_datetime\\(df\\['timestamp'\\], unit='D'\\)")
    told(lambda: read(small.assign(timestamp=1_500_000_000), time_name='timestamp'), "all times in 'timestamp' are the same")
    told(lambda: TimeSplitter()(small.assign(timestamp=1_500_000_000)), 'follows the order of the rows')
    refused(lambda: read(small, time_name='user'), "time_name='user' is also the column of users")

def test_splitters_follow_the_columns_that_loaders_were_told_of(small):
    odd = small.rename(columns=dict(user='who', timestamp='seen on'))
    odd['when'] = range(len(odd))  # which is called after times too
    odd['user'] = 'the same'
    args = dict(user_name='who', time_name='seen on', item_name='title', rating_name='rating')
    for mine,known in ((TimeSplitter(.3),TimeSplitter(.3, 'seen on')), (LeaveLastSplitter(2),LeaveLastSplitter(2, 'who', 'seen on')), (UserSplitter(.3, 0),UserSplitter(.3, 0, 'who'))):
        got,want = (RecDataLoaders.from_df(odd, splitter=o, **args) for o in (mine,known))
        assert torch.equal(got.valid_ds.x, want.valid_ds.x) and torch.equal(got.train_ds.x, want.train_ds.x) and len(got.valid_ds)
        assert check_ratings(odd, splitter=mine, **args).equals(check_ratings(odd, splitter=known, **args))
    assert 'fastrec' not in odd.attrs
    both = odd.rename(columns=dict(when='timestamp'))
    for o in (TimeSplitter(.3, 'timestamp'),LeaveLastSplitter(2, 'who', 'timestamp')):  # named is named
        got,want = (RecDataLoaders.from_df(both, splitter=o, **kwargs) for kwargs in (args,{**args, 'time_name': None}))
        assert torch.equal(got.valid_ds.x[:,:2], want.valid_ds.x[:,:2])
    refused(lambda: TimeSplitter(.3, 'timestamp')(odd), "no column 'timestamp'")

def test_splitters_find_usual_names(small):
    other = small.rename(columns=dict(user='userId', timestamp='review_date'))
    for make in (TimeSplitter, LeaveLastSplitter, lambda: UserSplitter(seed=1)):
        assert [list(o) for o in make()(other)]==[list(o) for o in make()(small)] and read(other, splitter=make())
    refused(lambda: TimeSplitter()(small.drop(columns='timestamp')), "the frame to split has no column 'timestamp'; it has user, title, rating")
    refused(lambda: TimeSplitter()(pd.concat([small, small.timestamp], axis=1)), "several columns 'timestamp'")
    pl = pytest.importorskip('polars')
    assert [list(o) for o in LeaveLastSplitter()(pl.from_pandas(small))]==[list(o) for o in LeaveLastSplitter()(small)] and read(pl.from_pandas(small), splitter=UserSplitter())

@pytest.mark.parametrize('unit', [1,1000,10**6])
def test_a_split_by_time_refuses_two_units_and_tells_of_zeros(small, unit):
    "Whoever reads the column, named or not; any order will do, of days, ranks or dates before 1970"
    when = small.timestamp
    odd = small.index%2==1
    both = small.assign(timestamp=(when*unit).where(odd, when*unit*1000))
    for splitter in (TimeSplitter(), LeaveLastSplitter(), TimeSplitter(time_name='timestamp')): refused(lambda: read(both, splitter=splitter), "'timestamp' holds .* no common order")
    assert 'no common order' in ' '.join(check_ratings(both, splitter=TimeSplitter()).finding)
    for zero in (0,-1): told(lambda: read(small.assign(timestamp=(when*unit).where(small.index%5>0, zero)), splitter=TimeSplitter()), "240 of 1,200 rows have a time of 0 or so in 'timestamp'")
    told(lambda: TimeSplitter()(small.assign(timestamp=pd.to_datetime(when.where(small.index%5>0, 0), unit='s'))), '240 of 1,200 rows')

def test_a_split_by_time_takes_any_order(small):
    n = len(small)
    rng = np.random.default_rng(0)
    for times in (np.arange(n), np.arange(n)-5, 1900+np.arange(n)%120, rng.integers(0, 2*10**12, n), rng.integers(0, 2**62, n), 10.**rng.uniform(0, 18, n),
                  pd.date_range('1950-01-01', periods=n, tz='UTC'), pd.date_range('1960-01-01', periods=n, freq='30D'), small.timestamp*10**9, pd.Series(small.timestamp*1000).astype(str)):
        assert TimeSplitter()(small.assign(timestamp=times))

@pytest.fixture(scope='module')
def many():
    rng = np.random.default_rng(0)
    return pd.DataFrame(dict(user=rng.integers(0, 300, 20_000), item=rng.integers(0, 900, 20_000))).drop_duplicates(ignore_index=True)

def _stars(n, seed=0, low=1): return np.random.default_rng(seed).integers(low, 6, n).astype(float)

@pytest.mark.parametrize('slip', [50,45,500,-50])
@pytest.mark.parametrize('half', [False,True])
@pytest.mark.parametrize('n_rows', [300,19_000])
def test_a_slip_that_stretches_the_scale_is_told_of(many, slip, half, n_rows):
    y = _stars(n_rows)
    if half: y -= .5*(y>3)
    y[1] = slip
    df = many[:n_rows].assign(rating=y)
    told(lambda: read(df), f"{slip} is far outside of the other ratings in 'rating', from 1 to {'4.5' if half else 5}, .*df.'rating'..between")
    if slip==50: told(lambda: read(df.assign(rating=df.rating.where(df.index!=3, 55))), '2 ratings, 55 for one, are far outside')

@pytest.mark.parametrize('make', [
    lambda rng, n: rng.lognormal(0, 1, n), lambda rng, n: np.ceil(rng.lognormal(1, 1.2, n)), lambda rng, n: rng.geometric(.5, n), lambda rng, n: np.where(rng.random(n)<2/n, 0, rng.integers(7, 11, n)),
    lambda rng, n: rng.uniform(-10, 10, n).round(2), lambda rng, n: np.where(rng.random(n)<.9, 5, rng.integers(1, 6, n)), lambda rng, n: np.where(rng.random(n)<.9, 1, rng.integers(1, 6, n)), lambda rng, n: rng.normal(50, 10, n),
    lambda rng, n: rng.standard_cauchy(n), lambda rng, n: rng.standard_t(3, n)*20, lambda rng, n: np.where(rng.random(n)<1/n, 10, rng.integers(1, 6, n)), lambda rng, n: np.where(rng.random(n)<2/n, 1, rng.integers(4, 6, n)),
    lambda rng, n: np.where(rng.random(n)<2/n, 0, rng.integers(60, 101, n)), lambda rng, n: np.where(rng.random(n)<2/n, -10, rng.integers(6, 11, n)), lambda rng, n: rng.zipf(2, n).clip(max=10**6), lambda rng, n: rng.exponential(30, n), lambda rng, n: rng.poisson(3, n)])
def test_scales_with_rare_ends_and_long_tails_hold_no_slip(make):
    from fastrec.data.slips import slip_in
    found = [slip_in(make(np.random.default_rng(seed), n).astype('float32'), 'rating') for n in (300,1000,20_000) for seed in range(40)]
    assert [o for o in found if o]==[]

# ------------------------------------------------------------------ files
@pytest.fixture
def write(tmp_path):
    def f(text, name='r.csv'):
        (tmp_path/name).write_bytes(text if isinstance(text, bytes) else text.encode())
        return tmp_path/name
    return f

def csv(path, **kwargs): return RecDataLoaders.from_csv(path, seed=1, bs=64, **kwargs)

def test_files_are_read_as_they_are_written(small, write):
    want = read(small)
    for kwargs in (dict(sep=','), dict(sep=';'), dict(sep='\t'), dict(sep='|'), dict(sep=';', decimal=','), dict(lineterminator='\r\n')): assert same(csv(write(small.to_csv(index=False, **kwargs))), want)
    assert same(csv(write(small.to_csv())), want) and same(csv(write(small.to_csv(index=False, sep='@').replace('@', '::'))), want) and same(csv(write(small.to_csv(index=False).replace(',', ', '))), want)
    for o in (small.to_csv(index=False).encode('utf-8-sig'), small.to_csv(index=False).encode('utf-16')): assert same(csv(write(o)), want)
    assert same(csv(write(gzip.compress(small.to_csv(index=False).encode()), 'r.csv.gz')), want) and same(csv(io.StringIO(small.to_csv(index=False))), want)
    assert same(csv(write(gzip.compress(small.to_csv(index=False).encode())), compression='gzip'), want)
    half = small.assign(rating=small.rating-.5)
    assert same(csv(write(half.to_csv(index=False, sep=';', decimal=','))), read(half))

def test_arguments_go_to_pandas(small, write):
    latin = small.assign(title=small.title+'é')
    file = write(latin.to_csv(index=False).encode('latin-1'))
    refused(lambda: csv(file), r"r.csv is not UTF-8, line 2 holds b'\\xe9': name its encoding, as in from_csv\(..., encoding='latin-1'\)")
    assert same(csv(file, encoding='latin-1'), read(latin))
    dashed = latin.assign(title=latin.title+' – “x”')
    file = write(dashed.to_csv(index=False).encode('cp1252'))
    refused(lambda: csv(file), "encoding='cp1252'")
    assert same(csv(file, encoding='cp1252'), read(dashed))
    for o in (dict(chunksize=10),dict(iterator=True)):
        refused(lambda: csv(file, encoding='cp1252', **o), f'reads a file as a whole, not by {[*o][0]}: leave it out')
        refused(lambda: check_ratings(file, encoding='cp1252', **o), 'leave it out')
    bare = small.to_csv(index=False, header=False)
    assert same(csv(write(bare), names=list(small)), read(small)) and same(csv(write('# by hand\n'+small.to_csv(index=False)), skiprows=1), read(small))
    refused(lambda: csv(write(bare), seperator=';'), "from_csv knows no argument 'seperator'", TypeError)
    assert set(csv(write(small.to_csv(index=False)), dtype=dict(user=str)).classes['user'].labels)<=set(small.user.astype(str))

def test_a_file_without_header_is_data(ids, small, write):
    for df,kwargs in ((ids,dict(sep='\t')),(ids.astype(int),dict(sep='@')),(small,{})):
        dls = told(lambda: csv(write(df.to_csv(index=False, header=False, **kwargs).replace('@', '::'))), 'the file has no header: its columns are taken for user, item, rating.*names=\\[...\\]')
        assert dls.train_ds.n_ratings+len(dls.valid_ds)==len(df) and dls.train_ds.cat_names==['user','item'] and float(dls.train_ds.y.max())==5

@pytest.mark.parametrize('odd_first', [False,True])
@pytest.mark.parametrize('user,item,rating,end', [(str, lambda i: f'{i:09d}X' if i%3 else f'{i:010d}', str, ''), (lambda u: f'u{u}' if u%2 else str(u), str, str, ''), (str, str, lambda r: '.5' if r=='1' else r, ''),
                                                  (str, str, str, ','), (lambda u: f'{u}.0' if u%2 else str(u), str, str, ''), (str, str, lambda r: r+'e0' if r=='2' else r, '')])
def test_a_file_without_header_need_not_have_numbers_all_over_a_column(ids, write, user, item, rating, end, odd_first):
    df = ids.astype(int).sort_values(['item','user'], ascending=odd_first)
    text = ''.join(f'{user(u)},{item(i)},{rating(str(r))}{end}\n' for u,i,r in df.values)
    dls = told(lambda: csv(write(text), valid_pct=0), 'the file has no header: .*header=0 if the first line is one')
    assert len(dls.train_ds)==len(df) and len(dls.classes['user'])-1==df.user.nunique() and len(dls.classes['item'])-1==df.item.nunique()
    assert float(dls.train_ds.y.mean())==pytest.approx(np.mean([float(rating(str(o))) for o in df.rating]))

def test_blank_ratings_make_no_header(ids, write):
    text = ids.astype(int).astype(dict(rating=object)).assign(rating=lambda o: o.rating.where(np.arange(len(o))%50>0, '')).to_csv(index=False, header=False)
    refused(lambda: csv_quietly(write(text)), "24 of 1200 rows have no 'rating'")
    assert len(csv_quietly(write(text), dropna=True, valid_pct=0).train_ds)==len(ids)-24

def csv_quietly(*args, **kwargs):
    with warnings.catch_warnings(action='ignore'): return csv(*args, **kwargs)

@pytest.mark.parametrize('header', ['who,what,mark','u,2,mark',',a,b'])
def test_words_over_numbers_are_a_header(write, header):
    from fastrec.data.headers import lacks_header
    assert not lacks_header([header.split(','),['7','12','3'],['8','',''],['9','12X','4']])

def test_an_id_written_with_a_point_and_without_is_one(ids, write):
    "As two exports in one file have it; 1.1 and 1.10 stay two"
    whole = ids.astype(int)
    text = whole.to_csv(index=False)+whole.assign(user=whole.user.map('{:.1f}'.format), rating=whole.rating%5+1).to_csv(index=False, header=False)
    dls = csv_quietly(write(text), valid_pct=0)
    assert [*dls.classes['user'].labels]==sorted(whole.user.unique()) and dls.classes['user'].labels.dtype=='int64' and len(dls.train_ds)==2*len(whole)
    versions = whole.assign(item=np.where(whole.item%2==0, '1.1', '1.10')).astype(str)
    assert [*csv_quietly(write(versions.to_csv(index=False)), valid_pct=0).classes['item'].labels]==['1.1','1.10']

def test_ids_with_marks_of_thousands_are_others_than_those_without(write):
    "A German export has 1.000 for 1000: it is text unless the mark is named, as `pd.read_csv` has it, and never the user 1"
    labels = [f'{u:,}'.replace(',', '.') for u in range(1, 2501)]
    file = write('user;item;rating\n'+''.join(f'{u};{i};{1+(k+len(i))%5}\n' for k,u in enumerate(labels) for i in ('a','bb')))
    def users(**kwargs): return csv_quietly(file, valid_pct=0, **kwargs).classes['user'].labels
    for kwargs in ({},dict(decimal=',')): assert [*users(**kwargs)]==sorted(labels)
    for kwargs in (dict(thousands='.'),dict(decimal=',', thousands='.')): assert [*users(**kwargs)]==[*range(1, 2501)] and users(**kwargs).dtype=='int64'

@pytest.mark.parametrize('ids,kwargs,want', [
    (['1','1,000','2,500'], {}, ['1','1,000','2,500']), (['1','1,000','2,500'], dict(thousands=','), [1,1000,2500]), (['7','7,0','8'], dict(decimal=','), [7,8]),
    (['7','7.0','8'], dict(decimal=','), ['7','7.0','8']), (['7','7.00','8'], {}, ['7','7.00','8']), (['1.5','1.50','2'], {}, ['1.5','1.50','2']), (['1.5','2'], {}, [1.5,2.]),
    (['1.010','1.200'], {}, ['1.010','1.200']), (["1'000",'2'], dict(thousands="'"), [2,1000]), (['007','1.000'], dict(thousands='.'), ['007','1.000']),
    (['10.30','2'], dict(thousands='.'), ['10.30','2']), (['-0','0'], {}, ['-0','0'])])
def test_ids_become_numbers_only_if_these_say_what_was_written(write, ids, kwargs, want):
    file = write('user;item;rating\n'+''.join(f'{o};{i};{r}\n' for o in ids for i,r in zip('abc', (1,3,4))))
    with warnings.catch_warnings(action='ignore'): assert [*RecDataLoaders.from_csv(file, sep=';', valid_pct=0, **kwargs).classes['user'].labels]==want

@pytest.mark.parametrize('column', ['user','title'])
def test_the_sign_of_what_is_unknown_is_no_label(small, column):
    "A `Vocab` says `#na#` for code 0, so a film of that name could not be told from an unknown one"
    df = small.astype({column: str})
    df.loc[7,column] = '#na#'
    refused(lambda: read(df), f"'{column}' holds the label '#na#', which stands for what is unknown")
    assert [*check_ratings(df).query("severity=='refused'").finding.str.contains('#na#')]==[True]

def test_leading_zeros_stay(small, write):
    padded = small.assign(user=small.user.map('{:05d}'.format))
    assert same(csv(write(padded.to_csv(index=False))), read(padded))
    late = small.assign(user=small.user.astype(str).where(small.index<1199, '007'))
    assert set(csv(write(late.to_csv(index=False)), valid_pct=.01).classes['user'].labels)<={*late.user}
    assert csv(write(small.to_csv(index=False))).classes['user'].labels.dtype=='int64'

@pytest.mark.parametrize('text,match', [
    ('', 'r.csv is empty'), ('\n\n', 'r.csv is empty'), ('user,item,rating\n', 'has no rows'), ('user,item,rating\n1,2,3\n1,2,3,4\n', 'cannot be read as a table.*line 3'),
    ('user,item,rating\n'+'1,2,3,978\n'*30, 'cannot be read as a table'), ('{"user": 1}', 'not a CSV file but JSON'), ('<html>', 'not a CSV file but HTML'), (b'PAR1xx', 'from_parquet'), (b'PK\x03\x04', 'spreadsheet'),
    (gzip.compress(b'user,item,rating', mtime=0), "pass compression='gzip'"), ('just\nsome\ntext\n', '1 columns \\(just\\)'), ('user,item,rating\n'+'NULL,2,3\n1,2,4\n2,1,5\n'*40, "'user' holds 'NULL' in 40 rows, and numbers in all others"),
    ('user,user,rating\n1,2,3\n', "'user' and 'user.1'"), ('a,b,c\n'+'1,2,x\n'*99, "'c' is of type")])
def test_wrong_files_are_told_in_a_sentence(write, text, match):
    with warnings.catch_warnings(action='ignore'): refused(lambda: csv(write(text)), match)

def _with_numbers(small, numbers):
    "The frame `small` with texts of `numbers`, over and over, for ratings"
    return small.assign(rating=np.resize(numbers, len(small)))

@pytest.mark.parametrize('sep', ['\t',';'])
@pytest.mark.parametrize('numbers,mark', [(['1,750','250','12,500'],','), (['1,750','3,125'],','), (['250','999','12.500','1.750'],'.')])
def test_a_mark_that_may_stand_between_thousands_is_asked_about(small, write, sep, numbers, mark):
    file = write(_with_numbers(small, numbers).to_csv(index=False, sep=sep))
    other = '.' if mark==',' else ','
    refused(lambda: csv(file), rf"r.csv has '{numbers[0] if mark==',' else '12.500'}' in the column 'rating'.*pass decimal='{other}' .*, or decimal='{mark}'")
    for kwargs,scale in ((dict(thousands=mark),1000.), (dict(decimal=other),1000.), (dict(decimal=mark),1.)):
        want = [float(o.replace(mark, '.'))*(scale if mark in o else 1) for o in numbers]
        got = csv(file, **kwargs, valid_pct=0).train_ds.y
        assert sorted({*got.tolist()})==pytest.approx(sorted(want)), kwargs

@pytest.mark.parametrize('sep', ['\t',';',','])
def test_a_point_in_counts_is_asked_about(small, write, sep):
    "Nobody plays 1.234 times; hours and ratings may have three decimals"
    numbers = np.resize([1,2,3,'1.234',5], len(small))
    plays = small.drop(columns='rating').assign(plays=numbers)[['user','title','plays']]
    refused(lambda: csv(write(plays.to_csv(index=False, sep=sep))), "has '1.234' in the column 'plays', which may mean 1234 or 1.234")
    for o in ('hours','rating'): assert csv_quietly(write(plays.rename(columns=dict(plays=o)).to_csv(index=False, sep=sep)))
    thirds = plays.assign(plays=np.resize(['0.333','1.234','1'], len(small)))
    assert csv_quietly(write(thirds.to_csv(index=False, sep=sep)))

def test_a_mark_that_comes_late_is_asked_about(small, write):
    "Behind the rows that show how the file is laid out"
    late = small.assign(rating=['12.500' if k>1150 else '250' for k in range(len(small))])
    refused(lambda: csv(write(late.to_csv(index=False))), "has '12.500' in the column 'rating'")

@pytest.mark.parametrize('sep,numbers', [(',',['3.125','4','2.375']), ('\t',['3.125','4.000']), (';',['3,125','4,5']), (';',['0,125','3,125']), ('\t',['1,750','2500']),
                                         (',',['4.5','3.0']), (',',['3','4.5']), (',',['1500','12.500'])])
def test_decimals_that_nothing_else_can_be_are_read(small, write, sep, numbers):
    got = csv(write(_with_numbers(small, numbers).to_csv(index=False, sep=sep)), valid_pct=0).train_ds.y
    assert sorted({*got.tolist()})==pytest.approx(sorted(float(o.replace(',', '.')) for o in numbers))

def test_another_column_may_tell_which_mark_is_decimal(small, write):
    df = _with_numbers(small, ['1,750','250']).assign(price='9,99')
    assert float(csv(write(df.to_csv(index=False, sep=';')), valid_pct=0).train_ds.y.min())==1.75

def test_both_marks_in_a_number_are_no_decimals(small, write):
    df = _with_numbers(small, ['1.234,5','250'])
    refused(lambda: csv(write(df.to_csv(index=False, sep=';'))), "'1.234,5' for one, where ratings must be numbers")
    for kwargs in (dict(thousands='.'),dict(decimal=',')):
        assert {*csv(write(df.to_csv(index=False, sep=';')), **kwargs, valid_pct=0).train_ds.y.tolist()}=={1234.5,250.}

def test_thousands_in_quotes_are_not_told_to_be_decimals(small, write):
    df = _with_numbers(small, ['1,750','250'])
    refused(lambda: csv(write(df.to_csv(index=False))), "'1,750' for one.*decimal='.'.*, or decimal=','")
    for kwargs in (dict(thousands=','),dict(decimal='.')): assert {*csv(write(df.to_csv(index=False)), **kwargs, valid_pct=0).train_ds.y.tolist()}=={1750.,250.}

def test_the_line_in_which_a_spreadsheet_names_its_separator(small, write):
    "`sep=;` before the header is read, and is no row; who counts rows to skip has counted it"
    want = read(small)
    for sep,start in ((';','sep=;\r\n'), ('\t','sep=\t\n'), ('|','\ufeffSEP=|\r\n'), (';','"sep=;"\n')):
        text = start+small.to_csv(index=False, sep=sep)
        assert same(csv(write(text)), want) and same(csv(write(text), skiprows=1), want)

def test_who_counts_the_line_of_the_separator_may_say_where_the_header_is(small, write):
    want = read(small)
    text = 'sep=;\r\n'+small.to_csv(index=False, sep=';')
    for kwargs in (dict(header=1), dict(header=0), dict(header='infer'), dict(header=1, sep=';')): assert same(csv(write(text), **kwargs), want), kwargs

@pytest.mark.parametrize('sep,how,shown,want', [
    (';', dict(decimal=','), dict(rating=['1.250,5','3'], hours=['10.300','12.45'], tag=['18.878','7']), dict(rating=[1250.5,3.])),
    ('\t', dict(decimal='.'), dict(tag=['18,878','7']), {}), ('::', dict(decimal=','), dict(rating=['1.250','3']), dict(rating=[1250.,3.])),
    (';', dict(decimal=','), dict(rating=['10.300','12.45']), {})])
def test_a_decimal_sign_that_is_said_takes_marks_of_thousands_from_numbers_alone(write, sep, how, shown, want):
    "Neither hours nor tags lose theirs; and where it is not between three digits each, it separates no thousands"
    from fastrec.data.text_files import read_text_file
    n = 200
    df = pd.DataFrame({'user': np.arange(n), 'title': np.resize(['Heat','Up'], n), 'rating': np.resize(['1','2'], n)}|{k: np.resize(o, n) for k,o in shown.items()})
    text = '\n'.join(sep.join(map(str, row)) for row in [df.columns, *df.to_numpy()])+'\n'
    got = read_text_file(write(text), [], dict(how))
    for k,o in (shown|want).items(): assert got[k][:2].tolist()==o, (k,got[k][:2])

@pytest.mark.parametrize('thousands', [' ',"'"])
def test_a_mark_of_thousands_that_is_said_leaves_decimal_commas_to_be_found(small, write, thousands):
    df = _with_numbers(small, [f'1{thousands}234,5','2,5'])
    assert {*csv(write(df.to_csv(index=False, sep=';')), thousands=thousands, valid_pct=0).train_ds.y.tolist()}=={1234.5,2.5}

def test_a_column_that_nobody_reads_refuses_no_file(small, write):
    "Unless it is named as the one of weights"
    whole = small.assign(rating=small.rating.astype(int))  # no decimals say what a point means
    file = write(whole.assign(price=np.resize(['1.250','12','0'], len(small))).to_csv(index=False))
    assert same(csv(file), read(whole)) and same(csv(file, rating_name='rating'), read(whole))
    refused(lambda: csv(file, weight_name='price'), "has '1.250' in the column 'price'")
    about = check_ratings(file)
    assert not (about.severity=='refused').any() and (check_ratings(file, weight_name='price').severity=='refused').any()

def test_marks_may_be_named(small, write):
    odd = small.assign(user=small.user.astype(str).where(small.index%50>0, 'NULL'))
    dls = told(lambda: csv(write(odd.to_csv(index=False)), na_values=['NULL'], dropna=True), "24 of 1200 rows have no 'user'; left out")
    assert dls.classes['user'].labels.dtype=='int64'

@pytest.mark.parametrize('values', ['unrated', ['unrated'], {'unrated'}, np.array(['unrated']), dict(rating='unrated'), dict(rating=['unrated','?'])])
def test_marks_that_are_named_come_on_top_of_the_empty_text(small, write, values):
    "As pandas adds them to its own; neither an empty rating nor an empty title becomes a text"
    odd = small.assign(rating=small.rating.astype(object).where(small.index%50>0, 'unrated').where(small.index%50!=1, ''),
                       title=small.title.where(small.index%60!=2, ''))
    text = odd.to_csv(index=False)
    want = small[(small.index%50>1) & (small.index%60!=2)].reset_index(drop=True)
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        dls = csv(write(text), na_values=values, dropna=True, valid_pct=0)
    assert [str(o.message) for o in found]==["20 of 1200 rows have no 'title', 48 of 1200 rows have no 'rating'; left out"]
    assert '' not in dls.classes['title'].labels and len(dls.train_ds)==len(want) and float(dls.train_ds.y.sum())==want.rating.sum()

def test_who_says_what_pandas_keeps_says_all(small, write):
    file = write(small.assign(title=small.title.where(small.index%60!=2, 'None')).to_csv(index=False))
    assert 'None' in csv(file, valid_pct=0).classes['title'].labels
    told(lambda: csv(file, keep_default_na=True, dropna=True), "20 of 1200 rows have no 'title'")
    empty = write(small.assign(title=small.title.where(small.index%60!=2, '')).to_csv(index=False))
    dls = told(lambda: csv(empty, keep_default_na=False, valid_pct=0), "'title' holds '' in 20 rows")
    assert '' in dls.classes['title'].labels
    refused(lambda: csv(file, na_values=dict(stars='?')), "na_values has 'stars', which is none of the columns: user, title, rating, timestamp$")

def test_a_file_is_looked_at_as_it_is_read(small, write, tmp_path):
    "By its path, with what from_csv finds in it and pd.read_csv does not"
    odd = small.assign(user=small.user.map('{:05d}'.format), title=small.title.where(small.index%60!=2, 'None'),
                       rating=small.rating.astype(object).where(small.index%50>0, 'unrated').where(small.index%50!=1, ''))
    file = write(odd.to_csv(index=False))
    for o in (file,str(file)):
        found = check_ratings(o, na_values='unrated')
        assert found[found.about=='gaps'].finding.str.startswith("48 of 1200 rows have no 'rating'").tolist()==[True]
    held = odd[small.index%50>1].astype(dict(rating=float))
    pd.testing.assert_frame_equal(found[found.about!='gaps'].reset_index(drop=True), check_ratings(held)[lambda o: o.about!='gaps'].reset_index(drop=True))
    odd['rating'] = small.rating
    odd.to_parquet(tmp_path/'r.parquet')
    pd.testing.assert_frame_equal(check_ratings(tmp_path/'r.parquet'), check_ratings(odd))
    for text in ('', '{"user": 1}'): assert check_ratings(write(text)).severity.tolist()==['refused']
    assert check_ratings(tmp_path/'none.csv').severity.tolist()==['refused']
    refused(lambda: check_ratings(file, tme_name='when'), "knows no argument 'tme_name', nor does pd.read_csv; closest: 'time_name'", TypeError)
    refused(lambda: check_ratings(small, na_values='?'), 'na_values only for files', TypeError)

@pytest.mark.parametrize('dtype', [object,'str','category','string'])
@pytest.mark.parametrize('pair,want', [(('Iron Harbor','IRON HARBOR'),None), (('iron harbor ','Iron  Harbor'),None), (('Cafe\u0301','Caf\u00c9'),None),
    (('Iron Harbor','Iron  Harbor '),'Iron Harbor'), (('Cafe\u0301','Caf\u00e9'),'Caf\u00e9'), (('aB3','aB3 '),'aB3')])
def test_the_line_that_is_advised_unites_labels(small, pair, want, dtype):
    "Run as it is written; others stay what they are, ids that differ in case among them"
    first,second,*_ = small.title.unique()
    odd = small.assign(title=small.title.replace({first: pair[0], second: pair[1]}))
    odd.loc[[7,8],'title'] = ['Xy7','xY7']
    odd = odd.astype(dict(title=dtype))
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        read(odd)
    text, = [str(o.message) for o in found]
    assert text.startswith("2 labels of 'title' differ") and repr(pair[0]) in text and repr(pair[1]) in text
    df,line = odd.copy(),text.split(', say with ')[1]
    exec(line)
    was,now = odd.title.astype(object),df.title.astype(object)
    one = now[was.isin(pair)].unique()
    assert len(one)==1 and one[0] in ([want] if want else pair) and not df.title.isna().any()
    if want: assert (now==was)[~was.isin(pair)].all()
    with warnings.catch_warnings(action='error'): read(df)

def test_a_few_zeros_are_noted_and_nobody_is_warned():
    "Of a scale from 0 on they are right, so that a note says what to do on another"
    rng = np.random.default_rng(0)
    def frame(stars): return pd.DataFrame(dict(user=rng.integers(1, 300, len(stars)), item=rng.integers(1, 200, len(stars)), rating=stars)).drop_duplicates(['user','item'])
    def noted(stars): return check_ratings(frame(stars)).query('about=="rating"')
    stars = rng.integers(1, 11, 6700)
    stars[:20] = 0
    some = noted(stars)
    note, = some[some.finding.str.contains("are 0, fewer than of any other value")].itertuples()
    assert note.severity=='note' and "on one from 1 on" in note.finding and "df[df['rating']!=0]" in note.finding
    for honest in (rng.integers(0, 11, 6700), rng.integers(0, 11, 6700)/2, rng.integers(0, 101, 6700), rng.integers(0, 2, 6700), rng.integers(1, 11, 6700),
                   rng.binomial(10, .3, 6700), rng.integers(-5, 6, 6700)):
        assert not noted(honest).finding.str.contains('are 0').any()

# ------------------------------------------------------------------ what is seen
@pytest.fixture
def fitted(small):
    learn = dot_learner(read(small), 4)
    with learn.no_logging(): learn.fit_bias()
    return learn

def test_exclude_seen_excludes_or_says_why_not(small, fitted):
    known = small[small.user.isin(fitted.dls.classes['user'].labels) & small.title.isin(fitted.dls.classes['title'].labels)]
    user = known.user.iloc[0]
    free,own = fitted.recommend(user, n=100, exclude_seen=False),known[known.user==user]
    got = fitted.recommend(user, n=100, exclude_seen=own)
    assert not set(got.title)&set(own.title) and len(got)==len(free)-own.title.nunique()
    assert fitted.recommend(user, n=100, exclude_seen=own.to_dict('list')).equals(got)
    typo = own.assign(title=own.title.where(own.index!=own.index[0], 'Titanik'))
    told(lambda: fitted.recommend(user, exclude_seen=typo), "exclude_seen has labels that were not in training and exclude nothing: 1 unknown in 'title' \\('Titanik'\\)")
    refused(lambda: fitted.recommend(user, exclude_seen=own.assign(title='x')), "exclude_seen matches nothing that is known here: 1 unknown in 'title'")
    refused(lambda: fitted.recommend(user, exclude_seen=own.assign(user=-1)), "matches nothing.*unknown in 'user' \\(-1\\)")
    refused(lambda: fitted.recommend(user, exclude_seen=own.astype(dict(user=str))), "'user' holds text")
    refused(lambda: fitted.recommend(user, exclude_seen=pd.concat([own, own.title], axis=1)), "several columns 'title'")
    refused(lambda: fitted.recommend(user, exclude_seen=own.drop(columns='user')), "no column 'user'")
    refused(lambda: fitted.recommend(user, exclude_seen=own.set_index('user')), "'user' is its index, call .reset_index")
    refused(lambda: fitted.recommend(user, exclude_seen=own.assign(title=own.title.where(own.index!=own.index[0]))), "1 of .* rows have no 'title'")
    for o in (list(own.title), 'all', 1): refused(lambda: fitted.recommend(user, exclude_seen=o), 'exclude_seen, if it is neither True nor False, must be a DataFrame, not (list|str|int)', TypeError)
    assert fitted.recommend(user, exclude_seen=own.head(0)).equals(fitted.recommend(user, exclude_seen=False)) and fitted.recommend(user, exclude_seen=np.bool_(True)).equals(fitted.recommend(user))

def test_fold_in_through_the_same_door(small, ids, fitted):
    new = small[small.title.isin(fitted.dls.classes['title'].labels)].head(6)[['title','rating']]
    want = fitted.fold_in(new).recommend(n=5)
    for o in (new.to_dict('list'), new.to_dict('records'), new.astype(dict(title='category')), new.convert_dtypes()): assert fitted.fold_in(o).recommend(n=5).equals(want)
    with pytest.warns(UserWarning, match='taken for'): numbered = dot_learner(read(ids.set_axis(range(3), axis=1)), 4)
    with numbered.no_logging(): numbered.fit_bias()
    mine = ids.set_axis(range(3), axis=1).head(4)[[1,2]]
    mine = mine[mine[1].isin(numbered.dls.classes[1].labels)]
    assert list(numbered.fold_in(mine).recommend(n=3))==[0,'rank',1,'score']
    refused(lambda: fitted.fold_in(new.assign(user=[(1,)]*len(new))), "'user' holds tuple")
    refused(lambda: fitted.fold_in(pd.concat([new, new.title], axis=1)), "several columns 'title'")

# ------------------------------------------------------------------ looking first
def test_check_ratings_tells_what_there_is(small):
    found = check_ratings(small).drop_duplicates('about').set_index('about').finding
    assert found['columns']=="users: 'user', items: 'title', ratings: 'rating'"
    assert found['user'].startswith(f'{small.user.nunique()} users, {1200/small.user.nunique():.1f} rows each') and found['title'].startswith(f'{small.title.nunique()} items')
    assert found['pairs'].startswith('0 of 1,200 rows repeat') and found['split']=='0.0% of 240 validation rows are pairs that training has too'
    most = small.rating.value_counts(normalize=True)
    assert found['rating'].startswith(f'1,200 ratings from 1 to 5, 5 different, the most frequent {most.index[0]:g} ({most.iloc[0]:.0%})')
    first,last = pd.to_datetime([small.timestamp.min(), small.timestamp.max()], unit='s')
    assert found['timestamp']==f"'timestamp' from {first:%Y-%m-%d} to {last:%Y-%m-%d}"
    assert list(check_ratings(small))==['severity','about','finding'] and (check_ratings(small).severity=='note').all()
    twice = check_ratings(pd.concat([small]*2), splitter=lambda d: (np.arange(1200),np.arange(1200, 2400))).set_index('about').finding
    assert twice['split']=='100.0% of 1,200 validation rows are pairs that training has too'

@pytest.mark.parametrize('value,learns', [(1,True),(4.5,True),(0,False)])
def test_ratings_that_are_all_the_same_are_told_in_one_number(small, value, learns):
    found = check_ratings(small.assign(rating=value)).query('about=="rating" and severity=="note"').finding.iloc[0]
    more = ': fits of choices learn from them (fit_blend, fit_ials, fit_ease), and fits of ratings nothing'
    assert found==f'1,200 ratings, all of them {value:g}'+more*learns

@pytest.mark.parametrize('users,items,told', [('who','what',"taken for users: 'who', items: 'what'; if that is wrong, name them with user_name, item_name"), ('user','title',None)])
def test_what_is_refused_as_ratings_is_told_once(small, users, items, told):
    "A column of words in the place of ratings: its refusal says how to name another"
    words = small[['user','title']].set_axis([users,items], axis=1).assign(action='view')
    found = check_ratings(words)
    assert found.query('severity=="warning" and about=="columns"').finding.tolist()==([told] if told else [])
    refused_as, = found.query('severity=="refused"').finding
    assert "'action'" in refused_as and 'name the right column with rating_name' in refused_as

def test_few_ratings_are_told():
    "As few as the fits of choices cannot judge once a fifth is held out, and not more"
    def told(n): return [o for o in check_ratings(sample_ratings(n_users=100, n_items=60, n_ratings=n)).finding if 'ratings are few' in o]
    assert len(told(400))==1 and told(400)[0].startswith('400 ratings are few') and '1,000' in told(400)[0]
    assert len(told(1249))==1 and told(1250)==[] and findings.enough_choices==1000  # of 1,249, a fifth held out, 999 are left for training
    assert (check_ratings(sample_ratings(n_users=100, n_items=60, n_ratings=400)).severity=='note').all()

@pytest.mark.parametrize('bad', [None, 3, [1,2], 'x.csv', pd.DataFrame(), pd.DataFrame(dict(a=[1])), pd.DataFrame(dict(user=[(1,)]*3, item=1, rating=2.)), pd.DataFrame(dict(user=[[1]]*3, item=1, rating=2.)),
                                 pd.DataFrame(dict(user=[1,'a',None], item=[1,2,3], rating=['x',None,3])), pd.DataFrame(dict(user=[1.,None], item=[None,None], rating=[1,2]), dtype=object), pd.DataFrame(np.eye(30))])
def test_check_ratings_never_raises(bad):
    found = check_ratings(bad)
    assert found.severity[0]=='refused' and len(found.finding[0])>10
    with pytest.raises((ValueError,TypeError)), warnings.catch_warnings(action='ignore'): read(bad)

def test_check_ratings_lists_all_that_from_df_would_say(small):
    odd = small.assign(user=small.user.astype(str).where(small.index%50>0, 'NULL'), title=small.title.where(small.index!=4), rating=small.rating.where(small.index%5>1, 0), timestamp='01/02/2022')
    found = check_ratings(odd, time_name='timestamp')
    for what in ("1 of 1200 rows have no 'title'", "'user' holds 'NULL'", 'which is the day cannot be told'): assert found[found.severity=='refused'].finding.str.contains(what, regex=False).any(), what
    assert found[found.severity=='warning'].finding.str.contains("if 0 means 'not rated'").any()
    assert found.severity.map(['refused','warning','note'].index).is_monotonic_increasing

# ------------------------------------------------------------------ what is known of users and items
def test_side_frames_are_counted_before_they_grow(small):
    import tracemalloc
    labels = range(30_000)
    many = pd.DataFrame(dict(note=[f'note {k//2}' for k in labels]))
    tracemalloc.start()
    refused(lambda: side_columns(many, labels, 'user'), "side makes 15,000 columns of 'note' for 'user', more than 10,000: leave out what differs")
    assert tracemalloc.get_traced_memory()[1]<2**27
    tracemalloc.stop()
    lists = pd.DataFrame(dict(tags=[['a','b'],['b'],['a','c']]))
    rows,cols,values,width = side_columns(lists, range(3), 'user')
    dense = np.zeros((3,width))
    dense[rows,cols] = values
    assert dense.tolist()==[[1,1,0],[0,1,0],[1,0,1]]

def test_side_frames_are_what_dummies_were():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(genres=rng.choice(['A','B|A','C','','B|B'], 50), age=rng.integers(10, 60, 50), ok=rng.random(50)<.5), index=[f'u{k}' for k in range(50)]).set_axis(['genres',7,'ok'], axis=1)
    rows,cols,values,width = side_columns(df, df.index, 'user')
    genres = np.stack([[g in o.split('|') for o in df.genres] for g in ('A','B','C')], 1)  # an empty text says nothing
    want = np.concatenate([genres, ((df[[7]]-df[7].mean())/df[7].std()), df.ok.astype(str).str.get_dummies('|')], axis=1)
    got = np.zeros(want.shape)
    got[rows,cols] = values
    assert np.allclose(got, want)

@pytest.mark.parametrize('change,match', [(lambda d: pd.concat([d, d], axis=1), "side has several columns 'age'"), (lambda d: d.set_axis(d.index.astype(str)), "'user' holds text .* but the model was trained on numbers"),
                                          (lambda d: d.set_axis(d.index.where(d.index!=3).astype('Int64')), "side has 1 rows without 'user'")])
def test_side_frames_that_are_refused(change, match): refused(lambda: side_columns(change(pd.DataFrame(dict(age=range(5)), index=pd.Index(range(5), name='user'))), range(5), 'user'), match)

def test_side_frames_of_other_libraries():
    pl = pytest.importorskip('polars')
    df = pd.DataFrame(dict(user=[3,1,2], sex=['m','f','m']))
    for a,b in zip(side_columns(pl.from_pandas(df), [1,2,3], 'user'), side_columns(df, [1,2,3], 'user')): assert np.array_equal(a, b)

def test_ids_that_end_in_zeros_are_kept_apart(tmp_path):
    "1.1 and 1.10 are two sections"
    items = [f'{a}.{b}' for a in range(1, 4) for b in range(1, 31)]
    (tmp_path/'r.csv').write_text('user,item,rating\n'+''.join(f'{u},{o},{u%5+1}\n' for u in range(1, 9) for o in items), encoding='utf-8')
    assert len(RecDataLoaders.from_csv(tmp_path/'r.csv', valid_pct=.1, seed=0).classes['item'].labels)==90

def test_quotes_that_swallow_lines_are_refused(tmp_path):
    rows = [f'u{u}\tTitle {o}\t{u%5+1}\n' for u in range(1, 9) for o in range(1, 31)]
    rows[20],rows[26],rows[30] = 'u1\t"Heroes\t4\n','u1\tThe "Best"\t4\n','u2\tDavid Bowie 12"\t3\n'
    (tmp_path/'r.tsv').write_text('user\ttitle\trating\n'+''.join(rows), encoding='utf-8')
    with pytest.raises(ValueError, match="quotes that swallow lines, 'Heroes.*pass quoting=3"): RecDataLoaders.from_csv(tmp_path/'r.tsv')
    dls = RecDataLoaders.from_csv(tmp_path/'r.tsv', quoting=3, seed=0)
    assert len(dls.train_ds)+len(dls.valid_ds)==240

def test_accents_stored_in_two_ways_are_said():
    df = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
    title = df.title.astype(str)
    other = title.where(title!=title[0], pd.Series(['Amélie','Ame\u0301lie']*150))
    with pytest.warns(UserWarning, match='the way accents are stored'): RecDataLoaders.from_df(df[['user','rating']].assign(title=other), seed=0)

def test_line_ends_of_old_spreadsheets(tmp_path):
    (tmp_path/'r.csv').write_bytes(b'user,item,rating\r'+b''.join(f'{u},{i},{u%5+1}\r'.encode() for u in range(1, 9) for i in range(1, 9)))
    dls = RecDataLoaders.from_csv(tmp_path/'r.csv', seed=0)
    assert len(dls.train_ds)+len(dls.valid_ds)==64

def test_parquet_takes_titles_or_ids_as_a_frame_does(tmp_path):
    "By all rows, wherever the first ones lead; or the error says so"
    rng = np.random.default_rng(0)
    n = 30_000
    df = pd.DataFrame(dict(user=rng.integers(0, 500, n), movieId=rng.integers(0, 300, n), rating=rng.integers(1, 6, n)))
    titles = 'T'+df.movieId.astype(str)
    headlines = titles+' ep'+(df.index%100).astype(str)
    def ways(title):
        df.assign(title=title).to_parquet(tmp_path/'r.parquet')
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            res = []
            for f in (lambda: RecDataLoaders.from_parquet(tmp_path/'r.parquet', seed=1, rows=7000), lambda: read(df.assign(title=title))):
                res.append((f().classes,[str(o.message) for o in w]))
                w.clear()
        (got,told),(want,wanted) = res
        assert list(got)==list(want) and [list(o) for o in got.values()]==[list(o) for o in want.values()] and [o for o in told if 'repeat' not in o]==[o for o in wanted if 'repeat' not in o]
        return list(got)
    assert ways(titles)==['user','title'] and ways(headlines)==['user','movieId'] and ways(titles.where(df.index<12_000, headlines))==['user','movieId']
    early = df.index<8000  # of items that do not come again
    df.loc[early,'movieId'] += 1000
    df.assign(title=titles.where(~early, headlines)).to_parquet(tmp_path/'r.parquet')
    with warnings.catch_warnings(action='ignore'):
        refused(lambda: RecDataLoaders.from_parquet(tmp_path/'r.parquet'), "'title' differs within an item .* say with item_name")
        assert [list(RecDataLoaders.from_parquet(tmp_path/'r.parquet', item_name=o).classes)[1] for o in ('title','movieId')]==['title','movieId']

def test_a_frame_indexed_by_user_and_item_is_no_table(ids):
    df = ids.drop_duplicates(['user','item']).set_index(['user','item']).assign(a=1, b=2)
    refused(lambda: read(df), "'user' is its index, call .reset_index\\(\\) first")
    refused(lambda: read(df.rename(columns=dict(rating='mark'))), "'user' is its index, call .reset_index\\(\\) first")
    wide = ids.pivot_table(index='user', columns='item', values='rating')
    refused(lambda: read(wide), 'the frame is a table with a column for each item.*melt')

def test_gaps_and_kinds_in_parquet(tmp_path):
    pa = pytest.importorskip('pyarrow')
    from pyarrow import parquet
    n = np.arange(77)
    table = lambda **cols: pa.table(dict(user=n%7, item=n%11, rating=n%5+1.) | cols)
    parquet.write_table(table(user=np.where(n%7==3, np.nan, n%7)), tmp_path/'n.parquet')
    with pytest.raises(ValueError, match="rows have no 'user'"): RecDataLoaders.from_parquet(tmp_path/'n.parquet')
    with pytest.warns(UserWarning, match='left out'): dls = RecDataLoaders.from_parquet(tmp_path/'n.parquet', dropna=True, seed=0)
    assert len(dls.train_ds)+len(dls.valid_ds)==(n%7!=3).sum()
    (tmp_path/'two').mkdir()
    parquet.write_table(table(rating=n%5+1), tmp_path/'two/a.parquet')
    parquet.write_table(table(rating=[str(o) for o in n%5+1.5]), tmp_path/'two/b.parquet')
    with pytest.raises(ValueError, match='the same kind of numbers or text in all files'): RecDataLoaders.from_parquet(tmp_path/'two')
    (tmp_path/'text.parquet').write_text('no Parquet', encoding='utf-8')
    with pytest.raises(ValueError, match='cannot be read as Parquet'): RecDataLoaders.from_parquet(tmp_path/'text.parquet')

def in_files(folder, *frames):
    folder.mkdir(exist_ok=True)
    for o in folder.iterdir(): o.unlink()
    for i,o in enumerate(frames): o.to_parquet(folder/f'{i}.parquet')
    return folder

def test_times_with_a_zone_and_without_have_no_order(tmp_path):
    "Which were taken for UTC; those of several zones are one order"
    pytest.importorskip('pyarrow')
    days = pd.date_range('2020-06-01', periods=60, freq='h')
    df = pd.DataFrame(dict(user=np.arange(60)//10, item=np.arange(60)%10, rating=np.arange(60)%5+1.))
    bare,berlin,tokyo = (df.assign(user=df.user+10*k, timestamp=days.tz_localize(o)) for k,o in enumerate((None,'Europe/Berlin','Asia/Tokyo')))
    for first,second in ((bare,berlin),(berlin,bare)):
        folder = in_files(tmp_path/'r', first, second)
        refused(lambda: RecDataLoaders.from_parquet(folder, time_name='timestamp'), "'timestamp' is timestamp.* in 0.parquet and timestamp.* in 1.parquet")
        assert (check_ratings(folder, time_name='timestamp').severity=='refused').any()
        assert len(RecDataLoaders.from_parquet(folder, valid_pct=0).train_ds)==120  # a column that nobody reads
        refused(lambda: read(pd.concat([o.astype(dict(timestamp=object)) for o in (first,second)], ignore_index=True), time_name='timestamp'), 'times with a zone and without')
    both = RecDataLoaders.from_parquet(in_files(tmp_path/'r', berlin, tokyo), time_name='timestamp', valid_pct=0).train_ds.x[:,2]
    assert (both[:60]-both[60:]).unique().tolist()==[7*3600]

def test_files_of_several_types_are_read_as_one_frame_of_them(tmp_path):
    """pyarrow goes by the first file: it read the text 007 as 7, and left out a column that the first file lacks"""
    pytest.importorskip('pyarrow')
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(0, 20, 99), item=rng.integers(0, 30, 99), rating=rng.integers(1, 6, 99)))
    def ways(*frames):
        with warnings.catch_warnings(action='ignore'):
            got = RecDataLoaders.from_parquet(in_files(tmp_path/'r', *frames), valid_pct=0)
            want = read(pd.concat(frames, ignore_index=True), valid_pct=0)
            assert [list(o) for o in got.classes.values()]==[list(o) for o in want.classes.values()] and torch.equal(got.train_ds.y, want.train_ds.y)
        assert not (check_ratings(tmp_path/'r').severity=='refused').any()
    ways(df, df.assign(user=df.user+.5))
    ways(df.astype(dict(user='int8')), df.assign(user=df.user+2**40, rating=df.rating+.5))
    ways(df.assign(title='T'+df.item.astype(str)), df.assign(title=pd.Categorical('T'+df.item.astype(str))))
    texts = df.assign(user=df.user.map('{:03}'.format))
    for pair in ((df,texts), (texts,df)):
        in_files(tmp_path/'r', *pair)
        refused(lambda: RecDataLoaders.from_parquet(tmp_path/'r'), "the same kind of numbers or text in all files: 'user' is (int64|(large_)?string) in 0.parquet and")
        assert check_ratings(tmp_path/'r').finding.str.contains("'user' is").any()
    ways(df.assign(note=df.user), df.assign(note='none'))  # nobody asks for it
    in_files(tmp_path/'r', df, df.assign(title='T'+df.item.astype(str)))
    refused(lambda: RecDataLoaders.from_parquet(tmp_path/'r'), "99 of 198 rows have no 'title'")

@pytest.mark.parametrize('change,text', [
    (lambda d: d.assign(a=d.a+(d.index>20_000)*.5), "'a' holds .*, which is no id"), (lambda d: d.assign(c=d.c+(d.index>20_000)*d.index), "'c' holds ids or times"),
    (lambda d: d.assign(a=d.a.add(10**9).where(d.index<10_000, 1_500_000_000+d.index)), "'a', which is in their place, holds times")])
def test_columns_by_place_are_checked_in_all_rows_of_parquet(tmp_path, change, text):
    pytest.importorskip('pyarrow')
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(a=rng.integers(0, 200, 30_000), b=rng.integers(0, 300, 30_000), c=rng.integers(1, 6, 30_000)))
    change(df).to_parquet(tmp_path/'r.parquet', index=False)
    with warnings.catch_warnings(action='ignore'):
        refused(lambda: read(change(df)), text)
        refused(lambda: RecDataLoaders.from_parquet(tmp_path/'r.parquet'), text)
        df.to_parquet(tmp_path/'r.parquet', index=False)
        assert list(RecDataLoaders.from_parquet(tmp_path/'r.parquet').classes)==['a','b']

def test_what_is_shown_is_no_gap():
    "An example in a message is a value that is there"
    refused(lambda: read(pd.DataFrame(dict(a=[np.nan,1.5,2.5,3], b=[*'xyzw'], c=[1.,2,3,4]))), "'a' holds 1.5, which is no id")
    shared = pd.DataFrame(dict(user=range(6), title=['Emma']+['Hamlet']*2+['Emma']*3, item=[None,'m1','m2','m3','m3','m3'], rating=[1.,2,3,4,5,1]))
    told(lambda: RecDataLoaders.from_df(shared, item_name='title', bs=1, seed=1), r"as in 'Hamlet \[m1\]'")

def test_a_file_with_a_stray_end_of_line(tmp_path):
    (tmp_path/'r.csv').write_bytes(b'user,title,rating\n1,Heat,3\n7,He\rat,4\n2,Heat,5\n')
    refused(lambda: RecDataLoaders.from_csv(tmp_path/'r.csv'), 'cannot be read as a table, new-line character')

@pytest.mark.parametrize('argument', [dict(valid_pct=2), dict(valid_pct='a fifth'), dict(splitter=None)], ids=str)
def test_a_look_goes_on_behind_a_split_that_is_refused(argument):
    again = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)[['user','title','rating']]
    again = pd.concat([again, again])
    if 'splitter' in argument: argument = dict(splitter=lambda df: refuse())
    def refuse(): raise ValueError('no split')
    found = check_ratings(again, **argument)
    assert found[found.severity=='refused'].about.tolist()==['split'] and ((found.severity=='warning') & (found.about=='pairs')).any()

def test_the_broken_text_that_is_shown_is_the_first():
    side = pd.DataFrame(dict(note=pd.Series([f'{k}\ud800' for k in range(20)], dtype=object)))
    for _ in range(2): refused(lambda: side_columns(side, range(20), 'user'), "0.?.?ud800")

# ------------------------------------------------------------------ dates under any name
@pytest.mark.parametrize('dtype', ['datetime64[ns]', 'datetime64[s]', 'timestamp[us][pyarrow]', 'datetime64[ns, UTC]'])
def test_the_only_column_of_dates_tells_when(small, dtype):
    dated = small.assign(**{'Date read': pd.to_datetime(small.timestamp, unit='s', utc='UTC' in dtype).astype(dtype), 'Shelf': 'a'}).drop(columns='timestamp')
    found = check_ratings(dated)
    assert found[found.about=='columns'].finding.tolist()[1:]==["not read: 'Shelf'"] and "'Date read' from " in found.finding.iloc[-1]
    for make in (TimeSplitter, LeaveLastSplitter): assert [list(o) for o in make()(dated)]==[list(o) for o in make()(small)]
    two = dated.assign(bought=dated['Date read'])  # which one is meant, nobody knows
    assert check_ratings(two).finding.tolist()[1]=="not read: 'Date read', 'Shelf', 'bought'; if 'Date read' holds the times, name it with time_name"
    refused(lambda: TimeSplitter()(two), re.escape("as in TimeSplitter(time_name='Date read')"))
    assert check_ratings(two.assign(when=two.bought)).about.iloc[-1]=='when'

def test_text_called_after_dates_is_named_and_not_taken(small):
    text = small.assign(**{'Date read': '2024-01-01'}).drop(columns='timestamp')
    as_text = ", which reads text such as '2024-01-01'"
    assert check_ratings(text).finding.tolist()[1]=="not read: 'Date read'; if 'Date read' holds the times, name it with time_name"+as_text
    vague = text.assign(**{'Date read': 'in spring'})
    assert check_ratings(vague).finding.tolist()[1]=="not read: 'Date read'; if 'Date read' holds the times, name it with time_name"
    played = text.assign(**{'Date read': '31/12/2022 18:00'}).rename(columns={'Date read': 'Played'})
    assert check_ratings(played).finding.tolist()[1]=="not read: 'Played'; if 'Played' holds the times, name it with time_name, which reads text such as '31/12/2022 18:00'"
    assert "'Played' from 2022-12-31 to 2022-12-31" in {*check_ratings(played, time_name='Played').finding}
    for make,name in ((TimeSplitter,'TimeSplitter'), (LeaveLastSplitter,'LeaveLastSplitter')):
        refused(lambda: make()(text), re.escape(f"name the one that holds the times, as in {name}(time_name='Date read')"))
    refused(lambda: UserSplitter()(text.rename(columns=dict(user='who'))), re.escape("as in UserSplitter(user_name='who')"))

def test_what_is_taken_is_not_told_as_unread(small):
    with_ids = sample_ratings(n_users=60, n_items=40, n_ratings=1200, seed=0)[['user','item','title','rating','timestamp']]
    for df in (small, with_ids): assert not check_ratings(df).finding.str.startswith('not read').any()
    wide = small.assign(**{f'c{k}': 0 for k in range(30)})
    assert check_ratings(wide).finding[1].endswith("'c19' and 10 more")

@pytest.mark.parametrize('encoding', ['utf-16-le','utf-16-be','utf-32-le','utf-16','utf-32'])
def test_encodings_with_bytes_of_0(small, tmp_path, encoding):
    "Without a mark they are named, and read if they are given; an id with such a byte made text of all others"
    file,want = tmp_path/'a.csv',len(RecDataLoaders.from_df(small, seed=0).train_ds)
    file.write_bytes(small.to_csv(index=False).encode(encoding))
    if encoding[-2:] in ('le','be'):
        refused(lambda: RecDataLoaders.from_csv(file, seed=0), f"holds bytes of 0: name its encoding, as in from_csv.*encoding='{encoding}'")
        assert len(RecDataLoaders.from_csv(file, encoding=encoding, seed=0).train_ds)==want
    else: assert len(RecDataLoaders.from_csv(file, seed=0).train_ds)==want

def test_a_byte_of_0_in_an_id_is_refused(small, tmp_path):
    file = tmp_path/'a.csv'
    text = small.to_csv(index=False).splitlines()
    text[3] = text[3].replace(',', '\0,', 1)
    file.write_text('\n'.join(text), encoding='utf-8')
    refused(lambda: RecDataLoaders.from_csv(file), 'line 4, holds a byte of 0')

def test_from_csv_names_the_closest_argument(small, tmp_path):
    small.to_csv(tmp_path/'a.csv', index=False)
    refused(lambda: RecDataLoaders.from_csv(tmp_path/'a.csv', timestamp_name='when'), "from_csv knows no argument 'timestamp_name'.*; closest: 'time_name'", TypeError)
    refused(lambda: RecDataLoaders.from_csv(tmp_path/'a.csv', separator=';'), "knows no argument 'separator'", TypeError)

# ------------------------------------------------------------------ logs that begin with a date, under names that say nothing
_written = ['%Y-%m-%d','%d.%m.%Y','%Y/%m/%d','%d.%m.%y','%d %b %Y','%b %d, %Y','%Y-%m-%dT%H:%M:%SZ','%a, %d %b %Y %H:%M:%S GMT','%Y%m%d','%H:%M']

@pytest.fixture(scope='module')
def log(small):
    days = pd.to_datetime(small.timestamp, unit='s')
    return pd.DataFrame({'fecha': days, 'id cliente': 'K'+small.user.astype(str), 'película': small.title, 'evento': small.rating})

@pytest.mark.parametrize('make', [*(lambda d, o=o: d.dt.strftime(o) for o in _written), lambda d: d, lambda d: d.dt.date, lambda d: d.dt.strftime('%Y%m%d').astype(int),
                                  lambda d: (d.dt.floor('D')-pd.Timestamp(0))//pd.Timedelta('1s'), lambda d: d.dt.strftime('%d.%m.%Y').where(d.index%50>0, 'k. A.')])
def test_a_column_of_dates_is_nobody_and_no_item(log, make, tmp_path):
    log = log.assign(fecha=make(log.fecha))
    match = "users, and 'fecha', which is in their place, holds times, .* name the columns with user_name, item_name, rating_name, out of id cliente, película, evento"
    refused(lambda: read(log), match)
    assert check_ratings(log).finding.str.contains("'fecha'.*holds times").sum()==1
    log.to_csv(tmp_path/'log.csv', index=False)
    refused(lambda: RecDataLoaders.from_csv(tmp_path/'log.csv'), match)
    second = log[['id cliente','fecha','película','evento']]
    refused(lambda: read(second), "usual name for items, and 'fecha', which is in their place, holds times")
    named = dict(user_name='id cliente', item_name='película', rating_name='evento')
    assert read(log, **named).train_ds.user_name=='id cliente'
    third = log[['id cliente','película','fecha','evento']]
    refused(lambda: read(third), "ratings, and 'fecha', which is in their place, holds times")

def test_what_is_named_is_not_said_again(log):
    told(lambda: read(log[['id cliente','película','evento']], rating_name='evento'), "^taken for users: 'id cliente', items: 'película'; if that is wrong, name them with user_name, item_name$")

def test_ids_and_titles_that_look_a_little_like_dates_are_none(log):
    log = log[['id cliente','película','evento']]
    for o in ({'id cliente': np.arange(len(log))%60+20_240_101}, {'id cliente': np.arange(len(log))%7+2001}, {'película': np.where(log.index%3>0, log['película'], '9 December 2001')}):
        told(lambda: pick_columns(log.assign(**o)), 'taken for users')

# ------------------------------------------------------------------ marks among numbers and times
@pytest.mark.parametrize('mark', ['k. A.','-','n/a','?','keine','#NV'])
def test_a_mark_among_ratings_is_named_and_its_remedy_works(small, mark, tmp_path):
    comma = small.rating.astype(float).add(.5).astype(str).str.replace('.', ',')
    for written in (comma, small.rating.astype(str)):
        df = small[['user','title']].assign(Sterne=written.where(small.index%60>0, mark), when=small.timestamp)
        df.to_csv(tmp_path/'r.csv', index=False, sep=';')
        csv = partial(RecDataLoaders.from_csv, tmp_path/'r.csv', rating_name='Sterne', seed=1, bs=64)
        said = refused(csv, rf"'Sterne' holds text in 20 of 1,200 rows, {re.escape(repr(mark))} for one, where ratings must be numbers.*na_values=\[")
        refused(lambda: read(df, rating_name='Sterne'), 'holds text in 20 of 1,200 rows')
        assert check_ratings(tmp_path/'r.csv', rating_name='Sterne').query("severity=='refused'").finding.str.contains('na_values', regex=False).sum()==1
        refused(lambda: csv(na_values=[mark]), "20 of 1200 rows have no 'Sterne'.*dropna=True")
        got = told(lambda: csv(na_values=[mark], dropna=True), "20 .*left out")
        assert len(got.train_ds)+len(got.valid_ds)==1180 and got.train_ds.y.max()==(5.5 if written is comma else 5)
        exec(re.search(r"or (df.*?'coerce'\))", said)[1], dict(df=df, pd=pd))
        assert df.Sterne.isna().sum()==20 and df.Sterne.max()==(5.5 if written is comma else 5)
        refused(lambda: read(small.assign(w=written.where(small.index%60>0, mark)), weight_name='w'), 'holds text in 20 of 1,200 rows.*where weights must be numbers')

def test_a_mark_next_to_real_numbers_is_named(small):
    mixed = small.rating.astype(object).where(small.index%60>0, 'k. A.')
    refused(lambda: read(small.assign(rating=mixed)), "20 of 1,200 rows, 'k. A.' for one")

@pytest.mark.parametrize('format', ['%d.%m.%Y','%Y-%m-%d','%Y-%m-%d %H:%M','%s'])
def test_a_mark_among_times_is_named_and_its_remedy_works(small, format, tmp_path):
    written = pd.to_datetime(small.timestamp, unit='s').dt.strftime(format)
    df = small.drop(columns='timestamp').assign(when=written.where(small.index%60>0, 'k. A.'))
    df.to_csv(tmp_path/'r.csv', index=False)
    csv = partial(RecDataLoaders.from_csv, tmp_path/'r.csv', time_name='when', seed=1, bs=64)
    refused(csv, r"'when' holds 'k. A.' among dates such as .*na_values=\['k. A.'\]")
    got = told(lambda: csv(na_values=['k. A.'], dropna=True), "20 .*'when'.*left out")
    assert len(got.train_ds)+len(got.valid_ds)==1180

# ------------------------------------------------------------------ rows without a time
@pytest.fixture(scope='module')
def gappy(small): return small.rename(columns=dict(timestamp='Bewertet am')).assign(**{'Bewertet am': lambda o: pd.to_datetime(o['Bewertet am'], unit='s').where(o.index%120>0)})

@pytest.mark.parametrize('make', [TimeSplitter,LeaveLastSplitter])
def test_rows_without_a_time_are_left_out_of_a_split_too(gappy, make, tmp_path):
    whole = gappy.dropna()
    want = read(whole, splitter=make(), time_name='Bewertet am')
    splitter = make(time_name='Bewertet am')
    for got in (told(lambda: read(gappy, splitter=make(), time_name='Bewertet am', dropna=True), "10 of 1200 rows have no 'Bewertet am'.*left out"),
                told(lambda: read(gappy, splitter=splitter, time_name='Bewertet am', dropna=True), '10 of 1200 .*left out'),
                told(lambda: read(gappy, splitter=splitter, dropna=True), "10 rows have no 'Bewertet am', which the splitter needs; left out")):
        for a,b in ((got.train_ds,want.train_ds),(got.valid_ds,want.valid_ds)): assert a.x[:,:2].equal(b.x[:,:2]) and a.y.equal(b.y)
    for more in (dict(time_name='Bewertet am'), {}): refused(lambda: read(gappy, splitter=splitter, **more), 'leave these rows out with dropna=True')
    gappy.to_csv(tmp_path/'r.csv', index=False)
    csv = told(lambda: RecDataLoaders.from_csv(tmp_path/'r.csv', make(), time_name='Bewertet am', dropna=True, seed=1, bs=64), '10 of 1200')
    assert len(csv.train_ds)+len(csv.valid_ds)==1190
    refused(lambda: splitter(gappy), 'leave them out with df.dropna')

def test_rows_without_a_user_are_left_out_of_a_split_by_users(small):
    df = small.assign(user=small.user.where(small.index%120>0))
    for make in (partial(UserSplitter, seed=0),LeaveLastSplitter):
        want = read(df.dropna().astype(dict(user=int)), splitter=make())
        got = told(lambda: read(df, splitter=make(), dropna=True), "10 of 1200 rows have no 'user'.*left out")
        assert sorted(got.valid_ds.y.tolist())==sorted(want.valid_ds.y.tolist()) and len(got.train_ds)==len(want.train_ds)

def test_what_check_ratings_advises_can_be_passed_to_it(gappy, tmp_path):
    gappy.to_csv(tmp_path/'r.csv', index=False)
    for ratings in (gappy,tmp_path/'r.csv'):
        ask = partial(check_ratings, ratings, splitter=TimeSplitter(time_name='Bewertet am'), time_name='Bewertet am')
        found = ask()
        assert found.query("severity=='refused'").finding.str.contains('leave these rows out with dropna=True').all() and 'refused' in set(found.severity)
        found = ask(dropna=True)
        assert found.query("severity!='note'").finding.tolist()==["10 of 1200 rows have no 'Bewertet am'; left out"]
        assert found.finding.str.contains('of 238 validation rows').sum()==1

@pytest.mark.filterwarnings("ignore:taken for")
def test_dates_are_looked_for_in_any_column():
    "Categories of whole numbers with a gap, and what has no unique values"
    df = sample_ratings(30, 20, 200)
    kinds = df.user.astype('category')
    kinds[5] = None
    with warnings.catch_warnings(action='ignore'): RecDataLoaders.from_df(pd.DataFrame(dict(aa=kinds, bb=df.title, cc=df.rating)), dropna=True, seed=1)
    for odd in (kinds, [[1,2]]*200, [{1}]*200, [{}]*200):
        frame = df[['user','title','rating']].assign(odd=odd)
        assert len(check_ratings(frame))
        with pytest.raises(ValueError, match='time'): RecDataLoaders.from_df(frame, splitter=TimeSplitter())
