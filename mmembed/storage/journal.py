"""The undo journal of an open table: what rows were at the last commit, before they change.

Must not know when rows change, commits happen or a table recovers: `directory` says so. Every
method takes the journal's lock, so that another thread may save rows ahead of the one that will
change them.

A row is saved once between two commits, in the record that comes first. A record counts as soon as
it is whole; the header then confirms how many there are, so that one lost later is noticed.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent import futures
from typing import Any
from uuid import UUID

import numpy as np

from .. import kernels
from . import page_calls
from .column_files import Mapped
from .files import Directory, File
from .health import Health
from .journal_format import (
    HEADER_SLOT_BYTES,
    HEADER_SLOTS,
    RECORDS_AT,
    START,
    Header,
    Layout,
    decode_headers,
    encode_header,
    seal,
)
from .seen import SeenRows
from .store import FloatArray, RowArray
from .unwritten import fill_in

NAME = "undo"
RECORD_BYTES = 16 << 20  # about as large as a record gets
_THREAD = "mmembed-journal"
_WORTH_A_THREAD = 3e-3  # seconds of computing, beside which rows are saved
_MOST_ROOM = 64 << 20  # the file grows by its own size, up to this much at a time


class Journal:
    """The journal in `file`, which it writes to from `begin` on.

    Parameters
    ----------
    file : open for writing; the journal's from here on.
    table_uuid : the table's.
    power : whether rows that were saved are on the disk when `save` returns.
    health : where a failed write is reported.
    """

    def __init__(self, file: File, table_uuid: UUID, *, power: bool, health: Health) -> None:
        """Take over the file; nothing is written."""
        self.file = file
        self.lock: contextlib.AbstractContextManager[Any] = threading.RLock()
        self._uuid = table_uuid
        self._power = power
        self._health = health
        self._header, self._slot = decode_headers(file.read(RECORDS_AT, 0), table_uuid)
        self._layout = Layout(())
        self._link = START
        self._seen = SeenRows(0)
        self._size = file.size()
        self._space = np.empty(0, np.uint8)
        self._thread: futures.ThreadPoolExecutor | None = None
        self._ahead: deque[RowArray] = deque()
        self._said = 0.0  # when rows were last said ahead
        self._between = 0.0  # seconds from there to `save`, last time

    @staticmethod
    def create(directory: Directory, table_uuid: UUID) -> None:
        """Create the journal of a new table, durably but for its name."""
        with directory.create_file(NAME) as file:
            file.reserve(RECORDS_AT)
            slots = encode_header(Header(0, 0, 0), table_uuid) * HEADER_SLOTS
            file.write(slots.ljust(RECORDS_AT, b"\0"), 0)
            file.sync()

    @property
    def attempt(self) -> int:
        """The attempt in the header that counts."""
        return self._header.attempt

    @property
    def commit(self) -> int:
        """The number of the commit under way."""
        return self._header.commit

    @property
    def records(self) -> int:
        """How many records there are since `begin`."""
        return self._link.number

    def begin(self, commit: int, attempt: int, layout: Layout, rows: int) -> None:
        """Begin anew: from here on, saved rows are those to go back to until `commit` is made.

        The caller sees to it that nothing has to be undone any more by what the journal holds.
        """
        with self.lock:
            self._ahead.clear()
            self._layout = layout
            self._link = START
            if rows == self._seen.rows:
                self._seen.clear()
            else:
                self._seen = SeenRows(rows)
            page_calls.fence()  # whoever sees this header sees what rows are now
            self._write_header(Header(commit, attempt, 0))

    def grow(self, rows: int) -> None:
        """Let the table have more rows."""
        with self.lock:
            self._seen.grow(rows)

    def saved(self) -> Iterator[RowArray]:
        """Yield the rows that were saved since `begin`: all that have changed are among them."""
        return self._seen.all_seen()

    def sync(self) -> None:
        """Return when the journal is on the disk."""
        with self.lock, self._health.fatal():
            self.file.sync()

    def save(self, rows: RowArray | None, columns: Mapping[str, Mapped]) -> None:
        """Save those of some rows (ascending; None: all) that have not been saved.

        When this returns the rows may be changed.

        Raises
        ------
        OSError  there is no room, and nothing has happened; or writing failed, for good.
        """
        if self._said:
            self._between, self._said = time.perf_counter() - self._said, 0.0
        if rows is not None and self._seen.unseen(rows).size == 0:
            page_calls.fence()
            return  # without the lock: a row is seen when its record is where it must be
        with self.lock:
            for unsaved in self._unsaved(rows):
                self._append(unsaved, columns)

    def save_ahead(self, rows: RowArray, columns: Callable[[], Mapping[str, Mapped]]) -> None:
        """Begin to save rows, in any order, in another thread; `save` will wait for those it needs.

        Whatever goes wrong there will go wrong again in `save`, which says so. What several calls
        have brought while the thread was waiting for the disk becomes one record, and one sync.
        `columns` says which they are by then: a map of now may be of a file that is replaced.

        Where nothing is synced, and `save` used to follow at once, another thread costs more than
        it saves, and nothing happens.
        """
        self._said = time.perf_counter()
        if not self._power and self._between < _WORTH_A_THREAD:
            return
        if self._seen.unseen(rows).size == 0:
            return
        if self._thread is None:
            self._thread = futures.ThreadPoolExecutor(1, _THREAD)
        self._ahead.append(rows)
        self._thread.submit(self._save_quietly, columns)

    def _save_quietly(self, columns: Callable[[], Mapping[str, Mapped]]) -> None:
        with contextlib.suppress(Exception), self.lock:
            if not self._ahead or self.file.fd < 0 or self._health.failure is not None:
                return
            waiting = [self._ahead.popleft() for _ in range(len(self._ahead))]
            unseen = [self._seen.unseen(rows) for rows in waiting]
            for unsaved in self._unsaved(np.unique(np.concatenate(unseen))):
                self._append(unsaved, columns())

    def close(self) -> None:
        """Close the file; a second time is harmless."""
        with self.lock:
            self.file.close()
            thread, self._thread = self._thread, None
        if thread is not None:
            thread.shutdown(wait=threading.current_thread().name[:15] != _THREAD)

    def abandon(self) -> None:
        """Close the file in a forked child, where the thread that holds the lock may not exist."""
        self.file.close()

    def shrink(self) -> None:
        """Give back the room of records; there must be none since `begin`."""
        with self.lock, self._health.fatal():
            self.file.cut(RECORDS_AT)
            self._size = RECORDS_AT

    def _unsaved(self, rows: RowArray | None) -> Iterator[RowArray]:
        most = max(1, RECORD_BYTES // (8 + self._layout.row_bytes))
        if rows is None:
            yield from self._seen.all_unseen(most)
            return
        unsaved = self._seen.unseen(rows)
        for first in range(0, unsaved.size, most):
            yield unsaved[first : first + most]

    def _append(self, rows: RowArray, columns: Mapping[str, Mapped]) -> None:
        size = self._layout.record_bytes(rows.size)
        self._make_room(self._link.at + size)
        if self._space.size < size:
            self._space = np.empty(size, np.uint8)
        record = self._space[:size]
        ids, images = self._layout.parts(record, rows.size)
        ids[...] = rows
        self._layout.clear_padding(record, rows.size)
        for pages in dict.fromkeys(columns[name].pages for name in images):
            if pages is not None:
                pages.expect(rows)
        for name, image in images.items():
            self._take(name, columns[name], ids, image)
        commit = self._header.commit
        link = seal(record, rows.size, self._layout, self._uuid, commit, self._link)
        with self._health.fatal(OSError):
            self.file.write(record.data, self._link.at)
            if self._power:
                self.file.sync()
        # An interrupt between these three leaves a record too many, which is harmless.
        self._link = link
        self._write_header(self._header._replace(confirmed=link.number))
        page_calls.fence()  # whoever sees a row changed sees the header
        self._seen.add(rows)

    @staticmethod
    def _take(name: str, column: Mapped, ids: RowArray, image: FloatArray) -> None:
        """Set an image to what rows are; those that nobody has written have their initial value."""
        places = None if column.unwritten is None else column.unwritten.of(ids)
        if column.unwritten is not None and places is not None and places.size:
            fill_in(column.read, column.unwritten, ids, places, image)
            return
        bad = kernels.gather(
            column.read if column.read.ndim == 2 else column.read[:, None],
            ids,
            image if image.ndim == 2 else image[:, None],
        )
        if bad >= 0:  # then nothing was copied
            raise IndexError(f"row {ids[bad]} is outside the {len(column.read)} rows of {name}")

    def _make_room(self, size: int) -> None:
        if size > self._size:
            more = max(size, self._size + min(self._size, _MOST_ROOM))
            try:
                self.file.reserve(more, self._size)
            except OSError:
                more = size
                self.file.reserve(more, self._size)
            self._size = more

    def _write_header(self, header: Header) -> None:
        """Write into the slot that the header that counts does not use; not synced."""
        slot = 1 - self._slot
        with self._health.fatal(OSError):
            self.file.write(encode_header(header, self._uuid), slot * HEADER_SLOT_BYTES)
        self._header, self._slot = header, slot
