"""Embedding: what torch cannot be asked: bad input, tables on disk, aliasing, copies."""

from __future__ import annotations

import copy
import pickle
import threading

import numpy as np
import pytest

import mmembed as mm
from mmembed import functional as F
from mmembed import nn
from mmembed.autograd import Tensor, no_grad, tensor
from mmembed.errors import ReadOnlyTableError
from mmembed.rows import RowGrad
from mmembed.storage import Table


@pytest.fixture
def path(tmp_path):
    return tmp_path / "items.mmembed"


# -- ids -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [-1, 5, 2**62])
@pytest.mark.parametrize("max_norm", [None, 0.1])
def test_a_bad_id_is_named_and_nothing_is_renormed(bad, max_norm):
    embedding = nn.Embedding(5, 3, max_norm=max_norm)
    before = embedding.weight.array.copy()

    with pytest.raises(IndexError) as error:
        embedding(tensor([[0, 1], [bad, 2]]))

    assert str(error.value) == (
        f"index out of range in self: id {bad} at (1, 0) is outside the table, "
        "which has 5 rows (valid: 0..4)"
    )
    np.testing.assert_array_equal(embedding.weight.array, before)
    assert embedding.weight._version == nn.Embedding(5, 3).weight._version


@pytest.mark.parametrize("ids", [[0.5], np.array([1.0]), tensor([1.0]), tensor([True])])
def test_ids_that_are_no_integers_are_refused(ids):
    with pytest.raises(TypeError, match="Long, Int"):
        nn.Embedding(5, 3)(ids)


def test_changing_ids_after_the_lookup_does_not_change_the_gradient():
    embedding = nn.Embedding(5, 3, sparse=True)
    ids = np.array([1, 2])
    out = embedding(ids)

    ids[:] = 4
    out.sum().backward()

    assert embedding.weight.grad._indices().numpy().tolist() == [[1, 2]]


def test_changing_an_id_tensor_after_the_lookup_is_refused_in_backward():
    embedding = nn.Embedding(5, 3)
    ids = tensor([1, 2])
    out = embedding(ids)

    ids[0] = 4

    with pytest.raises(RuntimeError, match=r"\[torch.LongTensor \[2\]\] is at version 1; expected"):
        out.sum().backward()


# -- gradients -------------------------------------------------------------------------------------


def test_gradients_share_no_memory_with_the_upstream_gradient():
    embedding = nn.Embedding(5, 3, sparse=True)
    upstream = mm.ones((2, 3))

    embedding([0, 1]).backward(upstream)
    upstream.mul_(5)

    np.testing.assert_array_equal(embedding.weight.grad._values().numpy(), 1)


def test_sparse_gradients_of_two_lookups_are_joined():
    embedding = nn.Embedding(5, 3, sparse=True)

    (embedding([2, 0]).sum() + embedding([0, 1]).sum()).backward()
    first = embedding.weight.grad
    assert isinstance(first, RowGrad)
    assert sorted(first._indices().numpy()[0].tolist()) == [0, 0, 1, 2]
    embedding([4]).sum().backward()

    assert embedding.weight.grad is first
    assert first._nnz() == 5


def test_sparse_and_dense_gradients_of_one_table_add_to_a_dense_one():
    embedding = nn.Embedding(5, 3, sparse=True)
    want = 2 * embedding.weight.array
    want[1] += 1

    (embedding([1]).sum() + (embedding.weight**2).sum()).backward()

    assert isinstance(embedding.weight.grad, Tensor)
    np.testing.assert_allclose(embedding.weight.grad.numpy(), want, rtol=1e-6)


def test_a_sparse_gradient_passes_through_clone_and_a_factor():
    embedding = nn.Embedding(5, 3, sparse=True)

    F.embedding([1, 1], embedding.weight.clone() * 2, sparse=True).sum().backward()

    assert isinstance(embedding.weight.grad, RowGrad)
    np.testing.assert_array_equal(embedding.weight.grad.to_dense().numpy()[1], 4)


def test_frequency_scaling_works_with_sparse_gradients_too():
    embedding = nn.Embedding(4, 1, sparse=True, scale_grad_by_freq=True)

    embedding([0, 1, 1, 2, 2, 2]).backward(tensor([[1.0], [2], [3], [4], [5], [6]]))

    np.testing.assert_allclose(
        embedding.weight.grad.to_dense().numpy(), [[1], [2.5], [5], [0]], rtol=1e-6
    )


# -- max_norm --------------------------------------------------------------------------------------


def test_max_norm_without_clone_is_refused_in_backward_in_torchs_words():
    embedding = nn.Embedding(3, 5, max_norm=1.0)
    w = mm.randn((7, 5), requires_grad=True)

    a = embedding.weight @ w.t()
    b = embedding(tensor([1, 2])) @ w.t()

    version = embedding.weight._version
    with pytest.raises(RuntimeError) as error:
        (a.unsqueeze(0) + b.unsqueeze(1)).sigmoid().prod().backward()
    assert (
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [torch.FloatTensor [3, 5]] is at version {version}; expected version "
        f"{version - 1} instead. Hint: enable anomaly detection"
    ) in str(error.value)


@pytest.mark.parametrize("ids", [[1, 2], []])
@pytest.mark.parametrize("max_norm", [1.0, 1e6])
def test_a_lookup_with_max_norm_counts_exactly_one_change(ids, max_norm):
    embedding = nn.Embedding(3, 5, max_norm=max_norm)
    before = embedding.weight._version

    embedding(ids)

    assert embedding.weight._version == before + 1


def test_max_norm_writes_only_rows_that_change(monkeypatch):
    embedding = nn.Embedding(4, 2, _weight=tensor([[3.0, 4], [0.1, 0], [0, 0], [6, 8]]), max_norm=1)
    written = []
    door = type(embedding.table).writing
    monkeypatch.setattr(
        type(embedding.table), "writing", lambda t, rows=None: written.append(rows) or door(t, rows)
    )

    embedding([3, 1, 2, 3])

    assert [rows.tolist() for rows in written] == [[3]]


@pytest.mark.parametrize(("name", "position"), [("max_norm", 3), ("norm_type", 4)])
def test_a_norm_that_is_no_number_is_refused(name, position):
    options = {"max_norm": 1.0, name: "1"}

    with pytest.raises(
        TypeError, match=rf"'{name}' \(position {position}\) must be float, not str"
    ):
        F.embedding([0], mm.ones((2, 2)), **options)


def test_max_norm_on_a_read_only_table_is_refused():
    array = np.full((3, 2), 5.0, np.float32)
    array.flags.writeable = False
    embedding = nn.Embedding.from_pretrained(array, max_norm=1.0)

    with pytest.raises(ReadOnlyTableError):
        embedding([0])


# -- construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize("padding_idx", [5, -6])
def test_padding_idx_outside_the_table_is_refused(padding_idx):
    with pytest.raises(AssertionError, match="Padding_idx must be within num_embeddings"):
        nn.Embedding(5, 3, padding_idx)
    with pytest.raises(AssertionError, match="Padding_idx must be within num_embeddings"):
        F.embedding([0], mm.ones((5, 3)), padding_idx)


def test_a_refused_construction_leaves_no_table_behind(path):
    with pytest.raises(AssertionError):
        nn.Embedding(5, 3, padding_idx=7, path=path)
    with pytest.raises(AssertionError, match="Shape of weight does not match"):
        nn.Embedding(5, 3, _weight=mm.ones((4, 3)), path=path)
    with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype can"):
        nn.Embedding(5, 3, dtype=np.int64, path=path)
    with pytest.raises(TypeError, match="a table's dtype must be float32, float64, float16"):
        nn.Embedding(5, 3, dtype=np.longdouble, path=path)
    for size in ((3.0, 2), ("3", 2), (True, 2), (3, 2.0)):
        with pytest.raises(TypeError, match=r"empty\(\): argument 'size' \(position 1\) must be"):
            nn.Embedding(*size, path=path)
    for size in ((-1, 3), (3, -1)):
        with pytest.raises(
            RuntimeError, match="Trying to create tensor with negative dimension -1"
        ):
            nn.Embedding(*size, path=path)
    with pytest.raises(ValueError, match="device must be 'cpu', got 'mps'"):
        nn.Embedding(5, 3, device="mps", path=path)

    assert not path.exists()


def test_the_same_seed_gives_the_same_table_in_memory_and_on_disk(path):
    mm.manual_seed(3)
    in_memory = nn.Embedding(20, 4, padding_idx=2)
    mm.manual_seed(3)
    on_disk = nn.Embedding(20, 4, padding_idx=2, path=path)

    np.testing.assert_array_equal(in_memory.weight.array, on_disk.weight.array)
    np.testing.assert_array_equal(on_disk.weight.array[2], 0)
    assert 0.5 < on_disk.weight.array.std() < 1.5


def test_a_given_weight_is_shared_and_its_padding_row_kept():
    weight = mm.ones((4, 2))
    embedding = nn.Embedding(4, 2, padding_idx=1, _weight=weight)

    with no_grad():
        embedding.weight[0] = 7.0

    assert weight[0].tolist() == [7, 7]
    assert weight._version == embedding.weight._version == 1
    assert weight[1].tolist() == [1, 1]


def test_a_given_weight_with_a_path_becomes_the_table_on_disk(path):
    weight = mm.randn((4, 2))

    nn.Embedding(4, 2, _weight=weight, path=path).table.close()

    np.testing.assert_array_equal(np.load(path / "weight.npy"), weight.numpy())


def test_a_path_with_a_table_is_opened_and_trained_on(path):
    first = nn.Embedding(4, 2, path=path)
    with no_grad():
        first.weight[3] = tensor([1.0, 2.0])
    first.table.close()

    second = nn.Embedding(4, 2, path=path)

    assert second.weight[3].tolist() == [1, 2]
    assert second.table.mode == "r+"
    second.table.close()
    frozen = nn.Embedding(4, 2, path=path, _freeze=True)
    assert frozen.table.mode == "r"
    assert not frozen.weight.requires_grad


@pytest.mark.parametrize(("shape", "dtype"), [((5, 2), None), ((4, 3), None), ((4, 2), "float64")])
def test_a_table_of_another_shape_or_dtype_is_refused_and_closed(path, shape, dtype):
    nn.Embedding(4, 2, path=path).table.close()

    with pytest.raises(ValueError, match=r"is \(4, 2\) float32, asked for"):
        nn.Embedding(*shape, dtype=dtype, path=path)

    Table.open(path, "r+").close()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0)])
def test_tables_without_rows_or_columns_can_be_looked_up(shape, path):
    for where in (None, path):
        embedding = nn.Embedding(*shape, path=where)
        ids = [] if shape[0] == 0 else [0, 2]

        out = embedding(ids)
        out.sum().backward()

        assert out.shape == (len(ids), shape[1])


def test_weight_must_be_2d():
    with pytest.raises(RuntimeError, match="'weight' must be 2-D"):
        F.embedding([0], mm.ones(3))
    with pytest.raises(AssertionError, match="expected to be 2-dimensional"):
        nn.Embedding.from_pretrained(mm.ones(3))


# -- from_pretrained, from_table -------------------------------------------------------------------


def test_from_pretrained_trains_a_memory_mapped_array_where_it_is(tmp_path):
    file = tmp_path / "vectors.npy"
    np.save(file, np.ones((4, 2), np.float32))
    mapped = np.load(file, mmap_mode="r+")
    embedding = nn.Embedding.from_pretrained(mapped, freeze=False, sparse=True)

    embedding([1]).sum().backward()
    mm.optim.SGD([embedding.weight], lr=1.0).step()

    assert mapped[:, 0].tolist() == [1, 0, 1, 1]


def test_from_pretrained_freezes_unless_told_not_to_and_keeps_the_callers_flag():
    weight = nn.Parameter(mm.ones((4, 2)))

    frozen = nn.Embedding.from_pretrained(weight)
    free = nn.Embedding.from_pretrained(weight, freeze=False, padding_idx=-1)

    assert (frozen.weight.requires_grad, free.weight.requires_grad) == (False, True)
    assert weight.requires_grad
    assert free.padding_idx == 3
    assert frozen([1]).grad_fn is None


def test_two_embeddings_over_columns_of_one_table_commit_together(path):
    with Table.create(path, 5, 2) as table:
        table.add_column("context", init="zeros")
        words = nn.Embedding.from_table(table, sparse=True)
        contexts = nn.Embedding.from_table(table, column="context", sparse=True)
        optimizer = mm.optim.SGD([words.weight, contexts.weight], lr=1.0)

        (words([1]) * contexts([2])).sum().backward()
        optimizer.step()
        assert words.table is contexts.table is table

    with Table.open(path) as table:
        np.testing.assert_array_equal(table.column("context")[2], -table.column()[1])


# -- copies ----------------------------------------------------------------------------------------


def test_a_pickle_of_an_embedding_on_disk_is_its_path(path):
    embedding = nn.Embedding(1_000, 50, path=path)
    embedding.table.commit()

    pickled = pickle.dumps(embedding)
    copied = pickle.loads(pickled)

    assert len(pickled) < 1024
    np.testing.assert_array_equal(copied([5, 7]).detach(), embedding([5, 7]).detach())
    with pytest.raises(ReadOnlyTableError), no_grad():
        copied.weight[0] = 1.0


def test_deepcopy_is_in_memory_and_apart(path):
    embedding = nn.Embedding(4, 2, path=path)
    embedding([1]).sum().backward()

    twin = copy.deepcopy(embedding)

    with no_grad():
        twin.weight[0] = 9.0
    assert twin.table.path is None
    assert twin.weight.grad is None
    assert twin.weight._version == 1
    assert embedding.weight[0].tolist() != [9, 9]


def test_an_embedding_in_memory_pickles_by_value():
    embedding = nn.Embedding(4, 2, padding_idx=1)

    twin = pickle.loads(pickle.dumps(embedding))

    np.testing.assert_array_equal(twin.weight.array, embedding.weight.array)
    assert twin.padding_idx == 1


def test_an_embedding_on_disk_appears_whole_or_not_at_all(path, monkeypatch):
    class Stops:
        shape, dtype, ndim = (9, 2), np.dtype("float32"), 2

        def __getitem__(self, rows):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        nn.Embedding(9, 2, _weight=Stops(), path=path)
    assert list(path.parent.iterdir()) == []

    embedding = nn.Embedding(9, 2, padding_idx=4, path=path)
    assert embedding.table.epoch == 0
    assert not embedding.weight.array[4].any()
    assert embedding.weight.array[[3, 5]].all()
    embedding.table.close()


def test_a_dtype_that_is_none_leaves_no_lock(path):
    nn.Embedding(4, 2, path=path).table.close()

    with pytest.raises(TypeError) as kept:
        nn.Embedding(4, 2, dtype="flaot32", path=path)
    nn.Embedding(4, 2, path=path).table.close()

    assert kept.value.__traceback__ is not None


def test_parameters_over_one_column_count_its_changes_together():
    with Table.create(None, 4, 2, init="ones") as table:
        one, other = (nn.Embedding.from_table(table).weight for _ in range(2))
        loss = (one * one).sum()

        with no_grad():
            other.fill_(100.0)

        assert one._version == other._version == 1
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


def test_a_deepcopy_keeps_embeddings_of_one_table_together():
    class Tied(nn.Module):
        def __init__(self, table):
            super().__init__()
            self.words = nn.Embedding.from_table(table)
            self.outputs = nn.Embedding.from_table(table)

    twin = copy.deepcopy(Tied(Table.create(None, 4, 2, init="ones")))

    with no_grad():
        twin.words.weight[0] = 7
    assert twin.outputs.weight[0].tolist() == [7, 7]
    assert twin.words.table is twin.outputs.table


def test_a_column_of_one_number_per_row_has_no_rows_to_look_up():
    with Table.create(None, 4, 2) as table:
        table.add_column("count", scalar=True)

        with pytest.raises(ValueError, match="column 'count' has one number per row"):
            nn.Embedding.from_table(table, column="count")


@pytest.mark.parametrize("rows", [np.arange(6).reshape(3, 2), np.eye(3, dtype=np.float16)])
def test_frozen_rows_of_any_dtype_are_looked_up_where_they_are(rows):
    embedding = nn.Embedding.from_pretrained(rows)

    assert embedding([2, 1]).tolist() == rows[[2, 1]].tolist()
    assert np.shares_memory(embedding.weight.array, rows)
    if rows.dtype == np.int64:
        with pytest.raises(TypeError, match="is in no table"):
            _ = embedding.table
        with pytest.raises(RuntimeError, match="Only Tensors of floating point and complex dtype"):
            nn.Embedding.from_pretrained(rows, freeze=False)


def test_rows_of_any_layout_are_looked_up_and_trained_where_they_are():
    rows = np.asfortranarray(np.ones((3, 2)))
    embedding = nn.Embedding.from_pretrained(rows, freeze=False, max_norm=1.0)

    embedding([1]).sum().backward()

    assert embedding.weight.grad.tolist() == [[0, 0], [1, 1], [0, 0]]
    np.testing.assert_allclose(rows[1], 0.5**0.5)


def test_a_table_that_cannot_be_trained_can_be_looked_up():
    rows = Tensor(np.arange(6).reshape(3, 2))

    assert F.embedding([2, 0], rows).tolist() == [[4, 5], [0, 1]]
    with pytest.raises(TypeError, match="a table of int64 can be looked up, but not renormed"):
        F.embedding([0], rows, max_norm=1.0)


def test_a_padding_row_of_a_table_without_rows_passes_in_the_function_only(path):
    out = F.embedding([], Tensor(np.zeros((0, 2)), requires_grad=True), padding_idx=0)
    out.sum().backward()

    assert out.shape == (0, 2)
    with pytest.raises(IndexError, match="index 0 is out of bounds for dimension 0 with size 0"):
        nn.Embedding(0, 3, padding_idx=0, path=path)
    assert not path.exists()


def test_a_mask_over_no_rows_selects_nothing():
    embedding = nn.Embedding(0, 3)

    with no_grad():
        embedding.weight[np.zeros((0, 3), bool)] = 1
        embedding.weight[np.zeros(0, bool)] = 1

    assert embedding.weight.shape == (0, 3)


@pytest.mark.parametrize(
    "through",
    [
        lambda w: w + mm.zeros((3, 2)),
        lambda w: w * mm.tensor([2.0, 3.0]),
        lambda w: w / mm.tensor([[2.0], [3.0], [4.0]]),
        lambda w: w.double(),
        lambda w: w.t().t(),
        lambda w: w[1:],
        lambda w: w.sigmoid(),
        lambda w: w * mm.tensor(2.0, requires_grad=True),
    ],
)
def test_a_sparse_gradient_reaches_the_table_through_any_operation(through):
    grads = []
    for sparse in (False, True):
        weight = Tensor(np.linspace(-1, 1, 6).reshape(3, 2), requires_grad=True)

        F.embedding([1, 0, 1], through(weight), sparse=sparse).sum().backward()

        grad = weight.grad
        grads.append(grad.to_dense().numpy() if isinstance(grad, RowGrad) else grad.numpy())
    np.testing.assert_allclose(*grads, rtol=1e-6)


def test_threads_that_run_backward_into_one_table_lose_nothing():
    embedding = nn.Embedding(400, 2, sparse=True)

    def work():
        for _ in range(50):
            embedding([1, 2]).sum().backward()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert embedding.weight.grad._nnz() == 400


@pytest.mark.parametrize("index", [1.0, "1", True])
def test_a_padding_row_that_is_no_integer_is_refused(index):
    said = r"embedding\(\): argument 'padding_idx' \(position 3\) must be int, not "
    with pytest.raises(TypeError, match=said + type(index).__name__):
        F.embedding([0], mm.ones((2, 2)), padding_idx=index)
    with pytest.raises(TypeError, match=said):
        nn.Embedding(2, 2, padding_idx=index)


def test_a_plain_tensor_may_take_the_place_of_a_deleted_weight():
    module = nn.Embedding(4, 2)
    twice = mm.tensor(module.weight.array * 2)

    del module.weight
    module.weight = twice

    assert module.weight is twice
    np.testing.assert_array_equal(module(np.arange(4)).array, twice.array)
