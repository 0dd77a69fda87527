"""Losses of power of a real file system: its image is mounted, used, shut down without a flush.

The ioctl drops everything that is not in the image by then; the file system is unmounted, mounted
again, which replays its own journal, and the table must be at its last commit. Pages of rows are
pushed to the disk at random meanwhile, as memory pressure does, so that they overtake the journal
wherever nothing holds them back. Only ever on a file system that was made for the test.
"""

from __future__ import annotations

import contextlib
import ctypes
import faulthandler
import fcntl
import os
import pathlib
import random
import select
import signal
import struct
import threading
import time

from mmembed.storage import Table

from . import kills, places, replay

_SHUTDOWN = 0x8004587D  # EXT4_IOC_SHUTDOWN and XFS_IOC_GOINGDOWN are one number
_NO_FLUSH = 2
_WRITE_NOW = 7  # of sync_file_range: wait, write, wait
_STARTED, _COMMITTED = 1, 2


def cut_power(place: pathlib.Path) -> None:
    """Drop what the file system has not written yet; every call to it fails from now on."""
    fd = os.open(place, os.O_RDONLY)
    try:
        fcntl.ioctl(fd, _SHUTDOWN, struct.pack("I", _NO_FLUSH))
    finally:
        os.close(fd)


def press(folder: pathlib.Path, chance: random.Random) -> None:
    """Write pages back at random, for ever, columns' most of the time."""
    write = ctypes.CDLL(None).sync_file_range
    write.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
    while True:
        with contextlib.suppress(OSError, IndexError, ValueError):  # no files, an empty one
            names = [name for name in os.listdir(folder) if name.endswith(".npy")]
            name = chance.choice(names) if chance.random() < 0.9 else "undo"
            fd = os.open(folder / name, os.O_RDONLY)
            size = os.fstat(fd).st_size
            write(fd, chance.randrange(size) & -4096, 4096 * chance.randrange(1, 8), _WRITE_NOW)
            os.close(fd)
        time.sleep(0.0005)


class Cuts:
    """One table on a file system of its own, and many losses of power.

    Attributes
    ----------
    rolled_back : how many openings had rows to put back.
    """

    def __init__(self, kind: str, seed: int) -> None:
        self.kind = kind
        self.chance = random.Random(seed)
        self.rolled_back = 0
        self.model: replay.Model

    def run(self, cuts: int, longest: float = 0.04) -> None:
        """Cut the power so many times."""
        with places.mounted(self.kind, max(places.SIZES[self.kind], 24 << 20)) as place:
            self.model = replay.create(place / "t", "power")
            os.sync()
            for attempt in range(1, cuts + 1):
                self._cut_once(place, attempt, longest)

    def _cut_once(self, place: pathlib.Path, attempt: int, longest: float) -> None:
        child, reading = kills.in_child(lambda report: self._train(place / "t", attempt, report))
        select.select([reading], [], [])
        time.sleep(self.chance.uniform(0, longest))
        cut_power(place)
        os.kill(child, signal.SIGKILL)
        # A store to a page that the disk can give no more ends a process with SIGBUS.
        reports = kills.reports(child, reading, (-signal.SIGBUS,))
        places.unmount(place)
        places.command("mount", "-o", "loop", place.parent / "image", place)
        self._check(place / "t", attempt, reports)

    def _train(self, path: pathlib.Path, attempt: int, report) -> None:
        faulthandler.disable()  # the death of this process is the plan
        with contextlib.suppress(OSError):  # the power is gone
            table = Table.open(path, "r+")
            report(_STARTED, table.step, table.rows)
            pressing = random.Random(attempt)
            threading.Thread(target=press, args=(path, pressing), daemon=True).start()
            replay.train(
                *(table, attempt, table.step, table.step + 10_000),
                lambda step: report(_COMMITTED, step, 0),
            )
        time.sleep(60)  # until it is killed

    def _check(self, path: pathlib.Path, attempt: int, reports) -> None:
        steps = [step for kind, step, _ in reports if kind == _COMMITTED]
        with Table.open(path, "r+") as table:
            self.rolled_back += table.recovered > 0
            acknowledged = steps[-1] if steps else self.model.step
            assert table.step >= acknowledged, "an acknowledged commit is lost"
            replay.train(self.model, attempt, self.model.step, table.step)
            assert table.step == self.model.step, "a commit that nobody made"
            if table.rows > self.model.rows:
                self.model.resize(table.rows)
            replay.check(table, self.model)
