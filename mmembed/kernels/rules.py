"""A user's rule for one row as an update of many: compiled by Numba, whatever body is in use.

It keeps the contract of the updates in `mmembed.kernels`. Numba is loaded when a rule is checked.

Must not know optimizers, files or the tape.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from ..errors import RuleError
from . import load
from .threads import threads_for

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]
Rule = Callable[..., None]


def name_of(rule: Rule) -> str:
    """Return the name of the function that a rule is."""
    return str(getattr(rule, "__name__", rule))


def parameters(rule: Rule) -> dict[str, Any]:
    """Return {name: default, or inspect.Parameter.empty} of a rule's parameters, in order.

    Raises
    ------
    RuleError  it is no function, or takes arguments in another way than one by one.
    """
    function = getattr(rule, "py_func", rule)  # that of one which is jitted already
    if not inspect.isfunction(function):
        raise RuleError(f"a rule is a function of rows, got {rule!r}")
    found = inspect.signature(function).parameters
    for parameter in found.values():
        if parameter.kind is not inspect.Parameter.POSITIONAL_OR_KEYWORD:
            raise RuleError(
                f"the rule {name_of(rule)} takes {parameter}: Numba needs its parameters one by one"
            )
    return {name: parameter.default for name, parameter in found.items()}


@functools.cache
def check(rule: Rule, dtype: str, tables: int, numbers: int) -> None:
    """Compile a rule for rows of a dtype, and see that it changes them in place.

    tables : how many there are, the parameter and its states.

    Raises
    ------
    RuleError  it does not compile, or returns something.
    """
    jitted = _jitted(rule)
    import numba

    real: Any = numba.from_dtype(np.dtype(dtype))
    row = numba.types.Array(real, 1, "C")
    signature = (*(row,) * (tables + 1), *(real,) * numbers)
    try:
        if signature not in jitted.overloads:
            jitted.compile(signature)
        result = jitted.overloads[signature].signature.return_type
    except numba.core.errors.NumbaError as error:
        raise RuleError(
            f"the rule {name_of(rule)} does not compile for {dtype} rows: {error}"
        ) from error
    except RuntimeError as error:  # of what was jitted for certain types only
        raise RuleError(
            f"the rule {name_of(rule)} was compiled for other types than {dtype} rows and numbers, "
            "C-contiguous: leave the signature out of its njit"
        ) from error
    if result != numba.types.none:
        raise RuleError(
            f"the rule {name_of(rule)} returns {result}; it must change its rows in place, such as "
            "weight[j] -= lr * g[j], and return nothing"
        )


def update(
    rule: Rule,
    tables: tuple[FloatArray, ...],  # INOUT  (rows, dim or 1): the parameter, then its states
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    numbers: tuple[float, ...],
    weight_decay: float,
    maximize: bool,
) -> int:
    """Call rule(weight[i], *(state[i] of the states), g, *numbers) for each i of ids.

    The numbers are rounded to the dtype of the tables, and g is the rule's to change.
    """
    weight = tables[0]
    rows, dim = weight.shape
    for state in tables[1:]:
        if state.shape not in ((rows, dim), (rows, 1)) or state.dtype != weight.dtype:
            raise ValueError(
                f"a state of a parameter ({rows}, {dim}) {weight.dtype} must be ({rows}, {dim}) or "
                f"({rows}, 1), got {state.shape} {state.dtype}"
            )
    threads = threads_for(max(values.size, ids.size * dim))
    work = np.empty((threads, dim + 64), weight.dtype)
    segments = ids, values, order, starts
    key = f"{weight.dtype.char}{len(tables)}.{len(numbers)}"
    loop, run = _loop(rule)
    return int(run(
        loop, key, threads, tables, *segments, numbers, float(weight_decay), maximize, work
    ))  # fmt: skip


@functools.cache
def _loop(rule: Rule) -> tuple[Callable[..., int], Callable[..., Any]]:
    """Return the loop that applies a rule, and what calls loops."""
    jitted = _jitted(rule)
    from . import numba_compile, numba_updates

    return numba_updates.by_rule(jitted), numba_compile.run


@functools.cache
def _jitted(rule: Rule) -> Any:
    """Return a rule as a function of Numba's; one that is already keeps its options."""
    load("numba")
    from .numba_compile import jitted

    return rule if hasattr(rule, "py_func") else jitted(rule)
