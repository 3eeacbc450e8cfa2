"""Predictions and recommendations: the same checks for every model, for loaded learners and for new users"""
import copy,difflib,warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import CollabDataLoaders,collab_learner
from fastai.learner import load_learner
from conftest import catalogue,quietly,release_path
from fastrec.answer.steering import ListMaker
from fastrec.answer import lists,topn
from fastrec.models import base
from fastrec.models.new_draws import chances
from fastrec.base.devices import memory_there
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode
from fastrec.all import (DeepMF,DotBias,EndSplitter,NewUsers,RecDataLoaders,RecLearner,Recommender,Seen,Vocab,learner,load_recommender,nn_learner,
                         sample_ratings,top_n)

def trained(ratings, arch, n_factors=8, splitter=None, **kwargs):
    learn = learner(RecDataLoaders.from_df(ratings, splitter, seed=1, bs=256), arch, n_factors, **kwargs)
    with learn.no_logging(): learn.fit_one_cycle(2)
    return learn

def as_new_users(learn, ratings):
    "The learner's own users, folded in"
    return learn.fold_in(ratings[['user','title','rating']], unknown='drop')

def from_stock(ratings, use_nn):
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    learn = collab_learner(CollabDataLoaders.from_df(frame, seed=1, bs=256, item_name='title'), n_factors=8, use_nn=use_nn, layers=[9] if use_nn else None, y_range=(.5,5.5))
    with learn.no_logging(): learn.fit(1)
    return RecLearner.from_learner(learn)

makers = {
    'dot': lambda r: trained(r, DotBias), 'dot without range': lambda r: trained(r, DotBias, y_range=False), 'biases': lambda r: trained(r, DotBias, 0),
    'nn': lambda r: trained(r, DeepMF), 'nn, two layers': lambda r: trained(r, DeepMF, (7,5), layers=[9,6], ps=[.1,.1], embed_p=.1), 'nn without range': lambda r: trained(r, DeepMF, y_range=False, use_bn=False),
    'stock dot': lambda r: from_stock(r, False), 'stock nn': lambda r: from_stock(r, True),
    'new users, dot': lambda r: as_new_users(trained(r, DotBias), r), 'new users, nn': lambda r: as_new_users(trained(r, DeepMF), r)}

@pytest.fixture(scope='module', params=makers)
def rec(request, ratings):
    with quietly(),warnings.catch_warnings(action='ignore'): return makers[request.param](ratings)

def same(a, b, atol=1e-5):
    "The same recommendations, but for rounding, which may swap items of nearly one score and decide which of them is last"
    a,b = (o.astype(dict(title='str')) for o in (a,b))
    if not (a[['user','rank']].equals(b[['user','rank']]) and np.allclose(a.score, b.score, atol=atol)): return False
    (a,last),(b,_) = ((o.set_index(['user','title']).score.groupby(level=[0,1]).first(), o.groupby('user').score.min()) for o in (a,b))
    both,alone = a.index.intersection(b.index),a.index.symmetric_difference(b.index)
    ties = pd.concat([a,b]).loc[alone].to_numpy()-last.reindex(alone.get_level_values('user')).to_numpy() if len(alone) else 0
    return np.allclose(a[both], b[both], atol=atol) and np.allclose(ties, 0, atol=atol)

def labels(rec): return [list(v.labels) for v in rec.ds.classes.values()]

def brute(rec, user):
    "Every item's prediction for `user`, by the model's own forward, one pair at a time"
    users,items = rec.ds.classes.values()
    x = torch.tensor([[users.encode([user])[0], k] for k in range(1, len(items))])
    m = copy.deepcopy(rec.model).eval()
    with torch.no_grad(): return pd.Series(torch.cat([m(o[None].to(next(m.parameters()).device)) for o in x]).numpy(), items.labels)

# ------------------------------------------------------------------ conformance
def test_one_by_one_equals_all_at_once(rec):
    users,items = labels(rec)
    want = brute(rec, users[3])
    grid = rec.predict_grid()
    assert grid.shape==(len(users),len(items)) and grid.dtype==torch.float32
    np.testing.assert_allclose(grid[3], want, atol=1e-5)
    np.testing.assert_allclose(rec.predict_grid(users[3], items[::-7])[0], want[items[::-7]], atol=1e-5)
    frame = pd.DataFrame(dict(title=items[:40], user=users[3]), index=[f'r{i}' for i in range(40)])
    pred = rec.predict_df(frame)
    assert pred.index.equals(frame.index)
    np.testing.assert_allclose(pred, want[items[:40]], atol=1e-5)
    assert rec.predict(users[3], items[5])==pytest.approx(want[items[5]], abs=1e-5) and isinstance(rec.predict(users[3], items[5]), float)

def test_who_is_held_out_is_told_so():
    "By whatever asks for them; other unknown labels get a suggestion"
    df = pd.DataFrame(dict(user=[1,1,2,2,3,3,4,4,1], title=[*'abacbcab','Once'], rating=[1,2,3,4,5,4,3,4,5]))
    learn = learner(RecDataLoaders.from_df(df, lambda o: ([*range(6)],[6,7,8]), bs=2))
    for f in (lambda: learn.recommend(4), lambda: learn.recommend([1,4]), lambda: learn.predict(4, 'a'), lambda: learn.model.bias([4], is_item=False)):
        with pytest.raises(KeyError, match='all ratings of 4 are held out for validation.*valid_pct=0'): f()
    with pytest.raises(KeyError, match="all ratings of 'Once' are held out"): learn.similar('Once')
    with pytest.raises(KeyError, match='5 is not among the 3 labels'): learn.predict(5, 'a')
    learn = learner(RecDataLoaders.from_df(df.assign(user=5-df.user), lambda o: ([*range(6)],[6,7,8]), bs=2))  # 1 equals True
    with pytest.raises(KeyError, match='all ratings of 1 are held out'): learn.predict(1, 'a')
    with pytest.raises(KeyError, match='True is not among the 3 labels'): learn.predict(True, 'a')

def test_recommends_the_best_unseen(rec):
    users,items = labels(rec)
    recs = rec.recommend(n=7)
    assert list(recs)==['user','rank','title','score'] and len(recs)==7*len(users)
    for user in users[::60]:
        codes = rec.seen.of(torch.tensor([users.index(user)+1]))[1]
        want = brute(rec, user).drop([items[c-1] for c in codes])
        mine = recs[recs.user==user]
        assert mine['rank'].tolist()==list(range(1,8)) and mine.score.is_monotonic_decreasing
        np.testing.assert_allclose(mine.score, want.nlargest(7), atol=1e-5)
        np.testing.assert_allclose(want[mine.title.tolist()], mine.score, atol=1e-5)
        alone = rec.recommend(user, n=7)
        assert alone.title.tolist()==mine.title.tolist()

def test_nothing_is_touched(rec):
    rec.model.train()
    next(iter(rec.model.modules())).training = True
    before = {k: v.clone() for k,v in rec.model.state_dict().items()}
    def grads(): return [None if p.grad is None else p.grad.clone() for p in rec.model.parameters()]
    slopes = grads()
    users,items = labels(rec)
    rec.predict(users[0], items[0]); rec.predict_grid(users[:2]); rec.recommend(users[0]); rec.predict_df(pd.DataFrame(dict(user=users[:2], title=items[:2])))
    assert all(m.training for m in rec.model.modules())
    assert all(v.equal(before[k]) for k,v in rec.model.state_dict().items())
    assert all(a is b is None or a.equal(b) for a,b in zip(grads(), slopes, strict=True)) and all(p.grad_fn is None for p in rec.model.parameters())

def test_unknown_labels(rec):
    users,items = labels(rec)
    for call in (lambda: rec.predict(-1, items[0]), lambda: rec.predict_grid([users[0],-1]), lambda: rec.recommend(-1), lambda: rec.recommend([users[0],-1])):
        with pytest.raises(KeyError, match='-1 is not among the [0-9,]+ labels of .user'): call()
    for call in (lambda: rec.predict(users[0], items[0][:-1]), lambda: rec.predict_grid(users[0], [items[0][:-1]]), lambda: rec.recommend(users[0], items=items[0][:-1])):
        with pytest.raises(KeyError, match='closest: .'+items[0][:8]): call()
    frame = pd.DataFrame(dict(user=[users[0],-1], title=items[0]))
    with pytest.raises(KeyError, match=r"1 of 2 rows: 1 unknown in 'user' \(-1\)"): rec.predict_df(frame)
    with pytest.warns(UserWarning, match='average'): pred = rec.predict_df(frame, unknown='average')
    assert pred[1]==pytest.approx(rec.predict(-1, items[0], unknown='average')) and np.isfinite(pred[1])
    with pytest.warns(UserWarning, match='left out'): assert rec.predict_df(frame, unknown='drop').index.tolist()==[0]

def test_requests_of_any_size(rec):
    users,items = labels(rec)
    twice = [users[4],users[1],users[4]]
    assert rec.predict_grid(twice, [items[2]]*2).shape==(3,2)
    recs = rec.recommend(twice, n=2)
    assert recs.user.tolist()==[users[4]]*2+[users[1]]*2+[users[4]]*2
    assert rec.predict_grid([], items).shape==(0,len(items)) and rec.predict_grid(users, []).shape==(len(users),0)
    empty = rec.recommend([])
    assert empty.empty and list(empty)==['user','rank','title','score'] and rec.predict_df(pd.DataFrame(dict(user=[], title=[]))).empty
    everything = rec.recommend(users[0], n=10_000, exclude_seen=False)
    assert len(everything)==(rec.seen.counts[1:]>0).sum() and everything.title.is_unique
    unseen = rec.recommend(users[0], n=10_000)
    assert len(unseen)==len(everything)-len(set(rec.seen.of(torch.tensor([1]))[1].tolist()))
    assert len(rec.recommend(users[0], items=items[:3], exclude_seen=False))==3

def test_memory_bound(rec):
    users,items = labels(rec)
    row = 4*len(items)
    assert torch.allclose(rec.predict_grid(max_bytes=3*row), rec.predict_grid(), atol=1e-6, rtol=0)
    assert same(rec.recommend(n=3, max_bytes=row), rec.recommend(n=3))  # so many blocks that a bar is shown
    assert same(rec.recommend(n=3, max_bytes=2*row+1), rec.recommend(n=3))
    for call in (rec.predict_grid, rec.recommend):
        with pytest.raises(ValueError, match=f'max_bytes={row-1:,} is too small for the scores of one user, {row:,} bytes'): call(max_bytes=row-1)

def test_out_and_half(rec):
    users,items = labels(rec)
    want = rec.predict_grid(users[:5])
    out = torch.full((5,len(items)), 7.)
    assert rec.predict_grid(users[:5], out=out) is out and torch.allclose(out, want)
    half = rec.predict_grid(users[:5], dtype=torch.float16)
    assert half.dtype==torch.float16 and torch.allclose(half.float(), want, atol=5e-3)
    m = rec.model.eval()
    with torch.no_grad(): low = m.to_range(m.score(*(o.bfloat16() for o in (m.user_side(torch.arange(1, 6)), m.item_side(torch.arange(1, len(items)+1))))))
    assert low.dtype==torch.bfloat16 and torch.allclose(low.float(), want, atol=.1)
    with pytest.raises(ValueError, match=r'out has the shape \(5, 3\), the grid'): rec.predict_grid(users[:5], out=torch.zeros(5,3))

def test_similar(rec):
    users,items = labels(rec)
    if not rec.model.item_factors.shape[1]:
        with pytest.raises(ValueError, match='biases alone'): rec.similar(items[0])
        return
    f = rec.model.item_factors/rec.model.item_factors.norm(dim=1, keepdim=True)
    sims = pd.Series((f@f[2]).numpy(), items).drop(items[2])[lambda o: rec.seen.counts[1:].numpy()[[items.index(i) for i in o.index]]>0]
    got = rec.similar(items[2], 5)
    np.testing.assert_allclose(got.similarity, sims.nlargest(5), atol=1e-5)
    assert items[2] not in set(got.title) and len(rec.similar(items[2], 10_000))==len(sims)
    f = rec.model.user_factors/rec.model.user_factors.norm(dim=1, keepdim=True)
    near,alike = rec.similar_users(users[1], 3),pd.Series((f@f[1]).numpy(), users).drop(users[1])
    np.testing.assert_allclose(near.similarity, alike.nlargest(3), atol=1e-5)
    np.testing.assert_allclose(alike[near.user], near.similarity, atol=1e-5)
    with pytest.raises(KeyError, match='closest'): rec.similar(items[2][:-1])

# ------------------------------------------------------------------ the n best
@pytest.mark.parametrize('m', [1,5,63,64,65,640,2817,5000])
@pytest.mark.parametrize('n', [1,3,10])
def test_top_n_is_a_stable_sort(m, n):
    g = torch.Generator().manual_seed(m*n)
    for values in (torch.randn(20, m, generator=g), torch.randint(3, (20,m), generator=g).float(), torch.zeros(20, m), torch.full((20,m), -torch.inf)):
        values[3:6,::2] = -torch.inf
        got,want = top_n(values.clone(), n),values.sort(dim=1, descending=True, stable=True)
        assert got[0].equal(want[0][:,:n])
        finite = got[0]>-torch.inf
        assert got[1][finite].equal(want[1][:,:n][finite])

def test_ties_in_the_order_of_labels(ratings):
    learn = trained(ratings, DotBias)
    with torch.no_grad():
        for p in learn.model.parameters(): p.zero_()
    users,items = labels(learn)
    assert learn.recommend(users[0], n=5, exclude_seen=False).title.tolist()==items[:5]

# ------------------------------------------------------------------ who sees what
def test_min_count_and_untrained(ratings):
    learn = trained(ratings, DotBias)
    counts = learn.dls.train_ds.decode(learn.dls.train_ds.x).title.value_counts()
    recs = learn.recommend(n=50, min_count=60)
    assert (counts[recs.title]>=60).all() and '#na#' not in set(recs.title)
    learn.seen.counts[1] = 0
    assert labels(learn)[1][0] not in set(learn.recommend(n=10_000, exclude_seen=False).title)
    with pytest.raises(ValueError, match='n=0 must be at least 1'): learn.recommend(n=0)

def test_seen_everything():
    df = pd.DataFrame(dict(user=['a']*3+['b'], title=['x','y','z','x'], rating=[3,4,5,3.]))
    learn = learner(RecDataLoaders.from_df(pd.concat([df]*2), EndSplitter(.5), bs=2), n_factors=2)
    recs = learn.recommend(n=5)
    assert recs.user.tolist()==['b','b'] and set(recs.title)=={'y','z'} and recs['rank'].tolist()==[1,2]

def test_seen_frame(ratings):
    learn = trained(ratings, DotBias)
    user,best = labels(learn)[0][0],learn.recommend(labels(learn)[0][0], n=3, exclude_seen=False)
    mine = pd.DataFrame(dict(user=user, title=best.title.astype(str)[:1]))
    assert learn.recommend(user, n=2, exclude_seen=mine).title.tolist()==best.title.tolist()[1:]
    with pytest.raises(ValueError, match="no column 'title'"): learn.recommend(user, exclude_seen=mine[['user']])
    with pytest.raises(ValueError, match='n=0 must be at least 1'): learn.similar(best.title[0], 0)

def test_loaded_learner_asks_what_was_seen(ratings, tmp_path):
    learn = trained(ratings, DotBias, path=tmp_path)
    learn.export()
    with pytest.warns(UserWarning): loaded = load_learner(tmp_path/'export.pkl')
    user = labels(learn)[0][0]
    with pytest.raises(ValueError, match='what users have seen is not known here.*exclude_seen=False'): loaded.recommend(user)
    with pytest.raises(ValueError, match='min_count'): loaded.recommend(user, min_count=3, exclude_seen=False)
    assert loaded.recommend(user, exclude_seen=False).equals(learn.recommend(user, exclude_seen=False))
    assert loaded.recommend(user, exclude_seen=ratings).equals(learn.recommend(user))
    assert loaded.similar(labels(learn)[1][0]).equals(learn.similar(labels(learn)[1][0]))
    assert loaded.fold_in(ratings.head(0)).predict(labels(learn)[1][0])==pytest.approx(learn.predict(-1, labels(learn)[1][0], unknown='average'), abs=1e-5)

@pytest.mark.filterwarnings('ignore:1 of 1 rows')
def test_the_unknown_is_the_mean_of_rows_that_a_loop_of_ones_own_has_moved():
    dls = RecDataLoaders.from_df(sample_ratings(100, 60, 3000), seed=1)
    learn = learner(dls, n_factors=5, seed=0)
    m = learn.model.train()
    opt = torch.optim.Adam(m.parameters(), lr=.02)
    for x,y in dls.train:
        (m(x)-y).square().mean().backward()
        opt.step()
        opt.zero_grad()
    some = pd.DataFrame(dict(user=['nobody'], title=[dls.classes['title'][1]]))
    found = learn.predict_df(some.assign(user=-1), unknown='average')
    want = [e.weight[1:].mean(0) for e in m.tables[0]]
    assert all(torch.allclose(e.weight[0], o, atol=1e-6) for e,o in zip(m.tables[0], want)) and len(found)==1
    m.u_bias.weight.data[0] = 2
    learn.predict_df(some.assign(user=-1), unknown='average')
    assert m.u_bias.weight[0]==2

def test_seen_by_hand():
    seen = Seen(torch.tensor([[2,3],[1,1],[2,1],[0,2],[2,0]]), 4, 5)
    assert [o.tolist() for o in seen.of(torch.tensor([2,3,1,2]))]==[[0,0,2,3,3],[3,1,1,3,1]] and seen.counts.tolist()==[0,2,0,1,0]

# ------------------------------------------------------------------ what is asked for
def test_unknown_labels_are_dropped_with_a_word(rec):
    users,items = labels(rec)
    with pytest.warns(UserWarning, match=r"1 unknown in 'user' \(-1\) and 2 unknown in 'title' \('new', 'newer'\); left out") as said:
        grid = rec.predict_grid([users[3],-1,users[1]], [items[2],'new','newer'], unknown='drop')
    assert len(said)==1 and grid.equal(rec.predict_grid([users[3],users[1]], items[2]))
    with pytest.warns(UserWarning, match=r"1 unknown in 'title' \('new'\); left out"): got = rec.recommend(users[:2], 3, [*items[:9],'new'], unknown='drop')
    assert got.equals(rec.recommend(users[:2], 3, items[:9]))
    with pytest.warns(UserWarning, match="5 unknown in 'user' .*-3, …"): assert rec.recommend(range(-5, 0), unknown='drop').empty
    with pytest.warns(UserWarning, match='left out'): assert rec.predict_grid(items=['new'], unknown='drop').shape==(len(users),0)
    for call in (rec.predict_grid, rec.recommend):
        with pytest.raises(ValueError, match="unknown='average' must be 'raise' or 'drop'"): call(users[0], unknown='average')

@pytest.mark.parametrize('kind', [list, tuple, pd.Series, pd.Index, np.array, iter, torch.tensor, lambda o: pd.Series(o, dtype='category'), lambda o: np.array(o, 'int16'), lambda o: map(float, o)])
def test_labels_in_any_container(ratings, kind):
    learn = trained(ratings, DotBias)
    some = [int(o) for o in labels(learn)[0][5:2:-1]]
    assert learn.predict_grid(kind(some)).equal(learn.predict_grid(some)) and learn.recommend(kind(some), 3).equals(learn.recommend(some, 3))

def test_labels_of_another_kind(ratings):
    learn = trained(ratings, DotBias)
    users,items = labels(learn)
    for call in (lambda: learn.predict(users[0], 7), lambda: learn.recommend(items=[items[0],7]), lambda: learn.similar(7)):
        with pytest.raises(KeyError, match="7 is not among the 120 labels of 'title', which are text"): call()
    with pytest.raises(KeyError, match="'5' is not among .* which are numbers"): learn.predict('5', items[0])
    for strange in (None, np.nan, True, pd.NaT, b'x', users[0]+.5, 2**70):
        with pytest.raises(KeyError, match='is not among'): learn.predict(strange, items[0])
        with pytest.raises(KeyError, match='is not among'): learn.recommend([users[0],strange])
    for frame in (ratings[['user']], {users[0]: 1}, np.array([[users[0]]])):
        with pytest.raises(TypeError, match="one label of 'user' or a list of them is needed"): learn.recommend(frame)
    with pytest.raises(KeyError, match='is not among'): learn.predict([users[0],users[1]], items[0])
    with pytest.raises(TypeError, match='a set has no order'): learn.predict_grid(set(users[:3]))
    assert set(learn.recommend(set(users[:3]), 1).user)==set(users[:3])

def test_a_missing_label_is_named_wherever_several_are_taken(ratings):
    learn = trained(ratings, DotBias)
    (u,v,*_),(i,j,*_) = labels(learn)
    for ask,one,other in ((learn.recommend,u,v), (learn.predict_grid,u,v), (learn.without_users,u,v),
                          (learn.recommend_users,i,j), (learn.without_items,i,j), (lambda o: learn.recommend(u, 3, o),i,j)):
        for gap in (None,np.nan,pd.NA):
            with pytest.raises(KeyError, match='label 2 of 3, is missing: it is not among'): ask([one,gap,other])
            with pytest.raises(KeyError, match='is missing: it is not among'): ask([gap])
    with pytest.warns(UserWarning, match=r"1 unknown in 'user' \(nan\); left out"): lists = learn.recommend([u,np.nan,v], 3, unknown='drop')
    assert set(lists.user)=={u,v}

def test_a_gap_among_truth_values_is_nobody():
    "pandas takes it for one of them, as it makes numbers of all"
    asked = pd.Series([True,None,False,True], dtype='boolean')
    both = Vocab([False,True], 'member')
    assert both.find(asked).tolist()==[2,0,1,2] and both.find(asked.dropna()).tolist()==[2,1,2]
    with pytest.raises(KeyError, match='<NA>, label 2 of 4, is missing'): both.lookup(asked)

@pytest.mark.parametrize('n', [1664,60_000,300_000])
def test_an_unknown_label_compares_few(monkeypatch, n):
    "Counted by the labels that are looked at, not by time"
    v,compared = Vocab(sorted([*(f'Film {k:06} (1990)' for k in range(n)), 'Titanic (1997)']), 'title'),[]
    close = difflib.get_close_matches
    def spy(word, possibilities, **kwargs):
        compared.append(len(possibilities))
        return close(word, possibilities, **kwargs)
    monkeypatch.setattr('difflib.get_close_matches', spy)
    for o in ('Titanik (1997)','titanic (1997)'):
        with pytest.raises(KeyError, match=r"closest: 'Titanic \(1997\)'"): v.lookup(o)
    with pytest.raises(KeyError, match='which are text'): v.lookup(5)
    assert len(compared)==1 and max(compared)<=2000  # what is the same but for case is not compared

@pytest.mark.parametrize('n', [3,3000,100_000,300_000])
def test_case_accents_and_spaces_do_not_hide_a_label(n):
    "In few labels and in many; past some hundred thousand only what is written in a usual way is found, and a search numbers no label"
    v = Vocab(sorted([*(f'Film {k:06} (1990)' for k in range(n)), 'Am\u00e9lie', 'Iron Harbor', 'Les 400 Coups']), 'title')
    usual = {'IRON HARBOR': 'Iron Harbor', 'iron harbor': 'Iron Harbor', 'Iron Harbour': 'Iron Harbor'}
    odd = {'  iRON  harbor ': 'Iron Harbor', 'AMELIE': 'Am\u00e9lie', 'Ame\u0301lie': 'Am\u00e9lie', 'les 400 coups': 'Les 400 Coups'}
    for text,want in (usual if n>2**17 else usual|odd).items():
        with pytest.raises(KeyError, match=f'closest: {want!r}'): v.lookup(text)
    with pytest.raises(KeyError) as e: v.lookup('zzz')
    assert 'closest' not in str(e.value) and ('_spelled' in vars(v))==(n<=2**17)

def test_hints_everywhere(ratings):
    "One rule for all answers"
    learn = trained(ratings, DotBias)
    (user,*_),(item,*_) = labels(learn)
    odd,hint = f' {item.upper()}',f'closest: {item!r}'
    calls = [lambda: learn.predict(user, odd), lambda: learn.predict_grid([user], [odd]), lambda: learn.similar(odd), lambda: learn.recommend_users(odd),
        lambda: learn.recommend(user, items=[odd]), lambda: learn.fold_in(dict(title=[odd], rating=[5]))]
    for f in calls:
        with pytest.raises(KeyError) as e: f()
        assert hint in str(e.value) or f'is known as {item!r}' in str(e.value), str(e.value)
    with pytest.raises(KeyError, match='is known as'): learn.predict_df(pd.DataFrame(dict(user=[user], title=[odd])))

def test_what_means_nothing_is_refused(ratings, tmp_path):
    learn = trained(ratings, DotBias)
    (user,*_),(item,*_) = labels(learn)
    whole,number = (TypeError, 'must be a whole number'),(TypeError, 'must be a number')
    for name,value,(kind,why) in [('n',2.5,whole), ('n',True,whole), ('n','5',whole), ('n',None,whole), ('n',0,(ValueError, 'n=0 must be at least 1')), ('n',-1,(ValueError, 'at least 1')),
            ('max_bytes',0,(ValueError, 'at least 1')), ('max_bytes',-5,(ValueError, 'at least 1')), ('max_bytes',1e8,whole), ('min_count',-1,(ValueError, 'min_count=-1 must be at least 0')),
            ('min_count','a',number), ('min_count',np.nan,(ValueError, 'finite')), ('z',np.nan,(ValueError, 'z=nan must be a finite number')), ('z','high',number), ('z',1.,(ValueError, 'fit_bayes')),
            ('draw',0,(ValueError, 'fit_bayes')), ('path',5,(TypeError, 'must be the name of a file')), ('path',tmp_path,(ValueError, 'is a folder')), ('path',tmp_path/'no'/'r.parquet',(ValueError, 'there is no folder'))]:
        with pytest.raises(kind, match=why): learn.recommend(user, **{name: value})
        if name=='n':
            with pytest.raises(kind, match=why): learn.similar(item, value)
    for out,why in [(torch.zeros(1, 120, dtype=int), 'cannot hold'), (np.zeros((1,120), int), 'floats'), ([[0.]], 'not a list'), (torch.zeros(1, 1).expand(2, 120), 'several of its places'), (torch.zeros(120), 'has the shape')]:
        with pytest.raises((ValueError,TypeError), match=why): learn.predict_grid(labels(learn)[0][:2] if out is not None else user, out=out)
    for dtype in (int, 'float32', np.float32, torch.int64, torch.complex64):
        with pytest.raises(TypeError, match='must be one of torch.float16'): learn.predict_grid(user, dtype=dtype)
    with pytest.raises(ValueError, match='contradict'): learn.predict_grid(user, dtype=torch.float16, out=torch.zeros(1, 120))
    with pytest.raises(ValueError, match='fit_bayes'): learn.predict(user, item, std=True)
    assert len(learn.recommend(user, n=np.int64(3)))==3

def test_grids_into_arrays(ratings, tmp_path):
    learn = trained(ratings, DotBias)
    want = learn.predict_grid()
    out = np.memmap(tmp_path/'grid', 'float32', 'w+', shape=tuple(want.shape))
    assert learn.predict_grid(out=out) is out and np.array_equal(out, want)
    wide = torch.zeros(want.shape[::-1])
    learn.predict_grid(out=wide.T)
    assert wide.T.equal(want)
    double = learn.predict_grid(dtype=torch.float64)
    assert double.dtype==torch.float64 and double.float().equal(want)
    out.flags.writeable = False
    with pytest.raises(ValueError, match='read-only'): learn.predict_grid(out=out)

# ------------------------------------------------------------------ memory
class Peak(TorchDispatchMode):
    "Counts the bytes of tensors that are alive at once"
    def __init__(self):
        super().__init__()
        self.live,self.most = {},0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        res = func(*args, **(kwargs or {}))
        old = {o.untyped_storage().data_ptr() for o in (*args, *(kwargs or {}).values()) if isinstance(o, torch.Tensor)}
        for o in res if isinstance(res, (tuple,list)) else [res]:
            if isinstance(o, torch.Tensor) and o.untyped_storage().data_ptr() not in old: self.live[o.untyped_storage().data_ptr()] = StorageWeakRef(o.untyped_storage()),o.untyped_storage().nbytes()
        self.live = {k: (ref,n) for k,(ref,n) in self.live.items() if not ref.expired()}
        self.most = max(self.most, sum(n for _,n in self.live.values()))
        return res

def peak(f):
    with Peak() as p: f()
    return p.most

def test_more_than_there_is_room_for(monkeypatch):
    rec = catalogue(torch.randn(3000, 4), torch.randn(3000, 4))
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 30_000_000)
    made = []
    monkeypatch.setattr(type(rec.model), 'user_side', lambda *args: made.append(1))
    with pytest.raises(ValueError, match=r'cpu has no room for the grid of 3,000 users and 3,000 items, 36\.0 MB: ask for some users at a time, for recommend, or write'): rec.predict_grid()
    with pytest.raises(ValueError, match='no room for the lists of 3,000 users.*pass the name of a Parquet file'): rec.recommend(n=3000, exclude_seen=False)
    assert not made

@pytest.mark.skipif(memory_there() is None, reason='nobody tells how much memory there is')
def test_a_grid_larger_than_the_machine():
    many = np.arange(1, 400_001)
    rec = catalogue(torch.randn(400_000, 1), torch.randn(10, 1))
    with pytest.raises(ValueError, match=r'cpu has no room for the grid of 400,000 users and 1,000,000 items, 1,600\.0 GB'): rec.predict_grid(items=[3]*1_000_000)

@pytest.mark.parametrize('n_items', [2000,9000,9089,9217])
@pytest.mark.parametrize('what', ['plain','seen','seen whole','struck pairs','ties','twins','damped','no number'])
def test_lists_by_tiles_are_those_without(monkeypatch, n_items, what):
    torch.manual_seed(n_items)
    draw = (lambda *o: torch.randint(-3, 4, o).float()) if what=='ties' else torch.randn
    u,i = draw(300, 30),draw(n_items, 30)
    if what=='twins': i = i[:1].expand(n_items, -1)
    if what=='no number': u[7] = torch.nan
    x = torch.stack([torch.randint(1, 301, (5000,)), torch.randint(1, n_items+1, (5000,))], 1)
    if what=='seen whole': x = torch.cat([x, torch.stack([torch.full((n_items,), 5), torch.arange(1, n_items+1)], 1)])
    rec = catalogue(u, i, Seen(x, 301, n_items+1))
    if what=='twins': rec.model.i_bias.weight.data.zero_()
    kwargs = dict(exclude_seen=what not in ('plain','twins'), n=7)
    if what=='struck pairs': kwargs['also_exclude'] = pd.DataFrame(dict(user=[0,0,299], item=[0,n_items-1,n_items-1]))
    if what=='damped': kwargs['damping'] = .3
    calls,tiles = [],topn.score_tiles
    monkeypatch.setattr(lists, 'score_tiles', lambda *args: calls.append(1) or tiles(*args))
    monkeypatch.setattr('fastrec.answer.byte_screens.screen_for', lambda device: None)
    def listed(cached, worth):
        monkeypatch.setattr(topn, '_cached', cached)
        monkeypatch.setattr(topn, '_worth', worth)
        with warnings.catch_warnings(action='ignore'): return rec.recommend(**kwargs).rename(columns=dict(item='title'))
    whole = listed(2**18, 2**30)
    assert not calls
    for cached in (2**10,2**17,2**18):
        got = listed(cached, 0)
        assert got.equals(whole) if what in ('ties','twins') else same(got, whole)
    assert calls
    if what=='twins': assert (got.groupby('user').title.diff().dropna()>0).all()

@pytest.mark.parametrize('what', ['few items','many users','ties','long lists','grid','damped','diverse','both'])
def test_max_bytes_is_the_truth(monkeypatch, what):
    torch.manual_seed(0)
    monkeypatch.setattr('fastrec.answer.byte_screens.screen_for', lambda device: None)
    nu,ni = (60_000,5) if what in ('few items','many users') else (1500,2000)
    rec = catalogue(torch.randn(nu, 30), torch.randn(ni, 30))
    if what=='ties':
        for o in (rec.model.i_weight,rec.model.i_bias): o.weight.data[:] = 1
    bytes_,n = 2**20,5
    monkeypatch.setattr(lists, 'block_size', lambda n_users, n_items, max_bytes, device, row: max(1, max_bytes*3//4//row))  # without a CPU's limit of 256
    kept = lambda *o: None
    everyone,items = (torch.arange(1, o+1) for o in (nu,ni))
    out = torch.zeros(nu, ni)
    whole = 4*32*2*ni + 16*(ni+1)  # the items' side
    knobs = dict(damped=dict(damping=.5), diverse=dict(diversity=.5), both=dict(damping=.5, diversity=.5))
    if what=='grid': most = peak(lambda: rec.predict_grid(max_bytes=bytes_, out=out))
    elif what in knobs:
        rec.counts = torch.arange(ni+1)
        most = peak(lambda: ListMaker(rec, **knobs[what], max_bytes=bytes_).best(everyone, items, n, None, kept))
        whole += 4*32*2*ni + 30*ni  # the factors again, for their cosines or of the items that a lead is taken from, and popularity
    else: most = peak(lambda: lists.best_unseen(rec, rec.model, everyone, items, 300 if what=='long lists' else n, None, bytes_, kept))
    assert most < bytes_+whole

def test_draws_of_those_asked_for():
    "The uncertainty of three users needs no memory for all"
    from fastrec.all import PosteriorMean
    u,i = torch.randn(10, 20_000, 5),torch.randn(10, 50, 5)
    rec = catalogue(torch.zeros(19_999, 1), torch.zeros(49, 1))
    rec.model = PosteriorMean(u, i, torch.ones(20_000), torch.ones(50))
    got = rec.recommend([3,4,5], 7, z=.5, exclude_seen=False)
    us,its = rec.model.draws()
    scores = torch.einsum('snk,smk->snm', us[:,4:7,:-1], its[:,1:,:-1]) + us[:,4:7,-1:] + its[:,1:,-1][:,None]
    want = scores.mean(0)+.5*scores.std(0)
    np.testing.assert_allclose(got.score.to_numpy().reshape(3, 7), want.topk(7)[0], atol=1e-4)
    assert peak(lambda: rec.recommend([3,4,5], 7, z=.5, exclude_seen=False)) < 2**20
    for s in (0,9,-1):
        a = rec.model.one_draw(s)
        assert torch.equal(torch.cat([a.u_weight.weight, a.u_bias.weight], 1), us[s]) and torch.equal(torch.cat([a.i_weight.weight, a.i_bias.weight], 1), its[s])
    for draw,why in ((10,'there are draws 0 to 9'), (-11,'at least -10'), (True,'whole number'), (.5,'whole number')):
        with pytest.raises((ValueError,TypeError), match=why): rec.recommend(3, draw=draw)

def test_ties_sort_nothing(monkeypatch):
    "All scores equal, or many equal to the last: the same as a stable sort, which isn't done"
    torch.manual_seed(1)
    sorted_,sort = [],torch.Tensor.sort
    scores = [torch.zeros(64, 20_000), torch.randint(0, 30, (64,20_000)).float(), torch.randint(0, 3, (64,9_999)).float(), torch.ones(3, 40)]
    scores[1][:,::7] = -torch.inf
    scores[2][5] = torch.nan
    want = [o.sort(dim=1, descending=True, stable=True) for o in scores]
    def spy(self, *args, **kwargs):
        sorted_.append(self.shape[1])
        return sort(self, *args, **kwargs)
    monkeypatch.setattr(torch.Tensor, 'sort', spy)
    for o,(values,cols) in zip(scores, want):
        for n in (1,7,30):
            got = top_n(o.clone(), n)
            fine = ~values[:,0].isnan()
            assert got[0][fine].equal(values[fine,:n]) and got[1][fine].equal(cols[fine,:n])
    assert max(sorted_)<=30

# ------------------------------------------------------------------ Parquet
def test_parquet(ratings, tmp_path):
    learn = trained(ratings, DotBias)
    path = learn.recommend(n=4, path=tmp_path/'r.parquet', max_bytes=4*120*7)
    back,want = pd.read_parquet(path),learn.recommend(n=4)
    assert same(back, want) and [o.name for o in tmp_path.iterdir()]==['r.parquet']
    assert len(pd.read_parquet(learn.recommend([], path=tmp_path/'none.parquet')))==0

@pytest.mark.parametrize('suffix', ['parquet','csv'])
def test_files_of_reasons_in_sentences(ratings, tmp_path, suffix):
    learn = trained(ratings, DotBias)
    path = learn.recommend(n=4, path=tmp_path/f'r.{suffix}', max_bytes=4*120*7, why=1, sentences=True)
    back = pd.read_parquet(path) if suffix=='parquet' else pd.read_csv(path)
    assert back.why.fillna('').tolist()==learn.recommend(n=4, why=1, sentences=True).why.tolist()
    none = learn.recommend([], path=tmp_path/f'none.{suffix}', why=1, sentences=True)
    assert len(pd.read_parquet(none) if suffix=='parquet' else pd.read_csv(none))==0

def test_a_carriage_return_in_a_label_ends_no_line_of_a_csv(ratings, tmp_path):
    odd = ratings.assign(title=ratings.title.astype(str).replace(str(ratings.title[0]), 'Honeyed\rSweetheart'))
    learn = trained(odd, DotBias)
    want = learn.recommend(n=6)
    back = pd.read_csv(learn.recommend(n=6, path=tmp_path/'r.csv'), lineterminator='\n')
    assert back.title.tolist()==want.title.tolist() and want.title.eq('Honeyed\rSweetheart').any()
    assert len(pd.read_csv(tmp_path/'r.csv'))==len(want)

def test_interrupted_parquet(ratings, tmp_path, monkeypatch):
    learn,calls = trained(ratings, DotBias),[]
    score = type(learn.model).score
    def broken(self, u, i, out=None):
        calls.append(1)
        if len(calls)==3: raise KeyboardInterrupt
        return score(self, u, i, out)
    monkeypatch.setattr(type(learn.model), 'score', broken)
    with pytest.raises(KeyboardInterrupt): learn.recommend(path=tmp_path/'r.parquet', max_bytes=4*120*7)
    assert list(tmp_path.iterdir())==[]

# ------------------------------------------------------------------ CUDA's memory
def test_out_of_memory_halves_the_block(ratings, monkeypatch):
    learn,sizes = trained(ratings, DotBias),[]
    score = type(learn.model).score
    def small(self, u, i, out=None):
        sizes.append(len(u))
        if len(u)>30: raise torch.cuda.OutOfMemoryError('too much')
        return score(self, u, i, out)
    want = learn.predict_grid(),learn.recommend(n=3)
    monkeypatch.setattr(type(learn.model), 'score', small)
    monkeypatch.setattr(torch.cuda, 'empty_cache', lambda: None)
    assert torch.allclose(learn.predict_grid(), want[0], atol=1e-5)
    assert max(sizes)>30 and sizes.count(max(sizes))==1
    assert same(learn.recommend(n=3), want[1])

# ------------------------------------------------------------------ new users
@pytest.mark.parametrize('arch', [DotBias, DeepMF])
def test_fold_in_is_the_best_by_its_own_measure(ratings, arch):
    from fastrec.models.foldin import user_prior
    learn = trained(ratings, arch)
    items = learn.ds.classes['title'].labels
    mine = pd.DataFrame(dict(title=items[[3,8,15,30]], rating=[5,1,4,2]))
    new = learn.fold_in(mine)
    (m,cov),noise = user_prior(learn.model),learn.noise
    z = torch.cat([e.weight[1] for e in new.model.tables[0]]).double()
    y = torch.tensor([5,1,4,2.], dtype=torch.double)
    base = copy.deepcopy(learn.model).double().eval()
    def loss(z):
        o = copy.deepcopy(base).with_users(z[None], m.double())
        pred = o(torch.stack([torch.ones(4, dtype=int), torch.tensor([4,9,16,31])], 1))
        return ((y-pred)**2).sum()/noise + (z-m)@torch.linalg.inv(cov.double())@(z-m)
    with torch.no_grad():
        best = loss(z)
        assert best<loss(m.double()) and best<min(loss(z+.05*cov.double().diagonal().sqrt()*torch.randn_like(z)) for _ in range(20))

@pytest.mark.parametrize('arch', [DotBias, DeepMF])
def test_many_new_users_at_once(ratings, arch):
    learn = trained(ratings, arch)
    mine = ratings[ratings.title.isin(labels(learn)[1])].head(60)[['user','title','rating']]
    new = learn.fold_in(mine)
    assert isinstance(new, NewUsers) and sorted(new.ds.classes['user'].labels)==sorted(mine.user.unique())
    for user,rows in list(mine.groupby('user'))[:5]:
        alone = learn.fold_in(rows.drop(columns='user'))
        np.testing.assert_allclose(alone.predict_grid()[0], new.predict_grid(user)[0], atol=2e-3)
        assert not set(new.recommend(user, n=500).title) & set(rows.title)
    with pytest.raises(ValueError, match='new users: name one'): new.predict(labels(learn)[1][0])
    assert 'labels of' in repr(new)

def test_new_user_likes_what_is_liked(sample):
    ratings,truth = sample
    learn = learner(RecDataLoaders.from_df(ratings, seed=1, bs=64))
    with learn.no_logging(): learn.fit_one_cycle(5)
    items = truth.items.set_index('title').loc[labels(learn)[1]]
    mine = pd.DataFrame(dict(title=items.index, rating=np.where(items.taste1>.5, 5, np.where(items.taste1<-.5, 1, 3)).astype(float))).query('rating!=3')
    pred = learn.fold_in(mine).predict_grid()[0]
    assert np.corrcoef(pred, items.taste1)[0,1]>.5

@pytest.mark.parametrize('change,error', [
    (lambda d: d.assign(rating=9), (ValueError, 'a rating of 9 is outside the range of the model')),
    (lambda d: d.assign(rating='five'), (ValueError, "'rating' is of type (str|object)")),
    (lambda d: d.assign(title='Alien'), (KeyError, "'Alien' is not among")),
    (lambda d: d.drop(columns='title'), (ValueError, "no column 'title'; it has rating")),
    (lambda d: d.assign(userId=[1,2]), (ValueError, "'userId' names several users, but the column of users is 'user': rename it, or drop it")),
    (lambda d: pd.concat([d, pd.Series([1,2], name='user'), pd.Series([1,1], name='user')], axis=1), (ValueError, "several columns 'user'")),
    (lambda d: pd.concat([d, pd.Series([1,2], name='userId'), pd.Series([1,1], name='userId')], axis=1), (ValueError, 'names several users')),
    (lambda d: d.assign(user=[1,2]).set_index('user'), (ValueError, "'user' is its index")),
    (lambda d: d.assign(rating=np.nan), (ValueError, "no 'rating': fill or drop"))])
def test_bad_ratings_of_new_users(ratings, change, error):
    learn = learner(RecDataLoaders.from_df(ratings, seed=1, bs=64))
    mine = pd.DataFrame(dict(title=labels(learn)[1][:2], rating=[3,4]))
    with pytest.raises(error[0], match=error[1]): learn.fold_in(change(mine))
    with pytest.raises(ValueError, match="unknown='skip'"): learn.fold_in(mine, unknown='skip')
    with pytest.warns(UserWarning, match="1 of 3 ratings are of items that were not in training: .*'Alien'.*; left out"):
        got = learn.fold_in(pd.concat([mine, pd.DataFrame(dict(title=['Alien'], rating=[1]))]), unknown='drop')
    np.testing.assert_allclose(got.predict_grid(), learn.fold_in(mine).predict_grid(), atol=1e-6)

def test_the_prior_follows_the_weights(ratings):
    "It is kept, but not beyond a change, by whatever hand"
    learn = trained(ratings, DotBias)
    items = labels(learn)[1]
    mine = pd.DataFrame(dict(title=items[:4], rating=[5,1,4,2]))
    answer = lambda: learn.fold_in(mine).predict_grid()
    first,calls = answer(),[]
    with pytest.MonkeyPatch.context() as p:
        moments = base.moments
        p.setattr(base, 'moments', lambda *args: calls.append(1) or moments(*args))
        assert answer().equal(first) and not calls
        learn.model.u_weight.weight.data[7] += 3  # which no counter sees
        changed = answer()
        assert calls==[1] and not torch.allclose(changed, first)
        with learn.no_logging(): learn.fit(1)
        answer()
        assert calls==[1,1]

def test_a_new_user_after_fit_bayes_costs_each_draw_once(ratings):
    "And gets what the equations of each draw alone give"
    learn = trained(ratings, DotBias)
    with learn.no_logging(): learn.fit_bayes(4, 9)
    model,mine = learn.model,pd.DataFrame(dict(title=labels(learn)[1][:4], rating=[5,1,4,2]))
    got,n = learn.fold_in(mine),model.n_draws
    with pytest.MonkeyPatch.context() as p:
        p.setattr(type(model), 'draws', None)  # all draws of everybody
        p.setattr(type(model), 'one_draw', None)
        assert learn.fold_in(mine).predict_grid().equal(got.predict_grid())
    eps = chances(n, 5)[0][:,None]
    us,its = model.draws()
    noise = model.u_noise[1:].mean()*model.i_noise[1:5]
    y,rows = torch.tensor([5,1,4,2.]),[]
    for s in range(n):
        z = us[s,1:].double()
        cov = torch.cov(z.T)
        cov = cov + torch.eye(5)*cov.diagonal().mean()*1e-3
        d = torch.cat([its[s,1:5,:-1], torch.ones(4, 1)], 1).double()
        a = torch.linalg.inv(cov) + d.T@(d/noise[:,None])
        b = torch.linalg.inv(cov)@z.mean(0) + d.T@((y-its[s,1:5,-1]-model.mean)/noise).double()
        rows.append(torch.linalg.solve(a, b) + torch.linalg.solve_triangular(torch.linalg.cholesky(a).T, eps[s,0,:,None].double(), upper=True)[:,0])
    np.testing.assert_allclose(got.model.draws()[0][:,1], torch.stack(rows), atol=1e-4)
    assert got.model.i_weight.weight is model.i_weight.weight

# ------------------------------------------------------------------ CUDA
@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')
@pytest.mark.parametrize('arch', [DotBias, DeepMF])
def test_on_cuda_as_on_the_cpu(ratings, arch):
    learn = trained(ratings, arch)
    learn.model.cpu(); learn.dls.cpu()  # the default device was the GPU
    want = learn.predict_grid(),learn.recommend(n=5),learn.fold_in(ratings.head(30), unknown='drop').predict_grid()
    learn.model.cuda(); learn.dls.cuda()
    assert learn.predict_grid().is_cuda and torch.allclose(learn.predict_grid().cpu(), want[0], atol=1e-4)
    np.testing.assert_allclose(learn.recommend(n=5).score, want[1].score, atol=1e-4)
    assert torch.allclose(learn.fold_in(ratings.head(30), unknown='drop').predict_grid().cpu(), want[2], atol=2e-3)
    assert torch.allclose(learn.predict_grid(dtype=torch.float16).float().cpu(), want[0], atol=2e-2)

@pytest.mark.parametrize('arch', [DotBias,DeepMF])
def test_titanic_and_robocop_3(arch):
    "Lesson R3: what users 1 to 30 would give them, by title"
    learn = learner(RecDataLoaders.from_movielens('ml-100k', release_path('ml-100k'), seed=42), arch)
    with learn.no_logging(): learn.fit_one_cycle(5)
    grid = learn.predict_grid(range(1, 31), ['Titanic (1997)','Robocop 3 (1993)'])
    assert (grid[:,0]>grid[:,1]).all()
    assert grid.mean(0).tolist()==pytest.approx([4.2,1.9], abs=.3)

def test_unknown_users_are_told_of_fold_in_and_unknown_items_are_not(tmp_path):
    learn = learner(RecDataLoaders.from_df(sample_ratings(n_users=60, n_items=40, n_ratings=1200, seed=0)[['user','title','rating']], seed=1))
    with quietly(): learn.fit_als()
    (user,other,*_),(film,*_) = (v.labels for v in learn.dls.classes.values())
    learn.save_recommender(tmp_path, ratings=True)
    way_in = 'new users come in by their ratings, with fold_in'
    for rec in (learn, load_recommender(tmp_path), learn.without_users([other])):
        frame = lambda u,i: pd.DataFrame(dict(user=[u], title=[i]))
        for ask in (rec.predict, lambda u,i: rec.predict_df(frame(u, i)), lambda u,i: rec.predict_grid(u, i), rec.explain, lambda u,i: rec.what_if(u, i, film)):
            with pytest.raises(KeyError, match=way_in): ask(-1, film)
            with pytest.raises(KeyError) as e: ask(user, 'Nothing')
            assert 'Nothing' in str(e.value) and 'fold_in' not in str(e.value)
        with pytest.raises(KeyError, match=way_in): rec.recommend(-1)
        for ask in (rec.without_users, rec.without_items):
            with pytest.raises(KeyError, match='is not among') as e: ask(['Nothing'] if ask==rec.without_items else -1)
            assert 'fold_in' not in str(e.value)
        with pytest.raises(KeyError) as e: rec.similar('Nothing')
        assert 'fold_in' not in str(e.value)

@pytest.mark.parametrize('make', [learner,nn_learner])
def test_scores_that_are_no_numbers_are_refused(make, ratings, tmp_path):
    "An empty list would look like nothing left to recommend"
    learn = make(RecDataLoaders.from_df(ratings, seed=1))
    with torch.no_grad():
        for w in learn.model.parameters(): w.fill_(torch.nan)
    user,item = ratings.user[0],ratings.title[0]
    for ask in (lambda: learn.recommend(user), lambda: learn.recommend(), lambda: learn.recommend(path=tmp_path/'lists.parquet'),
                lambda: learn.recommend_users(item), lambda: learn.similar(item)):
        with pytest.raises(ValueError, match='no numbers .NaN.*train it again'): ask()
    assert not [*tmp_path.iterdir()]

def test_some_scores_that_are_no_numbers_are_refused(ratings):
    "A list without these items would be a shorter one, or hold worse ones"
    learn = learner(RecDataLoaders.from_df(ratings, seed=1))
    with torch.no_grad(): learn.model.i_weight.weight[3:5] = torch.nan
    user = ratings.user[0]
    for ask in (lambda: learn.recommend(user), lambda: learn.recommend(), lambda: learn.recommend(user, diversity=.5)):
        with pytest.raises(ValueError, match='for some items'): ask()
