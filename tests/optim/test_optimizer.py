"""Optimizers: arguments, state in the table's own columns, state_dict, versions."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import mmembed as mm
from mmembed import nn, optim
from mmembed.errors import ReadOnlyTableError
from mmembed.optim import SGD, Adagrad, SparseAdam
from mmembed.storage import Table


@pytest.mark.parametrize(
    ("params", "error", "message"),
    [
        ([], ValueError, "optimizer got an empty parameter list"),
        (mm.ones(2), TypeError, "should be an iterable of Tensors or dicts, but got Tensor"),
        ([3], TypeError, "can only optimize Tensors, but one of the params is int"),
        ([mm.ones(2, requires_grad=True) * 2], ValueError, "can't optimize a non-leaf Tensor"),
        ([mm.from_numpy(np.ones((2, 3)).T)], ValueError, r"not contiguous; optimize a clone\(\)"),
    ],
)
def test_wrong_parameters_are_refused(params, error, message):
    with pytest.raises(error, match=message):
        optim.SGD(params, lr=0.1)


def test_a_parameter_in_two_groups_is_refused():
    a = mm.ones(2)

    with pytest.raises(ValueError, match="more than one parameter group"):
        optim.SGD([{"params": [a]}, {"params": [a]}], lr=0.1)


@pytest.mark.parametrize("name", ["SGD", "Adagrad", "RowwiseAdagrad", "RowwiseAdam", "SparseAdam"])
def test_a_step_counts_one_change_and_none_without_a_gradient(name):
    embedding = nn.Embedding(5, 2, sparse=True)
    rule = getattr(optim, name)([embedding.weight], lr=0.1)
    before = embedding.weight._version

    rule.step()
    assert embedding.weight._version == before
    embedding([1, 1, 3]).sum().backward()
    rule.step()
    assert embedding.weight._version == before + 1


STATES = {
    "SGD": ({"lr": 0.1, "momentum": 0.9}, ["weight.sgd.momentum_buffer"]),
    "Adagrad": ({"lr": 0.1}, ["weight.adagrad.sum"]),
    "RowwiseAdagrad": (
        {"lr": 0.1, "initial_accumulator_value": 0.03},
        ["weight.rowwise_adagrad.sum"],
    ),
    "RowwiseAdam": (
        {"lr": 0.1},
        ["weight.rowwise_adam.exp_avg", "weight.rowwise_adam.exp_avg_sq"],
    ),
    "SparseAdam": ({"lr": 0.1}, ["weight.sparse_adam.exp_avg", "weight.sparse_adam.exp_avg_sq"]),
}


@pytest.mark.parametrize("name", STATES)
def test_training_that_is_closed_and_reopened_goes_on_as_if_it_had_not_been(name, tmp_path):
    options, columns = STATES[name]
    rng = np.random.default_rng(0)
    batches = rng.integers(0, 30, (6, 20))
    upstream = rng.standard_normal((6, 20, 4)).astype(np.float32)

    def train(embedding, some):
        rule = getattr(optim, name)([embedding.weight], **options)
        for number in some:
            rule.zero_grad()
            embedding(batches[number]).backward(mm.tensor(upstream[number]))
            rule.step()

    mm.manual_seed(1)
    whole = nn.Embedding(30, 4, sparse=True)
    train(whole, range(6))
    path = tmp_path / "t.mmembed"
    mm.manual_seed(1)
    for some in (range(3), range(3, 6)):
        part = nn.Embedding(30, 4, sparse=True, path=path)
        train(part, some)
        part.table.close()

    with Table.open(path) as table:
        assert list(table.columns) == ["weight", *columns]
        np.testing.assert_array_equal(table.column(), whole.weight.array)
        for column in columns:
            np.testing.assert_array_equal(table.column(column), whole.table.column(column))
            assert (path / f"{column}.npy").exists()


@pytest.mark.parametrize("name", STATES)
def test_state_dict_round_trips_into_a_fresh_optimizer(name):
    options, _ = STATES[name]

    def fresh():
        embedding = nn.Embedding(5, 2, sparse=True, init="ones")
        return embedding, getattr(optim, name)([embedding.weight], **options)

    def step(embedding, rule):
        rule.zero_grad()
        (embedding([1, 1, 3]) ** 2).sum().backward()
        rule.step()

    first, rule = fresh()
    step(first, rule)
    second, other = fresh()
    second.load_state_dict(first.state_dict())
    other.load_state_dict(rule.state_dict())
    step(first, rule)
    step(second, other)

    np.testing.assert_array_equal(first.weight.array, second.weight.array)
    assert rule.state_dict()["state"][0]["step"] == other.state_dict()["state"][0]["step"] == 2


def test_a_state_dict_that_does_not_fit_is_refused_and_nothing_is_copied():
    small, large = nn.Embedding(5, 2), nn.Embedding(6, 2)
    rules = [optim.Adagrad([e.weight], lr=lr) for e, lr in ((small, 0.1), (large, 0.2))]

    with pytest.raises(ValueError, match=r"state 'sum' of parameter 0 has the shape \(6, 2\), exp"):
        rules[0].load_state_dict(rules[1].state_dict())
    with pytest.raises(ValueError, match="different number of parameter groups"):
        rules[0].load_state_dict({"state": {}, "param_groups": []})

    assert rules[0].param_groups[0]["lr"] == 0.1


def test_zero_grad_forgets_or_zeroes():
    embedding = nn.Embedding(5, 2, sparse=True)
    rule = optim.SGD([embedding.weight], lr=0.1)
    embedding([1]).sum().backward()

    rule.zero_grad(set_to_none=False)
    assert embedding.weight.grad.to_dense().array.any() == 0
    rule.zero_grad()
    assert embedding.weight.grad is None


def test_step_returns_what_its_closure_returns():
    w = mm.ones(1, requires_grad=True)
    rule = optim.SGD([w], lr=0.1)

    def closure():
        rule.zero_grad()
        loss = (w * 3).sum()
        loss.backward()
        return loss.item()

    assert rule.step(closure) == 3.0
    np.testing.assert_allclose(w.array, 0.7, rtol=1e-6)


def test_repr_lists_the_options():
    text = repr(optim.SGD([mm.ones(1)], lr=0.5))

    assert text.startswith("SGD (\nParameter Group 0\n")
    assert "    lr: 0.5\n" in text


@pytest.mark.parametrize("rows", [65_535, 65_536, 65_537, 140_000])
def test_dense_steps_reach_every_row_of_a_table_longer_than_a_block(rows):
    embedding = nn.Embedding(rows, 1, init="zeros")
    rule = optim.SGD([embedding.weight], lr=1.0, momentum=0.5)
    embedding.weight.grad = mm.ones((rows, 1))

    rule.step()
    rule.step()

    np.testing.assert_array_equal(embedding.weight.array, -2.5)


def test_momentum_with_sparse_gradients_moves_every_row_of_a_long_table():
    rows = 140_000
    embedding = nn.Embedding(rows, 1, init="zeros", sparse=True)
    rule = optim.SGD([embedding.weight], lr=1.0, momentum=0.5)
    ids = np.array([0, 70_000, 139_999])

    for batch in (ids, ids[:1]):
        rule.zero_grad()
        embedding(batch).sum().backward()
        rule.step()

    want = np.zeros((rows, 1), np.float32)
    want[ids] = -1.5
    want[0] = -2.5
    np.testing.assert_array_equal(embedding.weight.array, want)


@pytest.mark.parametrize("sparse", [True, False])
def test_rowwise_adagrad_follows_its_formula(sparse):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 5))
    embedding = nn.Embedding(6, 5, sparse=sparse, _weight=start.copy())
    rule = optim.RowwiseAdagrad([embedding.weight], lr=0.3, initial_accumulator_value=0.1, eps=0.01)
    weight, total = start.copy(), np.full(6, 0.1)

    for _ in range(3):
        ids = rng.integers(0, 6, 4)
        upstream = rng.standard_normal((4, 5))
        rule.zero_grad()
        embedding(ids).backward(mm.tensor(upstream))
        rule.step()
        gradient = np.zeros((6, 5))
        np.add.at(gradient, ids, upstream)
        total += (gradient**2).mean(axis=1)
        weight -= 0.3 * gradient / (np.sqrt(total)[:, None] + 0.01)

    np.testing.assert_allclose(embedding.weight.array, weight, rtol=1e-12)
    np.testing.assert_allclose(rule.state_dict()["state"][0]["sum"].numpy(), total, rtol=1e-12)


@pytest.mark.parametrize("sparse", [True, False])
def test_rowwise_adam_follows_its_formula(sparse):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 5))
    embedding = nn.Embedding(6, 5, sparse=sparse, _weight=start.copy())
    rule = optim.RowwiseAdam([embedding.weight], lr=0.3, betas=(0.8, 0.9), eps=0.01, maximize=True)
    weight, mean, square = start.copy(), np.zeros((6, 5)), np.zeros(6)

    for step in range(1, 4):
        ids = rng.integers(0, 6, 4)
        upstream = rng.standard_normal((4, 5))
        rule.zero_grad()
        embedding(ids).backward(mm.tensor(upstream))
        rule.step()
        gradient = np.zeros((6, 5))
        np.add.at(gradient, ids, -upstream)
        rows = np.unique(ids) if sparse else np.arange(6)
        mean[rows] = 0.8 * mean[rows] + 0.2 * gradient[rows]
        square[rows] = 0.9 * square[rows] + 0.1 * (gradient[rows] ** 2).mean(axis=1)
        root = np.sqrt(square[rows] / (1 - 0.9**step)) + 0.01
        weight[rows] -= 0.3 * mean[rows] / (1 - 0.8**step) / root[:, None]

    np.testing.assert_allclose(embedding.weight.array, weight, rtol=1e-11)
    state = rule.state_dict()["state"][0]
    np.testing.assert_allclose(state["exp_avg"].numpy(), mean, rtol=1e-11)
    np.testing.assert_allclose(state["exp_avg_sq"].numpy(), square, rtol=1e-11)
    assert state["step"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": -1}, "Invalid learning rate: -1"),
        ({"eps": -1}, "Invalid epsilon value: -1"),
        ({"betas": (0.9, 1.0)}, "Invalid beta parameter at index 1: 1.0"),
        ({"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ],
)
def test_wrong_hyper_parameters_of_rowwise_adam_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        optim.RowwiseAdam([mm.ones(1, requires_grad=True)], **options)


def test_rowwise_adam_refuses_decay_of_rows_that_a_sparse_gradient_does_not_name():
    embedding = nn.Embedding(3, 2, sparse=True)
    embedding([1]).sum().backward()

    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse"):
        optim.RowwiseAdam([embedding.weight], weight_decay=0.1).step()


def trained(parameters, optimizer, steps=1):
    for _ in range(steps):
        optimizer.zero_grad()
        sum(((p * p).sum() for p in parameters), mm.zeros(())).backward()
        optimizer.step()
    return [p.tolist() for p in parameters]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
@pytest.mark.parametrize("steps", [0, 2])
def test_a_copy_of_plain_parameters_with_their_optimizer_goes_on_alike(copied, steps):
    parameters = [mm.tensor([1.0, 2.0], requires_grad=True), nn.Parameter(mm.ones((2, 2)))]
    optimizer = SGD(parameters, lr=0.1, momentum=0.9, dampening=0.5)
    trained(parameters, optimizer, steps)

    twins, twin = copied((parameters, optimizer))

    before = [p.tolist() for p in parameters]
    want = trained(parameters, optimizer, 2)
    assert [p.tolist() for p in twins] == before
    assert trained(twins, twin, 2) == want


def test_a_cast_of_plain_parameters_keeps_their_state():
    parameter = nn.Parameter(mm.tensor([1.0, 2.0]))
    optimizer = SGD([parameter], lr=0.5, momentum=0.5)
    trained([parameter], optimizer)

    parameter.cast("float64")

    (got,) = trained([parameter], optimizer)
    assert got == [-0.5, -1.0]  # 1 -> 0 with a buffer of 2, then a gradient of 0
    assert optimizer.state_dict()["state"][0]["momentum_buffer"].dtype == np.float64


def test_a_state_that_a_loaded_dict_lacks_starts_anew():
    parameter = mm.tensor([1.0, 2.0], requires_grad=True)
    for optimizer in (SGD([parameter], 0.1, 0.9, 0.5), Adagrad([parameter], 0.1)):
        with mm.no_grad():
            parameter.copy_(mm.tensor([1.0, 2.0]))
        fresh = copy.deepcopy(optimizer.state_dict())
        (first,) = trained([parameter], optimizer)
        trained([parameter], optimizer, 3)

        optimizer.load_state_dict(fresh)
        with mm.no_grad():
            parameter.copy_(mm.tensor([1.0, 2.0]))

        assert trained([parameter], optimizer) == [first]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda state: state["state"].update({7: {}}),
            "state of parameter 7, which is in no group",
        ),
        (
            lambda state: state["state"][0].update(exp_avg=mm.zeros(2)),
            "state 'exp_avg' of parameter 0 is none of Adagrad's",
        ),
    ],
)
def test_a_state_of_another_optimizer_is_refused(change, message):
    parameter = mm.tensor([1.0, 2.0], requires_grad=True)
    optimizer = Adagrad([parameter], 0.1)
    state = optimizer.state_dict()
    change(state)

    with pytest.raises(ValueError, match=message):
        optimizer.load_state_dict(state)


def test_dampening_begins_with_the_second_step_with_momentum():
    parameter = mm.tensor([1.0], requires_grad=True)
    optimizer = SGD([parameter], lr=0.1)
    (parameter * 1.0).sum().backward()
    optimizer.step()

    optimizer.param_groups[0].update(momentum=0.9, dampening=0.5)
    optimizer.step()
    first = parameter.item()
    optimizer.step()

    assert first == pytest.approx(0.8)
    assert parameter.item() == pytest.approx(0.8 - 0.1 * (0.9 + 0.5))


def test_two_parameters_over_one_column_count_a_step_once():
    table = Table.create(None, 3, 2, init="ones")
    one, other = (nn.Embedding.from_table(table, sparse=True) for _ in range(2))
    optimizer = SparseAdam([one.weight, other.weight], lr=0.1)

    (one([0]).sum() + other([1]).sum()).backward()
    optimizer.step()

    np.testing.assert_allclose(table.column(), [[0.9, 0.9], [0.9, 0.9], [1, 1]], rtol=1e-6)
    assert optimizer.state_dict()["state"][0]["step"] == 1


def test_zeroed_gradients_forget_what_was_infinite_and_move_no_rows():
    parameter = mm.tensor([1.0, 2.0], requires_grad=True)
    (parameter * float("inf")).sum().backward()
    rows = nn.Embedding(3, 1, sparse=True, _weight=mm.ones((3, 1)))
    optimizer = SparseAdam(rows.parameters(), lr=0.1)
    rows([0, 1]).sum().backward()
    optimizer.step()

    SGD([parameter], 0.1).zero_grad(set_to_none=False)
    optimizer.zero_grad(set_to_none=False)
    rows([2]).sum().backward()
    before = rows.weight.detach().numpy()[:2].tolist()
    optimizer.step()

    assert parameter.grad.tolist() == [0, 0]
    assert rows.weight.detach().numpy()[:2].tolist() == before


@pytest.mark.parametrize(
    ("optimizer", "name"), [(Adagrad, "adagrad.sum"), (SparseAdam, "sparse_adam.exp_avg_sq")]
)
@pytest.mark.parametrize("wrong", [{"dim": 1}, {"scalar": True}, {"dtype": "float64"}])
def test_a_state_of_another_width_or_dtype_is_refused_before_anything_changes(
    tmp_path, optimizer, name, wrong
):
    with Table.create(tmp_path / "t", 10, 4, init="ones") as table:
        table.add_column(f"weight.{name}", **wrong)
        rows = nn.Embedding.from_table(table, sparse=True)
        rows([9]).sum().backward()

        with pytest.raises(ValueError, match=f"column 'weight.{name}' of the table is"):
            optimizer(rows.parameters(), lr=0.1).step()

        assert (table.column() == 1).all()


def test_momentum_with_sparse_gradients_over_several_blocks(backend):
    rows = nn.Embedding(70_000, 2, sparse=True, _weight=mm.zeros((70_000, 2)))
    optimizer = SGD(rows.parameters(), lr=1.0, momentum=0.5)
    rows([0, 69_999]).sum().backward()

    optimizer.step()
    optimizer.step()

    assert np.flatnonzero(rows.weight.array[:, 0]).tolist() == [0, 69_999]
    assert rows.weight.array[69_999].tolist() == [-2.5, -2.5]


@pytest.mark.parametrize(
    "change",
    [{"step": "x"}, {"step": -1}, {"step": None}, {"step": 0.5}, {"sum": np.array(["a", "b"])}],
)
def test_a_state_that_cannot_be_loaded_whole_is_not_loaded_at_all(change):
    parameters = [mm.tensor([1.0, 2.0], requires_grad=True) for _ in range(2)]
    optimizer = Adagrad(parameters, lr=0.1)
    trained(parameters, optimizer)
    state = copy.deepcopy(optimizer.state_dict())
    state["param_groups"][0]["lr"] = 0.7
    state["state"][0]["sum"] = mm.zeros(2)
    state["state"][1].update(change)

    with pytest.raises(ValueError, match="of parameter 1"):
        optimizer.load_state_dict(state)

    assert optimizer.param_groups[0]["lr"] == 0.1
    assert optimizer.state_dict()["state"][0]["sum"].tolist() == [4, 16]


def test_a_read_only_table_among_others_stops_the_step_before_it_begins(tmp_path):
    Table.create(tmp_path / "t", 3, 2).close()
    first = nn.Embedding(3, 2, sparse=True)
    with Table.open(tmp_path / "t") as table:
        second = nn.Embedding.from_table(table, sparse=True)
        optimizer = SGD([first.weight, second.weight], lr=0.1)
        (first([1]).sum() + second([1]).sum()).backward()
        before = first.weight.array.copy()

        with pytest.raises(ReadOnlyTableError):
            optimizer.step()

        np.testing.assert_array_equal(first.weight.array, before)
