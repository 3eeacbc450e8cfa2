"""Users who were not in training, and how much each of their rows counts"""
import copy,json,subprocess,sys,warnings
import numpy as np,pandas as pd,pytest,torch
from functools import cache
from fastrec.all import RecDataLoaders,SampledSoftmaxLoss,dot_learner,learner,load_learner,load_recommender,nn_learner,sample_ratings
from test_devices import both,pretending,same as as_near
from fastrec.answer.since import with_since
from fastrec.export.files import checksum
from fastrec.export.labels import BundleError
from fastrec.models.foldin import user_prior

n_valid = 200

def frame():
    res = sample_ratings(n_users=80, n_items=60, n_ratings=3000).reset_index(drop=True)
    return res.assign(weight=np.random.default_rng(0).choice([.3,1.,4.], len(res)))

def last(df): return np.arange(len(df)-n_valid),np.arange(len(df)-n_valid, len(df))

pytestmark = [pytest.mark.filterwarnings('ignore:the tastes that were found'),  # rows of unequal weight are few for draws
              pytest.mark.filterwarnings('ignore:the ratings have no column .weight.')]

def softmax(dls): return learner(dls, loss_func=SampledSoftmaxLoss())

makes = dict(fit_bias=(dot_learner,'fit_bias',(),{}), fit_als=(dot_learner,'fit_als',(5,),{}), fit_ials=(dot_learner,'fit_ials',(8,60),{}),
    by_power=(dot_learner,'fit_ials',(8,60),dict(reg=.01, power=.5)), fit_ease=(dot_learner,'fit_ease',(),{}), fit_bayes=(dot_learner,'fit_bayes',(4,12),{}),
    dot=(dot_learner,'fit_one_cycle',(2,),{}), net=(nn_learner,'fit_one_cycle',(2,),{}), softmax=(softmax,'fit_one_cycle',(2,),{}),
    fit_blend=(dot_learner,'fit_blend',(),dict(weight=.3)))

@cache
def fitted(name, weight_name='weight'):
    make,fit,args,kwargs = makes[name]
    learn = make(RecDataLoaders.from_df(frame(), last, seed=3, device='cpu', weight_name=weight_name))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

def own_rows(learn, n=12):
    "The training rows of some users, and their codes"
    rows,users = frame().iloc[:-n_valid],learn.dls.classes['user'].labels[:n]
    return rows[rows.user.isin(users)],torch.from_numpy(learn.dls.classes['user'].lookup(users))

def same(a, b, **kwargs):
    "Do two recommenders predict the same, and rank by the same scores?"
    return all(torch.allclose(*o, **kwargs) for o in ([a.predict_grid(),b.predict_grid()],[scores(a),scores(b)]))

def scores(rec):
    model = rec.model.lists_by
    with torch.no_grad(): return model.score_grid(*(torch.arange(1, n) for n in model.sizes))

def distance(learn, new, codes):
    "How far the rows of `new` lie from those of the users of the `codes`, beside how far these lie from their mean"
    trained = learn.model.user_rows()
    own = trained[codes-1]
    return float((new.model.user_rows()-own).norm()/(own-trained.mean(0)).norm())

@pytest.mark.parametrize('name,most', [('fit_ials',1e-3), ('by_power',.01), ('fit_bias',.03), ('fit_als',.3)])
def test_who_is_folded_in_again_gets_the_row_of_training(name, most):
    for weight_name in (None,'weight'):
        learn = fitted(name, weight_name)
        rows,codes = own_rows(learn)
        assert distance(learn, learn.fold_in(rows), codes)<most
    assert distance(learn, learn.fold_in(rows.drop(columns='weight')), codes)>max(.15, 2*most if most<.1 else 0)

def test_what_somebody_chose_has_the_values_of_training():
    for weight_name in (None,'weight'):
        learn = fitted('fit_ease', weight_name)
        rows,codes = own_rows(learn)
        new = learn.fold_in(rows)
        assert torch.equal(new.model.choices(torch.arange(1, len(codes)+1)), learn.model.choices(codes))
        assert torch.equal(new.model.choices(torch.tensor([0])), learn.model.choices(torch.tensor([0])))
    assert len(new.model.choices.values.unique())>3

def test_ratings_by_a_loop_over_users():
    learn = copy.deepcopy(fitted('fit_als'))
    learn.model.believed = None  # as after another fit
    rows,_ = own_rows(learn)
    model,noise = learn.model,learn.noise
    mean,cov = (o.double() for o in user_prior(model))
    of_item = learn.dls.classes['title']
    got = learn.fold_in(rows).model.user_rows().double()
    unit = learn.dls.train_ds.weight_unit
    for k,(_,own) in enumerate(rows.groupby('user')):
        a = torch.linalg.inv(cov)
        b = a@mean
        for title,y,w in zip(own.title, own.rating, own.weight/unit):
            code = int(of_item.lookup([title])[0])
            z = torch.cat([model.i_weight.weight[code].double(), torch.ones(1).double()])
            a = a + w/noise*torch.outer(z, z)
            b = b + w/noise*(y-float(model.mean)-model.i_bias.weight[code].item())*z
        assert torch.allclose(got[k], torch.linalg.solve(a, b), atol=1e-4)

@pytest.mark.parametrize('name', ['fit_ials','by_power'])
def test_choices_by_a_loop_over_users(name):
    learn = fitted(name)
    rows,_ = own_rows(learn)
    q,args = learn.model.item_factors.double(),learn.model.ials
    got = learn.fold_in(rows).model.user_factors.double()
    unit = learn.dls.train_ds.weight_unit
    for k,(_,own) in enumerate(rows.groupby('user')):
        w = torch.full((len(q),), args['alpha0']).double()  # of each item, those that were not chosen too
        target = torch.zeros(len(q)).double()
        chosen = torch.from_numpy(learn.dls.classes['title'].lookup(own.title)-1)
        w[chosen] += torch.from_numpy(own.weight.to_numpy()/unit)
        target[chosen] = torch.from_numpy(own.weight.to_numpy()/unit)/w[chosen]
        lam = args['reg']*w.sum()**args['power']
        want = torch.linalg.solve(q.T@torch.diag(w)@q + lam*torch.eye(q.shape[1]), q.T@(w*target))
        assert torch.allclose(got[k], want, atol=1e-4)

@pytest.mark.parametrize('name', [o for o in makes if o not in ('fit_ease','fit_blend')])
def test_a_weight_of_2_is_the_row_twice(name):
    learn = fitted(name)
    rows,_ = own_rows(learn, 5)
    rows = rows.assign(weight=np.where(np.arange(len(rows))%2, 2., 1.))
    repeated = rows.loc[rows.index.repeat(rows.weight.astype(int))].assign(weight=1.)
    a,b = learn.fold_in(rows),learn.fold_in(repeated)
    assert torch.allclose(a.predict_grid(), b.predict_grid(), atol=2e-3)
    assert not torch.allclose(a.predict_grid(), learn.fold_in(rows.assign(weight=1.)).predict_grid(), atol=5e-3)

def test_of_a_pair_that_repeats_ease_takes_the_largest_weight():
    learn = fitted('fit_ease')
    rows,_ = own_rows(learn, 5)
    less = rows.assign(weight=rows.weight/2)
    assert same(learn.fold_in(pd.concat([less,rows])), learn.fold_in(rows))

@pytest.mark.parametrize('name', makes)
def test_a_row_of_weight_0_is_seen_and_teaches_nothing(name):
    learn = fitted(name)
    rows,_ = own_rows(learn, 5)
    off = rows.assign(weight=rows.weight.where(np.arange(len(rows))%3>0, 0), rating=rows.rating.where(np.arange(len(rows))%3>0, 99))
    new,without = learn.fold_in(off),learn.fold_in(off[off.weight>0])
    if name!='softmax': assert same(new, without, atol=1e-4)  # there what was seen is no negative
    recommended = new.recommend(n=60).merge(rows[['user','title']])
    assert not len(recommended) and len(without.recommend(n=60).merge(rows[['user','title']]))==(off.weight==0).sum()
    nobody = learn.fold_in(rows.assign(weight=0.))
    assert same(nobody, learn.fold_in(rows.assign(weight=0.).iloc[::2]), atol=1e-5)
    if name not in ('fit_ease','fit_bayes'): assert torch.allclose(nobody.predict_grid()[0], learn.fold_in(rows[:0]).predict_grid()[0], atol=1e-5)

def test_of_rows_that_are_seen_the_gradient_learns_no_dislike():
    learn = fitted('softmax')
    rows,_ = own_rows(learn, 5)
    off = rows.assign(weight=rows.weight.where(np.arange(len(rows))%3>0, 0))
    new,without = (learn.fold_in(o).predict_grid() for o in (off,off[off.weight>0]))
    places = learn.dls.classes['title'].lookup(off.title[off.weight==0])-1
    users = pd.factorize(off.user)[0][off.weight==0]
    assert (new-without)[users,places].mean()>0

@pytest.mark.parametrize('name', makes)
def test_without_the_column_each_row_is_an_average_one(name):
    learn = fitted(name)
    rows,_ = own_rows(learn, 5)
    unit = learn.dls.train_ds.weight_unit
    assert same(learn.fold_in(rows.drop(columns='weight')), learn.fold_in(rows.assign(weight=unit)), atol=1e-4)
    assert not same(learn.fold_in(rows), learn.fold_in(rows.assign(weight=unit)), atol=1e-3)
    plain = fitted(name, None)
    assert same(plain.fold_in(rows), plain.fold_in(rows.drop(columns='weight')))

@pytest.mark.parametrize('value,message', [(-1,'1 weights that are not finite numbers of 0 or more, -1 for one'), (np.inf,'not finite numbers of 0 or more, inf'),
    (np.nan,"'weight'"), (1e12,'two million times the mean of training'), (1e300,'two million times')])
def test_what_is_no_weight_is_refused(value, message):
    learn = fitted('fit_ials')
    rows,_ = own_rows(learn)
    off = rows.assign(weight=np.where(np.arange(len(rows))==3, value, 1.))
    with pytest.raises(ValueError, match=message): learn.fold_in(off)

@pytest.mark.parametrize('values', ['a', pd.Timestamp('2020-01-01')])
def test_weights_must_be_numbers(values):
    learn = fitted('fit_ials')
    with pytest.raises(ValueError, match='weights must be numbers'): learn.fold_in(own_rows(learn)[0].assign(weight=values))

def test_weights_of_any_type_and_none_at_all():
    learn = fitted('fit_als')
    rows = own_rows(learn, 3)[0].assign(weight=lambda o: np.arange(len(o))%3)
    want = learn.fold_in(rows).predict_grid()
    for dtype in ('int8','Int64','float32'): assert torch.allclose(learn.fold_in(rows.astype(dict(weight=dtype))).predict_grid(), want, atol=1e-5)
    assert torch.allclose(learn.fold_in(rows.to_dict('list')).predict_grid(), want, atol=1e-5)
    assert learn.fold_in(rows[:0]).predict_grid().shape==(1,60)
    with pytest.warns(UserWarning, match='left out'): new = learn.fold_in(pd.concat([rows,rows[:1].assign(title='?')]), unknown='drop')
    assert torch.allclose(new.predict_grid(), want, atol=1e-5) and len(new.ds.w)==len(rows)

def test_new_users_are_evaluated_by_weights():
    learn = fitted('fit_als')
    rows,_ = own_rows(learn)
    new,held = learn.fold_in(rows.iloc[::2]),rows.iloc[1::2]
    error = new.predict_df(held)-held.rating
    assert new.evaluate(held).rmse['model']==pytest.approx(np.average(error**2, weights=held.weight)**.5, abs=1e-4)

_light = """
import sys,json,pandas as pd
sys.modules['fastai'] = None
from fastrec import load_recommender
rec = load_recommender(sys.argv[1], device='cpu')
rows = pd.read_json(sys.argv[2])
print(json.dumps(rec.fold_in(rows).predict_grid().tolist()))
"""

@pytest.mark.parametrize('name', makes)
def test_bundles_weigh_as_the_learner(name, tmp_path):
    learn = fitted(name)
    rows,_ = own_rows(learn, 5)
    rec = load_recommender(learn.save_recommender(tmp_path/'bundle'), device='cpu')
    assert same(rec.fold_in(rows), learn.fold_in(rows), atol=1e-4)
    assert not same(rec.fold_in(rows.drop(columns='weight')), learn.fold_in(rows), atol=1e-3)

def test_bundles_weigh_without_fastai(tmp_path):
    learn = fitted('fit_als')
    rows,_ = own_rows(learn, 5)
    rows = rows[['user','title','rating','weight']]
    rows.to_json(tmp_path/'rows.json')
    args = [str(learn.save_recommender(tmp_path/'bundle')), str(tmp_path/'rows.json')]
    done = subprocess.run([sys.executable, '-c', _light, *args], capture_output=True, text=True, timeout=110, check=True)
    assert torch.allclose(torch.tensor(json.loads(done.stdout)), learn.fold_in(rows).predict_grid(), atol=1e-4)

@pytest.mark.parametrize('unit', [None,0,-1.,'1',True])
def test_a_bundle_of_weights_without_their_unit_is_refused(unit, tmp_path):
    folder = fitted('fit_bias').save_recommender(tmp_path/'bundle')
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    if unit is None: del manifest['weight_unit']
    else: manifest['weight_unit'] = unit
    manifest['checksum'] = checksum(manifest)
    (folder/'manifest.json').write_text(json.dumps(manifest), encoding='utf-8')
    with pytest.raises(BundleError, match='weight_unit'): load_recommender(folder)

def test_a_bundle_without_weights_needs_no_unit(tmp_path):
    folder = fitted('fit_bias', None).save_recommender(tmp_path/'bundle')
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    del manifest['weight_unit']
    manifest['checksum'] = checksum(manifest)
    (folder/'manifest.json').write_text(json.dumps(manifest), encoding='utf-8')
    assert load_recommender(folder).fold_in(frame().iloc[:3].drop(columns='user')).ds.w is None

def test_weights_in_other_units_are_the_same():
    df = frame()
    rows = df.iloc[:40]
    grids = []
    for factor in (1.,1e-200,1e200):
        off = df.assign(weight=df.weight*factor)
        learn = dot_learner(RecDataLoaders.from_df(off, last, seed=3, device='cpu', weight_name='weight'))
        with learn.no_bar(),learn.no_logging(): learn.fit_ials(4, 5, reg=.02)
        grids.append(learn.fold_in(rows.assign(weight=rows.weight*factor)).predict_grid())
    assert torch.allclose(grids[0], grids[1], atol=1e-4) and torch.allclose(grids[0], grids[2], atol=1e-4)

def test_zeros_that_count_nothing_are_not_told():
    learn = fitted('fit_ials')
    rows,_ = own_rows(learn, 3)
    off = rows.assign(rating=rows.rating.where(np.arange(len(rows))%4>0, 0), weight=rows.weight.where(np.arange(len(rows))%4>0, 0))
    learn.fold_in(off)
    with pytest.warns(UserWarning, match='have a rating of 0 or less'): learn.fold_in(off.assign(weight=1.))

# ------------------------------------------------------------------ after export
@pytest.mark.parametrize('name', ['fit_als','fit_bias','dot','net','fit_ials','fit_blend'])
def test_who_is_folded_in_after_export_is_who_was_before(name, tmp_path):
    learn = fitted(name)
    rows,_ = own_rows(learn, 5)
    learn.path = tmp_path
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    assert again.noise==learn.noise!=pytest.approx((.15*4)**2, rel=.01)
    assert same(again.fold_in(rows), learn.fold_in(rows), atol=1e-5)
    again.path = tmp_path
    again.export('twice.pkl')
    assert load_learner(tmp_path/'twice.pkl').noise==learn.noise
    assert learn.noise and '_known_noise' not in vars(learn)

# ------------------------------------------------------------------ elsewhere
def folded_in(device):
    "What newcomers with weights are predicted after each sort of fit, on `device`"
    df = sample_ratings(n_users=30, n_items=25, n_ratings=500, seed=0)
    df['weight'] = np.arange(len(df))%4
    dls = RecDataLoaders.from_df(df, seed=1, bs=64, device=device, weight_name='weight')
    mine,res = df[:40].drop(columns='user'),{}
    mine = mine.drop_duplicates('title')
    for name,args in dict(fit_als=(3,3), fit_ials=(3,3), fit_ease=(20.,), fit_bayes=(2,4)).items():
        learn = dot_learner(dls)
        with learn.no_bar(),learn.no_logging(): getattr(learn, name)(*args)
        grids = [learn.fold_in(o).predict_grid().cpu() for o in (mine,mine.drop(columns='weight'))]
        assert not torch.allclose(*grids, atol=1e-4)
        if name!='fit_bayes': res[name] = grids  # whose draws are those of the device
    for how in (nn_learner,softmax):
        learn = how(dls)
        grids = [learn.fold_in(mine.assign(weight=w)).predict_grid().cpu() for w in (1,2)]
        assert all(o.isfinite().all() for o in grids)
    return res

@pytest.mark.long
@both
def test_on_a_device_as_on_the_cpu(device):
    want = folded_in('cpu')
    with pretending(device): got = folded_in(device)
    as_near(got, want)

@pytest.mark.filterwarnings('error:the ratings have no column')
def test_rows_without_the_weights_of_training_are_told_of():
    "In a log of several users; one person's own ratings have none"
    learn = fitted('fit_als')
    log = frame().head(30).drop(columns='weight').assign(user=lambda o: o.user+1000)
    for ask in (learn.fold_in, learn.extend):
        with pytest.warns(UserWarning, match="no column 'weight', which said in training how much a row counts"): ask(log)
        ask(log.assign(weight=1.))
    learn.fold_in(log[:0])
    learn.fold_in(log.drop(columns='user').drop_duplicates('title'))
    plain = fitted('fit_als', None)
    for ask in (plain.fold_in, plain.extend): ask(log)

def test_columns_of_the_items_do_not_name_users():
    "Where people are what is rated"
    df = frame().rename(columns=dict(user='member', title='profile')).assign(client=lambda o: o.weight)
    df = df[['member','profile','rating','client']].astype(dict(profile=str))
    learn = learner(RecDataLoaders.from_df(df, last, user_name='member', item_name='profile', weight_name='client', seed=3))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4)
    mine = df[df.member==df.member[0]].drop(columns='member')
    assert np.isfinite(learn.fold_in(mine).recommend(n=3).score).all()
    with pytest.raises(ValueError, match="'userId' names several users"): learn.fold_in(mine.assign(userId=range(len(mine))))

# ------------------------------------------------------------------ about whom nothing is known
@pytest.mark.filterwarnings('ignore:.*the average stands in')
@pytest.mark.parametrize('how', ['fit_bayes','fit_blend'])
def test_nobody_is_the_average_and_as_unsure_as_a_stranger(how, tmp_path):
    "Alone or among others, saved or not, with a weight of 0, and after the only rating is gone; who has features is not nobody"
    df = sample_ratings(n_users=80, n_items=40, n_ratings=2000).drop(columns='item').assign(weight=1.)
    learn = learner(RecDataLoaders.from_df(df, weight_name='weight', seed=0))
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(**(dict(n_sweep=25) if how=='fit_bayes' else dict(ratings='fit_bayes')))
    titles = learn.ds.classes['title'].labels
    stranger = learn.predict_df(pd.DataFrame(dict(user=-1, title=titles)), unknown='average', std=True)
    def of(rec, user): return rec.predict_df(pd.DataFrame(dict(user=user, title=titles)), std=True)
    def check(got, exact=1e-4): np.testing.assert_allclose(got.to_numpy(), stranger.to_numpy(), atol=exact)
    rated = dict(title=titles[[0,1,2,0,3]], rating=[5.,1.,4.,2.,3.], weight=[1.,1.,1.,0.,0.], user=[-1,-1,-1,-2,-2])
    both = learn.fold_in(pd.DataFrame(rated))
    check(of(learn.fold_in(pd.DataFrame(dict(title=titles[:0], rating=[]))), 'new user'))
    check(of(both, -2))
    assert (of(both, -1)-stranger).abs().to_numpy().max()>.05
    new = learn.extend(pd.DataFrame(rated))
    for rec in (new,load_recommender(new.save_recommender(tmp_path/'m')),new.without_users(df.user[0])):  # items are solved for again, with the newcomers
        average = rec.predict_df(pd.DataFrame(dict(user=-9, title=titles)), unknown='average', std=True)
        np.testing.assert_allclose(of(rec, -2), average, atol=1e-4)
    one = learn.fold_in(pd.DataFrame(dict(title=titles[:1], rating=[5.])))
    found = one.explain(titles[7])
    assert found.without.dropna().tolist()==pytest.approx([stranger.iloc[7,0]], abs=1e-3) and found.contribution.sum()==pytest.approx(one.predict(titles[7]), abs=1e-3)

@pytest.mark.filterwarnings('ignore:.*the average stands in')
def test_the_average_user_beside_newcomers_is_that_of_training():
    "Also after `fit_bayes`: the page shows tastes as they differ from it"
    learn = learner(RecDataLoaders.from_df(sample_ratings(n_users=80, n_items=40, n_ratings=2000), seed=0))
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(n_sweep=25)
    titles = learn.ds.classes['title'].labels
    new = learn.fold_in(pd.DataFrame(dict(title=titles[:5], rating=[5.,1,5,1,4])))
    want,got = (o.predict_df(pd.DataFrame(dict(user=u, title=titles)), unknown='average') for o,u in ((learn,-1),(new,'nobody')))
    np.testing.assert_allclose(got, want, atol=1e-4)

def test_one_with_many_ratings_takes_no_memory_for_all_others():
    "Rows are solved for side by side with those of as many ratings"
    from fastrec.models.row_loops import _firsts
    lens = torch.tensor([20_000, *[5]*2000])
    firsts = [*_firsts(lens, True), len(lens)]
    for a,b in zip(firsts, firsts[1:]): assert lens[a:b].max()*(b-a)<=2*lens[a:b].clamp(min=8).sum()
    assert firsts[:2]==[0,1] and len(firsts)<40

@pytest.mark.parametrize('n_draws', [12,40,100])
def test_the_chance_of_newcomers_is_as_wide_as_spread_counts_it(n_draws):
    "Over the draws, less one, as the spread of a prediction is: it was wider by a share of 1/n_draws"
    from fastrec.models.new_draws import chances
    eps = torch.cat(chances(n_draws, 5), 1).double()
    torch.testing.assert_close(torch.cov(eps.T), torch.eye(10, dtype=torch.double), atol=1e-5, rtol=0)
    torch.testing.assert_close(eps.mean(0), torch.zeros(10, dtype=torch.double), atol=1e-5, rtol=0)

def test_what_was_rated_since_is_told_as_it_was_rated():
    "Among reasons after a fit of choices, whose rows do not follow how high something was rated"
    df = sample_ratings(200, 100, 6000)
    learn = learner(RecDataLoaders.from_df(df, seed=1))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): learn.fit_ials(8)
    user = df.user.iloc[0]
    since = learn.recommend(user, n=3)[['title']].assign(rating=[2,4.5,3])
    new = with_since(learn, user, since)
    told = new.explain(user, learn.recommend(user, n=4).title.iloc[3]).set_index('title').rating
    assert told[since.title].tolist()==since.rating.tolist()
    other = with_since(learn, user, since[['title']])
    assert other.predict_grid([user]).equal(new.predict_grid([user]))
