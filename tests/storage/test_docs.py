"""docs/format.md says what the code does."""

from __future__ import annotations

import pathlib
import re

import pytest

from mmembed.storage import (
    bits_format,
    changes_format,
    delta_format,
    format,
    journal_format,
    seals,
)
from mmembed.storage.column import BLOCK_BYTES, MAX_NAME, Column, column_seed
from mmembed.storage.initial import Initial
from mmembed.storage.records import MAX_DESCR, Records

from .examples import EXAMPLE, example_journal, hexdump

FIELD = r"^\| (\d+) \| (\S+(?: bytes)?) \| "
PAGE = (pathlib.Path(__file__).parents[2] / "docs" / "format.md").read_text()


def test_the_page_has_the_struct_of_the_code():
    assert f'struct.Struct("{format.HEAD.format}")' in PAGE
    assert f'struct.Struct("{format.CHECKSUM.format}")' in PAGE


def test_the_page_has_the_structs_of_the_journal():
    assert f'struct.Struct("{journal_format.HEADER.format}")' in PAGE
    assert f'struct.Struct("{journal_format.RECORD.format}")' in PAGE
    assert f'struct.Struct("{seals.HEAD.format}")' in PAGE
    assert f"({seals.BLOCK_BYTES})" in PAGE
    for module in (changes_format, delta_format):
        assert f'struct.Struct("{module.HEAD.format}")' in PAGE
    assert f'struct.Struct("{changes_format.RUN.format}")' in PAGE
    assert f"slots of {changes_format.SLOT_BYTES} bytes" in PAGE
    assert f"{delta_format.RECORDS_AT} | records" in PAGE
    assert f"slots of {journal_format.HEADER_SLOT_BYTES} bytes" in PAGE


@pytest.mark.parametrize("what", ["header", "record"])
def test_the_fields_of_the_journal_have_the_offsets_of_the_code(what):
    part = PAGE[PAGE.index(f"| byte | type | {what} field |") :]
    rows = re.findall(FIELD, part[: part.index("\n\n")], re.MULTILINE)
    sizes = {"u32": 4, "u64": 8, "4 bytes": 4, "8 bytes": 8, "16 bytes": 16}

    offset = 0
    for at, kind in rows:
        assert int(at) == offset
        offset += sizes.get(kind, 0)
    assert offset == {"header": journal_format.HEADER, "record": journal_format.RECORD}[what].size


def test_the_worked_example_is_made_by_the_code():
    assert f"```\n{hexdump(format.encode_copy(EXAMPLE))}\n```" in PAGE
    header = format.encode_header(EXAMPLE.columns[0], EXAMPLE.rows, EXAMPLE.uuid)
    assert f"```\n{hexdump(header[:144])}\n```" in PAGE


def test_the_example_of_the_journal_is_made_by_the_code():
    assert f"```\n{hexdump(example_journal())}\n```" in PAGE


def test_the_example_of_records_is_made_by_the_code():
    weight = EXAMPLE.columns[0]
    count = Column("count", "float64", None, Initial("constant", 0.0), 0)
    header = format.encode_header(Records((weight, count), 64), 5, EXAMPLE.uuid)
    line = next(line for line in PAGE.splitlines() if line.startswith("{'descr': [("))

    assert header[10:].startswith(line.removesuffix(" …").encode())
    assert str(MAX_DESCR) in PAGE
    assert f"one bit each: {format.LAZY}, lazy columns; {format.RECORDS}, records" in PAGE


def test_the_page_has_the_struct_of_the_bits():
    assert f'struct.Struct("{bits_format.HEADER.format}")' in PAGE
    assert f"byte {bits_format.BITS_AT} + " in PAGE
    assert f"rows that fit {BLOCK_BYTES} bytes" in PAGE


def test_the_table_of_fields_has_the_offsets_of_the_code():
    part = PAGE[PAGE.index("| at | type | field |") :]
    rows = re.findall(FIELD, part[: part.index("\n\n")], re.MULTILINE)
    sizes = {"u8": 1, "u32": 4, "u64": 8, "8 bytes": 8, "16 bytes": 16, "6 bytes": 6}

    offset = 0
    for at, kind in rows:
        assert int(at) == offset
        offset += sizes[kind]
    assert offset == format.HEAD.size


def test_numbers_on_the_page_are_those_of_the_code():
    for number in (
        format.COPY_BYTES,
        format.SLOT_BYTES,
        format.SUPER_BYTES,
        format.JSON_BYTES,
        format.HEADER_BYTES,
        MAX_NAME,
        column_seed(7, "context"),
    ):
        assert str(number) in PAGE
