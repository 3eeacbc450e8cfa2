"""Fits other than `fit_bayes` follow features too: rows of items that nobody has rated are where a ridge regression from genres puts them,
lists, bundles and newcomers know of it, and features that say nothing change nothing"""
import warnings
import numpy as np,pandas as pd,pytest,torch
from conftest import quietly
from fastai.collab import IndexSplitter
from fastai.metrics import mse
from fastrec.all import DotBias,DeepMF,RecDataLoaders,learner,load_recommender,sample_ratings
from fastrec.models.ridge import FeatureRidge

def quiet(learn):
    from contextlib import ExitStack
    res = ExitStack()
    res.enter_context(learn.no_bar())
    res.enter_context(learn.no_logging())
    return res

def fitted(dls, fit, arch=DotBias, n_factors=8, **kwargs):
    learn = learner(dls, arch, n_factors, seed=0, **kwargs)
    with quietly(), quiet(learn): fit(learn)
    return learn

# ------------------------------------------------------------------ the regression
def slow_offsets(x, w, rows, spread=0.):
    "By dense equations in float64, one for each column and penalty"
    x,w,rows = x.double(),w.double(),rows.double()
    known = x.any(1)
    w = w*known
    xc = x-(w@x)/w.sum()
    y = rows-(w@rows)/w.sum()
    a = xc.T@(w[:,None]*xc)
    s = torch.linalg.eigvalsh(a)
    s = s[s>1e-5*float(w@x.square().sum(1))]
    n = int((w>0).sum())-1
    res,evidence = [],[]
    for k in range(rows.shape[1]):
        best = -n*float((w@y[:,k]**2+spread).log()),torch.zeros(x.shape[1], dtype=torch.double)
        for power in range(-10, 11):
            penalty = 2.**power*float(s.mean())
            b = torch.linalg.solve(a+penalty*torch.eye(len(a), dtype=torch.double), xc.T@(w*y[:,k]))
            left = w@(y[:,k]-xc@b)**2+penalty*b@b+spread
            found = -float(torch.log1p(s/penalty).sum())-n*float(left.log())
            if found>best[0]: best = found,b
        res.append((xc@best[1])*known)
    return torch.stack(res, 1)

@pytest.mark.parametrize('n,d', [(60,5),(25,40),(30,29)])
@pytest.mark.parametrize('spread', [0.,3.])
def test_ridge_is_that_of_dense_equations(n, d, spread):
    rng = torch.Generator().manual_seed(n)
    x = (torch.rand(n, d, generator=rng)<.4)*torch.rand(n, d, generator=rng)
    x[3] = 0  # of whom nothing is known
    w = torch.rand(n, generator=rng)
    w[-4:] = 0
    rows = x@torch.randn(d, 3, generator=rng)+.5*torch.randn(n, 3, generator=rng)
    found,used = FeatureRidge(x.to_sparse(), w).offsets(rows, torch.full((3,), spread))
    assert torch.allclose(found.double(), slow_offsets(x, w, rows, spread), atol=2e-3)
    assert not found[3].any() and (0<=used).all() and (used<=min(n-5, d)+1e-3).all() and found[-4:].any()

def test_ridge_of_nothing():
    x = torch.ones(9, 1).to_sparse()
    rows = torch.arange(18.).view(9, 2)
    for w in (torch.ones(9),torch.zeros(9),(torch.arange(9)==4).float()):
        found,used = FeatureRidge(x, w).offsets(rows)  # a constant, no rows, and a single one
        assert not found.any() and not used.any()
    rng = torch.Generator().manual_seed(0)
    noise = (torch.rand(300, 4, generator=rng)<.5).float()
    found,_ = FeatureRidge(noise.to_sparse(), torch.ones(300)).offsets(torch.randn(300, 20, generator=rng))
    assert found.square().mean()<.02  # least squares would find .013 of the variance by chance alone

# ------------------------------------------------------------------ fits
fits = dict(sgd=lambda l, **k: l.fit_one_cycle(5), als=lambda l, **k: l.fit_als(4, **k), penalized=lambda l, **k: l.fit_als(4, 6, reg=2, **k),
            bias=lambda l, **k: l.fit_bias(**k), ials=lambda l, **k: l.fit_ials(8, **k))
of_ratings = [o for o in fits if o!='ials']

@pytest.fixture(scope='module')
def cold():
    "Ratings of 240 of 300 films, frames of all, and the ratings of the others"
    ratings,truth = sample_ratings(n_users=500, n_items=300, n_ratings=20_000, with_truth=True)
    genre = ratings.title.astype(str).map(truth.items.set_index('title').genre)
    better = genre.map({o: .4*k-.8 for k,o in enumerate(sorted(genre.unique()))})  # some genres are better
    ratings = ratings.assign(rating=(ratings.rating+better.astype(float)).clip(1, 5))
    rng = np.random.default_rng(0)
    new = rng.choice(ratings.title.cat.categories, 60, replace=False)
    is_new = ratings.title.isin(new).to_numpy()
    return ratings[~is_new],ratings[is_new],truth,{*new}

@pytest.fixture(scope='module')
def both(cold):
    "Loaders with features, and with the same labels alone"
    known,_,truth,_ = cold
    sides = truth.sides()
    return [RecDataLoaders.from_df(known, **{k: o if is_told else o[[]] for k,o in sides.items()}, seed=0) for is_told in (True,False)]

@pytest.fixture(scope='module')
def learners(both):
    "A function of whether features are told and the name of a fit, whose learners are kept and only asked"
    made = {}
    def get(is_told, fit):
        if (is_told,fit) not in made: made[is_told,fit] = fitted(both[0 if is_told else 1], fits[fit])
        return made[is_told,fit]
    return get

def rmse(learn, held): return float(np.sqrt(((learn.predict_df(held)-held.rating)**2).mean()))

@pytest.mark.parametrize('fit', of_ratings)
def test_items_that_nobody_has_rated_follow(cold, learners, fit):
    _,held,_,_ = cold
    a,b = (learners(o, fit) for o in (True,False))
    assert a.model.from_features==(True,True) and b.model.from_features==(False,False)
    assert rmse(a, held)<rmse(b, held)-.01

@pytest.mark.parametrize('fit', ['sgd','penalized','ials'])
def test_rated_rows_are_as_without(both, learners, fit):
    a,b = (learners(o, fit) for o in (True,False))
    least = 30  # rows of fewer ratings are solved for, around what features say
    for k,(x,y) in enumerate(zip(a.model.tables, b.model.tables)):
        is_rated = both[0].train_ds.counts(k)>least
        assert is_rated.sum()>20
        for e,f in zip(x, y): assert torch.equal(e.weight[is_rated], f.weight[is_rated])

def biases_on(df, items, n_sweep=20, **kwargs):
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.2, seed=0, items=items, **kwargs))
    with learn.no_bar(),learn.no_logging(): learn.fit_bias(n_sweep)
    return learn

@pytest.mark.parametrize('weight', [None,'weight'])
def test_biases_are_held_to_what_features_say(weight):
    "Kinds of items that are liked by all, of which few have ratings enough to show it"
    rng = np.random.default_rng(0)
    u,i,kind = rng.integers(300, size=1500),rng.integers(400, size=1500),rng.integers(4, size=420)
    y = 3+rng.normal(0, .3, 300)[u]+np.array([-1.,-.3,.3,1.])[kind[i]]+rng.normal(0, .7, 1500)
    df = pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=y.astype('float32'), weight=rng.uniform(.5, 2, 1500)))
    df = df.drop_duplicates(['user','title'])
    names = pd.Index(np.char.add('f', np.arange(420).astype(str)), name='title')
    telling,noise = (pd.DataFrame(dict(kind=o.astype(str)), names) for o in (kind,rng.permutation(kind)))
    told,without,by_noise = (biases_on(df, o, weight_name=weight) for o in (telling,None,noise))
    errors = [o.history.rmse.iloc[-1] for o in (told,without,by_noise)]
    assert errors[0]<.95*errors[1] and errors[2]==pytest.approx(errors[1], rel=.01)
    for learn in (told,biases_on(df, telling, 1, weight_name=weight)):  # those without ratings follow, after one sweep too
        new = learn.model.i_bias.weight[learn.dls.classes['title'].lookup(names[400:]),0]
        assert np.corrcoef(new.detach(), kind[400:])[0,1]>.9

@pytest.mark.parametrize('fit', [*fits])
def test_features_that_say_nothing_change_nothing(cold, fit):
    known,_,truth,_ = cold
    items = truth.sides()['items']
    res = []
    for frame in (items[[]],items[[]].assign(kind='film'),items):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', ".*'kind' is the same for all")
            dls = RecDataLoaders.from_df(known, items=frame, seed=0)
        if frame is items and fit=='sgd': continue  # whose rated rows are as without in any case
        res.append(fitted(dls, lambda l: fits[fit](l, features=False) if frame is items else fits[fit](l)))
    for o in res[1:]:
        assert o.model.from_features==(False,False)
        for (k,v),w in zip(res[0].model.state_dict().items(), o.model.state_dict().values()): assert torch.equal(v, w), k

@pytest.mark.parametrize('fit', [*fits,'blend'])
def test_lists_bundles_and_newcomers_know(cold, both, learners, fit, tmp_path):
    _,held,truth,new = cold
    learn = fitted(both[0], lambda l: l.fit_blend(choices='fit_ials')) if fit=='blend' else learners(True, fit)
    user = held.user.iloc[0]
    listed = learn.recommend(user, n=1000)
    assert new<={*listed.title} and not {*learn.recommend(user, n=1000, min_count=1).title}&new
    learn.save_recommender(tmp_path/'r')
    loaded = load_recommender(tmp_path/'r', device='cpu')
    assert loaded.recommend(user, n=1000).title.tolist()==listed.title.tolist()
    folded = [o.fold_in(held[held.user==user][['title','rating']]) for o in (learn,loaded)]
    grids = [o.recommend(n=1000, exclude_seen=False).score.to_numpy() for o in folded]
    assert np.allclose(*grids, atol=1e-4) and len(grids[0])==300
    if fit=='bias': return
    genre = truth.items.set_index('title').genre
    fresh = min(new)
    alike = learn.similar(fresh, n=10).title
    if fit!='blend': assert (genre[alike]==genre[fresh]).mean()>.3  # a fifth by chance

def test_choices_of_new_items_do_not_flood(cold, both):
    known,held,_,new = cold
    learn,without = (fitted(dls, lambda l: l.fit_ials(16)) for dls in both)
    users = known.user.unique()
    top = learn.recommend(users, n=10)
    assert top.title.isin(new).mean()<.1  # a fifth of the films are new
    with warnings.catch_warnings():
        warnings.filterwarnings('ignore', '60 items without training ratings may be on lists')
        a,b = (o.evaluate().ndcg_at_10['model'] for o in (learn,without))
    assert a>b-.01

def test_networks_follow(cold, both):
    _,held,_,_ = cold
    with warnings.catch_warnings(action='ignore'):  # that the sample has too few ratings for a network to find tastes
        a,b = (fitted(dls, lambda l: l.fit_one_cycle(3), DeepMF, 16) for dls in both)
    assert a.model.from_features==(True,True) and rmse(a, held)<rmse(b, held)

def test_in_doubt_biases_follow_too():
    "Few ratings for each film: a trial draws to biases, which follow from features themselves"
    ratings,truth = sample_ratings(n_users=500, n_items=300, n_ratings=20_000, with_truth=True)
    rng = np.random.default_rng(1)
    rows = rng.permutation(len(ratings))
    known,held = ratings.iloc[rows[:2500]],ratings.iloc[rows[2500:9000]]
    sides = truth.sides()
    res = []
    for frames in (sides,{k: o[[]] for k,o in sides.items()}):
        learn = fitted(RecDataLoaders.from_df(known, valid_pct=.001, seed=0, **frames), lambda l: l.fit_als(8))
        assert learn.model.advised is not None
        res.append(rmse(learn, held))
    assert res[0]<res[1]+.003

def test_a_fit_goes_on_with_features(both, cold):
    _,held,_,_ = cold
    learn = fitted(both[0], lambda l: l.fit_als(4))
    before = rmse(learn, held)
    with quietly(), quiet(learn): learn.fit_als(4, 3)
    assert abs(rmse(learn, held)-before)<.02
    with quietly(), quiet(learn): learn.fit_one_cycle(1)
    assert learn.model.from_features==(True,True) and rmse(learn, held)<before+.1
    with quietly(), quiet(learn): learn.fit_als(4, 3, features=False)
    assert learn.model.from_features==(False,False)

def test_validation_leaves_them(learners):
    for fit in of_ratings:
        learn = learners(True, fit)
        before = [e.weight[1:].clone() for es in learn.model.tables for e in es]
        with quietly(): learn.validate()
        for o,e in zip(before, (e for es in learn.model.tables for e in es)): assert torch.equal(o, e.weight[1:])  # row 0 is the mean of all

@pytest.mark.parametrize('fit', [*fits])
def test_settings_name_features(learners, fit):
    table = learners(True, fit).settings()
    assert table.value['features'] and table['from']['features']=="5 of 'user', 12 of 'title'"
    assert not learners(False, fit).settings().value.get('features', False)

@pytest.mark.parametrize('fit', ['fit_als','fit_ials','fit_bias'])
def test_features_is_a_flag(both, fit):
    with pytest.raises(TypeError, match='features=3 must be True or False'): getattr(learner(both[0], DotBias), fit)(features=3)

def test_a_sketch_finds_what_eigenvectors_find(monkeypatch):
    "Of fewer directions than it may keep"
    from fastrec.models import ridge
    rng = torch.Generator().manual_seed(0)
    x = (torch.rand(120, 30, generator=rng)<.2).float()@(torch.rand(30, 80, generator=rng)<.1).float()
    w = torch.rand(120, generator=rng)
    w[-10:] = 0
    rows = x@torch.randn(80, 3, generator=rng)*.1+torch.randn(120, 3, generator=rng)
    want,n_told = FeatureRidge(x.to_sparse(), w).offsets(rows)
    monkeypatch.setattr(ridge, '_most_exact', 20)
    monkeypatch.setattr(ridge, '_most_directions', 60)
    found,told = FeatureRidge(x.to_sparse(), w).offsets(rows)
    torch.testing.assert_close(found, want, atol=2e-3, rtol=1e-2)
    torch.testing.assert_close(told, n_told, atol=.05, rtol=.02)
    assert want.abs().max()>.3

def test_features_of_the_few_count_after_gradients():
    "Films with two ratings each: those rows alone that have few are solved for, and better; what the last epoch has recorded is of the model as it is left"
    ratings,truth = sample_ratings(with_truth=True)
    items = truth.sides()['items']
    of_films = ratings[ratings.title.isin(items.sample(40, random_state=0).index)]
    few = of_films.groupby('title', observed=True).sample(2, random_state=0)
    rest = of_films.drop(few.index)
    early = ratings.drop(rest.index).reset_index(drop=True)
    is_few = early.title.isin(few.title.unique())
    held = early[~is_few].sample(500, random_state=0).index
    def fit(**frames):
        dls = RecDataLoaders.from_df(early, IndexSplitter(held), seed=0, **frames)
        return fitted(dls, lambda o: o.fit_one_cycle(3), metrics=mse)
    alone,told = fit(),fit(items=items)
    errors = [rmse(o, rest) for o in (alone,told)]
    assert errors[1]<.95*errors[0]
    assert told.history.mse.iloc[-1]==pytest.approx(float(told.validate()[1]), rel=1e-5)
    many = (told.dls.train_ds.counts(1)>30).nonzero()[:,0]
    assert len(many)>10
    assert torch.equal(*(o.model.i_weight.weight[many] for o in (alone,told)))
