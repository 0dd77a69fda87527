"""Checks a gradient against differences of the function itself, along random directions."""

from __future__ import annotations

import numpy as np

from mmembed.autograd import tensor

STEP = 1e-5
TOLERANCE = 1e-6


def check_gradient(function, *arrays, directions=3, seed=0):
    """Raise AssertionError unless backward through `function` agrees with central differences.

    The output is projected on a random vector; the derivative of that number is compared along
    random directions, for each input by itself. Everything is float64.
    """
    rng = np.random.default_rng(seed)
    arrays = [np.asarray(array, np.float64) for array in arrays]
    inputs = [tensor(array, requires_grad=True) for array in arrays]
    output = function(*inputs)
    projection = rng.standard_normal(output.shape)
    output.backward(tensor(projection))

    def projected(position, array):
        changed = [tensor(array if i == position else a) for i, a in enumerate(arrays)]
        return float(np.sum(function(*changed).array * projection))

    for position, (array, leaf) in enumerate(zip(arrays, inputs, strict=True)):
        gradient = leaf.grad.array
        assert gradient.shape == array.shape
        assert gradient.dtype == np.float64
        for _ in range(directions if array.size else 0):
            direction = rng.standard_normal(array.shape)
            above = projected(position, array + STEP * direction)
            below = projected(position, array - STEP * direction)
            expected = (above - below) / (2 * STEP)
            found = float(np.sum(gradient * direction))
            scale = float(np.sum(np.abs(gradient * direction)))
            assert abs(found - expected) <= TOLERANCE * max(scale, abs(expected), 1e-3), (
                f"input {position}: the rule gives {found}, differences give {expected}"
            )
