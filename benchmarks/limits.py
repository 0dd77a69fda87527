"""What the machine itself can move: copies, and reads and writes of random rows.

    python benchmarks/limits.py            # half a minute on two cores, 2 GB of memory

The loops are our own, in Numba, and share no code with the kernels: they ask for coming rows ahead
of time, write past the cache where that is allowed, and do nothing else. Tables have huge pages
where the system gives them. `copy` is of 64 MiB out of 1 GiB; GB/s are 10^9 bytes read and written.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import contest
import numpy as np
import script
import torch
from llvmlite import ir
from numba import njit, prange, types
from numba.extending import intrinsic

LINE = 64  # bytes
AHEAD = 2048  # bytes of rows asked for ahead of time; at least 4 rows


@intrinsic  # type: ignore[untyped-decorator]
def _prefetch(_context: Any, address: Any) -> Any:
    """Ask for the cache line at an address."""

    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        pointer, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        shape = ir.FunctionType(ir.VoidType(), [pointer, number, number, number])
        prefetch = builder.module.declare_intrinsic("llvm.prefetch", [pointer], shape)
        given = builder.inttoptr(arguments[0], pointer)
        builder.call(prefetch, [given, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(types.uintp), build


@intrinsic  # type: ignore[untyped-decorator]
def _stream_line(_context: Any, target: Any, source: Any) -> Any:
    """Copy 64 bytes to an aligned address, past the cache (a non-temporal store)."""

    def build(context: Any, builder: Any, _signature: Any, arguments: Any) -> Any:
        line = ir.VectorType(ir.FloatType(), 16)
        target, source = (builder.inttoptr(given, line.as_pointer()) for given in arguments)
        store = builder.store(builder.load(source, align=4), target, align=LINE)
        store.set_metadata("nontemporal", builder.module.add_metadata([ir.IntType(32)(1)]))
        return context.get_dummy_value()

    return types.void(types.uintp, types.uintp), build


_loop = njit(parallel=True, nogil=True, cache=True)


@njit  # type: ignore[untyped-decorator]
def _ask_for(address: int, width: int) -> None:
    for at in range(0, width, LINE):
        _prefetch(types.uintp(address + at))


@_loop  # type: ignore[untyped-decorator]
def _copy(source: Any, target: Any, parts: int) -> None:
    source_address, target_address = source.ctypes.data, target.ctypes.data
    lines = target.size * 4 // LINE
    for part in prange(parts):
        for line in range(lines * part // parts, lines * (part + 1) // parts):
            at = line * LINE
            _prefetch(types.uintp(source_address + at + AHEAD))
            _stream_line(types.uintp(target_address + at), types.uintp(source_address + at))


@_loop  # type: ignore[untyped-decorator]
def _gather(table: Any, ids: Any, target: Any, ahead: int, parts: int) -> None:
    n, width = len(ids), 4 * table.shape[1]
    table_address, target_address = table.ctypes.data, target.ctypes.data
    for part in prange(parts):
        end = n * (part + 1) // parts
        for i in range(n * part // parts, end):
            _ask_for(table_address + ids[min(i + ahead, end - 1)] * width, width)
            row = table_address + ids[i] * width
            for at in range(0, width, LINE):
                _stream_line(types.uintp(target_address + i * width + at), types.uintp(row + at))


@_loop  # type: ignore[untyped-decorator]
def _read(table: Any, ids: Any, sums: Any, ahead: int, parts: int) -> None:
    n, width, table_address = len(ids), 4 * table.shape[1], table.ctypes.data
    flat = table.reshape(-1)
    for part in prange(parts):
        end = n * (part + 1) // parts
        total = np.float32(0)
        for i in range(n * part // parts, end):
            _ask_for(table_address + ids[min(i + ahead, end - 1)] * width, width)
            first = np.uint64(ids[i] * table.shape[1])
            for j in range(0, table.shape[1], LINE // 4):
                total += flat[first + np.uint64(j)]
        sums[part * LINE] = total


@_loop  # type: ignore[untyped-decorator]
def _update(table: Any, ids: Any, amount: Any, ahead: int, parts: int) -> None:
    n, width, table_address = len(ids), 4 * table.shape[1], table.ctypes.data
    flat = table.reshape(-1)
    for part in prange(parts):
        end = n * (part + 1) // parts
        for i in range(n * part // parts, end):
            _ask_for(table_address + ids[min(i + ahead, end - 1)] * width, width)
            first = np.uint64(ids[i] * table.shape[1])
            for j in range(table.shape[1]):
                flat[first + np.uint64(j)] += amount


class Loops:
    """The loops, shared out among threads.

    Arrays are contiguous float32, and begin at a multiple of 64 bytes where they are written. Rows
    of `gather` are multiples of 16 numbers, and `update` takes distinct ids.
    """

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._sums = np.zeros(threads * LINE, np.float32)

    def copy(self, source: Any, target: Any) -> None:
        """target = source, past the cache; the same number of bytes, a multiple of 64."""
        _copy(source, target, self._threads)

    def gather(self, table: Any, ids: Any, target: Any) -> None:
        """target[i] = table[ids[i]], past the cache; ids are not checked."""
        _gather(table, ids, target, _ahead(table), self._threads)

    def read(self, table: Any, ids: Any) -> None:
        """Bring table[ids[i]] in: one number of every cache line is used."""
        _read(table, ids, self._sums, _ahead(table), self._threads)

    def update(self, table: Any, ids: Any, amount: float = 0.0) -> None:
        """table[ids[i]] += amount, for distinct ids."""
        _update(table, ids, np.float32(amount), _ahead(table), self._threads)


def _ahead(table: Any) -> int:
    return max(4, AHEAD // (4 * table.shape[1]))


def aligned(shape: tuple[int, ...]) -> Any:
    """Return float32 ones that begin at a multiple of 64 bytes."""
    size = 4 * int(np.prod(shape))
    raw = np.empty(size + LINE, np.uint8)
    skip = -raw.ctypes.data % LINE
    array = raw[skip : skip + size].view(np.float32).reshape(shape)
    array[...] = 1
    return array


def aligned_copy(array: Any) -> Any:
    """Return a float32 copy in such memory."""
    copy = aligned(array.shape)
    copy[...] = array
    return copy


def copies(source: Callable[[], Any], target: Any, loops: Loops) -> dict[str, Callable[[], object]]:
    """Return the ways to copy an array of one dimension that there are."""
    theirs = torch.from_numpy(target)
    return {
        "copy, torch": lambda: theirs.copy_(torch.from_numpy(source())),
        "copy, streaming": lambda: loops.copy(source(), target),
    }


def copying(megabytes: int, gigabyte: Any, loops: Loops, seconds: float) -> contest.Contest:
    """Copies of a part of an array, another part every time."""
    flat = gigabyte.reshape(-1)
    n = megabytes << 18
    target, parts = aligned((n,)), contest.Turns(np.split(flat, len(flat) // n))
    ways = {
        **copies(parts, target, loops),
        "copy, numpy": lambda: np.copyto(target, parts()),
        "read, torch": lambda: torch.from_numpy(parts()).sum(),
        "write, torch": lambda: torch.from_numpy(target).fill_(1.0),
    }
    about = {"question": "copy", "bytes": 2 * target.nbytes}
    return contest.run(f"copy of {megabytes} MiB", ways, "copy, torch", seconds, about=about)


def random_rows(
    dim: int, megabytes: int, gigabyte: Any, loops: Loops, seconds: float
) -> contest.Contest:
    """Reads, gathers and updates of distinct random rows."""
    table = gigabyte.reshape(-1, dim)
    n = (megabytes << 18) // dim
    order = np.random.default_rng(0).permutation(len(table))
    ids = contest.Turns(np.split(order[: len(order) // n * n], len(order) // n))
    target = aligned((n, dim))
    first = ids()
    table[first[::3], 0] = 2
    loops.gather(table, first, target)
    np.testing.assert_array_equal(target, table[first])
    ways = {
        "read": lambda: loops.read(table, ids()),
        "gather": lambda: loops.gather(table, ids(), target),
        "update": lambda: loops.update(table, ids()),
    }
    about = {
        "question": "random rows",
        "dim": dim,
        "table bytes": table.nbytes,
        "bytes": target.nbytes,
    }
    title = f"random rows of {megabytes} MiB, dim {dim}, of {gigabyte.nbytes >> 20} MiB"
    return contest.run(title, ways, "read", seconds, about=about)


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales arrays, 1 being what is reported."""
    loops = Loops(torch.get_num_threads())
    part = max(1, round(64 * size))
    gigabyte = aligned((16 * part << 18,))
    yield copying(part, gigabyte, loops, seconds)
    for dim in (64,) if quick else (16, 32, 64, 128, 256, 512, 1024):
        yield random_rows(dim, part, gigabyte, loops, seconds)
    if quick:
        return
    for megabytes in (32, 64, 256):
        smaller = gigabyte[: max(megabytes // 32, round(megabytes * size)) << 18]
        yield random_rows(64, min(part, len(smaller) >> 18), smaller, loops, seconds)


if __name__ == "__main__":
    script.main(__doc__, "limits", contests, seconds=3.0)
