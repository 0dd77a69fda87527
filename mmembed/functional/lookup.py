"""What every lookup shares: the ids of a batch, renorm before it, the gradient of rows after it.

Must not know how looked-up rows are combined.
"""

from __future__ import annotations

import numbers
import operator
import os
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels, spill
from ..autograd import Tensor
from ..ids import as_ids, bad_id_message
from ..kernels import packed
from ..narrow import as_dtype, is_floating, is_narrow, wide
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


def _nothing() -> None:
    pass


def prepare(weight: Tensor, plan: RowPlan) -> Callable[[], None]:
    """Say which rows are about to be read, and let changes of them that were put off be made now.

    Returns
    -------
    What to call when the rows have been read.

    Raises
    ------
    IndexError  an id is outside the table, if there may be such changes.
    """
    table = getattr(weight, "table", None)
    if table is None:
        return _nothing
    have = None
    if table.on_disk:
        have = weight.expect(plan.ids)  # type: ignore[attr-defined]
    if table.counters:

        def rows() -> npt.NDArray[np.int64]:
            check_ids(plan.ids, plan.rows)
            return plan.unique

        weight.catch_up(rows)  # type: ignore[attr-defined]
    return have or _nothing


def announce(weight: Tensor, plan: RowPlan) -> None:
    """Say that the rows of a recorded plan, whose ids are rows, will change if training follows."""
    will_change = getattr(weight, "will_change", None)
    if will_change is not None:
        will_change(lambda: plan.unique)


def rows_met(weight: Tensor, plan: RowPlan, ids: IdArray) -> tuple[FloatArray, IdArray]:
    """Return an array that has the rows of a plan, and for each id which row of it is its.

    That is the whole of `weight` and the ids, unless the table is lazy and nobody has written some
    of these rows: then copies of the plan's rows.

    `ids` : those of the plan, as they were given.

    Raises
    ------
    IndexError  an id is outside the table, where rows are copied.
    """
    table = getattr(weight, "table", None)
    if table is None:
        return weight.array, plan.ids
    column = weight.column  # type: ignore[attr-defined]
    array, unwritten = table.located(plan.ids, column)
    if unwritten is None:
        return array, plan.ids
    check_ids(ids, plan.rows)
    return table.gather(plan.unique, column=column), places_in(plan)


def saved(weight: Tensor, plan: RowPlan, rows: FloatArray, ids: IdArray) -> tuple[Tensor, IdArray]:
    """Return what a lookup saves for backward: a tensor with its rows, and which each id is there.

    `rows, ids` : what it took the rows from, as in `rows_met`; kept of a table, whose array
    backward could not ask for.
    """
    as_if_its_own = getattr(weight, "as_if_its_own", None)
    return (weight, plan.ids) if as_if_its_own is None else (as_if_its_own(rows), ids)


def places_in(plan: RowPlan) -> RowArray:
    """Return for each id of a plan which of its distinct ids it is, (n,)."""
    places = np.empty(plan.ids.size, np.int64)
    places[plan.order] = np.repeat(np.arange(plan.unique.size), np.diff(plan.starts))
    return places


def renorm(weight: Tensor, plan: RowPlan, max_norm: Any, norm_type: Any) -> None:
    """Scale the rows of a plan down to max_norm, in place.

    Only rows that change are written, and one change is counted, even if none does.

    Raises
    ------
    TypeError           max_norm or norm_type is not a number (torch's text), or the table holds
                        integers.
    ReadOnlyTableError  the table cannot be written.
    """
    check_trainable(weight)
    most, p = _number(max_norm, "max_norm", 3), _number(norm_type, "norm_type", 4)
    unique = plan.unique
    table, at = rows_met(weight, RowPlan(unique, plan.rows), unique)
    copied = None if kernels.accepts(table) else wide_rows(table, at)
    rows, ids = (table, at) if copied is None else (copied, np.arange(unique.size))
    norms = np.empty(unique.size)
    kernels.row_norms(rows, ids, p, norms)
    if is_narrow(table.dtype):
        _renorm_narrow(weight, unique, rows, _rounded_norms(norms, table.dtype), most)
        return
    over = norms > most
    with weight.writing(unique[over]) as writable:
        if copied is None:
            kernels.renorm(writable, unique[over], most, p)
        else:
            kernels.renorm(copied, ids[over], most, p)
        if copied is not None:
            writable[unique[over]] = copied[over]


def _renorm_narrow(
    weight: Tensor, unique: npt.NDArray[np.int64], rows: FloatArray, norms: Any, most: float
) -> None:
    """Scale rows as torch does: the factor is rounded too."""
    over = norms > most
    with np.errstate(all="ignore"):
        factors = as_output((most / (norms[over, None] + 1e-7)).astype(np.float32), weight.dtype)
    scaled = rows[over] * factors.astype(np.float32)
    with weight.writing(unique[over]) as writable:
        writable[unique[over]] = as_output(scaled, weight.dtype)


def _rounded_norms(norms: npt.NDArray[np.float64], dtype: np.dtype[Any]) -> Any:
    """Return norms as a narrow dtype has them, where it has."""
    rounded = as_output(norms[:, None].astype(np.float32), dtype)[:, 0].astype(np.float64)
    return np.where(np.isinf(rounded), norms, rounded)


def wide_rows(table: npt.NDArray[Any], ids: IdArray) -> npt.NDArray[Any]:
    """Return rows, contiguous, narrow ones as float32; ids are within the table."""
    out: npt.NDArray[Any] = np.empty((ids.size, table.shape[1]), wide(table.dtype))
    if packed.accepts(table):
        packed.unpack_rows(packed.as_bytes(table), packed.format_of(table.dtype), ids, out)
    elif kernels.accepts(table):
        kernels.gather(table, ids, out)
    else:
        out[...] = table[ids]
    return out


def as_output(rows: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    """Return (n, dim) rows in a dtype: rounded once, themselves if they have it."""
    if is_narrow(dtype) and rows.dtype == np.float32:
        return packed.rounded(rows, dtype)
    return rows.astype(dtype, copy=False)


def output_dtype_of(weight: Tensor, output_dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """Return the dtype of looked-up rows: the table's, or float32 of a narrow one if asked for.

    Raises
    ------
    TypeError  another one is asked for.
    """
    own = weight.dtype
    if output_dtype is None:
        return own
    asked = as_dtype(output_dtype)
    if asked not in (own, wide(own)):
        allowed = " or ".join(dict.fromkeys([str(own), str(wide(own))]))
        raise TypeError(f"output_dtype of a table of {own} must be {allowed}, got {asked}")
    return asked


def check_trainable(weight: Tensor) -> None:
    """Raise TypeError unless rows of this dtype can be renormed and get gradients."""
    if not is_floating(weight.dtype):
        raise TypeError(
            f"a table of {weight.dtype} can be looked up, but not renormed or trained: that takes "
            "a floating dtype"
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

    def __init__(
        self, weight: Tensor, padding: int | None, sparse: bool, dtype: np.dtype[Any]
    ) -> None:
        self._table = getattr(weight, "table", None)
        self._rows = weight.shape[0]
        self._padding = padding
        self._sparse = sparse
        self._dtype = dtype

    def __call__(
        self, entries: FloatArray, plan: RowPlan, source: RowArray | None = None
    ) -> RowGrad | FloatArray:
        """Return the gradient made of one entry per id; padding gets none.

        One that is dense, of a table on a disk and larger than memory, is on that disk as well.
        """
        table = self._table
        rows, folder = (self._rows, None) if table is None else (table.rows, table.path)
        like = rows, self._padding, self._sparse, self._dtype
        return gradient_of_rows(entries, plan, *like, source, folder)


def gradient_of_rows(
    entries: FloatArray,
    plan: RowPlan,
    rows: int,
    padding: int | None,
    sparse: bool,
    dtype: np.dtype[Any],
    source: RowArray | None = None,
    folder: os.PathLike[str] | None = None,
) -> RowGrad | FloatArray:
    """Return the gradient of a table of `rows` rows from one entry per id; padding gets none.

    `dtype` : of the gradient; entries may be float32 where it is narrow.
    `source` : see `RowGrad`. `folder` : see `spill.zeros`.
    """
    if rows != plan.rows:
        plan = plan.widened(rows)
    if sparse and padding is not None and not (kept := plan.ids != padding).all():
        source = np.flatnonzero(kept) if source is None else source[kept]
        plan = RowPlan(plan.ids[kept], rows)
    if sparse:
        return RowGrad(plan, as_output(entries, dtype), source=source)
    zeros = spill.zeros((rows, entries.shape[1]), dtype, folder, plan.unique)
    dense = RowGrad(plan, entries, source=source).to_dense(zeros).array
    if padding is not None and rows:
        dense[padding] = 0
    return dense
