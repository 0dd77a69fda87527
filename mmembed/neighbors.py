"""Nearest rows of a table by cosine, block by block, so that the table need not fit in memory.

Must not know words or files.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

FloatArray = npt.NDArray[np.floating[Any]]

BLOCK_BYTES = 16 << 20


def nearest(
    rows: FloatArray, queries: npt.ArrayLike, k: int = 10, exclude: npt.ArrayLike = ()
) -> tuple[npt.NDArray[np.int64], FloatArray]:
    """Return the rows whose direction is closest to that of each query.

    Parameters
    ----------
    rows : (n, dim) floating array, such as `table.column()`; read once from end to end.
    queries : (q, dim).
    k : how many for each query; fewer if there are not that many rows.
    exclude : ids that are left out.

    Returns
    -------
    ids : (q, k), closest first; of equally close ones the lower id first.
    cosines : (q, k); a row or query of zeros has cosine 0 with everything.
    """
    wanted = _unit(np.atleast_2d(np.asarray(queries, rows.dtype)))
    left_out = np.unique(np.asarray(exclude, np.int64))
    ids = np.empty((len(wanted), 0), np.int64)
    cosines = np.empty((len(wanted), 0), rows.dtype)
    block = max(1, BLOCK_BYTES // max(1, rows.itemsize * rows.shape[1]))
    for first in range(0, len(rows), block):
        scores = wanted @ _unit(rows[first : first + block]).T
        here = left_out[(left_out >= first) & (left_out < first + scores.shape[1])]
        scores[:, here - first] = -np.inf
        candidates = np.arange(first, first + scores.shape[1])
        ids = np.hstack([ids, np.broadcast_to(candidates, scores.shape)])
        cosines = np.hstack([cosines, scores])
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
        ids = np.take_along_axis(ids, best, axis=1)
        cosines = np.take_along_axis(cosines, best, axis=1)
    found = len(rows) - np.count_nonzero((left_out >= 0) & (left_out < len(rows)))
    return ids[:, : max(found, 0)], cosines[:, : max(found, 0)]


def _unit(rows: FloatArray) -> FloatArray:
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: FloatArray = rows / np.where(norms > 0, norms, 1).astype(rows.dtype)
    return unit
