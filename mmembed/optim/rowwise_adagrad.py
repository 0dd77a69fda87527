"""Adagrad with one sum per row."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .optimizer import FloatArray, Group, Optimizer, check
from .segments import Segments


class RowwiseAdagrad(Optimizer):
    """s += mean(g * g) over the row; w -= lr / (sqrt(s) + eps) * g.

    Its state is one number per row where Adagrad's is as large as the table.

    Parameters
    ----------
    lr, weight_decay, initial_accumulator_value, eps : at least 0; weight_decay (adds
        weight_decay * w to g) is not for sparse gradients; s starts as initial_accumulator_value.
    maximize : step uphill.

    State: `rowwise_adagrad.sum` (rows,).

    Source: EXACT_ROWWISE_ADAGRAD of FBGEMM; PyTorch-BigGraph's RowAdagrad.
    """

    name = "rowwise_adagrad"
    scalar_states = True
    states_at_once = True

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-2,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-8,
        *,
        maximize: bool = False,
    ) -> None:
        check(lr >= 0, "learning rate", lr)
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        check(
            initial_accumulator_value >= 0,
            "initial_accumulator_value value",
            initial_accumulator_value,
        )
        check(eps >= 0, "epsilon value", eps)
        defaults = {
            "lr": lr,
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
        weight, total = arrays
        kernels.update_rowwise_adagrad(
            weight, total[:, None], *rows,
            group["lr"], group["eps"], group["weight_decay"], group["maximize"],
        )  # fmt: skip
