"""`super` when what was being written to it is torn everywhere, and when its sync had failed.

Directed histories: at random, these mistakes show themselves once in ten thousand losses of power.
"""

from __future__ import annotations

import errno
import os
import shutil
import signal

import pytest

from mmembed.errors import CorruptTableError
from mmembed.storage import Table
from mmembed.storage.files import File
from mmembed.storage.format import COPY_BYTES, decode_super
from tests.storage.faults import Faults

from . import kills

pytestmark = pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning")

CUTS = (0, 1, 60, 511, 512, 700, 4096, COPY_BYTES - 1, COPY_BYTES, COPY_BYTES + 512)


def torn(state: bytes, offset: int, data: bytes):
    """What a loss of power can make of one write: its beginning, its end, or both with junk."""
    for cut in {min(cut, len(data)) for cut in CUTS} | {len(data)}:
        for mixed in (
            data[:cut] + state[offset + cut : offset + len(data)],
            state[offset : offset + cut] + data[cut:],
            data[: max(0, cut - 7)] + b"\xa5" * min(cut, 7) + data[cut:],
        ):
            yield state[:offset] + mixed + state[offset + len(data) :]


def states(before: bytes, writes: list[tuple[int, bytes] | None]):
    """Everything that `super` can be after a loss of power; None stands for a sync."""
    pending: list[tuple[int, bytes]] = []
    for write in [*writes, None]:
        if write is not None:
            pending.append(write)
            continue
        found = {before}
        for offset, data in pending:
            found = {mixed for state in found for mixed in torn(state, offset, data)}
        yield from found
        for offset, data in pending:
            before = before[:offset] + data + before[offset + len(data) :]
        pending = []


def written(monkeypatch, run):
    """The writes to `super`, and its syncs, that a run makes."""
    log: list[tuple[int, bytes] | None] = []
    write, sync = File.write, File.sync

    def noted_write(file, data, offset):
        if file.path.endswith("/super"):
            log.append((offset, bytes(data)))
        write(file, data, offset)

    def noted_sync(file):
        if file.path.endswith("/super"):
            log.append(None)
        sync(file)

    with monkeypatch.context() as patch:
        patch.setattr(File, "write", noted_write)
        patch.setattr(File, "sync", noted_sync)
        run()
    return log


@pytest.mark.parametrize("work", ["commit", "open", "close", "resize"])
def test_whatever_is_torn_of_super_the_last_commit_or_the_next_is_found(
    quick_path, monkeypatch, work
):
    with Table.create(quick_path, 5, 3) as table:
        table.commit(step=1)
        table.commit(step=2)
    table = None if work == "open" else Table.open(quick_path, "r+")
    before = (quick_path / "super").read_bytes()

    def run():
        nonlocal table
        if work == "commit":
            table.commit(step=3)
        elif work == "open":
            table = Table.open(quick_path, "r+")
        elif work == "resize":
            table.resize(9)
        else:
            table.close()

    log = written(monkeypatch, run)
    table.close()

    found = {decode_super(state).step for state in states(before, log)}
    assert found == ({2, 3} if work == "commit" else {2})


def test_after_a_sync_of_super_that_failed_whoever_opens_the_table_writes_it_again(quick_path):
    with Table.create(quick_path, 5, 3) as table:
        table.commit(step=1)
        table.write([0], 1)
        table.commit(step=2)
    kills.reports(*kills.in_child(lambda _: fail_to_commit(quick_path)))
    # The kernel takes the pages of `super` for clean; the disk has what it had before.
    cached = (quick_path / "super").read_bytes()
    on_disk = (quick_path / "disk").read_bytes()
    (quick_path / "disk").unlink()
    assert decode_super(cached).step == 3
    assert decode_super(on_disk).step == 2

    kills.reports(*kills.in_child(lambda _: open_and_die(quick_path)))

    rewritten = bytearray(on_disk)
    now = (quick_path / "super").read_bytes()
    for page in range(0, len(now), 4096):
        if now[page : page + 4096] != cached[page : page + 4096]:
            rewritten[page : page + 4096] = now[page : page + 4096]
    (quick_path / "super").write_bytes(rewritten)
    with Table.open(quick_path, "r+") as table:
        assert table.step == 3
        assert table[[0, 1]].tolist() == [[2] * 3] * 2


def fail_to_commit(path):
    """Commit step 3; `super` cannot be synced."""
    with pytest.MonkeyPatch.context() as patch, Faults().installed(patch) as faults:
        table = Table.open(path, "r+")
        table.write([0, 1], 2)
        shutil.copyfile(path / "super", path / "disk")

        def fail(call):
            if call == "fdatasync super":
                raise OSError(errno.EIO, "the disk is gone")

        faults.watch = fail
        with pytest.raises(OSError, match="the disk is gone"):
            table.commit(step=3)
    os.kill(os.getpid(), signal.SIGKILL)


def open_and_die(path):
    """Open the table and change a row, which syncs the journal, and be killed."""
    table = Table.open(path, "r+")
    assert table.step == 3
    table.write([4], 7)
    os.kill(os.getpid(), signal.SIGKILL)


def torn_super(path, patch):
    """`super` torn everywhere, in all that is ever written to it."""
    for work in ("commit", "open", "close", "resize"):
        folder = path.with_name(work)
        folder.mkdir()
        test_whatever_is_torn_of_super_the_last_commit_or_the_next_is_found(
            folder / "t", patch, work
        )


def failed_sync(path, patch):
    """A sync of `super` that failed, and later a loss of power."""
    try:
        test_after_a_sync_of_super_that_failed_whoever_opens_the_table_writes_it_again(path)
    except CorruptTableError as error:
        raise AssertionError(error) from None
