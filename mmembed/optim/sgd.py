"""Stochastic gradient descent. Must not know files or kernels' bodies."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, final

from .. import kernels
from ..autograd import Tensor
from ..rows import RowGrad
from .groups import FloatArray, Group, check
from .optimizer import Optimizer
from .segments import Segments


@final
class SGD(Optimizer):
    """w -= lr * g, with momentum if asked for.

    Parameters
    ----------
    lr : step size, at least 0.
    momentum : m > 0 keeps a buffer, b = m * b + (1 - dampening) * g, and steps along it. Rows
        without a gradient move along their buffer too: every step writes the whole table.
    dampening : see above; not applied in the first step.
    weight_decay : adds weight_decay * w to g; not for sparse gradients.
    nesterov : step along g + m * b.
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

    State: with momentum, `sgd.momentum_buffer` (rows, dim).

    Source: torch.optim.SGD.
    """

    name = "sgd"

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        momentum: float = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        stochastic_rounding: bool = False,
    ) -> None:
        check(lr >= 0, "learning rate", lr)
        check(momentum >= 0, "momentum value", momentum)
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
        }
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)

    def states(self, group: Group) -> dict[str, float]:
        """See `Optimizer.states`."""
        return {"momentum_buffer": 0.0} if group["momentum"] else {}

    def counter(self, group: Group) -> str:
        """Steps with momentum are counted apart: dampening begins with the second of them."""
        return f"{self.name}.momentum_buffer" if group["momentum"] else self.name

    def moves_every_row(self, group: Group) -> bool:
        """See `Optimizer.moves_every_row`."""
        return bool(group["momentum"])

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if isinstance(gradient, RowGrad) and group["weight_decay"]:
            return (
                "add(sparse, dense) is not supported. Use add(dense, sparse) instead: "
                "weight_decay would change every row, and the gradient names some"
            )
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`."""
        lr, decay, maximize = group["lr"], group["weight_decay"], group["maximize"]
        if len(arrays) == 1:
            (weight,) = arrays
            kernels.update_sgd(weight, *rows, lr, decay, maximize)
            return
        weight, buffer = arrays
        dampening = group["dampening"] if step > 1 else 0.0
        kernels.update_momentum(
            weight,
            buffer,
            *rows,
            lr,
            group["momentum"],
            dampening,
            group["nesterov"],
            decay,
            maximize,
        )
