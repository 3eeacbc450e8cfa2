"""How far the numbers that notebooks and tests assert lie from their bounds, over instruction sets, threads and seeds

    python tools/bounds.py measure FOLDER    run everything once for each variant, in FOLDER a file of what was seen for each
    python tools/bounds.py table FOLDER      benchmarks/results/bounds.md of these files, and what lies too close on the screen

Each comparison in an `assert`, each `test_close` and `allclose` is written down, and asserted as well where no seed is changed. The room
of a number is its smallest distance from the bound, over how far apart its values lie: below 1 another seed or CPU may well cross it.
"""
import ast,functools,importlib.machinery,json,operator,os,subprocess,sys,time
from pathlib import Path
import numpy as np

root = Path(__file__).absolute().parents[1]
ops = {ast.Lt: '<', ast.LtE: '<=', ast.Gt: '>', ast.GtE: '>='}
compare = {'<': operator.lt, '<=': operator.le, '>': operator.gt, '>=': operator.ge}
# one thing varies at a time: instruction set, threads, and what is added to every seed that a notebook or test names
variants = [(cpu,1,0) for cpu in ('default','avx2','')] + [('',2,0)] + [('',1,seed) for seed in (1,2,3)]

# ------------------------------------------------------------------ writing down
def number(o):
    "`o` as a float array, or `None` if it isn't numbers"
    import torch
    if isinstance(o, torch.Tensor): o = o.detach().cpu()
    try: return np.asarray(o, dtype='float64')
    except (TypeError,ValueError): return None

def write(where, text, value, bound, room):
    "A line: the worst `value`, and its distance `room` from the `bound`"
    test = os.environ.get('PYTEST_CURRENT_TEST', '').split(' ')[0]
    line = dict(where=where, test=test, text=text, value=float(value), bound=float(bound), room=float(room))
    with open(os.environ['FASTREC_BOUNDS'], 'a', encoding='utf-8') as f: f.write(json.dumps(line)+'\n')

def bounded(where, text, op, a, b):
    "The comparison `a op b`, written down if one of both isn't whole"
    x,y = number(a),number(b)
    if x is not None and y is not None and x.size and y.size and not ((x%1==0).all() and (y%1==0).all()):
        x,y = np.broadcast_arrays(x, y)
        room = (y-x if op in ('<','<=') else x-y).ravel()
        at = room.argmin()
        value,bound = (x,y) if np.ndim(b)==0 and not hasattr(b, 'shape') else (y,x) if np.ndim(a)==0 else (x,y)
        write(where, text, value.ravel()[at], bound.ravel()[at], room[at])
    return compare[op](a, b)

def approximately(where, text, a, b):
    "The comparison `a==approx(b)`, written down if it is of numbers that lie within a tolerance of each other"
    x,y,allowed = number(a),number(getattr(b, 'expected', None)),getattr(b, 'tolerance', None)
    if allowed and x is not None and y is not None and x.size==y.size==1 and x!=y:
        used = np.abs(x-y).item()/allowed
        write(where, text, used, 1, 1-used)
    return a==b

class Written(ast.NodeTransformer):
    "Asserts that write down what they compare, and go on"
    def __init__(self, where): self.where,self.inside = where,False

    def visit_Assert(self, node):
        self.inside = True
        test = self.visit(node.test)
        self.inside = False
        if os.environ['FASTREC_SHIFT']=='0': return ast.copy_location(ast.Assert(test, node.msg), node)
        return ast.copy_location(ast.Expr(test), node)

    def aside(self, node):
        "What chooses, counts or denies what it compares: no bound of its own"
        inside,self.inside = self.inside,False
        self.generic_visit(node)
        self.inside = inside
        return node

    visit_Subscript = aside
    def visit_UnaryOp(self, node): return self.aside(node) if isinstance(node.op, ast.Not) else self.generic_visit(node)
    def visit_Attribute(self, node): return self.generic_visit(node) if node.attr=='all' else self.aside(node)

    def visit_Compare(self, node):
        text = ast.unparse(node)
        self.generic_visit(node)
        where = ast.Constant(f'{self.where}:{node.lineno}')
        if self.inside and isinstance(node.ops[0], ast.Eq) and '.approx(' in ast.unparse(node.comparators[0]) and len(node.ops)==1:
            return ast.Call(ast.Name('approximately', ast.Load()), [where, ast.Constant(text), node.left, node.comparators[0]], [])
        if not self.inside or not all(type(o) in ops for o in node.ops): return node
        sides,calls = [node.left, *node.comparators],[]
        for op,a,b in zip(node.ops, sides, sides[1:]):
            args = [where, ast.Constant(text), ast.Constant(ops[type(op)]), a, b]
            calls.append(ast.Call(ast.Name('bounded', ast.Load()), args, []))
        return calls[0] if len(calls)==1 else ast.BoolOp(ast.And(), calls)

def written(source, where):
    "The source text with `Written` asserts"
    return ast.unparse(ast.fix_missing_locations(Written(where).visit(ast.parse(source))))

def watch_tolerances(where=lambda: ''):
    "Have everything that compares within a tolerance write down which share of it is used"
    import fastcore.test,torch
    def near(a, b, tol, rel, text):
        x,y = number(a),number(b)
        if x is None or y is None or x.shape!=y.shape or not x.size: return
        allowed = tol+rel*np.abs(y)
        used = np.abs(x-y)/np.where(allowed>0, allowed, np.nan)
        if np.nanmax(used, initial=0)>0: write(where(), text, np.nanmax(used), 1, 1-np.nanmax(used))
    for lib in (np,torch):
        lib.allclose = lambda a, b, rtol=1e-5, atol=1e-8, equal_nan=False, f=lib.allclose: (near(a, b, atol, rtol, 'allclose'), f(a, b, rtol=rtol, atol=atol, equal_nan=equal_nan))[1]
    def test_close(a, b, eps=1e-5): near(a, b, eps, 0, 'test_close')
    fastcore.test.test_close = test_close

def shift_seeds(by, titles=False):
    "Add `by` to each seed that is named, but, with `titles` that are named as well, those of samples"
    import fastrec.all,torch
    from fastrec.data import loaders as dls,sample as data,splitters
    sample,split,manual,from_df = data.sample_ratings,splitters.SeededSplitter,torch.manual_seed,dls.RecDataLoaders.from_df.__func__
    @functools.wraps(sample)
    def sample_ratings(*args, seed=42, **kwargs): return sample(*args, seed=seed if titles else seed+by, **kwargs)
    @functools.wraps(split)
    def splitter(valid_pct=.2, seed=None): return split(valid_pct, None if seed is None else int(seed)+by)
    @functools.wraps(from_df)
    def shifted(cls, *args, seed=None, **kwargs): return from_df(cls, *args, seed=None if seed is None else int(seed)+by, **kwargs)
    for m in (fastrec.all, data, sys.modules.get('conftest', data)): m.sample_ratings,m.SeededSplitter = sample_ratings,splitter
    torch.manual_seed,dls.RecDataLoaders.from_df = lambda seed: manual(seed+by),classmethod(shifted)

# ------------------------------------------------------------------ a plugin of pytest
def pytest_configure(config):
    import builtins
    builtins.bounded,builtins.approximately = bounded,approximately
    shift_seeds(int(os.environ['FASTREC_SHIFT']))
    watch_tolerances(lambda: os.environ.get('PYTEST_CURRENT_TEST', '').split('::')[0])
    get_code = importlib.machinery.SourceFileLoader.get_code
    def transformed(self, name):
        path = Path(self.path)
        if path.parent!=root/'tests' or not path.name.startswith('test_'): return get_code(self, name)
        return compile(written(path.read_text(encoding='utf-8'), f'tests/{path.name}'), path, 'exec')
    importlib.machinery.SourceFileLoader.get_code = transformed

# ------------------------------------------------------------------ notebooks
def run_notebooks(*paths):
    "The cells of these notebooks that `nbdev-test` runs, with asserts that write down"
    import builtins,matplotlib
    matplotlib.use('Agg')
    builtins.bounded,builtins.approximately = bounded,approximately
    shift_seeds(int(os.environ['FASTREC_SHIFT']), titles=True)
    watch_tolerances(lambda: str(path.relative_to(root)))  # the one that runs
    for path in paths:
        os.chdir(path.parent)
        run_cells(path)

def run_cells(path):
    from execnb.shell import CaptureShell
    from nbdev.test import nb_test_cells
    shell,ids = CaptureShell(path),{c.id for c in nb_test_cells(path, 'slow cuda movielens'.split())}
    for cell in json.loads(path.read_text(encoding='utf-8'))['cells']:
        if cell['id'] not in ids: continue
        source = ''.join(cell['source'])
        try: source = written(source, f'{path.relative_to(root)}#{cell["id"]}')
        except SyntaxError: pass  # a magic
        shell.run(source)
        if shell.exc: print(f'{path.name}#{cell["id"]}: {type(shell.exc).__name__}: {shell.exc}', file=sys.stderr)

def measure(folder):
    folder.mkdir(parents=True, exist_ok=True)
    for cpu,threads,seed in variants:
        out = folder/f'{cpu or "own"}-{threads}-{seed}.jsonl'
        if out.exists(): continue
        part = out.with_suffix('.part')
        part.unlink(missing_ok=True)
        env = os.environ | dict(FASTREC_BOUNDS=str(part), FASTREC_SHIFT=str(seed), OMP_NUM_THREADS=str(threads), IN_TEST='1',
                                PYTHONPATH=f'{root}{os.pathsep}{root/"tools"}', **({'ATEN_CPU_CAPABILITY': cpu} if cpu else {}))
        with open(out.with_suffix('.log'), 'w', encoding='utf-8') as log: run_all(env, log)
        part.rename(out)
        print(out, flush=True)

def run_all(env, log):
    "Notebooks and tests, in two processes, as `make test` does"
    from nbdev.doclinks import nbglob
    call = lambda *args: subprocess.Popen([sys.executable, *map(str, args)], env=env, cwd=root, stdout=log, stderr=log)
    start,pages = time.time(),[p for p in nbglob(root/'nbs', as_path=True) if not (p.parent/'.notest').exists()]
    waiting = [pages[i::20] for i in range(20)]  # each process has to import fastai
    running = [call(__file__, 'notebooks', *waiting.pop()) for _ in range(2)]
    while running:
        done = next((o for o in running if o.poll() is not None), None)
        if done is None: time.sleep(.1)
        else:
            running.remove(done)
            if waiting: running.append(call(__file__, 'notebooks', *waiting.pop()))
    tests = [o for o in sorted((root/'tests').glob('test_*.py')) if o.stem not in untouched and (o.stem not in unshifted or env['FASTREC_SHIFT']=='0')]
    call('-m', 'pytest', '-q', '-p', 'bounds', '--assert=plain', '-n', 2, '--dist', 'loadfile', *tests).wait()
    print(f'{time.time()-start:.0f} s', file=log)

untouched = 'test_docs test_fuzz test_recipes test_reference test_versions'.split()  # no number there varies that has a bound
unshifted = 'test_distributed test_tools'.split()  # whose other processes draw by the seeds that are named

# ------------------------------------------------------------------ the table
def table(folder):
    import pandas as pd
    sys.path.append(str(root/'benchmarks'))
    from report import cpu,versions
    parts = {o.stem: pd.read_json(o, lines=True) for o in sorted(folder.glob('*.jsonl'))}
    for o in parts.values(): o['where'] = o['where'].str.replace(r':\d+$', '', regex=True)  # lines move from commit to commit
    key = ['where','test','text']
    df = pd.concat([o.assign(nth=o.groupby(key).cumcount()) for o in parts.values()])
    df = df.groupby([*key,'nth']).agg(bound=('bound','median'), own=('bound','nunique'), least=('value','min'), most=('value','max'), room=('room','min'), widest=('room','max')).reset_index()
    denied = df.widest<0  # two things are not to be close: their distance in powers of ten of the tolerance
    df.loc[denied,['room','widest']] = np.log10(df.loc[denied,['least','most']]).to_numpy()
    df['spread'] = df.widest-df.room
    df['spreads'] = df.room/df.spread.clip(lower=1e-12)
    df['where'] = df['where'].str.replace(r'^nbs/|^tests/|\.ipynb|\.py', '', regex=True).str.split('[#:]').str[0]
    worst = df.sort_values('spreads').groupby(['where','text'], sort=False).head(1)
    loose = worst[(worst.spread>1e-9) & (worst.text.str.contains('[<>]') | (worst.spreads<1))].sort_values(['where','spreads'])
    loose['why'] = np.where(loose.own>1, 'baseline', np.where(loose.text.str.contains(certain), 'by construction', ''))
    text = loose.text.str.slice(0, 90).str.replace('|', '\\|')
    rows = [f'| {o.where} | `{t}` | {o.bound:.4g} | {o.least:.4g} to {o.most:.4g} | {min(o.spreads, 1e3):.1f} | {o.why} |' for o,t in zip(loose.itertuples(), text)]
    head = ['| where | compared | bound | seen | room, in spreads | |', '| --- | --- | --- | --- | --- | --- |']
    note = (f'`python tools/bounds.py measure`, then `table`: {len(df):,} numbers in {len(parts)} runs ({", ".join(parts)}: instruction set, threads, added to each seed); '
            f'of numbers that a line asserts of several things the closest, and only what varies. Of a tolerance, the share that is used. {cpu()}, {os.cpu_count()} cores; {versions()}.')
    (root/'benchmarks/results/bounds.md').write_text('\n'.join([*head, *rows, '', note, '']), encoding='utf-8')
    tight = loose[(loose.spreads<1) & (loose.why=='') | (loose.spreads<=0)]
    print(tight.to_string())
    print(f'{len(df):,} numbers, {len(loose)} lines, {len(tight)} with less room than spread')

certain = r'whole\.[xy][01]|valley'  # labels lie within their picture, a rate within those that were looked at

if __name__=='__main__':
    what,*paths = sys.argv[1:]
    {'measure': measure, 'notebooks': run_notebooks, 'table': table}[what](*(Path(o).absolute() for o in paths))
