"""What a rule of one's own costs: steps of RowOptimizer against those of built-in rules.

    python benchmarks/own_rules.py        # one minute on two cores, 3 GB of memory

4096 x 16 ids into a table of 2 million rows of 64 float32 in memory, uniform or Zipf(1.05), warm;
only the step of the optimizer is timed. Adagrad twice: the library's, and the same rule
through RowOptimizer, whose rows are compared with the library's; and FTRL, the rule in
docs/optimizers.md, which has one state more.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import batches
import contest
import numpy as np
import script

import mmembed as mm


def adagrad(w: Any, total: Any, g: Any, lr: float, eps: float) -> None:
    for j in range(w.size):
        total[j] = total[j] + g[j] * g[j]
        w[j] = w[j] - lr * (g[j] / (np.sqrt(total[j]) + eps))


def ftrl(w: Any, z: Any, n: Any, g: Any, alpha: float, beta: float, l1: float, l2: float) -> None:
    for j in range(w.size):
        root = np.sqrt(n[j] + g[j] * g[j])
        z[j] += g[j] - (root - np.sqrt(n[j])) / alpha * w[j]
        n[j] += g[j] * g[j]
        far = abs(z[j]) > l1
        w[j] = (np.copysign(l1, z[j]) - z[j]) / ((beta + root) / alpha + l2) if far else 0


def steps(skew: str, rows: int, shape: tuple[int, int], seconds: float) -> contest.Contest:
    """Time steps over the same gradients."""
    rng = np.random.default_rng(0)
    start = rng.standard_normal((rows, 64), dtype=np.float32)
    drawn = batches.draw(rows, skew)
    ids = [drawn(shape) for _ in range(4)]
    upstream = mm.tensor(rng.standard_normal((*shape, 64), dtype=np.float32))

    def contestant(make: Any) -> tuple[Any, Any]:
        table = mm.nn.Embedding(rows, 64, sparse=True, _weight=start.copy())
        rule = make(table.parameters())
        gradients = []
        for batch in ids:
            rule.zero_grad()
            table(batch).backward(upstream)
            _ = table.weight.grad.plan.starts  # sorted before the time is taken
            gradients.append(table.weight.grad)
        turn = itertools.cycle(gradients)

        def step() -> None:
            table.weight.grad = next(turn)
            rule.step()

        return step, table.weight.array

    ours, ours_rows = contestant(lambda p: mm.optim.Adagrad(p, lr=0.1, eps=1e-8))
    same, same_rows = contestant(
        lambda p: mm.optim.RowOptimizer(p, adagrad, {"total": 0.0}, lr=0.1, eps=1e-8)
    )
    numbers = {"alpha": 0.1, "beta": 1.0, "l1": 0.1, "l2": 0.0}
    other, _ = contestant(lambda p: mm.optim.RowOptimizer(p, ftrl, {"z": 0.0, "n": 0.0}, **numbers))
    for _ in ids:
        ours()
        same()
    met = np.unique(np.concatenate(ids))
    np.testing.assert_array_equal(same_rows[met], ours_rows[met])
    title = f"step over {shape[0]} x {shape[1]} ids, {rows} rows, dim 64, {skew}"
    contestants = {"Adagrad": ours, "Adagrad by RowOptimizer": same, "FTRL by RowOptimizer": other}
    about = {"question": "own rules", "rows": rows, "skew": skew}
    return contest.run(title, contestants, "Adagrad", seconds, about=about)


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    for skew in batches.SKEWS[:1] if quick else batches.SKEWS:
        yield steps(skew, round(2_000_000 * size), (round(4096 * size), 16), seconds)


if __name__ == "__main__":
    script.main(__doc__, "own_rules", contests, 10.0)
