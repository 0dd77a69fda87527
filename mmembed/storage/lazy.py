"""The writer's side of a lazy column: room for blocks, their first values, and the file of bits.

Must not know the journal, commits, or when any of this is safe: the order is `directory`'s. It is
this: room (`reserve`), the journal, values (`write_blocks`), the user's store; at a commit the
column is synced, and then the bits are written (`record`), before `super` is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from ..errors import CorruptTableError
from .bits_format import (
    BITS_AT,
    bits_file_bytes,
    blocks_of,
    encode_bits_header,
    name_of_bits,
)
from .column import Column
from .files import Directory, File, Identity
from .format import HEADER_BYTES, Superblock
from .store import BLOCK_BYTES, FloatArray, RowArray
from .unwritten import Blocks, Unwritten

PAGE = 4096  # in which a file has room, and bits are written


def create_bits(directory: Directory, superblock: Superblock, column: Column) -> None:
    """Create the file of bits of a new column, durably but for its name."""
    with directory.create_file(name_of_bits(column)) as file:
        file.extend(bits_file_bytes(column, superblock.rows))
        file.write(encode_bits_header(column, superblock.uuid), 0)
        file.sync()


def open_bits(
    directory: Directory, superblock: Superblock, column: Column, *, writable: bool
) -> File:
    """Open a column's file of bits and check it against the superblock.

    Raises
    ------
    CorruptTableError  its header or size is wrong, or it has bits of blocks that are not there.
    """
    file = directory.open_file(name_of_bits(column), writable=writable)
    try:
        if file.read(BITS_AT, 0) != encode_bits_header(column, superblock.uuid):
            raise CorruptTableError(
                f"{file.path} has a wrong header: it is damaged, or of another table or column"
            )
        least = bits_file_bytes(column, superblock.rows)
        most = bits_file_bytes(column, max(superblock.rows, superblock.other_rows))
        size = file.size()
        if not least <= size <= most:
            raise CorruptTableError(
                f"{file.path} has {size} bytes; {superblock.rows} rows make {least}"
            )
        beyond = blocks_of(column, superblock.rows) % 8
        last = file.read(1, least - 1)[0] if beyond else 0
        if last >> beyond:
            raise CorruptTableError(f"{file.path} says that rows are written which are not there")
    except BaseException:
        file.close()
        raise
    return file


def unwritten_for_reading(
    directory: Directory, superblock: Superblock, column: Column
) -> Unwritten | None:
    """Map the bits for reading: what the writer records is seen. None if all reads well."""
    if not column.has_bits:
        return None
    with open_bits(directory, superblock, column, writable=False) as file:
        memory = file.map(bits_file_bytes(column, superblock.rows), writable=False)
    bits = np.frombuffer(memory, np.uint8)[BITS_AT:]
    return Unwritten(column, Blocks(column, superblock.rows, bits))


class LazyColumn:
    """A lazy column that is open for writing.

    Parameters
    ----------
    column, rows : the column, and how many rows it has.
    data : its file.
    bits : the file of bits; None if the column needs none. Both are this object's from here on.

    Attributes
    ----------
    unwritten : what readers must know; None if holes of the file read as the initial values.
    """

    def __init__(self, column: Column, rows: int, data: File, bits: File | None) -> None:
        """Take over the files."""
        self.column = column
        self.unwritten: Unwritten | None = None
        self._data = data
        self._bits = bits
        self._room = Blocks.none(column, rows)
        if bits is not None:
            found = bits.read(bits_file_bytes(column, rows) - BITS_AT, BITS_AT)
            self.unwritten = Unwritten(column, Blocks.none(column, rows))
            for blocks in (self.unwritten.written, self._room):
                blocks.bits[:] = np.frombuffer(found, np.uint8)
        self._bits_room: set[int] = set()  # pages of the file of bits
        self._changed: set[int] = set()  # pages of it that must be written
        self._unsynced = True

    @classmethod
    def open(cls, directory: Directory, superblock: Superblock, column: Column) -> LazyColumn:
        """Open the files of a column for writing; the column's own is checked already."""
        bits = None
        if column.has_bits:
            bits = open_bits(directory, superblock, column, writable=True)
        try:
            data = directory.open_file(f"{column.name}.npy", writable=True)
        except BaseException:
            if bits is not None:
                bits.close()
            raise
        return cls(column, superblock.rows, data, bits)

    def close(self) -> None:
        """Close the files; a second time is harmless."""
        self._data.close()
        if self._bits is not None:
            self._bits.close()

    @property
    def identity(self) -> Identity | None:
        """The identity of the file of bits, if there is one."""
        return None if self._bits is None else self._bits.identity()

    @property
    def rows(self) -> int:
        """How many rows the column has."""
        return self._room.rows

    # -- before rows are changed -------------------------------------------------------------------

    def reserve(self, rows: RowArray | None) -> None:
        """Find room on the disk for the blocks of rows (ascending; None: all).

        Raises
        ------
        OSError  there is not enough; no row has changed.
        """
        if rows is None:  # else the disk would be full before this fails
            wanted = (self._ranges(blocks)[1].sum() for blocks in self._missing(self._room, None))
            self._data.check_free(int(sum(wanted)))
        for blocks in self._missing(self._room, rows):
            starts, sizes = self._ranges(blocks)
            self._data.allocate(starts.tolist(), sizes.tolist())
            if self._bits is not None:
                self._reserve_bits(blocks)
            self._room.add(blocks)

    def _ranges(self, blocks: RowArray) -> tuple[RowArray, RowArray]:
        """Return where pages with the bytes of blocks (ascending) begin, and their sizes."""
        shift, width = self.column.block_shift, self.column.row_bytes
        starts = (HEADER_BYTES + (blocks << shift) * width) // PAGE
        stops = np.minimum((blocks + 1) << shift, self.rows) * width + HEADER_BYTES
        stops = -(-stops // PAGE)
        first = np.flatnonzero(np.concatenate([[True], starts[1:] > stops[:-1]]))
        last = np.append(first[1:], blocks.size) - 1
        # No page beyond the end: it would make the file longer.
        end = HEADER_BYTES + self.rows * width
        begins = starts[first] * PAGE
        return begins, np.minimum(stops[last] * PAGE, end) - begins

    def _reserve_bits(self, blocks: RowArray) -> None:
        assert self._bits is not None
        size = bits_file_bytes(self.column, self.rows)
        pages = np.unique((BITS_AT + (blocks >> 3)) // PAGE).tolist()
        wanted = [page for page in pages if page not in self._bits_room]
        self._bits.allocate(
            [page * PAGE for page in wanted],
            [min(PAGE, size - page * PAGE) for page in wanted],
        )
        self._bits_room.update(wanted)

    def write_blocks(self, rows: RowArray | None, array: FloatArray) -> None:
        """Put the initial values into the blocks of rows that have none; there is room for them.

        `array` : the column's, to be written.
        """
        if self.unwritten is None:
            return
        written = self.unwritten.written
        for blocks in self._missing(written, rows):
            for some in _portions(blocks, self.column):
                ids = self._rows_in(some)
                array[ids] = self.unwritten.values(ids)
            self._add_written(blocks)

    def _rows_in(self, blocks: RowArray) -> RowArray:
        shift = self.column.block_shift
        ids = ((blocks << shift)[:, None] + np.arange(1 << shift)).reshape(-1)
        return ids[: ids.size - max(0, int(ids[-1]) + 1 - self.rows)] if ids.size else ids

    def _add_written(self, blocks: RowArray) -> None:
        assert self.unwritten is not None
        # In this order: an interrupt must not leave a bit that is on and never recorded.
        self._changed.update(np.unique((BITS_AT + (blocks >> 3)) // PAGE).tolist())
        self.unwritten.written.add(blocks)

    def _missing(self, there: Blocks, rows: RowArray | None) -> Iterator[RowArray]:
        """Yield the blocks of rows (ascending; None: all) that are not in a set, ascending."""
        if rows is not None:
            places = there.lacking(rows)
            if places.size:
                blocks = rows[places] >> self.column.block_shift
                yield blocks[np.concatenate([[True], blocks[1:] != blocks[:-1]])]
            return
        following = 0
        while True:
            blocks, following = there.all_lacking(following)
            if blocks.size:
                yield blocks
            if not following:
                return

    # -- putting rows back -------------------------------------------------------------------------

    def to_put_back(self, ids: RowArray, image: FloatArray, array: FloatArray) -> RowArray:
        """Return the places of ids whose old rows, `image`, must be stored in `array`.

        The others need no store, for which the disk may have no room: blocks whose bit is off have
        no place in the file, and the image is the initial value; without bits, a row that is what
        it was is left alone, for it may be in a hole.
        """
        if self.unwritten is not None:
            keep = np.ones(ids.size, bool)
            keep[self.unwritten.of(ids)] = False
            return np.flatnonzero(keep)
        now, then = (np.ascontiguousarray(rows) for rows in (array[ids], image))
        differs = now.view(np.uint8).reshape(ids.size, -1) != then.view(np.uint8).reshape(
            ids.size, -1
        )
        return np.flatnonzero(differs.any(axis=1))

    # -- the file of bits --------------------------------------------------------------------------

    def record(self, *, sync: bool) -> None:
        """Write the bits that went on; the rows in those blocks are where they must be by now."""
        if self._bits is None:
            return
        assert self.unwritten is not None
        for page in sorted(self._changed):
            at = page * PAGE - BITS_AT
            self._bits.write(self.unwritten.written.bits[at : at + PAGE].data, page * PAGE)
            self._unsynced = True
        self._changed.clear()
        if sync:
            self.sync()

    def sync(self) -> None:
        """Return when the bits that were written are on the disk."""
        if self._bits is not None and self._unsynced:
            self._bits.sync()
            self._unsynced = False

    # -- all rows ----------------------------------------------------------------------------------

    def materialize(self, progress: Callable[[int], object]) -> None:
        """Write all rows that are not written, durably; `progress` is told of bytes, in portions.

        Raises
        ------
        OSError  there is not enough room; what was written so far stays written.
        """
        self.reserve(None)
        if self.unwritten is None:
            progress(self.rows * self.column.row_bytes)
            return
        written, width, told = self.unwritten.written, self.column.row_bytes, 0
        for blocks in self._missing(written, None):
            for some in _portions(blocks, self.column):
                self._write_rows(self._rows_in(some))
            # A bit that is on says that the rows are on the disk, or will be synced with a commit.
            self._data.sync()
            self._add_written(blocks)
            self.record(sync=True)
            done = (int(blocks[-1]) + 1 << self.column.block_shift) * width
            progress(min(done, self.rows * width) - told)
            told = done
        progress(max(0, self.rows * width - told))

    def _write_rows(self, ids: RowArray) -> None:
        assert self.unwritten is not None
        values = self.unwritten.values(ids).view(np.uint8).reshape(ids.size, -1)
        starts = np.flatnonzero(np.concatenate([[True], ids[1:] != ids[:-1] + 1]))
        for first, stop in zip(starts, [*starts[1:], ids.size], strict=True):
            at = HEADER_BYTES + int(ids[first]) * self.column.row_bytes
            self._data.write(values[first:stop].data, at)

    # -- growing -----------------------------------------------------------------------------------

    def extend(self, rows: int) -> None:
        """Make the files longer, durably. Rows in a block that is written get initial values."""
        before, width = self.rows, self.column.row_bytes
        self._data.extend(HEADER_BYTES + rows * width)
        if self._bits is not None:
            assert self.unwritten is not None
            stop = min(rows, -(-before >> self.column.block_shift) << self.column.block_shift)
            if stop > before and self.unwritten.of(np.array([before - 1])).size == 0:
                values = self.unwritten.values(np.arange(before, stop))
                self._data.write(values.view(np.uint8).data, HEADER_BYTES + before * width)
            self._bits.extend(bits_file_bytes(self.column, rows))
            self._bits.sync()
        self._data.sync()

    def cut(self, rows: int) -> None:
        """Give the file of bits the size for a number of rows, durably."""
        if self._bits is not None:
            self._bits.cut(bits_file_bytes(self.column, rows))
            self._bits.sync()

    def grow(self, rows: int) -> None:
        """Let the column have more rows, for which the files are long enough."""
        before, shift = self.rows, self.column.block_shift
        self._room = self._room.grown(self.column, rows)
        if before & (1 << shift) - 1:  # the last block has become longer
            self._room.discard(before >> shift)
        if self.unwritten is not None:
            self.unwritten.written = self.unwritten.written.grown(self.column, rows)


def _portions(blocks: RowArray, column: Column) -> Iterator[RowArray]:
    """Yield blocks in parts of about BLOCK_BYTES bytes."""
    most = max(1, BLOCK_BYTES // (column.row_bytes << column.block_shift))
    for first in range(0, blocks.size, most):
        yield blocks[first : first + most]
