"""Every fit of fastrec, and its peers, with the best settings that we know of, on ml-100k's official folds and a random tenth of ml-1m, and what the time of a rating is worth by protocol; writes results/fits.md, fits_1m.md and fits_time.md"""
import os,sys,warnings
os.environ.setdefault('OMP_NUM_THREADS', '2')  # solvers gain from a second thread, and their peers too
from contextlib import redirect_stderr,redirect_stdout
from io import StringIO
from report import Report,settings
from fastrec.all import *
from fastrec.answer.predict import predict_codes,std_of_codes
from time_to_rmse import Split,cornac,lenskit,myfm,surprise
warnings.simplefilter('ignore')

def sgd(dls, **kwargs):
    learn = dot_learner(dls, **kwargs)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(5)
    return learn

def solved(dls, how, **kwargs):
    learn = dot_learner(dls)
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(**kwargs)
    return learn

def covered(learn):
    "Share of the validation ratings within the 90% interval of their prediction"
    valid = learn.dls.valid_ds
    return ((predict_codes(learn.model, valid.x)-valid.y).abs() < 1.645*std_of_codes(learn.model, valid.x)).float().mean().item()

ours = {'fit_bias': partial(solved, how='fit_bias'), 'SGD (`fit_one_cycle`)': sgd, 'SGD, sparse updates': partial(sgd, sparse=True), 'fit_als': partial(solved, how='fit_als'),
        'fit_ials': partial(solved, how='fit_ials'), 'fit_bayes': partial(solved, how='fit_bayes'), "fit_bayes, side='implicit'": partial(solved, how='fit_bayes', side='implicit'),
        'fit_bayes, n_sweep=100': partial(solved, how='fit_bayes', n_sweep=100),
        "fit_bayes, side='implicit', n_sweep=100": partial(solved, how='fit_bayes', side='implicit', n_sweep=100)}
def all_sides():
    "The last rows: all that ml-100k tells of users and films, without and with the time"
    side = ['implicit',*movielens_sides('ml-100k', item_name='item')]
    names = {"fit_bayes, all sides": {}, "fit_bayes, all sides, time='1D'": dict(time='1D'), "fit_bayes, all sides, time=['1D','1min']": dict(time=['1D','1min'])}
    return {k: partial(solved, how='fit_bayes', side=side, **v) for k,v in names.items()}
goals = {'fit_bayes': '', 'fit_bayes, n_sweep=100': 'fit_bayes', "fit_bayes, side='implicit', n_sweep=100": 'fit_bayes_implicit', "fit_bayes, all sides, time='1D'": 'fit_bayes_frontier'}
peers = {'Cornac MF, k 200': partial(cornac, k=200, max_iter=100, learning_rate=.005, lambda_reg=.08), 'Surprise SVD, k 100': partial(surprise, n_factors=100, n_epochs=60, lr_all=.01, reg_all=.1),
         'LensKit BiasedMF ALS, k 50': partial(lenskit, kind='als', embedding_size=50), 'myFM Bayesian MF, rank 10': partial(myfm, rank=10, n_iter=200)}

def on_folds():
    c = settings['fits']
    folds = {k: v for k,v in movielens_folds('ml-100k').items() if k in c['folds'].split()}
    rep = Report('fits', 'fit', 'RMSE, mean of u1 to u5', 'std', 'each', 'MAE', 'NDCG@10', 'seconds a fold', '90% intervals cover', 'to reach')
    for name,fit in (ours|all_sides()).items():
        learns = []
        def run(dls):
            learns.append(fit(dls))
            return learns[-1]
        with redirect_stdout(StringIO()): df = cross_validate(run, folds, item_name='item', seed=0, time_name='timestamp' if 'time=' in name else None)
        shares = [covered(o) for o in learns if 'bayes' in name]
        m = df.loc['mean']
        goal = c.get(goals.get(name, name), '')
        rate = lambda v: '' if np.isnan(v) else f'{v:.4f}'
        rep.add(name, rate(m.rmse) and f'**{rate(m.rmse)}**', rate(df.rmse['std']), ' '.join(map(rate, df.rmse[:-2])), rate(m.mae), f'{m.ndcg_at_10:.3f}', f'{df.seconds[:-2].median():.2f}', ' '.join(f'{o:.1%}' for o in shares), goal)
    for name,f in peers.items():
        with redirect_stdout(StringIO()),redirect_stderr(StringIO()): res = [f(Split(*o)) for o in folds.values()]
        r = [o for _,o in res]
        rep.add(name, f'{np.mean(r):.4f}', f'{np.std(r, ddof=1):.4f}', ' '.join(f'{o:.4f}' for o in r), '', '', f'{np.median([t for (t,_),_ in res]):.2f}', '', '')
    rep.write()

def on_ml_1m():
    c = settings['fits']
    ratings = movielens('ml-1m')
    test = np.random.default_rng(0).permutation(len(ratings))[:len(ratings)//10]
    split = ratings.drop(ratings.index[test]).reset_index(drop=True),ratings.iloc[test].reset_index(drop=True)
    rep = Report('fits_1m', 'fit', 'RMSE, a random tenth of ml-1m', 'seconds', 's a sweep', 'to reach')
    fits = {'SGD (`fit_one_cycle`)': (sgd,{},''), 'fit_als': ('fit_als',dict(n_sweep=8),''), 'fit_bayes': ('fit_bayes',dict(n_factors=32, n_sweep=60),'1m_bayes'),
            "fit_bayes, side='implicit'": ('fit_bayes',dict(n_factors=24, n_sweep=60, side='implicit'),'1m_implicit'),
            "fit_bayes, side='implicit', longer": ('fit_bayes',dict(n_factors=40, n_sweep=180, n_draws=200, side='implicit'),'1m_implicit_longer'),
            "fit_bayes, all sides": ('fit_bayes',dict(n_factors=80, n_sweep=250, n_draws=225, side=['implicit',*movielens_sides('ml-1m', item_name='item')]),'1m_frontier')}
    for name,(how,kwargs,goal) in fits.items():
        with redirect_stdout(StringIO()): df = cross_validate(how if callable(how) else partial(solved, how=how, **kwargs), [split], item_name='item', seed=0)
        m,shown = df.iloc[0],', '.join(f'{k} {v}' for k,v in kwargs.items() if k!='side')
        rep.add(f'{name} ({shown})' if shown else name, f'**{m.rmse:.4f}**', f'{m.seconds:.1f}', f'{m.seconds/kwargs["n_sweep"]:.2f}' if kwargs else '', c.get(goal, ''))
    (t,_),r = myfm(Split(*split), rank=32, n_iter=20)
    rep.add('myFM Bayesian MF, rank 32, 20 draws', f'{r:.4f}', f'{t:.1f}', f'{t/20:.2f}', '')
    rep.write()

def by_time():
    rep,ratings = Report('fits_time', 'held out of ml-100k', 'no time', "time='1D'", "time=['1D','1min']"),movielens('ml-100k')
    for name,splitter in (('a random fifth',SeededSplitter(.2, seed=0)),('the last five of each user',LeaveLastSplitter(5)),('the last fifth of all',TimeSplitter(.2))):
        dls = RecDataLoaders.from_df(ratings, splitter, item_name='item', time_name='timestamp', seed=0)
        with warnings.catch_warnings(), redirect_stdout(StringIO()): rmses = [solved(dls, 'fit_bayes', side='implicit', time=o).history.rmse.iloc[-1] for o in (None,'1D',['1D','1min'])]
        rep.add(name, *(f'{o:.4f}' for o in rmses))
    rep.write()

if __name__=='__main__':
    on_ml_1m()  # before LensKit is imported, which takes the second thread from everybody
    on_folds()
    by_time()
