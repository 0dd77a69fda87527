"""Cross-entropy, negative log-likelihood and squared error.

Must not know models. Signatures are torch's.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ...narrow import is_floating
from ..dtypes import TORCH_NAMES, Array
from ..recording import record
from ..variable import Variable
from . import arithmetic, reduce
from .distributions import log_softmax
from .masking import where
from .operands import Operand, back_to, combine, constant, data, floating, operands, quiet
from .reduction import Reduction, check_reduction

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def mse_loss(input: Operand, target: Operand, reduction: Reduction = "mean") -> Tensor:
    """Return (input - target) ** 2, its mean or its sum; both may require a gradient."""
    check_reduction(reduction)
    a, b = (floating(x) for x in operands(input, target))
    difference = combine(np.subtract, a, b)
    losses = difference * difference
    count = losses.size if reduction == "mean" else 1
    back_to_a, back_to_b = back_to(a), back_to(b)

    def slope(upstream: Any, a: Any, b: Any) -> Any:
        return (a - b) * reduce.quotient(2 * upstream, count)

    return record(
        "MseLossBackward0",
        losses
        if reduction == "none"
        else reduce.quotient(_all(losses), count).astype(losses.dtype),
        (a, lambda upstream, a, b: back_to_a(slope(upstream, a, b)), (a, b)),
        (b, lambda upstream, a, b: back_to_b(slope(upstream, b, a)), (a, b)),
    )


def _all(losses: Array) -> Any:
    return reduce.total(losses, tuple(range(losses.ndim)), wide=True)


@quiet
def nll_loss(
    input: Variable,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
) -> Tensor:
    """Return -weight[target] * input[target]: the negative log-likelihood of the target classes.

    Parameters
    ----------
    input : log-probabilities, (C,), (n, C) or (n, C, d1, ...).
    target : integer classes, (), (n,) or (n, d1, ...).
    weight : (C,), a factor per class. The mean is taken over the weights of the targets.
    ignore_index : targets with this value count for nothing.

    Raises
    ------
    IndexError                a target is outside 0..C-1.
    ValueError, RuntimeError  shapes do not go together (torch's texts).

    Source: torch.nn.functional.nll_loss. Differs: all integer dtypes are accepted.
    """
    check_reduction(reduction)
    x = floating(input)
    classes, factors = _targets(x.array, target, weight, ignore_index)
    axis = _class_axis(x.array)
    picked = np.take_along_axis(x.array, np.expand_dims(classes, axis), axis).reshape(classes.shape)
    losses = np.where(factors == 0, x.dtype.type(0), -picked * factors)
    count = _all(factors) if reduction == "mean" else 1
    shape = x.shape

    def rule(upstream: Any, target: Array, factors: Array) -> Array:
        gradient = np.zeros(shape, upstream.dtype)
        slopes = np.expand_dims(-factors * reduce.quotient(upstream, count), axis)
        at = np.where(target == ignore_index, 0, target)
        np.put_along_axis(gradient, np.expand_dims(at, axis), slopes, axis)
        return gradient

    return record(
        "NllLossBackward0",
        losses if reduction == "none" else (_all(losses) / count).astype(losses.dtype),
        (x, rule, (target, factors)),
    )


def _class_axis(x: Array) -> int:
    if x.ndim == 0:
        raise ValueError("Expected 1 or more dimensions (got 0): (C,) or (n, C, ...)")
    return 0 if x.ndim == 1 else 1


def _targets(
    x: Array, target: Operand, weight: Operand | None, ignore_index: int
) -> tuple[Array, Array]:
    """Return the class and the weight of each target; ignored ones have class 0 and weight 0."""
    t = np.asarray(data(target))
    count = x.shape[_class_axis(x)]
    _check_shapes(x, t)
    if t.dtype.kind not in "iu":
        name = TORCH_NAMES[t.dtype].scalar
        raise RuntimeError(f"expected target dtype to be Long or Byte, but got {name}")
    counted = t != ignore_index
    classes = np.where(counted, t, 0)
    outside = counted & ((t < 0) | (t >= count))
    if outside.any():
        where = tuple(int(i) for i in np.argwhere(outside)[0])
        raise IndexError(
            f"Target {int(t[where])} is out of bounds. It stands at {where}; there are {count} "
            f"classes (valid: 0..{count - 1}, and ignore_index {ignore_index})"
        )
    if weight is None:
        return classes, counted.astype(x.dtype)
    w = np.asarray(constant(weight, "weight"))
    if w.shape != (count,):
        raise RuntimeError(
            f"weight tensor should be defined either for all {count} classes or no classes but got "
            f"weight tensor of shape: {list(w.shape)}"
        )
    return classes, np.asarray(w[classes] * counted, x.dtype)


def _check_shapes(x: Array, t: Array) -> None:
    axis = _class_axis(x)
    expected = x.shape[:axis] + x.shape[axis + 1 :]
    if t.shape == expected:
        return
    if x.ndim > 1 and t.ndim > 0 and len(x) != len(t):
        raise ValueError(
            f"Expected input batch_size ({len(x)}) to match target batch_size ({len(t)})."
        )
    if x.ndim <= 2:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    raise RuntimeError(f"Expected target size {list(expected)}, got {list(t.shape)}")


def cross_entropy(
    input: Variable,
    target: Operand,
    weight: Operand | None = None,
    ignore_index: int = -100,
    reduction: Reduction = "mean",
    label_smoothing: float = 0.0,
) -> Tensor:
    """Return the cross-entropy between softmax(input) and the target.

    Parameters
    ----------
    input : logits, (C,), (n, C) or (n, C, d1, ...).
    target : integer classes as for `nll_loss`, or floating probabilities in input's shape.
    weight : (C,), a factor per class.
    label_smoothing : 0..1, the share of the target that is spread over all classes.

    Raises
    ------
    IndexError, ValueError, RuntimeError  as `nll_loss`; label_smoothing outside 0..1.

    Source: torch.nn.functional.cross_entropy.
    """
    check_reduction(reduction)
    if not 0 <= label_smoothing <= 1:
        raise RuntimeError(f"label_smoothing must be between 0.0 and 1.0. Got: {label_smoothing}")
    x = floating(input)
    log_probabilities = log_softmax(x, _class_axis(x.array))
    if np.shape(data(target)) == x.shape:
        if ignore_index >= 0:
            raise RuntimeError("ignore_index is not supported for floating point target")
        return _against_probabilities(log_probabilities, target, weight, reduction, label_smoothing)
    loss = nll_loss(log_probabilities, target, weight, ignore_index, reduction)
    if label_smoothing == 0:
        return loss
    spread = _spread_loss(log_probabilities, target, weight, ignore_index, reduction)
    share = label_smoothing / x.shape[_class_axis(x.array)]
    return arithmetic.add(arithmetic.mul(loss, 1 - label_smoothing), arithmetic.mul(spread, share))


def _spread_loss(
    log_probabilities: Variable,
    target: Operand,
    weight: Operand | None,
    ignore_index: int,
    reduction: Reduction,
) -> Tensor:
    """Return the loss for a target of 1 in every class; ignored targets count for nothing."""
    x = log_probabilities.array
    _, factors = _targets(x, target, weight, ignore_index)
    counted = np.asarray(data(target)) != ignore_index
    losses: Tensor = where(counted, _weighted_sum(log_probabilities, weight), 0)
    if reduction == "none":
        return losses
    total = reduce.sum(losses)
    return arithmetic.div(total, np.sum(factors)) if reduction == "mean" else total


def _against_probabilities(
    log_probabilities: Variable,
    target: Operand,
    weight: Operand | None,
    reduction: Reduction,
    label_smoothing: float,
) -> Tensor:
    x = log_probabilities.array
    t = data(target)
    if not is_floating(t.dtype):
        name = TORCH_NAMES[t.dtype].scalar
        raise RuntimeError(
            f"Expected floating point type for target with class probabilities, got {name}"
        )
    classes = x.shape[_class_axis(x)]
    if label_smoothing > 0:
        target = arithmetic.add(
            arithmetic.mul(target, 1 - label_smoothing), label_smoothing / classes
        )
    losses = _weighted_sum(arithmetic.mul(log_probabilities, target), weight)
    if reduction == "none":
        return losses
    total = reduce.sum(losses)
    return arithmetic.div(total, x.size // max(1, classes)) if reduction == "mean" else total


def _weighted_sum(values: Variable, weight: Operand | None) -> Tensor:
    """Return minus the sum over classes, each class times its weight."""
    axis = _class_axis(values.array)
    if weight is not None:
        w = np.asarray(constant(weight, "weight"), values.dtype)
        values = arithmetic.mul(values, w.reshape(-1, *(1,) * (values.ndim - 1 - axis)))
    return arithmetic.neg(reduce.sum(values, axis))
