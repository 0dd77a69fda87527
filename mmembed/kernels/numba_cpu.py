"""The kernels in Numba, parallel: the portable body, used where the Cython one was not built.

The contract is in `mmembed.kernels`. A table reaches the loops as a flat array, the place of row
0 and the row stride, so that read-only and strided tables need no compilation of their own. Every
loop is compiled at its first use, serial and parallel apart, and kept in Numba's cache on disk.

Must not know files, the tape or Python errors. The serial form is used for one thread: it starts no
thread pool, so a forked child may call it.
"""

from __future__ import annotations

import functools
import math
import threading
import types
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .reference import COS_SERIES, LN2, LOG_SERIES, SIN_SERIES, SQRT_HALF, TWO_PI

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

RADIX_BITS = 11
BUCKETS = 1 << RADIX_BITS
SGD, MOMENTUM, ADAGRAD, ROWWISE_ADAGRAD, ADAM = range(5)

# Not every threading layer of Numba allows two Python threads in parallel loops at once.
_pool = threading.Lock()

_jitted = numba.njit(cache=True)


@functools.cache
def _compiled(loop: Callable[..., Any], parallel: bool) -> Callable[..., Any]:
    """Return `loop` compiled; Numba's cache tells the two forms apart by their name."""
    copy = types.FunctionType(
        loop.__code__, loop.__globals__, loop.__name__, loop.__defaults__, loop.__closure__
    )
    copy.__qualname__ = f"{loop.__qualname__}_{'parallel' if parallel else 'serial'}"
    copy.__module__ = loop.__module__
    compiled: Callable[..., Any] = numba.njit(parallel=parallel, nogil=True, cache=True)(copy)
    return compiled


def _run(loop: Callable[..., Any], threads: int, *arguments: Any) -> Any:
    threads = min(threads, numba.config.NUMBA_NUM_THREADS)
    if threads == 1:
        return _compiled(loop, False)(*arguments, 1)
    with _pool:
        numba.set_num_threads(threads)
        return _compiled(loop, True)(*arguments, threads)


def _read(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return a read-only view: one compiled form serves writable and read-only arrays."""
    view = array.view()
    view.flags.writeable = False
    return view


def _flat(table: FloatArray) -> tuple[FloatArray, int, int]:
    """Return (elements of the table in one line, position of row 0, row stride in elements)."""
    rows, dim = table.shape
    stride = table.strides[0] // table.itemsize
    if rows == 0 or dim == 0:
        return np.empty(0, table.dtype), 0, 0
    lowest = table if stride >= 0 else table[::-1]
    size = (rows - 1) * abs(stride) + dim
    line = np.lib.stride_tricks.as_strided(lowest, (size,), (table.itemsize,))
    return line, 0 if stride >= 0 else (rows - 1) * -stride, stride


def _flat_read(table: FloatArray) -> tuple[FloatArray, int, int]:
    line, start, stride = _flat(table)
    return _read(line), start, stride


# ---------------------------------------------------------------------------------- ids and plan


@_jitted
def _bad(ids: Any, rows: int) -> int:
    for i in range(ids.size):
        if ids[i] < 0 or ids[i] >= rows:
            return i
    return -1


def first_bad_id(ids: IdArray, rows: int, threads: int) -> int:
    """See `mmembed.kernels.first_bad_id`."""
    return int(_bad(_read(ids), rows))


@_jitted
def _sort_ids(ids: Any, rows: int, order: Any, unique: Any, starts: Any, work: Any) -> int:
    """Least-significant-digit radix sort of (id, position), then runs; returns their number."""
    n = ids.size
    passes = 1
    while passes * RADIX_BITS < 63 and (rows - 1) >> (RADIX_BITS * passes):
        passes += 1
    counts = np.zeros((passes, BUCKETS), np.int64)
    for i in range(n):
        key = np.int64(ids[i])
        for p in range(passes):
            counts[p, key & (BUCKETS - 1)] += 1
            key >>= RADIX_BITS
    for p in range(passes):
        total = 0
        for bucket in range(BUCKETS):
            size = counts[p, bucket]
            counts[p, bucket] = total
            total += size

    # The last pass must end in (unique, order): with an even number of passes the first does not.
    keys, places = work[:n], work[n : 2 * n]
    keys_out, places_out = unique[:n], order[:n]
    if passes % 2 == 0:
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places
    for p in range(passes):
        for i in range(n):
            key = np.int64(ids[i]) if p == 0 else keys[i]
            digit = (key >> (RADIX_BITS * p)) & (BUCKETS - 1)
            at = counts[p, digit]
            counts[p, digit] = at + 1
            keys_out[at] = key
            places_out[at] = i if p == 0 else places[i]
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places

    runs = 0
    previous = np.int64(-1)
    for i in range(n):
        key = unique[i]
        if key != previous:
            unique[runs] = key
            starts[runs] = i
            runs += 1
            previous = key
    starts[runs] = n
    return runs


def plan(
    ids: IdArray,
    rows: int,
    order: RowArray,
    unique: RowArray,
    starts: RowArray,
    count: RowArray,
    work: RowArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.plan`."""
    bad = first_bad_id(ids, rows, threads)
    if bad < 0:
        count[0] = _sort_ids(_read(ids), rows, order, unique, starts, work)
    return bad


# ------------------------------------------------------------------------------- gather and norms


def _gather(line: Any, start: int, stride: int, ids: Any, out: Any, threads: int) -> None:
    dim = out.shape[1]
    for i in numba.prange(ids.size):
        at = start + np.int64(ids[i]) * stride
        for j in range(dim):
            out[i, j] = line[at + j]


def gather(table: FloatArray, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `mmembed.kernels.gather`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad < 0 and out.size:
        _run(_gather, threads, *_flat_read(table), _read(ids), out)
    return bad


@_jitted
def _sum_of_squares(row: Any) -> float:
    partial = np.zeros(8)
    whole = row.size - row.size % 8
    for j in range(0, whole, 8):
        for k in range(8):
            x = np.float64(row[j + k])
            partial[k] += x * x
    for j in range(whole, row.size):
        x = np.float64(row[j])
        partial[j - whole] += x * x
    total = 0.0
    for k in range(8):
        total += partial[k]
    return total


@_jitted
def _norm(row: Any, p: float) -> float:
    norm = 0.0
    if p == 2:
        norm = math.sqrt(_sum_of_squares(row))
    elif math.isinf(p):
        norm = abs(np.float64(row[0]))
        for x in row[1:]:
            size = abs(np.float64(x))
            if size != size or (size > norm if p > 0 else size < norm):  # a NaN stays
                norm = size
    elif p == 0:
        for x in row:
            norm += x != 0
    elif p == 1:
        for x in row:
            norm += abs(np.float64(x))
    else:
        for x in row:
            norm += math.pow(abs(np.float64(x)), p)
        norm = math.pow(norm, 1.0 / p)
    return norm


@_jitted
def _rounded(norm: float, like: Any) -> float:
    """Round a norm to the dtype of `like`, unless that would overflow."""
    cell = np.empty(1, like.dtype)
    cell[0] = norm
    return norm if math.isinf(cell[0]) else float(cell[0])


def _row_norms(
    line: Any, start: int, stride: int, dim: int, ids: Any, p: float, out: Any, threads: int
) -> None:
    for i in numba.prange(ids.size):
        at = start + ids[i] * stride
        out[i] = _rounded(_norm(line[at : at + dim], p), line)


def row_norms(
    table: FloatArray,
    ids: RowArray,
    norm_type: float,
    out: npt.NDArray[np.float64],
    threads: int,
) -> int:
    """See `mmembed.kernels.row_norms`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad >= 0:
        return bad
    dim = table.shape[1]
    if dim == 0:
        out[:] = 0
    else:
        _run(_row_norms, threads, *_flat_read(table), dim, _read(ids), float(norm_type), out)
    return bad


def _renorm(
    line: Any, start: int, stride: int, dim: int, ids: Any, most: float, p: float, threads: int
) -> None:
    for i in numba.prange(ids.size):
        at = start + ids[i] * stride
        row = line[at : at + dim]
        norm = _rounded(_norm(row, p), line)
        if norm > most:
            factor = np.empty(1, line.dtype)
            factor[0] = most / (norm + 1e-7)
            for j in range(dim):
                row[j] = row[j] * factor[0]


def renorm(
    table: FloatArray, ids: RowArray, max_norm: float, norm_type: float, threads: int
) -> int:
    """See `mmembed.kernels.renorm`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    dim = table.shape[1]
    if bad < 0 and dim > 0:
        numbers = float(max_norm), float(norm_type)
        _run(_renorm, threads, *_flat(table), dim, _read(ids), *numbers)
    return bad


# ------------------------------------------------------------------------------- sums of segments


@_jitted
def _share(starts: Any, share: int, shares: int) -> int:
    """Return the first segment of a share, shares being equal in entries plus segments."""
    segments = starts.size - 1
    goal = (starts[segments] + segments) * share // shares
    low, high = 0, segments
    while low < high:
        middle = (low + high) // 2
        if starts[middle] + middle < goal:
            low = middle + 1
        else:
            high = middle
    return low


@_jitted
def _sum_segment(values: Any, order: Any, first: int, last: int, out: Any) -> None:
    if first == last:
        out[:] = 0
        return
    for j in range(out.size):
        out[j] = values[order[first], j]
    for k in range(first + 1, last):
        for j in range(out.size):
            out[j] += values[order[k], j]


def _segment_sum(values: Any, order: Any, starts: Any, out: Any, threads: int) -> None:
    for t in numba.prange(threads):
        for s in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            _sum_segment(values, order, starts[s], starts[s + 1], out[s])


def segment_sum(
    values: FloatArray, order: RowArray, starts: RowArray, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.segment_sum`."""
    if out.size:
        _run(_segment_sum, threads, _read(values), _read(order), _read(starts), out)


def _scatter_add(
    values: Any,
    order: Any,
    starts: Any,
    ids: Any,
    line: Any,
    start: int,
    stride: int,
    threads: int,
) -> None:
    dim = values.shape[1]
    for t in numba.prange(threads):
        for s in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            at = start + ids[s] * stride
            for k in range(starts[s], starts[s + 1]):
                for j in range(dim):
                    line[at + j] += values[order[k], j]


def scatter_add(
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    ids: RowArray,
    out: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.scatter_add`."""
    bad = first_bad_id(ids, out.shape[0], threads)
    if bad < 0 and values.size:
        segments = _read(values), _read(order), _read(starts), _read(ids)
        _run(_scatter_add, threads, *segments, *_flat(out))
    return bad


# --------------------------------------------------------------------------------------- updates


@_jitted
def _apply(rule: int, hyper: Any, weight: Any, first: Any, second: Any, g: Any) -> None:
    """Change one row and its state as the optimizer `rule` does."""
    if rule == SGD:
        for j in range(g.size):
            weight[j] = weight[j] - hyper[0] * g[j]
    elif rule == MOMENTUM:
        for j in range(g.size):
            moved = hyper[1] * first[j] + hyper[2] * g[j]
            first[j] = moved
            step = g[j] + hyper[1] * moved if hyper[3] else moved
            weight[j] = weight[j] - hyper[0] * step
    elif rule == ADAGRAD:
        for j in range(g.size):
            first[j] = first[j] + g[j] * g[j]
            weight[j] = weight[j] - hyper[0] * (g[j] / (np.sqrt(first[j]) + hyper[1]))
    elif rule == ROWWISE_ADAGRAD:
        before = first[0]
        first[0] = _sum_of_squares(g) / g.size  # storing it rounds it to the table's dtype
        first[0] = before + first[0]
        step = hyper[0] / (np.sqrt(first[0]) + hyper[1])
        for j in range(g.size):
            weight[j] = weight[j] - step * g[j]
    else:
        for j in range(g.size):
            first[j] = first[j] + (g[j] - first[j]) * hyper[1]
            second[j] = second[j] + (g[j] * g[j] - second[j]) * hyper[2]
            weight[j] = weight[j] - hyper[0] * (first[j] / (np.sqrt(second[j]) + hyper[3]))


def _update_rows(
    rule: int,
    hyper: Any,
    lines: Any,
    begins: Any,
    strides: Any,
    ids: Any,
    values: Any,
    order: Any,
    starts: Any,
    weight_decay: Any,
    maximize: bool,
    work: Any,
    threads: int,
) -> None:
    """Give each segment's sum to a rule, with the row it belongs to and that row's state."""
    dim = values.shape[1]
    for t in numba.prange(threads):
        for s in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            at0 = begins[0] + ids[s] * strides[0]
            at1 = begins[1] + ids[s] * strides[1]
            at2 = begins[2] + ids[s] * strides[2]
            weight = lines[0][at0 : at0 + dim]
            g = work[t, :dim]
            _sum_segment(values, order, starts[s], starts[s + 1], g)
            if maximize:
                for j in range(dim):
                    g[j] = -g[j]
            if weight_decay[0] != 0:
                for j in range(dim):
                    g[j] = g[j] + weight_decay[0] * weight[j]
            first, second = lines[1][at1 : at1 + dim], lines[2][at2 : at2 + dim]
            _apply(rule, hyper, weight, first, second, g)


def _update(
    rule: int,
    hyper: list[float],
    weight: FloatArray,
    first: FloatArray,
    second: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0 or weight.shape[1] == 0 or ids.size == 0:
        return bad
    real = weight.dtype
    lines, begins, strides = zip(*(_flat(array) for array in (weight, first, second)), strict=True)
    _run(
        _update_rows, threads, rule, np.array(hyper, real), lines, begins, strides,
        _read(ids), _read(values), _read(order), _read(starts),
        np.array([weight_decay], real), bool(maximize), work,
    )  # fmt: skip
    return bad


def update_sgd(
    weight: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    lr: float,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_sgd`."""
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(SGD, [lr], weight, weight, weight, *segments, work, threads)


def update_momentum(
    weight: FloatArray,
    buffer: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_momentum`."""
    hyper = [lr, momentum, 1 - dampening, float(nesterov)]
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(MOMENTUM, hyper, weight, buffer, weight, *segments, work, threads)


def update_adagrad(
    weight: FloatArray,
    total: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_adagrad`."""
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(ADAGRAD, [lr, eps], weight, total, weight, *segments, work, threads)


def update_rowwise_adagrad(
    weight: FloatArray,
    total: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_rowwise_adagrad`."""
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(ROWWISE_ADAGRAD, [lr, eps], weight, total, weight, *segments, work, threads)


def update_adam(
    weight: FloatArray,
    mean: FloatArray,
    square: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    step_size: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_adam`."""
    hyper = [step_size, 1 - beta1, 1 - beta2, eps]
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(ADAM, hyper, weight, mean, square, *segments, work, threads)


# -------------------------------------------------------------------------------- initial values


@_jitted
def _philox(row: Any, block: Any, seed: Any, words: Any) -> None:
    """Philox4x32-10 in 64-bit arithmetic; `reference.philox` says where it comes from."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    x0, x1, x2, x3 = block, np.uint64(0), row & low, row >> half
    key0, key1 = seed & low, seed >> half
    for _ in range(10):
        product0 = x0 * np.uint64(0xD2511F53)
        product1 = x2 * np.uint64(0xCD9E8D57)
        x0 = (product1 >> half) ^ x1 ^ key0
        x1 = product1 & low
        x2 = (product0 >> half) ^ x3 ^ key1
        x3 = product0 & low
        key0 = (key0 + np.uint64(0x9E3779B9)) & low
        key1 = (key1 + np.uint64(0xBB67AE85)) & low
    words[0] = x0
    words[1] = x1
    words[2] = x2
    words[3] = x3


@_jitted
def _polynomial(series: Any, x: float) -> float:
    value = series[-1]
    for k in range(len(series) - 2, -1, -1):
        value = value * x + series[k]
    return value


@_jitted
def _normal_pair(u: float, turn: float, out: Any) -> None:
    """Box-Muller: two independent N(0, 1) from two uniforms in (0, 1)."""
    mantissa, exponent = math.frexp(u)
    if mantissa < SQRT_HALF:
        mantissa = mantissa * 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    logarithm = exponent * LN2 + 2.0 * s * _polynomial(LOG_SERIES, s * s)
    radius = math.sqrt(-2.0 * logarithm)
    quarter = int(4.0 * turn + 0.5)
    x = TWO_PI * (turn - 0.25 * quarter)
    sine = x * _polynomial(SIN_SERIES, x * x)
    cosine = _polynomial(COS_SERIES, x * x)
    if quarter % 2 == 1:
        sine, cosine = cosine, sine
    out[0] = radius * (-cosine if quarter in (1, 2) else cosine)
    out[1] = radius * (-sine if quarter in (2, 3) else sine)


def _initial_rows(
    ids: Any, kind: int, a: float, b: float, seed: Any, out: Any, threads: int
) -> None:
    dim = out.shape[1]
    for i in numba.prange(ids.size):
        words, drawn = np.empty(4, np.uint64), np.empty(4)
        for block in range((dim + 3) // 4):
            _philox(np.uint64(ids[i]), np.uint64(block), seed, words)
            for k in range(4):
                drawn[k] = (float(words[k]) + 0.5) * 2.0**-32
            if kind == 2:
                _normal_pair(drawn[0], drawn[1], drawn[:2])
                _normal_pair(drawn[2], drawn[3], drawn[2:])
            for k in range(min(4, dim - 4 * block)):
                out[i, 4 * block + k] = a + (b if kind == 2 else b - a) * drawn[k]


def initial_rows(
    ids: RowArray, kind: int, a: float, b: float, seed: int, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.initial_rows`."""
    if kind == 0:
        out[...] = a
    elif out.size:
        target = out if out.flags.c_contiguous else np.empty_like(out, order="C")
        _run(_initial_rows, threads, _read(ids), kind, float(a), float(b), np.uint64(seed), target)
        if target is not out:
            out[...] = target
