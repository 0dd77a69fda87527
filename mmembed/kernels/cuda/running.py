"""Memory, copies and launches: what the host asks of the GPU, or of the simulator.

Kernels take raw pointers and 64-bit sizes, and run on the legacy default stream. A kernel is
compiled when it is first launched, for one signature, and its configurations are few: the grid is
as large as the GPU can hold at a time, and threads stride over the work.

Must not know what kernels do.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import dlpack, target

os.environ.setdefault("NUMBA_CUDA_LOW_OCCUPANCY_WARNINGS", "0")

from numba import cuda

simulated = target.SIMULATED
THREADS = 32 if simulated else 256
BLOCKS_PER_PROCESSOR = 8


class Kernel:
    """A kernel, compiled when it is first launched.

    Parameters
    ----------
    body : a function over the primitives of `target`.
    kinds : of its parameters: "*float32" is a pointer, "int64" a number.
    blocks : how many blocks a processor must be able to hold. Without that the compiler does not
        keep loads of several rows in flight together; with more than 3 or 4 it runs out of
        registers.
    """

    def __init__(self, body: Callable[..., None], kinds: Sequence[str], blocks: int = 4) -> None:
        self.body = body
        self.kinds = tuple(kinds)
        self.bounds = 256, blocks
        self._launchers: dict[int, Any] = {}

    def launch(self, warps: int, *arguments: Any) -> None:
        """Run with enough threads for so many warps, or as many as the GPU holds at a time."""
        if warps <= 0:
            return
        needed = -(-warps * 32 // THREADS)
        grid = min(needed, most_blocks())
        given = [
            _pointer(argument, kind[1:]) if kind[0] == "*" else _number(argument, kind)
            for argument, kind in zip(arguments, self.kinds, strict=True)
        ]
        if simulated:
            self._compiled[grid, THREADS](*given)
            return
        if grid not in self._launchers:  # numba keeps only 128 of these, of all kernels together
            self._launchers[grid] = self._compiled[grid, THREADS]
        self._launchers[grid](*given)

    @functools.cached_property
    def _compiled(self) -> Any:
        if simulated:
            return cuda.jit(_quiet(self.body))
        return cuda.jit(signature(self.kinds), launch_bounds=self.bounds)(self.body)


def signature(kinds: Sequence[str]) -> Any:
    """Return the type of a kernel with parameters of these kinds."""
    from numba import types

    from .primitives import pointer, scalar

    given = (pointer(kind[1:]) if kind[0] == "*" else scalar(kind) for kind in kinds)
    return types.void(*given)


def _quiet(body: Callable[..., None]) -> Callable[..., None]:
    def simulated_body(*arguments: Any) -> None:
        np.seterr(all="ignore")  # of this thread: a GPU says nothing of infinities
        body(*arguments)

    return simulated_body


@functools.cache
def most_blocks() -> int:
    """Return how many blocks of a kernel are started at most."""
    if simulated:
        return 2
    return BLOCKS_PER_PROCESSOR * int(cuda.get_current_device().MULTIPROCESSOR_COUNT)


@functools.cache
def adds_vectors() -> bool:
    """Return whether one instruction adds 4 float32 to memory: from compute capability 9.0 on."""
    return not simulated and cuda.get_current_device().compute_capability >= (9, 0)


def _pointer(array: Any, kind: str) -> Any:
    if not simulated:
        return array.address
    return _simulated_pointer(array, kind)


def _simulated_pointer(array: Any, kind: str) -> Any:
    """Return the memory from an array's first to its last element, flat, as elements of a kind."""
    from .simulated import NARROW, Pointer

    raw = {"u8": "uint8", "u16": "uint16", "u32": "uint32"}
    dtype = np.dtype("uint16" if kind in NARROW else raw.get(kind, kind))
    count, rest = divmod(array.extent, dtype.itemsize)
    if rest:
        raise ValueError(f"{array!r} is no whole number of {dtype}")
    owner: npt.NDArray[Any] = array.owner
    memory = (ctypes.c_char * array.extent).from_address(array.address) if array.extent else b""
    flat = np.frombuffer(memory, dtype, count)
    flat.flags.writeable = owner.flags.writeable and bool(array.extent)
    return Pointer(flat)


def _number(value: Any, kind: str) -> Any:
    if not simulated:
        return value
    return int(value) if kind[0] in "iu" else np.dtype(kind).type(value)


def allocate(shape: tuple[int, ...], dtype: np.dtype[Any]) -> tuple[int, Any]:
    """Return (address, owner) of new memory."""
    if simulated:
        array = np.empty(shape, dtype)
        array.reshape(-1).view(np.uint8)[:] = 0xFF  # NaN in every floating dtype
        return array.ctypes.data, array
    size = int(np.prod(shape, dtype=object)) * dtype.itemsize
    owner = cuda.device_array(max(size, 1), np.uint8)
    return int(owner.device_ctypes_pointer.value or 0), owner


def to_host(array: Any) -> npt.NDArray[Any]:
    """Return a copy of an array in the memory of the CPU."""
    if simulated:
        return np.array(array.owner)
    out = np.empty(array.shape, array.dtype)
    if array.size == 0:
        return out
    if array.contiguous:
        _copy(out.ctypes.data, array.address, out.nbytes, to_device=False)
        return out
    raw = np.empty(array.extent, np.uint8)
    _copy(raw.ctypes.data, array.address, raw.nbytes, to_device=False)
    view = np.ndarray(array.shape, array.dtype, raw, 0, array.strides)
    out[...] = view
    return out


def from_host(array: Any, values: npt.NDArray[Any]) -> None:
    """Copy values of the same shape and dtype to an array."""
    if simulated:
        array.owner[...] = values
    elif array.size and array.contiguous:
        held = np.ascontiguousarray(values)
        _copy(array.address, held.ctypes.data, held.nbytes, to_device=True)
    elif array.size:
        raw = np.empty(array.extent, np.uint8)
        _copy(raw.ctypes.data, array.address, raw.nbytes, to_device=False)
        np.ndarray(array.shape, array.dtype, raw, 0, array.strides)[...] = values
        _copy(array.address, raw.ctypes.data, raw.nbytes, to_device=True)


def _copy(target: int, source: int, size: int, to_device: bool) -> None:
    """Copy bytes between the GPU and the CPU; returns when they are there."""
    from cuda.bindings import driver

    cuda.synchronize()
    copy = driver.cuMemcpyHtoD if to_device else driver.cuMemcpyDtoH
    (status,) = copy(target, source, size)
    if status != driver.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"CUDA copy failed: {status}")


def over(array: Any) -> npt.NDArray[Any]:
    """Return the NumPy array over a simulated one's memory."""
    memory = (ctypes.c_char * array.extent).from_address(array.address) if array.extent else b""
    return np.ndarray(array.shape, array.dtype, memory, 0, array.strides)


def dlpack_device() -> tuple[int, int]:
    """Return what DLPack calls the device of arrays: (kind, number)."""
    return (dlpack.CPU, 0) if simulated else (dlpack.CUDA, int(cuda.get_current_device().id))


def synchronize() -> None:
    """Wait until everything that was started is done."""
    cuda.synchronize()
