"""The loops of the Numba body, over flat arrays: table rows are slices of `line`.

Row i of a table begins at start + i * stride in its line. Functions that take `threads` are
compiled twice by `numba_cpu`, serial and parallel; the others are pieces of them.

Must not know how tables become lines, nor the contract's argument lists.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .reference import COS_SERIES, LN2, LOG_SERIES, SIN_SERIES, SQRT_HALF, TWO_PI

RADIX_BITS = 11
BUCKETS = 1 << RADIX_BITS
SGD, MOMENTUM, ADAGRAD, ROWWISE_ADAGRAD, ADAM = range(5)


def _nothing() -> None:
    """Do nothing."""


def _can_cache() -> bool:
    """Return whether there is a folder for compiled code; if not, every process compiles anew."""
    try:
        numba.njit(cache=True)(_nothing)
    except RuntimeError:
        return False
    return True


CACHE = _can_cache()
_jitted = numba.njit(cache=CACHE)


@_jitted
def bad_position(ids: Any, rows: int) -> int:
    """Return the position of the first id outside 0..rows-1, or -1."""
    for i in range(ids.size):
        if ids[i] < 0 or ids[i] >= rows:
            return i
    return -1


@_jitted
def sort_ids(ids: Any, rows: int, order: Any, unique: Any, starts: Any, work: Any) -> int:
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


def gather_rows(line: Any, start: int, stride: int, ids: Any, out: Any, threads: int) -> None:
    """Copy rows of a table into out."""
    dim = out.shape[1]
    for i in numba.prange(ids.size):
        at = start + np.int64(ids[i]) * stride
        for j in range(dim):
            out[i, j] = line[at + j]


def sum_bags(
    line: Any,
    start: int,
    stride: int,
    ids: Any,
    starts: Any,
    weights: Any,
    padding: int,
    mean: bool,
    out: Any,
    threads: int,
) -> None:
    """Set out[b] to the sum or mean of the rows of bag b."""
    dim = out.shape[1]
    for t in numba.prange(threads):
        for b in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            count = 0
            for i in range(starts[b], starts[b + 1]):
                if ids[i] == padding:
                    continue
                at = start + np.int64(ids[i]) * stride
                for j in range(dim):
                    x = weights[i] * line[at + j] if weights.size else line[at + j]
                    out[b, j] = out[b, j] + x if count else x
                count += 1
            if count == 0:
                out[b] = 0
            elif mean:
                size = np.empty(1, line.dtype)
                size[0] = count
                for j in range(dim):
                    out[b, j] = out[b, j] / size[0]


def max_bags(
    line: Any,
    start: int,
    stride: int,
    ids: Any,
    starts: Any,
    padding: int,
    out: Any,
    where: Any,
    threads: int,
) -> None:
    """Set out[b] to the largest of each column in bag b, and where[b] to its position."""
    dim = out.shape[1]
    for t in numba.prange(threads):
        for b in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            out[b] = 0
            where[b] = -1
            for i in range(starts[b], starts[b + 1]):
                if ids[i] == padding:
                    continue
                at = start + np.int64(ids[i]) * stride
                for j in range(dim):
                    if where[b, j] < 0 or line[at + j] > out[b, j]:
                        out[b, j] = line[at + j]
                        where[b, j] = i


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


def norms_of_rows(
    line: Any, start: int, stride: int, dim: int, ids: Any, p: float, out: Any, threads: int
) -> None:
    """Set out to norms of rows."""
    for i in numba.prange(ids.size):
        at = start + ids[i] * stride
        out[i] = _rounded(_norm(line[at : at + dim], p), line)


def scale_to_norm(
    line: Any, start: int, stride: int, dim: int, ids: Any, most: float, p: float, threads: int
) -> None:
    """Scale rows whose norm is above `most` down to it."""
    for i in numba.prange(ids.size):
        at = start + ids[i] * stride
        row = line[at : at + dim]
        norm = _rounded(_norm(row, p), line)
        if norm > most:
            factor = np.empty(1, line.dtype)
            factor[0] = most / (norm + 1e-7)
            for j in range(dim):
                row[j] = row[j] * factor[0]


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


def sum_segments(values: Any, order: Any, starts: Any, out: Any, threads: int) -> None:
    """Set out[s] to the sum of segment s."""
    for t in numba.prange(threads):
        for s in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            _sum_segment(values, order, starts[s], starts[s + 1], out[s])


def add_segments(
    values: Any,
    order: Any,
    starts: Any,
    ids: Any,
    line: Any,
    start: int,
    stride: int,
    threads: int,
) -> None:
    """Add the entries of each segment to its row, one by one."""
    dim = values.shape[1]
    for t in numba.prange(threads):
        for s in range(_share(starts, t, threads), _share(starts, t + 1, threads)):
            at = start + ids[s] * stride
            for k in range(starts[s], starts[s + 1]):
                for j in range(dim):
                    line[at + j] += values[order[k], j]


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


def update_segments(
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


def draw_rows(ids: Any, kind: int, a: float, b: float, seed: Any, out: Any, threads: int) -> None:
    """Set out to initial values, uniform (kind 1) or normal (kind 2)."""
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
