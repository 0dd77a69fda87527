"""Binary cross-entropy from logits, in one pass over memory.

Must not know other losses. The work is done block by block, so that intermediate values stay in the
processor's cache, and with np.exp and np.log only, which NumPy vectorises on more processors than
np.log1p and np.logaddexp.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ...narrow import wide as wide_dtype
from ..dtypes import Array
from ..recording import record
from ..tape import is_grad_enabled
from ..variable import Variable
from .operands import Operand, constant, floating, quiet
from .reduce import quotient
from .reduction import Reduction, check_reduction

if TYPE_CHECKING:
    from ..tensor import Tensor

BLOCK = 16384
"""Elements per block: seven blocks of float32 take less than half a megabyte."""


@quiet
def binary_cross_entropy_with_logits(
    input: Variable,
    target: Operand,
    weight: Operand | None = None,
    reduction: Reduction = "mean",
    pos_weight: Operand | None = None,
) -> Tensor:
    """Return -weight * (pos_weight * target * log(s) + (1 - target) * log(1 - s)).

    Here s = sigmoid(input). Accurate for every logit, also where the loss is tiny.

    Parameters
    ----------
    input : logits, any shape.
    target : 0..1, of any dtype, in a shape that broadcasts to input's.
    weight, pos_weight : factors that broadcast to input's shape.
    reduction : "none" (a loss per element), "mean" or "sum".

    Raises
    ------
    ValueError    target does not broadcast to input's shape; the reduction is unknown.
    RuntimeError  a weight does not broadcast; target, weight or pos_weight requires grad.

    Source: torch.nn.functional.binary_cross_entropy_with_logits. Differs: the target may be
    broadcast and have any dtype; what is saved is the gradient, so the logits may change before
    backward.
    """
    check_reduction(reduction)
    logits = floating(input)
    x = logits.array
    factors = _factors(x.shape, target, weight, pos_weight)
    slopes = np.empty_like(x) if is_grad_enabled() and logits.requires_grad else None
    name = "BinaryCrossEntropyWithLogitsBackward0"
    if reduction == "none":
        losses = np.empty_like(x)
        _run(x, factors, losses, slopes)
        return record(name, losses, (logits, lambda upstream, slopes: slopes * upstream, (slopes,)))
    count = x.size if reduction == "mean" else 1
    total = wide_dtype(x.dtype).type(_run(x, factors, None, slopes))

    def rule(upstream: Any, slopes: Array) -> Any:
        return slopes * quotient(upstream, count)

    return record(name, (total / count).astype(x.dtype), (logits, rule, (slopes,)))


def _factors(shape: tuple[int, ...], target: Any, weight: Any, pos_weight: Any) -> list[Any]:
    """Return target, weight and pos_weight as arrays of `shape`; what is None stays None."""
    arguments = {"target": target, "weight": weight, "pos_weight": pos_weight}
    factors: list[Any] = []
    for name, argument in arguments.items():
        if argument is None:
            factors.append(None)
            continue
        array = np.asarray(constant(argument, name))
        try:
            factors.append(np.broadcast_to(array, shape))
        except ValueError:
            if name == "target":
                raise ValueError(
                    f"Target size (torch.Size({list(array.shape)})) must be the same as input "
                    f"size (torch.Size({list(shape)})), or broadcast to it"
                ) from None
            raise RuntimeError(
                f"{name} of shape {list(array.shape)} does not broadcast to input's shape "
                f"{list(shape)}"
            ) from None
    return factors


def _run(x: Array, factors: list[Any], losses: Array | None, slopes: Array | None) -> float:
    """Compute losses and slopes where an array is given for them; return the sum of the losses."""
    operands = _aligned([x, *factors, losses, slopes])
    lead, *rest = operands[0].shape
    step = max(1, BLOCK // max(1, math.prod(rest)))
    scratch = np.empty((7, min(step, lead), *rest), x.dtype)
    positive = np.empty(scratch.shape[1:], bool)
    total = 0.0
    for first in range(0, lead, step):
        block: list[Any] = [a if a is None else a[first : first + step] for a in operands]
        size = len(block[0])
        total += _block(*block, scratch=scratch[:, :size], positive=positive[:size])
    return total


def _aligned(operands: list[Any]) -> list[Any]:
    """Return arrays of one shape with a first axis to take blocks along; what is None stays."""
    given = [a for a in operands if a is not None]
    shape = given[0].shape
    if all(a.flags.c_contiguous for a in given):
        shape = (given[0].size,)
    while len(shape) > 1 and shape[0] == 1:
        shape = shape[1:]
    return [a if a is None else a.reshape(shape or (1,)) for a in operands]


def _block(
    x: Array,  # IN   logits, any shape
    y: Array,  # IN   targets, of the same shape
    weight: Array | None,  # IN
    pos_weight: Array | None,  # IN
    loss: Array | None,  # OUT
    slope: Array | None,  # OUT  derivative of the loss by x
    *,
    scratch: Array,  # OUT  (7, *shape)
    positive: Array,  # OUT  bool
) -> float:
    """Set loss = k * log1p(e) + x * (k * h - p) and its slope; return the sum of the losses.

    Here e = exp(-|x|), h = 1 where x >= 0, else 0; p = pos_weight * y and k = 1 - y + p. Where x is
    on the side of a target of 0 or 1, k * h - p is exactly 0, so a tiny log1p(e) is not lost beside
    it. With u = 1 + e as rounded, log1p(e) is log(u) + (e - (u - 1)) to within one rounding.
    """
    e, u, h, rest, own, p, k = scratch
    loss = own if loss is None else loss
    np.abs(x, out=e)
    np.negative(e, out=e)
    np.exp(e, out=e)
    np.add(e, 1, out=u)
    np.log(u, out=loss)
    np.subtract(u, 1, out=rest)
    np.subtract(e, rest, out=rest)
    np.add(loss, rest, out=loss)
    np.greater_equal(x, 0, out=positive)
    np.copyto(h, positive)
    if pos_weight is None:
        p = y
        np.subtract(h, p, out=rest)
    else:
        np.multiply(pos_weight, y, out=p)
        np.subtract(p, y, out=k)
        np.add(k, 1, out=k)
        np.multiply(loss, k, out=loss)
        np.multiply(k, h, out=rest)
        np.subtract(rest, p, out=rest)
    np.multiply(x, rest, out=rest)
    np.add(loss, rest, out=loss)
    if weight is not None:
        np.multiply(loss, weight, out=loss)
    if slope is not None:
        _set_slope(slope, e, u, h, p, None if pos_weight is None else k, weight)
    return float(np.sum(loss, dtype=wide_dtype(loss.dtype)))


def _set_slope(
    slope: Array, e: Array, u: Array, h: Array, p: Array, k: Array | None, weight: Array | None
) -> None:
    """Set slope = weight * (k * sigmoid(x) - p), where sigmoid(x) is max(h, e) / u."""
    np.maximum(h, e, out=slope)
    np.divide(slope, u, out=slope)
    if k is not None:
        np.multiply(slope, k, out=slope)
    np.subtract(slope, p, out=slope)
    if weight is not None:
        np.multiply(slope, weight, out=slope)
