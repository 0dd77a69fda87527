"""Operations on tables of rows: check arguments once, plan, call kernels, record on the tape.

Must not know whether a table is a file, nor modules or optimizers.
"""

from __future__ import annotations

import numbers
import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from . import kernels
from .autograd import Tensor, is_grad_enabled, record
from .autograd.ops import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    log_softmax,
    logsigmoid,
    mse_loss,
    nll_loss,
    relu,
    sigmoid,
    softmax,
    tanh,
)
from .ids import as_ids, bad_id_message
from .rows import RowGrad, RowPlan

__all__ = [
    "binary_cross_entropy_with_logits",
    "cross_entropy",
    "embedding",
    "log_softmax",
    "logsigmoid",
    "mse_loss",
    "nll_loss",
    "relu",
    "sigmoid",
    "softmax",
    "tanh",
]

FloatArray = npt.NDArray[np.floating[Any]]
IdArray = npt.NDArray[np.signedinteger[Any]]


def embedding(
    input: Tensor | npt.ArrayLike,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Look up rows of `weight` by id.

    Parameters
    ----------
    input : integer ids, any shape: a tensor, an array or a list.
    weight : (rows, dim) floating table; may be larger than memory.
    padding_idx : this row gets no gradient; a negative one counts from the end.
    max_norm : first scale every looked-up row whose norm is larger down to this norm, in place.
    norm_type : the p of that norm.
    scale_grad_by_freq : divide gradients by how often their id occurs in `input`.
    sparse : the gradient of `weight` is a `RowGrad` instead of an array of the table's size.

    Returns
    -------
    Tensor of shape (*input.shape, dim) and weight's dtype; a fresh copy, never a view.

    Raises
    ------
    IndexError          an id is outside 0..rows-1; names the first one and where it stands. No row
                        has been renormed then.
    TypeError           ids are not integers; max_norm or norm_type is not a number.
    AssertionError      padding_idx is outside -rows..rows-1.
    RuntimeError        weight is not 2-D.
    ReadOnlyTableError  max_norm is given and the table cannot be written.

    Source: torch.nn.functional.embedding. Differs: see docs/differences-from-torch.md.
    """
    if weight.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, got shape {weight.shape}")
    rows, dim = weight.shape
    padding = None if padding_idx is None else row_index(padding_idx, rows)
    ids = as_ids(input.array if isinstance(input, Tensor) else input)
    # What backward reads must not change when the caller reuses an array of ids.
    recorded = weight.requires_grad and is_grad_enabled()
    plan = RowPlan(ids.copy() if recorded else ids, rows)
    if max_norm is not None:
        _raise_for(kernels.first_bad_id(plan.ids, rows), ids, rows)
        _renorm(weight, plan.unique, _number(max_norm, 3), _number(norm_type, 4))
    out = np.empty((plan.ids.size, dim), weight.dtype)
    _raise_for(_gather(weight.array, plan.ids, out), ids, rows)

    def gradient(upstream: Any, plan: RowPlan, _input: Any) -> RowGrad | FloatArray:
        entries = _entries(upstream, plan, dim)
        if scale_grad_by_freq:
            entries = entries * (1.0 / plan.counts()).astype(entries.dtype)[:, None]
        return (_sparse_gradient if sparse else _dense_gradient)(entries, plan, padding)

    return record(
        "EmbeddingBackward0",
        out.reshape(*ids.shape, dim),
        (weight, gradient, (plan, input if isinstance(input, Tensor) else None)),
    )


def row_index(index: int, rows: int) -> int:
    """Return a row's id, counting a negative one from the end.

    Raises
    ------
    TypeError       index is not an integer.
    AssertionError  it is outside -rows..rows-1 (torch's exception and text).
    """
    row = operator.index(index)
    if not -rows <= row < rows:
        raise AssertionError(
            f"Padding_idx must be within num_embeddings: got {row}, valid: {-rows}..{rows - 1}"
        )
    return row % rows


def _number(value: Any, position: int) -> float:
    """Return max_norm or norm_type as a float; raises TypeError (torch's text)."""
    if isinstance(value, Tensor) and value.ndim == 0:
        return float(value.item())
    if not isinstance(value, numbers.Real):
        name = {3: "max_norm", 4: "norm_type"}[position]
        raise TypeError(
            f"embedding_renorm_(): argument '{name}' (position {position}) must be float, "
            f"not {type(value).__name__}"
        )
    return float(value)


def _raise_for(bad: int, ids: IdArray, rows: int) -> None:
    if bad >= 0:
        raise IndexError(f"index out of range in self: {bad_id_message(ids, bad, rows)}")


def _gather(table: npt.NDArray[Any], ids: IdArray, out: npt.NDArray[Any]) -> int:
    if kernels.accepts(table):
        return kernels.gather(table, ids, out)
    bad = kernels.first_bad_id(ids, len(table))
    if bad < 0:
        np.take(table, ids, axis=0, out=out)
    return bad


def _renorm(
    weight: Tensor, unique: npt.NDArray[np.int64], max_norm: float, norm_type: float
) -> None:
    """Scale rows down to max_norm; only rows that change are written, and one change is counted."""
    table = weight.array
    copied = None if kernels.accepts(table) else np.ascontiguousarray(table[unique])
    rows, ids = (table, unique) if copied is None else (copied, np.arange(unique.size))
    norms = np.empty(unique.size)
    kernels.row_norms(rows, ids, norm_type, norms)
    over = norms > max_norm
    with weight.writing(unique[over]) as writable:
        kernels.renorm(writable if copied is None else copied, ids[over], max_norm, norm_type)
        if copied is not None:
            writable[unique[over]] = copied[over]


def _entries(upstream: Any, plan: RowPlan, dim: int) -> FloatArray:
    """Return the gradient of the gathered rows, one entry per id."""
    if isinstance(upstream, RowGrad):
        upstream = upstream.to_dense().array
    entries: FloatArray = np.ascontiguousarray(upstream).reshape(plan.ids.size, dim)
    return entries


def _sparse_gradient(entries: FloatArray, plan: RowPlan, padding: int | None) -> RowGrad:
    if padding is not None:
        kept = plan.ids != padding
        if not kept.all():
            return RowGrad(RowPlan(plan.ids[kept], plan.rows), entries[kept])
    return RowGrad(plan, entries)


def _dense_gradient(entries: FloatArray, plan: RowPlan, padding: int | None) -> FloatArray:
    dense = np.zeros((plan.rows, entries.shape[1]), entries.dtype)
    kernels.scatter_add(entries, plan.order, plan.starts, plan.unique, dense)
    if padding is not None:
        dense[padding] = 0
    return dense
