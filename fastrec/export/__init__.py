"""Folders that load without fastai, and factors for other tools"""
from ..answer import audience,extend,forgetting,grids,newcomers,predict,recommend,similar  # what a loaded one answers
from ..answer import by_features,explain,whatif
from ..evaluate import evaluation
from . import bundle,exchange
from .loading import load_recommender
