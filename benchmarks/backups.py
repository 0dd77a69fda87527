"""What a delta costs beside a whole copy, and what tracking changes adds to a commit.

    python benchmarks/backups.py          # half a minute on two cores, 2 GB of disk

A table of 1 million rows of 64 float32 with Adagrad's state (516 MB), warm; random rows change, one
commit, then a delta is made for a snapshot of before and applied to it. Tables are compared at the
end. Sizes are those of files, times those of single calls, their syncs included; a commit is the
median of 7 after 150,000 random rows.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mmembed.storage import Table, diff

SHARES = (0.001, 0.01, 0.1)


def timed(call: Callable[[], Any]) -> tuple[Any, float]:
    """Return what a call returns, and how long it took."""
    began = time.perf_counter()
    result = call()
    return result, time.perf_counter() - began


def change(table: Table, count: int, rng: np.random.Generator) -> None:
    """Change random rows in all columns, and commit."""
    rows = np.sort(rng.choice(table.rows, count, replace=False))
    with table.writing(rows) as columns:
        for name in columns:
            columns[name][rows] += 1
    table.commit()


def deltas(folder: Path, rows: int) -> Iterator[str]:
    """Yield lines of what copies and deltas take."""
    rng = np.random.default_rng(0)
    with Table.create(folder / "table", rows, 64) as table:
        table.add_column("weight.adagrad.sum")
        table.track_changes()
        table.commit()
        base = folder / "base"
        made, seconds = timed(lambda: table.snapshot(base))
        _, unchecked = timed(lambda: table.snapshot(folder / "again", checked=False))
        yield f"snapshot: {made.bytes / 1e6:.1f} MB, {seconds:.3f} s; unchecked {unchecked:.3f} s"
        for share in SHARES:
            change(table, int(rows * share), rng)
            path = folder / f"{share}.delta"
            delta, export = timed(lambda path=path: table.export_delta(path, base=base))
            with Table.open(base, "r+") as copy:
                _, applied = timed(lambda path=path, copy=copy: copy.apply_delta(path))
            size = os.path.getsize(path)
            yield (
                f"{share:.1%} changed: delta {size / 1e6:.1f} MB ({made.bytes / size:.0f}x less), "
                f"made in {export:.3f} s ({unchecked / export:.1f}x faster than an unchecked "
                f"copy), applied in {applied:.3f} s"
            )
            assert delta.rows == int(rows * share)
        with Table.open(base) as copy:
            assert diff(table, copy).same


def commits(folder: Path, rows: int) -> Iterator[str]:
    """Yield lines of what a commit takes without and with tracking."""
    rng = np.random.default_rng(1)
    for durability in ("process", "power"):
        took = []
        for tracked in (False, True):
            path = folder / f"{durability} {tracked}"
            with Table.create(path, rows, 64, durability=durability) as table:
                if tracked:
                    table.track_changes()
                table.commit()
                times = []
                for _ in range(7):
                    some = np.sort(rng.choice(rows, rows * 15 // 100, replace=False))
                    with table.writing(some) as columns:
                        columns["weight"][some] += 1
                    times.append(timed(table.commit)[1])
                took.append(1e3 * statistics.median(times))
        yield f"commit, {durability}: {took[0]:.1f} ms; tracked {took[1]:.1f} ms"


def main() -> None:
    """Print all lines."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="on the disk to be measured")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        for lines in (deltas, commits):
            for line in lines(Path(folder), arguments.rows):
                print(line, flush=True)


if __name__ == "__main__":
    main()
