"""Kernels for what goes back through bags: to their rows, with a weight per entry, and to weights.

The gradient of a bag is there once, for all of its entries: an entry names its bag. Must not know
modules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .copies import NONE, team_of
from .running import Kernel
from .segments import number_of, team_mask, working
from .target import device, i64, load, mul, not_unrolled, store, sync_warp
from .vectors import filled, lifted


@device
def _weighted_plus(acc, x, weight):
    return acc + mul(x, weight)


def _weighted_sum(kind: str, width: int) -> Callable[..., Any]:
    """Return the function that sums the weighted gradients of a segment's entries, in order."""
    real = number_of(kind)
    get, add = load(kind, width), lifted(_weighted_plus, width, 2, 1)
    nothing, zeros = filled(width, real(-0.0)), filled(width, real(0.0))

    @device
    def total(p_grad, p_bag, p_weights, p_order, first, last, dim, column):
        if first >= last:
            return zeros
        acc = nothing
        k = first
        while k + 3 < last:
            not_unrolled()
            i0, i1 = i64(p_order[k]), i64(p_order[k + 1])
            i2, i3 = i64(p_order[k + 2]), i64(p_order[k + 3])
            g0 = get(p_grad, i64(p_bag[i0]) * dim + column)
            g1 = get(p_grad, i64(p_bag[i1]) * dim + column)
            g2 = get(p_grad, i64(p_bag[i2]) * dim + column)
            g3 = get(p_grad, i64(p_bag[i3]) * dim + column)
            w0, w1, w2, w3 = p_weights[i0], p_weights[i1], p_weights[i2], p_weights[i3]
            acc = add(add(add(add(acc, g0, w0), g1, w1), g2, w2), g3, w3)
            k += 4
        while k < last:
            not_unrolled()
            i = i64(p_order[k])
            acc = add(acc, get(p_grad, i64(p_bag[i]) * dim + column), p_weights[i])
            k += 1
        return acc

    return total


@functools.cache
def weighted_segment_sum(grad: str, out: str, width: int, order: str) -> Kernel:
    """out[s] = the sum of weights[i] * grad[bag[i]] over the entries i of segment s, in order."""
    total, put = _weighted_sum(grad, width), store(out, width)
    real = working(grad)

    def body(
        p_grad,  # IN   (bags, dim)
        p_bag,  # IN   (n,): the bag of each entry
        p_weights,  # IN   (n,), in the dtype of arithmetic
        p_order,  # IN   (n,)
        p_starts,  # IN   (segments + 1,)
        p_out,  # OUT  (segments, dim)
        segments,
        dim,
        lanes,
    ):
        s, teams, lane = team_of(lanes)
        while s < segments:
            not_unrolled()
            first, last = i64(p_starts[s]), i64(p_starts[s + 1])
            c = lane * width
            while c < dim:
                not_unrolled()
                sums = total(p_grad, p_bag, p_weights, p_order, first, last, dim, c)
                put(p_out, s * dim + c, sums)
                c += lanes * width
            s += teams

    rows = [f"*{grad}", f"*{order}", f"*{real}", f"*{order}", f"*{order}", f"*{out}"]
    return Kernel(body, [*rows, "int64", "int64", "int64"], 3 if width == 8 else 4)


@device
def _product_plus(acc, x, y):
    return acc + mul(x, y)


@functools.cache
def weight_gradients(table: str, grad: str, width: int, index: str) -> Kernel:
    """out[i] = the sum over columns of table[ids[i]] * grad[bag[i]]; 0 where ids[i] is padding.

    In 8 partial sums, column j to number j % 8, added from 0 to 7; 8 / width lanes share an entry.
    """
    real = number_of(table)
    get_row, get_grad = load(table, width), load(grad, width)
    add, put = lifted(_product_plus, width, 3), store(working(table), width)
    nothing = filled(width, real(0.0))

    def body(
        p_table,  # IN     rows, `stride` elements apart
        p_ids,  # IN     (n,)
        p_bag,  # IN     (n,): the bag of each entry
        p_grad,  # IN     (bags, dim)
        p_out,  # OUT    (n,), in the dtype of arithmetic
        p_bad,  # IN     (1,); nothing is done unless it holds NONE
        p_partial,  # INOUT  (teams, 8)
        n,
        dim,
        stride,
        padding,
    ):
        lanes = 8 // width
        i, teams, lane = team_of(lanes)
        team = i
        if p_bad[0] != NONE:
            return
        mask = team_mask(lanes)
        while i < n:
            not_unrolled()
            row, upstream = i64(p_ids[i]), i64(p_bag[i]) * dim
            partials = nothing
            column = lane * width
            while column < dim:
                not_unrolled()
                x = get_row(p_table, row * stride + column)
                partials = add(partials, x, get_grad(p_grad, upstream + column))
                column += 8
            put(p_partial, team * 8 + lane * width, partials)
            sync_warp(mask)
            if lane == 0:
                total = p_partial[team * 8]
                part = 1
                while part < 8:
                    not_unrolled()
                    total += p_partial[team * 8 + part]
                    part += 1
                p_out[i] = real(0.0) if row == padding else total
            sync_warp(mask)
            i += teams

    of = working(table)
    rows = [f"*{table}", f"*{index}", f"*{index}", f"*{grad}", f"*{of}", "*int64", f"*{of}"]
    return Kernel(body, [*rows, "int64", "int64", "int64", "int64"])
