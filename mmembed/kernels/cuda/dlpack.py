"""DLPack, by which libraries hand each other arrays on a GPU without a copy.

A capsule holds a DLManagedTensor, a C struct that says where the array is and ends with a deleter,
which whoever took the array calls when it is done with it. In the simulator arrays are on the CPU,
and say so.

Source: https://dmlc.github.io/dlpack/latest/c_api.html. Must not know kernels.
"""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from ...narrow import as_dtype, is_bfloat16

CPU, CUDA = 1, 2
_INT, _UNSIGNED, _FLOAT, _BFLOAT = 0, 1, 2, 4
_CODES = {"i": _INT, "u": _UNSIGNED, "f": _FLOAT}
_KINDS = {code: kind for kind, code in _CODES.items()}


class _Tensor(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


class _Managed(ctypes.Structure):
    pass


_Deleter = ctypes.CFUNCTYPE(None, ctypes.POINTER(_Managed))
_Managed._fields_ = (("tensor", _Tensor), ("context", ctypes.c_void_p), ("deleter", _Deleter))

_api = ctypes.pythonapi
_new = _api.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
# By their addresses: a capsule that is being freed must not be referred to again.
_is = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(("PyCapsule_IsValid", _api))
_pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_GetPointer", _api)
)
_rename = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p)(
    ("PyCapsule_SetName", _api)
)
_FRESH, _TAKEN = b"dltensor", b"used_dltensor"  # names of capsules, which keep no copy of them
for _name in (_FRESH, _TAKEN):
    _api.Py_IncRef(ctypes.py_object(_name))

# What was handed out and not given back: the struct, its numbers, and the array it is about.
_out: dict[int, tuple[Any, ...]] = {}


@_Deleter
def _give_back(managed: Any) -> None:
    _out.pop(ctypes.addressof(managed.contents), None)


@ctypes.CFUNCTYPE(None, ctypes.c_void_p)
def _forget(capsule: int) -> None:
    """Give back what nobody took: called when a capsule is freed, with its address."""
    if _is(capsule, _FRESH):
        _out.pop(_pointer(capsule, _FRESH), None)


def handed_out() -> int:
    """Return how many arrays others have, or may still take."""
    return len(_out)


def give(array: Any, device: tuple[int, int]) -> Any:
    """Return a capsule over a DeviceArray on a device, (CPU or CUDA, number)."""
    shape = (ctypes.c_int64 * array.ndim)(*array.shape)
    elements = [stride // array.itemsize for stride in array.strides]
    strides = (ctypes.c_int64 * array.ndim)(*elements)
    code = _BFLOAT if is_bfloat16(array.dtype) else _CODES.get(array.dtype.kind)
    if code is None:
        raise BufferError(f"DLPack has no {array.dtype}")
    tensor = _Tensor(
        array.address, *device, array.ndim, code, 8 * array.itemsize, 1, shape, strides, 0
    )
    managed = _Managed(tensor, None, _give_back)
    address = ctypes.addressof(managed)
    _out[address] = managed, shape, strides, array
    return _new(address, _FRESH, ctypes.cast(_forget, ctypes.c_void_p))


class Taken:
    """An array that was taken from another library, and is given back when this is dropped.

    Attributes
    ----------
    address, shape, strides, dtype : as of a DeviceArray; strides are bytes, None if packed.
    device_type : CPU or CUDA.
    """

    def __init__(self, capsule: Any) -> None:
        self._managed: Any = None
        here = id(capsule)
        if not _is(here, _FRESH):
            raise BufferError("the DLPack capsule was taken before, or is of a later version")
        address = _pointer(here, _FRESH)
        tensor = _Managed.from_address(address).tensor
        self.shape = tuple(tensor.shape[: tensor.ndim])
        self.dtype = _dtype_of(tensor)
        size = self.dtype.itemsize
        packed = not tensor.strides
        self.strides = None if packed else tuple(s * size for s in tensor.strides[: tensor.ndim])
        self.address = (tensor.data or 0) + tensor.byte_offset
        self.device_type = tensor.device_type
        _rename(here, _TAKEN)
        self._managed = address

    def __del__(self) -> None:
        if self._managed is not None:
            managed = _Managed.from_address(self._managed)
            if managed.deleter:
                managed.deleter(ctypes.byref(managed))


def _dtype_of(tensor: Any) -> np.dtype[Any]:
    if tensor.code == _BFLOAT and tensor.bits == 16:
        return as_dtype("bfloat16")
    kind = _KINDS.get(tensor.code)
    if kind is None or tensor.lanes != 1 or tensor.bits % 8:
        raise BufferError(f"a DLPack dtype of code {tensor.code} and {tensor.bits} bits")
    return np.dtype(f"{kind}{tensor.bits // 8}")
