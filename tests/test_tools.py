"""The demo as a newcomer runs it, and the README as it is made"""
import json,re,shutil,subprocess,sys
from pathlib import Path
import pytest
from conftest import release_path
from fastrec.command.main import main
from fastrec.export.loading import load_recommender

root = Path(__file__).parent.parent

def demo(*args, tmp_path):
    return subprocess.run([sys.executable, '-m', 'fastrec', 'demo', *args, '--out', tmp_path/'demo'], capture_output=True, text=True, cwd=root)

def rmses(out): return [float(l.split()[-1]) for l in out[out.index('Error on the'):].splitlines()[2:6]]

def test_demo_on_the_sample(tmp_path):
    res = demo(tmp_path=tmp_path)
    assert res.returncode==0, res.stderr
    mean,biases,factors,best = rmses(res.stdout)
    assert mean>biases+.05 and biases>factors+.02 and best<factors<best+.08
    for part in ('Data: the built-in sample', 'Best liked', 'Least liked', 'and may like', 'Everything took'): assert part in res.stdout
    assert (tmp_path/'demo.png').stat().st_size>20_000
    assert len(load_recommender(tmp_path/'demo').explain(845, 'Tender Wedding (2003)'))>10 and f"fastrec recommend {tmp_path/'demo'}" in res.stdout

@pytest.mark.long
def test_demo_on_ml100k(tmp_path):
    release_path('ml-100k')
    res = demo('--data', 'ml-100k', tmp_path=tmp_path)
    assert res.returncode==0, res.stderr
    out = res.stdout
    assert 'the MovieLens release ml-100k' in out and 'the best possible' not in out and 'and may like' in out

def test_demo_of_what_is_not_there(tmp_path, capsys):
    assert main(['demo','--data','ml-2m','--out',str(tmp_path/'demo')])==1
    assert re.fullmatch(r'fastrec: .* there are ml-latest-small, ml-latest, ml-100k, ml-1m, ml-10m, ml-20m, ml-25m, ml-32m\.\n', capsys.readouterr().err)
    assert not (tmp_path/'demo').exists()

def test_readme_and_contributing_are_made_from_their_pages():
    sys.path.insert(0, str(root/'tools'))
    from readme import made,render
    for file,name in made.items(): assert (root/file).read_text(encoding='utf-8')==render(name)

def test_mistakes_have_a_place_to_be_planted():
    "That each of them is noticed, `make mutate` shows"
    sys.path.insert(0, str(root/'tools'))
    from mutate import mutations
    assert [name for name,(file,old,*_) in mutations.items() if old not in (root/'fastrec'/file).read_text(encoding='utf-8')]==[]

def committed(folder, **files):
    "A commit of `files`, by paths without suffix, in the git repository `folder`"
    for name,text in files.items():
        (folder/name).parent.mkdir(parents=True, exist_ok=True)
        (folder/name).write_text(text, encoding='utf-8')
    git = ['git','-c','user.name=a','-c','user.email=a@b','-c','commit.gpgsign=false']
    for args in (['init','-q'], ['add','.'], ['commit','-qm','a change']): subprocess.run([*git, *args], cwd=folder, check=True)

def test_tables_older_than_their_code_are_told(tmp_path):
    sys.path.insert(0, str(root/'tools'))
    from stale import lines,note,stale
    table,script = '| a |\n\n`python benchmarks/a.py`: a processor.\n','"Fits"\nfrom b import c\nfit(c)\n'
    a = tmp_path/'a'
    committed(a, **{'benchmarks/a.py': script, 'benchmarks/b.py': 'c = 1\n', 'benchmarks/results/a.md': table})
    assert stale(a)=={} and 'none is older' in lines({})[0] and note({}) is None
    committed(a, **{'benchmarks/a.py': script.replace('Fits', 'Fits well')+'# more\n'})
    assert stale(a)=={}                                            # a docstring and a comment
    committed(a, **{'benchmarks/b.py': 'c = 2\n'})
    assert stale(a)=={'a': ['b.py']} and '`python benchmarks/a.py`' in note(stale(a), a) and 'b.py' in lines(stale(a))[0]
    subprocess.run(['git','clone','-q','--depth','1',a.as_uri(),tmp_path/'shallow'], check=True)
    assert stale(tmp_path/'shallow') is None and 'no full history' in lines(None)[0] and note(None) is None
    (a/'benchmarks'/'results'/'a.md').write_text(table+'\n', encoding='utf-8')
    assert stale(a)=={}                                            # just written
    (tmp_path/'plain').mkdir()
    assert stale(tmp_path/'plain') is None

def test_colab_opens_pages_once_there_is_an_address(tmp_path):
    sys.path.insert(0, str(root/'tools'))
    from colab import address,badge,mark,sync
    shutil.copytree(root/'nbs', tmp_path/'nbs', ignore=lambda d, names: [o for o in names if Path(o).suffix not in ('.ipynb','')])
    project = tmp_path/'pyproject.toml'
    project.write_text('[tool.fastrec]\nrepository = ""\n', encoding='utf-8')
    before = {f: f.read_bytes() for f in (tmp_path/'nbs').rglob('*.ipynb')}
    sync(tmp_path)
    assert address(tmp_path) is None and badge('tutorial.ipynb', None) is None and not any(mark in f.read_text(encoding='utf-8') for f in before)
    project.write_text('[tool.fastrec]\nrepository = "https://github.com/someone/something.git"\nbranch = "trunk"\n', encoding='utf-8')
    at,changed = address(tmp_path),sync(tmp_path)
    for name in changed:
        assert f'](https://colab.research.google.com/github/someone/something/blob/trunk/nbs/{name})' in badge(name, at)
        cells = json.loads((tmp_path/'nbs'/name).read_text(encoding='utf-8'))['cells']
        assert mark in ''.join(cells[1]['source']) and f'/content/copy/nbs/{Path(name).parent.as_posix()}'.removesuffix('/.') in ''.join(cells[1]['source'])
    assert {'tutorial.ipynb','guides/own_data.ipynb','recipes/r1_latent_factors.ipynb'}<={*changed} and badge('guides/index.ipynb', at) is None
    assert sync(tmp_path)==[] and badge('results.ipynb', at) is None
    project.write_text('[tool.fastrec]\nrepository = ""\n', encoding='utf-8')
    sync(tmp_path)
    assert all(json.loads(f.read_text(encoding='utf-8'))==json.loads(o) for f,o in before.items() if mark not in o.decode())
    project.write_text('[tool.fastrec]\nrepository = "someone/something"\n', encoding='utf-8')
    with pytest.raises(ValueError, match='is no address'): address(tmp_path)

def test_one_file_holds_the_address():
    "But for the cells that are made from it"
    sys.path.insert(0, str(root/'tools'))
    from colab import address,mark,opens
    at = address()
    for f in (o for d in ('nbs','fastrec','tools','benchmarks') for o in (root/d).rglob('*') if o.suffix in {'.py','.ipynb','.md','.yml','.txt'} and 'node_modules' not in o.parts):
        text = f.read_text(encoding='utf-8')
        made = f.is_relative_to(root/'nbs') and f.suffix=='.ipynb' and opens(f.relative_to(root/'nbs')) and mark in text
        assert not made or at, f
        assert made or not at or at[0] not in text, f
