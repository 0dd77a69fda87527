"""`mmembed snapshot`, `delta` and `diff`: copies of a table, what changed since, and what differs.

Must not know how tables are stored, copied or compared.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

from ..storage import Table, diff, read_delta
from .inspect import size


def add_to(commands: Any) -> None:
    """Add the verbs."""
    verb = commands.add_parser(
        "snapshot",
        help="copy a table as of its last commit, also while it is trained",
        description="Copy a table with what lies beside its rows, such as its words, as of its "
        "last commit. The copy appears whole or not at all. Blocks are shared where the file "
        "system can; else the copy is read back from the disk and compared.",
    )
    verb.add_argument("table")
    verb.add_argument("out", help="where the copy will be")
    verb.set_defaults(run=run_snapshot)
    _add_delta(commands)
    verb = commands.add_parser(
        "diff",
        help="say what two tables differ in",
        description="Compare the last commits of two tables, every row of every column. Exit "
        "status 0: they hold the same. 1: they differ.",
    )
    verb.add_argument("first")
    verb.add_argument("second")
    verb.add_argument("--json", action="store_true", help="as JSON, for programs")
    verb.set_defaults(run=run_diff)


def _add_delta(commands: Any) -> None:
    delta = commands.add_parser(
        "delta",
        help="bring copies of a table up to date with what changed",
        description="Track which rows change; take a snapshot; from then on make deltas, and apply "
        "them to the snapshot.",
    )
    verbs = delta.add_subparsers(dest="verb", metavar="VERB", required=True)
    verb = verbs.add_parser("track", help="mark from now on which rows each commit changes")
    verb.add_argument("table")
    verb.set_defaults(run=run_track)
    verb = verbs.add_parser("export", help="write what changed since a commit into a file")
    verb.add_argument("table")
    verb.add_argument("out", help="the file to make")
    start = verb.add_mutually_exclusive_group(required=True)
    start.add_argument("--since", type=int, metavar="COMMIT", help="the number of a commit")
    start.add_argument("--base", metavar="COPY", help="a copy of the table: since its last commit")
    verb.set_defaults(run=run_export)
    verb = verbs.add_parser("apply", help="bring a copy to the commit that a delta leads to")
    verb.add_argument("table", metavar="copy")
    verb.add_argument("delta")
    verb.set_defaults(run=run_apply)
    verb = verbs.add_parser("info", help="check a delta, and say what it holds")
    verb.add_argument("delta")
    verb.set_defaults(run=run_delta_info)


def run_snapshot(arguments: argparse.Namespace) -> int:
    """Make the copy, and say what it is."""
    with Table.open(arguments.table) as table:
        made = table.snapshot(arguments.out)
    how = "on shared blocks" if made.shared else "copied and compared"
    print(f"{arguments.out}: commit {made.commits}, step {made.step}, {made.rows} rows")
    print(f"{size(made.bytes)} {how}; {made.put_back} rows put back to the last commit")
    return 0


def run_track(arguments: argparse.Namespace) -> int:
    """Begin to track changes."""
    with Table.open(arguments.table, "r+") as table:
        table.track_changes()
        print(f"changes are tracked; now at commit {table.commits}. Take a snapshot to begin from")
    return 0


def run_export(arguments: argparse.Namespace) -> int:
    """Make a delta."""
    with Table.open(arguments.table) as table:
        made = table.export_delta(arguments.out, since=arguments.since, base=arguments.base)
    _say(arguments.out, made)
    return 0


def run_apply(arguments: argparse.Namespace) -> int:
    """Apply a delta."""
    with Table.open(arguments.table, "r+") as table:
        done = table.apply_delta(arguments.delta)
        where = f"step {table.step}, {table.rows} rows"
    print(f"{arguments.table}: {'now at' if done else 'was already at'} {where}")
    return 0


def run_delta_info(arguments: argparse.Namespace) -> int:
    """Check a delta and say what it holds."""
    _say(arguments.delta, read_delta(arguments.delta))
    return 0


def _say(path: str, delta: Any) -> None:
    last = delta.superblock
    print(f"{path}: commit {delta.since} to {last.commits}, step {last.step}, of {last.uuid}")
    print(f"{delta.rows} of {last.rows} rows, {size(delta.bytes)}")


def run_diff(arguments: argparse.Namespace) -> int:
    """Print what two tables differ in."""
    with (
        Table.open(arguments.first, view="committed") as first,
        Table.open(arguments.second, view="committed") as second,
    ):
        found = diff(first, second)
    said = {name: [str(value) for value in values] for name, values in found.said.items()}
    if arguments.json:
        columns = [column._asdict() for column in found.columns]
        print(json.dumps({"same": found.same, "said": said, "columns": columns}, indent=2))
        return 0 if found.same else 1
    for name, (ours, theirs) in said.items():
        print(f"{name}: {ours} | {theirs}")
    for column in found.columns:
        if column.kind != "rows":
            print(f"{column.name}: {column.kind}")
            continue
        far = (
            "" if column.largest is None else f", by {column.largest:.3g} at most ({column.where})"
        )
        ids = ", ".join(map(str, column.first)) + ("" if column.differ <= 10 else ", ...")
        print(f"{column.name}: {column.differ} of {column.compared} rows differ{far}: {ids}")
    print("the same rows" if found.same else "they differ")
    return 0 if found.same else 1
