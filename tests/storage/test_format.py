"""Bytes to values and back: golden bytes, round trips, and any bytes at all."""

from __future__ import annotations

import dataclasses
import io
import json
import re
import struct
from uuid import UUID

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmembed.errors import CorruptTableError
from mmembed.storage.column import Column
from mmembed.storage.format import (
    COPY_BYTES,
    HEAD,
    HEADER_BYTES,
    JSON_BYTES,
    SLOT_BYTES,
    SUPER_BYTES,
    decode_copy,
    decode_super,
    encode_copy,
    encode_header,
    explain_header,
    file_bytes,
    is_header,
    slot_offset,
)
from mmembed.storage.initial import Initial
from mmembed.storage.records import Records, least_stride

from .examples import (
    EXAMPLE,
    EXAMPLE_HEAD,
    EXAMPLE_HEADER,
    EXAMPLE_JSON,
    resealed_header,
    sealed,
)

U64 = st.integers(0, 2**64 - 1)
COLUMNS = st.builds(
    Column,
    st.from_regex(r"[a-z][a-z0-9_]{0,9}(\.[a-z][a-z0-9_]{0,9}){0,2}", fullmatch=True),
    st.sampled_from(["float32", "float64"]),
    st.none() | st.integers(0, 2**20),
    st.builds(Initial, st.just("normal"), st.floats(-9, 9), st.floats(0, 9))
    | st.builds(Initial, st.just("constant"), st.floats(-3e38, 3e38)),
    U64,
)
JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=5,
).filter(lambda value: "Infinity" not in json.dumps(value))


@st.composite
def records_of(draw, columns):
    count = draw(st.integers(1, len(columns)))
    stride = least_stride(columns[:count])
    return Records(columns[:count], draw(st.sampled_from([stride, stride + 8, 8 * stride])))


@st.composite
def superblocks(draw):
    weight = dataclasses.replace(draw(COLUMNS), name="weight", dim=draw(st.integers(0, 2**20)))
    others = draw(st.lists(COLUMNS, max_size=4, unique_by=lambda column: column.name))
    columns = (weight, *(column for column in others if column.name != "weight"))
    return dataclasses.replace(
        EXAMPLE,
        uuid=draw(st.uuids()),
        epoch=draw(U64),
        step=draw(U64),
        rows=draw(st.integers(0, 2**38)),
        other_rows=draw(st.integers(0, 2**38)),
        attempt=draw(U64),
        boot_id=draw(st.uuids()),
        durability=draw(st.sampled_from(["power", "process"])),
        clean=draw(st.booleans()),
        commits=draw(U64),
        seed=draw(U64),
        columns=columns,
        records=draw(st.none() | records_of(columns)),
        counters=draw(st.dictionaries(st.sampled_from(["a", "a.b", "weight.adam.step"]), U64)),
        metadata=draw(st.dictionaries(st.text(max_size=9), JSON_VALUES, max_size=3)),
    )


def super_bytes(*copies):
    """`super` with each copy, given as a value, where its epoch belongs, twice."""
    data = bytearray(SUPER_BYTES)
    for copy in copies:
        at = slot_offset(copy.epoch)
        data[at : at + SLOT_BYTES] = encode_copy(copy) * 2
    return bytes(data)


def test_a_copy_has_the_golden_bytes():
    assert encode_copy(EXAMPLE) == sealed(EXAMPLE_HEAD + EXAMPLE_JSON)
    assert len(EXAMPLE_HEAD) == HEAD.size == 112
    assert encode_copy(EXAMPLE)[-4:].hex() == "fd62eb97"


def test_the_golden_bytes_have_the_value():
    assert decode_copy(sealed(EXAMPLE_HEAD + EXAMPLE_JSON)) == EXAMPLE


def test_a_header_has_the_golden_bytes():
    header = encode_header(EXAMPLE.columns[0], EXAMPLE.rows, EXAMPLE.uuid)

    assert header == EXAMPLE_HEADER + b"20ef67f2" + b" " * (4095 - len(EXAMPLE_HEADER) - 8) + b"\n"


def test_sizes_are_those_of_the_format():
    assert (COPY_BYTES, SLOT_BYTES, SUPER_BYTES, HEADER_BYTES) == (8192, 16384, 32768, 4096)
    assert [slot_offset(epoch) for epoch in (0, 1, 2, 2**64 - 1)] == [0, 16384, 0, 16384]


@given(superblocks())
def test_every_superblock_comes_back(superblock):
    assert decode_copy(encode_copy(superblock)) == superblock


@given(COLUMNS, st.integers(0, 2**38), st.uuids())
def test_numpy_reads_every_header(column, rows, uuid):
    header = io.BytesIO(encode_header(column, rows, uuid))

    assert np.lib.format.read_magic(header) == (1, 0)
    shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(header)
    assert (shape, fortran_order, dtype) == (column.shape(rows), False, np.dtype(column.dtype))
    assert header.tell() == HEADER_BYTES


def test_the_longest_name_fits_a_header_and_a_file_name():
    column = dataclasses.replace(EXAMPLE.columns[0], name="a" * 100, dim=2**60)

    assert len(encode_header(column, 1, EXAMPLE.uuid)) == HEADER_BYTES
    with pytest.raises(ValueError, match="cannot be a name"):
        dataclasses.replace(column, name="a" * 101)


def test_metadata_that_does_not_fit_is_refused_with_the_sizes():
    superblock = dataclasses.replace(EXAMPLE, metadata={"x": "y" * JSON_BYTES})

    with pytest.raises(ValueError, match=rf"take \d+ bytes as JSON.*has room for {JSON_BYTES}"):
        encode_copy(superblock)


def test_metadata_that_just_fits_comes_back():
    room = JSON_BYTES - len(EXAMPLE_JSON) + len('{"note":"\\u00e9"}') - len('{"x":""}')
    superblock = dataclasses.replace(EXAMPLE, metadata={"x": "y" * room})

    assert decode_copy(encode_copy(superblock)) == superblock
    with pytest.raises(ValueError, match="bytes as JSON"):
        encode_copy(dataclasses.replace(EXAMPLE, metadata={"x": "y" * (room + 1)}))


def test_a_file_of_more_than_2_to_the_63_bytes_is_refused():
    column = dataclasses.replace(EXAMPLE.columns[0], dim=2**32)

    assert file_bytes(column, 2**29 - 1) == 4096 + (2**29 - 1) * 2**34
    with pytest.raises(ValueError, match="do not fit a file"):
        file_bytes(column, 2**29)


@pytest.mark.parametrize("field", ["epoch", "step", "attempt", "seed"])
def test_numbers_of_65_bits_are_refused(field):
    with pytest.raises(ValueError, match=rf"{field} must be in 0\.\.18446744073709551615"):
        dataclasses.replace(EXAMPLE, **{field: 2**64})


# Which copy counts.


def test_the_highest_epoch_counts():
    older, newer = (dataclasses.replace(EXAMPLE, epoch=epoch, step=epoch) for epoch in (3, 4))

    assert decode_super(super_bytes(older, newer)) == newer


@pytest.mark.parametrize("copy", [0, 1])
def test_one_damaged_copy_does_not_matter(copy):
    data = bytearray(super_bytes(EXAMPLE))
    data[slot_offset(EXAMPLE.epoch) + COPY_BYTES * copy + 48] ^= 1

    assert decode_super(bytes(data)) == EXAMPLE


def test_the_commit_before_counts_if_the_newest_slot_is_damaged():
    before = dataclasses.replace(EXAMPLE, epoch=2, step=900)
    data = bytearray(super_bytes(before, EXAMPLE))
    data[SLOT_BYTES] ^= 1
    data[SLOT_BYTES + COPY_BYTES] ^= 1

    assert decode_super(bytes(data)) == before


@pytest.mark.parametrize("order", [1, -1])
def test_not_clean_wins_among_copies_of_an_epoch(order):
    copies = [dataclasses.replace(EXAMPLE, clean=clean) for clean in (True, False)][::order]
    data = bytearray(SUPER_BYTES)
    data[SLOT_BYTES:] = b"".join(encode_copy(copy) for copy in copies)

    assert decode_super(bytes(data)) == dataclasses.replace(EXAMPLE, clean=False)


def test_copies_of_an_epoch_may_differ_in_the_mark_of_a_growth():
    marked = dataclasses.replace(EXAMPLE, other_rows=9)

    for copies in ((EXAMPLE, marked), (marked, EXAMPLE)):
        data = bytes(SLOT_BYTES) + b"".join(encode_copy(copy) for copy in copies)
        assert decode_super(data).rows == 5


def test_the_latest_attempt_wins_among_copies_that_are_not_clean():
    copies = [dataclasses.replace(EXAMPLE, clean=False, attempt=n) for n in (8, 7)]
    data = bytearray(SUPER_BYTES)
    data[SLOT_BYTES:] = b"".join(encode_copy(copy) for copy in copies)

    assert decode_super(bytes(data)).attempt == 8


def test_copies_of_an_epoch_that_contradict_each_other_are_refused():
    data = super_bytes(EXAMPLE)[:-COPY_BYTES] + encode_copy(dataclasses.replace(EXAMPLE, step=1))

    with pytest.raises(CorruptTableError, match="copies of epoch 3 contradict each other"):
        decode_super(data)


def test_slots_of_two_tables_are_refused():
    other = dataclasses.replace(EXAMPLE, epoch=2, uuid=UUID(int=1))

    with pytest.raises(CorruptTableError, match="different uuids"):
        decode_super(super_bytes(EXAMPLE, other))


def test_an_epoch_in_the_wrong_slot_is_refused():
    data = super_bytes(EXAMPLE)

    with pytest.raises(CorruptTableError, match="epoch 3 stands in the slot of even epochs"):
        decode_super(data[SLOT_BYTES:] + data[:SLOT_BYTES])


@pytest.mark.parametrize("size", [0, 1, SUPER_BYTES - 1, SUPER_BYTES + 1])
def test_super_of_another_size_is_refused(size):
    with pytest.raises(CorruptTableError, match=f"has {size} bytes, must have 32768"):
        decode_super(super_bytes(EXAMPLE).ljust(SUPER_BYTES + 1, b"\0")[:size])


# Any bytes become a value or CorruptTableError.


def change_at(body, offset, kind, value):
    return body[:offset] + struct.pack(kind, value) + body[offset + struct.calcsize(kind) :]


BODY = EXAMPLE_HEAD + EXAMPLE_JSON
FIELD_DAMAGES = {
    "magic": (change_at(BODY, 0, "<B", 0x94), "begins with"),
    "version": (change_at(BODY, 8, "<I", 2), "format version is 2, and this mmembed reads 1"),
    "features": (change_at(BODY, 12, "<I", 8), "needs features 0x8"),
    "endian": (change_at(BODY, 16, ">I", 0x01020304), "endian marker is 0x04030201"),
    "json too long": (change_at(BODY, 20, "<I", JSON_BYTES + 1), "has 8077 bytes of JSON"),
    "json length 2**32-1": (change_at(BODY, 20, "<I", 2**32 - 1), "at most 8076 fit"),
    "json cut": (change_at(BODY, 20, "<I", len(EXAMPLE_JSON) - 1), "field is not valid"),
    "json with a zero": (change_at(BODY, 20, "<I", len(EXAMPLE_JSON) + 1), "field is not valid"),
    "no json": (change_at(BODY, 20, "<I", 0), "field is not valid"),
    "rows above 2**63": (change_at(BODY, 56, "<Q", 2**63), "rows must be in"),
    "rows too many": (change_at(BODY, 56, "<Q", 2**62), "do not fit a file"),
    "durability": (change_at(BODY, 88, "<B", 2), "durability level is 2"),
    "clean": (change_at(BODY, 89, "<B", 2), "byte 89 is 0x02, must be 0x01"),
    "other rows above 2**63": (change_at(BODY, 96, "<Q", 2**63), "other_rows must be in"),
    "other rows too many": (change_at(BODY, 96, "<Q", 2**62), "do not fit a file"),
    "zeros of the head": (change_at(BODY, 95, "<B", 1), "byte 95 is 0x01, must be 0x00"),
    "zeros behind": (BODY.ljust(4000, b"\0") + b"x", "byte 4000 is 0x78, must be 0x00"),
}


@pytest.mark.parametrize(("body", "message"), FIELD_DAMAGES.values(), ids=FIELD_DAMAGES)
def test_a_damaged_field_with_a_right_checksum_is_refused(body, message):
    with pytest.raises(CorruptTableError, match=message):
        decode_copy(sealed(body))


EXAMPLE_COLUMNS = EXAMPLE_JSON[EXAMPLE_JSON.index(b"[") : EXAMPLE_JSON.index(b"]") + 1]
JSON_DAMAGES = {
    "not ascii": (b'"note"', b'"n\xc3\xb6te"', "field is not valid"),
    "space": (b'"seed":99', b'"seed": 99', "byte"),
    "unknown key": (b'"seed":7}', b'"seed":7,"x":1}', "byte"),
    "missing key": (b',"seed":99', b"", "lacks the key 'seed'"),
    "key twice": (b'"dim":3', b'"dim":4,"dim":3', "byte"),
    "name of the first": (b'"name":"weight"', b'"name":"weighs"', "begin with weight"),
    "name with a slash": (b"weight.adagrad.sum", b"../../etc/passwd", "cannot be a name"),
    "name not a string": (b'"weight.adagrad.sum"', b"7", "a name must be a string"),
    "name twice": (b"weight.adagrad.sum", b"weight", "distinct"),
    "no columns": (EXAMPLE_COLUMNS, b"[]", "begin with weight"),
    "columns not a list": (EXAMPLE_COLUMNS, b"7", "field is not valid"),
    "column not an object": (b"[{", b"[7,{", "field is not valid"),
    "dtype": (b'"float32"', b'"float8"', "dtype must be float32, float64"),
    "dtype that is code": (b'"float32"', b'"__import__"', "dtype must be"),
    "dim negative": (b'"dim":3', b'"dim":-3', "dim must be in"),
    "dim not whole": (b'"dim":3', b'"dim":3.0', "dim must be an integer"),
    "dim true": (b'"dim":3', b'"dim":true', "dim must be an integer"),
    "dim huge": (b'"dim":3', b'"dim":' + b"9" * 30, "dim must be in"),
    "dim with 5000 digits": (b'"dim":3', b'"dim":' + b"9" * 5000, "field is not valid"),
    "weight a scalar": (b'"dim":3', b'"dim":null', "weight must be"),
    "init unknown": (b'"zeros"', b'"exec()"', "is not understood"),
    "init not finite": (b"0.02", b"inf", "must be finite"),
    "init long": (b'"zeros"', b'"constant(0.0)"', "byte"),
    "init not a string": (b'"zeros"', b"0", "init must be a string"),
    "seed too large": (b'"seed":99', b'"seed":18446744073709551616', "seed must be in"),
    "counters a list": (b'{"weight.adagrad.step":41}', b"[]", "counters must be a dict, got list"),
    "counters missing": (
        b'"counters":{"weight.adagrad.step":41},',
        b"",
        "lacks the key 'counters'",
    ),
    "counter not whole": (b":41", b":41.0", "counter weight.adagrad.step must be an integer"),
    "counter negative": (b":41", b":-41", "counter weight.adagrad.step must be in"),
    "counter with a bad name": (b"weight.adagrad.step", b"../step", "cannot be a name"),
    "metadata a list": (b'{"note":"\\u00e9"}', b"[]", "metadata must be a dict"),
    "metadata not finite": (b'"\\u00e9"', b"1e999", "field is not valid"),
    "metadata NaN": (b'"\\u00e9"', b"NaN", "field is not valid"),
    "nested deeply": (b'"\\u00e9"', b"[" * 51 + b"]" * 51, "may be nested 50 deep"),
    "nested very deeply": (b'"\\u00e9"', b"[" * 3900 + b"]" * 3900, "field is not valid"),
    "a list": (EXAMPLE_JSON, b"[]", "field is not valid"),
    "a number": (EXAMPLE_JSON, b"7", "field is not valid"),
}


@pytest.mark.parametrize(("old", "new", "message"), JSON_DAMAGES.values(), ids=JSON_DAMAGES)
def test_damaged_json_with_a_right_length_and_checksum_is_refused(old, new, message):
    assert old in EXAMPLE_JSON
    text = EXAMPLE_JSON.replace(old, new)
    body = EXAMPLE_HEAD[:20] + struct.pack("<I", len(text)) + EXAMPLE_HEAD[24:] + text

    with pytest.raises(CorruptTableError, match=message):
        decode_copy(sealed(body))


def test_metadata_nested_as_deep_as_allowed_comes_back():
    text = EXAMPLE_JSON.replace(b'"\\u00e9"', b"[" * 50 + b"]" * 50)
    data = sealed(EXAMPLE_HEAD[:20] + struct.pack("<I", len(text)) + EXAMPLE_HEAD[24:] + text)

    assert encode_copy(decode_copy(data)) == data


def test_a_wrong_checksum_is_refused_with_both():
    data = bytearray(encode_copy(EXAMPLE))
    data[-1] ^= 0xFF

    with pytest.raises(
        CorruptTableError, match="checksum is 0x68eb62fd, its bytes give 0x97eb62fd"
    ):
        decode_copy(bytes(data))


def value_or_refusal(decode, data):
    try:
        return decode(data)
    except CorruptTableError as error:
        message = str(error)
    assert message
    assert "\n" not in message
    return None


@given(st.binary(max_size=300))
def test_any_bytes_become_a_value_or_one_error(data):
    value_or_refusal(decode_copy, data.ljust(COPY_BYTES, b"\0"))
    value_or_refusal(decode_copy, data)
    value_or_refusal(decode_super, data)
    value_or_refusal(decode_copy, sealed(data))
    value_or_refusal(decode_copy, sealed(EXAMPLE_HEAD + data))


EDITS = st.lists(
    st.tuples(st.integers(0, 400), st.integers(0, 20), st.binary(max_size=20)),
    min_size=1,
    max_size=4,
)


def edited(data, edits):
    for at, cut, put in edits:
        data = data[:at] + put + data[at + cut :]
    return data


@given(EDITS, st.booleans())
def test_edited_and_resealed_bytes_become_a_value_with_those_bytes_or_one_error(edits, fix_length):
    body = edited(BODY, edits)
    if fix_length and len(body) > 24:
        text = body[112:].rstrip(b"\0")
        body = body[:20] + struct.pack("<I", len(text)) + body[24:]
    data = sealed(body)[:COPY_BYTES]

    value = value_or_refusal(decode_copy, data)

    assert value is None or encode_copy(value) == data


@pytest.mark.long
@settings(max_examples=20_000)
@given(EDITS)
def test_edited_json_becomes_a_value_with_those_bytes_or_one_error(edits):
    text = edited(EXAMPLE_JSON, edits)
    body = EXAMPLE_HEAD[:20] + struct.pack("<I", len(text)) + EXAMPLE_HEAD[24:] + text
    data = sealed(body)

    value = value_or_refusal(decode_copy, data)

    assert value is None or encode_copy(value) == data


# Headers during a growth.


@pytest.mark.parametrize(("rows", "other_rows"), [(5, 12), (12, 5)])
def test_during_a_growth_a_header_may_be_the_old_the_new_or_torn_between_them(rows, other_rows):
    column = EXAMPLE.columns[0]
    settled = dataclasses.replace(EXAMPLE, rows=rows, other_rows=rows)
    growing = dataclasses.replace(EXAMPLE, rows=rows, other_rows=other_rows)
    old, new = (encode_header(column, count, EXAMPLE.uuid) for count in (rows, other_rows))

    for cut in (0, 60, 61, 130, 512, HEADER_BYTES):
        torn = new[:cut] + old[cut:]
        assert is_header(torn, column, growing)
        assert is_header(torn, column, settled) == (torn == old)
    for wrong in (old[:-1], old + b" ", old[:61] + b"?" + old[62:], b""):
        assert not is_header(wrong, column, growing)
    third = encode_header(column, 7, EXAMPLE.uuid)
    assert not is_header(third, column, growing)


# What differs in a header is said; that it differs is found by comparing all bytes.

HEADER = EXAMPLE_HEADER + b"20ef67f2" + b" " * (4095 - len(EXAMPLE_HEADER) - 8) + b"\n"
HEADER_DAMAGES = {
    "magic": (b"\x93NUMPY", b"\x93NUMPX", "begins with"),
    "npy version": (b"\x01\x00\xf6", b"\x02\x00\xf6", "begins with"),
    "length": (b"\xf6\x0f", b"\x76\x00", "begins with"),
    "uuid": (b"uuid=00", b"uuid=01", "is of another table: its uuid is 0111"),
    "role": (b"role=weight", b"role=context", "holds another column: its role is context"),
    "dtype": (b"<f4", b"<f8", "holds another dtype: '<f8', must be '<f4'"),
    "byte order": (b"<f4", b">f4", "holds another dtype: '>f4', must be '<f4'"),
    "object": (b"<f4", b"|O", r"holds another dtype: '\|O'"),
    "fortran": (b"False", b"True", "order: fortran_order is True, must be False"),
    "shape": (b"(5, 3)", b"(3, 5)", r"has another shape: \(3, 5\), must be \(5, 3\)"),
    "label version": (b"mmembed 1", b"mmembed 2", "another format version: 2, must be 1"),
    "key": (b"'descr'", b"'dtype'", "damaged header: byte 13 is b't', must be b'e'"),
    "label": (b"# mmembed", b"# nothing", "damaged header: byte 72 is b'n', must be b'm'"),
}


@pytest.mark.parametrize(("old", "new", "message"), HEADER_DAMAGES.values(), ids=HEADER_DAMAGES)
def test_what_differs_in_a_resealed_header_is_said(old, new, message):
    assert old in HEADER
    found = resealed_header(HEADER.replace(old, new))

    assert re.search(message, explain_header(found, HEADER))


@given(st.binary(max_size=5000) | EDITS.map(lambda edits: edited(HEADER, edits)))
def test_any_header_that_differs_is_explained_in_one_line(found):
    if found != HEADER:
        text = explain_header(found, HEADER)

        assert text
        assert "\n" not in text
        assert len(text) < 300
