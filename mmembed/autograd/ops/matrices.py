"""Products of matrices and vectors.

Must not know layers or losses.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import Array
from ..recording import record
from ..variable import Variable
from .arithmetic import add
from .operands import Operand, check_broadcast, data, narrowed, operands, quiet, unbroadcast
from .shape import mT, t

if TYPE_CHECKING:
    from ..tensor import Tensor

_NAMES = {
    (1, 1): "DotBackward0",
    (2, 1): "MvBackward0",
    (1, 2): "MmBackward0",
    (2, 2): "MmBackward0",
}


@quiet
def matmul(input: Operand, other: Operand) -> Tensor:
    """Return the matrix product.

    Parameters
    ----------
    input : (k,), (m, k) or (..., m, k), a tensor or an ndarray.
    other : (k,), (k, n) or (..., k, n); leading dimensions are broadcast against those of input.

    Raises
    ------
    RuntimeError  the sizes do not go together, or an operand has no dimension.

    Source: torch.matmul. Differs: operands of two dtypes are promoted.
    """
    a, b = operands(input, other)
    x, y = np.asarray(data(a)), np.asarray(data(b))
    _check(x, y)
    return record(
        _NAMES.get((x.ndim, y.ndim), "BmmBackward0"),
        narrowed(np.matmul(x, y), x, y),
        (a, _rule_for_first(x.shape, y.ndim), (b,)),
        (b, _rule_for_second(x.ndim, y.shape, _is_by_columns(y)), (a,)),
    )


def bmm(input: Operand, mat2: Operand) -> Tensor:
    """Return the products of two stacks of matrices, one by one; nothing is broadcast.

    Parameters
    ----------
    input : (b, m, k), a tensor or an ndarray.
    mat2 : (b, k, n).

    Raises
    ------
    RuntimeError  an operand has not three dimensions, or sizes differ (torch's texts).

    Source: torch.bmm. Differs: operands of two dtypes are promoted.
    """
    x, y = np.shape(data(input)), np.shape(data(mat2))
    for position, shape in enumerate((x, y), start=1):
        if len(shape) != 3:
            raise RuntimeError(f"batch{position} must be a 3D tensor")
    if (x[0], x[2]) != y[:2]:
        raise RuntimeError(_unequal_stacks(x[0], x[2], y[:2]))
    return matmul(input, mat2)


def linear(input: Operand, weight: Variable, bias: Variable | None = None) -> Tensor:
    """Return input @ weight.t() + bias. Source: torch.nn.functional.linear."""
    product = matmul(input, t(weight) if weight.ndim < 3 else mT(weight))
    return product if bias is None else add(product, bias)


def _rule_for_first(shape: tuple[int, ...], other_ndim: int) -> Any:
    matrix_shape = shape if len(shape) > 1 else (1, *shape)

    def rule(upstream: Any, other: Array) -> Any:
        matrix = other if other_ndim > 1 else other[:, None]
        lifted = _lift(upstream, len(shape), other_ndim)
        gradient = unbroadcast(np.matmul(lifted, np.swapaxes(matrix, -1, -2)), matrix_shape)
        return gradient.reshape(shape) if len(shape) == 1 else gradient

    return rule


def _rule_for_second(other_ndim: int, shape: tuple[int, ...], by_columns: bool) -> Any:
    matrix_shape = shape if len(shape) > 1 else (*shape, 1)

    def rule(upstream: Any, other: Array) -> Any:
        matrix = other if other_ndim > 1 else other[None, :]
        lifted = _lift(upstream, other_ndim, len(shape))
        if len(matrix_shape) == 2:  # one product instead of one per stacked matrix
            rows = math.prod(matrix.shape[:-1])
            matrix = matrix.reshape(rows, matrix.shape[-1])
            lifted = lifted.reshape(rows, lifted.shape[-1])
        gradient = unbroadcast(
            _product(np.swapaxes(matrix, -1, -2), lifted, by_columns), matrix_shape
        )
        return gradient.reshape(shape) if len(shape) == 1 else gradient

    return rule


def _is_by_columns(matrices: Array) -> bool:
    """Return whether the columns of stacked matrices are contiguous, as after a transposition."""
    return matrices.ndim > 1 and matrices.strides[-2] == matrices.itemsize < matrices.strides[-1]


def _product(a: Array, b: Array, by_columns: bool) -> Array:
    """Return a @ b, laid out by columns if asked for.

    A gradient laid out as its input is contiguous again once the input's transposition is undone.
    """
    if not by_columns:
        return np.matmul(a, b)  # type: ignore[no-any-return]
    transposed = np.matmul(np.swapaxes(b, -1, -2), np.swapaxes(a, -1, -2))
    return np.swapaxes(transposed, -1, -2)


def _lift(upstream: Any, first_ndim: int, second_ndim: int) -> Array:
    """Give the gradient of a product back the dimensions that its vectors lacked."""
    lifted = np.asarray(upstream)
    if second_ndim == 1:
        lifted = lifted[..., None]
    return lifted[..., None, :] if first_ndim == 1 else lifted


def _check(x: Array, y: Array) -> None:
    if x.ndim == 0 or y.ndim == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {x.ndim}D and {y.ndim}D"
        )
    inner = y.shape[0] if y.ndim == 1 else y.shape[-2]
    if x.shape[-1] == inner:
        check_broadcast(x.shape[:-2], y.shape[:-2])
        return
    if x.ndim > 2 and y.ndim > 2:
        check_broadcast(x.shape[:-2], y.shape[:-2])
        count = math.prod(np.broadcast_shapes(x.shape[:-2], y.shape[:-2]))
        raise RuntimeError(_unequal_stacks(count, x.shape[-1], (count, inner)))
    rows = x.size // x.shape[-1] if x.shape[-1] else 0
    if x.ndim == y.ndim == 1:
        raise RuntimeError(
            f"inconsistent tensor size, expected tensor [{x.size}] and src [{y.size}] to have the "
            f"same number of elements, but got {x.size} and {y.size} elements respectively"
        )
    if y.ndim == 1:
        raise RuntimeError(
            f"size mismatch, got input ({rows}), mat ({rows}x{x.shape[-1]}), vec ({y.size})"
        )
    raise RuntimeError(
        f"mat1 and mat2 shapes cannot be multiplied ({rows}x{x.shape[-1]} and "
        f"{inner}x{y.shape[-1]})"
    )


def _unequal_stacks(count: int, inner: int, got: tuple[int, ...]) -> str:
    return (
        "Expected size for first two dimensions of batch2 tensor to be: "
        f"{[count, inner]} but got: {list(got)}."
    )
