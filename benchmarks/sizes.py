"""Time against the size of the table and of the batch: lookups and sparse steps, beside torch's.

    python benchmarks/sizes.py            # two minutes on two cores, 5 GB of memory

Tables of 10^3 to 10^8 rows of 8 float32 in memory, 65,536 ids, uniform: the cost must not grow with
the table, but for what caches no longer hold. Batches of 1 to 10^6 ids, uniform or Zipf(1.05), of
2 million rows of 64. A step is lookup, backward and SGD. Another batch in every call, warm.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import contest
import numpy as np
import peers
import script
import torch
from batches import SKEWS, draw

import mmembed as mm

MOST = 1 << 21  # ids in the batches of one contest, and about as many bytes of work in a timed call
ROWS = tuple(10**power for power in range(3, 9))
BATCHES = tuple(10**power for power in range(7))


class Both:
    """The same table in mmembed and in torch, over the same memory."""

    def __init__(self, table: Any) -> None:
        rows, dim = table.shape
        self.ours = mm.nn.Embedding(rows, dim, sparse=True, _weight=table)
        self.theirs = peers.torch_embedding(table)
        self._our_rule = mm.optim.SGD(self.ours.parameters(), lr=0.1)
        self._their_rule = torch.optim.SGD(self.theirs.parameters(), lr=0.1)

    def lookups(self) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Return lookups without gradients, ours and torch's."""
        return mm.no_grad()(self.ours), torch.no_grad()(self.theirs)

    def steps(self, n: int) -> tuple[Callable[[Any], Any], Callable[[Any], Any]]:
        """Return whole steps with batches of n ids, ours and torch's."""
        upstream = np.random.default_rng(0).standard_normal((n, self.theirs.embedding_dim))
        our_upstream = mm.tensor(upstream.astype(np.float32))
        their_upstream = torch.from_numpy(upstream).float()

        def ours(ids: Any) -> None:
            self._our_rule.zero_grad()
            self.ours(ids).backward(our_upstream)
            self._our_rule.step()

        def theirs(ids: torch.Tensor) -> None:
            self._their_rule.zero_grad()
            self.theirs(ids).backward(their_upstream)
            self._their_rule.step()

        return ours, theirs


def check(dim: int) -> None:
    """Raise AssertionError unless lookups and rows after steps agree, on tables of their own."""
    table = np.random.default_rng(0).standard_normal((1000, dim), dtype=np.float32)
    ours, theirs = Both(table.copy()), Both(table.copy())
    for ids in np.random.default_rng(1).integers(0, 1000, (3, 100)):
        ours.steps(100)[0](ids)
        theirs.steps(100)[1](torch.from_numpy(ids))
        peers.same(ours.lookups()[0](ids), theirs.lookups()[1](torch.from_numpy(ids)))


def compare(
    about: dict[str, Any], both: Both, work: str, ids: list[Any], seconds: float
) -> contest.Contest:
    """Time lookups or steps with batches of one size, several small ones in a call."""
    n = ids[0].size
    times = max(1, min(100, 1000 // n))
    our_work, their_work = both.lookups() if work == "lookup" else both.steps(n)
    ours, theirs = contest.Turns(ids), contest.Turns(map(torch.from_numpy, ids))

    def repeat(work: Callable[[Any], Any], turns: contest.Turns) -> Callable[[], None]:
        def run() -> None:
            for _ in range(times):
                work(turns())

        return run

    title = ", ".join(f"{key} {value}" for key, value in about.items() if key != "question")
    return contest.run(
        f"{about['question']}: {title}, {times} times",
        {"torch": repeat(their_work, theirs), "mmembed": repeat(our_work, ours)},
        "torch",
        seconds,
        about={**about, "times": times},
    )


def batches_of(ids_of: Callable[[tuple[int, ...]], Any], n: int) -> list[Any]:
    """Return up to 33 batches, fewer of large ones."""
    return [ids_of((n,)) for _ in range(max(2, min(33, MOST // n)))]


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales tables and batches, 1 being what is reported."""
    check(8)
    for rows in (10**3, 10**6) if quick else ROWS:
        rows = max(100, round(rows * size))
        both = Both(np.ones((rows, 8), np.float32))
        ids = batches_of(draw(rows, "uniform"), max(100, round(65_536 * size)))
        for work in ("lookup", "step"):
            about = {"question": "table size", "work": work, "rows": rows, "dim": 8}
            yield compare(about, both, work, ids, seconds)
    rows = round(2_000_000 * size)
    both = Both(np.ones((rows, 64), np.float32))
    for skew in SKEWS[:1] if quick else SKEWS:
        ids_of = draw(rows, skew)
        for n in (32, 10_000) if quick else BATCHES:
            n = max(1, min(n, round(10**6 * size)))
            ids = batches_of(ids_of, n)
            for work in ("lookup", "step"):
                about = {"question": "batch size", "work": work, "ids": n, "dim": 64, "skew": skew}
                yield compare(about, both, work, ids, seconds)


if __name__ == "__main__":
    script.main(__doc__, "sizes", contests, 1.5)
