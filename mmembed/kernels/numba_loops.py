"""The loops of the Numba body over rows and segments.

Tables come as they are, with whatever row stride they have; what a loop works on is the place of a
row in its table, in elements. Functions that take `threads` are compiled by `numba_compile`, serial
and parallel; the others are pieces of them.

Must not know the contract's argument lists, nor how arrays reach compiled code.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .numba_compile import jitted
from .numba_plan import bad_position
from .numba_vectors import (
    BYTES,
    LANES,
    STREAMS,
    copy,
    fence,
    filled,
    in_float64,
    in_order,
    item,
    load,
    load_lanes,
    load_some,
    load_some_lanes,
    numbered,
    prefetch,
    row,
    store,
    store_past,
    store_some,
    where_larger,
    width,
    zeros,
)

AHEAD = 8  # rows asked for before their turn, at least, so that several are on their way
AHEAD_BYTES = 4096  # of them, if rows are small
STREAM_BYTES = 1 << 25  # of output from which stores past the cache were faster


@jitted
def row_stride(table: Any) -> int:
    """Return the distance of rows, in elements."""
    return table.strides[0] // table.itemsize


@jitted
def ask_for(table: Any, at: int, dim: int) -> None:
    """Start to bring a row into the cache."""
    for j in range(0, dim, width(table)):
        prefetch(table, at + j)


@jitted
def rows_ahead(table: Any, dim: int) -> int:
    """Return how many rows to ask for before their turn."""
    return max(AHEAD, AHEAD_BYTES // max(dim * table.itemsize, 1))


@jitted
def _copy_rows(table: Any, ids: Any, out: Any, past: bool, first: int, last: int) -> None:
    """Copy the rows of ids[first:last]; `past` the cache."""
    stride, dim, step = row_stride(table), table.shape[1], width(table)
    ahead = rows_ahead(table, dim)
    for i in range(first, last):
        if i + ahead < last:
            ask_for(table, item(ids, i + ahead) * stride, dim)
        at = item(ids, i) * stride
        if past:
            for j in range(0, dim, step):
                store_past(out, i * dim + j, load(table, at + j))
        elif dim % step:
            copy(table, at, out, i * dim, dim)
        else:
            for j in range(0, dim, step):
                store(out, i * dim + j, load(table, at + j))
    if past:
        fence()


def gather_rows(table: Any, ids: Any, out: Any, threads: int) -> int:
    """Copy rows of a table into out."""
    bad = bad_position(ids, table.shape[0])
    if bad >= 0:
        return bad
    n, dim = ids.size, table.shape[1]
    whole = dim % width(table) == 0 and out.ctypes.data % BYTES == 0
    past = STREAMS and whole and n * dim * table.itemsize >= STREAM_BYTES
    for t in numba.prange(threads):
        _copy_rows(table, ids, out, past, n * t // threads, n * (t + 1) // threads)
    return -1


# ------------------------------------------------------------------------------------ sums of rows


@jitted
def _add_wide(
    table: Any, begin: int, stride: int, places: Any, first: int, last: int, padding: int,
    factors: Any, keep: bool, out: Any, to: int,
) -> None:  # fmt: skip
    """Add up four vectors of the rows at places[first:last], in registers."""
    step = width(table)
    a = filled(table, -0.0)  # -0 + x is x, whatever x is
    b, c, d = a, a, a
    if keep:
        a, b = load(out, to), load(out, to + step)
        c, d = load(out, to + 2 * step), load(out, to + 3 * step)
    for i in range(first, last):
        place = item(places, i)
        if place != padding:
            at = begin + place * stride
            w, x = load(table, at), load(table, at + step)
            y, z = load(table, at + 2 * step), load(table, at + 3 * step)
            if factors is not None:
                factor = filled(table, item(factors, i))
                w, x, y, z = factor * w, factor * x, factor * y, factor * z
            a, b, c, d = a + w, b + x, c + y, d + z
    store(out, to, a)
    store(out, to + step, b)
    store(out, to + 2 * step, c)
    store(out, to + 3 * step, d)


@jitted
def _add_narrow(
    table: Any, begin: int, stride: int, places: Any, first: int, last: int, padding: int,
    factors: Any, keep: bool, out: Any, to: int, count: int,
) -> None:  # fmt: skip
    """`_add_wide` of `count` columns, at most as many as are in a vector."""
    total = load_some(out, to, count) if keep else filled(table, -0.0)
    for i in range(first, last):
        place = item(places, i)
        if place != padding:
            x = load_some(table, begin + place * stride, count)
            total = total + (x if factors is None else filled(table, item(factors, i)) * x)
    store_some(out, to, count, total)


@jitted
def add_rows(
    table: Any, stride: int, places: Any, first: int, last: int, padding: int, factors: Any,
    keep: bool, out: Any, to: int, dim: int,
) -> None:  # fmt: skip
    """Set out, from `to` on, to the sum of rows at places[first:last] other than `padding`.

    The sum starts from what is there (`keep`) or from its first row; of none it is -0.
    """
    step = width(table)
    column = 0
    while column + 4 * step <= dim:
        _add_wide(
            table, column, stride, places, first, last, padding, factors, keep, out, to + column
        )
        column += 4 * step
    while column < dim:
        _add_narrow(
            table, column, stride, places, first, last, padding, factors, keep, out, to + column,
            min(step, dim - column),
        )  # fmt: skip
        column += step


@jitted
def _ask_for_bag(table: Any, stride: int, dim: int, ids: Any, first: int, last: int) -> None:
    """Ask for the rows that follow a bag, as many as it has."""
    for i in range(last, min(last + max(last - first, AHEAD), ids.size)):
        ask_for(table, item(ids, i) * stride, dim)


def sum_bags(
    table: Any, ids: Any, starts: Any, weights: Any, padding: int, mean: bool, out: Any,
    threads: int,
) -> int:  # fmt: skip
    """Set out[b] to the sum or mean of the rows of bag b."""
    bad = bad_position(ids, table.shape[0])
    if bad >= 0:
        return bad
    stride, dim = row_stride(table), table.shape[1]
    for t in numba.prange(threads):
        for b in range(share(starts, t, threads), share(starts, t + 1, threads)):
            first, last = item(starts, b), item(starts, b + 1)
            _ask_for_bag(table, stride, dim, ids, first, last)
            count = last - first
            if padding >= 0:
                for i in range(first, last):
                    count -= item(ids, i) == padding
            if count == 0:
                out[b] = 0
            elif weights.size:
                add_rows(
                    table, stride, ids, first, last, padding, weights, False, out, b * dim, dim
                )
            else:
                add_rows(table, stride, ids, first, last, padding, None, False, out, b * dim, dim)
            if mean and count:
                size = table.dtype.type(count)
                for j in range(dim):
                    out[b, j] = out[b, j] / size
    return -1


@jitted
def _keep_largest(
    table: Any, begin: int, stride: int, ids: Any, first: int, last: int, padding: int,
    out: Any, where: Any, to: int, count: int,
) -> None:  # fmt: skip
    """Set up to a vector of columns to the largest in a bag, whose first row counts."""
    best = load_some(table, begin + item(ids, first) * stride, count)
    at = numbered(best, first)
    for i in range(first + 1, last):
        place = item(ids, i)
        if place != padding:
            x = load_some(table, begin + place * stride, count)
            at = where_larger(x, best, numbered(best, i), at)
            best = where_larger(x, best, x, best)
    store_some(out, to, count, best)
    store_some(where, to, count, at)


def max_bags(
    table: Any, ids: Any, starts: Any, padding: int, out: Any, where: Any, threads: int
) -> int:
    """Set out[b] to the largest of each column in bag b, and where[b] to its position."""
    bad = bad_position(ids, table.shape[0])
    if bad >= 0:
        return bad
    stride, dim, step = row_stride(table), table.shape[1], width(table)
    for t in numba.prange(threads):
        for b in range(share(starts, t, threads), share(starts, t + 1, threads)):
            first, last = item(starts, b), item(starts, b + 1)
            _ask_for_bag(table, stride, dim, ids, first, last)
            while first < last and item(ids, first) == padding:
                first += 1
            if first == last:
                out[b] = 0
                where[b] = -1
            else:
                for j in range(0, dim, step):
                    _keep_largest(
                        table, j, stride, ids, first, last, padding, out, where, b * dim + j,
                        min(step, dim - j),
                    )  # fmt: skip
    return -1


@jitted
def share(starts: Any, number: int, shares: int) -> int:
    """Return the first segment of a share, shares being equal in entries plus segments."""
    segments = starts.size - 1
    goal = (item(starts, segments) + segments) * number // shares
    low, high = 0, segments
    while low < high:
        middle = (low + high) // 2
        if item(starts, middle) + middle < goal:
            low = middle + 1
        else:
            high = middle
    return low


def sum_segments(values: Any, order: Any, starts: Any, out: Any, threads: int) -> None:
    """Set out[s] to the sum of segment s."""
    dim, n = out.shape[1], order.size
    ahead = rows_ahead(values, dim)
    for t in numba.prange(threads):
        for s in range(share(starts, t, threads), share(starts, t + 1, threads)):
            first, last = item(starts, s), item(starts, s + 1)
            for k in range(min(first + ahead, n), min(last + ahead, n)):
                ask_for(values, item(order, k) * dim, dim)
            if first == last:
                out[s] = 0
            else:
                add_rows(values, dim, order, first, last, -1, None, False, out, s * dim, dim)


def add_segments(values: Any, order: Any, starts: Any, ids: Any, out: Any, threads: int) -> int:
    """Add the entries of each segment to its row, one by one."""
    bad = bad_position(ids, out.shape[0])
    if bad >= 0:
        return bad
    stride, dim, n = row_stride(out), out.shape[1], order.size
    ahead = rows_ahead(values, dim)
    for t in numba.prange(threads):
        end = share(starts, t + 1, threads)
        for s in range(share(starts, t, threads), end):
            first, last = item(starts, s), item(starts, s + 1)
            for k in range(min(first + ahead, n), min(last + ahead, n)):
                ask_for(values, item(order, k) * dim, dim)
            if s + ahead < end:
                ask_for(out, item(ids, s + ahead) * stride, dim)
            at = item(ids, s) * stride
            add_rows(values, dim, order, first, last, -1, None, True, out, at, dim)
    return -1


# ------------------------------------------------------------------------------------------- norms


@jitted
def sum_of_squares(table: Any, at: int, dim: int) -> float:
    """Return the sum of the squares of `dim` elements, in the order of the contract."""
    total = zeros()
    whole = dim - dim % LANES
    for j in range(0, whole, LANES):
        x = in_float64(load_lanes(table, at + j))
        total = total + x * x
    if whole < dim:
        x = in_float64(load_some_lanes(table, at + whole, dim - whole))
        total = total + x * x
    return in_order(total)


@jitted
def _norm(table: Any, at: int, dim: int, p: float) -> float:
    """Return the norm of a row, rounded to its own dtype unless that would overflow."""
    elements = row(table, at, dim)
    norm = 0.0
    if p == 2:
        norm = math.sqrt(sum_of_squares(table, at, dim))
    elif math.isinf(p):
        norm = abs(np.float64(elements[0]))
        for j in range(1, dim):
            size = abs(np.float64(elements[j]))
            if size != size or (size > norm if p > 0 else size < norm):  # a NaN stays
                norm = size
    elif p == 0:
        for j in range(dim):
            norm += elements[j] != 0
    elif p == 1:
        for j in range(dim):
            norm += abs(np.float64(elements[j]))
    else:
        for j in range(dim):
            norm += math.pow(abs(np.float64(elements[j])), p)
        norm = math.pow(norm, 1.0 / p)
    rounded = np.float64(table.dtype.type(norm))
    return norm if math.isinf(rounded) else rounded


def norms_of_rows(table: Any, ids: Any, p: float, out: Any, threads: int) -> int:
    """Set out to norms of rows."""
    bad = bad_position(ids, table.shape[0])
    if bad >= 0:
        return bad
    stride, n, dim = row_stride(table), ids.size, table.shape[1]
    ahead = rows_ahead(table, dim)
    for t in numba.prange(threads):
        for i in range(n * t // threads, n * (t + 1) // threads):
            if i + ahead < n:
                ask_for(table, item(ids, i + ahead) * stride, dim)
            out[i] = _norm(table, item(ids, i) * stride, dim, p) if dim else 0.0
    return -1


def scale_to_norm(table: Any, ids: Any, most: float, p: float, threads: int) -> int:
    """Scale rows whose norm is above `most` down to it."""
    bad = bad_position(ids, table.shape[0])
    if bad >= 0:
        return bad
    stride, n, dim = row_stride(table), ids.size, table.shape[1]
    ahead = rows_ahead(table, dim)
    for t in numba.prange(threads):
        for i in range(n * t // threads, n * (t + 1) // threads):
            if i + ahead < n:
                ask_for(table, item(ids, i + ahead) * stride, dim)
            norm = _norm(table, item(ids, i) * stride, dim, p)
            if norm > most:
                factor = table.dtype.type(most / (norm + 1e-7))
                elements = row(table, item(ids, i) * stride, dim)
                for j in range(dim):
                    elements[j] = elements[j] * factor
    return -1
