"""What operations with several operands share: one dtype, one shape, and the way back to each.

Must not know any particular operation but the cast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from ...narrow import FLOAT32, is_bfloat16, is_floating
from ..dtypes import BOOL, FLOAT, INTEGER, TORCH_NAMES, Array, rank
from ..recording import takes_any
from ..variable import Variable, as_array
from .cast import cast

Operand: TypeAlias = "Variable | Array | np.generic | float"
"""A tensor, an ndarray (a constant, not to be changed before backward) or a number.

A number has a kind but no dtype, be it of Python or of NumPy.
"""

_SCALAR_DTYPES = {bool: BOOL, int: INTEGER, float: FLOAT}

quiet = np.errstate(all="ignore")
"""Decorates forward functions: where NumPy warns, torch gives inf or nan without a word."""


def data(value: Operand) -> Any:
    """Return the array or scalar behind an operand."""
    return value.array if isinstance(value, Variable) else value


def constant(value: Operand, name: str) -> Any:
    """Return the array or scalar behind an argument that gradients cannot flow to.

    Raises RuntimeError if it is a tensor that requires one.
    """
    if isinstance(value, Variable) and value.requires_grad:
        raise RuntimeError(
            f"{name} requires grad, but no gradient for it is implemented. Pass {name}.detach()"
        )
    return data(value)


def is_operand(value: object) -> bool:
    """Return whether arithmetic accepts `value`."""
    return isinstance(value, Variable | np.ndarray | np.generic | bool | int | float)


def operand(value: Operand) -> Any:
    """Return `value`, a NumPy scalar as a Python one; TypeError if it is no operand."""
    if not is_operand(value) and hasattr(value, "to_dense"):
        value = value.to_dense()
    if not is_operand(value):
        raise TypeError(
            f"expected a Tensor, an ndarray or a number, got {type(value).__name__}. Make a tensor "
            "of it with tensor(data)"
        )
    return value.item() if isinstance(value, np.generic) else value


def operands(a: Operand, b: Operand) -> tuple[Operand, Operand]:
    """Return both operands in one dtype, casting where needed; scalars stay scalars.

    The dtype is torch's: a higher kind (bool < integer < floating) wins; within a kind, an array
    with dimensions wins over one without; otherwise NumPy's promotion decides. A Python or NumPy
    scalar counts by its kind only, as float32, int64 or bool. So float32 stays float32.
    """
    a, b = operand(a), operand(b)
    dtype = _common_dtype(a, b)
    return _in_dtype(a, dtype), _in_dtype(b, dtype)


def floating(input: Operand) -> Any:
    """Return a tensor or array as it is if it is floating, else cast to float32."""
    if isinstance(input, Variable | np.ndarray) and rank(input.dtype) < 2:
        return _in_dtype(input, FLOAT)
    return input


def check_floating(input: Variable, kernel: str) -> None:
    """Raise NotImplementedError (torch's text, which names its kernel) for integers and bools."""
    if not is_floating(input.dtype):
        name = TORCH_NAMES[input.dtype].scalar
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{name}'")


def dtype_of(value: Any) -> np.dtype[Any]:
    """Return the dtype of an operand; that of a Python scalar is torch's default for its kind."""
    return value.dtype if isinstance(value, Variable | np.ndarray) else _SCALAR_DTYPES[type(value)]


def _common_dtype(a: Any, b: Any) -> np.dtype[Any]:
    first, second = dtype_of(a), dtype_of(b)
    weight_a, weight_b = (rank(first), _weight(a)), (rank(second), _weight(b))
    if weight_a == weight_b:
        return np.result_type(first, second)
    return first if weight_a > weight_b else second


def _weight(value: Any) -> int:
    """Return 0 for a Python scalar, 1 for an array without dimensions, 2 for one with some."""
    return 1 + (value.ndim > 0) if isinstance(value, Variable | np.ndarray) else 0


def _in_dtype(value: Any, dtype: np.dtype[Any]) -> Any:
    if isinstance(value, Variable):
        return cast(value, dtype)
    if isinstance(value, np.ndarray):
        return value.astype(dtype, copy=False)
    return value


def combine(ufunc: Callable[..., Any], a: Operand, b: Operand) -> Any:
    """Return ufunc(a, b); RuntimeError (torch's text) if their shapes do not go together."""
    try:
        return narrowed(ufunc(data(a), data(b)), a, b)
    except ValueError as error:
        check_broadcast(np.shape(data(a)), np.shape(data(b)))
        raise RuntimeError(str(error)) from None


def narrowed(result: Any, *given: Operand) -> Any:
    """Return what NumPy makes of a bfloat16 and a Python number, float32, as bfloat16."""
    if result.dtype == FLOAT32:
        for value in given:
            if isinstance(value, Variable | np.ndarray) and is_bfloat16(value.dtype):
                return result.astype(value.dtype)
    return result


def check_broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    """Raise RuntimeError (torch's text) if two shapes cannot be broadcast to one."""
    ndim = max(len(a), len(b))
    for dim in range(ndim - 1, -1, -1):
        size_a, size_b = (s[dim - ndim] if ndim - dim <= len(s) else 1 for s in (a, b))
        if size_a != size_b and 1 not in (size_a, size_b):
            raise RuntimeError(
                f"The size of tensor a ({size_a}) must match the size of tensor b ({size_b}) at "
                f"non-singleton dimension {dim} (shapes {list(a)} and {list(b)})"
            )


def unbroadcast(gradient: Any, shape: tuple[int, ...]) -> Any:
    """Sum `gradient` over the dimensions along which an operand of `shape` was repeated.

    A gradient that has the shape already is passed through untouched, whatever it is.
    """
    if tuple(gradient.shape) == shape:
        return gradient
    gradient = as_array(gradient)
    extra = gradient.ndim - len(shape)
    repeated = [dim + extra for dim, size in enumerate(shape) if size == 1]
    return gradient.sum(axis=(*range(extra), *repeated)).reshape(shape)


def back_to(value: Operand) -> Callable[[Any], Any]:
    """Return the rule that sums a gradient back to the shape of `value`."""
    shape = np.shape(data(value))
    return takes_any(lambda gradient: unbroadcast(gradient, shape))
