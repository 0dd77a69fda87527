"""Rows of one array by id: taking copies of them, and settling what a write puts where.

Must not know tables, columns or files; an array of rows is (rows, dim) or (rows,).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..ids import as_ids, bad_id_message
from .store import FloatArray, RowArray
from .unwritten import Unwritten, fill_in


def check_array(array: FloatArray) -> None:
    """Raise ValueError unless kernels can use `array` as a table: (rows, dim), rows contiguous."""
    if array.ndim != 2:
        raise ValueError(f"the array must be (rows, dim), got shape {array.shape}")
    scattered = array.size > 0 and array.shape[1] > 1 and array.strides[1] != array.itemsize
    if scattered or not array.flags.aligned:
        raise ValueError(
            f"the rows of the array must be contiguous and aligned, got strides {array.strides} "
            f"for items of {array.itemsize} bytes; use np.ascontiguousarray"
        )


def check_rows(ids: RowArray, rows: int) -> None:
    """Raise TypeError or IndexError unless ids, which ascend, are int64 ids of rows."""
    if ids.ndim != 1 or ids.dtype != np.int64:
        raise TypeError(f"rows must be a 1-D array of int64, got {ids.ndim}-D of {ids.dtype}")
    for at in (0, ids.size - 1) if ids.size else ():  # the ends speak for all
        if not 0 <= ids[at] < rows:
            raise IndexError(bad_id_message(ids, at, rows))


def take(
    rows: FloatArray,
    ids: npt.ArrayLike,
    out: FloatArray | None,
    unwritten: Unwritten | None = None,
) -> FloatArray:
    """Return copies of rows, in `out` if it is given; see `Table.gather`.

    Of rows that `unwritten` says are not in `rows`, the copies are computed.
    """
    where = as_ids(ids)
    shape = where.shape + rows.shape[1:]
    if out is None:
        out = np.empty(shape, rows.dtype)
    else:
        check_out(out, shape, rows.dtype, rows)
    table = rows if rows.ndim == 2 else rows[:, None]
    flat = np.ascontiguousarray(where).reshape(-1)
    places = None if unwritten is None else unwritten.of(flat)
    if unwritten is not None and places is not None and places.size:
        if (bad := kernels.first_bad_id(flat, len(rows))) >= 0:
            raise IndexError(bad_id_message(where, bad, len(rows)))
        fill_in(rows, unwritten, flat, places, out.reshape(flat.size, *rows.shape[1:]))
        return out
    bad = kernels.gather(table, flat, out.reshape(flat.size, table.shape[1]))
    if bad >= 0:
        raise IndexError(bad_id_message(where, bad, len(rows)))
    return out


def check_out(
    out: FloatArray, shape: tuple[int, ...], dtype: np.dtype[Any], rows: npt.NDArray[Any]
) -> None:
    """Raise ValueError unless rows can be copied into `out`."""
    if not isinstance(out, np.ndarray) or out.shape != shape or out.dtype != dtype:
        got = f"{out.shape} {out.dtype}" if isinstance(out, np.ndarray) else type(out).__name__
        raise ValueError(f"out must be an array {shape} {dtype}, got {got}")
    if not (out.flags.c_contiguous and out.flags.writeable and out.flags.aligned):
        raise ValueError("out must be C-contiguous, aligned and writable")
    if np.may_share_memory(out, rows):
        raise ValueError("out lies in the table itself; gather into another array")


def settle(
    rows: FloatArray, ids: npt.ArrayLike, values: npt.ArrayLike
) -> tuple[RowArray, FloatArray]:
    """Return the distinct ids, ascending, and the last values of each; see `Table.write`."""
    where = as_ids(ids)
    flat = np.ascontiguousarray(where).reshape(-1)
    bad = kernels.first_bad_id(flat, len(rows))
    if bad >= 0:
        raise IndexError(bad_id_message(where, bad, len(rows)))
    given = np.asarray(values)
    if not np.can_cast(given.dtype, rows.dtype, "same_kind"):
        raise TypeError(f"values must be real numbers, got {given.dtype}")
    shape = where.shape + rows.shape[1:]
    try:
        spread = np.broadcast_to(given, shape).reshape(flat.shape + rows.shape[1:])
    except ValueError:
        raise ValueError(
            f"values have shape {given.shape}, which does not broadcast to {shape}"
        ) from None
    distinct, last = np.unique(flat[::-1], return_index=True)
    return distinct.astype(np.int64, copy=False), spread[::-1][last]
