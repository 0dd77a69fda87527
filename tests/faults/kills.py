"""Trainers that are killed with SIGKILL at random moments, in recovery too, and what is left then.

Batches and their sizes differ from attempt to attempt: identical ones would rewrite identical
records, which hides mistakes. Half of the restarts go straight into training.
"""

from __future__ import annotations

import os
import random
import select
import signal
import struct
import time

from mmembed.storage import Table

from . import replay

_STARTED, _COMMITTED = 1, 2
_REPORT = struct.Struct("<BQQ")


def in_child(task) -> tuple[int, int]:
    """Run task(report) in a forked child; returns its process id and where its reports arrive."""
    reading, writing = os.pipe()
    child = os.fork()
    if child:
        os.close(writing)
        return child, reading
    os.close(reading)
    try:
        task(lambda *report: os.write(writing, _REPORT.pack(*report)))
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)


def reports(child: int, reading: int, ends: tuple[int, ...] = ()) -> list[tuple[int, int, int]]:
    """Wait for a child; returns what it reported. Only a kill, or `ends`, may end it early."""
    with open(reading, "rb") as file:
        data = file.read()
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, -signal.SIGKILL, *ends), f"the child ended with {status}"
    return list(_REPORT.iter_unpack(data))


def kill_after(seconds: float, task, *, started: bool = False) -> list[tuple[int, int, int]]:
    """Run a task in a child, kill it some time after its start, or its first report; see `reports`.

    On a busy machine a child may need longer to start than it is given to live.
    """
    child, reading = in_child(task)
    if started:
        select.select([reading], [], [])
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)
    return reports(child, reading)


class Campaign:
    """One table, one model, and many trainers.

    Attributes
    ----------
    rolled_back : how many openings had rows to put back.
    """

    def __init__(self, path, durability: str, seed: int, layout: str = "columns") -> None:
        self.path = path
        self.model = replay.create(path, durability, layout=layout)
        self.chance = random.Random(seed)
        self.attempt = 0
        self.rolled_back = 0
        self._acknowledged = 0  # the last step of which a trainer said that its commit returned
        self._unchecked: int | None = None  # an attempt of which only the start is known

    def _train(self, report) -> None:
        table = Table.open(self.path, "r+")
        report(_STARTED, table.step, table.rows)
        step = table.step
        replay.train(
            *(table, self.attempt, step, step + 10_000),
            lambda step: report(_COMMITTED, step, 0),
        )

    def kill_once(self, longest: float = 0.05) -> None:
        """Let a trainer start, kill it, and let the model follow what is certain."""
        self.attempt += 1
        seconds, started = self.chance.uniform(0, longest), self.chance.random() < 0.75
        for kind, step, rows in kill_after(seconds, self._train, started=started):
            if kind == _STARTED:
                self._follow(step, rows)
                self._unchecked = self.attempt
            else:
                self._acknowledged = step

    def kill_recovery(self) -> None:
        """Kill a process that does nothing but open the table."""
        kill_after(self.chance.uniform(0, 0.003), lambda _: Table.open(self.path, "r+"))

    def _follow(self, step: int, rows: int) -> None:
        """Let the model make the steps of the last attempt, up to the commit that was found."""
        assert step >= self._acknowledged, "an acknowledged commit is lost"
        assert step >= self.model.step, "a commit that was there is gone"
        if self._unchecked is not None:
            replay.train(self.model, self._unchecked, self.model.step, step)
        assert self.model.step == step, "a commit that nobody made"
        self._unchecked = None
        if rows > self.model.rows:  # growths stay
            self.model.resize(rows)

    def check(self) -> None:
        """The table opens without help, at a commit no older than the last one acknowledged."""
        with Table.open(self.path, "r+") as table:
            self.rolled_back += table.recovered > 0
            self._follow(table.step, table.rows)
            replay.check(table, self.model)

    def run(self, kills: int) -> None:
        """Kill so many times; where nothing gets done, on a busy machine, later and later."""
        longest, before = 0.05, self.model.step
        for number in range(kills):
            self.kill_once(longest)
            if number % 10 == 9:
                longest, before = longest * (1 + (self.model.step == before)), self.model.step
            if number % 5 == 0:
                self.kill_recovery()
            if number % 2 == 0:
                self.check()
        self.check()
