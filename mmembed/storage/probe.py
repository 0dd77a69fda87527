"""How fast a disk reads pieces at random places: the limit of every gather from it.

Must not know tables. Reads go past the page cache, many at a time.
"""

from __future__ import annotations

import mmap
import os
import tempfile
import threading
import time
from pathlib import Path
from typing import NamedTuple

import numpy as np

from . import page_calls

FILE_BYTES = 256 << 20  # of the file that is made where none is given
DEPTH = 64  # reads under way at a time: where the devices we know read their fastest


class Speed(NamedTuple):
    """What a probe found.

    Attributes
    ----------
    reads : per second, of `size` bytes each, `depth` at a time.
    """

    reads: float
    size: int
    depth: int

    @property
    def bytes(self) -> float:
        """Bytes per second."""
        return self.reads * self.size


def random_reads(
    path: str | os.PathLike[str],
    *,
    seconds: float = 1.0,
    size: int = mmap.PAGESIZE,
    depth: int = DEPTH,
    seed: int = 0,
) -> Speed:
    """Return how many reads of `size` bytes the disk does in a second, `depth` at a time.

    Parameters
    ----------
    path : a file to read from; or a directory, in which a file of 256 MiB is made for it, without a
        name and gone afterwards.

    Raises
    ------
    OSError     the system refuses; reads past the page cache (O_DIRECT) among them.
    ValueError  the file has less than 16 pieces.
    """
    fd = _made(path) if os.path.isdir(path) else os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        pieces = os.fstat(fd).st_size // size
        if pieces < 16:
            raise ValueError(f"{os.fspath(path)} has {pieces} pieces of {size} bytes, needs 16")
        done = [0] * depth
        stop = time.perf_counter() + seconds
        failures: list[OSError] = []

        def read(lane: int) -> None:
            generator = np.random.default_rng([seed, lane])
            out = np.frombuffer(mmap.mmap(-1, size), np.uint8)  # aligned, as O_DIRECT wants
            try:
                while time.perf_counter() < stop:
                    offsets = generator.integers(0, pieces, 32) * size
                    done[lane] += page_calls.read_each(fd, offsets, out)
            except OSError as error:
                failures.append(error)

        threads = [threading.Thread(target=read, args=(lane,)) for lane in range(depth)]
        begin = time.perf_counter()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if failures:
            raise failures[0]
        return Speed(sum(done) / (time.perf_counter() - begin), size, depth)
    finally:
        os.close(fd)


def largest_file(table: Path) -> Path:
    """Return the file of a table that has most on the disk; the folder itself if all are small.

    What a disk says of a small file, or one with holes, is not its speed.
    """
    largest = max(table.glob("*.npy"), key=lambda file: file.stat().st_blocks)
    return largest if largest.stat().st_blocks * 512 > 1 << 26 else table


def _made(directory: str | os.PathLike[str]) -> int:
    """Return a descriptor of a file without a name, full of bytes that are on the disk."""
    with tempfile.TemporaryFile(dir=directory) as file:
        block = np.random.default_rng(0).bytes(1 << 20)
        for _ in range(FILE_BYTES >> 20):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
        # A second opening: the first is not for reads past the cache.
        return os.open(f"/proc/self/fd/{file.fileno()}", os.O_RDONLY | os.O_DIRECT)
