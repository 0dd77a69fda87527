"""A cache of rows on the GPU, in front of a larger table that is elsewhere.

A batch asks for its distinct rows: `find` says which of them are missing; the caller reads those
and `admit`s them, and is given the rows that had to leave, to write those back that changed. Rows
of the present batch never leave. The place of a row is found in one int32 per row of the table;
the coldest rows leave first, as a hand that goes round finds them. The same batches give the same
places on every run. Must not know where the other rows are, nor what is done with rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import copies, slots
from .memory import DeviceArray, as_device, empty, to_device
from .plans import CHUNK, sums_before
from .shapes import index_of
from .verdicts import Verdict

MOST_SLOTS = 2**31 - 2
COLD = 1  # a row that was asked for in one batch only may leave first


class RowCache:
    """Places for rows of a table, each a row of `values`.

    Parameters
    ----------
    rows : of the table; 4 bytes on the GPU for each.
    places : how many rows the cache holds, 1 to 2**31 - 2.
    dim, dtype : of a row.

    Attributes
    ----------
    values : (places, dim) DeviceArray.
    slot : (rows,) int32 DeviceArray: the place of each row, or -1.
    """

    def __init__(self, rows: int, places: int, dim: int, dtype: npt.DTypeLike) -> None:
        if not 1 <= places <= MOST_SLOTS:
            raise ValueError(f"a cache has 1 to {MOST_SLOTS} places, got {places}")
        self.rows, self.places = rows, places
        self.values = empty((places, dim), dtype)
        self.slot = _filled(rows, "int32", -1)
        self._holds = _filled(places, "int64", -1)
        self._heat = _filled(places, "int32", 0)
        self._stamp = _filled(places, "int64", -1)
        self._tick = 0
        self._hand = 0

    def find(self, rows: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
        """Begin a batch of distinct rows, int64, within the table.

        Returns
        -------
        (found, missing): the place of each row, -1 of those that are missing; the missing rows in
        the order of the batch. Both int64, on the GPU. What was found stays until the next batch.
        """
        rows = as_device(rows)
        n = rows.size
        self._tick += 1
        found, flags = empty(n, "int64"), empty(n, "int32")
        kernel = slots.probe()
        state = self._heat, self._stamp
        kernel.launch(_warps(n), self.slot, rows, found, flags, *state, n, self._tick)
        positions = _flagged(flags)
        missing = empty(positions.size, "int64")
        slots.pick().launch(_warps(missing.size), rows, positions, missing, missing.size)
        return found, missing

    def admit(self, missing: DeviceArray) -> tuple[DeviceArray, DeviceArray]:
        """Give places to the missing rows of the batch; their values are not there yet.

        Returns
        -------
        (places, left): the place of each, and the row that had it, or -1. Both int64. The values of
        rows that left stay in `values` until `put` writes over them.

        Raises
        ------
        ValueError  the batch has more rows than the cache has places; no row has left.
        """
        missing = as_device(missing)
        m = missing.size
        chosen = self._choose(m)
        left = empty(m, "int64")
        maps = self.slot, self._holds, self._heat, self._stamp
        sizes = m, self._hand, self.places, self._tick
        slots.install().launch(_warps(m), missing, chosen, left, *maps, *sizes)
        if m:
            self._hand = int(chosen.rows(m - 1, m).numpy()[0] + 1) % self.places
        return chosen, left

    def put(self, places: DeviceArray, rows: DeviceArray) -> None:
        """Write the values of rows, (n, dim), into places."""
        places, rows = as_device(places), as_device(rows)
        if rows.size:
            unit, units, lanes, (_, stride) = copies.row_parameters(rows, self.values)
            verdict = Verdict(places, self.places)
            kernel = copies.put_rows(unit, index_of(places))
            sizes = places.size, units, stride, lanes
            warps = copies.warps_for(places.size, lanes)
            kernel.launch(warps, rows, places, self.values, verdict.bad, *sizes)

    def gather(self, ids: DeviceArray, out: DeviceArray) -> int:
        """Set out[i] to the row ids[i]; returns -1, or the position of the first that is not here.

        Ids are within the table, int32 or int64, and may be repeated.
        """
        ids, out = as_device(ids), as_device(out)
        bad = to_device(np.array([copies.NONE], np.int64))
        if out.size:
            unit, units, lanes, _ = copies.row_parameters(self.values, out)
            kernel = copies.gather_cached(unit, index_of(ids))
            warps = copies.warps_for(ids.size, lanes)
            rows = self.slot, self.values, self.values, ids, out, bad
            kernel.launch(warps, *rows, ids.size, units, lanes)
        first = int(bad.numpy()[0])
        return -1 if first == copies.NONE else first

    def held(self) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
        """Return (places, rows) of everything in the cache, on the CPU, places ascending."""
        holds = self._holds.numpy()
        places = np.flatnonzero(holds >= 0)
        return places, holds[places]

    def _choose(self, m: int) -> DeviceArray:
        """Return m places, as distances from the hand, for rows to be put into."""
        coldest = COLD
        while True:
            flags = empty(self.places, "int32")
            state = self._holds, self._heat, self._stamp, flags
            sizes = self.places, self._hand, self.places, self._tick, coldest
            slots.sweep().launch(_warps(self.places), *state, *sizes)
            positions = _flagged(flags)
            if positions.size >= m:
                return positions.rows(0, m)
            if coldest == slots.MOST_HEAT:
                raise ValueError(
                    f"a batch needs {m} more places than its rows have already, and "
                    f"{positions.size} of {self.places} can be given"
                )
            coldest = min(4 * coldest, slots.MOST_HEAT)


def _warps(n: int) -> int:
    return -(-n // 32)


def _filled(n: int, kind: str, value: int) -> DeviceArray:
    made = empty(n, kind)
    slots.fill(kind).launch(_warps(n), made, n, value)
    return made


def _flagged(flags: DeviceArray) -> DeviceArray:
    """Return the positions of the flags that are set, ascending; waits for the GPU."""
    n = flags.size
    if n == 0:
        return empty(0, "int64")
    chunks = -(-n // CHUNK)
    counts, positions, count = empty(chunks, "int64"), empty(n, "int64"), empty(1, "int64")
    slots.count_flags().launch(chunks, flags, counts, n, CHUNK, chunks)
    sums_before(counts)
    slots.write_flagged().launch(chunks, flags, counts, positions, count, n, CHUNK, chunks)
    return positions.rows(0, int(count.numpy()[0]))
