"""A tenth of the items, held out whole and taken in by features, by their first ratings and by both, compared with models trained again, and with myFM; writes results/newcomers.md"""
import warnings
from report import Report
from fastrec.all import *
warnings.simplefilter('ignore')

n_splits,n_first = 3,(1,3,10)  # ratings that come in; the rest of the item's are predicted
runs = [('ml-100k','fit_als'),('ml-100k','fit_bayes'),('ml-100k','fit_one_cycle'),('ml-100k','nn_learner: fit_one_cycle'),('ml-1m','fit_als')]

class Split:
    "A tenth of the items of `df`, with more than ten ratings each, held out whole; `first(k)` of each come in, and `rest` is predicted"
    def __init__(self, df, users, items, seed):
        rng = np.random.default_rng(seed)
        often = df.title.value_counts().loc[lambda n: n>max(n_first)].index
        held = set(rng.choice(sorted(often), df.title.nunique()//10, replace=False))
        df = df.assign(title=df.title.astype(str)).sample(frac=1, random_state=seed)
        is_held = df.title.isin(held)
        self.early,late = df[~is_held],df[is_held]
        self.place,self.late = late.groupby('title').cumcount(),late
        self.rest = late[self.place>=max(n_first)]
        self.users = users
        self.old,self.new = items[~items.index.isin(held)],items[items.index.isin(held)]
    def first(self, k): return self.late[self.place<k]

def fitted(ratings, fit, **features):
    "A learner of all `ratings`"
    dls = RecDataLoaders.from_df(ratings, lambda o: (range(len(o)),[0]), item_name='title', seed=0, **features)
    *is_net,fit = fit.split(': ')
    learn = (nn_learner if is_net else learner)(dls, seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*[5]*(fit=='fit_one_cycle'))
    return learn

def rmse(rec, rest, **kwargs): return float(((rec.predict_df(rest, **kwargs)-rest.rating)**2).mean()**.5)

def coverage(rec, rest, **kwargs):
    "Share of ratings within the 90% interval; nothing without draws"
    try: pred = rec.predict_df(rest, std=True, **kwargs)
    except ValueError: return float('nan')
    return float(((pred.rating_pred-rest.rating).abs()<1.645*pred['std']).mean())

def by_myfm(split):
    "RMSE of myFM with the same features, which has one for each user and each item too"
    import myfm,scipy.sparse as sp
    both = pd.concat([split.early, split.rest], ignore_index=True)
    all_items = pd.concat([split.old, split.new])
    cols = []
    for name,frame in (('user',split.users),('title',all_items)):
        vocab = Vocab(sorted(both[name].unique()), name)
        codes = vocab.encode(both[name])
        cols.append(sp.csr_matrix((np.ones(len(both)), (range(len(both)),codes)), shape=(len(both),len(vocab))))
        cols.append(sp.csr_matrix(Features(frame, vocab).x.to_dense().numpy())[codes])
    x,n = sp.hstack(cols).tocsr(),len(split.early)
    groups = [k for k,c in enumerate(cols) for _ in range(c.shape[1])]
    model = myfm.MyFMRegressor(rank=16, random_seed=0).fit(x[:n], split.early.rating.to_numpy(float), n_iter=200, grouping=groups)
    return float(((model.predict(x[n:])-split.rest.rating)**2).mean()**.5)

def measured(split, fit):
    "RMSE, and the share within intervals, by what was known of the held-out items"
    rest,told = split.rest,dict(users=split.users)
    absent,alone = fitted(split.early, fit, items=split.old, **told),fitted(split.early, fit)
    framed = fitted(split.early, fit, items=pd.concat([split.old, split.new]), **told)
    extended = absent.extend(items=split.new)
    res = {'nothing: the average item': [f(absent, rest, unknown='average') for f in (rmse,coverage)], 'features, in the frame of training': (rmse(framed, rest),coverage(framed, rest)),
           'features, by `extend`': (rmse(extended, rest),coverage(extended, rest))}
    for k in n_first:
        first,n = split.first(k),f'{k} rating'+'s'*(k>1)
        again = fitted(pd.concat([split.early, first]), fit, items=pd.concat([split.old, split.new]), **told)
        for name,rec in (('features, trained again',again), ('features, by `extend`',absent.extend(first, items=split.new)), ('by `extend`',alone.extend(first))):
            res[f'{n}, {name}'] = rmse(rec, rest),coverage(rec, rest)
    return res

def main():
    rep = Report('newcomers', 'data', 'fit', 'known of the new items', 'RMSE', 'against the average item', 'against trained again', 'within the 90% interval')
    splits = {}
    for data,fit in runs:
        if data not in splits: splits[data] = [Split(movielens(data), *movielens_sides(data), seed) for seed in range(n_splits)]
        found = [measured(o, fit) for o in splits[data]]
        means = {k: np.mean([o[k][0] for o in found]) for k in found[0]}
        average = means['nothing: the average item']
        if fit=='fit_bayes': means['features, by myFM'] = np.mean([by_myfm(o) for o in splits[data]])
        for k,v in means.items():
            again = means.get(f'{k.split(",")[0]}, features, trained again')
            inside = np.mean([o[k][1] for o in found]) if k in found[0] else np.nan
            rep.add(data, f'`{fit}`', k, f'{v:.4f}', f'{v/average-1:+.1%}', '' if again is None or 'again' in k else f'{v/again-1:+.1%}', '' if np.isnan(inside) else f'{inside:.1%}')
    rep.write()

if __name__=='__main__': main()
