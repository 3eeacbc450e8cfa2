"""What the benchmarks share: the settings, and a table that names its command, machine and versions"""
import os,platform,sys
from importlib.metadata import version
from pathlib import Path
os.environ.setdefault('OMP_NUM_THREADS', '1')
import torch
from fastcore.xtras import Config
from fastrec import __version__

settings = Config.find('settings.ini', Path(__file__).parent).d.parser

def cpu():
    "Name of the processor, and the instructions that PyTorch uses"
    names = [l.split(':')[1].strip() for l in Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines() if l.startswith('model name')] if Path('/proc/cpuinfo').exists() else []
    name = names[0] if names else platform.processor() or platform.machine()
    return f'{name} ({torch.backends.cpu.get_cpu_capability()})'

def versions():
    "What runs"
    return f'Python {platform.python_version()}, ' + ', '.join([f'fastrec {__version__}', *(f'{o} {version(o)}' for o in ('fastai','torch','pandas'))])

class Report:
    "A markdown table called `name`, printed row by row and written to results/"
    def __init__(self, name, *columns):
        self.name,self.rows,self.threads = name,[columns, ['---']*len(columns)],torch.get_num_threads()  # which peers may change
        print(self._line(columns))

    def _line(self, row): return '| ' + ' | '.join(map(str, row)) + ' |'
    def add(self, *row):
        self.rows.append(row)
        print(self._line(row), flush=True)

    def write(self):
        threads = f', {self.threads} thread(s)' if self.threads else ''  # none where the table tells them
        note = f'`{" ".join(["python benchmarks/"+Path(sys.argv[0]).name, *sys.argv[1:]])}`: {cpu()}, {os.cpu_count()} cores{threads}; {versions()}.'
        out = Path(__file__).parent/'results'/f'{self.name}.md'
        out.parent.mkdir(exist_ok=True)
        out.write_text('\n'.join(map(self._line, self.rows)) + f'\n\n{note}\n', encoding='utf-8')
