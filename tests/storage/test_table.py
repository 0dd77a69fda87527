"""What a table does with rows: the same on disk and in memory."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.errors import ClosedTableError
from mmembed.storage import Table


@pytest.mark.parametrize(
    "dtype", [np.int8, np.uint8, np.int16, np.int32, np.int64, np.uint64, ">i4"]
)
def test_gather_takes_ids_of_every_integer_type(table, dtype):
    rows = table.gather(np.array([4, 0, 4], dtype))

    assert rows.tolist() == [[4, 4.25, 4.5], [0, 0.25, 0.5], [4, 4.25, 4.5]]
    assert rows.dtype == np.float32


@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 3), (1, 1, 1, 1)])
def test_gather_keeps_the_shape_of_the_ids(table, shape):
    ids = np.arange(np.prod(shape, dtype=int)).reshape(shape) % 5

    assert np.array_equal(table.gather(ids), table.column()[ids])
    assert table.gather(ids).shape == (*shape, 3)


def test_gather_takes_lists_and_ids_that_are_not_contiguous(table):
    assert table.gather([]).shape == (0, 3)
    assert table.gather([[1], [2]])[:, 0, 0].tolist() == [1, 2]
    assert table.gather(np.arange(5)[::-2])[:, 0].tolist() == [4, 2, 0]


def test_gather_returns_copies(table):
    rows = table.gather([1])
    rows[:] = 9

    assert table[1].tolist() == [1, 1.25, 1.5]
    assert rows.flags.owndata


def test_gather_writes_into_out(table):
    out = np.full((2, 1, 3), 9, np.float32)

    assert table.gather([[3], [0]], out=out) is out
    assert out[:, 0, 0].tolist() == [3, 0]


def bad_outs(table):
    yield (
        np.empty((2, 3), np.float64),
        r"out must be an array \(2, 3\) float32, got \(2, 3\) float64",
    )
    yield np.empty((3, 2), np.float32), r"got \(3, 2\) float32"
    yield [[0.0] * 3] * 2, "got list"
    yield np.empty((2, 6), np.float32)[:, ::2], "C-contiguous"
    yield np.broadcast_to(np.float32(0), (2, 3)), "writable"
    yield np.frombuffer(bytes(24), np.float32).reshape(2, 3), "writable"


def test_gather_refuses_an_out_that_does_not_fit(table):
    for out, message in bad_outs(table):
        with pytest.raises(ValueError, match=message):
            table.gather([0, 1], out=out)


def test_gather_refuses_to_write_into_the_table_itself():
    array = np.zeros((4, 2), np.float32)

    with pytest.raises(ValueError, match="out lies in the table itself"):
        Table.from_array(array).gather([3, 2], out=array[:2])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (
            [[1, 2], [7, 9]],
            r"id 7 at \(1, 0\) is outside the table, which has 5 rows \(valid: 0\.\.4\)",
        ),
        ([0, -1], r"id -1 at 1 is outside the table, which has 5 rows"),
        (5, "id 5 is outside the table"),
        (np.array([5], np.uint8), "id 5 at 0"),
        ([2**62], f"id {2**62} at 0"),
    ],
)
def test_a_bad_id_is_named_with_its_place_and_nothing_is_written(table, ids, message):
    shape = (*np.shape(ids), 3)
    out = np.full(shape, 9, np.float32)

    for call in (
        lambda: table.gather(ids, out=out),
        lambda: table[ids],
        lambda: table.write(ids, np.zeros(shape)),
    ):
        with pytest.raises(IndexError, match=message):
            call()
    assert (out == 9).all()
    assert table.column()[:, 0].tolist() == [0, 1, 2, 3, 4]


def test_a_bad_id_of_a_table_without_rows_is_named(place):
    with Table.create(place, 0, 3) as table, pytest.raises(IndexError, match="none is valid"):
        table.gather([0])


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        ([1.0], "ids must be integers, got float64"),
        (np.array([], np.float32), "ids must be integers, got float32"),
        ([True, False], r"got bool; np\.flatnonzero\(mask\)"),
        (["1"], "ids must be integers, got <U1"),
        ([None], "ids must be integers, got object"),
        ([2**70], "ids must be integers, got object"),
        (np.array(["2020"], "M8[Y]"), "ids must be integers"),
    ],
)
def test_ids_that_are_not_integers_are_refused(table, ids, message):
    with pytest.raises(TypeError, match=message):
        table.gather(ids)
    with pytest.raises(TypeError, match=message):
        table.write(ids, 0)


def test_an_id_above_int64_is_refused(table):
    with pytest.raises(OverflowError, match="id 18446744073709551615 does not fit int64"):
        table.gather(np.array([2**64 - 1], np.uint64))


def test_a_table_is_indexed_by_id_by_ids_and_by_slice(table):
    assert table[2].tolist() == [2, 2.25, 2.5]
    assert table[np.int64(2)].tolist() == [2, 2.25, 2.5]
    assert table[[2, 0]][:, 0].tolist() == [2, 0]
    assert table[1:3][:, 0].tolist() == [1, 2]
    assert table[::-2][:, 0].tolist() == [4, 2, 0]
    assert [row[0] for row in table] == [0, 1, 2, 3, 4]
    with pytest.raises(TypeError, match=r"one id, an array of ids, or a slice; got \(1, 2\)"):
        table[1, 2]


def test_a_slice_is_a_copy(table):
    rows = table[:]
    rows[:] = 9

    assert table[0].tolist() == [0, 0.25, 0.5]


def test_numpy_reads_a_table_as_an_array(table):
    assert np.array_equal(np.asarray(table), table.column())
    assert np.asarray(table, dtype=np.float64).dtype == np.float64
    assert np.array(table).flags.writeable
    assert len(table) == 5
    if table.path:
        assert not np.asarray(table).flags.writeable


def test_write_broadcasts(table):
    table.write([0, 1], 7)
    table.write([[2], [3]], [1, 2, 3])
    table.write(4, [[9, 8, 7]][0])

    assert table.column().tolist() == [[7] * 3, [7] * 3, [1, 2, 3], [1, 2, 3], [9, 8, 7]]


def test_the_last_of_the_values_for_an_id_stays(table):
    table.write([1, 3, 1, 1, 3], np.arange(5)[:, None])

    assert table.column()[:, 0].tolist() == [0, 3, 2, 4, 4]


def test_write_of_nothing_changes_nothing(table):
    before = table[:]

    table.write([], np.empty((0, 3)))
    table.write([], 7)

    assert np.array_equal(table[:], before)


def test_write_reads_its_values_before_it_writes(table):
    table.write([0, 1, 2, 3, 4], table.column()[::-1])

    assert table.column()[:, 0].tolist() == [4, 3, 2, 1, 0]


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        (np.zeros((2, 4)), ValueError, r"shape \(2, 4\), which does not broadcast to \(2, 3\)"),
        (np.zeros((1, 2, 3)), ValueError, r"shape \(1, 2, 3\), which does not broadcast"),
        ("x", TypeError, "values must be real numbers, got <U1"),
        (1j, TypeError, "values must be real numbers, got complex128"),
        ([None] * 3, TypeError, "values must be real numbers, got object"),
    ],
)
def test_values_that_do_not_fit_are_refused(table, values, error, message):
    before = table[:]

    with pytest.raises(error, match=message):
        table.write([0, 1], values)
    assert np.array_equal(table[:], before)


def test_the_door_hands_out_every_column_whole(table):
    table.add_column("weight.adagrad.sum")
    with table.writing(np.array([1, 4])) as columns:
        assert list(columns) == ["weight", "weight.adagrad.sum"]
        assert len(columns) == 2
        columns["weight"][1] = 8
        columns["weight.adagrad.sum"][4] += 2

    assert table[1].tolist() == [8, 8, 8]
    assert table.column("weight.adagrad.sum")[:, 0].tolist() == [0, 0, 0, 0, 2]


def test_the_door_takes_no_columns(table):
    with table.writing() as columns:
        with pytest.raises(TypeError):
            columns["weight"] = np.zeros((5, 3), np.float32)
        with pytest.raises(KeyError):
            columns["context"]


@pytest.mark.parametrize(
    ("rows", "error", "message"),
    [
        (np.array([0, 5]), IndexError, "id 5 at 1 is outside the table"),
        (np.array([-1, 2]), IndexError, "id -1 at 0 is outside the table"),
        (np.array([1], np.int32), TypeError, "1-D array of int64, got 1-D of int32"),
        (np.array([[1]]), TypeError, "1-D array of int64, got 2-D of int64"),
    ],
)
def test_the_door_refuses_rows_that_cannot_be(table, rows, error, message):
    with pytest.raises(error, match=message), table.writing(rows):
        pytest.fail("the door opened")


def test_the_door_takes_no_rows_and_all_rows(table):
    with table.writing(np.array([], np.int64)), table.writing(np.arange(5)), table.writing(None):
        pass


def test_a_commit_in_the_block_that_writes_is_refused(table):
    with table.writing() as columns:
        columns["weight"][0] = 6
        with pytest.raises(RuntimeError, match="commit in a `writing` block"):
            table.commit()
    table.commit()

    assert table.epoch == 1


def test_a_block_that_raises_ends_too(table):
    with pytest.raises(ZeroDivisionError), table.writing():
        raise ZeroDivisionError

    table.commit()


def test_a_closed_table_tells_what_it_was_and_refuses_the_rest(table):
    table.commit(step=8)
    table.close()
    table.close()

    assert table.closed
    assert (table.rows, table.dim, table.step, table.columns) == (5, 3, 8, ("weight",))
    assert "closed" in repr(table)
    for call in (
        lambda: table[0],
        lambda: table[:],
        lambda: table.column(),
        lambda: table.gather([0]),
        lambda: table.write([0], 0),
        lambda: table.writing().__enter__(),
        lambda: table.add_column("x"),
        lambda: table.count("step", 1),
        lambda: table.commit(),
        lambda: np.asarray(table),
    ):
        with pytest.raises(ClosedTableError, match="cannot be used any more; open it again"):
            call()


def test_a_table_says_what_it_is(table, place):
    table.commit(step=3)

    text = repr(table)

    assert "5 rows of 3 float32" in text
    assert "step=3" in text
    assert (str(place) if place else "in memory") in text
    assert table.path == place
    assert table.mode == "r+"
    assert table.durability == "power"
    assert table.clean


def test_a_deep_copy_is_a_table_in_memory(table):
    table.add_column("count", scalar=True)
    table.commit(step=6, metadata={"a": [1]})

    twin = copy.deepcopy(table)
    twin.write(0, 9)

    assert twin.path is None
    assert (twin.step, twin.metadata, twin.columns) == (6, {"a": [1]}, ("weight", "count"))
    assert twin.uuid != table.uuid
    assert table[0].tolist() == [0, 0.25, 0.5]
    assert np.array_equal(twin[1:], table[1:])


def test_a_table_in_memory_pickles_by_value():
    table = Table.create(None, 4, 2, seed=3)
    table.add_column("count", scalar=True)
    table.commit(step=2)

    twin = pickle.loads(pickle.dumps(table))
    twin.write(0, 9)

    assert np.array_equal(twin[1:], table[1:])
    assert not np.array_equal(twin[0], table[0])
    assert (twin.step, twin.columns, twin.mode) == (2, ("weight", "count"), "r+")


@given(
    st.lists(st.tuples(st.integers(0, 6), st.floats(-9, 9, width=32)), max_size=20),
    st.sampled_from([np.int32, np.int64]),
)
def test_write_then_gather_agrees_with_a_dict(pairs, dtype):
    table = Table.create(None, 7, 2, init="zeros")
    ids = np.array([row for row, _ in pairs], dtype)

    table.write(ids, np.array([value for _, value in pairs])[:, None])

    expected = dict(pairs)
    assert table.column()[:, 1].tolist() == [expected.get(row, 0.0) for row in range(7)]
