"""Drawn programs of views, changes in place and arithmetic, beside torch."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed import autograd

torch = pytest.importorskip("torch")

# What is written is first multiplied by 1: torch reads overlapping memory while it writes it.
STEPS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "scale": lambda a, b: a * 2,
    "matmul": lambda a, b: a @ b,
    "square": lambda a, b: a**2,
    "sigmoid": lambda a, b: a.sigmoid(),
    "tanh": lambda a, b: a.tanh(),
    "abs": lambda a, b: a.abs(),
    "mean": lambda a, b: a.mean(0),
    "softmax": lambda a, b: a.softmax(-1),
    "t": lambda a, b: a.t(),
    "first": lambda a, b: a[0],
    "rest": lambda a, b: a[1:],
    "middle": lambda a, b: a[..., 1:2],
    "unsqueeze": lambda a, b: a.unsqueeze(0),
    "squeeze": lambda a, b: a.squeeze(),
    "clone": lambda a, b: a.clone(),
    "detach": lambda a, b: a.detach(),
    "add_": lambda a, b: a.add_(b * 1),
    "mul_": lambda a, b: a.mul_(b * 1),
    "div_": lambda a, b: a.div_(2),
    "neg_": lambda a, b: a.neg_(),
    "copy_": lambda a, b: a.copy_(b * 1),
    "zero_": lambda a, b: a.zero_(),
    "set first": lambda a, b: a.__setitem__(0, b * 1),
    "set last": lambda a, b: a.__setitem__((..., -1), 0.5),
}
IN_PLACE = [name for name in STEPS if name.endswith("_") or name.startswith("set")]
ONLY_OURS = (
    "a view whose gradient is recorded",
    "was taken before a recorded in-place change of its base",
)

ONLY_TORCH = ("refer to a single memory location",)

step = st.tuples(
    st.sampled_from(sorted(STEPS)), st.integers(0, 99), st.integers(0, 99), st.booleans()
)
program = st.lists(step, min_size=1, max_size=12)


def run(lib, make, steps):
    """Return (values, gradients, changes counted), or (place, message) of the first refusal."""
    rng = np.random.default_rng(0)
    leaves = [make(rng.uniform(0.5, 1.5, (3, 3))).requires_grad_() for _ in range(2)]
    pool = [*leaves, make(rng.uniform(0.5, 1.5, (3, 3)))]
    born = [0, 0, 0]
    for position, (name, first, second, quiet) in enumerate(steps):
        a, b = pool[first % len(pool)], pool[second % len(pool)]
        try:
            if quiet and name in IN_PLACE:
                with lib.no_grad():
                    result = STEPS[name](a, b)
            else:
                result = STEPS[name](a, b)
        except (RuntimeError, IndexError, TypeError) as error:
            return position, str(error)
        if result is not None:
            pool.append(result)
            born.append(result._version)
    try:
        sum(tensor.sum() for tensor in pool).backward()
    except (RuntimeError, TypeError) as error:
        return "backward", str(error)
    gradients = [leaf.grad.tolist() for leaf in leaves]
    return (
        [t.tolist() for t in pool],
        gradients,
        [t._version - first for t, first in zip(pool, born, strict=True)],
    )


@settings(max_examples=400)
@given(steps=program)
def test_programs_agree_with_torch(steps):
    ours = run(autograd, autograd.tensor, steps)
    theirs = run(torch, lambda array: torch.from_numpy(array.copy()), steps)

    if len(ours) == 2 and any(text in ours[1] for text in ONLY_OURS):
        return
    if len(theirs) == 2 and any(text in theirs[1] for text in ONLY_TORCH):
        return
    assert len(ours) == len(theirs), (ours, theirs)
    if len(ours) == 2:
        assert ours[0] == theirs[0]
        return
    for mine, other in zip(ours[0] + ours[1], theirs[0] + theirs[1], strict=True):
        np.testing.assert_allclose(mine, other, rtol=1e-9, atol=1e-12)
    assert ours[2] == theirs[2]
