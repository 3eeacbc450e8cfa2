"""What the pages say: in words that are easy to read and were told before, with names and numbers that can be traced"""
import importlib.util,math,re
from pathlib import Path
import nbformat,pytest,yaml

root = Path(__file__).parents[1]
nbs = root/'nbs'

def markdown(path): return [c.source for c in nbformat.read(path, 4).cells if c.cell_type=='markdown']

def introduces_nothing(cell, after):
    "Does a `cell` of text end in a colon, and the site shows no code, table or formula `after` it? It hides exported cells"
    if cell.cell_type!='markdown' or not cell.source.rstrip().endswith(':'): return False
    if after is None: return True
    if after.cell_type=='markdown': return not re.match(r'\||\$\$|```|[-*] |\d+\. ', after.source)
    return bool(re.match(r'#\| *exporti?\b', after.source))

@pytest.mark.parametrize('path', sorted(nbs.rglob('*.ipynb')), ids=lambda p: p.stem)
def test_colons_introduce_what_the_site_shows(path):
    cells = nbformat.read(path, 4).cells
    lost = [c.source[-100:] for c,after in zip(cells, [*cells[1:], None]) if introduces_nothing(c, after)]
    assert not lost, lost

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

units = r'%|×|‰| ?(?:seconds?|s|ms|milliseconds?|µs|microseconds?|minutes?|hours?|[kMGT]B|bytes)\b'
measured = re.compile(rf'(?<![\w.,/–-])(?:(\d[\d,]*|\d*\.\d+)(?:{units})|(\d*\.\d\d+)(?![\w.])|(\d[\d,.]*) times (?:as|faster|slower))')
amounts = 'half|third|quarter|fifth|sixth|tenth|hundredth|thousandth|several|two|three|four|five|six|eight|nine|ten|twenty|thirty|forty|hundred'
in_words = re.compile(rf'\b(?:(?:{amounts}) (?:of )?(?:a |an )?(?:milli|micro)?seconds?|(?:{amounts}) times (?:as fast|as long|faster|slower)|(?:{amounts}) minutes?)\b')
# What no table, code or output has: the sum that it is, or why it may stand
gb,mb = 1e-9,1e-6
allowed = {
    ('06_loaders','63%'): 100*(1-math.exp(-1)), ('66_ease','8.6 GB'): 4*46340**2*gb, ('59_moments','35 MB'): 4*4000*(66*67//2)*mb,
    ('big_data','12 bytes'): 3*4, ('big_data','.3 GB'): 12*25e6*gb, ('big_data','.05 GB'): 4*51*(162_541+59_047)*gb, ('gpu','.3 GB'): 12*25e6*gb,
    ('machines','12 bytes'): 3*4, ('machines','120 GB'): 12*1e10*gb, ('sharded_tables','26 GB'): 4*65*1e8*gb, ('64_choices','120 GB'): 4*1e6*3e4*gb,
    ('plan','.76'): 200_948*87_585/23.1*gb, ('plan','128 s'): 2*64*1e15/1e15, ('45_loop','204 bytes'): 4*(50+1), ('66_ease','55 MB'): 4*3706**2*mb,
    ('79_spaces','.03'): (.001*1)**.5, ('r6_ncf','.006'): (.73*.27/6040)**.5,
    **dict.fromkeys([('plan',o) for o in ('10 GB','20 minutes','nine minutes','four seconds','three seconds','forty minutes')], 'worked out on the page'),
    ('r4_d2l','.617'): 'published', ('r5_deep_mf','22 s'): 'published', ('68_negatives','.75'): 'of a paper', ('r3_fastai_lesson','.003'): 'a setting that was tried',
    ('machines','ten minutes'): "NCCL's default", ('20_service','ten seconds'): 'a setting', ('20_service','five seconds'): "uvicorn's default",
    ('44_optimizers','.05'): 'a scale of ratings', ('66_ease','five seconds'): 'a setting', ('05_loader','hundred times as long'): 'what does not happen',
    ('tutorial','ten minutes'): 'to read', ('index','2 GB'): 'of an environment',
}

def paragraphs(text):
    "Prose of a cell: without code, formulas, tables, headings and addresses"
    text = re.sub(r'```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$|<[^>]*>', ' ', text, flags=re.S)
    text = '\n'.join(l for l in text.splitlines() if not re.match(r'    |#|!|\|', l))
    return [re.sub(r'\[([^\]]*)\]\([^)]*\)', r'\1', p) for p in re.split(r'\n\s*\n', text)]

def numbers_in(text): return {float(o) for o in re.findall(r'(?<![\w.])\d*\.?\d+(?:e-?\d+)?', re.sub(r'(?<=\d),(?=\d{3})', '', text))}

def is_backed(shown, known, is_share=False):
    "Is there a number among the `known` that is written so, as it is or in percent?"
    value,n = float(shown.replace(',', '')),len(shown.partition('.')[2])
    return any(abs(round(o*scale, n)-value)<1e-9 for o in known for scale in ((1,100) if is_share else (1,)))

@pytest.mark.parametrize('path', sorted(nbs.rglob('*.ipynb')), ids=lambda p: p.stem)
def test_numbers_in_prose_are_those_of_tables_code_or_outputs(path):
    "Shares, times, sizes and errors; what is said in words of speed and time names a table, by a link to the results or a command"
    tables = {f.stem: f.read_text(encoding='utf-8') for f in (root/'benchmarks'/'results').glob('*.md')}
    code = '\n'.join(c.source+str([o.get('text', '') or o.get('data', {}).get('text/plain', '') for o in c.outputs])
                     for c in nbformat.read(path, 4).cells if c.cell_type=='code')
    near = numbers_in('\n'.join([code, *(v for k,v in tables.items() if re.search(rf'\b{k}\b', code))]))
    known,lost = {False: near, True: near|numbers_in('\n'.join(tables.values()))},[]
    for cell in markdown(path):
        names_tables = path.stem=='results' or bool(re.search(r'results\.ipynb|`python ', cell))
        for p in paragraphs(cell):
            for m in measured.finditer(p):
                if not is_backed(next(filter(None, m.groups())), known[names_tables], m[0].endswith('%')) and (path.stem,m[0]) not in allowed: lost.append((m[0], ' '.join(p.split())[:200]))
            if not names_tables: lost += [(m[0], ' '.join(p.split())[:200]) for m in in_words.finditer(p) if (path.stem,m[0]) not in allowed]
    assert not lost, lost

def test_sums_in_prose_come_to_what_is_written():
    for (_,shown),value in allowed.items():
        if not isinstance(value, str): assert is_backed(re.match(r'[\d,.]+', shown)[0].rstrip('.'), {float(value)}), (shown,value)

def syllables(word):
    "About as many as `word` has: groups of vowels, but for an e that is not spoken"
    n = len(re.findall('[aeiouy]+', word))
    if re.search(r'[^aeiouy](e|es|ed)$', word) and not re.search(r'([^aeiouy]l|[sxz]|[cgs]h)es?$|[td]ed$', word): n -= 1
    return max(n, 1)

def grade(path):
    "Flesch and Kincaid's grade of a page's prose: the years of school that it takes to read. A colon before code ends no sentence"
    texts = [re.sub(r'[*_]|^\s*(-|>|\d+\.) ', '', p, flags=re.M).strip() for cell in markdown(path) for p in paragraphs(re.sub('`[^`\n]*`', 'it', cell))]
    items = [o for p in texts if p for o in re.split(r'\n', p)]
    text = ' '.join(o if o[-1:] in '.!?:' else f'{o}.' for o in items if o)
    text = re.sub(r'\d*\.?\d[\d,]*', 'ten', text.lower())
    words = re.findall(r"[a-z]+(?:['’][a-z]+)?", text)
    sentences = [o for o in re.split(r'[.!?]+(?:\s|$)', text) if len(o.split())>2]
    return .39*len(words)/len(sentences) + 11.8*sum(map(syllables, words))/len(words) - 15.59 if len(words)>30 else 0

def test_pages_are_easy_to_read():
    grades = {p: grade(p) for p in sorted(nbs.rglob('*.ipynb'))}
    assert sorted(grades.values())[len(grades)//2]<=7.5
    assert {p.stem: round(g, 1) for p,g in grades.items() if g>10}=={}

def in_order():
    "The pages as the sidebar has them: the course"
    at = lambda o: [o] if isinstance(o, str) else [p for q in o['contents'] for p in at(q)]
    return [p for o in yaml.safe_load((nbs/'sidebar.yml').read_text(encoding='utf-8'))['website']['sidebar']['contents'] for p in at(o)]

def words():
    "Words of the field, and the page that explains each, from the page of words"
    for line in '\n'.join(markdown(nbs/'developers'/'words.ipynb')).split('## Words of this code')[0].splitlines():
        m = re.match(r'\| ([^|]+) \|.*\]\(\.\./([^)]*)\) \|$', line)
        if m: yield from ((o,m[2]) for o in m[1].split(', '))

def is_told(text, start, stop):
    "Is the word at that place of `text` in a link, or emphasised, as what is explained there is?"
    line = text[text.rfind('\n', 0, start)+1:start]
    linked = re.search(r'\[[^\]]*$', line) and re.match(r'[^\[\]\n]*\]\(', text[stop:])
    emphasised = re.search(r'\*[^*\n]{0,30}$', line) and re.match(r'[^*\n]{0,30}\*', text[stop:])
    return bool(linked or emphasised)

def test_words_are_explained_or_linked_before_they_are_used():
    order,lost = in_order(),[]
    assert len([*words()])>25
    for word,page in words():
        stem = re.sub(' (sampling|distribution)$', '', word)
        pattern = re.compile(rf'(?<![\w.-]){re.escape(stem)}s?(?!\w)', 0 if stem[0].isupper() else re.I)
        for before in order[:order.index(page)]:
            if before=='developers/words.ipynb': continue
            text = '\n\n'.join(re.sub(r'```.*?```|\$\$.*?\$\$|`[^`\n]*`|\$[^$\n]*\$', ' ', o, flags=re.S) for o in markdown(nbs/before))
            text = '\n'.join(l for l in text.splitlines() if not re.match('    |#|!', l))
            m = pattern.search(text)
            if m and not is_told(text, *m.span()): lost.append((word, before, ' '.join(text[max(m.start()-60, 0):m.end()+40].split())))
    assert not lost, lost
