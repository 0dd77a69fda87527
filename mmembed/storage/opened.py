"""What is open of a table: its lock, its files, its maps; checked before anything is believed.

Must not know when rows change or what a commit is. Nothing is written but the lock's text.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator

from ..errors import CorruptTableError, UncleanShutdownError
from . import journal, superfile
from .bits_format import name_of_bits
from .changes import Changes
from .column import Column
from .column_files import Mapped, by_name, map_column, open_column, remove_column
from .files import Directory, File, Identity, boot_id
from .format import Superblock
from .health import Health
from .journal import Journal
from .lazy import LazyColumn, unwritten_for_reading
from .locks import WriterLock
from .records import Filed
from .recovery import examine, examine_header
from .seals import check_not_sealed
from .shared_journal import SharedJournal
from .sharing import SharedLock
from .superfile import SuperFile


class Opened:
    """An open table.

    Parameters
    ----------
    directory : its directory; this object's from here on.
    writable : whether to take the lock, and to map for writing.
    keep : whether directory and `super` stay open, though it is for reading.
    share : how the table is shared with other writers, if it is.
    health : where a failed write is reported.

    Attributes
    ----------
    columns : the maps by column, those that no commit knows included.
    changes : which rows changed when, of a table that is open for writing and tracks it; or None.

    Raises
    ------
    CorruptTableError, TableLockedError, UntrustedTableError, UncleanShutdownError
        see `Table.open`; then nothing stays open.
    """

    def __init__(
        self,
        directory: Directory,
        writable: bool,
        health: Health,
        *,
        keep: bool = False,
        share: str | None = None,
    ) -> None:
        """Lock, check and map the table."""
        self.directory = directory
        self.columns: dict[str, Mapped] = {}
        self.changes: Changes | None = None
        self._writable = writable
        self._share = share
        self._health = health
        self._pid = os.getpid()
        self._names: dict[str, Identity] = {}  # of all files that are open
        self._lock: WriterLock | None = None
        self._super: SuperFile | None = None
        self._journal: Journal | None = None
        try:
            if writable:
                self._take_lock()
            file = directory.open_file(superfile.NAME, writable=writable)
            self._super = SuperFile(file, health)
            self._names[superfile.NAME] = file.identity()
            self._check_and_map()
            if writable:
                self.changes = Changes.open(directory, self.super.last, writable=True)
            if not (writable or keep):  # maps need no descriptors
                self.super.file.close()
                directory.close()
        except BaseException:
            self.release()
            raise

    @property
    def super(self) -> SuperFile:
        """The file `super`; closed if the table is open for reading, unless it was to be kept."""
        assert self._super is not None
        return self._super

    @property
    def journal(self) -> Journal:
        """The journal of a table that is open for writing."""
        assert self._journal is not None
        return self._journal

    @property
    def lock(self) -> WriterLock:
        """The lock of a table that is open for writing."""
        assert self._lock is not None
        return self._lock

    @property
    def ours(self) -> bool:
        """Whether this process has the table open for writing."""
        return self._lock is not None and self._pid == os.getpid()

    def map(self, superblock: Superblock, column: Filed) -> dict[str, Mapped]:
        """Check and map a file; returns the columns that are in it."""
        writable = self._writable
        lazy = unwritten = None
        with open_column(self.directory, superblock, column, writable=writable) as file:
            self._names[f"{column.name}.npy"] = file.identity()
            if isinstance(column, Column) and column.lazy:
                if writable:
                    lazy = LazyColumn.open(self.directory, superblock, column)
                else:
                    unwritten = unwritten_for_reading(self.directory, superblock, column)
            if lazy is not None and lazy.identity is not None:
                self._names[name_of_bits(column)] = lazy.identity
            place = file, column, superblock.rows
            mapped = map_column(*place, writable=writable, lazy=lazy, unwritten=unwritten)
            return by_name(mapped, column)

    def take_back(self, column: str) -> None:
        """Let go of a column that no commit knows, and remove its files."""
        mapped = self.columns.pop(column, None)
        if mapped is not None and mapped.lazy is not None:
            mapped.lazy.close()
        for kind in ("npy", "bits"):
            self._names.pop(f"{column}.{kind}", None)
        remove_column(self.directory, column)

    @contextlib.contextmanager
    def column_files(self, superblock: Superblock) -> Iterator[list[tuple[Filed, File]]]:
        """Open, check and give all files of rows for a block."""
        with contextlib.ExitStack() as stack:
            files = [
                stack.enter_context(open_column(self.directory, superblock, c, writable=True))
                for c in superblock.files
            ]
            yield list(zip(superblock.files, files, strict=True))

    def check_names(self) -> None:
        """Raise CorruptTableError if a file that this handle writes has lost its name to another.

        Then others open the other file: what is written here, they never see; and whoever has made
        a new LOCK writes at the same time.
        """
        for name, identity in self._names.items():
            if self.directory.identity(name) != identity:
                raise CorruptTableError(
                    f"{self.directory.path}/{name} was removed or replaced while the table was "
                    "open for writing; close it, see who did that, and open it again"
                )

    def old_rows(self) -> dict[str, Mapped]:
        """Return the columns that the last commit knows."""
        return {column.name: self.columns[column.name] for column in self.super.last.columns}

    def lazy_columns(self) -> list[LazyColumn]:
        """Return the lazy columns of a table that is open for writing."""
        return [mapped.lazy for mapped in self.columns.values() if mapped.lazy is not None]

    def release(self) -> None:
        """Let everything go; a second time is harmless."""
        for mapped in self.columns.values():
            if mapped.pages is not None:
                mapped.pages.close()
            if mapped.lazy is not None:
                mapped.lazy.close()
        self.columns = {}
        if self._journal is not None:
            if self._pid == os.getpid():
                self._journal.close()
            else:
                self._journal.abandon()
        if self._super is not None:
            self._super.file.close()
        if self.changes is not None:
            self.changes.close()
        self.directory.close()
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def _take_lock(self) -> None:
        file = self.directory.open_file("LOCK", writable=True)
        if self._share is None:
            self._lock = WriterLock(file, self.directory.path)
        else:
            self._lock = SharedLock(file, self.directory.path, self._share)
        self._names["LOCK"] = file.identity()
        if self.directory.identity("LOCK") != self._names["LOCK"]:
            raise CorruptTableError(f"{file.path} was replaced while it was being locked")
        check_not_sealed(self.directory)

    def _check_and_map(self) -> None:
        before = None
        while not self.columns:
            superblock = self.super.read()
            try:
                self._check_boot(superblock)
                columns: dict[str, Mapped] = {}
                for filed in superblock.files:
                    columns |= self.map(superblock, filed)
                self._check_journal(superblock)
                self.columns = columns
            except CorruptTableError:
                # A writer may have committed or grown the table since: then `super` says so by now.
                if superblock == before:
                    raise
                before = superblock

    def _check_boot(self, superblock: Superblock) -> None:
        """Raise UncleanShutdownError if nobody can know what the rows are."""
        unsynced = superblock.durability == "process" and not superblock.clean
        if unsynced and (superblock.boot_id != boot_id() or not superblock.boot_id.int):
            raise UncleanShutdownError(
                f"{self.directory.path} has durability 'process', and the machine stopped while it "
                "was open for writing: which of its rows reached the disk, nobody knows. Go back "
                "to a copy of it"
            )

    def _check_journal(self, superblock: Superblock) -> None:
        """Check that the journal is of this table and commit; take it over if it is to be used."""
        if not self._writable:
            with self.directory.open_file(journal.NAME) as file:
                examine_header(file, superblock)
            return
        file = self.directory.open_file(journal.NAME, writable=True)
        try:
            examine(file, superblock)
            power = superblock.durability == "power"
            self._names[journal.NAME] = file.identity()
            if isinstance(self._lock, SharedLock):
                self._journal = SharedJournal(
                    file, superblock.uuid, power=power, health=self._health, turn=self._lock.turn
                )
            else:
                self._journal = Journal(file, superblock.uuid, power=power, health=self._health)
        except BaseException:
            file.close()
            raise
