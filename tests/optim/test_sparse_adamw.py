"""SparseAdamW: rows that are left alone decay later, and come out as if they had at once."""

from __future__ import annotations

import copy
import gc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmembed as mm
from mmembed import nn
from mmembed.optim import SparseAdam, SparseAdamW
from mmembed.storage import Table

batches = st.lists(
    st.tuples(st.lists(st.integers(0, 5), max_size=4), st.sampled_from([0.1, 0.02, 0.5])),
    max_size=8,
)


def eager(start, steps, weight_decay, momentum_rule=SparseAdam):
    """All rows decay in every step; then SparseAdam. Returns rows, and outputs of every lookup."""
    table = nn.Embedding(6, 3, sparse=True, _weight=start.copy())
    rule = momentum_rule(table.parameters(), lr=1.0)
    outputs = []
    for ids, lr in steps:
        rule.param_groups[0]["lr"] = lr
        rule.zero_grad()
        out = table(np.array(ids, np.int64))
        outputs.append(out.detach().numpy().copy())
        (out * out).sum().backward()
        with mm.no_grad():
            table.weight.mul_(1 - lr * weight_decay)
        rule.step()
    return table.weight.detach().numpy(), outputs


def lazy(table, rule, steps, lookup=lambda table, ids: table(ids)):
    outputs = []
    for ids, lr in steps:
        rule.param_groups[0]["lr"] = lr
        rule.zero_grad()
        out = lookup(table, np.array(ids, np.int64))
        outputs.append(out.detach().numpy().copy())
        (out * out).sum().backward()
        rule.step()
    return outputs


START = np.random.default_rng(0).standard_normal((6, 3))


@given(steps=batches, weight_decay=st.sampled_from([0.0, 0.01, 0.9]))
def test_rows_and_lookups_are_those_of_a_table_that_decays_at_once(steps, weight_decay):
    want, want_outputs = eager(START, steps, weight_decay)
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=weight_decay)

    outputs = lazy(table, rule, steps)

    for got, expected in zip(outputs, want_outputs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
    rule.catch_up()
    np.testing.assert_allclose(table.weight.array, want, rtol=1e-10, atol=1e-12)


STEPS = [([0, 1], 0.1), ([2], 0.1), ([2, 2], 0.5), ([0], 0.1)]


def bag(table, ids):
    return mm.functional.embedding_bag(ids, table.weight, np.arange(len(ids)), sparse=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_bags_see_decayed_rows_too(dtype):
    want, want_outputs = eager(START, STEPS, 0.3)
    table = nn.Embedding(6, 3, sparse=True, _weight=START.astype(dtype))
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.3)

    outputs = lazy(table, rule, STEPS, bag)
    rule.catch_up()

    rtol = 1e-5 if dtype == "float32" else 1e-10
    for got, expected in zip(outputs, want_outputs, strict=True):
        np.testing.assert_allclose(got, expected, rtol=rtol)
    np.testing.assert_allclose(table.weight.array, want, rtol=rtol)


def test_a_step_touches_only_rows_with_a_gradient(monkeypatch):
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.5)

    lazy(table, rule, [([1, 4], 0.1)])

    untouched = [0, 2, 3, 5]
    np.testing.assert_array_equal(table.weight.array[untouched], START[untouched])
    assert (table.table.column("weight.sparse_adamw.decayed") > 0).tolist() == [
        False, True, False, False, True, False,
    ]  # fmt: skip


def test_catching_up_counts_no_change_and_so_leaves_graphs_alone():
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.5)
    lazy(table, rule, [([1], 0.1)])
    factors = mm.tensor([1.0], dtype="float64", requires_grad=True)

    bags = mm.functional.embedding_bag(
        [1], table.weight, [0], mode="sum", per_sample_weights=factors
    )
    version = table.weight._version
    table([3])
    bags.sum().backward()

    assert table.weight._version == version
    np.testing.assert_allclose(factors.grad.numpy(), table.weight.array[1].sum())


def test_a_bad_id_is_reported_as_ever(tmp_path):
    table = nn.Embedding(6, 3, sparse=True)
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.5)
    lazy(table, rule, [([1], 0.1)])

    with pytest.raises(IndexError, match="index out of range in self: id 6"):
        table([1, 6])


def test_training_that_is_closed_and_reopened_goes_on_as_if_it_had_not_been(tmp_path):
    want, _ = eager(START, STEPS, 0.3)
    with Table.create(tmp_path / "t", 6, 3, "float64") as table:
        table.write(np.arange(6), START)
        rows = nn.Embedding.from_table(table, sparse=True)
        lazy(rows, SparseAdamW(rows.parameters(), lr=0.1, weight_decay=0.3), STEPS[:2])
    with Table.open(tmp_path / "t", "r+") as table:
        rows = nn.Embedding.from_table(table, sparse=True)
        rule = SparseAdamW(rows.parameters(), lr=0.1, weight_decay=0.3)
        lazy(rows, rule, STEPS[2:])
        rule.catch_up()

        np.testing.assert_allclose(table.column(), want, rtol=1e-10)


def test_a_state_dict_has_all_rows_caught_up_and_loads():
    want, _ = eager(START, STEPS, 0.3)
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.3)
    lazy(table, rule, STEPS[:2])
    state = copy.deepcopy(rule.state_dict())
    rows = copy.deepcopy(table.state_dict())

    other = nn.Embedding(6, 3, sparse=True, dtype="float64")
    its_rule = SparseAdamW(other.parameters(), lr=0.1, weight_decay=0.3)
    lazy(other, its_rule, [([5], 0.5)])
    other.load_state_dict(rows)
    its_rule.load_state_dict(state)
    lazy(other, its_rule, STEPS[2:])
    its_rule.catch_up()

    np.testing.assert_allclose(other.weight.array, want, rtol=1e-10)
    assert set(state["state"][0]) == {"step", "exp_avg", "exp_avg_sq"}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_cast_keeps_what_rows_are_behind(dtype):
    table = nn.Embedding(6, 3, sparse=True, _weight=START.astype(dtype))
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.3)
    lazy(table, rule, STEPS[:2])

    table.to({"float32": "float64", "float64": "float32"}[dtype])
    lazy(table, rule, STEPS[2:])
    rule.catch_up()

    np.testing.assert_allclose(table.weight.array, eager(START, STEPS, 0.3)[0], rtol=1e-5)


def test_an_optimizer_that_is_gone_is_not_asked():
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.3)
    lazy(table, rule, STEPS[:1])

    del rule
    gc.collect()

    np.testing.assert_array_equal(table([5]).detach().numpy(), START[[5]])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
        ({"lr": 2.0, "weight_decay": 0.5}, "lr \\* weight_decay, which must be below 1: 1.0"),
        ({"lr": 0}, "Invalid learning rate: 0"),
    ],
)
def test_wrong_hyper_parameters_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        SparseAdamW([mm.ones(2, requires_grad=True)], **options)


def test_dense_gradients_are_refused():
    table = nn.Embedding(6, 3)
    table([1]).sum().backward()

    with pytest.raises(RuntimeError, match="does not support dense gradients"):
        SparseAdamW(table.parameters()).step()
