"""Tables: the rows that a model trains, in files or in memory, behind one class.

Must not know gradients, optimizers or the tape.
"""

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
    "looks_like_table",
    "quantization_error",
    "seal",
    "unseal",
    "verify",
    "writer_of",
]
