"""The checks are checked: each deliberate mistake in a body must be caught by its check."""

from __future__ import annotations

import types

import numpy as np
import pytest
from hypothesis import Phase, find, settings

from mmembed.kernels import reference

from .cases import cases
from .checks import CHECKS, UPDATES, check_update

MUTANTS = []


def mutant(check):
    """Register a mistaken kernel, named after its mistake, with the check it must fail."""

    def register(function):
        MUTANTS.append(pytest.param(check, function, id=function.__name__))
        return function

    return register


@mutant("gather")
def gather_takes_the_row_after(table, ids, out, threads):
    return reference.gather(np.roll(table, -1, axis=0), ids, out, threads)


@mutant("gather")
def gather_lets_negative_ids_wrap(table, ids, out, threads):
    bad = np.flatnonzero(ids >= table.shape[0])
    if bad.size:
        return int(bad[0])
    out[...] = table[ids]
    return -1


@mutant("gather")
def gather_writes_before_it_finds_the_bad_id(table, ids, out, threads):
    bad = reference.first_bad_id(ids, table.shape[0], threads)
    good = len(ids) if bad < 0 else bad
    out[:good] = table[ids[:good]]
    return bad


@mutant("gather")
def gather_leaves_out_the_last_column(table, ids, out, threads):
    result = reference.gather(table, ids, out, threads)
    if result < 0:
        out[:, -1:] = 0
    return result


@mutant("gather_bags")
def gather_bags_counts_padding_in_the_mean(
    table, ids, starts, weights, padding, mean, out, threads
):
    bad = reference.gather_bags(table, ids, starts, weights, padding, False, out, threads)
    if bad < 0 and mean:
        out /= np.maximum(np.diff(starts), 1).astype(out.dtype)[:, None]
    return bad


@mutant("gather_bags")
def gather_bags_forgets_the_weights(table, ids, starts, weights, padding, mean, out, threads):
    return reference.gather_bags(table, ids, starts, weights[:0], padding, mean, out, threads)


@mutant("gather_bags")
def gather_bags_leaves_empty_bags_as_they_are(
    table, ids, starts, weights, padding, mean, out, threads
):
    before = out.copy()
    bad = reference.gather_bags(table, ids, starts, weights, padding, mean, out, threads)
    if bad < 0:
        out[np.diff(starts) == 0] = before[np.diff(starts) == 0]
    return bad


@mutant("gather_bags_max")
def gather_bags_max_prefers_the_last_of_equals(table, ids, starts, padding, out, where, threads):
    bad = reference.gather_bags_max(
        table, ids[::-1].copy(), (len(ids) - starts)[::-1].copy(), padding, out, where, threads
    )
    if bad < 0:
        out[...] = out[::-1].copy()
        where[...] = np.where(where < 0, -1, len(ids) - 1 - where)[::-1]
        return bad
    return reference.first_bad_id(ids, table.shape[0], threads)


@mutant("gather_bags_max")
def gather_bags_max_starts_from_zero(table, ids, starts, padding, out, where, threads):
    bad = reference.gather_bags_max(table, ids, starts, padding, out, where, threads)
    if bad < 0:
        out[...] = np.maximum(out, 0)
    return bad


@mutant("first_bad_id")
def first_bad_id_accepts_the_row_count(ids, rows, threads):
    return reference.first_bad_id(ids, rows + 1, threads)


@mutant("first_bad_id")
def first_bad_id_reports_the_last(ids, rows, threads):
    bad = np.flatnonzero((ids < 0) | (ids >= rows))
    return int(bad[-1]) if bad.size else -1


@mutant("plan")
def plan_forgets_the_order_of_the_batch(ids, rows, order, unique, starts, count, work, threads):
    bad = reference.plan(ids, rows, order, unique, starts, count, work, threads)
    if bad < 0:
        for s in range(count[0]):
            order[starts[s] : starts[s + 1]] = order[starts[s] : starts[s + 1]][::-1].copy()
    return bad


@mutant("plan")
def plan_sorts_by_the_low_32_bits(ids, rows, order, unique, starts, count, work, threads):
    bad = reference.first_bad_id(ids, rows, threads)
    if bad < 0:
        low = ids.astype(np.int64) & 0xFFFFFFFF
        reference.plan(low, 2**32, order, unique, starts, count, work, threads)
    return bad


@mutant("plan")
def plan_leaves_out_the_closing_start(ids, rows, order, unique, starts, count, work, threads):
    bad = reference.plan(ids, rows, order, unique, starts, count, work, threads)
    if bad < 0:
        starts[count[0]] -= 1
    return bad


@mutant("row_norms")
def row_norms_are_not_rounded(table, ids, norm_type, out, threads):
    bad = reference.first_bad_id(ids, table.shape[0], threads)
    if bad < 0:
        reference.row_norms(table.astype(np.float64), ids, norm_type, out, threads)
    return bad


@mutant("row_norms")
def row_norms_are_off_by_five_in_ten_thousand(table, ids, norm_type, out, threads):
    bad = reference.row_norms(table, ids, norm_type, out, threads)
    if bad < 0:
        out[:] = (out * 1.0005).astype(table.dtype)
    return bad


@mutant("renorm")
def renorm_leaves_out_the_small_number(table, ids, max_norm, norm_type, threads):
    norms = np.empty(ids.size)
    bad = reference.row_norms(table, ids, norm_type, norms, threads)
    if bad < 0:
        over = norms > max_norm
        table[ids[over]] *= (max_norm / norms[over]).astype(table.dtype)[:, None]
    return bad


@mutant("renorm")
def renorm_scales_rows_inside_the_ball_too(table, ids, max_norm, norm_type, threads):
    norms = np.empty(ids.size)
    bad = reference.row_norms(table, ids, norm_type, norms, threads)
    if bad < 0:
        table[ids] *= (max_norm / (norms + 1e-7)).astype(table.dtype)[:, None]
    return bad


@mutant("segment_sum")
def segment_sum_adds_in_float64(values, order, starts, out, threads):
    wide = np.empty(out.shape, np.float64)
    reference.segment_sum(values.astype(np.float64), order, starts, wide, threads)
    out[...] = wide


@mutant("segment_sum")
def segment_sum_loses_the_last_entry_of_long_segments(values, order, starts, out, threads):
    reference.segment_sum(values, order, starts, out, threads)
    for s in range(out.shape[0]):
        if starts[s + 1] - starts[s] > 2:
            out[s] -= values[order[starts[s + 1] - 1]]


@mutant("segment_sum")
def segment_sum_adds_in_the_order_of_memory(values, order, starts, out, threads):
    for s in range(out.shape[0]):
        reference.segment_sum(
            values, np.sort(order[starts[s] : starts[s + 1]])[::-1].copy(),
            np.array([0, starts[s + 1] - starts[s]]), out[s : s + 1], threads,
        )  # fmt: skip


@mutant("scatter_add")
def scatter_add_adds_sums_instead_of_entries(values, order, starts, ids, out, threads):
    sums = np.empty((ids.size, out.shape[1]), out.dtype)
    bad = reference.first_bad_id(ids, out.shape[0], threads)
    if bad < 0:
        reference.segment_sum(values, order, starts, sums, threads)
        out[ids] += sums
    return bad


@mutant("scatter_add")
def scatter_add_keeps_one_of_the_duplicates(values, order, starts, ids, out, threads):
    bad = reference.first_bad_id(ids, out.shape[0], threads)
    if bad < 0:
        out[ids] += values[order[starts[1:] - 1]]
    return bad


@mutant("initial_rows")
def initial_rows_ignore_the_high_half_of_the_seed(ids, kind, a, b, seed, out, threads):
    reference.initial_rows(ids, kind, a, b, seed & 0xFFFFFFFF, out, threads)


@mutant("initial_rows")
def initial_rows_depend_on_the_place_in_the_batch(ids, kind, a, b, seed, out, threads):
    reference.initial_rows(np.arange(ids.size), kind, a, b, seed, out, threads)


@pytest.mark.parametrize(("check", "function"), MUTANTS)
def test_check_catches_the_mutant(check, function):
    body = types.SimpleNamespace(**vars(reference))
    setattr(body, check, function)

    assert is_caught(lambda case: CHECKS[check](body, case))


def spoilt_update(name, spoil):
    """A body whose update `name` is given spoilt arguments; the last two stay work and threads."""
    body = types.SimpleNamespace(**vars(reference))
    setattr(body, name, lambda *arguments: spoil(getattr(reference, name), list(arguments)))
    return body


def forgets_maximize(kernel, arguments):
    arguments[-3] = False
    return kernel(*arguments)


def forgets_weight_decay(kernel, arguments):
    arguments[-4] = 0.0
    return kernel(*arguments)


def updates_duplicates_one_by_one(kernel, arguments):
    at = next(i for i, a in enumerate(arguments) if a.dtype == np.int64)
    ids, values, order, starts = arguments[at : at + 4]
    if reference.first_bad_id(ids, arguments[0].shape[0], 1) >= 0:
        return kernel(*arguments)
    order = order[starts[0] : starts[-1]]
    repeated = np.repeat(ids, np.diff(starts))
    for k in range(order.size):
        one = repeated[k : k + 1], values, order[k : k + 1], np.array([0, 1])
        kernel(*arguments[:at], *one, *arguments[at + 4 :])
    return -1


def checks_no_ids(kernel, arguments):
    at = next(i for i, a in enumerate(arguments) if a.dtype == np.int64)
    arguments[at] = np.clip(arguments[at], 0, max(arguments[0].shape[0] - 1, 0))
    return kernel(*arguments) if arguments[0].shape[0] else -1


SPOILS = [forgets_maximize, forgets_weight_decay, updates_duplicates_one_by_one, checks_no_ids]


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("spoil", SPOILS, ids=lambda spoil: spoil.__name__)
def test_check_catches_the_spoilt_update(name, spoil):
    body = spoilt_update(name, spoil)

    assert is_caught(lambda case: check_update(body, case, name, 0.125, maximize=True))


NUMBERS = [(name, k) for name, update in UPDATES.items() for k in range(len(update[2]))]


@pytest.mark.parametrize(("name", "position"), NUMBERS)
def test_check_catches_a_number_wrong_by_five_in_ten_thousand(name, position):
    def spoil(kernel, arguments):
        at = len(arguments) - 4 - len(UPDATES[name][2]) + position
        number = arguments[at]
        arguments[at] = not number if isinstance(number, bool) else number * 1.0005
        return kernel(*arguments)

    assert is_caught(lambda case: check_update(spoilt_update(name, spoil), case, name))


def is_caught(check):
    """Whether some random case makes the check fail."""

    def fails(case):
        try:
            check(case)
        except AssertionError:
            return True
        return False

    find(
        cases(max_rows=9),
        fails,
        settings=settings(
            max_examples=400, phases=[Phase.generate], database=None, derandomize=True
        ),
    )
    return True
