"""Activations and dropout in place, as torch's functionals and modules have them."""

from __future__ import annotations

import pytest

from mmembed import functional as F
from mmembed.autograd import manual_seed, tensor


def test_relu_in_place_changes_its_input_and_passes_gradients():
    x = tensor([-1.0, 2.0], requires_grad=True)
    doubled = x * 2

    result = F.relu(doubled, inplace=True)
    result.sum().backward()

    assert result is doubled
    assert result.tolist() == [0, 4]
    assert x.grad.tolist() == [0, 2]


def test_dropout_in_place_is_dropout():
    x = tensor([1.0] * 50, requires_grad=True)

    manual_seed(1)
    expected = F.dropout(x, 0.4)
    manual_seed(1)
    changed = x * 1
    result = F.dropout(changed, 0.4, inplace=True)
    result.sum().backward()

    assert result is changed
    assert result.tolist() == expected.tolist() == x.grad.tolist()
    assert F.dropout(changed, 0.4, training=False, inplace=True) is changed


def test_a_probability_outside_0_and_1_is_refused_in_place_too():
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got 2"):
        F.dropout(tensor([1.0]), 2, inplace=True)
    with pytest.raises(ValueError, match="has to be between 0 and 1, but got -1"):
        F.dropout(tensor([1.0]), -1, training=False, inplace=True)
