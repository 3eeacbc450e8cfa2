"""Metrics against scikit-learn and by hand; evaluation against the recommendations themselves; cross-validation"""
import json,math,subprocess,sys,warnings
import numpy as np,pandas as pd,pytest,torch
from safetensors.torch import load_file
from sklearn.metrics import average_precision_score,ndcg_score
from fastai.callback.tracker import SaveModelCallback
from fastrec.all import (BundleError,PosteriorMean,RecDataLoaders,SeededSplitter,coverage,cross_validate,dot_learner,hit_rate_at_k,k_folds,learner,list_metrics,load_learner,load_recommender,
                         map_at_k,mrr_at_k,ndcg_at_k,nn_learner,novelty,precision_at_k,recall_at_k,rmse,sample_ratings,TimeSplitter,train_test,UserSplitter)
from fastrec.export.files import checksum,write_tensors

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
    assert got.coverage<.3 and np.isnan(got.rmse) and got.novelty<learn.evaluate(k=3).novelty['model']

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
    folds = {'random': k_folds(ratings, 2)['fold 1'], 'time': train_test(ratings, TimeSplitter(.3))}
    df = cross_validate(fit, folds, bs=64)
    assert df.index.tolist()==['random','time','mean','std'] and df.rmse['mean']==pytest.approx(df.rmse[:2].mean())
    for name,(train,test) in folds.items():
        with warnings.catch_warnings(action='ignore'): alone = learner(RecDataLoaders.from_df(train, valid_pct=0)).evaluate(test)
        assert df['ndcg_at_10 of popularity'][name]==pytest.approx(alone.ndcg_at_10['popularity'], abs=1e-6)
    assert {*cross_validate(fit, folds, k=5, bs=64)}>={'ndcg_at_5','ndcg_at_5 of popularity'}
    with pytest.raises(TypeError, match='must return the fitted RecLearner'): cross_validate(lambda dls: None, [train_test(ratings, TimeSplitter(.3))], bs=64)

def test_new_users_are_predicted_but_not_listed():
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=2000)
    learn = learner(RecDataLoaders.from_df(ratings, UserSplitter(.2, seed=0), bs=64))
    with learn.no_logging(): learn.fit(1)
    with pytest.raises(ValueError, match='no held-out rating of a known user'): learn.evaluate()

# ------------------------------------------------------------------ against a slow reference
def ref_lists(score, labels, n_users, train, held, k, min_rating, exclude, alike):
    "Metrics of lists in plain Python; `score` of (user, item) pairs of labels, `train` and `held` lists of (user, item, rating), `alike` of items"
    users,items = labels
    seen,raters = {},{i: set() for i in items}
    for u,i,_ in train:
        seen.setdefault(u, set()).add(i)
        raters[i].add(u)
    truth = {}
    for u,i,r in held:
        if u not in users or (min_rating is not None and r<min_rating): continue
        if i not in truth.setdefault(u, []) and not (exclude and i in seen.get(u, ())): truth[u].append(i)  # of what is unknown, nobody finds it
    truth = {u: o for u,o in truth.items() if o}
    rows,shown,unlike = [],[],[]
    top = sorted(items, key=lambda i: -len(raters[i]))[:max(round(len(items)/100), 1)]
    for u,true in truth.items():
        order = sorted((i for i in items if not (exclude and i in seen.get(u, ()))), key=lambda i: (-score[u,i],items.index(i)))[:k]
        hits,m = [i in true for i in order],len(true)
        ap = sum(sum(hits[:j+1])/(j+1) for j,h in enumerate(hits) if h)/min(k, m)
        dcg = sum(h/math.log2(j+2) for j,h in enumerate(hits))/sum(1/math.log2(j+2) for j in range(min(k, m)))
        rows.append((sum(hits)/k, sum(hits)/m, dcg, ap, 1/(hits.index(True)+1) if any(hits) else 0., float(any(hits))))
        shown += order
        pairs = [1-alike(i, j) for a,i in enumerate(order) for j in order[:a]]
        if pairs: unlike.append(np.mean(pairs))
    if not rows: return None
    beyond = [np.mean(o) if o else np.nan for o in ([-math.log2(max(len(raters[i]), 1)/n_users) for i in shown], [i in top for i in shown], unlike)]
    return [*np.mean(rows, 0), len(set(shown))/len(items), *beyond]

def little(rng):
    "Random rows of few users and films, pairs repeated, some held-out ones of strangers; and a model fitted to the training part"
    def rows(n, users, items): return [(int(rng.integers(users)), int(rng.integers(items)), float(rng.integers(1, 6))) for _ in range(n)]
    n_users,n_items = int(rng.integers(2, 7)),int(rng.integers(2, 9))
    train,held = rows(int(rng.integers(6, 40)), n_users, n_items),rows(int(rng.integers(1, 25)), n_users+1, n_items+1)
    df = pd.DataFrame(train+held, columns=['user','item','rating'])
    dls = RecDataLoaders.from_df(df, lambda _: (np.arange(len(train)),np.arange(len(train), len(df))), bs=4)
    learn = dot_learner(dls, n_factors=2, y_range=False)
    return train,held,learn

@pytest.mark.parametrize('seed', [*range(16), *(pytest.param(o, marks=pytest.mark.long) for o in range(16, 40))])
def test_evaluate_as_plain_python(seed, tmp_path):
    "Repeated pairs, ties, strangers, fewer films than k, with and without what was seen; the learner and what it was saved as"
    rng = np.random.default_rng(seed)
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        train,held,learn = little(rng)
        with learn.no_logging(): learn.fit_ials(2, 3) if seed%4==3 else learn.fit_als(2, 3)
        users,items = labels = [list(v.labels) for v in learn.dls.classes.values()]
        loaded,frame = load_recommender(learn.save_recommender(tmp_path), 'cpu'),pd.DataFrame(held, columns=['user','item','rating'])
        m,counts = learn.model,pd.Series([i for _,i,_ in train]).value_counts()
        grid = m.score(m.user_side(torch.arange(1, len(users)+1)), m.item_side(torch.arange(1, len(items)+1))).detach()
        scores = dict(model={(u,i): float(grid[a,b]) for a,u in enumerate(users) for b,i in enumerate(items)}, popularity={(u,i): counts[i] for u in users for i in items})
        factors = dict(zip(items, m.item_factors.double().numpy()))
        def alike(i, j): return factors[i]@factors[j]/max(np.linalg.norm(factors[i])*np.linalg.norm(factors[j]), 1e-12)
        for k,min_rating,exclude in ((1,None,True),(3,None,True),(3,4,True),(30,None,False),(5,2,False),(30,None,True)):
            want = {n: ref_lists(o, labels, len(users), train, held, k, min_rating, exclude, alike) for n,o in scores.items()}
            try: got = learn.evaluate(None, k, min_rating, exclude)
            except ValueError as e:
                assert any(o in str(e) for o in ('of a known user','was in training too')) and want['model'] is None
                continue
            for n in scores: np.testing.assert_allclose(got.loc[n].iloc[2:].astype(float), want[n], atol=2e-5)
            for o in (learn.evaluate(frame, k, min_rating, exclude),loaded.evaluate(frame, k, min_rating, exclude)): assert o.equals(got)

def test_metrics_of_who_has_nothing_to_find():
    hits,n = torch.zeros(1, 3, dtype=torch.bool),torch.tensor([0])
    assert all(f(hits, n).isnan().all() for f in (recall_at_k,map_at_k,ndcg_at_k)) and precision_at_k(hits, n)==hit_rate_at_k(hits, n)==mrr_at_k(hits, n)==0

# ------------------------------------------------------------------ what counts as found
def asked(held, train=None, **kwargs):
    "`evaluate` of the rows `held` by a model that likes film 3 best, then 2, 1, 0; Ann and Bob have rated 0"
    train = train or [(u,i,3.) for u in ('ann','bob') for i in (0,)] + [('cyd',i,3.) for i in range(4)]
    df = pd.DataFrame(train+held, columns=['user','item','rating'])
    dls = RecDataLoaders.from_df(df, lambda _: (np.arange(len(train)),np.arange(len(train), len(df))), bs=2)
    learn = dot_learner(dls, n_factors=1, y_range=(0,6))
    with torch.no_grad():
        for e in (learn.model.u_weight,learn.model.u_bias): e.weight.zero_()
        learn.model.i_bias.weight[:,0] = torch.arange(5.)
    return learn.evaluate(**kwargs)

def test_a_pair_counts_once():
    got = asked([('ann',3,5.)]*3, k=1).loc['model']
    assert got.recall_at_1==got.ndcg_at_1==got.map_at_1==got.precision_at_1==1
    assert asked([('ann',3,5.)]*3+[('ann',2,4.)], k=3).loc['model'].recall_at_3==1
    assert asked([('ann',3,5.)]*3).attrs['counted']['repeated']==2

def test_a_pair_of_an_unknown_film_counts_once_too():
    "In the loaders' rows of validation, in a frame, and in the metrics of an epoch"
    with pytest.warns(UserWarning, match='5 of items'): got = asked([('ann',3,5.)]+[('ann',8,5.)]*3+[('ann',9,4.)]*2, k=1)
    assert got.recall_at_1['model']==pytest.approx(1/3) and got.attrs['counted']['relevant']==3
    ratings = sample_ratings(n_users=60, n_items=40, n_ratings=2000).drop(columns='item').astype({'title': str})
    old,held = ratings[ratings.title!=ratings.title[0]],ratings.iloc[::5]
    held = held.assign(weight=1., title=held.title.where(held.index%2==0, held.title+' anew'))
    train = old.drop(held.index, errors='ignore').assign(weight=1.)
    found = []
    for rows in (held,pd.concat([held]*3),pd.concat([held,held.assign(weight=0.)])):
        both = pd.concat([train,rows], ignore_index=True)
        with warnings.catch_warnings(action='ignore'):
            learn = learner(RecDataLoaders.from_df(both, lambda _: (np.arange(len(train)),np.arange(len(train), len(both))), weight_name='weight', seed=0, device='cpu'))
        with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
            learn.fit_ials(8, 4)
            found += [learn.evaluate(),learn.evaluate(rows)]
            assert learn.list_measures(learn.dls.valid_ds)[0]['ndcg_at_10']==found[-1].ndcg_at_10['model']
    for o in found[1:]: pd.testing.assert_frame_equal(o, found[0], rtol=1e-6)
    with warnings.catch_warnings(action='ignore'):
        low,high = (learn.evaluate(o, min_rating=2) for o in (pd.concat([held.assign(rating=1.),held]),held))
    assert low.attrs['counted']['relevant']==high.attrs['counted']['relevant']

def test_a_pair_is_relevant_if_any_row_is():
    with pytest.warns(UserWarning, match='1 held-out pairs have rows on both sides of min_rating=4'): got = asked([('ann',3,5.),('ann',3,1.),('ann',2,1.)], k=1, min_rating=4)
    assert got.recall_at_1['model']==1

def test_pairs_of_training_are_told_and_do_not_count():
    with pytest.warns(UserWarning, match='1 relevant held-out pairs were in training too'): got = asked([('ann',3,5.),('ann',0,5.)], k=1)
    assert got.recall_at_1['model']==1 and got.attrs['counted']['in_training']==1
    assert asked([('ann',3,5.),('ann',0,5.)], k=1, exclude_seen=False).recall_at_1['model']==.5
    with pytest.raises(ValueError, match='in training too'): asked([('ann',0,5.)])

def test_strangers_are_told_and_counted():
    with pytest.warns(UserWarning, match='among 3 held-out rows are 1 of users .* and 1 of items that were not, .* lists are those of 1 users'): got = asked([('ann',3,5.),('ann',9,5.),('zoe',3,5.)], k=1)
    assert got.recall_at_1['model']==.5 and got.attrs['counted']['users_listed']==1

def test_users_with_nothing_to_find_are_told():
    with pytest.warns(UserWarning, match='lists are judged for 1 of 2 users'): got = asked([('ann',3,5.),('bob',3,1.)], k=1, min_rating=4)
    assert got.recall_at_1['model']==1

def test_lists_of_who_has_seen_nearly_all():
    "Screens fill up lists that run out of items"
    dls = RecDataLoaders.from_df(pd.DataFrame(dict(user=1, title=range(2000), rating=1)), seed=0)
    learn = learner(dls)
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
        learn.fit_ials()
        assert learn.evaluate().ndcg_at_10['model']==0  # what is held out is not known here

def test_lists_longer_than_the_catalogue():
    got = asked([('ann',3,5.)], k=10**9).loc['model']
    assert got['recall_at_1000000000']==1 and got['precision_at_1000000000']==pytest.approx(1e-9)

def test_novelty_counts_users_not_rows():
    got = asked([('ann',3,5.)], [('ann',0,3.)]*8+[('bob',i,3.) for i in range(4)], k=1, exclude_seen=False)
    assert got.novelty['popularity']==0 and got.novelty['model']==1

def test_another_scale_is_told(fitted):
    ratings,learn = fitted
    held = ratings.head(40)
    for scaled in (held.rating*20, held.rating/5, (held.rating>3)*1):
        with pytest.warns(UserWarning, match='are they on the same scale'): learn.evaluate(held.assign(rating=scaled), exclude_seen=False)
    assert learn.evaluate(held, exclude_seen=False).rmse.notna()['model']

@pytest.mark.parametrize('kwargs,error', [(dict(k=2.5), 'k=2.5 must be a whole number'), (dict(min_rating='4'), "min_rating='4' must be a number"), (dict(min_rating=5.5), 'reaches min_rating=5.5; the highest is 5')])
def test_bad_arguments(fitted, kwargs, error):
    with pytest.raises((TypeError,ValueError), match=error): fitted[1].evaluate(**kwargs)

# ------------------------------------------------------------------ saved recommenders
@pytest.mark.parametrize('how', ['fit_als','fit_ials','fit_one_cycle','fit_bayes','nn'])
def test_a_saved_recommender_evaluates_to_the_last_bit(how, tmp_path):
    ratings = sample_ratings(n_users=80, n_items=50, n_ratings=2500)
    valid = ratings.iloc[SeededSplitter(.2, 1)(ratings)[1]]
    learn = (nn_learner if how=='nn' else dot_learner)(RecDataLoaders.from_df(ratings, seed=1, bs=64, time_name='timestamp'), n_factors=4)
    with learn.no_logging(): learn.fit_bayes(4, 12, time='30D') if how=='fit_bayes' else learn.fit(1) if how=='nn' else getattr(learn, how)(2)
    loaded = load_recommender(learn.save_recommender(tmp_path/'a'), 'cpu')
    again = load_recommender(loaded.save_recommender(tmp_path/'b'), 'cpu')
    for kwargs in (dict(), dict(k=3, min_rating=4), dict(exclude_seen=False)):
        want = learn.evaluate(**kwargs)
        with warnings.catch_warnings(action='ignore'):  # a user is unknown
            for o in (learn,loaded,again): assert o.evaluate(valid, **kwargs).equals(want)
    assert want.novelty.notna().all() and want.rmse.notna()['model']==(how!='fit_ials')
    with pytest.raises(ValueError, match='pass a frame'): loaded.evaluate()

def test_a_recommender_without_what_was_seen(fitted, tmp_path):
    _,learn = fitted
    valid = learn.dls.valid_ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    loaded = load_recommender(learn.save_recommender(tmp_path, seen=False), 'cpu')
    with pytest.raises(ValueError, match='exclude_seen=False'): loaded.evaluate(valid)
    ds = learn.dls.train_ds
    assert loaded.evaluate(valid, exclude_seen=ds.decode(ds.x)).equals(learn.evaluate(valid))

def test_bundles_of_the_first_version(fitted, tmp_path):
    "What they don't say is told; the held-out rows, which they hold as seen, are not left out"
    _,learn = fitted
    valid = learn.dls.valid_ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    folder = learn.save_recommender(tmp_path)
    as_first_version(folder)
    loaded = load_recommender(folder, 'cpu')
    with pytest.warns(UserWarning, match='held-out pairs among them count as not seen'): got = loaded.evaluate(valid)
    assert got.equals(learn.evaluate(valid))

def as_first_version(folder):
    "Take out of a saved recommender what fastrec 0.1.0 did not keep"
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    manifest['model'].pop('ials', None)
    del manifest['rating_range']
    name = next(o for o in manifest['files'] if o.startswith('seen'))
    tensors = load_file(folder/name)
    manifest['files'][name] = write_tensors(folder, name, {k: tensors[k].clone() for k in ('items','offsets')})
    (folder/'manifest.json').write_text(json.dumps({**manifest, 'checksum': checksum(manifest)}), encoding='utf-8')

@pytest.mark.parametrize('change', [dict(rating_range=[5,1]), dict(rating_range='x'), dict(rating_range=[1]), dict(model=dict(ials=dict(alpha0=.5))),
                                    dict(model=dict(ials=dict(alpha0=-1., reg=.1, power=1.))), dict(model=dict(ials=[1,2,3]))])
def test_damaged_entries_are_named(fitted, tmp_path, change):
    folder = fitted[1].save_recommender(tmp_path)
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    manifest['model'].update(change.pop('model', {}))
    manifest.update(change)
    (folder/'manifest.json').write_text(json.dumps({**manifest, 'checksum': checksum(manifest)}), encoding='utf-8')
    with pytest.raises(BundleError, match='no valid (rating_range|model.ials)'): load_recommender(folder)

def test_evaluate_without_fastai(fitted, tmp_path):
    _,learn = fitted
    valid = learn.dls.valid_ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    valid.astype(dict(title='str')).to_csv(tmp_path/'valid.csv', index=False)
    folder = learn.save_recommender(tmp_path/'b')
    code = (f"import sys,fastrec,pandas as pd; r = fastrec.load_recommender({str(folder)!r}, 'cpu'); print(repr(float(r.evaluate(pd.read_csv({str(tmp_path/'valid.csv')!r})).rmse.iloc[0])));"
            "print(sorted({m.split('.')[0] for m in sys.modules} & {'fastai','torchvision','sklearn','scipy','matplotlib','IPython','fastprogress'}))")
    got = subprocess.check_output([sys.executable, '-W', 'ignore', '-c', code], text=True).split('\n')
    assert got[:2]==[repr(float(learn.evaluate(valid).rmse.iloc[0])),'[]']

def test_new_users_are_judged_on_the_scale_of_training(fitted):
    "Predictions are cut off at the ratings of training, not at those the new users have given, and novelty is over the users of training"
    ratings,learn = fitted
    own = ratings[ratings.user==ratings.user.mode()[0]]
    new = learn.fold_in(own.head(20)[['title','rating']].assign(rating=5.))
    held = own.tail(20).assign(user='new user')
    got = new.evaluate(held)
    assert got.rmse['model']==pytest.approx(((new.predict_df(held).clip(1, 5)-held.rating)**2).mean()**.5, abs=1e-5) and (got.novelty>=0).all()

def test_lists_of_draws_are_recorded_as_those_of_their_mean():
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1), metrics=[rmse,*list_metrics()])
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(4, 12, burn=4)
    found = learn.evaluate()
    last = learn.history.iloc[-1]
    for o in ('ndcg_at_10','recall_at_10'): assert abs(last[o]-found[o]['model'])<1e-5
    assert type(learn.model) is PosteriorMean

def test_bayes_refuses_to_save_single_draws():
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1))
    before = learn.model
    with pytest.raises(ValueError, match='single draws'): learn.fit_bayes(2, 3, cbs=SaveModelCallback())
    assert learn.model is before

def test_lists_of_a_fit_tell_of_pairs_on_both_sides():
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500).assign(rating=1)
    both = pd.concat([df,df.iloc[:300]], ignore_index=True)
    dls = RecDataLoaders.from_df(both, lambda _: (np.arange(len(df)),np.arange(len(df), len(both))), seed=0, device='cpu')
    learn = learner(dls, metrics=list_metrics())
    with pytest.warns(UserWarning, match='300 held-out pairs were in training too, where lists leave them out'):
        with learn.no_bar(),learn.no_logging(): learn.fit_ials(8, 2)
        assert learn.list_measures(dls.valid_ds)[1]==0

def test_coverage_is_of_the_whole_catalogue():
    "Also where few items may be listed"
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=42))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4)
    often = learn.dls.train_ds.counts(1).gt(100).sum()/(len(learn.dls.classes['title'])-1)
    assert 0<learn.evaluate(min_count=101).coverage['model']<=often<.5
