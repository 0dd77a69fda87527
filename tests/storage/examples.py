"""One superblock with its bytes, and tools to look at a table's files and to damage them."""

from __future__ import annotations

import hashlib
import os
import pathlib
import stat
import struct
import zlib
from uuid import UUID

import numpy as np

from mmembed.storage import Table
from mmembed.storage.column import Column
from mmembed.storage.format import CHECKSUM, COPY_BYTES, HEADER_BYTES, SUPER_BYTES, Superblock
from mmembed.storage.initial import Initial
from mmembed.storage.journal_format import (
    RECORDS_AT,
    START,
    Header,
    Layout,
    encode_header,
    seal,
)

EXAMPLE = Superblock(
    uuid=UUID("00112233-4455-6677-8899-aabbccddeeff"),
    epoch=3,
    step=1000,
    rows=5,
    attempt=2,
    boot_id=UUID("a0a1a2a3-a4a5-a6a7-a8a9-aaabacadaeaf"),
    durability="power",
    clean=True,
    other_rows=5,
    commits=3,
    seed=7,
    columns=(
        Column("weight", "float32", 3, Initial("normal", 0.0, 0.02), 7),
        Column("weight.adagrad.sum", "float32", None, Initial("constant", 0.0), 99),
    ),
    counters={"weight.adagrad.step": 41},
    metadata={"note": "é"},
)

# The same, by hand from docs/format.md; not made by the code under test.
EXAMPLE_HEAD = bytes.fromhex(
    "93 4d 4d 45 4d 42 0d 0a"  # magic
    "01 00 00 00"  # format version
    "00 00 00 00"  # features
    "04 03 02 01"  # endian marker
    "fd 00 00 00"  # bytes of JSON
    "00 11 22 33 44 55 66 77 88 99 aa bb cc dd ee ff"  # uuid
    "03 00 00 00 00 00 00 00"  # epoch
    "e8 03 00 00 00 00 00 00"  # step
    "05 00 00 00 00 00 00 00"  # rows
    "02 00 00 00 00 00 00 00"  # attempt
    "a0 a1 a2 a3 a4 a5 a6 a7 a8 a9 aa ab ac ad ae af"  # boot id
    "00 01"  # durability, clean
    "00 00 00 00 00 00"
    "05 00 00 00 00 00 00 00"  # other rows
    "03 00 00 00 00 00 00 00"  # commits
)
EXAMPLE_JSON = (
    b'{"columns":[{"name":"weight","dtype":"float32","dim":3,"init":"normal(0.0, 0.02)","seed":7},'
    b'{"name":"weight.adagrad.sum","dtype":"float32","dim":null,"init":"zeros","seed":99}],'
    b'"counters":{"weight.adagrad.step":41},"metadata":{"note":"\\u00e9"},"seed":7}'
)
EXAMPLE_HEADER = (
    b"\x93NUMPY\x01\x00\xf6\x0f"
    b"{'descr': '<f4', 'fortran_order': False, 'shape': (5, 3), } "
    b"# mmembed 1 uuid=00112233445566778899aabbccddeeff role=weight crc="
)


def example_journal() -> bytes:
    """The journal of EXAMPLE after one record: rows 0 and 4, as commit 3 left them."""
    layout = Layout(EXAMPLE.columns)
    record = np.zeros(layout.record_bytes(2), np.uint8)
    ids, images = layout.parts(record, 2)
    ids[...] = [0, 4]
    images["weight"][...] = [[1, 2, 3], [4, 5, 6]]
    images["weight.adagrad.sum"][...] = [0.5, 0.25]
    seal(record, 2, layout, EXAMPLE.uuid, EXAMPLE.commits + 1, START)
    begun, confirmed = (
        encode_header(Header(EXAMPLE.commits + 1, EXAMPLE.attempt, n), EXAMPLE.uuid) for n in (0, 1)
    )
    return (begun + confirmed).ljust(RECORDS_AT, b"\0") + record.tobytes()


def small_table(path: pathlib.Path) -> pathlib.Path:
    """Make a table of 5 rows of 3 with a scalar column and two commits, and close it."""
    with Table.create(path, 5, 3, seed=1) as table:
        table.add_column("count", scalar=True)
        table.commit(step=6)
        table.write([0, 4], [[1, 2, 3], [4, 5, 6]])
        table.commit(step=7, metadata={"note": "small"})
    return path


def numbered_table(place: pathlib.Path | None) -> Table:
    """Make a table of 5 rows of 3: row r is r, r + 0.25, r + 0.5."""
    table = Table.create(place, 5, 3, init="zeros")
    table.write(range(5), np.arange(5)[:, None] + [0, 0.25, 0.5])
    return table


def sealed(body: bytes) -> bytes:
    """A copy of `super` with these bytes, zeros, and a checksum that fits."""
    body = body.ljust(COPY_BYTES - CHECKSUM.size, b"\0")
    return body + struct.pack("<I", zlib.crc32(body))


def resealed_header(header: bytes) -> bytes:
    """A column's header with these fields and a checksum that fits."""
    text = header.rstrip().rpartition(b" crc=")[0] + b" crc="
    blank = (text + b"0" * 8).ljust(HEADER_BYTES - 1) + b"\n"
    return text + b"%08x" % zlib.crc32(blank) + blank[len(text) + 8 :]


def change_copies(path: pathlib.Path, change) -> None:
    """Apply `change` to the body of every copy that is in use, and seal it again."""
    data = bytearray((path / "super").read_bytes())
    for offset in range(0, SUPER_BYTES, COPY_BYTES):
        body = bytes(data[offset : offset + COPY_BYTES - CHECKSUM.size])
        if any(body):
            data[offset : offset + COPY_BYTES] = sealed(change(body))
    (path / "super").write_bytes(data)


def change_json(path: pathlib.Path, old: bytes, new: bytes) -> None:
    """Replace text in the JSON of every copy, and keep its length field and checksum right."""

    def change(body):
        length = struct.unpack_from("<I", body, 20)[0]
        text = body[112 : 112 + length].replace(old, new)
        assert text != body[112 : 112 + length]
        return body[:20] + struct.pack("<I", len(text)) + body[24:112] + text

    change_copies(path, change)


def contents(path: pathlib.Path) -> dict[str, object]:
    """Everything in a directory: names, kinds, modes, and digests of files."""
    found: dict[str, object] = {}
    for entry in sorted(os.scandir(path), key=lambda entry: entry.name):
        status = entry.stat(follow_symlinks=False)
        found[entry.name] = (status.st_mode, status.st_size)
        if stat.S_ISREG(status.st_mode) and status.st_size < 2**24:
            digest = hashlib.sha256(pathlib.Path(entry.path).read_bytes()).hexdigest()
            found[entry.name] = (status.st_mode, digest)
    return found


def hexdump(data: bytes) -> str:
    """The lines of `data` that are not all zero, 16 bytes each: offset, hex, text."""
    lines = []
    for at in range(0, len(data), 16):
        line = data[at : at + 16]
        if any(line):
            text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in line)
            lines.append(f"{at:04x}  {line.hex(' ')}  {text}")
    return "\n".join(lines)
