"""Frames as people have them, each beside the ratings that it was made from, so that a judge knows what a human would say"""
import datetime,decimal,random,uuid,warnings
import numpy as np,pandas as pd
from scipy import sparse
from judge import plain
from fastrec.data.features import Features
from fastrec.data.frames import as_frame
from fastrec.data.labels import Vocab
from fastrec.data.sides import side_rows
try: import polars
except ImportError: polars = None
try: import pyarrow
except ImportError: pyarrow = None

good,fair,told = range(3)  # right and silent · right, or said · said: a human could not know

class Case:
    "The ratings `rows`, a `frame` that was made of them, the `kwargs` to read it with, and what was done to it"
    def __init__(self, rows):
        self.rows,self.frame,self.kwargs,self.notes,self.must,self.names = rows,None,{},[],good,{}
        self.ordered,self.time_kind = True,None
    @property
    def kept(self): return self.rows[~self.rows.gone] if 'gone' in self.rows else self.rows
    def note(self, text, must=good):
        self.notes.append(text)
        self.must = max(self.must, must)
    def __str__(self):
        return f"{' · '.join(self.notes)} | {self.kwargs} | {shown(self.frame)}"

def side_columns(df, labels, name):
    "Row, column and value of what `fit_bayes` reads of the frame `df`, which must be whole, for the `labels` of `name`, and the number of columns"
    vocab = Vocab(labels, name)
    x = Features(side_rows(as_frame(df, 'side'), labels, name), vocab, 'side').x
    rows,cols = x.indices().numpy()
    return rows-1,cols,x.values().numpy(),x.shape[1]

def shown(frame):
    "The first rows, in a line"
    return {str(c): frame.iloc[:5,k].tolist() for k,c in enumerate(frame)} if isinstance(frame,
        pd.DataFrame) else ' '.join(repr(frame)[:300].split())

# ------------------------------------------------------------------ what was rated
stamp = 1_600_000_000
titles = ['Heat (1995)','Amélie (2001)','Three Colors: Blue, The','"Quoted"','Straße','2001','M','Léon\tII',
          "L'Avventura",'Up | Down']
label_kinds = {
    'numbers': (lambda k: k+1, good), 'from 0': (lambda k: k, good), 'scattered numbers': (lambda k: (k*7919)%100_003,
        good), 'ids': (lambda k: f'u{k}', good),
    'numerals': (lambda k: str(k+100), good), 'leading zeros': (lambda k: f'{k:05}', good),
    'titles': (lambda k: titles[k%10]+f' {k//10}'*(k>9), good),
    'large numbers': (lambda k: 2**40+k, good), 'small size': (lambda k: np.int16(k-3), good),
    'floats': (lambda k: k+1., fair), 'halves': (lambda k: k+.5, fair), 'beyond 2**53': (lambda k: 2.**60+k*2048, fair),
    'next to each other': (lambda k: 2**53+k, fair),
    'unsigned': (lambda k: np.uint64(2**63+k), fair), 'beyond int64': (lambda k: 2**70+k, fair),
    'bools': (lambda k: k%2==1, fair),
    'days': (lambda k: pd.Timestamp('2020-01-01')+pd.Timedelta(k, 'D'), fair),
    'days with a zone': (lambda k: pd.Timestamp('2020-01-01', tz='Asia/Tokyo')+pd.Timedelta(k, 'D'), fair),
    'dates': (lambda k: datetime.date(2020, 1, 1+k), fair), 'uuids': (lambda k: uuid.UUID(int=k+1), fair),
    'tuples': (lambda k: (k,'x'), fair), 'bytes': (lambda k: b'u%d'%k, fair),
    'decimals': (lambda k: decimal.Decimal(k)/2, fair), 'numbers and text': (lambda k: k if k%2 else f'u{k}', fair),
    'a number and its text': (lambda k: k//2 if k%2 else str(k//2), fair),
    'case': (lambda k: ('heat','Heat','HEAT','heaT')[k%4]+str(k//4), fair), 'spaces': (lambda k: 'Heat'+' '*k, fair),
    'empty text': (lambda k: 'x'*k, fair),
    'films called so': (lambda k: ('None','NA','nan','Null','#na#','new user')[k%6]+str(k//6)*(k>5), fair),
    'zero bytes': (lambda k: 'a\0'+str(k), fair), 'broken text': (lambda k: '\ud800'+str(k), fair),
    'long text': (lambda k: 'x'*2000+str(k), fair), 'lists': (lambda k: [k], fair), 'complex': (lambda k: complex(k, 1),
    fair), 'spans': (lambda k: pd.Timedelta(k, 'D'), fair)}
rating_kinds = {
    'stars': (lambda r, s: s, good), 'half stars': (lambda r, s: min(5, s+.5*r.randint(0, 1)),
        good), '0 to 10': (lambda r, s: 2*s-r.randint(0, 2), good),
    'real from -10 to 10': (lambda r, s: round(5*(s-3)+r.uniform(-.9, .9), 2), good),
    'hundred': (lambda r, s: 20*s-r.randint(0, 10), good),
    'all alike': (lambda r, s: 4, fair), '0 and 1': (lambda r, s: int(s>3), fair), 'all 1': (lambda r, s: 1, fair),
    'counts': (lambda r, s: int(1+r.expovariate(1)**4), fair),
    'mostly zero': (lambda r, s: s if r.random()<.2 else 0, fair),
    'one side': (lambda r, s: 5 if r.random()<.95 else s, fair), 'bools': (lambda r, s: s>3, fair),
    'votes': (lambda r, s: 1 if s>2 else -1, fair),
    'huge': (lambda r, s: s*1e30, fair), 'tiny': (lambda r, s: s*1e-30, fair), 'far off': (lambda r, s: 1e7+s/4, fair),
    'beyond 2**24': (lambda r, s: 2**25+s, fair), 'close together': (lambda r, s: 5-s*1e-9, fair),
    'infinite': (lambda r, s: float('inf') if r.random()<.1 else s, fair), 'text': (lambda r, s: str(s), fair),
    'with commas': (lambda r, s: f'{s},5', fair), 'words': (lambda r, s: f'{s} stars', fair),
    'decimals': (lambda r, s: decimal.Decimal(s)/2, fair), 'objects': (lambda r, s: float(s),
    fair), 'complex': (lambda r, s: complex(s, 1), fair), 'dates': (lambda r, s: pd.Timestamp(2020, 1, s), fair)}

def pick(r, kinds, odd):
    "One of `kinds`, mostly a good one unless `odd`"
    names = [o for o,(_,must) in kinds.items() if odd or must==good]
    return r.choice(names)

def column(values, objects=False):
    try: return pd.Series(values, dtype=object if objects else None)
    except UnicodeEncodeError: return pd.Series(values, dtype=object)  # text that Arrow cannot hold

def ratings(r, odd_labels=False, odd_ratings=False, regular=True):
    "A `Case` of random ratings by random users of random items, each pair once and each user and item several times if `regular`"
    n_users,n_items = (r.choice([4,5,8,12]),r.choice([4,6,9])) if regular else (r.choice([1,1,2,5,9]),
        r.choice([1,1,2,4,9]))
    kinds = [pick(r, label_kinds, odd_labels and r.random()<.7) for _ in range(2)]
    (user,must_u),(item,must_i) = (label_kinds[o] for o in kinds)
    stars,must_r = rating_kinds[how := pick(r, rating_kinds, odd_ratings)]
    pairs = [(u,i) for u in range(n_users) for i in range(n_items)]
    n = r.randint(int(.6*len(pairs)), len(pairs)) if regular else r.choice([0,1,2,3,5,len(pairs)])
    pairs = r.sample(pairs, min(n, len(pairs)))
    if not regular and pairs and r.random()<.5: pairs += r.choices(pairs, k=r.randint(1, 8))
    lean = [r.uniform(-1, 1) for _ in range(n_users+n_items)]
    def stars_of(u, i): return min(5, max(1, round(3+lean[u]+lean[n_users+i]+r.uniform(-1, 1))))
    rows = [dict(user=user(u), item=item(i), rating=stars(r, stars_of(u, i)),
                 time=stamp+r.randint(0, 400)*86400+r.randint(0, 86399)) for u,i in pairs]
    objects = how=='objects'
    case = Case(pd.DataFrame({k: column([o[k] for o in rows], objects and k=='rating') for k in ('user','item','rating',
        'time')}))
    case.note(f'{len(rows)} ratings, {kinds[0]} × {kinds[1]}, {how}',
              max(must_u, must_i, must_r, good if regular else fair))
    return case

# ------------------------------------------------------------------ how it was written down
usual = dict(user='user user userId user_id userID User USER_ID user'.split(),
             item='item item title itemID item_id movieId movie_id Item title'.split(),
             rating='rating rating Rating stars overall score ratings rating'.split(), time='timestamp timestamp time Timestamp date'.split())
odd_names = dict(user=['uid','customer','reviewerID','who','member_id','von','rank','score','item','std',' user ',
                       'user id','Nutzer','similarity','index','new user','#na#','','self','users','x','None'],
                 item=['asin','product','ISBN','what','song','rank','score','similarity','loss','rating_pred','index',
                 'n','items','user','frame','y'],
                 rating=['value','points','Book-Rating','y','rank','std','rating_pred','loss','n','count','bias',
                 'factors'], time=['when','ts','t','unixReviewTime'])
synonyms = 'uid customer reviewerID member_id asin product ISBN song value points Book-Rating when ts unixReviewTime users items count n'.split()+[' user ','user id']  # which may be known

def name_columns(r, case, odd):
    "Give the columns names: usual ones, or odd ones that are named when it is read, or left to their place"
    names = {k: r.choice(v) for k,v in usual.items()}
    if odd:
        for k in r.sample(list(odd_names), r.randint(1, 3)): names[k] = r.choice(odd_names[k])
    swapped = names['user'] in usual['item'] and names['item'] in usual['user']  # which nobody could know
    if len(set(names.values()))<4 or swapped: return name_columns(r, case, odd)
    strange = [k for k in ('user','item','rating') if names[k] not in usual[k]]
    guessed = all(names[k] in synonyms for k in strange)
    pointed = odd and r.random()<.5
    if pointed: case.kwargs.update({f'{k}_name': names[k] for k in ('user','item','rating')})
    case.names = names
    case.frame = case.rows.rename(columns=names)
    if strange: case.note('names '+','.join(names.values())+' named'*pointed, fair if pointed or guessed else told)
    else: case.note('names '+','.join(names.values()))
    order = list(case.frame)
    if r.random()<.6:
        r.shuffle(order)
        case.frame = case.frame[order]
        case.note('order '+','.join(order), told if strange and not pointed and not guessed else good)
    if r.random()<.4 and not strange:
        case.frame = case.frame.drop(columns=names['time'])
        del case.names['time']

def numbered_columns(r, case):
    case.frame = case.rows[['user','item','rating','time']].set_axis(range(4), axis=1)
    case.names = dict(user=0, item=1, rating=2, time=3)
    if r.random()<.5:
        case.kwargs.update(user_name=0, item_name=1, rating_name=2)
        case.note('columns 0 to 3 named', fair)
    else: case.note('columns 0 to 3', told)

def saved_index(r, case):
    "As a CSV that was written with its index is read"
    name = r.choice(['Unnamed: 0','index','level_0','Unnamed: 0.1','','id','row'])
    if name in case.frame: return
    case.frame.insert(0, name, range(len(case.frame)))
    case.note(f'index saved as {name!r}', fair if name.startswith('Unnamed') else fair)

def other_columns(r, case):
    "Columns that have nothing to do with it"
    for name,make in r.sample([('genre',lambda k: 'Drama'),('helpful',lambda k: k%3),('age',lambda k: 20+k%5),
                               ('userName',lambda k: f'Ann {k}'),('review',lambda k: f'Good {k}'),
                               ('year',lambda k: 1990+k%9),
                               ('user_rating_count',lambda k: k%4),('rating_date',lambda k: '2020-01-01'),('item_price',lambda k: 9.99),(7,lambda k: k)], 2):
        if name in case.frame or name=='userName' and case.names.get('user') not in usual['user']: continue
        case.frame.insert(r.randint(0, case.frame.shape[1]), name, [make(k) for k in range(len(case.frame))])
        case.note(f'with {name!r}', fair)

def twice(r, case):
    col = r.choice(list(case.frame))
    case.frame = pd.concat([case.frame, case.frame[[col]].sample(frac=1,
        random_state=r.randint(0, 99)).set_axis(case.frame.index)], axis=1)
    case.note(f'{col!r} twice', told)

def mistyped(r, case):
    k = r.choice(['user','item','rating','time'])
    case.kwargs[f'{k}_name'] = r.choice([case.names.get(k, k)+'s' if isinstance(case.names.get(k, k), str) else 'x',
        'Users', 3, '', ('user',), ['user'], 1.5, True])
    case.note(f'{k}_name={case.kwargs[f"{k}_name"]!r}', told)

def shared_titles(r, case):
    "Two items of one title, beside the column of their ids"
    ids = list(dict.fromkeys(map(plain, case.rows['item'])))
    if len(ids)<3 or case.rows['item'].isna().any() or 'title' in case.frame or case.names.get('item') not in usual['item']: return
    names = {o: f'Film {k} (1999)' for k,o in enumerate(ids)}
    names[ids[1]] = names[ids[0]]
    case.frame['title'] = [names[plain(o)] for o in case.rows['item']]
    case.note('two items of one title', fair if 'item_name' in case.kwargs else told)

def headline(r, case):
    "A review's headline, as in Amazon's releases, where a title would stand"
    if 'title' in case.frame or case.names.get('item') not in usual['item']: return
    case.frame['title'] = [r.choice(['Great','Great!','Five Stars',
                                     'Meh'])+f' {r.randint(0, 10**6)}'*(r.random()<.7) for _ in range(len(case.frame))]
    case.note('a headline called title', fair if 'item_name' in case.kwargs else told)

def wide(r, case):
    "A table of users by items"
    if repeats(case) or case.rows.rating.dtype.kind=='c': return
    table = case.rows.pivot(index='user', columns='item', values='rating')
    if r.random()<.5: table = table.fillna(0)
    if r.random()<.6: table = table.reset_index()
    if r.random()<.4: table.columns = table.columns.map(str)
    case.frame,case.kwargs = table,{**case.kwargs, 'dropna': True} if r.random()<.3 else case.kwargs
    case.note('users × items', told)

marks = [None, np.nan, pd.NA, pd.NaT, float('nan'), 'NA','NULL','\\N','?','-','nan','N/A','(null)','', ' ']
def missing(r, case):
    "Rows without a value, by nothing or by a mark"
    k = r.choice(['user','item','rating'] + ['time']*('time' in case.names))
    mark,at = r.choice(marks),sorted(r.sample(range(len(case.frame)), min(len(case.frame), r.randint(1, 4))))
    col = case.frame[case.names[k]].astype(object)
    col.iloc[at] = mark
    if r.random()<.5: col = col.infer_objects()
    case.frame[case.names[k]] = col
    if r.random()<.5: case.kwargs['dropna'] = True
    if k=='time': case.kwargs['time_name'] = case.names[k]
    text = isinstance(mark, str)
    if text and k in ('user','item') and mark not in ('\\N','NULL') and not isinstance(case.rows[k].iloc[0],
        (int,float)): must = fair
    else: must = told
    if text or not case.kwargs.get('dropna'): case.rows = case.rows.assign(**{k: col.to_list()})
    else: case.rows = case.rows.assign(gone=[j in at for j in range(len(case.rows))])
    case.note(f'{mark!r} for {k} in {len(at)} rows' + ', dropna'*bool(case.kwargs.get('dropna')), must)

def as_index(r, case):
    k = r.choice(['user','item','rating','time'])
    if k not in case.names: return
    case.frame = case.frame.set_index(case.names[k])
    case.note(f'{k} as index', fair if k!='time' or 'time_name' in case.kwargs else good)

def other_index(r, case):
    n = len(case.frame)
    case.frame.index = r.choice([[7]*n, list(range(n))[::-1], [f'r{k}' for k in range(n)],
                                 pd.date_range('2020', periods=n), pd.MultiIndex.from_arrays([range(n),
                                 [0]*n]), pd.Index(range(n), name='user')])
    case.note('an index of its own', fair if case.frame.index.name else good)

def multi_columns(r, case):
    case.frame.columns = pd.MultiIndex.from_product([['data'], case.frame.columns])
    case.note('columns of two levels', told)

def timed(r, case):
    "Times, and the column of them named"
    if 'time' not in case.names: return
    t,name = case.rows['time'],case.names['time']
    when = pd.to_datetime(t, unit='s')
    kinds = {'seconds': (t, good), 'float seconds': (t.astype(float), good), 'datetimes': (when, good),
             'of a zone': (when.dt.tz_localize('UTC').dt.tz_convert('Asia/Tokyo'), good),
             'in us': (when.astype('datetime64[us]'), good), 'milliseconds': (t*1000, fair),
             'microseconds': (t*10**6, fair), 'days': (t//86400, fair),
             'ISO text': (when.dt.strftime('%Y-%m-%d %H:%M:%S'), fair),
             'text by day': (when.dt.strftime('%d/%m/%Y %H:%M:%S'), fair), 'numerals': (t.astype(str), fair),
             'date objects': (when.dt.date, fair), 'periods': (when.dt.to_period('s'), fair),
             'since 2038': (t+2**31, fair),
             'before 1970': (t-2*10**9, fair), 'zero': (t*0, fair),
             'ordered text': (pd.Series(pd.Categorical(t.astype(str), sorted(set(t.astype(str))), ordered=True)), fair),
             'objects': (t.astype(object), fair),
             'month first': (when.dt.strftime('%m/%d/%Y'), fair), 'years': (when.dt.year,
             fair), 'arrow': (t.convert_dtypes(dtype_backend='pyarrow'), good) if pyarrow is not None else (t, good)}
    how = r.choice(list(kinds))
    case.frame[name] = kinds[how][0].set_axis(case.frame.index)
    case.time_kind = how
    if r.random()<.8: case.kwargs['time_name'] = name
    case.note(f'times as {how}', kinds[how][1])

def repeated(r, case):
    "Some pairs rated again, which is kept"
    extra = case.rows.sample(min(len(case.rows), 6), random_state=r.randint(0, 99))
    case.rows = pd.concat([case.rows, extra], ignore_index=True)
    case.note('pairs that repeat', fair)

# ------------------------------------------------------------------ what it was kept in
def shuffle_categories(r, df):
    cols = {c: df[c].astype('category') for c in df if df[c].dtype.kind not in 'fM' and c not in sum(map(usual.get,
        ('rating','time')), []) and df[c].map(type).nunique()==1 and df[c].map(lambda o: o.__hash__ is not None).all()}
    def change(o):
        cats = list(o.cat.categories)
        r.shuffle(cats)
        extra = [type(cats[0])(10**6+7)] if cats and isinstance(cats[0], (int,float,str)) and not isinstance(cats[0],
            bool) else []
        return o.cat.set_categories(cats+extra)
    return df.assign(**{c: change(o) for c,o in cols.items()}) if all(isinstance(c, str) for c in df) else df

def repeats(case): return case.rows[['user','item']].map(repr).duplicated().any()

def matrix(case, kind):
    "Users by items, who are numbers there"
    rows,cols = (pd.factorize(case.rows[k])[0] for k in ('user','item'))
    case.ordered,case.names = False,dict(user='user', item='item', rating='rating')
    res = kind((case.rows.rating.to_numpy(float), (rows,cols)))
    case.rows = case.rows.assign(user=rows, item=cols)
    return res

def containers(r, case):
    "The frame in another container, and whether that must be read"
    names = case.names
    kinds = {'nullable': (lambda d: d.convert_dtypes(), good), 'categories': (lambda d: shuffle_categories(r, d), good),
             'objects': (lambda d: d.astype(object), fair),
             'list of rows': (lambda d: d.to_numpy().tolist(), told),
             'list of dicts': (lambda d: d.to_dict('records'), fair),
             'dict of lists': (lambda d: d.to_dict('list'), fair),
             'records': (lambda d: d.to_records(index=False), fair), 'array': (lambda d: d.to_numpy(), told),
             'coo': (lambda d: matrix(case, sparse.coo_matrix), fair),
             'csr': (lambda d: matrix(case, sparse.csr_array), fair),
             'generator': (lambda d: (o for o in d.itertuples()), told), 'none': (lambda d: None, told),
             'a name': (lambda d: 'ratings.csv', told),
             'a column': (lambda d: d[names['user']], told), 'groups': (lambda d: d.groupby(names['user']), told),
             'sparse columns': (lambda d: d.astype({names['rating']: pd.SparseDtype(float, 0.)}), fair),
             'a view': (lambda d: d[d.columns], good), 'read only': (lambda d: d.apply(read_only), good)}
    if pyarrow is not None:
        kinds['arrow types'] = (lambda d: d.convert_dtypes(dtype_backend='pyarrow'), good)
        kinds['arrow table'] = (lambda d: pyarrow.Table.from_pandas(d, preserve_index=False), fair)
        kinds['arrow batch'] = (lambda d: pyarrow.RecordBatch.from_pandas(d, preserve_index=False), fair)
    if polars is not None:
        kinds['polars'] = (lambda d: polars.from_pandas(d.reset_index(drop=True)), fair)
        kinds['lazy polars'] = (lambda d: polars.from_pandas(d.reset_index(drop=True)).lazy(), fair)
    how = r.choice(list(kinds))
    make,must = kinds[how]
    if how in ('coo','csr') and (case.must==told or repeats(case) or case.rows.rating.dtype.kind not in 'iuf'): return
    if isinstance(case.frame, pd.DataFrame) and not case.frame.columns.is_unique: return
    if how=='sparse columns' and case.rows.rating.dtype.kind=='c': return
    try:
        with warnings.catch_warnings(action='ignore'): case.frame = make(case.frame)
    except Exception: return  # no such frame exists
    case.note(f'as {how}', fair if how in ('list of rows','array') and 'user_name' in case.kwargs else must)

def read_only(col):
    arr = col.to_numpy().copy()
    arr.flags.writeable = False
    return pd.Series(arr, col.index, copy=False)

# ------------------------------------------------------------------ all of it
oddities = [saved_index,other_columns,twice,mistyped,shared_titles,headline,wide,missing,missing,as_index,other_index,
            other_index,
            multi_columns]

def case(seed):
    "A random `Case`"
    r = random.Random(seed)
    mood = r.random()  # a third as good as they get, a third with odd values, the rest written oddly
    res = ratings(r, odd_labels=.3<mood<.5, odd_ratings=.45<mood<.65, regular=r.random()<.85)
    if r.random()<.12: repeated(r, res)
    if mood>.93 and len(res.rows): numbered_columns(r, res)
    else: name_columns(r, res, odd=mood>.8)
    if r.random()<.35: timed(r, res)
    if len(res.rows):
        for odd in r.choices(oddities, k=r.choice([0,1,1,2]) if .6<mood<.93 else 0):
            cols = res.frame.columns
            if cols.nlevels==1 and cols.is_unique and all(o in cols for o in res.names.values()): odd(r, res)
    if r.random()<.35: containers(r, res)
    return res
