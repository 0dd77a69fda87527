"""`Lookup`: what `Embedding` and `EmbeddingBag` share: a table of rows, made, opened or aliased.

Must not know how rows are looked up, nor kernels or optimizers.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple, overload

import numpy as np
import numpy.typing as npt

from ..autograd import Tensor
from ..autograd.random import next_seed
from ..devices import check_device
from ..narrow import as_dtype, is_floating
from ..parameter import Parameter, TableParameter, parameter_over
from ..storage import Table
from .module import Module

if TYPE_CHECKING:
    from typing_extensions import Self


class Rows(NamedTuple):
    """Where a module's rows come from; see `Embedding`."""

    weight: Tensor | npt.NDArray[Any] | None
    freeze: bool
    device: str | None
    dtype: npt.DTypeLike | None
    path: str | os.PathLike[str] | None
    init: str
    durability: str


class _Weight:
    """Finds the parameter `weight` without the search that other parameters take.

    It can only be read: what is set, deleted or put in its place goes its usual way.
    """

    @overload
    def __get__(self, module: None, owner: type) -> Self: ...

    @overload
    def __get__(self, module: Module, owner: type) -> Parameter: ...

    def __get__(self, module: Module | None, owner: type) -> Self | Parameter:
        if module is None:
            return self
        weight = module._parameters.get("weight")
        if weight is None:
            raise AttributeError(f"'{owner.__name__}' object has no attribute 'weight'")
        return weight


class Lookup(Module):
    """Base of the modules over a table; a subclass defines `forward`.

    Parameters
    ----------
    padding_idx : id of the padding row, 0..num_embeddings-1, or None.
    rows : where the table comes from.
    The others are those of `Embedding`.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None,
        max_norm: float | None,
        norm_type: float,
        scale_grad_by_freq: bool,
        sparse: bool,
        rows: Rows,
    ) -> None:
        super().__init__()
        check_device(rows.device)
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.padding_idx = padding_idx
        self.max_norm = max_norm
        self.norm_type = norm_type
        self.scale_grad_by_freq = scale_grad_by_freq
        self.sparse = sparse
        self.register_parameter("weight", self._parameter(rows))

    weight = _Weight()

    def _parameter(self, rows: Rows) -> Parameter:
        shape = self.num_embeddings, self.embedding_dim
        weight, freeze, path, dtype, init = (
            rows.weight,
            rows.freeze,
            rows.path,
            rows.dtype,
            rows.init,
        )
        if weight is not None and tuple(weight.shape) != shape:
            raise AssertionError(
                "Shape of weight does not match num_embeddings and embedding_dim: "
                f"got {tuple(weight.shape)}, expected {shape}"
            )
        if weight is not None and path is None:
            return parameter_over(weight, requires_grad=not freeze)
        if weight is None:
            _check(shape, dtype)
        if path is not None and weight is None and os.path.lexists(path):
            table = _open(path, shape, dtype, "r" if freeze else "r+")
        else:
            if weight is not None:
                dtype, init = weight.dtype, "zeros"
            table = Table.create(
                path,
                *shape,
                np.float32 if dtype is None else dtype,
                init=init,
                seed=next_seed(),
                durability=rows.durability,
                fill=_fill(weight, self.padding_idx),
            )
        return TableParameter(table, requires_grad=not freeze)

    def resize_(self, rows: int) -> Self:
        """Grow the vocabulary to `rows` ids, in place; returns the module.

        The new rows start as the table's initial values say: as they would be had the table been
        made with that many rows; where it was made of given rows, as zeros. `weight` stays this
        object, so optimizers go on with their states, which begin anew in the new rows. Gradients
        collected before are zero there. See `Table.resize` and `TableParameter.resize_rows_`.

        Training goes on as if the rows had been there from the start and had been left alone.
        SparseAdamW's decay of the steps before reaches them too when they are first touched; that
        of AdamW and SGD, which those steps gave to all rows, does not.

        Modules that share the table look up the new rows too; their `num_embeddings` follows when
        they are resized to the same number, which does nothing else.

        Raises
        ------
        ValueError      `rows` is less than the table has: tables do not shrink.
        AttributeError  weight was replaced by a parameter that has no table.
        Errors of Table.resize; the module is as it was then.

        Source: `resize_token_embeddings` of Hugging Face's transformers; torch has no such method.
        """
        weight = self.weight
        if not isinstance(weight, TableParameter):
            raise AttributeError("weight was replaced by a parameter that has no table")
        weight.resize_rows_(rows)
        self.num_embeddings = weight.shape[0]
        return self

    @property
    def table(self) -> Table:
        """The table that holds the rows of `weight`; TypeError if they are in none."""
        weight = self.weight
        if not isinstance(weight, TableParameter):
            raise TypeError(
                f"a weight of {weight.dtype}, strides {weight.array.strides}, is in no table"
            )
        return weight.table

    def said(self, *options: tuple[str, object, object]) -> str:
        """Return the shape, and of the (name, value, usual value) those that are not as usual."""
        unusual = [f"{name}={value!r}" for name, value, usual in options if value != usual]
        return ", ".join([f"{self.num_embeddings}, {self.embedding_dim}", *unusual])


def shape_of_pretrained(embeddings: Tensor | npt.NDArray[Any]) -> tuple[int, int]:
    """Return (rows, dim); AssertionError (torch's text) if there are not two dimensions."""
    if embeddings.ndim != 2:
        raise AssertionError(
            "Embeddings parameter is expected to be 2-dimensional: "
            f"got shape {tuple(embeddings.shape)}"
        )
    rows, dim = embeddings.shape
    return rows, dim


def _check(shape: tuple[int, int], dtype: npt.DTypeLike | None) -> None:
    """Raise torch's errors for a table that cannot be made."""
    for place, size in enumerate(shape):
        if isinstance(size, bool) or not hasattr(size, "__index__"):
            raise TypeError(
                "empty(): argument 'size' (position 1) must be tuple of ints, but found element of "
                f"type {type(size).__name__} at pos {place}"
            )
    if min(shape) < 0:
        raise RuntimeError(
            f"Trying to create tensor with negative dimension {min(shape)}: {list(shape)}"
        )
    if dtype is not None and not is_floating(as_dtype(dtype)):
        raise RuntimeError(
            "Only Tensors of floating point and complex dtype can require gradients: "
            f"got dtype {as_dtype(dtype)}"
        )


def _fill(
    weight: Tensor | npt.NDArray[Any] | None, padding: int | None
) -> Callable[[int, npt.NDArray[Any]], None] | None:
    """Return what gives a new table its rows: those of `weight`, or zeros in the padding row."""
    if weight is not None:
        rows = weight.array if isinstance(weight, Tensor) else weight

        def copy(first: int, values: npt.NDArray[Any]) -> None:
            values[...] = rows[first : first + len(values)]

        return copy
    if padding is None:
        return None

    def zero(first: int, values: npt.NDArray[Any]) -> None:
        values[max(padding - first, 0) : max(padding + 1 - first, 0)] = 0

    return zero


def _open(
    path: str | os.PathLike[str], shape: tuple[int, int], dtype: npt.DTypeLike | None, mode: str
) -> Table:
    """Open a table that must have this shape, and this dtype unless it is None."""
    asked = None if dtype is None else as_dtype(dtype)  # may raise: nothing is open yet
    table = Table.open(path, mode)
    wanted = table.dtype if asked is None else asked
    if table.shape != shape or table.dtype != wanted:
        found = f"{table.shape} {table.dtype}"
        table.close()
        raise ValueError(
            f"the table at {os.fspath(path)} is {found}, asked for {shape} {wanted}; "
            "choose another path, or Embedding.from_table(Table.open(path, 'r+'))"
        )
    return table
