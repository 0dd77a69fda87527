"""Ids as callers give them: which are accepted, and how a bad one is reported.

Must not know tables or tensors; it sees arrays and lists.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import IdTypeError

IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

_INT64, _INT32 = np.dtype(np.int64), np.dtype(np.int32)

_TORCH_NAMES = {
    "b": "CPUBoolType",
    "f2": "torch.HalfTensor",
    "f4": "torch.FloatTensor",
    "f8": "torch.DoubleTensor",
    "c8": "CPUComplexFloatType",
    "c16": "CPUComplexDoubleType",
}


def as_ids(ids: npt.ArrayLike, function: str = "embedding") -> IdArray:
    """Return ids as an array of int32 or int64 of the same shape, without a copy if possible.

    Parameters
    ----------
    ids : array or nested list of integers, any shape. Integers of other widths become int64.
    function : named in the error.

    Raises
    ------
    IdTypeError    ids are not integers (torch's text first).
    OverflowError  an unsigned id does not fit int64.
    """
    array = np.asarray(ids)
    if array.dtype is _INT64 or array.dtype is _INT32:  # what is nearly always given
        return array
    if array.size == 0 and not hasattr(ids, "dtype"):  # of an empty list NumPy makes floats
        return array.astype(np.int64)
    if array.dtype.kind not in "iu":
        code = array.dtype.kind if array.dtype.kind == "b" else array.dtype.str[1:]
        hint = "; np.flatnonzero(mask) gives the ids of a mask" if code == "b" else ""
        place = 2 if function == "embedding_renorm_" else 1
        raise IdTypeError(
            f"Expected tensor for argument #{place} 'indices' to have one of the following scalar "
            f"types: Long, Int; but got {_TORCH_NAMES.get(code, array.dtype)} instead (while "
            f"checking arguments for {function}): ids must be integers, got {array.dtype}{hint}"
        )
    if array.dtype == np.int64 or array.dtype == np.int32:
        return array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype.itemsize == 8 and array.size and array.max() > np.iinfo(np.int64).max:
        raise OverflowError(f"id {array.max()} does not fit int64")
    return array.astype(np.int64)


def bad_id_message(ids: IdArray, position: int, rows: int) -> str:
    """Return what is wrong with the id at flat `position` of a batch over `rows` rows.

    >>> bad_id_message(np.array([[0, 4], [7, 1]]), 2, 5)
    'id 7 at (1, 0) is outside the table, which has 5 rows (valid: 0..4)'
    """
    place = tuple(int(i) for i in np.unravel_index(position, ids.shape)) if ids.ndim else ()
    where = f" at {place[0] if len(place) == 1 else place}" if place else ""
    valid = f"valid: 0..{rows - 1}" if rows else "none is valid"
    plural = "" if rows == 1 else "s"
    return (
        f"id {ids.reshape(-1)[position]}{where} is outside the table, "
        f"which has {rows} row{plural} ({valid})"
    )


def rows_at(index: Any, rows: int) -> RowArray | None:
    """Return which rows `array[index]` names, ascending; None for all of them.

    Parameters
    ----------
    index : as NumPy takes it for an array of `rows` rows.

    Raises
    ------
    IndexError  it names a row that there is not.
    """
    first = index[0] if isinstance(index, tuple) and index else index
    if first is Ellipsis or first is None or (isinstance(index, tuple) and not index):
        return None
    if isinstance(first, slice):
        span = range(rows)[first]
        return None if len(span) == rows else np.sort(np.arange(span.start, span.stop, span.step))
    ids = np.asarray(first)
    if ids.dtype == bool:
        return np.flatnonzero(ids.any(axis=tuple(range(1, ids.ndim)))) if ids.ndim else None
    if ids.ndim == 0:
        ids = np.array([operator.index(first)])
    ids = np.unique(ids).astype(np.int64)
    if ids.size and not (-rows <= ids[0] and ids[-1] < rows):
        bad = ids[0] if ids[0] < -rows else ids[-1]
        raise IndexError(f"row {bad} is outside the table, which has {rows} rows")
    return np.unique(np.where(ids < 0, ids + rows, ids))
