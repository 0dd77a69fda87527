"""Initial values: their spelling, and rows that depend on seed and id alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.storage import Initial, Table
from mmembed.storage import store as store_module
from mmembed.storage.column import column_seed

FINITE = st.floats(allow_nan=False, allow_infinity=False)


@pytest.mark.parametrize(
    ("text", "value", "short"),
    [
        ("zeros", Initial("constant", 0.0), "zeros"),
        ("ones", Initial("constant", 1.0), "ones"),
        ("constant(0.1)", Initial("constant", 0.1), "constant(0.1)"),
        ("constant(-0)", Initial("constant", 0.0), "zeros"),
        ("constant(1)", Initial("constant", 1.0), "ones"),
        ("normal", Initial("normal", 0.0, 1.0), "normal"),
        ("normal(0, 0.02)", Initial("normal", 0.0, 0.02), "normal(0.0, 0.02)"),
        ("normal( 0,1 )", Initial("normal", 0.0, 1.0), "normal"),
        ("uniform(-5e-3, 0.005)", Initial("uniform", -0.005, 0.005), "uniform(-0.005, 0.005)"),
        (" uniform (1, 1) ", Initial("uniform", 1.0, 1.0), "uniform(1.0, 1.0)"),
    ],
)
def test_a_spelling_has_its_value_and_its_shortest_spelling(text, value, short):
    assert Initial.parse(text) == value
    assert str(value) == short


@given(
    st.builds(Initial, st.just("constant"), FINITE)
    | st.builds(Initial, st.just("normal"), FINITE, FINITE.map(abs))
    | st.tuples(FINITE, FINITE).map(lambda ends: Initial("uniform", *sorted(ends)))
)
def test_every_value_comes_back_from_its_spelling(initial):
    assert Initial.parse(str(initial)) == initial
    assert str(Initial.parse(str(initial))) == str(initial)


@pytest.mark.parametrize(
    "init",
    [
        Initial("normal", 0, 2),
        Initial("normal", -0.0, np.float32(0.1)),
        Initial("constant", -0.0),
        Initial("constant", True),
        Initial("uniform", -1, -0.0),
    ],
)
def test_a_value_made_of_other_numbers_is_found_again(path, init):
    with Table.create(path, 4, 2, init=init) as table:
        rows = table[:]
    with Table.open(path) as table:
        assert np.array_equal(table[:], rows)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is not understood"),
        ("gaussian", "is not understood"),
        ("constant", "is not understood"),
        ("uniform", "is not understood"),
        ("zeros(1)", "is not understood"),
        ("normal(0, 1", "is not understood"),
        ("normal(0, 1))", "is not understood"),
        ("normal(0)", "wrong count of numbers"),
        ("uniform(0, 1, 2)", "wrong count of numbers"),
        ("constant(0, 1)", "wrong count of numbers"),
        ("constant()", "not a number"),
        ("constant(x)", "not a number"),
        ("constant(nan)", "must be finite"),
        ("uniform(0, inf)", "must be finite"),
        ("uniform(1, 0)", "needs a <= b"),
        ("normal(0, -1)", "must be >= 0"),
    ],
)
def test_what_is_not_understood_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        Initial.parse(text)


def test_an_init_that_is_no_string_is_refused():
    with pytest.raises(TypeError, match="init must be a string such as 'zeros'"):
        Initial.parse(0.1)


@pytest.mark.parametrize("init", ["normal(1, 2)", "uniform(3, 4)", "constant(5)"])
@pytest.mark.parametrize("dim", [1, 3, 8])
def test_any_block_of_rows_is_the_same_rows(init, dim):
    initial = Initial.parse(init)
    whole = np.empty((20, dim), np.float32)
    initial.fill(whole, 2**33, 5)

    part = np.empty((6, dim), np.float32)
    initial.fill(part, 2**33 + 7, 5)

    assert np.array_equal(part, whole[7:13])


@pytest.mark.parametrize("rows", [1, 4, 5, 11])
def test_a_table_written_in_blocks_has_the_rows_of_one_drawn_at_once(place, rows, monkeypatch):
    monkeypatch.setattr(store_module, "BLOCK_BYTES", 50)  # 4 rows of 12 bytes
    whole = np.empty((rows, 3), np.float32)
    Initial.parse("normal").fill(whole, 0, 3)

    with Table.create(place, rows, 3, seed=3) as table:
        assert np.array_equal(table.column(), whole)


@pytest.mark.parametrize("init", ["normal", "uniform(-1, 1)", "ones", "zeros"])
def test_disk_and_memory_have_the_same_initial_rows(path, init):
    in_memory = Table.create(None, 50, 7, init=init)

    with Table.create(path, 50, 7, init=init) as on_disk:
        assert np.array_equal(on_disk.column(), in_memory.column())


def test_the_seed_and_the_name_of_a_column_decide_its_rows(place):
    with Table.create(place, 9, 4, init="normal", seed=5) as table:
        table.add_column("context", init="normal")
        table.add_column("other", init="normal")
        same = Table.create(None, 9, 4, init="normal", seed=5)
        same.add_column("other", init="normal")

        assert np.array_equal(table.column("other"), same.column("other"))
        assert not np.array_equal(table.column("other"), table.column("context"))
        assert not np.array_equal(table.column("other"), table.column("weight"))


def test_the_seed_of_a_column_is_documented_and_stable():
    assert column_seed(0, "weight") == 0
    assert column_seed(2**64 - 1, "weight") == 2**64 - 1
    assert column_seed(7, "context") == 5289154031884150243
    assert len({column_seed(seed, name) for seed in (0, 1) for name in ("a", "b", "a.b")}) == 6
