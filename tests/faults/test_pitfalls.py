"""What goes wrong with mapped files, pitfall by pitfall; the numbers are those of the house's list.

Each is an error with a reason, or nothing at all; never a signal, and never a wrong row. Whatever
could end the process is tried in a child.
"""

from __future__ import annotations

import ast
import errno
import os
import pathlib
import pickle
import re
import shutil
import subprocess
import sys

import numpy as np
import pytest

import mmembed
from mmembed.errors import (
    CorruptTableError,
    MmembedError,
    NetworkFileSystemError,
    ReadOnlyTableError,
    TableFailedError,
    TableLockedError,
)
from mmembed.storage import Table, cadence, mounts
from mmembed.storage.format import HEADER_BYTES
from tests.storage.examples import contents, resealed_header, small_table
from tests.storage.faults import Faults

from . import places

ROOT = pathlib.Path(mmembed.__file__).parent


@pytest.fixture
def small(tmp_path):
    return small_table(tmp_path / "t")


def proc(name: str) -> str:
    return pathlib.Path("/proc", name).read_text()


def in_python(script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script in a process of its own."""
    command = [sys.executable, "-c", script, *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


# Sizes, space, faults


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_pitfall_1_rows_cut_off_under_a_map_are_an_error_and_no_signal(tmp_path, mode):
    Table.create(tmp_path / "t", 5000, 16).close()
    script = """
import os, sys, numpy as np
from mmembed.errors import CorruptTableError
from mmembed.storage import Table
path, mode = sys.argv[1:]
table = Table.open(path, mode)
os.truncate(path + "/weight.npy", 8192)
tries = [lambda: table.gather([4000]), lambda: table[np.arange(5000)]]
if mode == "r+":
    tries += [lambda: table.write([4000], 1), lambda: table.write(np.arange(5000), 1)]
for attempt in tries:
    try:
        attempt()
    except CorruptTableError as error:
        assert "was truncated while the table was open: it has 8192 bytes" in str(error), error
        print("refused")
"""
    done = in_python(script, tmp_path / "t", mode)

    assert (done.returncode, done.stdout.split()) == (0, ["refused"] * (2 if mode == "r" else 4))


FILL = """
import os, sys, numpy as np
from mmembed.storage import Table
place = sys.argv[1]
table = Table.create(place + "/t", 20_000, 16, init=sys.argv[2])
with open(place + "/filler", "wb", buffering=0) as file:
    try:
        while file.write(bytes(1 << 16)):
            pass
    except OSError as error:
        print("full", error.errno)
try:
    for first in range(0, 20_000, 1000):
        table.write(np.arange(first, first + 1000), 3)
    print("written")
except OSError as error:
    print("refused", error.errno)
    before = table[:]
    table.commit(step=5)
    assert np.array_equal(table[:], before)
"""


@pytest.mark.parametrize("init", ["zeros", "normal"])
@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_pitfall_2_a_store_on_a_full_disk_is_an_error_and_no_signal(kind, init):
    places.need(kind)
    with places.mounted(kind, places.SIZES[kind] + (8 << 20)) as place:
        done = in_python(FILL, place, init)

        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[0] == f"full {errno.ENOSPC}"
        assert done.stdout.split("\n")[1] in ("written", f"refused {errno.ENOSPC}")
        (place / "filler").unlink()
        with Table.open(place / "t", "r+") as table:
            assert table.step in (0, 5)
            done = np.flatnonzero((table[:] == 3).all(axis=1))
            assert np.array_equal(done, np.arange(done.size))
            assert done.size % 1000 == 0


def test_pitfall_3_stores_to_shared_blocks_of_a_full_disk_are_known_to_end_the_process():
    places.need("xfs")
    with places.mounted("xfs", places.SIZES["xfs"]) as place:
        with Table.create(place / "t", 20_000, 64) as table:
            table.commit(step=1)
        command = ["cp", "-r", "--reflink=always", place / "t", place / "copy"]
        places.command(*command)
        done = in_python(
            FILL.replace(
                'Table.create(place + "/t", 20_000, 16, init=sys.argv[2])',
                'Table.open(place + "/t", "r+")',
            ),
            place,
            "",
        )

        assert done.returncode in (0, -7, 1)  # the page says so: docs/durability.md
        (place / "filler").unlink()
        with Table.open(place / "t", "r+") as table, Table.open(place / "copy") as copy:
            assert np.array_equal(table[:], copy[:])


def test_pitfall_4_all_pages_of_a_new_and_of_a_grown_table_have_room_on_the_disk():
    places.need("tmpfs")
    script = (
        FILL.partition("try:\n    for first")[0].replace(
            "init=sys.argv[2])", "init=sys.argv[2])\ntable.resize(30_000)"
        )
        + """
import mmap
populate = getattr(mmap, "MADV_POPULATE_WRITE", 23)
try:
    for mapped in table._store._files.columns.values():
        mapped.memory.madvise(populate)  # a page without room is EFAULT here, and SIGBUS later
    print("populated")
except OSError as error:
    print("populated" if error.errno == 22 else error)
"""
    )
    with places.mounted("tmpfs", 9 << 20) as place:
        done = in_python(script, place, "normal")

    assert (done.returncode, done.stdout.split("\n")[1]) == (0, "populated"), done.stderr


def test_pitfall_5_nothing_here_maps_or_loads_files_in_ways_that_grow_them(small):
    growing = {"memmap", "load", "from_file", "open_memmap", "fromfile"}
    for module in (ROOT / "storage").rglob("*.py"):
        for node in ast.walk(ast.parse(module.read_text())):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
                assert not (node.value.id in ("np", "numpy", "torch") and node.attr in growing), (
                    module,
                    node.lineno,
                )
    before = contents(small)
    with Table.open(small) as table:
        table.gather([0, 4])
    assert contents(small) == before


@pytest.mark.parametrize("shape", [(2**32 + 5, 3), (2**62 + 5, 3), (5, 2**62 + 3)])
def test_pitfall_6_a_shape_whose_bytes_wrap_around_is_refused(small, shape):
    data = (small / "weight.npy").read_bytes()
    header = resealed_header(data[:HEADER_BYTES].replace(b"(5, 3)", str(shape).encode()))
    (small / "weight.npy").write_bytes(header + data[HEADER_BYTES:])
    before = contents(small)

    for mode in ("r", "r+"):
        with pytest.raises(CorruptTableError, match="another shape"):
            Table.open(small, mode)
    assert contents(small) == before


def test_pitfall_7_views_of_before_live_on_when_a_table_grows_or_closes(small):
    with Table.open(small, "r+") as table:
        view = table.column()
        old = view.copy()
        table.resize(5000)
        table.write([0], 8)
        table.commit()
    old[0] = 8

    assert np.array_equal(view, old)


def test_pitfall_8_a_process_without_room_for_the_map_hears_it_when_it_opens(tmp_path):
    Table.create(tmp_path / "t", 200_000, 64).close()
    script = """
import resource, sys
from mmembed.storage import Table
import mmembed.kernels
used = int(open("/proc/self/statm").read().split()[0]) * 4096
resource.setrlimit(resource.RLIMIT_AS, (used + (16 << 20),) * 2)
for mode in ("r", "r+"):
    try:
        Table.open(sys.argv[1], mode)
    except OSError as error:
        print(error.errno)
"""
    done = in_python(script, tmp_path / "t")

    assert done.stdout.split() == [str(errno.ENOMEM)] * 2, done.stderr
    Table.open(tmp_path / "t", "r+").close()


# Other libraries


def test_pitfall_9_a_pickle_is_a_name_and_no_rows(tmp_path):
    with Table.create(tmp_path / "t", 20_000, 16) as table:
        data = pickle.dumps(table)
        with pickle.loads(data) as again:
            assert np.array_equal(again[:], table[:])

    assert len(data) < 1000


def test_pitfall_10_a_tensor_that_torch_moves_away_was_never_the_table(small):
    torch = pytest.importorskip("torch")
    with Table.open(small, "r+") as table:
        tensor = torch.from_numpy(table.gather([0, 1]))
        tensor.share_memory_()
        tensor.add_(100)

        assert table[0].tolist() == [1, 2, 3]


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_pitfall_11_nothing_writable_is_handed_out_over_a_read_only_map(small, mode):
    with Table.open(small, mode) as table:
        view = table.column()
        assert not view.flags.writeable
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True
        with pytest.raises(BufferError):
            view.__dlpack__()
        with pytest.raises(BufferError):
            memoryview(view).cast("B").obj.__dlpack__()
        rows = table.gather([0, 1])
        rows[:] = 5
        assert table[0].tolist() == [1, 2, 3]


def test_pitfall_12_rows_of_another_byte_order_are_refused(small):
    data = (small / "weight.npy").read_bytes()
    (small / "weight.npy").write_bytes(
        resealed_header(data[:HEADER_BYTES].replace(b"<f4", b">f4")) + data[HEADER_BYTES:]
    )

    with pytest.raises(CorruptTableError, match="another dtype: '>f4'"):
        Table.open(small)


def test_pitfall_13_every_map_of_a_table_is_shared_and_none_private(small):
    with Table.open(small) as reader, Table.open(small, "r+") as writer:
        maps = [line.split() for line in proc("self/maps").splitlines() if str(small) in line]
        writer.write([1], 6)

        assert len(maps) == 4
        assert {permissions for _, permissions, *_ in maps} == {"r--s", "rw-s"}
        assert reader[1].tolist() == [6, 6, 6]


# Locks, processes, names

OPEN_FOR_WRITING = """
import sys
from mmembed.errors import TableLockedError
from mmembed.storage import Table
try:
    Table.open(sys.argv[1], "r+").close()
    print("opened")
except TableLockedError:
    print("locked")
"""


def test_pitfall_14_the_lock_stays_when_other_descriptors_of_the_files_are_closed(small):
    with Table.open(small, "r+"):
        for name in ("LOCK", "super", "weight.npy"):
            with open(small / name, "r+b"):
                pass
        array = np.load(small / "weight.npy", mmap_mode="r")
        del array

        assert in_python(OPEN_FOR_WRITING, small).stdout == "locked\n"


def test_pitfall_15_children_of_a_dead_writer_do_not_keep_its_lock(small):
    script = """
import os, sys, time
from mmembed.storage import Table
table = Table.open(sys.argv[1], "r+")
reading, writing = os.pipe()
if os.fork() == 0:
    os.write(writing, b"1")
    time.sleep(60)
os.read(reading, 1)
print("forked", flush=True)
os.kill(os.getpid(), 9)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script, str(small)], stdout=subprocess.PIPE, start_new_session=True
    ) as parent:
        assert parent.stdout.readline() == b"forked\n"
        parent.wait()
        try:
            assert in_python(OPEN_FOR_WRITING, small).stdout == "opened\n"
        finally:
            os.killpg(parent.pid, 9)  # the child, whose group outlives the parent


def test_pitfall_16_there_is_one_kind_of_lock_and_it_is_that_of_the_open_file(small):
    with Table.open(small, "r+"):
        inode = os.stat(small / "LOCK").st_ino
        locks = [line.split() for line in proc("locks").splitlines() if f":{inode} " in line]

    assert [(kind, access, first) for _, kind, _, access, _, _, first, *_ in locks] == [
        ("OFDLCK", "WRITE", "0")
    ]
    calls = re.compile(r"\b(flock|lockf|F_SETLK)\(")
    assert not [path for path in ROOT.rglob("*.py") if calls.search(path.read_text())]


def test_pitfall_17_a_writer_whose_lock_file_was_removed_commits_no_more(small):
    table = Table.open(small, "r+")
    (small / "LOCK").unlink()
    with pytest.raises(CorruptTableError, match="LOCK is missing"):
        Table.open(small, "r+")
    (small / "LOCK").touch(mode=0o600)
    table.write([0], 9)

    with pytest.raises(CorruptTableError, match="LOCK was removed or replaced while"):
        table.commit()
    table.close()
    with Table.open(small, "r+") as table:
        assert (table.step, table[0].tolist()) == (7, [1, 2, 3])


@pytest.mark.parametrize("name", ["super", "undo", "weight.npy", "count.npy"])
def test_pitfall_18_a_writer_whose_files_were_replaced_commits_no_more(small, name):
    table = Table.open(small, "r+")
    shutil.copy2(small / name, small / "copy")
    os.replace(small / "copy", small / name)
    table.write([0], 9)

    with pytest.raises(OSError, match=f"{name} was removed or replaced|deleted while it was open"):
        table.commit()
    with pytest.raises(TableFailedError):
        table.commit()
    table.close()


def test_pitfall_18_a_handle_sent_elsewhere_does_not_take_another_table_for_its_own(small):
    with Table.open(small) as table:
        data = pickle.dumps(table)
    shutil.rmtree(small)
    small_table(small)

    with pytest.raises(CorruptTableError, match="was pickled"):
        pickle.loads(data)


def test_pitfall_19_files_are_private_and_links_are_not_followed(tmp_path):
    victim = tmp_path / "victim"
    victim.write_text("dear")
    before = os.umask(0)
    try:
        with Table.create(tmp_path / "t", 5, 3) as table:
            (tmp_path / "t" / "context.npy").symlink_to(victim)
            table.add_column("context")
    finally:
        os.umask(before)
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(FileExistsError):
        Table.create(tmp_path / "link", 5, 3)

    assert victim.read_text() == "dear"
    assert {os.stat(file).st_mode & 0o777 for file in (tmp_path / "t").iterdir()} == {0o600}
    assert os.stat(tmp_path / "t").st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("kind", "remote"),
    [
        *((kind, True) for kind in ("nfs", "nfs4", "cifs", "smb3", "9p", "fuse.sshfs", "fuse")),
        *((kind, True) for kind in ("lustre", "ceph", "virtiofs", "fuse.glusterfs")),
        *((kind, False) for kind in ("ext4", "xfs", "btrfs", "tmpfs", "overlay", "fuseblk", "zfs")),
    ],
)
def test_pitfall_20_network_file_systems_are_refused_unless_allowed(
    small, monkeypatch, kind, remote
):
    monkeypatch.setattr(mounts, "file_system", lambda fd: kind)
    before = contents(small)
    for make in (
        lambda **allowed: Table.open(small, **allowed),
        lambda **allowed: Table.open(small, "r+", **allowed),
        lambda **allowed: Table.create(small.parent / "new", 5, 3, **allowed),
    ):
        if remote:
            with pytest.raises(NetworkFileSystemError, match=f"of type '{kind}'.*allow_network_fs"):
                make()
            assert (contents(small), sorted(os.listdir(small.parent))) == (before, ["t"])
        make(allow_network_fs=remote).close()
        shutil.rmtree(small.parent / "new", ignore_errors=True)
        before = contents(small)


def test_pitfall_20_the_file_system_is_found_by_the_mount_of_the_open_directory(tmp_path):
    (tmp_path / "fdinfo").mkdir()
    (tmp_path / "fdinfo" / "5").write_text("pos:\t0\nflags:\t0100000\nmnt_id:\t31\n")
    (tmp_path / "mountinfo").write_text(
        "1 0 8:1 / / rw - ext4 /dev/sda rw\n"
        "31 1 0:44 / /mnt/a\\040b rw,relatime shared:7 master:2 - nfs4 host:/export rw\n"
    )

    assert mounts.file_system(5, str(tmp_path)) == "nfs4"
    assert mounts.file_system(6, str(tmp_path)) is None
    with open(tmp_path / "mountinfo") as file:
        assert isinstance(mounts.file_system(file.fileno()), str)


def test_pitfall_20_permission_to_use_a_network_is_pickled_along(small, monkeypatch):
    monkeypatch.setattr(mounts, "file_system", lambda fd: "nfs")
    with Table.open(small, allow_network_fs=True) as table:
        pickle.loads(pickle.dumps(table)).close()


def test_pitfall_21_a_copy_of_an_open_table_is_not_taken_for_a_closed_one(small):
    with Table.open(small, "r+") as table:
        table.write([0], 9)
        shutil.copytree(small, small.parent / "copy")
        table.commit()
    with Table.open(small.parent / "copy", "r+") as copy:
        assert (copy.clean, copy.recovered, copy[0].tolist()) == (False, 1, [1, 2, 3])


# Write-back


@pytest.mark.parametrize("call", ["msync count.npy", "fdatasync undo", "fdatasync super"])
def test_pitfall_22_a_sync_that_failed_is_not_tried_again(small, monkeypatch, call):
    with Faults().installed(monkeypatch) as faults:
        table = Table.open(small, "r+")
        start = len(faults.log)
        faults.watch = lambda made: fail(made, faults, start)

        def fail(made, faults, start):
            if made == call:
                faults.watch = lambda made: None
                raise OSError(errno.EIO, "the disk is gone")

        with pytest.raises(OSError, match="the disk is gone"):  # noqa: PT012
            with table.writing(np.array([0])) as columns:
                columns["count"][0] = 4
            table.commit()
        made = len(faults.log)
        for _ in range(2):
            with pytest.raises(TableFailedError):
                table.commit()
        table.close()
        assert not [call for call in faults.log[made:] if "sync" in call]


def test_pitfall_23_the_disk_has_the_old_row_before_the_row_changes(small, monkeypatch):
    with Faults().installed(monkeypatch) as faults:
        table = Table.open(small, "r+")
        start = len(faults.log)
        with table.writing(np.array([0, 3])):
            calls = [call for call in faults.log[start:] if call.split()[1] == "undo"]
        assert calls.index("fdatasync undo") > calls.index("pwrite undo")
        table.close()


def test_pitfall_24_commits_that_come_too_often_are_warned_of_once(tmp_path):
    def train(durability):
        with Table.create(tmp_path / durability, 9, 3, durability=durability) as table:
            for step in range(3 * cadence.LOOK_AT):
                table.write([1], step)
                table.commit()

    cadence.forget()
    train("process")
    with pytest.warns(UserWarning, match=r"after 1\.0 writes each.*once in 100 steps") as warned:
        train("power")
    assert [warning.filename for warning in warned] == [__file__]


def test_pitfall_25_a_commit_writes_what_changed_and_not_the_table(tmp_path):
    kind = places.command("stat", "-f", "-c", "%T", tmp_path).strip()
    if kind == "tmpfs":
        pytest.skip("memory has no disk to write to")
    with Table.create(tmp_path / "t", 400_000, 32) as table:
        table.commit()

        def written():
            return int(re.search(r"\nwrite_bytes: (\d+)", proc("self/io"))[1])

        before = written()
        table.write(np.arange(0, 400_000, 40_000), 1)
        table.commit()
        assert written() - before < 1 << 20  # 10 rows, of a file of 51 MB


def test_every_pitfall_has_a_test():
    found = {
        int(number)
        for number in re.findall(r"def test_pitfall_(\d+)_", pathlib.Path(__file__).read_text())
    }

    assert found == set(range(1, 26))


def test_errors_are_of_one_family_and_builtin():
    from mmembed import errors

    for error in vars(errors).values():
        if isinstance(error, type) and error is not MmembedError:
            assert issubclass(error, MmembedError)
            assert any(base.__module__ == "builtins" for base in error.__mro__[2:-2]), error
    assert issubclass(TableLockedError, OSError)
    assert issubclass(ReadOnlyTableError, OSError)
