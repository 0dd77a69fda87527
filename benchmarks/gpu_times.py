"""How long kernels take on a GPU, beside a copy, and torch where it can use the GPU.

Device time by events, medians, another batch in every round, tables beyond the cache of the GPU.
`Size` says how large; a tiny one runs in numba's simulator, where times mean nothing.
"""

from __future__ import annotations

import dataclasses
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from mmembed.kernels.cuda import (
    bags,
    body,
    copies,
    empty,
    norms,
    rules,
    running,
    segments,
    to_device,
)
from mmembed.kernels.cuda.caches import RowCache
from mmembed.kernels.cuda.memory import DeviceArray


@dataclasses.dataclass(frozen=True)
class Size:
    """rows x dim float32 are `table` bytes; n ids in a batch; so many batches and rounds."""

    table: int = 8 << 30
    n: int = 1 << 20
    bags: int = 1 << 16
    batches: int = 8
    rounds: int = 30
    copy: int = 1 << 30


TINY = Size(table=1 << 12, n=24, bags=4, batches=2, rounds=2, copy=1 << 10)


@dataclasses.dataclass
class Timed:
    """One line: bytes that must move, seconds of ours and of torch's, and what it should reach."""

    question: str
    bytes: float
    seconds: float
    torch: float | None = None
    of_copy: float | None = None
    of_torch: float | None = None


def median(work: Sequence[Callable[[], Any]], rounds: int) -> float:
    """Return the median seconds on the device of calls taken in turn, after one of each."""
    for call in work:
        call()
    times = []
    for i in range(rounds):
        call = work[i % len(work)]
        times.append(once(call))
    return statistics.median(times)


def once(call: Callable[[], Any]) -> float:
    """Return the seconds from when the device is free to when it is done with a call."""
    if running.simulated:
        begin = time.perf_counter()
        call()
        return time.perf_counter() - begin
    from numba import cuda

    begin_, end = cuda.event(), cuda.event()
    begin_.record()
    call()
    end.record()
    end.synchronize()
    return float(cuda.event_elapsed_time(begin_, end)) / 1e3


def good() -> DeviceArray:
    """Return the verdict on ids that are known to be good, so that kernels alone are timed."""
    return to_device(np.array([copies.NONE]))


def random_table(rows: int, dim: int, dtype: str = "float32") -> DeviceArray:
    """Return a table of random numbers, a block of them drawn once and copied all over."""
    table = empty((rows, dim), dtype)
    step = max((1 << 26) // (dim * table.itemsize), 1)
    block = np.random.default_rng(0).standard_normal((min(step, rows), dim), np.float32)
    for first in range(0, rows, step):
        last = min(first + step, rows)
        table.rows(first, last).set(block[: last - first].astype(dtype))
    return table


def torch_or_none() -> Any:
    """Return torch if it is there and can use the GPU."""
    if running.simulated:
        return None
    try:
        import torch
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def draw(rows: int, n: int, seed: int, skew: float = 0.0) -> np.ndarray:
    """Return n ids: uniform, or by a power law over shuffled rows."""
    rng = np.random.default_rng(seed)
    if not skew:
        return rng.integers(0, rows, n)
    rank = rng.zipf(skew, n) % rows
    return (rank * 2654435761 + 17) % rows  # neighbours in rank are far apart in the table


def copy_rate(size: Size) -> float:
    """Return the bytes per second, read and written, of the faster of two copies on the device."""
    rows = size.copy // 512
    source, target = random_table(rows, 128), empty((rows, 128), "float32")
    unit, units, lanes, strides = copies.row_parameters(source, target)
    ids, bad = to_device(np.arange(rows)), good()
    kernel, warps = copies.gather(unit, "int64"), copies.warps_for(rows, lanes)
    sizes = rows, units, strides[0], lanes
    best = median([lambda: kernel.launch(warps, source, ids, target, bad, *sizes)], size.rounds)
    if not running.simulated:
        from cuda.bindings import driver

        def plain() -> None:
            driver.cuMemcpyDtoDAsync(target.address, source.address, rows * 512, driver.CUstream(0))

        best = min(best, median([plain], size.rounds))
    return 2 * rows * 512 / best


def bus_rates(size: Size) -> dict[str, float]:
    """Return bytes per second between pinned memory and the device; nothing in the simulator."""
    if running.simulated:
        return {}
    from cuda.bindings import driver
    from numba import cuda

    host = cuda.pinned_array(size.copy, np.uint8)
    there, address = empty(size.copy, np.uint8), host.ctypes.data
    ways = {
        "H2D": lambda: driver.cuMemcpyHtoDAsync(
            there.address, address, size.copy, driver.CUstream(0)
        ),
        "D2H": lambda: driver.cuMemcpyDtoHAsync(
            address, there.address, size.copy, driver.CUstream(0)
        ),
    }
    return {name: size.copy / median([way], 8) for name, way in ways.items()}


def gathers(size: Size, dims: Sequence[int] = (16, 32, 64, 128, 256)) -> Iterator[Timed]:
    """Rows of 64 bytes to 1 KB, uniform."""
    torch = torch_or_none()
    for dim in dims:
        rows = max(size.table // (4 * dim), 4)
        table, out, bad = random_table(rows, dim), empty((size.n, dim), "float32"), good()
        host = [draw(rows, size.n, seed) for seed in range(size.batches)]
        batches = [to_device(ids) for ids in host]
        unit, units, lanes, (stride, _) = copies.row_parameters(table, out)
        kernel, warps = copies.gather(unit, "int64"), copies.warps_for(size.n, lanes)
        sizes = size.n, units, stride, lanes

        def ours(ids: DeviceArray) -> Callable[[], Any]:
            return lambda: kernel.launch(warps, table, ids, out, bad, *sizes)  # noqa: B023

        moved = size.n * 8 + (np.unique(host[0]).size + size.n) * dim * 4
        done = Timed(f"gather, rows of {4 * dim} bytes", moved, 0.0)
        done.seconds = median([ours(ids) for ids in batches], size.rounds)
        done.of_copy = 0.92 if dim >= 128 else 0.6 if dim == 16 else 0.8
        done.of_torch = 1.0 if dim >= 128 else 2.0
        if torch:
            weight = torch.as_tensor(table, device="cuda")
            ways = (
                lambda ids, w=weight: torch.nn.functional.embedding(ids, w),
                lambda ids, w=weight: torch.index_select(w, 0, ids),
                lambda ids, w=weight: w[ids],
            )
            done.torch = best_of(torch, ways, batches, size.rounds)
        yield done


def best_of(torch: Any, ways: Sequence[Any], batches: Sequence[Any], rounds: int) -> float:
    """Return the median seconds of the fastest way to answer batches in torch."""
    theirs = [torch.as_tensor(ids, device="cuda") for ids in batches]
    with torch.no_grad(), torch.cuda.stream(torch.cuda.default_stream()):
        return min(median([lambda i=ids, w=way: w(i) for ids in theirs], rounds) for way in ways)


def bag_sums(size: Size) -> Iterator[Timed]:
    """Bags of 32 rows of 512 bytes: uniform, by a power law, and in bfloat16's width."""
    torch, dim, length = torch_or_none(), 128, 32
    rows = max(size.table // (4 * dim), 4)
    n = size.bags * length
    starts, none = to_device(np.arange(size.bags + 1) * length), empty(0, "float32")
    for label, dtype, skew in (
        ("uniform", "float32", 0.0),
        ("power law 1.1", "float32", 1.1),
        ("uniform, float16", "float16", 0.0),
    ):
        table, out = random_table(rows, dim, dtype), empty((size.bags, dim), dtype)
        host = [draw(rows, n, seed, skew) for seed in range(size.batches)]
        batches = [to_device(ids) for ids in host]
        width = 16 // table.itemsize
        lanes = copies.lanes_for(dim // width)
        kernel, bad = bags.sum_bags(dtype, dtype, width, "int64", False), good()
        sizes = size.bags, dim, dim, -1, 0, lanes
        warps = copies.warps_for(size.bags, lanes)

        def ours(ids: DeviceArray) -> Callable[[], Any]:
            return lambda: kernel.launch(warps, table, ids, starts, none, out, bad, *sizes)  # noqa: B023

        # By the power law, as many bytes as if no row were read twice from memory.
        read = n if skew else np.unique(host[0]).size
        moved = n * 8 + (read + size.bags) * dim * table.itemsize
        done = Timed(f"bags of {length}, {label}", moved, 0.0)
        done.seconds = median([ours(ids) for ids in batches], size.rounds)
        done.of_copy = 1.5 if skew else 0.9
        done.of_torch = 2.0 if skew else 1.5
        if torch:
            weight = torch.as_tensor(table, device="cuda")
            offsets = torch.as_tensor(starts, device="cuda")[:-1].contiguous()
            ways = (
                lambda ids, w=weight, o=offsets, t=torch: t.nn.functional.embedding_bag(
                    ids, w, o, mode="sum"
                ),
            )
            done.torch = best_of(torch, ways, batches, size.rounds)
        yield done


def steps(size: Size) -> Iterator[Timed]:
    """A whole sparse step of Adagrad, and its parts: the plan, and the fused update."""
    torch, dim, n = torch_or_none(), 128, size.n
    rows = max(size.table // (16 * dim), 4)
    weight, total = random_table(rows, dim), random_table(rows, dim)
    values = random_table(n, dim)
    host = [draw(rows, n, seed) for seed in range(size.batches)]
    batches = [to_device(ids) for ids in host]
    order, unique = empty(n, "int64"), empty(n, "int64")
    starts, count, work = empty(n + 1, "int64"), empty(1, "int64"), empty(0, "int64")
    plan_of = order, unique, starts, count, work
    numbers = 0.01, 1e-10, 0.0, False

    def planned(ids: DeviceArray) -> int:
        body.plan(ids, rows, *plan_of)
        return int(count.numpy()[0])

    def whole(ids: DeviceArray) -> None:
        found = planned(ids)
        body.update_adagrad(weight, total, unique.rows(0, found), values, order, starts, *numbers)

    distinct = np.unique(host[0]).size
    digits = -(-max(rows - 1, 1).bit_length() // 8)
    sorting = n * (8 + 12) + digits * n * (2 * 12 + 4)
    update = n * (dim * 4 + 8) + distinct * (16 + dim * 4 * 4)
    yield Timed("plan: our radix sort and groups", sorting, median(
        [lambda i=ids: planned(i) for ids in batches], size.rounds))  # fmt: skip
    step = Timed("step of Adagrad: plan, sums, update", sorting + update, 0.0)
    step.seconds = median([lambda i=ids: whole(i) for ids in batches], size.rounds)
    step.of_copy, step.of_torch = 0.65, 4.0
    found = planned(batches[0])
    kernel = segments.update(rules.adagrad, 1, "float32", "float32", 4, "int64")
    lanes = copies.lanes_for(dim // 4)
    sizes = found, dim, dim, dim, 0, lanes, 0.01, 1e-10, 0.0, 0.0, 0.0, 1.0
    arrays = weight, total, good(), unique, values, order, starts, good()
    warps = copies.warps_for(found, lanes)
    alone = Timed("fused Adagrad alone", update, 0.0, of_copy=0.85)
    alone.seconds = median([lambda: kernel.launch(warps, *arrays, *sizes)], size.rounds)
    sums = Timed("coalesced gradient: plan, sums", sorting + n * (dim * 4 + 8) + distinct * dim * 4,
                 0.0, of_copy=0.6, of_torch=2.0)  # fmt: skip
    out = empty((found, dim), "float32")
    sums.seconds = median(
        [lambda: body.segment_sum(values, order, starts.rows(0, planned(batches[0]) + 1), out)],
        size.rounds,
    )
    if torch:
        step.torch, sums.torch = torch_steps(torch, weight, values, batches, size.rounds)
    yield from (step, alone, sums)


def torch_steps(torch: Any, weight: Any, values: Any, batches: Any, rounds: int) -> Any:
    """Return torch's median seconds for a sparse Adagrad step, and for coalescing alone."""
    parameter = torch.nn.Parameter(torch.as_tensor(weight, device="cuda"))
    optimizer = torch.optim.Adagrad([parameter], lr=0.01)
    upstream = torch.as_tensor(values, device="cuda")
    shape = tuple(parameter.shape)

    def gradient(ids: Any) -> Any:
        return torch.sparse_coo_tensor(ids[None], upstream, shape, check_invariants=False)

    def step(ids: Any) -> None:
        parameter.grad = gradient(ids)
        optimizer.step()

    theirs = [torch.as_tensor(ids, device="cuda") for ids in batches]
    whole = median([lambda i=ids: step(i) for ids in theirs], rounds)
    return whole, median([lambda i=ids: gradient(i).coalesce() for ids in theirs], rounds)


def others(size: Size) -> Iterator[Timed]:
    """Renorm of distinct rows; lookups that a cache answers, beside plain ones."""
    dim = 128
    rows = max(size.table // (4 * dim), 4)
    n = min(size.n, rows)
    table, bad = random_table(rows, dim), good()
    ids = to_device(np.sort(np.random.default_rng(2).permutation(rows)[:n]))
    kernel, lanes = norms.renorm(norms.SQUARES, "float32", 4, "int64"), norms.lanes_of(4)
    partial = empty((running.most_blocks() * running.THREADS // lanes * 8,), "float64")
    warps = copies.warps_for(n, lanes)
    arrays = table, ids, bad, partial
    call = lambda: kernel.launch(warps, *arrays, n, dim, dim, 1e9, 2.0)  # noqa: E731
    yield Timed("renorm, no row too long", n * (8 + dim * 4), median([call], size.rounds),
                of_copy=0.85)  # fmt: skip
    cache = RowCache(rows, n, dim, "float32")
    _, missing = cache.find(ids)
    places, _ = cache.admit(missing)
    held = empty((missing.size, dim), "float32")
    body.gather(table, missing, held)
    cache.put(places, held)
    out = empty((n, dim), "float32")
    unit, units, lanes, _ = copies.row_parameters(table, out)
    cached = copies.gather_cached(unit, "int64")
    of = cache.slot, cache.values, cache.values, ids, out, bad
    warps = copies.warps_for(n, lanes)
    call = lambda: cached.launch(warps, *of, n, units, lanes)  # noqa: E731
    moved = n * (8 + 32 + 2 * dim * 4)
    # 0.75 of a plain gather that reaches its own goal of 0.92.
    yield Timed("lookup that the cache answers", moved, median([call], size.rounds), of_copy=0.69)


def host_cost(size: Size) -> float:
    """Return the median seconds that the host is busy with one launch."""
    ids, bad = to_device(np.zeros(32, np.int64)), good()
    kernel = copies.check_ids("int64")
    times = []
    for _ in range(size.rounds * 10):
        begin = time.perf_counter()
        kernel.launch(1, ids, bad, 32, 1)
        times.append(time.perf_counter() - begin)
    running.synchronize()
    return statistics.median(times)
