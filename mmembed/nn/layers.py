"""Layers: linear maps, normalization, activations and dropout as modules.

Must not know tables, files or optimizers. Formulas are in `functional`; here are the parameters and
how they start.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy.typing as npt

from .. import functional as F
from ..autograd import Tensor, empty, no_grad
from ..autograd.ops import check_probability
from ..devices import check_device
from ..parameter import Parameter
from .module import Module


def _parameter(*size: int, dtype: npt.DTypeLike | None) -> Parameter:
    return Parameter(empty(size, dtype="float32" if dtype is None else dtype))


class Linear(Module):
    """Return input @ weight.t() + bias.

    Parameters
    ----------
    in_features, out_features : sizes of the last dimension of input and output.
    bias : whether there is one.
    device : "cpu".
    dtype : float32 (the default), float64 or float16.

    Attributes
    ----------
    weight : (out_features, in_features).
    bias : (out_features,), or None.
        Both start as uniform draws from ±1 / sqrt(in_features), by the generator of `manual_seed`.

    Raises
    ------
    RuntimeError  a size is negative; in `forward`, sizes do not go together (torch's texts).

    Source: torch.nn.Linear. Differs: other draws than torch's generator gives.

    >>> import mmembed as mm
    >>> layer = mm.nn.Linear(20, 30)
    >>> layer(mm.randn(128, 20)).shape
    (128, 30)
    """

    weight: Parameter
    bias: Parameter | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        check_device(device)
        self.in_features = in_features
        self.out_features = out_features
        self.weight = _parameter(out_features, in_features, dtype=dtype)
        self.register_parameter("bias", _parameter(out_features, dtype=dtype) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the parameters anew."""
        # Kaiming's uniform distribution with a = sqrt(5) has this bound.
        bound = 1 / math.sqrt(self.in_features) if self.in_features else 0.0
        with no_grad():
            for parameter in self.parameters(recurse=False):
                parameter.uniform_(-bound, bound)

    def forward(self, input: Tensor) -> Tensor:
        """Map (..., in_features) to (..., out_features)."""
        return F.linear(input, self.weight, self.bias)

    def extra_repr(self) -> str:
        """Return the sizes, and whether there is a bias."""
        return (
            f"in_features={self.in_features}, out_features={self.out_features}, "
            f"bias={self.bias is not None}"
        )


class LayerNorm(Module):
    """Normalize over the last dimensions, then scale and shift each element.

    Parameters
    ----------
    normalized_shape : sizes of the last dimensions, or the size of the last one.
    eps : added to the variance.
    elementwise_affine : whether there is a weight.
    bias : whether there is a bias beside the weight.
    device, dtype : see `Linear`.

    Attributes
    ----------
    weight, bias : of shape normalized_shape, ones and zeros at first; or None.

    Source: torch.nn.LayerNorm.

    >>> import mmembed as mm
    >>> layer = mm.nn.LayerNorm(4)
    >>> layer(mm.tensor([[1.0, 1.0, 3.0, 3.0]])).detach()
    tensor([[-1.0000, -1.0000,  1.0000,  1.0000]])
    """

    weight: Parameter | None
    bias: Parameter | None

    def __init__(
        self,
        normalized_shape: int | Sequence[int],
        eps: float = 1e-5,
        elementwise_affine: bool = True,
        bias: bool = True,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
    ) -> None:
        super().__init__()
        check_device(device)
        given = normalized_shape
        self.normalized_shape = tuple(given) if isinstance(given, Sequence) else (given,)
        self.eps = eps
        self.elementwise_affine = elementwise_affine
        for name, wanted in (("weight", True), ("bias", bias)):
            there = elementwise_affine and wanted
            made = _parameter(*self.normalized_shape, dtype=dtype) if there else None
            self.register_parameter(name, made)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Set the weight to ones and the bias to zeros."""
        with no_grad():
            for name, parameter in self.named_parameters(recurse=False):
                parameter.fill_(1.0 if name == "weight" else 0.0)

    def forward(self, input: Tensor) -> Tensor:
        """Return (..., *normalized_shape) normalized."""
        return F.layer_norm(input, self.normalized_shape, self.weight, self.bias, self.eps)

    def extra_repr(self) -> str:
        """Return the shape, and what there is."""
        return (
            f"{self.normalized_shape}, eps={self.eps}, "
            f"elementwise_affine={self.elementwise_affine}, bias={self.bias is not None}"
        )


class Dropout(Module):
    """While training, zero each element with probability p, and divide the others by 1 - p.

    Parameters
    ----------
    p : 0..1.
    inplace : the result replaces the input.

    Raises
    ------
    ValueError  p is outside 0..1 (torch's text).

    Source: torch.nn.Dropout. Differs: other draws than torch's generator gives.
    """

    def __init__(self, p: float = 0.5, inplace: bool = False) -> None:
        super().__init__()
        check_probability(p)
        self.p = p
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the input's shape; when not training, the input itself."""
        return F.dropout(input, self.p, self.training, self.inplace)

    def extra_repr(self) -> str:
        """Return the options."""
        return f"p={self.p}, inplace={self.inplace}"


class ReLU(Module):
    """Return max(input, 0), which replaces the input if `inplace`. Source: torch.nn.ReLU."""

    def __init__(self, inplace: bool = False) -> None:
        super().__init__()
        self.inplace = inplace

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        return F.relu(input, self.inplace)

    def extra_repr(self) -> str:
        """Return the option if it is set."""
        return "inplace=True" if self.inplace else ""


class GELU(Module):
    """Return input times the share of a normal distribution below it; see `functional.gelu`.

    Source: torch.nn.GELU.
    """

    def __init__(self, approximate: str = "none") -> None:
        super().__init__()
        self.approximate = approximate

    def forward(self, input: Tensor) -> Tensor:
        """Return a tensor of the input's shape."""
        return F.gelu(input, self.approximate)

    def extra_repr(self) -> str:
        """Return the option."""
        return f"approximate={self.approximate!r}"
