"""Fused training steps, whose backward updates the rows: against FBGEMM and the limit.

    python benchmarks/fused.py            # two minutes on two cores, 6 GB of memory

4096 bags of 16 ids into a table of 2 million rows of 64 float32 in memory, another batch in every
step, ids uniform or Zipf(1.05), warm; the gradient of the output is given. Duplicates are summed
before they are applied, by both. `limit` is what must move: a loop that reads the rows of a batch,
and one that changes its distinct rows, and those of the state, in place; nothing is computed.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import contest
import limits
import numpy as np
import peers
import script
import torch
from batches import SKEWS, draw

import mmembed as mm

THEIRS = {
    "SGD": "EXACT_SGD",
    "RowwiseAdagrad": "EXACT_ROWWISE_ADAGRAD",
    "Adagrad": "EXACT_ADAGRAD",
}
OPTIONS = {
    "SGD": {"lr": 0.1},
    "RowwiseAdagrad": {"lr": 0.1, "eps": 1e-10},
    "Adagrad": {"lr": 0.1, "eps": 1e-10},
}
WIDE_STATES = {"SGD": 0, "RowwiseAdagrad": 0, "Adagrad": 1}  # as large as the table


class Batch(NamedTuple):
    """Ids as everybody wants them: (bags, length), flat for torch, and the distinct ones."""

    ids: Any
    theirs: torch.Tensor
    distinct: Any


class Ours:
    """An EmbeddingBag, or an Embedding where bags have one id, and its optimizer."""

    def __init__(self, table: Any, optimizer: str, upstream: Any, length: int) -> None:
        rows, dim = table.shape
        make = mm.nn.Embedding if length == 1 else _sums
        self.module = make(rows, dim, sparse=True, _weight=limits.aligned_copy(table))
        self._rule = getattr(mm.optim, optimizer)(self.module.parameters(), **OPTIONS[optimizer])
        self._fused = hasattr(self._rule, "fuse")
        self._rule.fuse()
        self._upstream = mm.tensor(upstream[:, None] if length == 1 else upstream)

    def __call__(self, batch: Batch) -> None:
        self.module(batch.ids).backward(self._upstream)


def _sums(rows: int, dim: int, **options: Any) -> mm.nn.EmbeddingBag:
    return mm.nn.EmbeddingBag(rows, dim, mode="sum", **options)


class Theirs:
    """FBGEMM's table. Its fastest way to look rows up without pooling is bags of one id."""

    def __init__(self, table: Any, optimizer: str, upstream: Any, length: int) -> None:
        self.module = peers.Fbgemm(table, THEIRS[optimizer])
        self._upstream = torch.from_numpy(upstream)
        self._starts = torch.arange(0, len(upstream) * length + 1, length)

    def __call__(self, batch: Batch) -> None:
        self.module(batch.theirs, self._starts).backward(self._upstream)


class TheirHalves:
    """FBGEMM on two threads; ids are shared out between them beforehand, which is not timed."""

    def __init__(self, table: Any, optimizer: str, upstream: Any, length: int) -> None:
        self.module = peers.Halves(table, THEIRS[optimizer])
        self._upstream, self._length = torch.from_numpy(upstream), length
        self._split: dict[int, Any] = {}

    def prepare(self, batch: Batch) -> None:
        self._split[id(batch.ids)] = self.module.split(batch.ids.reshape(-1), self._length)

    def __call__(self, batch: Batch) -> None:
        self.module.step(self._split[id(batch.ids)], self._upstream)


class Limit:
    """The bare loops over the rows that a step must touch."""

    def __init__(self, rows: int, dim: int, states: int) -> None:
        self._loops = limits.Loops(torch.get_num_threads())
        self._table, *self._states = (limits.aligned((rows, dim)) for _ in range(1 + states))

    def __call__(self, batch: Batch) -> None:
        self._loops.read(self._table, batch.ids.reshape(-1))
        for column in (self._table, *self._states):
            self._loops.update(column, batch.distinct)


def step(
    optimizer: str, skew: str, rows: int, shape: tuple[int, int], seconds: float
) -> contest.Contest:
    """Time steps of one optimizer."""
    rng = np.random.default_rng(0)
    table = rng.standard_normal((rows, 64), dtype=np.float32)
    upstream = rng.standard_normal((shape[0], 64), dtype=np.float32)
    ids_of = draw(rows, skew)
    drawn = (ids_of(shape) for _ in range(33))
    batches = [Batch(ids, torch.from_numpy(ids.reshape(-1)), np.unique(ids)) for ids in drawn]
    contestants = {
        "mmembed": Ours(table, optimizer, upstream, shape[1]),
        "limit": Limit(rows, 64, WIDE_STATES[optimizer]),
    }
    if peers.FBGEMM:
        halves = TheirHalves(table, optimizer, upstream, shape[1])
        for batch in batches:
            halves.prepare(batch)
        contestants["fbgemm"] = Theirs(table, optimizer, upstream, shape[1])
        contestants["fbgemm, two halves"] = halves
        _check(contestants["mmembed"], (contestants["fbgemm"], halves), batches[:2])
    turns = contest.Turns(batches)
    question = "fused step" if shape[1] > 1 else "fused step of rows"
    return contest.run(
        f"{question}, {optimizer}, {shape[0]} x {shape[1]} ids, {rows} rows, dim 64, {skew}",
        {name: lambda step=step: step(turns()) for name, step in contestants.items()},
        "fbgemm" if peers.FBGEMM else "limit",
        seconds,
        about={
            "question": question, "optimizer": optimizer, "skew": skew, "rows": rows, "dim": 64,
        },
    )  # fmt: skip


def _check(ours: Ours, theirs: Iterable[Theirs | TheirHalves], batches: list[Batch]) -> None:
    met = np.unique(np.concatenate([batch.distinct for batch in batches]))
    for batch in batches:
        ours(batch)
    for peer in theirs:
        for batch in batches:
            peer(batch)
        found, expected = ours.module.weight.array[met], peer.module.rows()[met]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    rows, bags = round(2_000_000 * size), round(4096 * size)
    for optimizer in THEIRS:
        for skew in SKEWS[:1] if quick else SKEWS:
            yield step(optimizer, skew, rows, (bags, 16), seconds)
    if not quick:
        for optimizer in THEIRS:
            yield step(optimizer, "uniform", rows, (16 * bags, 1), seconds)


if __name__ == "__main__":
    script.main(__doc__, "fused", contests, 5.0, *peers.PACKAGES)
