"""Committed views: rows of the last commit, whatever a writer does meanwhile; and pins."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from mmembed.errors import CommitGoneError, CorruptTableError
from mmembed.storage import Table, committed, journal_format, locks

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def ones(path, **options):
    """A table of 50 rows of 3 and a number per row, all of them 1, with one commit."""
    table = Table.create(path, 50, 3, init="ones", **options)
    table.add_column("count", scalar=True, init="ones")
    table.commit(step=1)
    return table


def test_a_committed_view_shows_commits_and_a_live_one_shows_writes(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        live = Table.open(path)
        for step in (2, 3, 4):
            with table.writing(np.array([3, 7])) as columns:
                columns["weight"][[3, 7]] = step
                columns["count"][[3, 7]] = step
            assert live[[3, 5]].tolist() == [[step] * 3, [1] * 3]
            assert committed[[3, 5]].tolist() == [[step - 1] * 3, [1] * 3]
            assert committed.gather([[7], [3]], column="count").tolist() == [[step - 1]] * 2
            table.commit()
            assert committed[[3, 5]].tolist() == [[step] * 3, [1] * 3]
        live.close()


def test_a_committed_view_follows_rollbacks_growths_and_new_columns(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([4], 9)
        table.add_column("late")
        table.resize(60)
        table.write([4, 5, 55], 10)
        assert committed[[4, 5]].tolist() == [[1] * 3] * 2
        table.rollback()
        assert committed[[4, 5]].tolist() == [[1] * 3] * 2
        table.add_column("late")
        table.write([5, 6], 11)
        assert committed[[4, 5]].tolist() == [[1] * 3] * 2
        table.commit()
        table.write([5], 12)
        assert committed[[4, 5]].tolist() == [[1] * 3, [11] * 3]
        assert committed.rows == 50
        with Table.open(path, view="committed") as again:
            assert again.rows == 60
            assert again.gather([5, 55], column="late").tolist() == [[0] * 3] * 2
            table.write([55], 13)
            assert again[[55]].tolist() == [[1] * 3]


def test_rows_may_repeat_and_go_into_an_array_of_the_caller(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([4], 9)
        out = np.empty((2, 2, 3), np.float32)

        assert committed.gather(np.array([[4, 3], [4, 4]], np.int32), out=out) is out
        assert (out == 1).all()
        assert committed.gather([]).shape == (0, 3)
        with pytest.raises(IndexError, match="id 50 at 1"):
            committed.gather([4, 50])


def test_what_a_dead_writer_left_is_not_shown(path):
    ones(path).close()
    child = os.fork()
    if child == 0:
        Table.open(path, "r+").write(range(0, 50, 2), 5)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)

    with Table.open(path, view="committed") as committed:
        assert (committed[:] == 1).all()
        assert (np.asarray(committed) == 1).all()
        assert (committed[40:46:2] == 1).all()
    with Table.open(path) as live:
        assert live[2].tolist() == [5] * 3


def lose_power(path, confirmed):
    """Leave a table as a loss of power can: the journal's header is older than its records."""
    table = Table.open(path, "r+")
    for row in range(4):
        table.write([row, row + 10], 5)
    header, _ = journal_format.decode_headers((path / "undo").read_bytes(), table.uuid)
    assert header.confirmed == 4
    table._store._release()
    slot = journal_format.encode_header(header._replace(confirmed=confirmed), table.uuid)
    with open(path / "undo", "r+b") as file:
        file.write(slot * 2)


@pytest.mark.parametrize("confirmed", range(5))
def test_records_that_a_loss_of_power_left_unconfirmed_count(path, confirmed):
    ones(path).close()
    lose_power(path, confirmed)

    with Table.open(path, view="committed") as committed:
        assert (committed[:] == 1).all()
        assert (committed[:] == 1).all()
        with Table.open(path, "r+") as table:
            table.write([2, 3], 7)
            assert (committed[:] == 1).all()
            table.commit()
        assert np.flatnonzero(committed[:][:, 0] == 7).tolist() == [2, 3]


def test_a_damaged_journal_is_noticed(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([4], 9)
        with open(path / "undo", "r+b") as file:
            file.seek(4096 + 80)
            file.write(b"damage")
        with pytest.raises(CorruptTableError, match="has 0 whole records and must have 1"):
            committed.gather([4])
        table.commit()
        assert committed[4].tolist() == [9] * 3


def test_a_journal_that_lost_its_end_is_noticed(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([4], 9)
        assert committed[4].tolist() == [1] * 3
        os.truncate(path / "undo", 4096)
        with pytest.raises(CorruptTableError, match="undo"):
            committed.gather([4])


def test_a_journal_without_a_header_and_one_of_another_commit_are_noticed(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        header = journal_format.Header(9, 1, 0)
        for slots, message in (
            (bytes(1024), "no valid header"),
            (journal_format.encode_header(header, table.uuid) * 2, "journal of commit 9"),
        ):
            with open(path / "undo", "r+b") as file:
                file.write(slots)
            with pytest.raises(CorruptTableError, match=message):
                committed.gather([4])
        table._store._release()


def test_a_committed_view_hands_out_no_arrays_and_is_for_reading(path):
    with ones(path), Table.open(path, view="committed") as committed:
        with pytest.raises(ValueError, match=r"take copies of rows: table\.gather"):
            committed.column()
        for mode, view in (("r+", "committed"), ("r", "newest")):
            with pytest.raises(ValueError, match="view must be 'live', or 'committed' with mode"):
                Table.open(path, mode, view=view)
        with pytest.raises(ValueError, match="without a copy"):
            committed.__array__(copy=False)


def test_a_committed_view_pickles_as_one(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([3], 5)
        data = pickle.dumps(committed)
        with pickle.loads(data) as twin:
            assert len(data) < 1000
            assert (twin.view, table.view) == ("committed", "live")
            assert twin[3].tolist() == [1] * 3


def test_a_committed_view_can_be_read_in_a_forked_child(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        table.write([3], 5)
        committed._store.committed._lock.acquire()  # as another thread may at the fork
        child = os.fork()
        if child == 0:
            os._exit(0 if committed[3].tolist() == [1] * 3 else 1)

        assert os.waitpid(child, 0)[1] == 0


def test_threads_may_gather_from_one_committed_view(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        wrong, done = [], threading.Event()

        def gather():
            while not done.is_set():
                rows = committed[[1, 2, 3, 4]]
                wrong.extend([rows] if (rows != rows[0, 0]).any() else [])

        threads = [threading.Thread(target=gather) for _ in range(2)]
        for thread in threads:
            thread.start()
        for number in range(20):
            table.write([1, 2], -1)
            table.write([1, 2, 3, 4], number)
            table.commit()
            time.sleep(0.002)
        done.set()
        for thread in threads:
            thread.join()
        assert not wrong


def test_a_closed_committed_view_keeps_no_descriptor(path):
    ones(path).close()
    before = len(os.listdir("/proc/self/fd"))
    with Table.open(path, view="committed") as committed, committed.pin():
        committed[[1]]

    assert len(os.listdir("/proc/self/fd")) == before


def test_a_table_in_a_read_only_directory_has_a_committed_view(path):
    ones(path).close()
    for file in path.iterdir():
        file.chmod(0o400)
    path.chmod(0o500)
    with Table.open(path, view="committed") as committed, committed.pin():
        assert (committed[:] == 1).all()
    path.chmod(0o700)


# Pins.


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(locks, "PIN_SECONDS", 0.05)


def test_a_pin_keeps_one_commit_until_the_writer_no_longer_waits(path, impatient):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        with committed.pin() as commit:
            assert (commit.number, commit.step, commit.metadata) == (1, 1, {})
            table.write([3], 5)
            assert committed[3].tolist() == [1] * 3
            table.rollback()
            assert committed[3].tolist() == [1] * 3
            table.write([3], 6)
            begin = time.monotonic()
            table.commit()  # waits in vain
            assert time.monotonic() - begin >= 0.05
            with pytest.raises(CommitGoneError, match=r"commit 1 of .* was pinned, .* to 2"):
                committed.gather([3])
        assert committed[3].tolist() == [6] * 3
        with committed.pin() as commit:
            assert commit.number == 2


def test_a_commit_goes_on_as_soon_as_a_pin_ends(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        pinned, ended = threading.Event(), []

        def pin():
            with committed.pin():
                pinned.set()
                time.sleep(0.1)
                ended.append(committed[3].tolist())

        thread = threading.Thread(target=pin)
        thread.start()
        pinned.wait()
        table.write([3], 5)
        table.commit()
        assert ended == [[1] * 3]
        thread.join()


def test_a_pin_of_a_dead_reader_holds_nothing_back(path, monkeypatch):
    monkeypatch.setattr(locks, "PIN_SECONDS", 20)
    with ones(path) as table:
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            with Table.open(path, view="committed") as committed, committed.pin():
                os.write(writing, b"1")
                os.kill(os.getpid(), signal.SIGKILL)
        os.read(reading, 1)
        os.waitpid(child, 0)
        table.write([3], 5)
        begin = time.monotonic()
        table.commit()
        assert time.monotonic() - begin < 10


def test_a_forked_child_of_a_pinned_reader_holds_nothing_back(path, monkeypatch):
    monkeypatch.setattr(locks, "PIN_SECONDS", 20)
    with ones(path) as table, Table.open(path, view="committed") as committed:
        reading, writing = os.pipe()
        with committed.pin():
            child = os.fork()
            if child == 0:
                os.close(writing)
                os.read(reading, 1)
                os._exit(0)
        table.write([3], 5)
        begin = time.monotonic()
        table.commit()
        assert time.monotonic() - begin < 10
        os.close(writing)
        os.waitpid(child, 0)


def test_pins_are_of_committed_views_and_one_at_a_time(path):
    with ones(path) as table, Table.open(path, view="committed") as committed:
        with pytest.raises(ValueError, match="view='committed'"), table.pin():
            pass
        with committed.pin(), pytest.raises(RuntimeError, match="pinned already"), committed.pin():
            pass


def test_a_gather_that_meets_a_commit_in_every_try_says_so(path, monkeypatch, impatient):
    with ones(path) as table, Table.open(path, view="committed") as committed_view:
        view = committed_view._store.committed
        tries = []

        def copy():
            tries.append(1)
            table.write([3], len(tries))
            table.commit()
            return np.zeros((1, 3), np.float32)

        monkeypatch.setattr(locks, "PIN_SECONDS", 0.001)
        with pytest.raises(CommitGoneError, match="gather fewer rows at a time"):
            view.gather("weight", np.array([3]), copy)
        assert len(tries) == 2 * committed.TRIES
