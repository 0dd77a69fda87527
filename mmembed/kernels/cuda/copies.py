"""Kernels that copy rows: checked ids, gather (also through a cache), and rows put in place.

Rows are copied as bytes, in units of 16 where dim and addresses allow it, so that one body serves
every dtype. `lanes` threads, a power of two up to 32, share a row. Must not know what rows mean.
"""

from __future__ import annotations

import functools
from typing import Any

from .running import Kernel
from .target import (
    atomic_min,
    block_index,
    block_threads,
    blocks,
    device,
    first_bit,
    i64,
    load,
    not_unrolled,
    store,
    thread_index,
)

NONE = 2**63 - 1  # what p_bad holds where every id is within the table

UNITS = {16: ("u32", 4), 8: ("u32", 2), 4: ("u32", 1), 2: ("u16", 1), 1: ("u8", 1)}


@device
def team_of(lanes):
    """Return (the number of this thread's team, the number of teams, the lane in it)."""
    thread = block_index() * block_threads() + thread_index()
    shift = first_bit(lanes)
    return thread >> shift, (blocks() * block_threads()) >> shift, thread & (lanes - 1)


@functools.cache
def check_ids(index: str) -> Kernel:
    """Set p_bad[0] to the position of the first id outside 0..rows-1, if there is one."""

    def body(p_ids, p_bad, n, rows):
        i, step, _ = team_of(1)
        while i < n:
            not_unrolled()
            row = i64(p_ids[i])
            if row < 0 or row >= rows:
                atomic_min(p_bad, 0, i)
            i += step

    return Kernel(body, [f"*{index}", "*int64", "int64", "int64"])


@functools.cache
def gather(unit: int, index: str) -> Kernel:
    """out[i] = table[ids[i]]; four rows are on their way at a time."""
    kind, width = UNITS[unit]
    get, put = load(kind, width), store(kind, width)

    def body(
        p_table,  # IN   rows, `stride` elements apart
        p_ids,  # IN   (n,)
        p_out,  # OUT  n rows of units * width elements
        p_bad,  # IN   (1,); nothing is done unless it holds NONE
        n,
        units,
        stride,
        lanes,
    ):
        team, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        dim = units * width
        i = team
        while i + 3 * teams < n:
            row0 = i64(p_ids[i]) * stride
            row1 = i64(p_ids[i + teams]) * stride
            row2 = i64(p_ids[i + 2 * teams]) * stride
            row3 = i64(p_ids[i + 3 * teams]) * stride
            c = lane
            while c < units:
                not_unrolled()
                at = c * width
                v0 = get(p_table, row0 + at)
                v1 = get(p_table, row1 + at)
                v2 = get(p_table, row2 + at)
                v3 = get(p_table, row3 + at)
                put(p_out, i * dim + at, v0)
                put(p_out, (i + teams) * dim + at, v1)
                put(p_out, (i + 2 * teams) * dim + at, v2)
                put(p_out, (i + 3 * teams) * dim + at, v3)
                c += lanes
            i += 4 * teams
        while i < n:
            not_unrolled()
            row = i64(p_ids[i]) * stride
            c = lane
            while c < units:
                not_unrolled()
                put(p_out, i * dim + c * width, get(p_table, row + c * width))
                c += lanes
            i += teams

    sizes = ["int64"] * 4
    return Kernel(body, [f"*{kind}", f"*{index}", f"*{kind}", "*int64", *sizes])


@functools.cache
def gather_cached(unit: int, index: str) -> Kernel:
    """out[i] = the row of ids[i]: in the cache, or staged for this batch.

    slot[row] is its place in the cache, or -2 - k of row k of the stage. Of a row that is in
    neither (-1) nothing is written, and p_bad becomes the position of the first.
    """
    kind, width = UNITS[unit]
    get, put = load(kind, width), store(kind, width)

    def body(
        p_slot,  # IN     (rows,) int32
        p_cache,  # IN     rows of units * width elements
        p_stage,  # IN     the same
        p_ids,  # IN     (n,), within the table
        p_out,  # OUT    n rows
        p_bad,  # INOUT  (1,)
        n,
        units,
        lanes,
    ):
        i, teams, lane = team_of(lanes)
        dim = units * width
        while i < n:
            not_unrolled()
            slot = i64(p_slot[i64(p_ids[i])])
            c = lane
            if slot == -1:
                if lane == 0:
                    atomic_min(p_bad, 0, i)
                c = units
            while c < units:
                not_unrolled()
                at = c * width
                if slot >= 0:
                    put(p_out, i * dim + at, get(p_cache, slot * dim + at))
                else:
                    put(p_out, i * dim + at, get(p_stage, (-2 - slot) * dim + at))
                c += lanes
            i += teams

    rows = ["*int32", f"*{kind}", f"*{kind}", f"*{index}", f"*{kind}", "*int64"]
    return Kernel(body, [*rows, "int64", "int64", "int64"])


@functools.cache
def put_rows(unit: int, index: str) -> Kernel:
    """table[ids[i]] = rows[i]; ids are distinct."""
    kind, width = UNITS[unit]
    get, put = load(kind, width), store(kind, width)

    def body(p_rows, p_ids, p_table, p_bad, n, units, stride, lanes):
        i, teams, lane = team_of(lanes)
        if p_bad[0] != NONE:
            return
        while i < n:
            not_unrolled()
            row = i64(p_ids[i]) * stride
            c = lane
            while c < units:
                not_unrolled()
                put(p_table, row + c * width, get(p_rows, (i * units + c) * width))
                c += lanes
            i += teams

    rows = [f"*{kind}", f"*{index}", f"*{kind}", "*int64"]
    return Kernel(body, [*rows, *["int64"] * 4])


def row_parameters(*arrays: Any) -> tuple[int, int, int, list[int]]:
    """Return (bytes of a unit, units of a row, lanes, rows' strides in elements of a unit).

    Rows of all arrays have the same number of bytes.
    """
    row = arrays[0].shape[1] * arrays[0].itemsize
    at = row
    for array in arrays:
        at |= array.address | array.row_stride
    unit = min(16, at & -at) if at else 16
    size = unit // UNITS[unit][1]
    units = row // unit
    return unit, units, lanes_for(units), [array.row_stride // size for array in arrays]


def lanes_for(units: int, least: int = 1) -> int:
    """Return how many threads share a row of so many units."""
    lanes = least
    while lanes < units and lanes < 32:
        lanes *= 2
    return lanes


def warps_for(rows: int, lanes: int) -> int:
    """Return how many warps give every row a team."""
    return -(-rows * lanes // 32)
