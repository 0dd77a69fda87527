"""Adam for sparse gradients, and its form with decoupled weight decay. Must not know files."""

from __future__ import annotations

import math
import types
from collections.abc import Iterable
from typing import Any, final

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..autograd import Tensor
from ..parameter import TableParameter
from ..rows import RowGrad
from .averages import check_betas
from .groups import FloatArray, Group, check
from .optimizer import Optimizer
from .segments import Segments

RowArray = npt.NDArray[np.int64]


class _Lazy(Optimizer):
    """What both have in common: the averages, which change only with a row's own gradient."""

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


def _checked(
    lr: float, betas: tuple[float, float], eps: float, maximize: bool, **others: Any
) -> Group:
    check(lr > 0, "learning rate", lr)
    check(eps > 0, "epsilon value", eps)
    check_betas(betas)
    return {"lr": lr, "betas": betas, "eps": eps, "maximize": maximize, **others}


@final
class SparseAdam(_Lazy):
    """Adam in which a row's averages, and the row, change only when it has a gradient.

    m += (1 - b1) * (g - m); v += (1 - b2) * (g * g - v);
    w -= lr * sqrt(1 - b2**step) / (1 - b1**step) * m / (sqrt(v) + eps), step counted by parameter.

    Parameters
    ----------
    lr, eps : above 0.
    betas : (b1, b2), each in [0, 1).
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

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
        *,
        stochastic_rounding: bool = False,
    ) -> None:
        defaults = _checked(lr, betas, eps, maximize)
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)


@final
class SparseAdamW(_Lazy):
    """SparseAdam with decoupled weight decay: in every step, every row shrinks first.

    w *= 1 - lr * weight_decay, for all rows; then SparseAdam's step, for those with a gradient. No
    step goes through the whole table: a row that was left alone for k steps gets the decay of the k
    steps when it is next looked up, assigned or updated. `embedding`, `embedding_bag` and writing
    to the parameter see to that, as do copies and whoever opens the table for writing; before it is
    read in another way, or opened for reading, call `catch_up()`.

    Parameters
    ----------
    lr, eps : above 0.
    betas : (b1, b2), each in [0, 1).
    weight_decay : at least 0, and lr * weight_decay below 1.
    maximize : step uphill.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.

    State: `sparse_adamw.exp_avg` and `sparse_adamw.exp_avg_sq`, each (rows, dim), and
    `sparse_adamw.decayed`, one float64 per row.

    Source: torch.optim.AdamW's decay, which torch has for dense gradients only.
    """

    name = "sparse_adamw"
    late_columns = types.MappingProxyType({"decayed": {"scalar": True, "dtype": "float64"}})

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        maximize: bool = False,
        *,
        stochastic_rounding: bool = False,
    ) -> None:
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        check(lr * weight_decay < 1, "lr * weight_decay, which must be below 1", lr * weight_decay)
        defaults = _checked(lr, betas, eps, maximize, weight_decay=weight_decay)
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)

    def catch_up(self) -> None:
        """Give all rows the decay that they have not had yet."""
        for parameter, _ in self._with_group():
            self._rows_for(parameter).catch_up(lambda: None)

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if not 0 <= group["lr"] * group["weight_decay"] < 1:
            return (
                f"lr * weight_decay must be in 0..1, and is {group['lr']} * {group['weight_decay']}"
            )
        return super().refusal(gradient, group)

    def before_update(
        self, parameter: TableParameter, rows: RowArray | None, group: Group, new_step: bool
    ) -> None:
        """Count the decay of this step, and give it to the rows that have a gradient."""
        if new_step:
            amount = -math.log1p(-group["lr"] * group["weight_decay"])
            parameter.put_off_decay(self.name, amount)
        # Lookups of a parameter that has no table of its own do not see to the others.
        parameter.catch_up(lambda: rows if parameter in self._rows else None)

    def state_dict(self) -> dict[str, Any]:
        """See `Optimizer.state_dict`; all rows catch up first, so that none is behind."""
        self.catch_up()
        return super().state_dict()
