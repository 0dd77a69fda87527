"""Initial values in Numba: Philox and Box-Muller, the same numbers as in `reference`.

Must not know tables, nor how arrays reach compiled code.
"""

from __future__ import annotations

import math
from typing import Any

import numba
import numpy as np

from .numba_compile import jitted
from .reference import COS_SERIES, LN2, LOG_SERIES, SIN_SERIES, SQRT_HALF, TWO_PI


@jitted
def _philox(row: Any, block: Any, seed: Any) -> Any:
    """Philox4x32-10 in 64-bit arithmetic; `reference.philox` says where it comes from."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    x0, x1, x2, x3 = block, np.uint64(0), row & low, row >> half
    key0, key1 = seed & low, seed >> half
    for _ in range(10):
        product0 = x0 * np.uint64(0xD2511F53)
        product1 = x2 * np.uint64(0xCD9E8D57)
        x0 = (product1 >> half) ^ x1 ^ key0
        x1 = product1 & low
        x2 = (product0 >> half) ^ x3 ^ key1
        x3 = product0 & low
        key0 = (key0 + np.uint64(0x9E3779B9)) & low
        key1 = (key1 + np.uint64(0xBB67AE85)) & low
    return _between(x0), _between(x1), _between(x2), _between(x3)


@jitted
def _between(word: Any) -> float:
    """Return a word as a number between 0 and 1."""
    return (float(np.int64(word)) + 0.5) * 2.0**-32


@jitted
def _polynomial(series: Any, x: float) -> float:
    value = series[-1]
    for k in range(len(series) - 2, -1, -1):
        value = value * x + series[k]
    return value


@jitted
def _normal_pair(u: float, turn: float) -> Any:
    """Box-Muller: two independent N(0, 1) from two uniforms in (0, 1)."""
    mantissa, exponent = math.frexp(u)
    if mantissa < SQRT_HALF:
        mantissa = mantissa * 2.0
        exponent -= 1
    s = (mantissa - 1.0) / (mantissa + 1.0)
    logarithm = exponent * LN2 + 2.0 * s * _polynomial(LOG_SERIES, s * s)
    radius = math.sqrt(-2.0 * logarithm)
    quarter = int(4.0 * turn + 0.5)
    x = TWO_PI * (turn - 0.25 * quarter)
    sine = x * _polynomial(SIN_SERIES, x * x)
    cosine = _polynomial(COS_SERIES, x * x)
    if quarter % 2 == 1:
        sine, cosine = cosine, sine
    cosine = -cosine if quarter in (1, 2) else cosine
    sine = -sine if quarter in (2, 3) else sine
    return radius * cosine, radius * sine


@jitted
def _four(row: Any, block: Any, kind: int, a: float, b: float, seed: Any) -> Any:
    """Return the values of four columns."""
    w, x, y, z = _philox(row, block, seed)
    if kind == 2:
        w, x = _normal_pair(w, x)
        y, z = _normal_pair(y, z)
    else:
        b = b - a
    return a + b * w, a + b * x, a + b * y, a + b * z


def draw_rows(ids: Any, kind: int, a: float, b: float, seed: Any, out: Any, threads: int) -> None:
    """Set out to initial values, uniform (kind 1) or normal (kind 2)."""
    n, dim = ids.size, out.shape[1]
    for t in numba.prange(threads):
        for i in range(n * t // threads, n * (t + 1) // threads):
            row = np.uint64(ids[i])
            for first in range(0, dim, 4):
                values = _four(row, np.uint64(first // 4), kind, a, b, seed)
                for k in range(min(4, dim - first)):
                    out[i, first + k] = values[k]
