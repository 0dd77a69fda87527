"""Scaled dot-product attention.

Must not know layers, heads' projections or positions. Composed of recorded operations, so it has
no rule of its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from ...narrow import is_floating
from ..dtypes import BOOL, TORCH_NAMES
from ..variable import Variable
from .arithmetic import add, mul
from .distributions import softmax
from .indexing import getitem
from .masking import masked_fill
from .matrices import matmul
from .noise import check_probability, dropout
from .operands import Operand, data, quiet
from .shape import mT

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def scaled_dot_product_attention(
    query: Variable,
    key: Variable,
    value: Variable,
    attn_mask: Operand | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Return softmax(scale * query @ key.mT + mask) @ value.

    Parameters
    ----------
    query : (..., L, E), floating.
    key : (..., S, E).
    value : (..., S, Ev); leading dimensions of the three are broadcast.
    attn_mask : broadcast to (..., L, S). Bool: True where a query may attend to a key; or of
        query's dtype: added to the scores. A query that may attend to no key gives 0.
    dropout_p : share of the weights that are zeroed, always: pass 0 when not training.
    is_causal : query i attends to keys 0..i only; not together with attn_mask.
    scale : 1 / sqrt(E) if None.
    enable_gqa : key and value may have fewer heads (dimension -3) than query: each serves several.

    Returns
    -------
    Tensor of shape (..., L, Ev).

    Raises
    ------
    RuntimeError  shapes, dtypes or options do not go together (torch's texts).

    Source: torch.nn.functional.scaled_dot_product_attention.
    """
    _check(query, key, value, attn_mask, dropout_p, is_causal)
    if enable_gqa:
        key, value = _repeated(query, key), _repeated(query, value)
    if scale is None:
        scale = 1 / math.sqrt(max(1, query.shape[-1]))
    scores = matmul(mul(query, scale), mT(key))
    if is_causal:
        attn_mask = np.tri(*scores.shape[-2:], dtype=np.bool_)
    if attn_mask is not None:
        mask = data(attn_mask)
        hidden = np.where(mask, query.dtype.type(0), query.dtype.type(-np.inf))
        scores = add(scores, hidden if mask.dtype == BOOL else attn_mask)
    # Of a row without any key, the softmax would be 0 / 0, and so would its gradient.
    barred = np.all(np.isneginf(scores.array), axis=-1, keepdims=True)
    if barred.any():
        weights = masked_fill(softmax(masked_fill(scores, barred, 0.0), -1), barred, 0.0)
    else:
        weights = softmax(scores, -1)
    return matmul(dropout(weights, dropout_p), value)


def _check(
    query: Variable,
    key: Variable,
    value: Variable,
    attn_mask: Operand | None,
    dropout_p: float,
    is_causal: bool,
) -> None:
    """Raise torch's errors for what does not go together."""
    dtypes = [TORCH_NAMES[x.dtype].c for x in (query, key, value)]
    if len(set(dtypes)) > 1:
        raise RuntimeError(
            "Expected query, key, and value to have the same dtype, but got query.dtype: "
            f"{dtypes[0]} key.dtype: {dtypes[1]} and value.dtype: {dtypes[2]} instead."
        )
    if min(query.ndim, key.ndim, value.ndim) < 2:
        raise RuntimeError(
            "Expected query, key, and value to all be  at least 2 dimensional, but got query.dim: "
            f"{query.ndim} key.dim: {key.ndim} and value.dim: {value.ndim} instead."
        )
    if not is_floating(query.dtype):
        name = TORCH_NAMES[query.dtype].scalar
        raise RuntimeError(f"expected scalar type Float but found {name}")
    if attn_mask is not None:
        mask = data(attn_mask)
        if mask.dtype not in (BOOL, query.dtype):
            raise RuntimeError(
                "Expected attn_mask dtype to be bool or float or to match query dtype, but got "
                f"attn_mask.dtype: {TORCH_NAMES[mask.dtype].c} and  query.dtype: {dtypes[0]} "
                "instead."
            )
        if is_causal:
            raise RuntimeError(
                "_scaled_dot_product_attention: Explicit attn_mask should not be set when "
                "is_causal=True"
            )
    try:
        check_probability(dropout_p)
    except ValueError as error:
        raise RuntimeError(str(error)) from None


def _repeated(query: Variable, heads: Variable) -> Variable:
    """Return key or value with each head as often as there are query heads for it."""
    if min(query.ndim, heads.ndim) < 3 or query.shape[-3] % max(1, heads.shape[-3]):
        raise RuntimeError(
            "Number of heads in key and value must divide the number of heads in query, but got "
            f"shapes {list(heads.shape)} and {list(query.shape)} (heads are dimension -3)"
        )
    each = query.shape[-3] // max(1, heads.shape[-3])
    chosen = np.repeat(np.arange(heads.shape[-3]), each)
    return heads if each == 1 else getitem(heads, (..., chosen, slice(None), slice(None)))
