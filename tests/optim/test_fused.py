"""Updates in backward: the same rows as with steps after it, and no gradient left."""

from __future__ import annotations

import copy
import pickle
import re
from pathlib import Path

import numpy as np
import pytest

import mmembed as mm
from mmembed import nn, optim

ROWS, DIM = 50, 6


def descend(weight, gradient, lr):
    for j in range(weight.size):
        weight[j] -= lr * gradient[j]


RULES = {
    "SGD": lambda parameters: optim.SGD(parameters, lr=0.1),
    "momentum": lambda parameters: optim.SGD(parameters, lr=0.1, momentum=0.9),
    "Adagrad": lambda parameters: optim.Adagrad(parameters, lr=0.1),
    "RowwiseAdagrad": lambda parameters: optim.RowwiseAdagrad(parameters, lr=0.1),
    "RowwiseAdam": lambda parameters: optim.RowwiseAdam(parameters, lr=0.1),
    "RowOptimizer": lambda parameters: optim.RowOptimizer(parameters, descend, lr=0.1),
    "SparseAdam": lambda parameters: optim.SparseAdam(parameters, lr=0.1),
    "SparseAdamW": lambda parameters: optim.SparseAdamW(parameters, lr=0.1),
    "Adam": lambda parameters: optim.Adam(parameters, lr=0.1),
}
# Adam takes dense gradients only, these sparse ones only.
SPARSE_ONLY = ("SparseAdam", "SparseAdamW")


@pytest.fixture
def batches():
    rng = np.random.default_rng(0)
    return [rng.integers(0, ROWS, (5, 4)) for _ in range(6)]


def weights():
    return np.random.default_rng(1).standard_normal((ROWS, DIM), dtype=np.float32)


def embedding(rule, sparse=True, dtype="float32"):
    module = nn.Embedding(ROWS, DIM, sparse=sparse, _weight=weights().astype(dtype))
    return module, RULES[rule](module.parameters())


def loss_of(output):
    return (output * output).sum()


@pytest.mark.parametrize(
    ("rule", "sparse"),
    [(name, True) for name in RULES if name != "Adam"]
    + [(name, False) for name in RULES if name not in SPARSE_ONLY],
)
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_fused_rows_are_those_of_steps_after_every_backward(rule, sparse, dtype, batches):
    stepped, stepper = embedding(rule, sparse, dtype)
    fused, optimizer = embedding(rule, sparse, dtype)
    optimizer.fuse(fused)

    for ids in batches:
        stepper.zero_grad()
        loss_of(stepped(ids)).backward()
        stepper.step()
        loss_of(fused(ids)).backward()
        assert fused.weight.grad is None

    np.testing.assert_array_equal(fused.weight.array, stepped.weight.array)
    ours, theirs = optimizer.state_dict()["state"], stepper.state_dict()["state"]
    assert ours[0]["step"] == theirs[0]["step"] == len(batches)
    for name, state in theirs[0].items():
        np.testing.assert_array_equal(np.asarray(ours[0][name]), np.asarray(state))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_fused_bags_are_those_of_steps(mode, batches):
    modules = [
        nn.EmbeddingBag(ROWS, DIM, mode=mode, sparse=mode != "max", _weight=weights())
        for _ in range(2)
    ]
    stepper, optimizer = (optim.Adagrad(module.parameters(), lr=0.1) for module in modules)
    optimizer.fuse()

    for ids in batches:
        stepper.zero_grad()
        for module in modules:
            loss_of(module(ids)).backward()
        stepper.step()

    np.testing.assert_array_equal(modules[0].weight.array, modules[1].weight.array)


def test_all_uses_of_a_table_in_one_backward_are_one_step(batches):
    stepped, stepper = embedding("Adagrad")
    fused, optimizer = embedding("Adagrad")
    optimizer.fuse(fused.weight)

    for module in (stepped, fused):
        (loss_of(module(batches[0])) + loss_of(module(batches[1]))).backward()
    stepper.step()

    np.testing.assert_array_equal(fused.weight.array, stepped.weight.array)


def test_options_are_read_at_each_backward(batches):
    module, optimizer = embedding("SGD")
    optimizer.fuse(module)
    optimizer.param_groups[0]["lr"] = 0.0

    loss_of(module(batches[0])).backward()

    np.testing.assert_array_equal(module.weight.array, weights())


def test_step_passes_fused_parameters_over(batches):
    fused, collected = embedding("SGD")[0], embedding("SGD")[0]
    optimizer = optim.SGD([fused.weight, collected.weight], lr=0.1)
    optimizer.fuse(fused)

    (loss_of(fused(batches[0])) + loss_of(collected(batches[0]))).backward()
    after_backward = fused.weight.array.copy()
    assert collected.weight.grad is not None
    optimizer.step()

    np.testing.assert_array_equal(fused.weight.array, after_backward)
    np.testing.assert_array_equal(collected.weight.array, after_backward)


def test_unfuse_collects_gradients_again(batches):
    module, optimizer = embedding("SGD")
    optimizer.fuse()
    optimizer.unfuse()

    loss_of(module(batches[0])).backward()

    assert module.weight.grad is not None
    np.testing.assert_array_equal(module.weight.array, weights())


def test_fuse_refuses_what_the_optimizer_does_not_have_and_fuses_nothing(batches):
    module, optimizer = embedding("SGD")

    with pytest.raises(ValueError, match=r"shape \(3, 2\) is none of this optimizer's"):
        optimizer.fuse(module, nn.Embedding(3, 2))

    loss_of(module(batches[0])).backward()
    assert module.weight.grad is not None


def test_fuse_refuses_what_another_optimizer_updates():
    module, optimizer = embedding("SGD")
    other = optim.Adagrad(module.parameters(), lr=0.1)
    optimizer.fuse()
    optimizer.fuse()

    with pytest.raises(RuntimeError, match="already handed to something else"):
        other.fuse()


def test_fuse_refused_for_one_parameter_fuses_none(batches):
    free, _ = embedding("SGD")
    taken, optimizer = embedding("SGD")
    optimizer.fuse()
    both = optim.Adagrad([free.weight, taken.weight], lr=0.1)

    with pytest.raises(RuntimeError, match="already handed to something else"):
        both.fuse()

    loss_of(free(batches[0])).backward()
    assert free.weight.grad is not None
    loss_of(taken(batches[0])).backward()
    assert taken.weight.grad is None


def test_backward_raises_what_step_would_and_changes_nothing(batches):
    module = nn.Embedding(ROWS, DIM, sparse=True, _weight=weights())
    optimizer = optim.SGD(module.parameters(), lr=0.1, weight_decay=0.1)
    optimizer.fuse()

    with pytest.raises(RuntimeError, match="weight_decay would change every row"):
        loss_of(module(batches[0])).backward()

    np.testing.assert_array_equal(module.weight.array, weights())


@pytest.mark.parametrize(
    "copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))], ids=["copy", "pickle"]
)
def test_a_copy_is_fused_with_its_own_parameters(copied, batches):
    module, optimizer = embedding("Adagrad")
    optimizer.fuse()

    other, _ = copied((module, optimizer))
    loss_of(other(batches[0])).backward()

    assert other.weight.grad is None
    assert not np.array_equal(other.weight.array, weights())
    np.testing.assert_array_equal(module.weight.array, weights())


def test_tables_on_disk_are_updated_through_their_door(tmp_path, batches):
    module = nn.Embedding(ROWS, DIM, sparse=True, _weight=weights(), path=tmp_path / "t.mmembed")
    in_memory, stepper = embedding("Adagrad")
    optimizer = optim.Adagrad(module.parameters(), lr=0.1)
    optimizer.fuse()

    for ids in batches:
        stepper.zero_grad()
        loss_of(in_memory(ids)).backward()
        stepper.step()
        loss_of(module(ids)).backward()
    module.table.commit()
    module.table.close()

    with mm.Table.open(tmp_path / "t.mmembed") as table:
        np.testing.assert_array_equal(table[np.arange(ROWS)], in_memory.weight.array)
        assert "weight.adagrad.sum" in table.columns


def test_an_upstream_gradient_is_neither_changed_nor_kept(batches):
    module, optimizer = embedding("SGD")
    optimizer.fuse()
    upstream = mm.tensor(np.ones((5, 4, DIM), np.float32))

    module(batches[0]).backward(upstream)

    np.testing.assert_array_equal(upstream.array, 1)


def test_a_table_that_grew_since_the_lookup_is_updated(batches):
    module, optimizer = embedding("Adagrad")
    stepped, stepper = embedding("Adagrad")
    optimizer.fuse()

    for one in (module, stepped):
        output = one(batches[0])
        one.resize_(ROWS + 10)
        loss_of(output).backward()
    stepper.step()

    np.testing.assert_array_equal(module.weight.array[:ROWS], stepped.weight.array[:ROWS])


def test_the_example_of_the_docs_runs():
    docs = Path(__file__).parents[2] / "docs" / "optimizers.md"
    texts = re.findall(r"^```python\n(.*?)^```$", docs.read_text(), re.DOTALL | re.MULTILINE)
    (text,) = (text for text in texts if ".fuse(" in text)

    names = {}
    exec(text, names)

    assert names["items"].weight.grad is None


def test_a_gradient_in_the_memory_of_the_rows_is_read_before_they_change():
    ids = np.array([1, 2, 3, 4, 5, 0])
    stepped, stepper = (lambda m: (m, RULES["SGD"](m.parameters())))(
        nn.Embedding(6, 4, sparse=True)
    )
    fused = copy.deepcopy(stepped)
    optimizer = RULES["SGD"](fused.parameters())
    optimizer.fuse()

    for module in (stepped, fused):
        module(ids).backward(module.weight.detach())
    stepper.step()

    np.testing.assert_array_equal(fused.weight.array, stepped.weight.array)


def test_step_leaves_a_gradient_alone_that_was_collected_before(batches):
    module, optimizer = embedding("SGD")
    loss_of(module(batches[0])).backward()
    optimizer.fuse()

    optimizer.step()

    np.testing.assert_array_equal(module.weight.array, weights())


def test_two_parameters_over_one_column_are_refused():
    module, _ = embedding("SGD")
    other = nn.Embedding.from_table(module.table, sparse=True)
    other.weight.requires_grad = True
    optimizer = optim.Adagrad([module.weight, other.weight], lr=0.1)

    with pytest.raises(ValueError, match="over one column of a table"):
        optimizer.fuse()


def test_a_shallow_copy_leaves_the_original_fused(batches):
    module, optimizer = embedding("Adagrad")
    optimizer.fuse()

    other = copy.copy(optimizer)
    loss_of(module(batches[0])).backward()

    assert module.weight.grad is None
    assert optimizer.state_dict()["state"][0]["step"] == 1
    assert other.param_groups is optimizer.param_groups
