"""Ready trainers, built only from the library's public parts.

Must not know the command line.
"""

from .corpus import Corpus, read_texts, text_files
from .settings import Settings
from .skipgram import Progress, SkipGram, create_table, recorded_settings, train

__all__ = [
    "Corpus",
    "Progress",
    "Settings",
    "SkipGram",
    "create_table",
    "read_texts",
    "recorded_settings",
    "text_files",
    "train",
]
