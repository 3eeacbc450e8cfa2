"""Defaults on data of other units and shapes than MovieLens'"""
import numpy as np,pandas as pd,pytest,torch
from fastrec.all import RecDataLoaders,learner,sample_ratings

fits = dict(bias=lambda l: l.fit_bias(), als=lambda l: l.fit_als(8), bayes=lambda l: l.fit_bayes(8, 30), cycle=lambda l: l.fit_one_cycle(3))

def fitted(df, how, seed=1, **kwargs):
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.1, seed=seed), **kwargs)
    with learn.no_bar(),learn.no_logging(): fits[how](learn)
    return learn

def rmse(learn): return float(learn.history.rmse.iloc[-1])

@pytest.mark.parametrize('scale,shift', [(10,0), (1,3), (-1,6), (.01,0)], ids=['times ten','plus three','mirrored','a hundredth'])
@pytest.mark.parametrize('how', fits)
def test_another_unit_gives_the_same_fit(how, scale, shift):
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    want = rmse(fitted(df, how))
    got = rmse(fitted(df.assign(rating=df.rating*scale+shift), how))
    other_draws = how=='bayes' and scale<0
    assert abs(got/abs(scale)/want-1)<(.03 if other_draws else .002)

def planted(seed, taste, n_users=600, n_items=300, n=12_000):
    "Ratings on a scale from -10 to 10 with biases, and `taste` of one factor"
    rng = np.random.default_rng(seed)
    keys = rng.choice(n_users*n_items, n, replace=False)
    u,i = np.divmod(keys, n_items)
    p,q,b_u,b_i = rng.normal(size=n_users),rng.normal(size=n_items),rng.normal(0, 2, n_users),rng.normal(0, 2, n_items)
    y = b_u[u]+b_i[i]+taste*p[u]*q[i]+rng.normal(0, 4, n)
    return pd.DataFrame(dict(user=u, title=np.char.add('f', i.astype(str)), rating=y.clip(-10, 10).astype('float32')))

@pytest.mark.parametrize('how', ['als','bayes'])
def test_without_taste_no_worse_than_biases(how):
    ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in (planted(s, 0) for s in range(3))]
    assert np.mean(ratios)<=1.003

@pytest.mark.parametrize('how', ['als','bayes'])
def test_taste_is_found(how):
    ratios = [rmse(fitted(df, how))/rmse(fitted(df, 'bias')) for df in (planted(s, 3) for s in range(3))]
    assert np.mean(ratios)<=.95

def test_als_goes_on():
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    learn = fitted(df, 'als')
    with learn.no_bar(),learn.no_logging(): learn.fit_als(8, 2)
    assert abs(learn.history.train_loss.iloc[0]/learn.history.train_loss.iloc[-1]-1)<.02

def test_als_penalty_by_hand():
    df = sample_ratings(n_users=300, n_items=150, n_ratings=8000)
    learn = learner(RecDataLoaders.from_df(df, seed=1))
    with pytest.raises(ValueError, match='pass reg too'): learn.fit_als(power=1)
    with learn.no_bar(),learn.no_logging():
        learn.fit_als(8, reg=1e6)
        assert learn.model.u_weight.weight.abs().max()<1e-3

@pytest.mark.parametrize('n_factors', [0,1,40])
def test_als_of_few_rows(n_factors):
    "Fewer users and items than factors"
    df = pd.DataFrame(dict(user=[1,1,2,3,3], title=list('abacb'), rating=[1.,2,3,4,5]))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.2, seed=0), n_factors=4, y_range=(.5,5.5))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(n_factors)
    assert learn.predict_grid().isfinite().all()

@pytest.mark.parametrize('how', ['als','bayes','bias'])
def test_ratings_that_are_all_the_same(how):
    df = sample_ratings(n_users=50, n_items=30, n_ratings=400).assign(rating=4.)
    with pytest.warns(UserWarning, match='all ratings'): learn = fitted(df, how)
    assert torch.allclose(learn.predict_grid(), torch.tensor(4.), atol=1e-3)
