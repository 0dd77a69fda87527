"""Adam with one second moment per row. Must not know files or kernels' bodies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, final

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .groups import FloatArray, Group, check
from .optimizer import Optimizer
from .segments import Segments


@final
class RowwiseAdam(Optimizer):
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

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        check(lr >= 0, "learning rate", lr)
        check(eps >= 0, "epsilon value", eps)
        for index, beta in enumerate(betas):
            check(0 <= beta < 1, f"beta parameter at index {index}", beta)
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
        }
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)

    def states(self, group: Group) -> dict[str, float]:
        """See `Optimizer.states`."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

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
