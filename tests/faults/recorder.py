"""A disk that records what is done to it: every write and every flush, in order.

A server of FUSE shows one file, the image; a loop device makes a disk of it. So this is what a
file system asks of a disk, whoever made it ask: the kernel's own write-back too. It knows nothing
of tables, nor of file systems.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import gc
import os
import pathlib
import stat
import struct
import time
from collections.abc import Iterator
from typing import NamedTuple

from . import places

WRITE, FLUSH, MARK = 1, 2, 3
_ENTRY = struct.Struct("<BQI")

# The protocol of the kernel, linux/fuse.h. Node 1 is the root, here a file.
_GETATTR, _OPEN, _READ, _WRITE, _STATFS, _RELEASE, _FSYNC, _FLUSH, _INIT, _DESTROY = (
    *(3, 14, 15, 16, 17, 18, 20, 25, 26, 38),
)
_NO_ANSWER = (2, 36, 42)  # forget, interrupt, batch_forget
_REQUEST = struct.Struct("<IIQQIIIHH")
_ANSWER = struct.Struct("<IiQ")
_INITIAL = struct.Struct("<IIIIHHIIHHI28x")
_ATTRIBUTES = struct.Struct("<QII QQQQQQ IIIIIIIIII")
_OPENED = struct.Struct("<QIi")
_TRANSFER = struct.Struct("<QQIIQII")
_BIG_WRITES, _DIRECT_IO = 1 << 5, 1
_MOST = 128 << 10  # bytes of one write
_BLKFLSBUF = 0x1261


Disk = dict[int, bytes]  # blocks by number, those that are not zeros
_BLOCK = 4096


def read_disk(image: pathlib.Path) -> Disk:
    """The disk in a file."""
    with open(image, "rb") as file:
        blocks = enumerate(iter(lambda: file.read(_BLOCK), b""))
        return {number: block for number, block in blocks if any(block)}


def write_disk(image: pathlib.Path, disk: Disk) -> None:
    """Give a file the content of a disk, and nothing else."""
    with open(image, "r+b", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        file.truncate(0)
        file.truncate(size)
        for number, block in disk.items():
            os.pwrite(file.fileno(), block, number * _BLOCK)


def put(disk: Disk, at: int, data: bytes) -> None:
    """Change bytes of a disk."""
    end, start = at + len(data), at
    while at < end:
        number, within = divmod(at, _BLOCK)
        part = data[at - start : at - start + _BLOCK - within]
        old = disk.get(number, bytes(_BLOCK))
        disk[number] = old[:within] + part + old[within + len(part) :]
        at += len(part)


class Entry(NamedTuple):
    """What happened: bytes written at a place, a flush, or a mark with its number."""

    kind: int
    number: int
    data: bytes


class Log:
    """The entries, in a file to which several processes append."""

    def __init__(self, path: pathlib.Path) -> None:
        self._path = path
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

    def add(self, kind: int, number: int = 0, data: bytes = b"") -> None:
        """Append an entry, whole."""
        whole = _ENTRY.pack(kind, number, len(data)) + data
        if os.write(self._fd, whole) != len(whole):
            raise OSError(errno.ENOSPC, "no room for the log of writes")

    def entries(self) -> list[Entry]:
        """All entries so far."""
        data, at, found = self._path.read_bytes(), 0, []
        while at < len(data):
            kind, number, size = _ENTRY.unpack_from(data, at)
            at += _ENTRY.size
            found.append(Entry(kind, number, data[at : at + size]))
            at += size
        return found

    def close(self) -> None:
        os.close(self._fd)


def _serve(kernel: int, image: int, log: Log) -> None:
    """Answer the kernel until the file is unmounted."""
    while True:
        try:
            request = os.read(kernel, _MOST + 4096)
        except OSError as error:
            if error.errno == errno.ENODEV:
                return
            if error.errno in (errno.EINTR, errno.EAGAIN, errno.ENOENT):
                continue
            raise
        _, what, unique, *_ = _REQUEST.unpack_from(request)
        if what in _NO_ANSWER:
            continue
        try:
            code, answer = 0, _answer(what, request[_REQUEST.size :], image, log)
        except OSError as error:
            code, answer = -(error.errno or errno.EIO), b""
        with contextlib.suppress(FileNotFoundError):  # nobody waits for it any more
            os.write(kernel, _ANSWER.pack(_ANSWER.size + len(answer), code, unique) + answer)


def _answer(what: int, body: bytes, image: int, log: Log) -> bytes:
    if what == _INIT:
        return _INITIAL.pack(7, 31, 0, _BIG_WRITES, 16, 12, _MOST, 1, 0, 0, 0)
    if what == _GETATTR:
        size, mode = os.fstat(image).st_size, stat.S_IFREG | 0o600
        times = (0,) * 6
        return _ATTRIBUTES.pack(
            *(3600, 0, 0, 1, size, size // 512, *times[:3]),
            *(*times[3:], mode, 1, os.getuid(), os.getgid(), 0, 4096, 0),
        )
    if what == _OPEN:
        return _OPENED.pack(0, _DIRECT_IO, 0)
    if what == _READ:
        _, at, size, *_ = _TRANSFER.unpack_from(body)
        return os.pread(image, size, at)
    if what == _WRITE:
        _, at, size, *_ = _TRANSFER.unpack_from(body)
        data = body[_TRANSFER.size : _TRANSFER.size + size]
        log.add(WRITE, at, data)
        return struct.pack("<II", os.pwrite(image, data, at), 0)
    if what == _FSYNC:
        log.add(FLUSH)
        return b""
    if what in (_RELEASE, _FLUSH, _DESTROY):
        return b""
    raise OSError(errno.ENOSYS, f"request {what}")


_libc = ctypes.CDLL(None, use_errno=True)


def mount(source: object, place: object, kind: str, options: str = "") -> None:
    """The system call, without the command around it."""
    names = (os.fsencode(str(name)) for name in (source, place, kind))
    if _libc.mount(*names, ctypes.c_ulong(0), options.encode()):
        raise OSError(
            ctypes.get_errno(), f"mount {kind}: {os.strerror(ctypes.get_errno())}", str(place)
        )


def unmount(place: object) -> None:
    """Unmount, for certain: a file system that lives on would write over the next one."""
    if not _libc.umount2(os.fsencode(str(place)), 0):
        return
    gc.collect()  # a cycle of references may hold a map of a file
    if _libc.umount2(os.fsencode(str(place)), 0):
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), str(place))


@contextlib.contextmanager
def loop_device(file: pathlib.Path) -> Iterator[str]:
    """A disk whose bytes are those of a file, for a block."""
    device = places.command("losetup", "-f", "--show", file).strip()
    try:
        yield device
    finally:
        places.command("losetup", "-d", device)


@contextlib.contextmanager
def swapped(device: str) -> Iterator[None]:
    """A block in which the file under a disk may be changed; the kernel reads it anew after it.

    Whoever looks at the mounts just then may keep a file system alive for a moment after it was
    unmounted, which would write to the disk once more, so the disk must be had alone.
    """
    fd = _open_alone(device)
    try:
        yield
        fcntl.ioctl(fd, _BLKFLSBUF)
    finally:
        os.close(fd)


def _open_alone(device: str, patience: float = 10) -> int:
    until = time.monotonic() + patience
    while True:
        try:
            return os.open(device, os.O_RDONLY | os.O_EXCL)
        except OSError as error:
            if error.errno != errno.EBUSY or time.monotonic() > until:
                raise
        time.sleep(0.001)


@contextlib.contextmanager
def recorded(image: pathlib.Path, log: Log) -> Iterator[str]:
    """A disk with the bytes of `image`, for a block, in which `log` gets all writes and flushes."""
    shown = image.with_name("shown")
    shown.touch()
    kernel = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    try:
        mount("recorder", shown, "fuse", f"fd={kernel},rootmode=100000,user_id=0,group_id=0")
        server = os.fork()
        if not server:
            _serve_and_end(kernel, image, log)
    finally:
        os.close(kernel)
    try:
        with loop_device(shown) as device:
            yield device
    finally:
        places.unmount(shown)
        status = os.waitstatus_to_exitcode(os.waitpid(server, 0)[1])
    assert status == 0, f"the recorder ended with {status}"


def _serve_and_end(kernel: int, image: pathlib.Path, log: Log) -> None:
    try:
        _serve(kernel, os.open(image, os.O_RDWR), log)
        os._exit(0)
    except BaseException:
        import traceback

        traceback.print_exc()
        os._exit(1)
