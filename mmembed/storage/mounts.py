"""Which file system an open directory is on, and whether another machine may have it mounted too.

Must not know tables. It asks /proc; where that does not say, nothing is refused.
"""

from __future__ import annotations

import contextlib

from ..errors import NetworkFileSystemError

# As /proc/self/mountinfo spells them. A `fuse.` file system may be anything: all but those known to
# be local are taken for remote.
_REMOTE = {
    *("nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "afs", "ceph", "coda", "davfs", "gfs2"),
    *("glusterfs", "gpfs", "lustre", "ncpfs", "ocfs2", "orangefs", "pvfs2", "beegfs", "fuse"),
    *("virtiofs", "vboxsf", "prl_fs", "vmhgfs", "hgfs"),
}
_LOCAL_FUSE = {"fuse.ntfs", "fuse.ntfs-3g", "fuse.exfat", "fuse.ext2", "fuse.fuse2fs", "fuse.lxcfs"}


def file_system(fd: int, root: str = "/proc/self") -> str | None:
    """Return the type of the file system that a descriptor is on; None if it cannot be told."""
    with contextlib.suppress(OSError, ValueError, IndexError, KeyError):
        with open(f"{root}/fdinfo/{fd}", encoding="ascii") as lines:
            mount = dict(line.split(None, 1) for line in lines)["mnt_id:"].strip()
        with open(f"{root}/mountinfo", encoding="utf-8", errors="replace") as lines:
            for line in lines:
                if line.split(" ", 1)[0] == mount:
                    # Optional fields end with a dash; paths have their spaces escaped.
                    return line.partition(" - ")[2].split()[0]
    return None


def is_remote(kind: str | None) -> bool:
    """Whether a file system of this type can be mounted by several machines at a time."""
    if kind is None:
        return False
    return kind in _REMOTE or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE)


def refuse_remote(fd: int, path: str) -> None:
    """Raise NetworkFileSystemError if the directory `fd` is on a file system over a network."""
    kind = file_system(fd)
    if is_remote(kind):
        raise NetworkFileSystemError(
            f"{path} is on a file system of type {kind!r}, where locks, maps and syncs of two "
            "machines do not agree. Put the table on a local disk; allow_network_fs=True accepts "
            "it, as long as one machine alone uses the table"
        )
