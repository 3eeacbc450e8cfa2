"""The published recipes: the fast ones whole, their table, and how absent data and broken settings are reported"""
import sys
from pathlib import Path
import pytest
from conftest import release_path,settings
from fastrec.all import read_settings
root = Path(__file__).parent.parent
sys.path.append(str(root/'benchmarks'))
import recipes

paths = sorted((root/'nbs'/'recipes').glob('r[0-9]*.ipynb'))

def test_six_with_settings_of_their_own(): assert [p.stem[:2] for p in paths]==['r1','r2','r3','r4','r5','r6'] and all(p.stem[:2] in settings for p in paths)

@pytest.mark.parametrize('name', ['r2'])
def test_fast_ones(name):
    release_path(settings[name]['release'])
    path, = (p for p in paths if p.stem.startswith(name))
    row = recipes.result(path)
    assert 'FAILED' not in row['what'], row['what']
    assert set(row)=={'recipe','what','published','same','ours','seconds'}

def test_absent_data_is_skipped_not_passed(monkeypatch, tmp_path):
    monkeypatch.setattr('run_notebooks.fastai_path', lambda folder: tmp_path)
    for p in paths:
        row = recipes.result(p)
        assert row['what'].startswith(f'skipped: no {tmp_path}') and f"movielens('{settings[p.stem[:2]]['release']}')" in row['what'] and 'ours' not in row

def test_a_failing_check_fails_the_run(monkeypatch):
    from nbclient.exceptions import CellExecutionError
    def fail(path, store): raise CellExecutionError('traceback', 'AssertionError', 'too high')
    monkeypatch.setattr(recipes, 'missing', lambda p: None)
    monkeypatch.setattr(recipes, 'run', fail)
    assert recipes.main(['r1']) is True

@pytest.mark.parametrize('text,types,message', [
    ('[a]\nx = 1\n', dict(x=int, y=int), "section \\[a\\] of .* lacks 'y'"), ('[a]\nx = 1\nz = 2\n', dict(x=int), "has an unknown key 'z'"),
    ('[b]\nx = 1\n', dict(x=int), 'has no section \\[a\\]'), ('[a]\nx = one\n', dict(x=int), 'x = one in section \\[a\\]')])
def test_settings(tmp_path, text, types, message):
    (tmp_path/'settings.ini').write_text(text, encoding='utf-8')
    with pytest.raises(ValueError, match=message): read_settings('a', tmp_path, **types)

def test_a_recipe_nobody_has_and_nothing_checked(monkeypatch, tmp_path):
    with pytest.raises(SystemExit, match="there is no recipe 'r9'"): recipes.main(['r9'])
    monkeypatch.setattr('run_notebooks.fastai_path', lambda folder: tmp_path)
    assert recipes.main(['r1','r2']) is True

def test_settings_as_they_are_written(tmp_path):
    (tmp_path/'settings.ini').write_text('[DEFAULT]\na = 1\n[x]\nN = 2\nshare = 5%\n', encoding='utf-8')
    assert read_settings('x', tmp_path, N=int, share=str)==dict(N=2, share='5%')
