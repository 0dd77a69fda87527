"""Adam and AdamW for dense gradients, whole blocks of rows at a time.

Must not know files or kernels. torch sums its squares in another way here than in SparseAdam, so
that the kernel of that rule does not do.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Iterable
from typing import Any, final

import numpy as np

from ..autograd import Tensor
from ..rows import RowGrad
from .averages import Averaging
from .groups import FloatArray, Group
from .segments import Segments


class _Dense(Averaging):
    """What both have in common: averages corrected for their first value, 0."""

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if isinstance(gradient, RowGrad):
            return "Adam does not support sparse gradients, please consider SparseAdam instead"
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`; the rows of a dense gradient's block follow each other."""
        block = slice(rows.ids[0], rows.ids[-1] + 1) if rows.ids.size else slice(0, 0)
        weight, mean, square = (array[block] for array in arrays)
        beta1, beta2 = group["betas"]
        g = -rows.values if group["maximize"] else rows.values
        g = self.decayed(weight, g, group)
        if beta1 > 0.5:
            mean += (g - mean) * (1 - beta1)
        else:  # the other end of the same line: nothing is lost of a g beside a large mean
            np.subtract(g, (g - mean) * beta1, out=mean)
        square *= beta2
        square += g * (1 - beta2) * g
        scale = np.sqrt(square)
        scale /= math.sqrt(1 - beta2**step)
        scale += group["eps"]
        weight -= mean * (group["lr"] / (1 - beta1**step)) / scale

    @abc.abstractmethod
    def decayed(self, weight: FloatArray, g: FloatArray, group: Group) -> FloatArray:
        """Let the weight decay; returns the gradient."""


@final
class Adam(_Dense):
    """m += (1 - b1) * (g - m); v += (1 - b2) * (g * g - v); w -= lr * m' / (sqrt(v') + eps).

    m' and v' are m / (1 - b1**step) and v / (1 - b2**step); step counts from 1.

    Parameters
    ----------
    lr, eps : at least 0.
    betas : (b1, b2), each in [0, 1).
    weight_decay : adds weight_decay * w to g.
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

    State: `adam.exp_avg` and `adam.exp_avg_sq`, each as large as the parameter.

    Source: torch.optim.Adam. Differs: there is no amsgrad.
    """

    name = "adam"

    def decayed(self, weight: FloatArray, g: FloatArray, group: Group) -> FloatArray:
        """Add the decay to the gradient."""
        return g + group["weight_decay"] * weight if group["weight_decay"] else g


@final
class AdamW(_Dense):
    """Adam whose decay is no part of the gradient: first w *= 1 - lr * weight_decay.

    Parameters
    ----------
    weight_decay : 0.01 by default; the others as for `Adam`.

    State: `adamw.exp_avg` and `adamw.exp_avg_sq`, each as large as the parameter.

    Source: torch.optim.AdamW. Differs: there is no amsgrad.
    """

    name = "adamw"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        *,
        maximize: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            maximize=maximize,
            stochastic_rounding=stochastic_rounding,
        )

    def decayed(self, weight: FloatArray, g: FloatArray, group: Group) -> FloatArray:
        """Shrink the weight; the gradient stays."""
        weight *= 1 - group["lr"] * group["weight_decay"]
        return g
