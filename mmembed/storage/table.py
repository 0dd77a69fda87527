"""`Table`: the one holder of rows, the same whether they are in files or in memory.

Reading is in `reading`. Must not know files, gradients or optimizers. All rows change through
`writing`.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import replace
from types import TracebackType
from typing import Any
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..errors import CorruptTableError
from ..ids import bad_id_message
from ..narrow import as_dtype, wide
from . import process, seals
from .access import check_array, check_rows, settle
from .backups import Copyable
from .checks import sums_column
from .column import (
    MAX_BYTES,
    Column,
    check_name,
    column_seed,
    dtype_name,
    new_column,
    whole_number,
)
from .directory import DirectoryStore
from .format import Superblock, as_json
from .initial import Initial
from .quantized import quantized_store
from .records import arranged
from .shared_store import SharedStore
from .sharing import POLICIES
from .store import (
    Fill,
    FloatArray,
    MemoryStore,
    Progress,
    RowArray,
    Store,
    check_not_quantized,
)

LAZY_FROM = 64 << 20  # bytes of `weight` from which on a table is lazy by default


class Table(Copyable):
    """Rows by id, in one or more columns, in a directory or in memory.

    Every table has the column `weight`, (rows, dim). Others, added by `add_column`, have as many
    rows: the state of an optimizer, a second set of vectors. Make a table with `create`, `open` or
    `from_array`.

    Attributes
    ----------
    mode : "r" (reading only) or "r+".
    on_disk : whether the rows are in files.
    clean : whether the table had been closed when it was opened. False means that a writer has it
        open, or ended without `close`. Whoever opens it for writing then finds the rows of the last
        commit, for others were put back; a reader may see newer ones.

    What changed since the last commit is undone by `rollback`, by `close(commit=False)`, and after
    a crash by whoever opens the table for writing next: rows, columns and counters alike, but not
    a growth.

    Many threads may read; writing, `add_column`, `resize`, `commit` and `close` are for one thread
    at a time. Readers in other processes see rows as they are being written, unless they are opened
    with `view="committed"`; and the number of rows, columns, `step` and `metadata` as of their own
    opening.

    >>> table = Table.create(None, 4, 2, init="zeros")
    >>> table.write([1, 3], [[1, 2], [3, 4]])
    >>> table[[3, 1, 0]]
    array([[3., 4.],
           [1., 2.],
           [0., 0.]], dtype=float32)
    """

    def __init__(self, store: Store) -> None:
        """Put a table on a store; `create`, `open` and `from_array` do this."""
        self._store = store
        self.on_disk = store.path is not None
        self._closed = False
        self._meter = process.Meter() if self.on_disk else None
        self._device: float | None = None  # bytes a second, once it was measured
        self._blocks = 0  # of `writing` that have not ended

    @classmethod
    def create(
        cls,
        path: str | os.PathLike[str] | None,
        rows: int,
        dim: int,
        dtype: npt.DTypeLike = "float32",
        *,
        init: str | Initial = "normal",
        seed: int = 0,
        durability: str = "power",
        fill: Fill | None = None,
        columns: Mapping[str, Mapping[str, Any]] | None = None,
        layout: str = "columns",
        stride: int | str | None = None,
        dirty_budget: int | None = None,
        allow_network_fs: bool = False,
        lazy: bool | None = None,
        checksums: bool = False,
    ) -> Table:
        """Create a table and open it with mode "r+".

        Parameters
        ----------
        path : the directory to make, for this user alone; None for a table in memory.
        rows, dim : shape of `weight`; either may be 0.
        dtype : float32, float64, float16 or bfloat16 (which needs the package ml_dtypes).
        init : "zeros", "ones", "constant(0.1)", "uniform(-0.005, 0.005)", "normal" or
            "normal(0, 0.02)" (mean, deviation). A row's values depend on the seed and its id alone.
        seed : 0..2**64-1.
        durability : "power": what a commit recorded is on the disk when it returns. "process": it
            survives the death of the process; that of the machine is noticed, and ends the table.
        fill : called as fill(first, values) for one block of rows of `weight` after the other, with
            the initial values of the rows from `first` on, which it may change. The table appears
            when all are written.
        columns : further columns that the table has from the start: {name: what `add_column` takes
            behind the name}. `Adagrad.columns_for()` is the state of that optimizer, and so on. The
            dtype of `weight.NAME` is by default no narrower than float32.
        layout : "columns": each column has a file of its own, which suits readers of vectors.
            "records": `weight` and `columns` lie side by side in one file, `records.npy`, an array
            of structs, so that an update of a row finds its state in the same page; columns added
            later have files of their own. In memory there are no records.
        stride : bytes from one record to the next; by default as many as it takes. "page": so many
            that no record which fits in a page lies across two, which takes up to twice the disk.
        lazy : on disk, rows get a place in the file when their block is first written; until then
            their values are computed whenever they are read, and are the same. Making such a table
            takes no time and no room, and columns added to it are lazy too. By default tables from
            LAZY_FROM bytes on are, unless there is a `fill`. See `materialize`.
        checksums : on disk, keep a checksum of every row in every column, those that are added
            later too; `mmembed verify --deep` then tells which rows have become others by
            themselves. It takes 4 bytes for each row and column, and time in every update.
        dirty_budget, allow_network_fs : see `open`.

        Raises
        ------
        TableExistsError       there is something at `path`.
        FileNotFoundError      the parent of `path` does not exist.
        TypeError, ValueError  an argument is wrong; nothing has been made.
        OSError                the disk is full, for instance; nothing is left behind.
        """
        rows = whole_number("rows", rows, 0, MAX_BYTES)
        seed = whole_number("seed", seed, 0, 2**64 - 1)
        weight = Column(
            "weight",
            dtype_name(dtype),
            whole_number("dim", dim, 0, MAX_BYTES),
            init if isinstance(init, Initial) else Initial.parse(init),
            column_seed(seed, "weight"),
        )
        if dirty_budget is not None:
            whole_number("dirty_budget", dirty_budget, 0, MAX_BYTES)
        others = tuple(
            _beside(weight, seed, name, given) for name, given in (columns or {}).items()
        )
        if _is_lazy(lazy, path, rows * weight.row_bytes, fill, layout):
            weight = replace(weight, lazy=True)
            others = tuple(replace(column, lazy=column.row_bytes > 0) for column in others)
        if _is_checked(checksums, path, fill):
            others += tuple(sums_column(column, seed) for column in (weight, *others))
        records = arranged((weight, *others), layout, stride)
        superblock = Superblock.first(rows, weight, seed, durability, others, records)
        if path is None:
            return cls(MemoryStore.create(superblock, fill))
        if not os.fspath(path):
            raise ValueError("the path of a table is empty; None makes one in memory")
        where = os.path.abspath(os.fsdecode(path))
        store = DirectoryStore.create(where, superblock, fill, allow_network_fs=allow_network_fs)
        return cls(store)._with_budget(dirty_budget)

    @classmethod
    def open(
        cls,
        path: str | os.PathLike[str],
        mode: str = "r",
        *,
        view: str = "live",
        shared: bool = False,
        on_writer_death: str = "rollback",
        dirty_budget: int | None = None,
        allow_foreign: bool = False,
        allow_network_fs: bool = False,
    ) -> Table:
        """Open the table at `path`; nothing that it contains is ever executed.

        Parameters
        ----------
        path : the table's directory; the name may be a link to it.
        mode : "r" needs no right to write and takes no lock. "r+" is for one handle at a time.
        view : what `gather` shows while a writer goes on. "live": rows as they are in the files, by
            a commit or not, half written if one is unlucky. "committed", for mode "r": the rows of
            one commit, the last one, in each `gather`; `pin` keeps one for several. It takes no
            lock. Whole arrays (`column`) are not handed out, so it does not serve modules.
        shared : with mode "r+", write beside other processes that say so too (Hogwild): they may
            change a row at once, and what becomes of it then is anybody's guess. `commit` is of
            what all have done, and waits for steps under way. No `add_column`, no `resize`.
        on_writer_death : for shared tables, and the same for all: what the next commit does about a
            writer that died in a `writing` block. "rollback": go back to the last commit; all
            writers are told by WriterDiedError, and open the table again. "accept": commit its
            half of a step; `writer_deaths` counts.
        dirty_budget : bytes of pages that may have been changed and not be on the disk, for mode
            "r+"; a change waits for a thread that writes pages back. By default, and with 0, the
            system alone decides when they go there. A change of more rows at once than fit raises
            ValueError with the number that would do; one of all rows (`writing()`) does not wait.
            Not for shared tables.
        allow_foreign : accept files of other users (than this one and root) and files that group or
            others may write to. Whoever may write to a mapped file can end this process.
        allow_network_fs : accept NFS, SMB, 9p, FUSE and their like. Locks and maps are not kept
            together between machines: then one machine alone may use the table.

        Raises
        ------
        TableNotFoundError   there is nothing at `path`.
        CorruptTableError    it is not a table, or its files are damaged or do not belong together.
        TableLockedError     mode "r+", and another handle writes to the table.
        UntrustedTableError  others may write to it; see `allow_foreign`.
        NetworkFileSystemError  it is on a file system over a network; see `allow_network_fs`.
        UncleanShutdownError  its durability is "process", and the machine stopped while it was
            open for writing.
        ReadOnlyTableError   mode "r+", and its rows are of 8 bits, or it is sealed.
        ValueError           the mode is neither "r" nor "r+"; the view is neither "live" nor, with
            mode "r", "committed"; `shared` without "r+", or with another `on_writer_death` than the
            other writers'.
        OSError              the system refuses: PermissionError, for instance.
        """
        if mode not in ("r", "r+"):
            raise ValueError(f"mode must be 'r' or 'r+', got {mode!r}")
        if view not in ("live", "committed") or (view == "committed" and mode != "r"):
            raise ValueError(
                f"view must be 'live', or 'committed' with mode 'r'; got {view!r} with {mode!r}"
            )
        where = os.path.abspath(os.fsdecode(path))
        allowed = {"allow_foreign": allow_foreign, "allow_network_fs": allow_network_fs}
        if dirty_budget is not None:
            whole_number("dirty_budget", dirty_budget, 0, MAX_BYTES)
        if shared:
            if mode != "r+" or on_writer_death not in POLICIES:
                raise ValueError(
                    "shared=True takes mode 'r+' and on_writer_death='rollback' or 'accept'; got "
                    f"{mode!r} and {on_writer_death!r}"
                )
            if dirty_budget:
                raise ValueError("a table that several processes write to has no dirty_budget")
            return cls(SharedStore.share(where, on_writer_death, **allowed))
        return cls(DirectoryStore.open(where, mode, view, **allowed))._with_budget(dirty_budget)

    def _with_budget(self, dirty_budget: int | None) -> Table:
        if dirty_budget is not None:
            self.dirty_budget = dirty_budget
        return self

    @classmethod
    def from_array(cls, array: FloatArray) -> Table:
        """Return a table in memory whose `weight` is `array` itself, not a copy.

        Parameters
        ----------
        array : (rows, dim) of a dtype of tables and this machine's byte order, its rows contiguous;
            any row stride; the table is read-only if the array is.

        Raises
        ------
        TypeError   it is not an array of such numbers.
        ValueError  it is not 2-D, its rows are not contiguous, or it is not aligned.
        """
        if not isinstance(array, np.ndarray):
            raise TypeError(f"from_array takes a NumPy array, got {type(array).__name__}")
        dtype = dtype_name(array.dtype)
        check_array(array)
        array = np.asarray(array).view()  # of a subclass, the ndarray underneath
        rows, dim = array.shape
        weight = Column("weight", dtype, dim, Initial("constant", 0.0), 0)
        return cls(MemoryStore(Superblock.first(rows, weight, 0, "power"), {"weight": array}))

    @contextlib.contextmanager
    def writing(self, rows: RowArray | None = None) -> Iterator[Mapping[str, FloatArray]]:
        """Hand out the writable arrays: the one door through which rows change.

        Parameters
        ----------
        rows : (n,) int64, ascending and distinct: the rows that the block may change, in any
            column. None: all rows.

        Yields
        ------
        The whole arrays by column name; they are to be written in the block only. A block that
        raises may leave rows half written, until `rollback` or the next opening.

        On disk, rows that change for the first time since the last commit are copied to the undo
        journal first; with None, that is all of them.

        Raises
        ------
        IndexError          a row is outside 0..rows-1.
        TypeError           `rows` is not a 1-D array of int64.
        ValueError          they are more than `dirty_budget` holds.
        ReadOnlyTableError  the mode is "r".
        ClosedTableError    the table is closed, or was opened by another process.
        TableFailedError    an earlier write to the disk failed.
        OSError             the journal has no room, and nothing has changed: `commit`, which needs
            none, makes some. Or the disk failed.
        """
        store = self._open_store()
        if rows is not None:
            check_rows(rows, self.rows)
        with store.writing(rows) as columns:
            self._blocks += 1
            try:
                yield columns
            finally:
                self._blocks -= 1

    def check_writable(self) -> None:
        """Raise what `writing` would raise."""
        self._open_store().check_writable()

    def will_write(self, rows: RowArray, *, ordered: bool = True) -> None:
        """Say which rows `writing` will be asked for, so that it need not wait for the disk.

        What they are now goes to the undo journal in another thread. Rows that are not changed
        after all cost that copy and nothing else. A table that cannot be written ignores it.

        Parameters
        ----------
        rows : see `writing`; not to be changed by the caller any more.
        ordered : False if they come in any order, perhaps repeated.

        Raises
        ------
        IndexError, TypeError, ClosedTableError  see `writing`.
        """
        store = self._open_store()
        if ordered or rows.ndim != 1 or rows.dtype != np.int64:
            check_rows(rows, self.rows)
        elif (bad := kernels.first_bad_id(rows, self.rows)) >= 0:
            raise IndexError(bad_id_message(rows, bad, self.rows))
        store.will_write(rows)

    def write(self, ids: npt.ArrayLike, values: npt.ArrayLike, column: str = "weight") -> None:
        """Set rows; where an id is repeated, its last values stay.

        Parameters
        ----------
        ids : integers, any shape.
        values : numbers that broadcast to (*ids.shape, dim), or ids.shape for a scalar column.

        Raises
        ------
        IndexError, TypeError  an id is outside the table, or no integer; see `gather`.
        TypeError              values are not real numbers.
        ValueError             values do not broadcast.
        KeyError, ReadOnlyTableError, ClosedTableError, TableFailedError
            see `column` and `writing`.
        """
        check_not_quantized(self._open_store().superblock, repr(self))
        rows, last = settle(self._array(column), ids, values)
        with self.writing(rows) as columns:
            columns[column][rows] = last

    def add_column(
        self,
        name: str,
        dim: int | None = None,
        *,
        scalar: bool = False,
        dtype: npt.DTypeLike | None = None,
        init: str | Initial = "zeros",
    ) -> None:
        """Add a column; the next commit records it. Nothing happens if there is one just like it.

        Parameters
        ----------
        name : lower-case words joined by dots; `weight.adagrad.sum` for the state of `weight`.
        dim : its width; the table's by default.
        scalar : one number per row instead: the array is (rows,).
        dtype : see `create`; the table's by default.
        init : see `create`; its seed is that of the table mixed with the name.

        Raises
        ------
        ValueError, TypeError  the name or another argument is wrong, or there is a column of that
            name which differs.
        OSError                the disk is full, for instance; the table is as it was.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        store = self._open_store()
        weight = store.superblock.columns[0]
        wanted = self.dtype if dtype is None else dtype
        column = new_column(
            name, weight, self.seed, dim=dim, scalar=scalar, dtype=wanted, init=init
        )
        present = store.superblock.column(name)
        if present is None:
            lazy = store.superblock.columns[0].lazy and column.row_bytes > 0
            column = replace(column, lazy=lazy)
            checked = self.checksums
            store.add(column, *([sums_column(column, self.seed)] if checked else []))
        elif replace(present, lazy=False) != column:
            raise ValueError(f"the table has another column {name!r}: {present}, asked: {column}")

    def resize(self, rows: int) -> None:
        """Grow all columns to `rows` rows; the present rows and the counters stay as they are.

        The rows from the present number on start as the column's initial values say: they are what
        they would be in a table created with that many rows (without a `fill`). On disk the number
        of rows is recorded when this returns, apart from commits, and no row is copied; a crash at
        any moment leaves the old number or the new one. In memory the arrays are others then: a
        table around a caller's array goes on in memory of its own, with zeros in its new rows.

        Arrays handed out before keep the old rows. Readers see the new rows when they open the
        table again.

        Parameters
        ----------
        rows : at least the present number; if it is that number, nothing happens.

        Raises
        ------
        TypeError, ValueError  `rows` is no integer, fewer than there are, or too many for a file;
            nothing happened.
        OSError             the disk is full, for instance: the table has its old rows and goes on;
            if it was `super` that could not be written, the handle takes no more writes.
        MemoryError         there is no room in memory; the table is as it was.
        RuntimeError        a `writing` block has not ended.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        store = self._open_store()
        rows = whole_number("rows", rows, 0, MAX_BYTES)
        if self._blocks:
            raise RuntimeError("resize in a `writing` block, whose arrays have the old rows")
        last = store.superblock
        if rows < last.rows:
            raise ValueError(
                f"a table of {last.rows} rows cannot be resized to {rows}: tables do not shrink; "
                "create another one and copy the rows"
            )
        if rows > last.rows:
            store.resize(replace(last, rows=rows, other_rows=rows, epoch=last.epoch + 2))

    def count(self, name: str, value: int) -> None:
        """Set a counter, such as the steps of an optimizer; the next commit records it.

        Parameters
        ----------
        name : lower-case words joined by dots.
        value : 0..2**64-1.

        Raises
        ------
        TypeError, ValueError  the name or the value is wrong, or there are too many counters.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        check_name(name)
        value = whole_number(f"counter {name}", value, 0, 2**64 - 1)
        self._open_store().count({**self.counters, name: value})

    def commit(self, step: int | None = None, metadata: dict[str, Any] | None = None) -> None:
        """Make what the table holds its last commit: all columns and counters, at once.

        Parameters
        ----------
        step : 0..2**64-1, recorded with the commit; by default one more than the last.
        metadata : a small dict of JSON values, recorded too; by default what there is stays. It
            comes back as JSON gives it: tuples as lists, keys as strings.

        Raises
        ------
        TypeError, ValueError  the step or the metadata is wrong or too large; nothing happened.
        OSError                the disk failed; the handle takes no more writes. Close and reopen.
        RuntimeError           a `writing` block has not ended.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        store = self._open_store()
        if self._blocks:
            raise RuntimeError("commit in a `writing` block, whose rows may be half written")
        with store.alone():
            last = store.superblock
            step = last.step + 1 if step is None else step
            store.commit(
                replace(
                    last,
                    epoch=last.epoch + 1,
                    commits=last.commits + 1,
                    step=whole_number("step", step, 0, 2**64 - 1),
                    metadata=last.metadata if metadata is None else as_json(metadata),
                )
            )

    def rollback(self) -> None:
        """Undo what no commit recorded: rows, columns that were added, and counters.

        Arrays handed out before show the rows that were put back. Growths stay.

        Raises
        ------
        ValueError    the table is in memory, where nothing is kept to go back to.
        OSError       the disk failed; the handle takes no more writes. Close and reopen.
        RuntimeError  a `writing` block has not ended.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        store = self._open_store()
        if self._blocks:
            raise RuntimeError("rollback in a `writing` block, whose rows would be half undone")
        store.rollback()

    def close(self, *, commit: bool = True) -> None:
        """Commit what was written since the last commit, and give files and lock back.

        With `commit=False`, what was written since the last commit is undone. Either way the table
        is `clean` when it is opened next, unless the disk fails. Closing again does nothing; in a
        forked child, closing only lets go.

        As a context manager, a table is closed with `commit` if the block ends well, without it if
        the block raises.
        """
        if self._closed:
            return
        if self._blocks:
            raise RuntimeError("close in a `writing` block, whose rows may be half written")
        try:
            if commit and self._store.pending:
                self.commit()
        finally:
            self._closed = True
            self._store.close()

    def __enter__(self) -> Table:
        """Return the table; see `close`."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the table; see `close`."""
        self.close(commit=kind is None)

    def cast(self, dtype: npt.DTypeLike) -> None:
        """Change the dtype of a table in memory; the arrays of its columns are new.

        Columns that have another dtype than the table keep it. What belongs to a column, such as an
        optimizer's state `weight.adagrad.sum`, has no less than float32.

        Raises
        ------
        TypeError   the dtype is not one of a table.
        ValueError  the table is on disk, where a column's dtype is that of its file.
        """
        self.check_cast(dtype)
        name = dtype_name(dtype)
        superblock = self._open_store().superblock
        check_not_quantized(superblock, repr(self))
        columns = tuple(self._cast_column(column, name) for column in superblock.columns)
        arrays = {c.name: self.column(c.name).astype(c.numpy_dtype) for c in columns}
        self._store = MemoryStore(replace(superblock, columns=columns), arrays)

    def _cast_column(self, column: Column, name: str) -> Column:
        own, new = self.dtype, as_dtype(name)
        if "." in column.name:
            own, new = wide(own), wide(new)
        return replace(column, dtype=new.name) if column.dtype == own.name else column

    def check_cast(self, dtype: npt.DTypeLike) -> None:
        """Raise what `cast` would raise."""
        name = dtype_name(dtype)
        if self.path is not None and self.dtype != name:
            raise ValueError(
                f"the table at {self.path} is {self.dtype} and stays so; create another of "
                f"{name} and copy the rows"
            )

    def materialize(self, progress: Progress | None = None) -> None:
        """Write all rows of lazy columns that were never written, with their initial values.

        Nothing that anyone reads changes. Afterwards the files have all rows, for `column` and for
        NumPy, and room on the disk for every change of them. It is no part of a commit: what was
        written stays, and a crash costs only what was not recorded. Rows that the table grows by
        later are lazy again.

        Parameters
        ----------
        progress : called as progress(bytes done, bytes in all) every 2 GiB or less, and at the end.

        Raises
        ------
        OSError       the disk has too little room, and nothing has been written; or it failed.
        RuntimeError  a `writing` block has not ended.
        ReadOnlyTableError, ClosedTableError, TableFailedError  see `writing`.
        """
        store = self._open_store()
        if self._blocks:
            raise RuntimeError("materialize in a `writing` block, whose rows may be half written")
        store.materialize(progress or (lambda done, total: None))

    # Copies

    def seal(self) -> None:
        """Close a table on disk for good: it is only read from then on, and its bytes are known.

        What is pending is committed first. The checksums of all blocks of rows go to a file of
        their own, against which `mmembed verify --deep` reads every byte; opening the table with
        mode "r+" raises ReadOnlyTableError until `mmembed unseal`.

        Raises
        ------
        ValueError  the table is in memory.
        Errors of `seals.seal`; the table is closed then, and not sealed.
        """
        path = self._open_store().path
        if path is None:
            raise ValueError("a table in memory has no files to seal")
        allowed = self._allowed()
        self.close()
        seals.seal(path, **allowed)

    def quantize(
        self, path: str | os.PathLike[str] | None = None, *, column: str = "weight"
    ) -> Table:
        """Return another table with the rows of a column in 8 bits, for reading.

        Each row becomes dim bytes with a scale and a bias in float32: dim + 8 bytes, torch's and
        FBGEMM's fused rowwise format, in which a number is byte * scale + bias. No number is off
        by more than half its row's scale (and the rounding of float32), which is the row's range
        divided by 255. The table is made block by block, and appears whole or not at all. `gather`
        gives float32.

        Parameters
        ----------
        path : the directory to make; None for a table in memory.
        column : of (rows, dim) floats; it becomes the other table's `weight`.

        Raises
        ------
        ValueError  a row holds a number that is not finite; the column is no rows of floats.
        Errors of `create`; nothing is left behind.
        """
        return Table(quantized_store(self, column, path))

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle a table on disk as its path, to be opened for reading; one in memory by value."""
        if self._store.path is not None:
            allowed = (self._store.allow_foreign, self._store.allow_network_fs)
            return _reopen, (self._store.path, self.uuid.hex, self.view, *allowed)
        arrays = {name: self.column(name) for name in self.columns}
        return _rebuild, (self._store.superblock, arrays)

    def __deepcopy__(self, memo: dict[int, Any]) -> Table:
        """Return a writable table in memory with copies of all columns and a uuid of its own."""
        arrays = {name: self.read(column=name) for name in self.columns}
        superblock = self._open_store().superblock
        known = [column for column in superblock.columns if column.checks is None]
        columns = tuple(replace(column, lazy=False) for column in known)
        return _rebuild(replace(superblock, uuid=uuid4(), columns=columns), arrays)


def _is_lazy(asked: bool | None, path: object, size: int, fill: Fill | None, layout: str) -> bool:
    """Return whether a new table is lazy; ValueError if it cannot be."""
    if asked and layout == "records":
        raise ValueError("records are not lazy: layout='records' takes lazy=False or None")
    if asked and fill is not None:
        raise ValueError("a table with a `fill` is not lazy: what fill does, rows must hold")
    if path is None or size == 0 or layout == "records":
        return False
    return asked if asked is not None else fill is None and size >= LAZY_FROM


def _is_checked(asked: bool, path: object, fill: Fill | None) -> bool:
    """Return whether a new table has checksums of its rows; ValueError if it cannot have."""
    if not isinstance(asked, bool):
        raise TypeError(f"checksums must be a bool, got {asked!r}")
    if asked and path is None:
        raise ValueError("checksums are of rows in files: a table in memory has none")
    if asked and fill is not None:
        raise ValueError(
            "a table with a `fill` has no checksums, which take rows for their initial values; "
            "create it without, and `write` the rows"
        )
    return asked


def _beside(weight: Column, seed: int, name: str, given: Mapping[str, Any]) -> Column:
    """Return a column that is made with the table."""
    own = weight.numpy_dtype
    try:
        return new_column(
            name, weight, seed, **{"dtype": wide(own) if "." in str(name) else own, **given}
        )
    except TypeError as error:
        raise TypeError(f"columns[{name!r}]: {error}") from None


def _reopen(
    path: str, table_uuid: str, view: str, allow_foreign: bool, allow_network_fs: bool
) -> Table:
    """Open a pickled table; raises CorruptTableError if another one has taken its place."""
    table = Table.open(
        path, view=view, allow_foreign=allow_foreign, allow_network_fs=allow_network_fs
    )
    if table.uuid.hex != table_uuid:
        found = table.uuid.hex
        table.close()
        raise CorruptTableError(f"{path} is table {found}, and table {table_uuid} was pickled")
    return table


def _rebuild(superblock: Superblock, arrays: dict[str, FloatArray]) -> Table:
    return Table(MemoryStore(superblock, arrays))
