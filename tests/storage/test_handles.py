"""Handles: pickling by path, reading in children, read-only views, tables beyond 2**32."""

from __future__ import annotations

import copy
import multiprocessing
import os
import pickle
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mmembed.errors import CorruptTableError, TableNotFoundError
from mmembed.storage import Table
from mmembed.storage.format import encode_copy, encode_header
from mmembed.storage.journal_format import Header
from mmembed.storage.journal_format import encode_header as encode_journal_header

from . import workers
from .examples import EXAMPLE, contents
from .faults import Faults

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_a_table_on_disk_pickles_by_path(small, mode):
    with Table.open(small, mode) as table:
        data = pickle.dumps(table)
        twin = pickle.loads(data)

        assert len(data) < 1000
        assert (twin.mode, twin.step, twin.uuid) == ("r", 7, table.uuid)
        assert np.array_equal(twin[:], table[:])
        twin.close()


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_table_goes_to_other_processes(small, method):
    context = multiprocessing.get_context(method)
    with Table.open(small, "r+") as table:
        table.write(1, 5)
        with context.Pool(2) as pool:
            results = pool.starmap(workers.look, [(table, [1, 4])] * 4)

        expected = ([[5, 5, 5], [4, 5, 6]], "r", 7, ("weight", "count"), str(small))
        assert results == [expected] * 4
        assert workers.look(table, [1])[1] == "r+"


def test_a_table_opened_before_a_fork_can_be_read_in_the_child(small):
    table = Table.open(small)
    context = multiprocessing.get_context("fork")
    receiving, sending = context.Pipe(duplex=False)
    child = context.Process(target=lambda: sending.send(table.gather([4, 0]).tolist()))
    child.start()
    child.join()

    assert receiving.recv() == [[4, 5, 6], [1, 2, 3]]
    table.close()


def test_unpickling_notices_another_table_in_its_place(small, path):
    with Table.open(small) as table:
        data = pickle.dumps(table)
    os.rename(small, small.with_name("moved"))
    with pytest.raises(TableNotFoundError):
        pickle.loads(data)
    Table.create(path, 5, 3).close()

    with pytest.raises(CorruptTableError, match=r"is table \w{32}, and table \w{32} was pickled"):
        pickle.loads(data)


def test_a_closed_table_on_disk_still_pickles(small):
    table = Table.open(small)
    table.close()

    with pickle.loads(pickle.dumps(table)) as twin:
        assert twin.step == 7


def test_permission_to_open_foreign_files_is_pickled_along(small):
    small.chmod(0o770)
    with (
        Table.open(small, allow_foreign=True) as table,
        pickle.loads(pickle.dumps(table)) as twin,
        copy.copy(table) as another,
    ):
        assert twin.step == another.step == 7


# Views.


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_views_of_tables_on_disk_refuse_writes(small, mode):
    before = contents(small)
    with Table.open(small, mode) as table:
        for name in table.columns:
            view = table.column(name)
            with pytest.raises(ValueError, match="read-only"):
                view[0] = 1
            with pytest.raises(ValueError, match="WRITEABLE"):
                view.flags.writeable = True
            with pytest.raises(ValueError, match="read-only"):
                np.add(view, 1, out=view)
            with pytest.raises(ValueError, match="read-only"):
                view.sort()
    assert before["weight.npy"] == contents(small)["weight.npy"]


def test_views_follow_writes(small):
    with Table.open(small, "r+") as table:
        view = table.column()
        table.write(2, 9)

        assert view[2].tolist() == [9, 9, 9]


def test_views_stay_readable_after_closing(small):
    with Table.open(small) as table:
        view = table.column()

    assert view[0].tolist() == [1, 2, 3]


def test_numpy_reads_the_rows_without_this_library(small):
    script = f"""
import numpy as np, sys
rows = np.load({str(small / "weight.npy")!r}, mmap_mode="r")
print(rows[4].tolist(), rows.shape, rows.offset, "mmembed" in sys.modules)
print(np.load({str(small / "count.npy")!r}).tolist())
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.splitlines() == [
        "[4.0, 5.0, 6.0] (5, 3) 4096 False",
        "[0.0, 0.0, 0.0, 0.0, 0.0]",
    ], done.stderr


def test_reading_opens_nothing_for_writing_and_writes_nothing(small, monkeypatch):
    flags = []
    with Faults().installed(monkeypatch) as faults:
        opened = faults.__getattr__("open")
        faults.open = lambda name, how, *rest, **options: (
            flags.append(how) or opened(name, how, *rest, **options)
        )
        Table.open(small).close()

    assert flags
    assert all(how & os.O_ACCMODE == os.O_RDONLY for how in flags)
    assert not any(how & (os.O_CREAT | os.O_TRUNC) for how in flags)
    assert {call.split()[0] for call in faults.log} <= {"open", "fstat", "pread"}


def test_a_table_in_a_read_only_directory_can_be_read(small):
    for file in small.iterdir():
        file.chmod(0o400)
    small.chmod(0o500)

    with Table.open(small) as table:
        assert table.step == 7
    small.chmod(0o700)


def test_a_reading_table_keeps_only_its_maps(small):
    before = len(os.listdir("/proc/self/fd"))
    tables = [Table.open(small) for _ in range(10)]

    # Python keeps one descriptor in each map.
    assert len(os.listdir("/proc/self/fd")) <= before + 2 * len(tables)
    for table in tables:
        table.close()
    assert len(os.listdir("/proc/self/fd")) == before


def test_threads_gather_at_once(small):
    with Table.open(small) as table:
        expected = table.gather([4, 0, 4])
        wrong = []

        def gather():
            wrong.extend(1 for _ in range(200) if not np.array_equal(table[[4, 0, 4]], expected))

        threads = [threading.Thread(target=gather) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert not wrong


# Beyond 32 bits; the files are holes, so that they cost nothing.


def sparse_table(path, rows, dim):
    column = EXAMPLE.columns[0].__class__(
        "weight", "float32", dim, EXAMPLE.columns[1].init, EXAMPLE.seed
    )
    superblock = EXAMPLE.__class__(
        **{
            **EXAMPLE.__dict__,
            "rows": rows,
            "other_rows": rows,
            "columns": (column,),
            "metadata": {},
        }
    )
    path.mkdir(mode=0o700)
    for name, data, size in (
        ("LOCK", b"", 0),
        ("undo", encode_journal_header(Header(4, 2, 0), EXAMPLE.uuid).ljust(4096, b"\0"), 4096),
        ("super", bytes(16384) + encode_copy(superblock) * 2, 32768),
        ("weight.npy", encode_header(column, rows, EXAMPLE.uuid), 4096 + rows * dim * 4),
    ):
        (path / name).touch(mode=0o600)
        (path / name).write_bytes(data)
        os.truncate(path / name, size)


@pytest.mark.parametrize(
    ("rows", "dim"), [(2**32 + 5, 1), (2**31 + 5, 3), (2**12 + 1, 2**18 + 1), (2**20 + 1, 1025)]
)
def test_rows_beyond_32_bits_are_where_they_belong(path, rows, dim):
    sparse_table(path, rows, dim)
    ids = [rows - 1, 0, rows // 2 + 1, 2**31 // dim if 2**31 // dim < rows else 1]
    with Table.open(path, "r+") as table:
        for number, row in enumerate(ids):
            with table.writing(np.array([row])) as columns:
                columns["weight"][row, :1] = columns["weight"][row, -1:] = number + 1
        table.commit()
        assert table.nbytes == rows * dim * 4 > 2**32

    with Table.open(path) as table, open(path / "weight.npy", "rb") as file:
        for number, row in enumerate(ids):
            file.seek(4096 + (row * dim + dim - 1) * 4)
            assert np.frombuffer(file.read(4), np.float32)[0] == number + 1
        if dim < 2**20:
            assert table[ids][:, 0].tolist() == [1, 2, 3, 4]
            assert table.gather(np.array([rows - 1]))[0, -1] == 1
        with pytest.raises(IndexError, match=rf"id {rows} at 0 .*valid: 0\.\.{rows - 1}\)"):
            table.gather([rows])
    assert (path / "weight.npy").stat().st_blocks * 512 < 2**20


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_workers_of_a_loader_read_commits_while_their_parent_trains(small, method):
    context = multiprocessing.get_context(method)
    with Table.open(small, "r+") as table, Table.open(small, view="committed") as reader:
        table.write([1, 2, 3], 1)
        table.commit()
        with context.Pool(2) as pool:
            results = pool.starmap_async(workers.watch, [(reader, 200)] * 4)
            number = 1
            while not results.ready() or number < 5:
                number += 1
                table.write([1, 2], -1)
                table.write([1, 2, 3], number)
                table.commit()
                time.sleep(0.002)

            assert results.get() == [("committed", False)] * 4


@pytest.mark.parametrize("view", ["live", "committed"])
def test_a_reader_of_before_a_fork_reads_on_in_the_child_after_its_parent_ended(small, view):
    table = Table.open(small, view=view)
    reading, writing = os.pipe()
    parent = os.fork()
    if parent == 0:
        if os.fork() == 0:
            with Table.open(small, "r+") as writer:
                writer.write(0, 8)
            os.write(writing, bytes(table[0].astype(np.uint8)))
        os._exit(0)
    os.waitpid(parent, 0)

    assert os.read(reading, 10) == b"\x08\x08\x08"
    table.close()
