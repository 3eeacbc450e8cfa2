"""Screens: lists by rough numbers are exact, whatever rounds them, and wherever what makes them fast is missing or wrong"""
import os,re,subprocess,sys
from types import SimpleNamespace
import numpy as np,pandas as pd,pytest,torch
from conftest import catalogue,seldom
from fastrec.answer import byte_screens as module
from fastrec.all import Seen
from fastrec.answer.byte_screens import ByteScreen,OneDNN,PlainBytes,as_plain,as_whole,hard_bytes,multiplies_bytes,multiplies_halves,rounds_once,rounds_products,screen_for,works
from fastrec.answer.screens import HalfScreen,half_products,largest_product

cpu = torch.device('cpu')

class PlainScreen(ByteScreen):
    "The bytes of any machine"
    kernel = PlainBytes

class WideScreen(HalfScreen):
    "What a GPU does that might round parts of a sum: keys in float32"
    def keys(self, b): return (self.half_u[b].float()@self.half_i.float().T).view(torch.int32)

def screens():
    "Each kind of screen where it can run"
    cuda = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device')]
    slow = pytest.mark.skipif(not multiplies_bytes(), reason='no instructions for products of bytes')
    return [pytest.param('cpu', HalfScreen, id='half-cpu'), pytest.param('cpu', WideScreen, id='wide-cpu'), pytest.param('cuda', HalfScreen, id='half-cuda', marks=cuda),
            pytest.param('cpu', PlainScreen, id='plain-bytes'), pytest.param('cpu', ByteScreen, id='bytes', marks=slow)]

def same_codes(a, b): return a[['user','rank','item']].equals(b[['user','rank','item']])

@pytest.mark.parametrize('device,screen', screens())
@pytest.mark.parametrize('kind', ['random','flat','alike','one sign','zero','no factors','crowd','far off','no number','seen'])
def test_screening_changes_nothing(monkeypatch, kind, device, screen):
    torch.manual_seed(3)
    nu,ni,n = (300,10258,10) if kind=='seen' else (300,9000,5)
    u,i = torch.randn(nu, 12),torch.randn(ni, 12)
    if kind=='flat': i = i*1e-4+1
    if kind=='alike': i = i[torch.arange(ni)%700]
    if kind=='one sign': u,i = u.abs(),-i.abs()
    if kind=='zero': u[::2] = 0
    if kind=='no factors': u,i = u[:,:0],i[:,:0]
    if kind=='crowd': i[:2000] = 4*u[7]+.1*torch.randn(2000, 12)
    if kind=='far off': i[50:70] *= 100
    if kind=='no number': u[9] = torch.nan
    x = torch.randint(1, nu+1, (60_000,2)) if kind!='flat' else torch.stack([torch.ones(ni), torch.arange(1, ni+1)], 1).long()
    if kind=='seen': x = torch.stack([torch.full((ni-4,), 3), torch.arange(1, ni-3)], 1)  # all but the last, beside padding
    rec = catalogue(u, i, Seen(x, nu+1, ni+1, torch.ones(ni+1, dtype=int)))
    if kind=='alike': rec.model.i_bias.weight.data.zero_()
    rec.model.to(device)
    runs,unsure,best = [],[],screen.best
    def spy(*args):
        res = best(*args)
        unsure.append((~res[2]).sum().item())
        return res
    monkeypatch.setattr(screen, 'best', spy)
    for used in (screen,None):
        monkeypatch.setattr(module, 'screen_for', lambda device, used=used: used)
        runs.append(rec.recommend(n=n))
    if kind in ('random','one sign'): assert sum(unsure)<nu/10
    if kind in ('flat','alike','zero','no number'): assert sum(unsure)>0
    if kind=='no number': runs = [o[o.user!=9] for o in runs]
    assert len(runs[1])==nu*n-n*(kind in ('flat','no number'))-6*(kind=='seen')
    if kind not in ('flat','zero'): assert same_codes(*runs)
    np.testing.assert_allclose(runs[0].score, runs[1].score, rtol=2e-6, atol=1e-5)
    scores = rec.predict_grid().cpu().numpy()
    np.testing.assert_allclose(scores[runs[0].user,runs[0].item], runs[0].score, rtol=2e-6, atol=1e-5)

@pytest.mark.parametrize('device,screen', screens())
def test_lists_of_parts_that_are_screened_are_those_of_everyone(monkeypatch, device, screen):
    "To the last bit: smaller parts are not screened, and their scores may be added up in another order"
    torch.manual_seed(4)
    alike = torch.randn(300, 12).repeat(30, 1)+.05*torch.randn(9000, 12)
    rec = catalogue(torch.randn(700, 12), alike)
    rec.model.to(device)
    monkeypatch.setattr(module, 'screen_for', lambda device: screen)
    parts = [rec.recommend(list(users), exclude_seen=False) for users in (range(270), range(270, 700))]
    assert pd.concat(parts, ignore_index=True).equals(rec.recommend(exclude_seen=False))

# ------------------------------------------------------------------ bounds
factors = dict(normal=lambda *s: torch.randn(s), tail=lambda *s: torch.randn(s)*torch.rand(s[0], 1)**-.7, positive=lambda *s: torch.rand(s),
               sparse=lambda *s: torch.randn(s)*(torch.rand(s)<.1), scales=lambda *s: torch.randn(s)*10**torch.linspace(-3, 3, s[1]),
               constant=lambda *s: torch.randn(s)*torch.cat([torch.zeros(1), torch.ones(s[1]-1)])+100, tiny=lambda *s: 1e-12*torch.randn(s))

@pytest.mark.parametrize('k', [1,3,64,130])
@pytest.mark.parametrize('items', factors)
@pytest.mark.parametrize('device,screen', screens())
def test_no_product_is_above_its_bound(device, screen, items, k):
    torch.manual_seed(k)
    u,i = factors['normal'](40, k).to(device),factors[items](7000, k).to(device)
    made = screen(u, i, u, 5)
    b = slice(0, 40)
    keys = made.keys(b)[:,:7000]
    exact = (u.double()@i.double().T).cpu()
    at_most = (made.at_most(b, keys.T.contiguous()).T.double() + (made.error+made.offset).double()[:,None]).cpu()
    assert (exact<=at_most)[(keys>0).cpu()].all()

@pytest.mark.parametrize('kernel', [PlainBytes, pytest.param(OneDNN, marks=pytest.mark.skipif(not multiplies_bytes(), reason='no instructions for products of bytes'))])
def test_a_byte_is_at_most_half_a_step_off(kernel):
    torch.manual_seed(1)
    class Made(ByteScreen): pass
    Made.kernel = kernel
    u,i = torch.randn(256, 16),torch.randn(8000, 16)
    i[5] = 3*u[40]
    made = Made(u, i, u[:32], 5)
    keys = made.keys(slice(0, 256))[:,:8000]
    sums = (made.bytes_u.double()-128)@as_whole(i-made.mean)[0].double().T
    steps = sums*made.i_scale[:8000].double()/made.step
    told = (keys>0) & (keys<255)
    off = (steps-keys.double())[told]
    assert .4999<off.max()<.501 and -.501<off.min()<-.4999
    rough = steps*made.step*made.u_scale.double()[:,None]
    at_most = made.at_most(slice(0, 256), keys.T.contiguous()).T.double()
    assert (rough<=at_most)[told].all() and (at_most[keys==255]==torch.inf).all() and (keys==255).any()

@pytest.mark.parametrize('in_float32', [False,True])
def test_a_half_is_at_most_one_rounding_off(in_float32):
    torch.manual_seed(1)
    u,i = torch.randn(256, 16).bfloat16(),torch.randn(8000, 16).bfloat16()
    keys = (u.float()@i.float().T).view(torch.int32) if in_float32 else half_products(u, i, False)
    exact = u.double()@i.double().T
    room = 16*2**-24*u.double().norm(dim=1)[:,None]*i.double().norm(dim=1)
    assert (exact <= largest_product(keys).double()+room)[keys>0].all()
    if not in_float32: assert (exact > largest_product(keys).double()/(1+2**-8)*(1+.9*2**-8))[keys>0].any()

# ------------------------------------------------------------------ the arithmetic of bytes
def test_plain_bytes_by_hand():
    u = torch.tensor([[127,130],[128,128],[255,255],[1,1]], dtype=torch.uint8)  # (-1,2) (0,0) (127,127) (-127,-127)
    i = torch.tensor([[3,4],[0,-9],[127,127],[0,0]], dtype=torch.int8)
    want = [[2,0,32,0],[0,0,0,0],[255,0,255,0],[0,255,0,0]]  # 5/2 goes to the even 2, 63.5/2 is 31.75, -18/2 is below zero, 1143/2 beyond a byte
    assert PlainBytes.multiply(u, PlainBytes.pack(i), torch.tensor([1.,1,.5,0]), 2.).tolist()==want

def test_hard_bytes_hold_what_goes_wrong():
    u,i,scale,step = hard_bytes()
    exact = np.int64(u.numpy()-128.)@np.int64(i.numpy()).T
    assert exact[0,0]==70*127**2==-exact[1,0]==exact[2,2] and (exact[3]==0).all() and not exact[:,600:].any()
    steps = exact*scale.numpy()/step
    assert (steps>256).any() and (steps<-1).any() and len({*scale[:600].tolist()})==3
    assert np.abs(steps%1-.5)[(steps>0)&(steps<255)].min()>1e-4  # none is a matter of taste
    assert np.array_equal(PlainBytes.multiply(u, i, scale, step).numpy(), np.clip(np.round(steps), 0, 255))

@pytest.mark.skipif(not multiplies_bytes(), reason='no instructions for products of bytes')
@pytest.mark.parametrize('k', [1,3,31,64,65,200,700])
def test_the_kernel_is_the_plain_one_bit_for_bit(k):
    g = torch.Generator().manual_seed(k)
    for n_users,n_items in ((1,4096),(7,640),(256,4096)):
        u = torch.randint(1, 256, (n_users,k), generator=g, dtype=torch.uint8)
        i = torch.randint(-127, 128, (n_items,k), generator=g, dtype=torch.int8)
        scale = torch.rand(n_items, generator=g)
        step = float(k**.5*(20+20*torch.rand(1, generator=g)))
        want = PlainBytes.multiply(u, i, scale, step)
        assert torch.equal(OneDNN.multiply(u, OneDNN.pack(i), scale, step), want)
    assert (want==255).any() and (want==0).any() and len(want.unique())>100

# ------------------------------------------------------------------ kernels that are missing or wrong
def changed(change=None, pack=None):
    "A kernel that isn't `PlainBytes` in one respect"
    class Changed:
        multiply = staticmethod(change or PlainBytes.multiply)
    Changed.pack = staticmethod(pack or PlainBytes.pack)
    return Changed

def fail(error):
    def f(*args, **kwargs): raise error
    return f

def in_16_bits(u, i, scale, step):
    pairs = u.double().unflatten(1, (-1,2))[:,None]*i.double().unflatten(1, (-1,2))
    sums = pairs.sum(3).clamp(-2**15, 2**15-1).sum(2) - 128*i.double().sum(1)
    return (sums*scale/step).round().clamp(0, 255).byte()

def one_off(u, i, scale, step):
    res = PlainBytes.multiply(u, i, scale, step)
    res[-1,5] ^= 1
    return res

plain = PlainBytes.multiply
broken = {
    'missing': (changed(fail(AttributeError("'_OpNamespace' 'onednn' object has no attribute 'qlinear_pointwise'"))), 'fail here .AttributeError'),
    'another signature': (changed(fail(TypeError('onednn::qlinear_pointwise() is missing value for argument'))), 'fail here .TypeError: onednn::qlinear_pointwise'),
    'no such pack': (changed(pack=fail(RuntimeError('could not create a primitive\nby oneDNN'))), r'fail here .RuntimeError: could not create a primitive\)'),
    'no message': (changed(fail(NotImplementedError())), 'fail here .NotImplementedError: '),
    'sums of 16 bits': (changed(in_16_bits), 'other numbers'), 'one byte': (changed(one_off), 'other numbers'),
    'no zero point': (changed(lambda u,i,scale,step: plain(u.int()+128, i, scale, step)), 'other numbers'),
    'wraps': (changed(lambda u,i,scale,step: (((u.double()-128)@i.double().T).float()*scale/step).round().long().byte()), 'other numbers'),
    'one scale': (changed(lambda u,i,scale,step: plain(u, i, scale[:1], step)), 'other numbers'),
    'rounds down': (changed(lambda u,i,scale,step: (((u.double()-128)@i.double().T).float()*scale/step).floor().clamp(0, 255).byte()), 'other numbers'),
    'blocks alone': (changed(lambda u,i,scale,step: plain(u, i, scale, step) if len(u)>1 else plain(u, i, scale, step)*0), 'other numbers'),
    'another type': (changed(lambda u,i,scale,step: plain(u, i, scale, step).int()), 'other numbers'),
}

@pytest.fixture
def anew(monkeypatch):
    "A process that has checked nothing yet, on a CPU with all instructions"
    works.cache_clear()
    monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: dict(avx2=True, avx512_vnni=True), raising=False)
    yield
    works.cache_clear()

@pytest.fixture(scope='module')
def films():
    torch.manual_seed(0)
    rec = catalogue(torch.randn(300, 8), torch.randn(7000, 8), Seen(torch.randint(1, 300, (9000,2)), 301, 7001, torch.ones(7001, dtype=int)))
    with pytest.MonkeyPatch.context() as p:
        p.setattr(module, 'screen_for', lambda device: None)
        return rec,rec.recommend(n=3)

@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize('how', broken)
def test_what_is_broken_is_not_used(monkeypatch, caplog, anew, films, how):
    kernel,said = broken[how]
    monkeypatch.setattr(module.torch.ops, 'onednn', SimpleNamespace(qlinear_pointwise=None))
    monkeypatch.setattr(ByteScreen, 'kernel', kernel)
    for _ in range(2):
        assert screen_for(cpu) is None
        assert films[0].recommend(n=3).equals(films[1])
    assert [o.levelname for o in caplog.records]==['WARNING']
    assert re.search(said, caplog.text) and 'stay exact' in caplog.text

def test_what_is_right_is_used_and_checked_once(monkeypatch, caplog, anew, films):
    calls = []
    def count(*args):
        calls.append(len(args[0]))
        return plain(*args)
    monkeypatch.setattr(module.torch.ops, 'onednn', SimpleNamespace(qlinear_pointwise=None))
    monkeypatch.setattr(ByteScreen, 'kernel', changed(count))
    assert screen_for(cpu) is screen_for(cpu) is ByteScreen
    assert calls==[1,256] and not caplog.records
    assert same_codes(films[0].recommend(n=3), films[1]) and len(calls)>2

def test_a_torch_without_the_operators_says_nothing(monkeypatch, caplog, anew, films):
    monkeypatch.setattr(module.torch.ops, 'onednn', SimpleNamespace())
    assert screen_for(cpu) is None and films[0].recommend(n=3).equals(films[1]) and not caplog.records

def test_a_cpu_without_the_instructions_says_nothing(monkeypatch, caplog, anew):
    for caps in (dict(avx2=True), {}):
        monkeypatch.setattr(torch.cpu, 'get_capabilities', lambda: caps)
        assert screen_for(cpu) is None
    monkeypatch.delattr(torch.cpu, 'get_capabilities')  # an older torch
    assert screen_for(cpu) is None and not caplog.records

ask = """
import torch,fastrec.answer.byte_screens as s
torch.manual_seed(0)
kind = s.screen_for(torch.device('cpu'))
print(kind and kind.__name__)
if kind: print(s.as_plain(kind.kernel))
"""
@pytest.mark.parametrize('name,value', [('ONEDNN_MAX_CPU_ISA','AVX2'), *seldom(('ONEDNN_MAX_CPU_ISA','AVX512_CORE')), ('ATEN_CPU_CAPABILITY','default'), *seldom(('ATEN_CPU_CAPABILITY','avx2'))])
def test_instructions_that_are_switched_off(name, value):
    "oneDNN without VNNI gives wrong products, which nothing but looking at them tells; PyTorch's own switch doesn't change it"
    run = subprocess.run([sys.executable, '-c', ask], env=os.environ|{name: value}, capture_output=True, text=True, timeout=300)
    assert run.returncode==0, run.stderr
    kind,*right = run.stdout.split()
    if not multiplies_bytes(): assert kind=='None' and not run.stderr
    elif name=='ONEDNN_MAX_CPU_ISA': assert kind=='None' and run.stderr.count('stay exact')==1
    else: assert kind=='ByteScreen' and right==['True'] and not run.stderr

# ------------------------------------------------------------------ what the process has switched
def test_rounded_products_are_not_screened(monkeypatch, anew):
    monkeypatch.setattr(module, 'multiplies_bytes', lambda: True)
    monkeypatch.setattr(module, 'multiplies_halves', lambda device: True)
    gpu = torch.device('cuda')
    assert screen_for(cpu) is ByteScreen and screen_for(gpu) is HalfScreen
    with torch.autocast('cpu'): assert screen_for(cpu) is None and screen_for(gpu) is HalfScreen
    try:
        torch.set_float32_matmul_precision('medium')
        assert screen_for(cpu) is None and screen_for(gpu) is None
    finally: torch.set_float32_matmul_precision('highest')
    allowed = torch.backends.cuda.matmul.allow_tf32
    try:
        torch.backends.cuda.matmul.allow_tf32 = True
        assert screen_for(gpu) is None
    finally: torch.backends.cuda.matmul.allow_tf32 = allowed
    assert screen_for(cpu) is ByteScreen and screen_for(gpu) is HalfScreen

def test_lists_are_ranked_as_asked_where_products_are_rounded(films):
    try:
        torch.set_float32_matmul_precision('medium')
        got,grid = films[0].recommend(n=3),films[0].predict_grid().numpy()
    finally: torch.set_float32_matmul_precision('highest')
    np.testing.assert_allclose(grid[got.user,got.item], got.score, atol=.03)

def test_no_switch_is_touched(monkeypatch):
    "Not even to set it to what it is, which would reset a part of it"
    for name in [o for o in dir(torch._C) if o.startswith(('_set_cublas_','_set_fp32','_set_float32'))]: monkeypatch.setattr(torch._C, name, fail(AssertionError(name)))
    torch.manual_seed(0)
    u,i = torch.randn(300, 8),torch.randn(7000, 8)
    for kind in (HalfScreen,PlainScreen): kind(u, i, u, 3).keys(slice(0, 256))
    rounds_products(cpu),rounds_products(torch.device('cuda')),rounds_once(cpu, False)

def test_each_gpu_is_asked_for_itself(monkeypatch, anew):
    monkeypatch.setattr(torch.version, 'hip', None)
    monkeypatch.setattr(torch.cuda, 'get_device_capability', lambda device: (7,5) if device.index==1 else (9,0))
    asked = []
    monkeypatch.setattr(module, 'works', lambda what,check,*args: asked.append(args) or True)
    monkeypatch.setattr(torch.ops.aten.mm, 'overloads', lambda: ['default','dtype'])
    monkeypatch.setattr(module, 'reduces_in_half', lambda: True)
    assert multiplies_halves(torch.device('cuda', 0)) and not multiplies_halves(torch.device('cuda', 1))
    assert asked==[(torch.device('cuda', 0), True)]
    monkeypatch.setattr(torch.ops.aten.mm, 'overloads', lambda: ['default'])  # before torch 2.8
    assert not multiplies_halves(torch.device('cuda', 0))
    monkeypatch.setattr(module, 'reduces_in_half', lambda: False)
    assert multiplies_halves(torch.device('cuda', 0)) and asked[-1]==(torch.device('cuda', 0), False)

def test_sums_that_are_rounded_in_parts_are_noticed(monkeypatch):
    def in_parts(u, i, in_float32):
        res = sum((u[:,o:o+16]@i[:,o:o+16].T).float() for o in range(0, u.shape[1], 16))
        return res.view(torch.int32) if in_float32 else res.bfloat16().view(torch.int16)
    assert rounds_once(cpu, False)
    monkeypatch.setattr(module, 'half_products', in_parts)
    assert not rounds_once(cpu, False) and not rounds_once(cpu, True)
