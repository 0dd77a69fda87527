"""Copying a table whole, as of its last commit, while a writer may be at it.

Must not know what rows mean. The order is everything: rows first, then the journal. A row that
changes before it is copied has its old value in the journal by then (no byte changes before), one
that changes later has it too: so copied rows and copied journal make the last commit, unless a
writer committed, went back or grew meanwhile, which `super` and the journal's header show.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import os
import time
import zlib
from collections.abc import Callable
from typing import NamedTuple, TypeVar

from ..errors import CorruptTableError, TableLockedError
from . import journal, superfile
from .directory import DirectoryStore
from .files import Directory, File, draft
from .format import SUPER_BYTES, Superblock, decode_super
from .inventory import CHANGES, LOCK, SEAL, data_files, folders
from .journal_format import RECORDS_AT, Header, Layout
from .locks import holding_back
from .recovery import examine_header, read_records

_T = TypeVar("_T")

BLOCK_BYTES = 4 << 20
TIMEOUT = 60.0  # seconds during which commits may disturb the copying


class Copied(NamedTuple):
    """What a snapshot is: its commit, the rows put back in it, bytes, and those that were shared.

    `shared` bytes are on blocks that both tables have (reflink), until one of them changes.
    """

    commits: int
    step: int
    rows: int
    put_back: int
    bytes: int
    shared: int


class MovedError(Exception):
    """A writer went on to another commit meanwhile."""


class Standing(NamedTuple):
    """Where a table is: `super`, and the journal's header but for what it confirms."""

    data: bytes
    superblock: Superblock
    header: Header


def standing(directory: Directory) -> Standing:
    """Return where a table is; what was copied while this stays the same is of one commit.

    Raises MovedError if a writer went on during this very look.
    """
    data = _super(directory)
    try:
        superblock = decode_super(data)
    except CorruptTableError as error:
        raise CorruptTableError(f"{directory.path}/super: {error}") from None
    with directory.open_file(journal.NAME) as file:
        try:
            header = examine_header(file, superblock)
        except CorruptTableError:
            if _super(directory) != data:
                raise MovedError from None
            raise
    return Standing(data, superblock, header._replace(confirmed=0))


def _super(directory: Directory) -> bytes:
    with directory.open_file(superfile.NAME) as file:
        return file.read(SUPER_BYTES + 1, 0)


def snapshot(
    source: str,
    path: str | os.PathLike[str],
    *,
    checked: bool = True,
    timeout: float = TIMEOUT,
    **allowed: bool,
) -> Copied:
    """Make a table at `path` that is `source` as of its last commit; see `Table.snapshot`."""
    target = os.path.abspath(os.fsdecode(path))

    def copy(directory: Directory) -> Copied:
        with draft(target, allow_network_fs=directory.allow_network_fs) as made:
            copied = _Copying(directory, made, checked).run()
        made.close()
        return copied

    return undisturbed(source, copy, timeout, allowed)


def undisturbed(
    source: str, attempt: Callable[[Directory], _T], timeout: float, allowed: dict[str, bool]
) -> _T:
    """Call `attempt` with the table's directory until it raises no MovedError; returns its result.

    From the second time on the writer is asked to wait with its commits, as long as it does.
    """
    deadline = time.monotonic() + timeout
    with contextlib.ExitStack() as stack:
        for number in itertools.count():
            with (
                contextlib.suppress(MovedError),
                Directory.open(source, **allowed) as directory,
            ):
                if number:
                    stack.enter_context(holding_back(directory.open_file(LOCK)))
                return attempt(directory)
            stack.close()
            if time.monotonic() > deadline:
                break
    raise TableLockedError(
        f"{source} was committed again and again while it was copied, for {timeout:g} seconds; "
        "copy it in the process that writes, or commit less often"
    )


class _Copying:
    """One try at copying a table into a draft."""

    def __init__(self, source: Directory, made: Directory, checked: bool) -> None:
        self.source = source
        self.made = made
        self.checked = checked
        self.bytes = self.shared = 0

    def run(self) -> Copied:
        """Copy, check, bring back to the last commit."""
        before = standing(self.source)
        data, superblock, header = before
        for name in data_files(superblock):
            self._try_copy(name)
        self._try_copy(CHANGES, optional=True)
        self._copy_journal(superblock, header)
        if standing(self.source) != before:
            raise MovedError
        with self.made.create_file(superfile.NAME) as file:
            file.write(data, 0)
            file.sync()
        self.made.create_file(LOCK).close()
        self._copy_folders(self.source, self.made)
        self._try_copy(SEAL, optional=True)
        put_back = 0
        if not superblock.clean or superblock.growing:
            store = DirectoryStore.open(self.made.path, "r+", **self.made.allowed)
            put_back = store.recovered
            store.close()
        DirectoryStore.open(self.made.path, "r", **self.made.allowed).close()
        return Copied(
            *(superblock.commits, superblock.step, superblock.rows, put_back),
            *(self.bytes, self.shared),
        )

    def _try_copy(self, name: str, *, optional: bool = False) -> None:
        try:
            file = self.source.open_file(name)
        except CorruptTableError:
            if optional:
                return
            raise
        with file, self.made.create_file(name) as copy:
            size = file.size()
            self.bytes += size
            if _has_room(copy, size) and copy.clone(file):
                self.shared += size
                copy.sync()
            else:
                copy_file(file, copy, checked=self.checked)

    def _copy_journal(self, superblock: Superblock, header: Header) -> None:
        """Copy the header and the records that are whole: those of rows that have changed."""
        with (
            self.source.open_file(journal.NAME) as file,
            self.made.create_file(journal.NAME) as copy,
        ):
            head = file.read(RECORDS_AT, 0)
            copy.write(head.ljust(RECORDS_AT, b"\0"), 0)
            if header.commit == superblock.commits + 1:
                layout = Layout(superblock.columns)
                for link, record in read_records(file, layout, superblock, header.commit):
                    copy.write(record.data, link.at)
            copy.sync()

    def _copy_folder(self, source: Directory, made: Directory) -> None:
        """Copy a folder, such as a vocabulary, that lies beside the rows: its files and folders."""
        with os.scandir(source.fd) as entries:
            names = sorted(e.name for e in entries if e.is_file(follow_symlinks=False))
        for name in names:
            with source.open_file(name) as file, made.create_file(name) as copy:
                self.bytes += file.size()
                copy_file(file, copy, checked=self.checked)
        self._copy_folders(source, made)
        made.sync()

    def _copy_folders(self, source: Directory, made: Directory) -> None:
        for name in folders(source):
            with source.folder(name) as folder, made.create_folder(name) as copy:
                self._copy_folder(folder, copy)


def copy_file(source: File, copy: File, *, checked: bool = True) -> None:
    """Fill an empty file with the bytes of another, durably; holes stay holes.

    With `checked`, the copy is read back from the disk and compared with what was read before.
    """
    size = source.size()
    if source.is_sparse():
        copy.extend(size)
    else:
        copy.reserve(size)
    parts = []
    for start, end in source.extents():
        for at in range(start, end, BLOCK_BYTES):
            data = source.read(min(BLOCK_BYTES, end - at), at)
            copy.write(data, at)
            parts.append((at, len(data), zlib.crc32(data)))
    copy.sync()
    if checked:
        copy.forget()
        for at, count, checksum in parts:
            if zlib.crc32(copy.read(count, at)) != checksum:
                raise OSError(
                    errno.EIO,
                    f"the copy of {source.path} is not what was written, at byte {at}: the disk "
                    "loses data",
                    copy.path,
                )


def _has_room(file: File, size: int) -> bool:
    """Return whether both copies could change everywhere: else a store could end its process."""
    return file.free() >= size
