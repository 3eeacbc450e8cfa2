"""The cell with which tutorial, recipes and guides begin in Colab, and their badges on the site. The address is written in
one place, [tool.fastrec] of pyproject.toml; while that is empty, there is neither cell nor badge

    python tools/colab.py
"""
import json,re,tomllib
from pathlib import Path

root = Path(__file__).parent.parent
mark = "if 'google.colab' in str(get_ipython()):"

def address(root=root):
    "The address of the repository on GitHub and the branch that is opened; None while there is none"
    found = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8')).get('tool', {}).get('fastrec', {})
    url = found.get('repository', '').removesuffix('/').removesuffix('.git')
    if url and not re.fullmatch(r'https://github\.com/[\w.-]+/[\w.-]+', url): raise ValueError(f'{url!r} is no address on GitHub, such as https://github.com/owner/name')
    return (url, found.get('branch') or 'main') if url else None

def opens(path):
    "Whether the page nbs/`path` is one to run: the tutorial, a guide or a recipe, and no list of them"
    path = Path(path)
    return path.as_posix()=='tutorial.ipynb' or path.parts[0] in ('guides','recipes') and path.name!='index.ipynb'

def badge(path, at):
    "The badge that opens nbs/`path` in Colab; None where there is no address, or nothing to run"
    if not at or not opens(path): return None
    url,branch = at
    return f"[Open in Colab]({url.replace('https://github.com', 'https://colab.research.google.com/github')}/blob/{branch}/nbs/{Path(path).as_posix()})"

def setup(path, at):
    "The cell that gets a copy of the repository in Colab, installs what its pages need and goes to the folder of nbs/`path`"
    url,branch = at
    return f"""#| hide
{mark}
    !git clone -q --depth 1 -b {branch} {url} /content/copy
    !pip install -q '/content/copy[parquet,plot,search,fast,faiss,serve]'
    %cd -q /content/copy/{(Path('nbs')/path).parent.as_posix()}"""

def sync(root=root):
    "Writes the cell under the title of each page to run, or takes it away where there is no address; the pages that changed"
    at,changed = address(root),[]
    for f in sorted((root/'nbs').rglob('*.ipynb')):
        path = f.relative_to(root/'nbs')
        if not opens(path): continue
        nb = json.loads(before := f.read_text(encoding='utf-8'))
        nb['cells'] = [c for c in nb['cells'] if mark not in ''.join(c['source'])]
        if at: nb['cells'].insert(1, dict(cell_type='code', execution_count=None, id='colab', metadata={}, outputs=[], source=setup(path, at).splitlines(keepends=True)))
        after = json.dumps(nb, indent=1, ensure_ascii=False)+'\n'
        if json.loads(before)!=nb:
            f.write_text(after, encoding='utf-8')
            changed.append(path.as_posix())
    return changed

if __name__=='__main__': print('\n'.join(sync()) or 'no page changed')
