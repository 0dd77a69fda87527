"""The kernels in Numba, parallel: the portable body, used where the Cython one was not built.

The contract is in `mmembed.kernels`; the loops are in `numba_plan`, `numba_loops`,
`numba_updates` and `numba_initial`; rows of 16 and of 8 bits are in `numba_packed`.

Must not know files, the tape or Python errors.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import numba_initial, numba_plan, numba_updates
from . import numba_loops as loops
from .numba_compile import run
from .numba_packed import pack_rows, unpack_bags, unpack_bags_max, unpack_rows  # noqa: F401

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]


def first_bad_id(ids: IdArray, rows: int, threads: int) -> int:
    """See `mmembed.kernels.first_bad_id`."""
    return run(numba_plan.check_ids, ids.dtype.char, 1, ids, rows)


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
    return run(
        numba_plan.sort_ids, ids.dtype.char, 1, ids, rows, order, unique, starts, count, work
    )


def gather(table: FloatArray, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `mmembed.kernels.gather`; narrow rows, which Numba does not know, are bits here."""
    if table.itemsize == 2:
        table, out = table.view(np.uint16), out.view(np.uint16)
    dtypes = table.dtype.char + ids.dtype.char
    return run(loops.gather_rows, dtypes, threads, table, ids, out)


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
    dtypes = table.dtype.char + ids.dtype.char
    bags = ids, starts, weights, padding, mean
    return run(loops.sum_bags, dtypes, threads, table, *bags, out)


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
    dtypes = table.dtype.char + ids.dtype.char
    return run(loops.max_bags, dtypes, threads, table, ids, starts, padding, out, where)


def row_norms(
    table: FloatArray,
    ids: RowArray,
    norm_type: float,
    out: npt.NDArray[np.float64],
    threads: int,
) -> int:
    """See `mmembed.kernels.row_norms`."""
    return run(loops.norms_of_rows, table.dtype.char, threads, table, ids, float(norm_type), out)


def renorm(
    table: FloatArray, ids: RowArray, max_norm: float, norm_type: float, threads: int
) -> int:
    """See `mmembed.kernels.renorm`."""
    numbers = float(max_norm), float(norm_type)
    return run(loops.scale_to_norm, table.dtype.char, threads, table, ids, *numbers)


def segment_sum(
    values: FloatArray, order: RowArray, starts: RowArray, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.segment_sum`."""
    run(loops.sum_segments, values.dtype.char, threads, values, order, starts, out)


def scatter_add(
    values: FloatArray,
    order: RowArray,
    starts: RowArray,
    ids: RowArray,
    out: FloatArray,
    threads: int,
) -> int:
    """See `mmembed.kernels.scatter_add`."""
    return run(loops.add_segments, values.dtype.char, threads, values, order, starts, ids, out)


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
    segments = ids, values, order, starts
    numbers = lr, weight_decay, maximize
    return run(numba_updates.sgd, weight.dtype.char, threads, weight, *segments, *numbers, work)


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
    segments = ids, values, order, starts
    numbers = lr, momentum, dampening, nesterov, weight_decay, maximize
    return run(
        numba_updates.momentum,
        weight.dtype.char,
        threads,
        weight,
        buffer,
        *segments,
        *numbers,
        work,
    )


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
    segments = ids, values, order, starts
    numbers = lr, eps, weight_decay, maximize
    return run(
        numba_updates.adagrad, weight.dtype.char, threads, weight, total, *segments, *numbers, work
    )


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
    segments = ids, values, order, starts
    numbers = lr, eps, weight_decay, maximize
    return run(
        numba_updates.rowwise_adagrad,
        weight.dtype.char,
        threads,
        weight,
        total,
        *segments,
        *numbers,
        work,
    )


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
    segments = ids, values, order, starts
    numbers = step_size, beta1, beta2, eps, weight_decay, maximize
    return run(
        numba_updates.adam,
        weight.dtype.char,
        threads,
        weight,
        mean,
        square,
        *segments,
        *numbers,
        work,
    )


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
    segments = ids, values, order, starts
    numbers = step_size, beta1, beta2, correction, eps, weight_decay, maximize
    return run(
        numba_updates.rowwise_adam,
        weight.dtype.char,
        threads,
        weight,
        mean,
        square,
        *segments,
        *numbers,
        work,
    )


def initial_rows(
    ids: RowArray, kind: int, a: float, b: float, seed: int, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.initial_rows`."""
    if kind == 0:
        out[...] = a
    else:
        numbers = kind, float(a), float(b), np.uint64(seed)
        run(numba_initial.draw_rows, out.dtype.char, threads, ids, *numbers, out)
