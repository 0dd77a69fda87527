"""Gradients of lookups and bags against differences of the functions; wrong ones fail."""

from __future__ import annotations

import numpy as np
import pytest

import mmembed.functional.bags
from mmembed import functional as F
from mmembed.autograd import cat, tensor

from ..autograd.checker import check_gradient

TABLE = np.random.default_rng(0).standard_normal((6, 4))
IDS = np.array([5, 1, 1, 0, 3, 1, 5])
FACTORS = np.random.default_rng(1).standard_normal(7)


def dense(function):
    """Let the checker see a sparse gradient as an array: a copy on the way in takes it so."""
    return lambda table, *others: function(table.reshape(6, 4), *others)


def lookup(**options):
    return dense(lambda table: F.embedding(IDS.reshape(7, 1), table, **options))


def bag(*, offsets=(0, 0, 3, 5), **options):
    return dense(
        lambda table, *factors: F.embedding_bag(
            IDS, table, np.array(offsets), per_sample_weights=factors[0] if factors else None,
            **options,
        )
    )  # fmt: skip


CASES = {
    "lookup": (lookup(), ()),
    "sparse lookup": (lookup(sparse=True), ()),
    "sum": (bag(mode="sum"), ()),
    "sparse sum": (bag(mode="sum", sparse=True), ()),
    "weighted sum": (bag(mode="sum"), (FACTORS,)),
    "sparse weighted sum": (bag(mode="sum", sparse=True), (FACTORS,)),
    "mean": (bag(mode="mean"), ()),
    "sparse mean": (bag(mode="mean", sparse=True), ()),
    "max": (bag(mode="max"), ()),
}


@pytest.mark.parametrize("name", CASES)
def test_gradient_agrees_with_differences(backend, name):
    function, others = CASES[name]

    check_gradient(function, TABLE, *others)


@pytest.mark.parametrize(
    ("mode", "sparse"),
    [("sum", False), ("sum", True), ("mean", False), ("mean", True), ("max", False)],
)
def test_gradient_of_bags_with_padding_is_that_of_the_other_rows(mode, sparse):
    def function(others):
        # The padding row, 1, is a constant: it gets no gradient.
        table = cat([others[:1], tensor(TABLE[1:2]), others[1:]])
        return F.embedding_bag(IDS, table, [0, 0, 3, 5], mode=mode, sparse=sparse, padding_idx=1)

    check_gradient(function, np.delete(TABLE, 1, axis=0))


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("factor", [1.0005, 0.9995, -1, 0])
def test_a_gradient_that_is_a_little_wrong_fails(monkeypatch, name, factor):
    module = mmembed.functional.lookup
    right = module.gradient_of_rows
    monkeypatch.setattr(
        module, "gradient_of_rows", lambda entries, *rest: right(entries * factor, *rest)
    )
    function, others = CASES[name]

    with pytest.raises(AssertionError, match="input 0: the rule gives"):
        check_gradient(function, TABLE, *others)
