"""The bytes of `changes` but for its marks: since when, up to when, and who made which commit.

Must not open a file or know when anything is written. docs/format.md is this module in words.

Numbers of commits do not tell commits apart: two copies of a table can both make number 8. So every
handle that commits calls its commits by a random id and a number, and a copy that takes over a
commit by a delta takes over its name.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple
from uuid import UUID

MAGIC = b"MMEMCHNG"
VERSION = 1
# magic, version, shift, number of runs, zero, uuid, base, commits; then the runs, and the checksum
HEAD = struct.Struct("<8s4I16s2Q")
RUN = struct.Struct("<Q16sQ")
CHECKSUM = struct.Struct("<I")
SLOT_BYTES = 16384
MARKS_AT = 2 * SLOT_BYTES
MARK_BYTES = 4
MOST_RUNS = (SLOT_BYTES - HEAD.size - CHECKSUM.size) // RUN.size
MOST_COMMITS = 2**32 - 1  # that a mark can count
MARKED_BYTES = 256  # rows share a mark until they have as many


class Name(NamedTuple):
    """Which commit it is, in every copy of the table that has it."""

    run: UUID
    number: int


class Run(NamedTuple):
    """Commits from `first` on, of which the first is called (`id`, `number`), and so on."""

    first: int
    id: UUID
    number: int


class History(NamedTuple):
    """What `changes` says beside the marks.

    Attributes
    ----------
    uuid : the table's.
    shift : 2**shift rows share a mark.
    base : the commit since which changes are marked; marks count from it.
    commits : the last commit whose changes are marked.
    runs : by `first`, ascending; the last one with first <= n names commit n.
    """

    uuid: UUID
    shift: int
    base: int
    commits: int
    runs: tuple[Run, ...]

    def name(self, commit: int) -> Name:
        """Return the name of a commit from `since()` on."""
        run = max((run for run in self.runs if run.first <= commit), key=lambda run: run.first)
        return Name(run.id, run.number + commit - run.first)

    def since(self) -> int:
        """Return the first commit that has a name."""
        return self.runs[0].first

    def find(self, name: Name) -> int | None:
        """Return the commit of that name, or None if it is none of this table's."""
        ends = [*(run.first for run in self.runs[1:]), self.commits + 1]
        for run, end in zip(self.runs, ends, strict=True):
            commit = run.first + name.number - run.number
            if run.id == name.run and run.first <= commit < end:
                return commit
        return None

    def following(self, name: Name | None) -> History:
        """Return what to write with the next commit; a run begins with it if it is given a name."""
        commits = self.commits + 1
        # Those that were written for a commit which was never made have no place in the history.
        runs = [run for run in self.runs if run.first < commits]
        if name is not None:
            runs.append(Run(commits, *name))
        return self._replace(commits=commits, runs=tuple(runs[-MOST_RUNS:]))


def shift_of(row_bytes: int) -> int:
    """Return how many rows share a mark, as a power of two: one, unless rows are short."""
    shift = 0
    while row_bytes << shift < MARKED_BYTES and shift < 12:
        shift += 1
    return shift


def encode(history: History) -> bytes:
    """Return the SLOT_BYTES bytes of a slot."""
    head = HEAD.pack(
        *(MAGIC, VERSION, history.shift, len(history.runs), 0, history.uuid.bytes),
        *(history.base, history.commits),
    )
    runs = b"".join(RUN.pack(run.first, run.id.bytes, run.number) for run in history.runs)
    body = head + runs
    return (body + CHECKSUM.pack(zlib.crc32(body))).ljust(SLOT_BYTES, b"\0")


def decode(data: bytes) -> History | None:
    """Return the value of a slot, or None if there is none."""
    if len(data) != SLOT_BYTES or not data.startswith(MAGIC):
        return None
    _, version, shift, count, _, owner, base, commits = HEAD.unpack_from(data)
    if version != VERSION or not 1 <= count <= MOST_RUNS or shift > 12:
        return None
    runs = tuple(
        Run(first, UUID(bytes=run), number)
        for first, run, number in RUN.iter_unpack(data[HEAD.size : HEAD.size + count * RUN.size])
    )
    history = History(UUID(bytes=owner), shift, base, commits, runs)
    return history if encode(history) == data else None
