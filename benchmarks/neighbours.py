"""Five epochs of ml-1m, by the defaults, in a process that sets no thread variable: on a quiet machine, and next to busy processes; writes results/neighbours.md"""
import os,subprocess,sys
from statistics import median
from report import Report,settings

fit = '''
import time,warnings
from fastrec.all import *
dls = RecDataLoaders.from_movielens({release!r}, seed=0)
learn = learner(dls)
with learn.no_bar(),learn.no_logging():
    start = time.perf_counter()
    learn.fit_one_cycle({epochs})
print(time.perf_counter()-start)
'''

def seconds(code, **env):
    "What the process that runs `code` prints"
    kept = {k: v for k,v in os.environ.items() if k not in ('OMP_NUM_THREADS','MKL_NUM_THREADS')}
    return float(subprocess.run([sys.executable, '-W', 'ignore', '-c', code], env=kept|env, capture_output=True, text=True, check=True).stdout.split()[-1])

def next_to(n, *args, **kwargs):
    "`seconds` while `n` processes spin"
    busy = [subprocess.Popen([sys.executable, '-c', 'while True: pass']) for _ in range(n)]
    try: return seconds(*args, **kwargs)
    finally:
        for o in busy:
            o.kill()
            o.wait()

def main():
    c = settings['neighbours']
    code,repeats = fit.format(release=c['release'], epochs=c.getint('epochs')),c.getint('repeats')
    rep = Report('neighbours', 'busy processes next to it', 'threads set', 'seconds', 'times the quiet one')
    rep.threads = None
    quiet = None
    for n in map(int, c['busy'].split()):
        for env in ({}, {'OMP_NUM_THREADS': '1'}):
            took = median(next_to(n, code, **env) for _ in range(repeats))
            quiet = quiet or took
            rep.add(n, env.get('OMP_NUM_THREADS', 'none'), f'{took:.1f}', f'{took/quiet:.2f}')
            if n and not env: assert took<=c.getfloat('max_ratio')*quiet, f'{took/quiet:.2f} times the quiet one, more than {c["max_ratio"]}'
    rep.write()

if __name__=='__main__': main()
