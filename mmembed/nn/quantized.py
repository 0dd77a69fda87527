"""Modules over tables of 8 bits, for serving: made of trained ones, or opened.

Must not know files or kernels; rows are in a `Table`, lookups in `functional`.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy.typing as npt

from .. import functional as F
from ..autograd import Tensor
from ..parameter import TableParameter
from ..storage import Table
from .embedding import Embedding
from .embedding_bag import EmbeddingBag
from .module import Module

if TYPE_CHECKING:
    from typing_extensions import Self


class _Quantized(Module):
    """What both have in common: a table of 8 bits, which is no parameter."""

    def __init__(self, table: Table | str | os.PathLike[str]) -> None:
        super().__init__()
        self.table = table if isinstance(table, Table) else Table.open(table)
        if not self.table.quantized:
            raise TypeError(f"{self.table!r} is not of 8 bits; Table.quantize makes such a table")

    @property
    def num_embeddings(self) -> int:
        """Number of rows."""
        return self.table.rows

    @property
    def embedding_dim(self) -> int:
        """Width of the rows."""
        return self.table.dim

    def extra_repr(self) -> str:
        """Return the shape, and what a row is."""
        shape = f"{self.num_embeddings}, {self.embedding_dim}"
        return f"{shape}, bytes_per_row={self.table.nbytes // max(1, self.table.rows)}"


def _quantized(module: Embedding | EmbeddingBag, path: str | os.PathLike[str] | None) -> Table:
    weight = module.weight
    if not isinstance(weight, TableParameter):
        raise TypeError("weight is in no table; make a module of a contiguous copy of it")
    weight.catch_up(lambda: None)
    return weight.table.quantize(path, column=weight.column)


class QuantizedEmbedding(_Quantized):
    """Looks up rows of 8 bits, which become float32 on the way; has no parameters.

    Parameters
    ----------
    table : made by `Table.quantize`, or the path of one.

    Source: torch.ao.nn.quantized.Embedding.

    >>> import mmembed as mm
    >>> embedding = mm.nn.Embedding(10, 4)
    >>> served = mm.nn.QuantizedEmbedding.from_float(embedding)
    >>> served([1, 2]).shape
    (2, 4)
    >>> bool((abs(served([1]) - embedding([1])).detach().numpy() < 0.02).all())
    True
    """

    @classmethod
    def from_float(cls, module: Embedding, path: str | os.PathLike[str] | None = None) -> Self:
        """Return the module over a new table, at `path` or in memory; see `Table.quantize`."""
        return cls(_quantized(module, path))

    def forward(self, input: Tensor | npt.ArrayLike) -> Tensor:
        """See `functional.quantized_embedding`."""
        return F.quantized_embedding(input, self.table)


class QuantizedEmbeddingBag(_Quantized):
    """Sums, means or maxima of rows of 8 bits by bags of ids; has no parameters.

    Parameters
    ----------
    table : made by `Table.quantize`, or the path of one.
    mode, include_last_offset, padding_idx : see `EmbeddingBag`; a padding row does not count.

    Source: torch.ao.nn.quantized.EmbeddingBag. Differs: takes padding_idx, and "max" as a mode.
    """

    def __init__(
        self,
        table: Table | str | os.PathLike[str],
        mode: str = "sum",
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> None:
        super().__init__(table)
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.padding_idx = padding_idx

    @classmethod
    def from_float(cls, module: EmbeddingBag, path: str | os.PathLike[str] | None = None) -> Self:
        """Return the module over a new table, at `path` or in memory; see `Table.quantize`."""
        padding = None if module.include_padding else module.padding_idx
        return cls(_quantized(module, path), module.mode, module.include_last_offset, padding)

    def forward(
        self,
        input: Tensor | npt.ArrayLike,
        offsets: Tensor | npt.ArrayLike | None = None,
        per_sample_weights: Tensor | npt.ArrayLike | None = None,
    ) -> Tensor:
        """See `functional.quantized_embedding_bag`."""
        return F.quantized_embedding_bag(
            input, self.table, offsets, self.mode, per_sample_weights, self.include_last_offset,
            self.padding_idx,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return the shape, what a row is, and the mode."""
        return f"{super().extra_repr()}, mode={self.mode!r}"
