"""`Optimizer`: parameter groups, state by parameter, and the walk over gradients.

Must not know any update rule, nor files.
"""

from __future__ import annotations

import abc
import contextlib
import numbers
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor, enable_grad, no_grad
from ..autograd.random import next_seed
from ..narrow import is_narrow
from ..parameter import TableParameter, zero_grad
from ..rows import RowGrad
from . import segments
from .narrow import Rounding, update_narrow
from .segments import Segments

FloatArray = npt.NDArray[np.floating[Any]]
Group = dict[str, Any]

# Several threads may run backward into fused parameters.
_updating = threading.RLock()


class Optimizer(abc.ABC):
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

    # -- what a subclass says ----------------------------------------------------------------------

    @abc.abstractmethod
    def states(self, group: Group) -> dict[str, float]:
        """Return {name: first value} of the state arrays that this group's rule needs."""

    @abc.abstractmethod
    def update(
        self, arrays: tuple[FloatArray, ...], rows: Segments, step: int, group: Group
    ) -> None:
        """Change rows of (parameter, *states) by their gradients; `step` counts from 1."""

    def before_update(  # noqa: B027  most rules have nothing to do
        self,
        parameter: TableParameter,
        rows: npt.NDArray[np.int64] | None,
        group: Group,
        new_step: bool,
    ) -> None:
        """Do what comes before the update of rows (None: all); by default nothing.

        `new_step` is False for the second parameter over the same rows in one step.
        """

    def counter(self, group: Group) -> str:
        """Return the name of the counter of steps that `update` is told."""
        return self.name

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
        self.param_groups.append(_with_seed({**self.defaults, **group, "params": params}))
        if self.states_at_once:
            for parameter in params:
                for state, init in self.states(self.param_groups[-1]).items():
                    self._add_state(self._rows[parameter], state, init)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Forget the gradients of all parameters, or make them zero in place."""
        for parameter in self._rows:
            zero_grad(parameter, set_to_none)

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
        return any(np.may_share_memory(memory, table.column(name)) for name in table.columns)

    def __eq__(self, other: object) -> bool:
        """Return whether the other is of the same optimizer."""
        return isinstance(other, _Fused) and other._optimizer is self._optimizer

    __hash__ = None  # type: ignore[assignment]


def _with_seed(group: Group) -> Group:
    """Return a group with a seed, which follows from `manual_seed`, if its rounding takes one."""
    if group.get("stochastic_rounding"):
        group.setdefault("rounding_seed", next_seed())
    return group


def _place(parameter: TableParameter) -> tuple[int, str]:
    """Return what two parameters over the same rows have in common."""
    return id(parameter.table), parameter.column


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
