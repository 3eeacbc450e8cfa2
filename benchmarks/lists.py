"""What the lists of each fit find by its defaults, compared with popularity and with implicit's ALS, tuned; writes results/lists.md"""
import time,warnings
from ranking import als,loaders,n_settings,systems,theirs
from report import Report
from fastrec.all import *
warnings.simplefilter('ignore')

implicits = f'implicit ALS, the best of {n_settings} settings'
fits = {'fit_als': {}, 'fit_ials': {}, 'fit_ease': {}, 'fit_blend': {}, 'fit_blend(min_rating=4)': dict(min_rating=4)}

def found(dls, fit, kwargs):
    "NDCG@10 of all that was held out and of what is rated 4 or 5, for the model and for popularity, and the CPU seconds of the fit"
    learn = learner(dls)
    start = time.process_time()
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit.split('(')[0])(**kwargs)
    seconds = time.process_time()-start
    both = [learn.evaluate(min_rating=o).ndcg_at_10 for o in (None,4.)]
    return [o['model'] for o in both]+[seconds],[o['popularity'] for o in both]+[0.]

def measured(train, test):
    "A row for each system"
    dls = loaders(train, test)
    res = {}
    for fit,kwargs in fits.items(): res[f'`{fit}`'],res['popularity'] = found(dls, fit, kwargs)
    inner = loaders(*train_test(train, SeededSplitter(.2, seed=0)))
    best = max(systems['implicit ALS'][1], key=lambda kw: theirs(inner, als, **kw)['model'])
    start = time.process_time()
    of_all = theirs(dls, als, **best)['model']
    res[implicits] = [of_all,np.nan,time.process_time()-start]
    return res

def splits():
    "Names, and the pairs of frames that are averaged under each"
    small,big = movielens('ml-100k'),movielens('ml-1m')
    yield 'u1 to u5',[o for name,o in movielens_folds().items() if name.startswith('u') and name[1:].isdecimal()]
    yield "ml-100k, each user's last rating",[train_test(small, LeaveLastSplitter())]
    yield 'ml-1m, a random fifth',[train_test(big, SeededSplitter(.2, seed=0))]
    yield "ml-1m, each user's last rating",[train_test(big, LeaveLastSplitter())]

to_reach = {'`fit_blend`': '≥ each other', '`fit_blend(min_rating=4)`': 'of 4 and 5 ≥ 1.07 × `fit_ials`'}

def add_rows(rep, name, runs):
    "Rows of means over `runs`, each of which has a row for each system"
    for system in ['popularity',*(f'`{o}`' for o in fits),implicits]:
        all_,liked,seconds = np.mean([o[system] for o in runs], axis=0)
        rep.add(name, system, f'{all_:.4f}', '' if np.isnan(liked) else f'{liked:.4f}', f'{seconds:.1f}' if seconds else '', to_reach.get(system, ''))

def main():
    rep = Report('lists', 'split', 'lists by', 'NDCG@10', 'of what is rated 4 or 5', 'CPU seconds', 'to reach')
    for name,pairs in splits():
        runs = [measured(*o) for o in pairs]
        if len(runs)==5: add_rows(rep, 'u1 to u3', runs[:3])
        add_rows(rep, name, runs)
    rep.write()

if __name__=='__main__': main()
