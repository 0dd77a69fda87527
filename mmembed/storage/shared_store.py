"""A table's directory with several writers at a time (Hogwild), each in a process of its own.

Must not know ids or gradients. The laws of `directory` hold for all writers together: saving rows,
committing and going back happen in one's own turn; only the stores to rows do not, and a commit
waits until nobody is at it. Two writers may change a row at once; that is what is asked for.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any, NoReturn, final

from ..errors import WriterDiedError
from .column import Column
from .directory import DirectoryStore, _Door
from .files import Directory
from .format import Superblock, decode_super
from .journal_format import Header, Layout
from .shared_journal import SharedJournal
from .sharing import GOING_BACK, SharedLock
from .store import FloatArray, RowArray, check_not_quantized

_NAP = 0.0002  # seconds between two looks at whether steps have ended


@final
class SharedStore(DirectoryStore):
    """Columns that other writers change too; see `Table.open`.

    Attributes
    ----------
    deaths : see `Table.writer_deaths`.
    """

    def __init__(self, directory: Directory, policy: str) -> None:
        """Take a place among the writers, check and map the table."""
        self._share = policy
        self.deaths = 0
        super().__init__(directory, "r+")
        self._raw = b""
        self._turn = self._log.lock
        self._log.moved = self._moved

    @classmethod
    def share(cls, path: str, policy: str, **allowed: bool) -> SharedStore:
        """Open the table at `path`; the first writer brings it back to its last commit."""
        store = cls(Directory.open(path, **allowed), policy)
        try:
            check_not_quantized(store.superblock, path)
            if any(column.lazy for column in store.superblock.columns):
                store._refuse("rows that are computed until they are written have one writer")
            if any(column.checks for column in store.superblock.columns):
                store._refuse("checksums of rows that two change at once would be of neither")
            if store._files.changes is not None:
                store._refuse("changes cannot be tracked, and it tracks them: it has one writer")
            if store._lock.first:
                store._recover()
            else:
                recorded = store._files.super.last
                store._log.join(Layout(recorded.columns), recorded.rows)
                store._end_commit()
                store._settle_deaths()
            store._lock.enter()
        except BaseException:
            store._release()
            raise
        return store

    @property
    def _lock(self) -> SharedLock:
        lock = self._files.lock
        assert isinstance(lock, SharedLock)
        return lock

    @property
    def _log(self) -> SharedJournal:
        log = self._files.journal
        assert isinstance(log, SharedJournal)
        return log

    def check_writable(self) -> None:
        """See `Store.check_writable`."""
        failure = self._health.failure
        if isinstance(failure, WriterDiedError):
            raise WriterDiedError(str(failure))
        super().check_writable()

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """See `Store.alone`: it is one's own turn, and nobody is in a step."""
        self.check_writable()
        with self._turn:
            self.check_writable()
            if lost := self._settle_deaths():
                self._fail(f"{lost} other writers died in a step, and the table went back")
            recorded, mine = self._files.super.last, self.superblock
            if recorded.epoch != mine.epoch:
                counters: dict[str, Any] = {**recorded.counters, **mine.counters}
                self.superblock = replace(recorded, counters=counters)
            yield

    def limit_dirty(self, budget: int) -> None:
        """Refuse: nobody knows what the others have changed."""
        if budget:
            raise ValueError("a table that several processes write to has no dirty_budget")

    @contextlib.contextmanager
    def writing(self, rows: RowArray | None) -> Iterator[Mapping[str, FloatArray]]:
        """See `Table.writing`; what others change in the block is not kept apart."""
        self.check_writable()
        if self._lock.in_step:
            # A commit that waits for the first block has the turn which this one would wait for.
            raise RuntimeError("a `writing` block within another one, of a shared table")
        begun = False
        try:
            with self._turn:
                self.check_writable()
                self._log.save(rows, self._files.old_rows())
                begun = True
                self._lock.begin_step()
            self._pending = True
            self._cadence.wrote()
            yield _Door(self._files.columns, self._unsynced, rows)
        finally:
            if begun:
                self._lock.end_step()

    def commit(self, superblock: Superblock) -> None:
        """See `Store.commit`; within `alone`. It commits what all writers have done."""
        self._unsynced = set(self._files.columns)
        super().commit(superblock)

    def rollback(self) -> None:
        """See `Store.rollback`; what all writers have done is undone, and ends their writing."""
        with self.alone():
            self._go_back()

    def _go_back(self) -> None:
        self._lock.begin_step(GOING_BACK)  # who finds the mark of a dead process goes on with it
        super().rollback()
        self._lock.end_step()

    def close(self) -> None:
        """Leave the table to the other writers; the last one undoes what no commit recorded."""
        try:
            sound = self._files.ours and self._health.failure is None
            if sound and not self._files.super.file.is_deleted() and self._lock.leaves_last():
                with self._turn:
                    if self._health.failure is None:
                        if self._log.records:
                            self._go_back()
                        self._unsynced = set(self._files.columns)
                        self._mark_clean()
        finally:
            self._release()

    def add(self, *columns: Column) -> None:
        """Refuse: other writers would not know the columns."""
        self._refuse(f"column {columns[0].name!r} cannot be added")

    def resize(self, superblock: Superblock) -> None:
        """Refuse: other writers have maps of the present rows."""
        self._refuse(f"it cannot grow to {superblock.rows} rows")

    def track_changes(self) -> None:
        """Refuse: a writer would not know which rows the others' commits changed."""
        self._refuse("changes cannot be tracked")

    def _refuse(self, what: str) -> NoReturn:
        raise RuntimeError(
            f"{self.path} is shared with other writers, so {what}; that takes a process that has "
            "it alone (shared=False)"
        )

    # What the others have done

    def _moved(self, before: Header, now: Header) -> None:
        """Take note of what others did since this one's last turn."""
        if now.attempt != before.attempt:
            self._fail(
                "another writer went back to the last commit, because a writer died in a step or "
                "by rollback()"
            )
        self._end_commit()

    def _end_commit(self) -> None:
        """Read the last commit; begin the journal anew if who made it died before it could."""
        last = self._files.super
        raw = last.file.read(last.file.size(), 0)
        if raw == self._raw:
            return
        with self._health.fatal():
            recorded = last.last = decode_super(raw)
            if recorded.commits == self._log.commit:
                if recorded.durability == "power":
                    last.file.sync()
                self._begin(self._log.attempt, sync=False)
        self._raw = raw

    def _settle_deaths(self) -> int:
        """Wait for steps to end, and keep those that never will, or go back; then, how many."""
        while True:
            active, dead = self._lock.steps()
            if not active:
                break
            time.sleep(_NAP)
        lost = len(dead) if self._share == "rollback" or GOING_BACK in dead.values() else 0
        if lost:
            self._go_back()
        self.deaths += len(dead) - lost
        self._lock.forget(dead)
        return lost

    def _fail(self, why: str) -> NoReturn:
        """End writing: what this writer has done since the last commit is gone."""
        self._pending = False
        error = WriterDiedError(
            f"{self.path}: {why}. What this writer did since is undone too; close the table, open "
            "it again, and go on from there"
        )
        self._health.failure = error
        raise error
