"""What the optimizers of Adam's family share: two running averages per parameter, and their betas.

Must not know any of their rules, nor files.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..autograd import Tensor
from .groups import Group, check
from .optimizer import Optimizer


def check_betas(betas: tuple[float, float]) -> None:
    """Raise ValueError (torch's text) unless both are in [0, 1)."""
    for index, beta in enumerate(betas):
        check(0 <= beta < 1, f"beta parameter at index {index}", beta)


class Averaging(Optimizer):
    """One that keeps the averages of gradients (`exp_avg`) and of their squares (`exp_avg_sq`)."""

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
        check_betas(betas)
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
