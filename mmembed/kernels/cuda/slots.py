"""Kernels that know which rows of a table are in a cache, and which of them may leave it.

`slot` (rows,) int32 is the place of each row in the cache, or -1; `holds` (slots,) int64 the row
in each place, or -1. `heat` counts how often a place was asked for, halved when it is passed over
for eviction; `stamp` is the batch it was last asked for in. Must not know what rows hold.
"""

from __future__ import annotations

import functools

from .copies import team_of
from .running import Kernel
from .sorting import ALL, below
from .target import count_bits, i64, lanes_where, not_unrolled

MOST_HEAT = 255


@functools.cache
def probe() -> Kernel:
    """found[i] = the place of rows[i] or -1, which are distinct; those that are there get hotter.

    flags[i] = 1 of a row that is missing, else 0.
    """

    def body(p_slot, p_rows, p_found, p_flags, p_heat, p_stamp, n, tick):
        i, step, _ = team_of(1)
        while i < n:
            not_unrolled()
            place = i64(p_slot[p_rows[i]])
            p_found[i] = place
            p_flags[i] = 1 if place < 0 else 0
            if place >= 0:
                p_heat[place] = min(i64(p_heat[place]) + 1, MOST_HEAT)
                p_stamp[place] = tick
            i += step

    kinds = ["*int32", "*int64", "*int64", "*int32", "*int32", "*int64"]
    return Kernel(body, [*kinds, "int64", "int64"])


@functools.cache
def sweep() -> Kernel:
    """flags[k] = 1 if the place hand + k (mod slots) may be given to another row, else 0.

    A place may go if it is empty, or cold and not of this batch. All others cool down by half.
    """

    def body(p_holds, p_heat, p_stamp, p_flags, n, hand, slots, tick, coldest):
        k, step, _ = team_of(1)
        while k < n:
            not_unrolled()
            place = hand + k
            if place >= slots:
                place -= slots
            free = p_holds[place] < 0
            heat = i64(p_heat[place])
            old = p_stamp[place] != tick
            p_flags[k] = 1 if free or (old and heat <= coldest) else 0
            if old and not free and heat > coldest:
                p_heat[place] = heat >> 1
            k += step

    kinds = ["*int64", "*int32", "*int64", "*int32"]
    return Kernel(body, [*kinds, *["int64"] * 5])


@functools.cache
def count_flags() -> Kernel:
    """counts[chunk] = how many flags of the chunk are set."""

    def body(p_flags, p_counts, n, chunk, chunks):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            total = i64(0)
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                total += count_bits(lanes_where(ALL, i < last and p_flags[i] != 0))
                i += 32
            if lane == 0:
                p_counts[number] = total
            number += warps

    return Kernel(body, ["*int32", "*int64", "int64", "int64", "int64"])


@functools.cache
def write_flagged() -> Kernel:
    """positions = those whose flag is set, ascending; count[0] = their number.

    counts[chunk] is, by now, the number of flags that are set before the chunk.
    """

    def body(p_flags, p_counts, p_positions, p_count, n, chunk, chunks):
        number, warps, lane = team_of(32)
        while number < chunks:
            not_unrolled()
            before = p_counts[number]
            i = number * chunk + lane
            last = min(n, (number + 1) * chunk)
            while i - lane < last:
                not_unrolled()
                own = i < last and p_flags[i] != 0
                flagged = lanes_where(ALL, own)
                if own:
                    p_positions[before + count_bits(flagged & below(lane))] = i
                before += count_bits(flagged)
                i += 32
            if number == chunks - 1 and lane == 0:
                p_count[0] = before
            number += warps

    kinds = ["*int32", "*int64", "*int64", "*int64"]
    return Kernel(body, [*kinds, "int64", "int64", "int64"])


@functools.cache
def install() -> Kernel:
    """Give places[k] to rows[k], which are distinct and in no place; out[k] = the row before.

    out[k] is -1 of an empty place. Places are given as distances from the hand, mod slots;
    places[k] becomes the place itself.
    """

    def body(p_rows, p_places, p_out, p_slot, p_holds, p_heat, p_stamp, n, hand, slots, tick):
        k, step, _ = team_of(1)
        while k < n:
            not_unrolled()
            place = hand + p_places[k]
            if place >= slots:
                place -= slots
            before = p_holds[place]
            if before >= 0:
                p_slot[before] = -1
            row = p_rows[k]
            p_slot[row] = place
            p_holds[place] = row
            p_heat[place] = 1
            p_stamp[place] = tick
            p_places[k] = place
            p_out[k] = before
            k += step

    kinds = ["*int64", "*int64", "*int64", "*int32", "*int64", "*int32", "*int64"]
    return Kernel(body, [*kinds, *["int64"] * 4])


@functools.cache
def fill(kind: str) -> Kernel:
    """values[i] = value, int32 or int64."""

    def body(p_values, n, value):
        i, step, _ = team_of(1)
        while i < n:
            not_unrolled()
            p_values[i] = value
            i += step

    return Kernel(body, [f"*{kind}", "int64", "int64"])


@functools.cache
def pick() -> Kernel:
    """out[k] = values[positions[k]]."""

    def body(p_values, p_positions, p_out, n):
        k, step, _ = team_of(1)
        while k < n:
            not_unrolled()
            p_out[k] = p_values[p_positions[k]]
            k += step

    return Kernel(body, ["*int64", "*int64", "*int64", "int64"])
