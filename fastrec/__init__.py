"""Collaborative filtering with fastai: from ratings with titles to recommendations"""
__version__ = "0.1.0"
from fastrec.collab import learner
