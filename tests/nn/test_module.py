"""Module: names, modes, states, dtypes, copies; and what it says when something does not fit."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

import mmembed as mm
from mmembed import nn
from mmembed.autograd import Tensor, no_grad, tensor
from mmembed.errors import CudaUnavailableError

torch = pytest.importorskip("torch")


class Pair(nn.Module):
    """Two tables and a parameter of its own."""

    def __init__(self):
        super().__init__()
        self.left = nn.Embedding(3, 2)
        self.right = nn.EmbeddingBag(4, 2, mode="sum", sparse=True)
        self.scale = nn.Parameter(mm.ones(2))

    def forward(self, ids):
        return (self.left(ids) * self.scale).sum() + self.right(ids[None]).sum()


class TorchPair(torch.nn.Module):
    """The same in torch."""

    def __init__(self):
        super().__init__()
        self.left = torch.nn.Embedding(3, 2)
        self.right = torch.nn.EmbeddingBag(4, 2, mode="sum", sparse=True)
        self.scale = torch.nn.Parameter(torch.ones(2))


@pytest.fixture
def pair():
    return Pair()


# -- the tree --------------------------------------------------------------------------------------


def test_the_tree_is_torchs(pair):
    theirs = TorchPair()

    assert repr(pair) == repr(theirs).replace("TorchPair", "Pair")
    for walk in ("named_parameters", "named_modules", "named_children"):
        names = [name for name, _ in getattr(pair, walk)()]
        assert names == [name for name, _ in getattr(theirs, walk)()]
    assert list(pair.state_dict()) == list(theirs.state_dict())
    assert [p.shape for p in pair.parameters()] == [tuple(p.shape) for p in theirs.parameters()]


def test_a_shared_parameter_is_listed_once_and_saved_under_both_names(pair):
    pair.left.weight = pair.scale

    assert [name for name, _ in pair.named_parameters()] == ["scale", "right.weight"]
    assert list(pair.state_dict()) == ["scale", "left.weight", "right.weight"]


def test_attributes_are_registered_replaced_and_deleted(pair):
    pair.left = nn.Embedding(1, 1)
    del pair.right
    pair.scale = None

    assert [name for name, _ in pair.named_parameters()] == ["left.weight"]
    assert pair.scale is None
    with pytest.raises(AttributeError, match="'Pair' object has no attribute 'right'"):
        _ = pair.right
    assert {"left", "scale"} <= set(dir(pair))
    assert "right" not in dir(pair)


def test_a_tensor_is_no_parameter(pair):
    with pytest.raises(TypeError, match="cannot assign 'Tensor' as parameter 'scale'"):
        pair.scale = mm.ones(2)
    with pytest.raises(TypeError, match="cannot assign 'Tensor' object to parameter 'other'"):
        pair.register_parameter("other", mm.ones(2))
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        pair.add_module("other", 3)


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        (3, TypeError, "name should be a string. Got int"),
        ("", KeyError, "name can.*t be"),
        ("a.b", KeyError, "name can.*t be"),
        ("train", KeyError, "attribute 'train' already exists"),
    ],
)
def test_names_that_cannot_be_are_refused(pair, name, error, message):
    with pytest.raises(error, match=message):
        pair.register_parameter(name, nn.Parameter(mm.ones(1)))
    with pytest.raises(error, match=message):
        pair.add_module(name, nn.Embedding(1, 1))


def test_registered_names_are_attributes(pair):
    pair.register_parameter("extra", nn.Parameter(mm.ones(1)))
    pair.register_parameter("none", None)
    pair.add_module("more", nn.Embedding(1, 1))

    assert pair.extra.tolist() == [1]
    assert pair.none is None
    assert isinstance(pair.more, nn.Embedding)


def test_a_parameter_set_before_init_is_refused():
    class Hasty(nn.Module):
        def __init__(self):
            self.weight = nn.Parameter(mm.ones(1))

    with pytest.raises(AttributeError, match=r"call Module.__init__\(\) before"):
        Hasty()


def test_a_module_without_forward_says_so():
    with pytest.raises(NotImplementedError, match=r"Module \[Module\] is missing the required"):
        nn.Module()()


def test_apply_reaches_children_first(pair):
    met = []

    assert pair.apply(met.append) is pair

    assert met == [pair.left, pair.right, pair]


# -- modes and gradients ---------------------------------------------------------------------------


def test_modes_reach_every_module(pair):
    assert pair.eval() is pair
    assert not any(module.training for module in pair.modules())
    pair.left.train()
    assert [module.training for module in pair.modules()] == [False, True, False]


def test_gradients_are_forgotten_or_zeroed(pair):
    pair(tensor([1, 2])).backward()

    pair.zero_grad(set_to_none=False)
    assert not pair.left.weight.grad.numpy().any()
    assert not pair.right.weight.grad.to_dense().numpy().any()
    pair.zero_grad()
    assert all(parameter.grad is None for parameter in pair.parameters())


def test_frozen_modules_collect_nothing(pair):
    pair.requires_grad_(False)

    assert not pair(tensor([1, 2])).requires_grad
    assert pair.requires_grad_().scale.requires_grad


# -- states ----------------------------------------------------------------------------------------


def test_a_state_is_detached_and_shares_memory_and_version(pair):
    state = pair.state_dict()
    before = pair.left.weight._version

    with no_grad():
        pair.left.weight[0] = 7

    assert state["left.weight"].numpy()[0].tolist() == [7, 7]
    assert state["left.weight"]._version == before + 1
    assert not state["left.weight"].requires_grad


def test_a_state_is_copied_into_the_parameters_and_cast(pair):
    other = Pair().double()
    versions = [parameter._version for parameter in pair.parameters()]

    keys = pair.load_state_dict(other.state_dict())

    assert repr(keys) == "<All keys matched successfully>"
    for ours, theirs in zip(pair.parameters(), other.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy().astype("f4"))
        assert not np.shares_memory(ours.array, theirs.array)
    assert [p._version - v for p, v in zip(pair.parameters(), versions, strict=True)] == [1, 1, 1]


def test_arrays_are_taken_as_a_state(pair):
    pair.load_state_dict({"scale": np.array([2.0, 3.0])}, strict=False)

    assert pair.scale.tolist() == [2, 3]


def test_what_is_missing_and_unexpected_is_told_if_not_strict(pair):
    keys = pair.load_state_dict({"scale": mm.zeros(2), "foo": mm.zeros(1)}, strict=False)

    assert keys == (["left.weight", "right.weight"], ["foo"])
    assert pair.scale.tolist() == [0, 0]


STATES = {
    "nothing": dict,
    "unknown": lambda state: {**state, "foo": state["scale"], "bar": state["scale"]},
    "shapes": lambda state: {**state, "scale": state["left.weight"], "left.weight": state["scale"]},
    "no tensor": lambda state: {**state, "scale": [1.0, 1.0]},
}


@pytest.mark.parametrize("change", ["unknown", "shapes", "no tensor"])
def test_a_state_that_does_not_fit_is_refused_in_torchs_words(pair, change):
    theirs = TorchPair()
    with pytest.raises(RuntimeError) as expected:
        theirs.load_state_dict(STATES[change](theirs.state_dict()))

    with pytest.raises(RuntimeError) as refused:
        pair.load_state_dict(STATES[change](pair.state_dict()))

    said = str(expected.value).replace("TorchPair", "Pair")
    assert str(refused.value).split("<class")[0] == said.split("<class")[0]


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("change", ["unknown", "shapes", "no tensor"])
def test_a_state_that_does_not_fit_changes_nothing(pair, change, assign):
    before = [parameter.detach().clone() for parameter in pair.parameters()]
    state = {**STATES[change](Pair().state_dict())}

    with pytest.raises(RuntimeError, match=r"Error\(s\) in loading state_dict for Pair:"):
        pair.load_state_dict(state, assign=assign)

    for now, then in zip(pair.parameters(), before, strict=True):
        np.testing.assert_array_equal(now.detach().numpy(), then.numpy())


def test_an_assigned_state_is_used_where_it_is(pair):
    state = {name: value.clone().double() for name, value in pair.state_dict().items()}
    pair.left.requires_grad_(False)

    pair.load_state_dict(state, assign=True)

    assert [p.dtype for p in pair.parameters()] == [np.float64] * 3
    assert np.shares_memory(pair.left.weight.array, state["left.weight"].array)
    assert isinstance(pair.left.weight, nn.TableParameter)
    assert not pair.left.weight.requires_grad
    assert pair.scale.requires_grad


def test_a_table_on_disk_is_loaded_where_it_is(tmp_path):
    embedding = nn.Embedding(3, 2, path=tmp_path / "t.mmembed")

    embedding.load_state_dict({"weight": np.arange(6.0).reshape(3, 2)})
    embedding.table.commit()

    rows = np.load(tmp_path / "t.mmembed" / "weight.npy")
    assert rows.tolist() == [[0, 1], [2, 3], [4, 5]]
    embedding.table.close()


# -- dtypes ----------------------------------------------------------------------------------------


def test_casting_keeps_parameters_gradients_and_state(pair):
    ids = tensor([1, 2])
    optimizer = mm.optim.Adagrad(pair.parameters(), lr=0.5)
    pair(ids).backward()
    optimizer.step()
    parameters, total = list(pair.parameters()), pair.left.table.column("weight.adagrad.sum").copy()

    assert pair.double() is pair

    assert all(now is then for now, then in zip(pair.parameters(), parameters, strict=True))
    assert {parameter.dtype for parameter in parameters} == {np.dtype(np.float64)}
    assert {parameter.grad.dtype for parameter in parameters} == {np.dtype(np.float64)}
    np.testing.assert_array_equal(pair.left.table.column("weight.adagrad.sum"), total)
    optimizer.zero_grad()
    pair(ids).backward()
    optimizer.step()
    assert pair.float().scale.dtype == np.float32
    assert pair.to("cpu", dtype="float64").left.weight.dtype == np.float64


@pytest.mark.parametrize(
    ("device", "error", "text"),
    [
        ("mps", ValueError, "device must be 'cpu', got 'mps'"),
        ("cuda", CudaUnavailableError, "device='cuda'"),
        ("cuda:1", CudaUnavailableError, "device='cuda"),
    ],
)
def test_another_device_is_refused(pair, device, error, text):
    with pytest.raises(error, match=text):
        pair.to(device)
    with pytest.raises(error, match=text):
        nn.Embedding(2, 2, device=device)


@pytest.mark.parametrize("dtype", ["int64", "longdouble"])
def test_a_dtype_that_tables_do_not_have_is_refused_and_nothing_is_cast(pair, dtype):
    with pytest.raises(TypeError, match=r"float"):
        pair.to(dtype)

    assert {parameter.dtype for parameter in pair.parameters()} == {np.dtype(np.float32)}


def test_a_table_on_disk_keeps_its_dtype(tmp_path, pair):
    pair.right = nn.Embedding(3, 2, path=tmp_path / "t.mmembed")

    with pytest.raises(ValueError, match="is float32 and stays so; create another of float64"):
        pair.double()

    assert pair.scale.dtype == np.float32
    assert pair.float().right.weight.dtype == np.float32
    pair.right.table.close()


# -- copies ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_copies_are_apart_and_have_no_gradients(pair, copied):
    pair(tensor([1, 2])).backward()
    pair.eval()

    twin = copied(pair)

    assert repr(twin) == repr(pair)
    assert not twin.training
    for ours, theirs in zip(pair.parameters(), twin.parameters(), strict=True):
        np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
        assert not np.shares_memory(ours.array, theirs.array)
        assert theirs.grad is None
        assert theirs._version == 0


def test_a_shallow_copy_shares_its_parameters(pair):
    twin = copy.copy(pair)

    assert twin.scale is pair.scale


def test_a_subclass_is_what_its_class_methods_make():
    class Named(nn.Embedding):
        pass

    assert type(Named.from_pretrained(Tensor(np.ones((2, 2))))) is Named


# -- corners of the tree ---------------------------------------------------------------------------


def both(change):
    """The module trees, ours and torch's, after the same change."""
    return after(change, nn, Pair()), after(change, torch.nn, TorchPair())


def after(change, library, pair):
    try:
        change(library, pair)
    except Exception as error:
        return type(error), str(error).split("'")[0]
    return list(pair.state_dict()), [name for name, _ in pair.named_modules()]


CHANGES = {
    "child to None": lambda lib, m: setattr(m, "left", None),
    "child to a number": lambda lib, m: setattr(m, "left", 5),
    "parameter to a number": lambda lib, m: setattr(m, "scale", 5),
    "child replaced": lambda lib, m: setattr(m, "left", lib.Embedding(1, 1)),
    "child under two names": lambda lib, m: setattr(m, "again", m.left),
    "child after None": lambda lib, m: (m.add_module("c", None), setattr(m, "c", m.left)),
    "child deleted": lambda lib, m: delattr(m, "left"),
    "attribute deleted": lambda lib, m: (setattr(m, "x", 5), delattr(m, "x")),
    "option deleted": lambda lib, m: delattr(m.left, "max_norm"),
    "nothing deleted": lambda lib, m: delattr(m, "nothing"),
    "parameter under a child's name": lambda lib, m: m.register_parameter("left", None),
    "child under a parameter's name": lambda lib, m: m.add_module("scale", None),
    "a mode that is none": lambda lib, m: m.train("x"),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_changes_of_the_tree_leave_what_they_leave_in_torch(change):
    ours, theirs = both(change)

    assert ours == theirs


def test_a_child_that_is_none_is_passed_over_everywhere(pair):
    pair.left = None

    assert [name for name, _ in pair.named_children()] == ["right"]
    assert "left" not in repr(pair)
    pair.apply(lambda module: None)
    assert pair.left is None


def test_frozen_integers_stay_integers():
    rows = np.arange(6).reshape(3, 2)

    assert nn.Embedding.from_pretrained(rows).double().weight.dtype == np.int64


@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("wrong", [np.array([["a", "b"]] * 4), np.ones((4, 2), np.int64)])
def test_a_state_with_one_wrong_dtype_changes_nothing(pair, assign, wrong):
    if not assign and wrong.dtype == np.int64:
        pair.load_state_dict({"right.weight": wrong}, strict=False)
        assert (pair.right.weight.array == 1).all()
        return
    before = pair.left.weight.array.copy()
    state = {"left.weight": np.zeros((3, 2), np.float32), "right.weight": wrong}

    with pytest.raises(RuntimeError):
        pair.load_state_dict(state, strict=False, assign=assign)

    np.testing.assert_array_equal(pair.left.weight.array, before)


# -- growth and casts between a lookup and its backward --------------------------------------------


@pytest.mark.parametrize("sparse", [False, True])
def test_lookups_from_before_and_after_a_growth_go_backward_together(sparse):
    embedding = nn.Embedding(5, 2, sparse=sparse)

    before = embedding([1]).sum()
    embedding.resize_(8)
    (before + embedding([7]).sum()).backward()

    grad = embedding.weight.grad
    dense = grad.to_dense() if sparse else grad
    assert dense.numpy()[:, 0].tolist() == [0, 1, 0, 0, 0, 0, 0, 1]


@pytest.mark.parametrize("sparse", [False, True])
def test_a_cast_between_a_lookup_and_backward_casts_the_gradient(sparse):
    embedding = nn.Embedding(5, 2, sparse=sparse)
    bags = nn.EmbeddingBag.from_pretrained(embedding.weight, freeze=False, sparse=sparse)

    bags([[1, 2]]).sum().backward()
    out = bags([[1, 2]])
    embedding.double()
    out.sum().backward()

    assert bags.weight.grad.dtype == np.float64
    mm.optim.SGD(bags.parameters(), lr=0.1).step()
