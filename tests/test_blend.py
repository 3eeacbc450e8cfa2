"""Lists of what people choose and like, by one recommender: the blend, its weights, and all that a recommender answers"""
import json,sys,warnings
import numpy as np,pandas as pd,pytest,torch
from concurrent.futures import ThreadPoolExecutor
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.metrics import rmse
from fastrec.export.files import checksum
from fastrec.all import Blend,BundleError,Ease,RecDataLoaders,learner,list_metrics,load_learner,load_recommender,sample_ratings
from fastrec.answer.steering import Damped

@pytest.fixture(scope='module')
def dls(): return RecDataLoaders.from_df(sample_ratings(n_users=400, n_items=200, n_ratings=16_000), seed=42)

def fitted(dls, *args, how='fit_blend', **kwargs):
    learn = learner(dls)
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(*args, **kwargs)
    return learn

@pytest.fixture(scope='module')
def blend(dls): return fitted(dls)

def ndcg(learn, **kwargs): return learn.evaluate(**kwargs).ndcg_at_10['model']

def test_finds_what_people_choose_and_like(dls, blend):
    ials,als = fitted(dls, how='fit_ials'),fitted(dls, how='fit_als')
    popularity = blend.evaluate().ndcg_at_10['popularity']
    assert ndcg(blend)>.97*ndcg(ials) and ndcg(blend)>1.3*popularity>ndcg(als)
    assert ndcg(blend, min_rating=4)>1.03*ndcg(ials, min_rating=4)
    assert blend.evaluate().rmse['model']==pytest.approx(als.evaluate().rmse['model'], rel=1e-3)

def test_scores_are_the_weighted_sum(dls, blend):
    ranker = blend.model.ranker
    users,items = torch.arange(1, 6),torch.arange(1, 201)
    with torch.no_grad():
        want = sum(w*m.score(m.user_side(users), m.item_side(items)) for w,m in zip(ranker.weights, ranker.parts))
        got = ranker.score_grid(users, items)
        pairs = ranker(torch.cartesian_prod(users, items)).view(5, -1)
    assert torch.allclose(got, want, atol=1e-4) and torch.allclose(pairs, want, atol=1e-4)
    user = dls.classes['user'].labels[0]
    df = blend.recommend(user, n=200, exclude_seen=False)
    codes = torch.tensor(dls.classes['title'].lookup(df.title))
    assert torch.allclose(torch.tensor(df.score.to_numpy()), want[0,codes-1], atol=1e-4) and df.score.is_monotonic_decreasing
    assert np.allclose(df.rating_pred, blend.predict_df(df.assign(user=user)), atol=1e-4)

def test_choices_of_a_weight(dls):
    "More weight of ratings: lists that are liked better, by the model itself"
    liked = [fitted(dls, weight=w).recommend(n=5).rating_pred.mean() for w in (0,.3,3)]
    assert liked[0]<liked[1]-.02<liked[2]-.1
    by_choices = fitted(dls, weight=0, choices='fit_ials')
    lists = by_choices.recommend(n=5)
    assert lists[['user','title']].equals(fitted(dls, how='fit_ials').recommend(n=5)[['user','title']])

def test_weights_are_those_that_were_asked_for(blend):
    asked = blend.model.ranker.asked
    best = asked.iloc[0]
    assert best.ndcg>=.995*asked.ndcg.max() and (asked.weight[asked.ndcg>=.995*asked.ndcg.max()]<=best.weight).all()
    table = blend.settings()
    assert table.value['weight']==best.weight and 'held-out' in table.rule['weight']
    given = fitted(blend.dls, weight=.2).settings()
    assert given.rule['weight']=='given' and given.loc['share of fit_ease',['value','rule']].tolist()==[.5,'half, as weight is given']
    one = fitted(blend.dls, choices='fit_ials').settings()
    assert 'share of fit_ease' not in one.index and 'held-out' in one.rule['weight'] and one.rule['choices']=='given'

def test_fits_of_choices_with_arguments(dls, monkeypatch):
    "Those are used on all rows and on the part that weights are tried on, and told; a fit without any chooses its own"
    from fastrec.evaluate import blend as module
    calls,real = [],module._fitted
    monkeypatch.setattr(module, '_fitted', lambda learn, dls, fit, kwargs: calls.append((fit,kwargs)) or real(learn, dls, fit, kwargs))
    given = dict(fit_ials=dict(reg=.3, n_factors=5, n_sweep=3), fit_ease={})
    learn = fitted(dls, choices=given)
    of_ials = [o for fit,o in calls if fit=='fit_ials']
    assert of_ials[0]==given['fit_ials'] and len(of_ials)==2 and {k: of_ials[1][k] for k in ('n_factors','n_sweep')}==dict(n_factors=5, n_sweep=3)
    assert of_ials[1]['reg']==pytest.approx(.3) and [o['reg'] for fit,o in calls if fit=='fit_ease'][0]==fitted(dls).settings().value['reg of fit_ease']
    table = learn.settings()
    assert table.rule[['n_factors of fit_ials','reg of fit_ials','reg of fit_ease']].tolist()==['given','given','as that fit chooses it']
    want = fitted(dls, how='fit_ials', reg=.3, n_factors=5, n_sweep=3).model
    for a,b in zip(learn.model.ranker.parts[0].parameters(), want.parameters()): assert a.equal(b)
    popular = fitted(dls, choices=dict(fit_ials=dict(n_factors=0), fit_ease={}))  # it has been asked for, and not found
    table = popular.settings()
    assert isinstance(popular.model.ranker.parts[1], Ease) and table.value['n_factors of fit_ials']==0 and table.rule['n_factors of fit_ials']=='given'
    only = fitted(dls, choices=dict(fit_ease=dict(reg=50.)))
    assert only.model.ranker.parts[0].reg==50 and only.last_fit[1]['choices']==dict(fit_ease=dict(reg=50.))

def test_settings_name_the_fits_that_ran(dls, monkeypatch):
    "And what they chose, so that each can be made again"
    from fastrec.evaluate import blend as module
    ials,ease = fitted(dls).model.ranker.parts[:2]
    table = fitted(dls).settings().value
    assert table['choices']=='fit_ials and fit_ease' and table['reg of fit_ease']==ease.reg
    assert table[['n_factors of fit_ials','alpha0 of fit_ials','reg of fit_ials']].tolist()==[ials.width,ials.ials['alpha0'],ials.ials['reg']]
    monkeypatch.setattr(module, '_most_items', 3)
    table = fitted(dls).settings().value
    assert table['choices']=='fit_ials' and not [o for o in table.index if 'ease' in o]

@pytest.mark.filterwarnings('ignore:who chose what says no more')
@pytest.mark.parametrize('choices', [None,'fit_ials'])
def test_settings_say_that_lists_are_of_what_is_popular(choices):
    "Choices at random, and so are ratings: popularity takes the place of all fits of choices, and no weight is sure to find more"
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(rng.integers((300,80), size=(6000,2)), columns=['user','title']).drop_duplicates()
    learn = fitted(RecDataLoaders.from_df(pairs.assign(rating=rng.integers(1, 6, len(pairs))), seed=1), choices=choices)
    table = learn.settings()
    assert table.loc['weight',['value','rule']].tolist()==[0,'no weight finds more held-out training rows than popularity by two standard errors']
    assert table.value['n_factors of fit_ials']==0 and table.rule['n_factors of fit_ials']=='choices agree no further than by chance'
    assert table.loc['choices',['value','rule']].tolist()==(['fit_ials','given'] if choices else ['popularity','choices agree no further than by chance'])
    assert not [o for o in table.index if 'ease' in o or o=='reg of fit_ials']
    asked_for = fitted(learn.dls, weight=1., choices=choices).settings()
    assert asked_for.loc['weight',['value','rule']].tolist()==[1,'given'] and asked_for.value['n_factors of fit_ials']==0

@pytest.mark.filterwarnings('ignore:who chose what says no more')
def test_settings_say_that_ratings_find_more_than_what_is_popular():
    "Everybody may choose anything, and the films that are held out are those with high ratings: their weight is above 0"
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(rng.integers((400,100), size=(9000,2)), columns=['user','title']).drop_duplicates()
    good = pairs.title%10==0
    ratings = pairs.assign(rating=np.where(good, 5, rng.integers(1, 4, len(pairs))))
    table = fitted(RecDataLoaders.from_df(ratings, seed=1), min_rating=4).settings()
    assert table.value['choices']=='popularity' and table.value['weight']>0
    assert table.rule['weight']=='finds more held-out training rows than popularity by two standard errors'

def test_std_beside_lists_where_there_are_draws(dls):
    learn = fitted(dls, weight=.3, ratings='fit_bayes')
    df = learn.recommend(n=3)
    assert list(df)==['user','rank','title','score','rating_pred','std'] and (df['std']>0).all()
    pred = learn.predict_df(df, std=True)
    assert np.allclose(df['std'], pred['std'], atol=1e-4)
    for how in (dict(z=-1), dict(draw=1), dict(z=1, damping=.3)):  # ranked by the draws: what is predicted is the mean, as ever
        lists = [learn.recommend(n=3, **how)]
        if 'damping' not in how: lists.append(learn.recommend_users(learn.ds.classes['title'].labels[:2], n=3, **how))
        for o in lists:
            pred = learn.predict_df(o, std=True)
            assert list(o)[3:]==['score','rating_pred','std'] and np.allclose(o[['rating_pred','std']], pred, atol=1e-4)
            if 'draw' in how: assert not np.allclose(o.score, pred.rating_pred, atol=1e-2)

# ------------------------------------------------------------------ what a recommender answers
def same_lists(a, b):
    pd.testing.assert_frame_equal(a, b, check_exact=False, rtol=1e-4)

@pytest.mark.parametrize('ratings', ['fit_als','fit_bayes'])
def test_saved_loaded_exported(dls, ratings, tmp_path):
    learn = fitted(dls, weight=.3, ratings=ratings)
    want = learn.recommend(n=4)
    loaded = load_recommender(learn.save_recommender(tmp_path/'bundle'), 'cpu')
    same_lists(loaded.recommend(n=4), want)
    same_lists(load_recommender(loaded.save_recommender(tmp_path/'again'), 'cpu').recommend(n=4), want)
    new = pd.DataFrame(dict(title=dls.classes['title'].labels[:6], rating=[5.,4,5,3,4,5]))
    same_lists(loaded.fold_in(new).recommend(n=4), learn.fold_in(new).recommend(n=4))
    learn.export(tmp_path/'learn.pkl')
    with warnings.catch_warnings(action='ignore'): same_lists(load_learner(tmp_path/'learn.pkl').recommend(n=4, exclude_seen=False), learn.recommend(n=4, exclude_seen=False))

@pytest.mark.parametrize('forge', [lambda m: m.pop('ranker'), lambda m: m['ranker'].update(parts=m['ranker']['parts'][:2]), lambda m: m['ranker'].pop('parts'),
    lambda m: m['ranker'].update(clip=3), lambda m: m.update(ranker=3)], ids=['none','two parts','no parts','clip','no model'])
def test_forged_manifests_are_refused(dls, blend, forge, tmp_path):
    folder = blend.save_recommender(tmp_path/'bundle')
    said = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    forge(said['model'])
    (folder/'manifest.json').write_text(json.dumps({**said, 'checksum': checksum(said)}), encoding='utf-8')
    with pytest.raises(BundleError): load_recommender(folder)

def test_newcomers_get_the_lists_of_those_who_chose_the_same(dls, blend):
    "Weights of items know a user by the choices alone, so a newcomer with those of somebody in training gets nearly the same list"
    own = dls.train_ds.decode(dls.train_ds.x, dls.train_ds.y)
    users = own.user.value_counts().index[:20]
    new = blend.fold_in(own[own.user.isin(users)]).recommend(users.sort_values(), n=10)
    old = blend.recommend(users.sort_values(), n=10, exclude_seen=own)
    n_same = [len(set(new.title[new.user==u])&set(old.title[old.user==u])) for u in users]
    assert np.mean(n_same)>=8

def test_written_to_a_file(blend, tmp_path):
    df = pd.read_parquet(blend.recommend(n=3, path=tmp_path/'lists.parquet'))
    assert np.allclose(df.rating_pred, blend.recommend(n=3).rating_pred, atol=1e-5)

# ------------------------------------------------------------------ fits before and after
@pytest.mark.parametrize('how,args', [('fit_als',(16,)), ('fit_als',(4,)), ('fit_bayes',(16,20)), ('fit_one_cycle',(1,)), ('fit_bias',())])
def test_another_fit_makes_its_lists_itself_and_says_so(dls, how, args):
    learn = fitted(dls, weight=.3)
    with learn.no_bar(),learn.no_logging():
        with pytest.warns(UserWarning, match='call fit_blend again'): getattr(learn, how)(*args)
    assert learn.model.lists_by is learn.model and 'rating_pred' not in learn.recommend(n=1)
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=.3)
    assert 'rating_pred' in learn.recommend(n=1)

def test_what_trains_nothing_keeps_the_blend(dls):
    learn = fitted(dls, weight=.3)
    want = learn.recommend(n=3)
    learn.lr_find(show_plot=False)
    same_lists(learn.recommend(n=3), want)
    with pytest.raises(ValueError): learn.fit_als(-1)
    with pytest.raises(ValueError): learn.fit(1, lr=-1)
    same_lists(learn.recommend(n=3), want)
    learn.validate()
    same_lists(learn.recommend(n=3), want)

def test_a_blend_again(dls, blend):
    learn = fitted(dls, weight=3)
    with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    assert learn.model.ranker.asked.equals(blend.model.ranker.asked)

@pytest.mark.parametrize('name,n', [('trial_of',0), ('_fitted',0), ('_fitted',2), ('_fitted',4), ('unit',1), ('_by_preference',0), ('callback',0)], ids=str)
def test_interrupted_leaves_the_model_from_before(dls, name, n, monkeypatch):
    learn = fitted(dls, how='fit_als')
    before,state = learn.recommend(n=3),learn.last_fit
    class Stop(Callback):
        def before_batch(self):
            if self.epoch==1: raise KeyboardInterrupt
    module,calls = sys.modules['fastrec.evaluate.blend'],iter(range(1000))
    if name!='callback':
        then = getattr(module, name)
        def stop(*args):
            if next(calls)==n: raise KeyboardInterrupt
            return then(*args)
        monkeypatch.setattr(module, name, stop)
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_blend(cbs=Stop() if name=='callback' else None)
    same_lists(learn.recommend(n=3), before)
    assert learn.last_fit==state

def test_same_seed_same_lists(dls, blend): same_lists(fitted(dls).recommend(n=5), blend.recommend(n=5))

# ------------------------------------------------------------------ choices alone, and bad input
def test_choices_alone(dls, tmp_path):
    df = sample_ratings(n_users=400, n_items=200, n_ratings=16_000).assign(rating=1.)
    learn = learner(RecDataLoaders.from_df(df, seed=42), y_range=(.5,1.5))
    with learn.no_bar(),learn.no_logging(),pytest.warns(UserWarning, match='no fit of ratings, and cbs are not called'): learn.fit_blend(cbs=SaveModelCallback())
    with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    assert type(learn.model) is Blend and len(learn.model.parts)==2
    res = learn.evaluate().ndcg_at_10
    assert res['model']>1.3*res['popularity']
    assert list(learn.recommend(n=2))==['user','rank','title','score'] and len(learn.similar(learn.dls.classes['title'].labels[0], n=3))==3
    told = learn.settings()
    assert 'held-out' in told.rule['share of fit_ease'] and told.rule['weight']=='the default' and told.rule['ratings'].startswith('all ratings are the same')
    loaded = load_recommender(learn.save_recommender(tmp_path/'bundle'), 'cpu')
    same_lists(loaded.recommend(n=4), learn.recommend(n=4))
    new = learn.fold_in(pd.DataFrame(dict(title=learn.dls.classes['title'].labels[:3], rating=1.)))
    assert len(new.recommend(n=4))==4

def test_gradients_do_not_train_choices():
    learn = learner(RecDataLoaders.from_df(sample_ratings(n_users=200, n_items=100, n_ratings=5000).assign(rating=1.), seed=1), y_range=(.5,1.5))
    with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    for train in (lambda: learn.fit_one_cycle(1), lambda: learn.fit(1)):
        with pytest.raises(ValueError, match='by fit_blend'): train()

@pytest.mark.parametrize('kwargs,match', [(dict(weight=-1), 'weight=-1 must be 0 or more'), (dict(weight=np.nan), 'weight'), (dict(choices='fit_als'), 'choices'), (dict(choices=()), 'choices'),
    (dict(choices=('fit_ials','fit_ials')), 'once'), (dict(choices={}), 'choices'), (dict(choices=dict(fit_als={})), 'choices'), (dict(choices=dict(fit_ials=dict(reg=-1.))), 'reg'), (dict(ratings='fit_ials'), 'ratings'), (dict(min_rating='high'), 'min_rating'), (dict(min_rating=4, weight=.2), 'pass one of them'), (dict(min_rating=6.), 'min_rating=6.0')], ids=str)
def test_refused(dls, kwargs, match):
    learn = fitted(dls, how='fit_bias')
    before = learn.predict_grid()
    with learn.no_bar(),learn.no_logging(),pytest.raises((ValueError,TypeError), match=match): learn.fit_blend(**kwargs)
    assert learn.predict_grid().equal(before) and learn.last_fit[0]=='fit_bias'

def test_a_few_ratings():
    df = pd.DataFrame(dict(user=[1,1,2,3,3,2,4], title=list('abacbda'), rating=[1.,2,3,4,5,1,2]))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=.2, seed=0), n_factors=4, y_range=(.5,5.5))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): learn.fit_blend()
    assert learn.recommend(n=2).score.notna().all()

def test_a_rating_outside_those_of_training():
    df = sample_ratings(n_users=200, n_items=100, n_ratings=5000).query('rating>=2').reset_index(drop=True)
    df.loc[0,'rating'] = 1.
    n = len(df)
    with warnings.catch_warnings(action='ignore'):
        learn = learner(RecDataLoaders.from_df(df, lambda _: (np.arange(150, n),np.arange(150))))
        with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    assert learn.recommend(n=2).rating_pred.between(2, 5).all()

def test_choices_after_a_fit_of_equal_ratings():
    learn = learner(RecDataLoaders.from_df(sample_ratings(n_users=200, n_items=100, n_ratings=5000).assign(rating=1.), seed=1), y_range=(.5,1.5))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
        learn.fit_als()
        learn.fit_blend()
    assert type(learn.model) is Blend

def test_a_fit_amid_a_request(dls, monkeypatch):
    "Lists are ranked and shown by the model that there was when they were asked for"
    learn = fitted(dls, weight=.3)
    want = learn.recommend(n=3)
    module = sys.modules['fastrec.answer.steering']
    find = module.best_unseen
    def amid(*args):
        find(*args)
        del learn.model.ranker
    monkeypatch.setattr(module, 'best_unseen', amid)
    same_lists(learn.recommend(n=3), want)

# ------------------------------------------------------------------ while it is fitted, and what is recorded
def test_others_see_the_model_from_before_until_all_is_done(dls):
    learn = fitted(dls, weight=.3)
    before,model,answers = learn.recommend(n=3),learn.model,[]
    class Ask(Callback):
        def after_epoch(self):
            if self.epoch!=1: return
            assert self.learn.model is not model  # who fits sees what is fitted
            with ThreadPoolExecutor(1) as pool: answers.append(pool.submit(lambda: (learn.recommend(n=3),learn.model is model,learn.noise)).result(60))
    noise = learn.noise
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=1.5, cbs=Ask())
    (lists,is_same,other_noise), = answers
    same_lists(lists, before)
    assert is_same and other_noise==noise and learn.model is not model
    with ThreadPoolExecutor(1) as pool: assert pool.submit(lambda: learn.model).result(60) is learn.model
    class Stop(Callback):
        def after_epoch(self): raise KeyboardInterrupt
    with learn.no_bar(),learn.no_logging(),pytest.raises(KeyboardInterrupt): learn.fit_blend(weight=1., cbs=Stop())
    with ThreadPoolExecutor(1) as pool: assert pool.submit(lambda: learn.model).result(60) is learn.model

def test_saved_by_another_thread_meanwhile(dls, tmp_path):
    learn = fitted(dls, weight=.3)
    before = learn.predict_grid(),learn.recommend(n=3)
    class Meanwhile(Callback):
        def after_epoch(self):
            if self.epoch==1:
                with ThreadPoolExecutor(1) as pool: pool.submit(learn.save_recommender, tmp_path/'bundle').result(60)
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=1.5, cbs=Meanwhile())
    rec = load_recommender(tmp_path/'bundle', 'cpu')
    assert torch.allclose(rec.predict_grid(), before[0], atol=1e-5)
    same_lists(rec.recommend(n=3), before[1])

def test_history_is_of_ratings_and_not_of_their_lists(dls):
    learn = learner(dls, metrics=[rmse,*list_metrics()])
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=.3)
    assert list(learn.history)==['train_loss','valid_loss','rmse'] and len(learn.metrics)==4
    assert learn.history.rmse.iloc[-1]==pytest.approx(learn.evaluate().rmse['model'], abs=1e-3)
    with learn.no_bar(),learn.no_logging(),pytest.raises(ValueError, match="'ndcg_at_10', and the lists of fit_blend exist only at the end"):
        learn.fit_blend(weight=.3, cbs=SaveModelCallback('ndcg_at_10'))
    with learn.no_bar(),learn.no_logging(),pytest.warns(UserWarning, match='call fit_blend again'): learn.fit_als(4, 3)
    assert 'ndcg_at_10' in learn.history

def test_choices_alone_have_no_record_of_another_fit():
    learn = learner(RecDataLoaders.from_df(sample_ratings(n_users=100, n_items=60, n_ratings=3000).assign(rating=1.), seed=1), y_range=(.5,1.5))
    with learn.no_bar(),learn.no_logging():
        learn.fit_ials(4, 3)
        assert len(learn.history)==3
        learn.fit_blend()
    with pytest.raises(ValueError, match='no record of a fit'): learn.history

def test_the_table_of_ease_is_not_copied(dls, blend):
    ranker,table = blend.model.ranker,next(m for m in blend.model.ranker.parts if isinstance(m, Ease))
    own = table.weight.untyped_storage().data_ptr()
    items = torch.arange(1, 201)
    for o in (ranker, Damped(ranker, blend.counts, .5).model): assert own in [p.untyped_storage().data_ptr() for p in o.item_side(items).parts]
    inner = Damped(ranker, blend.counts, .5).item_side(items).parts[0]
    assert own in [p.untyped_storage().data_ptr() for p in inner.parts]
    assert Damped(table, blend.counts, .5).item_side(items).parts[0].untyped_storage().data_ptr()==own
    some = torch.tensor([3,0,7])
    with torch.no_grad():
        want = ranker.score(ranker.user_side(items[:4]), ranker.item_side(torch.arange(201)))[:,some]
        assert torch.allclose(ranker.score_grid(items[:4], some), want, atol=1e-4)

@pytest.mark.parametrize('fit', ['fit_als','fit_bayes'])
def test_a_solver_stopped_before_its_first_sweep_says_nothing_of_a_blend_that_stays(fit):
    class Stop(Callback):
        def before_fit(self): raise KeyboardInterrupt
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1))
    with learn.no_bar(),learn.no_logging():
        learn.fit_blend(weight=.3)
        want = learn.recommend(n=3)
        with warnings.catch_warnings(action='error'),pytest.raises(KeyboardInterrupt): getattr(learn, fit)(cbs=Stop())
        assert learn.recommend(n=3).equals(want)
        with pytest.warns(UserWarning, match='call fit_blend again'): getattr(learn, fit)(4, 2)

def test_diversity_without_factors_says_what_to_leave_out():
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1))
    with learn.no_bar(),learn.no_logging(): learn.fit_bias()
    with pytest.raises(ValueError, match='leave diversity out'): learn.recommend(n=3, diversity=.3)

def test_scores_that_are_all_alike_do_not_drown_ratings():
    "Where everybody has chosen everything choices say nothing, and their rounding is no reason for a place"
    pairs = pd.DataFrame([(u,i) for u in range(30) for i in range(12)], columns=['user','item'])
    rng = np.random.default_rng(3)
    taste = .3*rng.normal(size=30)[pairs.user]+rng.normal(size=12)[pairs.item]
    every = pairs.assign(rating=np.clip(np.round(3+taste), 1, 5))
    n = len(every)
    both = pd.concat([every,every.sample(30, random_state=1)], ignore_index=True)
    dls = RecDataLoaders.from_df(both, splitter=lambda o: (list(range(n)),list(range(n,len(both)))), device='cpu')
    learn = fitted(dls, weight=.5)
    assert learn.model.ranker.weights.max()<100
    lists = learn.recommend(None, n=12, exclude_seen=False)
    by_rating = lists.sort_values(['user','rating_pred'], ascending=[True,False])
    assert (by_rating['rank'].to_numpy()==lists['rank'].to_numpy()).mean()>.9

@pytest.mark.filterwarnings('ignore:who chose what', 'ignore:there is no held-out')
def test_one_item_has_scores_of_shares():
    everybody = pd.DataFrame(dict(user=range(20), item='a', rating=1.))
    learn = fitted(RecDataLoaders.from_df(everybody, seed=1, device='cpu'))
    assert learn.predict_grid([0,1], ['a']).abs().max()<10

def choices_alone():
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame([(u,i) for u in range(120) for i in range(u%3, 36, 3) if rng.random()<.7], columns=['user','item'])
    return RecDataLoaders.from_df(pairs.assign(rating=1.), seed=1, device='cpu')

def test_weights_alone_say_what_is_alike():
    dls = choices_alone()
    got,want = (o.similar(0, n=3, why=True) for o in (fitted(dls, choices='fit_ease'),fitted(dls, how='fit_ease')))
    pd.testing.assert_frame_equal(got, want)
    assert 'axis' not in got and 'axis' in fitted(dls, choices='fit_ials').similar(0, n=3, why=True)

def test_choices_say_what_is_alike_and_ratings_where_these_know_nothing(dls):
    blend = fitted(dls, choices='fit_ials')
    label = dls.classes['title'].labels[0]
    same = learner(dls)
    same.model = blend.model.ranker.parts[0]
    assert blend.similar(label, n=5).equals(same.similar(label, n=5))
    stars,popular = fitted(dls, how='fit_als'),fitted(dls, 0, how='fit_ials')
    mixed = learner(dls)
    mixed.model = Blend([popular.model,stars.model], [1.,.3])
    mixed.model.classes = dls.classes
    assert mixed.similar(label, n=5).equals(stars.similar(label, n=5))
    user = dls.classes['user'].labels[0]
    assert len(mixed.recommend(user, n=5, diversity=.5))==5

@pytest.mark.filterwarnings('ignore:who chose what')
def test_popularity_has_no_axes():
    learn = fitted(RecDataLoaders.from_df(pd.DataFrame(dict(user=range(20), item='a', rating=1.)), seed=1, device='cpu'), how='fit_ease')
    assert not len(learn.similar('a', why=True, by='choices'))

# ------------------------------------------------------------------ what all rows tell is not decided anew by a part of them
def tasteful(seed=0, n_users=240, n_items=60, each=8):
    "Choices of two camps, enough of which a fit finds taste in, and in fewer perhaps not"
    rng = np.random.default_rng(seed)
    chances = rng.lognormal(size=n_items)*np.where(np.arange(n_items)%2==np.arange(n_users)[:,None]%2, 6, 1)
    items = np.concatenate([rng.choice(n_items, each, False, o/o.sum()) for o in chances])
    df = pd.DataFrame(dict(user=np.arange(n_users).repeat(each), title=items, rating=rng.integers(1, 6, n_users*each).astype(float)))
    return RecDataLoaders.from_df(df, seed=seed)

def answers_of(monkeypatch):
    "The answers to whether there is taste, by either fit"
    from fastrec.fit import ease,ials
    calls = []
    for room in (ials,ease):
        then = room.finds_taste
        monkeypatch.setattr(room, 'finds_taste', lambda o, then=then: calls.append(then(o)) or calls[-1])
    return calls

def fits_of(monkeypatch):
    "The fits of `_fitted`, their arguments, and how many rows they had"
    from fastrec.evaluate import blend
    then,calls = blend._fitted,[]
    monkeypatch.setattr(blend, '_fitted', lambda learn, dls, fit, kwargs: calls.append((fit,kwargs,len(dls.train_ds))) or then(learn, dls, fit, kwargs))
    return calls

def test_taste_is_asked_once_and_a_part_is_fitted_as_all(monkeypatch):
    dls = tasteful()
    asked,fits = answers_of(monkeypatch),fits_of(monkeypatch)
    parts = fitted(dls).model.ranker.parts
    assert asked==[True] and type(parts[1]) is Ease
    own = dict(n_factors=parts[0].width, alpha0=parts[0].ials['alpha0'], reg=parts[0].ials['reg'])
    n = len(dls.train_ds)
    assert fits[0]==('fit_ials',{},n) and fits[1]==('fit_ease',dict(reg=parts[1].reg),n)
    assert [o[:2] for o in fits[2:]]==[('fit_ials',own), ('fit_ease',dict(reg=parts[1].reg)), ('fit_als',{})] and all(o[2]<n for o in fits[2:])
    alone = [fitted(dls, how=o).model for o in ('fit_ials','fit_ease')]
    assert torch.equal(alone[0].i_weight.weight, parts[0].i_weight.weight) and torch.equal(alone[1].weight, parts[1].weight)

def test_where_all_have_no_taste_a_part_has_none(monkeypatch):
    monkeypatch.setattr(sys.modules['fastrec.fit.taste'], 'has_taste', lambda o: False)
    fits = fits_of(monkeypatch)
    with pytest.warns(UserWarning, match='who chose what') as told: learn = fitted(tasteful())
    assert len(told)==1
    assert [o[:2] for o in fits]==[('fit_ials',{})]+2*[('fit_ials',dict(n_factors=0))]+[('fit_ials',dict(n_factors=0)), ('fit_als',{})]
    a,b,_ = learn.model.ranker.parts
    assert torch.equal(a.i_bias.weight, b.i_bias.weight) and not a.item_factors.any() and not b.item_factors.any()
    assert learn.model.ranker.asked.query('weight==.2').ndcg.nunique()==1

@pytest.mark.parametrize('choices', [('fit_ease','fit_ials'), 'fit_ease'])
def test_the_order_of_choices_and_one_alone(choices):
    parts = fitted(tasteful(), choices=choices).model.ranker.parts
    assert type(parts[0]) is Ease and len(parts)==1+(choices!='fit_ease')+1

def test_counts_are_told_of_once_and_by_the_name_of_the_blend():
    df = sample_ratings(n_users=100, n_items=60, n_ratings=3000)
    df = df.assign(rating=np.random.default_rng(0).pareto(1, len(df)).round()+1)
    with warnings.catch_warnings(action='ignore'): dls = RecDataLoaders.from_df(df, seed=1)
    with pytest.warns(UserWarning) as told: fitted(dls)
    assert [('fit_blend takes every row' in str(o.message)) for o in told if 'as counts do' in str(o.message)]==[True]

def test_a_goal_that_nothing_reaches_is_refused_before_all_fits(dls, monkeypatch):
    fits = fits_of(monkeypatch)
    with pytest.raises(ValueError, match='reach min_rating=9'): fitted(dls, min_rating=9)
    assert not fits

def test_who_asks_a_blend_for_draws_is_told_how_it_gets_them(blend, dls):
    user,title = (v[1] for v in blend.dls.classes.values())
    for f in (lambda: blend.recommend(user, z=1.), lambda: blend.recommend(user, draw=0), lambda: blend.predict(user, title, std=True)):
        with pytest.raises(ValueError, match=r"fit it with fit_blend\(ratings='fit_bayes'\)$"): f()
    with pytest.raises(ValueError, match='fit it with fit_bayes$'): fitted(dls, how='fit_als').recommend(user, z=1.)

def test_where_choices_have_no_taste_ratings_count_only_if_lists_surely_find_more():
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame(dict(user=rng.integers(60, size=2600), title=(rng.random(2600)**2*120).astype(int))).drop_duplicates()
    liked = pairs.assign(rating=rng.choice([1.,2,3,4,5], len(pairs)))  # at random
    for seed in range(3):
        with pytest.warns(UserWarning, match='who chose what'): learn = fitted(RecDataLoaders.from_df(liked, valid_pct=.2, seed=seed))
        *_,weight = learn.model.ranker.weights.tolist()
        gain = learn.model.ranker.asked
        assert weight==0 and (gain.weight==0).idxmax()==0 and len(gain)>8
        assert learn.evaluate().ndcg_at_10.model==pytest.approx(learn.evaluate().ndcg_at_10.popularity, abs=1e-6)

def test_lists_that_ratings_make_differ_are_not_said_to_be_the_same_for_everybody(monkeypatch):
    monkeypatch.setattr(sys.modules['fastrec.fit.taste'], 'has_taste', lambda o: False)
    with pytest.warns(UserWarning, match='only ratings, with a weight of 1, make them differ') as told: learn = fitted(tasteful(), weight=1.)
    firsts = learn.recommend(n=1).title
    assert firsts.nunique()>1 and not any('same for everybody' in str(o.message) for o in told)
    with pytest.warns(UserWarning, match=r'same for everybody.*fit_blend\(weight=1\.\) lets ratings') as told: learn = fitted(tasteful(), weight=0.)
    assert len(told)==1 and len({*learn.recommend(n=1, exclude_seen=False).title})==1
