"""The choices that pages tell of, each compared with another one, on rows held out of the training parts of ml-100k's u1 to u5, none of them test rows of the same fold, and how much what was not chosen should weigh; writes results/choices.md, choices_alpha0.md"""
import warnings
from contextlib import contextmanager
from report import Report
from fastrec.all import *
from fastrec.fit.ease import ease_reg
from fastrec.fit.gibbs import Gibbs
from fastrec.models.choices import choices_of
from shapes import at_most,small
warnings.simplefilter('ignore')

def split(train, seed, per_user=None):
    "Nine tenths and a tenth of the rows, at random, or of as many of each user"
    if per_user: train = train.sample(frac=1, random_state=seed).groupby('user').head(per_user).reset_index(drop=True)
    return lambda **kwargs: RecDataLoaders.from_df(train, item_name='item', valid_pct=.1, seed=seed, **kwargs)

def rmse(learn):
    with learn.no_bar(): return float(learn.validate()[1])  # of the model that a fit leaves
def ndcg(learn): return learn.evaluate().loc['model','ndcg_at_10']

def fitted(make, how='fit_one_cycle', arg=5, begin=noop, bs=None, fit_args={}, **kwargs):
    "A learner on the loaders of `make`, fitted by `how`"
    learn = learner(make() if bs is None else make(bs=bs), **kwargs)
    begin(learn)
    args = (arg,) if how=='fit_one_cycle' else ()
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(*args, **fit_args)
    return learn

def widened(learn):
    "Factors that begin as wide as fastai's"
    with torch.no_grad():
        for factors,_ in learn.model.tables: factors.weight.mul_(2)

def decayed(make, times, bs, sparse=False):
    "Weight decay as a multiple of what the rule says"
    wd = times*scaled_wd(make(bs=bs), sparse)
    return fitted(make, bs=bs, sparse=sparse, wd=wd)

@contextmanager
def replaced(cls, name, f):
    before = getattr(cls, name)
    setattr(cls, name, f)
    try: yield
    finally: setattr(cls, name, before)

drawn = Gibbs._draw_precision
def only(*sides):
    "Draw the precisions of the `sides`, 0 for users and 1 for films; those of the others stay equal"
    def draw(self, k, weighed, scale):
        if k in sides: drawn(self, k, weighed, scale)
        elif k==0: self.precisions[0] = torch.ones_like(self.precisions[0])/weighed.mean()
    return draw

def bayes(make, precisions=None, **fit_args):
    if precisions is None: return fitted(make, 'fit_bayes', fit_args=fit_args)
    with replaced(Gibbs, '_draw_precision', precisions): return fitted(make, 'fit_bayes', fit_args=fit_args)

def ease(make, times):
    "`fit_ease` with a multiple of the regularization that suits the choices"
    dls = make()
    of_pairs = choices_of(*dls.train_ds.codes, *map(len, dls.classes.values()))
    return fitted(make, 'fit_ease', fit_args=dict(reg=times*ease_reg(of_pairs)))

book = dict(bs=64, n_factors=50, y_range=(0,5.5), lr=5e-3, wd=.1)
def by_softmax(make, times):
    kwargs = dict(loss_func=SampledSoftmaxLoss(), metrics=None)
    usual = learner(make(), **kwargs).wd
    return fitted(make, arg=10, wd=times*usual, **kwargs)

choices = [
    # what is compared, rows of each user (all if None), the measure, the choice, and others by name
    ('range of predictions, `fit_one_cycle`', None, rmse, fitted, {'none': partial(fitted, y_range=False)}),
    ("first factors, with the book's settings", None, rmse, partial(fitted, **book), {"as wide as fastai's": partial(fitted, begin=widened, **book)}),
    ('biases, not decayed', None, rmse, fitted, {'decayed': partial(fitted, wd_bn_bias=True)}),
    *((f'weight decay{name}, batches of {bs:,}', None, rmse, partial(decayed, times=1, bs=bs, sparse=sparse),
       {'half': partial(decayed, times=.5, bs=bs, sparse=sparse), 'twice': partial(decayed, times=2, bs=bs, sparse=sparse)})
      for name,sparse in (('',False),(' of sparse updates',True)) for bs in (64,512,4096)),
    ('drawn to biases at the end, 5 ratings a user', 5, rmse, fitted, {'not': partial(fitted, shrink=False)}),
    ('`fit_bayes`, a precision for each user and each film', None, rmse, bayes,
     {'for users only': partial(bayes, precisions=only(0)), 'for films only': partial(bayes, precisions=only(1)), 'one for all': partial(bayes, precisions=only())}),
    ('`fit_bayes`, 200 sweeps', None, rmse, bayes, {'100': partial(bayes, n_sweep=100)}),
    ('`fit_bayes`, 200 sweeps, 20 ratings a user', 20, rmse, bayes, {'100': partial(bayes, n_sweep=100)}),
    ('`fit_bayes`, 100 draws kept', None, rmse, bayes, {str(n): partial(bayes, n_draws=n) for n in (50,25,10)}),
    ('weight of what was not chosen, `fit_ials`, 10 ratings a user', 10, ndcg, partial(fitted, how='fit_ials'), {'.5': partial(fitted, how='fit_ials', fit_args=dict(alpha0=.5))}),
    ('regularization, `fit_ease`', None, ndcg, partial(ease, times=1), {'half': partial(ease, times=.5), 'twice': partial(ease, times=2)}),
    ('weight decay, softmax of choices', None, ndcg, partial(by_softmax, times=1), {'half': partial(by_softmax, times=.5), 'twice': partial(by_softmax, times=2)}),
]

def main():
    rep = Report('choices', 'choice', 'compared with', 'measure', 'as chosen', 'the other', 'difference, mean ± standard error of five')
    folds = [train for fold,(train,_) in movielens_folds('ml-100k').items() if fold<'u6']
    for name,per_user,measure,chosen,others in choices:
        makes = [split(train, seed, per_user) for seed,train in enumerate(folds)]
        ours = np.array([measure(chosen(o)) for o in makes])
        for other,fit in others.items():
            theirs = np.array([measure(fit(o)) for o in makes])
            gap = theirs-ours
            error = gap.std(ddof=1)/len(gap)**.5
            label = 'RMSE' if measure is rmse else 'NDCG@10'
            rep.add(name, other, label, f'{ours.mean():.4f}', f'{theirs.mean():.4f}', f'{gap.mean():+.4f} ± {error:.4f}')
    rep.write()

def of_unchosen():
    "NDCG@10 of `fit_ials` by what all that was not chosen weighs together, in units of what was chosen, compared with .5 for each pair"
    times,shapes = (8,12,16,20,30),{}
    for n in (10,15,20): shapes[f'{n} ratings a user'] = at_most(small(), n)
    for n in (10,20): shapes[f'the first {n} a user'] = at_most(small(), n, True)
    rep = Report('choices_alpha0', 'of ml-100k', 'pairs chosen', *(f'{o} times' for o in times))
    for name,df in shapes.items():
        found = []
        for seed in range(5):
            def make(seed=seed): return RecDataLoaders.from_df(df, item_name='item', valid_pct=.1, seed=seed)
            dls = make()
            n_users,n_items = (len(o)-1 for o in dls.classes.values())
            share = len(dls.train_ds)/(n_users*n_items)
            found.append([ndcg(fitted(make, 'fit_ials', fit_args=dict(alpha0=o))) for o in (.5, *(min(.5, n*share) for n in times))])
        each,*by_times = np.mean(found, axis=0)
        rep.add(name, f'{share:.1%}', *(f'{o/each:.3f}' for o in by_times))
    rep.write()

if __name__=='__main__':
    main()
    of_unchosen()

