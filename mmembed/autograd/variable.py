"""A variable: an array with its version counter, its gradient and its place on the tape.

Must not know operators or formulas (ops/), nor tables or files: a subclass may keep its elements
elsewhere by overriding `array`, `writing` and `_put`, through which every change of elements
goes.
"""

from __future__ import annotations

import mmap
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, ClassVar, Final

import numpy as np

from ..errors import ReadOnlyTableError
from ..narrow import is_bfloat16, is_floating
from . import tape
from .dtypes import FLOAT, TORCH_NAMES, Array, checked
from .memory import is_new, rows_of, same_place

if TYPE_CHECKING:
    from .tensor import Tensor

UNRECORDED: Final = object()
"""Stands in a view for its root's grad_fn, if the view was taken under no_grad."""

# Several threads may run backward into one leaf.
_accumulating = threading.Lock()

_NOT_A_LEAF = "you can only change requires_grad flags of leaf variables."
_USE_DETACH = (
    " If you want to use a computed variable in a subgraph that doesn't require differentiation "
    "use var_no_grad = var.detach()."
)


def _owns_memory(array: Array) -> bool:
    """Whether the array is alone over its memory: NumPy's own, or a map made for it."""
    return array.base is None or isinstance(array.base, mmap.mmap)


class Variable:
    """The state of a tensor. `Tensor` adds operators and conversions and is what users see."""

    __slots__ = (
        "__weakref__",
        "_accumulator",
        "_array",
        "_base",
        "_grad",
        "_grad_fn",
        "_receiver",
        "_requires_grad",
        "_root",
        "_root_grad_fn",
        "_version_counter",
    )
    __array_ufunc__ = None  # ndarray + tensor is left to the tensor
    __array_priority__ = 1000

    result_class: ClassVar[type[Tensor]]
    """The class of every result; set where Tensor is defined, which this module does not import."""

    def __init__(self, array: Array, requires_grad: bool = False) -> None:
        """Wrap `array` without copying it; `tensor()` and `from_numpy()` are the usual ways in."""
        if not isinstance(array, np.ndarray):
            raise TypeError(
                f"expected np.ndarray (got {type(array).__name__}). Use tensor(data) for other data"
            )
        checked(array.dtype)
        if requires_grad and not is_floating(array.dtype):
            raise RuntimeError(
                "Only Tensors of floating point and complex dtype can require gradients"
            )
        self._array = array
        self._requires_grad = requires_grad
        self._grad: Any = None
        self._grad_fn: tape.Node | None = None
        self._version_counter = tape.Version()
        self._receiver: Callable[[Any], None] | None = None
        self._accumulator: weakref.ref[tape.Node] | None = None
        # A view is written through its base. Its gradient is a part of its root's, as that was when
        # the view was taken. A detached tensor has a base and no root.
        self._base: Variable | None = None
        self._root: Variable | None = None
        self._root_grad_fn: object = None

    # -- elements ---------------------------------------------------------------------------------

    @property
    def array(self) -> Array:
        """The ndarray itself. Writing to it bypasses the version counter, like torch's `.data`."""
        return self._array

    @contextmanager
    def writing(self, rows: Any = None) -> Iterator[Array]:
        """Yield the array to be changed in place, and count one change at the end.

        `rows` (a slice or integer array; None: all) promises that no other row is changed. A view
        is written through the variable it was taken from. This is the door for kernels: it neither
        consults nor records on the tape.

        Raises
        ------
        ReadOnlyTableError  the array is read-only.
        """
        if self._base is not None:
            base = self._base.array
            with self._base.writing(rows_of(self.array, base)) as whole:
                writable = self.array.flags.writeable
                yield self.array if writable else same_place(self.array, base, whole)
            return
        array = self.array
        if not array.flags.writeable:
            raise ReadOnlyTableError(
                f"a tensor of shape {list(array.shape)} cannot be changed in place: its array is "
                "read-only. Change a clone(), or make the tensor from a writable array"
            )
        try:
            yield array
        finally:
            self._version_counter.bump()

    def _assign(self, index: Any, values: Any) -> None:
        """Set array[index] = values, with NumPy's meaning of `index`; one change is counted.

        The second door, for whoever can tell from the index which rows change.
        """
        with self._version_counter.restored_on(IndexError, TypeError, ValueError):
            self._put(index, values)  # what NumPy refuses, it refuses before it writes

    def _put(self, index: Any, values: Any) -> None:
        with self.writing() as array:
            array[index] = values

    # -- what it is -------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of every dimension."""
        return self.array.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, an np.dtype."""
        return self.array.dtype

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return self.array.ndim

    def dim(self) -> int:
        """Return the number of dimensions."""
        return self.array.ndim

    def numel(self) -> int:
        """Return the number of elements."""
        return self.array.size

    @property
    def _version(self) -> int:
        """The number of in-place changes made to this storage, through any of its views."""
        return self._version_counter.number

    # -- place on the tape ------------------------------------------------------------------------

    @property
    def grad_fn(self) -> tape.Node | None:
        """The operation that made this tensor; None for a leaf."""
        return self._grad_fn

    @property
    def is_leaf(self) -> bool:
        """Whether no recorded operation made this tensor."""
        return self._grad_fn is None

    @property
    def requires_grad(self) -> bool:
        """Whether gradients flow to or through this tensor; may be set on leaves."""
        return self._requires_grad or self._grad_fn is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if not self.is_leaf:
            raise RuntimeError(_NOT_A_LEAF + ("" if wanted else _USE_DETACH))
        if wanted and not is_floating(self.dtype):
            raise RuntimeError(
                "only Tensors of floating point and complex dtype can require gradients"
            )
        self._requires_grad = bool(wanted)

    def _node(self) -> tape.Node:
        """Return the node that takes this variable's gradient. It must require one."""
        if self._grad_fn is not None:
            return self._grad_fn
        node = self._accumulator() if self._accumulator is not None else None
        if node is None:
            node = tape.AccumulateGrad(self._accumulate)
            self._accumulator = weakref.ref(node)
        return node

    def _origin(self) -> str:
        """Return what torch calls the operation this came from, for messages."""
        if self._root is not None and self.requires_grad:
            return "AsStrided"
        return self._grad_fn.name().removesuffix("Backward0") if self._grad_fn is not None else ""

    def _check_current(self) -> None:
        """Raise RuntimeError if a recorded change of the root made this view's history wrong."""
        root = self._root
        if root is None or self._root_grad_fn in (root._grad_fn, UNRECORDED):
            return
        raise RuntimeError(
            f"a view of shape {list(self.shape)} was taken before a recorded in-place change of "
            f"its base (shape {list(root.shape)}), so its gradient would be wrong. Take the view "
            "again after the change, or clone() the base before it"
        )

    def detach(self) -> Tensor:
        """Return a tensor over the same elements and version counter that requires no gradient."""
        return wrap(self.array, self)

    # -- gradients --------------------------------------------------------------------------------

    @property
    def grad(self) -> Any:
        """The gradient that `backward` collected: None, a Tensor, or a sparse gradient.

        Always None for a tensor that is not a leaf. May be set to None or to a gradient of this
        shape and dtype. Source: torch.Tensor.grad.
        """
        return self._grad

    @grad.setter
    def grad(self, gradient: Any) -> None:
        if gradient is not None:
            self._check_gradient(gradient)
        self._grad = gradient

    def _check_gradient(self, gradient: Any) -> None:
        if isinstance(gradient, np.ndarray) or not (
            hasattr(gradient, "shape") and hasattr(gradient, "dtype")
        ):
            kind = f"{type(gradient).__module__}.{type(gradient).__qualname__}"
            raise TypeError(
                "assigned grad expected to be a Tensor or None but got grad of type "
                + kind.removeprefix("builtins.")
            )
        if gradient is self:
            raise RuntimeError("can't assign Variable as its own grad")
        if not self._takes_gradient_of(gradient.dtype):
            raise RuntimeError(
                f"attempting to assign a gradient with dtype '{TORCH_NAMES[gradient.dtype].c}' to "
                f"a tensor with grad_dtype '{TORCH_NAMES[self.dtype].scalar}'. The gradient must "
                "match the tensor's grad_dtype (defaults to the tensor's dtype). Cast it with "
                f"grad.to({str(self.dtype)!r})"
            )
        if tuple(gradient.shape) != self.shape:
            raise RuntimeError(
                f"attempting to assign a gradient of size '{list(gradient.shape)}' to a tensor of "
                f"size '{list(self.shape)}'. Please ensure that the gradient and the tensor are "
                "the same size"
            )

    def _takes_gradient_of(self, dtype: np.dtype[Any]) -> bool:
        """Return whether a gradient may have this dtype."""
        return dtype == self.dtype

    def _accumulate(self, gradient: Any, owned: bool) -> None:
        """Add `gradient` to `.grad`, which belongs to this leaf: what is not `owned` is copied."""
        if not self._requires_grad:
            return
        gradient, owned = self._fitting(gradient, owned)
        if self._receiver is not None:
            self._receiver(wrap(gradient) if isinstance(gradient, np.ndarray) else gradient)
            return
        with _accumulating:
            self._add_to_grad(gradient, owned)

    def _fitting(self, gradient: Any, owned: bool) -> tuple[Any, bool]:
        """Return a gradient that a rule gave, if it fits this leaf, and whether it is owned."""
        fits = self._takes_gradient_of(gradient.dtype)
        if not fits and gradient.dtype == FLOAT and is_bfloat16(self.dtype):  # of x * 0.5, say
            gradient, fits, owned = gradient.astype(self.dtype), True, True
        if tuple(gradient.shape) != self.shape or not fits:
            raise RuntimeError(
                f"a rule gave a gradient of shape {list(gradient.shape)} and dtype "
                f"{gradient.dtype} for a leaf of shape {list(self.shape)} and dtype {self.dtype}; "
                "they must be the same"
            )
        scalar = isinstance(gradient, np.generic)
        return (np.asarray(gradient), True) if scalar else (gradient, owned)

    def _add_to_grad(self, gradient: Any, owned: bool) -> None:
        dense = isinstance(gradient, np.ndarray)
        if isinstance(self._grad, Variable):
            with self._grad.writing() as array:
                if dense:
                    np.add(array, gradient, out=array)
                else:
                    array[...] = array + gradient
        elif self._grad is not None:
            self._grad += gradient  # in place if it can: it belongs to this leaf
            if isinstance(self._grad, np.ndarray):
                self._grad = wrap(self._grad)
        elif dense:
            kept = owned and _owns_memory(gradient)
            self._grad = wrap(gradient if kept else np.array(gradient, order="C"))
        else:
            self._grad = gradient if owned else gradient.clone()

    def hand_gradients_to(self, receiver: Callable[[Any], None] | None) -> None:
        """Call `receiver(gradient)` where `backward` would add to `.grad`; with None, add again.

        The gradient, a Tensor or a sparse one, is the sum over all uses of this leaf. It is lent: a
        receiver may neither change it nor keep it, so that nothing has to be copied.

        Raises
        ------
        RuntimeError  there is another receiver.
        """
        if receiver is not None and self._receiver not in (None, receiver):
            raise RuntimeError("the gradients of this tensor are already handed to something else")
        self._receiver = receiver

    def backward(self, gradient: Variable | None = None, retain_graph: bool = False) -> None:
        """Add the gradient of this tensor with respect to every leaf to that leaf's `.grad`.

        Parameters
        ----------
        gradient : tensor of this shape, the gradient of something with respect to this tensor. May
            be left out for a tensor with one element; it is then 1.
        retain_graph : keep what the operations saved, so that backward may be called again.

        Raises
        ------
        RuntimeError  nothing here requires a gradient; `gradient` is missing or has another shape;
                      the graph was freed by an earlier backward; a saved tensor was changed in
                      place.
        TypeError     `gradient` is not a tensor.

        Source: torch.Tensor.backward. Differs: gradients are plain arrays, so there is no
        create_graph (no second derivatives).
        """
        if not self.requires_grad:
            raise RuntimeError(
                "element 0 of tensors does not require grad and does not have a grad_fn"
            )
        self._check_current()
        if gradient is None:
            if self.numel() != 1:
                raise RuntimeError("grad can be implicitly created only for scalar outputs")
            seed = np.ones(self.shape, self.dtype)
        elif not isinstance(gradient, Variable):
            raise TypeError(
                f"gradients can be either Tensors or None, but got {type(gradient).__name__}"
            )
        elif gradient.shape != self.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[0] has a shape of "
                f"torch.Size({list(gradient.shape)}) and output[0] has a shape of "
                f"torch.Size({list(self.shape)})."
            )
        else:
            seed = gradient.array.astype(self.dtype, copy=False)
        with np.errstate(all="ignore"):
            tape.backward(
                self._node(),
                seed,
                owned=gradient is None,
                retain_graph=retain_graph,
                is_new=is_new,
                prepare=as_array,
            )


def as_array(gradient: Any) -> Array:
    """Return a gradient as an array: a sparse one with all its rows."""
    if isinstance(gradient, np.ndarray | np.generic):
        return np.asarray(gradient)
    dense: Array = gradient.to_dense().array
    return dense


def wrap(array: Array, shared: Variable | None = None) -> Tensor:
    """Wrap a result. If its memory is `shared`, so are the version counter and the way to write."""
    tensor = Variable.result_class(array)
    if shared is not None:
        tensor._version_counter = shared._version_counter
        tensor._base = shared if shared._base is None else shared._base
    return tensor
