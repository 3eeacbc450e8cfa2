"""What each part gains: an epoch of stock fastai, and with one part after the other replaced; writes results/levers.md"""
from statistics import median
from report import Report,settings
from speed import fastai_epochs,in_turns,ratio,stock_and_ours
from fastrec.all import *

class Recorded(DotBias): "By autograd: `mse_step` is for `DotBias` itself"

def learners(theirs, ours, n_factors):
    sizes = list(map(len, ours.classes.values()))
    def stock_model(): return EmbeddingDotBias(n_factors, *sizes, (.5,5.5))
    mse = MSELossFlat()
    yield 'stock fastai',collab_learner(theirs, n_factors=n_factors, y_range=(.5,5.5))
    yield 'its loader replaced: `RatingsDL`',Learner(ours, stock_model(), mse, wd=.1, metrics=rmse)
    yield 'its optimizer too: `FusedAdam`',Learner(ours, stock_model(), mse, FusedAdam, wd=.1, metrics=rmse)
    yield 'its loop too: `RecLearner`',learner(ours, Recorded, n_factors)
    yield 'autograd too: `mse_step`',learner(ours, n_factors=n_factors)
    yield '(sparse updates, which pay where tables are big)',learner(ours, n_factors=n_factors, sparse=True)

def main():
    c = settings['speed']
    ratings,sizes = movielens(c['release']),list(map(int, c['batch_sizes'].split()))
    k,n = c.getint('n_factors'),c.getint('epochs')
    times = [in_turns({o: fastai_epochs(l, n) for o,l in learners(*stock_and_ours(ratings, bs), k)}, c) for bs in sizes]
    rep = Report('levers', 'an epoch by', *(f'bs {bs}, s' for bs in sizes), *(f'times faster than stock, {bs}' for bs in sizes))
    for k in times[0]: rep.add(k, *(f'{median(t[k]):.3f}' for t in times), *(f'{ratio(t["stock fastai"], t[k]):.1f}' for t in times))
    rep.write()

if __name__=='__main__': main()
