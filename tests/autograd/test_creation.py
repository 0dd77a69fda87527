"""Making tensors: dtypes, sizes, sharing, and random numbers from a seed."""

from __future__ import annotations

import numpy as np
import pytest

from mmembed import autograd as ag


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        (1, np.int64),
        (True, np.bool_),
        ([1, 2.0], np.float32),
        ([], np.float32),
        ([[1, 2], [3, 4]], np.int64),
        ([True, 2], np.int64),
        (np.ones(2), np.float64),
        (np.ones(2, np.float16), np.float16),
        (np.float64(1), np.float64),
        ([np.float64(1)], np.float64),
        ([np.float32(1)], np.float32),
        ([np.ones(2)], np.float64),
        (ag.ones(2, dtype=np.float64), np.float64),
        ([ag.tensor(1.0), ag.tensor(2.0)], np.float32),
    ],
)
def test_tensor_finds_the_dtype(data, dtype):
    assert ag.tensor(data).dtype == dtype


def test_tensor_copies():
    array = np.zeros(2, np.float32)

    t = ag.tensor(array)
    array[0] = 5

    assert t.tolist() == [0, 0]


def test_tensor_takes_a_dtype():
    assert ag.tensor([1, 2], dtype=np.float64).dtype == np.float64
    assert ag.tensor([1.7], dtype="int64").tolist() == [1]


@pytest.mark.parametrize("data", ["a", None, [None], 1j, object()])
def test_tensor_refuses_what_is_no_number(data):
    with pytest.raises(TypeError, match="The only supported types are"):
        ag.tensor(data)


def test_integers_cannot_require_grad():
    with pytest.raises(RuntimeError) as caught:
        ag.tensor([1], requires_grad=True)

    assert str(caught.value) == (
        "Only Tensors of floating point and complex dtype can require gradients"
    )


def test_from_numpy_and_as_tensor_share_memory():
    array = np.zeros(2, np.float32)

    shared, also, cast = ag.from_numpy(array), ag.as_tensor(array), ag.as_tensor(array, np.float64)
    array[0] = 5

    assert shared.tolist() == also.tolist() == [5, 0]
    assert cast.tolist() == [0, 0]
    assert ag.as_tensor(shared) is shared
    assert ag.as_tensor([1.5]).dtype == np.float32


def test_sizes_may_be_given_apart_or_together():
    for make in (ag.zeros, ag.ones, ag.empty, ag.rand, ag.randn):
        assert make(2, 3).shape == make((2, 3)).shape == make([2, 3]).shape == (2, 3)
        assert make(()).shape == ()
        assert make(2, dtype=np.float64).dtype == np.float64
        assert make(2, requires_grad=True).requires_grad


def test_fills():
    assert ag.zeros(2).tolist() == [0, 0]
    assert ag.ones(2).tolist() == [1, 1]
    assert ag.full((2,), 7).dtype == np.int64
    assert ag.full((2,), 7.0).tolist() == [7, 7]
    assert ag.full((2,), 7.0).dtype == np.float32
    assert ag.full((2,), True).dtype == np.bool_
    assert ag.eye(2, 3).tolist() == [[1, 0, 0], [0, 1, 0]]


def test_like():
    model = ag.zeros(2, 3, dtype=np.float64)

    for make in (ag.empty_like, ag.zeros_like, ag.ones_like, ag.rand_like, ag.randn_like):
        assert (make(model).shape, make(model).dtype) == ((2, 3), np.float64)
        assert make(model, np.float32).dtype == np.float32
    assert ag.full_like(model, 3).tolist() == [[3, 3, 3], [3, 3, 3]]


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((3,), [0, 1, 2]),
        ((1, 3), [1, 2]),
        ((1, 2, 0.25), [1, 1.25, 1.5, 1.75]),
        ((3, 0, -2), [3, 1]),
    ],
)
def test_arange(arguments, expected):
    assert ag.arange(*arguments).tolist() == expected


def test_arange_of_ints_is_int64_and_of_floats_float32():
    assert ag.arange(3).dtype == np.int64
    assert ag.arange(3.0).dtype == np.float32
    assert ag.arange(3, dtype=np.float64).dtype == np.float64


@pytest.mark.parametrize(
    ("size", "error", "match"),
    [
        ((-1, 3), RuntimeError, r"Trying to create tensor with negative dimension -1: \[-1, 3\]"),
        ((2.5,), TypeError, "must be tuple of ints, but found element of type float"),
        ((True,), TypeError, "must be tuple of ints, but found element of type bool"),
    ],
)
def test_sizes_that_are_no_sizes_are_refused(size, error, match):
    for make in (ag.zeros, ag.randn):
        with pytest.raises(error, match=match):
            make(*size)


def draw():
    return [
        ag.rand(3).tolist(),
        ag.randn(3, dtype=np.float64).tolist(),
        ag.randint(0, 1000, (3,)).tolist(),
        ag.next_seed(),
    ]


def test_everything_random_follows_from_the_seed():
    ag.manual_seed(7)
    first = draw()
    ag.manual_seed(7)
    second = draw()
    ag.manual_seed(8)
    third = draw()

    assert first == second
    assert all(a != b for a, b in zip(first, third, strict=True))


def test_next_seed_is_fresh_each_time_and_has_64_bits():
    ag.manual_seed(0)

    seeds = [ag.next_seed() for _ in range(200)]

    assert len(set(seeds)) == 200
    assert 2**63 < max(seeds) < 2**64
    assert min(seeds) >= 0


def test_manual_seed_returns_the_generator_that_is_drawn_from():
    generator = ag.manual_seed(3)

    assert generator is ag.default_generator()


def test_the_parts_of_a_big_draw_are_one_stream(monkeypatch):
    from mmembed.autograd import random

    ag.manual_seed(1)
    whole = ag.randn(50, 3).tolist()
    monkeypatch.setattr(random, "_PART", 7)
    ag.manual_seed(1)

    assert ag.randn(50, 3).tolist() == whole


def test_draws_have_the_right_moments():
    ag.manual_seed(0)
    normal, uniform, integers = ag.randn(20000), ag.rand(20000), ag.randint(2, 5, (20000,))

    assert abs(normal.mean().item()) < 0.03
    assert abs((normal * normal).mean().item() - 1) < 0.05
    assert abs(uniform.mean().item() - 0.5) < 0.01
    assert set(integers.tolist()) == {2, 3, 4}


@pytest.mark.parametrize(
    ("make", "dtype"),
    [
        (lambda dtype: ag.ones(2, dtype=dtype), np.float32),
        (lambda dtype: ag.zeros(2, dtype=dtype), np.float32),
        (lambda dtype: ag.empty(2, dtype=dtype), np.float32),
        (lambda dtype: ag.eye(2, dtype=dtype), np.float32),
        (lambda dtype: ag.rand(2, dtype=dtype), np.float32),
        (lambda dtype: ag.randn(2, dtype=dtype), np.float32),
        (lambda dtype: ag.randint(0, 2, (2,), dtype=dtype), np.int64),
        (lambda dtype: ag.arange(2, dtype=dtype), np.int64),
    ],
)
def test_no_dtype_is_the_usual_one(make, dtype):
    assert make(None).dtype == dtype
    assert make("float64").dtype == np.float64
