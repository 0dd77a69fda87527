"""The locks of several writers of one table: who is there, whose turn it is, who died in a step.

Must not know the journal or rows: it locks bytes of `LOCK`, and writes marks behind its text. All
that outlives a process is in the file; the system lets go of a lock when its holder dies.

A writer marks its place before a step changes rows, and takes the mark away after it. So a place
with a mark that nobody has locked is that of a writer which died in a step.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from types import TracebackType

from ..errors import TableLockedError
from .files import File
from .locks import (
    WriterLock,
    is_held,
    signature,
    this_process,
    try_lock,
    unlock,
    wait_lock,
)

POLICIES = ("rollback", "accept")
PLACES = 128  # of writers

# Bytes that are locked, beside those in `locks`.
_WRITERS, _JOURNAL, _DOOR, _FIRST_PLACE = 0, 2, 3, 16

# What is written in the file, behind the text.
_POLICY_AT, _MARKS_AT = 512, 1024
_NO_STEP, IN_STEP, GOING_BACK = b"\0", b"\1", b"\2"


class Turn:
    """The right to the journal: one thread of one process has it at a time; it can be nested.

    It begins with the turn taken: see `SharedLock`.

    Attributes
    ----------
    look : called whenever the turn was another's in between.
    """

    def __init__(self, file: File) -> None:
        """Take the turn."""
        self.look: Callable[[], None] = lambda: None
        self._file = file
        self._threads = threading.RLock()
        self._threads.acquire()
        self._depth = 1
        wait_lock(file, _JOURNAL)

    def __enter__(self) -> None:
        """Take the turn."""
        self._threads.acquire()
        try:
            if self._depth == 0 and self._file.fd >= 0:
                wait_lock(self._file, _JOURNAL)
                self._depth = 1
                try:
                    self.look()
                except BaseException:
                    self._depth = 0
                    unlock(self._file, _JOURNAL)
                    raise
            else:
                self._depth += 1
        except BaseException:
            self._threads.release()
            raise

    def __exit__(
        self,
        kind: type[BaseException] | None = None,
        error: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        """Give the turn to others."""
        self._depth -= 1
        if self._depth == 0 and self._file.fd >= 0:
            unlock(self._file, _JOURNAL)
        self._threads.release()


class SharedLock(WriterLock):
    """A place among the writers of a table; the door is shut, and the turn taken, until `enter`.

    Parameters
    ----------
    policy : one of POLICIES; the first writer's is everybody's.

    Attributes
    ----------
    first : whether there is no other writer, while the door is shut.
    turn : see `Turn`.

    Raises
    ------
    TableLockedError  somebody has the table for himself, or there is no place.
    ValueError        the other writers have another policy.
    """

    def __init__(self, file: File, table: str, policy: str) -> None:
        """Take a place."""
        self._policy = policy
        super().__init__(file, table)

    def _take(self, table: str) -> None:
        file = self._file
        try:
            wait_lock(file, _DOOR)
            self.first = try_lock(file, _WRITERS)
            if not self.first and not try_lock(file, _WRITERS, shared=True):
                raise self._refusal(table, "Close it there, or share it there too")
            if self.first:
                self._sign(f"{this_process()}, which shares it")
                file.write(self._policy.encode().ljust(16, b"\0"), _POLICY_AT)
            elif (theirs := file.read(16, _POLICY_AT).rstrip(b"\0").decode()) != self._policy:
                raise ValueError(
                    f"{table} is shared with on_writer_death={theirs!r} by {signature(file)}, got "
                    f"{self._policy!r}; all writers must want the same"
                )
            self.turn = Turn(file)
            self._place = self._take_place(table)
            self._steps = 0
        except BaseException:
            file.close()
            raise

    def _take_place(self, table: str) -> int:
        for place in range(PLACES):
            if try_lock(self._file, _FIRST_PLACE + place):
                if self._mark(place) == _NO_STEP:
                    return place
                unlock(self._file, _FIRST_PLACE + place)  # of one that died in a step
        raise TableLockedError(f"{table} has {PLACES} writers, and no place for another one")

    def enter(self) -> None:
        """Open the door to others."""
        if self.first:
            try_lock(self._file, _WRITERS, shared=True)
        self.first = False
        self.turn.__exit__()
        unlock(self._file, _DOOR)

    def leaves_last(self) -> bool:
        """Whether there is no other writer; the door is shut until `release`."""
        wait_lock(self._file, _DOOR)
        self.first = try_lock(self._file, _WRITERS)
        return self.first

    def release(self) -> None:
        """Give the place back; a second time, or in a forked child, this does nothing."""
        if self._file.fd >= 0:
            if self.first:
                self._sign("")
            elif self._steps:
                self._write_mark(self._place, _NO_STEP)
            self._file.close()

    # Steps. A mark is made in one's own turn, so that nobody begins a step in another's.

    @property
    def in_step(self) -> bool:
        """Whether this writer's place is marked."""
        return self._steps > 0

    def begin_step(self, kind: bytes = IN_STEP) -> None:
        """Mark the place."""
        self._steps += 1
        self._write_mark(self._place, kind)

    def end_step(self) -> None:
        """Take the mark away when as many steps have ended as began."""
        self._steps = max(0, self._steps - 1)
        if self._steps == 0 and self._file.fd >= 0:
            self._write_mark(self._place, _NO_STEP)

    def steps(self) -> tuple[int, dict[int, bytes]]:
        """Return how many other writers are in a step, and the marks of those that died in one.

        In one's own turn, so that none of them takes a place, or begins a step, meanwhile.
        """
        active, dead = 0, {}
        marks = self._file.read(PLACES, _MARKS_AT)
        for place, mark in enumerate(marks):
            if mark and place != self._place:
                if is_held(self._file, _FIRST_PLACE + place):
                    active += 1
                # It may have ended the step and left since: then the mark is gone.
                elif (kind := self._mark(place)) != _NO_STEP:
                    dead[place] = kind
        return active, dead

    def forget(self, dead: dict[int, bytes]) -> None:
        """Take away the marks of dead writers."""
        for place in dead:
            self._write_mark(place, _NO_STEP)

    def _mark(self, place: int) -> bytes:
        return self._file.read(1, _MARKS_AT + place) or _NO_STEP

    def _write_mark(self, place: int, kind: bytes) -> None:
        os.pwrite(self._file.fd, kind, _MARKS_AT + place)
