"""What durability costs a training step, at both levels, beside what the disk itself takes.

    python benchmarks/durability.py       # two minutes on two cores, 2 GB of memory and of disk

A table of 1 million rows of 64 float32 with Adagrad's state, in the page cache; batches of 8192
ids, Zipf(1.05); a commit every 100 steps. "files" is the same table without a journal and without a
sync: it promises nothing. "power, ahead" has its batches through `mm.lookahead`, so that rows of
the next one are saved early. "compute" adds work of 10 ms between lookup and update to each step.
All contestants take the same steps, and their rows are compared at the end. "the disk" is what it
takes this disk to write, in one go, as many bytes as the journal and the commit of level "power"
write, per step: nobody who waits for them can be faster.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import os
import shutil
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import batches
import contest
import machine
import numpy as np

import mmembed as mm

COMMIT_EVERY = 100
LEVELS = ("memory", "files", "process", "power", "power, ahead")
TARGETS = {  # the most that a step may take, as a multiple of one of "files"
    ("step alone", "process"): 1.05,
    ("step alone", "power"): 1.25,
    ("step with 10 ms of compute", "process"): 1.05,
    ("step with 10 ms of compute", "power"): 1.05,
}


class Trainer:
    """A table, and rounds of steps with a commit at the end of each."""

    def __init__(self, place: Path | None, level: str, shape: tuple[int, int], batch: int) -> None:
        rows, dim = shape
        durability = "power" if level.startswith("power") else "process"
        self.table = mm.Table.create(place, rows, dim, durability=durability, lazy=False)
        self.free = level == "files"
        if self.free:
            self.table._store._files.journal.save = lambda rows, columns: None  # type: ignore
            self.table._store._files.journal.save_ahead = lambda rows, columns: None  # type: ignore
        self.layer = mm.nn.Embedding.from_table(self.table, sparse=True)
        self.rule = mm.optim.Adagrad(self.layer.parameters(), lr=0.1)
        draw = batches.draw(rows, "zipf")
        drawn = itertools.cycle([draw((batch,)) for _ in range(2 * COMMIT_EVERY)])
        ahead = level.endswith("ahead")
        self.batches = iter(mm.lookahead(drawn, self.layer)) if ahead else drawn
        upstream = np.random.default_rng(0).standard_normal((batch, dim), dtype=np.float32)
        self.upstream = mm.tensor(upstream)

    def round(self, compute: float = 0.0) -> None:
        for _ in range(COMMIT_EVERY):
            self.rule.zero_grad()
            out = self.layer(next(self.batches))
            if compute:
                busy(compute)
            out.backward(self.upstream)
            self.rule.step()
        self.table.commit()

    def close(self) -> None:
        if self.free:  # nothing was saved, so there is nothing to undo
            self.table._store._pending = False  # type: ignore
        self.table.close()


def busy(seconds: float) -> None:
    """Compute as a model does: in NumPy, on one core."""
    work = np.ones(20_000, np.float32)
    end = time.perf_counter() + seconds
    while time.perf_counter() < end:
        np.tanh(work, out=work)


def bytes_of_an_epoch(trainer: Trainer, batch: int) -> tuple[int, int]:
    """Bytes that the records, and the pages of the rows, of 100 steps have."""
    rows, dim = trainer.table.rows, trainer.table.dim
    draw = batches.draw(rows, "zipf")
    touched = np.unique(np.concatenate([draw((batch,)) for _ in range(COMMIT_EVERY)]))
    pages = np.unique(touched * dim * 4 // 4096).size
    return touched.size * (8 + 2 * 4 * dim), 2 * 4096 * pages


def disk(folder: Path, record: int, pages: int) -> dict[str, float]:
    """Seconds that the disk takes for one small sync, one record's, and an epoch's bytes."""
    data = os.urandom(1 << 20)
    fd = os.open(folder / "disk", os.O_RDWR | os.O_CREAT)
    os.posix_fallocate(fd, 0, record * COMMIT_EVERY + pages)

    def write(count: int) -> float:
        for at in range(0, count, len(data)):
            os.pwrite(fd, data[: count - at], at)
        begin = time.perf_counter()
        os.fdatasync(fd)
        return time.perf_counter() - begin

    write(record * COMMIT_EVERY + pages)  # blocks that were written before are written faster
    try:
        return {
            "fdatasync of 4 kB": statistics.median(write(4096) for _ in range(20)),
            "fdatasync of a record": statistics.median(write(record) for _ in range(20)),
            "an epoch": statistics.median(write(record * COMMIT_EVERY + pages) for _ in range(3)),
        }
    finally:
        os.close(fd)


def contests(folder: Path, size: float, seconds: float) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    shape, batch = (round(1_000_000 * size), 64), round(8192 * size)
    trainers = {
        level: Trainer(None if level == "memory" else folder / level, level, shape, batch)
        for level in LEVELS
    }
    journal, pages = bytes_of_an_epoch(trainers["memory"], batch)
    took = disk(folder, journal // COMMIT_EVERY, pages)
    for compute in (0.0, 0.01):
        title = "step with 10 ms of compute" if compute else "step alone"
        runs = {level: functools.partial(t.round, compute) for level, t in trainers.items()}
        about = {
            "question": "durability",
            "compute": compute,
            "journal bytes": journal,
            "page bytes": pages,
            "disk": took,
        }
        one = contest.run(title, runs, "files", seconds, least=3, about=about)
        steps = {k: [t / COMMIT_EVERY for t in times] for k, times in one.times.items()}
        yield one._replace(times=steps)
    rows = trainers["memory"].table[:]
    for level, trainer in trainers.items():
        assert np.array_equal(trainer.table[:], rows), level
        trainer.close()


def report(done: list[contest.Contest]) -> str:
    """Multiples of a step of "files", beside the targets and what the disk allows."""
    about = done[0].about
    took, moved = about["disk"], about["journal bytes"] + about["page bytes"]
    lines = [contest.table(done), "", "| | | times a step | at most |", "|---|---|---|---|"]
    for one in done:
        speeds = one.speeds()
        for level in LEVELS[2:]:
            most = TARGETS.get((one.title, level.split(",")[0]))
            verdict = "reached" if 1 / speeds[level] <= most else "missed"
            lines.append(f"| {one.title} | {level} | {1 / speeds[level]:.2f} | {most} {verdict} |")
        step = one.medians()["files"]
        bound = 1 + took["an epoch"] / COMMIT_EVERY / step
        lines.append(f"| {one.title} | power, if only the disk were waited for | {bound:.2f} | |")
    lines.append("")
    lines += [f"- {what}: {1e3 * seconds:.2f} ms" for what, seconds in took.items()]
    lines.append(
        f"- bytes of an epoch: {moved / 1e6:.0f} MB, which is "
        f"{moved / took['an epoch'] / 1e9:.2f} GB/s"
    )
    return "\n".join(lines)


def draw(done: list[contest.Contest], path: Path) -> None:
    """Draw milliseconds of a step, level by level."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, both = pyplot.subplots(1, 2, figsize=(8, 3))
    for axes, one in zip(both, done, strict=True):
        took = {name: 1e3 * value for name, value in one.medians().items()}
        bars = axes.barh(list(took), list(took.values()), color="#1f6f8b")
        axes.bar_label(bars, fmt="%.2f", fontsize=6, padding=2)
        base = took["files"]
        for level, most in (
            (key[1], value) for key, value in TARGETS.items() if key[0] == one.title
        ):
            at = list(took).index(level)
            axes.plot([most * base] * 2, [at - 0.4, at + 0.4], color="black", linewidth=1)
        axes.invert_yaxis()
        axes.tick_params(labelsize=6)
        axes.set_title(f"{one.title}, ms; black: the target", fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=130, metadata={"Software": None})
    pyplot.close(figure)


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
    print(report(done))
    said = {
        "machine": machine.describe(),
        "threads": arguments.threads,
        "contests": [one.as_dict() for one in done],
    }
    path = machine.save("durability", said)
    draw(done, path.with_suffix(".png"))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
