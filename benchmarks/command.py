"""`fastrec train` on a CSV file of ml-1m, compared with the same in Python: seconds of the processor of whole processes; writes results/command.md"""
import os,subprocess,sys,tempfile
from statistics import median
from report import Report,settings
from fastrec.all import *

in_python = """from fastrec.all import *
learn = learner(RecDataLoaders.from_csv({file!r}, seed=42))
with learn.no_bar(),learn.no_logging(): learn.fit_{fit}()
learn.save_recommender({out!r}{metrics})"""
measures = ", metrics=learn.evaluate().loc['model'].dropna().to_dict()"  # as the command does

def seconds(*args):
    "Seconds of the processor that the Python of `args` takes, from its start to its end"
    process = subprocess.Popen([sys.executable, *args], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _,status,used = os.wait4(process.pid, 0)
    if status: raise RuntimeError(f'{args} ended with {status}')
    return used.ru_utime+used.ru_stime

def main():
    c,rep = settings['command'],Report('command', 'fit', '`fastrec train`, s', 'the same in Python, s', 'without measures, s', 'times the same in Python', 'to reach')
    with tempfile.TemporaryDirectory() as d:
        file,out = (str(Path(d)/o) for o in ('ratings.csv','folder'))
        movielens(c['release'])[['user','title','rating']].to_csv(file, index=False)
        for fit in c['fits'].split():
            scripts = [in_python.format(file=file, out=out, fit=fit, metrics=o) for o in (measures,'')]
            ways = ['-m','fastrec','train',file,'--fit',fit,'--out',out],['-c',scripts[0]],['-c',scripts[1]]
            took = [[seconds(*o) for o in ways] for _ in range(c.getint('repeats'))]  # in turn, so that each meets the same neighbours
            command,same,less = map(median, zip(*took))
            rep.add(f'`fit_{fit}()`', f'{command:.1f}', f'{same:.1f}', f'{less:.1f}', f'**{command/same:.2f}**', f'≤ {c["max_ratio"]}')
    rep.write()

if __name__=='__main__': main()
