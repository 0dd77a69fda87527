"""`embedding_bag`: sums, means and maxima of rows by bags of ids, without the rows in between.

Must not know whether a table is a file, nor modules or optimizers.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import buffers, kernels
from ..autograd import Tensor, is_grad_enabled, record
from ..autograd.dtypes import TORCH_NAMES
from ..ids import as_ids
from ..kernels import packed
from ..narrow import is_floating, wide
from ..rows import RowPlan
from .lookup import (
    FloatArray,
    GradientOf,
    IdArray,
    announce,
    as_output,
    check_ids,
    check_trainable,
    ids_of,
    output_dtype_of,
    places_in,
    prepare,
    raise_for,
    renorm,
    row_index,
    rows_met,
    saved,
    wide_rows,
)

RowArray = npt.NDArray[np.int64]

MODES = ("sum", "mean", "max")


@dataclass(frozen=True)
class _Bags:
    """A batch cut into bags.

    Attributes
    ----------
    plan : of the ids, (n,).
    shape : of the ids as they were given.
    starts : (bags + 1,); bag b is ids[starts[b]:starts[b + 1]], and every id is in a bag.
    passed : the id that counts in no bag, or -1.
    """

    plan: RowPlan
    shape: tuple[int, ...]
    starts: RowArray
    passed: int

    def check(self, bad: int) -> None:
        """Raise IndexError if a kernel found a bad id."""
        raise_for(bad, self.plan.ids.reshape(self.shape), self.plan.rows)

    def of_each(self) -> RowArray:
        """Return which bag each id is in, (n,)."""
        return np.repeat(np.arange(self.starts.size - 1), np.diff(self.starts))

    def sizes(self) -> RowArray:
        """Return how many ids count in each bag, (bags,)."""
        counted = np.concatenate([[0], np.cumsum(self.plan.ids != self.passed)])
        return np.diff(counted[self.starts])


def embedding_bag(
    input: Tensor | npt.ArrayLike,
    weight: Tensor,
    offsets: Tensor | npt.ArrayLike | None = None,
    max_norm: float | None = None,
    norm_type: float = 2,
    scale_grad_by_freq: bool = False,
    mode: str = "mean",
    sparse: bool = False,
    per_sample_weights: Tensor | npt.ArrayLike | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
    *,
    include_padding: bool = False,
    output_dtype: npt.DTypeLike | None = None,
) -> Tensor:
    """Look up rows of `weight` and reduce them by bags.

    Parameters
    ----------
    input : integer ids. (bags, n): each row is a bag. (n,): cut into bags by `offsets`.
    weight : (rows, dim) floating table; may be larger than memory.
    offsets : (bags,) where each bag begins in a 1-D input; the first is 0. With
        `include_last_offset` (bags + 1,), the last being the length of input.
    max_norm, norm_type : first scale rows whose norm is larger down to it, in place.
    scale_grad_by_freq : divide gradients by how often their id occurs in `input`; not for "max".
    mode : "sum", "mean" or "max"; an empty bag gives zeros.
    sparse : the gradient of `weight` is a `RowGrad`; not for "max".
    per_sample_weights : like `input`; rows are multiplied by it. Only for "sum".
    padding_idx : rows with this id do not count, and get no gradient.
    include_padding : they do count; they get no gradient all the same.
    output_dtype : see `embedding`; per_sample_weights may have it too.

    Returns
    -------
    Tensor of shape (bags, dim) and output_dtype; sums of narrow rows are float32, rounded once.

    Raises
    ------
    IndexError           an id is outside 0..rows-1; nothing has been renormed then.
    TypeError            ids or offsets are not integers.
    ValueError           shapes, mode or offsets do not fit: offsets that descend, or that with
                         `include_last_offset` do not end at the end of input.
    NotImplementedError  per_sample_weights with a mode other than "sum".
    RuntimeError         the first offset is not 0, or the last is beyond input; padding_idx is no
                         row; dtypes do not fit.
    ReadOnlyTableError   max_norm is given and the table cannot be written.

    Source: torch.nn.functional.embedding_bag. Differs: see docs/differences-from-torch.md.
    """
    input, weight = _in_order(input, weight)
    factors = _factors(per_sample_weights, weight)
    trained = weight.requires_grad and is_grad_enabled()
    if trained:
        check_trainable(weight)
    weighed = factors is not None and factors.requires_grad and is_grad_enabled()
    function = "embedding_bag" if max_norm is None else "embedding_renorm_"
    ids = ids_of(input, function, trained or weighed)
    dtype = output_dtype_of(weight, output_dtype)
    _check(ids, weight, offsets, mode, scale_grad_by_freq, sparse, factors, dtype)
    rows, _ = weight.shape
    padding = None if padding_idx is None else _padding(padding_idx, rows)
    passed = -1 if padding is None or include_padding else padding
    starts = _starts(ids, offsets, include_last_offset)
    bags = _Bags(RowPlan(ids, rows), ids.shape, starts, passed)
    have = prepare(weight, bags.plan)
    if max_norm is not None:
        check_ids(ids, rows)
        renorm(weight, bags.plan, max_norm, norm_type)
    given = tuple(tensor if isinstance(tensor, Tensor) else None for tensor in (input, offsets))
    gradient = GradientOf(weight, padding, sparse, dtype)
    if mode == "max":
        result = _largest(weight, bags, dtype, gradient, given)
    else:
        mean = mode == "mean"
        result = _summed(weight, bags, factors, mean, scale_grad_by_freq, dtype, gradient, given)
    have()
    if trained and sparse:
        announce(weight, bags.plan)
    return result


# -- what is recorded ------------------------------------------------------------------------------

# `given` are the tensors of ids and offsets: saved, so that changing them is refused in backward.


def _largest(
    weight: Tensor,
    bags: _Bags,
    dtype: np.dtype[Any],
    gradient: GradientOf,
    given: tuple[Tensor | None, ...],
) -> Tensor:
    shape = bags.starts.size - 1, weight.shape[1]
    out, where = np.empty(shape, wide(weight.dtype)), np.empty(shape, np.int64)
    bags.check(_take_largest(_met(weight, bags), bags.starts, out, where))

    def of_weight(upstream: Any, bags: _Bags, where: RowArray, *_given: Any) -> Any:
        entries = np.zeros((bags.plan.ids.size, shape[1]), upstream.dtype)
        bag, column = np.nonzero(where >= 0)
        entries[where[bag, column], column] = upstream[bag, column]
        return gradient(entries, bags.plan, None)

    found = as_output(out, dtype)
    return record("EmbeddingBagBackward0", found, (weight, of_weight, (bags, where, *given)))


def _summed(
    weight: Tensor,
    bags: _Bags,
    factors: Tensor | None,
    mean: bool,
    by_frequency: bool,
    dtype: np.dtype[Any],
    gradient: GradientOf,
    given: tuple[Tensor | None, ...],
) -> Tensor:
    out = buffers.empty((bags.starts.size - 1, weight.shape[1]), wide(weight.dtype))
    weights = np.empty(0, out.dtype)
    if factors is not None:
        weights = np.require(factors.array, out.dtype, ["C", "A"]).reshape(-1)
    met = _met(weight, bags)
    bags.check(_add_up(met, bags.starts, weights, mean, out))
    table, ids = saved(weight, bags.plan, met.table, met.ids)

    of_factor = None if factors is None else factors.dtype

    def of_weight(upstream: Any, bags: _Bags, factors: Any, *_given: Any) -> Any:
        if factors is None and not by_frequency:
            entries = _wide(upstream)
            if mean:
                entries = entries / np.maximum(bags.sizes(), 1)[:, None].astype(entries.dtype)
            return gradient(entries, bags.plan, bags.of_each())
        entries = _spread(upstream, bags)
        if factors is not None:
            entries *= factors.reshape(-1, 1).astype(entries.dtype, copy=False)
        if by_frequency:
            entries *= (1.0 / bags.plan.counts()).astype(entries.dtype)[:, None]
        if mean:
            entries /= np.maximum(bags.sizes(), 1)[bags.of_each(), None].astype(entries.dtype)
        return gradient(entries, bags.plan, None)

    def of_factors(upstream: Any, bags: _Bags, table: FloatArray, *_given: Any) -> FloatArray:
        found = wide_rows(table, ids)
        products = np.einsum("nd,nd->n", found, _spread(upstream, bags))
        counted = np.where(bags.plan.ids == bags.passed, 0, products)
        return counted.reshape(bags.shape).astype(of_factor, copy=False)

    return record(
        "EmbeddingBagBackward0",
        as_output(out, dtype),
        (weight, of_weight, (bags, factors, *given)),
        (factors, of_factors, (bags, table, *given)),
    )


# -- checks ----------------------------------------------------------------------------------------


def _in_order(input: Any, weight: Any) -> tuple[Any, Tensor]:
    """Return (input, weight), which torch takes in the other order too, with its warning."""
    if isinstance(input, Tensor) and is_floating(input.dtype) and weight.dtype == np.int64:
        warnings.warn(
            "Argument order of nn.functional.embedding_bag was changed. Usage "
            "`embedding_bag(weight, input, ...)` is deprecated, and should now be "
            "`embedding_bag(input, weight, ...)`.",
            UserWarning,
            stacklevel=3,
        )
        return weight, input
    return input, weight


def _factors(given: Any, weight: Tensor) -> Tensor | None:
    if given is None or isinstance(given, Tensor):
        return given
    return Tensor(np.asarray(given, weight.dtype))


def _check(
    ids: IdArray,
    weight: Tensor,
    offsets: Any,
    mode: str,
    scale_grad_by_freq: bool,
    sparse: bool,
    factors: Tensor | None,
    dtype: np.dtype[Any],
) -> None:
    """Raise torch's errors, in torch's order."""
    if factors is not None and factors.shape != ids.shape:
        raise ValueError(
            f"embedding_bag: If per_sample_weights (torch.Size({list(factors.shape)})) is not "
            f"None, then it must have the same shape as the input (torch.Size({list(ids.shape)}))"
        )
    if weight.ndim != 2:
        raise ValueError(f"weight has to be a 2D Tensor, but got Tensor of dimension {weight.ndim}")
    if ids.ndim == 2 and offsets is not None:
        raise ValueError(
            "if input is 2D, then offsets has to be None, as input is treated is a mini-batch of "
            f"fixed length sequences. However, found offsets of type {type(offsets)}"
        )
    if ids.ndim == 1 and offsets is None:
        raise ValueError("offsets has to be a 1D Tensor but got None")
    if ids.ndim not in (1, 2):
        raise ValueError(f"input has to be 1D or 2D Tensor, but got Tensor of dimension {ids.ndim}")
    if mode not in MODES:
        raise ValueError(f"mode has to be one of sum, mean or max: got {mode!r}")
    if mode == "max" and scale_grad_by_freq:
        raise ValueError("max mode does not support scaling the gradient by the frequency")
    if mode == "max" and sparse:
        raise ValueError("max mode does not support sparse weights")
    if factors is not None and mode != "sum":
        raise NotImplementedError(
            "embedding_bag: per_sample_weights was not None. per_sample_weights is only supported "
            f"for mode='sum' (got mode='{mode}'). Please open a feature request on GitHub."
        )
    if not is_floating(weight.dtype):
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have one of the following scalar types: "
            f"Half, BFloat16, Float, Double; but got {TORCH_NAMES[weight.dtype].tensor} instead "
            "(while checking arguments for embedding_bag)"
        )
    if factors is not None and factors.dtype not in (weight.dtype, dtype):
        types = (TORCH_NAMES[tensor.dtype].tensor for tensor in (weight, factors))
        raise RuntimeError(
            "Expected tensor for argument #1 'weight' to have the same type as tensor for argument "
            "#1 'per_sample_weights'; but type {} does not equal {} (while checking arguments for "
            "embedding_bag)".format(*types)
        )


def _padding(padding_idx: int, rows: int) -> int:
    row = row_index(padding_idx, rows)
    if row is None:
        raise RuntimeError(
            "padding_idx must be within the number of embeddings, "
            f"{-rows} through {rows - 1}, but got {padding_idx}"
        )
    return row


def _starts(ids: IdArray, offsets: Any, include_last_offset: bool) -> RowArray:
    """Return where each bag begins, and at last the number of ids."""
    if ids.ndim == 2:
        bags, width = ids.shape
        starts: RowArray = np.arange(bags + 1, dtype=np.int64) * width
        return starts
    given = as_ids(offsets.array if isinstance(offsets, Tensor) else offsets, "embedding_bag")
    if given.ndim != 1:
        raise ValueError(f"offsets has to be a 1D Tensor, got shape {given.shape}")
    if include_last_offset and given.size == 0:
        raise RuntimeError("include_last_offset: number of offset should be at least 1")
    if given.size and given[0] != 0:
        raise RuntimeError(
            "offsets[0] has to be 0, i.e., the first sequence in the mini-batch has to start from "
            f"position 0. However, got {given[0]}"
        )
    if given.size and given[-1] > ids.size:
        raise RuntimeError(
            f"offsets[-1] can not be greater than input's length {ids.size} but got offsets[-1] of "
            f"{given[-1]}"
        )
    starts = np.empty(given.size + (not include_last_offset), np.int64)
    if not include_last_offset:
        starts[-1] = ids.size
    starts[: given.size] = given
    falls = starts[1:] < starts[:-1]
    if falls.any():
        at = int(falls.argmax())
        raise ValueError(
            f"offsets must not descend: offsets[{at}] is {starts[at]} and offsets[{at + 1}] is "
            f"{starts[at + 1]}"
        )
    if include_last_offset and starts[-1] != ids.size:
        raise ValueError(
            f"offsets do not cover the input: the last is {starts[-1]} and there are {ids.size} ids"
        )
    if given.size == 0 and ids.size > 0:
        raise ValueError(f"offsets are empty, so the {ids.size} ids of the input are in no bag")
    return starts


# -- arithmetic ------------------------------------------------------------------------------------


class _Met(NamedTuple):
    """An array with the rows of a batch, which row each id is there, and which is passed over."""

    table: FloatArray
    ids: IdArray
    passed: int


def _met(weight: Tensor, bags: _Bags) -> _Met:
    """Return the rows of a batch as kernels take them.

    They are the whole table and the ids. Of a table in an odd layout they are copies of the rows
    met, narrow ones as float32; of a lazy one too, if nobody has written some of them.
    """
    plan = bags.plan
    table, ids = rows_met(weight, plan, plan.ids.reshape(bags.shape))
    if ids is plan.ids:
        if packed.accepts(table) or kernels.accepts(table):
            return _Met(table, ids, bags.passed)
        bags.check(kernels.first_bad_id(ids, plan.rows))
        table, ids = wide_rows(table, plan.unique), places_in(plan)
    passed = np.flatnonzero(plan.unique == bags.passed)
    return _Met(table, ids, int(passed[0]) if passed.size else -1)


def _add_up(met: _Met, starts: RowArray, weights: FloatArray, mean: bool, out: FloatArray) -> int:
    """Set out to the sums or means of bags, as kernels do."""
    table, ids, passed = met
    if packed.accepts(table):
        bytes_, format = packed.as_bytes(table), packed.format_of(table.dtype)
        return packed.unpack_bags(bytes_, format, ids, starts, weights, passed, mean, out)
    return kernels.gather_bags(table, ids, starts, weights, passed, mean, out)


def _take_largest(met: _Met, starts: RowArray, out: FloatArray, where: RowArray) -> int:
    """Set out and where to the largest of bags, as kernels do."""
    table, ids, passed = met
    if packed.accepts(table):
        bytes_, format = packed.as_bytes(table), packed.format_of(table.dtype)
        return packed.unpack_bags_max(bytes_, format, ids, starts, passed, out, where)
    return kernels.gather_bags_max(table, ids, starts, passed, out, where)


def _spread(upstream: FloatArray, bags: _Bags) -> FloatArray:
    """Return the gradient of each id's bag, (n, dim), in memory of its own."""
    rows = _wide(upstream)
    entries = buffers.empty((bags.plan.ids.size, rows.shape[1]), rows.dtype)
    kernels.gather(rows, bags.of_each(), entries)
    return entries


def _wide(upstream: FloatArray) -> FloatArray:
    return np.require(upstream, wide(upstream.dtype), ["C", "A"])
