"""Interpretation: the same checks for dot models, networks, stock and loaded learners; tables against hand-worked or second ways"""
import copy,sys,warnings
from contextlib import nullcontext
import matplotlib
matplotlib.use('Agg')
import matplotlib.pyplot as plt,numpy as np,pandas as pd,pytest,torch
from fastai.learner import load_learner
from fastai.torch_core import set_seed
from sklearn.decomposition import PCA
from conftest import quietly,release_path
from test_predict import from_stock,trained
from fastrec.all import DeepMF,DotBias,RecDataLoaders,RecInterpretation,learner,load_recommender,movielens,nn_learner,sample_ratings

makers = {'dot': lambda r: trained(r, DotBias), 'dot without range': lambda r: trained(r, DotBias, y_range=False), 'nn': lambda r: trained(r, DeepMF),
          'nn, two widths': lambda r: trained(r, DeepMF, (7,5), layers=[9,6]), 'stock dot': lambda r: from_stock(r, False), 'stock nn': lambda r: from_stock(r, True)}

@pytest.fixture(scope='module', params=makers)
def learn(request, ratings):
    with quietly(),warnings.catch_warnings(action='ignore'): return makers[request.param](ratings)

@pytest.fixture(scope='module')
def interp(learn): return RecInterpretation.from_learner(learn)

@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close('all')

tables = {
    'item_bias': lambda o: o.item_bias(), 'user_bias': lambda o: o.user_bias(), 'item_pca': lambda o: o.item_pca(), 'user_pca': lambda o: o.user_pca(2, top=50),
    'pca_ends': lambda o: o.pca_ends(3, 2), 'similar_map': lambda o: o.similar_map(30), 'embeddings': lambda o: o.embeddings(), 'top_losses': lambda o: o.top_losses(5),
    'error_by_count': lambda o: o.error_by_count(), 'calibration': lambda o: o.calibration()}
plots = {
    'bias': lambda o, ax: o.plot_bias(4, ax=ax), 'user bias': lambda o, ax: o.plot_bias(4, is_item=False, ax=ax), 'pca': lambda o, ax: o.plot_pca(show=15, ax=ax),
    'pca by bias': lambda o, ax: o.plot_pca((2,1), show=15, top=60, color='bias', ax=ax), 'map': lambda o, ax: o.plot_map(20, ax=ax),
    'users': lambda o, ax: o.plot_pca(show=15, is_item=False, ax=ax), 'losses': lambda o, ax: o.plot_top_losses(4, ax=ax),
    'error': lambda o, ax: o.plot_error_by_count(ax=ax), 'activity': lambda o, ax: o.plot_error_by_count(False, ax=ax), 'calibration': lambda o, ax: o.plot_calibration(5, ax=ax)}

# ------------------------------------------------------------------ every model
def test_nothing_is_touched(learn, interp):
    model = learn.model
    model.train()
    before,record = copy.deepcopy(model.state_dict()),copy.copy(getattr(learn.recorder, 'values', None))
    RecInterpretation.from_learner(learn)
    for f in tables.values(): f(interp)
    assert model.training and all(m.training for m in model.modules())
    assert all(v.equal(before[k]) for k,v in model.state_dict().items())
    assert getattr(learn.recorder, 'values', None)==record

@pytest.mark.parametrize('learn', ['dot','nn'], indirect=True)  # pictures show tables, which those of the others are
@pytest.mark.parametrize('name', plots)
def test_pictures_go_where_they_are_told(interp, name):
    fig,axs = plt.subplots(1, 2, figsize=(18, 7))
    assert plots[name](interp, axs[1]) is axs[1] and not axs[0].has_data() and axs[1].has_data()
    assert plots[name](interp, None).figure is not fig

def inside(ax):
    "Boxes of the labels in the picture, none of them cut"
    ax.figure.canvas.draw()
    r = ax.figure.canvas.get_renderer()
    boxes = [o.get_window_extent(r) for o in ax.texts or ax.get_yticklabels()]
    whole = ax.figure.bbox
    assert all(b.x0>=whole.x0 and b.x1<=whole.x1 and b.y0>=whole.y0 and b.y1<=whole.y1 for b in boxes)
    return boxes

@pytest.mark.parametrize('learn', ['dot','nn, two widths'], indirect=True)
def test_labels_neither_overlap_nor_are_cut(interp):
    for ax in (interp.plot_pca(show=40), interp.plot_map(50), interp.plot_bias(10), interp.plot_top_losses(10)):
        boxes = inside(ax)
        assert len(boxes)>=10
        assert not any(a.overlaps(b) for i,a in enumerate(boxes) for b in boxes[:i])

def test_bias_is_what_the_average_user_says(learn, interp):
    items,users = interp.item_bias().set_index('title'),interp.user_bias().set_index('user')
    assert items.bias.is_monotonic_decreasing and items.stars.is_monotonic_decreasing
    grid = pd.DataFrame(learn.predict_grid().numpy(), *(v.labels for v in learn.dls.train_ds.classes.values()))
    if isinstance(learn.model, DeepMF):
        np.testing.assert_allclose(items.bias, (grid.mean()-grid.to_numpy().mean())[items.index], atol=1e-5)
        np.testing.assert_allclose(users.bias, (grid.mean(axis=1)-grid.to_numpy().mean())[users.index], atol=1e-5)
        np.testing.assert_allclose(items.stars, grid.mean()[items.index], atol=1e-5)
    else:
        if learn.model.y_range is not None:
            lo,hi = learn.model.y_range
            grid = np.log((grid-lo)/(hi-grid))
        for b,means in ((items.bias,grid.mean()),(users.bias,grid.mean(axis=1))): np.testing.assert_allclose(b, (means-means.mean())[b.index], atol=1e-4)

def test_counts_and_means_are_those_of_training(learn, interp):
    ds = learn.dls.train_ds
    df = ds.decode(ds.x, ds.y)
    for col,table in (('title',interp.item_bias()),('user',interp.user_bias())):
        want = df.groupby(col, observed=True).rating.agg(['count','mean']).loc[table[col]]
        assert (table['count'].to_numpy()==want['count'].to_numpy()).all()
        np.testing.assert_allclose(table['mean'], want['mean'], atol=1e-5)
    few = interp.item_bias(4, ascending=True, min_count=30)
    assert len(few)==4 and (few['count']>=30).all() and few.bias.is_monotonic_increasing

def test_pca_against_sklearn(interp):
    pcs,factors = interp.item_pca(2, top=80),interp.embeddings().filter(like='factor')[:80]
    assert pcs.index.equals(factors.index) and pcs.index.name=='title' and list(pcs)==['PC1','PC2']
    pca = PCA(2).fit(factors)
    np.testing.assert_allclose(pcs.abs(), np.abs(pca.transform(factors)), atol=2e-3*np.abs(pcs.to_numpy()).max())
    np.testing.assert_allclose(pcs.attrs['explained'], pca.explained_variance_ratio_, atol=1e-4)
    assert (pcs.max()==pcs.abs().max()).all()
    ends = interp.pca_ends(3, 2, top=80)
    assert ends[('PC1','high')][0]==pcs.PC1.idxmax() and ends[('PC2','low')][0]==pcs.PC2.idxmin()

def test_losses_by_hand(learn, interp):
    ds = learn.dls.valid_ds
    df = ds.decode(ds.x, ds.y)
    with warnings.catch_warnings(action='ignore'): want = (learn.predict_df(df[['user','title']], unknown='average')-df.rating)**2
    top = interp.top_losses(7)
    assert list(top)==['user','title','rating','rating_pred','loss'] and top.loss.is_monotonic_decreasing
    np.testing.assert_allclose(top.loss, (top.rating-top.rating_pred)**2, rtol=1e-4)
    np.testing.assert_allclose(top.loss, want.nlargest(7), rtol=1e-4)
    assert interp.top_losses(3, largest=False).loss.max()<=top.loss.min() and len(interp.top_losses())==len(ds)==len(interp.top_losses(10**6))

def test_groups_add_up(learn, interp):
    all_ = interp.top_losses()
    off = all_.rating-all_.rating_pred
    for is_item in (True,False):
        by = interp.error_by_count(is_item)
        assert by.rows.sum()==len(off)
        assert (by['rows']*by.rmse**2).sum()/len(off)==pytest.approx((off**2).mean(), rel=1e-4)
        assert (by['rows']*by.mae).sum()/len(off)==pytest.approx(off.abs().mean(), rel=1e-4)
        assert (by['rows']*by.error).sum()/len(off)==pytest.approx(off.mean(), abs=1e-4)
    cal = interp.calibration(7)
    assert cal.rows.sum()==len(off) and cal.rows.max()-cal.rows.min()<=1 and cal.predicted.is_monotonic_increasing
    assert (cal['rows']*cal.given).sum()/len(off)==pytest.approx(all_.rating.mean(), rel=1e-5)

# ------------------------------------------------------------------ known answers
def test_bias_does_not_depend_on_where_the_model_keeps_it(ratings):
    learn = trained(ratings, DotBias)
    before,m,shift = RecInterpretation.from_learner(learn).item_bias(),learn.model,torch.randn(8)
    with torch.no_grad():
        m.u_weight.weight += shift
        m.i_bias.weight -= m.i_weight.weight@shift[:,None]
    after = RecInterpretation.from_learner(learn).item_bias()
    assert before.title.equals(after.title)
    np.testing.assert_allclose(before.bias, after.bias, atol=1e-4)

@pytest.mark.parametrize('arch', [DotBias,DeepMF])
def test_tables_are_of_the_model_as_it_is_now(ratings, arch):
    learn = trained(ratings, arch)
    interp = RecInterpretation.from_learner(learn)
    before = interp.item_bias()
    with learn.no_logging(): learn.fit(1)
    pd.testing.assert_frame_equal(interp.item_bias(), RecInterpretation.from_learner(learn).item_bias())
    assert not interp.item_bias().bias.equals(before.bias)

@pytest.mark.parametrize('make', [learner,nn_learner])
def test_finds_the_planted_qualities(make):
    "Better than the plain means do, for films differ in who chooses to watch them"
    ratings,truth = sample_ratings(with_truth=True)
    learn = make(RecDataLoaders.from_df(ratings, seed=1), n_factors=10)
    with learn.no_logging(): learn.fit_one_cycle(10)
    interp,planted = RecInterpretation.from_learner(learn),truth.items.set_index('title')
    found = interp.item_bias(min_count=20).set_index('title')
    by_bias,by_mean = (found[o].corr(planted.quality, method='spearman') for o in ('bias','mean'))
    assert by_bias>max(by_mean+.03, .85)
    if make is nn_learner: return
    pca = interp.item_pca(2)
    a,b = (np.linalg.qr(o-o.mean(0))[0] for o in (pca.to_numpy(), planted.loc[pca.index, ['taste1','taste2']].to_numpy()))
    assert np.linalg.svd(a.T@b)[1].min()>=.75

def test_counts_of_rows_nobody_trained_on(ratings):
    learn = trained(ratings, DotBias)
    with warnings.catch_warnings(action='ignore'):
        dl = learn.dls.test_dl(pd.DataFrame(dict(user=[ratings.user[0],-5], title=['no such film']*2, rating=[3.,4.])), unknown='average')
    by = RecInterpretation.from_learner(learn, dl=dl).error_by_count()
    assert by.index.tolist()==['0'] and by.rows.tolist()==[2]

def test_the_books_finding():
    "One component separates blockbusters from what critics love"
    learn = learner(RecDataLoaders.from_movielens('ml-100k', release_path('ml-100k'), seed=0))
    with learn.no_logging(): learn.fit_one_cycle(5)
    ends = RecInterpretation.from_learner(learn).pca_ends(40, 2, top=500)
    loved = {'Casablanca (1942)','Chinatown (1974)','Citizen Kane (1941)','Godfather, The (1972)','Lawrence of Arabia (1962)','Third Man, The (1949)'}
    sold = {'Batman & Robin (1997)','Batman Forever (1995)','Twister (1996)','Volcano (1997)','Speed 2: Cruise Control (1997)','Con Air (1997)'}
    found = {(c,end): (len(loved&set(ends[c][end])),len(sold&set(ends[c][end]))) for c in ('PC1','PC2') for end in ('low','high')}
    assert any(found[c,a][0]>=3 and found[c,b][1]>=3 and not found[c,a][1] and not found[c,b][0] for c in ('PC1','PC2') for a,b in (('low','high'),('high','low'))), found

# ------------------------------------------------------------------ bad input
@pytest.mark.parametrize('f,error,message', [
    (lambda o: o.item_pca(99), ValueError, 'n_components=99 must be from 1 to 8'), (lambda o: o.item_pca(0), ValueError, 'n_components=0'),
    (lambda o: o.item_pca(5, top=4), ValueError, 'n_components=5 must be from 1 to 3: there are 4 titles'),
    (lambda o: o.user_pca(top=10**6), ValueError, 'top=1000000 must be from 1 to [0-9]+, the number of users'), (lambda o: o.item_pca(top=0), ValueError, 'top=0'),
    (lambda o: o.plot_pca(show=['Titanik (1997)']), KeyError, "'Titanik \\(1997\\)' is not among"), (lambda o: o.item_bias(0), ValueError, 'n=0'),
    (lambda o: o.plot_pca(top=10, show=[o.item_pca().index[50]]), KeyError, 'not among the 10 titles of the picture'),
    (lambda o: o.plot_pca(color={'x': 1}), KeyError, 'color has nothing for 40 of 40 titles'), (lambda o: o.similar_map(3), ValueError, 'too few for a map'),
    (lambda o: o.calibration(0), ValueError, 'bins=0'), (lambda o: o.plot_bias(0), ValueError, 'n=0'), (lambda o: o.top_losses(-1), ValueError, 'k=-1'), (lambda o: o.plot_top_losses(rows=5), TypeError, 'rows'),
    (lambda o: o.plot_bias(2.5), TypeError, 'n=2.5 must be a whole number'), (lambda o: o.pca_ends(0), ValueError, 'n=0'), (lambda o: o.plot_bias(is_item='no'), TypeError, 'is_item'),
    (lambda o: o.plot_bias(min_count=10**6), ValueError, 'nothing has min_count=1000000'), (lambda o: o.plot_pca((0,1)), ValueError, 'two numbers from 1 on'),
    (lambda o: o.plot_pca((1,)), ValueError, 'two numbers from 1 on'), (lambda o: RecInterpretation.from_learner(o.learn, dl=o.learn.dls.test_dl(o.top_losses(2)[['user','title']])), ValueError, "no column 'rating'")])
def test_refused(interp_dot, f, error, message):
    with pytest.raises(error, match=message): f(interp_dot)

@pytest.fixture(scope='module')
def interp_dot(ratings):
    with quietly(): return RecInterpretation.from_learner(trained(ratings, DotBias))

def test_shows_what_is_asked_for(interp_dot):
    titles = interp_dot.item_pca().index
    for show,n in ((titles[[3,60]], 2), (titles[:3].to_numpy(), 3), (titles[5], 1), (list(titles[7:9]), 2), (12, 12)):
        assert sum(len(o.get_offsets()) for o in interp_dot.plot_pca(show=show).collections if o.get_offsets().ndim==2 and len(o.get_offsets())>0 and o.get_sizes().size)==n

def test_one_factor(ratings): assert len(RecInterpretation.from_learner(trained(ratings, DotBias, 1)).similar_map(20))==20

def test_no_factors(ratings):
    interp = RecInterpretation.from_learner(trained(ratings, DotBias, 0))
    assert len(interp.item_bias(5))==5
    with pytest.raises(ValueError, match='biases alone has no factors'): interp.item_pca()

def test_interactive(interp_dot, monkeypatch, tmp_path):
    fig = interp_dot.plot_pca(interactive=True, color='bias')
    fig.write_html(tmp_path/'pca.html')
    assert all(o.replace("'", '\\u0027') in (tmp_path/'pca.html').read_text(encoding='utf-8') or o in (tmp_path/'pca.html').read_text(encoding='utf-8') for o in interp_dot.item_pca().index)
    monkeypatch.setitem(sys.modules, 'plotly.express', None)
    with pytest.raises(ImportError, match=r"plotly is needed for this: pip install plotly"): interp_dot.plot_map(interactive=True)

def test_loaded_learner_has_biases_but_no_ratings(ratings, tmp_path):
    learn = trained(ratings, DotBias)
    want = RecInterpretation.from_learner(learn)
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings(action='ignore'): interp = RecInterpretation.from_learner(load_learner(tmp_path/'l.pkl'))
    got = interp.item_bias()
    assert list(got)==['title','bias','stars'] and got.title.equals(want.item_bias().title)
    assert set(interp.item_pca(2).index)==set(want.item_pca(2).index)
    for f in (lambda: interp.item_bias(min_count=3), lambda: interp.item_pca(top=5), interp.plot_bias, interp.error_by_count):
        with pytest.raises(ValueError, match='holds no ratings'): f()
    with pytest.raises(ValueError, match='no rows to judge the model by'): interp.top_losses()
    with pytest.raises(ValueError, match='which top=60 needs: top=None takes all'): interp.plot_map()
    with pytest.raises(ValueError, match='show=60 needs: name the labels in a list, or pass interactive=True'): interp.plot_map(top=None)

@pytest.mark.parametrize('kwargs', [{}, dict(ratings=True), dict(seen=False)], ids=str)
def test_a_loaded_recommender_shows_what_it_has_learned(ratings, tmp_path, kwargs):
    "As its learner does, where the folder holds what that takes"
    learn = trained(ratings, DotBias)
    want = RecInterpretation.from_learner(learn)
    interp = RecInterpretation.from_learner(load_recommender(learn.save_recommender(tmp_path, **kwargs)))
    pd.testing.assert_frame_equal(interp.item_pca(2), want.item_pca(2), rtol=1e-4, atol=1e-5)
    pd.testing.assert_frame_equal(interp.embeddings(), want.embeddings())
    assert [o.get_text() for o in interp.plot_pca().texts]==[o.get_text() for o in want.plot_pca().texts]
    assert len(interp.plot_map().collections)==1 and interp.item_bias()['count'].tolist()==want.item_bias()['count'].tolist()
    if not kwargs: assert interp.user_pca(2, top=5).index.tolist()==want.user_pca(2, top=5).index.tolist()
    if kwargs!=dict(seen=False): assert interp.plot_pca(is_item=False).texts
    else:
        with pytest.raises(ValueError, match='which show=40 needs: name the labels in a list'): interp.plot_pca(is_item=False)
    for f in (interp.top_losses, interp.calibration, lambda: interp[0], interp.plot_top_losses):
        with pytest.raises(ValueError, match='a loaded recommender has no rows, which .* needs: rec.evaluate'): f()
    if kwargs.get('ratings'): assert interp.plot_bias() and interp.item_bias().equals(want.item_bias())
    else:
        with pytest.raises(ValueError, match='holds no ratings, which plot_bias needs: .*ratings=True'): interp.plot_bias()

# ------------------------------------------------------------------ times, and odd data
def solved(df, fit=lambda l: l.fit_als(3, 3), **kwargs):
    learn = learner(RecDataLoaders.from_df(df, seed=1, bs=4, **kwargs), n_factors=3)
    with learn.no_logging(): fit(learn)
    return learn

little = sample_ratings(n_users=30, n_items=20, n_ratings=300, seed=0)
mode = lambda c: little[little[c]==little[c].mode()[0]]

@pytest.mark.parametrize('how', ['fit_als','fit_bayes'])
def test_with_times_as_without(how):
    "Columns are found by name: with times there is one more"
    timed,plain = (solved(little, lambda l: l.fit_bias(), **o) for o in (dict(time_name='timestamp'), {}))
    if how=='fit_bayes':
        with timed.no_logging(): timed.fit_bayes(3, 12, time='1D')
        interp = RecInterpretation.from_learner(timed)
    else:
        interp,want = RecInterpretation.from_learner(timed),RecInterpretation.from_learner(plain)
        for name,f in tables.items():
            if name in ('item_bias','user_bias','error_by_count','calibration'): pd.testing.assert_frame_equal(f(interp), f(want))
        pd.testing.assert_frame_equal(interp.top_losses(5).drop(columns='timestamp'), want.top_losses(5))
    all_ = interp.top_losses()
    cal,by = interp.calibration(4),interp.error_by_count(False)
    assert (cal['rows']*cal.given).sum()/len(all_)==pytest.approx(all_.rating.mean(), rel=1e-5)
    assert (cal['rows']*cal.predicted).sum()/len(all_)==pytest.approx(all_.rating_pred.mean(), rel=1e-5) and cal.predicted.between(1, 5).all()
    assert (by['rows']*by.error).sum()/len(all_)==pytest.approx((all_.rating-all_.rating_pred).mean(), abs=1e-5)
    drawn = [o.get_offsets()[:,0] for o in interp.plot_top_losses(5).collections if len(o.get_offsets())==5]
    top = interp.top_losses(5)
    np.testing.assert_allclose(drawn[0], top.rating)
    np.testing.assert_allclose(drawn[1], top.rating_pred, rtol=1e-6)

def test_names_of_ones_own():
    df = little.rename(columns=dict(user='who', title='what', rating='stars given', timestamp='when'))
    interp = RecInterpretation.from_learner(solved(df, user_name='who', item_name='what', rating_name='stars given', time_name='when'))
    assert list(interp.top_losses(2))==['who','what','stars given','when','stars given_pred','loss']
    assert interp.plot_top_losses(3).get_legend_handles_labels()[1]==['stars given','predicted']
    for f in (interp.plot_bias, interp.plot_calibration, interp.plot_error_by_count, lambda: interp.plot_pca(color='bias')): assert f().has_data()

odd = {'one item': (lambda: solved(mode('title')), {'item_pca': 'one title alone', 'pca_ends': 'one title alone', 'plot_pca': 'one title alone', 'similar_map': 'too few'}),
       'one user': (lambda: solved(mode('user')), {'user_pca': 'one user alone'}),
       'two items': (lambda: solved(little[little.title.isin(little.title.value_counts().index[:2])]), {'plot_pca': 'n_components=2 must be from 1 to 1', 'similar_map': 'too few'}),
       'constant': (lambda: solved(little.assign(rating=3.)), {'user_pca': 'nor has one that found no tastes'}), 'one draw': (lambda: solved(little, lambda l: l.fit_bayes(3, 12, n_draws=1)), {})}

@pytest.mark.parametrize('name', odd)
def test_odd_data(name):
    "Right, or refused in words"
    make,refused = odd[name]
    with pytest.warns(UserWarning, match='^all ratings in .* are 3') if name=='constant' else nullcontext(): learn = make()
    interp = RecInterpretation.from_learner(learn)
    calls = dict(item_bias={}, user_bias={}, item_pca=dict(n_components=1), user_pca=dict(n_components=1), pca_ends=dict(n=2, n_components=1), similar_map=dict(top=None), embeddings={}, top_losses={},
                 error_by_count={}, calibration={}, plot_bias={}, plot_pca=dict(show=3), plot_top_losses={}, plot_error_by_count={}, plot_calibration={})
    for call,kwargs in calls.items():
        if call in refused:
            with pytest.raises(ValueError, match=refused[call]): getattr(interp, call)(**kwargs)
            continue
        got = getattr(interp, call)(**kwargs)
        if isinstance(got, pd.DataFrame): assert len(got) and not got.drop(columns='se', errors='ignore').isna().any(axis=None)
    off = interp.top_losses()
    assert interp.error_by_count().rows.sum()==interp.calibration().rows.sum()==len(off)
    if name=='constant': assert off.loss.max()<1e-6 and interp.item_bias().stars.sub(3).abs().max()<1e-3

def test_no_rows(interp_dot):
    learn = interp_dot.learn
    none = RecInterpretation.from_learner(learn, dl=learn.dls.test_dl(interp_dot.top_losses(2).head(0)))
    for f in (none.top_losses, none.calibration, none.error_by_count, none.plot_top_losses, none.plot_calibration, none.plot_error_by_count, lambda: none[0]):
        with pytest.raises(ValueError, match='no rows to judge the model by'): f()
    assert len(none.item_bias(3))==3

def test_what_is_no_learner_or_no_dl(interp_dot, ratings, tmp_path):
    learn = interp_dot.learn
    rec = load_recommender(learn.save_recommender(tmp_path))
    with pytest.raises(TypeError, match='a learner or a recommender is needed to interpret, not a Dot'): RecInterpretation.from_learner(rec.model)
    with pytest.raises(TypeError, match='a loaded recommender is not compared with a dl'): RecInterpretation.from_learner(rec, dl=learn.dls.valid)
    with pytest.raises(TypeError, match='test_dl\\(frame\\) gives, not a DataFrame'): RecInterpretation.from_learner(learn, dl=ratings)
    with pytest.raises(ValueError, match='labels of other dataloaders'): RecInterpretation.from_learner(learn, dl=RecDataLoaders.from_df(little, bs=4).valid)
    with pytest.raises(IndexError, match=f'no row 99999: there are 0 to {len(learn.dls.valid_ds)-1}'): interp_dot[99999]

# ------------------------------------------------------------------ rows that count
@pytest.fixture(scope='module')
def weighed():
    "Ratings with weights, 0 for all rows of one film, and for every fifth of the others"
    rng = np.random.default_rng(0)
    df = sample_ratings(n_users=80, n_items=40, n_ratings=2400).reset_index(drop=True)
    gone = df.title.value_counts().index[3]
    weight = rng.choice([0.,1.,1.,3.,5.], len(df))
    df['weight'] = np.where(df.title==gone, 0, weight)
    with quietly(): learn = solved(df, weight_name='weight')
    return learn,gone

def rows_of(ds):
    df,_ = ds.frame()
    return df[df.weight>0]

def test_rows_of_weight_0_are_in_no_table(weighed):
    learn,gone = weighed
    interp,df = RecInterpretation.from_learner(learn),rows_of(learn.dls.train_ds)
    for col,table in (('title',interp.item_bias()),('user',interp.user_bias())):
        by = df.groupby(col, observed=True)
        assert set(table[col])==set(by.groups) and gone not in set(table[col])
        assert (table['count'].to_numpy()==by.size().loc[table[col]].to_numpy()).all()
        want = by.apply(lambda o: np.average(o.rating, weights=o.weight), include_groups=False)
        np.testing.assert_allclose(table['mean'], want.loc[table[col]], atol=1e-5)
    assert gone not in interp.item_pca(2).index and interp.item_pca(2).index[0]==interp.item_bias().sort_values('count').title.iloc[-1]
    assert gone not in interp.similar_map(None).index and gone not in interp.embeddings().index

def test_errors_count_as_their_rows_do(weighed):
    learn,_ = weighed
    interp,df = RecInterpretation.from_learner(learn),rows_of(learn.dls.valid_ds)
    off,w = df.rating-learn.predict_df(df),df.weight
    all_ = interp.top_losses()
    assert len(all_)==len(df)<len(learn.dls.valid_ds) and sorted(all_.loss.round(4))==pytest.approx(sorted((off**2).round(4)), abs=2e-4)
    assert len(interp.plot_top_losses(3).get_yticks())==3
    rmse = learn.validate()[1]
    for is_item in (True,False):
        by = interp.error_by_count(is_item)
        assert by['rows'].sum()==len(df)
    one = interp.error_by_count().index
    counts = rows_of(learn.dls.train_ds).title.value_counts()
    groups = pd.cut(df.title.map(counts).fillna(0).astype(float), [-.5,.5,2.5,5.5,10.5,20.5,50.5,100.5,200.5,500.5], labels=['0','1–2','3–5','6–10','11–20','21–50','51–100','101–200','201–500'])
    for g in one:
        mine = groups==g
        want = np.average(off[mine]**2, weights=w[mine])**.5,np.average(off[mine].abs(), weights=w[mine]),np.average(off[mine], weights=w[mine])
        np.testing.assert_allclose(interp.error_by_count().loc[g, ['rmse','mae','error']].astype(float), want, atol=1e-4)
    whole = interp.calibration(1)
    assert whole['rows'].tolist()==[len(df)] and whole.given[0]==pytest.approx(np.average(df.rating, weights=w), abs=1e-5)
    assert whole.predicted[0]==pytest.approx(np.average(df.rating-off, weights=w), abs=1e-4)
    assert np.average(off**2, weights=w)**.5==pytest.approx(rmse, abs=1e-4)

def test_equal_weights_give_the_standard_error_of_a_mean(interp_dot):
    cal,rows = interp_dot.calibration(4),interp_dot.top_losses().sort_values('rating_pred', kind='stable')
    each = np.array_split(rows.rating.to_numpy(), 4)
    if [len(o) for o in each]==cal['rows'].tolist(): np.testing.assert_allclose(cal.se, [o.std(ddof=1)/len(o)**.5 for o in each], rtol=1e-3)
    assert cal.se.between(.01, 1).all()

def test_nothing_is_judged_by_rows_of_weight_0(weighed):
    learn,_ = weighed
    df,_ = learn.dls.valid_ds.frame()
    interp = RecInterpretation.from_learner(learn, dl=learn.dls.test_dl(df.assign(weight=0.)))
    for f in (interp.top_losses, interp.calibration, interp.error_by_count):
        with pytest.raises(ValueError, match='all rows have a weight of 0'): f()

def test_equal_predictions_stay_together():
    one = mode('title')
    interp = RecInterpretation.from_learner(solved(one, lambda l: l.fit_bias(reg=1e9)))
    cal = interp.calibration(4)
    assert len(cal)==len(set(interp.top_losses().rating_pred)) and cal['rows'].sum()==len(interp.top_losses())

# ------------------------------------------------------------------ rows and labels asked for
def test_a_mask_chooses_rows(interp_dot):
    n = len(interp_dot.dl.dataset)
    is_large = interp_dot.losses>1
    want = interp_dot[is_large.nonzero()[:,0]]
    assert 0<len(want)<n and (want.loss>1).all()
    for mask in (is_large, is_large.numpy(), is_large.tolist(), pd.Series(is_large.numpy())): pd.testing.assert_frame_equal(interp_dot[mask], want)
    pd.testing.assert_frame_equal(interp_dot[:3], interp_dot[[0,1,2]])
    assert len(interp_dot[-1])==1 and not len(interp_dot[[]]) and not len(interp_dot[torch.zeros(n, dtype=torch.bool)])
    for bad in (is_large[:5], [True,False]):
        with pytest.raises(IndexError, match=f'a mask needs a value for each of the {n} rows'): interp_dot[bad]
    for bad in (1.5, [0.,1.], 'x', None):
        with pytest.raises(TypeError, match='by whole numbers or by a mask'): interp_dot[bad]
    with pytest.raises(IndexError): interp_dot.show_results(is_large[:5])

def points(ax): return sum(len(o.get_offsets()) for o in ax.collections if o.get_offsets().ndim==2 and len(o.get_offsets()) and o.get_sizes().size)

def test_what_to_show_is_checked_first(interp_dot):
    title = interp_dot.item_pca().index[4]
    assert points(interp_dot.plot_pca(show=np.int64(5)))==5 and points(interp_dot.plot_pca(show=[title,title]))==1
    assert points(interp_dot.plot_pca((np.int64(1),2), show=3))==3
    for f in (lambda: interp_dot.plot_pca(show=0), lambda: interp_dot.plot_pca(show=-5), lambda: interp_dot.plot_map(show=-1)):
        with pytest.raises(ValueError, match='show=.* must be at least 1'): f()
    for f in (lambda: interp_dot.plot_pca(show=True), lambda: interp_dot.plot_pca(show=2.5), lambda: interp_dot.plot_pca(show=None)):
        with pytest.raises(TypeError, match='show=.* must be a whole number'): f()
    with pytest.raises(ValueError, match='show names no label'): interp_dot.plot_pca(show=[])
    for bad in ((1.5,2), (1,1), 'ab', 3, (True,2), (1,2,3)):
        with pytest.raises(ValueError, match='two numbers from 1 on'): interp_dot.plot_pca(bad)
    for bad in (1.5, '3', True):
        with pytest.raises(TypeError, match='n_components=.* must be a whole number'): interp_dot.item_pca(bad)
        with pytest.raises(TypeError, match='top=.* must be a whole number'): interp_dot.item_pca(top=bad)

def test_a_loaded_learner_does_not_know_the_most_rated(ratings, tmp_path):
    learn = trained(ratings, DotBias)
    titles = RecInterpretation.from_learner(learn).item_pca().index
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings(action='ignore'): interp = RecInterpretation.from_learner(load_learner(tmp_path/'l.pkl'))
    for f in (lambda: interp.plot_pca(show=5), lambda: interp.plot_map(None, show=5)):
        with pytest.raises(ValueError, match='holds no ratings, which show=5 needs: name the labels'): f()
    assert points(interp.plot_pca(show=titles[:3]))==3

def test_a_stock_learner_of_our_loaders(ratings):
    from fastai.collab import collab_learner
    dls = RecDataLoaders.from_df(ratings, seed=1, bs=256)
    interp = RecInterpretation.from_learner(collab_learner(dls, n_factors=4, y_range=(0,5.5)))
    assert interp.learn.dls is dls and len(interp.top_losses(3))==3 and len(interp.item_bias(5))==5

# ------------------------------------------------------------------ labels as they are written
hard = ['$$', '$5 and $10 a day', 'Two\nlines', ' '.join(40*['long']), 'a_b^c', '\\alpha $x$ %', '<b>&</b>', '']

def test_any_label_is_drawn(tmp_path):
    names = dict(zip(little.title.value_counts().index, hard[:-1]))
    df = little.assign(title=little.title.astype(str).replace(names)).rename(columns=dict(title='$title$', user='$u$ser'))
    with quietly(): learn = solved(df, lambda l: l.fit_als(3, 3), user_name='$u$ser', item_name='$title$')
    interp = RecInterpretation.from_learner(learn)
    groups = {o: f'${len(o)%3}$' for o in interp.item_pca(1).index}
    pictures = [interp.plot_bias(), interp.plot_top_losses(8), interp.plot_pca(show=hard[:-1]), interp.plot_map(12), interp.plot_pca(color=pd.Series(groups, name='$g$')),
                interp.plot_pca(color=pd.Series(1., groups, name='$c$')), interp.plot_error_by_count()]
    for ax in pictures: ax.figure.canvas.draw()
    for ax in pictures[:2]:
        boxes = inside(ax)
        assert not any(a.overlaps(b) for i,a in enumerate(boxes) for b in boxes[:i])
    shown = [o.get_text() for o in pictures[0].get_yticklabels()]
    assert any(o.startswith(r'\$5 and \$10 a day (') for o in shown) and any('long …' in o for o in shown) and any(o.startswith('Two lines (') for o in shown)

def test_labels_are_seen_on_dark_pictures(interp_dot):
    with plt.style.context('dark_background'):
        for ax in (interp_dot.plot_pca(show=5), interp_dot.plot_map(8)): assert len(ax.texts) and {o.get_color() for o in ax.texts}=={'white'}
        from matplotlib.colors import to_hex
        ax = interp_dot.plot_bias(3)
        assert {to_hex(o.get_facecolor()[0]) for o in ax.collections if len(o.get_facecolor())}<={'#000000','#1f77b4'}
