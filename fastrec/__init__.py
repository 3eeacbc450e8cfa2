"""Collaborative filtering with fastai: from ratings with titles to recommendations"""
__version__ = "0.1.0"

def __getattr__(name):
    "`learner`, or `load_recommender`, which needs no fastai; each is imported when it is asked for"
    if name=='learner': from fastrec.collab import learner as res
    elif name=='load_recommender': from fastrec.export import load_recommender as res
    else: raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return res
