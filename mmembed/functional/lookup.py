"""What every lookup shares: the ids of a batch, renorm before it, the gradient of rows after it.

Must not know how looked-up rows are combined.
"""

from __future__ import annotations

import numbers
import operator
import os
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels, spill
from ..autograd import Tensor
from ..ids import as_ids, bad_id_message
from ..rows import RowGrad, RowPlan

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]


def ids_of(input: Tensor | npt.ArrayLike, function: str, recorded: bool) -> IdArray:
    """Return the ids as an array, one that nobody changes until backward if that will read it."""
    ids = as_ids(input.array if isinstance(input, Tensor) else input, function)
    return ids.copy() if recorded else ids


def row_index(index: int, rows: int) -> int | None:
    """Return a row's id, counting a negative one from the end; None if there is no such row.

    Raises
    ------
    TypeError  index is not an integer.
    """
    row = operator.index(index)
    return row % rows if -rows <= row < rows else None


def check_ids(ids: IdArray, rows: int) -> None:
    """Raise IndexError (torch's text first) if an id is outside the table."""
    raise_for(kernels.first_bad_id(np.ascontiguousarray(ids).reshape(-1), rows), ids, rows)


def raise_for(bad: int, ids: IdArray, rows: int) -> None:
    """Raise IndexError if a kernel found a bad id."""
    if bad >= 0:
        raise IndexError(f"index out of range in self: {bad_id_message(ids, bad, rows)}")


def prepare(weight: Tensor, plan: RowPlan) -> None:
    """Say which rows are about to be read, and let changes of them that were put off be made now.

    Raises
    ------
    IndexError  an id is outside the table, if there may be such changes.
    """
    table = getattr(weight, "table", None)
    if table is None:
        return
    if table.on_disk:
        weight.expect(plan.ids)  # type: ignore[attr-defined]
    if table.counters:

        def rows() -> npt.NDArray[np.int64]:
            check_ids(plan.ids, plan.rows)
            return plan.unique

        weight.catch_up(rows)  # type: ignore[attr-defined]


def announce(weight: Tensor, plan: RowPlan) -> None:
    """Say that the rows of a recorded plan, whose ids are rows, will change if training follows."""
    will_change = getattr(weight, "will_change", None)
    if will_change is not None:
        will_change(lambda: plan.unique)


def renorm(weight: Tensor, plan: RowPlan, max_norm: Any, norm_type: Any) -> None:
    """Scale the rows of a plan down to max_norm, in place.

    Only rows that change are written, and one change is counted, even if none does.

    Raises
    ------
    TypeError           max_norm or norm_type is not a number (torch's text), or the table's dtype
                        is neither float32 nor float64.
    ReadOnlyTableError  the table cannot be written.
    """
    check_trainable(weight)
    most, p = _number(max_norm, "max_norm", 3), _number(norm_type, "norm_type", 4)
    table, unique = weight.array, plan.unique
    copied = None if kernels.accepts(table) else np.ascontiguousarray(table[unique])
    rows, ids = (table, unique) if copied is None else (copied, np.arange(unique.size))
    norms = np.empty(unique.size)
    kernels.row_norms(rows, ids, p, norms)
    over = norms > most
    with weight.writing(unique[over]) as writable:
        kernels.renorm(writable if copied is None else copied, ids[over], most, p)
        if copied is not None:
            writable[unique[over]] = copied[over]


def check_trainable(weight: Tensor) -> None:
    """Raise TypeError unless rows of this dtype can be renormed and get gradients."""
    if weight.dtype not in (np.float32, np.float64):
        raise TypeError(
            f"a table of {weight.dtype} can be looked up, but not renormed or trained: that takes "
            "float32 or float64"
        )


def _number(value: Any, name: str, position: int) -> float:
    if isinstance(value, Tensor) and value.ndim == 0:
        return float(value.item())
    if not isinstance(value, numbers.Real):
        raise TypeError(
            f"embedding_renorm_(): argument '{name}' (position {position}) must be float, "
            f"not {type(value).__name__}"
        )
    return float(value)


class GradientOf:
    """Makes the gradient of a table of rows, as wide as the table is by then: it may have grown."""

    def __init__(self, weight: Tensor, padding: int | None, sparse: bool) -> None:
        self._table = getattr(weight, "table", None)
        self._rows = weight.shape[0]
        self._padding = padding
        self._sparse = sparse

    def __call__(
        self, entries: FloatArray, plan: RowPlan, source: RowArray | None = None
    ) -> RowGrad | FloatArray:
        """Return the gradient made of one entry per id; padding gets none.

        One that is dense, of a table on a disk and larger than memory, is on that disk as well.
        """
        table = self._table
        rows, folder = (self._rows, None) if table is None else (table.rows, table.path)
        return gradient_of_rows(entries, plan, rows, self._padding, self._sparse, source, folder)


def gradient_of_rows(
    entries: FloatArray,
    plan: RowPlan,
    rows: int,
    padding: int | None,
    sparse: bool,
    source: RowArray | None = None,
    folder: os.PathLike[str] | None = None,
) -> RowGrad | FloatArray:
    """Return the gradient of a table of `rows` rows from one entry per id; padding gets none.

    `source` : see `RowGrad`. `folder` : see `spill.zeros`.
    """
    if rows != plan.rows:
        plan = plan.widened(rows)
    if sparse and padding is not None and not (kept := plan.ids != padding).all():
        source = np.flatnonzero(kept) if source is None else source[kept]
        plan = RowPlan(plan.ids[kept], rows)
    gradient = RowGrad(plan, entries, source=source)
    if sparse:
        return gradient
    zeros = spill.zeros(gradient.shape, gradient.dtype, folder, plan.unique)
    dense = gradient.to_dense(zeros).array
    if padding is not None and rows:
        dense[padding] = 0
    return dense
