"""The bytes of a delta: what changed in a table from one commit to another, in a file of its own.

Must not know tables, or when a delta may be applied. docs/format.md is this module in words.

A head, a copy of `super` as of the later commit, then records as in the journal: here they hold
rows as they are at that commit. The first record's link is the checksum of the copy, so records and
copy belong together as the records do among themselves.
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import replace
from typing import NamedTuple
from uuid import UUID

from ..errors import CorruptTableError
from .changes_format import Name
from .files import File
from .format import COPY_BYTES, Superblock, decode_copy, encode_copy
from .journal_format import Layout, Link, rows_of
from .recovery import read_records

MAGIC = b"MMEMDLTA"
VERSION = 1
# magic, version, zero; commit, run and number of the name of the base; run and number of the name
# of the later commit; number of records, rows and bytes; checksum of all before it
HEAD = struct.Struct("<8s2IQ16sQ16sQ3QI")
COPY_AT = 4096
RECORDS_AT = COPY_AT + COPY_BYTES


class Delta(NamedTuple):
    """What a delta says of itself.

    Attributes
    ----------
    since : the number of the base's commit in the table that the delta is of.
    base, name : which commit it starts from, and which one it leads to.
    superblock : the later commit.
    records, rows, bytes : how much of each it has.
    """

    since: int
    base: Name
    name: Name
    superblock: Superblock
    records: int
    rows: int
    bytes: int

    def start(self) -> Link:
        """Return where the first record goes."""
        return start(self.superblock)


def start(superblock: Superblock) -> Link:
    """Return where the first record of a delta to this commit goes."""
    return Link(0, RECORDS_AT, zlib.crc32(encode_copy(superblock)))


def encode_head(delta: Delta) -> bytes:
    """Return the RECORDS_AT bytes before the records."""
    body = HEAD.pack(
        *(MAGIC, VERSION, 0, delta.since),
        *(delta.base.run.bytes, delta.base.number, delta.name.run.bytes, delta.name.number),
        *(delta.records, delta.rows, delta.bytes, 0),
    )[:-4]
    copy = encode_copy(delta.superblock)
    checksum = zlib.crc32(copy, zlib.crc32(body))
    return (body + struct.pack("<I", checksum)).ljust(COPY_AT, b"\0") + copy


def decode_head(data: bytes) -> Delta:
    """Return what the first RECORDS_AT bytes of a delta say.

    Raises
    ------
    CorruptTableError  they are not what `encode_head` returns for any delta.
    """
    if len(data) < RECORDS_AT or not data.startswith(MAGIC):
        raise CorruptTableError("is not a delta, or has no whole head")
    _, version, _, since, base, base_number, run, number, records, rows, size, _ = HEAD.unpack_from(
        data
    )
    if version != VERSION:
        raise CorruptTableError(f"has version {version}, and this mmembed reads {VERSION}")
    try:
        superblock = decode_copy(data[COPY_AT:RECORDS_AT])
    except CorruptTableError as error:
        raise CorruptTableError(f"is damaged: its copy of `super` {error}") from None
    names = Name(UUID(bytes=base), base_number), Name(UUID(bytes=run), number)
    delta = Delta(since, *names, superblock, records, rows, size)
    if encode_head(delta) != data[:RECORDS_AT]:
        raise CorruptTableError("is damaged: its head is not what its checksum says")
    return delta


def checked_delta(file: File) -> Delta:
    """Read the whole file, and return what it says.

    Raises
    ------
    CorruptTableError  a byte of it is not as it was written, or some are missing.
    """
    try:
        delta = decode_head(file.read(RECORDS_AT, 0))
        if file.size() != delta.bytes:
            raise CorruptTableError(
                f"has {file.size()} bytes, must have {delta.bytes}: it is truncated or extended"
            )
        layout, superblock = Layout(delta.superblock.columns), delta.superblock
        found = rows = 0
        before = -1
        records = read_records(file, layout, superblock, superblock.commits, delta.start())
        for link, record in records:
            ids, _ = layout.parts(record, rows_of(record))
            ascending = ids.size and before < ids[0] and (ids[1:] > ids[:-1]).all()
            if not ascending or ids[-1] >= superblock.rows:
                raise CorruptTableError(f"is damaged: the rows of record {link.number} cannot be")
            found, rows, before = found + 1, rows + ids.size, int(ids[-1])
            end = link.at + record.size
        if (found, rows) != (delta.records, delta.rows) or (found and end != delta.bytes):
            raise CorruptTableError(f"is damaged: {found} of its {delta.records} records are whole")
    except CorruptTableError as error:
        raise CorruptTableError(f"{file.path} {error}") from None
    return delta


def as_target(superblock: Superblock) -> Superblock:
    """Return a superblock without what belongs to one directory alone."""
    zero = UUID(int=0)
    return replace(superblock, attempt=0, boot_id=zero, clean=True, other_rows=superblock.rows)
