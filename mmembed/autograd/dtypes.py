"""The dtypes a tensor may have, and torch's names for them in messages.

Must not know tensors or the tape.
"""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from ..narrow import as_dtype, is_bfloat16, is_floating

Array: TypeAlias = npt.NDArray[Any]
DType: TypeAlias = npt.DTypeLike | None


class Names(NamedTuple):
    """What torch calls a dtype: as a tensor type, as a scalar type, and in C++."""

    tensor: str
    scalar: str
    c: str


TORCH_NAMES = {
    np.dtype(np.float64): Names("torch.DoubleTensor", "Double", "double"),
    np.dtype(np.float32): Names("torch.FloatTensor", "Float", "float"),
    np.dtype(np.float16): Names("torch.HalfTensor", "Half", "c10::Half"),
    np.dtype(np.int64): Names("torch.LongTensor", "Long", "long int"),
    np.dtype(np.int32): Names("torch.IntTensor", "Int", "int"),
    np.dtype(np.int16): Names("torch.ShortTensor", "Short", "short int"),
    np.dtype(np.int8): Names("torch.CharTensor", "Char", "signed char"),
    np.dtype(np.uint64): Names("torch.UInt64Tensor", "UInt64", "long unsigned int"),
    np.dtype(np.uint32): Names("torch.UInt32Tensor", "UInt32", "unsigned int"),
    np.dtype(np.uint16): Names("torch.UInt16Tensor", "UInt16", "short unsigned int"),
    np.dtype(np.uint8): Names("torch.ByteTensor", "Byte", "unsigned char"),
    np.dtype(np.bool_): Names("torch.BoolTensor", "Bool", "bool"),
}
FLOAT = np.dtype(np.float32)
INTEGER = np.dtype(np.int64)
BOOL = np.dtype(np.bool_)
_RANKS = {"b": 0, "i": 1, "u": 1}
_BFLOAT16 = Names("torch.BFloat16Tensor", "BFloat16", "c10::BFloat16")


def checked(dtype: DType) -> np.dtype[Any]:
    """Return `dtype` as an np.dtype; TypeError (torch's text) if tensors cannot have it."""
    found = as_dtype(dtype)
    if found not in TORCH_NAMES and is_bfloat16(found):  # known from the first one on
        TORCH_NAMES[found] = _BFLOAT16
    if found not in TORCH_NAMES:
        names = [str(supported) for supported in TORCH_NAMES]
        raise TypeError(
            f"can't convert np.ndarray of type numpy.{found.type.__name__}. The only supported "
            f"types are: {', '.join(names[:-1])}, and {names[-1]}, all in native byte order; got "
            f"{found!r}."
        )
    return found


def rank(dtype: np.dtype[Any]) -> int:
    """Return 0 for bool, 1 for integers, 2 for floating types: a higher rank wins promotion."""
    return 2 if is_floating(dtype) else _RANKS[dtype.kind]
