"""Where the columns of a table live: the contract, and the store that is memory.

Must not know files, ids or how rows are read; a `Table` puts those on top.
"""

from __future__ import annotations

import abc
import contextlib
import types
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, final

import numpy as np
import numpy.typing as npt

from .. import buffers
from ..errors import ReadOnlyTableError
from .column import Column
from .format import Superblock
from .pages import ColumnPages
from .unwritten import Unwritten

if TYPE_CHECKING:
    from .committed import CommittedView

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]

Fill = Callable[[int, FloatArray], None]
"""Called as fill(first, values): changes the initial values of the rows from `first` on."""

Progress = Callable[[int, int], object]
"""Called as progress(bytes that are done, bytes in all)."""

BLOCK_BYTES = 4 << 20  # initial rows are drawn in blocks of this size


class Store(abc.ABC):
    """The columns of one table, and what its next commit will say.

    Attributes
    ----------
    superblock : the last commit, with the columns and counters of now.
    path : the directory, or None.
    mode : "r" or "r+".
    clean : see `Table.clean`.
    recovered : see `Table.recovered`.
    allow_foreign, allow_network_fs : as they were given to `Table.open`.
    """

    deaths: int = 0
    superblock: Superblock
    path: str | None
    mode: str
    clean: bool
    recovered: int
    allow_foreign: bool
    allow_network_fs: bool

    @property
    @abc.abstractmethod
    def pending(self) -> bool:
        """Whether this process has changed something since the last commit."""

    @abc.abstractmethod
    def array(self, name: str) -> FloatArray:
        """Return the array of a column for reading; KeyError if there is none."""

    @property
    def committed(self) -> CommittedView | None:
        """What gives rows of the last commit, if the table was opened for that."""
        return None

    @property
    def dirty_budget(self) -> int | None:
        """Bytes that may be changed and not on the disk; None: left to the system, or no files."""
        return None

    def limit_dirty(self, budget: int) -> None:  # noqa: B027
        """Set the budget; 0 leaves it to the system. Memory has none."""

    def pages(self, name: str) -> ColumnPages | None:
        """Return what asks for rows of a column before they are read; None if nothing must."""
        return None

    def unwritten(self, name: str) -> Unwritten | None:
        """Return what tells which rows `array` does not have; None if it has all."""
        return None

    def materialize(self, progress: Progress) -> None:
        """See `Table.materialize`; raises what `writing` raises."""
        self.check_writable()

    @abc.abstractmethod
    def check_writable(self) -> None:
        """Raise what `writing` would raise."""

    @abc.abstractmethod
    def writing(
        self, rows: RowArray | None
    ) -> contextlib.AbstractContextManager[Mapping[str, FloatArray]]:
        """See `Table.writing`."""

    @abc.abstractmethod
    def will_write(self, rows: RowArray) -> None:
        """See `Table.will_write`."""

    @abc.abstractmethod
    def add(self, *columns: Column) -> None:
        """Add columns that the table does not have, all or none; raises what `writing` raises."""

    @abc.abstractmethod
    def resize(self, superblock: Superblock) -> None:
        """Grow all columns to the rows of `superblock`, which differs from the present one in rows
        and epoch alone; the growth is recorded when this returns. Raises what `writing` raises.
        """

    @abc.abstractmethod
    def count(self, counters: dict[str, int]) -> None:
        """Put other counters in the place of those there are; raises what `writing` raises."""

    @abc.abstractmethod
    def commit(self, superblock: Superblock) -> None:
        """Make the rows as they are, and `superblock`, the last commit; raises as `writing`."""

    def alone(self) -> contextlib.AbstractContextManager[None]:
        """Have no other writer at work in the block, and `superblock` the last commit's successor.

        Raises as `writing`; and WriterDiedError.
        """
        return contextlib.nullcontext()

    @abc.abstractmethod
    def rollback(self) -> None:
        """Bring rows, columns and counters back to the last commit; raises as `writing`."""

    @abc.abstractmethod
    def close(self) -> None:
        """Give everything back, without a commit; a second time is harmless."""


def check_not_quantized(superblock: Superblock, where: object) -> None:
    """Raise ReadOnlyTableError if a table that would be written is in 8 bits."""
    if superblock.columns[0].quantized:
        raise ReadOnlyTableError(
            f"{where} holds rows of 8 bits, which are only read; train the table that it was made "
            "of, and quantize that again"
        )


def initial_blocks(
    column: Column, rows: int, fill: Fill | None = None, start: int = 0
) -> Iterator[tuple[int, FloatArray]]:
    """Yield (first row, values) for the rows start..rows-1 in order; the array is used again."""
    if rows == start or column.row_bytes == 0:
        return
    block = min(rows - start, max(1, BLOCK_BYTES // column.row_bytes))
    buffer: FloatArray = np.empty(column.shape(block), column.numpy_dtype)
    for first in range(start, rows, block):
        values = buffer[: min(block, rows - first)]
        column.init.fill(values, first, column.seed)
        if fill is not None:
            fill(first, values)
        yield first, values


@final
class MemoryStore(Store):
    """Columns that are ordinary arrays.

    Parameters
    ----------
    superblock : describes all of `arrays`.
    arrays : by name; read-only if the first one is.
    """

    def __init__(self, superblock: Superblock, arrays: dict[str, FloatArray]) -> None:
        """Put a store on arrays; records are a matter of files."""
        self.superblock = superblock = replace(superblock, records=None)
        self.path = None
        writable = arrays["weight"].flags.writeable and not superblock.columns[0].quantized
        self.mode = "r+" if writable else "r"
        self.clean = True
        self.recovered = 0
        self.allow_foreign = self.allow_network_fs = False
        self._arrays = arrays

    @classmethod
    def create(cls, superblock: Superblock, fill: Fill | None = None) -> MemoryStore:
        """Return a store with columns at their initial values; see `Table.create`."""
        weight, *others = superblock.columns
        arrays = {"weight": _initial_array(weight, superblock.rows, fill)}
        arrays |= {column.name: _initial_array(column, superblock.rows) for column in others}
        return cls(superblock, arrays)

    @property
    def pending(self) -> bool:
        """Memory has nothing to lose between commits."""
        return False

    def array(self, name: str) -> FloatArray:
        """See `Store.array`; a view of the array itself, whose shape is the caller's own."""
        return self._arrays[name].view()

    @contextlib.contextmanager
    def writing(self, rows: RowArray | None) -> Iterator[Mapping[str, FloatArray]]:
        """See `Table.writing`."""
        self.check_writable()
        yield types.MappingProxyType({name: a.view() for name, a in self._arrays.items()})

    def will_write(self, rows: RowArray) -> None:
        """Memory has no journal to prepare."""

    def add(self, *columns: Column) -> None:
        """See `Store.add`."""
        self.check_writable()
        superblock = replace(self.superblock, columns=(*self.superblock.columns, *columns))
        self._arrays |= {c.name: _initial_array(c, superblock.rows) for c in columns}
        self.superblock = superblock

    def resize(self, superblock: Superblock) -> None:
        """See `Store.resize`; the arrays are others then."""
        self.check_writable()
        before = self.superblock.rows
        arrays = {}
        for column in superblock.columns:
            array = _initial_array(column, superblock.rows, start=before)
            array[:before] = self._arrays[column.name]
            arrays[column.name] = array
        self._arrays = arrays
        self.superblock = superblock

    def count(self, counters: dict[str, int]) -> None:
        """See `Store.count`."""
        self.check_writable()
        self.superblock = replace(self.superblock, counters=counters)

    def commit(self, superblock: Superblock) -> None:
        """See `Store.commit`."""
        self.check_writable()
        self.superblock = superblock

    def rollback(self) -> None:
        """Raise ValueError: memory keeps nothing to go back to."""
        raise ValueError(
            "a table in memory does not keep what its rows were at the last commit; rollback takes "
            "a table on disk"
        )

    def close(self) -> None:
        """See `Store.close`."""
        self._arrays = {}

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        if self.mode == "r":
            raise ReadOnlyTableError("the table wraps a read-only array; give it a writable one")


def _initial_array(
    column: Column, rows: int, fill: Fill | None = None, start: int = 0
) -> FloatArray:
    """Return (rows, dim) or (rows,) with initial values in the rows start..rows-1."""
    # The pages of an all-zero column are left to the first touch.
    array: FloatArray = buffers.zeros(column.shape(rows), column.numpy_dtype)
    if str(column.init) != "zeros" or fill is not None:
        for first, values in initial_blocks(column, rows, fill, start):
            array[first : first + len(values)] = values
    return array
