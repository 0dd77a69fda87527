"""`Embedding`: a table of rows as a module.

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

E = TypeVar("E", bound="Embedding")


class Embedding(Lookup):
    """A table that looks up rows by id.

    Parameters
    ----------
    num_embeddings, embedding_dim : shape of the table.
    padding_idx : this row starts as zeros and gets no gradient; a negative one counts from the end.
    max_norm, norm_type : rows that are looked up are first scaled down to this norm, in place.
    scale_grad_by_freq : divide gradients by how often their id occurs in the batch.
    sparse : gradients are `RowGrad`s of the rows that were looked up.
    _weight : (num_embeddings, embedding_dim) tensor or array to use as the table: aliased, not
        copied, and its padding row is kept. With `path`, it is copied into the new table.
    _freeze : do not collect gradients.
    device : "cpu".
    dtype : float32 (the default), float64, float16 or bfloat16; the last needs ml_dtypes.
    path : directory of the table. One that exists is opened (for reading only if `_freeze`), and
        its shape and dtype must be those asked for; otherwise it is made. Without a path the table
        is in memory.
    init : how rows of a new table start; see `Table.create`.
    durability : of a new table; see `Table.create`.
    output_dtype : float32 lets a float16 or bfloat16 table give float32 rows and take float32
        gradients; by default they have the table's dtype.

    Attributes
    ----------
    weight : TableParameter, (num_embeddings, embedding_dim).
    table : the Table of `weight`.

    Raises
    ------
    AssertionError  padding_idx or the shape of `_weight` does not fit.
    TypeError, ValueError  another argument is wrong; nothing has been made then.
    Errors of Table.create and Table.open.

    Source: torch.nn.Embedding. Differs: see docs/differences-from-torch.md.

    >>> import mmembed as mm
    >>> # a table of 10 vectors of size 3
    >>> embedding = mm.nn.Embedding(10, 3)
    >>> # a batch of 2 samples of 4 ids each
    >>> input = mm.tensor([[1, 2, 4, 5], [4, 3, 2, 9]])
    >>> embedding(input).shape
    (2, 4, 3)

    >>> # with a padding row
    >>> embedding = mm.nn.Embedding(10, 3, padding_idx=0)
    >>> input = mm.tensor([[0, 2, 0, 5]])
    >>> output = embedding(input)
    >>> output[0, 0].tolist(), output[0, 2].tolist()
    ([0.0, 0.0, 0.0], [0.0, 0.0, 0.0])

    >>> # changing the padding vector
    >>> padding_idx = 0
    >>> embedding = mm.nn.Embedding(3, 3, padding_idx=padding_idx, init="ones")
    >>> embedding.weight
    Parameter containing:
    tensor([[0., 0., 0.],
            [1., 1., 1.],
            [1., 1., 1.]], requires_grad=True)
    >>> with mm.no_grad():
    ...     embedding.weight[padding_idx] = mm.ones(3) * 2
    >>> embedding.weight
    Parameter containing:
    tensor([[2., 2., 2.],
            [1., 1., 1.],
            [1., 1., 1.]], requires_grad=True)

    >>> # max_norm changes the table in place, so clone a weight that backward needs
    >>> n, d, m = 3, 5, 7
    >>> embedding = mm.nn.Embedding(n, d, max_norm=1.0)
    >>> W = mm.randn((m, d), requires_grad=True)
    >>> idx = mm.tensor([1, 2])
    >>> a = embedding.weight.clone() @ W.t()  # weight must be cloned for this to be differentiable
    >>> b = embedding(idx) @ W.t()  # modifies weight in place
    >>> out = a.unsqueeze(0) + b.unsqueeze(1)
    >>> loss = out.sigmoid().prod()
    >>> loss.backward()
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Tensor | npt.NDArray[Any] | None = None,
        _freeze: bool = False,
        device: str | None = None,
        dtype: npt.DTypeLike | None = None,
        *,
        path: str | os.PathLike[str] | None = None,
        init: str = "normal",
        durability: str = "power",
        output_dtype: npt.DTypeLike | None = None,
    ) -> None:
        padding = None
        if padding_idx is not None:
            padding = F.checked_padding(padding_idx, num_embeddings)
            if num_embeddings == 0:
                raise IndexError("index 0 is out of bounds for dimension 0 with size 0")
        super().__init__(
            num_embeddings, embedding_dim, padding, max_norm, norm_type, scale_grad_by_freq, sparse,
            Rows(_weight, _freeze, device, dtype, path, init, durability),
        )  # fmt: skip
        self.output_dtype = output_dtype

    @classmethod
    def from_pretrained(
        cls: type[E],
        embeddings: Tensor | npt.NDArray[Any],
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> E:
        """Return an Embedding over `embeddings`, (rows, dim), which is aliased, not copied.

        A memory-mapped array is used where it is: training writes through to its file. One that is
        read-only can be looked up, not trained.

        Source: torch.nn.Embedding.from_pretrained. Differs: takes NumPy arrays as well.
        """
        rows, dim = shape_of_pretrained(embeddings)
        return cls(
            rows, dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            _weight=embeddings, _freeze=freeze,
        )  # fmt: skip

    @classmethod
    def from_table(
        cls: type[E],
        table: Table,
        *,
        column: str = "weight",
        freeze: bool = False,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> E:
        """Return an Embedding over a column of a table; the table stays the caller's to close."""
        weight = TableParameter(table, column)
        rows, dim = weight.shape
        return cls(
            rows, dim, padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse,
            _weight=weight, _freeze=freeze,
        )  # fmt: skip

    def forward(self, input: Tensor | npt.ArrayLike) -> Tensor:
        """Return rows of the table: a tensor of shape (*input.shape, embedding_dim).

        Parameters
        ----------
        input : integer ids, any shape: a tensor, an array or a list.

        Raises what `mmembed.functional.embedding` raises.
        """
        return F.embedding(
            input, self.weight, self.padding_idx, self.max_norm, self.norm_type,
            self.scale_grad_by_freq, self.sparse, output_dtype=self.output_dtype,
        )  # fmt: skip

    def extra_repr(self) -> str:
        """Return the shape, and the options that are not at their defaults."""
        return self.said(
            ("padding_idx", self.padding_idx, None),
            ("max_norm", self.max_norm, None),
            ("norm_type", self.norm_type, 2),
            ("scale_grad_by_freq", self.scale_grad_by_freq, False),
            ("sparse", self.sparse, False),
            ("output_dtype", self.output_dtype, None),
        )
