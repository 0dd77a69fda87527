"""Nearest rows, against all cosines computed one by one."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmembed import neighbors
from mmembed.neighbors import nearest
from mmembed.storage import Table

NUMBERS = st.integers(-3, 3)
TOLERANCE = {np.dtype(np.float32): 2e-6, np.dtype(np.float64): 1e-14}


def cosine(a, b):
    lengths = math.hypot(*a) * math.hypot(*b)
    return sum(x * y for x, y in zip(a, b, strict=True)) / lengths if lengths else 0.0


@st.composite
def cases(draw):
    """(rows, queries, k, exclude, bytes of a block); zero rows, repeated rows and ties are many."""
    dtype = draw(st.sampled_from([np.float32, np.float64]))
    n, q, dim = draw(st.integers(0, 12)), draw(st.integers(0, 3)), draw(st.integers(1, 4))
    rows = draw(hnp.arrays(dtype, (n, dim), elements=NUMBERS))
    queries = draw(hnp.arrays(dtype, (q, dim), elements=NUMBERS))
    exclude = draw(st.lists(st.integers(-2, 14), max_size=5))
    return rows, queries, draw(st.integers(0, 15)), exclude, draw(st.sampled_from([1, 64, 1 << 24]))


@given(case=cases())
def test_the_nearest_are_those_of_the_largest_cosines(case):
    rows, queries, k, exclude, block_bytes = case
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbors, "BLOCK_BYTES", block_bytes)

        ids, cosines = nearest(rows, queries, k, exclude)

    allowed = [i for i in range(len(rows)) if i not in exclude]
    assert ids.shape == cosines.shape == (len(queries), min(k, len(allowed)))
    assert (ids.dtype, cosines.dtype) == (np.int64, rows.dtype)
    tolerance = TOLERANCE[rows.dtype]
    for query, found, given_cosines in zip(queries, ids.tolist(), cosines, strict=True):
        true = {i: cosine(rows[i].tolist(), query.tolist()) for i in allowed}
        best = sorted(true.values(), reverse=True)[:k]
        assert len(set(found)) == len(found)
        np.testing.assert_allclose([true[i] for i in found], best, rtol=0, atol=tolerance)
        np.testing.assert_allclose(given_cosines, best, rtol=0, atol=tolerance)


@pytest.mark.parametrize("block_bytes", [1, 100, 1 << 24])
def test_of_equally_close_rows_the_lower_id_comes_first(monkeypatch, block_bytes):
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", block_bytes)
    rows = np.array([[0, 1], [1, 0], [0, 2], [1, 0], [0, 4], [4, 0]], np.float32)

    ids, cosines = nearest(rows, [[1.0, 0.0], [0, 8]], 6)

    assert ids.tolist() == [[1, 3, 5, 0, 2, 4], [0, 2, 4, 1, 3, 5]]
    assert cosines.tolist() == [[1, 1, 1, 0, 0, 0]] * 2


def test_rows_that_are_the_same_come_in_the_order_of_their_ids():
    rng = np.random.default_rng(0)
    for n in range(2, 100):
        row = rng.normal(size=100).astype(np.float32)

        ids, _ = nearest(np.tile(row, (n, 1)), rng.normal(size=(2, 100)), n)

        assert (ids == np.arange(n)).all()


@pytest.mark.parametrize("block_bytes", [1, 800, 1000, 4096])
def test_blocks_do_not_change_the_result(monkeypatch, block_bytes):
    rng = np.random.default_rng(0)
    rows, queries = rng.normal(size=(157, 25)), rng.normal(size=(4, 25))
    want, want_cosines = nearest(rows, queries, 20, exclude=[3, 77])
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", block_bytes)

    ids, cosines = nearest(rows, queries, 20, exclude=[3, 77])

    np.testing.assert_array_equal(ids, want)
    np.testing.assert_allclose(cosines, want_cosines, atol=1e-15)


def test_a_block_takes_no_more_bytes_than_it_may(monkeypatch):
    taken = []
    unit = neighbors._unit
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 1000)
    monkeypatch.setattr(neighbors, "_unit", lambda rows: taken.append(rows.nbytes) or unit(rows))

    nearest(np.ones((100, 30)), np.ones((1, 30)))

    assert max(taken) <= 1000
    assert sum(taken) == 100 * 30 * 8 + 240  # every row once, and the query


def test_excluded_rows_are_left_out_wherever_they_are(monkeypatch):
    monkeypatch.setattr(neighbors, "BLOCK_BYTES", 16)
    rows = np.eye(5, dtype=np.float32)

    ids, _ = nearest(rows, rows[[2]], 5, exclude=[2, 2, 0, 99, -1])

    assert ids.tolist() == [[1, 3, 4]]


def test_if_all_rows_are_excluded_there_is_none():
    ids, cosines = nearest(np.eye(3), np.eye(3), 2, exclude=range(3))

    assert ids.shape == cosines.shape == (3, 0)


def test_k_may_be_larger_than_the_table():
    ids, _ = nearest(np.eye(3), np.eye(3)[0], 10**9)

    assert ids.tolist() == [[0, 1, 2]]


def test_ten_are_found_by_default():
    assert nearest(np.eye(30), np.eye(30)[:2])[0].shape == (2, 10)


def test_zeros_have_cosine_zero_with_everything():
    rows = np.array([[0, 0], [-1, 0], [1, 0]], np.float32)

    ids, cosines = nearest(rows, [[1, 0], [0, 0]], 3)

    assert ids.tolist() == [[2, 0, 1], [0, 1, 2]]
    assert cosines.tolist() == [[1, 0, -1], [0, 0, 0]]


@pytest.mark.parametrize("shape", [(0, 3), (4, 0)])
def test_tables_without_rows_or_columns_can_be_searched(shape):
    ids, cosines = nearest(np.zeros(shape), np.zeros((2, shape[1])), 3)

    assert ids.shape == cosines.shape == (2, min(3, shape[0]))
    assert not cosines.any()


def test_a_query_may_be_one_vector_a_list_or_of_another_type():
    rows = np.eye(3, dtype=np.float32)

    for query in ([0, 1, 0], np.array([0, 1.0, 0]), np.array([[0, 1, 0]], np.int8)):
        ids, cosines = nearest(rows, query, 1)

        assert ids.tolist() == [[1]]
        assert cosines.dtype == np.float32


def test_a_query_of_another_width_is_refused():
    with pytest.raises(ValueError, match="mismatch"):
        nearest(np.eye(3), [[1.0, 2.0]])


def test_rows_and_queries_are_not_written():
    rows, queries = np.full((3, 2), 3.0), np.full((1, 2), 5.0)
    rows.flags.writeable = queries.flags.writeable = False

    nearest(rows, queries)

    assert (rows == 3).all()


def test_a_table_on_disk_is_searched_where_it_is(tmp_path):
    with Table.create(tmp_path / "t", 50, 8, seed=1) as table:
        ids, cosines = nearest(table.column(), table[[7]], 3, exclude=[7])
        in_memory = nearest(np.array(table.column()), table[[7]], 3, exclude=[7])

    assert type(ids) is type(cosines) is np.ndarray
    np.testing.assert_array_equal(ids, in_memory[0])


@pytest.mark.parametrize("scale", [1e-30, 1e-24, 1e20, 1e30])
def test_the_length_of_rows_does_not_matter(scale):
    rows = np.array([[1, 0], [1, 1], [0, 1]], np.float32) * np.float32(scale)

    ids, cosines = nearest(rows, rows[[0]], 3)

    assert ids.tolist() == [[0, 1, 2]]
    np.testing.assert_allclose(cosines, [[1, 0.5**0.5, 0]], atol=1e-6)


def test_a_k_below_zero_is_refused():
    with pytest.raises(ValueError, match="k must be"):
        nearest(np.eye(3), np.eye(3), -1)
