"""Tables with several writers: what is refused, what a commit covers, and what follows a death."""

from __future__ import annotations

import os
import pickle
import signal
import threading
import time

import numpy as np
import pytest

from mmembed.errors import ClosedTableError, TableLockedError, WriterDiedError
from mmembed.storage import Table, sharing
from mmembed.storage.directory import DirectoryStore

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def zeros(path):
    """The path of a closed table of 20 rows of 2, all zero, of level `process`."""
    with Table.create(path, 20, 2, init="zeros", durability="process") as table:
        table.commit(step=1)
    return path


def share(path, policy="rollback"):
    return Table.open(path, "r+", shared=True, on_writer_death=policy)


def killed(task):
    """Run a task in a forked child that kills itself, at the latest at the end."""
    child = os.fork()
    if child == 0:
        try:
            task()
        finally:
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def die():
    os.kill(os.getpid(), signal.SIGKILL)


def dies_in_a_step(path, policy="rollback"):
    table = share(path, policy)
    with table.writing(np.array([3, 4])) as columns:
        columns["weight"][3] = 7
        die()


def test_a_commit_is_of_what_all_writers_have_done(zeros):
    with share(zeros) as one, share(zeros) as other:
        one.write([1, 2], 5)
        other.write([2, 3], 6)
        assert one[[1, 2, 3]][:, 0].tolist() == [5, 6, 6]
        other.commit()
        one.write([4], 8)
        one.commit(metadata={"by": "one"})
        assert (one.step, one.commits) == (3, 3)
        with Table.open(zeros, view="committed") as reader:
            assert reader[:5][:, 0].tolist() == [0, 5, 6, 6, 8]
            other.write([1, 4], 9)
            assert reader[:5][:, 0].tolist() == [0, 5, 6, 6, 8]
    with Table.open(zeros) as table:
        assert table[:5][:, 0].tolist() == [0, 9, 6, 6, 9]
        assert (table.clean, table.metadata, table.step) == (True, {"by": "one"}, 4)
    assert (zeros / "LOCK").read_bytes() == b""


def test_rows_that_another_writer_changed_go_back_to_the_commit(zeros):
    with share(zeros) as one, share(zeros) as other:
        one.write([1, 2], 5)
        other.write([2, 3], 6)
        one.write([2, 3, 4], 7)
        other.rollback()

        assert (other[:] == 0).all()
        with pytest.raises(WriterDiedError, match="another writer went back to the last commit"):
            one.write([1], 1)
        with pytest.raises(WriterDiedError, match="close the table, open it again"):
            one.commit()
    with Table.open(zeros) as reader:
        assert (reader[:] == 0).all()


def test_a_table_is_shared_by_all_its_writers_or_by_none(zeros):
    with share(zeros):
        with pytest.raises(TableLockedError, match=f"by process {os.getpid()} on .*which shares"):
            Table.open(zeros, "r+")
        with pytest.raises(ValueError, match="shared with on_writer_death='rollback' by process"):
            share(zeros, "accept")
        share(zeros).close()
    with (
        Table.open(zeros, "r+"),
        pytest.raises(TableLockedError, match="Close it there, or share it there too"),
    ):
        share(zeros)
    with share(zeros, "accept") as table:
        assert table.clean


@pytest.mark.parametrize(("mode", "policy"), [("r", "rollback"), ("r+", "ignore")])
def test_sharing_is_for_writers_with_a_policy(zeros, mode, policy):
    with pytest.raises(ValueError, match="on_writer_death='rollback' or 'accept'"):
        Table.open(zeros, mode, shared=True, on_writer_death=policy)


def test_a_shared_table_neither_grows_nor_gets_columns(zeros):
    with share(zeros) as table:
        with pytest.raises(RuntimeError, match=r"alone \(shared=False\)"):
            table.resize(30)
        with pytest.raises(RuntimeError, match="'more' cannot be added"):
            table.add_column("more")
        table.add_column("weight", init="zeros")


def test_a_table_that_tracks_changes_has_one_writer(zeros):
    with share(zeros) as table, pytest.raises(RuntimeError, match="changes cannot be tracked"):
        table.track_changes()
    with Table.open(zeros, "r+") as table:
        table.track_changes()
    with pytest.raises(RuntimeError, match="it has one writer"):
        share(zeros)
    Table.open(zeros, "r+").close()


def test_a_writer_that_dies_in_a_step_takes_all_back_to_the_commit(zeros):
    table, other = share(zeros), share(zeros)
    table.write([1], 5)
    killed(lambda: dies_in_a_step(zeros))

    assert table[3].tolist() == [7, 7]
    with pytest.raises(WriterDiedError, match="1 other writers died in a step"):
        table.commit()
    with pytest.raises(WriterDiedError, match="another writer went back"):
        other.write([1], 5)
    for one in (table, other):
        one.close(commit=False)
    with share(zeros) as again:
        assert (again[:] == 0).all()
        again.write([2], 4)
        again.commit()
    with Table.open(zeros) as reader:
        assert np.flatnonzero(reader[:][:, 0]).tolist() == [2]


def test_half_a_step_of_a_dead_writer_is_kept_where_that_is_accepted(zeros):
    with share(zeros, "accept") as table:
        table.write([1], 5)
        killed(lambda: dies_in_a_step(zeros, "accept"))
        table.commit()
        assert table.writer_deaths == 1
    with Table.open(zeros) as reader:
        assert reader[[1, 3, 4]][:, 0].tolist() == [5, 7, 0]


def test_a_new_writer_that_finds_a_dead_one_goes_back_and_goes_on(zeros):
    with share(zeros) as table:
        table.write([1], 5)
        killed(lambda: dies_in_a_step(zeros))
        with share(zeros) as new:
            assert (new[:] == 0).all()
            new.write([2], 6)
            new.commit()
            with pytest.raises(WriterDiedError):
                table.write([1], 5)
            table.close(commit=False)


def test_a_writer_that_dies_between_steps_is_not_missed(zeros):
    with share(zeros) as table:
        killed(lambda: share(zeros).write([2], 3))
        table.write([1], 5)
        table.commit()
        assert table.writer_deaths == 0
    with Table.open(zeros) as reader:
        assert reader[[1, 2]][:, 0].tolist() == [5, 3]


def test_a_commit_whose_writer_died_before_the_journal_began_anew_is_one(zeros, monkeypatch):
    with share(zeros) as table:

        def commit():
            mine = share(zeros)
            mine.write([2], 3)
            monkeypatch.setattr(DirectoryStore, "_begin", lambda *_, **__: die())
            mine.commit()

        killed(commit)
        table.write([1, 2], 5)
        with Table.open(zeros, view="committed") as reader:
            assert reader[[1, 2]][:, 0].tolist() == [0, 3]
        table.rollback()
        assert table[[1, 2]][:, 0].tolist() == [0, 3]
        table.write([1], 6)
        table.commit()
        assert table.commits == 3


def test_a_going_back_that_its_writer_did_not_survive_is_ended_by_another(zeros, monkeypatch):
    with share(zeros, "accept") as table:
        table.write([1, 2], 5)

        def go_back():
            mine = share(zeros, "accept")
            monkeypatch.setattr(DirectoryStore, "_begin", lambda *_, **__: die())
            mine.rollback()

        killed(go_back)
        assert (table[:] == 0).all()
        table.write([3], 6)
        with pytest.raises(WriterDiedError, match="died in a step"):
            table.commit()
        table.close(commit=False)
    with Table.open(zeros) as reader:
        assert (reader[:] == 0).all()


def test_steps_of_one_writer_are_not_nested(zeros):
    with share(zeros) as table, table.writing(np.array([1])):
        with pytest.raises(RuntimeError, match="within another one"), table.writing():
            pass
        with pytest.raises(RuntimeError, match="commit in a `writing` block"):
            table.commit()


def test_a_commit_waits_until_steps_have_ended(zeros):
    with share(zeros) as one, share(zeros) as other:
        begun, ended = threading.Event(), []

        def step():
            with other.writing(np.array([1])) as columns:
                columns["weight"][1, 0] = 1
                begun.set()
                time.sleep(0.1)
                columns["weight"][1, 1] = 1
                ended.append(True)

        thread = threading.Thread(target=step)
        thread.start()
        begun.wait()
        one.commit()
        assert ended
        thread.join()
    with Table.open(zeros) as reader:
        assert reader[1].tolist() == [1, 1]


def test_a_writer_that_leaves_without_a_commit_leaves_its_steps_to_the_others(zeros):
    with share(zeros) as one:
        two = share(zeros)
        two.write([2], 3)
        two.close(commit=False)
        assert not Table.open(zeros).clean
        one.write([1], 5)
    with Table.open(zeros) as reader:
        assert reader[[1, 2]][:, 0].tolist() == [5, 3]

    one, two = share(zeros), share(zeros)
    one.write([2], 9)
    one.close(commit=False)
    two.close(commit=False)  # the last one
    with Table.open(zeros) as reader:
        assert reader.clean
        assert reader[[1, 2]][:, 0].tolist() == [5, 3]


def test_counters_are_those_of_the_writer_that_commits(zeros):
    with share(zeros) as one, share(zeros) as other:
        one.count("one", 1)
        one.count("both", 1)
        one.commit()
        other.count("both", 2)
        other.commit()
    with Table.open(zeros) as table:
        assert table.counters == {"one": 1, "both": 2}


def test_rows_announced_by_one_writer_are_saved_once(zeros):
    with share(zeros) as one, share(zeros) as other:
        one.will_write(np.arange(10))
        other.will_write(np.arange(5, 15))
        one.write(np.arange(10), 1)
        other.write(np.arange(5, 15), 2)
        other.rollback()
        assert (other[:] == 0).all()
        with pytest.raises(WriterDiedError):
            one.write([0], 1)
        one.close(commit=False)


def test_a_forked_child_neither_writes_nor_keeps_a_place(zeros):
    table = share(zeros)
    table.write([1], 5)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            table.write([1], 6)
        except ClosedTableError:
            os.write(writing, b"refused")
        signal.pause()
    assert os.read(reading, 100) == b"refused"
    table.close()

    Table.open(zeros, "r+").close()
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)


def test_a_shared_table_pickles_as_a_reader(zeros):
    with share(zeros) as table, pickle.loads(pickle.dumps(table)) as twin:
        assert twin.mode == "r"


def test_the_next_one_alone_undoes_what_dead_sharers_left(zeros):
    killed(lambda: dies_in_a_step(zeros))

    with Table.open(zeros, "r+") as table:
        assert table.recovered == 2
        assert (table[:] == 0).all()


def test_places_run_out(zeros, monkeypatch):
    monkeypatch.setattr(sharing, "PLACES", 2)
    with share(zeros), share(zeros), pytest.raises(TableLockedError, match="has 2 writers"):
        share(zeros)
    share(zeros).close()
