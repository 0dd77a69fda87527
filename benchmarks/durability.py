"""What durability costs a training step, at both levels.

    python benchmarks/durability.py       # two minutes on two cores, 2 GB of memory and of disk

A table of 1 million rows of 64 float32 with Adagrad's state, in the page cache; batches of 8192
ids, Zipf(1.05); a commit every 100 steps. "files" is the same table without a journal and without a
sync: it promises nothing. "compute" adds work of 10 ms between lookup and update to each step. All
contestants take the same steps, and their rows are compared at the end.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import contest
import lookups
import machine
import numpy as np

import mmembed as mm

COMMIT_EVERY = 100


class Trainer:
    """A table, and rounds of steps with a commit at the end of each."""

    def __init__(self, place: Path | None, level: str, shape: tuple[int, int], batch: int) -> None:
        rows, dim = shape
        durability = level if level in ("power", "process") else "process"
        self.table = mm.Table.create(place, rows, dim, durability=durability)
        self.durable = level in ("power", "process")
        if level == "files":
            self.table._store._files.journal.save = lambda rows, columns: None  # type: ignore
            self.table._store._files.journal.save_ahead = lambda rows, columns: None  # type: ignore
        self.layer = mm.nn.Embedding.from_table(self.table, sparse=True)
        self.rule = mm.optim.Adagrad(self.layer.parameters(), lr=0.1)
        rng = np.random.default_rng(0)
        self.batches = itertools.cycle(
            [lookups.ids_over(rows, (batch,), "zipf", rng) for _ in range(2 * COMMIT_EVERY)]
        )
        self.upstream = mm.tensor(rng.standard_normal((batch, dim), dtype=np.float32))

    def round(self, compute: float = 0.0) -> None:
        for _ in range(COMMIT_EVERY):
            self.rule.zero_grad()
            out = self.layer(next(self.batches))
            if compute:
                busy(compute)
            out.backward(self.upstream)
            self.rule.step()
        self.table.commit()


def busy(seconds: float) -> None:
    """Compute as a model does: in NumPy, on one core."""
    work = np.ones(20_000, np.float32)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.tanh(work, out=work)


def contests(folder: Path, size: float, seconds: float) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    shape, batch = (round(1_000_000 * size), 64), round(8192 * size)
    levels = ("memory", "files", "process", "power")
    trainers = {
        level: Trainer(None if level == "memory" else folder / level, level, shape, batch)
        for level in levels
    }
    for title, compute in (("step alone", 0.0), ("step with 10 ms of compute", 0.01)):
        runs = {level: functools.partial(t.round, compute) for level, t in trainers.items()}
        one = contest.run(title, runs, "files", seconds, least=3)
        steps = {k: [t / COMMIT_EVERY for t in times] for k, times in one.times.items()}
        yield one._replace(times=steps)
    rows = trainers["memory"].table[:]
    for level, trainer in trainers.items():
        assert np.array_equal(trainer.table[:], rows), level
        if not trainer.durable and level == "files":
            trainer.table._store._pending = False  # type: ignore
        trainer.table.close()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=40.0, help="for each question")
    parser.add_argument("--folder", help="where tables are made; a new one in the present folder")
    arguments = parser.parse_args()
    mm.set_num_threads(arguments.threads)
    folder = Path(tempfile.mkdtemp(prefix="durability-", dir=arguments.folder or "."))
    try:
        done = list(contests(folder, 1.0, arguments.seconds))
    finally:
        shutil.rmtree(folder)
    print(contest.table(done))
    said = {
        "machine": machine.describe(),
        "threads": arguments.threads,
        "contests": [one.as_dict() for one in done],
    }
    print(f"wrote {machine.save('durability', said)}")


if __name__ == "__main__":
    main()
