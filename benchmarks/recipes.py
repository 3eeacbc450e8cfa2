"""The published recipes under nbs/recipes, run and checked; writes results/recipes.md and exits with 1 if a check fails

    python benchmarks/recipes.py            all; their pages keep the same run
    python benchmarks/recipes.py r2 r4      these, without writing
"""
import ast,sys
from pathlib import Path
from nbclient.exceptions import CellExecutionError,CellTimeoutError,DeadKernelError
from report import Report
root = Path(__file__).parent.parent
sys.path.append(str(root/'tools'))
from run_notebooks import missing,run

def said(cell):
    "The row that a recipe's last cell gives"
    return ast.literal_eval(cell.outputs[-1].data['text/plain'])

def result(path, store=False):
    "What the last cell of the recipe at `path` says, or why there is nothing; the page keeps the same run if it is to `store` it"
    if why := missing(path): return dict(what=f'skipped: {why}')
    try: nb = run(path, store=store)
    except (CellExecutionError,CellTimeoutError,DeadKernelError) as e:
        why = f'{e.ename}: {e.evalue}' if isinstance(e, CellExecutionError) else str(e)
        return dict(what='**FAILED** ' + ' '.join(why.split()).replace('|', '/'))
    return said(nb.cells[-1])

def main(names):
    paths = {p.stem.split('_')[0]: p for p in sorted((root/'nbs'/'recipes').glob('r[0-9]*.ipynb'))}
    if lost := set(names)-set(paths): sys.exit(f'there is no recipe {sorted(lost)[0]!r}; there are {" ".join(paths)}')
    rep = Report('recipes', 'recipe', 'what', 'published', 'same settings', 'our defaults', 'seconds')
    for name in names or paths:
        path = paths[name]
        row = result(path, store=not names)
        rep.add(name.upper(), *(row.get(k, '') for k in 'what published same ours seconds'.split()))
    if not names: rep.write()
    whats = [row[1] for row in rep.rows[2:]]
    if all('skipped' in o for o in whats): print('Nothing was checked.')
    return any('FAILED' in o for o in whats) or all('skipped' in o for o in whats)

if __name__=='__main__': sys.exit(main(sys.argv[1:]))
