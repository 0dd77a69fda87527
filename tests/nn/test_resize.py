"""Growing a vocabulary: training goes on as if the table had had the rows from the start."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from mmembed import nn, optim
from mmembed.autograd import Tensor, no_grad, tensor
from mmembed.errors import ReadOnlyTableError
from mmembed.nn.module import Module
from mmembed.parameter import Parameter
from mmembed.rows import RowGrad
from mmembed.storage import Table


@pytest.fixture(params=["disk", "memory"])
def place(request, tmp_path):
    """A path, and None: what holds for a table on disk holds for one in memory."""
    return tmp_path / "items.mmembed" if request.param == "disk" else None


def module_of(kind, table, **options):
    return getattr(nn, kind).from_table(table, **options)


def train(module, optimizer, rows, seed):
    """Three steps on ids below `rows`."""
    rng = np.random.default_rng(seed)
    for _ in range(3):
        optimizer.zero_grad()
        ids = tensor(rng.integers(0, rows, (4, 3)))
        looked_up = module(ids)
        factors = rng.normal(size=looked_up.shape).astype(np.float32)
        (looked_up * tensor(factors)).sum().backward()
        optimizer.step()


OPTIMIZERS = {
    "SGD": (lambda params: optim.SGD(params, lr=0.1), [True, False]),
    "momentum": (lambda params: optim.SGD(params, lr=0.1, momentum=0.9), [True, False]),
    "Adagrad": (
        lambda params: optim.Adagrad(params, lr=0.1, initial_accumulator_value=0.1),
        [True, False],
    ),
    "RowwiseAdagrad": (lambda params: optim.RowwiseAdagrad(params, lr=0.1), [True, False]),
    "SparseAdam": (lambda params: optim.SparseAdam(params, lr=0.1), [True]),
    "SparseAdamW": (lambda params: optim.SparseAdamW(params, lr=0.1, weight_decay=0.1), [True]),
    "Adam": (lambda params: optim.Adam(params, lr=0.1), [False]),
}


@pytest.mark.parametrize("kind", ["Embedding", "EmbeddingBag"])
@pytest.mark.parametrize(
    ("make", "sparse"),
    [(make, sparse) for make, kinds in OPTIMIZERS.values() for sparse in kinds],
    ids=[f"{name}-{sparse}" for name, (_, kinds) in OPTIMIZERS.items() for sparse in kinds],
)
def test_training_goes_on_as_if_the_table_had_had_the_rows_from_the_start(
    place, kind, make, sparse
):
    results = []
    for start, where in ((6, place), (10, None)):
        table = Table.create(where, start, 4, seed=3)
        module = module_of(kind, table, sparse=sparse, padding_idx=1)
        optimizer = make([module.weight])
        train(module, optimizer, 6, seed=1)
        module.resize_(10)
        train(module, optimizer, 10, seed=2)
        state = optimizer.state_dict()["state"][0]
        results.append((module.weight.array.copy(), state))
        if where is not None:
            table.close()

    (weight, state), (expected, expected_state) = results
    assert weight.shape == (10, 4)
    assert np.array_equal(weight, expected)
    assert state.keys() == expected_state.keys()
    for name in state:
        assert np.array_equal(np.asarray(state[name]), np.asarray(expected_state[name])), name


def test_training_goes_on_with_a_grown_table_that_is_opened_again(tmp_path):
    def run(embedding, seed, rows):
        optimizer = optim.Adagrad([embedding.weight], lr=0.1)
        train(embedding, optimizer, rows, seed)

    table = Table.create(tmp_path / "t", 6, 4, seed=3)
    embedding = nn.Embedding.from_table(table)
    run(embedding, 1, 6)
    embedding.resize_(10)
    table.close()
    with Table.open(tmp_path / "t", "r+") as table:
        grown = nn.Embedding.from_table(table)
        run(grown, 2, 10)
        expected = nn.Embedding.from_table(Table.create(None, 10, 4, seed=3))
        run(expected, 1, 6)
        run(expected, 2, 10)

        assert np.array_equal(grown.weight.array, expected.weight.array)


def test_the_weight_stays_the_same_object_and_counts_one_change(place):
    table = Table.create(place, 4, 3)
    embedding = nn.Embedding.from_table(table, padding_idx=-1)
    weight, version = embedding.weight, embedding.weight._version

    assert embedding.resize_(7) is embedding
    assert embedding.weight is weight
    assert weight._version == version + 1
    assert weight.shape == (7, 3)
    assert (embedding.num_embeddings, embedding.padding_idx) == (7, 3)
    assert embedding([6]).shape == (1, 3)
    assert repr(embedding) == "Embedding(7, 3, padding_idx=3)"
    table.close()


def test_the_present_number_of_rows_changes_nothing_and_fewer_are_refused(place):
    with Table.create(place, 4, 3) as table:
        embedding = nn.Embedding.from_table(table)
        version = embedding.weight._version
        embedding.resize_(4)
        with pytest.raises(ValueError, match="a table of 4 rows cannot be resized to 3"):
            embedding.resize_(3)

        assert embedding.weight._version == version
        assert (embedding.num_embeddings, table.rows) == (4, 4)


def test_a_table_open_for_reading_is_not_resized(tmp_path):
    Table.create(tmp_path / "t", 4, 3).close()
    embedding = nn.Embedding(4, 3, _freeze=True, path=tmp_path / "t")

    with pytest.raises(ReadOnlyTableError):
        embedding.resize_(5)
    assert embedding.num_embeddings == 4


def test_a_weight_without_a_table_is_not_resized():
    embedding = nn.Embedding(4, 3)
    embedding.weight = Parameter(Tensor(np.zeros((4, 3))))

    with pytest.raises(
        AttributeError, match="weight was replaced by a parameter that has no table"
    ):
        embedding.resize_(5)


def test_new_rows_of_a_table_around_an_array_are_zeros():
    array = np.ones((3, 2), np.float32)
    embedding = nn.Embedding.from_pretrained(array, freeze=False)
    embedding.resize_(5)

    assert embedding.weight.tolist() == [[1, 1]] * 3 + [[0, 0]] * 2
    assert array.shape == (3, 2)


# Gradients from before.


@pytest.mark.parametrize("sparse", [True, False])
def test_a_gradient_collected_before_is_zero_in_the_new_rows(place, sparse):
    with Table.create(place, 4, 2) as table:
        embedding = nn.Embedding.from_table(table, sparse=sparse)
        embedding([1, 3, 1]).sum().backward()
        embedding.resize_(6)
        gradient = embedding.weight.grad

        assert isinstance(gradient, RowGrad) == sparse
        assert gradient.shape == (6, 2)
        whole = gradient.to_dense() if sparse else gradient
        assert whole.tolist() == [[0, 0], [2, 2], [0, 0], [1, 1], [0, 0], [0, 0]]
        assert embedding.weight.grad is gradient


@pytest.mark.parametrize("sparse", [True, False])
@pytest.mark.parametrize("read_between", [True, False])
def test_gradients_from_before_and_after_a_growth_add_up(place, sparse, read_between):
    with Table.create(place, 4, 2) as table:
        embedding = nn.Embedding.from_table(table, sparse=sparse)
        embedding([1]).sum().backward()
        recorded = embedding([2, 1]).sum()  # before the growth, with its backward after it
        embedding.resize_(6)
        if read_between:
            assert embedding.weight.grad.shape == (6, 2)
        embedding([5]).sum().backward()
        recorded.backward()
        gradient = embedding.weight.grad

        whole = gradient.to_dense() if sparse else gradient
        assert whole.tolist() == [[0, 0], [2, 2], [1, 1], [0, 0], [0, 0], [1, 1]]
        optim.SGD([embedding.weight], lr=1.0).step()


def test_a_gradient_that_is_kept_elsewhere_is_not_written_to():
    embedding = nn.Embedding(4, 2)
    embedding([1]).sum().backward()
    kept = embedding.weight.grad
    embedding.resize_(6)
    embedding([1]).sum().backward()

    assert kept.tolist() == [[0, 0], [1, 1], [0, 0], [0, 0]]
    assert embedding.weight.grad[1].tolist() == [2, 2]


def test_a_gradient_may_be_set_in_the_new_shape_only():
    embedding = nn.Embedding(4, 2)
    embedding.resize_(6)

    with pytest.raises(RuntimeError, match=r"gradient of size '\[4, 2\]' to a tensor of size"):
        embedding.weight.grad = Tensor(np.zeros((4, 2), np.float32))
    embedding.weight.grad = Tensor(np.ones((6, 2), np.float32))
    embedding.weight.grad = None
    assert embedding.weight.grad is None


def test_a_weight_that_backward_needs_as_it_was_is_refused_after_a_growth():
    embedding = nn.Embedding(4, 2)
    product = (embedding.weight @ Tensor(np.ones((2, 3), np.float32), requires_grad=True)).sum()
    embedding.resize_(6)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.backward()


# What shares the table.


def test_parameters_over_one_table_grow_together(place):
    with Table.create(place, 4, 2) as table:
        table.add_column("context", init="ones")
        first, second = nn.Embedding.from_table(table), nn.EmbeddingBag.from_table(table)
        context = nn.Embedding.from_table(table, column="context")
        second([[1, 2]]).sum().backward()
        versions = [module.weight._version for module in (first, second, context)]
        first.resize_(6)

        assert [m.weight._version for m in (first, second, context)] == [v + 1 for v in versions]
        assert second.weight.shape == context.weight.shape == (6, 2)
        assert second.weight.grad.shape == (6, 2)
        assert context([5]).tolist() == [[1, 1]]
        assert second.num_embeddings == 4
        second.resize_(6)
        assert second.num_embeddings == 6


def test_a_tied_weight_grows_with_the_module(place):
    class Model(Module):
        def __init__(self, table):
            super().__init__()
            self.items = nn.Embedding.from_table(table)
            self.output = self.items.weight

    with Table.create(place, 4, 2) as table:
        model = Model(table)
        model.items.resize_(5)

        assert model.output is model.items.weight
        assert (model.items([4]) @ model.output.t()).shape == (1, 5)
        assert model.state_dict()["items.weight"].shape == (5, 2)


def test_detached_tensors_show_the_old_rows_and_are_refused_when_written(place):
    with Table.create(place, 4, 2, init="ones") as table:
        embedding = nn.Embedding.from_table(table)
        detached, row = embedding.weight.detach(), embedding.weight.detach()[2]
        embedding.resize_(5000)

        assert detached.shape == (4, 2)
        for view in (detached, row):
            with no_grad(), pytest.raises(RuntimeError, match=r"which has moved. Take it again"):
                view.fill_(3)
        with no_grad():
            embedding.weight.detach()[4999].fill_(3)
        assert embedding.weight[4999].tolist() == [3, 3]
        assert embedding.weight[2].tolist() == [1, 1]


def test_copies_and_pickles_of_a_grown_embedding_have_its_rows(place):
    with Table.create(place, 4, 2) as table:
        embedding = nn.Embedding.from_table(table)
        embedding.resize_(6)
        for twin in (copy.deepcopy(embedding), pickle.loads(pickle.dumps(embedding))):
            assert twin.num_embeddings == 6
            assert np.array_equal(twin.weight.array, embedding.weight.array)
        twin = copy.deepcopy(embedding).resize_(8)
        assert np.array_equal(twin.weight.array, Table.create(None, 8, 2)[:])


def test_an_embedding_at_a_path_is_opened_with_its_new_size(tmp_path):
    embedding = nn.Embedding(4, 2, path=tmp_path / "t")
    embedding.resize_(6)
    embedding.table.close()

    with pytest.raises(ValueError, match=r"is \(6, 2\) float32, asked for \(4, 2\)"):
        nn.Embedding(4, 2, path=tmp_path / "t")
    nn.Embedding(6, 2, path=tmp_path / "t").table.close()
