"""How a tensor leaves the tape: to NumPy, DLPack, Python numbers, text and pickles.

Must not know operations.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from ..narrow import is_bfloat16, is_floating
from .dtypes import BOOL, FLOAT, INTEGER, Array, DType
from .variable import Variable

_EDGE, _THRESHOLD, _WIDTH = 3, 1000, 80  # torch's printing defaults
_NO_DEEPCOPY = (
    "Only Tensors created explicitly by the user (graph leaves) support the deepcopy protocol at "
    "the moment.  If you were attempting to deepcopy a module, this may be because of a "
    "torch.nn.utils.weight_norm usage, see https://github.com/pytorch/pytorch/pull/103001"
)


class Convertible(Variable):
    """The methods that give something other than a tensor."""

    __slots__ = ()

    def numpy(self) -> Array:
        """Return the array itself; RuntimeError if the tensor requires grad."""
        if self.requires_grad:
            raise RuntimeError(
                "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() "
                "instead."
            )
        return self.array

    def __array__(self, dtype: DType = None, copy: bool | None = None) -> Array:
        """Return what np.asarray and np.array ask for; RuntimeError if the tensor requires grad."""
        return np.array(self.numpy(), dtype=dtype, copy=copy)

    def __dlpack__(self, **options: Any) -> Any:
        """Export the memory; `options` are those of ndarray.__dlpack__."""
        if self.requires_grad:
            raise BufferError("Can't export tensors that require gradient, use tensor.detach()")
        return self.array.__dlpack__(
            **{key: value for key, value in options.items() if value is not None}
        )

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return DLPack's name of the CPU."""
        return self.array.__dlpack_device__()

    def item(self) -> Any:
        """Return the only element as a Python number."""
        if self.numel() != 1:
            raise RuntimeError(
                f"a Tensor with {self.numel()} elements cannot be converted to Scalar"
            )
        return self.array.item()

    def tolist(self) -> Any:
        """Return nested lists of Python numbers; a number for a tensor without dimensions."""
        return self.array.tolist()

    def _scalar(self) -> Any:
        if self.numel() != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        return self.array.item()

    def __float__(self) -> float:
        """Return the only element as a float."""
        return float(self._scalar())

    def __int__(self) -> int:
        """Return the only element as an int."""
        return int(self._scalar())

    def __bool__(self) -> bool:
        """Return the truth of the only element."""
        if self.numel() != 1:
            what = "more than one value" if self.numel() else "no values"
            raise RuntimeError(f"Boolean value of Tensor with {what} is ambiguous")
        return bool(self.array.item())

    def __format__(self, spec: str) -> str:
        """Format a tensor without dimensions as its number, others as their repr."""
        return format(self.array.item(), spec) if self.ndim == 0 else object.__format__(self, spec)

    def __index__(self) -> int:
        """Return the only element, an integer."""
        if self.numel() != 1 or is_floating(self.dtype):
            raise TypeError("only integer tensors of a single element can be converted to an index")
        return int(self.array.item())

    def __len__(self) -> int:
        """Return the size of the first dimension."""
        if self.ndim == 0:
            raise TypeError("len() of a 0-d tensor")
        return self.shape[0]

    def __repr__(self) -> str:
        """Return torch's text, with NumPy's names of dtypes. Large tensors are summarised."""
        notes = []
        array = self.array
        if array.size == 0:
            elements = "[]"
            if array.ndim != 1:
                notes.append(f"size={array.shape}")
        else:
            elements = _formatted(array)
        if self.dtype not in (FLOAT, INTEGER, BOOL) or (array.size == 0 and self.dtype != FLOAT):
            notes.append(f"dtype={self.dtype}")
        if self.grad_fn is not None:
            notes.append(f"grad_fn=<{self.grad_fn.name()}>")
        elif self.requires_grad:
            notes.append("requires_grad=True")
        return f"tensor({', '.join([elements, *notes])})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        """Return a copy of a leaf with its own elements and gradient, at version 0."""
        if not self.is_leaf:
            raise RuntimeError(_NO_DEEPCOPY)
        result = type(self)(self.array.copy(), self.requires_grad)
        memo[id(self)] = result
        result._grad = copy.deepcopy(self._grad, memo)
        return result

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle the elements and `requires_grad`; neither gradient nor history."""
        return type(self), (self.array, self.requires_grad)


def _formatted(array: Array) -> str:
    if is_bfloat16(array.dtype):
        array = array.astype(FLOAT)
    shown = _ends(array)
    sizes = np.abs(shown[np.isfinite(shown) & (shown != 0)], dtype=np.float64)
    least, most = np.min(sizes, initial=np.inf), np.max(sizes, initial=0.0)
    scientific = most >= 1e8 or most > 1000 * least
    whole = not scientific and bool(np.all(sizes == np.trunc(sizes)))
    width = 4 if shown.all() else 5  # of True and False
    return np.array2string(
        array,
        max_line_width=_WIDTH,
        precision=4,
        floatmode="maxprec" if whole else "fixed",
        suppress_small=False,
        separator=", ",
        prefix="tensor(",
        threshold=_THRESHOLD,
        edgeitems=_EDGE,
        sign="-",
        formatter={"bool": lambda value: str(value).rjust(width)},
    )


def _ends(array: Array) -> Array:
    """Return the elements that are printed: of many, those at the ends of each dimension."""
    if array.size > _THRESHOLD:
        for dim, size in enumerate(array.shape):
            if size > 2 * _EDGE:
                ends = [*range(_EDGE), *range(size - _EDGE, size)]
                array = array[(slice(None),) * dim + (ends,)]
    return array
