"""The bytes of `NAME.bits`, which says what blocks of a lazy column are written: header and size.

Must not open a file or know a path. docs/format.md is this module in words.
"""

from __future__ import annotations

import struct
import zlib
from uuid import UUID

from .column import MAX_NAME, Column
from .records import Filed

MAGIC = b"MMEMBITS"
# magic, uuid, name of the column, rows in a block, checksum of all before it; zeros up to BITS_AT
HEADER = struct.Struct(f"<8s16s{MAX_NAME + 4}sQI")
BITS_AT = 4096  # where the bits begin: bit b % 8 of byte b // 8 is block b's


def blocks_of(column: Column, rows: int) -> int:
    """Return the number of blocks that `rows` rows make; the last may be a part of one."""
    return -(-rows >> column.block_shift)


def bits_file_bytes(column: Column, rows: int) -> int:
    """Return the size of the file."""
    return BITS_AT + -(-blocks_of(column, rows) // 8)


def encode_bits_header(column: Column, table_uuid: UUID) -> bytes:
    """Return the BITS_AT bytes before the bits."""
    fields = (MAGIC, table_uuid.bytes, column.name.encode("ascii"), 1 << column.block_shift)
    body = HEADER.pack(*fields, 0)[:-4]
    return (body + struct.pack("<I", zlib.crc32(body))).ljust(BITS_AT, b"\0")


def name_of_bits(column: Filed) -> str:
    """Return the name of the file."""
    return f"{column.name}.bits"
