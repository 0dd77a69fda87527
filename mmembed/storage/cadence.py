"""Whether commits come so often that they cost more than they need to; a warning says so, once.

Must not know files or rows: it is told of writes and of commits, and how long these took.
"""

from __future__ import annotations

import time
import warnings

OFTEN = 50  # fewer writes than this between two commits are few
LOOK_AT = 20  # commits in a row that are looked at
SHARE = 0.25  # of the time, spent in commits, is worth a warning

_warned = False


class Cadence:
    """How commits follow each other in one table."""

    def __init__(self) -> None:
        """Begin with no write."""
        self._writes = 0
        self._start_again()

    def _start_again(self) -> None:
        self._commits = 0
        self._total = 0
        self._spent = 0.0
        self._since = time.monotonic()

    def wrote(self) -> None:
        """Take note of a write."""
        self._writes += 1

    def committed(self, seconds: float, stacklevel: int) -> None:
        """Take note of a commit, which took so long; may warn the caller that far up."""
        global _warned
        writes, self._writes = self._writes, 0
        if not 0 < writes < OFTEN:
            self._start_again()
            return
        self._commits += 1
        self._total += writes
        self._spent += seconds
        if self._commits < LOOK_AT or _warned:
            return
        share = self._spent / max(time.monotonic() - self._since, 1e-9)
        commits, each = self._commits, self._total / self._commits
        self._start_again()
        if share > SHARE:
            _warned = True
            warnings.warn(
                f"the last {commits} commits came after {each:.1f} writes each, and took "
                f"{min(share, 1):.0%} of the time: a commit waits for the disk to have every page "
                "that changed. Commit once in 100 steps or more, or use durability='process'",
                UserWarning,
                stacklevel=stacklevel + 1,
            )


def forget() -> None:
    """Warn again, once."""
    global _warned
    _warned = False
