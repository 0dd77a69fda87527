"""`embedding`: rows by id.

Must not know whether a table is a file, nor modules or optimizers.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import buffers, kernels
from ..autograd import Tensor, is_grad_enabled, record
from ..kernels import packed
from ..narrow import wide
from ..rows import RowGrad, RowPlan
from .lookup import (
    FloatArray,
    GradientOf,
    IdArray,
    announce,
    check_ids,
    check_trainable,
    ids_of,
    output_dtype_of,
    prepare,
    raise_for,
    renorm,
    row_index,
    rows_met,
)


def embedding(
    input: Tensor | npt.ArrayLike,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
    *,
    output_dtype: npt.DTypeLike | None = None,
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
    output_dtype : of a float16 or bfloat16 table, float32 gives its rows, and takes their
        gradients, as float32. By default the dtype of `weight`.

    Returns
    -------
    Tensor of shape (*input.shape, dim) and output_dtype; a fresh copy, never a view.

    Raises
    ------
    IndexError          an id is outside 0..rows-1; names the first one and where it stands. No row
                        has been renormed then.
    TypeError           ids are not integers; max_norm or norm_type is not a number; output_dtype is
                        not allowed; the table holds integers, and would be renormed.
    AssertionError      padding_idx is outside -rows..rows-1.
    RuntimeError        weight is not 2-D.
    ReadOnlyTableError  max_norm is given and the table cannot be written.

    Source: torch.nn.functional.embedding. Differs: see docs/differences-from-torch.md.
    """
    if weight.ndim != 2 and max_norm is not None:
        raise RuntimeError(
            f"Expected 2-dimensional tensor, but got {weight.ndim}-dimensional tensor for argument "
            "#1 'self' (while checking arguments for embedding_renorm_)"
        )
    if weight.ndim != 2:
        raise RuntimeError(f"'weight' must be 2-D, got shape {weight.shape}")
    rows, dim = weight.shape
    padding = None if padding_idx is None else checked_padding(padding_idx, rows)
    recorded = weight.requires_grad and is_grad_enabled()
    if recorded:
        check_trainable(weight)
    ids = ids_of(input, "embedding" if max_norm is None else "embedding_renorm_", recorded)
    plan = RowPlan(ids, rows)
    have = prepare(weight, plan)
    if max_norm is not None:
        check_ids(ids, rows)
        renorm(weight, plan, max_norm, norm_type)
    dtype = output_dtype_of(weight, output_dtype)
    out = buffers.empty((plan.ids.size, dim), dtype)
    raise_for(_gather(*rows_met(weight, plan, ids), out), ids, rows)
    have()
    if ids.ndim != 1:
        out = out.reshape(*ids.shape, dim)
    if not recorded:
        return Tensor(out)
    if sparse:
        announce(weight, plan)

    whole = GradientOf(weight, padding, sparse, dtype)

    def gradient(upstream: Any, plan: RowPlan, _input: Any) -> RowGrad | FloatArray:
        entries = np.require(upstream, dtype, ["C", "A"]).reshape(plan.ids.size, dim)
        if scale_grad_by_freq:
            entries = entries * (1.0 / plan.counts()).astype(wide(dtype))[:, None]
        return whole(entries, plan)

    return record(
        "EmbeddingBackward0",
        out,
        (weight, gradient, (plan, input if isinstance(input, Tensor) else None)),
    )


def checked_padding(padding_idx: int, rows: int) -> int:
    """Return the id of the padding row.

    Raises
    ------
    TypeError       padding_idx is not an integer.
    AssertionError  it is outside -rows..rows-1 (torch's exception and text); 0 always passes.
    """
    if isinstance(padding_idx, bool) or not hasattr(padding_idx, "__index__"):
        raise TypeError(
            "embedding(): argument 'padding_idx' (position 3) must be int, "
            f"not {type(padding_idx).__name__}"
        )
    if padding_idx == 0:
        return 0
    row = row_index(padding_idx, rows)
    if row is None:
        raise AssertionError(
            "Padding_idx must be within num_embeddings: "
            f"got {padding_idx}, valid: {-rows}..{rows - 1}"
        )
    return row


def _gather(table: npt.NDArray[Any], ids: IdArray, out: npt.NDArray[Any]) -> int:
    if table.dtype != out.dtype and packed.accepts(table):
        format = packed.format_of(table.dtype)
        return packed.unpack_rows(packed.as_bytes(table), format, ids, out)
    if kernels.accepts(table) or packed.accepts(table):
        return kernels.gather(table, ids, out)
    bad = kernels.first_bad_id(ids, len(table))
    if bad < 0:
        out[...] = table[ids]
    return bad
