"""Clipping gradients: dense ones as torch does, sparse ones as if they were dense."""

from __future__ import annotations

import math

import numpy as np
import pytest

from mmembed import nn
from mmembed.autograd import tensor
from mmembed.rows import RowGrad

torch = pytest.importorskip("torch")

START = [np.array([3.0, -4.0]), np.array([[1.0, 2.0], [0.5, -9.0]])]


def parameters(scale=1.0):
    """Ours and torch's, with the same gradients; the last of each has none."""
    ours = [tensor(a, requires_grad=True) for a in START]
    theirs = [torch.tensor(a, requires_grad=True) for a in START]
    for parameter in (*ours, *theirs):
        (parameter * parameter * scale).sum().backward()
    return [*ours, tensor([1.0], requires_grad=True)], [*theirs, torch.ones(1, requires_grad=True)]


@pytest.mark.parametrize("p", [2.0, 1.0, math.inf, 3.0, 0.5])
@pytest.mark.parametrize("most", [0.0, 0.1, 20.0, 1e9])
def test_norms_are_clipped_as_torch_clips_them(p, most):
    ours, theirs = parameters()

    norm = nn.clip_grad_norm_(ours, most, p)

    want = torch.nn.utils.clip_grad_norm_(theirs, most, p)
    np.testing.assert_allclose(norm.item(), want.item(), rtol=1e-12)
    for got, expected in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_allclose(got.grad.numpy(), expected.grad.numpy(), rtol=1e-12)


@pytest.mark.parametrize("scale", [math.nan, math.inf])
def test_norms_that_are_not_finite_scale_or_raise_as_torchs_do(scale):
    ours, theirs = parameters(scale)
    before = [p.grad.numpy().copy() for p in ours[:-1]]

    with pytest.raises(RuntimeError, match=r"The total norm of order 2\.0 for gradients"):
        nn.clip_grad_norm_(ours, 1.0, error_if_nonfinite=True)
    for got, expected in zip(ours[:-1], before, strict=True):
        np.testing.assert_array_equal(got.grad.numpy(), expected)
    nn.clip_grad_norm_(ours, 1.0)
    torch.nn.utils.clip_grad_norm_(theirs, 1.0)

    for got, expected in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(got.grad.numpy(), expected.grad.numpy())


def test_values_are_clipped_as_torch_clips_them():
    ours, theirs = parameters()

    nn.clip_grad_value_(ours, 3.0)
    torch.nn.utils.clip_grad_value_(theirs, 3.0)

    for got, expected in zip(ours[:-1], theirs[:-1], strict=True):
        np.testing.assert_array_equal(got.grad.numpy(), expected.grad.numpy())


@pytest.mark.parametrize("clip", [nn.clip_grad_norm_, nn.clip_grad_value_])
def test_sparse_gradients_are_clipped_as_if_they_were_dense(clip):
    tables = [
        nn.Embedding(5, 2, sparse=sparse, _weight=np.ones((5, 2))) for sparse in (True, False)
    ]
    for table in tables:
        (table([1, 3, 1, 1]) * tensor([[1.0], [2.0], [4.0], [-2.0]])).sum().backward()

    results = [clip(table.parameters(), 1.5) for table in tables]

    sparse, dense = (table.weight.grad for table in tables)
    assert isinstance(sparse, RowGrad)
    np.testing.assert_allclose(sparse.to_dense().numpy(), dense.numpy(), rtol=1e-12)
    assert {None if r is None else round(r.item(), 9) for r in results} in ({None}, {5.099019514})


def test_without_gradients_the_norm_is_0():
    assert nn.clip_grad_norm_(tensor([1.0], requires_grad=True), 1.0).item() == 0
    assert nn.clip_grad_norm_([], 1.0).item() == 0


@pytest.mark.parametrize("p", [-1.0, -math.inf])
def test_rows_that_are_not_named_count_as_zeros(p):
    table = nn.Embedding(5, 2, sparse=True)
    table([1]).sum().backward()

    assert nn.clip_grad_norm_(table.parameters(), 1.0, p).item() == 0
    assert table.weight.grad[1].tolist() == [1, 1]
