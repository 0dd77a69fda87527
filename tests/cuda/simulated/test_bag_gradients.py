"""What goes back through bags: sums with a weight per entry, and the gradient of the weights."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed import kernels
from mmembed.kernels.cuda import body
from tests.kernels.checks import same_bits

IDS = np.array([3, 1, 3, 4, 0, 3, 3, 1, 3, 3], np.int64)
BAG = np.array([0, 0, 0, 2, 2, 2, 2, 2, 2, 3], np.int64)


def numbers(*shape, salt=0, dtype="float32"):
    rng = np.random.default_rng([7, salt])
    values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)
    values[rng.random(shape) < 0.2] = -0.0
    return values.astype(dtype)


def plan():
    order = np.argsort(IDS, kind="stable")
    unique, first = np.unique(IDS[order], return_index=True)
    return order, unique, np.append(first, IDS.size)


def check_weighted_sums(dtype, dim):
    grad, weights = numbers(4, dim, dtype=dtype), numbers(10, salt=1, dtype=dtype)
    order, unique, starts = plan()
    want, out = np.empty((unique.size, dim), dtype), np.full((unique.size, dim), np.nan, dtype)
    entries = grad[BAG] * weights[:, None]
    kernels.load("reference").segment_sum(entries, order, starts, want, 1)

    body.weighted_segment_sum(grad, BAG, weights, order, starts, out)

    same_bits(out, want)


@pytest.mark.parametrize("dim", [24, 5])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_weighted_sums_have_the_bits_of_entries_that_are_multiplied_first(dim, dtype):
    check_weighted_sums(dtype, dim)


def test_an_empty_segment_is_zero_and_indices_may_have_32_bits():
    grad, weights = numbers(4, 8), numbers(10, salt=1)
    out = np.full((2, 8), np.nan, np.float32)
    order, starts = np.array([9], np.int32), np.array([0, 0, 1], np.int32)

    body.weighted_segment_sum(grad, BAG.astype(np.int32), weights, order, starts, out)

    same_bits(out, np.stack([np.zeros(8, np.float32), grad[3] * weights[9]]))


def partial_sums(x, y):
    """The definition: 8 partial sums, added from 0 to 7."""
    parts = np.zeros(8, x.dtype)
    for j in range(x.size):
        parts[j % 8] += x[j] * y[j]
    total = parts[0]
    for part in parts[1:]:
        total += part
    return total


@pytest.mark.parametrize("dim", [24, 5, 0])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_gradient_of_a_weight_is_a_product_of_rows(dim, dtype):
    table, grad = numbers(5, dim, dtype=dtype), numbers(4, dim, salt=2, dtype=dtype)
    out = np.full(10, np.nan, dtype)

    assert body.weight_gradients(table, IDS, BAG, grad, 1, out) == -1

    want = [partial_sums(table[i], grad[b]) if i != 1 else 0 for i, b in zip(IDS, BAG, strict=True)]
    np.testing.assert_array_equal(out, np.array(want, dtype))
    exact = np.einsum("nd,nd->n", table[IDS].astype(float), grad[BAG].astype(float))
    np.testing.assert_allclose(out, np.where(IDS == 1, 0, exact), rtol=1e-4, atol=1e-4)


def test_the_gradient_of_weights_reports_the_first_bad_id_and_writes_nothing():
    table, grad, out = numbers(5, 8), numbers(4, 8), np.full(10, -7, np.float32)

    bad = np.where(np.arange(10) >= 6, 5, IDS)

    assert body.weight_gradients(table, bad, BAG, grad, -1, out) == 6
    assert (out == -7).all()


def test_narrow_rows_are_multiplied_in_float32():
    table, grad = numbers(5, 8, dtype="float16"), numbers(4, 8, salt=2, dtype="float16")
    out = np.empty(10, np.float32)

    body.weight_gradients(table, IDS, BAG, grad, -1, out)

    wide = table.astype(np.float32), grad.astype(np.float32)
    want = [partial_sums(wide[0][i], wide[1][b]) for i, b in zip(IDS, BAG, strict=True)]
    same_bits(out, np.array(want, np.float32))
