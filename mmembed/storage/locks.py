"""The locks of a table: one handle writes, whatever process has it; readers hold commits back.

Must not know tables: it locks bytes of an open file. The locks belong to the open file (OFD). A
POSIX lock would be lost when any descriptor of the file is closed; this kind would be kept alive by
a forked child, so the child closes its descriptor at once and the lock dies with the parent.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import time
import weakref
from collections.abc import Iterator

from ..errors import TableLockedError
from .files import File

_F_OFD_GETLK = getattr(fcntl, "F_OFD_GETLK", 36)
_F_OFD_SETLK = getattr(fcntl, "F_OFD_SETLK", 37)
_F_OFD_SETLKW = getattr(fcntl, "F_OFD_SETLKW", 38)
_FLOCK = struct.Struct("@hhqqi0q")  # struct flock: type, whence, start, length, pid
_OWNER_BYTES = 512
_WRITER, _PINS = 0, 1  # bytes of the file; `sharing` has others

PIN_SECONDS = 1.0  # a commit waits so long for readers that pin the one before, and they for it

_held: weakref.WeakSet[File] = weakref.WeakSet()


class WriterLock:
    """The lock on byte 0 of `file`, held until `release`, or until this object or process ends.

    The file is the lock's from here on. Its text names the holder, for messages alone.

    Raises
    ------
    TableLockedError  another handle holds it; the message calls the table `table`.
    """

    def __init__(self, file: File, table: str) -> None:
        """Take the lock."""
        self._file = file
        _held.add(file)  # first: another thread may fork at any moment
        self._take(table)

    def _take(self, table: str) -> None:
        try:
            _set_lock(self._file, fcntl.F_WRLCK)
        except (BlockingIOError, PermissionError):
            raise self._refusal(table, "Close it there") from None
        self._sign(this_process())

    def _refusal(self, table: str, hint: str) -> TableLockedError:
        owner = signature(self._file) or "another process"
        self._file.close()
        return TableLockedError(
            f"{table} is open for writing by {owner}, and a table has one writer at a time (this "
            f"is {this_process()}). {hint}, or open it here with mode 'r'"
        )

    def release(self) -> None:
        """Let the lock go; a second time, or in a forked child, this does nothing."""
        if self._file.fd >= 0:
            self._sign("")
            # Closing alone would leave the lock to a child that has not run its fork hook yet.
            _set_lock(self._file, fcntl.F_UNLCK)
            self._file.close()

    @contextlib.contextmanager
    def without_pins(self) -> Iterator[None]:
        """Have no reader hold anything back in the block, or have waited PIN_SECONDS for that."""
        with _holding(self._file, fcntl.F_WRLCK):
            yield

    def _sign(self, text: str) -> None:
        with contextlib.suppress(OSError):  # a full disk must not keep a table from opening
            os.ftruncate(self._file.fd, 0)
            self._file.write(text.encode()[:_OWNER_BYTES], 0)


def signature(file: File) -> str:
    """Return the text that the last holder signed with and did not take back; it may be dead."""
    owner = file.read(_OWNER_BYTES, 0).partition(b"\0")[0].decode("ascii", "replace")
    return owner if owner.isprintable() else ""


def is_held(file: File, byte: int = _WRITER) -> bool:
    """Return whether a live process holds the writer's lock, or that of a byte; takes nothing."""
    asked = _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0)
    kind: int = _FLOCK.unpack(fcntl.fcntl(file.fd, _F_OFD_GETLK, asked))[0]
    return kind != fcntl.F_UNLCK


@contextlib.contextmanager
def holding_back(file: File) -> Iterator[None]:
    """Hold commits back in the block, for as long as the writer waits; closes `file`.

    It is a courtesy between processes: whoever must know whether there was a commit looks.
    """
    with file, _holding(file, fcntl.F_RDLCK):
        yield


@contextlib.contextmanager
def _holding(file: File, kind: int) -> Iterator[None]:
    _held.add(file)
    end = time.monotonic() + PIN_SECONDS
    while True:
        try:
            _set_lock(file, kind, _PINS)
            break
        except OSError:
            if time.monotonic() > end:
                break
            time.sleep(0.001)
    try:
        yield
    finally:
        if file.fd >= 0:
            _set_lock(file, fcntl.F_UNLCK, _PINS)


def _set_lock(file: File, kind: int, byte: int = _WRITER) -> None:
    fcntl.fcntl(file.fd, _F_OFD_SETLK, _FLOCK.pack(kind, os.SEEK_SET, byte, 1, 0))


def try_lock(file: File, byte: int, *, shared: bool = False) -> bool:
    """Lock a byte, or change the lock there is; False if others have it."""
    try:
        _set_lock(file, fcntl.F_RDLCK if shared else fcntl.F_WRLCK, byte)
    except (BlockingIOError, PermissionError):
        return False
    return True


def wait_lock(file: File, byte: int) -> None:
    """Lock a byte when nobody else has it."""
    fcntl.fcntl(file.fd, _F_OFD_SETLKW, _FLOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))


def unlock(file: File, byte: int) -> None:
    """Let a byte go."""
    _set_lock(file, fcntl.F_UNLCK, byte)


def this_process() -> str:
    """Return what a holder signs with."""
    return f"process {os.getpid()} on {os.uname().nodename}"


def _after_fork_in_child() -> None:
    for file in list(_held):
        file.close()


os.register_at_fork(after_in_child=_after_fork_in_child)
