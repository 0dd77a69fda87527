"""`EmbeddingBag`: sums, means and maxima of rows by bags of ids, as a module.

Must not know files, kernels or optimizers: rows are in a `Table`, lookups in `functional`.
"""

from __future__ import annotations

import os
from typing import Any, TypeVar

import numpy.typing as npt

from .. import functional as F
from ..autograd import Tensor
from ..parameter import TableParameter
from ..storage import Table
from .lookup import Lookup, Rows, shape_of_pretrained

B = TypeVar("B", bound="EmbeddingBag")


class EmbeddingBag(Lookup):
    """A table that looks up bags of rows by their ids, and reduces each bag to one row.

    Parameters
    ----------
    num_embeddings, embedding_dim : shape of the table.
    max_norm, norm_type : rows that are looked up are first scaled down to this norm, in place.
    scale_grad_by_freq : divide gradients by how often their id occurs in the batch; not for "max".
    mode : "sum", "mean" or "max".
    sparse : gradients are `RowGrad`s of the rows that were looked up; not for "max".
    _weight : see `Embedding`.
    include_last_offset : offsets end with the length of the input.
    padding_idx : this row starts as zeros, does not count in a bag, and gets no gradient.
    device, dtype, path, init, durability, output_dtype : see `Embedding`.
    include_padding : the padding row counts in bags; it gets no gradient all the same.

    Attributes
    ----------
    weight : TableParameter, (num_embeddings, embedding_dim).
    table : the Table of `weight`.

    Raises
    ------
    AssertionError  padding_idx or the shape of `_weight` does not fit.
    TypeError, ValueError  another argument is wrong; nothing has been made then.
    Errors of Table.create and Table.open.

    Source: torch.nn.EmbeddingBag. Differs: see docs/differences-from-torch.md.

    >>> import mmembed as mm
    >>> # a table of 10 vectors of size 3, of which bags are summed
    >>> embedding_sum = mm.nn.EmbeddingBag(10, 3, mode="sum")
    >>> # a batch of 2 samples of 4 ids each
    >>> input = mm.tensor([1, 2, 4, 5, 4, 3, 2, 9])
    >>> offsets = mm.tensor([0, 4])
    >>> embedding_sum(input, offsets).shape
    (2, 3)

    >>> # with a padding row
    >>> embedding_sum = mm.nn.EmbeddingBag(10, 3, mode="sum", padding_idx=2)
    >>> input = mm.tensor([2, 2, 2, 2, 4, 3, 2, 9])
    >>> offsets = mm.tensor([0, 4])
    >>> embedding_sum(input, offsets)[0].tolist()
    [0.0, 0.0, 0.0]

    >>> # a bag is the lookup and the reduction in one
    >>> embedding = mm.nn.Embedding.from_pretrained(embedding_sum.weight, padding_idx=2)
    >>> bags = embedding(input.reshape(2, 4)).sum(1)
    >>> bool((abs(bags - embedding_sum(input, offsets)) < 1e-6).numpy().all())
    True
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Tensor | npt.NDArray[Any] | None = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        init: str = "normal",
        durability: str = "power",
        include_padding: bool = False,
        output_dtype: npt.DTypeLike | None = None,
    ) -> None:
        padding = None
        if padding_idx is not None:
            padding = F.row_index(padding_idx, num_embeddings)
            if padding is None:
                if num_embeddings == 0 and padding_idx == 0:
                    raise IndexError("index 0 is out of bounds for dimension 0 with size 0")
                raise AssertionError(
                    "padding_idx must be within num_embeddings: "
                    f"got {padding_idx}, valid: {-num_embeddings}..{num_embeddings - 1}"
                )
        super().__init__(
            num_embeddings, embedding_dim, padding, max_norm, norm_type, scale_grad_by_freq, sparse,
            Rows(_weight, False, device, dtype, path, init, durability),
        )  # fmt: skip
        self.mode = mode
        self.include_last_offset = include_last_offset
        self.include_padding = include_padding
        self.output_dtype = output_dtype

    @classmethod
    def from_pretrained(
        cls: type[B],
        embeddings: Tensor | npt.NDArray[Any],
        freeze: bool = True,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
    ) -> B:
        """Return an EmbeddingBag over `embeddings`, (rows, dim), which is aliased, not copied.

        Source: torch.nn.EmbeddingBag.from_pretrained. Differs: takes NumPy arrays as well.
        """
        rows, dim = shape_of_pretrained(embeddings)
        bags = cls(
            rows, dim, max_norm, norm_type, scale_grad_by_freq, mode, sparse, embeddings,
            include_last_offset, padding_idx,
        )  # fmt: skip
        bags.weight.requires_grad = not freeze
        return bags

    @classmethod
    def from_table(
        cls: type[B],
        table: Table,
        *,
        column: str = "weight",
        freeze: bool = False,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        include_padding: bool = False,
    ) -> B:
        """Return an EmbeddingBag over a column of a table, which stays the caller's to close."""
        weight = TableParameter(table, column)
        rows, dim = weight.shape
        bags = cls(
            rows, dim, max_norm, norm_type, scale_grad_by_freq, mode, sparse, weight,
            include_last_offset, padding_idx, include_padding=include_padding,
        )  # fmt: skip
        bags.weight.requires_grad = not freeze
        return bags

    def forward(
        self,
        input: Tensor | npt.ArrayLike,
        offsets: Tensor | npt.ArrayLike | None = None,
        per_sample_weights: Tensor | npt.ArrayLike | None = None,
    ) -> Tensor:
        """Return one row for each bag: a tensor of shape (bags, embedding_dim).

        Parameters, and what is raised, are those of `mmembed.functional.embedding_bag`.
        """
        return F.embedding_bag(
            input, self.weight, offsets, self.max_norm, self.norm_type, self.scale_grad_by_freq,
            self.mode, self.sparse, per_sample_weights, self.include_last_offset, self.padding_idx,
            include_padding=self.include_padding, output_dtype=self.output_dtype,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return the shape, the mode, and the options that are not at their defaults."""
        return self.said(
            ("max_norm", self.max_norm, None),
            ("norm_type", self.norm_type, 2),
            ("scale_grad_by_freq", self.scale_grad_by_freq, False),
            ("mode", self.mode, None),
            ("padding_idx", self.padding_idx, None),
            ("include_padding", self.include_padding, False),
            ("output_dtype", self.output_dtype, None),
        )
