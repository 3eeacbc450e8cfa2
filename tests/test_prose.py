"""What the pages say: in words that are easy to read and were told before, with names and numbers that can be traced"""
import importlib.util,re
from pathlib import Path
import nbformat,pytest

root = Path(__file__).parents[1]
nbs = root/'nbs'

def markdown(path): return [c.source for c in nbformat.read(path, 4).cells if c.cell_type=='markdown']

peers = {'Surprise': 'surprise', 'implicit': 'implicit', 'LensKit': 'lenskit'}
not_theirs = {'csr_matrix','df','data','rows','cols','reader','user','item','rating','trainset','testset','predictions','algo','model','ids','train','test',
              'pipe','users','frame','features','file','user_items','loss','factors'}

@pytest.mark.parametrize('title', peers)
def test_names_of_peers_are_theirs(title):
    "Each name in the left column of its table, and in what it has beyond, occurs in the peer's sources"
    spec = importlib.util.find_spec(peers[title])
    if spec is None: pytest.skip(f'{title} is not installed: it is in the environment of benchmarks')
    files = [f for f in Path(spec.origin).parent.rglob('*') if f.suffix in {'.py','.pyx','.pyi','.so'}]  # some parts come compiled
    sources = '\n'.join(f.read_text(encoding='latin-1') for f in files)
    text = '\n'.join(markdown(nbs/'guides'/'from_others.ipynb'))
    table = re.search(rf'^\| there \| here \|\n\| --- \| --- \|\n(.*?)\n(?!\|)', text[re.search(rf'^## {title}$', text, re.M).end():], re.S|re.M)[1]
    beyond = re.search(rf'^- \*\*{title}\*\*: (.*)$', text, re.M)[1]
    spans = re.findall('`([^`]+)`', '\n'.join(row.split('|')[1] for row in table.splitlines())+beyond)
    names = {o for s in spans for o in re.findall(r"(?<!['\"])\b[A-Za-z]\w+\b(?!['\"])", s)} - not_theirs
    assert len(names)>10
    assert not [o for o in names if o not in {'False','True'} and not re.search(rf'\b{o}\b', sources)]

def test_the_readme_is_short():
    "A front page: some 5,000 characters, one picture, tables of at most five columns, and code on its first screen"
    text = (root/'README.md').read_text(encoding='utf-8')
    assert len(text)<=5500 and len(re.findall(r'!\[', text))==1
    assert all(line.count('|')<=6 for line in text.splitlines() if line.startswith('|'))
    assert 0<text.index('```')<1000
