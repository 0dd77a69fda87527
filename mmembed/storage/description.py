"""What a table says of itself: its shape, its place, and its last commit.

Must not know how rows are read or written. Nothing here needs the table to be open.
"""

from __future__ import annotations

import copy
import pathlib
from typing import Any
from uuid import UUID

import numpy as np

from .column import MAX_BYTES, whole_number
from .store import Store


class Described:
    """The properties of a `Table`."""

    _store: Store

    @property
    def rows(self) -> int:
        """Number of rows, of every column."""
        return self._store.superblock.rows

    @property
    def dim(self) -> int:
        """Width of `weight`."""
        return self.shape[1]

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of `weight`: (rows, dim)."""
        weight = self._store.superblock.columns[0]
        assert weight.dim is not None
        return self.rows, weight.dim

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of the rows of `weight`, as they are given; float32 of rows of 8 bits."""
        weight = self._store.superblock.columns[0]
        return np.dtype(np.float32) if weight.quantized else weight.numpy_dtype

    @property
    def quantized(self) -> bool:
        """Whether the rows are of 8 bits, and only read; see `quantize`."""
        return self._store.superblock.columns[0].quantized

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns, in the order in which they were added; not of checksums."""
        return tuple(c.name for c in self._store.superblock.columns if c.checks is None)

    @property
    def checksums(self) -> bool:
        """Whether there is a checksum of every row; see `create`."""
        return any(column.checks is not None for column in self._store.superblock.columns)

    @property
    def nbytes(self) -> int:
        """Bytes of the rows of all columns."""
        return self.rows * sum(column.row_bytes for column in self._store.superblock.columns)

    @property
    def layout(self) -> str:
        """Return "columns", or "records" if some columns lie side by side; see `create`."""
        return "columns" if self._store.superblock.records is None else "records"

    @property
    def record_columns(self) -> tuple[str, ...]:
        """The names of the columns in records; none with the layout "columns"."""
        records = self._store.superblock.records
        return () if records is None else tuple(column.name for column in records.columns)

    @property
    def record_bytes(self) -> int | None:
        """Bytes from one record to the next; None with the layout "columns"."""
        records = self._store.superblock.records
        return None if records is None else records.stride

    @property
    def dirty_budget(self) -> int | None:
        """Bytes of pages that may be changed and not on the disk; None: left to the system.

        See `open`; it can be set at any time.
        """
        return self._store.dirty_budget

    @dirty_budget.setter
    def dirty_budget(self, budget: int) -> None:
        self._store.limit_dirty(whole_number("dirty_budget", budget, 0, MAX_BYTES))

    @property
    def path(self) -> pathlib.Path | None:
        """The table's directory, absolute; None for a table in memory."""
        return None if self._store.path is None else pathlib.Path(self._store.path)

    @property
    def mode(self) -> str:
        """Return "r" or "r+"."""
        return self._store.mode

    @property
    def view(self) -> str:
        """Return "live" or "committed"; see `Table.open`."""
        return "live" if self._store.committed is None else "committed"

    @property
    def writer_deaths(self) -> int:
        """How many writers died in a step that was kept, as far as this one knows; see `open`."""
        return self._store.deaths

    @property
    def step(self) -> int:
        """The number given to the last commit; 0 if there was none."""
        return self._store.superblock.step

    @property
    def epoch(self) -> int:
        """The number of the table's last record: a commit takes one, a growth two."""
        return self._store.superblock.epoch

    @property
    def counters(self) -> dict[str, int]:
        """The numbers that `count` set, those since the last commit included; a copy."""
        return dict(self._store.superblock.counters)

    @property
    def metadata(self) -> dict[str, Any]:
        """What the last commit recorded, a copy."""
        return copy.deepcopy(self._store.superblock.metadata)

    @property
    def seed(self) -> int:
        """The seed of the initial rows."""
        return self._store.superblock.seed

    @property
    def uuid(self) -> UUID:
        """Which table this is, wherever its directory is moved."""
        return self._store.superblock.uuid

    @property
    def durability(self) -> str:
        """Return "power" or "process"; see `create`."""
        return self._store.superblock.durability

    @property
    def clean(self) -> bool:
        """See the class."""
        return self._store.clean

    @property
    def recovered(self) -> int:
        """How many rows were put back to the last commit when the table was opened."""
        return self._store.recovered

    @property
    def commits(self) -> int:
        """Number of commits made since the table was created."""
        return self._store.superblock.commits

    def initial(self, name: str = "weight") -> str:
        """Return how the rows of a column started, as `Table.create` takes it; KeyError if none."""
        column = self._store.superblock.column(name)
        if column is None:
            raise KeyError(f"no column {name!r}; the table has: {', '.join(self.columns)}")
        return str(column.init)
