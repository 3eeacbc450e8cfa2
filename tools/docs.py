"""The documentation site, from the notebooks and nbs/sidebar.yml: nbdev's processing, then Sphinx; into _docs, without
network and with no address of its own, so that it works wherever it lies. nbs/llms.txt and nbs/nbdev.yml are written too

    python tools/docs.py
"""
import ast,json,re,shutil,sys,time
from pathlib import Path
import nbformat,yaml
from markdown_it import MarkdownIt
from PIL import Image
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import PythonLexer
from nbdev.config import get_config
from nbdev.doclinks import _build_modidx
from nbdev.quarto import refresh_quarto_yml
from nbdev.serve import proc_nbs
from sphinx.cmd.build import main as sphinx
from colab import address,badge
from readme import markdown
from showdoc import anchor
from stale import lines,note,stale

tools = Path(__file__).parent
root = tools.parent
site,out = root/'_proc'/'site',root/'_proc'/'html'

within = re.compile(r'\[([^\[\]]*)\[(`[^`]+`)\]\([^)\s]*\)([^\[\]]*)\](?=\()')

plain = re.compile(r'\[(`[a-z]+`)\]\(https://\w+\.fast\.ai/\S*?\)')

own = re.compile(r'\[(`([a-z]+)`)\]\(/[\w./-]+\.html#\w+\)')

def public():
    "The names that `from fastrec.all import *` brings"
    found = (re.search(r'^__all__ = (\[.*?\])', f.read_text(encoding='utf-8'), re.M|re.S) for f in (root/'fastrec').rglob('[!_]*.py'))
    return {name for o in found if o for name in ast.literal_eval(o[1])}

linked = re.compile(r'\[(`[^`]+`)\]\(/[^)\s]*\)')   # by nbdev

# links by nbdev to another thing than is meant: of two functions with one name, a measure that is also an argument, an extra
instead = {'](/data/loader.html#plot_top_losses)': '](/interpret/errors.html#errors.plot_top_losses)'}
arguments = {'diversity'}
extra = re.compile(r'(?<=extra )'+linked.pattern)

def theirs_plain(text):
    "`text` whose tables have no links of nbdev in a first column called *there*: names in it are those of other libraries"
    lines,is_theirs = text.split('\n'),False
    for k,line in enumerate(lines):
        is_theirs = line.startswith('|') and (is_theirs or line.startswith('| there |'))
        if is_theirs:
            _,first,rest = re.split(r'(?<!\\)\|', line, maxsplit=2)
            lines[k] = f'|{linked.sub(chr(92)+"1", first)}|{rest}'
    return '\n'.join(lines)

def unnested(text, names):
    """`text` without nbdev's links within the text of links, of plain words to functions of fastai, or of ours but those with `names`,
    and of names that mean another thing there"""
    text = own.sub(lambda m: m[0] if m[2] in names-arguments else m[1], plain.sub(r'\1', text))
    for wrong,right in instead.items(): text = text.replace(wrong, right)
    return within.sub(r'[\1\2\3]', extra.sub(r'\1', theirs_plain(text)))

def sidebar():
    "The sections of nbs/sidebar.yml: pairs of a title and the notebooks under it"
    contents = yaml.safe_load((root/'nbs'/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents']
    return [(o['section'], o['contents']) if isinstance(o, dict) else (None, [o]) for o in contents]

class Page:
    "A processed notebook: its title and description, and where it is on the site"
    def __init__(self, path, cache, names):
        self.nb = nbformat.read(cache/path, 4)
        for c in self.nb.cells: c.metadata.pop('execution', None)   # nbdev's times, which nbformat refuses
        for c in self.nb.cells:
            if c.cell_type=='markdown': c.source = unnested(c.source, names)
            for data in (o.get('data', {}) for o in c.get('outputs', [])):
                if 'text/markdown' in data: data['text/markdown'] = unnested(data['text/markdown'], names)
        self.path,meta = Path(path),yaml.safe_load(self.nb.cells.pop(0).source.strip().strip('-'))
        self.title,self.description = meta['title'],meta.get('description')
        self.name = self.path.with_name(meta.get('output-file', self.path.with_suffix('.html').name)).with_suffix('')
        texts = [c.source for c in self.nb.cells if c.cell_type=='markdown'] + [o['data'].get('text/markdown', '') for c in self.nb.cells for o in c.get('outputs', []) if 'data' in o]
        self.anchors = {anchor(re.sub('`|\\]\\(\\S*\\)|\\[', '', h)) for o in texts for h in re.findall(r'^#+ (.*)$', o, re.M)}
        if not self.description: raise ValueError(f'{path} opens with no description: a line "> …" under its title')

# files at the top of the repository that pages link to, each as a page among the sources
at_the_top = re.compile(r'\[([^\]]*)\]\((?:\.\./)+(SECURITY|CHANGELOG)\.md\)')

def links(text, page, pages):
    "`text` of `page` with links to notebooks, to pages of the site and to the code, as links to its source files"
    text = re.sub(r'^(#+ .*?)\[(`[^`]+`)\]\(\S+\)', r'\1\2', text, flags=re.M)   # a heading doesn't link to itself
    up = '../'*(len(page.name.parts)-1)
    at = {(root/'nbs'/p.path).resolve(): p.name for p in pages}
    headings = {str(p.name): p.anchors for p in pages}
    def to(name, anchor):
        if anchor and anchor[1:] not in headings[str(name)]: anchor = anchor.rpartition('.')[0]   # a method shown with its class
        return f"]({up}{name}.ipynb{anchor or ''}"
    def notebook(m):
        path = (root/'nbs'/page.path.parent/m[1]).resolve()
        if path not in at: raise ValueError(f'{page.path} links to {m[1]}, which is not in nbs/sidebar.yml')
        return to(at[path], m[2])
    text = re.sub(r'\]\(([\w./-]+\.ipynb)(#[^)\s]*)?', notebook, text)
    text = re.sub(r'\]\(/([\w./-]+)\.html(#[^)\s]*)?', lambda m: to(m[1], m[2]), text)   # nbdev's, for a host that has no name
    text = at_the_top.sub(rf'<a href="{up}source/\2.html">\1</a>', text)
    code = r'\[source\]\(/blob/\w+/fastrec/([\w/]+)\.py#L(\d+)\)\{\.source-link\}'
    return re.sub(code, rf'<a class="source-link" href="{up}source/\1.html#line-\2">source</a>', text)

def as_myst(cell):
    "The cells that show `cell` in MyST: quarto's directives become tags, alternative text, or the output alone"
    if cell.cell_type!='code': return [cell]
    opts = dict(re.findall(r'^#\| *([\w-]+): *(.*)$', cell.source, re.M))
    cell.source = re.sub(r'^#\|.*\n?', '', cell.source, flags=re.M).strip()
    if opts.get('echo')=='false':
        shown = [o['data']['text/markdown'] for o in cell.outputs if 'text/markdown' in o.get('data', {})]
        if shown: return [nbformat.v4.new_markdown_cell(o) for o in shown]
        cell.metadata['tags'] = ['remove-input']
    if 'fig-alt' in opts: cell.metadata['mystnb'] = dict(image=dict(alt=json.loads(opts['fig-alt'])))
    return [cell] if cell.source or cell.outputs else []

def as_markdown(page, pages):
    "`page` for programs, with links to other pages as links to their markdown, from where it lies"
    up = '../'*(len(page.name.parts)-1)
    at = {(root/'nbs'/p.path).resolve(): p.name for p in pages}
    def notebook(m): return f"]({up}{at[(root/'nbs'/page.path.parent/m[1]).resolve()]}.html.md"
    text = re.sub(r'\]\(([\w./-]+\.ipynb)', notebook, f'# {page.title}\n\n> {page.description}\n\n{markdown(page.nb)}')
    text = re.sub(r'\]\(/([\w./-]+\.html)', rf']({up}\1.md', text)
    text = at_the_top.sub(rf'[\1]({up}source/\2.html)', text)
    text = re.sub(r'\]\(/blob/\w+/fastrec/([\w/]+)\.py#L(\d+)\)\{\.source-link\}', rf']({up}source/\1.html#line-\2)', text)
    return text

def close_up(cells):
    "Headings of the third level that stand in no section become sections"
    for c in cells:
        if c.cell_type!='markdown': continue
        if re.search('^## ', c.source, re.M): return
        c.source = re.sub('^##(#+ )', r'#\1', c.source, flags=re.M)

def write(page, pages):
    "`page` as Sphinx reads it, and as the markdown that its reference and llms.txt point to"
    dest,md = site/f'{page.name}.ipynb',nbformat.v4.new_markdown_cell
    for d in (dest,out/page.name): d.parent.mkdir(parents=True, exist_ok=True)
    (out/f'{page.name}.html.md').write_text(as_markdown(page, pages), encoding='utf-8')
    page.nb.cells = [md(f'# {page.title}\n\n{{.lead}}\n{page.description}'),
                     *(o for c in page.nb.cells for o in as_myst(c))]
    close_up(page.nb.cells)
    if page.name.stem=='index' and page.name.parent==Path('.'): page.nb.cells.append(md(toctree(pages)))
    for c in page.nb.cells:
        if c.cell_type=='markdown': c.source = links(c.source, page, pages)
    page.nb.metadata['myst'] = dict(html_meta=dict(description=page.description))
    nbformat.write(page.nb, dest)

def toctree(pages):
    "The sidebar in MyST, hidden on the page itself"
    at = {str(p.path): p.name for p in pages}
    return '\n\n'.join('\n'.join(['```{toctree}', ':hidden:', *([f':caption: {title}'] if title else []), '', *(str(at[o]) for o in paths), '```'])
                       for title,paths in sidebar() if paths!=['index.ipynb'])

code_page = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{name}</title><style>{css}</style></head>
<body><h1>{name}</h1>{code}</body></html>
"""

def write_code():
    "A page for each module, with an anchor for each line"
    style = HtmlFormatter(style='a11y-high-contrast-light', linenos='inline', linespans='line', cssclass='code')
    (out/'source').mkdir(parents=True, exist_ok=True)
    for f in sorted((root/'fastrec').rglob('[!_]*.py')):
        name = f.relative_to(root/'fastrec').with_suffix('').as_posix()
        code = highlight(f.read_text(encoding='utf-8'), PythonLexer(), style)
        text = code_page.format(name=f'fastrec/{name}.py', css=style.get_style_defs(), code=code)
        page = out/'source'/f'{name}.html'
        page.parent.mkdir(parents=True, exist_ok=True)
        page.write_text(text, encoding='utf-8')

def write_top(pages):
    "A page for each file at the top that pages link to, next to those of the modules"
    at = {f'nbs/{p.path.as_posix()}': p.name for p in pages}
    css = 'body {max-width: 50rem; margin: auto; padding: 1rem; font-family: sans-serif}'
    for name in ('SECURITY','CHANGELOG'):
        text = (root/f'{name}.md').read_text(encoding='utf-8').partition('\n')[2]   # the page has a title of its own
        text = re.sub(r'\]\((nbs/[\w./-]+\.ipynb)', lambda m: f'](../{at[m[1]]}.html', text)
        page = code_page.format(name=f'{name}.md', css=css, code=MarkdownIt().enable('table').render(text))
        (out/'source'/f'{name}.html').write_text(page, encoding='utf-8')

def questions():
    "Of nbs/guides/questions.ipynb: what comes before the questions, then each with its answer, and the code of both"
    res = [('Before all others', '', [])]
    for c in nbformat.read(root/'nbs'/'guides'/'questions.ipynb', 4).cells:
        if c.cell_type=='code' and not c.source.startswith('#| echo'): res[-1][2].append(c.source)
        elif m := re.match(r'## ([^\n]*)\n+(.*?)(?: More in .*)?$', c.source, re.S): res.append((m[1], m[2], []))
    return [(title, answer, '\n'.join(code)) for title,answer,code in res]

def is_module(path):
    "Is the notebook `path` the source of a module, which the page of all names leads to?"
    return (root/'fastrec'/path).parent.is_dir() and len(Path(path).parts)>1

# modules whose pages tell what numbers mean, by the section of the list that they are under
telling = dict(Results=['evaluate/70_evaluation.ipynb','evaluate/71_measures.ipynb','interpret/64_interpretation.ipynb'])

def llms(pages):
    "The site in brief, for readers that are programs: code for what is asked most, and links from where it lies (https://llmstxt.org)"
    by = {str(p.path): p for p in pages}
    res = ['# fastrec', f'> {get_config().description}', 'Links lead to pages of the built site; in the repository they are notebooks, nbs/….ipynb.']
    code = [f'### {title}\n\n{answer}\n\n```python\n{code}\n```'.replace('\n\n\n\n', '\n\n') for title,answer,code in questions()]
    for title,paths in sidebar():
        listed = [f'- [{by[o].title}]({by[o].name}.html.md): {by[o].description}' for o in [*(o for o in paths if not is_module(o)), *telling.get(title, [])]]
        if title=='How to': res += ['## Code', *code]
        if listed: res += [*([f'## {title}'] if title else []), '\n'.join(listed)]
    return '\n\n'.join(res) + '\n'

def slim():
    "Of MathJax the parts that conf.py loads, of the theme's 2,000 icons those that its pages show, the index where it is searched; pictures in 128 colours"
    mathjax,static = tools/'node_modules'/'mathjax'/'es5',out/'_static'
    for part in ('startup.js','core.js','input/tex-base.js','input/tex/extensions/ams.js','output/chtml.js','output/chtml/fonts'):
        (static/'mathjax'/part).parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (mathjax/part).is_dir() else shutil.copy)(mathjax/part, static/'mathjax'/part)
    used = {o for f in (*out.rglob('*.html'), *(static/'scripts').glob('*theme.js')) for o in re.findall(r'fa-([a-z-]+)', f.read_text(encoding='utf-8'))}
    icons = static/'scripts'/'fontawesome.js'
    icon = r'"?([\w-]+)"?:\[\d+,\d+,\[[^]]*\],"\w+",(?:"[^"]*"|\[[^]]*\])\],?'
    icons.write_text(re.sub(icon, lambda m: m[0] if m[1] in used else '', icons.read_text(encoding='utf-8')), encoding='utf-8')
    for f in {*out.rglob('*.html')}-{out/'search.html'}:
        text = f.read_text(encoding='utf-8')
        f.write_text(re.sub(r'\s*<script src="[^"]*(?:searchtools|language_data|searchindex)\.js[^"]*"></script>', '', text), encoding='utf-8')
    for f in static.rglob('*.map'): f.unlink()
    for f in (out/'_images').glob('*.png'): Image.open(f).convert('RGB').quantize(128, dither=Image.Dither.NONE).save(f, optimize=True)

def build():
    "The whole site; the number of errors and warnings, none of which is allowed"
    start = time.perf_counter()
    refresh_quarto_yml()
    _build_modidx()
    cache = proc_nbs(n_workers=2)
    names = public()
    pages = [Page(o, cache, names) for _,paths in sidebar() for o in paths]
    missing = {str(p.relative_to(root/'nbs')) for p in (root/'nbs').rglob('*.ipynb')} - {str(p.path) for p in pages}
    if missing: raise ValueError(f"not in nbs/sidebar.yml: {', '.join(sorted(missing))}")
    for d in (site,out): shutil.rmtree(d, ignore_errors=True)
    at,older = address(),stale()
    for p in pages:
        above,below = badge(p.path, at),note(older) if p.path==Path('results.ipynb') else None
        for at_end,o in enumerate((above,below)):
            if o: p.nb.cells.insert(len(p.nb.cells)*at_end, nbformat.v4.new_markdown_cell(o))
        write(p, pages)
    for f in (root/'nbs').rglob('*.png'):
        for d in (site,out): shutil.copy(f, d/f.relative_to(root/'nbs'))
    (root/'nbs'/'llms.txt').write_text(llms(pages), encoding='utf-8')
    shutil.copy(root/'nbs'/'llms.txt', out)
    (root/'_proc'/'static').mkdir(exist_ok=True)
    shutil.copy(root/'nbs'/'styles.css', root/'_proc'/'static')
    errors = sphinx(['-qW', '--keep-going', '-j2', '-c', str(tools/'site'), '-d', str(site/'.doctrees'), str(site), str(out)])
    slim()
    write_code()
    write_top(pages)
    shutil.rmtree(root/'_docs', ignore_errors=True)
    out.rename(root/'_docs')
    print(f'_docs: {len(pages)} pages in {time.perf_counter()-start:.0f} s', '' if not errors else 'with errors')
    print('\n'.join(lines(older)))
    return errors

if __name__=='__main__': sys.exit(build())
