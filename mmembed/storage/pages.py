"""Planned reading of one mapped file: the pages that rows lie in are asked for before the rows.

Must not know ids' meaning, locks or commits. A row that is read from a page which is not in memory
costs one wait for the disk; the same pages asked for at once, in order, cost hardly more than one.

A column is either *resting*, when lookups find its pages in memory and asking would cost more than
it saves, or *watched*: each lookup asks for its pages. Samples of pages found in memory put a
column to rest if nothing is read from disks meanwhile; page faults wake it.
"""

from __future__ import annotations

import contextlib
import mmap
import time
from collections import deque
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import memory
from ..errors import CorruptTableError
from . import page_calls, process, readahead
from .distinct import Distinct
from .unwritten import Unwritten

IdArray = npt.NDArray[np.signedinteger[Any]]
PageArray = npt.NDArray[np.int64]
Marks = page_calls.Marks

SHIFT = mmap.PAGESIZE.bit_length() - 1
LOOK_EVERY = 4096  # ids between two looks at the page faults, while a column rests
FAULTS_TO_WAKE = 0.005  # of the ids in between; at 70 us each they cost as much as asking for all
# A fault can bring in megabytes, what lies around it included: then few of them are dear.
BYTES_TO_WAKE = 128  # per id in between; a page in 32 ids costs a quarter of a microsecond an id
SAMPLE = 16  # pages looked up before a batch is asked for
CALM_TO_REST = 4  # samples in a row that were all in memory
ASIDE = 16  # looks after pages were asked for ahead, in which what is left is no fair sample
LATE = 2  # pages of a sample may be missing from a batch that has arrived
LOOSE = 4  # batches asked for in the background that nobody has said he is done with

# Marks of pages.
_NOTHING, _QUEUED, _ASKED = 0, 1, 2


class Portion:
    """Pages of one column that the thread is to ask for, until `done`."""

    __slots__ = ("_job", "column", "pages", "used")

    def __init__(self, column: ColumnPages, pages: PageArray) -> None:
        self.column = column
        self.pages = pages
        self.used = False
        self._job: Any = None

    def start(self) -> None:
        """Have the thread ask for the pages."""
        if page_calls.Job is not None:
            self._job = self.column.submit(self.pages)
        else:
            readahead.submit(self._read)

    def _read(self) -> None:
        if not self.used:
            self.column.read_queued(self.pages)
        if self.used:  # by now: the marks made since go as well
            self.column.forget(self.pages)

    @property
    def counts(self) -> tuple[int, int]:
        """Calls made, and pages asked for, that the column does not know of."""
        return (0, 0) if self._job is None else self._job.counts

    def done(self) -> None:
        """Forget the pages; ends the asking, if it goes on."""
        self.used = True
        if self._job is not None:
            self._job.cancel()
        self.column.settle(self)
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
        return all(portion.column.missing(portion.pages) <= LATE for portion in self.portions)

    def done(self) -> None:
        """Forget the pages: from now on they are asked for again when they are needed."""
        for portion in self.portions:
            portion.done()

    def keep(self) -> None:
        """Be done when some later ones are kept."""
        for portion in self.portions:
            portion.column.keep(portion)


class ColumnPages:
    """The pages of one column, or of the columns that are in records.

    Parameters
    ----------
    memory : the map of the column's file.
    address : where it begins.
    first : byte of the map at which row 0 begins.
    rows, row_bytes : the column's; of records, their number and their stride.
    unwritten : tells which rows are not in the file, and need no reading; None: all are.

    Attributes
    ----------
    looked_up : ids that lookups came with.
    changed, changed_bytes : rows that were about to be changed, and their bytes, of all columns.
    waited, stalled : seconds that lookups spent asking; and until they had the rows.
    """

    def __init__(
        self,
        memory: mmap.mmap,
        address: int,
        first: int,
        rows: int,
        row_bytes: int,
        unwritten: Unwritten | None = None,
    ) -> None:
        self._unwritten = unwritten
        self._memory = memory
        self._address = address
        self._length = len(memory)
        self._layout = (rows, row_bytes, first, SHIFT)
        # The most pages a row touches; one if rows divide pages and begin with one.
        aligned = row_bytes and mmap.PAGESIZE % row_bytes == 0 and first % row_bytes == 0
        self._spread = 1 if aligned else (row_bytes + 2 * mmap.PAGESIZE - 2) >> SHIFT
        # Zeros of NumPy's take memory when they are touched: a byte per page that was.
        self._marks = np.zeros(self.count, np.uint8)
        self._left = 0
        self._resting = row_bytes == 0
        self._calm = 0
        self._faults = self._read = 0
        self._calm_since = 0  # ids looked up when the first calm sample was taken
        self._aside = 0
        self._random = False
        self._loose: deque[Portion] = deque()
        self._asked = self._calls = self._ahead = 0
        self._started: set[Portion] = set()
        self._distinct_rows, self._distinct_pages = Distinct(), Distinct()
        self._expected_at = 0.0
        self.looked_up = self.changed = self.changed_bytes = 0
        self.waited = self.stalled = 0.0

    @property
    def resting(self) -> bool:
        """Whether lookups do not ask for pages, because they have been finding them in memory."""
        return self._resting

    @property
    def asked(self) -> int:
        """Pages asked for."""
        return self._asked + sum(portion.counts[1] for portion in self._started)

    @property
    def ahead(self) -> int:
        """Pages of those that were asked for by the thread."""
        return self._ahead + sum(portion.counts[1] for portion in self._started)

    @property
    def calls(self) -> int:
        """Calls in which they were asked for."""
        return self._calls + sum(portion.counts[0] for portion in self._started)

    def expect(self, ids: IdArray) -> bool:
        """Ask for the pages of rows that are about to be read, unless they will be in memory.

        Parameters
        ----------
        ids : (n,) contiguous int32 or int64; those outside the column are passed over.

        Returns
        -------
        Whether the column is watched.

        Raises
        ------
        CorruptTableError  see `check_size`.
        """
        self.check_size()
        self._left -= ids.size
        return self._left < 0 and self._look(ids)

    def check_size(self) -> None:
        """Raise CorruptTableError if the file has become shorter than its map.

        Touching what was cut off would end the process. Whoever cuts it off between this look and
        the touch still does.
        """
        size = self._memory.size()
        if size < self._length:
            raise CorruptTableError(
                f"a column's file was truncated while the table was open: it has {size} bytes, and "
                f"the table {self._length}"
            )

    def _look(self, ids: IdArray) -> bool:
        if self._resting:
            faults = page_calls.major_faults()
            risen, self._faults = faults - self._faults, faults
            since = LOOK_EVERY - self._left
            self.looked_up += since
            read = page_calls.bytes_read()
            more, self._read = read - self._read if risen else 0, read
            if risen <= since * FAULTS_TO_WAKE and more <= since * BYTES_TO_WAKE:
                self._left = LOOK_EVERY
                return False
            self._wake()
        self._left = 0
        self.looked_up += ids.size
        self._expected_at = time.perf_counter()
        self._distinct_rows.add(ids)
        pages = self._wanted(ids, _ASKED)
        self._aside = max(0, self._aside - 1)
        if pages.size and self._watches(pages, fair=not self._aside):
            begin = time.perf_counter()
            self._ask(pages, -1)
            self.waited += time.perf_counter() - begin
        return not self._resting

    def have(self) -> None:
        """Say that the rows that were expected last have been read."""
        if self._expected_at:
            self.stalled += time.perf_counter() - self._expected_at
            self._expected_at = 0.0

    def queue(self, ids: IdArray) -> Portion | None:
        """Mark the pages of rows, which the thread shall ask for; None if it need not."""
        pages = self._wanted(ids, _ASKED)
        if pages.size == 0 or not self._watches(pages, fair=True):
            return None
        self._aside = ASIDE
        page_calls.set_marks(self._marks, pages, _QUEUED)
        return Portion(self, pages)

    def submit(self, pages: PageArray) -> Any:
        """Have the thread ask for queued pages that nobody has asked for by then."""
        return page_calls.Job(
            self._memory, self._address, self._length, SHIFT, pages, self._marks, _ASKED, _ASKED
        )

    def read_queued(self, pages: PageArray) -> None:
        """Ask for queued pages that nobody has asked for since."""
        self._ahead += self._ask(pages, _ASKED)

    def start(self, portion: Portion) -> None:
        """Start a portion, and count what it asks for."""
        self._started.add(portion)
        portion.start()

    def settle(self, portion: Portion) -> None:
        """Take over what a portion that has ended has counted."""
        if portion in self._started:
            calls, asked = portion.counts
            self._started.discard(portion)
            self._calls += calls
            self._asked += asked
            self._ahead += asked

    def forget(self, pages: PageArray) -> None:
        """Take the marks off pages."""
        page_calls.set_marks(self._marks, pages, _NOTHING)

    def keep(self, portion: Portion) -> None:
        """Forget pages when some later ones are kept."""
        self._loose.append(portion)
        while len(self._loose) > LOOSE:
            self._loose.popleft().done()

    def close(self) -> None:
        """End all asking."""
        for portion in list(self._started):
            portion.done()
        self._loose.clear()

    @property
    def count(self) -> int:
        """Number of pages of the map."""
        return (self._length >> SHIFT) + 1

    def lying_in(self, ids: IdArray, marks: Marks, passed: int) -> PageArray:
        """Return the pages that rows lie in, as the ids come, but for those with a mark."""
        out = np.empty(ids.size * self._spread, np.int64)
        return out[: page_calls.pages_of(ids, *self._layout, marks, passed, out)]

    def _wanted(self, ids: IdArray, passed: int) -> PageArray:
        if self._unwritten is not None:
            ids = self._unwritten.without(ids)
        pages = self.lying_in(ids, self._marks, passed)
        pages.sort()
        self._distinct_pages.add(pages)
        return pages

    def _ask(self, pages: PageArray, mark: int) -> int:
        calls, asked = page_calls.read_ahead(
            self._address, self._length, SHIFT, pages, self._marks, _ASKED, mark
        )
        self._calls += calls
        self._asked += asked
        return int(asked)

    def in_memory(self, pages: PageArray) -> bool:
        """Whether some of the pages, one at least, are all in memory."""
        return self.missing(pages) == 0

    def missing(self, pages: PageArray) -> int:
        """Return how many of some pages, 16 at most, are not in memory."""
        some = pages[:: -(-pages.size // SAMPLE)].copy()
        return int(some.size - page_calls.resident(self._address, SHIFT, some))

    def _watches(self, pages: PageArray, fair: bool) -> bool:
        """Learn from a sample of pages; False if the column rests, or does from now on.

        `fair` : whether the pages were not picked by their not being on their way already.
        """
        if not self.in_memory(pages):
            self._wake()
            if not self._random:
                # A fault that comes all the same shall not read what lies around it.
                self._advise(mmap.MADV_RANDOM)
                self._random = True
            return True
        if self._resting:
            return False
        if not fair:
            return True
        self._calm += 1
        read = page_calls.bytes_read()
        if self._calm == 1:
            self._calm_since, self._read = self.looked_up, read
        if self._calm < CALM_TO_REST:
            return True
        if read - self._read > (self.looked_up - self._calm_since) * BYTES_TO_WAKE:
            self._calm = 0
            return True
        self._resting = True
        self._left = LOOK_EVERY
        self._faults, self._read = page_calls.major_faults(), read
        if self._random and self._length <= memory.limit() // 2:
            # Of a larger map a fault must go on to read nothing else: that would push out more
            # than it brings in, and the next faults with it.
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
            "distinct rows": self._distinct_rows.estimate,
            "distinct pages": self._distinct_pages.estimate,
            "rows changed": self.changed,
            "pages asked": self.asked,
            "pages asked ahead": self.ahead,
            "calls": self.calls,
            "seconds waited": self.waited,
            "seconds until read": self.stalled,
            "dirty bytes": process.dirty_bytes(self._address, self._length),
        }

    def _advise(self, advice: int) -> None:
        with contextlib.suppress(OSError, ValueError):  # advice, after all
            self._memory.madvise(advice)


def read_later(parts: list[tuple[ColumnPages | None, IdArray]]) -> Prefetch:
    """Ask for the pages of rows of columns on the thread; returns at once.

    Columns in records have their pages in common, and those are asked for once.
    """
    once = {(column, id(ids)): ids for column, ids in parts if column is not None}
    queued = [column.queue(ids) for (column, _), ids in once.items()]
    portions = [portion for portion in queued if portion is not None]
    for portion in portions:
        portion.column.start(portion)
    return Prefetch(portions)
