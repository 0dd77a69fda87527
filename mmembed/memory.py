"""How much memory this process may use: the machine's, or less where a control group says so.

Must not know tables. Everything is read from the system anew, as limits can change.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path


def limit(root: str | os.PathLike[str] = "/") -> int:
    """Return the bytes that this process may use, page cache included.

    The least of the machine's memory and the limits of the process's control group (version 1 or 2)
    and all groups around it. `root` is where /proc and /sys begin.
    """
    return min([_machine(Path(root)), *_group_limits(Path(root))])


def _machine(root: Path) -> int:
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in (root / "proc/meminfo").read_text().splitlines():
            if line.startswith("MemTotal:"):
                return int(line.split()[1]) << 10
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _group_limits(root: Path) -> Iterator[int]:
    try:
        groups = (root / "proc/self/cgroup").read_text().splitlines()
    except OSError:
        return
    for line in groups:
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if controllers == "":
            places, name = ["sys/fs/cgroup", "sys/fs/cgroup/unified"], "memory.max"
        elif "memory" in controllers.split(","):
            places, name = ["sys/fs/cgroup/memory"], "memory.limit_in_bytes"
        else:
            continue
        parts = [part for part in path.split("/") if part]
        for place in places:
            # Inside a container the group's own directory may be the root of what is mounted.
            for depth in range(len(parts) + 1):
                file = (root / place).joinpath(*parts[:depth], name)
                with contextlib.suppress(OSError, ValueError):  # "max": no limit
                    yield int(file.read_text())
