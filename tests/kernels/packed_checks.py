"""The contract of `mmembed.kernels.packed` as checks that any body must pass and any mutant fail.

What is taken apart is compared with the kernels of the reference on the table as float32, of which
each element is worked out in Python's integers and fractions.
"""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np

from mmembed.kernels import reference
from mmembed.kernels.packed import BFLOAT16, FLOAT16, FLOAT32, ROWWISE8, SCALE_BYTES

from .checks import CANARY, bad_batches, bag_cases, philox, same_bits

HALVES = (FLOAT16, BFLOAT16)
PACKED = (*HALVES, ROWWISE8)
FORMATS = (FLOAT32, *PACKED)
# Of a format of 16 bits: how many are the fraction, and the exponent of the least normal number.
SHAPES = {FLOAT16: (10, -14), BFLOAT16: (7, -126)}
LARGEST = {FLOAT16: Fraction(65504), BFLOAT16: Fraction(2) ** 128 - Fraction(2) ** 120}


def bytes_of_row(format, dim):
    return {FLOAT32: 4 * dim, FLOAT16: 2 * dim, BFLOAT16: 2 * dim, ROWWISE8: dim + SCALE_BYTES}[
        format
    ]


def random_table(case, format, *, read_only=False):
    """Bytes that are finite numbers, among them subnormal ones and both zeros."""
    rng = np.random.default_rng([case.seed, format])
    size = bytes_of_row(format, case.dim)
    wide = np.full((case.rows, size + 6 * (case.layout == "strided")), 0xFF, np.uint8)
    if format in HALVES:
        fraction, _ = SHAPES[format]
        exponents = rng.integers(0, 2 ** (15 - fraction) - 2, (case.rows, case.dim))
        if format == BFLOAT16:  # sums stay finite
            exponents = np.where(rng.random(exponents.shape) < 0.1, 0, 110 + exponents % 30)
        bits = rng.integers(0, 2**fraction, exponents.shape) | exponents << fraction
        bits[rng.random(bits.shape) < 0.1] = 0
        values = (bits | rng.integers(0, 2, bits.shape) << 15).astype(np.uint16)
    elif format == FLOAT32:
        values = case.numbers(case.rows, case.dim).astype(np.float32)
    else:
        values = np.empty((case.rows, size), np.uint8)
        values[:, : case.dim] = rng.integers(0, 256, (case.rows, case.dim))
        ends = rng.standard_normal((case.rows, 2)).astype(np.float32)
        values[:, case.dim :] = ends.view(np.uint8)
    table = wide[:, :size]
    if values.size:
        table[...] = values.view(np.uint8)
    if case.layout == "reversed":
        table = table[::-1]
    if read_only:
        table.flags.writeable = False
    return table


def element_of(bits, format):
    """The number that 16 bits are, as a fraction, and whether it is negative."""
    fraction, least = SHAPES[format]
    exponent, rest = bits % 2**15 >> fraction, bits % 2**fraction
    if exponent:
        value = (1 + Fraction(rest, 2**fraction)) * Fraction(2) ** (exponent - 1 + least)
    else:
        value = Fraction(rest, 2**fraction) * Fraction(2) ** least
    return value, bits >= 2**15


def unpacked(table, format, dim):
    """The table as float32, element by element."""
    out = np.zeros((len(table), dim), np.float32)
    for row, target in zip(table, out, strict=True):
        row = row.copy()
        if format == FLOAT32:
            target[:] = row.view(np.float32) if dim else []
        elif format == ROWWISE8:
            scale, bias = row[dim:].copy().view(np.float32)
            for j in range(dim):
                target[j] = np.float32(np.float32(row[j]) * scale) + bias
        else:
            for j, bits in enumerate(row.view(np.uint16).tolist() if dim else []):
                size, negative = element_of(bits, format)
                target[j] = math.copysign(float(size), -1 if negative else 1)
    return out


def check_unpack_rows(body, case):
    for format in FORMATS:
        table = random_table(case, format, read_only=case.read_only)
        out = np.full((len(case.ids), case.dim), CANARY, np.float32)

        assert body.unpack_rows(table, format, case.id_array, out, case.threads) == -1

        same_bits(out, unpacked(table, format, case.dim)[np.array(case.ids, int)])
        for ids, position in bad_batches(case, case.id_dtype):
            out = np.full((ids.size, case.dim), CANARY, np.float32)
            assert body.unpack_rows(table, format, ids, out, case.threads) == position
            assert (out == CANARY).all()


def check_unpack_bags(body, case):
    some = case.numbers(len(case.ids), salt=5).astype(np.float32)
    for format in PACKED:
        table = random_table(case, format, read_only=case.read_only)
        wide = unpacked(table, format, case.dim)
        for starts, padding, bags in bag_cases(case):
            for weights in (some, some[:0]):
                for mean in (False, True):
                    out = np.full((len(bags), case.dim), CANARY, np.float32)
                    want = np.empty_like(out)
                    args = case.id_array, starts, weights, padding, mean

                    assert body.unpack_bags(table, format, *args, out, case.threads) == -1

                    reference.gather_bags(wide, *args, want, 1)
                    same_bits(out, want)
        for ids, position in bad_batches(case, case.id_dtype):
            out = np.full((1, case.dim), CANARY, np.float32)
            args = ids, np.array([0, ids.size]), some[:0], -1, False, out, case.threads
            assert body.unpack_bags(table, format, *args) == position
            assert (out == CANARY).all()


def check_unpack_bags_max(body, case):
    for format in PACKED:
        table = random_table(case, format, read_only=case.read_only)
        wide = unpacked(table, format, case.dim)
        for starts, padding, bags in bag_cases(case):
            out = np.full((len(bags), case.dim), CANARY, np.float32)
            where = np.full((len(bags), case.dim), CANARY, np.int64)
            want, want_where = np.empty_like(out), np.empty_like(where)
            args = case.id_array, starts, padding

            assert body.unpack_bags_max(table, format, *args, out, where, case.threads) == -1

            reference.gather_bags_max(wide, *args, want, want_where, 1)
            same_bits(out, want)
            same_bits(where, want_where)
        for ids, position in bad_batches(case, case.id_dtype):
            out = np.full((1, case.dim), CANARY, np.float32)
            where = np.full((1, case.dim), CANARY, np.int64)
            args = ids, np.array([0, ids.size]), -1, out, where, case.threads
            assert body.unpack_bags_max(table, format, *args) == position
            assert (out == CANARY).all()
            assert (where == CANARY).all()


def odd_numbers(case, n, dim):
    """Numbers that round in every way: ties, below the least, beyond the largest, specials."""
    rng = np.random.default_rng([case.seed, 3])
    values = rng.standard_normal((n, dim)) * 2.0 ** rng.integers(-28, 17, (n, dim))
    coarse = np.round(values * 2.0**12) / 2.0**12
    values = np.where(rng.random(values.shape) < 0.3, coarse, values).astype(np.float32)
    cut = (values.view(np.uint32) & 0xFFFFF000).view(np.float32)  # ties of float16
    values = np.where(rng.random(values.shape) < 0.3, cut, values)
    cut = (values.view(np.uint32) & 0xFFFF8000).view(np.float32)  # ties of bfloat16
    values = np.where(rng.random(values.shape) < 0.3, cut, values)
    specials = [0.0, -0.0, math.inf, -math.inf, math.nan, -math.nan, 65504, 65519.996, 65520, 65535]
    specials += [65536, -65520, 3.4028235e38, -3.39e38, 1e-45, 2.0**-25, 2.0**-24, 6.1e-5]
    chosen = rng.choice(np.array(specials, np.float32), values.shape)
    return np.where(rng.random(values.shape) < 0.2, chosen, values).astype(np.float32)


def rounded(x, format, drawn=None):
    """16 bits: x rounded to the nearest, or by a random number of 16 bits."""
    if math.isnan(x):
        return 0x7E00 if format == FLOAT16 else 0x7FC0
    fraction, least = SHAPES[format]
    sign = 0x8000 if math.copysign(1, x) < 0 else 0
    infinity = (2 ** (15 - fraction) - 1) << fraction
    if math.isinf(x):
        return infinity | sign
    size = Fraction(abs(x))
    exponent = max(math.frexp(abs(x))[1] - 1, least) if x else least
    units = size / Fraction(2) ** (exponent - fraction)
    below = math.floor(units)
    rest = units - below
    if drawn is None:
        up = rest > Fraction(1, 2) or (rest == Fraction(1, 2) and below % 2 == 1)
    elif format == FLOAT16 and exponent > least - 1 and size >= Fraction(2) ** least:
        up = rest + Fraction(drawn >> 3, 2**13) >= 1
    elif format == FLOAT16:
        up = Fraction(drawn, 2**16) < rest
    else:
        up = rest + Fraction(drawn, 2**16) >= 1
    units = below + up
    value = units * Fraction(2) ** (exponent - fraction)
    if value > LARGEST[format]:
        return infinity | sign
    if units >= 2 ** (fraction + 1):
        units, exponent = units // 2, exponent + 1
    if units < 2**fraction:
        return units | sign
    return (exponent - least + 1) << fraction | units - 2**fraction | sign


def drawn_for(row, j, seed, step):
    piece = j % 64 // 8
    counter = [j // 64 * 8 + j % 8, step % 2**32, row & 0xFFFFFFFF, row >> 32]
    return philox(counter, seed)[piece // 2] >> 16 * (piece % 2) & 0xFFFF


def quantized(row):
    """Bytes, scale and bias of a row: FBGEMM's definition."""
    dim = row.size
    least = row.min() + np.float32(0) if dim else np.float32(0)
    extent = np.float32((row.max() if dim else least) - least)
    inverse = np.float32(255) / (extent + np.float32(1e-8))
    ends = np.array([extent / np.float32(255), least], np.float32)
    numbers = [round(float(np.float32(x - least) * inverse)) for x in row]
    return [*numbers, *ends.view(np.uint8).tolist()]


def expected_row(x, format, row, stochastic, seed, step):
    if format == FLOAT32:
        return x.view(np.uint8).tolist()
    if format == ROWWISE8:
        return quantized(x)
    bits = [
        rounded(float(value), format, drawn_for(row, j, seed, step) if stochastic else None)
        for j, value in enumerate(x)
    ]
    return np.array(bits, np.uint16).view(np.uint8).tolist()


def check_pack_rows(body, case):
    ids = np.array(sorted(set(case.ids)), np.int64)[::-1].copy()
    seed, step = case.seed * 0x9E3779B97F4A7C15 % 2**64, case.seed * 2**27
    for format in FORMATS:
        for stochastic in (False, True) if format in HALVES else (False,):
            rows = odd_numbers(case, ids.size, case.dim)
            if format == ROWWISE8:
                rows = case.numbers(ids.size, case.dim).astype(np.float32)
            table = random_table(case, format)
            before = table.copy()

            args = stochastic, seed, step, case.threads
            assert body.pack_rows(rows, format, ids, table, *args) == -1

            for i, row in enumerate(ids.tolist()):
                before[row] = expected_row(rows[i], format, row, stochastic, seed, step)
            same_bits(np.ascontiguousarray(table), before)
            for bad_ids, position in bad_batches(case):
                some = np.ones((bad_ids.size, case.dim), np.float32)
                assert body.pack_rows(some, format, bad_ids, table, *args) == position
                same_bits(np.ascontiguousarray(table), before)


CHECKS = {
    "unpack_rows": check_unpack_rows,
    "unpack_bags": check_unpack_bags,
    "unpack_bags_max": check_unpack_bags_max,
    "pack_rows": check_pack_rows,
}
