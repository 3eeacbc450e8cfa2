"""Lists of newcomers: of people who come in with the ratings of somebody from training, compared with that person's; and with new films in the catalogue, by features alone; writes results/twins.md and results/new_films.md"""
import warnings
from report import Report,settings
from newcomers import Split,fitted
from fastrec.all import *
warnings.simplefilter('ignore')

def in_common(learn, df, n=200):
    "Of the ten places on the lists of `n` users, how many are on those of twins, who have the same ratings and are folded in"
    users = np.random.default_rng(0).choice(df.user.unique(), n, replace=False)
    ours = learn.recommend(users, n=10)
    theirs = learn.fold_in(df[df.user.isin(users)]).recommend(users, n=10)
    both = ours.merge(theirs, on=['user','title'])
    return 10*len(both)/len(ours)

def of_twins(c):
    rep = Report('twins', 'data', 'fit', 'in common of ten', 'to reach')
    for data in c['releases'].split():
        df = movielens(data)[['user','title','rating']]
        for fit in ('fit_als','fit_ials','fit_ease','fit_bayes','fit_one_cycle','fit_sgd'):
            rep.add(data, f'`{fit}`', f'{in_common(fitted(df, fit), df):.2f}', f'≥ {c["least"] if fit in c["exact"].split() else c["least_other"]}')
    rep.write()

def warm_ndcg(learn, test):
    "NDCG@10 of the films of `test`, which are in the catalogue of training"
    return learn.evaluate(test).ndcg_at_10['model']

def cold_recall(learn, late, k=100):
    "Recall of the first `k` places for new films, compared with that of `k` films drawn of all that a user has not seen"
    lists = learn.recommend(late.user.unique(), n=k)
    hits = lists.merge(late[['user','title']], on=['user','title']).groupby('user').size()
    n = late.groupby('user').size()
    recall = (hits.reindex(n.index, fill_value=0)/n.clip(upper=k)).mean()
    codes = torch.from_numpy(learn.ds.classes['user'].encode(n.index)).long()
    left = len(learn.ds.classes['title'])-1-learn.seen.offsets.diff()[codes]
    return float(recall),float((k/left).mean())

def with_and_without(data, fit, seed):
    "NDCG of films of training without and with new ones in the catalogue, and the recall of these compared with chance"
    split = Split(movielens(data), *movielens_sides(data), seed)
    test = split.early.sample(frac=.1, random_state=seed)
    train = split.early.drop(test.index)
    test = test[test.title.isin(train.title) & test.user.isin(train.user)]
    late = split.late[split.late.user.isin(train.user)]
    without = fitted(train, fit, users=split.users, items=split.old)
    with_new = fitted(train, fit, users=split.users, items=pd.concat([split.old, split.new]))
    return warm_ndcg(without, test),warm_ndcg(with_new, test),*cold_recall(with_new, late)

def of_films(c):
    rep = Report('new_films', 'data', 'fit', 'NDCG@10 of films of training', 'with new films in the catalogue', 'to reach', 'recall@100 of new films', 'by chance', 'times', 'to reach')
    for data in c['releases'].split():
        for fit in ('fit_ials','fit_ease','fit_blend'):
            found = [with_and_without(data, fit, seed) for seed in map(int, c["seeds"].split())]
            a,b,recall,chance = np.mean(found, 0)
            rep.add(data, f'`{fit}`', f'{a:.4f}', f'{b:.4f}', f'within {c["max_loss"]}', f'{recall:.3f}', f'{chance:.3f}', f'{recall/chance:.1f}', f'≥ {c["least_times"]}')
    rep.write()

if __name__=='__main__':
    c = settings['newcomers_lists']
    of_twins(c)
    of_films(c)
