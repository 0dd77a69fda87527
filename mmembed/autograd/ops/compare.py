"""Comparisons and logic: results are bool tensors, through which no gradient flows.

Must not know gradients.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..recording import record
from ..variable import Variable
from .operands import Operand, combine, data
from .reduce import Dims, dims_of

if TYPE_CHECKING:
    from ..tensor import Tensor


def eq(input: Operand, other: Operand) -> Tensor:
    """Return input == other, element by element."""
    return record("eq", combine(np.equal, input, other))


def ne(input: Operand, other: Operand) -> Tensor:
    """Return input != other, element by element."""
    return record("ne", combine(np.not_equal, input, other))


def lt(input: Operand, other: Operand) -> Tensor:
    """Return input < other, element by element."""
    return record("lt", combine(np.less, input, other))


def le(input: Operand, other: Operand) -> Tensor:
    """Return input <= other, element by element."""
    return record("le", combine(np.less_equal, input, other))


def gt(input: Operand, other: Operand) -> Tensor:
    """Return input > other, element by element."""
    return record("gt", combine(np.greater, input, other))


def ge(input: Operand, other: Operand) -> Tensor:
    """Return input >= other, element by element."""
    return record("ge", combine(np.greater_equal, input, other))


def bitwise_and(input: Operand, other: Operand) -> Tensor:
    """Return input & other: logical for bools, bit by bit for integers."""
    return record("and", combine(np.bitwise_and, input, other))


def bitwise_or(input: Operand, other: Operand) -> Tensor:
    """Return input | other: logical for bools, bit by bit for integers."""
    return record("or", combine(np.bitwise_or, input, other))


def bitwise_not(input: Variable) -> Tensor:
    """Return ~input: logical for bools, bit by bit for integers."""
    return record("invert", np.invert(data(input)))


def all(input: Variable, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Return whether all elements, or all along `dim`, are nonzero."""
    return record("all", np.all(input.array, dims_of(dim, input.ndim), keepdims=keepdim))


def any(input: Variable, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Return whether any element, or any along `dim`, is nonzero."""
    return record("any", np.any(input.array, dims_of(dim, input.ndim), keepdims=keepdim))
