"""The file of a column: made, checked and mapped, and made longer.

Must not know when any of this is safe, nor locks or commits: the order is `directory`'s.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass

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
from .pages import ColumnPages
from .store import Fill, FloatArray, initial_blocks


@dataclass(frozen=True)
class Mapped:
    """A column in the address space; `stored` is None where the table is open for reading only.

    `pages` asks for rows before they are read; None if they have no bytes.
    """

    memory: mmap.mmap
    read: FloatArray
    stored: FloatArray | None
    pages: ColumnPages | None


def write_column(
    directory: Directory, superblock: Superblock, column: Column, fill: Fill | None = None
) -> None:
    """Create a column's file with its initial rows, durably but for its name."""
    with directory.create_file(f"{column.name}.npy") as file:
        file.reserve(file_bytes(column, superblock.rows))
        file.write(encode_header(column, superblock.rows, superblock.uuid), 0)
        for first, values in initial_blocks(column, superblock.rows, fill):
            file.write_pages(values.view(np.uint8).data, HEADER_BYTES + first * column.row_bytes)
        file.sync()


def open_column(
    directory: Directory, superblock: Superblock, column: Column, *, writable: bool
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


def _check(file: File, superblock: Superblock, column: Column) -> None:
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


def map_column(file: File, column: Column, rows: int, *, writable: bool) -> Mapped:
    """Map the first rows of a column's file, which has as many."""
    memory = file.map(file_bytes(column, rows), writable=writable)
    data = memoryview(memory)[HEADER_BYTES:]
    shape = column.shape(rows)
    # Made of a read-only buffer, so that setting the WRITEABLE flag of the array fails.
    read = np.frombuffer(data.toreadonly(), column.numpy_dtype).reshape(shape)
    stored = np.frombuffer(data, column.numpy_dtype).reshape(shape) if writable else None
    pages = None
    if read.size:
        address = read.__array_interface__["data"][0] - HEADER_BYTES
        pages = ColumnPages(memory, address, HEADER_BYTES, rows, column.row_bytes)
    return Mapped(memory, read, stored, pages)


def extend_column(file: File, column: Column, rows: int, more: int) -> None:
    """Put initial rows behind the first `rows`, up to `more`, durably; the header stays."""
    file.reserve(file_bytes(column, more), file_bytes(column, rows))
    for first, values in initial_blocks(column, more, start=rows):
        file.write_pages(values.view(np.uint8).data, HEADER_BYTES + first * column.row_bytes)
    file.sync()


def settle_column(file: File, column: Column, superblock: Superblock) -> None:
    """Give a file the header and the size of the superblock's rows, durably."""
    file.cut(file_bytes(column, superblock.rows))
    file.write(encode_header(column, superblock.rows, superblock.uuid), 0)
    file.sync()
