"""What einsum, dropout, erf, masks and attention do beyond a value and a gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmembed.autograd import (
    bmm,
    default_generator,
    einsum,
    erf,
    manual_seed,
    no_grad,
    ops,
    tensor,
    where,
)

# -- einsum ----------------------------------------------------------------------------------------


def test_einsum_of_one_operand_is_a_view_where_nothing_is_summed():
    x = tensor(np.zeros((3, 3)))

    einsum("ii->i", x).add_(1)
    einsum("ij->ji", x)[0, 2] = 7

    assert x.tolist() == [[1, 0, 0], [0, 1, 0], [7, 0, 1]]


def test_einsum_agrees_with_numpy_for_integers_and_arrays():
    a, b = np.arange(6).reshape(2, 3), np.arange(12).reshape(3, 4)

    found = einsum("ij,jk->ki", tensor(a), b)

    assert found.dtype == np.int64
    np.testing.assert_array_equal(found.numpy(), np.einsum("ij,jk->ki", a, b))


def test_einsum_takes_its_operands_in_a_list():
    a, b = tensor([[1.0, 2.0]]), tensor([[3.0], [4.0]])

    assert einsum("ij,jk", [a, b]).tolist() == [[11]]


def test_products_of_two_dtypes_are_promoted():
    a, b = np.ones((2, 3, 4), np.float32), np.ones((2, 4, 5))

    assert bmm(tensor(a), tensor(b)).dtype == np.float64
    assert einsum("bij,bjk->bik", tensor(a), tensor(b)).dtype == np.float64


def test_einsum_keeps_what_backward_needs_from_being_changed():
    a = tensor(np.ones((2, 3)), requires_grad=True)
    b = tensor(np.ones((3, 2)))
    product = einsum("ij,jk->ik", a, b)

    b.add_(1)

    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        product.sum().backward()


# -- dropout ---------------------------------------------------------------------------------------


def test_dropout_zeroes_a_share_scales_the_rest_and_gives_the_same_to_gradients():
    manual_seed(0)
    x = tensor(np.ones(100_000), requires_grad=True)

    result = ops.dropout(x, 0.25)
    result.sum().backward()

    kept = result.detach().numpy()
    assert set(kept.tolist()) == {0.0, 1 / 0.75}
    assert np.mean(kept == 0) == pytest.approx(0.25, abs=0.005)
    np.testing.assert_array_equal(x.grad.numpy(), kept)


def test_dropout_follows_from_the_seed():
    x = tensor(np.ones(1000, np.float32))

    def drawn(seed):
        manual_seed(seed)
        return ops.dropout(x).tolist()

    assert drawn(1) == drawn(1) != drawn(2)
    assert ops.dropout(x).dtype == np.float32


def test_dropout_that_does_nothing_returns_its_input_and_draws_nothing():
    x = tensor([1.0, 2.0])
    before = str(default_generator().bit_generator.state)

    assert ops.dropout(x, 0.5, training=False) is x
    assert ops.dropout(x, 0.0) is x
    assert str(default_generator().bit_generator.state) == before


def test_attention_drops_weights_by_the_seed():
    q = tensor(np.random.default_rng(0).standard_normal((2, 8, 4)))

    def attended(seed, p):
        manual_seed(seed)
        return ops.scaled_dot_product_attention(q, q, q, dropout_p=p).tolist()

    assert attended(1, 0.5) == attended(1, 0.5) != attended(2, 0.5)
    assert attended(1, 0.0) == attended(2, 0.0)
    assert attended(1, 1.0) == np.zeros((2, 8, 4)).tolist()


# -- elements --------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_erf_is_right_to_the_last_digits(dtype):
    x = np.concatenate([np.linspace(-7, 7, 20_001), np.logspace(-300, 300, 601)])
    with np.errstate(over="ignore", under="ignore"):
        x = x.astype(dtype)

    found = erf(tensor(x)).numpy()

    expected = np.array([math.erf(value) for value in x.tolist()])
    assert found.dtype == dtype
    eps = np.finfo(dtype).eps
    tiny = np.finfo(dtype).smallest_subnormal
    np.testing.assert_allclose(found.astype(np.float64), expected, rtol=1.01 * eps, atol=tiny)


def test_erf_of_the_ends():
    found = erf(tensor([math.inf, -math.inf, math.nan, -0.0])).tolist()

    assert found[:2] == [1, -1]
    assert math.isnan(found[2])
    assert math.copysign(1, found[3]) == -1


def test_where_of_a_condition_alone_gives_places():
    rows, columns = where(tensor([[1.0, -1.0], [2.0, 3.0]]) > 0)

    assert (rows.tolist(), columns.tolist()) == ([0, 1, 1], [0, 0, 1])
    assert rows.dtype == np.int64


@pytest.mark.parametrize(
    ("values", "dtype"),
    [((1, 2.5), "float32"), ((1, 2), "int64"), ((True, False), "bool"), ((1, True), "int64")],
)
def test_where_of_numbers_has_torchs_dtype(values, dtype):
    condition = tensor([True, False])

    found = where(condition, *values)

    assert found.dtype == dtype
    assert found.tolist() == [values[0], values[1]]


def test_what_masks_hide_has_no_gradient_though_it_is_infinite():
    x = tensor([-1.0, 4.0], requires_grad=True)

    where(x > 0, x.sqrt(), 0.0).sum().backward()
    filled = x.masked_fill(x < 0, math.inf)
    with no_grad():
        x.grad.zero_()
    filled.backward(tensor([math.inf, 1.0]))

    assert x.grad.tolist() == [0, 1]


def test_masked_fill_casts_its_value():
    assert tensor([1, 2]).masked_fill(tensor([True, False]), 1.5).tolist() == [1, 2]
    assert tensor([1.0]).masked_fill(tensor([True]), tensor(np.float64(2))).dtype == np.float32


def test_changing_a_mask_before_backward_is_refused():
    x, mask = tensor([1.0, 2.0], requires_grad=True), tensor([True, False])
    filled = x.masked_fill(mask, 0.0)

    mask.zero_()

    with pytest.raises(RuntimeError, match=r"\[torch.BoolTensor \[2\]\] is at version 1"):
        filled.sum().backward()


def test_halves_are_normalized_and_activated_in_single_precision():
    values = np.random.default_rng(0).standard_normal((4, 300)).astype(np.float16) * 100
    x, weight, bias = (tensor(a, requires_grad=True) for a in (values, *np.eye(2, 300, dtype="f4")))
    with no_grad():
        weight.fill_(1)
        bias.zero_()

    result = ops.gelu(ops.layer_norm(x, (300,), weight, bias))
    result.sum().backward()

    exact = ops.gelu(ops.layer_norm(tensor(values.astype(np.float64)), (300,)))
    assert result.dtype == x.grad.dtype == np.float16
    assert weight.grad.dtype == bias.grad.dtype == np.float32
    np.testing.assert_allclose(result.detach().numpy(), exact.numpy(), rtol=3e-3, atol=1e-3)
