"""Columns side by side in one file: what is in it, who finds it, and what is refused."""

from __future__ import annotations

import copy
import os
import pickle

import numpy as np
import pytest

import mmembed as mm
from mmembed.errors import CorruptTableError
from mmembed.storage import Table, format
from mmembed.storage.column import Column
from mmembed.storage.initial import Initial
from mmembed.storage.records import Records, least_stride, stride_within_pages
from mmembed.storage.verification import verify

from .examples import change_copies, change_json, contents
from .faults import Faults

SUM = "weight.adagrad.sum"
BESIDE = {SUM: {"init": "ones"}}


def column(name="weight", dtype="float32", dim=3):
    return Column(name, dtype, dim, Initial("constant", 0.0), 0)


@pytest.fixture
def table(path):
    """A writable table of 5 rows of 3 with a sum beside each row."""
    with Table.create(path, 5, 3, layout="records", columns=BESIDE, seed=1) as table:
        yield table


@pytest.fixture
def closed(path):
    """The path of a closed table like it, with a third column in a file of its own."""
    with Table.create(path, 5, 3, layout="records", columns=BESIDE, seed=1) as table:
        table.add_column("context")
        table.commit()
    return path


# -- one file, as NumPy reads it -------------------------------------------------------------------


def test_numpy_reads_the_records(table, path):
    table.write([2], [[1, 2, 3]])
    table.write([2], [[4, 5, 6]], column=SUM)

    found = np.load(path / "records.npy", mmap_mode="r")

    assert found.shape == (5,)
    assert found.dtype.names == ("weight", SUM)
    assert found[2].item()[0].tolist() == [1, 2, 3]
    assert found[SUM].tolist() == [[1] * 3, [1] * 3, [4, 5, 6], [1] * 3, [1] * 3]
    assert not (path / "weight.npy").exists()


def test_rows_start_as_they_do_in_files_of_their_own(table, tmp_path):
    with Table.create(tmp_path / "other", 5, 3, columns=BESIDE, seed=1) as other:
        for name in ("weight", SUM):
            np.testing.assert_array_equal(table.column(name), other.column(name))
        assert other.columns == table.columns
        assert (other.layout, other.record_columns, other.record_bytes) == ("columns", (), None)
    assert (table.layout, table.record_columns) == ("records", ("weight", SUM))
    assert table.record_bytes == 24


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_numbers_are_aligned_and_what_lies_between_them_is_zero(path, dtype):
    columns = {"count": {"scalar": True, "dtype": "float64"}, "weight.sum": {"scalar": True}}
    with Table.create(
        *(path, 100_000, 3, dtype), init="ones", layout="records", columns=columns, stride=64
    ) as table:
        for name in table.columns:
            assert table.column(name).flags.aligned
            assert table.column(name).base is not None
        assert table.column("weight.sum").dtype.itemsize >= 4

    raw = np.fromfile(path / "records.npy", np.uint8)[4096:].reshape(100_000, 64)
    between = np.ones(64, bool)
    for filed in ("weight", "count", "weight.sum"):
        width, offset = np.load(path / "records.npy", mmap_mode="r").dtype.fields[filed][:2]
        between[offset : offset + width.itemsize] = False
    assert between.any()
    assert not raw[:, between].any()


def test_fill_is_given_contiguous_rows_of_weight(path):
    def fill(first, values):
        assert values.flags.c_contiguous
        values[:] = np.arange(first, first + len(values))[:, None]

    with Table.create(path, 9, 3, layout="records", columns=BESIDE, fill=fill) as table:
        assert table[:][:, 0].tolist() == list(range(9))
        assert (table.column(SUM) == 1).all()


@pytest.mark.parametrize(("rows", "dim"), [(0, 3), (4, 0), (0, 0), (1, 1)])
def test_records_of_no_rows_or_no_width(path, rows, dim):
    with Table.create(path, rows, dim, layout="records", columns=BESIDE) as table:
        assert table.column(SUM).shape == (rows, dim)
        table.resize(rows + 2)
        assert table.column(SUM).tolist() == [[1.0] * dim] * (rows + 2)
    with Table.open(path) as table:
        assert table[:].shape == (rows + 2, dim)
    assert np.load(path / "records.npy").shape == (rows + 2,)


def test_a_column_added_later_has_a_file_of_its_own(closed):
    with Table.open(closed, "r+") as table:
        assert table.columns == ("weight", SUM, "context")
        assert table.record_columns == ("weight", SUM)
        table.add_column("more")
        table.rollback()
        assert table.columns == ("weight", SUM, "context")
    assert sorted(os.listdir(closed)) == ["LOCK", "context.npy", "records.npy", "super", "undo"]


def test_a_growth_adds_initial_records(path):
    with Table.create(path, 5, 3, layout="records", columns=BESIDE, seed=1) as table:
        before = table.column(SUM)
        table.write([4], 7, column=SUM)
        table.resize(70)

        assert before.shape == (5, 3)
        assert table.column(SUM)[4:6].tolist() == [[7] * 3, [1] * 3]
        expected = np.empty((70, 3), np.float32)
        table._store.superblock.columns[0].init.fill(expected, 0, 1)
        np.testing.assert_array_equal(table[:], expected)


def test_copies_and_pickles_have_all_columns(closed):
    with Table.open(closed) as table:
        copied = copy.deepcopy(table)
        other = pickle.loads(pickle.dumps(table))
        assert copied.layout == "columns"  # in memory
        assert other.layout == "records"
        for name in table.columns:
            np.testing.assert_array_equal(copied.column(name), table.column(name))
            np.testing.assert_array_equal(other.column(name), table.column(name))
        assert copied.column().flags.c_contiguous
        eight = table.quantize()
        np.testing.assert_allclose(eight[:], table[:], atol=0.02)
        other.close()


def test_views_stay_read_only(table):
    for name in table.columns:
        view = table.column(name)
        with pytest.raises(ValueError, match="WRITEABLE"):
            view.flags.writeable = True


# -- strides ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dims", "least", "within"),
    [((3,), 12, 16), ((300,), 1200, 2048), ((64, 64), 512, 512), ((65, 65), 520, 1024),
     ((1024,), 4096, 4096), ((1025,), 4100, 8192), ((2049,), 8196, 12288), ((0,), 4, 4)],
)  # fmt: skip
def test_strides(dims, least, within):
    columns = tuple(column(f"c{i}", dim=dim) for i, dim in enumerate(dims))

    assert least_stride(columns) == least
    assert stride_within_pages(columns, 4096) == within
    firsts = np.arange(10_000) * within
    touched = (firsts + least - 1) // 4096 - firsts // 4096 + 1
    assert touched.max() == -(-least // 4096)


def test_records_can_be_kept_within_pages(path):
    with Table.create(path, 100, 300, layout="records", stride="page", init="ones") as table:
        assert table.record_bytes == 2048
        assert (table[:] == 1).all()
    assert os.path.getsize(path / "records.npy") == 4096 + 100 * 2048


@pytest.mark.parametrize(
    ("options", "words"),
    [({"layout": "rows"}, "layout must be"), ({"stride": 64}, "is for records"),
     ({"layout": "records", "stride": 11}, r"stride must be in 12\.\."),
     ({"layout": "records", "stride": 14}, "multiple of 4"),
     ({"layout": "records", "stride": "line"}, "number of bytes or 'page'"),
     ({"layout": "records", "stride": 2**31}, "stride must be in"),
     ({"layout": "records", "columns": {"records": {}}}, "can be called 'records'"),
     ({"layout": "records", "columns": {f"c{i}" * 16: {} for i in range(80)}}, "no room"),
     ({"columns": {"weight": {}}}, "distinct"), ({"columns": {"A": {}}}, "cannot be a name"),
     ({"columns": {"a": {"width": 3}}}, r"columns\['a'\]")],
)  # fmt: skip
def test_what_cannot_be_laid_out_is_refused(path, options, words):
    with pytest.raises((ValueError, TypeError), match=words):
        Table.create(path, 5, 3, **options)

    assert os.listdir(path.parent) == []


def test_a_column_cannot_take_the_name_of_the_file(table):
    with pytest.raises(ValueError, match="can be called 'records'"):
        table.add_column("records")

    assert table.columns == ("weight", SUM)


# -- training --------------------------------------------------------------------------------------

RULES = ["SGD", "Adagrad", "RowwiseAdagrad", "RowwiseAdam", "SparseAdam", "SparseAdamW"]


def trained(place, rule, dtype, **arranged):
    """What some steps, a commit and a rollback leave of each column."""
    made = getattr(mm.optim, rule)
    with Table.create(place, 300, 7, dtype, columns=made.columns_for(), **arranged) as table:
        before = table.columns
        emb = mm.Embedding.from_table(table, freeze=False, sparse=True)
        optimizer = made(emb.parameters(), lr=0.1)
        rng = np.random.default_rng(0)
        for step in range(4):
            optimizer.zero_grad()
            out = emb(rng.integers(0, 300, 50))
            (out * out).sum().backward()
            optimizer.step()
            if step == 2:
                table.commit()
        if table.on_disk:
            table.rollback()
        assert table.columns == before  # the optimizer found its state
        return {name: np.array(table.column(name)) for name in before}


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("rule", RULES)
def test_training_gives_the_same_bits_in_every_layout(tmp_path, rule, dtype):
    apart = trained(tmp_path / "apart", rule, dtype)
    close = trained(tmp_path / "close", rule, dtype, layout="records")
    padded = trained(tmp_path / "padded", rule, dtype, layout="records", stride="page")

    for name, rows in apart.items():
        np.testing.assert_array_equal(close[name], rows)
        np.testing.assert_array_equal(padded[name], rows)


def test_pages_of_records_are_asked_for_once(table, monkeypatch):
    asked = []
    pages = table.column_pages("weight")
    monkeypatch.setattr(pages, "expect", lambda ids: asked.append("now") or True)
    monkeypatch.setattr(pages, "queue", lambda ids: asked.append("later"))
    parameter = mm.Embedding.from_table(table, freeze=False).weight

    assert table.column_pages(SUM) is pages
    parameter.expect(np.array([1]))
    assert asked == ["now"]
    table.prefetch([1, 2])
    assert asked == ["now", "later"]
    with table.writing(np.array([1])) as columns:
        assert asked == ["now", "later", "now"]  # for the journal
        columns["weight"][1] = columns[SUM][1]
    assert asked[3:] == ["now"]
    list(mm.lookahead([np.array([1])], parameter))
    assert asked.count("later") == 2


def test_a_commit_syncs_the_file_of_records_once(path, monkeypatch):
    with (
        Faults().installed(monkeypatch) as faults,
        Table.create(path, 5, 3, layout="records", columns=BESIDE) as table,
    ):
        with table.writing(np.array([1])) as columns:
            columns["weight"][1] = columns[SUM][1]
        faults.log.clear()
        table.commit()

        assert faults.log.count("msync records.npy") == 1


# -- damaged files ---------------------------------------------------------------------------------


def test_a_table_of_records_has_the_feature(path):
    Table.create(path, 5, 3, layout="records").close()

    assert int.from_bytes((path / "super").read_bytes()[12:16], "little") == format.RECORDS == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [(b'"columns":2,"stride":24', said) for said in (
        b'"columns":0,"stride":24', b'"columns":4,"stride":24', b'"columns":-1,"stride":24',
        b'"columns":true,"stride":24', b'"columns":2.0,"stride":24', b'"columns":2',
        b'"columns":2,"stride":23', b'"columns":2,"stride":26', b'"columns":2,"stride":12',
        b'"columns":2,"stride":0', b'"columns":2,"stride":-24', b'"columns":2,"stride":"24"',
        b'"columns":2,"stride":4611686018427387904', b'"columns":2,"stride":2147483644',
        b'"columns":2,"stride":28', b'"columns":1,"stride":24', b'"stride":24,"columns":2',
        b'"columns":2,"stride":24,"more":1', b'"columns":3,"stride":36',
    )]
    + [(b',"records":{"columns":2,"stride":24}', b""),
       (b'"records":{"columns":2,"stride":24}', b'"records":null'),
       (b'"records":{"columns":2,"stride":24}', b'"records":[2,24]'),
       (b'"name":"weight.adagrad.sum"', b'"name":"records"'),
       (b'"dim":3', b'"dim":4611686018427387904'),
       (b'"float32","dim":3,"init":"normal"', b'"rowwise8","dim":3,"init":"zeros"')],
)  # fmt: skip
def test_damaged_fields_are_refused(closed, old, new):
    change_json(closed, old, new)
    before = contents(closed)

    for mode in ("r", "r+"):
        with pytest.raises(CorruptTableError):
            Table.open(closed, mode)
    before.pop("LOCK")
    after = contents(closed)
    after.pop("LOCK")
    assert after == before


@pytest.mark.parametrize("features", [0, 1, 3, format.RECORDS | 1 << 31])
def test_other_features_are_refused(closed, features):
    change_copies(closed, lambda body: body[:12] + features.to_bytes(4, "little") + body[16:])

    with pytest.raises(CorruptTableError):
        Table.open(closed)


@pytest.mark.parametrize("how", ["short", "long", "other fields", "gone", "weight of its own"])
def test_a_damaged_file_of_records_is_refused(closed, how):
    file = closed / "records.npy"
    data = file.read_bytes()
    if how == "gone":
        file.unlink()
    elif how == "weight of its own":
        file.rename(closed / "weight.npy")
    else:
        changed = {
            "short": data[:-1],
            "long": data + b"\0",
            "other fields": data.replace(b"'<f4'", b"'<i4'", 1),
        }
        file.write_bytes(changed[how])

    with pytest.raises(CorruptTableError, match=r"records\.npy"):
        Table.open(closed)


def test_records_refuse_rows_of_8_bits():
    with pytest.raises(ValueError, match="8 bits"):
        Records((Column("weight", "rowwise8", 3, Initial("constant", 0.0), 0),), 64)


def test_verification_and_seals_know_records(closed):
    with Table.open(closed, "r+") as table:
        table.write([1], np.nan, column=SUM)
        table.write([2], np.inf)
    found = verify(closed, deep=True)
    texts = [one.text for one in found if one.part == "records.npy"]

    assert "24 bytes each: weight, weight.adagrad.sum" in texts[0]
    assert "3 NaN, 3 infinite" in texts[1]
    assert all(one.state != "bad" for one in found)
    Table.open(closed, "r+").seal()
    with open(closed / "records.npy", "r+b") as file:
        file.seek(4096)
        file.write(b"x")
    assert [one.part for one in verify(closed, deep=True) if one.state == "bad"] == ["records.npy"]
    (closed / "super").unlink()
    assert any(one.state == "bad" for one in verify(closed))


def test_a_file_of_records_that_was_replaced_ends_the_commit(table, path):
    table.write([1], 1)
    (path / "records.npy").rename(path / "away")
    (path / "records.npy").write_bytes((path / "away").read_bytes())

    with pytest.raises(CorruptTableError, match=r"records\.npy was removed or replaced"):
        table.commit()
    (path / "away").replace(path / "records.npy")


def test_a_snapshot_has_the_records(table, path):
    table.write([1], 5, column=SUM)
    table.commit()
    table.write([1], 6, column=SUM)
    table.snapshot(path.with_name("copy"))

    with Table.open(path.with_name("copy")) as copied:
        assert copied.layout == "records"
        assert copied.column(SUM)[1].tolist() == [5, 5, 5]


def test_a_committed_view_shows_records_as_of_the_commit(table, path):
    table.write([1], 5, column=SUM)
    table.commit()
    table.write([1], 6, column=SUM)
    table.write([2], 6)

    with Table.open(path, view="committed") as reader:
        assert reader.gather([0, 1], column=SUM).tolist() == [[1] * 3, [5] * 3]
        assert (reader[2] != 6).all()
