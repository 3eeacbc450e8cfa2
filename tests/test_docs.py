"""The documentation: what it must name and show, and, where `make docs` has built it and there is a Chromium, its pages as a reader sees them"""
import functools,http.server,importlib,json,re,shutil,threading,tomllib
from pathlib import Path
from urllib.parse import unquote,urlsplit
import nbformat,pytest,yaml
from fastai.collab import CollabDataLoaders
from fastai.interpret import Interpretation
from fastai.learner import Learner
from fastrec._modidx import d

root = Path(__file__).parent.parent
nbs,site = root/'nbs',root/'_docs'
notebooks = sorted(nbs.rglob('*.ipynb'))
axe = root/'tools'/'node_modules'/'axe-core'/'axe.min.js'
chromium = shutil.which('chromium') or shutil.which('google-chrome') or shutil.which('chromium-browser')
built = pytest.mark.skipif(not (site/'index.html').exists(), reason='no site: make docs builds it')
browser = pytest.mark.skipif(not (chromium and axe.exists() and (site/'index.html').exists()), reason='needs the site (make docs) and a Chromium')

def pages():
    "Notebooks' pages: the site's own index and search, and its copies of sources, aside"
    own = {site/'genindex.html',site/'search.html'}
    return sorted(p for p in site.rglob('*.html') if not {'_static','source'}&{*p.relative_to(site).parts} and p not in own)
def cells(path, kind): return [c for c in nbformat.read(path, 4).cells if c.cell_type==kind]

def public():
    "Every public name, and the page and anchor of its documentation: what modules export, and what learners, loaders and interpretations can do beyond fastai's"
    users = {'RecLearner': Learner, 'Recommends': Learner, 'RecDataLoaders': CollabDataLoaders,
             **dict.fromkeys(('Learned','BiasTables','Directions','Errors','RecInterpretation'), Interpretation)}
    for module,syms in d['syms'].items():
        try: exported = importlib.import_module(module).__all__
        except ModuleNotFoundError as e:
            if e.name!='uvicorn_worker': raise
            continue  # for who has gunicorn
        for sym,(url,_) in syms.items():
            cls,_,name = sym.removeprefix(f'{module}.').rpartition('.')
            if name.startswith('_') or name not in exported if not cls else cls not in users or name.startswith('_') or hasattr(users[cls], name): continue
            yield sym.removeprefix(f'{module}.'),url

def test_every_public_name_is_shown_in_an_example():
    shown = '\n'.join(c.source for p in notebooks for c in cells(p, 'code') if not re.search(r'^#\| *export', c.source, re.M))
    assert len([*public()])>60
    missing = [name for name,_ in public() if not re.search(rf"\b{name.split('.')[-1]}\b", shown)]
    assert not missing

def test_every_result_is_on_a_page_as_it_was_measured():
    pages = nbs/'results.ipynb',nbs/'developers'/'machines.ipynb'
    shown = [o['data']['text/markdown'] for p in pages for c in cells(p, 'code') for o in c.outputs if 'text/markdown' in o.get('data', {})]
    files = [*(root/'benchmarks'/'results').glob('*.md')]
    assert len(files)>5
    for f in files: assert any(o.strip()==f.read_text(encoding='utf-8').strip() for o in shown), f'{f.name}: run tools/run_notebooks.py {" ".join(map(str, pages))}'

def test_tables_of_benchmarks_are_the_same_on_every_page():
    "Line by line, as a page may show some rows of a table"
    files = (root/'benchmarks'/'results').glob('*.md')
    lines = {o for f in files for o in f.read_text(encoding='utf-8').splitlines()}
    shown = [(p,o['data'].get('text/markdown', '')) for p in notebooks for c in cells(p, 'code') for o in c.outputs if 'data' in o]
    tables = [(p,o.splitlines()) for p,o in shown if o.startswith('|') and '`python benchmarks/' in o]
    assert len(tables)>20
    for p,rows in tables: assert lines.issuperset(rows), f'run tools/run_notebooks.py {p.relative_to(root)}'

@pytest.mark.parametrize('path', notebooks, ids=lambda p: p.stem)
def test_stored_outputs_are_clean(path):
    "No warnings, no errors that a cell doesn't show on purpose, no paths of the machine that ran them"
    for c in cells(path, 'code'):
        for o in c.outputs:
            text = json.dumps(o)
            assert o.output_type!='error' and o.get('name')!='stderr', c.source
            assert not re.search(r'</progress> 100\.00%', text), f'a finished bar: run tools/run_notebooks.py {path}'
            assert not re.search(r'Warning|/(root|home|Users|tmp)/|site-packages', text), c.source
            if 'image/png' in o.get('data', {}): assert re.search(r'^#\| fig-alt: ".{20,}"$', c.source, re.M), f'no #| fig-alt: for the picture of\n{c.source}'

def test_sidebar_names_every_notebook_once():
    at = lambda o: [o] if isinstance(o, str) else [p for q in o['contents'] for p in at(q)]
    listed = [p for o in yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents'] for p in at(o)]
    assert sorted(listed)==[p.relative_to(nbs).as_posix() for p in notebooks]

def test_architecture_names_every_module():
    "The table below its drawing, which is made by the same cells"
    shown = '\n'.join(o['data'].get('text/markdown', '') for c in cells(nbs/'developers'/'architecture.ipynb', 'code') for o in c.outputs if 'data' in o)
    rows = dict(re.findall(r'^\| `(\w+)` \| (.*) \|$', shown, re.M))
    named = {f'{k}.{o}' for k,v in rows.items() for o in v.replace('*', '').split(', ')}
    package = root/'fastrec'
    files = {'.'.join(f.relative_to(package).with_suffix('').parts) for f in package.rglob('*.py') if f.parent!=package and f.stem!='__init__'}
    assert named==files, 'run tools/run_notebooks.py nbs/developers/architecture.ipynb'

def test_reference_has_the_order_of_the_sidebar_and_whole_sentences():
    shown = '\n'.join(o['data'].get('text/markdown', '') for c in cells(nbs/'reference.ipynb', 'code') for o in c.outputs if 'data' in o)
    listed = re.findall(r'- (\w+)/\d+_\w+\.ipynb', (nbs/'sidebar.yml').read_text(encoding='utf-8'))
    sections = re.findall(r'^## (\w+)$', shown, re.M)
    assert sections==[o for o in dict.fromkeys(listed) if o in sections] and len(sections)>8
    rows = re.findall(r'^\| `([\w.]+)` \| (.*) \|$', shown, re.M)
    assert len(rows)>300
    assert [name for name,text in rows if not re.search(r'[\w`)\]"?]$|[.]{3}$', text)]==[], 'no sentence, or half of one'

def test_quarto_configuration_is_whole():
    cfg = yaml.safe_load((nbs/'_quarto.yml').read_text(encoding='utf-8'))
    for f in (*cfg['metadata-files'], cfg['format']['html']['css'], *cfg['project']['resources']): assert (nbs/f).exists()
    assert yaml.safe_load((nbs/'nbdev.yml').read_text(encoding='utf-8'))['project']['output-dir']=='_docs'

@functools.cache
def soup(path):
    "A built page"
    from bs4 import BeautifulSoup
    return BeautifulSoup(path.read_text(encoding='utf-8'), 'html.parser')

def test_no_address_is_printed_that_is_not_known_to_exist():
    "Nor is anybody sent to another project's package of the same name"
    suffixes = {'.py','.md','.ipynb','.toml','.yml','.yaml','.txt','.ini','.cff'}
    files = [f for d in ('fastrec','nbs','tools','benchmarks','.github','') for f in ((root/d).rglob('*') if d else root.iterdir())]
    for f in files:
        if f.suffix not in suffixes or 'node_modules' in f.parts: continue
        found = re.findall(r'github\.com/fastrec|fastrec\.github\.io|pip install [^\n`]*\bfastrec\b\S*', f.read_text(encoding='utf-8'))
        assert not found, (f, found)

def test_the_distribution_has_a_name_of_its_own():
    project = tomllib.loads((root/'pyproject.toml').read_text(encoding='utf-8'))['project']
    assert project['name']!='fastrec' and 'urls' not in project and project['entry-points']['nbdev']=={'fastrec': 'fastrec._modidx:d'}

@built
def test_every_page_has_title_and_description():
    titles = []
    for p in pages():
        titles.append(soup(p).title.string)
        assert len(soup(p).find('article').find_all('h1'))==1, p
        assert len(soup(p).find('meta', attrs={'name': 'description'})['content'])>20, p
    assert len({*titles})==len(titles)==len(notebooks)

@built
def test_no_link_or_anchor_is_broken():
    broken = []
    for p in pages():
        for a in soup(p).find_all(href=True):
            url = urlsplit(a['href'])
            if url.scheme or a['href']=='#': continue
            to = (p.parent/unquote(url.path)).resolve() if url.path else p
            if not to.exists(): broken.append((p.name, a['href']))
            elif url.fragment and to.suffix=='.html' and not soup(to).find(id=unquote(url.fragment)): broken.append((p.name, a['href']))
    assert not broken

@built
def test_links_are_links():
    "What should be one isn't shown as markdown"
    for p in pages():
        article = soup(p).find('article')
        shown = ' '.join(o for o in article.find_all(string=True) if not o.find_parent(['pre','code','math']))
        assert not (odd := re.search(r'.{,40}\]\([^)\s]{3,}\)', shown)), f'{p.relative_to(site)}: {odd[0]}'
    for o in site.rglob('*.html.md'):
        text = re.sub(r'```.*?```|    [^\n]*', '', o.read_text(encoding='utf-8'), flags=re.S)
        assert not (odd := re.search(r'\[[^\[\]\n]*\[`[^\n]*', text)), f'{o.relative_to(site)}: {odd[0]}'

@built
def test_every_public_name_has_its_place_in_the_reference():
    for name,url in public():
        page,anchor = url.split('#')
        assert soup(site/page).find(id=anchor) or soup(site/page).find(id=anchor.rpartition('.')[0]), f'{name} is not on {page}'

@built
def test_front_page_says_what_the_readme_says():
    def words(text): return re.findall(r'[a-z]{4,}', text.lower())
    here = words(soup(site/'index.html').find('article').get_text(' '))
    there = words(re.sub(r'<!--.*?-->|!\[.*?\]\(.*?\)|\]\(.*?\)', '', (root/'README.md').read_text(encoding='utf-8')))
    assert not {*there}-{*here} and abs(len(here)-len(there)) < .1*len(there)

def test_who_reads_llms_txt_alone_can_write_code():
    "It has the questions that are asked most, each with the code of its page as it is there, and little else"
    text = (nbs/'llms.txt').read_text(encoding='utf-8')
    cells = nbformat.read(nbs/'guides'/'questions.ipynb', 4).cells
    asked = [re.match('## (.*)', c.source)[1] for c in cells if c.source.startswith('## ')]
    code = [c.source for c in cells if c.cell_type=='code' and not c.source.startswith('#| echo')]
    assert len(asked)>=15 and all(f'\n### {o}\n' in text for o in asked)
    assert all(o in text for o in code) and text.count('```python')==len(asked)+1
    assert len(text)<15_000 and 'RecDataLoaders.from_csv(' in text
    for o in ('evaluate/evaluation','evaluate/measures','interpret/interpretation'): assert f']({o}.html.md): ' in text  # what numbers mean

@built
def test_pages_are_there_as_markdown_for_programs():
    listed = re.findall(r'\]\(([\w./-]+)\): ', (site/'llms.txt').read_text(encoding='utf-8'))
    there = {str(f.relative_to(site)) for f in site.rglob('*.html.md')}
    assert len(there)==len(notebooks) and {*listed}<=there and {'tutorial.html.md','reference.html.md','guides/questions.html.md'}<={*listed}
    for o in there:
        text = (site/o).read_text(encoding='utf-8')
        assert text.startswith('# ') and not re.search(r'\]\(/', text)
        prose = re.sub('```.*?```', '', text, flags=re.S)
        lost = [m for m in re.findall(r'\]\((?!https?:|data:|#)([^)\s#]+)', prose) if not ((site/o).parent/m).exists()]
        assert not lost, (o, lost)

@built
def test_names_of_others_do_not_lead_to_ours():
    "In a column called *there* they are of another library; an extra isn't the function of its name; of two functions with one name the one that is meant"
    for p in pages():
        for table in soup(p).find_all('table'):
            if table.find('th') and table.find('th').get_text().strip()=='there':
                assert not [a for row in table.find_all('tr') if row.find('td') for a in row.find('td').find_all('a', href=re.compile('html#'))], p
    assert 'extra [`' not in (site/'evaluate'/'search.html.md').read_text(encoding='utf-8')
    assert '](../interpret/errors.html.md#errors.plot_top_losses)' in (site/'interpret'/'interpretation.html.md').read_text(encoding='utf-8')

@pytest.fixture(scope='module')
def windows():
    "Windows of browsers that ask for light and for dark pages, and the address of the site served on this machine"
    from playwright.sync_api import sync_playwright
    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args, **kwargs): super().__init__(*args, directory=site, **kwargs)
        def log_message(self, *args): pass
    server = http.server.ThreadingHTTPServer(('127.0.0.1',0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    with sync_playwright() as p:
        res = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        page,dark = (res.new_page(viewport=dict(width=1280, height=900), color_scheme=o) for o in ('light','dark'))
        for o in (page,dark): o.set_default_timeout(100_000)  # what a page waits for comes late on a busy machine
        yield page,dark,f'http://127.0.0.1:{server.server_port}'
        res.close()
    server.shutdown()

def violations(page, *rules):
    "What axe finds wrong on `page`: by its rules for WCAG 2 A and AA and for headings, or by `rules`"
    opts = dict(type='rule', values=rules) if rules else dict(type='tag', values=['wcag2a','wcag2aa','wcag21a','wcag21aa'])
    extra = {} if rules else {'rules': {o: {'enabled': True} for o in ('heading-order','page-has-heading-one','empty-heading')}}
    found = page.evaluate('opts => axe.run(document, opts)', dict(runOnly=opts, resultTypes=['violations'], **extra))['violations']
    return [(v['id'], n['target'], n['html'][:150]) for v in found for n in v['nodes']]

@browser
@pytest.mark.parametrize('name', [p.relative_to(site).as_posix() for p in pages()])
def test_page_in_a_browser(windows, name):
    page,dark,host = windows
    urls,sizes,errors = [],[],[]
    listeners = dict(request=lambda r: urls.append(r.url), response=lambda r: sizes.append(int(r.headers.get('content-length', 0)) if r.ok else 0), pageerror=lambda e: errors.append(str(e)),
                     console=lambda m: errors.append(m.text) if m.type=='error' else None)
    page.set_viewport_size(dict(width=1280, height=900))
    for k,f in listeners.items(): page.on(k, f)
    page.goto(f'{host}/{name}', wait_until='networkidle')
    for k,f in listeners.items(): page.remove_listener(k, f)
    assert not errors
    assert all(u.startswith((host,'data:','blob:')) for u in urls), urls
    assert 1e4<sum(sizes)<2e6, f'{sum(sizes)/1e6:.1f} MB'
    n_math = page.locator('.math').count()
    page.wait_for_function("n => document.querySelectorAll('mjx-container').length>=n", arg=n_math)
    assert not page.locator('mjx-merror').count()
    page.add_script_tag(path=axe)
    assert not violations(page)
    dark.goto(f'{host}/{name}')
    assert dark.evaluate('document.documentElement.dataset.theme')=='dark'
    dark.add_script_tag(path=axe)
    assert not violations(dark, 'color-contrast')
    page.set_viewport_size(dict(width=380, height=800))
    page.wait_for_function('document.documentElement.scrollWidth<=380')

@browser
def test_search_finds_recommend(windows):
    page,_,host = windows
    page.goto(f'{host}/search.html?q=recommend')
    page.wait_for_selector('#search-results li a[href^="answer/"]')
