"""On a GPU: an epoch at ml-25m's size, how long the GPU waits for the host, a Gibbs sweep, a grid and everyone's lists at ml-32m's size; writes results/cuda.md, results/cuda_gibbs.md and results/cuda_grids.md"""
import sys
import grids
from report import Report,settings
from growth import long_tail
from time_to_rmse import SkipValidation
from fastrec.all import *
from fastrec.answer.lists import best_unseen
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

def synced(f):
    "`f`, waiting until the GPU has done its work"
    def res():
        f()
        torch.cuda.synchronize()
    return res

def lists(c):
    "A grid compared with a copy as large, and the best unseen of everyone: found, and written to Parquet"
    rep = Report('cuda_grids', 'device', 'what', 'time, s', 'to reach')
    n_ratings,n_users,n_items = map(int, c['gibbs_size'].split())
    m,ds = grids.factor_model(n_users, n_items, c.getint('list_factors')-2)
    seen = Seen(grids.long_tail(n_ratings, n_users, n_items), n_users+1, n_items+1)
    seen.counts.clamp_(min=1)
    rec,users,n = Recommender(m.cuda(), ds, seen),range(c.getint('grid_users')),c.getint('list_n')
    add = partial(rep.add, torch.cuda.get_device_name())
    out = torch.empty(len(users), n_items, device='cuda')
    other = out.clone()
    grid,copy = grids.timed(synced(lambda: rec.predict_grid(users, out=out)), synced(lambda: other.copy_(out)))
    add(f'grid of {len(users):,} × {n_items:,}', f'**{grid:.3f}**, a copy as large {copy:.3f}: {copy/(2*grid):.0%} of its bandwidth', f'≥ {c.getfloat("min_bandwidth"):.0%}')
    del out,other
    codes = [torch.arange(1, k+1) for k in (n_users,n_items)]
    for max_bytes in map(int, c['list_bytes'].split()):
        t, = grids.timed(synced(lambda: best_unseen(rec, rec.model, *codes, n, seen, max_bytes, noop)))
        add(f'top {n} unseen of {n_users:,} × {n_items:,}, {max_bytes/2**30:g} GB for scores', f'**{t:.3f}**', f'≤ {c["max_list_seconds"]}')
    with tempfile.TemporaryDirectory() as d:
        t, = grids.timed(lambda: rec.recommend(n=n, path=Path(d)/'recs.parquet', max_bytes=max_bytes), repeats=1)
    add('the same to Parquet', f'{t:.1f}', '')
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
    lists(c)

if __name__=='__main__': main()
