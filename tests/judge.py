"""An honest judge: what fastrec may say, and in slow plain Python what it has to answer, from labels and the numbers in a model's tables"""
import datetime,dis,math,re,signal,traceback,warnings
from contextlib import contextmanager
from pathlib import Path
import numpy as np,pandas as pd,torch
from torch import nn
import fastrec
from fastrec.all import Net,PosteriorMean

home = Path(fastrec.__file__).parent
refusals = (ValueError,KeyError,TypeError,FloatingPointError,ImportError,OSError)
things = r"['\"\d=]|\w_\w|\b(frame|ratings?|column|rows?|labels?|users?|items?|model|learner|batch|draws?|side)\b"

class Fault(AssertionError): "What must not happen: a raw error, a hang, a wrong answer without a word"

class Hang(BaseException): "Raised where something takes too long"

# ------------------------------------------------------------------ what may be said
def raised(e):
    "Was `e` raised by a `raise` statement of fastrec's own, and not below it or by Python itself?"
    tb = e.__traceback__
    while tb.tb_next: tb = tb.tb_next
    code = tb.tb_frame.f_code
    return home in Path(code.co_filename).parents and code.co_code[tb.tb_lasti]==dis.opmap['RAISE_VARARGS']

def sentence(text):
    "Is `text` a sentence or a few, and does it name something?"
    return 4<=len(text.split())<=150 and re.search(things, text) is not None and 'Traceback' not in text

def message(e): return str(e.args[0] if isinstance(e, KeyError) and e.args else e)

def clear(e):
    "Is the error `e` of a kind that is documented, raised by fastrec itself, with a sentence that names something?"
    return isinstance(e, refusals) and raised(e) and sentence(message(e))

@contextmanager
def within(seconds):
    "Raise `Hang` in what takes more of the processor's time, or far more of anybody's, since others may be at work"
    def ring(*_): raise Hang(f'still at it after {seconds} seconds')
    timers = ((signal.SIGPROF,signal.ITIMER_PROF,seconds),(signal.SIGALRM,signal.ITIMER_REAL,15*seconds))
    before = [signal.signal(sign, ring) for sign,*_ in timers]
    for _,timer,limit in timers: signal.setitimer(timer, limit)
    try: yield
    finally:
        for (sign,timer,_),handler in zip(timers, before):
            signal.setitimer(timer, 0)
            signal.signal(sign, handler)

class Outcome:
    "What a call gave: its `value`, or the clear `error` it ended in, and what was `said` in warnings"
    def __init__(self, value=None, error=None, said=()): self.value,self.error,self.said = value,error,list(said)
    @property
    def text(self): return ' '.join([*self.said, *([message(self.error)] if self.error else [])])

def where(e):
    "The last line of fastrec's, and the last of all, that `e` went through"
    tb = traceback.extract_tb(e.__traceback__)
    own = [o for o in tb if home in Path(o.filename).parents] or tb
    return ' > '.join(dict.fromkeys(f'{Path(o.filename).name}:{o.name}' for o in (own[-1],tb[-1])))

def attempt(f, *args, seconds=20, **kwargs):
    "The `Outcome` of a call; a `Fault` if it ends in anything but an answer or a clear error, hangs, or warns of what is not fastrec's"
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter('always')
        try:
            with within(seconds): res = Outcome(f(*args, **kwargs))
        except Exception as e:
            if not clear(e): raise Fault(f'raw error {type(e).__name__} at {where(e)}: {str(e)[:200]}') from e
            res = Outcome(error=e)
        except Hang as e: raise Fault(f'hang at {where(e)}: {e}') from e
    log = [o for o in log if not issubclass(o.category, (DeprecationWarning,PendingDeprecationWarning,ResourceWarning))]
    foreign = [o for o in log if not issubclass(o.category, UserWarning) or 'site-packages' in o.filename]
    if foreign: raise Fault(f"a warning that is not fastrec's, of {Path(foreign[0].filename).name}: {str(foreign[0].message)[:200]}")
    res.said = [str(o.message) for o in log]
    if len(res.said)!=len(set(res.said)): raise Fault(f'said several times: {res.said[0]}')
    if lost := [o for o in res.said if not sentence(o)]: raise Fault(f'a warning that names nothing: {lost[0]}')
    return res

# ------------------------------------------------------------------ labels
def plain(o):
    "A label as Python has it, so that 1, 1.0 and np.int64(1) are the same and '1' is not"
    if isinstance(o, np.generic) and not isinstance(o, (np.datetime64,np.timedelta64)): o = o.item()
    if isinstance(o, bool): return ('bool',o)
    if isinstance(o, (np.datetime64,datetime.date)): return ('time',pd.Timestamp(o))
    return o

def labels(vocab): return [plain(o) for o in vocab.labels]

def pairs(ds, with_labels=True):
    "The rows of `RatingsTensors` as tuples of labels, `None` for an unknown one, and rating"
    names = [[None,*labels(v)] for v in ds.classes.values()]
    rows = [[names[k][c] for k,c in enumerate(o[:2])] for o in ds.x.tolist()]
    return [(*r,y) for r,y in zip(rows, ds.y.tolist())] if with_labels and ds.y is not None else [tuple(r) for r in rows]

# ------------------------------------------------------------------ what a model says, slowly
def _sigmoid(o): return 1/(1+math.exp(-o)) if o>-700 else 0.

class Slow:
    "What the model of `rec`, a learner or a recommender, has to say, by label, worked out one number at a time in double precision"
    def __init__(self, rec):
        self.rec,self.model = rec,rec.model
        self.users,self.items = (labels(v) for v in rec.ds.classes.values())
        self.at = [{o: k+1 for k,o in enumerate(names)} for names in (self.users,self.items)]
        tables = [[e.weight.detach().cpu().double().numpy().copy() for e in es] for es in self.model.tables]
        for es in tables:
            for e in es: e[0] = e[1:].mean(0)  # the unknown one is the average
        self.tables = tables

    def code(self, k, label): return self.at[k].get(plain(label), 0)

    def score(self, u, i):
        "Of the codes `u` and `i`, before the range"
        (p,b_u),(q,b_i) = self.tables
        if isinstance(self.model, Net): return self._net(np.concatenate([p[u], q[i]])) + b_u[u,0] + b_i[i,0]
        return sum(a*b for a,b in zip(p[u], q[i])) + b_u[u,0] + b_i[i,0] + float(self.model.mean)

    def _net(self, h):
        for m in (m for group in self.model.layers for m in group):
            if isinstance(m, nn.Linear): h = m.weight.detach().double().numpy()@h + (0 if m.bias is None else m.bias.detach().double().numpy())
            elif isinstance(m, nn.BatchNorm1d):
                mean,var,w,b = (o.detach().double().numpy() for o in (m.running_mean,m.running_var,m.weight,m.bias))
                h = (h-mean)/np.sqrt(var+m.eps)*w + b
            elif isinstance(m, nn.ReLU): h = np.maximum(h, 0)
            elif not isinstance(m, nn.Dropout): raise NotImplementedError(type(m))
        return float(h[0])

    def bounded(self, s):
        if self.model.y_range is None: return s
        lo,hi = self.model.y_range
        return min(max(s, lo), hi) if self.model.clip else lo + (hi-lo)*_sigmoid(s)

    def predict(self, user, item): return self.bounded(self.score(self.code(0, user), self.code(1, item)))

    def std(self, user, item):
        "Of a rating, from the draws"
        m,(u,i) = self.model,(self.code(0, user),self.code(1, item))
        assert isinstance(m, PosteriorMean) and u and i
        (p,q),s = [e[k] for (e,_),k in zip(self.tables, (u,i))],m.n_draws
        draws = [s*p.reshape(s, -1)[k]@q.reshape(s, -1)[k] + float(m.u_bias_draws[u,k]) + float(m.i_bias_draws[i,
            k]) for k in range(s)]
        spread = sum((o-sum(draws)/s)**2 for o in draws)/(s-1) if s>1 else 0.
        return math.sqrt(spread + sum(float(e.variance) for e in m.time_effects) + float(m.u_noise[u])*float(m.i_noise[i]))

    def best(self, user, n, items=None, gone=(), counts=None, min_count=0):
        "The `n` best of `items` for `user`, but for those in `gone` and those too seldom rated: labels and scores, equal ones in the order of the labels"
        asked = {self.code(1, o) for o in items} if items is not None else set(range(1, len(self.items)+1))
        left = [i for i in sorted(asked) if self.items[i-1] not in gone and (counts is None or counts.get(self.items[i-1], 0)>=max(min_count, 1))]
        scores = {i: self.score(self.code(0, user), i) for i in left}
        return [(self.items[i-1],self.bounded(scores[i])) for i in sorted(left, key=lambda i: (-scores[i],i))[:n]]

    def similar(self, k, label):
        "The others of side `k` and their cosines, largest first"
        w = self.tables[k][0]
        def cosine(a, b): return float(a@b)/max(math.sqrt(float(a@a)), 1e-12)/max(math.sqrt(float(b@b)), 1e-12)
        names,own = (self.users,self.items)[k],self.code(k, label)
        return sorted(((o,cosine(w[own], w[c+1])) for c,o in enumerate(names) if c+1!=own), key=lambda o: -o[1])

def close(got, want, scale=1.): return len(got)==len(want) and all(abs(a-b)<=2e-4*max(scale, 1, abs(b)) for a,
    b in zip(got, want))

def check_list(got, want, what):
    "Refuse the `got` items and scores unless they are the `want`ed ones, best first, but for what rounding leaves open"
    if len(got)!=len(want): raise Fault(f'{what}: {len(got)} where {len(want)} are right')
    if len({o for o,_ in got})!=len(got): raise Fault(f'{what}: the same item twice')
    if not close([s for _,s in got], [s for _,s in want]): raise Fault(f'{what}: {got[:4]} where {want[:4]} is right')
    exact = dict(want)
    last = want[-1][1] if want else 0
    for o,s in got:
        if o not in exact and abs(s-last)>4e-4*max(1, abs(last)): raise Fault(f'{what}: {o!r} is not among the best')
        if o in exact and abs(exact[o]-s)>2e-4*max(1,
            abs(s)): raise Fault(f'{what}: {s} for {o!r} where {exact[o]} is right')

# ------------------------------------------------------------------ what a frame says, slowly
def ridge_biases(rows, reg):
    "What $\\alpha+b_u+b_i$ predicts for a pair, fitted to the `rows` (user, item, rating) by one system of equations"
    users,items = ({o: k for k,o in enumerate(dict.fromkeys(r[j] for r in rows))} for j in (0,1))
    n = len(users)+len(items)+1
    x = np.zeros((len(rows), n))
    for r,(u,i,_) in zip(x, rows): r[users[u]] = r[len(users)+items[i]] = r[-1] = 1
    w = np.linalg.solve(x.T@x + np.diag([reg]*(n-1)+[0.]), x.T@np.array([y for *_,y in rows]))
    return lambda u, i: (w[users[u]] if u in users else 0) + (w[len(users)+items[i]] if i in items else 0) + w[-1]

def list_metrics(lists, relevant, k, counts, n_users, n_items):
    "Of the `lists` for the users in `relevant`, a dict of sets, each by its definition"
    rows = []
    for u,true in relevant.items():
        hits = [o in true for o in lists[u][:k]]
        gains = sum(1/math.log2(r+2) for r,
                    h in enumerate(hits) if h)/sum(1/math.log2(r+2) for r in range(min(k, len(true))))
        average = sum(sum(hits[:r+1])/(r+1) for r,h in enumerate(hits) if h)/min(k, len(true))
        rows.append((sum(hits)/k, sum(hits)/len(true), gains, average, 1/(hits.index(True)+1) if any(hits) else 0,
                     float(any(hits))))
    shown = [o for u in relevant for o in lists[u][:k]]
    names = [f'precision_at_{k}',f'recall_at_{k}',f'ndcg_at_{k}',f'map_at_{k}',f'mrr_at_{k}',f'hit_rate_at_{k}']
    res = dict(zip(names, map(float, np.mean(rows, 0))))
    return {**res, 'coverage': len(set(shown))/n_items,
            'novelty': float(np.mean([-math.log2(max(counts.get(o, 0),
            1)/n_users) for o in shown])) if shown else math.nan}
