"""What two tables differ in: columns, rows, and what their last commits say.

Must not know files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .reading import Readable
from .store import FloatArray, RowArray

BLOCK_BYTES = 16 << 20


class ColumnDifference(NamedTuple):
    """How a column of two tables differs.

    Attributes
    ----------
    name : the column's.
    kind : "same", "rows" (some differ), "shape" (or dtype: rows were not compared), "only in the
        first" or "only in the second".
    compared : rows that both have.
    differ : how many of them do, in any bit.
    first : the ids of the first ten of those.
    largest : the largest difference of two numbers, and `where` it is (id); NaN if one of the two
        is not a number. None if no row differs.
    """

    name: str
    kind: str
    compared: int = 0
    differ: int = 0
    first: tuple[int, ...] = ()
    largest: float | None = None
    where: int | None = None


class Difference(NamedTuple):
    """What two tables differ in.

    Attributes
    ----------
    columns : of each column of either table.
    said : name -> (value in the first, value in the second), of what the tables say of themselves:
        uuid, rows, commits, step, counters, metadata; only what differs.
    """

    columns: tuple[ColumnDifference, ...]
    said: dict[str, tuple[Any, Any]]

    @property
    def same(self) -> bool:
        """Whether both have the same rows, counters, metadata and step."""
        told = {"rows", "step", "counters", "metadata"} & self.said.keys()
        return not told and all(column.kind == "same" for column in self.columns)


def diff(first: Readable, second: Readable) -> Difference:
    """Compare two tables, block by block: every row of every column, bit by bit."""
    names = dict.fromkeys((*first.columns, *second.columns))
    columns = tuple(_column_difference(first, second, name) for name in names)
    said = {}
    for what in ("uuid", "rows", "commits", "step", "counters", "metadata"):
        values = getattr(first, what), getattr(second, what)
        if values[0] != values[1]:
            said[what] = values
    return Difference(columns, said)


def differing_rows(
    first: Readable, second: Readable, name: str = "weight"
) -> Iterator[tuple[RowArray, FloatArray, FloatArray]]:
    """Yield the ids of rows that differ in a column, ascending, and both tables' values of them."""
    none = first.gather(np.empty(0, np.int64), column=name)
    width = max(1, none.itemsize * int(np.prod(none.shape[1:])))
    step = max(1, BLOCK_BYTES // width)
    rows = min(first.rows, second.rows)
    for begin in range(0, rows, step):
        ids: RowArray = np.arange(begin, min(rows, begin + step))
        a, b = first.gather(ids, column=name), second.gather(ids, column=name)
        places = np.flatnonzero((_bytes_of(a) != _bytes_of(b)).any(axis=1))
        if places.size:
            yield ids[places], a[places], b[places]


def _column_difference(first: Readable, second: Readable, name: str) -> ColumnDifference:
    if name not in first.columns or name not in second.columns:
        which = "first" if name in first.columns else "second"
        return ColumnDifference(name, f"only in the {which}")
    ours, theirs = (t.gather(np.empty(0, np.int64), column=name) for t in (first, second))
    if ours.shape != theirs.shape or ours.dtype != theirs.dtype:
        return ColumnDifference(name, "shape")
    differ, largest, where = 0, None, None
    found: list[int] = []
    for ids, a, b in differing_rows(first, second, name):
        differ += ids.size
        found += ids[: 10 - len(found)].tolist()
        far = _distances(a, b)
        place = int(np.argmax(far))  # NaN is the greatest to argmax
        if largest is None or not (far[place] <= largest or np.isnan(largest)):
            largest, where = float(far[place]), int(ids[place])
    return ColumnDifference(
        *(name, "rows" if differ else "same", min(first.rows, second.rows), differ),
        *(tuple(found), largest, where),
    )


def _distances(a: FloatArray, b: FloatArray) -> npt.NDArray[np.float64]:
    """Return the largest difference of two numbers in each row; NaN if one of two is NaN."""
    ours = a.astype(np.float64).reshape(len(a), -1)
    theirs = b.astype(np.float64).reshape(len(b), -1)
    with np.errstate(invalid="ignore", over="ignore"):
        apart = np.abs(ours - theirs)
    alike = (ours == theirs) | (np.isnan(ours) & np.isnan(theirs))
    far: npt.NDArray[np.float64] = np.where(alike, 0.0, apart).max(axis=1)
    return far


def _bytes_of(rows: FloatArray) -> npt.NDArray[np.uint8]:
    data = np.ascontiguousarray(rows)
    return data.reshape(len(rows), -1).view(np.uint8)
