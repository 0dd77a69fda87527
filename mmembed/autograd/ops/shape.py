"""The same elements in another shape or order, and tensors joined into one.

Must not know element values. All but `cat`, `stack` and some `reshape`s give views, which share
memory and version counter with what they were taken from.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ...narrow import is_floating
from ..dtypes import Array
from ..recording import record
from ..variable import Variable
from .cast import cast
from .reduce import dims_of, normal_dim

if TYPE_CHECKING:
    from ..tensor import Tensor


def size_of(size: Sequence[int | Sequence[int]]) -> tuple[int, ...]:
    """Return the sizes given as f(2, 3), f((2, 3)) or f([2, 3])."""
    if len(size) == 1 and isinstance(size[0], Sequence):
        return tuple(size[0])
    return tuple(size)  # type: ignore[arg-type]


def transpose(input: Variable, dim0: int, dim1: int) -> Tensor:
    """Return a view with two dimensions swapped."""
    dim0, dim1 = normal_dim(dim0, input.ndim), normal_dim(dim1, input.ndim)

    def swap(x: Array) -> Array:
        return x.swapaxes(dim0, dim1) if x.ndim else x

    return record("TransposeBackward0", swap(input.array), (input, swap, ()), view_of=input)


def t(input: Variable) -> Tensor:
    """Return a matrix transposed, as a view; tensors with fewer dimensions as they are."""
    if input.ndim > 2:
        raise RuntimeError(
            f"t() expects a tensor with <= 2 dimensions, but self is {input.ndim}D. Use "
            "transpose() or mT"
        )
    return record(
        "TBackward0", input.array.T, (input, lambda upstream: upstream.T, ()), view_of=input
    )


def mT(input: Variable) -> Tensor:  # noqa: N802 - torch's name
    """Return a view with the last two dimensions swapped."""
    if input.ndim < 2:
        raise RuntimeError(
            "tensor.mT is only supported on matrices or batches of matrices. Got "
            f"{input.ndim}-D tensor."
        )
    return transpose(input, -2, -1)


def permute(input: Variable, *dims: int | Sequence[int]) -> Tensor:
    """Return a view whose dimension i is dimension dims[i] of the input."""
    wanted = size_of(dims)
    if len(wanted) != input.ndim:
        raise RuntimeError(
            "permute(sparse_coo): number of dimensions in the tensor input does not match the "
            f"length of the desired ordering of dimensions i.e. input.dim() = {input.ndim} is not "
            f"equal to len(dims) = {len(wanted)}"
        )
    order = [normal_dim(d, input.ndim) for d in wanted]
    if len(set(order)) != len(order):
        raise RuntimeError("permute(): duplicate dims are not allowed.")
    back = np.argsort(order)
    return record(
        "PermuteBackward0",
        input.array.transpose(order),
        (input, lambda upstream: upstream.transpose(back), ()),
        view_of=input,
    )


def reverse_dims(input: Variable) -> Tensor:
    """Return a view with all dimensions in reverse order."""
    return permute(input, *range(input.ndim)[::-1])


def reshape(input: Variable, *shape: int | Sequence[int]) -> Tensor:
    """Return the elements, in row-major order, in another shape (one size may be -1).

    A view where strides allow it, else a copy.
    """
    return _reshape(input, size_of(shape), may_copy=True)


def view(input: Variable, *shape: int | Sequence[int]) -> Tensor:
    """Return a view in another shape; RuntimeError where only a copy could have it."""
    return _reshape(input, size_of(shape), may_copy=False)


def flatten(input: Variable) -> Tensor:
    """Return the elements in one dimension; a view where strides allow it."""
    return reshape(input, -1)


def _reshape(input: Variable, shape: tuple[int, ...], may_copy: bool) -> Tensor:
    old = input.shape
    try:
        array = input.array.reshape(shape)
    except ValueError:
        if shape.count(-1) > 1:
            raise RuntimeError("only one dimension can be inferred") from None
        raise RuntimeError(
            f"shape '{list(shape)}' is invalid for input of size {input.numel()}"
        ) from None
    is_view = array.size == 0 or np.may_share_memory(array, input.array)
    if not is_view and not may_copy:
        raise RuntimeError(
            "view size is not compatible with input tensor's size and stride (at least one "
            "dimension spans across two contiguous subspaces). Use .reshape(...) instead."
        )
    return record(
        "ViewBackward0" if is_view else "UnsafeViewBackward0",
        array,
        (input, lambda upstream: upstream.reshape(old), ()),
        view_of=input if is_view else None,
    )


def unsqueeze(input: Variable, dim: int) -> Tensor:
    """Return a view with a dimension of size 1 inserted before `dim`."""
    old = input.shape
    array = np.expand_dims(input.array, normal_dim(dim, input.ndim + 1))
    return record(
        "UnsqueezeBackward0",
        array,
        (input, lambda upstream: upstream.reshape(old), ()),
        view_of=input,
    )


def squeeze(input: Variable, dim: int | Sequence[int] | None = None) -> Tensor:
    """Return a view without dimensions of size 1: all such, or those of `dim` that are."""
    old = input.shape
    wanted = () if isinstance(dim, Sequence) and not dim else dims_of(dim, input.ndim)
    dropped = tuple(d for d in wanted if old[d] == 1)
    return record(
        "SqueezeBackward0" if dim is None else "SqueezeBackward1",
        input.array.squeeze(dropped),
        (input, lambda upstream: upstream.reshape(old), ()),
        view_of=input,
    )


def cat(tensors: Sequence[Variable], dim: int = 0) -> Tensor:
    """Return tensors joined along `dim`; their other sizes must agree.

    Source: torch.cat; as there, tensors of shape (0,) go with any shape.
    """
    if not tensors:
        raise ValueError("torch.cat(): expected a non-empty list of Tensors")
    first = next((part for part in tensors if part.shape != (0,)), tensors[0])
    dim = normal_dim(dim, first.ndim)
    empty = (*first.shape[:dim], 0, *first.shape[dim + 1 :])
    parts = [reshape(part, empty) if part.shape == (0,) else part for part in tensors]
    _check_cat(parts, dim)
    return _join("CatBackward0", _in_one_dtype(parts), dim)


def _check_cat(parts: Sequence[Variable], dim: int) -> None:
    first = parts[0].shape
    for position, part in enumerate(parts):
        if part.ndim == 0:
            raise RuntimeError(
                f"zero-dimensional tensor (at position {position}) cannot be concatenated. Use "
                "stack()"
            )
        if part.ndim != len(first):
            raise RuntimeError(
                f"Tensors must have same number of dimensions: got {len(first)} and {part.ndim}"
            )
        for d, size in enumerate(part.shape):
            if d != dim and size != first[d]:
                raise RuntimeError(
                    f"Sizes of tensors must match except in dimension {dim}. Expected size "
                    f"{first[d]} but got size {size} for tensor number {position} in the list."
                )


def _in_one_dtype(parts: Sequence[Variable]) -> list[Tensor]:
    floats = [part.dtype for part in parts if is_floating(part.dtype)]
    dtype = np.result_type(*(floats or [part.dtype for part in parts]))
    return [cast(part, dtype) for part in parts]


def _join(name: str, parts: Sequence[Variable], dim: int) -> Tensor:
    edges = []
    stop = 0
    for part in parts:
        start, stop = stop, stop + part.shape[dim]
        index = (slice(None),) * dim + (slice(start, stop),)
        edges.append((part, lambda upstream, index=index: upstream[index], ()))
    joined = np.concatenate([part.array for part in parts], axis=dim)
    return record(name, np.asarray(joined, order="C"), *edges)


def stack(tensors: Sequence[Variable], dim: int = 0) -> Tensor:
    """Return tensors of one shape joined along a fresh dimension before `dim`."""
    if not tensors:
        raise RuntimeError("stack expects a non-empty TensorList")
    for position, part in enumerate(tensors):
        if part.shape != tensors[0].shape:
            raise RuntimeError(
                f"stack expects each tensor to be equal size, but got {list(tensors[0].shape)} at "
                f"entry 0 and {list(part.shape)} at entry {position}"
            )
    dim = normal_dim(dim, tensors[0].ndim + 1)
    parts = _in_one_dtype(tensors)
    edges = [
        (part, lambda upstream, index=index: upstream[(slice(None),) * dim + (index,)], ())
        for index, part in enumerate(parts)
    ]
    stacked = np.stack([part.array for part in parts], axis=dim)
    return record("StackBackward0", np.asarray(stacked, order="C"), *edges)
