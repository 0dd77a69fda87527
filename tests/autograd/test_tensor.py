"""What a tensor tells about itself, and how it becomes something else."""

from __future__ import annotations

import copy
import operator
import pickle

import numpy as np
import pytest

from mmembed.autograd import Tensor, empty, from_numpy, ones, randn, tensor, zeros


def leaf(*shape):
    return ones(*shape, requires_grad=True)


def test_shape_dtype_and_sizes():
    t = zeros(3, 2)

    assert t.shape == (3, 2)
    assert t.dtype == np.dtype("float32")
    assert t.ndim == t.dim() == 2
    assert (t.size(), t.size(0), t.size(-1)) == ((3, 2), 3, 2)
    assert t.numel() == 6
    assert len(t) == 3
    assert zeros(2, 3, 4).T.shape == (4, 3, 2)
    assert zeros(2, 3, 4).mT.shape == (2, 4, 3)


def test_a_leaf_and_a_result():
    w = leaf(2)
    result = w * 2

    assert (w.is_leaf, w.requires_grad, w.grad_fn) == (True, True, None)
    assert (result.is_leaf, result.requires_grad) == (False, True)
    assert result.grad_fn.name() == "MulBackward0"
    assert result.grad_fn.next_functions[0][0].name() == "AccumulateGrad"


def test_requires_grad_can_be_set_on_leaves():
    t = ones(2)

    assert t.requires_grad_() is t
    assert t.requires_grad
    t.requires_grad = False
    assert not t.requires_grad


def test_a_tensor_is_hashed_by_identity():
    a, b = ones(2), ones(2)

    assert len({a, b, a}) == 2


def test_comparisons_give_bools_without_gradient():
    a = tensor([1.0, 2.0, 3.0], requires_grad=True)

    for compare in (
        operator.eq, operator.ne, operator.lt, operator.le, operator.gt, operator.ge
    ):  # fmt: skip
        result = compare(a, 2)
        assert result.tolist() == [compare(x, 2) for x in (1, 2, 3)]
        assert result.dtype == np.bool_
        assert not result.requires_grad
    assert (np.array([1, 5, 3]) == a).tolist() == [True, False, True]
    assert a.eq(a).all().item()
    assert not a.ne(a).any().item()


def test_comparison_with_something_else_is_false():
    a = ones(2)

    assert (a == None) is False  # noqa: E711
    assert (a != "x") is True


def test_bool_tensors_have_logic():
    a, b = tensor([True, True, False]), tensor([True, False, False])

    assert (a & b).tolist() == [True, False, False]
    assert (a | b).tolist() == [True, True, False]
    assert (~a).tolist() == [False, False, True]


def test_contains_looks_for_an_equal_element():
    assert 2 in tensor([1, 2])
    assert 3 not in tensor([1, 2])


def test_iteration_gives_differentiable_rows():
    w = leaf(3, 2)

    total = sum(row.sum() * factor for factor, row in enumerate(w))
    total.backward()

    assert w.grad.tolist() == [[0, 0], [1, 1], [2, 2]]


def test_numbers_come_out_as_python_numbers():
    assert tensor([[2.5]]).item() == 2.5
    assert type(tensor(3).item()) is int
    assert float(tensor([2.5])) == 2.5
    assert int(tensor(2.9)) == 2
    assert bool(tensor([0.0])) is False
    assert [10, 20, 30][tensor(1)] == 20
    assert tensor([[1, 2], [3, 4]]).tolist() == [[1, 2], [3, 4]]
    assert tensor(1.5).tolist() == 1.5
    assert float(leaf(1).sum()) == 1


def test_a_scalar_is_formatted_as_its_number():
    assert f"{tensor(2.5):.3f}" == "2.500"
    assert f"{tensor(7):>3}" == "  7"
    assert f"{tensor([1, 2])}" == "tensor([1, 2])"


def test_torch_imports_a_tensor_without_a_copy():
    torch = pytest.importorskip("torch")
    t = tensor([1.0, 2.0])

    torch.from_dlpack(t)[0] = 5

    assert t.tolist() == [5, 2]


def test_numpy_shares_memory_and_refuses_tensors_that_require_grad():
    t = zeros(2)

    t.numpy()[0] = 5

    assert t.tolist() == [5, 0]
    assert np.asarray(t) is t.array
    assert leaf(2).detach().numpy().tolist() == [1, 1]
    for convert in (lambda w: w.numpy(), np.asarray, np.array):
        with pytest.raises(RuntimeError) as caught:
            convert(leaf(2))
        assert str(caught.value) == (
            "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."
        )


def test_array_protocol_takes_dtype_and_copy():
    t = zeros(2)

    assert np.asarray(t, np.float64).dtype == np.float64
    assert not np.shares_memory(np.array(t, copy=True), t.array)
    with pytest.raises(ValueError, match="Unable to avoid copy"):
        np.array(t, np.float64, copy=False)


def test_dlpack_shares_memory():
    t = tensor([1.0, 2.0])

    imported = np.from_dlpack(t)

    assert np.shares_memory(imported, t.array)
    assert t.__dlpack_device__() == (1, 0)
    with pytest.raises(BufferError) as caught:
        np.from_dlpack(leaf(2))
    assert str(caught.value) == ("Can't export tensors that require gradient, use tensor.detach()")


@pytest.mark.skipif(np.lib.NumpyVersion(np.__version__) < "2.1.0", reason="NumPy has no options")
def test_dlpack_passes_numpys_options_on():
    array = np.zeros(2, np.float32)
    array.flags.writeable = False
    t = from_numpy(array)

    with pytest.raises(BufferError, match=r"readonly|read-only"):
        t.__dlpack__()
    assert t.__dlpack__(stream=None, max_version=(1, 0), dl_device=(1, 0), copy=None) is not None


def test_an_array_on_the_left_leaves_the_operation_to_the_tensor():
    w = leaf(2)

    for result in (
        np.ones(2, np.float32) + w,
        np.ones(2, np.float32) - w,
        np.ones(2, np.float32) * w,
        np.ones(2, np.float32) / w,
        np.ones(2, np.float32) ** w,
        np.ones((3, 2), np.float32) @ w,
        np.float32(2) * w,
    ):
        assert type(result) is Tensor
        assert result.dtype == np.float32
        assert result.requires_grad


def test_foreign_operands_are_left_to_their_own_class():
    class Foreign:
        def __radd__(self, other):
            return "mine"

    assert ones(2) + Foreign() == "mine"
    with pytest.raises(TypeError, match="unsupported operand"):
        ones(2) + "a"
    with pytest.raises(TypeError, match="expected a Tensor, an ndarray or a number, got str"):
        ones(2).add("a")


def test_deepcopy_copies_elements_and_gradient():
    w = leaf(2)
    (w * 2).sum().backward()
    w.detach().add_(1)

    twin = copy.deepcopy(w)

    assert not np.shares_memory(twin.array, w.array)
    assert (twin.tolist(), twin.requires_grad, twin._version) == ([2, 2], True, 0)
    assert twin.grad.tolist() == [2, 2]
    assert twin.grad is not w.grad


def test_pickle_keeps_elements_and_requires_grad_only():
    w = leaf(2)
    w.sum().backward()

    twin = pickle.loads(pickle.dumps(w))

    assert (twin.tolist(), twin.requires_grad, twin.grad) == ([1, 1], True, None)
    assert pickle.loads(pickle.dumps(w * 2)).is_leaf


def test_a_tensor_is_made_of_an_array_of_numbers():
    with pytest.raises(TypeError, match=r"expected np.ndarray \(got list\). Use tensor\(data\)"):
        Tensor([1.0])
    with pytest.raises(
        TypeError, match=r"numpy\.complex64\. The only supported types are: float64"
    ):
        Tensor(np.zeros(2, np.complex64))
    with pytest.raises(TypeError, match="native byte order; got dtype\\('>f4'\\)"):
        Tensor(np.zeros(2, ">f4"))


@pytest.mark.parametrize(
    ("make", "text"),
    [
        (lambda: tensor([[1.0, 2.0]]), "tensor([[1., 2.]])"),
        (lambda: tensor([1.5, 2.25]), "tensor([1.5000, 2.2500])"),
        (lambda: tensor([[1.0]], requires_grad=True), "tensor([[1.]], requires_grad=True)"),
        (lambda: leaf(1) * 2, "tensor([2.], grad_fn=<MulBackward0>)"),
        (lambda: tensor(3), "tensor(3)"),
        (lambda: tensor([True]), "tensor([True])"),
        (lambda: ones(1, dtype=np.float64), "tensor([1.], dtype=float64)"),
        (lambda: zeros(2, dtype=np.int32), "tensor([0, 0], dtype=int32)"),
        (lambda: empty(0), "tensor([])"),
        (lambda: empty(0, 3), "tensor([], size=(0, 3))"),
        (lambda: empty(0, dtype=np.int64), "tensor([], dtype=int64)"),
    ],
)
def test_repr(make, text):
    assert repr(make()) == text


def test_repr_of_a_huge_tensor_reads_little_of_it():
    huge = from_numpy(np.broadcast_to(np.float32(1.5), (1 << 40, 64)))

    assert repr(huge).count("1.5000") == 36
    assert "..." in repr(huge)


def test_repr_agrees_with_torch():
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    arrays = [
        np.array(1.5),
        np.array([1e10, 1e-5]),
        np.array([1.5, 2.25, 3e-5]),
        np.array([0.5, np.inf]),
        np.array([-1, 100, 3]),
        np.array([[True, False]]),
        np.array([1e9, 2e9]),
        rng.standard_normal((3, 4)),
        rng.standard_normal((2, 3, 4)) * 100,
        rng.standard_normal((50, 50)),
        rng.standard_normal(1001),
        np.arange(2000).reshape(2, 1000),
        np.arange(30).reshape(2, 15) * 1000,
    ]

    for array in arrays:
        single = array.astype(np.float32) if array.dtype.kind == "f" else array
        ours, theirs = repr(tensor(single)), repr(torch.from_numpy(single.copy()))
        assert ours.split() == theirs.split()


def test_casts_are_differentiable():
    w = leaf(2)

    (w.double() * 3).sum().backward()

    assert w.double().dtype == np.float64
    assert w.double().float().dtype == np.float32
    assert w.to("float64").dtype == np.float64
    assert w.to(np.float32) is w
    assert w.grad.dtype == np.float32
    assert w.grad.tolist() == [3, 3]


def test_methods_of_operations_have_their_documentation():
    assert Tensor.sum.__doc__.startswith("Return the sum")
    assert Tensor.__add__.__doc__ == "Return input + other."


def test_randn_like_shapes_are_kept():
    t = randn(3, 2)

    assert t.clone().shape == t.shape
    assert t.t().clone().tolist() == t.t().tolist()
