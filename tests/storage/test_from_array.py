"""Tables around arrays of the caller."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.errors import ReadOnlyTableError
from mmembed.storage import Table


def test_a_table_from_an_array_is_the_array():
    array = np.zeros((4, 3), np.float64)
    table = Table.from_array(array)

    assert np.shares_memory(table.column(), array)
    table.write(1, 5)
    array[2] = 6
    assert table.column()[:, 0].tolist() == [0, 5, 6, 0]
    assert (table.shape, table.dtype, table.mode) == ((4, 3), np.float64, "r+")


def test_the_shape_of_an_array_stays_the_tables_whatever_happens_to_the_callers(tmp_path):
    array = np.zeros((4, 3))
    with Table.create(tmp_path / "t", 4, 3, init="zeros") as on_disk:
        for table in (Table.from_array(array), on_disk):
            for own in (table.column(), np.asarray(table), array):
                own.shape = (3, 4)

                assert table.shape == table.column().shape == (4, 3)
                own.shape = (4, 3)
            with table.writing() as columns:
                columns["weight"].shape = (12,)
            assert table[3].shape == (3,)


@pytest.mark.parametrize(
    "make",
    [
        lambda array: array[::2],
        lambda array: array[::-1],
        lambda array: array[:, 2:4],
        lambda array: array[1:1],
        lambda array: array[:, :0],
        lambda array: array[:, 1:2],
        lambda array: array.T[:1].T,
        lambda array: array.view(np.matrix),
    ],
)
def test_a_table_from_an_array_may_have_any_row_stride(make):
    array = make(np.arange(40, dtype=np.float32).reshape(8, 5))
    table = Table.from_array(array)
    ids = np.arange(len(array))[::-1]

    table.write(ids, np.asarray(array)[ids] + 1)

    assert np.array_equal(table[ids], np.asarray(array)[ids])
    assert np.shares_memory(table.column(), array) or not array.size


def test_a_table_from_a_read_only_array_is_read_only():
    array = np.zeros((4, 3), np.float32)
    array.flags.writeable = False
    table = Table.from_array(array)

    assert table.mode == "r"
    assert table[0].tolist() == [0, 0, 0]
    for call in (
        lambda: table.write(0, 1),
        lambda: table.writing().__enter__(),
        lambda: table.add_column("x"),
        lambda: table.count("step", 1),
        lambda: table.commit(),
    ):
        with pytest.raises(ReadOnlyTableError, match="wraps a read-only array"):
            call()
    assert not array.any()


@pytest.mark.parametrize(
    ("array", "error", "message"),
    [
        ([[1.0]], TypeError, "takes a NumPy array, got list"),
        (np.zeros((2, 2), np.longdouble), TypeError, "must be float32, float64"),
        (np.zeros((2, 2), ">f4"), TypeError, "must be float32, float64"),
        (np.zeros((2, 2), int), TypeError, "must be float32, float64"),
        (np.zeros(4, np.float32), ValueError, r"must be \(rows, dim\), got shape \(4,\)"),
        (np.zeros((1, 2, 2), np.float32), ValueError, r"must be \(rows, dim\)"),
        (np.zeros((4, 4), np.float32).T, ValueError, "contiguous.*np.ascontiguousarray"),
        (np.zeros((4, 4), np.float32)[:, ::2], ValueError, "contiguous"),
        (np.zeros((4, 4), np.float32)[:, ::-1], ValueError, "contiguous"),
        (np.frombuffer(bytearray(33), np.float32, 8, 1).reshape(2, 4), ValueError, "aligned"),
    ],
)
def test_an_array_that_cannot_be_a_table_is_refused(array, error, message):
    with pytest.raises(error, match=message):
        Table.from_array(array)
