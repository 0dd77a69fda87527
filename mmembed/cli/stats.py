"""`mmembed stats`: how much of a table is in memory, and what its writer reads and writes.

Must not know how tables are stored. Of a process, it sees what the system counts.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..storage import Table, probe
from ..storage.process import Counters, counters, dirty_bytes_below
from .inspect import size

DIRTY = "bytes not yet written"


def add_to(commands: Any) -> None:
    """Add the verb `stats`."""
    parser = commands.add_parser(
        "stats",
        help="say how much of a table is in memory, and what its writer reads and writes",
        description="For each column: its bytes, what they take on the disk, and how much is in "
        "memory. For the process that has the table open for writing, if it is on this machine: "
        "major page faults, bytes read from and written to disks, and bytes changed that are not "
        "on the disk yet. What only the process itself knows, such as how many rows and pages it "
        "met and how long it waited, table.stats() says there.",
    )
    parser.add_argument("table")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument(
        "--watch",
        metavar="SECONDS",
        type=float,
        nargs="?",
        const=1.0,
        help="print a line every so many seconds, until interrupted [1]",
    )
    parser.add_argument(
        "--probe",
        metavar="SECONDS",
        type=float,
        default=0.0,
        help="first measure for so long what the disk can read at random, and compare with that",
    )
    parser.add_argument("--count", type=int, metavar="N", help="with --watch: stop after N lines")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print the facts, once or again and again."""
    if arguments.watch is not None:
        if arguments.watch <= 0:
            raise ValueError(f"--watch must be above 0, got {arguments.watch}")
        return _watch(arguments)
    with Table.open(arguments.table) as table:
        facts = _facts(table)
    if limit := _limit(arguments):
        facts["bytes read at random per second"] = limit
    if arguments.json:
        print(json.dumps(facts, indent=2))
        return 0
    if limit:
        print(f"the disk reads {size(limit)} a second at random")
    for name, said in facts["columns"].items():
        print(
            f"{name}: {size(said['bytes'])}, {size(said['on disk'])} on the disk, "
            f"{_share(said['resident'])} in memory"
        )
    if facts["writer"] is None:
        print("no process on this machine has it open for writing")
    else:
        told = ", ".join(
            f"{name} {'unknown' if value is None else _amount(name, value)}"
            for name, value in facts["writer"].items()
        )
        print(f"writer: {told}")
    return 0


def _facts(table: Table) -> dict[str, Any]:
    assert table.path is not None
    columns = {}
    for name in table.columns:
        status = os.stat(table.path / f"{name}.npy")
        pages = table.column_pages(name)
        columns[name] = {
            "bytes": math.prod(table.shape_of(name)) * table.dtype_of(name).itemsize,
            "on disk": status.st_blocks * 512,
            "resident": None if pages is None else pages.resident(),
        }
    pid = _writer(table.path)
    return {
        "columns": columns,
        "writer": None
        if pid is None
        else {"process": pid, **counters(pid), DIRTY: dirty_bytes_below(str(table.path), pid)},
    }


def _limit(arguments: argparse.Namespace) -> float | None:
    """Return what the disk below the table reads at random, if that is asked for."""
    if not arguments.probe:
        return None
    return probe.random_reads(
        probe.largest_file(Path(arguments.table)), seconds=arguments.probe
    ).bytes


def _writer(path: Path) -> int | None:
    """Return the process that has the table open for writing, if it is alive and on this host."""
    text = (path / "LOCK").read_text("ascii", "replace")
    found = re.match(r"process (\d+) on (\S+)", text)
    if found is None or found[2] != os.uname().nodename or not Path("/proc", found[1]).exists():
        return None
    return int(found[1])


def _watch(arguments: argparse.Namespace) -> int:
    before: Counters = {}
    limit = _limit(arguments)
    last = time.monotonic()
    for line in _turns(arguments):
        with Table.open(arguments.table) as table:
            facts = _facts(table)
        now = time.monotonic()
        rates = _rates(before, facts["writer"], now - last)
        before, last = facts["writer"] or {}, now
        if arguments.json:
            print(json.dumps({**facts, "per second": rates}), flush=True)
            continue
        if line % 20 == 0:
            share = "  of the disk" if limit else ""
            print(f"  faults/s      read/s{share}   written/s       dirty  in memory", flush=True)
        told = [f"{name} {_share(said['resident'])}" for name, said in facts["columns"].items()]
        cells = [
            "" if rates.get(name) is None else _amount(name, rates[name] or 0)
            for name in ("major faults", "bytes read", "bytes written")
        ]
        if limit:
            read = rates.get("bytes read")
            cells[1] += f"  {'' if read is None else _share(read / limit):>11}"
        dirty = (facts["writer"] or {}).get(DIRTY)
        cells.append("" if dirty is None else size(dirty))
        print("  ".join([*(f"{cell:>10}" for cell in cells), ", ".join(told)]), flush=True)
    return 0


def _turns(arguments: argparse.Namespace) -> Iterator[int]:
    """Count the lines, a pause before each but the first."""
    turn = 0
    while arguments.count is None or turn < arguments.count:
        yield turn
        turn += 1
        if turn != arguments.count:
            time.sleep(arguments.watch)


def _rates(before: Counters, now: Counters | None, seconds: float) -> dict[str, float | None]:
    """Return what was counted per second since, of the same process; nothing of another."""
    if not now or before.get("process") != now["process"]:
        return {}
    return {
        name: (value - old) / seconds
        for name, value in now.items()
        if name not in ("process", DIRTY)
        and value is not None
        and (old := before.get(name)) is not None
    }


def _share(resident: float | None) -> str:
    return "an unknown part" if resident is None else f"{100 * resident:.3g} %"


def _amount(name: str, value: float) -> str:
    return size(value) if name.startswith("bytes") else f"{value:.0f}"
