"""Results and gradients against torch, for every operation, over drawn shapes and values."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, mutually_broadcastable_shapes

from mmembed import autograd

from .case import BROADCAST, MATRIX, ONE, values
from .cases import CASES, NAMES, OURS

torch = pytest.importorskip("torch")

TORCH = SimpleNamespace(
    F=torch.nn.functional,
    tensor=torch.from_numpy,
    **{name: getattr(torch, name) for name in NAMES},
)
RTOL = {np.float32: 2e-5, np.float64: 1e-11}
REFUSALS = (RuntimeError, IndexError, ValueError)


def outcome(lib, make, case, arrays):
    """Return the result and the gradients, or the class of the error."""
    inputs = [make(array) for array in arrays]
    for tensor in inputs:
        tensor.requires_grad_()
    try:
        output = case.function(lib, *inputs)
    except REFUSALS as error:
        return error
    weights = np.linspace(-1, 2, int(np.prod(output.shape)), dtype=arrays[0].dtype)
    output.backward(make(weights.reshape(tuple(output.shape))))
    gradients = [
        make(np.zeros_like(a)) if t.grad is None else t.grad
        for t, a in zip(inputs, arrays, strict=True)
    ]
    return [np.asarray(result.detach()) for result in [output, *gradients]]


def check_same(case, arrays):
    """Fail unless mmembed and torch agree; both may refuse."""
    theirs = outcome(TORCH, lambda array: torch.from_numpy(array.copy()), case, arrays)
    ours = outcome(OURS, lambda array: autograd.tensor(array), case, arrays)
    if isinstance(theirs, Exception) or isinstance(ours, Exception):
        assert isinstance(ours, type(theirs)), (theirs, ours)
        return
    for mine, other in zip(ours, theirs, strict=True):
        assert mine.shape == other.shape
        assert mine.dtype == other.dtype
        rtol = RTOL[arrays[0].dtype.type]
        finite = other[np.isfinite(other)]
        atol = rtol * max(1e-3, float(np.max(np.abs(finite), initial=0)))
        np.testing.assert_allclose(mine, other, rtol=rtol, atol=atol)


def shapes_for(case):
    """Draw shapes like those of the case, up to three dimensions, empty and 0-d included."""
    sides = {"min_side": 0, "max_side": 4}
    if case.shapes is ONE:
        return array_shapes(min_dims=0, max_dims=3, **sides).map(lambda shape: (shape,))
    if case.shapes is MATRIX:
        return st.sampled_from([*MATRIX, ((4, 4),), ((4, 4, 4),)])
    if case.shapes is BROADCAST:
        both = mutually_broadcastable_shapes(num_shapes=2, max_dims=3, **sides)
        return both.map(lambda drawn: drawn.input_shapes)
    return st.sampled_from(case.shapes)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_operation_agrees_with_torch(name, data):
    case = CASES[name]
    shapes = data.draw(shapes_for(case))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    arrays = [values(s, kind, rng, dtype) for s, kind in zip(shapes, case.kinds, strict=True)]

    check_same(case, arrays)
