"""NDCG@10 of `fit_ials` and of implicit's ALS and BPR over the whole catalogue, each tuned in the same way; writes results/ranking.md"""
import itertools,warnings
from report import Report,settings
from fastrec.all import *
from fastrec.answer.recommender import Seen
import implicit,scipy.sparse as sp
warnings.simplefilter('ignore')

def loaders(train, test): 
    both = pd.concat([train, test], ignore_index=True)
    return RecDataLoaders.from_df(both, IndexSplitter(range(len(train), len(both))), item_name='item', seed=0)

def ours(dls, **kwargs):
    learn = dot_learner(dls)
    with learn.no_bar(),learn.no_logging(): learn.fit_ials(**kwargs)
    return learn.evaluate().ndcg_at_10

def theirs(dls, cls, **kwargs):
    "NDCG@10 of a model of implicit's, by the same function on the same rows"
    (x,valid),sizes = (o.x.long() for o in (dls.train_ds,dls.valid_ds)),list(map(len, dls.classes.values()))
    rated = sp.csr_matrix((np.ones(len(x), 'float32'), x.T.numpy()), shape=sizes)
    model = cls(random_state=0, num_threads=1, **kwargs)
    model.fit(rated, show_progress=False)
    valid = valid[valid[:,0]>0]
    users,n_relevant = valid[:,0].unique(return_counts=True)
    items,_ = model.recommend(users.numpy(), rated[users.numpy()], N=10, filter_items=[0])
    hits = torch.isin(users[:,None]*sizes[1]+torch.from_numpy(items).long(), valid[:,0]*sizes[1]+valid[:,1])
    return {'model': ndcg_at_k(hits, n_relevant).mean().item()}

def grid(**kwargs): return [dict(zip(kwargs, o)) for o in itertools.product(*kwargs.values())]

als,bpr = implicit.als.AlternatingLeastSquares,implicit.bpr.BayesianPersonalizedRanking
systems = {'fastrec `fit_ials`': (ours,grid(n_factors=(32,64,128), alpha0=(.3,.5,1.), reg=(.006,.012,.02))),
           'implicit ALS': (partial(theirs, cls=als),grid(factors=(32,64,128), alpha=(1.,3.,10.), regularization=(10.,30.,100.))),
           'implicit BPR': (partial(theirs, cls=bpr),grid(factors=(32,64,128), learning_rate=(.001,.003,.01), regularization=(.003,.01,.03), iterations=(200,)))}
n_settings = 27  # of each

def main():
    ratings = movielens('ml-100k')
    rep = Report('ranking', 'split', 'system', 'NDCG@10', 'times popularity', f'settings, the best of {n_settings} on a part of the training rows', 'to reach')
    assert all(len(o)==n_settings for _,o in systems.values())
    for name,splitter in (('a random fifth',SeededSplitter(.2, seed=0)),("each user's last rating",LeaveLastSplitter())):
        train,test = train_test(ratings, splitter)
        inner,outer = loaders(*train_test(train, splitter)),loaders(train, test)
        for system,(f,settings) in systems.items():
            best = max(settings, key=lambda kw: f(inner, **kw)['model'])
            got = f(outer, **best)
            if f is ours: popular = got['popularity']
            rep.add(name, system, f'**{got["model"]:.4f}**', f'{got["model"]/popular:.2f}', ', '.join(f'{k} {v:g}' for k,v in best.items()), "≥ implicit's; ≥ 1.5×" if f is ours else '')
        rep.add(name, 'popularity', f'{popular:.4f}', '1', '', '')
    rep.write()

if __name__=='__main__': main()
