"""Operations: each computes its result and states its gradient rules beside it.

Must not know tables, files or embeddings. Rules are plain NumPy, so gradients have no gradients.
"""

from .arithmetic import add, div, mul, neg, pow, reciprocal, sub
from .attention import scaled_dot_product_attention
from .distributions import log_softmax, softmax
from .einsum import einsum
from .error_function import erf, gelu
from .logistic import binary_cross_entropy_with_logits
from .losses import cross_entropy, mse_loss, nll_loss
from .masking import masked_fill, where
from .matrices import bmm, linear, matmul
from .noise import check_probability, dropout, dropout_factors
from .normalization import layer_norm
from .pointwise import abs, exp, log, logsigmoid, relu, sigmoid, sqrt, tanh
from .reduce import mean, norm, prod, sum
from .shape import cat, stack

__all__ = [
    "abs",
    "add",
    "binary_cross_entropy_with_logits",
    "bmm",
    "cat",
    "check_probability",
    "cross_entropy",
    "div",
    "dropout",
    "dropout_factors",
    "einsum",
    "erf",
    "exp",
    "gelu",
    "layer_norm",
    "linear",
    "log",
    "log_softmax",
    "logsigmoid",
    "masked_fill",
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
    "scaled_dot_product_attention",
    "sigmoid",
    "softmax",
    "sqrt",
    "stack",
    "sub",
    "sum",
    "tanh",
    "where",
]
