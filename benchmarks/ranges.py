"""In which range each setting of a fit matters little: one after the other by `search`, the others at their defaults; writes results/ranges.md"""
import warnings
from report import Report
from fastrec.all import *
warnings.simplefilter('ignore')

regs = [.01,.03,.1,.3,1.,3.,10.,30.,100.]
grids = {  # values of each setting; `None` is what the fit finds by itself, and the default, where there is one, is the first
    ('fit_one_cycle','rmse'): dict(wd=[None,.001,.003,.01,.03,.1,.3,1.,3.], n_factors=[50,4,8,16,32,64,128,256],
                                   lr_max=[None,.0003,.001,.002,.004,.007,.012,.02,.04,.08], n_epoch=[5,1,2,3,4,7,10,15,20]),
    ('fit_als','rmse'): dict(reg=[None,*regs], n_factors=[16,4,8,32,64]),
    ('fit_bayes','rmse'): dict(n_factors=[16,4,8,32,64], n_draws=[100,1,3,10,30]),
    ('fit_ials','ndcg_at_10'): dict(reg=[None,*(o/1000 for o in regs)], alpha0=[.5,.01,.03,.1,.2,1.,2.,5.,10.], n_factors=[32,4,8,16,64,128]),
    ('fit_ease','ndcg_at_10'): dict(reg=[None,3.,10.,30.,100.,300.,1000.,3000.,10000.,30000.])}

def make_of(fit):
    "A function of loaders and one setting that fits by `fit`"
    def make(dls, **kwargs):
        of_learner = {k: kwargs.pop(k) for k in ('n_factors',) if fit=='fit_one_cycle' and k in kwargs}
        learn = learner(dls, **of_learner)
        if fit=='fit_one_cycle': kwargs.setdefault('n_epoch', 5)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(**kwargs)
        return learn
    return make

def within(values, scores, is_less_better):
    "The lowest and highest of `values`, numbers, next to the best in order, whose scores are within 1% of the best of all"
    best = min(scores) if is_less_better else max(scores)
    good = {v for v,s in zip(values, scores) if abs(s-best)<=.01*best}
    order = sorted(v for v in values if v is not None)
    top = (min if is_less_better else max)((s,v) for v,s in zip(values, scores) if v is not None)[1]
    lo = hi = order.index(top)
    while lo>0 and order[lo-1] in good: lo -= 1
    while hi<len(order)-1 and order[hi+1] in good: hi += 1
    if top not in good: return 'none of these'
    ends = order[lo],order[hi]
    return f'{ends[0]:g}' if lo==hi else f'{ends[0]:g} to {ends[1]:g}' + (', all that was tried' if len(order)==hi-lo+1 else '')

def main():
    rep = Report('ranges', 'fit', 'setting', 'tried', 'default', 'best', 'within 1% of the best', 'measure', 'default, held out', 'best, held out', 'default, test', 'best, test')
    dls = RecDataLoaders.from_movielens('ml-100k', valid_pct=.2, seed=0)
    for (fit,measure),settings in grids.items():
        for name,values in settings.items():
            found = search(make_of(fit), {name: values}, dls, n_trials=len(values), measure=measure, prune=False)
            scores = [o.value for o in found.trials]
            tested = [make_of(fit)(dls, **{name: o}).evaluate()[measure]['model'] for o in (values[0],found.best[name])]
            numbers = sorted(o for o in values if o is not None)
            shown = ['by rule' if o is None else f'{o:g}' for o in (values[0],found.best[name])]
            rep.add(f'`{fit}`', f'`{name}`', f'{numbers[0]:g} to {numbers[-1]:g}', *shown, within(values, scores, found.task.is_less_better), measure,
                    *(f'{o:.4f}' for o in (scores[0],found.table[measure].agg('min' if found.task.is_less_better else 'max'),*tested)))
    rep.write()

if __name__=='__main__': main()
