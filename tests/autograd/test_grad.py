"""What arrives in `.grad`: whose memory it is, how it adds up, and what may be assigned."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed.autograd import Tensor, from_numpy, ones, randn, record, tensor


class Rows:
    """A gradient of some rows: the least that the tape and the rules ask of a sparse gradient."""

    __array_ufunc__ = None

    def __init__(self, shape, entries):
        self.shape = shape
        self.entries = list(entries)
        self.dtype = np.dtype(np.float32)

    def dense(self):
        array = np.zeros(self.shape, self.dtype)
        for row, value in self.entries:
            array[row] += value
        return array

    def clone(self):
        return Rows(self.shape, [(row, value.copy()) for row, value in self.entries])

    def __add__(self, other):
        if isinstance(other, Rows):
            return Rows(self.shape, self.entries + other.entries)
        return self.dense() + other

    def __radd__(self, other):
        return other + self.dense()

    def __mul__(self, factor):
        return Rows(self.shape, [(row, value * factor) for row, value in self.entries])

    def __truediv__(self, divisor):
        return self * (1 / divisor)

    def __neg__(self):
        return self * -1


def pick(weight, *rows):
    """Look rows up; the gradient for `weight` is `Rows`."""
    shape = weight.shape

    def rule(upstream):
        return Rows(shape, zip(rows, upstream, strict=True))

    return record("Pick", weight.array[list(rows)], (weight, rule, ()))


def leaf(*shape):
    return ones(*shape, requires_grad=True)


def test_leaves_of_a_sum_get_gradients_of_their_own():
    a, b = leaf(3), leaf(3)
    (a + b).backward(ones(3))

    a.grad.zero_()

    assert b.grad.tolist() == [1, 1, 1]


def test_gradients_do_not_alias_the_upstream():
    w, upstream = leaf(3), ones(3)
    w.clone().backward(upstream)

    upstream.mul_(5)

    assert w.grad.tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    "view",
    [
        lambda w: w.t(),
        lambda w: w.reshape(6),
        lambda w: w.unsqueeze(0),
        lambda w: w.clone(),
        lambda w: w + 0,
        lambda w: w.squeeze(),
    ],
)
def test_gradients_through_views_and_identities_do_not_alias_the_upstream(view):
    w = leaf(3, 2)
    result = view(w)
    upstream = ones(*result.shape)
    result.backward(upstream)

    w.grad.mul_(7)

    assert np.all(upstream.array == 1)
    assert not np.shares_memory(w.grad.array, upstream.array)


def test_the_gradient_of_a_sum_can_be_changed():
    w = leaf(3, 2)
    w.sum().backward()

    w.grad[0] = 5.0

    assert w.grad.tolist() == [[5, 5], [1, 1], [1, 1]]


def made_by(rule_result):
    """Return an operation whose rule returns the given array."""
    return lambda w: record("Made", w.array.copy(), (w, lambda upstream: rule_result, ()))


def test_a_fresh_array_becomes_the_gradient_without_a_copy():
    w, fresh = leaf(3), np.zeros(3, np.float32)

    made_by(fresh)(w).backward(ones(3))

    assert w.grad.array is fresh


def test_a_fresh_array_that_passes_identities_becomes_the_gradient_without_a_copy():
    w, fresh = leaf(3), np.zeros(3, np.float32)

    made_by(fresh)(w.clone() + 1).backward(ones(3))

    assert w.grad.array is fresh


def test_a_fresh_array_that_two_leaves_receive_is_copied():
    a, b, fresh = leaf(3), leaf(3), np.zeros(3, np.float32)

    made_by(fresh)(a + b).backward(ones(3))

    assert not np.shares_memory(a.grad.array, b.grad.array)


def test_a_view_is_copied_before_it_becomes_the_gradient():
    w, fresh = leaf(3), np.zeros((2, 3), np.float32)

    made_by(fresh[0])(w).backward(ones(3))

    assert not np.shares_memory(w.grad.array, fresh)


def test_dense_gradients_add_up_in_the_same_tensor():
    w = leaf(2)
    (w * 2).sum().backward()
    first, memory = w.grad, w.grad.array

    (w * 3).sum().backward()

    assert w.grad is first
    assert w.grad.array is memory
    assert w.grad.tolist() == [5, 5]
    assert w.grad._version == 1


def test_a_gradient_that_was_assigned_is_added_to():
    w = leaf(2)
    w.grad = tensor([10.0, 20.0])

    (w * 2).sum().backward()

    assert w.grad.tolist() == [12, 22]


def test_gradients_are_leaves_that_require_no_gradient():
    w = leaf(2)

    (w * w).sum().backward()

    assert w.grad.is_leaf
    assert not w.grad.requires_grad


def test_a_sparse_gradient_arrives_as_it_is():
    w = leaf(4, 2)

    pick(w, 2, 0, 2).sum().backward()

    assert isinstance(w.grad, Rows)
    assert [row for row, _ in w.grad.entries] == [2, 0, 2]


def test_sparse_gradients_of_one_backward_add_up():
    w = leaf(4, 2)

    (pick(w, 2, 0) * pick(w, 1, 1)).sum().backward()

    assert sorted(row for row, _ in w.grad.entries) == [0, 1, 1, 2]


def test_sparse_and_dense_gradients_of_one_backward_make_a_dense_one():
    w = leaf(3, 2)

    (pick(w, 2).sum() + (w * 2).sum()).backward()

    assert w.grad.tolist() == [[2, 2], [2, 2], [3, 3]]


def test_sparse_after_sparse_makes_a_sparse_one():
    w = leaf(4, 2)

    pick(w, 2, 0).sum().backward()
    pick(w, 0, 1).sum().backward()

    assert [row for row, _ in w.grad.entries] == [2, 0, 0, 1]


def test_dense_after_sparse_makes_a_dense_tensor():
    w = leaf(2, 2)
    pick(w, 1).sum().backward()

    (w * 2).sum().backward()

    assert isinstance(w.grad, Tensor)
    assert w.grad.tolist() == [[2, 2], [3, 3]]


def test_sparse_after_dense_stays_in_the_same_tensor():
    w = leaf(2, 2)
    (w * 2).sum().backward()
    first, memory = w.grad, w.grad.array

    pick(w, 1).sum().backward()

    assert w.grad is first
    assert w.grad.array is memory
    assert w.grad.tolist() == [[2, 2], [3, 3]]


@pytest.mark.parametrize(
    ("between", "factor"),
    [
        (lambda w: w.clone(), 1),
        (lambda w: w * 2, 2),
        (lambda w: 2 * w, 2),
        (lambda w: w / 4, 0.25),
        (lambda w: -w, -1),
        (lambda w: w + 1, 1),
        (lambda w: 1 - w, -1),
        (lambda w: w - 1, 1),
        (lambda w: (w * 2).clone() / 4 + 1, 0.5),
        (lambda w: w.clone().mul_(3), 3),
        (lambda w: w.clone().add_(3), 1),
    ],
)
def test_sparse_gradients_pass_through_scaling_and_identities(between, factor):
    w = leaf(3, 2)

    pick(between(w), 2, 0).sum().backward()

    assert isinstance(w.grad, Rows)
    assert [(row, value.tolist()) for row, value in w.grad.entries] == [
        (2, [factor, factor]),
        (0, [factor, factor]),
    ]


def test_a_sparse_gradient_that_two_leaves_receive_is_cloned():
    a, b = leaf(3, 2), leaf(3, 2)

    pick(a + b, 1).sum().backward()

    assert a.grad is not b.grad
    assert not np.shares_memory(a.grad.entries[0][1], b.grad.entries[0][1])


def test_a_sparse_gradient_over_the_callers_upstream_is_cloned():
    w, upstream = leaf(3, 2), ones(1, 2)
    pick(w, 1).backward(upstream)

    upstream.mul_(5)

    assert w.grad.entries[0][1].tolist() == [1, 1]


def test_a_sparse_gradient_may_be_assigned():
    w = leaf(3, 2)
    w.grad = Rows((3, 2), [])

    pick(w, 1).sum().backward()

    assert [row for row, _ in w.grad.entries] == [1]


def test_a_gradient_of_another_shape_is_refused():
    message = (
        "attempting to assign a gradient of size '[3, 2]' to a tensor of size '[4, 2]'. Please "
        "ensure that the gradient and the tensor are the same size"
    )

    for gradient in (ones(3, 2), Rows((3, 2), [])):
        with pytest.raises(RuntimeError) as caught:
            leaf(4, 2).grad = gradient
        assert str(caught.value) == message


@pytest.mark.parametrize(
    ("gradient", "name"), [(np.ones(2), "numpy.ndarray"), (1.0, "float"), ([1.0], "list")]
)
def test_a_gradient_that_is_no_tensor_is_refused(gradient, name):
    with pytest.raises(TypeError) as caught:
        leaf(2).grad = gradient

    assert str(caught.value) == (
        f"assigned grad expected to be a Tensor or None but got grad of type {name}"
    )


def test_none_may_be_assigned():
    w = leaf(2)
    w.sum().backward()

    w.grad = None

    assert w.grad is None


@pytest.mark.parametrize(
    "wrong", [np.zeros(3, np.float32), np.zeros(2, np.float64), np.zeros((), np.float32)]
)
def test_a_rule_that_gives_another_shape_or_dtype_is_named(wrong):
    with pytest.raises(RuntimeError, match=r"for a leaf of shape \[2\] and dtype float32"):
        made_by(wrong)(leaf(2)).backward(ones(2))


def test_backward_of_a_leaf_gives_it_the_gradient():
    w = leaf(2)

    w.backward(tensor([3.0, 4.0]))
    w.backward(tensor([3.0, 4.0]))

    assert w.grad.tolist() == [6, 8]


def test_backward_casts_its_gradient_to_the_dtype_of_the_tensor():
    w = leaf(2)

    (w * 2).backward(tensor(np.ones(2)))

    assert w.grad.dtype == np.float32


def test_a_leaf_that_no_longer_requires_grad_collects_nothing():
    w = leaf(2)
    result = (w * 2).sum()

    w.requires_grad_(False)
    result.backward()

    assert w.grad is None


def test_a_nonleaf_has_no_gradient():
    middle = leaf(2) * 2

    middle.sum().backward()

    assert middle.grad is None


def test_gradients_reach_each_leaf_in_its_own_dtype():
    single, double = leaf(2), tensor(np.ones(2), requires_grad=True)

    (single * double).sum().backward()

    assert (single.grad.dtype, double.grad.dtype) == (np.float32, np.float64)


def test_backward_of_a_huge_linear_map_needs_one_gradient_array():
    w = randn(1000, 100)
    w.requires_grad_()
    seen = []

    def rule(upstream):
        seen.append(np.zeros((1000, 100), np.float32))
        return seen[-1]

    record("Huge", np.float32(0), (w, rule, ())).backward()

    assert w.grad.array is seen[0]


def test_division_by_zero_in_backward_is_silent():
    w = tensor([0.0], requires_grad=True)

    w.log().backward(from_numpy(np.ones(1, np.float32)))

    assert w.grad.tolist() == [np.inf]
