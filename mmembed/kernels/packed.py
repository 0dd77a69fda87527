"""Kernels for rows in fewer bits: float16, bfloat16, and 8 bits with a scale and a bias per row.

The contract is that of `mmembed.kernels`, with these additions, for every body:

- A table is given as its bytes, (rows, bytes of a row) uint8, and its `format`, one of the numbers
  below. Rows are contiguous, the row stride is free, elements of 16 bits are aligned.
- FLOAT16, BFLOAT16: a row is its elements. ROWWISE8: a row is dim bytes, then scale and bias as
  float32, little-endian; element j is byte j * scale + bias, the product rounded before the sum.
  FLOAT32: only where it is said.
- All arithmetic is that of the kernels of `mmembed.kernels` on the table as float32: what comes out
  has the same bits as if the whole table had been taken apart first.
- `pack_rows` rounds once. To the nearest, ties to even; or, if `stochastic`, up with the
  probability that the distance from the lower neighbour says: column 64 b + 8 p + l of row r takes,
  of the words of Philox4x32-10 with key = seed and counter = (8 b + l, step mod 2**32, r low,
  r high), the 16-bit piece p (p // 2 is the word, its low half comes first). What is beyond the
  largest number becomes an infinity, and a NaN the one positive quiet NaN. Bytes are rounded to the
  nearest, from (x - bias) * (255 / (range + 1e-8)): bias is the smallest of the row, scale its
  range / 255.

Must not know files, the tape, or which exception a bad id becomes.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..narrow import is_narrow
from .threads import threads_for

FLOAT32, FLOAT16, BFLOAT16, ROWWISE8 = range(4)
SCALE_BYTES = 8  # behind the bytes of a ROWWISE8 row: scale and bias

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]


def format_of(dtype: np.dtype[Any]) -> int:
    """Return the format of an array of a dtype; TypeError if there is none."""
    if is_narrow(dtype):
        return FLOAT16 if dtype.kind == "f" else BFLOAT16
    if dtype != np.float32:
        raise TypeError(f"rows of {dtype} have no format")
    return FLOAT32


def accepts(array: npt.NDArray[Any]) -> bool:
    """Return whether `as_bytes` can give the bytes of an array: float16 or bfloat16, in rows."""
    return (
        array.ndim == 2
        and is_narrow(array.dtype)
        and array.flags.aligned
        and (array.shape[1] < 2 or array.strides[1] == array.itemsize)
    )


def as_bytes(array: npt.NDArray[Any]) -> ByteArray:
    """Return the bytes of a (rows, dim) array, which share its memory."""
    if array.size == 0:
        return np.empty((array.shape[0], array.shape[1] * array.itemsize), np.uint8)
    if array.shape[1] == 1:  # whose stride says nothing
        strides = array.strides[0], array.itemsize
        array = np.lib.stride_tricks.as_strided(array, array.shape, strides)
    return array.view(np.uint8)


def _body() -> types.ModuleType:
    return kernels.load(kernels.backend())


def unpack_rows(
    packed: ByteArray,  # IN   (rows, bytes of a row)
    format: int,  # FLOAT32 too
    ids: IdArray,  # IN   (n,)
    out: FloatArray,  # OUT  (n, dim), contiguous
) -> int:
    """Set out[i] = packed[ids[i]], as float32."""
    return _body().unpack_rows(packed, format, ids, out, threads_for(out.size))  # type: ignore[no-any-return]


def unpack_bags(
    packed: ByteArray,  # IN   (rows, bytes of a row)
    format: int,
    ids: IdArray,  # IN   (n,)
    starts: RowArray,  # IN   (bags + 1,)
    weights: FloatArray,  # IN   (n,), contiguous, or (0,) for none
    padding: int,
    mean: bool,
    out: FloatArray,  # OUT  (bags, dim), contiguous
) -> int:
    """Do what `kernels.gather_bags` does."""
    threads = threads_for(ids.size * out.shape[1])
    bags = starts, weights, padding, mean
    return _body().unpack_bags(packed, format, ids, *bags, out, threads)  # type: ignore[no-any-return]


def unpack_bags_max(
    packed: ByteArray,  # IN   (rows, bytes of a row)
    format: int,
    ids: IdArray,  # IN   (n,)
    starts: RowArray,  # IN   (bags + 1,)
    padding: int,
    out: FloatArray,  # OUT  (bags, dim), contiguous
    where: RowArray,  # OUT  (bags, dim), contiguous
) -> int:
    """Do what `kernels.gather_bags_max` does."""
    threads = threads_for(ids.size * out.shape[1])
    return _body().unpack_bags_max(  # type: ignore[no-any-return]
        packed, format, ids, starts, padding, out, where, threads
    )


def pack_rows(
    rows: FloatArray,  # IN     (n, dim), contiguous; finite if the format is ROWWISE8
    format: int,  # FLOAT32 too
    ids: RowArray,  # IN     (n,), distinct
    packed: ByteArray,  # INOUT  (rows, bytes of a row)
    stochastic: bool = False,  # not for ROWWISE8
    seed: int = 0,  # 0..2**64-1
    step: int = 0,
) -> int:
    """Set packed[ids[i]] = rows[i], rounded."""
    threads = threads_for(rows.size)
    rounding = stochastic, seed, step
    return _body().pack_rows(rows, format, ids, packed, *rounding, threads)  # type: ignore[no-any-return]


def rounded(values: npt.NDArray[Any], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
    """Return (n, dim) float32 values in a narrow dtype, rounded to the nearest."""
    out: npt.NDArray[Any] = np.empty(values.shape, dtype)
    rows = np.require(values, np.float32, ["C", "A"])
    pack_rows(rows, format_of(dtype), np.arange(len(rows)), as_bytes(out))
    return out
