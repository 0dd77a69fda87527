"""Parameters: tensors that a module owns, and those whose rows live in a table.

Must not know modules, optimizers or files; a table may be one or not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt

from .autograd import Tensor
from .ids import rows_at
from .storage import Table

FloatArray = npt.NDArray[np.floating[Any]]
RowArray = npt.NDArray[np.int64]


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

    def __repr__(self) -> str:
        return f"Parameter containing:\n{super().__repr__()}"

    def __deepcopy__(self, memo: dict[int, Any]) -> Parameter:
        """Return a copy with memory of its own, no gradient, and version 0."""
        return Parameter(Tensor(self.array.copy()), self.requires_grad)

    def __reduce__(self) -> Any:
        return _rebuild, (self.array, self.requires_grad)


def _rebuild(array: FloatArray, requires_grad: bool) -> Parameter:
    return Parameter(Tensor(array), requires_grad)


class TableParameter(Parameter):
    """A column of a table as a parameter: every change of its rows goes through the table's door.

    Parameters
    ----------
    table, column : the rows.
    requires_grad : whether gradients are collected.

    A copy (`copy.deepcopy`) has its table in memory. A pickle of one on disk names the path.
    """

    def __init__(self, table: Table, column: str = "weight", requires_grad: bool = True) -> None:
        super().__init__(Tensor(table.column(column)), requires_grad)
        self.table = table
        self.column = column

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
        return parameter

    @property
    def array(self) -> FloatArray:
        """The rows; read-only if they are in a file."""
        return self.table.column(self.column)

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
        with self.columns(rows) as columns:
            yield columns[self.column]

    def _assign(self, index: Any, values: Any) -> None:
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
                dtype=self.dtype,
                init=f"constant({float(init)!r})",
            )
        return column

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
        return TableParameter(self.table.__deepcopy__(memo), self.column, self.requires_grad)

    def __reduce__(self) -> Any:
        return TableParameter, (self.table, self.column, self.requires_grad)
