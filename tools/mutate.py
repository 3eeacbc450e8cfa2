"""Mistakes planted one at a time in a copy of the package: which tests notice? `python tools/mutate.py [--names a,b]`; fails if one goes unnoticed"""
import os,shutil,subprocess,sys,tempfile,time
from pathlib import Path
from fastcore.script import call_parse

root = Path(__file__).parent.parent
mutations = {  # name: file, text, what it becomes, and who should notice
    'an off-by-one': ('data/splitters.py', 'valid = (back<n) & has_more', 'valid = (back<=n) & has_more', 'test_data.py -k leave_last'),
    'any for all': ('data/ratings.py', 'known = (x>0).all(1)', 'known = (x>0).any(1)', 'test_dls.py -k unknown_labels'),
    'a dropped ~': ('data/kinds.py', 'return ~missing', 'return missing', 'test_dls.py -k "dropna or permutation"'),
    'a lost row': ('data/loader.py', '[last-last//2, last//2]', '[last//2, last//2]', 'test_dls.py -k batch_sizes'),
    'a row too many': ('models/changing.py', 'put(w[0], w[1:].mean(0))', 'put(w[0], w.mean(0))', 'test_collab.py -k unknown_is_average'),
    'swapped factors': ('models/step_loops.py', 'of_p[f] += slope*q[f]', 'of_p[f] += slope*p[f]', 'test_training.py -k same_record_as_fastai'),
    'swapped factors by operators': ('models/trainable.py', 'each = q.mul_(g[:,None]),g,p.mul_(g[:,None]),g', 'each = p.clone().mul_(g[:,None]),g,p.mul_(g[:,None]),g',
                                      'test_compiled.py -k by_operators'),
    'a row summed once': ('fit/optimizer_loops.py', 'for f in range(grads.shape[1]): sums[at,f] += grads[j,f]', 'pass', 'test_compiled.py -k by_operators'),
    'a stale optimizer': ('fit/training.py', 'if not self._opt_is_of_model(): self.opt = None', 'pass', 'test_states.py'),
    'a lost restore': ('fit/solvers.py', 'if model is None: self.put_back(before)', 'if model is None: pass', 'test_states.py'),
    'a flipped sign': ('fit/equations.py', 'zy[:,:d]-zz[:,:d,d]', 'zy[:,:d]+zz[:,:d,d]', 'test_solvers.py -k dense_equations'),
    'a noise forgotten': ('fit/bayes.py', '(1/alpha).mean(0),(1/gamma).mean(0)', '(1/alpha).mean(0),0*(1/gamma).mean(0)', 'test_solvers.py -k intervals_cover'),
    'exclude_seen dropped': ('answer/left_out.py', 'return known if exclude_seen else None', 'return None', 'test_predict.py -k best_unseen'),
    'min for max': ('evaluate/measures.py', 'n_relevant.clamp(max=hits.shape[1])', 'n_relevant.clamp(min=hits.shape[1])', 'test_metrics.py -k scikit_learn'),
    'a wrong axis': ('evaluate/measures.py', 'hits.cumsum(1)/ranks', 'hits.cumsum(0)/ranks', 'test_metrics.py -k map_as_scikit_learn'),
    'a skipped check': ('export/loading.py', "if hashed and sha256(read)!=declared['sha256']", 'if False', 'test_export.py -k damaged'),
    'a swapped column': ('interpret/biases.py', '(vocab.decode(codes),bias,score)', '(vocab.decode(codes),score,bias)', 'test_interpret.py -k average_user')}

def run(folder, tests):
    "Do `tests` pass with the package in `folder`?"
    name,*words = tests.split(' ', 1)
    cmd = f'{sys.executable} -m pytest -x -q -p no:cacheprovider {root/"tests"/name} {" ".join(words)}'
    env = {**os.environ, 'PYTHONPATH': str(folder), 'OMP_NUM_THREADS': '1'}
    return subprocess.run(cmd, shell=True, cwd=folder, env=env, capture_output=True, text=True)

def plant(folder, file, old, new):
    "Put the mistake into the copy in `folder`; `ValueError` if its place is gone"
    path = folder/'fastrec'/file
    text = path.read_text(encoding='utf-8')
    if old not in text: raise ValueError(f'{file} does not say {old!r} any more: choose another mistake')
    path.write_text(text.replace(old, new), encoding='utf-8')

def fresh(folder):
    "A copy of the package in `folder`"
    shutil.rmtree(folder/'fastrec', ignore_errors=True)
    shutil.copytree(root/'fastrec', folder/'fastrec', ignore=shutil.ignore_patterns('__pycache__'))

def noticed(folder, name):
    "Plant the mistake `name`: whether its tests, which pass without, fail, and the seconds that took"
    *mistake,tests = mutations[name]
    start = time.perf_counter()
    fresh(folder)
    plant(folder, *mistake)
    done = run(folder, tests)
    if done.returncode not in (0,1): raise RuntimeError(f'{tests} could not be run: {(done.stdout+done.stderr)[-500:]}')
    return done.returncode==1,time.perf_counter()-start

def check_sound(folder, names):
    "Refuse to begin where the place of a mistake is gone, or a test fails without any"
    for name in names:
        fresh(folder)
        plant(folder, *mutations[name][:3])
    fresh(folder)
    for tests in dict.fromkeys(mutations[o][-1] for o in names):
        if (done := run(folder, tests)).returncode: raise RuntimeError(f'{tests} fails already: {(done.stdout+done.stderr)[-800:]}')

@call_parse
def main(
    names:str='', # Mistakes to plant, divided by commas; all of them if left out
):
    "Plant each mistake, and say who has noticed it"
    with tempfile.TemporaryDirectory() as folder:
        folder,missed,names = Path(folder),[],names.split(',') if names else list(mutations)
        check_sound(folder, names)
        for name in names:
            file,*_,tests = mutations[name]
            caught,seconds = noticed(folder, name)
            print(f'{name} in {file}: {"noticed" if caught else "NOT NOTICED"} by {tests}, {seconds:.0f} s', flush=True)
            if not caught: missed.append(name)
    if missed: sys.exit(f'{len(missed)} mistakes went unnoticed: {", ".join(missed)}')
    print(f'{len(names)} of {len(names)} noticed')
