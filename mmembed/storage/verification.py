"""Looking at every part of a table, and saying what is found; nothing is changed.

Must not know how damage is mended. Where opening a table stops at the first fault, this goes on.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt

from ..errors import CommitGoneError, CorruptTableError, MmembedError
from ..kernels.packed import SCALE_BYTES
from . import journal, superfile
from .bits_format import name_of_bits
from .changes import Changes
from .checks import wrong_rows
from .column import Column
from .column_files import open_column
from .directory import DirectoryStore
from .files import Directory
from .format import HEADER_BYTES, SUPER_BYTES, Superblock, decode_super, read_copies
from .inventory import CHANGES, LOCK, SEAL, drafts, left_over
from .journal_format import RECORDS_AT
from .lazy import unwritten_for_reading
from .locks import is_held, signature
from .records import Filed, Records
from .recovery import examine
from .seals import BLOCK_BYTES, broken_blocks, examine_seal
from .store import FloatArray

_T = TypeVar("_T")

OK, NOTE, BAD = "ok", "note", "bad"
TOLD = 10  # rows that a finding names
TRIES = 5  # a writer may commit while the parts are looked at, one after the other


class Finding(NamedTuple):
    """What was found about one part of a table: `state` is "ok", "note" or "bad"."""

    part: str
    state: str
    text: str


def verify(path: str | os.PathLike[str], *, deep: bool = False, **allowed: bool) -> list[Finding]:
    """Return what is found about a table's files; none "bad" means that it can be opened.

    Parameters
    ----------
    path : the table's directory.
    deep : read every row too: against the checksums of a sealed table; of another, the numbers
        that are not finite are counted. Of a table with checksums of rows, those that they deny are
        named.
    allowed : allow_foreign and allow_network_fs, see `Table.open`.

    Raises
    ------
    TableNotFoundError, UntrustedTableError  see `Table.open`.
    CorruptTableError  what is there is no table at all.
    """
    where = os.path.abspath(os.fsdecode(path))
    with Directory.open(where, **allowed) as directory:
        names = directory.names()
        if not {superfile.NAME, "weight.npy", "records.npy"} & set(names):
            raise CorruptTableError(f"{where} is not a table: it has neither `super` nor rows")
        for _ in range(TRIES):
            before = _state(directory)
            found = _Search(directory, deep).run()
            if before == _state(directory) or all(f.state != BAD for f in found):
                break
    return found


def _state(directory: Directory) -> tuple[int, int]:
    """Return what changes when a writer commits, grows or goes back."""
    return _checksum(directory, superfile.NAME), _checksum(directory, journal.NAME)


def _checksum(directory: Directory, name: str) -> int:
    try:
        with directory.open_file(name) as file:
            return zlib.crc32(file.read(SUPER_BYTES if name == superfile.NAME else RECORDS_AT, 0))
    except (MmembedError, OSError):
        return -1


class _Search:
    """One look at all parts."""

    def __init__(self, directory: Directory, deep: bool) -> None:
        self.directory = directory
        self.deep = deep
        self.found: list[Finding] = []

    def run(self) -> list[Finding]:
        """Return the findings."""
        superblock = self.look("super", self._super)
        if superblock is not None:
            for filed in superblock.files:
                self.look(f"{filed.name}.npy", self._column, superblock, filed)
            for column in superblock.columns:
                if column.has_bits:
                    self.look(name_of_bits(column), self._bits, superblock, column)
            self.look(journal.NAME, self._journal, superblock)
            self.look(CHANGES, self._changes, superblock)
        self.look(LOCK, self._lock)
        if superblock is not None:
            self._rest(superblock)
        return self.found

    def say(self, part: str, state: str, text: str) -> None:
        self.found.append(Finding(part, state, text))

    def look(self, part: str, at: Callable[..., _T], *what: object) -> _T | None:
        """Call a method; what it raises is a finding."""
        try:
            return at(*what)
        except (MmembedError, OSError) as error:
            self.say(part, BAD, str(error))
            return None

    def _super(self) -> Superblock:
        with self.directory.open_file(superfile.NAME) as file:
            data = file.read(SUPER_BYTES + 1, 0)
        if len(data) == SUPER_BYTES:
            for at, copy in read_copies(data):
                if isinstance(copy, CorruptTableError):
                    self.say("super", NOTE, f"the copy at byte {at} does not count: {copy}")
        try:
            last = decode_super(data)
        except CorruptTableError as error:
            raise CorruptTableError(f"{self.directory.path}/super: {error}") from None
        closed = "closed" if last.clean else "not closed"
        growing = f", growing from or to {last.other_rows}" if last.growing else ""
        self.say(
            *("super", OK),
            f"commit {last.commits}, step {last.step}, epoch {last.epoch}, {last.rows} rows"
            f"{growing}, {last.durability}, {closed}",
        )
        return last

    def _column(self, superblock: Superblock, column: Filed) -> None:
        with open_column(self.directory, superblock, column, writable=False) as file:
            size = file.size()
        shape = column.shape(superblock.rows)
        if isinstance(column, Records):
            what = f"{column.stride} bytes each: {', '.join(c.name for c in column.columns)}"
        else:
            what = column.dtype
        self.say(f"{column.name}.npy", OK, f"{shape} {what}, {size} bytes, as `super` says")

    def _bits(self, superblock: Superblock, column: Column) -> None:
        unwritten = unwritten_for_reading(self.directory, superblock, column)
        assert unwritten is not None
        state = "all" if unwritten.none else "not all"
        self.say(name_of_bits(column), OK, f"{state} rows are written, the others computed")

    def _journal(self, superblock: Superblock) -> None:
        with self.directory.open_file(journal.NAME) as file:
            undo = examine(file, superblock)
        records = f"{len(undo.links)} whole records, {undo.header.confirmed} confirmed"
        self.say(
            *(journal.NAME, OK),
            f"of commit {undo.header.commit}, {records}, {undo.rows} rows to put back",
        )

    def _changes(self, superblock: Superblock) -> None:
        if CHANGES not in self.directory.names():
            return
        marks = Changes.open(self.directory, superblock, writable=False)
        if marks is None:
            self.say(CHANGES, NOTE, "is not up to the last commit: deltas need tracking anew")
            return
        self.say(CHANGES, OK, f"which rows changed since commit {marks.history.since()}")
        marks.close()

    def _lock(self) -> None:
        with self.directory.open_file(LOCK) as file:
            self.say(LOCK, NOTE if is_held(file) else OK, holder(self.directory))

    def _rest(self, superblock: Superblock) -> None:
        """Look at what a table may have or not, at what is no part of it, and at the rows."""
        for name in left_over(self.directory, superblock):
            self.say(name, NOTE, "no part of the table")
        for name in drafts(self.directory.path):
            self.say(name, NOTE, "beside the table, left by a making of it that was killed")
        if any(finding.state == BAD for finding in self.found):
            return
        sealed = SEAL in self.directory.names()
        if sealed:
            self.look(SEAL, self._seal, superblock)
        elif self.deep:
            for filed in superblock.files:
                self.look(f"{filed.name}.npy", self._numbers, superblock, filed)
        if all(finding.state != BAD for finding in self.found):
            self.look("table", self._open)
        if self.deep:
            for sums in superblock.columns:
                column = None if sums.checks is None else superblock.column(sums.checks)
                if column is not None:
                    self.look(f"{sums.name}.npy", self._rows, column, sums)

    def _seal(self, superblock: Superblock) -> None:
        if not self.deep:
            blocks = sum(len(sums) for _, sums in examine_seal(self.directory, superblock))
            self.say(SEAL, OK, f"{blocks} checksums, which --deep compares")
            return
        broken = broken_blocks(self.directory, superblock)
        for damage in broken:
            self.say(
                *(damage.file, BAD),
                f"{damage.blocks} blocks are not what was sealed, the first at byte {damage.at}",
            )
        if not broken:
            self.say(SEAL, OK, "every byte of every row is what was sealed")

    def _numbers(self, superblock: Superblock, column: Filed) -> None:
        nan = inf = 0
        if column.row_bytes:
            block = max(1, BLOCK_BYTES // column.row_bytes)
            with open_column(self.directory, superblock, column, writable=False) as file:
                for first in range(0, superblock.rows, block):
                    count = min(block, superblock.rows - first)
                    at = HEADER_BYTES + first * column.row_bytes
                    data = np.frombuffer(file.read(count * column.row_bytes, at), np.uint8)
                    for numbers in _numbers_of(data, column):
                        nan += int(np.count_nonzero(np.isnan(numbers)))
                        inf += int(np.count_nonzero(np.isinf(numbers)))
        state = NOTE if nan or inf else OK
        self.say(f"{column.name}.npy", state, f"all rows read: {nan} NaN, {inf} infinite")

    def _rows(self, column: Column, sums: Column) -> None:
        from .table import Table  # which imports this module

        path, told, count = self.directory.path, list[int](), 0
        allow: Any = self.directory.allowed
        try:
            with Table.open(path, view="committed", **allow) as table:
                for wrong in wrong_rows(table, column, sums):
                    told += wrong[: TOLD - len(told)].tolist()
                    count += wrong.size
        except CommitGoneError as error:
            self.say(f"{sums.name}.npy", NOTE, f"not all rows were compared: {error}")
        else:
            if not count:
                self.say(f"{sums.name}.npy", OK, f"every row of {column.name} is what was written")
        if count:
            named = ", ".join(map(str, told)) + (", ..." if count > len(told) else "")
            what = f"{count} rows of {column.name} are not what their checksums say: {named}"
            self.say(f"{sums.name}.npy", BAD, what)

    def _open(self) -> None:
        """Open the table as a reader does: there may be a reason to refuse it as a whole."""
        DirectoryStore.open(self.directory.path, "r", **self.directory.allowed).close()


def _numbers_of(data: npt.NDArray[np.uint8], column: Filed) -> list[FloatArray]:
    """Return the numbers in the bytes of some rows; of rows of 8 bits, their scales and biases."""
    if isinstance(column, Records):
        structs: Any = data.view(column.numpy_dtype)
        return [structs[field.name] for field in column.columns]
    if column.quantized:
        width = column.row_bytes
        ends = np.ascontiguousarray(data.reshape(-1, width)[:, width - SCALE_BYTES :])
        return [ends.view(np.float32)]
    return [data.view(column.numpy_dtype)]


def writer_of(path: str | os.PathLike[str], **allowed: bool) -> tuple[bool, str]:
    """Return whether a live process has the table open for writing, and who, in words.

    Raises what `verify` raises, and CorruptTableError if the table has no lock file.
    """
    where = os.path.abspath(os.fsdecode(path))
    with (
        Directory.open(where, **allowed) as directory,
        directory.open_file(LOCK) as file,
    ):
        return is_held(file), holder(directory)


def holder(directory: Directory) -> str:
    """Return who has the table open for writing, in words."""
    with directory.open_file(LOCK) as file:
        name = signature(file)
        if is_held(file):
            return f"open for writing by {name or 'another process'}"
    return f"free; {name} ended without closing the table" if name else "free"
