"""Files and frames that were once misread in silence: each is told of, read right or refused, and ordinary ones beside it are left alone"""
import re,warnings
import numpy as np,pandas as pd,pytest
from fastrec.data.codes import code_in
from fastrec.all import LeaveLastSplitter,RecDataLoaders,TimeSplitter,check_ratings,learner
from fastrec.data.text_files import read_text_file

def _rows(seed=0, n=6000):
    rng = np.random.default_rng(seed)
    df = pd.DataFrame(dict(user=rng.integers(1, 200, n), item=rng.integers(1, 150, n))).drop_duplicates(ignore_index=True)
    return df.assign(rating=rng.integers(1, 6, len(df))),rng

def read(df, **kwargs): return RecDataLoaders.from_df(df, valid_pct=0, **kwargs)

def told(f, *args, **kwargs):
    "What `f` gives, and what it warns of, in one text"
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter('always')
        res = f(*args, **kwargs)
    return res,' | '.join(str(o.message) for o in found)

# ------------------------------------------------------------------ codes among ratings
_with_codes = {  # ratings of `n` rows in which a tenth, `few`, are a code
    'jokes with 99': (lambda rng, n, few: np.where(few, 99, rng.uniform(-10, 10, n).round(2)), 99),
    'tenths with -1': (lambda rng, n, few: np.where(few, -1, rng.uniform(1, 5, n).round(1)), -1),
    'stars and one 7.3, with 99': (lambda rng, n, few: np.where(np.arange(n)==5, 7.3, np.where(few, 99, rng.integers(1, 6, n))), 99),
    'tenths with 0': (lambda rng, n, few: np.where(few, 0, rng.uniform(1, 5, n).round(1)), 0),
    'recipes': (lambda rng, n, few: rng.choice(6, n, p=[.054,.011,.012,.036,.165,.722]), 0),
    'ten flat, 15% of 0': (lambda rng, n, few: np.where(rng.random(n)<.15, 0, rng.integers(1, 11, n)), 0),
    'hundred with 255': (lambda rng, n, few: np.where(few, 255, rng.integers(0, 101, n)), 255),
    'coarse hundred with 255': (lambda rng, n, few: np.where(few, 255, rng.choice([0,30,50,70,90,100], n)), 255),
    'no opinion': (lambda rng, n, few: np.where(rng.random(n)<.3, 9, rng.integers(1, 6, n)), 9),
    'below': (lambda rng, n, few: np.where(few, -9, rng.integers(1, 6, n)), -9)}

@pytest.mark.parametrize('what', _with_codes)
def test_a_number_for_no_rating_is_told_of(what):
    df,rng = _rows()
    make,code = _with_codes[what]
    df['rating'] = make(rng, len(df), rng.random(len(df))<.1)
    text = f"are {code}, the others from .*if {code} means 'not rated', leave these rows out with df\\[df\\['rating'\\]!={code}\\]"
    assert re.search(text, told(read, df)[1])
    assert check_ratings(df).query("severity=='warning'").finding.str.contains(text).sum()==1
    assert 'not rated' not in told(read, df[df.rating!=code])[1]

_scales = {
    'jokes': lambda rng, n: rng.uniform(-10, 10, n).round(2), 'half stars': lambda rng, n: rng.integers(1, 11, n)/2, 'ten from 0': lambda rng, n: rng.integers(0, 11, n),
    'hundred': lambda rng, n: rng.integers(0, 101, n), 'tens': lambda rng, n: rng.integers(0, 11, n)*10, 'cut at both ends': lambda rng, n: np.clip(rng.normal(5, 4, n).round(), 0, 10),
    'love and hate': lambda rng, n: rng.choice(11, n, p=[.15]+[.04]*9+[.49]), 'few low': lambda rng, n: rng.choice(11, n, p=np.array([1,1,1,1,2,5,10,20,25,20,14])/100),
    'likes of films': lambda rng, n: rng.choice(np.arange(1, 11)/2, n, p=[.012,.034,.016,.071,.049,.2,.11,.27,.08,.158]), 'tenths': lambda rng, n: np.clip(rng.normal(6.5, 1.2, n), 1, 10).round(1),
    'fives': lambda rng, n: rng.integers(-5, 6, n), 'around 0': lambda rng, n: rng.normal(0, 1, n).round(1), 'plays': lambda rng, n: rng.zipf(1.8, n)}

@pytest.mark.parametrize('what', _scales)
def test_no_end_of_an_honest_scale_is_taken_for_a_code(what):
    for seed in range(5):
        df,rng = _rows(seed)
        df['rating'] = _scales[what](rng, len(df))
        assert 'not rated' not in told(read, df)[1]

def test_fits_of_choices_ask_about_a_code_below_0():
    df,rng = _rows()
    df['rating'] = np.where(rng.random(len(df))<.3, -1, rng.uniform(1, 5, len(df)).round(1))
    learn = learner(told(read, df)[0])
    with pytest.raises(ValueError, match=f'{(df.rating==-1).sum():,} below 0'): learn.fit_ials()

def test_counts_with_returns_are_told_of_as_counts():
    df,rng = _rows()
    n = len(df)
    bought = np.maximum(1, rng.lognormal(1.5, 1.2, n)).astype(int)
    df['quantity'] = np.where(rng.random(n)<.02, -rng.integers(1, 900, n), bought)
    df = df.drop(columns='rating')
    text = told(read, df)[1]
    assert 'look like counts or amounts' in text and "returns, with df[df['quantity']>0]" in text
    assert 'returns' not in told(read, df[df.quantity>0])[1]
    for scale in (rng.uniform(-10, 10, n).round(2), rng.integers(-100, 101, n), rng.normal(5, 3, n).round(1)): assert 'counts' not in told(read, df.assign(quantity=scale))[1]

def test_counts_of_nothing_are_told_of():
    df,rng = _rows()
    log = df.drop(columns='rating').assign(event='look', quantity=np.where(rng.random(len(df))<.9, 0, 2))
    text = told(read, log)[1]
    assert f"{(log.quantity==0).mean():.0%} of 'quantity' are 0" in text and 'add a column of 1' in text
    assert any("'quantity' are 0" in o for o in check_ratings(log).finding)
    for few in (np.where(rng.random(len(df))<.02, 0, 2+rng.integers(0, 2, len(df))), rng.integers(1, 4, len(df)), rng.integers(0, 2, len(df))):
        assert 'are 0' not in told(read, log.assign(quantity=few))[1]

# ------------------------------------------------------------------ files
@pytest.fixture
def write(tmp_path):
    def f(text, name='r.csv'):
        (tmp_path/name).write_text(text, encoding='utf-8')
        return tmp_path/name
    return f

def _lines(*columns, sep=',', head=None):
    lines = [sep.join(map(str, o)) for o in zip(*columns)]
    return '\n'.join([head]*bool(head)+lines)+'\n'

def csv(path, **kwargs): return RecDataLoaders.from_csv(path, valid_pct=0, **kwargs)

def _names(dls): return [dls.train_ds.user_name,dls.train_ds.item_name,dls.train_ds.rating_name]

def _labels(dls): return [set(v.labels.tolist()) for v in dls.train_ds.vocabs]

_layouts = {  # a header, and a line of one rating with some text
    'last': ('user{0}item{0}rating{0}text','{1}{0}{2}{0}{3}{0}{4}'), 'first': ('text{0}user{0}item{0}rating','{4}{0}{1}{0}{2}{0}{3}'), 'inside': ('user{0}item{0}text{0}rating','{1}{0}{2}{0}{4}{0}{3}'),
    'two': ('user{0}item{0}rating{0}head{0}text{0}day','{1}{0}{2}{0}{3}{0}{4}{0}{5}{0}2015-08-31'), 'text ids': ('user{0}item{0}rating{0}text','u{1}{0}B{2}{0}{3}{0}{4}')}

@pytest.mark.parametrize('layout', _layouts)
@pytest.mark.parametrize('sep', [',','\t',';'])
def test_rows_in_stray_quotes_of_any_text_are_refused(write, sep, layout):
    df,_ = _rows(n=4000)
    head,line = _layouts[layout]
    def text(odd):
        odds = {500: odd, 700: odd if layout!='two' else 'fine'},{700: odd}  # in the columns of text
        return '\n'.join([head.format(sep), *(line.format(sep, u, i, r, *(o.get(k, 'fine') for o in odds)) for k,(u,i,r) in enumerate(df.values))])+'\n'
    path = write(text('"great book'))
    with pytest.raises(ValueError, match="quotes that swallow lines.*pass quoting=3|more fields than the header|Expected . fields"): csv(path)
    assert len(csv(path, quoting=3).train_ds)==len(df)
    for fine in ('"great" book','12" long','"He said, ""wow"", and left"','"Good, cheap,\nand quick: 3, 4, 5\nthat, is, 7, it"','"1, 2, 3\n4, 5, 6"'):
        if sep in fine and fine[0]!='"': continue
        assert len(csv(write(text(fine))).train_ds)==len(df)

def test_stray_quotes_of_the_amazon_layout_are_refused(write):
    df,_ = _rows(n=5000)
    head = 'marketplace customer_id review_id product_id product_parent product_title product_category star_rating helpful_votes review_headline review_body review_date'.replace(' ', '\t')
    rows = [f'US\t{u}\tR{k}\tB{i:09}\t{i+5*10**8}\tTitle {i}\tKitchen\t{r}\t0\tx\t{chr(34)*(k in (400,1900))}Must have\t2015-08-01' for k,(u,i,r) in enumerate(df.values)]
    path = write('\n'.join([head, *rows])+'\n', 'r.tsv')
    with pytest.raises(ValueError, match="swallow lines, 'Must have.*in the column 'review_body'.*quoting=3"): csv(path)
    assert len(csv(path, quoting=3).train_ds)==len(df)
    assert 'swallow lines' in check_ratings(path).finding[0]

def test_a_quote_that_never_closes_says_how_to_read_on(write):
    df,_ = _rows(n=300)
    path = write(_lines(df.user, df.item, df.rating, ['"oh']+['fine']*(len(df)-1), head='user,item,rating,text'))
    with pytest.raises(ValueError, match='quoting=3'): csv(path)
    assert len(csv(path, quoting=3).train_ds)==len(df)

_dates = ['%a %b %d %H:%M:%S %Y','%a %b %d %H:%M:%S +0000 %Y','%d %b %Y %I:%M %p','%Y-%m-%d %H:%M:%S','%B %d %Y']

@pytest.mark.parametrize('sep', [',','\t',';','|','::'])
@pytest.mark.parametrize('end', [*_dates,'The Great Film'])
def test_blanks_in_dates_and_titles_are_no_separators(write, sep, end):
    df,rng = _rows(n=600)
    when = pd.to_datetime(rng.integers(11*10**8, 14*10**8, len(df)), unit='s').strftime(end)
    dls,_ = told(csv, write(_lines(df.user, df.item, df.rating, when, sep=sep)))
    assert _labels(dls)==[{*df.user},{*df.item}]
    if end in _dates: return
    dls,_ = told(csv, write(_lines(df.user, 'The Great Film '+df.item.astype(str), df.rating, sep=sep)))
    assert _labels(dls)==[{*df.user},{*('The Great Film '+df.item.astype(str))}]

def test_fields_between_blanks_are_still_found(write):
    df,_ = _rows(n=600)
    for text in (_lines(df.user, df.item, df.rating, sep=' '), _lines(df.user, df.item, df.rating, sep='   ', head='user   item   rating')): assert _labels(told(csv, write(text))[0])==[{*df.user},{*df.item}]

def test_isbns_that_a_spreadsheet_has_rounded_are_told_of(write):
    df,_ = _rows(n=600)
    isbn = [f'{9780000000000+o*10**7:.5E}' for o in df.item]
    path = write(_lines(df.user, isbn, df.rating, head='user,isbn,rating'))
    assert re.search("labels of 'isbn' are long numbers that a spreadsheet has rounded, '9.78.*E.12' for one", told(csv, path)[1])
    assert 'spreadsheet' in told(read, pd.read_csv(path))[1]
    for whole in (9780000000000+df.item, df.item.astype(float), df.item*1e6, 'E'+df.item.astype(str)): assert 'spreadsheet' not in told(read, df.assign(item=whole))[1]

_beginnings = {'konect': ('% bip weighted posweighted\n% 600 199 149\n','lines 1 to 2 are'), 'matrix': ('%%MatrixMarket matrix coordinate real general\n200 150 600\n','lines 1 to 2 are'),
               'matrix with a comment': ('%%MatrixMarket matrix coordinate real general\n% of a shop\n200 150 600\n','lines 1 to 3 are'), 'snap': ('# Nodes: 200 Edges: 600\n','line 1 is')}

@pytest.mark.parametrize('what', _beginnings)
@pytest.mark.parametrize('sep', [' ','\t'])
def test_comments_before_a_table_are_no_rows(write, what, sep):
    df,_ = _rows(n=600)
    text,lines = _beginnings[what]
    dls,said = told(csv, write(text+_lines(df.user, df.item, df.rating, sep=sep)))
    assert len(dls.train_ds)==len(df) and _labels(dls)==[{*df.user},{*df.item}] and f'{lines} left out' in said

def test_a_comment_may_be_a_header_or_a_row(write):
    df,_ = _rows(n=600)
    for head,names in (('# user item stars\n',['user','item','stars']), ('# From a shop\n# user item stars\n',['user','item','stars'])):
        assert _names(told(csv, write(head+_lines(df.user, df.item, df.rating, sep=' ')))[0])==names
    dls,said = told(csv, write(_lines(df.user, df.item, df.rating, head='#user,item,stars')))
    assert _names(dls)==['#user','item','stars'] and 'left out' not in said
    tags = '#'+df.user.astype(str)
    dls,said = told(csv, write(_lines(tags, df.item, df.rating)))
    assert len(dls.train_ds)==len(df) and 'left out' not in said
    assert len(told(csv, write('% a\n'+_lines(df.user, df.item, df.rating)), skiprows=1)[0].train_ds)==len(df)

def test_columns_of_a_file_without_header_that_are_named_are_taken(write):
    df,rng = _rows(n=600)
    steam = 76561197960000000+rng.integers(0, 10**9, len(df))
    named = dict(user_name='user', item_name='item', rating_name='rating')
    for users in (steam, np.arange(1, len(df)+1)):
        path = write(_lines(users, df.item, df.rating))
        with pytest.raises(ValueError, match='user_name') as e: told(csv, path)
        if users is steam: assert "if these are ids, pass user_name='user'" in str(e.value)
        dls,_ = told(csv, path, **named)
        assert _labels(dls)==[{*users.tolist()},{*df.item}]
        told(csv, path, user_name='user')

@pytest.mark.parametrize('first', ['purchase','click','Views','Reader'])
def test_a_first_row_with_a_word_for_a_column_is_a_row(write, first):
    df,_ = _rows(n=600)
    events = np.where(np.arange(len(df))%3>0, 'play', 'buy').astype(object)
    events[0] = first
    for columns in ((df.user, df.item, df.rating, events), (df.user*10**6, 'Game '+df.item.astype(str), events, df.rating, 0*df.rating)):
        assert len(told(read_text_file, write(_lines(*columns)), [], {})[0])==len(df)
    title = ('Game '+df.item.astype(str)).where(df.index>0, first)
    assert len(told(csv, write(_lines(df.user, title, df.rating)))[0].train_ds)==len(df)

def test_a_table_of_jokes_is_made_right_by_what_is_advised(write):
    rng = np.random.default_rng(0)
    jokes = np.where(rng.random((300,100))<.3, 99, rng.uniform(-10, 10, (300,100)).round(2))
    wide = pd.DataFrame(np.column_stack([(jokes!=99).sum(1), jokes])).astype({0: int})
    path = write(wide.to_csv(index=False, header=False))
    for make in (lambda: csv(path), lambda: read(wide), lambda: read(wide.rename(columns=str))):
        with pytest.raises(ValueError, match='a table with a column for each item') as e: told(make)
        line = str(e.value).split('is needed: ')[1]
        long = eval(line, dict(df=wide if "'0'" not in line else wide.rename(columns=str)))
        assert len(long)==(jokes!=99).sum() and long.rating.between(-10, 10).all() and long.item.nunique()==100
    films = pd.DataFrame(rng.integers(0, 6, (200,30)), columns=[f'f{k}' for k in range(30)])
    with pytest.raises(ValueError) as e: read(films)
    assert len(eval(str(e.value).split('is needed: ')[1], dict(df=films)))==(films>0).sum().sum()

def test_lines_of_json_are_said_to_be_lines(write):
    one = '{"user": 1, "item": 2, "rating": 3}\n'
    with pytest.raises(ValueError, match=r'pd.read_json\(..., lines=True\)'): csv(write(one*9))
    for text in ('{"user": {"0": 1},\n "item": {"0": 2}}', '['+one+']'):
        with pytest.raises(ValueError, match='pd.read_json$'): csv(write(text))

# ------------------------------------------------------------------ columns
@pytest.mark.parametrize('splitter', [TimeSplitter,LeaveLastSplitter])
def test_days_of_a_month_are_no_times(splitter):
    df,rng = _rows()
    when = pd.Series(pd.to_datetime(rng.integers(11*10**8, 14*10**8, len(df)), unit='s').normalize())
    parts = df.assign(year=when.dt.year, month=when.dt.month, day=when.dt.day)
    with pytest.raises(ValueError, match='no times: make dates') as e: RecDataLoaders.from_df(parts, splitter())
    made = eval(re.search(r'as in (df\.assign.*?\)\)\)), and', str(e.value))[1], dict(df=parts, pd=pd))
    assert (made.date==when).all()
    train,valid = splitter(time_name='date')(made)
    want = splitter(time_name='when')(df.assign(when=when))
    assert (train==want[0]).all() and (valid==want[1]).all()
    with pytest.raises(ValueError, match='make dates'): splitter()(parts.drop(columns=['year','month']))
    for fine in (df.assign(day=when), df.assign(day=rng.integers(0, 900, len(df))), df.assign(timestamp=rng.integers(1, 30, len(df)))): told(splitter(), fine)
    told(splitter(time_name='day'), parts)

_shared = {'user': ('user','user_id'), 'item': ('item','item_id'), 'member': ('member','member_id'), 'artist': ('artist','artist_id'), 'username': ('username','userId')}

@pytest.mark.parametrize('what', _shared)
def test_ids_are_taken_where_names_are_shared(what, tmp_path):
    df,_ = _rows()
    name,ids = _shared[what]
    place = 1 if what in ('item','artist') else 0
    col,other = ('item','user') if place else ('user','item')
    people = np.array(['Jennifer','John','Anna'])
    frame = pd.DataFrame({name: people[df[col]%3], ids: df[col], ('product_id','customer_id')[place]: df[other], 'rating': df.rating})
    for f in (read, lambda o: csv_of(o, tmp_path), lambda o: parquet_of(o, tmp_path)):
        dls,said = told(f, frame)
        assert _names(dls)[place]==ids and _labels(dls)[place]=={*df[col]}
        if what!='username': assert f"{name!r} has one name for several of {ids!r}" in said and 'could be meant' not in said
    dls,said = told(read, frame, **{('user_name','item_name')[place]: name})
    assert _names(dls)[place]==name and 'several of' not in said
    alone = frame.assign(**{name: 'n'+frame[ids].astype(str)})
    dls,said = told(read, alone)
    assert len(_labels(dls)[place])==df[col].nunique() and 'several of' not in said
    if what in ('user','item'): assert said=='' and _names(dls)[place]==name
    each = frame.assign(**{ids: np.arange(len(df))})  # of rows, not of people
    if what!='username': assert _names(told(read, each)[0])[place]==name

def csv_of(df, path):
    df.to_csv(path/'r.csv', index=False)
    return csv(path/'r.csv')

def parquet_of(df, path):
    df.to_parquet(path/'r.parquet')
    return RecDataLoaders.from_parquet(path/'r.parquet', valid_pct=0)

@pytest.mark.parametrize('other', ['user_rating','my_rating','score','hours'])
def test_what_users_said_is_taken_in_place_of_an_average(other, tmp_path):
    df,rng = _rows()
    mean = df.groupby('item').rating.transform('mean').round(2)
    frame = df.assign(rating=mean, **{other: df.rating})
    for f in (read, lambda o: csv_of(o, tmp_path), lambda o: parquet_of(o, tmp_path)):
        dls,said = told(f, frame)
        assert _names(dls)[2]==other and "'rating' is the same in all rows of each 'item', as an average is" in said
    dls,said = told(read, frame, rating_name='rating')
    assert _names(dls)[2]=='rating'
    for fine in (df.assign(**{other: mean}), df.assign(**{other: rng.integers(1, 6, len(df))}), df.assign(rating=1, **{other: mean})):
        dls,said = told(read, fine)
        assert _names(dls)[2]=='rating' and 'average' not in said

@pytest.mark.parametrize('weights', [[1,2,3,5,10], [1,2,4,8,16], [1,2,5,10,20,50]])
def test_the_strongest_event_is_no_code(weights):
    "Leaving it out would leave out what was bought"
    rng = np.random.default_rng(0)
    often = np.arange(len(weights), 0, -1)**2
    y = rng.choice(weights, 5000, p=often/often.sum()).astype(float)
    assert code_in(*np.unique(y, return_counts=True)) is None

def test_a_header_behind_a_sign_keeps_its_letters(tmp_path):
    df,_ = _rows(n=600)
    file = tmp_path/'latin.csv'
    file.write_bytes(('# \xfcser,item,rating\n'+_lines(df.user, df.item, df.rating)).encode('latin-1'))
    with warnings.catch_warnings(action='ignore'): dls = RecDataLoaders.from_csv(file, encoding='latin-1', user_name='\xfcser', valid_pct=0)
    assert dls.train_ds.vocabs[0].name=='\xfcser'
