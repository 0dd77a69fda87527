"""The bytes of the undo journal, `undo`: headers and records, to values and back.

Must not open a file, know a path, or decide what is undone. docs/format.md is this module in words.
"""

from __future__ import annotations

import struct
import zlib
from typing import NamedTuple, TypeVar
from uuid import UUID

import numpy as np
import numpy.typing as npt

from ..errors import CorruptTableError
from .column import Column
from .saving import crc32
from .store import FloatArray, RowArray

Bytes = npt.NDArray[np.uint8]

HEADER_MAGIC = b"MMEMBUND"
# magic, uuid, commit, attempt, confirmed, checksum of all before it; zeros fill the slot
HEADER = struct.Struct("<8s16s3QI")
HEADER_SLOT_BYTES = 512
HEADER_SLOTS = 2
RECORDS_AT = 4096  # where the first record begins

RECORD_MAGIC = b"UNDO"
# magic, checksum of all behind it, uuid, commit, number of the record, bytes of a row, rows,
# checksum of the record before, kind, zero; then the ids and the images of each column
RECORD = struct.Struct("<4sI16s3Q4I")
_CHECKED_FROM = 8  # the checksum of a record covers everything behind itself
ROWS = 0  # the kind of a record that holds old rows; there is no other
_ALIGN = 8


class Header(NamedTuple):
    """What a header slot says. Of two, the greater one counts.

    Attributes
    ----------
    commit : the number of the commit that is under way.
    attempt : grows whenever the journal begins anew for the same commit.
    confirmed : the number of records known to be complete.
    """

    commit: int
    attempt: int
    confirmed: int


def encode_header(header: Header, table_uuid: UUID) -> bytes:
    """Return the HEADER_SLOT_BYTES bytes of a slot."""
    body = HEADER.pack(HEADER_MAGIC, table_uuid.bytes, *header, 0)[:-4]
    return (body + struct.pack("<I", zlib.crc32(body))).ljust(HEADER_SLOT_BYTES, b"\0")


def decode_headers(data: bytes, table_uuid: UUID) -> tuple[Header, int]:
    """Return the header that counts, and the number of its slot.

    Raises
    ------
    CorruptTableError  no slot is valid, or one is another table's.
    """
    found = valid_headers(data, table_uuid)
    if not found:
        raise CorruptTableError("has no valid header")
    return max(found)


def valid_headers(data: bytes, table_uuid: UUID) -> list[tuple[Header, int]]:
    """Return the valid headers, each with the number of its slot; raises as `decode_headers`."""
    found = []
    for slot in range(HEADER_SLOTS):
        part = data[slot * HEADER_SLOT_BYTES : (slot + 1) * HEADER_SLOT_BYTES]
        if len(part) < HEADER_SLOT_BYTES:
            break
        magic, owner, *numbers, _ = HEADER.unpack_from(part)
        if magic == HEADER_MAGIC and part == encode_header(Header(*numbers), UUID(bytes=owner)):
            if owner != table_uuid.bytes:
                raise CorruptTableError(
                    f"is the journal of another table: its uuid is {owner.hex()}, must be "
                    f"{table_uuid.hex}"
                )
            found.append((Header(*numbers), slot))
    return found


class Layout:
    """How the old rows of some columns lie in a record.

    Ids, then the images of the first column, of the second, and so on; each part is padded with
    zeros to a multiple of 8 bytes.
    """

    def __init__(self, columns: tuple[Column, ...]) -> None:
        """Lay out these columns: those of the last commit, for later ones have nothing to undo."""
        self.columns = columns
        self.row_bytes = sum(column.row_bytes for column in columns)

    def record_bytes(self, rows: int) -> int:
        """Return the size of a record of so many rows."""
        return RECORD.size + sum(_padded(size) for size in self._sizes(rows))

    def _sizes(self, rows: int) -> list[int]:
        return [8 * rows, *(column.row_bytes * rows for column in self.columns)]

    def parts(self, record: Bytes, rows: int) -> tuple[RowArray, dict[str, FloatArray]]:
        """Return views of a record: its ids, and the images by column."""
        views: list[Bytes] = []
        at = RECORD.size
        for size in self._sizes(rows):
            views.append(record[at : at + size])
            at += _padded(size)
        images = {
            column.name: view.view(column.numpy_dtype).reshape(column.shape(rows))
            for column, view in zip(self.columns, views[1:], strict=True)
        }
        return views[0].view(np.int64), images

    def image_at(self, name: str, rows: RowArray, place: RowArray) -> RowArray:
        """Return where in records of so many rows a column's image of the row at `place` begins."""
        at = RECORD.size + _padded(8 * rows)
        for column in self.columns:
            if column.name == name:
                break
            at = at + _padded(column.row_bytes * rows)
        return at + column.row_bytes * place

    def clear_padding(self, record: Bytes, rows: int) -> None:
        """Put zeros between the parts."""
        at = RECORD.size
        for size in self._sizes(rows):
            record[at + size : at + _padded(size)] = 0
            at += _padded(size)


_Sizes = TypeVar("_Sizes", int, RowArray)


def _padded(size: _Sizes) -> _Sizes:
    return -(-size // _ALIGN) * _ALIGN


class Link(NamedTuple):
    """A place in the chain of records: the number of the next, where it begins, and a checksum."""

    number: int
    at: int
    checksum: int


START: Link = Link(0, RECORDS_AT, 0)


def seal(
    record: Bytes, rows: int, layout: Layout, table_uuid: UUID, commit: int, link: Link
) -> Link:
    """Write the head of a record whose parts are filled in; returns where the next one goes."""
    head = (table_uuid.bytes, commit, link.number, layout.row_bytes, rows, link.checksum, ROWS, 0)
    RECORD.pack_into(record.data, 0, RECORD_MAGIC, 0, *head)
    checksum = crc32(record[_CHECKED_FROM:])
    struct.pack_into("<I", record.data, len(RECORD_MAGIC), checksum)
    return Link(link.number + 1, link.at + record.size, checksum)


def record_size(head: bytes, layout: Layout, table_uuid: UUID, commit: int, link: Link) -> int:
    """Return the size of the record that begins with `head`, or 0 if it is none of this chain."""
    if len(head) < RECORD.size:
        return 0
    magic, _, owner, number_of_commit, number, row_bytes, rows, before, kind, zero = RECORD.unpack(
        head[: RECORD.size]
    )
    expected = (
        *(RECORD_MAGIC, table_uuid.bytes, commit, link.number),
        *(layout.row_bytes, link.checksum, ROWS, 0),
    )
    if (magic, owner, number_of_commit, number, row_bytes, before, kind, zero) != expected:
        return 0
    return layout.record_bytes(rows)


def check_record(record: Bytes, link: Link) -> Link | None:
    """Return where the record behind this one goes, or None if its checksum is wrong."""
    (checksum,) = struct.unpack_from("<I", record.data, len(RECORD_MAGIC))
    if crc32(record[_CHECKED_FROM:]) != checksum:
        return None
    return behind(record, link)


def behind(record: Bytes, link: Link) -> Link:
    """Return where the record behind a valid one goes."""
    (checksum,) = struct.unpack_from("<I", record.data, len(RECORD_MAGIC))
    return Link(link.number + 1, link.at + record.size, checksum)


def rows_of(record: Bytes) -> int:
    """Return the number of rows that a record holds."""
    rows: int = RECORD.unpack_from(record.data)[6]
    return rows
