"""The service over a real socket: right answers, a swap under load, limits, who may ask, hostile questions, folders that are none, and what is written down"""
import asyncio,http.client,json,logging,os,re,shutil,signal,socket,subprocess,sys,threading,time,urllib.request
from contextlib import closing,suppress
from pathlib import Path
from urllib.parse import quote,urlencode
import pandas as pd,pytest,torch
from hypothesis import HealthCheck,given,settings,strategies as st
from conftest import seldom
from fastrec.all import BundleError,RecDataLoaders,dot_learner,load_recommender,sample_ratings
from fastrec.serve import Background,Limits,app,run
from fastrec.serve.counters import Counters
from fastrec.serve.page import page_files
from fastrec.serve.pool import Busy
from fastrec.serve.questions import FoldInQuestion
from fastrec.serve.service import _routes

secret = 'a-long-secret-of-mine'

def fitted(df, how='fit_als', n_sweep=None, **kwargs):
    learn = dot_learner(RecDataLoaders.from_df(df, seed=0, **kwargs), seed=0)
    with learn.no_bar(),learn.no_logging(): getattr(learn, how)(**({} if n_sweep is None else dict(n_sweep=n_sweep)))
    return learn

@pytest.fixture(scope='module')
def df(): return sample_ratings(n_users=60, n_items=40, n_ratings=900)

@pytest.fixture(scope='module')
def learn(df): return fitted(df)

@pytest.fixture(scope='module')
def folder(learn, tmp_path_factory): return learn.save_recommender(tmp_path_factory.mktemp('serve')/'films', ratings=True)

@pytest.fixture(scope='module')
def films(folder):
    with Background(app(folder, every=.05)) as res: yield Client(res.url)

class Client:
    "Asks the service at `url`; each answer is a status and what JSON it is"
    def __init__(self, url): self.host,self.port = url.removeprefix('http://').split(':')
    def connection(self): return closing(http.client.HTTPConnection(self.host, int(self.port), timeout=20))

    def raw(self, path, body=None, method=None, **headers):
        with self.connection() as c:
            headers = {k.replace('_', '-'): v for k,v in headers.items()}
            c.request(method or ('GET' if body is None else 'POST'), path, body, headers)
            res = c.getresponse()
            return res.status,res.read(),res.headers

    def get(self, path, **params):
        status,body,_ = self.raw(f'/{path}?{urlencode(params)}')
        return status,json.loads(body)

    def post(self, path, **question):
        status,body,_ = self.raw(f'/{path}', json.dumps(question), content_type='application/json')
        return status,json.loads(body)

    def send(self, *parts, wait=0, timeout=20):
        "All that comes back for the bytes `parts`, sent one after another; a connection that was cut may have lost it"
        res = b''
        with socket.create_connection((self.host,int(self.port)), timeout=timeout) as s,suppress(ConnectionResetError,BrokenPipeError):
            for o in parts:
                s.sendall(o)
                time.sleep(wait)
            while data := s.recv(2**16): res += data
        return res

def items(answer): return [o['item'] for o in answer['items']]

# ------------------------------------------------------------------ right answers
def test_lists_are_the_recommenders(films, learn, df):
    user = int(df.user[0])
    want = learn.recommend(user, n=5)
    for status,got in (films.get('recommend', user=user, n=5), films.post('recommend', user=user, n=5), films.post('recommend', user=user, n=5, exclude=['?'])):
        assert status==200 and got['by']=='user' and items(got)==want.title.tolist() and got['user']==user
        assert [o['score'] for o in got['items']]==pytest.approx(want.score.tolist(), abs=1e-5)
    users = df.user.unique()[:7].tolist()
    status,many = films.post('recommend/many', users=[*users, 'nobody'], n=3)
    for u,o in zip(users, many['lists']): assert items(o)==learn.recommend(u, n=3).title.tolist()
    assert many['lists'][-1]['by']=='popular'

def test_labels_of_the_folder_may_be_long_or_days(df, tmp_path):
    "A question is bounded, what the folder holds is not"
    days = pd.date_range('2021-01-01', periods=df.item.nunique())
    of_days = df.assign(title=days[df.item.rank(method='dense').astype(int)-1]).drop(columns='item')
    long = of_days.assign(title=of_days.title.astype(str).where(of_days.title!=days[3], 'y'*501))
    for k,o in enumerate((of_days,long)):
        folder = fitted(o).save_recommender(tmp_path/str(k), ratings=True)
        with Background(app(folder)) as res:
            films = Client(res.url)
            assert films.get('recommend', user='nobody', n=100)[0]==200
            rated = [dict(item='2021-01-06', rating=5), dict(item='2021-01-07', rating=1)]
            status,got = films.post('recommend', ratings=rated, why=2, n=20)
            assert status==200 and {r['item'][:10] for o in got['items'] for r in o['because']}=={'2021-01-06'}

def test_long_labels_are_rated_and_none_is_told_in_a_line(df, tmp_path):
    long = 'Ü'*4000
    learn = fitted(df.assign(title=df.title.astype(str).replace(df.title[0], long)))
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        films = Client(o.url)
        assert films.post('fold-in', ratings=[dict(item=long, rating=5.)])[1]['by']=='ratings'
        assert films.get('similar', item=long, n=1)[0]==200 and films.get('similar', item='y'*4000)[0]==404
        for bad in (None, ['a'], {}, 10**400):
            for path,more in (('fold-in',dict(ratings=[dict(item=bad, rating=5.)])), ('recommend',dict(exclude=[bad])), ('predict',dict(items=[bad]))):
                status,got = films.post(path, **more)
                assert status==422 and [o['msg'] for o in got['detail']]==['a label is text, a finite number, true or false'], (bad,path)
        assert films.get('search', q='x'*501)[0]==422

def test_a_label_of_brackets_is_unknown_and_spoils_nobodys_answer(df, tmp_path):
    "Python's JSON reads no thousand of them, and questions that come together were all answered by that error"
    ints = df.assign(title=pd.factorize(df.title)[0]+1).drop(columns='item')
    with Background(app(fitted(ints).save_recommender(tmp_path/'films', ratings=True))) as o:
        films = Client(o.url)
        odd,known = '['*3000,str(df.user[0])
        assert films.post('recommend', user=odd)[1]['by']=='popular' and films.get('similar', item='{"a":'*300)[0]==404
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(8) as pool: found = [*pool.map(lambda u: films.post('recommend', user=u), [odd,known]*20)]
        assert {(status,o['by']) for status,o in found}=={(200,'popular'),(200,'user')}

def test_an_error_of_one_is_not_that_of_those_who_ask_with_them():
    from fastrec.serve.lists import _apart
    def answer(asked):
        if 3 in asked: raise RuntimeError('three')
        return [ValueError(o) for o in asked],[]
    found = _apart(None, answer, [1,2,3,4])
    assert [str(o) for o in found]==['1','2','three','4'] and isinstance(found[2], RuntimeError)

def test_each_label_of_the_folder_is_taken_whatever_its_length(df, tmp_path):
    "By each route, as it is given out; the body of a question has its limit"
    long = 'y'*20_000
    learn = fitted(df.assign(title=df.title.astype(str).replace(df.title[0], long), user=df.user.astype(str).replace(str(df.user[0]), long)))
    with Background(app(learn.save_recommender(tmp_path/'films', ratings=True))) as o:
        films = Client(o.url)
        for path,q in (('recommend',dict(user=long)), ('similar',dict(item=long)), ('users',dict(item=long)), ('predict',dict(user=long, item=long)), ('explain',dict(user=long, item=long))):
            assert films.get(path, **q)[0]==200, path
        rated = [dict(item=long, rating=5.)]
        for path,q in (('recommend',dict(user=long, exclude=[long])), ('fold-in',dict(ratings=rated)), ('recommend/many',dict(users=[long])), ('explain',dict(user=long, item=long)),
                       ('predict',dict(ratings=rated, items=[long])), ('map',dict(ratings=rated, items=[long]))):
            status,got = films.post(path, **q)
            assert status==200 and not got.get('unknown'), (path,got)
        assert films.post('map', items=['x'*9000])[1]['unknown']==['x'*9000] and films.post('recommend', user='x'*2**18)[0]==413

def test_a_key_of_a_query_counts_once(films, df):
    "Neither value may silently win, as no key may that is not known"
    user = int(df.user[0])
    for path in (f'/recommend?user={user}&user={user+1}', f'/recommend?user={user}&n=3&n=5', f'/similar?item={quote(df.title[0])}&item=x', '/search?q=a&q=b'):
        status,body,_ = films.raw(path)
        key = path.rsplit('&', 1)[1].split('=')[0]
        assert status==422 and json.loads(body)['detail']==[dict(loc=['query',key], msg='this is given more than once')], path

def test_the_text_of_a_label_is_its_own_first_hit(df, tmp_path):
    "Dates have their digits in common, and so have texts their words"
    days = pd.Timestamp('2020-01-01')+pd.to_timedelta(25*pd.factorize(df.title)[0], 'h')
    words = pd.Series(["the film "*(k%5+1)+str(k//5) for k in pd.factorize(df.title)[0]])
    for k,labels in enumerate((days,words)):
        learn = fitted(df.assign(title=labels).drop(columns='item').drop_duplicates(['user','title']))
        with Background(app(learn.save_recommender(tmp_path/str(k)))) as o:
            for label in learn.dls.classes['title'].labels:
                got = Client(o.url).get('search', q=str(label), n=2)[1]['items']
                assert got[0]=={'item': str(label), 'similarity': 1.} and len({x['item'] for x in got})==len(got), label

def test_who_rates_an_item_twice_is_told_what_counts(films, learn, df):
    "As Python does, by each route that takes ratings"
    twice = [dict(item=df.title[0], rating=5.), dict(item=df.title[0], rating=1.), dict(item=df.title[1], rating=4.)]
    with pytest.warns(UserWarning, match='1 of 3 ratings differ from another of the same user and item: all of them count') as told:
        want = learn.fold_in(pd.DataFrame(twice).rename(columns=dict(item='title')))
    note, = (str(o.message) for o in told if o.category is UserWarning)
    for path,more in (('fold-in',{}), ('recommend',{}), ('recommend',dict(exclude=['?'])), ('predict',dict(items=[df.title[2]])), ('explain',dict(item=df.title[2])), ('map',{})):
        status,got = films.post(path, ratings=twice, **more)
        assert status==200 and got['notes']==[note], path
    assert items(films.post('fold-in', ratings=twice)[1])==want.recommend().title.tolist() and films.post('fold-in', ratings=twice[1:])[1]['notes']==[]

def test_who_is_folded_in_has_no_label(films, df):
    status,got = films.post('fold-in', user=int(df.user[0]), ratings=[dict(item=df.title[0], rating=5.)])
    assert status==422 and [o['msg'] for o in got['detail']]==['/fold-in is for people without a label: leave user out, or ask /recommend about a user of the folder']
    assert films.post('fold-in', user=None, ratings=[dict(item=df.title[0], rating=5.)])[0]==200

def test_a_rating_out_of_range_is_told_wherever_it_stands(films, df):
    for k in range(3):
        ratings = [dict(item=o, rating=9. if j==k else 4.) for j,o in enumerate(df.title.unique()[:3])]
        for path,more in (('fold-in',{}), ('predict',dict(items=[df.title[0]])), ('map',{})):
            status,got = films.post(path, ratings=ratings, **more)
            assert status==422 and 'a rating of 9 is outside the range of the model' in got['detail'], (k,path)

def test_what_is_popular_has_as_many_ratings_as_asked(films):
    counts = [o['count'] for o in films.post('recommend', user='nobody', n=40)[1]['items']]
    got = films.post('recommend', user='nobody', n=40, min_count=counts[5])[1]['items']
    assert [o['count'] for o in got]==[o for o in counts if o>=counts[5]]
    assert films.post('recommend', user='nobody', min_count=10**6)[1]['items']==[]

def test_predict_names_what_it_does_not_know(films, df):
    title = df.title.iloc[0]
    got = films.post('predict', user=int(df.user[0]), items=['Nowhere', title])[1]
    assert got['unknown']==['Nowhere'] and got['items'][0].get('prediction') is None and got['items'][1]['prediction']>0

def test_a_single_unknown_item_is_not_there_wherever_it_is_asked_for(films, df):
    "/predict answered 200, without a prediction"
    user,title = int(df.user[0]),df.title.iloc[0]
    typo = title[:3]+title[4:]
    for path,more in (('predict',dict(user=user)), ('predict',dict(user='nobody')), ('explain',dict(user=user)), ('similar',{}), ('users',{})):
        status,got = films.get(path, item=typo, **more)
        assert status==404 and repr(title) in got['detail'], path
    assert films.get('predict', user=user, item=title)[0]==200
    assert films.post('predict', user=user, items=[typo])[1]['unknown']==[typo]

def test_at_the_same_time_each_gets_their_own(films, learn, df):
    users = df.user.unique()[:24].tolist()
    got = {}
    def ask(u): got[u] = films.get('recommend', user=u, n=3)
    threads = [threading.Thread(target=ask, args=(u,)) for u in users]
    for o in threads: o.start()
    for o in threads: o.join()
    for u in users: assert got[u][0]==200 and items(got[u][1])==learn.recommend(u, n=3).title.tolist()

def test_newcomers_and_strangers(films, learn, df):
    rated = df[df.user==df.user[0]].drop_duplicates('title')[['title','rating']].head(10)
    mine = [dict(item=t, rating=float(r)) for t,r in rated.to_numpy().tolist()]
    want = learn.fold_in(rated)
    for path,more in (('fold-in',{}), ('recommend',{}), ('recommend',dict(user='somebody'))):
        status,got = films.post(path, ratings=mine, n=4, why=2, **more)
        assert status==200 and got['by']=='ratings' and items(got)==want.recommend(n=4).title.tolist()
        assert {o['item'] for line in got['items'] for o in line['because']}<={*rated.title}
    _,got = films.post('predict', ratings=mine, items=rated.title.tolist())
    assert [o['prediction'] for o in got['items']]==pytest.approx([want.predict(t) for t in rated.title], abs=1e-5)
    _,why = films.post('explain', ratings=mine, item=df.title[5])
    assert sum(o['contribution'] for o in why['parts'])==pytest.approx(want.predict(df.title[5]), abs=1e-4)
    train = learn.dls.train_ds.decode(learn.dls.train_ds.x)
    _,got = films.get('recommend', user='somebody', n=1)
    assert got['by']=='popular' and got['items'][0]['count']==train.title.value_counts().max()
    _,got = films.post('fold-in', ratings=[dict(item='No Such Film')])
    assert got['by']=='popular' and got['unknown']==['No Such Film']

def own_of(learn, user):
    "What `user` rated in training, as a frame for `fold_in`"
    ds = learn.dls.train_ds
    own = ds.decode(ds.x, ds.y)
    if ds.w is not None: own = own.assign(weight=ds.w.numpy()*ds.weight_unit)
    return own[own.user==user].drop(columns='user')

def sent_by(learn, user, n_new=4):
    "Ratings of `n_new` items that `user` has not seen, and of the first one that they have rated in training"
    new = learn.recommend(user, n=100).title.tolist()[:n_new]
    return pd.DataFrame(dict(title=[*new, own_of(learn, user).title.iloc[0]], rating=[5.,1.]*(n_new//2)+[2.]))

def as_sent(frame): return frame.rename(columns=dict(title='item')).to_dict('records')

@pytest.mark.parametrize('how', ['fit_als','fit_ials','fit_ease','fit_blend','fit_bayes','fit_sgd'])
def test_what_a_user_of_the_folder_sends_counts_with_what_they_rated(df, tmp_path, how):
    "As `fold_in` with both, by each route, with the last of two ratings of an item; lists leave out what they would and what was sent"
    learn = fitted(df, how, n_sweep=20 if how=='fit_bayes' else None)
    user = int(df.user[0])
    own,sent = own_of(learn, user),sent_by(learn, user)
    both = pd.concat([own[~own.title.isin(sent.title)] if not learn.model.is_preference else own, sent])
    want = learn.fold_in(both if not learn.model.is_preference else both.drop_duplicates('title'))
    gone = {*df.title[df.user==user],*sent.title}
    left = [x for x in want.recommend(n=100, exclude_seen=False).title if x not in gone]
    asked = dict(user=user, ratings=as_sent(sent))
    with Background(app(learn.save_recommender(tmp_path/'films', ratings=True))) as o:
        films = Client(o.url)
        for more in ({},dict(exclude=['?'])):
            status,got = films.post('recommend', **asked, n=100, **more)
            assert status==200 and [got['by'],got['user'],got['notes']]==['user and ratings',user,[]] and items(got)==left
        before = {x['item']: x['score'] for x in films.get('recommend', user=user, n=100)[1]['items']}
        assert max(abs(x['score']-before[x['item']]) for x in got['items'])>.01
        titles = df.title.unique()[:9].tolist()
        status,got = films.post('predict', **asked, items=titles)
        assert status==200 and got['by']=='user and ratings'
        assert [x['prediction'] for x in got['items']]==pytest.approx([want.predict(x) for x in titles], abs=1e-3)
        if how=='fit_sgd': return  # which found nothing here but biases, so there is no map
        status,got = films.post('map', **asked)
        assert status==200 and got['you']==films.post('map', ratings=as_sent(want.ds.frame()[0][['title','rating']]))[1]['you']
        status,got = films.post('explain', **asked, item=titles[0])
        assert status==200 and got['by']=='user and ratings' and got['prediction']==pytest.approx(want.predict(titles[0]), abs=1e-3)
        assert {x['item'] for x in got['parts'] if x['part']=='rated'}=={*both.title}

@pytest.mark.parametrize('how', ['fit_als','fit_ials'])
def test_what_a_user_sends_counts_by_its_weight(df, tmp_path, how):
    "Without one it counts as the average row, and a click on what they chose before changes nothing"
    learn = fitted(df.assign(weight=1+df.index%3), how, weight_name='weight')
    user = int(df.user[0])
    own,sent = own_of(learn, user),sent_by(learn, user)
    rest = own[~own.title.isin(sent.title)]
    average = sent.assign(weight=learn.dls.train_ds.weight_unit)
    if learn.model.is_preference: cases = (sent,[own,average[:-1]]),(sent[-1:],[own])
    else: cases = ((sent,[rest,average]),)
    weighed = sent.assign(weight=[3.,2.,1.,2.,9.])
    with Background(app(learn.save_recommender(tmp_path/'films', ratings=True))) as o:
        for asked,parts in (*cases,(weighed,[rest,weighed])):
            status,got = Client(o.url).post('predict', user=user, ratings=as_sent(asked), items=df.title[:5].tolist())
            want = learn.fold_in(pd.concat(parts))
            assert status==200 and got['by']=='user and ratings' and not got['notes']
            assert [x['prediction'] for x in got['items']]==pytest.approx([want.predict(x) for x in df.title[:5]], abs=1e-4)

def test_what_a_user_sends_counts_with_their_features(tmp_path):
    df,truth = sample_ratings(n_users=60, n_items=40, n_ratings=900, with_truth=True)
    users = truth.sides()['users']
    user,titles = int(df.user[0]),df.title[:5].tolist()
    for how in ('fit_als','fit_ials'):
        learn = fitted(df, how, users=users)
        sent = sent_by(learn, user)[:4]
        row = users.loc[[user]].rename(index={user: 'new user'}).rename_axis('user')
        want = learn.fold_in(pd.concat([own_of(learn, user), sent]), users=row)
        plain = learn.recommend(user, n=9).title.tolist()
        for kept in (True,False):
            with Background(app(learn.save_recommender(tmp_path/f'{how}{kept}', ratings=kept))) as o:
                films = Client(o.url)
                status,got = films.post('predict', user=user, ratings=as_sent(sent), items=titles)
                assert status==200 and got['by']==('user and ratings' if kept else 'user') and len(got['notes'])==1-kept
                if kept: assert [x['prediction'] for x in got['items']]==pytest.approx([want.predict(x) for x in titles], abs=1e-4)
                else: assert items(films.post('recommend', user=user, ratings=as_sent(sent), n=5)[1])==plain[4:9]

def test_a_folder_without_what_its_users_rated_says_that_what_is_sent_changes_no_taste(df, learn, tmp_path):
    "And how to save it; after a fit of choices it knows enough, unless it was saved with seen=False"
    user = int(df.user[0])
    sent = sent_by(learn, user)
    clicks = fitted(df, 'fit_ials')
    want = learn.recommend(user, n=9).title
    want = want[~want.isin(sent.title)].tolist()
    with Background(app(learn.save_recommender(tmp_path/'stars'))) as o:
        films = Client(o.url)
        for path,more in (('recommend',{}), ('recommend',dict(exclude=['?'])), ('predict',dict(items=['?'])), ('map',{})):
            status,got = films.post(path, user=user, ratings=as_sent(sent), **more)
            note, = got['notes']
            assert status==200 and got.get('by', 'user')=='user' and 'change nothing else' in note and 'ratings=True' in note, path
            if path=='recommend': assert items(got)[:len(want)]==want
        assert films.post('recommend', user=user, ratings=[dict(item='?', rating=5.)])[1]['notes']==[]
        for bad,why in ((dict(rating=9.),'outside the range'), ({},'needs a rating'), (dict(rating=4., weight=2.),'leave weight out')):
            status,got = films.post('recommend', user=user, ratings=[dict(item=df.title[0], **bad)])
            assert status==422 and why in got['detail']
    own = own_of(clicks, user)
    want = clicks.fold_in(pd.concat([own, sent[:4]]))
    for seen in (True,False):
        with Background(app(clicks.save_recommender(tmp_path/f'clicks{seen}', seen=seen))) as o:
            got = Client(o.url).post('predict', user=user, ratings=as_sent(sent), items=df.title[:5].tolist())[1]
            assert got['by']==('user and ratings' if seen else 'user') and len(got['notes'])==1-seen
            if seen: assert [x['prediction'] for x in got['items']]==pytest.approx([want.predict(x) for x in df.title[:5]], abs=1e-4)

def test_lists_leave_out_what_the_folder_says_for_who_sends_ratings_too(df, learn, tmp_path):
    "Of a folder saved with `unlisted`, and not what was seen"
    user = int(df.user[0])
    sent,gone = sent_by(learn, user)[:2],learn.recommend(user, n=9).title.iloc[-1]
    folder = learn.save_recommender(tmp_path/'films', ratings=True, unlisted=pd.DataFrame(dict(user=[user], title=[gone])))
    with Background(app(folder)) as o:
        got = items(Client(o.url).post('recommend', user=user, ratings=as_sent(sent), n=100)[1])
    assert {*got}=={*learn.dls.classes['title'].labels}-{gone,*sent.title}

def counted(films): return {k: int(n) for k,n in re.findall(r'fastrec_lists_total{by="([a-z ]+)".*} (\d+)', films.raw('/metrics')[1].decode())}

def test_lists_are_counted_by_what_they_are_based_on(folder, df):
    user,rated = int(df.user[0]),[dict(item=df.title[0], rating=5.)]
    with Background(app(folder, beside=folder)) as o:
        films = Client(o.url)
        assert counted(films)==dict.fromkeys(['user','user and ratings','ratings','features','popular'], 0)
        films.get('recommend', user=user)
        films.post('beside/recommend', user=user, exclude=['?'])
        films.post('recommend', user=user, ratings=rated)
        for path in ('recommend','fold-in'): films.post(path, ratings=rated)
        films.post('fold-in', ratings=[dict(item='?', rating=5.)])
        films.post('recommend/many', users=[user]*200+['nobody']*3)
        films.post('recommend', ratings=[dict(item=df.title[0], rating=9.)])
        films.post('predict', user=user, items=['?'])
        assert counted(films)=={'user': 202, 'user and ratings': 1, 'ratings': 2, 'features': 0, 'popular': 4}

def test_the_other_answers(films, learn, df, folder):
    user,title = int(df.user[0]),df.title[5]
    assert films.get('predict', user=user, item=title)[1]['items'][0]['prediction']==pytest.approx(learn.predict(user, title), abs=1e-5)
    assert items(films.get('similar', item=title, n=3)[1])==learn.similar(title, 3).title.tolist()
    assert [o['user'] for o in films.get('users', item=title, n=3)[1]['users']]==learn.recommend_users(title, 3).user.tolist()
    assert films.get('explain', user=user, item=title)[1]['prediction']==pytest.approx(learn.predict(user, title), abs=1e-5)
    typo = title[:3]+title[4:].upper()
    assert items(films.get('search', q=typo, n=1)[1])==[title]
    about = films.get('version')[1]
    assert about['checksum']==json.loads((folder/'manifest.json').read_text(encoding='utf-8'))['checksum'] and about['reasons']
    assert about['rating_step']==1 and 'folder' not in about
    assert films.get('health')==films.get('ready')==(200,{'status': 'ok'})
    text = films.raw('/metrics')[1].decode()
    assert 'fastrec_requests_total{route="/predict",status="200"' in text and 'le="+Inf"' in text
    paths = json.loads(films.raw('/openapi.json')[1])['paths']
    assert {*paths}=={f'/{o}' for o in 'recommend recommend/many fold-in predict explain similar users search map health ready version metrics'.split()}
    assert all(o['description'] for p in paths.values() for o in p.values())

def test_nobody_is_named_to_others(films, df):
    near = str(df.user[0])+'x'
    for path in ('explain','recommend'):
        _,got = films.get(path, user=near, item=df.title[0]) if path=='explain' else films.get(path, user=near)
        assert str(df.user[0]) not in json.dumps(got.get('detail', ''))

@pytest.mark.parametrize('labels', [lambda o: o.astype(str), lambda o: o+.5, lambda o: pd.Timestamp('2026-01-01')+pd.to_timedelta(o, 'D')],
                         ids=['text','fractions','dates'])
def test_labels_of_other_types(df, tmp_path, labels):
    learn = fitted(df.assign(user=labels(df.user)))
    user = learn.dls.classes['user'].labels[3]
    said = str(user) if not isinstance(user, float) else user
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        films = Client(o.url)
        for _,got in (films.get('recommend', user=said), films.post('recommend', user=said, exclude=['?'])):
            assert got['by']=='user' and items(got)==learn.recommend(user).title.tolist()
        user, = (o['user'] for o in films.get('users', item=df.title[0], n=1)[1]['users'])
        assert films.get('recommend', user=user)[1]['user']==user

def test_weights_count_or_are_refused(films, df, tmp_path):
    "Never are they ignored"
    mine = [dict(item=t, rating=r, weight=w) for t,r,w in zip(df.title.unique()[:3], (5.,1.,4.), (9.,.1,1.))]
    for path,more in (('fold-in',{}), ('recommend',{}), ('recommend',dict(exclude=['?'])), ('predict',dict(items=['?'])), ('map',{})):
        status,got = films.post(path, ratings=mine, **more)
        assert status==422 and 'leave weight out of the ratings' in got['detail'], path
    weighed = df.assign(weight=1+df.index%3)
    learn = fitted(weighed, weight_name='weight')
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        got = Client(o.url).post('fold-in', ratings=mine)[1]
    want = learn.fold_in(pd.DataFrame(mine).rename(columns=dict(item='title'))).recommend()
    assert [o['score'] for o in got['items']]==pytest.approx(want.score.tolist(), abs=1e-5)

def test_dislikes_of_who_clicks_are_noted(df, tmp_path):
    "As `fold_in` warns of them, by every route that takes ratings"
    learn = fitted(df, 'fit_ials')
    folder = learn.save_recommender(tmp_path/'films', ratings=True)
    titles = df.title.unique()[:3].tolist()
    with pytest.warns(UserWarning) as told: learn.fold_in(pd.DataFrame(dict(title=titles[:2], rating=[1.,0.])))
    note, = (str(o.message) for o in told if o.category is UserWarning)
    assert 'count as chosen like the others' in note
    with Background(app(folder, beside=folder)) as o:
        films = Client(o.url)
        for path in ('version','beside/version'):
            about = films.get(path)[1]
            assert about['folder']=='films' and str(tmp_path) not in json.dumps(about) and 'rating_step' not in about
        for path,more in (('fold-in',{}), ('recommend',{}), ('recommend',dict(exclude=['?'])), ('recommend',dict(user='nobody')), ('predict',dict(items=titles)),
                          ('explain',dict(item=titles[2])), ('map',{}), ('beside/recommend',{})):
            for last,notes in ((0.,[note]), (2.,[]), (None,[])):
                status,got = films.post(path, ratings=[dict(item=titles[0], rating=1.), dict(item=titles[1], rating=last)], **more)
                assert status==200 and got['notes']==notes, path

@pytest.mark.parametrize('how', ['fit_als','fit_ials','fit_bayes'])
def test_lists_of_many_are_those_of_each_up_to_rounding(df, tmp_path, how):
    "Scores may differ in their last bits, as products of several users are added up in another order; so only equals may change places"
    learn = fitted(df, how, n_sweep=20 if how=='fit_bayes' else None)
    users = learn.ds.classes['user'].labels.tolist()
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        films = Client(o.url)
        for knobs in (dict(),dict(damping=.4)):
            many = films.post('recommend/many', users=users, n=40, **knobs)[1]['lists']
            for user,got in zip(users, many, strict=True):
                want = films.get('recommend', user=user, n=40, **knobs)[1]
                of_item = {x['item']: x['score'] for x in want['items']}
                assert {*items(got)}=={*of_item} and [x['score'] for x in got['items']]==pytest.approx([*of_item.values()], abs=3e-6)
                assert [of_item[x] for x in items(got)]==pytest.approx([*of_item.values()], abs=3e-6)

def test_many_items_may_be_excluded(films, learn, df):
    user = int(df.user[0])
    gone = learn.recommend(user, n=7).title.tolist()
    want = learn.recommend(user, n=17).title.tolist()[7:]
    exclude = [*gone, *range(20_000-len(gone))]
    for path,q in (('recommend',dict(user=user)), ('recommend/many',dict(users=[user]))):
        status,got = films.post(path, exclude=exclude, **q)
        assert status==200 and items(got['lists'][0] if 'lists' in got else got)==want
    assert films.post('recommend', user=user, exclude=[*exclude, 'one more'])[0]==422

@pytest.mark.filterwarnings('ignore:.*the average stands in')
def test_a_stranger_is_predicted_the_average(df, tmp_path):
    learn = fitted(df, 'fit_bayes', n_sweep=20)
    titles = learn.ds.classes['title'].labels.tolist()
    want = learn.predict_df(pd.DataFrame(dict(user=-1, title=titles)), unknown='average', std=True)
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        films = Client(o.url)
        got = films.post('predict', user='nobody', items=titles)[1]
        assert got['by']=='average' and films.get('predict', user='nobody', item=titles[3])[1]['items']==[got['items'][3]]
        for name,column in dict(prediction='rating_pred', std='std').items(): assert [x[name] for x in got['items']]==pytest.approx(want[column].tolist(), abs=1e-4)
        you = films.post('map', ratings=[dict(item=titles[0], rating=5.), dict(item=titles[1], rating=1.)])[1]['you']
        assert you!=films.post('map')[1]['you']

def test_what_users_have_seen_may_be_unknown(df, learn, tmp_path):
    "Then lists have everything, and one note says so; who sends ratings is answered as ever"
    with Background(app(learn.save_recommender(tmp_path/'films', seen=False))) as o:
        films = Client(o.url)
        user,title = int(df.user[0]),df.title[0]
        want = learn.recommend(user, n=100, exclude_seen=False).title.tolist()
        assert df.title[0] in want and films.get('ready')[0]==200
        for status,got in (films.get('recommend', user=user, n=100), films.post('recommend', user=user, n=100), films.post('recommend', user=user, n=100, exclude=['?'])):
            assert status==200 and got['by']=='user' and items(got)==want
            assert len(got['notes'])==1 and 'seen=False' in got['notes'][0]
        assert items(films.post('recommend', user=user, n=100, ratings=[dict(item=title, rating=3.)])[1])==[x for x in want if x!=title]
        many = films.post('recommend/many', users=[user]*100, n=100)[1]
        assert len(many['notes'])==1 and items(many['lists'][99])==want
        fans = films.get('users', item=title, n=3)[1]
        assert [x['user'] for x in fans['users']]==learn.recommend_users(title, 3, exclude_seen=False).user.tolist() and len(fans['notes'])==1
        for path,q in (('recommend',dict(user='nobody')), ('recommend/many',dict(users=['nobody'])), ('fold-in',dict(ratings=[dict(item=title, rating=5.)]))):
            assert films.post(path, **q)[1]['notes']==[], path

def test_notes_go_to_whom_they_concern(df, tmp_path, recwarn):
    "Of newcomers who are answered together; none is told of on the terminal of the service"
    from fastrec.serve.holder import Holder
    from fastrec.serve.lists import newcomers_together
    from fastrec.serve.questions import ListQuestion,Wanted
    served = Holder(fitted(df, 'fit_ials').save_recommender(tmp_path/'films')).served
    ratings = [[dict(item=o, rating=r)] for o,r in zip([*df.title.unique()[:5],'Nowhere'], (1.,0.,None,1.,-3.,0.))]
    recwarn.clear()
    answers = newcomers_together(served, Wanted(), [ListQuestion(ratings=o).ratings for o in ratings])
    assert [len(o.notes) for o in answers]==[0,1,0,0,1,0] and not [o for o in recwarn if o.category is UserWarning] and answers[-1].by=='popular'
    want = served.rec.fold_in(pd.DataFrame(dict(title=[ratings[3][0]['item']]))).recommend()
    assert [o.item for o in answers[3].items]==want.title.tolist()

def test_ids_beyond_those_of_javascript_are_text(df, tmp_path):
    "Neighbours of 2**60 would be one and the same to a browser"
    far = df.assign(title=2**60+pd.factorize(df.title)[0], user=2**63+df.user.astype('uint64'))
    learn = fitted(far)
    user,item = far.user[0],far.title[0]
    with Background(app(learn.save_recommender(tmp_path/'films', ratings=True))) as o:
        films = Client(o.url)
        for who in (str(user),int(user)):
            got = films.post('recommend', user=who, why=1)[1]
            assert got['user']==str(user) and items(got)==learn.recommend(user).title.astype(str).tolist()
        alike = items(films.get('similar', item=item)[1])
        assert alike==learn.similar(item).title.astype(str).tolist() and items(films.get('search', q=str(item), n=1)[1])==[str(item)]
        got = films.post('fold-in', ratings=[dict(item=str(item), rating=5)], why=1)[1]
        want = learn.fold_in(pd.DataFrame(dict(title=[item], rating=[5.]))).recommend()
        assert items(got)==want.title.astype(str).tolist() and {r['item'] for o in got['items'] for r in o['because']}=={str(item)}

@pytest.mark.parametrize('how', ['fit_ials','fit_blend',*seldom('fit_bayes')])
def test_other_fits(df, tmp_path, how):
    learn = fitted(df, how)
    folder = learn.save_recommender(tmp_path/'films')
    user,title = int(df.user[0]),df.title[0]
    with Background(app(folder)) as o:
        films = Client(o.url)
        assert items(films.get('recommend', user=user, n=3)[1])==learn.recommend(user, n=3).title.tolist()
        status,clicks = films.post('fold-in', ratings=[dict(item=title)])
        if how=='fit_ials': assert status==200 and items(clicks)==learn.fold_in(pd.DataFrame(dict(title=[title]))).recommend().title.tolist()
        else: assert status==422 and 'each of the ratings needs a rating' in clicks['detail']
        status,safe = films.get('recommend', user=user, z=-1., std=True)
        if how!='fit_bayes': assert status==422 and 'fit_bayes' in safe['detail']
        else: assert items(safe)==learn.recommend(user, z=-1.).title.tolist() and all(o['std']>0 for o in safe['items'])
        if how=='fit_bayes':
            want = learn.recommend(user, draw=1)
            _,drawn = films.get('recommend', user=user, draw=1)
            assert [o['prediction'] for o in drawn['items']]==pytest.approx(want.rating_pred.tolist(), abs=1e-4) and drawn['items'][0]['std']>0
        status,why = films.get('explain', user=user, item=title)
        assert status==422 and 'ratings=True' in why['detail']  # which this folder does not hold

# ------------------------------------------------------------------ it stays up
def test_a_swap_under_load(df, tmp_path):
    "Each answer is whole, of the old model or of the new one; the new one may have other users"
    old,new = fitted(df),fitted(df[df.user.isin(df.user.unique()[:50])], 'fit_ials')
    folder = old.save_recommender(tmp_path/'films')
    user,stop,seen = int(df.user[0]),threading.Event(),[]
    with Background(app(folder, every=.05)) as o:
        films = Client(o.url)
        names = {films.get('version')[1]['model']: old}
        def ask():
            while not stop.is_set(): seen.append(films.get('recommend', user=user, n=5))
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for t in threads: t.start()
        for learn in (new,old,new):
            learn.save_recommender(folder)
            now = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
            names[now] = learn
            until = time.monotonic()+20
            while films.get('version')[1]['model']!=now: assert time.monotonic()<until
            time.sleep(.1)
        stop.set()
        for t in threads: t.join()
        text = films.raw('/metrics')[1].decode()
    assert 'fastrec_swaps_total' in text and len({a['model'] for _,a in seen})>=3
    want = {k: v.recommend(user, n=5).title.tolist() for k,v in names.items()}
    for status,a in seen: assert status==200 and items(a)==want[a['model']]

def test_who_is_gone_from_the_new_model_is_answered_on(df, tmp_path):
    "By their ratings, or by what is popular, however often the models change while they ask"
    old,new = fitted(df),fitted(df[df.user.isin(df.user.unique()[:20])], 'fit_ials')
    folder = old.save_recommender(tmp_path/'films', ratings=True)
    gone,titles,stop,seen = int(df.user[~df.user.isin(df.user.unique()[:20])].iloc[0]),df.title[:3].tolist(),threading.Event(),[]
    mine = [dict(item=titles[0], rating=4.)]
    ways = [('recommend',dict(user=gone),'popular'), ('recommend',dict(user=gone, ratings=mine),'ratings'), ('recommend',dict(user=gone, exclude=titles),'popular'),
            ('predict',dict(user=gone, items=titles),'average'), ('explain',dict(user=gone, item=titles[1], ratings=mine),'ratings'), ('map',dict(user=gone),None),
            ('recommend/many',dict(users=[gone]),'popular')]
    with Background(app(folder, every=.05)) as o:
        films = Client(o.url)
        def ask(part):
            while not stop.is_set():
                for path,q,by in part: seen.append((path,by,*films.post(path, **q)))
        threads = [threading.Thread(target=ask, args=(ways[k::3],)) for k in range(3)]
        for t in threads: t.start()
        names = {films.get('version')[1]['model']: old}
        for learn in (new,old,new):
            learn.save_recommender(folder, ratings=True)
            wait_for(films, folder)
            names[films.get('version')[1]['model']] = learn
            time.sleep(.2)
        stop.set()
        for t in threads: t.join()
    assert {a['model'] for *_,a in seen}=={*names}
    for path,by,status,a in seen:
        assert status==200, (path,a)
        if path=='recommend/many': a = {**a, **a['lists'][0]}
        if path!='map': assert a['by']==(by if names[a['model']] is new else 'user and ratings' if by=='ratings' else 'user'), path

def wait_for(films, folder):
    "Until the model in the `folder` serves, well before what could not be loaded is tried again unchanged"
    name = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
    until = time.monotonic()+15
    while films.get('version')[1]['model']!=name: assert time.monotonic()<until

def test_half_a_folder_changes_nothing(df, folder, tmp_path, caplog):
    own = shutil.copytree(folder, tmp_path/'films')
    with Background(app(own, every=.05)) as o:
        films = Client(o.url)
        before = films.get('version')
        text = (own/'manifest.json').read_text(encoding='utf-8')
        with caplog.at_level('ERROR', 'fastrec.serve'):
            (own/'manifest.json').write_text(text[:99], encoding='utf-8')
            until = time.monotonic()+20
            while not caplog.records: assert time.monotonic()<until
        assert films.get('version')==before and films.get('recommend', user=int(df.user[0]))[0]==200

def test_a_folder_that_is_gone_is_told_once(df, tmp_path, monkeypatch, caplog):
    "However often it is looked at, and again once something else is wrong; a model that comes is taken up"
    monkeypatch.setattr('fastrec.serve.holder._after_failure', .1)
    learn = fitted(df)
    folder = learn.save_recommender(tmp_path/'films')
    with caplog.at_level('ERROR', 'fastrec.serve'), Background(app(folder, every=.02)) as o:
        films = Client(o.url)
        shutil.rmtree(folder)
        time.sleep(1.5)
        assert len(caplog.records)==1 and films.get('recommend', user=int(df.user[0]))[0]==200
        folder.mkdir()
        (folder/'manifest.json').write_text('{', encoding='utf-8')
        until = time.monotonic()+20
        while len(caplog.records)<2: assert time.monotonic()<until
        time.sleep(.5)
        assert len(caplog.records)==2
        (folder/'manifest.json').unlink()
        wait_for(films, learn.save_recommender(folder, metrics=dict(n=1.)))

def test_a_full_place_for_copies_is_named(folder, tmp_path, monkeypatch):
    "And not the folder of the model, which is fine"
    import errno
    def full(src, dst): raise OSError(errno.ENOSPC, 'No space left on device', str(src), None, str(dst))
    monkeypatch.setattr(shutil, 'copyfile', full)
    monkeypatch.setattr('tempfile.tempdir', str(tmp_path))
    with pytest.raises(OSError, match=f'no room for a copy of .* in {tmp_path}: make some, or set TMPDIR') as e: app(folder)
    assert e.value.errno==errno.ENOSPC and e.value.filename is None

def test_what_was_looked_at_half_copied_is_taken_up_once_it_is_whole(df, tmp_path):
    "What cannot be loaded is tried again after half a minute, or as soon as it has changed"
    folder = fitted(df).save_recommender(tmp_path/'films')
    with Background(app(folder, every=.05)) as o:
        films = Client(o.url)
        manifest = folder/'manifest.json'
        manifest.write_text(manifest.read_text(encoding='utf-8')[:100], encoding='utf-8')
        time.sleep(1)  # so that it has been looked at
        new = fitted(df, 'fit_ials').save_recommender(folder)
        wait_for(films, new)

@pytest.mark.parametrize('where', ['load_recommender','give_back'])
def test_whatever_goes_wrong_with_a_new_model_the_next_is_taken_up(df, tmp_path, monkeypatch, caplog, where):
    "An error that nobody has foreseen is logged without its text, counted, and ends no watcher"
    from fastrec.serve import holder
    folder = fitted(df).save_recommender(tmp_path/'films')
    with caplog.at_level('ERROR', 'fastrec.serve'), Background(app(folder, every=.05)) as o:
        films,broken = Client(o.url),[]
        def breaks(*args, **kwargs):
            broken.append(args)
            raise KeyError('somebody')
        with monkeypatch.context() as m:
            m.setattr(holder, where, breaks)
            fitted(df, 'fit_ials').save_recommender(folder)
            until = time.monotonic()+15
            while not broken: assert time.monotonic()<until
            time.sleep(.2)
        wait_for(films, fitted(df, 'fit_ease').save_recommender(folder))
        assert 'fastrec_failed_swaps_total' in films.raw('/metrics')[1].decode() and len(broken)<3
    fields = [r.fields for r in caplog.records]
    assert {f['error'] for f in fields}=={'KeyError'} and 'somebody' not in str(fields)

def test_a_clock_that_jumps_stops_nothing(df, folder, tmp_path, monkeypatch):
    "Neither the new model is waited for nor those who are slow; what is logged has the time that the clock tells"
    own = shutil.copytree(folder, tmp_path/'films')
    with Background(app(own, every=.05, limits=Limits(reading=.5))) as o:
        films,real = Client(o.url),time.time
        for jump in (-10**9,10**9):
            monkeypatch.setattr(time, 'time', lambda: real()+jump)
            assert films.get('recommend', user=int(df.user[0]))[0]==200
            begun = time.monotonic()
            assert b' 408 ' in films.send(b'POST /fold-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n{"rat') and time.monotonic()-begun<10
            new = fitted(df, 'fit_ials' if jump<0 else 'fit_als').save_recommender(own)
            os.utime(new/'manifest.json', (10**9 if jump<0 else 3*10**9,)*2)
            wait_for(films, new)

def test_a_byte_a_second_is_cut_off(folder, df, monkeypatch):
    "Of headers and of a body, however steadily they come"
    monkeypatch.setattr('fastrec.serve.guard.Connection.between_looks', .6)
    with Background(app(folder, limits=Limits(reading=.5))) as o:
        films = Client(o.url)
        for text in (b'GET /health HTTP/1.1\r\nx: '+b'y'*99, b'POST /fold-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 90\r\n\r\n'+b'{'*90):
            head,slow = text[:-90],text[-90:]
            begun = time.monotonic()
            try: got = films.send(head, *(slow[k:k+1] for k in range(90)), wait=.1)
            except OSError: got = b''
            assert time.monotonic()-begun<8 and b' 200 ' not in got
        assert films.get('recommend', user=int(df.user[0]))[0]==200

def test_a_manifest_that_comes_before_its_files_is_taken_up_once_they_are_there(df, tmp_path):
    "As in a copy in the order of names"
    old,new = fitted(df),fitted(df, 'fit_ials')
    folder,another = old.save_recommender(tmp_path/'films'),new.save_recommender(tmp_path/'another')
    with Background(app(folder, every=.05)) as o:
        films = Client(o.url)
        shutil.copyfile(another/'manifest.json', folder/'manifest.json')
        time.sleep(1)  # so that it has been looked at
        for f in another.glob('*.safetensors'):
            shutil.copyfile(f, folder/f.name)
            time.sleep(.2)
        wait_for(films, another)

def test_a_folder_may_be_written_over_in_place(df, tmp_path):
    "By cp and its like, onto files that are in use, with zeros, with nothing, and with another model, while it answers"
    old,new = fitted(df),fitted(df, 'fit_ials')
    folder = old.save_recommender(tmp_path/'films', ratings=True)
    kept = shutil.copytree(folder, tmp_path/'kept')
    another = new.save_recommender(tmp_path/'another')
    users = df.user.unique()[:20].tolist()
    with Background(app(folder, every=.05)) as o:
        films = Client(o.url)
        want = {u: films.get('recommend', user=u, why=1)[1] for u in users[:10]}
        for how in (lambda f: bytes(f.stat().st_size), lambda f: b''):
            for f in folder.glob('*.safetensors'): f.write_bytes(how(f))
            for u in users[10:]: assert items(films.get('recommend', user=u)[1])==old.recommend(u).title.tolist()
            assert {u: films.get('recommend', user=u, why=1)[1] for u in want}==want
        shutil.copytree(kept, folder, dirs_exist_ok=True)  # the same again, in place
        assert films.get('version')[1]['model']==films.get('recommend', user=users[0])[1]['model']
        shutil.copytree(another, folder, dirs_exist_ok=True, copy_function=lambda a,b: None if a.endswith('.json') else shutil.copyfile(a, b))
        shutil.copyfile(another/'manifest.json', folder/'manifest.json')  # last, as the guide says
        wait_for(films, another)
        assert items(films.get('recommend', user=users[0])[1])==new.recommend(users[0]).title.tolist()

def test_no_folder_or_half_a_one_is_told_at_once(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match='is not a saved recommender'): app(tmp_path)
    half = shutil.copytree(folder, tmp_path/'half')
    next(half.glob('model-*')).unlink()
    with pytest.raises(BundleError, match='has no file'): app(half)
    other = shutil.copytree(folder, tmp_path/'other')
    told = json.loads((other/'manifest.json').read_text(encoding='utf-8'))
    (other/'manifest.json').write_text(json.dumps({**told, 'version': 9}), encoding='utf-8')
    for args in ((other,), (folder,None,(),(),Limits(),'cpu',1.,other)):
        with pytest.raises(BundleError, match='version 9'): app(*args)

def test_too_many_are_told_to_come_again(folder, df, monkeypatch):
    from fastrec.serve import lists
    monkeypatch.setattr('fastrec.serve.routes.similar_to', lambda *args: time.sleep(1))
    with Background(app(folder, limits=Limits(threads=1, waiting=1, seconds=.3))) as o:
        films = Client(o.url)
        got = []
        def ask(): got.append(films.raw(f'/similar?item={quote(df.title[0])}'))
        threads = [threading.Thread(target=ask) for _ in range(5)]
        for t in threads: t.start()
        for t in threads: t.join()
        assert {status for status,*_ in got}=={503} and all(h['retry-after']=='1' for *_,h in got)
        assert {json.loads(b)['detail'] for _,b,_ in got}=={'too many ask at once','that took too long'}
        until = time.monotonic()+10  # what was given up is worked off
        while films.get('recommend', user=int(df.user[0]))[0]!=200: assert time.monotonic()<until

def test_long_questions_hold_up_nobody(folder, df, monkeypatch):
    "They are made in parts, between which others are answered, and nothing goes on that nobody waits for"
    from fastrec.serve import lists
    made,n_users = lists.lines_by_user,[]
    def slowly(rec, users, *args):
        n_users.append(len(users))
        time.sleep(.03*len(users))
        return made(rec, users, *args)
    monkeypatch.setattr(lists, 'lines_by_user', slowly)
    users,got = df.user.unique().tolist(),[]
    with Background(app(folder, limits=Limits(threads=1, seconds=1))) as o:
        films = Client(o.url)
        long = [threading.Thread(target=lambda: got.append(films.post('recommend/many', users=users, n=100, why=5, diversity=.5))) for _ in range(2)]
        for t in long: t.start()
        asked = 0
        while any(t.is_alive() for t in long):
            assert films.get('recommend', user=users[0])[0]==200
            asked += 1
        n = len(n_users)
        assert films.get('recommend', user=users[0])[0]==200 and len(n_users)<=n+2
    assert [status for status,_ in got]==[503]*2 and asked>2
    assert max(n_users)<10

def test_parts_of_a_long_question_are_one_answer(films, learn, df):
    "In the order of the users, one twice; what nobody knows is named once"
    users = df.user.unique().tolist()
    users = [*users, 'nobody', users[0]]
    status,got = films.post('recommend/many', users=users, n=30, why=2, diversity=.3, exclude=['?'])
    assert status==200 and [o['user'] for o in got['lists']]==users and got['unknown']==['?']
    want = learn.recommend(users[-1], n=30, why=2, diversity=.3)
    assert items(got['lists'][-1])==items(got['lists'][0])==want.title.tolist() and got['lists'][-2]['by']=='popular'
    assert [o['because'][0]['item'] for o in got['lists'][0]['items']]==want.because_1.tolist()

def test_nobody_waits_for_machine_code(folder, monkeypatch):
    "Numba takes ten seconds for that, in which a process answers hardly anybody; one that has served goes on as before"
    from fastrec.base.compiled import can_compile,may_run
    from fastrec.serve import service
    def state(): return torch.get_num_threads(),may_run(torch.device('cpu'))
    seen,before = [],torch.get_num_threads()
    monkeypatch.setattr(service, '_listen', lambda *args: seen.append(state()))
    torch.set_num_threads(2)
    try:
        run(folder, port=0)
        assert seen==[(1,False)] and state()==(2,can_compile())
    finally: torch.set_num_threads(before)

def test_slow_clients_hold_up_nobody(folder, df, monkeypatch):
    monkeypatch.setattr('fastrec.serve.guard.Connection.between_looks', .5)
    with Background(app(folder, limits=Limits(reading=.3))) as o:
        films = Client(o.url)
        head = b'POST /fold-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: 50\r\n\r\n'
        begun,res = time.monotonic(),[]
        slow = [threading.Thread(target=lambda p: res.append(films.send(*p)), args=([o],)) for o in [head+b'{"rat']*20+[b'GET /he']*20+[b'']*20]
        for t in slow: t.start()
        assert films.get('recommend', user=int(df.user[0]))[0]==200
        for t in slow: t.join()
        assert time.monotonic()-begun<15
        assert sum(b' 408 ' in o for o in res)==20 and sum(not o for o in res)==40

def test_pipelined_requests_are_answered_in_order(films, df):
    users = df.user.unique()[:3].tolist()
    ask = [f'GET /recommend?user={u}&n=1 HTTP/1.1\r\nhost: localhost\r\n'.encode() for u in users]
    got = films.send(b'\r\n'.join(ask[:2])+b'\r\n'+ask[2]+b'connection: close\r\n\r\n').decode()
    assert [got.index(f'"user":{u},') for u in users]==sorted(got.index(f'"user":{u},') for u in users)

def test_the_container_takes_options():
    "Those behind the name of its image; and the command that it begins with is one"
    text = (Path(__file__).parents[1]/'tools/Dockerfile').read_text(encoding='utf-8')
    begin,more = (json.loads(re.search(rf'^{o} (.*)$', text, re.M)[1]) for o in ('ENTRYPOINT','CMD'))
    assert begin[:2]==['fastrec','serve'] and more==[]
    args = [*begin[2:], '--hosts', 'films.example.com', '--workers', '2']
    done = subprocess.run([sys.executable, '-m', 'fastrec', 'serve', *args], capture_output=True, text=True, timeout=110, env={**os.environ, 'FASTREC_TOKEN': secret})
    assert done.returncode and '/films is not a saved recommender' in done.stderr, done.stderr

def test_who_is_being_answered_is_answered_when_it_stops(folder, df, monkeypatch):
    from fastrec.serve.replies import similar_to
    def slowly(*args):
        time.sleep(.5)
        return similar_to(*args)
    monkeypatch.setattr('fastrec.serve.routes.similar_to', slowly)
    server,got = Background(app(folder)),[]
    films = Client(server.url)
    assert films.get('health')[0]==200
    asking = threading.Thread(target=lambda: got.append(films.get('similar', item=df.title[0])))
    asking.start()
    time.sleep(.2)
    server.stop()
    asking.join()
    assert got[0][0]==200
    with pytest.raises(OSError): films.get('health')

# ------------------------------------------------------------------ nobody gets in
def test_token_and_hosts(folder, tmp_path):
    file = tmp_path/'token'
    file.write_text(secret, encoding='utf-8')
    file.chmod(0o640)
    if os.name=='posix':
        with pytest.raises(ValueError, match='chmod 600'): app(folder, token=file)
    file.chmod(0o600)
    with Background(app(folder, token=file, hosts=('films.example.com',), origins=('https://pages.example.com',))) as o:
        films = Client(o.url)
        for shown in ({}, dict(authorization='Bearer '), dict(authorization=f'Bearer {secret}x'), dict(authorization=f'Basic {secret}')):
            for path in ('/version','/metrics','/recommend?user=1','/openapi.json','/nothing'): assert films.raw(path, **shown)[0]==401
        own = dict(authorization=f'Bearer {secret}')
        assert films.raw('/version', **own)[0]==200 and films.raw('/health')[0]==films.raw('/ready')[0]==200
        for host,status in (('films.example.com',200), ('LOCALHOST:99',200), ('[::1]',200), ('evil.example.com',400), ('127.0.0.1.evil.com',400), ('',400)):
            assert films.raw('/version', host=host, **own)[0]==status, host
            assert films.raw('/health', host=host)[0]==films.raw('/ready', host=host)[0]==200  # as what balances a load asks
        pages = films.raw('/version', origin='https://pages.example.com', **own)[2]
        assert pages['access-control-allow-origin']=='https://pages.example.com'
        assert films.raw('/version', origin='https://evil.example.com', **own)[2]['access-control-allow-origin'] is None

def test_who_comes_by_another_name_is_told_what_to_do(folder, caplog):
    "By the refusal, which does not repeat the name, by the log, and by what is said at the start"
    from fastrec.serve.addresses import welcome
    caplog.set_level(logging.INFO, 'fastrec.serve')
    with Background(app(folder, hosts=('films.example.com',))) as o:
        status,body,_ = Client(o.url).raw('/version', host='colleague.example.com')
        detail = json.loads(body)['detail']
    assert status==400 and '--hosts NAME' in detail and 'colleague' not in detail
    lines = [r.fields for r in caplog.records if r.message=='request']
    assert '--hosts' in lines[-1]['why'] and 'colleague' not in str(lines)
    told = welcome('0.0.0.0', 8000, ['localhost','films.example.com'])
    assert 'http://127.0.0.1:8000/' in told and 'localhost, films.example.com' in told and f'--hosts {socket.gethostname()}' in told
    assert '--hosts' not in welcome('127.0.0.1', 8000, ['localhost','127.0.0.1'])
    told = welcome('0.0.0.0', 8000, ['localhost','*'])
    assert 'answers to every name' in told and 'only' not in told

def test_a_name_that_is_none_is_refused_as_other_questions_are(films):
    "In JSON, also where two names come"
    for lines in (b'Host: evil.example.com', b'Host: localhost\r\nHost: evil.example.com', b'Host: localhost\r\nHost: localhost'):
        got = films.send(b'GET /version HTTP/1.1\r\n'+lines+b'\r\nConnection: close\r\n\r\n')
        head,body = got.split(b'\r\n\r\n')
        assert b' 400 ' in head and b'application/json' in head.lower() and 'Host header' in json.loads(body)['detail'], got

@pytest.mark.parametrize('how,match', [(dict(hosts=('a*b',)),"hosts='a.b' is not the name"), (dict(hosts=('films.example.com:8123',)),'pass the name alone, films.example.com$'),
    (dict(hosts=('http://a.b/',)),'pass the name alone, a.b$'), (dict(hosts=('',)),"hosts='' "), (dict(hosts=('fine.example','*.*.b')),'such as films.example.com'),
    (dict(origins=('https://example.com/',)),'pass https://example.com, with no path'), (dict(origins=('example.org',)),'pass https://example.org'),
    (dict(origins=('https://*.example.com',)),'such as https://example.com'), (dict(origins=('https://Example.com:443',)),'pass https://example.com, without the port that browsers leave out, in small letters$'),
    (dict(origins=('https://example.com:443',)),'pass https://example.com, without the port that browsers leave out$'), (dict(origins=('HTTPS://example.com',)),'pass https://example.com, in small letters$'),
    (dict(origins=('https://example.com:8443/films?a=1',)),'pass https://example.com:8443, with no path$'), (dict(origins=('example.com/',)),'pass https://example.com, with a scheme'),
    (dict(hosts=('münchen.de',)),'pass the name alone, xn--mnchen-3ya.de, as browsers send it$'), (dict(origins=('https://münchen.de',)),'pass https://xn--mnchen-3ya.de, as browsers send it$'),
    (dict(hosts=('straße.de',)),'such as films.example.com')])
def test_names_that_no_browser_sends_are_refused_at_the_start(folder, how, match):
    for serve in (app,run):
        with pytest.raises(ValueError, match=match.replace('*', '.')): serve(folder, **how)

def test_probes_are_asked_for_their_head(films):
    for path in ('/health','/ready'):
        status,body,headers = films.raw(path, method='HEAD')
        assert status==200 and body==b'' and headers['content-length']==str(len(films.raw(path)[1])), path
    assert {*films.get('openapi.json')[1]['paths']['/health']}=={'get'}

@pytest.mark.long
@pytest.mark.skipif(sys.platform!='linux', reason='workers are forked on Linux alone')
def test_workers_that_fail_again_and_again_end_their_parent():
    "And one that fails beside another that serves, or is killed, ends nothing"
    code = '''
import os,sys,time
from fastrec.serve import workers
workers._to_start = 1.5
workers._least_life = .1
def serve(place):
    if place==1 or sys.argv[1]=='both': os._exit(1)
    if sys.argv[1]=='killed': os.kill(os.getpid(), 9)
    time.sleep(60)
workers.Workers(2, serve, lambda: None).run()
'''
    for how,ends in (('both',True), ('one',False), ('killed',False)):
        if how=='killed': code = code.replace('place==1 or ', '')
        with subprocess.Popen([sys.executable, '-c', code, how], stderr=subprocess.PIPE, text=True) as main:
            try:
                if ends: assert 'workers end as soon as they have started' in main.communicate(timeout=60)[1] and main.returncode==1
                else:
                    with pytest.raises(subprocess.TimeoutExpired): main.wait(8)
            finally: main.terminate()
            main.communicate(timeout=30)

def test_a_worker_that_cannot_load_what_it_serves_tells_its_parent_not_to_go_on(folder, tmp_path, monkeypatch, caplog):
    "By uvicorn's exit code for that, where workers are not forked"
    from fastrec.serve.service import from_environment
    monkeypatch.setenv('FASTREC_SERVE', json.dumps(dict(folder=str(tmp_path))))
    monkeypatch.setattr('fastrec.serve.service.begin', lambda: None)  # which would change this process for good
    with caplog.at_level('ERROR', 'fastrec.serve'), pytest.raises(SystemExit) as e: from_environment()
    assert e.value.code==3 and 'no manifest.json' in caplog.records[-1].fields['why']

def test_a_worker_that_cannot_start_after_others_have_is_tried_again(folder, tmp_path, monkeypatch):
    "The first ones that fail end all; afterwards the cause, such as a folder that is being replaced, may pass"
    from fastrec.serve.service import from_environment
    def code(path):
        monkeypatch.setenv('FASTREC_SERVE', json.dumps(dict(folder=str(path), unstarted=str(mark))))
        with pytest.raises(SystemExit) as e: from_environment()
        return e.value.code
    monkeypatch.setattr('fastrec.serve.service.begin', lambda: None)
    mark = tmp_path/'mark'
    mark.touch()
    assert code(tmp_path)==3 and mark.exists()
    monkeypatch.setenv('FASTREC_SERVE', json.dumps(dict(folder=str(folder), unstarted=str(mark))))
    monkeypatch.setattr('fastrec.serve.service._ready', lambda app: app)
    for _ in range(2): assert from_environment()  # the file is gone for the second
    assert not mark.exists()
    begun = time.monotonic()
    assert code(tmp_path)==1 and time.monotonic()-begun>.9

@pytest.mark.long
def test_workers_that_are_not_forked_outlive_a_moment_without_a_manifest(learn, tmp_path):
    folder = learn.save_recommender(tmp_path/'films')
    code = ("from fastrec.serve import service\nservice.can_fork = lambda device: False\n"
            f"if __name__=='__main__': service.run({str(folder)!r}, port=0, workers=2)")
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as main:
        try:
            port = int(main.stdout.readline().split(':')[2].split('/')[0])
            pids = [other_worker(port, [], time.monotonic()+120, None)]
            pids.append(other_worker(port, pids, time.monotonic()+240, None))
            assert all(pids), 'two workers were to start'
            (folder/'manifest.json').rename(tmp_path/'manifest.json')
            os.kill(pids[0], signal.SIGKILL)
            while 'a worker cannot start' not in (line := main.stderr.readline()): assert line, 'the service has ended'
            (tmp_path/'manifest.json').rename(folder/'manifest.json')
            threading.Thread(target=main.stderr.read, daemon=True).start()
            assert other_worker(port, pids, time.monotonic()+120, None) and main.poll() is None
        finally: main.send_signal(signal.SIGTERM)
        main.wait(30)

@pytest.mark.parametrize('held,match', [(None,'there is no file'), ('тайна-тайна-тайна'.encode(),'16 characters of ASCII'),
                                        (secret.encode('utf-16'),'is not UTF-8'), (b'short','16 characters')], ids=['none','letters','utf-16','short'])
def test_a_token_that_cannot_be_names_its_file(folder, tmp_path, held, match):
    file = tmp_path/'token'
    if held is not None:
        file.write_bytes(held)
        file.chmod(0o600)
    with pytest.raises((OSError,ValueError), match=match) as e: run(folder, token=file)
    assert str(file) in str(e.value)

def test_the_token_of_the_environment(folder, monkeypatch):
    monkeypatch.setenv('FASTREC_TOKEN', secret)
    with Background(app(folder)) as o:
        assert Client(o.url).raw('/version')[0]==401 and Client(o.url).raw('/version', authorization=f'Bearer {secret}')[0]==200

def test_headers_of_every_answer(films):
    for path in ('/health','/nothing','/recommend','/openapi.json'):
        _,_,headers = films.raw(path)
        assert headers['x-content-type-options']=='nosniff' and "frame-ancestors 'none'" in headers['content-security-policy']
        assert headers['server'] is None and headers['access-control-allow-origin'] is None and headers['cache-control']=='no-store'
        assert not {'unsafe-inline','unsafe-eval'} & {*headers['content-security-policy'].replace(';', ' ').replace("'", ' ').split()}

def test_outside_of_this_machine_a_token_is_needed(folder, monkeypatch):
    monkeypatch.delenv('FASTREC_TOKEN', raising=False)
    for host in ('0.0.0.0','::','192.0.2.1','films.example.com'):
        with pytest.raises(ValueError, match='can be reached from elsewhere'): run(folder, host=host)
    with socket.create_server(('127.0.0.1',0)) as taken, pytest.raises(OSError, match='pass another port') as told: run(folder, port=taken.getsockname()[1])
    assert 'while attempting' not in str(told.value)
    with pytest.raises(ValueError, match='can be reached from elsewhere'): Background(app(folder), host='0.0.0.0')

@pytest.mark.parametrize('how,match', [(dict(workers=0),'workers=0 must be at least 1'), (dict(workers=-2),'workers=-2 must'), (dict(port=-1),'port=-1 must be at least 0'),
                                      (dict(port=70_000),'port=70000 must be at most 65535'), (dict(host='no.such.host.invalid'),'pass another port, or host')])
def test_what_is_no_address_or_number_of_workers(folder, tmp_path, monkeypatch, how, match):
    monkeypatch.setenv('FASTREC_TOKEN', secret)
    with pytest.raises((ValueError,OSError), match=match): run(folder, **how)

def test_other_hosts_of_this_machine(folder, monkeypatch):
    "With brackets where they need some; what stands for all addresses is told as one that can be gone to"
    monkeypatch.setenv('FASTREC_TOKEN', secret)
    for host,shown in (('::1','[::1]'), ('0.0.0.0','127.0.0.1'), ('localhost','localhost')):
        if host=='::1' and not socket.has_dualstack_ipv6(): continue
        with Background(app(folder), host=host) as o:
            assert o.url.startswith(f'http://{shown}:')
            asked = urllib.request.Request(o.url+'/version', headers=dict(authorization=f'Bearer {secret}'))
            assert json.load(urllib.request.urlopen(asked))['items']

# ------------------------------------------------------------------ hostile questions
bodies = [b'', b'{', b'null', b'[]', b'"', b'\xff\xfe', b'{"user": NaN}', b'{"ratings": [{"item": "a", "rating": Infinity}]}', b'['*100_000,
          b'{"user":'+b'9'*5000+b'}', b'{"user": "\\ud800"}', b'{"\\ud800": 1}', b'{"n": 1e400}', b'{"user": true, "n": "10"}', b'{"ratings": {}}',
          b'{"items": ["../../etc/passwd"], "folder": "/etc"}', b'{"user": {"$gt": 0}}', b'{"n": -1}', b'{"n": 1000000}', b'{"why": 99}', b'{"z": NaN}',
          b'{"ratings": [{"item": "\\ud800", "rating": 1}], "users": ["\\ud800"], "items": ["\\ud800"], "item": "\\ud800"}',
          json.dumps(dict(ratings=[dict(item='x', rating=1.)]*1001)).encode(), json.dumps(dict(items=['x']*1001)).encode()]

@pytest.mark.parametrize('body', bodies, ids=lambda b: repr(b[:40]))
def test_bodies_that_are_none(films, body):
    for path in ('recommend','recommend/many','fold-in','predict','explain'):
        status,answer,_ = films.raw(f'/{path}', body, content_type='application/json')
        json.loads(answer)
        assert status in (400,422), (path,status,answer[:200])

def test_bodies_that_are_too_long(films):
    n = 10**8
    head = f'POST /fold-in HTTP/1.1\r\nhost: localhost\r\ncontent-length: {n}\r\n\r\n'.encode()
    assert b' 413 ' in films.send(head)
    chunked = b'POST /fold-in HTTP/1.1\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n'
    piece = b'10000\r\n'+b'x'*2**16+b'\r\n'
    got = films.send(chunked, piece*4, piece)  # more than is read, so that the answer may be lost
    assert b' 413 ' in got or not got
    assert films.get('health')[0]==200
    for line in (b'content-length: -1', b'content-length: 1e9', b'content-length: 5\r\ncontent-length: 6', b'transfer-encoding: gzip'):
        assert b' 200 ' not in films.send(b'POST /fold-in HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n'+line+b'\r\n\r\nhello', timeout=30)

@pytest.mark.parametrize('sent', [b'\0'*999, b'GET\r\n\r\n', b'GET / HTTP/9.9\r\n\r\n', b'\x16\x03\x01\x02\x00', b'GET http://evil/ HTTP/1.1\r\nhost: evil\r\nconnection: close\r\n\r\n',
                                  b'GET /%00%2e%2e/ HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n'], ids=repr)
def test_what_is_no_request(films, sent):
    assert b' 200 ' not in films.send(sent)
    assert films.get('health')[0]==200

def test_headers_without_an_end(films):
    try: got = films.send(b'GET /health HTTP/1.1\r\n', *[b'x: '+b'y'*2000+b'\r\n']*200)
    except OSError: got = b''
    assert b' 200 ' not in got and films.get('health')[0]==200

labels = ['nul\0', 'עברית\u202e', '𝔘𝔫𝔦\U0001f3ac', '<script>alert(1)</script>', "' or 1=1 --", '../../etc/passwd', '{{7*7}}', '\u2028\r\nset-cookie: a=b']

def test_labels_are_text(df, tmp_path):
    "Whatever stands in a title comes back as it is, as JSON"
    odd = dict(zip(df.title.unique(), labels))
    learn = fitted(df.assign(title=df.title.map(lambda o: odd.get(o, o))))
    with Background(app(learn.save_recommender(tmp_path/'films'))) as o:
        films = Client(o.url)
        for title in labels:
            status,body,headers = films.raw('/similar?'+urlencode(dict(item=title)))
            assert status==200 and headers['content-type']=='application/json' and headers['set-cookie'] is None
            got = films.post('fold-in', ratings=[dict(item=title, rating=5.)], why=1)[1]
            assert {o['item'] for line in got['items'] for o in line['because']}<={title} and got['unknown']==[]
            assert title in items(films.post('predict', items=[title])[1])
            why = films.post('explain', ratings=[dict(item=title, rating=5.)], item=df.title.iloc[-1])[1]['parts']
            assert title in {o.get('item') for o in why}
            status,body,_ = films.raw('/similar?'+urlencode(dict(item=title+'?')))
            assert status==404 and json.loads(body)['detail'] and b'<script' not in body.replace(b'<script>alert(1)</script>', b'')

class Asked:
    "Questions as the OpenAPI document `spec` of a service has them: each value as `known` by its name, as its schema says, or none of these"
    junk = st.recursive(st.text(max_size=30) | st.sampled_from([*labels,'845','1e9','NaN','-0','true','null']) | st.integers(-2**70, 2**70) | st.floats() | st.booleans() | st.none(),
                        lambda o: st.lists(o, max_size=3) | st.dictionaries(st.text(max_size=9), o, max_size=3), max_leaves=4)
    each = dict(items='item', exclude='item', users='user')
    def __init__(self, spec, known):
        self.spec,self.known = spec,known
        self.routes = [(m.upper(),p,o) for p,ways in spec['paths'].items() for m,o in ways.items()]

    def value(self, draw, schema, name=None):
        if '$ref' in schema: schema = self.spec['components']['schemas'][schema['$ref'].split('/')[-1]]
        how = draw(st.integers(0, 24))
        if how==24: return draw(self.junk)
        if name in self.known and how<20 and schema.get('type')!='null': return draw(st.sampled_from(self.known[name]))
        if 'anyOf' in schema: return self.value(draw, draw(st.sampled_from(schema['anyOf'])))
        least,most = schema.get('minimum'),schema.get('maximum')
        kind = schema.get('type')
        if kind=='integer': return draw(st.integers(least, most))
        if kind=='number': return draw(st.floats(least, most, allow_nan=False, allow_infinity=False))
        if kind=='string': return draw(st.text(max_size=min(schema.get('maxLength', 50), 50)))
        if kind=='boolean': return draw(st.booleans())
        if kind=='array': return [self.value(draw, schema['items'], self.each.get(name)) for _ in range(draw(st.integers(schema.get('minItems', 0), 3)))]
        if kind=='object': return self.fields(draw, schema.get('properties', {}), schema.get('required', ()))
        assert kind in ('null',None), schema

    def fields(self, draw, properties, required):
        "Those that are `required`, and now and then without; the others now and then, and one that nobody knows hardly ever"
        res = {k: self.value(draw, o, k) for k,o in properties.items() if draw(st.integers(0, 24))<(24 if k in required or k=='ratings' else 7)}
        return res | ({draw(st.text(max_size=9)): draw(self.junk)} if draw(st.integers(0, 24))==24 else {})

    @st.composite
    @staticmethod
    def question(draw, self, prefixes):
        method,path,route = draw(st.sampled_from(self.routes))
        told = route.get('parameters', [])
        of_address = self.fields(draw, {o['name']: o['schema'] for o in told}, [o['name'] for o in told if o['required']])
        schema = route['requestBody']['content']['application/json']['schema'] if method=='POST' else None
        return method,draw(st.sampled_from(prefixes))+path,of_address,schema and self.value(draw, schema)

def fuzz(films, known, n):
    "No question is a fault of the service or takes long; what was answered, by route and status"
    seen,asked = set(),Asked(films.get('openapi.json')[1], known)
    @settings(max_examples=n, deadline=None, database=None, derandomize=True, suppress_health_check=[*HealthCheck])
    @given(Asked.question(asked, ['','/beside']))
    def check(question):
        method,path,params,body = question
        begun = time.monotonic()
        at = path+('?'+urlencode(params, errors='replace') if params else '')
        status,got,_ = films.raw(at, None if method=='GET' else json.dumps(body), content_type='application/json')
        assert status in (200,404,422), (question,status,got)
        assert time.monotonic()-begun<10
        if not path.endswith('metrics'): json.loads(got, parse_constant=lambda o: pytest.fail(f'{o} is no JSON'))
        seen.add((method,path,status))
    check()
    return seen,{(m,p+path) for m,path,_ in asked.routes for p in ('','/beside')}

@pytest.fixture(scope='module')
def all_sorts(folder, df, tmp_path_factory):
    "A service of a model that knows features, beside one that does not, and values that it knows, by name"
    users = sample_ratings(n_users=60, n_items=40, n_ratings=900, with_truth=True)[1].sides()['users']
    own = fitted(df, users=users).save_recommender(tmp_path_factory.mktemp('sorts')/'told', ratings=True)
    known = dict(user=df.user[:3].tolist(), item=df.title[:9].tolist(), n=[3], q=['the'], rating=[1.,4.], weight=[None], draw=[None], z=[0.], std=[False], why=[0,1],
                 features=[dict(age=70), dict(likes='dread', age=None)], by_features=[False], min_count=[0,1])
    with Background(app(own, beside=folder)) as o: yield Client(o.url),known

def test_random_questions(all_sorts):
    seen,routes = fuzz(*all_sorts, 200)
    assert len(routes)==32 and len(seen)>32

@pytest.mark.long
def test_ten_thousand_random_questions(all_sorts):
    seen,routes = fuzz(*all_sorts, 10_000)
    assert {(*o,200) for o in routes-{('GET','/beside/metrics')}}<=seen  # a process tells its metrics once

# ------------------------------------------------------------------ what is written down, what is loaded
def test_logs_name_nobody(folder, df, caplog, monkeypatch):
    def broken(*args): raise KeyError('a label of somebody')
    monkeypatch.setattr('fastrec.serve.routes.titles_like', broken)
    with caplog.at_level('INFO', 'fastrec.serve'), Background(app(folder)) as o:
        films = Client(o.url)
        films.get('recommend', user=845, n=3)
        films.raw('/a-path-of-somebody')
        assert films.get('search', q='a wish of somebody')==(500,{'detail': 'internal error'})
    lines = [o for o in caplog.records if o.name=='fastrec.serve']
    fields = [o.fields for o in lines]
    assert [o.get('route') for o in fields if 'route' in o]==['/recommend','none','/search']
    assert [o['error'] for o in fields if 'error' in o]==['KeyError']
    assert 'somebody' not in str(fields) and '845' not in str([{k: v for k,v in o.items() if k!='ms'} for o in fields])

@pytest.mark.parametrize('typed,title', [('🎬','🎬 Film'), ('🎬 film','🎬 Film'), ('$','$'), ('$9.99','$9.99'), ('…','…And Justice for All'), ('...and justice','…And Justice for All'),
                                         ('·','WALL·E'), ('wall-e','WALL·E'), ('❤','I ❤️ You'), ('c++','C++'), ('tm','™')])
def test_titles_are_found_by_their_signs(typed, title):
    from fastrec.serve.typed import Titles
    titles = ['Film','🎬 Film','$','$9.99','…And Justice for All','WALL·E','Wall','I ❤️ You','C','C++','™','Film (1999)']
    found = [titles[o] for o in Titles(titles).find(typed)[0]]
    assert title in found if typed=='…' else found[0]==title

def test_memory_of_old_models_comes_back(df, tmp_path):
    import weakref
    from fastrec.serve.holder import Holder
    learn = fitted(df)
    holder = Holder(learn.save_recommender(tmp_path/'films'))
    holder.served.titles.find('the')
    old = []
    for _ in range(3):
        old.append(weakref.ref(holder.served.rec))
        learn.save_recommender(tmp_path/'films')
        assert holder.refresh()
    assert [o() for o in old]==[None]*3 and holder.n_swaps==3

def other_worker(port, before, until, main=None):
    "The process that answers and is none of those `before`: of those that were forked by the process `main`, or, elsewhere than on Linux, that says so"
    while time.monotonic()<until:
        try: text = urllib.request.urlopen(f'http://127.0.0.1:{port}/metrics', timeout=5).read().decode()
        except OSError: time.sleep(.1)
        else:
            if main: pids = Path(f'/proc/{main.pid}/task/{main.pid}/children').read_text(encoding='ascii').split()
            else: pids = [text.split('process="')[1].split('"')[0]]
            for pid in map(int, pids):
                if pid not in before: return pid

def test_workers_of_one_folder(folder):
    """Of two processes two are killed, one after the other, and a third answers, which has been started anew; none of them loads fastai or
    PyTorch's compiler; SIGTERM ends all"""
    code = (f"import sys; from fastrec.serve import run\nif __name__=='__main__':\n try: run({str(folder)!r}, port=0, workers=2)\n"
            " finally: assert not {'fastai','torch._dynamo','IPython'} & {*sys.modules}")
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as main:
        try:
            port = int(main.stdout.readline().split(':')[2].split('/')[0])  # which it has chosen
            pids = []
            for _ in range(3):
                pids.append(other_worker(port, pids, time.monotonic()+120, main if sys.platform=='linux' else None))
                assert pids[-1], f'nobody answers after {pids}'
                if len(pids)<3: os.kill(pids[-1], signal.SIGKILL)
        finally: main.send_signal(signal.SIGTERM)
        _,err = main.communicate(timeout=30)
    assert 'AssertionError' not in err and main.returncode in (0,-signal.SIGTERM)
    lines = [json.loads(o) for o in err.splitlines() if o.startswith('{')]
    assert any(o['event']=='request' and o['route']=='/metrics' for o in lines)

@pytest.mark.skipif(sys.platform!='linux', reason='workers are forked on Linux alone')
def test_workers_go_on_with_a_new_model_and_end_with_their_parent(learn, df, tmp_path):
    "One that begins after a swap has the new model; those of a parent that is killed are gone soon"
    folder = learn.save_recommender(tmp_path/'films')
    code = f"from fastrec.serve import run\nif __name__=='__main__': run({str(folder)!r}, port=0, workers=2)"
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as main:
        try:
            port = int(main.stdout.readline().split(':')[2].split('/')[0])
            pids = [other_worker(port, [], time.monotonic()+60, main)]
            pids.append(other_worker(port, pids, time.monotonic()+60, main))
            fitted(df, 'fit_ials').save_recommender(folder)
            name = json.loads((folder/'manifest.json').read_text(encoding='utf-8'))['checksum'][:12]
            films = Client(f'http://127.0.0.1:{port}')
            until = time.monotonic()+20
            while sum(films.get('version')[1]['model']==name for _ in range(20))<20: assert time.monotonic()<until
            time.sleep(1.5)  # the parent looks each second too
            for o in pids: os.kill(o, signal.SIGKILL)
            assert all(films.get('version')[1]['model']==name for _ in range(20)) and other_worker(port, pids, time.monotonic()+20, main)
        finally: main.kill()
    until = time.monotonic()+20
    with pytest.raises(OSError):
        while time.monotonic()<until: films.get('health')

@pytest.mark.long
@pytest.mark.skipif(sys.platform!='linux', reason='workers are forked on Linux alone')
def test_who_watches_over_workers_tells_in_json_why_and_leaves_no_copy_behind(learn, tmp_path):
    folder,there = learn.save_recommender(tmp_path/'films'),tmp_path/'tmp'
    there.mkdir()
    code = f"from fastrec.serve import run\nif __name__=='__main__': run({str(folder)!r}, port=0, workers=2)"
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, 'TMPDIR': str(there)}) as main:
        main.stdout.readline()
        def workers(): return [int(o) for o in Path(f'/proc/{main.pid}/task/{main.pid}/children').read_text(encoding='utf-8').split()]
        until = time.monotonic()+60
        while len(workers())<2 and time.monotonic()<until: time.sleep(.05)
        os.kill(workers()[0], signal.SIGKILL)
        line = main.stderr.readline()
        told = json.loads(line)
        assert told['event']=='a worker has died' and told['exit']==-signal.SIGKILL and told['time'] and [*there.iterdir()]
        main.kill()
        while [*there.iterdir()] and time.monotonic()<until: time.sleep(.05)
        assert not [*there.iterdir()]

@pytest.mark.skipif(sys.platform!='linux', reason='workers are forked on Linux alone')
def test_workers_count_together_and_go_on_when_killed_while_models_change(learn, df, tmp_path):
    """Two workers are killed, one after the other, and the model changes, all while many ask: no wrong answer, and no sum that goes down or
    that forgets who was answered"""
    models = learn,fitted(df, 'fit_ials')
    folder,user = learn.save_recommender(tmp_path/'films'),int(df.user[0])
    want = {tuple(o.recommend(user, n=5).title) for o in models}
    code = f"from fastrec.serve import run\nif __name__=='__main__': run({str(folder)!r}, port=0, workers=2)"
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as main:
        try:
            films = Client(main.stdout.readline().split(' ')[-3].strip('/'))
            first = [other_worker(films.port, [], time.monotonic()+60, main)]
            stop,seen,totals,made = threading.Event(),[],[],[]
            def ask():
                while not stop.is_set():
                    try: seen.append(films.get('recommend', user=user, n=5))
                    except (OSError,http.client.HTTPException,ValueError): time.sleep(.02)  # who was being answered by one that is killed
            def total():
                text = films.raw('/metrics')[1].decode()
                assert 'process=' not in text and text.count('fastrec_waiting{worker=')==2
                n = int(re.search(r'requests_total{route="/recommend",status="200"} (\d+)', text)[1])
                made.append(counted(films)['user'])
                assert made[-1]>=n  # each was made before it was sent
                return n
            threads = [threading.Thread(target=ask) for _ in range(4)]
            for t in threads: t.start()
            until = time.monotonic()+30
            while not seen: assert time.monotonic()<until
            for k in range(4):
                models[k%2-1].save_recommender(folder)
                for _ in range(5):
                    totals.append(total())
                    time.sleep(.4)
                if k%2: os.kill(other_worker(films.port, first, time.monotonic()+60, main), signal.SIGKILL)
            wait_for(films, folder)
            stop.set()
            for t in threads: t.join()
            totals.append(total())
            swaps = re.search(r'fastrec_swaps_total{} (\d+)', films.raw('/metrics')[1].decode())[1]
        finally:
            stop.set()
            main.terminate()
    assert totals==sorted(totals) and totals[-1]>=len(seen) and made==sorted(made)
    assert {status for status,_ in seen}=={200} and {tuple(items(a)) for _,a in seen}==want and 1<=int(swaps)<=4

@pytest.mark.long
@pytest.mark.skipif(sys.platform!='linux', reason='workers are forked on Linux alone')
def test_workers_share_a_new_model_too(learn, df, tmp_path):
    "After a swap the files that two workers and their parent have mapped are the same, have no name a while later, and nothing is left"
    folder,temporary = learn.save_recommender(tmp_path/'films'),tmp_path/'temporary'
    temporary.mkdir()
    code = f"from fastrec.serve import run,shelf; shelf._to_map = 3.\nif __name__=='__main__': run({str(folder)!r}, port=0, workers=2)"
    def mapped(pid):
        lines = Path(f'/proc/{pid}/maps').read_text(encoding='utf-8').splitlines()
        return {o.split()[4] for o in lines if str(temporary) in o}
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env={**os.environ, 'TMPDIR': str(temporary)}) as main:
        try:
            port = int(main.stdout.readline().split(':')[2].split('/')[0])
            pids = [main.pid,other_worker(port, [], time.monotonic()+60, main)]
            pids.append(other_worker(port, pids, time.monotonic()+60, main))
            before = mapped(main.pid)
            assert before
            fitted(df, 'fit_ials').save_recommender(folder)
            until = time.monotonic()+30
            while any(not mapped(o) or mapped(o)==before for o in pids): assert time.monotonic()<until
            time.sleep(1)
            assert len({frozenset(mapped(o)) for o in pids})==1
            while [*temporary.glob('*/*')]: assert time.monotonic()<until
            assert len(mapped(pids[1]))==len(before)
        finally: main.terminate()
        main.wait(30)
    assert not [*temporary.glob('fastrec-*')]

def test_workers_of_gunicorn_have_the_same_guards(folder, df, tmp_path):
    "No token, no other address; silent connections are cut, no server is named, and one thread computes"
    pytest.importorskip('gunicorn')
    pytest.importorskip('uvicorn_worker')
    (tmp_path/'served.py').write_text(f"""
import torch
from fastrec.base.compiled import without_loops
from fastrec.serve import app
from fastrec.serve.guard import Connection
Connection.between_looks = .5
def made():
    assert torch.get_num_threads()==1 and without_loops.is_set()
    return app({str(folder)!r})
""", encoding='utf-8')
    with socket.create_server(('127.0.0.1',0)) as s: port = s.getsockname()[1]
    def started(host, **env):
        args = [sys.executable, '-m', 'gunicorn', '-k', 'fastrec.serve.gunicorn.Worker', '-b', f'{host}:{port}', 'served:made()']
        return subprocess.Popen(args, cwd=tmp_path, env={**os.environ, 'OMP_NUM_THREADS': '2', **env}, stderr=subprocess.PIPE, text=True)
    with started('0.0.0.0') as main: assert 'can be reached from elsewhere' in main.communicate(timeout=110)[1] and main.returncode
    for host,env in (('127.0.0.1',{}), ('0.0.0.0',dict(FASTREC_TOKEN=secret))):
        with started(host, **env) as main:
            try:
                films,until = Client(f'http://127.0.0.1:{port}'),time.monotonic()+60
                while True:
                    try: status,_,headers = films.raw('/version', authorization=f'Bearer {secret}', x_forwarded_for='1.2.3.4')
                    except OSError:
                        assert time.monotonic()<until
                        time.sleep(.1)
                    else: break
                assert status==200 and headers['server'] is None
                assert films.send(b'GET /he')==b'' and films.raw('/version')[0]==(401 if env else 200)
            finally: main.terminate()
            main.communicate(timeout=30)

def test_a_page_in_a_notebook_ends_with_its_kernel(folder):
    "And its folder with the token is gone"
    from jupyter_client.manager import start_new_kernel
    manager,kernel = start_new_kernel()
    said = []
    try:
        code = f"from fastrec import load_recommender; import fastrec.command.playing; page = load_recommender({str(folder)!r}).play(); print(page.url, page.folder.name)"
        kernel.execute_interactive(code, timeout=60, output_hook=lambda o: said.append(o['content'].get('text', str(o['content'].get('traceback', '')))))
        url,own = ''.join(said).split()[-2:]
        films = Client(url.split('/#')[0])
        assert films.raw('/health')[0]==200 and os.path.isdir(own)
    finally:
        kernel.stop_channels()
        manager.shutdown_kernel()
    with pytest.raises(OSError): films.raw('/health')
    assert not os.path.exists(own), ''.join(said)

def test_names_and_origins_are_several(folder):
    for name in ('hosts','origins','framed'):
        with pytest.raises(TypeError, match=rf"{name}='http://a.b' must be a tuple"): app(folder, **{name: 'http://a.b'})
    with pytest.raises(TypeError, match="hosts='a.b' must be a tuple"): run(folder, hosts='a.b')

def test_two_folders_share_the_threads(folder):
    "What waits for one is in the way of the other: the limits are those of the service"
    both = _routes(Counters(), Limits(threads=1, waiting=0), 'cpu', folder, folder)
    assert [asyncio.run(o.ready()).status for o in both]==['ok']*2
    both[0].pool.n += 1  # somebody is being answered
    for o in both:
        with pytest.raises(Busy): asyncio.run(o.ready())
    both[0].pool.close()

@pytest.mark.parametrize('n_factors,n_items', [(1,40),(5,2)])
def test_a_map_of_one_axis(tmp_path, n_factors, n_items):
    "With one factor, or two items, all lies on a line, and nothing is stretched out of rounding"
    df = sample_ratings(n_users=60, n_items=40, n_ratings=900)
    df = df[df.title.isin(df.title.value_counts().index[:n_items])]
    learn = dot_learner(RecDataLoaders.from_df(df, seed=0), y_range=(.5,5.5), seed=0)
    with learn.no_bar(),learn.no_logging(): learn.fit_als(n_factors, reg=1.)
    with Background(app(learn.save_recommender(tmp_path/'films'))) as service:
        status,found = Client(service.url).post('map', ratings=[dict(item=df.title.iloc[0], rating=5)])
    assert status==200 and len(found['items'])==n_items
    assert {o['y'] for o in found['items']}=={0.} and max(abs(o['x']) for o in found['items'])==pytest.approx(1)

def test_the_files_of_the_page_are_in_the_package():
    "And so in what is installed: setuptools is told of their folder"
    import tomllib
    from fnmatch import fnmatch
    told = tomllib.loads((Path(__file__).parents[1]/'pyproject.toml').read_text(encoding='utf-8'))
    data = told['tool']['setuptools']['package-data']['fastrec.serve']
    for o,text in page_files().items(): assert any(fnmatch(f'static/{o}', p) for p in data) and len(text)<40_000

# ------------------------------------------------------------------ features of who is new
def test_somebody_new_is_known_by_features(tmp_path):
    "As `fold_in(users=…)` knows them: numbers, texts, several of them, dates and gaps, with ratings or without"
    df,truth = sample_ratings(n_users=60, n_items=40, n_ratings=900, with_truth=True)
    users = truth.sides()['users']
    users['since'] = pd.Timestamp('2020-01-01')+pd.to_timedelta(users.age, 'D')
    users['tags'] = [['a','b'] if k%2 else ['b'] for k in range(len(users))]
    learn = fitted(df, users=users)
    with Background(app(learn.save_recommender(tmp_path/'told'))) as o:
        client = Client(o.url)
        index = pd.Index(['new user'], name='user')
        row = pd.DataFrame(dict(age=[70], likes=['dread'], since=[pd.Timestamp('2020-03-11')], tags=[['a','b']]), index)
        told = dict(age=70, likes='dread', since='2020-03-11', tags=['a','b'])
        rated = pd.DataFrame(dict(title=df.title[:1].astype(str), rating=[1.]))
        for more,ratings,by in (({},None,'features'), (dict(ratings=[dict(item=rated.title[0], rating=1.)]),rated,'ratings')):
            status,got = client.post('fold-in', features=told, **more)
            want = learn.fold_in(ratings, users=row).recommend()
            assert status==200 and got['by']==by and [o['item'] for o in got['items']]==want.title.tolist() and not got['notes']
            assert [o['score'] for o in got['items']]==pytest.approx(want.score.tolist(), abs=1e-3)
        gaps = row.assign(age=None, since=pd.NaT, tags=None)
        want = learn.fold_in(users=gaps).recommend().title.tolist()
        for part in (dict(likes='dread'), dict(likes='dread', age=None)): assert [o['item'] for o in client.post('fold-in', features=part)[1]['items']]==want
        status,got = client.post('fold-in', features=dict(likes='nonsense'))
        assert status==200 and "'nonsense'" in got['notes'][0]
        for bad,why in ((dict(shoe=43),"nothing was learned of 'shoe': features has age"), (dict(age='old'),"'age'"), (dict(since='soon'),''), (dict(age=dict(years=3)),'a feature is text, a finite number'), ({},'')):
            status,got = client.post('fold-in', features=bad)
            assert status==422 and why in str(got['detail']) and (isinstance(got['detail'], str) or len(got['detail'])==1), (bad,got)
        assert client.post('fold-in')[0]==422

def test_what_features_say_for_something_new(films, df, tmp_path):
    "As `explain_features`, for a user and for somebody by their ratings; what has ratings is refused"
    few,truth = sample_ratings(n_users=60, n_items=40, n_ratings=900, with_truth=True)
    sides = truth.sides()
    new = sides['items'].iloc[[0]].set_axis(['Just Out (2027)'])
    learn = fitted(few, **sides|dict(items=pd.concat([sides['items'], new])))
    user,title = int(few.user[0]),str(few.title[0])
    with Background(app(learn.save_recommender(tmp_path/'told', ratings=True))) as o:
        client = Client(o.url)
        want = learn.explain_features(user, 'Just Out (2027)')
        status,got = client.get('explain', user=user, item='Just Out (2027)', by_features=True)
        assert status==200 and [o.get('feature') for o in got['parts']]==[None,*want.feature[1:]] and got['by']=='user'
        assert [o['contribution'] for o in got['parts']]==pytest.approx(want.contribution.tolist(), abs=1e-4)
        status,got = client.post('explain', ratings=[dict(item=title, rating=5.)], item='Just Out (2027)', by_features=True)
        assert status==200 and sum(o['contribution'] for o in got['parts'])==pytest.approx(got['prediction'], abs=1e-4) and got['by']=='ratings'
        status,got = client.get('explain', user=user, item=title, by_features=True)
        assert status==422 and 'was rated in training' in got['detail']
    status,got = films.get('explain', user=int(df.user[0]), item=str(df.title[0]), by_features=True)
    assert status==422 and 'training had no features of items' in got['detail']

def test_features_are_refused_where_none_were_learned(films):
    status,got = films.post('fold-in', features=dict(age=30))
    assert status==422 and got['detail']=='this model was trained without features of users: leave features out'
    paths = films.get('openapi.json')[1]['components']['schemas']
    assert 'features' in paths['FoldInQuestion']['properties'] and 'ranking' not in paths['ListQuestion']['properties']

def test_std_is_refused_without_draws_and_ranking_explained(films, learn, df):
    user,title = int(df.user[0]),str(df.title[0])
    for status,got in (films.get('recommend', user=user, std=True), films.post('recommend', user=user, std=True), films.post('fold-in', ratings=[dict(item=title, rating=5)], std=True)):
        assert status==422 and 'no draws' in got['detail']
    status,got = films.get('explain', user=user, item=title, ranking=True)
    want = learn.explain(user, title, ranking=True)
    assert status==200 and got['prediction']==pytest.approx(want.attrs['prediction'], abs=1e-3)

# ------------------------------------------------------------------ what an operator is told, and signals
def without_tastes(df):
    "A learner whose draws all predict by the same biases, as of ratings that tell no tastes"
    learn = fitted(df, 'fit_bayes', n_sweep=20)
    m = learn.model
    with torch.no_grad():
        for o in (m.u_weight.weight,m.i_weight.weight): o.zero_()
        for o in (m.u_bias_draws,m.i_bias_draws): o.copy_(o.mean(1, keepdim=True).expand_as(o))
    return learn

@pytest.mark.long
def test_draws_that_all_rank_alike_are_told(df, tmp_path):
    "What is offered follows from what differs: such draws tell how sure a prediction is, but no list is safer than another"
    bare,full = without_tastes(df),fitted(df, 'fit_bayes', n_sweep=20)
    for k,(learn,varied) in enumerate(((bare,False),(full,True),(fitted(df),False))):
        with Background(app(learn.save_recommender(tmp_path/str(k)))) as service:
            films = Client(service.url)
            assert films.get('version')[1]['varied'] is varied
            if k==2: continue
            for how in (dict(z=-1),dict(draw=1)):
                _,found = films.post('recommend', user=int(df.user[0]), n=3, **how)
                assert found['items'] and any('rank alike' in o for o in found['notes'])==(not varied), found

def test_reasons_that_a_new_model_takes_away_are_told_in_the_log(learn, tmp_path, caplog):
    folder = learn.save_recommender(tmp_path/'films', ratings=True)
    with Background(app(folder, every=.05)) as o,caplog.at_level('WARNING', 'fastrec.serve'):
        films = Client(o.url)
        for has_ratings in (True,False):
            learn.save_recommender(folder, ratings=has_ratings, metrics=dict(n=float(has_ratings)))
            wait_for(films, folder)
            lost = [o for o in caplog.records if 'no ratings' in o.getMessage()]
            assert len(lost)==(not has_ratings)
        assert '--ratings' in lost[0].fields['how'] and lost[0].levelname=='WARNING'

def _after_hangup(folder, workers, how):
    "The exit code of a service that gets SIGHUP, `None` if it still answers, and ends then; `how` it has a terminal or none"
    code = f"from fastrec.serve import run\nif __name__=='__main__': run({str(folder)!r}, port=0, workers={workers})"
    if how=='terminal': code = f"import fcntl,os,termios; os.setsid(); fcntl.ioctl(os.open(os.environ['TTY'], os.O_RDWR), termios.TIOCSCTTY, 0)\n{code}"
    kept = 'SIG_IGN' if how=='nohup' else 'SIG_DFL'  # whatever these tests were started with
    code = f'import signal; signal.signal(signal.SIGHUP, signal.{kept})\n{code}'
    main_end,end = os.openpty()
    env = {**os.environ, 'TTY': os.ttyname(end)}
    with subprocess.Popen([sys.executable, '-c', code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=env,
                          start_new_session=how!='terminal') as main:
        try:
            port = int(main.stdout.readline().split(':')[2].split('/')[0])
            films = Client(f'http://127.0.0.1:{port}')
            assert films.get('health')[0]==200
            main.send_signal(signal.SIGHUP)
            if how=='terminal': return main.wait(30)
            time.sleep(1)
            assert films.get('health')[0]==200
        finally:
            main.terminate()
            os.close(end)
            os.close(main_end)

@pytest.mark.skipif(sys.platform!='linux', reason='signals and terminals of Linux')
@pytest.mark.parametrize('workers', [*seldom(1),2])
@pytest.mark.parametrize('how', ['terminal','none',*seldom('nohup')])
def test_a_hangup_ends_what_has_a_terminal_alone(folder, workers, how):
    assert _after_hangup(folder, workers, how) in ((0,-signal.SIGTERM) if how=='terminal' else (None,))

def test_openapi_tells_of_refusals_and_of_the_token(films, folder, tmp_path):
    told = films.get('openapi.json')[1]
    assert 'securitySchemes' not in told['components'] and told.get('security') is None
    assert {*told['paths']['/recommend']['post']['responses']}>={'200','404','408','413','422','503'}
    assert {*told['paths']['/health']['get']['responses']}=={'200','503'}
    for status,path,question in ((404,'explain',dict(user='nobody', item='x')), (422,'explain',dict(item=[])), (422,'map',dict(n=1))):
        found,answer = films.post(path, **question)
        refs = json.dumps(told['paths'][f'/{path}']['post']['responses'][str(status)])
        name = re.search(r'schemas/(\w+)', refs)[1]
        assert found==status and {*answer}=={*told['components']['schemas'][name]['required']}
    file = tmp_path/'token'
    file.write_text(secret, encoding='utf-8')
    file.chmod(0o600)
    with Background(app(folder, token=file)) as o:
        guarded = Client(o.url)
        status,body,_ = guarded.raw('/openapi.json', authorization=f'Bearer {secret}')
        told = json.loads(body)
        assert status==200 and told['components']['securitySchemes']=={'token': dict(type='http', scheme='bearer')}
        assert told['security']==[dict(token=[])] and told['paths']['/ready']['get']['security']==[]
        assert all('401' in o['responses'] for path,each in told['paths'].items() if path not in ('/health','/ready') for o in each.values())
        status,_,headers = guarded.raw('/version')
        assert status==401 and headers['www-authenticate']=='Bearer'

def test_each_post_has_an_example_that_is_answered(films, df, tmp_path):
    "With labels of the folder, and a rating where the model learns from ratings"
    clicks = fitted(df.assign(rating=1), 'fit_ials').save_recommender(tmp_path/'clicks', ratings=True)
    with Background(app(clicks)) as o:
        for service in (films,Client(o.url)):
            paths = service.get('openapi.json')[1]['paths']
            posts = {k: v['post'] for k,v in paths.items() if 'post' in v}
            assert len(posts)==6
            for path,told in posts.items():
                content = told['requestBody']['content']['application/json']
                assert content['schema']
                status,answer = service.post(path[1:], **content['example'])
                assert status==200 and not answer.get('unknown'), (path,answer)

def test_a_question_that_is_not_told_to_be_json_is_told_so(films, df):
    body = json.dumps(dict(ratings=[dict(item=df.title[0], rating=4)]))
    for sent in ({}, dict(content_type='application/x-www-form-urlencoded'), dict(content_type='text/plain')):
        for path in ('fold-in','recommend','predict'):
            status,found,_ = films.raw(f'/{path}', body, **sent)
            fault, = json.loads(found)['detail']
            assert status==422 and 'content-type: application/json' in fault['msg'] and 'dictionary' not in fault['msg'], fault

def test_the_question_of_the_guide_runs_as_it_is():
    "By curl, on the folder of the demo"
    cells = json.loads((Path(__file__).parents[1]/'nbs/guides/serving.ipynb').read_text(encoding='utf-8'))['cells']
    text = '\n'.join(''.join(o['source']) for o in cells)
    line, = re.findall(r"curl -H 'content-type: application/json' -d '(.*?)' http://127.0.0.1:8000/fold-in", text)
    question = FoldInQuestion.model_validate_json(line)
    assert {o.item for o in question.ratings}<={*sample_ratings().title}

def test_an_item_that_is_not_there_is_told_with_those_that_are_like_it(films, df):
    word = df.title[0].split()[0]
    there = {o for o in df.title if word in o}
    status,found = films.get('similar', item=word)
    assert status==404 and found['detail'].count("', '")==min(len(there), 3)-1 and any(repr(o) in found['detail'] for o in there)

def test_lists_of_many_name_what_is_unknown_once(films, df):
    status,found = films.post('recommend/many', users=df.user[:3].tolist(), exclude=['nothing of that name'])
    assert status==200 and found['unknown']==['nothing of that name'] and not any('unknown' in o for o in found['lists'])

def test_reasons_that_the_folder_lacks_are_refused_with_how_to_save_it(df, tmp_path):
    "It said to ask the learner, which nobody has who asks over HTTP"
    sides = sample_ratings(n_users=60, n_items=40, n_ratings=900, with_truth=True)[1].sides()
    bare = fitted(df, users=sides['users']).save_recommender(tmp_path/'bare')
    user,item = df.user[0],df.title[0]
    how = 'serve a folder that save_recommender(path, ratings=True) or fastrec train --ratings has saved'
    with Background(app(bare)) as res:
        films = Client(res.url)
        for path,more in (('recommend',dict(why=2)), ('explain',dict(item=item)), ('explain',dict(item=item, ranking='true'))):
            status,got = films.get(path, user=user, **more)
            assert status==422 and got['detail'].endswith(f'so reasons cannot be given: send their ratings without user, or {how}')
        assert films.post('recommend', user=int(user), why=2)[0]==films.post('recommend/many', users=[int(user)], why=2)[0]==422
        assert how in films.post('recommend/many', users=[int(user)], why=2)[1]['detail']
        rated = [dict(item=o, rating=4.) for o in df.title[:9].unique().tolist()]
        status,got = films.post('recommend', ratings=rated, why=2)
        assert status==200 and any(o.get('because') for o in got['items'])
