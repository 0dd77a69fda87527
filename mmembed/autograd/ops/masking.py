"""Choosing between two values, element by element.

Must not know what a mask means to a model.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import BOOL, TORCH_NAMES, Array, rank
from ..recording import record
from ..variable import Variable
from .operands import Operand, back_to, check_broadcast, data, dtype_of, operands, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor


def where(
    condition: Variable | Array, input: Operand | None = None, other: Operand | None = None
) -> Any:
    """Return input where the condition holds, else other; the three are broadcast together.

    Parameters
    ----------
    condition : bool. If it is the only argument, the result is a tuple of int64 tensors, one for
        each dimension: where the condition holds.
    input, other : tensors, arrays or numbers; their dtypes are promoted as in arithmetic.

    Raises
    ------
    RuntimeError  the condition is not bool, or shapes do not go together (torch's texts).

    Source: torch.where.
    """
    mask = np.asarray(data(condition))
    if input is None or other is None:
        if input is not other:
            raise TypeError("where() takes a condition alone, or a condition and two values")
        return tuple(record("nonzero", places) for places in np.nonzero(np.atleast_1d(mask)))
    if mask.dtype not in (BOOL, np.dtype(np.uint8)):
        raise RuntimeError(
            "where expected condition to be a boolean tensor, but got a tensor with dtype "
            f"{TORCH_NAMES[mask.dtype].scalar}"
        )
    a, b = operands(input, other)
    for first, second in ((mask, a), (mask, b), (a, b)):
        check_broadcast(np.shape(data(first)), np.shape(data(second)))
    dtype = max(dtype_of(a), dtype_of(b), key=rank)
    back_to_a, back_to_b = back_to(a), back_to(b)
    return record(
        "WhereBackward0",
        np.where(mask, data(a), data(b)).astype(dtype, copy=False),
        (a, lambda upstream, mask: back_to_a(_kept(upstream, mask)), (condition,)),
        (b, lambda upstream, mask: back_to_b(_kept(upstream, mask == 0)), (condition,)),
    )


@quiet
def masked_fill(input: Variable, mask: Variable | Array, value: Operand) -> Tensor:
    """Return input, but `value` where the mask is True; the two are broadcast together.

    Parameters
    ----------
    mask : bool.
    value : a number or a tensor without dimensions, cast to the dtype of input.

    Raises
    ------
    RuntimeError  the mask is not bool, value has dimensions, or shapes do not go together.

    Source: torch.masked_fill.
    """
    hidden = np.asarray(data(mask))
    if hidden.dtype != BOOL:
        raise RuntimeError(
            "masked_fill_ only supports boolean masks, but got mask with dtype "
            f"{TORCH_NAMES[hidden.dtype].c}"
        )
    filling = np.asarray(data(value))
    if filling.ndim:
        raise RuntimeError(
            "masked_fill_ only supports a 0-dimensional value tensor, but got tensor with "
            f"{filling.ndim} dimension(s)."
        )
    check_broadcast(hidden.shape, input.shape)
    back_to_input, back_to_value = back_to(input), back_to(value)
    dtype = filling.dtype
    return record(
        "MaskedFillBackward0",
        np.where(hidden, filling.astype(input.dtype), input.array),
        (input, lambda upstream, mask: back_to_input(_kept(upstream, ~mask)), (mask,)),
        (
            value,
            lambda upstream, mask: back_to_value(_kept(upstream, mask)).astype(dtype, copy=False),
            (mask,),
        ),
    )


def _kept(upstream: Any, mask: Any) -> Any:
    """Return a gradient where the mask holds, and 0, not a product with 0, elsewhere."""
    return np.where(mask, upstream, upstream.dtype.type(0))
