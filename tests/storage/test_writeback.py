"""A budget of pages that changed and are not on the disk: kept, refused, and without a trace."""

from __future__ import annotations

import os
import threading

import numpy as np
import pytest

from mmembed.storage import Table, device, writeback
from mmembed.storage.writeback import WriteBack

ROWS, DIM = 65_536, 64  # 16 rows a page, 4096 pages
PAGE = os.sysconf("SC_PAGE_SIZE")
BUDGET = 256 * PAGE


def trained(table, steps=40):
    """Change 100 rows at random in each step; returns the most dirty bytes seen after one."""
    rng = np.random.default_rng(0)
    most = 0
    for step in range(steps):
        rows = np.unique(rng.integers(0, ROWS, 100))
        with table.writing(rows) as columns:
            columns["weight"][rows] = rows[:, None] + np.float32(step)
        most = max(most, table.stats()["columns"]["weight"]["dirty bytes"] or 0)
    return most


@pytest.mark.parametrize("layout", ["columns", "records"])
def test_no_more_is_dirty_than_the_budget_and_rows_are_the_same(tmp_path, layout):
    with Table.create(tmp_path / "free", ROWS, DIM, init="zeros", layout=layout) as free:
        unbound = trained(free)
        expected = free[:]
    options = {"init": "zeros", "layout": layout, "dirty_budget": BUDGET}
    with Table.create(tmp_path / "bound", ROWS, DIM, **options) as table:
        most = trained(table)

        np.testing.assert_array_equal(table[:], expected)
        assert table._store._back.begun > 3
        if device.below(tmp_path).file_system not in device.IN_MEMORY and unbound > 2 * BUDGET:
            assert most <= BUDGET
    with Table.open(tmp_path / "bound") as table:
        np.testing.assert_array_equal(table[:], expected)


def test_what_a_batch_needs_beyond_the_budget_is_refused_with_the_number_that_would_do(path):
    with Table.create(path, ROWS, DIM, init="zeros") as table:
        table.add_column("weight.sum")
        table.commit()
        rows = np.arange(0, ROWS, 16)[:20]  # a page each, in two files
        table.dirty_budget = 40 * PAGE - 1
        with (
            pytest.raises(ValueError, match=f"at least {40 * PAGE} for them"),
            table.writing(rows) as columns,
        ):
            columns["weight"][rows] = 1
        assert not table.column().any()
        assert table._store._files.journal.records == 0
        table.dirty_budget = 40 * PAGE
        table.write(rows, 1)
        assert table[rows].all()


def test_a_budget_can_be_given_and_taken_back(path):
    Table.create(path, 100, 4).close()
    with Table.open(path, "r+", dirty_budget=PAGE) as table:
        assert table.dirty_budget == PAGE
        table.dirty_budget = 0
        assert table.dirty_budget is None
    with Table.open(path, "r+") as table:
        assert table.dirty_budget is None
    assert Table.create(None, 5, 2, dirty_budget=PAGE).dirty_budget is None


@pytest.mark.parametrize("budget", [-1, 1.5, "64 MB", True])
def test_what_is_no_budget_is_refused_before_anything_is_made(path, budget):
    with pytest.raises((TypeError, ValueError), match="dirty_budget must be"):
        Table.create(path, 5, 3, dirty_budget=budget)

    assert os.listdir(path.parent) == []


def test_rollback_columns_growth_and_all_rows_go_with_a_budget(path):
    with Table.create(path, ROWS, DIM, init="zeros", dirty_budget=BUDGET) as table:
        trained(table, 10)
        table.commit()
        before = table[:]
        table.add_column("other")
        trained(table, 10)
        table.rollback()
        np.testing.assert_array_equal(table[:], before)
        table.add_column("other")
        rows = np.arange(0, ROWS, 16)[:100]
        for _ in range(5):
            with table.writing(rows) as columns:
                columns["other"][rows] += 1
        table.resize(2 * ROWS)
        with table.writing() as columns:
            columns["weight"][...] = 3
        trained(table, 10)
        assert (table.gather(rows, column="other") == 5).all()
        assert (table[ROWS:] == 3).all()


def test_a_closed_table_leaves_no_thread_and_no_file(path):
    files, threads = len(os.listdir("/proc/self/fd")), threading.active_count()
    with Table.create(path, ROWS, DIM, init="zeros", dirty_budget=BUDGET) as table:
        trained(table, 10)
        assert any(thread.name.startswith("mmembed-writer") for thread in threading.enumerate())

    assert len(os.listdir("/proc/self/fd")) == files
    assert threading.active_count() == threads


def test_a_write_back_that_fails_disturbs_nobody(path, monkeypatch):
    def fail(self, names):
        raise OSError("injected")

    monkeypatch.setattr(WriteBack, "_write", fail)
    with Table.create(path, ROWS, DIM, init="zeros", dirty_budget=BUDGET) as table:
        trained(table, 10)
        table.commit()
        expected = table[:]
    with Table.open(path) as table:
        np.testing.assert_array_equal(table[:], expected)


def test_write_back_has_a_description_of_the_file_of_its_own(path):
    # Errors that one description has told of, another one still tells: the commit must hear them.
    with Table.create(path, ROWS, DIM, init="zeros", dirty_budget=BUDGET) as table:
        trained(table, 10)
        back = table._store._back
        back.forget()
        back._write(("weight.npy",))
        (file,) = back._files.values()
        before = os.lseek(file.fd, 0, os.SEEK_CUR)
        os.lseek(file.fd, 77, os.SEEK_SET)
        others = [int(n) for n in os.listdir("/proc/self/fd") if int(n) != file.fd]
        same = [n for n in others if _names(n) == str(path / "weight.npy")]
        assert same  # the map's
        assert all(os.lseek(n, 0, os.SEEK_CUR) != 77 for n in same)
        os.lseek(file.fd, before, os.SEEK_SET)


def _names(fd):
    try:
        return os.readlink(f"/proc/self/fd/{fd}")
    except OSError:
        return ""


def test_the_thread_begins_before_the_budget_is_spent(path):
    with Table.create(path, ROWS, DIM, init="zeros", dirty_budget=BUDGET) as table:
        rows = np.arange(0, ROWS, 16)[: 256 // writeback.EARLY + 1]
        table.write(rows, 1)
        assert table._store._back._done is not None
        assert table._store._back.waits == 0


def test_writers_that_share_a_table_have_no_budget(path):
    Table.create(path, 5, 3).close()

    with pytest.raises(ValueError, match="no dirty_budget"):
        Table.open(path, "r+", shared=True, dirty_budget=PAGE)
    with Table.open(path, "r+", shared=True) as table:
        with pytest.raises(ValueError, match="no dirty_budget"):
            table.dirty_budget = PAGE
        table.dirty_budget = 0
