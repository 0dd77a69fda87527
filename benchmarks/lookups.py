"""Lookups, bags, renorm and small batches against torch, NumPy and the machine's own copy.

    python benchmarks/lookups.py            # three minutes on two cores, 2 GB of memory

Tables are in memory, float32, ids uniform or Zipf(1.05) over the rows (shuffled, so that hot rows
are not neighbours), warm. Everybody has the same number of threads and the answers are compared
before anything is timed. `copy` is torch's copy of as many bytes as are looked up: a limit.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from typing import Any

import contest
import machine
import numpy as np
import torch

import mmembed as mm
from mmembed import functional as F
from mmembed import kernels


def ids_over(rows: int, shape: tuple[int, ...], skew: str, rng: np.random.Generator) -> Any:
    """Return ids: uniform, or Zipf(1.05) by inversion over ranks, which a permutation scatters."""
    if skew == "uniform":
        return rng.integers(0, rows, shape)
    weights = np.arange(1, rows + 1, dtype=np.float64) ** -1.05
    cumulated = np.cumsum(weights)
    ranks = np.searchsorted(cumulated, rng.random(shape) * cumulated[-1])
    return rng.permutation(rows)[ranks]


def gather(dim: int, megabytes: int, table_bytes: int, seconds: float) -> contest.Contest:
    """A fresh output, and one that is given, of `megabytes` of rows."""
    rng = np.random.default_rng(0)
    rows, n = table_bytes // (4 * dim), (megabytes << 20) // (4 * dim)
    table = np.ones((rows, dim), np.float32)
    ids = ids_over(rows, (n,), "uniform", rng)
    weight, their_table, their_ids = (
        mm.from_numpy(table),
        torch.from_numpy(table),
        torch.from_numpy(ids),
    )
    out, their_out = np.empty((n, dim), np.float32), torch.empty(n, dim)
    source, target = torch.ones(n * dim), torch.ones(n * dim)
    table[:, 0] = np.arange(rows) % 1000
    same(F.embedding(ids, weight).numpy(), torch.nn.functional.embedding(their_ids, their_table))
    return contest.run(
        f"gather {megabytes} MiB, dim {dim}",
        {
            "torch": lambda: torch.nn.functional.embedding(their_ids, their_table),
            "mmembed": lambda: F.embedding(ids, weight),
            "torch out=": lambda: torch.index_select(their_table, 0, their_ids, out=their_out),
            "take out=": lambda: np.take(table, ids, axis=0, out=out, mode="clip"),
            "mmembed out=": lambda: kernels.gather(table, ids, out),
            "copy": lambda: target.copy_(source),
        },
        "torch",
        seconds,
    )


def bags(skew: str, rows: int, bags: int, seconds: float) -> contest.Contest:
    """Sums of bags of 16 rows of 64 numbers."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, 64), dtype=np.float32)
    ids, offsets = ids_over(rows, (bags * 16,), skew, rng), np.arange(0, bags * 16, 16)
    weight = mm.from_numpy(table)
    theirs = [torch.from_numpy(a) for a in (ids, table, offsets)]
    same(F.embedding_bag(ids, weight, offsets, mode="sum").numpy(), torch_bag(*theirs))
    return contest.run(
        f"bags, sum, {bags} x 16 ids, dim 64, {skew}",
        {
            "torch": lambda: torch_bag(*theirs),
            "mmembed": lambda: F.embedding_bag(ids, weight, offsets, mode="sum"),
        },
        "torch",
        seconds,
    )


def torch_bag(ids: torch.Tensor, table: torch.Tensor, offsets: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.embedding_bag(ids, table, offsets, mode="sum")


def renorm(rows: int, n: int, seconds: float) -> contest.Contest:
    """Norms of n distinct rows, of which one in a hundred is above the limit, once."""
    rng = np.random.default_rng(0)
    table = np.full((rows, 64), 0.1, np.float32)
    ids = rng.permutation(rows)[:n]
    table[ids[::100]] = 1.0
    theirs, their_ids = torch.from_numpy(table.copy()), torch.from_numpy(ids)
    ordered = np.sort(ids)
    torch.embedding_renorm_(theirs, their_ids, 1.0, 2.0)
    kernels.renorm(table, ordered, 1.0, 2.0)
    same(table, theirs)
    return contest.run(
        f"renorm of {n} distinct rows, dim 64",
        {
            "torch": lambda: torch.embedding_renorm_(theirs, their_ids, 1.0, 2.0),
            "mmembed": lambda: kernels.renorm(table, ordered, 1.0, 2.0),
        },
        "torch",
        seconds,
    )


def dense_backward(rows: int, n: int, seconds: float) -> contest.Contest:
    """A dense gradient of a small table from many skewed ids."""
    rng = np.random.default_rng(0)
    ids = ids_over(rows, (n,), "zipf", rng)
    upstream = rng.standard_normal((n, 64), dtype=np.float32)
    ours, theirs = mm.nn.Embedding(rows, 64), torch.nn.Embedding(rows, 64)
    their_ids, their_upstream = torch.from_numpy(ids), torch.from_numpy(upstream)
    our_upstream = mm.tensor(upstream)

    def run_ours() -> None:
        ours.zero_grad()
        ours(ids).backward(our_upstream)

    def run_theirs() -> None:
        theirs.zero_grad()
        theirs(their_ids).backward(their_upstream)

    run_ours(), run_theirs()
    same(ours.weight.grad.numpy(), theirs.weight.grad)
    return contest.run(
        f"lookup and dense backward, {n} ids, {rows} rows, dim 64, Zipf",
        {"torch": run_theirs, "mmembed": run_ours},
        "torch",
        seconds,
    )


def small(n: int, seconds: float) -> contest.Contest:
    """A hundred calls of a module with n ids, without gradients."""
    ours, theirs = mm.nn.Embedding(10_000, 64), torch.nn.Embedding(10_000, 64)
    ids = np.random.default_rng(0).integers(0, 10_000, n)
    their_ids = torch.from_numpy(ids)

    def run_ours() -> None:
        with mm.no_grad():
            for _ in range(100):
                ours(ids)

    def run_theirs() -> None:
        with torch.no_grad():
            for _ in range(100):
                theirs(their_ids)

    contestants: dict[str, Callable[[], None]] = {"torch": run_theirs, "mmembed": run_ours}
    return contest.run(f"100 calls with {n} ids, dim 64", contestants, "torch", seconds)


def same(ours: Any, theirs: torch.Tensor) -> None:
    """Raise AssertionError unless the answers agree."""
    np.testing.assert_allclose(ours, theirs.detach().numpy(), rtol=1e-4, atol=1e-4)


def contests(size: float, seconds: float) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales tables and batches, 1 being what is reported."""
    for dim in (16, 64, 128, 512):
        yield gather(dim, max(1, round(64 * size)), round(size * (1 << 30)), seconds)
    for skew in ("uniform", "zipf"):
        yield bags(skew, round(2_000_000 * size), round(4096 * size), seconds)
    yield renorm(round(2_000_000 * size), round(100_000 * size), seconds)
    yield dense_backward(round(200_000 * size), round(65_536 * size), seconds)
    for n in (1, 32, 1024):
        yield small(n, seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each question")
    arguments = parser.parse_args()
    mm.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    done = []
    for one in contests(1.0, arguments.seconds):
        done.append(one)
        print(contest.table([one]).splitlines()[-1], flush=True)
    print(contest.table(done))
    said = {
        "machine": machine.describe("torch"),
        "threads": arguments.threads,
        "contests": [one.as_dict() for one in done],
    }
    print(f"wrote {machine.save('lookups', said)}")


if __name__ == "__main__":
    main()
