"""Bits of rows and checksums of records: the compiled bodies and those in Python agree."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmembed.storage import saving

BODIES = {"python": (saving.unmarked_in_python, saving.mark_in_python)}
if saving._saving is not None:
    BODIES["compiled"] = (saving._unmarked_compiled, saving._mark_compiled)


@given(st.integers(0, 5000), st.integers(0, 2**32), st.integers(0, 15))
def test_the_checksum_is_zlibs_for_every_length_and_alignment(size, seed, start):
    data = np.random.default_rng(seed).integers(0, 256, size + start, np.uint8)[start:]

    assert saving.crc32(data) == zlib.crc32(data.tobytes())
    assert saving.crc32(memoryview(data.tobytes())) == zlib.crc32(data)


@pytest.mark.parametrize("size", [1024, 1039, 1040, 65_535, 1 << 20])
@pytest.mark.parametrize("byte", [0, 0xFF])
def test_the_checksum_of_bytes_that_are_all_alike_is_zlibs(size, byte):
    assert saving.crc32(bytes([byte]) * size) == zlib.crc32(bytes([byte]) * size)


def test_without_the_compiled_body_the_checksum_is_the_same(monkeypatch):
    data = bytes(range(256)) * 20
    expected = saving.crc32(data)

    monkeypatch.setattr(saving, "_saving", None)
    assert saving.crc32(data) == expected == zlib.crc32(data)


@pytest.mark.parametrize("body", BODIES)
@given(st.lists(st.integers(0, 70)), st.lists(st.integers(0, 70)))
def test_rows_that_were_marked_are_left_out_and_the_others_keep_their_order(body, before, rows):
    unmarked, mark = BODIES[body]
    bits = np.zeros(9, np.uint8)

    mark(bits, np.array(before, np.int64))

    expected = [row for row in rows if row not in before]
    assert unmarked(bits, np.array(rows, np.int64)).tolist() == expected
    assert np.flatnonzero(np.unpackbits(bits, bitorder="little")).tolist() == sorted({*before})


@pytest.mark.skipif(saving._saving is None, reason="not built")
@pytest.mark.parametrize(("size", "out"), [(48, 16), (65, 16), (64, 15)])
def test_folding_refuses_what_it_would_read_beyond(size, out):
    with pytest.raises(ValueError, match="a multiple of 16 bytes, 64 at least"):
        saving._saving.fold(bytes(size), bytearray(out))
