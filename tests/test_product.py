"""A dot product beside a network, as in NeuMF: against a plain formula, in training, saved and loaded, and what is refused"""
import json,warnings
import numpy as np,pandas as pd,pytest,torch
from fastai.learner import load_learner
from fastrec.all import (BPRLoss,BundleError,DeepMF,NegativeBCELoss,Net,RecDataLoaders,RecInterpretation,SampledSoftmaxLoss,dot_learner,
                         learner,load_recommender,nn_learner,sample_ratings)
from fastrec.export.files import checksum

ratings = sample_ratings(n_users=150, n_items=80, n_ratings=5000, seed=0)

@pytest.fixture(scope='module')
def dls(): return RecDataLoaders.from_df(ratings, seed=1, bs=64)

def both(dls, n_epoch=2, product=5, lr=None, **kwargs):
    learn = nn_learner(dls, product=product, shrink=False, **{'n_factors':3, 'layers':[6,4], **kwargs})
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(n_epoch, lr)
    return learn

def every_pair(dls):
    return pd.MultiIndex.from_product([v.labels for v in dls.classes.values()], names=dls.classes).to_frame(index=False)

def by_hand(model, u, i):
    "The score of codes `u` and `i` in plain NumPy, for a network without batch norm"
    p,q = (e.weight.detach().double().numpy()[o] for e,o in zip(model.embeds, (u,i)))
    k = model.product
    h = np.concatenate([p[k:],q[k:]])
    linears = [m for m in model.layers.modules() if isinstance(m, torch.nn.Linear)]
    for n,m in enumerate(linears):
        h = m.weight.detach().double().numpy()@h + m.bias.detach().double().numpy()
        if n<len(linears)-1: h = np.maximum(h, 0)
    return sum(a*b for a,b in zip(p[:k], q[:k])) + h[0]

# ------------------------------------------------------------------ what it computes
@pytest.mark.parametrize('n_factors', [3,(4,2)])
@pytest.mark.parametrize('loss', [None,SampledSoftmaxLoss()])
def test_scores_are_a_dot_product_and_a_network(dls, loss, n_factors):
    model = both(dls, n_factors=n_factors, use_bn=False, loss_func=loss, lr=3e-2).model.eval()
    pairs = torch.tensor([[1,1],[7,3],[0,5],[9,0],[150,80]])
    with torch.no_grad(): scores = model.score_pairs(pairs)
    products = (model.embeds[0].weight[:,:5]@model.embeds[1].weight[:,:5].T).abs().max()
    assert products>.1  # both parts have learned something
    assert np.allclose(scores, [by_hand(model, *o) for o in pairs.tolist()], atol=1e-5)

@pytest.mark.parametrize('kwargs', [{}, dict(lin_first=False), dict(bn_final=True), dict(ps=.2, embed_p=.1), dict(layers=[]), dict(n_factors=(4,2)), dict(loss_func=BPRLoss())], ids=str)
def test_pairs_and_grids_agree(dls, kwargs):
    learn = both(dls, lr=2e-2, **kwargs)
    grid = learn.predict_grid()
    assert np.allclose(grid.flatten(), learn.predict_df(every_pair(dls)), atol=1e-5)
    out = torch.full_like(grid, torch.nan)
    users,items = torch.arange(1, 151),torch.arange(1, 81)
    with torch.no_grad():
        sides = learn.model.user_side(users),learn.model.item_side(items)
        assert learn.model.score(*sides, out=out) is out
    assert torch.allclose(learn.model.to_range(out), grid, atol=1e-6)

def test_a_grid_in_blocks(dls, monkeypatch):
    learn = both(dls, lr=2e-2)
    grid = learn.predict_grid()
    monkeypatch.setattr('fastrec.models.net._units_on_cpu', 7*80*11)  # some users at a time, the last fewer
    assert torch.allclose(learn.predict_grid(), grid, atol=1e-6)

def test_lists_are_the_best_of_the_grid(dls):
    learn = both(dls, loss_func=SampledSoftmaxLoss())
    grid = learn.predict_grid()
    found = learn.recommend(n=3, exclude_seen=False)
    for user,some in list(found.groupby('user', observed=True))[:20]:
        code = int(dls.classes['user'].lookup([user])[0])
        best = grid[code-1].topk(3).indices.tolist()
        assert some.title.tolist()==[dls.classes['title'].labels[o] for o in best]

def test_average_scores_are_means_of_the_grid(dls):
    learn = both(dls, lr=2e-2)
    grid = learn.predict_grid()
    with torch.no_grad(): (_,of_users),(_,of_items) = learn.model.average_scores()
    assert torch.allclose(of_users, grid.mean(1), atol=1e-5) and torch.allclose(of_items, grid.mean(0), atol=1e-5)
    assert len(RecInterpretation.from_learner(learn).item_bias())

# ------------------------------------------------------------------ training
def test_the_gradient_reaches_both_parts(dls):
    model = nn_learner(dls, 3, product=5, layers=[6], loss_func=NegativeBCELoss()).model.train()
    x = dls.train_ds.x[:64]
    model(x).sum().backward()
    for e,codes in zip(model.embeds, x[:,:2].long().T):
        of_rows = e.weight.grad[codes.unique()]
        assert (of_rows[:,:5]!=0).any(1).all() and (of_rows[:,5:]!=0).any(1).all()
        others = torch.ones(len(e.weight), dtype=torch.bool).index_fill_(0, codes, False)
        assert not e.weight.grad[others].any()
    assert all(w.grad.any() for w in model.layers.parameters() if w.ndim==2)

def test_the_gradient_of_the_product_is_the_other_row(dls):
    model = nn_learner(dls, 3, product=5, layers=[6], use_bn=False, loss_func=NegativeBCELoss()).model
    model.score_pairs(torch.tensor([[4,9]])).sum().backward()
    p,q = model.embeds
    assert torch.equal(p.weight.grad[4,:5], q.weight[9,:5]) and torch.equal(q.weight.grad[9,:5], p.weight[4,:5])

@pytest.mark.parametrize('loss', [SampledSoftmaxLoss,NegativeBCELoss])
def test_lists_are_better_than_popularity(dls, loss):
    found = both(dls, 6, 8, n_factors=8, loss_func=loss()).evaluate().ndcg_at_10
    assert found['model']>1.2*found['popularity'], found.to_dict()

def test_fastais_loop_gives_the_same(dls):
    two = []
    for lean in (True,False):
        learn = nn_learner(dls, 3, product=5, layers=[6], seed=3)
        learn.lean = lean
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(2)
        two.append(learn.model)
    for v,w in zip(*(o.parameters() for o in two)): assert torch.allclose(v, w, atol=2e-4)

def test_without_a_product_nothing_has_changed(dls):
    for kwargs in (dict(product=0), dict(product=np.int64(0))):
        a,b = (nn_learner(dls, 3, seed=3, **o).model for o in ({},kwargs))
        for v,w in zip(a.parameters(), b.parameters()): assert torch.equal(v, w)
        assert b.product==0

def test_settings_tell_of_it(dls):
    table = nn_learner(dls, 3, product=5).settings()
    assert table.value[['n_factors','product']].tolist()==[3,5]
    assert 'product' not in nn_learner(dls, 3).settings().index

# ------------------------------------------------------------------ saved, exported, folded in
@pytest.mark.parametrize('loss', [None,SampledSoftmaxLoss()])
def test_saved_and_loaded_it_answers_as_before(dls, loss, tmp_path):
    learn = both(dls, loss_func=loss, path=tmp_path)
    new = ratings[ratings.user==ratings.user.iloc[0]].drop(columns='user')
    learn.save_recommender(tmp_path/'bundle')
    learn.export('it.pkl')
    with warnings.catch_warnings(action='ignore'): again = load_learner(tmp_path/'it.pkl')
    rec = load_recommender(tmp_path/'bundle')
    assert type(rec.model) is Net and rec.model.product==5
    pd.testing.assert_frame_equal(rec.recommend(), learn.recommend(), atol=1e-6)  # scores near 0 are differences of larger numbers
    for o in (rec,again): assert torch.allclose(o.predict_grid(), learn.predict_grid(), atol=1e-5)
    for o in (rec,again) if loss else (rec,):  # an exported learner does not know how far ratings scatter
        assert torch.allclose(o.fold_in(new).predict_grid(), learn.fold_in(new).predict_grid(), atol=1e-4)
    learn.save('weights')
    other = nn_learner(dls, 3, product=5, layers=[6,4], loss_func=loss, path=tmp_path).load('weights')
    assert torch.equal(other.predict_grid(), learn.predict_grid())
    with pytest.raises(ValueError, match='weights does not fit'): nn_learner(dls, 4, product=4, layers=[6,4], loss_func=loss, path=tmp_path).load('weights')  # of as many numbers

def test_a_newcomers_lists_are_like_those_of_training(dls):
    learn = both(dls, 6, 8, n_factors=8, loss_func=SampledSoftmaxLoss())
    ds = learn.dls.train_ds
    held = learn.ds.decode(learn.dls.valid_ds.x, learn.dls.valid_ds.y)
    folded = learn.fold_in(ds.decode(ds.x, ds.y))
    assert folded.model.product==8
    found = folded.evaluate(held).ndcg_at_10
    assert found['model']>1.15*found['popularity'], found.to_dict()

# ------------------------------------------------------------------ refused
@pytest.mark.parametrize('product', [-1,2.5,'3',True,None,(2,3),float('nan')])
def test_a_product_that_is_none(dls, product):
    with pytest.raises(ValueError, match='product=.* must be a whole number, 0 or more'): nn_learner(dls, 3, product=product)

def test_other_models_have_none(dls):
    for make in (learner,dot_learner):
        with pytest.raises(TypeError, match="does not know 'product'; a network has one next to it: pass DeepMF"): make(dls, product=3)

def test_room_and_size(dls, monkeypatch):
    told = []
    monkeypatch.setattr('fastrec.models.trainable.need_memory', lambda n, *args: told.append(n))
    for n_factors in (3,(4,2)):
        told.clear()
        model = nn_learner(dls, n_factors, product=5, layers=[6,4], use_bn=False).model
        assert told==[sum(p.nbytes for p in model.parameters())]
    monkeypatch.undo()
    monkeypatch.setattr('fastrec.base.devices.memory_there', lambda: 10**9)
    monkeypatch.setattr(DeepMF, '__init__', lambda *args, **kwargs: pytest.fail('a model was made'))
    with pytest.raises(ValueError, match='no room for the model'): nn_learner(dls, 3, product=10**7)

@pytest.mark.parametrize('product', [-1,4,6,9,10**12,2.5,True,'5',None,[5]])
def test_forged_bundles_are_refused(dls, product, tmp_path):
    folder = nn_learner(dls, 3, product=5, layers=[6]).save_recommender(tmp_path/'b')
    assert load_recommender(folder, 'cpu').model.product==5
    manifest = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
    manifest['model']['product'] = product
    manifest['checksum'] = checksum(manifest)
    (folder/'manifest.json').write_text(json.dumps(manifest), encoding='utf-8')
    with pytest.raises(BundleError): load_recommender(folder, 'cpu')
