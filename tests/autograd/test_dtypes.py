"""Which dtype comes out: torch's promotion of tensors, arrays and numbers."""

from __future__ import annotations

import itertools
import operator

import numpy as np
import pytest

from mmembed.autograd import cat, ops, stack, tensor

DTYPES = [np.bool_, np.uint8, np.int32, np.int64, np.float16, np.float32, np.float64]
OPERATORS = [operator.add, operator.mul, operator.truediv]


def test_python_numbers_are_weak():
    single, integers = tensor([1.0, 2.0]), tensor([1, 2])

    for number in (2, 2.5, True, np.float64(2.5), np.int64(2)):
        assert (single * number).dtype == np.float32
        assert (number * single).dtype == np.float32
    assert (integers * 2).dtype == np.int64
    assert (integers * 2.5).dtype == np.float32
    assert (integers + True).dtype == np.int64


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: x / 2,
        lambda x: 2 / x,
        lambda x: x / x,
        lambda x: x.exp(),
        lambda x: x.log(),
        lambda x: x.sqrt(),
        lambda x: x.sigmoid(),
        lambda x: x.tanh(),
        lambda x: ops.logsigmoid(x),
        lambda x: x.mean(),
        lambda x: x.norm(),
        lambda x: x.softmax(0),
        lambda x: x.log_softmax(0),
        lambda x: ops.mse_loss(x, x),
    ],
)
def test_integers_become_float32_where_a_fraction_can_come_out(operation):
    assert operation(tensor([1, 2])).dtype == np.float32


def test_sums_of_small_integers_are_int64():
    for dtype in (np.bool_, np.int32, np.int64):
        assert tensor([1, 2], dtype=dtype).sum().dtype == np.int64
        assert tensor([1, 2], dtype=dtype).prod().dtype == np.int64


@pytest.mark.parametrize("operation", OPERATORS)
def test_promotion_agrees_with_torch(operation):
    torch = pytest.importorskip("torch")
    shapes = [((2,), (2,)), ((2,), ()), ((), (2,)), ((), ())]

    for first, second in itertools.product(DTYPES, DTYPES):
        for shape_a, shape_b in shapes:
            a, b = np.ones(shape_a, first), np.ones(shape_b, second)
            expected = operation(torch.from_numpy(a), torch.from_numpy(b)).numpy().dtype
            assert operation(tensor(a), tensor(b)).dtype == expected, (a, b)
            assert operation(tensor(a), b).dtype == expected, (a, b)


@pytest.mark.parametrize("number", [True, 2, 2.5])
@pytest.mark.parametrize("operation", OPERATORS)
def test_promotion_with_numbers_agrees_with_torch(operation, number):
    torch = pytest.importorskip("torch")

    for dtype, shape in itertools.product(DTYPES, [(2,), ()]):
        array = np.ones(shape, dtype)
        expected = operation(torch.from_numpy(array), number).numpy().dtype
        assert operation(tensor(array), number).dtype == expected, dtype


@pytest.mark.parametrize("join", [cat, stack])
def test_joined_tensors_are_promoted(join):
    assert join([tensor([1.0]), tensor([1])]).dtype == np.float32
    assert join([tensor([1.0]), tensor(np.ones(1))]).dtype == np.float64
    assert join([tensor([1]), tensor([True])]).dtype == np.int64


def test_gradients_of_promoted_operands_have_the_operands_dtypes():
    half, double = (tensor(np.ones(2, t), requires_grad=True) for t in (np.float16, np.float64))

    (half * double + half / tensor([2, 4])).sum().backward()

    assert half.grad.dtype == np.float16
    assert double.grad.dtype == np.float64
    assert half.grad.tolist() == [1.5, 1.25]
