"""The judge of the fuzz tests by hand, and against it what no other test asks: repeated pairs, layers of one's own, one draw and a hundred, times in interpretation"""
import collections,math,time,warnings
import matplotlib
matplotlib.use('Agg')
import numpy as np,pandas as pd,pytest,torch
from torch import nn
import calls,frames,judge,test_fuzz
from conftest import catalogue
from fastrec.all import (LeaveLastSplitter,RecDataLoaders,RecInterpretation,Seen,TimeSplitter,UserSplitter,dot_learner,
                         load_recommender,nn_learner,
                         sample_ratings,top_n)
from fastrec.data.labels import Vocab
from judge import Fault,Slow,attempt,clear,list_metrics,ridge_biases
pytestmark = pytest.mark.filterwarnings('ignore:.*differ from another of the same user and item', 'ignore:all draws of this model rank alike')  # as random rows have it

# ------------------------------------------------------------------ the judge
def caught(f):
    try: f()
    except Exception as e: return e

def test_clear_is_what_fastrec_raises_itself(ratings):
    v = Vocab(['a','b'], 'user')
    own = caught(lambda: v.lookup(['c']))
    assert clear(own) and judge.message(own).startswith("'c' is not among")
    below = caught(lambda: v.lookup([['a']]))  # unhashable, as pandas finds: fastrec may see to it, but not by chance
    assert not clear(below) or judge.raised(below)
    assert not clear(caught(lambda: v.lookup()))  # Python's own, where it was called
    assert not clear(caught(lambda: {}['a'])) and not clear(caught(lambda: int('x')))
    assert not clear(caught(lambda: top_n('x', 3)))  # Python's own, in a line of fastrec's
    assert not clear(caught(lambda: v[9]))  # an IndexError is nothing that is documented

def said(text):
    def f(): raise ValueError(text)
    return caught(f)

def test_clear_wants_a_sentence(monkeypatch):
    monkeypatch.setattr(judge, 'raised', lambda e: True)
    assert clear(said("column 'user' holds no labels")) and clear(KeyError("'x' is not among them"))
    for text in ('', 'oops', 'bad value', 'this went wrong somehow'): assert not clear(said(text))
    assert not clear(AssertionError("column 'user' holds no labels")) and not clear(RuntimeError("column 'user' holds no labels"))

def test_attempt_tells_raw_errors_hangs_and_foreign_warnings():
    def repeat():
        for k in range(2): warnings.warn(f"column 'user' holds {k} labels")
    assert attempt(lambda: 3).value==3 and len(attempt(repeat).said)==2
    with pytest.raises(Fault, match='raw error ZeroDivisionError'): attempt(lambda: 1/0)
    with pytest.raises(Fault, match='hang'): attempt(lambda: time.sleep(5), seconds=.05)
    with pytest.raises(Fault, match="not fastrec's"): attempt(lambda: np.mean([]))
    with pytest.raises(Fault, match='names nothing'): attempt(lambda: warnings.warn('hm'))

def test_judged_tells_each_kind_with_a_seed(monkeypatch):
    monkeypatch.setattr(test_fuzz, 'n_cases', 6)
    monkeypatch.setattr(test_fuzz, 'first', 0)
    def case(seed):
        if seed%2: raise Fault(f'wrong by {seed} || more')
        if seed==4: raise IndexError('of its own')
    with pytest.raises(pytest.fail.Exception,
                       match=r'(?s)4 faults of 2 kinds.*3 times, first by seed 1.*1 times, first by seed 4: the judge broke'): test_fuzz.judged(case)
    test_fuzz.judged(lambda seed: None)

@pytest.fixture
def tiny():
    "Two users and three items, whose tables can be worked out by hand"
    rec = catalogue(torch.tensor([[1.,2],[0,-1]]), torch.tensor([[1.,0],[0,1],[1,1]]),
                    Seen(torch.tensor([[1,1],[1,3]]), 3, 4))
    rec.model.i_bias.weight.data[:] = torch.tensor([[0],[.5],[0],[-1.]])
    rec.model.u_bias.weight.data[:] = torch.tensor([[0],[.25],[0.]])
    return rec

def test_slow_by_hand(tiny):
    slow = Slow(tiny)
    assert slow.predict(0, 0)==3.5+.25+.5+1 and slow.predict(0, 2)==3.5+.25-1+3 and slow.predict(1, 1)==3.5-1
    assert slow.predict('nobody', 1)==3.5+.125+.5  # the average user: factors (.5,.5), bias .125
    assert slow.best(0, 2)==[(1,5.75),(2,5.75)] and slow.best(0, 9, gone={1})==[(2,5.75),(0,5.25)]
    assert slow.best(0, 9, items=[0,2], counts={0: 2, 2: 0})==[(0,5.25)]
    (first,a),(second,b) = slow.similar(1, 2)
    assert {first,second}=={0,1} and a==pytest.approx(b)==pytest.approx(.5**.5)
    tiny.model.y_range,tiny.model.clip = (1,5),True
    assert Slow(tiny).predict(0, 0)==5
    tiny.model.clip = False
    assert Slow(tiny).predict(0, 0)==pytest.approx(1+4/(1+math.exp(-5.25)))

def test_lists_are_checked_but_for_rounding():
    want = [('a',3.),('b',2.),('c',2.)]
    judge.check_list(want, want, 'x')
    judge.check_list([('a',3.),('b',2.00001),('d',2.)], want, 'x')  # equals at the end may change
    for got in (want[:2], [('a',3.),('a',2.),('c',2.)], [('b',2.),('a',3.),('c',2.)], [('a',3.),('b',2.),('d',1.9)],
                [('d',3.),('b',2.),('c',2.)]):
        with pytest.raises(Fault): judge.check_list(got, want, 'x')

def test_metrics_by_hand():
    got = list_metrics({'u': ['a','b'], 'v': ['a','c']}, {'u': {'b','x'}, 'v': {'z'}}, 2, {'a': 2, 'b': 1, 'c': 0}, 4,
                       5)
    want = dict(precision_at_2=.25, recall_at_2=.25, ndcg_at_2=(1/math.log2(3))/(1+1/math.log2(3))/2, map_at_2=.125,
                mrr_at_2=.25, hit_rate_at_2=.5, coverage=.6, novelty=(1+2+1+2)/4)
    assert got==pytest.approx(want)

def test_biases_by_hand():
    f = ridge_biases([('a','x',1.),('a','y',3.),('b','x',2.),('b','y',4.)], 2.)
    assert [f('a', 'x'),f('b', 'y'),f('c', 'z'),f('a', 'z')]==pytest.approx([1.75,3.25,2.5,2.25])

def test_frames_cover_what_people_have():
    notes,musts = collections.Counter(),collections.Counter()
    for seed in range(700):
        case = frames.case(seed)
        musts[case.must] += 1
        notes.update(' '.join(case.notes).split())
    assert all(n>70 for n in musts.values()) and len(musts)==3
    words = 'arrow polars nullable categories records coo csr dicts index times milliseconds days zone title headline twice user_name=1.5 dropna mark counts decimals uuids named lists repeat ×'.split()
    missing = [o for o in words if not notes[o] and not (o=='polars' and frames.polars is None) and o not in ('mark',
        'user_name=1.5')]
    assert not missing

def test_arguments_mean_what_they_say():
    r = test_fuzz.random.Random(0)
    drawn = [calls.several(r, [3,5,8]) for _ in range(500)]
    assert {type(o.means) for o in drawn}>={list,type(None),calls.Refuse}
    assert all(set(o.means)<={3,5,8} for o in drawn if isinstance(o.means, list))

# ------------------------------------------------------------------ an index of any kind
indexes = {'in another order': lambda n: np.random.default_rng(0).permutation(n),
           'with gaps': lambda n: np.arange(n)*3+5, 'alike': lambda n: [7]*n,
           'text': lambda n: [f'r{k}' for k in range(n)],
           'days': lambda n: pd.date_range('2020-01-01',
           periods=n), 'two levels': lambda n: pd.MultiIndex.from_arrays([range(n),[0]*n])}
kept_in = {'plain': lambda d: d, 'nullable': lambda d: d.convert_dtypes(),
           'Arrow': lambda d: d.convert_dtypes(dtype_backend='pyarrow'),
           'text': lambda d: d.astype(dict(user='str', title='string')),
           'categories': lambda d: d.astype(dict(user='category',
           title='category')), 'objects': lambda d: d.astype(dict(user=object,
           title=object)), 'sparse': lambda d: d.astype(dict(rating=pd.SparseDtype(float, 0.)))}

@pytest.mark.parametrize('index', indexes)
@pytest.mark.parametrize('kind', kept_in)
def test_an_index_moves_nothing(index, kind):
    "Rows stay together, and in their order, whatever they are called and kept in"
    df = sample_ratings(n_users=20, n_items=15, n_ratings=120,
                        seed=2).astype({'title': 'str'})[['user','title','rating','timestamp']]
    change = lambda d: kept_in[kind](d).set_axis(indexes[index](len(d)))
    split = lambda o: (np.arange(100), np.arange(100, len(o)))
    dls = RecDataLoaders.from_df(change(df), split, bs=16, time_name='timestamp')
    got = judge.pairs(dls.train_ds)
    assert [(str(u),i,y) for u,i,y in got]==[(str(u),i,y) for u,i,
        y in df[['user','title','rating']][:100].itertuples(index=False)]
    assert dls.train_ds.x[:,2].tolist()==df.timestamp[:100].tolist()
    learn = dot_learner(dls, 3)
    with learn.no_logging(),learn.no_bar(): learn.fit_bias(3)
    new = df[:30]
    if kind=='text': new = new.astype(dict(user='str'))
    want,held = learn.predict_df(new),change(new)
    mine = learn.predict_df(held)
    assert mine.index.equals(held.index) and np.array_equal(mine, want)
    pd.testing.assert_frame_equal(learn.evaluate(held, exclude_seen=False), learn.evaluate(new, exclude_seen=False))
    assert learn.recommend(exclude_seen=held, n=20).equals(learn.recommend(exclude_seen=new, n=20))
    stranger = [o.drop(columns='user') for o in (held,new)]
    assert torch.equal(*(learn.fold_in(o).predict_grid() for o in stranger))
    for s in (TimeSplitter(), LeaveLastSplitter(), UserSplitter(seed=0)):
        assert all(np.array_equal(a, b) for a,b in zip(s(change(df)), s(df)))

# ------------------------------------------------------------------ repeated pairs
@pytest.fixture(scope='module')
def repeats():
    "Every third rating is given again, another time with other stars"
    df = sample_ratings(n_users=40, n_items=30, n_ratings=500,
                        seed=2)[['user','title','rating']].astype({'title': 'str'})
    again = df[::3].assign(rating=lambda o: 6-o.rating)
    return pd.concat([df, again, again], ignore_index=True)

def fitted(df, how, n_valid=1, make=dot_learner, seed=0, **kwargs):
    n = len(df)-n_valid
    split = lambda o: (np.arange(n), np.arange(n, len(o)))
    with warnings.catch_warnings(action='ignore'):  # of pairs that repeat
        learn = make(RecDataLoaders.from_df(df, split, bs=64, seed=seed, **kwargs), **({} if make is dot_learner else {'n_factors': 6}))
    with learn.no_logging(),learn.no_bar(): how(learn)
    return learn

def test_each_row_of_a_repeated_pair_counts(repeats):
    learn = fitted(repeats, lambda l: l.fit_bias(200, reg=3, tol=0))
    assert len(learn.dls.train_ds)==len(repeats)-1
    want = ridge_biases(list(repeats[:-1].itertuples(index=False)), 3)
    for u,i in repeats[['user','title']].drop_duplicates()[::40].itertuples(index=False):
        assert learn.predict(u, i)==pytest.approx(min(max(want(u, i), 1), 5), abs=1e-3)

def test_als_solves_for_each_row_of_a_repeated_pair(repeats):
    learn = fitted(repeats, lambda l: l.fit_als(3, 60, reg=2, power=0, tol=0))
    m,ds = learn.model,learn.dls.train_ds
    users = torch.cat([e.weight.detach() for e in m.tables[0]], 1).double()
    for c in (1,7,20):
        z = torch.cat([users[ds.x[ds.x[:,1]==c,0].long(),:-1], torch.ones(int((ds.x[:,1]==c).sum()), 1)], 1)
        y = ds.y[ds.x[:,1]==c].double()-float(m.mean)-users[ds.x[ds.x[:,1]==c,0].long(),-1]
        want = torch.linalg.solve(z.T@z+2*torch.eye(4).double(), z.T@y)
        assert torch.allclose(torch.cat([m.i_weight.weight[c], m.i_bias.weight[c]]).double(), want, atol=1e-3)

def test_lists_leave_a_repeated_pair_out_once(repeats):
    learn = fitted(repeats, lambda l: l.fit_als(3, 3))
    user,n_items = repeats.user.mode()[0],len(learn.dls.classes['title'])-1
    own = set(repeats.title[repeats.user==user])
    recs = learn.recommend(user, n=500)
    assert len(recs)==n_items-len(own) and not own & set(recs.title) and recs.title.is_unique
    assert learn.recommend(user, n=500, exclude_seen=pd.concat([repeats[repeats.user==user]]*2)[['user',
        'title']]).equals(recs)

@pytest.mark.parametrize('times', [1,2,3])
def test_a_held_out_pair_counts_once(repeats, times):
    learn = fitted(repeats.drop_duplicates(['user','title']), lambda l: l.fit_als(3, 3), n_valid=40)
    held = learn.dls.valid_ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    once,more = learn.evaluate(held, k=5),learn.evaluate(pd.concat([held]*times, ignore_index=True), k=5)
    pd.testing.assert_frame_equal(once, more, atol=1e-6)

# ------------------------------------------------------------------ layers of one's own
own_layers = {'none': dict(layers=[]), 'one unit': dict(layers=[1]), 'three': dict(layers=[9,6,4]),
              'no batch norm': dict(use_bn=False), 'at the end': dict(bn_final=True),
              'dropout': dict(ps=[.5], layers=[8]),
              'linear first': dict(lin_first=False, layers=[8,
              5]), 'tanh': dict(act_cls=nn.Tanh()), 'leaky': dict(act_cls=nn.LeakyReLU(.3)), 'widths': dict(n_factors=(7,3))}

@pytest.mark.parametrize('name', own_layers)
def test_layers_of_ones_own_answer_as_they_are_run(name, tmp_path):
    df = sample_ratings(n_users=40, n_items=30, n_ratings=600, seed=2)
    kwargs = {'n_factors': 6, **own_layers[name]}
    learn = fitted(df, lambda l: l.fit_one_cycle(2), 100, lambda d, n_factors: nn_learner(d, **kwargs))
    check_grid(learn)
    assert torch.allclose(load_recommender(learn.save_recommender(tmp_path/'b'), 'cpu').predict_grid(),
                          learn.predict_grid(), atol=1e-6)

def check_grid(learn):
    "The grid is what the model gives pair by pair"
    n,m = (len(v) for v in learn.dls.classes.values())
    x = torch.cartesian_prod(torch.arange(1, n), torch.arange(1, m))
    with torch.no_grad(): want = learn.model.eval()(x).view(n-1, m-1)
    assert torch.allclose(learn.predict_grid(), want, atol=1e-5) and want.std()>1e-3

@pytest.mark.parametrize('first', [True,False], ids=['before the activation','after it'])
def test_batch_norm_where_it_is(first):
    learn = fitted(sample_ratings(n_users=40, n_items=30, n_ratings=600, seed=2), lambda l: None, 100, nn_learner)
    bn,act = nn.BatchNorm1d(8),nn.ReLU()
    learn.model.layers = nn.Sequential(nn.Sequential(nn.Linear(12, 8), *((bn,act) if first else (act,bn))),
                                       nn.Sequential(nn.Linear(8, 1)))
    with learn.no_logging(): learn.fit_one_cycle(3, 1e-2)
    check_grid(learn)
    slow,users,items = Slow(learn),*(v.labels for v in learn.dls.classes.values())
    assert learn.predict(users[3], items[4])==pytest.approx(slow.predict(users[3], items[4]), abs=1e-4)

# ------------------------------------------------------------------ draws at size
@pytest.fixture(scope='module', params=[1,2,100])
def drawn(request):
    df = sample_ratings(n_users=40, n_items=30, n_ratings=600, seed=2)
    return request.param,fitted(df, lambda l: l.fit_bayes(3, request.param+5, burn=5, n_draws=request.param), 100)

def test_the_mean_of_all_draws(drawn):
    n,learn = drawn
    assert learn.model.n_draws==n
    slow,(users,items) = Slow(learn),(v.labels for v in learn.dls.classes.values())
    for u,i in zip(users[::9], items[::6]):
        scores = scores_of(learn, u, [i])
        assert learn.predict(u, i)==pytest.approx(min(max(scores.mean(), 1), 5), abs=1e-4)
        assert learn.predict(u, i)==pytest.approx(slow.predict(u, i), abs=1e-4)

def scores_of(learn, user, items):
    "What each draw says of the `items`, (n_draws,n_items)"
    code = learn.dls.classes['user'].lookup([user])[0]
    x = torch.tensor([[code,k] for k in learn.dls.classes['title'].lookup(list(items))])
    return torch.stack([learn.model.one_draw(k).score_pairs(x).detach() for k in range(learn.model.n_draws)]).double().numpy()

def test_draws_tell_how_sure_they_are_if_they_are_several(drawn):
    n,learn = drawn
    slow,(users,items) = Slow(learn),(v.labels for v in learn.dls.classes.values())
    if n==1:
        for f in (lambda: learn.predict(users[0], items[0], std=True), lambda: learn.recommend(users[0], z=1.)):
            with pytest.raises(ValueError, match='one draw'): f()
        return
    for u,i in zip(users[::9], items[::6]):
        std = learn.predict(u, i, std=True)[1]
        assert math.isfinite(std) and std==pytest.approx(slow.std(u, i), rel=1e-3)
    scores = scores_of(learn, users[0], items)
    for z in (1.,-1.):
        want = np.sort(scores.mean(0)+z*scores.std(0, ddof=1))[::-1][:5].clip(1, 5)
        assert learn.recommend(users[0], n=5, z=z, exclude_seen=False).score.tolist()==pytest.approx(want.tolist(), abs=1e-3)

def test_draws_one_by_one_for_new_users_and_saved(drawn, tmp_path):
    n,learn = drawn
    users,items = (v.labels for v in learn.dls.classes.values())
    assert learn.recommend(users[0], n=3, draw=n-1).equals(learn.recommend(users[0], n=3, draw=-1))
    best = scores_of(learn, users[0], items)[n-1].argmax()
    assert learn.recommend(users[0], n=1, draw=n-1, exclude_seen=False).title[0]==items[best]
    assert learn.fold_in(pd.DataFrame(dict(title=items[:4], rating=[5.,1,4,2]))).predict_grid().isfinite().all()
    loaded = load_recommender(learn.save_recommender(tmp_path/'b'), 'cpu')
    assert torch.equal(loaded.predict_grid(), learn.predict_grid())
    assert loaded.recommend(users[0], n=3, draw=0).equals(learn.recommend(users[0], n=3, draw=0))

# ------------------------------------------------------------------ interpretation of loaders with times
@pytest.mark.parametrize('make', [dot_learner,nn_learner])
def test_times_change_nothing_in_interpretation(make):
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500, seed=2)
    plain,timed = (RecInterpretation.from_learner(fitted(df, lambda l: l.fit_one_cycle(2), 300, make,
        **kwargs)) for kwargs in ({},dict(time_name='timestamp')))
    for f in (lambda o: o.calibration(5), lambda o: o.error_by_count(), lambda o: o.error_by_count(False),
              lambda o: o.item_bias(), lambda o: o.user_bias(), lambda o: o.item_pca(2)):
        pd.testing.assert_frame_equal(f(plain), f(timed))
    a,b = plain.top_losses(7),timed.top_losses(7)
    pd.testing.assert_frame_equal(a, b[list(a)])
    cal,err = timed.calibration(5),timed.preds.numpy()
    assert cal.predicted.between(err.min(),
                                 err.max()).all() and (cal.rows*cal.predicted).sum()/cal.rows.sum()==pytest.approx(err.mean(), abs=1e-4)
    (ax,) = {timed.plot_top_losses(4)}
    assert ax.get_xlim()[1]<20  # stars, not seconds

def test_times_in_effects_are_interpreted():
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500, seed=2)
    learn = fitted(df, lambda l: l.fit_bayes(2, 10, time='30D'), 300, time_name='timestamp')
    interp = RecInterpretation.from_learner(learn)
    held = df[-300:].reset_index(drop=True)
    known = held.title.isin(learn.dls.classes['title'].labels) & held.user.isin(learn.dls.classes['user'].labels)
    assert np.allclose(interp.preds[torch.tensor(known.tolist())], learn.predict_df(held[known]), atol=1e-5)
    assert interp.calibration(5).rows.sum()==300 and interp.error_by_count().rows.sum()==300
    top = interp.top_losses(5)
    assert np.allclose(top.loss, (top.rating-top.rating_pred)**2, rtol=1e-4) and top.rating_pred.between(1, 5).all()
