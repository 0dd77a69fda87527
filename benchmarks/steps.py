"""Whole sparse training steps against torch: lookup, backward, and the optimizer.

    python benchmarks/steps.py            # two minutes on two cores, 6 GB of memory

4096 x 16 ids into a table of 2 million rows of 64 float32 in memory, another batch in every step,
ids uniform or Zipf(1.05), warm; the gradient of the output is given. Both start from the same rows,
and the rows are compared after the first steps.
"""

from __future__ import annotations

import argparse
import itertools
import warnings
from collections.abc import Iterator
from typing import Any

import contest
import lookups
import machine
import numpy as np
import torch

import mmembed as mm

OPTIMIZERS = {
    "SGD": {"lr": 0.1},
    "Adagrad": {"lr": 0.1},
    "SparseAdam": {"lr": 0.1},
}


def step(
    optimizer: str, skew: str, rows: int, shape: tuple[int, int], seconds: float
) -> contest.Contest:
    """Time whole steps of one optimizer."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((rows, 64), dtype=np.float32)
    batches = [lookups.ids_over(rows, shape, skew, rng) for _ in range(8)]
    upstream = rng.standard_normal((*shape, 64), dtype=np.float32)
    ours = mm.nn.Embedding(rows, 64, sparse=True, _weight=start.copy())
    theirs = torch.nn.Embedding(rows, 64, sparse=True, _weight=torch.from_numpy(start))
    options: dict[str, Any] = OPTIMIZERS[optimizer]
    our_rule = getattr(mm.optim, optimizer)(ours.parameters(), **options)
    their_rule = getattr(torch.optim, optimizer)(theirs.parameters(), **options)
    our_batches, our_upstream = itertools.cycle(batches), mm.tensor(upstream)
    their_batches = itertools.cycle([torch.from_numpy(batch) for batch in batches])
    their_upstream = torch.from_numpy(upstream)

    def run_ours() -> None:
        our_rule.zero_grad()
        ours(next(our_batches)).backward(our_upstream)
        our_rule.step()

    def run_theirs() -> None:
        their_rule.zero_grad()
        theirs(next(their_batches)).backward(their_upstream)
        their_rule.step()

    for _ in range(2):
        run_ours()
        run_theirs()
    met = np.unique(np.concatenate(batches[:2]))[:1000]
    np.testing.assert_allclose(
        ours.weight.array[met], theirs.weight.detach().numpy()[met], rtol=1e-3, atol=1e-3
    )
    title = f"step, {optimizer}, {shape[0]} x {shape[1]} ids, {rows} rows, dim 64, {skew}"
    return contest.run(title, {"torch": run_theirs, "mmembed": run_ours}, "torch", seconds)


def contests(size: float, seconds: float) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    for optimizer in OPTIMIZERS:
        for skew in ("uniform", "zipf"):
            rows, bags = round(2_000_000 * size), round(4096 * size)
            yield step(optimizer, skew, rows, (bags, 16), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=15.0, help="for each question")
    arguments = parser.parse_args()
    mm.set_num_threads(arguments.threads)
    torch.set_num_threads(arguments.threads)
    warnings.filterwarnings("ignore", "Sparse invariant checks", UserWarning)
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
    print(f"wrote {machine.save('steps', said)}")


if __name__ == "__main__":
    main()
