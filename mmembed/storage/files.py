"""Directories and files as a table needs them: opened safely, created privately, renamed whole.

Must not know what the bytes mean. Everything in a directory is opened relative to its descriptor
and never through a link. Nothing is durable until the caller asks for `sync`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import shutil
import stat
import uuid
from collections.abc import Iterator, Sequence
from typing import TypeVar

from ..errors import CorruptTableError, TableExistsError, TableNotFoundError, UntrustedTableError
from .mounts import refuse_remote

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_WRITE_AND_WAIT = 1 | 2 | 4  # SYNC_FILE_RANGE_WRITE, with WAIT_BEFORE and WAIT_AFTER
_PAGE = mmap.PAGESIZE
_FICLONE = 0x40049409
_NO_CLONES = (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY, errno.ENOSYS)
# What open() says of links, directories, sockets and devices under the flags used here.
_NOT_A_FILE = (errno.ELOOP, errno.EISDIR, errno.ENXIO, errno.ENODEV)

_D = TypeVar("_D", bound="_Descriptor")
Identity = tuple[int, int]  # device and inode


class _Descriptor:
    """An open file descriptor; it is closed with the object at the latest."""

    def __init__(self, fd: int, path: str) -> None:
        """Take over a descriptor."""
        self.fd = fd
        self.path = path

    def close(self) -> None:
        """Close the descriptor; a second time is harmless."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            os.close(fd)

    def __enter__(self: _D) -> _D:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()


class File(_Descriptor):
    """An open regular file."""

    def size(self) -> int:
        """Return the size in bytes."""
        return os.fstat(self.fd).st_size

    def read(self, count: int, offset: int) -> bytes:
        """Return up to `count` bytes from `offset`; fewer only at the end of the file."""
        parts = []
        while count > 0 and (part := os.pread(self.fd, count, offset)):
            parts.append(part)
            count -= len(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`."""
        rest = memoryview(data).cast("B")
        with self._named():
            while rest:
                written = os.pwrite(self.fd, rest, offset)
                rest = rest[written:]
                offset += written

    def write_pages(self, data: bytes | memoryview, offset: int) -> None:
        """Write all of `data` at `offset`, page by page, as befits what will be stored to by rows.

        The kernel keeps what one call writes in pieces of up to 2 MB, and a store of one byte
        through a map then makes the next sync write all of its piece.
        """
        rest = memoryview(data).cast("B")
        while rest:
            count = _PAGE - offset % _PAGE
            self.write(rest[:count], offset)
            rest = rest[count:]
            offset += count

    def reserve(self, size: int, present: int = 0) -> None:
        """Give the file `size` bytes for which the disk has room; it has `present` bytes already.

        A store through a map to a hole that the full disk cannot fill kills the process; this
        raises OSError (ENOSPC) instead. Where the file system cannot reserve, the file only gets
        its size, and writing every byte of it, as `create` of a table does, finds the room.
        """
        missing = size - present
        self.check_free(missing)  # else reserving would fill the disk before it fails
        with self._named():
            try:
                os.posix_fallocate(self.fd, present, missing)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                    raise
                os.ftruncate(self.fd, size)

    def free(self) -> int:
        """Return how many bytes the file's disk has room for."""
        disk = os.fstatvfs(self.fd)
        return disk.f_bavail * disk.f_frsize

    def allocate(self, starts: Sequence[int], sizes: Sequence[int]) -> None:
        """Find room on the disk for parts of the file; what is there stays.

        Raises
        ------
        OSError  there is not enough, ENOSPC. Some parts may have it.
        """
        with self._named():
            for start, size in zip(starts, sizes, strict=True):
                os.posix_fallocate(self.fd, start, size)

    def check_free(self, missing: int) -> None:
        """Raise OSError (ENOSPC) if the disk has less room than this."""
        free = self.free()
        if missing > free:
            raise OSError(
                errno.ENOSPC,
                f"No space left on device: {missing} bytes asked, {free} free",
                self.path,
            )

    def cut(self, size: int) -> None:
        """Take from the file what lies behind its first `size` bytes, if there is anything."""
        if self.size() > size:
            with self._named():
                os.ftruncate(self.fd, size)

    def sync(self) -> None:
        """Return when the file's bytes and size are on the disk."""
        with self._named():
            os.fdatasync(self.fd)

    def identity(self) -> Identity:
        """Return what tells the file from every other one."""
        status = os.fstat(self.fd)
        return status.st_dev, status.st_ino

    def clone(self, source: File) -> bool:
        """Share the blocks of another file instead of a copy; False where that cannot be."""
        try:
            fcntl.ioctl(self.fd, _FICLONE, source.fd)
        except OSError as error:
            if error.errno in _NO_CLONES:
                return False
            error.filename = self.path
            raise
        return True

    def extents(self) -> Iterator[tuple[int, int]]:
        """Yield (start, end) of the parts that are not holes, in order."""
        at, size = 0, self.size()
        while at < size:
            try:
                start = os.lseek(self.fd, at, os.SEEK_DATA)
            except OSError as error:
                if error.errno != errno.ENXIO:  # which says that only a hole follows
                    raise
                return
            at = min(size, os.lseek(self.fd, start, os.SEEK_HOLE))
            yield start, at

    def is_sparse(self) -> bool:
        """Return whether the disk has less than all of the file's bytes."""
        status = os.fstat(self.fd)
        return status.st_blocks * 512 < status.st_size

    def extend(self, size: int) -> None:
        """Give the file `size` bytes without room on the disk: the rest is a hole."""
        with self._named():
            os.ftruncate(self.fd, size)

    def forget(self) -> None:
        """Let the system drop what it has of the file in memory, so that reading asks the disk."""
        os.posix_fadvise(self.fd, 0, 0, os.POSIX_FADV_DONTNEED)

    def write_back(self) -> None:
        """Return when what had changed of the file's pages was written, if not for good: no sync.

        Where the system has no such call, nothing happens.
        """
        import ctypes  # as below

        call = getattr(ctypes.CDLL(None, use_errno=True), "sync_file_range", None)
        if call is None:
            return
        call.argtypes = [ctypes.c_int, ctypes.c_int64, ctypes.c_int64, ctypes.c_uint]
        if call(self.fd, 0, 0, _WRITE_AND_WAIT) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), self.path)

    def is_deleted(self) -> bool:
        """Return whether the file has no name any more."""
        return os.fstat(self.fd).st_nlink == 0

    @contextlib.contextmanager
    def _named(self) -> Iterator[None]:
        """Name the file in what the system says of its descriptor."""
        try:
            yield
        except OSError as error:
            error.filename = self.path
            raise

    def map(self, size: int, *, writable: bool) -> mmap.mmap:
        """Map the first `size` bytes, shared; the map outlives this object.

        Never np.memmap or np.load: they grow a file that is shorter than its header says.
        """
        access = mmap.ACCESS_WRITE if writable else mmap.ACCESS_READ
        return mmap.mmap(self.fd, size, access=access)


class Directory(_Descriptor):
    """An open directory, and the safe way to the files in it.

    `path` is for messages. `allow_foreign` accepts files of other users, and files and directories
    that others may write to; `allow_network_fs` was accepted when it was opened.
    """

    def __init__(
        self, fd: int, path: str, allow_foreign: bool, allow_network_fs: bool = False
    ) -> None:
        """Take over a descriptor."""
        super().__init__(fd, path)
        self.allow_foreign = allow_foreign
        self.allow_network_fs = allow_network_fs

    @property
    def allowed(self) -> dict[str, bool]:
        """What was allowed when it was opened, to be handed to `open` again."""
        return {"allow_foreign": self.allow_foreign, "allow_network_fs": self.allow_network_fs}

    @classmethod
    def open(
        cls, path: str, *, allow_foreign: bool = False, allow_network_fs: bool = False
    ) -> Directory:
        """Open the directory at `path`.

        Raises
        ------
        TableNotFoundError   there is nothing.
        CorruptTableError    there is something else.
        UntrustedTableError  it is not this user's, or others may write to it.
        NetworkFileSystemError  it is on a file system over a network.
        """
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            raise TableNotFoundError(f"no table at {path}; Table.create makes one") from None
        except NotADirectoryError:
            raise CorruptTableError(f"{path} is not a directory, and a table is one") from None
        directory = cls(fd, path, allow_foreign, allow_network_fs)
        if not allow_network_fs:
            refuse_remote(fd, path)
        directory._trust(path, os.fstat(fd))
        return directory

    def open_file(self, name: str, *, writable: bool = False) -> File:
        """Open the file `name`.

        Raises
        ------
        CorruptTableError    it is missing, not a regular file, or has a second hard link.
        UntrustedTableError  as for `open`.
        """
        path = f"{self.path}/{name}"
        # O_NONBLOCK: opening a FIFO must not wait for its other end.
        flags = os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY
        try:
            fd = os.open(name, flags | (os.O_RDWR if writable else os.O_RDONLY), dir_fd=self.fd)
        except FileNotFoundError:
            raise CorruptTableError(
                f"{path} is missing: not a table, or an incomplete copy of one"
            ) from None
        except OSError as error:
            if error.errno in _NOT_A_FILE:
                raise CorruptTableError(f"{path} is not a regular file") from None
            error.filename = path
            raise
        file = File(fd, path)
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise CorruptTableError(f"{path} is not a regular file")
        if status.st_nlink != 1:
            raise CorruptTableError(
                f"{path} has {status.st_nlink} hard links, must have 1: a write to one would "
                "change the others; copy a table instead of linking it"
            )
        self._trust(path, status)
        return file

    def _trust(self, path: str, status: os.stat_result) -> None:
        if self.allow_foreign:
            return
        hint = ", or allow_foreign=True accepts it"
        if status.st_uid not in (os.geteuid(), 0):
            raise UntrustedTableError(
                f"{path} belongs to user {status.st_uid}, and this process is user {os.geteuid()}: "
                f"chown it{hint}"
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise UntrustedTableError(
                f"{path} has mode {stat.S_IMODE(status.st_mode):04o}, so others may write to it: "
                f"chmod go-w it{hint}"
            )

    def folder(self, name: str) -> Directory:
        """Open the directory `name`; a link is not followed."""
        flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
        path = f"{self.path}/{name}"
        folder = Directory(os.open(name, flags, dir_fd=self.fd), path, **self.allowed)
        folder._trust(path, os.fstat(folder.fd))
        return folder

    def create_folder(self, name: str) -> Directory:
        """Create the directory `name`, which must not exist, for the user alone, and open it."""
        os.mkdir(name, 0o700, dir_fd=self.fd)
        return self.folder(name)

    def create_file(self, name: str) -> File:
        """Create the file `name`, which must not exist, readable and writable by the user alone."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        file = File(os.open(name, flags, 0o600, dir_fd=self.fd), f"{self.path}/{name}")
        os.fchmod(file.fd, 0o600)  # whatever the umask is
        return file

    def remove_file(self, name: str) -> None:
        """Remove the name `name` if it is there."""
        try:
            os.unlink(name, dir_fd=self.fd)
        except FileNotFoundError:
            pass
        except OSError as error:
            error.filename = f"{self.path}/{name}"
            raise

    def names(self) -> list[str]:
        """Return the names in the directory, ascending."""
        return sorted(os.listdir(self.fd))

    def rename_file(self, name: str, new: str) -> None:
        """Give the file `name` another name, at once; a file that has it is replaced."""
        os.rename(name, new, src_dir_fd=self.fd, dst_dir_fd=self.fd)

    def identity(self, name: str) -> Identity | None:
        """Return the identity of the file that `name` names now; None if there is none."""
        try:
            there = os.stat(name, dir_fd=self.fd, follow_symlinks=False)
        except FileNotFoundError:
            return None
        return there.st_dev, there.st_ino

    def sync(self) -> None:
        """Return when the names in the directory are on the disk."""
        os.fsync(self.fd)


@contextlib.contextmanager
def draft(path: str, *, allow_network_fs: bool = False) -> Iterator[Directory]:
    """Make a directory that appears at `path` whole, and durably, or not at all.

    The block fills the directory that it is given, which stands beside `path` meanwhile; whatever
    ends the block early, Ctrl-C included, removes it. The caller closes the directory.

    Raises
    ------
    TableExistsError   there is something at `path` already; it is untouched.
    FileNotFoundError  the parent of `path` does not exist.
    NetworkFileSystemError  see `Directory.open`.
    """
    if os.path.lexists(path):
        raise TableExistsError(f"{path} exists already; open it, or remove it first")
    folder, own = os.path.split(path)
    name = os.path.join(folder, f"{own[:60]}.tmp-{os.urandom(8).hex()}")
    directory = None
    try:
        try:
            os.mkdir(name, 0o700)
        except FileNotFoundError:
            raise FileNotFoundError(
                f"cannot create {path}: {os.path.dirname(path)} does not exist"
            ) from None
        os.chmod(name, 0o700)  # whatever the umask is
        directory = Directory.open(name, allow_network_fs=allow_network_fs)
        yield directory
        directory.sync()
        _rename_to_free_name(name, path)
        directory.path = path
        with Directory(os.open(os.path.dirname(path), os.O_RDONLY), path, True) as parent:
            parent.sync()
    except BaseException:
        shutil.rmtree(name, ignore_errors=True)
        if directory is not None:
            # The interrupt may have come after the rename.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(path), os.fstat(directory.fd)):
                    shutil.rmtree(path, ignore_errors=True)
            directory.close()
        raise


@contextlib.contextmanager
def draft_file(path: str) -> Iterator[File]:
    """Make a file that appears at `path` whole, and durably, or not at all.

    Raises
    ------
    FileExistsError    there is something at `path` already; it is untouched.
    FileNotFoundError  its folder does not exist.
    """
    folder, own = os.path.split(path)
    with Directory(os.open(folder, os.O_RDONLY | os.O_CLOEXEC), folder, True) as parent:
        if own in parent.names():
            raise FileExistsError(errno.EEXIST, "there is something already", path)
        name = f"{own[:60]}.tmp-{os.urandom(8).hex()}"
        try:
            with parent.create_file(name) as file:
                yield file
                file.sync()
            # Unlike a renaming, a second name never takes the place of a file.
            os.link(name, own, src_dir_fd=parent.fd, dst_dir_fd=parent.fd)
        finally:
            parent.remove_file(name)
        parent.sync()


def read_file(path: str) -> File:
    """Open a file that is no part of a table."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    except OSError as error:
        error.filename = path
        raise
    file = File(fd, path)
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        raise CorruptTableError(f"{path} is not a regular file")
    return file


def _rename_to_free_name(old: str, new: str) -> None:
    """Rename a directory, never onto anything that exists.

    Raises
    ------
    TableExistsError  there is something at `new`.
    """
    try:
        if not _renameat2(old, new):
            os.mkdir(new, 0o700)  # claims the name; an empty directory may be renamed onto
            try:
                os.rename(old, new)
            except BaseException:
                with contextlib.suppress(OSError):
                    os.rmdir(new)
                raise
    except OSError as error:
        if error.errno in (errno.EEXIST, errno.ENOTEMPTY):
            raise TableExistsError(f"{new} was created by someone else meanwhile") from None
        raise


def _renameat2(old: str, new: str) -> bool:
    """Rename atomically onto a free name; False where the system has no such call."""
    import ctypes  # a few ms that only creating a table costs

    libc = ctypes.CDLL(None, use_errno=True)
    try:
        call = libc.renameat2
    except AttributeError:
        return False
    call.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_int, ctypes.c_char_p, ctypes.c_uint]
    if call(_AT_FDCWD, os.fsencode(old), _AT_FDCWD, os.fsencode(new), _RENAME_NOREPLACE) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL):
        return False
    raise OSError(code, os.strerror(code), new)


def boot_id() -> uuid.UUID:
    """Return the id of the machine's present boot; zero where the system does not tell."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return uuid.UUID(file.read().strip())
    except (OSError, ValueError):
        return uuid.UUID(int=0)
