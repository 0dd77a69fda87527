"""What the system counts for a process: faults, bytes read and written, dirty pages.

Must not know tables. A number that the system does not tell is None.
"""

from __future__ import annotations

import contextlib
import time
from pathlib import Path

Counters = dict[str, int | None]


def counters(pid: int | str = "self", root: str = "/proc") -> Counters:
    """Return `major faults`, `bytes read` and `bytes written` (from and to disks) of a process."""
    said: Counters = {"major faults": None, "bytes read": None, "bytes written": None}
    with contextlib.suppress(OSError, ValueError, IndexError):
        # The name of the program, in brackets, may hold spaces and brackets.
        fields = Path(root, str(pid), "stat").read_text().rpartition(")")[2].split()
        said["major faults"] = int(fields[9])
    with contextlib.suppress(OSError, ValueError, KeyError):
        lines = Path(root, str(pid), "io").read_text().splitlines()
        found = dict(line.split(": ") for line in lines)
        said["bytes read"] = int(found["read_bytes"])
        said["bytes written"] = int(found["write_bytes"])
    return said


class Meter:
    """What this process reads and writes per second."""

    def __init__(self) -> None:
        """Begin to count."""
        self._since, self._before = time.monotonic(), counters()

    def rates(self) -> dict[str, float | None]:
        """Return `seconds` since the last call, and `bytes read` and `bytes written` per second."""
        now, counts = time.monotonic(), counters()
        seconds = now - self._since
        said: dict[str, float | None] = {"seconds": seconds}
        for name in ("bytes read", "bytes written"):
            old, new = self._before[name], counts[name]
            said[name] = None if old is None or new is None else (new - old) / max(seconds, 1e-9)
        self._since, self._before = now, counts
        return said


def dirty_bytes_below(folder: str, pid: int, root: str = "/proc") -> int | None:
    """Return the bytes that a process changed through maps of files in a folder, not yet written.

    None if the system does not tell, as of another user's process.
    """
    total, inside = 0, False
    try:
        with open(Path(root, str(pid), "smaps"), encoding="utf-8", errors="replace") as lines:
            for line in lines:
                first, *rest = line.split(None, 5)
                if not first.endswith(":"):
                    inside = len(rest) == 5 and rest[4].startswith(f"{folder}/")
                elif inside and first in ("Shared_Dirty:", "Private_Dirty:"):
                    total += int(rest[0]) << 10
    except (OSError, ValueError):
        return None
    return total


def dirty_bytes(address: int, length: int, maps: str = "/proc/self/smaps") -> int | None:
    """Return the bytes of maps in a range of addresses that were changed and not yet written."""
    total, inside, found = 0, False, False
    try:
        with open(maps, encoding="ascii", errors="replace") as lines:
            for line in lines:
                first, _, rest = line.partition(" ")
                if "-" in first and not first.endswith(":"):
                    start, _, stop = first.partition("-")
                    inside = address <= int(start, 16) and int(stop, 16) <= address + length + 4096
                    found |= inside
                elif inside and first in ("Shared_Dirty:", "Private_Dirty:"):
                    total += int(rest.split()[0]) << 10
    except (OSError, ValueError):
        return None
    return total if found else None
