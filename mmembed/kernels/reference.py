"""The kernels in plain NumPy: slow, obvious, and the specification of the other bodies.

The contract is in `mmembed.kernels`. Must not know about speed; `threads` is ignored.
"""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

# log(m) = 2 s (1 + s²/3 + s⁴/5 + …) with s = (m - 1) / (m + 1); |s| < 0.172 leaves 1e-17.
LOG_SERIES = tuple(1.0 / (2 * k + 1) for k in range(10))
# Taylor series of sin(x)/x and cos(x) in x²; |x| <= π/4 leaves 1e-17.
SIN_SERIES = tuple((-1) ** k / math.factorial(2 * k + 1) for k in range(9))
COS_SERIES = tuple((-1) ** k / math.factorial(2 * k) for k in range(10))
LN2 = 0.6931471805599453
SQRT_HALF = 0.7071067811865476
TWO_PI = 6.283185307179586


def first_bad_id(ids: IdArray, rows: int, threads: int) -> int:
    """See `mmembed.kernels.first_bad_id`."""
    bad = np.flatnonzero((ids < 0) | (ids >= rows))
    return int(bad[0]) if bad.size else -1


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
    if bad >= 0:
        return bad
    order[:] = np.argsort(ids, kind="stable")
    distinct, first = np.unique(ids[order], return_index=True)
    unique[: distinct.size] = distinct
    starts[: distinct.size] = first
    starts[distinct.size] = ids.size
    count[0] = distinct.size
    return -1


def gather(table: FloatArray, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `mmembed.kernels.gather`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad >= 0:
        return bad
    out[...] = table[ids]
    return -1


def gather_bags(
    table: FloatArray,
    ids: IdArray,
    starts: RowArray,
    weights: FloatArray,
    padding: int,
    mean: bool,
    out: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.gather_bags`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad >= 0:
        return bad
    positions, ends = _without(ids, starts, padding)
    products = table[ids[positions]]
    if weights.size:
        products = weights[positions, None] * products
    segment_sum(products, np.arange(positions.size), ends, out, threads)
    if mean:
        sizes = np.maximum(np.diff(ends), 1).astype(table.dtype)
        out /= sizes[:, None]
    return -1


def gather_bags_max(
    table: FloatArray,
    ids: IdArray,
    starts: RowArray,
    padding: int,
    out: FloatArray,
    where: RowArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.gather_bags_max`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad >= 0:
        return bad
    positions, ends = _without(ids, starts, padding)
    out[...] = 0
    where[...] = -1
    for bag, (first, last) in enumerate(itertools.pairwise(ends)):
        for position in positions[first:last]:
            row = table[ids[position]]
            larger = (row > out[bag]) | (where[bag] < 0)
            out[bag, larger] = row[larger]
            where[bag, larger] = position
    return -1


def _without(ids: IdArray, starts: RowArray, padding: int) -> tuple[RowArray, RowArray]:
    """Return the positions of ids in bags that are not padding, and where each bag is in them."""
    positions = np.arange(starts[0], starts[-1])
    kept = ids[positions] != padding
    ends = np.concatenate([[0], np.cumsum(kept)])[starts - starts[0]]
    return positions[kept], ends


def _sum_of_squares(rows: FloatArray) -> npt.NDArray[np.float64]:
    """Return the sum of squares of each row, (n,)."""
    partial = np.zeros((len(rows), 8))
    for first in range(0, rows.shape[1], 8):
        some = rows[:, first : first + 8].astype(np.float64)
        partial[:, : some.shape[1]] += some * some
    total = np.zeros(len(rows))
    for lane in range(8):
        total += partial[:, lane]
    return total


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
    size = np.abs(table[ids].astype(np.float64))
    if table.shape[1] == 0:
        norms = np.zeros(ids.size)
    elif norm_type == 2:
        norms = np.sqrt(_sum_of_squares(size))
    elif math.isinf(norm_type):
        norms = size.max(axis=1) if norm_type > 0 else size.min(axis=1)
    elif norm_type == 0:
        norms = (size != 0).sum(axis=1).astype(np.float64)
    else:
        with np.errstate(divide="ignore", over="ignore"):
            norms = np.power(np.power(size, norm_type).sum(axis=1), 1.0 / norm_type)
    with np.errstate(over="ignore"):
        rounded = norms.astype(table.dtype)
    out[:] = np.where(np.isinf(rounded), norms, rounded)
    return -1


def renorm(
    table: FloatArray, ids: RowArray, max_norm: float, norm_type: float, threads: int
) -> int:
    """See `mmembed.kernels.renorm`."""
    norms = np.empty(ids.size)
    bad = row_norms(table, ids, norm_type, norms, threads)
    if bad >= 0:
        return bad
    over = norms > max_norm
    factors = (max_norm / (norms[over] + 1e-7)).astype(table.dtype)
    table[ids[over]] *= factors[:, None]
    return -1


def segment_sum(
    values: FloatArray, order: RowArray, starts: RowArray, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.segment_sum`."""
    order, starts = order[starts[0] : starts[-1]], starts - starts[0]
    out[...] = 0
    sizes = np.diff(starts)
    out[sizes > 0] = values[order[starts[:-1][sizes > 0]]]
    later = np.ones(order.size, bool)
    later[starts[:-1][sizes > 0]] = False
    np.add.at(out, np.repeat(np.arange(out.shape[0]), sizes)[later], values[order[later]])


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
    if bad >= 0:
        return bad
    np.add.at(out, np.repeat(ids, np.diff(starts)), values[order[starts[0] : starts[-1]]])
    return -1


def _gradient(
    weight: FloatArray,
    ids: RowArray,
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    weight_decay: float,
    maximize: bool,
) -> FloatArray:
    """Return g: one row per segment."""
    gradient = np.empty((ids.size, weight.shape[1]), weight.dtype)
    segment_sum(values, order, starts, gradient, 1)
    if maximize:
        gradient = -gradient
    if weight_decay != 0:
        gradient += weight.dtype.type(weight_decay) * weight[ids]
    return gradient


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
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0:
        return bad
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    weight[ids] -= weight.dtype.type(lr) * gradient
    return -1


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
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0:
        return bad
    real = weight.dtype.type
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    moved = real(momentum) * buffer[ids] + real(1 - dampening) * gradient
    buffer[ids] = moved
    weight[ids] -= real(lr) * (gradient + real(momentum) * moved if nesterov else moved)
    return -1


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
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0:
        return bad
    real = weight.dtype.type
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    total[ids] += gradient * gradient
    with np.errstate(invalid="ignore", divide="ignore"):
        weight[ids] -= real(lr) * (gradient / (np.sqrt(total[ids]) + real(eps)))
    return -1


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
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real = weight.dtype.type
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    total[ids, 0] += (_sum_of_squares(gradient) / weight.shape[1]).astype(weight.dtype)
    with np.errstate(invalid="ignore", divide="ignore"):
        weight[ids] -= real(lr) / (np.sqrt(total[ids]) + real(eps)) * gradient
    return -1


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
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0:
        return bad
    real = weight.dtype.type
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    mean[ids] += (gradient - mean[ids]) * real(1 - beta1)
    square[ids] += (gradient * gradient - square[ids]) * real(1 - beta2)
    weight[ids] -= real(step_size) * (mean[ids] / (np.sqrt(square[ids]) + real(eps)))
    return -1


def update_rowwise_adam(
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
    correction: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.update_rowwise_adam`."""
    bad = first_bad_id(ids, weight.shape[0], threads)
    if bad >= 0 or weight.shape[1] == 0:
        return bad
    real = weight.dtype.type
    gradient = _gradient(weight, ids, values, order, starts, weight_decay, maximize)
    mean[ids] += (gradient - mean[ids]) * real(1 - beta1)
    squares = (_sum_of_squares(gradient) / weight.shape[1]).astype(weight.dtype)
    square[ids, 0] += (squares - square[ids, 0]) * real(1 - beta2)
    step = real(step_size) / (np.sqrt(square[ids]) * real(correction) + real(eps))
    weight[ids] -= step * mean[ids]
    return -1


def philox(counters: npt.NDArray[np.uint64], seed: int) -> npt.NDArray[np.uint64]:
    """Philox4x32-10 of (…, 4) counters below 2**32; returns (…, 4) words below 2**32.

    Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
    """
    low32 = np.uint64(0xFFFFFFFF)
    x0, x1, x2, x3 = (counters[..., k].copy() for k in range(4))
    key0, key1 = seed & 0xFFFFFFFF, seed >> 32
    for _ in range(10):
        product0 = x0 * np.uint64(0xD2511F53)
        product1 = x2 * np.uint64(0xCD9E8D57)
        x0, x1, x2, x3 = (
            (product1 >> np.uint64(32)) ^ x1 ^ np.uint64(key0),
            product1 & low32,
            (product0 >> np.uint64(32)) ^ x3 ^ np.uint64(key1),
            product0 & low32,
        )
        key0 = (key0 + 0x9E3779B9) & 0xFFFFFFFF
        key1 = (key1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([x0, x1, x2, x3], axis=-1)


def _polynomial(series: tuple[float, ...], x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    value = np.full_like(x, series[-1])
    for coefficient in reversed(series[:-1]):
        value = value * x + coefficient
    return value


def _log(u: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    mantissa, exponent = np.frexp(u)
    small = mantissa < SQRT_HALF
    mantissa = np.where(small, mantissa * 2.0, mantissa)
    exponent = np.where(small, exponent - 1, exponent)
    s = (mantissa - 1.0) / (mantissa + 1.0)
    return exponent * LN2 + 2.0 * s * _polynomial(LOG_SERIES, s * s)


def _normal_pair(
    u: npt.NDArray[np.float64], turn: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Box-Muller: two independent N(0, 1) from two uniforms in (0, 1)."""
    radius = np.sqrt(-2.0 * _log(u))
    quarter = np.floor(4.0 * turn + 0.5)
    x = TWO_PI * (turn - 0.25 * quarter)
    sine = x * _polynomial(SIN_SERIES, x * x)
    cosine = _polynomial(COS_SERIES, x * x)
    odd = quarter % 2 == 1
    c = np.where(odd, sine, cosine)
    s = np.where(odd, cosine, sine)
    c = np.where((quarter == 1) | (quarter == 2), -c, c)
    s = np.where((quarter == 2) | (quarter == 3), -s, s)
    return radius * c, radius * s


def initial_rows(
    ids: RowArray, kind: int, a: float, b: float, seed: int, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.initial_rows`."""
    dim = out.shape[1]
    if kind == 0 or out.size == 0:
        out[...] = a
        return
    blocks = -(-dim // 4)
    counters = np.zeros((ids.size, blocks, 4), np.uint64)
    counters[..., 0] = np.arange(blocks)
    counters[..., 2] = (ids & 0xFFFFFFFF)[:, None]
    counters[..., 3] = (ids >> 32)[:, None]
    u = (philox(counters, seed).astype(np.float64) + 0.5) * 2.0**-32
    if kind == 1:
        drawn = a + (b - a) * u
    else:
        z0, z1 = _normal_pair(u[..., 0], u[..., 1])
        z2, z3 = _normal_pair(u[..., 2], u[..., 3])
        drawn = a + b * np.stack([z0, z1, z2, z3], axis=-1)
    out[...] = drawn.reshape(ids.size, 4 * blocks)[:, :dim]


from .reference_packed import pack_rows, unpack_bags, unpack_bags_max, unpack_rows  # noqa: E402, F401
