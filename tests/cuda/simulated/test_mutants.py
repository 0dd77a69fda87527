"""Kernels with one thing wrong, each of which the checks in the simulator must catch."""

from __future__ import annotations

import threading
import types
from pathlib import Path

import pytest

from mmembed.kernels.cuda import (
    bag_gradients,
    bags,
    body,
    copies,
    norms,
    rules,
    segments,
    slots,
    sorting,
)
from tests.kernels.checks import CHECKS, check_update

from . import test_bag_gradients, test_caches
from .test_contract import CASES, MORE

# name: (module, what is replaced, by what, kernel whose check catches it)
MUTANTS = {
    "a gather off by one row": (copies, "ids[i + 2 * teams]", "ids[i + teams]", "gather"),
    "an id equal to rows is let through": (copies, "row >= rows", "row > rows", "gather"),
    "negative ids are let through": (copies, "row < 0 or ", "", "gather"),
    "rows are written though an id is bad": (copies, "[0] != NONE", "[0] == 7", "gather"),
    "an entry is summed twice": (segments, "k += 4", "k += 3", "segment_sum"),
    "a sum that starts from 0": (segments, "real(-0.0)", "real(0.0)", "segment_sum"),
    "padding counts in the mean": (bags, "count -= padded", "count -= 0", "gather_bags"),
    "the last of equals is the largest": (bags, "x > best", "x >= best", "gather_bags_max"),
    "half the squares": (norms, "column += 8\n", "column += 16\n", "row_norms"),
    "renorm of a small row": (norms, "size > most", "size > -most", "renorm"),
    "a sort that is not stable": (sorting, "same & below(lane)", "same & ~below(lane)", "plan"),
    "a group that is cut at a chunk": (sorting, "i == 0 or", "i % 32 == 0 or", "plan"),
    "state that is a step behind": (rules, "root(total) +", "root(s) +", "update_adagrad"),
    "decay of another sign": (segments, "g + mul(decay", "g - mul(decay", "update_sgd"),
    "squares of half a row": (segments, "j += 8", "j += 16", "update_rowwise_adagrad"),
    "weights of other entries": (bag_gradients, "p_weights[i1]", "p_weights[i0]", "weighted"),
    "a row of the batch may leave": (slots, "old and heat", "heat", "cache"),
}


weighted = test_bag_gradients.check_weighted_sums
OTHERS = {
    "cache": test_caches.test_a_cold_row_of_the_batch_stays_though_all_others_are_hot,
    "weighted": lambda: weighted("float32", 24),
}


def mutated(module, old, new):
    """Return a module with one place of its text replaced."""
    text = Path(module.__file__).read_text()
    assert old in text
    made = types.ModuleType(module.__name__)
    made.__package__ = module.__package__
    exec(compile(text.replace(old, new, 1), module.__file__, "exec"), made.__dict__)
    return made


def try_kernel(kernel):
    """Run the checks that the suite has for a kernel."""
    if kernel in OTHERS:
        OTHERS[kernel]()
        return
    for case in [*CASES.values(), MORE["wide"], MORE["many"]]:
        if kernel in CHECKS:
            CHECKS[kernel](body, case)
        else:
            check_update(body, case, kernel, 0.125)


@pytest.mark.parametrize("name", MUTANTS)
def test_mutant_is_caught(monkeypatch, name):
    module, old, new, kernel = MUTANTS[name]
    made = mutated(module, old, new)
    for public, value in vars(made).items():
        if hasattr(module, public) and getattr(value, "__module__", None) == module.__name__:
            monkeypatch.setattr(module, public, value)

    # A lane that fails keeps the others waiting: which error is first is a matter of time.
    monkeypatch.setattr("mmembed.kernels.cuda.simulated._PATIENCE", 5.0)
    with pytest.raises((AssertionError, IndexError, threading.BrokenBarrierError)):
        try_kernel(kernel)
