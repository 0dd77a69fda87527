"""Running the command, here and in another process, and looking at what it left."""

from __future__ import annotations

import os
import subprocess
import sys

# Every warning is an error, but for the one that says that no compiler was there.
QUIET = ["-W", "error", "-W", "ignore:the compiled kernels are missing:RuntimeWarning"]
COMMAND = [sys.executable, *QUIET, "-m", "mmembed"]
QUICK = ["--dim", "16", "--epochs", "4", "--min-count", "1", "--sample", "0", "--threads", "1"]


def in_a_process(*arguments, **options):
    """Run the command in another process, to its end; its text output is kept."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)], capture_output=True, text=True, timeout=60, **options
    )


def contents(folder):
    """Return what is below a folder: bytes of files, targets of links, None for folders."""
    found = {}
    for root, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            path = os.path.join(root, name)
            if os.path.islink(path):
                found[path] = os.readlink(path)
            elif os.path.isdir(path):
                found[path] = None
            else:
                with open(path, "rb") as file:
                    found[path] = file.read()
    return found


def refusal(capsys, status):
    """Return the one line that a refused command printed, without its beginning."""
    said = capsys.readouterr()
    assert status == 2
    assert said.err.count("\n") == 1
    assert said.err.startswith("mmembed: ")
    assert said.err.endswith("\n")
    return said.err.removeprefix("mmembed: ").rstrip("\n")
