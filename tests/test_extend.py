"""New users, items and ratings beside those of training"""
import copy,subprocess,sys,warnings
import numpy as np,pandas as pd,pytest,torch
from functools import cache
from fastai.collab import load_learner
from fastrec.all import RecDataLoaders,SampledSoftmaxLoss,dot_learner,learner,load_recommender,nn_learner,sample_ratings
from fastrec.answer.recommender import Seen
from fastrec.data.labels import Vocab
from fastrec.models.base import moments
from fastrec.models.choices import choices_of

def softmax(dls): return learner(dls, loss_func=SampledSoftmaxLoss())

makes = dict(fit_bias=(dot_learner,'fit_bias',(),{}), fit_als=(dot_learner,'fit_als',(5,),{}), fit_ials=(dot_learner,'fit_ials',(8,60),{}),
    popular=(dot_learner,'fit_ials',(0,),{}), fit_ease=(dot_learner,'fit_ease',(),{}), fit_bayes=(dot_learner,'fit_bayes',(4,12),{}),
    dot=(dot_learner,'fit_one_cycle',(2,),{}), net=(nn_learner,'fit_one_cycle',(2,),{}), softmax=(softmax,'fit_one_cycle',(2,),{}),
    blend=(dot_learner,'fit_blend',(),dict(weight=.3)))
closed = 'softmax',  # to new items

@cache
def frames():
    "Ratings of training, and later ones: of a new film, of two new users, one of whom has rated nothing else, and of known ones"
    df = sample_ratings(n_users=80, n_items=60, n_ratings=3000).reset_index(drop=True)[['user','title','rating']]
    film,users = df.title.mode()[0],df.user.value_counts().index[40:42]
    is_late = (df.title==film) | df.user.isin(users)
    late,early = df[is_late],df[~is_late].reset_index(drop=True)
    only_film = pd.DataFrame(dict(user=[10**6], title=[film], rating=[4.]))
    return early.iloc[:-20],pd.concat([late, only_film, early.iloc[-20:]], ignore_index=True),film

@cache
def fitted(name, weight_name=None):
    make,fit,args,kwargs = makes[name]
    df = frames()[0]
    if weight_name: df = df.assign(weight=np.random.default_rng(0).choice([.5,1.,3.], len(df)))
    learn = make(RecDataLoaders.from_df(df, seed=3, device='cpu', weight_name=weight_name))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

def suited(name):
    "Later ratings, without new films where these are refused"
    _,late,film = frames()
    return late[late.title!=film] if name in closed else late

@pytest.mark.parametrize('name', makes)
def test_everything_answers_and_comes_back_from_a_folder(name, tmp_path):
    learn,late = fitted(name),suited(name)
    before = learn.predict_grid()
    rec = learn.extend(late)
    assert learn.predict_grid().equal(before)
    known = [len(v) for v in learn.dls.classes.values()]
    assert [len(v) for v in rec.ds.classes.values()]==[known[0]+late[~late.user.isin(learn.dls.classes['user'].labels)].user.nunique(),
        known[1]+(name not in closed)]
    assert rec.predict_grid().isfinite().all() and np.isfinite(rec.predict_df(late)).all()
    lists = rec.recommend(late.user.iloc[0], n=5)
    assert len(lists)==5 and not {*lists.title}&{*late[late.user==late.user.iloc[0]].title}
    assert rec.evaluate(learn.dls.valid_ds.frame()[0]).notna().any(axis=None)
    if name not in ('fit_bias','popular'): assert len(rec.similar(late.title.iloc[0], n=3))==3
    rec.save_recommender(tmp_path/'rec')
    loaded = load_recommender(tmp_path/'rec')
    np.testing.assert_allclose(loaded.predict_grid(), rec.predict_grid(), rtol=1e-4, atol=1e-4)
    pd.testing.assert_frame_equal(loaded.recommend(late.user.iloc[0], n=5), lists, check_dtype=False, rtol=1e-4)

@pytest.mark.parametrize('name', makes)
def test_nobody_else_moves(name):
    learn,late = fitted(name),suited(name)
    rec = learn.extend(late)
    users,items = (v.labels.difference(late[n]) for n,v in learn.dls.classes.items())
    assert len(users)>2
    if name in ('fit_ease','softmax'): items = learn.dls.classes['title'].labels
    assert len(items)>5
    before = learn.predict_grid(users, items)
    if name=='popular': before = before*(learn.ds.sizes[0]-1)/(rec.ds.sizes[0]-1)  # shares of more people
    np.testing.assert_allclose(rec.predict_grid(users, items), before, atol=1e-6)

def test_what_was_seen_and_counted_is_as_if_it_had_been_training():
    learn,late = fitted('fit_als'),suited('fit_als')
    rec = learn.extend(late)
    valid = learn.dls.valid_ds
    x = torch.cat([rec.ds.x, valid.x])
    brute = Seen(x, *map(len, rec.ds.classes.values()), n_train=len(rec.ds))
    for u in range(len(brute.trained)):
        own,expected = (o.items[o.offsets[u]:o.offsets[u+1]].tolist() for o in (rec.seen,brute))
        n = int(brute.trained[u])
        assert own[:n]==expected[:n] and own[n:]==expected[n:]
    assert rec.seen.trained.equal(brute.trained) and rec.seen.offsets.equal(brute.offsets)
    assert rec.counts.equal(torch.bincount(rec.ds.x[:,1].long(), minlength=len(rec.ds.classes['title'])))
    assert rec.n_users==len(rec.ds.classes['user'])-1 and rec.rating_range==(1.,5.)
    pd.testing.assert_frame_equal(rec.ds.decode(rec.ds.x[-len(late):], rec.ds.y[-len(late):]), late.astype({'rating':'float32'}).reset_index(drop=True),
        check_dtype=False)

def only_film():
    "Ratings of the new film by known users with so many ratings that they stay as they are, which leaves the film alone to be solved for"
    early,late,film = frames()
    learn = fitted('fit_als')
    codes = learn.dls.train_ds.x[:,0].long().bincount()
    users = learn.dls.classes['user'].labels[codes[1:]>0][:12]
    return pd.DataFrame(dict(user=users, title=film, rating=np.linspace(1, 5, 12).round()))

@pytest.mark.parametrize('weight_name', [None,'weight'])
def test_a_film_of_choices_solves_the_equations_of_the_fit(weight_name):
    learn,df = fitted('fit_ials', weight_name),only_film()
    w = np.ones(len(df))
    if weight_name:
        df = df.assign(weight=np.linspace(.5, 2, len(df)))
        w = df.weight.to_numpy()/learn.dls.train_ds.weight_unit
    rec = learn.extend(df)
    p = learn.model.user_factors.double().numpy()
    args = learn.model.ials
    chosen = p[learn.dls.classes['user'].lookup(df.user)-1]
    lam = args['reg']*(w.sum()+args['alpha0']*len(p))**args['power']
    a = args['alpha0']*p.T@p + (chosen*w[:,None]).T@chosen + lam*np.eye(p.shape[1])
    q = np.linalg.solve(a, (chosen*w[:,None]).sum(0))
    np.testing.assert_allclose(rec.model.item_factors[-1].numpy(), q, rtol=1e-3, atol=1e-5)

def test_a_film_of_ratings_solves_the_equations_of_a_users():
    learn,df = fitted('fit_als'),only_film()
    rec = learn.extend(df)
    model = learn.model
    (p,b_u),(q,b_i) = [[e.weight.detach().double() for e in es] for es in model.tables]
    m,cov = moments(torch.cat([q[1:],b_i[1:]], 1))
    codes = torch.from_numpy(learn.dls.classes['user'].lookup(df.user)).long()
    design = torch.cat([p[codes], torch.ones(len(df), 1)], 1)
    y = torch.tensor(df.rating.to_numpy()).double()-b_u[codes,0]-model.mean.double()
    prec = torch.linalg.inv(cov)
    z = torch.linalg.solve(prec+design.T@design/learn.noise, prec@m+design.T@y/learn.noise)
    found = torch.cat([rec.model.item_factors[-1], rec.model.i_bias.weight[-1].detach()])
    assert torch.allclose(found.double(), z, rtol=1e-3, atol=1e-4)

def test_popularity_is_the_share_of_users():
    learn,df = fitted('popular'),only_film()
    rec = learn.extend(df)
    assert rec.model.i_bias.weight[-1].item()==pytest.approx(len(df)/rec.n_users)

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_bias','dot','net'])
def test_somebody_new_is_as_folded_in(name):
    learn = fitted(name)
    late = suited('softmax')
    own = late[late.user==late.user.iloc[0]].head(1)  # which moves no film with more than a hundred ratings, and others are put aside
    counts = learn.dls.train_ds.counts(1)
    rec,new = learn.extend(own),learn.fold_in(own)
    others = learn.dls.classes['title'].labels.difference(own.title)
    assert counts.max()<100
    np.testing.assert_allclose(rec.predict_grid(own.user.unique(), others), new.predict_grid(None, others), atol=.05)

def test_choices_of_everybody_are_those_of_all_ratings():
    learn,late = fitted('fit_ease'),suited('fit_ease')
    rec = learn.extend(late)
    u,i = rec.ds.codes
    brute = choices_of(u, i-1, *(len(v)-k for k,v in enumerate(rec.ds.classes.values())))
    every = torch.arange(1, len(brute))
    assert rec.model.choices(every).equal(brute(every))
    assert learn.extend(late[late.title!=frames()[2]]).model.weight is learn.model.weight

def twins(name, n=12):
    "Of the lists of so many users how many of ten films are on those of others with the same ratings, who come in one by one"
    learn = fitted(name)
    df,_ = learn.dls.train_ds.frame()
    held,_ = learn.dls.valid_ds.frame()
    res = []
    for user in learn.dls.classes['user'].labels[:n]:
        rec = learn.extend(df[df.user==user].assign(user=10**7))
        others = {*held[held.user==user].title}
        there = [o for o in rec.recommend(10**7, n=10+len(others)).title if o not in others][:10]
        res.append(len({*learn.recommend(user, n=10).title}&{*there})/len(there))
    return np.mean(res)

@pytest.mark.parametrize('name,least', [('fit_als',.85), ('fit_ials',.85), ('fit_ease',.999), ('fit_bayes',.7), ('dot',.7)])
def test_who_comes_in_with_anothers_ratings_gets_their_list(name, least):
    assert twins(name)>=least

def test_a_film_is_predicted_from_ten_ratings_better_than_from_none():
    learn = fitted('fit_als')
    _,late,film = frames()
    own = late[(late.title==film) & late.user.isin(learn.dls.classes['user'].labels)]
    few,rest = own.iloc[:10],own.iloc[10:]
    with pytest.warns(UserWarning, match='stands in'): average = learn.predict_df(rest, unknown='average')
    pred = learn.extend(few).predict_df(rest)
    assert len(rest)>15 and ((pred-rest.rating)**2).mean()<((average-rest.rating)**2).mean()

@pytest.mark.parametrize('name', ['fit_als','fit_bayes'])
def test_a_folder_without_ratings_says_who_stays(name, tmp_path):
    learn,df = fitted(name),only_film()
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'))
    with pytest.warns(UserWarning, match='12 users that were there stay as they are'): more = rec.extend(df)
    film = df.title.iloc[0]
    np.testing.assert_allclose(more.predict_grid(None, rec.ds.classes['title'].labels), rec.predict_grid(), atol=1e-5)
    np.testing.assert_allclose(more.predict_grid(None, [film]).mean(), learn.extend(df).predict_grid(None, [film]).mean(), atol=.15)
    assert film in {*more.ds.classes['title']} and more.seen.trained.sum()==rec.seen.trained.sum()+len(df)

def test_a_folder_of_choices_knows_enough(tmp_path):
    learn,late = fitted('fit_ials'),suited('fit_ials')
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'))
    a,b = rec.extend(late.drop(columns='rating').assign(rating=1.)),learn.extend(late)
    np.testing.assert_allclose(a.predict_grid(), b.predict_grid(), atol=1e-4)
    assert len(a.extend(late.head(3).assign(user=5*10**6)).ds.classes['user'])==len(a.ds.classes['user'])+1

_light = """
import sys,pandas as pd
from fastrec.export import load_recommender
rec = load_recommender(sys.argv[1])
more = rec.extend(pd.DataFrame(dict(user=[10**6,10**6], title=['Zebra (2000)',rec.ds.classes['title'].labels[0]], rating=[5.,1.])))
assert len(more.recommend(10**6, n=3))==3 and more.save_recommender(sys.argv[2])
assert not [o for o in sys.modules if o.split('.')[0]=='fastai']
print(*more.ds.classes['title'].labels[-1:])
"""

def test_it_does_without_fastai(tmp_path):
    fitted('fit_als').save_recommender(tmp_path/'rec')
    args = [sys.executable, '-W', 'ignore', '-c', _light, str(tmp_path/'rec'), str(tmp_path/'more')]
    done = subprocess.run(args, capture_output=True, text=True, timeout=110, check=True)
    assert done.stdout.strip()=='Zebra (2000)'

def test_nothing_new_changes_nothing():
    learn = fitted('fit_als')
    rec = learn.extend(frames()[1].iloc[:0])
    np.testing.assert_allclose(rec.predict_grid(), learn.predict_grid(), atol=1e-6)
    assert rec.drift.share_new==0 and np.isnan(rec.drift.rmse_new)

def test_drift_is_the_error_before():
    learn,late = fitted('fit_als'),suited('fit_als')
    rec = learn.extend(late)
    with pytest.warns(UserWarning, match='stands in'): pred = learn.predict_df(late, unknown='average')
    assert rec.drift.rmse_new==pytest.approx(((pred-late.rating)**2).mean()**.5, rel=1e-4)
    assert rec.drift.share_new==pytest.approx(len(late)/(len(late)+len(learn.dls.train_ds)))

def test_scores_without_a_unit_have_no_errors():
    df = sample_ratings(n_users=80, n_items=60, n_ratings=2500)[['user','title']].assign(rating=1)
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=0))
    with learn.no_bar(),learn.no_logging(): learn.fit_blend()
    drift = learn.extend(df.head(20).assign(user=-1).drop_duplicates('title')).drift
    assert np.isnan(drift.rmse_new) and np.isnan(drift.rmse_training) and 0<drift.share_new<.1

def test_again_and_again():
    learn,late = fitted('fit_als'),suited('fit_als')
    rec = learn.extend(late.iloc[::2]).extend(late.iloc[1::2])
    once = learn.extend(late)
    assert len(rec.ds)==len(once.ds) and rec.counts.sum()==once.counts.sum()
    assert {*rec.ds.classes['user']}=={*once.ds.classes['user']}

@pytest.mark.parametrize('change,error,says', [
    (dict(rating=9.), ValueError, 'outside the range of the model'),
    (dict(title=3), ValueError, 'holds numbers'),
    (dict(user='x'), ValueError, 'holds text'),
    (dict(user=.5), ValueError, 'cannot be held as int32'),
    (dict(rating=np.nan), ValueError, "have no 'rating'"),
    (dict(rating='good'), ValueError, 'rating')])
def test_what_cannot_be_meant_is_refused(change, error, says):
    learn,late = fitted('fit_als'),suited('fit_als')
    with pytest.raises(error, match=says): learn.extend(late.assign(**change))

def test_missing_columns_are_named():
    learn,late = fitted('fit_als'),suited('fit_als')
    for o in late:
        with pytest.raises((KeyError,ValueError), match=o): learn.extend(late.drop(columns=o))

@pytest.mark.parametrize('name', closed)
def test_new_films_are_refused_where_one_changes_all(name):
    with pytest.raises(ValueError, match='is new, and one item changes the probabilities'): fitted(name).extend(frames()[1])

def test_new_users_of_fold_in_are_not_everybody():
    learn,late = fitted('fit_als'),suited('softmax')
    new = learn.fold_in(late[late.user==late.user.iloc[0]])
    with pytest.raises(ValueError, match='call extend on what fold_in was called on'): new.extend(late)

def test_weights_that_are_none_are_refused_and_zeros_teach_nothing():
    learn,df = fitted('fit_ials','weight'),only_film()
    with pytest.raises(ValueError, match='not finite numbers of 0 or more'): learn.extend(df.assign(weight=-1.))
    weighed = df.assign(weight=[0.]*6+[1.]*6)
    a,b = learn.extend(weighed),learn.extend(weighed.iloc[6:])
    assert torch.allclose(a.model.item_factors[-1], b.model.item_factors[-1], atol=1e-4)
    assert df.title.iloc[0] not in {*a.recommend(df.user.iloc[0], n=100).title}

def test_draws_of_new_users_beside_new_items_are_no_higher_than_beside_others():
    "The numbers that widen draws of users were once those of items: their products added a star where the two met"
    learn,n = fitted('fit_bayes'),12
    film = learn.dls.train_ds.classes['title'].labels[0]
    users,titles = np.arange(n)+10**6,[f'new {k}' for k in range(n)]
    grid = learn.extend(pd.DataFrame(dict(user=users, title=titles, rating=3.5))).predict_grid(users, titles)
    others = (grid.sum()-grid.diag().sum())/(n*(n-1))
    assert abs(grid.diag().mean()-others)<.1
    alone = learn.extend(pd.DataFrame(dict(user=[1,10**6], title=['new',film], rating=3.5)))
    known = float(learn.predict_grid().mean())
    assert abs(alone.predict(10**6,'new')-known)<.5

def test_what_a_new_user_is_told_does_not_depend_on_who_else_has_come():
    learn = fitted('fit_bayes')
    titles = learn.dls.train_ds.classes['title'].labels[:3]
    ann = pd.DataFrame(dict(user='ann', title=titles, rating=[5.,1,4]))
    bob = ann.assign(user='bob')
    alone,both = learn.fold_in(ann).predict_grid(),learn.fold_in(pd.concat([bob,ann])).predict_grid()
    assert (both[0]-alone[0]).abs().max()<1e-4 and (both[1]-alone[0]).abs().max()<1e-4

@pytest.mark.parametrize('name', ['fit_als','fit_bayes'])
def test_a_new_user_does_not_move_by_others_who_come_with_a_new_film(name):
    learn = fitted(name)
    titles = learn.dls.train_ds.classes['title'].labels[:3]
    ann = pd.DataFrame(dict(user=10**6, title=titles, rating=[5.,1,4]))
    others = pd.DataFrame(dict(user=np.arange(20)+2*10**6, title='a new film', rating=1.))
    alone,beside = (learn.extend(o).predict_grid([10**6], titles) for o in (ann,pd.concat([ann,others])))
    assert (alone-beside).abs().max()<1e-5

@pytest.mark.parametrize('name', ['fit_als','fit_ials'])
def test_rows_of_weight_0_are_seen_and_move_nobody(name):
    learn = fitted(name,'weight')
    user,film = (v.labels[0] for v in learn.dls.classes.values())
    unseen = learn.recommend(user, n=1).title[0]
    row = pd.DataFrame(dict(user=[user,user], title=[film,unseen], rating=[5.,1.], weight=[0.,0.]))
    rec = learn.extend(row)
    assert rec.predict_grid().equal(learn.predict_grid())
    assert unseen not in {*rec.recommend(user, n=100).title}
    with pytest.warns(UserWarning, match='^1 of the 2 new rows is of a pair'): rec = learn.extend(row.assign(weight=1.))
    assert not rec.predict_grid().equal(learn.predict_grid())

@pytest.mark.parametrize('name', closed)
def test_films_that_nobody_rated_in_training_are_as_new_ones(name, tmp_path):
    make,fit,args,kwargs = makes[name]
    df = frames()[0]
    items = pd.DataFrame(dict(title=[*df.title.unique(),'Unrated'])).assign(year=lambda d: 1950+d.index)
    learn = make(RecDataLoaders.from_df(df, seed=3, device='cpu', items=items))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    new = pd.DataFrame(dict(user=[10**6,df.user[0]], title=[df.title[0],'Unrated'], rating=[4.,4.]))
    for rec in (learn,load_recommender(learn.save_recommender(tmp_path/'rec'))):
        with pytest.raises(ValueError, match="^'Unrated' is new, and one item changes the probabilities"): rec.extend(new)
        assert 10**6 in {*rec.extend(new.head(1)).ds.classes['user']}

def test_new_items_are_shown_as_plain_labels():
    df = sample_ratings(n_users=40, n_items=20, n_ratings=400).assign(item=lambda d: d.title.astype('category').cat.codes.astype('int64'))
    learn = softmax(RecDataLoaders.from_df(df, item_name='item', seed=3, device='cpu'))
    with pytest.raises(ValueError, match='^500 is new, and one item'): learn.extend(pd.DataFrame(dict(user=[1], item=[500], rating=[4.])))

@pytest.mark.parametrize('name,stay', [('fit_ease','1 users'),('fit_als','1 users and 1 items')])
def test_an_exported_learner_tells_what_it_knows(name, stay, tmp_path):
    learn = copy.deepcopy(fitted(name))
    learn.export(tmp_path/'l.pkl')
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        loaded = load_learner(tmp_path/'l.pkl')
    user,film = (v.labels[0] for v in learn.dls.classes.values())
    row = pd.DataFrame(dict(user=[10**6], title=[film], rating=[4.]))
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter('always')
        more = loaded.extend(row)
        assert repr(more)==f"Extended: {len(learn.dls.classes['user']):,} users, {len(learn.dls.classes['title'])-1:,} items; 1 ratings are new"
    assert [str(o.message).split(' that')[0] for o in told]==stay.split(' and ')[1:]
    with pytest.warns(UserWarning, match=f'^{stay} that were there stay as they are.*: extend the learner that has them, or load .*ratings=True.* has saved$'): loaded.extend(row.assign(user=user))

@pytest.mark.parametrize('name', ['fit_als','fit_ials'])
def test_a_frame_without_columns_has_none(name):
    for call in (fitted(name).extend,fitted(name).fold_in):
        with pytest.raises(ValueError, match="no column .*'title'.*; it has none$"): call(pd.DataFrame())
    with pytest.raises(ValueError, match="no column 'title'.*; it has user$"): fitted(name).extend(pd.DataFrame(dict(user=[1])))

def test_a_blend_of_nothing_chosen_counts_all_rows():
    df = frames()[0]
    learn = dot_learner(RecDataLoaders.from_df(df.assign(rating=-df.rating), seed=3, device='cpu'))
    with pytest.raises(ValueError, match=f'^all {len(learn.dls.train_ds):,} ratings are 0 or less, and fit_blend learns'): learn.fit_blend()

_later = [('int16',40000),('uint8',-3),('uint32',2**40),('datetime64[us]',pd.Timestamp('2026-01-01')+pd.Timedelta('5ns'))]
@pytest.mark.parametrize('dtype,new', _later, ids=[o for o,_ in _later])
def test_labels_that_were_stored_small_do_not_close_a_model(dtype, new, tmp_path):
    df = frames()[0]
    codes = pd.Series(df.user.astype('category').cat.codes.to_numpy().astype('int64'))
    df = df.assign(user=(pd.to_datetime(codes, unit='D') if dtype[0]=='d' else codes).astype(dtype))
    learn = dot_learner(RecDataLoaders.from_df(df, seed=3, device='cpu'))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(3)
    known = learn.dls.classes['user'].labels
    assert known.dtype==dtype
    rows = pd.DataFrame(dict(user=[new,new], title=df.title[:2], rating=[5.,1.]))
    rec = learn.extend(rows)
    labels = rec.ds.classes['user'].labels
    assert labels[:-1].tolist()==known.tolist() and labels[-1]==new and labels.dtype!=object
    for o in (rec,load_recommender(rec.save_recommender(tmp_path/'rec'))):
        assert {*o.recommend(new, n=100).title}.isdisjoint(df.title[:2]) and len(o.recommend(known[0], n=3))==3
        assert np.isclose(o.predict(new, df.title[0]), rec.predict_df(rows)[0])
    again = rec.fold_in(rows)  # by the films as they are now, of which these ratings have moved two
    assert again.recommend(new, n=3).title.tolist()==rec.recommend(new, n=3).title.tolist()
    np.testing.assert_allclose(again.predict_grid(new, df.title.unique()), rec.predict_grid(new, df.title.unique()), atol=.01)
    with pytest.raises(KeyError, match='is not among'): learn.recommend(new, n=3)
    users = pd.DataFrame(dict(user=[*known,new])).assign(x=lambda d: np.arange(len(d))%7)
    assert RecDataLoaders.from_df(df, users=users, device='cpu').train_ds.classes['user'].labels.isin([new]).sum()==1

@pytest.mark.parametrize('dtype', ['uint8','uint16','uint32'])
def test_what_a_small_type_does_not_hold_is_unknown(dtype):
    "pandas looks for 2**32 among labels of uint8 as for 0"
    vocab = Vocab(pd.Index([0,1,5], dtype=dtype), 'id')
    asked = [2**40,2**32+5,5,0,2**40+1]
    assert vocab.encode(asked).tolist()==vocab.find(asked).tolist()==[0,0,3,1,0]

def test_a_folder_goes_on_twice_as_the_learner_does(tmp_path):
    "What a folder knows of choices is what was seen in training, and what `extend` has added to that"
    learn,late = fitted('fit_ials'),suited('fit_ials')
    learn.save_recommender(tmp_path/'rec')
    first,then = late.iloc[::2],late.iloc[1::2]
    ours,theirs = (o.extend(first).extend(then) for o in (learn,load_recommender(tmp_path/'rec')))
    np.testing.assert_allclose(theirs.predict_grid(), ours.predict_grid(), atol=1e-4)
    assert not len(theirs.ds) and torch.equal(theirs.counts, ours.counts)

def test_rows_of_several_hundred_users_in_all_draws():
    "More than are solved for at a time, with a mean of each user's own, and some without ratings, as one by one"
    from fastrec.models.foldin import solve_users
    from fastrec.models.new_draws import solve_draws
    rng = torch.Generator().manual_seed(0)
    def normal(*size): return torch.randn(*size, generator=rng)
    n_users,n_draws,k = 300,3,4
    users = torch.randint(0, n_users-1, (900,), generator=rng)
    rows,y,noise = normal(900, n_draws, k),normal(900),torch.rand(900, generator=rng)+.5
    rows[...,-1] = 1
    half = normal(n_draws, k, k)
    means,covs,eps = normal(n_draws, n_users, k),half@half.mT+torch.eye(k),normal(n_draws, k)
    left = y[:,None].expand(-1, n_draws)
    found = solve_draws((means,covs,eps), users, lambda o: (rows[o,:,:-1],left[o]), n_users, noise)
    for s in range(n_draws):
        one = solve_users((means[s],covs[s]), users, rows[:,s,:-1], torch.zeros(900), y, n_users, noise, eps=eps[s].expand(n_users, -1))
        torch.testing.assert_close(found[:,s], one, atol=1e-3, rtol=1e-3)

def test_ratings_that_come_one_by_one_move_a_row_once_they_are_a_fiftieth():
    "What `extend` has left waiting counts as new the next time; a row that was solved for waits for none"
    learn = fitted('fit_als')
    counts = learn.ds.counts(1)
    code = int(counts.argmax())
    own = suited('fit_als').drop_duplicates('user').assign(title=learn.ds.classes['title'].labels[code-1])
    n = int(np.ceil(.02*int(counts[code])))
    assert 1<n<len(own)
    rec,row = learn,learn.model.item_factors[code-1]
    for k in range(n):
        rec = rec.extend(own.iloc[[k]])
        is_last = k==n-1
        assert torch.equal(rec.model.item_factors[code-1], row)!=is_last
        assert rec.waiting[1][code]==(0 if is_last else k+1)

@pytest.mark.parametrize('name', ['fit_als','fit_ials','dot'])
def test_loops_find_the_rows_that_pytorch_finds(name, monkeypatch):
    from fastrec.base.compiled import can_compile
    from fastrec.models import row_loops
    if not can_compile(): pytest.skip('numba is not there')
    learn,late,found = copy.deepcopy(fitted(name)),suited(name),[]
    learn.model.believed = None
    for fewest in (1,10**9):
        monkeypatch.setattr(row_loops, '_fewest', fewest)
        found.append(learn.extend(late).predict_grid())
    torch.testing.assert_close(*found, atol=2e-4, rtol=1e-3)

@pytest.mark.parametrize('name', ['fit_als','fit_bayes','fit_ials','fit_ease','dot','blend'])
@pytest.mark.parametrize('weight_name', [None,'weight'])
def test_a_folder_with_ratings_takes_in_new_ones_as_the_learner_does(name, weight_name, tmp_path):
    "Twice, with a folder between, whoever was there is solved for, and reasons are given, of new ratings as of old ones"
    learn,late = fitted(name, weight_name),suited(name).assign(weight=2.)
    first,then = late.iloc[::2],late.iloc[1::2]
    more = learn.extend(first)
    load = lambda rec,at: load_recommender(rec.save_recommender(tmp_path/at, ratings=True))
    ours,theirs = more.extend(then),load(load(learn, 'a').extend(first), 'b').extend(then)
    grids = [o.predict_grid() for o in (ours,theirs)]
    torch.testing.assert_close(*grids, atol=2e-3, rtol=2e-3)
    known = [u for u in late.user.unique() if u in learn.ds.classes['user']][0]
    film = ours.recommend(known, n=1).title[0]
    why = [o.explain(known, film) for o in (ours,theirs)]
    assert len(why[0])==len(why[1]) and {*late.title[late.user==known]}<={*why[1].title}
    np.testing.assert_allclose(why[1].contribution.sum(), why[0].contribution.sum(), atol=5e-3)

def test_a_folder_with_ratings_and_features_takes_in_new_ones_as_the_learner_does(tmp_path):
    "Rows of users and of items that follow features are solved for around these"
    df,truth = sample_ratings(n_users=80, n_items=60, n_ratings=3000, with_truth=True)
    df = df[['user','title','rating']]
    learn = learner(RecDataLoaders.from_df(df.iloc[:2900], seed=3, device='cpu', **truth.sides()))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(5)
    rec = load_recommender(learn.save_recommender(tmp_path/'rec', ratings=True))
    for mine,kept in zip(learn.ds.features, rec.ds.features):
        assert (mine is None)==(kept is None) and (mine is None or torch.equal(mine.x.to_dense(), kept.x.to_dense()))
    assert any(o is not None for o in rec.ds.features)
    grids = [o.extend(df.iloc[2900:]).predict_grid() for o in (learn,rec)]
    torch.testing.assert_close(*grids, atol=1e-3, rtol=1e-3)

@pytest.mark.parametrize('name', ['fit_als','fit_ials'])
def test_what_waits_is_saved_and_forgotten(name, tmp_path):
    "A daily folder loses no rating that waits; ratings of who is forgotten wait no longer"
    learn = fitted(name)
    counts = learn.ds.counts(1)
    code = int(counts.argmax())
    film = learn.ds.classes['title'].labels[code-1]
    own = suited(name).drop_duplicates('user').assign(title=film)
    n = int(np.ceil(.02*int(counts[code])))
    assert 1<n<len(own)
    rec,row = learn,learn.model.item_factors[code-1]
    for k in range(n):
        rec = load_recommender(rec.extend(own.iloc[[k]]).save_recommender(tmp_path/f'{k}', ratings=name=='fit_als'))
        if k==0:
            codes = torch.arange(1, len(learn.ds.classes['user']))
            row_of,item = rec.seen.of(codes)
            others = learn.ds.classes['user'].labels.delete(row_of[item==code].unique().numpy())
            assert rec.without_users([own.user.iloc[0]]).waiting[1][code]==0<rec.without_users([others[0]]).waiting[1][code]
        if k==0: assert len(rec.without_items([learn.ds.classes['title'].labels[0]]).waiting[1])==len(counts)-1
        assert torch.equal(rec.model.item_factors[code-1], row)!=(k==n-1)
        assert rec.waiting[1][code]==(0 if k==n-1 else k+1)

def test_waiting_that_does_not_fit_is_damage(tmp_path):
    from fastrec.export.labels import BundleError
    from fastrec.export.rated import read_waiting
    users,items = torch.zeros(4, dtype=torch.long),torch.zeros(3, dtype=torch.long)
    assert read_waiting({}, (4,3)) is None
    for a,b in ((users,items-1),(users[1:],items),(users.int(),items)):
        with pytest.raises(BundleError, match='wait'): read_waiting({'waiting.users': a, 'waiting.items': b}, (4,3))

def test_a_model_that_was_put_in_place_of_the_fitted_one_takes_in_and_is_saved(tmp_path):
    learn,other = (learner(RecDataLoaders.from_df(sample_ratings(n_users=60, n_items=40, n_ratings=1500), seed=1)) for _ in range(2))
    for o,fit in ((learn,'fit_ials'),(other,'fit_als')):
        with o.no_bar(),o.no_logging(): getattr(o, fit)()
    learn.model = other.model
    more = learn.extend(pd.DataFrame(dict(user=[-1], title=learn.ds.classes['title'].labels[:1].tolist(), rating=[4.])))
    for o in (learn,more): assert load_recommender(o.save_recommender(tmp_path/'b'), 'cpu').manifest['fit']==dict(name='fit_ials', settings={})

# ------------------------------------------------------------------ people known by features alone
@cache
def described(fit, **kwargs):
    "A learner whose loaders know 60 people by features alone"
    df = frames()[0]
    users = pd.DataFrame(dict(user=[*df.user.unique(), *range(10**7, 10**7+60)]))
    users['job'] = np.resize(['a','b','c'], len(users))
    learn = (nn_learner if fit=='net' else learner)(RecDataLoaders.from_df(df, valid_pct=0, seed=1, device='cpu', users=users), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, 'fit_one_cycle' if fit=='net' else fit)(*((1,) if fit=='net' else ()), **kwargs)
    return learn

@pytest.mark.filterwarnings('ignore:.*the average stands in')
@pytest.mark.parametrize('change', ['extend','without_users'])
@pytest.mark.parametrize('fit', ['fit_bias','fit_als'])
def test_saving_and_asking_move_nobody(fit, change, tmp_path):
    "People without ratings stay the average when that becomes another, and do not count as people with ratings"
    learn = described(fit, features=False)
    early,late,film = frames()
    new = pd.DataFrame([(10**6+k,t,5.) for k in range(40) for t in early.title.unique()[k%5:40:8]], columns=['user','title','rating'])
    rec = learn.extend(new) if change=='extend' else learn.without_users(early.user.unique()[:30])
    mine = pd.DataFrame(dict(title=early.title.unique()[:2], rating=[5.,1.]))
    user = late.user[late.user.isin(rec.ds.classes['user'].labels)].iloc[0]
    def asked(rec): return [rec.fold_in(mine).predict(early.title.iloc[9]), *rec.predict_grid([10**7,user])[0,:5]]
    before = asked(rec)
    rec.save_recommender(tmp_path/'films', ratings=True)
    assert np.allclose(asked(rec), before, atol=1e-5) and np.allclose(asked(load_recommender(tmp_path/'films')), before, atol=1e-4)
    assert np.allclose(rec.predict_grid([10**7])[0], rec.predict_df(pd.DataFrame(dict(user=-1, title=rec.ds.classes['title'].labels)), unknown='average'), atol=1e-4)

@pytest.mark.parametrize('fit', ['fit_als','fit_bayes','fit_ials','fit_sgd'])
def test_what_no_features_are_known_for_is_saved_without_a_map(fit, tmp_path):
    "New people, and a learner that begins with one that knew features"
    learn = described(fit, **(dict(n_sweep=12) if fit=='fit_bayes' else {}))
    df = frames()[0]
    mine = pd.DataFrame(dict(title=df.title.unique()[:2], rating=[5.,4.]))
    plain,same = (learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1, device='cpu', **kw), init=learn) for kw in ({},dict(users=learn_users(learn))))
    for k,rec in enumerate((learn.fold_in(mine), plain, same, learn.without_users(df.user.unique()[:3]).fold_in(mine))):
        there = load_recommender(rec.save_recommender(tmp_path/f'{k}'))
        assert np.allclose(there.predict_grid(), rec.predict_grid(), atol=1e-4)

def learn_users(learn):
    users = pd.DataFrame(dict(user=learn.dls.classes['user'].labels))
    return users.assign(job=np.resize(['a','b','c'], len(users)))

@pytest.mark.long
@pytest.mark.filterwarnings('ignore')
def test_reasons_of_several_people_with_features_are_those_of_each():
    "Also of as many people as one has ratings"
    learn = described('net')
    users = frames()[0].user.value_counts()
    n = int(users.iloc[-1])
    some = [users.index[-1], *users.index[:n-1]]
    together = learn.recommend(some, n=2, why=1)
    alone = pd.concat([learn.recommend(o, n=2, why=1).assign(user=o) for o in some[:3]], ignore_index=True)
    together = together[together.user.isin(some[:3])].set_index('user').loc[some[:3]].reset_index()
    assert together.because_1.astype(str).tolist()==alone.because_1.astype(str).tolist()

@pytest.mark.parametrize('user', [5001,2**61+1])
def test_whole_numbers_of_people_known_by_features_stay_whole(user):
    new = described('fit_als').fold_in(users=pd.DataFrame(dict(user=[user,user+1], job=['a','b'])))
    users = new.recommend(n=1).user
    assert users.tolist()==[user,user+1] and users.dtype.kind=='i'

def spelled(n_users=60):
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(1, n_users, 900), item=rng.integers(1, 40, 900), rating=rng.integers(1, 6, 900))).drop_duplicates(['user','item'])
    return df.assign(user='U'+df.user.astype(str), item='Film '+df.item.astype(str))

def test_new_labels_that_are_known_in_another_spelling_are_told():
    df = spelled()
    with warnings.catch_warnings(action='ignore'): learn,by_id = (learner(RecDataLoaders.from_df(o, seed=1, valid_pct=0)) for o in (df, df.assign(user=df.user.str[1:])))
    for o in (learn,by_id):
        with o.no_bar(),o.no_logging(): o.fit_als(3)
    def said(rec, user, item):
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter('always')
            res = rec.extend(pd.DataFrame(dict(user=user, item=item, rating=4.)))
        assert res.ds.classes['user'].labels[-1] in user or res.ds.classes['item'].labels[-1] in item
        return [str(o.message) for o in found]
    assert [o.split(', and count')[0] for o in said(learn, ['u1 '], ['FILM  3'])]==[f'1 new labels of {n!r} differ from known ones only in case, spaces, the way accents '
        f'are stored or a trailing .0, {a!r} from {b!r} for one' for n,a,b in (('user','u1 ','U1'),('item','FILM  3','Film 3'))]
    assert "'12.0' from '12'" in said(by_id, ['12.0'], ['Film 3'])[0]
    assert not said(learn, ['U100','u1','V7'], ['Film 99','Film 3','Movie 3'])  # ids that differ in case may be two

# ------------------------------------------------------------------ rows that come twice
def told_of_twice(rec, df):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        res = rec.extend(df)
    return any('are there already, just the same' in str(o.message) for o in found),res

def test_ratings_that_come_twice_are_told_of(tmp_path):
    learn,late = fitted('fit_als'),frames()[1]
    is_told,rec = told_of_twice(learn, late)
    assert not is_told
    loaded = load_recommender(rec.save_recommender(tmp_path/'rec', ratings=True))
    for o in (rec,loaded):
        assert told_of_twice(o, late.sample(frac=1, random_state=0))[0]
        for other in (late.assign(rating=6-late.rating), late.head(19), late.assign(user=late.user+10**7)): assert not told_of_twice(o, other)[0]
    half = frames()[0].head(len(late)//2)
    assert not told_of_twice(rec, pd.concat([half.assign(rating=6-half.rating), late]))[0]
    assert told_of_twice(learn, learn.dls.train_ds.frame()[0])[0]

def clicks(n, seed):
    "Of few people on few things, so that most come again"
    rng = np.random.default_rng(seed)
    return pd.DataFrame(dict(user=rng.integers(0, 12, n), item=rng.integers(0, 12, n), rating=1., timestamp=rng.permutation(n)+1_600_000_000+100_000*seed))

@pytest.mark.parametrize('time_name', [None,'timestamp'])
@pytest.mark.parametrize('kept', [None,False,True])
def test_clicks_may_come_again(time_name, kept, tmp_path):
    learn = learner(RecDataLoaders.from_df(clicks(2000, 0), valid_pct=0, seed=1, time_name=time_name))
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_ials(4)
    rec = learn
    for day in range(1, 4):
        is_told,rec = told_of_twice(rec, clicks(60, day))
        assert not is_told
        if kept is not None: rec = load_recommender(rec.save_recommender(tmp_path/str(day), ratings=kept))
    assert told_of_twice(rec, clicks(60, 3))[0]
    assert not told_of_twice(rec, clicks(60, 3).assign(item=lambda o: (o.item+1)%12, timestamp=lambda o: o.timestamp+5))[0]
    if kept is None: assert told_of_twice(rec, clicks(60, 1))[0]==(time_name is not None)

def test_one_who_plays_one_track_all_day_does_not_come_twice():
    df = clicks(2000, 0)
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1))
    with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_ials(4)
    day = df.head(1).loc[[0]*40]
    assert not told_of_twice(told_of_twice(learn, day)[1], day)[0]

def said_of(f):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        res = f()
    return [o for o in (str(o.message) for o in found) if 'new rows' in o],res

@pytest.mark.parametrize('name', ['fit_bias','fit_als','fit_bayes','dot','blend'])
def test_a_pair_rated_again_is_told_of_from_the_first_on(name, tmp_path):
    "60 ratings that had changed came in without a word, and counted beside the old ones"
    learn,early = fitted(name),frames()[0]
    learn.save_recommender(tmp_path/'seen')
    learn.save_recommender(tmp_path/'all', ratings=True)
    trained = learn.dls.train_ds.frame()[0]
    held_out = learn.dls.valid_ds.frame()[0].head(5)
    for rec in (learn,load_recommender(tmp_path/'seen'),load_recommender(tmp_path/'all')):
        for n in (1,2,60):
            again = trained.head(n).assign(rating=lambda o: 6-o.rating)
            said,later = said_of(lambda: rec.extend(pd.concat([again, held_out])))
            those = 'is of a pair' if n==1 else 'are of pairs'
            assert said==[f"{n} of the {n+5} new rows {those} of 'user' and 'title' rated before: both ratings count, as in training; if the last one should "
                          'count alone, train again on ratings without the older one']
            said,_ = said_of(lambda: later.extend(held_out))
            assert len(said)==1 and said[0].startswith("5 of the 5 new rows")
        assert said_of(lambda: rec.extend(held_out))[0]==[]
        said,_ = said_of(lambda: rec.extend(trained.head(60)))
        knows = len(rec.ds)>0  # how the pairs were rated
        assert len(said)==1 and ('are there already, just the same' if knows else '60 of the 60 new rows are of pairs') in said[0]

def test_both_ratings_of_a_pair_count_as_in_training():
    df = sample_ratings(n_users=60, n_items=40, n_ratings=1500)[['user','title','rating']]
    def trained(rows):
        learn = learner(RecDataLoaders.from_df(rows, valid_pct=0, seed=1), seed=0)
        with learn.no_bar(),learn.no_logging(): learn.fit_bias(reg=3.)
        return learn
    user = df.user.value_counts().index[0]
    again = df[df.user==user].head(20).assign(rating=1.)
    learn,both = trained(df),trained(pd.concat([df, again]))
    with warnings.catch_warnings(action='ignore'): rec = learn.extend(again)
    moved = [o.predict_grid([user]).mean() for o in (rec,both)]
    before = learn.predict_grid([user]).mean()
    assert moved[0]<before-.2 and abs(moved[0]-moved[1])<.3*(before-moved[1])  # the means of films move in training alone

def test_choices_that_come_again_are_told_of_unless_they_always_do():
    df = clicks(140, 0).drop_duplicates(['user','item'])[['user','item','rating']]
    def trained(rows):
        learn = learner(RecDataLoaders.from_df(rows, valid_pct=0, seed=1))
        with learn.no_bar(),learn.no_logging(),warnings.catch_warnings(action='ignore'): learn.fit_ials(2)
        return learn
    said,_ = said_of(lambda: trained(df).extend(df.head(2)))
    assert said==["2 of the 2 new rows are of pairs of 'user' and 'item' chosen before, and count again: leave them out if each pair should count once"]
    assert said_of(lambda: trained(pd.concat([df]*2)).extend(df.head(2)))[0]==[]

def test_rows_that_weigh_nothing_are_no_rating_before():
    df = frames()[0].assign(weight=lambda o: (o.index%2).astype(float))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1, weight_name='weight'))
    with learn.no_bar(),learn.no_logging(): learn.fit_bias()
    said,_ = said_of(lambda: learn.extend(df.head(10).assign(weight=1.)))
    assert len(said)==1 and said[0].startswith('5 of the 10 new rows')
    assert said_of(lambda: learn.extend(df.head(10).assign(weight=0.)))[0]==[]

def test_draws_stay_as_they_are_day_by_day():
    "Rows that all moved the same way in a draw moved those of the next day further: after weeks predictions were off by stars"
    df = sample_ratings(n_users=120, n_items=60, n_ratings=4000).sample(frac=1, random_state=0).reset_index(drop=True)
    test,early,late = df[:400],df[400:2200],df[2200:]
    test = test[test.user.isin(early.user)&test.title.isin(early.title)]
    learn = learner(RecDataLoaders.from_df(early, valid_pct=0, seed=0, device='cpu'))
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(4, 60)
    def error(rec): return ((rec.predict_df(test)-test.rating)**2).mean()**.5
    def largest(rec): return max(float(o.abs().max()) for o in rec.model.draws())
    rec = learn
    for rows in np.array_split(np.arange(len(late)), 40): rec = rec.extend(late.iloc[rows])
    assert error(rec)<error(learn) and largest(rec)<8*largest(learn), (error(rec),error(learn),largest(rec),largest(learn))

@pytest.mark.parametrize('name', ['fit_als','fit_bias','fit_bayes','dot'])
def test_those_known_by_features_alone_do_not_change_newcomers(name):
    ratings,truth = sample_ratings(n_users=200, n_items=80, n_ratings=6000, with_truth=True)
    users = truth.sides()['users']
    make,fit,args,kwargs = makes[name]
    asked = ratings.user.drop_duplicates()[:20]
    early = ratings[~ratings.user.isin(asked)]
    learn = make(RecDataLoaders.from_df(early, seed=0, device='cpu', users=users[users.index.isin(early.user)]))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    many = users.sample(1500, replace=True, random_state=0).set_axis(pd.Index(np.arange(1500)+10**6, name='user'))
    few = ratings[ratings.user.isin(asked)].groupby('user').head(5)
    before,after = (o.fold_in(few).predict_grid() for o in (learn,learn.extend(users=many)))
    off = float((after-before).square().mean().sqrt())
    assert off<.06, off

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease'])
def test_popularity_stays_a_share_of_all(fit):
    "Items that nobody new chose were compared as shares of the earlier users, and stood above others with thrice the choices"
    r = np.random.default_rng(0)
    early = pd.DataFrame([(u,i) for u in range(100) for i in range(30) if r.random()<.2+.01*i], columns=['user','item']).assign(rating=1)
    late = pd.DataFrame([(1000+u,i) for u in range(300) for i in range(6) if r.random()<.5], columns=['user','item']).assign(rating=1)
    learn = learner(RecDataLoaders.from_df(early, valid_pct=0, seed=0, device='cpu'))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*((0,) if fit=='fit_ials' else ()))
    if not learn.model.ials and fit=='fit_ease': return
    rec = learn.extend(late)
    lists = rec.recommend(0, n=30, exclude_seen=False)
    both = pd.concat([early,late])
    want = both.groupby("item").size()/both.user.nunique()
    np.testing.assert_allclose(lists.score, want.loc[lists.item], rtol=1e-4)

def test_those_held_out_whole_are_told_of_when_they_come():
    df = frames()[0]
    film = df.title.iloc[0]
    rows = np.arange(len(df))
    is_held = (df.title==film).to_numpy()
    learn = learner(RecDataLoaders.from_df(df, lambda _: (rows[~is_held],rows[is_held]), device='cpu'))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(3)
    with pytest.warns(UserWarning, match='have rows that were held out for validation, and lists will not leave out'):
        learn.extend(pd.DataFrame(dict(user=[10**6], title=[film], rating=[5.])))

def test_folding_in_a_known_user_with_new_ratings_alone_is_told():
    learn,df = fitted('fit_als'),frames()[0]
    user = int(learn.dls.classes['user'].labels[0])
    own = df[df.user==user]
    others = df[~df.title.isin(own.title)].drop_duplicates('title').head(3).assign(user=user)
    with pytest.warns(UserWarning, match='was in training, with other ratings .1 such in all.: fold_in counts only'): learn.fold_in(others)
    learn.fold_in(pd.concat([own,others]))  # all of theirs
    learn.fold_in(others.assign(user=10**6))
