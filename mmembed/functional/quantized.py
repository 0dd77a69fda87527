"""Lookups in tables of 8 bits, for serving: rows become float32 while they are taken or added up.

Must not know whether a table is a file, nor modules; nothing here is recorded for a gradient.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from .. import buffers
from ..autograd import Tensor
from ..ids import as_ids
from ..kernels import packed
from ..narrow import FLOAT32
from ..rows import RowPlan
from ..storage import Table
from .bags import _Bags, _check, _factors, _padding, _starts
from .lookup import IdArray, raise_for


def quantized_embedding(input: Tensor | npt.ArrayLike, table: Table) -> Tensor:
    """Look up rows of a table of 8 bits by id.

    Parameters
    ----------
    input : integer ids, any shape: a tensor, an array or a list.
    table : made by `Table.quantize`.

    Returns
    -------
    Tensor of shape (*input.shape, dim), float32, that requires no gradient.

    Raises
    ------
    IndexError  an id is outside 0..rows-1; names the first one and where it stands.
    TypeError   ids are not integers, or the table is not of 8 bits.

    Source: torch.ops.quantized.embedding_byte. Differs: product and sum of byte * scale + bias are
    rounded one after the other.
    """
    rows = _bytes_of(table)
    ids = as_ids(input.array if isinstance(input, Tensor) else input, "embedding")
    flat = _expected(table, ids)
    out = buffers.empty((flat.size, table.dim), np.float32)
    raise_for(packed.unpack_rows(rows, packed.ROWWISE8, flat, out), ids, table.rows)
    return Tensor(out.reshape(*ids.shape, table.dim))


def quantized_embedding_bag(
    input: Tensor | npt.ArrayLike,
    table: Table,
    offsets: Tensor | npt.ArrayLike | None = None,
    mode: str = "sum",
    per_sample_weights: Tensor | npt.ArrayLike | None = None,
    include_last_offset: bool = False,
    padding_idx: int | None = None,
) -> Tensor:
    """Look up rows of a table of 8 bits and reduce them by bags, without the rows in between.

    Parameters
    ----------
    table : made by `Table.quantize`.
    The others are those of `embedding_bag`; per_sample_weights are float32.

    Returns
    -------
    Tensor of shape (bags, dim), float32, that requires no gradient.

    Raises
    ------
    TypeError  the table is not of 8 bits.
    Errors of `embedding_bag`.

    Source: torch.ops.quantized.embedding_bag_byte. Differs: see `quantized_embedding`; it has means
    and maxima too.
    """
    rows = _bytes_of(table)
    # Of the table, checks ask for its shape and the dtype of what it gives.
    like = Tensor(np.broadcast_to(np.float32(0), table.shape))
    factors = _factors(per_sample_weights, like)
    ids = as_ids(input.array if isinstance(input, Tensor) else input, "embedding_bag")
    _check(ids, like, offsets, mode, False, False, factors, FLOAT32)
    passed = -1 if padding_idx is None else _padding(padding_idx, table.rows)
    plan = RowPlan(ids, table.rows)
    bags = _Bags(plan, ids.shape, _starts(ids, offsets, include_last_offset), passed)
    _expected(table, plan.ids)
    shape = bags.starts.size - 1, table.dim
    out = buffers.empty(shape, np.float32)
    if mode == "max":
        where = np.empty(shape, np.int64)
        args: tuple[Any, ...] = plan.ids, bags.starts, passed, out, where
        bags.check(packed.unpack_bags_max(rows, packed.ROWWISE8, *args))
    else:
        weights = np.empty(0, np.float32)
        if factors is not None:
            weights = np.require(factors.array, np.float32, ["C", "A"]).reshape(-1)
        args = plan.ids, bags.starts, weights, passed, mode == "mean", out
        bags.check(packed.unpack_bags(rows, packed.ROWWISE8, *args))
    return Tensor(out)


def _bytes_of(table: Table) -> npt.NDArray[np.uint8]:
    if not isinstance(table, Table) or not table.quantized:
        raise TypeError(f"{table!r} is no table of rows of 8 bits; Table.quantize makes one")
    rows: Any = table.column()
    return rows  # type: ignore[no-any-return]


def _expected(table: Table, ids: IdArray) -> IdArray:
    """Return the ids in one line; their pages are asked for, if the table is on disk."""
    flat = np.ascontiguousarray(ids).reshape(-1)
    if table.on_disk and (pages := table.column_pages()) is not None:
        pages.expect(flat)
    return flat
