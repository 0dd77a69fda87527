"""What a batch asks of a table: the plan that groups its ids, and the gradient of its rows.

Must not know files or modules. The tape does not know this package either: a `RowGrad` is, to it,
a value that can be added.
"""

from .grad import RowGrad
from .plan import RowPlan

__all__ = ["RowGrad", "RowPlan"]
