"""Creating a table: whole and durable, or nothing."""

from __future__ import annotations

import errno
import gc
import os
import shutil
import signal
import stat
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from mmembed.errors import TableExistsError
from mmembed.storage import Table
from mmembed.storage import files as files_module
from mmembed.storage import store as store_module

from .examples import contents
from .faults import Faults, every_fault


def open_descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_create_that_fails_anywhere_leaves_nothing(path, monkeypatch, interrupt):
    failed = []
    for call, _, table in every_fault(lambda _: Table.create(path, 9, 3), monkeypatch, interrupt):
        if table is None:
            failed.append(call)
            assert os.listdir(path.parent) == []
        else:
            table.close()
            shutil.rmtree(path)

    assert len(failed) > 20
    assert any("renameat2" in call for call in failed)


def test_a_create_that_fails_leaves_no_descriptor(path, monkeypatch):
    gc.collect()  # what other tests left open is closed now, and not in between
    before = open_descriptors()

    for _, _, table in every_fault(lambda _: Table.create(path, 9, 3), monkeypatch):
        if table is None:
            assert open_descriptors() == before
        else:
            table.close()
            shutil.rmtree(path)


def test_create_reserves_writes_syncs_and_only_then_renames(path, monkeypatch):
    with Faults().installed(monkeypatch) as faults:
        Table.create(path, 9, 3).close()

    log = faults.log
    renamed = next(i for i, call in enumerate(log) if call.startswith("renameat2"))
    for name in ("weight.npy", "super"):
        reserved = log.index(f"posix_fallocate {name}")
        synced = log.index(f"fdatasync {name}")
        writes = [i for i, call in enumerate(log) if call == f"pwrite {name}" and i < renamed]
        assert reserved < writes[0] <= writes[-1] < synced < renamed
    assert log.index("fdatasync weight.npy") < log.index("open super")
    synced = [i for i, call in enumerate(log) if call.startswith("fsync")]
    assert synced[0] == renamed - 1
    assert log[synced[0]].startswith("fsync items.mmembed.tmp-")
    assert log[synced[1]] == f"fsync {path.parent.name}"
    assert synced[1] > renamed


def test_files_are_private_whatever_the_umask_is(path):
    before = os.umask(0o777)
    try:
        with Table.create(path, 9, 3) as table:
            table.add_column("count", scalar=True)
    finally:
        os.umask(before)

    assert stat.S_IMODE(path.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in path.iterdir()} == {0o600}
    assert sorted(os.listdir(path)) == ["LOCK", "count.npy", "super", "undo", "weight.npy"]


def test_a_new_table_occupies_its_space(path):
    with Table.create(path, 10_000, 16, init="zeros"):
        size = (path / "weight.npy").stat()

    assert size.st_size == 4096 + 10_000 * 64
    assert size.st_blocks * 512 >= size.st_size


@pytest.mark.parametrize("make", [os.mkdir, lambda path: path.write_text("mine")])
def test_what_exists_is_not_replaced(path, make):
    make(path)

    with pytest.raises(TableExistsError, match="exists already; open it, or remove it first"):
        Table.create(path, 9, 3)
    with pytest.raises(FileExistsError):
        Table.create(path, 9, 3)
    assert path.is_dir() or path.read_text() == "mine"
    assert list(path.parent.iterdir()) == [path]


def test_a_dangling_link_is_not_replaced(path):
    path.symlink_to("nowhere")

    with pytest.raises(TableExistsError):
        Table.create(path, 9, 3)
    assert path.is_symlink()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("system_call", [True, False])
def test_what_appears_during_the_creation_is_not_replaced(path, monkeypatch, system_call):
    if not system_call:
        monkeypatch.setattr(files_module, "_renameat2", lambda old, new: False)
    write = store_module.initial_blocks

    def somebody_is_faster(*what):
        path.mkdir()
        yield from write(*what)

    monkeypatch.setattr("mmembed.storage.column_files.initial_blocks", somebody_is_faster)

    with pytest.raises(TableExistsError, match="was created by someone else meanwhile"):
        Table.create(path, 9, 3)
    assert os.listdir(path.parent) == [path.name]
    assert os.listdir(path) == []


def test_creation_works_without_renameat2(path, monkeypatch):
    monkeypatch.setattr(files_module, "_renameat2", lambda old, new: False)

    with Table.create(path, 9, 3) as table:
        table.commit(step=4)

    assert os.listdir(path.parent) == [path.name]
    with Table.open(path) as table:
        assert table.step == 4


def test_creation_works_where_nothing_can_be_reserved(path, monkeypatch):
    def cannot(fd, offset, size):
        raise OSError(errno.EOPNOTSUPP, "no")

    monkeypatch.setattr(os, "posix_fallocate", cannot)

    with Table.create(path, 9, 3) as table:
        assert table.column().any()
    with Table.open(path) as table:
        assert table.column().all()


def test_a_parent_that_is_missing_is_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"cannot create .*/a/b: .*/a does not exist"):
        Table.create(tmp_path / "a" / "b", 9, 3)


def test_a_relative_path_is_kept_absolute(path, monkeypatch):
    monkeypatch.chdir(path.parent)
    with Table.create("items.mmembed/", 9, 3) as table:
        monkeypatch.chdir("/")

        assert table.path == path
        table.add_column("context")
        table.commit()
    with Table.open(os.fsencode(path)) as table:
        assert table.columns == ("weight", "context")


def test_a_full_disk_is_an_error_and_leaves_nothing(path):
    script = f"""
import resource, signal
from mmembed.storage import Table
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    Table.create({str(path)!r}, 10_000, 8)
except OSError as error:
    print(type(error).__name__, error.errno)
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)

    assert done.stdout.split() == ["OSError", str(errno.EFBIG)], done.stderr
    assert os.listdir(path.parent) == []


def test_ctrl_c_leaves_no_draft(path, monkeypatch):
    main = threading.main_thread().ident
    fill = store_module.initial_blocks

    def slow_blocks(*what):
        for block in fill(*what):
            yield block
            threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGINT)).start()
            time.sleep(10)

    monkeypatch.setattr("mmembed.storage.column_files.initial_blocks", slow_blocks)
    # Whatever started the tests may have had the signal ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)

    with pytest.raises(KeyboardInterrupt):
        Table.create(path, 9, 3)
    signal.signal(signal.SIGINT, before)
    assert os.listdir(path.parent) == []


def test_a_created_table_is_open_for_writing_and_not_clean_on_disk(path):
    with Table.create(path, 9, 3) as table:
        table.write(0, 1)
        with Table.open(path) as reader:
            assert (reader.clean, reader.epoch) == (False, 0)
            assert reader[0].tolist() == [1, 1, 1]
    with Table.open(path) as reader:
        assert (reader.clean, reader.epoch) == (True, 1)


def test_tables_created_alike_differ_only_in_their_uuid(path):
    twin = path.with_name("twin")
    for where in (path, twin):
        with Table.create(where, 9, 3, seed=4):
            pass

    with Table.open(path) as a, Table.open(twin) as b:
        assert a.uuid != b.uuid
        assert np.array_equal(a.column(), b.column())
    assert contents(path).keys() == contents(twin).keys()


# -- rows that are given ---------------------------------------------------------------------------


@pytest.mark.parametrize("on_disk", [False, True])
def test_initial_rows_may_be_changed_block_by_block(path, monkeypatch, on_disk):
    monkeypatch.setattr(store_module, "BLOCK_BYTES", 24)

    def fill(first, values):
        values[:, 0] = np.arange(first, first + len(values))

    with Table.create(path if on_disk else None, 9, 3, init="ones", fill=fill) as table:
        assert table.column()[:, 0].tolist() == list(range(9))
        assert (table.column()[:, 1:] == 1).all()
        assert table.clean


def test_a_fill_that_fails_leaves_nothing(path):
    def fill(first, values):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Table.create(path, 9, 3, fill=fill)

    assert os.listdir(path.parent) == []


# -- refused ---------------------------------------------------------------------------------------


def test_a_table_larger_than_the_disk_is_refused_before_the_disk_is_full(path, monkeypatch):
    def reserved(*_):
        raise AssertionError("asked the disk for room that it does not have")

    monkeypatch.setattr(os, "posix_fallocate", reserved)

    with pytest.raises(
        OSError, match=r"No space left on device: \d+ bytes asked, \d+ free"
    ) as full:
        Table.create(path, 2**45, 16, lazy=False)

    assert full.value.errno == errno.ENOSPC
    assert full.value.filename.endswith("weight.npy")
    assert os.listdir(path.parent) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (("", 2, 2), ValueError, "the path of a table is empty"),
        (
            (None, 2, 2, None),
            TypeError,
            "dtype must be float32, float64, float16 or bfloat16, got None",
        ),
        ((None, 2**63 - 1, 0), ValueError, "do not fit a file"),
    ],
)
def test_odd_arguments_are_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        Table.create(*arguments)


@pytest.mark.parametrize(
    "init", ["constant(1e300)", "uniform(0, 1e300)", "normal(0, 1e38)", "uniform(-3e38, 3e38)"]
)
def test_initial_values_beyond_the_dtype_are_refused(init):
    with pytest.raises(ValueError, match="do not fit float32"):
        Table.create(None, 2, 2, init=init)
    Table.create(None, 2, 2, "float64", init=init)


def test_a_long_name_is_possible(tmp_path):
    name = "n" * 255

    Table.create(tmp_path / name, 2, 2).close()

    assert os.listdir(tmp_path) == [name]
