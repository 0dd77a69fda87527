"""Kernels over bags of rows: sum, mean and largest, without a copy of the rows between.

Bag b is ids[starts[b]:starts[b + 1]]; `lanes` threads share it, each with some columns. Entries
are added in the order of the bag, eight rows on their way at a time. Must not know modules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .copies import NONE, team_of
from .running import Kernel
from .segments import number_of, working
from .target import device, i64, load, mul, not_unrolled, store
from .vectors import filled, lifted


@device
def _weighted_plus(acc, x, weight):
    return acc + mul(weight, x)


@device
def _plus(acc, x):
    return acc + x


@device
def _divided(x, count):
    return x / count


def _adding(table: str, width: int, weighted: bool) -> Callable[..., Any]:
    """Return the function that adds row k of a bag; padding adds -0, which changes nothing."""
    real = number_of(table)
    add, add_weighted = lifted(_plus, width, 2), lifted(_weighted_plus, width, 2, 1)
    nothing = filled(width, real(-0.0))

    @device
    def plain(acc, row, k, padded, p_weights):
        return add(acc, nothing if padded else row)

    @device
    def with_weights(acc, row, k, padded, p_weights):
        if padded:
            return acc
        return add_weighted(acc, row, real(p_weights[k]))

    return with_weights if weighted else plain


def _adding_some(table: str, width: int, weighted: bool) -> tuple[Callable[..., Any], int]:
    """Return the function that adds several rows from position k on, and how many.

    Their loads are all under way before the first of them is added: 8, or 4 of rows of 16 bits,
    which take twice the registers once they are apart.
    """
    add, get = _adding(table, width, weighted), load(table, width)

    @device
    def four(acc, p_table, p_ids, p_weights, k, stride, column, padding):
        i0, i1 = i64(p_ids[k]), i64(p_ids[k + 1])
        i2, i3 = i64(p_ids[k + 2]), i64(p_ids[k + 3])
        r0 = get(p_table, i0 * stride + column)
        r1 = get(p_table, i1 * stride + column)
        r2 = get(p_table, i2 * stride + column)
        r3 = get(p_table, i3 * stride + column)
        acc = add(acc, r0, k, i0 == padding, p_weights)
        acc = add(acc, r1, k + 1, i1 == padding, p_weights)
        acc = add(acc, r2, k + 2, i2 == padding, p_weights)
        acc = add(acc, r3, k + 3, i3 == padding, p_weights)
        padded = i64(i0 == padding) + i64(i1 == padding) + i64(i2 == padding) + i64(i3 == padding)
        return acc, padded

    @device
    def eight(acc, p_table, p_ids, p_weights, k, stride, column, padding):
        i0, i1 = i64(p_ids[k]), i64(p_ids[k + 1])
        i2, i3 = i64(p_ids[k + 2]), i64(p_ids[k + 3])
        i4, i5 = i64(p_ids[k + 4]), i64(p_ids[k + 5])
        i6, i7 = i64(p_ids[k + 6]), i64(p_ids[k + 7])
        r0 = get(p_table, i0 * stride + column)
        r1 = get(p_table, i1 * stride + column)
        r2 = get(p_table, i2 * stride + column)
        r3 = get(p_table, i3 * stride + column)
        r4 = get(p_table, i4 * stride + column)
        r5 = get(p_table, i5 * stride + column)
        r6 = get(p_table, i6 * stride + column)
        r7 = get(p_table, i7 * stride + column)
        acc = add(acc, r0, k, i0 == padding, p_weights)
        acc = add(acc, r1, k + 1, i1 == padding, p_weights)
        acc = add(acc, r2, k + 2, i2 == padding, p_weights)
        acc = add(acc, r3, k + 3, i3 == padding, p_weights)
        acc = add(acc, r4, k + 4, i4 == padding, p_weights)
        acc = add(acc, r5, k + 5, i5 == padding, p_weights)
        acc = add(acc, r6, k + 6, i6 == padding, p_weights)
        acc = add(acc, r7, k + 7, i7 == padding, p_weights)
        padded = i64(i0 == padding) + i64(i1 == padding) + i64(i2 == padding) + i64(i3 == padding)
        padded += i64(i4 == padding) + i64(i5 == padding) + i64(i6 == padding) + i64(i7 == padding)
        return acc, padded

    return (four, 4) if width == 8 else (eight, 8)


@functools.cache
def sum_bags(table: str, out: str, width: int, index: str, weighted: bool) -> Kernel:
    """out[b] = the sum of weights[k] * table[ids[k]] over the bag, or its mean."""
    real, working_dtype = number_of(table), working(table)
    add, get = _adding(table, width, weighted), load(table, width)
    add_some, some = _adding_some(table, width, weighted)
    put, divided = store(out, width), lifted(_divided, width, 1, 1)
    nothing, zeros = filled(width, real(-0.0)), filled(width, real(0.0))

    def body(
        p_table,  # IN   rows, `stride` elements apart
        p_ids,  # IN   (n,)
        p_starts,  # IN   (bags + 1,)
        p_weights,  # IN   (n,), if they are used
        p_out,  # OUT  (bags, dim)
        p_bad,  # IN   (1,); nothing is done unless it holds NONE
        bags,
        dim,
        stride,
        padding,
        mean,
        lanes,
    ):
        bag, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while bag < bags:
            not_unrolled()
            first, last = p_starts[bag], p_starts[bag + 1]
            column = lane * width
            while column < dim:
                not_unrolled()
                acc, count, k = nothing, last - first, first
                while k + some <= last:
                    not_unrolled()
                    acc, padded = add_some(
                        acc, p_table, p_ids, p_weights, k, stride, column, padding
                    )
                    count -= padded
                    k += some
                while k < last:
                    not_unrolled()
                    id = i64(p_ids[k])
                    row = get(p_table, id * stride + column)
                    acc = add(acc, row, k, id == padding, p_weights)
                    count -= i64(id == padding)
                    k += 1
                if count == 0:
                    acc = zeros
                elif mean != 0:
                    acc = divided(acc, real(count))
                put(p_out, bag * dim + column, acc)
                column += lanes * width
            bag += teams

    rows = [f"*{table}", f"*{index}", "*int64", f"*{working_dtype}", f"*{out}", "*int64"]
    return Kernel(body, [*rows, *["int64"] * 6])


@device
def _larger(best, where, x, k):
    if where < 0 or x > best:
        return x, k
    return best, where


@functools.cache
def max_bags(table: str, out: str, width: int, index: str) -> Kernel:
    """out[b] = the largest of each column in the bag; where[b] = its position, or -1."""
    real = number_of(table)
    get, put = load(table, width), store(out, width)
    larger = lifted(_larger, width, 3, 1, results=2)
    zeros, nowhere = filled(width, real(0.0)), filled(width, i64(-1))

    def body(p_table, p_ids, p_starts, p_out, p_where, p_bad, bags, dim, stride, padding, lanes):
        bag, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while bag < bags:
            not_unrolled()
            first, last = p_starts[bag], p_starts[bag + 1]
            column = lane * width
            while column < dim:
                not_unrolled()
                best, where = zeros, nowhere
                k = first
                while k + 3 < last:
                    not_unrolled()
                    i0, i1 = i64(p_ids[k]), i64(p_ids[k + 1])
                    i2, i3 = i64(p_ids[k + 2]), i64(p_ids[k + 3])
                    r0 = get(p_table, i0 * stride + column)
                    r1 = get(p_table, i1 * stride + column)
                    r2 = get(p_table, i2 * stride + column)
                    r3 = get(p_table, i3 * stride + column)
                    if i0 != padding:
                        best, where = larger(best, where, r0, k)
                    if i1 != padding:
                        best, where = larger(best, where, r1, k + 1)
                    if i2 != padding:
                        best, where = larger(best, where, r2, k + 2)
                    if i3 != padding:
                        best, where = larger(best, where, r3, k + 3)
                    k += 4
                while k < last:
                    not_unrolled()
                    id = i64(p_ids[k])
                    if id != padding:
                        best, where = larger(best, where, get(p_table, id * stride + column), k)
                    k += 1
                put(p_out, bag * dim + column, best)
                for j in range(width):
                    p_where[bag * dim + column + j] = where[j]
                column += lanes * width
            bag += teams

    rows = [f"*{table}", f"*{index}", "*int64", f"*{out}", "*int64", "*int64"]
    return Kernel(body, [*rows, *["int64"] * 5], 3 if width == 8 else 4)
