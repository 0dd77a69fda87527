"""The functions of `mmembed.kernels` over arrays on the GPU, and what goes back through bags.

The contract is in `mmembed.kernels`; `threads` is ignored. Tables, and outputs of sums, may also be
float16 or bfloat16. Each call waits for the GPU once, to learn whether an id was bad; the kernels
themselves do nothing then. Plans and updates are in `plans` and `updates`.

Must not know files, the tape or Python errors.
"""

from __future__ import annotations

from . import bag_gradients, bags, copies, norms, segments
from .memory import DeviceArray, as_device, empty, to_device
from .plans import plan
from .running import THREADS, adds_vectors, most_blocks
from .shapes import check_rows, index_of, kind_of, stride_of, width_of
from .updates import (
    update_adagrad,
    update_adam,
    update_momentum,
    update_rowwise_adagrad,
    update_rowwise_adam,
    update_sgd,
)
from .verdicts import Verdict

__all__ = [
    "first_bad_id",
    "gather",
    "gather_bags",
    "gather_bags_max",
    "plan",
    "renorm",
    "row_norms",
    "scatter_add",
    "scatter_add_atomic",
    "segment_sum",
    "update_adagrad",
    "update_adam",
    "update_momentum",
    "update_rowwise_adagrad",
    "update_rowwise_adam",
    "update_sgd",
    "weight_gradients",
    "weighted_segment_sum",
]


def first_bad_id(ids: DeviceArray, rows: int, threads: int = 1) -> int:
    """See `mmembed.kernels.first_bad_id`."""
    return Verdict(as_device(ids), rows).read()


def gather(table: DeviceArray, ids: DeviceArray, out: DeviceArray, threads: int = 1) -> int:
    """See `mmembed.kernels.gather`; rows of any dtype are copied."""
    table, ids, out = as_device(table), as_device(ids), as_device(out)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    if out.size:
        unit, units, lanes, (stride, _) = copies.row_parameters(table, out)
        kernel = copies.gather(unit, index_of(ids))
        warps = copies.warps_for(ids.size, lanes)
        kernel.launch(warps, table, ids, out, verdict.bad, ids.size, units, stride, lanes)
    return verdict.read()


def gather_bags(
    table: DeviceArray,
    ids: DeviceArray,
    starts: DeviceArray,
    weights: DeviceArray,
    padding: int,
    mean: bool,
    out: DeviceArray,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.gather_bags`."""
    table, ids, starts = as_device(table), as_device(ids), as_device(starts)
    weights, out = as_device(weights), as_device(out)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    bags_, dim = out.shape
    if out.size:
        width = width_of(dim, table, out)
        lanes = copies.lanes_for(dim // width)
        kinds = kind_of(table), kind_of(out)
        kernel = bags.sum_bags(*kinds, width, index_of(ids), weights.size > 0)
        sizes = bags_, dim, stride_of(table), padding, int(mean), lanes
        warps = copies.warps_for(bags_, lanes)
        kernel.launch(warps, table, ids, starts, weights, out, verdict.bad, *sizes)
    return verdict.read()


def gather_bags_max(
    table: DeviceArray,
    ids: DeviceArray,
    starts: DeviceArray,
    padding: int,
    out: DeviceArray,
    where: DeviceArray,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.gather_bags_max`."""
    table, ids, starts = as_device(table), as_device(ids), as_device(starts)
    out, where = as_device(out), as_device(where)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    bags_, dim = out.shape
    if out.size:
        width = width_of(dim, table, out)
        lanes = copies.lanes_for(dim // width)
        kernel = bags.max_bags(kind_of(table), kind_of(out), width, index_of(ids))
        sizes = bags_, dim, stride_of(table), padding, lanes
        warps = copies.warps_for(bags_, lanes)
        kernel.launch(warps, table, ids, starts, out, where, verdict.bad, *sizes)
    return verdict.read()


def _partials(lanes: int) -> DeviceArray:
    """Return scratch of 8 numbers for each team that can run at a time."""
    return empty((most_blocks() * THREADS // lanes * 8,), "float64")


def row_norms(
    table: DeviceArray, ids: DeviceArray, norm_type: float, out: DeviceArray, threads: int = 1
) -> int:
    """See `mmembed.kernels.row_norms`."""
    table, ids, out = as_device(table), as_device(ids), as_device(out)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    dim = table.shape[1]
    if ids.size and dim == 0:
        if (bad := verdict.read()) < 0:
            out.set(to_device([0.0] * ids.size).numpy())
        return bad
    if ids.size:
        width = width_of(dim, table)
        lanes = norms.lanes_of(width)
        kernel = norms.row_norms(norms.kind_of(norm_type), kind_of(table), width, index_of(ids))
        sizes = ids.size, dim, stride_of(table), norm_type
        warps = copies.warps_for(ids.size, lanes)
        kernel.launch(warps, table, ids, out, verdict.bad, _partials(lanes), *sizes)
    return verdict.read()


def renorm(
    table: DeviceArray, ids: DeviceArray, max_norm: float, norm_type: float, threads: int = 1
) -> int:
    """See `mmembed.kernels.renorm`."""
    table, ids = as_device(table), as_device(ids)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    dim = table.shape[1]
    if ids.size and dim:
        width = width_of(dim, table)
        lanes = norms.lanes_of(width)
        kernel = norms.renorm(norms.kind_of(norm_type), kind_of(table), width, index_of(ids))
        sizes = ids.size, dim, stride_of(table), max_norm, norm_type
        warps = copies.warps_for(ids.size, lanes)
        kernel.launch(warps, table, ids, verdict.bad, _partials(lanes), *sizes)
    return verdict.read()


def segment_sum(
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    out: DeviceArray,
    threads: int = 1,
) -> None:
    """See `mmembed.kernels.segment_sum`; order and starts have one dtype, int32 or int64."""
    values, order = as_device(values), as_device(order)
    starts, out = as_device(starts), as_device(out)
    rows, dim = out.shape
    if out.size:
        width = width_of(dim, values, out)
        lanes = copies.lanes_for(dim // width)
        kernel = segments.segment_sum(kind_of(values), kind_of(out), width, index_of(order))
        warps = copies.warps_for(rows, lanes)
        kernel.launch(warps, values, order, starts, out, rows, dim, lanes)


def scatter_add(
    values: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    ids: DeviceArray,
    out: DeviceArray,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.scatter_add`."""
    values, order, starts = as_device(values), as_device(order), as_device(starts)
    ids, out = as_device(ids), as_device(out)
    check_rows(out)
    verdict = Verdict(ids, out.shape[0])
    dim = out.shape[1]
    if ids.size and dim:
        width = width_of(dim, values, out)
        lanes = copies.lanes_for(dim // width)
        kernel = segments.scatter_add(kind_of(out), width, index_of(order))
        sizes = ids.size, dim, stride_of(out), lanes
        warps = copies.warps_for(ids.size, lanes)
        kernel.launch(warps, values, order, starts, ids, out, verdict.bad, *sizes)
    return verdict.read()


def scatter_add_atomic(values: DeviceArray, ids: DeviceArray, out: DeviceArray) -> int:
    """Add values[i] to out[ids[i]] for every i, in no particular order: float32 or float64.

    No plan is needed; the last bits differ from run to run where ids repeat.
    """
    values, ids, out = as_device(values), as_device(ids), as_device(out)
    check_rows(out)
    verdict = Verdict(ids, out.shape[0])
    dim = out.shape[1]
    if ids.size and dim:
        width = width_of(dim, values, out)
        lanes = copies.lanes_for(dim // width)
        kind = kind_of(out)
        kernel = segments.scatter_add_atomic(kind, width, index_of(ids), adds_vectors())
        warps = copies.warps_for(ids.size, lanes)
        sizes = ids.size, dim, stride_of(out), lanes
        kernel.launch(warps, values, ids, out, verdict.bad, *sizes)
    return verdict.read()


def weighted_segment_sum(
    grad: DeviceArray,
    bag: DeviceArray,
    weights: DeviceArray,
    order: DeviceArray,
    starts: DeviceArray,
    out: DeviceArray,
) -> None:
    """Set out[s] to the sum of weights[i] * grad[bag[i]] over the entries i of segment s, in order.

    grad is (bags, dim), contiguous; bag, order and starts have one dtype, int32 or int64; weights
    are float32, or float64 of a float64 grad.
    """
    grad, bag, weights = as_device(grad), as_device(bag), as_device(weights)
    order, starts, out = as_device(order), as_device(starts), as_device(out)
    rows, dim = out.shape
    if out.size:
        width = width_of(dim, grad, out)
        lanes = copies.lanes_for(dim // width)
        kinds = kind_of(grad), kind_of(out)
        kernel = bag_gradients.weighted_segment_sum(*kinds, width, index_of(order))
        warps = copies.warps_for(rows, lanes)
        kernel.launch(warps, grad, bag, weights, order, starts, out, rows, dim, lanes)


def weight_gradients(
    table: DeviceArray,
    ids: DeviceArray,
    bag: DeviceArray,
    grad: DeviceArray,
    padding: int,
    out: DeviceArray,
) -> int:
    """Set out[i] to the sum over columns of table[ids[i]] * grad[bag[i]]; 0 if ids[i] is padding.

    ids and bag have one dtype, int32 or int64; out is float32, or float64 of a float64 table.
    Returns -1, or the position of the first id outside the table, and then nothing is written.
    """
    table, ids, bag = as_device(table), as_device(ids), as_device(bag)
    grad, out = as_device(grad), as_device(out)
    check_rows(table)
    verdict = Verdict(ids, table.shape[0])
    dim = table.shape[1]
    if ids.size:
        width = width_of(dim, table, grad) if dim else 1
        lanes = norms.lanes_of(width)
        kinds = kind_of(table), kind_of(grad)
        kernel = bag_gradients.weight_gradients(*kinds, width, index_of(ids))
        partial = empty((most_blocks() * THREADS // lanes * 8,), out.dtype)
        sizes = ids.size, dim, stride_of(table), padding
        warps = copies.warps_for(ids.size, lanes)
        kernel.launch(warps, table, ids, bag, grad, out, verdict.bad, partial, *sizes)
    return verdict.read()
