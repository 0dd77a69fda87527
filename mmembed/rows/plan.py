"""The row plan: a batch of ids, sorted once for everything that follows.

Must not know tables, files or gradients: it sees ids and a number of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import buffers, kernels
from ..ids import bad_id_message

IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]


class RowPlan:
    """The distinct ids of a batch, ascending, and where each of them stands.

    Parameters
    ----------
    ids : int32 or int64, any shape; the plan keeps them, so the caller must not change them.
    rows : number of rows of the table.

    Attributes
    ----------
    ids : (n,) the ids, flat, in the order of the batch.
    unique : (m,) int64, ascending.
    order : (n,) int64, positions in `ids` grouped by id, each group in the order of the batch.
    starts : (m + 1,) int64; group s is `order[starts[s]:starts[s + 1]]`.

    The last three are worked out together when one of them is first asked for.

    Raises
    ------
    IndexError  then, if an id is outside 0..rows-1.
    """

    __slots__ = ("_sorted", "ids", "rows")

    def __init__(self, ids: IdArray, rows: int) -> None:
        if not (ids.ndim == 1 and ids.flags.c_contiguous and ids.flags.aligned):
            ids = np.require(ids, requirements=["C", "A"]).reshape(-1)
        self.ids = ids
        self.rows = rows
        self._sorted: tuple[RowArray, RowArray, RowArray] | None = None

    @property
    def order(self) -> RowArray:
        """Positions in `ids`, grouped by id."""
        return self._sort()[0]

    @property
    def unique(self) -> RowArray:
        """The distinct ids, ascending."""
        return self._sort()[1]

    @property
    def starts(self) -> RowArray:
        """Where each group begins in `order`."""
        return self._sort()[2]

    def counts(self) -> RowArray:
        """Return how often the id at each position of the batch occurs in it, (n,)."""
        counts = np.empty(self.ids.size, np.int64)
        counts[self.order] = np.repeat(np.diff(self.starts), np.diff(self.starts))
        return counts

    def widened(self, rows: int) -> RowPlan:
        """Return the plan of the same ids for a table that has grown to `rows` rows."""
        plan = RowPlan(self.ids, rows)
        plan._sorted = self._sorted
        return plan

    def _sort(self) -> tuple[RowArray, RowArray, RowArray]:
        if self._sorted is None:
            n = self.ids.size
            memory = buffers.empty((5 * n + 2,), np.int64)  # one piece, which is used again
            order, unique, work = memory[:n], memory[n : 2 * n], memory[2 * n : 4 * n]
            starts, count = memory[4 * n : 5 * n + 1], memory[5 * n + 1 :]
            bad = kernels.plan(self.ids, self.rows, order, unique, starts, count, work)
            if bad >= 0:
                raise IndexError(bad_id_message(self.ids, bad, self.rows))
            distinct = int(count[0])
            self._sorted = order, unique[:distinct], starts[: distinct + 1]
        return self._sorted
