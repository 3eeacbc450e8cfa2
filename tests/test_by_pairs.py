"Models that compute in a way of their own: hooks, pruned layers, parametrizations, methods of subclasses. Lists agree with `predict`, and nothing is written to what is computed"
import copy,warnings
import numpy as np,pandas as pd,pytest,torch
from torch import nn
from torch.nn.utils import parametrizations,parametrize,prune
import torch.nn.functional as F
from fastai.callback.tracker import SaveModelCallback
from fastrec.all import BPRLoss,DeepMF,DotBias,NegativeBCELoss,RecDataLoaders,SampledSoftmaxLoss,dot_learner,learner,nn_learner,sample_ratings
from fastrec.models.by_pairs import as_asked,computes_weights

pytestmark = pytest.mark.filterwarnings('ignore:[^A-Z]*the tastes that were found', 'ignore:save_recommender will refuse', 'ignore:.*weight_norm')

@pytest.fixture(scope='module')
def dls(): return RecDataLoaders.from_df(sample_ratings(n_users=120, n_items=80, n_ratings=3000, seed=0), seed=1, bs=64)

def train(learn, n=1, **kwargs):
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(n, **kwargs)
    return learn

def dot(dls): return train(dot_learner(dls, 4, shrink=False), 2)
def net(dls, **kwargs): return train(nn_learner(dls, 4, layers=[8], shrink=False, **kwargs), 2)

def half(m, x, y): return y*.5
def hooked_model(dls):
    learn = dot(dls)
    learn.model.register_forward_hook(half)
    return learn
def hooked_net(dls):
    learn = net(dls)
    learn.model.register_forward_hook(half)
    return learn
def other_inputs(dls):
    learn = dot(dls)
    learn.model.register_forward_pre_hook(lambda m, args: (torch.ones_like(args[0]),))
    return learn

class Half(DotBias):
    def forward(self, x): return super().forward(x)*.5+1.7
class Twice(DotBias):
    def score_pairs(self, x): return super().score_pairs(x)*2
class Unbounded(DotBias):
    def bounded(self, scores): return scores+7
class Network(DeepMF):
    def score_rows(self, p, q): return super().score_rows(p, q)-p.sum(1)
def own_class(cls): return lambda dls: train(learner(dls, cls, n_factors=4), 2)
def replaced_method(dls):
    learn = dot(dls)
    learn.model.score_pairs = lambda x: type(learn.model).score_pairs(learn.model, x)-1
    return learn

def first_pruned(dls):
    learn = net(dls)
    prune.l1_unstructured(learn.model.layers[0][0], 'weight', .3)
    return train(learn)
def last_pruned(dls):
    learn = nn_learner(dls, 4, layers=[8])
    prune.l1_unstructured(learn.model.layers[-1][0], 'weight', .3)
    return train(learn, 3, cbs=SaveModelCallback(monitor='rmse'))
def on(get, hook): return lambda dls: (lambda learn: (get(learn.model).register_forward_hook(hook), learn)[1])(net(dls, embed_p=.1))
def always_drops(dls):
    class Scaled(nn.Dropout):
        def forward(self, x): return x*.7
    learn = net(dls)
    learn.model.layers[0].add_module('own', Scaled())
    return learn
class Wide(nn.Linear):
    def forward(self, x): return super().forward(x)*2
def own_linear(dls):
    learn = net(dls)
    for group in learn.model.layers: group[0].__class__ = Wide
    return learn
def flat(dls):
    learn = nn_learner(dls, 4)
    learn.model.layers = nn.Sequential(nn.Linear(learn.model.layers[0][0].in_features, 6), nn.ReLU(), nn.Linear(6, 1))
    return train(learn, 2)
def nonlinear_first(dls):
    learn = nn_learner(dls, 4)
    learn.model.layers = nn.Sequential(nn.Tanh(), nn.Linear(learn.model.layers[0][0].in_features, 1))
    return train(learn, 2)
class Beside(nn.Module):
    def __init__(self, n):
        super().__init__()
        self.a,self.b = nn.Linear(n, 1),nn.Linear(n, 1)
    def forward(self, x): return self.a(x)*self.b(x)
def no_sequence(dls):
    learn = nn_learner(dls, 4)
    learn.model.layers = Beside(learn.model.layers[0][0].in_features)
    return train(learn, 2)
def pruned_tables(dls):
    learn = dot_learner(dls, 4)
    for e in (learn.model.u_weight,learn.model.i_weight): prune.l1_unstructured(e, 'weight', .3)
    return train(learn, 3, cbs=SaveModelCallback(monitor='rmse'))
def normed_tables(dls):
    learn = dot_learner(dls, 4)
    for e in (learn.model.u_weight,learn.model.i_weight): parametrizations.weight_norm(e)
    return train(learn, 2)

of_models = [hooked_model, hooked_net, other_inputs, *map(own_class, (Half,Twice,Unbounded,Network)), replaced_method]
of_layers = [first_pruned, last_pruned, on(lambda m: m.layers[0][0], half), on(lambda m: m.layers[-1][0], half), on(lambda m: m.layers[0], half),
             on(lambda m: m.layers, half), on(lambda m: m.emb_drop, half), always_drops, own_linear, flat, nonlinear_first, no_sequence]

def disagreement(rec):
    "How far lists, a grid, and an audience lie from `predict`, at most"
    users,titles = (v.labels[[1,5,30]] for v in rec.ds.vocabs)
    lists = rec.recommend(users, n=5)
    off = [lists.score-rec.predict_df(lists)]
    grid = rec.predict_grid(users, titles)
    off.append(grid.flatten()-torch.tensor([rec.predict(u, t) for u in users for t in titles]))
    with torch.no_grad(): off.append(grid-rec.model.eval().score_grid(*(torch.from_numpy(v.lookup(o)) for v,o in zip(rec.ds.vocabs, (users,titles)))))
    people = rec.recommend_users(titles[0], n=5)
    off.append(people.score-rec.predict_df(people.assign(title=titles[0])))
    return max(np.abs(np.asarray(o)).max() for o in off)

@pytest.mark.parametrize('make', [*of_models,*of_layers,pruned_tables,normed_tables], ids=lambda o: getattr(o, '__name__', ''))
def test_lists_agree_with_predict(dls, make):
    learn = make(dls)
    assert disagreement(learn)<1e-4

def test_the_best_come_first(dls):
    "All items in the order of predictions"
    learn = own_class(Twice)(dls)
    learn.model.register_forward_hook(lambda m, x, y: -y)  # the worst come first
    user,titles = dls.classes['user'].labels[3],dls.classes['title'].labels
    found = learn.recommend(user, n=len(titles), exclude_seen=False)
    want = learn.predict_df(pd.DataFrame(dict(user=user, title=titles)))
    assert len(found)==len(titles) and np.allclose(found.score, want.sort_values(ascending=False))

def test_what_is_plain_is_not_asked_by_pairs(dls):
    for learn in (dot(dls), net(dls), nn_learner(dls, 4, bn_final=True, product=2), nn_learner(dls, 4, lin_first=False, embed_p=.2)):
        assert as_asked(learn.model) is learn.model and not computes_weights(learn.model)
    with learn.no_bar(),learn.no_logging():
        for fit in ('fit_als','fit_bayes','fit_ials','fit_ease','fit_blend'):
            getattr(learn, fit)()
            for m in (learn.model,learn.model.lists_by): assert as_asked(m) is m and not computes_weights(m), fit

@pytest.mark.parametrize('first', [True,False])
def test_a_batch_norm_of_its_batch_has_no_lists(dls, first):
    learn = nn_learner(dls, 4)
    n = learn.model.layers[0][0].in_features
    norm = nn.BatchNorm1d(n if first else 3, track_running_stats=False)
    learn.model.layers = nn.Sequential(norm, nn.Linear(n, 1)) if first else nn.Sequential(nn.Linear(n, 3), norm, nn.Linear(3, 1))
    assert np.isfinite(learn.predict_df(dls.train.items)).all()
    with pytest.raises(TypeError, match='track_running_stats'): learn.recommend(dls.classes['user'].labels[3])

def test_steering_asks_too(dls):
    learn = own_class(Half)(dls)
    found = learn.recommend(dls.classes['user'].labels[:20], n=5, diversity=.3, damping=.5)
    assert len(found)==100

@pytest.mark.parametrize('make', [hooked_model,own_class(Half),own_class(Twice)], ids=['hook','forward','score_pairs'])
def test_what_nobody_can_add_up_is_refused(dls, make):
    learn = make(dls)
    user,title = dls.train.items.user.iloc[0],dls.classes['title'].labels[3]
    for call in (lambda: learn.explain(user, title), lambda: learn.recommend(user, n=3, why=2), lambda: learn.deciding(user), learn.faiss_index):
        with pytest.raises(ValueError, match='a method of its own, changes what|a method of its own changes what'): call()

def test_hooks_on_layers_leave_reasons(dls):
    learn = on(lambda m: m.layers[0][0], half)(dls)
    user,title = dls.train.items.user.iloc[0],dls.classes['title'].labels[3]
    assert np.isclose(learn.explain(user, title).attrs['prediction'], learn.predict(user, title), atol=1e-4)

def test_new_users_of_an_own_way(dls):
    learn = own_class(Half)(dls)
    new = learn.fold_in(pd.DataFrame(dict(title=dls.classes['title'].labels[3:7], rating=[5,4,1,2.])))
    assert type(new.model) is Half and np.isfinite(new.recommend(n=3).score).all()
    more = learn.extend(pd.DataFrame(dict(user=-5, title=dls.classes['title'].labels[3:7], rating=[5,4,1,2.])))
    assert type(more.model) is Half and disagreement(more)<1e-4
    assert type(copy.deepcopy(as_asked(learn.model))) is Half

# ------------------------------------------------------------------ drawn to biases
class Positive(nn.Module):
    def forward(self, x): return F.softplus(x)
def weight_norm(m): parametrizations.weight_norm(m.layers[-1][0])
def spectral_norm(m): parametrizations.spectral_norm(m.layers[-1][0])
def old_norm(m): torch.nn.utils.weight_norm(m.layers[-1][0])
def positive(m): parametrize.register_parametrization(m.layers[-1][0], 'weight', Positive())
def bent(m): m.layers.append(nn.Sequential(nn.Tanh()))
def hook_on_model(m): m.register_forward_hook(half)
def pruned(m):
    for e in m.embeds: prune.l1_unstructured(e, 'weight', .3)

@pytest.mark.parametrize('change,why', [(weight_norm,'computed'), (spectral_norm,'computed'), (old_norm,'computed'), (positive,'computed'), (pruned,'computed'), (bent,'does not end'),
                                        (hook_on_model,'changes what')], ids=lambda o: getattr(o, '__name__', ''))
def test_what_cannot_be_drawn_stays_as_trained(dls, change, why):
    def error(**kwargs):
        learn = nn_learner(dls, 4, **kwargs)
        change(learn.model)
        train(learn, 3)
        return learn,learn.history.rmse.iloc[-1]
    (learn,found),(_,want) = error(),error(shrink=False)
    assert found==want and np.isfinite(found)
    row = learn.settings().loc['shrink']
    assert row.value=='as trained' and why in row.rule

@pytest.mark.parametrize('kwargs', [dict(bn_final=True), dict(bn_final=True, product=2), dict(bn_final=True, lin_first=False)], ids=str)
def test_a_network_with_a_last_batch_norm_is_drawn(dls, kwargs):
    model = nn_learner(dls, 4, **kwargs).model
    x = dls.train_ds.x[:100]
    model(x)
    with torch.no_grad():
        for e in model.embeds: nn.init.normal_(e.weight)
        for w in model.layers.parameters(): nn.init.normal_(w)
        before = model.eval().score_pairs(x)
        b_u,b_i = (torch.randn(n) for n in model.sizes)
        for old,new in model.drawn((torch.tensor(2.),b_u,b_i), None, .25): old.copy_(new)
    by_biases = 2+b_u[x[:,0].long()]+b_i[x[:,1].long()]
    assert torch.allclose(model.score_pairs(x), .25*before+.75*by_biases, atol=1e-4)

def test_pruned_tables_stay_as_trained(dls):
    drawn,plain = pruned_tables(dls),dot_learner(dls, 4, shrink=False)
    for e in (plain.model.u_weight,plain.model.i_weight): prune.l1_unstructured(e, 'weight', .3)
    train(plain, 3, cbs=SaveModelCallback(monitor='rmse'))
    assert np.allclose(drawn.history.rmse, plain.history.rmse)

# ------------------------------------------------------------------ computed weights elsewhere
@pytest.mark.parametrize('make', [pruned_tables,normed_tables])
def test_computed_tables_answer_as_plain_ones(dls, make, tmp_path):
    learn = make(dls)
    plain = copy.deepcopy(dot_learner(dls, 4).model)
    with torch.no_grad():
        learn.model(dls.train_ds.x[:5])  # computes the weights
        for ours,theirs in zip(plain.tables, learn.model.tables):
            for e,o in zip(ours, theirs): e.weight.copy_(o.weight)
    plain.mean,plain.y_range = learn.model.mean,learn.model.y_range
    plain.fill_unknown()
    want = dot_learner(dls, 4)
    want.model = plain
    title,user = dls.classes['title'].labels[3],dls.classes['user'].labels[7]
    assert learn.predict(-1, title, unknown='average')==pytest.approx(want.predict(-1, title, unknown='average'), abs=1e-4)
    new = pd.DataFrame(dict(title=dls.classes['title'].labels[3:7], rating=[5,4,1,2.]))
    a,b = (o.fold_in(new).recommend(n=3) for o in (learn,want))
    for change in (lambda o: o.without_users([user]), lambda o: o.extend(new.assign(user=-5))): assert disagreement(change(learn))<1e-4
    assert np.isfinite(a.score).all() and len(a)==len(b)
    again = learner(dls, init=learn)
    assert not computes_weights(again.model) and torch.allclose(again.model.u_weight.weight[1:], plain.u_weight.weight[1:], atol=1e-6)
    with pytest.raises(ValueError, match='could not be loaded again'): learn.save_recommender(tmp_path/'m')
    with learn.no_bar(),learn.no_logging(): learn.fit_als(4, n_sweep=2)
    assert not computes_weights(learn.model)

def test_flat_layers_are_not_saved(dls, tmp_path):
    with pytest.raises(ValueError, match='no nn.Sequential of others'): flat(dls).save_recommender(tmp_path/'m')

# ------------------------------------------------------------------ no factors
@pytest.mark.parametrize('loss', [NegativeBCELoss, lambda: BPRLoss(shared=False), BPRLoss, SampledSoftmaxLoss], ids=['BCE','BPR own','BPR','softmax'])
@pytest.mark.parametrize('by_hand', [True,False])
def test_choices_without_factors(dls, loss, by_hand):
    learn = learner(dls, n_factors=0, loss_func=loss())
    if not by_hand: learn.model.u_weight.register_forward_hook(lambda m, x, y: None)
    train(learn)
    assert np.isfinite(learn.recommend(dls.classes['user'].labels[3], n=3).score).all()

def test_a_tensor_of_ones_own_is_no_computed_weight():
    layer = torch.nn.Linear(2, 2)
    layer.popularity = torch.ones(2)
    assert not computes_weights(layer)
    torch.nn.utils.prune.l1_unstructured(layer, 'weight', .5)
    assert computes_weights(layer)
    for norm in (torch.nn.utils.weight_norm, torch.nn.utils.spectral_norm, torch.nn.utils.parametrizations.weight_norm):
        with warnings.catch_warnings(action='ignore'): assert computes_weights(norm(torch.nn.Linear(2, 2)))
