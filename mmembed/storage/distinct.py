"""How many distinct numbers came, exactly while they are few, and as an estimate afterwards.

Must not know what the numbers are. Hashes of numbers are spread evenly; the smallest ones that came
are kept, and how small they are says how many there were (the k minimum values of Bar-Yossef et
al., RANDOM 2002). Threads that add at the same time may lose each other's numbers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

KEEP = 2048  # hashes; the estimate's standard error is one over the root of it, 2 %
_SPAN = 2.0**64


class Distinct:
    """A count of distinct integers."""

    def __init__(self) -> None:
        """Begin with none."""
        # The hashes kept, and the bound below which a hash is one of them: one value, so that a
        # thread that reads it meanwhile finds both or neither.
        self._kept: tuple[npt.NDArray[np.uint64], np.uint64] = (
            np.empty(0, np.uint64),
            np.uint64(2**64 - 1),
        )

    def add(self, numbers: npt.NDArray[np.signedinteger[Any]]) -> None:
        """Count the distinct ones of `numbers`, (n,)."""
        kept, bound = self._kept
        hashes = _hashed(numbers)
        new = hashes[hashes < bound]
        if new.size == 0:
            return
        kept = np.union1d(kept, new)
        if kept.size > KEEP:
            kept, bound = kept[:KEEP], kept[KEEP]
        self._kept = kept, bound

    @property
    def estimate(self) -> int:
        """How many there were."""
        kept, bound = self._kept
        if kept.size < KEEP:
            return int(kept.size)
        return round(KEEP / (float(bound) / _SPAN))


def _hashed(numbers: npt.NDArray[np.signedinteger[Any]]) -> npt.NDArray[np.uint64]:
    """Return the finalizer of SplitMix64 of each number."""
    hashes = numbers.astype(np.int64).view(np.uint64)
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return hashes ^ (hashes >> np.uint64(31))
