"""Every kernel for GPUs against the reference body: the same bits, and how far from float64.

The functions take a body, and arrays as that body takes them; `compare` runs them on the GPU (or in
numba's simulator) and on the CPU.
"""

from __future__ import annotations

import types
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from mmembed import kernels
from mmembed.kernels import packed
from mmembed.kernels.cuda import body, to_device

Arrays = types.SimpleNamespace
# name: (states, numbers); the last state of the row-wise ones is one number per row.
UPDATES: dict[str, tuple[int, tuple[Any, ...]]] = {
    "update_sgd": (0, (0.3,)),
    "update_momentum": (1, (0.3, 0.9, 0.25, True)),
    "update_adagrad": (1, (0.3, 1e-3)),
    "update_rowwise_adagrad": (1, (0.3, 1e-3)),
    "update_adam": (2, (0.3, 0.9, 0.99, 1e-3)),
    "update_rowwise_adam": (2, (0.3, 0.9, 0.99, 1.75, 1e-3)),
}


def arrays_of(rows: int, n: int, dim: int, dtype: str, seed: int = 1) -> Arrays:
    """Return a table, a skewed batch with its plan and bags, and places for what comes out."""
    rng = np.random.default_rng([seed, rows, n, dim])
    ids = (rng.zipf(1.3, n) % rows).astype(np.int64)
    order = np.argsort(ids, kind="stable")
    unique, first = np.unique(ids[order], return_index=True)
    bags = max(n // 7, 1)

    def numbers(*shape: int) -> Any:
        values = rng.standard_normal(shape) * 10.0 ** rng.integers(-3, 3, shape)
        return values.astype(np.float32).astype(dtype)

    return Arrays(
        table=numbers(rows, dim),
        ids=ids,
        values=numbers(n, dim),
        order=order,
        unique=unique,
        starts=np.append(first, n),
        bag_starts=np.sort(np.append(rng.integers(0, n + 1, bags - 1), [0, n])),
        weights=numbers(n),
        states=[np.abs(numbers(rows, dim)) for _ in range(2)],
        of_rows=np.abs(numbers(rows, 1)),
        bags=np.full((bags, dim), np.nan, dtype),
        where=np.full((bags, dim), -7, np.int64),
        rows=np.full((n, dim), np.nan, dtype),
        sums=np.full((unique.size, dim), np.nan, dtype),
        norms=np.full(n, np.nan),
        plan=[np.full(size, -7, np.int64) for size in (n, n, n + 1, 1)],
        work=np.zeros((1, dim + 64), dtype),
    )


def gather(k: Any, a: Arrays) -> list[Any]:
    k.gather(a.table, a.ids, a.rows, 1)
    return [a.rows]


def plan(k: Any, a: Arrays) -> list[Any]:
    k.plan(a.ids, a.table.shape[0], *a.plan, to_like(a.ids, np.empty(2 * a.ids.size, int)), 1)
    return [a.plan[0]]


def sum_of_bags(k: Any, a: Arrays) -> list[Any]:
    none = to_like(a.ids, np.empty(0, np.float32))
    k.gather_bags(a.table, a.ids, a.bag_starts, none, 1, True, a.bags, 1)
    return [a.bags]


def weighted_bags(k: Any, a: Arrays) -> list[Any]:
    k.gather_bags(a.table, a.ids, a.bag_starts, a.weights, -1, False, a.bags, 1)
    return [a.bags]


def largest_of_bags(k: Any, a: Arrays) -> list[Any]:
    k.gather_bags_max(a.table, a.ids, a.bag_starts, -1, a.bags, a.where, 1)
    return [a.bags, a.where]


def norms(k: Any, a: Arrays) -> list[Any]:
    k.row_norms(a.table, a.ids, 2.0, a.norms, 1)
    return [a.norms]


def renorm(k: Any, a: Arrays) -> list[Any]:
    k.renorm(a.table, a.unique, 1.0, 2.0, 1)
    return [a.table]


def segment_sum(k: Any, a: Arrays) -> list[Any]:
    k.segment_sum(a.values, a.order, a.starts, a.sums, 1)
    return [a.sums]


def scatter_add(k: Any, a: Arrays) -> list[Any]:
    k.scatter_add(a.values, a.order, a.starts, a.unique, a.table, 1)
    return [a.table]


def update(name: str) -> Callable[[Any, Arrays], list[Any]]:
    """Return the function that makes one step of an optimizer."""
    count, numbers = UPDATES[name]

    def step(k: Any, a: Arrays) -> list[Any]:
        states = a.states[:count]
        if "rowwise" in name:
            states = [*states[: count - 1], a.of_rows]
        batch = a.unique, a.values, a.order, a.starts
        getattr(k, name)(a.table, *states, *batch, *numbers, 0.125, True, a.work, 1)
        return [a.table, *states]

    return step


CALLS: dict[str, Callable[[Any, Arrays], list[Any]]] = {
    "gather": gather,
    "plan": plan,
    "bags, mean": sum_of_bags,
    "bags, weighted": weighted_bags,
    "bags, largest": largest_of_bags,
    "norms": norms,
    "renorm": renorm,
    "segment sum": segment_sum,
    "scatter-add": scatter_add,
    **{name: update(name) for name in UPDATES},
}
NARROW = ("bags, mean", "bags, largest", "segment sum", "update_adam", "update_rowwise_adagrad")


def to_like(array: Any, values: Any) -> Any:
    """Return values where an array is: on the CPU, or on the GPU."""
    return values if isinstance(array, np.ndarray) else to_device(values)


def moved(a: Arrays, change: Callable[[Any], Any]) -> Arrays:
    """Return the arrays with each of them changed."""
    found = {
        name: [change(one) for one in value] if isinstance(value, list) else change(value)
        for name, value in vars(a).items()
    }
    return Arrays(**found)


def as_dtype(dtype: Any) -> Callable[[Any], Any]:
    """Return the function that gives floating arrays, but no norms, another dtype."""

    def change(array: Any) -> Any:
        floating = array.dtype.kind in "fV" and array.ndim > 1
        return array.astype(dtype) if floating else array.copy()

    return change


def compare(rows: int, n: int, dims: tuple[int, ...]) -> Iterator[dict[str, Any]]:
    """Yield, for each kernel, dtype and width, whether its bits are the CPU's, and its error.

    The error is that of float64 arithmetic: |out - float64| / |float64|, over all outputs.
    """
    import ml_dtypes

    reference = kernels.load("reference")
    for name, call in CALLS.items():
        dtypes: list[Any] = [np.dtype("float32"), np.dtype("float64")]
        if name in NARROW:
            dtypes += [np.dtype("float16"), np.dtype(ml_dtypes.bfloat16)]
        for dim in dims:
            for dtype in dtypes:
                narrow = dtype.itemsize == 2
                # What a narrow dtype holds, so that all start from the same numbers.
                given = moved(arrays_of(rows, n, dim, "float32"), as_dtype(dtype))
                if narrow:
                    given.states = [s.astype(np.float32) for s in given.states]
                    given.of_rows = given.of_rows.astype(np.float32)
                elif dtype == np.float64:
                    given.weights = given.weights.astype(dtype)
                wide = moved(given, as_dtype(np.float32 if narrow else dtype))
                best = moved(given, as_dtype(np.float64))
                best.weights = best.weights.astype(np.float64)
                want = call(reference, wide)
                exact = call(reference, best)
                got = [array.numpy() for array in call(body, moved(given, to_device))]
                yield {
                    "kernel": name,
                    "dtype": str(dtype),
                    "dim": dim,
                    "same bits": all(map(_same, got, want)),
                    "error": max(map(_error, got, exact)),
                }


def _same(got: Any, want: Any) -> bool:
    if got.dtype != want.dtype:
        want = packed.rounded(want, got.dtype)
    return bool(got.tobytes() == np.ascontiguousarray(want).tobytes())


def _error(got: Any, exact: Any) -> float:
    size = float(np.linalg.norm(exact.astype(np.float64)))
    off = got.astype(np.float64) - exact.astype(np.float64)
    return float(np.linalg.norm(off)) / max(size, 1e-30)
