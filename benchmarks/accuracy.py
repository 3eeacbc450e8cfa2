"""RMSE on ml-100k: the fastai book's recipe and our defaults, over seeds and official folds; writes results/accuracy.md"""
from report import Report,settings
from fastrec.all import *

def fit(dls, epochs, cls=learner, fit_kwargs={}, **kwargs):
    "RMSE and seconds of one fit"
    learn = cls(dls, **kwargs)
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(epochs, **fit_kwargs)
    return learn.recorder.values[-1][-1],time.perf_counter()-start

def fold_dls(pair, seed):
    train,test = pair
    return RecDataLoaders.from_df(pd.concat([train,test], ignore_index=True), IndexSplitter(range(len(train), len(train)+len(test))), seed=seed)

def stock_dls(ratings, seed, bs, each_once=False):
    "fastai's own loaders, whose epochs are drawn with replacement unless `each_once`"
    dls = CollabDataLoaders.from_df(ratings[['user','title','rating']].astype(dict(title='str')), seed=seed, bs=bs, item_name='title')
    if each_once: dls.train.get_idxs = lambda: np.random.permutation(dls.train.n).tolist()
    return dls

def fastbook(c, ratings, seeds):
    "The book's recipe by fastrec, by stock fastai, and by stock fastai with each rating once an epoch"
    kwargs = dict(n_factors=c.getint('n_factors'), y_range=(c.getfloat('y_low'),c.getfloat('y_high')), fit_kwargs=dict(lr_max=c.getfloat('lr'), wd=c.getfloat('wd')))
    bs,epochs = c.getint('bs'),c.getint('epochs')
    stock = partial(fit, epochs=epochs, cls=collab_learner, metrics=rmse, **kwargs)
    return ([fit(RecDataLoaders.from_df(ratings, seed=s, bs=bs), epochs, shrink=False, **kwargs) for s in seeds],
            *([stock(stock_dls(ratings, s, bs, each_once)) for s in seeds] for each_once in (False,True)))

def main():
    rep = Report('accuracy', 'fit', 'mean RMSE', 'each', 'seconds a fit', 'to reach')
    add = lambda what,res,goal='': rep.add(what, f'**{np.mean([r for r,_ in res]):.4f}**', ' '.join(f'{r:.4f}' for r,_ in res), f'{np.median([t for _,t in res]):.2f}', goal)
    c,d = settings['fastbook'],settings['defaults']
    ratings,folds = movielens(c['release']),movielens_folds(d['release'])
    seeds = [int(s) for s in d['seeds'].split()]
    fit(RecDataLoaders.from_df(ratings, seed=0), 1)  # what a first fit loads isn't counted
    add('our defaults, random 20%', [fit(RecDataLoaders.from_df(ratings, seed=s), d.getint('epochs')) for s in seeds], f'≤ {d["max_rmse_random"]}, < {d["max_seconds"]} s')
    add('our defaults, official u1–u5', [fit(fold_dls(folds[f], 0), d.getint('epochs')) for f in d['folds'].split()], f'≤ {d["max_rmse_folds"]}, < {d["max_seconds"]} s')
    add('the same with sparse updates', [fit(fold_dls(folds[f], 0), d.getint('epochs'), sparse=True) for f in d['folds'].split()], f'the line above + {d["max_loss_sparse"]}')
    big = [RecDataLoaders.from_df(movielens('ml-1m'), valid_pct=.1, seed=int(s)) for s in d['seeds_1m'].split()]
    add('our defaults, ml-1m, random 10%', [fit(o, d.getint('epochs')) for o in big], f'≤ {d["max_rmse_1m"]}, < {d["max_seconds_1m"]} s')
    add('the same with sparse updates', [fit(o, d.getint('epochs'), sparse=True) for o in big], f'the line above + {d["max_loss_sparse"]}')
    ours,stock,once = fastbook(c, ratings, [int(s) for s in c['seeds'].split()])
    add("the book's recipe, fastrec", ours, f'≤ {c["max_rmse"]}')
    add("the book's recipe, stock fastai", stock)
    add("the same, each rating once an epoch", once)
    rep.write()

if __name__=='__main__': main()
