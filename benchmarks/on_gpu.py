"""On a GPU: an epoch at ml-25m's size, how long the GPU waits for the host, and a Gibbs sweep at ml-32m's size; writes results/cuda.md and results/cuda_gibbs.md"""
import sys
from report import Report,settings
from growth import long_tail
from time_to_rmse import SkipValidation
from fastrec.all import *
from torch.profiler import ProfilerActivity,profile

def epoch(learn):
    "Seconds of an epoch of training, without validation"
    torch.cuda.synchronize()
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=SkipValidation())
    torch.cuda.synchronize()
    return time.perf_counter()-start

def busy(learn):
    "Share of an epoch in which a kernel runs"
    with profile(activities=[ProfilerActivity.CUDA]) as p: wall = epoch(learn)
    return sum(o.self_device_time_total for o in p.key_averages())/1e6/wall

def sweeps(c):
    "Seconds of a sweep of `fit_bayes`, from the difference of fits of two lengths"
    rep = Report('cuda_gibbs', 'device', 'factors', 'a sweep, s', 'to reach')
    dls = RecDataLoaders.from_df(long_tail(*map(int, c['gibbs_size'].split())), seed=0, valid_pct=.001, device='cuda')
    def fit(n):
        learn = dot_learner(dls)
        torch.cuda.synchronize()
        start = time.perf_counter()
        with learn.no_bar(),learn.no_logging(): learn.fit_bayes(c.getint('gibbs_factors'), n, burn=n-1, n_draws=1)
        torch.cuda.synchronize()
        return time.perf_counter()-start
    fit(3)
    rep.add(torch.cuda.get_device_name(), c['gibbs_factors'], f'**{(fit(13)-fit(3))/10:.2f}**', f'≤ {c["max_sweep"]} s')
    rep.write()

def main():
    if not torch.cuda.is_available(): sys.exit('there is no CUDA device')
    c = settings['cuda']
    df = long_tail(*map(int, c['size'].split()))
    rep = Report('cuda', 'device', 'updates', 'bs', 'an epoch, s', 'GPU idle', 'to reach')
    for sparse in (False,True):
        learn = learner(RecDataLoaders.from_df(df, seed=0, valid_pct=.01, bs=c.getint('bs'), device='cuda'), sparse=sparse)
        epoch(learn)
        t = min(epoch(learn) for _ in range(3))
        rep.add(torch.cuda.get_device_name(), 'sparse' if sparse else 'dense', c['bs'], f'**{t:.2f}**', f'{1-busy(learn):.0%}', '' if sparse else f'≤ {c["max_seconds"]} s, ≤ {c.getfloat("max_idle"):.0%}')
    rep.write()
    sweeps(c)

if __name__=='__main__': main()
