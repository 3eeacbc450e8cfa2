"""What is done by parts, so that many ratings have room, gives what it would at once"""
import random
import numpy as np,pandas as pd,pytest,torch
from fastrec.all import RecDataLoaders,dot_learner,sample_ratings
from fastrec.base.compiled import can_compile
from fastrec.evaluate import evaluation
from fastrec.fit import als,doubts
from fastrec.fit.equations import Equations
from fastrec.fit.mixing import held_out_rows

@pytest.fixture
def often():
    "Ratings of few users and items, whose pairs repeat"
    rng = np.random.default_rng(3)
    return pd.DataFrame(dict(user=rng.integers(0, 60, 3000), item=rng.integers(0, 40, 3000), rating=rng.integers(1, 6, 3000)*1.))

@pytest.mark.filterwarnings('ignore:.*of the rows repeat')
def test_rows_to_hold_out_are_all_rows_of_the_pairs_that_are_drawn(often):
    ds = RecDataLoaders.from_df(often, seed=0).train_ds
    pairs = [tuple(o) for o in ds.x.tolist()]
    for seed in range(3):
        drawn = {pairs[k] for k in random.Random(seed).sample(range(len(ds)), 100)}
        held = held_out_rows(ds, 100, seed).tolist()
        found = {pairs[k] for k in held}
        assert found<=drawn and held==[k for k,o in enumerate(pairs) if o in found]
        assert 75<len(held)<=100<sum(o in drawn for o in pairs)  # as many rows as were asked for, whose pairs are fewer

@pytest.mark.skipif(not can_compile(), reason='numba is an extra')
@pytest.mark.parametrize('weighed', [False,True])
def test_als_by_tiles_is_als_by_products(weighed, monkeypatch):
    df = sample_ratings(n_users=150, n_items=80, n_ratings=4000)
    names = {}
    if weighed:
        df = df.assign(w=np.random.default_rng(0).random(len(df))+.5)
        names = dict(weight_name='w')
    def fitted():
        learn = dot_learner(RecDataLoaders.from_df(df, seed=0, **names))
        with learn.no_logging(): learn.fit_als(17, 6, tol=0)  # 171 numbers of a triangle: two tiles
        return learn
    loops = fitted()
    monkeypatch.setattr(als, 'equations_for', Equations)
    products = fitted()
    assert np.allclose(loops.history.train_loss, products.history.train_loss, rtol=1e-4)
    assert np.allclose(loops.predict_df(df), products.predict_df(df), atol=2e-3)

def test_doubts_by_parts(monkeypatch):
    e = torch.from_numpy(np.random.default_rng(0).standard_t(5, 1000))
    w = torch.rand(1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for own in (torch.ones_like(w),w):
        want = float((own@e**4/own.sum())/(own@e**2/own.sum())**2)
        for n in (1000,64,1): assert float(doubts._kurtosis(zip(e.split(n), own.split(n))))==pytest.approx(want)

@pytest.mark.filterwarnings('ignore:.*of the rows repeat')
@pytest.mark.parametrize('n', [1,7,2**13])
def test_raters_of_items_by_blocks_of_users(often, n, monkeypatch):
    learn = dot_learner(RecDataLoaders.from_df(often, seed=0))
    monkeypatch.setattr(evaluation, '_users_at_once', n)
    held = learn.dls.valid_ds
    rec,_ = evaluation._as_trained(learn, held.x)
    x = learn.dls.train_ds.x.tolist()
    want = [len({u for u,i in x if i==k}) for k in range(len(learn.dls.classes['item']))]
    assert evaluation._raters(rec).tolist()==want
