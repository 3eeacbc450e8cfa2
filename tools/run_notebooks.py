"""Run notebooks in a fresh kernel and store their outputs: the cells that `nbdev-test` runs, the slow ones, and those that
need MovieLens where ml-100k is in fastai's data folder; without it they keep the outputs they have

    python tools/run_notebooks.py              every notebook under nbs, recipes where their release is
    python tools/run_notebooks.py FILE …       these
"""
import os,re,sys
from pathlib import Path
import nbformat
from fastai.data.external import fastai_path
from fastcore.xtras import Config
from nbclient import NotebookClient
from nbdev.config import get_config
from nbdev.test import nb_test_cells

def missing(path):
    "What the recipe at `path` lacks, in words; `None` if it's there, or if it isn't a recipe"
    if not re.match(r'r\d', path.stem): return None
    release = Config.find('settings.ini', path.parent).d.parser[path.stem.split('_')[0]]['release']
    folder = fastai_path('data')/release
    return None if folder.exists() else f"no {folder}; movielens('{release}') downloads it, or link it there"

def is_finished_bar(output):
    "Is `output` all that a progress bar leaves? Tables of epochs are kept"
    html = output.get('data', {}).get('text/html', '')
    return '</progress> 100.00%' in html and '<table' not in html

def run(path, store=True):
    "The notebook at `path`, run; `CellExecutionError` for a cell that fails"
    skipped = {'cuda'} if (fastai_path('data')/'ml-100k').exists() else {'cuda','movielens'}
    flags = [f for f in get_config().tst_flags.split() if f in skipped]
    nb,ids = nbformat.read(path, 4),{c.id for c in nb_test_cells(path, flags)}
    client = NotebookClient(nb, timeout=900, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': path.parent}})
    with client.setup_kernel():
        for i,cell in enumerate(nb.cells):
            if cell.id in ids: client.execute_cell(cell, i)
    for cell in nb.cells:
        if cell.cell_type=='code': cell.outputs = [o for o in cell.outputs if not is_finished_bar(o)]
    if store: nbformat.write(nb, path)
    return nb

if __name__=='__main__':
    os.environ |= dict(IN_TEST='1', OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '1'))
    cfg = get_config()
    for path in map(Path, sys.argv[1:] or sorted((cfg.config_path/cfg.nbs_path).rglob('*.ipynb'))):
        why = missing(path.resolve())
        print(path, f'skipped: {why}' if why else '', flush=True)
        if not why: run(path.resolve())
