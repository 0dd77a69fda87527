"""Freed and shared graphs, long ones, and what is recorded at all."""

from __future__ import annotations

import gc
import subprocess
import sys
import threading
import weakref

import numpy as np
import pytest

from mmembed.autograd import cat, no_grad, ones, ops, randn, stack, tensor

PARAMETER = randn(5, 3)


def leaf(*shape):
    return ones(*shape, requires_grad=True)


TWICE_ALLOWED = {
    "w+1": lambda w: w + 1,
    "w.t()": lambda w: w.t(),
    "w.sum()": lambda w: w.sum(),
    "w.reshape(15)": lambda w: w.reshape(15),
    "w[0]": lambda w: w[0],
    "cat": lambda w: cat([w, w]),
    "stack": lambda w: stack([w, w]),
    "clone": lambda w: w.clone(),
    "cast": lambda w: w.double(),
}
TWICE_REFUSED = {
    "w*2": lambda w: w * 2,
    "w/2": lambda w: w / 2,
    "2/w": lambda w: 2 / w,
    "w**2": lambda w: w**2,
    "w.exp()": lambda w: w.exp(),
    "w@const": lambda w: w @ PARAMETER,
    "w[ids]": lambda w: w[[0, 1]],
    "w.norm()": lambda w: w.norm(),
    "w.softmax(0)": lambda w: w.softmax(0),
    "w.max()": lambda w: w.max(),
    "w.max(0)": lambda w: w.max(0)[0],
    "bce": lambda w: ops.binary_cross_entropy_with_logits(w, ones(3, 5)),
    "nll": lambda w: ops.nll_loss(w, tensor([0, 1, 2])),
    "mse": lambda w: ops.mse_loss(w, ones(3, 5)),
}


@pytest.mark.parametrize("name", TWICE_ALLOWED)
def test_a_graph_that_saved_nothing_runs_twice(name):
    w = leaf(3, 5)
    result = TWICE_ALLOWED[name](w)
    seed = ones(*result.shape)

    result.backward(seed)
    once = w.grad.array.copy()
    result.backward(seed)

    np.testing.assert_array_equal(w.grad.array, 2 * once)


@pytest.mark.parametrize("name", TWICE_REFUSED)
def test_a_graph_that_saved_something_runs_once_unless_retained(name):
    w = leaf(3, 5)
    result = TWICE_REFUSED[name](w).sum()

    result.backward(retain_graph=True)
    result.backward()

    with pytest.raises(RuntimeError, match="Trying to backward through the graph a second time"):
        result.backward()


def test_a_part_shared_by_two_graphs_is_freed_by_the_first():
    w = leaf(2)
    shared = w * 2
    first, second = (shared + 1).sum(), (shared + 2).sum()
    first.backward()

    with pytest.raises(RuntimeError, match="a second time"):
        second.backward()


def test_a_part_shared_by_two_graphs_is_kept_by_retain_graph():
    w = leaf(2)
    shared = w * 2
    first, second = (shared + 1).sum(), (shared * 3).sum()

    first.backward(retain_graph=True)
    second.backward()

    assert w.grad.tolist() == [8, 8]


def test_a_diamond_is_walked_once():
    w = tensor([3.0], requires_grad=True)
    top = w * w
    result = top * top + top

    result.backward()

    assert w.grad.tolist() == [4 * 27 + 6]


def test_two_to_the_power_of_fifty_paths_are_walked_in_fifty_steps():
    w = tensor(1.0, requires_grad=True)
    x = w
    for _ in range(50):
        x = x + x

    x.backward()

    assert w.grad.item() == 2.0**50


def test_a_chain_of_200_000_tensors_runs_and_is_collected_on_a_small_stack():
    outcome = []

    def run():
        w = tensor([1.0], requires_grad=True)
        x = w
        for _ in range(200_000):
            x = -x
        last = weakref.ref(x.grad_fn)
        x.backward()
        del x
        outcome.append((w.grad.tolist(), last()))

    before = threading.stack_size(512 * 1024)
    try:
        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
    finally:
        threading.stack_size(before)

    assert outcome == [([1.0], None)]


def test_a_graph_that_is_alive_at_exit_leaves_quietly():
    code = (
        "from mmembed.autograd import ones\n"
        "x = ones(2, requires_grad=True)\n"
        "for _ in range(20000): x = x * 2\n"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )

    assert result.stderr == ""


def test_graphs_hold_no_reference_cycles():
    gc.collect()
    gc.disable()
    try:
        w = leaf(3, 5)
        result = (w.exp() * w.sigmoid()).softmax(1) + 1
        result.mul_(w)
        result[0] = w[1]
        node, array = weakref.ref(result.grad_fn), weakref.ref(result.array)
        result.sum().backward()
        del result

        assert node() is None
        assert array() is None
    finally:
        gc.enable()


def test_nothing_is_recorded_under_no_grad():
    w = leaf(2)

    with no_grad():
        result = w * 2

    assert result.is_leaf
    assert not result.requires_grad


def test_operations_on_constants_are_not_recorded():
    result = ones(2) * 2 + np.ones(2)

    assert result.grad_fn is None


def test_backward_works_under_no_grad():
    w = leaf(2)
    result = (w * 2).sum()

    with no_grad():
        result.backward()

    assert w.grad.tolist() == [2, 2]


def test_leaves_stay_alive_through_their_graph():
    result = (leaf(2) * leaf(2)).sum()

    result.backward()

    assert result.item() == 2


def test_integer_results_require_no_gradient():
    w = leaf(2)

    assert not w.to(np.int64).requires_grad
    assert not w.argmax().requires_grad
    assert not (w > 0).requires_grad
