"""Defaults beside settings that twenty trials chose, on the shapes kept apart; writes results/tuned.md

    python benchmarks/tuned.py                                    all of them: some hours
    python benchmarks/tuned.py '1,000 users' '0 and 1, rank 5'    those shapes, on the screen"""
import os,sys,warnings
from ranges import make_of
from report import Report,settings
from shapes import loaders,shapes
from fastrec.all import *
warnings.simplefilter('ignore')

spaces = {  # what each fit is tuned by, and what for
    'fit_one_cycle': (dict(wd=(1e-3,10.,'log'), lr_max=(1e-3,5e-2,'log'), n_epoch=(2,15), n_factors=[8,16,32,64,128]), 'rmse'),
    'fit_sgd': (dict(lr=(3e-3,.1,'log'), reg=(1e-2,.5,'log'), n_sweep=[10,20,40], n_factors=[8,16,32,64,128]), 'rmse'),
    'fit_als': (dict(reg=(.1,100.,'log'), n_factors=[4,8,16,32,64]), 'rmse'),
    'fit_bayes': (dict(n_factors=[2,4,8,16,32,64], n_sweep=[50,100,200]), 'rmse'),
    'fit_ials': (dict(reg=(1e-4,1.,'log'), alpha0=(.03,10.,'log'), n_factors=[16,32,64,128]), 'ndcg_at_10')}

_most = 200_000  # ratings of a shape that two seeds are drawn for, with eighty fits each; one for a bigger one

def score(learn, measure):
    "RMSE of what is held out, or a measure of lists"
    return learn.history.rmse.iloc[-1] if measure=='rmse' else learn.evaluate()[measure]['model']

def measured(df, seed, fit):
    "What the defaults reach on a random tenth of `df`, and what twenty trials on the other rows chose"
    space,measure = spaces[fit]
    dls = loaders(df, seed)
    found = search(make_of(fit), space, dls, n_trials=20, measure=measure, prune=False, seed=seed)
    best = {k: v.item() if hasattr(v, 'item') else v for k,v in found.best.items()}
    return score(make_of(fit)(dls), measure),score(make_of(fit)(dls, **best), measure),best

def row_of(name):
    "A row of the table: the shape, how many seeds, and each fit's defaults as a multiple of what was tuned"
    df = shapes[name]()
    seeds = (0,1) if len(df)<=_most else (0,)
    row = []
    for fit in spaces:
        pairs = [measured(df, s, fit) for s in seeds]
        print(name, fit, [(f'{a:.4f}',f'{b:.4f}',c) for a,b,c in pairs], flush=True)
        row.append(f'{np.mean([a for a,_,_ in pairs])/np.mean([b for _,b,_ in pairs]):.4f}')
    return [name,len(seeds),*row]

def main(*names):
    rep = Report('tuned', 'shape', 'seeds', *(f'`{o}`, as a multiple of tuned' for o in spaces))
    rows = parallel(row_of, names or [o.strip() for o in settings['shapes']['check'].split(';')], n_workers=os.cpu_count(), progress=False)
    for row in rows: rep.add(*row)
    if not names: rep.write()

if __name__=='__main__': main(*sys.argv[1:])
