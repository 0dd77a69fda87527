"""The kernels of `packed` in Numba: elements are taken apart one by one, from their bytes.

Must not know files, the tape or Python errors.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import numpy.typing as npt

from .numba_compile import jitted, run
from .numba_loops import share
from .numba_plan import bad_position

ByteArray = npt.NDArray[np.uint8]
FloatArray = npt.NDArray[np.float32]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

FLOAT32, FLOAT16, BFLOAT16, ROWWISE8 = range(4)


@jitted
def _bits(packed: Any, row: int, at: int, count: int) -> Any:
    """Return `count` bytes of a row, from byte `at` on, as one number."""
    found = np.uint32(0)
    for k in range(count):
        found |= np.uint32(packed[row, at + k]) << np.uint32(8 * k)
    return found


@jitted
def _half(bits: Any) -> Any:
    """Return the float32 that a float16 is."""
    sign = np.uint32(bits & np.uint32(0x8000)) << np.uint32(16)
    body = np.uint32(bits & np.uint32(0x7FFF))
    if body >= 0x7C00:
        wide = np.uint32((body << np.uint32(13)) + np.uint32(224 << 23))
    elif body >= 0x400:
        wide = np.uint32((body << np.uint32(13)) + np.uint32(112 << 23))
    else:
        wide = np.float32(np.float32(body) * np.float32(2.0**-24)).view(np.uint32)
    return np.uint32(wide | sign).view(np.float32)


@jitted
def _scale_of(packed: Any, format: int, row: int, dim: int) -> Any:
    """Return scale and bias of a row."""
    if format != ROWWISE8:
        return np.float32(1), np.float32(0)
    scale = np.uint32(_bits(packed, row, dim, 4)).view(np.float32)
    return scale, np.uint32(_bits(packed, row, dim + 4, 4)).view(np.float32)


@jitted
def _element(packed: Any, format: int, row: int, j: int, scale: Any, bias: Any) -> Any:
    """Return column j of a row."""
    if format == FLOAT16:
        return _half(_bits(packed, row, 2 * j, 2))
    if format == BFLOAT16:
        high = np.uint32(_bits(packed, row, 2 * j, 2)) << np.uint32(16)
        return np.uint32(high).view(np.float32)
    if format == ROWWISE8:
        return np.float32(np.float32(packed[row, j]) * scale) + bias
    return np.uint32(_bits(packed, row, 4 * j, 4)).view(np.float32)


def unpack(packed: Any, format: int, ids: Any, out: Any, threads: int) -> int:
    """Set out to rows, and return -1 or the position of the first bad id."""
    bad = bad_position(ids, packed.shape[0])
    n, dim = out.shape
    if bad < 0:
        for t in numba.prange(threads):
            for i in range(n * t // threads, n * (t + 1) // threads):
                row = np.int64(ids[i])
                scale, bias = _scale_of(packed, format, row, dim)
                for j in range(dim):
                    out[i, j] = _element(packed, format, row, j, scale, bias)
    return bad


def sum_bags(
    packed: Any,
    format: int,
    ids: Any,
    starts: Any,
    weights: Any,
    padding: int,
    mean: bool,
    out: Any,
    threads: int,
) -> int:
    """Set out[b] to the sum or mean of the rows of bag b."""
    bad = bad_position(ids, packed.shape[0])
    dim = out.shape[1]
    if bad < 0:
        for t in numba.prange(threads):
            for b in range(share(starts, t, threads), share(starts, t + 1, threads)):
                count = 0
                for j in range(dim):
                    out[b, j] = np.float32(-0.0)
                for i in range(starts[b], starts[b + 1]):
                    row = np.int64(ids[i])
                    if row != padding:
                        scale, bias = _scale_of(packed, format, row, dim)
                        factor = weights[i] if weights.size else np.float32(1)
                        for j in range(dim):
                            x = _element(packed, format, row, j, scale, bias)
                            out[b, j] = out[b, j] + factor * x
                        count += 1
                for j in range(dim):
                    if count == 0:
                        out[b, j] = np.float32(0)
                    elif mean:
                        out[b, j] = out[b, j] / np.float32(count)
    return bad


def max_bags(
    packed: Any,
    format: int,
    ids: Any,
    starts: Any,
    padding: int,
    out: Any,
    where: Any,
    threads: int,
) -> int:
    """Set out[b] to the largest of each column in bag b, and where[b] to its position."""
    bad = bad_position(ids, packed.shape[0])
    dim = out.shape[1]
    if bad < 0:
        for t in numba.prange(threads):
            for b in range(share(starts, t, threads), share(starts, t + 1, threads)):
                for j in range(dim):
                    out[b, j] = np.float32(0)
                    where[b, j] = -1
                for i in range(starts[b], starts[b + 1]):
                    row = np.int64(ids[i])
                    if row != padding:
                        scale, bias = _scale_of(packed, format, row, dim)
                        for j in range(dim):
                            x = _element(packed, format, row, j, scale, bias)
                            if where[b, j] < 0 or x > out[b, j]:
                                out[b, j] = x
                                where[b, j] = i
    return bad


@jitted
def _philox(block: int, step: Any, row: int, seed: Any) -> Any:
    """Philox4x32-10 in 64-bit arithmetic; `reference.philox` says where it comes from."""
    low, half = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1 = np.uint64(block), step & low
    x2, x3 = np.uint64(row) & low, np.uint64(row) >> half
    key0, key1 = seed & low, seed >> half
    for _ in range(10):
        product0 = x0 * np.uint64(0xD2511F53)
        product1 = x2 * np.uint64(0xCD9E8D57)
        x0 = (product1 >> half) ^ x1 ^ key0
        x1 = product1 & low
        x2 = (product0 >> half) ^ x3 ^ key1
        x3 = product0 & low
        key0 = (key0 + np.uint64(0x9E3779B9)) & low
        key1 = (key1 + np.uint64(0xBB67AE85)) & low
    return x0, x1, x2, x3


@jitted
def _to_half(x: Any, stochastic: bool, drawn: Any) -> Any:
    bits = np.float32(x).view(np.uint32)
    body = np.uint32(bits & np.uint32(0x7FFFFFFF))
    sign = np.uint32(bits >> np.uint32(16)) & np.uint32(0x8000)
    if body > 0x7F800000:
        return np.uint32(0x7E00)
    if body >= 0x47800000 or (body >= 0x477FF000 and not stochastic):
        return np.uint32(0x7C00 | sign)
    size = np.uint32(body).view(np.float32)
    if body >= 0x38800000:
        odd = np.uint32(body >> np.uint32(13)) & np.uint32(1)
        added = drawn >> np.uint32(3) if stochastic else np.uint32(0xFFF) + odd
        found = np.uint32(np.uint32(body + added) >> np.uint32(13)) - np.uint32(112 << 10)
    elif stochastic:
        scaled = np.float32(size * np.float32(2.0**24))
        below = np.uint32(scaled)
        rest = np.float32(scaled - np.float32(below))
        found = below + np.uint32(np.float32(drawn) * np.float32(2.0**-16) < rest)
    else:  # adding a half leaves multiples of 2**-24
        raised = np.float32(size + np.float32(0.5)).view(np.uint32)
        found = np.uint32(raised) - np.uint32(0x3F000000)
    return np.uint32(found | sign)


@jitted
def _to_brain(x: Any, stochastic: bool, drawn: Any) -> Any:
    bits = np.float32(x).view(np.uint32)
    if np.uint32(bits & np.uint32(0x7FFFFFFF)) > 0x7F800000:
        return np.uint32(0x7FC0)
    odd = np.uint32(bits >> np.uint32(16)) & np.uint32(1)
    added = drawn if stochastic else np.uint32(0x7FFF) + odd
    return np.uint32(np.uint32(bits + added) >> np.uint32(16))


@jitted
def _put(packed: Any, row: int, at: int, bits: Any, count: int) -> None:
    for k in range(count):
        packed[row, at + k] = (bits >> np.uint32(8 * k)) & np.uint32(0xFF)


@jitted
def _put_bytes(x: Any, i: int, packed: Any, row: int) -> None:
    """Write row i of x as bytes, scale and bias."""
    dim = x.shape[1]
    least = most = x[i, 0] if dim else np.float32(0)
    for j in range(dim):
        least, most = min(least, x[i, j]), max(most, x[i, j])
    least = np.float32(least + np.float32(0))  # of zeros, the positive one
    extent = np.float32(most - least)
    inverse = np.float32(np.float32(255) / np.float32(extent + np.float32(1e-8)))
    for j in range(dim):
        scaled = np.float32(np.float32(x[i, j] - least) * inverse)
        packed[row, j] = np.uint8(np.float32(scaled + np.float32(2.0**23)).view(np.uint32))
    scale = np.float32(extent / np.float32(255))
    _put(packed, row, dim, np.float32(scale).view(np.uint32), 4)
    _put(packed, row, dim + 4, np.float32(least).view(np.uint32), 4)


@jitted
def _put_halves(
    x: Any, i: int, format: int, packed: Any, row: int, stochastic: bool, seed: Any, step: Any
) -> None:
    words = np.uint64(0), np.uint64(0), np.uint64(0), np.uint64(0)
    dim = x.shape[1]
    for lane in range(min(8, dim)):
        for j in range(lane, dim, 8):
            piece = j % 64 // 8
            if stochastic and piece == 0:
                words = _philox(j // 64 * 8 + lane, step, row, seed)
            drawn = np.uint32(words[piece // 2] >> np.uint64(16 * (piece % 2)) & np.uint64(0xFFFF))
            if format == FLOAT16:
                _put(packed, row, 2 * j, _to_half(x[i, j], stochastic, drawn), 2)
            else:
                _put(packed, row, 2 * j, _to_brain(x[i, j], stochastic, drawn), 2)


def pack(
    x: Any,
    format: int,
    ids: Any,
    packed: Any,
    stochastic: bool,
    seed: Any,
    step: Any,
    threads: int,
) -> int:
    """Write rows, and return -1 or the position of the first bad id."""
    bad = bad_position(ids, packed.shape[0])
    n, dim = x.shape
    if bad < 0:
        for t in numba.prange(threads):
            for i in range(n * t // threads, n * (t + 1) // threads):
                row = ids[i]
                if format == ROWWISE8:
                    _put_bytes(x, i, packed, row)
                elif format == FLOAT32:
                    for j in range(dim):
                        _put(packed, row, 4 * j, np.float32(x[i, j]).view(np.uint32), 4)
                else:
                    _put_halves(x, i, format, packed, row, stochastic, seed, step)
    return bad


def unpack_rows(packed: ByteArray, format: int, ids: IdArray, out: FloatArray, threads: int) -> int:
    """See `packed.unpack_rows`."""
    return run(unpack, ids.dtype.char, threads, packed, format, ids, out)


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
    bags = ids, starts, weights, padding, bool(mean)
    return run(sum_bags, ids.dtype.char, threads, packed, format, *bags, out)


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
    bags = ids, starts, padding
    return run(max_bags, ids.dtype.char, threads, packed, format, *bags, out, where)


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
    rounding = bool(stochastic), np.uint64(seed), np.uint64(step)
    return run(pack, "", threads, rows, format, ids, packed, *rounding)
