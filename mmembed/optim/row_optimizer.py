"""An optimizer whose rule is a user's function. Must not know files or how rules are compiled."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import Any, final

from ..autograd import Tensor
from ..errors import RuleError
from ..kernels import rules
from ..narrow import is_floating, wide
from ..rows import RowGrad
from ..storage.column import check_name
from .groups import FloatArray, Group, check
from .optimizer import Optimizer
from .segments import Segments

_OPTIONS = ("weight_decay", "maximize", "params", "stochastic_rounding", "rounding_seed")


@final
class RowOptimizer(Optimizer):
    """Changes each row by a function of yours, in the pass that sums the row's gradient.

    >>> import mmembed as mm
    >>> def heavy_ball(w, velocity, g, lr, friction=0.1):
    ...     for j in range(w.size):
    ...         velocity[j] = (1 - friction) * velocity[j] - lr * g[j]
    ...         w[j] += velocity[j]
    >>> rows = mm.nn.Embedding(1000, 4, sparse=True)
    >>> rule = mm.optim.RowOptimizer(rows.parameters(), heavy_ball, {"velocity": 0.0}, lr=0.1)
    >>> rows([3, 14, 3]).sum().backward()
    >>> rule.step()

    Numba compiles the function; it works beside every body of the kernels, on tables on disk and in
    memory, for sparse and dense gradients. With sparse ones, only rows that have one change.

    Parameters
    ----------
    rule : rule(row, *states, *row_states, g, *numbers) changes `row` and its states in place, and
        returns nothing. All are 1-D arrays of the parameter's dtype, float32 if that is narrow. `g`
        is the row's gradient, entries of one id summed; the rule may use its memory. Numba compiles
        it, once for each dtype; one that is jitted already keeps its options. It must not raise,
        and must not depend on the order of rows: threads share them.
    states : {name: first value} of states as wide as a row, in the order in which the rule takes
        them. They are columns `<name>.<state>` beside the parameter's, made in the first step.
    row_states : the same, of one number per row; the rule takes each as an array of one element.
    name : what the states' columns are called after; the rule's own name by default. An optimizer
        of the same name finds them again.
    weight_decay : adds weight_decay * row to g first; not for sparse gradients.
    maximize : negates g first.
    stochastic_rounding : round narrow rows at random, right on average; see `Optimizer`.
    numbers : the rule's parameters behind `g`, by name, where they have no default; they are
        options of the groups, rounded to the parameter's dtype. A parameter called `step` is given
        the number of the step, from 1.

    Raises
    ------
    RuleError  the rule does not take these states and numbers, does not compile, or returns
               something. It is a TypeError.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        rule: rules.Rule,
        states: Mapping[str, float] = {},
        row_states: Mapping[str, float] = {},
        *,
        name: str | None = None,
        weight_decay: float = 0.0,
        maximize: bool = False,
        stochastic_rounding: bool = False,
        **numbers: float,
    ) -> None:
        check(weight_decay >= 0, "weight_decay value", weight_decay)
        states, row_states = states or {}, row_states or {}
        self.rule = rule
        self.name = rules.name_of(rule) if name is None else name
        self.scalar_states = tuple(row_states)
        self._states = {**states, **row_states}
        for each in (self.name, *self._states):
            check_name(each)
        if len(self._states) < len(states) + len(row_states):
            twice = sorted(set(states) & set(row_states))
            raise RuleError(f"states and row_states must have different names; both have {twice}")
        self._numbers = self._names_of_numbers()
        defaults = {**self._values(numbers), "weight_decay": weight_decay, "maximize": maximize}
        super().__init__(params, defaults, stochastic_rounding=stochastic_rounding)

    def _names_of_numbers(self) -> list[str]:
        """Return the rule's parameters behind the gradient."""
        found = list(rules.parameters(self.rule))
        wanted = len(self._states) + 2
        if len(found) < wanted:
            states = ", ".join(["row", *self._states, "g"])
            raise RuleError(
                f"the rule {rules.name_of(self.rule)} takes {len(found)} arguments, "
                f"({', '.join(found)}); with these states it must take {wanted} and its numbers: "
                f"({states}, ...)"
            )
        return found[wanted:]

    def _values(self, numbers: Mapping[str, float]) -> dict[str, float]:
        """Return the numbers that are options, with the rule's defaults."""
        defaults = rules.parameters(self.rule)
        values = {}
        for name in self._numbers:
            value = numbers.get(name, defaults[name])
            if name in _OPTIONS or name in self._states:
                raise RuleError(
                    f"the rule {rules.name_of(self.rule)} takes the number {name!r}, a name that "
                    "has another meaning here; call it otherwise"
                )
            if name != "step" and value is inspect.Parameter.empty:
                raise RuleError(
                    f"the rule {rules.name_of(self.rule)} needs the number {name!r}: give it as "
                    f"{name}=..., or list the states that come before g"
                )
            if name != "step":
                values[name] = float(value)
        unknown = sorted(set(numbers) - set(values))
        if unknown:
            raise RuleError(
                f"the rule {rules.name_of(self.rule)} takes no {', '.join(unknown)}; behind g it "
                f"takes ({', '.join(self._numbers)})"
            )
        return values

    def add_param_group(self, group: Group) -> None:
        """See `Optimizer.add_param_group`; RuleError if the rule does not compile for its dtype."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for parameter in params:
            if isinstance(parameter, Tensor) and is_floating(parameter.dtype):
                tables = 1 + len(self._states)
                rules.check(self.rule, str(wide(parameter.dtype)), tables, len(self._numbers))
        super().add_param_group({**group, "params": params})

    def states(self, group: Group) -> dict[str, float]:
        """See `Optimizer.states`."""
        return self._states

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """See `Optimizer.refusal`."""
        if isinstance(gradient, RowGrad) and group["weight_decay"]:
            return "weight_decay option is not compatible with sparse gradients"
        return None

    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """See `Optimizer.update`."""
        tables = tuple(array if array.ndim == 2 else array[:, None] for array in arrays)
        numbers = tuple(float(step if name == "step" else group[name]) for name in self._numbers)
        rules.update(self.rule, tables, *rows, numbers, group["weight_decay"], group["maximize"])
