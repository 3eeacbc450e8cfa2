"""Rows that count more or less than others: for every fit, loss and metric"""
import tempfile,warnings
from decimal import Decimal
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from fastai.callback.all import Callback
from fastai.learner import Recorder
from fastai.metrics import exp_rmspe,mae,mse,rmse
from fastrec.all import RecDataLoaders,SampledSoftmaxLoss,choose_fit,dot_learner,learner,load_learner,load_recommender,nn_learner,sample_ratings,search
from fastrec.base.processes import Part
from fastrec.evaluate.evaluation import _as_trained,_raters
from fastrec.evaluate.questions import trial_of
from fastrec.fit.equations import variance_of
from fastrec.fit.mixing import factor_means,held_out_parts

n_valid = 200

def frame(n=3000): return sample_ratings(n_users=80, n_items=60, n_ratings=n).reset_index(drop=True)

def last(df): return np.arange(len(df)-n_valid),np.arange(len(df)-n_valid, len(df))

def loaders(df, **kwargs): return RecDataLoaders.from_df(df, last, seed=3, device='cpu', **kwargs)

def fitted(dls, name, *args, make=dot_learner, **kwargs):
    learn = make(dls)
    with learn.no_bar(),learn.no_logging(): getattr(learn, name)(*args, **kwargs)
    return learn

def predictions(learn):
    users,items = (v.labels[:20] for v in learn.dls.classes.values())
    return learn.predict_grid(users, items).float()

def softmax(dls): return learner(dls, loss_func=SampledSoftmaxLoss())

fits = [('fit_bias',(),{}), ('fit_als',(5,),dict(n_sweep=8)), ('fit_als',(5,),dict(reg=1.)), ('fit_bayes',(4,),dict(n_sweep=6)), ('fit_ials',(8,),{}),
        ('fit_ease',(),{}), ('fit_one_cycle',(2,),{}), ('fit_one_cycle',(2,),dict(make=nn_learner)), ('fit_one_cycle',(2,),dict(make=softmax))]
ids = [f'{n}{k.get("reg","")}{getattr(k.get("make"),"__name__","")}' for n,_,k in fits]

@pytest.fixture(scope='module')
def df():
    res = frame()
    res['weight'] = np.random.default_rng(0).choice([1.,2,3], len(res))
    return res

@pytest.mark.parametrize('weight', [1.,7.3])
@pytest.mark.parametrize('name,args,kwargs', fits, ids=ids)
def test_equal_weights_change_nothing(df, name, args, kwargs, weight):
    plain = fitted(loaders(df), name, *args, **kwargs)
    weighed = fitted(loaders(df.assign(weight=weight), weight_name='weight'), name, *args, **kwargs)
    assert torch.allclose(predictions(plain), predictions(weighed), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('name,args,kwargs', [o for o in fits if o[0]!='fit_one_cycle'], ids=[i for i,o in zip(ids,fits) if o[0]!='fit_one_cycle'])
def test_a_weight_of_0_is_a_row_left_out(df, name, args, kwargs):
    off = df.assign(weight=1.)
    rows = np.random.default_rng(1).choice(len(df)-n_valid, 500, replace=False)
    off.loc[rows,'weight'] = 0
    off.loc[rows,'rating'] = 1.  # wrong
    weighed = fitted(loaders(off, weight_name='weight'), name, *args, **kwargs)
    kept = off.drop(index=rows).reset_index(drop=True)
    without = fitted(loaders(kept), name, *args, **kwargs)
    assert [v.labels.equals(o.labels) for v,o in zip(weighed.dls.classes.values(), without.dls.classes.values())]==[True,True]
    assert torch.allclose(predictions(weighed), predictions(without), rtol=1e-4, atol=1e-4)

@pytest.mark.parametrize('name,args,kwargs,scaled', [('fit_bias',(),dict(reg=3.),['reg']), ('fit_als',(4,),dict(reg=2., power=0.),['reg']),
    ('fit_ials',(6,),dict(reg=.5, power=0., alpha0=.4),['reg','alpha0'])], ids=['bias','als','ials'])
def test_a_weight_of_2_is_two_rows(df, name, args, kwargs, scaled):
    train,valid = df.iloc[:-n_valid],df.iloc[-n_valid:]
    repeated = train.loc[train.index.repeat(train.weight.astype(int))]
    unit = (train.weight**2).sum()/train.weight.sum()
    with pytest.warns(UserWarning, match='repeat a pair'): twice = fitted(loaders(pd.concat([repeated, valid], ignore_index=True)), name, *args, **kwargs)
    weighed = fitted(loaders(df, weight_name='weight'), name, *args, **{k: v/unit if k in scaled else v for k,v in kwargs.items()})
    assert torch.allclose(predictions(twice), predictions(weighed), atol=5e-3)
    plain = fitted(loaders(df), name, *args, **kwargs)
    assert not torch.allclose(predictions(plain), predictions(weighed), atol=5e-3)

def test_ease_has_weights_in_place_of_ones(df):
    learn = fitted(loaders(df, weight_name='weight'), 'fit_ease', reg=20.)
    ds = learn.dls.train_ds
    x = torch.zeros([len(v) for v in ds.classes.values()], dtype=torch.double)
    for (u,i),w in zip(ds.x[:,:2].long().tolist(), ds.w.double()): x[u,i] = max(x[u,i], w)
    x = x[1:,1:]
    p = torch.linalg.inv(x.T@x + 20*torch.eye(x.shape[1], dtype=torch.double))
    b = -p/p.diagonal()
    b.fill_diagonal_(0)
    assert torch.allclose(learn.model.weight.double(), b, atol=1e-4)

@pytest.mark.parametrize('name,args,kwargs', [o for o in fits if o[2].get('make') is not softmax and o[0] not in ('fit_ials','fit_ease')],
    ids=[i for i,o in zip(ids,fits) if o[2].get('make') is not softmax and o[0] not in ('fit_ials','fit_ease')])
def test_rows_that_count_little_do_little(df, name, args, kwargs):
    off = df.assign(weight=1.)
    wrong = np.random.default_rng(2).choice(len(df)-n_valid, 1200, replace=False)
    off.loc[wrong,'rating'] = 6-off.rating[wrong]
    off.loc[wrong,'weight'] = .02
    error = {o: fitted(loaders(off, weight_name=o), name, *args, **kwargs).evaluate().rmse['model'] for o in ('weight',None)}
    assert error['weight']<error[None]-.02

def test_an_epoch_has_each_row_as_often_as_it_weighs(df):
    train = loaders(df, weight_name='weight').train
    y = torch.arange(len(train.dataset)).float()
    train.dataset.y = y
    times = sum(torch.bincount(torch.cat([y for _,y in train]).long(), minlength=len(y)) for _ in range(20))
    w = train.dataset.w
    assert times.sum()==20*train.n and len(y)>train.n==round(float(w.sum()))
    assert (times/20-w).abs().max()<.8
    some = torch.cat([y for _,y in train.of_epoch(train.all_but(torch.arange(100)))])
    assert some.min()>=100 and len(some)==round(float(w[100:].sum()))

@pytest.mark.parametrize('weight', [0.,1e-6])
@pytest.mark.parametrize('kwargs', [{},dict(loss_func=SampledSoftmaxLoss())], ids=['stars','choices'])
def test_rows_that_hardly_count_make_no_epoch_longer(df, weight, kwargs):
    "So the other rows are as often in an epoch, and in batches of as many, as without them"
    rng = np.random.default_rng(0)
    train,valid = df.iloc[:-n_valid].assign(weight=1.),df.iloc[-n_valid:].assign(weight=1.)
    other = pd.DataFrame(dict(user=rng.choice(train.user, 20_000), title=rng.choice(train.title, 20_000), rating=3, weight=weight))
    with warnings.catch_warnings(action='ignore'):
        alone,beside = (loaders(pd.concat(o, ignore_index=True), weight_name='weight') for o in ([train,valid],[other,train,valid]))
        assert (beside.train.n,beside.train.bs,len(beside.train))==(alone.train.n,alone.train.bs,len(alone.train))
        found = [learner(o, seed=0, metrics=[], **kwargs) for o in (alone,beside)]
        for o in found:
            with o.no_bar(),o.no_logging(): o.fit_one_cycle(3)
    assert found[0].opt.hypers[-1]['wd']==pytest.approx(found[1].opt.hypers[-1]['wd'], rel=1e-3)
    alone,beside = (len(o.recorder.losses) for o in found)
    assert beside==alone if not weight else abs(beside/alone-1)<.05  # of which some are held out to choose from
    if kwargs: return
    alone,beside = (o.evaluate(exclude_seen=False).rmse['model'] for o in found)
    assert beside==pytest.approx(alone, rel=.03)

def test_errors_count_as_weighed(df):
    learn = fitted(loaders(df, weight_name='weight'), 'fit_bias')
    held = df.iloc[-n_valid:]
    held = held[held.user.isin(learn.dls.classes['user'].labels) & held.title.isin(learn.dls.classes['title'].labels)]
    pred = learn.predict_df(held).clip(1, 5)
    error = pred-held.rating
    want = np.average(error**2, weights=held.weight)**.5
    found = learn.evaluate(held, exclude_seen=False)
    assert found.rmse['model']==pytest.approx(want, abs=1e-4)
    assert found.mae['model']==pytest.approx(np.average(error.abs(), weights=held.weight), abs=1e-4)
    assert learn.evaluate(exclude_seen=False).rmse['model']==pytest.approx(learn.history.rmse.iloc[-1], abs=1e-4)
    assert found.rmse['model']!=pytest.approx(learn.evaluate(held.drop(columns='weight'), exclude_seen=False).rmse['model'], abs=1e-5)
    train = learn.dls.train_ds
    error = learn.model.cpu()(train.x[:,:2])-train.y
    assert learn.history.train_loss.iloc[-1]==pytest.approx(float((train.w*error**2).sum()/train.w.sum()), rel=.02)

def test_held_out_rows_of_weight_0_are_nothing_to_find(df):
    valid = df.index[-n_valid:]
    off = df.assign(weight=1.)
    off.loc[valid[::2],'weight'] = 0
    learn = fitted(loaders(off, weight_name='weight'), 'fit_ials')
    rest = fitted(loaders(df), 'fit_ials').evaluate(df.loc[valid[1::2]])
    pd.testing.assert_frame_equal(learn.evaluate(), rest, rtol=.05)
    assert learn.evaluate().attrs['counted']['rows']==n_valid//2

@pytest.mark.parametrize('values,message', [([1.,-1],'weights that are not finite numbers of 0 or more'), ([1.,np.inf],'weights that are not finite'),
    (['a','b'],'where weights must be numbers'), ([0.,0],'all training rows have a weight of 0'), ([1.,np.nan],'weight'),
    (pd.to_datetime(['2020-01-01','2021-01-01']),'must be numbers')])
def test_what_is_no_weight_is_refused(df, values, message):
    off = df.assign(weight=pd.Series(values).take(np.arange(len(df))%2).reset_index(drop=True))
    with pytest.raises(ValueError, match=message): loaders(off, weight_name='weight')

def test_huge_and_tiny_weights(df):
    for size in (1e308,1e-300): assert torch.allclose(loaders(df.assign(weight=size), weight_name='weight').train_ds.w, torch.ones(len(df)-n_valid))

@pytest.mark.parametrize('name,message', [('rating','is also the column of ratings'), ('user','is also the column of users'), ('weigth',"'weigth'"),
    ('timestamp','is also the column of times')])
def test_a_column_has_one_meaning(df, name, message):
    with pytest.raises((ValueError,KeyError), match=message): loaders(df, weight_name=name, time_name='timestamp')

def test_parquet_and_parts_keep_weights(df, tmp_path):
    pytest.importorskip('pyarrow')
    df.to_parquet(tmp_path/'ratings.parquet')
    dls = RecDataLoaders.from_parquet(tmp_path/'ratings.parquet', weight_name='weight', splitter=last, device='cpu')
    assert torch.equal(dls.train_ds.w, loaders(df, weight_name='weight').train_ds.w)
    part = dls.train_ds.subset(torch.tensor([3,1]))
    assert torch.equal(part.w, dls.train_ds.w[[3,1]]) and part.weight_name=='weight'
    new = dls.train_ds.encode(df.iloc[:4])
    assert torch.allclose(new.w, dls.train_ds.w[:4])
    assert dls.train_ds.encode(df.drop(columns='weight').iloc[:4]).w is None
    assert dls.train_ds.new_empty().w is None

def test_missing_weights_are_left_out_on_request(df):
    off = df.assign(weight=df.weight.where(df.index%10!=0))
    with pytest.warns(UserWarning, match='left out'): dls = loaders(off, weight_name='weight', dropna=True)
    assert len(dls.train_ds)==(off.weight.iloc[:-n_valid].notna()).sum() and float(dls.train_ds.w.square().sum()/dls.train_ds.w.sum())==pytest.approx(1, abs=1e-6)

def test_a_blend_and_a_choice_of_fits_take_weights(df):
    dls = loaders(df, weight_name='weight')
    learn = fitted(dls, 'fit_blend')
    assert len(learn.recommend(learn.dls.classes['user'].labels[:2], 5))==10
    table,best = choose_fit(dls, seconds=5, by='rmse', fits=dict(fit_bias={}, fit_als={}))
    assert best.dls.train_ds.weight_name=='weight' and {'fit_bias','fit_als'}<={*table.index}

def test_the_rows_of_a_process(df):
    dls = loaders(df, weight_name='weight', bs=100)
    whole = torch.cat([x for x,_ in dls.train])
    halves = []
    for rank in (0,1):
        dls = loaders(df, weight_name='weight', bs=100)
        dls.train_ds.part = Part(rank, 2)
        halves.append(torch.cat([x for x,_ in dls.train]))
    def ordered(x): return x[:,0].long().mul(10_000).add(x[:,1]).sort().values
    assert torch.equal(ordered(torch.cat(halves)), ordered(whole))

def test_exported_and_read_again(df, tmp_path):
    learn = fitted(loaders(df, weight_name='weight'), 'fit_als', 4)
    learn.path = tmp_path
    learn.export()
    again = load_learner(tmp_path/'export.pkl')
    assert torch.allclose(predictions(learn), predictions(again))

def test_a_search_takes_weights(df):
    pytest.importorskip('optuna')
    seen = []
    def make(dls, reg):
        seen.append(dls.train_ds.w)
        return fitted(dls, 'fit_bias', reg=reg)
    search(make, dict(reg=[1.,3.]), loaders(df, weight_name='weight'), n_trials=2)
    assert len(seen)==2 and all(o is not None and len(o.unique())==3 for o in seen)

def test_what_is_popular_is_weighed():
    rng = np.random.default_rng(0)
    df = pd.DataFrame(dict(user=np.arange(4000)%1000, item=rng.integers(0, 30, 4000), rating=1.)).drop_duplicates(['user','item'])
    df['weight'] = np.where(df.item<3, 1., 1e-4)
    looked_at = pd.DataFrame(dict(user=np.arange(1000), item=29, rating=1., weight=1e-4))
    df = pd.concat([df,looked_at]).drop_duplicates(['user','item']).reset_index(drop=True)
    for fit in ('fit_ials','fit_ease'):
        with pytest.warns(UserWarning, match='what is popular'): learn = fitted(RecDataLoaders.from_df(df, weight_name='weight', seed=0, device='cpu'), fit)
        assert set(learn.recommend(0, n=3, exclude_seen=False).item)=={0,1,2}

def test_a_bundle_weighs_what_it_is_asked(df, tmp_path):
    learn = fitted(loaders(df, weight_name='weight'), 'fit_als', 4)
    held = df.iloc[-n_valid:].assign(weight=lambda o: np.arange(len(o))%3)
    rec = load_recommender(learn.save_recommender(tmp_path/'bundle'))
    pd.testing.assert_frame_equal(rec.evaluate(held), learn.evaluate(held))
    assert rec.evaluate(held).rmse['model']!=pytest.approx(rec.evaluate(held.assign(weight=1)).rmse['model'], abs=1e-5)

@pytest.mark.parametrize('name,args', [('fit_als',()), ('fit_bayes',(4,20)), ('fit_one_cycle',(3,))])
@pytest.mark.filterwarnings('ignore:[^A-Z]*the tastes that were found')
def test_rows_that_repeat_tell_no_more(name, args):
    df = sample_ratings(n_users=80, n_items=60, n_ratings=3000).reset_index(drop=True)
    train,valid = df.iloc[:-n_valid],df.iloc[-n_valid:]
    twice = pd.concat([train,train,valid], ignore_index=True)
    with pytest.warns(UserWarning, match='repeat a pair'): dls = loaders(twice)
    error = fitted(dls, name, *args).evaluate().rmse['model']
    assert error<1.03*fitted(dls, 'fit_bias').evaluate().rmse['model']

def test_validation_of_training_rows(df):
    learn = fitted(loaders(df, weight_name='weight'), 'fit_als', 4)
    want = learn.evaluate(df.iloc[:-n_valid], exclude_seen=False).rmse['model']
    assert learn.validate(ds_idx=0)[1]==pytest.approx(want, rel=.03)
    without = df.iloc[-n_valid:].drop(columns='weight')
    assert learn.validate(dl=learn.dls.test_dl(without, 'average'))[1]==pytest.approx(learn.evaluate(without, exclude_seen=False).rmse['model'], rel=.02)

def test_rows_of_weight_0_say_nothing_of_the_scale(df):
    off = df.assign(weight=1.)
    off.loc[:20,['rating','weight']] = [99.,0.]
    assert learner(loaders(off, weight_name='weight')).model.y_range==learner(loaders(df)).model.y_range
    with warnings.catch_warnings(action='error'):
        far = loaders(df.assign(weight=1., rating=df.rating.where(np.arange(len(df))!=5, 999.)).assign(weight=lambda o: (o.rating<999)*1.), weight_name='weight')
    assert fitted(loaders(off, weight_name='weight'), 'fit_bias').rating_range==fitted(far, 'fit_bias').rating_range==(1,5)
    assert learner(loaders(off, weight_name='weight'), y_range=(0,5.5)).model.y_range==(0,5.5)
    likes = df.assign(rating=np.where(df.rating>=3, 1., -1.))
    fitted(loaders(likes.assign(weight=likes.rating.clip(0)), weight_name='weight'), 'fit_ials')  # no warning of dislikes

@pytest.mark.parametrize('odd', [99.,-99.])
def test_the_range_of_ratings_is_of_those_that_count(df, odd, tmp_path):
    "So that `evaluate` cuts off and tells of another scale as it does without such rows, also in a folder"
    off = df.assign(weight=1.)
    off.loc[:20,['rating','weight']] = [odd,0.]
    held = df.iloc[-n_valid:].assign(rating=lambda o: o.rating*10)
    for ratings in (False,True):
        learn = fitted(loaders(off, weight_name='weight'), 'fit_bias')
        rec = load_recommender(learn.save_recommender(tmp_path/f'm{ratings}', ratings=ratings))
        for o in (learn,rec):
            assert o.rating_range==(1,5)
            with pytest.warns(UserWarning, match='those of training from 1 to 5: are they on the same scale'): o.evaluate(held, exclude_seen=False)
    assert without_a_word_of_choices(df.assign(rating=1., weight=1.))==without_a_word_of_choices(df.assign(rating=np.where(df.index%2, 1., 5.), weight=df.index%2*1.))==1

def without_a_word_of_choices(df):
    "How often a fit of ratings that are all 1 says so"
    with warnings.catch_warnings(record=True, action='always') as told: fitted(loaders(df, weight_name='weight'), 'fit_bias')
    return sum('all ratings are 1' in str(o.message) for o in told)

@pytest.mark.long
def test_nothing_to_measure_and_one_row_that_is_all(df):
    with pytest.raises(ValueError, match='all validation rows have a weight of 0'):
        loaders(df.assign(weight=np.arange(len(df))<len(df)-n_valid), weight_name='weight')
    with pytest.raises(ValueError, match='a million times the median.*clip'): loaders(df.assign(weight=np.where(np.arange(len(df))==5, 1e12, 1.)), weight_name='weight')
    ds = loaders(df.assign(weight=np.where(np.arange(len(df))%2, 1e-40, 1e10)), weight_name='weight').train_ds
    assert (ds.w>0).all()
    for fit in ('fit_ials','fit_ease','fit_bayes','fit_als'): fitted(loaders(df.assign(weight=np.where(np.arange(len(df))%2, 1e-40, 1e10)), weight_name='weight'), fit)

def test_predictions_need_no_weights(df):
    dls = loaders(df, weight_name='weight')
    odd = df.iloc[:5].assign(weight=np.nan)
    with pytest.raises(ValueError, match='weight'): dls.test_dl(odd)
    assert len(dls.test_dl(odd, with_labels=False).dataset)==5

# ------------------------------------------------------------------ rows that all weigh 0 are no rows
def without_a_word(df):
    "`df` with a column 'weight', which is 0 in all rows of one user and in all of one title, and these two"
    user,title = df.user.iloc[0],df.title.iloc[5]
    return df.assign(weight=((df.user!=user)&(df.title!=title)).astype(float)),user,title

@pytest.mark.parametrize('fit', ['fit_ials','fit_blend','fit_ease'])
def test_a_user_whose_rows_weigh_nothing_is_the_average_user_and_such_an_item_is_unrated(fit):
    df,user,title = without_a_word(sample_ratings(n_users=80, n_items=50, n_ratings=1500))
    learn = dot_learner(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=0))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
    own = df[df.user==user].assign(user=10**6)
    lists = [learn.recommend(user, n=9),learn.fold_in(own).recommend(10**6, n=9),learn.extend(own).recommend(10**6, n=9)]
    assert lists[0].title.tolist()==lists[1].title.tolist()==lists[2].title.tolist()
    np.testing.assert_allclose(lists[0].score, lists[1].score, rtol=1e-2 if fit=='fit_blend' else 1e-4)  # ratings know no average user
    assert lists[0].score.iloc[0]>lists[0].score.iloc[-1]+1e-3
    code = learn.ds.classes['title'].lookup([title])
    assert learn.counts[code]==0 and learn.counts.sum()==df.weight.sum()
    assert title not in set(learn.recommend(n=50).title) | set(learn.extend(own).recommend(n=50).title)

@pytest.mark.parametrize('fit', [lambda l: l.fit_one_cycle(3), lambda l: l.fit_sgd(4), lambda l: l.fit_als(4)], ids=['gradients','sgd','als'])
@pytest.mark.parametrize('make', [dot_learner,nn_learner])
def test_items_whose_rows_weigh_nothing_follow_features(fit, make):
    "As those do that have no rows: all of a genre are the same, newcomers of their features too, and their spread is not that of rated ones"
    df = sample_ratings(n_users=100, n_items=60, n_ratings=3000)
    items = pd.DataFrame(dict(title=df.title.unique())).assign(genre=lambda o: np.array([*'abc'])[np.arange(len(o))%3])
    df['weight'] = (~df.title.isin(items.title[:12])).astype(float)
    learn = make(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=1, items=items))
    with learn.no_bar(),learn.no_logging(): fit(learn)
    codes = learn.dls.classes['title'].lookup([*items.title[:12]])
    rows = torch.cat([e.weight.detach() for e in learn.model.tables[1]], 1)[codes].view(4, 3, -1)
    torch.testing.assert_close(rows, rows[:1].expand_as(rows), rtol=1e-4, atol=1e-5)
    assert learn.model.item_spread!=1
    more = learn.extend(items=items.head(3).assign(title=[*'xyz'])).predict_grid(None, [*'xyz',*items.title[:3]])
    np.testing.assert_allclose(more[:,:3], more[:,3:], atol=1e-3)

def test_what_weighs_nothing_is_not_held_out_and_not_what_is_left():
    from fastrec.fit.mixing import held_out_rows
    df = frame(1500).assign(weight=lambda o: (np.random.default_rng(0).random(len(o))<.3).astype(float))
    ds = loaders(df, weight_name='weight').train_ds
    rows = held_out_rows(ds, int(ds.is_counted().sum())//2)
    assert len(rows)>50 and (ds.w[rows]>0).all()
    kept = torch.ones(len(ds), dtype=torch.bool)
    kept[rows] = False
    left = ds.subset(kept.nonzero()[:,0]).counted()
    for k in (0,1): assert ((left.counts(k)>0)==(ds.counted().counts(k)>0)).all()
    light = df.assign(weight=(np.arange(len(df))%80==0).astype(float))  # 17 rows of 1,300
    learn = fitted(loaders(light, weight_name='weight'), 'fit_one_cycle', 1)
    assert len(learn.shrink_to_biases.left_out)<20 and learn.kept_rows is None

def test_who_has_one_row_that_counts_is_not_asked():
    from fastrec.evaluate.questions import _held_out
    df,user,title = without_a_word(sample_ratings(n_users=80, n_items=50, n_ratings=1500))
    df.loc[df[df.user==user].index[0],'weight'] = 1.
    ds = RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=0).train_ds
    assert (ds.counts(0)[ds.classes['user'].lookup([user])]>5).all()
    assert not _held_out(ds)[ds.x[:,0]==int(ds.classes['user'].lookup([user])[0])].any()

def test_new_rows_that_weigh_nothing_add_no_item_to_lists():
    df,_,title = without_a_word(sample_ratings(n_users=80, n_items=50, n_ratings=1500))
    learn = dot_learner(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=0))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4, 3)
    users = df.user.unique()[10:20]
    def listed(weight): return set(learn.extend(pd.concat([pd.DataFrame(dict(user=users, title=o, rating=5., weight=weight)) for o in (title,'New')])).recommend(n=52, exclude_seen=False).title)
    assert not {title,'New'} & listed(0.) and {title,'New'} <= listed(1.)

def test_forgetting_who_said_nothing_leaves_no_count_below_0():
    df,user,title = without_a_word(sample_ratings(n_users=80, n_items=50, n_ratings=1500))
    learn = dot_learner(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=0))
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4, 3)
    raters = df.user[df.title==title].unique()[:3]
    counts = learn.without_users(raters).counts
    assert (counts>=0).all() and counts[learn.ds.classes['title'].lookup([title])]==0

@pytest.mark.parametrize('fit', ['fit_ials','fit_als'])
def test_what_is_looked_at_and_weighs_nothing_is_no_more_popular(fit, tmp_path):
    "The row of popularity, novelty and `min_count` are those without such rows, also in a folder and after `extend`"
    rng = np.random.default_rng(0)
    chosen = frame(1500).assign(weight=1.)
    looks = pd.DataFrame(dict(user=np.repeat(chosen.user.unique(), 9), rating=1., timestamp=chosen.timestamp.iloc[0], weight=0.))
    looks['title'] = rng.choice(np.sort(chosen.title.unique())[:12], len(looks))
    looks = looks[~pd.MultiIndex.from_frame(looks[['user','title']]).isin(pd.MultiIndex.from_frame(chosen[['user','title']]))].drop_duplicates(['user','title'])
    both = pd.concat([looks,chosen], ignore_index=True)
    learn,without = [fitted(loaders(o, weight_name='weight'), fit, 4, 3) for o in (both,chosen)]
    assert torch.equal(learn.counts, without.counts) and learn.counts.sum()==len(chosen)-n_valid
    rec = load_recommender(learn.save_recommender(tmp_path/'bundle'))
    want = without.evaluate(exclude_seen=False)
    for got in (learn.evaluate(exclude_seen=False),rec.evaluate(chosen.iloc[-n_valid:], exclude_seen=False)):
        pd.testing.assert_series_equal(got.loc['popularity'], want.loc['popularity'], rtol=1e-5)
    assert set(learn.recommend(n=60, min_count=20, exclude_seen=False).title)==set(without.recommend(n=60, min_count=20, exclude_seen=False).title)
    new = looks.assign(user=looks.user+10**6)
    more = learn.extend(pd.concat([new,new.iloc[:3].assign(weight=1.)]))
    assert more.counts.sum()==learn.counts.sum()+3 and more.drift.share_new==pytest.approx(3/int(more.counts.sum()))

@pytest.mark.parametrize('fit', ['fit_als','fit_ials'])
@pytest.mark.filterwarnings('ignore')
def test_forgetting_leaves_the_counts_of_rows_that_count(fit, tmp_path):
    "An item that one bought and others looked at is rated by nobody once the buyer is gone; four of five rows weigh nothing"
    df = sample_ratings(n_users=80, n_items=30, n_ratings=1500).reset_index(drop=True)
    df['weight'] = (np.arange(len(df))%5==0).astype(float)
    buyer = df.user.unique()[0]
    df = pd.concat([df, pd.DataFrame(dict(user=df.user.unique()[:20], title='Bought once', rating=4., weight=[1.]+19*[0.]))], ignore_index=True)
    learn = fitted(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', device='cpu'), fit, 4, 3)
    half = df.user.unique()[:40]
    for rec in (learn,load_recommender(learn.save_recommender(tmp_path/'m', ratings=True)),learn.extend(df[:5].assign(user=10**6))):
        for less,left in ((rec.without_users(half), df[~df.user.isin(half)]), (rec.without_items('Bought once'), df[df.title!='Bought once']),
                          (rec.without_users(buyer).without_users(half[1:]), df[~df.user.isin(half)])):
            new = df[:5].assign(user=10**6) if rec.ds.sizes!=learn.ds.sizes else df[:0]
            labels = less.ds.classes['title'].labels
            real = pd.concat([left,new]).groupby('title').weight.sum().reindex(labels, fill_value=0)
            assert less.counts[1:].tolist()==real.tolist() and torch.equal(less.counts, less.ratings.counted().counts(1))
            assert not less.recommend(n=40, exclude_seen=False).title.isin(real.index[real==0]).any()

def test_a_folder_without_ratings_estimates_what_others_chose(tmp_path):
    "Which rows weigh nothing isn't known there: each item loses the share of its rows, and stays rated while any is left"
    df = sample_ratings(n_users=80, n_items=30, n_ratings=1500).reset_index(drop=True)
    df['weight'] = (np.arange(len(df))%5==0).astype(float)
    learn = fitted(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', device='cpu'), 'fit_als', 4, 3)
    rec = load_recommender(learn.save_recommender(tmp_path/'m'))
    half = df.user.unique()[:40]
    left = df[~df.user.isin(half)]
    with pytest.warns(UserWarning, match='estimated from now on.*ratings=True'): counts = rec.without_users(half).counts[1:].numpy()
    real = left.groupby('title').weight.sum().reindex(learn.dls.classes['title'].labels, fill_value=0).to_numpy()
    assert (counts>0).sum()>=(real>0).sum() and abs(counts.sum()-real.sum())<.25*real.sum()
    assert np.corrcoef(counts, real)[0,1]>.5

# ------------------------------------------------------------------ rows of little weight are little evidence
def light(n_users, n_items, n, weight, seed):
    "Ratings, half of them of a small `weight`, with the last tenth of them held out, which all weigh 1"
    df = sample_ratings(n_users=n_users, n_items=n_items, n_ratings=n, seed=seed)[['user','title','rating']].reset_index(drop=True)
    n = len(df)
    df['weight'] = np.where(np.random.default_rng(seed).random(n)<.5, weight, 1.)
    held = np.arange(n-n//10, n)
    df.loc[held,'weight'] = 1.
    return RecDataLoaders.from_df(df, lambda _: (np.arange(n-n//10),held), seed=1, device='cpu', weight_name='weight')

def test_weights_add_up_to_the_rows_that_say_as_much(df):
    "Kish's effective number; equal weights stay as they are"
    train = df.weight.iloc[:-n_valid]
    w = loaders(df, weight_name='weight').train_ds.w
    assert float(w.sum())==pytest.approx(train.sum()**2/(train**2).sum(), rel=1e-5)
    assert torch.allclose(w, loaders(df.assign(weight=df.weight*1e-3), weight_name='weight').train_ds.w, rtol=1e-6)
    assert (loaders(df.assign(weight=7.3), weight_name='weight').train_ds.w==1).all()

@pytest.mark.filterwarnings('ignore:the tastes that were found')
def test_als_takes_noise_of_heavy_rows_for_no_taste():
    ratios = []
    for seed in (0,2,3):
        dls = light(300, 200, 8000, .05, seed)
        found = [fitted(dls, o, make=learner).evaluate().rmse['model'] for o in ('fit_als','fit_bias')]
        ratios.append(found[0]/found[1])
    assert np.mean(ratios)<1.01 and max(ratios)<1.02

def test_draws_of_light_rows_know_how_sure_they_are():
    dls = light(400, 300, 40_000, .1, 0)
    learn = fitted(dls, 'fit_bayes', n_sweep=20, make=learner)
    held = dls.valid_ds.frame()[0]
    found = learn.predict_df(held, std=True, unknown='average')
    off = (found.iloc[:,0]-held.rating)/found['std']
    assert .87<(off.abs()<1.645).mean()<.93 and .94<float((off**2).mean())**.5<1.07

def test_rows_that_hardly_count_leave_the_mean_where_it_is(df):
    "Everybody is held to it with `reg`; and the scale of ratings is that of rows that count"
    off = df.assign(weight=1.)
    far = np.random.default_rng(3).choice(len(df)-n_valid, 1500, replace=False)
    off.loc[far,['rating','weight']] = [1.,1e-4]
    train = off.iloc[:-n_valid]
    learn = fitted(loaders(off, weight_name='weight'), 'fit_als', 2, n_sweep=3, reg=5.)
    assert float(learn.model.mean)==pytest.approx(np.average(train.rating, weights=train.weight), abs=1e-4)
    kept = train.drop(index=far)
    y,w = (torch.tensor(train[o].to_numpy()) for o in ('rating','weight'))
    assert float(variance_of(y, w))==pytest.approx(kept.rating.var(ddof=0), rel=.02)
    ds = learn.dls.train_ds
    rows = [e.weight.detach().double() for e,_ in learn.model.tables]
    for k,mean in enumerate(factor_means(learn.model, ds)):
        assert np.allclose(mean.detach(), np.average(rows[k][ds.x[:,k].long()], axis=0, weights=ds.w), atol=1e-5)

# ------------------------------------------------------------------ the loss of validation
def off_by(a, b): return (a-b).abs().pow(1.5).mean()

@pytest.mark.parametrize('name,args,loss', [('fit_one_cycle',(2,),None), ('fit_one_cycle',(2,),torch.nn.L1Loss()), ('fit_one_cycle',(2,),off_by),
    ('fit_als',(4,4),None), ('fit_bayes',(4,6),None), ('fit_sgd',(4,4),None), ('fit_bias',(),None)], ids=lambda o: getattr(o, '__name__', str(o)))
@pytest.mark.parametrize('bs', [64,7])
def test_the_loss_of_validation_counts_rows_as_weighed(df, name, args, loss, bs):
    "By it callbacks stop a fit, or keep its best epoch"
    if name=='fit_sgd': pytest.importorskip('numba')
    off = df.copy()
    wrong = np.arange(len(df)-n_valid, len(df), 2)
    off.loc[wrong,['rating','weight']] = [1.,1e-3]
    dls = loaders(off, weight_name='weight', bs=bs)
    learn = fitted(dls, name, *args, make=lambda dls: learner(dls, loss_func=loss))
    v = dls.valid_ds
    with torch.no_grad(): each = torch.stack([(loss or torch.nn.MSELoss())(p[None], y[None]) for p,y in zip(learn.model(v.x), v.y)])
    want = float((v.w*each).sum()/v.w.sum())
    assert learn.history.valid_loss.iloc[-1]==pytest.approx(want, rel=1e-3)
    assert learn.validate()[0]==pytest.approx(want, rel=1e-3) and float(each.mean())>1.2*want
    learn.lean = False  # fastai's own loop
    assert learn.validate()[0]==pytest.approx(want, rel=1e-3)

def test_the_loss_of_choices_counts_rows_as_weighed(df):
    "Rows that weigh nothing are not in it, and equal weights change nothing"
    off = df.assign(weight=1.)
    off.loc[df.index[-n_valid::2],'weight'] = 0.
    kept = off[off.weight>0].reset_index(drop=True)
    half = n_valid//2
    without = RecDataLoaders.from_df(kept, lambda o: (np.arange(len(o)-half),np.arange(len(o)-half, len(o))), seed=3, device='cpu')
    for fit,args in (('fit_ials',(4,3)),('fit_ease',())):
        losses = [fitted(o, fit, *args).history.valid_loss.iloc[-1] for o in (loaders(off, weight_name='weight'),without)]
        assert losses[0]==pytest.approx(losses[1], rel=1e-3)
    losses = [fitted(loaders(df.assign(weight=3.), weight_name=o), 'fit_one_cycle', 2, make=softmax).history.valid_loss.iloc[-1] for o in ('weight',None)]
    assert losses[0]==pytest.approx(losses[1], rel=1e-4)

@pytest.mark.filterwarnings('ignore')
def test_novelty_counts_users_whatever_weighs_nothing(tmp_path):
    "Pairs that repeat count once, also with rows of weight 0, some next to a row that counts; a folder doesn't know which these are"
    rng = np.random.default_rng(0)
    pairs = pd.DataFrame([(u,i) for u in range(30) for i in range(8) if i%5==0 or (u+i)%2], columns=['user','item'])
    pairs = pairs.assign(rating=rng.integers(3, 6, len(pairs)).astype(float), weight=1.)
    often = pairs[pairs.item==1]
    held = pd.DataFrame(dict(user=[0,1,2], item=[2,3,2], rating=4., weight=1.))
    n_held = len(held)
    def fit(*frames):
        both = pd.concat([*frames,held], ignore_index=True)
        n = len(both)
        dls = RecDataLoaders.from_df(both, lambda _: (np.arange(n-n_held),np.arange(n-n_held, n)), seed=1, device='cpu', weight_name='weight')
        return fitted(dls, 'fit_bias')
    looked = pd.DataFrame(dict(user=[0,2,3,4,4], item=[2,4,1,1,1], rating=3., weight=0.))
    plain,more = fit(pairs,often,often),fit(pairs,often,often,looked)
    found = [rec.evaluate(held, k=3, exclude_seen=False) for rec in (plain,more)]
    assert found[1].novelty['popularity']==pytest.approx(found[0].novelty['popularity'], rel=1e-5)
    want = [0,*pairs.groupby('item').user.nunique()]
    def raters(rec): return _raters(_as_trained(rec, more.dls.valid_ds.x)[0])
    assert raters(more).tolist()==want
    known = raters(load_recommender(more.save_recommender(tmp_path/'bundle')))
    assert (known-torch.tensor(want)).tolist()==[0,0,1,0,0,0,0,0,0]  # of item 1 there are enough ratings for one more

def test_novelty_of_pairs_only_looked_at():
    "A pair with rows of weight 0 alone is not rated, though others of the item are more often than there are raters"
    df = pd.DataFrame(dict(user=[0,0,0,1,2,3]*2, item=[0]*6+[1]*6, rating=[4.,3.,4.,5.,4.,3.]*2, weight=[1.,1,1,1,0,0]+[1.]*6))
    learn = fitted(RecDataLoaders.from_df(df, valid_pct=0, weight_name='weight', seed=0, device='cpu'), 'fit_bias')
    assert _raters(learn).tolist()==[0,2,4]

@pytest.mark.parametrize('form', [lambda o: o.map(lambda p: Decimal(str(p))), lambda o: o.astype(object), lambda o: o.astype('category'), lambda o: o.astype('Float64')],
                         ids=['decimal','object','category','nullable'])
def test_weights_in_other_types_are_read_as_ratings_are(df, form):
    want,found = (loaders(o, weight_name='weight').train_ds.w for o in (df, df.assign(weight=form(df.weight))))
    assert torch.equal(found, want)
    with pytest.raises(ValueError, match='weights must be numbers'): loaders(df.assign(weight='x'), weight_name='weight')

# ------------------------------------------------------------------ metrics of validation
@pytest.mark.parametrize('late', [False,True])
def test_known_metrics_count_rows_by_their_weights(df, late):
    "Given at once or later; of others it is said that they don't"
    dls = loaders(df, weight_name='weight')
    metrics = [rmse,mse,mae]
    learn = dot_learner(dls) if late else dot_learner(dls, metrics=metrics)
    if late: learn.metrics = metrics
    with learn.no_bar(),learn.no_logging():
        learn.fit(1)
        found = list(learn.validate())[1:]
    pred,y = learn.get_preds()
    off,w = (pred-y).double().numpy(),dls.valid_ds.w.numpy()
    mean = np.average(off**2, weights=w)
    assert found==pytest.approx([mean**.5, mean, np.average(abs(off), weights=w)], rel=1e-5)
    assert list(learn.history)[2:]==['rmse','mse','mae'] and rmse not in learn.metrics
    with pytest.warns(UserWarning, match='exp_rmspe counts all rows of validation alike'): learn.metrics = [rmse,exp_rmspe]

def by_hand(learn):
    pred,y = learn.get_preds()
    return np.average((pred-y).double().numpy()**2, weights=learn.dls.valid_ds.weights().numpy())

def test_loaders_that_are_set_later_weigh_too(df):
    "Loss and metrics, and with loaders without weights no longer"
    weighed,plain = loaders(df, weight_name='weight'),loaders(df)
    learn = dot_learner(plain)
    with learn.no_bar(),learn.no_logging():
        learn.fit(1)
        for dls in (weighed,plain,weighed):
            learn.dls = dls
            mean = by_hand(learn)
            assert list(learn.validate())==pytest.approx([mean,mean**.5], rel=1e-5)
        learn.fit(1)
        assert learn.history.iloc[-1][['valid_loss','rmse']].tolist()==pytest.approx([by_hand(learn),by_hand(learn)**.5], rel=1e-5)
        with pytest.warns(UserWarning, match='counts all rows'): learn.metrics = [exp_rmspe]
        with warnings.catch_warnings(action='error'): learn.export(Path(tempfile.mkdtemp())/'learn.pkl')

def test_batches_alone_are_shown_and_predicted(df, capsys):
    "Whose weights are not known, so that they can't be measured"
    dls = loaders(df, weight_name='weight')
    learn = dot_learner(dls)
    learn.show_results(max_n=2)
    assert 'rating_pred' in capsys.readouterr().out
    x,y = dls.valid.one_batch()
    with learn.no_bar(): found = learn.get_preds(dl=[(x,y)])[0]
    assert torch.allclose(found, learn.model.eval()(x), atol=1e-6)
    for dl in ([(x,y)], torch.utils.data.DataLoader(dls.valid_ds, batch_size=64)):
        with pytest.raises(ValueError, match='it is not known which these are: pass a dl of'): learn.validate(dl=dl)

def test_batches_of_validation_with_other_rows_than_weights_are_refused(df):
    class Half(Callback):
        run_train = False
        def before_batch(self): self.learn.xb,self.learn.yb = (self.x[::2],),(self.y[::2],)
    learn = dot_learner(loaders(df, weight_name='weight'), cbs=Half())
    with learn.no_bar(),learn.no_logging(),pytest.raises(ValueError, match='has 100 rows, where the loader gave 200'): learn.fit(1)

def test_a_recorder_that_is_added_later_weighs_too(df):
    learn = dot_learner(loaders(df, weight_name='weight'))
    with learn.no_bar(),learn.no_logging():
        learn.fit(1)
        before = learn.validate()
        learn.remove_cb(Recorder)
        learn.add_cb(Recorder())
        assert learn.validate()==before

# ------------------------------------------------------------------ pairs with several rows
@pytest.mark.parametrize('times', [1,2,10,'a robot'])
@pytest.mark.parametrize('n_parts', [1,4])
def test_about_as_many_rows_are_held_out_as_were_asked_for(times, n_parts):
    df = sample_ratings(n_users=400, n_items=200, n_ratings=8000)
    has_robot = times=='a robot'
    if has_robot: df,times = pd.concat([df, *[df.head(1)]*20_000], ignore_index=True),1
    with warnings.catch_warnings(action='ignore'): ds = RecDataLoaders.from_df(pd.concat([df]*times, ignore_index=True), seed=1, valid_pct=0).train_ds
    n = len(ds)//40
    parts = held_out_parts(ds, n, n_parts)
    assert all((.2 if has_robot else .75)*n<len(o)<1.25*n for o in parts) and len(torch.cat(parts).unique())==sum(map(len, parts))
    for o in parts:
        left = torch.ones(len(ds), dtype=torch.bool).index_fill(0, o, False)
        assert not {*map(tuple, ds.x[o].tolist())}&{*map(tuple, ds.x[left].tolist())}

def test_the_width_of_choices_goes_by_what_they_say_together():
    "As `settings` tells it, and not by the number of rows"
    df = sample_ratings(n_users=2000, n_items=150, n_ratings=70_000)[['user','item']]
    log = pd.concat([df.assign(weight=1.),df.assign(weight=.01)], ignore_index=True).assign(rating=1)
    learn = learner(RecDataLoaders.from_df(log, seed=1, valid_pct=0, weight_name='weight'))
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(n_sweep=1, reg=.1)
    assert len(learn.ds)>2**17 and learn.model.width==32 and 'choices' in learn.settings()['from']['n_factors']

def test_who_has_one_pair_is_asked_nothing_in_the_trial_of_a_blend():
    "However many rows it has: nothing would be left to learn from"
    df = sample_ratings(n_users=300, n_items=100, n_ratings=6000)[['user','title']]
    once = pd.DataFrame(dict(user=np.repeat(np.arange(10_000, 12_000), 3), title=np.repeat(df.title.sample(2000, random_state=0, replace=True).to_numpy(), 3)))
    dls = RecDataLoaders.from_df(pd.concat([df,once], ignore_index=True).assign(rating=1), seed=1, valid_pct=0)
    trial,question = trial_of(learner(dls), None)
    left = trial.train_ds.counts(0)[question.truth.users]
    assert len(question.truth.users)>100 and (left>0).all()

# ------------------------------------------------------------------ epochs and measures
@pytest.mark.parametrize('weigh', [False,True])
@pytest.mark.parametrize('make', [dot_learner,nn_learner])
def test_an_epoch_that_leaves_rows_out_has_a_batch(weigh, make):
    df = sample_ratings(n_users=200, n_items=100, n_ratings=6000).assign(weight=lambda o: 1+o.user%3)
    with pytest.raises(ValueError, match='fewer than one batch'): RecDataLoaders.from_df(df, seed=1, bs=4801, drop_last=True, weight_name='weight' if weigh else None)
    n = RecDataLoaders.from_df(df, seed=1, weight_name='weight' if weigh else None).train.n
    dls = RecDataLoaders.from_df(df, seed=1, bs=n, drop_last=True, weight_name='weight' if weigh else None)
    learn = fitted(dls, 'fit_one_cycle', 3, make=make)
    assert len(learn.recorder.losses)==3 and np.isfinite(learn.history.train_loss).all()

def test_training_rows_are_measured_once_each():
    "In an epoch they are as often as their weights say, by chance"
    df = sample_ratings(n_users=200, n_items=100, n_ratings=6000).assign(weight=lambda o: np.random.default_rng(0).lognormal(0, .8, len(o)))
    learn = fitted(RecDataLoaders.from_df(df, seed=1, weight_name='weight'), 'fit_als', 4)
    ds = learn.dls.train_ds
    preds = learn.get_preds(dl=learn.dls.train.new(shuffle=False))[0].flatten().numpy()
    want = np.average((preds-ds.y.numpy())**2, weights=ds.w.numpy())**.5
    for _ in range(3): assert learn.validate(0)[1]==pytest.approx(want, rel=1e-5)
