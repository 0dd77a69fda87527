"""Tensor: a variable with its operators and methods, each the name of an operation in ops/.

Must not know formulas: what an operation computes, and its gradient, stand in ops/.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..narrow import is_floating
from .conversion import Convertible
from .inplace import InPlace
from .ops import (
    arithmetic,
    cast,
    compare,
    distributions,
    error_function,
    extremes,
    indexing,
    masking,
    matrices,
    pointwise,
    reduce,
    shape,
)
from .ops.operands import Operand, is_operand
from .variable import Variable

Binary = Callable[[Operand, Operand], "Tensor"]


def _operator(operation: Binary) -> Callable[[Any, Any], Any]:
    """Return the method for `self + other`, which leaves foreign operands to their own class."""

    def method(self: Tensor, other: Any) -> Any:
        return operation(self, other) if is_operand(other) else NotImplemented

    method.__doc__ = operation.__doc__
    return method


def _reflected(operation: Binary) -> Callable[[Any, Any], Any]:
    """Return the method for `other + self`."""

    def method(self: Tensor, other: Any) -> Any:
        return operation(other, self) if is_operand(other) else NotImplemented

    method.__doc__ = operation.__doc__
    return method


class Tensor(InPlace, Convertible):
    """An array of numbers that remembers how it was computed.

    Behaves as torch.Tensor does, for dense arrays on the CPU; dtypes are NumPy's. Make one with
    `tensor`, `from_numpy` or the other creation functions.

    >>> from mmembed.autograd import no_grad, tensor
    >>> w = tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> loss = (w**2).sum()
    >>> loss
    tensor(30., grad_fn=<SumBackward0>)
    >>> loss.backward()
    >>> w.grad
    tensor([[2., 4.],
            [6., 8.]])
    >>> with no_grad():
    ...     w -= 0.5 * w.grad
    >>> w
    tensor([[0., 0.],
            [0., 0.]], requires_grad=True)
    """

    __slots__ = ()

    __add__, __radd__ = _operator(arithmetic.add), _reflected(arithmetic.add)
    __sub__, __rsub__ = _operator(arithmetic.sub), _reflected(arithmetic.sub)
    __mul__, __rmul__ = _operator(arithmetic.mul), _reflected(arithmetic.mul)
    __truediv__, __rtruediv__ = _operator(arithmetic.div), _reflected(arithmetic.div)
    __pow__, __rpow__ = _operator(arithmetic.pow), _reflected(arithmetic.pow)
    __matmul__, __rmatmul__ = _operator(matrices.matmul), _reflected(matrices.matmul)
    __and__, __rand__ = _operator(compare.bitwise_and), _reflected(compare.bitwise_and)
    __or__, __ror__ = _operator(compare.bitwise_or), _reflected(compare.bitwise_or)
    __eq__ = _operator(compare.eq)
    __ne__ = _operator(compare.ne)
    __lt__ = _operator(compare.lt)
    __le__ = _operator(compare.le)
    __gt__ = _operator(compare.gt)
    __ge__ = _operator(compare.ge)
    __hash__ = object.__hash__
    __neg__ = arithmetic.neg
    __abs__ = pointwise.abs
    __invert__ = compare.bitwise_not
    __getitem__ = indexing.getitem

    # Methods. A function of ops/ takes the tensor as its first argument.

    add = arithmetic.add
    sub = arithmetic.sub
    mul = arithmetic.mul
    div = arithmetic.div
    pow = arithmetic.pow
    neg = arithmetic.neg
    reciprocal = arithmetic.reciprocal
    matmul = matrices.matmul
    bmm = matrices.bmm

    eq = compare.eq
    ne = compare.ne
    lt = compare.lt
    le = compare.le
    gt = compare.gt
    ge = compare.ge
    all = compare.all
    any = compare.any

    exp = pointwise.exp
    log = pointwise.log
    sqrt = pointwise.sqrt
    abs = pointwise.abs
    sigmoid = pointwise.sigmoid
    tanh = pointwise.tanh
    relu = pointwise.relu
    erf = error_function.erf
    softmax = distributions.softmax
    log_softmax = distributions.log_softmax
    masked_fill = masking.masked_fill

    sum = reduce.sum
    mean = reduce.mean
    prod = reduce.prod
    norm = reduce.norm
    max = extremes.max
    min = extremes.min
    argmax = extremes.argmax
    argmin = extremes.argmin

    t = shape.t
    transpose = shape.transpose
    permute = shape.permute
    reshape = shape.reshape
    view = shape.view
    flatten = shape.flatten
    unsqueeze = shape.unsqueeze
    squeeze = shape.squeeze
    clone = cast.clone
    to = cast.cast

    def where(self, condition: Variable, other: Operand) -> Tensor:
        """Return this tensor where the condition holds, else `other`."""
        return masking.where(condition, self, other)  # type: ignore[no-any-return]

    def double(self) -> Tensor:
        """Return this tensor as float64."""
        return self.to(np.float64)

    def float(self) -> Tensor:
        """Return this tensor as float32."""
        return self.to(np.float32)

    @property
    def T(self) -> Tensor:  # noqa: N802 - torch's name
        """This tensor with its dimensions in reverse order, as a view."""
        return shape.reverse_dims(self)

    @property
    def mT(self) -> Tensor:  # noqa: N802 - torch's name
        """This tensor with its last two dimensions swapped, as a view."""
        return shape.mT(self)

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or the size of one dimension."""
        return self.shape if dim is None else self.shape[reduce.normal_dim(dim, self.ndim)]

    def __iter__(self) -> Iterator[Tensor]:
        """Yield self[0], self[1], ..."""
        if self.ndim == 0:
            raise TypeError("iteration over a 0-d tensor")
        return (self[row] for row in range(len(self)))

    def __contains__(self, element: Any) -> bool:
        """Return whether some element equals `element`."""
        return bool(compare.any(compare.eq(self, element)))

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Set `requires_grad` of a leaf and return the tensor itself."""
        if requires_grad and not is_floating(self.dtype):
            raise RuntimeError("only Tensors of floating point dtype can require gradients")
        self.requires_grad = requires_grad
        return self


Variable.result_class = Tensor
