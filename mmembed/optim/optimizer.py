"""`Optimizer`: parameter groups, state by parameter, and the walk over gradients.

Must not know any update rule, nor files.
"""

from __future__ import annotations

import abc
import itertools
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor, enable_grad, no_grad
from ..parameter import TableParameter
from ..rows import RowGrad
from . import segments
from .segments import Segments

FloatArray = npt.NDArray[np.floating[Any]]
Group = dict[str, Any]


class Optimizer(abc.ABC):
    """Changes parameters by their gradients.

    Parameters
    ----------
    params : tensors, or dicts with the key "params" and options of their own.
    defaults : options of groups that do not set them.

    Attributes
    ----------
    param_groups : list of dicts; change their options to change them from the next step on.

    The state of a parameter is columns, as wide as its rows, in the table that holds it: on disk if
    the table is, and there when the table is opened again.

    Raises
    ------
    TypeError   params is a tensor, or holds something else than float32 or float64 tensors.
    ValueError  there are no parameters; one is not a leaf, or not contiguous.

    Source: torch.optim.Optimizer.
    """

    name: str
    """What columns of this optimizer's state are called: <parameter's column>.<name>.<state>."""

    scalar_states = False
    """Whether a state is one number per row, instead of an array as wide as the rows."""

    states_at_once = False
    """Whether states are made with the optimizer, instead of in the first step."""

    def __init__(
        self, params: Iterable[Tensor] | Iterable[Group], defaults: Mapping[str, Any]
    ) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}"
            )
        self.defaults = dict(defaults)
        self.param_groups: list[Group] = []
        self._rows: dict[Tensor, TableParameter] = {}
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    # -- what a subclass says ----------------------------------------------------------------------

    @abc.abstractmethod
    def states(self, group: Group) -> dict[str, float]:
        """Return {name: first value} of the state arrays that this group's rule needs."""

    @abc.abstractmethod
    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """Change rows of (parameter, *states) by their gradients; `step` counts from 1."""

    def moves_every_row(self, group: Group) -> bool:
        """Return whether rows without a gradient change as well."""
        return False

    def refusal(self, gradient: Any, group: Group) -> str | None:
        """Return why the rule does not support this gradient, or None if it does."""
        return None

    # -- what a user calls -------------------------------------------------------------------------

    def add_param_group(self, group: Group) -> None:
        """Add a group: a dict with the key "params" and options that differ from the defaults."""
        params = group["params"]
        params = [params] if isinstance(params, Tensor) else list(params)
        for parameter in params:
            if not isinstance(parameter, Tensor):
                kind = type(parameter).__name__
                raise TypeError(
                    f"optimizer can only optimize Tensors, but one of the params is {kind}"
                )
            if not parameter.is_leaf:
                raise ValueError("can't optimize a non-leaf Tensor")
        if len({id(parameter) for parameter in params}) != len(params):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters", stacklevel=3
            )
        known = {id(parameter) for parameter in self._rows}
        if any(id(parameter) in known for parameter in params):
            raise ValueError("some parameters appear in more than one parameter group")
        self._rows.update({parameter: _rows_of(parameter) for parameter in params})
        self.param_groups.append({**self.defaults, **group, "params": params})
        if self.states_at_once:
            for parameter in params:
                for state, init in self.states(self.param_groups[-1]).items():
                    self._add_state(self._rows[parameter], state, init)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero."""
        for parameter in self._rows:
            if set_to_none or parameter.grad is None:
                parameter.grad = None
            else:
                parameter.grad = parameter.grad * 0

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
            if parameter.grad is not None
        ]
        for _, gradient, group in ready:
            if reason := self.refusal(gradient, group):
                raise RuntimeError(reason)
        with no_grad():
            for parameter, gradient, group in ready:
                self._change(self._rows[parameter], gradient, group)
        return loss

    def _change(self, parameter: TableParameter, gradient: Any, group: Group) -> None:
        states = self.states(group)
        names = [self._add_state(parameter, state, init) for state, init in states.items()]
        step = parameter.steps(self.name) + 1
        rows, blocks = self._blocks(parameter, gradient, group)
        with parameter.columns(rows) as columns:
            arrays = tuple(columns[name] for name in (parameter.column, *names))
            for block in blocks:
                self.update(arrays, block, step, group)
        parameter.set_steps(self.name, step)

    def _add_state(self, parameter: TableParameter, state: str, init: float) -> str:
        """Make sure of a state column; returns its name in the table."""
        return parameter.add_state(self.name, state, init, scalar=self.scalar_states)

    def _state_shape(self, parameter: Tensor) -> tuple[int, ...]:
        rows = self._rows[parameter].shape[0]
        return (rows,) if self.scalar_states else parameter.shape

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

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {number: {"step", state: tensor}}, "param_groups": [...]}.

        Tensors share the memory of the state. Parameters are numbered in the order of the groups.
        """
        numbers = {parameter: number for number, parameter in enumerate(self._rows)}
        state = {}
        for parameter, group in self._with_group():
            rows = self._rows[parameter]
            arrays = {name: rows.state(self.name, name) for name in self.states(group)}
            made = {name: array for name, array in arrays.items() if array is not None}
            if made or rows.steps(self.name):
                state[numbers[parameter]] = {
                    "step": rows.steps(self.name),
                    **{
                        name: Tensor(array.reshape(self._state_shape(parameter)))
                        for name, array in made.items()
                    },
                }
        groups = [
            {**group, "params": [numbers[parameter] for parameter in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy what `state_dict` returned into this optimizer.

        Raises
        ------
        ValueError  the groups, or the shapes of states, are not this optimizer's; nothing has been
                    copied then.
        """
        given = state_dict["param_groups"]
        if [len(group["params"]) for group in given] != [
            len(group["params"]) for group in self.param_groups
        ]:
            raise ValueError(
                "loaded state dict has a different number of parameter groups, or a group that "
                "doesn't match the size of optimizer's group"
            )
        owners = dict(zip(itertools.chain(*(g["params"] for g in given)), self._rows, strict=True))
        for number, state in state_dict["state"].items():
            for name, value in state.items():
                if name == "step":
                    continue
                wanted = self._state_shape(owners[number])
                if tuple(value.shape) != wanted:
                    raise ValueError(
                        f"state {name!r} of parameter {number} has the shape {tuple(value.shape)}, "
                        f"expected {wanted}"
                    )
        for group, new in zip(self.param_groups, given, strict=True):
            group.update({key: value for key, value in new.items() if key != "params"})
        for number, state in state_dict["state"].items():
            rows = self._rows[owners[number]]
            names = {name: self._add_state(rows, name, 0.0) for name in state if name != "step"}
            with rows.columns() as columns:
                for name, column in names.items():
                    columns[column][...] = np.asarray(state[name]).reshape(columns[column].shape)
            rows.set_steps(self.name, int(state.get("step", 0)))

    def _with_group(self) -> Iterator[tuple[Tensor, Group]]:
        for group in self.param_groups:
            for parameter in group["params"]:
                yield parameter, group

    def __repr__(self) -> str:
        lines = [type(self).__name__ + " ("]
        for number, group in enumerate(self.param_groups):
            lines.append(f"Parameter Group {number}")
            lines += [f"    {key}: {group[key]}" for key in sorted(group) if key != "params"]
        return "\n".join([*lines, ")"])


def _rows_of(parameter: Tensor) -> TableParameter:
    """Return a parameter's rows: its own table, or one in memory over the same elements."""
    if isinstance(parameter, TableParameter):
        return parameter
    if not parameter.array.flags.c_contiguous:
        raise ValueError(
            f"a parameter of shape {parameter.shape} is not contiguous; optimize a clone() of it"
        )
    first = parameter.shape[0] if parameter.ndim > 1 else 1
    width = parameter.numel() // first if first else int(np.prod(parameter.shape[1:]))
    return TableParameter.over(parameter.detach().reshape(first, width))


def check(condition: bool, what: str, value: object) -> None:
    """Raise ValueError (torch's text) unless a hyper-parameter meets its condition."""
    if not condition:
        raise ValueError(f"Invalid {what}: {value}")
