"""The portable body of the kernels against the compiled one, Numba against Cython, one by one.

    python benchmarks/bodies.py            # two minutes on two cores, half of it compiling; 2 GB

65,536 ids, uniform, of 2 million rows of 64 float32 in memory, warm; the same batch, plan and
gradient in every call. Both must write the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import contest
import limits
import numpy as np
import script
from batches import draw

from mmembed import kernels

BODIES = ("cython", "numba")
Call = Callable[[Any, int], object]  # of a body, with a number of threads


class Arrays:
    """A table, its states, a batch of bags of 16 ids, its plan and its gradient."""

    def __init__(self, rows: int, bags: int, dim: int = 64) -> None:
        rng = np.random.default_rng(0)
        n = 16 * bags
        self.rows, self.n, self.bags, self.dim = rows, n, bags, dim
        self.table = rng.standard_normal((rows, dim), dtype=np.float32)
        self.states = [limits.aligned((rows, dim)) for _ in range(2)]
        self.total = np.ones((rows, 1), np.float32)
        self.ids = draw(rows, "uniform")((n,))
        self.starts = np.arange(0, n + 1, 16)
        self.out, self.pooled = limits.aligned((n, dim)), limits.aligned((bags, dim))
        self.where = np.empty((bags, dim), np.int64)
        self.upstream = rng.standard_normal((n, dim), dtype=np.float32)
        self.norms, self.work = np.empty(n), np.empty((256, dim + 64), np.float32)
        self.order, self.distinct = np.empty(n, np.int64), np.empty(n, np.int64)
        self.ends, self.count = np.empty(n + 1, np.int64), np.empty(1, np.int64)
        self.scratch = np.empty(2 * n, np.int64)
        kernels.plan(*self.planned())
        count = int(self.count[0])
        self.unique, self.segments = self.distinct[:count].copy(), self.ends[: count + 1].copy()

    def planned(self) -> tuple[Any, ...]:
        """Return the arguments of `plan`."""
        outputs = (self.order, self.distinct, self.ends, self.count)
        return self.ids, self.rows, *outputs, self.scratch

    def calls(self) -> dict[str, tuple[Call, Any]]:
        """Return {kernel: (its call, what it writes)}."""
        a, nothing = self, np.empty(0, np.float32)
        batch = (a.unique, a.upstream, a.order, a.segments)
        last = (0.0, False, a.work)
        return {
            "plan": (lambda k, t: k.plan(*a.planned(), t), a.order),
            "gather": (lambda k, t: k.gather(a.table, a.ids, a.out, t), a.out),
            "gather_bags": (
                lambda k, t: k.gather_bags(
                    a.table, a.ids, a.starts, nothing, -1, False, a.pooled, t
                ),
                a.pooled,
            ),
            "gather_bags_max": (
                lambda k, t: k.gather_bags_max(
                    a.table, a.ids, a.starts, -1, a.pooled, a.where, t
                ),
                a.where,
            ),
            "row_norms": (lambda k, t: k.row_norms(a.table, a.ids, 2.0, a.norms, t), a.norms),
            "renorm": (lambda k, t: k.renorm(a.table, a.unique, 8.0, 2.0, t), a.table),
            "segment_sum": (
                lambda k, t: k.segment_sum(
                    a.upstream, a.order, a.segments, a.out[: a.unique.size], t
                ),
                a.out,
            ),
            "scatter_add": (
                lambda k, t: k.scatter_add(
                    a.upstream, a.order, a.segments, a.unique, a.table, t
                ),
                a.table,
            ),
            "update_sgd": (lambda k, t: k.update_sgd(a.table, *batch, 0.1, *last, t), a.table),
            "update_momentum": (
                lambda k, t: k.update_momentum(
                    a.table, a.states[0], *batch, 0.1, 0.9, 0.0, False, *last, t
                ),
                a.table,
            ),
            "update_adagrad": (
                lambda k, t: k.update_adagrad(
                    a.table, a.states[0], *batch, 0.1, 1e-10, *last, t
                ),
                a.table,
            ),
            "update_rowwise_adagrad": (
                lambda k, t: k.update_rowwise_adagrad(
                    a.table, a.total, *batch, 0.1, 1e-10, *last, t
                ),
                a.table,
            ),
            "update_adam": (
                lambda k, t: k.update_adam(
                    a.table, *a.states, *batch, 0.1, 0.9, 0.999, 1e-8, *last, t
                ),
                a.table,
            ),
            "update_rowwise_adam": (
                lambda k, t: k.update_rowwise_adam(
                    a.table, a.states[0], a.total, *batch, 0.1, 0.9, 0.999, 1.0, 1e-8, *last, t
                ),
                a.table,
            ),
            "initial_rows": (
                lambda k, t: k.initial_rows(a.unique, 2, 0.0, 1.0, 0, a.out[: a.unique.size], t),
                a.out,
            ),
        }  # fmt: skip


def compare(kernel: str, call: Call, arrays: Arrays, seconds: float) -> contest.Contest:
    """Time one kernel of every body."""
    threads = kernels.get_num_threads()
    bodies = {name: kernels.load(name) for name in BODIES}
    return contest.run(
        f"{kernel}, {arrays.n} ids, {arrays.rows} rows, dim {arrays.dim}",
        {name: lambda body=body: call(body, threads) for name, body in bodies.items()},
        "cython",
        seconds,
        about={"question": "bodies", "kernel": kernel, "rows": arrays.rows, "dim": arrays.dim},
    )


def check(kernel: str, rows: int, bags: int) -> None:
    """Raise AssertionError unless every body writes the same bits."""
    written = []
    for name in BODIES:
        call, result = Arrays(rows, bags).calls()[kernel]
        call(kernels.load(name), kernels.get_num_threads())
        written.append(result)
    np.testing.assert_array_equal(*written)


def contests(size: float, seconds: float, quick: bool = False) -> Iterator[contest.Contest]:
    """Yield all of them; `size` scales table and batch, 1 being what is reported."""
    arrays = Arrays(round(2_000_000 * size), round(4096 * size))
    for kernel, (call, _) in arrays.calls().items():
        if quick and kernel not in ("plan", "gather", "gather_bags", "update_adagrad"):
            continue
        check(kernel, 1000, 100)
        yield compare(kernel, call, arrays, seconds)


if __name__ == "__main__":
    script.main(__doc__, "bodies", contests, 2.0)
