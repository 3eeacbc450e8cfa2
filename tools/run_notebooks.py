"""Run notebooks in a fresh kernel and store their outputs: the cells that `nbdev-test` runs, and those that need
MovieLens where ml-100k is in fastai's data folder; without it they keep the outputs they have

    python tools/run_notebooks.py              every notebook under nbs
    python tools/run_notebooks.py FILE …       these
"""
import os,sys
from pathlib import Path
import nbformat
from fastai.data.external import fastai_path
from nbclient import NotebookClient
from nbdev.config import get_config
from nbdev.test import nb_test_cells

def run(path, skip_flags):
    nb,ids = nbformat.read(path, 4),{c.id for c in nb_test_cells(path, skip_flags)}
    client = NotebookClient(nb, timeout=600, kernel_name='python3', resources={'metadata': {'path': path.parent}})
    with client.setup_kernel():
        for i,cell in enumerate(nb.cells):
            if cell.id in ids: client.execute_cell(cell, i)
    nbformat.write(nb, path)

if __name__=='__main__':
    os.environ |= dict(IN_TEST='1', OMP_NUM_THREADS=os.environ.get('OMP_NUM_THREADS', '1'))
    cfg = get_config()
    flags = [f for f in cfg.tst_flags.split() if f!='movielens' or not (fastai_path('data')/'ml-100k').exists()]
    for path in map(Path, sys.argv[1:] or sorted((cfg.config_path/cfg.nbs_path).rglob('*.ipynb'))):
        print(path, flush=True)
        run(path.resolve(), flags)
