"""Ids to look up: uniform, or skewed as words are.

Must not know who looks them up.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

SKEWS = ("uniform", "zipf")


def draw(rows: int, skew: str, seed: int = 0) -> Callable[[tuple[int, ...]], Any]:
    """Return a function from shapes to int64 ids of 0..rows-1, all from one distribution.

    "zipf" is Zipf(1.05) by inversion over ranks, which one permutation scatters, so that hot rows
    are not neighbours and are the same in every batch.
    """
    rng = np.random.default_rng(seed)
    if skew == "uniform":
        return lambda shape: rng.integers(0, rows, shape)
    cumulated = np.cumsum(np.arange(1, rows + 1, dtype=np.float64) ** -1.05)
    scattered = rng.permutation(rows)
    return lambda shape: scattered[np.searchsorted(cumulated, rng.random(shape) * cumulated[-1])]
