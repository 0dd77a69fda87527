"""Columns, commits and shapes: what a table may consist of, on disk and in memory."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.storage import Table


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"inner": value}
    return value


def test_a_scalar_column_has_one_number_per_row(table):
    table.add_column("count", scalar=True, dtype="float64", init="ones")
    table.write([3, 1], [5, 6], column="count")

    assert table.column("count").shape == (5,)
    assert table.gather([[1, 3], [0, 0]], column="count").tolist() == [[6, 5], [1, 1]]
    assert table.gather(3, column="count").shape == ()
    assert table.gather([0], column="count").dtype == np.float64


def test_columns_have_widths_and_dtypes_of_their_own(table):
    table.add_column("context")
    table.add_column("wide", 8, dtype="float64", init="constant(0.5)")
    table.add_column("none", 0)

    assert table.columns == ("weight", "context", "wide", "none")
    assert table.column("context").dtype == np.float32
    assert table.column("context").shape == (5, 3)
    assert table.gather([2], column="wide").tolist() == [[0.5] * 8]
    assert table.gather([2], column="none").shape == (1, 0)
    assert table.nbytes == 5 * (12 + 12 + 64)


def test_adding_a_column_again_changes_nothing(table):
    table.add_column("context", init="ones")
    table.write(0, 7, column="context")

    table.add_column("context", init="ones")

    assert table.column("context")[:, 0].tolist() == [7, 1, 1, 1, 1]


@pytest.mark.parametrize(
    "other", [{"dim": 4}, {"scalar": True}, {"dtype": "float64"}, {"init": "zeros"}]
)
def test_adding_another_column_of_that_name_is_refused(table, other):
    table.add_column("context", init="ones")

    with pytest.raises(ValueError, match="the table has another column 'context'"):
        table.add_column("context", **{"init": "ones", **other})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"name": "Context"}, ValueError, "'Context' cannot be a name"),
        ({"name": ""}, ValueError, "cannot be a name"),
        ({"name": "../x"}, ValueError, "cannot be a name"),
        ({"name": "a..b"}, ValueError, "cannot be a name"),
        ({"name": "a\n"}, ValueError, "cannot be a name"),
        ({"name": "a" * 101}, ValueError, "cannot be a name"),
        ({"name": 7}, TypeError, "a name must be a string, got 7"),
        ({"name": "a", "dim": -1}, ValueError, "dim must be in"),
        ({"name": "a", "dim": 1.5}, TypeError, "dim must be an integer, got 1.5"),
        ({"name": "a", "dim": 2**62}, ValueError, "do not fit a file"),
        ({"name": "a", "dim": 2, "scalar": True}, ValueError, "a scalar column has no width"),
        ({"name": "a", "dtype": "float8"}, TypeError, "float16 or bfloat16, got 'float8'"),
        ({"name": "a", "init": "magic"}, ValueError, "init 'magic' is not understood"),
    ],
)
def test_a_column_that_cannot_be_is_refused(table, arguments, error, message):
    with pytest.raises(error, match=message):
        table.add_column(**arguments)
    assert table.columns == ("weight",)


def test_a_column_that_is_not_there_is_named_with_those_that_are(table):
    table.add_column("context")

    for call in (table.column, lambda name: table.gather([0], column=name)):
        with pytest.raises(KeyError, match="no column 'sum'; the table has: weight, context"):
            call("sum")
    with pytest.raises(KeyError, match="no column 'sum'"):
        table.write([0], 0, column="sum")


def test_commits_count_and_record(table):
    assert (table.step, table.epoch, table.metadata) == (0, 0, {})
    table.commit()
    assert (table.step, table.epoch) == (1, 1)
    table.commit(step=500, metadata={"loss": [0.5, None, True], "pair": (1, 2)})
    assert (table.step, table.epoch) == (500, 2)
    table.commit(step=np.int64(3))
    assert (table.step, table.epoch) == (3, 3)
    assert table.metadata == {"loss": [0.5, None, True], "pair": [1, 2]}
    table.commit(metadata={})
    assert (table.step, table.metadata) == (4, {})


def test_counters_are_set_and_recorded_by_the_next_commit(table):
    assert table.counters == {}
    table.count("weight.adam.step", 3)
    table.count("weight.adam.step", np.int64(4))
    table.count("context.adam.step", 2**64 - 1)
    table.counters["weight.adam.step"] = 9
    table.commit()

    assert table.counters == {"weight.adam.step": 4, "context.adam.step": 2**64 - 1}
    assert list(table.counters) == ["weight.adam.step", "context.adam.step"]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        ("Step", 1, ValueError, "'Step' cannot be a name"),
        (3, 1, TypeError, "a name must be a string, got 3"),
        ("step", -1, ValueError, "counter step must be in 0"),
        ("step", 2**64, ValueError, "counter step must be in 0"),
        ("step", 1.0, TypeError, "counter step must be an integer, got 1.0"),
    ],
)
def test_a_counter_that_cannot_be_is_refused(table, name, value, error, message):
    with pytest.raises(error, match=message):
        table.count(name, value)
    assert table.counters == {}


def test_metadata_is_not_shared_with_the_caller(table):
    given_ = {"inner": []}
    table.commit(metadata=given_)
    given_["inner"].append(1)
    table.metadata["inner"].append(2)

    assert table.metadata == {"inner": []}


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"step": -1}, ValueError, r"step must be in 0\.\.18446744073709551615, got -1"),
        ({"step": 2**64}, ValueError, "step must be in"),
        ({"step": 1.0}, TypeError, "step must be an integer, got 1.0"),
        ({"step": True}, TypeError, "step must be an integer, got True"),
        ({"metadata": [1]}, TypeError, "metadata must be a dict, got list"),
        ({"metadata": {"a": object()}}, TypeError, "metadata must be JSON: Object of type object"),
        ({"metadata": {"a": float("nan")}}, ValueError, "metadata must be JSON: Out of range"),
        ({"metadata": nested(52)}, ValueError, "may be nested 50 deep, and this is deeper"),
        ({"metadata": nested(9999)}, ValueError, "metadata must be JSON|may be nested 50 deep"),
        ({"metadata": {(1, 2): 3}}, TypeError, "metadata must be JSON: keys must be str"),
    ],
)
def test_a_commit_that_cannot_be_recorded_is_refused(table, arguments, error, message):
    table.commit(step=4)

    with pytest.raises(error, match=message):
        table.commit(**arguments)
    assert (table.step, table.epoch, table.metadata) == (4, 1, {})


def test_the_step_after_the_last_possible_one_is_refused(table):
    table.commit(step=2**64 - 1)

    with pytest.raises(ValueError, match="step must be in"):
        table.commit()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"rows": -1}, ValueError, "rows must be in"),
        ({"rows": 2.0}, TypeError, "rows must be an integer, got 2.0"),
        ({"rows": True}, TypeError, "rows must be an integer, got True"),
        ({"rows": "5"}, TypeError, "rows must be an integer, got '5'"),
        ({"rows": None}, TypeError, "rows must be an integer"),
        ({"rows": 2**63}, ValueError, "rows must be in"),
        ({"rows": 2**61}, ValueError, "do not fit a file"),
        ({"dim": -1}, ValueError, "dim must be in"),
        ({"dim": 2**62}, ValueError, "do not fit a file"),
        ({"dim": np.float32(3)}, TypeError, "dim must be an integer"),
        ({"dtype": "float8"}, TypeError, "float16 or bfloat16, got 'float8'"),
        ({"dtype": ">f4"}, TypeError, "dtype must be float32.* got '>f4'"),
        ({"dtype": "int32"}, TypeError, "dtype must be"),
        ({"dtype": "nonsense"}, TypeError, "dtype must be"),
        ({"dtype": object}, TypeError, "dtype must be"),
        ({"init": "nonsense"}, ValueError, "init 'nonsense' is not understood"),
        ({"init": None}, TypeError, "init must be a string"),
        ({"seed": -1}, ValueError, "seed must be in"),
        ({"seed": 2**64}, ValueError, "seed must be in"),
        ({"seed": 0.5}, TypeError, "seed must be an integer"),
        ({"durability": "none"}, ValueError, "durability must be 'power' or 'process', got 'none'"),
    ],
)
def test_a_table_that_cannot_be_is_refused_before_anything_is_made(
    place, tmp_path, arguments, error, message
):
    with pytest.raises(error, match=message):
        Table.create(place, **{"rows": 5, "dim": 3, **arguments})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (0, 0), (1, 1)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_tables_without_rows_or_width_work(place, shape, dtype):
    with Table.create(place, *shape, dtype) as table:
        table.add_column("count", scalar=True)
        table.write(range(shape[0]), 2)
        table.commit()

        assert table[:].shape == table.shape == shape
        assert table.dtype == dtype
        assert (table[range(shape[0])] == 2).all()
    if place:
        with Table.open(place) as table:
            assert (table.rows, table.dim) == shape
            assert (np.load(place / "weight.npy") == np.full(shape, 2, dtype)).all()


def test_integers_of_numpy_are_sizes(place):
    with Table.create(place, np.int32(5), np.uint8(3), np.float64, seed=np.int64(4)) as table:
        table.add_column("x", np.int64(2))

        assert table.shape == (5, 3)
        assert table.seed == 4
        assert type(table.seed) is type(table.rows) is int
