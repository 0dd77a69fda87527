"""Casts and copies: operations that leave values, or nearly, as they are.

Must not know arithmetic; operands are cast here before any arithmetic starts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ..dtypes import DType, checked
from ..recording import record, takes_any
from ..variable import Variable

if TYPE_CHECKING:
    from ..tensor import Tensor


@np.errstate(all="ignore")
def cast(input: Variable, dtype: DType) -> Tensor:
    """Return `input` in another dtype; itself if it has that dtype. Source: torch.Tensor.to.

    The gradient is cast back. A tensor of integers or bools requires no gradient.
    """
    target, source = checked(dtype), input.dtype
    if target == source:
        return input  # type: ignore[return-value]
    array = input.array.astype(target)
    return record("ToCopyBackward0", array, (input, lambda upstream: upstream.astype(source), ()))


def clone(input: Variable) -> Tensor:
    """Return a copy of `input` with its own memory and version counter; gradients pass through."""
    array = input.array.copy(order="K")
    return record("CloneBackward0", array, (input, _itself, ()))


@takes_any
def _itself(upstream: Any) -> Any:
    return upstream
