"""On every machine: the versions that are named, encodings, and the jobs that try it elsewhere"""
import ast,importlib.metadata,os,re,shutil,subprocess,sys,tomllib,zipfile
from pathlib import Path
import nbformat,pytest,yaml
import fastrec

root = Path(__file__).parent.parent
workflows = sorted((root/'.github'/'workflows').glob('*.y*ml'))

# ------------------------------------------------------------------ versions
def pins(file): return dict(l.split('==') for l in (root/file).read_text(encoding='utf-8').splitlines() if '==' in l)

def test_oldest_versions_are_written_once():
    deps = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']['dependencies']
    ranges = dict(o.split('>=') for o in deps)
    assert fastrec._oldest==ranges
    assert {k: v for k,v in pins('constraints-oldest.txt').items() if k in ranges and not re.fullmatch(rf'{re.escape(ranges[k])}(\.\d+)*', v)}=={}
    assert ranges.keys()<=pins('constraints-oldest.txt').keys()

@pytest.fixture
def installed(monkeypatch):
    "Give packages versions they don't have"
    def put(**versions): monkeypatch.setattr(importlib.metadata, 'version', lambda name: versions.get(name, '99.0'))
    return put

@pytest.mark.parametrize('name,found', [('torch','2.8.0+cu126'), ('torch','1.13.0'), ('pandas','2.2.2'), ('pandas','1.5'), ('fastai','2.8.11'), ('fastai','2.7.19'), ('numpy','1.25.2'), ('safetensors','0.4.2')])
def test_an_older_package_is_named(installed, name, found):
    installed(**{name: found})
    oldest = fastrec._oldest[name]
    with pytest.raises(ImportError, match=rf"^fastrec needs {name} {re.escape(oldest)} or newer, here is {re.escape(found)}: pip install -U '{name}>={re.escape(oldest)}'$"): fastrec._need_versions()

@pytest.mark.parametrize('name,found', [('torch','2.9.0'), ('torch','2.9.0+cpu'), ('torch','2.10.0a0+git1234567'), ('torch','3.0'), ('pandas','2.2.3'), ('pandas','3.1.1'), ('fastai','2.8.12'), ('fastai','2.9'), ('numpy','2.0.0rc1'), ('torch',None)])
def test_a_newer_package_is_not(installed, name, found):
    installed(**{name: found})
    fastrec._need_versions()

def test_what_is_not_installed_is_left_to_who_needs_it(monkeypatch):
    def none(name): raise importlib.metadata.PackageNotFoundError(name)
    monkeypatch.setattr(importlib.metadata, 'version', none)
    fastrec._need_versions()

def test_it_is_said_at_import_and_before_anything_is_loaded():
    code = "import sys,importlib.metadata as m\nm.version = lambda name: '2.4.0'\ntry: import fastrec\nfinally: print('torch' in sys.modules)"
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert run.returncode==1 and run.stdout.strip()=='False'
    assert run.stderr.strip().splitlines()[-1].startswith('ImportError: fastrec needs fastai 2.8.12 or newer, here is 2.4.0')

def test_a_copy_of_the_repository_does_not_hide_the_package_that_is_installed_from_it(tmp_path):
    "After `pip install -e`, from the folder above a clone called fastrec: that folder is no package, and must not count as one"
    pytest.importorskip('setuptools', '77')
    clone = tmp_path/'fastrec'
    for o in ('pyproject.toml','README.md','LICENSE','fastrec/__init__.py'):
        (clone/o).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(root/o, clone/o)
    def python(folder, code):
        env = {k: v for k,v in os.environ.items() if k!='PYTHONPATH'}
        return subprocess.run([sys.executable, '-c', code], cwd=folder, env=env, capture_output=True, text=True, check=True).stdout.splitlines()[-1]
    built = python(clone, f'from setuptools.build_meta import build_editable\nprint(build_editable({str(tmp_path)!r}))')
    installed = tmp_path/'site'
    with zipfile.ZipFile(tmp_path/built) as z: z.extractall(installed)
    ours = f'sys.path[:] = [o for o in sys.path if os.path.realpath(o)!={os.path.realpath(root)!r}]'  # this one may be installed in the same way
    found = python(tmp_path, f'import os,site,sys\n{ours}\nsite.addsitedir({str(installed)!r})\nimport fastrec\nprint(fastrec.__file__)')
    assert os.path.samefile(found, clone/'fastrec'/'__init__.py')

# ------------------------------------------------------------------ encodings
def without_encoding(source):
    "Lines of `source` that read or write text in whatever encoding the system prefers"
    for o in ast.walk(ast.parse(source)):
        if not isinstance(o, ast.Call) or 'encoding' in {k.arg for k in o.keywords}: continue
        name = o.func.attr if isinstance(o.func, ast.Attribute) else getattr(o.func, 'id', '')
        owner = getattr(getattr(o.func, 'value', None), 'id', '')
        mode = [a.value for a in (*o.args, *(k.value for k in o.keywords)) if isinstance(a, ast.Constant) and re.fullmatch('[rwaxbt+]{1,3}', str(a.value))]
        if name in ('read_text','write_text') or (name=='open' and owner not in ('os','Image','zipfile','webbrowser') and not any('b' in m for m in mode)): yield o.lineno

def test_every_text_file_is_read_and_written_as_utf8():
    assert [*without_encoding("open('x')\nopen('x', 'rb')\nPath('x').read_text()\nPath('x').write_text('w', encoding='utf-8')\nopen('x', mode='w')")]==[1,3,5]
    files = [f for folder in ('fastrec','tools','benchmarks','tests') for f in sorted((root/folder).rglob('*.py')) if 'node_modules' not in f.parts]
    assert {f.relative_to(root).as_posix(): lines for f in files if (lines := [*without_encoding(f.read_text(encoding='utf-8'))])}=={}

def test_every_notebook_reads_and_writes_text_as_utf8():
    bare = re.compile(r'\.read_text\(\)|\.write_text\((?![^\n]*encoding)(?!\'\'\')')
    assert [(p.name,c.source) for p in sorted((root/'nbs').rglob('*.ipynb')) for c in nbformat.read(p, 4).cells if c.cell_type=='code' and bare.search(c.source)]==[]

# ------------------------------------------------------------------ jobs
def test_actions_are_pinned_and_one_workflow_deploys():
    texts = {f.name: f.read_text(encoding='utf-8') for f in workflows}
    used = [o for t in texts.values() for o in re.findall(r'uses:\s*(.+)', t)]
    assert used and all(re.fullmatch(r'[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+', o) for o in used)
    assert len({o.split('@')[0] for o in used})==len({*used})  # one version of each
    assert [name for name,t in texts.items() if 'deploy-pages@' in t or 'pages: write' in t]==['docs.yml']

def test_pages_that_a_job_leaves_out_are_there():
    left_out = [o for f in workflows for o in re.findall(r'--skip-file-glob ([^\s\']+)', f.read_text(encoding='utf-8'))]
    assert left_out and all([*(root/'nbs').rglob(o)] for o in left_out)

def test_every_python_and_system_is_tried():
    jobs = {name: job for f in workflows for name,job in yaml.safe_load(f.read_text(encoding='utf-8'))['jobs'].items()}
    pythons = ['3.11','3.12','3.13']
    assert jobs['newest']['strategy']['matrix']['python']==pythons==jobs['elsewhere']['strategy']['matrix']['python']
    assert {o.split('-')[0] for o in jobs['elsewhere']['strategy']['matrix']['os']}=={'macos','windows'}
    assert '-c' not in ' '.join(o.get('run', '') for o in jobs['newest']['steps'])
