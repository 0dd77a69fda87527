"""RowGrad against torch's sparse tensors, and as a value that adds."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.autograd import Tensor, ones, tensor
from mmembed.rows import RowGrad, RowPlan


def grad_of(ids, rows=5, dim=2, dtype=np.float32, seed=0):
    rng = np.random.default_rng(seed)
    entries = rng.standard_normal((len(ids), dim)).astype(dtype)
    return RowGrad(RowPlan(np.array(ids, np.int64), rows), entries)


def to_torch(grad):
    torch = pytest.importorskip("torch")
    return torch.sparse_coo_tensor(
        torch.from_numpy(grad.plan.ids[None].copy()),
        torch.from_numpy(grad.entries.copy()),
        grad.shape,
        check_invariants=True,
    )


def same(got, want):
    """Two sparse gradients, entry by entry; sums may differ in the last bit."""
    np.testing.assert_array_equal(got._indices().numpy(), want._indices().numpy())
    np.testing.assert_allclose(got._values().numpy(), want._values().numpy(), rtol=2e-6, atol=1e-7)
    assert got._nnz() == want._nnz()
    assert got.shape == tuple(want.shape)


lists = st.lists(st.integers(0, 4), max_size=12)


@given(ids=lists, dtype=st.sampled_from([np.float32, np.float64]))
def test_coalesce_and_to_dense_agree_with_torch(ids, dtype):
    grad = grad_of(ids, dtype=dtype)
    want = to_torch(grad)

    same(grad, want)
    same(grad.coalesce(), want.coalesce())
    np.testing.assert_allclose(
        grad.to_dense().numpy(), want.to_dense().numpy(), rtol=2e-6, atol=1e-7
    )
    coalesced = grad.coalesce()
    assert coalesced.is_coalesced()
    assert coalesced.coalesce() is coalesced
    assert grad.is_coalesced() == (len(ids) < 2)


@given(left=lists, right=lists)
def test_arithmetic_agrees_with_torch(left, right):
    a, b = grad_of(left, seed=1), grad_of(right, seed=2)
    ta, tb = to_torch(a), to_torch(b)

    same(a * 2, ta * 2)
    same(-a, -ta)
    same(a / 3.0, ta / 3.0)
    same(a.clone(), ta.clone())
    np.testing.assert_allclose(
        (a + b).to_dense().numpy(), (ta + tb).to_dense().numpy(), rtol=2e-6, atol=1e-6
    )
    assert (a + b)._indices().numpy().tolist() == [[*left, *right]]
    np.testing.assert_allclose(a.norm().item(), ta.norm().item(), rtol=1e-6)


def test_numbers_and_0d_arrays_keep_the_dtype():
    grad = grad_of([1, 1])

    for factor in (2, 2.0, np.float64(2), np.array(2.0), tensor(2.0)):
        assert (grad * factor).dtype == np.float32
        assert (factor * grad).dtype == np.float32


def test_dense_plus_sparse_is_dense_and_leaves_both_alone():
    grad = grad_of([1, 3, 1])
    dense = np.ones((5, 2), np.float32)

    for total in (dense + grad, grad + dense):
        assert isinstance(total, np.ndarray)
        np.testing.assert_allclose(total, 1 + grad.to_dense().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(dense, 1)
    assert isinstance(ones((5, 2)) + grad, Tensor)


def test_sparse_plus_a_dense_tensor_is_refused_in_torchs_words():
    with pytest.raises(RuntimeError, match=r"add\(sparse, dense\) is not supported"):
        grad_of([1]) + ones((5, 2))


def test_gradients_of_different_shapes_do_not_add():
    with pytest.raises(RuntimeError, match=r"\(6, 2\).*\(5, 2\)"):
        grad_of([1]) + grad_of([1], rows=6)


def test_an_array_scales_each_entry_by_its_part():
    grad = grad_of([1, 0, 1])
    for shape in ((), grad.shape, grad.shape[1:], (grad.shape[0], 1), (1, 1)):
        factor = np.arange(1.0, 1 + np.prod(shape)).reshape(shape)

        for scaled, want in (
            (grad * factor, grad.to_dense().array * factor),
            (factor * grad, grad.to_dense().array * factor),
            (grad / tensor(factor), grad.to_dense().array / factor),
        ):
            assert scaled.dtype == grad.dtype
            assert scaled.plan is grad.plan
            np.testing.assert_allclose(scaled.to_dense().array, want, rtol=1e-6)


def test_an_array_that_does_not_broadcast_is_no_factor():
    with pytest.raises(RuntimeError, match="does not broadcast to that of the gradient"):
        grad_of([1]) * np.ones(77)


def test_zeroing_forgets_the_entries():
    grad = grad_of([1, 0, 1])
    shape = grad.shape

    assert grad.zero_() is grad

    assert (grad._nnz(), grad.shape, grad.is_coalesced()) == (0, shape, True)
    assert not grad.to_dense().array.any()


@pytest.mark.parametrize("dtype", ["bool", "int64"])
def test_entries_of_other_dtypes_are_refused(dtype):
    with pytest.raises(TypeError, match="entries must be floating"):
        RowGrad(grad_of([1]).plan, np.ones((1, 2), dtype))


def test_indices_and_values_are_refused_before_coalesce():
    grad = grad_of([1, 0])

    with pytest.raises(RuntimeError, match="Cannot get indices on an uncoalesced tensor, please"):
        grad.indices()
    with pytest.raises(RuntimeError, match="Cannot get values on an uncoalesced tensor, please"):
        grad.values()
    assert grad.coalesce().indices().numpy().tolist() == [[0, 1]]
    assert grad.coalesce().values().shape == (2, 2)


def test_a_clone_shares_nothing():
    grad = grad_of([1, 0])
    before = grad.entries.copy()

    grad.clone().entries[...] = 9

    np.testing.assert_array_equal(grad.entries, before)


def test_repr_names_ids_shape_and_dtype():
    text = repr(grad_of([1, 0]))

    assert text == "RowGrad(ids=[1 0], shape=(5, 2), nnz=2, dtype=float32, coalesced=False)"


def test_entries_must_fit_the_ids():
    with pytest.raises(ValueError, match=r"\(2, dim\), got \(3, 2\)"):
        RowGrad(RowPlan(np.array([0, 1]), 5), np.ones((3, 2)))


@pytest.mark.parametrize(
    "name", ["__pow__", "sqrt", "__getitem__", "norm", "mul_", "div_", "__sub__"]
)
@given(ids=lists)
def test_more_operations_agree_with_torch(name, ids):
    grad = grad_of(ids)
    grad.entries[...] = np.abs(grad.entries)
    theirs = to_torch(grad)
    arguments = {
        "__pow__": ((2,), (2,)), "__getitem__": ((1,), (1,)), "mul_": ((3,), (3,)),
        "div_": ((4,), (4,)), "__sub__": ((grad.clone(),), (theirs.clone(),)),
    }.get(name, ((), ()))  # fmt: skip

    got, want = getattr(grad, name)(*arguments[0]), getattr(theirs, name)(*arguments[1])

    if isinstance(got, Tensor):
        want = want.to_dense() if want.is_sparse else want
        np.testing.assert_allclose(got.numpy(), want.numpy(), rtol=2e-6, atol=1e-7)
        assert got.shape == tuple(want.shape)
    elif name == "__sub__":
        np.testing.assert_allclose(
            got.to_dense().numpy(), want.to_dense().numpy(), rtol=2e-6, atol=1e-6
        )
    else:
        same(got, want)


def test_in_place_operations_change_the_gradient_itself():
    grad = grad_of([2, 0, 2])
    want = grad.to_dense().numpy().copy()

    for change in (lambda: grad.mul_(2), lambda: grad.div_(2), grad.coalesce_):
        assert change() is grad

    assert grad.indices().tolist() == [[0, 2]]
    np.testing.assert_allclose(grad.to_dense().numpy(), want, rtol=1e-6)


def test_adding_in_place_keeps_the_gradient_and_sums_when_there_are_too_many_entries():
    grad = total = grad_of([0, 1], rows=2, dim=1)
    once = grad.to_dense().numpy().copy()

    total += grad_of([0, 1], rows=2, dim=1)

    assert total is grad
    assert grad._indices().tolist() == [[0, 1]]  # 4 entries for 2 elements
    np.testing.assert_allclose(grad.to_dense().numpy(), 2 * once)
    total += np.ones((2, 1), np.float32)
    assert isinstance(total, np.ndarray)


def test_a_row_gradient_is_no_array_and_no_sequence():
    grad = grad_of([1])

    with pytest.raises(TypeError, match=r"can't convert Sparse layout tensor to numpy. Use Tensor"):
        grad.numpy()
    with pytest.raises(TypeError, match="not iterable"):
        iter(grad)
    with pytest.raises(IndexError, match="row 5 is outside the gradient, which has 5 rows"):
        grad[5]
    assert (len(grad), grad.dim(), grad.size(), grad.size(1)) == (5, 2, (5, 2), 2)
    assert grad[-4].tolist() == grad[1].tolist()


def test_a_sparse_gradient_minus_a_dense_one_is_dense():
    grad = grad_of([1, 1])
    dense = np.ones(grad.shape, np.float32)

    np.testing.assert_allclose(grad - dense, grad.to_dense().numpy() - 1)
    np.testing.assert_allclose(dense - grad, 1 - grad.to_dense().numpy())
    with pytest.raises(RuntimeError, match=r"add\(sparse, dense\) is not supported"):
        grad - ones(grad.shape)


@pytest.mark.parametrize("sorted_before", [True, False])
def test_a_widened_gradient_is_zero_in_the_further_rows(sorted_before):
    narrow = RowGrad(RowPlan(np.array([2, 0, 2]), 3), np.ones((3, 2)))
    if sorted_before:
        assert narrow.plan.unique.tolist() == [0, 2]
    wide = narrow.widened(5)

    assert wide.shape == (5, 2)
    assert wide.to_dense().tolist() == [[1, 1], [0, 0], [2, 2], [0, 0], [0, 0]]
    assert narrow.shape == (3, 2)
    assert wide.coalesce().widened(6).is_coalesced()


def test_augmented_assignment_changes_the_gradient_itself():
    grad = whole = grad_of([1, 0, 1])
    want = grad.to_dense().numpy().copy()

    whole *= 4
    whole /= 2
    whole -= grad_of([1, 0, 1])

    assert whole is grad
    np.testing.assert_allclose(grad.to_dense().numpy(), want, rtol=1e-6)


@given(left=lists, right=lists)
def test_products_of_two_agree_with_torch(left, right):
    a, b = grad_of(left), grad_of(right, seed=1)

    got = a * b

    want = a.to_dense().numpy() * b.to_dense().numpy()
    np.testing.assert_allclose(got.to_dense().numpy(), want, rtol=2e-6, atol=1e-7)
    assert got.is_coalesced()


@pytest.mark.parametrize("exponent", [0, -1])
def test_powers_that_do_not_keep_zeros_are_refused(exponent):
    with pytest.raises(RuntimeError, match="call to_dense"):
        grad_of([1]) ** exponent


def test_a_sparse_gradient_may_be_added_in_place_to_a_tensor():
    grad = grad_of([1, 0, 1])
    weight = ones(grad.shape)

    weight -= 0.5 * grad
    weight.add_(grad, alpha=-0.5)

    np.testing.assert_allclose(weight.numpy(), 1 - grad.to_dense().numpy(), rtol=1e-6)
