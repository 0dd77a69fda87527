"""Adagrad, and Adagrad with one sum per row. Must not know files or kernels' bodies."""

from __future__ import annotations

import abc
from collections.abc import Iterable
from typing import Any, final

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .groups import FloatArray, Group, check
from .optimizer import Optimizer
from .segments import Segments


class _Accumulating(Optimizer):
    """What both have in common: options, one state called `sum`, and the step size."""

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
        stochastic_rounding: bool = False,
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
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)

    @abc.abstractmethod
    def rule(self, weight: FloatArray, total: FloatArray, *rest: Any) -> int:
        """Call the kernel with the parameter, its sums, and everything behind them."""

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
        weight, total = arrays
        self.rule(weight, total, *rows, lr, group["eps"], group["weight_decay"], group["maximize"])


@final
class Adagrad(_Accumulating):
    """s += g * g; w -= lr / (1 + (step - 1) * lr_decay) * g / (sqrt(s) + eps).

    Parameters
    ----------
    lr, lr_decay, weight_decay, initial_accumulator_value, eps : at least 0; weight_decay (adds
        weight_decay * w to g) is not for sparse gradients; s starts as initial_accumulator_value.
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

    State: `adagrad.sum` (rows, dim), made when the optimizer is.

    Source: torch.optim.Adagrad.
    """

    name = "adagrad"

    def rule(self, weight: FloatArray, total: FloatArray, *rest: Any) -> int:
        """See the class."""
        return kernels.update_adagrad(weight, total, *rest)


@final
class RowwiseAdagrad(_Accumulating):
    """s += mean(g * g) over the row; w -= lr / (1 + (step - 1) * lr_decay) / (sqrt(s) + eps) * g.

    Its state is one number per row, where Adagrad's is as large as the table. Parameters are those
    of `Adagrad`.

    State: `rowwise_adagrad.sum` (rows,), made when the optimizer is.

    Source: EXACT_ROWWISE_ADAGRAD of FBGEMM; RowAdagrad of PyTorch-BigGraph.
    """

    name = "rowwise_adagrad"
    scalar_states = ("sum",)

    def rule(self, weight: FloatArray, total: FloatArray, *rest: Any) -> int:
        """See the class."""
        return kernels.update_rowwise_adagrad(weight, total[:, None], *rest)
