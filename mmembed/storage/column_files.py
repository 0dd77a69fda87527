"""The file of a column, or of records: made, checked and mapped, and made longer.

Must not know when any of this is safe, nor locks or commits: the order is `directory`'s.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import CorruptTableError
from .column import Column
from .files import Directory, File
from .format import (
    HEADER_BYTES,
    Superblock,
    encode_header,
    explain_header,
    file_bytes,
    is_header,
)
from .lazy import LazyColumn, create_bits
from .pages import ColumnPages
from .records import Filed, Records
from .store import BLOCK_BYTES, Fill, FloatArray, initial_blocks
from .unwritten import Unwritten


@dataclass(frozen=True)
class Mapped:
    """A column in the address space; `stored` is None where the table is open for reading only.

    `file` is the name of its file. `pages` asks for rows before they are read; None if they have no
    bytes. Columns in records have one map, and one `pages`, in common. `unwritten` tells
    which rows `read` does not have; None if it has all. `lazy` makes room for those that are
    stored; None if there is room for all.
    """

    memory: mmap.mmap
    read: FloatArray
    stored: FloatArray | None
    pages: ColumnPages | None
    file: str
    unwritten: Unwritten | None = None
    lazy: LazyColumn | None = None


def write_column(
    directory: Directory, superblock: Superblock, column: Filed, fill: Fill | None = None
) -> None:
    """Create a column's file with its initial rows, durably but for its name.

    Of a lazy column there are no rows yet, and the file has no room for them.
    """
    with directory.create_file(f"{column.name}.npy") as file:
        if isinstance(column, Column) and column.lazy:
            file.extend(file_bytes(column, superblock.rows))
            file.write(encode_header(column, superblock.rows, superblock.uuid), 0)
            file.sync()
            if column.has_bits:
                create_bits(directory, superblock, column)
            return
        file.reserve(file_bytes(column, superblock.rows))
        file.write(encode_header(column, superblock.rows, superblock.uuid), 0)
        for first, values in _blocks(column, superblock.rows, fill):
            file.write_pages(values.view(np.uint8).data, HEADER_BYTES + first * column.row_bytes)
        file.sync()


def _blocks(
    column: Filed, rows: int, fill: Fill | None = None, start: int = 0
) -> Iterator[tuple[int, FloatArray]]:
    """Yield what `initial_blocks` does; where there are records, `fill` gets those of `weight`."""
    if isinstance(column, Records):
        return _record_blocks(column, rows, fill, start)
    return initial_blocks(column, rows, fill, start)


def _record_blocks(
    records: Records, rows: int, fill: Fill | None, start: int
) -> Iterator[tuple[int, Any]]:
    block = max(1, BLOCK_BYTES // records.stride)
    # Zeros between the fields, for good.
    buffer: Any = np.zeros(min(block, rows - start), records.numpy_dtype)
    for first in range(start, rows, block):
        values = buffer[: min(block, rows - first)]
        for field in records.columns:
            own: FloatArray = np.empty(field.shape(len(values)), field.numpy_dtype)
            field.init.fill(own, first, field.seed)
            if fill is not None and field.name == "weight":
                fill(first, own)
            values[field.name] = own
        yield first, values


def remove_column(directory: Directory, name: str) -> None:
    """Remove the names of a column's files, if they are there."""
    directory.remove_file(f"{name}.npy")
    directory.remove_file(f"{name}.bits")


def open_column(
    directory: Directory, superblock: Superblock, column: Filed, *, writable: bool
) -> File:
    """Open a column's file and check it against what the superblock says of it.

    Raises
    ------
    CorruptTableError  its header or its size is wrong. During a growth, either header and any size
        from that of the present rows to that of the larger number will do.
    """
    file = directory.open_file(f"{column.name}.npy", writable=writable)
    try:
        _check(file, superblock, column)
    except BaseException:
        file.close()
        raise
    return file


def _check(file: File, superblock: Superblock, column: Filed) -> None:
    found = file.read(HEADER_BYTES, 0)
    if len(found) == HEADER_BYTES and not is_header(found, column, superblock):
        expected = encode_header(column, superblock.rows, superblock.uuid)
        raise CorruptTableError(f"{file.path} {explain_header(found, expected)}")
    least = file_bytes(column, superblock.rows)
    most = file_bytes(column, max(superblock.rows, superblock.other_rows))
    size = file.size()
    if not least <= size <= most:
        raise CorruptTableError(
            f"{file.path} is {'truncated' if size < least else 'too long'}: it has "
            f"{size} bytes; {superblock.rows} rows of {column.row_bytes} bytes after a "
            f"header of {HEADER_BYTES} make {least}"
        )


def map_column(
    file: File,
    column: Filed,
    rows: int,
    *,
    writable: bool,
    lazy: LazyColumn | None = None,
    unwritten: Unwritten | None = None,
) -> Mapped:
    """Map the first rows of a column's file, which has as many."""
    if lazy is not None:
        unwritten = lazy.unwritten
    memory = file.map(file_bytes(column, rows), writable=writable)
    data = memoryview(memory)[HEADER_BYTES:]
    shape = column.shape(rows)
    # Made of a read-only buffer, so that setting the WRITEABLE flag of the array fails.
    read = np.frombuffer(data.toreadonly(), column.numpy_dtype).reshape(shape)
    stored = np.frombuffer(data, column.numpy_dtype).reshape(shape) if writable else None
    pages = None
    if read.size:
        address = read.__array_interface__["data"][0] - HEADER_BYTES
        pages = ColumnPages(memory, address, HEADER_BYTES, rows, column.row_bytes, unwritten)
    return Mapped(memory, read, stored, pages, f"{column.name}.npy", unwritten, lazy)


def by_name(mapped: Mapped, column: Filed) -> dict[str, Mapped]:
    """Return the columns that are in a mapped file: strided views of it, if it has records."""
    if not isinstance(column, Records):
        return {column.name: mapped}
    read: Any = mapped.read
    stored: Any = mapped.stored
    return {
        field.name: replace(
            mapped,
            read=read[field.name],
            stored=None if stored is None else stored[field.name],
        )
        for field in column.columns
    }


def extend_column(
    file: File, column: Filed, rows: int, more: int, lazy: LazyColumn | None = None
) -> None:
    """Put initial rows behind the first `rows`, up to `more`, durably; the header stays.

    Of a lazy column the files only become longer.
    """
    if lazy is not None:
        lazy.extend(more)
        return
    file.reserve(file_bytes(column, more), file_bytes(column, rows))
    for first, values in _blocks(column, more, start=rows):
        file.write_pages(values.view(np.uint8).data, HEADER_BYTES + first * column.row_bytes)
    file.sync()


def settle_column(
    file: File, column: Filed, superblock: Superblock, lazy: LazyColumn | None = None
) -> None:
    """Give a file the header and the size of the superblock's rows, durably."""
    if lazy is not None:
        lazy.cut(superblock.rows)
    file.cut(file_bytes(column, superblock.rows))
    file.write(encode_header(column, superblock.rows, superblock.uuid), 0)
    file.sync()
