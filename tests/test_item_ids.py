"""A row with a title and an id means the same item in training and after it"""
import warnings
from functools import cache
import numpy as np,pandas as pd,pytest,torch
from fastrec.all import RecDataLoaders,check_ratings,learner,load_recommender,sample_ratings

def films(n=400):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(1, 30, n), movieId=rng.integers(1, 41, n), rating=rng.integers(1, 6, n).astype(float)))
    return df.drop_duplicates(['user','movieId'], ignore_index=True)

def plain(): return films().assign(title=lambda o: 'F'+o.movieId.astype(str))
def shared(): return films().assign(title=lambda o: 'T'+(o.movieId//2).astype(str))

def fit(df, **kwargs):
    with warnings.catch_warnings(action='ignore'): learn = learner(RecDataLoaders.from_df(df, seed=1, valid_pct=0, **kwargs))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(3)
    return learn

@cache
def of_plain(): return fit(plain())
@cache
def of_shared(): return fit(shared())

def added(learn, df):
    n = len(learn.ds.classes['title'])
    rec = learn.extend(df)
    return [str(o) for o in rec.ds.classes['title'][n:]],rec

hamlets = pd.DataFrame(dict(user=range(1, 7), movieId=[901]*3+[902]*3, title='Hamlet', rating=[5.]*3+[1.]*3))

def test_new_items_with_one_title_are_told_apart():
    with pytest.warns(UserWarning, match=r"1 titles of new items are shared with others, 'Hamlet' for one: told apart by 'movieId', as in 'Hamlet \[901\]'"):
        labels,rec = added(of_plain(), hamlets)
    assert labels==['Hamlet [901]','Hamlet [902]']==[o for o in fit(pd.concat([plain(), hamlets])).dls.classes['title'] if 'Ham' in o]
    assert rec.predict(7, 'Hamlet [901]')>rec.predict(7, 'Hamlet [902]')
    more,again = added(rec, hamlets.assign(user=[*range(11, 17)]))
    assert not more and np.allclose(again.predict_df(hamlets[['user','title','movieId']]), again.predict_df(hamlets.assign(title=hamlets.title+' ['+hamlets.movieId.astype(str)+']')))
    with pytest.warns(UserWarning, match='shared'): third,_ = added(rec, hamlets.head(1).assign(movieId=903))
    assert third==['Hamlet [903]']

@pytest.mark.parametrize('saved', [False,True])
def test_an_id_of_its_own_is_another_item(saved, tmp_path):
    learn = of_plain()
    if saved: learn = load_recommender(learn.save_recommender(tmp_path, ratings=True))
    new = pd.DataFrame(dict(user=range(1, 21), movieId=955, title='F3', rating=1.))
    assert np.isfinite(learn.predict_df(new.assign(movieId=3.))).all()
    with pytest.raises(KeyError, match="'F3' is known with the movieId 3"): learn.predict_df(new)
    with pytest.raises(KeyError, match="'F3' is known with the movieId 3"): learn.fold_in(new[['title','movieId','rating']].head(1))
    before = learn.predict(25, 'F3')
    with pytest.warns(UserWarning, match=r"'F3' for one: told apart by 'movieId', as in 'F3 \[955\]'"): labels,rec = added(learn, new)
    assert labels==['F3 [955]'] and rec.predict(25, 'F3')==pytest.approx(before, abs=1e-4) and rec.predict(25, 'F3 [955]')<before
    kept = load_recommender(rec.save_recommender(tmp_path/'grown')).without_items('F1')
    for o in (rec,kept): assert np.allclose(o.predict_df(new), o.predict_df(new[['user']].assign(title='F3 [955]')))

@pytest.mark.filterwarnings('ignore:.*rated before')
def test_ids_as_floats_are_whole_numbers():
    learn,rows = of_shared(),shared().head(6)
    for form in (float, str, 'Int64', object, 'category'):
        assert np.allclose(learn.predict_df(rows.astype(dict(movieId=form))), learn.predict_df(rows))
        assert added(learn, rows.astype(dict(movieId=form)))[0]==[]
    gap = pd.concat([shared(), pd.DataFrame(dict(user=[3], title=['Other'], rating=[3.]))])
    assert {*of_shared().dls.classes['title']}|{'Other'}=={*fit(gap).dls.classes['title']}

@pytest.mark.filterwarnings('ignore:.*rated before')
def test_titles_that_say_too_little_are_refused():
    learn,rows = of_shared(),shared().query('title=="T5"').head(3)
    for bare in (rows.drop(columns='movieId'), rows.assign(movieId=np.nan)):
        with pytest.raises(ValueError, match="3 rows have the title 'T5', which several items share, and no 'movieId'"): learn.extend(bare)
        with pytest.raises(KeyError, match=r"several items are called 'T5', 'T5 \[1[01]\]' for one"): learn.predict_df(bare)
    assert added(learn, rows.assign(title=lambda o: o.title+' ['+o.movieId.astype(str)+']').drop(columns='movieId'))[0]==[]

def test_rows_of_shared_titles_without_an_id():
    df = shared().assign(movieId=lambda o: o.movieId.where(o.index%50!=0))
    n = int((df.movieId.isna() & ~df.title.isin(['T0','T20'])).sum())  # which only films 1 and 40 have
    with pytest.raises(ValueError, match=f"{n} of {len(df)} rows have no 'movieId', and a title that several items share.*dropna=True"): RecDataLoaders.from_df(df, seed=1)
    assert (check_ratings(df).severity=='refused').any()
    with pytest.warns(UserWarning, match="left out"): dls = RecDataLoaders.from_df(df, seed=1, valid_pct=0, dropna=True)
    assert len(dls.train_ds)==len(df)-n and {*dls.classes['title']}<={*of_shared().dls.classes['title']}
    alone = plain().assign(movieId=lambda o: o.movieId.where(o.index%50!=0))
    assert len(RecDataLoaders.from_df(alone, seed=1, valid_pct=0).classes['title'])==alone.title.nunique()+1

@pytest.mark.filterwarnings('ignore:about 100% of the 30 new rows are there already')
def test_a_title_that_looks_told_apart():
    df = pd.DataFrame(dict(user=range(30), movieId=[3,4,5]*10, title=['Hamlet','Hamlet','Hamlet [3]']*10, rating=np.arange(30)%5+1.))
    learn = fit(df)
    assert [*learn.dls.classes['title']][1:]==['Hamlet [3] [3]','Hamlet [3] [5]','Hamlet [4]']
    x = learn.dls.test_dl(df).dataset.x
    assert len(x[:,1].unique())==3 and added(learn, df)[0]==[]

def test_new_users_find_what_is_told_apart():
    learn,rows = of_shared(),shared().query('title=="T5"').drop_duplicates('movieId')
    told = rows.assign(title=lambda o: o.title+' ['+o.movieId.astype(str)+']')
    for unknown in ('raise','drop'):
        assert torch.equal(learn.fold_in(rows[['title','movieId','rating']], unknown).predict_grid(), learn.fold_in(told[['title','rating']], unknown).predict_grid())

@pytest.mark.filterwarnings('ignore:.*rated before')
def test_older_folders_have_no_ids(tmp_path):
    rec = load_recommender(of_shared().save_recommender(tmp_path, ratings=True))
    rec.ds.classes['title'].ids = None
    rows = shared().head(6)
    assert np.allclose(rec.predict_df(rows.astype(dict(movieId=float))), of_shared().predict_df(rows), atol=1e-4) and added(rec, rows)[0]==[]
    with pytest.warns(UserWarning, match='shared'): assert added(rec, rows.head(1).assign(movieId=999, title='T5'))[0]==['T5 [999]']
    with pytest.raises(ValueError, match='several items share'): rec.extend(rows.assign(title='T5').drop(columns='movieId'))

# ------------------------------------------------------------------ two vocabularies
def row_of(learn, title): return learn.model.item_factors[learn.dls.classes['title'].o2i[title]-1]

def test_init_moves_rows_by_title_and_id():
    old = of_plain()
    namesake = pd.DataFrame(dict(user=range(1, 9), movieId=955, title='F3', rating=1.))
    with warnings.catch_warnings(action='ignore'): both,alone = (learner(RecDataLoaders.from_df(o, seed=1, valid_pct=0), init=old)
                                                                 for o in (pd.concat([plain(), namesake]), pd.concat([plain().query('title!="F3"'), namesake])))
    assert torch.equal(row_of(both, 'F3 [3]'), row_of(old, 'F3')) and torch.equal(row_of(alone, 'F5'), row_of(old, 'F5'))
    for learn,title in ((both,'F3 [955]'),(alone,'F3')): assert (row_of(learn, title)-row_of(old, 'F3')).abs().max()>1e-3
    with warnings.catch_warnings(action='ignore'): back = learner(RecDataLoaders.from_df(plain(), seed=1, valid_pct=0), init=both)
    assert torch.equal(row_of(back, 'F3'), row_of(old, 'F3'))

def test_init_without_ids_goes_by_title():
    bare = plain().drop(columns='movieId')
    learn = learner(RecDataLoaders.from_df(bare, seed=1, valid_pct=0), init=of_plain())
    assert torch.equal(row_of(learn, 'F3'), row_of(of_plain(), 'F3'))

def test_weights_of_items_with_other_ids_are_refused(tmp_path):
    def start(df): return learner(RecDataLoaders.from_df(df, seed=1, valid_pct=0), n_factors=3, path=tmp_path)
    start(plain()).save('w')
    for df in (plain(), plain().drop(columns='movieId'), plain().astype(dict(movieId=float)), plain().rename(columns=dict(movieId='itemKey'))): start(df).load('w')
    with pytest.raises(ValueError, match='items with other ids'): start(plain().assign(movieId=lambda o: o.movieId+1000)).load('w')
    head = torch.load(tmp_path/'models'/'w.pth')
    for o in head['model']._metadata.values() if 'model' in head else head._metadata.values(): o.get('head', {}).pop('ids', None)
    torch.save(head, tmp_path/'models'/'old.pth')
    start(plain().assign(movieId=lambda o: o.movieId+1000)).load('old')

def test_loaders_of_items_with_other_ids_are_refused():
    learn = learner(RecDataLoaders.from_df(plain(), seed=1), n_factors=3)
    learn.dls = RecDataLoaders.from_df(plain().sample(frac=1, random_state=0), seed=1)
    with pytest.raises(ValueError, match='other labels'): learn.dls = RecDataLoaders.from_df(plain().assign(movieId=lambda o: o.movieId+1000), seed=1)

def test_features_go_to_the_item_with_the_id():
    items = pd.DataFrame(dict(title=[f'F{o}' for o in range(1, 41)], size=np.arange(40.)))
    old = RecDataLoaders.from_df(plain(), seed=1, items=items).train_ds
    others = pd.concat([plain().query('title!="F3"'), pd.DataFrame(dict(user=range(1, 9), movieId=955, title='F3', rating=1.)), pd.DataFrame(dict(user=range(1, 9), movieId=3, title='F3', rating=1.))])
    with warnings.catch_warnings(action='ignore'): new = RecDataLoaders.from_df(others, seed=1, valid_pct=0, items=old.features[1]).train_ds
    a,b = (o.features[1].x.to_dense() for o in (old,new))
    codes = new.classes['title'].o2i
    assert torch.equal(b[codes['F3 [3]']], a[old.classes['title'].o2i['F3']]) and not b[codes['F3 [955]']].any()

# ------------------------------------------------------------------ catalogues
def catalogue():
    "Of all films, two of which have one title each, and the titles are in another order than in the ratings"
    rows = shared()[['title','movieId']].drop_duplicates().sort_values('movieId', ascending=False)
    return rows.assign(size=rows.movieId.astype(float), genre=np.where(rows.movieId%2, 'odd', 'even'))

def with_sizes(): return fit(shared(), items=catalogue())

def sizes(rec):
    "The column of sizes by label, as numbers of spreads"
    return pd.Series(rec.ds.features[1].x.to_dense()[1:,0].numpy(), rec.ds.classes['title'].labels)

@pytest.mark.parametrize('form', [lambda o: o, lambda o: o.set_index('title'), lambda o: o.astype(dict(movieId=str)), lambda o: o.convert_dtypes(dtype_backend='pyarrow'),
    lambda o: o.assign(title=o.title.astype('category'))], ids=['columns','index','text','arrow','category'])
def test_features_of_films_with_one_title(form):
    ds = fit(shared(), items=form(catalogue())).ds
    told = catalogue().assign(title=[o if o in ('T0','T20') else f'{o} [{i}]' for o,i in zip(catalogue().title, catalogue().movieId)]).drop(columns='movieId')
    want = fit(shared(), items=told).ds
    assert ds.features[1].names==want.features[1].names and 'size' in ds.features[1].names
    assert torch.equal(ds.features[1].x.to_dense(), want.features[1].x.to_dense()) and [*ds.classes['title']]==[*want.classes['title']]

@pytest.mark.filterwarnings('ignore:.*titles of new items are shared')
def test_films_that_only_the_catalogue_has_keep_their_ids():
    more = pd.DataFrame(dict(title=['T5','Heat','Heat','Lear'], movieId=[955,81,82,83], size=[1.,2,3,4], genre='odd'))
    learn = fit(shared(), items=pd.concat([catalogue(), more]))
    labels = learn.dls.classes['title']
    assert {'T5 [955]','Heat [81]','Heat [82]','Lear'}<={*labels} and labels.ids[labels.o2i['Lear']-1]=='83'
    new = pd.DataFrame(dict(user=1, title=['Heat','T5','Lear'], movieId=[82,955,83]))
    assert np.allclose(learn.predict_df(new), [learn.predict(1, o) for o in ('Heat [82]','T5 [955]','Lear')])
    with pytest.raises(KeyError, match="'Lear' is known with the movieId 83"): learn.predict_df(new.assign(movieId=84).tail(1))

@pytest.mark.filterwarnings('ignore:.*titles of new items are shared','ignore:the frames of features have no row for 1 new')
def test_features_of_new_films_with_known_titles():
    learn = with_sizes()
    new = pd.DataFrame(dict(title=['T5','Heat','Heat'], movieId=[955,81,82], size=[7.,8.,9.], genre='odd'))
    rated = pd.DataFrame(dict(user=[1,2,3], title=['Heat','T5','T0'], movieId=[82,955,1], rating=5.))
    for ratings in (None,rated):
        rec = learn.extend(ratings, items=new)
        assert sorted(rec.ds.classes['title'].labels[len(learn.dls.classes['title'])-1:])==['Heat [81]','Heat [82]','T5 [955]']
        assert sizes(rec)[['T5 [955]','Heat [81]','Heat [82]']].tolist()==pytest.approx(sizes(learn)[['T3 [7]','T4 [8]','T4 [9]']].tolist())
        again = rec.predict_df(new[['title','movieId']].assign(user=1))
        assert np.allclose(again, [rec.predict(1, o) for o in ('T5 [955]','Heat [81]','Heat [82]')])
    assert int(rec.counts[rec.ds.classes['title'].o2i['Heat [82]']])==1
    only = learn.extend(rated, items=new.tail(1))
    assert {'Heat','T5 [955]'}<={*only.ds.classes['title'].labels} and int(only.counts[only.ds.classes['title'].o2i['Heat']])==1
    with pytest.raises(ValueError, match=r"'T5 \[10\]' of 'title' is in items= and is known already"): learn.extend(items=new.assign(movieId=[10,81,82]))

def test_genres_of_films_with_one_title():
    learn = of_shared()
    told = catalogue().assign(title=[o if o in ('T0','T20') else f'{o} [{i}]' for o,i in zip(catalogue().title, catalogue().movieId)])
    more = pd.DataFrame(dict(title=['T5','Heat'], movieId=[955,81], genre='odd'))
    held = shared().head(100)
    found,want = (learn.evaluate(held, genres=o, exclude_seen=False) for o in (pd.concat([catalogue(), more])[['title','movieId','genre']], told[['title','genre']]))
    pd.testing.assert_frame_equal(found, want)
    assert found.genre_diversity.notna().all()

def test_side_of_films_with_one_title():
    told = catalogue().assign(title=[o if o in ('T0','T20') else f'{o} [{i}]' for o,i in zip(catalogue().title, catalogue().movieId)]).drop(columns='movieId')
    def grid(side):
        with warnings.catch_warnings(action='ignore'): learn = learner(RecDataLoaders.from_df(shared(), seed=1, valid_pct=0), seed=1)
        with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_bayes(3, 6, side=side)
        return learn.predict_grid()
    assert torch.equal(grid(catalogue()), grid(told))

def test_items_numbered_anew_are_known_by_their_titles():
    "As ids read as text and as numbers are, 0007 and 7; two that have one title need their ids"
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500)[['user','item','title','rating']]
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1))
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    anew = df.assign(item=df.item.astype(int)+7)
    with pytest.warns(UserWarning, match="the ids next to 'title' are others"): begun = learner(RecDataLoaders.from_df(anew, valid_pct=0, seed=1), init=learn)
    torch.testing.assert_close(begun.predict_grid(), learn.predict_grid(), atol=1e-4, rtol=1e-4)
    catalogue = anew[['item','title']].drop_duplicates().assign(genre=lambda o: np.resize(['a','b','c'], len(o)))
    with pytest.warns(UserWarning, match="the ids next to 'title' are others"): dls = RecDataLoaders.from_df(df, items=catalogue, valid_pct=0)
    assert len(dls.classes['title'])==df.title.nunique()+1
