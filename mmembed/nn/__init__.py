"""Modules: parameters with a name, a mode and a state; embeddings, layers and containers.

Must not know optimizers.
"""

from ..parameter import Parameter, TableParameter
from .clip import clip_grad_norm_, clip_grad_value_
from .containers import ModuleList, Sequential
from .embedding import Embedding
from .embedding_bag import EmbeddingBag
from .layers import GELU, Dropout, LayerNorm, Linear, ReLU
from .module import Module
from .quantized import QuantizedEmbedding, QuantizedEmbeddingBag

__all__ = [
    "GELU",
    "Dropout",
    "Embedding",
    "EmbeddingBag",
    "LayerNorm",
    "Linear",
    "Module",
    "ModuleList",
    "Parameter",
    "QuantizedEmbedding",
    "QuantizedEmbeddingBag",
    "ReLU",
    "Sequential",
    "TableParameter",
    "clip_grad_norm_",
    "clip_grad_value_",
]
