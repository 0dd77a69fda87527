"""Arrays of zeros larger than memory: in a file without a name, which takes room as rows do.

Must not know what the array is for. The file is gone when the array is, or with the process.
"""

from __future__ import annotations

import errno
import math
import mmap
import os
import tempfile
from typing import Any

import numpy as np
import numpy.typing as npt

from . import memory

PART = 4  # arrays up to this part of the memory live in it


def zeros(
    shape: tuple[int, int],
    dtype: npt.DTypeLike,
    folder: str | os.PathLike[str] | None,
    rows: npt.NDArray[np.int64],
) -> npt.NDArray[Any]:
    """Return an array of zeros of which some rows will be written.

    Parameters
    ----------
    shape : (rows, dim).
    folder : on the disk that takes the array if it is larger than a quarter of the memory; None:
        memory it is, whatever its size.
    rows : ascending; the disk has room for these when this returns. A store into another row when
        the disk is full ends the process, as it does for every file with holes.

    Raises
    ------
    OSError      the disk has no room for the rows.
    MemoryError  there is no room in memory, where it was to be.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if folder is None or size <= memory.limit() // PART:
        return np.zeros(shape, dtype)
    with tempfile.TemporaryFile(dir=folder, prefix="mmembed-") as file:
        os.ftruncate(file.fileno(), size)
        _reserve(file.fileno(), size // max(1, shape[0]), rows, size)
        # The map keeps the file when its descriptor is closed.
        return np.ndarray(shape, dtype, mmap.mmap(file.fileno(), size))


def _reserve(fd: int, row_bytes: int, rows: npt.NDArray[np.int64], size: int) -> None:
    """Have the disk find room for the pages of some rows, neighbours in one call."""
    firsts = rows * row_bytes // mmap.PAGESIZE
    stops = (rows * row_bytes + row_bytes - 1) // mmap.PAGESIZE + 1
    apart = np.flatnonzero(firsts[1:] > stops[:-1]) + 1
    for first, stop in zip(
        firsts[np.append(0, apart)].tolist() if rows.size else [],
        stops[np.append(apart - 1, -1)].tolist() if rows.size else [],
        strict=True,
    ):
        begin = first * mmap.PAGESIZE
        try:
            os.posix_fallocate(fd, begin, min(stop * mmap.PAGESIZE, size) - begin)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            return
