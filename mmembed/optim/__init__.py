"""Optimizers: hyper-parameters and state; the loops over rows are kernels.

Must not know files: state is columns of whatever table a parameter's rows are in.
"""

from .adagrad import Adagrad, RowwiseAdagrad
from .adam import Adam, AdamW
from .optimizer import Optimizer
from .row_optimizer import RowOptimizer
from .rowwise_adam import RowwiseAdam
from .sgd import SGD
from .sparse_adam import SparseAdam, SparseAdamW

__all__ = [
    "SGD",
    "Adagrad",
    "Adam",
    "AdamW",
    "Optimizer",
    "RowOptimizer",
    "RowwiseAdagrad",
    "RowwiseAdam",
    "SparseAdam",
    "SparseAdamW",
]
