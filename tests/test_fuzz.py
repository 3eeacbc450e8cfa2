"""Random frames, calls, catalogues and damage: what a slow judge finds right, or a clear word of fastrec's, never anything else.

FASTREC_FUZZ says how many cases of each kind, FASTREC_SEED where they begin; `make fuzz` takes twenty thousand"""
import collections,json,os,random,re,shutil,tempfile,time,warnings
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from hypothesis import HealthCheck,Phase,given,seed as begin,settings,strategies as st
import calls,frames
from conftest import catalogue,quietly
from fastrec import all as fastrec_all
from fastrec.all import (BundleError,LeaveLastSplitter,RecDataLoaders,Seen,SeededSplitter,TimeSplitter,UserSplitter,dot_learner,load_recommender,nn_learner,
                         sample_ratings)
from fastrec.export import _checksum
from fastrec.predict import _HalfScreen,_screen_for
from frames import fair,good,told
from judge import Fault,Slow,attempt,check_list,close,labels,list_metrics,pairs,plain,ridge_biases,where

n_cases,first = (int(os.environ.get(o, default)) for o,default in (('FASTREC_FUZZ',60),('FASTREC_SEED',0)))
quick = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate], report_multiple_bugs=False)
def fuzz(share): return lambda f: begin(first)(settings(max_examples=max(int(n_cases*share), 5), **quick)(f))
counted = {}

@pytest.fixture(autouse=True, scope='module')
def report():
    start = time.perf_counter()
    yield
    print(f'\n{sum(counted.values()):,} cases from seed {first} in {time.perf_counter()-start:.0f} s: {counted}')

def count(what): counted[what] = counted.get(what, 0)+1

def judged(case, share=1.):
    "Call `case(seed)` for as many seeds as asked for, and tell all that is wrong by its kind, with a seed for each: FASTREC_SEED=... FASTREC_FUZZ=1 shows it again"
    faults = collections.defaultdict(list)
    for seed in range(first, first+max(int(n_cases*share), 1)):
        try: case(seed)
        except Exception as e: faults[re.sub(r"\d+|'[^']*'", '#', str(e).split(' || ')[0])[:90]].append((seed, str(e) if isinstance(e, Fault) else f'the judge broke: {type(e).__name__} {where(e)} {e}'))
    found = sorted(faults.values(), key=len, reverse=True)
    told = [f'{len(o)} times, first by seed {o[0][0]}: {min((s for _,s in o), key=len)[:1500]}' for o in found]
    if found: pytest.fail(f'{sum(map(len, found))} faults of {len(found)} kinds\n' + '\n'.join(told[:60]), pytrace=False)

# ------------------------------------------------------------------ frames
def wrong(what, case, *more): return Fault(f'{what} || {case} {" ".join(map(str, more))}')

def halves(n):
    "A splitter that takes the last fifth for validation"
    cut = n-max(n//5, 1)
    return lambda o: (np.arange(cut), np.arange(cut, len(o)))

def number(o): return float(o.replace(',', '.') if isinstance(o, str) else o)

def same_rows(ds, rows, case, known=None):
    "Are the rows of `ds` the human's `rows`, in their order where there is one?"
    got = pairs(ds)
    want = [(*(plain(o) if known is None or plain(o) in known[k] else None for k,o in enumerate((u,i))), float(np.float32(y))) for u,i,y in rows]
    return got==want if case.ordered else sorted(map(repr, got))==sorted(map(repr, want))

def check_loaders(dls, case, own_split):
    "Do the loaders hold what the case was made from?"
    rows,n = case.rows,len(case.rows)
    kept = rows[~rows.gone] if 'gone' in rows else rows
    try: triples = [(o.user,o.item,number(o.rating)) for o in kept[['user','item','rating']].itertuples()]
    except (TypeError,ValueError): return 'ratings that are no numbers'
    train,valid = dls.train_ds,dls.valid_ds
    if len(train)+len(valid)!=len(kept): return f'{len(train)+len(valid)} rows of {len(kept)}'
    if (train.user_name,train.item_name,train.rating_name)!=tuple(case.names[k] for k in ('user','item','rating')) and case.frame is not None and case.must<told: return f'columns {train.cat_names}'
    seen = pairs(train)
    for k,v in enumerate(dls.classes.values()):
        names = labels(v)
        if set(names)!={o[k] for o in seen} or len(names)!=len(set(names)): return f'the labels of {v.name!r} are not those of the training rows'
        if len(set(names))!=len({plain(o[k]) for o in triples}) and not own_split and len(valid)<1: return 'labels lost'
    if not own_split or not case.ordered:
        if collections.Counter(seen)-collections.Counter((plain(u),plain(i),float(np.float32(y))) for u,i,y in triples): return 'other rows'
        return
    cut = n-max(n//5, 1)
    parts = [[t for t,at in zip(triples, kept.index) if at<cut],[t for t,at in zip(triples, kept.index) if at>=cut]]
    if not same_rows(train, parts[0], case): return f'other training rows: {seen[:3]} for {parts[0][:3]}'
    known = [{plain(o[k]) for o in parts[0]} for k in (0,1)]
    if not same_rows(valid, parts[1], case, known): return f'other validation rows: {pairs(valid)[:3]} for {parts[1][:3]}'
    if train.time_name is not None and case.time_kind is not None:
        when = list(kept.time)
        if case.time_kind=='days': when = [o//86400*86400 for o in when]
        if case.time_kind in ('date objects','month first'): when = [o//86400*86400 for o in when]
        got = train.x[:,2].tolist()+valid.x[:,2].tolist()
        if got!=when: return f'other times: {got[:3]} for {when[:3]}'

def unchanged(case):
    "A function that tells whether the frame is still what it was"
    if not isinstance(case.frame, pd.DataFrame): return lambda: True
    before = case.frame.copy(deep=True)
    return lambda: case.frame.columns.equals(before.columns) and case.frame.equals(before)

def weigh(got, case, problem, what):
    "Nothing is wrong in silence, what could not be known is said, and good frames are read without a word"
    if got.error is not None:
        if case.must==good: raise wrong(f'{what}: a good frame is refused: {got.text}', case)
        return count(f'{what} refused')
    if case.must==good and got.said: raise wrong(f'{what}: a good frame is warned of: {got.text}', case)
    if problem and not got.said: raise wrong(f'{what}: wrong in silence, {problem}', case)
    if problem and case.must==good: raise wrong(f'{what}: wrong, {problem}', case)
    if case.must==told and not got.said: raise wrong(f'{what}: not said', case)
    count(f'{what} warned of' if got.said else f'{what} read in silence')

def frame_case(seed):
    case,r = frames.case(seed),random.Random(seed+1)
    n,own_split,still = len(case.rows),r.random()<.7,unchanged(case)
    how = dict(splitter=halves(n)) if own_split else dict(seed=seed%7)
    bs = max(1, min(16, int(n*.5)))
    try: got = attempt(RecDataLoaders.from_df, case.frame, bs=bs, **how, **case.kwargs)
    except Fault as e: raise wrong(f'from_df: {e}', case) from e
    if not still(): raise wrong('from_df: the frame was changed', case)
    problem = check_loaders(got.value, case, own_split) if got.error is None else None
    weigh(got, case, problem, 'frames')
    if got.error is None and not problem and r.random()<.4: trained(got.value, case, r)

# ------------------------------------------------------------------ answers
fits = {'dot': lambda l: l.fit(1), 'nn': lambda l: l.fit(1), 'bias': lambda l: l.fit_bias(10, reg=20, tol=0), 'als': lambda l: l.fit_als(2, 2), 'ials': lambda l: l.fit_ials(2, 2),
        'bayes': lambda l: l.fit_bayes(2, 4), 'one draw': lambda l: l.fit_bayes(1, 2, n_draws=1), 'one cycle': lambda l: l.fit_one_cycle(1)}

def learned(dls, how, r):
    learn = (nn_learner if how=='nn' else dot_learner)(dls, 3)
    with learn.no_logging(),learn.no_bar(): fits[how](learn)
    return learn

def trained(dls, case, r):
    "Fit something to the loaders of `case`, and ask it everything"
    how = r.choice(['bias','bias','bias',*fits])
    try: got = attempt(learned, dls, how, r)
    except Fault as e: raise wrong(f'{how}: {e}', case) from e
    if got.error is not None:
        if case.must==good: raise wrong(f'{how}: fit refused: {got.text}', case)
        return count('fits refused')
    said = [o for o in got.said if 'validation ratings lie outside' not in o]
    if case.must==good and said: raise wrong(f'{how}: a good fit is warned of: {said}', case)
    try: check_answers(got.value, how, r)
    except Fault as e: raise wrong(f'{how}: {e}', case) from e

def right(what, got, want=None):
    "The value of an `Outcome` that must be an answer, without a word"
    if got.error is not None: raise Fault(f'{what}: refused: {got.text}')
    if got.said: raise Fault(f'{what}: warned of: {got.text}')
    if want is not None and not want(got.value): raise Fault(f'{what}: {str(got.value)[:200]} is wrong')
    return got.value

def check_answers(learn, how, r):
    "Everything a fitted learner says of its own ratings is what its tables, and a sort of them, say"
    slow,ds = Slow(learn),learn.dls.train_ds
    rows,held = pairs(ds),pairs(learn.dls.valid_ds)
    users,items = (list(v.labels) for v in ds.classes.values())
    scale = max(abs(y) for *_,y in rows)
    if how=='bias':
        b,y_range = ridge_biases(rows, 20),learn.model.y_range
        for u,i,_ in r.sample(rows, min(len(rows), 5)):
            want = min(max(b(u, i), y_range[0]), y_range[1]) if y_range else b(u, i)
            if not close([slow.predict(u, i)], [want], scale*10): raise Fault(f'fit_bias: {slow.predict(u, i)} for {u!r}, {i!r} where the equations give {want}')
    some = [(r.choice(users),r.choice(items)) for _ in range(4)]
    want = [slow.predict(u, i) for u,i in some]
    right('predict', attempt(learn.predict, *some[0]), lambda o: type(o) is float and close([o], want[:1], scale))
    frame = pd.DataFrame({n: [o[k] for o in some] for k,n in enumerate(ds.cat_names)}, index=['a','b','c','c'])
    right('predict_df', attempt(learn.predict_df, frame), lambda o: list(o.index)==list('abcc') and close(o.tolist(), want, scale))
    grid = right('predict_grid', attempt(learn.predict_grid))
    if grid.shape!=(len(users),len(items)): raise Fault(f'predict_grid: {grid.shape}')
    for u,i in some:
        k,j = users.index(u),items.index(i)
        if not close([float(grid[k,j])], [slow.predict(u, i)], scale): raise Fault(f'predict_grid: {grid[k,j]} for {u!r}, {i!r} where {slow.predict(u, i)} is right')
    check_lists(learn, slow, rows, held, r)
    check_similar(learn, slow, r)
    check_metrics(learn, slow, rows, held, r)
    if how=='one draw' and (one := attempt(learn.predict, *some[0], std=True)).error is None: raise Fault(f'std of one draw: {one.value}')
    if how=='bayes': right('std', attempt(learn.predict, *some[0], std=True), lambda o: close(o, [want[0],slow.std(*some[0])], scale))
    nobody = pd.DataFrame({ds.item_name: frame[ds.item_name][:0], ds.rating_name: np.zeros(0, 'float32')})
    if how!='bayes':
        new = right('fold_in of nobody', attempt(learn.fold_in, nobody))
        if not close([new.predict(items[0])], [slow.bounded(slow.score(0, 1))], scale*5): raise Fault(f'fold_in of nobody: {new.predict(items[0])} where the average, {slow.bounded(slow.score(0, 1))}, is right')
    check_saved(learn, grid, r)
    count(f'answers after {how}')

def listed(df, ds): return [(plain(i),float(s)) for i,s in zip(df[ds.item_name], df.score)]

def check_lists(learn, slow, rows, held, r):
    "Recommendations are a slow sort of what was not seen"
    ds = learn.dls.train_ds
    counts = collections.Counter(i for _,i,_ in rows)
    users,items = slow.users,slow.items
    own = {u: {i for v,i,_ in [*rows,*held] if v==u and i is not None} for u in users}
    who = r.choice([None, [r.choice(users)], r.sample(users, min(len(users), 3)), [users[0]]*2])
    some,min_count,n = r.choice([None,None,r.sample(items, r.randint(1, len(items)))]),r.choice([0,0,1,2]),r.choice([1,3,10,500])
    other = pd.DataFrame({ds.user_name: r.choices(list(ds.classes[ds.user_name].labels), k=4), ds.item_name: r.choices(list(ds.classes[ds.item_name].labels), k=4)})
    hide = r.choice([True,True,False,other])
    real = [list(v.labels) for v in ds.classes.values()]
    at = lambda k, os: None if os is None else [real[k][(users,items)[k].index(o)] for o in os]
    got = right('recommend', attempt(learn.recommend, at(0, who), n=n, items=at(1, some), exclude_seen=hide, min_count=min_count))
    if len(set(got.columns))!=4: raise Fault(f'recommend: columns {list(got)}')
    gone = own if hide is True else {} if hide is False else {u: {plain(i) for v,i in other.itertuples(index=False) if plain(v)==u} for u in users}
    want = [(u,o) for u in (users if who is None else who) for o in [slow.best(u, n, some, gone.get(u, ()), counts, min_count)]]
    if len(got)!=sum(len(o) for _,o in want): raise Fault(f'recommend: {len(got)} rows where {sum(len(o) for _,o in want)} are right')
    start = 0
    for u,o in want:
        mine = got.iloc[start:start+len(o)]
        start += len(o)
        if {plain(v) for v in mine[ds.user_name]}-{u} or list(mine['rank'])!=list(range(1, len(o)+1)): raise Fault(f'recommend: users and ranks {mine}')
        check_list(listed(mine, ds), o, f'recommend, {u!r}')

def check_similar(learn, slow, r):
    for k,f in enumerate((learn.similar_users,learn.similar)):
        vocab = list(learn.dls.classes.values())[k]
        at = r.randrange(len(vocab.labels))
        got = attempt(f, vocab.labels[at], 3)
        if not slow.tables[k][0].shape[1]:
            if got.error is None: raise Fault('similar: no factors and no word')
            continue
        if len(vocab.labels)==1 and got.error is not None: continue
        df = right(f.__name__, got)
        check_list(list(zip(map(plain, df[vocab.name]), df.similarity)), slow.similar(k, labels(vocab)[at])[:3], f.__name__)

def check_metrics(learn, slow, rows, held, r):
    "Metrics by their definitions, a held-out pair counted once"
    counts,k = collections.Counter(i for _,i,_ in rows),r.choice([1,3,10])
    seen,relevant = {u: {i for v,i,_ in rows if v==u} for u in slow.users},{}
    for u,i,_ in held:
        if u is not None: relevant.setdefault(u, set()).add(i)
    got = attempt(learn.evaluate, k=k)
    doubtful = any(None in o for o in relevant.values()) or any(o&seen[u] for u,o in relevant.items())  # unknown items, pairs that were in training: to be said
    if not relevant or got.error is not None:
        if got.error is None or (relevant and not doubtful): raise Fault(f'evaluate: {got.text or "nothing to measure, and no word"}')
        return
    if doubtful: return count('evaluations of doubtful pairs')
    if got.said: raise Fault(f'evaluate: warned of: {got.text}')
    lists = {u: [i for i,_ in slow.best(u, k, None, seen[u], counts)] for u in relevant}
    want,mine = list_metrics(lists, relevant, k, counts, len(slow.users), len(slow.items)),got.value.loc['model']
    ties = any(len({round(s, 4) for _,s in slow.best(u, k+1, None, seen[u], counts)})<min(k+1, len(slow.best(u, k+1, None, seen[u], counts))) for u in relevant)
    for name,value in want.items():
        if not ties and abs(mine[name]-value)>1e-4 and not (np.isnan(mine[name]) and np.isnan(value)): raise Fault(f'evaluate: {name} is {mine[name]} where {value} is right')
    if learn.model.is_preference: return
    lo,hi = min(y for *_,y in rows),max(y for *_,y in rows)
    errors = [min(max(slow.bounded(slow.score(slow.at[0].get(u, 0), slow.at[1].get(i, 0))), lo), hi)-y for u,i,y in held]
    for name,value in dict(rmse=np.mean(np.square(errors))**.5, mae=np.mean(np.abs(errors))).items():
        if not close([mine[name]], [value], max(abs(lo), abs(hi))): raise Fault(f'evaluate: {name} is {mine[name]} where {value} is right')

def check_saved(learn, grid, r):
    if r.random()<.5: return
    folder = Path(tempfile.mkdtemp())
    try:
        got = attempt(learn.save_recommender, folder/'b')
        if got.error is not None: return count('learners not saved')
        rec = right('load_recommender', attempt(load_recommender, folder/'b', 'cpu'))
        same = all(list(map(plain, a))==list(map(plain, b)) and a.name==b.name for a,b in zip(rec.ds.classes.values(), learn.dls.classes.values()))
        if not (same and torch.equal(rec.predict_grid(), grid) and alike(rec.recommend(n=3), learn.recommend(n=3))): raise Fault('save and load: other answers')
    finally: shutil.rmtree(folder)

@pytest.mark.usefixtures('quiet')
def test_frames_are_right_or_told(): judged(frame_case)

# ------------------------------------------------------------------ calls
@pytest.fixture(scope='module')
def asked():
    "Recommenders of all kinds, of numbers and of text, and the frame that each was trained on"
    res,r = [],random.Random(0)
    for k,how in enumerate([*fits,'dot','als','bayes']):
        df = sample_ratings(n_users=9, n_items=8, n_ratings=50, seed=k)[['user','title','rating','timestamp']]
        df = df.assign(user=pd.factorize(df.user, sort=True)[0] + k%2) if k%3 else df.assign(user='u'+df.user.astype(str))
        df.loc[df.index[:2],'rating'] = 1.,5.  # so that training has the whole range
        if k%2: df = df.assign(title=pd.factorize(df.title, sort=True)[0])
        df = df.astype({'title': 'str'} if not k%2 else {}).rename(columns=dict(title='item')).reset_index(drop=True)
        with quietly(),warnings.catch_warnings(action='ignore'): learn = learned(RecDataLoaders.from_df(df, halves(len(df)), bs=16, seed=k, time_name='timestamp' if k>7 else None), how, r)
        res.append((how,learn,df))
        if how=='ials': continue
        folder = Path(tempfile.mkdtemp())
        res.append((f'{how}, loaded',load_recommender(learn.save_recommender(folder/'b'), 'cpu'),df))
        shutil.rmtree(folder)
        if how in ('dot','nn','als'):
            with warnings.catch_warnings(action='ignore'): res.append((f'{how}, new',learn.fold_in(df.assign(user=df.user.map(lambda o: o+'x' if isinstance(o, str) else o+100))[['user','item','rating']], unknown='drop'),df))
    return res

def alike(a, b):
    "The same answer, whatever it is kept in?"
    if isinstance(a, torch.Tensor): return isinstance(b, torch.Tensor) and a.shape==b.shape and torch.allclose(a.float(), b.float(), atol=1e-5, rtol=1e-4, equal_nan=True)
    if isinstance(a, (pd.DataFrame,pd.Series)):
        if type(a) is not type(b) or a.shape!=b.shape: return False
        a,b = (o.to_frame() if isinstance(o, pd.Series) else o for o in (a,b))
        if list(a)!=list(b): return False
        return all(alike(a[c].tolist(), b[c].tolist()) for c in a)
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(alike(x, y) for x,y in zip(a, b))
    if isinstance(a, float): return a==pytest.approx(b, abs=1e-4, rel=1e-4, nan_ok=True)
    return plain(a)==plain(b)

def either(r, args, lots=.8):
    "One of `args`, or now and then none at all"
    return calls.some(r, args) if r.random()>lots else None

def questions(r, how, rec):
    "A question to `rec`, and arguments for it"
    users,items = (list(v.labels) for v in rec.ds.classes.values())
    users,items = ([o.item() if hasattr(o, 'item') else str(o) for o in os] for os in (users,items))
    bayes = 'bayes' in how or how.startswith('one draw')
    what = r.choice(['predict','predict_grid','recommend','recommend','recommend','similar','similar_users','evaluate'])
    if what=='predict': args = dict(user=calls.one(r, users), item=calls.one(r, items), unknown=either(r, calls.unknowns), std=either(r, calls.flags, .9))
    elif what=='predict_grid': args = dict(users=calls.several(r, users, True), items=calls.several(r, items, True), max_bytes=either(r, calls.room))
    elif what=='similar': args = dict(item=calls.one(r, items), n=either(r, calls.counts, .4))
    elif what=='similar_users': args = dict(user=calls.one(r, users), n=either(r, calls.counts, .4))
    elif what=='evaluate': args = dict(k=either(r, calls.counts, .3), min_rating=either(r, calls.marks, .6), exclude_seen=either(r, calls.flags, .7))
    else:
        args = dict(users=calls.several(r, users), n=either(r, calls.counts, .5), items=either(r, [calls.several(r, items)], .6), exclude_seen=either(r, calls.flags, .6), min_count=either(r, calls.least),
                    max_bytes=either(r, calls.room, .9), z=either(r, calls.zs, .6 if bayes else .95), draw=either(r, calls.draws, .7 if bayes else .95))
        if args['items'] is not None and isinstance(args['items'].means, list) and args['items'].means!=[] and r.random()<.5: args['items'].means = r.sample(args['items'].means, len(args['items'].means))
    return what,{k: v for k,v in args.items() if v is not None}

def call_case(asked, seed):
    r = random.Random(seed)
    how,rec,df = r.choice(asked)
    what,args = questions(r, how, rec)
    title = f'{how}: {what}({", ".join(f"{k}={v!r}" for k,v in args.items())})'
    start = time.perf_counter()
    try: got = attempt(getattr(rec, what), **{k: v.value for k,v in args.items()})
    except Fault as e: raise Fault(f'{what}: {e} || {title}') from e
    if any(v.means is calls.refuse for v in args.values()):
        if got.error is None and not got.said and nothing_to_refuse(rec, what, args): return count(f'{what} answered')
        if got.error is None and not got.said: raise Fault(f'{what}: answers nonsense, {[k for k,v in args.items() if v.means is calls.refuse]} || {title} {str(got.value)[:200]}')
        return count(f'{what} refused')
    try: want = attempt(getattr(rec, what), **{k: v.means for k,v in args.items()})
    except Fault as e: raise Fault(f'{what}: {e} || {title} as plainly as can be') from e
    if got.error is not None:
        if want.error is None and not any(v.may_refuse for v in args.values()): raise Fault(f'{what}: refused: {got.text} || {title}')
        return count(f'{what} refused')
    if want.error is not None: raise Fault(f'{what}: an answer where {want.text} || {title}')
    if not alike(got.value, want.value): raise Fault(f'{what}: another answer, {str(got.value)[:300]} for {str(want.value)[:300]} || {title}')
    count(f'{what} answered')

def nothing_to_refuse(rec, what, args):
    "Do the arguments mean something after all, such as a label that is there?"
    vocabs = dict(zip(('user','item'), map(labels, rec.ds.classes.values())))
    odd = [k for k,v in args.items() if v.means is calls.refuse]
    return all(k in vocabs and not isinstance(args[k].value, (bool,np.bool_)) and is_label(args[k].value, vocabs[k]) for k in odd)

def is_label(o, names):
    try: return plain(o) in names
    except (TypeError,ValueError): return False

def test_calls_are_answered_or_refused(asked): judged(lambda seed: call_case(asked, seed), 2)

# ------------------------------------------------------------------ other doors
changes = {
    'as it is': (lambda r, d, n: d, good), 'shuffled columns': (lambda r, d, n: d[r.sample(list(d), d.shape[1])], good), 'an extra column': (lambda r, d, n: d.assign(genre='Drama', year=1999), good),
    'an index': (lambda r, d, n: d.set_axis([7]*len(d)), good), 'categories': (lambda r, d, n: frames.shuffle_categories(r, d), good), 'objects': (lambda r, d, n: d.astype(object), fair), 'nullable': (lambda r, d, n: d.convert_dtypes(), good),
    'arrow types': (lambda r, d, n: d.convert_dtypes(dtype_backend='pyarrow'), good), 'arrow': (lambda r, d, n: frames.pyarrow.Table.from_pandas(d, preserve_index=False), fair),
    'polars': (lambda r, d, n: frames.polars.from_pandas(d), fair), 'records': (lambda r, d, n: d.to_records(index=False), fair), 'dict': (lambda r, d, n: d.to_dict('list'), fair), 'array': (lambda r, d, n: d.to_numpy(), fair),
    'text users': (lambda r, d, n: d.assign(**{n[0]: d[n[0]].map(str)}), fair), 'text items': (lambda r, d, n: d.assign(**{n[1]: d[n[1]].map(str)}), fair), 'float users': (lambda r, d, n: d.assign(**{n[0]: d[n[0]].astype(float)}), fair),
    'mixed users': (lambda r, d, n: d.assign(**{n[0]: [str(o) if k%2 else o for k,o in enumerate(d[n[0]])]}), fair), 'an unknown item': (lambda r, d, n: other_label(d, n[1], 'Titanik (1997)', 999), told),
    'an unknown user': (lambda r, d, n: other_label(d, n[0], 'stranger', 999), told), 'no item': (lambda r, d, n: d.drop(columns=n[1]), told), 'a gap': (lambda r, d, n: gap(r, d, r.choice(n)), told),
    'twice': (lambda r, d, n: pd.concat([d, d[[r.choice(n)]].iloc[::-1].set_axis(d.index)], axis=1), told), 'swapped': (lambda r, d, n: d.rename(columns={n[0]: n[1], n[1]: n[0]}), fair),
    'other names': (lambda r, d, n: d.rename(columns={n[0]: 'userId', n[1]: 'movie_id'}), fair), 'user as index': (lambda r, d, n: d.set_index(n[0]), fair), 'two levels': (lambda r, d, n: d.set_axis(pd.MultiIndex.from_product([['a'], d]), axis=1), told),
    'padded': (lambda r, d, n: d.assign(**{n[1]: d[n[1]].map(lambda o: o+' ' if isinstance(o, str) else o+.25)}), told), 'nothing': (lambda r, d, n: None, told), 'a column': (lambda r, d, n: d[n[0]], told),
    'a list': (lambda r, d, n: d[n[0]].tolist(), told), 'bools': (lambda r, d, n: d.assign(**{n[0]: d[n[0]]==d[n[0]].iloc[0]}), told), 'dates': (lambda r, d, n: d.assign(**{n[1]: pd.Timestamp('2020-01-01')}), told)}
rating_changes = {'text ratings': (lambda r, d, n: d.assign(rating=d.rating.astype(str)), fair), 'far off': (lambda r, d, n: d.assign(rating=d.rating*1000), told), 'infinite': (lambda r, d, n: d.assign(rating=np.inf), told),
                  'a gap in ratings': (lambda r, d, n: gap(r, d, 'rating'), told), 'no ratings': (lambda r, d, n: d.drop(columns='rating'), told)}

def other_label(d, name, text, number):
    d = d.copy()
    d[name] = [text if isinstance(d[name].iloc[0], str) else number, *d[name].iloc[1:]]
    return d

def gap(r, d, name):
    col = d[name].astype(object)
    col.iloc[r.randrange(len(d))] = r.choice([None, np.nan, pd.NA])
    return d.assign(**{name: col.infer_objects() if r.random()<.5 else col})

doors = {'predict_df': lambda rec, f: rec.predict_df(f), 'exclude_seen': lambda rec, f: rec.recommend(n=20, exclude_seen=f), 'evaluate': lambda rec, f: rec.evaluate(f, k=3, exclude_seen=False),
         'fold_in': lambda rec, f: rec.fold_in(f).predict_grid(), 'test_dl': lambda rec, f: pairs(rec.dls.test_dl(f).dataset, False)}

meant = {('exclude_seen','nothing'),('evaluate','nothing'),('evaluate','far off'),('fold_in','bools')}  # which says something else there

def door_case(asked, seed):
    r = random.Random(seed)
    how,rec,df = r.choice([o for o in asked if not o[0].endswith('new')])
    door = r.choice([o for o in doors if o!='test_dl' or hasattr(rec, 'dls')])
    names = rec.ds.cat_names
    known = [set(v.labels) for v in rec.ds.classes.values()]
    clean = df[df.user.isin(known[0]) & df['item'].isin(known[1])].drop_duplicates().sample(r.randint(2, 6), random_state=seed%1000)[['user','item','rating']].reset_index(drop=True)
    if door=='fold_in' and r.random()<.5: clean = clean[['item','rating']]
    rated = door in ('evaluate','fold_in')
    kinds = {k: v for k,v in changes.items() if 'user' in clean or not re.search('user|swapped|names|gap|twice|bools|list|column', k)} | (rating_changes if rated else {})
    kind = r.choice(list(kinds))
    if (door,kind) in meant or kind=='swapped' and len({type(o) for o in clean.iloc[0,:2]})==1: return
    make,must = kinds[kind]
    try: frame = make(r, clean, names if 'user' in clean else ['rating','item'])
    except Exception: return
    if door=='fold_in' and (kind in ('an unknown user','text users','mixed users','bools','float users','padded') or kind=='nothing'): must = fair  # its users are new anyway
    if door in ('predict_df','exclude_seen') and kind=='a gap' and 'rating' in clean and frame.rating.isna().any(): return
    title = f'{how}: {door}({kind}) {frame if not isinstance(frame, pd.DataFrame) else frames.shown(frame)}'
    try: got,want = attempt(doors[door], rec, frame),attempt(doors[door], rec, clean)
    except Fault as e: raise Fault(f'{door}: {kind}: {e} || {title}') from e
    if want.error is not None:  # a question it cannot answer at all
        if got.error is None: raise Fault(f'{door}: {kind}: an answer where {want.text} || {title}')
        return count(f'{door} refused')
    if got.error is not None:
        if must==good: raise Fault(f'{door}: {kind}: refused: {got.text} || {title}')
        return count(f'{door} refused')
    same = alike(plain_columns(got.value), plain_columns(want.value))
    if must==good and (set(got.said)-set(want.said) or not same): raise Fault(f'{door}: {kind}: {got.said or "another answer"} || {title}')
    if must==told and not set(got.said)-set(want.said): raise Fault(f'{door}: {kind}: not said || {title}')
    if not same and not set(got.said)-set(want.said) and not (door=='fold_in' and 'user' in kind): raise Fault(f'{door}: {kind}: wrong in silence || {title} {str(got.value)[:200]}')
    count(f'{door} answered')

def plain_columns(o): return o.reset_index(drop=True) if isinstance(o, pd.Series) else o

def test_doors_are_right_or_told(asked): judged(lambda seed: door_case(asked, seed), 1)

# ------------------------------------------------------------------ splitters
def parts_of(splitter, frame): return [np.asarray(o).tolist() for o in splitter(frame)]

def split_case(seed):
    r,case = random.Random(seed),frames.case(seed+10**6)
    if not isinstance(case.frame, pd.DataFrame): return
    name = r.choice(['seeded','time','last','user'])
    user,when = case.names.get('user', 'user'),case.names.get('time', 'timestamp')
    arg = lambda args: r.choice(args) if r.random()<.5 else args[0]
    args = dict(seeded=dict(valid_pct=arg(calls.shares), seed=arg(calls.seeds)), time=dict(valid_pct=arg(calls.shares), time_name=calls.Arg(when, when)),
                last=dict(n=arg(calls.held), user_name=calls.Arg(user, user), time_name=calls.Arg(when, when)), user=dict(valid_pct=arg(calls.shares), seed=arg(calls.seeds), user_name=calls.Arg(user, user)))[name]
    make = dict(seeded=SeededSplitter, time=TimeSplitter, last=LeaveLastSplitter, user=UserSplitter)[name]
    title = f'{name}({args}) {case}'
    try: got = attempt(lambda: parts_of(make(**{k: v.value for k,v in args.items()}), case.frame))
    except Fault as e: raise Fault(f'{name} splitter: {e} || {title}') from e
    if got.error is not None:
        if case.must==good and not any(v.means is calls.refuse or v.may_refuse for v in args.values()) and (name=='seeded' or 'time' in case.names or name=='user'): raise Fault(f'{name} splitter: refused: {got.text} || {title}')
        return count('splits refused')
    if any(v.means is calls.refuse for v in args.values()): raise Fault(f'{name} splitter: takes nonsense || {title}')
    train,valid = got.value
    if sorted(train+valid)!=list(range(len(case.frame))): raise Fault(f'{name} splitter: rows lost || {title}')
    if len(case.frame)!=len(case.rows) or got.said or case.must==told: return count('splits of other frames')
    t,u = case.rows.time.tolist(),[plain(o) for o in case.rows.user]
    if case.time_kind=='zero': t = [0]*len(t)
    if case.time_kind in ('days','date objects','month first'): t = [o//86400 for o in t]
    if case.time_kind=='years': t = [pd.Timestamp(o, unit='s').year for o in t]
    late = name=='time' and train and valid and max(t[k] for k in train)>min(t[k] for k in valid)
    if name=='last': late = any(t[j]<t[k] for j in valid for k in train if u[j]==u[k])
    if name=='user': late = bool({u[k] for k in train} & {u[k] for k in valid})
    if name=='last' and any(collections.Counter(u[k] for k in valid)[o]>args['n'].means for o in set(u)): late = True
    if late: raise Fault(f'{name} splitter: wrong in silence || {title}')
    count('splits')

def test_splits_are_fair(): judged(split_case, .5)

# ------------------------------------------------------------------ files
def written(r, case, folder):
    "The frame of `case` as a file of some kind: its path, and how a careful reader would read it"
    df,index = case.frame,r.random()<.25
    sep,coding,header = r.choice([',',',',';','\t','|']),r.choice(['utf-8','utf-8','utf-8-sig','latin-1','utf-16']),r.random()<.85
    how = dict(sep=sep, encoding=coding, header=0 if header else None)
    path = folder/('ratings.csv'+r.choice(['','.gz']))
    df.to_csv(path, sep=sep, encoding=coding, header=header, index=index, decimal=(decimal := r.choice(['.','.',',']) if sep!=',' else '.'))
    case.note(f'{path.name} with {sep!r}, {coding}'+', its index'*index+', no header'*(not header)+f', decimal {decimal}', fair)
    return path,{k: v for k,v in how.items() if r.random()<.3}|({'decimal': ','} if decimal==',' and r.random()<.5 else {})

def file_case(seed):
    r,case = random.Random(seed),frames.case(seed+2*10**6)
    df,folder = case.frame,Path(tempfile.mkdtemp())
    texts = [o for k in ('user','item') for o in case.rows[k] if not isinstance(o, (int,np.integer))]
    if not isinstance(df, pd.DataFrame) or not len(df) or not df.columns.is_unique or any(not isinstance(o, str) or not o.strip() or set(o)&set('\0\ud800') for o in texts): return
    if 'gone' in case.rows or len(df)!=len(case.rows) or isinstance(df.columns, pd.MultiIndex) or isinstance(df.index, pd.MultiIndex): return
    kwargs = {k: v for k,v in case.kwargs.items() if k!='dropna'}
    try:
        if r.random()<.7:
            try: path,how = written(r, case, folder)
            except (UnicodeEncodeError,TypeError): return
            read = RecDataLoaders.from_csv
            kwargs |= how
        else:
            path,read = folder/'ratings.parquet',RecDataLoaders.from_parquet
            try: df.to_parquet(path, index=False)
            except Exception: return
            case.note('Parquet', fair)
            kwargs |= dict(rows=r.choice([1,7,1000]))
        n = len(case.rows)
        try: got = attempt(read, path, splitter=halves(n), bs=max(1, min(16, int(n*.5))), **kwargs)
        except Fault as e: raise wrong(f'{read.__name__}: {e}', case) from e
    finally: shutil.rmtree(folder)
    if got.error is not None: return count('files refused')
    ds = got.value.train_ds
    try: want = [(str(u),str(i),float(np.float32(number(y)))) for u,i,y in case.rows[['user','item','rating']].itertuples(index=False)][:n-max(n//5, 1)]
    except (TypeError,ValueError): want = None
    mine = [(str(u),str(i),y) for u,i,y in pairs(ds)]
    if mine!=want and not got.said: raise wrong(f'{read.__name__}: wrong in silence: {mine[:2]} for {want and want[:2]}', case, kwargs)
    if case.must==told and not got.said: raise wrong(f'{read.__name__}: not said', case)
    count('files warned of' if got.said else 'files read in silence')

def test_files_are_right_or_told(): judged(file_case, .7)

# ------------------------------------------------------------------ lists
def factors(kind, *shape):
    "Random factors, (n,k)"
    res = torch.randn(shape)
    if kind=='long tail': res *= torch.rand(shape[0], 1)**-.7
    elif kind=='scales': res *= 10**torch.linspace(-3, 3, shape[1])
    elif kind=='sparse': res *= torch.rand(shape)<.1
    elif kind=='crowds': res = res[torch.randint(0, 50, shape[:1])]+.02*torch.randn(shape)
    elif kind=='whole': res = res.round()
    elif kind=='constant': res[:,:1] = 100
    elif kind in ('huge','tiny'): res *= dict(huge=1e6, tiny=1e-12)[kind]
    return res

kinds = st.sampled_from(['plain','long tail','scales','sparse','crowds','whole','constant','huge','tiny'])

@fuzz(.1)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from([0,1,2,5,16,40,130,700]), st.sampled_from([1,3,10,25]), st.booleans(), st.booleans())
def test_random_lists(seed, users_are, items_are, k, n, half, insatiable):
    torch.manual_seed(seed)
    n_users,n_items = 256+seed%400,200*n+6000+seed%3000
    x = torch.stack([torch.randint(1, o+1, (20_000,)) for o in (n_users,n_items)], 1)
    if insatiable: x = torch.cat([x, torch.stack([torch.full((n_items-4,), 3), 1+torch.randperm(n_items)[4:]], 1)])
    rec = catalogue(factors(users_are, n_users, k), factors(items_are, n_items, k), Seen(x, n_users+1, n_items+1, torch.ones(n_items+1, dtype=int)))
    with pytest.MonkeyPatch.context() as p,quietly():
        p.setattr('fastrec.predict._screen_for', lambda device: _HalfScreen if half else _screen_for(device))
        got = rec.recommend(n=n)
    with torch.no_grad(): u,i = (f(torch.arange(1, o+1)).double() for f,o in ((rec.model.user_side,n_users),(rec.model.item_side,n_items)))
    scores,(row,col) = u@i.T,rec.seen.of(torch.arange(1, n_users+1))
    scores[row,col-1] = -torch.inf
    best,row,col = scores.topk(n)[0],*(torch.tensor(got[o].to_numpy()) for o in ('user','item'))
    best = best[best>-torch.inf]
    assert len(best)==len(row) and ((best-scores[row,col]).abs() <= 3e-6*i.norm(dim=1).max()*u.norm(dim=1)[row]).all()
    count('catalogues')

# ------------------------------------------------------------------ damaged folders
@pytest.fixture(scope='module')
def bundles(tmp_path_factory):
    res = []
    for k,make in enumerate((lambda d: dot_learner(d, 3), lambda d: nn_learner(d, 3, [4]), lambda d: dot_learner(d, 3))):
        learn = make(RecDataLoaders.from_df(sample_ratings(n_users=20, n_items=15, n_ratings=150, seed=k), seed=k, bs=32, time_name='timestamp'))
        with quietly(),learn.no_logging(): learn.fit_bayes(2, 4, time='100D') if k==2 else learn.fit(1)
        res.append(learn.save_recommender(tmp_path_factory.mktemp('b')/'b'))
    return [(o,load_recommender(o, 'cpu').predict_grid()) for o in res]

@st.composite
def damages(draw):
    what = draw(st.sampled_from(['flip','cut','grow','swap','fill','header']))
    return what,draw(st.integers(0, 2)),draw(st.floats(0, 1, exclude_max=True)),draw(st.integers(0, 7)),draw(st.binary(min_size=1, max_size=40))

def apply(folder, others, damage):
    "Do `damage` to a file of `folder`; returns whether anything has changed"
    what,k,where,bit,extra = damage
    file = sorted(o for o in folder.iterdir())[k%len(list(folder.iterdir()))]
    data,before = bytearray(file.read_bytes()),file.read_bytes()
    at = int(where*len(data))
    if what=='flip' and data: data[at] ^= 1<<bit
    elif what=='cut': del data[at:]
    elif what=='grow': data[at:at] = extra
    elif what=='fill': data[at:at+len(extra)] = bytes(len(extra))
    elif what=='header': data[:8] = (int(where*2**63)).to_bytes(8, 'little')
    elif what=='swap': data = bytearray(sorted(others.iterdir())[k%len(list(others.iterdir()))].read_bytes())
    file.write_bytes(data)
    return bytes(data)!=before

@fuzz(1.5)
@given(st.integers(0, 2), st.lists(damages(), min_size=1, max_size=2))
def test_random_damage(bundles, k, damage):
    (source,grid),(other,_) = bundles[k],bundles[(k+1)%3]
    folder = Path(tempfile.mkdtemp())/'b'
    try:
        shutil.copytree(source, folder)
        changed = [apply(folder, other, d) for d in damage]
        start = time.perf_counter()
        try: got = load_recommender(folder, 'cpu').predict_grid()
        except (BundleError,FileNotFoundError): count('damaged folders refused')
        else:
            assert torch.equal(got, grid), 'a damaged folder was loaded with other answers'
            count('damaged folders whole again')
        assert time.perf_counter()-start<10
    finally: shutil.rmtree(folder.parent)

# ------------------------------------------------------------------ forged manifests
text = st.text(st.characters(blacklist_categories=('Cs',)), max_size=8)
values = st.recursive(st.one_of(st.none(), st.booleans(), st.integers(-2**70, 2**70), st.floats(), text, st.sampled_from(['dot','net','mean','int64','text','../x','user'])), lambda o: st.lists(o, max_size=3)|st.dictionaries(text, o, max_size=3), max_leaves=5)

def places(o, path=()):
    "Every place within a manifest"
    if path: yield path
    for k in (o if isinstance(o, dict) else range(len(o)) if isinstance(o, list) else ()): yield from places(o[k], (*path,k))

@fuzz(1.5)
@given(st.integers(0, 2), st.data())
def test_forged_manifests(bundles, k, data):
    "With the right checksum whatever is written there: a model that answers, or a clear error"
    folder = Path(tempfile.mkdtemp())/'b'
    try:
        shutil.copytree(bundles[k][0], folder)
        m = json.loads((folder/'manifest.json').read_text())
        *path,last = data.draw(st.sampled_from(sorted(places(m), key=str)))
        spot = m
        for o in path: spot = spot[o]
        if data.draw(st.booleans()) or not isinstance(spot, dict): spot[last] = data.draw(values)
        else: del spot[last]
        (folder/'manifest.json').write_text(json.dumps({**m, 'checksum': _checksum(m)}))
        start = time.perf_counter()
        try: rec = load_recommender(folder, 'cpu')
        except (BundleError,FileNotFoundError): count('forged manifests refused')
        else:
            assert rec.predict_grid().shape==bundles[k][1].shape and len(rec.recommend(n=2, exclude_seen=rec.seen is not None)) and rec.predict(*(v.labels[0] for v in rec.ds.classes.values())) is not None
            count('forged manifests answered')
        assert time.perf_counter()-start<10
    finally: shutil.rmtree(folder.parent)
