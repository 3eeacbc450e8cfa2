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

def fastbook(c, ratings, seeds):
    kwargs = dict(n_factors=c.getint('n_factors'), y_range=(c.getfloat('y_low'),c.getfloat('y_high')), fit_kwargs=dict(lr_max=c.getfloat('lr'), wd=c.getfloat('wd')))
    ours = [fit(RecDataLoaders.from_df(ratings, seed=s, bs=c.getint('bs')), c.getint('epochs'), **kwargs) for s in seeds]
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    stock = [fit(CollabDataLoaders.from_df(frame, seed=s, bs=c.getint('bs'), item_name='title'), c.getint('epochs'), collab_learner, metrics=rmse, **kwargs) for s in seeds]
    return ours,stock

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
    ours,stock = fastbook(c, ratings, [int(s) for s in c['seeds'].split()])
    add("the book's recipe, fastrec", ours, f'≤ {c["max_rmse"]}')
    add("the book's recipe, stock fastai", stock)
    rep.write()

if __name__=='__main__': main()
