"""float16 and bfloat16: which dtypes are narrow, and in which one is worked with them.

NumPy has no bfloat16; the optional package ml_dtypes has one. Such a dtype is known by its name, so
that nothing imports the package before somebody asks for "bfloat16". Must not know what is stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import MissingDependencyError

FLOAT16 = np.dtype(np.float16)
FLOAT32 = np.dtype(np.float32)
BFLOAT16 = "bfloat16"


def is_bfloat16(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is that of ml_dtypes.bfloat16."""
    return dtype.kind == "V" and dtype.name == BFLOAT16


def is_narrow(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is float16 or bfloat16."""
    return dtype == FLOAT16 or is_bfloat16(dtype)


def is_floating(dtype: np.dtype[Any]) -> bool:
    """Return whether a dtype is a floating type; NumPy's own `kind` of bfloat16 is "V"."""
    return dtype.kind == "f" or is_bfloat16(dtype)


def wide(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype of arithmetic and of sums: float32 for narrow ones, else the dtype."""
    return FLOAT32 if is_narrow(dtype) else dtype


def as_dtype(dtype: npt.DTypeLike | None) -> np.dtype[Any]:
    """Return an np.dtype; "bfloat16" is understood.

    Raises
    ------
    MissingDependencyError  it is "bfloat16", and ml_dtypes is not installed.
    TypeError               it is no dtype.
    """
    if isinstance(dtype, str) and dtype == BFLOAT16:
        try:
            import ml_dtypes
        except ImportError:
            raise MissingDependencyError(
                "bfloat16 needs the package ml_dtypes: pip install 'mmembed[bfloat16]'"
            ) from None
        found: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
        return found
    return np.dtype(dtype)
