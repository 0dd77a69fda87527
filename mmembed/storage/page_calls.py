"""The functions of `_pages`, or their bodies in Python where that is not built.

Must not know tables, columns or policy. The bodies here do the same, some of it with the GIL held;
they cannot tell whether a page is in memory.
"""

from __future__ import annotations

import os
import resource
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from . import _pages  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    _pages = None

IdArray = npt.NDArray[np.signedinteger[Any]]
PageArray = npt.NDArray[np.int64]
Marks = npt.NDArray[np.uint8]

BUILT = _pages is not None


def pages_of_in_python(
    ids: IdArray,
    rows: int,
    row_bytes: int,
    first: int,
    shift: int,
    marks: Marks,
    passed: int,
    out: PageArray,
) -> int:
    """Write the pages that rows lie in; see `_pages.pages_of`."""
    ids = ids[(ids >= 0) & (ids < rows)].astype(np.int64)
    starts = (first + ids * row_bytes) >> shift
    stops = ((first + ids * row_bytes + row_bytes - 1) >> shift) + 1
    counts = stops - starts
    offsets = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
    pages = np.repeat(starts, counts) + offsets
    pages = pages[marks[pages] != passed]
    out[: pages.size] = pages
    return int(pages.size)


def unset_of_in_python(ids: IdArray, rows: int, shift: int, bits: Marks, out: PageArray) -> int:
    """Write the places of ids in blocks whose bit is off; see `_pages.unset_of`."""
    places = np.flatnonzero((ids >= 0) & (ids < rows))
    blocks = ids[places].astype(np.int64) >> shift
    places = places[(bits[blocks >> 3] >> (blocks & 7).astype(np.uint8)) & 1 == 0]
    out[: places.size] = places
    return int(places.size)


def read_ahead_in_python(
    address: int, length: int, shift: int, pages: PageArray, marks: Marks, passed: int, mark: int
) -> tuple[int, int]:
    """Ask the system to read pages; see `_pages.read_ahead`."""
    import ctypes

    madvise = ctypes.CDLL(None, use_errno=True).madvise
    madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    wanted = np.unique(pages[marks[pages] != passed])
    runs = np.split(wanted, np.flatnonzero(np.diff(wanted) != 1) + 1) if wanted.size else []
    for run in runs:
        begin, end = int(run[0]) << shift, min((int(run[-1]) + 1) << shift, length)
        madvise(address + begin, end - begin, 3)  # MADV_WILLNEED
    if mark >= 0:
        marks[wanted] = mark
    return len(runs), wanted.size


def resident_in_python(address: int, shift: int, pages: PageArray) -> int:
    """Return 0: Python cannot tell, and a page that is asked for in vain costs little."""
    return 0


def resident_of_in_python(address: int, pages: int, shift: int, work: npt.NDArray[np.uint8]) -> int:
    """Return -1: Python cannot tell."""
    return -1


def set_marks_in_python(marks: Marks, pages: PageArray, mark: int) -> None:
    """Set marks[pages] = mark."""
    marks[pages] = mark


def major_faults_in_python() -> int:
    """Return how many pages this process has waited for so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_majflt


def bytes_read_in_python() -> int:
    """Return how many bytes this process has had read from disks so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_inblock << 9


def read_each_in_python(fd: int, offsets: PageArray, out: npt.NDArray[np.uint8]) -> int:
    """Read a piece of a file at each offset; see `_pages.read_each`."""
    return sum(os.preadv(fd, [out.data], int(offset)) == out.size for offset in offsets)


def read_pieces_in_python(
    fd: int, offsets: PageArray, places: PageArray, out: npt.NDArray[np.uint8]
) -> int:
    """Read the piece at each offset into out[place]; see `_pages.read_pieces`."""
    size = out.shape[1]
    pairs = zip(offsets.tolist(), places.tolist(), strict=True)
    return sum(os.preadv(fd, [out[place].data], offset) == size for offset, place in pairs)


def fence_in_python() -> None:
    """Do nothing, which is enough where stores and loads are seen in order: on x86-64."""


if _pages is not None:
    Job = _pages.Job
    settle = _pages.settle
    os.register_at_fork(after_in_child=_pages.after_fork_in_child)
    fence = _pages.fence
    read_each = _pages.read_each
    read_pieces = _pages.read_pieces
    pages_of = _pages.pages_of
    unset_of = _pages.unset_of
    read_ahead = _pages.read_ahead
    resident = _pages.resident
    resident_of = _pages.resident_of
    set_marks = _pages.set_marks
    major_faults = _pages.major_faults
    bytes_read = _pages.bytes_read
else:
    pages_of = pages_of_in_python
    unset_of = unset_of_in_python
    read_ahead = read_ahead_in_python
    resident = resident_in_python
    resident_of = resident_of_in_python
    set_marks = set_marks_in_python
    major_faults = major_faults_in_python
    fence = fence_in_python
    bytes_read = bytes_read_in_python
    read_each = read_each_in_python
    read_pieces = read_pieces_in_python
    Job = None
    settle = None
