"""The random numbers of the package: one generator, set by `manual_seed`.

Must not know tensors. Not for use by several threads at once.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from ..narrow import is_floating
from .dtypes import Array

_PART = 1 << 20  # elements drawn at a time
_generator = np.random.Generator(np.random.Philox())


def manual_seed(seed: int) -> np.random.Generator:
    """Restart all random numbers from `seed` (a nonnegative integer), and return the generator.

    Everything random in the package follows from the last seed given. Without one, each process
    draws differently.
    """
    _generator.bit_generator.state = np.random.Philox(seed).state
    return _generator


def default_generator() -> np.random.Generator:
    """Return the generator that every random function draws from."""
    return _generator


def next_seed() -> int:
    """Draw a fresh seed, 0 .. 2**64 - 1, for something that makes its own random numbers."""
    return int(_generator.integers(0, 2**64 - 1, dtype=np.uint64, endpoint=True))


def fill_normal(out: Array, mean: float, std: float) -> None:
    """Fill a floating array with draws from N(mean, std**2)."""
    for part in _parts(out):
        part[...] = _generator.standard_normal(part.shape, _drawn(part)) * std + mean


def fill_uniform(out: Array, low: float, high: float) -> None:
    """Fill a floating array with uniform draws from low..high."""
    for part in _parts(out):
        part[...] = _generator.random(part.shape, _drawn(part)) * (high - low) + low


def _parts(out: Array) -> Iterator[Array]:
    """Yield views that make up `out`, so that filling a huge array needs little memory."""
    if not is_floating(out.dtype):
        raise TypeError(f"random numbers need a floating tensor, got {out.dtype}")
    if out.ndim == 0:
        yield out
        return
    rows = max(1, _PART // max(1, math.prod(out.shape[1:])))
    for start in range(0, len(out), rows):
        yield out[start : start + rows]


def _drawn(part: Array) -> type[np.float64] | type[np.float32]:
    return np.float64 if part.dtype == np.float64 else np.float32
