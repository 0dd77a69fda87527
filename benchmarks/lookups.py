"""Lookups, bags, renorm, dense gradients and small batches against torch, FBGEMM and NumPy.

    python benchmarks/lookups.py            # two minutes on two cores, 4 GB of memory

Tables are in memory and float32, another batch in every call, warm. Everybody has the same number
of threads, and the answers are compared before anything is timed. `copy` and `limit` are the
machine's own: a copy of as many bytes as are looked up, and a bare loop over the same random rows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import contest
import limits
import numpy as np
import peers
import script
import torch
from batches import SKEWS, draw
from peers import same

import mmembed as mm
from mmembed import functional as F
from mmembed import kernels

DIMS = (8, 16, 32, 64, 128, 256, 512, 1024)


def gather(dim: int, megabytes: int, table_megabytes: int, seconds: float) -> contest.Contest:
    """A fresh output, and one that is given, of `megabytes` of rows."""
    rows, n = (table_megabytes << 18) // dim, (megabytes << 18) // dim
    flat = limits.aligned((rows * dim,))
    table = flat.reshape(rows, dim)
    table[:, 0] = np.arange(rows) % 1000
    ids_of = draw(rows, "uniform")
    batches = [ids_of((n,)) for _ in range(9)]
    ours, theirs = contest.Turns(batches), contest.Turns(map(torch.from_numpy, batches))
    weight, their_table = mm.from_numpy(table), torch.from_numpy(table)
    out = limits.aligned((n, dim))
    their_out = torch.from_numpy(out)
    loops = limits.Loops(torch.get_num_threads())
    same(
        F.embedding(batches[0], weight),
        torch.nn.functional.embedding(torch.from_numpy(batches[0]), their_table),
    )
    kernels.gather(table, batches[1], out)
    np.testing.assert_array_equal(out, table[batches[1]])
    parts = contest.Turns(np.split(flat, len(flat) // out.size))
    contestants: dict[str, Callable[[], object]] = {
        "torch": lambda: torch.nn.functional.embedding(theirs(), their_table),
        "mmembed": lambda: F.embedding(ours(), weight),
        "torch out=": lambda: torch.index_select(their_table, 0, theirs(), out=their_out),
        "take out=": lambda: np.take(table, ours(), axis=0, out=out, mode="clip"),
        "mmembed out=": lambda: kernels.gather(table, ours(), out),
        **limits.copies(parts, out.reshape(-1), loops),
    }
    if dim >= 16:
        contestants["limit"] = lambda: loops.gather(table, ours(), out)
    title = f"gather {megabytes} MiB of {table_megabytes} MiB, dim {dim}"
    about = {"question": "gather", "dim": dim, "rows": rows, "bytes": 2 * out.nbytes}
    return contest.run(title, contestants, "torch", seconds, about=about)


def bags(skew: str, rows: int, bags: int, seconds: float) -> contest.Contest:
    """Sums of bags of 16 rows of 64 numbers."""
    values = np.random.default_rng(0).standard_normal((rows, 64), dtype=np.float32)
    table = limits.aligned_copy(values)
    ids_of = draw(rows, skew)
    batches = [ids_of((bags * 16,)) for _ in range(33)]
    ours, theirs = contest.Turns(batches), contest.Turns(map(torch.from_numpy, batches))
    starts = np.arange(0, bags * 16 + 1, 16)
    weight, their_table = mm.from_numpy(table), torch.from_numpy(table)
    their_starts = torch.from_numpy(starts)
    loops = limits.Loops(torch.get_num_threads())
    contestants: dict[str, Callable[[], object]] = {
        "torch": lambda: peers.torch_bag(theirs(), their_table, their_starts),
        "mmembed": lambda: F.embedding_bag(
            ours(), weight, starts, mode="sum", include_last_offset=True
        ),
        "limit": lambda: loops.read(table, ours()),
    }
    their_answer = peers.torch_bag(torch.from_numpy(batches[0]), their_table, their_starts)
    our_answer = F.embedding_bag(batches[0], weight, starts, mode="sum", include_last_offset=True)
    same(our_answer, their_answer)
    if peers.FBGEMM:
        forward = peers.fbgemm_forward(table)
        same(our_answer, forward(torch.from_numpy(batches[0]), their_starts))
        contestants["fbgemm"] = lambda: forward(theirs(), their_starts)
        halves = peers.Halves(table)
        split = contest.Turns(halves.split(ids, 16) for ids in batches)
        same(our_answer, sum(halves.sums(split())))
        contestants["fbgemm, two halves"] = lambda: halves.sums(split())
    title = f"bags, sum, {bags} x 16 ids, {rows} rows, dim 64, {skew}"
    about = {"question": "bags", "dim": 64, "rows": rows, "skew": skew, "ids": bags * 16}
    return contest.run(title, contestants, "torch", seconds, about=about)


def renorm(rows: int, n: int, seconds: float) -> contest.Contest:
    """Norms of n distinct rows, of which one in a hundred is above the limit, once."""
    table = limits.aligned((rows, 64))
    table[...] = 0.1
    ids = np.random.default_rng(0).permutation(rows)[:n]
    table[ids[::100]] = 1.0
    theirs, their_ids = torch.from_numpy(limits.aligned_copy(table)), torch.from_numpy(ids)
    ordered = np.sort(ids)
    torch.embedding_renorm_(theirs, their_ids, 1.0, 2.0)
    kernels.renorm(table, ordered, 1.0, 2.0)
    same(table, theirs)
    loops = limits.Loops(torch.get_num_threads())
    return contest.run(
        f"renorm of {n} distinct rows, dim 64",
        {
            "torch": lambda: torch.embedding_renorm_(theirs, their_ids, 1.0, 2.0),
            "mmembed": lambda: kernels.renorm(table, ordered, 1.0, 2.0),
            "limit": lambda: loops.read(table, ordered),
        },
        "torch",
        seconds,
        about={"question": "renorm", "dim": 64, "rows": rows, "ids": n},
    )


def dense_backward(rows: int, n: int, seconds: float) -> contest.Contest:
    """A dense gradient of a small table from many skewed ids."""
    rng = np.random.default_rng(0)
    ids_of = draw(rows, "zipf")
    batches = [ids_of((n,)) for _ in range(9)]
    our_ids, their_ids = contest.Turns(batches), contest.Turns(map(torch.from_numpy, batches))
    upstream = rng.standard_normal((n, 64), dtype=np.float32)
    ours, theirs = mm.nn.Embedding(rows, 64), torch.nn.Embedding(rows, 64)
    our_upstream, their_upstream = mm.tensor(upstream), torch.from_numpy(upstream)

    def run_ours() -> None:
        ours.zero_grad()
        ours(our_ids()).backward(our_upstream)

    def run_theirs() -> None:
        theirs.zero_grad()
        theirs(their_ids()).backward(their_upstream)

    run_ours(), run_theirs()
    same(ours.weight.grad.numpy(), theirs.weight.grad)
    return contest.run(
        f"lookup and dense backward, {n} ids, {rows} rows, dim 64, Zipf",
        {"torch": run_theirs, "mmembed": run_ours},
        "torch",
        seconds,
        about={"question": "dense backward", "dim": 64, "rows": rows, "ids": n, "skew": "zipf"},
    )


def small(n: int, seconds: float) -> contest.Contest:
    """A hundred calls of a module with n ids, without gradients."""
    ours, theirs = mm.nn.Embedding(10_000, 64), torch.nn.Embedding(10_000, 64)
    theirs.weight.data = torch.from_numpy(limits.aligned_copy(ours.weight.array))
    ids = np.random.default_rng(0).integers(0, 10_000, n)
    their_ids = torch.from_numpy(ids)
    same(ours(ids).detach(), theirs(their_ids))

    def run_ours() -> None:
        with mm.no_grad():
            for _ in range(100):
                ours(ids)

    def run_theirs() -> None:
        with torch.no_grad():
            for _ in range(100):
                theirs(their_ids)

    contestants: dict[str, Callable[[], None]] = {"torch": run_theirs, "mmembed": run_ours}
    about = {"question": "small batch", "dim": 64, "ids": n}
    return contest.run(
        f"100 calls with {n} ids, dim 64", contestants, "torch", seconds, about=about
    )


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales tables and batches, 1 being what is reported."""
    part = max(1, round(64 * size))
    for dim in (16, 64, 512) if quick else DIMS:
        yield gather(dim, part, 16 * part, seconds)
    for skew in SKEWS:
        yield bags(skew, round(2_000_000 * size), round(4096 * size), seconds)
    yield renorm(round(2_000_000 * size), round(100_000 * size), seconds)
    yield dense_backward(round(200_000 * size), round(65_536 * size), seconds)
    for n in (1, 32, 1024):
        yield small(n, seconds)


if __name__ == "__main__":
    script.main(__doc__, "lookups", contests, 4.0, *peers.PACKAGES)
