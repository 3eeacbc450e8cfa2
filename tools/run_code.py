"""Run the code that the documentation shows, as a reader would who copies it: Python blocks of markdown files and cells of notebooks

    python tools/run_code.py README.md nbs/tutorial.ipynb
"""
import json,re,sys,time
from pathlib import Path

def blocks(path):
    "The pieces of Python in the file at `path`, in order"
    if path.suffix=='.md': return re.findall(r'^```python\n(.*?)^```', path.read_text(encoding='utf-8'), re.M | re.S)
    cells = [''.join(c['source']) for c in json.loads(path.read_text(encoding='utf-8'))['cells'] if c['cell_type']=='code']
    return [c for c in cells if not c.startswith('#| echo: false')]

for path in map(Path, sys.argv[1:]):
    start,parts = time.perf_counter(),blocks(path)
    if not parts: sys.exit(f'{path} shows no Python')
    shown = {'__name__': '__main__'}
    for part in parts: exec(compile(part, str(path), 'exec'), shown)
    print(f'{path}: {len(parts)} pieces of code run in {time.perf_counter()-start:.0f} s')
