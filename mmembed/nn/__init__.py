"""Modules: parameters with a name, a mode and a state, and the embeddings made of them.

Must not know optimizers.
"""

from ..parameter import Parameter, TableParameter
from .clip import clip_grad_norm_, clip_grad_value_
from .embedding import Embedding
from .embedding_bag import EmbeddingBag
from .module import Module

__all__ = [
    "Embedding",
    "EmbeddingBag",
    "Module",
    "Parameter",
    "TableParameter",
    "clip_grad_norm_",
    "clip_grad_value_",
]
