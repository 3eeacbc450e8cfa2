"How the reference shows a function: its signature, what it does, and a table of what it takes (nbdev's `renderer`)"
import re
from fastcore.docments import DocmentTbl,MarkdownRenderer
from nbdev.doclinks import NbdevLookup

class TableRenderer(MarkdownRenderer):
    "nbdev's heading and link to the source; then the signature without comments, which stand in the table"
    def __init__(self, sym, name=None, title_level=3):
        super().__init__(sym, name=name or getattr(sym, '__qualname__', None), title_level=title_level, maxline=88)

    def _repr_markdown_(self):
        tbl = DocmentTbl(self.sym)
        for d in getattr(self.dm, 'dm', {}).values(): d.pop('docment', None)
        sig = str(self.dm).replace(':NoneType=', '=').replace('__main__.', '')
        src = NbdevLookup().code(self.nm)
        parts = ['#'*self.title_level+f' {self.nm}', f'[source]({src}){{.source-link}}' if src else '', f'```python\n{sig}\n```', self.docs or '', re.sub(r'^\|\s*\|', '| **Parameter** |', str(tbl)).replace('| NoneType |', '| |').replace('__main__.', '')]
        return '\n\n'.join(p for p in parts if p)

def anchor(text): return re.sub(r'\s+', '-', re.sub(r'[^\w\s.-]', '', text.strip().lower()))   # as pandoc, and so nbdev's links, have it
