"""What a table costs that is made without its rows, against one that has them from the start.

    python benchmarks/lazy_rows.py         # a minute on two cores, 5 GB of disk, in --folder

Creation: seconds, and bytes on the disk, of 10^9 rows of 64 float32, which are 256 GB. Lookups and
steps are of 8192 uniform ids, of two tables of 1 GiB, one lazy and one not, timed in turn. First
steps meet blocks that nobody has written; a step is a lookup, its backward and Adagrad. The others
are of rows that have been trained before, and are in memory. Rows are compared.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import machine
import numpy as np

import mmembed as mm

DIM = 64
IDS = 8192


def create(folder: Path, rows: int) -> dict[str, float]:
    """Return what making and closing a table costs."""
    begin = time.perf_counter()
    table = mm.Table.create(folder / "large", rows, DIM, lazy=True)
    seconds = time.perf_counter() - begin
    used = sum(file.stat().st_blocks * 512 for file in (folder / "large").iterdir())
    table.close()
    return {"rows": rows, "seconds": seconds, "bytes on disk": used}


class Trained:
    """A table with Adagrad's state, and steps on it."""

    def __init__(self, path: Path, rows: int, *, lazy: bool) -> None:
        self.table = mm.Table.create(path, rows, DIM, durability="process", lazy=lazy)
        self.layer = mm.nn.Embedding.from_table(self.table, sparse=True)
        self.adagrad = mm.optim.Adagrad(self.layer.parameters(), lr=0.1)

    def step(self, ids: Any) -> None:
        """Make one step."""
        self.layer(ids).sum().backward()
        self.adagrad.step()
        self.adagrad.zero_grad()

    def lookup(self, ids: Any) -> Any:
        """Return rows."""
        with mm.no_grad():
            return self.layer(ids)


def median_ratio(
    first: Callable[[Any], object], second: Callable[[Any], object], batches: list[Any]
) -> tuple[float, float, float]:
    """Time two calls in turn over batches; returns the medians, and that of second / first."""
    times: list[tuple[float, float]] = []
    for number, ids in enumerate(batches):
        pair = []
        for call in (first, second) if number % 2 == 0 else (second, first):
            begin = time.perf_counter()
            call(ids)
            pair.append(time.perf_counter() - begin)
        times.append((pair[0], pair[1]) if number % 2 == 0 else (pair[1], pair[0]))
    a, b = (statistics.median(column) for column in zip(*times, strict=True))
    return a, b, statistics.median(y / x for x, y in times)


def measure(folder: Path, rows: int, steps: int, lookups: int) -> dict[str, Any]:
    """Return the seconds of lookups and steps of both tables, and their ratios."""
    lazy, eager = (Trained(folder / name, rows, lazy=name == "lazy") for name in ("lazy", "eager"))
    rng = np.random.default_rng(0)
    first = [rng.integers(0, rows, IDS) for _ in range(steps)]
    for trained in (lazy, eager):  # the other allocates what it needs once as well
        trained.step(first[0])
    e, n, touched = median_ratio(eager.step, lazy.step, first[1:])
    again = [first[i % steps] for i in range(2 * steps)]
    w, s, warm = median_ratio(eager.step, lazy.step, again)
    assert np.array_equal(lazy.table[first[-1]], eager.table[first[-1]])
    met = np.concatenate(first)
    batches = [rng.choice(met, IDS) for _ in range(lookups)]
    for ids in batches[:8]:
        assert np.array_equal(lazy.lookup(ids).numpy(), eager.lookup(ids).numpy())
    lookup_eager, lookup_lazy, machinery = median_ratio(eager.lookup, lazy.lookup, batches)
    lazy.table.close()
    eager.table.close()
    return {
        "rows": rows,
        "first step of blocks": {"eager": e, "lazy": n, "lazy / eager": touched},
        "step of trained rows": {"eager": w, "lazy": s, "lazy / eager": warm},
        "lookup of written rows": {
            "eager": lookup_eager,
            "lazy": lookup_lazy,
            "lazy / eager": machinery,
        },
    }


def main() -> None:
    """Measure, print and write results/lazy_rows.json."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path.cwd())
    parser.add_argument("--quick", action="store_true", help="small tables")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.folder) as name:
        folder = Path(name)
        made = create(folder, 10**9)
        rows, steps, lookups = (50_000, 4, 8) if arguments.quick else (1 << 22, 40, 400)
        found = {"create": made, **measure(folder, rows, steps, lookups)}
    print(json.dumps(found, indent=2))
    if not arguments.quick:
        out = Path(__file__).parent / "results" / "lazy_rows.json"
        out.write_text(json.dumps({"machine": machine.describe(), **found}, indent=2) + "\n")


if __name__ == "__main__":
    main()
