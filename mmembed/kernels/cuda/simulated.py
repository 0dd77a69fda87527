"""The primitives for numba's simulator, in which a thread of a GPU is a thread of Python.

The same names and meanings as in `primitives`. The simulator has no warps: here each exchange
among the lanes of a warp is one meeting of their threads. Pointers are NumPy arrays that refuse
an index outside their memory, negative ones too.

Must not know kernels, tables or launches.
"""

from __future__ import annotations

import functools
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

_PATIENCE = 60.0  # seconds that a lane waits for the others of its warp
_lock = threading.Lock()

NARROW = ("float16", "bfloat16")


class Pointer:
    """Memory as a kernel sees it: flat, and every index is checked."""

    def __init__(self, memory: npt.NDArray[Any]) -> None:
        self.memory = memory

    def __getitem__(self, i: int) -> Any:
        if i < 0:
            raise IndexError(f"index {i} is before the memory")
        return self.memory[i]

    def __setitem__(self, i: int, value: Any) -> None:
        if i < 0:
            raise IndexError(f"index {i} is before the memory")
        self.memory[i] = value

    def part(self, i: int, width: int) -> npt.NDArray[Any]:
        """Return `width` elements from i on, all of which must be there."""
        if i < 0 or i + width > self.memory.size:
            raise IndexError(f"elements {i}..{i + width - 1} of {self.memory.size}")
        address = self.memory.ctypes.data + i * self.memory.itemsize
        if address % min(16, width * self.memory.itemsize):
            raise ValueError(f"elements {i}..{i + width - 1} are not aligned for one load")
        return self.memory[i : i + width]


def device(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return the function: in the simulator any function can be called."""
    return function


def i64(x: Any) -> int:
    """Return an integer."""
    return int(x)


f32, f64 = np.float32, np.float64


def _thread() -> Any:
    return threading.current_thread()


def thread_index() -> int:
    """See `primitives`."""
    return int(_thread().thread_id)


def block_threads() -> int:
    """See `primitives`."""
    return math.prod(_thread()._manager._block_dim)


def block_index() -> int:
    """See `primitives`."""
    return int(_thread().blockIdx.x)


def blocks() -> int:
    """See `primitives`."""
    return int(_thread()._manager._grid_dim[0])


def mul(a: Any, b: Any) -> Any:
    """See `primitives`."""
    return a * b


def root(x: Any) -> Any:
    """See `primitives`."""
    return np.sqrt(x)


def power(x: Any, p: Any) -> Any:
    """See `primitives`."""
    return np.power(x, p)


def absolute(x: Any) -> Any:
    """See `primitives`."""
    return np.abs(x)


@functools.cache
def load(kind: str, width: int) -> Callable[..., Any]:
    """See `primitives`."""

    def loaded(p: Pointer, i: int) -> tuple[Any, ...]:
        part = p.part(i, width)
        if kind == "float16":
            part = part.view(np.float16).astype(np.float32)
        elif kind == "bfloat16":
            part = (part.astype(np.uint32) << 16).view(np.float32)
        return tuple(part)

    return loaded


@functools.cache
def store(kind: str, width: int) -> Callable[..., Any]:
    """See `primitives`."""

    def stored(p: Pointer, i: int, values: tuple[Any, ...]) -> None:
        p.part(i, width)[:] = _rounded(kind, values) if kind in NARROW else values

    return stored


def _rounded(kind: str, values: tuple[Any, ...]) -> npt.NDArray[np.uint16]:
    numbers = np.array(values, np.float32)
    if kind == "float16":
        bits: npt.NDArray[Any] = numbers.astype(np.float16).view(np.uint16)
        return np.where(np.isnan(numbers), 0x7E00, bits).astype(np.uint16)
    whole = numbers.view(np.uint32)
    up = (whole + (0x7FFF + (whole >> 16 & 1)).astype(np.uint32)) >> 16
    return np.where(np.isnan(numbers), 0x7FC0, up).astype(np.uint16)


def atomic_min(p: Pointer, i: int, value: int) -> None:
    """See `primitives`."""
    with _lock:
        p[i] = min(p[i], value)


@functools.cache
def add_to(kind: str, width: int, vectors: bool) -> Callable[..., Any]:
    """See `primitives`."""

    def added(p: Pointer, i: int, values: tuple[Any, ...]) -> None:
        with _lock:
            p.part(i, width)[:] += np.array(values)

    return added


class _Meeting:
    def __init__(self, lanes: int) -> None:
        self.barrier = threading.Barrier(lanes)
        self.said: dict[int, Any] = {}


def _exchange(mask: int, value: Any) -> tuple[dict[int, Any], int]:
    """Tell the lanes of the mask a value; returns what each of them said, and this lane."""
    thread = _thread()
    warp, lane = divmod(thread.thread_id, 32)
    assert mask >> lane & 1, f"lane {lane} meets lanes {mask:#x}"
    meetings = thread._manager.__dict__.setdefault("_meetings", {})
    with _lock:
        meeting = meetings.setdefault((warp, mask), _Meeting(mask.bit_count()))
    meeting.said[lane] = value
    meeting.barrier.wait(_PATIENCE)
    said = dict(meeting.said)
    meeting.barrier.wait(_PATIENCE)
    return said, lane


def sync_warp(mask: int) -> None:
    """See `primitives`."""
    _exchange(mask, None)


def lanes_with(mask: int, value: int) -> int:
    """See `primitives`."""
    said, _ = _exchange(mask, value)
    return sum(1 << lane for lane, other in said.items() if other == value)


def lanes_where(mask: int, condition: bool) -> int:
    """See `primitives`."""
    said, _ = _exchange(mask, condition)
    return sum(1 << lane for lane, holds in said.items() if holds)


def from_lane(mask: int, value: int, lane: int) -> Any:
    """See `primitives`."""
    said, _ = _exchange(mask, value)
    return said[lane]


def from_below(mask: int, value: int, distance: int) -> Any:
    """See `primitives`."""
    said, lane = _exchange(mask, value)
    return said.get(lane - distance, value)


def count_bits(mask: int) -> int:
    """See `primitives`."""
    return mask.bit_count()


def first_bit(mask: int) -> int:
    """See `primitives`."""
    return (mask & -mask).bit_length() - 1


def shared_counts() -> npt.NDArray[np.int64]:
    """See `primitives`."""
    manager = _thread()._manager
    with _lock:
        made: npt.NDArray[np.int64] = manager.__dict__.setdefault(
            "_counts", np.full(2048, -(2**40), np.int64)
        )
    return made


def not_unrolled() -> None:
    """See `primitives`."""
