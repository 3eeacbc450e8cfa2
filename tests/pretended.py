"""A pretended CUDA or MPS device, for machines without one.

    with Pretended('cuda') as gpu:
        x = torch.ones(3, device='cuda')
        x + torch.ones(3)  # RuntimeError: Expected all tensors to be on the same device
    print(gpu.waits)

All memory stays on the CPU. Each piece of it, a storage, bears a mark if it is said to lie on the device: one mode of PyTorch hands
marks on from the inputs of each operator to its results and refuses what a device would, another answers what Python asks of tensors.

It proves where tensors lie, that nothing mixes devices or draws by the wrong generator, that MPS meets no float64, which operators have a
kernel there, and where the host waits for the device, by what PyTorch's sources say of each operator. It proves nothing of kernels: neither
their speed nor their last bits, the order in which they add up, or dtypes that one of them lacks. Numbers are the CPU's, but the device has a
random generator of its own. One device, one thread, no collectives, no `torch.compile`; autocast is that of the CPU."""
import functools,sys
from collections import Counter,namedtuple
from contextlib import ExitStack,contextmanager,nullcontext
from pathlib import Path
import torch,torch._dynamo  # which the modes import, and which looks at torch.cuda before it is changed
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode,_disable_current_modes

# ------------------------------------------------------------------ marks
# By the address of a storage: a weak reference, which keeps the address from being used again, and the device. An attribute of the storage would
# not last: when PyTorch 2.9's storages lie in a cycle, as after `torch.save`, the garbage collector empties them, though a tensor has them still
_there = {}

def _marked(storage): return storage._cdata in _there

def _forget_the_dead():
    for k in [k for k,(ref,_,_) in _there.items() if ref.expired()]: del _there[k]

def _storages(t):
    "The pieces of memory of `t`, of which a sparse tensor has several"
    with torch._C.DisableTorchFunctionSubclass():
        if t.layout is torch.sparse_coo: parts = t._values(),t._indices()
        elif t.layout is torch.sparse_csr: parts = t.values(),t.crow_indices(),t.col_indices()
        elif t.layout is torch.strided: parts = t,
        else: return []  # packed for one of the CPU's own kernels
        return [o.untyped_storage() for o in parts]

def _addresses(t):
    "Of the storages of `t`; most have one, which is told at once"
    if type(t) is Tensor and t.layout is torch.strided: return t.untyped_storage()._cdata,
    return [s._cdata for s in _storages(t)]

def is_there(t):
    "Is the tensor `t` said to lie on the device?"
    return not _there.keys().isdisjoint(_addresses(t))

def _known(ts): return {o for t in ts for o in _addresses(t)}

def _tensors(*args):
    "All tensors in `args`, however nested; PyTorch's own way takes a third of a test's time"
    res = []
    for o in args:
        if isinstance(o, Tensor): res.append(o)
        elif isinstance(o, (tuple,list)): res += _tensors(*o)
        elif isinstance(o, dict): res += _tensors(*o.values())
    return res

def _generator(args, kwargs): return next((o for o in (*args, *kwargs.values()) if isinstance(o, torch._C.Generator)), None)

# ------------------------------------------------------------------ what a device would do
# Operators that make the host wait for the device, and how often, as of PyTorch's sources
waiting = {'bincount': 2, **dict.fromkeys('''_local_scalar_dense nonzero masked_select equal _unique _unique2 unique_dim unique_consecutive argwhere
    unique_dim_consecutive _linalg_check_errors _coalesce _to_sparse multinomial is_nonzero'''.split(), 1)}
# Operators, beside the elementwise ones, that take a CPU tensor without dimensions among tensors of the device
takes_scalars = '''where masked_fill masked_fill_ fill_ fill lerp lerp_ clamp clamp_ clamp_min clamp_max clamp_min_ clamp_max_ index_fill
    index_fill_ masked_scatter'''.split()
indexing = 'index index_put index_put_ _index_put_impl_ _unsafe_index _unsafe_index_put'.split()
unchecked = 'copy_ _to_copy _copy_from result_type can_cast set_ is_same_size lift_fresh lift detach alias'.split()

class _Operators(TorchDispatchMode):
    "Checks each operator, hands marks on, and counts"
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        gpu,kwargs,name,given = self.gpu,kwargs or {},_name(func),_tensors(args, kwargs)
        there = [t for t in given if is_there(t)]
        on_device = bool(there) or (not given and gpu.makes_there)
        if there:
            gpu.check(func, name, args, kwargs, given)
            gpu.count(name, args, kwargs)
        known = _known(given) if on_device else ()
        own = on_device and torch.Tag.nondeterministic_seeded in func.tags and _generator(args, kwargs) is None
        with gpu.own_random() if own else nullcontext(): res = func(*args, **kwargs)
        if on_device:
            made = _tensors(res)
            gpu.met[func,_layout([*given, *made])] += 1
            for o in [t for t in made if known.isdisjoint(_addresses(t))] + there: gpu.mark(o)
        return res

@functools.cache
def _name(func): return func._schema.name.split('::')[1]

def _layout(given):
    kinds = {t.layout for t in given}
    return ' SparseCsr' if torch.sparse_csr in kinds else ' Sparse' if torch.sparse_coo in kinds else ''

class _Python(TorchFunctionMode):
    "Answers what Python asks of tensors, and takes `device=` out of what is called"
    def __init__(self, gpu):
        super().__init__()
        self.gpu = gpu
    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func in answers: return answers[func](self.gpu, func, *args, **(kwargs or {}))
        if getattr(func, '__name__', '')=='__get__': return func(*args)  # of a property
        return self.gpu.called(func, args, kwargs or {})

answers = {}
def _answers(*funcs):
    def res(f): answers.update(dict.fromkeys(funcs, f))
    return res

def _ask(what, there): answers[what] = lambda gpu,func,t: there(gpu) if is_there(t) else func(t)
_ask(Tensor.device.__get__, lambda gpu: gpu.device)
_ask(Tensor.is_cuda.__get__, lambda gpu: gpu.device.type=='cuda')
_ask(Tensor.is_mps.__get__, lambda gpu: gpu.device.type=='mps')
_ask(Tensor.is_cpu.__get__, lambda gpu: False)
_ask(Tensor.get_device, lambda gpu: gpu.device.index)

@_answers(torch._C._nn._parse_to)
def _(gpu, func, *args, **kwargs): return func(*args, **kwargs)

@_answers(Tensor.to)
def _(gpu, func, t, *args, copy=False, **kwargs):
    if args and isinstance(args[0], Tensor): args = (gpu.device_of(args[0]),args[0].dtype,*args[1:])
    device,dtype,non_blocking,fmt = torch._C._nn._parse_to(*args, **kwargs)
    if device is not None and device.type!=gpu.device_of(t).type and device.type!='meta': return gpu.move(t, device, dtype, non_blocking)
    return func(t, dtype=t.dtype if dtype is None else dtype, copy=copy, **({} if fmt is None else dict(memory_format=fmt)))

@_answers(Tensor.cpu)
def _(gpu, func, t, **kwargs): return gpu.move(t, torch.device('cpu')) if is_there(t) else func(t, **kwargs)

@_answers(Tensor.cuda)
def _(gpu, func, t, device=None, non_blocking=False, **kwargs):
    if gpu.device.type!='cuda': return func(t, device, non_blocking)
    return t if is_there(t) else gpu.move(t, gpu.device, None, non_blocking)

@_answers(Tensor.numpy, Tensor.__array__)
def _(gpu, func, t, *args, force=False, **kwargs):
    if is_there(t) and not force:
        raise TypeError(f"can't convert {gpu.device} device type tensor to numpy. Use Tensor.cpu() to copy the tensor to host memory first.")
    return func(gpu.move(t.detach(), torch.device('cpu')) if is_there(t) else t, *args, **kwargs)

@_answers(Tensor.tolist)
def _(gpu, func, t):
    if is_there(t): gpu.waited('tolist')
    return func(t)

@_answers(Tensor.__deepcopy__)
def _(gpu, func, t, memo):
    res = func(t, memo)  # copies memory without an operator
    if is_there(t): gpu.mark(res)
    return res

@_answers(Tensor.__repr__)
def _(gpu, func, t, **kwargs):
    if is_there(t): gpu.waited('repr')
    with _disable_current_modes(),torch._C.DisableTorchFunction(): return func(t, **kwargs)

@_answers(torch.tensor, torch.as_tensor)
def _(gpu, func, data, *args, device=None, **kwargs):
    if isinstance(data, Tensor): return gpu.called(func, (data,*args), {**kwargs, **({} if device is None else dict(device=device))})
    mine = device is not None and torch.device(device).type==gpu.device.type
    res = func(data, *args, device=None if mine else device, **kwargs)
    return gpu.move(res, gpu.device) if mine else res  # as PyTorch does it: on the CPU first, and then by a copy that waits

@_answers(torch.mm)
def _(gpu, func, *args, out_dtype=None, **kwargs):
    "Products whose sums are of `out_dtype` are there on CUDA alone"
    return gpu.called(func, args if out_dtype is None else [o.to(out_dtype) for o in args], kwargs)

class _Move(torch.autograd.Function):
    @staticmethod
    def forward(ctx, t, gpu, there):
        ctx.gpu,ctx.back = gpu,is_there(t)
        return gpu.mark(t.clone(), there)
    @staticmethod
    def backward(ctx, g): return ctx.gpu.mark(g.clone(), ctx.back),None,None

class _AnyGenerator(type(torch._C.Generator)):
    def __instancecheck__(cls, o): return isinstance(o, torch._C.Generator)

class _Generator(torch._C.Generator, metaclass=_AnyGenerator):
    "`torch.Generator`, perhaps of the pretended device"
    pretended = None
    def __new__(cls, device='cpu'):
        there,device = Pretended.entered.device,torch.device(device)
        res = super().__new__(cls, 'cpu' if device.type==there.type else device)
        if device.type==there.type: res.pretended = there
        return res
    @property
    def device(self): return self.pretended or torch._C.Generator.device.__get__(self)

# ------------------------------------------------------------------ the device
_outside = Path(torch.__file__).parent.as_posix(),__file__,'<'

@functools.cache
def _whose(file):
    "Is the `file` of a line fastrec's, and its name, which is `None` for what is PyTorch's or this file's"
    return (False,None) if file.startswith(_outside) else ('fastrec' in Path(file).parts[-3:-1],Path(file).name)

class Pretended:
    """While entered, `device`, 'cuda' or 'mps', seems to be there, and, beyond `capacity` bytes, to be full.

    `waits` counts where the host would have waited, by line of fastrec and operator, `ops` the operators met on the device, `live` its bytes in use"""
    entered = None
    def __init__(self, device='cuda', capacity=None):
        self.device,self.capacity = torch.device(device, 0),capacity
        self.waits,self.met,self._makes = Counter(),Counter(),[]
        self.seed(0xC0DA)

    @property
    def ops(self): return Counter({f'{func}{layout}': n for (func,layout),n in self.met.items()})

    def seed(self, seed): self.random = torch._C.Generator('cpu').manual_seed(int(seed)).get_state()

    def __enter__(self):
        self.stack = ExitStack()
        self._change()
        self.stack.enter_context(_Operators(self))
        self.stack.enter_context(_Python(self))
        return self

    def __exit__(self, *exc):
        _forget_the_dead()
        return self.stack.__exit__(*exc)

    def _put(self, where, **values):
        for k,v in values.items():
            self.stack.callback(setattr, where, k, getattr(where, k))
            setattr(where, k, v)

    def _change(self):
        "What PyTorch knows of its devices"
        none,set_random = lambda *args, **kwargs: None,lambda state,*args: setattr(self, 'random', state.clone())
        shared = dict(empty_cache=none, synchronize=lambda *args: self.waited('synchronize'), manual_seed=self.seed, device_count=lambda: 1,
                      get_rng_state=lambda *args: self.random.clone(), set_rng_state=set_random)
        if self.device.type=='mps':
            self._put(torch.backends.mps, is_available=lambda: True)
            self._put(torch.mps, **shared)
        else:
            about = namedtuple('Properties', 'name total_memory multi_processor_count')('a pretended device', self.capacity or 2**36, 132)
            self._put(torch.cuda, **shared, is_available=lambda: True, current_device=lambda: self.device, manual_seed_all=self.seed, set_device=none,
                      is_bf16_supported=lambda including_emulation=True: True, get_device_name=lambda *args: about.name, get_device_capability=lambda *args: (9,0),
                      get_device_properties=lambda *args: about, mem_get_info=lambda *args: (about.total_memory-self.live, about.total_memory),
                      memory_allocated=lambda *args: self.live, _lazy_init=none, is_current_stream_capturing=lambda: False)
        if hasattr(torch, 'accelerator'): self._put(torch.accelerator, current_accelerator=none)  # a PyTorch made for CUDA asks the driver
        self._put(Pretended, entered=self)
        self._put(torch, Generator=_Generator)
        entry = (-1, lambda s: str(self.device) if _marked(s) else None, self._restored)  # where checkpoints come from and go to
        torch.serialization._package_registry.insert(0, entry)
        self.stack.callback(torch.serialization._package_registry.remove, entry)
        autocast = torch.amp.autocast_mode.autocast
        init = autocast.__init__
        @functools.wraps(init)
        def on_cpu(auto, device_type, *args, **kwargs): init(auto, 'cpu' if device_type==self.device.type else device_type, *args, **kwargs)
        self._put(autocast, __init__=on_cpu)

    def _restored(self, storage, location):
        if str(location).split(':')[0]!=self.device.type: return None
        self._mark(storage)
        return storage

    @contextmanager
    def own_random(self):
        "Random numbers without a generator come from the device's own"
        kept = torch.default_generator.get_state()
        torch.default_generator.set_state(self.random)
        try: yield
        finally:
            self.random = torch.default_generator.get_state()
            torch.default_generator.set_state(kept)

    # -------------------------------------------------------------- marks
    @property
    def live(self):
        _forget_the_dead()
        return sum(n for _,gpu,n in _there.values() if gpu is self)

    def _mark(self, storage):
        if not _marked(storage): _there[storage._cdata] = StorageWeakRef(storage),self,storage.nbytes()

    def mark(self, t, there=True):
        "Say of the memory of `t` that it is `there` on the device, or isn't"
        if t.device.type=='meta': return t
        for s in _storages(t):
            if there: self._mark(s)
            else: _there.pop(s._cdata, None)
        if there and self.device.type=='mps' and t.dtype in (torch.float64,torch.complex128):
            raise TypeError("Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support float64. Please use float32 instead.")
        if there and self.capacity and self.live>self.capacity:
            error = torch.OutOfMemoryError if self.device.type=='cuda' else RuntimeError  # as PyTorch's own
            raise error(f'{self.device.type.upper()} out of memory: {self.live:,} of {self.capacity:,} bytes are in use')
        return t

    def device_of(self, t): return self.device if is_there(t) else t.device

    def move(self, t, device, dtype=None, non_blocking=False):
        "A copy of `t` on the other side"
        there = device.type==self.device.type
        if not (there and non_blocking): self.waited('copy to the device' if there else 'copy to the CPU')
        with torch._C.DisableTorchFunctionSubclass():
            if dtype is not None: t = t.to(dtype)
            if not (t.requires_grad and torch.is_grad_enabled()): return self.mark(t.clone(), there)
        return _Move.apply(t, self, there)

    @property
    def makes_there(self):
        "Is what is being called to make something on the device?"
        return bool(self._makes) and self._makes[-1]

    def called(self, func, args, kwargs):
        "Call `func`, whose `device=` may be the pretended one"
        wanted,given,g = kwargs.get('device'),_tensors(args, kwargs),_generator(args, kwargs)
        mine = wanted is not None and torch.device(wanted).type==self.device.type
        if mine and torch.device(wanted).index not in (None,0): raise RuntimeError(f'{self.device.type.upper()} error: invalid device ordinal')
        from_there = any(map(is_there, given))
        here = self.device.type if mine or (wanted is None and from_there) else 'cpu'
        if g is not None and g.device.type!=here: raise RuntimeError(f"Expected a '{here}' device type for generator but found '{g.device.type}'")
        self._makes.append(here!='cpu')
        try: res = func(*args, **{**kwargs, **(dict(device=torch.device('cpu')) if mine else {})})
        finally: self._makes.pop()
        if wanted is None or torch.device(wanted).type=='meta': return res
        known = _known(given)
        for o in _tensors(res):
            if known.isdisjoint(_addresses(o)): self.mark(o, mine)
            elif mine!=is_there(o): return self.move(o, torch.device(wanted))  # as_tensor to the other side
        return res

    # -------------------------------------------------------------- checks
    def check(self, func, name, args, kwargs, given):
        "Refuse tensors of two devices, by PyTorch's rules"
        here = [t for t in given if not is_there(t)]
        if name=='copy_' and is_there(given[0])!=is_there(given[1]): return self._copied(args, kwargs, given)
        if not here or name in unchecked: return
        if name in indexing: return self._check_index(func, args, given)
        if torch.Tag.pointwise in func.tags or name in takes_scalars or name.startswith('_foreach'):
            writes = [a.alias_info is not None and a.alias_info.is_write for a in func._schema.arguments]
            written = [*(o for o,w in zip(args, writes) if w and isinstance(o, Tensor)), *_tensors(kwargs.get('out', ()))]
            if not all(map(is_there, written)): return self._mixed(func, given)
            if sum(not t.dim() for t in here)>1 and name!='where' and not name.startswith('_foreach'):
                raise RuntimeError(f'Trying to pass too many CPU scalars to non-CPU kernel! (in {func})')
            here = [t for t in here if t.dim()]
        if here: self._mixed(func, given)

    def _check_index(self, func, args, given):
        own,index,*value = args[0],[o for o in args[1] if o is not None],*args[2:3]
        if not is_there(own) and any(map(is_there, index)):
            raise RuntimeError('indices should be either on cpu or on the same device as the indexed tensor (cpu)')
        if is_there(own): self.waited('CPU index', sum(not is_there(o) for o in index))
        if value and is_there(value[0])!=is_there(own) and value[0].dim(): self._mixed(func, given)

    def _copied(self, args, kwargs, given):
        if not given[1].dim() and not is_there(given[1]): return  # goes along as a number
        if not kwargs.get('non_blocking', len(args)>2 and args[2]): self.waited('copy to the '+('device' if is_there(given[0]) else 'CPU'))

    def _mixed(self, func, given):
        where = ', '.join(f'{tuple(t.shape)} {self.device_of(t)}' for t in given)
        raise RuntimeError(f'Expected all tensors to be on the same device, but found at least two devices, {self.device} and cpu! ({func}: {where})')

    # -------------------------------------------------------------- waits
    def count(self, name, args, kwargs):
        if name in indexing:
            masks = sum(is_there(o) and o.dtype in (torch.bool,torch.uint8) for o in args[1] if o is not None)
            filled = len(args)>2 and args[2].numel()==1 and not is_there(args[2])  # becomes masked_fill
            self.waited('boolean index', masks*(not filled))
        elif name=='repeat_interleave': self.waited(name, kwargs.get('output_size') is None)
        else: self.waited(name, waiting.get(name, 0))

    def waited(self, what, n=1):
        if n: self.waits[self.line(),what] += n

    def line(self):
        "The innermost line of fastrec that runs, else of any other package"
        f,other = sys._getframe(1),'?'
        while f:
            ours,name = _whose(f.f_code.co_filename)
            if ours or (name and other=='?'):
                at = f'{name}:{f.f_lineno} {f.f_code.co_name}'
                if ours: return at
                other = at
            f = f.f_back
        return other

    @contextmanager
    def counting(self):
        "The waits inside, as a Counter"
        before,res = Counter(self.waits),Counter()
        try: yield res
        finally: res.update(self.waits-before)

# ------------------------------------------------------------------ kernels
@functools.cache
def kernels():
    "For which kinds of devices the installed PyTorch has each operator, by its `native_functions.yaml`: {'aten.add.Tensor': {'CPU', 'CUDA', …}}"
    import torchgen
    from torchgen.gen import parse_native_yaml
    at = Path(torchgen.__file__).parent/'packaged'/'ATen'/'native'
    parsed = parse_native_yaml(str(at/'native_functions.yaml'), str(at/'tags.yaml'))
    by_name = {str(f.func.name): f for f in parsed.native_functions}
    def keys(f): return {str(k) for k,i in parsed.backend_indices.items() if i.has_kernel(f)} | ({'any'} if f.has_composite_kernel else set())
    return {f'aten.{f.func.name.name}.{f.func.name.overload_name or "default"}': keys(f) | (keys(by_name[str(f.structured_delegate)])
            if f.structured_delegate else set()) for f in by_name.values()}

def missing_kernels(ops, kind):
    "Those of the operators `ops` that PyTorch has no kernel for on `kind`, 'CUDA' or 'MPS'"
    pairs = [(o,*o.partition(' ')[::2]) for o in ops]
    return sorted(o for o,name,layout in pairs if name in kernels() and not kernels()[name] & {layout+kind, 'any'})
