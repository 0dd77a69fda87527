"""Functions of one element at a time.

Must not know broadcasting or reductions: every rule here keeps its shape. Integers become float32
except in `abs` and `relu`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..dtypes import Array
from ..recording import OUTPUT, record
from ..variable import Variable
from .operands import floating, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def exp(input: Variable) -> Tensor:
    """Return e ** input."""
    x = floating(input)
    return record(
        "ExpBackward0", np.exp(x.array), (x, lambda upstream, output: upstream * output, (OUTPUT,))
    )


@quiet
def log(input: Variable) -> Tensor:
    """Return the natural logarithm."""
    x = floating(input)
    return record("LogBackward0", np.log(x.array), (x, lambda upstream, x: upstream / x, (x,)))


@quiet
def sqrt(input: Variable) -> Tensor:
    """Return the square root."""
    x = floating(input)
    return record(
        "SqrtBackward0",
        np.sqrt(x.array),
        (x, lambda upstream, output: upstream / (2 * output), (OUTPUT,)),
    )


def abs(input: Variable) -> Tensor:
    """Return the absolute value; its gradient at 0 is 0."""
    return record(
        "AbsBackward0",
        np.abs(input.array),
        (input, lambda upstream, x: upstream * np.sign(x), (input,)),
    )


@quiet
def tanh(input: Variable) -> Tensor:
    """Return the hyperbolic tangent."""
    x = floating(input)
    return record(
        "TanhBackward0",
        np.tanh(x.array),
        (x, lambda upstream, output: upstream * (1 - output * output), (OUTPUT,)),
    )


def relu(input: Variable) -> Tensor:
    """Return max(input, 0); its gradient at 0 is 0."""
    return record(
        "ReluBackward0",
        np.maximum(input.array, input.dtype.type(0)),
        (
            input,
            # Where it is flat, the gradient is 0 even if what arrives is infinite.
            lambda upstream, output: np.where(output > 0, upstream, upstream.dtype.type(0)),
            (OUTPUT,),
        ),
    )


@quiet
def sigmoid(input: Variable) -> Tensor:
    """Return 1 / (1 + exp(-input))."""
    x = floating(input)
    return record(
        "SigmoidBackward0",
        logistic(x.array),
        (x, lambda upstream, output: upstream * (output * (1 - output)), (OUTPUT,)),
    )


@quiet
def logsigmoid(input: Variable) -> Tensor:
    """Return log(sigmoid(input)), accurate where sigmoid would round to 0 or 1."""
    x = floating(input)
    value = np.minimum(x.array, x.dtype.type(0)) - np.log1p(np.exp(-np.abs(x.array)))
    return record(
        "LogSigmoidBackward0", value, (x, lambda upstream, x: upstream * logistic(-x), (x,))
    )


def logistic(x: Array) -> Array:
    """Return 1 / (1 + exp(-x)); where exp overflows, the quotient is the 0 it should be."""
    result = np.negative(x, out=np.empty(x.shape, x.dtype))
    np.exp(result, out=result)
    np.add(result, 1, out=result)
    return np.reciprocal(result, out=result)
