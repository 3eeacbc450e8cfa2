"""Write README.md and CONTRIBUTING.md from their pages: the text as it is, the code fenced, the outputs as plain text"""
import os,re
from copy import deepcopy
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).parent.parent
def as_markdown(output):
    "`output` with the epoch table of a fit as a markdown table; nothing of a finished progress bar"
    html = output.get('data', {}).get('text/html', '')
    if 'table class="fastprogress"' in html:
        rows = [re.findall('<t[hd]>(.*?)</t[hd]>', r) for r in re.findall('<tr>(.*?)</tr>', html, re.S)]
        output.data = {'text/markdown': '\n'.join(f'| {" | ".join(r)} |' for r in [rows[0], ['---']*len(rows[0]), *rows[1:]])}
    return [] if '<IPython.core.display.HTML' in output.get('data', {}).get('text/plain', '') else [output]

def markdown(nb):
    "`nb` as markdown; cells marked `echo: false` show only their output"
    nb = deepcopy(nb)
    nb.metadata.language_info = {'name': 'python'}
    for c in nb.cells:
        if c.cell_type=='code': c.outputs = [o for out in c.outputs for o in as_markdown(out)]
        if '#| echo: false' in c.source: c.metadata.tags = ['no-input']
    cfg = Config({'NbConvertBase': {'display_data_priority': ['text/markdown', 'text/plain']},
                  'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': ['no-input']}})
    text,_ = MarkdownExporter(config=cfg).from_notebook_node(nb)
    return re.sub(r'\n{3,}', '\n\n', '\n'.join(l.rstrip() for l in text.strip().split('\n'))) + '\n'

def render(name):
    "The page nbs/`name`.ipynb as it is at the top of the repository, where its links lead to the notebooks"
    path = root/'nbs'/f'{name}.ipynb'
    link = lambda m: f"]({Path(os.path.normpath(path.parent.relative_to(root)/m[1])).as_posix()}"
    return f'<!-- Made from nbs/{name}.ipynb by `make sync`; edit that instead. -->\n\n' + re.sub(r'\]\(([\w./-]+\.(?:ipynb|png))', link, markdown(nbformat.read(path, 4)))

made = {'README.md': 'index', 'CONTRIBUTING.md': 'developers/contributing'}

if __name__=='__main__':
    for file,name in made.items(): (root/file).write_text(render(name), encoding='utf-8')
