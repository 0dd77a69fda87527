"""What a disk may hold after a loss of power, of all that a file system had written to it.

A table is created and trained on a file system over a recorder. A state of the disk is all that
was written before the last flush, and any choice of what was written after it: whole writes,
which come to the disk in any order, or single sectors of them. It is mounted, which lets the file
system recover, and the table must be at its last commit. Sectors of 512 bytes are torn apart in
the table's files only, elsewhere of 4096: no file system promises to survive less.
"""

from __future__ import annotations

import contextlib
import copy
import fcntl
import gc
import os
import pathlib
import random
import shutil
import struct
import tempfile
import threading
from collections.abc import Iterator
from typing import NamedTuple

from mmembed.storage import Table

from . import cuts, kills, places, recorder, replay

SIZES = {"ext4": 24 << 20, "xfs": places.SIZES["xfs"]}
_STARTED, _COMMITTED = 1, 2
_COMMITS = (6, 6, 12)  # of each trainer; the next one finds a hot journal
_FIEMAP = 0xC020660B
_SYNC_FIRST = 1


class State(NamedTuple):
    """A disk, and what may be on it: `allowed` are steps, None for no table yet."""

    disk: recorder.Disk
    allowed: tuple[int | None, int | None]
    how: str


def sectors_of(file: pathlib.Path) -> set[int]:
    """The sectors of the disk in which a file lies."""
    extents = 500
    asked = bytearray(struct.pack("<QQIIII", 0, 1 << 62, _SYNC_FIRST, 0, extents, 0) + bytes(28000))
    with open(file, "rb") as opened:
        fcntl.ioctl(opened, _FIEMAP, asked)
    found, count = set(), struct.unpack_from("<I", asked, 20)[0]
    assert count < extents, f"{file} lies in too many pieces"
    for number in range(count):
        _, start, size = struct.unpack_from("<QQQ", asked, 32 + 56 * number)
        found.update(range(start // 512, (start + size) // 512))
    return found


class Recording:
    """The writes and flushes of a run, and the states that a loss of power may leave.

    `ours` has the sectors of the table's files.
    """

    def __init__(self, base: recorder.Disk, entries: list[recorder.Entry], ours: set[int]) -> None:
        self.entries, self.ours = entries, ours
        self._base = base

    def states(self, count: int, chance: random.Random) -> Iterator[State]:
        """So many states, each at a moment of its own, in order of time."""
        kinds = {kind: self._after(kind) for kind in (recorder.FLUSH, recorder.MARK)}
        moments = []
        for _ in range(count):
            where = chance.random()
            if where < 0.5:  # the last moment before a flush has most to choose from
                moments.append(chance.choice(kinds[recorder.FLUSH]) - 1)
            elif where < 0.7:  # the first one after a commit
                moments.append(chance.choice(kinds[recorder.MARK]))
            else:
                moments.append(chance.randrange(len(self.entries)))
        settled, done = dict(self._base), 0
        for moment in sorted(moments):
            flushed = max((at for at in kinds[recorder.FLUSH] if at <= moment), default=0)
            for entry in self.entries[done:flushed]:
                _put(settled, entry)
            done = flushed
            yield self._state(settled, flushed, moment, chance)

    def _after(self, kind: int) -> list[int]:
        return [at + 1 for at, entry in enumerate(self.entries) if entry.kind == kind]

    def _state(self, settled: recorder.Disk, flushed: int, moment: int, chance) -> State:
        how = chance.choice(["none", "all", "some", "torn"])
        disk, chosen = dict(settled), self.entries[flushed:moment]
        if how == "none":
            chosen = []
        elif how != "all":
            chosen = chosen + self._under_way(moment)
            chosen = [entry for entry in chosen if how == "torn" or chance.random() < 0.5]
        for entry in chosen:
            if entry.kind == recorder.WRITE:
                self._tear(disk, entry, chance) if how == "torn" else _put(disk, entry)
        marks = [e.number for e in self.entries[:moment] if e.kind == recorder.MARK]
        coming = [e.number for e in self.entries[moment:] if e.kind == recorder.MARK]
        last = marks[-1] if marks else None
        return State(disk, (last, coming[0] if coming else last), f"{how} at {moment}")

    def _under_way(self, moment: int) -> list[recorder.Entry]:
        """What was written next, before a flush or a commit could have waited for it."""
        found = []
        for entry in self.entries[moment:]:
            if entry.kind != recorder.WRITE:
                break
            found.append(entry)
        return found

    def _tear(self, disk: recorder.Disk, entry: recorder.Entry, chance: random.Random) -> None:
        """Half of the sectors of a write."""
        at, end = entry.number, entry.number + len(entry.data)
        while at < end:
            ours = at // 512 in self.ours
            stop = min(end, at + 512 if ours else (at // 4096 + 1) * 4096)
            if chance.random() < 0.5:
                recorder.put(disk, at, entry.data[at - entry.number : stop - entry.number])
            at = stop


def _put(disk: recorder.Disk, entry: recorder.Entry) -> None:
    if entry.kind == recorder.WRITE:
        recorder.put(disk, entry.number, entry.data)


class Campaign:
    """One run of a table that is recorded, and many states of the disk under it.

    Attributes
    ----------
    found : how often what was found: no table yet, the last commit, the one that was under way;
        how many openings had rows to put back, and how many states were looked at again.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind, self.seed = kind, seed
        self.found = {"nothing": 0, "stayed": 0, "moved on": 0, "rolled back": 0, "again": 0}
        self.models: dict[int, replay.Model] = {}

    def run(self, states: int) -> None:
        """Record, then check so many states."""
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mmembed-blocks-", dir=places.image_folder()))
        try:
            (folder / "mnt").mkdir()
            self.check(folder, self.record(folder), states)
        finally:
            shutil.rmtree(folder)

    def record(self, folder: pathlib.Path) -> Recording:
        """Let trainers create a table and train it, one after another."""
        image, place = folder / "image", folder / "mnt"
        places.make_image(self.kind, image, SIZES[self.kind])
        base, log = recorder.read_disk(image), recorder.Log(folder / "log")
        with contextlib.closing(log), recorder.recorded(image, log) as device:
            recorder.mount(device, place, self.kind)
            try:
                for attempt in range(1, len(_COMMITS) + 1):
                    self._train_once(place / "t", attempt, log)
                ours = set().union(*(sectors_of(file) for file in (place / "t").iterdir()))
            finally:
                recorder.unmount(place)
        return Recording(base, log.entries(), ours)

    def _train_once(self, path: pathlib.Path, attempt: int, log: recorder.Log) -> None:
        child, reading = kills.in_child(lambda report: self._train(path, attempt, log, report))
        if attempt == 1:
            self.model = replay.Model(500, 5)
            self.models[0] = copy.deepcopy(self.model)
        for kind, step, rows in kills.reports(child, reading):
            if kind == _STARTED:
                assert step == self.model.step
                self.model.resize(max(rows, self.model.rows))
            else:
                replay.train(self.model, attempt, self.model.step, step)
                self.models[step] = copy.deepcopy(self.model)

    def _train(self, path: pathlib.Path, attempt: int, log: recorder.Log, report) -> None:
        """Train as a process that ends somewhere behind a commit; the last one closes the table."""

        def on_commit(step: int) -> None:
            log.add(recorder.MARK, step)
            report(_COMMITTED, step, 0)

        if attempt == 1:
            replay.create(path)
            log.add(recorder.MARK, 0)
        table = Table.open(path, "r+")
        report(_STARTED, table.step, table.rows)
        pressing = random.Random(self.seed * 1000 + attempt)
        threading.Thread(target=cuts.press, args=(path, pressing), daemon=True).start()
        stop = table.step + _COMMITS[attempt - 1] * replay.COMMIT_EVERY
        replay.train(table, attempt, table.step, stop, on_commit)
        replay.train(table, attempt, stop, stop + 3)
        if attempt == len(_COMMITS):
            table.rollback()
            table.close()

    def check(self, folder: pathlib.Path, recording: Recording, states: int) -> None:
        """Mount so many states, and look at the table.

        A state that fails must fail again on a disk and in a file of its own: twice in some ten
        thousand changes of the file under a disk, the kernel showed an old block of it.
        """
        with recorder.loop_device(folder / "image") as device:
            for state in recording.states(states, random.Random(self.seed)):
                self._check_or_again(device, folder, state)

    def _check_or_again(self, device: str, folder: pathlib.Path, state: State) -> None:
        try:
            self._mount_and_check(device, folder / "image", folder / "mnt", state)
        except Exception:
            self.found["again"] += 1
            self._check_anew(folder, state)
        else:
            return
        gc.collect()  # whatever the failure held open

    def _check_anew(self, folder: pathlib.Path, state: State) -> None:
        image, place = folder / "image-again", folder / "mnt-again"
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir()
        with open(image, "wb") as file:
            file.truncate(SIZES[self.kind])
        with recorder.loop_device(image) as device:
            self._mount_and_check(device, image, place, state)
        image.unlink()

    def _mount_and_check(self, device: str, image: pathlib.Path, place, state: State) -> None:
        with recorder.swapped(device):
            recorder.write_disk(image, state.disk)
        recorder.mount(device, place, self.kind)
        try:
            self._check_one(place / "t", state)
        except BaseException:  # which holds on to what is open
            places.unmount(place)
            raise
        recorder.unmount(place)

    def _check_one(self, path: pathlib.Path, state: State) -> None:
        last, _ = state.allowed
        if last is None and not os.path.lexists(path):
            self.found["nothing"] += 1
            return
        with Table.open(path, "r+") as table:
            assert table.step in state.allowed, f"{state.how}: {table.step}, not {state.allowed}"
            replay.check(table, self.models[table.step])
            self.found["rolled back"] += table.recovered > 0
            self.found["stayed" if table.step == last else "moved on"] += 1
