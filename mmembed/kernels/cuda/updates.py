"""The updates of `mmembed.kernels` over arrays on the GPU: segment sums with a rule, in one pass.

The contract is in `mmembed.kernels`; `work` and `threads` are not used. The weight may be float16
or bfloat16: then states are float32, and a row is rounded once. Must not know optimizers' objects.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from . import copies, rules, segments
from .memory import DeviceArray, as_device, empty
from .running import THREADS, most_blocks
from .shapes import check_rows, index_of, kind_of, stride_of, width_of, working_dtype
from .verdicts import Verdict


def _update(
    rule: Callable[..., Any],
    weight: DeviceArray,
    states: tuple[DeviceArray, ...],
    batch: tuple[DeviceArray, ...],
    numbers: tuple[float, ...],
    weight_decay: float,
    maximize: bool,
) -> int:
    """Launch a rule over whole rows; numbers are padded to the four that rules take."""
    weight = as_device(weight)
    given = tuple(as_device(state) for state in states)
    ids, values, order, starts = (as_device(array) for array in batch)
    check_rows(weight)
    verdict = Verdict(ids, weight.shape[0])
    dim = weight.shape[1]
    if ids.size and dim:
        width = width_of(dim, weight, values, *given)
        lanes = copies.lanes_for(dim // width)
        kinds = kind_of(weight), kind_of(values)
        kernel = segments.update(rule, len(given), *kinds, width, index_of(order))
        s, t = (*given, verdict.bad, verdict.bad)[:2]  # a rule touches no state it does not have
        strides = [stride_of(array) for array in (weight, *given)]
        strides += [0] * (3 - len(strides))
        four = (*numbers, *[0.0] * 4)[:4]
        kernel.launch(
            copies.warps_for(ids.size, lanes),
            weight, s, t, ids, values, order, starts, verdict.bad,
            ids.size, dim, *strides, lanes, *four, weight_decay, -1.0 if maximize else 1.0,
        )  # fmt: skip
    return verdict.read()


def _update_rowwise(
    rule: Callable[..., Any],
    of_row: Callable[..., Any],
    weight: DeviceArray,
    states: tuple[DeviceArray, ...],
    batch: tuple[DeviceArray, ...],
    numbers: tuple[float, float, float, float, float],
    weight_decay: float,
    maximize: bool,
) -> int:
    """Launch a rule whose last state is one number per row."""
    weight = as_device(weight)
    *whole, of_rows = (as_device(state) for state in states)
    ids, values, order, starts = (as_device(array) for array in batch)
    check_rows(weight)
    verdict = Verdict(ids, weight.shape[0])
    dim = weight.shape[1]
    if ids.size and dim:
        width = width_of(dim, weight, values, *whole)
        lanes = copies.lanes_for(dim // width, least=8)
        teams = most_blocks() * THREADS // lanes
        scratch = empty((teams, dim), working_dtype(weight)), empty((teams, 8), "float64")
        kinds = kind_of(weight), kind_of(values)
        kernel = segments.update_rowwise(rule, of_row, len(whole), *kinds, width, index_of(order))
        s = whole[0] if whole else verdict.bad
        strides = [stride_of(weight), stride_of(s) if whole else 0, stride_of(of_rows)]
        kernel.launch(
            copies.warps_for(ids.size, lanes),
            weight, s, of_rows, ids, values, order, starts, verdict.bad, *scratch,
            ids.size, dim, *strides, lanes, *numbers, weight_decay, -1.0 if maximize else 1.0,
        )  # fmt: skip
    return verdict.read()


def update_sgd(
    weight: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    lr: float,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_sgd`."""
    batch = ids, values, order, starts
    return _update(rules.sgd, weight, (), batch, (lr,), weight_decay, maximize)


def update_momentum(
    weight: DeviceArray,
    buffer: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_momentum`."""
    batch = ids, values, order, starts
    rule = rules.nesterov if nesterov else rules.momentum
    numbers = lr, momentum, 1 - dampening
    return _update(rule, weight, (buffer,), batch, numbers, weight_decay, maximize)


def update_adagrad(
    weight: DeviceArray,
    total: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_adagrad`."""
    batch = ids, values, order, starts
    return _update(rules.adagrad, weight, (total,), batch, (lr, eps), weight_decay, maximize)


def update_rowwise_adagrad(
    weight: DeviceArray,
    total: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_rowwise_adagrad`."""
    rule = rules.rowwise_adagrad, rules.rowwise_adagrad_total
    batch, numbers = (ids, values, order, starts), (lr, 0.0, 0.0, 0.0, eps)
    return _update_rowwise(*rule, weight, (total,), batch, numbers, weight_decay, maximize)


def update_adam(
    weight: DeviceArray,
    mean: DeviceArray,
    square: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    step_size: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_adam`."""
    batch, numbers = (ids, values, order, starts), (step_size, 1 - beta1, 1 - beta2, eps)
    return _update(rules.adam, weight, (mean, square), batch, numbers, weight_decay, maximize)


def update_rowwise_adam(
    weight: DeviceArray,
    mean: DeviceArray,
    square: DeviceArray,
    ids: DeviceArray,
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    step_size: float,
    beta1: float,
    beta2: float,
    correction: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
    work: Any = None,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.update_rowwise_adam`."""
    rule = rules.rowwise_adam, rules.rowwise_adam_square
    batch = ids, values, order, starts
    numbers = step_size, 1 - beta1, 1 - beta2, correction, eps
    return _update_rowwise(*rule, weight, (mean, square), batch, numbers, weight_decay, maximize)
