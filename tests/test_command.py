"""The program `fastrec`: every command through functions, a few as a process of their own, and what happens to wrong and hostile input"""
import gzip,json,os,pty,re,shutil,signal,socket,subprocess,sys,time,tomllib,urllib.request
from pathlib import Path
import numpy as np,pandas as pd,pytest
from conftest import quietly,seldom
from fastrec.all import RecDataLoaders,TimeSplitter,learner,load_recommender,sample_ratings
from fastrec.command import main as program
from fastrec.command.main import commands,main,overview

pytestmark = pytest.mark.filterwarnings('always::UserWarning')  # which the program prints
root = Path(__file__).parent.parent
hostile = ['\x1b[2Jclear', 'two\nlines', 'bell\x07', '\x9b31m', '\u202efdp.exe', 'nul\x00end', '愛', '🎬', "it's", '%s %(prog)s', '<b>&amp;', '-5', '--json', 'x'*300, '{x}']

@pytest.fixture(scope='module')
def tmp(tmp_path_factory): return tmp_path_factory.mktemp('command')

@pytest.fixture(scope='module')
def ratings(): return sample_ratings(n_users=150, n_items=80, n_ratings=4000, seed=1)[['user','title','rating']].astype(dict(title='str'))

@pytest.fixture(scope='module')
def file(ratings, tmp):
    ratings.to_csv(tmp/'ratings.csv', index=False)
    return tmp/'ratings.csv'

@pytest.fixture(scope='module')
def films(file, tmp):
    assert main(['train',str(file),'--out',str(tmp/'films'),'--fit','als','--ratings'])==0
    return tmp/'films'

@pytest.fixture(scope='module')
def rec(films): return load_recommender(films)

@pytest.fixture
def said(capsys):
    "Exit code, stdout and stderr of a command"
    def run(*args):
        capsys.readouterr()
        try: code = main([*map(str, args)])
        except SystemExit as e: code = e.code
        return code,*capsys.readouterr()
    return run

def answer(said, *args):
    code,out,err = said(*args, '--json')
    assert code==0 and not err, err
    return json.loads(out)

def refused(said, *args, code=1):
    "The one line of a refusal"
    found,out,err = said(*args)
    lines = err.splitlines()
    assert found==code and out=='' and 'Traceback' not in err and lines[-1].startswith('fastrec'), (found,out,err)
    if code==1: assert lines[-1].startswith('fastrec: ')
    return lines[-1]

def process(*args, **kwargs):
    return subprocess.run([sys.executable,'-m','fastrec',*map(str, args)], capture_output=True, text=True, encoding='utf-8', cwd=root, **kwargs)

def test_no_epochs_are_no_training(said, ratings, file, tmp):
    assert '--epochs 0 must be at least 1' in refused(said, 'train', file, '--out', tmp/'none', '--fit', 'one_cycle', '--epochs', 0)
    assert not (tmp/'none').exists()

# ------------------------------------------------------------------ as a process of its own
def test_from_a_file_to_a_list(ratings, file, tmp):
    "What Python gives with the same seed; results on stdout, and nothing else there"
    done = process('train', file, '--out', tmp/'own', '--fit', 'ials', '--json')
    assert done.returncode==0, done.stderr
    res = json.loads(done.stdout)
    learn = learner(RecDataLoaders.from_df(ratings, seed=42))
    with quietly(): learn.fit_ials()
    want,user = learn.evaluate().ndcg_at_10,ratings.user[0]
    found = {o['measure']: o for o in res['measured']}['ndcg_at_10']
    assert found['model']==pytest.approx(want['model'], abs=1e-6) and found['popularity']==pytest.approx(want['popularity'], abs=1e-6)
    assert res['fit']=='fit_ials' and 'reg' in {o['setting'] for o in res['settings']}
    done = process('recommend', tmp/'own', user, '--n', 5, '--json')
    assert [o['title'] for o in json.loads(done.stdout)]==learn.recommend(user, n=5).title.tolist() and done.stderr==''

def imported_after(*calls):
    "Which of the packages that take long a new process has imported, after it was asked for each of `calls` in turn"
    code = f"""import sys; from fastrec.command.main import main
for args in {[[*map(str, o)] for o in calls]}: main(args)
print('imported', *{{'fastai','torch','pandas','torch._dynamo'}}&{{*sys.modules}})"""
    done = subprocess.run([sys.executable,'-c',code], capture_output=True, text=True, cwd=root, check=True)
    return {*done.stdout.splitlines()[-1].split()[1:]}

def test_what_answers_imports_no_fastai_and_help_nothing(films, rec, ratings):
    user,film = ratings.user[0],ratings.title[0]
    assert imported_after([], ['--help'], ['--version'], ['nonsense'])==set()
    assert main(['train',str(films.parent/'ratings.csv'),'--out',str(films.parent/'usual')])==0
    assert imported_after(['info',films.parent/'usual'])=={'torch','pandas'}
    assert imported_after(['recommend',films,user], ['similar',films,film], ['explain',films,user,film], ['info',films])=={'torch','pandas'}

def test_errors_in_a_line_and_exit_codes(films, tmp):
    done = process('info', tmp)
    assert (done.returncode,done.stdout,done.stderr)==(1, '', f'fastrec: {tmp} is not a saved recommender: it has no manifest.json\n')
    assert process('recommend').returncode==2
    done = process('info', tmp, '--debug')
    assert done.returncode==1 and 'Traceback' in done.stderr

def test_messages_name_what_was_typed(said, films, ratings, file, tmp):
    "Options of the command in place of arguments of Python; labels stay as they are"
    ratings.assign(title=ratings.title.where(ratings.index>3)).to_csv(tmp/'gaps.csv', index=False)
    ratings.set_axis(['a','b','c'], axis=1).to_csv(tmp/'letters.csv', index=False)
    (tmp/'latin.csv').write_bytes(b'user,title,rating\n1,Caf\xe9,5\n')
    for args,part in ((['train',tmp/'gaps.csv'],'leave these rows out with --dropna'), (['train',file,'--user','user','--item','user'],'name them with --user, --item, --rating'),
                      (['train',file,'--valid','7'],'--valid 7'), (['train',tmp/'latin.csv'],'as in --encoding latin-1')):
        told = refused(said, *args, '--out', tmp/'none')
        assert part in told and not re.search(r'user_name|item_name|rating_name|valid_pct|dropna=|encoding=', told), told
    assert 'name them with --user, --item, --rating' in said('train', tmp/'letters.csv', '--out', tmp/'letters', '--fit', 'bias')[2]  # a warning
    for args,part in ((['--workers','0'],'--workers 0 must be at least 1'), (['--port','70000'],'--port 70000 must be at most 65535'),
                      (['--host','0.0.0.0'],'name a file with --token'), (['--port','-1'],'--port -1')):
        assert part in refused(said, 'serve', films, *args), args
    assert "--diversity 2 must be" in refused(said, 'recommend', films, ratings.user[0], '--diversity', '2')
    assert 'user_name=7' in refused(said, 'similar', films, 'user_name=7')

@pytest.mark.long
def test_a_fit_with_draws_lets_the_page_surprise(said, file, tmp):
    assert main(['train',str(file),'--out',str(tmp/'drawn'),'--fit','blend_bayes'])==0
    rec = load_recommender(tmp/'drawn')
    assert rec.model.n_draws>1 and 'std' in rec.recommend(n=1, z=-1.)
    for name in ('train','serve'):
        told = said(name, '--help')[1]
        assert '--fit blend_bayes' in told, told

@pytest.mark.long
def test_letters_that_the_terminal_has_not(said, film_with_hostile_labels):
    done = process('similar', film_with_hostile_labels, '愛', '--n', 20, env={**os.environ, 'PYTHONIOENCODING': 'ascii'})
    assert done.returncode==0 and '\\U0001f3ac' in done.stdout

@pytest.mark.long
def test_a_reader_who_leaves_early_is_no_error(films):
    done = subprocess.run(f'{sys.executable} -m fastrec info {films} | true', shell=True, capture_output=True, text=True, cwd=root)
    assert done.stderr==''

@pytest.mark.skipif(os.name!='posix', reason='signals')
def test_ctrl_c_ends_with_130_and_leaves_no_folder_half_written(ratings, tmp):
    pd.concat([ratings]*20).to_csv(tmp/'long.csv', index=False)
    p = subprocess.Popen([sys.executable,'-m','fastrec','train',tmp/'long.csv','--out',tmp/'stopped','--fit','one_cycle','--epochs','100000'],
                         stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=root)
    while not (tmp/'stopped').exists() and p.poll() is None: time.sleep(.1)
    time.sleep(1)
    p.send_signal(signal.SIGINT)
    out,err = p.communicate(timeout=60)
    assert p.returncode==130 and err.endswith('fastrec: stopped\n') and out=='' and [*(tmp/'stopped').iterdir()]==[], err

@pytest.mark.long
def test_bars_are_drawn_where_somebody_looks(file, tmp):
    ours,theirs = pty.openpty()
    p = subprocess.Popen([sys.executable,'-m','fastrec','train',file,'--out',tmp/'seen','--fit','one_cycle','--epochs','1','--json'],
                         stdout=subprocess.PIPE, stderr=theirs, cwd=root)
    out = p.communicate(timeout=100)[0]
    os.close(theirs)
    shown = os.read(ours, 2**16).decode()
    assert p.returncode==0 and json.loads(out)['fit']=='fit' and 'Epoch 1/1' in shown and 'train_loss' in shown

# ------------------------------------------------------------------ commands as functions
def test_the_program_is_installed_and_lists_its_commands(said):
    scripts = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']['scripts']
    assert scripts=={'fastrec': 'fastrec.command.main:main'}
    for args in ([], ['--help'], ['-h']): assert said(*args)==(0, overview()+'\n', '')
    for name in commands: assert re.search(rf'^  {name} +[A-Z]', overview(), re.M)

def test_help_teaches_by_an_example(said):
    for name in commands:
        code,out,_ = said(name, '--help')
        assert code==0 and re.search(rf'^ *fastrec {name} ', out, re.M) or name=='demo', name
        assert f'usage: fastrec {name} ' in out

@pytest.mark.parametrize('fit', ['blend','bayes','bias','ease','one_cycle',*seldom('choose')])
def test_every_fit(said, file, tmp, fit):
    res = answer(said, 'train', file, '--out', tmp/fit, '--fit', fit, '--epochs', 1, '--seconds', 60)
    assert ('tried' in res)==(fit=='choose') and len(res['measured'])>8 and res['settings']
    about = answer(said, 'info', tmp/fit)
    assert about['fit']==res['fit'] and about['metrics']['ndcg_at_10']==pytest.approx({o['measure']: o for o in res['measured']}['ndcg_at_10']['model'])
    assert {o['setting'] for o in res['settings']}=={*about['settings']} and about['users']==150

@pytest.mark.long
def test_a_fit_is_chosen_for_clicks(said, file, tmp):
    "Which have no error to go by"
    clicks = tmp/'clicks.csv'
    pd.read_csv(file).assign(rating=1).to_csv(clicks, index=False)
    res = answer(said, 'train', clicks, '--out', tmp/'chosen', '--fit', 'choose', '--seconds', 60)
    assert res['fit'] in ('fit_ials','fit_ease','fit_blend') and 'fit_als' not in {o['fit'] for o in res['tried']}

@pytest.mark.parametrize('ending', ['csv','parquet'])
def test_what_is_sold_out_is_in_a_file(said, films, rec, ratings, tmp, ending):
    user = ratings.user[0]
    first,second = rec.recommend(user, n=2).title
    def write(df):
        file = str(tmp/f'gone.{ending}')
        df.to_csv(file, index=False) if ending=='csv' else df.to_parquet(file, index=False)
        return file
    want = rec.recommend(user, n=5, also_exclude=[first]).title.tolist()
    for df in (pd.DataFrame(dict(title=[first])), pd.DataFrame(dict(title=[first,second], user=[user,ratings.user.max()+5], price=1))[:1]):
        assert [o['title'] for o in answer(said, 'recommend', films, user, '--n', 5, '--also-exclude', write(df))]==want
    if ending=='csv':
        blanks = write(pd.DataFrame(dict(title=[f' {first} '])))
        assert [o['title'] for o in answer(said, 'recommend', films, user, '--n', 5, '--also-exclude', blanks)]==want
    code,_,err = said('recommend', films, user, '--also-exclude', write(pd.DataFrame(dict(title=['No Such Film']))))
    assert code==0 and "fastrec: --also-exclude: 1 unknown in 'title'" in err
    assert "has no column 'title'" in refused(said, 'recommend', films, user, '--also-exclude', write(pd.DataFrame(dict(film=[first]))))
    df = pd.DataFrame(dict(customer=[user], title=[first]))
    with pytest.raises(ValueError, match="no column 'user'"): rec.recommend(user, also_exclude=df)
    assert "--also-exclude has no column 'user'" in refused(said, 'recommend', films, user, '--also-exclude', write(df))
    refused(said, 'recommend', films, user, '--also-exclude', str(tmp/'nowhere.csv'))

def test_a_folder_without_what_was_seen_lists_and_measures_all(said, rec, ratings, file, tmp):
    folder = str(rec.save_recommender(tmp/'unseen', seen=False))
    user = ratings.user[0]
    code,out,err = said('recommend', folder, user, '--n', 5, '--json')
    want = rec.recommend(user, n=5, exclude_seen=False).title.tolist()
    assert code==0 and [o['title'] for o in json.loads(out)]==want and err.count('saved without what its users have rated')==1
    code,out,err = said('evaluate', folder, file)
    assert code==0 and 'ndcg' in out and err.count('saved without what its users have rated')==1

def test_info(said, films, rec):
    about = answer(said, 'info', films)
    assert about['checksum']==rec.manifest['checksum'] and about['bytes']==sum(f.stat().st_size for f in films.glob('*.safetensors'))
    assert about['keeps_ratings'] and about['predicts']==[f'Dot, {rec.model.item_factors.shape[1]} factors'] and about['trained_with']['seed']==42
    code,out,_ = said('info', films)
    assert code==0 and about['checksum'] in out and 'trained_with' in out

@pytest.mark.long
def test_info_of_draws_and_of_folders_without_a_fit(said, file, tmp, rec):
    answer(said, 'train', file, '--out', tmp/'draws', '--fit', 'bayes')
    assert re.fullmatch(r'PosteriorMean, \d+ factors, \d+ draws', answer(said, 'info', tmp/'draws')['predicts'][0])
    learner(RecDataLoaders.from_df(sample_ratings(n_users=30, n_items=20, n_ratings=400), seed=1)).save_recommender(tmp/'untrained')
    assert answer(said, 'info', tmp/'untrained')['fit'] is None
    rec.save_recommender(tmp/'again')
    assert answer(said, 'info', tmp/'again')['fit']==rec.manifest['fit']['name']

@pytest.mark.long
def test_the_scale_is_that_of_the_whole_file(said, ratings, tmp):
    "A rating that only a held-out row gave can be given: to who asks for predictions, and to the page"
    dls = RecDataLoaders.from_df(ratings, seed=42)
    lone = ratings.assign(rating=ratings.rating.clip(lower=2))
    row = dls.valid_ds.frame()[0].iloc[0]
    lone.loc[(lone.user==row.user) & (lone.title==row.title), 'rating'] = 1
    lone.to_csv(tmp/'lone.csv', index=False)
    lone.to_parquet(tmp/'lone.parquet')
    for file,fit in (('lone.csv','blend_bayes'), ('lone.parquet','als'), ('lone.csv','one_cycle')):
        code,_,err = said('train', tmp/file, '--out', tmp/'lone', '--fit', fit)
        assert code==0 and 'outside' not in err, err
        rec = load_recommender(tmp/'lone')
        assert rec.rating_range==(1,5) and rec.model.y_range[0]<=1
        rec.fold_in(pd.DataFrame(dict(title=ratings.title[:1], rating=[1.])))

def test_a_copy_leaves_nothing_of_who_is_gone(said, ratings, tmp):
    "What a copy of a new model over an old one leaves is told, and goes with the next save, but for what is not fastrec's"
    own = tmp/'copied'
    for k,df in enumerate((ratings,ratings[ratings.user!=ratings.user[0]])):
        learn = learner(RecDataLoaders.from_df(df, seed=1))
        with quietly(): learn.fit_bias()
        learn.save_recommender(tmp/f'copy-{k}')
    shutil.copytree(tmp/'copy-0', own)
    old = {o.name for o in own.glob('*.safetensors')}
    for o in (tmp/'copy-1').iterdir(): shutil.copyfile(o, own/o.name)
    (own/'notes.txt').write_text('mine', encoding='utf-8')
    code,out,err = said('info', own)
    assert code==0 and all(o in out for o in old) and 'left_over' in err and 'notes' not in out, (out,err)
    learn.save_recommender(own)
    names = {o.name for o in own.iterdir()}
    assert not names&old and 'notes.txt' in names and len(names)==4, names
    assert answer(said, 'info', own)['left_over']==[]

def test_a_save_leaves_the_files_of_another_that_goes_on(ratings, tmp, monkeypatch):
    "Which are older than a manifest that was written in between"
    from fastrec.export import bundle
    learn = learner(RecDataLoaders.from_df(ratings, seed=1))
    with quietly(): learn.fit_bias()
    own = learn.save_recommender(tmp/'twice')
    written = bundle.read_back
    def meanwhile(folder, text, model):
        monkeypatch.setattr(bundle, 'read_back', written)
        for _ in range(2): learn.save_recommender(own)
        return written(folder, text, model)
    monkeypatch.setattr(bundle, 'read_back', meanwhile)
    learn.save_recommender(own)
    assert len(load_recommender(own).recommend(ratings.user[0], n=2))==2

def test_what_train_does_not_read_is_told(said, ratings, tmp):
    df = ratings.assign(region='north', shelf=3, count=1)
    df.to_csv(tmp/'wide.csv', index=False)
    df.to_parquet(tmp/'wide.parquet')
    for name in ('wide.csv','wide.parquet'):
        _,out,_ = said('train', tmp/name, '--out', tmp/'wide', '--fit', 'bias', '--weight', 'count')
        assert 'not_read: region, shelf\n' in out, out
        assert answer(said, 'train', tmp/name, '--out', tmp/'wide', '--fit', 'bias')['not_read']==['region','shelf','count']
    assert 'not_read' not in said('train', tmp/'ratings.csv', '--out', tmp/'wide', '--fit', 'bias')[1]

def test_the_latest_rows_are_held_out(said, ratings, tmp):
    "What was bought last is measured on, if a column of times is named"
    when = pd.Timestamp('2024-01-01')+pd.to_timedelta(np.random.default_rng(0).permutation(len(ratings)), unit='h')
    df = ratings.assign(bought=when)
    df.to_csv(tmp/'timed.csv', index=False)
    df.to_parquet(tmp/'timed.parquet')
    dls = RecDataLoaders.from_df(df, TimeSplitter(.2, 'bought'), seed=42)
    learn = learner(dls)
    with quietly(): learn.fit_bias()
    for name in ('timed.csv','timed.parquet'):
        found = answer(said, 'train', tmp/name, '--out', tmp/'timed', '--fit', 'bias', '--latest', 'bought')
        assert found['measured'][0]['model']==pytest.approx(learn.evaluate().rmse['model'], abs=1e-5) and 'not_read' not in found
    told = refused(said, 'train', tmp/'timed.csv', '--out', tmp/'none', '--latest', 'bough')
    assert "the file has no column 'bough'" in told and "as in --latest 'bought'" in told and 'Splitter' not in told, told

def test_only_the_column_that_is_typed_says_what_is_latest(said, ratings, tmp):
    "Not another with a usual name; and who holds nothing out may name it all the same"
    df = ratings.assign(date=pd.Timestamp('2024-01-01')+pd.to_timedelta(np.arange(len(ratings)), unit='h'))
    df.to_csv(tmp/'dated.csv', index=False)
    df.to_parquet(tmp/'dated.parquet')
    for name in ('dated.csv','dated.parquet'):
        args = 'train',tmp/name,'--out',tmp/'dated','--fit','bias','--latest'
        told = refused(said, *args, 'timestamp')
        assert "the file has no column 'timestamp'" in told and "as in --latest 'date'" in told, told
        refused(said, *args, 'timestamp', '--valid', 0)
        assert 'not_read' not in answer(said, *args, 'date')
        code,out,err = said(*args, 'date', '--valid', 0)
        assert code==0 and 'not_read: date' in out and 'nothing was measured' in err, (out,err)

def test_prices_that_are_not_read_refuse_no_file_of_ratings_but_one_of_features(said, ratings, tmp):
    marked = np.resize(['1.250','12','0'], len(ratings))
    ratings.assign(rating=ratings.rating.astype(int), price=marked).to_csv(tmp/'priced.csv', index=False)
    args = 'train',tmp/'priced.csv','--out',tmp/'priced','--fit','bias'
    assert said(*args)[0]==0 and said('evaluate', tmp/'priced', tmp/'priced.csv')[0]==0
    titles = ratings.title.unique()
    pd.DataFrame(dict(title=titles, price=marked[:len(titles)])).to_csv(tmp/'prices.csv', index=False)
    assert "in the column 'price'" in refused(said, *args, '--items', tmp/'prices.csv')

def test_customers_are_taken_for_users_and_orders_are_not(said, ratings, tmp):
    n = len(ratings)
    df = pd.DataFrame({'Order ID': np.arange(n)//2+7000, 'Customer email': ratings.user.astype(str)+'@example.com', 'Product': ratings.title, 'Stars': ratings.rating})
    df.to_csv(tmp/'orders.csv', index=False)
    code,out,_ = said('train', tmp/'orders.csv', '--out', tmp/'orders', '--fit', 'bias')
    assert code==0 and [*load_recommender(tmp/'orders').ds.classes]==['Customer email','Product'] and 'not_read: Order ID' in out
    df.drop(columns='Stars').to_csv(tmp/'clicked.csv', index=False)
    told = refused(said, 'train', tmp/'clicked.csv', '--out', tmp/'none')
    assert "ratings have no column with a usual name" in told and "the third, 'Product'" in told and 'pass --choices' in told and '--rating' in told

def test_what_train_has_no_option_for_is_not_named():
    "Advice that takes Python is left out or put otherwise; the rest of the message stays"
    from fastrec.command.main import _as_typed
    for text,typed in (('there may be more to find; fit_ials(reg=0.0019) looks for taste all the same', 'there may be more to find'),
                       ('looks; and fit_blend(weight=1.) lets ratings make lists differ', 'looks; a --min-rating, that of what people like, may let ratings make lists differ'),
                       ('and do not count: keep one row of each pair (all, if weights add up), or pass exclude_seen=False if lists may show them again',
                        'and do not count: leave one row of each pair in the file, the last (all, if --weight adds them up)'),
                       ('no room: pass fewer n_factors or layers, or free memory there', 'no room: free memory there'),
                       ("no room: free memory there, or pass device='cpu'", 'no room: free memory there'),
                       ('for more take over 2 GB: pass n_draws to have them', 'for more take over 2 GB'),
                       ('than are left: pass more seconds, or call it yourself', 'than are left: pass more --seconds, or name it with --fit'),
                       ('if they are part of the text, pass quoting=3', 'if they are part of the text, take them out of the file'),
                       ('measure nothing, pass valid_pct=0 without a splitter', 'measure nothing, pass --valid 0'),
                       ('nothing of this is Python', 'nothing of this is Python')):
        assert _as_typed('train', text)==typed

def test_info_tells_of_what_found_no_tastes(said, ratings, tmp):
    "Where it says factors, `similar` compares them; elsewhere it says what is there in their place"
    dls = RecDataLoaders.from_df(ratings, seed=1)
    for fit,args,said_so in (('bias',{},'biases alone'), ('ials',dict(n_factors=0),'popularity alone')):
        learn = learner(dls)
        with quietly(): getattr(learn, f'fit_{fit}')(**args)
        learn.save_recommender(tmp/f'bare-{fit}')
        assert answer(said, 'info', tmp/f'bare-{fit}')['predicts'][0].endswith(said_so)
        assert 'no factors to compare' in refused(said, 'similar', tmp/f'bare-{fit}', ratings.title[0])

def test_info_of_choices_says_nothing_of_ratings(said, file, tmp, films):
    for fit in ('ials','blend'):
        assert said('train', file, '--choices', '--out', tmp/f'chosen-{fit}', '--fit', fit)[0]==0
        _,out,_ = said('info', tmp/f'chosen-{fit}')
        assert 'rating_range' not in out and not re.search(r'None|True|False|\d\.\d{6}', out), out
        assert answer(said, 'info', tmp/f'chosen-{fit}')['rating_range'] is None
    assert re.search(r'rating_range +1 to 5\n', said('info', films)[1]) and re.search(r'keeps_ratings +yes\n', said('info', films)[1])

def test_reasons_that_training_takes_away_are_told(said, file, tmp):
    for args,is_told in ((['--ratings'],False), (['--ratings'],False), ([],True), ([],False)):
        code,_,err = said('train', file, '--out', tmp/'served', '--fit', 'bias', *args)
        assert code==0 and ('--ratings to keep them' in err)==is_told, err

def test_of_a_single_rating_nothing_is_left(said, ratings, tmp):
    one = ratings.drop_duplicates('user').iloc[:1]
    df = pd.concat([ratings[ratings.user!=one.user.iloc[0]], one])
    df.to_csv(tmp/'single.csv', index=False)
    assert said('train', tmp/'single.csv', '--valid', 0, '--out', tmp/'single', '--fit', 'als', '--ratings')[0]==0
    film,other = ratings.title.unique()[:2]
    assert 'there is only one reason' in said('explain', tmp/'single', one.user.iloc[0], film)[2]
    assert said('explain', tmp/'single', df.user.iloc[0], film)[2]==''

def test_lists(said, films, rec, ratings):
    users = ratings.user.unique()[:3].tolist()
    for args,kwargs in (([], {}), (['--n',3,'--diversity',.3], dict(n=3, diversity=.3)), (['--damping',.5], dict(damping=.5))):
        want = rec.recommend(users, **kwargs)
        found = pd.DataFrame(answer(said, 'recommend', films, *users, *args))
        pd.testing.assert_frame_equal(found, want, check_dtype=False, check_categorical=False, rtol=1e-6)
    line = answer(said, 'recommend', films, users[0], '--why', 2)[0]
    want = rec.recommend(users[0], why=2).iloc[0]
    assert line['why'].startswith('because you gave') and line['because']==[dict(item=want[f'because_{k}'], rating=want[f'gave_{k}']) for k in (1,2)]

def test_everybodys_lists_as_parquet(said, films, rec, tmp):
    assert said('recommend', films, '--n', 4, '--out', tmp/'lists.parquet')==(0, f'Written to {tmp}/lists.parquet\n', '')
    pd.testing.assert_frame_equal(pd.read_parquet(tmp/'lists.parquet'), rec.recommend(n=4), check_dtype=False, check_categorical=False)

def test_lists_for_a_spreadsheet(said, films, rec, ratings, tmp):
    "The same rows as in Parquet, with one line of names, for one and for all"
    for users in ([ratings.user[0]],[]):
        for name in ('lists.csv','lists.parquet'): assert said('recommend', films, *users, '--n', 4, '--out', tmp/name)[0]==0
        data = (tmp/'lists.csv').read_bytes()
        assert data.startswith(b'user,rank,') and data.count(b'user,rank,')==1
        found,want = pd.read_csv(tmp/'lists.csv'),pd.read_parquet(tmp/'lists.parquet')
        pd.testing.assert_frame_equal(found, want, check_dtype=False, check_categorical=False, rtol=1e-5)
    rec.recommend(path=tmp/'again.csv', n=4, max_bytes=2**16)  # in many blocks
    assert (tmp/'again.csv').read_bytes()==data
    assert said('similar', films, ratings.title[0], '--out', tmp/'like.csv')[0]==0 and [*pd.read_csv(tmp/'like.csv')]==['title','similarity']
    assert not [*tmp.glob('*.part')]

def test_reasons_are_told_whole_and_without_marks(said, films, ratings, tmp):
    user = ratings.user[0]
    line = answer(said, 'recommend', films, user, '--n', 1, '--why', 5)[0]
    told = said('recommend', films, user, '--n', 1, '--why', 5)[1]
    assert len(line['because'])==5 and line['why'].replace('*', '') in told and '*' not in told

def test_some_of_what_may_be_meant_is_named(said, tmp):
    "A part of many names finds the shortest, in whatever letters"
    names = [f'{a} {b}' for a in ('Merlot','Grüner Veltliner') for b in ('Organic','Old Vines 0,75 l','Reserve','Grand Estate')]
    df = pd.DataFrame([(f'u{k%23}',names[k*7%8],k%5+1) for k in range(184)], columns=['user','wine','stars']).drop_duplicates(['user','wine'])
    df.to_csv(tmp/'wines.csv', index=False)
    assert said('train', tmp/'wines.csv', '--out', tmp/'cellar', '--fit', 'als')[0]==0
    told = refused(said, 'similar', tmp/'cellar', 'merlot')
    assert told.endswith("closest: 'Merlot Organic', 'Merlot Reserve', 'Merlot Grand Estate'"), told
    assert "'Grüner Veltliner Organic'" in refused(said, 'similar', tmp/'cellar', 'GRUNER')

def test_what_why_shows_is_explained(said):
    told = said('similar', '--help')[1]
    for o in ('both','choice','shared','axis','of_axis'): assert re.search(rf'\b{o}\b', told), o

def test_training_ends_with_what_can_be_typed(said, file, tmp):
    "With a label that is there, each a line that runs"
    import shlex
    _,out,_ = said('train', file, '--out', tmp/'my films', '--fit', 'als')
    lines = [shlex.split(o) for o in out.splitlines() if o.startswith('    fastrec ')]
    assert [o[1] for o in lines]==['recommend','serve'] and lines[1][2]==str(tmp/'my films')
    assert said(*lines[0][1:])[0]==0
    df = pd.DataFrame([(-k%7-9,f'f{k%11}',k%5+1) for k in range(77)], columns=['user','title','rating'])
    df.to_csv(tmp/'below.csv', index=False)
    out = said('train', tmp/'below.csv', '--out', tmp/'below', '--fit', 'bias')[1]
    line, = [shlex.split(o) for o in out.splitlines() if o.startswith('    fastrec recommend')]
    assert said(*line[1:])[0]==0
    zeros = df.assign(user=(df.user+20).map('{:05}'.format))
    for k,frame in enumerate((df[::2],zeros[::2])):
        frame.to_csv(tmp/'why.csv', index=False)
        out = said('train', tmp/'why.csv', '--out', tmp/f'why {k}', '--fit', 'als', '--ratings')[1]
        line, = [o for o in out.splitlines() if o.startswith('    fastrec recommend')]
        code,found,_ = said(*shlex.split(line)[1:])
        assert code==0 and '--why 2' in line and 'why' in found

def test_options_may_stand_between_labels(said, films, ratings):
    users = [str(o) for o in ratings.user.unique()[:2]]
    want = said('recommend', films, *users, '--n', 2)[1]
    for args in ((films,'--n',2,*users), (films,users[0],'--n',2,users[1]), ('--n',2,films,*users), (films,'--n',2,'--',*users)): assert said('recommend', *args)[1]==want

def test_errors_stand_beside_those_of_biases(said, ratings, file, tmp):
    "On the same rows; where nothing is gained by tastes, that is said"
    dls = RecDataLoaders.from_df(ratings, seed=42)
    biases = learner(dls)
    with quietly(): biases.fit_bias()
    want = biases.evaluate().loc['model']
    found = {o['measure']: o for o in answer(said, 'train', file, '--out', tmp/'beside', '--fit', 'als')['measured']}
    assert found['rmse']['biases']==pytest.approx(want.rmse, abs=1e-5) and found['mae']['biases']==pytest.approx(want.mae, abs=1e-5)
    assert found['ndcg_at_10']['biases'] is None
    rng = np.random.default_rng(0)
    noise = pd.DataFrame(dict(user=rng.integers(0, 100, 3000), title=rng.integers(0, 60, 3000), rating=rng.integers(1, 6, 3000))).drop_duplicates(['user','title'])
    noise.to_csv(tmp/'noise.csv', index=False)
    out = said('train', tmp/'noise.csv', '--out', tmp/'noise', '--fit', 'one_cycle')[1]
    assert 'no better than those of biases alone' in out, out
    for args in (['--fit','bias'], ['--fit','ials','--choices']): assert 'biases' not in said('train', file, '--out', tmp/'beside', *args)[1].split('settings')[0]

def test_similar_and_explain(said, films, rec, ratings, tmp):
    user,film = ratings.user[0],ratings.title[0]
    assert [o['title'] for o in answer(said, 'similar', films, film)]==rec.similar(film).title.tolist()
    assert 'both' in answer(said, 'similar', films, film, '--why')[0]
    found,want = answer(said, 'explain', films, user, film, '--n', 1),rec.explain(user, film)
    assert found['prediction']==pytest.approx(want.attrs['prediction'])==sum(o['contribution'] for o in found['rows'])
    assert found['rows'][-1]['part']==f'{(want.part=="rated").sum()-1} others'
    assert said('explain', films, user, film, '--out', tmp/'why.parquet', '--n', 99)[0]==0
    found = pd.read_parquet(tmp/'why.parquet')
    pd.testing.assert_frame_equal(found.fillna({'title': ''}), want.fillna({'title': ''}), check_dtype=False)

def test_a_column_of_weights_may_be_called_rating(said, ratings, tmp):
    "And a missing user is no reason to speak of arguments that a shell lacks"
    ratings[['user','title','rating']].to_csv(tmp/'strong.csv', index=False)
    answer(said, 'train', tmp/'strong.csv', '--choices', '--weight', 'rating', '--fit', 'ials', '--out', tmp/'strong')
    got = load_recommender(tmp/'strong')
    assert got.model.is_preference and got.ds.weight_name=='rating' and got.ds.rating_name=='choice'
    assert said('evaluate', tmp/'strong', tmp/'strong.csv')[0]==0
    ratings[['user','title','rating']].astype(dict(user=object)).assign(user=lambda o: o.user.where(o.index>0, None)).to_csv(tmp/'gap.csv', index=False)
    assert '1 of ' in (told := refused(said, 'evaluate', tmp/'strong', tmp/'gap.csv')) and 'with_labels' not in told, told

def test_evaluate(said, films, rec, ratings, tmp):
    held_out = RecDataLoaders.from_df(ratings, seed=42).valid_ds.frame()[0]
    held_out.to_csv(tmp/'held_out.csv', index=False)
    held_out.to_parquet(tmp/'held_out.parquet')
    want = rec.evaluate(held_out, k=5, min_rating=4).loc['model']
    for name in ('held_out.csv','held_out.parquet'):
        found = {o['measure']: o['model'] for o in answer(said, 'evaluate', films, tmp/name, '--k', 5, '--min-rating', 4)}
        assert found==pytest.approx(want.to_dict())

def rmse_of(said, folder, file): return {o['measure']: o['model'] for o in answer(said, 'evaluate', folder, file)}['rmse']

def test_labels_as_they_were_trained(said, films, rec, ratings, tmp):
    "Ids that are text there are read as text, and as numbers where they are numbers, whatever else a file holds"
    df = ratings.assign(user=ratings.user.astype(str))
    df.loc[df.user==df.user[0], 'user'] = 'Ann'
    df.to_csv(tmp/'text.csv', index=False)
    answer(said, 'train', tmp/'text.csv', '--out', tmp/'text', '--fit', 'als')
    held_out = RecDataLoaders.from_df(df, seed=42).valid_ds.frame()[0].query("user!='Ann'")
    held_out.to_csv(tmp/'numbers.csv', index=False)
    assert pd.read_csv(tmp/'numbers.csv').user.dtype.kind=='i'
    assert rmse_of(said, tmp/'text', tmp/'numbers.csv')==pytest.approx(load_recommender(tmp/'text').evaluate(held_out).rmse['model'])
    user = held_out.user.iloc[0]
    assert answer(said, 'recommend', tmp/'text', user)[0]['user']==user
    known = RecDataLoaders.from_df(ratings, seed=42).valid_ds.frame()[0]
    pd.concat([known, pd.DataFrame(dict(user=['Bob'], title=ratings.title[:1], rating=3.))]).to_csv(tmp/'more.csv', index=False)
    assert 'trained on numbers' in refused(said, 'evaluate', films, tmp/'more.csv')

# ------------------------------------------------------------------ wrong and hostile input
@pytest.fixture(scope='module')
def film_with_hostile_labels(tmp):
    rng = np.random.default_rng(0)
    taste = rng.normal(size=(60,1))@rng.normal(size=(1,len(hostile)))
    user,item = (rng.random(taste.shape)<.7).nonzero()
    df = pd.DataFrame(dict(user=np.array([f'u\x1b]0;{k}\x07' for k in range(60)])[user], title=np.array(hostile)[item], rating=(3+taste[user,item]).clip(1, 5)))
    df.to_parquet(tmp/'hostile.parquet')
    assert main(['train',str(tmp/'hostile.parquet'),'--out',str(tmp/'hostile'),'--fit','als','--ratings'])==0
    return tmp/'hostile'

def is_safe(text): return all(c.isprintable() or c=='\n' for c in text)

def test_no_label_commands_the_terminal(said, film_with_hostile_labels):
    folder,user = film_with_hostile_labels,'u\x1b]0;3\x07'
    for title in hostile:
        code,out,err = said('similar', folder, '--n', 30, '--', title)
        assert code==0 and is_safe(out+err) and out.count('\n')==len(hostile), (title,out,err)
        for more in ([], ['--json']):
            code,out,err = said('explain', folder, '--n', 99, *more, '--', user, title)
            assert code==0 and is_safe(out+err)
    assert {o['title'] for o in answer(said, 'similar', folder, '愛', '--n', 30)}=={*hostile}-{'愛'}
    for code,args in ((0, ['recommend',folder,user]), (0, ['info',folder]), (1, ['recommend',folder,'\x1b[31m']), (1, ['info','\x1b[31m']),
                      (2, ['\x1b[31m']), (2, ['similar',folder,'x','\x1b[31m'])):
        found,out,err = said(*args)
        assert found==code and is_safe(out+err), args

@pytest.mark.parametrize('text', ['','user,title,rating\n','user,title,rating\n1,a,3\n','\x00\x01','just a line','{"a": 1}','user,title\n1,a\n2,b\n'], ids=repr)
def test_no_ratings(said, tmp, text):
    (tmp/'bad.csv').write_text(text, encoding='utf-8')
    refused(said, 'train', tmp/'bad.csv', '--out', tmp/'none')
    assert not (tmp/'none').exists()

def test_gaps_and_what_is_no_number(said, ratings, tmp):
    for cell,part in (('','--dropna'), ('nan','must be numbers'), ('inf','finite'), ('=1+1','must be numbers')):
        df = ratings.astype(dict(rating=object))
        df.loc[7,'rating'] = cell
        df.to_csv(tmp/'odd.csv', index=False)
        assert part in refused(said, 'train', tmp/'odd.csv', '--out', tmp/'none')
    df.assign(rating=ratings.rating.mask(ratings.index==7)).to_csv(tmp/'odd.csv', index=False)
    assert said('train', tmp/'odd.csv', '--out', tmp/'gaps', '--fit', 'bias', '--dropna')[0]==0

def test_columns_and_encodings(said, ratings, tmp):
    df = ratings.set_axis(['who','what','how'], axis=1).assign(what='é'+ratings.title)[['how','what','who']]
    df.to_csv(tmp/'latin.tsv', sep='\t', index=False, encoding='latin-1')
    args = 'train',tmp/'latin.tsv','--out',tmp/'latin','--fit','bias','--user','who','--item','what','--rating','how'
    assert '--encoding latin-1' in refused(said, *args)
    assert 'klingon' in refused(said, *args, '--encoding', 'klingon')
    assert answer(said, *args, '--encoding', 'latin-1')['fit']=='fit_bias'
    assert "labels of 'what': é" in answer(said, 'info', tmp/'latin')['labels'][1]
    assert "no column 'whom'" in refused(said, *args[:6], '--user', 'whom', '--encoding', 'latin-1')

@pytest.mark.parametrize('sep,numbers', [('\t',['1,750','250']), (';',['12.500','250']), (',',['1,750','250'])])
def test_marks_in_numbers_may_be_said(said, ratings, tmp, sep, numbers):
    mark = next(o for o in numbers[0] if not o.isdigit())
    df = ratings.assign(rating=np.resize(numbers, len(ratings)))
    df.to_csv(tmp/'marks.csv', sep=sep, index=False)
    args = 'train',tmp/'marks.csv','--out',tmp/'marks','--fit','bias'
    told = refused(said, *args)
    other = '.' if mark==',' else ','
    assert f"pass --decimal '{other}'" in told and f"--decimal '{mark}'" in told and not re.search(_python, told), told
    for decimal,top in ((other,float(numbers[0].replace(mark, ''))), (mark,max(250., float(numbers[0].replace(mark, '.'))))):
        assert said(*args, '--decimal', decimal)[0]==0 and load_recommender(tmp/'marks').rating_range[1]==top
        assert said('evaluate', tmp/'marks', tmp/'marks.csv', '--decimal', decimal)[0]==0
    refused(said, *args, '--decimal', 'x', code=2)

@pytest.mark.parametrize('name', ['unwritten.csv','unwritten.parquet'])
def test_only_what_fails_in_writing_is_told_to_be_unwritable(tmp, monkeypatch, name):
    "Not a file that what is to be written needs; and nothing is left behind"
    from fastrec.answer import tables
    df = pd.DataFrame(dict(item=['a'], score=[1.]))
    with pytest.raises(FileNotFoundError) as e, tables.table_writer(tmp/name) as write:
        write(df)
        open(tmp/'nowhere'/'features.csv', encoding='utf-8')
    assert 'features.csv' in str(e.value) and 'cannot be written' not in str(e.value)
    def full(*args, **kwargs): raise OSError(28, 'full')
    monkeypatch.setattr(pd.DataFrame, 'to_csv', full)
    monkeypatch.setattr('pyarrow.parquet.ParquetWriter', full)
    with pytest.raises(OSError, match=f'{name} cannot be written: no space'), tables.table_writer(tmp/name) as write: write(df)
    assert not [*tmp.glob(f'{name}*')]

def test_places_that_cannot_be_written(said, file, tmp):
    (tmp/'thesis').mkdir()
    (tmp/'thesis'/'chapter.txt').write_text('once', encoding='utf-8')
    for out in (tmp/'thesis', file, file/'below'):
        started = time.perf_counter()
        refused(said, 'train', file, '--out', out, '--fit', 'one_cycle', '--epochs', 10_000)
        assert time.perf_counter()-started<30  # before training
    assert (tmp/'thesis'/'chapter.txt').read_text(encoding='utf-8')=='once'

def test_a_folder_is_kept_where_nothing_can_be_measured(said, tmp):
    df = pd.DataFrame(dict(user=[k%9 for k in range(300)], title=[f'f{k%7}' for k in range(300)], rating=[k%5+1 for k in range(300)]))
    df.to_csv(tmp/'repeats.csv', index=False)
    code,out,err = said('train', tmp/'repeats.csv', '--out', tmp/'repeats', '--fit', 'bias', '--json')
    assert code==0 and json.loads(out)['measured']==[] and 'nothing was measured' in err and said('info', tmp/'repeats')[0]==0

def test_folders_that_are_none(said, films, tmp):
    (tmp/'empty').mkdir()
    half = shutil.copytree(films, tmp/'half')
    next(half.glob('model-*')).unlink()
    bent = shutil.copytree(films, tmp/'bent')
    model = next(bent.glob('model-*'))
    model.write_bytes(model.read_bytes()[:-1]+b'\0')
    other = shutil.copytree(films, tmp/'other')
    m = json.loads((other/'manifest.json').read_text(encoding='utf-8'))
    (other/'manifest.json').write_text(json.dumps({**m, 'version': 9}), encoding='utf-8')
    for folder,part in ((tmp/'empty','no manifest.json'), (tmp/'nowhere','no manifest.json'), (half,'has no file model-'), (bent,'damaged'), (other,'version 9'),
                        (tmp/'ratings.csv','no manifest.json')):
        for args in (['info'], ['recommend','1'], ['similar','a'], ['explain','1','a'], ['serve','--port','0']):
            assert part in refused(said, args[0], folder, *args[1:])

def test_unknown_labels_are_told_with_what_is_near(said, films, rec, ratings):
    film,user = ratings.title[0],ratings.user[0]
    assert f'closest: {film!r}' in refused(said, 'similar', films, film[:-1])
    assert f'closest: {film!r}' in refused(said, 'explain', films, user, film[1:])
    assert f'closest: {film!r}' in refused(said, 'similar', films, f' {film.upper()}')
    for bad in ('nobody', '1.0', f'0{user}', f'+{user}', '1_0', '', ' ', '9'*400, '９'):
        assert "labels of 'user'" in refused(said, 'recommend', films, bad)
    assert 'what users have rated is not known' in refused(said, 'explain', rec.save_recommender(films.parent/'bare'), user, film)

_kinds_of_labels = dict(text=lambda k: f'Film {k}, "The"', int64=lambda k: int(k)-3, uint64=lambda k: 2**63+int(k), float=lambda k: [7.5e-05,.1,1e15,-3.25,1/3][k] if k<5 else k+.5,
    truth=lambda k: bool(k%2), date=lambda k: pd.Timestamp('2020-01-01 00:00:00.000001')+pd.Timedelta(int(k), 'us'),
    zone=lambda k: pd.Timestamp('2020-10-25', tz='Europe/Berlin')+pd.Timedelta(int(k), 'h'))

def _items_in(o):
    "All labels of items in the JSON `o`, as they are typed"
    if isinstance(o, list): return {x for v in o for x in _items_in(v)}
    if not isinstance(o, dict): return set()
    own = {v if isinstance(v, str) else json.dumps(v) for k,v in o.items() if k in ('title','item') and v is not None}
    return own.union(*map(_items_in, o.values()))

@pytest.mark.parametrize('kind', _kinds_of_labels)
def test_labels_that_are_told_are_what_the_next_command_takes(said, ratings, tmp, kind):
    "In JSON and in tables, and they mean the same"
    from fastrec.command.answers import as_label
    codes = pd.factorize(ratings.title)[0]
    df = ratings.assign(title=codes)[codes<24]
    df = df.assign(title=pd.Series([_kinds_of_labels[kind](k) for k in df.title], df.index)).drop_duplicates('user' if kind=='truth' else ['user','title'])
    learn = learner(RecDataLoaders.from_df(df, seed=1, valid_pct=0))
    with quietly(): learn.fit_als()
    folder,vocab,users = learn.save_recommender(tmp/f'kind-{kind}', ratings=True),learn.dls.classes['title'],df.user.unique()[:9].tolist()
    def ask(*args): return _items_in(json.loads(said(*args)[1]))
    told = ask('recommend', folder, *users, '--why', 2, '--json') | ask('recommend', folder, *users, '--json')
    for o in [*told][:3]:
        told |= ask('similar', folder, '--n', 30, '--json', '--', o)
        told |= ask('explain', folder, '--json', '--', users[0], o)
    assert len(told)==len(vocab.labels) and {int(vocab.find([as_label(vocab, o)])[0]) for o in told}=={*range(1, len(vocab))}
    lines = said('recommend', folder, *users)[1].splitlines()[1:]
    assert all(any(f' {o} ' in line for o in vocab.labels.tolist()) for line in lines), lines[:3]

def test_what_cannot_be_written_is_named_without_numbers_of_errors(said, films, ratings, tmp, monkeypatch):
    user = ratings.user[0]
    if os.path.isdir('/proc/self'): assert re.fullmatch('fastrec: /proc/x.parquet cannot be written: [a-z ]+', refused(said, 'recommend', films, user, '--out', '/proc/x.parquet'))
    import errno,pyarrow.parquet
    class Full(pyarrow.parquet.ParquetWriter):
        def write_table(self, *args): raise OSError(errno.ENOSPC, 'Error writing bytes to file. Detail: [errno 28] No space left on device')
        close = write_table
    monkeypatch.setattr(pyarrow.parquet, 'ParquetWriter', Full)
    for args in (['recommend',films,user], ['similar',films,ratings.title[0]]):
        line = refused(said, *args, '--out', tmp/'full.parquet')
        assert line==f'fastrec: {tmp}/full.parquet cannot be written: no space left on device' and not [*tmp.glob('full.parquet*')]

def test_nothing_is_written_into_the_folder_of_a_recommender(said, films, file, ratings, tmp):
    "In which train could save no more"
    before = {*films.iterdir()}
    for args in (['recommend',films], ['similar',films,ratings.title[0]], ['explain',films,ratings.user[0],ratings.title[0]], ['evaluate',films,file]):
        for out in (films/'x.parquet', films/'..'/films.name/'x.parquet'): assert 'choose another place' in refused(said, *args, '--out', out, code=2)
    assert {*films.iterdir()}==before

def test_files_that_are_too_small_to_hold_rows_out(said, ratings, tmp):
    for n,args,part in ((1,[],'none of the 1 rows is held out: pass a larger --valid, or --valid 0'), (2,[],'--valid 0'), (2,['--valid',.9],None)):
        ratings.head(n).to_csv(tmp/'small.csv', index=False)
        line = refused(said, 'train', tmp/'small.csv', '--out', tmp/'none', *args) if part else said('train', tmp/'small.csv', '--out', tmp/'none', *args)[2]
        assert (part is None or part in line) and 'splitter' not in line and not re.search(_python, line), line

def test_labels_that_begin_with_a_dash_are_told_how_to_type(said, films, ratings):
    how = 'options come before --, and labels that begin with - after it'
    for args in (['recommend',films,'-x'], ['similar',films,'-x'], ['explain',films,ratings.user[0],'-x'], ['explain',films,'-x','--',ratings.title[0]]): assert how in refused(said, *args, code=2), args
    for args in (['recommend',films,'1','--nothing'], ['similar',films], ['recommend']): assert how not in refused(said, *args, code=2), args
    assert "'-x' is not among" in refused(said, 'recommend', films, '--', '-x')

@pytest.mark.skipif(os.name!='posix', reason='arguments are bytes on POSIX alone')
def test_a_label_that_is_no_text_is_named_in_words(said, films):
    for args in (['recommend',films,'a\udcff'], ['similar',films,'a\udcff']):
        line = refused(said, *args)
        assert 'it is not UTF-8' in line and 'codec' not in line and 'surrogate' not in line

def test_wrong_use(said, films, file, tmp):
    user = load_recommender(films).ds.classes['user'].labels[0]
    for args in (['recommend'], ['recommend',films], ['recommend',films,user,'--n','x'], ['recommend',films,user,'--out','lists.xlsx'], ['train',file],
                 ['recommend',films,user,'--json','--out','l.parquet'], ['train',file,'--out',tmp/'none','--fit','magic'], ['info',films,'more'],
                 ['similar',films,'a','--out','x'], ['evaluate',films]): refused(said, *args, code=2)
    assert 'closest: recommend' in refused(said, 'recomend', code=2)
    for args in (['--n',0], ['--n',-1], ['--diversity','nan'], ['--damping','inf'], ['--diversity',1], ['--why',-1], ['--out',tmp/'no'/'l.parquet']): refused(said, 'recommend', films, user, *args)
    for args in (['--valid','nan'], ['--valid',1], ['--fit','one_cycle','--epochs',-1], ['--fit','choose','--seconds',-1], ['--seed',2**70]):
        refused(said, 'train', file, '--out', tmp/'none', *args)

def test_what_a_function_warns_of_is_a_line(said, ratings, tmp):
    twice = ratings[['title','user','rating']].set_axis(['title','user','rating'], axis=1)
    pd.concat([twice, twice[:2000]]).to_csv(tmp/'twice.csv', index=False)
    code,out,err = said('train', tmp/'twice.csv', '--out', tmp/'twice', '--fit', 'bias', '--json')
    assert code==0 and json.loads(out) and re.search(r'^fastrec: .*repeat a pair', err, re.M) and 'UserWarning' not in err

def test_an_error_without_a_word_is_named(said, monkeypatch):
    for error,words in ((MemoryError,'there is not enough memory'), (AssertionError,'something went wrong; --debug shows where')):
        def broken(folder:str): raise error
        monkeypatch.setattr(program, 'function_of', lambda name: broken)
        assert refused(said, 'info', 'x')==f'fastrec: {words}'
        with pytest.raises(error): main(['info','x','--debug'])

# ------------------------------------------------------------------ a service
def test_serve(films):
    "Answers from the folder, and stops when it is told to"
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        port = s.getsockname()[1]
    service = subprocess.Popen([sys.executable,'-m','fastrec','serve',str(films),'--port',str(port),'--quiet'], cwd=root, stderr=subprocess.PIPE, text=True)
    try:
        for _ in range(300):
            try: found = json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}/version', timeout=5))
            except OSError:
                assert service.poll() is None, service.stderr.read()
                time.sleep(.1)
            else: break
        assert found['checksum']==load_recommender(films).manifest['checksum']
        service.send_signal(signal.SIGTERM)
        assert service.wait(20) in (0,-signal.SIGTERM)  # uvicorn hands the signal on once it has stopped
    finally: service.kill()

def test_serve_refuses(said, films, tmp):
    "What is no folder, also beside one, and a port in use"
    refused(said, 'serve', tmp/'nowhere')
    assert 'no manifest.json' in refused(said, 'serve', films, '--port', 0, '--beside', tmp/'nowhere')
    with socket.create_server(('127.0.0.1',0)) as taken:
        port = taken.getsockname()[1]
        told = refused(said, 'serve', films, '--port', port)
        assert f'port {port} of host' in told and 'choose another --port' in told and 'Errno' not in told and told.count(str(port))==1, told

def test_serve_tells_who_may_ask(films, monkeypatch):
    asked = []
    monkeypatch.setattr('fastrec.serve.run', lambda *args, **kwargs: asked.append(kwargs))
    assert main(['serve',str(films),'--hosts','a.example','b.example','--origins','https://c.example'])==0
    assert asked[0]['hosts']==('a.example','b.example') and asked[0]['origins']==('https://c.example',)

def test_what_the_demo_tells_to_type_can_be_typed(capsys):
    "A folder and a user with spaces are one argument each"
    import shlex
    from fastrec.command.demo import _tell_commands
    _tell_commands('my films; x', "Ann O'Hara")
    lines = [shlex.split(o) for o in capsys.readouterr().out.splitlines() if o.startswith('    ')]
    assert lines[0][-5:]==['recommend','my films; x',"Ann O'Hara",'--why','2'] and lines[2][-3:]==['serve','my films; x','--quiet']

def test_phrases_of_python_are_those_of_messages():
    "What is said otherwise on the command line is said somewhere, and apostrophes are no quotes"
    from fastrec.command.options import _phrases,as_options
    sources = ' '.join(f.read_text(encoding='utf-8') for f in (root/'fastrec').rglob('*.py') if f.stem!='options')
    joined = re.sub(r"'\n\s*f?'", '', sources).replace("\\'", "'")
    assert not [o for o in _phrases if o.split('(..., ')[-1].rstrip(')') not in joined]
    text = "it doesn't fit: pass dropna=True, or 'user_name', since it isn't known"
    assert as_options(text, {'dropna': '--dropna', 'user': '--user'})=="it doesn't fit: pass --dropna, or 'user_name', since it isn't known"

def test_a_command_whose_parts_are_not_installed_says_so(monkeypatch, capsys):
    monkeypatch.setitem(commands, 'info', ('fastrec.command.not_there', ''))
    assert main(['info', 'x'])==1 and "No module named 'fastrec.command.not_there'" in capsys.readouterr().err

# ------------------------------------------------------------------ files as they come, and no Python in what is said of them
_python = r'\bdf\b[.\[]|\bpd\.|\bnp\.|\.astype|\.str\.|from_csv|from_df|from_parquet|\w_name\b|\w=True|\w=False|\bfit_[a-z]+|exclude_seen|min_count'

def _odd_files(r):
    "Frames by what is odd about them, and what is said of it"
    n = len(r)
    counts = np.random.default_rng(0).geometric(.05, n)
    tail = np.exp(np.random.default_rng(0).normal(2, 2, n)).round()+1
    return dict(two=(r[['user','title']],'pass --choices'), when=(r[['user','title']].assign(timestamp=1_600_000_000),'pass --choices'),
        raw=(r[['user','title']].assign(count=counts),'a column with their logarithm to the file, pass --choices'), tail=(r.assign(rating=tail),'write their logarithm into the file; for lists pass --choices'),
        none=(r.assign(rating=r.rating.where(r.index%3>0, -1)),'leave these rows out of the file'), same=(r.assign(rating=3),'for choices pass --choices'),
        index=(r.set_axis(range(n)).drop(columns='user').reset_index(names='Unnamed: 0'),'leave it out of the file, or name the right column with --user'),
        marks=(r.assign(title=r.title.where(r.index%9>0, 'NULL')),'leave these fields of the file empty'),
        case=(r.assign(title=r.title.where(r.index%9>0, r.title.str.upper())),'unite them in the file'),
        repeats=(pd.concat([r, r.assign(rating=6-r.rating)]),'leave one of each in the file'),
        table=(pd.crosstab(r.user, r.title).reset_index().iloc[:,:20],'a row for each rating is needed'),
        words=(r.assign(rating=r.rating.astype(str).where(r.index%50>0, 'five')),'convert it in the file'),
        comma=(r.assign(rating=r.rating.map(lambda o: f'{o:.1f}'.replace('.', ','))).replace({'rating': {'3,0': 'three'}}),'convert it in the file'),
        narrow=(r.assign(rating=1e-12*r.rating),'by dividing by 1e-12'), zeros=(r.assign(rating=counts%3),'leave them out of the file'))

@pytest.mark.long
def test_what_is_said_of_a_file_is_no_python(said, ratings, tmp):
    for name,(df,part) in _odd_files(ratings).items():
        df.to_csv(tmp/f'{name}.csv', index=False)
        fit = 'ials' if name in ('raw','tail','zeros') else 'als'
        code,out,err = said('train', tmp/f'{name}.csv', '--out', tmp/f'{name}-out', '--fit', fit)
        assert part in err and not re.search(_python, err), (name,err)

def _unreadable(file, tmp):
    "Files that cannot be read, and what is said of each"
    data = file.read_bytes()
    packed = gzip.compress(data)
    table = tmp/'whole.parquet'
    pd.read_csv(file).to_parquet(table)
    wanted = {'cut.csv.gz': (packed[:500],'cut short'), 'plain.csv.gz': (data,'not packed as its name says'), 'odd.csv.bz2': (packed,'cannot be unpacked'),
              'odd.csv.xz': (packed,'cannot be unpacked'), 'odd.zip': (data,'cannot be unpacked'), 'cut.parquet': (table.read_bytes()[:300],'not complete Parquet'),
              'sheet.xlsx': (b'PK\x03\x04','save it as CSV'), 'nothing.csv': (b'','is empty'), 'latin.csv': (data+'7,Amélie,4\n'.encode('latin-1'),'--encoding latin-1'),
              'cut16.csv': (data.decode().encode('utf-16')[:1001],'is not utf-16')}
    for name,(held,words) in wanted.items():
        (tmp/name).write_bytes(held)
        yield tmp/name,words
    for name in ('empty-folder','folder'): (tmp/name).mkdir()
    shutil.copy(file, tmp/'folder')
    yield from ((tmp/'empty-folder','is an empty folder'), (tmp/'folder','name one of its files'), (tmp/'none.csv','there is no file'))

def test_what_cannot_be_read_is_named(said, films, file, tmp_path):
    is_python = re.compile(r"Errno|Error\b|codec|\bdtype|\bNone\b|b'|magic|Input format|stream|argparse|\bint\b")
    for odd,words in _unreadable(file, tmp_path):
        for args in (('train',odd,'--out',tmp_path/'out'), ('train',file,'--items',odd,'--out',tmp_path/'out'), ('evaluate',films,odd)):
            line = refused(said, *args)
            assert str(odd) in line and words in line and not is_python.search(line), line
    for args in (('train',file,'--out',file), ('train',file,'--out','/proc/none'), ('train',file,'--encoding','utf-99','--out',tmp_path/'out'),
                 ('recommend',films,'1','--out','/none/x.parquet')):
        line = refused(said, *args)
        assert not is_python.search(line) and 'path=' not in line, line
    assert '--n: needs a whole number, not' in refused(said, 'recommend', films, '1', '--n', 'x', code=2)

def test_weights_without_ratings_are_of_choices(said, ratings, tmp):
    "As clicks are meant; what else is a column of ratings by name or place is one still"
    n = np.random.default_rng(0).geometric(.3, len(ratings))
    clicks = ratings[['user','title']].assign(count=n)
    learn = learner(RecDataLoaders.from_df(clicks.assign(rating=1), weight_name='count', seed=42))
    with quietly(): learn.fit_ials()
    want = learn.evaluate().ndcg_at_10['model']
    for name,write in (('c.csv',lambda df,f: df.to_csv(f, index=False)), ('c.parquet',lambda df,f: df.to_parquet(f))):
        write(clicks, tmp/name)
        code,out,err = said('train', tmp/name, '--out', tmp/'weighed', '--fit', 'ials', '--weight', 'count', '--json')
        assert code==0 and err.strip()=="fastrec: no column holds ratings: each row is taken as a choice, and 'count' as how much it counts"
        assert {o['measure']: o for o in json.loads(out)['measured']}['ndcg_at_10']['model']==pytest.approx(want, abs=1e-4)
    held = learn.dls.valid_ds.frame()[0]
    held[['user','title']].to_csv(tmp/'held.csv', index=False)
    assert {o['measure']: o for o in answer(said, 'evaluate', tmp/'weighed', tmp/'held.csv')}['ndcg_at_10']['model']==pytest.approx(want, abs=1e-4)
    ratings.assign(count=n).to_csv(tmp/'both.csv', index=False)
    assert answer(said, 'train', tmp/'both.csv', '--out', tmp/'both', '--fit', 'als', '--weight', 'count')['fit']=='fit_als'
    assert answer(said, 'info', tmp/'both')['rating_range'][0]<1.1 and load_recommender(tmp/'both').ds.weight_name=='count'

def test_choices_are_asked_for(said, ratings, file, tmp):
    ratings[['user','title']].to_csv(tmp/'pairs.csv', index=False)
    res = answer(said, 'train', tmp/'pairs.csv', '--out', tmp/'pairs', '--fit', 'ials', '--choices')
    assert answer(said, 'train', file, '--out', tmp/'ones', '--fit', 'ials', '--choices')['measured']==res['measured']
    assert 'leave out one of them' in refused(said, 'train', file, '--out', tmp/'none', '--choices', '--rating', 'rating', code=2)

def test_files_of_users_and_items_are_kept_with_the_folder(said, tmp):
    "What Python gives with the same frames, ids that are text there and whole numbers here, and an item that nobody has rated"
    ratings,truth = sample_ratings(n_users=150, n_items=80, n_ratings=4000, seed=1, with_truth=True)
    sides = {k: o.reset_index() for k,o in truth.sides().items()}
    new = sides['items'].iloc[[0]].assign(title='Not Yet Shown (2027)')
    sides['items'] = pd.concat([sides['items'], new], ignore_index=True)
    ratings = ratings[['user','title','rating']]
    ratings.to_csv(tmp/'told.csv', index=False)
    for k,o in sides.items():
        o.to_csv(tmp/f'{k}.csv', index=False)
        o.to_parquet(tmp/f'{k}.parquet')
    learn = learner(RecDataLoaders.from_df(ratings, **sides, seed=42))
    with quietly(): learn.fit_als()
    want = learn.evaluate().rmse['model']
    for end in ('csv','parquet'):
        args = ['train', tmp/'told.csv', '--out', tmp/'told', '--fit', 'als', '--ratings', *[p for k in sides for p in (f'--{k}', tmp/f'{k}.{end}')]]
        code,out,err = said(*args, '--json')
        assert code==0 and not re.search(_python, err), err  # that one item without ratings may be on lists
        assert {o['measure']: o for o in json.loads(out)['measured']}['rmse']['model']==pytest.approx(want, abs=1e-4)
    rec = load_recommender(tmp/'told')
    assert 'Not Yet Shown (2027)' in rec.ds.classes['title'].labels and all(o is not None for o in rec.ds.features)
    user = ratings.user[0]
    assert 'Not Yet Shown (2027)' in {o['title'] for o in answer(said, 'recommend', tmp/'told', user, '--n', 80)}
    why,want = answer(said, 'explain', tmp/'told', user, 'Not Yet Shown (2027)', '--by-features', '--n', 1),learn.explain_features(user, 'Not Yet Shown (2027)')
    assert [o.get('feature') for o in why['rows']]==[None,want.feature[1],None] and why['rows'][-1]['part']==f'{len(want)-2} others'
    assert sum(o['contribution'] for o in why['rows'])==pytest.approx(want.attrs['prediction'], abs=1e-3)
    assert 'was rated in training' in refused(said, 'explain', tmp/'told', user, ratings.title[0], '--by-features')
    assert "items has no column 'title'" in refused(said, 'train', tmp/'told.csv', '--out', tmp/'x', '--items', tmp/'users.csv')
    as_text = ratings.assign(user=ratings.user.astype(str).replace(str(user), 'Ann'))
    as_text.to_csv(tmp/'ann.csv', index=False)
    sides['users'][sides['users'].user!=user].to_csv(tmp/'numbers.csv', index=False)
    code,out,err = said('train', tmp/'ann.csv', '--out', tmp/'ann', '--fit', 'als', '--users', tmp/'numbers.csv')
    assert code==0 and "users has no row for 1 of 150 labels of 'user', 'Ann' for one" in err

@pytest.mark.long
def test_what_is_said_of_features_is_no_python(said, ratings, file, tmp):
    "Lists written as text, vectors, and labels of another kind than the ratings have"
    items = pd.DataFrame(dict(title=ratings.title.unique()))
    n = len(items)
    vectors = items.assign(emb=[[.1,.2]]*n, year=range(n))
    for name,df,part in (('tags.csv',items.assign(tags=['a,b','b,c']*(n//2)),'write | between what they hold'), ('emb.parquet',vectors,'make a column for each number'),
                         ('ids.csv',pd.DataFrame(dict(title=range(n), year=range(n))),"no 'title' of the frame of features"), ('late.csv',items.assign(year='x'),'is the same for all'),
                         ('sorted.parquet',items.rename(columns=dict(title='film')).sample(frac=1, random_state=0),"if 'film' holds the labels, rename it in the file"),
                         ('saved.csv',items.reset_index(names='Unnamed: 0'),'numbers the rows, as a saved index does: leave it out of the file'),
                         ('others.csv',items.assign(director_id=np.arange(n)%5),'write a letter before each to make them values, or leave the column out'),
                         ('ages.csv',items.assign(age=[*map(str, np.resize(np.arange(18, 30), n-1)),'NA']),'leave such fields of the file empty'),
                         ('days.csv',items.assign(day=[f'2020-01-{k%30+1:02}' for k in range(n)]),'write them as plain numbers, such as years, if amounts are meant'),
                         ('gaps.csv',items.assign(city=np.resize(['Rome','Oslo','\\N'], n)),'leave such fields of the file empty'),
                         ('same.csv',items.assign(city=np.resize(['Rome','rome','Oslo'], n)),'are kept apart: unite them in the file')):
        if name.endswith('csv'): df.to_csv(tmp/name, index=False)
        else: df.to_parquet(tmp/name)
        err = said('train', file, '--out', tmp/'sides', '--fit', 'als', '--items', tmp/name)[2]
        assert part in err and not re.search(_python, err), (name,err)

def test_what_is_sold_out_may_come_from_a_table_with_gaps(said, ratings, tmp):
    df = pd.DataFrame(dict(user=ratings.user, film=100+pd.factorize(ratings.title)[0], rating=ratings.rating))
    learn = learner(RecDataLoaders.from_df(df, item_name='film', valid_pct=0, seed=1))
    with quietly(): learn.fit_als(2)
    learn.save_recommender(tmp/'numbered')
    user = str(df.user.iloc[0])
    first = answer(said, 'recommend', tmp/'numbered', user, '--n', '2')
    pd.DataFrame(dict(film=[float(o['film']) for o in first]+[None])).to_csv(tmp/'sold.csv', index=False)  # 82.0 and an empty field
    left = answer(said, 'recommend', tmp/'numbered', user, '--n', '2', '--also-exclude', tmp/'sold.csv')
    assert not {o['film'] for o in first} & {o['film'] for o in left}

# ------------------------------------------------------------------ files from elsewhere
@pytest.fixture(scope='module')
def log(ratings):
    days = pd.Timestamp('2024-01-01')+pd.to_timedelta(np.arange(len(ratings))%90, 'D')
    return pd.DataFrame({'fecha': days.strftime('%Y-%m-%d'), 'id cliente': 'K'+ratings.user.astype(str), 'película': ratings.title, 'evento': 'ver'})

def test_the_dates_of_a_log_are_no_users(said, log, tmp):
    "A model of days was trained and saved"
    log.to_csv(tmp/'log.csv', index=False)
    args = 'train',tmp/'log.csv','--out',tmp/'log-out','--choices','--fit','ials'
    line = refused(said, *args)
    assert "'fecha', which is in their place, holds times, '2024-01-01' for one: name the columns with --user, --item, out of id cliente, película, evento" in line
    assert not (tmp/'log-out').exists()
    code,out,err = said(*args, '--user', 'id cliente', '--item', 'película')
    assert code==0 and 'taken for' not in err and load_recommender(tmp/'log-out').ds.user_name=='id cliente'
    log.drop(columns='fecha').to_csv(tmp/'log.csv', index=False)
    code,out,err = said(*args)
    assert code==0 and "taken for users: 'id cliente', items: 'película'; if that is wrong, name them with --user, --item" in err and 'ratings:' not in err

def test_marks_of_missing_values_are_options(said, ratings, tmp):
    "The message quoted 3,5, and no option helped"
    df = ratings.assign(rating=ratings.rating.add(.5).astype(str).str.replace('.', ','))
    df.loc[df.index%50==0,'rating'] = 'k. A.'
    df.loc[df.index%50==1,'rating'] = '?'
    df.to_csv(tmp/'marks2.csv', index=False, sep=';')
    args = 'train',tmp/'marks2.csv','--out',tmp/'marks2','--fit','als'
    line = refused(said, *args)
    assert "text in 160 of 4,000 rows, 'k. A.' for one" in line and "--na-values 'k. A.' --na-values '?'" in line and not re.search(_python, line), line
    marks = '--na-values','k. A.','--na-values','?'
    line = refused(said, *args, *marks)
    assert "160 of 4000 rows have no 'rating'" in line and '--dropna' in line
    code,out,err = said(*args, *marks, '--dropna')
    assert code==0 and load_recommender(tmp/'marks2').rating_range==(1.5,5.5), err
    df[df.rating.str.contains(',')].to_csv(tmp/'marks3.csv', index=False, sep=';')
    assert said('evaluate', tmp/'marks2', tmp/'marks3.csv', *marks)[0]==0
    df.to_parquet(tmp/'marks2.parquet')
    assert '--na-values is for text' in refused(said, 'train', tmp/'marks2.parquet', '--out', tmp/'marks4', *marks, code=2)

def test_rows_without_a_date_are_left_out_of_the_latest(said, log, ratings, tmp):
    df = log.drop(columns='evento').assign(rating=ratings.rating)
    df.loc[df.index%100==0,'fecha'] = None
    df.to_csv(tmp/'late.csv', index=False)
    args = 'train',tmp/'late.csv','--out',tmp/'late','--fit','als','--user','id cliente','--item','película','--latest','fecha'
    assert "40 rows have no 'fecha', which the splitter needs: leave these rows out with --dropna" in refused(said, *args)
    code,out,err = said(*args, '--dropna')
    assert code==0 and 'left out' in err, err

def test_lists_may_be_asked_to_find_what_is_rated_high(said, ratings, file, tmp):
    answer(said, 'train', file, '--out', tmp/'liked', '--min-rating', 4)
    learn = learner(RecDataLoaders.from_csv(file, seed=42))
    with learn.no_bar(),learn.no_logging(): learn.fit_blend(min_rating=4)
    assert load_recommender(tmp/'liked').model.ranker.weights.tolist()==pytest.approx(learn.model.ranker.weights.tolist())
    assert '--min-rating 4' in refused(said, 'train', file, '--out', tmp/'no', '--fit', 'als', '--min-rating', 4) and not (tmp/'no').exists()
