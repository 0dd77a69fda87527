"""A table's directory: creating, opening, committing, growing and closing it, in a safe order.

Must not know ids, gathers or gradients. No other module decides when a table's files change.

Two laws, and everything here serves them. No byte of a row changes before the journal has what the
row was at the last commit; and the journal is not begun anew before a commit is recorded, or every
row is put back, durably.
"""

from __future__ import annotations

import contextlib
import errno
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import final

import numpy as np

from ..errors import (
    ClosedTableError,
    ReadOnlyTableError,
    TableFailedError,
)
from . import superfile
from .cadence import Cadence
from .changes import Changes, undone_rows
from .changes_format import History, Name
from .checks import set_sums
from .column import CHECKS, Column
from .column_files import (
    Mapped,
    by_name,
    extend_column,
    map_column,
    remove_column,
    settle_column,
    write_column,
)
from .committed import CommittedView
from .files import Directory, File, boot_id, draft
from .format import MAGIC, SUPER_BYTES, Superblock, encode_copy, slot_offset
from .health import Health
from .journal import Journal
from .journal_format import Layout
from .lazy import LazyColumn
from .opened import Opened
from .pages import ColumnPages
from .records import Filed
from .recovery import examine, roll_back
from .store import Fill, FloatArray, Progress, RowArray, Store, check_not_quantized
from .superfile import SuperFile, check_room
from .unwritten import Unwritten
from .writeback import WriteBack


def looks_like_table(path: str | os.PathLike[str]) -> bool:
    """Whether a table is at `path`, sound or damaged: its `super` has a table's magic."""
    try:
        with open(os.path.join(path, superfile.NAME), "rb") as file:
            data = file.read(SUPER_BYTES)
    except OSError:
        return False
    return any(data.startswith(MAGIC, slot_offset(epoch)) for epoch in (0, 1))


class DirectoryStore(Store):
    """Columns that are maps of files.

    Parameters
    ----------
    directory : an open table; the store's from here on.
    mode : "r" or "r+".
    view : "live" or "committed"; see `Table.open`.

    Raises
    ------
    CorruptTableError, TableLockedError, UntrustedTableError, UncleanShutdownError
        see `Table.open`.
    """

    _share: str | None = None  # with other writers; see `SharedStore`

    def __init__(self, directory: Directory, mode: str, view: str = "live") -> None:
        """Lock, check and map the table; nothing is written but the lock's text."""
        self.mode = mode
        self.path = directory.path
        self.allow_foreign = directory.allow_foreign
        self.allow_network_fs = directory.allow_network_fs
        self.recovered = 0
        self._health = Health()
        self._pending = False
        self._cadence = Cadence()
        self._pid = os.getpid()
        self._back = WriteBack(directory)
        self._committed: CommittedView | None = None
        committed = view == "committed"
        self._files = Opened(
            directory, mode == "r+", self._health, keep=committed, share=self._share
        )
        self.superblock = self._files.super.last
        if committed:
            self._committed = CommittedView(directory, self._files.super.file, self.superblock)
        self.clean = self.superblock.clean
        # Columns of which the disk may not have everything.
        self._unsynced = set() if self.clean else set(self._files.columns)
        self._unsummed: list[_Door] = []  # whose rows may have changed, and their checksums not

    @property
    def dirty_budget(self) -> int | None:
        """See `Store.dirty_budget`."""
        return self._back.budget

    def limit_dirty(self, budget: int) -> None:
        """See `Store.limit_dirty`."""
        self._back.give(budget)

    @classmethod
    def create(
        cls,
        path: str,
        superblock: Superblock,
        fill: Fill | None = None,
        *,
        allow_network_fs: bool = False,
    ) -> DirectoryStore:
        """Write a table with its columns at their initial values, and open it for writing.

        `fill` : see `Table.create`.

        Raises
        ------
        TableExistsError, FileNotFoundError, NetworkFileSystemError  see `files.draft`.
        ValueError                           the superblock does not fit `super`.
        """
        _refuse_big_endian()
        superblock = replace(superblock, attempt=1, boot_id=boot_id(), clean=False)
        encode_copy(superblock)  # or there is nothing to begin
        store = None
        try:
            with draft(path, allow_network_fs=allow_network_fs) as directory:
                first, *others = superblock.files
                write_column(directory, superblock, first, fill)
                for filed in others:
                    write_column(directory, superblock, filed)
                directory.create_file("LOCK").close()
                Journal.create(directory, superblock.uuid)
                SuperFile.create(directory, superblock)
                store = cls(directory, "r+")
                store._begin(superblock.attempt)
        except BaseException:
            if store is not None:
                store._release()
            raise
        store.path = path
        store.clean = True
        store._unsynced = set()
        return store

    @classmethod
    def open(
        cls,
        path: str,
        mode: str,
        view: str = "live",
        /,
        *,
        allow_foreign: bool = False,
        allow_network_fs: bool = False,
    ) -> DirectoryStore:
        """Open the table at `path`; for writing, bring it back to its last commit.

        A growth that did not end is undone, or ended if the new number of rows was recorded.
        """
        _refuse_big_endian()
        allowed = {"allow_foreign": allow_foreign, "allow_network_fs": allow_network_fs}
        store = cls(Directory.open(path, **allowed), mode, view)
        if mode == "r+":
            try:
                check_not_quantized(store.superblock, path)
                store._recover()
            except BaseException:
                store._release()
                raise
        return store

    def _recover(self) -> None:
        """Mark the table, put its rows back to the last commit, and begin the journal anew."""
        log, last = self._files.journal, self._files.super
        newest = last.last
        attempt = min(max(newest.attempt, log.attempt) + 1, 2**64 - 1)
        last.rewrite(replace(newest, attempt=attempt, boot_id=boot_id(), clean=False))
        self.superblock = last.last
        self.recovered = self._put_back()
        self._begin(attempt)
        if last.last.growing:
            with self._files.column_files(self.superblock) as files:
                self.superblock = self._settle(last.last, files)

    def _put_back(self) -> int:
        """Undo what the journal holds; returns how many rows it held."""
        log, last = self._files.journal, self._files.super
        with self._health.fatal():
            undo = examine(log.file, last.last)
            if undo.links:
                names = {column.name for column in last.last.columns}
                roll_back(log.file, undo, last.last, self._put_rows_back)
                changes = self._files.changes
                if changes is not None:  # whose marks a loss of power may have torn
                    changes.mark(undone_rows(log.file, undo, last.last), last.last.commits + 1)
                    changes.flush()
                if last.last.durability == "power":
                    self._unsynced |= names
                    self._flush()
        return undo.rows

    def _put_rows_back(self, name: str, ids: RowArray, image: FloatArray) -> None:
        mapped = self._files.columns[name]
        assert mapped.stored is not None
        if mapped.lazy is not None:
            places = mapped.lazy.to_put_back(ids, image, mapped.stored)
            ids, image = ids[places], image[places]
        if mapped.pages is not None:
            mapped.pages.expect(ids)
        self._unsynced.add(name)
        mapped.stored[ids] = image

    def _begin(self, attempt: int, *, sync: bool = True) -> None:
        """Begin the journal anew; with `sync`, durably at level `power`."""
        log, last = self._files.journal, self._files.super
        recorded = last.last
        log.begin(recorded.commits + 1, attempt, Layout(recorded.columns), recorded.rows)
        if sync and recorded.durability == "power":
            log.sync()

    @property
    def pending(self) -> bool:
        """See `Store.pending`."""
        return self._pending and self._health.failure is None and self._pid == os.getpid()

    def array(self, name: str) -> FloatArray:
        """See `Store.array`; a read-only view of the map."""
        return self._files.columns[name].read.view()

    @property
    def committed(self) -> CommittedView | None:
        """See `Store.committed`."""
        return self._committed

    def pages(self, name: str) -> ColumnPages | None:
        """See `Store.pages`."""
        return self._files.columns[name].pages

    def unwritten(self, name: str) -> Unwritten | None:
        """See `Store.unwritten`."""
        unwritten = self._files.columns[name].unwritten
        return None if unwritten is None or unwritten.none else unwritten

    def materialize(self, progress: Progress) -> None:
        """See `Store.materialize`."""
        self.check_writable()
        lazy = self._files.lazy_columns()
        total = sum(one.rows * one.column.row_bytes for one in lazy)
        done = 0

        def more(count: int) -> None:
            nonlocal done
            done += count
            progress(done, total)

        for one in lazy:
            one.materialize(more)

    @contextlib.contextmanager
    def writing(self, rows: RowArray | None) -> Iterator[Mapping[str, FloatArray]]:
        """See `Table.writing`."""
        self.check_writable()
        if self._back.budget is not None:
            mapped = self._files.columns.values()
            self._back.admit({each.pages: each.file for each in mapped if each.pages}, rows)
        for lazy in self._files.lazy_columns():
            lazy.reserve(rows)
        self._files.journal.save(rows, self._files.old_rows())
        self._pending = True
        self._cadence.wrote()
        door = _Door(self._files.columns, self._unsynced, rows)
        self._unsummed.append(door)
        try:
            yield door
            door.done()
        finally:
            try:  # half written rows stay, until somebody goes back, and may be committed
                self._sum_up(door)
            finally:
                self._back.changed(door.met, rows)

    def _sum_up(self, door: _Door) -> None:
        """Bring the checksums of a door's rows up to date; an interrupt leaves it to `commit`."""
        door.sum_up()
        self._unsummed = [other for other in self._unsummed if other is not door]

    def will_write(self, rows: RowArray) -> None:
        """See `Table.will_write`."""
        if self.mode == "r+" and self._pid == os.getpid() and self._health.failure is None:
            self._files.journal.save_ahead(rows, self._files.old_rows)

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        if self.mode == "r":
            raise ReadOnlyTableError(f"{self.path} is open with mode 'r'; open it with mode 'r+'")
        if self._pid != os.getpid():
            raise ClosedTableError(
                f"{self.path} was opened for writing by process {self._pid}, and this is process "
                f"{os.getpid()}, which may only read it"
            )
        if self._health.failure is not None:
            raise TableFailedError(
                f"writing to {self.path} failed earlier ({self._health.failure!r}), so what the "
                "disk has is unknown; close the table and open it again"
            )

    def add(self, *columns: Column) -> None:
        """See `Store.add`; a file of that name which no commit knows is replaced."""
        self.check_writable()
        before = self.superblock
        superblock = replace(before, columns=(*before.columns, *columns))
        check_room(superblock)
        for column in columns:
            remove_column(self._files.directory, column.name)
        try:
            for column in columns:
                write_column(self._files.directory, superblock, column)
            self._files.directory.sync()
            for column in columns:
                self._files.columns |= self._files.map(superblock, column)
            self.superblock = superblock
            self._pending = True
            self._back.forget()  # there may have been another file of that name
        except BaseException:
            self.superblock = before
            for column in columns:
                with contextlib.suppress(OSError):
                    self._files.take_back(column.name)
            raise

    def resize(self, superblock: Superblock) -> None:
        """See `Store.resize`; docs/format.md says what each step is for."""
        self.check_writable()
        log, last = self._files.journal, self._files.super
        before, recorded = self.superblock, last.last
        marked = replace(recorded, other_rows=superblock.rows)
        grown = replace(
            recorded, epoch=recorded.epoch + 1, rows=superblock.rows, other_rows=before.rows
        )
        with log.lock, self._files.column_files(self.superblock) as files:
            try:
                # Until the end, commits say that files may be longer: an undoing can fail too.
                self.superblock = replace(before, other_rows=superblock.rows)
                last.rewrite(marked)
                lazy = self._lazy()
                for column, file in files:
                    extend_column(file, column, before.rows, superblock.rows, lazy.get(column.name))
                columns: dict[str, Mapped] = {}
                for column, file in files:
                    place = file, column, grown.rows
                    mapped = map_column(*place, writable=True, lazy=lazy.get(column.name))
                    columns |= by_name(mapped, column)
                if self._files.changes is not None:
                    self._files.changes.grow(superblock.rows)
                # Which number of rows the disk has is open until the end.
                with self._health.fatal():
                    self._flush()  # what the maps that are given up know of failures is heard here
                    last.record(grown)
                    self._settle(grown, files)
                    self._files.columns = columns
                    for one in lazy.values():
                        one.grow(superblock.rows)
                    log.grow(superblock.rows)
                    self.superblock = superblock
            except BaseException:
                if self._health.failure is None and self.superblock is not superblock:
                    undone = self._settle(marked, files)
                    self.superblock = replace(before, epoch=undone.epoch)
                raise

    def _lazy(self) -> dict[str, LazyColumn]:
        return {lazy.column.name: lazy for lazy in self._files.lazy_columns()}

    def _settle(self, recorded: Superblock, files: list[tuple[Filed, File]]) -> Superblock:
        """End a growth: all files as `recorded.rows` wants them, and a record that says so."""
        settled = replace(recorded, epoch=recorded.epoch + 1, other_rows=recorded.rows)
        lazy = self._lazy()
        with self._health.fatal():
            for column, file in files:
                settle_column(file, column, recorded, lazy.get(column.name))
            self._files.super.record(settled)
        return settled

    def count(self, counters: dict[str, int]) -> None:
        """See `Store.count`."""
        self.check_writable()
        superblock = replace(self.superblock, counters=counters)
        if counters.keys() != self.superblock.counters.keys():
            check_room(superblock)
        self.superblock = superblock
        self._pending = True

    def commit(self, superblock: Superblock) -> None:
        """See `Store.commit`: rows first, then the slot that the last commit does not use."""
        self.check_writable()
        check_room(superblock)
        for door in self._unsummed:
            self._sum_up(door)
        log, last = self._files.journal, self._files.super
        power = superblock.durability == "power"
        began = time.monotonic()
        with log.lock, self._health.fatal(), contextlib.ExitStack() as pins:
            if last.file.is_deleted():
                raise FileNotFoundError(
                    errno.ENOENT, "the table was deleted while it was open", self.path
                )
            self._files.check_names()
            if power:
                self._flush()
                if not log.records:  # else its header reached the disk with a record
                    log.sync()
            if self._files.changes is not None:
                self._files.changes.record(log.saved(), superblock.commits, sync=power)
            for lazy in self._files.lazy_columns():
                lazy.record(sync=power)
            pins.enter_context(self._files.lock.without_pins())
            last.record(superblock, sync=power)
            self.superblock = superblock
            self._pending = False
            self._begin(log.attempt, sync=False)
        if power:
            self._cadence.committed(time.monotonic() - began, stacklevel=3)  # of Table.commit

    def rollback(self) -> None:
        """See `Store.rollback`; the attempt grows, so that records of before do not count."""
        self.check_writable()
        log, last = self._files.journal, self._files.super
        with log.lock, self._health.fatal():
            self._unsummed = []
            self._put_back()
            self._back.forget()
            known = {column.name for column in last.last.columns}
            for name in [name for name in self._files.columns if name not in known]:
                self._unsynced.discard(name)
                self._files.take_back(name)
            self.superblock = last.last
            self._begin(log.attempt + 1)
            self._pending = False
            self.adopt(None)

    def track_changes(self) -> None:
        """See `Table.track_changes`."""
        self.check_writable()
        with self._files.journal.lock:
            if self._files.changes is None:
                self._files.changes = Changes.create(self._files.directory, self._files.super.last)

    def history(self) -> History | None:
        """Return the names of commits, or None if changes are not tracked."""
        return None if self._files.changes is None else self._files.changes.history

    def adopt(self, name: Name | None) -> None:
        """Call the next commit what it is called in the table that a delta comes from."""
        if self._files.changes is not None:
            self._files.changes.adopt(name)

    def close(self) -> None:
        """See `Store.close`; undoes what no commit recorded, and marks the table clean."""
        try:
            sound = self._files.ours and self._health.failure is None
            if sound and not self._files.super.file.is_deleted():
                if self._pending:
                    self.rollback()
                self._mark_clean()
        finally:
            self._release()

    def _mark_clean(self) -> None:
        log, last = self._files.journal, self._files.super
        with log.lock, self._health.fatal():
            if log.records:  # saved ahead, and never changed
                self._begin(log.attempt + 1)
            self._flush()
            for lazy in self._files.lazy_columns():
                lazy.sync()
            log.sync()
            last.rewrite(replace(last.last, clean=True))
            log.shrink()

    def _flush(self) -> None:
        maps = [self._files.columns[name].memory for name in sorted(self._unsynced)]
        for memory in dict.fromkeys(maps):  # columns in records have one in common
            memory.flush()
        self._unsynced.clear()

    def _release(self) -> None:
        self._pending = False
        if self._committed is not None:
            self._committed.close()
        self._back.close()
        self._files.release()

    def __del__(self) -> None:
        """Let go, and warn if something is lost."""
        if "_files" not in self.__dict__:  # it could not be opened
            return
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
        self.met: dict[ColumnPages, str] = {}  # columns in records have theirs in common
        self._named: set[str] = set()
        self._watched: list[ColumnPages] = []
        self._to_sum: list[str] | None = None  # columns that have checksums

    def __getitem__(self, name: str) -> FloatArray:
        mapped = self._columns[name]
        assert mapped.stored is not None
        self._taken.add(name)
        if mapped.lazy is not None:
            mapped.lazy.write_blocks(self._rows, mapped.stored)
        if mapped.pages is not None and mapped.pages not in self.met:
            self.met[mapped.pages] = mapped.file
            if self._rows is None:
                mapped.pages.check_size()
            elif mapped.pages.expect(self._rows):
                self._watched.append(mapped.pages)
        if mapped.pages is not None and name not in self._named:
            self._named.add(name)
            rows = len(mapped.stored) if self._rows is None else self._rows.size
            mapped.pages.changed += rows
            mapped.pages.changed_bytes += rows * mapped.stored[:1].nbytes
        return mapped.stored.view()

    def done(self) -> None:
        """Say that the block that got the arrays has ended."""
        for pages in self._watched:
            pages.have()

    def sum_up(self) -> None:
        """Set the checksums of the rows in the columns that were taken.

        Not of columns whose checksums were taken too: whoever did that brings rows with theirs.
        """
        if self._to_sum is None:
            sums = {name: CHECKS + name for name in self._named}
            self._to_sum = [
                name for name, own in sums.items() if own not in self._named and self._is_sums(own)
            ]
        for name in self._to_sum:
            array = self._columns[name].stored
            assert array is not None
            set_sums(array, self._rows, self[CHECKS + name])

    def _is_sums(self, name: str) -> bool:
        mapped = self._columns.get(name)
        return mapped is not None and mapped.read.dtype == np.uint32

    def __iter__(self) -> Iterator[str]:
        """Yield the columns but for checksums, which are there for whoever names them."""
        return (name for name in self._columns if not self._is_sums(name))

    def __len__(self) -> int:
        return sum(1 for _ in self)


def _refuse_big_endian() -> None:
    if sys.byteorder != "little":
        raise OSError(
            "tables on disk hold little-endian numbers, and this machine is big-endian; "
            "a table in memory (path None) works"
        )
