"""A learner that begins with an earlier one: rows move by their labels, whatever has other rows, labels or scales is refused, and solvers go on"""
import numpy as np,pandas as pd,pytest,torch
from fastai.collab import CollabDataLoaders,collab_learner
from fastrec.all import BPRLoss,DeepMF,RecDataLoaders,dot_learner,learner,load_recommender,nn_learner,sample_ratings

ratings = sample_ratings(n_users=200, n_items=120, n_ratings=8000).sort_values('timestamp', kind='stable').reset_index(drop=True)
ratings = ratings[['user','title','rating','timestamp']].assign(title=ratings.title.astype(str))
first = ratings[:6000]
first = first[~first.user.isin(ratings.user[:2]) & (first.title!=ratings.title.iloc[0])]

def loaders(df, **kwargs): return RecDataLoaders.from_df(df, seed=0, bs=128, **kwargs)
def fitted(learn, fit='fit_als', *args, **kwargs):
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

_makes = dict(gradients=(lambda d: learner(d, n_factors=6), 'fit_one_cycle', (1,)), network=(lambda d: nn_learner(d, (5,7), [8], product=2), 'fit_one_cycle', (1,)),
              als=(learner, 'fit_als', (4,)), ials=(learner, 'fit_ials', (4,)), bayes=(learner, 'fit_bayes', (3,6)))
earlier = {k: fitted(make(loaders(first)), fit, *args) for k,(make,fit,args) in _makes.items()}
dls = loaders(ratings.sample(frac=1, random_state=0))  # more labels, and so other codes

def shared(rec):
    "Rows whose user and item both know"
    users,items = (set(v.labels) for v in rec.ds.classes.values())
    now = [set(v.labels) for v in dls.classes.values()]
    return ratings[ratings.user.isin(users&now[0]) & ratings.title.isin(items&now[1])]
def predicted(rec, df): return np.asarray(rec.predict_df(df[['user','title']]))

# ------------------------------------------------------------------ rows
@pytest.mark.parametrize('source', ['learner','bundle','extended'])
@pytest.mark.parametrize('name', _makes)
def test_it_predicts_as_the_earlier_one_before_it_trains(name, source, tmp_path):
    rec = earlier[name]
    if source=='bundle': rec = load_recommender(rec.save_recommender(tmp_path), device='cpu')
    if source=='extended': rec = rec.extend(ratings[6000:6100].drop(columns='rating') if name=='ials' else ratings[6000:6100])
    before = {k: v.clone() for k,v in rec.model.state_dict().items()}
    learn = learner(dls, init=rec)
    df = shared(rec)
    assert len(df)>4000
    if name!='gradients': assert np.abs(predicted(learn, df)-predicted(rec, df)).max()<1e-5
    fitted(learn, _makes[name][1], *((1,) if 'cycle' in _makes[name][1] else (None,2)))
    for k,v in rec.model.state_dict().items(): assert torch.equal(v, before[k]), k
    again = load_recommender(learn.save_recommender(tmp_path/'again'), device='cpu')
    assert np.abs(predicted(learn, df)-predicted(again, df)).max()<1e-5 and type(again.model).__name__ in ('Dot','Net','PosteriorMean')

def rated(df, column): return df[column].value_counts()

def test_after_gradients_rows_with_new_ratings_are_where_these_put_them(tmp_path):
    "Of who was there as many as a fiftieth more, as after `extend`; of a learner and of its folder alike; who has fewer stays"
    df = pd.concat([first, ratings[6000:6150]])
    late = loaders(df)
    old = earlier['gradients']
    learn = learner(late, init=old)
    now = late.train_ds.decode(late.train_ds.x, late.train_ds.y)
    before = old.ds.decode(old.ds.x, old.ds.y)
    n_due = 0
    for side,name in ((0,'user'),(1,'title')):
        n_now,n_before = rated(now, name),rated(before, name)
        due = [o for o in n_now.index if n_now[o]-n_before.get(o, 0)>=.02*n_before.get(o, 0)]
        vocabs = [list(o.ds.classes.values())[side] for o in (learn,old)]
        for label in vocabs[1].labels:
            a,b = (torch.cat([e.weight.detach()[int(v.lookup([label])[0])] for e in m.model.tables[side]]) for m,v in zip((learn,old), vocabs))
            assert torch.equal(a, b)==(label not in due), label
        n_due += len(due)
    assert 100<n_due<300
    known = now[now.user.isin(old.ds.classes['user'].labels) & now.title.isin(old.ds.classes['title'].labels)]
    squares = [((predicted(o, known)-known.rating)**2).mean() for o in (old,learn)]
    assert squares[1]<squares[0]
    folder = learner(late, init=load_recommender(old.save_recommender(tmp_path), device='cpu'))
    for k,v in learn.model.state_dict().items(): assert torch.allclose(v, folder.model.state_dict()[k], atol=1e-4), k

def test_rows_are_those_of_the_labels_and_new_ones_near_their_mean():
    old = earlier['als']
    learn = learner(dls, init=old)
    for side in (0,1):
        ours,theirs = ([e.weight.detach() for e in m.model.tables[side]] for m in (learn,old))
        was = dict(zip(list(old.ds.classes.values())[side].labels, zip(*(o[1:] for o in theirs))))
        known = [was[o] for o in list(dls.classes.values())[side].labels if o in was]
        new = 0
        for label,*rows in zip(list(dls.classes.values())[side].labels, *(o[1:] for o in ours)):
            if label in was: assert all(torch.equal(a, b) for a,b in zip(rows, was[label]))
            else:
                new += 1
                for a,k in zip(rows, (0,1)): assert (a-torch.stack([o[k] for o in known]).mean(0)).abs().max()<.02
        assert new>0 and len(known)>50
    assert learn.model.mean==old.model.mean and learn.model.y_range==old.model.y_range

def test_layers_and_effects_of_time_come_along():
    net = learner(dls, init=earlier['network'])
    for a,b in zip(net.model.layers.state_dict().values(), earlier['network'].model.layers.state_dict().values()): assert torch.equal(a, b)
    timed = fitted(learner(loaders(first, time_name='timestamp')), 'fit_bayes', 3, 6, time='1D')
    later = loaders(ratings.assign(user=ratings.user), time_name='timestamp')
    learn = learner(later, init=timed)
    df = shared(timed)
    assert np.abs(learn.predict_df(df).to_numpy()-timed.predict_df(df).to_numpy()).max()<1e-5
    assert len(learn.model.time_effects[0].keys)>50
    fitted(learn, 'fit_bayes', n_sweep=2, time='1D')

def test_new_rows_follow_features():
    kinds = ['good' if o>first.groupby('title').rating.mean().median() else 'bad' for o in ratings.groupby('title').rating.mean()]
    films = pd.DataFrame(dict(title=sorted(ratings.title.unique()), kind=kinds))
    known = loaders(first, items=films)
    old = fitted(learner(known), 'fit_als', 3)
    films2 = pd.concat([films, pd.DataFrame(dict(title=['Zz good','Zz bad'], kind=['good','bad']))])
    learn = learner(loaders(ratings, items=films2), init=old)
    rows = learn.model.i_bias.weight[torch.from_numpy(learn.dls.classes['title'].encode(['Zz good','Zz bad'])).long()]
    assert rows[0]>rows[1]+.1 and learn.model.from_features==(False,True)

# ------------------------------------------------------------------ fits
@pytest.mark.parametrize('name', ['als','ials'])
def test_solvers_go_on_from_the_rows(name):
    "Their first sweep is better than the first of a new learner, on rows of validation"
    _,fit,args = _makes[name]
    first_error = lambda learn,n: fitted(learn, fit, n, 1).history.valid_loss.iloc[0]
    begun = learner(dls, init=earlier[name])
    assert first_error(begun, None)<first_error(learner(dls), args[0]) and begun.last_fit[1]['n_factors'] in (None,args[0])
    assert begun.settings().loc['n_factors','rule']=='that of init'

def test_fit_bayes_begins_with_the_last_draw_and_without_burn_in(monkeypatch):
    monkeypatch.setattr('fastrec.fit.bayes.approach', None)  # which brings a new model near
    learn = fitted(learner(dls, init=earlier['bayes']), 'fit_bayes', n_sweep=3)
    assert learn.model.n_draws==3 and learn.settings().loc['n_factors','rule']=='that of init'

def test_fit_als_that_goes_on_keeps_what_it_had():
    "Two fits of ten sweeps are about as good as one of twenty: a pass tells how sure rows are"
    once = fitted(learner(dls), 'fit_als', 4, 20, tol=0)
    twice = fitted(fitted(learner(dls), 'fit_als', 4, 10, tol=0), 'fit_als', 4, 10, tol=0)
    assert abs(once.history.rmse.iloc[-1]-twice.history.rmse.iloc[-1])<.01

def test_biases_begin_with_those_of_before_and_end_in_the_same_place():
    old = fitted(learner(loaders(first)), 'fit_bias')
    a,b = fitted(learner(dls), 'fit_bias', tol=1e-9, n_sweep=200),fitted(learner(dls, init=old), 'fit_bias', tol=1e-9, n_sweep=200)
    for p,q in zip(a.model.biases, b.model.biases): assert torch.allclose(p, q, atol=1e-4)
    one = [fitted(o, 'fit_bias', n_sweep=1, reg=1.).history.train_loss.iloc[0] for o in (learner(dls, init=old),learner(dls))]
    assert one[0]<one[1]

def test_a_second_fit_is_free():
    learn = fitted(learner(dls, init=earlier['als']), 'fit_als')
    assert fitted(learn, 'fit_als', 2, 2).model.width==2 and fitted(learn, 'fit_ials', 3, 1).model.is_preference

def test_what_follows_the_earlier_one_by_default():
    learn = learner(dls, init=earlier['network'])
    assert type(learn.model) is DeepMF and learn.model.product==2 and [es[0].weight.shape[1] for es in learn.model.tables]==[7,9]
    assert learn.lr==.5*nn_learner(dls).lr and learner(dls, init=earlier['network'], lr=.01).lr==.01
    assert nn_learner(dls, (5,7), init=earlier['network']).model.y_range==earlier['network'].model.y_range
    assert dot_learner(dls, 6, init=earlier['gradients']).model.width==6
    cut = learner(dls, y_range=(0,6), init=earlier['als'])
    assert cut.model.y_range==(0,6)

# ------------------------------------------------------------------ refusals
as_text = loaders(ratings.assign(user=ratings.user.astype(str)))
strangers = loaders(ratings.assign(user=ratings.user+10_000, title='x'+ratings.title))
percent = loaders(ratings.assign(rating=ratings.rating*20))
halves = loaders(ratings.assign(rating=ratings.rating.where(ratings.index>50, 9.)))

@pytest.mark.parametrize('call,error,match', [
    (lambda: learner(dls, n_factors=7, init=earlier['als']), ValueError, 'n_factors=7, and the rows of init have 4'),
    (lambda: learner(dls, n_factors=(5,6), init=earlier['network']), ValueError, r'rows of init have \(5, 7\)'),
    (lambda: nn_learner(dls, init=earlier['als']), ValueError, 'arch is DeepMF, and init has a DotBias'),
    (lambda: learner(dls, use_nn=True, init=earlier['gradients']), ValueError, 'arch is DeepMF'),
    (lambda: dot_learner(dls, init=earlier['network']), ValueError, 'arch is DotBias, and init has a DeepMF'),
    (lambda: nn_learner(dls, layers=[9], init=earlier['network']), TypeError, 'layers says how a new model is made'),
    (lambda: learner(dls, bias=False, init=earlier['als']), TypeError, 'bias says how a new model is made'),
    (lambda: learner(dls, y_range=(0,9), init=earlier['gradients']), ValueError, 'would change what scores mean'),
    (lambda: learner(dls, y_range=False, init=earlier['gradients']), ValueError, 'would change what scores mean'),
    (lambda: learner(as_text, init=earlier['als']), ValueError, "'user' holds text .* and in init numbers"),
    (lambda: learner(strangers, init=earlier['als']), ValueError, "no 'user' and no 'title' of the loaders is known to init"),
    (lambda: learner(percent, init=earlier['als']), ValueError, 'training ratings run from 20 to 100, and those of init from'),
    (lambda: learner(halves, init=earlier['als']), ValueError, r'lie outside .* the range of init, 9 for one: pass y_range=\(1,9\)'),
    (lambda: learner(halves, init=earlier['gradients']), ValueError, 'lie outside .* the range of init, 9 for one: leave init out'),
    (lambda: learner(dls, loss_func=BPRLoss(), init=earlier['als']), ValueError, 'loss_func is of choices, and init predicts ratings'),
    (lambda: learner(dls, init='films'), TypeError, "init='films' is the name of a file or folder"),
    (lambda: learner(dls, init=earlier['als'].model), TypeError, 'init is a DotBias, and must be a learner'),
    (lambda: learner(dls, init=7), TypeError, 'init is a int')])
def test_refused(call, error, match):
    with pytest.raises(error, match=match): call()

def test_models_without_rows_and_stock_learners_are_refused():
    ease,blend = fitted(learner(dls), 'fit_ease'),fitted(learner(loaders(ratings.assign(rating=1))), 'fit_blend')
    with pytest.raises(ValueError, match='init is from fit_ease, which leaves no rows'): learner(dls, init=ease)
    with pytest.raises(ValueError, match='fit_blend of choices alone'): learner(dls, init=blend)
    chosen = fitted(learner(dls, loss_func=BPRLoss(), n_factors=3), 'fit', 1)
    with pytest.raises(ValueError, match='init was trained by a loss of choices'): learner(dls, init=chosen)
    assert learner(dls, loss_func=BPRLoss(), init=chosen).model.by_softmax
    stock = collab_learner(CollabDataLoaders.from_df(ratings.astype(dict(title='object')), item_name='title', bs=128), n_factors=3, y_range=(0,6))
    with pytest.raises(TypeError, match='stock fastai: pass RecLearner.from_learner'): learner(dls, init=stock)

@pytest.mark.parametrize('name,fit,kwargs,match', [
    ('als','fit_als',dict(n_factors=9),'whose rows have 4: pass n_factors=4'), ('als','fit_ials',{},'which was trained by another fit'),
    ('gradients','fit_als',{},'which was trained by gradients: use fit_one_cycle'), ('gradients','fit_bayes',{},'by gradients'),
    ('bayes','fit_als',{},'mean of draws: use fit_bayes'), ('ials','fit_als',{},'predicts what is chosen: use fit_ials')])
def test_a_fit_that_cannot_begin_with_init_says_so_and_changes_nothing(name, fit, kwargs, match):
    learn = learner(dls, init=earlier[name])
    before = learn.model
    with pytest.raises(ValueError, match=match): fitted(learn, fit, **kwargs)
    assert learn.model is before and not learn.n_fits

def test_one_strange_side_is_told():
    with pytest.warns(UserWarning, match="no 'user' of the loaders is known to init"):
        learn = learner(loaders(ratings.assign(user=ratings.user+10_000)), init=earlier['als'])
    assert learn.model.u_weight.weight.isfinite().all()

def test_lists_of_a_blend_begin_by_ratings():
    blend = fitted(learner(loaders(first)), 'fit_blend')
    with pytest.warns(UserWarning, match='call fit_blend after training'): learn = learner(dls, init=blend)
    assert learn.model.lists_by is learn.model
    fitted(learn, 'fit_blend')
    assert learn.model.lists_by is not learn.model

def test_biases_that_a_network_was_given_are_not_trained_after_extend():
    more = pd.DataFrame(dict(user=[10**6], title=[ratings.title.iloc[0]], rating=[4.]))
    learn = learner(dls, init=earlier['network'].extend(more))
    assert not any(o.requires_grad for o in learn.model.biases) and all(o.requires_grad for o in learn.model.layers.parameters())

def test_goes_on_after_ratings_that_are_all_the_same():
    "A range without width, as solvers have it there, leaves the optimizer's eps as it is"
    same = sample_ratings(100, 40, 2000).assign(rating=3.)
    with pytest.warns(UserWarning, match='all ratings'): dls = RecDataLoaders.from_df(same, seed=1)
    first = learner(dls)
    with first.no_bar(),first.no_logging(): first.fit_bias()
    learn = learner(dls, init=first)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1)
    assert torch.allclose(learn.predict_grid(), torch.tensor(3.))

def test_ratings_that_wait_are_not_known_to_rows():
    "They count as new for who begins with what `extend` gave"
    from fastrec.fit.beginning import _counts_before
    df = sample_ratings(n_users=200, n_items=30, n_ratings=3000)
    learn = dot_learner(RecDataLoaders.from_df(df, seed=0), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4, 2)
    item = int(learn.dls.train_ds.counts(1).argmax())
    title = learn.dls.classes['title'].labels[item-1]
    more = learn.extend(pd.DataFrame(dict(user=[10**6], title=[title], rating=[4.])))
    assert int(more.waiting[1][item])==1 and int(_counts_before(more, 1)[item])==int(learn.dls.train_ds.counts(1)[item])

# ------------------------------------------------------------------ what the fit of init noted
def by_kind(*names, extra=False):
    "Loaders that know of each title if it is better than most, in the words `names` for worse and better"
    mean = ratings.groupby('title').rating.mean()
    films = pd.DataFrame(dict(title=mean.index, kind=[names[int(o)] for o in mean>mean.median()]))
    return loaders(ratings, items=films.assign(long=np.arange(len(films))%2>0) if extra else films)

@pytest.mark.parametrize('names,extra', [(('good','bad'),False), (('bad','good'),True)], ids=['swapped','wider'])
def test_maps_are_from_the_features_of_the_new_loaders(names, extra, tmp_path):
    "Those of the fit of `init` would take the words for what they meant there, or be of another width; from a folder as well"
    old = fitted(learner(by_kind('bad','good')), 'fit_als', 3)
    assert old.model.row_maps[1] is not None
    new = pd.DataFrame(dict(title=['Zz worse','Zz better'], kind=names, long=[True,True]))
    learn = learner(by_kind(*names, extra=extra), init=old)
    loaded = load_recommender(learn.save_recommender(tmp_path), device='cpu')
    for rec in (learn,loaded):
        worse,better = rec.extend(items=new if extra else new.drop(columns='long')).predict_grid(None, new.title).mean(0)
        assert better>worse+.1

def test_nothing_of_the_fit_of_init_is_left():
    blend = fitted(fitted(learner(loaders(first))), 'fit_blend')
    assert blend.model.believed is not None
    with pytest.warns(UserWarning, match='call fit_blend after training'): m = learner(dls, init=blend).model
    assert (m.believed,m.advised,m.row_maps,m.from_features,m.user_spread,m.item_spread)==(None,None,(None,None),(False,False),1,1)
    assert blend.model.believed is not None and blend.model.lists_by is not blend.model
