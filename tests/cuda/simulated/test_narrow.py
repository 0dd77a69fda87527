"""float16 and bfloat16 rows on the GPU: float32 arithmetic, and one rounding."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest

from mmembed import kernels
from mmembed.kernels import packed
from mmembed.kernels.cuda import body
from tests.kernels.checks import same_bits

DTYPES = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
IDS = np.array([3, 1, 3, 4, 0, 3, 3, 1, 3, 3], np.int64)
REFERENCE = kernels.load("reference")


def table_of(dtype, dim=8, salt=0):
    rng = np.random.default_rng([2, salt])
    return (rng.standard_normal((5, dim)) * 10.0 ** rng.integers(-3, 3, (5, dim))).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [8, 7])
@pytest.mark.parametrize("weighted", [False, True])
def test_bags_have_the_bits_of_the_cpu(dtype, dim, weighted):
    table = table_of(dtype, dim)
    starts = np.array([0, 3, 3, 10])
    weights = np.linspace(-1, 2, 10, dtype=np.float32) if weighted else np.empty(0, np.float32)
    want = np.empty((3, dim), np.float32)
    wide = table.astype(np.float32)
    REFERENCE.gather_bags(wide, IDS, starts, weights, 1, True, want, 1)
    out, narrow = np.empty_like(want), np.empty((3, dim), dtype)

    body.gather_bags(table, IDS, starts, weights, 1, True, out)
    body.gather_bags(table, IDS, starts, weights, 1, True, narrow)

    same_bits(out, want)
    same_bits(narrow, packed.rounded(want, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_largest_of_a_bag_has_the_bits_of_the_cpu(dtype):
    table = table_of(dtype)
    starts = np.array([0, 3, 3, 10])
    want, where = np.empty((3, 8), np.float32), np.empty((3, 8), np.int64)
    REFERENCE.gather_bags_max(table.astype(np.float32), IDS, starts, -1, want, where, 1)
    out, positions = np.empty((3, 8), dtype), np.empty((3, 8), np.int64)

    body.gather_bags_max(table, IDS, starts, -1, out, positions)

    same_bits(out, want.astype(dtype))
    same_bits(positions, where)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("dim", [8, 3])
@pytest.mark.parametrize("wide_gradient", [False, True])
def test_adam_rounds_a_narrow_row_once(dtype, dim, wide_gradient):
    table, values = table_of(dtype, dim), table_of(dtype, dim, 1)
    values = values.astype(np.float32) if wide_gradient else values
    order, starts = np.array([4, 0, 2, 3]), np.array([0, 1, 3, 4])
    ids = np.array([0, 2, 3])
    states = [np.abs(table_of(np.float32, dim, salt)) for salt in (2, 3)]
    want = [table.astype(np.float32), *(state.copy() for state in states)]
    rest = (0.3, 0.9, 0.99, 1e-3, 0.125, True)
    gradient = values.astype(np.float32)
    REFERENCE.update_adam(*want, ids, gradient, order, starts, *rest, None, 1)

    assert body.update_adam(table, *states, ids, values, order, starts, *rest) == -1

    same_bits(table, packed.rounded(want[0], dtype))
    for got, expected in zip(states, want[1:], strict=True):
        same_bits(got, expected)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rowwise_adagrad_rounds_a_narrow_row_once(dtype):
    table, values = table_of(dtype), table_of(dtype, salt=1)
    order, starts, ids = np.array([4, 0, 2]), np.array([0, 1, 3]), np.array([1, 4])
    total = np.ones((5, 1), np.float32)
    want = [table.astype(np.float32), total.copy()]
    rest = (0.3, 1e-3, 0.0, False)
    gradient = values.astype(np.float32)
    REFERENCE.update_rowwise_adagrad(*want, ids, gradient, order, starts, *rest, None, 1)

    assert body.update_rowwise_adagrad(table, total, ids, values, order, starts, *rest) == -1

    same_bits(table, packed.rounded(want[0], dtype))
    same_bits(total, want[1])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_sums_of_narrow_rows_are_rounded_once(dtype):
    values = table_of(dtype)
    order, starts = np.array([4, 0, 2, 1, 0, 3]), np.array([0, 1, 5, 5, 6])
    want = np.empty((4, 8), np.float32)
    REFERENCE.segment_sum(values.astype(np.float32), order, starts, want, 1)
    out = np.empty((4, 8), dtype)

    body.segment_sum(values, order, starts, out)

    same_bits(out, packed.rounded(want, dtype))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_rounding_is_to_even_with_one_nan_and_infinities(dtype):
    tie = 1 + np.float32(2.0) ** (-11 if dtype == np.float16 else -8)
    given = np.array([[tie, -tie, np.nan, np.inf, -np.inf, 1e-45, 70000, -0.0]], np.float32)
    out = np.empty((1, 8), dtype)

    body.segment_sum(given, np.zeros(1, np.int64), np.array([0, 1]), out)

    same_bits(out, packed.rounded(given, dtype))  # 70000 is beyond float16


def test_rows_of_other_dtypes_are_copied_and_not_summed():
    table = np.arange(12, dtype=np.uint8).reshape(3, 4)
    out = np.empty((2, 4), np.uint8)

    assert body.gather(table, np.array([2, 0]), out) == -1
    np.testing.assert_array_equal(out, table[[2, 0]])
    with pytest.raises(TypeError, match="must be one of float32, float64, float16, bfloat16"):
        body.segment_sum(table, np.zeros(1, np.int64), np.array([0, 1]), out)
