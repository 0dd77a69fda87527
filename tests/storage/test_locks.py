"""One writer at a time: refused with a name, freed by death, not inherited by children."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from mmembed.errors import ClosedTableError, CorruptTableError, TableLockedError
from mmembed.storage import Table, locks

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

HOLDER = """
import os, sys, time
from mmembed.storage import Table
table = Table.open(sys.argv[1], "r+")
reading, writing = os.pipe()
child = os.fork() if sys.argv[2] == "fork" else 0
if sys.argv[2] == "fork" and child == 0:
    os.write(writing, b"1")
    time.sleep(60)
    os._exit(0)
if child:
    os.read(reading, 1)  # the child runs, so its fork hook has run
print(child, flush=True)
time.sleep(60)
"""


@contextlib.contextmanager
def holder(path, how="alone"):
    """Another process that has the table open for writing, and the id of its forked child."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), how], stdout=subprocess.PIPE, text=True
    )
    child = int(process.stdout.readline())
    try:
        yield process, child
    finally:
        process.kill()
        process.stdout.close()
        process.wait()
        if child:
            os.kill(child, signal.SIGKILL)


def in_child(task):
    """Run `task` in a forked child; return the text that it returns."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(writing, str(task()).encode())
        except BaseException as error:
            os.write(writing, f"{type(error).__name__}: {error}".encode())
        finally:
            os._exit(0)
    os.close(writing)
    os.waitpid(pid, 0)
    with open(reading, encoding="utf-8") as file:
        return file.read()


def writer_is_refused(path):
    try:
        Table.open(path, "r+").close()
    except TableLockedError:
        return True
    return False


def test_a_second_writer_in_this_process_is_refused(small):
    with Table.open(small, "r+"):
        with pytest.raises(TableLockedError, match=f"is open for writing by process {os.getpid()}"):
            Table.open(small, "r+")
        with pytest.raises(BlockingIOError, match="or open it here with mode 'r'"):
            Table.open(small, "r+")
    Table.open(small, "r+").close()


def test_a_new_table_is_locked_from_its_first_moment(path):
    with Table.create(path, 2, 2):
        assert writer_is_refused(path)


def test_readers_need_no_lock(small):
    with Table.open(small, "r+") as writer, Table.open(small) as reader:
        writer.write(1, 8)

        assert reader[1].tolist() == [8, 8, 8]


def test_a_writer_in_another_process_is_named_and_its_death_frees_the_table(small):
    with holder(small) as (process, _):
        host = os.uname().nodename
        with pytest.raises(TableLockedError, match=f"by process {process.pid} on {host}"):
            Table.open(small, "r+")

        process.kill()
        process.wait()
        with Table.open(small, "r+") as table:
            assert not table.clean


def test_a_forked_child_does_not_keep_the_lock_of_a_dead_parent(small):
    with holder(small, "fork") as (process, child):
        assert writer_is_refused(small)

        process.kill()
        process.wait()
        os.kill(child, 0)
        assert not writer_is_refused(small)


def test_a_forked_child_does_not_free_the_lock_of_its_parent(small):
    with Table.open(small, "r+") as table:
        text = in_child(table.close)

        assert text == "None"
        assert writer_is_refused(small)
        table.write(0, 3)
        table.commit()
    with Table.open(small) as table:
        assert (table.epoch, table.clean) == (3, True)


def test_a_forked_child_that_ends_without_closing_changes_nothing(small):
    with Table.open(small, "r+") as table:
        table.write(0, 3)
        in_child(lambda: "")

        assert table.epoch == 2
        assert writer_is_refused(small)


def test_a_forked_child_may_read_and_may_not_write(small):
    with Table.open(small, "r+") as table:
        table.write(2, 6)

        assert in_child(table[2].tolist) == "[6.0, 6.0, 6.0]"
        for task in (
            lambda: table.write(0, 1),
            lambda: table.writing().__enter__(),
            lambda: table.add_column("x"),
            lambda: table.count("step", 1),
            lambda: table.commit(),
        ):
            refusal = in_child(task)
            assert refusal.startswith(ClosedTableError.__name__)
            assert (
                f"was opened for writing by process {os.getpid()}, and this is process" in refusal
            )
        assert "x.npy" not in os.listdir(small)


def test_a_forked_child_may_open_the_table_for_writing_after_its_parent_closed(small):
    table = Table.open(small, "r+")
    table.close()

    def write():
        with Table.open(small, "r+") as mine:
            mine.write(0, 5)
        return "done"

    assert in_child(write) == "done"
    with Table.open(small) as table:
        assert table[0].tolist() == [5, 5, 5]


def test_a_dropped_table_frees_its_lock(small):
    table = Table.open(small, "r+")
    del table

    assert not writer_is_refused(small)


def test_a_lock_file_that_was_replaced_while_it_was_locked_is_refused(small, monkeypatch):
    lock = locks._set_lock

    def replace_and_lock(file, kind):
        (small / "LOCK").rename(small / "old")
        (small / "LOCK").touch(mode=0o600)
        lock(file, kind)

    with monkeypatch.context() as patch:
        patch.setattr(locks, "_set_lock", replace_and_lock)
        with pytest.raises(CorruptTableError, match="LOCK was replaced while it was being locked"):
            Table.open(small, "r+")
    (small / "old").unlink()
    Table.open(small, "r+").close()


def test_a_text_in_the_lock_that_would_upset_a_terminal_is_not_shown(small):
    with Table.open(small, "r+"):
        (small / "LOCK").write_text("\x1b[2J\nprocess 1")

        with pytest.raises(TableLockedError, match="by another process, and"):
            Table.open(small, "r+")


def test_a_lock_that_cannot_be_signed_is_held_all_the_same(small, monkeypatch):
    def full(fd, size):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(locks.os, "ftruncate", full)
        table = Table.open(small, "r+")
    with pytest.raises(TableLockedError, match="by another process"):
        Table.open(small, "r+")
    table.close()


def test_the_lock_file_is_empty_when_nobody_writes(small):
    with Table.open(small, "r+"):
        assert (small / "LOCK").read_text() == f"process {os.getpid()} on {os.uname().nodename}"
    assert (small / "LOCK").read_text() == ""
