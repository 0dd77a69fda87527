"""Changes in place: add_, copy_, tensor[index] = ..., and their like.

Must not write to an array except through `writing` and `_assign`. Under no_grad a change is a plain
write; otherwise it may move the tensor to another place on the tape.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from . import tape
from .dtypes import FLOAT, INTEGER, TORCH_NAMES, Array, rank
from .ops import arithmetic
from .ops.cast import cast
from .ops.indexing import is_array, items_of, numpy_index, translated
from .ops.masking import masked_fill
from .ops.operands import (
    Operand,
    back_to,
    check_broadcast,
    data,
    dtype_of,
    operand,
    quiet,
    unbroadcast,
)
from .ops.pointwise import relu
from .random import fill_normal, fill_uniform
from .recording import record, takes_any
from .variable import UNRECORDED, Variable, wrap

if TYPE_CHECKING:
    from typing_extensions import Self

    from .tensor import Tensor

_LEAF = "a leaf Variable that requires grad is being used in an in-place operation."
_VIEW_OF_LEAF = (
    "a view of a leaf Variable that requires grad is being used in an in-place operation."
)

_UNRECORDED_VIEW = (
    "A view was created in no_grad mode and is being modified inplace with grad mode enabled. "
    "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your "
    "code by moving both the view and the inplace either both inside the no_grad block (if you "
    "don't want the inplace to be tracked) or both outside (if you want the inplace to be tracked)."
)
_RECORDED_VIEW = (
    "a view whose gradient is recorded is being used in an in-place operation. Change a clone() of "
    "the view, or assign to the tensor it was taken from: tensor[index] = values"
)


def _is_recorded(tensor: Variable, *others: Operand, in_part: bool = False) -> bool:
    """Return whether a change goes on the tape; RuntimeError (torch's texts) if not allowed."""
    if not tape.is_grad_enabled():
        return False
    tensor._check_current()
    if tensor.is_leaf and tensor.requires_grad:
        raise RuntimeError(_VIEW_OF_LEAF if in_part else _LEAF)
    recorded = any(isinstance(x, Variable) and x.requires_grad for x in (tensor, *others))
    root = tensor._root
    if root is None:
        return recorded
    if tensor._root_grad_fn is UNRECORDED:
        if root.requires_grad or recorded:
            raise RuntimeError(_UNRECORDED_VIEW)
    elif root.is_leaf and root.requires_grad:
        raise RuntimeError(_VIEW_OF_LEAF)
    elif recorded:
        raise RuntimeError(_RECORDED_VIEW)
    return False


def _before(tensor: Variable, array: Array) -> Tensor:
    """Return what `tensor` was: `array`, at its present place on the tape."""
    before = wrap(array)
    before._grad_fn = tensor._grad_fn
    return before


@takes_any
def _zero(upstream: Any) -> Array:
    return np.zeros(upstream.shape, upstream.dtype)


def _check_fits(tensor: Variable, shape: tuple[int, ...], result_rank: int) -> None:
    """Raise RuntimeError (torch's texts) if a result cannot be stored in `tensor`."""
    if result_rank > rank(tensor.dtype):
        wanted = TORCH_NAMES[FLOAT if result_rank == 2 else INTEGER].scalar
        have = TORCH_NAMES[tensor.dtype].scalar
        raise RuntimeError(
            f"result type {wanted} can't be cast to the desired output type {have}. Cast the "
            "tensor first with to(dtype)"
        )
    check_broadcast(tensor.shape, shape)
    together = np.broadcast_shapes(tensor.shape, shape)
    if together != tensor.shape:
        raise RuntimeError(
            f"output with shape {list(tensor.shape)} doesn't match the broadcast shape "
            f"{list(together)}"
        )


def _update(
    tensor: Variable,
    other: Operand,
    ufunc: Callable[..., Any],
    operation: Callable[[Operand, Operand], Tensor],
) -> None:
    """Set tensor = operation(tensor, other), in place."""
    other = operand(other)
    result_rank = 2 if ufunc is np.divide else rank(dtype_of(other))
    _check_fits(tensor, np.shape(data(other)), result_rank)
    if not _is_recorded(tensor, other):
        with tensor.writing() as array:
            ufunc(array, data(other), out=array, casting="same_kind")
        return
    result = cast(operation(_before(tensor, tensor.array.copy()), other), tensor.dtype)
    tensor._assign(..., result.array)
    tensor._grad_fn = result._grad_fn


def _overwrite(tensor: Variable, name: str, write: Callable[[Array], Any]) -> None:
    """Replace all elements by what does not depend on them."""
    recorded = _is_recorded(tensor)
    before = _before(tensor, tensor.array)
    with tensor.writing() as array:
        write(array)
    if recorded:
        tensor._grad_fn = record(name, tensor.array, (before, _zero, ()))._grad_fn


class InPlace(Variable):
    """The in-place methods. Each counts one change of the storage and returns the tensor itself.

    Raises
    ------
    RuntimeError        the tensor is a leaf that requires grad, or a view of one, outside no_grad
                        (torch's texts); or it is a recorded view; or the result has another shape
                        or a dtype of a higher kind.
    ReadOnlyTableError  its array is read-only.
    """

    __slots__ = ()

    @quiet
    def add_(self, other: Operand, alpha: float = 1) -> Self:
        """Add alpha * other."""
        _update(self, _scaled(other, alpha), np.add, arithmetic.add)
        return self

    @quiet
    def sub_(self, other: Operand, alpha: float = 1) -> Self:
        """Subtract alpha * other."""
        _update(self, _scaled(other, alpha), np.subtract, arithmetic.sub)
        return self

    @quiet
    def mul_(self, other: Operand) -> Self:
        """Multiply by other."""
        _update(self, other, np.multiply, arithmetic.mul)
        return self

    @quiet
    def div_(self, other: Operand) -> Self:
        """Divide by other."""
        _update(self, other, np.divide, arithmetic.div)
        return self

    def neg_(self) -> Self:
        """Negate."""
        _update(self, -1, np.multiply, _negated)
        return self

    def __iadd__(self, other: Operand) -> Self:
        """Add other."""
        return self.add_(other)

    def __isub__(self, other: Operand) -> Self:
        """Subtract other."""
        return self.sub_(other)

    def __imul__(self, other: Operand) -> Self:
        """Multiply by other."""
        return self.mul_(other)

    def __itruediv__(self, other: Operand) -> Self:
        """Divide by other."""
        return self.div_(other)

    @quiet
    def copy_(self, source: Operand) -> Self:
        """Take the elements of `source`, broadcast to this shape and cast to this dtype."""
        source = operand(source)
        _check_fits(self, np.shape(data(source)), 0)
        recorded = _is_recorded(self, source)
        before = _before(self, self.array)
        self._assign(..., data(source))
        if recorded:
            source = cast(source, self.dtype) if isinstance(source, Variable) else source
            edges = (before, _zero, ()), (source, back_to(source), ())
            self._grad_fn = record("CopyBackwards", self.array, *edges)._grad_fn
        return self

    def relu_(self) -> Self:
        """Set negative elements to 0."""
        return self.copy_(relu(self))

    def masked_fill_(self, mask: Variable | Array, value: Operand) -> Self:
        """Set the elements where the mask is True to `value`; see `masked_fill`."""
        return self.copy_(masked_fill(self, mask, value))

    def zero_(self) -> Self:
        """Set all elements to 0."""
        _overwrite(self, "ZeroBackward0", lambda array: array.fill(0))
        return self

    def fill_(self, value: float) -> Self:
        """Set all elements to a number."""
        _overwrite(self, "FillBackward0", lambda array: array.fill(value))
        return self

    def normal_(self, mean: float = 0.0, std: float = 1.0) -> Self:
        """Draw all elements from the normal distribution, with the generator of `manual_seed`."""
        _overwrite(self, "NormalBackward0", lambda array: fill_normal(array, mean, std))
        return self

    def uniform_(self, low: float = 0.0, high: float = 1.0) -> Self:
        """Draw all elements uniformly from low..high, with the generator of `manual_seed`."""
        _overwrite(self, "UniformBackward0", lambda array: fill_uniform(array, low, high))
        return self

    @quiet
    def __setitem__(self, index: Any, value: Operand) -> None:
        """Set self[index] = value, broadcast and cast; raises IndexError as reading does."""
        items, value = items_of(index, self.ndim), operand(value)
        advanced = any(is_array(item) for item in items)
        whole = all(is_array(item) or item in (slice(None), ...) for item in items)
        recorded = _is_recorded(self, value, in_part=not whole)
        where = numpy_index(items)
        before = _before(self, self.array)
        _assign_checked(self, where, data(value))
        if recorded:
            value = cast(value, self.dtype) if isinstance(value, Variable) else value
            saved = items if advanced else ()
            edges = _assignment_edges(before, value, saved, () if advanced else where)
            name = "IndexPutBackward0" if advanced else "CopySlices"
            self._grad_fn = record(name, self.array, *edges)._grad_fn


def _negated(before: Any, _: Operand) -> Tensor:
    return arithmetic.neg(before)


def _scaled(other: Operand, alpha: float) -> Operand:
    return other if alpha == 1 else arithmetic.mul(other, alpha)


def _assign_checked(tensor: Variable, where: tuple[Any, ...], value: Any) -> None:
    try:
        tensor._assign(where, value)
    except IndexError as error:
        raise translated(error) from None
    except ValueError:
        target, shape = np.shape(tensor.array[where]), np.shape(value)
        if _fits(shape, target):
            raise
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(shape)} cannot be broadcast to indexing "
            f"result of shape {list(target)}"
        ) from None


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return all(
        size in (1, wanted)
        for size, wanted in itertools.zip_longest(shape[::-1], target[::-1], fillvalue=1)
    )


def _assignment_edges(
    before: Variable, value: Operand, saved: tuple[Any, ...], basic: tuple[Any, ...]
) -> tuple[Any, ...]:
    """Return the rules of tensor[index] = value; only an index with arrays is saved."""
    shape = np.shape(data(value))

    def outside(upstream: Any, *index: Any) -> Array:
        gradient = upstream.copy()
        gradient[index or basic] = 0
        return gradient  # type: ignore[no-any-return]

    def inside(upstream: Any, *index: Any) -> Any:
        taken = upstream[index or basic]
        surplus = max(0, len(shape) - taken.ndim)  # leading ones, which assignment ignores
        return unbroadcast(taken, shape[surplus:]).reshape(shape)

    return (before, outside, saved), (value, inside, saved)
