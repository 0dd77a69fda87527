"""Largest and smallest elements, and where they are.

Must not know arithmetic.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..dtypes import Array
from ..recording import OUTPUT, record
from ..variable import Variable
from .reduce import normal_dim

if TYPE_CHECKING:
    from ..tensor import Tensor


class Extremes(NamedTuple):
    """What max and min along a dimension return."""

    values: Tensor
    indices: Tensor


def max(input: Variable, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremes:
    """Return the largest element, or (values, indices) along `dim`.

    Ties share the gradient of the whole maximum; along `dim` the element at the index takes it.
    """
    if dim is None:
        return _whole(input, np.max, "MaxBackward1")
    return _along(input, np.argmax, dim, keepdim, "MaxBackward0")


def min(input: Variable, dim: int | None = None, keepdim: bool = False) -> Tensor | Extremes:
    """Return the smallest element, or (values, indices) along `dim`; see `max`."""
    if dim is None:
        return _whole(input, np.min, "MinBackward1")
    return _along(input, np.argmin, dim, keepdim, "MinBackward0")


def argmax(input: Variable, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the largest element (of the flattened tensor, or along `dim`)."""
    return record("argmax", _index(input, np.argmax, dim, keepdim))


def argmin(input: Variable, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Return the int64 index of the smallest element (of the flattened tensor, or along `dim`)."""
    return record("argmin", _index(input, np.argmin, dim, keepdim))


def _whole(input: Variable, find: Callable[[Array], Any], name: str) -> Tensor:
    if input.numel() == 0:
        raise RuntimeError(
            f"{find.__name__}(): Expected reduction dim to be specified for input.numel() == 0. "
            "Specify the reduction dim with the 'dim' argument."
        )

    def rule(upstream: Any, x: Array, output: Array) -> Any:
        hit = (x == output) | np.isnan(x)  # an extreme that is NaN comes from every NaN
        return np.where(hit, upstream / np.sum(hit), 0).astype(x.dtype)

    return record(name, find(input.array), (input, rule, (input, OUTPUT)))


def _along(
    input: Variable, find: Callable[..., Any], dim: int, keepdim: bool, name: str
) -> Extremes:
    dim = normal_dim(dim, input.ndim)
    shape = input.shape
    lifted = np.atleast_1d(input.array)
    lifted_shape = lifted.shape
    kept_shape = (*lifted_shape[:dim], 1, *lifted_shape[dim + 1 :])
    result_shape = kept_shape if keepdim and shape else (*shape[:dim], *shape[dim + 1 :])
    at = np.asarray(_index(input, find, dim, keepdim=True)).reshape(kept_shape)
    values = np.take_along_axis(lifted, at, dim).reshape(result_shape)
    indices = record("indices", at.reshape(result_shape))

    def rule(upstream: Any, at: Array) -> Any:
        gradient = np.zeros(lifted_shape, upstream.dtype)
        np.put_along_axis(gradient, at.reshape(kept_shape), upstream.reshape(kept_shape), dim)
        return gradient.reshape(shape)

    return Extremes(record(name, values, (input, rule, (indices,))), indices)


def _index(input: Variable, find: Callable[..., Any], dim: int | None, keepdim: bool) -> Any:
    if dim is None:
        if input.numel() == 0:
            raise IndexError(
                f"{find.__name__}(): Expected reduction dim to be specified for input.numel() == 0."
            )
        index = find(input.array)
        return index.reshape((1,) * input.ndim) if keepdim else index
    dim = normal_dim(dim, input.ndim)
    if input.ndim == 0:
        return np.zeros((), np.int64)
    if input.shape[dim] == 0:
        name = find.__name__.removeprefix("arg")
        raise IndexError(f"{name}(): Expected reduction dim {dim} to have non-zero size.")
    return find(input.array, axis=dim, keepdims=keepdim)
