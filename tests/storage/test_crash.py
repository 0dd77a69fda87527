"""Calls that fail, interrupts and kill -9: every commit that returned is there afterwards."""

from __future__ import annotations

import os
import random
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest

from mmembed.errors import TableFailedError
from mmembed.storage import Table
from mmembed.storage.format import COPY_BYTES, SLOT_BYTES

from .examples import contents
from .faults import every_fault


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_commit_that_fails_anywhere_ends_writing_and_is_done_or_not(
    small, monkeypatch, interrupt
):
    def changed_table():
        table = Table.open(small, "r+")
        table.write(0, 9)
        with table.writing() as columns:
            columns["count"][:] = 9
        return table

    failed = []
    for call, table, step in every_fault(
        lambda table: table.commit(step=table.step + 1) or table.step,
        *(monkeypatch, interrupt, changed_table),
    ):
        if step is None:
            failed.append(call)
            for change in (lambda t=table: t.write(0, 1), lambda t=table: t.commit()):
                with pytest.raises(TableFailedError, match=r"failed earlier \(.*injected"):
                    change()
        assert table[0].tolist() == [9, 9, 9]
        before = table.step
        table.close()
        with Table.open(small) as after:
            assert after.step in (before, before + 1)
            assert after.clean == (step is not None)
    assert failed == [
        "fstat super", "msync count.npy", "msync weight.npy", "pwrite super", "fdatasync super",
    ]  # fmt: skip


@pytest.mark.parametrize("interrupt", [False, True])
def test_an_opening_that_fails_anywhere_leaves_the_table_and_no_lock(small, monkeypatch, interrupt):
    for _, _, table in every_fault(lambda _: Table.open(small, "r+"), monkeypatch, interrupt):
        if table is not None:
            table.close()
        with Table.open(small, "r+") as again:
            assert (again.step, again.columns) == (7, ("weight", "count"))
            again.commit(step=7)


@pytest.mark.parametrize("interrupt", [False, True])
def test_adding_a_column_that_fails_anywhere_leaves_the_table(path, monkeypatch, interrupt):
    table = Table.create(path, 5, 3)
    table.write(0, 4)

    def add(_):
        table.add_column("context", init="ones")
        return True

    failed = []
    for call, _, added in every_fault(add, monkeypatch, interrupt):
        if not added:
            failed.append(call)
            assert table.columns == ("weight",)
            assert sorted(os.listdir(path)) == ["LOCK", "super", "weight.npy"]
            table.commit()
    assert len(failed) >= 8
    table.close()
    with Table.open(path) as table:
        assert table.column("context").tolist() == [[1, 1, 1]] * 5
        assert table[0].tolist() == [4, 4, 4]


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_closing_that_fails_anywhere_keeps_the_last_commit(small, monkeypatch, interrupt):
    def changed_table():
        table = Table.open(small, "r+")
        table.write(1, 5)
        return table

    for _, table, closed in every_fault(
        lambda table: table.close() or True, monkeypatch, interrupt, changed_table
    ):
        assert table.closed
        with Table.open(small) as after:
            assert after.step >= table.step
            assert after.clean or not closed
            assert after[0].tolist() == [1, 2, 3]
        Table.open(small, "r+").close()


def test_dropping_a_table_with_uncommitted_rows_warns(path):
    tables = [Table.create(path, 5, 3)]
    tables[0].write(0, 1)

    with pytest.warns(ResourceWarning, match="dropped with changes that no commit has recorded"):
        tables.clear()
    with Table.open(path, "r+") as table:  # the lock is free
        assert not table.clean


# Death.

TRAINER = """
import sys
import numpy as np
from mmembed.storage import Table
path, start = sys.argv[1], int(sys.argv[2])
table = Table.open(path, "r+")
rng = np.random.default_rng(start)
for step in range(start, 10**9):
    table.write(rng.integers(0, table.rows, 50), step)
    if step % 3 == 0:
        table.commit(step=step, metadata={"step": step})
        print(step, flush=True)
"""


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_commit_that_returned_survives_kill_9(path, durability):
    check_kills(path, durability, kills=8, seed=1)


@pytest.mark.long
@pytest.mark.parametrize("durability", ["power", "process"])
def test_commits_that_returned_survive_many_kills(path, durability):
    check_kills(path, durability, kills=150, seed=2)


def train_and_kill(path, start, seconds):
    """The last step of which a trainer said that its commit had returned, before it was killed."""
    with subprocess.Popen(
        [sys.executable, "-c", TRAINER, str(path), str(start)], stdout=subprocess.PIPE
    ) as trainer:
        try:
            acknowledged = [trainer.stdout.readline()]
            time.sleep(seconds)
        finally:
            trainer.kill()
        acknowledged += trainer.stdout.read().splitlines()
    return int(acknowledged[-1])


def check_kills(path, durability, kills, seed):
    chance = random.Random(seed)
    Table.create(path, 300, 5, durability=durability, init="zeros").close()
    rows = np.zeros((300, 5), np.float32)
    start = 1
    for _ in range(kills):
        acknowledged = train_and_kill(path, start, chance.uniform(0, 0.05))
        with Table.open(path) as table:
            assert not table.clean
            assert table.step >= acknowledged
            assert table.metadata == {"step": table.step}
            rng = np.random.default_rng(start)
            for step in range(start, table.step + 1):
                rows[rng.integers(0, 300, 50)] = step
            # Steps count up: a number that is not the commit's was written later.
            assert (table.column() >= rows).all()
            rows = table[:]
            start = table.step + 10_000
    with Table.open(path, "r+") as table:
        table.commit()
    with Table.open(path) as table:
        assert table.clean
        assert np.array_equal(table[:], rows)


def test_a_torn_commit_leaves_the_commit_before(small):
    with Table.open(small, "r+") as table:
        table.commit(step=8)
    whole = (small / "super").read_bytes()
    with Table.open(small, "r+") as table:
        table.commit(step=9)
    after = (small / "super").read_bytes()
    work = small.with_name("work")
    for cut in (1, 95, 4096, COPY_BYTES - 1):
        shutil.copytree(small, work)
        torn = after[:cut] + whole[cut:SLOT_BYTES] + after[SLOT_BYTES:]
        (work / "super").write_bytes(torn)

        with Table.open(work) as table:
            assert table.step in (8, 9)
        shutil.rmtree(work)


def test_an_unclean_table_shows_the_rows_that_are_in_its_files(path):
    with Table.create(path, 5, 3, init="zeros") as table:
        table.commit(step=1)
        table.write(2, 7)
        before = contents(path)
        shutil.copytree(path, path.with_name("crashed"))
        with Table.open(path.with_name("crashed")) as crashed:
            assert (crashed.step, crashed.clean) == (1, False)
            assert np.array_equal(crashed[:], table[:])
        assert before == contents(path)
