"""The file `super` of an open table: read, recorded in, and marked.

Must not know columns, the journal, or when any of this is safe: the order is `directory`'s.
"""

from __future__ import annotations

from dataclasses import replace

from ..errors import CorruptTableError
from .files import Directory, File
from .format import (
    COPY_BYTES,
    SUPER_BYTES,
    Superblock,
    decode_super,
    encode_copy,
    slot_offset,
)
from .health import Health

NAME = "super"


class SuperFile:
    """An open `super`.

    Attributes
    ----------
    last : what it says, as it was last read or written.
    """

    def __init__(self, file: File, health: Health) -> None:
        """Take over an open file; `read` it before anything else."""
        self.file = file
        self.last: Superblock
        self._health = health

    @staticmethod
    def create(directory: Directory, superblock: Superblock) -> None:
        """Create the file of a new table, durably but for its name."""
        copy = encode_copy(superblock)
        with directory.create_file(NAME) as file:
            file.reserve(SUPER_BYTES)
            file.write(bytes(SUPER_BYTES), 0)
            file.write(copy * 2, slot_offset(superblock.epoch))
            file.sync()

    def read(self) -> Superblock:
        """Return what the file says now.

        A writer may be at it: a copy caught half written is invalid, and another one counts.

        Raises
        ------
        CorruptTableError  see `format.decode_super`.
        """
        if self.file.size() != SUPER_BYTES:
            raise CorruptTableError(
                f"{self.file.path} has {self.file.size()} bytes, must have {SUPER_BYTES}"
            )
        try:
            self.last = decode_super(self.file.read(SUPER_BYTES, 0))
        except CorruptTableError as error:
            raise CorruptTableError(f"{self.file.path}: {error}") from None
        return self.last

    def record(self, superblock: Superblock, *, sync: bool = True) -> None:
        """Write the slot that the last record does not use."""
        copy = encode_copy(superblock)
        with self._health.fatal():
            self.file.write(copy * 2, slot_offset(superblock.epoch))
            if sync:
                self.file.sync()
            self.last = superblock

    def rewrite(self, superblock: Superblock) -> None:
        """Replace the last record's two copies in place, one of them whole at every moment."""
        copy = encode_copy(superblock)
        offset = slot_offset(superblock.epoch)
        with self._health.fatal():
            for at in (offset, offset + COPY_BYTES):
                self.file.write(copy, at)
                self.file.sync()
            self.last = superblock


def check_room(superblock: Superblock) -> None:
    """Raise ValueError unless commits have room for this, whatever the counters count to."""
    most = dict.fromkeys(superblock.counters, 2**64 - 1)
    encode_copy(replace(superblock, counters=most))
