"""Adam with one second moment per row. Must not know files or kernels' bodies."""

from __future__ import annotations

import math
from typing import Any, final

from .. import kernels
from ..rows import RowGrad
from .averages import Averaging
from .groups import FloatArray, Group
from .segments import Segments


@final
class RowwiseAdam(Averaging):
    """m += (1 - b1) * (g - m); v += (1 - b2) * (mean(g * g) - v); w -= lr * m' / (sqrt(v') + eps).

    The mean is over the row, so that v is one number per row: the state takes about half of what
    Adam's takes. m' and v' are m / (1 - b1**step) and v / (1 - b2**step); step is counted by
    parameter, from 1. With sparse gradients a row, and its state, changes only when it has one.

    Parameters
    ----------
    lr : at least 0.
    betas : (b1, b2), each in [0, 1).
    eps : at least 0.
    weight_decay : adds weight_decay * w to g; not for sparse gradients.
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

    State: `rowwise_adam.exp_avg` (rows, dim), and `rowwise_adam.exp_avg_sq` (rows,).

    Source: PARTIAL_ROWWISE_ADAM of FBGEMM. Differs: its weight_decay is decoupled, and only of the
    rows that have a gradient.
    """

    name = "rowwise_adam"
    scalar_states = ("exp_avg_sq",)

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if isinstance(gradient, RowGrad) and group["weight_decay"]:
            return "weight_decay option is not compatible with sparse gradients"
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`."""
        beta1, beta2 = group["betas"]
        weight, mean, square = arrays
        kernels.update_rowwise_adam(
            weight,
            mean,
            square[:, None],
            *rows,
            group["lr"] / (1 - beta1**step),
            beta1,
            beta2,
            1 / math.sqrt(1 - beta2**step),
            group["eps"],
            group["weight_decay"],
            group["maximize"],
        )
