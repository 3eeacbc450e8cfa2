"""Every table and picture of RecInterpretation on ml-1m, seconds each; writes results/pictures.md"""
import matplotlib
matplotlib.use('Agg')
from report import Report,settings
from fastrec.all import *

def seconds(f):
    "Seconds `f` takes, a picture drawn included, at the second call"
    for _ in range(2):
        start = time.perf_counter()
        res = f()
        if isinstance(res, plt.Axes): res.figure.canvas.draw()
        took = time.perf_counter()-start
        plt.close('all')
    return took

def main():
    cfg = settings['pictures']
    dls = RecDataLoaders.from_movielens(cfg['release'], seed=0)
    rep = Report('pictures', 'what', 'dot', 'NN [50]', 'to reach')
    interps = []
    for make in (dot_learner,nn_learner):
        learn = make(dls)
        with learn.no_bar(),learn.no_logging(): learn.fit_one_cycle(1)
        interps.append(RecInterpretation.from_learner(learn))
    names = 'item_bias user_bias item_pca user_pca pca_ends similar_map embeddings top_losses error_by_count calibration plot_bias plot_pca plot_map plot_top_losses plot_error_by_count plot_calibration'
    cases = {n: lambda o,n=n: getattr(o, n)() for n in names.split()}
    cases['from_learner, item_bias'] = lambda o: RecInterpretation.from_learner(o.learn).item_bias()
    cases['plot_pca, interactive'] = lambda o: o.plot_pca(interactive=True).to_html()
    for name,f in cases.items(): rep.add(f'`{name}`', *(f'**{seconds(partial(f, o)):.2f} s**' for o in interps), f'< {cfg.getfloat("max_seconds"):g} s')
    rep.write()

if __name__=='__main__': main()
