"""Nearest rows of a table by cosine, block by block, so that the table need not fit in memory.

Must not know words or files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .storage import Table

FloatArray = npt.NDArray[np.floating[Any]]
IntArray = npt.NDArray[np.int64]

BLOCK_BYTES = 16 << 20


def nearest(
    rows: FloatArray | Table, queries: npt.ArrayLike, k: int = 10, exclude: npt.ArrayLike = ()
) -> tuple[IntArray, FloatArray]:
    """Return the rows whose direction is closest to that of each query.

    Parameters
    ----------
    rows : (n, dim) floating array, or a table, whose `weight` it is; read once from end to end.
    queries : (q, dim).
    k : how many for each query; fewer if there are not that many rows.
    exclude : ids that are left out.

    Returns
    -------
    ids : (q, k), closest first; of equally close ones the lower id first. Rows with a NaN are
        farther than all others.
    cosines : (q, k); a row or query of zeros has cosine 0 with everything.

    Raises
    ------
    ValueError  k is negative, or queries are not as wide as rows.
    """
    if k < 0:
        raise ValueError(f"k must be at least 0, got {k}")
    wanted = _unit(np.atleast_2d(np.asarray(queries, rows.dtype)))
    left_out = np.unique(np.asarray(exclude, np.int64))
    ids = [np.empty(0, np.int64)] * len(wanted)
    cosines = [np.empty(0, rows.dtype)] * len(wanted)
    block = max(1, BLOCK_BYTES // max(1, rows.dtype.itemsize * rows.shape[1]))
    for first in range(0, len(rows), block):
        unit = _unit(rows[first : first + block])
        allowed = np.setdiff1d(np.arange(len(unit)), left_out - first, assume_unique=True)
        scores = wanted @ unit.T
        for i, query in enumerate(wanted):
            near = allowed[_contenders(scores[i, allowed], k)]
            # One by one, and not from the product, whose last bits depend on a row's place in it.
            ids[i] = np.append(ids[i], first + near)
            cosines[i] = np.append(cosines[i], np.sum(unit[near] * query, axis=1))
            best = np.argsort(-cosines[i], kind="stable")[:k]
            ids[i], cosines[i] = ids[i][best], cosines[i][best]
    found = min(k, len(rows) - int(np.count_nonzero((left_out >= 0) & (left_out < len(rows)))))
    shape = (len(wanted), found)
    return np.reshape(ids, shape).astype(np.int64), np.reshape(cosines, shape).astype(rows.dtype)


def _contenders(scores: FloatArray, k: int) -> IntArray:
    """Return where scores are among the k largest, or so close that rounding may hide it."""
    if scores.size <= k:
        return np.arange(scores.size)
    if k == 0:
        return np.empty(0, np.int64)
    scores = np.where(np.isnan(scores), -np.inf, scores)
    least = np.partition(scores, scores.size - k)[scores.size - k]
    return np.flatnonzero(scores >= least - 64 * np.finfo(scores.dtype).eps)


def _unit(rows: FloatArray) -> FloatArray:
    """Return rows at length 1; rows of zeros stay. No square overflows or vanishes."""
    largest = np.max(np.abs(rows), axis=1, keepdims=True, initial=0)
    scaled = rows / np.where(largest > 0, largest, 1)
    norms = np.linalg.norm(scaled, axis=1, keepdims=True)
    unit: FloatArray = scaled / np.where(norms > 0, norms, 1).astype(rows.dtype)
    return unit
