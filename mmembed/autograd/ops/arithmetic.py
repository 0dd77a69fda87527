"""The arithmetic of two broadcast operands, and powers.

Must not know reductions or in-place changes. The rules of sums, products and quotients ask of the
upstream gradient only `*`, `/` and unary `-`, so that a sparse gradient passes through them.
"""

from __future__ import annotations

import operator
from typing import TYPE_CHECKING, Any

import numpy as np

from ..recording import OUTPUT, record, takes_any
from ..variable import Variable
from .operands import Operand, back_to, combine, floating, operands, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def add(input: Operand, other: Operand) -> Tensor:
    """Return input + other."""
    a, b = operands(input, other)
    return record("AddBackward0", combine(np.add, a, b), (a, back_to(a), ()), (b, back_to(b), ()))


@quiet
def sub(input: Operand, other: Operand) -> Tensor:
    """Return input - other."""
    a, b = operands(input, other)
    back_to_b = back_to(b)
    return record(
        "SubBackward0",
        combine(np.subtract, a, b),
        (a, back_to(a), ()),
        (b, takes_any(lambda upstream: back_to_b(-upstream)), ()),
    )


@quiet
def mul(input: Operand, other: Operand) -> Tensor:
    """Return input * other, element by element."""
    a, b = operands(input, other)
    back_to_a, back_to_b = back_to(a), back_to(b)
    return record(
        "MulBackward0",
        combine(np.multiply, a, b),
        (a, takes_any(lambda upstream, b: back_to_a(upstream * b)), (b,)),
        (b, takes_any(lambda upstream, a: back_to_b(upstream * a)), (a,)),
    )


@quiet
def div(input: Operand, other: Operand) -> Tensor:
    """Return input / other; integers are divided as float32."""
    if isinstance(other, Variable) and not isinstance(input, Variable | np.ndarray):
        return mul(reciprocal(other), input)
    a, b = (floating(operand) for operand in operands(input, other))
    back_to_a, back_to_b = back_to(a), back_to(b)
    return record(
        "DivBackward0",
        combine(np.divide, a, b),
        (a, takes_any(lambda upstream, b: back_to_a(upstream / b)), (b,)),
        (b, lambda upstream, a, b: back_to_b(-upstream * (a / b / b)), (a, b)),
    )


@quiet
def reciprocal(input: Variable) -> Tensor:
    """Return 1 / input."""
    x = floating(input)
    return record(
        "ReciprocalBackward0",
        np.reciprocal(x.array),
        (x, lambda upstream, output: -upstream * (output * output), (OUTPUT,)),
    )


def neg(input: Variable) -> Tensor:
    """Return -input."""
    rule = takes_any(lambda upstream: -upstream)
    return record("NegBackward0", -input.array, (input, rule, ()))


@quiet
def pow(input: Operand, exponent: Operand) -> Tensor:
    """Return input ** exponent.

    The gradient for the exponent is 0 where the base is 0 and the exponent is not negative; for the
    base it is 0 where the exponent is 0. Source: torch.pow.
    """
    a, b = operands(input, exponent)
    back_to_a, back_to_b = back_to(a), back_to(b)
    saved_for_b = (a, b, OUTPUT)
    name = "PowBackward1"
    if not isinstance(a, Variable | np.ndarray):
        name = "PowBackward2"
    elif not isinstance(b, Variable | np.ndarray):
        name = "PowBackward0"
    return record(
        name,
        combine(operator.pow, a, b),
        (a, lambda upstream, a, b: back_to_a(_times(upstream, _slope_in_base(a, b))), (a, b)),
        (
            b,
            lambda upstream, *saved: back_to_b(_times(upstream, _slope_in_exponent(*saved))),
            saved_for_b,
        ),
    )


def _times(upstream: Any, slope: Any) -> Any:
    """Return the product; where the slope is 0, it is 0 whatever the upstream gradient."""
    return np.where(slope == 0, slope, upstream * slope)


def _slope_in_base(base: Any, exponent: Any) -> Any:
    if np.ndim(exponent) == 0:
        return exponent * base ** (exponent - 1) if exponent != 0 else np.zeros_like(base)
    slope = exponent * base ** (exponent - 1)
    return np.where(exponent == 0, slope.dtype.type(0), slope)


def _slope_in_exponent(base: Any, exponent: Any, output: Any) -> Any:
    log = np.log(np.asarray(base, output.dtype))
    return np.where((np.asarray(base) == 0) & (exponent >= 0), output.dtype.type(0), output * log)
