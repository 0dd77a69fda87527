"""Several writers of one table, killed at random, in the midst of steps too.

Each writer has groups of rows of its own, and a step sets all rows of a group to one number, in two
halves with a pause between them. So a group that is not of one number is half a step.
"""

from __future__ import annotations

import contextlib
import os
import random
import select
import signal
import time

import numpy as np

from mmembed.errors import WriterDiedError
from mmembed.storage import Table

from . import kills

GROUPS, GROUP = 4, 6  # of each writer, and rows in each
SHARED = 10  # rows at the end that all writers change
_STARTED, _COMMITTED = 1, 2


def rows_of(writer: int, group: int) -> np.ndarray:
    first = (writer * GROUPS + group) * GROUP
    return np.arange(first, first + GROUP)


def train(path, writer: int, attempt: int, policy: str, report) -> None:
    """Make steps until killed; the numbers go on from what the table has."""
    chance = random.Random(attempt)
    while True:
        table = Table.open(path, "r+", shared=True, on_writer_death=policy)
        report(_STARTED, 0, 0)
        mine = np.concatenate([rows_of(writer, group) for group in range(GROUPS)])
        number = int(table[mine].max())
        with contextlib.suppress(WriterDiedError):
            while True:
                number += 1
                step(table, writer, number, chance)
                if chance.random() < 0.2:
                    table.commit()
                    report(_COMMITTED, writer, number)
        with contextlib.suppress(WriterDiedError):
            table.close()


def step(table: Table, writer: int, number: int, chance: random.Random) -> None:
    own = rows_of(writer, number % GROUPS)
    common = np.arange(table.rows - SHARED, table.rows)[chance.randrange(SHARED) :]
    rows = np.concatenate([own, common])
    if chance.random() < 0.3:
        table.will_write(rows)
    with table.writing(rows) as columns:
        for half in (own[: GROUP // 2], own[GROUP // 2 :], common):
            columns["weight"][half] = number
            columns["count"][half] = number
            if chance.random() < 0.3:
                time.sleep(0.001 * chance.random())


def halves(table: Table, writers: int) -> int:
    """How many groups are half written."""
    found = 0
    weight, count = table[:], table.gather(range(table.rows), column="count")
    for writer in range(writers):
        for group in range(GROUPS):
            rows = rows_of(writer, group)
            numbers = {*weight[rows].ravel().tolist(), *count[rows].tolist()}
            found += len(numbers) > 1
    return found


class Campaign:
    """Writers, one of which is killed at a time.

    Attributes
    ----------
    commits : of the table, so far.
    torn : how many groups were half written in a commit, the most at a time.
    """

    def __init__(self, path, policy: str, writers: int = 3, seed: int = 1) -> None:
        self.path, self.policy, self.writers = path, policy, writers
        self.chance = random.Random(seed)
        self.attempt = self.commits = self.torn = 0
        self.acknowledged = [0] * writers
        rows = writers * GROUPS * GROUP + SHARED
        with Table.create(path, rows, 3, init="zeros", durability="process") as table:
            table.add_column("count", scalar=True)

    def _start(self, writer: int) -> tuple[int, int]:
        self.attempt += 1
        attempt = self.attempt
        child, reading = kills.in_child(
            lambda report: train(self.path, writer, attempt, self.policy, report)
        )
        select.select([reading], [], [], 30)
        return child, reading

    def _end(self, child: int, reading: int) -> None:
        os.kill(child, signal.SIGKILL)
        for kind, writer, number in kills.reports(child, reading):
            if kind == _COMMITTED:
                self.acknowledged[writer] = max(self.acknowledged[writer], number)

    def run(self, count: int, longest: float = 0.05) -> None:
        """Kill so many writers, one after the other; then all, and look at what is left."""
        running: dict[int, tuple[int, int]] = {}
        try:
            for writer in range(self.writers):
                running[writer] = self._start(writer)
            with Table.open(self.path, view="committed") as reader:
                for _ in range(count):
                    time.sleep(self.chance.uniform(0, longest))
                    victim = self.chance.randrange(self.writers)
                    self._end(*running.pop(victim))
                    running[victim] = self._start(victim)
                    self.torn = max(self.torn, self._look(reader))
        finally:
            for child in running.values():
                self._end(*child)
        self.check()

    def _look(self, reader: Table) -> int:
        with reader.pin():
            weight = reader[:]
        return sum(
            len(np.unique(weight[rows_of(writer, group)])) > 1
            for writer in range(self.writers)
            for group in range(GROUPS)
        )

    def check(self) -> None:
        """What was acknowledged is there; half a step only where that was accepted."""
        with Table.open(self.path, "r+") as table:
            self.torn = max(self.torn, halves(table, self.writers))
            self.commits = table.commits
            for writer, number in enumerate(self.acknowledged):
                rows = np.concatenate([rows_of(writer, group) for group in range(GROUPS)])
                found = int(table[rows].max())
                assert found >= number, f"writer {writer} lost {number}, has {found}"
            if self.policy == "rollback":
                assert self.torn == 0, f"{self.torn} half steps"
