"""A table's directory: creating, opening, committing, growing and closing it, in a safe order.

Must not know ids, gathers or gradients. No other module decides when a table's files change.

Rows change in place and there is no undo journal: after a crash the files hold the last commit with
later changes mixed in, and `clean` is False. A journal belongs where `writing` hands out arrays,
and its replay between the checks in `_attach` and the dirty mark in `open`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

from ..errors import ClosedTableError, CorruptTableError, ReadOnlyTableError, TableFailedError
from .column import Column
from .column_files import (
    Mapped,
    extend_column,
    map_column,
    open_column,
    settle_column,
    write_column,
)
from .files import Directory, File, boot_id, draft
from .format import (
    COPY_BYTES,
    MAGIC,
    SUPER_BYTES,
    Superblock,
    decode_super,
    encode_copy,
    slot_offset,
)
from .locks import WriterLock
from .pages import ColumnPages
from .store import Fill, FloatArray, RowArray, Store


def looks_like_table(path: str | os.PathLike[str]) -> bool:
    """Whether a table is at `path`, sound or damaged: its `super` has a table's magic."""
    try:
        with open(os.path.join(path, "super"), "rb") as file:
            data = file.read(SUPER_BYTES)
    except OSError:
        return False
    return any(data.startswith(MAGIC, slot_offset(epoch)) for epoch in (0, 1))


@final
class DirectoryStore(Store):
    """Columns that are maps of files.

    Parameters
    ----------
    directory : an open table; the store's from here on.
    mode : "r" or "r+".

    Raises
    ------
    CorruptTableError, TableLockedError, UntrustedTableError  see `Table.open`.
    """

    def __init__(self, directory: Directory, mode: str) -> None:
        """Lock, check and map the table; nothing is written but the lock's text."""
        self.mode = mode
        self.path = directory.path
        self.allow_foreign = directory.allow_foreign
        self._directory = directory
        self._super: File | None = None
        self._lock: WriterLock | None = None
        self._columns: dict[str, Mapped] = {}
        self._pid = os.getpid()
        self._pending = False
        self._failure: BaseException | None = None
        try:
            self._attach()
        except BaseException:
            self._release()
            raise
        self._start(self.superblock.clean)

    @classmethod
    def create(cls, path: str, superblock: Superblock, fill: Fill | None = None) -> DirectoryStore:
        """Write a table with one column, `weight`, at its initial values, and open it for writing.

        `fill` : see `Table.create`.

        Raises
        ------
        TableExistsError, FileNotFoundError  see `files.draft`.
        ValueError                           the superblock does not fit `super`.
        """
        _refuse_big_endian()
        superblock = replace(superblock, attempt=1, boot_id=boot_id(), clean=False)
        copy = encode_copy(superblock)
        store = None
        try:
            with draft(path) as directory:
                (weight,) = superblock.columns
                write_column(directory, superblock, weight, fill)
                directory.create_file("LOCK").close()
                with directory.create_file("super") as file:
                    file.reserve(SUPER_BYTES)
                    file.write(bytes(SUPER_BYTES), 0)
                    file.write(copy * 2, slot_offset(superblock.epoch))
                    file.sync()
                store = cls(directory, "r+")
        except BaseException:
            if store is not None:
                store._release()
            raise
        store.path = path
        store._start(clean=True)
        return store

    @classmethod
    def open(cls, path: str, mode: str, *, allow_foreign: bool) -> DirectoryStore:
        """Open the table at `path`; for writing, mark it not clean before anything can change.

        A growth that did not end is undone, or ended if the new number of rows was recorded.
        """
        _refuse_big_endian()
        store = cls(Directory.open(path, allow_foreign=allow_foreign), mode)
        if mode == "r+":
            last = store.superblock
            try:
                attempt = min(last.attempt + 1, 2**64 - 1)
                store.superblock = replace(last, attempt=attempt, boot_id=boot_id(), clean=False)
                store._rewrite(store.superblock)
                if last.growing:
                    with store._open_columns() as files:
                        store.superblock = store._settle(store.superblock, files)
            except BaseException:
                store._release()
                raise
        return store

    def _start(self, clean: bool) -> None:
        self.clean = clean
        # Rows that an earlier writer left uncommitted stay marked until somebody commits.
        self._ends_clean = clean
        # Columns of which the disk may not have everything.
        self._unsynced = set() if clean else set(self._columns)

    def _attach(self) -> None:
        """Lock, check everything, map everything; nothing is written but the lock's text."""
        writable = self.mode == "r+"
        if writable:
            file = self._directory.open_file("LOCK", writable=True)
            self._lock = WriterLock(file, self._directory.path)
            if not self._directory.holds("LOCK", file):
                raise CorruptTableError(f"{file.path} was replaced while it was being locked")
        self._super = self._directory.open_file("super", writable=writable)
        before = None
        while not self._columns:
            self.superblock = _read_super(self._super)
            try:
                self._columns = {
                    c.name: self._map(self.superblock, c) for c in self.superblock.columns
                }
            except CorruptTableError:
                # A writer may have grown the table since: then `super` says so by now.
                if self.superblock == before:
                    raise
                before = self.superblock
        if not writable:  # maps need no descriptors
            self._super.close()
            self._directory.close()

    def _map(self, superblock: Superblock, column: Column) -> Mapped:
        writable = self.mode == "r+"
        with open_column(self._directory, superblock, column, writable=writable) as file:
            return map_column(file, column, superblock.rows, writable=writable)

    @property
    def pending(self) -> bool:
        """See `Store.pending`."""
        return self._pending and self._failure is None and self._pid == os.getpid()

    def array(self, name: str) -> FloatArray:
        """See `Store.array`; a read-only view of the map."""
        return self._columns[name].read.view()

    def pages(self, name: str) -> ColumnPages | None:
        """See `Store.pages`."""
        return self._columns[name].pages

    @contextlib.contextmanager
    def writing(self, rows: RowArray | None) -> Iterator[Mapping[str, FloatArray]]:
        """See `Table.writing`."""
        self.check_writable()
        self._pending = True
        yield _Door(self._columns, self._unsynced, rows)

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        if self.mode == "r":
            raise ReadOnlyTableError(f"{self.path} is open with mode 'r'; open it with mode 'r+'")
        if self._pid != os.getpid():
            raise ClosedTableError(
                f"{self.path} was opened for writing by process {self._pid}, and this is process "
                f"{os.getpid()}, which may only read it"
            )
        if self._failure is not None:
            raise TableFailedError(
                f"writing to {self.path} failed earlier ({self._failure!r}), so what the disk has "
                "is unknown; close the table and open it again"
            )

    def add(self, column: Column) -> None:
        """See `Store.add`; a file of that name which no commit knows is replaced."""
        self.check_writable()
        before = self.superblock
        superblock = replace(before, columns=(*before.columns, column))
        _check_room(superblock)
        name = f"{column.name}.npy"
        self._directory.remove_file(name)
        try:
            write_column(self._directory, superblock, column)
            self._directory.sync()
            self._columns[column.name] = self._map(superblock, column)
            self.superblock = superblock
            self._pending = True
        except BaseException:
            self.superblock = before
            self._columns.pop(column.name, None)
            with contextlib.suppress(OSError):
                self._directory.remove_file(name)
            raise

    def resize(self, superblock: Superblock) -> None:
        """See `Store.resize`; docs/format.md says what each step is for."""
        self.check_writable()
        before = self.superblock
        assert self._super is not None
        recorded = _read_super(self._super)
        marked = replace(recorded, other_rows=superblock.rows)
        grown = replace(
            recorded, epoch=recorded.epoch + 1, rows=superblock.rows, other_rows=before.rows
        )
        with self._open_columns() as files:
            try:
                # Until the end, commits say that files may be longer: an undoing can fail too.
                self.superblock = replace(before, other_rows=superblock.rows)
                self._rewrite(marked)
                for column, file in files:
                    extend_column(file, column, before.rows, superblock.rows)
                columns = {c.name: map_column(f, c, grown.rows, writable=True) for c, f in files}
                with self._failing():  # which number of rows the disk has is open until the end
                    self._flush()  # what the maps that are given up know of failures is heard here
                    self._record(grown)
                    self._settle(grown, files)
                    self._columns = columns
                    self.superblock = superblock
            except BaseException:
                if self._failure is None and self.superblock is not superblock:
                    undone = self._settle(marked, files)
                    self.superblock = replace(before, epoch=undone.epoch)
                raise

    @contextlib.contextmanager
    def _open_columns(self) -> Iterator[list[tuple[Column, File]]]:
        superblock = self.superblock
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(open_column(self._directory, superblock, c, writable=True))
                for c in superblock.columns
            ]
            yield list(zip(superblock.columns, files, strict=True))

    def _settle(self, recorded: Superblock, files: list[tuple[Column, File]]) -> Superblock:
        """End a growth: all files as `recorded.rows` wants them, and a record that says so."""
        settled = replace(recorded, epoch=recorded.epoch + 1, other_rows=recorded.rows)
        with self._failing():
            for column, file in files:
                settle_column(file, column, recorded)
            self._record(settled)
        return settled

    def _record(self, superblock: Superblock) -> None:
        """Write the slot that the last record does not use, and sync it."""
        with self._failing() as file:
            file.write(encode_copy(superblock) * 2, slot_offset(superblock.epoch))
            file.sync()

    def count(self, counters: dict[str, int]) -> None:
        """See `Store.count`."""
        self.check_writable()
        superblock = replace(self.superblock, counters=counters)
        if counters.keys() != self.superblock.counters.keys():
            _check_room(superblock)
        self.superblock = superblock
        self._pending = True

    def commit(self, superblock: Superblock) -> None:
        """See `Store.commit`: rows first, then the slot that the last commit does not use."""
        self.check_writable()
        _check_room(superblock)
        copy = encode_copy(superblock)
        power = superblock.durability == "power"
        with self._failing() as file:
            if file.is_deleted():
                raise FileNotFoundError(
                    errno.ENOENT, "the table was deleted while it was open", self.path
                )
            if power:
                self._flush()
            file.write(copy * 2, slot_offset(superblock.epoch))
            if power:
                file.sync()
            self.superblock = superblock
            self._pending = False
            self._ends_clean = True

    def close(self) -> None:
        """See `Store.close`; marks the table clean if its rows are those of the last commit."""
        try:
            ours = self._super is not None and self._lock is not None and self._pid == os.getpid()
            sound = self._ends_clean and not self._pending and self._failure is None
            if ours and sound and self._super is not None and not self._super.is_deleted():
                with self._failing():
                    self._flush()
                self._rewrite(replace(self.superblock, clean=True))
        finally:
            self._release()

    def _rewrite(self, superblock: Superblock) -> None:
        """Replace the last commit's two copies in place, one of them whole at every moment."""
        copy = encode_copy(superblock)
        offset = slot_offset(superblock.epoch)
        with self._failing() as file:
            for at in (offset, offset + COPY_BYTES):
                file.write(copy, at)
                file.sync()

    def _flush(self) -> None:
        for name in sorted(self._unsynced):
            self._columns[name].memory.flush()
        self._unsynced.clear()

    @contextlib.contextmanager
    def _failing(self) -> Iterator[File]:
        """Give `super`; whatever ends the block early ends writing through this handle.

        Nothing is tried again: after a failed sync the kernel takes the pages for clean, and the
        next sync succeeds without them.
        """
        assert self._super is not None
        try:
            yield self._super
        except BaseException as error:
            self._failure = error
            raise

    def _release(self) -> None:
        self._pending = False
        self._columns = {}
        if self._super is not None:
            self._super.close()
            self._super = None
        self._directory.close()
        if self._lock is not None:
            self._lock.release()

    def __del__(self) -> None:
        """Let go, and warn if something is lost."""
        lost = self.pending
        self._release()
        if lost:
            warnings.warn(
                f"the table {self.path} was dropped with changes that no commit has recorded; "
                "call commit(), or close()",
                ResourceWarning,
                stacklevel=2,
                source=self,
            )


@final
class _Door(Mapping[str, FloatArray]):
    """The writable arrays of a store; remembers which ones were taken, and expects `rows` there."""

    def __init__(self, columns: dict[str, Mapped], taken: set[str], rows: RowArray | None) -> None:
        self._columns = columns
        self._taken = taken
        self._rows = rows

    def __getitem__(self, name: str) -> FloatArray:
        array, pages = self._columns[name].stored, self._columns[name].pages
        assert array is not None
        self._taken.add(name)
        if self._rows is not None and pages is not None:
            pages.expect(self._rows)
        return array.view()

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns)

    def __len__(self) -> int:
        return len(self._columns)


def _read_super(file: File) -> Superblock:
    # A writer may be at it: a copy caught half written is invalid, and another one counts.
    if file.size() != SUPER_BYTES:
        raise CorruptTableError(f"{file.path} has {file.size()} bytes, must have {SUPER_BYTES}")
    try:
        return decode_super(file.read(SUPER_BYTES, 0))
    except CorruptTableError as error:
        raise CorruptTableError(f"{file.path}: {error}") from None


def _check_room(superblock: Superblock) -> None:
    """Raise ValueError unless commits have room for this, whatever the counters count to."""
    most = dict.fromkeys(superblock.counters, 2**64 - 1)
    encode_copy(replace(superblock, counters=most))


def _refuse_big_endian() -> None:
    if sys.byteorder != "little":
        raise OSError(
            "tables on disk hold little-endian numbers, and this machine is big-endian; "
            "a table in memory (path None) works"
        )
