"""Layer normalization.

Must not know modules.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ...narrow import is_narrow
from ...narrow import wide as wide_dtype
from ..dtypes import FLOAT, Array
from ..recording import record
from ..variable import Variable
from .operands import check_floating, quiet

if TYPE_CHECKING:
    from ..tensor import Tensor


@quiet
def layer_norm(
    input: Variable,
    normalized_shape: Sequence[int],
    weight: Variable | None = None,
    bias: Variable | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Return the input with mean 0 and variance 1 over its last dimensions, scaled and shifted.

    Parameters
    ----------
    input : (..., *normalized_shape), floating.
    normalized_shape : sizes of the dimensions over which mean and variance are taken.
    weight, bias : of that shape: the factor and the summand per element. Of the dtype of input, or
        float32 beside a float16 input.
    eps : added to the variance.

    Raises
    ------
    RuntimeError         shapes or dtypes do not go together (torch's texts).
    NotImplementedError  the input is not floating (torch's text).
    TypeError            normalized_shape is no sequence (torch's text).

    Source: torch.nn.functional.layer_norm.
    """
    if not isinstance(normalized_shape, Sequence):
        raise TypeError(
            "layer_norm(): argument 'normalized_shape' (position 2) must be tuple of ints, not "
            f"{type(normalized_shape).__name__}"
        )
    shape = tuple(normalized_shape)
    _check(input, shape, {"weight": weight, "bias": bias})
    dims = tuple(range(input.ndim - len(shape), input.ndim))
    leading = tuple(range(input.ndim - len(shape)))
    count = math.prod(shape)

    def mean(values: Array) -> Any:
        return np.sum(values, axis=dims, keepdims=True) / count

    dtype = wide_dtype(input.dtype)
    x = input.array.astype(dtype, copy=False)
    center = mean(x)
    value = x - center
    scale = 1 / np.sqrt(mean(value * value) + eps)
    scale = scale.astype(dtype, copy=False)
    value *= scale
    if weight is not None:
        value *= weight.array
    if bias is not None:
        value += bias.array

    def for_input(upstream: Any, x: Array, center: Array, scale: Array, weight: Any) -> Array:
        normal = (x - center) * scale
        g = upstream if weight is None else upstream * weight
        gradient = scale * (g - mean(g) - normal * mean(g * normal))
        return gradient.astype(upstream.dtype, copy=False)  # type: ignore[no-any-return]

    def for_weight(upstream: Any, x: Array, center: Array, scale: Array, weight: Array) -> Array:
        gradient = np.sum(upstream * ((x - center) * scale), axis=leading)
        return gradient.astype(weight.dtype, copy=False)  # type: ignore[no-any-return]

    def for_bias(upstream: Any, bias_dtype: np.dtype[Any]) -> Array:
        return np.sum(upstream, axis=leading, dtype=dtype).astype(bias_dtype)  # type: ignore[no-any-return]

    return record(
        "NativeLayerNormBackward0",
        value.astype(input.dtype, copy=False),
        (input, for_input, (input, center, scale, weight)),
        (weight, for_weight, (input, center, scale, weight)),
        (bias, for_bias, (None if bias is None else bias.dtype,)),
    )


def _check(input: Variable, shape: tuple[int, ...], parameters: dict[str, Variable | None]) -> None:
    """Raise torch's errors for shapes and dtypes that do not go together."""
    if not shape:
        raise RuntimeError(
            "Expected normalized_shape to be at least 1-dimensional, i.e., containing at least one "
            "element, but got normalized_shape = []"
        )
    for name, parameter in parameters.items():
        if parameter is not None and parameter.shape != shape:
            raise RuntimeError(
                f"Expected {name} to be of same shape as normalized_shape, but got {name} of shape "
                f"{list(parameter.shape)} and normalized_shape = {list(shape)}"
            )
    if input.shape[-len(shape) :] != shape:
        expected = ", ".join(["*", *map(str, shape)])
        raise RuntimeError(
            f"Given normalized_shape={list(shape)}, expected input with shape [{expected}], but "
            f"got input of size{list(input.shape)}"
        )
    check_floating(input, "LayerNormKernelImpl")
    for parameter in parameters.values():
        if parameter is not None and parameter.dtype != input.dtype:
            if parameter.dtype != FLOAT:
                raise RuntimeError(
                    "mixed dtype (CPU): expect parameter to have scalar type of Float"
                )
            if not is_narrow(input.dtype):
                raise RuntimeError("mixed dtype (CPU): all inputs must share same datatype.")
