"""Lazy tables: rows that nobody has written are computed, and are what they would be in a file."""

from __future__ import annotations

import copy
import errno
import os
import pickle
import shutil
import subprocess
import time

import numpy as np
import pytest

import mmembed as mm
from mmembed import kernels
from mmembed.errors import CorruptTableError, UnwrittenRowsError
from mmembed.neighbors import nearest
from mmembed.storage import Table, column, page_calls
from mmembed.storage.bits_format import BITS_AT, HEADER
from mmembed.storage.files import File
from mmembed.storage.table import LAZY_FROM

from .examples import contents

INITS = ["zeros", "constant(0.3)", "uniform(-1, 1)", "normal(0, 0.02)"]
DTYPES = ["float32", "float64", "float16", "bfloat16"]


def lazy_table(path, rows=1000, dim=5, **options):
    """A lazy table of blocks of 128 rows (of float32)."""
    return Table.create(path, rows, dim, seed=4, lazy=True, **options)


def disk_bytes(path):
    return sum(file.stat().st_blocks * 512 for file in path.iterdir())


def same(one, other):
    return one.dtype == other.dtype and one.tobytes() == other.tobytes()


# -- what rows are ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("init", INITS)
def test_rows_are_the_same_computed_written_eager_and_in_memory(tmp_path, init, dtype):
    options = {"dtype": dtype, "init": init}
    eager = Table.create(tmp_path / "eager", 1000, 5, seed=4, lazy=False, **options)
    memory = Table.create(None, 1000, 5, seed=4, **options)

    with lazy_table(tmp_path / "lazy", **options) as table, eager, memory:
        expected = eager[:]
        assert same(memory[:], expected)
        assert same(table[:], expected)
        for part in (np.array([[3, 999], [3, 0]]), np.arange(1000, dtype=np.int32)[::-1]):
            assert same(table[part], expected[part])
        with table.writing(np.array([130, 700])):
            pass  # the door was open; nobody took a column
        with table.writing(np.array([130, 700])) as columns:
            assert same(columns["weight"][[130, 700]], expected[[130, 700]])
        assert same(table[:], expected)
        table.materialize()
        assert same(table.column(), expected)
    assert same(Table.open(tmp_path / "lazy").column(), expected)


def test_any_number_of_threads_computes_the_same(tmp_path):
    expected = Table.create(None, 5000, 64, seed=4)[:]
    threads = kernels.get_num_threads()
    with lazy_table(tmp_path / "t", 5000, 64) as table:
        for count in (1, 2):
            kernels.set_num_threads(count)
            try:
                assert same(table[:], expected)
            finally:
                kernels.set_num_threads(threads)


def test_a_row_that_was_written_stays_and_its_neighbours_keep_their_values(tmp_path):
    expected = Table.create(None, 1000, 5, seed=4)[:]
    with lazy_table(tmp_path / "t") as table:
        table.write([128, 999], 7)
        expected[[128, 999]] = 7
        assert same(table[:], expected)
        table.commit()
    for mode in ("r", "r+"):
        with Table.open(tmp_path / "t", mode) as table:
            assert same(table[:], expected)
            assert same(table[np.arange(999, -1, -1)], expected[::-1].copy())


def test_python_finds_the_same_unwritten_rows_as_the_built_function():
    bits = np.random.default_rng(0).integers(0, 256, 32, dtype=np.uint8)
    for dtype in (np.int32, np.int64):
        ids = np.random.default_rng(1).integers(-5, 600, 500).astype(dtype)
        found = [np.empty(500, np.int64) for _ in range(2)]
        calls = page_calls.unset_of, page_calls.unset_of_in_python
        counts = [f(ids, 500, 1, bits, out) for f, out in zip(calls, found, strict=True)]
        assert counts[0] == counts[1] > 50
        assert (found[0][: counts[0]] == found[1][: counts[1]]).all()


def test_bad_ids_are_reported_as_ever(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        with pytest.raises(IndexError, match=r"id 1000 at \(1, 0\)"):
            table.gather([[5], [1000]])
        with pytest.raises(IndexError, match=r"id -1 at \(0, 1\)"):
            mm.functional.embedding([[0, -1]], mm.nn.Embedding.from_table(table).weight)


# -- what it takes ---------------------------------------------------------------------------------


def test_a_billion_rows_take_a_second_and_a_megabyte(tmp_path):
    begin = time.perf_counter()
    with Table.create(tmp_path / "t", 10**9, 64) as table:
        seconds = time.perf_counter() - begin
        assert disk_bytes(tmp_path / "t") < 1 << 20
        ids = np.array([0, 10**9 - 1, 123456789])
        table.add_column("weight.adagrad.sum")
        table.write(ids, table[ids] + 1)
        table.commit()
        assert disk_bytes(tmp_path / "t") < 1 << 20

    assert seconds < 5  # one, on a machine that does nothing else
    with Table.open(tmp_path / "t") as table:
        small = Table.create(None, 1, 64)
        assert same(table[[0]], small[:] + 1)


def test_tables_are_lazy_from_a_size_on_and_as_asked(tmp_path):
    rows = LAZY_FROM // 256
    for name, options, lazy in (
        ("small", {"rows": rows - 1}, False),
        ("large", {"rows": rows}, True),
        ("asked", {"rows": 3, "lazy": True}, True),
        ("eager", {"rows": rows, "lazy": False}, False),
        ("empty", {"rows": 0, "lazy": True}, False),
    ):
        with Table.create(tmp_path / name, dim=64, **options):
            assert (tmp_path / name / "weight.bits").exists() == lazy
        shutil.rmtree(tmp_path / name)
    with pytest.raises(ValueError, match=r"a `fill` is not lazy"):
        Table.create(tmp_path / "t", 3, 2, fill=lambda first, values: None, lazy=True)


def test_disk_use_grows_with_blocks_that_were_written(tmp_path):
    with lazy_table(tmp_path / "t", 100_000, 64) as table:
        before = disk_bytes(tmp_path / "t")
        table.gather(np.arange(0, 100_000, 16))
        assert disk_bytes(tmp_path / "t") == before
        table.write(np.arange(0, 16 * 50, 16), 1)

        assert 50 * 4096 <= (tmp_path / "t" / "weight.npy").stat().st_blocks * 512 < 60 * 4096


# -- views -----------------------------------------------------------------------------------------


def test_an_array_that_lacks_rows_is_refused_and_named_is_what_helps(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        rows = mm.nn.Embedding.from_table(table)
        for ask in (table.column, lambda: rows.weight.array, lambda: rows.weight @ np.ones(5)):
            with pytest.raises(UnwrittenRowsError, match=r"materialize\(\)"):
                ask()
        with pytest.raises(UnwrittenRowsError):
            np.array(table, copy=False)
        assert "1000 rows" in repr(rows.weight)

        table.materialize()

        assert table.column().shape == rows.weight.array.shape == (1000, 5)


def test_columns_of_zeros_can_always_be_viewed(tmp_path):
    with lazy_table(tmp_path / "t", init="zeros") as table:
        table.add_column("weight.sum", scalar=True)
        table.write([900], 3)

        assert table.column()[[899, 900]].tolist() == [[0] * 5, [3] * 5]
        assert not table.column("weight.sum").any()
        assert not list((tmp_path / "t").glob("*.bits"))


def test_copies_and_what_reads_all_rows_see_the_computed_ones(tmp_path):
    expected = Table.create(None, 1000, 5, seed=4)[:]
    with lazy_table(tmp_path / "t") as table:
        assert same(np.asarray(table), expected)
        assert same(copy.deepcopy(table).column(), expected)
        assert same(table[10:400:3], expected[10:400:3])
        assert same(table.read(990, column="weight"), expected[990:])
        small, of_memory = table.quantize(), Table.create(None, 1000, 5, seed=4).quantize()
        assert same(small.column(), of_memory.column())
        found, wanted = (nearest(t, expected[[3]], 4) for t in (table, expected))
        assert same(found[0], wanted[0])
        with pickle.loads(pickle.dumps(table)) as reader:
            assert same(reader[:], expected)
        table.snapshot(tmp_path / "copy")
    with Table.open(tmp_path / "copy", "r+") as table:
        assert same(table[:], expected)


# -- training --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        (mm.optim.Adagrad, {"initial_accumulator_value": 0.1}),
        (mm.optim.SparseAdam, {}),
        (mm.optim.RowwiseAdagrad, {}),
    ],
)
def test_training_leaves_the_same_bits_as_in_memory(tmp_path, optimizer, options, dtype):
    tables = lazy_table(tmp_path / "t", dtype=dtype), Table.create(None, 1000, 5, dtype, seed=4)
    losses = []
    for table in tables:
        rng = np.random.default_rng(1)
        rows = mm.nn.Embedding.from_table(table, sparse=True, max_norm=2.0)
        bags = mm.nn.EmbeddingBag.from_table(table, sparse=True, mode="sum")
        change = optimizer(rows.parameters(), lr=0.1, **options)
        for _ in range(4):
            ids = rng.integers(0, 1000, (6, 3))
            factors = mm.tensor(rng.random((6, 3)).astype(np.float32)).to(rows.weight.dtype)
            factors.requires_grad = True
            loss = (rows(ids) ** 2).sum() + bags(ids, per_sample_weights=factors).sum()
            loss.backward()
            change.step()
            change.zero_grad()
            losses.append((loss.item(), factors.grad.numpy().tobytes()))
    assert losses[:4] == losses[4:]
    for name in tables[0].columns:
        assert same(tables[0].read(column=name), tables[1].read(column=name)), name
    tables[0].close()


def test_bags_of_the_largest_see_computed_rows(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        bags = [mm.nn.EmbeddingBag.from_table(t, mode="max", padding_idx=4) for t in
                (table, Table.create(None, 1000, 5, seed=4))]  # fmt: skip
        table.write([4], table[[4]])
        out = [bag([[1, 4, 700], [4, 4, 4]]).detach().numpy() for bag in bags]
        assert same(*out)


def test_a_column_added_later_starts_everywhere_even_where_rows_were_written(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        table.write([3], 1)
        table.commit()
        table.add_column("context", 2, init="uniform(-1, 1)")
        other = Table.create(None, 1000, 5, seed=4)
        other.add_column("context", 2, init="uniform(-1, 1)")

        table.write([3], 2, column="context")
        other.write([3], 2, column="context")

        assert same(table.read(column="context"), other.column("context"))


# -- growing, going back ---------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [100, 128, 200])
@pytest.mark.parametrize("more", [129, 256, 1000])
def test_rows_that_come_are_computed_also_in_a_block_that_is_written(tmp_path, rows, more):
    more += rows
    expected = Table.create(None, more, 5, seed=4)[:]
    with lazy_table(tmp_path / "t", rows) as table:
        table.add_column("sum", scalar=True, init="ones")
        table.write([rows - 1], 5)
        table.resize(more)
        expected[rows - 1] = 5
        assert same(table[:], expected)
        table.write([more - 1], 6)
        expected[more - 1] = 6
        table.commit()
    with Table.open(tmp_path / "t") as table:
        assert same(table[:], expected)
        assert (table.read(column="sum") == 1).all()


def test_a_column_that_was_taken_back_may_come_again_without_bits(tmp_path):
    with Table.create(tmp_path / "t", 100, 4, lazy=True) as table:
        table.commit()
        table.add_column("late", init="normal")
        table.rollback()
        table.add_column("late", init="zeros")
        table.commit()

        assert not (tmp_path / "t" / "late.bits").exists()
    assert not Table.open(tmp_path / "t").gather([3], column="late").any()


def test_a_forked_child_sees_what_its_parent_writes_later(tmp_path):
    asked, answer = os.pipe(), os.pipe()
    with Table.create(tmp_path / "t", 1000, 8, lazy=True, init="normal") as table:
        table.resize(2000)
        table.write([900], 1)
        if (child := os.fork()) == 0:
            os.read(asked[0], 1)
            right = (table[[1500]] == 7).all() and (table[[900]] == 1).all()
            os.write(answer[1], b"y" if right else b"n")
            os._exit(0)
        table.write([1500], 7)
        os.write(asked[1], b".")

        assert os.read(answer[0], 1) == b"y"
        os.waitpid(child, 0)


def test_rows_go_back_to_their_initial_values_and_to_those_of_the_commit(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        table.add_column("state")
        table.write([3], 1)
        table.write([3], 1, column="state")
        table.commit()
        expected = table[:]
        table.write([2, 3, 500], 9)
        table.write([2, 3, 500], 9, column="state")
        table.add_column("context", init="ones")
        table.rollback()
        assert same(table[:], expected)
        assert table.column("state")[[2, 3, 500]].tolist() == [[0] * 5, [1] * 5, [0] * 5]
        assert not (tmp_path / "t" / "context.bits").exists()
        table.write([600], 9)
        table.close(commit=False)
    with Table.open(tmp_path / "t", "r+") as table:
        assert same(table[:], expected)


def test_a_reader_sees_blocks_when_they_are_committed(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        initial = table[[3, 4]]
        with Table.open(tmp_path / "t") as reader:
            table.write([3], 9)
            assert same(reader[[3, 4]], initial)
            table.commit()
            assert reader[[3]].tolist() == [[9] * 5]
            assert same(reader[[4]], initial[1:])
            table.materialize()
            assert reader.column()[3].tolist() == [9] * 5


@pytest.mark.parametrize("view", ["live", "committed"])
def test_a_committed_view_shows_the_initial_values_until_the_commit(tmp_path, view):
    with lazy_table(tmp_path / "t") as table:
        initial = table[[3, 4]]
        table.write([900], 1)
        table.commit()
        with Table.open(tmp_path / "t", view=view) as reader:
            table.write([3], 9)
            table.materialize()  # from here on the bits are on
            assert same(reader[[4]], initial[1:])
            if view == "committed":
                assert same(reader[[3]], initial[:1])
            table.commit()
            assert reader[[3, 900]].tolist() == [[9] * 5, [1] * 5]


def test_materialize_tells_how_far_it_is_and_can_be_cut_short(tmp_path, monkeypatch):
    from mmembed.storage import unwritten

    monkeypatch.setattr(unwritten, "_LOOK", 1)
    with lazy_table(tmp_path / "t", 10_000) as table:
        table.write([5000], 1)
        expected = table[:]

        def stop(done, total):
            if done > total // 2:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            table.materialize(stop)
        assert same(table[:], expected)
        table.commit()
    with Table.open(tmp_path / "t", "r+") as table:
        assert same(table[:], expected)
        told = []
        table.materialize(lambda done, total: told.append((done, total)))
        assert told[-1] == (200_000, 200_000)
        assert told == sorted(told)
        assert same(table.column(), expected)
        assert same(np.load(tmp_path / "t" / "weight.npy"), expected)


# -- full disks ------------------------------------------------------------------------------------


def test_without_room_nothing_changes(tmp_path, monkeypatch):
    with lazy_table(tmp_path / "t") as table:
        table.add_column("state")
        table.write([5], 3)
        table.commit()
        before = table[:]

        def full(file, starts, sizes):
            if starts and file.path.endswith("state.npy"):
                raise OSError(errno.ENOSPC, "no space", file.path)

        with monkeypatch.context() as patch:
            patch.setattr(File, "allocate", full)
            for change in (lambda: table.write([5, 900], 8), lambda: table.write([700], 8)):
                with pytest.raises(OSError, match="no space"):
                    change()
        assert same(table[:], before)
        assert table._store._files.journal.records == 0
        table.write([900], 8)
        table.commit()
        assert table[[900]].tolist() == [[8] * 5]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="no unshare")
def test_a_disk_that_fills_up_is_an_error_and_no_signal(tmp_path):
    script = tmp_path / "full.py"
    script.write_text(
        """
import numpy as np, sys
from mmembed.storage import Table
table = Table.create(sys.argv[1] + "/t", 10**6, 64, lazy=True)
table.add_column("state")
table.commit()
touched = []
try:
    for first in range(0, 10**6, 997):
        ids = np.arange(first, first + 32 * 3, 32)
        ids = ids[ids < 10**6]
        table.write(ids, first)
        table.write(ids, first, column="state")
        touched.extend(ids)
except OSError as error:
    assert error.errno == 28, error
    table.rollback()
    for again in range(2):
        assert not table.gather(touched, column="state").any()
        assert (table[[0]] == Table.create(None, 1, 64)[:]).all()
        table.close()
        table = Table.open(sys.argv[1] + "/t", "r+")
    print("full after", len(touched))
"""
    )
    folder = tmp_path / "full"
    folder.mkdir()
    mount = f"mount -t tmpfs -o size=6m none {folder} && "
    run = subprocess.run(
        ["unshare", "-rm", "sh", "-c", f"{mount} exec {os.sys.executable} {script} {folder}"],
        capture_output=True,
        text=True,
    )
    if "unshare" in run.stderr or "mount:" in run.stderr:
        pytest.skip(f"no private file system: {run.stderr.strip()}")
    assert run.returncode == 0, (run.returncode, run.stderr)
    assert "full after" in run.stdout


# -- the file of bits ------------------------------------------------------------------------------


@pytest.fixture
def closed(tmp_path):
    with lazy_table(tmp_path / "t") as table:
        table.write([130], 1)
    return tmp_path / "t"


def test_the_bits_are_as_the_format_says(closed):
    data = (closed / "weight.bits").read_bytes()
    magic, _, name, rows, _ = HEADER.unpack_from(data)

    assert (magic, name.rstrip(b"\0"), rows) == (b"MMEMBITS", b"weight", 128)
    assert data[BITS_AT:] == bytes([0b10])


@pytest.mark.parametrize("damage", ["header", "cut", "longer", "stray bit", "gone", "other column"])
@pytest.mark.parametrize("mode", ["r", "r+"])
def test_damaged_bits_are_refused_and_nothing_changes(closed, damage, mode):
    path = closed / "weight.bits"
    data = bytearray(path.read_bytes())
    if damage == "header":
        data[9] ^= 1
    elif damage == "cut":
        del data[-1]
    elif damage == "longer":
        data += b"\0"
    elif damage == "stray bit":
        with Table.create(closed.parent / "u", 300, 5, lazy=True):
            pass
        path = closed.parent / "u" / "weight.bits"
        data = bytearray(path.read_bytes())
        data[-1] |= 0x80
        closed = closed.parent / "u"
    elif damage == "other column":
        data[24:30] = b"height"
    path.write_bytes(data)
    if damage == "gone":
        path.unlink()
    before = contents(closed)

    with pytest.raises(CorruptTableError, match=r"weight\.bits"):
        Table.open(closed, mode)
    assert contents(closed) == before


def test_super_says_that_a_reader_must_know_lazy_columns(closed):
    data = (closed / "super").read_bytes()
    assert any(data[at + 12] == 1 for at in (0, 16384))
    assert b'"lazy":true' in data


def test_a_block_is_as_large_as_the_format_says():
    initial = mm.storage.Initial.parse("normal")
    for dim, rows in ((64, 16), (1, 1024), (5, 128), (1024, 1), (1025, 1), (5000, 1), (300, 2)):
        made = column.Column("weight", "float32", dim, initial, 0, lazy=True)
        assert 1 << made.block_shift == rows
