"""Sums, means, products and norms over all elements or along dimensions.

Must not know broadcasting between operands.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ...narrow import is_floating, is_narrow
from ...narrow import wide as wide_dtype
from ..dtypes import FLOAT, Array
from ..recording import OUTPUT, record
from ..variable import Variable
from .operands import floating, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor

Dims: TypeAlias = int | Sequence[int] | None


def normal_dim(dim: int, ndim: int) -> int:
    """Return `dim` as 0..ndim-1; IndexError (torch's text) if out of range. A scalar has dim 0."""
    span = max(ndim, 1)
    if not -span <= dim < span:
        raise IndexError(
            f"Dimension out of range (expected to be in range of [{-span}, {span - 1}], but got "
            f"{dim})"
        )
    return dim % span


def dims_of(dim: Dims, ndim: int) -> tuple[int, ...]:
    """Return the dimensions to reduce: `dim`, or all of them for None or an empty sequence."""
    if dim is None or (isinstance(dim, Sequence) and not dim):
        return tuple(range(ndim))
    wanted = [normal_dim(d, ndim) for d in (dim if isinstance(dim, Sequence) else (dim,))]
    for d in wanted:
        if wanted.count(d) > 1:
            raise RuntimeError(f"dim {d} appears multiple times in the list of dims")
    return tuple(wanted) if ndim else ()


def spread(reduced: Any, shape: tuple[int, ...], dims: tuple[int, ...]) -> Array:
    """Repeat a value reduced over `dims` so that it has `shape` again; a read-only view."""
    kept = [1 if dim in dims else size for dim, size in enumerate(shape)]
    return np.broadcast_to(reduced.reshape(kept), shape)


def total(x: Array, dims: tuple[int, ...], keepdim: bool = False, *, wide: bool = False) -> Any:
    """Return the sum over `dims`, row-major, taken in a wide dtype and left in it if `wide`."""
    if not is_floating(x.dtype):
        return np.asarray(np.sum(x, axis=dims, keepdims=keepdim), order="C")
    found = np.sum(x, axis=dims, keepdims=keepdim, dtype=wide_dtype(x.dtype))
    return np.asarray(found if wide else found.astype(x.dtype), order="C")


def quotient(upstream: Any, count: float) -> Any:
    """Return upstream / count in upstream's dtype, though the count may not fit it."""
    dtype = upstream.dtype
    return (upstream.astype(wide_dtype(dtype), copy=False) / count).astype(dtype, copy=False)


@quiet
def sum(input: Variable, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None) -> Tensor:
    """Return the sum of all elements, or along `dim` (also called `axis`)."""
    shape = input.shape
    dims = dims_of(axis if dim is None else dim, input.ndim)
    return record(
        "SumBackward0" if len(dims) == len(shape) else "SumBackward1",
        total(input.array, dims, keepdim),
        (input, lambda upstream: spread(upstream, shape, dims), ()),
    )


@quiet
def mean(input: Variable, dim: Dims = None, keepdim: bool = False, *, axis: Dims = None) -> Tensor:
    """Return the mean of all elements, or along `dim` (also called `axis`); of none, nan."""
    x = floating(input)
    shape = x.shape
    dims = dims_of(axis if dim is None else dim, x.ndim)
    count = math.prod(shape[d] for d in dims)
    return record(
        "MeanBackward0" if len(dims) == len(shape) else "MeanBackward1",
        (total(x.array, dims, keepdim, wide=True) / count).astype(x.dtype),
        (x, lambda upstream: spread(quotient(upstream, count), shape, dims), ()),
    )


@quiet
def prod(
    input: Variable, dim: int | None = None, keepdim: bool = False, *, axis: int | None = None
) -> Tensor:
    """Return the product of all elements, or along `dim` (also called `axis`)."""
    dim = axis if dim is None else dim
    dims = dims_of(dim, input.ndim)

    def rule(upstream: Any, x: Array) -> Any:
        flat = x.reshape(-1) if dim is None else x
        others = _product_of_others(flat, -1 if dim is None or not dims else dims[0])
        return spread(upstream, x.shape, dims) * others.reshape(x.shape)

    return record(
        "ProdBackward0" if dim is None else "ProdBackward1",
        np.prod(input.array, axis=dims, keepdims=keepdim),
        (input, rule, (input,)),
    )


def _product_of_others(x: Array, axis: int) -> Array:
    """Return for each element the product of the others along `axis`, also where some are 0."""
    x = np.moveaxis(np.atleast_1d(x), axis, -1)
    before, after = np.ones_like(x), np.ones_like(x)
    np.cumprod(x[..., :-1], axis=-1, out=before[..., 1:])
    np.cumprod(x[..., :0:-1], axis=-1, out=after[..., -2::-1])
    product: Array = before * after
    return np.moveaxis(product, -1, axis)


@quiet
def norm(input: Variable, p: float | str = 2, dim: Dims = None, keepdim: bool = False) -> Tensor:
    """Return the p-norm of all elements, or along `dim`.

    p = 0 counts nonzero elements; p = inf and -inf give the largest and smallest magnitude. Where
    the norm has a corner, its gradient is 0; elements that tie for p = inf or -inf share it.

    Source: torch.Tensor.norm.
    """
    x = floating(input)
    dims = dims_of(dim, x.ndim)
    order = 2.0 if p == "fro" else float(p)
    shape = x.shape
    if (order < 0 or order == np.inf) and 0 in [shape[d] for d in dims]:
        raise RuntimeError(
            f"linalg.vector_norm cannot compute the {p} norm on an empty tensor because the "
            "operation does not have an identity"
        )
    return record(
        "LinalgVectorNormBackward0",
        _norm(x.array, order, dims, keepdim),
        (
            x,
            lambda upstream, x, output: (
                spread(upstream, shape, dims)
                * _norm_slope(x, spread(output, shape, dims), order, dims)
            ),
            (x, OUTPUT),
        ),
    )


def _norm(x: Array, p: float, dims: tuple[int, ...], keepdim: bool) -> Any:
    if is_narrow(x.dtype):
        return _norm(x.astype(FLOAT), p, dims, keepdim).astype(x.dtype)
    if p == 2:
        return np.sqrt(np.sum(x * x, axis=dims, keepdims=keepdim))
    if p == 0:
        return np.sum(x != 0, axis=dims, keepdims=keepdim, dtype=x.dtype)
    magnitude = np.abs(x)
    if p == np.inf:
        return np.max(magnitude, axis=dims, keepdims=keepdim)
    if p == -np.inf:
        return np.min(magnitude, axis=dims, keepdims=keepdim)
    if p == 1:
        return np.sum(magnitude, axis=dims, keepdims=keepdim)
    return np.sum(magnitude**p, axis=dims, keepdims=keepdim) ** (1 / p)


def _norm_slope(x: Array, norm: Array, p: float, dims: tuple[int, ...]) -> Any:
    if p == 0:
        return np.zeros_like(x)
    if p == 1:
        return np.sign(x)
    if np.isinf(p):
        hit = np.abs(x) == norm
        return np.sign(x) * hit / np.sum(hit, axis=dims, keepdims=True, dtype=x.dtype)
    slope = x / norm if p == 2 else np.sign(x) * (np.abs(x) / norm) ** (p - 1)
    return np.where((norm == 0) | (x == 0), x.dtype.type(0), slope)
