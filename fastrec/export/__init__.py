"""Folders that load without fastai, and factors for other tools"""
from ..answer import audience,explain,extend,forgetting,grids,newcomers,predict,recommend,similar,whatif  # what a loaded one answers
from ..evaluate import evaluation
from . import bundle,exchange
from .loading import load_recommender
