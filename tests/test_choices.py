"""Choices are not stars: what `fit_ials` learns from, what its preferences are compared with, and people who are folded in"""
import inspect,warnings
import matplotlib
matplotlib.use('Agg')
import warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.core import Callback
from fastai.callback.tracker import SaveModelCallback
from fastai.learner import load_learner
from fastai.metrics import mae
from conftest import release_path
from test_metrics import as_first_version
from fastrec.all import BPRLoss,RecDataLoaders,RecInterpretation,cross_validate,dot_learner,k_folds,load_recommender,movielens,sample_ratings
from fastrec.all import learner as fastrec_learner
from fastrec.fit import held_back
from fastrec.fit.chance import BesideChance,usual_reg
from fastrec.fit.held_back import HeldBack
from fastrec.models.foldin import _ials_defaults

ratings = sample_ratings(n_users=80, n_items=60, n_ratings=3000, seed=0)

def chosen(df=ratings, n_sweep=5, **kwargs):
    with warnings.catch_warnings(action='ignore'): learn = dot_learner(RecDataLoaders.from_df(df, seed=1, bs=64), metrics=mae)  # what is told of frames is not the subject
    with learn.no_logging(): learn.fit_ials(4, n_sweep, **kwargs)
    return learn

@pytest.fixture(scope='module')
def learn(): return chosen()

# ------------------------------------------------------------------ nothing is compared with stars
def test_validation_is_the_distance_from_1(learn):
    x = learn.dls.valid_ds.x
    with torch.no_grad(): want = float((learn.model.eval()(x)-1).square().mean())
    assert list(learn.history)==['train_loss','valid_loss'] and learn.history.valid_loss.iloc[-1]==pytest.approx(want, rel=1e-4)
    x = learn.dls.train_ds.x
    with torch.no_grad(): assert learn.history.train_loss.iloc[-1]==pytest.approx(float((learn.model(x)-1).square().mean()), rel=1e-3)

def test_stars_make_no_difference(learn):
    other = chosen(ratings.assign(rating=6-ratings.rating))
    assert torch.equal(other.model.i_weight.weight, learn.model.i_weight.weight) and other.history.equals(learn.history) and other.noise==learn.noise

class Stop(Callback):
    def after_epoch(self): raise KeyboardInterrupt

@pytest.mark.parametrize('kwargs,error', [(dict(n_sweep=0), ValueError), (dict(alpha0=0), ValueError), (dict(cbs=Stop()), KeyboardInterrupt), (dict(reg=float('nan')), ValueError),
                                          (dict(power=float('inf')), ValueError), (dict(n_factors=2.5), ValueError), (dict(n_factors=True), ValueError), (dict(n_factors='many'), ValueError), (dict(cbs=SaveModelCallback(monitor='mae')), ValueError), (dict(), None)])
def test_metrics_and_loss_come_back(kwargs, error):
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1, bs=64), metrics=mae)
    before = learn.metrics,learn.loss_func
    with learn.no_logging():
        if error is None: learn.fit_ials(4, 2)
        else:
            with pytest.raises(error): learn.fit_ials(**{'n_factors': 4, 'n_sweep': 2, **kwargs})
        assert [o.name for o in learn.metrics]==[o.name for o in before[0]]==['mae'] and learn.loss_func is before[1]
        learn.fit_als(3, 2)
    assert 'mae' in learn.history and learn.history.mae.iloc[-1]<1

def test_watching_the_loss_works(tmp_path):
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1, bs=64, path=tmp_path))
    with learn.no_logging(): learn.fit_ials(4, 2, cbs=SaveModelCallback())
    assert (tmp_path/'models'/'model.pth').exists()

@pytest.mark.parametrize('call', [lambda l: l.validate(), lambda l: l.validate(0), lambda l: l.show_results(), lambda l: l.get_preds(with_loss=True), lambda l: l.fit(1), lambda l: l.fit_one_cycle(1), lambda l: l.lr_find()])
def test_refused_by_learners(learn, call):
    before = learn.model.i_weight.weight.clone()
    with pytest.raises(ValueError, match='preferences: use evaluate and recommend|by fit_ials, and gradients would'): call(learn)
    assert torch.equal(before, learn.model.i_weight.weight)

@pytest.mark.parametrize('call', [lambda o: o.top_losses(3), lambda o: o.calibration(), lambda o: o.error_by_count(), lambda o: o.plot_top_losses(), lambda o: o.plot_calibration(), lambda o: o.plot_error_by_count(),
                                  lambda o: o.plot_bias(), lambda o: o[0], lambda o: o.show_results([0])])
def test_refused_by_interpretation(learn, call, tmp_path):
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings(action='ignore'): loaded = load_learner(tmp_path/'l.pkl')
    for l in (learn,loaded):
        with pytest.raises(ValueError, match='preferences: use evaluate and recommend'): call(RecInterpretation.from_learner(l))

def test_the_rest_of_interpretation_goes_on(learn):
    o = RecInterpretation.from_learner(learn)
    items = o.item_bias()
    grid = pd.DataFrame(learn.predict_grid().numpy(), *(v.labels for v in learn.dls.classes.values()))
    assert list(items)==['title','bias','preference','count'] and list(o.user_bias())==['user','bias','preference','count']
    np.testing.assert_allclose(items.preference, grid.mean()[items.title], atol=1e-5)
    assert o.item_pca(2).shape[1]==2 and len(o.similar_map(30))==30 and len(o.embeddings())==len(items)
    assert o.plot_pca(show=5, color='bias').has_data() and len(learn.similar(items.title[0], 3))==3

def test_names_and_numbers_that_are_kept(learn, tmp_path):
    loaded = load_recommender(learn.save_recommender(tmp_path), 'cpu')
    known = ratings[ratings.user.isin(learn.dls.classes['user'].labels)]
    for o in (learn,loaded): assert o.predict_df(known.head(3)).name=='preference'
    assert set(loaded.manifest['metrics'])=={'train_loss','valid_loss'} and loaded.manifest['noise']<1

def test_cross_validation_of_choices():
    with warnings.catch_warnings(action='ignore'): df = cross_validate(lambda dls: fitted(dls), k_folds(ratings, 2), bs=64)  # which hold no taste
    assert df.rmse.isna().all() and df.ndcg_at_10[:2].gt(0).all()

def fitted(dls):
    learn = dot_learner(dls)
    with learn.no_logging(): learn.fit_ials(4, 3)
    return learn

def test_held_out_choices_need_no_ratings(learn):
    with warnings.catch_warnings(action='ignore'):
        held = ratings[['user','title']].tail(100)
        assert learn.evaluate(held, exclude_seen=False).equals(learn.evaluate(held.assign(rating=1.), exclude_seen=False))
    with pytest.raises(ValueError, match="no column 'rating'"): learn.evaluate(held, min_rating=4)
    with pytest.warns(UserWarning, match='run from 0 to 1'): learn.evaluate(held.assign(rating=np.arange(100)%2), exclude_seen=False)

# ------------------------------------------------------------------ what counts as chosen
rng = np.random.default_rng(0)
n = len(ratings)
counts = np.round(rng.lognormal(1, 1.5, n))+1
quiet = {'stars': ratings.rating, 'half stars': ratings.rating-.5, 'from 0 to 5': ratings.rating.where(rng.random(n)<.95, 0), 'log': np.ones(n), 'log of sevens': np.full(n, 7),
         '0 to 10': rng.integers(0, 11, n), 'real': rng.uniform(-10, 10, n), 'percent': rng.integers(0, 101, n), '1 to 10, mostly 1': np.where(rng.random(n)<.8, 1, rng.integers(1, 11, n)),
         'share': rng.random(n)}
asked = {'bought or not': (rng.random(n)<.5, r'ratings of 0 and 0 below 0, of .* leave them out with df\[df\.rating>0\], or give them a weight of 0, .*; if so, give a column of ones as weight_name'), 'likes and dislikes': (np.where(rng.random(n)<.5, 1, -1), 'below 0, of'),
         'three ways': (rng.integers(-1, 2, n), 'ratings of 0 and [1-9].* below 0'), 'gaps as 0': (ratings.rating.where(rng.random(n)<.3, 0), 'ratings of 0 and 0 below'), 'votes': (rng.choice([-2,-1,1,2], n), 'below 0'),
         'counts with 0': (counts*(rng.random(n)<.7), 'ratings of 0 .*'), 'counts with returns': (counts*np.where(rng.random(n)<.9, 1, -1), 'below 0')}
told = {'counts': counts, 'hours': rng.lognormal(1, 1.5, n)}

@pytest.mark.parametrize('name', quiet)
def test_no_word_on_what_is_right(name): chosen(ratings.assign(rating=quiet[name]), 1)

@pytest.mark.parametrize('name', asked)
def test_what_may_not_be_chosen_is_asked(name):
    values,message = asked[name]
    df = ratings.assign(rating=np.asarray(values, float), weight=1)
    with warnings.catch_warnings(action='ignore'): learn = dot_learner(RecDataLoaders.from_df(df, seed=42, device='cpu'))  # of frames
    before = learn.model
    for fit in (learn.fit_ials,learn.fit_ease,learn.fit_blend):
        with pytest.raises(ValueError, match=message): fit()
    assert learn.model is before
    for answer in (dict(ratings=df[df.rating>0].drop(columns='weight')), dict(ratings=df, weight_name='weight')):
        with warnings.catch_warnings(record=True) as w:
            warnings.simplefilter('always')
            fitted = dot_learner(RecDataLoaders.from_df(seed=42, device='cpu', **answer))
            with fitted.no_bar(),fitted.no_logging(): fitted.fit_ials(4, 1)
        assert not any('below 0' in str(o.message) for o in w)

def test_weights_that_differ_do_not_say_what_a_0_means():
    df = ratings.assign(rating=np.arange(n)%2, weight=1+np.arange(n)%3)
    def of(df): return dot_learner(RecDataLoaders.from_df(df, seed=1, bs=64, weight_name='weight'))
    learn = of(df)
    before = learn.model
    for fit in (learn.fit_ials,learn.fit_ease,learn.fit_blend):
        with pytest.raises(ValueError, match=r'ratings of 0 and 0 below 0, of .*; if so, add to df\.rating what makes all of it positive'): fit()
    with pytest.raises(ValueError, match='were they chosen'): fastrec_learner(learn.dls, loss_func=BPRLoss())
    assert learn.model is before
    for answer in (df[df.rating>0], df.assign(weight=df.weight*df.rating), df.assign(rating=df.rating+1)):
        learn = of(answer)
        with learn.no_logging(): learn.fit_ials(4, 1, reg=.1)

@pytest.mark.parametrize('name', told)
def test_counts_that_do_not_weigh_are_told(name):
    with pytest.warns(UserWarning, match='as counts do, .* every row for one choice'): chosen(ratings.assign(rating=told[name]), 1)

def test_numbers_are_right_and_the_advice_helps():
    df = ratings.assign(rating=(np.arange(n)%3)-1.)
    y = RecDataLoaders.from_df(df, seed=1, bs=64, device='cpu').train_ds.y
    with pytest.raises(ValueError, match=f'{int((y==0).sum()):,} ratings of 0 and {int((y<0).sum()):,} below 0, of {len(y):,}'): chosen(df, 1)
    chosen(df[df.rating>0], 1)

@pytest.mark.parametrize('value', [0,-1])
def test_nothing_left(value):
    with pytest.raises(ValueError, match='ratings are 0 or less'): chosen(ratings.assign(rating=value))

def test_odd_column_names():
    with pytest.raises(ValueError, match=r"df\[df\['my stars'\]>0\]"):
        learn = dot_learner(RecDataLoaders.from_df(ratings.assign(**{'my stars': np.arange(n)%2.}), seed=1, bs=64, rating_name='my stars'))
        with learn.no_logging(): learn.fit_ials(4, 1)

# ------------------------------------------------------------------ fold_in
def train_frame(learn):
    ds = learn.dls.train_ds
    return ds.decode(ds.x, ds.y)

@pytest.mark.parametrize('kwargs', [dict(), dict(alpha0=.2, reg=.05, power=.5)])
def test_folded_in_rows_are_the_trained_ones(kwargs, tmp_path):
    learn = chosen(n_sweep=400, **kwargs)
    mine = train_frame(learn)
    loaded = load_recommender(learn.save_recommender(tmp_path), 'cpu')
    for rec in (learn,loaded):
        new = rec.fold_in(mine)
        assert new.ds.classes['user'].labels.equals(learn.dls.classes['user'].labels)
        torch.testing.assert_close(new.model.user_factors, learn.model.user_factors, atol=1e-4, rtol=0)
    assert loaded.model.ials==dict(alpha0=.5, reg=learn.model.ials['reg'], power=1.) | kwargs

def test_folded_in_by_hand(learn):
    mine = train_frame(learn).head(200).drop_duplicates(['user','title'])
    new,q = learn.fold_in(mine),learn.model.item_factors.double().numpy()
    for u,rows in mine.groupby('user'):
        z = q[learn.dls.classes['title'].encode(rows.title)-1]
        a = z.T@z + .5*q.T@q + learn.model.ials['reg']*(len(z)+.5*len(q))*np.eye(4)
        np.testing.assert_allclose(new.model.user_factors[new.ds.classes['user'].encode([u])[0]-1], np.linalg.solve(a, z.sum(0)), atol=1e-5)

def test_rows_that_repeat_weigh_as_in_training():
    df = pd.concat([ratings, ratings.sample(frac=.3, random_state=0)], ignore_index=True)
    learn = chosen(df, 400)
    torch.testing.assert_close(learn.fold_in(train_frame(learn)).model.user_factors, learn.model.user_factors, atol=1e-4, rtol=0)

def test_titles_in_common(learn):
    mine = train_frame(learn)
    a,b = learn.fold_in(mine).recommend(n=10),learn.recommend(n=10, exclude_seen=mine)
    both = a.astype(dict(title='str')).merge(b.astype(dict(title='str')), on=['user','title'])
    assert len(both)/a.user.nunique()>=9

def test_ratings_are_neither_needed_nor_read(learn):
    mine = train_frame(learn).head(30)
    want = learn.fold_in(mine).predict_grid()
    for o in (mine[['user','title']], mine.assign(rating=1), mine.assign(rating=100.), mine.assign(rating='liked'), mine.assign(rating=np.nan)): assert torch.equal(learn.fold_in(o).predict_grid(), want)

@pytest.mark.filterwarnings('ignore:30 of the 30 new rows are of pairs')
@pytest.mark.parametrize('form', [lambda o: pytest.importorskip('polars').from_pandas(o), lambda o: o.to_dict('list'), lambda o: o.to_dict('records')])
def test_any_table_is_read_without_ratings(learn, form):
    mine = train_frame(learn).head(30)
    want = learn.fold_in(mine).predict_grid()
    for o in (mine[['user','title']], mine.assign(rating='liked')): assert torch.equal(learn.fold_in(form(o)).predict_grid(), want)
    assert learn.extend(form(mine[['user','title']])).n_new==30
    with pytest.warns(UserWarning, match='4 of 4 rows have a rating of 0 or less'): learn.fold_in(form(mine.head(4).assign(rating=0)))

def test_what_was_not_chosen_is_told_of_new_users(learn):
    mine = train_frame(learn).head(4).assign(rating=[0.,1,-1,1])
    with pytest.warns(UserWarning, match='2 of 4 rows have a rating of 0 or less, 0 for one'): learn.fold_in(mine)
    graded = chosen(ratings.assign(rating=quiet['0 to 10']), 1)
    graded.fold_in(mine.head(1))  # where 0 is a grade

def test_who_chose_nothing_is_the_average_user(learn):
    mine = train_frame(learn).head(0)
    torch.testing.assert_close(learn.fold_in(mine).model.user_factors[0], learn.model.user_factors.mean(0))
    with pytest.warns(UserWarning, match='left out'): new = learn.fold_in(pd.DataFrame(dict(user=[1,2], title=[ratings.title[0],'no such film'])), unknown='drop')
    torch.testing.assert_close(new.model.user_factors[1], learn.model.user_factors.mean(0))

def test_models_of_the_first_version_take_the_defaults(learn, tmp_path):
    learn = chosen(reg=.012)  # the default then
    assert _ials_defaults==learn.model.ials
    folder = learn.save_recommender(tmp_path)
    as_first_version(folder)
    loaded,mine = load_recommender(folder, 'cpu'),train_frame(learn).head(20)
    assert loaded.model.ials is None and torch.equal(loaded.fold_in(mine).predict_grid(), learn.fold_in(mine).predict_grid())

def test_titles_in_common_on_movielens():
    df = movielens('ml-100k', release_path('ml-100k'))
    learn = dot_learner(RecDataLoaders.from_df(df, seed=1))
    with learn.no_logging(): learn.fit_ials()
    mine = train_frame(learn)
    mine = mine[mine.user.isin(mine.user.drop_duplicates().sample(100, random_state=0))]
    a,b = learn.fold_in(mine[['user','title']]).recommend(n=10),learn.recommend(mine.user.unique(), n=10, exclude_seen=mine)
    assert len(a.astype(dict(title='str')).merge(b.astype(dict(title='str')), on=['user','title']))/100>=9.5

# ------------------------------------------------------------------ the weight of what was not chosen
@pytest.mark.parametrize('n_items,weight', [(60,None), (900,None), (900,'weight'), (10**5,None)])
def test_what_was_not_chosen_weighs_less_the_less_is_chosen(n_items, weight):
    df = pd.DataFrame([(u,k) for u in range(12) for k in range(u, u+6)], columns=['user','title']).assign(rating=1, weight=np.arange(72)%5+1.)
    dls = RecDataLoaders.from_df(df, items=pd.DataFrame(dict(title=range(n_items))), valid_pct=.1, seed=0, bs=16, weight_name=weight)
    learn = dot_learner(dls)
    with learn.no_logging(),learn.no_bar(),warnings.catch_warnings(action='ignore'): learn.fit_ials(2, 1, reg=.1)
    told = learn.settings().loc['alpha0']
    want = .5 if n_items==60 else 30*float(dls.train_ds.weights().sum())/(12*n_items)
    assert learn.model.ials['alpha0']==told.value==pytest.approx(want) and f'{12*n_items:,} pairs' in told['from']
    with learn.no_logging(),learn.no_bar(),warnings.catch_warnings(action='ignore'): learn.fit_ials(2, 1, alpha0=.7, reg=.1)
    assert learn.model.ials['alpha0']==.7 and learn.settings().rule['alpha0']=='given'

# ------------------------------------------------------------------ without factors
@pytest.mark.parametrize('kwargs', [{},dict(reg=.1),dict(alpha0=2.)], ids=str)
def test_without_factors_there_is_popularity(kwargs, tmp_path):
    with warnings.catch_warnings(action='ignore'): learn = dot_learner(RecDataLoaders.from_df(ratings, seed=1))
    with learn.no_logging(),learn.no_bar(): learn.fit_ials(0, **kwargs)
    ds = learn.dls.train_ds
    share = torch.bincount(ds.x[:,1].long(), minlength=61)[1:]/(len(ds.classes['user'])-1)
    assert torch.allclose(learn.predict_grid(), share.expand(len(ds.classes['user'])-1, -1)) and len(learn.history)==12
    assert learn.evaluate().ndcg_at_10['model']==learn.evaluate().ndcg_at_10['popularity']
    new = learn.fold_in(ratings[:3].drop(columns='user'))
    assert torch.allclose(new.predict_grid()[0], share)
    assert torch.allclose(load_recommender(learn.save_recommender(tmp_path/'bundle'), 'cpu').predict_grid(), learn.predict_grid())
    told = learn.settings()
    assert told.value['n_factors']==0 and 'by chance' not in told.rule['reg']

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease','fit_blend'])
def test_counts_are_known_by_their_name(fit):
    "Of one to eleven, which could be grades"
    df = sample_ratings(n_users=120, n_items=60, n_ratings=1500)[['user','title']]
    df['plays'] = 1+np.random.default_rng(0).binomial(10, .2, len(df))
    learn = fastrec_learner(RecDataLoaders.from_df(df, seed=0))
    with pytest.warns(UserWarning, match="as counts do, .*np.log1p.*weight_name='weight'"): getattr(learn, fit)()

# ------------------------------------------------------------------ is there taste?
@pytest.mark.parametrize('n_users,n_items', [(8,6),(50,6),(200,10),(30,3),(400,50)])
@pytest.mark.parametrize('fit', ['fit_ials','fit_blend'])
def test_where_everybody_chose_everything_rounding_is_no_taste(n_users, n_items, fit):
    df = pd.DataFrame(dict(user=np.arange(n_users).repeat(n_items), title=np.tile([f'film {k}' for k in range(n_items)], n_users), rating=1.))
    with warnings.catch_warnings(action='ignore'):  # what is told of data without taste, and without anything to find, is not the subject
        learn = dot_learner(RecDataLoaders.from_df(df, valid_pct=0, seed=0))
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        new = pd.DataFrame(dict(user=-1, title=['film 0','film 1'], rating=1.))
        parts = learn.model.parts if fit=='fit_blend' else [learn.model]
        assert parts[0].ials['reg']==usual_reg
        folded,extended = learn.fold_in(new).recommend(-1),learn.extend(new).recommend(-1)
        assert len(folded)==len(extended)==min(n_items-2, 10) and not {'film 0','film 1'} & {*folded.title, *extended.title}
        assert np.isfinite(learn.explain(0, 'film 1').contribution).all()
        assert np.isfinite(learn.what_if(0, 'film 1', 'film 0'))

def beside_chance(taste, seed):
    "The choices of 150 people, 20 of 150 things each, by their popularity and by `taste`"
    rng = np.random.default_rng(seed)
    liking = rng.normal(size=(150,6))@rng.normal(size=(6,150))/6**.5
    order = (rng.normal(0, 1.1, 150)+taste*liking+rng.gumbel(size=liking.shape)).argsort(1)[:,-20:]
    df = pd.DataFrame(dict(user=np.arange(150).repeat(20), title=order.ravel(), rating=1))
    return BesideChance(RecDataLoaders.from_df(df, valid_pct=0, seed=0).train_ds, .5, 16)

def gain(beside):
    held = HeldBack(beside.pairs)
    return held.in_errors(held.gains(16, .5, beside.reg()))

@pytest.mark.parametrize('seed', [4,5])
def test_a_tenth_of_few_choices_does_not_show_what_all_tenths_do(seed, monkeypatch):
    beside = beside_chance(.8, seed)
    assert gain(beside)>3
    monkeypatch.setattr(held_back, '_enough', 300)
    assert gain(beside)<1.5

@pytest.mark.parametrize('seed', range(4))
def test_no_taste_gains_nothing(seed): assert gain(beside_chance(0., seed))<1.5
