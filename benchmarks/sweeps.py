"""What a sweep of each solver costs on ml-1m, compared with implicit's and myFM's of the same width and with the same threads; writes results/sweeps.md"""
import time,warnings
from report import Report
from fastrec.all import *
from ranking import als,loaders
from time_to_rmse import Split,myfm
import scipy.sparse as sp
warnings.simplefilter('ignore')

_sweeps,_repeats = (2,6),3  # short and long runs, whose difference is that of the sweeps between; and how often

def a_sweep(run):
    "Seconds of a sweep, by the difference of two lengths of `run`, the median of some repeats"
    def seconds(n):
        start = time.perf_counter()
        run(n)
        return time.perf_counter()-start
    short,long = _sweeps
    return np.median([(seconds(long)-seconds(short))/(long-short) for _ in range(_repeats)])

def ours(dls, fit, **kwargs):
    def run(n):
        learn = dot_learner(dls)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(n_sweep=n, **kwargs)
    return run

def draws(dls, width):
    "Runs that go on, for a new sampler looks for a start first, which takes longer than some sweeps"
    learn = dot_learner(dls)
    def run(n):
        with learn.no_bar(),learn.no_logging(): learn.fit_bayes(width, n, burn=0)
    run(1)
    return run

def implicits(rated, width, **kwargs):
    def run(n): als(width, iterations=n, num_threads=torch.get_num_threads(), random_state=0, **kwargs).fit(rated, show_progress=False)
    return run

def main():
    train,test = train_test(movielens('ml-1m'), SeededSplitter(.1, seed=0))
    dls = loaders(train, test)
    x,sizes = dls.train_ds.x.long(),[len(v) for v in dls.classes.values()]
    rated = sp.csr_matrix((np.ones(len(x), 'float32'), x.T.numpy()), shape=sizes)
    rep = Report('sweeps', 'fit', 'width', 'seconds a sweep', 'compared with', 'seconds a sweep of it', 'ratio', 'to reach')
    def add(fit, width, mine, peer, theirs, goal):
        mine,theirs = a_sweep(mine),a_sweep(theirs)
        rep.add(f'`{fit}`', width, f'{mine:.3f}', peer, f'{theirs:.3f}', f'**{mine/theirs:.2f}**', goal)
    for k in (32,64,128):
        add('fit_ials', k, ours(dls, 'fit_ials', n_factors=k, reg=.004), 'implicit ALS, 3 steps of conjugate gradients', implicits(rated, k), '≤ 1.0' if k>32 else '')
    add('fit_ials', 64, ours(dls, 'fit_ials', n_factors=64, reg=.004), 'implicit ALS, by Cholesky', implicits(rated, 64, use_cg=False), '')
    for k in (16,64,128):
        add('fit_als', k, ours(dls, 'fit_als', n_factors=k, tol=0), 'implicit ALS, by Cholesky', implicits(rated, k, use_cg=False), '≤ 1.0' if k>16 else '')
    add('fit_als(reg=1.3)', 64, ours(dls, 'fit_als', n_factors=64, reg=1.3, tol=0), 'implicit ALS, by Cholesky', implicits(rated, 64, use_cg=False), '≤ 1.0')
    split = Split(train, test)
    for k in (16,32): add('fit_bayes', k, draws(dls, k), 'myFM, a draw', lambda n: myfm(split, rank=k, n_iter=n), '≤ .25')
    rep.write()

if __name__=='__main__': main()
