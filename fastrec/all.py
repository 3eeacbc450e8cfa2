"""Everything for interactive use: `from fastrec.all import *`"""
from fastai.collab import *
from fastai.tabular.all import *
from fastrec.data import *
from fastrec.frames import *
from fastrec.labels import *
from fastrec.dls import *
from fastrec.factors import *
from fastrec.models import *
from fastrec.training import *
from fastrec.collab import *
from fastrec.solvers import *
from fastrec.bayes import *
from fastrec.predict import *
from fastrec.interpret import *
from fastrec.metrics import *
from fastrec.export import *
from fastrec.distributed import *
