"""The kernels in Numba, parallel: the portable body, used where the Cython one was not built.

The contract is in `mmembed.kernels`. A table reaches the loops as a flat array, the place of row 0
and the row stride, so that read-only and strided tables need no compilation of their own. Every
loop is compiled at its first use, serial and parallel apart, and kept in Numba's cache on disk.

Must not know files, the tape or Python errors. The serial form is used for one thread: it starts no
thread pool, so a forked child may call it.
"""

from __future__ import annotations

import functools
import threading
import types
from collections.abc import Callable
from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from . import numba_loops as loops

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

# Not every threading layer of Numba allows two Python threads in parallel loops at once.
_pool = threading.Lock()


@functools.cache
def _compiled(loop: Callable[..., Any], parallel: bool) -> Callable[..., Any]:
    """Return `loop` compiled; Numba's cache tells the two forms apart by their name."""
    copy = types.FunctionType(
        loop.__code__, loop.__globals__, loop.__name__, loop.__defaults__, loop.__closure__
    )
    copy.__qualname__ = f"{loop.__qualname__}_{'parallel' if parallel else 'serial'}"
    copy.__module__ = loop.__module__
    compiled: Callable[..., Any] = numba.njit(parallel=parallel, nogil=True, cache=loops.CACHE)(
        copy
    )
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


def first_bad_id(ids: IdArray, rows: int, threads: int) -> int:
    """See `mmembed.kernels.first_bad_id`."""
    return int(loops.bad_position(_read(ids), rows))


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
        count[0] = loops.sort_ids(_read(ids), rows, order, unique, starts, work)
    return bad


def gather(table: FloatArray, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `mmembed.kernels.gather`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    if bad < 0 and out.size:
        _run(loops.gather_rows, threads, *_flat_read(table), _read(ids), out)
    return bad


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
    if bad < 0 and out.size:
        bags = _read(ids), _read(starts), _read(weights), int(padding), bool(mean)
        _run(loops.sum_bags, threads, *_flat_read(table), *bags, out)
    return bad


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
    if bad < 0 and out.size:
        bags = _read(ids), _read(starts), int(padding)
        _run(loops.max_bags, threads, *_flat_read(table), *bags, out, where)
    return bad


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
        _run(
            loops.norms_of_rows, threads, *_flat_read(table), dim, _read(ids), float(norm_type), out
        )
    return bad


def renorm(
    table: FloatArray, ids: RowArray, max_norm: float, norm_type: float, threads: int
) -> int:
    """See `mmembed.kernels.renorm`."""
    bad = first_bad_id(ids, table.shape[0], threads)
    dim = table.shape[1]
    if bad < 0 and dim > 0:
        numbers = float(max_norm), float(norm_type)
        _run(loops.scale_to_norm, threads, *_flat(table), dim, _read(ids), *numbers)
    return bad


def segment_sum(
    values: FloatArray, order: RowArray, starts: RowArray, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.segment_sum`."""
    if out.size:
        _run(loops.sum_segments, threads, _read(values), _read(order), _read(starts), out)


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
        _run(loops.add_segments, threads, *segments, *_flat(out))
    return bad


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
        loops.update_segments, threads, rule, np.array(hyper, real), lines, begins, strides,
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
    return _update(loops.SGD, [lr], weight, weight, weight, *segments, work, threads)


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
    return _update(loops.MOMENTUM, hyper, weight, buffer, weight, *segments, work, threads)


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
    return _update(loops.ADAGRAD, [lr, eps], weight, total, weight, *segments, work, threads)


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
    return _update(
        loops.ROWWISE_ADAGRAD, [lr, eps], weight, total, weight, *segments, work, threads
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
    hyper = [step_size, 1 - beta1, 1 - beta2, eps]
    segments = ids, values, order, starts, weight_decay, maximize
    return _update(loops.ADAM, hyper, weight, mean, square, *segments, work, threads)


def initial_rows(
    ids: RowArray, kind: int, a: float, b: float, seed: int, out: FloatArray, threads: int
) -> None:
    """See `mmembed.kernels.initial_rows`."""
    if kind == 0:
        out[...] = a
    elif out.size:
        target = out if out.flags.c_contiguous else np.empty_like(out, order="C")
        _run(
            loops.draw_rows, threads, _read(ids), kind, float(a), float(b), np.uint64(seed), target
        )
        if target is not out:
            out[...] = target
