"""Kernels for norms of rows: to know them, and to scale rows down to a limit.

Sums are taken in float64, whatever the dtype of the rows, and in 8 partial sums: column j goes to
number j % 8. 8 / width lanes share a row, so that each lane owns whole partial sums and a warp
reads whole sectors. The bits are those of the CPU, where they are for the 2-norm.

Must not know what rows mean.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .copies import NONE, team_of
from .running import Kernel
from .segments import number_of, team_mask
from .target import (
    absolute,
    device,
    f64,
    i64,
    load,
    mul,
    not_unrolled,
    power,
    root,
    store,
    sync_warp,
)
from .vectors import filled, lifted

# How elements are combined, by the kind of norm: number, and what a partial starts from.
SQUARES, SUM, COUNT, POWERS, LARGEST, SMALLEST = range(6)


def kind_of(p: float) -> int:
    """Return which of the kinds a norm is."""
    named = {2.0: SQUARES, 1.0: SUM, 0.0: COUNT, float("inf"): LARGEST, float("-inf"): SMALLEST}
    return named.get(p, POWERS)


def _combining(kind: int) -> Callable[..., Any]:
    """Return the function (partial, x, p): the partial with |x| in it, all float64."""

    @device
    def squares(partial, x, p):
        return partial + mul(x, x)

    @device
    def absolutes(partial, x, p):
        return partial + absolute(x)

    @device
    def counted(partial, x, p):
        return partial + (f64(0.0) if x == f64(0.0) else f64(1.0))

    @device
    def powers(partial, x, p):
        return partial + power(absolute(x), p)

    @device
    def largest(partial, x, p):
        size = absolute(x)
        return size if size > partial or size != size else partial

    @device
    def smallest(partial, x, p):
        size = absolute(x)
        return size if size < partial or size != size else partial

    return (squares, absolutes, counted, powers, largest, smallest)[kind]


def _joining(kind: int) -> Callable[..., Any]:
    """Return the function that puts two partials together."""

    @device
    def added(a, b):
        return a + b

    @device
    def larger(a, b):
        return b if b > a or b != b else a

    @device
    def smaller(a, b):
        return b if b < a or b != b else a

    return (added, added, added, added, larger, smaller)[kind]


def _finishing(kind: int) -> Callable[..., Any]:
    @device
    def rooted(total, p):
        return root(total)

    @device
    def same(total, p):
        return total

    @device
    def powered(total, p):
        return power(total, f64(1.0) / p)

    return (rooted, same, same, powered, same, same)[kind]


def _norm(kind: int, dtype: str, width: int) -> Callable[..., Any]:
    """Return the function for the norm of a row, rounded to the dtype of its arithmetic.

    Of the `lanes` = 8 / width lanes of a team, each gives its partials to `p_partial` (teams, 8).
    """
    get = load(dtype, width)
    real = number_of(dtype)
    combine, join, finish = _combining(kind), _joining(kind), _finishing(kind)
    widened = lifted(f64_of, width, 1)
    each = lifted(combine, width, 2, 1)
    nothing = filled(width, f64(float("inf") if kind == SMALLEST else 0.0))
    keep = lifted(f64_of, width, 1)
    put = store("float64", width)

    @device
    def norm(p_table, p_partial, row, dim, team, lane, mask, p):
        partials = nothing
        column = lane * width
        while column < dim:
            not_unrolled()
            partials = each(partials, widened(get(p_table, row + column)), p)
            column += 8
        put(p_partial, team * 8 + lane * width, keep(partials))
        sync_warp(mask)
        total = p_partial[team * 8]
        part = 1
        while part < 8:
            not_unrolled()
            total = join(total, p_partial[team * 8 + part])
            part += 1
        size = finish(total, p)
        rounded = f64(real(size))
        # A finite norm beyond the largest number of the dtype is used as it is.
        return size if absolute(rounded) == f64(float("inf")) else rounded

    return norm


@device
def f64_of(x):
    """Return a number as float64."""
    return f64(x)


@functools.cache
def row_norms(kind: int, dtype: str, width: int, index: str) -> Kernel:
    """out[i] = the norm of table[ids[i]]."""
    norm = _norm(kind, dtype, width)

    def body(
        p_table,  # IN     rows, `stride` elements apart
        p_ids,  # IN     (n,)
        p_out,  # OUT    (n,) float64
        p_bad,  # IN     (1,); nothing is done unless it holds NONE
        p_partial,  # INOUT  (teams, 8)
        n,
        dim,
        stride,
        p,
    ):
        lanes = 8 // width
        i, teams, lane = team_of(lanes)
        team = i
        if p_bad[0] != NONE:
            return
        mask = team_mask(lanes)
        while i < n:
            not_unrolled()
            row = i64(p_ids[i]) * stride
            size = norm(p_table, p_partial, row, dim, team, lane, mask, p)
            if lane == 0:
                p_out[i] = size
            sync_warp(mask)
            i += teams

    rows = [f"*{dtype}", f"*{index}", "*float64", "*int64", "*float64"]
    return Kernel(body, [*rows, "int64", "int64", "int64", "float64"])


@functools.cache
def renorm(kind: int, dtype: str, width: int, index: str) -> Kernel:
    """Scale each row of ids, which are distinct, whose norm is above `most` down to it."""
    norm, real = _norm(kind, dtype, width), number_of(dtype)
    get, put = load(dtype, width), store(dtype, width)
    scaled = lifted(_times, width, 1, 1)

    def body(p_table, p_ids, p_bad, p_partial, n, dim, stride, most, p):
        lanes = 8 // width
        i, teams, lane = team_of(lanes)
        team = i
        if p_bad[0] != NONE:
            return
        mask = team_mask(lanes)
        while i < n:
            not_unrolled()
            row = i64(p_ids[i]) * stride
            size = norm(p_table, p_partial, row, dim, team, lane, mask, p)
            if size > most:
                factor = real(most / (size + f64(1e-7)))
                column = lane * width
                while column < dim:
                    not_unrolled()
                    put(p_table, row + column, scaled(get(p_table, row + column), factor))
                    column += 8
            sync_warp(mask)
            i += teams

    rows = [f"*{dtype}", f"*{index}", "*int64", "*float64"]
    return Kernel(body, [*rows, "int64", "int64", "int64", "float64", "float64"])


@device
def _times(x, factor):
    return mul(x, factor)


def lanes_of(width: int) -> int:
    """Return how many lanes share a row."""
    return 8 // width
