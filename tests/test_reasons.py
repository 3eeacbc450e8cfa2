"""Reasons add up, are what the prediction hangs on, and stand beside lists as they stand alone"""
import gc,warnings,weakref
import numpy as np,pandas as pd,pytest,torch
from functools import cache
from fastrec.all import (IndexSplitter,RecDataLoaders,SampledSoftmaxLoss,compare,dot_learner,learner,load_recommender,nn_learner,
    plot_compare,plot_explain,plot_reasons,plot_tastes,sample_ratings,tastes)
from fastrec.answer.explain import model_and_noise,reasons_for
from fastrec.answer.recommender import evaluating
from fastrec.base.compiled import can_compile
from fastrec.models import row_loops
from fastrec.export.labels import BundleError
from fastrec.export.rated import read_rated

n_valid = 200
fits = dict(fit_bias=(dot_learner,'fit_bias',(),{}), fit_als=(dot_learner,'fit_als',(5,),{}), by_reg=(dot_learner,'fit_als',(5,),dict(reg=.1)),
    fit_ials=(dot_learner,'fit_ials',(8,),dict(reg=.01)), by_power=(dot_learner,'fit_ials',(8,),dict(reg=.01, power=.5)),
    popularity=(dot_learner,'fit_ials',(0,),{}), fit_ease=(dot_learner,'fit_ease',(),{}), fit_bayes=(dot_learner,'fit_bayes',(4,12),{}),
    fit_blend=(dot_learner,'fit_blend',(),dict(weight=.3)), dot=(dot_learner,'fit_one_cycle',(2,),{}), net=(nn_learner,'fit_one_cycle',(2,),{}),
    softmax=(lambda dls: learner(dls, loss_func=SampledSoftmaxLoss()),'fit_one_cycle',(2,),{}))
linear = ['fit_bias','fit_als','by_reg','fit_ials','by_power','fit_ease']

@cache
def frame(): return sample_ratings(n_users=80, n_items=60, n_ratings=2400).reset_index(drop=True)

def last(df): return np.arange(len(df)-n_valid),np.arange(len(df)-n_valid, len(df))

@cache
def fitted(name):
    make,fit,args,kwargs = fits[name]
    learn = make(RecDataLoaders.from_df(frame(), last, seed=3, device='cpu'))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    return learn

def mine(user): return frame().iloc[:-n_valid].query('user==@user')[['title','rating']]

def few(user, n=12): return mine(user).head(n)

def pairs(n, seed=0):
    rng = np.random.default_rng(seed)
    return zip(rng.choice(frame().user.unique(), n),rng.choice(frame().title.unique(), n))

@pytest.mark.parametrize('name', fits)
def test_lines_add_up_to_the_prediction(name):
    learn = fitted(name)
    for user,title in pairs(3 if name in ('net','softmax') else 20):
        why = learn.explain(user, title)
        assert abs(why.contribution.sum()-learn.predict(user, title))<1e-4
        rated = why[why.part=='rated']
        assert sorted(zip(rated.title, rated.rating))==sorted(zip(*mine(user).to_dict('list').values()))
        assert rated.contribution.abs().is_monotonic_decreasing

@pytest.mark.parametrize('name', [o for o in fits if o not in ('net','softmax')])
def test_reasons_of_a_thousand_pairs_add_up_to_their_predictions(name):
    "In one call for all, of people who were not in training, so that nothing remains"
    users,titles = frame().user.unique()[:50],frame().title.unique()[:20]
    new = fitted(name).fold_in(pd.concat([mine(o).assign(user=f'new {o}') for o in users]))
    labels = [f'new {o}' for o in users]
    codes,items = (torch.as_tensor(new.ds.classes[k].lookup(o)) for k,o in (('user',labels),('title',titles)))
    model,noise = model_and_noise(new)
    with torch.no_grad(),evaluating(model) as (m,device):
        found,_ = reasons_for(new, m, codes, noise, device)
        scores = found.scores(items.expand(len(codes), -1))
        np.testing.assert_allclose(m.to_range(scores), new.predict_grid(labels, [*titles]), atol=1e-4)

@pytest.mark.parametrize('name', fits)
def test_of_newcomers_nothing_remains(name):
    "Their row is the one that the equations give, so the sum is a second way to the prediction"
    learn = fitted(name)
    user = frame().user[0]
    new = learn.fold_in(few(user))
    for _,title in pairs(2 if name in ('net','softmax') else 8):
        why = new.explain('new user', title)
        assert abs(why.contribution.sum()-new.predict(title))<1e-4
        assert abs(why[why.part=='remainder'].contribution.sum())<1e-4

@pytest.mark.parametrize('name,tol', [*((o,1e-4) for o in linear), ('fit_bayes',1e-4), ('net',1e-4), ('softmax',1e-4)])
def test_without_is_what_fold_in_says_without(name, tol):
    learn = fitted(name)
    user,title = frame().user[0],frame().title[7]
    rated = few(user)
    why = learn.fold_in(rated).explain('new user', title)
    for _,o in why[why.part=='rated'].head(4).iterrows():
        less = learn.fold_in(rated[rated.title!=o.title]).predict(title)
        assert abs(less-o['without'])<tol

def test_without_the_only_choice_is_anybody():
    for name in ('fit_ials','fit_ease','fit_als','fit_bayes'):
        learn = fitted(name)
        only = few(frame().user[0], 1)
        why = learn.fold_in(only).explain('new user', frame().title[7])
        want = learn.fold_in(only.iloc[:0]).predict(frame().title[7])
        assert abs(why['without'].iloc[-1]-want)<1e-4

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','dot','net'])
def test_without_is_what_if_says(name):
    "Of who was in training, and of newcomers with few ratings and many"
    learn,user = fitted(name),frame().user[0]
    for rec,who in ((learn,user),(learn.fold_in(few(user, 3)),'new user'),(learn.fold_in(few(user)),'new user')):
        for title in frame().title.unique()[5:8]:
            why = rec.explain(who, title)
            for _,o in why[why.part=='rated'].head(3).iterrows():
                bend = 2e-2 if name=='dot' else 1e-4  # a sigmoid is made straight at the row with all ratings
                assert abs(o['without']-rec.what_if(who, title, o.title))<bend

def test_chance_is_drawn_again_without_a_rating():
    "Beside the draw by the left side without it, in float64"
    learn = fitted('fit_bayes')
    new = learn.fold_in(few(frame().user[0]))
    model,noise = model_and_noise(new)
    with torch.no_grad(),evaluating(model) as (m,device):
        found,_ = reasons_for(new, m, torch.tensor([1]), noise, device)
        items = torch.arange(1, 20)[None]
        got = found.without(items)[0]
        rows,errors = (o.double() for o in found.terms)
        left,asked = found.left.double(),found.rows_of(items).double()[:,0]
        for j in range(rows.shape[2]):
            kept = torch.arange(rows.shape[2])!=j
            rest = left[:,0]-rows[:,0,j,:,None]*rows[:,0,j,None]
            chol = torch.linalg.cholesky(rest)
            z = found.start.double()[:,0]+torch.linalg.solve(rest, (rows[:,0]*errors[:,0,:,None])[:,kept].sum(1))
            z = z+torch.linalg.solve_triangular(chol.mT, found.eps.double()[:,0], upper=True)[...,0]
            want = (asked@z[...,None])[...,0].mean(0)+found._added(items)[0]
            assert (got[:,j]-want).abs().max()<1e-4

def moves(name, n=40):
    "What `explain` says of the strongest reason, by `without` and by contribution, how far the prediction moves, and how far without another"
    learn,rows = fitted(name),[]
    rng = np.random.default_rng(1)
    for user,title in pairs(n, 1):
        rated = mine(user)
        if len(rated)<5: continue
        now = learn.fold_in(rated)
        why = now.explain('new user', title)
        own = why[why.part=='rated']
        first,other = own.iloc[0],own.iloc[rng.integers(1, len(own))]
        before = now.predict(title)
        after = [learn.fold_in(rated[rated.title!=o.title]).predict(title) for o in (first,other)]
        rows.append((why.contribution.sum()-first['without'], first.contribution, *(before-o for o in after)))
    return pd.DataFrame(rows, columns=['said','contribution','moved','random']).corr('spearman')

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','dot'])
def test_the_prediction_hangs_on_the_strongest_reason(name):
    corr = moves(name)
    assert corr.said.moved>.95
    assert corr.contribution.moved>.75  # .89 to 1
    assert corr.said.random<.6  # .25 at most, of 120

@pytest.mark.long
def test_that_of_a_network_too():
    assert moves('net', 9).said.moved>.8

def test_reasons_for_a_film_of_a_genre_are_of_that_genre():
    ratings,truth = sample_ratings(with_truth=True)
    genre = truth.items.set_index('title').genre
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=42), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials()
    lists = learn.recommend(n=5, why=1)
    same = genre[lists.title].to_numpy()==genre[lists.because_1.astype(str)].to_numpy()
    assert same.mean()>.79  # .84; by chance .47

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','dot'])
def test_lists_have_the_reasons_of_explain(name):
    learn = fitted(name)
    lists = learn.recommend(n=3, why=2)
    assert len(lists.drop(columns=[o for o in lists if o.startswith(('because','gave'))]).compare(learn.recommend(n=3)))==0
    for _,o in lists.sample(15, random_state=0).iterrows():
        why = learn.explain(o.user, o.title, ranking=name=='fit_blend').query('part=="rated" and contribution>0')
        if name in ('fit_als','fit_bayes','fit_blend','dot'): why = why[why.rating>=mine(o.user).rating.mean()]
        want = [*why.title.head(2)]
        assert [p for p in (o.because_1,o.because_2) if not pd.isna(p)]==want
        if 'gave_1' in lists and want: assert o.gave_1==why.rating.iloc[0]

def test_a_blend_says_what_was_given_where_ratings_count(tmp_path):
    "Of a learner, of its folder, and of somebody folded in; of choices alone it says what was chosen"
    learn = fitted('fit_blend')
    saved = load_recommender(learn.save_recommender(tmp_path/'blend', ratings=True))
    user = frame().user[0]
    new = learn.fold_in(few(user))
    for rec,who,rated in ((learn,user,mine(user)),(saved,user,mine(user)),(new,'new user',few(user))):
        given = rated.astype(dict(title=str)).groupby('title').rating.agg(set)
        lists = rec.recommend(who, n=3, why=2).astype(dict(because_1=str, because_2=str))
        said = rec.recommend(who, n=3, why=2, sentences=True).why
        for o,text in zip(lists.itertuples(), said):
            assert o.gave_1 in given[o.because_1] and o.gave_2 in given[o.because_2]
            assert text==f'because you gave *{o.because_1}* {o.gave_1:g} and *{o.because_2}* {o.gave_2:g}'
    choices = dot_learner(RecDataLoaders.from_df(frame().assign(rating=1), last, seed=3))
    with choices.no_bar(),choices.no_logging(): choices.fit_blend()
    assert 'gave_1' not in choices.recommend(user, n=1, why=1)
    assert choices.recommend(user, n=1, why=1, sentences=True).why[0].startswith('because you chose *')

def test_a_blend_by_choices_alone_names_no_stars():
    "They move nothing in its lists, however high or low they are"
    learn = dot_learner(RecDataLoaders.from_df(sample_ratings(n_users=200, n_items=200, n_ratings=8000), valid_pct=0, seed=42))
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=0.)
    mine = learn.dls.train_ds.decode(*learn.dls.train_ds[:20]).drop(columns='user').drop_duplicates('title')
    for theirs in (mine,mine.assign(rating=6-mine.rating)):
        found = learn.fold_in(theirs).recommend(n=3, why=2)
        assert not [o for o in found if o.startswith('gave')]
        said = learn.fold_in(theirs).recommend(n=3, why=2, sentences=True).why
        for o,text in zip(found.astype(str).itertuples(), said): assert text==f'because you chose *{o.because_1}* and *{o.because_2}*'

def test_lists_in_words_for_networks_and_files(tmp_path):
    learn = fitted('net')
    user = frame().user[0]
    said = learn.recommend(user, n=1, why=2, sentences=True).why[0]
    assert said.startswith('because you gave *')
    path = fitted('fit_als').recommend(n=2, why=1, path=tmp_path/'lists.parquet')
    pd.testing.assert_frame_equal(pd.read_parquet(path), fitted('fit_als').recommend(n=2, why=1), check_categorical=False, check_dtype=False)

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','dot','net'])
def test_who_has_rated_nothing(name):
    "The average user and the item say it all"
    new = fitted(name).fold_in(mine(frame().user[0]).iloc[:0])
    title = new.recommend(n=1).title[0]
    why = new.explain('new user', title)
    assert 'rated' not in {*why.part} and 'average user' in {*why.part}
    assert abs(why.contribution.sum()-new.predict(title))<1e-4
    assert abs(why[why.part=='remainder'].contribution.sum())<1e-4
    assert new.recommend(n=1, why=2).because_1.isna().all()
    verb = 'chose' if name in ('fit_ials','fit_ease','fit_blend') else 'like'
    assert new.recommend(n=1, why=2, sentences=True).why[0]==f'because others {verb} it'

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','dot'])
def test_an_item_that_was_rated_is_no_reason_for_itself(name, monkeypatch):
    learn = fitted(name)
    for fewest in (1,2**40):  # by loops, and by PyTorch
        monkeypatch.setattr(row_loops, '_fewest', fewest)
        lists = learn.recommend(frame().user.unique()[:30], n=20, exclude_seen=False, why=2)
        assert len(lists.merge(frame()[['user','title']].drop_duplicates()))
        for k in (1,2): assert not (lists[f'because_{k}'].astype(object)==lists.title).any()

def test_a_pair_that_was_rated_stands_among_its_reasons():
    learn = fitted('fit_als')
    title,rating = mine(frame().user[0]).iloc[0]
    why = learn.explain(frame().user[0], title)
    assert why[why.title==title].rating.tolist()==[rating]

def test_biases_alone_have_one_taste():
    "How high somebody rates: each rating counts alike for every film"
    learn = fitted('fit_bias')
    a,b = (learn.explain(frame().user[0], o).query('part=="rated"').set_index('title').contribution for o in frame().title.unique()[:2])
    np.testing.assert_allclose(a, b[a.index], atol=1e-6)

def test_unknown_labels_and_wrong_arguments():
    learn = fitted('fit_als')
    user,title = frame().user[0],frame().title[0]
    with pytest.raises(KeyError, match='Nowhere'): learn.explain(user, 'Nowhere')
    with pytest.raises(KeyError, match='-5'): learn.explain(-5, title)
    with pytest.raises(TypeError, match='ranking'): learn.explain(user, title, ranking='yes')
    with pytest.raises(TypeError, match='why'): learn.recommend(user, why='yes')
    with pytest.raises(ValueError, match='why=2'): learn.recommend(user, sentences=True)
    with pytest.raises(ValueError, match='leave z and draw out'): fitted('fit_bayes').recommend(user, z=1., why=1)

def test_a_bundle_has_ratings_only_if_asked(tmp_path):
    learn = fitted('fit_blend')
    user,title = frame().user[0],frame().title[7]
    rec = load_recommender(learn.save_recommender(tmp_path/'without'))
    for ask in (lambda: rec.explain(user, title), lambda: rec.recommend(user, why=1), lambda: rec.save_recommender(tmp_path/'x', ratings=True)):
        with pytest.raises(ValueError, match='ratings'): ask()
    assert not (tmp_path/'x').exists()
    with pytest.raises(ValueError, match='seen=False'): learn.save_recommender(tmp_path/'x', seen=False, ratings=True)
    rec = load_recommender(learn.save_recommender(tmp_path/'with', ratings=True))
    for ranking in (False,True):
        a,b = (o.explain(user, title, ranking) for o in (learn,rec))
        pd.testing.assert_frame_equal(a, b, atol=1e-5)
    again = load_recommender(rec.save_recommender(tmp_path/'again', ratings=True))
    pd.testing.assert_frame_equal(again.recommend(n=2, why=2), learn.recommend(n=2, why=2), check_categorical=False)
    others = rec.without_users([user])
    left = frame()[frame().user!=user]
    a,b = (o.explain(left.user.iloc[0], title).sort_values('title', ignore_index=True) for o in (rec,others))
    pd.testing.assert_frame_equal(a, b, atol=5e-3)  # beside the mean of who is left
    with pytest.raises(KeyError, match='is not among'): others.explain(user, title)

@pytest.mark.parametrize('forged', [dict(items=torch.tensor([1,99], dtype=torch.int32)), dict(offsets=torch.tensor([0,0,2])),
    dict(y=torch.tensor([1.,float('nan')])), dict(y=torch.ones(3)), dict(w=torch.ones(2, dtype=torch.float64)),
    dict(times=torch.ones(3, dtype=torch.int32)), dict(times=torch.ones(2))])
def test_forged_ratings_are_refused(forged):
    good = dict(items=torch.tensor([1,2], dtype=torch.int32), offsets=torch.tensor([0,0,1,2]), y=torch.ones(2))
    ds = fitted('fit_als').ds
    assert len(read_rated({f'rated.{k}': v for k,v in good.items()}, ds, (3,4)))==2
    with pytest.raises(BundleError, match='does not fit the labels'): read_rated({f'rated.{k}': v for k,v in {**good, **forged}.items()}, ds, (3,4))

@pytest.mark.long
def test_rows_that_count_and_twins():
    "A row of weight 0 contributes nothing, and a choice that is there twice counts once"
    df = frame().assign(weight=np.random.default_rng(0).choice([0.,1.,4.], len(frame())))
    for fit in ('fit_als','fit_ials','fit_ease','fit_bayes'):
        learn = dot_learner(RecDataLoaders.from_df(df, last, seed=3, weight_name='weight'))
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**(dict(reg=.01) if fit=='fit_ials' else {}))
        user = df.user[0]
        own = df.iloc[:-n_valid].query('user==@user')
        title = df.title[7]
        why = learn.explain(user, title)
        assert abs(why.contribution.sum()-learn.predict(user, title))<1e-4
        of_none = why[why.title.isin(own[own.weight==0].title)]
        assert len(of_none) and not of_none.contribution.any()
        twice = learn.fold_in(pd.concat([own, own.head(2)]).drop(columns='user'))
        why = twice.explain('new user', title)
        if fit!='fit_bayes': assert abs(why[why.part=='remainder'].contribution.sum())<1e-4

def with_few(ratings): return ratings.user.value_counts().sort_index().sort_values(kind='stable').index[3]  # of whom features say something beside choices

def test_features_are_a_part():
    ratings,truth = sample_ratings(n_users=150, n_items=60, n_ratings=3000, with_truth=True)
    sides = truth.sides()
    for fit in ('fit_als','fit_ials'):
        learn = dot_learner(RecDataLoaders.from_df(ratings, seed=3, **sides), seed=0)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**(dict(n_factors=4, reg=.01) if fit=='fit_ials' else {}))
        user,title = with_few(ratings),ratings.title[1]
        why = learn.explain(user, title)
        assert 'features' in {*why.part} and abs(why.contribution.sum()-learn.predict(user, title))<1e-4
        about = sides['users'].loc[[user]].reset_index().assign(user=-1)
        for rated in (None,few_of(ratings, user)):
            new = learn.fold_in(rated, users=about)
            why = new.explain(-1, title)
            assert 'features' in {*why.part}
            assert abs(why[why.part=='remainder'].contribution.sum())<1e-4
            assert abs(why.contribution.sum()-new.predict(title))<1e-4
        assert new.recommend(n=2, why=1).because_1.notna().any()

@pytest.mark.long
def test_features_of_known_users_go_along_with_their_ratings(tmp_path):
    ratings,truth = sample_ratings(n_users=150, n_items=60, n_ratings=3000, with_truth=True)
    dls = RecDataLoaders.from_df(ratings, seed=3, **truth.sides())
    for k,(fit,kwargs) in enumerate(dict(fit_als={}, fit_ials=dict(n_factors=4, reg=.01), fit_bayes=dict(n_factors=3, n_sweep=12), fit_blend={}).items()):
        learn = dot_learner(dls, seed=0)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**kwargs)
        user,title = with_few(ratings),ratings.title[1]
        rec = load_recommender(learn.save_recommender(tmp_path/fit, ratings=True))
        again = load_recommender(rec.save_recommender(tmp_path/f'{fit} again', ratings=True))
        for ranking in (False,True)[:1+(fit=='fit_blend')]:
            want = learn.explain(user, title, ranking)
            assert 'features' in {*want.part}
            for o in (rec,again): pd.testing.assert_frame_equal(o.explain(user, title, ranking), want, atol=2e-4)
        assert rec.recommend(user, n=3, why=2).astype(str).equals(learn.recommend(user, n=3, why=2).astype(str))
        of_others = load_recommender(rec.save_recommender(tmp_path/'seen'))
        with pytest.raises(ValueError, match='ratings=True'): of_others.explain(user, title)
    rec.ratings.features = None,None  # as in a folder that was saved before these went along
    with pytest.warns(UserWarning, match='features say of users was not saved'): why = rec.explain(user, title)
    assert 'features' not in {*why.part} and abs(why.contribution.sum()-learn.predict(user, title))<1e-4

def timed(n_days=6):
    "Ratings in which each user has a mood a day"
    df = sample_ratings(n_users=100, n_items=50, n_ratings=3000).reset_index(drop=True)
    rng = np.random.default_rng(0)
    day = rng.integers(0, n_days, len(df))
    mood = rng.normal(0, 1, (df.user.max()+1,n_days))
    return df.assign(timestamp=1_600_000_000+86_400*day, rating=(df.rating+mood[df.user,day]).clip(.5, 5))

def test_time_is_a_part(tmp_path):
    df = timed()
    learn = dot_learner(RecDataLoaders.from_df(df, seed=3, time_name='timestamp'), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(3, 30, time='1D')
    rec = load_recommender(learn.save_recommender(tmp_path/'timed', ratings=True))
    rest,moods = [],[]
    for _,o in learn.dls.train_ds.decode(learn.dls.train_ds.x[:30], learn.dls.train_ds.y[:30]).iterrows():
        at = o.timestamp
        why = learn.explain(o.user, o.title, at=at)
        row = pd.DataFrame([dict(user=o.user, title=o.title, timestamp=at)])
        assert abs(why.contribution.sum()-learn.predict_df(row)[0])<1e-4 and abs(why.attrs['prediction']-learn.predict_df(row)[0])<1e-4
        plain = learn.explain(o.user, o.title)
        assert 'time' not in {*plain.part} and abs(plain.contribution.sum()-learn.predict(o.user, o.title))<1e-4
        moods.append(why[why.part=='time'].contribution.iloc[0])
        assert abs(moods[-1]-(learn.predict_df(row)[0]-learn.predict(o.user, o.title)))<1e-4 or 'range' in {*why.part}|{*plain.part}
        rest.append(abs(plain[plain.part=='remainder'].contribution.sum()))
        own = plain[plain.part=='rated'].iloc[0]
        assert abs(learn.what_if(o.user, o.title, own.title)-own['without'])<1e-4
        assert abs(learn.what_if(o.user, o.title, own.title, own.rating)-learn.predict(o.user, o.title))<1e-4
        pd.testing.assert_frame_equal(rec.explain(o.user, o.title, at=at), why, atol=2e-4)
    assert np.median(rest)<.1 and np.std(moods)>.3  # where the mood stayed in the ratings, .13 and more remained
    assert rec.explain(o.user, o.title, at=str(at.date())).equals(rec.explain(o.user, o.title, at=int(at.normalize().timestamp())))
    never = learn.explain(o.user, o.title, at='2024-01-01')
    assert never[never.part=='time'].contribution.tolist()==[0]
    new = learn.fold_in(df[df.user==o.user].drop(columns='user'))
    assert new.explain(o.title, at=at).query('part=="time"').contribution.tolist()==[0]  # nobody knows the days of somebody new

def test_times_that_are_none():
    learn = fitted('fit_als')
    user,title = frame().user[0],frame().title[0]
    with pytest.raises(ValueError, match=r"knows no times: fit it with fit_bayes\(time='1D'\)"): learn.explain(user, title, at='2024-01-01')

def few_of(ratings, user): return ratings.query('user==@user').head(8)[['title','rating']].assign(user=-1)

def test_reasons_follow_the_weights():
    "What is kept of a model is not asked for once its weights have changed"
    learn = dot_learner(RecDataLoaders.from_df(frame(), last, seed=3), seed=0)
    user,title = frame().user[0],frame().title[7]
    for fit in ('fit_als','fit_bias','fit_als'):
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        why = learn.explain(user, title)
        with torch.no_grad(): learn.model.i_bias.weight += .1
        moved = learn.explain(user, title)
        for o in (why,moved): assert abs(o[o.part=='remainder'].contribution.sum())<1
        assert moved.contribution.sum()!=why.contribution.sum()

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','net'])
def test_what_decides_the_first_place(name):
    learn = fitted(name)
    for user in frame().user.unique()[:1 if name=='net' else 3]:
        rated = few(user)
        new = learn.fold_in(rated)
        found = new.deciding('new user')
        assert found.attrs['first']==new.recommend(n=1).title[0]
        want = {}
        for title in rated.title:
            less = learn.fold_in(rated[rated.title!=title])
            first = less.recommend(n=1, exclude_seen=rated.assign(user='new user')).title[0]
            if first!=found.attrs['first']: want[title] = first
        assert dict(zip(found.title, found['first']))==want

@pytest.mark.parametrize('name', ['fit_als','dot','fit_ials','fit_ease','fit_bayes','net'])
def test_what_if_is_what_fold_in_says(name):
    learn = fitted(name)
    user,title = frame().user[0],frame().title[7]
    rated,other = few(user),mine(user).title.iloc[20]
    new = learn.fold_in(rated)
    changed = rated.assign(rating=[1.,*rated.rating[1:]])
    asked = {(rated.title.iloc[0],1.): changed, (rated.title.iloc[0],None): rated.iloc[1:],
        (other,4.): pd.concat([rated, pd.DataFrame(dict(title=[other], rating=[4.]))]), (other,None): rated}
    for (of,rating),df in asked.items(): assert abs(new.what_if('new user', title, of, rating)-learn.fold_in(df).predict(title))<1e-3
    with pytest.raises(KeyError, match='Nowhere'): new.what_if('new user', title, 'Nowhere')
    if name=='dot':
        with pytest.raises(ValueError, match='outside the range'): new.what_if('new user', title, other, 11)

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','net'])
def test_what_stands_behind_similar(name):
    learn = fitted(name)
    title = frame().title[0]
    alike = learn.similar(title, 5, why=True)
    pd.testing.assert_frame_equal(alike[['title','similarity']], learn.similar(title, 5))
    users = frame().iloc[:-n_valid].groupby('title').user.agg(set)
    for _,o in alike.iterrows():
        both = len(users[title]&users[o.title])
        assert o.both==both and abs(o.choice-both/(len(users[title])*len(users[o.title]))**.5)<1e-6
    if name!='fit_ease': assert (alike.of_axis<=1+1e-5).all() and (alike.axis>=1).all()
    with pytest.raises(TypeError, match='why'): learn.similar(title, why=2)

@pytest.mark.parametrize('names', [dict(user='why', title='because_1'), dict(user='gave_1', title='because_2'), dict(user='u', title='gave_2')])
def test_columns_of_reasons_do_not_take_the_place_of_labels(names):
    df = frame().rename(columns=names)
    dls = RecDataLoaders.from_df(df, last, user_name=names['user'], item_name=names['title'], seed=3)
    learn,plain = dot_learner(dls),fitted('by_reg')
    with learn.no_bar(),learn.no_logging(): learn.fit_als(5, reg=.1)
    user = frame().user[0]
    for kwargs in (dict(why=2),dict(why=2, sentences=True)):
        found,want = (o.recommend(user, n=3, **kwargs) for o in (learn,plain))
        assert found.shape==want.shape
        for k in (0,2): assert [*found.iloc[:,k]]==[*want.iloc[:,k]]

@pytest.mark.parametrize('name', ['fit_als','fit_ease'])
def test_who_rated_something_twice_is_one_who_rated_it(name):
    df = pd.concat([frame().head(600), frame()]).reset_index(drop=True)
    with pytest.warns(UserWarning, match='repeat a pair'): learn = dot_learner(RecDataLoaders.from_df(df, last, seed=3))
    with learn.no_bar(),learn.no_logging(): getattr(learn, name)(**(dict(reg=.1) if name=='fit_als' else {}))
    title = frame().title[0]
    users = df.iloc[:-n_valid].groupby('title').user.agg(set)
    for _,o in learn.similar(title, 8, why=True).iterrows():
        both = len(users[title]&users[o.title])
        assert o.both==both and abs(o.choice-both/(len(users[title])*len(users[o.title]))**.5)<1e-6

def test_of_a_choice_that_is_there_with_two_weights_the_larger_counts_for_ease():
    weights = np.random.default_rng(0).choice([0.,1.,4.], len(frame()))
    learn = dot_learner(RecDataLoaders.from_df(frame().assign(weight=weights), last, seed=3, weight_name='weight'))
    with learn.no_bar(),learn.no_logging(): learn.fit_ease()
    rated = few(frame().user[0], 4).assign(weight=[1.,1,4,0])
    rated = pd.concat([rated, rated.assign(rating=10., weight=[4.,0,4,0])], ignore_index=True)
    for title in frame().title.unique()[:6]:
        new = learn.fold_in(rated)
        why = new.explain('new user', title)
        assert abs(why.contribution.sum()-new.predict(title))<1e-5
        assert abs(why[why.part=='remainder'].contribution.sum())<1e-5
        for of,rows in rated.groupby('title').groups.items():
            want = learn.fold_in(rated.drop(rows)).predict(title)
            np.testing.assert_allclose(why[why.title==of]['without'], [want], atol=1e-5)

def test_explaining_keeps_no_model_alive():
    ratings,truth = sample_ratings(n_users=60, n_items=30, n_ratings=900, with_truth=True)
    for sides in ({},truth.sides()):
        learn = dot_learner(RecDataLoaders.from_df(ratings, seed=3, **sides))
        with learn.no_bar(),learn.no_logging(): learn.fit_als(3, reg=.1)
        learn.explain(ratings.user[0], ratings.title[0])
        model = weakref.ref(learn.model)
        del learn
        gc.collect()
        assert model() is None

def test_nothing_left_to_list():
    "Who has rated everything has no first place, and an empty picture"
    learn = fitted('fit_als')
    new = learn.fold_in(pd.DataFrame(dict(title=frame().title.unique(), rating=3.)))
    assert new.recommend(n=1).empty
    found = new.deciding('new user')
    assert found.empty and [*found]==[*learn.deciding(frame().user[0])] and found.attrs['first'] is None
    assert plot_compare(compare(new, new, 'new user')) is not None

@pytest.mark.parametrize('title', ['rank_a','rises','value','place'])
def test_pictures_and_comparisons_of_any_column(title):
    learn = dot_learner(RecDataLoaders.from_df(frame().rename(columns=dict(title=title)), last, item_name=title, seed=3))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(5, reg=.1)
    user,want = frame().user[0],fitted('by_reg')
    found = compare(learn, learn, user, n=4)
    assert found.to_numpy().tolist()==compare(want, want, user, n=4).to_numpy().tolist()
    assert found['rank_a'].tolist()==[1,2,3,4]
    a,b = (plot_reasons(o, user) for o in (learn,want))
    assert len(a.lines)==len(b.lines)>0

def test_the_only_new_user_need_not_be_named():
    learn = fitted('fit_als')
    new,title = learn.fold_in(few(frame().user[0])),frame().title[7]
    assert new.explain(title).equals(new.explain('new user', title)) and new.deciding().equals(new.deciding('new user'))
    assert not {'both','choice'}&{*new.similar(title, why=True)}  # nobody else's ratings are known there
    both = learn.fold_in(mine(frame().user[0]).head(3).assign(user=['Ann','Ann','Bob']))
    with pytest.raises(ValueError, match=r"name one, as in explain\('Ann', "): both.explain(title)
    with pytest.raises(ValueError, match=r"name one, as in deciding\('Ann'\)"): both.deciding()
    with pytest.raises(TypeError, match='as in why=2'): learn.recommend(frame().user[0], why=True)

def test_what_is_drawn_is_what_explain_gave():
    learn = fitted('fit_als')
    for o in (learn.recommend(frame().user[0], n=3, why=1),None):
        with pytest.raises(TypeError, match='what explain gave'): plot_explain(o)

def test_what_somebody_liked_less_than_usual_is_no_reason_on_a_list():
    "It stands in explain"
    learn = fitted('fit_als')
    lists = learn.recommend(n=5, why=3)
    usual = frame().iloc[:-n_valid].groupby('user').rating.mean()[lists.user].to_numpy()
    for k in (1,2,3): assert not (lists[f'gave_{k}']<usual-1e-3).any()
    same = learn.fold_in(few(frame().user[0]).assign(rating=3.3))  # whose mean is rounded
    assert same.recommend(n=3, why=1).because_1.notna().any()

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_bayes','dot'])
def test_what_is_rated_twice_is_one_reason(name):
    learn = fitted(name)
    rated = few(frame().user[0])
    twice = pd.concat([rated, rated], ignore_index=True)
    lists = learn.fold_in(twice).recommend(n=10, why=2)
    assert lists.because_2.notna().any() and not (lists.because_1.astype(str)==lists.because_2.astype(str)).any()

@pytest.mark.skipif(not can_compile(), reason='numba is not there')
@pytest.mark.parametrize('name', ['fit_bias','fit_als','by_reg','fit_ials','by_power','fit_bayes','fit_blend','dot'])
@pytest.mark.parametrize('weighed', [False,True])
def test_loops_find_what_pytorch_finds(name, weighed, monkeypatch):
    make,fit,args,kwargs = fits[name]
    df = frame().assign(weight=np.random.default_rng(0).choice([0.,1.,4.], len(frame()))) if weighed else frame()
    learn = make(RecDataLoaders.from_df(df, last, seed=3, device='cpu', **(dict(weight_name='weight') if weighed else {})))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*args, **kwargs)
    new = learn.fold_in(pd.concat([mine(o).assign(user=f'new {o}', weight=1.) for o in frame().user.unique()[:30]]).sample(frac=1, random_state=0))
    found = []
    for fewest in (1,10**9):
        monkeypatch.setattr(row_loops, '_fewest', fewest)
        found.append([o.recommend(n=5, why=3) for o in (learn,new)])
        found[-1] += [o.explain(u, frame().title[7]).sort_values('title') for o,u in ((learn,frame().user[0]),(new,'new '+str(frame().user[0])))]
    for a,b in zip(*found): pd.testing.assert_frame_equal(a.reset_index(drop=True), b.reset_index(drop=True), atol=1e-4, check_categorical=False)

@pytest.mark.skipif(not can_compile(), reason='numba is not there')
def test_loops_refuse_a_model_that_is_not_finite(monkeypatch):
    monkeypatch.setattr(row_loops, '_fewest', 1)
    learn = dot_learner(RecDataLoaders.from_df(frame(), last, seed=3, device='cpu'))
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(8, reg=.01)
    with torch.no_grad(): learn.model.i_weight.weight[3] = torch.nan
    with pytest.raises(ValueError, match='finite'): learn.model.reasons(torch.tensor([0,0]), torch.tensor([3,4]), torch.ones(2), 1, None).contributions(torch.tensor([[5]]))

def test_alike_by_who_rated_both():
    title = frame().title[0]
    users = frame().iloc[:-n_valid].groupby('title').user.agg(set)
    for name in ('fit_als','fit_ease'):
        found = fitted(name).similar(title, 5, by='choices')
        want = {o: len(users[title]&users[o])/(len(users[title])*len(users[o]))**.5 for o in users.index if o!=title}
        np.testing.assert_allclose(found.similarity, sorted(want.values(), reverse=True)[:5], atol=1e-6)
        assert all(abs(want[o.title]-o.similarity)<1e-6 for _,o in found.iterrows())
    with pytest.raises(ValueError, match="by='chosen'"): fitted('fit_als').similar(title, by='chosen')
    with pytest.raises(ValueError, match="by='choices' needs"): fitted('fit_als').fold_in(few(frame().user[0])).similar(title, by='choices')

def test_tastes_of_an_item():
    ratings,truth = sample_ratings(n_users=300, n_items=100, n_ratings=9000, with_truth=True)
    for kwargs,sides in (({},truth.sides()),({},dict())):
        learn = dot_learner(RecDataLoaders.from_df(ratings, seed=3, **sides), seed=0)
        with learn.no_bar(),learn.no_logging(): learn.fit_als(4, **kwargs)
        found = tastes(learn, ratings.title[0], 3)
        assert found.axis[0]==0 and found.divides.is_monotonic_decreasing and ratings.title[0] not in {*found.beside}
        assert ({'of_items','of_users'}<={*found})==bool(sides)
        assert len(plot_tastes(found).patches)==3
    model = learn.model
    q = model.item_factors-model.item_factors.mean(0)
    code = int(learn.dls.classes['title'].lookup([ratings.title[0]])[0])
    assert abs(found.divides[0]-float((model.user_factors@q[code-1]).std()))<1e-5
    for name in ('fit_ease','fit_bias'):
        with pytest.raises(ValueError, match='tastes need a model with factors'): tastes(fitted(name), frame().title[0])
    with pytest.raises(KeyError, match='Nowhere'): tastes(learn, 'Nowhere')

def test_of_newcomers_no_features_are_missing(tmp_path):
    ratings,truth = sample_ratings(n_users=80, n_items=60, n_ratings=2400, with_truth=True)
    learn = dot_learner(RecDataLoaders.from_df(ratings, last, **truth.sides(), seed=3, device='cpu'))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(5)
    rated = pd.DataFrame(dict(title=ratings.title.unique()[:4], rating=[5,4,2,1.]))
    for rec in (learn,load_recommender(learn.save_recommender(tmp_path/'films', ratings=True))):
        assert (rec.fold_in(rated).explain('new user', ratings.title.iloc[-1]).part=='rated').sum()==4  # warnings are errors here

def test_a_blend_gives_nothing_disliked_for_a_reason():
    titles = frame().title.unique()[:4]
    new = fitted('fit_blend').fold_in(pd.DataFrame(dict(title=titles, rating=[5,5,1,1.])))
    lists = new.recommend(n=10, why=3)
    assert not lists.filter(like='because').isin(titles[2:]).any(axis=None) and lists.because_1.notna().any()

of_features = dict(fit_bias=(dot_learner,'fit_bias',{}), fit_als=(dot_learner,'fit_als',{}), by_reg=(dot_learner,'fit_als',dict(reg=.1)),
    fit_ials=(dot_learner,'fit_ials',dict(n_factors=8, reg=.01)), popularity=(dot_learner,'fit_ials',dict(n_factors=0)), fit_ease=(dot_learner,'fit_ease',{}),
    fit_bayes=(dot_learner,'fit_bayes',dict(n_factors=4, n_sweep=20)), fit_blend=(dot_learner,'fit_blend',dict(weight=.3)),
    by_ease=(dot_learner,'fit_blend',dict(weight=.3, choices='fit_ease')), dot=(dot_learner,'fit_one_cycle',dict(n_epoch=3)), net=(nn_learner,'fit_one_cycle',dict(n_epoch=8)))

@cache
def told_of():
    "Ratings of all but three films, and features of all, the last of which is told of later"
    ratings,truth = sample_ratings(n_users=200, n_items=90, n_ratings=6000, with_truth=True)
    items = truth.sides()['items'].assign(year=lambda o: 1950+np.arange(len(o))%70)
    titles = [*ratings.title.unique()[:3]]
    genre,others = ratings.title.map(items.genre),~ratings.title.isin(titles)
    ratings = ratings.assign(rating=(ratings.rating+(genre=='space')-(genre=='dread')).clip(.5, 5))  # so that biases follow features
    return ratings[others & ((genre!='love') | (ratings.index%4==0))].reset_index(drop=True),items,titles  # and how often something is chosen

@cache
def fitted_to_features(name):
    make,fit,kwargs = of_features[name]
    ratings,items,titles = told_of()
    learn = make(RecDataLoaders.from_df(ratings, last, seed=3, device='cpu', items=items.drop(titles[2])), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**kwargs)
    return learn

def some_of(user, n=None): return told_of()[0].iloc[:-n_valid].query('user==@user')[['title','rating']].head(n)

@pytest.mark.parametrize('name', of_features)
def test_features_and_the_rest_add_up(name):
    learn = fitted_to_features(name)
    ratings,items,titles = told_of()
    user = ratings.user.value_counts().index[10]
    later,new = learn.extend(items=items.loc[titles[2:]]),learn.fold_in(some_of(user))
    for rec,title,who in ((learn,titles[0],user),(later,titles[2],user),(new,titles[1],'new user')):
        for ranking in (False,True)[:1+learn.model.lists_by.is_preference]:
            why = rec.explain_features(who, title, ranking)
            assert [*why]==['part','feature','contribution','without'] and why.part.tolist()==['rest',*3*['feature']]
            assert {*why.feature[1:]}=={f'genre={items.genre[title]}',f'decade={items.decade[title]}','year'}
            assert abs(why.contribution.sum()-why.attrs['prediction'])<1e-9
            assert why.contribution[1:].abs().is_monotonic_decreasing
            np.testing.assert_allclose(why.attrs['prediction']-why['without'][1:], why.contribution[1:], atol=1e-9)
            if not ranking: assert abs(why.attrs['prediction']-rec.predict(who, title))<1e-4
            ranker = learn.model.lists_by if ranking else learn.model
            assert why.attrs['unit']==('rating' if not ranker.is_preference else 'score' if 'blend' in name or name=='by_ease' else 'preference')
    assert why.contribution[1:].abs().max()>1e-3

@pytest.mark.parametrize('name', of_features)
def test_without_a_feature_is_what_extend_says(name):
    "Of an item that has the average item's year"
    learn = fitted_to_features(name)
    ratings,items,titles = told_of()
    user,known = ratings.user.value_counts().index[10],items.drop(titles[2])
    told = items.loc[titles[2:]]
    average = told.assign(year=known.year.mean()).rename(index={titles[2]: 'as the average'})
    later = learn.extend(items=pd.concat([told, average]))
    why = later.explain_features(user, titles[2]).set_index('feature')
    rest = why.attrs['prediction']-later.predict(user, titles[2])
    assert abs(rest)<1e-4
    assert abs(why['without']['year']-later.predict(user, 'as the average'))<2e-3*max(1, abs(why.contribution['year']))

def by_hand(model, known, p, code):
    "Of a product: how far each feature lies from the mean, times what the map has for it, times the user's factors `p`"
    rows = model.row_maps[1]['rows']
    beta = rows[...,2:,:]-rows[...,1:2,:]
    x = known.x.to_dense()
    told = x[(x!=0).any(1)]
    return (x[code]-told.mean(0))*(beta[...,:-1]@p[...,None]+beta[...,-1:])[...,0]

@pytest.mark.parametrize('name', ['fit_als','by_reg','fit_ials','fit_bayes'])
def test_features_of_a_product_by_hand(name):
    learn = fitted_to_features(name)
    ratings,items,titles = told_of()
    user = ratings.user.value_counts().index[10]
    for rec,who in ((learn,user),(learn.fold_in(some_of(user)),'new user')):
        u,code = (int(v.lookup([o])[0]) for v,o in zip(rec.ds.classes.values(), (who,titles[0])))
        model,known = model_and_noise(learn, side=1)[0],learn.ds.features[1]
        p = rec.model.u_weight.weight[u].detach()
        if name=='fit_bayes': p = p.view(rec.model.n_draws, -1)*rec.model.n_draws
        want = by_hand(model, known, p, code)
        want = want.mean(0) if name=='fit_bayes' else want
        why = rec.explain_features(who, titles[0])
        for _,o in why[1:].iterrows(): assert abs(o.contribution-float(want[known.names.index(o.feature)]))<1e-4

@pytest.mark.parametrize('name', ['fit_als','fit_ials','fit_ease','fit_bayes','fit_blend','dot','net'])
def test_saved_features_speak_with_the_ratings(name, tmp_path):
    learn = fitted_to_features(name)
    ratings,items,titles = told_of()
    user = ratings.user[0]
    rec = load_recommender(learn.save_recommender(tmp_path/'with', ratings=True))
    for who,a,b in ((user,learn,rec),('new user',learn.fold_in(some_of(user)),rec.fold_in(some_of(user)))):
        for ranking in (False,True)[:1+(name=='fit_blend')]:
            frames = [o.explain_features(who, titles[0], ranking) for o in (a,b)]
            pd.testing.assert_frame_equal(*frames, atol=2e-4)
            assert frames[0].attrs.keys()==frames[1].attrs.keys()
    without = load_recommender(learn.save_recommender(tmp_path/'without'))
    for o,title in ((without,titles[0]),(without.extend(items=items.loc[titles[2:]]),titles[2])):
        with pytest.raises(ValueError, match=r'save_recommender\(path, ratings=True\)'): o.explain_features(user, title)
    with pytest.raises(ValueError, match=r'save_recommender\(path, ratings=True\)'): without.fold_in(some_of(user)).explain_features('new user', titles[0])

def test_what_features_cannot_explain():
    learn = fitted_to_features('fit_als')
    ratings,items,titles = told_of()
    user,rated = ratings.user[0],ratings.title[0]
    for o,who in ((learn,user),(learn.fold_in(some_of(user)),'new user')):
        with pytest.raises(ValueError, match='was rated in training.*ask explain') as e: o.explain_features(who, rated)
        assert repr(rated) in str(e.value)
    with pytest.raises(KeyError, match='Nowhere'): learn.explain_features(user, 'Nowhere')
    with pytest.raises(TypeError, match='ranking'): learn.explain_features(user, titles[0], ranking='yes')
    with pytest.raises(ValueError, match='training had no features of items'): fitted('fit_als').explain_features(frame().user[0], frame().title[0])
    dls = RecDataLoaders.from_df(ratings, last, items=items[['genre']].reindex([*items.index,'Untold']).rename_axis('title'))
    of_untold,of_nothing = (dot_learner(dls) for _ in range(2))
    with of_untold.no_bar(),of_untold.no_logging(): of_untold.fit_als(); of_nothing.fit_als(features=False)
    with pytest.raises(ValueError, match="no feature of 'Untold' is known"): of_untold.explain_features(user, 'Untold')
    with pytest.raises(ValueError, match='features of items say nothing to this model'): of_nothing.explain_features(user, titles[0])
    by_softmax = learner(dls, loss_func=SampledSoftmaxLoss())
    with by_softmax.no_bar(),by_softmax.no_logging(): by_softmax.fit_one_cycle(1)
    with pytest.raises(ValueError, match='loss of choices does not follow'): by_softmax.explain_features(user, titles[0])

def test_the_genre_that_somebody_likes_speaks_for_a_film_of_it():
    ratings,truth = sample_ratings(with_truth=True)
    titles = [*ratings.title.unique()[:20]]
    learn = dot_learner(RecDataLoaders.from_df(ratings[~ratings.title.isin(titles)], seed=42, items=truth.sides()['items']), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    users = ratings.user.value_counts().index[:100]
    genre = truth.items.set_index('title').genre
    rated = ratings[~ratings.title.isin(titles)].assign(genre=lambda o: o.title.map(genre))
    said,liked = [],[]
    for user in users:
        own = rated[rated.user==user]
        for title in titles[:3]:
            of_genre = own[own.genre==genre[title]].rating
            if len(of_genre)<5 or len(of_genre)==len(own): continue
            said.append(learn.explain_features(user, title).set_index('feature').contribution[f'genre={genre[title]}'])
            liked.append(of_genre.mean()-own.rating.mean())
    assert len(said)>50 and np.corrcoef(said, liked)[0,1]>.5

def test_features_are_drawn():
    learn = fitted_to_features('fit_als')
    ratings,_,titles = told_of()
    why = learn.explain_features(ratings.user[0], titles[0])
    names = [o.get_text() for o in plot_explain(why, 2).get_yticklabels()]
    assert names==['rest',*why.feature[1:3],'1 other features',f'prediction, {why.attrs["prediction"]:.2f}']

@cache
def of_a_log(fit):
    "Each third choice is there twice or three times, in any order"
    df = frame()[['user','title']].assign(rating=1, often=1.)
    log = pd.concat([df, df.iloc[::3].assign(often=.5), df.iloc[::6].assign(often=3)])
    log = log.sample(frac=1, random_state=1).reset_index(drop=True)
    learn = dot_learner(RecDataLoaders.from_df(log, valid_pct=0, weight_name='often', device='cpu'), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    return log,learn

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease','fit_blend'])
def test_a_repeated_choice_is_one_reason(fit):
    "and without it all of its rows are gone"
    log,learn = of_a_log(fit)
    user,title = frame().user[0],frame().title[7]
    own = log[log.user==user]
    assert own.title.duplicated().any()
    why = learn.explain(user, title)
    rated = why[why.part=='rated']
    assert sorted(rated.title)==sorted(own.title.unique())
    assert abs(why.contribution.sum()-learn.predict(user, title))<1e-4
    assert not set(why.part)&{'mean','item'} or fit=='fit_blend'
    for o in rated.itertuples(): assert abs(learn.what_if(user, title, o.title)-o.without)<1e-4
    for o in rated.title[:6]: assert abs(learn.what_if(user, title, o, 1)-learn.predict(user, title))<1e-5  # which it was already
    new = learn.fold_in(own.drop(columns='user'))
    repeated = own.title[own.title.duplicated()].iloc[0]
    rest = learn.fold_in(own[own.title!=repeated].drop(columns='user'))
    without = new.explain('new user', title).set_index(learn.dls.item_name).without[repeated]
    assert abs(without-rest.predict(title))<1e-4

@pytest.mark.parametrize('fit', ['fit_ials','fit_ease'])
def test_what_decides_is_named_once_if_it_was_chosen_often(fit):
    log,learn = of_a_log(fit)
    found = pd.concat([learn.deciding(o).assign(user=o) for o in frame().user.unique()[:20]])
    assert len(found) and not found.duplicated(['user','title']).any()

# ------------------------------------------------------------------ frames that were cut, and pictures
def prediction_of(ax): return ax.lines[-1].get_xdata()[0]

def test_a_waterfall_of_a_cut_frame_ends_at_the_prediction():
    import matplotlib.pyplot as plt
    learn = fitted('fit_als')
    why = learn.explain(frame().user[0], frame().title[7])
    for cut in (why, why.head(5), why[why.part=='rated'], why.head(1), why.head(0), why.sort_values('contribution'), why.tail(3)):
        ax = plot_explain(cut)
        names = [o.get_text() for o in ax.get_yticklabels()]
        assert abs(prediction_of(ax)-why.attrs['prediction'])<2e-3
        assert ('lines left out' in names)==(len(cut)<len(why))
        plt.close('all')

@pytest.mark.parametrize('label', ['$$', '$5 and $10 a day', 'Two\nlines'])
def test_pictures_of_reasons_write_any_label(label):
    import matplotlib.pyplot as plt
    with plt.style.context('dark_background'):
        df = frame().assign(title=frame().title.astype(str).replace(frame().title[0], label), user=frame().user.astype(str).replace(str(frame().user[0]), label))
        df = df.rename(columns=dict(rating='$r$')).iloc[:1500]
        learn = dot_learner(RecDataLoaders.from_df(df, seed=3, rating_name='$r$'), seed=0)
        with learn.no_bar(),learn.no_logging(): learn.fit_als(3)
        reasons = plot_reasons(learn, label)
        assert {o.get_color() for o in reasons.texts}=={'white'}
        for ax in (plot_explain(learn.explain(label, label)), reasons, plot_compare(compare(learn, learn, label), (label,label)), plot_tastes(tastes(learn, label))): ax.figure.canvas.draw()
        plt.close('all')

# ------------------------------------------------------------------ rows of weight 0, and what nothing is known of
@cache
def some_weigh_nothing(fit='fit_als', rating=1.):
    df = frame().assign(weight=np.random.default_rng(1).choice([0.,1.,4.], len(frame())))
    df.loc[df.title==frame().title[3], 'weight'] = 0
    learn = dot_learner(RecDataLoaders.from_df(df, last, seed=3, weight_name='weight'), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    return learn,df.iloc[:-n_valid][df.weight.iloc[:-n_valid]>0]

def test_who_rated_both_is_counted_in_rows_that_count():
    learn,df = some_weigh_nothing()
    title = frame().title[0]
    users = df.groupby('title').user.agg(set)
    for by in ('choices','factors'):
        for o in learn.similar(title, 10, why=True, by=by).itertuples():
            assert o.both==len(users[title]&users[o.title])
            assert abs(o.choice-o.both/(len(users[title])*len(users[o.title]))**.5)<1e-6

@pytest.mark.parametrize('fit', ['fit_als','fit_ials','fit_ease'])
def test_there_is_nothing_to_compare_an_unrated_item_by(fit):
    learn,_ = some_weigh_nothing(fit)
    for by in ('choices','factors'):
        with pytest.raises(ValueError, match='there is nothing to compare .* by: .* nobody has rated it'): learn.similar(frame().title[3], by=by)
        assert frame().title[3] not in {*learn.similar(frame().title[0], 100, by=by).title}

def test_nor_a_user_who_has_rated_nothing():
    ratings,truth = sample_ratings(n_users=80, n_items=60, n_ratings=2400, with_truth=True)
    learn = dot_learner(RecDataLoaders.from_df(ratings, seed=3), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    assert len(learn.similar_users(ratings.user[0], 3))==3
    with torch.no_grad(): learn.model.u_weight.weight[1] = 0
    with pytest.raises(ValueError, match='there is nothing to compare .* by: .* they have rated nothing'): learn.similar_users(learn.dls.classes['user'].labels[0])

def test_what_weighs_nothing_moves_no_mean():
    "A user's reasons are ratings no lower than their mean, in which each counts as it weighs"
    learn,df = some_weigh_nothing()
    lists = learn.recommend(n=5, why=3)
    mean = df.groupby('user').apply(lambda o: np.average(o.rating, weights=o.weight), include_groups=False)
    for k in (1,2,3):
        there = lists[lists[f'because_{k}'].notna()]
        assert len(there) and (there[f'gave_{k}']>=mean.loc[there.user].to_numpy()-1e-3).all()
        gone = set(zip(frame().user, frame().title))-set(zip(df.user, df.title))
        assert not gone & set(zip(there.user, there[f'because_{k}'].astype(str)))

def test_there_is_an_end_to_reasons():
    learn = fitted('fit_als')
    user,most = frame().user[0],max(100, int(frame().iloc[:-n_valid].user.value_counts().max()))
    with pytest.raises(ValueError, match=f'why=1000000000 must be at most {most}: nobody has rated more'): learn.recommend(user, n=2, why=10**9)
    assert f'because_{most}' in learn.recommend(user, n=2, why=most)

# ------------------------------------------------------------------ features, tastes, times
def test_features_of_choices_are_how_far_somebody_is_from_the_average_user():
    ratings,truth = sample_ratings(n_users=150, n_items=60, n_ratings=3000, with_truth=True)
    sides = truth.sides()
    for fit,ranking in (('fit_ials',False),('fit_blend',True)):
        learn = dot_learner(RecDataLoaders.from_df(ratings, seed=3, **sides), seed=0)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**(dict(n_factors=4, reg=.01) if fit=='fit_ials' else {}))
        new = learn.fold_in(users=sides['users'].iloc[[2]].reset_index(names='user').assign(user=-1))
        for title in ratings.title.unique()[:3]:
            why = new.explain(-1, title, ranking=ranking).groupby('part').contribution.sum()
            if fit=='fit_ials':
                code = int(learn.dls.classes['title'].lookup([title])[0])
                want = float(learn.model.user_factors.mean(0)@learn.model.item_factors[code-1])
                assert abs(why['average user']-want)<1e-4
                assert abs(why['average user']+why['features']-new.explain(-1, title).attrs['prediction'])<1e-4
            assert abs(why['features'])<abs(why['average user'])

@pytest.mark.parametrize('name', ['net','fit_ease','fit_bias'])
def test_only_products_have_tastes(name):
    with pytest.raises(ValueError, match='tastes need a model with factors'): tastes(fitted(name), frame().title[0])

def test_axes_of_taste_have_a_sign_and_none_is_of_rounding():
    df = sample_ratings(n_users=40, n_items=30, n_ratings=700, seed=0)
    learn = dot_learner(RecDataLoaders.from_df(df, seed=1), n_factors=4, seed=0)
    learn.remove_cbs([o for o in learn.cbs if type(o).__name__=='ProgressCallback'])
    with learn.no_logging(): learn.fit_als(4, 3, reg=.1)
    with torch.no_grad(): learn.model.i_weight.weight[:,3] = 0.  # three axes are left
    found = tastes(learn, df.title[0], 9)
    assert sorted(found.axis)==[0,1,2,3]
    with torch.no_grad():
        for o in (learn.model.u_weight,learn.model.i_weight): o.weight *= torch.tensor([-1.,1,-1,1])  # the same model
    pd.testing.assert_frame_equal(found, tastes(learn, df.title[0], 9), atol=1e-4)

def test_tastes_need_others_to_compare_with():
    from fastai.collab import collab_learner
    for col in ('title','user'):
        df = frame()[frame()[col]==frame()[col].mode()[0]]
        with warnings.catch_warnings(action='ignore'): learn = dot_learner(RecDataLoaders.from_df(df, seed=1, bs=4), n_factors=2)
        with torch.no_grad(): learn.model.i_weight.weight.normal_()
        with pytest.raises(ValueError, match='too few'): tastes(learn, df.title.iloc[0])
    stock = collab_learner(fitted('net').dls, use_nn=True)
    for f in (lambda: tastes(stock, frame().title[0]), lambda: plot_reasons(stock, 1), lambda: compare(fitted('net'), stock, frame().user[0])):
        with pytest.raises(TypeError, match='RecLearner.from_learner'): f()

def test_reasons_with_times_say_what_they_leave_as_it_is():
    learn = dot_learner(RecDataLoaders.from_df(timed(), seed=3, time_name='timestamp'), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(3, 12, time='1D')
    user,title = timed().user[0],timed().title[7]
    assert learn.explain(user, title).attrs['how']=='closed form, with the effects of times as they are'
    assert fitted('fit_bayes').explain(frame().user[0], frame().title[7]).attrs['how']=='closed form'

@pytest.mark.parametrize('how', ['fit_ease','fit_blend'])
def test_popularity_has_no_reasons_however_many_ratings(how):
    "A model without factors has no equations that a loop could solve"
    rng = np.random.default_rng(0)
    df = pd.DataFrame([(u,i,1.) for u in range(300) for i in rng.choice(700, 80, replace=False)], columns=['user','item','rating'])
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging():
        getattr(learn, how)()
        new = df.assign(user=df.user+1000)
        for o in (learn,learn.fold_in(new),learn.extend(new)): assert o.recommend(n=3, why=1).because_1.isna().all()

def test_without_tastes_nothing_is_a_reason_for_one_item_more_than_for_another():
    for name in ('fit_bias','popularity'):
        lists = fitted(name).recommend(n=3, why=2)
        assert lists.because_1.isna().all() and lists.because_2.isna().all()
    popular = fitted('popularity')
    assert set(popular.recommend(frame().user[0], why=1, sentences=True).why)=={'because others chose it'}
    assert set(fitted('fit_bias').recommend(frame().user[0], why=1, sentences=True).why)=={'because others like it'}

def test_what_many_choose_is_not_said_to_be_liked():
    "Where a blend has no reasons of one's own, its lists are by what is chosen, however low that is rated"
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=rng.integers(0, 400, 6000), item=rng.zipf(1.5, 6000)%90)).drop_duplicates()
    df['rating'] = np.where(df.item<5, 1, rng.integers(1, 6, len(df)))
    learn = learner(RecDataLoaders.from_df(df, valid_pct=0, seed=1))
    with warnings.catch_warnings(action='ignore'),learn.no_bar(),learn.no_logging(): learn.fit_blend(weight=0.)
    assert learn.settings().value['choices']=='popularity'
    assert set(learn.recommend(df.user.iloc[0], why=1, sentences=True).why)=={'because others chose it'}

# ------------------------------------------------------------------ a film rated twice, and units
@pytest.mark.parametrize('name', ['fit_bias','fit_als','by_reg','fit_bayes'])
def test_without_leaves_out_one_of_two_ratings_of_a_film(name):
    learn = fitted(name)
    rows = few(frame().user[0], 8)
    twice = pd.concat([rows, rows.head(1).assign(rating=lambda o: 6-o.rating)], ignore_index=True)
    film = next(o for o in frame().title.unique() if o not in {*rows.title})
    why = learn.fold_in(twice).explain('new user', film)
    both = why[why.title==rows.title.iloc[0]]
    assert sorted(both.rating)==sorted(twice.rating[[0,8]]) and abs(why.contribution.sum()-why.attrs['prediction'])<1e-6
    for rating,without in zip(both.rating, both['without']):
        k = next(o for o in (0,8) if twice.rating[o]==rating)
        assert without==pytest.approx(learn.fold_in(twice.drop(index=k)).predict(film), abs=1e-4)

def test_without_leaves_out_all_choices_of_a_film():
    learn = fitted('fit_ials')
    rows = few(frame().user[0], 8).assign(rating=1.)
    film = next(o for o in frame().title.unique() if o not in {*rows.title})
    why = learn.fold_in(pd.concat([rows, rows.head(1)], ignore_index=True)).explain('new user', film)
    line, = why[why.title==rows.title.iloc[0]].itertuples()
    assert line.without==pytest.approx(learn.fold_in(rows.iloc[1:]).predict(film), abs=1e-4)

def test_scores_without_a_unit_are_called_so():
    of_choices = learner(RecDataLoaders.from_df(frame()[['user','title']].assign(rating=1), last, seed=3, device='cpu'))
    with of_choices.no_bar(),of_choices.no_logging(): of_choices.fit_blend()
    pair = next(pairs(1))
    assert of_choices.explain(*pair).attrs['unit']=='score'
    want = dict(fit_als=('rating',), fit_ials=('preference',)*2, fit_ease=('preference',)*2, softmax=('score',)*2, fit_blend=('rating','score'))
    for name,units in want.items():
        got = [fitted(name).explain(*pair, ranking=o).attrs['unit'] for o in (False,True)[:len(units)]]
        assert got==[*units], name
    plot_explain(of_choices.explain(*pair))

