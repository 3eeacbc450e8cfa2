"""What the knobs of lists gain and cost, compared with popularity: the mean of ml-100k's u1 to u5; writes results/steering.md"""
import warnings
from report import Report
from fastrec.all import *
warnings.simplefilter('ignore')

fits = ['fit_als','fit_ials','fit_ease','fit_blend']
knobs = [{},*(dict(diversity=o) for o in (.1,.3,.5,.7)),*(dict(damping=o) for o in (.3,.5,.7,1.)),dict(diversity=.3, damping=.5)]
measures = ['ndcg_at_10','novelty','popularity_bias','coverage','diversity','genre_diversity']

def loaders(train, test):
    both = pd.concat([train, test], ignore_index=True)
    return RecDataLoaders.from_df(both, IndexSplitter(range(len(train), len(both))), item_name='title', seed=0)

def measured(dls, genres):
    "What lists are, by fit and knobs, and those of popularity"
    res = {}
    for fit in fits:
        learn = learner(dls)
        with learn.no_bar(),learn.no_logging(): getattr(learn, fit)()
        for o in knobs:
            both = learn.evaluate(genres=genres, **o)[measures]
            res[f'`{fit}`',o.get('diversity', 0),o.get('damping', 0)] = both.loc['model']
    res['popularity','',''] = both.loc['popularity']
    return res

def main():
    rep = Report('steering', 'lists by', 'diversity', 'damping', 'NDCG@10', 'novelty, bits', 'of the top 1%', 'coverage', 'unlike by factors', 'unlike by genres')
    genres = movielens_sides()[-1]
    runs = [measured(loaders(train, test), genres) for fold,(train,test) in movielens_folds().items() if fold<'u6']
    for key in [('popularity','',''),*list(runs[0])[:-1]]:
        mean = np.mean([o[key] for o in runs], axis=0)
        ndcg,bits,of_top,covered,unlike,by_genres = mean
        shown = '' if key[0]=='popularity' else f'{unlike:.3f}'  # each fit has factors of its own
        rep.add(*key, f'{ndcg:.4f}', f'{bits:.2f}', f'{of_top:.3f}', f'{covered:.3f}', shown, f'{by_genres:.3f}')
    rep.write()

if __name__=='__main__': main()
