"""What nothing is known of is on no list, whatever else is told; draws of the unrated are their prior's mean; and weights of newcomers solve the equations"""
import warnings
from functools import cache
import numpy as np,pandas as pd,pytest,torch
from fastrec.all import BundleError,DotBias,RecDataLoaders,dot_learner,learner,load_recommender,sample_ratings

@cache
def data():
    "Ratings, a frame of items with a film without a value, one without a row of its own, and one that is described, none of them rated"
    df,truth = sample_ratings(n_users=100, n_items=60, n_ratings=3000, with_truth=True)
    items = truth.sides()['items'].rename_axis('title')
    items = pd.concat([items, items.head(1).set_axis(['Told (2026)']), items.head(1).map(lambda _: None).set_axis(['Empty (2026)'])]).rename_axis('title')
    items['year'] = items.index.str[-5:-1].astype(float)
    items.loc['Empty (2026)','year'] = np.nan
    return df[['user','title','rating']].astype(dict(title=str)),items

def trained(fit, *args, items=None, **kwargs):
    learn = dot_learner(RecDataLoaders.from_df(data()[0], seed=1, device='cpu', items=data()[1] if items is None else items), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

cached = cache(trained)

@pytest.mark.parametrize('fit,args', [('fit_als',(4,)), ('fit_ials',(4,)), ('fit_bayes',(3,20)), ('fit_one_cycle',(1,))])
def test_what_nothing_is_told_of_is_on_no_list(fit, args, tmp_path):
    learn = cached(fit, *args)
    user = data()[0].user[0]
    loaded = load_recommender(learn.save_recommender(tmp_path/'rec'), device='cpu')
    for rec in (learn,loaded,loaded.without_users(data()[0].user[1]),loaded.extend(pd.DataFrame(dict(user=[10**6], title=['Other (1)'], rating=[4.])))):
        lists = rec.recommend(user, n=200, exclude_seen=False)
        assert 'Told (2026)' in {*lists.title} and 'Empty (2026)' not in {*lists.title}
        with pytest.warns(UserWarning, match='1 of the items have no training ratings, .Empty'): few = rec.recommend(user, items=['Empty (2026)','Told (2026)'])
        assert few.title.tolist()==['Told (2026)']
        with pytest.warns(UserWarning, match='Empty'): assert not len(rec.recommend_users('Empty (2026)'))

def test_a_rating_or_features_put_it_there(tmp_path):
    learn = cached('fit_als', 4)
    user = data()[0].user[0]
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'), device='cpu')
    assert 'Empty (2026)' in {*rec.extend(pd.DataFrame(dict(user=[10**6], title=['Empty (2026)'], rating=[4.]))).recommend(user, n=200).title}
    new = data()[1].head(1).set_axis(['Late (2027)']).rename_axis('title')
    more = rec.extend(items=new)
    lists = {*more.recommend(user, n=200).title}
    assert 'Late (2027)' in lists and 'Empty (2026)' not in lists
    again = load_recommender(more.save_recommender(tmp_path/'more'), device='cpu')
    assert {*again.recommend(user, n=200).title}==lists

def test_a_folder_without_flags_lists_all_as_before_and_forged_ones_are_refused(tmp_path):
    from fastrec.export.loading import assemble,read_files
    from fastrec.export.manifest import read_manifest
    learn = cached('fit_als', 4)
    folder = learn.save_recommender(tmp_path/'rec')
    manifest = read_manifest(folder)
    for forge,is_old in ((lambda t: t.pop('told.1'),True), (lambda t: t.update({'told.1': t['told.1'][1:]}),False), (lambda t: t.update({'told.1': t['told.1'].int()}),False)):
        files = read_files(folder, manifest)
        forge(next(v for k,v in files.items() if k.startswith('model-')))
        if is_old: assert 'Empty (2026)' in {*assemble(folder, manifest, files).recommend(data()[0].user[0], n=200).title}
        else:
            with pytest.raises(BundleError, match='which items have features'): assemble(folder, manifest, files)

# ------------------------------------------------------------------ draws
@pytest.mark.parametrize('kwargs', [dict(features=False), {}])
def test_the_mean_of_the_draws_of_the_unrated_is_the_priors(kwargs):
    "By a sampler that is watched: what the prior expects in each draw that is kept"
    from fastrec.fit.gibbs import Gibbs
    expected = []
    class Watched(Gibbs):
        def _keep_if_due(self):
            before = len(self.draws)
            super()._keep_if_due()
            if len(self.draws)>before: expected.append(self.draws[-1][1].clone())
    import fastrec.fit.bayes as bayes
    with pytest.MonkeyPatch.context() as m:
        m.setattr(bayes, 'Gibbs', Watched)
        learn = trained('fit_bayes', 3, 40, **kwargs)
    cold = (learn.dls.train_ds.counts(1)==0).nonzero()[1:,0]
    draws = learn.model.draws()[1][:,cold]
    assert len(cold)==2 and len(draws)==36
    np.testing.assert_allclose(draws.mean(0), torch.stack(expected)[:,cold].mean(0), atol=1e-5)
    rated = torch.stack(expected)[:,learn.dls.train_ds.counts(1)>0]
    ratio = draws.var(0).mean(0)/rated.var(1).mean(0)
    assert (ratio>.3).all() and (ratio<3).all()

def test_films_without_ratings_or_features_are_all_alike():
    learn = trained('fit_bayes', 3, 40, features=False)
    grid = learn.predict_grid(None, ['Told (2026)','Empty (2026)'])
    assert grid[:,0].equal(grid[:,1])
    average = learn.predict_df(pd.DataFrame(dict(user=learn.dls.classes['user'].labels, title='Told (2026)')))
    rated = learn.predict_grid(None, data()[0].title.unique()).mean(1)
    assert (torch.tensor(average.to_numpy())-rated).abs().mean()<.15

# ------------------------------------------------------------------ weights of new items
def eased(df, reg=30., weight_name=None):
    learn = dot_learner(RecDataLoaders.from_df(df, seed=1, weight_name=weight_name, device='cpu'), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_ease(reg)
    return learn

@pytest.mark.parametrize('weighed', [False,True])
@pytest.mark.parametrize('n_new', [1,3])
def test_new_items_get_the_columns_of_the_closed_form(n_new, weighed, tmp_path):
    df = data()[0].drop_duplicates(['user','title'])
    if weighed: df = df.assign(weight=np.random.default_rng(0).choice([1.,2.,3.], len(df)))
    films = sorted(df.title.unique())[5:5+n_new]
    late,early = df[df.title.isin(films)],df[~df.title.isin(films)]
    late = late[late.user.isin(early.user)]
    learn = eased(early, weight_name='weight' if weighed else None)
    ds = learn.dls.train_ds
    n_users,n_items = (len(v)-1 for v in ds.classes.values())
    x = np.zeros((n_users,n_items+n_new))
    x[ds.x[:,0]-1,ds.x[:,1]-1] = ds.weights()
    x[ds.classes['user'].lookup(late.user)-1,[n_items+films.index(o) for o in late.title]] = late.weight/ds.weight_unit if weighed else 1.
    p = np.linalg.inv(x.T@x+30*np.eye(n_items+n_new))
    closed = -p/np.diag(p)
    np.fill_diagonal(closed, 0)
    assert np.abs(closed[:,-n_new:]).max()>.02
    old,new = learn.model.weight.detach().numpy(),x[:,n_items:]
    left = x[:,:n_items]-x[:,:n_items]@old
    for rec in (learn,load_recommender(learn.save_recommender(tmp_path/'rec'), device='cpu')):
        with warnings.catch_warnings():
            if weighed and rec is not learn: warnings.filterwarnings('ignore', '.*users that were there stay')
            more = rec.extend(late)
        found = more.model.weight.detach().numpy()
        np.testing.assert_allclose(found[:,n_items:], closed[:,n_items:], atol=2e-4)
        np.testing.assert_allclose(found[:n_items,:n_items], old)
        np.testing.assert_allclose(found[n_items:,:n_items], np.linalg.solve(new.T@new+30*np.eye(n_new), new.T@left), atol=2e-4)
        assert {*films}<={*more.recommend(early.user.iloc[0], n=100, exclude_seen=False).title}

def test_without_features_a_film_of_the_frame_that_nobody_chose_is_0_told_and_solved_for_later():
    df,items = data()
    learn = cached('fit_ease', 30., features=False)
    user = df.user[0]
    for ask in (lambda o: o.predict(user, 'Told (2026)'), lambda o: o.predict_df(pd.DataFrame(dict(user=[user], title=['Told (2026)'])))[0], lambda o: o.predict_grid(user, ['Told (2026)']).item()):
        with pytest.warns(UserWarning, match="1 of the items were chosen by nobody in training, 'Told"): assert ask(learn)==0
    assert 'Told (2026)' not in {*learn.recommend(user, n=200, exclude_seen=False).title}
    fans = df.user.unique()[:20]
    more = learn.extend(pd.DataFrame(dict(user=[*fans,10**6,10**6], title=['Told (2026)']*21+[df.title[0]], rating=5.)))
    code = more.ds.classes['title'].o2i['Told (2026)']-1
    x = np.zeros((len(more.model.choices)-1,len(more.model.weight)))
    every = learn.dls.train_ds.x
    x[every[:,0]-1,every[:,1]-1] = 1
    x[-1,more.ds.classes['title'].o2i[df.title[0]]-1] = 1
    own = np.isin(more.ds.classes['user'].labels, [*fans,10**6]).astype(float)
    b = np.linalg.solve(x.T@x+30*np.eye(x.shape[1]), x.T@own)
    np.testing.assert_allclose(more.model.weight.detach()[:,code], b, atol=2e-4)
    assert more.predict(user, 'Told (2026)')!=0 and 'Told (2026)' in {*more.recommend(user, n=200, exclude_seen=False).title}

def test_preferences_of_fit_ials_that_say_nothing_are_told_too():
    learn = cached('fit_ials', 4)
    user = data()[0].user[0]
    with pytest.warns(UserWarning, match='Empty .2026.. for one: their preference says nothing'): learn.predict(user, 'Empty (2026)')
    assert learn.predict(user, 'Told (2026)')!=0

def test_folders_that_did_not_keep_reg_refuse_new_items(tmp_path):
    learn = cached('fit_ease', 30.)
    rec = load_recommender(learn.save_recommender(tmp_path/'rec'), device='cpu')
    assert rec.model.reg==30.
    rec.model.reg = None
    with pytest.raises(ValueError, match='did not keep its reg'): rec.extend(pd.DataFrame(dict(user=[10**6], title=['Other'], rating=[4.])))
    assert 10**6 in {*rec.extend(pd.DataFrame(dict(user=[10**6], title=[data()[0].title[0]], rating=[4.]))).ds.classes['user']}

# ------------------------------------------------------------------ whom to tell
@pytest.mark.parametrize('share', [.02,.97])
def test_who_is_told_of_one_film_is_found_as_for_many(share):
    "Also where nearly everybody has seen it, and where scores are equal"
    from fastrec.answer.audience import _Audience
    from fastrec.answer.recommender import Seen
    from fastrec.models.dot import Dot
    g = torch.Generator().manual_seed(0)
    n_users,n_items = 3000,40
    model = Dot(torch.randn(n_users+1, 3, generator=g).round(), torch.zeros(n_users+1, 1), torch.randn(n_items+1, 3, generator=g).round(), torch.zeros(n_items+1, 1)).eval()
    seen = torch.rand(n_users+1, n_items+1, generator=g)<share
    seen[0],seen[:,0] = False,False
    known = Seen(seen.nonzero(), n_users+1, n_items+1)
    users = torch.arange(1, n_users+1)
    audience = _Audience(model, users, 5, known, 2**28, n_items+1, torch.device('cpu'))
    small = _Audience(model, users, 5, known, 2**16, n_items+1, torch.device('cpu'))
    items = torch.tensor([3,17,9])
    assert audience.are_few(items) and not small.are_few(items)
    with torch.no_grad(): found,many,cut = audience.best(items),audience.best_of_many(items),small.best(items)
    for a,b,c in zip(found, many, cut): assert a.equal(b) and a.equal(c)
    scores = model.score_grid(users, items).detach().masked_fill(seen[1:,items], -torch.inf).numpy()
    for k,(row,places) in enumerate(zip(scores.T, found[1])): assert places.tolist()==np.lexsort((np.arange(n_users), -row))[:5].tolist()

# ------------------------------------------------------------------ the noise of training
def test_noise_is_measured_again_when_anything_changes():
    learn = trained('fit_als', 4)
    before = learn.noise
    assert learn.noise==before
    x,y = learn.dls.train_ds.x,learn.dls.train_ds.y
    brute = lambda: float(((torch.tensor(learn.predict_df(learn.dls.train_ds.frame()[0]).to_numpy())-y)**2).double().mean())
    assert before==pytest.approx(brute(), rel=1e-5)
    learn.model.i_bias.weight.data[:] += 1
    assert learn.noise==pytest.approx(brute(), rel=1e-5) and learn.noise>before
    learn.model.y_range = (3.,3.5)
    assert learn.noise==pytest.approx(brute(), rel=1e-5)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(4)
    assert learn.noise==pytest.approx(float((1-learn.predict_df(learn.dls.train_ds.frame()[0]))[:].pow(2).mean()), rel=1e-4)

# ------------------------------------------------------------------ as training solves for somebody
@cache
def solved():
    "Enough ratings for `fit_als` not to be drawn to biases"
    learn = dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=300, n_items=80, n_ratings=12_000)[['user','title','rating']], seed=1, device='cpu'), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    assert learn.model.believed is not None and learn.model.advised is None
    return learn

def brute_row(learn, rows):
    "By loops over the ratings `rows`: the equations with each item's variances and precision, and the precision of the user's own, until it stays"
    m = learn.model
    o = {k: v.double() for k,v in m.believed.items()}
    codes = torch.from_numpy(learn.dls.classes['title'].lookup(rows.title)).long()
    q,b = m.i_weight.weight.detach().double(),m.i_bias.weight.detach().double()
    gamma = 1.
    for _ in range(50):
        v = o['noise']/gamma
        a,c = v*o['lam'].diag(),v*o['lam']*torch.cat([m.user_factors.mean(0),m.u_bias.weight.detach()[1:].mean(0)]).double()
        for i,y in zip(codes, rows.rating):
            z = torch.cat([q[i], torch.ones(1).double()])
            d = torch.cat([o['cov'][i,:-1], torch.zeros(1).double()])
            a = a + o['gamma'][i]*(torch.outer(z, z)+d.diag())
            c = c + o['gamma'][i]*z*(y-b[i,0]-m.mean.double())
        p = torch.linalg.solve(a, c)
        cov,errors = v*torch.linalg.inv(a),0.
        for i,y in zip(codes, rows.rating):
            z,d = torch.cat([q[i], torch.ones(1).double()]),o['cov'][i]
            errors += o['gamma'][i]*((y-b[i,0]-m.mean-z@p)**2 + (d[:-1]*(p[:-1]**2+cov.diagonal()[:-1])).sum() + d[-1] + z@cov@z)
        gamma = (50+len(rows)/2)/(50+errors/(2*o['noise']))
    return p.float()

def test_somebody_is_solved_for_by_the_equations_of_the_last_sweep(tmp_path):
    learn = solved()
    df,_ = learn.dls.train_ds.frame()
    users = df.user.value_counts().index[[0,5,-1]]
    rows = df[df.user.isin(users)]
    loaded = load_recommender(learn.save_recommender(tmp_path/'rec'), device='cpu')
    for rec in (learn,loaded):
        new = rec.fold_in(rows).model
        found = torch.cat([new.u_weight.weight, new.u_bias.weight], 1).detach()[1:]
        for u,p in zip(sorted(users), found): np.testing.assert_allclose(p, brute_row(learn, rows[rows.user==u]), atol=2e-3)

def test_twins_have_the_lists_of_training():
    learn = solved()
    df,_ = learn.dls.train_ds.frame()
    users = df.user.unique()[:100]
    everything = learn.dls.train_ds.frame()[0]
    lists = learn.recommend(users, exclude_seen=everything),learn.fold_in(df[df.user.isin(users)]).recommend()
    common = np.mean([len({*a}&{*b})/len(a) for a,b in zip(*[[o.title[o.user==u] for u in users] for o in lists])])
    assert common>.92

def test_what_is_believed_goes_where_items_go(tmp_path):
    learn = solved()
    df,_ = learn.dls.train_ds.frame()
    film = df.title.iloc[0]
    less = learn.without_items(film)
    own = df[(df.user==df.user.iloc[0]) & (df.title!=film)]
    np.testing.assert_allclose(less.fold_in(own.assign(user=1)).predict_grid(), learn.fold_in(own.assign(user=1)).predict_grid(None, less.ds.classes['title'].labels), atol=1e-4)
    more = less.extend(pd.DataFrame(dict(user=[10**6], title=['New (2026)'], rating=[5.])))
    assert len(more.model.believed['gamma'])==more.model.sizes[1]==learn.model.sizes[1]
    again = load_recommender(more.save_recommender(tmp_path/'rec'), device='cpu')
    np.testing.assert_allclose(again.fold_in(own).predict_grid(), more.fold_in(own).predict_grid(), atol=1e-5)

def test_what_is_believed_is_dropped_with_the_rows_it_was_of():
    learn = trained('fit_als', 4)
    with learn.no_bar(),learn.no_logging():
        learn.fit_als(4)
        for fit in (lambda: learn.fit_one_cycle(1), lambda: learn.fit_als(4, reg=.5), lambda: learn.fit_bayes(4, 3)):
            learn.fit_als(4, features=False)
            fit()
            assert learn.model.believed is None

def test_forged_beliefs_are_refused(tmp_path):
    from fastrec.export.loading import assemble,read_files
    from fastrec.export.manifest import read_manifest
    folder = solved().save_recommender(tmp_path/'rec')
    manifest = read_manifest(folder)
    for name,change in dict(cov=lambda o: -o, gamma=lambda o: o[1:], lam=lambda o: o*torch.inf, noise=lambda o: None).items():
        files = read_files(folder, manifest)
        tensors = next(v for k,v in files.items() if k.startswith('model-'))
        new = change(tensors.pop(f'believed.{name}'))
        if new is not None: tensors[f'believed.{name}'] = new
        with pytest.raises(BundleError, match='what is used to solve for newcomers'): assemble(folder, manifest, files)

def test_draws_that_do_not_fit_together_are_refused(tmp_path):
    from fastrec.export.loading import assemble,read_files
    from fastrec.export.manifest import read_manifest
    folder = cached('fit_bayes', 3, 20).save_recommender(tmp_path/'rec')
    manifest = read_manifest(folder)
    for name in ('u_bias_draws','i_bias_draws','u_noise','i_noise'):
        files = read_files(folder, manifest)
        tensors = next(v for k,v in files.items() if k.startswith('model-'))
        tensors[name] = tensors[name][:,1:].contiguous() if 'draws' in name else tensors[name][1:].contiguous()
        with pytest.raises(BundleError, match='draws do not fit together'): assemble(folder, manifest, files)
