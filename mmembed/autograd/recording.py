"""Recording: the one way by which an operation gets its result and its place on the tape.

Must not know any operation; those of other packages are recorded in the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from ..narrow import is_floating
from . import tape
from .dtypes import TORCH_NAMES, Array
from .variable import UNRECORDED, Variable, wrap

if TYPE_CHECKING:
    from .tensor import Tensor

OUTPUT: Final = object()
"""Stands for the operation's own output among the saved values given to `record`."""


def takes_any(rule: tape.Rule) -> tape.Rule:
    """Mark a rule that asks of its upstream gradient only `*`, `/`, unary `-`, shape and dtype.

    It gets sparse gradients as they are, where others get them as arrays.
    """
    rule.takes_any = True  # type: ignore[attr-defined]
    return rule


class SavedArray(tape.Saved):
    """An array saved for a rule; described in torch's words if it was changed in place."""

    __slots__ = ("_origin",)

    def __init__(self, value: Array, version: tape.Version, origin: str) -> None:
        """Save `value`, the output of the operation `origin` ("" for a leaf)."""
        super().__init__(value, version)
        self._origin = origin

    def describe(self) -> str:
        """Return e.g. `[torch.FloatTensor [3, 5]], which is output 0 of Exp,`."""
        names = TORCH_NAMES[self.value.dtype]
        origin = f", which is output 0 of {self._origin}," if self._origin else ""
        return f"[{names.tensor} {list(self.value.shape)}]{origin}"


def record(
    name: str,
    output: Any,
    *inputs: tuple[Any, tape.Rule, Sequence[Any]],
    view_of: Variable | None = None,
) -> Tensor:
    """Make the result of an operation, and put the operation on the tape if a gradient can flow.

    This is how every operation is written, here or elsewhere:

    >>> def times(a, b):
    ...     return record(
    ...         "TimesBackward0",
    ...         a.array * b.array,
    ...         (a, lambda upstream, b: upstream * b, (b,)),
    ...         (b, lambda upstream, a: upstream * a, (a,)),
    ...     )
    >>> from mmembed.autograd import tensor
    >>> a, b = tensor([2.0], requires_grad=True), tensor([5.0], requires_grad=True)
    >>> times(a, b).backward()
    >>> a.grad, b.grad
    (tensor([5.]), tensor([2.]))

    Parameters
    ----------
    name : torch's name of the operation's node.
    output : the computed array. Nothing but the result may refer to it, unless it is a view.
    inputs : one (input, rule, saved) for each input that may require a gradient; other inputs, and
        inputs that are no tensors, are passed over, and nothing is saved for them.
        `rule(upstream, *saved)` returns the gradient for that input, in its shape and dtype: a new
        array, `upstream` itself, or a view of either; never a saved array. `upstream` is the
        gradient of the output, an array. A result may be any value with `+`, `shape`, `dtype`,
        `clone()` and `to_dense()`, such as sparse rows; rules marked with `takes_any` get such a
        value as it is.
        `saved` are the values that the rule needs. A tensor is saved as its array and its version,
        and changing it in place before backward is an error; `OUTPUT` stands for the output;
        anything else is saved as it is. After a backward without retain_graph they are dropped, and
        the next one raises; an operation that saved nothing may run again. A rule should capture
        only small things such as shapes: what it captures is neither checked nor dropped.
    view_of : the variable whose memory the output shares, if it does.

    Returns
    -------
    Tensor  that requires a gradient if one of the inputs does, grad mode is on and the output is
            floating.

    Raises
    ------
    RuntimeError  an input is a view whose base was changed since by a recorded in-place operation.
    """
    array = np.asarray(output)
    tensor = wrap(array, view_of)
    enabled = tape.is_grad_enabled()
    if view_of is not None:
        root = tensor._root = view_of if view_of._root is None else view_of._root
        recorded = enabled and view_of._root_grad_fn is not UNRECORDED
        tensor._root_grad_fn = root._grad_fn if recorded else UNRECORDED
    if not enabled or not is_floating(array.dtype):
        return tensor
    edges = []
    for input, rule, saved in inputs:
        if not isinstance(input, Variable):
            continue
        input._check_current()
        if input.requires_grad:
            values = tuple(_save(value, tensor, name) for value in saved)
            takes_any = getattr(rule, "takes_any", False)
            edges.append(tape.Edge(input._node(), rule, values, takes_any))
    if edges:
        tensor._grad_fn = tape.Node(name, edges)
    return tensor


def _save(value: Any, output: Tensor, name: str) -> Any:
    if value is OUTPUT:
        origin = name.removesuffix("Backward0")
        return SavedArray(output.array, output._version_counter, origin)
    if isinstance(value, Variable):
        return SavedArray(value.array, value._version_counter, value._origin())
    return value
