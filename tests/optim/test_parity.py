"""Optimizers against torch's: the same gradients, step by step, sparse and dense."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import mmembed as mm
from mmembed import nn, optim

torch = pytest.importorskip("torch")
torch.sparse.check_sparse_tensor_invariants.enable()

SGD = {
    "plain": {"lr": 0.1},
    "momentum": {"lr": 0.1, "momentum": 0.9},
    "dampening": {"lr": 0.1, "momentum": 0.9, "dampening": 0.3},
    "nesterov": {"lr": 0.1, "momentum": 0.9, "nesterov": True},
    "maximize": {"lr": 0.1, "momentum": 0.5, "maximize": True},
    "weight_decay": {"lr": 0.1, "weight_decay": 0.1},
    "lr 0": {"lr": 0.0},
}
ADAGRAD = {
    "plain": {"lr": 0.1},
    "lr_decay": {"lr": 0.1, "lr_decay": 0.1},
    "initial": {"lr": 0.1, "initial_accumulator_value": 0.5, "eps": 1e-3},
    "maximize": {"lr": 0.1, "maximize": True},
    "weight_decay": {"lr": 0.1, "weight_decay": 0.1},
}
SPARSE_ADAM = {
    "plain": {"lr": 0.1},
    "betas": {"lr": 0.1, "betas": (0.5, 0.0)},
    "maximize": {"lr": 0.1, "maximize": True, "eps": 1e-3},
}
ADAM = {
    "plain": {"lr": 0.1},
    "betas": {"lr": 0.1, "betas": (0.5, 0.0)},
    "maximize": {"lr": 0.1, "maximize": True, "eps": 1e-3},
    "weight_decay": {"lr": 0.1, "weight_decay": 0.1},
    "lr 0": {"lr": 0.0},
}
RULES = [
    pytest.param(name, options, id=f"{name}-{case}")
    for name, cases in (
        ("SGD", SGD),
        ("Adagrad", ADAGRAD),
        ("SparseAdam", SPARSE_ADAM),
        ("Adam", ADAM),
        ("AdamW", ADAM),
    )
    for case, options in cases.items()
]
batches = st.lists(st.lists(st.integers(0, 5), max_size=8), min_size=1, max_size=4)


@pytest.mark.parametrize(("name", "options"), RULES)
@given(batches=batches, sparse=st.booleans(), dtype=st.sampled_from(["float32", "float64"]))
def test_table_and_state_follow_torch(name, options, batches, sparse, dtype):
    sparse = name == "SparseAdam" or (sparse and "weight_decay" not in options)
    sparse = sparse and not name.startswith("Adam")
    rng = np.random.default_rng(0)
    start = rng.standard_normal((6, 3)).astype(dtype)
    ours = nn.Embedding(6, 3, sparse=sparse, _weight=start.copy())
    theirs = torch.nn.Embedding(6, 3, sparse=sparse, _weight=torch.from_numpy(start.copy()))
    our_rule = getattr(optim, name)([ours.weight], **options)
    their_rule = getattr(torch.optim, name)(theirs.parameters(), **options)

    for ids in batches:
        upstream = rng.standard_normal((len(ids), 3)).astype(dtype)
        our_rule.zero_grad()
        their_rule.zero_grad()
        ours(np.array(ids, np.int64)).backward(mm.tensor(upstream))
        theirs(torch.tensor(ids, dtype=torch.int64)).backward(torch.from_numpy(upstream))
        our_rule.step()
        their_rule.step()

    rtol = 2e-5 if dtype == "float32" else 1e-12
    np.testing.assert_allclose(
        ours.weight.array, theirs.weight.detach().numpy(), rtol=rtol, atol=rtol
    )
    same_state(our_rule, their_rule, rtol)


def same_state(ours, theirs, rtol):
    state = ours.state_dict()["state"].get(0, {})
    for name, want in theirs.state_dict()["state"].get(0, {}).items():
        if name == "step":
            assert state["step"] == want
        elif want is not None:
            want = want.to_dense() if want.is_sparse else want
            np.testing.assert_allclose(state[name].numpy(), want.numpy(), rtol=rtol, atol=rtol)


@pytest.mark.parametrize("shape", [(), (3,), (4, 3), (2, 3, 4), (0,), (0, 3), (3, 0)])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1}),
        ("Adagrad", {"lr": 0.1}),
        ("AdamW", {"lr": 0.1, "weight_decay": 0.1}),
    ],
)
def test_dense_parameters_of_any_shape_follow_torch(shape, name, options):
    start = np.random.default_rng(1).standard_normal(shape)
    ours = mm.tensor(start, requires_grad=True)
    theirs = torch.tensor(start, requires_grad=True)
    our_rule = getattr(optim, name)([ours], **options)
    their_rule = getattr(torch.optim, name)([theirs], **options)

    for _ in range(3):
        our_rule.zero_grad()
        their_rule.zero_grad()
        (ours**2).sum().backward()
        (theirs**2).sum().backward()
        our_rule.step()
        their_rule.step()

    np.testing.assert_allclose(ours.array, theirs.detach().numpy(), rtol=1e-12)
    assert ours._version == 3


def test_groups_have_options_of_their_own():
    a, b = (mm.ones(2, requires_grad=True) for _ in range(2))
    rule = optim.SGD([{"params": [a], "lr": 1.0}, {"params": b}], lr=0.5)
    (a.sum() + b.sum()).backward()

    rule.step()

    assert a.tolist() == [0, 0]
    assert b.tolist() == [0.5, 0.5]


MESSAGES = [
    ("SGD", {"lr": -1}, "Invalid learning rate: -1"),
    ("SGD", {"momentum": -1}, "Invalid momentum value: -1"),
    ("SGD", {"weight_decay": -1}, "Invalid weight_decay value: -1"),
    ("SGD", {"nesterov": True}, "Nesterov momentum requires a momentum and zero dampening"),
    ("Adagrad", {"lr_decay": -1}, "Invalid lr_decay value: -1"),
    ("Adagrad", {"initial_accumulator_value": -1}, "Invalid initial_accumulator_value value: -1"),
    ("Adagrad", {"eps": -1}, "Invalid epsilon value: -1"),
    ("SparseAdam", {"lr": 0}, "Invalid learning rate: 0"),
    ("SparseAdam", {"eps": 0}, "Invalid epsilon value: 0"),
    ("SparseAdam", {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
    ("SparseAdam", {"betas": (0.9, -0.1)}, "Invalid beta parameter at index 1: -0.1"),
    ("Adam", {"lr": -1}, "Invalid learning rate: -1"),
    ("Adam", {"eps": -1}, "Invalid epsilon value: -1"),
    ("Adam", {"betas": (1.0, 0.9)}, "Invalid beta parameter at index 0: 1.0"),
    ("AdamW", {"weight_decay": -1}, "Invalid weight_decay value: -1"),
]


@pytest.mark.parametrize(("name", "options", "message"), MESSAGES)
def test_wrong_hyper_parameters_are_refused_in_torchs_words(name, options, message):
    for library, parameter in (
        (optim, mm.ones(2, requires_grad=True)),
        (torch.optim, torch.ones(2)),
    ):
        with pytest.raises(ValueError, match=message):
            getattr(library, name)([parameter], **options)


REFUSED = [
    ("SGD", {"lr": 0.1, "weight_decay": 0.1}, True, r"add\(sparse, dense\) is not supported"),
    ("Adagrad", {"weight_decay": 0.1}, True, "weight_decay option is not compatible with sparse"),
    ("SparseAdam", {}, False, "SparseAdam does not support dense gradients, please consider Adam"),
    ("Adam", {}, True, "Adam does not support sparse gradients, please consider SparseAdam instea"),
    ("AdamW", {}, True, "Adam does not support sparse gradients, please consider SparseAdam inste"),
]


@pytest.mark.parametrize(("name", "options", "sparse", "message"), REFUSED)
def test_a_gradient_the_rule_does_not_support_is_refused_before_anything_changes(
    name, options, sparse, message
):
    first = nn.Embedding(3, 2, sparse=not sparse)
    second = nn.Embedding(3, 2, sparse=sparse)
    rule = getattr(optim, name)([first.weight, second.weight], **options)
    (first([1]).sum() + second([1]).sum()).backward()
    before = first.weight.array.copy()

    with pytest.raises(RuntimeError, match=message):
        rule.step()

    np.testing.assert_array_equal(first.weight.array, before)
    assert rule.state_dict()["state"].get(0, {"step": 0})["step"] == 0


@pytest.mark.parametrize("rule", [optim.Adam, optim.AdamW])
def test_amsgrad_is_refused(rule):
    with pytest.raises(TypeError, match="amsgrad"):
        rule([mm.ones(2, requires_grad=True)], amsgrad=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("name", ["SGD", "Adagrad", "SparseAdam"])
def test_a_step_is_torchs_but_for_the_rounding_of_its_products(name, sparse, dtype):
    """torch fuses a product and a sum where the processor can; we round both, on every machine."""
    sparse = sparse or name == "SparseAdam"
    rng = np.random.default_rng(0)
    start, upstream = (rng.standard_normal((500, 8)).astype(dtype) for _ in range(2))
    ours = nn.Embedding(500, 8, sparse=sparse, _weight=start.copy())
    theirs = torch.nn.Embedding(500, 8, sparse=sparse, _weight=torch.from_numpy(start.copy()))
    ids = rng.permutation(500)

    ours(ids).backward(mm.tensor(upstream))
    theirs(torch.from_numpy(ids)).backward(torch.from_numpy(upstream))
    getattr(optim, name)(ours.parameters(), lr=0.1).step()
    getattr(torch.optim, name)(theirs.parameters(), lr=0.1).step()

    found, want = ours.weight.array, theirs.weight.detach().numpy()
    ulp = np.finfo(dtype).eps * (np.abs(start) + np.abs(want - start))
    assert (np.abs(found - want) <= 2 * ulp).all()
    if name == "SGD":
        gradient = np.empty_like(start)
        gradient[ids] = upstream
        np.testing.assert_array_equal(found, start - np.dtype(dtype).type(0.1) * gradient)
