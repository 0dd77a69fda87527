"""`mmembed verify`, `recover`, `unlock`, `seal` and `unseal`: each says what it found and did.

Must not know how tables are stored, checked or brought back.
"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

from ..storage import Table, seal, unseal, verify, writer_of
from .inspect import size

STATES = {"ok": "ok  ", "note": "note", "bad": "BAD "}


def add_to(commands: Any) -> None:
    """Add the verbs."""
    verb = commands.add_parser(
        "verify",
        help="check every part of a table",
        description="Say what is found about each of a table's files; nothing is changed. Exit "
        "status 0: it can be opened. 1: something is damaged. 2: there is no table.",
    )
    verb.add_argument("table")
    verb.add_argument(
        "--deep",
        action="store_true",
        help="read every row: of a sealed table, or one with checksums of rows, against them; of "
        "others for numbers that are not finite",
    )
    verb.add_argument("--json", action="store_true", help="as JSON, for programs")
    verb.set_defaults(run=run_verify)
    for name, run, text in (
        (
            "recover",
            run_recover,
            "bring a table to its last commit, as opening for writing does",
        ),
        ("unlock", run_unlock, "say who has a table open for writing; exit status 1 if anyone has"),
        ("seal", run_seal, "make a table read-only, with checksums of its blocks"),
        ("unseal", run_unseal, "make a sealed table writable again"),
    ):
        verb = commands.add_parser(name, help=text)
        verb.add_argument("table")
        verb.set_defaults(run=run)


def run_verify(arguments: argparse.Namespace) -> int:
    """Print one line for each part."""
    found = verify(arguments.table, deep=arguments.deep)
    sound = all(finding.state != "bad" for finding in found)
    if arguments.json:
        findings = [finding._asdict() for finding in found]
        print(json.dumps({"sound": sound, "findings": findings}, indent=2))
    else:
        width = max(len(finding.part) for finding in found)
        for finding in found:
            print(f"{STATES[finding.state]}  {finding.part:{width}}  {finding.text}")
        print("sound" if sound else "DAMAGED")
    return 0 if sound else 1


def run_recover(arguments: argparse.Namespace) -> int:
    """Open the table for writing, which brings it to its last commit, and close it."""
    with Table.open(arguments.table, "r+") as table:
        if table.clean:
            print("it had been closed: nothing to put back")
        else:
            print(f"it had not been closed: {table.recovered} rows were put back")
        print(f"at commit {table.commits}, step {table.step}, {table.rows} rows")
    return 0


def run_unlock(arguments: argparse.Namespace) -> int:
    """Say who holds the lock."""
    held, text = writer_of(arguments.table)
    print(text)
    if held:
        print(
            "the lock goes with its holder: close the table there, or end that process; it cannot "
            "be taken away from a live one"
        )
    else:
        print("nothing to unlock: the lock of a process ends with it")
    return 1 if held else 0


def run_seal(arguments: argparse.Namespace) -> int:
    """Seal the table; one that was not closed is brought to its last commit first."""
    with Table.open(arguments.table) as table:
        clean = table.clean
    if not clean:
        run_recover(arguments)
    sealed = seal(arguments.table)
    print(f"sealed: {size(sealed)} under checksums; `mmembed verify --deep` compares them")
    return 0


def run_unseal(arguments: argparse.Namespace) -> int:
    """Take the seal away."""
    was = unseal(arguments.table)
    name = os.fspath(arguments.table)
    print(f"{name} may be written again" if was else f"{name} was not sealed")
    return 0
