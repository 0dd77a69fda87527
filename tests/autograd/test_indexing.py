"""Reading and assigning with an index: torch's meaning, views or copies, and refusals."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from mmembed.autograd import arange, ones, tensor, zeros

ROWS, COLUMNS = 4, 3
item = st.one_of(
    st.integers(-ROWS, ROWS - 1),
    st.slices(ROWS),
    st.none(),
    st.just(...),
    st.lists(st.integers(-2, 2), min_size=1, max_size=3),
    st.lists(st.booleans(), min_size=ROWS, max_size=ROWS),
    st.integers(-2, 2).map(lambda n: np.array(n)),
)
index = st.one_of(item, st.lists(item, max_size=4).map(tuple))


def as_arrays(drawn):
    """Return the index with arrays for lists, as torch and NumPy both understand it."""
    parts = drawn if isinstance(drawn, tuple) else (drawn,)
    return tuple(np.asarray(part) if isinstance(part, list) else part for part in parts)


@settings(max_examples=300)
@given(drawn=index)
def test_any_index_means_what_it_means_in_torch(drawn):
    torch = pytest.importorskip("torch")
    plain = np.arange(2.0 * ROWS * COLUMNS).reshape(2, ROWS, COLUMNS)
    ours = tensor(plain, requires_grad=True)
    theirs = torch.from_numpy(plain.copy()).requires_grad_()
    parts = as_arrays(drawn)
    assume(sum(part is ... for part in parts) <= 1)
    for_torch = tuple(torch.from_numpy(p) if isinstance(p, np.ndarray) else p for p in parts)
    try:
        expected = theirs[for_torch]
    except (IndexError, ValueError):
        with pytest.raises((IndexError, ValueError)):
            negative_steps_aside(ours, parts)
        return

    result = ours[parts]
    factor = np.arange(1.0, expected.numel() + 1).reshape(tuple(expected.shape))
    (result * factor).sum().backward()
    (expected * torch.from_numpy(factor)).sum().backward()

    assert result.tolist() == expected.tolist()
    assert result.shape == tuple(expected.shape)
    assert ours.grad.tolist() == theirs.grad.tolist()
    assert np.shares_memory(result.array, ours.array) or not result.numel() or has_array(parts)


def negative_steps_aside(tensor_, parts):
    """Index, or raise IndexError where only torch refuses: a negative step."""
    tensor_[parts]
    if any(isinstance(part, slice) and (part.step or 1) < 0 for part in parts):
        raise IndexError


def has_array(parts):
    return any(isinstance(part, np.ndarray) and part.ndim for part in parts)


def test_gradients_of_repeated_ids_add_up():
    w = ones(3, 2, requires_grad=True)

    w[[1, 1, 2, 1]].sum().backward()

    assert w.grad.tolist() == [[0, 0], [3, 3], [1, 1]]


def test_gradients_of_repeated_pairs_add_up():
    w = ones(3, 2, requires_grad=True)

    w[[1, 1, 0], [0, 0, 1]].sum().backward()

    assert w.grad.tolist() == [[0, 1], [2, 0], [0, 0]]


@pytest.mark.parametrize(
    ("index", "name"),
    [
        (0, "SelectBackward0"),
        (slice(1), "SliceBackward0"),
        (None, "UnsqueezeBackward0"),
        (..., "AliasBackward0"),
        ((slice(1, None), 0), "SelectBackward0"),
        ([0, 1], "IndexBackward0"),
        ((0, [1, 0]), "IndexBackward0"),
        (tensor(1), "SelectBackward0"),
        (np.int64(1), "SelectBackward0"),
        (range(2), "IndexBackward0"),
        (True, "IndexBackward0"),
    ],
)
def test_grad_fn_is_named_as_in_torch(index, name):
    assert ones(3, 2, requires_grad=True)[index].grad_fn.name() == name


def test_an_element_is_a_view_too():
    t = zeros(3, 2)

    t[1, 1].fill_(5)

    assert t.tolist() == [[0, 0], [0, 5], [0, 0]]


def test_an_array_of_ids_may_be_reused_before_backward():
    w, ids = ones(3, 2, requires_grad=True), np.array([0, 1])
    result = w[ids]

    ids[:] = 2
    result.sum().backward()

    assert w.grad.tolist() == [[1, 1], [1, 1], [0, 0]]


def test_an_empty_list_selects_nothing():
    assert zeros(3, 2)[[]].shape == (0, 2)


def test_ids_of_every_shape_and_integer_dtype():
    t = arange(6).reshape(3, 2)

    for dtype in (np.int8, np.int16, np.int32, np.int64, np.uint32):
        assert t[np.array([[2], [0]], dtype)].tolist() == [[[4, 5]], [[0, 1]]]


@pytest.mark.parametrize(
    ("index", "match"),
    [
        (3, r"index 3 is out of bounds for dimension 0 with size 3"),
        ((0, -3), r"index -3 is out of bounds for dimension 1 with size 2"),
        ([0, 5], r"index 5 is out of bounds for dimension 0 with size 3"),
        ((0, 0, 0), r"too many indices for tensor of dimension 2"),
        ((..., ...), r"an index can only have a single ellipsis"),
        (1.5, r"only integers, slices .* are valid indices \(got float\)"),
        ("a", r"only integers, slices .* are valid indices \(got str\)"),
        (np.array([1.0]), r"tensors used as indices must be .*; got float64"),
        (np.array([1, 0, 1], np.uint8), r"got uint8. Cast ids to int64, and masks to bool"),
        (np.array([True, False]), r"boolean index did not match .* dimension 0"),
    ],
)
def test_indices_that_select_nothing_are_refused(index, match):
    with pytest.raises(IndexError, match=match):
        zeros(3, 2)[index]


@pytest.mark.parametrize(
    "index",
    [
        0,
        -1,
        slice(1, None),
        (slice(None), 1),
        ...,
        None,
        (0, 2),
        [0, 2],
        ([0, 2], [1, 1]),
        (slice(1, None), [0, 3]),
        ([2, 0], slice(None, None, 2)),
        np.arange(12).reshape(3, 4) % 5 == 0,
        np.array([True, False, True]),
        tensor([1, 1]),
        tensor(2),
        (1, [0, 2]),
    ],
)
def test_assignment_means_what_it_means_in_numpy(index):
    plain = np.arange(12.0).reshape(3, 4)
    t = tensor(plain)
    as_numpy = tuple(
        np.asarray(part) if isinstance(part, list) or hasattr(part, "grad_fn") else part
        for part in (index if isinstance(index, tuple) else (index,))
    )

    t[index] = -7
    plain[as_numpy] = -7

    assert t.tolist() == plain.tolist()


def test_assignment_where_numpy_and_torch_differ_is_refused():
    t = zeros(2, 3, 4)

    with pytest.raises(IndexError, match="Write the integer n as the slice n:n\\+1"):
        t[0, :, [1, 2]] = 1.0
