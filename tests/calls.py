"""Arguments as they come in, each with what it means: a plain value, `refuse` where there is nothing sensible to do, and whether it may be refused"""
import collections,datetime,decimal,math
from pathlib import Path
import numpy as np,pandas as pd,torch

class Refuse:
    def __repr__(self): return 'refuse'
refuse = Refuse()

class Arg:
    "A `value`, and the plain one that it `means`; with `may_refuse` an error is as good as the answer"
    def __init__(self, value, means, may_refuse=False): self.value,self.means,self.may_refuse = value,means,may_refuse
    def __repr__(self): return f'{self.value!r:.160}'

def plainly(*values): return [Arg(o, o) for o in values]
def nonsense(*values): return [Arg(o, refuse) for o in values]
def oddly(*pairs): return [Arg(a, b, True) for a,b in pairs]

strangers = [float('nan'), None, pd.NA, pd.NaT, math.inf, 2**70, -2**63, object(), Ellipsis, slice(None), lambda: 1, {},
             complex(1, 1), b'1', datetime.datetime(2020, 1, 1), decimal.Decimal('NaN'), '', '\0', 'nobody', 10**12,
             Path('x'), int, 10.5]

def known(label):
    "`label` in other words, if there are any"
    res = [Arg(label, label)]
    if isinstance(label, int):
        res += [Arg(np.int64(label), label), Arg(np.int16(label) if label<2**15 else label,
            label)] + oddly((float(label), label), (np.float32(label) if label<2**24 else label, label),
            (np.array(label), label), (torch.tensor(label), label))
        res += nonsense(str(label), label+.5) + ([] if label not in (0, 1) else nonsense(bool(label), np.bool_(label)))
    else:
        res += [Arg(np.str_(label), label)] + nonsense(label+' ', label.swapcase()+'x', label.encode(), 1)
    return res

def one(r, labels):
    "One label, or something that is none"
    return Arg(o := r.choice(labels), o) if r.random()<.3 else r.choice(known(r.choice(labels))) if r.random()<.7 else r.choice(nonsense(*strangers))

def boxes(some):
    "The labels `some` in whatever holds several"
    return [Arg(some, some), Arg(tuple(some), some), Arg(pd.Series(some), some),
            Arg(pd.Series(some, index=range(7, 7+len(some))), some), Arg(pd.Index(some), some),
            Arg(np.array(some), some),
            Arg(np.array(some, dtype=object), some), *oddly((pd.Series(some).astype('category'), some),
            (pd.Categorical(some), some), (pd.Series(some).convert_dtypes(), some), ((o for o in some), some),
            (iter(some), some),
            (collections.deque(some), some), (dict.fromkeys(some), list(dict.fromkeys(some))), (pd.Series(some,
            dtype=object), some), (map(lambda o: o, some), some))]

def several(r, labels, ordered=False):
    "None, one or several labels, or something else; with `ordered` a set is none of it"
    some = r.choices(labels, k=r.choice([1,1,2,3]))
    x = r.random()
    if x<.1: return Arg(None, None)
    if x<.25:
        single = one(r, labels) if r.random()<.4 else Arg(some[0], [some[0]])
        return single if single.value is not None else Arg(None, None)
    if x<.3: return Arg([], [])
    if x<.8: return r.choice(boxes(some))
    if x<.85: return Arg(s := set(some), refuse if ordered and len(s)>1 else list(s), True)
    bad = r.choice([*strangers, True, str(some[0]) if isinstance(some[0], int) else 1])
    return r.choice(nonsense([*some, bad], [bad, *some], [some], pd.DataFrame({'user': some}), [[]], [None],
                             np.array([some, some]), pd.Series([*some,
                             bad], dtype=object), {some[0]: bad}.values(), (o for o in [*some, bad])))

counts = plainly(1, 2, 3, 10, 500) + [Arg(np.int64(3), 3), Arg(np.int8(2), 2)] + oddly((3., 3), (True, 1),
    (torch.tensor(2), 2), (np.float64(2), 2), (2**40, 500), (math.inf, 500), (2**70, 500)) + \
    nonsense(0, -1, 2.5, 'x', '3', float('nan'), [3], -2**70, {}, pd.NA, b'1', np.array([2,3]), (1,))
least = plainly(0, 1, 2) + [Arg(np.int64(1), 1)] + oddly((1., 1), (True, 1), (None, 0), (-1, 0), (1.5, 2),
    (math.inf, 10**6), (2**70, 10**6), (torch.tensor(1), 1)) + nonsense('x', float('nan'), [1], {}, pd.NA)
room = plainly(2**28, 2**20) + [Arg(np.int64(2**20), 2**20)] + oddly((1e6, 10**6), (2**70, 2**28),
    (math.inf, 2**28)) + nonsense(0, -1, 1, 'x', float('nan'), None, [5], {}, pd.NA)
flags = plainly(True, False) + [Arg(np.bool_(False), False), Arg(np.bool_(True), True)] + oddly((1, True), (0, False),
    (None, False)) + nonsense('yes', 'no', [], [1], {}, {'user': [1]}, np.array([1,2]), pd.Series([1,2]), 'False',
    object(), float('nan'), pd.NA, 2)
unknowns = plainly('raise') + oddly((None, 'raise')) + nonsense('Raise', 'keep', 1, True, [], float('nan'), 'nan',
    b'raise')
zs = plainly(0., 1., -.5) + [Arg(np.float32(1), 1.), Arg(1, 1.)] + oddly((True, 1.),
    (None, 0.)) + nonsense(float('nan'), math.inf, -math.inf, 'x', [1], {}, pd.NA)
draws = plainly(0, 1) + [Arg(np.int64(1), 1), Arg(-1, -1)] + oddly((True, 1), (1., 1)) + nonsense(10**6, -10**6, .5,
    'x', float('nan'), [0], {}, pd.NA)
marks = plainly(None, 3, 1.) + [Arg(np.float32(3), 3)] + oddly((True, 1), (-math.inf, None),
    (decimal.Decimal(3), 3)) + nonsense(float('nan'), 'x', math.inf, [3], {}, 10**9, pd.NA)
shares = plainly(.2, .5) + [Arg(np.float32(.25), .25)] + oddly((0, 0)) + nonsense(1, -1, 20, float('nan'), '0.2', None, True, False,
    [.2], {}, pd.NA, math.inf)
seeds = plainly(None, 0, 1, 42) + [Arg(np.int64(7), 7)] + oddly((True, 1), (2.0, 2), (-1, -1), (2**62, 2**62),
    ('3', 3)) + nonsense(float('nan'), 'x', 1.5, [1], {}, 2**70, pd.NA)
held = plainly(1, 2) + [Arg(np.int64(1), 1)] + oddly((1., 1), (True, 1)) + nonsense(0, -1, 1.5, 'x', None, float('nan'),
    [1], {}, pd.NA)

def some(r, args):
    "One of `args`, mostly one that means something"
    sensible = [o for o in args if o.means is not refuse]
    return r.choice(sensible if sensible and r.random()<.75 else args)
