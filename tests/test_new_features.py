"""Users and items who come later, by features alone, by ratings, by both: as if they had stood in the frame of training, as by equations written out,
from a learner and from a folder, and refused where nothing follows from features"""
import copy,subprocess,sys,warnings
from functools import cache
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import load_learner
from conftest import seldom
from fastrec.all import BundleError,DotBias,RecDataLoaders,SampledSoftmaxLoss,dot_learner,learner,load_recommender,nn_learner,sample_ratings
from fastrec.data.features import Features
from fastrec.data.labels import Vocab
from fastrec.models.maps import applied,map_rows
from fastrec.models.posterior import PosteriorMean

_few = dict(n_users=150, n_items=90, n_ratings=5000)
new_film,new_user = 'A new one (2026)',10**6
makes = dict(fit_als=(dot_learner,'fit_als',(5,),{}), fit_bias=(dot_learner,'fit_bias',(),{}), penalized=(dot_learner,'fit_als',(4,),dict(reg=.5)), fit_ials=(dot_learner,'fit_ials',(8,),{}),
    popular=(dot_learner,'fit_ials',(0,),{}), fit_bayes=(dot_learner,'fit_bayes',(3,40),{}), sgd=(dot_learner,'fit_one_cycle',(3,),{}), net=(nn_learner,'fit_one_cycle',(3,),{}))

@cache
def data(**kwargs):
    "Ratings without twelve films and eight users, those of these, and frames in which a film and a user stand besides that nobody has rated, or that have rated nothing"
    df,truth = sample_ratings(**(_few|kwargs), with_truth=True)
    df = df[['user','title','rating']].astype(dict(title=str))
    sides = truth.sides()
    rng = np.random.default_rng(0)
    films,users = rng.choice(sorted(df.title.unique()), 12, replace=False),rng.choice(sorted(df.user.unique()), 8, replace=False)
    is_late = df.title.isin(films)|df.user.isin(users)
    items,people = sides['items'].rename_axis('title'),sides['users'].rename_axis('user')
    known = items[~items.index.isin(films)],people[~people.index.isin(users)]
    extra = pd.concat([known[0], items.head(1).set_axis([new_film])]).rename_axis('title'),pd.concat([known[1], people.head(1).set_axis([new_user])]).rename_axis('user')
    return df[~is_late].reset_index(drop=True),df[is_late&~df.user.isin(users)],df[is_late&~df.title.isin(films)],items,people,*extra

def fit_of(name, ratings, **frames):
    make,fit,args,kwargs = makes[name]
    learn = make(RecDataLoaders.from_df(ratings, seed=1, device='cpu', **frames), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

@cache
def fitted(name):
    early,_,_,_,_,items,users = data()
    return fit_of(name, early, items=items, users=users)

def twins(k):
    "A frame with one who has the features of the unrated one of the training frame, under another name"
    frame = data()[5+k].tail(1)
    return frame.set_axis([['Again (2027)'],[new_user+1]][k]).rename_axis(frame.index.name)

# ------------------------------------------------------------------ as in training
@pytest.mark.parametrize('name', makes)
def test_who_comes_later_is_as_who_stood_in_the_frame(name):
    learn = fitted(name)
    more = learn.extend(items=twins(0), users=twins(1))
    close = dict(atol=.8 if name=='fit_bayes' else 2e-4)  # of draws the mean of the chance of each
    grid = more.predict_grid(None, [new_film,'Again (2027)'])
    np.testing.assert_allclose(*grid.T, **close)
    np.testing.assert_allclose(*more.predict_grid([new_user,new_user+1], None), **close)
    before = learn.predict_grid()
    if name=='popular': before = before*len(learn.dls.classes['user'].labels)/len(more.ds.classes['user'].labels)  # shares of one more
    np.testing.assert_allclose(more.predict_grid()[:len(before),:before.shape[1]], before, atol=1e-5)
    folded = learn.fold_in(users=twins(1).set_axis([7]).rename_axis('user'))
    np.testing.assert_allclose(folded.predict_grid(7, None)[0], learn.predict_grid(new_user, None)[0], **close)
    assert [*folded.ds.classes['user'].labels]==[7] and len(more.ds.classes['title'])==len(learn.dls.classes['title'])+1

def test_draws_are_as_those_of_the_frame():
    learn = fitted('fit_bayes')
    more = learn.extend(items=twins(0), users=twins(1))
    pairs = pd.DataFrame(dict(user=data()[0].user.unique()))
    stood,later = (more.predict_df(pairs.assign(title=o), std=True) for o in (new_film,'Again (2027)'))
    assert abs(stood.rating_pred.mean()-later.rating_pred.mean())<.2 and np.corrcoef(stood.rating_pred, later.rating_pred)[0,1]>.8
    assert .8<later['std'].mean()/stood['std'].mean()<1.25

def test_a_drawn_model_has_a_drawn_map():
    "On few ratings `fit_als` is drawn to biases, and what features say with it"
    df,truth = sample_ratings(n_users=200, n_items=150, n_ratings=1700, with_truth=True)
    items = truth.sides()['items']
    df = df.assign(rating=df.rating+df.title.map(items.genre).eq(items.genre.iloc[0]))  # one genre is liked by everybody
    items = pd.concat([items, items.head(3).set_axis([*'xyz'])]).rename_axis('title')
    learn = fit_of('fit_als', df[['user','title','rating']].astype(dict(title=str)), items=items)
    assert learn.model.advised is not None and min(learn.model.advised[:2])<1
    rows = learn.model.row_maps[1]['rows']
    codes = learn.dls.classes['title'].lookup([*'xyz'])
    want = torch.cat([e.weight.detach() for e in learn.model.tables[1]], 1)[codes]
    got = applied(rows, learn.dls.train_ds.features[1].x)[codes]
    assert torch.allclose(got, want, atol=1e-5) and want.abs().sum()>0

@pytest.mark.parametrize('name', ['fit_als','sgd','fit_ials'])
def test_a_frame_that_lacked_them_costs_little(name):
    "What their absence from training changes: the seeds of factors, and how much a feature varies"
    early,_,_,items,users,*_ = data()
    known = items[items.index.isin(early.title)]
    new = items.drop(known.index)
    users = users[users.index.isin(early.user)]
    stood,absent = (fit_of(name, early, items=o, users=users) for o in (items,known))
    later = absent.extend(items=new)
    a,b = (o.predict_grid(None, [*new.index]).numpy().flatten() for o in (stood,later))
    assert np.corrcoef(a, b)[0,1]>.9 and np.abs(a-b).mean()<.12*max(1., a.std())

# ------------------------------------------------------------------ by both
def test_with_ratings_by_equations_written_out():
    learn = fitted('fit_als')
    early,late,_,items,*_ = data()
    film = late.title.mode()[0]
    mine = late[late.title==film].head(4)
    more = learn.extend(mine, items=items.loc[[film]])
    row_map,m = learn.model.row_maps[1],learn.model
    rows = torch.cat([m.i_weight.weight,m.i_bias.weight], 1).detach()
    x = learn.dls.train_ds.features[1]
    found = applied(row_map['rows'], x.x)
    is_rated = learn.dls.train_ds.counts(1)>0
    rest = (rows-found)[is_rated].double()
    cov = (rest-rest.mean(0)).T@(rest-rest.mean(0))/(len(rest)-1)
    cov = cov+torch.eye(len(cov))*cov.diagonal().mean()*1e-3
    mean = applied(row_map['rows'], x.encode(items.loc[[film]]))[0].double()
    codes = torch.from_numpy(learn.dls.classes['user'].lookup(mine.user)).long()
    z = torch.cat([m.u_weight.weight[codes], torch.ones(len(codes), 1)], 1).double().detach()
    off = (m.u_bias.weight[codes,0]+m.mean).double().detach()
    y = torch.tensor(mine.rating.to_numpy()).double()
    noise = float(learn.noise)
    want = mean+torch.linalg.solve(torch.linalg.inv(cov)+z.T@z/noise, z.T@(y-off-z@mean)/noise)
    got = torch.cat([more.model.i_weight.weight[-1],more.model.i_bias.weight[-1]])
    assert torch.allclose(got.double(), want, atol=1e-3)

def test_choices_by_equations_written_out():
    learn = fitted('fit_ials')
    _,late,_,items,*_ = data()
    film = late.title.mode()[0]
    mine = late[late.title==film].head(5)
    more = learn.extend(mine, items=items.loc[[film]])
    p,args = learn.model.user_factors.double(),learn.model.ials
    labels = learn.extend(items=items.loc[[film]]).model
    prior = labels.i_weight.weight[-1].double().detach()
    a = args['alpha0']*p.T@p+torch.eye(p.shape[1])*args['reg']*(5+args['alpha0']*len(p))
    q = p[learn.dls.classes['user'].lookup(mine.user)-1]
    want = torch.linalg.solve(a+q.T@q, (1-5/15)*a@prior+q.sum(0))  # of what features say, less with every choice
    assert prior.any() and torch.allclose(more.model.i_weight.weight[-1].double(), want, atol=1e-4)

def rmse(rec, held, **kwargs): return float(np.sqrt(((rec.predict_df(held, **kwargs)-held.rating)**2).mean()))

@pytest.mark.parametrize('name', ['fit_als','sgd','fit_bayes'])
def test_features_help_at_few_ratings(name):
    df,truth = sample_ratings(n_users=500, n_items=300, n_ratings=20_000, with_truth=True)
    df = df[['user','title','rating']].astype(dict(title=str))
    items = truth.sides()['items']
    films = np.random.default_rng(0).choice(sorted(df.title.unique()), 40, replace=False)
    is_late = df.title.isin(films)
    early,late = df[~is_late].reset_index(drop=True),df[is_late]
    learn = fit_of(name, early, items=items.drop(films))
    place = late.groupby('title').cumcount()
    rest = late[place>=3]
    alone = learn.extend(items=items.loc[films])
    with pytest.warns(UserWarning, match='the average stands in'): average = rmse(learn, rest, unknown='average')
    assert rmse(alone, rest)<.993*average  # measured: .952 to .984
    three = late[place<3]
    by_both = learn.extend(three, items=items.loc[films])
    assert rmse(by_both, rest)<rmse(learn.extend(three), rest)-.005<rmse(alone, rest)+.03
    if name=='fit_bayes':
        pred = alone.predict_df(rest, std=True)
        assert .84<((rest.rating-pred.rating_pred).abs()<1.645*pred['std']).mean()<.96

def test_features_today_and_ratings_tomorrow():
    learn = fitted('fit_als')
    _,late,_,items,*_ = data()
    frame = items[items.index.isin(late.title)]
    at_once = learn.extend(late, items=frame)
    one_by_one = learn.extend(items=frame).extend(late)
    np.testing.assert_allclose(one_by_one.predict_grid(), at_once.predict_grid(), atol=1e-4)
    for o in (at_once,one_by_one):
        assert int(o.counts.sum())==len(learn.dls.train_ds)+len(late) and o.ds.features[1].names==learn.dls.train_ds.features[1].names

def test_new_users_by_both():
    learn = fitted('fit_als')
    _,_,mine,_,users,*_ = data()
    user = mine.user.mode()[0]
    few = mine[mine.user==user].head(3)
    folded = [learn.fold_in(few, users=users.loc[[user]]),learn.fold_in(few.drop(columns='user'), users=users.loc[[user]]),learn.fold_in(few)]
    extended = learn.extend(few, users=users.loc[[user]])
    grids = [o.predict_grid(user, None)[0] for o in (*folded,extended)]
    np.testing.assert_allclose(grids[1], grids[0], atol=1e-6)
    assert np.abs(grids[3]-grids[0]).max()<.2 and np.corrcoef(grids[3], grids[0])[0,1]>.98  # the films have moved a little too
    assert np.abs(grids[2]-grids[0]).max()>.01
    some = learn.fold_in(few, users=users.head(3).set_axis([-1,-2,-3]).rename_axis('user'))  # who has rated is not in the frame
    np.testing.assert_allclose(some.predict_grid(user, None)[0], grids[2], atol=1e-4)
    assert len(some.ds.classes['user'])==5

# ------------------------------------------------------------------ kept
@pytest.mark.parametrize('name', makes)
def test_a_folder_takes_in_as_the_learner_does(name, tmp_path):
    learn = fitted(name)
    early,late,mine,items,users,*_ = data()
    learn.save_recommender(tmp_path/'rec')
    loaded = load_recommender(tmp_path/'rec', device='cpu')
    frames = dict(items=items[items.index.isin(late.title)], users=users[users.index.isin(mine.user)])
    for ratings in (None,late.groupby('title').head(2)):
        with warnings.catch_warnings():
            warnings.filterwarnings('ignore', '.*stay as they are')
            a,b = (o.extend(ratings, **frames) for o in (learn,loaded))
        of = [*frames['users'].index],[*frames['items'].index]
        np.testing.assert_allclose(a.predict_grid(*of), b.predict_grid(*of), atol=2e-3)
    a,b = (o.fold_in(users=frames['users']).predict_grid() for o in (learn,loaded))
    np.testing.assert_allclose(a, b, atol=1e-4)
    b = loaded.extend(items=frames['items'])
    b.save_recommender(tmp_path/'more')
    again = load_recommender(tmp_path/'more', device='cpu')
    np.testing.assert_allclose(again.predict_grid(), b.predict_grid(), atol=1e-4)
    np.testing.assert_allclose(again.extend(users=frames['users']).predict_grid(), b.extend(users=frames['users']).predict_grid(), atol=1e-4)

def test_without_fastai(tmp_path):
    fitted('fit_als').save_recommender(tmp_path/'rec')
    items = data()[3]
    items[items.index.isin(data()[1].title)].to_pickle(tmp_path/'new.pickle')
    code = f"""import sys,pandas as pd
from fastrec.export import load_recommender
new = pd.read_pickle({str(tmp_path/'new.pickle')!r})
rec = load_recommender({str(tmp_path/'rec')!r}).extend(items=new)
assert new.index.isin(rec.recommend(n=200).title).all() and rec.predict_grid(None, list(new.index)).isfinite().all()
assert 'fastai' not in sys.modules"""
    subprocess.run([sys.executable, '-c', code], check=True, timeout=110)

def test_no_features_of_anybody_are_in_a_folder(tmp_path):
    "But what was learned of all: means and values"
    fitted('fit_als').save_recommender(tmp_path/'rec')
    loaded = load_recommender(tmp_path/'rec', device='cpu')
    for a,b in zip(loaded.ds.features, fitted('fit_als').dls.train_ds.features): assert a.names==b.names and not a.x._nnz() and b.x._nnz()

@pytest.mark.parametrize('change', [lambda t: t.update({'row_maps.1.rows': t['row_maps.1.rows'][:-1]}), lambda t: t.update({'row_maps.1.cov': t['row_maps.1.cov'][:2]}), lambda t: t.pop('row_maps.1.cov'),
    lambda t: t.update({'features.1': torch.tensor([*b'[]'], dtype=torch.uint8)}), lambda t: t.update({'features.1': torch.tensor([*b'[3]'], dtype=torch.uint8)}), lambda t: t.pop('features.1'),
    lambda t: t.update({'row_maps.1.rows': t['row_maps.1.rows']*torch.inf})], ids=range(7))
def test_forged_maps_are_refused(change, tmp_path):
    from fastrec.export.loading import assemble,read_files
    from fastrec.export.manifest import read_manifest
    fitted('fit_als').save_recommender(tmp_path/'rec')
    manifest = read_manifest(tmp_path/'rec')
    files = read_files(tmp_path/'rec', manifest)
    change(next(v for k,v in files.items() if k.startswith('model-')))
    with pytest.raises((BundleError,ValueError,KeyError,TypeError)): assemble(tmp_path/'rec', manifest, files)

def test_maps_go_where_the_model_goes(tmp_path):
    learn = copy.deepcopy(fitted('fit_als'))
    learn.path = tmp_path
    want = learn.extend(items=twins(0)).predict_grid(None, ['Again (2027)'])
    learn.save('m')
    other = copy.deepcopy(fitted('fit_als'))
    other.path = tmp_path
    other.model.row_maps = None,None
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        other.load('m')
    np.testing.assert_allclose(other.extend(items=twins(0)).predict_grid(None, ['Again (2027)']), want, atol=1e-5)
    less = learn.without_items([data()[0].title[0]])
    np.testing.assert_allclose(less.extend(items=twins(0)).predict_grid(None, ['Again (2027)']), want, atol=1e-5)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1)
    assert learn.model.row_maps==(None,None)  # gradients have moved the rows: the map is found anew
    more = learn.extend(items=twins(0))
    np.testing.assert_allclose(*more.predict_grid(None, [new_film,'Again (2027)']).T, atol=2e-4)

def test_an_exported_learner_says_what_it_lacks(tmp_path):
    for name,works in (('fit_als',True),('sgd',False)):
        learn = copy.deepcopy(fitted(name))
        learn.export(tmp_path/'l.pkl')
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            loaded = load_learner(tmp_path/'l.pkl')
        if works: assert loaded.extend(items=twins(0)).predict_grid(None, ['Again (2027)']).isfinite().all()
        else:
            with pytest.raises(ValueError, match='the ratings of training are not kept here, nor a map: save it with save_recommender'): loaded.extend(items=twins(0))

# ------------------------------------------------------------------ refused, or told
def frame(**kwargs): return twins(0).assign(**kwargs)
@pytest.mark.parametrize('items,error,match', [
    (lambda: twins(0).reset_index(drop=True), ValueError, "items has no column 'title'"), (lambda: pd.concat([twins(0), twins(0)]), ValueError, "'Again .2027.' of 'title' several times"),
    (lambda: twins(0).set_axis([None]).rename_axis('title'), ValueError, "items has 1 rows without 'title'"), (lambda: twins(0).head(0), ValueError, 'items has no rows'),
    (lambda: twins(0).set_axis([3]).rename_axis('title'), ValueError, "holds numbers .*the model was trained on text"), (lambda: data()[5].tail(2), ValueError, "of 'title' is in items= and is known already: leave out"),
    (lambda: twins(0).drop(columns='genre'), ValueError, "items has no column 'genre', from which something was learned"), (lambda: twins(0).genre, TypeError, 'items must be a DataFrame'),
    (lambda: 'new.csv', TypeError, 'items must be a DataFrame'), (lambda: pd.concat([twins(0)]*2, axis=1), ValueError, "items has several columns 'genre'")])
def test_bad_frames_are_refused_before_anything(items, error, match):
    learn = fitted('fit_als')
    before = learn.predict_grid()
    with pytest.raises(error, match=match): learn.extend(items=items())
    assert learn.predict_grid().equal(before)

def test_what_was_not_learned_is_told():
    learn = fitted('fit_als')
    plain = learn.extend(items=twins(0)).predict_grid(None, ['Again (2027)'])
    with pytest.warns(UserWarning, match="columns from which nothing was learned, 'more' for one; left out"): more = learn.extend(items=frame(more=1))
    np.testing.assert_allclose(more.predict_grid(None, ['Again (2027)']), plain)
    with pytest.warns(UserWarning, match="1 values of 'genre' that were not learned, 'opera' for one"): learn.extend(items=frame(genre='opera'))
    unknown = learn.extend(items=frame(genre=None, decade=None))  # of which nothing is known: the average
    np.testing.assert_allclose(unknown.predict_grid(None, ['Again (2027)'])[:,0], learn.model.score_grid(torch.arange(1, len(learn.dls.classes['user'])), torch.zeros(1, dtype=torch.long)).detach()[:,0], atol=.05)
    late,items = data()[1],data()[3]
    films = late.title.unique()[:3]
    with pytest.warns(UserWarning, match=r"no row for 2 new labels of 'title', .* for one: these are known by their ratings alone"): learn.extend(late[late.title.isin(films)], items=items.loc[films[:1]])

def test_ratings_by_unknown_users_make_them_known():
    learn = fitted('fit_als')
    ratings = pd.DataFrame(dict(user=[-5,-5,-6], title=['Again (2027)',data()[0].title[0],'Again (2027)'], rating=[5.,5.,1.]))
    more = learn.extend(ratings, items=twins(0))
    assert {-5,-6}<={*more.ds.classes['user'].labels} and more.predict(-5, 'Again (2027)')>more.predict(-6, 'Again (2027)')

def test_models_without_features_say_so(tmp_path):
    early = data()[0]
    plain = fit_of('fit_als', early)
    plain.save_recommender(tmp_path/'rec')
    for rec in (plain,load_recommender(tmp_path/'rec', device='cpu'),fit_of('fit_als', early, users=data()[6])):
        with pytest.raises(ValueError, match='this model was trained without features of items, or with none that tell them apart: pass items= to from_df'): rec.extend(items=twins(0))
    for call in (lambda: plain.extend(users=twins(1)), lambda: plain.fold_in(users=twins(1))):
        with pytest.raises(ValueError, match='this model was trained without features of users, or with none that tell them apart: pass users='): call()
    with pytest.raises(ValueError, match='nothing is new: pass ratings'): plain.extend()
    with pytest.raises(ValueError, match='nobody was named: pass ratings'): plain.fold_in()

@pytest.mark.parametrize('fit,match', [(lambda l: None, 'was not trained, or without following them'), (lambda l: l.fit_als(3, features=False), 'without following them'), (lambda l: l.fit_ease(features=False), 'without following them'),
    (lambda l: l.fit_bayes(2, 4, side='implicit'), 'fitted with side=')], ids=['untrained','without','ease','side'])
def test_what_follows_no_features_says_why(fit, match):
    early,_,_,_,_,items,_ = data()
    learn = learner(RecDataLoaders.from_df(early, seed=1, items=items, device='cpu'), DotBias, seed=0)
    with learn.no_bar(),learn.no_logging(): fit(learn)
    with pytest.raises(ValueError, match=f'features of items say nothing to this model, .*{match}'): learn.extend(items=twins(0))

@cache
def by_weights(fit='fit_ease'):
    early,_,_,_,_,items,users = data()
    learn = learner(RecDataLoaders.from_df(early, seed=1, items=items, users=users, device='cpu'), DotBias, seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    return learn

def test_weights_follow_features_the_less_the_more_is_chosen():
    early,*_ = data()
    learn = by_weights()
    with learn.no_bar(),learn.no_logging():
        plain = learner(learn.dls, DotBias, seed=0)
        plain.fit_ease(features=False)
    added = (learn.model.weight-plain.model.weight).detach()
    counts,x = learn.dls.train_ds.counts(1).float(),learn.dls.train_ds.features[1].x
    want = (10/(10+counts[:,None])*applied(learn.model.row_maps[1]['rows'], x))[1:].T.clone()
    np.testing.assert_allclose(added, want.fill_diagonal_(0), atol=1e-5)
    items = data()[5]
    assert (items.loc[learn.similar(new_film, 4).title].genre==items.genre[new_film]).all() and learn.predict_grid(None, [new_film]).std()>0
    assert new_film not in [*learn.similar(early.title[0], 200).title]
    with pytest.raises(ValueError, match='features of users say nothing to this model, whose weights are of pairs of items: use fit_ials'): learn.extend(users=twins(1))
    with pytest.warns(UserWarning, match='their preference says nothing'): assert not plain.predict_grid(None, [new_film]).any()
    assert plain.model.from_features==(False,False) and plain.last_fit[1]==dict(reg=None, features=False)

def test_an_item_has_no_weight_for_itself_that_features_could_see():
    "Of two films of a director each speaks for the other, and in full for the third"
    from fastrec.models.feature_weights import add_by_features,map_to_columns
    films = Vocab([*'abcde'], 'title')
    x = Features(pd.DataFrame(dict(by=[*'xxyyx']), index=pd.Index([*'abcde'], name='title')), films).x
    weight = torch.zeros(5, 5)
    weight[0,1] = weight[1,0] = weight[2,3] = weight[3,2] = 1.
    counts = torch.tensor([0.,50,50,50,50,0])
    rows = map_to_columns(weight, x, counts)
    add_by_features(weight, rows, torch.tensor([5]), x.index_select(0, torch.tensor([5])), torch.zeros(1))
    assert (weight[:2,4]>.28).all() and (weight[2:4,4]<.1).all() and not weight[4].any()  # .15 in one round

def test_new_items_get_weights_from_a_learner_a_folder_and_what_was_extended(tmp_path):
    learn = by_weights()
    learn.save_recommender(tmp_path/'rec', ratings=True)
    grids,unknown,titles,early_user = [],[],[*learn.dls.classes['title'].labels],data()[0].user[0]
    for rec in (learn,load_recommender(tmp_path/'rec', device='cpu')):
        more = rec.extend(items=twins(0))
        a,b = more.predict_grid(None, [new_film,'Again (2027)']).T
        np.testing.assert_allclose(a, b, atol=1e-6)
        assert a.std()>0
        unknown.append([more.predict(early_user, 'nobody knows', unknown='average'), more.predict('nor them', new_film, unknown='average')])
        np.testing.assert_allclose(more.predict_grid(None, titles), learn.predict_grid(), atol=1e-6)
        late = more.extend(items=twins(0).set_axis(['Third (2028)']).rename_axis('title'))
        np.testing.assert_allclose(late.predict_grid(None, ['Third (2028)']).flatten(), a, atol=1e-6)
        more.save_recommender(tmp_path/'more')
        grids.append(load_recommender(tmp_path/'more', device='cpu').predict_grid())
        fewer = late.without_items(titles[:5])
        assert fewer.model.row_maps[1]['rows'].shape[1]==fewer.model.width
        np.testing.assert_allclose(fewer.extend(items=twins(0).set_axis(['Fourth (2029)']).rename_axis('title')).predict_grid(None, ['Fourth (2029)']), fewer.predict_grid(None, ['Third (2028)']), atol=1e-6)
    np.testing.assert_allclose(*grids, atol=1e-6)
    np.testing.assert_allclose(*unknown, rtol=1e-4)

def test_choices_of_a_new_item_leave_the_weights_of_unchosen_ones_alone():
    early,late,_,items,*_ = data()
    learn = by_weights()
    film = late.title.mode()[0]
    more = learn.extend(late[late.title==film], items=items.loc[[film]])
    code = more.ds.classes['title'].lookup([new_film,film])-1
    w = more.model.weight.detach()
    assert not w[code[1],code[0]] and w[:,code[1]].any() and w[code[1]].any()
    users = early.user.unique()[:40]
    kept = ~np.isin(users, late[late.title==film].user)
    np.testing.assert_allclose(more.predict_grid(users, [new_film])[kept], learn.predict_grid(users, [new_film])[kept], atol=1e-6)

def test_a_loss_of_choices_says_why():
    early,_,_,_,_,items,_ = data()
    learn = learner(RecDataLoaders.from_df(early, seed=1, items=items, device='cpu'), loss_func=SampledSoftmaxLoss(), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1)
    with pytest.raises(ValueError, match='whose loss of choices does not follow any'): learn.extend(items=twins(0))

def test_a_blend_takes_users_by_features_and_items_as_if_they_had_stood_in_the_frame():
    early,_,_,_,_,items,users = data()
    learn = learner(RecDataLoaders.from_df(early, seed=1, items=items, users=users, device='cpu'), DotBias, seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=.3)
    more = learn.extend(users=twins(1))
    a,b = (more.recommend(o, n=10, exclude_seen=False) for o in (new_user,new_user+1))
    assert a.title.tolist()==b.title.tolist() and np.allclose(a.score, b.score, atol=1e-3)
    more = learn.extend(items=twins(0))
    a,b = (more.recommend(data()[0].user[0], items=[o]) for o in (new_film,'Again (2027)'))
    assert np.allclose(a.score, b.score, atol=1e-3)

def test_new_items_stand_on_lists_and_are_counted():
    learn = fitted('fit_ials')
    items = data()[3]
    new = items[items.index.isin(data()[1].title)]
    more = learn.extend(items=new)
    user = data()[0].user[0]
    assert {*new.index}<={*more.recommend(user, n=200).title} and not {*new.index}&{*more.recommend(user, n=200, min_count=1).title}
    assert (more.counts[-len(new):]==0).all() and more.drift.share_new==0 and np.isnan(more.drift.rmse_new)

def test_a_map_is_what_it_says():
    rng = torch.Generator().manual_seed(0)
    beta,x = torch.randn(4, 3, generator=rng),torch.rand(6, 4, generator=rng).round()
    x[0] = 0
    rows = map_rows(torch.ones(3)*9, torch.ones(3), beta)
    want = torch.where(x.any(1)[:,None], 1+x@beta, torch.tensor(9.))
    assert (want==9).any()
    assert torch.allclose(applied(rows, x.to_sparse()), want, atol=1e-6)

@pytest.mark.parametrize('empty', [[],'',' ',('',)], ids=repr)
def test_empty_lists_and_texts_are_gaps(empty):
    vocab = Vocab(range(1, 6), 'item')
    frame = pd.DataFrame(dict(item=range(1, 6), t=[['a','b'],'a|',empty,'b',None]))
    made = Features(frame, vocab)
    assert made.names==['t=a','t=b']
    assert made.x.to_dense().tolist()==[[0,0],[1,1],[1,0],[0,0],[0,1],[0,0]]
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not made.encode(frame.iloc[2:3]).to_dense().any()

def test_a_learner_forgets_as_its_folder_does(tmp_path):
    "Maps from features are those of the fit, before and after saving"
    learn = fitted('fit_ials')
    learn.save_recommender(tmp_path/'m', ratings=True)
    item,user = learn.dls.classes['title'].labels[3],learn.dls.classes['user'].labels[3]
    got,want = (o.without_items([item]).without_users([user]).extend(items=twins(0)) for o in (learn,load_recommender(tmp_path/'m')))
    np.testing.assert_allclose(got.predict_grid(), want.predict_grid(), atol=1e-5)

# ------------------------------------------------------------------ choices, and features beside them
def chosen(seed=0, n_users=300, n_items=60, each=12):
    "Choices by three tastes, and the factors of users and of items"
    rng = np.random.default_rng(seed)
    p,q = rng.normal(size=(n_users,3)),rng.normal(size=(n_items,3))
    scores = -.5*np.log(1+np.arange(n_items)) + .8*p@q.T + rng.gumbel(size=(n_users,n_items))
    items = (-scores).argsort(1)[:,:each]
    return pd.DataFrame(dict(user=np.arange(n_users).repeat(each), title=items.ravel(), rating=1.)),p,q

def frame_of(name, x): return pd.DataFrame(x, columns=[*'abc'][:x.shape[1]]).rename_axis(name)

@pytest.mark.parametrize('seed', [0,*seldom(1)])
@pytest.mark.parametrize('fit', ['fit_ials','fit_blend'])
def test_features_that_say_nothing_cost_lists_little(fit, seed):
    "Neither in training, nor by extend and fold_in, which once solved for rows on another scale: then lists lost a seventh"
    df,p,q = chosen(seed)
    df['rating'] = np.random.default_rng(9).choice([3.,4,5], len(df)) if fit=='fit_blend' else 1.
    rng = np.random.default_rng(seed)
    noise = dict(users=frame_of('user', rng.normal(size=(len(p),1))), items=frame_of('title', rng.normal(size=(len(q),1))))
    found = {}
    for told in (False,True):
        learn = learner(RecDataLoaders.from_df(df, seed=seed, **(noise if told else {})), seed=0)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        held,_ = learn.dls.valid_ds.frame()
        ndcg = lambda rec, f=held: rec.evaluate(f).ndcg_at_10['model']
        known,_ = learn.dls.train_ds.frame()
        again = known.assign(user=known.user+1000)
        about = dict(users=noise['users'].set_axis(noise['users'].index+1000).rename_axis('user')) if told else {}
        folded = learn.fold_in(again, **about)
        late = again[again.user<1004]
        more = learn.extend(late, **({'users': about['users'].loc[late.user.unique()]} if told else {}))
        found[told] = ndcg(learn),ndcg(more),ndcg(folded, held.assign(user=held.user+1000))
    plain,told = map(np.array, found.values())
    assert (told>.95*plain).all() and abs(told[1]/told[0]-1)<.02

@pytest.mark.parametrize('weight', [.05,1.,3.], ids=str)
def test_rows_of_choices_follow_features_by_what_they_weigh(weight):
    "By the equations written out: forty choices of weight .05 are two, and four of weight 3 are twelve"
    df,p,q = chosen(2, n_users=600)
    n = 40 if weight<1 else 4
    mine = df[df.title==7].head(n)
    df = pd.concat([df[df.title!=7], mine], ignore_index=True).assign(weight=lambda o: np.where(o.title==7, weight, 1.))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', items=frame_of('title', q)), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(8)
    m,args = learn.model,learn.model.ials
    code, = learn.dls.classes['title'].lookup([7])
    told = applied(m.row_maps[1]['rows'], learn.dls.train_ds.features[1].x)[code,:8].double()
    users = m.user_factors.double()
    own = users[learn.dls.classes['user'].lookup(mine.user)-1]
    ds = learn.dls.train_ds
    weight = float(ds.weights()[ds.x[:,1]==int(code)][0])  # in units in which they are 1 on average
    mass = weight*len(mine)
    a = args['alpha0']*users.T@users + torch.eye(8, dtype=torch.double)*args['reg']*(mass+args['alpha0']*len(users))
    want = torch.linalg.solve(a+weight*own.T@own, max(0, 1-mass/15)*a@told+weight*own.sum(0))
    torch.testing.assert_close(m.i_weight.weight[code].double(), want, atol=1e-5, rtol=1e-4)

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease',*seldom('fit_blend')])
def test_a_new_item_does_not_fall_with_its_first_choices(fit):
    "As the number of those who chose it grows from none, on average over users it is ranked no lower at a fit than what features say of it"
    df,p,q = chosen(1, n_users=600)
    df['rating'] = np.random.default_rng(9).choice([3.,4,5], len(df)) if fit=='fit_blend' else 1.
    film = 5
    mine,rest = df[df.title==film].sample(frac=1, random_state=0),df[df.title!=film]
    ranks = []
    for n in (0,1,3):
        learn = learner(RecDataLoaders.from_df(pd.concat([rest, mine.head(n)], ignore_index=True), valid_pct=0, items=frame_of('title', q)), seed=0)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        ranker = learn.model.lists_by
        u,i = torch.arange(1, 601),torch.arange(1, 61)
        scores = ranker.score(ranker.user_side(u), ranker.item_side(i))
        ranks.append(float((scores>scores[:,[film]]).sum(1).float().mean()))
    assert max(ranks[1:])<ranks[0]+6, ranks  # of 60
