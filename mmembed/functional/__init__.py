"""Operations on tables of rows, and the losses and activations of the tape under torch's names.

Must not know whether a table is a file, nor modules or optimizers.
"""

from ..autograd.ops import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    gelu,
    layer_norm,
    linear,
    log_softmax,
    logsigmoid,
    mse_loss,
    nll_loss,
    scaled_dot_product_attention,
    sigmoid,
    softmax,
    tanh,
)
from .activations import dropout, relu
from .bags import embedding_bag
from .embedding import checked_padding, embedding
from .lookup import row_index
from .quantized import quantized_embedding, quantized_embedding_bag

__all__ = [
    "binary_cross_entropy_with_logits",
    "checked_padding",
    "cross_entropy",
    "dropout",
    "embedding",
    "embedding_bag",
    "gelu",
    "layer_norm",
    "linear",
    "log_softmax",
    "logsigmoid",
    "mse_loss",
    "nll_loss",
    "quantized_embedding",
    "quantized_embedding_bag",
    "relu",
    "row_index",
    "scaled_dot_product_attention",
    "sigmoid",
    "softmax",
    "tanh",
]
