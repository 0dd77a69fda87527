"""Ready trainers, built only from the library's public parts.

Must not know the command line.
"""

from .corpus import Corpus, read_texts, text_files
from .settings import Settings
from .skipgram import Progress, SkipGram, create_table, train

__all__ = [
    "Corpus",
    "Progress",
    "Settings",
    "SkipGram",
    "create_table",
    "read_texts",
    "text_files",
    "train",
]
