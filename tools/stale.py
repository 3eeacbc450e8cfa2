"""Which tables of benchmarks/results are older than the code that makes them: the script that a table names, the scripts
it imports, and the functions and classes of the package that these name; by git, docstrings and comments left out. What
those functions call in turn is not followed

    python tools/stale.py
"""
import ast,re,subprocess
from pathlib import Path

root = Path(__file__).parent.parent

def git(root, *args):
    "What git says in `root`; None where it fails or is not installed"
    try: return subprocess.run(['git', *args], cwd=root, capture_output=True, text=True, encoding='utf-8', check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError): return None

def code(text, names=None):
    "What runs of the module `text`, or of its definitions called `names`: syntax trees without docstrings"
    tree = ast.parse(text)
    for o in ast.walk(tree):
        if isinstance(o, (ast.Module, ast.FunctionDef, ast.ClassDef)) and ast.get_docstring(o, clean=False) is not None: o.body[:1] = []
    return [ast.dump(o) for o in tree.body if names is None or getattr(o, 'name', None) in names]

def definitions(root):
    "The modules of the package that define each function or class; a method that a class is given by a decorator as `.name`"
    res = {}
    for f in sorted((root/'fastrec').rglob('[!_]*.py')):
        for o in ast.parse(f.read_text(encoding='utf-8')).body:
            if isinstance(o, (ast.FunctionDef, ast.ClassDef)):
                given = any('patch' in ast.dump(d) for d in o.decorator_list)
                res.setdefault('.'*given+o.name, set()).add(f)
    return res

def sources(script, defined):
    "What `script` depends on: whole scripts, itself and those it imports, as files with None; of modules the names that they hold"
    found,todo = {},[script]
    while todo:
        if (f := todo.pop()) in found: continue
        found[f],nodes = None,[*ast.walk(ast.parse(f.read_text(encoding='utf-8')))]
        names = {o.id for o in nodes if isinstance(o, ast.Name)} | {f'.{o.attr}' for o in nodes if isinstance(o, ast.Attribute)}
        for name in names - {o.name for o in nodes if isinstance(o, (ast.FunctionDef, ast.ClassDef))}:
            for m in defined.get(name, ()): found.setdefault(m, set()).add(name.strip('.'))
        beside = [f.with_name(f'{o.module}.py') for o in nodes if isinstance(o, ast.ImportFrom) and o.module!='report']
        todo += [o for o in beside if o.exists()]
    return found

def changed(root, result, files):
    "Those of `files` that run otherwise than in the commit that last changed `result`; none where `result` is newer than any commit"
    if git(root, 'status', '--porcelain', '--', str(result)): return []
    made = git(root, 'log', '-1', '--format=%H', '--', str(result))
    by_name = {f.relative_to(root).as_posix(): names for f,names in files.items()}
    differ = (git(root, 'diff', '--name-only', '--relative', made, '--', *sorted(by_name)) or '').splitlines()
    def same(name):
        before = git(root, 'show', f'{made}:./{name}')
        return before is not None and code(before, by_name[name])==code((root/name).read_text(encoding='utf-8'), by_name[name])
    return [o for o in differ if not same(o)]

def stale(root=root):
    "The tables that are older than their code, each with the files that have changed since; None where git cannot tell"
    if git(root, 'rev-parse', '--is-shallow-repository')!='false' or git(root, 'rev-parse', 'HEAD') is None: return None
    defined,res = definitions(root),{}
    for f in sorted((root/'benchmarks'/'results').glob('*.md')):
        named = re.search(r'`python (\w+/\w+\.py)[^`]*`[^|]*$', f.read_text(encoding='utf-8'))
        if not named or not (root/named[1]).exists(): res[f.stem] = ['a script that is gone']
        elif files := changed(root, f, sources(root/named[1], defined)): res[f.stem] = files
    return res

def lines(found):
    "`found` in words, a line for each table"
    if found is None: return ['results: no full history of git here, which could say whether they are older than their code']
    def some(files): return ', '.join(files[:4]) + (f' and {len(files)-4} more files' if len(files)>4 else '')
    return [f'results/{name}.md is older than {some(files)}' for name,files in found.items()] or ['results: none is older than its code']

def note(found):
    "A sentence for the page of results: the tables whose scripts have changed since; None where there are none, or git cannot tell"
    names = [f'`{name}.md`' for name,files in (found or {}).items() if any(not o.startswith('fastrec/') for o in files)]
    if names: return f"Older than the scripts that make them: {', '.join(names)}."

if __name__=='__main__': print('\n'.join(lines(stale())))
