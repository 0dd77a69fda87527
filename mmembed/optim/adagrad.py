"""Adagrad."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .optimizer import FloatArray, Group, Optimizer, check
from .segments import Segments


class Adagrad(Optimizer):
    """s += g * g; w -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps).

    Parameters
    ----------
    lr, lr_decay, weight_decay, initial_accumulator_value, eps : at least 0; weight_decay (adds
        weight_decay * w to g) is not for sparse gradients; s starts as initial_accumulator_value.
    maximize : step uphill.

    State: `adagrad.sum` (rows, dim), made when the optimizer is.

    Source: torch.optim.Adagrad.
    """

    name = "adagrad"
    states_at_once = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
        *,
        maximize: bool = False,
    ) -> None:
        check(lr >= 0, "learning rate", lr)
        check(lr_decay >= 0, "lr_decay value", lr_decay)
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        check(
            initial_accumulator_value >= 0,
            "initial_accumulator_value value",
            initial_accumulator_value,
        )
        check(eps >= 0, "epsilon value", eps)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "eps": eps,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def states(self, group: Group) -> dict[str, float]:
        """See `Optimizer.states`."""
        return {"sum": group["initial_accumulator_value"]}

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if isinstance(gradient, RowGrad) and group["weight_decay"]:
            return "weight_decay option is not compatible with sparse gradients"
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`."""
        lr = group["lr"] / (1 + (step - 1) * group["lr_decay"])
        decay, maximize = group["weight_decay"], group["maximize"]
        weight, total = arrays
        kernels.update_adagrad(weight, total, *rows, lr, group["eps"], decay, maximize)
