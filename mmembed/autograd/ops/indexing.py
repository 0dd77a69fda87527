"""Selecting elements: tensor[index].

Must not know in-place changes. Torch's meaning of an index is split into a basic part (a view) and
an advanced part (a copy), because NumPy orders dimensions otherwise where integers and arrays mix.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..dtypes import Array
from ..recording import record
from ..variable import Variable
from .operands import data

if TYPE_CHECKING:
    from ..tensor import Tensor

Item: TypeAlias = Any
"""A checked part of an index: an int, slice, None, `...`, or a tensor or ndarray of indices."""

_EVERYTHING = slice(None)


def getitem(input: Variable, index: Any) -> Tensor:
    """Return input[index].

    Parameters
    ----------
    index : integers, slices, None, `...` (these give a view), integer or bool arrays, tensors or
        lists (these give a copy), or a tuple of them.

    Raises
    ------
    IndexError  an index is out of range, of a wrong type, or there are too many.

    Source: torch.Tensor.__getitem__. Differs: slices may have negative steps; uint8 masks are
    refused.
    """
    items = items_of(index, input.ndim)
    if not any(is_array(item) for item in items):
        return _select(input, items)
    basic, advanced = _split(items, input.ndim)
    if any(item != _EVERYTHING for item in basic):
        input = _select(input, basic)
    return _take(input, advanced)


def items_of(index: Any, ndim: int) -> tuple[Item, ...]:
    """Return the parts of an index, checked; 0-d integers become int, lists become arrays."""
    items = tuple(_item(item) for item in (index if isinstance(index, tuple) else (index,)))
    if sum(_dims_used(item) for item in items) > ndim:
        raise IndexError(f"too many indices for tensor of dimension {ndim}")
    if sum(item is Ellipsis for item in items) > 1:
        raise IndexError("an index can only have a single ellipsis ('...')")
    return items


def numpy_index(items: Sequence[Item]) -> tuple[Any, ...]:
    """Return the index that selects the same elements of an ndarray, for assignment.

    Raises IndexError where NumPy would order the selected dimensions otherwise than torch.
    """
    arrays = [place for place, item in enumerate(items) if is_array(item)]
    if not arrays:
        return _with_ellipsis(items)
    integers = [place for place, item in enumerate(items) if isinstance(item, int)]
    places = sorted(arrays + integers)
    if integers and places[-1] - places[0] >= len(places):
        raise IndexError(
            "an index that mixes integers and arrays with slices between them cannot be assigned "
            "to. Write the integer n as the slice n:n+1"
        )
    return tuple(data(item) for item in items)


def is_array(item: Item) -> bool:
    """Return whether an item of an index is an array or a tensor of indices."""
    return isinstance(item, Variable | np.ndarray)


def translated(error: IndexError) -> IndexError:
    """Return NumPy's error in torch's words."""
    return IndexError(str(error).replace("axis", "dimension"))


def _item(item: Any) -> Item:
    if item is None or item is Ellipsis or isinstance(item, slice):
        return item
    if isinstance(item, bool | np.bool_):
        return np.asarray(item)
    if isinstance(item, Sequence) and not isinstance(item, str | bytes) and not len(item):
        return np.zeros(0, np.int64)
    if isinstance(item, np.ndarray | Sequence) and not isinstance(item, str | bytes):
        item = np.array(item)  # a copy: its owner may change it before backward reads it
    if isinstance(item, Variable | np.ndarray):
        if item.dtype.kind not in "iub" or item.dtype == np.uint8:
            raise IndexError(
                "tensors used as indices must be long, int, byte or bool tensors; got "
                f"{item.dtype}. Cast ids to int64, and masks to bool"
            )
        return int(data(item)) if item.ndim == 0 and item.dtype.kind != "b" else item
    try:
        return operator.index(item)
    except TypeError:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
            f"valid indices (got {type(item).__name__})"
        ) from None


def _dims_used(item: Item) -> int:
    if isinstance(item, Variable | np.ndarray):
        return item.ndim if item.dtype.kind == "b" else 1
    return 0 if item is None or item is Ellipsis else 1


def _split(items: tuple[Item, ...], ndim: int) -> tuple[tuple[Item, ...], tuple[Item, ...]]:
    """Return the basic index to apply first, and the advanced one to apply to what that selects."""
    unused = ndim - sum(_dims_used(item) for item in items)
    basic: list[Item] = []
    advanced: list[Item] = []
    for item in items:
        if is_array(item):
            basic += [_EVERYTHING] * _dims_used(item)
            advanced.append(item)
        elif item is Ellipsis:
            basic += [_EVERYTHING] * unused
            advanced += [_EVERYTHING] * unused
        else:
            basic.append(item)
            if not isinstance(item, int):
                advanced.append(_EVERYTHING)
    return tuple(basic), tuple(advanced)


def _select(input: Variable, items: tuple[Item, ...]) -> Tensor:
    index = _with_ellipsis(items)
    try:
        array = input.array[index]
    except IndexError as error:
        raise translated(error) from None
    shape = input.shape

    def rule(upstream: Any) -> Array:
        gradient = np.zeros(shape, upstream.dtype)
        gradient[index] = upstream
        return gradient

    return record(_name(items), array, (input, rule, ()), view_of=input)


def _with_ellipsis(items: Sequence[Item]) -> tuple[Item, ...]:
    """Return a basic index under which even a single element is an array, and a view."""
    return tuple(items) if Ellipsis in items else (*items, Ellipsis)


def _name(items: tuple[Item, ...]) -> str:
    last = items[-1] if items else Ellipsis
    if isinstance(last, int):
        return "SelectBackward0"
    return {slice: "SliceBackward0", type(None): "UnsqueezeBackward0"}.get(
        type(last), "AliasBackward0"
    )


def _take(input: Variable, items: tuple[Item, ...]) -> Tensor:
    try:
        array = np.asarray(input.array[tuple(data(item) for item in items)], order="C")
    except IndexError as error:
        raise translated(error) from None
    shape = input.shape

    def rule(upstream: Any, *index: Any) -> Array:
        gradient = np.zeros(shape, upstream.dtype)
        if all(isinstance(item, slice) or item.dtype.kind == "b" for item in index):
            gradient[index] = upstream
        else:
            np.add.at(gradient, index, upstream)
        return gradient

    return record("IndexBackward0", array, (input, rule, items))
