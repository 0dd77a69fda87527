"""Binary cross-entropy to the last digits and in every layout; options of the other losses."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import mutually_broadcastable_shapes

from mmembed.autograd import from_numpy, no_grad, ops, tensor
from mmembed.autograd.ops import logistic

bce = ops.binary_cross_entropy_with_logits


def exact(x, y):
    """Return the loss and its derivative from the formulas, in float64, without cancellation."""
    loss = y * np.logaddexp(0, -x) + (1 - y) * np.logaddexp(0, x)
    return loss, -y / (1 + np.exp(x)) + (1 - y) / (1 + np.exp(-x))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_losses_are_right_to_the_last_digits_for_every_logit(dtype):
    x = np.concatenate([np.linspace(-80, 80, 4001), np.linspace(-1, 1, 999)]).astype(dtype)
    eps = np.finfo(dtype).eps

    for label in (0.0, 1.0):
        logits = tensor(x, requires_grad=True)
        loss = bce(logits, np.full_like(x, label), reduction="none")
        loss.backward(tensor(np.ones_like(x)))
        expected, slope = exact(x.astype(np.float64), label)
        np.testing.assert_allclose(loss.detach().array, expected, rtol=4 * eps, atol=0)
        np.testing.assert_allclose(logits.grad.array, slope, rtol=4 * eps, atol=2 * eps)


def test_a_tiny_loss_keeps_its_digits():
    for logit, label in ((20.0, 1.0), (-20.0, 0.0)):
        loss = bce(tensor([logit]), tensor([label]))

        assert loss.item() == pytest.approx(math.log1p(math.exp(-20)), rel=1e-6)


def test_soft_targets_are_right():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal(1000) * 5, rng.random(1000)

    loss = bce(tensor(x), tensor(y), reduction="none")

    np.testing.assert_allclose(loss.array, exact(x, y)[0], rtol=1e-13)


def test_huge_logits_give_finite_losses():
    x = tensor([1000.0, -1000.0, 1e30], requires_grad=True)

    loss = bce(x, tensor([0.0, 1.0, 1.0]), reduction="none")
    loss.sum().backward()

    assert loss.tolist() == [1000, 1000, 0]
    assert x.grad.tolist() == [1, -1, 0]


TARGETS = {
    "float32": lambda y: y.astype(np.float32),
    "float64": lambda y: y.astype(np.float64),
    "bool": lambda y: y,
    "uint8": lambda y: y.astype(np.uint8),
    "int64": lambda y: y.astype(np.int64),
    "tensor": lambda y: tensor(y.astype(np.float32)),
    "transposed": lambda y: np.ascontiguousarray(y.T).T,
}


@pytest.mark.parametrize("name", TARGETS)
def test_targets_of_every_kind_give_the_same(name):
    rng = np.random.default_rng(0)
    values = rng.standard_normal((5, 7)).astype(np.float32)
    labels = rng.random((5, 7)) < 0.5

    def run(target):
        x = tensor(values, requires_grad=True)
        loss = bce(x, target)
        loss.backward()
        return loss.dtype, loss.item(), x.grad.tolist()

    assert run(TARGETS[name](labels)) == run(labels.astype(np.float32))


@settings(max_examples=40)
@given(
    shapes=mutually_broadcastable_shapes(num_shapes=3, max_dims=3, max_side=5, min_side=0),
    block=st.sampled_from([1, 3, 64]),
    strided=st.booleans(),
)
def test_broadcast_targets_and_weights_and_blocks_of_any_size(shapes, block, strided):
    rng = np.random.default_rng(0)
    shape = shapes.result_shape
    y, w = (rng.random(s) for s in shapes.input_shapes[:2])
    values = rng.standard_normal(shape)
    values = np.asfortranarray(values)[..., ::-1] if strided and shape else values
    x = from_numpy(values).requires_grad_()
    before, logistic.BLOCK = logistic.BLOCK, block
    try:
        loss = bce(x, y, w, reduction="sum")
        loss.backward()
    finally:
        logistic.BLOCK = before

    losses, slopes = exact(values, y)
    np.testing.assert_allclose(loss.item(), (losses * w).sum(), rtol=1e-12)
    np.testing.assert_allclose(x.grad.array, slopes * w, rtol=1e-11, atol=1e-15)


def test_large_inputs_cross_block_borders():
    rng = np.random.default_rng(0)
    values = rng.standard_normal((3, 5000, 3)).astype(np.float32)
    labels = rng.random((5000, 1)) < 0.3
    x = tensor(values, requires_grad=True)

    loss = bce(x, labels)
    loss.backward()

    losses, slopes = exact(values.astype(np.float64), labels * 1.0)
    assert loss.item() == pytest.approx(losses.mean(), rel=1e-6)
    np.testing.assert_allclose(x.grad.array * values.size, slopes, rtol=1e-5, atol=1e-6)


def test_the_mean_over_nothing_is_nan_and_the_sum_0():
    nothing = tensor(np.zeros((0, 3), np.float32))

    assert math.isnan(bce(nothing, nothing).item())
    assert bce(nothing, nothing, reduction="sum").item() == 0
    assert bce(nothing, nothing, reduction="none").shape == (0, 3)


def test_logits_may_change_before_backward():
    x = tensor([1.0, 2.0], requires_grad=True)
    loss = bce(x, np.ones(2))

    with no_grad():
        x.zero_()
    loss.backward()

    np.testing.assert_allclose(x.grad.array, exact(np.array([1.0, 2.0]), 1.0)[1] / 2, rtol=1e-6)


def test_without_grad_no_slopes_are_kept():
    x = tensor([1.0], requires_grad=True)

    with no_grad():
        assert bce(x, np.ones(1)).grad_fn is None
    assert bce(x.detach(), np.ones(1)).grad_fn is None


@pytest.mark.parametrize("name", ["target", "weight", "pos_weight"])
def test_a_gradient_for_anything_but_the_logits_is_refused(name):
    arguments = {"target": np.ones(2), name: tensor([1.0, 1.0], requires_grad=True)}

    with pytest.raises(RuntimeError, match=rf"{name} requires grad.* Pass {name}.detach\(\)"):
        bce(tensor([1.0, 2.0]), **arguments)


def test_weights_that_do_not_fit_are_refused():
    with pytest.raises(RuntimeError, match=r"weight of shape \[3\] does not broadcast to input"):
        bce(tensor([1.0, 2.0]), np.ones(2), np.ones(3))
    with pytest.raises(ValueError, match=r"Target size \(torch.Size\(\[2, 2\]\)\) must be"):
        bce(tensor([1.0, 2.0]), np.ones((2, 2)))


def test_ignored_targets_count_for_nothing():
    x = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)

    loss = ops.cross_entropy(x, tensor([-100, 0]))
    loss.backward()

    assert loss.item() == pytest.approx(math.log(1 + math.e))
    assert x.grad.tolist()[0] == [0, 0]


def test_the_mean_over_ignored_targets_only_is_nan():
    assert math.isnan(ops.cross_entropy(tensor([[1.0, 2.0]]), tensor([-100])).item())


def test_targets_of_all_integer_dtypes_are_classes():
    x = tensor([[1.0, 2.0], [3.0, 4.0]])

    for dtype in (np.uint8, np.int32, np.int64):
        assert ops.cross_entropy(x, np.array([0, 1], dtype)).item() == pytest.approx(0.813262)


def test_a_class_out_of_range_is_named_with_its_place():
    with pytest.raises(IndexError) as caught:
        ops.cross_entropy(tensor(np.zeros((2, 3))), tensor([0, 7]))

    assert str(caught.value) == (
        "Target 7 is out of bounds. It stands at (1,); there are 3 classes (valid: 0..2, and "
        "ignore_index -100)"
    )


def test_changing_the_classes_before_backward_is_refused():
    x, classes = tensor([[1.0, 2.0]], requires_grad=True), tensor([0])
    loss = ops.cross_entropy(x, classes)

    classes.add_(1)

    with pytest.raises(RuntimeError, match=r"\[torch.LongTensor \[1\]\] is at version 1"):
        loss.backward()


def test_an_unknown_reduction_is_refused():
    for loss in (bce, ops.mse_loss):
        with pytest.raises(ValueError, match=r"median is not a valid value for reduction \(valid"):
            loss(tensor([1.0]), tensor([1.0]), reduction="median")


def test_softmax_of_large_numbers_does_not_overflow():
    x = tensor([1000.0, 1000.0, -1000.0])

    assert x.softmax(0).tolist() == [0.5, 0.5, 0]
    assert x.log_softmax(0).tolist()[2] == pytest.approx(-2000, rel=1e-3)


def test_logsigmoid_keeps_the_digits_of_tiny_and_huge_results():
    x = tensor([-1000.0, 0.0, 20.0])

    assert ops.logsigmoid(x).tolist() == pytest.approx([-1000, -math.log(2), -2.0611536e-9])
