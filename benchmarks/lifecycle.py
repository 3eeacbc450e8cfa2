"""What a saved recommender takes: its folder, loading, memory, lists, newcomers and whom to tell, by numbers of users, items, factors and draws, of generated rows and ratings; writes results/lifecycle.md"""
import argparse,json,subprocess,tempfile,time,warnings
from statistics import median
from report import Report
from grids import long_tail
from fastrec.models.dot import Dot
from fastrec.all import *

shapes = [('fit_als',10_000,2_000,16,0), ('fit_als',100_000,10_000,16,0), ('fit_als',300_000,30_000,16,0), ('fit_als',100_000,10_000,64,0),
          ('fit_ials',10_000,2_000,64,0), ('fit_ials',100_000,10_000,64,0), ('fit_ials',300_000,30_000,64,0), ('fit_ials',100_000,10_000,128,0),
          ('fit_bayes',10_000,2_000,16,20), ('fit_bayes',10_000,2_000,16,90), ('fit_bayes',100_000,10_000,16,20), ('fit_bayes',100_000,10_000,16,90)]
per_user,n_new = 50,1000  # ratings: of each user in training, and that are taken in

def of_draws(n_users, n_items, k, n_draws, rng):
    "A `PosteriorMean` of draws that lie around the same rows"
    sides = []
    for n in (n_users+1,n_items+1):
        rows = torch.randn(n, k+1, generator=rng)*.3
        sides.append(torch.stack([rows+.1*torch.randn(n, k+1, generator=rng) for _ in range(n_draws)]))
    return PosteriorMean(*sides, torch.ones(n_users+1), torch.ones(n_items+1), (1.,5.), 3.5)

def of_rows(fit, n_users, n_items, k, rng):
    "What `fit_als` or `fit_ials` would leave, of random rows"
    rows = [torch.randn(n, m, generator=rng)*.3 for n in (n_users+1,n_items+1) for m in (k,1)]
    is_ials = fit=='fit_ials'
    m = Dot(*rows, None if is_ials else (1.,5.), 0. if is_ials else 3.5)
    m.is_preference = is_ials
    if is_ials: m.ials = dict(alpha0=.5, reg=.012, power=1.)
    else: m.believed = dict(cov=torch.rand(n_items+1, k+1, generator=rng)*.01, gamma=torch.ones(n_items+1), lam=torch.ones(k+1)*10, noise=torch.tensor(.8))
    return m

def saved(folder, fit, n_users, n_items, k, n_draws):
    "A folder of a recommender of this shape"
    rng = torch.Generator().manual_seed(0)
    m = of_draws(n_users, n_items, k, n_draws, rng) if n_draws else of_rows(fit, n_users, n_items, k, rng)
    m.classes = dict(user=Vocab(range(n_users), 'user'), item=Vocab([f'Film {o:06} (1990)' for o in range(n_items)], 'item'))
    m.user,m.item = m.classes
    ds = RatingsTensors(torch.zeros(0, 2, dtype=torch.int32), torch.zeros(0), m.classes, 'rating')
    x = long_tail(per_user*n_users, n_users, n_items)
    seen = Seen(x, n_users+1, n_items+1, n_train=len(x))
    return Recommender(m.eval(), ds, seen, 1., rating_range=(1.,5.)).save_recommender(folder)

def memory():
    "MB of this process that aren't files"
    line = [o for o in Path('/proc/self/status').read_text(encoding='utf-8').splitlines() if o.startswith('RssAnon')] if Path('/proc/self/status').exists() else []
    return int(line[0].split()[1])/1e3 if line else float('nan')

def timed(f, n=5):
    "Milliseconds of a call after the first, and of the first"
    took = []
    for _ in range(n+1):
        start = time.perf_counter()
        f()
        took.append(1e3*(time.perf_counter()-start))
    return median(took[1:]),took[0]

def measure(folder):
    "In a fresh process: milliseconds by what was asked, and MB"
    warnings.simplefilter('ignore')  # of films that stay as they are, whose ratings are not kept
    before = memory()
    start = time.perf_counter()
    rec = load_recommender(folder, 'cpu')
    load = 1e3*(time.perf_counter()-start)
    user,items = rec.ds.classes['user'].labels[17],rec.ds.classes['item'].labels
    rng = np.random.default_rng(0)
    one = pd.DataFrame(dict(item=items[rng.choice(len(items), 20, replace=False)], rating=rng.integers(1, 6, 20).astype(float)))
    new = pd.DataFrame(dict(user=-1-np.arange(n_new)//10, item=items[rng.integers(0, len(items), n_new)], rating=rng.integers(1, 6, n_new).astype(float)))
    res = dict(load=load, recommend=timed(lambda: rec.recommend(user, n=10))[0])
    res['memory'] = memory()-before
    res['fold_in'],res['first'] = timed(lambda: rec.fold_in(one))
    res['extend'],_ = timed(lambda: rec.extend(new), 3)
    res['users'],_ = timed(lambda: rec.recommend_users(items[5], n=10))
    return res

def main():
    rep = Report('lifecycle', 'fit', 'users', 'items', 'factors', 'draws', 'folder, MB', 'load, ms', 'memory, MB', 'a list of 10, ms', '`fold_in` of one user, ms (the first)',
                 '`extend` by 1,000 ratings of 100 new users, ms', '`recommend_users` of one item, ms')
    for fit,n_users,n_items,k,n_draws in shapes:
        with tempfile.TemporaryDirectory() as d:
            folder = saved(Path(d)/'rec', fit, n_users, n_items, k, n_draws)
            size = sum(o.stat().st_size for o in folder.iterdir())/1e6
            found = subprocess.run([sys.executable, __file__, '--measure', str(folder)], check=True, capture_output=True, text=True).stdout
        t = json.loads(found.splitlines()[-1])
        rep.add(f'`{fit}`', f'{n_users:,}', f'{n_items:,}', k, n_draws or '', f'{size:,.0f}', f'{t["load"]:,.0f}', f'{t["memory"]:,.0f}', f'{t["recommend"]:.1f}',
                f'{t["fold_in"]:.1f} ({t["first"]:,.0f})', f'{t["extend"]:,.0f}', f'{t["users"]:.1f}')
    rep.write()

if __name__=='__main__':
    parser = argparse.ArgumentParser()
    parser.add_argument('--measure')
    folder = parser.parse_args().measure
    if folder: print(json.dumps(measure(folder)))
    else: main()
