"""Write README.md from nbs/index.ipynb: the text as it is, the code fenced, the outputs as plain text"""
from pathlib import Path
from nbconvert import MarkdownExporter
from traitlets.config import Config

root = Path(__file__).parent.parent
note = '<!-- Made from nbs/index.ipynb by `make sync`; edit that instead. -->\n\n'

if __name__=='__main__':
    cfg = Config({'NbConvertBase': {'display_data_priority': ['text/markdown', 'text/plain']}})
    text,_ = MarkdownExporter(config=cfg).from_filename(root/'nbs'/'index.ipynb')
    lines = [l.rstrip() for l in text.strip().split('\n')]
    (root/'README.md').write_text(note + '\n'.join(lines) + '\n')
