"""The plan of a batch, made on the GPU: see `sorting` for the kernels.

Must not know rows or tables.
"""

from __future__ import annotations

import numpy as np

from . import sorting
from .memory import DeviceArray, as_device, empty
from .running import simulated
from .shapes import index_of
from .verdicts import Verdict

# A simulated thread is slow: short chunks and digits keep several of each in a small batch.
CHUNK, BITS = (32, 4) if simulated else (sorting.CHUNK, sorting.BITS)


def plan(
    ids: DeviceArray,
    rows: int,
    order: DeviceArray,
    unique: DeviceArray,
    starts: DeviceArray,
    count: DeviceArray,
    work: DeviceArray,
    threads: int = 1,
) -> int:
    """See `mmembed.kernels.plan`. order, unique and starts have one dtype, int32 or int64.

    Ids below 2**31 are sorted as 32 bits, by as many of them as the largest id has; work is not
    used: scratch is the GPU's own.
    """
    ids, order, unique = as_device(ids), as_device(order), as_device(unique)
    starts, count = as_device(starts), as_device(count)
    n = ids.size
    verdict = Verdict(ids, rows)
    bad = verdict.read()
    if bad >= 0:
        return bad
    if n == 0:
        starts.rows(0, 1).set(np.zeros(1, starts.dtype))
        count.set(np.zeros(1, count.dtype))
        return -1
    key = "int32" if rows <= 2**31 else "int64"
    place = index_of(order)
    keys = empty(n, key), empty(n, key)
    places = empty(n, place), order
    digits = -(-max(rows - 1, 1).bit_length() // BITS)
    now = (digits + 1) % 2  # so that the last pass leaves the places in `order`
    sorting.narrow(index_of(ids), key, place).launch(-(-n // 32), ids, keys[now], places[now], n)
    for digit in range(digits):
        _pass(key, place, keys[now], places[now], keys[1 - now], places[1 - now], digit * BITS)
        now = 1 - now
    _groups(key, place, keys[now], unique, starts, count)
    return -1


def _pass(
    key: str,
    place: str,
    keys: DeviceArray,
    places: DeviceArray,
    keys_out: DeviceArray,
    places_out: DeviceArray,
    shift: int,
) -> None:
    """Sort by one digit."""
    n, digits = keys.size, 2**BITS
    chunks = -(-n // CHUNK)
    counts = empty(digits * chunks, "int64")
    sizes = n, CHUNK, chunks, shift, digits
    sorting.count_digits(key).launch(chunks, keys, counts, *sizes)
    sums_before(counts)
    moved = keys, places, keys_out, places_out
    sorting.place_digits(key, place).launch(chunks, *moved, counts, *sizes)


def sums_before(values: DeviceArray) -> None:
    """Replace each of int64 values by the sum of those before it."""
    n = values.size
    chunks = -(-n // CHUNK)
    if chunks == 1:
        sorting.sums_to_places().launch(1, values, values, n, n, 1, 0)
        return
    sums = empty(chunks, "int64")
    sorting.sum_chunks().launch(chunks, values, sums, n, CHUNK, chunks)
    sums_before(sums)
    sorting.sums_to_places().launch(chunks, values, sums, n, CHUNK, chunks, 1)


def _groups(
    key: str,
    place: str,
    keys: DeviceArray,
    unique: DeviceArray,
    starts: DeviceArray,
    count: DeviceArray,
) -> None:
    """Write where the groups of equal keys begin."""
    n = keys.size
    chunks = -(-n // CHUNK)
    counts = empty(chunks, "int64")
    sorting.count_heads(key).launch(chunks, keys, counts, n, CHUNK, chunks)
    sums_before(counts)
    written = keys, counts, unique, starts, count
    sorting.write_heads(key, place).launch(chunks, *written, n, CHUNK, chunks)
