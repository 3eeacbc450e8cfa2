"""Where `make test` passes: instruction sets, threads, versions of Python and of what fastrec needs

    python tools/machines.py FOLDER              all, each in a clone of the last commit, with an empty HOME; writes benchmarks/results/machines.md
    python tools/machines.py FOLDER avx2-2 …     these, each a row that replaces its last one

FOLDER holds the clone, an environment for each version of Python, and the output of each run. Whoever has another machine runs it there."""
import json,os,platform,re,shutil,subprocess,sys,time
from pathlib import Path

root = Path(__file__).absolute().parents[1]
results = root/'benchmarks'/'results'
# name: (Python, file of versions, variables)
machines = {f'{cpu}-{n}': ('3.11', 'constraints.txt', dict(OMP_NUM_THREADS=str(n), **({} if cpu=='own' else dict(ATEN_CPU_CAPABILITY=cpu))))
            for cpu in ('default','avx2','own') for n in (1,2)}
machines |= {'python3.12': ('3.12', 'constraints.txt', {}), 'python3.13': ('3.13', 'constraints.txt', {}),
             'oldest': ('3.11', 'constraints-oldest.txt', {}), 'newest': ('3.11', '/dev/null', {})}

def run(folder, name):
    "One row: what was run with what, whether it passed, and for how long"
    python,versions,env = machines[name]
    clone,venv,home = folder/'clone',folder/f'venv-{python if "est" not in name else name}',folder/'home'
    for o in (clone,home): shutil.rmtree(o, ignore_errors=True)
    home.mkdir(parents=True)
    subprocess.run(['git','clone','-q',root,clone], check=True)
    env = {k: v for k,v in os.environ.items() if k in ('PATH','LANG') or k.startswith(('PIP_','SSL_'))} | dict(HOME=str(home)) | env
    make = lambda goal,log: subprocess.run(['make',goal,f'PYTHON=python{python}',f'VENV={venv}',f'CONSTRAINTS={versions}'], cwd=clone, env=env, stdout=log, stderr=log).returncode
    with open(folder/f'{name}.log', 'w', encoding='utf-8') as log:
        if make(f'{venv}/.dev', log): sys.exit(f'{name}: what is needed could not be installed; see {log.name}')
        start = time.perf_counter()
        failed = make('test', log)
        took = time.perf_counter()-start
    text = (folder/f'{name}.log').read_text(encoding='utf-8')
    counts = re.findall(r'^(?:=+ )?((?:\d+ \w+(?:, )?)+) in [\d.]+s', text, re.M)
    ask = 'import platform,torch,fastai,pandas,numpy; print(platform.python_version(), torch.__version__, fastai.__version__, pandas.__version__, numpy.__version__, torch.backends.cpu.get_cpu_capability())'
    *shown,cpu = subprocess.run([venv/'bin'/'python','-c',ask], cwd=clone, env=env, capture_output=True, text=True, check=True).stdout.split()
    commit = subprocess.run(['git','rev-parse','--short','HEAD'], cwd=clone, capture_output=True, text=True).stdout.strip()
    return dict(name=name, versions=shown, cpu=cpu, threads=env.get('OMP_NUM_THREADS', '1'), passed=not failed, counts=counts[-1] if counts else 'no tests', minutes=took/60,
                commit=commit, system=f'{platform.system()} {platform.machine()}, {os.cpu_count()} cores, {flags()}')

def flags():
    "What the CPU has beyond the smallest of its kind, where the system tells"
    try: text = Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError: return platform.processor()
    found = re.search(r'^flags.*$', text, re.M)
    return ' '.join(o for o in ('avx2','avx512f','avx512_vnni','amx_int8') if found and o in found[0].split())

def write(rows):
    head = ['Python','PyTorch','fastai','pandas','NumPy','instruction set','threads','`make test`','minutes']
    lines = ['| '+' | '.join(head)+' |', '| '+' | '.join('---' for _ in head)+' |']
    for r in rows:
        said = r['counts'] if r['passed'] else f'**FAILED**: {r["counts"]}'
        lines.append('| '+' | '.join([*r['versions'], r['cpu'], r['threads'], said, f'{r["minutes"]:.1f}'])+' |')
    commits = {r['system']: [] for r in rows}
    for r in rows:
        if r['commit'] not in commits[r['system']]: commits[r['system']].append(r['commit'])
    where = [f'{k}, at {" and ".join(v)}' for k,v in commits.items()]
    note = '`python tools/machines.py`, each in a clone with an empty HOME, without MovieLens, without a GPU; minutes without installing. '
    (results/'machines.md').write_text('\n'.join([*lines, '', note+'; '.join(where)+'.', '']), encoding='utf-8')

if __name__=='__main__':
    folder,names = Path(sys.argv[1]).absolute(),sys.argv[2:] or list(machines)
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        row = run(folder, name)
        (folder/f'{name}.json').write_text(json.dumps(row), encoding='utf-8')
        print(f'{name}: {"passed" if row["passed"] else "FAILED"}, {row["counts"]}, {row["minutes"]:.1f} min', flush=True)
        write([json.loads(p.read_text(encoding='utf-8')) for o in machines if (p := folder/f'{o}.json').exists()])
