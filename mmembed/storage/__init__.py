"""Tables: the rows that a model trains, in files or in memory, behind one class.

Must not know gradients, optimizers or the tape.
"""

from .directory import looks_like_table
from .initial import Initial
from .quantized import quantization_error
from .table import Table

__all__ = ["Initial", "Table", "looks_like_table", "quantization_error"]
