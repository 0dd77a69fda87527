"""Checksums of single rows: a flipped bit is found and named, and nothing else ever is."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import time

import numpy as np
import pytest

from mmembed import nn, optim
from mmembed.storage import Table, saving, verify
from mmembed.storage.column import CHECKS
from mmembed.storage.directory import _Door
from mmembed.storage.format import HEADER_BYTES
from tests.faults.replay import denied

LAYOUTS = {
    "columns": {},
    "records": {"layout": "records", "columns": {"count": {"scalar": True, "dtype": "float64"}}},
    "lazy": {"lazy": True},
    "narrow": {"dtype": "float16", "columns": {"other": {"dim": 3}}},
}
ROWS, DIM = 700, 20


def made(path, layout="columns", **given):
    return Table.create(path, ROWS, DIM, checksums=True, **LAYOUTS[layout], **given)


def wrong(path):
    """Return what `verify --deep` finds about rows, by the name of the column."""
    found = verify(path, deep=True)
    assert {finding.part for finding in found if finding.state == "bad"} <= {
        finding.part for finding in found if finding.part.startswith(CHECKS)
    }
    return {
        finding.part.removeprefix(CHECKS).removesuffix(".npy"): finding.text
        for finding in found
        if finding.state == "bad"
    }


def change(table, draw, steps=5):
    """Change rows in every way there is but a growth."""
    for _ in range(steps):
        rows = np.unique(draw.integers(table.rows, size=60))
        name = str(draw.choice(table.columns))
        with table.writing(rows) as columns:
            columns[name][rows] = draw.normal(size=columns[name][rows].shape)
            columns["weight"][rows[:7]] += 1
        table.write(draw.integers(table.rows, size=4), 0.5)


def flip_row(path, table, column, row, bit):
    """Flip a bit of a row that is in the file."""
    records = table.record_columns
    if column in records:
        superblock = table._store.superblock
        at = superblock.records.offsets[records.index(column)] + row * superblock.records.stride
        file = path / "records.npy"
    else:
        at, file = row * table._store.superblock.column(column).row_bytes, path / f"{column}.npy"
    with open(file, "r+b") as opened:
        opened.seek(HEADER_BYTES + at + bit // 8)
        (byte,) = opened.read(1)
        opened.seek(-1, os.SEEK_CUR)
        opened.write(bytes([byte ^ 1 << bit % 8]))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_flipped_bit_of_any_row_and_column_is_found_and_named(tmp_path, layout):
    draw, chance = np.random.default_rng(3), random.Random(4)
    with made(tmp_path / "t", layout) as table:
        table.add_column("late", 2)
        change(table, draw, 20)
        table.materialize()
    assert wrong(tmp_path / "t") == {}
    with Table.open(tmp_path / "t") as table:
        for _ in range(6):
            column = chance.choice([*table.columns, CHECKS + table.columns[0]])
            row = chance.randrange(ROWS)
            bit = chance.randrange(8 * table._store.superblock.column(column).row_bytes)
            flip_row(tmp_path / "t", table, column, row, bit)
            named = column.removeprefix(CHECKS)
            assert wrong(tmp_path / "t") == {
                named: f"1 rows of {named} are not what their checksums say: {row}"
            }
            flip_row(tmp_path / "t", table, column, row, bit)


def test_more_flipped_rows_than_are_named_are_counted(tmp_path):
    with made(tmp_path / "t") as table:
        table.write(np.arange(ROWS), 1)
        table.commit()
        for row in range(5, 40):
            flip_row(tmp_path / "t", table, "weight", row, 3)
        (told,) = wrong(tmp_path / "t").values()
    assert told.startswith("35 rows of weight")
    assert told.endswith(": 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, ...")


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("durability", ["power", "process"])
def test_training_growing_going_back_and_reopening_deny_no_row(tmp_path, layout, durability):
    path, draw = tmp_path / "t", np.random.default_rng(1)
    table = made(path, layout, durability=durability)
    for turn in range(8):
        change(table, draw)
        assert wrong(path) == {}  # beside the writer: the last commit
        (table.commit, table.rollback)[turn % 2]()
        assert wrong(path) == {}
        change(table, draw, 1)
        if turn == 2:
            table.add_column("weight.state", scalar=True, init="ones")
        if turn == 4:
            table.resize(table.rows + 300)
        if turn == 5:
            with table.writing() as columns:
                columns["weight"][...] *= 2
        table.close(commit=bool(turn % 3))
        assert wrong(path) == {}
        table = Table.open(path, "r+")
    table.close()
    assert table.rows == ROWS + 300


def test_training_with_an_optimizer_denies_no_row_and_changes_no_bit(tmp_path):
    draw = np.random.default_rng(0)
    batches = draw.integers(ROWS, size=(12, 50))
    ends = []
    for name, checksums in (("t", True), ("plain", False)):
        with Table.create(tmp_path / name, ROWS, DIM, checksums=checksums) as table:
            module = nn.Embedding.from_table(table, sparse=True)
            optimizer = optim.Adagrad(module.parameters(), lr=0.1)
            for batch in batches:
                optimizer.zero_grad()
                module(batch).sum().backward()
                optimizer.step()
            ends.append({column: table.read(column=column) for column in table.columns})
    assert wrong(tmp_path / "t") == {}
    assert ends[0].keys() == ends[1].keys()
    assert all(np.array_equal(ends[0][column], ends[1][column]) for column in ends[0])


def test_a_block_that_raises_leaves_checksums_of_what_it_has_left(tmp_path):
    rows = np.arange(10)
    with made(tmp_path / "t") as table:
        with contextlib.suppress(KeyError), table.writing(rows) as columns:
            columns["weight"][:4] = 7
            raise KeyError
        table.commit()
        assert wrong(tmp_path / "t") == {}
        assert table[3].tolist() == [7] * DIM


def test_an_interrupt_before_checksums_are_set_is_made_good_by_the_commit(tmp_path, monkeypatch):
    def interrupted(door):
        raise KeyboardInterrupt

    with made(tmp_path / "t") as table:
        with monkeypatch.context() as patch:
            patch.setattr(_Door, "sum_up", interrupted)
            with pytest.raises(KeyboardInterrupt):
                table.write([1, 2], 7)
        assert table[2].tolist() == [7] * DIM
        table.write([5], 3)
        table.commit()
        assert wrong(tmp_path / "t") == {}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_killed_trainer_leaves_rows_that_no_checksum_denies(tmp_path, layout):
    path = tmp_path / "t"
    made(path, layout, durability="process").close()
    for turn in range(5):
        child = os.fork()
        if not child:
            try:
                table, draw = Table.open(path, "r+"), np.random.default_rng(turn)
                while True:
                    change(table, draw)
                    table.commit()
            finally:
                os._exit(1)
        time.sleep(0.03 + 0.013 * turn)
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        assert wrong(path) == {}  # the last commit, as readers see it
        Table.open(path, "r+").close()
        assert wrong(path) == {}
    with Table.open(path) as table:
        assert table.commits > 5


def test_a_look_beside_a_trainer_that_commits_all_the_time_denies_no_row(tmp_path):
    path = tmp_path / "t"
    made(path, durability="process").close()
    child = os.fork()
    if not child:
        try:
            table, draw = Table.open(path, "r+"), np.random.default_rng(0)
            while True:
                change(table, draw, 1)
                table.commit()
        finally:
            os._exit(1)
    try:
        for _ in range(100):
            assert denied(path) == {}
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    with Table.open(path) as table:
        assert table.commits > 100


def test_snapshots_and_deltas_carry_checksums_and_hide_no_flipped_bit(tmp_path):
    draw = np.random.default_rng(2)
    with made(tmp_path / "t") as table:
        table.track_changes()
        table.snapshot(tmp_path / "copy")
        change(table, draw)
        table.add_column("late", 2)
        table.resize(ROWS + 50)
        change(table, draw)
        table.write([123], 4)
        table.commit()
        flip_row(tmp_path / "t", table, "weight", 123, 77)
        table.export_delta(tmp_path / "d", base=tmp_path / "copy")
        table.snapshot(tmp_path / "whole")
    with Table.open(tmp_path / "copy", "r+") as copy:
        copy.apply_delta(tmp_path / "d")
    for name in ("t", "copy", "whole"):
        assert wrong(tmp_path / name) == {
            "weight": "1 rows of weight are not what their checksums say: 123"
        }
    with Table.open(tmp_path / "copy", "r+") as copy:
        copy.write([123], 4)
    assert wrong(tmp_path / "copy") == {}


def test_checksums_are_no_columns_to_whoever_reads_the_table(tmp_path):
    with made(tmp_path / "t", columns={"count": {"scalar": True}}) as table:
        assert table.checksums
        assert table.columns == ("weight", "count")
        with table.writing(np.arange(3)) as columns:
            assert [*columns] == ["weight", "count"]
            assert len(columns) == 2
        for copy in (table.__deepcopy__({}), Table.create(None, 3, 2)):
            assert not copy.checksums
    assert np.load(tmp_path / "t" / "crc.weight.npy").dtype == np.uint32


def test_what_cannot_have_checksums_is_refused(tmp_path):
    with pytest.raises(ValueError, match="in memory"):
        Table.create(None, 3, 2, checksums=True)
    with pytest.raises(ValueError, match="fill"):
        Table.create(tmp_path / "t", 3, 2, checksums=True, fill=lambda first, values: None)
    with pytest.raises(TypeError, match="bool"):
        Table.create(tmp_path / "t", 3, 2, checksums=1)
    with pytest.raises(ValueError, match="cannot be a name"):
        Table.create(tmp_path / "t", 3, 2, checksums=True, columns={"c" * 97: {}})
    made(tmp_path / "t").close()
    with pytest.raises(RuntimeError, match="checksums"):
        Table.open(tmp_path / "t", "r+", shared=True)
    assert wrong(tmp_path / "t") == {}


def test_a_door_that_sets_no_checksums_is_caught(tmp_path):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_Door, "sum_up", lambda door: None)
        with made(tmp_path / "t") as table:
            table.write([4], 1)
    assert wrong(tmp_path / "t") == {
        "weight": "1 rows of weight are not what their checksums say: 4"
    }


@pytest.mark.parametrize("size", [1, 4, 8, 15, 16, 63, 64, 65, 80, 256, 1001])
def test_checksums_of_rows_are_those_of_zlib(size):
    data = np.random.default_rng(size).integers(256, size=(40, 2 * size), dtype=np.uint8)
    rows, out, plain = np.arange(0, 40, 3), np.zeros((40, 2), np.uint32), np.zeros(40, np.uint32)

    assert saving.row_sums(data[:, 1 : size + 1], rows, out[:, 1]) == -1
    assert saving.row_sums_in_python(data[:, 1 : size + 1], rows, plain) == -1

    assert out[:, 1].tolist() == plain.tolist()
    assert not out[:, 0].any()
    for sums in (saving.row_sums, saving.row_sums_in_python):
        assert sums(data, np.array([3, 40]), plain) == 1
        assert sums(data, np.array([-1]), plain) == 0
