"""Comparing with torch: arrays within rounding, gradients entry by entry."""

from __future__ import annotations

import numpy as np

from mmembed.rows import RowGrad


def in_layout(rows, layout):
    """Return a copy of rows: contiguous, with other rows between them, or column after column."""
    if layout == "strided":
        return np.repeat(rows, 2, axis=0)[::2]
    return np.array(rows, order="F" if layout == "fortran" else "C")


def close(got, want, dtype):
    rtol = 3e-6 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(got, want, rtol=rtol, atol=rtol)


def compare_gradients(got, want, dtype):
    """Ours and torch's: sparse ones have the same entries in the same order."""
    if want.is_sparse:
        assert isinstance(got, RowGrad)
        np.testing.assert_array_equal(got._indices().numpy(), want._indices().numpy())
        close(got._values().numpy(), want._values().numpy(), dtype)
    else:
        dense = got.to_dense() if isinstance(got, RowGrad) else got
        close(dense.numpy(), want.numpy(), dtype)
