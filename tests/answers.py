"""Everything a fitted learner says of its own ratings, against what its tables, and a slow sort of them, say"""
import collections,shutil,tempfile
from pathlib import Path
import numpy as np,pandas as pd,torch
from fastrec.all import load_recommender
from judge import Fault,Slow,attempt,check_list,close,labels,list_metrics,pairs,plain,ridge_biases

def need(ok, text):
    "A `Fault` with the `text` unless `ok`"
    if not ok: raise Fault(text)

def right(what, got, want=lambda o: True):
    "The value of the `Outcome` `got` that must be an answer, without a word, and as wanted"
    need(got.error is None, f'{what}: refused: {got.text}')
    need(not got.said, f'{what}: warned of: {got.text}')
    need(want(got.value), f'{what}: {str(got.value)[:200]} is wrong')
    return got.value

def alike(a, b):
    "The same answer, whatever it is kept in?"
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.shape==b.shape and torch.allclose(a.float(), b.float(), 1e-4, 1e-5,
            True)
    if isinstance(a, pd.Series): return isinstance(b, pd.Series) and alike(a.tolist(), b.tolist())
    if isinstance(a, pd.DataFrame):
        return isinstance(b, pd.DataFrame) and list(a)==list(b) and all(alike(a[c].tolist(), b[c].tolist()) for c in a)
    if isinstance(a, (list,tuple)): return len(a)==len(b) and all(alike(x, y) for x,y in zip(a, b))
    if isinstance(a, float): return bool(np.isclose(a, b, 1e-4, 1e-4, equal_nan=True))
    return plain(a)==plain(b)

def check_biases(slow, rows, r, scale):
    "Are the biases those of the equations?"
    biases,y_range = ridge_biases(rows, 20),slow.model.y_range
    for u,i,_ in r.sample(rows, min(len(rows), 5)):
        got,want = slow.predict(u, i),biases(u, i)
        if y_range: want = min(max(want, y_range[0]), y_range[1])
        need(close([got], [want], scale*10), f'fit_bias: {got} for {u!r}, {i!r}, where the equations give {want}')

def check_predictions(learn, slow, how, r, scale):
    "Of pairs: one by one, as a frame, as a grid, and with their uncertainty"
    ds = learn.dls.train_ds
    users,items = (list(v.labels) for v in ds.classes.values())
    some = [(r.choice(users),r.choice(items)) for _ in range(4)]
    want = [slow.predict(u, i) for u,i in some]
    right('predict', attempt(learn.predict, *some[0]), lambda o: type(o) is float and close([o], want[:1], scale))
    frame = pd.DataFrame({n: [o[k] for o in some] for k,n in enumerate(ds.cat_names)}, index=list('abcc'))
    right('predict_df', attempt(learn.predict_df, frame),
          lambda o: list(o.index)==list('abcc') and close(o.tolist(), want, scale))
    grid = right('predict_grid', attempt(learn.predict_grid), lambda o: o.shape==(len(users),len(items)))
    cells = [float(grid[users.index(u),items.index(i)]) for u,i in some]
    need(close(cells, want, scale), f'predict_grid: {cells} for {some} where {want} is right')
    if how=='one draw': need(attempt(learn.predict, *some[0], std=True).error, 'one draw, and how sure it is')
    if how=='bayes':
        right('std', attempt(learn.predict, *some[0], std=True),
              lambda o: close(o, [want[0],slow.std(*some[0])], scale))
    return grid

def check_nobody(learn, slow, scale):
    "Somebody who has rated nothing is the average user"
    ds = learn.dls.train_ds
    nothing = pd.DataFrame({ds.item_name: ds.classes[ds.item_name].labels[:0], ds.rating_name: np.zeros(0, 'float32')})
    new = right('fold_in of nobody', attempt(learn.fold_in, nothing))
    got,average = new.predict(ds.classes[ds.item_name].labels[0]),slow.bounded(slow.score(0, 1))
    need(close([got], [average], scale*5), f'fold_in of nobody: {got} where the average, {average}, is right')

def check_lists(learn, slow, rows, held, r):
    "Recommendations are a slow sort of what was not seen"
    ds = learn.dls.train_ds
    real = [list(v.labels) for v in ds.classes.values()]
    at = lambda k, os: None if os is None else [real[k][slow.at[k][o]-1] for o in os]
    who = r.choice([None, [r.choice(slow.users)], r.sample(slow.users, min(len(slow.users), 3)), [slow.users[0]]*2])
    some = r.choice([None,None,r.sample(slow.items, r.randint(1, len(slow.items)))])
    min_count,n = r.choice([0,0,1,2]),r.choice([1,3,10,500])
    other = pd.DataFrame({name: r.choices(real[k], k=4) for k,name in enumerate(ds.cat_names)})
    hide = r.choice([True,True,False,other])
    if hide is True: gone = [(u,i) for u,i,_ in [*rows,*held]]
    else: gone = [] if hide is False else [tuple(map(plain, o)) for o in other.itertuples(index=False)]
    got = right('recommend', attempt(learn.recommend, at(0, who), n, at(1, some), hide, min_count))
    need(len(set(got.columns))==4, f'recommend: columns {list(got)}')
    counts,start = collections.Counter(i for _,i,_ in rows),0
    for u in slow.users if who is None else who:
        want = slow.best(u, n, some, {i for v,i in gone if v==u}, counts, min_count)
        mine = got.iloc[start:start+len(want)]
        start += len(want)
        ranked = {plain(v) for v in mine[ds.user_name]}<={u} and list(mine['rank'])==list(range(1, len(want)+1))
        need(ranked, f'recommend: users and ranks {mine} for {u!r}')
        check_list([(plain(i),float(s)) for i,s in zip(mine[ds.item_name], mine.score)], want, f'recommend, {u!r}')
    need(start==len(got), f'recommend: {len(got)} rows where {start} are right')

def check_similar(learn, slow, r):
    "Neighbours are a slow sort of cosines"
    for k,(name,vocab) in enumerate(zip(('similar_users','similar'), learn.dls.classes.values())):
        at = r.randrange(len(vocab.labels))
        got = attempt(getattr(learn, name), vocab.labels[at], 3)
        if not slow.tables[k][0].any(): need(got.error, f'{name}: no factors, or none but 0, and no word')
        elif len(vocab.labels)>1 or got.error is None:
            df = right(name, got)
            check_list(list(zip(map(plain, df[vocab.name]), df.similarity)), slow.similar(k, labels(vocab)[at])[:3],
                       name)

def close_calls(slow, users, k, gone, counts):
    "Are there scores among the first that rounding may order either way?"
    for u in users:
        scores = [s for _,s in slow.best(u, k+1, None, gone[u], counts)]
        if any(a-b<=max(1e-4, 1e-6*abs(a)) for a,b in zip(scores, scores[1:])): return True

def check_metrics(learn, slow, rows, held, r):
    "Metrics by their definitions, a held-out pair counted once; whether any were doubtful"
    counts,k = collections.Counter(i for _,i,_ in rows),r.choice([1,3,10])
    seen,relevant = {u: {i for v,i,_ in rows if v==u} for u in slow.users},{}
    for u,i,_ in held:
        if u is not None: relevant.setdefault(u, set()).add(i)
    doubtful = any(None in o for o in held) or any(o&seen[u] for u,o in relevant.items())  # unknown, or in training: to be said
    got = attempt(learn.evaluate, k=k)
    if got.error is not None or not relevant:
        need(got.error is not None, 'evaluate: nothing to measure, and no word')
        need(doubtful or not relevant, f'evaluate: {got.text}')
        return doubtful
    if doubtful: return doubtful
    mine = right('evaluate', got).loc['model']
    if not close_calls(slow, relevant, k, seen, counts):
        lists = {u: [i for i,_ in slow.best(u, k, None, seen[u], counts)] for u in relevant}
        raters = collections.Counter(i for _,i in {(u,i) for u,i,_ in rows})
        want = list_metrics(lists, relevant, k, raters, len(slow.users), len(slow.items))
        for name,o in want.items(): need(alike(float(mine[name]), o),
            f'evaluate: {name} is {mine[name]} where {o} is right')
    if not learn.model.is_preference: check_errors(slow, mine, rows, held)
    return False

def check_errors(slow, mine, rows, held):
    "RMSE and MAE, of all rows, within the ratings of training"
    lo,hi = min(y for *_,y in rows),max(y for *_,y in rows)
    pred = [slow.bounded(slow.score(slow.at[0].get(u, 0), slow.at[1].get(i, 0))) for u,i,_ in held]
    off = np.array([min(max(p, lo), hi)-y for p,(*_,y) in zip(pred, held)])
    for name,o in dict(rmse=np.mean(off**2)**.5, mae=np.mean(abs(off))).items():
        need(close([mine[name]], [o], max(abs(lo), abs(hi))), f'evaluate: {name} is {mine[name]} where {o} is right')

def check_saved(learn, grid):
    "What is loaded is what was saved; whether it could be"
    folder = Path(tempfile.mkdtemp())
    try:
        if attempt(learn.save_recommender, folder/'b').error is not None: return False
        rec = right('load_recommender', attempt(load_recommender, folder/'b', 'cpu'))
        for a,b in zip(rec.ds.classes.values(), learn.dls.classes.values()):
            need(labels(a)==labels(b) and a.name==b.name, f'save and load: other labels of {b.name!r}')
        need(torch.equal(rec.predict_grid(), grid), 'save and load: other predictions')
        need(alike(rec.recommend(n=3), learn.recommend(n=3)), 'save and load: other recommendations')
    finally: shutil.rmtree(folder)
    return True

def check_answers(learn, how, r):
    "All of it, of the learner `learn` that was fitted by `how`; a list of what was not judged"
    slow,rows,held = Slow(learn),pairs(learn.dls.train_ds),pairs(learn.dls.valid_ds)
    scale = max(abs(y) for *_,y in rows)
    if how=='bias': check_biases(slow, rows, r, scale)
    grid = check_predictions(learn, slow, how, r, scale)
    check_lists(learn, slow, rows, held, r)
    check_similar(learn, slow, r)
    doubtful = check_metrics(learn, slow, rows, held, r)
    if how!='bayes': check_nobody(learn, slow, scale)
    saved = r.random()<.5 or check_saved(learn, grid)
    return ['evaluations of doubtful pairs']*doubtful + ['learners not saved']*(not saved)
