"""How the code is built: folders in one direction, no private name across files, no patch onto a class of another file but the learner and the
recommender, and what serves without fastai imports none"""
import ast,json,re,subprocess,sys,tomllib
from fnmatch import fnmatch
from functools import cache
from pathlib import Path

root = Path(__file__).parents[1]
package = root/'fastrec'
order = 'base data models answer export fit evaluate interpret scale serve command'.split()  # each folder imports those before it
open_to_patches = {'RecLearner','Recommends'}  # classes of fastrec's that pages may add methods to, as they may to fastai's

@cache
def rooms():
    "The syntax tree of each module by its name, `data.frames`"
    return {'.'.join(f.relative_to(package).with_suffix('').parts): ast.parse(f.read_text(encoding='utf-8')) for f in package.rglob('*.py') if f.parent!=package and f.name!='__init__.py'}

def imported(room):
    "Pairs of a room of fastrec's that `room` imports from, and a name"
    for o in ast.walk(rooms()[room]):
        if not isinstance(o, ast.ImportFrom): continue
        folder = room.split('.')[0]
        base = {0: o.module.removeprefix('fastrec.') if (o.module or '').startswith('fastrec.') else None, 1: f'{folder}.{o.module}', 2: o.module}[o.level]
        if base in rooms(): yield from ((base,a.name) for a in o.names)

def needs(room): return {r for r,_ in imported(room)}

def test_no_room_needs_itself():
    done,way = set(),[]
    def visit(room):
        assert room not in way, ' -> '.join([*way[way.index(room):], room])
        if room in done: return
        way.append(room)
        for o in needs(room): visit(o)
        done.add(way.pop())
    for o in rooms(): visit(o)
    assert len(done)>50

def test_folders_import_those_before_them():
    "But for their `__init__`, which gather what a learner or a loaded recommender needs"
    place = lambda room: order.index(room.split('.')[0])
    assert {(room,o) for room in rooms() for o in needs(room) if place(o)>place(room)}==set()

def test_no_private_name_leaves_its_file():
    assert {(room,name) for room in rooms() for _,name in imported(room) if name.startswith('_') and name!='__version__'}==set()

def test_patches_are_onto_classes_of_the_same_file():
    ours = {o.name: room for room,tree in rooms().items() for o in tree.body if isinstance(o, ast.ClassDef)}
    found = set()
    for room,tree in rooms().items():
        for f in tree.body:
            if not isinstance(f, ast.FunctionDef) or not any('patch' in ast.unparse(d) for d in f.decorator_list): continue
            for cls in re.findall(r'\w+', ast.unparse(f.args.args[0].annotation)):
                if cls in ours and ours[cls]!=room and cls not in open_to_patches: found.add((cls,f.name,room))
    assert found==set() and len(ours)>40

def test_what_answers_without_fastai_imports_none():
    light,todo = set(),['export.loading','export.exchange','answer.newcomers','answer.recommend','answer.similar','evaluate.evaluation','command.answers','serve.service']
    while todo:
        room = todo.pop()
        light.add(room)
        todo += [*(needs(room)-light)]
    assert len(light)>25
    for room in light:
        names = {o.module for o in ast.walk(rooms()[room]) if isinstance(o, ast.ImportFrom) and o.module} | {a.name for o in ast.walk(rooms()[room]) if isinstance(o, ast.Import) for a in o.names}
        assert not [o for o in names if o.split('.')[0]=='fastai'], room

def test_what_is_imported_is_used():
    "But for modules that add methods when they are loaded, which a comment behind the line says"
    for room,tree in rooms().items():
        lines = (package/f'{room.replace(".", "/")}.py').read_text(encoding='utf-8').splitlines()
        imports = [o for o in tree.body if isinstance(o, ast.Import | ast.ImportFrom) and '#' not in lines[o.lineno-1]]
        used = {o.id for o in ast.walk(tree) if isinstance(o, ast.Name)}
        assert {(a.asname or a.name).split('.')[0] for o in imports for a in o.names}-used-{'*'}==set(), room

def test_every_folder_is_installed():
    with open(root/'pyproject.toml', 'rb') as f: found = tomllib.load(f)['tool']['setuptools']['packages']['find']['include']
    assert {f.name for f in package.iterdir() if f.is_dir() and (f/'__init__.py').exists()}=={*order}
    for o in ('fastrec', *(f'fastrec.{o}' for o in order)): assert any(fnmatch(o, p) for p in found), o

def test_all_brings_every_public_name_and_loads_every_room():
    code = "import sys,fastrec.all as a; print(*vars(a)); print(*[o for o in sys.modules if o.startswith('fastrec.')])"
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, timeout=110, check=True)
    names,loaded = (set(o.split()) for o in done.stdout.splitlines())
    assert not [o for o in loaded if o.startswith('fastrec.serve')]  # an extra: `import fastrec.serve` brings it
    for room,tree in rooms().items():
        if room.startswith('serve.'): continue
        public = next(ast.literal_eval(o.value) for o in tree.body if isinstance(o, ast.Assign) and o.targets[0].id=='__all__')
        assert {*public}<=names, room
        assert f'fastrec.{room}' in loaded, room

def test_functions_are_short():
    "Lines of a body behind its docstring"
    lengths = []
    for tree in rooms().values():
        for f in ast.walk(tree):
            if isinstance(f, ast.FunctionDef):
                body = f.body[1:] if ast.get_docstring(f) and len(f.body)>1 else f.body
                lengths.append(f.end_lineno-body[0].lineno+1)
    lengths.sort()
    assert lengths[len(lengths)//2]<=6 and lengths[len(lengths)*9//10]<=20 and lengths[-1]<=40

def test_no_line_is_over_140():
    for f in package.rglob('*.py'):
        if f.name!='_modidx.py':
            for n,line in enumerate(f.read_text(encoding='utf-8').splitlines(), 1): assert len(line)<=140, f'{f.relative_to(root)}:{n}'

def test_code_is_not_dense():
    "Nodes of the syntax tree for a line of code: fastai's core has 10.8"
    nodes,lines = {},{}
    for room,tree in rooms().items():
        text = (package/f'{room.replace(".", "/")}.py').read_text(encoding='utf-8')
        nodes[room] = sum(1 for _ in ast.walk(tree))
        lines[room] = sum(1 for l in text.splitlines() if l.strip() and not l.strip().startswith('#'))
    assert sum(nodes.values())<=11*sum(lines.values())
    for o in rooms(): assert nodes[o]<=13*lines[o] and lines[o]<=200, f'{o}: {nodes[o]/lines[o]:.1f} nodes a line, {lines[o]} lines'

def test_cells_of_code_are_small():
    for p in (root/'nbs').rglob('*.ipynb'):
        for c in json.loads(p.read_text(encoding='utf-8'))['cells']:
            code = [l for l in ''.join(c['source']).splitlines() if not l.startswith(('#|','from ','import '))]
            assert c['cell_type']!='code' or len(code)<=25, f'{p.name}, {c["id"]}: {len(code)} lines'

def test_lines_over_120_are_messages_and_docstrings():
    for room,tree in rooms().items():
        lines = (package/f'{room.replace(".", "/")}.py').read_text(encoding='utf-8').splitlines()
        texts = [o for o in ast.walk(tree) if isinstance(o, ast.JoinedStr) or isinstance(o, ast.Constant) and isinstance(o.value, str)]
        of_text = {n for o in texts if o.end_lineno>o.lineno or o.end_col_offset-o.col_offset>40 for n in range(o.lineno, o.end_lineno+1)}
        for n,line in enumerate(lines, 1):
            code = re.sub(r'\s#.*$', '', line)  # without what a docment says
            assert len(code)<=120 or n in of_text, f'{room}, line {n}'
