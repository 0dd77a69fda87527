"""One contract for every loop over rows, and the registry of the bodies that carry it out.

The bodies are `mmembed._kernels` (Cython and OpenMP, the default), `numba_cpu` (Numba) and
`reference` (NumPy, the specification). Each has the functions below, with the same names and
argument order, followed by `threads`; the functions here pick the body and the thread count.

The contract, for every body:

- `table` is (rows, dim), float32 or float64. Rows are contiguous, the row stride is free. It may be
  read-only where it is only read, and larger than 2**31 rows or 2**32 bytes.
- ids are 1-D contiguous int64; `gather`, `gather_bags`, `gather_bags_max`, `plan` and
  `first_bad_id` take int32 as well.
- All ids are checked before anything is written. The result is -1, or the position of the first id
  outside 0..rows-1, and then nothing has been written.
- Nothing is allocated that the caller sees: outputs are the caller's, and may not overlap inputs.
- A result has the same bits for every number of threads, and from every body; only norms other than
  the 2-norm may differ in the last bits.
- A sum of squares over a row is taken in float64, in 8 partial sums: column j goes to number j % 8,
  and they are added from 0 to 7.
- Segment s is order[starts[s]:starts[s + 1]]. Its sum starts from its first entry (0 if it has
  none) and adds the others in that order, in the table's dtype. starts ascend, and need not begin
  at 0 or end at n: some of the segments of a batch are given by a part of its starts.

Rows of 16 and of 8 bits have kernels of their own, in `packed`; `gather` copies rows of any dtype.

Must not know files, the tape, gradients as objects, or which exception a bad id becomes.
"""

from __future__ import annotations

import functools
import importlib
import types
import warnings
from typing import Any

import numpy as np
import numpy.typing as npt

from .threads import MAX_THREADS, get_num_threads, set_num_threads, short_spins, threads_for

__all__ = [
    "MAX_THREADS",
    "NAMES",
    "accepts",
    "backend",
    "first_bad_id",
    "gather",
    "gather_bags",
    "gather_bags_max",
    "get_num_threads",
    "initial_rows",
    "load",
    "plan",
    "renorm",
    "row_norms",
    "scatter_add",
    "segment_sum",
    "set_backend",
    "set_num_threads",
    "update_adagrad",
    "update_adam",
    "update_momentum",
    "update_rowwise_adagrad",
    "update_rowwise_adam",
    "update_sgd",
]

_MODULES = {
    "cython": "mmembed._kernels",
    "numba": "mmembed.kernels.numba_cpu",
    "reference": "mmembed.kernels.reference",
}
NAMES = tuple(_MODULES)

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]
RowArray = npt.NDArray[np.int64]

_chosen: str | None = None
_module: types.ModuleType | None = None


@functools.cache
def load(name: str) -> types.ModuleType:
    """Return the module of the body called `name`.

    Raises
    ------
    ValueError   no body has that name.
    ImportError  the body is not built or its library is missing.
    """
    if name not in _MODULES:
        raise ValueError(f"no kernels called {name!r}; there are: {', '.join(NAMES)}")
    with short_spins():
        return importlib.import_module(_MODULES[name])


def set_backend(name: str) -> None:
    """Use the kernels called `name` from now on; raises what `load` raises."""
    global _chosen, _module
    _module = load(name)
    _chosen = name


def backend() -> str:
    """Return the name of the kernels in use: "cython" if it was built, else "numba"."""
    if _chosen is None:
        try:
            set_backend("cython")
        except ImportError as error:
            warnings.warn(
                f"the compiled kernels are missing ({error}); using numba, whose first calls "
                "compile. To build them, install gcc with OpenMP and reinstall mmembed",
                RuntimeWarning,
                stacklevel=2,
            )
            set_backend("numba")
    assert _chosen is not None
    return _chosen


def _body() -> types.ModuleType:
    return _module or load(backend())


def accepts(array: npt.NDArray[Any]) -> bool:
    """Return whether `array` can be a table: (rows, dim), float32 or float64, rows contiguous."""
    return (
        array.ndim == 2
        and array.dtype.char in "fd"
        and array.dtype.isnative
        and array.flags.aligned
        and (array.shape[1] < 2 or array.strides[1] == array.itemsize)
        and array.strides[0] % array.itemsize == 0
    )


def first_bad_id(
    ids: IdArray,  # IN  (n,)
    rows: int,
) -> int:
    """Return the position of the first id outside 0..rows-1, or -1."""
    return _body().first_bad_id(ids, rows, threads_for(ids.size))


def plan(
    ids: IdArray,  # IN     (n,)
    rows: int,
    order: RowArray,  # OUT    (n,)    positions of ids, grouped by id
    unique: RowArray,  # OUT    (n,)    the first `count` are the distinct ids, ascending
    starts: RowArray,  # OUT    (n+1,)  segment s is order[starts[s]:starts[s+1]]
    count: RowArray,  # OUT    (1,)    number of distinct ids
    work: RowArray,  # INOUT  (2 * n,)
) -> int:
    """Sort ids once: where each distinct id stands, in the order of the batch.

    starts[count] is n; what lies behind the first `count` (+1) entries is undefined.
    """
    # To sort an id takes about as long as to move four numbers.
    return _body().plan(ids, rows, order, unique, starts, count, work, threads_for(4 * ids.size))


def gather(
    table: FloatArray,  # IN   (rows, dim)
    ids: IdArray,  # IN   (n,)
    out: FloatArray,  # OUT  (n, dim), contiguous
) -> int:
    """Set out[i] = table[ids[i]]."""
    return _body().gather(table, ids, out, threads_for(out.size))


# Bag b is ids[starts[b]:starts[b + 1]]; ids equal to `padding` are passed over (-1: none is), and a
# bag without any other is 0. That starts ascend, within 0..n, the caller has checked.


def gather_bags(
    table: FloatArray,  # IN   (rows, dim)
    ids: IdArray,  # IN   (n,)
    starts: RowArray,  # IN   (bags + 1,)
    weights: FloatArray,  # IN   (n,), contiguous, or (0,) for none
    padding: int,
    mean: bool,
    out: FloatArray,  # OUT  (bags, dim), contiguous
) -> int:
    """Set out[b] to the sum of weights[i] * table[ids[i]] over the bag, or its mean.

    The sum starts from the first product and adds the others in order, in the table's dtype; the
    mean divides it by their number.
    """
    threads = threads_for(ids.size * table.shape[1])
    return _body().gather_bags(table, ids, starts, weights, padding, mean, out, threads)


def gather_bags_max(
    table: FloatArray,  # IN   (rows, dim)
    ids: IdArray,  # IN   (n,)
    starts: RowArray,  # IN   (bags + 1,)
    padding: int,
    out: FloatArray,  # OUT  (bags, dim), contiguous
    where: RowArray,  # OUT  (bags, dim), contiguous
) -> int:
    """Set out[b] to the largest of each column in the bag, and where[b] to its position in ids.

    Of equals the first; -1 in an empty bag. A NaN is largest if it comes first, else never.
    """
    threads = threads_for(ids.size * table.shape[1])
    return _body().gather_bags_max(table, ids, starts, padding, out, where, threads)


def row_norms(
    table: FloatArray,  # IN   (rows, dim)
    ids: RowArray,  # IN   (n,)
    norm_type: float,
    out: npt.NDArray[np.float64],  # OUT  (n,)
) -> int:
    """Set out[i] to the norm_type-norm of table[ids[i]], rounded to the table's dtype.

    Sums are taken in float64. norm_type 0 counts non-zeros; inf, -inf: largest, smallest |x|.
    """
    return _body().row_norms(table, ids, norm_type, out, threads_for(ids.size * table.shape[1]))


def renorm(
    table: FloatArray,  # INOUT  (rows, dim)
    ids: RowArray,  # IN     (n,), distinct
    max_norm: float,
    norm_type: float,
) -> int:
    """Scale every row whose norm is above max_norm by max_norm / (norm + 1e-7)."""
    threads = threads_for(ids.size * table.shape[1])
    return _body().renorm(table, ids, max_norm, norm_type, threads)


def segment_sum(
    values: FloatArray,  # IN   (n, dim), contiguous
    order: RowArray,  # IN   (n,)
    starts: RowArray,  # IN   (segments + 1,)
    out: FloatArray,  # OUT  (segments, dim), contiguous
) -> None:
    """Set out[s] to the sum of values[order[starts[s]:starts[s+1]]], in that order."""
    _body().segment_sum(values, order, starts, out, threads_for(values.size))


def scatter_add(
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    ids: RowArray,  # IN     (segments,), distinct
    out: FloatArray,  # INOUT  (rows, dim)
) -> int:
    """Add values[order[k]] to out[ids[s]] one by one, for each k of segment s in order."""
    return _body().scatter_add(values, order, starts, ids, out, threads_for(values.size))


# Updates take the sum g of each segment (segments may be empty: g = 0) and change the row of a
# parameter and of its state in the same pass. `maximize` negates g; then weight_decay * row is
# added to it.


# The last state of these is one number per row.
_ONE_NUMBER_PER_ROW = ("update_rowwise_adagrad", "update_rowwise_adam")


def _update(
    name: str,
    arrays: tuple[FloatArray, ...],
    ids: RowArray,
    values: FloatArray,
    *rest: Any,
) -> int:
    """Call an update: the parameter and its states first, then the segments, then its numbers."""
    rows, dim = arrays[0].shape
    for number, state in enumerate(arrays[1:], 2):
        width = 1 if name in _ONE_NUMBER_PER_ROW and number == len(arrays) else dim
        if state.shape != (rows, width) or state.dtype != arrays[0].dtype:
            raise ValueError(
                f"{name}: a state of a parameter ({rows}, {dim}) {arrays[0].dtype} must be "
                f"({rows}, {width}), got {state.shape} {state.dtype}"
            )
    threads = threads_for(max(values.size, ids.size * dim))
    # One row of scratch per thread, far enough apart to share no cache line.
    work = np.empty((threads, dim + 64), arrays[0].dtype)
    return getattr(_body(), name)(*arrays, ids, values, *rest, work, threads)


def update_sgd(
    weight: FloatArray,  # INOUT  (rows, dim)
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    lr: float,
    weight_decay: float,
    maximize: bool,
) -> int:
    """weight[ids] -= lr * g."""
    numbers = (lr, weight_decay, maximize)
    return _update("update_sgd", (weight,), ids, values, order, starts, *numbers)


def update_momentum(
    weight: FloatArray,  # INOUT  (rows, dim)
    buffer: FloatArray,  # INOUT  (rows, dim), running sum of g
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    lr: float,
    momentum: float,
    dampening: float,
    nesterov: bool,
    weight_decay: float,
    maximize: bool,
) -> int:
    """buffer = momentum * buffer + (1 - dampening) * g; weight -= lr * buffer (or its Nesterov)."""
    numbers = (lr, momentum, dampening, nesterov, weight_decay, maximize)
    return _update("update_momentum", (weight, buffer), ids, values, order, starts, *numbers)


def update_adagrad(
    weight: FloatArray,  # INOUT  (rows, dim)
    total: FloatArray,  # INOUT  (rows, dim), sum of g * g
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> int:
    """total += g * g; weight -= lr * (g / (sqrt(total) + eps))."""
    numbers = (lr, eps, weight_decay, maximize)
    return _update("update_adagrad", (weight, total), ids, values, order, starts, *numbers)


def update_rowwise_adagrad(
    weight: FloatArray,  # INOUT  (rows, dim)
    total: FloatArray,  # INOUT  (rows, 1), sum of the mean of g * g over the row
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    lr: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> int:
    """total += mean(g * g); weight -= lr / (sqrt(total) + eps) * g."""
    numbers = (lr, eps, weight_decay, maximize)
    name = "update_rowwise_adagrad"
    return _update(name, (weight, total), ids, values, order, starts, *numbers)


def update_adam(
    weight: FloatArray,  # INOUT  (rows, dim)
    mean: FloatArray,  # INOUT  (rows, dim), running mean of g
    square: FloatArray,  # INOUT  (rows, dim), running mean of g * g
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    step_size: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> int:
    """mean, square move towards g, g * g; weight -= step_size * (mean / (sqrt(square) + eps))."""
    numbers = (step_size, beta1, beta2, eps, weight_decay, maximize)
    return _update("update_adam", (weight, mean, square), ids, values, order, starts, *numbers)


def update_rowwise_adam(
    weight: FloatArray,  # INOUT  (rows, dim)
    mean: FloatArray,  # INOUT  (rows, dim), running mean of g
    square: FloatArray,  # INOUT  (rows, 1), running mean of the mean of g * g over the row
    ids: RowArray,  # IN     (segments,), distinct
    values: FloatArray,  # IN     (n, dim), contiguous
    order: RowArray,  # IN     (n,)
    starts: RowArray,  # IN     (segments + 1,)
    step_size: float,
    beta1: float,
    beta2: float,
    correction: float,
    eps: float,
    weight_decay: float,
    maximize: bool,
) -> int:
    """As `update_adam`; weight -= step_size / (sqrt(square) * correction + eps) * mean."""
    numbers = (step_size, beta1, beta2, correction, eps, weight_decay, maximize)
    name = "update_rowwise_adam"
    return _update(name, (weight, mean, square), ids, values, order, starts, *numbers)


def initial_rows(
    ids: RowArray,  # IN   (n,)
    kind: int,  # 0 constant a, 1 uniform between a and b, 2 normal with mean a and deviation b
    a: float,
    b: float,
    seed: int,  # 0..2**64-1
    out: FloatArray,  # OUT  (n, dim)
) -> None:
    """Set out[i] to the initial value of row ids[i]: a pure function of (seed, id, column).

    Philox4x32-10 with key = seed and counter = (column // 4, 0, id low, id high) gives the four
    32-bit words of columns 4k..4k+3; word w means u = (w + 0.5) * 2**-32. Uniform: a + (b - a) * u.
    Normal: Box-Muller on words (0, 1) and (2, 3), with logarithm and sine by fixed polynomials so
    that every body gives the same bits. Arithmetic is float64, rounded to out's dtype at the end.
    """
    _body().initial_rows(ids, kind, a, b, seed, out, threads_for(out.size))
