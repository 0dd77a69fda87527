"""Adam for sparse gradients."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, final

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .optimizer import FloatArray, Group, Optimizer, check
from .segments import Segments


@final
class SparseAdam(Optimizer):
    """Adam in which a row's averages, and the row, change only when it has a gradient.

    m += (1 - b1) * (g - m); v += (1 - b2) * (g * g - v);
    w -= lr * sqrt(1 - b2**step) / (1 - b1**step) * m / (sqrt(v) + eps), step counted by parameter.

    Parameters
    ----------
    lr, eps : above 0.
    betas : (b1, b2), each in [0, 1).
    maximize : step uphill.

    State: `sparse_adam.exp_avg` and `sparse_adam.exp_avg_sq`, each (rows, dim).

    Source: torch.optim.SparseAdam.
    """

    name = "sparse_adam"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        check(lr > 0, "learning rate", lr)
        check(eps > 0, "epsilon value", eps)
        for index, beta in enumerate(betas):
            check(0 <= beta < 1, f"beta parameter at index {index}", beta)
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize})

    def states(self, group: Group) -> dict[str, float]:
        """See `Optimizer.states`."""
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if not isinstance(gradient, RowGrad):
            return "SparseAdam does not support dense gradients, please consider Adam instead"
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`."""
        beta1, beta2 = group["betas"]
        step_size = group["lr"] * math.sqrt(1 - beta2**step) / (1 - beta1**step)
        weight, mean, square = arrays
        kernels.update_adam(
            weight,
            mean,
            square,
            *rows,
            step_size,
            beta1,
            beta2,
            group["eps"],
            0.0,
            group["maximize"],
        )
