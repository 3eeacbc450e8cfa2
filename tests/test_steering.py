"""The two knobs of lists: damped scores against brute force, maximal marginal relevance replayed step by step, and what is refused"""
import math,warnings
import numpy as np,pandas as pd,pytest,torch
from conftest import Fitted,kinds
from fastrec.all import Dot,RatingsTensors,RecDataLoaders,Recommender,Vocab,learner,load_recommender,sample_ratings
from fastrec.answer import byte_screens
from fastrec.answer.screens import HalfScreen
from fastrec.answer.steering import Damped,mmr
from fastrec.evaluate import measures
from fastrec.evaluate.measures import Jaccard,diversity,popularity_bias
from fastrec.models.base import Cosines
from fastrec.models.posterior import Weighed

with_factors = kinds[1:]

@pytest.fixture(scope='module')
def ratings(): return sample_ratings(n_users=150, n_items=120, n_ratings=5000)

@pytest.fixture(scope='module')
def learners(ratings): return Fitted(ratings)

def table(rec, scores):
    "`scores`, (n_users,n_items), by label"
    users,items = (v.labels for v in rec.ds.classes.values())
    return pd.DataFrame(np.asarray(scores, 'float64'), users, items)

def scored(rec, ranker=None):
    "What ranks, before the range, of all pairs"
    m = ranker or rec.model.lists_by
    n_users,n_items = (len(v) for v in rec.ds.classes.values())
    with torch.no_grad(): return table(rec, m.eval().score(m.user_side(torch.arange(1, n_users)), m.item_side(torch.arange(1, n_items))))

def damped(rec, damping, scores=None):
    "Damped scores of all pairs, by the formula"
    scores = scored(rec) if scores is None else scores
    counts = pd.Series(np.asarray(rec.counts[1:]), scores.columns)
    rated = scores.loc[:,counts>0].to_numpy()
    n_best = max(rated.shape[1]//100, 1)
    lead = np.sort(rated, 1)[:,-n_best]-rated.mean(1)
    popular = np.log(counts.clip(lower=1))/math.log(counts.max())
    return (scores-damping*np.outer(lead, popular)).where(counts>0, -np.inf, axis=1)

def without(scores, seen):
    "`scores` with minus infinity for the pairs of the frame `seen`"
    rows,cols = scores.index.get_indexer(seen.user),scores.columns.get_indexer(seen.title)
    there = (rows>=0)&(cols>=0)
    res = scores.to_numpy(copy=True)
    res[rows[there],cols[there]] = -np.inf
    return pd.DataFrame(res, scores.index, scores.columns)

def check_best(lists, scores, n):
    "Are `lists` the `n` best of the finite `scores`, with these scores?"
    by_user = dict([*lists.groupby('user')])
    for user,row in scores.iterrows():
        got = by_user[user]
        want = np.sort(row[row>-np.inf])[::-1][:n]
        assert got['rank'].tolist()==list(range(1, len(want)+1)) and got.title.is_unique
        np.testing.assert_allclose(got.score, want, atol=1e-4, rtol=1e-4)
        np.testing.assert_allclose(row[list(got.title)], want, atol=1e-4, rtol=1e-4)

# ------------------------------------------------------------------ damping
@pytest.mark.parametrize('kind', kinds)
def test_damped_lists_are_the_best_of_damped_scores(kind, learners, ratings):
    learn = learners[kind]
    want = without(damped(learn, .6), ratings)
    got = learn.recommend(n=7, damping=.6)
    check_best(got, want, 7)
    assert not got[['user','title']].equals(learn.recommend(n=7)[['user','title']])

def test_damped_lists_of_some(learners, ratings):
    "By items, counts and what is seen as without; the unit of popularity is that of the whole catalogue"
    learn = learners['fit_ials']
    users,items = ratings.user.unique()[:20],ratings.title.unique()[:60]
    counts = pd.Series(learn.counts[1:], learn.ds.classes['title'].labels)
    own = ratings.sample(500, random_state=0)
    some = [o for o in items if counts[o]>=20]
    want = without(damped(learn, .4), own).loc[users,some]
    got = learn.recommend(users, 5, items, damping=.4, min_count=20, exclude_seen=own)
    check_best(got, want, 5)
    alone = pd.concat([learn.recommend(o, 5, items, damping=.4, min_count=20, exclude_seen=own) for o in users[:3]])
    pd.testing.assert_frame_equal(alone.reset_index(drop=True).drop(columns='user'), got[got.user.isin(users[:3])].reset_index(drop=True).drop(columns='user'))

@pytest.mark.parametrize('kind', kinds)
def test_a_unit_changes_no_damped_list(kind, learners):
    "Scores times a number, plus a number: the same lists"
    learn = learners[kind]
    m = learn.model.lists_by.eval()
    class Other(torch.nn.Module):
        is_product,n_buffers = False,1
        def __init__(self): super().__init__(); self.m = m
        def user_side(self, users): return m.user_side(users)
        def item_side(self, items): return m.item_side(items)
        def score(self, u, i, out=None):
            res = 100*m.score(u.contiguous(), i)-7
            return res if out is None else out.copy_(res)
    users,items = (torch.arange(1, len(v)) for v in learn.ds.classes.values())
    with torch.no_grad():
        a,b = (d.score(d.user_side(users), d.item_side(items)) for d in (Damped(o, learn.counts, .5) for o in (m,Other())))
    torch.testing.assert_close(100*a.float()-7, b.float(), atol=2e-3, rtol=2e-3)

def test_damping_in_8_or_16_bits_is_exact(monkeypatch):
    "A catalogue that is screened, with leads from a part of it"
    torch.manual_seed(0)
    n_users,n_items = 300,9000
    model = Dot(torch.randn(n_users+1, 8), torch.zeros(n_users+1, 1), torch.randn(n_items+1, 8), torch.randn(n_items+1, 1))
    counts = torch.randint(1, 5000, (n_items+1,))
    counts[0] = 0
    users,items = [pd.RangeIndex(n) for n in (n_users,n_items)]
    ds = RatingsTensors(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0), dict(user=Vocab(users, 'user'), item=Vocab(items, 'item')), 'rating')
    rec = Recommender(model, ds, counts=counts)
    made = []
    def screen(device):
        made.append(device)
        return HalfScreen
    monkeypatch.setattr(byte_screens, 'screen_for', screen)
    got = rec.recommend(n=5, damping=.7, exclude_seen=False)
    assert made
    m = Damped(model, counts, .7)
    with torch.no_grad(): grid = m.score(m.user_side(torch.arange(1, n_users+1)), m.item_side(torch.arange(1, n_items+1)))
    best,place = grid.topk(5)
    np.testing.assert_allclose(got.score.to_numpy().reshape(-1, 5), best.numpy(), rtol=1e-4)
    assert (got.item.to_numpy().reshape(-1, 5)==place.numpy()).mean()>.999
    assert len(m.looked_at)==2000 and m.looked_at[0]==1 and m.looked_at[-1]==n_items and (m.looked_at.diff()>0).all()

def test_more_damping_is_less_popular(learners):
    for kind in ('fit_als','fit_ials','fit_ease','fit_blend'):
        found = pd.concat([learners[kind].evaluate(damping=o).loc[['model']] for o in (0,.5,1,2)])
        assert found.novelty.is_monotonic_increasing and found.popularity_bias.iloc[-1]<=found.popularity_bias.iloc[0]
        assert found.novelty.iloc[-1]>found.novelty.iloc[0]+.05

def test_damping_by_unknown_or_equal_counts(learners, ratings):
    learn = learners['fit_als']
    rec = Recommender(learn.model, learn.ds)
    with pytest.raises(ValueError, match='damping=0.5: how often items were rated is not known'): rec.recommend(n=2, damping=.5, exclude_seen=False)
    equal = Recommender(learn.model, learn.ds, counts=learn.counts.clamp(max=1))
    with pytest.warns(UserWarning, match='rated equally often'): got = equal.recommend(n=2, damping=.5, exclude_seen=False)
    assert got[['user','title']].equals(learn.recommend(n=2, exclude_seen=False)[['user','title']])

# ------------------------------------------------------------------ diversity
def cosines(model, labels):
    f = model.item_factors.double().numpy()
    unit = f/np.maximum(np.linalg.norm(f, axis=1, keepdims=True), 1e-12)
    return pd.DataFrame(unit@unit.T, labels, labels)

def check_mmr(lists, scores, alike, n, d):
    "Is each item of `lists` the most relevant and least like those before it, of the best candidates by `scores`?"
    for user,row in scores.iterrows():
        row = row[row>-np.inf].sort_values(ascending=False)[:max(10*n, 100)]
        got = lists[lists.user==user].title.tolist()
        assert len(got)==min(n, len(row)) and len(set(got))==len(got)
        if not len(row): continue
        width = row.iloc[0]-row.iloc[-1]
        relevant = (row-row.iloc[-1])/width if width else row*0
        for k,o in enumerate(got):
            left = relevant.drop(got[:k])
            value = (1-d)*left - (d*alike.loc[left.index,got[:k]].max(axis=1) if k else 0)
            assert value[o]>=value.max()-1e-4

@pytest.mark.parametrize('kind', with_factors)
@pytest.mark.parametrize('n,d', [(5,.4),(20,.8)])
def test_lists_are_by_maximal_marginal_relevance(kind, n, d, learners, ratings):
    learn = learners[kind]
    users = ratings.user.unique()[:12]
    labels = learn.ds.classes['title'].labels
    if kind=='fit_ease':
        every = torch.arange(1, len(labels)+1)[None]
        alike = pd.DataFrame(learn.model.item_likeness()(every, every)[0].double().numpy(), labels, labels)
    else: alike = cosines(learn.model.lists_by, labels)
    got = learn.recommend(users, n, diversity=d)
    check_mmr(got, without(damped(learn, 0), ratings).loc[users], alike, n, d)
    by_score = learn.recommend(users, n)
    assert got.title[got['rank']==1].tolist()==by_score.title[by_score['rank']==1].tolist()
    if learn.model.lists_by is learn.model:
        want = table(learn, learn.model.to_range(torch.tensor(scored(learn).to_numpy()).float()))
        np.testing.assert_allclose(got.score, [want.loc[u,t] for u,t in zip(got.user, got.title)], atol=1e-4, rtol=1e-4)

def test_both_knobs(learners, ratings):
    learn = learners['fit_als']
    users = ratings.user.unique()[:15]
    got = learn.recommend(users, n=6, diversity=.5, damping=.7)
    check_mmr(got, without(damped(learn, .7), ratings).loc[users], cosines(learn.model, learn.ds.classes['title'].labels), 6, .5)
    pred = learn.predict_df(got[['user','title']])
    np.testing.assert_allclose(got.rating_pred, pred, atol=1e-5)

@pytest.mark.parametrize('kind', with_factors)
def test_more_diversity_is_measured(kind, learners):
    found = pd.concat([learners[kind].evaluate(diversity=o).loc[['model']] for o in (0,.5,.9)]).diversity
    assert found.is_monotonic_increasing and found.iloc[-1]>found.iloc[0]+.05

def test_mmr_by_an_obvious_loop():
    "Rows with gaps, of random scores and likenesses"
    rng = np.random.default_rng(0)
    scores = torch.from_numpy(rng.normal(size=(30,12))).float()
    scores[torch.from_numpy(rng.random((30,12))<.3)] = -torch.inf
    scores[0] = -torch.inf
    s = rng.uniform(-1, 1, (12,12))
    s = torch.from_numpy((s+s.T)/2).float()
    codes = torch.arange(1, 13).repeat(30, 1)
    found,cols = mmr(scores, codes, 8, .45, lambda a,b: s[a[:,:,None]-1,b[:,None]-1])
    for row,f,c in zip(scores, found, cols):
        left = [k for k in range(12) if row[k]>-torch.inf]
        finite = row[left]
        chosen = []
        for _ in range(min(8, len(left))):
            def value(k): return .55*(row[k]-finite.min())/(finite.max()-finite.min()) - (.45*max(s[k,j] for j in chosen) if chosen else 0)
            chosen.append(max(left, key=value))
            left.remove(chosen[-1])
        assert c[:len(chosen)].tolist()==chosen and f[:len(chosen)].tolist()==row[chosen].tolist()
        assert (f[len(chosen):]==-torch.inf).all()

# ------------------------------------------------------------------ the ways in and out
def same(a, b): pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), check_dtype=False, check_categorical=False, atol=1e-4, rtol=1e-4)

@pytest.mark.parametrize('kind', kinds)
def test_knobs_at_0_change_nothing(kind, learners):
    learn = learners[kind]
    for o in (0,0.,np.float32(0)):
        pd.testing.assert_frame_equal(learn.recommend(n=4, diversity=o, damping=o), learn.recommend(n=4))
        pd.testing.assert_frame_equal(learn.evaluate(diversity=o, damping=o), learn.evaluate())

@pytest.mark.parametrize('kind', ['fit_als','fit_ease','fit_blend'])
def test_files_blocks_and_bundles_give_the_same_lists(kind, learners, tmp_path):
    learn,knobs = learners[kind],dict(n=4, diversity=.4, damping=.3)
    want = learn.recommend(**knobs)
    same(learn.recommend(**knobs, max_bytes=20_000), want)
    same(pd.read_parquet(learn.recommend(**knobs, path=tmp_path/'lists.parquet')), want)
    loaded = load_recommender(learn.save_recommender(tmp_path/'saved'), 'cpu')
    same(loaded.recommend(**knobs), want)
    held = learn.dls.train_ds.decode(*learn.dls.valid_ds[:])
    pd.testing.assert_frame_equal(loaded.evaluate(held, diversity=.4, damping=.3), learn.evaluate(diversity=.4, damping=.3))

@pytest.mark.parametrize('kind', [o for o in kinds if o!='fit_bias'])
def test_new_users(kind, learners, ratings):
    "Alone or beside others, a newcomer's lists are damped by the same measure"
    learn = learners[kind]
    mine = ratings[ratings.user.isin(ratings.user.unique()[:3])]
    new = learn.fold_in(mine)
    knobs = dict(n=5, damping=.6)
    got = new.recommend(**knobs)
    check_best(got, without(damped(new, .6), mine), 5)
    first = mine.user.unique()[0]
    alone = learn.fold_in(mine[mine.user==first]).recommend(**knobs)
    if kind!='fit_bayes': assert alone.title.tolist()==got.title[got.user==first].tolist()  # which draws for all at once
    assert len(new.recommend(n=5, diversity=.5))==15

def test_draws_are_steered(learners, ratings):
    "Weighed by their spread, or one of them"
    learn = learners['fit_bayes']
    got = learn.recommend(n=5, z=1, damping=.5)
    check_best(got, without(damped(learn, .5, scored(learn, Weighed(learn.model, 1))), ratings), 5)
    both = learn.predict_df(got[['user','title']], std=True)
    np.testing.assert_allclose(got[['rating_pred','std']], both, atol=1e-4)
    draw = learn.recommend(n=5, draw=1, damping=.5)
    check_best(draw, without(damped(learn, .5, scored(learn, learn.model.one_draw(1))), ratings), 5)
    for kwargs in (dict(z=1),dict(draw=1)): assert len(learn.recommend(n=5, diversity=.5, **kwargs))==5*len(learn.ds.classes['user'].labels)

def test_evaluate_judges_the_lists_of_recommend(learners, ratings):
    learn,knobs = learners['fit_ials'],dict(diversity=.4, damping=.5)
    valid,train = (learn.dls.train_ds.decode(o.x, o.y) for o in (learn.dls.valid_ds,learn.dls.train_ds))
    lists = learn.recommend(valid.user.unique(), 5, exclude_seen=train, **knobs)
    hits = lists.merge(valid.drop_duplicates(['user','title']), how='left', on=['user','title']).rating.notna()
    got = learn.evaluate(k=5, **knobs).loc['model']
    assert got.precision_at_5==pytest.approx(hits.mean(), abs=1e-5)
    assert got.coverage==pytest.approx(lists.title.nunique()/len(learn.ds.classes['title'].labels))
    top = train.title.value_counts().index[0]
    assert got.popularity_bias==pytest.approx((lists.title==top).mean(), abs=1e-6)
    alike = cosines(learn.model, learn.ds.classes['title'].labels)
    unlike = [1-np.mean([alike.loc[a,b] for k,a in enumerate(o) for b in o[:k]]) for o in lists.groupby('user').title.agg(list)]
    assert got.diversity==pytest.approx(np.mean(unlike), abs=1e-4)

# ------------------------------------------------------------------ little data
def tiny(rows):
    "A learner of the `rows` and of the first of them again, which is held out"
    df = pd.DataFrame([*rows,rows[0]], columns=['user','item','rating'])
    n = len(rows)
    with warnings.catch_warnings(action='ignore'): learn = learner(RecDataLoaders.from_df(df, lambda _: (np.arange(n),np.array([n])), bs=2))
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_ials(2, 2)
    return learn

def test_few_items():
    "More asked for than there are, nothing left for one, and a single item"
    learn = tiny([('a',i,5.) for i in range(5)]+[('b',0,4.),('b',1,3.),('c',0,2.),('c',4,1.)])
    for knobs in (dict(diversity=.5),dict(damping=.5),dict(diversity=.9, damping=3)):
        got = learn.recommend(n=50, **knobs)
        assert got.user.astype(str).value_counts().to_dict()=={'b': 3, 'c': 3} and not got.duplicated(['user','item']).any()
        assert got['rank'].tolist()==[1,2,3]*2 and np.isfinite(got.score).all()
        assert len(learn.recommend('a', **knobs))==0 and len(learn.recommend('b', items=[2], **knobs))==1
        assert len(learn.recommend([], **knobs))==0
        assert len(learn.recommend('b', items=[], **knobs))==0
    one = tiny([('a','x',5.),('b','x',4.)])
    with warnings.catch_warnings(action='ignore'): got = one.recommend(exclude_seen=False, damping=.5)
    assert got.item.tolist()==['x','x'] and (got['rank']==1).all()

@pytest.mark.parametrize('name', ['diversity','damping'])
@pytest.mark.parametrize('bad,error', [(math.nan,ValueError),(-.1,ValueError),(math.inf,ValueError),('.3',TypeError),(True,TypeError),(None,TypeError),([.3],TypeError)])
def test_refused(name, bad, error, learners, tmp_path):
    learn = learners['fit_als']
    for call in (learn.recommend,learn.evaluate):
        with pytest.raises(error, match=f'{name}='): call(**{name: bad})
    with pytest.raises(error, match=f'{name}='): learn.recommend(path=tmp_path/'o.parquet', **{name: bad})
    assert not [*tmp_path.iterdir()]

def test_diversity_of_1_and_without_factors(learners):
    for call in (learners['fit_als'].recommend,learners['fit_als'].evaluate):
        for bad in (1,1.,np.float64(1)):
            with pytest.raises(ValueError, match='diversity=1 must be at least 0 and below 1'): call(diversity=bad)
    for call in (learners['fit_bias'].recommend,learners['fit_bias'].evaluate):
        with pytest.raises(ValueError, match='biases alone has no factors'): call(diversity=.5)
    got = learners['fit_bias'].evaluate()
    assert got.diversity.isna().all() and got.popularity_bias.notna().all()

# ------------------------------------------------------------------ measures
def test_measures_by_hand():
    counts = torch.tensor([0,*range(300, 0, -1)])
    assert popularity_bias(torch.tensor([1,2,3,4]), counts)==.75  # three of 300
    assert popularity_bias(torch.tensor([1,2,3,4]), counts[:50])==.25  # one at least
    alike = Jaccard(np.array([[1,0,0],[1,1,0],[0,0,1]], 'float32'))
    items = torch.tensor([[1,2,3],[3,3,1]])
    there = torch.tensor([[True,True,False],[True,False,False]])
    assert diversity(items, there, alike)==.5
    assert math.isnan(diversity(items[1:], there[1:], alike))

@pytest.mark.parametrize('alike', ['genres','many genres','factors'])
def test_diversity_pair_by_pair(monkeypatch, alike):
    "By shorter ways, a few lists at a time, as by an obvious loop"
    torch.manual_seed(0)
    sets = (torch.rand(40, 6)<.4) | torch.eye(6).bool()[torch.arange(40)%6]
    monkeypatch.setattr(measures, '_many_sets', 3 if alike=='many genres' else 40)
    alike = Cosines(torch.randn(40, 3)) if alike=='factors' else Jaccard(sets.float())
    items = torch.rand(50, 40).argsort(1)[:,:7]+1
    there = torch.rand(50, 7)<.8
    lists = [row[ok] for row,ok in zip(items, there)]
    want = np.mean([np.mean([1-float(alike(a[None,None], b[None,None])) for k,a in enumerate(o) for b in o[:k]]) for o in lists if len(o)>1])
    assert diversity(items, there, alike)==pytest.approx(want, abs=1e-5)
    monkeypatch.setattr(measures, '_numbers_at_once', 100)
    assert diversity(items, there, alike)==pytest.approx(want, abs=1e-5)

def test_genres(learners, ratings):
    "In a frame or a Series, by column or index, as text or as lists; rows that are missing are named"
    learn = learners['fit_ials']
    titles = ratings.title.unique()
    kinds = pd.Series(['A|B','B','C|D'], range(3))[np.arange(len(titles))%3].set_axis(titles)
    want = learn.evaluate(genres=pd.DataFrame(dict(title=titles, genres=kinds.to_numpy())))
    sets = {t: set(o.split('|')) for t,o in kinds.items()}
    valid = learn.dls.train_ds.decode(learn.dls.valid_ds.x)
    lists = learn.recommend(valid.user.unique(), exclude_seen=learn.dls.train_ds.decode(learn.dls.train_ds.x))
    unlike = [1-np.mean([len(sets[a]&sets[b])/len(sets[a]|sets[b]) for k,a in enumerate(o) for b in o[:k]]) for o in lists.groupby('user').title.agg(list)]
    assert want.genre_diversity['model']==pytest.approx(np.mean(unlike), abs=1e-4)
    more = pd.DataFrame(dict(year=1990, genre=kinds.str.split('|')))
    for o in (kinds,kinds.sample(frac=1, random_state=0).to_frame('of'),more): pd.testing.assert_frame_equal(learn.evaluate(genres=o), want)
    assert 'genre_diversity' not in learn.evaluate()
    for bad,text in [(kinds[:-2], 'genres has no row for 2 of .* labels of .title.'), (kinds.where(kinds.index!=titles[0]), 'genres has no value'),
                     (pd.concat([kinds,kinds[:1]]), 'several times'), (pd.DataFrame(dict(a=1, b=2), titles), "one that is called 'genres'"),
                     (pd.Series('A', range(len(titles))), 'title')]:
        with pytest.raises(ValueError, match=text): learn.evaluate(genres=bad)
    with pytest.raises(TypeError, match='genres must be a DataFrame'): learn.evaluate(genres='Drama')
