"""Tables of 8 bits: each row is bytes with a scale and a bias of its own, made once and then read.

Must not know files: a `Table` with such a column is made, opened and checked as every other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ..ids import as_ids, bad_id_message
from ..kernels import packed
from .access import check_out
from .column import QUANTIZED, Column, column_seed
from .directory import DirectoryStore
from .format import Superblock
from .initial import Initial
from .store import Fill, FloatArray, MemoryStore, Store

if TYPE_CHECKING:
    from .table import Table

BLOCK = 1 << 16  # rows measured at a time


def quantized_store(source: Table, column: str, path: str | os.PathLike[str] | None) -> Store:
    """Return a store with rows in 8 bits, open for reading; see `Table.quantize`."""
    shape = source.shape_of(column)
    if len(shape) != 2 or source.quantized:
        what = "is in 8 bits already" if source.quantized else "has one number per row"
        raise ValueError(f"column {column!r} {what}; quantize a column of rows of floats")
    rows, dim = shape
    weight = Column("weight", QUANTIZED, dim, Initial("constant", 0.0), column_seed(0, "weight"))
    superblock = Superblock.first(rows, weight, 0, source.durability)
    if path is None:
        return MemoryStore.create(superblock, _filling(source, column))
    where = os.path.abspath(os.fsdecode(path))
    store = DirectoryStore.create(where, superblock, _filling(source, column))
    store.close()
    return DirectoryStore.open(where, "r")


def _filling(source: Table, column: str) -> Fill:
    """Return what writes rows of a column as bytes, block by block."""

    def fill(first: int, values: FloatArray) -> None:
        with np.errstate(over="ignore", invalid="ignore"):
            found = source.read(first, first + len(values), column)
            rows = np.ascontiguousarray(found, np.float32)
            extent = rows.max(axis=1, initial=-np.inf) - rows.min(axis=1, initial=np.inf)
        bad = np.flatnonzero(~np.isfinite(extent)) if rows.shape[1] else np.empty(0, np.int64)
        if bad.size:
            raise ValueError(
                f"row {first + int(bad[0])} holds a number that is not finite, or numbers further "
                "apart than float32 can say; such rows have no scale"
            )
        bytes_: Any = values
        packed.pack_rows(rows, packed.ROWWISE8, np.arange(len(rows)), bytes_)

    return fill


def take_quantized(
    rows: npt.NDArray[np.uint8], dim: int, ids: npt.ArrayLike, out: FloatArray | None
) -> FloatArray:
    """Return rows as float32, in `out` if it is given; see `Table.gather`."""
    where = as_ids(ids)
    shape = (*where.shape, dim)
    if out is None:
        out = np.empty(shape, np.float32)
    else:
        check_out(out, shape, np.dtype(np.float32), rows)
    flat = np.ascontiguousarray(where).reshape(-1)
    into: Any = out.reshape(flat.size, dim)
    bad = packed.unpack_rows(rows, packed.ROWWISE8, flat, into)
    if bad >= 0:
        raise IndexError(bad_id_message(where, bad, len(rows)))
    return out


def quantization_error(table: Table, of: Table, column: str = "weight") -> tuple[float, float]:
    """Return the largest and the root mean square difference between a table and its original."""
    largest, squares = 0.0, 0.0
    size = max(1, of.rows * of.shape_of(column)[1])
    for first in range(0, table.rows, BLOCK):
        ids = np.arange(first, min(first + BLOCK, table.rows))
        before = of.gather(ids, column=column).astype(np.float64)
        apart = table.gather(ids).astype(np.float64) - before
        largest = max(largest, float(np.abs(apart).max(initial=0.0)))
        squares += float((apart * apart).sum())
    return largest, (squares / size) ** 0.5
