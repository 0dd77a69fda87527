"""A gather of one commit with a writer acting in the midst of it, at each place where it can.

The reader stops before and after every read of a file and of the rows; there the writer writes,
commits, goes back, grows, dies or opens the table again. What the gather returns must be one of the
commits that were the last one at some moment of it.
"""

from __future__ import annotations

import itertools

import numpy as np

from mmembed.storage import Table
from mmembed.storage.journal import Journal

ROWS = 40


class Writer:
    """A writer and what commits it made."""

    def __init__(self, path, seed: int) -> None:
        self.path = path
        self.chance = np.random.default_rng(seed)
        self.table = Table.create(path, ROWS, 3, init="zeros", durability="process")
        self.rows = np.zeros(ROWS, np.float32)
        self.commits = [self.rows.copy()]
        self.value = 0.0
        self.write()
        self.commit()

    def write(self) -> None:
        self.value += 1
        rows = np.unique(self.chance.integers(0, ROWS, 12))
        self.rows[rows] = self.value
        self.table.write(rows, self.value)

    def commit(self) -> None:
        self.commits.append(self.rows.copy())
        self.table.commit()

    def rollback(self) -> None:
        self.rows = self.commits[-1].copy()
        self.table.rollback()

    def die(self) -> None:
        """Leave the files as a killed process does, and open the table again."""
        self.table._store._release()
        self.table._closed = True
        self.rows = self.commits[-1].copy()
        self.table = Table.open(self.path, "r+")

    def die_unopened(self) -> None:
        """The same, but the next one opens the table only when it has to."""
        self.table._store._release()
        self.table._closed = True

    def die_while_committing(self) -> None:
        """Die when the commit is recorded, before the journal begins anew."""
        begin, Journal.begin = Journal.begin, _dies
        try:
            self.commit()
        except InterruptedError:
            pass
        finally:
            Journal.begin = begin
        self.die_unopened()

    def grow(self) -> None:
        self.table.resize(self.table.rows + 1)

    def close(self) -> None:
        self.rows = self.commits[-1].copy()
        self.table.close(commit=False)

    def act(self, *actions: str) -> None:
        """Do these one after the other, opening the table again where it is not open."""
        for action in actions:
            if self.table.closed and action != "open":
                self.act("open")
            if action == "open":
                self.rows = self.commits[-1].copy()
                self.table = Table.open(self.path, "r+")
            else:
                getattr(self, action)()


def _dies(*_):
    raise InterruptedError


ACTIONS = (
    ("write",),
    ("write", "commit"),
    ("commit",),
    ("commit", "write"),
    ("commit", "write", "commit", "write"),
    ("rollback",),
    ("rollback", "write"),
    ("write", "write", "rollback", "write"),
    ("write", "die"),
    ("write", "die", "write"),
    ("write", "write", "die", "write", "write"),
    ("die_unopened",),
    ("write", "die_while_committing"),
    ("write", "die_while_committing", "open"),
    ("write", "die_while_committing", "write"),
    ("close",),
    ("write", "close", "write", "write"),
    ("write", "grow", "write"),
)


class Reader:
    """A reader that stops at every place, and lets the writer act at chosen ones."""

    def __init__(self, path) -> None:
        self.table = Table.open(path, view="committed")
        self.view = self.table._store.committed
        self.plan: dict[int, tuple[str, ...]] = {}
        self.place = 0
        for file in (self.view._journal, self.view._super):
            file.read = self._stopping(file.read)
        self.view.gather = self._gather(self.view.gather)

    def _gather(self, gather):
        return lambda name, ids, copy: gather(name, ids, self._stopping(copy))

    def _stopping(self, call):
        def stops(*arguments):
            self._stop()
            result = call(*arguments)
            self._stop()
            return result

        return stops

    def _stop(self) -> None:
        actions = self.plan.pop(self.place, ())
        self.place += 1
        self.writer.act(*actions)

    def gather(self, writer: Writer, plan: dict[int, tuple[str, ...]]) -> bool:
        """Gather all rows; False if the gather had ended before all of the plan was done."""
        self.writer, self.plan, self.place = writer, dict(plan), 0
        first = len(writer.commits) - 1
        found = self.table.gather(np.arange(ROWS))
        done, self.plan = not self.plan, {}
        possible = writer.commits[first:]
        assert any((found == rows[:, None]).all() for rows in possible), (
            f"rows of no commit after {plan}: {found[:, 0]}, not one of {possible}"
        )
        return done


def every_schedule(path, seed: int, random: int) -> int:
    """Each action at each place, then three at random places, `random` times; returns how many."""
    writer, count = Writer(path, seed), 0
    reader = Reader(path)
    try:
        for actions in ACTIONS:
            for place in itertools.count():
                count += 1
                if not reader.gather(writer, {place: actions}):
                    break
        for _ in range(random):
            places = np.sort(writer.chance.integers(0, 24, 3))
            chosen = [ACTIONS[number] for number in writer.chance.integers(0, len(ACTIONS), 3)]
            reader.gather(writer, dict(zip(places.tolist(), chosen, strict=True)))
            count += 1
            if writer.chance.random() < 0.1:
                reader.table.close()
                reader = Reader(path)
    finally:
        reader.table.close()
        writer.close()
    return count
