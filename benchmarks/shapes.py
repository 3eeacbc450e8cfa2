"""Every fit by its defaults on data of many shapes, compared with biases alone; writes results/shapes.md

    python benchmarks/shapes.py            the shapes kept apart, on which no rule was found
    python benchmarks/shapes.py tune       those that rules were found on, on the screen"""
import sys,warnings
from fits import covered
from report import Report,settings
from fastrec.all import *
warnings.simplefilter('ignore')

# ------------------------------------------------------------------ MovieLens made sparser, shorter, or without what everybody rates
def at_most(df, n, by_time=False, seed=0):
    "At most `n` ratings of each user, drawn at random or the first"
    df = df.sort_values('timestamp', kind='stable') if by_time else df.sample(frac=1, random_state=seed)
    return df.groupby('user', sort=False).head(n).reset_index(drop=True)

def few_items(df, n, seed=0):
    "The ratings of `n` of the titles"
    kept = df.title.drop_duplicates().sample(n, random_state=seed)
    return df[df.title.isin(kept)].reset_index(drop=True)

def long_tail(df):
    "Without the most popular titles, which have half of the ratings"
    n = df.title.value_counts().sort_index().sort_values(ascending=False, kind='stable')  # equal ones in one order everywhere
    tail = n.index[n.cumsum()>len(df)/2]
    return df[df.title.isin(tail)].reset_index(drop=True)

# ------------------------------------------------------------------ generated, with a known noise and rank
def long_tailed_pairs(n_users, n_items, n, rng):
    "`n` different pairs of a user and an item, as two arrays; some users and some items have many"
    users,items = rng.lognormal(0, 1, n_users),np.arange(10, n_items+10)**-.8
    users,items = users/users.sum(),rng.permutation(items/items.sum())
    keys = np.empty(0, int)
    while len(keys)<n:
        more = 3*(n-len(keys))//2+100
        drawn = rng.choice(n_users, more, p=users)*n_items + rng.choice(n_items, more, p=items)
        keys = pd.unique(np.concatenate([keys, drawn]))
    return np.divmod(keys[:n], n_items)

def tastes(n_users, n_items, u, i, rank, std, rng):
    "Products of `rank` factors for the pairs, whose standard deviation is `std`; the first factors are the strongest"
    w = np.arange(1, rank+1)**-.5
    w = std*w/np.sqrt((w**2).sum())
    p,q = rng.normal(size=(n_users,rank))*w,rng.normal(size=(n_items,rank))
    return np.concatenate([(p[u[o:o+2**20]]*q[i[o:o+2**20]]).sum(1) for o in range(0, len(u), 2**20)])

def planted(n_users, n_items, n, rank, noise=.9, taste=.5, mean=3.5, scale=(1,5,1), seed=0):
    "`n` ratings; all standard deviations are in stars from 1 to 5, which then become the `scale`, (lowest, highest, step or 0)"
    rng = np.random.default_rng(seed)
    u,i = long_tailed_pairs(n_users, n_items, n, rng)
    y = mean + rng.normal(0, .4, n_users)[u] + rng.normal(0, .5, n_items)[i] + rng.normal(0, noise, n)
    if rank: y = y+tastes(n_users, n_items, u, i, rank, taste, rng)
    lo,hi,step = scale
    y = (lo+(y-1)/4*(hi-lo)).clip(lo, hi)
    if step: y = lo+np.rint((y-lo)/step)*step
    return pd.DataFrame(dict(user=u, title=np.char.add('film ', i.astype(str)), rating=y.astype('float32'), timestamp=rng.permutation(n)))

def mostly_fives(n_users, n_items, n, seed=0):
    "95% of the ratings are the highest"
    return planted(n_users, n_items, n, 3, noise=.7, taste=.4, mean=6.6, seed=seed)

def shop(n_users, n_items, each, told=.7, taste=.7, seed=0):
    """Ratings from 1 to 10 of goods, and a frame of their kinds, makers and years. Kind and maker are `told` of what tastes are about, as a
    share. A user has some `each` ratings, and one in forty goods has none. What is chosen follows popularity, of a standard deviation of
    1.1, and tastes, of one of `taste`"""
    rng = np.random.default_rng(seed)
    maker,kind_of = rng.integers(n_items//8, size=n_items),rng.integers(8, size=n_items//8)
    kind = np.where(rng.random(n_items)<.85, kind_of[maker], rng.integers(8, size=n_items))
    def factors(n): return rng.normal(size=(n,6))
    q = (told/2)**.5*(factors(8)[kind]+factors(n_items//8)[maker]) + (1-told)**.5*factors(n_items)
    liking = factors(n_users)@q.T/6**.5
    popularity = rng.normal(0, 1.1, n_items)
    popularity[rng.choice(n_items, n_items//40, replace=False)] = -np.inf
    order = (-popularity-taste*liking-rng.gumbel(size=liking.shape)).argsort(1)
    n_each = rng.lognormal(np.log(each), .6, n_users).astype(int).clip(1, n_items//4)
    u = np.arange(n_users).repeat(n_each)
    i = np.concatenate([o[:n] for o,n in zip(order, n_each)])
    y = 6.8 + rng.normal(0, .7, n_users)[u] + rng.normal(0, .8, n_items)[i] + .8*liking[u,i] + rng.normal(0, 1.1, len(u))
    names = np.char.add('good ', np.arange(n_items).astype(str))
    df = pd.DataFrame(dict(user=u, title=names[i], rating=y.round().clip(1, 10).astype('float32'), timestamp=rng.permutation(len(u))))
    return df,pd.DataFrame(dict(kind=kind.astype(str), maker=maker.astype(str), year=rng.integers(1950, 2025, n_items)), pd.Index(names, name='title'))

def circles(n_circles, people, things, each, seed=0):
    """Ratings of things that are chosen in circles of a few `people`: four of five choices of a user are among the `things` of their circle,
    the others anything, what is popular most. A user has some `each`"""
    rng = np.random.default_rng(seed)
    n_users,n_items = n_circles*people,n_circles*things
    u = np.arange(n_users).repeat(2+rng.poisson(each-2, n_users))
    inside = u//people*things + (rng.random(len(u))**2*things).astype(int)
    popular = (n_items*rng.random(len(u))**4).astype(int)*7919%n_items  # in no order of circles
    i = np.where(rng.random(len(u))<.8, inside, popular)
    y = 3.5 + rng.normal(0, .4, n_users)[u] + rng.normal(0, .5, n_items)[i] + rng.normal(0, .9, len(u))
    df = pd.DataFrame(dict(user=u, title=np.char.add('thing ', i.astype(str)), rating=y.round().clip(1, 5).astype('float32'), timestamp=rng.permutation(len(u))))
    return df.drop_duplicates(['user','title'], ignore_index=True)

def of_films(name): return movielens_sides(name)[-1]

small,big = partial(movielens, 'ml-100k'),partial(movielens, 'ml-1m')
shapes = {
    'ml-100k': small,
    'ml-100k, 5 a user': lambda: at_most(small(), 5),
    'ml-100k, 20 a user': lambda: at_most(small(), 20),
    'ml-100k, the first 10 a user': lambda: at_most(small(), 10, True),
    'ml-100k, 100 items': lambda: few_items(small(), 100),
    'no taste': lambda: planted(3000, 1500, 60_000, 0),
    'rank 5': lambda: planted(3000, 1500, 100_000, 5),
    'rank 50': lambda: planted(2000, 1000, 200_000, 50, taste=.7),
    '0 to 10, 6 a user': lambda: planted(10_000, 5000, 60_000, 8, noise=1., taste=.35, mean=3.9, scale=(0,10,1)),
    'mostly fives': lambda: mostly_fives(2000, 1000, 60_000),
    'circles, 10 a user': lambda: circles(150, 10, 30, 10),
    'ml-1m': big,
    'ml-1m, 3 a user': lambda: at_most(big(), 3),
    'ml-1m, 10 a user': lambda: at_most(big(), 10),
    'ml-1m, the first 50 a user': lambda: at_most(big(), 50, True),
    'ml-1m, 200 items': lambda: few_items(big(), 200),
    'ml-1m, long tail': lambda: long_tail(big()),
    '-10 to 10, rank 3': lambda: planted(5000, 2000, 150_000, 3, scale=(-10,10,0)),
    'half stars, rank 20': lambda: planted(4000, 3000, 300_000, 20, taste=.6, scale=(.5,5,.5)),
    '0 and 1, rank 5': lambda: planted(3000, 1000, 100_000, 5, mean=3.4, scale=(0,1,1)).assign(weight=1),  # a 0 was chosen too
    'no taste, 5 a user': lambda: planted(20_000, 8000, 100_000, 0),
    '1,000 users': lambda: planted(1000, 500, 15_000, 4),
    'mostly fives, 8 a user': lambda: mostly_fives(8000, 4000, 60_000, 1),
    'circles, 6 a user': lambda: circles(400, 6, 12, 6, 1),
    # with a frame of what is told of the items
    'ml-100k, 5 a user, and genres': lambda: (at_most(small(), 5),of_films('ml-100k')),
    'a shop, 3 a user': lambda: shop(3000, 800, 3),
    'a shop, 15 a user': lambda: shop(3000, 800, 15),
    'ml-1m, 5 a user, and genres': lambda: (at_most(big(), 5),of_films('ml-1m')),
    'a shop, 8 a user': lambda: shop(6000, 1500, 8, told=.5, taste=.9, seed=1),
    'a shop, 30 a user': lambda: shop(2500, 1000, 30, told=.8, taste=.5, seed=2)}

def shape_of(name):
    "The ratings of the shape `name`, and what is told of the items, or `None`"
    found = shapes[name]()
    return found if isinstance(found, tuple) else (found,None)

# ------------------------------------------------------------------ fits
def one_cycle(learn): learn.fit_one_cycle(5)

fits = {'`fit_one_cycle`': one_cycle, '`fit_sgd`': lambda l: l.fit_sgd(), '`fit_als`': lambda l: l.fit_als(), '`fit_bayes`': lambda l: l.fit_bayes()}

def loaders(df, seed, items=None):
    "Loaders of `df` with a random tenth held out, which know `items`, if given"
    return RecDataLoaders.from_df(df, valid_pct=.1, seed=seed, weight_name='weight' if 'weight' in df else None, items=items)

def fitted(df, seed, fit, items=None, **kwargs):
    "A learner with a random tenth of `df` held out, after `fit`"
    learn = learner(loaders(df, seed, items), **kwargs)
    with learn.no_bar(),learn.no_logging(): fit(learn)
    return learn

def error(learn): return learn.history.rmse.iloc[-1]

def over_popularity(learn):
    "NDCG@10 of what is recommended, and of the most popular items"
    res = learn.evaluate().ndcg_at_10
    return res['model'],res['popularity']

def measured(df, items, seed):
    "RMSE of biases; that of each fit as a multiple of it; NDCG of `fit_ials` and of popularity; share of the 90% intervals that cover"
    biases = error(fitted(df, seed, lambda l: l.fit_bias(features=False), items))
    learns = {k: fitted(df, seed, f, items) for k,f in fits.items()}
    network = fitted(df, seed, one_cycle, items, use_nn=True)
    ials = fitted(df, seed, lambda l: l.fit_ials(), items)
    return biases,[error(o)/biases for o in (*learns.values(),network)],over_popularity(ials),covered(learns['`fit_bayes`'])

def main(kind='check'):
    c = settings['shapes']
    seeds = [int(o) for o in c['seeds'].split()]
    names = [o.strip() for o in c[kind].split(';')]
    rep = Report('shapes', 'shape', 'ratings', 'RMSE of biases', *(f'{o}, as a multiple' for o in (*fits,'a network by `fit_one_cycle`')), '90% intervals of `fit_bayes` cover',
                 'NDCG@10 of popularity', '`fit_ials`, as a multiple', 'to reach')
    for name in names:
        df,items = shape_of(name)
        biases,ratios,ndcg,shares = zip(*(measured(df, items, s) for s in seeds))
        ndcg,shares = np.array(ndcg),shares if len(df)>=50_000 else None  # too few rows to count
        rep.add(name, f'{len(df):,}', f'{np.mean(biases):.4f}', *(f'{np.mean(o):.4f} ± {np.std(o):.4f}' for o in zip(*ratios)), '' if shares is None else f'{np.mean(shares):.1%}',
                f'{ndcg[:,1].mean():.4f}', f'{ndcg[:,0].mean()/ndcg[:,1].mean():.2f}', f'≤ {c["max_ratio"]}; ≥ 1')
    if kind=='check': rep.write()

if __name__=='__main__': main(*sys.argv[1:])
