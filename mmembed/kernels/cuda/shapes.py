"""How arrays on the device are walked: elements per load, threads per row, and what is refused.

Must not know kernels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...narrow import is_bfloat16
from .memory import DeviceArray

KINDS = ("float32", "float64", "float16", "bfloat16")


def kind_of(array: DeviceArray) -> str:
    """Return the kind of an array's elements; TypeError if kernels do not know it."""
    kind = "bfloat16" if is_bfloat16(array.dtype) else array.dtype.name
    if kind not in KINDS:
        raise TypeError(f"rows on the GPU must be one of {', '.join(KINDS)}, got {array.dtype}")
    return kind


def index_of(array: DeviceArray) -> str:
    """Return the name of an integer dtype that kernels take; TypeError if it is another."""
    if array.dtype.name not in ("int32", "int64") or array.ndim != 1 or not array.contiguous:
        raise TypeError(f"expected a contiguous vector of int32 or int64, got {array!r}")
    return array.dtype.name


def width_of(dim: int, *arrays: DeviceArray) -> int:
    """Return how many elements a thread moves at a time: 8, 4, 2 or 1.

    It divides dim, and every row of every array begins where such a load may begin. A narrow
    array in 16 bytes has 8 elements; float32 ones beside it are then moved in two loads.
    """
    most = 16 // min(array.itemsize for array in arrays)
    for width in (8, 4, 2):
        if width <= most and dim % width == 0 and all(_fits(array, width) for array in arrays):
            return width
    return 1


def _fits(array: DeviceArray, width: int) -> bool:
    step = min(16, width * array.itemsize)
    return (array.address | array.row_stride) % step == 0


def stride_of(array: DeviceArray) -> int:
    """Return the number of elements from one row to the next."""
    elements, rest = divmod(array.row_stride, array.itemsize)
    if rest:
        raise ValueError(f"rows of {array!r} are {array.row_stride} bytes apart")
    return elements


def check_rows(array: DeviceArray) -> None:
    """Raise ValueError unless an array is a matrix whose rows are contiguous."""
    # The strides of an array without elements say nothing.
    spread = array.ndim == 2 and array.size and array.shape[1] > 1
    if array.ndim != 2 or (spread and array.strides[1] != array.itemsize):
        raise ValueError(f"expected (rows, dim) with contiguous rows, got {array!r}")


def working_dtype(array: DeviceArray) -> np.dtype[Any]:
    """Return the dtype of arithmetic on an array's rows."""
    return np.dtype(np.float64 if array.dtype == np.float64 else np.float32)
