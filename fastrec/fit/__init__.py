"""How it is learned: by gradients, in closed form, or by draws"""
from .. import export  # all that a learner answers
from . import bayes,biases,checkpoints,ease,guards,ials,loop,measuring,optimizers,record,settings,sgd  # all fits, wherever one begins
