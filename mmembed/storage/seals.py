"""Sealing: a table that is only read from then on, with checksums of the blocks of its files.

Must not know rows or columns: files are bytes here. The seal is a file of its own, `seal`, which
appears whole. docs/format.md has its bytes.
"""

from __future__ import annotations

import contextlib
import os
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import CorruptTableError, ReadOnlyTableError, TableFailedError
from . import superfile
from .files import Directory, File
from .format import Superblock
from .health import Health
from .inventory import LOCK, SEAL, data_files
from .locks import WriterLock
from .superfile import SuperFile

MAGIC = b"MMEMSEAL"
# magic, version, bytes of a block, number of files, zero, uuid, epoch, rows
HEAD = struct.Struct("<8s4I16s2Q")
SIZE = struct.Struct("<Q")  # of each file, before the checksums of its blocks
CHECKSUM = struct.Struct("<I")
VERSION = 1
BLOCK_BYTES = 1 << 20


class Damage(NamedTuple):
    """Blocks of a file that are not what was sealed: how many, and where the first begins."""

    file: str
    blocks: int
    at: int


def check_not_sealed(directory: Directory) -> None:
    """Raise ReadOnlyTableError if the table is sealed, whatever its seal is worth."""
    try:
        os.stat(SEAL, dir_fd=directory.fd, follow_symlinks=False)
    except FileNotFoundError:
        return
    raise ReadOnlyTableError(
        f"{directory.path} is sealed, so it is only read; `mmembed unseal` opens it for writing "
        "again"
    )


def seal(path: str | os.PathLike[str], **allowed: bool) -> int:
    """Seal the table at `path`, which is closed and clean; returns the bytes under the seal.

    `allowed` : allow_foreign and allow_network_fs, see `Table.open`.

    Raises
    ------
    ReadOnlyTableError  it is sealed already.
    TableLockedError    a writer has it open.
    TableFailedError    it was not closed: `mmembed recover` brings it to its last commit.
    Errors of `Table.open`; OSError if the disk fails. Then there is no seal.
    """
    with _locked(path, allowed) as directory:
        check_not_sealed(directory)
        superblock = _superblock(directory)
        if not superblock.clean or superblock.growing:
            raise TableFailedError(
                f"{directory.path} was not closed; `mmembed recover` brings it to its last commit"
            )
        with contextlib.ExitStack() as stack:
            names = data_files(superblock)
            files = [stack.enter_context(directory.open_file(name)) for name in names]
            for file in files:
                file.sync()
            body = _encode(superblock, files)
            sealed = sum(file.size() for file in files)
        draft = f"{SEAL}.tmp-{os.urandom(8).hex()}"
        try:
            with directory.create_file(draft) as file:
                file.write(body, 0)
                file.sync()
            directory.rename_file(draft, SEAL)
            directory.sync()
        except BaseException:
            directory.remove_file(draft)
            raise
    return sealed


def unseal(path: str | os.PathLike[str], **allowed: bool) -> bool:
    """Take the seal from the table at `path`; returns whether there was one."""
    with _locked(path, allowed) as directory:
        try:
            check_not_sealed(directory)
        except ReadOnlyTableError:
            directory.remove_file(SEAL)
            directory.sync()
            return True
    return False


def examine_seal(directory: Directory, superblock: Superblock) -> list[tuple[str, list[int]]]:
    """Return the checksums of the blocks of each file, as they were sealed.

    Raises
    ------
    CorruptTableError  the seal is damaged, of another table or of another commit, or files have
        other sizes.
    """
    with directory.open_file(SEAL) as file:
        data = file.read(file.size(), 0)
    where = f"{directory.path}/{SEAL}"
    least = HEAD.size + CHECKSUM.size
    if len(data) < least or zlib.crc32(data[:-4]) != CHECKSUM.unpack(data[-4:])[0]:
        raise CorruptTableError(f"{where} is damaged: its checksum is not that of its bytes")
    names = data_files(superblock)
    if data[: HEAD.size] != _head(superblock, len(names)):
        raise CorruptTableError(f"{where} is of another table, or of another commit of this one")
    at, sealed = HEAD.size, []
    for name in names:
        if at + SIZE.size > len(data):
            raise CorruptTableError(f"{where} is too short")
        (size,) = SIZE.unpack_from(data, at)
        with directory.open_file(name) as file:
            if file.size() != size:
                raise CorruptTableError(
                    f"{file.path} has {file.size()} bytes, and had {size} when it was sealed"
                )
        blocks = -(-size // BLOCK_BYTES)
        at += SIZE.size
        if at + 4 * blocks > len(data) - 4:
            raise CorruptTableError(f"{where} is too short")
        sealed.append((name, list(struct.unpack_from(f"<{blocks}I", data, at))))
        at += 4 * blocks
    if at + CHECKSUM.size != len(data):
        raise CorruptTableError(f"{where} is too long")
    return sealed


def broken_blocks(directory: Directory, superblock: Superblock) -> list[Damage]:
    """Read every block; returns what is not as it was sealed. Raises what `examine_seal` raises."""
    found = []
    for name, expected in examine_seal(directory, superblock):
        with directory.open_file(name) as file:
            pairs = zip(block_checksums(file), expected, strict=True)
            broken = [number for number, (is_, was) in enumerate(pairs) if is_ != was]
        if broken:
            found.append(Damage(name, len(broken), broken[0] * BLOCK_BYTES))
    return found


def block_checksums(file: File) -> Iterator[int]:
    """Yield the checksum of each block of a file."""
    for at in range(0, file.size(), BLOCK_BYTES):
        yield zlib.crc32(file.read(BLOCK_BYTES, at))


def _head(superblock: Superblock, files: int) -> bytes:
    who = superblock.uuid.bytes, superblock.epoch, superblock.rows
    return HEAD.pack(MAGIC, VERSION, BLOCK_BYTES, files, 0, *who)


def _encode(superblock: Superblock, files: list[File]) -> bytes:
    parts = [_head(superblock, len(files))]
    for file in files:
        checksums = list(block_checksums(file))
        parts += [SIZE.pack(file.size()), struct.pack(f"<{len(checksums)}I", *checksums)]
    body = b"".join(parts)
    return body + CHECKSUM.pack(zlib.crc32(body))


@contextlib.contextmanager
def _locked(path: str | os.PathLike[str], allowed: dict[str, bool]) -> Iterator[Directory]:
    """Open a table's directory and hold its writer's lock for a block."""
    where = os.path.abspath(os.fsdecode(path))
    with Directory.open(where, **allowed) as directory:
        lock = WriterLock(directory.open_file(LOCK, writable=True), where)
        try:
            yield directory
        finally:
            lock.release()


def _superblock(directory: Directory) -> Superblock:
    with directory.open_file(superfile.NAME) as file:
        return SuperFile(file, Health()).read()
