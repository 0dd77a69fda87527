"""Trainable embedding tables that do not have to fit in memory.

Public names only; importing this loads no numba, torch, CUDA, rich or matplotlib.
"""

from . import functional, nn, optim
from .autograd import (
    Tensor,
    arange,
    as_tensor,
    bmm,
    cat,
    einsum,
    empty,
    enable_grad,
    eye,
    from_numpy,
    full,
    is_grad_enabled,
    manual_seed,
    masked_fill,
    no_grad,
    ones,
    ones_like,
    rand,
    randint,
    randn,
    set_grad_enabled,
    stack,
    tensor,
    where,
    zeros,
    zeros_like,
)
from .errors import MmembedError
from .kernels import backend, get_num_threads, set_backend, set_num_threads
from .nn import Embedding, EmbeddingBag
from .rows import RowGrad
from .storage import Table
from .upcoming import lookahead
from .vocab import Vocabulary

__all__ = [
    "Embedding",
    "EmbeddingBag",
    "MmembedError",
    "RowGrad",
    "Table",
    "Tensor",
    "Vocabulary",
    "arange",
    "as_tensor",
    "backend",
    "bmm",
    "cat",
    "einsum",
    "empty",
    "enable_grad",
    "eye",
    "from_numpy",
    "full",
    "functional",
    "get_num_threads",
    "is_grad_enabled",
    "lookahead",
    "manual_seed",
    "masked_fill",
    "nn",
    "no_grad",
    "ones",
    "ones_like",
    "optim",
    "rand",
    "randint",
    "randn",
    "set_backend",
    "set_grad_enabled",
    "set_num_threads",
    "stack",
    "tensor",
    "where",
    "zeros",
    "zeros_like",
]
