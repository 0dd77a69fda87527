"""SparseAdamW: rows that are left alone decay later, and come out as if they had at once."""

from __future__ import annotations

import copy
import gc
import pickle

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


def test_decay_that_was_put_off_is_given_though_the_optimizer_is_gone():
    table = nn.Embedding(6, 3, sparse=True, _weight=START.copy())
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=0.3)
    lazy(table, rule, STEPS[:1])

    del rule
    gc.collect()

    np.testing.assert_allclose(
        table([5]).detach().numpy(), START[[5]] * (1 - 0.1 * 0.3), rtol=1e-12
    )


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


def behind(**options):
    """A table of ones, of which rows other than 0 are three steps behind; what they should be."""
    table = nn.Embedding(5, 2, sparse=True, _weight=mm.ones((5, 2), dtype="float64"), **options)
    rule = SparseAdamW(table.parameters(), lr=0.1, weight_decay=1.0)
    lazy(table, rule, [([0], 0.1)] * 3)
    return table, rule, 0.9**3


def test_rows_that_are_written_do_not_decay_for_what_was_before():
    writes = [
        lambda table: table.load_state_dict({"weight": np.full((5, 2), 7.0)}),
        lambda table: table.weight.copy_(mm.tensor(np.full((5, 2), 7.0))),
        lambda table: table.weight.__setitem__(4, mm.tensor([7.0, 7.0])),
        lambda table: table.weight[4].fill_(7.0),
    ]
    for write in writes:
        table, rule, _ = behind()

        with mm.no_grad():
            write(table)

        assert table([4]).tolist() == [[7, 7]]
        rule.catch_up()
        assert table.weight[4].tolist() == [7, 7]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_owe_their_rows_the_same_decay(copied):
    table, rule, want = behind()

    twin, _ = copied((table, rule))

    for one in (twin, copied(table), table):
        np.testing.assert_allclose(one([4]).tolist(), [[want, want]])


def test_a_table_that_is_reopened_owes_its_rows_their_decay(tmp_path):
    table, _, want = behind(path=tmp_path / "t")
    table.table.close()

    with Table.open(tmp_path / "t", "r+") as again:
        np.testing.assert_allclose(nn.Embedding.from_table(again)([4]).tolist(), [[want, want]])
    with Table.open(tmp_path / "t") as readable:
        assert nn.Embedding.from_table(readable, freeze=True)([3]).tolist() == [[1, 1]]


def test_rows_of_a_second_parameter_over_a_column_decay_before_their_step():
    start = np.arange(1.0, 7.0).reshape(3, 2)
    first = nn.Embedding(3, 2, sparse=True, _weight=start.copy())
    second = nn.EmbeddingBag.from_pretrained(first.weight, freeze=False, sparse=True, mode="sum")
    rule = SparseAdamW([first.weight, second.weight], lr=0.1, weight_decay=1.0)

    first([0]).sum().backward()
    second([[1]]).sum().backward()
    rule.step()
    rule.catch_up()

    np.testing.assert_allclose(first.weight.array[1], start[1] * 0.9 - 0.1, rtol=1e-6)


def test_parameters_without_a_table_decay_at_once():
    parameter = nn.Parameter(mm.ones((5, 2), dtype="float64"))
    rule = SparseAdamW([parameter], lr=0.1, weight_decay=0.5)

    for _ in range(3):
        rule.zero_grad()
        mm.functional.embedding([0], parameter, sparse=True).sum().backward()
        rule.step()

    np.testing.assert_allclose(parameter.tolist()[4], [0.95**3] * 2)


def test_a_step_that_cannot_be_made_changes_nothing(tmp_path):
    tables = [nn.Embedding(3, 2, sparse=True, init="ones") for _ in range(2)]
    rule = SparseAdamW([{"params": t.parameters()} for t in tables], lr=0.1, weight_decay=0.5)
    for table in tables:
        table([1]).sum().backward()

    rule.param_groups[1]["lr"] = 2.0

    with pytest.raises(RuntimeError, match=r"lr \* weight_decay must be in 0\.\.1, and is 2\.0"):
        rule.step()
    assert all((table.weight.array == 1).all() for table in tables)
