"""Memory for large results, used again: the system clears every page that it gives anew.

A lookup of 16 MiB of rows takes 2 ms into memory that was used before, and 8 ms into fresh memory.
Must not know what is stored in it.
"""

from __future__ import annotations

import math
import os
import threading
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST = 1 << 20  # bytes; smaller arrays the C library keeps for the next one by itself
MOST = 1 << 27  # bytes kept while nobody uses them

_lock = threading.RLock()  # reentrant: a collection may give memory back while it is held
_idle: dict[int, list[_Block]] = {}
_idle_bytes = 0


CACHE_LINE = 64  # bytes; an array that begins with one has rows that are in no more than they must


def zeros(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array of zeros as np.zeros does, beginning with a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return np.ndarray(shape, dtype, buffer=_aligned(np.zeros(size + CACHE_LINE, np.uint8)))


def empty(shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an array with arbitrary elements, as np.empty does; large ones come from the pool.

    Its memory goes back when the array, and everything that shares its memory, is gone.
    """
    dtype = np.dtype(dtype)
    size = math.prod(shape) * dtype.itemsize
    if size < LEAST:
        return np.empty(shape, dtype)
    # Sizes are rounded up by an eighth at the most, so that batches of nearly one size share.
    step = 1 << (size.bit_length() - 4)
    size = -(-size // step) * step
    block = _take(size)
    lease = _Lease(size, np.uint8, block)
    lease.block = block
    return np.ndarray(shape, dtype, buffer=lease)


class _Block(np.ndarray[Any, Any]):
    """Memory of the pool. Its class keeps NumPy from making it the base of what is over a lease."""


class _Lease(np.ndarray[Any, Any]):
    """Memory on loan. Views of it are no loans themselves, and keep it."""

    block: _Block | None = None

    def __del__(self) -> None:
        """Give the memory back."""
        if self.block is not None:
            _give_back(self.block)


def _take(size: int) -> _Block:
    global _idle_bytes
    with _lock:
        blocks = _idle.get(size)
        if blocks:
            _idle_bytes -= size
            return blocks.pop()
    return _aligned(np.empty(size + CACHE_LINE, np.uint8)).view(_Block)


def _aligned(memory: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Return all of `memory` but one cache line, beginning with one."""
    first = -memory.ctypes.data % CACHE_LINE
    return memory[first : memory.size - CACHE_LINE + first]


def _give_back(block: _Block) -> None:
    global _idle_bytes
    with _lock:
        if _idle_bytes + block.size <= MOST:
            _idle.setdefault(block.size, []).append(block)
            _idle_bytes += block.size


def clear() -> None:
    """Give the memory that nobody uses back to the system."""
    global _idle_bytes
    with _lock:
        _idle.clear()
        _idle_bytes = 0


def _after_fork_in_child() -> None:
    global _lock
    _lock = threading.RLock()  # another thread may have held it
    clear()


os.register_at_fork(after_in_child=_after_fork_in_child)
