"""The journal: which old rows it keeps, going back, and saving ahead."""

from __future__ import annotations

import os
import threading
from concurrent import futures

import numpy as np
import pytest

from mmembed.errors import ReadOnlyTableError, TableFailedError
from mmembed.storage import Table, journal
from mmembed.storage.recovery import examine

from .faults import Faults, InjectedError


def examined(table):
    """What the journal of an open table holds."""
    store = table._store
    return examine(store._files.journal.file, store._files.super.last)


def saved_rows(table):
    return examined(table).rows


def test_a_row_is_saved_once_between_two_commits(path):
    with Table.create(path, 20, 3) as table:
        table.write([1, 2, 3], 1)
        table.write([2, 3, 4], 2)
        assert saved_rows(table) == 4
        table.write([1, 2, 3, 4], 3)
        assert saved_rows(table) == 4
        table.commit()
        assert saved_rows(table) == 0
        table.write([1], 4)
        assert saved_rows(table) == 1


def test_rollback_puts_rows_counters_and_columns_back(path):
    with Table.create(path, 5, 3, init="zeros") as table:
        table.write([1], 1)
        table.count("steps", 3)
        table.commit(step=4, metadata={"at": 7})
        table.write([1, 2], 5)
        table.count("steps", 9)
        table.add_column("context")
        view = table.column()
        table.rollback()

        assert view[[1, 2]].tolist() == [[1] * 3, [0] * 3]
        assert (table.counters, table.columns, table.step) == ({"steps": 3}, ("weight",), 4)
        assert not (path / "context.npy").exists()
        table.add_column("context", init="ones")
        table.write([2], 6)
        table.rollback()
        table.write([2], 7)
        table.commit()
    with Table.open(path) as table:
        assert (table[2].tolist(), table.columns) == ([7] * 3, ("weight",))
        assert table.metadata == {"at": 7}


def test_rollback_keeps_growths(path):
    with Table.create(path, 5, 3, init="zeros") as table:
        table.write([1], 1)
        table.resize(30)
        table.write([1, 29], 2)
        table.rollback()

        assert table.rows == 30
        assert table[:].tolist() == [[0] * 3] * 30


def test_rollback_in_a_writing_block_or_in_memory_or_of_a_reader_is_refused(path):
    with Table.create(path, 5, 3) as table:
        with table.writing(), pytest.raises(RuntimeError, match="rollback in a `writing` block"):
            table.rollback()
        with Table.open(path) as reader, pytest.raises(ReadOnlyTableError):
            reader.rollback()
    with pytest.raises(ValueError, match="does not keep what its rows were at the last commit"):
        Table.create(None, 5, 3).rollback()


def test_every_row_is_saved_in_records_of_bounded_size(path, monkeypatch):
    monkeypatch.setattr(journal, "RECORD_BYTES", 1000)
    with Table.create(path, 300, 3) as table:
        before = table[:]
        table.write([7, 8], 3)
        table.add_column("late", scalar=True)
        with table.writing() as columns:
            columns["weight"][:] = 4
            columns["late"][:] = 4
        undo = examined(table)
        assert undo.rows == 300
        assert len(undo.links) > 5
        table.rollback()
        assert np.array_equal(table[:], before)


def test_columns_of_the_last_commit_are_saved_and_later_ones_are_not(path):
    with Table.create(path, 5, 3, dtype="float64") as table:
        table.add_column("count", scalar=True, dtype="float32")
        table.commit()
        table.add_column("late")
        before = {name: table.column(name).copy() for name in ("weight", "count")}
        with table.writing(np.array([0, 3, 4])) as columns:
            for array in columns.values():
                array[[0, 3, 4]] = 8
        table.rollback()

        for name, rows in before.items():
            assert np.array_equal(table.column(name), rows)


def test_rows_said_ahead_are_saved_by_another_thread_and_not_again(path, monkeypatch):
    threads = []
    append = journal.Journal._append

    def noted(self, rows, columns):
        threads.append((threading.current_thread() is threading.main_thread(), rows.tolist()))
        append(self, rows, columns)

    monkeypatch.setattr(journal.Journal, "_append", noted)
    with Table.create(path, 9, 3) as table:
        table.will_write(np.array([2, 5]))
        table._store._files.journal._thread.submit(bool).result()
        table.write([2, 5, 6], 1)
        table.will_write(np.array([2, 5, 6]))

    assert threads == [(False, [2, 5]), (True, [6])]


def test_rows_said_ahead_while_the_disk_is_waited_for_become_one_record(path):
    with Table.create(path, 50, 3) as table:
        log = table._store._files.journal
        with log.lock:
            for rows in ([9, 2, 2], [7, 2], [5]):
                table.will_write(np.array(rows), ordered=False)
        log._thread.submit(bool).result()

        undo = examined(table)
        assert (len(undo.links), undo.rows) == (1, 4)
        table.write([2, 5, 7, 9], 1)
        assert log.records == 1


@pytest.mark.parametrize("layout", ["columns", "records"])
def test_a_thread_that_comes_late_saves_the_rows_that_have_come_since(path, layout):
    with Table.create(path, 50, 3, layout=layout, init="ones") as table:
        table.commit()
        log = table._store._files.journal
        go = threading.Event()
        log._thread = futures.ThreadPoolExecutor(1)
        log._thread.submit(go.wait, 30)
        table.will_write(np.array([4]))
        table.resize(5000)
        table.will_write(np.array([7, 4999]))
        go.set()
        log._thread.submit(bool).result()
        assert (log.records, examined(table).rows) == (1, 3)

        table.write([4, 7, 4999], 5)
        table.rollback()
        assert table[[4, 7, 4999]].tolist() == [[1] * 3] * 3


def test_rows_that_are_not_in_a_column_are_never_taken_for_saved(path):
    with Table.create(path, 50, 3) as table:
        log = table._store._files.journal
        old = table._store._files.old_rows()
        table.resize(60)

        with pytest.raises(IndexError, match="row 55 is outside the 50 rows of weight"):
            log.save(np.array([55]), old)
        assert log._seen.unseen(np.array([55])).size == 1


def test_rows_that_are_saved_are_written_without_waiting_for_others(path):
    with Table.create(path, 50, 3) as table:
        table.write([4], 1)
        held, done = threading.Event(), threading.Event()

        def hold():
            with table._store._files.journal.lock:
                held.set()
                done.wait(30)

        holder = threading.Thread(target=hold)
        holder.start()
        held.wait(30)
        table.write([4], 2)
        assert table[4].tolist() == [2] * 3
        done.set()
        holder.join()


@pytest.mark.parametrize(("between", "saved"), [(0.0, 0), (1.0, 1)])
def test_at_level_process_another_thread_saves_only_beside_long_computing(path, between, saved):
    with Table.create(path, 50, 3, durability="process") as table:
        log = table._store._files.journal
        log._between = between
        table.will_write(np.array([3, 8]))
        if log._thread is not None:
            log._thread.submit(bool).result()

        assert log.records == saved


def test_rows_said_ahead_in_any_order_must_be_rows(path):
    with Table.create(path, 9, 3) as table, pytest.raises(IndexError, match="id 9 at"):
        table.will_write(np.array([9, 1]), ordered=False)


def test_rows_said_ahead_and_not_changed_are_as_they_were(path):
    with Table.create(path, 9, 3) as table:
        before = table[:]
        table.will_write(np.array([2, 5]))
    with Table.open(path, "r+") as table:
        assert (table.clean, table.recovered, table.commits) == (True, 0, 0)
        assert np.array_equal(table[:], before)


@pytest.mark.parametrize(
    ("rows", "error"), [([9], IndexError), ([-1], IndexError), ([0.5], TypeError)]
)
def test_rows_said_ahead_must_be_rows(place, rows, error):
    with Table.create(place, 9, 3) as table, pytest.raises(error):
        table.will_write(np.array(rows))


def test_readers_and_children_ignore_what_is_said_ahead(path):
    Table.create(path, 9, 3).close()
    with Table.open(path) as reader:
        reader.will_write(np.array([1]))
    Table.create(None, 9, 3).will_write(np.array([1]))


def test_a_journal_without_room_changes_nothing_and_a_commit_makes_room(path, monkeypatch):
    with Table.create(path, 5000, 16, init="zeros") as table:
        table.write(range(1000), 1)
        reserve = type(table._store._files.journal.file).reserve

        def full(file, size, present=0):
            raise OSError(28, "No space left on device", file.path)

        with monkeypatch.context() as patch:
            patch.setattr(type(table._store._files.journal.file), "reserve", full)
            with pytest.raises(OSError, match="No space left on device"):
                table.write(range(1000, 5000), 2)
            assert not table[1000:].any()
            table.commit()
            table.write(range(500, 900), 3)  # in the room of the records before
            table.commit()
        assert reserve is type(table._store._files.journal.file).reserve
    with Table.open(path) as table:
        assert table.commits == 3 - 1
        assert table[[499, 899]].tolist() == [[1] * 16, [3] * 16]


def test_a_journal_that_cannot_be_written_ends_writing_before_a_row_changes(path, monkeypatch):
    Table.create(path, 9, 3, init="zeros").close()
    with Faults().installed(monkeypatch) as faults:
        table = Table.open(path, "r+")
        faults.at = len(faults.log) + 3  # the record; before it, its room
        with pytest.raises(InjectedError):
            table.write([1], 1)
        assert faults.log[faults.at] == "pwrite undo"
    assert not table[:].any()
    with pytest.raises(TableFailedError):
        table.write([1], 1)
    table.close()


def test_the_journal_gives_its_room_back_when_the_table_is_closed(path):
    with Table.create(path, 3000, 16) as table:
        table.write(range(3000), 1)
        assert os.path.getsize(path / "undo") > 3000 * 64
        table.commit()
    assert os.path.getsize(path / "undo") == 4096


def test_many_threads_may_say_ahead_while_one_writes(path):
    with Table.create(path, 400, 3, init="zeros") as table:
        stop = threading.Event()

        def say():
            rng = np.random.default_rng(threading.get_ident())
            while not stop.is_set():
                table.will_write(np.unique(rng.integers(0, 400, 20)))

        threads = [threading.Thread(target=say) for _ in range(3)]
        for thread in threads:
            thread.start()
        rng = np.random.default_rng(0)
        for step in range(60):
            if step == 30:
                table.commit(step=30)
                committed = table[:]
            table.write(rng.integers(0, 400, 30), step)
        stop.set()
        for thread in threads:
            thread.join()
        table.rollback()
        assert np.array_equal(table[:], committed)
