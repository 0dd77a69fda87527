"""Planned reading of one mapped column: the pages that rows lie in are asked for before the rows.

Must not know ids' meaning, locks or commits. A row that is read from a page which is not in memory
costs one wait for the disk; the same pages asked for at once, in order, cost hardly more than one.

A column is either *resting*, when lookups find its pages in memory and asking would cost more than
it saves, or *watched*: each lookup asks for its pages. Samples of pages found in memory put a
column to rest; page faults wake it.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from . import page_calls, process, readahead

IdArray = npt.NDArray[np.signedinteger[Any]]
PageArray = npt.NDArray[np.int64]

SHIFT = mmap.PAGESIZE.bit_length() - 1
LOOK_EVERY = 4096  # ids between two looks at the page faults, while a column rests
FAULTS_TO_WAKE = 0.005  # of the ids in between; at 70 us each they cost as much as asking for all
SAMPLE = 16  # pages looked up before a batch is asked for
CALM_TO_REST = 4  # samples in a row that were all in memory
LOOSE = 4  # batches asked for in the background that nobody has said he is done with

# Marks of pages.
_NOTHING, _QUEUED, _ASKED = 0, 1, 2


class Portion:
    """Pages of one column that the thread is to ask for, until `done`."""

    __slots__ = ("column", "pages", "used")

    def __init__(self, column: ColumnPages, pages: PageArray) -> None:
        self.column = column
        self.pages = pages
        self.used = False

    def read(self) -> None:
        """Ask for the pages; the thread does this."""
        if not self.used:
            self.column.read_queued(self.pages)
        if self.used:  # by now: the marks made since go as well
            self.column.forget(self.pages)

    def done(self) -> None:
        """Forget the pages."""
        self.used = True
        self.column.forget(self.pages)


class Prefetch:
    """Pages asked for on the thread, until `done` says that the rows were used."""

    __slots__ = ("portions",)

    def __init__(self, portions: list[Portion]) -> None:
        self.portions = portions

    @property
    def pages(self) -> int:
        """How many pages it is."""
        return sum(portion.pages.size for portion in self.portions)

    def arrived(self) -> bool:
        """Whether the pages are in memory, as far as a sample shows."""
        return all(portion.column.in_memory(portion.pages) for portion in self.portions)

    def done(self) -> None:
        """Forget the pages: from now on they are asked for again when they are needed."""
        for portion in self.portions:
            portion.done()

    def keep(self) -> None:
        """Be done when some later ones are kept."""
        for portion in self.portions:
            portion.column.keep(portion)


class ColumnPages:
    """The pages of one column.

    Parameters
    ----------
    memory : the map of the column's file.
    address : where it begins.
    first : byte of the map at which row 0 begins.
    rows, row_bytes : the column's.

    Attributes
    ----------
    looked_up, asked, calls : ids that lookups came with, pages asked for, and in how many calls.
    ahead : pages of `asked` that were asked for by the thread.
    waited : seconds that lookups spent asking.
    """

    def __init__(
        self, memory: mmap.mmap, address: int, first: int, rows: int, row_bytes: int
    ) -> None:
        self._memory = memory
        self._address = address
        self._length = len(memory)
        self._layout = (rows, row_bytes, first, SHIFT)
        # The most pages a row touches; one if rows divide pages and begin with one.
        aligned = row_bytes and mmap.PAGESIZE % row_bytes == 0 and first % row_bytes == 0
        self._spread = 1 if aligned else (row_bytes + 2 * mmap.PAGESIZE - 2) >> SHIFT
        # Zeros of NumPy's take memory when they are touched: a byte per page that was.
        self._marks = np.zeros((self._length >> SHIFT) + 1, np.uint8)
        self._left = 0
        self._resting = row_bytes == 0
        self._calm = 0
        self._faults = 0
        self._random = False
        self._loose: deque[Portion] = deque()
        self.looked_up = self.asked = self.calls = self.ahead = 0
        self.waited = 0.0

    @property
    def resting(self) -> bool:
        """Whether lookups do not ask for pages, because they have been finding them in memory."""
        return self._resting

    def expect(self, ids: IdArray) -> None:
        """Ask for the pages of rows that are about to be read, unless they will be in memory.

        Parameters
        ----------
        ids : (n,) contiguous int32 or int64; those outside the column are passed over.
        """
        self._left -= ids.size
        if self._left < 0:
            self._look(ids)

    def _look(self, ids: IdArray) -> None:
        if self._resting:
            faults = page_calls.major_faults()
            risen, self._faults = faults - self._faults, faults
            since = LOOK_EVERY - self._left
            self.looked_up += since
            if risen <= since * FAULTS_TO_WAKE:
                self._left = LOOK_EVERY
                return
            self._wake()
        self._left = 0
        self.looked_up += ids.size
        pages = self._wanted(ids, _ASKED)
        if pages.size and self._watches(pages):
            begin = time.perf_counter()
            self._ask(pages, -1)
            self.waited += time.perf_counter() - begin

    def queue(self, ids: IdArray) -> PageArray:
        """Mark the pages of rows, ascending, which `read_queued` will ask for, and return them."""
        pages = self._wanted(ids, _ASKED)
        if self._resting:
            if pages.size == 0 or self.in_memory(pages):
                return pages[:0]
            self._wake()
        page_calls.set_marks(self._marks, pages, _QUEUED)
        return pages

    def read_queued(self, pages: PageArray) -> None:
        """Ask for queued pages that nobody has asked for since."""
        if pages.size and self._watches(pages):
            self.ahead += self._ask(pages, _ASKED)

    def forget(self, pages: PageArray) -> None:
        """Take the marks off pages."""
        page_calls.set_marks(self._marks, pages, _NOTHING)

    def keep(self, portion: Portion) -> None:
        """Forget pages when some later ones are kept."""
        self._loose.append(portion)
        while len(self._loose) > LOOSE:
            self._loose.popleft().done()

    def _wanted(self, ids: IdArray, passed: int) -> PageArray:
        out = np.empty(ids.size * self._spread, np.int64)
        count = page_calls.pages_of(ids, *self._layout, self._marks, passed, out)
        pages = out[:count]
        pages.sort()
        return pages

    def _ask(self, pages: PageArray, mark: int) -> int:
        calls, asked = page_calls.read_ahead(
            self._address, self._length, SHIFT, pages, self._marks, _ASKED, mark
        )
        self.calls += calls
        self.asked += asked
        return int(asked)

    def in_memory(self, pages: PageArray) -> bool:
        """Whether some of the pages, one at least, are all in memory."""
        some = pages[:: -(-pages.size // SAMPLE)].copy()
        return bool(page_calls.resident(self._address, SHIFT, some) == some.size)

    def _watches(self, pages: PageArray) -> bool:
        """Learn from a sample of pages; False if the column rests from now on."""
        if not self.in_memory(pages):
            self._calm = 0
            if not self._random:
                # A fault that comes all the same shall not read what lies around it.
                self._advise(mmap.MADV_RANDOM)
                self._random = True
            return True
        self._calm += 1
        if self._calm < CALM_TO_REST:
            return True
        self._resting = True
        self._left = LOOK_EVERY
        self._faults = page_calls.major_faults()
        if self._random:
            self._advise(mmap.MADV_NORMAL)
            self._random = False
        return False

    def _wake(self) -> None:
        self._resting = False
        self._calm = 0

    def resident(self) -> float | None:
        """Return the share of the pages that are in memory; None if it cannot be told.

        Of a map of many pages, windows spread over it are looked at: two million pages in all.
        """
        pages, window = self._length >> SHIFT, 1024
        stride = max(1, pages // (2048 * window))
        work = np.empty(window, np.uint8)
        found = looked = 0
        for first in range(0, pages, window * stride):
            some = min(window, pages - first)
            address = self._address + (first << SHIFT)
            there = page_calls.resident_of(address, some, SHIFT, work)
            if there < 0:
                return None
            found += there
            looked += some
        return found / looked if looked else None

    def statistics(self) -> dict[str, Any]:
        """Return what has been done, and how much is in memory; see `Table.stats`."""
        return {
            "resident": self.resident(),
            "resting": self._resting,
            "ids": self.looked_up,
            "pages asked": self.asked,
            "pages asked ahead": self.ahead,
            "calls": self.calls,
            "seconds waited": self.waited,
            "dirty bytes": process.dirty_bytes(self._address, self._length),
        }

    def _advise(self, advice: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # advice, after all
            self._memory.madvise(advice)


def read_later(parts: list[tuple[ColumnPages | None, IdArray]]) -> Prefetch:
    """Ask for the pages of rows of columns on the thread; returns at once."""
    queued = [(column, column.queue(ids)) for column, ids in parts if column is not None]
    portions = [Portion(column, pages) for column, pages in queued if pages.size]

    def read() -> None:
        for portion in portions:
            portion.read()

    if portions:
        readahead.submit(read)
    return Prefetch(portions)
