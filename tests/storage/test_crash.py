"""Calls that fail, interrupts and kill -9: every commit that returned is there afterwards."""

from __future__ import annotations

import os
import shutil

import numpy as np
import pytest

from mmembed.errors import TableFailedError
from mmembed.storage import Table
from mmembed.storage.format import COPY_BYTES, SLOT_BYTES, decode_super

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
        "pwrite undo",
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
            assert sorted(os.listdir(path)) == ["LOCK", "super", "undo", "weight.npy"]
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


# Death; tests/faults has more of it.


def test_a_torn_commit_leaves_the_commit_before(small):
    work = small.with_name("work")
    with Table.open(small, "r+") as table:
        table.commit(step=8)
        table.write([1, 2], 5)
        before = {file.name: file.read_bytes() for file in small.iterdir()}
        table.commit(step=9)
        after = (small / "super").read_bytes()
    for cut in (1, 95, 4096, COPY_BYTES - 1, COPY_BYTES + 1, SLOT_BYTES - 1, SLOT_BYTES):
        work.mkdir(mode=0o700)
        for name, data in before.items():
            (work / name).touch(mode=0o600)
            (work / name).write_bytes(data)
        torn = after[:SLOT_BYTES] + after[SLOT_BYTES:][:cut] + before["super"][SLOT_BYTES:][cut:]
        if decode_super(after).epoch % 2 == 0:
            torn = after[:cut] + before["super"][cut:]
        (work / "super").write_bytes(torn)

        with Table.open(work, "r+") as table:
            assert table.step == (8 if cut < COPY_BYTES else 9)
            assert table.recovered == (2 if cut < COPY_BYTES else 0)
            assert (table[1].tolist() == [5] * 3) == (cut >= COPY_BYTES)
        shutil.rmtree(work)


def test_what_a_crash_left_is_undone_when_the_table_is_opened_for_writing(path):
    with Table.create(path, 5, 3, init="zeros") as table:
        table.commit(step=1)
        table.write([2, 3], 7)
        shutil.copytree(path, path.with_name("crashed"))
        with Table.open(path.with_name("crashed"), "r+") as crashed:
            assert (crashed.step, crashed.clean, crashed.recovered) == (1, False, 2)
            assert crashed[:].tolist() == [[0] * 3] * 5
    with Table.open(path, "r+") as table:
        assert (table.clean, table.recovered) == (True, 0)
        assert table[2].tolist() == [7] * 3


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
