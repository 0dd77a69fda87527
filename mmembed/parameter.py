"""Parameters: tensors that a module owns, and those whose rows live in a table.

Must not know modules, optimizers or files; a table may be one or not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from .autograd import Tensor, is_grad_enabled, no_grad
from .autograd.tape import Version
from .autograd.variable import Variable
from .errors import UnwrittenRowsError
from .ids import IdArray, rows_at
from .narrow import wide as wide_dtype
from .rows import RowGrad
from .storage import Table
from .storage.pages import read_later

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]


# The change counters of the columns of tables, while there are parameters over them.
_versions: WeakKeyDictionary[Table, dict[str, Version]] = WeakKeyDictionary()

DECAY_UNITS = 2.0**44  # in 1; see `TableParameter.put_off_decay`


class Parameter(Tensor):
    """A leaf tensor that a module registers when it is set as one of its attributes.

    Parameters
    ----------
    data : its memory and version counter are shared, not copied.

    Source: torch.nn.Parameter.
    """

    def __init__(self, data: Tensor, requires_grad: bool = True) -> None:
        if not isinstance(data, Tensor):
            raise TypeError(f"a Parameter is made from a Tensor, got {type(data).__name__}")
        super().__init__(data.array, requires_grad)
        self._version_counter = data._version_counter

    def over_memory_of(self, value: Tensor | FloatArray) -> Parameter:
        """Return a parameter of this kind over other elements, which are shared, not copied."""
        data = value if isinstance(value, Tensor) else Tensor(value)
        return Parameter(data.detach(), self.requires_grad)

    def cast(self, dtype: npt.DTypeLike) -> None:
        """Change the dtype of the elements and of the gradient; the parameter stays this object."""
        self.check_cast(dtype)
        gradient, self.grad = self.grad, None
        self._cast_elements(np.dtype(dtype))
        if gradient is not None:
            self.grad = gradient.to(self.dtype)

    def check_cast(self, dtype: npt.DTypeLike) -> None:
        """Raise what `cast` would raise."""

    def _cast_elements(self, dtype: np.dtype[Any]) -> None:
        self._array = self.array.astype(dtype, copy=False)

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """Return a copy with memory of its own, no gradient, and version 0."""
        return Parameter(Tensor(self.array.copy()), self.requires_grad)

    def __reduce__(self) -> Any:
        return _rebuild, (self.array, self.requires_grad)


def parameter_over(data: Tensor | FloatArray, requires_grad: bool) -> Parameter:
    """Return a parameter over the memory of `data`, (rows, dim).

    It is a TableParameter if a table can have this dtype and layout. Rows of other dtypes, and rows
    that are not contiguous, can be looked up.
    """
    try:
        return TableParameter.over(data, requires_grad)
    except (TypeError, ValueError):
        tensor = data.detach() if isinstance(data, Tensor) else Tensor(data)
        return Parameter(tensor, requires_grad)


def zero_grad(parameter: Tensor, set_to_none: bool) -> None:
    """Forget a parameter's gradient, or make it zero in place."""
    if set_to_none:
        parameter.grad = None
    elif parameter.grad is not None:
        with no_grad():
            parameter.grad.zero_()


def _fitted(gradient: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
    """Return a gradient as that of a table which may have grown, or been cast, since."""
    if gradient is None:
        return None
    if gradient.dtype not in (dtype, wide_dtype(dtype)):
        if isinstance(gradient, np.ndarray | np.generic):
            gradient = gradient.astype(dtype)
        else:
            gradient = gradient.to(dtype)
    if gradient.shape[1:] != shape[1:] or gradient.shape[0] >= shape[0]:
        return gradient
    if isinstance(gradient, RowGrad):
        return gradient.widened(shape[0])
    wide = np.zeros(shape, gradient.dtype)
    wide[: gradient.shape[0]] = gradient.array if isinstance(gradient, Tensor) else gradient
    return Tensor(wide) if isinstance(gradient, Tensor) else wide


def _rebuild(array: FloatArray, requires_grad: bool) -> Parameter:
    return Parameter(Tensor(array), requires_grad)


class TableParameter(Parameter):
    """A column of a table as a parameter: every change of its rows goes through the table's door.

    Parameters
    ----------
    table, column : the rows.
    requires_grad : whether gradients are collected.

    The table may grow, by `resize_rows_` or by `Table.resize`: then the parameter, which stays this
    object, has the new shape, and a gradient from before counts as zero in the rows that came.

    A copy (`copy.deepcopy`) has its table in memory. A pickle of one on disk names the path.
    """

    def __init__(self, table: Table, column: str = "weight", requires_grad: bool = True) -> None:
        if table.quantized:
            raise TypeError(
                f"{table!r} holds rows of 8 bits, which are only read: look them up with "
                "nn.QuantizedEmbedding, and train the table that it was made of"
            )
        shape = table.shape_of(column)
        if len(shape) != 2:
            raise ValueError(f"column {column!r} has one number per row, and no rows to look up")
        # What stands for the rows, which `array` gives: it has their shape then, and no memory.
        stand_in = np.broadcast_to(np.zeros((), table.dtype_of(column)), shape)
        super().__init__(Tensor(stand_in), requires_grad)
        self.table = table
        self.column = column
        # Parameters over one column count its changes together.
        versions = _versions.setdefault(table, {})
        self._version_counter = versions.setdefault(column, self._version_counter)

    @classmethod
    def over(cls, data: Tensor | FloatArray, requires_grad: bool = True) -> TableParameter:
        """Return a parameter over the rows of `data`, (rows, dim), which are shared, not copied.

        Parameters
        ----------
        data : another TableParameter (the two then share a table), a tensor, or an array.

        Raises
        ------
        TypeError, ValueError  see `Table.from_array`.
        """
        if isinstance(data, TableParameter):
            parameter = cls(data.table, data.column, requires_grad)
        else:
            array = data.array if isinstance(data, Tensor) else data
            parameter = cls(Table.from_array(array), "weight", requires_grad)
        if isinstance(data, Tensor):
            parameter._version_counter = data._version_counter
            _versions[parameter.table][parameter.column] = data._version_counter
        return parameter

    @property
    def array(self) -> FloatArray:
        """The rows; read-only if they are in a file. Raises what `Table.column` raises."""
        return self.table.column(self.column)

    @property
    def shape(self) -> tuple[int, ...]:
        """The size of every dimension."""
        return self.table.shape_of(self.column)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The element type, an np.dtype."""
        return self.table.dtype_of(self.column)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return 2

    def dim(self) -> int:
        """Return the number of dimensions."""
        return 2

    def numel(self) -> int:
        """Return the number of elements."""
        return math.prod(self.shape)

    def as_if_its_own(self, rows: FloatArray) -> Tensor:
        """Return copies of rows, or the whole array, as a tensor that counts changes of these rows.

        It is for what a lookup saves: `backward` then notices that rows have changed since.
        """
        tensor = Tensor(rows)
        tensor._version_counter = self._version_counter
        return tensor

    def __repr__(self) -> str:
        try:
            return super().__repr__()
        except UnwrittenRowsError:
            return f"Parameter containing:\ncolumn {self.column!r} of {self.table!r}"

    @property
    def grad(self) -> Any:
        """See `Tensor.grad`; as wide as the table is now."""
        self._grad = _fitted(self._grad, self.shape, self.dtype)
        return self._grad

    @grad.setter
    def grad(self, gradient: Any) -> None:
        Variable.grad.fset(self, gradient)  # type: ignore[attr-defined]

    def _takes_gradient_of(self, dtype: np.dtype[Any]) -> bool:
        """Return whether a gradient may have a dtype: the rows', or float32 of narrow ones."""
        return dtype in (self.dtype, wide_dtype(self.dtype))

    def _fitting(self, gradient: Any, owned: bool) -> tuple[Any, bool]:
        """See `Variable`; the table may have grown, or been cast, since the lookup."""
        fitted = _fitted(gradient, self.shape, self.dtype)
        new = fitted is not gradient and isinstance(fitted, np.ndarray)
        return super()._fitting(fitted, owned or new)

    def _add_to_grad(self, gradient: Any, owned: bool) -> None:
        self._grad = _fitted(self._grad, self.shape, self.dtype)
        if isinstance(self._grad, Tensor) and self._grad.dtype != gradient.dtype:
            self._grad = self._grad.to(wide_dtype(self.dtype))
        super()._add_to_grad(gradient, owned)

    def resize_rows_(self, rows: int) -> None:
        """Grow the table to `rows` rows, and count one change of every column.

        States of optimizers grow along. Gradients collected before stay, zero in the new rows; so
        does what `backward` collects of a lookup recorded before. Detached tensors and views taken
        before show the old rows, and are refused when they are written.

        Raises what `Table.resize` raises; then no change is counted.
        """
        before = self.table.rows
        self.table.resize(rows)
        if rows != before:
            for version in _versions[self.table].values():
                version.bump()

    def expect(self, ids: IdArray) -> Callable[[], None] | None:
        """Start to read rows that are about to be looked up, and their states if they are trained.

        Parameters
        ----------
        ids : (n,) contiguous int32 or int64; those outside the table are passed over.

        Returns
        -------
        What wants to be called when the rows have been read, if anything does.
        """
        pages = self.table.column_pages(self.column)
        if pages is None or not pages.expect(ids):
            return None
        if self.requires_grad and is_grad_enabled():
            begin = f"{self.column}."
            states = [name for name in self.table.columns if name.startswith(begin)]
            apart = [self.table.column_pages(name) for name in states]
            read_later([(state, ids) for state in apart if state is not pages]).keep()
        return pages.have

    def will_change(self, rows: Callable[[], RowArray]) -> None:
        """Let the undo journal of a table on disk save rows (ascending) before they change.

        `rows` is called only if there is one.
        """
        if self.table.on_disk and self.table.mode == "r+":
            self.table.will_write(rows())

    def over_memory_of(self, value: Tensor | FloatArray) -> Parameter:
        """See `Parameter.over_memory_of`; in no table if a table cannot have such rows."""
        return parameter_over(value, self.requires_grad)

    def check_cast(self, dtype: npt.DTypeLike) -> None:
        """Raise what `Table.cast` would raise."""
        self.table.check_cast(dtype)

    def _cast_elements(self, dtype: np.dtype[Any]) -> None:
        if self.dtype != dtype:  # another column's parameter may have cast the table
            self.table.cast(dtype)

    @contextmanager
    def columns(self, rows: RowArray | None = None) -> Iterator[Mapping[str, FloatArray]]:
        """Open the table's door for `rows` (ascending; None: all) and count one change."""
        try:
            with self.table.writing(rows) as columns:
                yield columns
        finally:
            self._version_counter.bump()

    @contextmanager
    def writing(self, rows: slice | RowArray | None = None) -> Iterator[FloatArray]:
        """Yield the column to be changed in place at `rows` only; see `Tensor.writing`."""
        if isinstance(rows, slice):
            rows = np.arange(*rows.indices(self.shape[0]))
        self.catch_up(lambda: rows)
        with self.columns(rows) as columns:
            yield columns[self.column]

    def _put(self, index: Any, values: Any) -> None:
        with self.writing(rows_at(index, self.shape[0])) as array:
            array[index] = values

    # -- an optimizer's state: columns of the same table ------------------------------------------

    def add_state(self, optimizer: str, name: str, init: float, *, scalar: bool = False) -> str:
        """Make sure of a state column; returns its name in the table.

        `scalar`: one number per row; otherwise the column is as wide as the rows.
        """
        column = f"{self.column}.{optimizer}.{name}"
        if column not in self.table.columns:
            self.table.add_column(
                column,
                None if scalar else self.shape[1],
                scalar=scalar,
                dtype=wide_dtype(self.dtype),
                init=f"constant({float(init)!r})",
            )
            return column
        found, dtype = self.table.shape_of(column), self.table.dtype_of(column)
        shape = self.shape[:1] if scalar else self.shape
        if found != shape or dtype != wide_dtype(self.dtype):
            raise ValueError(
                f"column {column!r} of the table is {found} {dtype}, and as a state of "
                f"this parameter it must be {shape} {wide_dtype(self.dtype)}"
            )
        return column

    def states(self, optimizer: str) -> dict[str, str]:
        """Return {name: column} of the states that there are of an optimizer, but for decay."""
        begin = f"{self.column}.{optimizer}."
        return {
            column.removeprefix(begin): column
            for column in self.table.columns
            if column.startswith(begin) and not column.endswith(".decayed")
        }

    def put_off_decay(self, optimizer: str, amount: float) -> None:
        """Let all rows decay by exp(-amount): each when it is next looked up or changed.

        The table keeps how much there has been (a counter) and how much each row has had (a column
        `decayed`), in units so small that the counter, a whole number, is an exact sum.
        """
        column = f"{self.column}.{optimizer}.decayed"
        if column not in self.table.columns:
            self.table.add_column(column, scalar=True, dtype="float64")
        self.table.count(column, self.table.counters.get(column, 0) + round(amount * DECAY_UNITS))

    def catch_up(self, rows: Callable[[], RowArray | None]) -> None:
        """Let rows (ascending; None: all) have the decay that was put off.

        `rows` is called only if some was. A table that is open for reading stays as it is.
        """
        begin = f"{self.column}."
        late = [
            name
            for name in self.table.counters
            if name.endswith(".decayed") and name.startswith(begin)
        ]
        if late and self.table.mode != "r":
            wanted = rows()
            for name in late:
                self._decay(name, wanted)

    def _decay(self, name: str, rows: RowArray | None) -> None:
        total = float(self.table.counters[name])
        decayed = self.table.column(name)
        behind = np.flatnonzero(decayed < total) if rows is None else rows[decayed[rows] < total]
        if behind.size == 0:
            return
        factors = np.exp((decayed[behind] - total) / DECAY_UNITS).astype(wide_dtype(self.dtype))
        with self.table.writing(behind) as columns:
            weight = columns[self.column]
            weight[behind] = weight[behind].astype(factors.dtype, copy=False) * factors[:, None]
            columns[name][behind] = total

    def take_states(self, other: TableParameter) -> None:
        """Copy all states and step counts of a parameter of this shape, cast to this dtype."""
        begin = f"{other.column}."
        for name in other.table.columns:
            if name.startswith(begin):
                values = other.table.column(name)
                column = f"{self.column}.{name.removeprefix(begin)}"
                scalar = values.ndim == 1
                kept = values.dtype != wide_dtype(other.dtype)
                dtype = values.dtype if kept else wide_dtype(self.dtype)
                self.table.add_column(
                    column, None if scalar else values.shape[1], scalar=scalar, dtype=dtype
                )
                with self.table.writing() as columns:
                    columns[column][...] = values
        for name, value in other.table.counters.items():
            if name.startswith(begin):
                self.table.count(f"{self.column}.{name.removeprefix(begin)}", value)

    def state(self, optimizer: str, name: str) -> FloatArray | None:
        """Return a state column's array, or None if there is none."""
        column = f"{self.column}.{optimizer}.{name}"
        return self.table.column(column) if column in self.table.columns else None

    def steps(self, optimizer: str) -> int:
        """Return how many steps an optimizer has made with this parameter."""
        return self.table.counters.get(f"{self.column}.{optimizer}.step", 0)

    def set_steps(self, optimizer: str, steps: int) -> None:
        """Record how many steps an optimizer has made; the table's next commit keeps it."""
        self.table.count(f"{self.column}.{optimizer}.step", steps)

    def __deepcopy__(self, memo: dict[int, Any]) -> TableParameter:
        """Return a copy in memory, with the table's other columns, no gradient, and version 0."""
        return TableParameter(copy.deepcopy(self.table, memo), self.column, self.requires_grad)

    def __reduce__(self) -> Any:
        return TableParameter, (self.table, self.column, self.requires_grad)
