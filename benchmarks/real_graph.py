"""A knowledge graph larger than memory: embeddings of human genes and what is known of them.

    apt-get download r-bioc-org.hs.eg.db                 # 37 MB; unpacked where it lies
    python benchmarks/real_graph.py --packages .         # ten minutes, 16 GB of disk, root

2.6 million entities and 4.1 million triples (gene, relation, entity) in 20 relations. DistMult
(arXiv:1412.6575) out of public parts: one lookup of heads, tails and entities drawn at random, the
logits of a tail against those drawn, softmax, Adagrad. 256 numbers a row; rows and state are five
times the memory of a control group, page cache included; they are in files of their own, or side by
side (records). The same steps are taken with all rows in memory, and the losses of every step
compared.

`shuffled` draws triples in no order, so nearly every tail is a page of its own. `by gene` takes
genes in no order, each with all of its triples: tails known of one gene only lie side by side.

Skipped, with the reason, where the package is not there, no group can bound memory, or memory or
disk do not have room.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bounded
import cold_tables
import gene_graph
import machine
import numpy as np

import mmembed as mm
from mmembed.storage import process
from mmembed.storage.probe import random_reads

DIM, TRIPLES, NEGATIVES = 256, 4096, 512  # of a row; of a batch
ORDERS = ("shuffled", "by gene")
NAMES = ("in memory", "on disk", "on disk, lookahead", "records, lookahead")
WARM = 3  # one of so many steps is not counted, at the beginning
PARTS = 5  # rows and state over memory
LEAST = 48 << 20  # bytes of memory; with less, the process itself does not run


def batches(triples: np.ndarray, entities: int, order: str, size: int) -> Iterator[Any]:
    """Yield (ids of heads, tails and negatives in one array, relations), again and again."""
    rng = np.random.default_rng(0)
    while True:
        if order == "shuffled":
            places = rng.permutation(len(triples))
        else:
            genes = rng.permutation(int(triples[:, 0].max()) + 1)
            places = np.argsort(genes[triples[:, 0]], kind="stable")
        for first in range(0, len(places) - size + 1, size):
            heads, relations, tails = triples[places[first : first + size]].T
            negatives = rng.integers(0, entities, size // 8)
            yield np.concatenate([heads, tails, negatives]), relations


class DistMult(mm.nn.Module):
    """Logits of the true tail, then of the negatives, which a batch shares."""

    def __init__(self, entities: mm.Embedding, relations: int, size: int) -> None:
        super().__init__()
        self.entities = entities
        self.relations = mm.Embedding(relations, entities.embedding_dim)
        self.size = size

    def forward(self, ids: np.ndarray, relations: np.ndarray) -> Any:
        rows = self.entities(ids)
        heads, tails = rows[: self.size], rows[self.size : 2 * self.size]
        wanted = heads * self.relations(relations)
        true = (wanted * tails).sum(-1, keepdim=True)
        return mm.cat([true, wanted @ rows[2 * self.size :].mT], 1)


def compete(job: bounded.Job) -> dict[str, Any]:
    """Train some steps; returns losses and times."""
    triples, size = np.load(job["triples"]), job["size"]
    mm.set_num_threads(2)
    mm.manual_seed(0)
    bounded.enter(job)
    if job["name"] == "in memory":
        table = mm.Table.create(None, job["entities"], job["dim"], init=job["init"])
    else:
        table = mm.Table.open(job["path"], "r+")
    model = DistMult(mm.Embedding.from_table(table, sparse=True), job["relations"], size)
    rule = mm.optim.Adagrad(model.parameters(), lr=0.1)
    given: Any = itertools.islice(
        batches(triples, job["entities"], job["order"], size), job["steps"]
    )
    if job["name"].endswith("lookahead"):
        given = mm.lookahead(given, model.entities)
    answers = np.zeros(size, np.int64)
    losses, times, counts = [], [time.perf_counter()], [process.counters()]
    for ids, relations in given:
        rule.zero_grad()
        loss = mm.functional.cross_entropy(model(ids, relations), answers)
        loss.backward()
        rule.step()
        losses.append(loss.item())
        times.append(time.perf_counter())
        counts.append(process.counters())
    said = {"losses": losses, **_rates(times, counts)}
    if job["digest"]:
        said["digest"] = _digest(table)
    table.close(commit=False)
    return said


def _rates(times: list[float], counts: list[process.Counters]) -> dict[str, float]:
    """Return speed, and pages moved, after the first steps."""
    first = len(times) // WARM
    steps = len(times) - 1 - first
    said = {"seconds per step": (times[-1] - times[first]) / steps}
    for name, what in (("bytes read", "pages read"), ("bytes written", "pages written")):
        before, after = counts[first][name], counts[-1][name]
        if before is not None and after is not None:
            said[f"{what} per step"] = (after - before) / 4096 / steps
    return said


def _digest(table: mm.Table) -> str:
    digest = hashlib.sha256()
    for name in sorted(table.columns):
        for first in range(0, table.rows, 1 << 16):
            digest.update(np.ascontiguousarray(table.column(name)[first : first + (1 << 16)]))
    return digest.hexdigest()


def prepare(path: Path, job: bounded.Job) -> None:
    """Make the table on disk, with its state, unless it is there; all of it is written."""
    if path.exists():
        return
    layout = "records" if path.name.endswith("records") else "columns"
    state = mm.optim.Adagrad.columns_for()
    rows, dim = job["entities"], job["dim"]
    init, beside = job["init"], {"columns": state, "layout": layout}
    mm.Table.create(path, rows, dim, init=init, lazy=False, **beside).close()


def measure(graph: gene_graph.Graph, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all contestants and return the results."""
    triples = folder / "triples.npy"
    np.save(triples, graph.triples)
    whole = 2 * graph.entities * arguments.dim * 4
    job = {
        "triples": str(triples), "entities": graph.entities,
        "relations": len(gene_graph.TABLES), "dim": arguments.dim, "size": arguments.triples,
        "steps": arguments.steps, "init": "normal(0, 0.1)", "digest": arguments.digest,
    }  # fmt: skip
    runs: list[dict[str, Any]] = []
    for order, name in itertools.product(arguments.orders, arguments.names):
        path = folder / ("genes, records" if name.startswith("records") else "genes")
        prepare(path, job)
        cold_tables.forget(path)
        limit = 1 << 45 if name == "in memory" else max(LEAST, whole // PARTS)
        largest = max(path.glob("*.npy"), key=lambda file: file.stat().st_size)
        speed = random_reads(largest, seconds=1.0)
        given = {**job, "path": str(path), "order": order, "name": name}
        did = bounded.run(__file__, given, limit)
        runs.append({"order": order, "name": name, "limit bytes": limit,
                     "disk reads per second": speed.reads, **did})  # fmt: skip
        compared(runs)
        print(line(runs[-1]), flush=True)
    for run in runs:
        losses = run.pop("losses", [0.0])
        run["loss at first, at last"] = [float(np.mean(losses[:5])), float(np.mean(losses[-5:]))]
    return {
        "machine": machine.describe(), "entities": graph.entities,
        "triples": len(graph.triples), "dim": arguments.dim, "batch": arguments.triples,
        "negatives": arguments.triples // 8, "bytes": whole, "runs": runs,
    }  # fmt: skip


def compared(runs: list[dict[str, Any]]) -> None:
    """Put beside the last run how it stands to the one of its order that ran in memory."""
    last = runs[-1]
    fit = [run for run in runs if run["order"] == last["order"] and "losses" in run]
    memory = next((run for run in fit if run["name"] == "in memory"), None)
    if memory is None or last not in fit:
        return
    apart = np.abs(np.subtract(last["losses"], memory["losses"]))
    last["steps with another loss"] = int(np.count_nonzero(apart))
    last["largest difference of losses"] = float(apart.max())
    last["speed against memory"] = memory["seconds per step"] / last["seconds per step"]
    if "digest" in last:
        last["same bits of rows and state"] = last["digest"] == memory["digest"]


def line(run: dict[str, Any]) -> str:
    """Return a result as a row of a Markdown table."""
    cells = [run["order"], run["name"]]
    if "losses" not in run:
        return "| " + " | ".join([*cells, run.get("failed", "")]) + " |"
    cells += [
        f"{1e3 * run['seconds per step']:.0f} ms a step",
        f"{run.get('speed against memory', 0):.2f} of memory",
        f"{run.get('pages read per step', 0):.0f} pages read",
        f"{run.get('pages written per step', 0):.0f} written",
        f"{run.get('steps with another loss', 'unknown')} losses differ",
        f"loss {np.mean(run['losses'][:5]):.3f} to {np.mean(run['losses'][-5:]):.3f}",
    ]
    if "same bits of rows and state" in run:
        cells.append(f"same bits: {run['same bits of rows and state']}")
    return "| " + " | ".join(cells) + " |"


def unavailable(arguments: argparse.Namespace, entities: int) -> str | None:
    """Return what this machine lacks; None if nothing."""
    whole = 2 * entities * arguments.dim * 4
    memory = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if "in memory" in arguments.names and memory < 1.3 * whole:
        return f"{memory / 1e9:.1f} GB of memory are free, and {1.3 * whole / 1e9:.1f} are needed"
    free = shutil.disk_usage(arguments.folder or tempfile.gettempdir()).free
    needed = 3 * whole  # two tables and their journals, less what is kept
    if arguments.keep:
        needed = whole
    if free < needed:
        return f"{free / 1e9:.1f} GB of the disk are free, and {needed / 1e9:.1f} are needed"
    return bounded.unavailable()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--job", type=json.loads, help=argparse.SUPPRESS)
    parser.add_argument("--packages", type=Path, default=Path("."), help="folder of the package")
    parser.add_argument("--steps", type=int, default=100, help="[%(default)s]")
    parser.add_argument("--triples", type=int, default=TRIPLES, help="of a batch [%(default)s]")
    parser.add_argument("--dim", type=int, default=DIM, help="[%(default)s]")
    parser.add_argument("--orders", nargs="+", default=ORDERS, choices=ORDERS)
    parser.add_argument("--names", nargs="+", default=NAMES, choices=NAMES)
    parser.add_argument("--digest", action="store_true", help="compare all rows as well")
    parser.add_argument("--folder", default=None, help="a folder on the disk to be measured")
    keep = "leave the table in --folder, and use the one that is there"
    parser.add_argument("--keep", action="store_true", help=keep)
    parser.add_argument("--add", action="store_true", help="to what the result file has")
    arguments = parser.parse_args()
    if arguments.job:
        print(json.dumps(compete(arguments.job)))
        return
    try:
        graph = gene_graph.load(arguments.packages)
    except gene_graph.UnavailableError as error:
        print(f"skipped: {error}")
        return
    if reason := unavailable(arguments, graph.entities):
        print(f"skipped: {reason}")
        return
    with contextlib.ExitStack() as stack:
        made = tempfile.TemporaryDirectory(dir=arguments.folder) if not arguments.keep else None
        folder = Path(stack.enter_context(made) if made else arguments.folder or ".")
        results = measure(graph, arguments, folder)
    if arguments.add:
        file = machine.RESULTS / "real_graph.json"
        results["runs"] = bounded.kept(file, results["runs"], ("order", "name"))
    print(f"wrote {machine.save('real_graph', results)}")


if __name__ == "__main__":
    main()
