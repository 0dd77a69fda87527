"""The kernels for GPUs against the contract that the bodies for CPUs keep, bit for bit."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from mmembed import kernels
from mmembed.kernels.cuda import body, missing
from tests.kernels.cases import Case
from tests.kernels.checks import CHECKS, GRADIENTS, UPDATES, check_update, same_bits
from tests.kernels.test_conformance import KERNELS

# `initial_rows` is drawn on the CPU.
NAMES = [name for name in CHECKS if name != "initial_rows"]
REPEATED = (3, 1, 3, 8, 0, 3, 3, 3, 1, 3, 3, 3, 3, 5)
CASES = {
    "aligned": Case(9, 24, "float32", "int64", "contiguous", False, 1, REPEATED, 5),
    "strided": Case(9, 7, "float32", "int32", "strided", True, 1, REPEATED, 6),
    "double": Case(9, 18, "float64", "int64", "contiguous", True, 1, REPEATED, 7),
    "empty batch": Case(4, 3, "float32", "int64", "contiguous", False, 1, (), 8),
    "no columns": Case(4, 0, "float32", "int32", "contiguous", False, 1, (1, 1, 0), 9),
}
MORE = {
    "wide": Case(
        5, 132, "float32", "int64", "contiguous", False, 1, (4, 0, 4, 2, 1, 1, 3, 0, 2, 4, 4, 3), 10
    ),
    "wide and odd": Case(5, 33, "float64", "int32", "strided", False, 1, (4, 0, 4, 2), 11),
    "one row": Case(1, 4, "float32", "int64", "contiguous", False, 1, (0,) * 11, 12),
    "many": Case(50, 2, "float32", "int64", "strided", False, 1, (*range(49), *range(49), 0), 13),
    "no rows": Case(0, 5, "float64", "int64", "contiguous", False, 1, (), 14),
}


def test_a_simulator_needs_no_gpu():
    assert missing() is None


def test_the_body_takes_the_arguments_of_the_contract():
    for name in set(KERNELS) - {"initial_rows"}:
        contract = list(inspect.signature(getattr(kernels, name)).parameters)
        scratch = ["work"] if name.startswith("update") else []
        got = list(inspect.signature(getattr(body, name)).parameters)
        assert got == [*contract, *scratch, "threads"], name


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", NAMES)
def test_kernel_keeps_the_contract(name, case):
    CHECKS[name](body, case)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("name", UPDATES)
def test_update_follows_its_rule_to_the_last_bit(name, case):
    check_update(body, case, name, 0.125, maximize=True)


@pytest.mark.parametrize("name", UPDATES)
def test_update_of_all_rows_takes_empty_segments_as_zero_gradients(name):
    check_update(body, CASES["strided"], name, 0.0, dense=True)


@pytest.mark.long
@pytest.mark.parametrize("case", MORE.values(), ids=MORE)
@pytest.mark.parametrize("name", NAMES)
def test_kernel_keeps_the_contract_on_more_shapes(name, case):
    CHECKS[name](body, case)


@pytest.mark.long
@pytest.mark.parametrize("case", MORE.values(), ids=MORE)
@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(("weight_decay", "maximize"), GRADIENTS)
def test_update_follows_its_rule_on_more_shapes(name, case, weight_decay, maximize):
    check_update(body, case, name, weight_decay, maximize)


@pytest.mark.parametrize("name", ["gather", "gather_bags", "renorm", "scatter_add"])
def test_a_table_without_rows_has_no_good_id(name):
    CHECKS[name](body, MORE["no rows"])


def test_rows_that_are_not_contiguous_are_refused():
    table, out = np.zeros((3, 8), np.float32)[:, ::2], np.empty((1, 4), np.float32)

    with pytest.raises(ValueError, match="with contiguous rows"):
        body.gather(table, np.zeros(1, np.int64), out)


def test_a_row_wider_than_a_warp_is_copied_whole():
    CHECKS["gather"](body, MORE["wide"])


def test_scatter_add_without_a_plan_adds_every_entry():
    table = np.zeros((4, 6), np.float32)
    ids = np.array([2, 0, 2, 2], np.int32)
    values = np.arange(24, dtype=np.float32).reshape(4, 6)
    want = table.copy()
    np.add.at(want, ids, values)

    assert body.scatter_add_atomic(values, ids, table) == -1
    same_bits(table, want)
    assert body.scatter_add_atomic(values, np.array([0, 1, 4, -1]), table) == 2
    same_bits(table, want)


@pytest.mark.parametrize("special", [np.nan, np.inf, -np.inf])
def test_norm_of_a_row_with_a_special_value_follows_numpy(special):
    table = np.array([[1.0, special, 2.0], [special, 1.0, 2.0]], np.float32)
    out = np.empty(2)

    for p in (2.0, 1.0, 3.0, np.inf, -np.inf):
        body.row_norms(table, np.arange(2), p, out)
        np.testing.assert_array_equal(out, np.linalg.norm(table.astype(np.float64), p, axis=1))


def test_norm_above_the_largest_float32_does_not_zero_a_finite_row():
    table = np.full((1, 4), 3e38, np.float32)

    body.renorm(table, np.arange(1), 1.0, 2.0)

    np.testing.assert_allclose(table, 0.5, rtol=1e-6)


def test_the_largest_of_a_bag_is_a_nan_only_if_it_comes_first():
    table = np.array([[np.nan], [-np.inf], [2.0]])
    out, where = np.empty((3, 1)), np.empty((3, 1), np.int64)
    ids, starts = np.array([0, 2, 1, 0, 2, 1]), np.array([0, 2, 5, 6])

    body.gather_bags_max(table, ids, starts, -1, out, where)

    np.testing.assert_array_equal(out, [[np.nan], [2.0], [-np.inf]])
    np.testing.assert_array_equal(where, [[0], [4], [5]])


def test_a_plan_of_many_chunks_is_the_reference_plan():
    rng = np.random.default_rng(1)
    ids = (rng.zipf(1.3, 300) % 700).astype(np.int64)
    outs = [np.full(size, -7, np.int64) for size in (300, 300, 301, 1)]
    wants = [np.full(size, -7, np.int64) for size in (300, 300, 301, 1)]

    assert body.plan(ids, 700, *outs, np.empty(600, np.int64)) == -1
    kernels.load("reference").plan(ids, 700, *wants, np.empty(600, np.int64), 1)

    count = int(wants[3][0])
    assert outs[3][0] == count
    for got, want, size in zip(outs, wants, (300, count, count + 1), strict=False):
        same_bits(got[:size], want[:size])


def test_a_plan_may_have_places_of_32_bits():
    ids = np.array([5, 2, 5, 2, 9, 0], np.int32)
    order, unique = np.empty(6, np.int32), np.empty(6, np.int32)
    starts, count = np.empty(7, np.int32), np.empty(1, np.int64)

    assert body.plan(ids, 10, order, unique, starts, count, np.empty(0, np.int64)) == -1

    assert order.tolist() == [5, 1, 3, 0, 2, 4]
    assert unique[:4].tolist() == [0, 2, 5, 9]
    assert starts[:5].tolist() == [0, 1, 3, 5, 6]
