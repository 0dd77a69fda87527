"""Modules: parameters with a name, a mode and a state, and the embeddings made of them.

Must not know optimizers.
"""

from ..parameter import Parameter, TableParameter
from .embedding import Embedding
from .embedding_bag import EmbeddingBag
from .module import Module

__all__ = ["Embedding", "EmbeddingBag", "Module", "Parameter", "TableParameter"]
