"""Metrics against scikit-learn and by hand; evaluation against the recommendations themselves; cross-validation"""
import numpy as np,pandas as pd,pytest,torch
from sklearn.metrics import average_precision_score,ndcg_score
from fastrec.all import (RecDataLoaders,coverage,cross_validate,dot_learner,hit_rate_at_k,k_folds,learner,load_learner,map_at_k,mrr_at_k,ndcg_at_k,novelty,
                         precision_at_k,recall_at_k,sample_ratings,TimeSplitter,train_test,UserSplitter)

@pytest.fixture(scope='module')
def lists():
    "Random scores and relevance of 50 users and 30 items, and the hits and counts they give for lists of any length"
    rng = np.random.default_rng(0)
    scores,relevant = rng.random((50,30)),rng.random((50,30))<.2
    relevant[:,0] = True
    order = np.argsort(-scores, 1)
    return scores,relevant,torch.from_numpy(np.take_along_axis(relevant, order, 1)),torch.from_numpy(relevant.sum(1))

@pytest.mark.parametrize('k', [1,5,10,30])
def test_ndcg_as_scikit_learn(lists, k):
    scores,relevant,hits,n = lists
    assert ndcg_at_k(hits[:,:k], n).mean().item()==pytest.approx(ndcg_score(relevant, scores, k=k), abs=1e-6)

def test_map_as_scikit_learn(lists):
    scores,relevant,hits,n = lists
    want = [average_precision_score(r, s) for r,s in zip(relevant, scores)]
    assert np.allclose(map_at_k(hits, n), want, atol=1e-6)

@pytest.mark.parametrize('k', [1,5,30])
def test_the_rest_in_plain_python(lists, k):
    _,_,hits,n = lists
    for h,m,p,r,hr,mrr in zip(hits[:,:k].tolist(), n.tolist(), *(f(hits[:,:k], n).tolist() for f in (precision_at_k,recall_at_k,hit_rate_at_k,mrr_at_k))):
        assert (p,r,hr)==pytest.approx((sum(h)/k,sum(h)/m,float(any(h))), abs=1e-6)
        assert mrr==pytest.approx(1/(h.index(True)+1) if any(h) else 0, abs=1e-6)

def test_lists_of_everybody():
    assert coverage(torch.tensor([[0,1],[1,1]]), 4)==.5
    assert novelty(torch.tensor([0,1]), torch.tensor([8,2]), 8)==pytest.approx(1.)

@pytest.fixture(scope='module')
def fitted():
    ratings = sample_ratings(n_users=200, n_items=120, n_ratings=8000)
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1))
    with learn.no_logging(): learn.fit_als()
    return ratings,learn

@pytest.mark.parametrize('min_rating', [None,4])
def test_evaluate_by_frames(fitted, min_rating):
    "The same numbers from grids and frames"
    _,learn = fitted
    ds,train = learn.dls.valid_ds,learn.dls.train_ds
    held,own = ds.decode(ds.x, ds.y),train.decode(train.x)
    got = learn.evaluate(k=5, min_rating=min_rating)
    held = held[held.title!='#na#']
    grid = pd.DataFrame(learn.predict_grid().numpy(), learn.dls.classes['user'].labels, learn.dls.classes['title'].labels)
    score = learn.model.score(*(f(torch.arange(1, len(v))) for f,v in zip((learn.model.user_side,learn.model.item_side), learn.dls.classes.values()))).detach()
    grid[:] = score.numpy()
    for u,t in own.itertuples(index=False): grid.loc[u,t] = -np.inf
    relevant = held if min_rating is None else held[held.rating>=min_rating]
    ndcg,recall = [],[]
    for u,g in relevant.groupby('user'):
        top,true = grid.loc[u].sort_values(ascending=False, kind='stable').index[:5],set(g.title)
        gains = [(t in true)/np.log2(r+2) for r,t in enumerate(top)]
        ndcg.append(sum(gains)/sum(1/np.log2(r+2) for r in range(min(5, len(true)))))
        recall.append(len(true & set(top))/len(true))
    assert got.ndcg_at_5['model']==pytest.approx(np.mean(ndcg), abs=1e-5) and got.recall_at_5['model']==pytest.approx(np.mean(recall), abs=1e-5)
    pred = learn.predict_df(held)
    assert got.rmse['model']==pytest.approx(np.sqrt(((pred-held.rating)**2).mean()), abs=2e-3)

def test_popularity_row(fitted):
    _,learn = fitted
    got = learn.evaluate(k=3).loc['popularity']
    assert got.coverage<.2 and np.isnan(got.rmse) and got.novelty<learn.evaluate(k=3).novelty['model']

def test_evaluate_another_frame(fitted):
    ratings,learn = fitted
    new = ratings.head(50).assign(user=lambda d: d.user.where(d.index>0, 10**9))
    with pytest.warns(UserWarning, match='1 of 50 rows: 1 unknown in .user.'): got = learn.evaluate(new, exclude_seen=False)
    assert np.isfinite(got.loc['model']).all()

def test_choices_have_no_rmse(fitted):
    _,learn = fitted
    chosen = dot_learner(learn.dls)
    with chosen.no_logging(): chosen.fit_ials(8, 8)
    got = chosen.evaluate()
    assert np.isnan(got.rmse['model']) and got.ndcg_at_10['model']>0

@pytest.mark.parametrize('call,error', [(lambda l: l.evaluate(k=0), 'k=0'), (lambda l: l.evaluate(min_rating=9), 'reaches min_rating=9'),
                                        (lambda l: l.evaluate(l.dls.train_ds.decode(l.dls.train_ds.x[:0], l.dls.train_ds.y[:0])), 'no held-out ratings')])
def test_bad_evaluations(fitted, call, error):
    with pytest.raises(ValueError, match=error): call(fitted[1])

def test_loaded_learners_say_why(fitted, tmp_path):
    ratings,learn = fitted
    learn.path = tmp_path
    learn.export('l.pkl')
    with pytest.raises(ValueError, match='before it is exported'): load_learner(tmp_path/'l.pkl').evaluate(ratings)

def test_folds_test_on_each_row_once():
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=1000)
    folds = k_folds(ratings, 4, seed=1)
    tested = pd.concat([b for _,b in folds.values()])
    assert len(folds)==4 and len(tested)==1000 and tested.sort_values(['user','item']).reset_index(drop=True).equals(ratings.sort_values(['user','item']).reset_index(drop=True))
    for a,b in folds.values(): assert len(a)+len(b)==1000 and len(a.merge(b, on=['user','item']))==0
    with pytest.raises(ValueError, match='n=1'): k_folds(ratings, 1)

def test_cross_validate():
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=2000)
    def fit(dls):
        learn = dot_learner(dls)
        with learn.no_logging(): learn.fit_bias()
        return learn
    df = cross_validate(fit, {'random': k_folds(ratings, 2)['fold 1'], 'time': train_test(ratings, TimeSplitter(.3))}, bs=64)
    assert df.index.tolist()==['random','time','mean','std'] and df.rmse['mean']==pytest.approx(df.rmse[:2].mean())
    with pytest.raises(TypeError, match='must return the fitted RecLearner'): cross_validate(lambda dls: None, [train_test(ratings, TimeSplitter(.3))], bs=64)

def test_new_users_are_predicted_but_not_listed():
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=2000)
    learn = learner(RecDataLoaders.from_df(ratings, UserSplitter(.2, seed=0), bs=64))
    with learn.no_logging(): learn.fit(1)
    with pytest.raises(ValueError, match='no held-out rating of a known user'): learn.evaluate()
