"""Checksums of single rows: which columns hold them, how they are set, and which rows they deny.

Must not know when rows change, files or commits. The checksums of a column are a column themselves,
`crc.NAME`, of one uint32 for each row: 0 for a row that has its initial value, else the CRC-32 of
its bytes, with 1 in the place of 0. So journal, growth, snapshots and deltas carry them like rows.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..errors import CommitGoneError
from .column import CHECKS, CHECKSUM, Column, column_seed
from .initial import Initial
from .saving import row_sums
from .store import FloatArray, RowArray

if TYPE_CHECKING:
    from .table import Table

Sums = npt.NDArray[np.uint32]

BLOCK_ROWS = 1 << 16
BLOCK_BYTES = 4 << 20
TRIES = 5  # of a look at one commit, which the writer need not wait for


def sums_column(column: Column, seed: int) -> Column:
    """Return the column with the checksums of another one's rows, in a table with this seed."""
    name = CHECKS + column.name
    zeros = Initial.parse("zeros")
    return Column(name, CHECKSUM, None, zeros, column_seed(seed, name), column.lazy)


def set_sums(array: FloatArray, rows: RowArray | None, sums: Any) -> None:
    """Set the checksums of some rows (None: all) to what the rows are.

    Parameters
    ----------
    array : (n, dim) or (n,), its rows contiguous and of a byte at least.
    rows : (m,), in any order.
    sums : (n,) uint32; written.

    Raises
    ------
    IndexError  a row is outside the array; nothing was written.
    """
    data = _bytes_of(array)
    if rows is None:
        for first in range(0, len(data), BLOCK_ROWS):
            row_sums(data, np.arange(first, min(first + BLOCK_ROWS, len(data))), sums)
        return
    if (bad := row_sums(data, rows, sums)) >= 0:
        raise IndexError(f"row {rows[bad]} is outside the {len(data)} rows of the column")


def _bytes_of(array: FloatArray) -> npt.NDArray[np.uint8]:
    return (array if array.ndim == 2 else array[:, None]).view(np.uint8)


def wrong_rows(table: Table, column: Column, sums: Column) -> Iterator[RowArray]:
    """Yield the rows of a column that are not what their checksums say, some at a time.

    `table` : a committed reader, so that a writer may be at work.

    Raises what `Table.gather` and `Table.pin` raise; CommitGoneError if commits follow each other
    too fast for rows and checksums of one commit to be compared.
    """
    block = max(1, min(BLOCK_ROWS, BLOCK_BYTES // max(1, column.row_bytes)))
    for first in range(0, table.rows if column.row_bytes else 0, block):
        ids = np.arange(first, min(first + block, table.rows))
        # The two may be of different commits, so what differs is looked at again, in one.
        wrong = _compare(table, column, sums, ids)
        if wrong.size:
            wrong = _compare_in_one_commit(table, column, sums, wrong)
        if wrong.size:
            yield wrong


def _compare_in_one_commit(table: Table, column: Column, sums: Column, ids: RowArray) -> RowArray:
    for _ in range(TRIES):
        with contextlib.suppress(CommitGoneError), table.pin():
            return _compare(table, column, sums, ids)
    with table.pin():
        return _compare(table, column, sums, ids)


def _compare(table: Table, column: Column, sums: Column, ids: RowArray) -> RowArray:
    rows = table.gather(ids, column=column.name)
    said: Any = table.gather(ids, column=sums.name)
    found = np.empty(ids.size, np.uint32)
    set_sums(rows, None, found)
    wrong = found != said
    initial = np.flatnonzero(said == 0)
    if initial.size:
        drawn: FloatArray = np.empty(column.shape(initial.size), column.numpy_dtype)
        column.init.draw(drawn, ids[initial], column.seed)
        differs = _bytes_of(drawn) != _bytes_of(rows[initial])
        wrong[initial] = differs.any(axis=1)
    told: RowArray = ids[wrong]
    return told
