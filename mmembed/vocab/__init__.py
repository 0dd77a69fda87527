"""Vocabularies: the words that the rows of a table stand for.

Must not know tables, training or text files.
"""

from .vocabulary import Vocabulary

__all__ = ["Vocabulary"]
