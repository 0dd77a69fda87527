"""RowOptimizer: a user's rule in the pass that sums gradients."""

from __future__ import annotations

import copy
import itertools
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mmembed as mm
from mmembed import kernels, nn
from mmembed.errors import RuleError
from mmembed.optim import SGD, Adagrad, RowOptimizer, RowwiseAdagrad
from mmembed.storage import Table

from . import rules

DOCS = (Path(__file__).parents[2] / "docs" / "optimizers.md").read_text(encoding="utf-8")


def example():
    texts = re.findall(r"^```python\n(.*?)^```$", DOCS, re.DOTALL | re.MULTILINE)
    (text,) = (text for text in texts if "def ftrl" in text)
    names = {}
    exec(text, names)
    return names


class Ftrl:
    """The algorithm of the paper, one coordinate at a time, in Python's floats."""

    def __init__(self, weight, alpha, beta, l1, l2):
        self.weight = {at: float(w) for at, w in np.ndenumerate(weight)}
        self.options = alpha, beta, l1, l2
        self.z = dict.fromkeys(self.weight, 0.0)
        self.n = dict.fromkeys(self.weight, 0.0)

    def step(self, at, g):
        alpha, beta, l1, l2 = self.options
        sigma = ((self.n[at] + g**2) ** 0.5 - self.n[at] ** 0.5) / alpha
        self.z[at] += g - sigma * self.weight[at]
        self.n[at] += g**2
        sign = 1 if self.z[at] > 0 else -1
        rate = (beta + self.n[at] ** 0.5) / alpha + l2
        self.weight[at] = 0.0 if abs(self.z[at]) <= l1 else -(self.z[at] - sign * l1) / rate

    def array(self, values, shape):
        return np.array([values[at] for at in np.ndindex(shape)]).reshape(shape)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sparse", [True, False])
def test_ftrl_of_the_docs_follows_the_paper(backend, sparse, dtype):
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 5)).astype(dtype)
    rows = nn.Embedding(6, 5, sparse=sparse, _weight=start.copy())
    numbers = {"alpha": 0.3, "beta": 0.5, "l1": 0.4, "l2": 0.2}
    optimizer = RowOptimizer(rows.parameters(), example()["ftrl"], {"z": 0, "n": 0}, **numbers)
    want = Ftrl(start, *numbers.values())

    for _ in range(4):
        ids = rng.integers(0, 6, 5)
        upstream = rng.standard_normal((5, 5)).astype(dtype)
        optimizer.zero_grad()
        rows(ids).backward(mm.tensor(upstream))
        optimizer.step()
        gradient = np.zeros((6, 5))
        np.add.at(gradient, ids, upstream)
        for at in itertools.product(set(ids.tolist()) if sparse else range(6), range(5)):
            want.step(at, gradient[at])

    state = optimizer.state_dict()["state"][0]
    tolerance = {"rtol": 1e-12} if dtype == "float64" else {"rtol": 2e-5, "atol": 1e-5}
    for got, values in (
        (rows.weight.array, want.weight),
        (state["z"].numpy(), want.z),
        (state["n"].numpy(), want.n),
    ):
        np.testing.assert_allclose(got, want.array(values, (6, 5)), **tolerance)
    assert (rows.weight.array == 0).any()
    assert (rows.weight.array != 0).any()


def trained(optimizer_of, sparse, table=None, steps=3):
    rng = np.random.default_rng(1)
    start = rng.standard_normal((50, 8)).astype(np.float32)
    rows = nn.Embedding(50, 8, sparse=sparse, _weight=start)
    optimizer = optimizer_of(rows.parameters())
    for _ in range(steps):
        optimizer.zero_grad()
        rows(rng.integers(0, 50, 40)).backward(
            mm.tensor(rng.standard_normal((40, 8)).astype(np.float32))
        )
        optimizer.step()
    return rows, optimizer


@pytest.mark.parametrize(
    ("sparse", "options"),
    [
        (True, {}),
        (False, {}),
        (True, {"maximize": True}),
        (False, {"weight_decay": 0.125, "maximize": True}),
    ],
)
def test_a_rule_that_we_ship_gives_the_bits_of_ours(backend, sparse, options):
    ours, _ = trained(lambda p: SGD(p, lr=0.3, **options), sparse)
    theirs, _ = trained(lambda p: RowOptimizer(p, rules.plain, lr=0.3, **options), sparse)

    np.testing.assert_array_equal(theirs.weight.array, ours.weight.array)


def test_a_state_of_one_number_per_row_is_an_array_of_one_element():
    ours, first = trained(lambda p: RowwiseAdagrad(p, lr=0.3, eps=0.1), True)
    theirs, second = trained(
        lambda p: RowOptimizer(p, rules.rowwise, row_states={"sum": 0.0}, lr=0.3, eps=0.1), True
    )

    np.testing.assert_allclose(theirs.weight.array, ours.weight.array, rtol=1e-5, atol=1e-6)
    got, want = (o.state_dict()["state"][0]["sum"].numpy() for o in (second, first))
    assert got.shape == (50,)
    np.testing.assert_allclose(got, want, rtol=1e-5)
    assert theirs.table.column("weight.rowwise.sum").shape == (50,)


def test_result_has_the_same_bits_for_1_to_3_threads():
    rng = np.random.default_rng(2)
    ids = rng.zipf(1.3, 20_000) % 3000
    upstream = mm.tensor(rng.standard_normal((20_000, 16)).astype(np.float32))
    before, results = kernels.get_num_threads(), []
    for threads in (1, 2, 3):
        kernels.set_num_threads(threads)
        rows = nn.Embedding(3000, 16, sparse=True, init="ones")
        optimizer = RowOptimizer(rows.parameters(), example()["ftrl"], {"z": 0, "n": 0}, alpha=0.1)
        rows(ids).backward(upstream)
        optimizer.step()
        results.append(rows.weight.array.copy())
    kernels.set_num_threads(before)

    for other in results[1:]:
        np.testing.assert_array_equal(other, results[0])


def test_states_are_made_in_the_first_step_in_the_table_on_disk_and_found_again(tmp_path):
    with Table.create(tmp_path / "t", 5, 2, init="zeros") as table:
        rows = nn.Embedding.from_table(table, sparse=True)
        optimizer = RowOptimizer(rows.parameters(), rules.counting, row_states={"seen": 10.0})
        assert list(table.columns) == ["weight"]
        rows([1, 1]).sum().backward()
        optimizer.step()
        optimizer.step()
        table.commit(step=2)
    with Table.open(tmp_path / "t", "r+") as table:
        rows = nn.Embedding.from_table(table, sparse=True)
        optimizer = RowOptimizer(rows.parameters(), rules.counting, row_states={"seen": 10.0})
        rows([1, 3]).sum().backward()
        optimizer.step()

        assert table.column("weight.counting.seen").tolist() == [10, 13, 10, 11, 10]
        assert table.column()[:, 0].tolist() == [0, 3, 0, 3, 0]


def test_a_rule_may_use_the_memory_of_the_gradient():
    rows = nn.Embedding(4, 2, sparse=True, init="ones")
    optimizer = RowOptimizer(rows.parameters(), rules.spoiling)
    rows([1, 2, 2]).sum().backward()

    optimizer.step()

    assert rows.weight.grad._values().tolist() == [[1, 1]] * 3
    assert rows.weight.array[:, 0].tolist() == [1, -6, -13, 1]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_with_its_table_goes_on_alike(copied):
    rows, optimizer = trained(
        lambda p: RowOptimizer(p, rules.rowwise, row_states={"sum": 0.5}, lr=0.3, eps=0.1), True
    )

    twins, twin = copied((rows, optimizer))

    for one, rule in ((rows, optimizer), (twins, twin)):
        rule.zero_grad()
        one([4, 4, 9]).sum().backward()
        rule.step()
    np.testing.assert_array_equal(twins.weight.array, rows.weight.array)
    assert twin.state_dict()["param_groups"] == optimizer.state_dict()["param_groups"]


def test_state_dict_round_trips_and_brings_the_numbers():
    def made(parameters, lr):
        return RowOptimizer(parameters, rules.rowwise, row_states={"sum": 0.5}, lr=lr, eps=0.1)

    rows, optimizer = trained(lambda p: made(p, 0.3), True)
    others = nn.Embedding(50, 8, sparse=True)
    other = made(others.parameters(), 0.7)

    others.load_state_dict(rows.state_dict())
    other.load_state_dict(optimizer.state_dict())

    for one, rule in ((rows, optimizer), (others, other)):
        rule.zero_grad()
        one([4, 4, 9]).sum().backward()
        rule.step()
    np.testing.assert_array_equal(others.weight.array, rows.weight.array)
    assert other.param_groups[0]["lr"] == 0.3
    assert other.state_dict()["state"][0]["step"] == 4


def test_groups_have_numbers_of_their_own_and_defaults_of_the_rule_hold():
    first, second = (nn.Embedding(2, 1, sparse=True, init="ones") for _ in range(2))
    groups = [{"params": first.parameters()}, {"params": second.parameters(), "lr": 0.25}]
    optimizer = RowOptimizer(groups, rules.plain)
    (first([0]).sum() + second([0]).sum()).backward()

    optimizer.step()

    assert first.weight.array[0, 0] == 0.5
    assert second.weight.array[0, 0] == 0.75


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_rule_that_is_jitted_already_works(dtype):
    rows = nn.Embedding(3, 2, sparse=True, _weight=np.ones((3, 2), dtype))
    rows([1]).sum().backward()

    RowOptimizer(rows.parameters(), rules.jitted, lr=0.5).step()

    assert rows.weight.array.tolist() == [[1, 1], [0.5, 0.5], [1, 1]]


def test_a_plain_tensor_and_an_empty_one_are_changed():
    parameters = [mm.tensor([1.0, 2.0], requires_grad=True), mm.zeros((0, 3), requires_grad=True)]
    optimizer = RowOptimizer(parameters, rules.plain)
    sum(((p * p).sum() for p in parameters), mm.zeros(())).backward()

    optimizer.step()

    assert parameters[0].tolist() == [0, 0]


WRONG = [
    (rules.returning, {}, {"lr": 0.1}, r"the rule returning returns .*; it must change its rows"),
    (rules.unfit, {}, {}, r"the rule unfit does not compile for float32 rows: "),
    (rules.starred, {}, {}, r"the rule starred takes \*others: Numba needs its parameters one"),
    (rules.narrow, {}, {}, r"the rule plain was compiled for other types than float32 rows"),
    (3, {}, {"name": "x"}, r"a rule is a function of rows, got 3"),
    (rules.plain, {"z": 0, "n": 0}, {}, r"takes 3 arguments, \(w, g, lr\); with these states it "),
    (rules.rowwise, {}, {"lr": 0.1, "eps": 0.1}, r"needs the number 'g': give it as g=\.\.\., or "),
    (rules.rowwise, {"sum": 0}, {"lr": 0.1}, r"the rule rowwise needs the number 'eps'"),
    (rules.plain, {}, {"rate": 0.1}, r"the rule plain takes no rate; behind g it takes \(lr\)"),
]


@pytest.mark.parametrize(("rule", "states", "options", "message"), WRONG)
def test_a_wrong_rule_is_refused_when_the_optimizer_is_made(rule, states, options, message):
    rows = nn.Embedding(3, 2, sparse=True)

    with pytest.raises(RuleError, match=message):
        RowOptimizer(rows.parameters(), rule, states, **options)

    assert issubclass(RuleError, TypeError)
    assert list(rows.table.columns) == ["weight"]


def test_a_group_that_the_rule_does_not_compile_for_is_not_added():
    rows = nn.Embedding(3, 2, sparse=True, _weight=np.ones((3, 2)))
    optimizer = RowOptimizer(rows.parameters(), rules.narrow, lr=0.5)

    with pytest.raises(RuleError, match="the rule plain was compiled for other types than float32"):
        optimizer.add_param_group({"params": nn.Embedding(3, 2).parameters()})

    assert len(optimizer.param_groups) == 1


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"name": "No Name"}, ValueError, "'No Name' cannot be a name"),
        ({"weight_decay": -1}, ValueError, "Invalid weight_decay value: -1"),
        ({"row_states": {"z": 0}, "states": {"z": 0}}, RuleError, r"both have \['z'\]"),
    ],
)
def test_wrong_options_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        RowOptimizer([mm.ones(2, requires_grad=True)], rules.plain, **options)


def test_a_column_of_another_width_or_dtype_is_refused_before_anything_changes(tmp_path):
    for wrong in ({"dim": 1}, {"dtype": "float64"}):
        with Table.create(tmp_path / str(wrong), 4, 2, init="ones") as table:
            table.add_column("weight.mine.sum", **wrong)
            rows = nn.Embedding.from_table(table, sparse=True)
            optimizer = RowOptimizer(
                rows.parameters(), rules.rowwise, {"sum": 0.0}, name="mine", lr=0.1, eps=0.1
            )
            rows([1]).sum().backward()

            with pytest.raises(ValueError, match=r"column 'weight\.mine\.sum' of the table is"):
                optimizer.step()

            assert (table.column() == 1).all()


def test_decay_of_rows_that_a_sparse_gradient_does_not_name_is_refused():
    rows = nn.Embedding(3, 2, sparse=True)
    optimizer = RowOptimizer(rows.parameters(), rules.plain, weight_decay=0.1)
    rows([1]).sum().backward()

    with pytest.raises(RuntimeError, match="weight_decay option is not compatible with sparse"):
        optimizer.step()


def test_sizes_of_states_in_the_docs_are_those_of_the_columns():
    """Bytes per row at dim 64, float32, of every optimizer that takes sparse gradients."""
    listed = dict(re.findall(r"^\| (`[^|]*) \|.*\| (\d+) \| sparse", DOCS, re.MULTILINE))
    made = {
        "`SGD`": lambda p: SGD(p, 0.1),
        "`SGD(momentum=m)`": lambda p: SGD(p, 0.1, momentum=0.9),
        "`Adagrad`": Adagrad,
        "`RowwiseAdagrad`": RowwiseAdagrad,
        "`SparseAdam`": mm.optim.SparseAdam,
        "`SparseAdamW`": mm.optim.SparseAdamW,
        "`RowwiseAdam`": mm.optim.RowwiseAdam,
    }
    for name, optimizer_of in made.items():
        rows = nn.Embedding(3, 64, sparse=True)
        optimizer = optimizer_of(rows.parameters())
        rows([1]).sum().backward()
        optimizer.step()
        columns = [rows.table.column(name) for name in rows.table.columns if name != "weight"]
        assert sum(column.nbytes for column in columns) // 3 == int(listed[name])
    assert set(listed) == set(made)
