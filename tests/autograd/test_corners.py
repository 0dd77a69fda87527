"""Infinite gradients on flat places, failed assignments, layouts, and float16's narrow range."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmembed import functional as F
from mmembed.autograd import cat, stack, tensor

INF, NAN = math.inf, math.nan


@pytest.mark.parametrize(
    ("function", "x", "slopes"),
    [
        (lambda x: x.relu().sqrt(), [0.0, 4, -1], [0, 0.25, 0]),
        (lambda x: (x**0) * INF, [0.0, 2, INF, NAN], [0, 0, 0, 0]),
        (lambda x: x.max() * INF, [1.0, 3, 2], [0, INF, 0]),
        (lambda x: x.min() * INF, [1.0, 3, 1], [INF, 0, INF]),
        (lambda x: x.max(), [NAN, 3, NAN], [0.5, 0, 0.5]),
    ],
)
def test_what_is_flat_has_slope_0_whatever_arrives(function, x, slopes):
    leaf = tensor(x, requires_grad=True)

    function(leaf).sum().backward()

    assert leaf.grad.tolist() == slopes


def test_ignored_targets_keep_their_infinite_losses_to_themselves():
    logits = tensor([[1.0, 2], [-INF, 1]], requires_grad=True)

    loss = F.cross_entropy(logits, tensor([0, -100]), label_smoothing=0.1)
    loss.backward()

    assert loss.item() == pytest.approx(1.2632617)
    assert logits.grad.tolist()[1] == [0, 0]


@pytest.mark.parametrize("value", [3.0, tensor(3.0)])
def test_assigning_to_a_scalar_cuts_its_gradient(value):
    leaf = tensor(2.0, requires_grad=True)
    scalar = leaf * 1

    scalar[...] = value
    (scalar * 2).backward()

    assert leaf.grad.item() == 0


def test_an_assignment_that_is_refused_counts_no_change():
    leaf = tensor([1.0, 2, 3], requires_grad=True)
    out = leaf.exp()

    with pytest.raises(RuntimeError, match="shape mismatch"):
        out[0:2] = tensor([1.0, 1, 1])
    out.sum().backward()

    np.testing.assert_allclose(leaf.grad.numpy(), np.exp([1.0, 2, 3]), rtol=1e-6)


@pytest.mark.parametrize(
    "make",
    [
        lambda x: x[:, [0, 1, 1]],
        lambda x: stack([x.t(), x.t()]),
        lambda x: cat([x.t(), x.t()]),
        lambda x: x.t().unsqueeze(0).sum(0),
        lambda x: x.t().softmax(0),
        lambda x: x.t().log_softmax(1),
    ],
)
def test_results_that_are_not_elementwise_are_row_major(make):
    made = make(tensor(np.ones((3, 2))))

    assert made.array.flags.c_contiguous
    assert made.view(-1).shape == (made.numel(),)


@pytest.mark.parametrize(
    ("reduce", "value", "slope"),
    [
        (lambda x: x.mean(), 1.0, 1 / 70_000),
        (lambda x: x.norm(), 264.5, 1 / 264.5),
        (lambda x: F.mse_loss(x, x.detach() * 0), 1.0, 2 / 70_000),
        (
            lambda x: F.binary_cross_entropy_with_logits(x, x.detach() * 0),
            1.3132617,
            0.7310586 / 70_000,
        ),
        (lambda x: F.cross_entropy(x.reshape(-1, 2), np.zeros(35_000, int)), 0.6931, None),
    ],
)
def test_float16_losses_of_many_elements_neither_overflow_nor_vanish(reduce, value, slope):
    x = tensor(np.ones(70_000, np.float16), requires_grad=True)

    loss = reduce(x)
    loss.backward()

    assert loss.dtype == x.grad.dtype == np.float16
    assert loss.item() == pytest.approx(value, rel=2e-3)
    if slope is not None:
        np.testing.assert_allclose(x.grad.numpy(), slope, rtol=2e-2)
