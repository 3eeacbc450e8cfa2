"""Lists by gradient: negatives that nobody has seen, losses against plain formulas, fits with fastai's callbacks, and what the model answers"""
import math,warnings
from functools import partial
import numpy as np,pandas as pd,pytest,torch,torch.nn.functional as F
from fastai.callback.core import Callback
from fastai.callback.tracker import EarlyStoppingCallback,SaveModelCallback
from fastai.learner import load_learner
from fastai.metrics import mae,rmse
from pretended import Pretended,is_there,missing_kernels
from test_devices import both
from fastrec.all import (BPRLoss,ChoiceLoss,DeepMF,DotBias,ListMetric,NegativeBCELoss,RecDataLoaders,SampledSoftmaxLoss,ShrinkToBiases,Unseen,
                         learner,list_metrics,load_recommender,sample_ratings)

ratings = sample_ratings(n_users=150, n_items=80, n_ratings=5000, seed=0)
losses = [SampledSoftmaxLoss,BPRLoss,NegativeBCELoss]
each_loss = pytest.mark.parametrize('loss', losses)
layouts = pytest.mark.parametrize('shared', [True,False])

def loaders(df=ratings, bs=64, **kwargs): return RecDataLoaders.from_df(df, seed=1, bs=bs, **kwargs)

def chosen(loss, dls=None, n_epoch=3, lr=None, **kwargs):
    learn = learner(loaders() if dls is None else dls, loss_func=loss, **{'n_factors':8, **kwargs})
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(n_epoch, lr)
    return learn

def pairs_of(ds):
    "A table that says who has rated what in training"
    n_users,n_items = map(len, ds.classes.values())
    res = torch.zeros(n_users, n_items, dtype=torch.bool)
    res[tuple(o.cpu() for o in ds.codes)] = True
    return res

def everything(df=ratings):
    "`df` with somebody who has rated every film, and somebody who has rated all but one"
    titles = df.title.unique()
    all_of = [pd.DataFrame(dict(user=user, title=some, rating=5.)) for user,some in ((99999,titles),(99998,titles[:-1]))]
    df = pd.concat([df[['user','title','rating']], *all_of], ignore_index=True)
    return RecDataLoaders.from_df(df, lambda o: (np.arange(500, len(df)),np.arange(500)), bs=64)

# ------------------------------------------------------------------ negatives
class Drawn(Callback):
    "Keeps what the model and the loss get"
    order,run_valid = 9,False
    def before_fit(self): self.drawn = []
    def before_batch(self): self.drawn.append((self.xb[0],self.xb[1],self.yb[0]))

@layouts
@pytest.mark.parametrize('power', [0.,1.])
def test_nothing_seen_is_a_negative_in_a_whole_epoch(shared, power):
    dls = everything()
    sampling = dict(sampling='popularity', power=power) if power else dict(sampling='uniform')
    learn = learner(dls, loss_func=BPRLoss(16, shared=shared, **sampling), n_factors=4)
    with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=(drawn := Drawn()))
    seen = pairs_of(dls.train_ds)
    n_rows = n_dropped = 0
    for x,items,expected in drawn.drawn:
        users,items = x[:,0].long(),items.expand(len(x), 16)
        assert expected.shape==(len(x),17) and (expected[:,0]==0).all() and (items>0).all()
        was_seen = seen[users[:,None],items]
        assert torch.equal(expected[:,1:].isinf(), was_seen)  # who has seen all gets what does not count
        n_rows += len(x)
        n_dropped += int(was_seen.sum())
        if not shared: assert not was_seen[~seen[users,1:].all(1)].any()
    assert n_rows==len(dls.train_ds) and n_dropped>0

@pytest.mark.parametrize('how', ['exact','draw'])
@pytest.mark.parametrize('power', [0.,.75])
def test_chances_are_those_asked_for(how, power):
    ds = everything().train_ds
    unseen,g = Unseen(ds, power),torch.Generator().manual_seed(0)
    seen,counts = pairs_of(ds),ds.counts(1).double()
    users = torch.tensor([3,40,90])
    n = 60_000
    items = unseen.exact(users[:,None].expand(-1, n), g) if how=='exact' else unseen.draw(users, n, g)[0]
    for u,drawn in zip(users, items):
        p = (counts**power).masked_fill(seen[u], 0)
        p[0] = 0
        p /= p.sum()
        found = torch.bincount(drawn, minlength=len(p))
        z = (found-n*p)/(n*p*(1-p)).clamp(min=1e-12).sqrt()
        assert (found[p==0]==0).all() and z[p>0].abs().max()<4.5

def test_expected_counts_are_right():
    ds = everything().train_ds
    unseen,g = Unseen(ds, .5),torch.Generator().manual_seed(0)
    users = torch.arange(1, 20)
    items,expected = unseen.draw(users, 500, g)
    w = ds.counts(1).double().sqrt().masked_fill(pairs_of(ds)[users], 0)
    w[:,0] = 0
    p = w/w.sum(1, keepdim=True)
    assert torch.allclose(expected[:,1:].exp().double(), 500*p.gather(1, items), rtol=1e-4)

def test_a_rating_twice_is_one_pair():
    df = pd.concat([ratings, ratings], ignore_index=True)
    with warnings.catch_warnings(action='ignore'): ds = RecDataLoaders.from_df(df, lambda o: (np.arange(len(o)-1),[len(o)-1]), bs=64).train_ds
    unseen,g = Unseen(ds),torch.Generator().manual_seed(0)
    users = torch.arange(1, 151)
    assert not pairs_of(ds)[users[:,None],unseen.exact(users[:,None].expand(-1, 200), g)].any()

def test_without_a_table_of_bits_as_with_it():
    ds = loaders().train_ds
    unseen,users,items = Unseen(ds),torch.arange(1, 151),torch.arange(1, 81)
    with_bits = unseen.seen(users, items)
    del unseen.bits
    assert torch.equal(unseen.seen(users, items), with_bits) and torch.equal(with_bits, pairs_of(ds)[1:,1:])

@pytest.mark.parametrize('power', [0.,.5])
def test_what_all_share_is_expected_as_often_as_counted_by_hand(power):
    ds = everything().train_ds
    unseen,seen,w = Unseen(ds, power),pairs_of(ds),ds.counts(1).double()**power
    items,expected = next(unseen.shared(30, torch.Generator().manual_seed(0)))
    users = torch.arange(1, len(seen))
    found = unseen.beside(users, items, expected)
    want = (30*w/w[1:].sum()).log()[items[1:]].expand(len(users), -1).masked_fill(seen[users][:,items[1:]], torch.inf)
    assert (found[:,0]==0).all() and torch.allclose(found[:,1:].double(), want, atol=1e-5)
    assert want.isinf().any() and want.isfinite().any()

# ------------------------------------------------------------------ losses
def plain(loss, scores, expected):
    "The loss by loops"
    total = n = 0
    for s,e in zip(scores.tolist(), expected.tolist()):
        there = [(a,b) for a,b in zip(s[1:], e[1:]) if b<math.inf]
        if loss is SampledSoftmaxLoss:
            total += math.log(math.exp(s[0])+sum(math.exp(a)/math.exp(b) for a,b in there))-s[0]
            n += 1
        elif loss is BPRLoss:
            total += sum(-math.log(1/(1+math.exp(a-s[0]))) for a,_ in there)
            n += len(there)
        else:
            total += sum(math.log(1+math.exp(a)) for a,_ in there) + (math.log(1+math.exp(-s[0])) if there else 0)
            n += 1
    return total/n

@each_loss
def test_losses_are_their_formulas(loss):
    g = torch.Generator().manual_seed(0)
    scores,expected = torch.randn(6, 5, generator=g),torch.randn(6, 5, generator=g)
    expected[:,0] = 0
    expected[1,2] = expected[3,1:] = torch.inf  # the fourth has no negatives
    assert float(loss()(scores, expected))==pytest.approx(plain(loss, scores, expected), rel=1e-5)
    scores.requires_grad_()
    loss()(scores, expected).backward()
    assert scores.grad.isfinite().all() and not scores.grad[3].any() and not scores.grad[1,2] and scores.grad[0].all()

@pytest.mark.parametrize('correct', [True,False])
def test_the_correction_makes_popular_samples_unbiased(correct):
    "Slopes at all scores in expectation, by many negatives, and those of the softmax over what was chosen and all unseen"
    ds = loaders().train_ds
    seen,g = pairs_of(ds),torch.Generator().manual_seed(0)
    user,item = ds.x[7].long().tolist()
    table = torch.randn(81, generator=g)
    n = 200_000
    items,expected = Unseen(ds, 1.).draw(torch.tensor([user]), n, g)
    if not correct: expected = torch.full_like(expected, math.log(n/int((~seen[user,1:]).sum()))).masked_fill(torch.arange(n+1)==0, 0.)
    slopes = []
    for codes in (torch.cat([torch.tensor([item]),items[0]]), torch.tensor([item,*(1+(~seen[user,1:]).nonzero()[:,0]).tolist()])):
        weights = table.clone().requires_grad_()
        scores = weights[codes][None]
        loss = SampledSoftmaxLoss()(scores, expected) if len(codes)==n+1 else F.cross_entropy(scores, torch.tensor([0]))
        slopes.append(torch.autograd.grad(loss, weights)[0])
    others = ~seen[user]  # what was chosen has the greatest slope either way
    error = (slopes[0]-slopes[1])[others].norm()/slopes[1][others].norm()
    assert error<.05 if correct else error>.15, error

@layouts
@pytest.mark.parametrize('sparse', [True,False])
@each_loss
def test_the_step_by_hand_has_the_gradients_of_pytorch(loss, shared, sparse):
    dls = loaders()
    torch.manual_seed(0)
    model = learner(dls, loss_func=loss(), n_factors=6).model.train()
    for w in model.parameters(): torch.nn.init.normal_(w)
    model.sparse = sparse
    x = dls.train_ds.x[:50]
    unseen,g = Unseen(dls.train_ds),torch.Generator().manual_seed(0)
    users = x[:,0].long()
    items,expected = next(unseen.shared(12, g)) if shared else unseen.draw(users, 3, g)
    if shared: items,expected = items[1:],unseen.beside(users, items, expected)
    loss_func = loss()
    scores = model(x, items)
    want = loss_func(scores, expected)
    grads = torch.autograd.grad(want, [*model.parameters()])
    model.zero_grad(set_to_none=True)
    by_hand,found = model.choice_step(x, items, expected, loss_func)
    assert torch.allclose(by_hand, scores, atol=1e-5) and torch.allclose(found, want)
    for p,grad in zip(model.parameters(), grads):
        assert torch.allclose(p.grad.to_dense(), grad.to_dense(), atol=1e-6)
    pairs = torch.stack([x[:,:1].expand(-1, scores.shape[1]-1), items.expand(50, -1)], 2)
    assert torch.allclose(scores[:,1:], model.score_pairs(pairs.flatten(0, 1)).view(50, -1), atol=1e-5)

@pytest.mark.parametrize('own', ['compare','forward'])
@pytest.mark.parametrize('where', ['subclass','object'])
@each_loss
def test_a_loss_with_its_own_way_to_compare_has_its_own_slopes(loss, where, own):
    "A temperature"
    before = getattr(loss, own)
    def sharper(self, scores, expected): return before(self, scores*10, expected)
    loss_func = (type('Sharper', (loss,), {own: sharper}) if where=='subclass' else loss)()
    if where=='object': setattr(loss_func, own, partial(sharper, loss_func))
    scores,expected = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)),torch.zeros(5, 4)
    wanted = scores.clone().requires_grad_()
    want = loss_func(wanted, expected)
    want.backward()
    found,slopes = loss_func.slopes(scores, expected)
    assert torch.allclose(found, want) and torch.allclose(slopes, wanted.grad, atol=1e-6)
    assert not torch.allclose(slopes, loss().slopes(scores, expected)[1], atol=1e-3)

# ------------------------------------------------------------------ fits
@layouts
@each_loss
def test_the_lean_loop_is_fastais(loss, shared):
    both_loops = []
    for lean in (True,False):
        learn = learner(loaders(), loss_func=loss(shared=shared), n_factors=4)
        learn.lean = lean
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(2)
        both_loops.append(learn)
    for a,b in zip(*(o.model.parameters() for o in both_loops)): assert torch.allclose(a, b, atol=2e-4)
    assert np.allclose(*(o.history.train_loss for o in both_loops), rtol=1e-4)

@pytest.mark.parametrize('arch', [DotBias,DeepMF])
@each_loss
def test_lists_are_better_than_popularity(loss, arch):
    learn = chosen(loss(), arch=arch, n_factors=16, n_epoch=8)
    found = learn.evaluate().ndcg_at_10
    assert found['model']>1.2*found['popularity'], found.to_dict()

def test_sparse_updates_learn_too():
    found = chosen(SampledSoftmaxLoss(), sparse=True, n_factors=16, n_epoch=8).evaluate().ndcg_at_10
    assert found['model']>1.2*found['popularity']

def test_near_what_the_closed_form_finds():
    learn = chosen(SampledSoftmaxLoss(), n_epoch=5)
    by_gradient = learn.evaluate().ndcg_at_10['model']
    with learn.no_bar(),learn.no_logging(): learn.fit_ials()
    assert by_gradient>.9*learn.evaluate().ndcg_at_10['model']

def test_the_same_seed_gives_the_same_weights():
    a,b = (chosen(SampledSoftmaxLoss(), n_epoch=2) for _ in range(2))
    for v,w in zip(a.model.parameters(), b.model.parameters()): assert torch.equal(v, w)
    other = chosen(SampledSoftmaxLoss(), n_epoch=2, seed=7)
    assert not torch.equal(a.model.i_weight.weight, other.model.i_weight.weight)

def test_validation_draws_the_same_each_time():
    learn = chosen(BPRLoss())
    with learn.no_bar(),learn.no_logging(): a,b = learn.validate(),learn.validate()
    assert list(a)==list(b)==pytest.approx(learn.history.iloc[-1].tolist()[1:], rel=1e-5)

def test_who_has_seen_everything_teaches_nothing():
    dls = everything()
    n_users = len(dls.classes['user'])
    code = int(dls.classes['user'].lookup([99999])[0])
    for loss in losses:
        for shared in (True,False):
            learn = learner(dls, loss_func=loss(100, shared=shared), n_factors=4, wd=0.)  # more than there are films
            before = learn.model.u_weight.weight.detach().clone()
            with learn.no_bar(),learn.no_logging(): learn.fit(1, 1e-2)
            moved = (learn.model.u_weight.weight!=before).any(1)
            assert not moved[code] and moved[1:].sum()==n_users-2
            assert all(w.isfinite().all() for w in learn.model.parameters())
    assert len(learn.recommend(99999)[lambda o: o.score.notna()])==0 and len(learn.recommend(99998, n=5))==1

def test_lr_find_and_get_preds():
    learn = chosen(SampledSoftmaxLoss(), n_epoch=1)
    before = learn.model.i_weight.weight.detach().clone()
    with learn.no_bar(),learn.no_logging(): found = learn.lr_find(show_plot=False, num_it=20)
    assert found.valley>0 and torch.equal(learn.model.i_weight.weight, before)
    with learn.no_bar(),learn.no_logging(): preds = learn.get_preds()[0]
    user,title = (learn.ds.classes[o].labels[c-1] for o,c in zip(('user','title'), learn.dls.valid_ds.x[0].tolist()))
    assert preds.shape==(1000,) and float(preds[0])==pytest.approx(learn.predict(user, title), rel=1e-4)

def test_no_number_stops_the_fit():
    learn = learner(loaders(), loss_func=NegativeBCELoss(), n_factors=4, lr=1e30)
    with learn.no_bar(),learn.no_logging(),pytest.raises(FloatingPointError, match='no finite number in step'): learn.fit(1)

# ------------------------------------------------------------------ metrics and monitors
def test_metrics_are_those_of_evaluate():
    for learn in (chosen(SampledSoftmaxLoss()), chosen(None, metrics=[rmse,*list_metrics(5, ('ndcg','map','precision')),ListMetric('mrr', 3)], n_epoch=2)):
        last,recorded = learn.history.iloc[-1],[m.name for m in learn.metrics if isinstance(m, ListMetric)]
        for name in recorded:
            k = int(name.split('_')[-1])
            assert last[name]==pytest.approx(learn.evaluate(k=k)[name]['model'], abs=1e-6)
    assert recorded==['ndcg_at_5','map_at_5','precision_at_5','mrr_at_3'] and 'rmse' in learn.history

def test_nothing_of_stars_is_shown():
    learn = chosen(SampledSoftmaxLoss(), n_epoch=1)
    assert list(learn.history)==['train_loss','valid_loss','ndcg_at_10','recall_at_10','hit_rate_at_10']
    assert learn.model.is_preference and learn.model.y_range is None and not any(isinstance(cb, ShrinkToBiases) for cb in learn.cbs)
    assert learn.evaluate()[['rmse','mae']].isna().to_numpy().all()

def test_the_best_epoch_is_kept(tmp_path):
    learn = learner(loaders(), loss_func=SampledSoftmaxLoss(), n_factors=8, path=tmp_path)
    spoil = Spoil(3)
    with learn.no_bar(),learn.no_logging(): learn.fit(5, 1e-2, cbs=[SaveModelCallback(monitor='ndcg_at_10'),spoil])
    found = learn.history.ndcg_at_10
    assert found.idxmax()<3 and found[3]<found.max()/2 and learn.evaluate().ndcg_at_10['model']==pytest.approx(found.max(), abs=1e-6)

class Spoil(Callback):
    "Mixes the items' rows before the validation of an epoch, and of those after it"
    def __init__(self, epoch): self.at = epoch
    def after_train(self):
        if self.epoch>=self.at:
            for w in (self.model.i_weight.weight,self.model.i_bias.weight): w.data.copy_(w.data.roll(7, 0))

def test_a_fit_stops_early():
    learn = learner(loaders(), loss_func=SampledSoftmaxLoss(), n_factors=8)
    with learn.no_bar(),learn.no_logging(): learn.fit(9, 1e-2, cbs=[EarlyStoppingCallback(monitor='recall_at_10', patience=2),Spoil(2)])
    assert len(learn.history)==4

def test_solvers_record_lists_and_their_own_error():
    for fit in ('fit_als','fit_ials'):
        learn = learner(loaders(), loss_func=SampledSoftmaxLoss(), n_factors=4)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(4, 3)
        assert learn.history.ndcg_at_10.iloc[-1]==pytest.approx(learn.evaluate().ndcg_at_10['model'], abs=1e-6)
        assert learn.history.valid_loss.iloc[-1]>.01 and isinstance(learn.loss_func, SampledSoftmaxLoss)
    with learn.no_bar(),learn.no_logging(): learn.fit(1)  # from the rows of fit_ials on
    assert learn.model.by_softmax and learn.model.ials is None

def test_what_a_loaded_learner_cannot_measure(tmp_path):
    "What its users have seen was not exported, and both lists and negatives leave that out"
    learn = chosen(SampledSoftmaxLoss(), path=tmp_path)
    learn.export('it.pkl')
    stars = learner(loaders(), metrics=[rmse,*list_metrics()], path=tmp_path)
    stars.export('stars.pkl')
    with warnings.catch_warnings(action='ignore'): loaded,of_stars = (load_learner(tmp_path/o) for o in ('it.pkl','stars.pkl'))
    with warnings.catch_warnings(action='error'),loaded.no_bar(),of_stars.no_bar():
        for a,b in ((loaded,learn),(of_stars,stars)):
            found,want = (o.get_preds(dl=o.dls.test_dl(ratings[:5]))[0] for o in (a,b))
            assert torch.allclose(found, want)
    dl = of_stars.dls.test_dl(ratings[:50])
    with pytest.warns(UserWarning, match='a loaded learner does not know what its users have rated'): found = of_stars.validate(dl=dl)
    with pytest.warns(UserWarning, match='held-out pairs were in training too'): known = stars.validate(dl=stars.dls.test_dl(ratings[:50]))
    assert found[:2]==known[:2] and found[2:]==[None]*3
    with pytest.raises(ValueError, match='lists leave it out: measure them before export'): loaded.list_measures(dl.dataset)
    with pytest.raises(ValueError, match='a loss of choices leaves out: validate before export'): loaded.validate(dl=loaded.dls.test_dl(ratings[:50]))

def test_a_batch_alone_has_no_lists(capsys):
    learn = learner(loaders(), metrics=[rmse,*list_metrics()])
    b = learn.dls.valid.one_batch()
    with warnings.catch_warnings(action='error'),learn.no_bar():
        assert len(learn.get_preds(dl=[b])[0])==len(b[1])
        learn.show_results(max_n=2)
    with pytest.warns(UserWarning, match='pass a dl of dls.test_dl'): assert learn.validate(dl=[b])[2:]==[None]*3

# ------------------------------------------------------------------ answers
@pytest.mark.parametrize('arch', [DotBias,DeepMF])
def test_saved_and_loaded_it_answers_as_before(arch, tmp_path):
    learn = chosen(SampledSoftmaxLoss(), arch=arch, path=tmp_path)
    new = ratings[ratings.user==ratings.user.iloc[0]].drop(columns='user')
    learn.save_recommender(tmp_path/'bundle')
    learn.export('it.pkl')
    with warnings.catch_warnings(action='ignore'): again = load_learner(tmp_path/'it.pkl')
    rec = load_recommender(tmp_path/'bundle')
    pd.testing.assert_frame_equal(rec.recommend(), learn.recommend())
    for o in (rec,again): assert torch.allclose(o.predict_grid(), learn.predict_grid(), atol=1e-5)
    for o in (rec,again): assert torch.allclose(o.fold_in(new).predict_grid(), learn.fold_in(new).predict_grid(), atol=1e-4)
    learn.save('weights')
    other = learner(learn.dls, arch, n_factors=8, loss_func=SampledSoftmaxLoss(), path=tmp_path).load('weights')
    assert other.model.by_softmax and torch.equal(other.predict_grid(), learn.predict_grid())

@pytest.mark.parametrize('arch', [DotBias,DeepMF])
def test_newcomers_get_lists_of_their_own(arch):
    learn = chosen(SampledSoftmaxLoss(), arch=arch, n_factors=16, n_epoch=8)
    ds = learn.dls.train_ds
    held = learn.ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    found = learn.fold_in(ds.decode(ds.x, ds.y)).evaluate(held).ndcg_at_10
    assert found['model']>1.15*found['popularity'], found.to_dict()
    nobody = learn.fold_in(ratings[:0]).predict_grid()[0]
    with torch.no_grad(): average = learn.model.eval().score_grid(torch.tensor([0]), torch.arange(1, 81))[0]
    assert torch.allclose(nobody, average, atol=1e-4) if arch is DeepMF else torch.allclose(nobody-nobody.mean(), average-average.mean(), atol=1e-4)

def test_stars_make_no_difference():
    a,b = (chosen(SampledSoftmaxLoss(), loaders(df), n_epoch=1) for df in (ratings, ratings.assign(rating=6-ratings.rating)))
    assert torch.equal(a.model.i_weight.weight, b.model.i_weight.weight)

def test_settings_say_what_was_chosen():
    table = learner(loaders(), loss_func=SampledSoftmaxLoss(power=1., n_negatives=9)).settings()
    assert table.value[['loss_func','n_negatives','power','shared','sampling','lr']].tolist()==['SampledSoftmaxLoss',9,1.,True,'popularity',1e-2]
    assert table.rule[['n_negatives','power']].tolist()==['given','given'] and table.rule['lr']=='that of the loss'

# ------------------------------------------------------------------ refused
def test_what_makes_no_sense_is_refused_before_anything_is_touched():
    dls = loaders()
    for kwargs,message in [(dict(y_range=(.5,5.5)), 'leave it out'), (dict(metrics=mae), 'or pass list_metrics'), (dict(metrics=[*list_metrics(),mae]), 'metrics=mae')]:
        with pytest.raises(ValueError, match=message): learner(dls, loss_func=BPRLoss(), **kwargs)
    learner(dls, loss_func=BPRLoss(), y_range=False)
    with warnings.catch_warnings(action='ignore'): zeros,halves = (loaders(ratings.assign(rating=o)) for o in (0., np.arange(5000)%2.))
    with pytest.raises(ValueError, match='a loss of choices learns from what was chosen'): learner(zeros, loss_func=BPRLoss())
    with pytest.raises(ValueError, match='Every row is, for a loss of choices'): learner(halves, loss_func=BPRLoss())
    with pytest.raises(TypeError, match='not the class BPRLoss'): learner(dls, loss_func=BPRLoss)

@pytest.mark.parametrize('kwargs,error', [(dict(n_negatives=0), ValueError), (dict(n_negatives=1.5), TypeError), (dict(sampling='popular'), ValueError), (dict(power=.5), ValueError),
                                          (dict(sampling='popularity', power=math.inf), ValueError), (dict(sampling='popularity', power=-1.), ValueError), (dict(shared='yes'), TypeError)])
def test_bad_arguments_of_a_loss(kwargs, error):
    with pytest.raises(error, match=next(iter(dict(sampling='sampling') if kwargs.get('sampling')=='popular' else {[*kwargs][-1]:0}))): BPRLoss(**kwargs)

def test_losses_fit_their_models():
    learn = chosen(None, n_epoch=1)
    before = learn.model.i_weight.weight.detach().clone()
    learn.loss_func = BPRLoss()
    with pytest.raises(ValueError, match='predicts ratings, and BPRLoss'): learn.fit(1)
    assert torch.equal(learn.model.i_weight.weight, before)
    learn = chosen(BPRLoss(), n_epoch=1)
    learn.loss_func = torch.nn.MSELoss()
    with pytest.raises(ValueError, match='would make it one of ratings'): learn.fit(1)

# ------------------------------------------------------------------ devices
@both
@layouts
def test_everything_lies_on_the_device(device, shared):
    with Pretended(device) as gpu:
        dls = loaders(bs=128, device=device)
        learn = learner(dls, loss_func=SampledSoftmaxLoss(shared=shared), n_factors=4)
        drawn = Drawn()
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(2, cbs=drawn)
        assert all(is_there(t) for row in drawn.drawn for t in row)
        seen = pairs_of(dls.train_ds)
        for x,items,expected in drawn.drawn:
            users,items = x[:,0].long().cpu(),items.cpu().expand(len(x), -1)
            assert torch.equal(expected[:,1:].isinf().cpu(), seen[users[:,None],items])
        found = learn.evaluate().ndcg_at_10['model']
        assert learn.history.ndcg_at_10.iloc[-1]==pytest.approx(found, abs=1e-6)
        unseen,g = Unseen(dls.train_ds, .5, dls.device),torch.Generator(dls.device).manual_seed(0)
        users = dls.train_ds.x[:64,0].long()
        with gpu.counting() as waits:
            unseen.draw(users, 4, g)
            items,expected = next(unseen.shared(8, g))
            unseen.beside(users, items, expected)
        assert not waits, waits
        assert not missing_kernels(gpu.ops, device.upper())

def test_watching_what_is_not_recorded_is_refused(dls):
    learn = learner(dls)
    with pytest.raises(ValueError, match="watches 'ndcg_at_10'.*list_metrics"): learn.fit(1, cbs=EarlyStoppingCallback('ndcg_at_10'))
    assert learn.n_fits==0

def test_a_large_power_draws_what_is_chosen_most():
    ds = loaders().train_ds
    unseen,most = Unseen(ds, 1000.),int(ds.counts(1).argmax())
    weights = unseen.ends.diff(prepend=unseen.ends[:1])
    assert weights[most]==weights.max()>1000*weights.sort()[0][-2]

def test_the_loss_that_all_have_in_common_names_those_to_use():
    names = 'SampledSoftmaxLoss, BPRLoss or NegativeBCELoss'
    with pytest.raises(TypeError, match=f'ChoiceLoss does not say how scores are compared: use {names}'): ChoiceLoss()
    class Mine(ChoiceLoss): pass
    with pytest.raises(NotImplementedError, match=rf'Mine has no compare\(scores, expected\), as {names} have'): Mine()(torch.zeros(2, 3), torch.zeros(2, 3))

def test_gradients_of_ratings_are_refused_by_what_made_the_model(ratings):
    learn = chosen(BPRLoss(), loaders(ratings), n_epoch=1)
    learn.loss_func = torch.nn.MSELoss()
    with pytest.raises(ValueError, match='by a loss of choices, and gradients would make it one of ratings'): learn.fit(1)

@pytest.mark.parametrize('sparse', [False,True])
def test_biases_of_users_are_learned_only_where_they_make_a_difference(sparse):
    "Else their first weights, or rounding errors, would rank users for an item"
    for loss in losses:
        bias = chosen(loss(), n_epoch=1, sparse=sparse).model.u_bias.weight
        assert bool(bias.any())==(loss is NegativeBCELoss), loss

def test_the_loss_of_what_is_hardly_ever_chosen_is_not_cut_off():
    scores,expected = torch.tensor([[-200.,0]]),torch.zeros(1,2)
    loss,slopes = SampledSoftmaxLoss().slopes(scores, expected)
    assert float(loss)==float(SampledSoftmaxLoss()(scores, expected))==200 and slopes.tolist()==[[-1,1]]
