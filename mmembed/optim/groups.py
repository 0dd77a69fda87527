"""`ParameterGroups`: what an optimizer changes, with which options, and the state it keeps of it.

Must not know gradients, rules or files.
"""

from __future__ import annotations

import abc
import numbers
import warnings
from collections.abc import Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor
from ..autograd.random import next_seed
from ..parameter import TableParameter, zero_grad
from ..storage import Table

FloatArray = npt.NDArray[np.floating[Any]]
Group = dict[str, Any]


class ParameterGroups(abc.ABC):
    """The parameters of an optimizer; see `Optimizer`, the class of all of them."""

    name: str
    """What columns of this optimizer's state are called: <parameter's column>.<name>.<state>."""

    scalar_states: Collection[str] = ()
    """Names of states that are one number per row, instead of an array as wide as the rows."""

    states_at_once = False
    """Whether states are made with the optimizer, instead of in the first step."""

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[Group],
        defaults: Mapping[str, Any],
        *,
        stochastic_rounding: bool = False,
    ) -> None:
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or dicts, "
                f"but got {type(params).__name__}"
            )
        self.defaults = dict(defaults)
        if stochastic_rounding:
            self.defaults["stochastic_rounding"] = True
        self.param_groups: list[Group] = []
        self._rows: dict[Tensor, TableParameter] = {}
        self._fused: set[Tensor] = set()
        groups = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)  # type: ignore[arg-type]

    @abc.abstractmethod
    def states(self, group: Group) -> dict[str, float]:
        """Return {name: first value} of the state arrays that this group's rule needs."""

    @classmethod
    def columns_for(
        cls, *rule: Any, column: str = "weight", **options: Any
    ) -> dict[str, dict[str, Any]]:
        """Return the columns of this optimizer's state, as `Table.create(columns=...)` takes them.

        Parameters
        ----------
        rule, options : what the optimizer is made with, behind its parameters.
        column : the column that will be trained.

        >>> import mmembed as mm
        >>> mm.optim.RowwiseAdagrad.columns_for()
        {'weight.rowwise_adagrad.sum': {'scalar': True, 'init': 'constant(0.0)'}}
        """
        optimizer = cls([TableParameter(Table.create(None, 0, 1))], *rule, **options)
        begin = f"{column}.{optimizer.name}"
        columns = {
            f"{begin}.{state}": {
                "scalar": state in optimizer.scalar_states,
                "init": f"constant({float(init)!r})",
            }
            for state, init in optimizer.states(optimizer.param_groups[0]).items()
        }
        return columns | {f"{begin}.{name}": dict(made) for name, made in cls.late_columns.items()}

    late_columns: Mapping[str, Mapping[str, Any]] = {}
    """Columns beside the states that steps add, as `Table.create(columns=...)` takes them."""

    def counter(self, group: Group) -> str:
        """Return the name of the counter of steps that `update` is told."""
        return self.name

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
        self.param_groups.append(_with_seed({**self.defaults, **group, "params": params}))
        if self.states_at_once:
            for parameter in params:
                for state, init in self.states(self.param_groups[-1]).items():
                    self._add_state(self._rows[parameter], state, init)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero in place."""
        for parameter in self._rows:
            zero_grad(parameter, set_to_none)

    def _rows_for(self, parameter: Tensor) -> TableParameter:
        """Return the rows of a parameter, with its states.

        A parameter without a table has one made over its memory. Where its memory has become
        another, by a cast, a copy or a pickle of it together with the optimizer, the states move.
        """
        rows = self._rows[parameter]
        if rows is parameter or _same_elements(rows.array, parameter.array):
            return rows
        moved = self._rows[parameter] = _rows_of(parameter)
        moved.take_states(rows)
        return moved

    def _add_state(self, parameter: TableParameter, state: str, init: float) -> str:
        """Make sure of a state column; returns its name in the table."""
        return parameter.add_state(self.name, state, init, scalar=state in self.scalar_states)

    def _state_shape(self, parameter: Tensor, state: str) -> tuple[int, ...]:
        rows = self._rows_for(parameter).shape[0]
        return (rows,) if state in self.scalar_states else parameter.shape

    # -- state -------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return {"state": {number: {"step", state: tensor}}, "param_groups": [...]}.

        Tensors share the memory of the state. Parameters are numbered in the order of the groups.
        """
        numbers = {parameter: number for number, parameter in enumerate(self._rows)}
        state = {}
        for parameter, group in self._with_group():
            rows = self._rows_for(parameter)
            arrays = {name: rows.state(self.name, name) for name in self.states(group)}
            made = {name: array for name, array in arrays.items() if array is not None}
            if made or rows.steps(self.counter(group)):
                state[numbers[parameter]] = {
                    "step": rows.steps(self.counter(group)),
                    **{
                        name: Tensor(array.reshape(self._state_shape(parameter, name)))
                        for name, array in made.items()
                    },
                }
        groups = [
            {**group, "params": [numbers[parameter] for parameter in group["params"]]}
            for group in self.param_groups
        ]
        return {"state": state, "param_groups": groups}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Copy what `state_dict` returned into this optimizer; states that it lacks start anew.

        Raises
        ------
        ValueError  the groups, or the names or shapes of states, are not this optimizer's; nothing
                    has been copied then.
        """
        given = state_dict["param_groups"]
        if [len(group["params"]) for group in given] != [
            len(group["params"]) for group in self.param_groups
        ]:
            raise ValueError(
                "loaded state dict has a different number of parameter groups, or a group that "
                "doesn't match the size of optimizer's group"
            )
        groups = [
            {**group, **{key: value for key, value in new.items() if key != "params"}}
            for group, new in zip(self.param_groups, given, strict=True)
        ]
        owners = {
            number: (parameter, group)
            for group, new in zip(groups, given, strict=True)
            for number, parameter in zip(new["params"], group["params"], strict=True)
        }
        for number, state in state_dict["state"].items():
            if number not in owners:
                raise ValueError(f"there is a state of parameter {number}, which is in no group")
            self._check_state(number, *owners[number], state)
        for group, new in zip(self.param_groups, groups, strict=True):
            group.update(new)
        for number, (parameter, group) in owners.items():
            self._load_state(self._rows_for(parameter), group, state_dict["state"].get(number, {}))

    def _check_state(
        self, number: int, parameter: Tensor, group: Group, state: Mapping[str, Any]
    ) -> None:
        known = {"step", *self.states(group), *self._rows_for(parameter).states(self.name)}
        for name, value in state.items():
            if name not in known:
                raise ValueError(
                    f"state {name!r} of parameter {number} is none of {type(self).__name__}'s"
                )
            if name == "step" and not _counts(value):
                raise ValueError(f"step of parameter {number} must be a number >= 0, got {value!r}")
            if name != "step" and np.asarray(value).dtype.kind not in "fiu":
                raise ValueError(f"state {name!r} of parameter {number} holds no numbers")
            wanted = self._state_shape(parameter, name)
            if name != "step" and tuple(value.shape) != wanted:
                raise ValueError(
                    f"state {name!r} of parameter {number} has the shape {tuple(value.shape)}, "
                    f"expected {wanted}"
                )

    def _load_state(self, rows: TableParameter, group: Group, state: Mapping[str, Any]) -> None:
        inits = self.states(group)
        for name in state:
            if name != "step":
                self._add_state(rows, name, inits.get(name, 0.0))
        with rows.table.writing() as columns:
            for name, column in rows.states(self.name).items():
                values = columns[column]
                given = state.get(name, inits.get(name, 0.0))
                values[...] = np.broadcast_to(np.asarray(given).reshape(-1), values.size).reshape(
                    values.shape
                )
        rows.set_steps(self.counter(group), int(state.get("step", 0)))

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


def _with_seed(group: Group) -> Group:
    """Return a group with a seed, which follows from `manual_seed`, if its rounding takes one."""
    if group.get("stochastic_rounding"):
        group.setdefault("rounding_seed", next_seed())
    return group


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


def _counts(value: object) -> bool:
    """Whether a value can be a number of steps: torch's are tensors of floats."""
    if isinstance(value, Tensor):
        value = value.item() if value.numel() == 1 else None
    return isinstance(value, numbers.Real) and float(value) >= 0 and float(value).is_integer()


def _same_elements(first: FloatArray, second: FloatArray) -> bool:
    """Whether two contiguous arrays are the same memory and dtype."""
    place = [array.__array_interface__["data"][0] for array in (first, second)]
    return place[0] == place[1] and first.size == second.size and first.dtype == second.dtype


def check(condition: bool, what: str, value: object) -> None:
    """Raise ValueError (torch's text) unless a hyper-parameter meets its condition."""
    if not condition:
        raise ValueError(f"Invalid {what}: {value}")
