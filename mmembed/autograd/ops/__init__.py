"""Operations: each computes its result and states its gradient rules beside it.

Must not know tables, files or embeddings. Rules are plain NumPy, so gradients have no gradients.
"""

from .arithmetic import add, div, mul, neg, pow, reciprocal, sub
from .distributions import log_softmax, softmax
from .logistic import binary_cross_entropy_with_logits
from .losses import cross_entropy, mse_loss, nll_loss
from .matrices import linear, matmul
from .pointwise import abs, exp, log, logsigmoid, relu, sigmoid, sqrt, tanh
from .reduce import mean, norm, prod, sum
from .shape import cat, stack

__all__ = [
    "abs",
    "add",
    "binary_cross_entropy_with_logits",
    "cat",
    "cross_entropy",
    "div",
    "exp",
    "linear",
    "log",
    "log_softmax",
    "logsigmoid",
    "matmul",
    "mean",
    "mse_loss",
    "mul",
    "neg",
    "nll_loss",
    "norm",
    "pow",
    "prod",
    "reciprocal",
    "relu",
    "sigmoid",
    "softmax",
    "sqrt",
    "stack",
    "sub",
    "sum",
    "tanh",
]
