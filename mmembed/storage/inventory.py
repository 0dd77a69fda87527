"""Which files a table has: one list, for whoever copies, checks or seals a table.

Must not know what is in them.
"""

from __future__ import annotations

import os
import re

from . import changes, journal, superfile
from .bits_format import name_of_bits
from .files import Directory
from .format import Superblock

LOCK = "LOCK"
SEAL = "seal"
CHANGES = changes.NAME


def data_files(superblock: Superblock) -> tuple[str, ...]:
    """Return the names of the files that hold rows, in the order of the columns.

    Bits come before the rows that they speak of: who copies files in this order, while a writer is
    at it, has every row of which his bits say that it is there.
    """
    names: list[str] = []
    for filed in superblock.files:
        names += [name_of_bits(filed)] * filed.has_bits
        names.append(f"{filed.name}.npy")
    return tuple(names)


def own_files(superblock: Superblock) -> tuple[str, ...]:
    """Return the names of all files that a table may have."""
    return (superfile.NAME, journal.NAME, LOCK, SEAL, CHANGES, *data_files(superblock))


def left_over(directory: Directory, superblock: Superblock) -> list[str]:
    """Return the names of files in the directory that are no part of the table."""
    own = own_files(superblock)
    with os.scandir(directory.fd) as entries:
        found = [e.name for e in entries if not e.is_dir(follow_symlinks=False)]
    return sorted(name for name in found if name not in own)


def folders(directory: Directory) -> list[str]:
    """Return the names of what lies beside the files, such as a vocabulary."""
    with os.scandir(directory.fd) as entries:
        return sorted(e.name for e in entries if e.is_dir(follow_symlinks=False))


def drafts(path: str) -> list[str]:
    """Return what makings of a table at `path` that were killed have left beside it."""
    folder, own = os.path.split(path)
    draft = re.compile(re.escape(own[:60]) + r"\.tmp-[0-9a-f]{16}")
    try:
        return sorted(name for name in os.listdir(folder) if draft.fullmatch(name))
    except OSError:  # a folder that may be passed through, and not listed
        return []
