"""A run in which the N-th system call fails, or is the last, for N = 0, 1, 2, … until the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal

import pytest

from mmembed.storage import Table
from tests.storage.faults import Faults

from . import kills, replay

STEPS = 9  # of a run, which commits in them
_CALLS = 3  # the kind of a report that says how many calls a run made


def hot_table(path, durability: str, layout: str = "columns") -> replay.Model:
    """A table that was left in the middle of attempt 1, with records in its journal."""
    model = replay.create(path, durability, rows=60, dim=3, layout=layout)

    def train(_):
        table = Table.open(path, "r+")
        replay.train(table, 1, 0, replay.COMMIT_EVERY + 5)
        os.kill(os.getpid(), signal.SIGKILL)

    kills.reports(*kills.in_child(train))
    replay.train(model, 1, 0, replay.COMMIT_EVERY + 5)
    rows = model.rows
    model.rollback()
    assert rows == model.rows
    return model


def run(path, attempt: int, report, faults: Faults) -> None:
    """Open the table, train, close; after an error, go back and close, or give up."""
    with pytest.MonkeyPatch.context() as patch, faults.installed(patch):
        with contextlib.suppress(OSError):
            table = Table.open(path, "r+")
            start = table.step
            try:
                replay.train(
                    *(table, attempt, start, start + STEPS),
                    lambda step: report(kills._COMMITTED, step, table.rows),
                )
                table.rollback()
            except OSError:
                table.rollback()
            table.close()
        report(_CALLS, len(faults.log), 0)


def every_call(template, path, model: replay.Model, attempt: int, after=lambda path: None, **fault):
    """Run with the fault at each call in turn, and check what is left; returns how many there were.

    `after` is called with the path before the table is checked.
    """
    for at in range(10_000):
        shutil.rmtree(path, ignore_errors=True)
        shutil.copytree(template, path)
        said = kills.reports(
            *kills.in_child(lambda report, at=at: run(path, attempt, report, Faults(at, **fault)))
        )
        after(path)
        acknowledged = [step for kind, step, _ in said if kind == kills._COMMITTED]
        check(path, model, attempt, acknowledged)
        made = [calls for kind, calls, _ in said if kind == _CALLS]
        if made and made[0] <= at:
            return at
    raise AssertionError("the calls never end")


def check(path, model: replay.Model, attempt: int, acknowledged: list[int]) -> None:
    """The table is at the last commit that was acknowledged, or at the one that was under way."""
    last = acknowledged[-1] if acknowledged else model.step
    with Table.open(path, "r+") as table:
        assert table.step in (last, (last // replay.COMMIT_EVERY + 1) * replay.COMMIT_EVERY)
        twin = twin_at(model, attempt, table.step)
        replay.check(table, twin)
        table.write([0], 1)
        table.commit(step=table.step)
    with Table.open(path) as table:
        assert table.clean
        assert table[0].tolist() == [1] * table.dim


_twins: dict[tuple[int, int, int], replay.Model] = {}


def twin_at(model: replay.Model, attempt: int, step: int) -> replay.Model:
    """A copy of the model that has gone on to a commit; made once."""
    key = (id(model), attempt, step)
    if key not in _twins:
        twin = replay.Model(1, model.arrays["weight"].shape[1])
        twin.inits, twin.step = dict(model.inits), model.step
        arrays, counters = model.committed
        twin.arrays = {name: array.copy() for name, array in arrays.items()}
        twin.counters = dict(counters)
        twin.commit(model.step)
        replay.train(twin, attempt, model.step, step)
        _twins[key] = twin
    return _twins[key]
