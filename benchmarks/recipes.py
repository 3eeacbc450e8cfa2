"""The published recipes under nbs/recipes, run and checked; writes results/recipes.md and exits with 1 if a check fails

    python benchmarks/recipes.py            all
    python benchmarks/recipes.py r2 r4      these, without writing
"""
import ast,sys
from pathlib import Path
from nbclient.exceptions import CellExecutionError
from report import Report
root = Path(__file__).parent.parent
sys.path.append(str(root/'tools'))
from run_notebooks import missing,run

def result(path):
    "What the last cell of the recipe at `path` says, or why there is nothing"
    if why := missing(path): return dict(what=f'skipped: {why}')
    try: nb = run(path, store=False)
    except CellExecutionError as e: return dict(what=f'**FAILED** {e.ename}: {e.evalue}')
    return ast.literal_eval(nb.cells[-1].outputs[-1].data['text/plain'])

def main(names):
    rep = Report('recipes', 'recipe', 'what', 'published', 'same settings', 'our defaults', 'seconds')
    for path in sorted((root/'nbs'/'recipes').glob('*.ipynb')):
        name = path.stem.split('_')[0]
        if names and name not in names: continue
        row = result(path)
        rep.add(f'[{name.upper()}](recipes/{path.name})', *(row.get(k, '') for k in 'what published same ours seconds'.split()))
    if not names: rep.write()
    return any('FAILED' in str(row) for row in rep.rows)

if __name__=='__main__': sys.exit(main(sys.argv[1:]))
