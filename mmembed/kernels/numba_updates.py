"""The optimizers of the Numba body: each is a rule for one row, applied where gradients are summed.

A rule is a compiled function of a row of the parameter, the rows of its states, the row's gradient,
and numbers of their dtype. Rows are arrays of one dimension, changed in place.

Must not know the contract's argument lists, nor how arrays reach compiled code.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from .numba_compile import jitted
from .numba_loops import (
    add_rows,
    ask_for,
    row_stride,
    rows_ahead,
    share,
    sum_of_squares,
)
from .numba_plan import bad_position
from .numba_vectors import item, rounded, row, rows


def sharing(rule: Callable[..., None], keeps_gradient: bool = True) -> Callable[..., None]:
    """Return what gives the rows of one thread's share of the segments to a rule.

    `keeps_gradient`: the rule does not write to the gradient, which may be an entry of `values`.
    """

    @jitted
    def update_share(
        tables: Any, numbers: Any, ids: Any, values: Any, order: Any, starts: Any,
        weight_decay: Any, maximize: bool, work: Any, number: int, shares: int,
    ) -> None:  # fmt: skip
        dim, mine = values.shape[1], number * row_stride(work)
        ahead = rows_ahead(values, dim)
        end = share(starts, number + 1, shares)
        for s in range(share(starts, number, shares), end):
            coming = s + ahead
            if coming < end:
                for k in range(len(tables)):
                    table = tables[k]
                    ask_for(table, item(ids, coming) * row_stride(table), table.shape[1])
                if item(starts, coming) < item(starts, coming + 1):
                    ask_for(values, item(order, item(starts, coming)) * dim, dim)
            first, last = item(starts, s), item(starts, s + 1)
            changed = rows(tables, item(ids, s))
            g = row(work, mine, dim)
            if keeps_gradient and last - first == 1 and not maximize and weight_decay == 0:
                g = row(values, item(order, first) * dim, dim)
            else:
                if first == last:
                    for j in range(dim):
                        g[j] = 0
                else:
                    add_rows(values, dim, order, first, last, -1, None, False, work, mine, dim)
                adjust(g, changed[0], weight_decay, maximize)
            rule(*(changed + (g,) + numbers))  # noqa: RUF005  Numba adds tuples only

    return update_share


@jitted
def adjust(g: Any, weight: Any, weight_decay: Any, maximize: bool) -> None:
    """Change a gradient as the options say."""
    if maximize:
        for j in range(g.size):
            g[j] = -g[j]
    if weight_decay != 0:
        for j in range(g.size):
            g[j] = g[j] + weight_decay * weight[j]


@jitted
def _sgd(weight: Any, g: Any, lr: Any) -> None:
    for j in range(g.size):
        weight[j] = weight[j] - lr * g[j]


@jitted
def _momentum(
    weight: Any, buffer: Any, g: Any, lr: Any, momentum: Any, undampened: Any, nesterov: Any
) -> None:
    if nesterov:
        for j in range(g.size):
            moved = momentum * buffer[j] + undampened * g[j]
            buffer[j] = moved
            weight[j] = weight[j] - lr * (g[j] + momentum * moved)
    else:
        for j in range(g.size):
            moved = momentum * buffer[j] + undampened * g[j]
            buffer[j] = moved
            weight[j] = weight[j] - lr * moved


@jitted
def _adagrad(weight: Any, total: Any, g: Any, lr: Any, eps: Any) -> None:
    for j in range(g.size):
        total[j] = total[j] + g[j] * g[j]
        weight[j] = weight[j] - lr * (g[j] / (np.sqrt(total[j]) + eps))


@jitted
def _rowwise_adagrad(weight: Any, total: Any, g: Any, lr: Any, eps: Any) -> None:
    total[0] = total[0] + g.dtype.type(sum_of_squares(g, 0, g.size) / g.size)
    step = lr / (np.sqrt(total[0]) + eps)
    for j in range(g.size):
        weight[j] = weight[j] - step * g[j]


@jitted
def _adam(
    weight: Any, mean: Any, square: Any, g: Any,
    step_size: Any, towards_mean: Any, towards_square: Any, eps: Any,
) -> None:  # fmt: skip
    for j in range(g.size):
        mean[j] = mean[j] + (g[j] - mean[j]) * towards_mean
        square[j] = square[j] + (g[j] * g[j] - square[j]) * towards_square
        weight[j] = weight[j] - step_size * (mean[j] / (np.sqrt(square[j]) + eps))


@jitted
def _rowwise_adam(
    weight: Any, mean: Any, square: Any, g: Any,
    step_size: Any, towards_mean: Any, towards_square: Any, correction: Any, eps: Any,
) -> None:  # fmt: skip
    squares = g.dtype.type(sum_of_squares(g, 0, g.size) / g.size)
    square[0] = square[0] + (squares - square[0]) * towards_square
    step = step_size / (np.sqrt(square[0]) * correction + eps)
    for j in range(g.size):
        mean[j] = mean[j] + (g[j] - mean[j]) * towards_mean
        weight[j] = weight[j] - step * mean[j]


_share_sgd = sharing(_sgd)


def sgd(
    weight: Any, ids: Any, values: Any, order: Any, starts: Any,
    lr: float, weight_decay: float, maximize: bool,
    work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_sgd`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = weight.dtype.type, (weight,)
    numbers = (real(lr),)
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_sgd(tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads)
    return -1


_share_momentum = sharing(_momentum)


def momentum(
    weight: Any, buffer: Any, ids: Any, values: Any, order: Any, starts: Any,
    lr: float, momentum: float, dampening: float, nesterov: bool, weight_decay: float,
    maximize: bool, work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_momentum`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = (
        weight.dtype.type,
        (
            weight,
            buffer,
        ),
    )
    numbers = (
        real(lr),
        real(momentum),
        real(1 - dampening),
        real(nesterov),
    )
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_momentum(
            tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads
        )
    return -1


_share_adagrad = sharing(_adagrad)


def adagrad(
    weight: Any, total: Any, ids: Any, values: Any, order: Any, starts: Any,
    lr: float, eps: float, weight_decay: float, maximize: bool,
    work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_adagrad`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = (
        weight.dtype.type,
        (
            weight,
            total,
        ),
    )
    numbers = (
        real(lr),
        real(eps),
    )
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_adagrad(
            tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads
        )
    return -1


_share_rowwise_adagrad = sharing(_rowwise_adagrad)


def rowwise_adagrad(
    weight: Any, total: Any, ids: Any, values: Any, order: Any, starts: Any,
    lr: float, eps: float, weight_decay: float, maximize: bool,
    work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_rowwise_adagrad`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = (
        weight.dtype.type,
        (
            weight,
            total,
        ),
    )
    numbers = (
        real(lr),
        real(eps),
    )
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_rowwise_adagrad(
            tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads
        )
    return -1


_share_adam = sharing(_adam)


def adam(
    weight: Any, mean: Any, square: Any, ids: Any, values: Any, order: Any, starts: Any,
    step_size: float, beta1: float, beta2: float, eps: float, weight_decay: float, maximize: bool,
    work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_adam`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = (
        weight.dtype.type,
        (
            weight,
            mean,
            square,
        ),
    )
    numbers = (
        real(step_size),
        real(1 - beta1),
        real(1 - beta2),
        real(eps),
    )
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_adam(tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads)
    return -1


_share_rowwise_adam = sharing(_rowwise_adam)


def rowwise_adam(
    weight: Any, mean: Any, square: Any, ids: Any, values: Any, order: Any, starts: Any,
    step_size: float, beta1: float, beta2: float, correction: float, eps: float,
    weight_decay: float, maximize: bool, work: Any, threads: int,
) -> int:  # fmt: skip
    """Update by `_rowwise_adam`."""
    bad = bad_position(ids, weight.shape[0])
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real, tables = (
        weight.dtype.type,
        (
            weight,
            mean,
            square,
        ),
    )
    numbers = (
        real(step_size),
        real(1 - beta1),
        real(1 - beta2),
        real(correction),
        real(eps),
    )
    decay = real(weight_decay)
    for t in numba.prange(threads):
        _share_rowwise_adam(
            tables, numbers, ids, values, order, starts, decay, maximize, work, t, threads
        )
    return -1


def by_rule(rule: Callable[..., None]) -> Callable[..., int]:
    """Return the loop that updates by a rule from elsewhere."""
    update_share = sharing(rule, keeps_gradient=False)

    def update(
        tables: Any, ids: Any, values: Any, order: Any, starts: Any,
        numbers: Any, weight_decay: float, maximize: bool, work: Any, threads: int,
    ) -> int:  # fmt: skip
        weight = tables[0]
        bad = bad_position(ids, weight.shape[0])
        if bad >= 0 or weight.shape[1] == 0:
            return bad
        exact = rounded(weight, numbers)
        decay = weight.dtype.type(weight_decay)
        for t in numba.prange(threads):
            update_share(
                tables, exact, ids, values, order, starts, decay, maximize, work, t, threads
            )
        return -1

    return update
