"""Every gradient rule against differences of its operation; the check against wrong rules."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.autograd import record
from mmembed.autograd.ops.operands import unbroadcast

from .case import values
from .cases import CASES, OURS
from .checker import check_gradient


@pytest.mark.parametrize("name", CASES)
def test_rule_agrees_with_differences(name):
    case = CASES[name]
    rng = np.random.default_rng(3)

    for shapes in case.shapes:
        arrays = [values(shape, kind, rng) for shape, kind in zip(shapes, case.kinds, strict=True)]
        if any(a.size == 0 for a in arrays) and name.startswith("norm"):
            continue
        check_gradient(lambda *tensors: case.function(OURS, *tensors), *arrays)


def product(rule_a, rule_b):
    """Return a multiplication with the given rules."""

    def function(a, b):
        return record("Product", a.array * b.array, (a, rule_a, (b,)), (b, rule_b, (a,)))

    return function


def right_a(upstream, b):
    return unbroadcast(upstream * b, (3, 2))


def right_b(upstream, a):
    return unbroadcast(upstream * a, (2,))


def wrong_in_one_element(upstream, b):
    gradient = right_a(upstream, b)
    gradient[1, 1] *= 1.05
    return gradient


MUTANTS = {
    "0.05 % too large": (lambda g, b: right_a(g, b) * 1.0005, right_b),
    "0.05 % too small, second input": (right_a, lambda g, a: right_b(g, a) * 0.9995),
    "wrong sign": (lambda g, b: -right_a(g, b), right_b),
    "zero": (lambda g, b: 0 * right_a(g, b), right_b),
    "one element": (wrong_in_one_element, right_b),
    "upstream forgotten": (lambda g, b: np.broadcast_to(b, (3, 2)).copy(), right_b),
    "mean over repeats instead of sum": (right_a, lambda g, a: (g * a).mean(0)),
    "one repeat only": (right_a, lambda g, a: (g * a)[0]),
    "not summed over repeats": (right_a, lambda g, a: g * a),
    "other dtype": (lambda g, b: right_a(g, b).astype(np.float32), right_b),
}


def test_the_check_accepts_right_rules():
    rng = np.random.default_rng(0)

    check_gradient(product(right_a, right_b), rng.standard_normal((3, 2)), rng.standard_normal(2))


@pytest.mark.parametrize("name", MUTANTS)
def test_the_check_refuses_a_wrong_rule(name):
    rng = np.random.default_rng(0)
    mutant = product(*MUTANTS[name])

    with pytest.raises((AssertionError, RuntimeError)):
        check_gradient(mutant, rng.standard_normal((3, 2)), rng.standard_normal(2))
