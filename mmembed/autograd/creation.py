"""New tensors, from data or filled.

Must not know the tape. Floating results are float32 unless a dtype is given, integers int64.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .dtypes import BOOL, FLOAT, INTEGER, Array, DType, checked
from .ops.shape import size_of
from .random import default_generator, fill_normal, fill_uniform
from .tensor import Tensor
from .variable import Variable

Size = int | Sequence[int]


def tensor(data: Any, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Copy `data` into a tensor.

    Parameters
    ----------
    data : a number, nested lists of numbers, an ndarray or a tensor.
    dtype : of the result. Without it, Python floats become float32, ints int64 and bools bool;
        arrays, tensors and NumPy scalars keep theirs.
    requires_grad : whether to collect its gradient; only for a floating dtype.

    Raises
    ------
    RuntimeError  requires_grad with integers or bools (torch's text).
    TypeError     the elements are no numbers.
    ValueError    lists of unequal length.

    Source: torch.tensor.
    """
    return Tensor(_copied(data, dtype), requires_grad)


def as_tensor(data: Any, dtype: DType = None) -> Tensor:
    """Return `data` as a tensor: itself, or over an ndarray's memory, where no cast is needed."""
    if isinstance(data, Tensor):
        return data if dtype is None else data.to(dtype)
    if isinstance(data, np.ndarray):
        return Tensor(data if dtype is None else data.astype(checked(dtype), copy=False))
    return tensor(data, dtype)


def from_numpy(array: Array) -> Tensor:
    """Return a tensor over the memory of `array`. If that is read-only, so is the tensor."""
    return Tensor(array)


def _copied(data: Any, dtype: DType) -> Array:
    if isinstance(data, Variable):
        data = data.array
    array = np.array(data, dtype=None if dtype is None else checked(dtype), order="C")
    if dtype is None and array.dtype == np.float64 and not _has_dtype(data):
        array = array.astype(FLOAT)
    return array


def _has_dtype(data: Any) -> bool:
    """Return whether the numbers in `data` come with a dtype, judging by the first one."""
    while isinstance(data, Sequence) and len(data):
        data = data[0]
    return hasattr(data, "dtype")


def _shape(size: Sequence[Size]) -> tuple[int, ...]:
    shape = size_of(size)
    for extent in shape:
        if not isinstance(extent, int | np.integer) or isinstance(extent, bool):
            raise TypeError(
                "empty(): argument 'size' (position 1) must be tuple of ints, but found element of "
                f"type {type(extent).__name__}"
            )
        if extent < 0:
            raise RuntimeError(
                f"Trying to create tensor with negative dimension {extent}: {list(shape)}"
            )
    return shape


def empty(*size: Size, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of size empty(2, 3) or empty((2, 3)) with arbitrary elements."""
    return Tensor(np.empty(_shape(size), checked(dtype or FLOAT)), requires_grad)


def zeros(*size: Size, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of zeros, of size zeros(2, 3) or zeros((2, 3))."""
    return Tensor(np.zeros(_shape(size), checked(dtype or FLOAT)), requires_grad)


def ones(*size: Size, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Return a tensor of ones, of size ones(2, 3) or ones((2, 3))."""
    return Tensor(np.ones(_shape(size), checked(dtype or FLOAT)), requires_grad)


def full(
    size: Sequence[int], fill_value: float, dtype: DType = None, requires_grad: bool = False
) -> Tensor:
    """Return a tensor of one number, whose kind decides the dtype if none is given."""
    if dtype is None:
        kinds = {bool: BOOL, int: INTEGER}
        dtype = kinds.get(type(fill_value), FLOAT)
    return Tensor(np.full(_shape((size,)), fill_value, checked(dtype)), requires_grad)


def empty_like(input: Variable, dtype: DType = None) -> Tensor:
    """Return arbitrary elements in the shape (and, if none is given, dtype) of `input`."""
    return empty(input.shape, dtype=dtype or input.dtype)


def zeros_like(input: Variable, dtype: DType = None) -> Tensor:
    """Return zeros in the shape (and, if none is given, dtype) of `input`."""
    return zeros(input.shape, dtype=dtype or input.dtype)


def ones_like(input: Variable, dtype: DType = None) -> Tensor:
    """Return ones in the shape (and, if none is given, dtype) of `input`."""
    return ones(input.shape, dtype=dtype or input.dtype)


def full_like(input: Variable, fill_value: float, dtype: DType = None) -> Tensor:
    """Return one number in the shape (and, if none is given, dtype) of `input`."""
    return full(input.shape, fill_value, dtype=dtype or input.dtype)


def arange(
    start: float,
    end: float | None = None,
    step: float = 1,
    *,
    dtype: DType = None,
    requires_grad: bool = False,
) -> Tensor:
    """Return start, start + step, ... below end; arange(end) starts at 0. All ints give int64."""
    start, end = (0, start) if end is None else (start, end)
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if (end - start) * step < 0:
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    array = np.arange(start, end, step)
    if dtype is None:
        dtype = FLOAT if array.dtype.kind == "f" else INTEGER
    return Tensor(array.astype(checked(dtype)), requires_grad)


def eye(
    n: int, m: int | None = None, *, dtype: DType = None, requires_grad: bool = False
) -> Tensor:
    """Return the (n, m) matrix with ones on its diagonal; m is n if not given."""
    return Tensor(np.eye(n, m, dtype=checked(dtype or FLOAT)), requires_grad)


def randn(*size: Size, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Return draws from the normal distribution N(0, 1)."""
    result = empty(*size, dtype=dtype, requires_grad=requires_grad)
    fill_normal(result.array, 0.0, 1.0)
    return result


def rand(*size: Size, dtype: DType = None, requires_grad: bool = False) -> Tensor:
    """Return uniform draws from 0 (included) to 1 (not included)."""
    result = empty(*size, dtype=dtype, requires_grad=requires_grad)
    fill_uniform(result.array, 0.0, 1.0)
    return result


def randint(low: int, high: int, size: Sequence[int], *, dtype: DType = None) -> Tensor:
    """Return uniform draws from low..high-1."""
    if low >= high:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    drawn = default_generator().integers(low, high, _shape((size,)))
    return Tensor(np.asarray(drawn).astype(checked(dtype or INTEGER)))


def randn_like(input: Variable, dtype: DType = None) -> Tensor:
    """Return draws from N(0, 1) in the shape (and, if none is given, dtype) of `input`."""
    return randn(input.shape, dtype=dtype or input.dtype)


def rand_like(input: Variable, dtype: DType = None) -> Tensor:
    """Return uniform draws from 0..1 in the shape (and, if none is given, dtype) of `input`."""
    return rand(input.shape, dtype=dtype or input.dtype)
