"""Users for items, candidates and exclusions pair by pair, and labels that are forgotten: all against obvious loops"""
import warnings
import numpy as np,pandas as pd,pytest,torch
from conftest import Fitted,kinds
from fastrec.all import Dot,RatingsTensors,RecDataLoaders,Recommender,Vocab,learner,load_recommender,sample_ratings
from fastrec.answer.recommender import Seen,evaluating

@pytest.fixture(scope='module')
def ratings(): return sample_ratings(n_users=150, n_items=120, n_ratings=5000)

@pytest.fixture(scope='module')
def learners(ratings): return Fitted(ratings)

def scored(rec):
    "The score of each pair, by label, by one pass over the grid"
    users,items = (v.labels for v in rec.ds.classes.values())
    u,i = (torch.arange(1, len(o)+1) for o in (users,items))
    with evaluating(rec.model.lists_by) as (m,_): res = m.score_grid(u, i)
    return pd.DataFrame(res.numpy().astype('float64'), users, items)

def check_users(got, scores, n, seen):
    "`got` has, of each of its items, the `n` users with the best `scores` who are not among the pairs `seen`; rounding may exchange neighbours"
    for item,rows in got.groupby('title', observed=True):
        left = scores[item].drop([u for u in seen.user[seen.title==item].unique() if u in scores.index])
        want = left.nlargest(n)
        np.testing.assert_allclose(rows.score, want, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(left[rows.user], want, rtol=1e-4, atol=1e-4)  # and a user who has seen it is no key of `left`
        assert rows['rank'].tolist()==[*range(1, len(want)+1)] and rows.user.is_unique

@pytest.mark.parametrize('kind', kinds)
def test_users_for_an_item_are_the_best_who_have_not_seen_it(kind, learners, ratings):
    learn = learners[kind]
    items = learn.ds.classes['title'].labels
    got = learn.recommend_users(None, n=7)
    assert [*got.columns[:4]]==['title','rank','user','score'] and len(got)==7*len(items)
    check_users(got, scored(learn), 7, ratings)
    assert ('rating_pred' in got)==(kind=='fit_blend')
    some = learn.recommend_users(items[[5,2,5]], n=3)
    assert some.title.tolist()==[o for o in items[[5,2,5]] for _ in range(3)]
    check_users(some[:6], scored(learn), 3, ratings)

@pytest.mark.parametrize('kind', ['fit_als','fit_ease','fit_blend','net'])
def test_users_by_blocks_and_of_some(kind, learners, ratings):
    learn = learners[kind]
    whole = learn.recommend_users(None, n=4)
    small = learn.recommend_users(None, n=4, max_bytes=40_000)
    np.testing.assert_allclose(small.score, whole.score, rtol=1e-4, atol=1e-5)
    among = learn.ds.classes['user'].labels[[90,3,40,41,3,120]]
    scores = scored(learn).loc[among.unique()]
    check_users(learn.recommend_users(None, n=3, users=among), scores, 3, ratings)
    told = ratings[['user','title']][::2]
    with warnings.catch_warnings(action='ignore'): got = learn.recommend_users(None, n=3, exclude_seen=told)
    check_users(got, scored(learn), 3, told)
    check_users(learn.recommend_users(None, n=999, exclude_seen=False), scored(learn), 999, told[:0])

def test_users_by_draws(learners):
    learn = learners['fit_bayes']
    rec = Recommender(learn.model.one_draw(1), learn.ds, learn.seen)
    same = lambda a,b: pd.testing.assert_frame_equal(a, b, rtol=1e-4)
    titles = learn.ds.classes['title'].labels[:9]
    same(learn.recommend_users(titles, draw=1).drop(columns=['rating_pred','std']), rec.recommend_users(titles))
    x = torch.cartesian_prod(torch.arange(1, len(learn.ds.classes['user'])), torch.tensor([3]))
    with evaluating(learn.model) as (m,_): value = m.score_pairs(x)+2*m.spread(x)
    got = learn.recommend_users(learn.ds.classes['title'].labels[2], n=5, z=2, exclude_seen=False)
    np.testing.assert_allclose(got.score, value.topk(5)[0].clamp(max=5.), rtol=1e-3)

def planted(x, n_users=6, n_items=3):
    "A recommender whose users all score alike, who have seen the pairs `x`"
    m = Dot(torch.zeros(n_users+1, 2), torch.zeros(n_users+1, 1), torch.zeros(n_items+1, 2), torch.zeros(n_items+1, 1)).eval()
    classes = dict(user=Vocab(range(10, 10+n_users), 'user'), item=Vocab(list('abcdefgh'[:n_items]), 'item'))
    x = torch.tensor(x, dtype=torch.int32).view(-1, 2)
    return Recommender(m, RatingsTensors(x[:0], torch.zeros(0), classes, 'rating'), Seen(x, n_users+1, n_items+1))

def test_equal_scores_come_in_the_order_of_users():
    rec = planted([[2,1],[3,1],[1,2]])
    for max_bytes in (2**28,400):
        got = rec.recommend_users(['a','b'], n=3, max_bytes=max_bytes)
        assert got.user.tolist()==[10,13,14,11,12,13]

def test_an_item_that_all_have_seen_has_no_users():
    rec = planted([[u,1] for u in range(1, 7)]+[[1,2]])
    assert rec.recommend_users(['a','b'], n=9).item.tolist()==['b']*5
    none = rec.recommend_users('a')
    assert not len(none) and [*none.columns]==['item','rank','user','score']
    with pytest.warns(UserWarning, match="no training ratings, 'c' for one"): assert not len(rec.recommend_users('c'))

def test_users_for_items_are_refused_early(learners):
    learn = learners['fit_als']
    title = learn.ds.classes['title'].labels[0]
    for bad,error,says in [(dict(items='Titanik'), KeyError, 'Titanik'), (dict(items=title, n=0), ValueError, 'n=0'), (dict(items=title, n=2.), TypeError, 'n=2.0'),
            (dict(items=title, users=-5), KeyError, '-5'), (dict(items=title, z=1), ValueError, 'draws'), (dict(items=title, unknown='average'), ValueError, 'unknown'),
            (dict(items=title, max_bytes=0), ValueError, 'max_bytes')]:
        with pytest.raises(error, match=says): learn.recommend_users(**bad)
    with pytest.raises(ValueError, match='seen is not known'): Recommender(learn.model, learn.ds).recommend_users(title)
    with pytest.warns(UserWarning, match="1 unknown in 'title'"): assert len(learn.recommend_users([title,'Titanik'], n=2, unknown='drop'))==2
    for ask in (learn.recommend_users, lambda o: learn.recommend(items=o), lambda o: learn.predict_grid(None, o)):
        with pytest.raises(KeyError, match="'Titanik' is not among .*; unknown='drop' leaves out what is unknown"): ask([title,'Titanik'])
        with pytest.raises(KeyError) as e: ask(['Titanik'])
        assert 'drop' not in str(e.value)

def check_lists(got, scores, n, left):
    "`got` is, for each user, the `n` best by `scores` of the pairs `left`, a set"
    by_user = pd.DataFrame([*left], columns=['user','title']).groupby('user').title.agg(list)
    assert {*got.user}=={*by_user.index}
    for user,rows in got.groupby('user'):
        own = scores.loc[user][by_user[user]]
        want = own.nlargest(n)
        np.testing.assert_allclose(rows.score, want, rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(own[rows.title], want, rtol=1e-4, atol=1e-4)
        assert rows.title.is_unique

def pairs_of(df): return {*zip(df.user, df.title)}

@pytest.mark.parametrize('kind', kinds)
def test_candidates_of_each_user_and_pairs_left_out(kind, learners, ratings):
    learn = learners[kind]
    users,titles = (v.labels for v in learn.ds.classes.values())
    every = pd.DataFrame([(u,t) for u in users for t in titles], columns=['user','title'])
    near = every.sample(3000, random_state=1)
    near = near[~near.user.isin(users[:5])]
    bought = near.sample(900, random_state=2)
    seen = pairs_of(ratings)
    scores = scored(learn)
    check_lists(learn.recommend(items=near, n=4), scores, 4, pairs_of(near)-seen)
    check_lists(learn.recommend(items=near, n=4, also_exclude=bought, exclude_seen=False), scores, 4, pairs_of(near)-pairs_of(bought))
    check_lists(learn.recommend(n=4, also_exclude=bought), scores, 4, pairs_of(every)-seen-pairs_of(bought))
    some = users[[70,9,30]]
    got = learn.recommend(some, items=pd.concat([near,near]), n=4, max_bytes=20_000 if kind!='fit_ease' else 10**6)  # a pair that is there twice is listed once
    assert [*dict.fromkeys(got.user)]==[*some]
    check_lists(got, scores, 4, {o for o in pairs_of(near)-seen if o[0] in set(some)})

@pytest.mark.parametrize('kind', ['fit_als','fit_blend'])
def test_what_is_sold_out_is_on_no_list(kind, learners, ratings, tmp_path):
    learn = learners[kind]
    users,titles = (v.labels for v in learn.ds.classes.values())
    gone = titles[::3].tolist()
    left = {(u,t) for u in users for t in titles if t not in set(gone)}-pairs_of(ratings)
    scores = scored(learn)
    want = learn.recommend(n=4, also_exclude=gone)
    check_lists(want, scores, 4, left)
    for o in (pd.DataFrame(dict(title=gone)), dict(title=gone), pd.Series(gone), pd.Index(gone), np.array(gone, dtype=object), set(gone)):
        pd.testing.assert_frame_equal(learn.recommend(n=4, also_exclude=o), want)
    for o in (pd.DataFrame(dict(title=titles)).query('title not in @gone'), pd.DataFrame(dict(title=titles)).drop(range(0, len(titles), 3))):
        pd.testing.assert_frame_equal(learn.recommend(n=4, items=o), want)
    file = learn.recommend(n=4, also_exclude=gone, path=tmp_path/'lists.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(file), want, check_categorical=False, check_dtype=False)
    near = pd.DataFrame([(u,t) for u in users[:9] for t in titles[:30]], columns=['user','title'])
    check_lists(learn.recommend(items=near, n=4, also_exclude=gone), scores, 4, left & pairs_of(near))
    one = learn.recommend(users[0], n=3)
    assert learn.recommend(users[0], n=2, also_exclude=one.title[0]).title.tolist()==one.title.tolist()[1:]
    assert not len(learn.recommend(n=4, also_exclude=titles.tolist())) and learn.recommend(n=4, also_exclude=[]).equals(learn.recommend(n=4))
    with pytest.warns(UserWarning, match="also_exclude: 1 unknown in 'title' \\('Titanik'\\); they exclude nothing"): got = learn.recommend(n=4, also_exclude=[*gone,'Titanik'])
    pd.testing.assert_frame_equal(got, want)

def test_what_is_no_frame_of_pairs_is_told_what_may_be(learners):
    learn = learners['fit_als']
    titles = learn.ds.classes['title'].labels[:2]
    df = pd.DataFrame(dict(visitor=[1,2], title=titles))
    for name in ('also_exclude','exclude_seen'):
        with pytest.raises(ValueError, match=f"{name} has no column 'user'.*{'a list of their labels' if name[0]=='a' else 'also_exclude='}"): learn.recommend(**{name: df})
    with pytest.raises(TypeError, match='exclude_seen.*must be a DataFrame, not list.*also_exclude='): learn.recommend(exclude_seen=titles.tolist())
    for bad in (7,True,[('a','b')]):
        with pytest.raises((TypeError,ValueError), match='also_exclude.*a list of their labels'): learn.recommend(also_exclude=bad)

def test_candidates_are_ranked_with_knobs_and_into_files(learners, ratings, tmp_path):
    learn = learners['fit_blend']
    users,titles = (v.labels for v in learn.ds.classes.values())
    near = pd.DataFrame([(u,t) for u in users[:9] for t in titles[::3]], columns=['user','title'])
    for knobs in (dict(diversity=.4), dict(damping=.7), dict(diversity=.2, damping=.3)):
        got = learn.recommend(items=near, n=5, **knobs)
        want = learn.recommend(users[:9], items=titles[::3], n=5, **knobs)
        pd.testing.assert_frame_equal(got, want)
    file = learn.recommend(items=near, n=5, path=tmp_path/'near.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(file), learn.recommend(items=near, n=5), check_categorical=False, check_dtype=False)

def test_a_long_catalogue_with_a_screen_takes_candidates_too():
    g = torch.Generator().manual_seed(0)
    n_users,n_items = 40,9000
    make = lambda n,k: torch.randn(n+1, k, generator=g)
    m = Dot(make(n_users, 8), make(n_users, 1), make(n_items, 8), make(n_items, 1)).eval()
    classes = dict(user=Vocab(range(n_users), 'user'), item=Vocab(range(n_items), 'item'))
    x = torch.zeros(0, 2, dtype=torch.int32)
    rec = Recommender(m, RatingsTensors(x, torch.zeros(0), classes, 'rating'))
    whole = rec.recommend(n=10, exclude_seen=False)
    best = whole[whole['rank']<=3]
    rest = rec.recommend(n=7, exclude_seen=False, also_exclude=best)
    assert rest.item.tolist()==whole[whole['rank']>3].item.tolist()
    got = rec.recommend(n=10, exclude_seen=False, items=best[['user','item']])
    assert got.item.tolist()==best.item.tolist()

def test_pairs_are_refused_or_told(learners):
    learn = learners['fit_als']
    users,titles = (v.labels for v in learn.ds.classes.values())
    good = pd.DataFrame(dict(user=users[[0,0]], title=titles[[0,1]]))
    bad = pd.concat([good, pd.DataFrame(dict(user=[users[0],-7], title=['Titanik',titles[0]]))])
    for name in ('items','also_exclude'):
        for unknown in ['drop'] if name=='items' else ['drop','raise']:
            with pytest.warns(UserWarning, match=f'{name}, 2 of 4 rows'): got = learn.recommend(n=2, exclude_seen=False, unknown=unknown, **{name: bad})
            pd.testing.assert_frame_equal(got, learn.recommend(n=2, exclude_seen=False, **{name: good}))
        with pytest.raises(ValueError, match='title'): learn.recommend(**{name: good[['user']]})
        with pytest.raises(ValueError): learn.recommend(**{name: good.assign(title=[None,titles[1]])})
    with pytest.raises(KeyError, match="items, 2 of 4 rows: .*-7.*Titanik.*unknown='drop'"): learn.recommend(n=2, exclude_seen=False, items=bad)
    with pytest.warns(UserWarning, match='also_exclude, 2 of 2 rows: .*exclude nothing'): got = learn.recommend(users[0], also_exclude=bad[2:])
    pd.testing.assert_frame_equal(got, learn.recommend(users[0]))
    with pytest.warns(UserWarning, match=f'1 of the users have no pair in items, {users[3]}'): learn.recommend(users[[0,3]], items=good, exclude_seen=False)
    none = learn.recommend(items=good[:0])
    assert not len(none) and 'score' in none
    with pytest.raises(TypeError): learn.recommend(also_exclude=True)

def test_a_condition_on_items_leaves_n_of_each_user(learners, ratings):
    learn = learners['fit_blend']
    items = sample_ratings(n_users=150, n_items=120, n_ratings=5000, with_truth=True)[1].items.set_index('title')
    chosen = items.query('genre==genre.iloc[0]').index.intersection(learn.ds.classes['title'].labels)
    got = learn.recommend(n=5, items=chosen)
    n_seen = ratings[ratings.title.isin(chosen)].groupby('user').title.nunique().reindex(learn.ds.classes['user'].labels, fill_value=0)
    n_left = (len(chosen)-n_seen).clip(upper=5)
    assert {*got.title}<={*chosen} and got.user.value_counts().reindex(n_left.index, fill_value=0).equals(n_left.astype('int64'))

def test_lists_of_some_users_in_a_file(learners, tmp_path):
    learn = learners['fit_blend']
    some = learn.ds.classes['user'].labels[[100,3,77]]
    file = learn.recommend(some, n=4, path=tmp_path/'some.parquet', max_bytes=20_000)
    got = pd.read_parquet(file)
    assert [*dict.fromkeys(got.user)]==[*some] and len(got)==12
    pd.testing.assert_frame_equal(got, learn.recommend(some, n=4), check_categorical=False, check_dtype=False, rtol=1e-4)
    rec = load_recommender(learn.save_recommender(tmp_path/'m'), device='cpu')
    again = pd.read_parquet(rec.recommend(some, n=4, path=tmp_path/'again.parquet'))
    pd.testing.assert_frame_equal(again, got, rtol=1e-4)
    assert not pd.read_parquet(learn.recommend(some[:0], path=tmp_path/'none.parquet')).shape[0]

@pytest.mark.parametrize('kind', ['fit_blend','net'])
def test_a_loaded_one_tells_the_same_users(kind, learners, tmp_path):
    learn = learners[kind]
    rec = load_recommender(learn.save_recommender(tmp_path/'m'), device='cpu')
    pd.testing.assert_frame_equal(rec.recommend_users(None, n=3), learn.recommend_users(None, n=3), rtol=1e-4)

def rows_of(model, side, codes):
    "The numbers that a model has of the users or items `codes`, each a row of at least two that are not 0"
    for m in model.modules():
        for e in getattr(m, 'tables', [[],[]])[side] if type(m).__name__ not in ('Ease','Blend') else []:
            yield from e.weight.detach()[codes]
        for name in (f'{"ui"[side]}_bias_draws',f'{"ui"[side]}_noise'):
            if name in m._buffers: yield from m._buffers[name][codes]

def in_bytes(folder): return {f.name: f.read_bytes() for f in folder.iterdir()}

def check_gone(folder, old, side, labels):
    "No file of the `folder` holds one of `labels`, if they are texts, or a row that the recommender `old` has of them"
    codes = torch.from_numpy(list(old.ds.classes.values())[side].lookup(labels)).long()
    rows = [o for o in rows_of(old.model, side, codes) if o.any()]
    files = in_bytes(folder)
    for name,data in files.items():
        for o in labels:
            if isinstance(o, str): assert o.encode() not in data, (name,o)
        for row in rows: assert row.cpu().numpy().tobytes() not in data, (name,row)
    return len(rows)

@pytest.mark.parametrize('kind', kinds)
@pytest.mark.parametrize('side', [0,1])
def test_what_is_forgotten_is_in_no_file_and_the_others_stay(kind, side, learners, tmp_path):
    learn = learners[kind]
    name = ('user','title')[side]
    labels = learn.ds.classes[name].labels
    gone = labels[[7,0,len(labels)-1]].tolist()
    before = scored(learn)
    rec = (learn.without_users,learn.without_items)[side](gone)
    left = before.drop(gone, axis=side)
    # scores of ease and of a blend with it, and of items' lists, depend on what was chosen: of users alone they are as before
    if not (side and kind in ('fit_ease','fit_blend')): pd.testing.assert_frame_equal(scored(rec), left, rtol=1e-4, atol=1e-5)
    assert type(rec) is Recommender and {*rec.ds.classes[name].labels}=={*labels}-{*gone}
    learn.save_recommender(tmp_path/'old')
    rec.save_recommender(tmp_path/'new', ratings=True)
    assert check_gone(tmp_path/'new', learn, side, gone) or kind=='fit_ease'
    if kind!='fit_ease':
        with pytest.raises(AssertionError): check_gone(tmp_path/'old', learn, side, gone)  # the test sees what is there
    idiom = load_recommender(tmp_path/'old', device='cpu')
    idiom = (idiom.without_users,idiom.without_items)[side](gone)
    idiom.save_recommender(tmp_path/'idiom')
    check_gone(tmp_path/'idiom', learn, side, gone)
    again = load_recommender(tmp_path/'idiom', device='cpu')
    for o in (rec,idiom): pd.testing.assert_frame_equal(again.recommend(n=4), o.recommend(n=4), rtol=1e-4)
    x = torch.tensor([[0,0],[0,5],[5,0]])
    with evaluating(rec.model) as (m,_),evaluating(again.model) as (n,_): torch.testing.assert_close(m(x), n(x))
    with pytest.raises(KeyError, match='is not among'): rec.predict(gone[0], 'x') if not side else rec.similar(gone[0])

@pytest.mark.parametrize('side', [0,1])
def test_what_was_seen_and_counted_is_as_if_they_had_never_been(side, learners, ratings):
    learn = learners['fit_als']
    name = ('user','title')[side]
    gone = learn.ds.classes[name].labels[[3,60,61]]
    rec = (learn.without_users,learn.without_items)[side](gone)
    users,titles = (v.labels for v in rec.ds.classes.values())
    left = ratings[~ratings[name].isin(gone)]
    row,item = rec.seen.of(torch.arange(1, len(users)+1))
    got = [*zip(users[row.numpy()], titles[item.numpy()-1])]
    assert sorted(got)==sorted(zip(left.user, left.title))
    train = pd.DataFrame(dict(user=learn.ds.classes['user'].decode(learn.ds.x[:,0]), title=learn.ds.classes['title'].decode(learn.ds.x[:,1])))
    train = train[~train[name].isin(gone)]
    assert rec.counts[1:].tolist()==train.title.value_counts().reindex(titles, fill_value=0).tolist()
    assert rec.seen.trained[1:].tolist()==train.user.value_counts().reindex(users, fill_value=0).tolist()
    assert rec.n_users==len(users) and rec.noise==learn.noise and rec.rating_range==learn.rating_range
    kept = rec.ds.decode(rec.ds.x, rec.ds.y)
    assert sorted(zip(kept.user, kept.title))==sorted(zip(train.user, train.title))
    only_trained = rec.seen.in_training()
    row,item = only_trained.of(torch.arange(1, len(users)+1))
    assert sorted(zip(users[row.numpy()], titles[item.numpy()-1]))==sorted(zip(train.user, train.title))
    check_lists(rec.recommend(n=3), scored(rec), 3, {(u,t) for u in users for t in titles}-pairs_of(left))

def test_row_0_and_ease_are_those_of_who_is_left(learners):
    learn = learners['fit_als']
    m = learn.without_users(learn.ds.classes['user'].labels[:100]).model
    torch.testing.assert_close(m.u_weight.weight[0], learn.model.u_weight.weight[101:].mean(0))
    learn = learners['fit_ease']
    users,titles = (v.labels for v in learn.ds.classes.values())
    every = torch.arange(1, len(users)+1)
    dense = learn.model.choices(every)
    weight = learn.model.weight.detach()
    one = learn.without_users(users[[4,9]]).model
    want = np.delete(dense.numpy(), [4,9], 0)
    np.testing.assert_allclose(one.choices(every[:-2]), want)
    np.testing.assert_allclose(one.choices(torch.tensor([0]))[0], want.mean(0), rtol=1e-5)
    one = learn.without_items(titles[[4,9]]).model
    np.testing.assert_allclose(one.weight.detach(), np.delete(np.delete(weight.numpy(), [4,9], 0), [4,9], 1))
    want = np.delete(dense.numpy(), [4,9], 1)
    has = want.any(1)
    np.testing.assert_allclose(one.choices(every).numpy()[has], want[has])
    assert one.of_unknown.allclose(one.weight.mean(1))

def test_effects_of_days_are_forgotten(tmp_path):
    df = sample_ratings(n_users=40, n_items=50, n_ratings=1500)
    df['user'] = 'person'+df.user.astype(str)
    rng = np.random.default_rng(0)
    df['time'] = rng.integers(10**9, 10**9+20*86400, len(df))
    learn = learner(RecDataLoaders.from_df(df, time_name='time', seed=1))
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(n_sweep=8, burn=4, n_draws=3, time='1D')
    users = learn.ds.classes['user'].labels
    gone,stay = users[[2,30]].tolist(),users[5]
    rec = learn.without_users(gone)
    rows = df[~df.user.isin(gone)]
    np.testing.assert_allclose(rec.predict_df(rows), learn.predict_df(rows), rtol=1e-5)
    np.testing.assert_allclose(rec.predict_df(rows, std=True)['std'], learn.predict_df(rows, std=True)['std'], rtol=1e-4)
    old,new = learn.model.time_effects[0],rec.model.time_effects[0]
    n_gone = sum(int((old.keys//2**31==c).sum()) for c in (3,31))
    assert n_gone>10 and len(new.keys)==len(old.keys)-n_gone==new.effects.shape[1] and (new.keys.diff()>0).all()
    rec.save_recommender(tmp_path/'m')
    assert check_gone(tmp_path/'m', learn, 0, gone)>4
    alone = learn.without_users([o for o in users if o!=stay])
    np.testing.assert_allclose(alone.predict_df(df[df.user==stay]), learn.predict_df(df[df.user==stay]), rtol=1e-5)

def test_forgetting_is_refused_or_told(learners, ratings, tmp_path):
    learn = learners['fit_als']
    users,titles = (v.labels for v in learn.ds.classes.values())
    for f,name,labels in ((learn.without_users,'user',users),(learn.without_items,'title',titles)):
        with pytest.raises(KeyError, match='is not among'): f([labels[0],'nobody' if name=='title' else -3])
        with pytest.raises(ValueError, match=f"no label of '{name}'"): f([])
        with pytest.raises(ValueError, match=f"all labels of '{name}'"): f(labels)
        odd = 'nobody' if name=='title' else -3
        with pytest.warns(UserWarning, match=f"1 unknown in '{name}'"): less = f([labels[0],odd], unknown='drop')
        assert less.ds.classes[name].labels.equals(f(labels[0]).ds.classes[name].labels)
        with pytest.warns(UserWarning, match='nothing to forget'): assert f([odd], unknown='drop').ds.classes[name].labels.equals(labels)
        with pytest.raises(KeyError, match='which are'): f([labels[0],odd,7 if name=='title' else str(labels[1])], unknown='drop')
        with pytest.raises(ValueError, match='unknown'): f(labels[0], unknown='average')
    state = {k: v.clone() for k,v in learn.model.state_dict().items()}
    learn.without_users(users[0])
    assert all(v.equal(state[k]) for k,v in learn.model.state_dict().items()) and len(learn.ds.classes['user'].labels)==len(users)
    new = learn.fold_in(ratings[ratings.user==users[0]].drop(columns='user'))
    with pytest.raises(ValueError, match='fold in again'): new.without_items(titles[0])
    rec = load_recommender(learn.save_recommender(tmp_path/'m', seen=False), device='cpu')
    with pytest.warns(UserWarning, match='still counts'): less = rec.without_users(users[0])
    assert less.seen is None and less.counts.equal(rec.counts)
    assert rec.without_items(titles[0]).counts.equal(rec.counts[[0,*range(2, len(rec.counts))]])
    with warnings.catch_warnings(action='ignore'): assert less.without_users(users[1:3]).n_users==len(users)-3

def test_features_and_categories_forget_too(tmp_path):
    df,truth = sample_ratings(n_users=60, n_items=50, n_ratings=1500, with_truth=True)
    df['user'] = ('person'+df.user.astype(str)).astype('category')
    sides = truth.sides()
    people = sides['users'].rename(index=lambda o: f'person{o}').reset_index()
    learn = learner(RecDataLoaders.from_df(df, seed=1, users=people.set_index('user'), items=sides['items']))
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_bayes(n_sweep=6, burn=3, n_draws=2)
    gone = learn.ds.classes['user'].labels[[1,20]].tolist()
    rec = learn.without_users(gone)
    of_users,of_items = rec.ds.features
    old = learn.ds.features[0].x.to_dense()
    assert of_users.x.to_dense().equal(old[[k for k in range(len(old)) if k not in (2,21)]]) and of_items.x.to_dense().equal(learn.ds.features[1].x.to_dense())
    assert not {*gone}&{*map(str, rec.ds.classes['user'].labels)} and not {*gone}&{*map(str, of_users.vocab.labels)}
    labels = rec.ds.classes['user'].labels
    if isinstance(labels, pd.CategoricalIndex): assert not {*gone}&{*labels.categories}
    rec.save_recommender(tmp_path/'m')
    assert check_gone(tmp_path/'m', learn, 0, gone)
    rows = df[~df.user.isin(gone)]
    np.testing.assert_allclose(load_recommender(tmp_path/'m', device='cpu').predict_df(rows), learn.predict_df(rows), rtol=1e-5)

@pytest.mark.parametrize('name', ['lists.xlsx','lists.TSV','lists.json'])
def test_lists_are_not_written_under_the_name_of_another_format(learners, name, tmp_path):
    with pytest.raises(ValueError, match='lists are written as Parquet or CSV: name it .parquet'): learners['fit_als'].recommend(path=tmp_path/name)
    assert not [*tmp_path.iterdir()]
