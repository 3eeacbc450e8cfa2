"""Random frames and random damage: the right answer or a clear error of fastrec's, never anything else. FASTREC_FUZZ says how many cases of each kind, `make fuzz` takes ten thousand"""
import json,os,shutil,tempfile,time,traceback,warnings
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from hypothesis import HealthCheck,given,settings,strategies as st
import fastrec
from conftest import catalogue,quietly
from fastrec.all import BundleError,RecDataLoaders,Seen,dot_learner,load_recommender,nn_learner,sample_ratings
from fastrec.export import _checksum
from fastrec.screens import ByteScreen,HalfScreen,PlainBytes,screen_for

n_cases = int(os.environ.get('FASTREC_FUZZ', 60))
fuzz = lambda share: settings(max_examples=max(int(n_cases*share), 5), deadline=None, database=None, derandomize='FASTREC_FUZZ' not in os.environ, suppress_health_check=list(HealthCheck))
counted = {}

@pytest.fixture(autouse=True, scope='module')
def report():
    start = time.perf_counter()
    yield
    print(f'\n{sum(counted.values()):,} cases in {time.perf_counter()-start:.0f} s: {counted}')

def count(what): counted[what] = counted.get(what, 0)+1

def clear(e):
    "Was the error `e` raised by fastrec itself, with a message?"
    return isinstance(e, (ValueError,KeyError,TypeError)) and str(e) and str(Path(fastrec.__file__).parent) in traceback.extract_tb(e.__traceback__)[-1].filename

# ------------------------------------------------------------------ frames
text = st.text(st.characters(blacklist_categories=('Cs',)), max_size=8)
label_kinds = [st.integers(0, 30), st.integers(-2**63, 2**63-1), st.integers(0, 2**70), text, st.sampled_from(['1','1.0',' 1','NA','nan','None','#na#','']), st.floats(allow_nan=True), st.booleans(), st.none(),
               st.datetimes(min_value=pd.Timestamp('1900-01-01').to_pydatetime(), max_value=pd.Timestamp('2100-01-01').to_pydatetime()), st.tuples(st.integers(0, 3))]
labels = st.one_of(*label_kinds, st.one_of(*label_kinds[:4]))
rating_kinds = [st.sampled_from([1.,2.,3.,4.,5.]), st.sampled_from([1.,5.,None]), st.floats(allow_nan=True, allow_infinity=True, width=32), st.integers(-10, 10), text, st.booleans(), st.just(3.)]

@st.composite
def frames(draw):
    n = draw(st.integers(0, 60))
    column = lambda kind: draw(st.lists(kind, min_size=n, max_size=n))
    user,item = (column(draw(st.sampled_from([*label_kinds[:4], *label_kinds[:4], labels]))) for _ in range(2))
    df = pd.DataFrame({'user': pd.Series(user), 'item': pd.Series(item), 'rating': pd.Series(column(draw(st.sampled_from([rating_kinds[0]]*4+rating_kinds))))})
    for how in draw(st.lists(st.sampled_from(['category','drop','rename','index','twice','order','string']), max_size=2)):
        if how=='category': df = df.astype({draw(st.sampled_from(['user','item'])): 'category'}) if all(c in df and isinstance(df[c], pd.Series) and df[c].map(type).nunique()<2 for c in ('user','item')) else df
        elif how=='drop': df = df.drop(columns=df.columns[:1])
        elif how=='rename': df = df.rename(columns={'item':'title'})
        elif how=='index': df.index = [7]*len(df)
        elif how=='twice': df = pd.concat([df, df.head(5)])
        elif how=='order': df = df[df.columns[::-1]]
        elif how=='string' and 'user' in df and isinstance(df.user, pd.Series): df['user'] = df.user.map(lambda o: f'{o}'.encode('utf-8', 'ignore').decode())
    return df

def check_answers(rec, df):
    "Everything a recommender says of the frame it was trained on holds together"
    pred = rec.predict_df(df, unknown='average')
    assert len(pred)==len(df) and np.isfinite(pred).all() and (rec.model.y_range is None or pred.between(*(rec.model.y_range[0]-1e-3,rec.model.y_range[1]+1e-3)).all())
    users,items = rec.ds.classes.values()
    grid = rec.predict_grid()
    assert grid.shape==(len(users)-1,len(items)-1)
    codes = [torch.from_numpy(v.encode(df[v.name])).long() for v in (users,items)]
    there = (codes[0]>0) & (codes[1]>0)
    assert np.allclose(grid[codes[0][there]-1,codes[1][there]-1].numpy(), pred[there.numpy()], atol=1e-3*max(1, float(pred.abs().max())))
    recs = rec.recommend(n=4)
    pairs = set(zip(*(v.encode(df[v.name]) for v in (users,items))))
    assert not pairs & set(zip(users.encode(recs[users.name]), items.encode(recs[items.name])))
    assert recs.groupby(users.name, observed=True)['rank'].apply(lambda o: (np.diff(o)==1).all()).all()

@fuzz(1)
@given(frames(), st.sampled_from(['dot','nn','fit_bias','fit_als','fit_bayes']), st.integers(0, 3))
def test_random_frames(df, how, seed):
    with quietly(),warnings.catch_warnings(action='ignore'):
        try:
            dls = RecDataLoaders.from_df(df, seed=seed, bs=max(2, min(16, int(len(df)*.6))))
            learn = (nn_learner if how=='nn' else dot_learner)(dls, 3)
            with learn.no_logging(): getattr(learn, how)(**dict(fit_als=dict(n_factors=2, n_sweep=2), fit_bayes=dict(n_factors=2, n_sweep=4), fit_bias={})[how]) if how.startswith('fit') else learn.fit(1)
        except FloatingPointError as e:
            assert 'rating' in str(e) and df.rating.abs().max()>1e3
            return count('frames refused')
        except Exception as e:
            if not clear(e): raise
            return count('frames refused')
        check_answers(learn, df)
        folder = Path(tempfile.mkdtemp())
        try:
            try: learn.save_recommender(folder/'b')
            except ValueError as e:
                if not clear(e): raise
                return count('frames trained on, not saved')
            loaded = load_recommender(folder/'b', 'cpu')
            assert torch.equal(loaded.predict_grid(), learn.predict_grid()) and all(list(a)==list(b) for a,b in zip(loaded.ds.classes.values(), learn.ds.classes.values()))
        finally: shutil.rmtree(folder)
        count('frames trained on')

# ------------------------------------------------------------------ lists
def factors(kind, *shape):
    "Random factors, (n,k)"
    res = torch.randn(shape)
    if kind=='long tail': res *= torch.rand(shape[0], 1)**-.7
    elif kind=='scales': res *= 10**torch.linspace(-3, 3, shape[1])
    elif kind=='sparse': res *= torch.rand(shape)<.1
    elif kind=='crowds': res = res[torch.randint(0, 50, shape[:1])]+.02*torch.randn(shape)
    elif kind=='whole': res = res.round()
    elif kind=='constant': res[:,:1] = 100
    elif kind in ('huge','tiny'): res *= dict(huge=1e6, tiny=1e-12)[kind]
    return res

class PlainScreen(ByteScreen): kernel = PlainBytes

screens = [HalfScreen,PlainScreen,screen_for(torch.device('cpu'))]
kinds = st.sampled_from(['plain','long tail','scales','sparse','crowds','whole','constant','huge','tiny'])

@fuzz(.1)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from([0,1,2,5,16,40,130,700]), st.sampled_from([1,3,10,25]), st.sampled_from(screens), st.booleans())
def test_random_lists(seed, users_are, items_are, k, n, kind, insatiable):
    torch.manual_seed(seed)
    n_users,n_items = 256+seed%400,200*n+6000+seed%3000
    x = torch.stack([torch.randint(1, o+1, (20_000,)) for o in (n_users,n_items)], 1)
    if insatiable: x = torch.cat([x, torch.stack([torch.full((n_items-4,), 3), 1+torch.randperm(n_items)[4:]], 1)])
    rec = catalogue(factors(users_are, n_users, k), factors(items_are, n_items, k), Seen(x, n_users+1, n_items+1, torch.ones(n_items+1, dtype=int)))
    with pytest.MonkeyPatch.context() as p,quietly():
        p.setattr('fastrec.screens.screen_for', lambda device: kind)
        got = rec.recommend(n=n)
    with torch.no_grad(): u,i = (f(torch.arange(1, o+1)).double() for f,o in ((rec.model.user_side,n_users),(rec.model.item_side,n_items)))
    scores,(row,col) = u@i.T,rec.seen.of(torch.arange(1, n_users+1))
    scores[row,col-1] = -torch.inf
    best,row,col = scores.topk(n)[0],*(torch.tensor(got[o].to_numpy()) for o in ('user','item'))
    best = best[best>-torch.inf]
    assert len(best)==len(row) and ((best-scores[row,col]).abs() <= 3e-6*i.norm(dim=1).max()*u.norm(dim=1)[row]).all()
    count('catalogues')

# ------------------------------------------------------------------ damaged folders
@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    res = []
    for k,make in enumerate((lambda d: dot_learner(d, 3), lambda d: nn_learner(d, 3, [4]), lambda d: dot_learner(d, 3))):
        learn = make(RecDataLoaders.from_df(sample_ratings(n_users=20, n_items=15, n_ratings=150, seed=k), seed=k, bs=32, time_name='timestamp'))
        with quietly(),learn.no_logging(): learn.fit_bayes(2, 4, time='100D') if k==2 else learn.fit(1)
        res.append(learn.save_recommender(tmp_path_factory.mktemp('b')/'b'))
    return [(o,load_recommender(o, 'cpu').predict_grid()) for o in res]

@st.composite
def damages(draw):
    what = draw(st.sampled_from(['flip','cut','grow','swap','fill','header']))
    return what,draw(st.integers(0, 2)),draw(st.floats(0, 1, exclude_max=True)),draw(st.integers(0, 7)),draw(st.binary(min_size=1, max_size=40))

def apply(folder, others, damage):
    "Do `damage` to a file of `folder`; returns whether anything has changed"
    what,k,where,bit,extra = damage
    file = sorted(o for o in folder.iterdir())[k%len(list(folder.iterdir()))]
    data,before = bytearray(file.read_bytes()),file.read_bytes()
    at = int(where*len(data))
    if what=='flip' and data: data[at] ^= 1<<bit
    elif what=='cut': del data[at:]
    elif what=='grow': data[at:at] = extra
    elif what=='fill': data[at:at+len(extra)] = bytes(len(extra))
    elif what=='header': data[:8] = (int(where*2**63)).to_bytes(8, 'little')
    elif what=='swap': data = bytearray(sorted(others.iterdir())[k%len(list(others.iterdir()))].read_bytes())
    file.write_bytes(data)
    return bytes(data)!=before

@fuzz(1.5)
@given(st.integers(0, 2), st.lists(damages(), min_size=1, max_size=2))
def test_random_damage(bundles, k, damage):
    (source,grid),(other,_) = bundles[k],bundles[(k+1)%3]
    folder = Path(tempfile.mkdtemp())/'b'
    try:
        shutil.copytree(source, folder)
        changed = [apply(folder, other, d) for d in damage]
        start = time.perf_counter()
        try: got = load_recommender(folder, 'cpu').predict_grid()
        except (BundleError,FileNotFoundError): count('damaged folders refused')
        else:
            assert torch.equal(got, grid), 'a damaged folder was loaded with other answers'
            count('damaged folders whole again')
        assert time.perf_counter()-start<10
    finally: shutil.rmtree(folder.parent)

# ------------------------------------------------------------------ forged manifests
values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**70, 2**70), st.floats(), text, st.sampled_from(['dot','net','mean','int64','text','../x','user'])), lambda o: st.lists(o, max_size=3)|st.dictionaries(text, o, max_size=3), max_leaves=5)

def places(o, path=()):
    "Every place within a manifest"
    if path: yield path
    for k in (o if isinstance(o, dict) else range(len(o)) if isinstance(o, list) else ()): yield from places(o[k], (*path,k))

@fuzz(1.5)
@given(st.integers(0, 2), st.data())
def test_forged_manifests(bundles, k, data):
    "With the right checksum whatever is written there: a model that answers, or a clear error"
    folder = Path(tempfile.mkdtemp())/'b'
    try:
        shutil.copytree(bundles[k][0], folder)
        m = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
        *path,last = data.draw(st.sampled_from(sorted(places(m), key=str)))
        spot = m
        for o in path: spot = spot[o]
        if data.draw(st.booleans()) or not isinstance(spot, dict): spot[last] = data.draw(values)
        else: del spot[last]
        (folder/'manifest.json').write_text(json.dumps({**m, 'checksum': _checksum(m)}), encoding='utf-8')
        start = time.perf_counter()
        try: rec = load_recommender(folder, 'cpu')
        except (BundleError,FileNotFoundError): count('forged manifests refused')
        else:
            assert rec.predict_grid().shape==bundles[k][1].shape and len(rec.recommend(n=2, exclude_seen=rec.seen is not None)) and rec.predict(*(v.labels[0] for v in rec.ds.classes.values())) is not None
            count('forged manifests answered')
        assert time.perf_counter()-start<10
    finally: shutil.rmtree(folder.parent)
