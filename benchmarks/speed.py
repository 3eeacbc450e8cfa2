"""A training epoch against stock fastai, in one run: the same model and batch size; writes results/speed.md"""
from statistics import median
from report import Report,settings
from fastrec.all import *

def epoch(learn):
    "Seconds of one training epoch, without validation"
    start = time.perf_counter()
    with learn.no_bar(),learn.no_logging(): learn.fit(1, cbs=SkipValidation())
    return time.perf_counter()-start

class SkipValidation(Callback):
    def before_validate(self): raise CancelValidException

def learners(ratings, frame, bs, n_factors):
    stock = collab_learner(CollabDataLoaders.from_df(frame, seed=0, bs=bs, item_name='title'), n_factors=n_factors, y_range=(.5,5.5))
    ours = RecDataLoaders.from_df(ratings, seed=0, bs=bs)
    return {'stock fastai': stock, 'fastrec, its optimizer': learner(ours, n_factors=n_factors), "fastrec, fastai's Adam": learner(ours, n_factors=n_factors, opt_func=Adam)}

def main():
    c = settings['speed']
    ratings = movielens(c['release'])
    frame = ratings[['user','title','rating']].astype(dict(title='str'))
    rep = Report('speed', 'bs', 'stock fastai, s', 'fastrec, s', 'times faster', "times faster with fastai's Adam", 'to reach')
    for bs in map(int, c['batch_sizes'].split()):
        ls = learners(ratings, frame, bs, c.getint('n_factors'))
        for l in ls.values(): epoch(l)
        runs = [{k: epoch(l) for k,l in ls.items()} for _ in range(c.getint('repeats'))]
        stock,ours,adam = ([r[k] for r in runs] for k in ls)
        ratio = lambda o: median(a/b for a,b in zip(stock,o))
        rep.add(bs, f'{median(stock):.2f}', f'{median(ours):.2f}', f'**{ratio(ours):.2f}**', f'{ratio(adam):.2f}', f'≥ {c["min_ratio"]}')
    rep.write()

if __name__=='__main__': main()
