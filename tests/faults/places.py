"""Small file systems of a test's own: memory of a few MB, and ext4 or XFS in a file.

Whether this machine allows them is found out by trying once. MMEMBED_REQUIRE_FAULTS lists what may
not be skipped: tmpfs, ext4, xfs, fuse, strace.
"""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import shutil
import subprocess
import tempfile
from collections.abc import Iterator

import pytest


def command(*arguments: object) -> str:
    """Run a command; its output. What it says of a failure is in the exception."""
    done = subprocess.run([str(a) for a in arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"{arguments[0]}: {done.stderr.strip() or done.returncode}")
    return done.stdout


@contextlib.contextmanager
def mounted(kind: str, size: int) -> Iterator[pathlib.Path]:
    """An empty file system of this kind and size, for a block; OSError where it cannot be made."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="mmembed-mount-", dir=image_folder()))
    place = folder / "mnt"
    place.mkdir()
    try:
        if kind == "tmpfs":
            command("mount", "-t", "tmpfs", "-o", f"size={size}", "none", place)
        else:
            make_image(kind, folder / "image", size)
            command("mount", "-o", "loop", folder / "image", place)
        try:
            yield place
        finally:
            unmount(place)
    finally:
        shutil.rmtree(folder)


def image_folder() -> str | None:
    """Where images are quick to write: in memory, if there is such a place."""
    return "/dev/shm" if os.access("/dev/shm", os.W_OK) else None


def make_image(kind: str, image: pathlib.Path, size: int) -> None:
    """Make a file system in a file; everything in it is there at once, nothing comes lazily."""
    with open(image, "wb") as file:
        file.truncate(size)
    if kind == "ext4":
        command("mkfs.ext4", "-qF", "-E", "lazy_itable_init=0,lazy_journal_init=0", image)
    else:
        command(f"mkfs.{kind}", "-qf", image)


def unmount(place: pathlib.Path) -> None:
    """Unmount, at once if nobody is in the way, or when he is gone."""
    try:
        command("umount", place)
    except OSError:
        command("umount", "-l", place)


SIZES = {"tmpfs": 1 << 20, "ext4": 16 << 20, "xfs": 320 << 20}


@functools.cache
def why_not(facility: str) -> str | None:
    """Return why this machine does not have a facility, or None if it does."""
    try:
        if facility == "strace":
            command("strace", "-f", "-o", "/dev/null", "-e", "inject=sync:error=EIO", "true")
        elif facility == "fuse":
            os.close(os.open("/dev/fuse", os.O_RDWR))
        else:
            with mounted(facility, SIZES[facility]):
                pass
    except OSError as error:
        return str(error)
    return None


def need(facility: str) -> None:
    """Skip the test, with the reason, where the facility is missing and not required."""
    reason = why_not(facility)
    if reason is None:
        return
    if facility in os.environ.get("MMEMBED_REQUIRE_FAULTS", "").split(","):
        pytest.fail(f"{facility} is required: {reason}")
    pytest.skip(f"no {facility}: {reason}")
