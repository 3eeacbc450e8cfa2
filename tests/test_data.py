"""Releases, folds, downloads, the sample and the splitters"""
import functools,http.server,os,random,re,shutil,subprocess,sys,threading,zipfile
import numpy as np,pandas as pd,pytest,torch
from conftest import fastai_cfg,fastai_path,films,release_path,rows,started,write_release
import fastrec.data.movielens as data
from fastrec.data import sample
from fastrec.data.loaders import RecDataLoaders
from fastrec.data.titles import distinct_titles
from fastrec.data.movielens import movielens,movielens_folds,movielens_sides
from fastrec.data.releases import releases
from fastrec.data.sample import sample_ratings
from fastrec.data.splitters import LeaveLastSplitter,SeededSplitter,TimeSplitter,UserSplitter

# ------------------------------------------------------------------ releases
@pytest.mark.parametrize('eol', ['\n','\r\n'])
@pytest.mark.parametrize('name', releases)
def test_every_layout(tmp_path, name, eol):
    df = movielens(name, write_release(tmp_path, name, eol=eol))
    assert df[['user','item','rating','timestamp']].to_numpy().tolist() == [list(r) for r in rows]
    assert df.title.tolist() == ['Hamlet (1996) [1]', 'Hamlet (1996) [7]', films[3], 'NA', 'Hamlet (1996) [1]']
    assert df.dtypes.astype(str).to_dict() == dict(user='int32', item='int32', title='category', rating='float32', timestamp='int64')
    assert list(df.title.cat.categories) == ['Hamlet (1996) [1]', 'Hamlet (1996) [7]', films[3], 'NA']

def test_half_stars(tmp_path):
    assert movielens('ml-25m', write_release(tmp_path, 'ml-25m', [(1,1,.5,7), (1,3,4.5,8)])).rating.tolist() == [.5,4.5]

def test_utf8_dat(tmp_path):
    write_release(tmp_path, 'ml-10m')
    (tmp_path/'movies.dat').write_text('1::Amélie::x\n3::b::x\n7::c::x\n20::d::x\n', encoding='utf-8')
    assert movielens('ml-10m', tmp_path).title[0] == 'Amélie'

@pytest.mark.parametrize('lines,line', [
    ('{5|1|3|978300760}\n{5|1}\n', 2), ('{5|1|3}\n', 1), ('{5|1|3|1}\n{5|1|3|1|9}\n', 2), ('{5|1|3|1|9}\n{5|1|3|1}\n', 1),
    ('{5|1|x|1}\n', 1), ('{5|1||1}\n', 1), ('{5|1|nan|1}\n', 1), ('{5|1|6|1}\n', 1), ('{5|1|3|1}\n\n{881250949|5|196|3}\n', 3),
    ('{a|1|3|1}\n', 1), ('{5.5|1|3|1}\n', 1), ('{-5|1|3|1}\n', 1), ('{3000000000|1|3|1}\n', 1), ('{5|99999999999999999999|3|1}\n', 1),
    ('{5|1|3|99999999999999999999}\n', 1), ('{1_0|1|3|1}\n', 1), ('{"5|1|3|1}\n', 1), ('{5|1|3|}\n', 1), ('{5|1|inf|1}\n', 1), ('{5 1 3 1}\n', 1)])
@pytest.mark.parametrize('name', ['ml-100k','ml-1m','ml-25m'])
def test_bad_rating_line(tmp_path, name, lines, line):
    lay = releases[name]
    write_release(tmp_path, name)
    text = lines.replace('{','').replace('}','').replace('|', lay['sep'])
    (tmp_path/lay['ratings']).write_text(lay['header'] + '\n'*bool(lay['header']) + text, encoding='utf-8')
    with pytest.raises(ValueError, match=f'{lay["ratings"]}, line {line+bool(lay["header"])}: '): movielens(name, tmp_path)

def test_wrong_separator_inside(tmp_path):
    write_release(tmp_path, 'ml-1m')
    (tmp_path/'ratings.dat').write_text('1::1::5::978300760\n1:x:1::5::978300760\n', encoding='utf-8')
    with pytest.raises(ValueError, match='ratings.dat, line 2'): movielens('ml-1m', tmp_path)

def test_missing_header(tmp_path):
    write_release(tmp_path, 'ml-25m')
    (tmp_path/'ratings.csv').write_text('1,1,3,978300760\n', encoding='utf-8')
    with pytest.raises(ValueError, match='ratings.csv, line 1.*userId,movieId,rating,timestamp'): movielens('ml-25m', tmp_path)

@pytest.mark.parametrize('name', ['ml-100k','ml-1m','ml-25m'])
def test_no_ratings(tmp_path, name):
    with pytest.raises(ValueError, match='holds no rating'): movielens(name, write_release(tmp_path, name, []))

@pytest.mark.parametrize('line', ['8', 'x|Heat|y', '8||y', '1|Heat|y', '8|He'])
@pytest.mark.parametrize('name', ['ml-100k','ml-1m','ml-25m'])
def test_bad_title_line(tmp_path, name, line):
    lay = releases[name]
    write_release(tmp_path, name)
    with open(tmp_path/lay['items'], 'a', encoding='utf-8') as f: f.write(line.replace('|', lay['item_sep'])+'\n')
    with pytest.raises(ValueError, match=f'{lay["items"]}, line {len(films)+1+(name=="ml-25m")}: '): movielens(name, tmp_path)

def test_rated_but_untitled(tmp_path):
    with pytest.raises(ValueError, match=r'1 rated items have no title, \[99\]'): movielens('ml-1m', write_release(tmp_path, 'ml-1m', rows+[(1,99,3,1)]))

def test_missing_files(tmp_path):
    (tmp_path/'links.csv').touch()
    with pytest.raises(FileNotFoundError, match='no u.data and no u.item: ml-100k needs u.data, u.item; the folder holds links.csv'): movielens('ml-100k', tmp_path)
    with pytest.raises(FileNotFoundError, match='is not a folder'): movielens('ml-100k', tmp_path/'nowhere')
    with pytest.raises(ValueError, match="'ml-3m' is not a MovieLens release; there are ml-latest-small"): movielens('ml-3m')

needs_no_home = """
import sys
from fastrec.data.movielens import movielens
print(len(movielens('ml-100k', sys.argv[1])))
try: movielens('ml-100k')
except OSError as e: print(e)
"""

nowhere = "[Errno 2] No such file or directory: '/proc/nowhere"

@pytest.mark.skipif(sys.platform!='linux', reason='by a folder in which nobody can write, not even root')
def test_without_a_home(tmp_path):
    env = {k: v for k,v in os.environ.items() if k!='FASTAI_HOME'} | {'HOME': '/proc/nowhere', 'MPLCONFIGDIR': str(tmp_path/'mpl')}
    res = subprocess.run([sys.executable, '-c', needs_no_home, write_release(tmp_path, 'ml-100k')], env=env, capture_output=True, text=True)
    assert not res.returncode, res.stderr
    read,error = res.stdout.splitlines()
    assert read==str(len(rows)) and error.startswith(f"fastai's folder ~/.fastai cannot be written ({nowhere}")
    assert error.endswith('set the environment variable FASTAI_HOME to one that can, or pass the folder that ml-100k was unpacked to, as path, or to from_movielens as source')

@pytest.mark.skipif(sys.platform!='linux', reason='by a folder in which nobody can write, not even root')
def test_without_a_home_of_fastais(tmp_path, monkeypatch):
    monkeypatch.setenv('FASTAI_HOME', '/proc/nowhere')
    fastai_cfg.cache_clear()
    try:
        assert len(movielens('ml-100k', write_release(tmp_path, 'ml-100k')))==len(rows)
        with pytest.raises(OSError, match=re.escape(f"fastai's folder /proc/nowhere cannot be written ({nowhere}")): movielens('ml-100k')
    finally: fastai_cfg.cache_clear()

def test_a_data_folder_that_cannot_be_written(server, monkeypatch):
    def refuse(*args, **kwargs): raise PermissionError(13, 'Permission denied')
    monkeypatch.setattr(data.tempfile, 'mkdtemp', refuse)
    with pytest.raises(OSError, match='cannot be written .*Permission denied.*FASTAI_HOME'): movielens('ml-1m')

def test_titles_that_look_told_apart():
    titles = distinct_titles(pd.Series({1:'A', 2:'A', 7:'A [1]', 9:'B'}))
    assert titles.is_unique and titles[9]=='B' and titles[2]=='A [2]'

@pytest.mark.parametrize('titles,error', [(pd.Series(['A','A'], index=[1,1]), 'item 1 has several titles'), (pd.Series(['A',None,None]), '2 items have no title, 1 for one')])
def test_bad_titles(titles, error):
    with pytest.raises(ValueError, match=error): distinct_titles(titles)

def test_category_of_titles(): assert distinct_titles(pd.Series(['A','A','B'], dtype='category')).tolist()==['A [0]','A [1]','B']

# ------------------------------------------------------------------ downloads
@pytest.fixture
def server(tmp_path, monkeypatch):
    "A web server in place of GroupLens', and an empty data folder"
    (tmp_path/'web').mkdir()
    monkeypatch.setenv('FASTAI_HOME', str(tmp_path/'home'))
    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *args): pass
        def send_header(self, k, v): super().send_header(k, str(int(v)*3) if k=='Content-Length' and self.path.startswith('/ml-20m') else v)
    httpd = http.server.ThreadingHTTPServer(('127.0.0.1', 0), functools.partial(Handler, directory=str(tmp_path/'web')))
    threading.Thread(target=httpd.serve_forever, daemon=True).start()
    monkeypatch.setattr(data, 'GROUPLENS', f'http://127.0.0.1:{httpd.server_port}')
    fastai_cfg.cache_clear()
    yield tmp_path/'web'
    httpd.shutdown(); httpd.server_close(); fastai_cfg.cache_clear()

def _zip_release(web, name, folder):
    with zipfile.ZipFile(web/f'{name}.zip', 'w') as z:
        for f in write_release(web/'src'/name, name).iterdir(): z.write(f, f'{folder}/{f.name}')

def _left(): return sorted(o.name for d in ('data','archive') if fastai_path(d).exists() for o in fastai_path(d).iterdir() if o.suffix!='.lock')

def test_downloaded_once(server):
    _zip_release(server, 'ml-10m', 'ml-10M100K')
    assert len(movielens('ml-10m'))==len(rows)
    (server/'ml-10m.zip').unlink()
    assert len(movielens('ml-10m'))==len(rows)

@pytest.mark.parametrize('broken', ['nothing', 'no zip', 'half a zip', 'other files'])
def test_failed_download_leaves_nothing(server, broken):
    _zip_release(server, 'ml-1m', 'ml-1m')
    good = (server/'ml-1m.zip').read_bytes()
    if broken=='other files': _zip_release(server, 'ml-25m', 'ml-1m'); (server/'ml-25m.zip').rename(server/'ml-1m.zip')
    else: (server/'ml-1m.zip').write_bytes({'no zip': b'<html>busy</html>', 'half a zip': good[:len(good)//2]}.get(broken, b''))
    if broken=='nothing': (server/'ml-1m.zip').unlink()
    with pytest.raises(OSError, match=r'ml-1m could not be downloaded.*ratings\.dat exists, or pass the folder.*sample_ratings'): movielens('ml-1m')
    assert _left()==[]
    (server/'ml-1m.zip').write_bytes(good)
    assert len(movielens('ml-1m'))==len(rows)

def test_connection_lost(server):
    _zip_release(server, 'ml-20m', 'ml-20m')
    with pytest.raises(OSError, match='could not be downloaded'): movielens('ml-20m')
    assert _left()==[]

slow = '''
import os,time
import fastrec.data.movielens as data
data.GROUPLENS,os.environ['FASTAI_HOME'] = sys.argv[1],sys.argv[3]
unpack = data.untar_data
def untar_data(*args, **kwargs):
    res = unpack(*args, **kwargs)
    ready('unpacked')
    time.sleep(float(sys.argv[2]))
    return res
data.untar_data = untar_data
ready(len(data.movielens('ml-1m')))
'''

def test_killed_while_downloading(server):
    _zip_release(server, 'ml-1m', 'ml-1m')
    p,said = started(slow, data.GROUPLENS, 60, server.parent/'home')
    assert said.recv()=='unpacked'
    p.kill()
    p.join()
    assert not (fastai_path('data')/'ml-1m').exists()
    assert len(movielens('ml-1m'))==len(rows)
    left = next(fastai_path('data').glob('.ml-1m-*'))
    os.utime(left, (1e9,1e9))
    shutil.rmtree(fastai_path('data')/'ml-1m')
    assert len(movielens('ml-1m'))==len(rows) and not left.exists()

def test_two_processes_download_one_release(server):
    _zip_release(server, 'ml-1m', 'ml-1m')
    said = [started(slow, data.GROUPLENS, 1, server.parent/'home')[1] for _ in range(2)]
    assert [[o.recv(),o.recv()] for o in said]==[['unpacked',len(rows)]]*2
    assert sorted(o.name for o in fastai_path('data').iterdir())==['ml-1m']

def test_no_network(server, monkeypatch):
    monkeypatch.setattr(data, 'GROUPLENS', 'http://127.0.0.1:9')
    with pytest.raises(OSError, match='Unpack its zip so that'): movielens('ml-1m')
    assert _left()==[]

# ------------------------------------------------------------------ real releases
def test_real_ml100k():
    df = movielens('ml-100k', release_path('ml-100k'))
    assert (len(df), df.user.nunique(), df['item'].nunique(), df.title.nunique()) == (100_000, 943, 1682, 1682)
    assert df.title.str.endswith(']').groupby(df.title, observed=True).first().sum()==36
    assert df.iloc[0].tolist() == [196, 242, 'Kolya (1996)', 3, 881250949]

def test_real_folds():
    path = release_path('ml-100k')
    folds,df = movielens_folds(path=path),movielens('ml-100k', path)
    assert list(folds) == 'u1 u2 u3 u4 u5 ua ub'.split()
    tests = pd.concat([folds[f'u{i}'][1] for i in range(1,6)])
    key = ['user','item']
    assert tests.sort_values(key, ignore_index=True).equals(df.sort_values(key, ignore_index=True).astype(tests.dtypes))
    for train,test in folds.values(): assert len(pd.concat([train,test]).drop_duplicates(key))==100_000

def test_real_ml1m():
    df = movielens('ml-1m', release_path('ml-1m'))
    assert (len(df), df.user.nunique(), df.title.nunique()) == (1_000_209, 6040, 3706)

def test_folds_only_of_ml100k(tmp_path):
    with pytest.raises(ValueError, match='ml-1m has no official folds'): movielens_folds('ml-1m')
    with pytest.raises(FileNotFoundError, match='no u1.base and no u1.test'): movielens_folds(path=write_release(tmp_path, 'ml-100k'))

# ------------------------------------------------------------------ sample
def test_sample_is_what_was_planted():
    ratings,truth = sample_ratings(n_users=300, n_items=200, n_ratings=30_000, noise=.5, seed=3, with_truth=True)
    assert ratings.equals(sample_ratings(n_users=300, n_items=200, n_ratings=30_000, noise=.5, seed=3))
    assert not ratings.duplicated(['user','item']).any() and set(ratings.rating.unique())=={1,2,3,4,5}
    assert ratings.groupby('item').title.nunique().max()==1 and ratings.title.nunique()==ratings['item'].nunique()
    errors = ratings.rating-truth.expected(ratings)
    assert abs(errors.mean())<.01 and abs(errors.pow(2).mean()**.5-truth.best_rmse(ratings))<.01
    words = {w: g for g,(_,*ws) in sample._genres.items() for w in ' '.join(ws).split()}
    assert all(words[t.split()[0]]==words[t.split()[1]]==g for t,g in zip(truth.items.title, truth.items.genre))

def test_truth_by_hand():
    users = pd.DataFrame(dict(leniency=[.5], taste1=[1.], taste2=[0.]), index=[8])
    items = pd.DataFrame(dict(title=['Heat'], genre=['dread'], quality=[-.25], taste1=[.25], taste2=[3.]), index=[4])
    truth = sample.SampleTruth(users, items, noise=1e-3)
    pair = pd.DataFrame(dict(user=[8], item=[4]), index=['x'])
    assert truth.mean(pair).tolist()==[3.6] and truth.expected(pair).to_dict()=={'x':4.} and truth.best_rmse(pair)<1e-6
    truth.noise = 1.
    sim = np.rint(3.6+np.random.default_rng(0).normal(size=400_000)).clip(1,5)
    assert abs(truth.expected(pair)['x']-sim.mean())<.01 and abs(truth.best_rmse(pair)-sim.std())<.01

def test_sample_bounds():
    assert len(sample_ratings(4, 3, 12))==12
    with pytest.raises(ValueError, match='n_ratings=13'): sample_ratings(4, 3, 13)
    with pytest.raises(ValueError, match='noise=0'): sample_ratings(noise=0)

def test_state_outside_untouched():
    def state(): return torch.get_rng_state().sum().item(),np.random.get_state()[1].sum(),random.getstate()
    before = state()
    df = sample_ratings(50, 40, 500)
    for s in (SeededSplitter(seed=3), UserSplitter(seed=3), TimeSplitter(), LeaveLastSplitter()): s(df)
    assert state()==before

# ------------------------------------------------------------------ splitters
@pytest.mark.parametrize('splitter', [SeededSplitter(.25, 1), SeededSplitter(), TimeSplitter(.25), LeaveLastSplitter(2), UserSplitter(.25, 1), UserSplitter()])
def test_splitters_lose_nothing(ratings, splitter):
    df = ratings.set_index(np.arange(len(ratings))[::-1]*3)
    train,valid = splitter(df)
    assert len(valid) and sorted([*train,*valid])==list(range(len(df)))

def test_same_seed_same_split(ratings):
    for S in (SeededSplitter, UserSplitter):
        assert (S(seed=5)(ratings)[1]==S(seed=5)(ratings)[1]).all()
        assert set(S(seed=5)(ratings)[1])!=set(S(seed=6)(ratings)[1])

def test_leave_last_by_hand():
    df = pd.DataFrame(dict(user=list('aabbbc'), timestamp=[2,1,5,7,7,1]))
    train,valid = LeaveLastSplitter()(df)
    assert sorted(valid)==[0,4] and sorted(train)==[1,2,3,5]

def test_time_by_hand():
    train,valid = TimeSplitter(.5)(pd.DataFrame(dict(timestamp=[3,1,3,2])))
    assert (list(train),list(valid))==([1,3],[0,2])

def test_many_ties_keep_their_order():
    df = pd.DataFrame(dict(user=np.arange(5000)%7, timestamp=np.arange(5000)//2500))
    train,valid = TimeSplitter(.25)(df)
    assert list(train)==list(range(3750)) and list(valid)==list(range(3750,5000))
    assert sorted(LeaveLastSplitter()(df)[1])==list(range(4993,5000))

def test_time_as_ordered_category():
    when = pd.Categorical(['winter','autumn','spring','summer'], ['spring','summer','autumn','winter'], ordered=True)
    assert [list(o) for o in TimeSplitter(.5)(pd.DataFrame(dict(timestamp=when)))]==[[2,3],[1,0]]

@pytest.mark.parametrize('splitter,valid_pct', [(f,o) for f in (SeededSplitter, TimeSplitter, UserSplitter) for o in (0, 1, -.2, 20) if o or f is not SeededSplitter])
def test_bad_share(ratings, splitter, valid_pct):
    with pytest.raises(ValueError, match=f'valid_pct={valid_pct} must be a share'): splitter(valid_pct)(ratings)

def test_splitter_needs_its_column(ratings):
    with pytest.raises(ValueError, match="the frame to split has no column 'when'; it has user, item"): TimeSplitter(time_name='when')(ratings)
    with pytest.raises(ValueError, match="2 rows have no 'timestamp'"): LeaveLastSplitter()(ratings.assign(timestamp=ratings.timestamp.where(ratings.index>=2)))

def test_sides(tmp_path):
    write_release(tmp_path, 'ml-1m')
    (tmp_path/'users.dat').write_text('5::F::1::10::48067\n9::M::56::16::70072\n', encoding='utf-8')
    users,items = movielens_sides('ml-1m', tmp_path)
    assert users.loc[9].to_dict()==dict(age='56', sex='M', occupation='16') and users.index.name=='user'
    assert items.loc['Hamlet (1996) [7]','year']=='1996' and items.loc['Heat','year']=='unknown' and items.index.name=='title'
    assert list(movielens_sides('ml-1m', tmp_path, 'item')[1].index)==list(films)
    with pytest.raises(ValueError, match="item_name='name'"): movielens_sides('ml-1m', tmp_path, 'name')
    csv = write_release(tmp_path/'csv', 'ml-25m')
    items, = movielens_sides('ml-25m', csv)
    assert items.genres.eq('Drama|Comedy').all()

def test_sides_of_ml_100k(tmp_path):
    write_release(tmp_path, 'ml-100k')
    with pytest.raises(FileNotFoundError, match='u.user'): movielens_sides('ml-100k', tmp_path)
    (tmp_path/'u.user').write_text('5|24|M|technician|85711\n9|7|F|writer|43537\n', encoding='utf-8')
    flags = lambda *on: '|'.join('1' if k in on else '0' for k in range(19))
    (tmp_path/'u.item').write_text(f'1|Hamlet (1996)|01-Jan-1996||http://x|{flags(1,8)}\n3|Amelie (2001)|01-Jan-2001||http://y|{flags(14)}\n', encoding='utf-8')
    users,items = movielens_sides('ml-100k', tmp_path)
    assert users.age.tolist()==['20s','0s'] and items.genres.tolist()==['Action|Drama','Romance'] and items.year.tolist()==['1996','2001']

def test_real_sides():
    for name,n in (('ml-100k',(943,1682)),('ml-1m',(6040,3883))):
        sides = movielens_sides(name, release_path(name))
        assert tuple(map(len, sides))==n and not any(o.isna().any(axis=None) for o in sides)
        assert set(movielens(name, release_path(name)).title.unique())<=set(sides[1].index)

def tied(n_users=150, n=8):
    "Films of each user, all within a day, in random order"
    rng = np.random.default_rng(0)
    rows = [(u,int(i)) for u in range(n_users) for i in rng.choice(400, n, replace=False)]
    df = pd.DataFrame(rows, columns=['user','item']).assign(day=pd.Timestamp('2024-01-01'))
    return df.assign(rating=rng.integers(1, 11, len(df)), day=df.day+pd.to_timedelta(np.arange(len(df))%n//4, unit='D'))

@pytest.mark.parametrize('n', [1,3])
@pytest.mark.parametrize('name,ascending', [('rating',True), ('rating',False), ('item',True)])
def test_an_order_that_is_not_that_of_time_is_told(n, name, ascending):
    df = tied()
    by_it = df.sort_values(['user','day',name], ascending=[True,True,ascending])
    with pytest.warns(UserWarning, match=rf"users have several ratings at one time, .* they are sorted by '{name}': shuffle them first"): LeaveLastSplitter(n)(by_it)
    LeaveLastSplitter(n)(df)  # without a word, as after what is advised
    LeaveLastSplitter(n)(by_it.sample(frac=1, random_state=0))
    with pytest.warns(UserWarning, match='sorted by'): RecDataLoaders.from_df(by_it, LeaveLastSplitter(n))

@pytest.mark.parametrize('name', ['rating','item','user'])
def test_a_cut_through_rows_of_one_time_is_told(name):
    df = tied()
    by_it = df.sort_values(['day',name])
    with pytest.warns(UserWarning, match=rf"cuts through rows at one time, .* they are sorted by '{name}': shuffle them first"): TimeSplitter()(by_it)
    TimeSplitter()(df.sample(frac=1, random_state=0))
    TimeSplitter(.5)(by_it)  # between two days

def test_an_order_of_few_or_of_time_is_not_told():
    few = tied(80).sort_values(['user','day','rating'])
    LeaveLastSplitter()(few)
    rising = tied().sort_values(['user','rating'])
    LeaveLastSplitter()(rising.assign(day=np.arange(len(rising))))  # ratings rise with time
    mixed = tied().assign(item=lambda o: o.item.where(o.item%2==0, o.item.astype(str)))
    LeaveLastSplitter()(mixed)
