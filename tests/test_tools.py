"""The demo as a newcomer runs it, and the README as it is made"""
import re,subprocess,sys
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
    for part in ('Data: the built-in sample', 'Best liked', 'Least liked', 'and may like', 'All of it took'): assert part in res.stdout
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
