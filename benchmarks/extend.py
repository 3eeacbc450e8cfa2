"""What it takes to take in 1,000 ratings by `extend` at ml-1m's size, and the lists afterwards, compared with those of a fit of all; writes results/extend.md"""
import time,warnings
from statistics import median
from report import Report,settings
from fastrec.all import *
warnings.simplefilter('ignore')

def last(df, n): return df.iloc[:-n],df.iloc[-n:]

def at_random(df, n):
    late = df.sample(n, random_state=0)
    return df.drop(late.index),late

def of_new_users(df, n):
    "Ten ratings of each of a tenth as many users, who have no others"
    users = df.user.drop_duplicates().sample(n//10, random_state=0)
    is_new = df.user.isin(users)
    return df[~is_new],df[is_new].groupby('user').head(10)

_chosen = {'the last': last, 'at random': at_random, 'of new users, 10 each': of_new_users}  # those to begin with, and those that come
_fits = 'fit_blend','fit_als','fit_sgd','fit_ials','fit_one_cycle','fit_bayes','fit_ease'
_calls = 5  # after the first, of which the median counts

def fitted(df, held, fit, seed=0):
    "A learner of `df`, which knows the labels of these rows alone, and validates on those `held`"
    rows = pd.concat([df,held], ignore_index=True)
    learn = learner(RecDataLoaders.from_df(rows, IndexSplitter(range(len(df), len(rows))), seed=seed))
    with learn.no_bar(),learn.no_logging(): getattr(learn, fit)(*((5,) if fit=='fit_one_cycle' else ()))
    return learn

def recall(rec, held, users, seen):
    "Recall@10 of the lists of `users`, without what they have in `seen`, of what they have in `held`"
    held = held[held.user.isin(users)]
    lists = rec.recommend(held.user.unique(), n=10, exclude_seen=seen[seen.user.isin(users)])
    hits = held.merge(lists[['user','title']], on=['user','title'])
    n = held.groupby('user').size()
    return (hits.groupby('user').size().reindex(n.index, fill_value=0)/n.clip(upper=10)).mean()

def timed(f):
    "Milliseconds of a call after the first, and what it gave"
    took = []
    for _ in range(_calls+1):
        start = time.process_time()
        res = f()
        took.append(1e3*(time.process_time()-start))
    return median(took[1:]),res

def main():
    c = settings['extend']
    rep = Report('extend', 'fit', 'ratings that come', 'CPU ms', 'to reach', 'recall@10 of who they are of, before', 'after `extend`', 'of a fit of all', 'to reach')
    df = movielens(c['release']).sort_values('timestamp', kind='stable').reset_index(drop=True)
    held = df.sample(frac=.1, random_state=0)
    df = df.drop(held.index)
    for how,choose in _chosen.items():
        early,late = choose(df, int(c['n']))
        of_known = held[held.user.isin(early.user)&held.title.isin(early.title)]
        for fit in _fits:
            seen = pd.concat([early,late])
            learn,whole = (fitted(o, of_known, fit) for o in (early,seen))
            took,more = timed(lambda: learn.extend(late))
            users = late.user.unique()
            known = users[np.isin(users, early.user)]
            before = f'{recall(learn, held, known, seen):.4f}' if len(known) else ''
            rep.add(f'`{fit}`', f'{len(late):,} {how}', f'{took:.0f}', f'≤ {c["max_ms"]}', before, f'{recall(more, held, users, seen):.4f}', f'{recall(whole, held, users, seen):.4f}',
                    f'within {c["max_loss"]}')
    rep.write()

if __name__=='__main__': main()
