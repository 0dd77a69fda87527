"""The plan of a batch on the GPU: a stable radix sort of ids, and the groups of equal ones.

One warp takes one chunk of the batch at a time and passes over it in order, 32 ids at a step, so
that nothing depends on which warp was first: the result is the same on every run. Counts of digits
and of groups become places by an exclusive sum over chunks.

Must not know rows or tables.
"""

from __future__ import annotations

import functools

from .copies import team_of
from .running import Kernel
from .target import (
    count_bits,
    device,
    first_bit,
    from_below,
    from_lane,
    i64,
    lanes_where,
    lanes_with,
    not_unrolled,
    shared_counts,
    sync_warp,
    thread_index,
)

ALL = 0xFFFFFFFF
CHUNK = 1024  # ids that a warp takes at a time
BITS = 8  # of a digit; the shared counters are enough for it


@functools.cache
def narrow(index: str, key: str, place: str) -> Kernel:
    """key[i] = ids[i] in as many bits as ids need, place[i] = i."""

    def body(p_ids, p_key, p_place, n):
        i, step, _ = team_of(1)
        while i < n:
            not_unrolled()
            p_key[i] = i64(p_ids[i])
            p_place[i] = i
            i += step

    return Kernel(body, [f"*{index}", f"*{key}", f"*{place}", "int64"])


@device
def below(lane):
    """Return the mask of the lanes below a lane."""
    return (i64(1) << lane) - 1


@functools.cache
def count_digits(key: str) -> Kernel:
    """counts[digit, chunk] = how many keys of the chunk have the digit."""

    def body(p_key, p_counts, n, chunk, chunks, shift, digits):
        number, warps, lane = team_of(32)
        counts = shared_counts()
        own = (thread_index() // 32) * 256
        while number < chunks:
            not_unrolled()
            d = lane
            while d < digits:
                not_unrolled()
                counts[own + d] = 0
                d += 32
            sync_warp(ALL)
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                digit = i64(-1)
                if i < last:
                    digit = (i64(p_key[i]) >> shift) & (digits - 1)
                same = lanes_with(ALL, digit)
                if digit >= 0 and first_bit(same) == lane:
                    counts[own + digit] += count_bits(same)
                sync_warp(ALL)
                i += 32
            d = lane
            while d < digits:
                not_unrolled()
                p_counts[d * chunks + number] = counts[own + d]
                d += 32
            sync_warp(ALL)
            number += warps

    return Kernel(body, [f"*{key}", "*int64", *["int64"] * 5])


@functools.cache
def place_digits(key: str, place: str) -> Kernel:
    """Move keys and places to where their digit belongs, in the order they stand in.

    counts[digit, chunk] is, by now, where the first of them goes.
    """

    def body(
        p_key,  # IN   (n,)
        p_place,  # IN   (n,)
        p_key_out,  # OUT  (n,)
        p_place_out,  # OUT  (n,)
        p_counts,  # IN   (digits, chunks)
        n,
        chunk,
        chunks,
        shift,
        digits,
    ):
        number, warps, lane = team_of(32)
        counts = shared_counts()
        own = (thread_index() // 32) * 256
        while number < chunks:
            not_unrolled()
            d = lane
            while d < digits:
                not_unrolled()
                counts[own + d] = p_counts[d * chunks + number]
                d += 32
            sync_warp(ALL)
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                digit = i64(-1)
                if i < last:
                    digit = (i64(p_key[i]) >> shift) & (digits - 1)
                same = lanes_with(ALL, digit)
                if digit >= 0:
                    at = counts[own + digit] + count_bits(same & below(lane))
                    p_key_out[at] = p_key[i]
                    p_place_out[at] = p_place[i]
                sync_warp(ALL)
                if digit >= 0 and first_bit(same) == lane:
                    counts[own + digit] += count_bits(same)
                sync_warp(ALL)
                i += 32
            number += warps

    rows = [f"*{key}", f"*{place}", f"*{key}", f"*{place}", "*int64"]
    return Kernel(body, [*rows, *["int64"] * 5])


@device
def _sum_before(value, lane):
    """Return the sum of the values of lanes 0..lane, of a whole warp."""
    distance = i64(1)
    while distance < 32:
        not_unrolled()
        lower = from_below(ALL, value, distance)
        if lane >= distance:
            value += lower
        distance *= 2
    return value


@functools.cache
def sum_chunks() -> Kernel:
    """sums[chunk] = the sum of a chunk's values."""

    def body(p_values, p_sums, n, chunk, chunks):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            total = i64(0)
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i < last:
                not_unrolled()
                total += p_values[i]
                i += 32
            total = _sum_before(total, lane)
            if lane == 31:
                p_sums[number] = total
            number += warps

    return Kernel(body, ["*int64", "*int64", "int64", "int64", "int64"])


@functools.cache
def sums_to_places() -> Kernel:
    """values[i] = base[chunk] + the sum of the values before i in its chunk.

    Called with one chunk of everything for `base` itself, and then with base 0 (`based` 0).
    """

    def body(p_values, p_base, n, chunk, chunks, based):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            before = i64(0)
            if based != 0:
                before = p_base[number]
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                value = i64(0)
                if i < last:
                    value = p_values[i]
                through = _sum_before(value, lane)
                if i < last:
                    p_values[i] = before + through - value
                before += from_lane(ALL, through, 31)
                i += 32
            number += warps

    return Kernel(body, ["*int64", "*int64", *["int64"] * 4])


@device
def _is_head(p_key, i, last):
    """Return whether a group of equal keys begins at i."""
    if i >= last:
        return False
    return i == 0 or p_key[i] != p_key[i - 1]


@functools.cache
def count_heads(key: str) -> Kernel:
    """counts[chunk] = how many groups of equal keys begin in the chunk."""

    def body(p_key, p_counts, n, chunk, chunks):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            total = i64(0)
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                total += count_bits(lanes_where(ALL, _is_head(p_key, i, last)))
                i += 32
            if lane == 0:
                p_counts[number] = total
            number += warps

    return Kernel(body, [f"*{key}", "*int64", "int64", "int64", "int64"])


@functools.cache
def write_heads(key: str, place: str) -> Kernel:
    """unique[s], starts[s] = the key of group s and where it begins; count[0] = their number.

    counts[chunk] is, by now, the number of groups that begin before the chunk; starts ends with n.
    """

    def body(p_key, p_counts, p_unique, p_starts, p_count, n, chunk, chunks):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            before = p_counts[number]
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                head = _is_head(p_key, i, last)
                heads = lanes_where(ALL, head)
                if head:
                    at = before + count_bits(heads & below(lane))
                    p_unique[at] = i64(p_key[i])
                    p_starts[at] = i
                before += count_bits(heads)
                i += 32
            if number == chunks - 1 and lane == 0:
                p_starts[before] = n
                p_count[0] = before
            number += warps

    rows = [f"*{key}", "*int64", f"*{place}", f"*{place}", "*int64"]
    return Kernel(body, [*rows, "int64", "int64", "int64"])
