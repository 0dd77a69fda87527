"""Tables of 8 bits: made, looked up and refused; against the float table and torch's."""

from __future__ import annotations

import os
import pickle

import numpy as np
import pytest

import mmembed as mm
from mmembed import functional as F
from mmembed import nn
from mmembed.errors import ReadOnlyTableError, TableExistsError
from mmembed.storage import Table, quantization_error

ROWS, DIM = 50, 19


@pytest.fixture(params=["memory", "disk"])
def place(request, tmp_path):
    """Where a table of 8 bits is made."""
    return None if request.param == "memory" else tmp_path / "small.mmembed"


def trained(dtype="float32", seed=0):
    return Table.create(None, ROWS, DIM, dtype, seed=seed)


def dequantized(table):
    """The numbers of a table of 8 bits, worked out from its bytes."""
    raw = np.array(table.column())
    scale, bias = raw[:, DIM:].copy().view(np.float32).T
    return raw[:, :DIM].astype(np.float32) * scale[:, None] + bias[:, None]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
def test_no_number_is_off_by_more_than_half_a_scale(place, dtype):
    table = trained(dtype)

    small = table.quantize(place)

    assert (small.shape, small.dtype, small.quantized, small.mode) == (
        (ROWS, DIM), np.float32, True, "r",
    )  # fmt: skip
    assert small.nbytes == ROWS * (DIM + 8)
    rows = table.column().astype(np.float32)
    scale = (rows.max(axis=1) - rows.min(axis=1)) / 255
    apart = np.abs(small[:] - rows)
    assert (apart <= 0.5001 * scale[:, None] + 1e-6).all()
    assert quantization_error(small, table)[0] == pytest.approx(apart.max(), rel=1e-3)
    np.testing.assert_array_equal(small[:], dequantized(small))
    small.close()


def test_gather_gives_float32_and_reports_bad_ids(place):
    small = trained().quantize(place)
    out = np.empty((2, 2, DIM), np.float32)

    assert small.gather([[1, 2], [2, 1]], out) is out

    np.testing.assert_array_equal(out, dequantized(small)[[[1, 2], [2, 1]]])
    np.testing.assert_array_equal(small[3], dequantized(small)[3])
    np.testing.assert_array_equal(small[10:4:-2], dequantized(small)[10:4:-2])
    np.testing.assert_array_equal(np.asarray(small), dequantized(small))
    with pytest.raises(IndexError, match="id 50 at 1 is outside the table"):
        small.gather([1, 50])
    with pytest.raises(ValueError, match=r"out must be an array \(1, 19\) float32"):
        small.gather([1], np.empty((1, DIM), np.uint8))
    small.close()


def test_lookups_are_those_of_the_float_rows(backend, place):
    small = trained().quantize(place)
    weight = mm.from_numpy(dequantized(small))
    ids = np.random.default_rng(0).integers(0, ROWS, (6, 5))

    same(F.quantized_embedding(ids, small), F.embedding(ids, weight))
    for mode in ("sum", "mean", "max"):
        for padding in (None, int(ids[0, 0])):
            got = F.quantized_embedding_bag(ids, small, mode=mode, padding_idx=padding)
            same(got, F.embedding_bag(ids, weight, mode=mode, padding_idx=padding))
    flat, offsets, factors = ids.reshape(-1), [0, 3, 3, 30], np.linspace(-1, 1, 30)
    kept = {"include_last_offset": True, "mode": "sum"}
    kept["per_sample_weights"] = factors.astype(np.float32)
    got = F.quantized_embedding_bag(flat, small, offsets, **kept)
    same(got, F.embedding_bag(flat, weight, offsets, **kept))
    small.close()


def same(got, want):
    assert not got.requires_grad
    np.testing.assert_array_equal(got.numpy(), want.numpy())


def test_bytes_and_lookups_are_torchs():
    torch = pytest.importorskip("torch")
    table = trained()
    small = table.quantize()
    ids = np.random.default_rng(1).integers(0, ROWS, 40)
    offsets = np.arange(0, 40, 8)

    packed = torch.ops.quantized.embedding_bag_byte_prepack(torch.from_numpy(table[:]))
    want = torch.ops.quantized.embedding_bag_byte_rowwise_offsets(
        packed, torch.from_numpy(ids), torch.from_numpy(offsets), False, 0, False, None, None, False
    )

    np.testing.assert_array_equal(small.column(), packed.numpy())
    got = F.quantized_embedding_bag(ids, small, offsets)
    np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=1e-5, atol=1e-5)


def test_modules_serve_what_was_trained(tmp_path):
    mm.manual_seed(0)
    embedding = nn.Embedding(ROWS, DIM, sparse=True)
    bag = nn.EmbeddingBag(ROWS, DIM, mode="mean", padding_idx=3, include_last_offset=True)

    served = nn.QuantizedEmbedding.from_float(embedding, tmp_path / "e")
    served_bag = nn.QuantizedEmbeddingBag.from_float(bag)

    assert served([[1, 2]]).shape == (1, 2, DIM)
    np.testing.assert_allclose(served([7]).numpy(), embedding([7]).detach().numpy(), atol=0.02)
    got, want = (module([1, 3, 4, 5], [0, 2, 4]) for module in (served_bag, bag))
    np.testing.assert_allclose(got.numpy(), want.detach().numpy(), atol=0.02)
    assert repr(served) == f"QuantizedEmbedding({ROWS}, {DIM}, bytes_per_row={DIM + 8})"
    assert "mode='mean'" in repr(served_bag)
    assert list(served.parameters()) == []
    served.table.close()
    again = nn.QuantizedEmbedding(tmp_path / "e")
    assert again([7]).shape == (1, DIM)
    again.table.close()


def test_decay_that_was_put_off_is_served():
    embedding = nn.Embedding(ROWS, DIM, sparse=True, init="ones")
    optimizer = mm.optim.SparseAdamW([embedding.weight], lr=0.1, weight_decay=5.0)
    embedding([0]).sum().backward()
    optimizer.step()

    served = nn.QuantizedEmbedding.from_float(embedding)

    np.testing.assert_allclose(served([9]).numpy(), 0.5, rtol=1e-6)


def test_training_is_refused_with_the_way_to_do_it(place):
    small = trained().quantize(place)

    with pytest.raises(TypeError, match="8 bits, which are only read: look them up"):
        nn.Embedding.from_table(small)
    for attempt in (
        lambda: small.write([0], 1.0),
        lambda: small.add_column("sum"),
        lambda: small.resize(ROWS + 1),
        lambda: small.commit(),
        lambda: small.writing().__enter__(),
    ):
        with pytest.raises(ReadOnlyTableError):
            attempt()
    with pytest.raises(ValueError, match="is in 8 bits already"):
        small.quantize()
    with pytest.raises(TypeError, match=r"no table of rows of 8 bits; Table\.quantize makes one"):
        F.quantized_embedding([0], trained())
    with pytest.raises(TypeError, match="is not of 8 bits"):
        nn.QuantizedEmbedding(trained())
    if place is None:
        with pytest.raises(ReadOnlyTableError, match="train the table that it was made of"):
            small.cast("float64")
        assert pickle.loads(pickle.dumps(small)).mode == "r"
    else:
        small.close()
        before = (place / "super").read_bytes()
        with pytest.raises(ReadOnlyTableError, match=r"small.mmembed holds rows of 8 bits"):
            Table.open(place, "r+")
        assert (place / "super").read_bytes() == before


def test_rows_without_a_scale_are_refused_and_leave_nothing_behind(tmp_path):
    table = trained()
    for number in (np.nan, np.inf):
        table.write([7], number)
        with pytest.raises(ValueError, match="row 7 holds a number that is not finite"):
            table.quantize(tmp_path / "small")
    table.write([7], 0)
    table.write([9], np.linspace(-3e38, 3e38, DIM))
    with pytest.raises(ValueError, match=r"row 9 holds .*further apart than float32"):
        table.quantize(tmp_path / "small")
    assert os.listdir(tmp_path) == []
    (tmp_path / "small").mkdir()
    with pytest.raises(TableExistsError):
        trained().quantize(tmp_path / "small")


def test_an_interrupted_quantization_leaves_nothing_behind(tmp_path, monkeypatch):
    def interrupt(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("mmembed.storage.quantized.packed.pack_rows", interrupt)

    with pytest.raises(KeyboardInterrupt):
        trained().quantize(tmp_path / "small")
    assert os.listdir(tmp_path) == []


def test_the_file_is_an_ordinary_npy_of_bytes(tmp_path):
    small = trained().quantize(tmp_path / "small")

    raw = np.load(tmp_path / "small" / "weight.npy", mmap_mode="r")

    assert (raw.shape, raw.dtype) == ((ROWS, DIM + 8), np.uint8)
    np.testing.assert_array_equal(raw, small.column())
    small.close()


@pytest.mark.parametrize("shape", [(0, 4), (3, 0), (2, 1)])
def test_tables_without_rows_or_columns_are_quantized_too(shape, tmp_path):
    small = Table.create(None, *shape, init="ones").quantize(tmp_path / "small")

    assert small[:].shape == shape
    assert (small[:] == 1).all()
    small.close()
