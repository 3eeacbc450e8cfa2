"""Several processes on this machine, connected by the loopback, and a local Ray: the same results as in one process"""
import multiprocessing,os,socket,subprocess,sys,threading,time,traceback
from pathlib import Path
import numpy as np,pandas as pd,pytest,torch
from conftest import seldom
from fastrec.all import Adam,RecDataLoaders,learner,load_recommender,recommend_distributed,sample_ratings
from fastrec.base import checks
from fastrec.base import processes
pytest.importorskip('accelerate')
psutil = pytest.importorskip('psutil')  # ipykernel brings it
pytestmark = pytest.mark.skipif(os.name!='posix', reason="launches processes as POSIX does; on Windows that isn't tried")

head = '''
import sys
from fastrec.all import *
from fastai.callback.tracker import SaveModelCallback
import torch.distributed as dist
folder,res = Path(sys.argv[1]),{}
def loaders(bs=512, seed=42, ratings=None, **kwargs): return RecDataLoaders.from_df(sample_ratings(300, 200, 8000) if ratings is None else ratings, seed=seed, bs=bs, **kwargs)
@contextmanager
def quietly(learn, *args, **kwargs):
    with learn.no_bar(),learn.no_logging(),learn.distrib_ctx(*args, **kwargs): yield
def result(learn): return dict(model={k: v.detach().clone() for k,v in learn.model.state_dict().items()}, history=learn.history)
def everyones(o):
    both = [None]*dist.get_world_size()
    dist.all_gather_object(both, o)
    return both
'''
tail = '''
if not rank_distrib(): torch.save(res, folder/f'{os.environ.get("WORLD_SIZE", 1)}.pt')
'''

def as_rank(rank, n, port, file, out):
    "Run the script `file` as process `rank` of `n`, as a launcher would start it; what it says goes to the file `out`"
    log = os.open(out, os.O_WRONLY|os.O_CREAT|os.O_APPEND)
    for o in (1,2): os.dup2(log, o)
    if n>1: os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(n), MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    sys.argv = [str(file), str(file.parent)]
    try: exec(compile(file.read_text(encoding='utf-8'), file, 'exec'), dict(__name__='__main__'))
    except BaseException:
        traceback.print_exc()
        raise

def free_port():
    with socket.socket() as s:
        s.bind(('127.0.0.1', 0))
        return s.getsockname()[1]

def run_ranks(file, n, out):
    "Run the script `file` in `n` processes of a server that has imported fastrec, one alone may start others; the first exit code that isn't 0, or 0"
    ctx = multiprocessing.get_context('forkserver')
    ctx.set_forkserver_preload(['fastrec.all'])
    port = free_port()
    ranks = [ctx.Process(target=as_rank, args=(i, n, port, file, out), daemon=n>1) for i in range(n)]
    for o in ranks: o.start()
    stop = time.monotonic()+110
    while any(o.is_alive() for o in ranks) and not any(o.exitcode for o in ranks) and time.monotonic()<stop: time.sleep(.02)
    for o in ranks:
        if o.is_alive(): o.join(1)
        if o.is_alive(): o.kill()
        o.join()
    return next((o.exitcode for o in ranks if o.exitcode), 0)

def run(script, folder, n=2, fails=False, launcher=False):
    "Run `script` in `n` processes, by PyTorch's `launcher` or our own, and return the `res` of the first; with `fails` what it said"
    file,out = folder/'script.py',folder/'out.txt'
    file.write_text(head+script+tail, encoding='utf-8')
    out.unlink(missing_ok=True)
    if launcher:
        cmd = [sys.executable, *(['-m', 'torch.distributed.run', '--standalone', f'--nproc_per_node={n}'] if n>1 else []), str(file), str(folder)]
        with open(out, 'wb') as f: code = subprocess.run(cmd, stdout=f, stderr=f, timeout=110, env={**os.environ, 'OMP_NUM_THREADS': '1'}).returncode
    else: code = run_ranks(file, n, out)
    said = out.read_text(encoding='utf-8', errors='replace')
    if fails:
        assert code
        return said
    assert not code, said
    return torch.load(folder/f'{n}.pt', weights_only=False)

gradients = ['learner(loaders())', 'learner(loaders(), sparse=True)', 'learner(loaders(bs=501), loss_func=MSELossFlat())', 'nn_learner(loaders(), use_bn=False)']
solvers = ['fit_als(8)', 'fit_ials(8, n_sweep=5)', "fit_bayes(4, 12, side='implicit')", 'fit_bias()']

@pytest.fixture(scope='module')
def one_and_two(tmp_path_factory):
    "What one process and what two make of the same fits"
    script = f'''
for make in {gradients!r}:
    learn = eval(make)
    with quietly(learn, blocks=None if 'nn_' in make else False): learn.fit_one_cycle(2)
    res[make] = result(learn)
for how in {solvers!r}:
    learn = dot_learner(loaders())
    with quietly(learn): eval('learn.'+how)
    res[how] = result(learn)
learn = learner(loaders(), metrics=[rmse, mae])
with quietly(learn): learn.fit_one_cycle(2)
assert learn.dls.valid_ds.part==(0,1) and learn.seed==42
valid = learn.dls.valid_ds
res['metrics'] = learn.history.iloc[-1],learn.predict_df(valid.decode(valid.x), unknown='average').to_numpy()-valid.y.numpy()
'''
    return [run(script, tmp_path_factory.mktemp('fits'), n) for n in (1,2)]

@pytest.mark.parametrize('case,eps', [(o,2e-5) for o in gradients]+[(o,1e-4) for o in solvers])
def test_two_processes_fit_what_one_fits(one_and_two, case, eps):
    one,two = (o[case] for o in one_and_two)
    for k,v in one['model'].items():
        if v.is_floating_point(): torch.testing.assert_close(two['model'][k], v, rtol=eps, atol=eps)
    pd.testing.assert_frame_equal(two['history'].drop(columns='train_loss'), one['history'].drop(columns='train_loss'), rtol=eps, atol=eps)

def test_metrics_are_of_all_validation_rows(one_and_two):
    last,error = one_and_two[1]['metrics']
    for name,want in dict(valid_loss=(error**2).mean(), rmse=(error**2).mean()**.5, mae=abs(error).mean()).items(): assert abs(last[name]-want)<1e-5, name

@pytest.mark.parametrize('cases,n', [(['','sparse=True'],2),*seldom((['opt_func=Adam'],3))])
def test_blocks_show_each_rating_once(tmp_path, cases, n):
    script = f'cases = {cases!r}' + '''
class Look(Callback):
    def before_epoch(self): self.rows = []
    def before_batch(self):
        if self.training: self.rows.append(torch.cat([torch.stack([r[c.long()] for r,c in zip(self.learn.block_rows, self.x.T)], 1), self.y[:,None].int()], 1))
for case in cases:
    learn,look = eval(f'learner(loaders(bs=256, ratings=sample_ratings()), {case})'),Look()
    with quietly(learn): learn.fit_one_cycle(4, cbs=look)
    own,ds = everyones(torch.cat(look.rows)),learn.dls.train_ds
    assert min(map(len, own)) > .8*max(map(len, own))
    assert sorted(torch.cat(own).tolist())==sorted(torch.cat([ds.x, ds.y[:,None].int()], 1).tolist())
    models = everyones([p.detach() for p in learn.model.parameters()])
    assert all(torch.equal(a, b) for m in models for a,b in zip(m, models[0]))
    res[case] = learn.history.rmse.iloc[-1]
'''
    several = run(script, tmp_path, n)
    for case in cases:
        alone = eval(f'learner(RecDataLoaders.from_df(sample_ratings(), seed=42, bs=256), shrink=False, {case})')  # as blocks are trained
        with alone.no_bar(),alone.no_logging(): alone.fit_one_cycle(4)
        assert abs(several[case]-alone.history.rmse.iloc[-1])<.01

shards = '''
import atexit
atexit.register(lambda: (folder/f"open-{os.environ['RANK']}").write_text(str(dist.is_initialized()), encoding='utf-8'))  # runs last
def told(f):
    try: f()
    except (ValueError,TypeError,FloatingPointError) as e: return str(e)
dls = RecDataLoaders.from_parquet(folder/'ratings', shard=True, seed=42, bs=256, rows=5000)
ds,learn = dls.train_ds,learner(dls)
res['told'] = [told(lambda: learn.fit(1))]
with quietly(learn): learn.fit_one_cycle(5)
res['learn'] = dict(rmse=learn.history.rmse.iloc[-1], wd=learn.wd, y_range=learn.model.y_range)
res['ds'] = dict(users=[*ds.classes['user'].labels], titles=[*ds.classes['title'].labels], n=ds.n_ratings, mean=ds.mean(), counts=ds.counts(1), sums=ds.sums(0))
res['rows'] = [pd.concat(everyones(o.dataset.decode(o.dataset.x, o.dataset.y))) for o in dls.loaders]
lists = learn.recommend(n=5)
knobs = dict(diversity=.4, damping=.3)
steered = learn.recommend(n=5, **knobs)
res['lists'] = pd.concat(everyones(lists))
preds,targs = learn.get_preds()
res['errors'] = [torch.cat(everyones(preds-targs)), everyones((learn.evaluate().loc['model','rmse'], (preds.clamp(1, 5)-targs).square().mean().sqrt().item()))]
seen = Seen(torch.cat([o for x in everyones((ds.x,dls.valid_ds.x)) for o in x]), *map(len, ds.classes.values()), ds.counts(1))
alone = Recommender(learn.model, ds, seen)
res['same'] = all(everyones(lists.equals(alone.recommend(lists.user.unique(), n=5))))
res['steered'] = all(everyones(steered.title.tolist()==alone.recommend(lists.user.unique(), n=5, **knobs).title.tolist()))
other = next(u for u in ds.classes['user'].labels if u not in {*lists.user})
res['told'] += [told(lambda: learn.recommend(other)), told(lambda: learn.save_recommender(folder/'b')), told(learn.fit_als), told(lambda: learn.distrib_ctx(blocks=False).__enter__()),
                told(lambda: RecDataLoaders.from_df(sample_ratings(), shard=True))]
learn.save_recommender(folder/f'saved-{rank_distrib()}', seen=False)
RecLearner._watches_each = lambda self: False  # as on CUDA
class Broken(Callback):
    def before_batch(self):
        if self.training and self.iter==3: self.learn.yb = (self.y*math.nan,)
with quietly(learn): res['broken'] = told(lambda: learn.fit(1, cbs=Broken()))
'''
@pytest.fixture(scope='module')
def of_shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp('shards')
    (folder/'ratings').mkdir()
    for i in range(3): sample_ratings()[i::3].to_parquet(folder/'ratings'/f'{i}.parquet')
    res = run(shards, folder, launcher=True)
    return res | dict(open=[(folder/f'open-{i}').read_text(encoding='utf-8') for i in range(2)])

@pytest.mark.long
def test_each_process_holds_the_ratings_of_its_users(of_shards):
    train,valid = of_shards['rows']
    both,ds = pd.concat([train, valid], ignore_index=True),of_shards['ds']
    assert sorted(both.itertuples(index=False))==sorted(sample_ratings()[['user','title','rating']].itertuples(index=False))
    dls = RecDataLoaders.from_df(both, lambda df: (range(len(train)), range(len(train), len(df))), seed=42, bs=256)
    alone = learner(dls)
    with alone.no_bar(),alone.no_logging(): alone.fit_one_cycle(5)
    got,want = of_shards['learn'],dls.train_ds
    assert abs(got['rmse']-alone.history.rmse.iloc[-1])<.01
    assert (got['wd'],got['y_range'])==(alone.wd,alone.model.y_range)
    assert (ds['users'],ds['titles'],ds['n'])==([*want.classes['user'].labels],[*want.classes['title'].labels],len(want))
    assert torch.equal(ds['counts'], want.counts(1)) and torch.equal(ds['sums'], want.sums(0)) and abs(ds['mean']-want.mean())<1e-5

def test_each_process_recommends_to_its_users(of_shards):
    assert of_shards['same'] and of_shards['steered']
    assert sorted(of_shards['lists'].user.unique())==of_shards['ds']['users'] and not of_shards['lists'].duplicated(['user','rank']).any()

def test_a_fit_is_measured_on_everyone_and_evaluate_on_its_users(of_shards):
    errors,own = of_shards['errors']
    assert len(errors)==len(of_shards['rows'][1]) and abs(errors.square().mean().sqrt().item()-of_shards['learn']['rmse'])<1e-5
    assert all(abs(a-b)<1e-5 for a,b in own) and own[0][0]!=own[1][0]

@pytest.mark.long
def test_shards_of_different_sizes(tmp_path):
    script = '''
ratings = sample_ratings()
first = ratings.user.isin(ratings.user.unique()[:800])
mine = ratings[first if not rank_distrib() else ~first].copy()
mine.iloc[5,mine.columns.get_loc('rating')] = np.nan
with warnings.catch_warnings(action='ignore'): dls = RecDataLoaders.from_df(mine, shard=True, dropna=True, time_name='timestamp', seed=42, bs=256)
class Count(Callback):
    def before_epoch(self): self.n = 0
    def before_batch(self):
        if self.training: self.n += len(self.y)
learn,count = learner(dls),Count()
with quietly(learn): learn.fit_one_cycle(3, cbs=count)
res['seen'] = everyones((count.n, len(dls.train_ds), len(mine)))
models = everyones([p.detach() for p in learn.model.parameters()])
res['same'] = all(torch.equal(a, b) for a,b in zip(*models))
res['n'],res['rmse'] = dls.train_ds.n_ratings,learn.history.rmse.iloc[-1]
learn.export(folder/'learn.pkl')  # which the first does alone
with warnings.catch_warnings(action='ignore'): loaded = load_learner(folder/'learn.pkl')
user,title = mine.user.iloc[0],mine.title.iloc[0]
res['loaded'] = loaded.dls.train_ds.shard is None and loaded.predict(user, title)==learn.predict(user, title)
'''
    res = run(script, tmp_path)
    (a,n_a,rows_a),(b,n_b,rows_b) = res['seen']
    assert (a,b)==(n_a,n_b) and res['n']==a+b and rows_a>3*rows_b and rows_a+rows_b==len(sample_ratings())
    assert res['same'] and res['loaded'] and res['rmse']<.92

weighed = '''
ratings = sample_ratings().assign(weight=lambda df: (df.user+df.item)%4)  # a quarter counts for nothing
own = ratings[ratings.user%3==0] if rank_distrib() else ratings[ratings.user%3>0]
class Look(Callback):
    def before_epoch(self): self.taken = []
    def before_batch(self):
        if not self.training: return
        codes = torch.stack([r[c.long()] for r,c in zip(self.learn.block_rows, self.x.T)])
        self.taken.append(self.learn.dls.train_ds.decode(codes.T))
for name,rows,shard in (('blocks',ratings,False),('shards',own,True)):
    learn,look = learner(RecDataLoaders.from_df(rows, weight_name='weight', shard=shard, seed=42, bs=256)),Look()
    with quietly(learn): learn.fit_one_cycle(3, cbs=look)
    train,valid = learn.dls.train_ds,learn.dls.valid_ds
    frames = everyones([o.frame()[0] for o in (train,valid)])
    train_rows,valid_rows = (pd.concat(o) for o in zip(*frames)) if shard else frames[0]
    preds,targs = learn.get_preds()
    off = (preds-targs).numpy()
    errors = [np.concatenate(o) for o in zip(*everyones((off,valid.w.numpy())))] if shard else (off,valid.w.numpy())
    models = everyones([p.detach() for p in learn.model.parameters()])
    res[name] = dict(drawn=pd.concat(everyones(pd.concat(look.taken))), train=train_rows, rmse=learn.history.rmse.iloc[-1], errors=errors,
                     same=all(torch.equal(a, b) for a,b in zip(*models)), mean=train.mean(), n=train.n_ratings)
'''
def test_blocks_and_shards_draw_rows_as_often_as_they_weigh(tmp_path):
    for name,o in run(weighed, tmp_path).items():
        train,(off,w) = o['train'],o['errors']
        counted = train.weight[train.weight>0]
        assert o['same'] and o['n']==len(train) and abs((counted**2).sum()/counted.sum()-1)<1e-5, name
        assert abs(o['mean']-np.average(train.rating, weights=train.weight))<1e-5, name
        assert abs(o['rmse']-np.average(off**2, weights=w)**.5)<1e-4, name
        pair = ['user','title']
        times = o['drawn'].groupby(pair).size().reindex(pd.MultiIndex.from_frame(train[pair]), fill_value=0).to_numpy()
        want = train.weight.to_numpy()  # in the unit in which they add up to as many rows as say as much
        assert abs(times-want).max()<1.01 and abs(times.sum()-want.sum())<=2 and want.sum()<.9*len(train), name

def test_gpus_talk_by_nccl_and_tell_the_rest_by_gloo(monkeypatch):
    class PartialState:
        process_index,num_processes = 0,1
        def __init__(self, **kwargs): made.append(kwargs)
    monkeypatch.setattr(processes, 'need_package', lambda name: type('accelerate', (), dict(PartialState=PartialState)))
    for device,rank,want in (('cpu','0',dict(cpu=True)),('cuda:0','0',dict(cpu=False, backend='cuda:nccl,cpu:gloo')),('cuda:0',None,dict(cpu=False))):
        monkeypatch.setenv('LOCAL_RANK', rank) if rank else monkeypatch.delenv('LOCAL_RANK', raising=False)
        made = []
        assert processes.which_process(device)==(0,1) and made==[want]

def test_a_loss_that_is_no_number_is_told_where_batches_are_not_watched(of_shards): assert 'in step 3 of epoch 0.' in of_shards['broken']

def test_processes_close_their_connections_before_they_exit(of_shards): assert of_shards['open']==['False']*2

def test_what_a_shard_cannot_do_is_refused(of_shards):
    for told,part in zip(of_shards['told'], ('fit within distrib_ctx', 'process 0 of 2 does not know', 'pass seen=False', 'solvers need all', 'blocks=False', 'users have ratings in several processes'), strict=True): assert part in told

def test_from_a_notebook(tmp_path, one_and_two):
    script = '''
from accelerate import notebook_launcher
def train():
    learn = nn_learner(loaders(), use_bn=False)
    with quietly(learn): learn.fit_one_cycle(2)
    if not rank_distrib(): torch.save((num_distrib(), learn.history), folder/'fit.pt')
notebook_launcher(train, num_processes=2)
'''
    run(script, tmp_path, 1)
    n,history = torch.load(tmp_path/'fit.pt', weights_only=False)
    assert n==2
    pd.testing.assert_frame_equal(history, one_and_two[1]['nn_learner(loaders(), use_bn=False)']['history'])

def test_goes_on_after_a_process_was_killed(tmp_path):
    script = '''
learn = learner(loaders(), path=folder)
class Killed(Callback):
    order = 200
    def after_batch(self):
        if self.training and (folder/'kill').exists() and rank_distrib()==1 and self.epoch==2 and self.iter==3: os._exit(1)
start = 0
if (folder/'resume').exists():
    learn.load('model_1', with_opt=True)
    start = 2
with quietly(learn): learn.fit_one_cycle(4, start_epoch=start, cbs=[SaveModelCallback(every_epoch=True, with_opt=True), Killed()])
res = result(learn)
'''
    whole = run(script, tmp_path)
    for o in (tmp_path/'models').iterdir(): o.unlink()
    (tmp_path/'kill').touch()
    run(script, tmp_path, fails=True)
    assert sorted(o.name for o in (tmp_path/'models').iterdir())==['model_0.pth','model_1.pth']
    (tmp_path/'kill').unlink()
    (tmp_path/'resume').touch()
    rest = run(script, tmp_path)
    for k,v in whole['model'].items(): torch.testing.assert_close(rest['model'][k], v)
    assert rest['history'].rmse.iloc[-1]==pytest.approx(whole['history'].rmse.iloc[-1], abs=1e-6)

odd = 'class Odd(Metric):\n    name,value = "odd",1.\n    def reset(self): pass\n    def accumulate(self, learn): pass\n'
refused = {'learner(loaders(seed=rank_distrib()))': 'the processes differ in their training ratings', 'learner(loaders(bs=512-rank_distrib()))': 'the processes differ in their batch size',
           'learner(loaders(), n_factors=8+rank_distrib())': 'the processes differ in their model', 'learner(loaders(bs=2, val_bs=1))': '2 processes cannot share batches, users and items of which there are 1 at least',
           'learner(loaders(), metrics=[Odd()])': 'the metric odd cannot be put together from shares', 'nn_learner(loaders())': 'blocks=True is for dot products; the weights of a DeepMF are moved by every rating'}

def test_refused(tmp_path):
    said = run(odd + f'''
for make in {list(refused)!r}:
    learn = eval(make)
    try:
        with quietly(learn, blocks=True): learn.fit(1)
    except (ValueError,TypeError) as e: res[make] = str(e)
''', tmp_path)
    for make,what in refused.items(): assert what in said[make]

def test_one_process_trains_as_usual():
    learn = learner(RecDataLoaders.from_df(sample_ratings(300, 200, 8000), seed=42), shrink=False)
    with learn.no_bar(),learn.no_logging(),learn.distrib_ctx(): learn.fit_one_cycle(1)
    assert len(learn.history)==1

def test_without_the_extra(monkeypatch, tmp_path):
    def absent(name): raise ImportError(name)
    monkeypatch.setattr(checks.importlib, 'import_module', absent)
    learn = learner(RecDataLoaders.from_df(sample_ratings(300, 200, 8000), seed=42))
    with pytest.raises(ImportError, match=r"accelerate is needed for this: pip install accelerate$"):
        with learn.distrib_ctx(): pass
    with pytest.raises(ImportError, match=r"ray is needed for this: pip install ray$"): recommend_distributed(tmp_path, tmp_path/'out')

@pytest.fixture(scope='module')
def local_ray():
    ray = pytest.importorskip('ray')
    ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level='ERROR')
    yield ray
    ray.shutdown()

@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=42))
    with learn.no_bar(),learn.no_logging(): learn.fit_als()
    return learn.save_recommender(tmp_path_factory.mktemp('saved')/'films')

def equal(out, want): pd.testing.assert_frame_equal(pd.read_parquet(out), want, check_dtype=False, check_categorical=False, rtol=0)

def test_lists_of_a_cluster_are_those_of_recommend(local_ray, bundle, tmp_path):
    rec = load_recommender(bundle)
    equal(recommend_distributed(bundle, tmp_path/'all', n=7, part_size=256, min_count=5), rec.recommend(n=7, min_count=5))
    knobs = dict(n=4, users=rec.ds.classes['user'].labels[:300], diversity=.4, damping=.3)
    steered = pd.read_parquet(recommend_distributed(bundle, tmp_path/'steered', part_size=256, workers=1, **knobs))
    pd.testing.assert_frame_equal(steered, rec.recommend(**knobs), check_dtype=False, check_categorical=False, rtol=1e-4)
    users = rec.ds.classes['user'].labels[::-1][:600]
    pd.DataFrame(dict(user=users, other=1)).to_parquet(tmp_path/'users.parquet')
    items = list(rec.ds.classes['title'].labels[:50])
    equal(recommend_distributed(bundle, tmp_path/'some', tmp_path/'users.parquet', n=3, items=items, exclude_seen=False, part_size=256, workers=1), rec.recommend(users, n=3, items=items, exclude_seen=False))

@pytest.mark.parametrize('workers', [1,*seldom(2)])
def test_killed_worker_costs_a_retry(local_ray, bundle, tmp_path, workers):
    killed = []
    def kill():
        while not killed:
            time.sleep(.01)
            if len([*(tmp_path/'out').glob('part-*.parquet')])<=3: continue
            workers = [o for o in psutil.Process().children(recursive=True) if o.is_running() and 'ray::Worker' in o.name()+' '.join(o.cmdline())]
            if not workers: continue
            workers[0].kill()
            killed.append(workers[0].pid)
    thread = threading.Thread(target=kill, daemon=True)
    thread.start()
    users = list(load_recommender(bundle).ds.classes['user'].labels)*2
    out = recommend_distributed(bundle, tmp_path/'out', users, n=20, part_size=32, workers=workers)
    thread.join(5)
    assert killed
    equal(out, load_recommender(bundle).recommend(users, n=20))

def test_folders_and_users_that_are_refused(local_ray, bundle, tmp_path):
    out = recommend_distributed(bundle, tmp_path/'out', n=2, part_size=256, workers=1)
    for kwargs,what in ((dict(n=3), 'another n'),(dict(n=2, users=[845]), 'another users'),(dict(n=2, min_count=1), 'another min_count'),(dict(n=2, damping=.1), 'another damping')):
        with pytest.raises(ValueError, match=what): recommend_distributed(bundle, out, part_size=256, **kwargs)
    other = learner(RecDataLoaders.from_df(sample_ratings(), seed=1))
    with other.no_bar(),other.no_logging(): other.fit_bias()
    with pytest.raises(ValueError, match='another recommender'): recommend_distributed(other.save_recommender(tmp_path/'other'), out, n=2, part_size=256)
    (out/'notes.txt').touch()
    with pytest.raises(ValueError, match="holds 'notes.txt', which is not from recommend_distributed"): recommend_distributed(bundle, out, n=2, part_size=256)
    (tmp_path/'parts').mkdir()
    (tmp_path/'parts'/'part-000000.parquet').touch()
    with pytest.raises(ValueError, match='parts without a _job.json'): recommend_distributed(bundle, tmp_path/'parts', n=2)
    with pytest.raises(ValueError, match='n=0'): recommend_distributed(bundle, tmp_path/'new', n=0)
    with pytest.raises(KeyError, match="'nobody'"): recommend_distributed(bundle, tmp_path/'new', ['nobody'])
    pd.DataFrame(dict(member=[845])).to_parquet(tmp_path/'users.parquet')
    with pytest.raises(KeyError, match="no column 'user'; there are member"): recommend_distributed(bundle, tmp_path/'new2', tmp_path/'users.parquet')

@pytest.mark.long
def test_a_job_goes_on_for_the_same_users_alone(local_ray, bundle, tmp_path):
    "Users from a file are known by their labels and the pieces they come in, not by their number and the name of the file"
    rec,file = load_recommender(bundle),tmp_path/'users.parquet'
    labels = list(rec.ds.classes['user'].labels)
    def write(users, file=file, size=1000): pd.DataFrame(dict(user=users)).to_parquet(file, row_group_size=size)
    def go_on(file=file): return recommend_distributed(bundle, tmp_path/'out', file, n=2, part_size=100, workers=1)
    write(labels[:300])
    out = go_on()
    parts = sorted(out.glob('*.parquet'))
    parts[1].rename(out/(parts[1].name+'.part'))                  # as an interrupted job leaves it
    (out/'_job.json.part').write_text('{', encoding='utf-8')
    (out/'part-000002.parquet.0123abcd.part').touch()             # as a worker that was killed leaves it
    for other in (labels[1:301], labels[:299]+labels[298:299], labels[299::-1]):
        write(other)
        with pytest.raises(ValueError, match="lists for another users, '300 users, .* and not '300 users, "): go_on()
    write(labels[:300], size=60)
    with pytest.raises(ValueError, match='lists for another users'): go_on()
    assert sorted(out.glob('*.parquet'))==[parts[0],parts[2]]
    write(labels[:300], tmp_path/'moved.parquet')
    equal(go_on(tmp_path/'moved.parquet'), rec.recommend(labels[:300], n=2))

@pytest.mark.long
def test_a_damaged_job(local_ray, bundle, tmp_path):
    out = recommend_distributed(bundle, tmp_path/'out', [845], n=2, workers=1)
    for text in ('{"recom', '[1]', '3'):
        (out/'_job.json').write_text(text, encoding='utf-8')
        with pytest.raises(ValueError, match='_job.json is damaged'): recommend_distributed(bundle, out, [845], n=2)
    (out/'_job.json').write_text('{}', encoding='utf-8')
    with pytest.raises(ValueError, match='another recommender, None and not'): recommend_distributed(bundle, out, [845], n=2)

def test_arguments_of_lists_are_checked_first(local_ray, bundle, tmp_path):
    title = load_recommender(bundle).ds.classes['title'].labels[3]
    with pytest.raises(TypeError, match='exclude_seen must be True or False, not DataFrame'): recommend_distributed(bundle, tmp_path/'out', exclude_seen=sample_ratings())
    with pytest.raises(ValueError, match='workers=0'): recommend_distributed(bundle, tmp_path/'out', workers=0)
    for name in ('n','part_size','workers'):
        with pytest.raises(TypeError, match=f'{name}=1.5 must be a whole number'): recommend_distributed(bundle, tmp_path/'out', **{name: 1.5})
    assert not (tmp_path/'out').exists()
    equal(recommend_distributed(bundle, tmp_path/'out', [845], items=title, exclude_seen=False, workers=1), load_recommender(bundle).recommend(845, items=[title], exclude_seen=False))

@pytest.mark.long
def test_tables_in_parts():
    pytest.importorskip('torchrec')
    root = Path(__file__).parents[1]
    done = subprocess.run([sys.executable, root/'tools'/'run_code.py', root/'nbs'/'guides'/'sharded_tables.ipynb'], capture_output=True, text=True, timeout=110)
    assert not done.returncode, done.stderr
    assert "process 1 holds {'user': (500, 16), 'title': (300, 16)} of {'user': 1001, 'title': 601}" in done.stdout
