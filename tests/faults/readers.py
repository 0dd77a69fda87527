"""Committed readers beside trainers that are killed: every gather is of one commit, to the bit.

What a commit holds follows from its number alone, so a reader knows it without asking the library:
row r is that number j, the greatest up to it, in which r was trained. What trainers write between
two commits differs from attempt to attempt: identical batches would rewrite identical records,
which hides mistakes.
"""

from __future__ import annotations

import os
import random
import select
import signal
import time

import numpy as np

from mmembed.storage import Table

from . import kills

ROWS, DIM = 120, 5
_SEEN = 1


class Expected:
    """The rows at each commit; `start` is what they are that were never trained."""

    def __init__(self, start: float = 0) -> None:
        self._last = (0, np.full(ROWS, start, np.float32))
        self._known = dict([self._last])

    def __getitem__(self, commit: int) -> np.ndarray:
        number, rows = self._last
        while number < commit:
            number += 1
            rows = np.where(trained(number), np.float32(number), rows)
            self._known[number] = rows
        self._last = number, rows
        return self._known[commit]


def trained(number: int) -> np.ndarray:
    """Which rows commit `number` changes; row 0 tells which commit it is."""
    chosen = np.random.default_rng(number).random(ROWS) < 0.2
    chosen[0] = True
    return chosen


def create(path, durability: str, lazy: bool = False) -> None:
    """Create a table with two commits; of a lazy one, most rows are those that nobody wrote."""
    init = "ones" if lazy else "zeros"
    with Table.create(path, ROWS, DIM, init=init, durability=durability, lazy=lazy) as table:
        table.add_column("count", scalar=True, init=init)
        table.commit()
        rows = np.flatnonzero(trained(1) | trained(2)) if lazy else np.arange(ROWS)
        set_rows(table, rows, Expected(lazy)[2][rows])
        table.commit()


def set_rows(table: Table, rows: np.ndarray, values: np.ndarray) -> None:
    with table.writing(rows) as columns:
        columns["weight"][rows] = values[:, None]
        columns["count"][rows] = values


def spoil(table: Table, chance: np.random.Generator, attempt: int) -> np.ndarray:
    """Write to some rows what no commit shall have; returns which."""
    rows = np.unique(chance.integers(0, ROWS, chance.integers(1, 40)))
    if chance.random() < 0.5:
        table.will_write(rows)
    set_rows(table, rows, np.full(rows.size, -float(attempt)))
    return rows


def train(path, attempt: int, report, lazy: bool = False) -> None:
    """Make commits, with other batches in every attempt, until killed."""
    chance, expected = np.random.default_rng([7, attempt]), Expected(lazy)
    table = Table.open(path, "r+")
    report(_SEEN, table.commits, 0)
    while True:
        spoilt = [spoil(table, chance, attempt) for _ in range(chance.integers(1, 5))]
        kind = chance.random()
        if kind < 0.15:
            table.rollback()
            continue
        if kind < 0.25:
            table.close(commit=False)
            table = Table.open(path, "r+")
            continue
        if kind < 0.27 and table.rows < 3 * ROWS:
            table.resize(table.rows + 7)
        number = table.commits + 1
        rows = np.unique(np.concatenate([*spoilt, np.flatnonzero(trained(number))]))
        set_rows(table, rows, expected[number][rows])
        table.commit()
        time.sleep(0.004 * chance.random())


def read(path, seed: int, gathers: int, report, lazy: bool = False) -> None:
    """Gather rows and compare them with those of the commit that row 0 tells."""
    os.nice(5)  # or the writer would get nothing done
    expected, latest = Expected(lazy), 0
    batches = np.random.default_rng([8, seed]).integers(0, ROWS, (512, 9))
    batches[:, -1] = 0
    with Table.open(path, view="committed") as table:
        for number in range(gathers):
            ids = batches[number % 512]
            if number % 2:
                found = table.gather(ids)
                commit, rows = int(found[-1, 0]), found
            else:
                found = table.gather(ids, column="count")
                commit, rows = int(found[-1]), found[:, None]
            assert commit >= latest, "a commit that was seen is gone"
            assert (rows == expected[commit][ids][:, None]).all(), f"rows of no commit: {rows}"
            latest = commit
    report(_SEEN, latest, gathers)


def beside_killed_writers(
    path,
    gathers: int,
    readers: int = 3,
    durability: str = "process",
    longest: float = 0.06,
    lazy: bool = False,
) -> tuple[int, int]:
    """Let readers gather while trainers are killed; returns how many commits and kills there were.

    More readers than processors: what could go wrong needs one that is interrupted.
    """
    create(path, durability, lazy)
    chance, attempt = random.Random(1), 0
    children = [
        kills.in_child(lambda report, seed=seed: read(path, seed, gathers // readers, report, lazy))
        for seed in range(readers)
    ]
    waiting = dict(children)
    failed = []
    while waiting:
        attempt += 1
        writer, started = kills.in_child(
            lambda report, attempt=attempt: train(path, attempt, report, lazy)
        )
        if attempt % 4:  # else it may be killed while it opens the table
            select.select([started], [], [])
        time.sleep(chance.uniform(0, longest))
        if attempt % 4 == 0:  # a reader that stands still finds another commit when it goes on
            sleeper = chance.choice(list(waiting))
            os.kill(sleeper, signal.SIGSTOP)
            time.sleep(chance.uniform(0, 0.01))
            os.kill(sleeper, signal.SIGCONT)
        os.kill(writer, signal.SIGKILL)
        kills.reports(writer, started)
        for child in list(waiting):
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                os.close(waiting.pop(child))
                failed += [status] if status else []
    assert not failed, "a reader saw rows of no commit"
    with Table.open(path) as table:
        return table.commits, attempt
