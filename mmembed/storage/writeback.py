"""Writing pages back before the system must, so that few are changed and not on the disk.

Must not know rows' values, commits or the journal: what a row was is in the journal, durably at
level `power`, before the row changes, so its page may go to the disk at any moment from then on.

A thread here keeps pages that changed below a budget. It writes pages that change again and again
once for each time that it comes by, which the system, left alone, does less often: so there is no
budget unless one is given.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Mapping
from concurrent import futures

import numpy as np

from . import page_calls
from .files import Directory, File
from .pages import SHIFT, ColumnPages, Marks, PageArray
from .store import RowArray

EARLY = 2  # a write-back begins when such a part of the budget has changed

_CHANGED = 1  # the mark of a page
_THREAD = "mmembed-writer"


class WriteBack:
    """What of a table was changed, and a thread that writes it back.

    Attributes
    ----------
    budget : bytes of pages that may be changed and not on the disk; None: left to the system.
    begun, waits : how often the thread has begun to write back, and a change has waited for it.
    """

    def __init__(self, directory: Directory) -> None:
        """Begin without a budget. The directory is the caller's."""
        self.budget: int | None = None
        self.begun = self.waits = 0
        self._directory = directory
        self._pid = os.getpid()
        self._marks: dict[str, Marks] = {}
        self._files: dict[str, File] = {}
        self._batches: list[tuple[Marks, PageArray]] = []
        self._pages = 0  # changed, and not handed to the thread
        self._running = 0  # handed to it
        self._done: futures.Future[None] | None = None
        self._thread: futures.ThreadPoolExecutor | None = None

    def give(self, budget: int) -> None:
        """Take this budget; 0 leaves writing back to the system."""
        self.budget = budget or None

    def admit(self, files: Mapping[ColumnPages, str], rows: RowArray | None) -> None:
        """Wait until rows may be changed within the budget.

        Raises
        ------
        ValueError  their pages alone are more than the budget.
        """
        if self.budget is None or rows is None:
            return
        need = self._lying_in(files, rows, -1)
        if need << SHIFT > self.budget:
            raise ValueError(
                f"{rows.size} rows that change at once lie in {need} pages, and dirty_budget is "
                f"{self.budget} bytes; it must be at least {need << SHIFT} for them"
            )
        self._settle()
        if self._pages + self._running + need << SHIFT <= self.budget:
            return
        new = self._lying_in(files, rows, _CHANGED)
        while self._pages + self._running and (
            self._pages + self._running + new << SHIFT > self.budget
        ):
            if not self._running:
                self._start()
                new = need
            self.waits += 1
            self._settle(wait=True)

    def changed(self, files: Mapping[ColumnPages, str], rows: RowArray | None) -> None:
        """Take note of rows that changed (None: all), and begin to write back if it is time."""
        if self.budget is None:
            return
        for pages, name in files.items():
            marks = self._of(pages, name)
            if rows is None:
                self._pages += pages.count
                continue
            new = pages.lying_in(rows, marks, _CHANGED)
            page_calls.set_marks(marks, new, _CHANGED)
            self._batches.append((marks, new))
            self._pages += new.size
        self._settle()
        if not self._running and self._pages << SHIFT > self.budget // EARLY:
            self._start()

    def forget(self) -> None:
        """Forget what changed, for files may lose their names; the budget stays."""
        self._settle(wait=True)
        for file in self._files.values():
            file.close()
        self._files, self._marks, self._batches, self._pages = {}, {}, [], 0

    def close(self) -> None:
        """Let files and thread go; a second time is harmless."""
        thread, self._thread = self._thread, None
        self.budget = None
        if thread is not None and self._pid == os.getpid():
            # The last reference to a table can go on any thread.
            thread.shutdown(wait=threading.current_thread().name[:15] != _THREAD[:15])
        for file in self._files.values():
            file.close()
        self._files = {}

    def _lying_in(self, files: Mapping[ColumnPages, str], rows: RowArray, passed: int) -> int:
        """Return how many pages rows lie in, but for those with a mark."""
        return sum(p.lying_in(rows, self._of(p, name), passed).size for p, name in files.items())

    def _of(self, pages: ColumnPages, name: str) -> Marks:
        """Return a byte per page of a file, which says whether it changed."""
        marks = self._marks.get(name)
        if marks is None or marks.size != pages.count:
            marks = self._marks[name] = np.zeros(pages.count, np.uint8)
        return marks

    def _start(self) -> None:
        """Hand what has changed to the thread."""
        for marks, pages in self._batches:
            page_calls.set_marks(marks, pages, 0)
        self._batches = []
        self._running, self._pages = self._pages, 0
        self.begun += 1
        if self._thread is None:
            self._thread = futures.ThreadPoolExecutor(1, _THREAD)
        self._done = self._thread.submit(self._write, tuple(self._marks))

    def _settle(self, *, wait: bool = False) -> None:
        if self._done is not None and (wait or self._done.done()):
            # What fails here fails again in the commit, which has the maps' own report of it.
            self._done.exception()
            self._done, self._running = None, 0

    def _write(self, names: tuple[str, ...]) -> None:
        for name in names:
            if name not in self._files:
                # Not the description that the map has: an error that is told here would not be
                # told again when a commit syncs the map.
                self._files[name] = self._directory.open_file(name, writable=True)
            self._files[name].write_back()
