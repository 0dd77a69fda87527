"""Gradients cut down to a norm or a value, dense and sparse ones alike.

Must not know modules or tables: it sees parameters and their gradients.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..autograd import Tensor, no_grad
from ..rows import RowGrad


def clip_grad_norm_(
    parameters: Tensor | Iterable[Tensor],
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
) -> Tensor:
    """Scale all gradients so that their norm, taken together, is at most max_norm; returns it.

    Parameters
    ----------
    parameters : those without a gradient are passed over.
    max_norm : at least 0.
    norm_type : the p of the norm; a sparse gradient counts with the sums of its rows.
    error_if_nonfinite : raise RuntimeError, and change nothing, if the norm is nan or inf.

    Returns
    -------
    Tensor  0-d: the norm before.

    Source: torch.nn.utils.clip_grad_norm_. Differs: sparse gradients are taken.
    """
    p = float(norm_type)
    gradients = _gradients(parameters)
    for gradient in gradients:
        if isinstance(gradient, RowGrad):
            gradient.coalesce_()
    norms = np.array([_norm(gradient, p) for gradient in gradients])
    with np.errstate(divide="ignore"):  # of p < 0, where a norm is 0
        total = float(np.linalg.norm(norms, p)) if norms.size else 0.0
    if error_if_nonfinite and not math.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {p} for gradients from `parameters` is non-finite, so it "
            "cannot be clipped. To disable this error and scale the gradients by the non-finite "
            "norm anyway, set `error_if_nonfinite=False`"
        )
    factor = min(max_norm / (total + 1e-6), 1.0) if not math.isnan(total) else math.nan
    with no_grad():
        for gradient in gradients:
            gradient.mul_(factor)
    dtype = np.result_type(*(g.dtype for g in gradients)) if gradients else np.float32
    return Tensor(np.asarray(total, dtype))


def clip_grad_value_(parameters: Tensor | Iterable[Tensor], clip_value: float) -> None:
    """Cut every element of every gradient to -clip_value..clip_value.

    Of a sparse gradient, the sum of a row's entries is cut: it is coalesced first.

    Source: torch.nn.utils.clip_grad_value_. Differs: sparse gradients are taken.
    """
    limit = float(clip_value)
    with no_grad():
        for gradient in _gradients(parameters):
            if isinstance(gradient, RowGrad):
                np.clip(gradient.coalesce_().entries, -limit, limit, out=gradient.entries)
            else:
                with gradient.writing() as array:
                    np.clip(array, -limit, limit, out=array)


def _norm(gradient: Any, p: float) -> float:
    if p < 0 and isinstance(gradient, RowGrad) and gradient.plan.ids.size < gradient.plan.rows:
        return 0.0  # of rows that are not named, all elements are 0
    return float(gradient.norm(p).item())


def _gradients(parameters: Tensor | Iterable[Tensor]) -> list[Any]:
    listed = [parameters] if isinstance(parameters, Tensor) else list(parameters)
    return [parameter.grad for parameter in listed if parameter.grad is not None]
