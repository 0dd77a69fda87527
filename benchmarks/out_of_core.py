"""Tables larger than memory: lookups and whole training steps, under a bound on memory.

    python benchmarks/out_of_core.py            # an hour on two cores, 15 GB of disk, root
    python benchmarks/out_of_core.py --quick    # two minutes

A table of 2 GiB (float32, dim 64; with an optimizer's state 4 or 6 GiB), batches of 8192 ids,
uniform or Zipf(1.05), hot rows together ("contiguous") or scattered ("hashed"). Every contestant
runs in a process of its own, inside a control group whose memory, page cache included, is a part of
the bytes of rows and state; it enters when its libraries are loaded and its ids are drawn. What
lookups give is checked. The limit is what the disk does in random reads of a page, 64 at a time,
measured before each run.

Three more questions: `ahead` is forward only, 1024 ids and 5 ms of compute in each step, at 1/10,
against the same in memory; `identical` compares 1000 Adagrad steps at 1/40 with the same in memory,
bit by bit; `warm` is what planning costs where all is in memory.

Peers: NumPy's fancy indexing on a memory map (as it is, and with MADV_RANDOM); two threads that
copy rows from the map and fault (`faults`: our kernel without planning); LMDB and RocksDB with a
row per key; torch over the same files, sparse gradients, with its optimizer's state in a map too.
mmembed trains with its undo journal, forced to the disk before rows change ("process": not forced),
with rows and state in files of their own, or side by side ("records"). No commit falls into a run.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import mmap
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import bounded
import cold_tables
import machine
import numpy as np
from cold_tables import BATCH, DIM, OPTIMIZERS, READERS, TRAINERS

import mmembed as mm
from mmembed.storage import page_calls
from mmembed.storage.probe import random_reads

PARTS = (1, 4, 10, 40)  # the memory is the table's bytes over this
LEAST = 48 << 20  # bytes of memory; with less, the process itself does not run
SMALL = 1024  # ids in a step of `ahead` and `identical`
COMPUTE = 0.005  # seconds of a step of `ahead`
KEYS = ("question", "skew", "part", "name")  # what was asked for a result
Job = dict[str, Any]


# ------------------------------------------------------------------ one contestant, in this process


def compete(job: Job) -> dict[str, Any]:
    """Run one contestant; returns what it did."""
    question = job["question"]
    size = SMALL if question in ("ahead", "identical") else BATCH
    given = cold_tables.batches(job["rows"], job["skew"], job["batches"], size=size)
    if job["name"] == "torch":
        import torch

        torch.set_num_threads(2)
    mm.set_num_threads(2)
    bounded.enter(job)
    return {"ahead": ahead, "identical": identical}.get(question, timed)(job, given)


def timed(job: Job, given: np.ndarray) -> dict[str, Any]:
    """Look up or train batches for some seconds, after half as long to get warm."""
    path, rows, seconds = Path(job["path"]), job["rows"], job["seconds"]
    close: Callable[[], None] = lambda: None  # noqa: E731
    if job["question"] == "lookup":
        step = cold_tables.reader(job["name"], path, rows)
    else:
        step, close = cold_tables.trainer(job["name"], job["question"], path, rows)
    if not job["part"]:  # all of it fits
        np.load(path / "weight.npy", mmap_mode="r").sum()
    warm = time.perf_counter() + seconds / 2
    left = iter(given)
    for ids in itertools.islice(left, len(given) // 2):
        step(ids)
        if time.perf_counter() > warm:
            break
    done, before, start = 0, _counters(), time.perf_counter()
    for ids in left:
        out = step(ids)
        done += ids.size
        if time.perf_counter() > start + seconds:
            break
    took = time.perf_counter() - start
    faults, read, written = (b - a for a, b in zip(before, _counters(), strict=True))
    if job["question"] == "lookup":
        found = np.asarray(out)[:, [0, -1]]
        np.testing.assert_array_equal(found, cold_tables.first_rows(ids))
    close()
    return {
        "ids per second": done / took,
        "batches": done // BATCH,
        "major faults per id": faults / done,
        "pages read per second": read / mmap.PAGESIZE / took,
        "pages written per second": written / mmap.PAGESIZE / took,
        "pages read per id": read / mmap.PAGESIZE / done,
        "pages written per id": written / mmap.PAGESIZE / done,
    }


def _counters() -> tuple[int, int, int]:
    """Return major faults, and bytes read from and written to the disk, of this process."""
    said = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return page_calls.major_faults(), int(said["read_bytes"]), int(said["write_bytes"])


def ahead(job: Job, given: np.ndarray) -> dict[str, Any]:
    """Look batches up, with some milliseconds of compute on one core in between."""
    table = mm.Table.open(job["path"])
    if job["name"] == "in memory":
        table = mm.Table.from_array(table[:])
    emb = mm.Embedding.from_table(table, freeze=True)
    work = np.random.default_rng(0).random((64, 64))
    batches: Any = mm.lookahead(given, emb) if job["name"] == "lookahead" else given
    times = []
    begin = time.perf_counter()
    for ids in batches:
        emb(ids)
        end = time.perf_counter() + COMPUTE
        while time.perf_counter() < end:
            work @ work
        times.append(time.perf_counter() - begin)
        begin = time.perf_counter()
        if sum(times) > 1.5 * job["seconds"]:
            break
    later = times[len(times) // 3 :]
    said = {"milliseconds per step": 1e3 * sum(later) / len(later), "batches": len(later)}
    if job["name"] == "lookahead":
        said |= {"depth": batches.depth, "late": batches.late}
    return said


def identical(job: Job, given: np.ndarray) -> dict[str, Any]:
    """Train 1000 steps; returns digests of rows and state."""
    rows, path = job["rows"], Path(job["path"])
    if job["name"] == "in memory":
        start = np.array(np.load(path / "weight.npy", mmap_mode="r"))
        emb = mm.Embedding(rows, DIM, sparse=True, _weight=start)
    else:
        copy = path.parent / "copy"
        shutil.copytree(path, copy)
        cold_tables.forget(copy)
        emb = mm.Embedding(rows, DIM, sparse=True, path=copy)
    rule = mm.optim.Adagrad(emb.parameters(), lr=0.01)
    begin = time.perf_counter()
    for ids in mm.lookahead(given[:1000], emb):
        rule.zero_grad()
        rows_of = emb(ids)
        (rows_of * rows_of).sum().backward()
        rule.step()
    took = time.perf_counter() - begin
    digests = {}
    for name in ("weight", "weight.adagrad.sum"):
        digest = hashlib.sha256()
        for first in range(0, rows, 1 << 16):
            digest.update(emb.table.column(name)[first : first + (1 << 16)])
        digests[name] = digest.hexdigest()
    emb.table.close(commit=False)
    shutil.rmtree(path.parent / "copy", ignore_errors=True)
    return {"digests": digests, "steps per second": min(1000, len(given)) / took}


# ------------------------------------------------------------------------------------ the whole run


def run(job: Job, limit: int) -> dict[str, Any]:
    """Run one contestant in a process with `limit` bytes of memory, starting from the disk."""
    cold_tables.forget(Path(job["path"]).parent)
    return bounded.run(__file__, job, limit)


def jobs(arguments: argparse.Namespace) -> Iterator[Job]:
    """Yield what is asked: questions, skews, parts, contestants."""
    for question in arguments.questions:
        if question == "ahead":
            for name, part in (("in memory", 0), ("mmembed", 10), ("lookahead", 10)):
                yield {"question": question, "skew": "hashed", "part": part, "name": name}
            continue
        if question == "identical":
            for name, part in (("in memory", 0), ("mmembed", 40)):
                yield {"question": question, "skew": "hashed", "part": part, "name": name}
            continue
        if question == "warm":
            for name in ("mmembed", "faults", "mmembed", "faults"):
                yield {"question": "lookup", "skew": "uniform", "part": 0, "name": name}
            continue
        names = arguments.readers if question == "lookup" else arguments.trainers
        for skew, part, name in itertools.product(arguments.skews, arguments.parts, names):
            yield {"question": question, "skew": skew, "part": part, "name": name}


def prepare(path: Path, rows: int, job: Job) -> None:
    """Make what a contestant reads, outside any bound, if it is not there.

    `path` : the table; its name says of which kind it is, so that each is made once.
    """
    optimizer = job["question"] if job["question"] in OPTIMIZERS else None
    if not path.exists():
        for other in path.parent.glob("table*"):  # room on the disk is for one
            shutil.rmtree(other)
        state = getattr(mm.optim, optimizer).columns_for() if optimizer else {}
        cold_tables.make_table(path, rows, cold_tables.kind(job["name"]), state)
    if job["name"] in ("LMDB", "RocksDB") and not (path.parent / job["name"]).exists():
        cold_tables.make_store(job["name"], path, rows)


def place(folder: Path, job: Job) -> Path:
    """Return where the table of a contestant is."""
    if job["question"] not in OPTIMIZERS:
        return folder / "table"
    return folder / f"table {job['question']} {'-'.join(cold_tables.kind(job['name']).values())}"


def mixed_limit(folder: Path, writes: float, seconds: float, depth: int = 64) -> float:
    """Return how many pages a second the disk reads and writes at random, past the page cache."""
    file = folder / "mixed"
    if not file.exists():
        file.write_bytes(os.urandom(1 << 20) * 512)
        cold_tables.forget(file)
    fd = os.open(file, os.O_RDWR | os.O_DIRECT)
    done = [0] * depth
    stop = time.perf_counter() + seconds

    def move(lane: int) -> None:
        generator = np.random.default_rng(lane)
        page = mmap.mmap(-1, mmap.PAGESIZE)
        while time.perf_counter() < stop:
            for offset in (generator.integers(0, 1 << 17, 16) << 12).tolist():
                if generator.random() < writes:
                    os.pwritev(fd, [page], offset)
                else:
                    os.preadv(fd, [page], offset)
            done[lane] += 16

    threads = [threading.Thread(target=move, args=(lane,)) for lane in range(depth)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    os.close(fd)
    return sum(done) / seconds


def measure(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run what is asked, until the time is up, and return the results."""
    rows = arguments.megabytes * (1 << 20) // (4 * DIM)
    results: list[dict[str, Any]] = []
    end = time.monotonic() + 60 * arguments.minutes
    # One kind of table after the other, as each is made once.
    for job in sorted(jobs(arguments), key=lambda job: str(place(folder, job))):
        if time.monotonic() > end:
            print(f"skipped, the time is up: {', '.join(str(job[name]) for name in KEYS)}")
            continue
        path = place(folder, job)
        prepare(path, rows, job)
        columns = 1 + OPTIMIZERS.get(job["question"], 0) + (job["question"] == "identical")
        whole = columns * rows * 4 * DIM
        limit = max(LEAST, whole // job["part"]) if job["part"] else 1 << 45
        largest = max(path.glob("*.npy"), key=lambda file: file.stat().st_size)
        speed = random_reads(largest, seconds=arguments.seconds / 4)
        asked = {"path": str(path), "rows": rows, "seconds": arguments.seconds}
        did = run({**job, **asked, "batches": arguments.batches}, limit)
        result = {**job, "limit bytes": limit, "disk reads per second": speed.reads, **did}
        if (written := did.get("pages written per second", 0)) > 0:
            share = written / (written + did["pages read per second"])
            result["disk pages per second at this mix"] = mixed_limit(
                folder, share, arguments.seconds / 4
            )
        results.append(result)
        print(line(result), flush=True)
    about = {"rows": rows, "dim": DIM, "batch": BATCH, "seconds": arguments.seconds}
    return {"machine": machine.describe("torch"), **about, "runs": results}


def line(result: dict[str, Any]) -> str:
    """Return a result as a row of a Markdown table."""
    part = f"1/{result['part']}" if result["part"] else "unbounded"
    cells = [result["question"], result["skew"], part, result["name"]]
    if "ids per second" not in result:
        keys = ("failed", "milliseconds per step", "depth", "late", "steps per second", "digests")
        cells += [f"{result[key]} {key}" for key in keys if key in result]
        return "| " + " | ".join(cells) + " |"
    moved = result["pages read per second"] + result["pages written per second"]
    limit = result.get("disk pages per second at this mix", result["disk reads per second"])
    cells += [
        f"{result['ids per second'] / 1e3:.0f} k ids/s",
        f"{result['pages read per id']:.2f} read",
        f"{result['pages written per id']:.2f} written",
        f"{result['major faults per id']:.4f} faults",
        f"{moved / limit:.2f} of {limit / 1e3:.0f} k pages/s",
    ]
    return "| " + " | ".join(cells) + " |"


def draw(results: dict[str, Any], target: Path) -> None:
    """Write a picture: ids a second against the memory, a panel per question and skew."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    runs = [one for one in results["runs"] if "ids per second" in one and one["part"]]
    panels = list(dict.fromkeys((one["question"], one["skew"]) for one in runs))
    if not panels:
        return
    wide = min(3, len(panels))
    high = -(-len(panels) // wide)
    size = (4.5 * wide, 3.5 * high)
    figure, axes = pyplot.subplots(high, wide, figsize=size, squeeze=False, layout="constrained")
    for axis, (question, skew) in zip(axes.flat, panels, strict=False):
        here = [one for one in runs if (one["question"], one["skew"]) == (question, skew)]
        for name in dict.fromkeys(one["name"] for one in here):
            points = sorted((1 / one["part"], one["ids per second"]) for one in here
                            if one["name"] == name)  # fmt: skip
            axis.loglog(*zip(*points, strict=True), marker="o", label=name)
        axis.set(title=f"{question}, {skew}", xlabel="memory / table", ylabel="ids per second")
        axis.legend(fontsize="small")
    figure.savefig(target, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--megabytes", type=int, default=2048, help="of rows [%(default)s]")
    parser.add_argument("--seconds", type=float, default=6.0, help="for each run [%(default)s]")
    parser.add_argument("--batches", type=int, default=1200, help="at most [%(default)s]")
    parser.add_argument("--parts", type=int, nargs="+", default=PARTS)
    parser.add_argument("--skews", nargs="+", default=["uniform", "hashed", "contiguous"])
    questions = ["lookup", "ahead", "warm", "identical", *OPTIMIZERS]
    parser.add_argument("--questions", nargs="+", default=questions, choices=questions)
    parser.add_argument("--readers", nargs="+", default=READERS)
    parser.add_argument("--trainers", nargs="+", default=TRAINERS)
    parser.add_argument(
        "--minutes", type=float, default=60, help="start no run after [%(default)s]"
    )
    quick = "256 MiB of rows, 2 seconds a run, hashed ids, a tenth of the memory, one optimizer"
    parser.add_argument("--quick", action="store_true", help=quick)
    parser.add_argument("--folder", default=None, help="a folder on the disk to be measured")
    parser.add_argument("--out", default="out_of_core", help="name of the result file")
    parser.add_argument("--add", action="store_true", help="to what the result file has")
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(compete(arguments.job)))
        return
    if arguments.quick:
        arguments.megabytes, arguments.seconds, arguments.batches = 256, 2.0, 400
        arguments.parts, arguments.skews = [10], ["hashed"]
        arguments.questions = ["lookup", "ahead", "Adagrad"]
    if reason := bounded.unavailable():
        print(f"skipped: {reason}")
        return
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        results = measure(arguments, Path(folder))
    path = machine.folder(arguments.quick) / f"{arguments.out}.json"
    if arguments.add:
        results["runs"] = bounded.kept(path, results["runs"], KEYS)
    path = machine.save(arguments.out, results, arguments.quick)
    draw(results, path.with_suffix(".png"))
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
