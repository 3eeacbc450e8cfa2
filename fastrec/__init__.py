"""Collaborative filtering with fastai: from ratings with titles to recommendations"""
__version__ = "0.1.0"

def __getattr__(name):
    "`learner`, `dot_learner` and `nn_learner`, or `load_recommender`, which needs no fastai; each is imported when it is asked for"
    if name in ('learner','dot_learner','nn_learner'): import fastrec.collab as module
    elif name=='load_recommender': import fastrec.export as module
    else: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(module, name)
