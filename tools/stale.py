"""Which tables of benchmarks/results are older than the scripts that make them, by git: the script that a table names, and
those it imports; docstrings and comments left out

    python tools/stale.py
"""
import ast,re,subprocess
from pathlib import Path

root = Path(__file__).parent.parent

def git(root, *args):
    "What git says in `root`; None where it fails or is not installed"
    try: return subprocess.run(['git', *args], cwd=root, capture_output=True, text=True, encoding='utf-8', check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError): return None

def code(text):
    "What runs of the module `text`: its syntax tree without docstrings"
    tree = ast.parse(text)
    for o in ast.walk(tree):
        if isinstance(o, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(o, clean=False) is not None: o.body[:1] = []
    return ast.dump(tree)

def scripts(first):
    "The script `first` and those next to it that it imports, but for how tables are written"
    found,todo = [],[first]
    while todo:
        if (f := todo.pop()) in found: continue
        found.append(f)
        names = [o.module for o in ast.walk(ast.parse(f.read_text(encoding='utf-8'))) if isinstance(o, ast.ImportFrom)]
        todo += [o for n in names if n!='report' and (o := f.with_name(f'{n}.py')).exists()]
    return found

def changed(root, table, files):
    "Those of `files` that run otherwise than in the commit that last changed `table`; none where `table` is newer than any commit"
    if git(root, 'status', '--porcelain', '--', str(table)): return []
    made = git(root, 'log', '-1', '--format=%H', '--', str(table))
    def same(f):
        before = git(root, 'show', f'{made}:./{f.relative_to(root).as_posix()}')
        return before is not None and code(before)==code(f.read_text(encoding='utf-8'))
    return sorted(f.name for f in files if not same(f))

def stale(root=root):
    "The tables that are older than their scripts, each with those that have changed since; None where git cannot tell"
    if git(root, 'rev-parse', '--is-shallow-repository')!='false' or git(root, 'rev-parse', 'HEAD') is None: return None
    res = {}
    for f in sorted((root/'benchmarks'/'results').glob('*.md')):
        named = re.search(r'`python (\w+/\w+\.py)[^`]*`[^|]*$', f.read_text(encoding='utf-8'))
        if not named or not (root/named[1]).exists(): res[f.stem] = ['a script that is gone']
        elif files := changed(root, f, scripts(root/named[1])): res[f.stem] = files
    return res

def lines(found):
    "`found` in words, a line for each table"
    if found is None: return ['results: no full history of git here, which could say whether they are older than their scripts']
    return [f"results/{name}.md is older than {', '.join(files)}" for name,files in found.items()] or ['results: none is older than its script']

def command(table):
    "The command below `table`, by which a reader finds it"
    found = re.search(r'`python [^`]+`', table.read_text(encoding='utf-8'))
    return found[0] if found else f'`{table.name}`'

def note(found, root=root):
    "A section for the page of results; None where no table is older, or git cannot tell"
    if not found: return None
    commands = dict.fromkeys(command(root/'benchmarks'/'results'/f'{o}.md') for o in found)
    return f"## What is older than its script\n\nTables with these commands below them were measured before the last change to the script: {', '.join(commands)}."

if __name__=='__main__': print('\n'.join(lines(stale())))
