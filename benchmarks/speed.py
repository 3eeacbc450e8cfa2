"""An epoch of training and validation against stock fastai and against a bare PyTorch loop, in one run, as a part of a short fit, with what
the fit does before and after; writes results/speed.md.
Each set of instructions has a process of its own: PyTorch asks for it once"""
import json,subprocess,sys
from statistics import median
from report import Report,settings
from fastrec.all import *

def fastai_epochs(learn, n):
    "`n` epochs with their validation, by `fit`"
    def run():
        with learn.no_bar(),learn.no_logging(): learn.fit(n)
    return run

def bare_epochs(dls, n_factors, n):
    "The same in the shortest PyTorch there is: the data in memory, EmbeddingDotBias, fused AdamW, no bookkeeping"
    model = EmbeddingDotBias(n_factors, *map(len, dls.classes.values()), (.5,5.5))
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=.1, betas=(.9,.99), eps=1e-5, fused=True)
    (x,y),(vx,vy) = ((o.x.long(),o.y) for o in (dls.train_ds,dls.valid_ds))
    def epoch():
        model.train()
        for i in torch.randperm(len(x)).split(dls.train.bs):
            F.mse_loss(model(x[i]), y[i]).backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad(): sum(F.mse_loss(model(a), b, reduction='sum') for a,b in zip(vx.split(dls.valid.bs), vy.split(dls.valid.bs)))
    return lambda: [epoch() for _ in range(n)]

def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def in_turns(runs, c):
    "Seconds of an epoch of each of the functions `runs`, in turns; the first time doesn't count"
    for f in runs.values(): f()
    rounds = [{k: seconds(f)/c.getint('epochs') for k,f in runs.items()} for _ in range(c.getint('repeats'))]
    return {k: [r[k] for r in rounds] for k in runs}

def ratio(a, b): return median(x/y for x,y in zip(a, b))

def stock_and_ours(ratings, bs):
    "The same split and batch size as stock `CollabDataLoaders` and as `RecDataLoaders`"
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    return CollabDataLoaders.from_df(frame, seed=0, bs=bs, item_name='title'),RecDataLoaders.from_df(ratings, seed=0, bs=bs)

def of_dot(ratings, bs, c):
    "Seconds of stock fastai, bare PyTorch and fastrec for a dot product"
    theirs,ours = stock_and_ours(ratings, bs)
    k,n = c.getint('n_factors'),c.getint('epochs')
    return in_turns({'stock': fastai_epochs(collab_learner(theirs, n_factors=k, y_range=(.5,5.5)), n), 'bare': bare_epochs(ours, k, n),
                     'ours': fastai_epochs(learner(ours, n_factors=k), n)}, c)

def of_net(ratings, bs, c):
    "Seconds of stock fastai and fastrec for a network"
    theirs,ours = stock_and_ours(ratings, bs)
    layers,n = [c.getint('layers')],c.getint('epochs')
    return in_turns({'stock': fastai_epochs(collab_learner(theirs, use_nn=True, layers=layers, y_range=(.5,5.5)), n),
                     'ours': fastai_epochs(nn_learner(ours, layers=layers), n)}, c)

def rows(c):
    "A row for each model and batch size"
    ratings,sizes = movielens(c['release']),[*map(int, c['batch_sizes'].split())]
    for bs,least,most in zip(sizes, c['min_ratios'].split(), c['max_bare'].split()):
        t = of_dot(ratings, bs, c)
        yield 'dot product',bs,*(f'{median(o):.3f}' for o in t.values()),f'**{ratio(t["stock"], t["ours"]):.1f}**',f'≥ {least}',f'**{ratio(t["ours"], t["bare"]):.2f}**',f'≤ {most}'
    for bs in sizes:
        t = of_net(ratings, bs, c)
        stock,ours = (f'{median(o):.3f}' for o in t.values())
        yield 'network',bs,stock,'',ours,f'**{ratio(t["stock"], t["ours"]):.1f}**',f'≥ {c["min_net"]}' if bs<4096 else '','',''

def main():
    c = settings['speed']
    if sys.argv[1:]==['rows']: return print(json.dumps([torch.backends.cpu.get_cpu_capability(),[*rows(c)]]))
    rep = Report('speed', 'instructions', 'model', 'bs', 'stock fastai, s', 'bare PyTorch, s', 'fastrec, s', 'times faster than stock', 'to reach', 'time against bare PyTorch', 'to reach')
    for o in c['instructions'].split():
        env = {k: v for k,v in os.environ.items() if k!='ATEN_CPU_CAPABILITY'}
        if o!='all': env['ATEN_CPU_CAPABILITY'] = o
        out = subprocess.run([sys.executable, __file__, 'rows'], env=env, stdout=subprocess.PIPE, text=True, check=True).stdout
        used,found = json.loads(out.splitlines()[-1])
        for row in found: rep.add(used, *row)
    rep.write()

if __name__=='__main__': main()
