"""Rows as of the last commit, read without a lock while a writer changes them, dies, or starts.

Must not know how rows change. It relies on three things that the writer keeps to: what a row was is
in the journal, and the journal's header confirms it, before the row changes; the header's commit or
attempt grows before the journal is begun anew; and between a commit's record in `super` and that
header no row changes. docs/durability.md says why this is enough.

So a gather notes commit and attempt, copies rows, puts old values in the place of those that the
journal has, and begins again if commit or attempt have changed meanwhile.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from ..errors import CommitGoneError, CorruptTableError
from . import journal, locks, page_calls
from .files import Directory, File
from .format import SUPER_BYTES, Superblock, decode_super
from .journal_format import (
    HEADER_SLOT_BYTES,
    HEADER_SLOTS,
    RECORD,
    START,
    Header,
    Layout,
    behind,
    rows_of,
    valid_headers,
)
from .recovery import read_records
from .saved import Found, SavedRows
from .store import FloatArray, RowArray

TRIES = 8  # of a gather, each beside a commit, before it pins one; and as many then


class Commit(NamedTuple):
    """What a commit recorded; see `Table.pin`.

    Attributes
    ----------
    number : how many commits were made up to this one, itself included.
    step, counters, metadata : as it recorded them.
    """

    number: int
    step: int
    counters: dict[str, int]
    metadata: dict[str, Any]


class _Moment(NamedTuple):
    """The commit that a gather shows, and where the journal was when it began."""

    superblock: Superblock
    header: Header


class _Saved(NamedTuple):
    """What the journal holds of the commit, as of one header.

    `beyond` are rows in valid records that the header does not confirm. Such records may be about
    to be overwritten; `head` is how the first of them begins.
    """

    header: Header
    rows: SavedRows
    beyond: SavedRows
    at: int
    head: bytes


class CommittedView:
    """The last commit of a table that is open for reading.

    Parameters
    ----------
    directory, super_file : the table's, open for as long as this is used.
    superblock : as it was read at opening.
    """

    def __init__(self, directory: Directory, super_file: File, superblock: Superblock) -> None:
        """Open the journal."""
        self._directory = directory
        self._super = super_file
        self._journal = directory.open_file(journal.NAME)
        self._uuid = superblock.uuid
        self._read: tuple[bytes, Superblock] = b"", superblock
        self._headers: tuple[bytes, Header] = b"", Header(0, 0, 0)
        self._pinned: int | None = None
        # What the journal holds, as far as it was followed; under the lock.
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._forget(Header(0, 0, 0))

    def close(self) -> None:
        """Close the journal; a second time is harmless."""
        self._journal.close()

    def gather(self, name: str, ids: RowArray, copy: Callable[[], FloatArray]) -> FloatArray:
        """Return rows as of one commit.

        Parameters
        ----------
        name : the column.
        ids : (n,) int64, the rows.
        copy : returns copies of them as they are now, C-contiguous; called until nobody commits
            meanwhile.

        Raises
        ------
        CorruptTableError  the journal or `super` is damaged.
        CommitGoneError    the pinned commit was followed by another one; or commits follow each
            other faster than the rows are copied.
        """
        with contextlib.ExitStack() as stack:
            for tried in range(2 * TRIES):
                if tried == TRIES and self._pinned is None:
                    stack.enter_context(self._holding_back())
                moment = self._now()
                page_calls.fence()
                rows = copy()
                page_calls.fence()
                if self._restore(moment, name, ids, rows):
                    return rows
        raise CommitGoneError(
            f"{self._directory.path}: in {2 * TRIES} tries to copy {ids.size} rows of one commit "
            "another commit came in between; gather fewer rows at a time, or commit less often"
        )

    @contextlib.contextmanager
    def pin(self) -> Iterator[Commit]:
        """See `Table.pin`."""
        if self._pinned is not None:
            raise RuntimeError("the table is pinned already; one pin at a time and handle")
        with self._holding_back():
            last = self._now().superblock
            self._pinned = last.commits
            try:
                yield Commit(last.commits, last.step, dict(last.counters), dict(last.metadata))
            finally:
                self._pinned = None

    def _holding_back(self) -> contextlib.AbstractContextManager[None]:
        return locks.holding_back(self._directory.open_file("LOCK"))

    # Where the writer is

    def _now(self) -> _Moment:
        """Return the last commit, and the journal's header, which is of this commit or the next."""
        before = None
        while True:
            header, superblock = self._header(), self._superblock()
            if header.commit in (superblock.commits, superblock.commits + 1):
                break
            # Either the writer came between the two reads, and they say something else by now.
            if (header, superblock) == before:
                raise CorruptTableError(
                    f"{self._journal.path} is the journal of commit {header.commit}, and `super` "
                    f"knows {superblock.commits}: they do not belong together"
                )
            before = header, superblock
        if self._pinned not in (None, superblock.commits):
            raise CommitGoneError(
                f"commit {self._pinned} of {self._directory.path} was pinned, and the writer has "
                f"gone on to {superblock.commits}: it waits {locks.PIN_SECONDS:g} seconds for "
                "readers; pin again, for a shorter time"
            )
        return _Moment(superblock, header)

    def _header(self) -> Header:
        """Return a header that counted at some moment of this call.

        Headers go into the two slots by turns. A slot that is not valid is being written, so the
        other one counts, unless that is an old one: read before it was overwritten too.
        """
        before = None
        while True:
            raw = self._journal.read(HEADER_SLOTS * HEADER_SLOT_BYTES, 0)
            known, header = self._headers
            if raw == known:
                return header
            try:
                found = valid_headers(raw, self._uuid)
            except CorruptTableError as error:
                raise CorruptTableError(f"{self._journal.path} {error}") from None
            if found and (len(found) == HEADER_SLOTS or raw == before):
                header, _ = max(found)
                self._headers = raw, header
                return header
            if raw == before:
                raise CorruptTableError(f"{self._journal.path} has no valid header")
            before = raw

    def _superblock(self) -> Superblock:
        raw = self._super.read(SUPER_BYTES, 0)
        known, superblock = self._read
        if raw == known:
            return superblock
        while (again := self._super.read(SUPER_BYTES, 0)) != raw:
            raw = again  # or it might be half of each of two records
        try:
            superblock = decode_super(raw)
        except CorruptTableError as error:
            raise CorruptTableError(f"{self._super.path}: {error}") from None
        self._read = raw, superblock
        return superblock

    # What rows were

    def _restore(self, moment: _Moment, name: str, ids: RowArray, rows: FloatArray) -> bool:
        """Put old values in the place of newer ones; False if there was a commit meanwhile."""
        if moment.header.commit == moment.superblock.commits:
            # The commit is recorded, and its rows do not change before the header does.
            return self._header()[:2] == moment.header[:2]
        saved = self._follow(moment)
        if saved is None:
            return False
        layout = Layout(moment.superblock.columns)
        there = [saved.beyond.find(ids), saved.rows.find(ids)]
        whole = [_put(self._journal, layout, name, found, rows, ids.size) for found in there]
        beyond = there[0].of.size > 0
        page_calls.fence()
        head = self._journal.read(len(saved.head), saved.at) if beyond else saved.head
        page_calls.fence()
        after = self._header()
        if beyond and (head != saved.head or after != saved.header):
            return False
        if after[:2] == saved.header[:2] and not all(whole):
            raise CorruptTableError(f"{self._journal.path} has lost its end")
        return after[:2] == saved.header[:2]

    def _follow(self, moment: _Moment) -> _Saved | None:
        """Return what the journal holds now; None if it is another commit's or attempt's."""
        if self._pid != os.getpid():  # another thread may have held the lock at the fork
            self._lock, self._pid = threading.Lock(), os.getpid()
        with self._lock:
            header = self._header()
            if header[:2] != moment.header[:2]:
                return None
            if header[:2] != self._saved.header[:2]:
                self._forget(header)
            if header.confirmed > self._link.number:
                self._take_confirmed(moment.superblock, header)
            if self._link.number < header.confirmed:
                if self._header()[:2] != header[:2]:
                    return None
                raise CorruptTableError(
                    f"{self._journal.path} has {self._link.number} whole records and must have "
                    f"{header.confirmed}: it is damaged, and the last commit cannot be known"
                )
            self._look_beyond(moment.superblock, header)
            return self._saved

    def _forget(self, header: Header) -> None:
        self._link = START
        self._saved = _Saved(header, SavedRows(), SavedRows(), -1, b"")

    def _take_confirmed(self, superblock: Superblock, header: Header) -> None:
        """Follow the records up to those that the header confirms: they stay until it changes."""
        layout, rows = Layout(superblock.columns), self._saved.rows
        records = read_records(self._journal, layout, superblock, header.commit, self._link)
        while self._link.number < header.confirmed:
            link, record = next(records, (None, None))
            if link is None or record is None:
                break
            rows = rows.adding(link, layout.parts(record, rows_of(record))[0])
            self._link = behind(record, link)
        self._saved = self._saved._replace(rows=rows)

    def _look_beyond(self, superblock: Superblock, header: Header) -> None:
        """Find records that are whole and not confirmed.

        After a loss of power such a record can belong to a row that has changed. Beside a living
        writer it can be one of an earlier attempt, soon to be overwritten: so they are not taken
        for a part of the chain.
        """
        at = self._link.at
        head = self._journal.read(RECORD.size, at)
        if (at, head) != (self._saved.at, self._saved.head):
            layout, beyond = Layout(superblock.columns), SavedRows()
            records = read_records(self._journal, layout, superblock, header.commit, self._link)
            for link, record in records:
                beyond = beyond.adding(link, layout.parts(record, rows_of(record))[0])
            self._saved = self._saved._replace(beyond=beyond, at=at, head=head)
        if header != self._saved.header:
            self._saved = self._saved._replace(header=header)


def _put(file: File, layout: Layout, name: str, found: Found, rows: FloatArray, count: int) -> bool:
    """Put what records say into those of `rows` that they hold; False if the file is too short."""
    if not found.of.size or not rows.size:
        return True
    offsets = found.record + layout.image_at(name, found.rows, found.place)
    out = rows.reshape(count, -1).view(np.uint8)
    return bool(page_calls.read_pieces(file.fd, offsets, found.of, out) == found.of.size)
