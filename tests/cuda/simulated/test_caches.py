"""A cache of rows against a dictionary: what is found, what leaves, and what is never lost."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.kernels.cuda.caches import RowCache

ROWS, PLACES, DIM = 60, 16, 4


def host(array):
    return array.numpy()


def table():
    return np.arange(ROWS * DIM, dtype=np.float32).reshape(ROWS, DIM)


def ask(cache, held, rows, values):
    """One batch: what is missing is read from values, what leaves is compared and forgotten."""
    rows = np.asarray(rows, np.int64)
    found, missing = cache.find(rows)
    want = [row for row in rows.tolist() if row not in held]
    assert host(missing).tolist() == want
    assert [place >= 0 for place in host(found)] == [row in held for row in rows.tolist()]
    places, left = cache.admit(missing)
    cache.put(places, values[host(missing)])
    gone = [row for row in host(left).tolist() if row >= 0]
    assert not set(gone) & set(rows.tolist()), "a row of the batch left"
    assert set(gone) <= set(held)
    for row in gone:
        del held[row]
    held.update(zip(want, host(places).tolist(), strict=True))
    return gone


def check(cache, held):
    """Tags are unique, agree in both directions, and are those of the dictionary."""
    places, rows = cache.held()
    assert dict(zip(rows.tolist(), places.tolist(), strict=True)) == held
    slot = host(cache.slot)
    assert {row: int(slot[row]) for row in np.flatnonzero(slot >= 0).tolist()} == held


def test_every_batch_is_found_as_it_is_in_the_table():
    rng = np.random.default_rng(3)
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()

    for _ in range(12):
        rows = np.unique(rng.zipf(1.4, rng.integers(1, 14)) % ROWS)
        ask(cache, held, rows, values)
        check(cache, held)
        ids = rng.choice(rows, 9)
        out = np.full((9, DIM), np.nan, np.float32)
        assert cache.gather(ids, out) == -1
        np.testing.assert_array_equal(out, values[ids])
    assert len(held) == PLACES


def test_rows_that_are_asked_for_often_outlive_those_asked_for_once():
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()
    hot = [3, 4, 5, 6]

    for cold in range(10, 58, 8):
        ask(cache, held, [*hot, *range(cold, cold + 8)], values)

    assert set(hot) <= set(held)


def test_a_cold_row_of_the_batch_stays_though_all_others_are_hot():
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()
    ask(cache, held, range(PLACES), values)
    for _ in range(5):
        ask(cache, held, range(8, PLACES), values)

    gone = ask(cache, held, [*range(8), *range(30, 38)], values)

    assert sorted(gone) == list(range(8, PLACES))


def test_places_fill_up_before_anything_leaves():
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()

    assert ask(cache, held, range(10), values) == []
    assert ask(cache, held, range(20, 26), values) == []
    assert len(ask(cache, held, [59], values)) == 1


def test_a_batch_of_as_many_rows_as_places_fits_and_a_larger_one_changes_nothing():
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()
    ask(cache, held, range(PLACES), values)
    ask(cache, held, range(20, 20 + PLACES), values)

    _, missing = cache.find(np.arange(10, 10 + PLACES + 1))
    with pytest.raises(ValueError, match="can be given"):
        cache.admit(missing)

    check(cache, held)


def test_a_row_that_is_not_in_the_cache_is_reported_and_not_written():
    cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()
    ask(cache, held, [7, 9], values)
    out = np.full((4, DIM), -1, np.float32)

    assert cache.gather(np.array([9, 8, 7, 6], np.int32), out) == 1

    np.testing.assert_array_equal(out, [values[9], [-1] * DIM, values[7], [-1] * DIM])


def test_the_same_batches_give_the_same_places():
    def run():
        rng = np.random.default_rng(8)
        cache, held, values = RowCache(ROWS, PLACES, DIM, "float32"), {}, table()
        return [ask(cache, held, np.unique(rng.integers(0, ROWS, 9)), values) for _ in range(5)]

    assert run() == run()
