"""Sums of the entries of a batch by row, in the order of the batch; narrow ones are rounded once.

Must not know gradients, tables or files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..kernels import packed
from ..narrow import is_narrow, wide
from .plan import RowArray, RowPlan

FloatArray = npt.NDArray[np.floating[Any]]


def sums_by_row(values: FloatArray, order: RowArray, plan: RowPlan) -> FloatArray:
    """Return the sum of each row's entries, (distinct ids, dim), in their dtype.

    Entries are values[order], grouped by row as the plan says.
    """
    sums: FloatArray = np.empty((plan.unique.size, values.shape[1]), wide(values.dtype))
    kernels.segment_sum(_wide(values, sums.dtype), order, plan.starts, sums)
    return packed.rounded(sums, values.dtype) if is_narrow(values.dtype) else sums


def add_to_rows(values: FloatArray, order: RowArray, plan: RowPlan, dense: FloatArray) -> None:
    """Add each entry to its row of dense, (plan.rows, dim), one after the other."""
    if is_narrow(dense.dtype):
        met = dense[plan.unique].astype(wide(dense.dtype))
        into, ids = met, np.arange(len(met))
    else:
        into, ids = dense, plan.unique
    kernels.scatter_add(_wide(values, into.dtype), order, plan.starts, ids, into)
    if into is not dense:
        dense[plan.unique] = packed.rounded(into, dense.dtype)


def _wide(values: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    return np.require(values, dtype, ["C", "A"])
