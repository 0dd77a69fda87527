"""Commits: what is recorded when, in which order it reaches the disk, and what a crash leaves."""

from __future__ import annotations

import dataclasses
import os
import shutil

import numpy as np
import pytest

from mmembed.errors import ReadOnlyTableError
from mmembed.storage import Table
from mmembed.storage import format as format_module
from mmembed.storage.directory import DirectoryStore
from mmembed.storage.format import COPY_BYTES, decode_copy, decode_super

from .examples import contents
from .faults import Faults

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def copies(path):
    """The epoch and the clean mark of each copy in `super`; None for one that is not valid."""
    data = (path / "super").read_bytes()
    found = []
    for at in range(0, len(data), COPY_BYTES):
        copy = decode_copy(data[at : at + COPY_BYTES]) if any(data[at : at + COPY_BYTES]) else None
        found.append(copy and (copy.epoch, copy.clean))
    return found


def crash(path, change):
    """Change a table in a process that ends without closing it."""
    child = os.fork()
    if child == 0:
        try:
            table = Table.open(path, "r+")
            change(table)
        finally:
            os._exit(0)
    os.waitpid(child, 0)


def test_commits_use_the_two_slots_in_turn(path):
    with Table.create(path, 5, 3) as table:
        assert copies(path) == [(0, False), (0, False), None, None]
        table.commit()
        assert copies(path) == [(0, False), (0, False), (1, False), (1, False)]
        table.commit()
        assert copies(path) == [(2, False), (2, False), (1, False), (1, False)]
    assert copies(path) == [(2, True), (2, True), (1, False), (1, False)]


def test_a_commit_is_found_when_the_table_is_opened_again(small):
    with Table.open(small) as table:
        assert (table.step, table.epoch, table.metadata) == (7, 2, {"note": "small"})
        assert table.columns == ("weight", "count")
        assert table[[0, 4]].tolist() == [[1, 2, 3], [4, 5, 6]]


def test_opening_for_writing_clears_the_clean_mark_and_closing_sets_it(small):
    attempt = decode_super((small / "super").read_bytes()).attempt
    with Table.open(small, "r+") as table:
        now = decode_super((small / "super").read_bytes())
        assert (now.clean, now.attempt, now.epoch) == (False, attempt + 1, 2)
        assert table.clean
    assert decode_super((small / "super").read_bytes()).clean


def test_the_boot_of_the_machine_is_recorded(small):
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
        boot = file.read().strip()

    assert str(decode_super((small / "super").read_bytes()).boot_id) == boot


def test_closing_commits_what_was_written(path):
    with Table.create(path, 5, 3) as table:
        table.commit(step=10)
        table.write(0, 1)
    with Table.open(path) as table:
        assert (table.step, table.epoch, table.clean) == (11, 2, True)
        assert table[0].tolist() == [1, 1, 1]


def test_closing_commits_a_column_that_was_added(path):
    Table.create(path, 5, 3).close()
    with Table.open(path, "r+") as table:
        table.add_column("context")
    with Table.open(path) as table:
        assert (table.epoch, table.columns) == (1, ("weight", "context"))


def test_counters_are_found_when_the_table_is_opened_again(path):
    with Table.create(path, 5, 3) as table:
        table.count("weight.adam.step", 8)
        table.commit()
        table.count("weight.adam.step", 9)
    table = Table.open(path, "r+")
    assert (table.counters, table.epoch) == ({"weight.adam.step": 9}, 2)
    table.count("weight.adam.step", 10)
    table.close(commit=False)

    with Table.open(path) as table:
        assert (table.counters, table.clean) == ({"weight.adam.step": 9}, True)


def test_counters_that_do_not_fit_are_refused_when_they_are_named(path):
    def count_many(table):
        for k in range(1000):
            table.count(f"counter_with_a_long_name_{k}", 0)

    with Table.create(path, 5, 3) as table:
        with pytest.raises(ValueError, match="has room for"):
            count_many(table)
        for name in table.counters:
            table.count(name, 2**64 - 1)
        table.commit()
    with Table.open(path) as table:
        assert len(table.counters) > 100
        assert set(table.counters.values()) == {2**64 - 1}


def test_closing_without_writes_commits_nothing(small):
    before = contents(small)
    for _ in range(3):
        with Table.open(small, "r+") as table:
            assert table.epoch == 2
    after = contents(small)

    assert {name for name in after if before[name] != after[name]} == {"super", "undo"}  # attempts


def test_a_block_that_raises_is_not_committed(path):
    def train():
        with Table.create(path, 5, 3) as table:
            table.commit(step=1)
            table.write(0, 1)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        train()
    with Table.open(path) as table:
        assert (table.step, table.epoch, table.clean) == (1, 1, True)
        assert table[0].tolist() == Table.create(None, 5, 3)[0].tolist()


def test_a_column_that_no_commit_recorded_is_replaced_by_the_next_of_that_name(path):
    Table.create(path, 5, 3).close()
    crash(path, lambda table: table.add_column("context", init="ones"))
    assert (path / "context.npy").exists()

    with Table.open(path, "r+") as table:
        assert table.columns == ("weight",)
        table.add_column("context", scalar=True, init="zeros")
    with Table.open(path) as table:
        assert table.column("context").tolist() == [0] * 5


def test_a_link_in_the_place_of_a_new_column_is_not_followed(small):
    victim = small.parent / "victim"
    victim.write_text("mine")
    (small / "context.npy").symlink_to(victim)

    with Table.open(small, "r+") as table:
        table.add_column("context")

    assert victim.read_text() == "mine"
    assert not (small / "context.npy").is_symlink()


def test_metadata_that_is_too_large_is_refused_and_the_table_goes_on(small):
    with Table.open(small, "r+") as table:
        before = contents(small)
        with pytest.raises(ValueError, match=r"take \d+ bytes as JSON"):
            table.commit(metadata={"x": "y" * 8192})
        assert before == contents(small)
        assert (table.epoch, table.metadata) == (2, {"note": "small"})
        table.commit(step=8)
    with Table.open(small) as table:
        assert table.step == 8


def test_columns_that_do_not_fit_are_refused_before_a_file_is_made(small):
    def add_columns(table):
        for k in range(1000):
            table.add_column(f"column_with_a_long_name_{k}", scalar=True)

    with Table.open(small, "r+") as table:
        with pytest.raises(ValueError, match="has room for"):
            add_columns(table)
        table.commit()
        count = len(table.columns)
    assert count > 50
    assert len(list(small.glob("*.npy"))) == count
    with Table.open(small) as table:
        assert len(table.columns) == count


def test_reading_tables_take_no_changes(small):
    with Table.open(small) as table:
        for call in (
            lambda: table.write(0, 1),
            lambda: table.writing().__enter__(),
            lambda: table.add_column("x"),
            lambda: table.count("step", 1),
            lambda: table.commit(),
        ):
            with pytest.raises(ReadOnlyTableError, match="open with mode 'r'; open it with mode"):
                call()
        table.add_column("count", scalar=True)  # there is one just like it


# What reaches the disk, and when.


def logged_commit(path, monkeypatch, durability, change):
    table = Table.create(path, 5, 3, durability=durability)
    table.add_column("weight.sum")
    table.commit()
    change(table)
    with Faults().installed(monkeypatch) as faults:
        # The maps were made before; those of a table opened now are logged.
        table.close()
        table = Table.open(path, "r+")
        change(table)
        faults.log.clear()
        table.commit()
        commit = list(faults.log)
        faults.log.clear()
        table.close()
    return changes(commit), changes(faults.log)


def changes(log):
    """What was written and synced."""
    return [call for call in log if call.split()[0] not in ("fstat", "pread", "open")]


MARK = ["pwrite super", "fdatasync super"] * 2
CLOSE = ["fdatasync undo", *MARK]


def test_a_commit_syncs_changed_columns_before_super_and_then_begins_the_journal(path, monkeypatch):
    commit, close = logged_commit(path, monkeypatch, "power", lambda table: table.write(0, 1))

    assert commit == ["msync weight.npy", "pwrite super", "fdatasync super", "pwrite undo"]
    assert close == [*CLOSE, "ftruncate undo"]


def test_a_commit_syncs_every_column_that_was_handed_out(path, monkeypatch):
    def change(table):
        with table.writing() as columns:
            columns["weight.sum"][0] = columns["weight"][0]

    commit, _ = logged_commit(path, monkeypatch, "power", change)

    assert commit[:2] == ["msync weight.npy", "msync weight.sum.npy"]


def test_a_commit_of_nothing_syncs_the_header_of_the_journal_and_super(path, monkeypatch):
    commit, close = logged_commit(path, monkeypatch, "power", lambda table: None)

    assert commit == ["fdatasync undo", "pwrite super", "fdatasync super", "pwrite undo"]
    assert close == CLOSE


def test_at_level_process_only_closing_syncs(path, monkeypatch):
    commit, close = logged_commit(path, monkeypatch, "process", lambda table: table.write(0, 1))

    assert commit == ["pwrite super", "pwrite undo"]
    assert close == ["msync weight.npy", *CLOSE, "ftruncate undo"]


@pytest.mark.parametrize("durability", ["power", "process"])
def test_the_dirty_mark_is_synced_at_both_levels_before_the_journal_begins(
    path, monkeypatch, durability
):
    Table.create(path, 5, 3, durability=durability).close()
    with Faults().installed(monkeypatch) as faults, Table.open(path, "r+"):
        log = changes(faults.log)

    begin = ["pwrite undo", "fdatasync undo"][: 2 if durability == "power" else 1]
    assert log[log.index("pwrite super") :] == [*MARK, *begin]


@pytest.mark.parametrize("durability", ["power", "process"])
def test_old_rows_are_in_the_journal_before_they_may_change(path, monkeypatch, durability):
    Table.create(path, 5, 3, durability=durability).close()
    with Faults().installed(monkeypatch) as faults, Table.open(path, "r+") as table:
        faults.log.clear()
        with table.writing(np.array([1, 4])):
            log = changes(faults.log)
        faults.log.clear()
        with table.writing(np.array([1])):
            again = changes(faults.log)

    record = ["pwrite undo", "fdatasync undo"][: 2 if durability == "power" else 1]
    assert log == ["posix_fallocate undo", *record, "pwrite undo"]
    assert again == []


def test_a_mark_is_written_one_copy_at_a_time(path, monkeypatch):
    Table.create(path, 5, 3).close()
    states = []
    sync = os.fdatasync
    monkeypatch.setattr(os, "fdatasync", lambda fd: (states.append(copies(path)[:2]), sync(fd)))
    Table.open(path, "r+").close()

    clean, dirty = (0, True), (0, False)
    seen = [
        state for state, before in zip(states, [None, *states], strict=False) if state != before
    ]
    assert seen == [[dirty, clean], [dirty, dirty], [clean, dirty], [clean, clean]]


def test_a_table_found_not_clean_is_synced_whole_before_it_is_marked_clean(path, monkeypatch):
    with Table.create(path, 5, 3, durability="process") as table:
        table.add_column("context")
    crash(path, lambda table: (table.write(0, 1), table.commit()))
    with Faults().installed(monkeypatch) as faults:
        table = Table.open(path, "r+")
        assert table.recovered == 0
        table.commit()
        faults.log.clear()
        table.close()

    assert changes(faults.log) == [
        "msync context.npy",
        "msync weight.npy",
        *CLOSE,
        "ftruncate undo",
    ]


def test_counters_have_room_whatever_they_count_to(path):
    with Table.create(path, 2, 2) as table:
        table.count("steps", 0)
        size = next(size for size in range(8100, 0, -1) if committed(table, {"note": "x" * size}))
        table.count("steps", 2**64 - 1)
        table.commit()

        with pytest.raises(ValueError, match="keep longer metadata in a file"):
            table.commit(metadata={"note": "x" * (size + 1)})
    assert Table.open(path).counters == {"steps": 2**64 - 1}


def committed(table, metadata):
    try:
        table.commit(metadata=metadata)
    except ValueError:
        return False
    return True


def test_a_commit_to_a_table_that_was_deleted_is_refused(path):
    table = Table.create(path, 2, 2)
    shutil.rmtree(path)
    table.write(0, 3)

    with pytest.raises(FileNotFoundError, match="the table was deleted while it was open"):
        table.commit()
    table.close()


def test_a_table_that_was_deleted_closes_if_there_is_nothing_to_commit(path):
    table = Table.create(path, 2, 2)
    shutil.rmtree(path)

    table.close()
    assert table.closed


def test_closing_in_a_writing_block_is_refused_and_closes_nothing(path):
    with Table.create(path, 2, 2, init="zeros") as table:
        with table.writing() as columns:
            with pytest.raises(RuntimeError, match="close in a `writing` block"):
                table.close()
            columns["weight"][0] = 7
        table.commit()
        assert table[0].tolist() == [7, 7]


def test_the_largest_attempt_stays(path):
    Table.create(path, 2, 2).close()
    file = path / "super"
    data = bytearray(file.read_bytes())
    superblock = dataclasses.replace(format_module.decode_super(bytes(data)), attempt=2**64 - 1)
    data[: format_module.SLOT_BYTES] = format_module.encode_copy(superblock) * 2
    file.write_bytes(data)

    Table.open(path, "r+").close()

    assert Table.open(path)._store.superblock.attempt == 2**64 - 1


def test_an_interrupt_at_the_end_of_adding_a_column_leaves_a_table_that_opens(path, monkeypatch):
    table = Table.create(path, 2, 2)
    monkeypatch.setattr(
        DirectoryStore, "_pending", property(lambda _: False, interrupted), raising=False
    )

    with pytest.raises(KeyboardInterrupt):
        table.add_column("context")
    monkeypatch.undo()
    table._store._pending = False
    table.commit()
    table.close()

    assert list(Table.open(path).columns) == ["weight"]


def interrupted(store, value):
    raise KeyboardInterrupt
