"""Kernels over segments: sums of rows in the order of a batch, alone or with an optimizer's rule.

Segment s is order[starts[s]:starts[s + 1]]; `lanes` threads share it, each with some columns, so
that the sum has the order of the batch, whatever the number of threads, and the bits of the CPU.
Must not know what the rows mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .copies import NONE, team_of
from .running import Kernel
from .target import (
    add_to,
    device,
    f32,
    f64,
    i64,
    load,
    mul,
    not_unrolled,
    store,
    sync_warp,
    thread_index,
)
from .vectors import filled, lifted


def working(kind: str) -> str:
    """Return the dtype of arithmetic with elements of a kind."""
    return "float64" if kind == "float64" else "float32"


def number_of(kind: str) -> Any:
    """Return the function that makes a number of the dtype of arithmetic."""
    return f64 if kind == "float64" else f32


@device
def _plus(a, b):
    return a + b


@functools.cache
def summing(kind: str, width: int) -> Callable[..., Any]:
    """Return the function that adds the entries order[first:last] to `acc`, in that order."""
    get, add = load(kind, width), lifted(_plus, width, 2)

    @device
    def total(acc, p_values, p_order, first, last, stride, column):
        k = first
        while k + 3 < last:
            not_unrolled()
            a = get(p_values, i64(p_order[k]) * stride + column)
            b = get(p_values, i64(p_order[k + 1]) * stride + column)
            c = get(p_values, i64(p_order[k + 2]) * stride + column)
            d = get(p_values, i64(p_order[k + 3]) * stride + column)
            acc = add(add(add(add(acc, a), b), c), d)
            k += 4
        while k < last:
            not_unrolled()
            acc = add(acc, get(p_values, i64(p_order[k]) * stride + column))
            k += 1
        return acc

    return total


@functools.cache
def gradient_of(values: str, width: int) -> Callable[..., Any]:
    """Return the function for some columns of a segment's sum; 0 of an empty one."""
    total = summing(values, width)
    real = number_of(values)
    # -0 + x is x for every x, so that a sum starts with its first entry.
    nothing, zeros = filled(width, real(-0.0)), filled(width, real(0.0))

    @device
    def gradient(p_values, p_order, first, last, stride, column):
        if first >= last:
            return zeros
        return total(nothing, p_values, p_order, first, last, stride, column)

    return gradient


@functools.cache
def segment_sum(values: str, out: str, width: int, order: str) -> Kernel:
    """out[s] = the sum of segment s: the coalesced gradient."""
    gradient, put = gradient_of(values, width), store(out, width)

    def body(
        p_values,  # IN   rows of `dim` elements
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
                put(p_out, s * dim + c, gradient(p_values, p_order, first, last, dim, c))
                c += lanes * width
            s += teams

    rows = [f"*{values}", f"*{order}", f"*{order}", f"*{out}"]
    return Kernel(body, [*rows, "int64", "int64", "int64"])


@functools.cache
def scatter_add(kind: str, width: int, order: str) -> Kernel:
    """Add the entries of segment s to out[ids[s]], one after the other."""
    total, get, put = summing(kind, width), load(kind, width), store(kind, width)

    def body(
        p_values,  # IN     rows of `dim` elements
        p_order,  # IN     (n,)
        p_starts,  # IN     (segments + 1,)
        p_ids,  # IN     (segments,), distinct
        p_out,  # INOUT  rows, `stride` elements apart
        p_bad,  # IN     (1,); nothing is done unless it holds NONE
        segments,
        dim,
        stride,
        lanes,
    ):
        s, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while s < segments:
            not_unrolled()
            first, last = i64(p_starts[s]), i64(p_starts[s + 1])
            row = i64(p_ids[s]) * stride
            c = lane * width
            while c < dim:
                not_unrolled()
                acc = get(p_out, row + c)
                put(p_out, row + c, total(acc, p_values, p_order, first, last, dim, c))
                c += lanes * width
            s += teams

    rows = [f"*{kind}", f"*{order}", f"*{order}", f"*{order}", f"*{kind}", "*int64"]
    return Kernel(body, [*rows, "int64", "int64", "int64", "int64"])


@functools.cache
def scatter_add_atomic(kind: str, width: int, index: str, vectors: bool) -> Kernel:
    """Add values[i] to out[ids[i]], in no particular order: no plan, and no two runs alike."""
    get, add = load(kind, width), add_to(kind, width, vectors)

    def body(p_values, p_ids, p_out, p_bad, n, dim, stride, lanes):
        i, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while i < n:
            not_unrolled()
            row = i64(p_ids[i]) * stride
            c = lane * width
            while c < dim:
                not_unrolled()
                add(p_out, row + c, get(p_values, i * dim + c))
                c += lanes * width
            i += teams

    rows = [f"*{kind}", f"*{index}", f"*{kind}", "*int64"]
    return Kernel(body, [*rows, "int64", "int64", "int64", "int64"])


@functools.cache
def _directed(kind: str, width: int) -> Callable[..., Any]:
    """Return the function (g, w, sign, decay): g as optimizers take it."""
    zero = number_of(kind)(0.0)

    @device
    def one(g, w, sign, decay):
        g = -g if sign < zero else g
        return g + mul(decay, w) if decay != zero else g

    return lifted(one, width, 2, 2)


@functools.cache
def update(
    rule: Callable[..., Any], states: int, weight: str, values: str, width: int, order: str
) -> Kernel:
    """Sum each segment and change its row and `states` rows of state (0, 1 or 2) by the rule.

    A state that the rule does not have is not touched; give the weight in its place.
    """
    real = working(weight)
    gradient, directed = gradient_of(values, width), _directed(weight, width)
    apply = lifted(rule, width, 4, 4, results=3)
    get_row, put_row = load(weight, width), store(weight, width)
    get, put = load(real, width), store(real, width)
    nothing = filled(width, number_of(weight)(0.0))

    def body(
        p_weight,  # INOUT  rows, `stride` elements apart
        p_s,  # INOUT  state, rows `stride_s` apart
        p_t,  # INOUT  state, rows `stride_t` apart
        p_ids,  # IN     (segments,), distinct
        p_values,  # IN     rows of `dim` elements
        p_order,  # IN     (n,)
        p_starts,  # IN     (segments + 1,)
        p_bad,  # IN     (1,); nothing is done unless it holds NONE
        segments,
        dim,
        stride,
        stride_s,
        stride_t,
        lanes,
        a,
        b,
        c,
        d,
        decay,
        sign,
    ):
        segment, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while segment < segments:
            not_unrolled()
            first, last = i64(p_starts[segment]), i64(p_starts[segment + 1])
            row = i64(p_ids[segment])
            column = lane * width
            while column < dim:
                not_unrolled()
                at, at_s, at_t = row * stride + column, row * stride_s + column, 0
                w = get_row(p_weight, at)
                s, t = nothing, nothing
                if states > 0:
                    s = get(p_s, at_s)
                if states > 1:
                    at_t = row * stride_t + column
                    t = get(p_t, at_t)
                g = gradient(p_values, p_order, first, last, dim, column)
                w, s, t = apply(w, directed(g, w, sign, decay), s, t, a, b, c, d)
                put_row(p_weight, at, w)
                if states > 0:
                    put(p_s, at_s, s)
                if states > 1:
                    put(p_t, at_t, t)
                column += lanes * width
            segment += teams

    rows = [f"*{weight}", f"*{real}", f"*{real}", f"*{order}", f"*{values}", f"*{order}"]
    sizes = ["int64"] * 6
    return Kernel(body, [*rows, f"*{order}", "*int64", *sizes, *[real] * 6], 3 if width == 8 else 4)


@device
def team_mask(lanes):
    """Return the mask of the lanes of this thread's team."""
    at = thread_index() & 31
    return ((i64(1) << lanes) - 1) << (at - (at & (lanes - 1)))


@device
def _squares(p_row, first, dim, j):
    """Return the sum of the squares of the elements j, j + 8, … of a row, in float64."""
    total = f64(0.0)
    while j < dim:
        not_unrolled()
        x = f64(p_row[first + j])
        total += mul(x, x)
        j += 8
    return total


@functools.cache
def update_rowwise(
    rule: Callable[..., Any],
    of_row: Callable[..., Any],
    states: int,
    weight: str,
    values: str,
    width: int,
    order: str,
) -> Kernel:
    """As `update`, for rules with one number per row, made of the sum of squares of its gradient.

    The sum is taken in float64 and in 8 partial sums, as on the CPU: lane p of the team adds column
    p, p + 8, and so on. `states` is 0 or 1, of whole rows. At least 8 lanes share a row.
    """
    real = working(weight)
    number = number_of(weight)
    gradient, directed = gradient_of(values, width), _directed(weight, width)
    apply = lifted(rule, width, 3, 2, results=2)
    get_row, put_row = load(weight, width), store(weight, width)
    get, put = load(real, width), store(real, width)
    nothing, zero = filled(width, number(0.0)), number(0.0)

    def body(
        p_weight,  # INOUT  rows, `stride` elements apart
        p_s,  # INOUT  state, rows `stride_s` apart
        p_t,  # INOUT  one number per row, `stride_t` apart
        p_ids,  # IN     (segments,), distinct
        p_values,  # IN     rows of `dim` elements
        p_order,  # IN     (n,)
        p_starts,  # IN     (segments + 1,)
        p_bad,  # IN     (1,); nothing is done unless it holds NONE
        p_work,  # INOUT  (teams, dim): the gradient of the row of a team
        p_partial,  # INOUT  (teams, 8) float64
        segments,
        dim,
        stride,
        stride_s,
        stride_t,
        lanes,
        a,
        b,
        c,
        d,
        e,
        decay,
        sign,
    ):
        segment, teams, lane = team_of(lanes)
        team = segment
        if p_bad[0] != NONE:
            return
        mask = team_mask(lanes)
        while segment < segments:
            not_unrolled()
            first, last = i64(p_starts[segment]), i64(p_starts[segment + 1])
            row = i64(p_ids[segment])
            column = lane * width
            while column < dim:
                not_unrolled()
                g = gradient(p_values, p_order, first, last, dim, column)
                w = nothing
                if decay != zero:
                    w = get_row(p_weight, row * stride + column)
                put(p_work, team * dim + column, directed(g, w, sign, decay))
                column += lanes * width
            sync_warp(mask)
            if lane < 8:
                p_partial[team * 8 + lane] = _squares(p_work, team * dim, dim, lane)
            sync_warp(mask)
            total = f64(0.0)
            part = 0
            while part < 8:
                not_unrolled()
                total += p_partial[team * 8 + part]
                part += 1
            squares = number(total / f64(dim))
            after, factor = of_row(p_t[row * stride_t], squares, c, a, d, e)
            sync_warp(mask)  # every lane has read the number of the row
            if lane == 0:
                p_t[row * stride_t] = after
            column = lane * width
            while column < dim:
                not_unrolled()
                at = row * stride + column
                s = nothing
                if states > 0:
                    s = get(p_s, row * stride_s + column)
                w = get_row(p_weight, at)
                w, s = apply(w, get(p_work, team * dim + column), s, factor, b)
                put_row(p_weight, at, w)
                if states > 0:
                    put(p_s, row * stride_s + column, s)
                column += lanes * width
            sync_warp(mask)  # before the team's scratch is written again
            segment += teams

    rows = [f"*{weight}", f"*{real}", f"*{real}", f"*{order}", f"*{values}", f"*{order}"]
    sizes = ["int64"] * 6
    scratch = [f"*{real}", "*float64"]
    return Kernel(
        body, [*rows, f"*{order}", "*int64", *scratch, *sizes, *[real] * 7], 3 if width == 8 else 4
    )
