"""Dropout: elements that are zeroed by chance.

Must not know modules or their mode; the draws are those of `manual_seed`'s generator.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ...narrow import is_floating
from ..dtypes import TORCH_NAMES, Array
from ..random import default_generator
from ..variable import Variable
from .arithmetic import mul

if TYPE_CHECKING:
    from ..tensor import Tensor


def dropout(input: Variable, p: float = 0.5, training: bool = True) -> Tensor:
    """Return input with each element zeroed with probability p, and the others divided by 1 - p.

    Parameters
    ----------
    input : floating, any shape.
    p : 0..1.
    training : if False, or if p is 0, the input itself is returned and nothing is drawn.

    Raises
    ------
    ValueError    p is outside 0..1 (torch's text).
    RuntimeError  the input is not floating (torch's text).

    Source: torch.nn.functional.dropout. Differs: other draws than torch's generator gives.
    """
    check_probability(p)
    if not training or p == 0:
        return input  # type: ignore[return-value]
    return mul(input, dropout_factors(input, p))


def check_probability(p: float) -> None:
    """Raise ValueError (torch's text) unless p is in 0..1."""
    if not 0 <= p <= 1:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def dropout_factors(input: Variable, p: float) -> Array:
    """Draw for each element of `input` 0, with probability p, or 1 / (1 - p)."""
    if not is_floating(input.dtype):
        name = TORCH_NAMES[input.dtype].scalar
        raise RuntimeError(f"result type Float can't be cast to the desired output type {name}")
    kept = default_generator().random(input.shape, np.float32) >= p
    factor = 1 / (1 - p) if p < 1 else 0.0
    return np.asarray(kept * input.dtype.type(factor))
