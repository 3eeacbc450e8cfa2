"""Write README.md from nbs/index.ipynb: the text as it is, the code fenced, the outputs as plain text"""
import re
from pathlib import Path
import nbformat
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).parent.parent
note = '<!-- Made from nbs/index.ipynb by `make sync`; edit that instead. -->\n\n'

def as_markdown(output):
    "`output` with the epoch table of a fit as a markdown table; nothing of a finished progress bar"
    html = output.get('data', {}).get('text/html', '')
    if 'table class="fastprogress"' in html:
        rows = [re.findall('<t[hd]>(.*?)</t[hd]>', r) for r in re.findall('<tr>(.*?)</tr>', html, re.S)]
        output.data = {'text/markdown': '\n'.join(f'| {" | ".join(r)} |' for r in [rows[0], ['---']*len(rows[0]), *rows[1:]])}
    return [] if '<IPython.core.display.HTML' in output.get('data', {}).get('text/plain', '') else [output]

def render(path):
    "The notebook at `path` as markdown; cells marked `echo: false` show only their output, links lead to the notebooks"
    nb = nbformat.read(path, 4)
    nb.metadata.language_info = {'name': 'python'}
    for c in nb.cells:
        if c.cell_type=='code': c.outputs = [o for out in c.outputs for o in as_markdown(out)]
        if c.source.startswith('#| echo: false'): c.metadata.tags = ['no-input']
    cfg = Config({'NbConvertBase': {'display_data_priority': ['text/markdown', 'text/plain']},
                  'TagRemovePreprocessor': {'enabled': True, 'remove_input_tags': ['no-input']}})
    text,_ = MarkdownExporter(config=cfg).from_notebook_node(nb)
    text = re.sub(r'\]\(([\w/]+\.ipynb)', r'](nbs/\1', text)
    return note + re.sub(r'\n{3,}', '\n\n', '\n'.join(l.rstrip() for l in text.strip().split('\n'))) + '\n'

if __name__=='__main__': (root/'README.md').write_text(render(root/'nbs'/'index.ipynb'))
