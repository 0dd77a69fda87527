"""Growing: the same rows as in a table made larger, whatever fails or dies on the way."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mmembed.errors import (
    ClosedTableError,
    CorruptTableError,
    ReadOnlyTableError,
    TableFailedError,
)
from mmembed.storage import Table
from mmembed.storage.column import Column
from mmembed.storage.format import SLOT_BYTES, decode_super, slot_offset
from mmembed.storage.superfile import SuperFile

from .examples import contents
from .faults import Faults, every_fault

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


def initial(column: Column, rows: int) -> np.ndarray:
    """The rows of a column that nobody has written to."""
    values = np.empty(column.shape(rows), column.dtype)
    column.init.fill(values, 0, column.seed)
    return values


def make(place, rows=5, dtype="float32", init="normal"):
    """A table with three columns, two rows of each written to, and a commit."""
    table = Table.create(place, rows, 3, dtype, init=init, seed=7)
    table.add_column("context", 2, init="uniform(-1, 1)")
    table.add_column("count", scalar=True, init="ones")
    table.count("steps", 12)
    with table.writing(np.array([0, 4])) as columns:
        for column in columns.values():
            column[[0, 4]] = 9
    table.commit(step=3, metadata={"note": "made"})
    return table


def check(table, rows, of=None):
    """The table is `make`'s after a growth to `rows` rows; `of` describes the columns."""
    for column in (of or table)._store.superblock.columns:
        expected = initial(column, rows)
        expected[[0, 4]] = 9
        found = table.column(column.name)
        assert found.dtype == expected.dtype
        assert np.array_equal(found, expected), column.name
    assert table.rows == rows
    assert table.counters == {"steps": 12}
    assert (table.step, table.metadata) == (3, {"note": "made"})


# What a growth is.


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("init", ["zeros", "normal", "uniform(-1, 1)", "constant(0.5)"])
def test_a_grown_table_is_as_if_made_with_that_many_rows(place, dtype, init):
    with make(place, dtype=dtype, init=init) as table:
        table.resize(9)
        check(table, 9)
        table.resize(1000)
        check(table, 1000)

        assert table.shape == (1000, 3)
        assert table[[999, 0]].shape == (2, 3)
        table.write([999], 5)
        assert table[[999]].tolist() == [[5, 5, 5]]


def test_a_growth_over_several_blocks_has_the_rows_of_a_table_made_so(place, monkeypatch):
    monkeypatch.setattr("mmembed.storage.store.BLOCK_BYTES", 100)
    with make(place) as table:
        table.resize(100)

        check(table, 100)


@pytest.mark.parametrize(("rows", "dim"), [(0, 3), (0, 0), (4, 0), (1, 1)])
def test_a_table_without_rows_or_width_grows(place, rows, dim):
    with Table.create(place, rows, dim) as table:
        table.resize(7)

        assert np.array_equal(table[:], Table.create(None, 7, dim)[:])
    if place:
        with Table.open(place) as table:
            assert (table.shape, table.clean) == ((7, dim), True)


def test_the_present_number_of_rows_changes_nothing(place):
    with make(place) as table:
        before = contents(place) if place else None
        table.resize(5)

        assert table.epoch == 1
        assert before == (contents(place) if place else None)


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (4, ValueError, "a table of 5 rows cannot be resized to 4: tables do not shrink"),
        (0, ValueError, "do not shrink"),
        (-1, ValueError, r"rows must be in 0\.\.9223372036854775807"),
        (2**62, ValueError, "do not fit a file"),
        (2.0, TypeError, "rows must be an integer, got 2.0"),
        (True, TypeError, "rows must be an integer, got True"),
    ],
)
def test_a_number_of_rows_that_cannot_be_is_refused_and_nothing_changes(
    place, rows, error, message
):
    with make(place) as table:
        before = contents(place) if place else None
        with pytest.raises(error, match=message):
            table.resize(rows)

        check(table, 5)
        assert before == (contents(place) if place else None)


def test_a_growth_in_a_writing_block_is_refused(place):
    with make(place) as table:
        with (
            table.writing() as columns,
            pytest.raises(RuntimeError, match="resize in a `writing` block"),
        ):
            table.resize(9)
        assert columns["weight"].shape == (5, 3)
        check(table, 5)


def test_arrays_handed_out_before_keep_the_old_rows(place):
    with make(place) as table:
        before, rows = table.column(), table[:]
        table.resize(9)
        table.write(8, 1)

        assert before.shape == (5, 3)
        assert np.array_equal(before, rows)


def test_columns_added_after_a_growth_have_its_rows(place):
    with make(place) as table:
        table.resize(9)
        table.add_column("late", init="ones")
        table.resize(11)

        assert table.column("late").tolist() == [[1, 1, 1]] * 11


def test_a_table_around_an_array_grows_into_memory_of_its_own():
    array = np.ones((4, 6), np.float32)[:, :3]
    table = Table.from_array(array)

    table.resize(6)
    table.write(0, 8)

    assert table[:].tolist() == [[8] * 3] + [[1] * 3] * 3 + [[0] * 3] * 2
    assert array.min() == 1


def test_tables_that_cannot_be_written_do_not_grow(path):
    array = np.zeros((4, 3))
    array.flags.writeable = False
    with pytest.raises(ReadOnlyTableError, match="wraps a read-only array"):
        Table.from_array(array).resize(5)
    table = make(path)
    table.close()
    with pytest.raises(ClosedTableError):
        table.resize(9)
    before = contents(path)
    with Table.open(path) as table:
        table.resize(5)  # which is nothing
        with pytest.raises(ReadOnlyTableError, match="open with mode 'r'"):
            table.resize(9)
    assert contents(path) == before


def test_a_forked_child_does_not_grow_the_table(path):
    with make(path) as table:
        child = os.fork()
        if child == 0:
            try:
                table.resize(9)
            except ClosedTableError:
                os._exit(7)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        check(table, 5)


# Growth and commits.


def test_a_growth_is_recorded_when_it_returns(path):
    table = make(path)
    table.resize(9)
    with Table.open(path) as reader:
        check(reader, 9)
    table.close(commit=False)

    with Table.open(path) as reader:
        check(reader, 9)
        assert (reader.clean, reader.epoch) == (True, 3)


def test_numpy_sees_the_new_rows(path):
    with make(path) as table:
        table.resize(9)
        for name in table.columns:
            rows = np.load(path / f"{name}.npy", mmap_mode="r")
            assert np.array_equal(rows, table.column(name))


def test_a_growth_does_not_commit(path):
    table = make(path)
    table.add_column("draft")
    table.count("steps", 99)
    table.write(1, 4)
    table.resize(9)
    assert table.column("draft").shape == (9, 3)
    assert table.counters == {"steps": 99}
    table.close(commit=False)

    with Table.open(path) as reader:
        assert (reader.columns, reader.counters) == (("weight", "context", "count"), {"steps": 12})
        assert (reader.rows, reader.step, reader.clean) == (9, 3, True)
        assert reader[1].tolist() == initial(reader._store.superblock.columns[0], 2)[1].tolist()


def test_what_was_not_committed_before_a_growth_can_be_committed_after_it(path):
    with make(path) as table:
        table.add_column("draft", init="ones")
        table.count("steps", 99)
        table.write(1, 4)
        table.resize(9)
        table.write(8, 5)
        table.commit(step=8)

    with Table.open(path) as reader:
        assert (reader.step, reader.rows, reader.counters) == (8, 9, {"steps": 99})
        assert reader.column("draft").tolist() == [[1, 1, 1]] * 9
        assert reader[[1, 8]].tolist() == [[4, 4, 4], [5, 5, 5]]
        assert reader.clean


def test_a_growth_survives_the_loss_of_the_newest_slot(path):
    make(path).close()
    with Table.open(path, "r+") as table:
        table.resize(9)
        epoch = table.epoch
    with open(path / "super", "r+b") as file:
        file.seek(slot_offset(epoch))
        file.write(b"?" * SLOT_BYTES)

    with Table.open(path) as reader:
        check(reader, 9)
        assert not reader.clean
    with Table.open(path, "r+") as table:
        check(table, 9)
        table.commit()
    with Table.open(path) as reader:
        assert (reader.rows, reader.clean) == (9, True)


# Readers.


def test_a_reader_keeps_its_rows_and_sees_the_new_ones_when_it_opens_again(path):
    with make(path) as table, Table.open(path) as reader:
        table.resize(100_000)
        table.write(0, 3)

        assert reader.shape == (5, 3)
        assert reader[[0, 4]].tolist() == [[3, 3, 3], [9, 9, 9]]
        with Table.open(path) as again:
            assert again.shape == (100_000, 3)


def test_a_reader_that_opens_during_a_growth_is_not_refused(path, monkeypatch):
    with make(path) as table:
        read, rows = SuperFile.read, [9, 12]

        def grown_meanwhile(file):
            superblock = read(file)
            if rows:
                table.resize(rows.pop(0))
            return superblock

        monkeypatch.setattr(SuperFile, "read", grown_meanwhile)
        with Table.open(path) as reader:
            check(reader, 12, of=table)


GROWER = """
import sys
from mmembed.storage import Table
table = Table.open(sys.argv[1], "r+")
print("open", flush=True)
while True:
    table.resize(table.rows + int(sys.argv[2]))
    print(table.rows, flush=True)
"""


def test_readers_are_not_refused_while_another_process_grows_the_table(path):
    make(path).close()
    with subprocess.Popen(
        [sys.executable, "-c", GROWER, str(path), "1"], stdout=subprocess.PIPE
    ) as grower:
        try:
            assert grower.stdout.readline() == b"open\n"
            seen, end = 5, time.monotonic() + 1
            while time.monotonic() < end:
                with Table.open(path) as reader:
                    assert reader.rows >= seen
                    seen = reader.rows
                    check(reader, seen)
        finally:
            grower.kill()
    assert seen > 5


# What fails, and what dies.


def calls_of_a_growth(path, monkeypatch, durability="power"):
    """What a growth of a table with one column wrote and synced."""
    with Table.create(path, 5, 3, durability=durability), Faults().installed(monkeypatch):
        pass
    with Faults().installed(monkeypatch) as faults, Table.open(path, "r+") as table:
        faults.log.clear()
        table.resize(9)
        log = list(faults.log)
    quiet = ("fstat", "open", "pread")
    return [call for call in log if call.split()[0] not in quiet]


@pytest.mark.parametrize("durability", ["power", "process"])
def test_a_growth_is_marked_written_recorded_and_settled_in_this_order(
    path, monkeypatch, durability
):
    record = ["pwrite super", "fdatasync super"]
    write = ["pwrite weight.npy", "fdatasync weight.npy"]

    assert calls_of_a_growth(path, monkeypatch, durability) == [
        *record, *record, "posix_fallocate weight.npy", *write, *record, *write, *record,
    ]  # fmt: skip


def check_on_disk(path, *allowed):
    """Whoever opens the table finds one of the numbers of rows; a writer settles it, and grows."""
    with Table.open(path) as reader:
        rows = reader.rows
        assert rows in allowed
        check(reader, rows)
    with Table.open(path, "r+") as table:
        assert table.rows == rows
        check(table, rows)
        superblock = decode_super((path / "super").read_bytes())
        assert (superblock.rows, superblock.other_rows) == (rows, rows)
        for column in superblock.columns:
            assert np.load(path / f"{column.name}.npy", mmap_mode="r").shape == column.shape(rows)
            size = 4096 + column.row_bytes * rows
            assert (path / f"{column.name}.npy").stat().st_size == size
        table.resize(rows + 4)
        check(table, rows + 4)
    return rows


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_growth_that_fails_anywhere_is_undone_or_recorded(tmp_path, monkeypatch, interrupt):
    paths = (tmp_path / f"{number}.mmembed" for number in range(1000))
    went_on, ended, lost = [], [], []

    def prepare():
        path = next(paths)
        make(path).close()
        return path, Table.open(path, "r+")

    def grow(prepared):
        prepared[1].resize(9)
        return True

    for call, (path, table), done in every_fault(grow, monkeypatch, interrupt, prepare):
        with Table.open(path) as reader:
            check(reader, reader.rows)
        if done:
            check(table, 9)
            continue
        try:
            table.commit(step=3)
        except TableFailedError:
            ended.append(call)
            check(table, 5)
            table.close()
            lost.append(check_on_disk(path, 5, 9))
            continue
        went_on.append(call)
        check(table, table.rows)
        assert (path / "weight.npy").stat().st_size == 4096 + 12 * table.rows
        assert not decode_super((path / "super").read_bytes()).growing
        table.resize(12)
        check(table, 12)
        table.close()
        check_on_disk(path, 12)

    slow = ("posix_fallocate", "pwrite", "fdatasync")
    names = ("weight.npy", "context.npy", "count.npy")
    assert {f"{call} {name}" for call in slow for name in names} <= set(went_on)
    assert {"pwrite super", "fdatasync super"} <= set(ended)
    assert set(lost) == {5, 9}


def test_a_full_disk_leaves_the_old_rows_and_a_table_that_goes_on(path):
    make(path).close()
    script = f"""
import resource
from mmembed.storage import Table
table = Table.open({str(path)!r}, "r+")
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
for _ in range(2):
    try:
        table.resize(100_000)
    except OSError as error:
        print(error.errno)
print(table.rows)
table.write(1, 4)
table.resize(9)
table.commit(step=4)
table.close()
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.split() == ["27", "27", "5"], done.stderr
    assert done.stderr == ""
    with Table.open(path) as table:
        assert (table.rows, table.step, table.clean) == (9, 4, True)
        assert table[[0, 1]].tolist() == [[9] * 3, [4] * 3]


def test_a_disk_without_room_is_found_before_it_is_filled(path, monkeypatch):
    with make(path) as table:
        before = contents(path)
        with pytest.raises(OSError, match=r"No space left on device: \d+ bytes asked, \d+ free"):
            table.resize(2**50)
        check(table, 5)
        after = contents(path)
        assert {name for name in after if after[name] != before[name]} == {"super"}
        table.resize(6)
        check(table, 6)


def test_the_files_of_another_table_are_not_extended(path):
    make(path).close()
    with Table.open(path, "r+") as table:
        before = (path / "weight.npy").read_bytes()
        (path / "count.npy").write_bytes(before)
        with pytest.raises(CorruptTableError, match=r"count\.npy holds another column"):
            table.resize(9)
        assert (path / "weight.npy").read_bytes() == before


def test_an_opening_that_settles_a_growth_may_fail_anywhere(tmp_path, monkeypatch):
    for number, (files, _) in enumerate(states_of_a_growth(tmp_path / "t", monkeypatch)):
        path = tmp_path / f"{number}.mmembed"
        restore(path, files)
        if not decode_super((path / "super").read_bytes()).growing:
            continue
        for _, _, table in every_fault(lambda _, p=path: Table.open(p, "r+"), monkeypatch):
            if table is not None:
                table.close()
            with Table.open(path) as reader:
                check(reader, reader.rows)
        check_on_disk(path, 5, 9)


# What a kill and a loss of power leave. A kill leaves what was written until then. A loss of power
# leaves what was synced, and of each sector that was written since, its old or its new bytes.


def files_of(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def restore(path, files):
    path.mkdir(mode=0o700)
    for name, data in files.items():
        (path / name).touch(mode=0o600)
        (path / name).write_bytes(data)


def states_of_a_growth(path, monkeypatch):
    """(files as written, files as synced) after each call of a growth that changes files."""
    make(path).close()
    states = []
    with Faults().installed(monkeypatch) as faults, Table.open(path, "r+") as table:
        synced = files_of(path)

        def watch(call):
            nonlocal synced
            kind, name = call.split()
            written = files_of(path)
            if kind in ("fdatasync", "msync"):
                synced = {**synced, name: written[name]}
            if kind not in ("fstat", "open", "pread"):
                states.append((written, synced))

        faults.watch = watch
        table.resize(9)
        faults.watch = lambda call: None
    return states


def lose_power(written, synced, chance):
    """Files after a loss of power: a choice of sectors, and of one of the two sizes."""
    files = {}
    for name, new in written.items():
        old = synced[name]
        data = bytearray()
        for at in range(0, max(len(old), len(new)), 512):
            pair = [part[at : at + 512].ljust(512, b"\0") for part in (old, new)]
            tear = chance.choice([0, 512, 512, chance.randrange(512)])
            data += chance.choice([pair[0], pair[1], pair[0][:tear] + pair[1][tear:]])
        files[name] = bytes(data[: chance.choice([len(old), len(new)])])
    return files


def test_a_kill_at_any_call_leaves_the_old_rows_or_the_new(tmp_path, monkeypatch):
    states = states_of_a_growth(tmp_path / "t", monkeypatch)
    found = []
    for number, (written, _) in enumerate(states):
        restore(tmp_path / f"{number}.mmembed", written)
        found.append(check_on_disk(tmp_path / f"{number}.mmembed", 5, 9))

    assert found == sorted(found)
    assert set(found) == {5, 9}


def check_losses_of_power(tmp_path, monkeypatch, draws):
    states = states_of_a_growth(tmp_path / "t", monkeypatch)
    chance = random.Random(3)
    found = []
    for number, (written, synced) in enumerate(states):
        for draw in range(draws):
            path = tmp_path / f"{number}-{draw}.mmembed"
            restore(path, lose_power(written, synced, chance))
            found.append(check_on_disk(path, 5, 9))
    assert set(found[-draws:]) == {9}
    assert set(found) == {5, 9}


def test_a_loss_of_power_at_any_call_leaves_the_old_rows_or_the_new(tmp_path, monkeypatch):
    check_losses_of_power(tmp_path, monkeypatch, draws=4)


@pytest.mark.long
def test_many_losses_of_power_leave_the_old_rows_or_the_new(tmp_path, monkeypatch):
    check_losses_of_power(tmp_path, monkeypatch, draws=100)


def check_kills(path, kills, chance):
    make(path).close()
    acknowledged = 5
    for _ in range(kills):
        with subprocess.Popen(
            [sys.executable, "-c", GROWER, str(path), str(chance.choice([1, 7, 50_000]))],
            stdout=subprocess.PIPE,
        ) as grower:
            try:
                assert grower.stdout.readline() == b"open\n"
                time.sleep(chance.uniform(0, 0.03))
            finally:
                grower.kill()
            lines = grower.stdout.read().split()
        acknowledged = int(lines[-1]) if lines else acknowledged
        with Table.open(path) as reader:
            assert reader.rows >= acknowledged
            acknowledged = reader.rows
            check(reader, acknowledged)
    check_on_disk(path, acknowledged)


def test_a_growth_that_returned_survives_kill_9(path):
    check_kills(path, 6, random.Random(4))


@pytest.mark.long
def test_growths_that_returned_survive_many_kills(path):
    check_kills(path, 150, random.Random(5))


def test_threads_read_while_the_table_grows(path):
    with make(path) as table:
        expected, wrong, stop = table[[0, 4]], [], threading.Event()

        def read():
            while not stop.is_set():
                if not np.array_equal(table[[0, 4]], expected):
                    wrong.append(1)

        thread = threading.Thread(target=read)
        thread.start()
        try:
            for rows in range(6, 40):
                table.resize(rows)
        finally:
            stop.set()
            thread.join()
    assert not wrong
