"""`Optimizer`: the walk over gradients, in `step` or in `backward`.

Must not know any update rule, nor files.
"""

from __future__ import annotations

import abc
import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor, enable_grad, no_grad
from ..narrow import is_narrow
from ..parameter import TableParameter
from ..rows import RowGrad
from . import segments
from .groups import FloatArray, Group, ParameterGroups
from .narrow import Rounding, update_narrow
from .segments import Segments

# Several threads may run backward into fused parameters.
_updating = threading.RLock()


class Optimizer(ParameterGroups):
    """Changes parameters by their gradients.

    Parameters
    ----------
    params : tensors, or dicts with the key "params" and options of their own.
    defaults : options of groups that do not set them.
    stochastic_rounding : float16 and bfloat16 rows, which are changed as float32, are rounded up or
        down at random, so that what is lost is right on average; by default to the nearest, which
        loses every change below half a unit in the last place. The random bits are a function of
        (seed, step, row, column), the seed being the group's `rounding_seed`, drawn when the group
        is made: it follows from `manual_seed`, and comes back with `load_state_dict`.

    Attributes
    ----------
    param_groups : list of dicts; change their options to change them from the next step on.

    The state of a parameter is columns, as wide as its rows, in the table that holds it: on disk if
    the table is, and there when the table is opened again.

    Raises
    ------
    TypeError   params is a tensor, or holds something else than floating tensors.
    ValueError  there are no parameters; one is not a leaf, or not contiguous.

    Source: torch.optim.Optimizer.
    """

    # -- what a subclass says ----------------------------------------------------------------------

    @abc.abstractmethod
    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """Change rows of (parameter, *states) by their gradients; `step` counts from 1."""

    def before_update(
        self,
        parameter: TableParameter,
        rows: npt.NDArray[np.int64] | None,
        group: Group,
        new_step: bool,
    ) -> None:
        """Do what comes before the update of rows (None: all); by default nothing.

        `new_step` is False for the second parameter over the same rows in one step.
        """

    def moves_every_row(self, group: Group) -> bool:
        """Return whether rows without a gradient change as well."""
        return False

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """Return why the rule does not support this gradient, or None if it does."""
        return None

    # -- what a user calls -------------------------------------------------------------------------

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Change every parameter that has a gradient; returns what `closure` returns.

        Raises
        ------
        RuntimeError        the rule does not support one of the gradients; nothing has changed.
        ReadOnlyTableError  a table cannot be written.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        ready = [
            (parameter, parameter.grad, group)
            for group in self.param_groups
            for parameter in group["params"]
            if parameter.grad is not None and parameter not in self._fused
        ]
        self._apply(ready)
        return loss

    def fuse(self, *what: Any) -> None:
        """Update parameters in `backward`, as soon as their gradient is complete.

        Nothing is left in `.grad`, and no gradient is copied or kept: a row's weight and state are
        read and written right after its gradients are summed. Each backward is one step, with the
        options that the groups have then; `step` passes fused parameters over. Rows come out the
        same, bit for bit, as with `step` after every backward. What needs all gradients before a
        step, such as clipping by their norm or several backwards for one step, does not go together
        with it. A gradient that was collected before stays in `.grad`, and nobody applies it.

        Parameters
        ----------
        what : parameters of this optimizer, or modules that have some; none: all parameters.

        Raises
        ------
        ValueError    one of them is no parameter of this optimizer, or two are over one column of a
                      table, whose step counts once; none has been fused then.
        RuntimeError  another optimizer is fused with one of them; none has been fused then.

        `backward` then raises what `step` would. What it had updated before an error of another
        operation, it has updated.

        Source: FBGEMM's EXACT optimizers, which sum the gradients of a row first as well.
        """
        parameters = [one for one in self._parameters_in(what) if one not in self._fused]
        places = Counter(_place(self._rows_for(one)) for one in self._rows)
        for parameter in parameters:
            if places[_place(self._rows_for(parameter))] > 1:
                raise ValueError(
                    f"two parameters of shape {parameter.shape} are over one column of a table: "
                    "fused, each would make a step of its own. Use one parameter in both places"
                )
        try:
            for parameter in parameters:
                parameter.hand_gradients_to(_Fused(self, parameter))
                self._fused.add(parameter)
        except RuntimeError:
            self.unfuse(*parameters)
            raise

    def unfuse(self, *what: Any) -> None:
        """Let `backward` collect gradients again; takes what `fuse` takes."""
        for parameter in self._parameters_in(what):
            if parameter in self._fused:
                parameter.hand_gradients_to(None)
                self._fused.remove(parameter)

    def _parameters_in(self, what: tuple[Any, ...]) -> list[Tensor]:
        parameters: list[Tensor] = []
        for one in what or (self._rows,):
            if isinstance(one, Tensor):
                parameters.append(one)
            else:
                parameters += one.parameters() if hasattr(one, "parameters") else one
        for parameter in parameters:
            if parameter not in self._rows:
                raise ValueError(
                    f"a parameter of shape {parameter.shape} is none of this optimizer's; give it "
                    "to the optimizer first, or fuse those that it has"
                )
        return parameters

    def _apply(self, ready: list[tuple[Tensor, Any, Group]]) -> None:
        """Change parameters by (parameter, gradient, group); nothing if one is refused."""
        for _, gradient, group in ready:
            if reason := self.refusal(gradient, group):
                raise RuntimeError(reason)
        for parameter, _, _ in ready:
            self._rows_for(parameter).table.check_writable()
        counted: set[tuple[int, str]] = set()
        with no_grad():
            for parameter, gradient, group in ready:
                rows = self._rows_for(parameter)
                place = _place(rows)
                # Of two parameters over one column, the second finds the step counted.
                self._change(rows, gradient, group, new_step=place not in counted)
                counted.add(place)

    def _change(
        self, parameter: TableParameter, gradient: Any, group: Group, new_step: bool
    ) -> None:
        states = self.states(group)
        names = [self._add_state(parameter, state, init) for state, init in states.items()]
        counter = self.counter(group)
        step = parameter.steps(counter) + new_step
        rows, blocks = self._blocks(parameter, gradient, group)
        self.before_update(parameter, rows, group, new_step)
        with parameter.columns(rows) as columns:
            arrays = tuple(columns[name] for name in (parameter.column, *names))
            for block in blocks:
                self._update_rows(arrays, block, step, group)
        parameter.set_steps(counter, step)

    def _update_rows(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """Call the rule: with float32 rows in the place of narrow ones."""
        if not is_narrow(arrays[0].dtype):
            self.update(arrays, rows, step, group)
            return
        stochastic = bool(group.get("stochastic_rounding"))
        rounding = Rounding(stochastic, group.get("rounding_seed", 0), step)
        update_narrow(
            lambda some, part: self.update(some, part, step, group), arrays, rows, rounding
        )

    def _blocks(
        self, parameter: TableParameter, gradient: Any, group: Group
    ) -> tuple[npt.NDArray[np.int64] | None, Iterable[Segments]]:
        """Return the rows that change (None: all), and their gradients."""
        if not isinstance(gradient, RowGrad):
            return None, segments.of_array(gradient.array.reshape(parameter.shape))
        if self.moves_every_row(group):
            return None, segments.of_every_row(gradient)
        named = segments.of_rows(gradient)
        return named.ids, [named]

    def __setstate__(self, state: dict[str, Any]) -> None:
        """Take the state of a copy or a pickle; its parameters are fused as the original's are."""
        self.__dict__.update(state)
        self._fused = set()
        for parameter in state["_fused"]:
            # A shallow copy has the original's parameters, which stay fused with the original.
            with contextlib.suppress(RuntimeError):
                parameter.hand_gradients_to(_Fused(self, parameter))
                self._fused.add(parameter)


class _Fused:
    """Receives the gradients of a fused parameter."""

    def __init__(self, optimizer: Optimizer, parameter: Tensor) -> None:
        self._optimizer = optimizer
        self._parameter = parameter

    def __call__(self, gradient: Any) -> None:
        """Change the parameter by the gradient."""
        optimizer, parameter = self._optimizer, self._parameter
        group = next(group for one, group in optimizer._with_group() if one is parameter)
        with _updating:
            if self._overlaps(gradient):
                gradient = gradient.clone()
            optimizer._apply([(parameter, gradient, group)])

    def _overlaps(self, gradient: Any) -> bool:
        """Whether the gradient may be in memory that the update writes."""
        table = self._optimizer._rows_for(self._parameter).table
        memory = gradient.memory if isinstance(gradient, RowGrad) else gradient.array
        return table.shares_memory(memory)

    def __eq__(self, other: object) -> bool:
        """Return whether the other is of the same optimizer."""
        return isinstance(other, _Fused) and other._optimizer is self._optimizer

    __hash__ = None  # type: ignore[assignment]


def _place(parameter: TableParameter) -> tuple[int, str]:
    """Return what two parameters over the same rows have in common."""
    return id(parameter.table), parameter.column
