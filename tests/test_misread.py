"""Files and frames that were once misread in silence: each is told of, read right or refused, and ordinary ones beside it are left alone"""
import re,warnings
import numpy as np,pandas as pd,pytest
from fastrec.all import LeaveLastSplitter,RecDataLoaders,TimeSplitter,check_ratings,learner

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
