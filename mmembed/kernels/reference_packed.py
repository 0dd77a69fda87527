"""The kernels of `packed` in plain NumPy: the specification of the other bodies.

Must not know about speed; `threads` is ignored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from . import reference

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

FLOAT32, FLOAT16, BFLOAT16, ROWWISE8 = range(4)


def _unpacked(rows: ByteArray, format: int, dim: int) -> FloatArray:
    """Return rows as (n, dim) float32."""
    rows = np.ascontiguousarray(rows)
    if dim == 0:
        return np.empty((len(rows), 0), np.float32)
    if format == FLOAT32:
        whole: FloatArray = rows.view(np.float32)
        return whole
    if format == FLOAT16:
        return rows.view(np.float16).astype(np.float32)
    if format == BFLOAT16:
        return (rows.view(np.uint16).astype(np.uint32) << 16).view(np.float32)
    scale, bias = np.ascontiguousarray(rows[:, dim:]).view(np.float32).T
    unpacked: FloatArray = rows[:, :dim].astype(np.float32) * scale[:, None] + bias[:, None]
    return unpacked


def unpack_rows(packed: ByteArray, format: int, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `packed.unpack_rows`."""
    bad = reference.first_bad_id(ids, len(packed), threads)
    if bad < 0:
        out[...] = _unpacked(packed[ids], format, out.shape[1])
    return bad


def _met(packed: ByteArray, format: int, ids: IdArray, dim: int) -> FloatArray:
    """Return the table as float32, with zeros in the rows that are not met."""
    table = np.zeros((len(packed), dim), np.float32)
    unique = np.unique(ids)
    table[unique] = _unpacked(packed[unique], format, dim)
    return table


def unpack_bags(
    packed: ByteArray,
    format: int,
    ids: IdArray,
    starts: RowArray,
    weights: FloatArray,
    padding: int,
    mean: bool,
    out: FloatArray,
    threads: int,
) -> int:
    """See `packed.unpack_bags`."""
    bad = reference.first_bad_id(ids, len(packed), threads)
    if bad >= 0:
        return bad
    table = _met(packed, format, ids, out.shape[1])
    return reference.gather_bags(table, ids, starts, weights, padding, mean, out, threads)


def unpack_bags_max(
    packed: ByteArray,
    format: int,
    ids: IdArray,
    starts: RowArray,
    padding: int,
    out: FloatArray,
    where: RowArray,
    threads: int,
) -> int:
    """See `packed.unpack_bags_max`."""
    bad = reference.first_bad_id(ids, len(packed), threads)
    if bad >= 0:
        return bad
    table = _met(packed, format, ids, out.shape[1])
    return reference.gather_bags_max(table, ids, starts, padding, out, where, threads)


def pack_rows(
    rows: FloatArray,
    format: int,
    ids: RowArray,
    packed: ByteArray,
    stochastic: bool,
    seed: int,
    step: int,
    threads: int,
) -> int:
    """See `packed.pack_rows`."""
    bad = reference.first_bad_id(ids, len(packed), threads)
    if bad >= 0 or ids.size == 0 or packed.shape[1] == 0:
        return bad
    if format == FLOAT32:
        packed[ids] = rows.view(np.uint8)
    elif format == ROWWISE8:
        packed[ids] = _to_bytes(rows)
    else:
        drawn = _draws(ids, rows.shape[1], seed, step) if stochastic else None
        round_to = _to_float16 if format == FLOAT16 else _to_bfloat16
        packed[ids] = round_to(rows, drawn).astype(np.uint16).view(np.uint8)
    return bad


def _to_bytes(rows: FloatArray) -> ByteArray:
    none = rows.shape[1] == 0
    least = np.zeros(len(rows), np.float32) if none else rows.min(axis=1) + np.float32(0)
    extent = np.zeros(len(rows), np.float32) if none else rows.max(axis=1) - least
    inverse = np.float32(255) / (extent + np.float32(1e-8))
    quantized = np.rint((rows - least[:, None]) * inverse[:, None]).astype(np.uint8)
    ends = np.stack([extent / np.float32(255), least], axis=1)
    return np.hstack([quantized, ends.view(np.uint8)])


def _draws(ids: RowArray, dim: int, seed: int, step: int) -> npt.NDArray[np.uint32]:
    """Return a random number of 16 bits for each column of each row."""
    column = np.arange(dim)
    piece = column % 64 // 8
    counters = np.zeros((ids.size, dim, 4), np.uint64)
    counters[..., 0] = column // 64 * 8 + column % 8
    counters[..., 1] = step & 0xFFFFFFFF
    counters[..., 2] = (ids & 0xFFFFFFFF)[:, None]
    counters[..., 3] = (ids >> 32)[:, None]
    words = reference.philox(counters, seed)
    chosen = np.take_along_axis(words, (piece // 2)[None, :, None], axis=2)[..., 0]
    return (chosen >> (16 * (piece % 2)).astype(np.uint64) & np.uint64(0xFFFF)).astype(np.uint32)


def _to_float16(
    rows: FloatArray, drawn: npt.NDArray[np.uint32] | None
) -> npt.NDArray[np.unsignedinteger[Any]]:
    bits = rows.view(np.uint32)
    body = bits & 0x7FFFFFFF
    if drawn is None:
        with np.errstate(over="ignore", under="ignore"):
            found = np.abs(rows).astype(np.float16).view(np.uint16).astype(np.uint32)
    else:
        normal = ((body + (drawn >> 3)) >> 13) - (112 << 10)
        scaled = np.where(body < 0x38800000, np.abs(rows), 0) * np.float32(2**24)
        below = np.floor(scaled)
        up = drawn.astype(np.float32) * np.float32(2**-16) < scaled - below
        found = np.where(body < 0x38800000, below.astype(np.uint32) + up, normal)
        found = np.where(body >= 0x47800000, 0x7C00, found)
    return np.where(np.isnan(rows), 0x7E00, found | (bits >> 16 & 0x8000))


def _to_bfloat16(
    rows: FloatArray, drawn: npt.NDArray[np.uint32] | None
) -> npt.NDArray[np.unsignedinteger[Any]]:
    bits = rows.view(np.uint32)
    added = 0x7FFF + (bits >> 16 & 1) if drawn is None else drawn
    return np.where(np.isnan(rows), 0x7FC0, (bits + added) >> 16)
