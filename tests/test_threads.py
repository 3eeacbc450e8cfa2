"""Requests in several threads give what they give alone, bit for bit. FASTREC_REQUESTS says how many each of the eight threads makes"""
import ast,multiprocessing,os,random,re,sys,threading,types,warnings
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
import fastrec
from fastrec.answer import lists
from fastrec.all import Callback,DeepMF,RecDataLoaders,Vocab,check_ratings,learner,load_recommender,nn_learner

n_requests = int(os.environ.get('FASTREC_REQUESTS', 60))
fits = {'dot': lambda d: learner(d, n_factors=6), 'net': lambda d: nn_learner(d, 6), 'draws': lambda d: learner(d), 'preference': lambda d: learner(d)}

def trained(ratings, kind):
    learn = fits[kind](RecDataLoaders.from_df(ratings, seed=1, bs=256))
    with learn.no_logging():
        if kind=='draws': learn.fit_bayes(3, 8)
        elif kind=='preference': learn.fit_ials(6, 3)
        else: learn.fit(1)
    return learn

def requests(rec, ratings):
    "One function for each sort of request, which takes a random generator"
    users,items = (list(v.labels) for v in rec.ds.classes.values())
    frames = [ratings[['user','title']].sample(5, random_state=k) for k in range(4)]
    strange = [o.assign(user=[-1,*o.user[1:]]) for o in frames]
    stars = 1. if rec.model.is_preference else 4.
    mine = [pd.DataFrame(dict(title=items[k:k+3], rating=stars)) for k in range(4)]
    some = lambda r, of, n=2: r.sample(of, n)
    res = [(6, lambda r: rec.predict(r.choice(users), r.choice(items))),
           (2, lambda r: rec.predict(-1, r.choice(items), unknown='average')),
           (3, lambda r: rec.recommend(some(r, users), n=3)),
           (3, lambda r: rec.similar(r.choice(items), 3)),
           (2, lambda r: rec.predict_df(r.choice(frames))),
           (2, lambda r: rec.predict_df(r.choice(strange), unknown='average')),
           (4, lambda r: rec.predict_grid(some(r, users), some(r, items, 4))),
           (1, lambda r: rec.fold_in(r.choice(mine)).predict_grid(items=some(r, items)))]
    return [f for n,f in res for _ in range(n)]

def equal(a, b):
    if isinstance(a, torch.Tensor): return torch.equal(a, b)
    return a.equals(b) if isinstance(a, (pd.DataFrame,pd.Series)) else a==b

def in_threads(f, n=8):
    "The results, or the errors, of `f(0)`, …, each in a thread of its own and all at once"
    res,start,interval = [None]*n,threading.Barrier(n),sys.getswitchinterval()
    def run(k):
        start.wait()
        try: res[k] = f(k)
        except BaseException as e: res[k] = e
    threads = [threading.Thread(target=run, args=(k,)) for k in range(n)]
    sys.setswitchinterval(1e-6)
    try:
        for o in threads: o.start()
        for o in threads: o.join()
    finally: sys.setswitchinterval(interval)
    for o in res:
        if isinstance(o, BaseException): raise o
    return res

def check(rec, ratings, n, n_different=60):
    "Compare `n` mixed requests in each of eight threads, out of `n_different`, with what these give alone"
    calls = requests(rec, ratings)
    ask = lambda k: calls[k%len(calls)](random.Random(k))
    def some(thread):
        r = random.Random(-thread)
        return [(k,ask(k)) for k in r.choices(range(n_different), k=n)]
    with warnings.catch_warnings(action='ignore'):
        together = in_threads(some)
        alone = [ask(k) for k in range(n_different)]
    assert all(equal(answer, alone[k]) for thread in together for k,answer in thread)

@pytest.mark.parametrize('kind', fits)
def test_a_recommender_in_eight_threads(ratings, tmp_path, kind):
    check(load_recommender(trained(ratings, kind).save_recommender(tmp_path/'r'), 'cpu'), ratings, n_requests)

@pytest.mark.parametrize('kind', ['dot','net'])
def test_a_learner_in_training_mode(ratings, kind):
    learn = trained(ratings, kind)
    learn.model.train()
    check(learn, ratings, 50)
    assert all(m.training for m in learn.model.modules())

def test_a_request_does_not_end_anothers_mode(ratings):
    "While one is being answered, another comes and goes"
    learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256), 6, ps=[.5])
    learn.model.train()
    users,items = (list(v.labels) for v in learn.ds.classes.values())
    pairs,modes = pd.DataFrame(dict(user=users[:50], title=items[:50])),[]
    want,forward = learn.predict_df(pairs),DeepMF.forward
    def slow(self, x):
        if len(x)==50: learn.predict(users[0], items[0])
        modes.append(any(m.training for m in self.modules()))
        return forward(self, x)
    with pytest.MonkeyPatch.context() as p:
        p.setattr(DeepMF, 'forward', slow)
        assert learn.predict_df(pairs).equals(want)
    assert modes==[False,False] and all(m.training for m in learn.model.modules())

@pytest.mark.parametrize('kind', fits)
def test_no_request_draws_from_the_global_generator(ratings, kind):
    rec = trained(ratings, kind)
    answers = []
    with warnings.catch_warnings(action='ignore'):
        for seed in (5,6):
            torch.manual_seed(seed)
            before = torch.get_rng_state()
            answers.append([f(random.Random(3)) for f in requests(rec, ratings)])
            assert torch.get_rng_state().equal(before)
    assert all(map(equal, *answers))

def test_first_weights_and_fits_at_once(ratings):
    "Several learners made and trained at once are those that each alone would be, and nobody's random numbers move"
    loaders = [RecDataLoaders.from_df(ratings, seed=k//2, bs=256) for k in range(8)]
    def made(k):
        learn = [nn_learner(loaders[k], 6, ps=[.3]), learner(loaders[k], n_factors=50)][k%2]
        first = [p.detach().clone() for p in learn.model.parameters()]
        with learn.no_bar(),learn.no_logging(): learn.fit(1)
        return first+[p.detach() for p in learn.model.parameters()]
    alone = [made(k) for k in range(8)]
    before = torch.get_rng_state()
    for k,weights in enumerate(in_threads(made)): assert all(map(torch.equal, weights, alone[k]))
    assert torch.get_rng_state().equal(before)

def test_no_function_changes_the_filters():
    """`catch_warnings` puts back what it found: two threads inside at once leave the filters of one of them. The filters themselves cannot
    be compared after threads: pandas uses `catch_warnings` in `pandas_dtype`"""
    found = set()
    for file in Path(fastrec.__file__).parent.rglob('*.py'):
        for f in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if isinstance(f, ast.FunctionDef) and re.search('catch_warnings|simplefilter|filterwarnings', ast.unparse(f)): found.add((file.stem,f.name))
    assert found=={('cluster','_worker'),('cluster','__init__'),('workers','start')}  # a worker is a process of its own, and so is what forks

def test_what_is_said_is_heard_by_who_asks():
    "`check_ratings` tells of its own frame, and leaves the warnings of others where they were"
    alike,fine = (pd.DataFrame(dict(user=range(30), title=[f'f{k%7}' for k in range(30)], rating=rating)) for rating in (3., [1.,2.,4.]*10))
    def look(k):
        for _ in range(10):
            assert check_ratings(alike if k%2 else fine).finding.str.contains('there is no taste').any()==bool(k%2)
            with pytest.warns(UserWarning, match='mine'): warnings.warn(f'mine {k}')
    look(0), look(1)
    def both(k): return [check_ratings(alike if k%2 else fine).finding.str.contains('there is no taste').any() for _ in range(10)]
    assert in_threads(both)==[[bool(k%2)]*10 for k in range(8)]

def test_a_list_is_of_one_model(ratings, monkeypatch):
    "A fit in another thread replaces the model while lists are made"
    learn = trained(ratings, 'dot')
    users,other = list(learn.ds.classes['user'].labels),trained(ratings, 'draws').model
    want,by_blocks,model = learn.recommend(users, n=3),lists.by_blocks,learn.model
    def replaced(*args):
        by_blocks(*args)
        learn.model = other
    monkeypatch.setattr(lists, 'by_blocks', replaced)
    assert learn.recommend(users, n=3).equals(want)
    learn.model = model
    assert not learn.recommend(users, n=3).equals(learn.recommend(users, n=3))  # the second is of the other

def test_answers_during_a_fit_are_within_the_range(ratings):
    class Ask(Callback):
        def after_epoch(self): seen.append(self.learn.predict_grid())
        def before_validate(self): seen.append(self.learn.predict_grid())
    seen,learn = [],learner(RecDataLoaders.from_df(ratings, seed=1, bs=256), n_factors=4)
    with learn.no_bar(),learn.no_logging(): learn.fit_bayes(4, 5, cbs=Ask())
    assert len(seen)==10 and min(o.min() for o in seen)>=1 and max(o.max() for o in seen)<=5

def test_the_first_lookups_at_once():
    "Before the index has been searched once"
    for labels in (np.arange(400_000)*7, np.array([f'u{k:06}' for k in range(50_000)], dtype=object)):
        for _ in range(3):
            v = Vocab(labels, 'user')
            found = in_threads(lambda k: v.lookup([labels[-1-k]])[0])
            assert found==[len(labels)-k for k in range(8)]

def test_a_seeded_fit_beside_one_without_a_seed(ratings):
    "Whose random numbers are PyTorch's own, and stay out of the other's dropout"
    def made(seed):
        learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1 if seed else None, bs=256), 6, ps=[.3], seed=seed)
        with learn.no_bar(),learn.no_logging(): learn.fit(2)
        return learn.predict_grid()
    alone = made(3)
    for k,grid in enumerate(in_threads(lambda k: made(3 if k%2 else None), 4)): assert bool(k%2)==grid.equal(alone)

@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork here')
def test_a_fork_while_others_look_labels_up_and_fit(ratings):
    "What is forked between two steps of other threads finds no lock taken"
    learn,stop = trained(ratings, 'dot'),threading.Event()
    many = pd.concat([ratings[['user','title']]]*100)
    def busy(k):
        while not stop.is_set(): learn.predict_df(many) if k else nn_learner(learn.dls, 6, seed=1)
    def child():
        torch.set_num_threads(1)
        learn.predict_df(ratings[:5])
        nn_learner(learn.dls, 6, seed=1)
    threads = [threading.Thread(target=busy, args=(k,), daemon=True) for k in range(3)]
    for o in threads: o.start()
    try:
        for _ in range(8):
            process = multiprocessing.get_context('fork').Process(target=child)
            process.start()
            process.join(60)
            if process.exitcode is None: process.kill()
            assert process.exitcode==0
    finally:
        stop.set()
        for o in threads: o.join()

@pytest.mark.parametrize('write,read', [(lambda l: l.save('model'), 'models/model.pth'), (lambda l: l.export('model.pkl'), 'model.pkl')], ids=['save','export'])
def test_writers_of_one_file(ratings, tmp_path, write, read):
    "Each writes a whole file, and who reads meets one of them"
    learns = [learner(RecDataLoaders.from_df(ratings, seed=1, bs=256), n_factors=8, path=tmp_path, seed=k) for k in range(3)]
    write(learns[0])
    left = [(tmp_path/read).with_name(f'{Path(read).name}.{o}.part') for o in ('0123abcd','4567cdef')]
    for o in left: o.touch()
    os.utime(left[0], (1e9,1e9))
    def some(k):
        for _ in range(10): torch.load(tmp_path/read, weights_only=False) if k>2 else write(learns[k])
    in_threads(some, 4)
    assert [*tmp_path.rglob('*.part')]==left[1:]  # what an hour ago was left by one that was killed is gone

def test_lists_to_one_path(ratings, tmp_path):
    "Each writes a file of its own, and the one that gets the name is whole"
    pytest.importorskip('pyarrow')
    learn = trained(ratings, 'dot')
    users = list(learn.dls.classes['user'].labels)
    path = tmp_path/'lists.parquet'
    left = [tmp_path/f'lists.parquet.{o}.part' for o in ('0123abcd','4567cdef')]
    for o in left: o.touch()
    os.utime(left[0], (1e9,1e9))
    want = {n: learn.recommend(n=n) for n in (2,3,4)}
    def some(k):
        for _ in range(8): learn.recommend(n=2+k, path=path, max_bytes=2**16)
    in_threads(some, 3)
    got = pd.read_parquet(path)
    assert any(len(got)==len(o) and got.title.astype(str).tolist()==o.title.astype(str).tolist() for o in want.values())
    assert [*tmp_path.rglob('*.part')]==left[1:]

def test_a_model_of_ones_own_forward_in_training_mode(ratings):
    "A copy in evaluation mode answers, with the method bound to it; a function that may hold the model in training mode is refused"
    learn = nn_learner(RecDataLoaders.from_df(ratings, seed=1, bs=256), 6, ps=[.5], seed=1)
    user,item = (v.labels[0] for v in learn.ds.classes.values())
    want = learn.predict(user, item)
    learn.model.train()
    learn.model.compile(backend='eager')
    assert learn.predict(user, item)==want
    learn.model.forward = types.MethodType(DeepMF.forward, learn.model)
    assert learn.predict(user, item)==want
    learn.model.forward = lambda x, f=learn.model.forward: f(x)
    with pytest.raises(ValueError, match='forward was replaced.*eval'): learn.predict(user, item)
    learn.model.eval()
    assert learn.predict(user, item)==want
    with pytest.raises(ValueError, match=r'call model.compile\(\)'): learn.model = torch.compile(learn.model)
