"""Arrays in the memory of a GPU, which other libraries can use without a copy, and the other way.

A `DeviceArray` is an address with a shape, strides and a dtype; it keeps alive what owns the
memory. In the simulator the memory is NumPy's. Importing this imports neither numba nor CUDA.

Must not know kernels or tables.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...narrow import is_bfloat16
from . import dlpack
from .requirements import runtime


class DeviceArray:
    """An array on the GPU. Made by `empty`, `to_device` or `as_device`.

    Attributes
    ----------
    address : of the first element.
    shape, strides : of integers; strides are bytes, none is negative.
    dtype : of NumPy, or bfloat16 of ml_dtypes.
    owner : what the memory belongs to; in the simulator a NumPy array of the same shape.
    """

    def __init__(
        self,
        address: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...] | None,
        dtype: np.dtype[Any],
        owner: Any,
        base: Any = None,
    ) -> None:
        self.address = address
        self.shape = tuple(int(length) for length in shape)
        self.dtype = dtype
        self.strides = strides or _packed_strides(self.shape, dtype.itemsize)
        self.owner = owner
        self._base = base  # what owns the owner's memory
        if any(stride < 0 for stride in self.strides):
            raise ValueError(f"an array on the GPU cannot have negative strides: {self.strides}")

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def itemsize(self) -> int:
        """Bytes of an element."""
        return self.dtype.itemsize

    @property
    def contiguous(self) -> bool:
        """Whether elements follow each other in memory, the last index fastest."""
        packed = _packed_strides(self.shape, self.itemsize)
        return self.size == 0 or all(
            length == 1 or own == want
            for length, own, want in zip(self.shape, self.strides, packed, strict=True)
        )

    @property
    def row_stride(self) -> int:
        """Bytes from one row of a matrix to the next."""
        return self.strides[0] if self.shape[0] > 1 else self.shape[1] * self.itemsize

    @property
    def extent(self) -> int:
        """Bytes from the first to the end of the last element."""
        if self.size == 0:
            return 0
        pairs = zip(self.shape, self.strides, strict=True)
        return sum((length - 1) * stride for length, stride in pairs) + self.itemsize

    def rows(self, first: int, last: int) -> DeviceArray:
        """Return a view of the rows, or elements of a vector, from first to before last."""
        shape = (last - first, *self.shape[1:])
        address = self.address + first * self.strides[0]
        owner = self.owner[first:last] if runtime().simulated else self.owner
        return DeviceArray(address, shape, self.strides, self.dtype, owner, self._base)

    def numpy(self) -> npt.NDArray[Any]:
        """Return a copy in the memory of the CPU, once everything started before is done."""
        found: npt.NDArray[Any] = runtime().to_host(self)
        return found

    def set(self, values: npt.NDArray[Any]) -> None:
        """Copy an array of the same shape and dtype from the memory of the CPU."""
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ValueError(
                f"expected {self.shape} {self.dtype}, got {values.shape} {values.dtype}"
            )
        runtime().from_host(self, values)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """Version 3; bfloat16, which it does not know, is 2 bytes of void."""
        typestr = "<V2" if is_bfloat16(self.dtype) else self.dtype.str
        strides = None if self.contiguous else self.strides
        return {
            "shape": self.shape,
            "typestr": typestr,
            "data": (self.address, False),
            "version": 3,
            "strides": strides,
            "stream": 1,  # the legacy default stream, on which kernels run
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        """Return (kind, number) of the device."""
        found: tuple[int, int] = runtime().dlpack_device()
        return found

    def __dlpack__(
        self,
        *,
        stream: int | None = None,
        max_version: tuple[int, int] | None = None,
        dl_device: tuple[int, int] | None = None,
        copy: bool | None = None,
    ) -> Any:
        """Return a capsule over the same memory.

        Raises
        ------
        BufferError  a copy, or another device, is asked for; DLPack has no such dtype.
        """
        device = self.__dlpack_device__()
        if copy or (dl_device is not None and dl_device != device):
            raise BufferError("arrays on the GPU are shared where they are: copy them afterwards")
        if stream not in (None, -1, 1):  # it does not wait for the stream on which kernels run
            runtime().synchronize()
        return dlpack.give(self, device)

    def __repr__(self) -> str:
        return f"DeviceArray(shape={self.shape}, dtype={self.dtype})"


def _packed_strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    strides = [itemsize]
    for length in reversed(shape[1:]):
        strides.append(strides[-1] * max(length, 1))
    return tuple(reversed(strides)) if shape else ()


def empty(shape: tuple[int, ...] | int, dtype: npt.DTypeLike) -> DeviceArray:
    """Return a new array on the GPU, whose elements are undefined."""
    shape = (shape,) if isinstance(shape, int) else tuple(shape)
    kind = np.dtype(dtype)
    address, owner = runtime().allocate(shape, kind)
    return DeviceArray(address, shape, None, kind, owner)


def to_device(values: npt.ArrayLike) -> DeviceArray:
    """Return a copy of an array on the GPU."""
    array = np.ascontiguousarray(values)
    made = empty(array.shape, array.dtype)
    made.set(array)
    return made


def as_device(value: Any) -> DeviceArray:
    """Return what is on the GPU already as a DeviceArray over the same memory.

    Parameters
    ----------
    value : a DeviceArray, or anything with `__cuda_array_interface__` or `__dlpack__`: an array of
        CuPy or Numba, a tensor of torch that needs no gradient.

    Raises
    ------
    TypeError  it is something else.
    """
    if isinstance(value, DeviceArray):
        return value
    if runtime().simulated and isinstance(value, np.ndarray):
        return DeviceArray(value.ctypes.data, value.shape, value.strides, value.dtype, value)
    try:
        described = value.__cuda_array_interface__
    except (AttributeError, TypeError, RuntimeError):
        return _by_dlpack(value)
    shape, strides = described["shape"], described.get("strides")
    dtype = np.dtype(described["typestr"])
    return DeviceArray(described["data"][0], shape, strides, dtype, value)


def _by_dlpack(value: Any) -> DeviceArray:
    """Return an array that another library shares; TypeError unless it is on the GPU."""
    kind, _ = runtime().dlpack_device()
    try:
        if value.__dlpack_device__()[0] != kind:
            raise TypeError("it is on another device")
        capsule = value.__dlpack__(stream=1) if kind == dlpack.CUDA else value.__dlpack__()
    except (AttributeError, TypeError, RuntimeError, BufferError) as error:
        raise TypeError(
            f"expected an array on the GPU, got {type(value).__name__} ({error}); copy it there "
            "with to_device()"
        ) from error
    taken = dlpack.Taken(capsule)
    made = DeviceArray(taken.address, taken.shape, taken.strides, taken.dtype, taken, taken)
    if runtime().simulated:
        made.owner = runtime().over(made)
    return made
