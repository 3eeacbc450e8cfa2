"""Loops that numba compiles give what PyTorch's operators give, for any number of threads; their absence, and that of a cache folder, are told"""
import builtins,os,subprocess,sys,warnings
from pathlib import Path
import pytest,torch
from fastai.basics import noop,partial
from fastrec.all import FusedAdam,RecDataLoaders,RowRMSProp,learner,sample_ratings
from fastrec.base.processes import Part
from fastrec.base.threads import n_threads,one_thread
from fastrec.base import compiled as loops
from fastrec.fit import chosen as room
from fastrec.fit.chosen import Chosen

needs_numba = pytest.mark.skipif(not loops.can_compile(), reason='numba is an extra')

def choices(n=50, n_other=30, size=700, seed=0, **kwargs):
    gen = torch.Generator().manual_seed(seed)
    rows,cols = torch.randint(1, n, (size,), generator=gen),torch.randint(1, n_other, (size,), generator=gen)
    return Chosen(rows, cols, .1+torch.rand(size, generator=gen), n, n_other, **kwargs)

def sides(k, n=50, n_other=30):
    gen = torch.Generator().manual_seed(1)
    return torch.randn(n, k, generator=gen),torch.randn(n_other, k, generator=gen)

@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)

# ------------------------------------------------------------------ steps of conjugate gradients
@needs_numba
@pytest.mark.parametrize('k', [1,2,3,4,5,8,33,64])
@pytest.mark.parametrize('n_steps', [1,3,6])
def test_rows_are_those_of_operators(k, n_steps):
    c,(x,other) = choices(),sides(k)
    by_loop = c.solve(x, other, .5, .1, 1., n_steps)
    c.compiles = False
    by_operators = c.solve(x, other, .5, .1, 1., n_steps)
    assert torch.allclose(by_loop, by_operators, rtol=1e-3, atol=1e-3*by_operators.abs().max().item())
    assert not torch.equal(by_loop, x)

@needs_numba
def test_enough_steps_solve_the_equations_as_they_are_written():
    c,(x,other) = choices(),sides(4)
    found = c.solve(torch.zeros_like(x), other, .5, .3, .5, n_steps=8).double()
    other = other.double()
    w = torch.zeros(50, 30, dtype=torch.double)
    for rows,m in c.blocks: w[rows] = m.to_dense().double()
    for r in range(50):
        lam = .3*(w[r].sum()+.5*29)**.5
        a = other.T@(w[r,:,None]*other) + .5*other.T@other + lam*torch.eye(4)
        assert torch.allclose(found[r], torch.linalg.solve(a, other.T@w[r]), atol=1e-4)

@needs_numba
def test_rows_do_not_depend_on_threads_nor_on_jobs(threads, monkeypatch):
    c,(x,other) = choices(),sides(9)
    threads(1)
    want = c.solve(x, other, .5, .1, 1.)
    for n,step in ((2,7),(3,1),(1,50)):
        threads(n)
        monkeypatch.setattr(room, '_rows_a_job', step)
        assert torch.equal(c.solve(x, other, .5, .1, 1.), want)
        with one_thread(): assert torch.equal(c.solve(x, other, .5, .1, 1.), want)

@needs_numba
def test_what_shares_no_memory_in_order_is_read_right():
    c,(x,other) = choices(),sides(6)
    want = c.solve(x, other, .5, .1, 1.)
    turned = [o.T.contiguous().T for o in (x,other)]
    assert torch.allclose(c.solve(*turned, .5, .1, 1.), want, atol=1e-5)

@needs_numba
def test_processes_share_the_rows(monkeypatch):
    monkeypatch.setattr(room, 'add_up', lambda part, t: t)
    x,other = sides(5)
    whole = choices().solve(x, other, .5, .1, 1.)
    halves = [choices(part=Part(k, 2)).solve(x, other, .5, .1, 1.) for k in (0,1)]
    assert torch.equal(halves[0]+halves[1], whole)
    assert all((o==0).all(1).any() for o in halves)

@needs_numba
def test_fit_ials_is_the_same_without_numba(monkeypatch):
    def found():
        learn = learner(RecDataLoaders.from_df(sample_ratings(), seed=1))
        with learn.no_bar(),learn.no_logging(): learn.fit_ials(8, 4)
        return learn.model.user_factors@learn.model.item_factors.T
    with_numba = found()
    monkeypatch.setattr(room, 'may_run', lambda device: False)
    assert torch.allclose(found(), with_numba, atol=1e-3)

# ------------------------------------------------------------------ threads
def test_threads_are_those_from_before_one_thread(threads):
    threads(3)
    with one_thread():
        assert (torch.get_num_threads(),n_threads())==(1,3)
        with one_thread(): assert n_threads()==3
        assert n_threads()==3
    assert n_threads()==3
    threads(1)
    assert n_threads()==1

def test_jobs_keep_their_order_and_errors_come_out(threads):
    threads(4)
    assert loops.in_threads(divmod, ((k,3) for k in range(20)))==[divmod(k, 3) for k in range(20)]
    assert loops.in_threads(divmod, [])==[]
    with pytest.raises(ZeroDivisionError): loops.in_threads(divmod, [(1,1),(1,0),(2,1)])

# ------------------------------------------------------------------ without numba, or a folder to write
def test_fastrec_does_not_import_numba():
    run = subprocess.run([sys.executable, '-c', "import sys,fastrec.all; print('numba' in sys.modules)"], capture_output=True, text=True)
    assert run.stdout.strip()=='False', run.stderr

@pytest.fixture
def without_numba(monkeypatch):
    real = builtins.__import__
    def none(name, *args, **kwargs):
        if name.split('.')[0]=='numba': raise ImportError('Numba needs NumPy 2.1 or less')
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', none)
    monkeypatch.setitem(sys.modules, 'numba', None)
    loops.can_compile.cache_clear()
    yield
    loops.can_compile.cache_clear()

def test_an_absent_numba_is_named_by_who_needs_it(without_numba):
    with pytest.raises(ImportError, match='numba is needed for this: pip install numba'): loops.compiled(lambda x: x)(1)

def test_a_numba_that_cannot_be_used_is_told_once(without_numba, monkeypatch):
    monkeypatch.setattr(loops.importlib.util, 'find_spec', lambda name: object())
    with pytest.warns(UserWarning, match='cannot be used, so loops are not compiled: Numba needs NumPy 2.1'): assert not loops.can_compile()
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        assert not loops.can_compile()

@needs_numba
def test_no_folder_to_write_is_told_and_compiles_all_the_same(monkeypatch):
    import numba
    real = numba.njit
    def njit(cache=False, **kwargs):
        if cache: raise RuntimeError("cannot cache function 'f': no locator available")
        return real(**kwargs)
    monkeypatch.setattr(numba, 'njit', njit)
    with pytest.warns(UserWarning, match='compiled again in each process.*NUMBA_CACHE_DIR.*no locator'): assert loops.compiled(lambda x: x+1)(2)==3

@needs_numba
def test_machine_code_is_kept_for_the_next_process(tmp_path):
    code = "import torch; from fastrec.fit.chosen import Chosen; o=torch.ones(3).long(); Chosen(o,o,o.float(),2,2).solve(torch.ones(2,2),torch.ones(2,2),.5,.1,1.)"
    env = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path)}
    subprocess.run([sys.executable, '-c', code], env=env, check=True, capture_output=True)
    assert [*tmp_path.rglob('*closer_rows*.nbc')]

@needs_numba
def test_machine_code_is_made_again_if_what_it_calls_changes(tmp_path):
    "In another file, however deep: after an upgrade, say"
    head = 'from fastrec.base.compiled import compiled,inlined'
    (tmp_path/'inner.py').write_text(f'{head}\n@inlined\ndef one(): return 1\n', encoding='utf-8')
    (tmp_path/'middle.py').write_text(f'{head}\nfrom inner import one\n@compiled\ndef two(): return one()+1\n', encoding='utf-8')
    (tmp_path/'outer.py').write_text(f'{head}\nfrom middle import two\n@compiled\ndef three(): return two()+1\nprint(three())\n', encoding='utf-8')
    env = {**os.environ, 'NUMBA_CACHE_DIR': str(tmp_path/'kept'), 'PYTHONPATH': f'{Path(__file__).parents[1]}{os.pathsep}{tmp_path}', 'PYTHONDONTWRITEBYTECODE': '1'}
    def run(): return subprocess.run([sys.executable, tmp_path/'outer.py'], env=env, check=True, capture_output=True, text=True).stdout.strip()
    def kept(): return len([*tmp_path.rglob('*three*.nbc')])
    assert (run(),kept())==(run(),kept())==('3',1)
    (tmp_path/'inner.py').write_text(f'{head}\n@inlined\ndef one(): return 100\n', encoding='utf-8')
    assert run()=='102'

@needs_numba
def test_a_numba_that_is_switched_off_is_not_asked():
    "Its loops would run as Python"
    code = 'from fastrec.base.compiled import can_compile; print(can_compile())'
    run = subprocess.run([sys.executable, '-c', code], env={**os.environ, 'NUMBA_DISABLE_JIT': '1'}, capture_output=True, text=True)
    assert run.stdout.strip()=='False', run.stderr

# ------------------------------------------------------------------ steps of SGD
def frozen_factors(learn): learn.model.i_weight.weight.requires_grad_(False)
def many_threads(learn): torch.set_num_threads(4)

fits = dict(
    plain=dict(), a_sparse_table=dict(sparse=True), no_range=dict(y_range=None), cut_off=dict(clip=True), no_biases=dict(bias=False), no_factors=dict(n_factors=0),
    l2=dict(opt_func=partial(FusedAdam, decouple_wd=False)), frozen=dict(change=frozen_factors), threads=dict(change=many_threads), odd=dict(n_factors=7))

def weights_after(n_epoch=2, change=noop, n_factors=5, clip=False, **kwargs):
    "Weights and losses of a fit, and whether loops ran"
    dls = RecDataLoaders.from_df(sample_ratings(), seed=0, bs=64)
    learn = learner(dls, n_factors=n_factors, seed=0, shrink=False, **kwargs)
    learn.model.clip = clip
    change(learn)
    with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(n_epoch)
    return [o.detach().clone() for o in learn.model.parameters()],torch.stack(learn.recorder.losses)

@needs_numba
@pytest.mark.parametrize('kind', fits)
def test_sgd_by_loops_and_by_operators_is_the_same(kind, monkeypatch, threads):
    by_loops = weights_after(**fits[kind])
    called = []
    monkeypatch.setattr('fastrec.models.step_loops.may_run', lambda device: called.append(1))
    by_operators = weights_after(**fits[kind])
    assert called
    for a,b in zip((*by_loops[0],by_loops[1]), (*by_operators[0],by_operators[1])): assert torch.allclose(a, b, rtol=1e-3, atol=1e-4)

@needs_numba
def test_codes_beyond_a_table_are_refused_before_anything_is_read():
    from fastrec.models.trainable import DotBias
    m,y = DotBias(3, 4, 5),torch.ones(2)
    for bad in ([[1,5],[1,1]],[[1,1],[4,1]],[[-1,1],[1,1]],[[1,1],[1,-2]]):
        with pytest.raises(IndexError, match='tables have 4 and 5 rows'): m.mse_step(torch.tensor(bad), y)

@needs_numba
def test_memory_for_rows_is_free_after_a_step_and_not_in_what_is_saved(tmp_path):
    dls = RecDataLoaders.from_df(sample_ratings(), seed=0, bs=64, path=tmp_path)
    learn = learner(dls, n_factors=5, seed=0, sparse=True)
    with learn.no_bar(),learn.no_logging(): learn.fit(1)
    assert learn.opt.places and all((o==-1).all() for o in learn.opt.places.values())
    assert not any('place' in k for s in learn.opt.state_dict()['state'] for k in s)

def table_of_users(n, k=3): return torch.nn.Embedding(n, k)

@needs_numba
@pytest.mark.parametrize('wrong', ['short biases','narrow items','a gradient of before','short targets','codes of users alone','codes as floats','nothing'])
def test_what_does_not_fit_together_is_left_to_operators(wrong, monkeypatch):
    from fastrec.models.trainable import DotBias
    m,x,y = DotBias(3, 40, 50),torch.tensor([[1,1],[39,49]]),torch.ones(2)
    m.mse_step(x, y)
    if wrong=='short biases': m.u_bias = table_of_users(10, 1)
    elif wrong=='narrow items': m.i_weight = table_of_users(50, 2)
    elif wrong=='a gradient of before': m.u_weight.weight.data,x = torch.randn(80, 3),torch.tensor([[79,1],[1,1]])
    elif wrong=='short targets': y = torch.ones(3)
    elif wrong=='codes of users alone': x = x[:,:1]
    elif wrong=='codes as floats':
        x = x.float()
        return m.mse_step(x, y)
    else:
        with pytest.raises(ZeroDivisionError): m.mse_step(x[:0], y[:0])
        return
    called = []
    monkeypatch.setattr('fastrec.models.trainable.mse_by_loop', lambda *args, **kwargs: called.append(1))
    with pytest.raises((IndexError,RuntimeError,ValueError)): m.mse_step(x, y)
    assert not called

@needs_numba
def test_averages_of_another_weight_are_refused():
    p = torch.nn.Parameter(torch.zeros(10, 100))
    opt = FusedAdam([p], lr=.1)
    p.grad = torch.ones_like(p)
    opt.step()
    p.data,p.grad = torch.zeros(10, 400),None
    p.grad = torch.ones_like(p)
    with pytest.raises(ValueError, match=r'shape \(10, 400\) has a gradient, or an average of gradients, of shape \(10, 100\)'): opt.step()

@needs_numba
@pytest.mark.parametrize('codes', [[0,9,10],[-1,0,1]])
def test_rows_beyond_a_table_are_refused_before_one_is_stepped(codes):
    p = torch.nn.Parameter(torch.zeros(10, 2))
    opt = RowRMSProp([p], lr=.1)
    p.grad = torch.sparse_coo_tensor([codes], torch.ones(3, 2), p.shape, check_invariants=False)
    with pytest.raises(IndexError, match='and the table has 10'): opt.step()
    assert not p.any() and (opt.places[10]==-1).all() and 'places' not in opt.__getstate__()

@needs_numba
@pytest.mark.parametrize('mom', [.9,.9999,.9999999])
@pytest.mark.parametrize('size', [1e-12,1e-3,1e10])
def test_steps_of_adam_are_those_of_its_formula(mom, size):
    "In double precision, for averages that hardly move, and for small and large gradients"
    p,eps = torch.nn.Parameter(torch.zeros(3)),1e-25
    opt = FusedAdam([p], lr=.1, mom=.9, sqr_mom=mom, eps=eps, wd=0.)
    grads = size*torch.tensor([[1.,-2,.5],[.5,1,1],[-1,0,2]], dtype=torch.double)
    w = avg = sqr = torch.zeros(3, dtype=torch.double)
    for t,g in enumerate(grads, 1):
        p.grad = g.float()
        opt.step()
        avg,sqr = .9*avg+.1*g,mom*sqr+(1-mom)*g*g
        w = w-.1*avg/(1-.9**t)/((sqr/(1-mom**t)).sqrt()+eps)
    assert torch.allclose(p.detach().double(), w, rtol=1e-3)

@needs_numba
def test_autograd_sees_that_a_weight_has_changed():
    p = torch.nn.Parameter(torch.ones(3))
    loss = (p*p).sum()
    p.grad = torch.ones(3)
    FusedAdam([p], lr=.1).step()
    with pytest.raises(RuntimeError, match='modified by an inplace operation'): loss.backward()

@needs_numba
@pytest.mark.parametrize('sparse', [False,True])
def test_numbers_out_of_range_are_seen(sparse):
    "Ratings of trillions, as durations in nanoseconds are, end as operators end them: learned by Adam, no number by squares of sums"
    df = sample_ratings().assign(rating=lambda o: o.rating*1e12)
    learn = learner(RecDataLoaders.from_df(df, seed=0, bs=64), n_factors=5, seed=0, sparse=sparse, shrink=False)
    with learn.no_bar(),learn.no_logging():
        if not sparse: learn.fit(1)
        else:
            with pytest.raises(FloatingPointError, match='no finite number'): learn.fit(1)
    assert all(o.isfinite().all() for o in learn.model.parameters())

def test_an_interrupt_while_numba_is_loaded_leaves_it_whole():
    code = '''
import os,signal,sys,threading,time
from fastrec.base.compiled import can_compile,compiled
def strike():
    while 'numba.core' not in sys.modules: time.sleep(.001)
    os.kill(os.getpid(), signal.SIGINT)
threading.Thread(target=strike).start()
try: can_compile()
except KeyboardInterrupt: print('interrupted')
@compiled
def twice(x): return 2*x
print(twice(4) if can_compile() else 8)'''
    if not loops.can_compile(): pytest.skip('numba is an extra')
    out = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert out.stdout.split()[-1]=='8', out
