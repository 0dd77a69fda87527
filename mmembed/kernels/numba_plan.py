"""Ids in Numba: the check, and the sort that makes a plan.

Must not know tables, nor how arrays reach compiled code.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .numba_compile import jitted
from .numba_vectors import item

RADIX_BITS = 11
BUCKETS = 1 << RADIX_BITS
ID_BLOCK = 4096  # ids checked before looking for the exact place of a bad one


@jitted
def bad_position(ids: Any, rows: int) -> int:
    """Return the position of the first id outside 0..rows-1, or -1."""
    for block in range(0, ids.size, ID_BLOCK):
        end = min(block + ID_BLOCK, ids.size)
        largest = np.uint64(0)
        for i in range(block, end):
            # As unsigned numbers, negative ids are above every row count.
            largest = max(largest, np.uint64(item(ids, i)))
        if largest >= np.uint64(rows):
            for i in range(block, end):
                if np.uint64(item(ids, i)) >= np.uint64(rows):
                    return i
    return -1


def check_ids(ids: Any, rows: int, threads: int) -> int:
    """Return what `bad_position` does."""
    return bad_position(ids, rows)


def sort_ids(
    ids: Any, rows: int, order: Any, unique: Any, starts: Any, count: Any, work: Any, threads: int
) -> int:
    """Least-significant-digit radix sort of (id, position), then runs."""
    bad = bad_position(ids, rows)
    if bad >= 0:
        return bad
    n = ids.size
    passes = 1
    while passes * RADIX_BITS < 63 and (rows - 1) >> (RADIX_BITS * passes):
        passes += 1
    counts = np.zeros((passes, BUCKETS), np.int64)
    for i in range(n):
        key = item(ids, i)
        for p in range(passes):
            counts[p, key & (BUCKETS - 1)] += 1
            key >>= RADIX_BITS
    for p in range(passes):
        total = 0
        for bucket in range(BUCKETS):
            size = counts[p, bucket]
            counts[p, bucket] = total
            total += size

    # The last pass must end in (unique, order): with an even number of passes the first does not.
    keys, places = work[:n], work[n : 2 * n]
    keys_out, places_out = unique[:n], order[:n]
    if passes % 2 == 0:
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places
    for p in range(passes):
        for i in range(n):
            key = item(ids, i) if p == 0 else keys[i]
            digit = (key >> (RADIX_BITS * p)) & (BUCKETS - 1)
            at = counts[p, digit]
            counts[p, digit] = at + 1
            keys_out[at] = key
            places_out[at] = i if p == 0 else item(places, i)
        keys, keys_out = keys_out, keys
        places, places_out = places_out, places

    runs = 0
    previous = np.int64(-1)
    for i in range(n):
        key = unique[i]
        if key != previous:
            unique[runs] = key
            starts[runs] = i
            runs += 1
            previous = key
    starts[runs] = n
    count[0] = runs
    return -1
