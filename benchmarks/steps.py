"""Whole sparse training steps against torch: lookup, backward, and the optimizer.

    python benchmarks/steps.py            # two minutes on two cores, 6 GB of memory

4096 x 16 ids into a table of 2 million rows of 64 float32 in memory, another batch in every step,
ids uniform or Zipf(1.05), warm; the gradient of the output is given. Both start from the same rows,
and the rows are compared after the first steps.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import contest
import limits
import numpy as np
import peers
import script
import torch
from batches import SKEWS, draw

import mmembed as mm

OPTIMIZERS = ("SGD", "Adagrad", "SparseAdam")


def step(
    optimizer: str, skew: str, rows: int, shape: tuple[int, int], seconds: float
) -> contest.Contest:
    """Time whole steps of one optimizer."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((rows, 64), dtype=np.float32)
    ids_of = draw(rows, skew)
    batches = [ids_of(shape) for _ in range(33)]
    upstream = rng.standard_normal((*shape, 64), dtype=np.float32)
    ours, fused = (
        mm.nn.Embedding(rows, 64, sparse=True, _weight=limits.aligned_copy(start)) for _ in range(2)
    )
    theirs = peers.torch_embedding(limits.aligned_copy(start))
    our_rule, fused_rule = (
        getattr(mm.optim, optimizer)(module.parameters(), lr=0.1) for module in (ours, fused)
    )
    fused_rule.fuse()
    their_rule = getattr(torch.optim, optimizer)(theirs.parameters(), lr=0.1)
    our_upstream, their_upstream = mm.tensor(upstream), torch.from_numpy(upstream)

    def our_step(ids: Any) -> None:
        our_rule.zero_grad()
        ours(ids).backward(our_upstream)
        our_rule.step()

    def fused_step(ids: Any) -> None:
        fused(ids).backward(our_upstream)

    def their_step(ids: torch.Tensor) -> None:
        their_rule.zero_grad()
        theirs(ids).backward(their_upstream)
        their_rule.step()

    for batch in batches[:2]:
        our_step(batch)
        fused_step(batch)
        their_step(torch.from_numpy(batch))
    met = np.unique(np.concatenate(batches[:2]))
    peers.same(ours.weight.array[met], theirs.weight[torch.from_numpy(met)], 1e-3)
    np.testing.assert_array_equal(fused.weight.array, ours.weight.array)
    peers.move_state(their_rule)
    our_batches, fused_batches = contest.Turns(batches), contest.Turns(batches)
    their_batches = contest.Turns(map(torch.from_numpy, batches))
    return contest.run(
        f"step, {optimizer}, {shape[0]} x {shape[1]} ids, {rows} rows, dim 64, {skew}",
        {
            "torch": lambda: their_step(their_batches()),
            "mmembed": lambda: our_step(our_batches()),
            "mmembed, fused": lambda: fused_step(fused_batches()),
        },
        "torch",
        seconds,
        about={"question": "step", "optimizer": optimizer, "skew": skew, "rows": rows, "dim": 64},
    )


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    for optimizer in OPTIMIZERS:
        for skew in SKEWS[:1] if quick else SKEWS:
            rows, bags = round(2_000_000 * size), round(4096 * size)
            yield step(optimizer, skew, rows, (bags, 16), seconds)


if __name__ == "__main__":
    script.main(__doc__, "steps", contests, 8.0)
