"""The functions of `_saving`, or their bodies in Python where that is not built.

Must not know files, tables or records.
"""

from __future__ import annotations

import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

try:
    from . import _saving  # type: ignore[attr-defined,unused-ignore]
except ImportError:
    _saving = None

Bits = npt.NDArray[np.uint8]
RowArray = npt.NDArray[np.int64]

_EIGHT = np.uint8(1) << np.arange(8, dtype=np.uint8)
_SHORT = 1024  # bytes of which zlib alone is as fast


def crc32(data: Any) -> int:
    """Return the CRC-32 of contiguous bytes, as `zlib.crc32` does, several times as fast.

    >>> hex(crc32(b"123456789"))
    '0xcbf43926'
    """
    view = memoryview(data).cast("B")
    if view.nbytes < _SHORT or _saving is None or not _saving.FOLDS:
        return zlib.crc32(view)
    whole = view.nbytes // 16 * 16
    folded = bytearray(16)
    _saving.fold(view[:whole], folded)
    # zlib begins with ones: beginning with their complement, it begins with zeros.
    return zlib.crc32(view[whole:], zlib.crc32(folded, 0xFFFFFFFF))


def unmarked_in_python(bits: Bits, rows: RowArray) -> RowArray:
    """Return the rows whose bits are 0, in their order."""
    found: RowArray = rows[bits[rows >> 3] & _EIGHT[rows & 7] == 0]
    return found


def mark_in_python(bits: Bits, rows: RowArray) -> None:
    """Set the bits of rows."""
    np.bitwise_or.at(bits, rows >> 3, _EIGHT[rows & 7])


def row_sums_in_python(rows_of_bytes: Bits, rows: RowArray, out: npt.NDArray[np.uint32]) -> int:
    """Set out[row] to the CRC-32 of each row, 1 in the place of 0; see `row_sums`."""
    bad = (rows < 0) | (rows >= len(rows_of_bytes))
    if bad.any():
        return int(np.argmax(bad))
    for row in rows:
        out[row] = zlib.crc32(rows_of_bytes[row].tobytes()) or 1
    return -1


def _unmarked_compiled(bits: Bits, rows: RowArray) -> RowArray:
    out = np.empty(rows.size, np.int64)
    return out[: _saving.unmarked(bits, np.ascontiguousarray(rows), out)]


def _mark_compiled(bits: Bits, rows: RowArray) -> None:
    _saving.mark(bits, np.ascontiguousarray(rows))


def _row_sums_compiled(rows_of_bytes: Bits, rows: RowArray, out: npt.NDArray[np.uint32]) -> int:
    return int(_saving.row_sums(rows_of_bytes, np.ascontiguousarray(rows), out))


unmarked = unmarked_in_python if _saving is None else _unmarked_compiled
mark = mark_in_python if _saving is None else _mark_compiled
row_sums = row_sums_in_python if _saving is None else _row_sums_compiled
