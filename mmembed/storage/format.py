"""The bytes of a table's files: `super` and the headers of columns, to values and back.

Must not open a file or know a path: whoever reads the bytes puts the file's name before a message.
Any bytes either become a value or raise CorruptTableError. docs/format.md is this module in words.
"""

from __future__ import annotations

import json
import re
import struct
import zlib
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID, uuid4

from ..errors import CorruptTableError
from .column import MAX_BYTES, Column, check_name, whole_number
from .initial import Initial
from .records import Filed, Records

FORMAT_VERSION = 1
# Features that a reader must know.
LAZY = 1  # some column is lazy
RECORDS = 2  # the first columns lie side by side in one file
CHECKED = 4  # some column holds checksums of rows, which whoever writes rows must keep
FEATURES = LAZY | RECORDS | CHECKED  # those that this version knows
MAGIC = b"\x93MMEMB\r\n"
ENDIAN = 0x01020304
MAX_DEPTH = 50  # of metadata; what Python can parse it cannot always compare or copy
DURABILITIES = ("power", "process")  # the level's number in `super` is its place here

# magic, version, features, endian marker, bytes of JSON, uuid, epoch, step, rows, attempt, boot id,
# durability, clean, zeros, other rows, commits. The JSON follows, then zeros; the checksum ends the
# copy.
HEAD = struct.Struct("<8s4I16s4Q16sBB6x2Q")
CHECKSUM = struct.Struct("<I")
COPY_BYTES = 8192
SLOT_BYTES = 2 * COPY_BYTES  # a slot holds its copy twice
SUPER_BYTES = 2 * SLOT_BYTES
JSON_BYTES = COPY_BYTES - HEAD.size - CHECKSUM.size

HEADER_BYTES = 4096
_HEADER_START = b"\x93NUMPY\x01\x00" + struct.pack("<H", HEADER_BYTES - 10)


@dataclass(frozen=True)
class Superblock:
    """What `super` says about a table as of one commit.

    Parameters
    ----------
    uuid : which table this is; every file of it carries the same.
    epoch : number of the record; 0 is the creation. A commit takes one number, a growth two.
    step : the number that the user gave to the commit.
    rows : number of rows of every column.
    attempt : number of times the table was opened for writing, this time included.
    boot_id : the machine's boot during which the copy was written.
    durability : "power" or "process".
    clean : no writer has opened the table since its files were synced.
    other_rows : the same as `rows`, but during a growth: first the number that there will be; once
        `rows` is that number, the one that there was, which headers of columns may still have.
    commits : number of commits made. The undo journal is of the one that comes next.
    seed : the table's seed.
    columns : in the order in which they were added; the first is `weight`.
    counters : numbers by name, such as the steps of an optimizer.
    metadata : JSON of the user.
    records : the first columns, if they lie side by side in one file.

    Raises
    ------
    TypeError, ValueError  a field has the wrong type or is out of range.
    """

    uuid: UUID
    epoch: int
    step: int
    rows: int
    attempt: int
    boot_id: UUID
    durability: str
    clean: bool
    other_rows: int
    commits: int
    seed: int
    columns: tuple[Column, ...]
    counters: dict[str, int]
    metadata: dict[str, Any]
    records: Records | None = None

    @classmethod
    def first(
        cls,
        rows: int,
        weight: Column,
        seed: int,
        durability: str,
        others: tuple[Column, ...] = (),
        records: Records | None = None,
    ) -> Superblock:
        """Return what is said of a table that is being made, with a uuid of its own."""
        return cls(
            uuid=uuid4(),
            epoch=0,
            step=0,
            rows=rows,
            attempt=0,
            boot_id=UUID(int=0),
            durability=durability,
            clean=True,
            other_rows=rows,
            commits=0,
            seed=seed,
            columns=(weight, *others),
            counters={},
            metadata={},
            records=records,
        )

    def __post_init__(self) -> None:
        """Check every field."""
        for what in ("epoch", "step", "attempt", "commits", "seed"):
            whole_number(what, getattr(self, what), 0, 2**64 - 1)
        whole_number("rows", self.rows, 0, MAX_BYTES)
        whole_number("other_rows", self.other_rows, 0, MAX_BYTES)
        if self.durability not in DURABILITIES:
            raise ValueError(f"durability must be 'power' or 'process', got {self.durability!r}")
        for what, value in (("counters", self.counters), ("metadata", self.metadata)):
            if not isinstance(value, dict):
                raise TypeError(f"{what} must be a dict, got {type(value).__name__}")
        for name, count in self.counters.items():
            check_name(name)
            whole_number(f"counter {name}", count, 0, 2**64 - 1)
        if _deeper_than(MAX_DEPTH, self.metadata):
            raise ValueError(f"metadata may be nested {MAX_DEPTH} deep, and this is deeper")
        names = [column.name for column in self.columns]
        if names[:1] != ["weight"] or len(set(names)) != len(names):
            raise ValueError(f"columns must be distinct and begin with weight, got {names}")
        if self.columns[0].dim is None:
            raise ValueError("the column weight must be (rows, dim)")
        if lost := [c.name for c in self.columns if c.checks and c.checks not in names]:
            raise ValueError(f"{lost} hold checksums of columns that there are not")
        if self.records is not None:
            if self.records.columns != self.columns[: len(self.records.columns)]:
                raise ValueError("records must be of the first columns, in their order")
            if Records.name in names:
                raise ValueError(
                    f"no column can be called {Records.name!r} where that is the file of records"
                )
        for filed in self.files:
            file_bytes(filed, max(self.rows, self.other_rows))

    @property
    def files(self) -> tuple[Filed, ...]:
        """What has a file of rows: the records, if there are any, and each other column."""
        if self.records is None:
            return self.columns
        return (self.records, *self.columns[len(self.records.columns) :])

    @property
    def growing(self) -> bool:
        """Whether a growth has begun and not ended."""
        return self.other_rows != self.rows

    def column(self, name: str) -> Column | None:
        """Return the column called `name`, or None."""
        return next((column for column in self.columns if column.name == name), None)


def _deeper_than(levels: int, value: object) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels < 0 or any(_deeper_than(levels - 1, child) for child in inner)


def file_bytes(column: Filed, rows: int) -> int:
    """Return the size of a column's file; raises ValueError above 2**63 - 1 bytes."""
    size = HEADER_BYTES + rows * column.row_bytes
    # Arrays of no width have a size too, which NumPy limits alike.
    if max(size, rows * column.numpy_dtype.itemsize) > MAX_BYTES:
        raise ValueError(
            f"{rows} rows of {column.row_bytes} bytes do not fit a file (at most {MAX_BYTES} bytes)"
        )
    return size


def slot_offset(epoch: int) -> int:
    """Return where in `super` the slot of an epoch begins: even epochs first, odd ones second."""
    return SLOT_BYTES * (epoch & 1)


def encode_copy(superblock: Superblock) -> bytes:
    """Return the COPY_BYTES bytes of one copy.

    Raises
    ------
    TypeError   the metadata is not JSON.
    ValueError  columns, counters and metadata take more than JSON_BYTES bytes of JSON.
    """
    text = _encode_json(superblock)
    if len(text) > JSON_BYTES:
        raise ValueError(
            f"columns, counters and metadata take {len(text)} bytes as JSON, and `super` has room "
            f"for {JSON_BYTES}; keep longer metadata in a file of your own"
        )
    head = HEAD.pack(
        MAGIC,
        FORMAT_VERSION,
        (LAZY if any(column.lazy for column in superblock.columns) else 0)
        | (0 if superblock.records is None else RECORDS)
        | (CHECKED if any(column.checks for column in superblock.columns) else 0),
        ENDIAN,
        len(text),
        superblock.uuid.bytes,
        superblock.epoch,
        superblock.step,
        superblock.rows,
        superblock.attempt,
        superblock.boot_id.bytes,
        DURABILITIES.index(superblock.durability),
        superblock.clean,
        superblock.other_rows,
        superblock.commits,
    )
    body = (head + text).ljust(COPY_BYTES - CHECKSUM.size, b"\0")
    return body + CHECKSUM.pack(zlib.crc32(body))


def as_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """Return what JSON makes of metadata; raises TypeError or ValueError if that is nothing."""
    try:
        result: dict[str, Any] = json.loads(json.dumps(metadata, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        kind = TypeError if isinstance(error, TypeError) else ValueError
        raise kind(f"metadata must be JSON: {error}") from None
    return result


def _encode_json(superblock: Superblock) -> bytes:
    document: dict[str, Any] = {
        "columns": [
            {
                "name": column.name,
                "dtype": column.dtype,
                "dim": column.dim,
                "init": str(column.init),
                "seed": column.seed,
                **({"lazy": True} if column.lazy else {}),
            }
            for column in superblock.columns
        ],
        "counters": superblock.counters,
        "metadata": superblock.metadata,
        "seed": superblock.seed,
    }
    if (records := superblock.records) is not None:
        document["records"] = {"columns": len(records.columns), "stride": records.stride}
    return json.dumps(document, separators=(",", ":"), allow_nan=False).encode("ascii")


def decode_copy(data: bytes) -> Superblock:
    """Return the value of one copy: the inverse of `encode_copy`.

    Raises
    ------
    CorruptTableError  `data` is not what `encode_copy` returns for any value.
    """
    if len(data) != COPY_BYTES:
        raise CorruptTableError(f"a copy has {COPY_BYTES} bytes, got {len(data)}")
    magic, version, features, endian, json_bytes, table_uuid, *numbers = HEAD.unpack_from(data)
    if magic != MAGIC:
        raise CorruptTableError(f"begins with {magic!r}, a table with {MAGIC!r}")
    if endian != ENDIAN:
        raise CorruptTableError(f"endian marker is {endian:#010x}, must be {ENDIAN:#010x}")
    if version != FORMAT_VERSION:
        raise CorruptTableError(
            f"format version is {version}, and this mmembed reads {FORMAT_VERSION}; use its like"
        )
    body, (checksum,) = data[: -CHECKSUM.size], CHECKSUM.unpack(data[-CHECKSUM.size :])
    if zlib.crc32(body) != checksum:
        raise CorruptTableError(
            f"checksum is {checksum:#010x}, its bytes give {zlib.crc32(body):#010x}"
        )
    if features & ~FEATURES:
        raise CorruptTableError(f"needs features {features:#x}, which this mmembed does not know")
    if json_bytes > JSON_BYTES:
        raise CorruptTableError(f"has {json_bytes} bytes of JSON, at most {JSON_BYTES} fit")
    try:
        superblock = _decode_fields(table_uuid, numbers, data[HEAD.size : HEAD.size + json_bytes])
        canonical = encode_copy(superblock)
    except KeyError as error:
        raise CorruptTableError(f"its JSON lacks the key {error}") from None
    except (TypeError, ValueError, RecursionError) as error:
        raise CorruptTableError(f"a field is not valid: {error}") from None
    if canonical != data:
        at = next(i for i in range(COPY_BYTES) if canonical[i] != data[i])
        raise CorruptTableError(f"byte {at} is {data[at]:#04x}, must be {canonical[at]:#04x}")
    return superblock


def _decode_fields(table_uuid: bytes, numbers: list[Any], text: bytes) -> Superblock:
    """Build the value; raises KeyError, TypeError, ValueError or RecursionError."""
    epoch, step, rows, attempt, boot_id, durability, clean, other_rows, commits = numbers
    if durability >= len(DURABILITIES):
        raise ValueError(f"durability level is {durability}, there are {len(DURABILITIES)}")
    document = json.loads(text.decode("ascii"))
    columns = tuple(
        Column(
            *(c["name"], c["dtype"], c["dim"], Initial.parse(c["init"]), c["seed"]),
            lazy=c.get("lazy", False),
        )
        for c in document["columns"]
    )
    return Superblock(
        uuid=UUID(bytes=table_uuid),
        epoch=epoch,
        step=step,
        rows=rows,
        attempt=attempt,
        boot_id=UUID(bytes=boot_id),
        durability=DURABILITIES[durability],
        clean=bool(clean),
        other_rows=other_rows,
        commits=commits,
        seed=document["seed"],
        columns=columns,
        counters=document["counters"],
        metadata=document["metadata"],
        records=_decode_records(document.get("records"), columns),
    )


def read_copies(data: bytes) -> list[tuple[int, Superblock | CorruptTableError | None]]:
    """Return where each copy stands and what it is: a value, what is wrong, None if never used."""
    read: list[tuple[int, Superblock | CorruptTableError | None]] = []
    for offset in range(0, SUPER_BYTES, COPY_BYTES):
        part = data[offset : offset + COPY_BYTES]
        try:
            copy = decode_copy(part)
            if copy.epoch & 1 != offset // SLOT_BYTES:
                slot = "even" if offset < SLOT_BYTES else "odd"
                raise CorruptTableError(f"epoch {copy.epoch} stands in the slot of {slot} epochs")
            read.append((offset, copy))
        except CorruptTableError as error:
            read.append((offset, error if any(part) else None))
    return read


def _decode_records(said: Any, columns: tuple[Column, ...]) -> Records | None:
    if said is None:
        return None
    count = whole_number("columns of records", said["columns"], 1, len(columns))
    return Records(columns[:count], said["stride"])


def decode_super(data: bytes) -> Superblock:
    """Return the valid copy of the highest epoch; among its copies "not clean" wins.

    Raises
    ------
    CorruptTableError  the size is wrong, no copy is valid, or valid copies contradict each other.
    """
    if len(data) != SUPER_BYTES:
        raise CorruptTableError(f"has {len(data)} bytes, must have {SUPER_BYTES}")
    read = read_copies(data)
    copies = [copy for _, copy in read if isinstance(copy, Superblock)]
    if not copies:
        faults = [f"at byte {at}: {why}" for at, why in read if why is not None]
        raise CorruptTableError(f"no valid copy; {faults[0] if faults else 'all bytes are zero'}")
    newest = [copy for copy in copies if copy.epoch == max(c.epoch for c in copies)]
    if len({copy.uuid for copy in copies}) > 1:
        raise CorruptTableError("its copies carry different uuids")
    if any(_committed(copy) != _committed(newest[0]) for copy in newest):
        raise CorruptTableError(f"its copies of epoch {newest[0].epoch} contradict each other")
    return max(newest, key=lambda copy: (not copy.clean, copy.attempt))


def _committed(copy: Superblock) -> Superblock:
    """Return the copy without the fields that are rewritten between commits."""
    return replace(copy, attempt=0, boot_id=UUID(int=0), clean=False, other_rows=copy.rows)


def encode_header(column: Filed, rows: int, table_uuid: UUID) -> bytes:
    """Return the HEADER_BYTES bytes before a column's rows: an .npy 1.0 header with a label.

    NumPy ignores the label, which is a comment in the literal that the header is.
    """
    # To NumPy bfloat16 is any two bytes; of records, `super` alone says which fields are such.
    bfloat16 = not isinstance(column, Records) and column.numpy_dtype.kind == "V"
    kind = "dtype=bfloat16 " if bfloat16 else ""
    text = (
        f"{{'descr': {column.descr!r}, 'fortran_order': False, 'shape': {column.shape(rows)}, }} "
        f"# mmembed {FORMAT_VERSION} uuid={table_uuid.hex} role={column.name} {kind}crc="
    ).encode("ascii")
    start = _HEADER_START + text
    blank = (start + b"00000000").ljust(HEADER_BYTES - 1) + b"\n"
    return start + b"%08x" % zlib.crc32(blank) + blank[len(start) + 8 :]


def is_header(found: bytes, column: Filed, superblock: Superblock) -> bool:
    """Return whether `found` may stand before a column's rows.

    During a growth every byte may be that of the old header or of the new one: the header is
    rewritten in place, and what a reader or a loss of power finds of a write can be a part.
    """
    header = encode_header(column, superblock.rows, superblock.uuid)
    if found == header or not superblock.growing or len(found) != HEADER_BYTES:
        return found == header
    other = encode_header(column, superblock.other_rows, superblock.uuid)
    return all(byte in two for byte, *two in zip(found, header, other, strict=True))


# What a header says, for messages only: how to find it, and how to speak of it.
_SAID = (
    (rb"uuid=(\w{1,64})", "is of another table: its uuid is"),
    (rb"role=([\w.]{1,200})", "holds another column: its role is"),
    (rb"'descr': ('[^']{1,20}'|\[[^\]]{1,4000}\])", "holds another dtype:"),
    (rb"'fortran_order': (\w{1,10})", "has its numbers in another order: fortran_order is"),
    (rb"'shape': (\([\d, ]{0,60}\))", "has another shape:"),
    (rb"# mmembed (\d{1,10})", "is of another format version:"),
)


def explain_header(found: bytes, expected: bytes) -> str:
    """Return what differs between a header as found and as it must be; they are not equal."""
    if found[: len(_HEADER_START)] != _HEADER_START:
        return f"begins with {found[: len(_HEADER_START)]!r}, must begin with {_HEADER_START!r}"
    for pattern, says in _SAID:
        there, wanted = re.search(pattern, found), re.search(pattern, expected)
        if there and wanted and there[1] != wanted[1]:
            return f"{says} {there[1].decode('latin-1')}, must be {wanted[1].decode('latin-1')}"
    at = next(
        (i for i, byte in enumerate(expected) if found[i : i + 1] != bytes([byte])), len(found)
    )
    byte, wanted_byte = found[at : at + 1], expected[at : at + 1]
    return f"has a damaged header: byte {at} is {byte!r}, must be {wanted_byte!r}"
