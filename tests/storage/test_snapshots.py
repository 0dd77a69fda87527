"""Snapshots: the last commit, whole or not at all, whatever the writer does meanwhile."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import time

import pytest

from mmembed.errors import CorruptTableError, TableExistsError, TableLockedError
from mmembed.storage import Table, snapshots, verify
from mmembed.storage.files import File
from tests.faults import calls, kills, replay

from .examples import contents
from .faults import Faults, every_fault
from .mutation import put_in
from .test_verification import bad, flip

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")


@pytest.fixture
def path(quick_path):
    """Where a table goes."""
    return quick_path


@pytest.fixture
def copy(path):
    """Where a snapshot goes."""
    return path.with_name("copy.mmembed")


def state(path):
    """What a commit is: rows of all columns, counters, step, metadata."""
    with Table.open(path) as table:
        rows = {name: table.column(name).tobytes() for name in table.columns}
        return rows, table.counters, table.step, table.metadata, table.uuid


def trained(path):
    """A writable table with two columns and a commit."""
    table = Table.create(path, 300, 5)
    table.add_column("count", scalar=True)
    table.write(range(0, 300, 3), 1)
    table.commit(step=5, metadata={"at": 5})
    return table


def test_a_snapshot_is_the_table(small, copy):
    with Table.open(small) as table:
        made = table.snapshot(copy)

    assert state(copy) == state(small)
    assert (made.commits, made.step, made.rows, made.put_back) == (2, 7, 5, 0)
    assert bad(copy, deep=True) == []
    with Table.open(copy, "r+") as table:
        table.write([0], 3)
    assert state(copy) != state(small)


@pytest.mark.parametrize("mode", ["r", "r+"])
def test_what_no_commit_has_is_not_in_a_snapshot(path, copy, mode):
    table = trained(path)
    before = state(path)
    table.write(range(7, 90), 9)
    table.add_column("late")
    table.count("steps", 3)

    handle = table if mode == "r+" else Table.open(path)
    made = handle.snapshot(copy)
    table.close(commit=False)

    assert state(copy) == before
    assert made.put_back == 83
    with Table.open(copy) as table:
        assert table.clean


def test_a_snapshot_takes_what_lies_beside_the_rows(small, copy):
    (small / "vocab" / "deep").mkdir(parents=True)
    (small / "vocab" / "words").write_text("a b")
    (small / "vocab" / "deep" / "more").write_text("c")
    (small / "vocab" / "link").symlink_to("/etc/passwd")

    with Table.open(small) as table:
        table.snapshot(copy)

    assert (copy / "vocab" / "words").read_text() == "a b"
    assert (copy / "vocab" / "deep" / "more").read_text() == "c"
    assert not os.path.lexists(copy / "vocab" / "link")


def test_a_snapshot_of_a_sealed_table_is_sealed(small, copy):
    with Table.open(small, "r+") as table:
        table.seal()
    with Table.open(small) as table:
        table.snapshot(copy)

    assert "what was sealed" in str(verify(copy, deep=True))


def test_what_is_there_stays_and_memory_has_no_files(small, copy):
    copy.mkdir()
    with Table.open(small) as table, pytest.raises(TableExistsError):
        table.snapshot(copy)
    with Table.create(None, 3, 2) as table, pytest.raises(ValueError, match="in memory"):
        table.snapshot(copy)
    assert os.listdir(copy) == []


def meanwhile(monkeypatch, *actions):
    """Do something each time that a file has been copied, until all is done."""
    waiting = list(actions)
    real = snapshots.copy_file

    def copy_file(*arguments, **options):
        real(*arguments, **options)
        if waiting:
            waiting.pop(0)()

    monkeypatch.setattr(snapshots, "copy_file", copy_file)


def check_changes_meanwhile(path, copy, monkeypatch):
    table = trained(path)
    before = state(path)
    table.write(range(10), 2)
    meanwhile(monkeypatch, lambda: table.write(range(5, 40), 3), lambda: table.write([99], 4))

    made = table.snapshot(copy)
    table.close()

    assert state(copy) == before
    assert made.put_back == 41


def test_rows_that_change_while_they_are_copied_are_put_back(path, copy, monkeypatch):
    check_changes_meanwhile(path, copy, monkeypatch)


@pytest.mark.parametrize("first", [0, 1])
@pytest.mark.parametrize("what", ["commit", "rollback", "resize", "close"])
def test_a_copying_that_a_writer_overtakes_begins_again(path, copy, monkeypatch, what, first):
    table = trained(path)
    table.write(range(10), 2)
    acts = {
        "commit": lambda: table.commit(step=9) or table.write([3], 8),
        "rollback": lambda: table.rollback() or table.write(range(20, 40), 8),
        "resize": lambda: table.resize(400),
        "close": lambda: table.close(commit=True),
    }
    meanwhile(monkeypatch, *([lambda: None] * first), acts[what])

    with Table.open(path) as reader:
        reader.snapshot(copy)

    with contextlib.suppress(ValueError):
        table.rollback()
    table.close()
    assert state(copy) == state(path)


def test_a_table_that_is_committed_all_the_time_is_given_up(path, copy, monkeypatch):
    table = trained(path)
    monkeypatch.setattr(
        snapshots, "copy_file", lambda file, copy, checked: table.commit(step=table.step)
    )

    with pytest.raises(TableLockedError, match="again and again"):
        table.snapshot(copy, timeout=0.1)

    assert sorted(os.listdir(path.parent)) == [path.name]
    table.close()


def test_a_mistake_in_the_order_is_noticed(path, copy, monkeypatch):
    put_in(
        monkeypatch, snapshots._Copying, "run", "        for name in data_files(superblock):",
        "        self._copy_journal(superblock, header)\n"
        "        self._copy_journal = lambda *_: None\n"
        "        for name in data_files(superblock):",
    )  # fmt: skip

    with pytest.raises(AssertionError):
        check_changes_meanwhile(path, copy, monkeypatch)


def test_a_mistake_in_the_second_look_is_noticed(path, copy, monkeypatch):
    put_in(
        monkeypatch, snapshots._Copying, "run",
        "if standing(self.source) != before", "if False",
    )  # fmt: skip

    with pytest.raises((AssertionError, CorruptTableError)):
        test_a_copying_that_a_writer_overtakes_begins_again(path, copy, monkeypatch, "rollback", 0)


def test_snapshots_of_a_table_that_is_trained_are_commits(path):
    replay.create(path, "process", rows=400)
    model = replay.Model(400, 5)

    trainer = os.fork()
    if trainer == 0:
        with Table.open(path, "r+") as table:
            replay.train(table, 7, 0, 420, lambda step: time.sleep(0.02))
        os._exit(0)
    seen = []
    for number in range(1000):
        copy = path.with_name(f"copy{number}")
        with contextlib.suppress(TableLockedError), Table.open(path) as table:
            table.snapshot(copy, timeout=5)
        if copy.exists():
            with Table.open(copy) as table:
                replay.train(model, 7, model.step, table.step)
                replay.check(table, model)
                seen.append(table.step)
            shutil.rmtree(copy)
        if os.waitpid(trainer, os.WNOHANG)[0]:
            break
    assert len(set(seen)) > 2, seen


@pytest.mark.parametrize("interrupt", [False, True])
def test_a_snapshot_that_fails_anywhere_leaves_nothing(path, copy, monkeypatch, interrupt):
    table = trained(path)
    before = state(path)
    table.write(range(10), 2)
    at = contents(path)

    def prepare():
        shutil.rmtree(copy, ignore_errors=True)

    failed = 0
    for call, _, made in every_fault(
        lambda _: table.snapshot(copy, checked=False), monkeypatch, interrupt, prepare
    ):
        failed += made is None
        if made is None:
            assert sorted(os.listdir(path.parent)) == [path.name], call
    assert failed > 40
    assert state(copy) == before
    assert contents(path) == at
    table.close()


def test_a_kill_at_any_call_leaves_a_whole_snapshot_or_none(path, copy):
    table = trained(path)
    before = state(path)
    table.write(range(10), 2)

    def run(report, at):
        with (
            pytest.MonkeyPatch.context() as patch,
            Faults(at, deadly=True, interrupt=bool(at % 2)).installed(patch),
        ):
            with Table.open(path) as reader:
                reader.snapshot(copy, checked=False)
            report(calls._CALLS, at, 0)

    for at in range(1000):
        said = kills.reports(*kills.in_child(lambda report, at=at: run(report, at)))
        if copy.exists():
            assert state(copy) == before
            shutil.rmtree(copy)
        for left in path.parent.glob("copy.mmembed.tmp-*"):
            shutil.rmtree(left)
        if said:
            break
    assert at > 60
    table.close(commit=False)


def test_a_disk_that_loses_what_it_was_given_is_noticed(small, copy, monkeypatch):
    monkeypatch.setattr(File, "forget", lambda file: flip(file.path, 4100))

    with Table.open(small) as table, pytest.raises(OSError, match="is not what was written"):
        table.snapshot(copy)

    assert not copy.exists()


def test_a_full_disk_is_told_before_it_is_full(small, copy, monkeypatch):
    monkeypatch.setattr(File, "free", lambda file: 4000)

    with Table.open(small) as table, pytest.raises(OSError, match="No space left"):
        table.snapshot(copy)

    assert not copy.exists()


def test_holes_stay_holes(path, copy):
    with Table.create(path, 1 << 18, 8, init="zeros") as table:
        table.write([100_000], 1)
    dense = (path / "weight.npy").stat().st_blocks
    if subprocess.run(
        ["fallocate", "--dig-holes", path / "weight.npy"], check=False, capture_output=True
    ).returncode:
        pytest.skip("no tool, or no file system, that makes holes")
    assert (path / "weight.npy").stat().st_blocks < dense / 10

    with Table.open(path) as table:
        table.snapshot(copy)

    assert (copy / "weight.npy").stat().st_blocks < dense / 10
    assert state(copy) == state(path)


def test_blocks_are_shared_where_the_file_system_can(tmp_path):
    folder = tmp_path / "mounted"
    folder.mkdir()
    image = tmp_path / "image"
    steps = (
        ["truncate", "-s", "400M", image],
        ["mkfs.xfs", "-q", "-m", "reflink=1", image],
        ["mount", "-o", "loop", image, folder],
    )
    try:
        for step in steps:
            subprocess.run(step, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no file system with shared blocks can be mounted here: {error}")
    try:
        table = trained(folder / "t")
        before = state(folder / "t")
        table.write(range(50), 3)
        made = table.snapshot(folder / "copy")

        assert made.shared == made.bytes > 0
        assert state(folder / "copy") == before
        table.commit()
        assert state(folder / "copy") == before
        assert state(folder / "t") != before
        table.close()
        del table
    finally:
        subprocess.run(["umount", "-l", folder], check=True)
