"""`diff`: which rows of two tables differ, how many, and how far."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.storage import Table, diff, differences


@pytest.fixture
def first():
    """A table of 1000 rows of 4, with a scalar column."""
    table = Table.create(None, 1000, 4, seed=3)
    table.add_column("count", scalar=True)
    return table


@pytest.fixture
def second():
    """One with the same rows."""
    table = Table.create(None, 1000, 4, seed=3)
    table.add_column("count", scalar=True)
    return table


def of(first, second, name="weight"):
    """The difference of one column."""
    return next(column for column in diff(first, second).columns if column.name == name)


def test_tables_of_the_same_rows_are_the_same(first, second):
    found = diff(first, second)

    assert found.same
    assert found.said.keys() == {"uuid"}


@pytest.mark.parametrize("block", [1, 100, 1 << 20])
def test_rows_that_differ_are_counted_and_named(first, second, monkeypatch, block):
    monkeypatch.setattr(differences, "BLOCK_BYTES", block)
    rows = np.arange(40, 1000, 60)
    second.write(rows, first[rows] + 1)
    second.write([521], first[521] - 2.5)
    second.write([999], 7, column="count")

    found = of(first, second)

    assert not diff(first, second).same
    assert (found.compared, found.differ) == (1000, len(rows) + 1)
    assert found.first == tuple(sorted([*rows.tolist(), 521])[:10])
    assert found.largest == pytest.approx(2.5)
    assert found.where == 521
    assert of(first, second, "count").first == (999,)


def test_every_bit_counts_and_nan_is_like_itself(first, second):
    for table in (first, second):
        table.write([1], [np.nan, np.inf, 0, 1])
    assert diff(first, second).same

    second.write([1], [np.nan, np.inf, -0.0, 1])
    assert (of(first, second).differ, of(first, second).largest) == (1, 0.0)
    second.write([1], [np.nan, np.inf, 3, 1])
    assert of(first, second).largest == 3.0
    second.write([5], np.nan)
    second.write([999], 1e30)
    assert np.isnan(of(first, second).largest)
    assert of(first, second).where == 5


def test_rows_that_only_one_has_and_columns_are_told(first, second):
    second.resize(1200)
    second.add_column("late")
    second.count("steps", 4)

    found = diff(first, second)

    assert not found.same
    assert found.said["rows"] == (1000, 1200)
    assert found.said["counters"] == ({}, {"steps": 4})
    assert of(first, second, "late").kind == "only in the second"
    assert of(second, first, "late").kind == "only in the first"
    assert of(first, second).kind == "same"


def test_rows_of_other_shapes_or_of_nothing_are_not_compared(first, tmp_path):
    assert of(first, Table.create(None, 1000, 5)).kind == "shape"
    assert of(first, Table.create(None, 1000, 4, "float64")).kind == "shape"
    empty = Table.create(None, 5, 0)
    assert diff(empty, Table.create(None, 5, 0)).same
    small, other = first.quantize(), first.quantize()
    assert diff(small, other).same
