"""The published recipes: how one is run, their table, and how absent data and broken settings are reported. `make recipes` runs them whole"""
import sys
from pathlib import Path
import nbformat,pytest
from conftest import settings
from fastrec.all import read_settings
root = Path(__file__).parent.parent
sys.path.append(str(root/'benchmarks'))
import recipes

paths = sorted((root/'nbs'/'recipes').glob('r[0-9]*.ipynb'))

def test_six_with_settings_of_their_own(): assert [p.stem[:2] for p in paths]==['r1','r2','r3','r4','r5','r6'] and all(p.stem[:2] in settings for p in paths)

def test_a_recipe_is_run_and_its_last_cell_read(monkeypatch, tmp_path):
    "Cells in order in one kernel, without what is marked slow; or which of them failed, in one line"
    monkeypatch.setattr(recipes, 'missing', lambda p: None)
    monkeypatch.setattr('run_notebooks.fastai_path', lambda folder: tmp_path)
    cells = ['n = 3','#| cuda\nn = 99','n += 1',"dict(recipe='R9', what='|', ours=f'{n}')"]
    def written(cells):
        nb = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(o) for o in cells])
        nbformat.write(nb, tmp_path/'r9.ipynb')
        return tmp_path/'r9.ipynb'
    path = written(cells)
    before = path.read_bytes()
    assert recipes.result(path)==dict(recipe='R9', what='|', ours='4') and path.read_bytes()==before
    written([*cells,"assert n==5,'a | b\\nc'"])
    assert recipes.result(path)==dict(what='**FAILED** AssertionError: a / b c')

def test_each_recipe_says_what_its_row_needs():
    for p in paths:
        last = nbformat.read(p, 4).cells[-1]
        row = recipes.said(last)
        assert set(row)=={'recipe','what','published','same','ours','seconds'} and row['recipe']==p.stem[:2].upper()

def test_the_table_and_the_pages_are_of_one_run():
    "Seconds too, as a whole run of the recipes stores their pages"
    table = (root/'benchmarks'/'results'/'recipes.md').read_text(encoding='utf-8')
    for p in paths:
        row = recipes.said(nbformat.read(p, 4).cells[-1])
        assert ' | '.join(row[k] for k in 'recipe what published same ours seconds'.split()) in table, p.stem

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

def test_each_recipe_shows_its_settings_and_ends_with_what_to_try():
    for p in paths:
        nb = nbformat.read(p, 4)
        shown = next(c for c in nb.cells if 'value=cfg' in c.source)
        table = shown.outputs[-1].data['text/plain'].splitlines()[1:]
        assert [o.split()[0] for o in table]==[*settings[p.stem[:2]]] and '#| echo: false' in shown.source
        source = nb.cells[1].source
        assert '**Source:**' in source and ('](http' in source or 'no public link' in source)
        assert nb.cells[-1].source.startswith('#| hide') and '\n## What to try\n' in nb.cells[-2].source
