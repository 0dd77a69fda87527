"""The rows of a lazy column that have no place in its file yet: which they are, and what they are.

Must not know files, locks or commits. A bit tells that a block of rows is written; it goes on, and
never off, while a table is open. Whoever reads looks at the bits first and at the rows afterwards,
so that a block which is written in between is read as it was.
"""

from __future__ import annotations

import mmap
from typing import Any

import numpy as np
import numpy.typing as npt

from . import page_calls
from .bits_format import blocks_of
from .column import Column

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]
IdArray = npt.NDArray[np.signedinteger[Any]]
Bits = npt.NDArray[np.uint8]

_LOOK = 1 << 16  # bytes of bits looked at at a time
_EIGHT = np.uint8(1) << np.arange(8, dtype=np.uint8)


class Blocks:
    """A set of blocks of a column, at one bit each.

    Parameters
    ----------
    column, rows : the column, and how many rows it has.
    bits : (at least blocks / 8,) uint8; shared, and read-only if nothing is added.
    """

    def __init__(self, column: Column, rows: int, bits: Bits) -> None:
        """Take over the bits."""
        self.rows = rows
        self.shift = column.block_shift
        self.bits = bits
        self._count = blocks_of(column, rows)
        self._full = 0  # bytes before this one are known to have all bits on

    @classmethod
    def none(cls, column: Column, rows: int) -> Blocks:
        """Return an empty set; children that are forked later see what is added to it."""
        size = -(-blocks_of(column, rows) // 8)
        memory = mmap.mmap(-1, max(1, size))  # shared with them, and zeros
        return cls(column, rows, np.frombuffer(memory, np.uint8)[:size])

    def lacking(self, ids: IdArray) -> RowArray:
        """Return the places of ids whose block is not in the set; ids that are no rows are none."""
        out = np.empty(ids.size, np.int64)
        return out[: page_calls.unset_of(ids, self.rows, self.shift, self.bits, out)]

    def all_lacking(self, first: int = 0) -> tuple[RowArray, int]:
        """Return blocks from `first` on that are not in the set, and where to go on; 0: nowhere.

        They come from a part of the blocks at a time.
        """
        part = self.bits[first // 8 : first // 8 + _LOOK]
        count = min(part.size * 8, self._count - first)
        off = np.unpackbits(part, count=max(0, count), bitorder="little") == 0
        following = first + _LOOK * 8
        return np.flatnonzero(off) + first, following if following < self._count else 0

    def add(self, blocks: RowArray) -> None:
        """Put distinct blocks into the set."""
        np.bitwise_or.at(self.bits, blocks >> 3, _EIGHT[blocks & 7])

    def discard(self, block: int) -> None:
        """Take a block out of the set."""
        self.bits[block >> 3] &= ~_EIGHT[block & 7]
        self._full = min(self._full, block >> 3)

    @property
    def complete(self) -> bool:
        """Whether every block is in the set."""
        whole = self._count // 8
        while self._full < whole:
            part = self.bits[self._full : min(self._full + _LOOK, whole)]
            if not (part == 0xFF).all():
                self._full += int(np.argmax(part != 0xFF))
                return False
            self._full += part.size
        rest = (1 << self._count % 8) - 1
        return rest == 0 or (int(self.bits[whole]) & rest) == rest

    def grown(self, column: Column, rows: int) -> Blocks:
        """Return a copy for more rows; those that come are in blocks of which some may be in it."""
        more = Blocks.none(column, rows)
        more.bits[: self.bits.size] = self.bits
        more._full = self._full
        return more


class Unwritten:
    """What readers of a lazy column must know.

    Parameters
    ----------
    column : has bits; see `Column.has_bits`.
    written : the blocks that are in the file.
    """

    def __init__(self, column: Column, written: Blocks) -> None:
        """Put the two together."""
        self.column = column
        self.written = written

    @property
    def none(self) -> bool:
        """Whether all rows are written."""
        return self.written.complete

    def of(self, ids: IdArray) -> RowArray:
        """Return the places of ids, (n,) contiguous, whose rows are not written."""
        return self.written.lacking(ids)

    def without(self, ids: IdArray) -> IdArray:
        """Return those of some ids whose rows are written."""
        places = self.of(ids)
        return np.delete(ids, places) if places.size else ids

    def values(self, ids: IdArray) -> FloatArray:
        """Return what rows are that nobody has written."""
        ids = ids.astype(np.int64, copy=False)
        out: FloatArray = np.empty(self.column.shape(ids.size), self.column.numpy_dtype)
        self.column.init.draw(out, ids, self.column.seed)
        return out


def fill_in(
    rows: FloatArray, unwritten: Unwritten, ids: IdArray, places: RowArray, out: FloatArray
) -> None:
    """Set out[i] to row ids[i]; at `places` the rows are not written, and the file is not read."""
    out[places] = unwritten.values(ids[places])
    rest = np.delete(np.arange(ids.size), places)
    if rest.size:
        out[rest] = rows[ids[rest]]
