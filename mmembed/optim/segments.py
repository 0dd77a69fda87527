"""Gradients as kernels take them: rows, and for each the entries that add up to its gradient.

Must not know parameters, tables or rules.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..rows import RowGrad

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]

# Rows of a dense gradient taken at a time: enough to share among threads, few enough that what is
# made for them stays small beside any table.
BLOCK = 1 << 16


class Segments(NamedTuple):
    """Row ids[s] has the gradient sum(values[order[starts[s]:starts[s + 1]]]); zero if empty."""

    ids: RowArray
    values: FloatArray
    order: RowArray
    starts: RowArray


def of_rows(gradient: RowGrad) -> Segments:
    """Return the rows that a sparse gradient names."""
    return Segments(gradient.plan.unique, *gradient.summands(), gradient.plan.starts)


def of_every_row(gradient: RowGrad) -> Iterator[Segments]:
    """Yield all rows of the table in blocks; those that the gradient does not name are empty."""
    named = of_rows(gradient)
    for first in range(0, gradient.shape[0], BLOCK):
        ids = np.arange(first, min(first + BLOCK, gradient.shape[0]))
        at = np.searchsorted(named.ids, np.append(ids, ids[-1] + 1))
        yield Segments(ids, named.values, named.order, named.starts[at])


def of_array(gradient: FloatArray) -> Iterator[Segments]:
    """Yield all rows of a dense (rows, dim) gradient in blocks, each row one entry."""
    places = np.arange(min(BLOCK, len(gradient)) + 1)
    for first in range(0, len(gradient), BLOCK):
        values = np.ascontiguousarray(gradient[first : first + BLOCK])
        n = len(values)
        yield Segments(places[:n] + first, values, places[:n], places[: n + 1])
