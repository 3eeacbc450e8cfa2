"""Folders that load without fastai, and factors for other tools"""
from ..answer import audience,explain,extend,forgetting,grids  # all that a loaded recommender answers
from ..answer import newcomers,predict,recommend,similar,whatif
from ..evaluate import evaluation
from . import bundle,exchange
from .loading import load_recommender
