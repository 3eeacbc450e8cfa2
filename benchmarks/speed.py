"""An epoch of training and validation against stock fastai and against a bare PyTorch loop, in one run; writes results/speed.md"""
from statistics import median
from report import Report,settings
from fastrec.all import *

def fastai_epoch(learn):
    "An epoch with its validation, by `fit`"
    def run():
        with learn.no_bar(),learn.no_logging(): learn.fit(1)
    return run

def bare_epoch(dls, n_factors):
    "The same in the shortest PyTorch there is: the data in memory, EmbeddingDotBias, fused AdamW, no bookkeeping"
    model = EmbeddingDotBias(n_factors, *map(len, dls.classes.values()), (.5,5.5))
    opt = torch.optim.AdamW(model.parameters(), lr=5e-3, weight_decay=.1, betas=(.9,.99), eps=1e-5, fused=True)
    (x,y),(vx,vy) = ((o.x.long(),o.y) for o in (dls.train_ds,dls.valid_ds))
    def run():
        model.train()
        for i in torch.randperm(len(x)).split(dls.train.bs):
            F.mse_loss(model(x[i]), y[i]).backward()
            opt.step()
            opt.zero_grad()
        model.eval()
        with torch.no_grad(): sum(F.mse_loss(model(a), b, reduction='sum') for a,b in zip(vx.split(dls.valid.bs), vy.split(dls.valid.bs)))
    return run

def seconds(f):
    start = time.perf_counter()
    f()
    return time.perf_counter()-start

def compare(runs, repeats):
    "Seconds of each of the functions `runs`, in turns; the first time doesn't count"
    for f in runs.values(): f()
    rounds = [{k: seconds(f) for k,f in runs.items()} for _ in range(repeats)]
    return {k: [r[k] for r in rounds] for k in runs}

def ratio(a, b): return median(x/y for x,y in zip(a, b))

def stock_and_ours(ratings, bs):
    "The same split and batch size as stock `CollabDataLoaders` and as `RecDataLoaders`"
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    return CollabDataLoaders.from_df(frame, seed=0, bs=bs, item_name='title'),RecDataLoaders.from_df(ratings, seed=0, bs=bs)

def main():
    c = settings['speed']
    ratings,k = movielens(c['release']),c.getint('n_factors')
    rep = Report('speed', 'bs', 'stock fastai, s', 'bare PyTorch, s', 'fastrec, s', 'times faster than stock', 'to reach', 'time against bare PyTorch', 'to reach')
    for bs,least in zip(map(int, c['batch_sizes'].split()), c['min_ratios'].split()):
        theirs,ours = stock_and_ours(ratings, bs)
        t = compare({'stock': fastai_epoch(collab_learner(theirs, n_factors=k, y_range=(.5,5.5))), 'bare': bare_epoch(ours, k),
                     'ours': fastai_epoch(learner(ours, n_factors=k))}, c.getint('repeats'))
        rep.add(bs, *(f'{median(o):.3f}' for o in t.values()), f'**{ratio(t["stock"], t["ours"]):.1f}**', f'≥ {least}', f'**{ratio(t["ours"], t["bare"]):.2f}**', f'≤ {c["max_bare"]}')
    rep.write()

if __name__=='__main__': main()
