"""What readers do with a table: look rows up, ask for them beforehand, see what that costs.

Must not know how rows change.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..errors import ClosedTableError, UnwrittenRowsError
from ..ids import IdArray, as_ids, bad_id_message
from . import process
from .access import take
from .committed import Commit
from .description import Described
from .pages import ColumnPages, read_later
from .probe import largest_file, random_reads
from .quantized import take_quantized
from .store import FloatArray, Store
from .unwritten import fill_in

READ_BYTES = 4 << 20  # read at a time of a column with rows that are not written


class Readable(Described):
    """A table as readers have it; see `Table`, which is the class of every table."""

    on_disk: bool
    _closed: bool
    _meter: process.Meter | None
    _device: float | None

    @property
    def closed(self) -> bool:
        """Whether `close` was called."""
        return self._closed

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.rows

    def __repr__(self) -> str:
        """Return where the table is and what it has."""
        where = "in memory" if self.path is None else repr(str(self.path))
        state = "closed" if self._closed else f"mode={self.mode!r}"
        return (
            f"<Table {where}: {self.rows} rows of {self.dim} {self.dtype}, {state}, "
            f"step={self.step}, columns={list(self.columns)}>"
        )

    # Reading

    def column(self, name: str = "weight") -> FloatArray:
        """Return the whole array of a column: (rows, dim), or (rows,) for a scalar column.

        On disk it is a read-only view of the file, which follows later writes and stays readable
        after `close`. In memory it is the array itself. Of rows of 8 bits it is their bytes,
        (rows, dim + 8) uint8.

        Raises
        ------
        KeyError            the table has no such column.
        UnwrittenRowsError  the column is lazy, and has rows that are not in the file yet; `read`,
            `gather` and slices give those too.
        ValueError          the view is "committed".
        ClosedTableError    the table is closed.
        """
        array = self._live_array(name)
        if (unwritten := self._open_store().unwritten(name)) is not None:
            raise UnwrittenRowsError(
                f"column {name!r} of {self!r} has rows that were never written, and so are not in "
                f"its file (their values: {unwritten.column.init}). Read rows by gather(ids), by a "
                "slice, or all by read(); or write them all: materialize()"
            )
        return array

    def _live_array(self, name: str) -> FloatArray:
        """Return what `_array` does; ValueError if the view is "committed"."""
        if self._open_store().committed is not None:
            raise ValueError(
                "the array of a column shows rows that no commit has; with view='committed' take "
                "copies of rows: table.gather(ids), or table[:]"
            )
        return self._array(name)

    def _array(self, name: str) -> FloatArray:
        """Return the whole array of a column; rows that are not written have no meaning in it."""
        store = self._open_store()
        try:
            return store.array(name)
        except KeyError:
            columns = ", ".join(self.columns)
            raise KeyError(f"no column {name!r}; the table has: {columns}") from None

    def read(self, start: int = 0, stop: int | None = None, column: str = "weight") -> FloatArray:
        """Return copies of the rows start..stop-1 of a column, by default all, as a fresh array.

        Of rows of 8 bits it is their bytes. Errors are those of `gather`.
        """
        array = self._array(column)
        first, last, _ = slice(start, stop).indices(len(array))
        if self._open_store().committed is not None and not self.quantized:
            return self.gather(np.arange(first, last), column=column)
        if (unwritten := self._open_store().unwritten(column)) is None:
            return array[first:last].copy()
        out = np.empty((max(0, last - first), *array.shape[1:]), array.dtype)
        most = max(1, READ_BYTES // max(1, unwritten.column.row_bytes))
        for begin in range(first, last, most):
            ids = np.arange(begin, min(begin + most, last))
            places = unwritten.of(ids)
            fill_in(array, unwritten, ids, places, out[begin - first : begin - first + ids.size])
        return out

    def shape_of(self, name: str) -> tuple[int, ...]:
        """Return the shape of a column's array; raises what `column` raises of names."""
        return self._array(name).shape

    def dtype_of(self, name: str) -> np.dtype[Any]:
        """Return the dtype of a column's array; raises what `column` raises of names."""
        return self._array(name).dtype

    def shares_memory(self, array: npt.NDArray[Any]) -> bool:
        """Return whether an array may lie in a column of this table."""
        return any(np.may_share_memory(array, self._array(name)) for name in self.columns)

    def located(
        self, ids: IdArray, column: str = "weight"
    ) -> tuple[FloatArray, npt.NDArray[np.int64] | None]:
        """Return the whole array of a column, and the places of ids that it does not have.

        For kernels that read rows where they are. Rows of a lazy column that nobody has written
        have no meaning in the array; `gather` gives them.

        Parameters
        ----------
        ids : (n,) contiguous int32 or int64; those that are no rows are passed over.

        Returns
        -------
        The array, which is read-only on disk, and None if it has all these rows.

        Raises what `column` raises of names, and ClosedTableError.
        """
        array = self._live_array(column)
        if (unwritten := self._open_store().unwritten(column)) is None:
            return array, None
        places = unwritten.of(ids)
        return array, places if places.size else None

    def prefetch(self, ids: npt.ArrayLike, columns: Iterable[str] | None = None) -> None:
        """Start to read rows of a table on disk, on another thread, and return at once.

        A `gather` or a lookup of the rows then finds them in memory, or on their way. Lookups plan
        their own reading; this starts it earlier. Of a table in memory there is nothing to read.

        Parameters
        ----------
        ids : integers, any shape.
        columns : names; all columns by default, so that an update finds its state.

        Raises
        ------
        IndexError, TypeError, KeyError, ClosedTableError  see `gather`.
        """
        where = as_ids(ids)
        flat = np.ascontiguousarray(where).reshape(-1)
        if (bad := kernels.first_bad_id(flat, self.rows)) >= 0:
            raise IndexError(bad_id_message(where, bad, self.rows))
        names = self.columns if columns is None else tuple(columns)
        read_later([(self.column_pages(name), flat) for name in names]).keep()

    def column_pages(self, name: str = "weight") -> ColumnPages | None:
        """Return what asks for rows of a column before they are read; None if nothing must.

        Raises what `column` raises.
        """
        store = self._open_store()
        try:
            return store.pages(name)
        except KeyError:
            self._array(name)  # raises what says which there are
            raise

    def stats(self, *, probe: float = 0.0) -> dict[str, Any]:
        """Return what happens between this table's files and memory, as numbers by name.

        Parameters
        ----------
        probe : seconds for which the disk's random reads are measured, once in the life of this
            handle, afterwards its numbers are told from memory; 0: not at all.

        Returns
        -------
        columns : by name, `bytes` of the rows; on disk also:
            resident : share of the pages that are in memory, or None if the system does not tell.
            resting : whether lookups find the pages in memory, and have stopped asking for them.
            ids : with which lookups and updates came, since the table was opened.
            pages asked, pages asked ahead, calls : what the system was asked to read, how much of
                it on the thread that reads ahead, and in how many calls.
            distinct rows, distinct pages : how many different ones they met while the column was
                watched: exact up to 2048, then an estimate, its standard error 2 %. A resting
                column counts none: its pages are in memory.
            rows changed : with which updates came.
            seconds waited : spent in lookups and updates on asking.
            seconds until read : from the asking to having the rows, copied or updated, in lookups
                and updates of a watched column: how long they stalled, at the most.
            dirty bytes : changed through this map and not yet on the disk; None if unknown.
        process : this process's `major faults` (pages that a thread waited for alone), `bytes read`
            and `bytes written`, since it began; the last two None if unknown.
        per second : on disk: `seconds` since `stats` was called last (or the table opened), and the
            process's `bytes read` and `bytes written` a second in them.
        device : with `probe`, and on disk: `bytes read at random` a second, many pages at a time,
            and which `share` of that the process has read in those seconds.
        read amplification : bytes read per byte of the rows that lookups and updates came with, in
            this process; None before the first.
        write amplification : bytes written per byte of the rows that updates came with.

        The counts of ids of a resting column run behind by a few thousand. Columns in records are
        read together, and say the same.
        """
        columns: dict[str, dict[str, Any]] = {}
        useful = changed = 0
        met: set[ColumnPages] = set()  # columns in records have theirs in common
        for column in self._open_store().superblock.columns:
            columns[column.name] = {"bytes": self.rows * column.row_bytes}
            if (pages := self.column_pages(column.name)) is not None:
                columns[column.name] |= pages.statistics()
                useful += pages.looked_up * column.row_bytes
                changed += 0 if pages in met else pages.changed_bytes
                met.add(pages)
        own = process.counters()
        said: dict[str, Any] = {
            "columns": columns,
            "process": own,
            "read amplification": _share(own["bytes read"], useful),
            "write amplification": _share(own["bytes written"], changed),
        }
        if self._meter is None:
            return said
        said["per second"] = rates = self._meter.rates()
        if probe and self.path is not None and self._device is None:
            self._device = random_reads(largest_file(self.path), seconds=probe).bytes
        if self._device is not None:
            share = _share(rates["bytes read"], self._device)
            said["device"] = {"bytes read at random": self._device, "share": share}
        return said

    def gather(
        self, ids: npt.ArrayLike, out: FloatArray | None = None, column: str = "weight"
    ) -> FloatArray:
        """Return copies of rows.

        Parameters
        ----------
        ids : integers, any shape; an array of int32 or int64 is taken as it is.
        out : (*ids.shape, dim) of the column's dtype, C-contiguous, apart from the table; written.
        column : the column; a scalar column gives shape ids.shape.

        Returns
        -------
        `out`, or a fresh array like it.

        Raises
        ------
        IndexError        an id is outside 0..rows-1; names the first one and where it stands.
        TypeError         ids are not integers.
        ValueError        `out` does not fit.
        KeyError, ClosedTableError  see `column`.
        CommitGoneError   the view is "committed": see `pin`; or commits follow each other faster
            than the rows are copied.
        """
        where = as_ids(ids)
        pages = self.column_pages(column) if self.on_disk else None
        if pages is not None and pages.expect(np.ascontiguousarray(where).reshape(-1)):
            rows = self._gathered(where, out, column)
            pages.have()
            return rows
        return self._gathered(where, out, column)

    def _gathered(self, where: IdArray, out: FloatArray | None, column: str) -> FloatArray:
        if self.quantized and column == "weight":
            rows: Any = self._array("weight")
            return take_quantized(rows, self.dim, where, out)
        store, array = self._open_store(), self._array(column)
        if store.committed is None:
            return take(array, where, out, store.unwritten(column))
        flat = np.ascontiguousarray(where, np.int64).reshape(-1)
        return store.committed.gather(
            column, flat, lambda: take(array, where, out, store.unwritten(column))
        )

    @contextlib.contextmanager
    def pin(self) -> Iterator[Commit]:
        """Have all `gather`s of the block show one commit: the last one as the block begins.

        For a table opened with `view="committed"`. The writer waits with its next commit until the
        block has ended, one second at most: then it goes on, and the next `gather` in the block
        raises. All threads that use this handle are in the block.

        Yields
        ------
        What the commit recorded: number, step, counters, metadata.

        Raises
        ------
        CommitGoneError  (from `gather`) the writer has made another commit.
        ValueError       the view is "live".
        RuntimeError     the handle is pinned already.
        """
        view = self._open_store().committed
        if view is None:
            raise ValueError(
                "pin is for a table opened with view='committed'; a live view follows every write"
            )
        with view.pin() as commit:
            yield commit

    def __getitem__(self, ids: npt.ArrayLike | slice) -> FloatArray:
        """Return copies of rows of `weight`: of one id, of an array of ids, or of a slice.

        Unlike a slice, an id never counts from the end: -1 raises IndexError.
        """
        if isinstance(ids, slice):
            if self.quantized or self._open_store().committed is not None:
                return self.gather(np.arange(*ids.indices(self.rows)))
            start, stop, step = ids.indices(self.rows)
            if step == 1:
                return self.read(start, stop)
            if self._open_store().unwritten("weight") is None:
                return self.column()[ids].copy()
            return self.gather(np.arange(start, stop, step))
        if isinstance(ids, tuple):
            raise TypeError(f"a table takes one id, an array of ids, or a slice; got {ids!r}")
        return self.gather(ids)

    def __array__(self, dtype: npt.DTypeLike | None = None, copy: bool | None = None) -> FloatArray:
        """Return `weight` as `column` does, or a copy of it if that is asked for.

        Of a lazy column that has rows which are not written it is a copy in any case.
        """
        if self.quantized:
            if copy is False:
                raise ValueError("rows of 8 bits cannot be given as floats without a copy")
            return np.asarray(self[:], dtype)
        if self._open_store().committed is not None:
            if copy is False:
                raise ValueError("rows of one commit cannot be given without a copy")
            return np.asarray(self[:], dtype)
        if copy is not False and self._open_store().unwritten("weight") is not None:
            return np.asarray(self.read(), dtype)
        return np.array(self.column(), dtype=dtype, copy=copy)

    # Writing

    def _open_store(self) -> Store:
        if self._closed:
            raise ClosedTableError(f"{self!r} cannot be used any more; open it again")
        return self._store


def _share(part: float | None, whole: float) -> float | None:
    return None if part is None or not whole else part / whole
