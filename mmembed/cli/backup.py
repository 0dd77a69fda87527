"""`mmembed snapshot`: a copy of a table, as of its last commit.

Must not know how tables are stored or copied.
"""

from __future__ import annotations

import argparse
from typing import Any

from ..storage import Table
from .inspect import size


def add_to(commands: Any) -> None:
    """Add the verb."""
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


def run_snapshot(arguments: argparse.Namespace) -> int:
    """Make the copy, and say what it is."""
    with Table.open(arguments.table) as table:
        made = table.snapshot(arguments.out)
    how = "on shared blocks" if made.shared else "copied and compared"
    print(f"{arguments.out}: commit {made.commits}, step {made.step}, {made.rows} rows")
    print(f"{size(made.bytes)} {how}; {made.put_back} rows put back to the last commit")
    return 0
