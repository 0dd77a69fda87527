"""Changes in place: what they write, what they record, and when they are refused."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.autograd import arange, from_numpy, manual_seed, no_grad, ones, tensor, zeros
from mmembed.errors import ReadOnlyTableError


def leaf(*shape):
    return ones(*shape, requires_grad=True)


LEAF = "a leaf Variable that requires grad is being used in an in-place operation."
VIEW = "a view of a leaf Variable that requires grad is being used in an in-place operation."
CHANGES = {
    "add_": lambda t: t.add_(2.0),
    "sub_": lambda t: t.sub_(2.0),
    "mul_": lambda t: t.mul_(2.0),
    "div_": lambda t: t.div_(2.0),
    "neg_": lambda t: t.neg_(),
    "copy_": lambda t: t.copy_(tensor(2.0)),
    "zero_": lambda t: t.zero_(),
    "fill_": lambda t: t.fill_(2.0),
    "normal_": lambda t: t.normal_(),
    "uniform_": lambda t: t.uniform_(),
    "+=": lambda t: t.__iadd__(2.0),
    "-=": lambda t: t.__isub__(2.0),
    "*=": lambda t: t.__imul__(2.0),
    "/=": lambda t: t.__itruediv__(2.0),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_is_made_in_the_tensors_own_memory_and_returns_it(name):
    array = np.full((2, 2), 3.0, np.float32)
    t = from_numpy(array)

    assert CHANGES[name](t) is t
    assert t.array is array
    assert not np.array_equal(array, np.full((2, 2), 3.0))


@pytest.mark.parametrize("name", CHANGES)
def test_a_leaf_that_requires_grad_is_refused_and_not_changed(name):
    w = leaf(2, 2)

    with pytest.raises(RuntimeError) as caught:
        CHANGES[name](w)

    assert str(caught.value) == LEAF
    assert w._version == 0
    assert np.all(w.array == 1)


@pytest.mark.parametrize("view", [lambda w: w[0], lambda w: w.t(), lambda w: w[1:].view(-1)])
@pytest.mark.parametrize("name", CHANGES)
def test_a_view_of_such_a_leaf_is_refused_and_not_changed(name, view):
    w = leaf(2, 2)

    with pytest.raises(RuntimeError) as caught:
        CHANGES[name](view(w))

    assert str(caught.value) == VIEW
    assert np.all(w.array == 1)


@pytest.mark.parametrize("index", [0, slice(1, None), (0, 1), (slice(None), 0), ([0], 1)])
def test_assigning_to_a_part_of_such_a_leaf_is_refused(index):
    with pytest.raises(RuntimeError) as caught:
        leaf(2, 2)[index] = 1.0

    assert str(caught.value) == VIEW


@pytest.mark.parametrize("index", [[0], ..., slice(None), np.array([True, False])])
def test_assigning_to_such_a_leaf_by_ids_or_whole_is_refused(index):
    with pytest.raises(RuntimeError) as caught:
        leaf(2, 2)[index] = 1.0

    assert str(caught.value) == LEAF


@pytest.mark.parametrize("name", CHANGES)
def test_no_grad_allows_every_change(name):
    w = leaf(2, 2)

    with no_grad():
        CHANGES[name](w)

    assert w.is_leaf
    assert w.requires_grad
    assert not np.all(w.array == 1)


@pytest.mark.parametrize("name", CHANGES)
def test_a_detached_view_may_be_changed(name):
    w = leaf(2, 2)

    CHANGES[name](w.detach())

    assert w._version == 1


@pytest.mark.parametrize("name", CHANGES)
def test_a_view_of_a_recorded_tensor_is_refused_and_clone_is_named(name):
    e = leaf(2, 2) * 1

    with pytest.raises(
        RuntimeError, match=r"view whose gradient is recorded .* clone\(\) of the view"
    ):
        CHANGES[name](e[0])

    assert np.all(e.array == 1)


@pytest.mark.parametrize("name", CHANGES)
def test_a_change_of_a_recorded_tensor_is_recorded(name):
    e = leaf(2, 2) * 1
    before = e.grad_fn

    CHANGES[name](e)

    assert e.grad_fn is not before
    assert not e.is_leaf


def test_grad_fn_is_named_after_the_change():
    e = leaf(2, 2) * 1
    names = []

    for change in (
        lambda: e.add_(1), lambda: e.mul_(2), lambda: e.zero_(), lambda: e.copy_(ones(2)),
        lambda: e.__setitem__(0, 5.0), lambda: e.__setitem__([0], 5.0), lambda: e.neg_(),
        lambda: e.normal_(), lambda: e.uniform_(),
    ):  # fmt: skip
        change()
        names.append(e.grad_fn.name())

    assert names == [
        "AddBackward0", "MulBackward0", "ZeroBackward0", "CopyBackwards", "CopySlices",
        "IndexPutBackward0", "NegBackward0", "NormalBackward0", "UniformBackward0",
    ]  # fmt: skip


def test_add_to_the_output_of_a_lookup_differentiates():
    w = leaf(3, 2)
    e = w[[0, 2, 2]]

    e.add_(1)
    (e * e).sum().backward()

    assert w.grad.tolist() == [[4, 4], [0, 0], [8, 8]]


def test_assigned_elements_cut_the_gradient():
    w = leaf(3)
    out = w * 2

    out[0] = 5
    out.sum().backward()

    assert out.tolist() == [5, 2, 2]
    assert w.grad.tolist() == [0, 2, 2]


def test_assigned_tensors_get_the_gradient():
    w, v = leaf(3, 2), leaf(2)
    out = w * 2

    out[1] = v
    (out * 3).sum().backward()

    assert w.grad.tolist() == [[6, 6], [0, 0], [6, 6]]
    assert v.grad.tolist() == [3, 3]


def test_assigning_a_recorded_tensor_to_a_constant_records_it():
    w = leaf(2)
    buffer = zeros(3, 2)

    buffer[1] = w * 2
    buffer.sum().backward()

    assert buffer.grad_fn.name() == "CopySlices"
    assert w.grad.tolist() == [2, 2]


def test_adding_a_recorded_tensor_to_a_constant_records_it():
    w = leaf(2)
    total = zeros(2)

    for _ in range(3):
        total += w * 2
    total.sum().backward()

    assert w.grad.tolist() == [6, 6]


def test_gradients_are_cast_back_to_the_assigned_tensors_dtype():
    w = leaf(2)
    buffer, copied = zeros(3, 2, dtype=np.float64), zeros(2, dtype=np.float64)

    buffer[0] = w
    copied.copy_(w)
    (buffer.sum() + copied.sum()).backward()

    assert w.grad.dtype == np.float32
    assert w.grad.tolist() == [2, 2]


def test_multiplying_in_place_by_what_needs_the_old_value_is_right():
    w, v = tensor([2.0, 3.0], requires_grad=True), tensor([5.0, 7.0], requires_grad=True)
    e = w * 1

    e.mul_(v)
    e.sum().backward()

    assert w.grad.tolist() == [5, 7]
    assert v.grad.tolist() == [2, 3]


def test_a_saved_tensor_that_is_changed_later_is_refused_in_backward():
    w = leaf(2)
    e = w * 1
    square = e**2

    e.add_(1)

    with pytest.raises(RuntimeError, match="is at version 1; expected version 0"):
        square.sum().backward()


@pytest.mark.parametrize(
    "use",
    [
        lambda view: view * 2,
        lambda view: view.sum(),
        lambda view: view.add_(1),
        lambda view: view.backward(),
    ],
)
def test_a_view_taken_before_a_recorded_change_is_refused(use):
    w = tensor([1.0], requires_grad=True)
    e = w * 1
    view = e[0]

    e.mul_(3)

    with pytest.raises(RuntimeError, match="taken before a recorded in-place change of its base"):
        use(view)


def test_a_view_of_a_constant_that_became_recorded_is_refused():
    buffer = zeros(2)
    view = buffer[0]

    buffer[1] = leaf(2)[0]

    with pytest.raises(RuntimeError, match=r"Take the view again after the change, or clone\(\)"):
        view * 2


def test_a_detached_tensor_may_become_recorded_and_its_views_follow():
    w, p = leaf(2), leaf(2)
    detached = w.detach()
    before = detached[0]

    detached.add_(p)

    assert detached.grad_fn.name() == "AddBackward0"
    assert w.is_leaf
    with pytest.raises(RuntimeError, match="taken before a recorded in-place change of its base"):
        before * 2
    with pytest.raises(RuntimeError, match="a view whose gradient is recorded"):
        detached[0].mul_(2)


def test_a_view_made_under_no_grad_is_a_constant():
    w = leaf(2)
    with no_grad():
        view = w[0]

    assert not view.requires_grad
    assert not (view * 2).requires_grad
    assert not view.t().requires_grad


def test_a_view_made_under_no_grad_of_a_constant_may_be_changed():
    buffer = zeros(2)
    with no_grad():
        view = buffer[0]

    view.add_(1)
    buffer.add_(leaf(2))

    assert view.item() == 2


def test_a_view_taken_after_the_change_is_right():
    w = leaf(2)
    e = w * 1

    e.mul_(3)
    e[0].backward()

    assert w.grad.tolist() == [3, 0]


def test_a_read_only_array_is_refused():
    array = np.ones((2, 2), np.float32)
    array.flags.writeable = False
    t = from_numpy(array)

    for change in (*CHANGES.values(), lambda t: t.__setitem__(0, 1.0), lambda t: t[0].zero_()):
        with pytest.raises(ReadOnlyTableError, match=r"read-only. Change a clone\(\)"):
            change(t)
    assert t._version == 0


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
def test_changes_keep_the_dtype(dtype):
    t = ones(3, dtype=dtype)

    t.add_(tensor([1, 2, 3])).mul_(2).sub_(1).copy_(tensor([1.7, 2.7, 3.7]))
    t[0] = 4.9
    t.neg_()

    assert t.dtype == dtype
    assert t.tolist()[0] == pytest.approx(-4.9 if dtype != np.int32 else -4)


def test_alpha_scales_what_is_added():
    t = ones(2)

    t.add_(ones(2), alpha=0.5).sub_(2, alpha=3)

    assert t.tolist() == [-4.5, -4.5]


def test_a_tensor_can_be_changed_by_itself():
    t = tensor([[1.0, 2.0], [3.0, 4.0]])

    t.add_(t.t())

    assert t.tolist() == [[2, 5], [5, 8]]


def test_random_fills_follow_the_seed():
    a, b, c = zeros(3, 2), zeros(3, 2), zeros(2, 3)
    manual_seed(5)
    a.normal_(10, 0.1)
    manual_seed(5)
    b.normal_(10, 0.1)
    manual_seed(5)
    c.t().normal_(10, 0.1)

    assert a.tolist() == b.tolist() == c.t().tolist()
    assert np.all(np.abs(a.array - 10) < 1)


def test_uniform_stays_in_its_range():
    t = zeros(1000).uniform_(-2, 3)

    assert -2 <= t.min().item() < -1.9
    assert 2.9 < t.max().item() <= 3


def test_random_fills_of_integers_are_refused():
    with pytest.raises(TypeError, match="random numbers need a floating tensor, got int64"):
        arange(3).normal_()


def test_objects_that_are_no_numbers_are_refused():
    t = zeros(2)

    for change in (t.add_, t.copy_, lambda value: t.__setitem__(0, value)):
        with pytest.raises(TypeError, match="expected a Tensor, an ndarray or a number, got str"):
            change("1")
