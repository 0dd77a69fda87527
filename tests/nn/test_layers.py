"""Layers and containers beside torch's: text, names, outputs, gradients, modes and refusals."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict
from types import SimpleNamespace

import numpy as np
import pytest

import mmembed as mm
from mmembed.autograd import manual_seed, no_grad, tensor

torch = pytest.importorskip("torch")

LIBRARIES = OURS, TORCH = (
    SimpleNamespace(nn=mm.nn, ones=mm.ones, double=np.float64),
    SimpleNamespace(nn=torch.nn, ones=torch.ones, double=torch.float64),
)

MODELS = {
    "linear": (lambda nn: nn.Linear(3, 2), (5, 3)),
    "linear without bias": (lambda nn: nn.Linear(3, 2, bias=False), (4, 5, 3)),
    "linear of a vector": (lambda nn: nn.Linear(3, 2), (3,)),
    "linear of nothing": (lambda nn: nn.Linear(3, 2), (0, 3)),
    "norm": (lambda nn: nn.LayerNorm(4), (2, 3, 4)),
    "norm of two": (lambda nn: nn.LayerNorm((3, 4), eps=1e-3), (2, 3, 4)),
    "norm without bias": (lambda nn: nn.LayerNorm([4], bias=False), (3, 4)),
    "norm without parameters": (lambda nn: nn.LayerNorm(4, elementwise_affine=False), (3, 4)),
    "relu": (lambda nn: nn.ReLU(), (3, 4)),
    "gelu": (lambda nn: nn.GELU(), (3, 4)),
    "gelu tanh": (lambda nn: nn.GELU("tanh"), (3, 4)),
    "dropout of none": (lambda nn: nn.Dropout(0.0), (3, 4)),
    "dropout not in training": (lambda nn: nn.Dropout(0.9).eval(), (3, 4)),
    "nothing": (lambda nn: nn.Sequential(), (3, 4)),
    "perceptron": (
        lambda nn: nn.Sequential(
            nn.Linear(3, 8), nn.LayerNorm(8), nn.ReLU(inplace=True), nn.Dropout(0.0, inplace=True),
            nn.Sequential(nn.Linear(8, 8, bias=False), nn.GELU()), nn.Linear(8, 1),
        ),
        (6, 3),
    ),
    "named": (
        lambda nn: nn.Sequential(OrderedDict(first=nn.Linear(3, 2), act=nn.ReLU())),
        (6, 3),
    ),
    "shared": (lambda nn: nn.Sequential(*[nn.Linear(3, 3)] * 2), (6, 3)),
}  # fmt: skip


def pair(name, dtype):
    """Return both libraries' model with the same parameters, drawn, and an input for each."""
    make, shape = MODELS[name]
    ours, theirs = (make(lib.nn).double() for lib in LIBRARIES)
    rng = np.random.default_rng(0)
    state = {name: rng.standard_normal(p.shape) for name, p in ours.state_dict().items()}
    ours.load_state_dict(state)
    theirs.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
    x = rng.standard_normal(shape).astype(dtype)
    cast = {"float32": torch.float32, "float64": torch.float64}[dtype]
    ours.to(dtype)
    return ours, theirs.to(cast), tensor(x, requires_grad=True), torch.tensor(x, requires_grad=True)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", MODELS)
def test_outputs_and_gradients_are_torchs(name, dtype):
    ours, theirs, x, y = pair(name, dtype)
    tolerance = {"rtol": 1e-5, "atol": 1e-5} if dtype == "float32" else {"atol": 1e-12}

    mine, other = ours(x), theirs(y)
    mine.sum().backward()
    other.sum().backward()

    np.testing.assert_allclose(mine.detach().numpy(), other.detach().numpy(), **tolerance)
    np.testing.assert_allclose(x.grad.numpy(), y.grad.numpy(), **tolerance)
    assert mine.dtype == dtype
    for p, q in zip(ours.parameters(), theirs.parameters(), strict=True):
        np.testing.assert_allclose(p.grad.numpy(), q.grad.numpy(), **tolerance)


@pytest.mark.parametrize("name", MODELS)
def test_texts_names_and_shapes_are_torchs(name):
    ours, theirs = (MODELS[name][0](lib.nn) for lib in LIBRARIES)

    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for walk in ("named_parameters", "named_modules"):
        ours_named, theirs_named = (dict(getattr(m, walk)()) for m in (ours, theirs))
        assert list(ours_named) == list(theirs_named)
    assert [p.shape for p in ours.parameters()] == [tuple(p.shape) for p in theirs.parameters()]


@pytest.mark.parametrize("name", MODELS)
def test_models_are_copied_and_pickled(name):
    model = MODELS[name][0](mm.nn)
    x = mm.ones(*MODELS[name][1])

    for twin in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert repr(twin) == repr(model)
        assert twin(x * 1).tolist() == model(x * 1).tolist()
        assert not {id(p) for p in twin.parameters()} & {id(p) for p in model.parameters()}


# -- how layers start ------------------------------------------------------------------------------


def test_linear_starts_uniform_within_torchs_bound_and_from_the_seed():
    def drawn(seed):
        manual_seed(seed)
        return mm.nn.Linear(400, 300)

    layer, again, other = drawn(1), drawn(1), drawn(2)

    for name in ("weight", "bias"):
        values = getattr(layer, name).detach().numpy()
        theirs = getattr(torch.nn.Linear(400, 300), name).detach().numpy()
        assert np.abs(values).max() <= 1 / 20
        assert np.abs(values).max() == pytest.approx(1 / 20, rel=0.03)
        assert values.std() == pytest.approx(theirs.std(), rel=0.1)
        np.testing.assert_array_equal(values, getattr(again, name).detach().numpy())
        assert (values != getattr(other, name).detach().numpy()).any()
    layer.reset_parameters()
    assert (layer.weight.detach().numpy() != again.weight.detach().numpy()).any()


def test_a_linear_layer_without_inputs_starts_with_zeros():
    layer = mm.nn.Linear(0, 2)

    assert layer(mm.ones(3, 0)).tolist() == [[0, 0]] * 3


def test_norm_starts_with_ones_and_zeros_and_can_start_again():
    layer = mm.nn.LayerNorm(2)
    with no_grad():
        layer.weight.fill_(5)
        layer.bias.fill_(5)

    layer.reset_parameters()

    assert (layer.weight.tolist(), layer.bias.tolist()) == ([1, 1], [0, 0])


def test_layers_have_the_dtype_asked_for_and_are_on_the_cpu():
    assert mm.nn.Linear(2, 2, dtype="float64").weight.dtype == np.float64
    assert mm.nn.LayerNorm(2, dtype=np.float16).bias.dtype == np.float16
    for make in (lambda: mm.nn.Linear(2, 2, device="mps"), lambda: mm.nn.LayerNorm(2, device="x")):
        with pytest.raises(ValueError, match="device must be 'cpu'"):
            make()


# -- modes -----------------------------------------------------------------------------------------


def test_dropout_works_while_training_only():
    model = mm.nn.Sequential(mm.nn.Dropout(0.5), mm.nn.Sequential(mm.nn.Dropout(1.0)))
    x = mm.ones(100)

    assert model(x).tolist() == [0] * 100
    model[1].eval()
    assert set(model(x).tolist()) == {0, 2}
    assert model.eval()(x) is x
    assert set(model.train()[0](x).tolist()) == {0, 2}


def test_layers_in_place_change_their_input():
    x = tensor([-1.0, 2.0])

    assert mm.nn.ReLU(inplace=True)(x) is x
    assert mm.nn.Dropout(1.0, inplace=True)(x) is x

    assert x.tolist() == [0, 0]


# -- containers ------------------------------------------------------------------------------------


def layers(lib):
    return [lib.nn.Linear(2, 2), lib.nn.ReLU(), lib.nn.Linear(2, 3), lib.nn.GELU()]


def changed(change):
    """Run `change` on a Sequential or ModuleList, and return it."""

    def run(lib, kind):
        model = getattr(lib.nn, kind)
        model = model(*layers(lib)) if kind == "Sequential" else model(layers(lib))
        return change(lib, model) or model

    return run


def set_item(model, index, module):
    model[index] = module


def del_item(model, index):
    del model[index]


EDITS = {
    "item": lambda lib, m: m[1],
    "last": lambda lib, m: m[-1],
    "slice": lambda lib, m: m[1:3],
    "every second": lambda lib, m: m[::2],
    "empty slice": lambda lib, m: m[7:],
    "append": lambda lib, m: m.append(lib.nn.Linear(3, 4)),
    "extend": lambda lib, m: m.extend([lib.nn.Linear(3, 4), lib.nn.ReLU()]),
    "extend by itself": lambda lib, m: m.extend(list(m)),
    "insert": lambda lib, m: m.insert(1, lib.nn.Dropout()),
    "insert at the end": lambda lib, m: m.insert(4, lib.nn.Dropout()),
    "set": lambda lib, m: set_item(m, -2, lib.nn.Linear(2, 5)),
    "delete": lambda lib, m: del_item(m, 1),
    "delete slice": lambda lib, m: del_item(m, slice(1, 3)),
    "pop": lambda lib, m: m.pop(-1),
    "popped": lambda lib, m: m.pop(0) and None,
    "iterate": lambda lib, m: lib.nn.Sequential(*m),
}
SEQUENTIAL = {
    "pop slice": lambda lib, m: m.pop(slice(0, 2)),
    "insert before the last": lambda lib, m: m.insert(-1, lib.nn.Dropout()),
    "add": lambda lib, m: m + lib.nn.Sequential(lib.nn.ReLU()),
    "add in place": lambda lib, m: m.__iadd__(lib.nn.Sequential(lib.nn.ReLU())),
    "times": lambda lib, m: m * 2,
    "times before": lambda lib, m: 2 * m,
    "times in place": lambda lib, m: m.__imul__(3),
}
LISTS = {
    "add": lambda lib, m: m.__add__([lib.nn.ReLU()]),
    "add in place": lambda lib, m: m.__iadd__([lib.nn.ReLU()]),
    "alike": lambda lib, m: lib.nn.ModuleList(
        [lib.nn.Sequential(lib.nn.Linear(2, 2))] * 3 + [lib.nn.ReLU()] + [lib.nn.ReLU()]
    ),
    "none": lambda lib, m: lib.nn.ModuleList(),
}
ALL = [
    *(("Sequential", name, edit) for name, edit in {**EDITS, **SEQUENTIAL}.items()),
    *(("ModuleList", name, edit) for name, edit in {**EDITS, **LISTS}.items()),
]


@pytest.mark.parametrize(
    ("kind", "edit"), [(k, e) for k, _, e in ALL], ids=[f"{k}-{n}" for k, n, _ in ALL]
)
def test_an_edited_container_is_torchs(kind, edit):
    ours, theirs = (changed(edit)(lib, kind) for lib in LIBRARIES)

    assert repr(ours) == repr(theirs)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    if hasattr(theirs, "__len__"):
        assert len(ours) == len(theirs)


REFUSED = {
    "index too large": lambda lib, m: m[4],
    "index too small": lambda lib, m: m[-5],
    "index by a name": lambda lib, m: m["0"],
    "index by a float": lambda lib, m: m[1.5],
    "set too far": lambda lib, m: set_item(m, 9, lib.nn.ReLU()),
    "pop too far": lambda lib, m: m.pop(9),
    "append a number": lambda lib, m: m.append(3),
    "made of numbers": lambda lib, m: lib.nn.Sequential(3),
    "list of a number": lambda lib, m: lib.nn.ModuleList(3),
    "list of numbers": lambda lib, m: lib.nn.ModuleList([3]),
    "extended by a number": lambda lib, m: m.extend(3),
    "a list called": lambda lib, m: lib.nn.ModuleList()(3),
    "dropout of too much": lambda lib, m: lib.nn.Dropout(2),
    "linear of negative size": lambda lib, m: lib.nn.Linear(3, -1),
    "linear of another size": lambda lib, m: lib.nn.Linear(3, 2)(lib.ones(2, 4)),
    "norm of another size": lambda lib, m: lib.nn.LayerNorm(3)(lib.ones(2, 4)),
    "norm of another dtype": lambda lib, m: lib.nn.LayerNorm(3)(lib.ones(2, 3, dtype=lib.double)),
    "gelu by another way": lambda lib, m: lib.nn.GELU("x")(lib.ones(2)),
}
REFUSED_BY_SEQUENTIAL = {
    "insert too far": lambda lib, m: m.insert(9, lib.nn.ReLU()),
    "insert a number": lambda lib, m: m.insert(0, 3),
    "add a number": lambda lib, m: m + 3,
    "times nothing": lambda lib, m: m * 0,
    "times a float": lambda lib, m: m * 1.5,
}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("kind", ["Sequential", "ModuleList"])
def test_refusals_are_torchs(kind, name):
    check_refusal(REFUSED[name], kind)


@pytest.mark.parametrize("name", REFUSED_BY_SEQUENTIAL)
def test_refusals_of_sequential_are_torchs(name):
    check_refusal(REFUSED_BY_SEQUENTIAL[name], "Sequential")


def check_refusal(run, kind):
    caught = []
    for lib in LIBRARIES:
        with pytest.raises(Exception) as refusal:  # noqa: PT011 - the class is compared
            changed(run)(lib, kind)
        caught.append(refusal.value)

    ours, theirs = caught
    assert isinstance(ours, type(theirs))
    said = str(theirs).replace("torch.nn.modules.module", "mmembed.nn.module")
    assert str(ours) == said.replace("torch.nn.modules.container", "mmembed.nn.containers")


def test_something_that_is_no_module_cannot_be_put_into_a_list():
    modules = mm.nn.ModuleList([mm.nn.ReLU()])

    with pytest.raises(TypeError, match="int is not a Module subclass"):
        modules[0] = 3
    with pytest.raises(TypeError, match="int is not a Module subclass"):
        modules.insert(0, 3)


def test_a_list_inserts_where_lists_do():
    modules = mm.nn.ModuleList([mm.nn.ReLU(), mm.nn.ReLU()])

    modules.insert(-1, mm.nn.GELU())
    modules.insert(9, mm.nn.Dropout())

    assert [type(module).__name__ for module in modules] == ["ReLU", "GELU", "ReLU", "Dropout"]
    assert list(dict(modules.named_children())) == ["0", "1", "2", "3"]
    assert "0" not in dir(modules)


def test_a_named_sequential_keeps_its_names_in_slices_and_loses_them_in_edits():
    make = lambda: mm.nn.Sequential({"a": mm.nn.ReLU(), "b": mm.nn.GELU()})  # noqa: E731

    sliced, edited = make()[:1], make()
    edited.insert(0, mm.nn.Dropout())

    assert [name for name, _ in sliced.named_children()] == ["a"]
    assert [name for name, _ in edited.named_children()] == ["0", "1", "2"]
    assert make().a is not None


def test_layers_train_with_adam():
    manual_seed(0)
    model = mm.nn.Sequential(
        mm.nn.Linear(2, 16), mm.nn.LayerNorm(16), mm.nn.GELU(), mm.nn.Dropout(0.1),
        mm.nn.Linear(16, 1),
    )  # fmt: skip
    optimizer = mm.optim.Adam(model.parameters(), lr=0.03)
    x = mm.randn(256, 2)
    y = ((x[:, 0] * x[:, 1]) > 0).float()  # no line separates these

    for _ in range(120):
        optimizer.zero_grad()
        loss = mm.functional.binary_cross_entropy_with_logits(model(x).squeeze(-1), y)
        loss.backward()
        optimizer.step()

    right = ((model.eval()(x).squeeze(-1) > 0) == (y > 0)).float().mean().item()
    assert right > 0.95
