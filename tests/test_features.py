"""Frames of users and items beside the ratings: encoded as by hand, refused where they are not what they should be, kept with the ratings, and read by
`fit_bayes`, so that items nobody has rated are predicted, and listed where something is known of them"""
import contextlib,copy,pickle,re,warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import load_learner
from conftest import quietly
from fastrec.all import (DotBias,Features,RecDataLoaders,RecLearner,Vocab,choose_fit,cross_validate,k_folds,learner,load_recommender,
    nn_learner,sample_ratings,search)
from fastrec.data.sides import labelled
from fastrec.models.base import moments
from fastrec.models.foldin import user_prior

small,truth = sample_ratings(n_users=80, n_items=60, n_ratings=2500, with_truth=True)
small = small[['user','title','rating','timestamp']]
sides = truth.sides()
films = sides['items']

def read(items=None, users=None, ratings=small, **kwargs): return RecDataLoaders.from_df(ratings, users=users, items=items, **{'seed': 0, **kwargs})
def with_new(n=5): return pd.concat([films, pd.DataFrame(dict(genre=['space','love','laughs','dread','space'][:n], decade='2020s'), [f'{c} new (2026)' for c in 'AMPZb'[:n]])])

# ------------------------------------------------------------------ encoding
def slow(frame, labels):
    "Columns by name, each with a number for each of `labels`"
    res = {}
    for c in frame:
        cells = {k: frame[c][k] for k in frame.index}
        gap = {k: not isinstance(v, list) and pd.isna(v) for k,v in cells.items()}
        there = [v for k,v in cells.items() if not gap[k]]
        if there and isinstance(there[0], (int,float,np.number,pd.Timestamp)) and not isinstance(there[0], (bool,np.bool_)) and frame[c].dtype!='category':
            x = [v.value/86400e9 if isinstance(v, pd.Timestamp) else float(v) for v in there]
            if len({*x})>1: res[c] = [(0 if gap.get(o, True) else ((cells[o].value/86400e9 if isinstance(cells[o], pd.Timestamp) else cells[o])-np.mean(x))/np.std(x, ddof=1)) for o in labels]
            if 0<sum(gap.values())<len(gap): res[f'{c} is missing'] = [float(gap.get(o, False)) for o in labels]
            continue
        parts = {k: set() if gap[k] else set(v) if isinstance(v, list) else {*str(v).split('|')} for k,v in cells.items()}
        values = sorted(set().union(*parts.values()))
        once = all(sum(o in p for p in parts.values())==1 for o in values)
        if values and not once and not (len(values)==1 and all(parts.values())):
            for o in values: res[f'{c}={o}'] = [float(o in parts.get(k, ())) for k in labels]
    return res

def some_frame(seed):
    rng = np.random.default_rng(seed)
    n = 30
    def gaps(col): return pd.Series(col, dtype=object).where(rng.random(n)<.8)
    df = pd.DataFrame(dict(
        year=rng.integers(1950, 2020, n), price=gaps(rng.normal(size=n)).astype(float), genre=gaps(rng.choice(['A','B|A','C|D','C'], n)),
        tags=pd.Series([list(rng.choice([*'xyz'], rng.integers(1, 3), replace=False)) for _ in range(n)]), adult=rng.random(n)<.5,
        out=pd.Series(pd.to_datetime(rng.integers(0, 10**9, n), unit='s')).where(rng.random(n)<.7), rated=gaps([True,False]*15), kind=pd.Categorical(rng.choice([1,2], n))))
    df.index = pd.Index([f't{k}' for k in rng.permutation(n)], name='title')
    return df

@pytest.mark.parametrize('seed', range(6))
def test_columns_are_as_by_hand(seed):
    df = some_frame(seed)
    labels = [f't{k}' for k in range(2, 35)]  # some without a row, some rows of others
    got = Features(df, Vocab(labels, 'title'))
    want = slow(df, labels)
    assert got.names==[*want]
    dense = got.x.to_dense()
    assert not dense[0].any() and dense.dtype==torch.float32
    assert np.allclose(dense[1:], np.array([*want.values()]).T, atol=1e-5)

@pytest.mark.parametrize('seed', range(3))
def test_another_frame_is_read_by_the_first(seed):
    df,other = some_frame(seed),some_frame(seed+10)
    known = Features(df, Vocab(df.index, 'title'))
    assert torch.equal(known.encode(df.iloc[::-1]).to_dense(), known.x.to_dense()[known.vocab.encode(df.index[::-1])])
    got = known.encode(other).to_dense()
    both = slow(pd.concat([df, other.set_axis([f'new {o}' for o in other.index])]), [f'new {o}' for o in other.index])
    for k,name in enumerate(known.names):
        if '=' in name: assert got[:,k].tolist()==both[name]
    year = known.names.index('year')
    assert np.allclose(got[:,year], (other.year-df.year.mean())/df.year.std(), atol=1e-5)

def test_a_later_frame_that_does_not_fit():
    df = some_frame(0)
    known = Features(df, Vocab(df.index, 'title'))
    with pytest.raises(ValueError, match="the frame has no column 'year', from which something was learned"): known.encode(df.drop(columns='year'))
    with pytest.raises(ValueError, match="holds values in 'year', 'old' for one, where numbers were learned"): known.encode(df.assign(year='old'))
    with pytest.raises(ValueError, match="holds numbers in 'out'.*where dates were learned"): known.encode(df.assign(out=3))
    with pytest.raises(ValueError, match="several times"): known.encode(pd.concat([df, df.head(1)]))
    with pytest.raises(ValueError, match="not finite"): known.encode(df.assign(price=np.inf))
    with pytest.warns(UserWarning, match="columns from which nothing was learned, 'more' for one"): more = known.encode(df.assign(more=1))
    assert torch.equal(more.to_dense(), known.encode(df).to_dense())
    with pytest.warns(UserWarning, match="2 values of 'genre' that were not learned, 'Y' for one"): new = known.encode(df.assign(genre='Y|A|Z'))
    assert new.to_dense()[:,[known.names.index(o) for o in ('genre=A','genre=B')]].mean(0).tolist()==[1,0]
    for gone in (None,np.nan): assert not known.encode(df.assign(year=gone, genre=gone, out=gone)).to_dense()[:,known.names.index('year')].any()

def test_nullable_arrow_and_python_types_say_the_same():
    df = some_frame(1)[['year','price','genre','out']]
    want = Features(df, Vocab(df.index, 'title')).x.to_dense()
    for other in (df.convert_dtypes(), df.astype(object), df.assign(genre=df.genre.astype('category')), df.assign(out=df.out.dt.date), df.assign(out=df.out.dt.tz_localize('UTC')), df.reset_index()):
        assert torch.allclose(Features(other, Vocab(df.index, 'title')).x.to_dense(), want, atol=1e-2)

@pytest.mark.parametrize('column,why', [(['a']*4, 'is the same for all'), ([7]*4, 'is the same for all'), ([None]*4, 'is missing for all'), ([np.nan]*4, 'is missing for all'),
                                        ([*'abcd'], 'differs for all'), (['a',None,None,'b'], 'differs for all'), ([pd.Timestamp(0)]*4, 'is the same for all')])
def test_what_says_nothing_is_told_and_left_out(column, why):
    labels = pd.Index([*'pqrs'], name='title')
    with pytest.warns(UserWarning, match=f"column 'odd' {why} of 'title' and says nothing; left out"):
        got = Features(pd.DataFrame(dict(odd=column, year=[1,2,3,4]), labels), Vocab(labels, 'title'))
    assert got.names==['year']

def test_a_wide_frame_takes_no_square():
    import tracemalloc
    n = 25_000
    df = pd.DataFrame(dict(tag=[f'{k%9_000}|{k%8_999}' for k in range(n)]), pd.Index(range(n), name='item'))
    tracemalloc.start()
    got = Features(df, Vocab(range(n), 'item'))
    assert got.x.shape==(n+1,9_000) and got.x._nnz()>=n and tracemalloc.get_traced_memory()[1]<2**28
    tracemalloc.stop()
    with pytest.raises(ValueError, match="makes 10,001 columns of 'tag' for 'item', more than 10,000"):
        Features(pd.DataFrame(dict(tag=[f't{k%10_001}' for k in range(n)]), df.index), Vocab(range(n), 'item'))

# ------------------------------------------------------------------ loaders
def test_unrated_labels_are_known():
    dls = read(with_new())
    plain = read()
    vocab = dls.classes['title']
    assert list(vocab.labels)==sorted([*plain.classes['title'].labels, *with_new().index[-5:]]) and vocab.labels.dtype==plain.classes['title'].labels.dtype
    ds = dls.train_ds
    new = vocab.lookup(with_new().index[-5:])
    assert (ds.counts(1)[new]==0).all() and ds.counts(1).sum()==len(ds)
    for a,b in ((ds,plain.train_ds),(dls.valid_ds,plain.valid_ds)):
        assert a.decode(a.x, a.y).equals(b.decode(b.x, b.y))
    assert ds.features[0] is None and ds.features[1].names==Features(with_new(), vocab).names
    x = dls.test_dl(pd.DataFrame(dict(user=small.user[0], title=with_new().index[-5:]))).dataset.x
    assert x[:,1].tolist()==new.tolist()

@pytest.mark.parametrize('index', [lambda d: d, lambda d: d.rename_axis('title'), lambda d: d.rename_axis('title').reset_index(), lambda d: d.rename_axis('title').reset_index().sample(frac=1, random_state=1),
                                   lambda d: d.set_axis(pd.CategoricalIndex(d.index)), lambda d: d.rename_axis('title').reset_index().to_dict('list')])
def test_labels_stand_in_a_column_or_an_index(index):
    assert torch.equal(read(index(with_new())).train_ds.features[1].x.to_dense(), read(with_new()).train_ds.features[1].x.to_dense())

def test_ids_in_another_type():
    ratings = small.assign(user=small.user.astype('int32'))
    users = sides['users']
    for dtype in ('int64','float64','Int16','uint16'):
        dls = read(users=users.set_axis(users.index.astype(dtype)), ratings=ratings)
        assert dls.classes['user'].labels.dtype=='int32' and len(dls.train_ds.features[0].names)==5

def frame(**kwargs): return films.assign(**kwargs)
@pytest.mark.parametrize('items,error,match', [
    (lambda: films.reset_index(drop=True), ValueError, "items has no column 'title'; it has genre, decade"), (lambda: films.rename_axis('film'), ValueError, "items has no column 'title'"),
    (lambda: films.set_index(['genre','decade']), ValueError, 'items has an index of 2 levels'),
    (lambda: pd.concat([films, films.head(1)]), ValueError, "items has .* of 'title' several times"), (lambda: films.set_axis(films.index.where(films.index!=films.index[3])), ValueError, "items has 1 rows without 'title'"),
    (lambda: films.set_axis(pd.Index(np.arange(len(films))+3)), ValueError, "'title' holds text in the ratings .* and numbers in the frame"),
    (lambda: films.set_axis([f'film {k}' for k in range(len(films))]), ValueError, "no 'title' of the frame of features is in the ratings: it has 'film 0'"),
    (lambda: frame(price=np.inf), ValueError, "items has values in 'price' that are not finite"), (lambda: frame(price=np.where(np.arange(len(films))%2, 1e308, -1e308)), ValueError, "'price' that are too large"),
    (lambda: pd.concat([films, films], axis=1), ValueError, "items has several columns 'genre'"), (lambda: films.head(0), ValueError, 'items has no rows'),
    (lambda: films.genre, TypeError, 'items must be a DataFrame, not'), (lambda: 'films.csv', TypeError, 'read a file with from_csv'), (lambda: 3, TypeError, 'items must be a DataFrame'),
    (lambda: films.reset_index(drop=True).assign(title=[[1]]*len(films)), ValueError, "column 'title' holds list, which is no label"),
    (lambda: frame(note=pd.Series(['\ud800','x']*(len(films)//2), films.index, dtype=object)), ValueError, "items column 'note' holds .* no text")])
def test_bad_frames_are_refused(items, error, match):
    with pytest.raises(error, match=match): read(items())

def test_labels_that_the_ratings_cannot_hold():
    users = sides['users']
    with pytest.raises(ValueError, match=r"1\.5 of 'user' in the frame of features cannot be held as int32"): read(users=users.set_axis([1.5, *users.index[1:]]), ratings=small.assign(user=small.user.astype('int32')))

def test_shards_take_no_frames(tmp_path):
    with pytest.raises(ValueError, match='users or items and shard=True do not go together'): read(films, shard=True)
    with pytest.raises(ValueError, match='users or items and shard=True do not go together'): RecDataLoaders.from_parquet(tmp_path/'none', items=films, shard=True)

def test_labels_without_a_row_are_told():
    with pytest.warns(UserWarning, match=r"items has no row for 3 of 60 labels of 'title', '.*' for one: nothing is known about them"): dls = read(films.iloc[3:])
    ds = dls.train_ds
    codes = ds.classes['title'].encode(films.index[:3])
    assert not ds.features[1].x.to_dense()[codes].any() and len(ds.classes['title'])==61

def test_a_frame_of_labels_alone():
    dls = read(with_new()[[]])
    assert dls.train_ds.features[1].names==[] and len(dls.classes['title'])==66
    learn = learner(dls, DotBias, seed=0)
    with quiet(learn): learn.fit_bayes(2, 6)
    assert learn.model.from_features==(False,False) and 'A new (2026)' not in set(learn.recommend(small.user[0], n=99).title)

def test_files_take_frames(tmp_path):
    small.to_csv(tmp_path/'r.csv', index=False)
    want = read(**dict(items=with_new(), users=sides['users'])).train_ds
    others = [RecDataLoaders.from_csv(tmp_path/'r.csv', seed=0, items=with_new(), users=sides['users'])]
    if pytest.importorskip('pyarrow'):
        small.to_parquet(tmp_path/'r.parquet')
        others.append(RecDataLoaders.from_parquet(tmp_path/'r.parquet', seed=0, items=with_new(), users=sides['users']))
    for o in others:
        assert torch.equal(o.train_ds.x.cpu(), want.x.cpu())
        for a,b in zip(o.train_ds.features, want.features): assert a.names==b.names and torch.equal(a.x.to_dense(), b.x.to_dense())

def quiet(learn):
    from contextlib import ExitStack
    res = ExitStack()
    res.enter_context(learn.no_bar())
    res.enter_context(learn.no_logging())
    return res

def same(a, b): return a.names==b.names and torch.equal(a.x.to_dense(), b.x.to_dense())

def test_features_stay_with_the_ratings(tmp_path):
    dls = read(**dict(items=with_new(), users=sides['users']))
    ds = dls.train_ds
    for other in (dls.valid_ds, dls.test_dl(small.head(9)).dataset, ds.subset(torch.arange(7)), ds.new_empty(), ds.counted(), ds.to('cpu'), copy.deepcopy(ds), pickle.loads(pickle.dumps(ds)), dls.new_empty().train_ds):
        for a,b in zip(other.features, ds.features): assert same(a, b)
    part,names = ds.subset((ds.x[:,0]<9).nonzero()[:,0]).frame()
    again = RecDataLoaders.from_df(part, seed=1, bs=8, **names).train_ds
    for k,name in enumerate(('user','title')):
        vocab,old = again.classes[name],ds.classes[name]
        assert torch.equal(again.features[k].x.to_dense()[1:], ds.features[k].x.to_dense()[old.encode(vocab.labels)]) and len(vocab)<len(old)
    learn = learner(dls, DotBias, seed=0)
    with quiet(learn): learn.fit_bayes(2, 6)
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(tmp_path/'l.pkl')
    with quietly(): loaded.validate(dl=loaded.dls.test_dl(small.head(50)))
    assert loaded.recommend(n=3, exclude_seen=False).score.notna().all()
    assert same(loaded.dls.train_ds.features[1], ds.features[1]) and loaded.model.from_features==(True,True)
    new = learn.fold_in(small[small.user==small.user[0]][['title','rating']])
    assert new.ds.features[0] is None and same(new.ds.features[1], ds.features[1])

def test_searches_and_folds_know_them():
    dls = read(films)
    seen = []
    def fit(dls, **kwargs):
        seen.append(dls.train_ds.features[1].names)
        learn = learner(dls, DotBias, seed=0)
        with quiet(learn): learn.fit_bayes(2, 6)
        return learn
    cross_validate(fit, k_folds(small, 2, seed=0), seed=0, items=films)
    frame,learn = choose_fit(dls, seconds=.5, by='rmse', fits=dict(fit_bayes=dict(n_factors=2, n_sweep=5)))
    assert isinstance(learn, RecLearner) and learn.model.from_features==(False,True) and seen==[dls.train_ds.features[1].names]*2

# ------------------------------------------------------------------ fits
@pytest.fixture(scope='module')
def cold():
    "Loaders of the sample in which 60 films are for validation alone, and learners of it with and without features"
    ratings,truth = sample_ratings(n_users=500, n_items=300, n_ratings=20_000, with_truth=True)
    rng = np.random.default_rng(0)
    new = rng.choice(ratings.title.cat.categories, 60, replace=False)
    is_new = ratings.title.isin(new).to_numpy()
    valid = is_new|(rng.random(len(ratings))<.05)
    dls = RecDataLoaders.from_df(ratings, lambda df: (~valid,valid), **truth.sides(), seed=0)
    res = {}
    for features in (True,False):
        learn = learner(dls, DotBias, seed=0)
        with quiet(learn): learn.fit_bayes(4, 50, features=features)
        res[features] = learn
    return dls,res,ratings[is_new],truth

def test_features_leave_what_is_frozen():
    "Rows that would follow from features, or are solved for at the end, stay in a frozen table"
    learn = learner(read(films), DotBias, 4, splitter=lambda m: [[m.i_weight.weight],[m.u_weight.weight,*m.biases]])
    with quiet(learn):
        learn.fit(1)
        learn.freeze()
        frozen,free = learn.model.i_weight.weight.detach().clone(),learn.model.i_bias.weight.detach().clone()
        learn.fit(1)
    assert learn.model.i_weight.weight.equal(frozen) and not learn.model.i_bias.weight.equal(free)

def rmse(learn, held): return float(np.sqrt(((learn.predict_df(held)-held.rating)**2).mean()))

def test_features_tell_of_items_that_nobody_has_rated(cold):
    dls,learns,held,truth = cold
    best = truth.best_rmse(held)
    with_features,without = (rmse(learns[o], held) for o in (True,False))
    assert best<with_features<without-.015  # measured: .956 and .986; nobody can know the quality of such a film, which differs by .4 stars
    pred = learns[True].predict_df(held, std=True)
    inside = ((held.rating-pred.rating_pred).abs()<1.645*pred['std']).mean()
    assert .85<inside<.96
    warm = dls.valid_ds.decode(dls.valid_ds.x, dls.valid_ds.y)
    warm = warm[~warm.title.isin(held.title)]
    assert pred['std'].mean()>learns[True].predict_df(warm, std=True)['std'].mean()+.03
    assert rmse(learns[True], warm)<rmse(learns[False], warm)+.02

def test_implicit_columns_do_not_mislead(cold):
    dls,learns,held,_ = cold
    learn = learner(dls, DotBias, seed=0)
    with quiet(learn): learn.fit_bayes(4, 50, side='implicit')
    pred = learn.predict_df(held, std=True)
    assert rmse(learn, held)<rmse(learns[False], held)+.03
    assert .82<((held.rating-pred.rating_pred).abs()<1.645*pred['std']).mean()<.97

def test_settings_say_so(cold):
    _,learns,_,_ = cold
    table = learns[True].settings()
    assert table.value['features'] and table['from']['features']=="5 of 'user', 12 of 'title'"
    assert not learns[False].settings().value['features'] and learns[False].settings().rule['features']=='given'

def test_lists_hold_what_features_tell_of(cold, tmp_path):
    dls,learns,held,truth = cold
    new = {*held.title}
    user = held.user.iloc[0]
    all_items = len(dls.classes['title'])-1
    code = dls.classes['user'].o2i[user]
    seen = sum(int((o.x[:,0]==code).sum()) for o in (dls.train_ds,dls.valid_ds))
    for features,n in ((True,all_items-seen),(False,None)):
        learn = learns[features]
        listed = learn.recommend(user, n=1000).title
        assert bool({*listed}&new)==features and (n is None or len(listed)==n)
        assert not {*learn.recommend(user, n=1000, min_count=1).title}&new
        assert bool({*learn.recommend(user, n=1000, z=-1.).title}&new)==features==bool({*learn.recommend(user, n=1000, draw=0).title}&new)
        learn.save_recommender(tmp_path/str(features))
        loaded = load_recommender(tmp_path/str(features), device='cpu')
        assert loaded.recommend(user, n=1000).title.tolist()==listed.tolist()
        some = next(o for o in listed if o not in new)
        assert bool({*learn.similar(some, n=1000).title}&new)==features
        folded = learn.fold_in(held.drop(columns='user').head(0).assign(rating=[])[['title','rating']])
        assert bool({*folded.recommend(n=1000).title}&new)==features
    genre = truth.items.set_index('title').genre
    fresh = min(new)
    alike = learns[True].similar(fresh, n=10).title
    assert (genre[alike]==genre[fresh]).mean()>.7

def test_unrated_items_lower_no_lists_in_silence(cold):
    dls,learns,held,_ = cold
    warm = dls.valid_ds.decode(dls.valid_ds.x, dls.valid_ds.y)
    warm = warm[~warm.title.isin(held.title)]
    with pytest.warns(UserWarning, match='60 items without training ratings may be on lists.*min_count=1'): learns[True].evaluate(warm)
    same = learns[False].evaluate(warm)
    left_out = learns[True].evaluate(warm, min_count=1)
    assert left_out.loc['popularity'].drop('diversity').equals(same.loc['popularity'].drop('diversity'))  # which is by the factors of the model
    with pytest.warns(UserWarning, match='relevant held-out pairs are of items without training ratings, which are not listed here'): none = learns[False].evaluate()
    with warnings.catch_warnings(action='error'): some = learns[True].evaluate()
    assert left_out.coverage['model']<=1 and some.rmse['model']<none.rmse['model'] and some.recall_at_10['model']>none.recall_at_10['model']
    with pytest.raises(ValueError, match='min_count=-1 must be at least 0'): learns[True].evaluate(min_count=-1)

def test_items_that_nobody_has_rated_change_no_closed_form():
    "Without features their rows are 0, and lists and measures are those of loaders without them"
    a,b = (learner(read(o), DotBias, seed=0) for o in (None,with_new()))
    for learn in (a,b):
        with quietly(): learn.fit_ease(features=False)
    assert a.recommend(n=5).assign(score=0).astype(str).equals(b.recommend(n=5).assign(score=0).astype(str))
    x,y = a.evaluate(),b.evaluate()
    assert np.allclose(x.astype(float), y.astype(float), equal_nan=True, atol=1e-3)  # diversity is by cosines, which see how many items there are

@pytest.mark.parametrize('fit', [lambda l: l.fit_one_cycle(1), lambda l: l.fit_als(3, 3), lambda l: l.fit_ials(3, 3), lambda l: l.fit_bias(), lambda l: l.fit_blend(), lambda l: l.fit_bayes(2, 5, features=False)],
                         ids=['sgd','als','ials','bias','blend','bayes'])
def test_every_fit_takes_unrated_labels(fit):
    "Of labels alone nothing is known"
    users = pd.concat([sides['users'], pd.DataFrame(dict(age=[30.,60.], likes=['love','space']), [10**5,10**5+1])]).rename_axis('user')
    learn = learner(read(with_new()[[]], users[[]]), DotBias, seed=0)
    with quietly(), quiet(learn): fit(learn)
    new = [*with_new().index[-5:]]
    pairs = pd.DataFrame(dict(user=[10**5,small.user[0]], title=[small.title[0],new[0]]))
    with pytest.warns(UserWarning, match='chosen by nobody') if learn.model.is_preference else contextlib.nullcontext():
        assert np.isfinite(learn.predict_df(pairs)).all()
    assert not {*learn.recommend(10**5, n=100).title}&{*new}
    with pytest.warns(UserWarning, match="1 of the items have no training ratings, 'A new .2026.' for one, and the model knows nothing about them: left out"):
        assert learn.recommend(10**5, items=['A new (2026)',small.title[0]]).title.tolist()==[small.title[0]]
    if not learn.model.is_preference and learn.last_fit[0] not in ('fit_bayes','fit_blend'):  # as the average, of users and of films
        known = [small.user[0]],[small.title[0]]
        grid = learn.predict_grid([10**5,10**5+1,known[0][0]], [*new[:2],known[1][0]])
        with pytest.warns(UserWarning, match='the average stands in'): average = learn.predict_df(pd.DataFrame(dict(user=[-1], title=['nothing'])), unknown='average')
        assert np.allclose(grid[:2,:2], average.iloc[0], atol=1e-3) and abs(grid[2,2]-average.iloc[0])>1e-3
    assert len(learn.recommend(10**5, n=100))==60  # who has seen nothing
    with quietly(): assert learn.evaluate()[['ndcg_at_10','coverage']].notna().all(axis=None)

@pytest.mark.parametrize('fit', [lambda l: l.fit_one_cycle(3), lambda l: l.fit_als(4), lambda l: l.fit_bias()], ids=['sgd','als','bias'])
def test_unrated_users_are_no_prior_for_newcomers(fit):
    "Who is folded in gets about what they would without them"
    ratings,truth = sample_ratings(n_users=200, n_items=60, n_ratings=6000, with_truth=True)
    users = truth.sides()['users']
    more = pd.concat([users, pd.DataFrame(dict(age=30., likes='love'), range(10**6, 10**6+600))]).rename_axis('user')
    mine = ratings[ratings.user==ratings.user.mode()[0]][['title','rating']].head(8)
    got = []
    for frame in (users,more):
        learn = learner(read(None, frame, ratings), DotBias, seed=0)
        with quietly(), quiet(learn): fit(learn)
        got.append(learn.fold_in(mine).predict_grid(None)[0])
    assert np.corrcoef(*got)[0,1]>.9 and .85<got[1].std()/got[0].std()<1.15

def crowded(fit, make=learner, **kwargs):
    "A learner beside many users and items that are known by features alone, and which rows of both sides have ratings"
    ratings,truth = sample_ratings(n_users=150, n_items=80, n_ratings=4000, with_truth=True)
    frames = truth.sides()
    users = pd.concat([frames['users'], pd.DataFrame(dict(age=30., likes='love'), range(10**6, 10**6+700))]).rename_axis('user')
    items = pd.concat([frames['items'], pd.DataFrame(dict(genre='love', decade='1990s'), [f'New {k}' for k in range(300)])]).rename_axis('title')
    learn = make(read(items, users, ratings[['user','title','rating']], valid_pct=0), seed=0, **kwargs)
    with quietly(), quiet(learn): fit(learn)
    return learn,[learn.dls.train_ds.counts(k)[1:]>0 for k in (0,1)]

@pytest.mark.parametrize('fit,make', [(lambda l: l.fit_als(4), learner), (lambda l: l.fit_sgd(4), learner), (lambda l: l.fit_one_cycle(2), learner), (lambda l: l.fit_one_cycle(2), nn_learner)],
    ids=['als','sgd','gradients','net'])
def test_the_prior_of_each_side_is_as_wide_as_its_rated_rows(fit, make, tmp_path):
    "Also that of items, where users known by features alone are many, from a folder, and from saved weights"
    learn,are_rated = crowded(fit, make)
    learn.path = tmp_path
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'))
    learn.save('m')
    learn.model.user_spread = learn.model.item_spread = 3.
    with quietly(): learn.load('m')
    for model in (learn.model.eval(),rec.model):
        for side,rated in zip((model,model.turned()), are_rated):
            want = moments(side.user_rows()[rated])[1].trace()
            for of_side in (side,side.turned().turned()):
                assert abs(user_prior(of_side)[1].trace()/want-1)<.01
    assert learn.model.user_spread>2 and learn.model.item_spread>2
    learn.model.user_spread *= 2  # what was kept is not what is asked for
    assert abs(user_prior(learn.model)[1].trace()/moments(learn.model.user_rows()[are_rated[0]])[1].trace()-2)<.02

def test_older_folders_have_one_spread(tmp_path):
    from fastrec.export.layout import build_model,describe_model,model_tensors
    learn,_ = crowded(lambda l: l.fit_als(4))
    spec = describe_model(learn.model)
    assert {'user_spread','item_spread'}<={*spec}
    del spec['item_spread']
    old = build_model(spec, model_tensors(learn.model))
    assert (old.user_spread,old.item_spread)==(learn.model.user_spread,1.)

def test_the_prior_of_draws_is_that_of_rated_rows(tmp_path):
    "In each draw, and the unknown user is their mean; also from a folder, from saved weights, after `extend`, and for items"
    learn,are_rated = crowded(lambda l: l.fit_bayes(3, 12), path=tmp_path)
    def of_rated(model, k):
        draws = [moments(o[1:][are_rated[k]]) for o in model.draws()[k]]
        return [torch.stack(o) for o in zip(*draws)]
    want = [of_rated(learn.model, k) for k in (0,1)]
    learn.save('m')
    other,_ = crowded(lambda l: l.fit_bayes(3, 12, features=False), path=tmp_path)
    with quietly(): other.load('m')
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'))
    mine = pd.DataFrame(dict(user=np.repeat([-1,-2], 4), title=[*learn.dls.train_ds.classes['title'].labels[learn.dls.train_ds.x[:4,1].numpy()-1]]*2, rating=[5.,1,4,2,3,3,3,4]))
    with quietly(): more,folded = learn.extend(mine),learn.fold_in(mine)
    for model in (learn.model,other.model,rec.model,more.model,load_recommender(more.save_recommender(tmp_path/'more')).model):
        for k,side in enumerate((model,model.turned())):
            for got,o in zip(user_prior(side), want[k]): torch.testing.assert_close(got, o, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(model.draws()[k][:,0], want[k][0], atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(user_prior(folded.model)[1], want[0][1], atol=1e-5, rtol=1e-4)
    tensors = {k: v for k,v in learn.model.state_dict().items() if not k.endswith('_covs')}  # of an older file
    learn.model.load_state_dict(tensors)
    assert learn.model.covs(0) is None and user_prior(learn.model)[1].isfinite().all()

def test_draws_of_newcomers_do_not_mind_who_is_known_by_features_alone():
    df = sample_ratings(n_users=500, n_items=60, n_ratings=12000).sample(frac=1, random_state=0)
    new = df.user.isin(df.user.unique()[:250])
    few = df[new].groupby('user').head(4)
    asked,errors = df[new].drop(few.index),[]
    for n in (0,2000):
        users = pd.DataFrame(dict(user=[*df.user[~new].unique(),*range(10**6, 10**6+n)])).assign(g=lambda o: np.where(o.user%2, 'a', 'b'))
        learn = learner(read(None, users, df.loc[~new,['user','title','rating']], valid_pct=0))
        with quiet(learn): learn.fit_bayes(3, 30)
        with quietly(): folded = learn.fold_in(few[['user','title','rating']], unknown='drop')
        told = folded.predict_df(asked[['user','title']], std=True)
        off = (asked.rating-told.iloc[:,0]).abs()
        errors.append(((off**2).mean()**.5,(off<1.645*told['std']).mean()))
    (a,covered),(b,covered_then) = errors
    assert b<a*1.005 and abs(covered-covered_then)<.015

def test_side_adds_to_features():
    dls = read(films)
    learn = learner(dls, DotBias, seed=0)
    users = sides['users']
    with quiet(learn): learn.fit_bayes(2, 5, side=users)
    assert learn.model.from_features==(True,True)
    with quiet(learn): learn.fit_bayes(2, 5, side=users, features=False)
    assert learn.model.from_features==(True,False)
    with pytest.raises(TypeError, match='features=3 must be True or False'), quiet(learn): learn.fit_bayes(2, 5, features=3)

def test_weights_take_along_what_features_do(tmp_path):
    dls = read(with_new())
    a,b = (learner(dls, DotBias, seed=0, path=tmp_path) for _ in range(2))
    for l,features in ((a,True),(b,False)):
        with quiet(l): l.fit_bayes(2, 5, features=features)
    a.save('m')
    b.load('m')
    assert b.model.from_features==(False,True) and b.recommend(n=60).title.tolist()==a.recommend(n=60).title.tolist()

@pytest.mark.parametrize('device', ['cuda','mps'])
def test_new_rows_on_a_pretended_device(device):
    from pretended import Pretended
    with warnings.catch_warnings(), Pretended(device):
        warnings.filterwarnings('ignore', 'fit_bias, fit_als')
        dls = read(with_new(), sides['users'], device=device)
        learn = learner(dls, DotBias, seed=0)
        with quiet(learn): learn.fit_bayes(2, 6, side='implicit')
        assert np.isfinite(learn.predict_df(pd.DataFrame(dict(user=small.user[0], title=with_new().index)))).all() and len(learn.recommend(small.user[0], n=99))>20

def test_foretold_rows_are_those_of_ridge_regression():
    "What is borrowed: the part that features foretell, by a dense solution, and the rest of one of the rated rows"
    from fastrec.base.random import Arithmetic
    from fastrec.fit.priors import NewRows
    rng = torch.Generator().manual_seed(0)
    rated,told,new = torch.rand(30, 5, generator=rng),torch.rand(30, 3, generator=rng).round(),torch.rand(4, 3, generator=rng).round()
    x = torch.cat([torch.cat([rated,told], 1), torch.cat([torch.zeros(4, 5),new], 1)])
    beta = torch.randn(8, 2, generator=rng)
    rows = NewRows(x.to_sparse(), torch.arange(30, 34), n_rated=5)
    of_rated = rated@beta[:5]
    coefs = torch.linalg.solve(told.T@told+torch.eye(3), told.T@(of_rated-of_rated.mean(0)))
    rest = of_rated-told@coefs
    seen = set()
    for seed in range(60):
        borrowed = rows.means(beta, Arithmetic('cpu', seed)) - new@(beta[5:]+coefs)
        distance = (borrowed[:,None]-rest).abs().amax(2)
        assert (distance.amin(1)<1e-4).all()
        seen |= {*distance.argmin(1).tolist()}
    assert len(seen)==30
    alone = NewRows(x[:,5:].to_sparse(), torch.arange(30, 34), n_rated=0)
    assert torch.allclose(alone.means(beta[5:], Arithmetic('cpu', 0)), new@beta[5:], atol=1e-5)

@pytest.mark.parametrize('told', [False,True])
@pytest.mark.parametrize('features', [True,False])
def test_a_user_of_whom_nothing_is_known_gets_the_lists_of_the_average_user_after_choices(told, features):
    df = sample_ratings(n_users=80, n_items=60, n_ratings=3000)
    users = pd.DataFrame(dict(user=[*df.user.unique(),10**6]))
    if told: users['kind'] = [*np.array(list('abc'))[np.arange(len(users)-1)%3],None]
    learn = learner(RecDataLoaders.from_df(df, users=users, seed=1))
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(4, features=features)
    ds = learn.dls.train_ds
    rows = learn.model.user_factors[(ds.counts(0)>0)[1:]]
    found = learn.predict_grid([10**6])[0]
    torch.testing.assert_close(found, learn.model.item_factors@rows.mean(0), atol=1e-5, rtol=1e-4)
    assert found.max()>.1

# ------------------------------------------------------------------ lists and vectors that are none
@pytest.mark.parametrize('cells,example,how', [(['t0,t1','t0,t2','t0,t1',None], 't0,t1', "str.split(',')"), (["['a', 'b']","['a']","['a', 'b']","['b']"], '[', 'map(ast.literal_eval)'),
                                               (['[0.1, 0.2]','[0.3, 0.1]','[0.2, 0.2]','[0.1, 0.9]'], '[0.1', 'map(ast.literal_eval)')])
def test_lists_written_as_text_are_told(cells, example, how):
    labels = pd.Index([*'pqrs'], name='title')
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        Features(pd.DataFrame(dict(tags=cells, year=[1,2,3,4]), labels), Vocab(labels, 'title'))
    text = str(found[0].message)
    assert "column 'tags' looks like lists written as text" in text and example in text and text.endswith(f"write | between what they hold, or make them lists, as in df['tags'].{how}")

@pytest.mark.parametrize('cells', [[['a','b'],['b'],['a'],['b']], ['a|b','b','a','b'], ['x, y','b','a','b'], [[1,2],[1],[2],[2]], [None,'a','a','b']])
def test_what_are_lists_and_values_is_not_told(cells):
    labels = pd.Index([*'pqrs'], name='title')
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert Features(pd.DataFrame(dict(tags=cells), labels), Vocab(labels, 'title')).names

@pytest.mark.parametrize('make', [np.array, list, tuple, lambda o: np.array(o, 'float32')])
def test_vectors_are_told_and_numbers_in_columns_of_their_own_are_read(make):
    labels = pd.Index([*'pqrs'], name='title')
    rows = [[.1,.2],[.1,0.],[.3,.2],[0.,0.]]
    df = pd.DataFrame(dict(emb=[make(o) for o in rows], year=[1,2,3,4]), labels)
    with pytest.warns(UserWarning, match=r"column 'emb' holds vectors: make a column for each number, as in pd.DataFrame\(df\['emb'\].tolist\(\), df.index\); left out"):
        assert Features(df, Vocab(labels, 'title')).names==['year']
    wide = pd.DataFrame(df['emb'].tolist(), df.index).astype('float64')
    assert Features(wide, Vocab(labels, 'title')).names==['0','1']

@pytest.mark.parametrize('far,what', [(1e30,'numbers'), (pd.Timestamp('2200-01-01'),'dates')])
def test_what_is_far_from_all_that_was_learned_is_named(far, what):
    near = np.arange(len(small.user.unique()))%50+18
    told = near if what=='numbers' else pd.Timestamp('2000-01-01')+pd.to_timedelta(near, 'D')
    learn = learner(read(users=pd.DataFrame(dict(user=small.user.unique(), born=told))))
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(4)
    new = pd.DataFrame(dict(user=[10**6,10**6+1], born=[far,told[0]]))
    match = rf"users has 1 {what} in 'born' that lie more than ten spreads from .*{str(far)[:4].replace('+', '.')}"
    with pytest.warns(UserWarning, match=match): learn.extend(users=new)
    with pytest.warns(UserWarning, match=match): learn.fold_in(None, users=new)
    learn.extend(users=new.assign(born=told[:2]))  # without a word

@pytest.mark.parametrize('fit', ['fit_als','fit_ials','fit_blend'])
@pytest.mark.parametrize('year', [19950101,-1e30,1e308])
def test_a_number_far_off_counts_as_ten_spreads(fit, year):
    "What is predicted of it is finite, adds up, and is what ten spreads give"
    titles = small.title.unique()
    years = 1990+np.arange(len(titles))%20
    known = pd.DataFrame(dict(title=titles, year=years))
    learn = learner(read(items=known))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    user = small.user[0]
    edge = known.year.mean()+np.sign(year)*10*known.year.std()
    found = []
    for o in (year,edge):
        new = pd.DataFrame(dict(title=['Just Out'], year=[float(o)]))
        with warnings.catch_warnings(action='ignore'): more = learn.extend(items=new)
        why = more.explain_features(user, 'Just Out')
        found.append(more.predict(user, 'Just Out'))
        assert abs(why.contribution.sum()-found[-1])<1e-4*max(1, abs(found[-1]))
    assert np.isfinite(found).all() and abs(found[0]-found[1])<1e-4*max(1, abs(found[1]))

def test_far_numbers_of_training_are_told_and_spans_are_numbers():
    many = sample_ratings(n_users=200, n_items=40, n_ratings=2000)
    users = pd.DataFrame(dict(user=many.user.unique()))
    users['spent'] = 1.+np.arange(len(users))%7
    users['since'] = pd.to_timedelta(np.arange(len(users))%9, 'D')
    assert [c.kind for c in read(ratings=many, users=users).train_ds.features[0].columns]==['numbers']*2
    users.loc[3,'spent'] = 1e6  # of fewer users none could lie so far off
    with pytest.warns(UserWarning, match="1 numbers in 'spent' that lie more than ten spreads .* count as if they were ten spreads off"): dls = read(ratings=many, users=users)
    assert dls.train_ds.features[0].x.to_dense().abs().max()<=10

def test_who_is_known_by_features_alone_is_told_after_weights_of_items():
    users = pd.DataFrame(dict(user=[*small.user.unique(),10**6,10**6+1]))
    users['age'] = np.arange(len(users))%50
    learn = learner(read(users=users))
    with learn.no_bar(),learn.no_logging(): learn.fit_ease()
    match = '2 users have chosen nothing in training, 1000000 for one, and all get one list'
    for asked in (None,[10**6,10**6+1]):
        with pytest.warns(UserWarning, match=match): lists = learn.recommend(asked, n=3)
    assert lists.title[:3].tolist()==lists.title[3:].tolist()
    learn.recommend(small.user.unique()[:3])  # without a word
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(4)
    learn.recommend()  # which follows features

# ------------------------------------------------------------------ what is likely meant otherwise
numbered = pd.DataFrame(dict(user=np.tile(np.arange(1, 41), 15), item=np.repeat(np.arange(1, 61), 10), rating=np.resize([1.,2,3,4,5,3,2], 600)))
some_items = pd.DataFrame(dict(item_id=np.arange(1, 101), year=np.resize(np.arange(1950, 2020, 7), 100)))

def left_numbers(how):
    "Frames with row numbers left in an index without a name"
    return dict(sorted=lambda d: d.sort_values('year', kind='stable'), filtered=lambda d: d[d.year>1960], sampled=lambda d: d.sample(frac=1, random_state=0),
                distinct=lambda d: pd.concat([d, d.head(5)], ignore_index=True).drop_duplicates(), twice=lambda d: pd.concat([d.head(50), d.tail(50).set_axis(range(50))]))[how](some_items)

@pytest.mark.parametrize('how', ['sorted','filtered','sampled','distinct','twice'])
@pytest.mark.parametrize('name', ['item_id','movieId','title_id','sku','id','nr'])
def test_numbers_of_rows_are_no_labels(how, name):
    df = left_numbers(how).rename(columns=dict(item_id=name))
    with pytest.raises(ValueError, match=rf"items has no column 'item'.*: if '{name}' holds the labels, rename it with df.rename\(columns=\{{'{name}': 'item'\}}\)") as e: read(df, ratings=numbered)
    assert isinstance(df.index, pd.RangeIndex) or str(e.value).endswith("; if its index holds them, name that with df.rename_axis('item')")
    if how!='twice':
        with pytest.warns(UserWarning, match='has no row for') if how=='filtered' else contextlib.nullcontext(): dls = read(df.rename(columns={name: 'item'}), ratings=numbered)
        assert dls.train_ds.features[1].names==['year']

def test_numbers_of_rows_as_good_as_labels_are_refused():
    "A column that nobody would call an id, but agrees with the ratings as well; as text, too; and no label at all"
    for c in (some_items.item_id, some_items.item_id.astype(str)):
        with pytest.raises(ValueError, match="if 'item_id' holds the labels"): read(some_items.assign(item_id=c).sort_values('year', kind='stable'), ratings=numbered)
    with pytest.raises(ValueError, match="if 'which' holds the labels"): read(some_items.rename(columns=dict(item_id='which')).sort_values('year', kind='stable'), ratings=numbered)
    far = numbered.assign(item=numbered.item.where(numbered.item<4, numbered.item+1000))
    with pytest.raises(ValueError, match='may number the rows, as few of its numbers are in the ratings: add a column'): read(some_items[['year']].sort_values('year', kind='stable'), ratings=far)

def test_an_index_of_labels_without_a_name_stays():
    by_id = some_items.sample(frac=1, random_state=1).set_index('item_id').rename_axis(None)
    want = read(some_items.rename(columns=dict(item_id='item')), ratings=numbered).train_ds.features[1].x.to_dense()
    for df in (by_id, by_id.sample(frac=1, random_state=0), by_id.assign(artist='Ann'), by_id.assign(artist=[*'abcde']*20)[['year']]):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*is the same for all')
            assert torch.equal(read(df, ratings=numbered).train_ds.features[1].x.to_dense(), want)
    titled = by_id.assign(title=[f'F{k}' for k in range(100)])  # text, where the ratings have numbers
    with pytest.warns(UserWarning, match="column 'title' differs for all"): assert torch.equal(read(titled, ratings=numbered).train_ds.features[1].x.to_dense(), want)

def test_what_holds_the_labels_is_named_where_a_frame_has_none():
    with pytest.raises(ValueError, match="items has no column 'item'; it has item_id, year: if 'item_id' holds the labels, rename it"): read(some_items, ratings=numbered)
    with pytest.raises(ValueError, match="items has no column 'item'; it has year: if its index holds the labels, name that with df.rename_axis"): read(some_items.set_index('item_id'), ratings=numbered)

def test_numbers_of_rows_are_no_labels_of_newcomers():
    users = pd.DataFrame(dict(user=np.arange(1, 41), age=np.resize(np.arange(20, 70, 3), 40)))
    learn = learner(read(users=users, ratings=numbered), DotBias, seed=0)
    with quiet(learn): learn.fit_als(2)
    new = pd.DataFrame(dict(user_id=[501,502,503], age=[20,60,30]), [100,102,101])
    for add in (learn.extend,learn.fold_in):
        for name in ('user_id','who'):
            with pytest.raises(ValueError, match=f"users has no column 'user', and its index, which has no name, may number the rows: if '{name}' holds"): add(users=new.rename(columns=dict(user_id=name)))
        assert {*add(users=new.iloc[[0,2,1]].set_index('user_id').rename_axis(None)).ds.classes['user'].labels[-3:]}=={501,502,503}

def told_by(column, name='odd', labels=None):
    "Names of what is learned from a `column`, and the warnings"
    labels = pd.Index([f't{k}' for k in range(len(column))] if labels is None else labels, name='title')
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        got = Features(pd.DataFrame({name: column}).set_axis(labels), Vocab(labels, 'title'), 'items')
    return got.names,[str(o.message) for o in told]

def test_saved_indexes_and_ids_are_no_amounts():
    n = np.arange(20)
    for name in ('Unnamed: 0','index','level_0'):
        with pytest.raises(ValueError, match=f"items column '{name}' numbers the rows, as a saved index does: leave it out with df.drop"): told_by(n[::-1], name)
    assert told_by(n%4, 'index')==(['index'],[]) and told_by(n/4, 'index')==(['index'],[])  # of prices, say
    for name in ('movieId','item_id','tmdbId','id','imdb_id','sku','user_ids'):
        for ids in (n*7, np.where(n==3, np.nan, n*7.)): assert told_by(ids, name)==([],[f"items column '{name}' holds ids, by its name, which differ for all of 'title', and says nothing; left out"])
    for name in ('director_id','studioId','artist','zip_code'):
        names,told = told_by(n%5+3, name)
        assert names==[name] and len(told)==1 and told[0].startswith(f"items column '{name}' holds ids, by its name, 3 for one, and they are learned as amounts: make them values with df.astype({{'{name}': \"category\"}})")
        assert told_by(pd.Categorical(n%5+3), name)==([f'{name}={k}' for k in range(3, 8)],[])
    names,told = told_by(n+1, 'place_in_file')
    assert names==['place_in_file'] and len(told)==1 and 'numbers the rows, and is learned as amounts' in told[0]
    for name,values in (('year',n*3+1900), ('paid',n%4), ('grid',n%4), ('valid',n%4), ('rank',n[::-1]), ('books',n[::-1]), ('songs',n%4), ('price',n*.5)): assert told_by(values, name)==([name],[])

def test_text_among_numbers_is_told():
    ages = [*map(str, np.resize(range(18, 40), 60))]
    for gap in ('NA','unknown','\\N'):
        names,told = told_by([gap,*ages,gap], 'age')
        assert len(names)==23 and told==[f"items column 'age' holds numbers, '18' for one, and {gap!r} in 2 rows, so each is a value of its own: if amounts are meant, convert it with pd.to_numeric(df['age'], errors=\"coerce\")"]
    assert len(told_by([None,'NA',*range(18, 40),*range(18, 40)], 'age')[1])==1  # as Python's own
    one = [*map(str, range(18, 40)),'NA']
    assert 'convert it with pd.to_numeric' in told_by(one, 'age')[1][0]  # besides that it differs for all
    assert pd.to_numeric(pd.Series(one), errors='coerce').notna().sum()==22
    for values in (['18','19','20']*3, ['12','16','PG','G']*3, pd.Categorical(['1','2','3','S']*3), pd.Categorical(ages), ages, ['1984','2001|x','y','z']*2, ['02134','90210','10001']*30,
                   [f'{k}|{k+1}' for k in range(40)], [[k,k+1] for k in range(40)], [*map(lambda k: f'0{k}' if k%9 else f'{k}', range(40))]*2): assert told_by(values)[1]==[]
    for amounts,kind,read in (([f'{o}.5' for o in ages],'numbers','to_numeric'), ([f'20{k:02}-03-05' for k in range(30)]*2,'dates','to_datetime'), ([f'{k}/3/2020' for k in range(1, 30)]*2,'dates','to_datetime')):
        names,told = told_by(amounts)
        assert len(names)>20 and len(told)==1 and re.search(rf"items column 'odd' holds {kind}, '.*' for one as text, so each is a value of its own: if amounts are meant, convert it with pd\.{read}\(", told[0])

@pytest.mark.parametrize('mark', ['\\N','NA','None','null','nan','<NA>','N/A','?'])
def test_marks_of_gaps_are_told(mark):
    names,told = told_by(['Rome','Oslo',mark,'Oslo|Rome'], 'city')
    assert len(names)==3 and told==[f"items column 'city' holds {mark!r} in 1 rows as a value like others: if that is a mark for a missing value, read it as missing, with df['city'].replace({[mark]!r}, np.nan)"]
    df = pd.DataFrame(dict(city=['Rome','Oslo',mark,'Oslo|Rome']))
    assert told_by(df['city'].replace([mark], np.nan), 'city')==(['city=Oslo','city=Rome'],[])

def test_values_that_look_the_same_are_told_and_spaces_round_them_do_not_count():
    assert told_by(['Action | Comedy',' Comedy','Action ','Drama|  Action',['Drama ',' Comedy']])==(['odd=Action','odd=Comedy','odd=Drama'],[])
    cities = ['Paris','paris','PARIS ','Rome','New York','New  york','Rome']
    names,told = told_by(cities, 'city')
    assert len(names)==6 and len(told)==1 and told[0].startswith("5 values of 'city' in items differ from others only in case, spaces or the way accents are stored, 'Paris' and 'paris' for two, and are kept apart: unite them, say with df['city'] = ")
    df = pd.DataFrame(dict(city=cities))
    exec(told[0].partition('say with ')[2])
    assert told_by(df.city, 'city')==(['city=new york','city=paris','city=rome'],[])
    assert told_by(['aB3','Ab3','aB3','Ab3'])[1]==[]

def as_truth(kind, flags):
    "The `flags`, some of them `None`, as pandas holds them in one type or another"
    if kind=='plain': return pd.Series(flags) if None not in flags else pd.Series(flags, dtype=object)
    if kind=='category': return pd.Series(pd.Categorical(flags, [True,False]))
    if kind=='arrow': return pd.Series(flags, dtype='bool[pyarrow]')
    if kind=='NA': return pd.Series([pd.NA if o is None else o for o in flags], dtype=object)
    if kind=='numbers': return pd.Series([None if o is None else int(o) for o in flags], dtype=float if None in flags else int)
    if kind=='file': return pd.Series([None if o is None else str(o).lower() for o in flags])
    return pd.Series(flags, dtype=kind)

@pytest.mark.parametrize('gaps', [False,True])
@pytest.mark.parametrize('kind', ['boolean','plain','object','category','arrow','NA'])
def test_truth_values_are_the_same_with_gaps_and_without(kind, gaps):
    if kind=='arrow': pytest.importorskip('pyarrow')
    labels = [f't{k}' for k in range(8)]
    flags = [True,False,None if gaps else True,True]*2
    known = Features(pd.DataFrame(dict(prem=as_truth(kind, flags))).set_axis(labels), Vocab(labels, 'title'))
    assert known.names==['prem=False','prem=True']
    assert known.x.to_dense()[1:5].tolist()==[[0,1],[1,0],[0,0] if gaps else [0,1],[0,1]]
    for later in ('boolean','plain','object','category','NA','numbers','file'):
        for new in ([True,False,None],[True,False]):
            with warnings.catch_warnings(action='error'): got = known.encode(pd.DataFrame(dict(prem=as_truth(later, new))).set_axis([f'n{k}' for k in range(len(new))]))
            assert got.to_dense().tolist()==[[0,1],[1,0],[0,0]][:len(new)], (later,new)

def test_truth_values_where_older_folders_learned_numbers():
    from fastrec.data.features import features_from
    vocab = Vocab(['a','b'], 'title')
    old = features_from([dict(name='prem', kind='numbers', mean=.5, std=.5, varies=True, has_gaps=True)], vocab)
    for kind in ('boolean','plain','object','category','NA','numbers'):
        for flags,want in (([True,False,None],[[1,0],[-1,0],[0,1]]), ([True,False],[[1,0],[-1,0]])):
            assert old.encode(pd.DataFrame(dict(prem=as_truth(kind, flags))).set_axis([*'xyz'][:len(flags)])).to_dense().tolist()==want, kind
    age = features_from([dict(name='prem', kind='numbers', mean=40., std=9., varies=True, has_gaps=False)], vocab)
    with pytest.raises(ValueError, match="holds values in 'prem', True for one, where numbers were learned"): age.encode(pd.DataFrame(dict(prem=[True])).set_axis(['x']))

def test_whole_numbers_that_are_values_are_the_same_beside_a_gap():
    labels = [f't{k}' for k in range(6)]
    for kinds in (pd.Categorical([1,2,1,2,3,3]), pd.Categorical([1.,2,1,2,3,3]), pd.Categorical([1,2,1,2,3,None]), pd.Series(pd.array([1,2,1,2,3,3], 'Int64'), labels).astype('category'), ['1','2','1','2','3','3']):
        known = Features(pd.DataFrame(dict(kind=kinds), labels), Vocab(labels, 'title'))
        assert known.names==['kind=1','kind=2','kind=3']
        for new in ([1,2,None], [1.,2.,np.nan], pd.array([1,2,None], 'Int64'), pd.Categorical([1,2,None]), [1,2,3], pd.Series([1,pd.NA,2], dtype=object), ['1','2 ',None]):
            with warnings.catch_warnings(action='error'): got = known.encode(pd.DataFrame(dict(kind=new)).set_axis([*'xyz']))
            assert got.to_dense()[0].tolist()==[1,0,0] and got.to_dense().sum()==pd.Series(new).notna().sum()
    assert told_by([1,pd.NA,3,1])[0]==['odd','odd is missing'] and told_by(pd.Series([1,pd.NA,3,1], dtype=object))[0]==['odd','odd is missing']

def test_older_folders_read_values_as_they_were_learned():
    from fastrec.data.features import features_from
    old = features_from([dict(name='g', kind='values', values=['Action','Action ',' Comedy','1.0','2.5'])], Vocab(['a'], 'title'))
    got = old.encode(pd.DataFrame(dict(g=['Action | Comedy',1.,2.5,'Action'])).set_axis([*'abcd'])).to_dense()
    assert got.tolist()==[[1,0,1,0,0],[0,0,0,1,0],[0,0,0,0,1],[1,0,0,0,0]]

def test_a_number_is_shared_by_films_that_have_the_same():
    year = films.assign(year=np.arange(len(films))//10+2000, pages=[100,*[float('nan')]*9]*(len(films)//10))
    learn = learner(read(year))
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    for title in films.index[[3,40]]:
        shared = learn.similar(title, 50, why=True).set_index('title').shared
        for other,names in shared.items():
            want = [f'{c}={year[c][title]}' for c in ('genre','decade') if year[c][title]==year[c][other]]
            want += ['year']*bool(year.year[title]==year.year[other])
            assert sorted(names.split(', ')) == sorted(want or [''])

def test_rows_solved_for_at_the_end_have_seen_what_was_held_out():
    "Those with few ratings, from all of these: a later fit must not take the held-out ones for new"
    for items in (None,films):
        learn = learner(read(items))
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(2)
        assert len(learn.shrink_to_biases.left_out)>=20 and (learn.model.unseen_rows is None)==(items is not None)
