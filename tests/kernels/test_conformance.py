"""Every body of the kernels against the contract, on random and on hand-picked inputs."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from hypothesis import given

from mmembed import kernels

from .cases import Case, cases
from .checks import CHECKS, GRADIENTS, UPDATES, check_update, same_bits, update_arrays

FUNCTIONS = [name for name in kernels.__all__ if inspect.isfunction(getattr(kernels, name))]
REGISTRY = {"accepts", "backend", "get_num_threads", "load", "set_backend", "set_num_threads"}
KERNELS = sorted(set(FUNCTIONS) - REGISTRY)


@pytest.mark.parametrize("name", KERNELS)
def test_every_body_takes_the_arguments_of_the_contract(body, name):
    contract = list(inspect.signature(getattr(kernels, name)).parameters)
    scratch = ["work"] if name.startswith("update") else []

    got = list(inspect.signature(getattr(body, name)).parameters)

    assert got == [*contract, *scratch, "threads"]


@pytest.mark.parametrize("name", CHECKS)
@given(case=cases())
def test_body_keeps_the_contract(body, name, case):
    CHECKS[name](body, case)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(("weight_decay", "maximize"), GRADIENTS)
@given(case=cases(max_rows=9))
def test_update_follows_its_rule_to_the_last_bit(body, name, weight_decay, maximize, case):
    check_update(body, case, name, weight_decay, maximize)


@pytest.mark.parametrize("name", UPDATES)
@given(case=cases(max_rows=9).filter(lambda case: case.rows < 3000))
def test_update_of_all_rows_takes_empty_segments_as_zero_gradients(body, name, case):
    check_update(body, case, name, 0.125, dense=True)


def test_there_is_a_check_for_every_kernel():
    assert sorted([*CHECKS, *UPDATES]) == KERNELS


def large_case(dtype="float32"):
    rng = np.random.default_rng(3)
    ids = tuple((rng.zipf(1.3, 20_000) % 3_000).tolist())
    return Case(3_000, 40, dtype, "int64", "strided", False, 1, ids, seed=5)


@pytest.mark.parametrize("name", [*CHECKS, *UPDATES])
def test_result_has_the_same_bits_for_1_to_4_threads(body, name):
    """A large skewed batch, so that threads really share the work; the oracle is one answer."""
    case = large_case()
    results = [run_large(body, name, case, threads) for threads in (1, 2, 3, 4)]

    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            same_bits(np.ascontiguousarray(got), np.ascontiguousarray(want))


def run_large(body, name, case, threads):
    """Call one kernel on the large case; returns everything it wrote."""
    ids, values = case.id_array, case.values()
    order, unique, starts = case.plan()
    table = case.table()
    if name == "first_bad_id":
        spoilt = np.append(ids, [9_999, -1])
        return [np.array(body.first_bad_id(spoilt, case.rows, threads))]
    if name == "plan":
        outs = [np.zeros(size, np.int64) for size in (ids.size, ids.size, ids.size + 1, 1)]
        body.plan(ids, case.rows, *outs, np.empty(2 * ids.size, np.int64), threads)
        return outs
    if name == "row_norms":
        out = np.empty(ids.size)
        body.row_norms(table, ids, 2.0, out, threads)
        return [out]
    if name == "renorm":
        body.renorm(table, unique, 1.0, 2.0, threads)
        return [table]
    if name == "segment_sum":
        out = np.empty((unique.size, case.dim), case.dtype)
        body.segment_sum(values, order, starts, out, threads)
        return [out]
    if name == "scatter_add":
        body.scatter_add(values, order, starts, unique, table, threads)
        return [table]
    if name.startswith("gather_bags"):
        starts = np.linspace(0, ids.size, 401).astype(np.int64)
        out, where = np.empty((400, case.dim), case.dtype), np.empty((400, case.dim), np.int64)
        if name == "gather_bags_max":
            body.gather_bags_max(table, ids, starts, 1, out, where, threads)
            return [out, where]
        body.gather_bags(table, ids, starts, values[:, 0].copy(), 1, True, out, threads)
        return [out]
    if name in ("gather", "initial_rows"):
        out = np.empty((ids.size, case.dim), case.dtype)
        if name == "gather":
            body.gather(table, ids, out, threads)
        else:
            body.initial_rows(ids, 2, 0.0, 1.0, 7, out, threads)
        return [out]
    numbers = UPDATES[name][2]
    arrays = update_arrays(case, name)
    work = np.empty((threads, case.dim), case.dtype)
    rest = (*numbers, 0.0, False, work, threads)
    getattr(body, name)(*arrays, unique, values, order, starts, *rest)
    return arrays


def test_the_largest_of_a_bag_is_a_nan_only_if_it_comes_first(body):
    table = np.array([[math.nan], [-math.inf], [2.0]])
    out, where = np.empty((3, 1)), np.empty((3, 1), np.int64)

    body.gather_bags_max(
        table, np.array([0, 2, 1, 0, 2, 1]), np.array([0, 2, 5, 6]), -1, out, where, 1
    )

    np.testing.assert_array_equal(out, [[math.nan], [2.0], [-math.inf]])
    np.testing.assert_array_equal(where, [[0], [4], [5]])


@pytest.mark.parametrize("special", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("p", [2.0, 1.0, 3.0, 0.5, math.inf, -math.inf])
def test_norm_of_a_row_with_a_special_value_follows_numpy(body, special, p):
    table = np.array([[1.0, special, 2.0], [special, 1.0, 2.0]], np.float32)
    out = np.empty(2)

    body.row_norms(table, np.arange(2), p, out, 1)

    np.testing.assert_array_equal(out, np.linalg.norm(table.astype(np.float64), p, axis=1))


def test_rows_with_nan_norm_are_left_alone_and_infinite_ones_become_nan(body):
    table = np.array([[math.nan, 9.0], [math.inf, 9.0]], np.float32)

    with np.errstate(invalid="ignore"):
        body.renorm(table, np.arange(2), 1.0, 2.0, 1)

    np.testing.assert_array_equal(table, [[math.nan, 9.0], [math.nan, 0.0]])


def test_norm_above_the_largest_float32_does_not_zero_a_finite_row(body):
    table = np.full((1, 4), 3e38, np.float32)

    body.renorm(table, np.arange(1), 1.0, 2.0, 1)

    np.testing.assert_allclose(table, 0.5, rtol=1e-6)


def test_renorm_by_a_norm_equal_to_the_limit_changes_nothing(body):
    table = np.array([[3.0, 4.0]])

    body.renorm(table, np.arange(1), 5.0, 2.0, 1)
    np.testing.assert_array_equal(table, [[3.0, 4.0]])
    body.renorm(table, np.arange(1), 4.999999999, 2.0, 1)
    np.testing.assert_allclose(table, [[2.9999999394, 3.9999999192]], rtol=1e-10)


def test_negative_limit_flips_the_sign_as_in_torch(body):
    table = np.array([[3.0, 4.0]])

    body.renorm(table, np.arange(1), -1.0, 2.0, 1)

    np.testing.assert_allclose(table, [[-0.6, -0.8]], rtol=1e-6)


def test_initial_rows_are_random123s_published_numbers(body):
    """Known answers of Philox4x32-10 for a zero counter and key."""
    words = [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]
    out = np.empty((1, 4))

    body.initial_rows(np.zeros(1, np.int64), 1, 0.0, 1.0, 0, out, 1)

    np.testing.assert_array_equal(out[0], [(word + 0.5) / 2**32 for word in words])


def test_initial_normal_rows_are_normally_distributed(body):
    out = np.empty((20_000, 10))

    body.initial_rows(np.arange(20_000), 2, 0.0, 1.0, 11, out, 2)

    n = out.size
    assert abs(out.mean()) < 5 / math.sqrt(n)
    assert abs(out.var() - 1) < 5 * math.sqrt(2 / n)
    assert abs((out**3).mean()) < 5 * math.sqrt(15 / n)
    assert abs((out**4).mean() - 3) < 5 * math.sqrt(96 / n)
    assert abs(np.corrcoef(out.T) - np.eye(10)).max() < 5 / math.sqrt(20_000)


def test_initial_value_of_a_row_depends_on_neither_batch_nor_order(body):
    ids = np.array([5, 2**40 + 3, 0, 5])
    out, alone = np.empty((4, 6), np.float32), np.empty((1, 6), np.float32)

    body.initial_rows(ids, 2, 0.0, 1.0, 3, out, 2)

    for i, row in enumerate(ids):
        body.initial_rows(np.array([row]), 2, 0.0, 1.0, 3, alone, 1)
        same_bits(out[i], alone[0])
    assert not np.array_equal(out[0], out[2])
