"""Embedding against torch.nn.Embedding: options crossed, tables in memory and on disk."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed import functional as F
from mmembed import nn
from mmembed.autograd import Tensor, tensor

from .parity import close, compare_gradients, in_layout

torch = pytest.importorskip("torch")


@dataclasses.dataclass(frozen=True)
class Case:
    """A table, a batch of ids, and the options of a lookup."""

    rows: int
    dim: int
    shape: tuple[int, ...]
    dtype: str
    id_dtype: str
    options: tuple[tuple[str, object], ...]
    layout: str
    on_disk: bool
    seed: int

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        put = object.__setattr__
        put(self, "weight", rng.standard_normal((self.rows, self.dim)).astype(self.dtype))
        put(self, "ids", rng.integers(0, self.rows, self.shape).astype(self.id_dtype))
        put(self, "upstream", rng.standard_normal((*self.shape, self.dim)).astype(self.dtype))


@st.composite
def cases(draw):
    rows = draw(st.integers(1, 7))
    shape = tuple(draw(st.lists(st.integers(0, 4), max_size=3)))
    options = {
        "padding_idx": draw(st.none() | st.integers(-rows, rows - 1)),
        "max_norm": draw(st.none() | st.sampled_from([0.5, 1.0, 1.5, 100.0])),
        "norm_type": draw(st.sampled_from([2.0, 1.0, 0.0, 3.0, 0.5, float("inf"), -1.0])),
        "scale_grad_by_freq": draw(st.booleans()),
        "sparse": draw(st.booleans()),
    }
    return Case(
        rows=rows,
        dim=draw(st.integers(1, 6)),
        shape=shape,
        dtype=draw(st.sampled_from(["float32", "float64"])),
        id_dtype=draw(st.sampled_from(["int32", "int64"])),
        options=tuple(options.items()),
        layout=draw(st.sampled_from(["contiguous", "strided", "fortran"])),
        on_disk=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
    )


def ours_and_torchs(case, folder):
    options = dict(case.options)
    path = Path(folder, "t.mmembed") if case.on_disk else None
    weight = Tensor(in_layout(case.weight, case.layout))
    ours = nn.Embedding(case.rows, case.dim, **options, _weight=weight, path=path)
    theirs = torch.nn.Embedding(
        case.rows, case.dim, **options, _weight=torch.from_numpy(case.weight.copy())
    )
    return ours, theirs


@given(case=cases())
@settings(max_examples=250)
def test_output_table_versions_and_gradients_are_torchs(backend, case):
    with tempfile.TemporaryDirectory() as folder:
        compare(case, folder)


@pytest.mark.long
@given(case=cases())
@settings(max_examples=5_000)
def test_they_are_torchs_in_very_many_cases(backend, case):
    with tempfile.TemporaryDirectory() as folder:
        compare(case, folder)


def compare(case, folder):
    options = dict(case.options)
    ours, theirs = ours_and_torchs(case, folder)

    out, want = ours(tensor(case.ids)), theirs(torch.from_numpy(case.ids))
    again, want_again = ours(tensor(case.ids)), theirs(torch.from_numpy(case.ids))

    assert out.shape == tuple(want.shape)
    assert out.dtype == case.dtype
    close(out.detach().numpy(), want.detach().numpy(), case.dtype)
    close(again.detach().numpy(), want_again.detach().numpy(), case.dtype)
    close(ours.weight.detach().numpy(), theirs.weight.detach().numpy(), case.dtype)
    assert ours.weight._version == theirs.weight._version
    out.backward(tensor(case.upstream))
    if options["sparse"] and (options["scale_grad_by_freq"] or case.shape == ()):
        theirs.sparse = False  # torch refuses or fails here; its dense gradient is right
        want = theirs(torch.from_numpy(case.ids))
    want.backward(torch.from_numpy(case.upstream))
    compare_gradients(ours.weight.grad, theirs.weight.grad, case.dtype)
    if case.on_disk:
        ours.table.close(commit=False)


@given(case=cases())
def test_function_and_module_are_one(case):
    with tempfile.TemporaryDirectory() as folder:
        ours, _ = ours_and_torchs(case, folder)
        weight = Tensor(case.weight.copy(), requires_grad=True)

        out = F.embedding(case.ids, weight, **dict(case.options))

        np.testing.assert_array_equal(
            out.detach().numpy(), ours(case.ids.tolist() if case.ids.size else case.ids).detach()
        )
        ours.table.close(commit=False) if case.on_disk else None


def test_dense_gradient_adds_in_the_order_of_the_batch_as_torch_does():
    rng = np.random.default_rng(0)
    ids = rng.integers(0, 50, 2_000)
    upstream = rng.standard_normal((2_000, 9)).astype(np.float32)
    ours, theirs = nn.Embedding(50, 9), torch.nn.Embedding(50, 9)

    ours(ids).backward(tensor(upstream))
    theirs(torch.from_numpy(ids)).backward(torch.from_numpy(upstream))

    np.testing.assert_array_equal(ours.weight.grad.numpy(), theirs.weight.grad.numpy())


class Layouts:
    """Tables that are not one block of memory, as a tensor may be."""

    values = np.random.default_rng(1).standard_normal((6, 4)).astype(np.float32)
    strided = np.repeat(values, 2, axis=0)[::2]
    reversed = values[::-1].copy()[::-1]
    fortran = np.asfortranarray(values)


@pytest.mark.parametrize("layout", ["strided", "reversed", "fortran"])
@pytest.mark.parametrize("max_norm", [None, 1.0])
def test_a_table_of_any_layout_equals_a_contiguous_one(layout, max_norm):
    table = getattr(Layouts, layout)
    odd = Tensor(table.copy(order="K"), requires_grad=True)
    plain = Tensor(Layouts.values.copy(), requires_grad=True)
    ids = np.array([[5, 0], [0, 3]])

    got, want = (F.embedding(ids, weight, max_norm=max_norm) for weight in (odd, plain))
    got.sum().backward()
    want.sum().backward()

    np.testing.assert_array_equal(got.detach().numpy(), want.detach().numpy())
    np.testing.assert_array_equal(odd.array, plain.array)
    np.testing.assert_array_equal(odd.grad.numpy(), plain.grad.numpy())


OPTIONS = [
    {},
    {"padding_idx": 3, "max_norm": 1.0, "norm_type": 1, "scale_grad_by_freq": True, "sparse": True},
    {"padding_idx": -1},
    {"norm_type": 2},
    {"norm_type": 3.0},
    {"max_norm": 0.5},
]


@pytest.mark.parametrize("options", OPTIONS)
def test_repr_is_torchs(options):
    assert repr(nn.Embedding(4, 2, **options)) == repr(torch.nn.Embedding(4, 2, **options))


REFUSED = {
    "float ids": {"input": np.array([0.5], np.float32)},
    "float ids to renorm": {"input": np.array([0.5]), "max_norm": 1.0},
    "bool ids": {"input": np.array([True])},
    "half ids": {"input": np.array([1], np.float16)},
    "padding beyond": {"padding_idx": 4},
    "padding below": {"padding_idx": -5},
    "a weight of one dimension": {"weight": np.ones(4)},
    "a weight of one dimension to renorm": {"weight": np.ones(4), "max_norm": 1.0},
    "a norm of letters": {"max_norm": 1.0, "norm_type": "2"},
    "letters for a norm": {"max_norm": "1"},
    "a padding row of floats": {"padding_idx": 1.0},
    "an id beyond": {"input": np.array([4])},
    "an id below": {"input": np.array([-1])},
}


@pytest.mark.parametrize("changes", REFUSED.values(), ids=list(REFUSED))
def test_what_torch_refuses_is_refused_with_its_exception_and_its_text(changes):
    arguments = {"input": np.array([0, 1]), "weight": np.ones((4, 2)), **changes}
    arrays = {name: arguments[name] for name in ("input", "weight")}
    with pytest.raises(Exception) as theirs:  # noqa: PT011  whatever it is, ours is the same
        torch.nn.functional.embedding(
            **{**arguments, **{name: torch.from_numpy(a.copy()) for name, a in arrays.items()}}
        )

    with pytest.raises(type(theirs.value)) as ours:
        F.embedding(**{**arguments, **{name: Tensor(a) for name, a in arrays.items()}})

    assert str(ours.value).startswith(str(theirs.value).split("\n")[0])
