"""Tables: the rows that a model trains, in files or in memory, behind one class.

Must not know gradients, optimizers or the tape.
"""

from .deltas import read_delta
from .differences import diff
from .directory import looks_like_table
from .initial import Initial
from .quantized import quantization_error
from .seals import seal, unseal
from .table import Table
from .verification import Finding, verify, writer_of

__all__ = [
    "Finding",
    "Initial",
    "Table",
    "diff",
    "looks_like_table",
    "quantization_error",
    "read_delta",
    "seal",
    "unseal",
    "verify",
    "writer_of",
]
