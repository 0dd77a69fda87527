"""Whose memory an array has: where a view lies in the array it was taken from, and what is new.

Knows arrays and addresses only: no tensors, no tape, no tables.
"""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.lib import array_utils

from .dtypes import Array

MOVED = "a view no longer lies in the array it was taken from, which has moved. Take it again"


def rows_of(view: Array, whole: Array) -> slice | None:
    """Return the rows `whole[first:stop]` that hold all of `view`; None stands for all rows.

    Raises
    ------
    RuntimeError  `view` does not lie in `whole`.
    """
    if view.size == 0:
        return slice(0, 0)
    if whole.ndim == 0 or not whole.flags.c_contiguous:
        return None
    start, stop = array_utils.byte_bounds(whole)
    low, high = array_utils.byte_bounds(view)
    if low < start or high > stop:
        raise RuntimeError(MOVED)
    stride = whole.strides[0]
    return slice((low - start) // stride, -((start - high) // stride))


def same_place(view: Array, whole: Array, target: Array) -> Array:
    """Return the part of `target` that lies in it as `view` lies in `whole`.

    `target` and `whole` are C-contiguous and alike in shape and dtype: two maps of the same rows,
    one of which may be written.

    Raises
    ------
    RuntimeError  `view` does not lie in `whole`.
    """
    if view.size == 0:
        return view.copy()
    start, stop = array_utils.byte_bounds(whole)
    low, high = array_utils.byte_bounds(view)
    if low < start or high > stop:
        raise RuntimeError(MOVED)
    offset = view.__array_interface__["data"][0] - start
    return np.ndarray(view.shape, view.dtype, target, offset, view.strides)


def is_new(gradient: Any) -> bool:
    """Return whether a rule's result is an array to whose memory nothing else refers."""
    if not isinstance(gradient, np.ndarray):
        return False
    base = gradient.base
    # Three: the view, the variable here, and the argument of getrefcount.
    return base is None or (isinstance(base, np.ndarray) and sys.getrefcount(base) == 3)
