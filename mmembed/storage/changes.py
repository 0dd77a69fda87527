"""Which rows changed since which commit: one mark for each row, in a file of its own, `changes`.

Must not know when commits happen: `directory` says so. It writes the marks of a commit before
`super` records it, and again when rows are put back. A mark too many costs a row in a delta, one
too few would be a wrong delta: so marks of a commit that is not made stay, and a file that does not
go up to the commit in `super` counts for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from uuid import uuid4

import numpy as np
import numpy.typing as npt

from .changes_format import (
    MARK_BYTES,
    MARKS_AT,
    MOST_COMMITS,
    SLOT_BYTES,
    History,
    Name,
    Run,
    decode,
    encode,
    shift_of,
)
from .files import Directory, File
from .format import Superblock
from .journal_format import Layout, rows_of
from .recovery import Undo, read_records
from .store import RowArray

NAME = "changes"
Marks = npt.NDArray[np.uint32]
_BLOCK = 1 << 20  # marks looked at at a time


class Changes:
    """An open `changes` that goes up to the last commit.

    Attributes
    ----------
    history : what it says beside the marks.
    """

    def __init__(self, file: File, history: History, rows: int, *, writable: bool) -> None:
        """Take over a file that has marks for so many rows."""
        self.history = history
        self._file = file
        self._adopted: Name | None = None
        self._run_begun = False
        self._writable = writable
        self._map(rows)

    @classmethod
    def open(
        cls, directory: Directory, superblock: Superblock, *, writable: bool
    ) -> Changes | None:
        """Open the file if there is one, and it is this table's and of this commit."""
        if NAME not in directory.names():
            return None
        file = directory.open_file(NAME, writable=writable)
        for slot in (0, 1):
            history = decode(file.read(SLOT_BYTES, slot * SLOT_BYTES))
            if (
                history is not None
                and (history.uuid, history.commits) == (superblock.uuid, superblock.commits)
                and file.size() >= _size(superblock.rows, history.shift)
            ):
                return cls(file, history, superblock.rows, writable=writable)
        file.close()
        return None

    @classmethod
    def create(cls, directory: Directory, superblock: Superblock) -> Changes:
        """Begin to mark changes after the last commit, durably; marks of before are forgotten."""
        shift = shift_of(Layout(superblock.columns).row_bytes)
        commit = superblock.commits
        runs = (Run(commit, uuid4(), commit),)
        history = History(superblock.uuid, shift, commit, commit, runs)
        directory.remove_file(NAME)
        directory.sync()
        file = directory.create_file(NAME)
        try:
            file.reserve(_size(superblock.rows, shift))
            file.sync()
            file.write(encode(history), commit % 2 * SLOT_BYTES)
            file.sync()
            directory.sync()
            return cls(file, history, superblock.rows, writable=True)
        except BaseException:
            file.close()
            raise

    def adopt(self, name: Name | None) -> None:
        """Let the next commit be called by a name that it has elsewhere."""
        self._adopted = name

    def mark(self, blocks: Iterable[RowArray], commit: int) -> None:
        """Mark rows as changed by a commit."""
        number = min(commit - self.history.base, MOST_COMMITS)
        for rows in blocks:
            self._marks[rows >> self.history.shift] = number

    def record(self, blocks: Iterable[RowArray], commit: int, *, sync: bool) -> None:
        """Mark the rows of the next commit, and be ready for `super` to record it."""
        if commit - self.history.base > MOST_COMMITS:
            return  # from here on the file does not count any more
        self.mark(blocks, commit)
        name = self._adopted
        if name is None and not self._run_begun:
            name = Name(uuid4(), commit)
        self._run_begun, self._adopted = self._adopted is None, None
        following = self.history.following(name)
        if sync:
            self._memory.flush()
        self._file.write(encode(following), commit % 2 * SLOT_BYTES)
        if sync:
            self._file.sync()
        self.history = following

    def flush(self) -> None:
        """Return when the marks are on the disk."""
        self._memory.flush()

    def grow(self, rows: int) -> None:
        """Have marks for more rows, durably; they are not marked."""
        present, size = self._file.size(), _size(rows, self.history.shift)
        if size > present:
            self._file.reserve(size, present)
            self._file.sync()
        self._map(rows)

    def rows_since(self, commit: int, rows: int) -> Iterator[RowArray]:
        """Yield the rows, of the first `rows`, that changed after a commit, in order."""
        shift, least = self.history.shift, commit - self.history.base
        group: RowArray = np.arange(1 << shift)
        for first in range(0, self._marks.size, _BLOCK):
            marked = np.flatnonzero(self._marks[first : first + _BLOCK] > least)
            changed: RowArray = (((marked + first) << shift)[:, None] + group).reshape(-1)
            changed = changed[changed < rows]
            if changed.size:
                yield changed

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        self._file.close()

    def _map(self, rows: int) -> None:
        size = _size(rows, self.history.shift)
        self._memory = self._file.map(size, writable=self._writable)
        self._marks: Marks = np.frombuffer(memoryview(self._memory)[MARKS_AT:], np.uint32)


def _size(rows: int, shift: int) -> int:
    return MARKS_AT + MARK_BYTES * -(-rows // (1 << shift))


def undone_rows(file: File, undo: Undo, superblock: Superblock) -> Iterator[RowArray]:
    """Yield the rows that the records of a journal put back."""
    layout = Layout(superblock.columns)
    for _, record in read_records(file, layout, superblock, undo.header.commit):
        yield layout.parts(record, rows_of(record))[0]
