"""EmbeddingBag against torch.nn.EmbeddingBag: options crossed, tables in memory and on disk."""

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
    """A table, a batch cut into bags, and the options of a lookup."""

    rows: int
    dim: int
    shape: tuple[int, ...]
    cuts: tuple[int, ...]  # of a 1-D batch
    dtype: str
    id_dtype: str
    offset_dtype: str
    options: tuple[tuple[str, object], ...]
    weighted: bool
    frozen: bool
    layout: str
    on_disk: bool
    seed: int

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        put = object.__setattr__
        # Few different numbers: ties of a maximum are common.
        numbers = rng.choice([-1.5, -0.25, 0.5, 1.0, 3.0], (self.rows, self.dim))
        put(self, "weight", numbers.astype(self.dtype))
        put(self, "ids", rng.integers(0, self.rows, self.shape).astype(self.id_dtype))
        put(self, "factors", rng.standard_normal(self.shape).astype(self.dtype))
        offsets = np.array([0, *self.cuts], self.offset_dtype)
        if dict(self.options)["include_last_offset"]:
            offsets = np.append(offsets, self.ids.size).astype(self.offset_dtype)
        put(self, "offsets", offsets if len(self.shape) == 1 else None)
        bags = 1 + len(self.cuts) if len(self.shape) == 1 else self.shape[0]
        put(self, "upstream", rng.standard_normal((bags, self.dim)).astype(self.dtype))


@st.composite
def cases(draw):
    rows = draw(st.integers(1, 7))
    mode = draw(st.sampled_from(["sum", "mean", "max"]))
    flat = draw(st.booleans())
    # torch fails on a batch of empty rows ("step must be nonzero").
    shape = (
        (draw(st.integers(0, 9)),) if flat else (draw(st.integers(0, 4)), draw(st.integers(1, 4)))
    )
    cuts = draw(st.lists(st.integers(0, shape[0]), max_size=4)) if flat else []
    options = {
        "padding_idx": draw(st.none() | st.integers(-rows, rows - 1)),
        "max_norm": draw(st.none() | st.sampled_from([0.5, 1.5, 100.0])),
        "norm_type": draw(st.sampled_from([2.0, 1.0, float("inf")])),
        "mode": mode,
        "sparse": mode != "max" and draw(st.booleans()),
        "include_last_offset": flat and draw(st.booleans()),
    }
    return Case(
        rows=rows,
        dim=draw(st.integers(1, 6)),
        shape=shape,
        cuts=tuple(sorted(cuts)),
        dtype=draw(st.sampled_from(["float32", "float64"])),
        id_dtype=draw(st.sampled_from(["int32", "int64"])),
        offset_dtype=draw(st.sampled_from(["int32", "int64"])),
        options=tuple(options.items()),
        weighted=mode == "sum" and draw(st.booleans()),
        frozen=draw(st.booleans()),
        layout=draw(st.sampled_from(["contiguous", "strided", "fortran"])),
        on_disk=draw(st.booleans()),
        seed=draw(st.integers(0, 999)),
    )


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
    path = Path(folder, "t.mmembed") if case.on_disk else None
    weight = Tensor(in_layout(case.weight, case.layout))
    ours = nn.EmbeddingBag(case.rows, case.dim, **options, _weight=weight, path=path)
    theirs = torch.nn.EmbeddingBag(
        case.rows, case.dim, **options, _weight=torch.from_numpy(case.weight.copy())
    )
    for module in (ours, theirs):
        module.weight.requires_grad = not case.frozen
    factors, their_factors = None, None
    if case.weighted:
        factors = tensor(case.factors, requires_grad=True)
        their_factors = torch.from_numpy(case.factors.copy()).requires_grad_()
    offsets = None if case.offsets is None else torch.from_numpy(case.offsets)
    before = ours.weight._version

    out = ours(tensor(case.ids), case.offsets, factors)
    want = theirs(torch.from_numpy(case.ids), offsets, their_factors)

    assert out.shape == tuple(want.shape)
    assert out.dtype == case.dtype
    assert out.requires_grad == want.requires_grad
    close(out.detach().numpy(), want.detach().numpy(), case.dtype)
    close(ours.weight.detach().numpy(), theirs.weight.detach().numpy(), case.dtype)
    assert ours.weight._version - before == (options["max_norm"] is not None)
    if out.requires_grad:
        out.backward(tensor(case.upstream))
        want.backward(torch.from_numpy(case.upstream))
    if not case.frozen:
        compare_gradients(ours.weight.grad, theirs.weight.grad, case.dtype)
    if case.weighted:
        close(factors.grad.numpy(), their_factors.grad.numpy(), case.dtype)
    if case.on_disk:
        ours.table.close(commit=False)


@given(case=cases(), by_frequency=st.booleans(), include_padding=st.booleans())
@settings(max_examples=200)
def test_a_bag_is_the_lookup_and_the_reduction_in_one(case, by_frequency, include_padding):
    options = dict(case.options)
    mode, padding = options["mode"], options["padding_idx"]
    padding = None if padding is None else padding % case.rows
    scaled = by_frequency and mode != "max"
    weight, twin = (Tensor(case.weight.copy(), requires_grad=True) for _ in range(2))

    out = F.embedding_bag(
        case.ids, weight, case.offsets, mode=mode, scale_grad_by_freq=scaled,
        include_last_offset=options["include_last_offset"], padding_idx=padding,
        include_padding=include_padding,
    )  # fmt: skip

    found = F.embedding(case.ids.reshape(-1), twin, padding_idx=padding, scale_grad_by_freq=scaled)
    ends = np.array([*case.cuts, case.ids.size])
    if case.offsets is None:
        ends = np.arange(1, case.shape[0] + 1) * case.shape[1]
    total, first = 0, 0
    for bag, last in enumerate(ends):
        counted = [
            i for i in range(first, last)
            if include_padding or case.ids.reshape(-1)[i] != padding
        ]  # fmt: skip
        first = last
        if not counted:
            np.testing.assert_array_equal(out.detach().numpy()[bag], 0)
            continue
        rows = found[counted]
        reduced = {"sum": lambda r: r.sum(0), "mean": lambda r: r.mean(0), "max": largest}[mode](
            rows
        )
        close(out.detach().numpy()[bag], reduced.detach().numpy(), case.dtype)
        total = total + (reduced * tensor(case.upstream[bag])).sum()
    if isinstance(total, Tensor):
        out.backward(tensor(case.upstream))
        total.backward()
        close(weight.grad.numpy(), twin.grad.numpy(), case.dtype)


def largest(rows):
    """The maximum of each column, taken from the first row that has it."""
    where = rows.detach().numpy().argmax(axis=0)
    return rows[where, np.arange(rows.shape[1])]


IDS, OFFSETS = [3, 1, 1, 1, 4, 0], [0, 3]
CALLS = {
    "factors of another shape": {"per_sample_weights": [1.0] * 5, "mode": "sum"},
    "weight of one dimension": {"weight": [1.0, 2.0]},
    "2-D input with offsets": {"input": [[1, 2]]},
    "1-D input without offsets": {"offsets": None},
    "offsets of two dimensions": {"offsets": [[0, 3]]},
    "offset of none": {"offsets": 0},
    "3-D input": {"input": [[[1]]], "offsets": None},
    "0-D input": {"input": 1, "offsets": None},
    "unknown mode": {"mode": "avg"},
    "max scaled by frequency": {"mode": "max", "scale_grad_by_freq": True},
    "max sparse": {"mode": "max", "sparse": True},
    "factors for a mean": {"per_sample_weights": [1.0] * 6, "mode": "mean"},
    "first offset not zero": {"offsets": [1, 3]},
    "last offset beyond": {"offsets": [0, 7]},
    "padding beyond": {"padding_idx": 5},
    "padding below": {"padding_idx": -6},
    "no last offset": {"offsets": [], "include_last_offset": True},
    "max_norm of letters": {"max_norm": "1"},
}


@pytest.mark.parametrize("changes", CALLS.values(), ids=list(CALLS))
def test_what_torch_refuses_is_refused_with_its_exception_and_its_text(changes):
    arguments = {
        "input": IDS, "weight": np.arange(10.0).reshape(5, 2), "offsets": OFFSETS, "mode": "sum",
        **changes,
    }  # fmt: skip
    kinds = {"input": np.int64, "offsets": np.int64, "weight": float, "per_sample_weights": float}
    arrays = {
        name: np.array(arguments[name], kind) for name, kind in kinds.items()
        if arguments.get(name) is not None
    }  # fmt: skip
    with pytest.raises(Exception) as theirs:  # noqa: PT011  whatever it is, ours is the same
        torch.nn.functional.embedding_bag(
            **{**arguments, **{name: torch.from_numpy(a) for name, a in arrays.items()}}
        )

    with pytest.raises(type(theirs.value)) as ours:
        F.embedding_bag(**{**arguments, **{name: Tensor(a) for name, a in arrays.items()}})

    said = str(theirs.value).split("Tensor'>")[0].replace("'torch.", "'mmembed.autograd.tensor.")
    assert str(ours.value).startswith(said.split("\n")[0])


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"max_norm": 1.0, "norm_type": 1.0, "scale_grad_by_freq": True, "mode": "sum"},
        {"padding_idx": -1, "sparse": True, "include_last_offset": True, "mode": "max"},
    ],
)
def test_a_module_says_what_torchs_says(options):
    ours, theirs = nn.EmbeddingBag(4, 2, **options), torch.nn.EmbeddingBag(4, 2, **options)

    assert repr(ours) == repr(theirs)


def test_arguments_in_the_old_order_are_taken_with_torchs_warning():
    weight, ids = Tensor(np.eye(3)), tensor([[0, 1]])

    with pytest.warns(UserWarning, match="Argument order of nn.functional.embedding_bag was"):
        out = F.embedding_bag(weight, ids, mode="sum")

    assert out.tolist() == [[1, 1, 0]]
