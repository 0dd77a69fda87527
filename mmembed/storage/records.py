"""Records: columns whose rows lie side by side in one file, and where in a record each lies.

Must not know files, headers or commits. A `Records` stands where a `Column` stands that has a file
of its own: it is an array of structs, and its columns are the fields.
"""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from .column import Column, whole_number

MAX_STRIDE = 2**31 - 1  # bytes; NumPy's structs are no larger
MAX_DESCR = 3800  # characters; what there is room for in the header of a file
LAYOUTS = ("columns", "records")


@dataclass(frozen=True)
class Records:
    """The columns of a table that share a file; the first is `weight`.

    Each field is aligned to its own numbers; a record begins `stride` bytes behind the last one.

    Raises
    ------
    TypeError, ValueError  `stride` is no integer, or less than a record takes, or would leave the
        numbers of the next record unaligned; or a column cannot be a field.
    """

    columns: tuple[Column, ...]
    stride: int

    name: ClassVar[str] = "records"
    lazy: ClassVar[bool] = False
    has_bits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        """Check every field."""
        if any(column.lazy for column in self.columns):
            raise ValueError("records are not lazy: their rows have a place in the file at once")
        if any(column.quantized for column in self.columns):
            raise ValueError("rows of 8 bits have a file of their own, and no records")
        unit = _unit(self.columns)
        whole_number("stride", self.stride, least_stride(self.columns), MAX_STRIDE)
        if self.stride % unit:
            raise ValueError(
                f"stride must be a multiple of {unit}, so that numbers are aligned; got "
                f"{self.stride}"
            )
        if len(repr(self.descr)) > MAX_DESCR:
            raise ValueError(
                f"the header of a file has no room for the names of {len(self.columns)} columns; "
                "put fewer of them into records, and add the others later"
            )

    @property
    def offsets(self) -> tuple[int, ...]:
        """Where in a record each column begins."""
        return _places(self.columns)[0]

    @property
    def row_bytes(self) -> int:
        """Bytes from one record to the next."""
        return self.stride

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of the array of records; its fields are called as the columns are."""
        return np.dtype(
            {
                "names": [column.name for column in self.columns],
                "formats": [(c.numpy_dtype, c.shape(1)[1:]) for c in self.columns],
                "offsets": list(self.offsets),
                "itemsize": self.stride,
            }
        )

    @property
    def descr(self) -> list[tuple[Any, ...]]:
        """What a `.npy` header says of the dtype; what lies between fields has no name."""
        fields: list[tuple[Any, ...]] = []
        at = 0
        for column, offset in zip(self.columns, self.offsets, strict=True):
            fields += _padding(offset - at)
            shape = column.shape(1)[1:]
            fields.append((column.name, column.descr, *([shape] if shape else [])))
            at = offset + column.row_bytes
        return fields + _padding(self.stride - at)

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the array of records."""
        return (rows,)


def arranged(columns: tuple[Column, ...], layout: str, stride: int | str | None) -> Records | None:
    """Return the records of a table with these columns, or None; see `Table.create`."""
    if layout not in LAYOUTS:
        raise ValueError(f"layout must be 'columns' or 'records', got {layout!r}")
    if layout == "columns":
        if stride is not None:
            raise ValueError(
                f"stride={stride!r} is for records; the rows of columns lie without gaps. "
                "layout='records' takes a single column as well"
            )
        return None
    if stride is None:
        return Records(columns, least_stride(columns))
    if isinstance(stride, str):
        if stride != "page":
            raise ValueError(f"stride must be a number of bytes or 'page', got {stride!r}")
        return Records(columns, stride_within_pages(columns))
    return Records(columns, stride)


Filed = Column | Records
"""What has a file of rows: a column, or several as records."""


def least_stride(columns: tuple[Column, ...]) -> int:
    """Return the least number of bytes from one record of these columns to the next."""
    unit = _unit(columns)
    return max(unit, _up(_places(columns)[1], unit))


def stride_within_pages(columns: tuple[Column, ...], page: int = mmap.PAGESIZE) -> int:
    """Return the least stride with which records touch no more pages than they must.

    A record no longer than a page has a stride that divides the page; a longer one begins with a
    page. Any other stride puts some record across a page's end.
    """
    least = least_stride(columns)
    return _up(least, page) if least > page else 1 << (least - 1).bit_length()


def _places(columns: tuple[Column, ...]) -> tuple[tuple[int, ...], int]:
    """Return where each column begins, and where the last one ends."""
    offsets, at = [], 0
    for column in columns:
        at = _up(at, column.numpy_dtype.itemsize)
        offsets.append(at)
        at += column.row_bytes
    return tuple(offsets), at


def _unit(columns: tuple[Column, ...]) -> int:
    """Return the size of the largest number, of which a stride is a multiple."""
    return max(column.numpy_dtype.itemsize for column in columns)


def _up(size: int, unit: int) -> int:
    return -(-size // unit) * unit


def _padding(size: int) -> list[tuple[Any, ...]]:
    return [("", f"|V{size}")] if size else []
