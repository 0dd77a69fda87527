"""What checksums of rows cost a training step, and how fast they are compared.

    python benchmarks/row_checksums.py     # half a minute on two cores, 1.2 GB of disk, in --folder

Two tables of 1 million rows of 64 float32 with Adagrad's state, in the page cache, at level
`process`, with and without checksums, take the same steps by turns: batches of 8192 ids,
Zipf(1.05), a commit every 100 steps. Their rows are compared at the end.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import batches
import numpy as np

import mmembed as mm

ROWS, DIM, IDS, COMMIT_EVERY, ROUNDS = 1_000_000, 64, 8192, 100, 8


class Trainer:
    """A table with Adagrad's state."""

    def __init__(self, path: Path, *, checksums: bool) -> None:
        self.table = mm.Table.create(
            path, ROWS, DIM, durability="process", lazy=False, checksums=checksums
        )
        self.layer = mm.nn.Embedding.from_table(self.table, sparse=True)
        self.rule = mm.optim.Adagrad(self.layer.parameters(), lr=0.1)

    def round(self, drawn: list[Any]) -> float:
        """Make a step with each batch, then commit; returns the seconds of a step."""
        begin = time.perf_counter()
        for ids in drawn:
            self.layer(ids).sum().backward()
            self.rule.step()
            self.rule.zero_grad()
        self.table.commit()
        return (time.perf_counter() - begin) / len(drawn)


def main() -> None:
    """Measure, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path)
    with tempfile.TemporaryDirectory(dir=parser.parse_args().folder) as folder:
        trainers = [Trainer(Path(folder, str(on)), checksums=on) for on in (False, True)]
        draw = batches.draw(ROWS, "zipf")
        drawn = [draw((IDS,)) for _ in range(COMMIT_EVERY)]
        times = [[trainer.round(drawn) for trainer in trainers] for _ in range(ROUNDS + 1)][1:]
        plain, checked = (statistics.median(each) for each in zip(*times, strict=True))
        ratio = statistics.median(after / before for before, after in times)
        print(f"step: {plain * 1e3:.2f} ms, with checksums {checked * 1e3:.2f} ms: {ratio:.2f}x")
        for name in trainers[0].table.columns:
            one, other = (trainer.table.read(column=name) for trainer in trainers)
            assert np.array_equal(one, other), name
        for trainer in trainers:
            path = trainer.table.path or ""
            trainer.table.close()
            begin = time.perf_counter()
            found = mm.storage.verify(path, deep=True)
            assert all(finding.state == "ok" for finding in found), found
            print(f"verify --deep: {time.perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
