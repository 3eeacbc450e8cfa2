"""Random frames, calls, catalogues and damage: what a slow judge finds right, or a clear word of fastrec's, never anything else.

FASTREC_FUZZ says how many cases of each kind, FASTREC_SEED where they begin; `make fuzz` takes twenty thousand"""
import collections,json,os,random,re,shutil,tempfile,time,warnings
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from hypothesis import HealthCheck,Phase,given,seed as begin,settings,strategies as st
import calls,frames
from answers import alike,check_answers,need
from conftest import catalogue,quietly
from fastrec import all as fastrec_all
from fastrec.all import (BundleError,LeaveLastSplitter,RecDataLoaders,Seen,SeededSplitter,TimeSplitter,UserSplitter,
                         dot_learner,load_recommender,nn_learner,sample_ratings)
from fastrec.export.files import checksum
from fastrec.answer.byte_screens import ByteScreen,PlainBytes,screen_for
from fastrec.answer.screens import HalfScreen
from frames import fair,good,side_columns,told
from judge import Fault,attempt,labels,pairs,plain,where

n_cases,first = (int(os.environ.get(o, default)) for o,default in (('FASTREC_FUZZ',60),('FASTREC_SEED',0)))
quick = dict(deadline=None, database=None, suppress_health_check=list(HealthCheck), phases=[Phase.generate],
             report_multiple_bugs=False)
def fuzz(share): return lambda f: begin(first)(settings(max_examples=max(int(n_cases*share), 5), **quick)(f))
counted = {}

@pytest.fixture(autouse=True, scope='module')
def report():
    start = time.perf_counter()
    yield
    print(f'\n{sum(counted.values()):,} cases from seed {first} in {time.perf_counter()-start:.0f} s: {counted}')

def count(what): counted[what] = counted.get(what, 0)+1

def judged(case, share=1.):
    """Call `case(seed)` for as many seeds as asked for, and tell all that is wrong by its kind, with a seed for each.

    FASTREC_SEED=... FASTREC_FUZZ=1 shows one again"""
    faults = collections.defaultdict(list)
    for seed in range(first, first+max(int(n_cases*share), 1)):
        try: case(seed)
        except Exception as e:
            text = str(e) if isinstance(e, Fault) else f'the judge broke: {type(e).__name__} {where(e)} {e}'
            faults[re.sub(r"\d+|'[^']*'", '#', text.split(' || ')[0])[:90]].append((seed, text))
    found = sorted(faults.values(), key=len, reverse=True)
    lines = [f'{len(o)} times, first by seed {o[0][0]}: {min((s for _,s in o), key=len)[:1500]}' for o in found[:60]]
    if found: pytest.fail('\n'.join([f'{sum(map(len, found))} faults of {len(found)} kinds', *lines]), pytrace=False)

# ------------------------------------------------------------------ frames
def wrong(what, case, *more): return Fault(f'{what} || {case} {" ".join(map(str, more))}')

def cut(n): return n-max(n//5, 1)

def last_fifth(o):
    "A splitter that takes the last fifth for validation"
    return np.arange(cut(len(o))),np.arange(cut(len(o)), len(o))

def number(o): return float(np.float32(o.replace(',', '.') if isinstance(o, str) else o))

def triples(rows, name=plain): return [(name(o.user),name(o.item),number(o.rating)) for o in rows.itertuples()]

def same(got, want, ordered): return got==want if ordered else sorted(map(repr, got))==sorted(map(repr, want))

def check_rows(dls, case):
    "Are the rows of training and validation the last fifth and the rest, with what only the former has unknown?"
    rows = case.kept
    train,valid = (triples(o) for o in (rows[rows.index<cut(len(case.rows))], rows[rows.index>=cut(len(case.rows))]))
    known = [{o[k] for o in train} for k in (0,1)]
    valid = [(u if u in known[0] else None, i if i in known[1] else None, y) for u,i,y in valid]
    for ds,want,what in ((dls.train_ds,train,'training'),(dls.valid_ds,valid,'validation')):
        if pairs(ds)!=want: return f'other {what} rows: {pairs(ds)[:3]} for {want[:3]}'

whole_days = ('days','date objects','month first')

def check_times(dls, case):
    if dls.train_ds.time_name is None or case.time_kind is None: return
    want = [o//86400*86400 if case.time_kind in whole_days else o for o in case.kept.time]
    got = dls.train_ds.x[:,2].tolist()+dls.valid_ds.x[:,2].tolist()
    if got!=want: return f'other times: {got[:3]} for {want[:3]}'

def check_loaders(dls, case, own_split):
    "What is wrong with the loaders, if anything, that were made of the `case`"
    try: want = triples(case.kept)
    except (TypeError,ValueError): return 'ratings that are no numbers'
    n,train = len(dls.train_ds)+len(dls.valid_ds),pairs(dls.train_ds)
    if n!=len(want): return f'{n} rows of {len(want)}'
    names = [case.names[k] for k in ('user','item','rating')]
    mine = [*dls.train_ds.cat_names,dls.train_ds.rating_name]
    if case.must<told and list(map(str, mine))!=list(map(str, names)): return f'columns {mine}'
    for k,v in enumerate(dls.classes.values()):
        if sorted(map(repr, labels(v)))!=sorted({repr(o[k]) for o in train}): return f'labels of {v.name!r} not those of training'
    if own_split and case.ordered: return check_rows(dls, case) or check_times(dls, case)
    if collections.Counter(train)-collections.Counter(want): return 'other rows'

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
    if problem and (not got.said or case.must==good): raise wrong(f'{what}: wrong in silence, {problem}', case)
    if case.must==told and not got.said: raise wrong(f'{what}: not said', case)
    count(f'{what} warned of' if got.said else f'{what} read in silence')

def looked_at(case):
    "What `check_ratings` says, if it is there, is a table or a clear word"
    if not hasattr(fastrec_all, 'check_ratings'): return
    got = attempt(fastrec_all.check_ratings, case.frame, **{k: v for k,v in case.kwargs.items() if k!='dropna'})
    if got.error is None and not isinstance(got.value, pd.DataFrame): raise Fault(f'check_ratings: {type(got.value)}')
    count('frames looked at')

def frame_case(seed):
    case,r = frames.case(seed),random.Random(seed+1)
    own_split,still = r.random()<.7,unchanged(case)
    how = dict(splitter=last_fifth) if own_split else dict(seed=seed%7)
    try:
        got = attempt(RecDataLoaders.from_df, case.frame, bs=max(1, min(16, len(case.rows)//2)), **how, **case.kwargs)
        if r.random()<.1: looked_at(case)
    except Fault as e: raise wrong(f'from_df: {e}', case) from e
    problem = check_loaders(got.value, case, own_split) if got.error is None else None
    weigh(got, case, problem, 'frames')
    if got.error is None and not problem and r.random()<.4: trained(got.value, case, r)
    if not still(): raise wrong('from_df: the frame was changed', case)

# ------------------------------------------------------------------ answers
fits = {'dot': lambda l: l.fit(1), 'nn': lambda l: l.fit(1), 'one cycle': lambda l: l.fit_one_cycle(1),
        'bias': lambda l: l.fit_bias(10, reg=20, tol=0), 'als': lambda l: l.fit_als(2, 2),
        'ials': lambda l: l.fit_ials(2, 2), 'bayes': lambda l: l.fit_bayes(2, 4),
        'one draw': lambda l: l.fit_bayes(1, 2, n_draws=1)}

def learned(dls, how):
    "A learner that was fitted by `how`"
    learn = (nn_learner if how=='nn' else dot_learner)(dls, 3)
    with learn.no_logging(),learn.no_bar(): fits[how](learn)
    return learn

def trained(dls, case, r):
    "Fit something to the loaders of `case`, and ask it everything"
    how = r.choice(['bias','bias','bias',*fits])
    try:
        got = attempt(learned, dls, how)
        said = [o for o in got.said if 'validation ratings lie outside' not in o]
        if got.error is not None:
            need(case.must!=good, f'fit refused: {got.text}')
            return count('fits refused')
        need(case.must!=good or not said or how=='ials', f'a good fit is warned of: {said}')
        for o in check_answers(got.value, how, r): count(o)
    except Fault as e: raise wrong(f'{how}: {e}', case) from e
    count(f'answers after {how}')

def test_frames_are_right_or_told(): judged(frame_case)

# ------------------------------------------------------------------ calls
def rated(k):
    "Ratings of a few users, who are numbers or text, and items, likewise, of which the first two show the whole range"
    df = sample_ratings(n_users=9, n_items=8, n_ratings=50, seed=k)[['user','title','rating','timestamp']]
    user = pd.Series(pd.factorize(df.user, sort=True)[0]+k%2, df.index) if k%3 else 'u'+df.user.astype(str)
    item = pd.factorize(df.title, sort=True)[0] if k%2 else df.title.astype('str')
    df.loc[df.index[:2],'rating'] = 1.,5.
    return df.drop(columns='title').assign(user=user, item=item)[['user','item','rating','timestamp']]

def reloaded(learn):
    folder = Path(tempfile.mkdtemp())
    try: return load_recommender(learn.save_recommender(folder/'b'), 'cpu')
    finally: shutil.rmtree(folder)

def as_new(learn, df):
    "The same users under other names, folded in"
    other = df.user.map(lambda o: o+'x' if isinstance(o, str) else o+100)
    return learn.fold_in(df.assign(user=other)[['user','item','rating']], unknown='drop')

@pytest.fixture(scope='module')
def asked():
    "Recommenders of all kinds, of numbers and of text, and the frame that each was trained on"
    res = []
    for k,how in enumerate([*fits,'dot','als','bayes']):
        df = rated(k)
        with quietly(),warnings.catch_warnings(action='ignore'):
            dls = RecDataLoaders.from_df(df, last_fifth, bs=16, seed=k, time_name='timestamp' if k>7 else None)
            res.append((how,learned(dls, how),df))
            if how!='ials': res.append((f'{how}, loaded',reloaded(res[-1][1]),df))
            if how in ('dot','nn','als'): res.append((f'{how}, new',as_new(res[-1][1], df),df))
    return res

def either(r, args, lots=.8):
    "One of `args`, or now and then none at all"
    return calls.some(r, args) if r.random()>lots else None

def recommending(r, users, items, bayes):
    return dict(users=calls.several(r, users), n=either(r, calls.counts, .5), items=either(r, [calls.several(r, items)], .6),
                exclude_seen=either(r, calls.flags, .6), min_count=either(r, calls.least), max_bytes=either(r, calls.room, .9),
                z=either(r, calls.zs, .6 if bayes else .95), draw=either(r, calls.draws, .7 if bayes else .95))

def questions(r, how, rec):
    "A question to `rec`, and arguments for it"
    users,items = (list(v.labels) for v in rec.ds.classes.values())
    users,items = ([str(o) if isinstance(o, str) else int(o) for o in os] for os in (users,items))
    what = r.choice(['predict','predict_grid','recommend','recommend','recommend','similar','similar_users','evaluate'])
    if what=='predict':
        args = dict(user=calls.one(r, users), item=calls.one(r, items), unknown=either(r, calls.unknowns),
                    std=either(r, calls.flags, .9))
    elif what=='predict_grid':
        args = dict(users=calls.several(r, users, True), items=calls.several(r, items, True), max_bytes=either(r, calls.room))
    elif what=='similar': args = dict(item=calls.one(r, items), n=either(r, calls.counts, .4))
    elif what=='similar_users': args = dict(user=calls.one(r, users), n=either(r, calls.counts, .4))
    elif what=='evaluate':
        lengths = [o for o in calls.counts if o.means!=500]  # which a share of hits depends on
        args = dict(k=either(r, lengths, .3), min_rating=either(r, calls.marks, .6), exclude_seen=either(r, calls.flags, .7))
    else: args = recommending(r, users, items, 'bayes' in how or how.startswith('one draw'))
    return what,{k: v for k,v in args.items() if v is not None}

def is_label(o, names):
    try: return not isinstance(o, (bool,np.bool_)) and plain(o) in names
    except (TypeError,ValueError): return False

def means_something(rec, args, odd):
    "Do the `odd` arguments mean something after all, such as a label that is there?"
    vocabs = dict(zip(('user','item'), map(labels, rec.ds.classes.values())))
    return all(k in vocabs and is_label(args[k].value, vocabs[k]) for k in odd)

def is_enough(max_bytes, args):
    "Is the little memory of `max_bytes` enough, since nothing is asked for?"
    return type(max_bytes) is int and max_bytes>0 and any(k in args and args[k].means==[] for k in ('users','items'))

def check_call(rec, what, args):
    "Refuse what has no meaning, and answer what has one as if it were plain"
    got = attempt(getattr(rec, what), **{k: v.value for k,v in args.items()})
    odd = [k for k,v in args.items() if v.means is calls.refuse and not (k=='max_bytes' and is_enough(v.value, args))]
    if odd:
        need(got.error or got.said or means_something(rec, args, odd), f'answers nonsense, {odd}: {str(got.value)[:200]}')
        return got
    want = attempt(getattr(rec, what), **{k: v.means for k,v in args.items() if v.means is not calls.refuse})
    if got.error is None:
        need(want.error is None, f'an answer where {want.text}')
        need(alike(got.value, want.value), f'another answer, {str(got.value)[:300]} for {str(want.value)[:300]}')
    else: need(want.error or any(v.may_refuse for v in args.values()), f'refused: {got.text}')
    return got

def call_case(asked, seed):
    r = random.Random(seed)
    how,rec,_ = r.choice(asked)
    what,args = questions(r, how, rec)
    try: got = check_call(rec, what, args)
    except Fault as e: raise Fault(f'{what}: {e} || {how}: {", ".join(f"{k}={v!r}" for k,v in args.items())}') from e
    count(f'{what} refused' if got.error else f'{what} answered')

def test_calls_are_answered_or_refused(asked): judged(lambda seed: call_case(asked, seed), 2)

# ------------------------------------------------------------------ other doors
def put(d, name, values): return d.assign(**{name: values})
def arrow(d): return frames.pyarrow.Table.from_pandas(d, preserve_index=False)

def first_is(d, name, text, number):
    return put(d, name, [text if isinstance(d[name].iloc[0], str) else number, *d[name].iloc[1:]])

def gap(r, d, name):
    col = d[name].astype(object)
    col.iloc[r.randrange(len(d))] = r.choice([None, np.nan, pd.NA])
    return put(d, name, col.infer_objects() if r.random()<.5 else col)

changes = {  # of a frame d with the columns u and i
    'as it is': (lambda r, d, u, i: d, good), 'shuffled columns': (lambda r, d, u, i: d[r.sample(list(d), d.shape[1])], good),
    'more columns': (lambda r, d, u, i: d.assign(genre='Drama', year=1999), good),
    'an index': (lambda r, d, u, i: d.set_axis([7]*len(d)), good),
    'another order': (lambda r, d, u, i: d.set_axis(range(len(d))[::-1]), good),
    'categories': (lambda r, d, u, i: frames.shuffle_categories(r, d), good), 'objects': (lambda r, d, u, i: d.astype(object), fair),
    'nullable': (lambda r, d, u, i: d.convert_dtypes(), good),
    'arrow types': (lambda r, d, u, i: d.convert_dtypes(dtype_backend='pyarrow'), good),
    'arrow': (lambda r, d, u, i: arrow(d), fair), 'polars': (lambda r, d, u, i: frames.polars.from_pandas(d), fair),
    'records': (lambda r, d, u, i: d.to_records(index=False), fair), 'dict': (lambda r, d, u, i: d.to_dict('list'), fair),
    'array': (lambda r, d, u, i: d.to_numpy(), fair), 'text users': (lambda r, d, u, i: put(d, u, d[u].map(str)), fair),
    'text items': (lambda r, d, u, i: put(d, i, d[i].map(str)), fair),
    'float users': (lambda r, d, u, i: put(d, u, d[u].astype(float)), fair),
    'mixed users': (lambda r, d, u, i: put(d, u, [str(o) if k%2 else o for k,o in enumerate(d[u])]), fair),
    'an unknown item': (lambda r, d, u, i: first_is(d, i, 'Titanik (1997)', 999), told),
    'an unknown user': (lambda r, d, u, i: first_is(d, u, 'stranger', 999), told),
    'no item': (lambda r, d, u, i: d.drop(columns=i), told), 'a gap': (lambda r, d, u, i: gap(r, d, r.choice([u,i])), told),
    'twice': (lambda r, d, u, i: pd.concat([d, d[[r.choice([u,i])]].iloc[::-1].set_axis(d.index)], axis=1), told),
    'swapped': (lambda r, d, u, i: d.rename(columns={u: i, i: u}), fair),
    'other names': (lambda r, d, u, i: d.rename(columns={u: 'userId', i: 'movie_id'}), fair),
    'user as index': (lambda r, d, u, i: d.set_index(u), fair), 'dates': (lambda r, d, u, i: put(d, i, pd.Timestamp('2020')), told),
    'two levels': (lambda r, d, u, i: d.set_axis(pd.MultiIndex.from_product([['a'], d]), axis=1), told),
    'padded': (lambda r, d, u, i: put(d, i, d[i].map(lambda o: o+' ' if isinstance(o, str) else o+.25)), told),
    'nothing': (lambda r, d, u, i: None, told), 'a column': (lambda r, d, u, i: d[u], told),
    'a list': (lambda r, d, u, i: d[u].tolist(), told), 'bools': (lambda r, d, u, i: put(d, u, d[u]==d[u].iloc[0]), told)}
rating_changes = {
    'text ratings': (lambda r, d, u, i: d.assign(rating=d.rating.astype(str)), fair),
    'far off': (lambda r, d, u, i: d.assign(rating=d.rating*1000), told),
    'infinite': (lambda r, d, u, i: d.assign(rating=np.inf), told),
    'a gap in ratings': (lambda r, d, u, i: gap(r, d, 'rating'), told), 'no ratings': (lambda r, d, u, i: d.drop(columns='rating'), told)}
doors = {'predict_df': lambda rec, f: rec.predict_df(f), 'exclude_seen': lambda rec, f: rec.recommend(n=20, exclude_seen=f),
         'evaluate': lambda rec, f: rec.evaluate(f, k=3, exclude_seen=False),
         'fold_in': lambda rec, f: rec.fold_in(f).predict_grid(), 'test_dl': lambda rec, f: pairs(rec.dls.test_dl(f).dataset, False)}
meant = {('exclude_seen','nothing'),('evaluate','nothing'),('evaluate','far off'),('fold_in','bools')}  # something else there
of_users = {'an unknown user','text users','mixed users','bools','float users','user as index','swapped','other names','twice','a gap'}

def changed(r, rec, df, door):
    "What is done to some rows that are known to `rec`, the rows, what becomes of them, and what must be said"
    known = [set(v.labels) for v in rec.ds.classes.values()]
    clean = df[df.user.isin(known[0]) & df['item'].isin(known[1])].drop_duplicates().sample(r.randint(2, 6), random_state=r.randint(0, 99))
    clean = clean[['user','item','rating']].reset_index(drop=True)
    alone = door=='fold_in' and r.random()<.5
    kinds = changes | (rating_changes if door in ('evaluate','fold_in') else {})
    kind = r.choice([o for o in kinds if (door,o) not in meant and not (alone and o in of_users|{'a column','a list'})])
    if kind=='swapped' and type(clean.user[0]) is type(clean['item'][0]): kind = 'as it is'  # nobody could know
    make,must = kinds[kind]
    if alone: clean = clean.drop(columns='user')
    if door=='fold_in' and kind in of_users|{'padded','nothing'}: must = fair  # its users are new anyway
    if kind=='far off' and rec.model.y_range is None: must = fair
    if kind in rating_changes and rec.model.is_preference: must = fair  # it asks what was chosen
    try: return kind,clean,make(r, clean, *(['rating','item'] if alone else ['user','item'])),must
    except (ValueError,TypeError): return kind,clean,clean,good  # text is no float

def check_door(rec, door, clean, frame, must, new_users):
    "What is read through the door is what the clean frame gives, or it is said"
    got,want = attempt(doors[door], rec, frame),attempt(doors[door], rec, clean)
    if want.error is not None: need(got.error, f'an answer where {want.text}')  # what it cannot be asked at all
    elif got.error is not None: need(must!=good, f'refused: {got.text}')
    else:
        said,same = set(got.said)-set(want.said),alike(*(o.value.tolist() if isinstance(o.value, pd.Series) else o.value for o in (got,want)))
        need(must!=good or not said, f'warned of: {said}')
        need(must!=told or said, 'not said')
        need(same or said or new_users, f'wrong in silence: {str(got.value)[:200]}')
    return got

def door_case(asked, seed):
    r = random.Random(seed)
    how,rec,df = r.choice([o for o in asked if not o[0].endswith('new')])
    door = r.choice([o for o in doors if o!='test_dl' or hasattr(rec, 'dls')])
    kind,clean,frame,must = changed(r, rec, df, door)
    try: got = check_door(rec, door, clean, frame, must, door=='fold_in' and kind in of_users)
    except Fault as e: raise Fault(f'{door}: {kind}: {e} || {how}: {frames.shown(frame)}') from e
    count(f'{door} refused' if got.error else f'{door} answered')

def test_doors_are_right_or_told(asked): judged(lambda seed: door_case(asked, seed))

# ------------------------------------------------------------------ splitters
splitters = dict(seeded=SeededSplitter, time=TimeSplitter, last=LeaveLastSplitter, user=UserSplitter)

def splitting(r, case):
    "A splitter's name, and arguments for it"
    user,when = (calls.Arg(o, o) for o in (case.names.get('user', 'user'),case.names.get('time', 'timestamp')))
    arg = lambda args: r.choice(args) if r.random()<.5 else args[0]
    share,seed = arg(calls.shares),arg(calls.seeds)
    return r.choice([('seeded',dict(valid_pct=share, seed=seed)), ('time',dict(valid_pct=share, time_name=when)),
                     ('last',dict(n=arg(calls.held), user_name=user, time_name=when)),
                     ('user',dict(valid_pct=share, seed=seed, user_name=user))])

def unfair(name, args, case, train, valid):
    "Is something in validation that should not be, by the times and users that are true?"
    t,u = case.rows.time.tolist(),[plain(o) for o in case.rows.user]
    if case.time_kind=='zero': t = [0]*len(t)
    if case.time_kind in whole_days: t = [o//86400 for o in t]
    if case.time_kind=='years': t = [pd.Timestamp(o, unit='s').year for o in t]
    if name=='time': return train and valid and max(t[k] for k in train)>min(t[k] for k in valid)
    if name=='user': return {u[k] for k in train} & {u[k] for k in valid}
    if name=='last':
        early = any(t[j]<t[k] for j in valid for k in train if u[j]==u[k])
        return early or any(n>args['n'].means for n in collections.Counter(u[k] for k in valid).values())

def check_split(name, args, case):
    def parts(): return [np.asarray(o).tolist() for o in splitters[name](**{k: v.value for k,v in args.items()})(case.frame)]
    got = attempt(parts)
    nonsense,odd = (any(f(v) for v in args.values()) for f in (lambda v: v.means is calls.refuse, lambda v: v.may_refuse))
    if got.error is not None:
        there = name in ('seeded','user') or case.names.get('time') in case.frame
        need(case.must!=good or nonsense or odd or not there, f'refused: {got.text}')
        return got
    need(not nonsense, 'takes nonsense')
    train,valid = got.value
    need(sorted(train+valid)==list(range(len(case.frame))), 'rows lost')
    known = len(case.frame)==len(case.rows) and not got.said and case.must<told
    need(not known or not unfair(name, args, case, train, valid), 'wrong in silence')
    return got

def split_case(seed):
    r,case = random.Random(seed),frames.case(seed+10**6)
    if not isinstance(case.frame, pd.DataFrame): return
    name,args = splitting(r, case)
    try: got = check_split(name, args, case)
    except Fault as e: raise Fault(f'{name} splitter: {e} || {args} {case}') from e
    count('splits refused' if got.error else 'splits')

def test_splits_are_fair(): judged(split_case, .5)

# ------------------------------------------------------------------ what is known of users
known_of = {  # columns of a frame of n users
    'age': lambda r, n: [r.randint(18, 70) for _ in range(n)], 'height': lambda r, n: [round(r.uniform(1, 2), 2) for _ in range(n)],
    'job': lambda r, n: [r.choice(['nurse','cook','CEO']) for _ in range(n)], 'likes': lambda r, n: [r.choice(['tea','tea|cake','jam']) for _ in range(n)],
    'tags': lambda r, n: [r.choice([['a'],['a','b'],['c']]) for _ in range(n)], 'member': lambda r, n: [r.random()<.5 for _ in range(n)],
    'born': lambda r, n: [pd.Timestamp('2000')+pd.Timedelta(r.randint(0, 3), 'D') for _ in range(n)], 'all': lambda r, n: ['x']*n, 'one': lambda r, n: [7]*n}
side_changes = {
    'as it is': (lambda r, d: d, good), 'shuffled': (lambda r, d: d.sample(frac=1, random_state=r.randint(0, 99)), good), 'as index': (lambda r, d: d.set_index('user'), good),
    'others too': (lambda r, d: pd.concat([d, first_is(d, 'user', 'stranger', 999).head(1)]), good), 'nullable': (lambda r, d: d.convert_dtypes(), fair),
    'categories': (lambda r, d: d.assign(**{c: d[c].astype('category') for c in d if c in ('user','job')}), good), 'dict': (lambda r, d: d.to_dict('list'), fair),
    'arrow': (lambda r, d: arrow(d), fair), 'polars': (lambda r, d: frames.polars.from_pandas(d), fair), 'objects': (lambda r, d: d.astype(object), fair),
    'a gap': (lambda r, d: gap(r, d, r.choice(list(d))), told), 'a row less': (lambda r, d: d.iloc[1:], told), 'a row twice': (lambda r, d: pd.concat([d, d.head(1)]), told),
    'text users': (lambda r, d: d.assign(user=d.user.map(str)), fair), 'a column twice': (lambda r, d: pd.concat([d, d[[list(d)[-1]]]], axis=1), told),
    'infinite': (lambda r, d: d.assign(age=np.inf), told), 'no users': (lambda r, d: d.drop(columns='user'), told), 'nothing': (lambda r, d: None, told),
    'broken text': (lambda r, d: d.assign(job=pd.Series(['\ud800']*len(d), d.index, dtype=object)), told), 'complex': (lambda r, d: d.assign(age=1j*np.arange(len(d))), fair)}

def says_nothing(parts):
    "Have all of `parts`, the values of each row, the same one, or does each occur once?"
    each = collections.Counter(o for row in parts for o in {*row})
    return len({tuple(o) for o in parts})<2 and len(each)<2 or max(each.values())<2

def slow_columns(d, users):
    "The columns that the frame `d` says of `users`, each as a tuple of numbers, in no order"
    d,res = d.set_index('user').loc[users],[]
    for c in d:
        col = d[c].tolist()
        if isinstance(col[0], pd.Timestamp): col = [o/pd.Timedelta('1D') for o in (d[c]-pd.Timestamp(0))]
        if isinstance(col[0], (int,float)) and not isinstance(col[0], bool):
            if len(set(col))>1: res.append(tuple(((np.array(col)-np.mean(col))/np.std(col, ddof=1)).tolist()))
            continue
        parts = [o if isinstance(o, list) else str(o).split('|') for o in col]
        values = sorted(set(sum(parts, [])))
        if not says_nothing(parts): res += [tuple(float(v in o) for o in parts) for v in values]
    return sorted(res)

def dense(rows, cols, values, width, n):
    res = np.zeros((n,width))
    res[rows,cols] = values
    return sorted(map(tuple, res.T.tolist()))

def side_case(seed):
    r = random.Random(seed)
    n,text = r.randint(2, 9),r.random()<.5
    users = [f'u{k}' if text else k for k in r.sample(range(30), n)]
    clean = pd.DataFrame({'user': users, **{c: known_of[c](r, n) for c in r.sample(list(known_of), r.randint(1, 4))}})
    kind = r.choice(list(side_changes))
    make,must = side_changes[kind]
    try: frame = make(r, clean)
    except Exception: return  # no such frame exists
    if kind=='text users' and text: must = good
    try:
        got = attempt(side_columns, frame, sorted(users), 'user')
        want = slow_columns(clean, sorted(users))
        if got.error is None:
            mine = dense(*got.value, n)
            same = len(mine)==len(want) and np.allclose(np.array(mine), np.array(want), atol=1e-5)
            need(same or kind=='complex' or got.said, f'wrong in silence: {mine[:2]} for {want[:2]}')
            need(must!=told or got.said, 'not said')
            need(not got.said or kind=='complex' or any('says nothing' in o for o in got.said) and any(clean[c].map(repr).nunique()<2 or clean[c].map(repr).is_unique for c in clean), f'warned of: {got.text}')
        else: need(must!=good, f'refused: {got.text}')
    except Fault as e: raise Fault(f'side: {kind}: {e} || {frames.shown(frame)}') from e
    count('side frames refused' if got.error else 'side frames read')

def test_side_frames_are_right_or_told(): judged(side_case, .5)

# ------------------------------------------------------------------ files
def as_csv(r, case, folder):
    "The frame of `case` as text of some kind: its path, and some of what a careful reader would say"
    sep,coding,header,index = r.choice(',,;\t|'),r.choice(['utf-8','utf-8','utf-8-sig','latin-1','utf-16']),r.random()<.85,r.random()<.25
    decimal = '.' if sep==',' else r.choice('..,')
    path = folder/('ratings.csv'+r.choice(['','.gz']))
    case.frame.to_csv(path, sep=sep, encoding=coding, header=header, index=index, decimal=decimal)
    case.note(f'{path.name} with {sep!r}, {coding}, decimal {decimal}'+', its index'*index+', no header'*(not header), fair)
    how = dict(sep=sep, encoding=coding, header=0 if header else None, decimal=decimal)
    return path,{k: v for k,v in how.items() if r.random()<(.3 if k!='decimal' or v==',' else 0)}

def can_be_written(case):
    "Is it a frame with all of the rows, whose labels survive in a file?"
    df,names = case.frame,[*case.rows.user,*case.rows['item']]
    whole = isinstance(df, pd.DataFrame) and len(df)==len(case.rows)>0 and 'gone' not in case.rows
    if not whole or not df.columns.is_unique or df.columns.nlevels>1 or df.index.nlevels>1: return False
    return all(isinstance(o, (int,np.integer)) or isinstance(o, str) and o.strip() and not set(o)&set('\0\ud800') for o in names)

def file_case(seed):
    r,case = random.Random(seed),frames.case(seed+2*10**6)
    if not can_be_written(case): return
    folder,kwargs = Path(tempfile.mkdtemp()),{k: v for k,v in case.kwargs.items() if k!='dropna'}
    try:
        try:
            if text := r.random()<.7: path,how = as_csv(r, case, folder)
            else: case.frame.to_parquet(path := folder/'ratings.parquet', index=False)
        except Exception: return  # there is no such file
        if not text: how = dict(rows=r.choice([1,7,1000]))
        read = RecDataLoaders.from_csv if text else RecDataLoaders.from_parquet
        try: got = attempt(read, path, splitter=last_fifth, bs=max(1, min(16, len(case.rows)//2)), **kwargs, **how)
        except Fault as e: raise wrong(f'{read.__name__}: {e}', case, how) from e
    finally: shutil.rmtree(folder)
    weigh_file(got, case, read.__name__, how)

def as_text(o): return str(o[1] if isinstance(o := plain(o), tuple) and o[0]=='bool' else o)

def weigh_file(got, case, name, how):
    "Numbers may have become text, or text numbers, but all must read the same"
    if got.error is not None: return count('files refused')
    mine = [(as_text(u),as_text(i),y) for u,i,y in pairs(got.value.train_ds)]
    try: want = triples(case.rows, as_text)[:cut(len(case.rows))]
    except (TypeError,ValueError): want = []
    if mine!=want and not got.said: raise wrong(f'{name}: wrong in silence: {mine[:2]} for {want[:2]}', case, how)
    if case.must==told and not got.said: raise wrong(f'{name}: not said', case, how)
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

class PlainScreen(ByteScreen): kernel = PlainBytes

screens = [HalfScreen,PlainScreen,screen_for(torch.device('cpu'))]
kinds = st.sampled_from(['plain','long tail','scales','sparse','crowds','whole','constant','huge','tiny'])

@fuzz(.1)
@given(st.integers(0, 2**32), kinds, kinds, st.sampled_from([0,1,2,5,16,40,130,700]), st.sampled_from([1,3,10,25]), st.sampled_from(screens), st.booleans())
def test_random_lists(seed, users_are, items_are, k, n, kind, insatiable):
    torch.manual_seed(seed)
    n_users,n_items = 256+seed%400,200*n+6000+seed%3000
    x = torch.stack([torch.randint(1, o+1, (20_000,)) for o in (n_users,n_items)], 1)
    if insatiable: x = torch.cat([x, torch.stack([torch.full((n_items-4,), 3), 1+torch.randperm(n_items)[4:]], 1)])
    rec = catalogue(factors(users_are, n_users, k), factors(items_are, n_items, k), Seen(x, n_users+1, n_items+1, torch.ones(n_items+1, dtype=int)))
    with pytest.MonkeyPatch.context() as p,quietly():
        p.setattr('fastrec.answer.byte_screens.screen_for', lambda device: kind)
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
        start = time.process_time()
        try: got = load_recommender(folder, 'cpu').predict_grid()
        except (BundleError,FileNotFoundError): count('damaged folders refused')
        else:
            assert torch.equal(got, grid), 'a damaged folder was loaded with other answers'
            count('damaged folders whole again')
        assert time.process_time()-start<10
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
        m = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))
        *path,last = data.draw(st.sampled_from(sorted(places(m), key=str)))
        spot = m
        for o in path: spot = spot[o]
        if data.draw(st.booleans()) or not isinstance(spot, dict): spot[last] = data.draw(values)
        else: del spot[last]
        (folder/'manifest.json').write_text(json.dumps({**m, 'checksum': checksum(m)}), encoding='utf-8')
        start = time.process_time()
        try: rec = load_recommender(folder, 'cpu')
        except (BundleError,FileNotFoundError): count('forged manifests refused')
        else:
            assert rec.predict_grid().shape==bundles[k][1].shape and len(rec.recommend(n=2, exclude_seen=rec.seen is not None)) and rec.predict(*(v.labels[0] for v in rec.ds.classes.values())) is not None
            count('forged manifests answered')
        assert time.process_time()-start<10
    finally: shutil.rmtree(folder.parent)
