"""The gradient of some rows of a table: ids and one value per id, as torch's COO gradients.

Must not know who made it, nor optimizers. It adds to its like and to dense arrays; that is all the
tape asks of a gradient.
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import buffers, kernels
from ..autograd import Tensor
from ..narrow import is_floating
from .plan import RowArray, RowPlan
from .sums import add_to_rows, sums_by_row

FloatArray = npt.NDArray[np.floating[Any]]

_UNCOALESCED = "Cannot get {} on an uncoalesced tensor, please call .coalesce() first"
_SPARSE_PLUS_DENSE = "add(sparse, dense) is not supported. Use add(dense, sparse) instead."


class RowGrad:
    """A (rows, dim) gradient that is zero outside the rows it names; a row may be named repeatedly.

    Parameters
    ----------
    plan : the ids, in the order of the batch; n of them.
    entries : (n, dim) of a dtype of tables; entry i belongs to row plan.ids[i]. Kept, not copied.
    coalesced : the ids are known to be ascending and distinct.
    source : (n,) int64; entry i is entries[source[i]] instead, and there may be any number of
        those. All ids of a bag have the bag's gradient: it is there once.

    Attributes
    ----------
    plan : as given.
    entries : (n, dim), one per id; made when first asked for if there is a source.
    shape, dtype, ndim, is_sparse : as of the gradient it stands for.

    Source: torch.sparse_coo_tensor with sparse_dim 1 and dense_dim 1.
    """

    is_sparse = True
    ndim = 2
    # A NumPy array on the left of an operator leaves the operation to this class.
    __array_ufunc__ = None

    def __init__(
        self,
        plan: RowPlan,
        entries: FloatArray,
        *,
        coalesced: bool = False,
        source: RowArray | None = None,
    ) -> None:
        n = len(entries) if source is None else source.size
        if entries.ndim != 2 or n != plan.ids.size:
            raise ValueError(
                f"entries must have the shape ({plan.ids.size}, dim), got {entries.shape}"
            )
        if not is_floating(entries.dtype):
            raise TypeError(f"entries must be floating, got {entries.dtype}")
        self.plan = plan
        self._held = np.require(entries, requirements=["C", "A"])
        self._source = source
        self._coalesced = coalesced or plan.ids.size < 2

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, dim) of the table."""
        return self.plan.rows, self._held.shape[1]

    @property
    def dtype(self) -> np.dtype[Any]:
        """dtype of the entries."""
        return self._held.dtype

    @property
    def entries(self) -> FloatArray:
        """One row per id, in the order of the batch."""
        if self._source is not None:
            entries = buffers.empty((self._source.size, self.shape[1]), self.dtype)
            kernels.gather(self._held, self._source, entries)
            self._held, self._source = entries, None
        return self._held

    @property
    def memory(self) -> FloatArray:
        """The array that holds what the entries are made of."""
        return self._held

    def summands(self) -> tuple[FloatArray, RowArray]:
        """Return (values, order), with which kernels sum segments; no entry is copied.

        The gradient of row plan.unique[s] is the sum of the values at the positions
        order[plan.starts[s]:plan.starts[s + 1]].
        """
        order = self.plan.order
        return self._held, order if self._source is None else self._source.take(order)

    def is_coalesced(self) -> bool:
        """Return whether the ids are known to be ascending and distinct."""
        return self._coalesced

    def _nnz(self) -> int:
        return int(self.plan.ids.size)

    def _indices(self) -> Tensor:
        """Return the ids as they came, (1, n) int64."""
        return Tensor(self.plan.ids.astype(np.int64)[None, :])

    def _values(self) -> Tensor:
        """Return the entries as they came, (n, dim); the tensor shares their memory."""
        return Tensor(self.entries)

    def indices(self) -> Tensor:
        """Return the ids, (1, n) int64, ascending; RuntimeError before `coalesce`."""
        if not self._coalesced:
            raise RuntimeError(_UNCOALESCED.format("indices"))
        return self._indices()

    def values(self) -> Tensor:
        """Return the entries, (n, dim); RuntimeError before `coalesce`."""
        if not self._coalesced:
            raise RuntimeError(_UNCOALESCED.format("values"))
        return self._values()

    def coalesce(self) -> RowGrad:
        """Return the same gradient with ids ascending and distinct, entries of one row summed."""
        if self._coalesced:
            return self
        entries = sums_by_row(*self.summands(), self.plan)
        return RowGrad(RowPlan(self.plan.unique, self.plan.rows), entries, coalesced=True)

    def coalesce_(self) -> RowGrad:
        """Coalesce in place; returns the gradient."""
        return self._become(self.coalesce())

    def to_dense(self, zeros: FloatArray | None = None) -> Tensor:
        """Return the whole gradient, (rows, dim): its size is that of the table.

        `zeros` : an array of that shape and dtype for it; by default a new one in memory.
        """
        return Tensor(self._added_to(np.zeros(self.shape, self.dtype) if zeros is None else zeros))

    def clone(self) -> RowGrad:
        """Return a copy that shares nothing with this one."""
        values = buffers.empty(self._held.shape, self.dtype)
        values[...] = self._held
        return RowGrad(self.plan, values, coalesced=self._coalesced, source=self._source)

    def to(self, dtype: npt.DTypeLike) -> RowGrad:
        """Return the gradient with entries of a dtype; itself if they are already."""
        return self if self.dtype == dtype else self._with(self.entries.astype(dtype))

    def widened(self, rows: int) -> RowGrad:
        """Return the gradient of a table that has grown to `rows` rows: zero in the others.

        The entries are shared, not copied.
        """
        plan = self.plan.widened(rows)
        return RowGrad(plan, self._held, coalesced=self._coalesced, source=self._source)

    def norm(self, p: float = 2.0) -> Tensor:
        """Return the p-norm of all elements of the coalesced gradient, a 0-d tensor."""
        entries = self.coalesce().entries
        with np.errstate(divide="ignore"):  # of p < 0, where an element is 0
            return Tensor(np.asarray(np.linalg.norm(entries.reshape(-1), p), self.dtype))

    def numpy(self) -> FloatArray:
        """Raise TypeError (torch's text): a sparse gradient is no array."""
        raise TypeError("can't convert Sparse layout tensor to numpy. Use Tensor.to_dense() first.")

    def size(self, dim: int | None = None) -> Any:
        """Return the shape, or one of its numbers."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """Return 2."""
        return self.ndim

    def __len__(self) -> int:
        return self.plan.rows

    def __getitem__(self, row: int) -> Tensor:
        """Return the gradient of one row, (dim,): the sum of its entries.

        Raises
        ------
        IndexError  there is no such row; a negative one counts from the end.
        """
        rows = self.plan.rows
        index = operator.index(row)
        if not -rows <= index < rows:
            raise IndexError(f"row {index} is outside the gradient, which has {rows} rows")
        total = np.zeros(self.shape[1], self.dtype)
        for entry in self.entries[self.plan.ids == index % rows]:
            total += entry
        return Tensor(total)

    def __iter__(self) -> Any:
        raise TypeError("a row gradient is not iterable; to_dense() has all its rows")

    def __iadd__(self, other: object) -> Any:
        """Add in place: of a sparse one, this gradient takes the entries, as torch's does."""
        total = self + other
        if not isinstance(total, RowGrad):
            return total
        # With more entries than elements, the sums take less memory.
        return self._become(total.coalesce() if total.plan.ids.size > total._numel() else total)

    def __add__(self, other: object) -> RowGrad | FloatArray:
        if isinstance(other, RowGrad):
            self._check_shape(other.shape)
            ids = np.concatenate([self.plan.ids, other.plan.ids])
            return RowGrad(
                RowPlan(ids, self.plan.rows), np.concatenate([self.entries, other.entries])
            )
        if isinstance(other, Tensor):
            raise RuntimeError(_SPARSE_PLUS_DENSE)
        return self.__radd__(other)  # type: ignore[no-any-return]

    def __radd__(self, other: object) -> Any:
        """Dense + sparse is dense, and new."""
        if isinstance(other, Tensor):
            return Tensor(self.__radd__(other.array))
        if not isinstance(other, np.ndarray):
            return NotImplemented
        self._check_shape(other.shape)
        return self._added_to(other.astype(np.result_type(other, self.dtype), order="C"))

    def __sub__(self, other: object) -> RowGrad | FloatArray:
        if isinstance(other, RowGrad | np.ndarray | Tensor):
            return self + -other
        return NotImplemented

    def __rsub__(self, other: object) -> Any:
        return (-self).__radd__(other)

    def __mul__(self, factor: object) -> RowGrad:
        if isinstance(factor, RowGrad):
            return self._times(factor)
        return self._with(self.entries * self._at_entries(factor))

    __rmul__ = __mul__

    def __truediv__(self, divisor: object) -> RowGrad:
        return self._with(self.entries / self._at_entries(divisor))

    def __pow__(self, exponent: float) -> RowGrad:
        """Return the power of the coalesced gradient; elements that are not named stay 0."""
        if not exponent > 0:
            raise RuntimeError(
                f"a row gradient to the power {exponent} is not 0 where the gradient is; call "
                "to_dense() first"
            )
        whole = self.coalesce()
        return whole._with(whole.entries ** float(exponent))

    def sqrt(self) -> RowGrad:
        """Return the square root of the coalesced gradient."""
        return self**0.5

    def mul_(self, factor: object) -> RowGrad:
        """Multiply in place; returns the gradient."""
        return self._become(self * factor)

    def div_(self, divisor: object) -> RowGrad:
        """Divide in place; returns the gradient."""
        return self._become(self / divisor)

    __imul__ = mul_
    __itruediv__ = div_

    def __isub__(self, other: object) -> Any:
        """Subtract in place; see `__iadd__`."""
        self += -other  # type: ignore[operator]
        return self

    def __neg__(self) -> RowGrad:
        return self._with(-self.entries)

    def __repr__(self) -> str:
        return (
            f"RowGrad(ids={np.array2string(self.plan.ids, threshold=20)}, "
            f"shape={self.shape}, nnz={self._nnz()}, dtype={self.dtype}, "
            f"coalesced={self._coalesced})"
        )

    def zero_(self) -> RowGrad:
        """Forget all entries; returns the gradient. Source: torch's zero_ of a sparse tensor."""
        nothing = RowPlan(np.empty(0, np.int64), self.plan.rows)
        return self._become(RowGrad(nothing, self.entries[:0].copy()))

    def _become(self, other: RowGrad) -> RowGrad:
        self.plan, self._coalesced = other.plan, other._coalesced
        self._held, self._source = other._held, other._source
        return self

    def _numel(self) -> int:
        rows, dim = self.shape
        return rows * dim

    def _times(self, other: RowGrad) -> RowGrad:
        self._check_shape(other.shape)
        a, b = self.coalesce(), other.coalesce()
        ids, at_a, at_b = np.intersect1d(a.plan.ids, b.plan.ids, True, return_indices=True)
        product = a.entries[at_a] * b.entries[at_b]
        return RowGrad(RowPlan(ids.astype(np.int64), self.plan.rows), product, coalesced=True)

    def _at_entries(self, factor: Any) -> Any:
        """Return a number as one, which keeps the dtype, and of an array the part at each entry."""
        array = np.asarray(factor.array if isinstance(factor, Tensor) else factor)
        if array.ndim == 0:
            return float(array)
        try:
            whole = np.broadcast_to(array, self.shape)
        except ValueError:
            raise RuntimeError(
                f"an array of shape {array.shape} does not broadcast to that of the gradient, "
                f"{self.shape}"
            ) from None
        return whole[self.plan.ids].astype(self.dtype, copy=False)

    def _with(self, entries: FloatArray) -> RowGrad:
        return RowGrad(self.plan, entries, coalesced=self._coalesced)

    def _added_to(self, dense: FloatArray) -> FloatArray:
        add_to_rows(*self.summands(), self.plan, dense)
        return dense

    def _check_shape(self, shape: tuple[int, ...]) -> None:
        if shape != self.shape:
            raise RuntimeError(f"cannot add a gradient of shape {shape} to one of {self.shape}")
