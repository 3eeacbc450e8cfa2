"""Defaults compared with settings that twenty trials chose, on the shapes kept apart; writes results/tuned.md

    python benchmarks/tuned.py                                    all of them: two hours and a half on two quiet cores
    python benchmarks/tuned.py --keep tuned.jsonl                 all, and what is in that file from a run that was stopped is not measured again
    python benchmarks/tuned.py '1,000 users' '0 and 1, rank 5'    those shapes, on the screen"""
import argparse,json,os,warnings
from ranges import make_of
from report import Report,settings
from shapes import loaders,shape_of
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

def measured(df, items, seed, fit):
    "What the defaults reach on a random tenth of `df`, and what twenty trials on the other rows chose"
    space,measure = spaces[fit]
    dls = loaders(df, seed, items)
    found = search(make_of(fit), space, dls, n_trials=20, measure=measure, prune=False, seed=seed)
    best = {k: v.item() if hasattr(v, 'item') else v for k,v in found.best.items()}
    return score(make_of(fit)(dls), measure),score(make_of(fit)(dls, **best), measure),best

def all_kept(keep):
    "What the file `keep` has from a run before: by shape and fit, the pairs of what defaults and tuned settings reach"
    if not keep or not Path(keep).exists(): return {}
    lines = map(json.loads, Path(keep).read_text(encoding='utf-8').splitlines())
    return {(o['shape'],o['fit']): o['pairs'] for o in lines}

def pairs_of(name, df, items, seeds, fit, keep):
    "What the defaults and tuned settings of `fit` reach, for each seed; added to the file `keep`"
    found = [measured(df, items, s, fit) for s in seeds]
    print(name, fit, [(f'{a:.4f}',f'{b:.4f}',c) for a,b,c in found], flush=True)
    pairs = [(float(a),float(b)) for a,b,_ in found]
    if keep:
        with open(keep, 'a', encoding='utf-8') as f: f.write(json.dumps(dict(shape=name, fit=fit, pairs=pairs))+'\n')
    return pairs

def row_of(name, keep):
    "A row of the table: the shape, how many seeds, and each fit's defaults as a multiple of what was tuned"
    df,items = shape_of(name)
    kept = all_kept(keep)
    seeds = (0,1) if len(df)<=_most else (0,)
    row = []
    for fit in spaces:
        pairs = kept.get((name,fit)) or pairs_of(name, df, items, seeds, fit, keep)
        ours,tuned = np.mean(pairs, 0)
        row.append(f'{ours/tuned:.4f}')
    return [name,len(seeds),*row]

def main(names, keep):
    rep = Report('tuned', 'shape', 'seeds', *(f'`{o}`, as a multiple of tuned' for o in spaces))
    every = [o.strip() for o in settings['shapes']['check'].split(';')]
    for row in parallel(row_of, names or every, keep=keep, n_workers=os.cpu_count(), progress=False): rep.add(*row)
    if not names: rep.write()

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('names', nargs='*')
    parser.add_argument('--keep')
    args = parser.parse_args()
    main(args.names, args.keep)
