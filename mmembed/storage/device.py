"""The disk and file system below a path, as the system describes them.

Must not know tables, and opens no file of a user's. What the system does not tell is None.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import NamedTuple

NETWORK = ("nfs", "nfs4", "cifs", "smb3", "9p", "ceph", "glusterfs", "lustre", "fuse.sshfs")
IN_MEMORY = ("tmpfs", "ramfs")
COPY_ON_WRITE = ("btrfs", "zfs", "bcachefs")


class Device(NamedTuple):
    """A place for files.

    Attributes
    ----------
    mount, file_system, options : as in /proc/self/mountinfo.
    readahead : bytes that one page fault reads, where no plan was made.
    rotational : whether it is a disk that turns.
    free : bytes that this user may still write.
    """

    mount: str | None
    file_system: str | None
    options: str
    readahead: int | None
    rotational: bool | None
    free: int


def below(path: str | os.PathLike[str], root: str | os.PathLike[str] = "/") -> Device:
    """Return what is below `path`, which exists. `root` is where /proc and /sys begin."""
    status = os.stat(path)
    number = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
    mount = kind = None
    options = ""
    with contextlib.suppress(OSError, ValueError):
        for line in Path(root, "proc/self/mountinfo").read_text().splitlines():
            own, _, rest = line.partition(" - ")
            fields = own.split()
            if fields[2] == number:
                mount, kind, options = fields[4], rest.split()[0], fields[5]
    disk = Path(root, "sys/dev/block", number)
    room = os.statvfs(path)
    readahead = _number(Path(root, "sys/class/bdi", number, "read_ahead_kb"))
    rotational = None
    for folder in (disk, disk / ".."):  # a partition has no queue of its own
        if rotational is None:
            rotational = _number(folder / "queue/rotational")
    return Device(
        mount,
        kind,
        options,
        None if readahead is None else readahead << 10,
        None if rotational is None else bool(rotational),
        room.f_bavail * room.f_frsize,
    )


def _number(file: Path) -> int | None:
    with contextlib.suppress(OSError, ValueError):
        return int(file.read_text())
    return None
