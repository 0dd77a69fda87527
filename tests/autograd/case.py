"""What a case of a differentiable operation is, and the shapes and values it is tried with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """An operation. `shapes` are tuples of input shapes; `kinds` name the values of each input."""

    function: Any
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    kinds: tuple[str, ...] = ("real",)


def values(shape, kind, rng, dtype=np.float64):
    """Draw an array: real, positive, apart (no zeros, no ties), or zeros among reals."""
    drawn = rng.standard_normal(shape)
    if kind == "positive":
        drawn = np.abs(drawn) + 0.3
    elif kind == "apart":
        ranks = rng.permutation(drawn.size).reshape(shape) + 1.0
        drawn = ranks * np.where(drawn < 0, -0.5, 0.5)
    elif kind == "zeros":
        drawn = np.where(rng.random(shape) < 0.3, 0.0, drawn)
    elif kind == "small":
        drawn = rng.uniform(-1.5, 1.5, shape)
    return np.asarray(drawn, dtype)


BROADCAST = (
    ((3, 2), (3, 2)),
    ((3, 2), (2,)),
    ((2,), (4, 3, 2)),
    ((3, 1), (1, 2)),
    ((), (3, 2)),
    ((4, 1, 2), (3, 1)),
    ((0, 2), (2,)),
    ((), ()),
)
ONE = (((3, 4),), ((5,),), ((2, 3, 4),), ((),), ((0, 3),))
MATRIX = (((3, 4),), ((2, 3, 4),))
PRODUCTS = (
    ((3,), (3,)),
    ((2, 3), (3,)),
    ((3,), (3, 2)),
    ((4, 3), (3, 2)),
    ((5, 4, 3), (3, 2)),
    ((5, 4, 3), (3,)),
    ((3,), (5, 3, 2)),
    ((5, 4, 3), (5, 3, 2)),
    ((2, 1, 4, 3), (5, 3, 2)),
    ((4, 3), (5, 3, 2)),
    ((0, 3), (3, 2)),
    ((4, 0), (0, 2)),
)
PAIR = ("real", "real")


def constant(lib, like, array):
    """Return `array` as a tensor of the library and dtype of `like`."""
    made = lib.tensor(array)
    return made.to(like.dtype) if made.dtype != like.dtype else made


def classes(lib, array):
    return lib.tensor(np.asarray(array, np.int64))
