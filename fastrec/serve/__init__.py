"""A saved recommender behind an address"""
from .service import Background,app,run
from .questions import Limits
