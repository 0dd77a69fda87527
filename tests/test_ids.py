"""Which ids are accepted, and what is said of bad ones."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.ids import as_ids, bad_id_message, rows_at


@pytest.mark.parametrize("dtype", [np.int32, np.int64])
def test_ids_of_32_and_64_bits_are_taken_as_they_are(dtype):
    ids = np.array([[1, 2], [3, 4]], dtype)

    assert as_ids(ids) is ids or np.shares_memory(as_ids(ids), ids)
    assert as_ids(ids).dtype == dtype


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.uint8, np.uint16, np.uint32, np.uint64])
def test_integers_of_other_widths_become_int64(dtype):
    assert as_ids(np.array([1, 2], dtype)).dtype == np.int64


@pytest.mark.parametrize("ids", [[], [[], []], 3, [1, 2], ((1, 2), (3, 4)), range(4)])
def test_lists_and_numbers_are_taken(ids):
    got = as_ids(ids)

    assert got.dtype == np.int64
    assert got.shape == np.shape(ids)


def test_ids_of_the_other_byte_order_are_turned():
    ids = np.array([1, 2], ">i8")

    np.testing.assert_array_equal(as_ids(ids), [1, 2])
    assert as_ids(ids).dtype.isnative


@pytest.mark.parametrize("ids", [np.array([1.0]), [1.0, 2.0], np.array([]), np.array([True])])
def test_ids_that_are_no_integers_are_refused_in_torchs_words(ids):
    with pytest.raises(TypeError, match=r"Expected tensor for argument #1 'indices'.*Long, Int"):
        as_ids(ids)


def test_an_unsigned_id_that_does_not_fit_is_named():
    with pytest.raises(OverflowError, match="18446744073709551615"):
        as_ids(np.array([1, 2**64 - 1], np.uint64))


@pytest.mark.parametrize(
    ("ids", "position", "rows", "message"),
    [
        (
            [[1, 2], [7, 0]],
            2,
            5,
            "id 7 at (1, 0) is outside the table, which has 5 rows (valid: 0..4)",
        ),
        ([1, -1], 1, 5, "id -1 at 1 is outside the table, which has 5 rows (valid: 0..4)"),
        (9, 0, 1, "id 9 is outside the table, which has 1 row (valid: 0..0)"),
        ([0], 0, 0, "id 0 at 0 is outside the table, which has 0 rows (none is valid)"),
    ],
)
def test_a_bad_id_is_named_with_its_place_and_what_is_valid(ids, position, rows, message):
    assert bad_id_message(np.array(ids), position, rows) == message


INDEXES = [
    2,
    -1,
    np.int32(3),
    slice(None),
    slice(1, 5, 2),
    slice(None, None, -2),
    Ellipsis,
    None,
    (),
    [1, 1, 4],
    np.array([[0, -2], [3, 3]]),
    np.array([True, False, False, True, False, False]),
    (slice(2), 1),
    (np.array([5, 0]), np.array([1, 2])),
    (Ellipsis, 0),
    np.arange(18).reshape(6, 3) % 5 == 0,
]


@pytest.mark.parametrize("index", INDEXES, ids=str)
def test_rows_at_names_just_the_rows_that_numpy_would_write(index):
    array = np.zeros((6, 3))

    array[index] = 1

    rows = rows_at(index, 6)
    written = np.flatnonzero(array.any(axis=1))
    if rows is None:
        np.testing.assert_array_equal(written, np.arange(6))
    else:
        assert rows.dtype == np.int64
        np.testing.assert_array_equal(rows, written)


@pytest.mark.parametrize("index", [6, -7, [0, 6], np.array([-7])])
def test_rows_at_refuses_a_row_outside(index):
    with pytest.raises(IndexError, match="6 rows"):
        rows_at(index, 6)
