"""Rules for RowOptimizer, at the top of a module so that optimizers with them can be pickled."""

from __future__ import annotations

import numba
import numpy as np


def plain(w, g, lr=0.5):
    for j in range(w.size):
        w[j] = w[j] - lr * g[j]


def rowwise(w, total, g, lr, eps):
    squares = 0.0
    for j in range(w.size):
        squares += np.float64(g[j]) * np.float64(g[j])
    total[0] = total[0] + squares / w.size
    for j in range(w.size):
        w[j] = w[j] - lr / (np.sqrt(total[0]) + eps) * g[j]


def counting(w, seen, g, step):
    w[0] = step
    seen[0] += 1


def spoiling(w, g):
    for j in range(w.size):
        g[j] = 7 * g[j]
        w[j] = w[j] - g[j]


def returning(w, g, lr):
    return w - lr * g


def unfit(w, g):
    w[0] = "text"


def starred(w, *others):
    w[0] = 1


jitted = numba.njit(plain)
narrow = numba.njit("void(float64[::1], float64[::1], float64)")(plain)
