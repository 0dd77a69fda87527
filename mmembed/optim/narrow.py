"""Updates of narrow rows: rules see float32 rows, and one rounding puts them back.

Must not know any rule, nor files: what a rule sees of the parameter and of its state is copies of
the rows of a block, small enough to stay in the cache from the reading to the writing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..kernels import packed
from .segments import Segments

FloatArray = npt.NDArray[np.floating[Any]]
Float32Array = npt.NDArray[np.float32]
RowArray = npt.NDArray[np.int64]

BLOCK = 1 << 17  # elements of the parameter in a block; as many threads as there are share it


class Rounding(NamedTuple):
    """How rows are rounded; see `packed.pack_rows`."""

    stochastic: bool
    seed: int
    step: int


def update_narrow(
    update: Callable[[tuple[FloatArray, ...], Segments], None],
    arrays: tuple[FloatArray, ...],
    rows: Segments,
    rounding: Rounding,
) -> None:
    """Change rows of (parameter, *states) by `update`, which is given some of them as float32.

    Parameters
    ----------
    update : called with arrays of as many rows as segments; segment s belongs to row s.
    arrays : a (rows, dim) narrow parameter, and float32 states, (rows, dim) or (rows,).
    rows : its values are float32, or narrow as the parameter.
    """
    weight, *states = arrays
    for part in _parts(rows, weight.shape[1]):
        ids = part.ids
        met = [_taken(array, ids) for array in arrays]
        update(tuple(met), _compact(part))
        _put(met[0], weight, ids, rounding)
        for state, found in zip(states, met[1:], strict=True):
            _put(found, state, ids, Rounding(False, 0, 0))


def _parts(rows: Segments, dim: int) -> Iterator[Segments]:
    """Yield the segments in parts of about BLOCK elements, one segment at least."""
    most = max(1, BLOCK // max(1, dim))
    # Entries count as well as rows: a hot row has many.
    work = rows.starts - rows.starts[0] + np.arange(rows.starts.size)
    first = 0
    while first < rows.ids.size:
        last = int(np.searchsorted(work, work[first] + 2 * most, side="right")) - 1
        last = max(last, first + 1)
        yield rows._replace(ids=rows.ids[first:last], starts=rows.starts[first : last + 1])
        first = last


def _compact(rows: Segments) -> Segments:
    """Return the segments numbered from 0, with float32 values."""
    places = np.arange(rows.ids.size)
    order = rows.order[rows.starts[0] : rows.starts[-1]]
    return Segments(
        places, _taken(rows.values, order), np.arange(order.size), rows.starts - rows.starts[0]
    )


def _taken(array: FloatArray, ids: RowArray) -> Float32Array:
    """Return rows as float32: (n, dim), or (n,) of an array of one number per row."""
    if array.ndim == 1:
        return array[ids]
    out = np.empty((ids.size, array.shape[1]), np.float32)
    packed.unpack_rows(packed.as_bytes(array), packed.format_of(array.dtype), ids, out)
    return out


def _put(rows: Float32Array, array: FloatArray, ids: RowArray, rounding: Rounding) -> None:
    if array.ndim == 1:
        array[ids] = rows
        return
    format = packed.format_of(array.dtype)
    packed.pack_rows(rows, format, ids, packed.as_bytes(array), *rounding)
