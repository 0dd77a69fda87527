"""A control group that bounds the memory, page cache included, of the processes put into it.

Must not know what they do. Versions 1 and 2; making one takes the right to, which root has.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


class UnavailableError(RuntimeError):
    """No group can be made here; the message says why."""


@contextlib.contextmanager
def bounded(limit: int) -> Iterator[Path]:
    """Make a group that may use `limit` bytes; yields the file to which a process writes its id.

    What a process has when it enters stays with the group that it was in.
    """
    folder = _parent() / f"mmembed-{os.getpid()}-{time.monotonic_ns()}"
    try:
        folder.mkdir()
    except OSError as error:
        raise UnavailableError(f"cannot make a control group: {error}") from None
    try:
        version_1 = folder / "memory.limit_in_bytes"
        try:
            (version_1 if version_1.exists() else folder / "memory.max").write_text(str(limit))
        except OSError as error:
            raise UnavailableError(f"cannot bound its memory: {error}") from None
        yield folder / "cgroup.procs"
    finally:
        for _ in range(50):  # what a process left behind goes a little after it
            with contextlib.suppress(OSError):
                (folder / "memory.force_empty").write_text("0")
            with contextlib.suppress(OSError):
                folder.rmdir()
                break
            time.sleep(0.1)


def _parent() -> Path:
    """Return the group of the memory controller under which one can be made: this process's."""
    groups = Path("/proc/self/cgroup").read_text().splitlines()
    for line in groups:
        _, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            own = Path("/sys/fs/cgroup/memory") / path.lstrip("/")
            return own if own.exists() else Path("/sys/fs/cgroup/memory")
    for line in groups:
        own = Path("/sys/fs/cgroup") / line.split(":", 2)[2].lstrip("/")
        for folder in (own, Path("/sys/fs/cgroup")):
            control = folder / "cgroup.subtree_control"
            if control.exists():
                with contextlib.suppress(OSError):
                    control.write_text("+memory")
                if "memory" in control.read_text().split():
                    return folder
    raise UnavailableError("no control group here has the memory controller for its children")
