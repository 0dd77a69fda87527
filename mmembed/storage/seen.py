"""Which rows have been seen, at one bit each.

Must not know what seeing a row means, nor columns or files.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from . import saving
from .store import RowArray

_SMALL = 1 << 20  # bytes


class SeenRows:
    """A set of the rows 0..rows-1, empty at first.

    >>> seen = SeenRows(20)
    >>> seen.add(np.array([3, 17]))
    >>> seen.unseen(np.array([3, 4, 17]))
    array([4])
    >>> [rows.size for rows in seen.all_unseen(16)]
    [15, 3]
    >>> [rows.tolist() for rows in seen.all_seen()]
    [[3, 17]]
    """

    def __init__(self, rows: int) -> None:
        """Begin with no row."""
        self.rows = rows
        self._bits = np.zeros(-(-rows // 8), np.uint8)

    def unseen(self, rows: RowArray) -> RowArray:
        """Return those of some rows that are not in the set."""
        return saving.unmarked(self._bits, rows)

    def all_unseen(self, block: int) -> Iterator[RowArray]:
        """Yield the rows that are not in the set, from at most `block` rows at a time."""
        block = max(8, block // 8 * 8)
        for first in range(0, self.rows, block):
            count = min(block, self.rows - first)
            bits = self._bits[first // 8 : -(-(first + count) // 8)]
            absent = np.flatnonzero(np.unpackbits(bits, count=count, bitorder="little") == 0)
            if absent.size:
                yield absent + first

    def all_seen(self, block: int = 1 << 20) -> Iterator[RowArray]:
        """Yield the rows that are in the set, in order, from some `block` bytes at a time."""
        block = max(8, block // 8 * 8)
        for first in range(0, self._bits.size, block):
            bits = self._bits[first : first + block]
            whole = bits.size // 8 * 8
            words = np.flatnonzero(bits[:whole].view(np.uint64))  # few of very many
            near = (words[:, None] * 8 + np.arange(8)).reshape(-1)
            near = np.concatenate([near, np.arange(whole, bits.size)])
            place = np.flatnonzero(np.unpackbits(bits[near], bitorder="little"))
            if place.size:
                yield ((first + near[place >> 3]) << 3) + (place & 7)

    def add(self, rows: RowArray) -> None:
        """Put rows into the set."""
        saving.mark(self._bits, rows)

    def clear(self) -> None:
        """Make the set empty."""
        if self._bits.size <= _SMALL:
            self._bits.fill(0)
        else:  # zeros of NumPy's take memory when they are touched
            self._bits = np.zeros(self._bits.size, np.uint8)

    def grow(self, rows: int) -> None:
        """Let there be more rows; those that come are not in the set."""
        bits = np.zeros(-(-rows // 8), np.uint8)
        bits[: self._bits.size] = self._bits
        self.rows, self._bits = rows, bits
