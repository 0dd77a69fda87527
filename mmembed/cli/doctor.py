"""`mmembed doctor`: what the disk, the system and the memory below a path mean for tables there.

Must not know how tables are read: it asks for facts, and says what follows from them.
"""

from __future__ import annotations

import argparse
import json
import math
import mmap
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .. import memory
from ..storage import Table, device, looks_like_table, probe
from .inspect import size

PAGE = mmap.PAGESIZE


def add_to(commands: Any) -> None:
    """Add the verb `doctor`."""
    parser = commands.add_parser(
        "doctor",
        help="say how fast the disk below a path can be, and what to mind there",
        description="Measure random reads of the disk below a table or folder, and say what its "
        "file system, the kernel and the memory mean for tables there. A folder gets a file of "
        "256 MiB, without a name and gone afterwards.",
    )
    parser.add_argument("path", help="a table, or a folder in which one will be")
    parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parser.add_argument(
        "--seconds", type=float, default=1.0, help="for each of two measurements [%(default)s]"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Print facts and advice."""
    path = Path(arguments.path)
    facts = _facts(path, arguments.seconds)
    advice = list(_advice(facts))
    if arguments.json:
        print(json.dumps({**facts, "advice": advice}, indent=2))
        return 0
    for name, value in facts.items():
        if value is not None:
            print(f"{name:32}  {_told(name, value)}")
    for text in advice:
        print(f"- {text}")
    return 0


def _facts(path: Path, seconds: float) -> dict[str, Any]:
    place = device.below(path)
    facts: dict[str, Any] = {
        "file system": place.file_system,
        "mounted at": place.mount,
        "free bytes": place.free,
        "page bytes": PAGE,
        "bytes read by a page fault": place.readahead,
        "turns": place.rotational,
        "kernel": platform.release(),
        "memory bytes": memory.limit(),
        "dirty pages throttle at": _dirty_limit(),
        **_measured(path, seconds),
    }
    if looks_like_table(path):
        with Table.open(path) as table:
            apart = [name for name in table.columns if name not in table.record_columns]
            widths = [
                table.dtype_of(name).itemsize * math.prod(table.shape_of(name)[1:])
                for name in apart
            ]
            facts["table bytes"] = table.nbytes
            facts["pages touched per row"] = sum(
                _pages_per_row(width) for width in [*widths, table.record_bytes or 0]
            )
    return facts


def _measured(path: Path, seconds: float) -> dict[str, Any]:
    """Return the speed of reads one at a time and many at a time, or why there is none."""
    target = path
    if looks_like_table(path):
        target = probe.largest_file(path)
    try:
        one = probe.random_reads(target, seconds=seconds, depth=1)
        many = probe.random_reads(target, seconds=seconds)
    except (OSError, ValueError) as error:
        return {"not measured": str(error)}
    return {
        "reads per second, one at a time": round(one.reads),
        f"reads per second, {many.depth} at a time": round(many.reads),
        "bytes per second at random": round(many.bytes),
    }


def _pages_per_row(row_bytes: int) -> float:
    """Return how many pages a row touches on average; rows lie one behind the other."""
    return 1 + (row_bytes - math.gcd(row_bytes, PAGE)) / PAGE if row_bytes else 0.0


def _dirty_limit() -> int | None:
    """Return how many dirty bytes make the kernel stop writers, as far as it is known."""
    try:
        given = int(Path("/proc/sys/vm/dirty_bytes").read_text())
        if given:
            return given
        ratio = int(Path("/proc/sys/vm/dirty_ratio").read_text())
    except (OSError, ValueError):
        return None
    return os.sysconf("SC_PHYS_PAGES") * PAGE * ratio // 100


def _advice(facts: dict[str, Any]) -> Iterator[str]:
    kind = facts["file system"]
    if kind in device.NETWORK:
        yield f"{kind} is a network file system: locks and maps of tables are made for local disks"
    if kind in device.IN_MEMORY:
        yield f"{kind} is memory: a table here is no larger than memory, and gone after a restart"
    if kind in device.COPY_ON_WRITE:
        yield (
            f"{kind} writes every changed page elsewhere: space cannot be reserved, and a store "
            "into a full disk ends the process; keep room free"
        )
    readahead = facts["bytes read by a page fault"]
    if readahead is not None and readahead > 1 << 20:
        yield (
            f"a page fault that no lookup has planned reads up to {size(readahead)}: NumPy's maps "
            "and scans of rows in no order suffer; mmembed's lookups switch it off while they plan"
        )
    many = next((v for k, v in facts.items() if k.endswith("at a time") and "one" not in k), None)
    one = facts.get("reads per second, one at a time")
    if many and one:
        yield (
            f"{many / one:.0f} times as many reads a second many at a time as one at a time: that "
            "is what planned lookups gain over page faults, at the most"
        )
        yield f"8192 rows none of which is in memory take {8192 / many * 1e3:.0f} ms"
    if _version(facts["kernel"]) < (5, 10):
        yield f"kernel {facts['kernel']} is older than any that mmembed is tried on (5.10)"
    table, room = facts.get("table bytes"), facts["memory bytes"]
    if table and table > room:
        yield (
            f"the table is {table / room:.1f} times the memory that this process may use: put hot "
            "rows together, and read ahead with mmembed.lookahead"
        )
    touched = facts.get("pages touched per row")
    if touched and touched % 1:
        yield (
            "rows do not divide pages, so some lie across two; a width that is a power of two, or "
            "a table created with layout='records' and stride='page', would touch fewer"
        )


def _version(release: str) -> tuple[int, int]:
    numbers = [int(part) for part in release.replace("-", ".").split(".")[:2] if part.isdigit()]
    return (numbers[0], numbers[1]) if len(numbers) == 2 else (99, 0)


def _told(name: str, value: Any) -> str:
    if "bytes" in name or "throttle" in name:
        return size(value) + (" a second" if "per second" in name else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:.2f}" if isinstance(value, float) else str(value)
