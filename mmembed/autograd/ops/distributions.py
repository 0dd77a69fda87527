"""Softmax and its logarithm along one dimension.

Must not know losses.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import Array
from ..recording import OUTPUT, record
from ..variable import Variable
from .operands import floating, quiet
from .reduce import normal_dim

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def softmax(input: Variable, dim: int) -> Tensor:
    """Return exp(input), scaled to sum to 1 along `dim`."""
    x = floating(input)
    axis = _axis(x, dim)
    value = np.exp(_shifted(np.asarray(x.array, order="C"), axis))
    value = value / np.sum(value, axis=axis, keepdims=True)

    def rule(upstream: Any, output: Array) -> Any:
        product = upstream * output
        return product - output * np.sum(product, axis=axis, keepdims=True)

    return record("SoftmaxBackward0", value, (x, rule, (OUTPUT,)))


@quiet
def log_softmax(input: Variable, dim: int) -> Tensor:
    """Return log(softmax(input, dim)), accurate where softmax would round to 0."""
    x = floating(input)
    axis = _axis(x, dim)
    shifted = _shifted(np.asarray(x.array, order="C"), axis)
    value = shifted - np.log(np.sum(np.exp(shifted), axis=axis, keepdims=True))

    def rule(upstream: Any, output: Array) -> Any:
        return upstream - np.exp(output) * np.sum(upstream, axis=axis, keepdims=True)

    return record("LogSoftmaxBackward0", value, (x, rule, (OUTPUT,)))


def _axis(x: Variable, dim: int) -> int | tuple[()]:
    return normal_dim(dim, x.ndim) if x.ndim else ()


def _shifted(x: Array, axis: int | tuple[()]) -> Array:
    """Return x less its largest element, so that exp cannot overflow."""
    return np.asarray(x - np.max(x, axis=axis, keepdims=True, initial=-np.inf))
