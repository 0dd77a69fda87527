"""The `mmembed` command: arguments in, lines out; the work is done by the library's public parts.

Must not know how anything is computed. Bad input is one line on standard error and exit status 2.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import sys
from collections.abc import Sequence

from ..errors import MmembedError
from . import backup, demo, doctor, inspect, plot, quantize, repair, stats, train

GROUPS = (train, inspect, plot, stats, quantize, backup, repair, doctor, demo)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status.

    0: done. 1: stopped by an interrupt, or what was asked for is not so (`verify`). 2: bad input,
    of which one line on standard error says what it is.
    """
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        # Whoever reads has had enough; what is left must not be flushed into the closed pipe.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        print("mmembed: interrupted", file=sys.stderr)
        return 1
    except (MmembedError, OSError, ValueError, TypeError, IndexError) as error:
        print(f"mmembed: {_one_line(error)}", file=sys.stderr)
        return 2
    return status


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="mmembed",
        description="Train and look into embedding tables that need not fit in memory.",
    )
    parser.add_argument(
        "--version", action="version", version=f"mmembed {importlib.metadata.version('mmembed')}"
    )
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for group in GROUPS:
        group.add_to(commands)
    return parser


def _one_line(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return " ".join(str(error).split()) or type(error).__name__
