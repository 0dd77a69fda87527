"""EmbeddingBag: what torch cannot be asked: bad input, tables on disk, gradients it gets wrong."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import mmembed as mm
from mmembed import functional as F
from mmembed import nn
from mmembed.autograd import Tensor, no_grad, tensor
from mmembed.errors import ReadOnlyTableError
from mmembed.rows import RowGrad
from mmembed.storage import Table

W = np.array([[1, 2], [3, 4], [5, 6], [7, 8], [9, 10]], np.float32)
IDS, OFFSETS = [3, 1, 1, 1, 4, 0], [0, 0, 3, 3, 6]


def weight():
    return Tensor(W.copy(), requires_grad=True)


@pytest.mark.parametrize(
    ("mode", "second", "fourth"),
    [("sum", [13, 16], [13, 16]), ("mean", [13 / 3, 16 / 3], [13 / 3, 16 / 3]),
     ("max", [7, 8], [9, 10])],
)  # fmt: skip
def test_empty_bags_are_zeros_and_the_others_are_reduced(mode, second, fourth):
    out = F.embedding_bag(IDS, weight(), OFFSETS, mode=mode)

    np.testing.assert_allclose(out.tolist(), [[0, 0], second, [0, 0], fourth, [0, 0]], rtol=1e-6)


def test_the_mode_is_the_mean_by_default():
    assert F.embedding_bag([[0, 1]], weight()).tolist() == [[2, 3]]
    assert nn.EmbeddingBag.from_pretrained(W)([[0, 1]]).tolist() == [[2, 3]]


def test_factors_and_rows_both_get_their_gradients():
    table, factors = weight(), tensor([1.0, 2, 3, 4, 5, 6], requires_grad=True)

    out = F.embedding_bag(IDS, table, [0, 3], mode="sum", per_sample_weights=factors)
    out.backward(tensor([[1.0, 10], [2, 20]]))

    assert out.tolist() == [[22, 28], [63, 78]]
    assert table.grad.tolist() == [[12, 120], [13, 130], [0, 0], [1, 10], [10, 100]]
    assert factors.grad.tolist() == [87, 43, 43, 86, 218, 42]


def test_frequency_scaling_counts_an_id_in_the_whole_batch():
    for sparse in (False, True):
        table = weight()

        F.embedding_bag(
            [1, 1, 3], table, [0, 1], mode="sum", scale_grad_by_freq=True, sparse=sparse
        ).sum().backward()

        dense = table.grad.to_dense() if sparse else table.grad
        assert dense.numpy()[:, 0].tolist() == [0, 1, 0, 1, 0]


def test_the_padding_row_counts_if_asked_and_gets_no_gradient_all_the_same():
    bags = nn.EmbeddingBag(5, 2, mode="mean", padding_idx=1, _weight=weight(), include_padding=True)

    out = bags([[1, 3]])
    out.sum().backward()

    assert out.tolist() == [[5, 6]]
    assert bags.weight.grad.tolist() == [[0, 0], [0, 0], [0, 0], [0.5, 0.5], [0, 0]]
    assert "include_padding=True" in repr(bags)


# -- bad input -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("offsets", "last", "message"),
    [
        ([0, 4, 2], False, r"offsets must not descend: offsets\[1\] is 4 and offsets\[2\] is 2"),
        ([0, -1], False, r"offsets must not descend: offsets\[0\] is 0 and offsets\[1\] is -1"),
        ([], False, "offsets are empty, so the 6 ids of the input are in no bag"),
        ([0], True, "offsets do not cover the input: the last is 0 and there are 6 ids"),
        ([0, 3, 5], True, "offsets do not cover the input: the last is 5 and there are 6 ids"),
    ],
)
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_offsets_that_torch_reads_beyond_are_refused(offsets, last, message, mode):
    with pytest.raises(ValueError, match=message):
        F.embedding_bag(IDS, weight(), offsets, mode=mode, include_last_offset=last)


@pytest.mark.parametrize(
    ("ids", "offsets", "shape"),
    [([], [], (0, 2)), ([], [0, 0], (2, 2)), (np.empty((0, 3), int), None, (0, 2)),
     (np.empty((2, 0), int), None, (2, 2))],
)  # fmt: skip
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_batches_without_ids_give_zeros(ids, offsets, shape, mode):
    table = weight()

    out = F.embedding_bag(ids, table, offsets, mode=mode)
    out.sum().backward()

    assert out.shape == shape
    assert not out.detach().numpy().any()
    assert not table.grad.numpy().any()


@pytest.mark.parametrize("bad", [-1, 5, 2**62])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_a_bad_id_is_named_and_nothing_is_renormed(bad, mode, max_norm):
    table = weight()

    with pytest.raises(IndexError) as error:
        F.embedding_bag([[0, 1], [bad, 2]], table, mode=mode, max_norm=max_norm)

    assert str(error.value) == (
        f"index out of range in self: id {bad} at (1, 0) is outside the table, "
        "which has 5 rows (valid: 0..4)"
    )
    np.testing.assert_array_equal(table.array, W)
    assert table._version == 0


def test_a_call_that_is_refused_renorms_nothing():
    table = weight()

    with pytest.raises(NotImplementedError, match="per_sample_weights is only supported for"):
        F.embedding_bag([[0]], table, max_norm=0.1, per_sample_weights=[[1.0]])

    np.testing.assert_array_equal(table.array, W)


@pytest.mark.parametrize("ids", [[[0.5]], np.array([[True]]), tensor([[1.0]])])
def test_ids_that_are_no_integers_are_refused(ids):
    with pytest.raises(TypeError, match=r"Long, Int.*arguments for embedding_bag"):
        F.embedding_bag(ids, weight())


def test_offsets_that_are_no_integers_are_refused():
    with pytest.raises(TypeError, match="Long, Int"):
        F.embedding_bag(IDS, weight(), [0.0, 3.0])


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.uint64])
def test_ids_and_offsets_of_other_widths_are_taken(dtype):
    out = F.embedding_bag(np.array(IDS, dtype), weight(), np.array([0, 3], dtype), mode="sum")

    assert out.tolist() == [[13, 16], [13, 16]]


@pytest.mark.parametrize("index", [5, -6])
def test_a_padding_row_outside_the_table_is_refused_by_the_module(index):
    with pytest.raises(AssertionError, match=r"^padding_idx must be within num_embeddings"):
        nn.EmbeddingBag(5, 2, padding_idx=index)


def test_tables_of_integers_are_refused():
    with pytest.raises(RuntimeError, match="argument #1 'weight' to have one of the following"):
        F.embedding_bag([[0]], Tensor(W.astype(np.int64)))


@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_tables_of_float16_are_reduced_in_float32(mode):
    table = Tensor(np.array([[2048.0], [1.0], [1.0]], np.float16))
    factors = tensor(np.ones((1, 3), np.float16), requires_grad=True) if mode == "sum" else None

    out = F.embedding_bag([[0, 1, 2]], table, mode=mode, per_sample_weights=factors)

    assert out.dtype == np.float16
    assert out.item() == {"sum": 2050, "mean": 683.5, "max": 2048}[mode]
    if factors is not None:
        out.sum().backward()
        assert factors.grad.tolist() == [[2048, 1, 1]]


def test_factors_of_another_dtype_are_refused():
    factors = tensor(np.ones((1, 1)))

    with pytest.raises(RuntimeError, match=r"torch.FloatTensor does not equal torch.DoubleTensor"):
        F.embedding_bag([[0]], weight(), mode="sum", per_sample_weights=factors)


# -- memory ----------------------------------------------------------------------------------------


class Layouts:
    """Tables that are not one block of memory, as a tensor may be."""

    values = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    strided = np.repeat(values, 2, axis=0)[::2]
    reversed = values[::-1].copy()[::-1]
    fortran = np.asfortranarray(values)
    columns = np.repeat(values, 3, axis=1)[:, ::3]
    expanded = np.broadcast_to(values[:1], (6, 4))


@pytest.mark.parametrize("layout", ["strided", "reversed", "fortran", "columns", "expanded"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_tables_of_any_layout_give_what_contiguous_ones_give(layout, mode):
    given = getattr(Layouts, layout)
    table, twin = Tensor(given, requires_grad=True), Tensor(given.copy(), requires_grad=True)
    factors = np.arange(6.0).reshape(2, 3) if mode == "sum" else None

    outs = [
        F.embedding_bag(
            [[5, 0, 5], [2, 2, 3]], one, mode=mode, padding_idx=3, per_sample_weights=factors
        )
        for one in (table, twin)
    ]

    np.testing.assert_array_equal(*(out.detach().numpy() for out in outs))
    for out in outs:
        out.sum().backward()
    np.testing.assert_array_equal(table.grad.numpy(), twin.grad.numpy())


def test_changing_what_was_given_after_the_lookup_does_not_change_the_gradient():
    table, ids, offsets = weight(), np.array([1, 2]), np.array([0, 1])
    out = F.embedding_bag(ids, table, offsets, mode="sum")

    ids[:], offsets[:] = 4, 0
    out.backward(tensor([[1.0, 1], [2, 2]]))

    assert table.grad.numpy()[:, 0].tolist() == [0, 1, 2, 0, 0]


def test_changing_the_rows_that_the_gradient_of_factors_needs_is_refused_in_backward():
    table, factors = weight(), tensor([[1.0]], requires_grad=True)
    out = F.embedding_bag([[1]], table, mode="sum", per_sample_weights=factors)

    with no_grad():
        table[0] = 0

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


def test_sparse_gradients_share_no_memory_with_the_upstream_gradient():
    table, upstream = weight(), mm.ones((1, 2))

    F.embedding_bag([[0]], table, mode="sum", sparse=True).backward(upstream)
    upstream.mul_(5)

    assert table.grad._values().tolist() == [[1, 1]]


def test_gradients_of_bags_and_of_rows_of_one_table_add_up():
    table = weight()

    bags = F.embedding_bag([[0, 1]], table, mode="sum", sparse=True)
    rows = F.embedding([1], table, sparse=True)
    (bags.sum() + rows.sum()).backward()

    assert isinstance(table.grad, RowGrad)
    assert table.grad.to_dense().numpy()[:, 0].tolist() == [1, 2, 0, 0, 0]


# -- tables on disk --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path):
    return tmp_path / "words.mmembed"


def test_bags_over_a_table_on_disk_train_and_come_back(path):
    bags = nn.EmbeddingBag(5, 2, mode="sum", sparse=True, padding_idx=0, path=path, init="ones")
    optimizer = mm.optim.SGD(bags.parameters(), lr=1.0)

    bags([[0, 1, 1]]).sum().backward()
    optimizer.step()
    bags.table.commit(step=1)
    bags.table.close()

    again = nn.EmbeddingBag(5, 2, mode="sum", path=path)
    assert again.weight.detach().numpy()[:, 0].tolist() == [0, -1, 1, 1, 1]
    again.table.close()


def test_bags_over_a_table_that_is_open_share_its_rows(path):
    with Table.create(path, 5, 2, init="ones") as table:
        rows = nn.Embedding.from_table(table)
        bags = nn.EmbeddingBag.from_table(table, mode="sum", freeze=True)

        with no_grad():
            rows.weight[1] = 3

        assert bags.table is table
        assert not bags.weight.requires_grad
        assert bags([[0, 1]]).tolist() == [[4, 4]]


def test_renorm_of_a_table_opened_for_reading_is_refused(path):
    nn.EmbeddingBag(5, 2, path=path).table.close()
    with Table.open(path) as table:
        bags = nn.EmbeddingBag.from_table(table, max_norm=0.1)

        with pytest.raises(ReadOnlyTableError):
            bags([[0, 1]])


def test_pretrained_rows_are_aliased_and_frozen_by_default():
    rows = W.copy()

    bags = nn.EmbeddingBag.from_pretrained(rows, mode="sum")
    rows[0] = 7

    assert bags([[0]]).tolist() == [[7, 7]]
    assert not bags.weight.requires_grad
    assert nn.EmbeddingBag.from_pretrained(rows, freeze=False).weight.requires_grad


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda bags: pickle.loads(pickle.dumps(bags))])
def test_copies_keep_rows_and_options(copied):
    bags = nn.EmbeddingBag(5, 2, max_norm=3.0, mode="max", padding_idx=2)

    twin = copied(bags)

    assert repr(twin) == repr(bags)
    np.testing.assert_array_equal(twin.weight.array, bags.weight.array)
    assert not np.shares_memory(twin.weight.array, bags.weight.array)


def test_changing_offsets_before_backward_is_refused():
    table, offsets = weight(), tensor([0, 1])
    out = F.embedding_bag([1, 2], table, offsets)

    offsets[1] = 0

    with pytest.raises(RuntimeError, match=r"\[torch.LongTensor \[2\]\] is at version 1; expected"):
        out.sum().backward()
