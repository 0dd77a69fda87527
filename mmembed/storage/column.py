"""What a column is: a name, a type, a width and how its rows start; all of it checked.

Must not know bytes on disk, files or arrays of rows.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..kernels.packed import SCALE_BYTES
from ..narrow import as_dtype
from .initial import Initial

DTYPES = ("float32", "float64", "float16", "bfloat16")
CHECKSUM = "crc32"  # of the rows of another column, as uint32; see `checks`
CHECKS = "crc."  # how the name of such a column begins
QUANTIZED = "rowwise8"  # rows of bytes, each followed by its scale and bias; see `kernels.packed`
_ALLOWED = "float32, float64, float16 or bfloat16"
MAX_NAME = 100  # characters; with ".npy" and a digest behind it a file name stays below 255
BLOCK_BYTES = 4096  # a block of a lazy column is at most as large, or one row
MAX_BYTES = 2**63 - 1  # what a signed 64-bit file offset can say
_NAME = re.compile(r"[a-z][a-z0-9_]*(\.[a-z][a-z0-9_]*)*")


def whole_number(what: str, value: object, low: int, high: int) -> int:
    """Return `value` as an int in low..high; `what` names it in the message.

    Raises
    ------
    TypeError   value is not an integer (a bool is none).
    ValueError  it is outside low..high.
    """
    try:
        if isinstance(value, bool | np.bool_):
            raise TypeError
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{what} must be an integer, got {value!r}") from None
    if not low <= number <= high:
        raise ValueError(f"{what} must be in {low}..{high}, got {number}")
    return number


def dtype_name(dtype: npt.DTypeLike) -> str:
    """Return the dtype's name, one of DTYPES; TypeError for every other dtype or byte order.

    Raises
    ------
    MissingDependencyError  it is "bfloat16", and ml_dtypes is not installed.
    """
    try:
        found = as_dtype(dtype) if dtype is not None else None  # to NumPy, None is float64
    except TypeError:
        found = None
    if found is not None and found.isnative and found.name in DTYPES:
        return found.name
    raise TypeError(f"a table's dtype must be {_ALLOWED}, got {dtype!r}")


def check_name(name: object) -> None:
    """Raise TypeError or ValueError unless `name` may name a column or a counter."""
    if not isinstance(name, str):
        raise TypeError(f"a name must be a string, got {name!r}")
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME:
        raise ValueError(
            f"{name!r} cannot be a name: use words of lower-case letters, digits and _, joined by "
            f"dots, each beginning with a letter, {MAX_NAME} characters at most"
        )


@dataclass(frozen=True)
class Column:
    """One array of a table: (rows, dim), or (rows,) if `dim` is None.

    `lazy`: on disk, rows have no place in the file before their block is first written.

    Raises
    ------
    TypeError   a field has the wrong type.
    ValueError  the name is not dotted lower-case words, or a number is out of range.
    """

    name: str
    dtype: str
    dim: int | None
    init: Initial
    seed: int
    lazy: bool = False

    def __post_init__(self) -> None:
        """Check every field."""
        check_name(self.name)
        if self.dtype == CHECKSUM:
            if not self.name.startswith(CHECKS) or (self.dim, str(self.init)) != (None, "zeros"):
                raise ValueError(
                    f"{self.name!r} cannot hold checksums: they are scalars of {CHECKS}NAME"
                )
        elif self.dtype not in DTYPES and not self.quantized:
            raise TypeError(f"a column's dtype must be {_ALLOWED}, got {self.dtype!r}")
        if self.dim is not None:
            whole_number("dim", self.dim, 0, MAX_BYTES)
        whole_number("seed", self.seed, 0, 2**64 - 1)
        if not isinstance(self.lazy, bool):
            raise TypeError(f"lazy must be a bool, got {self.lazy!r}")
        if self.lazy and (self.quantized or self.row_bytes == 0):
            raise ValueError(f"column {self.name!r} cannot be lazy: its rows are not drawn")
        with np.errstate(over="ignore"):
            largest = self.numpy_dtype.type(self.init.largest())
        if not np.isfinite(largest):
            raise ValueError(f"initial values {str(self.init)!r} do not fit {self.dtype}")

    @property
    def quantized(self) -> bool:
        """Whether rows are bytes with a scale and a bias; only `weight` can be so."""
        return self.dtype == QUANTIZED and self.name == "weight"

    @property
    def checks(self) -> str | None:
        """The name of the column whose rows this one has checksums of, if it has."""
        return self.name.removeprefix(CHECKS) if self.dtype == CHECKSUM else None

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the column's array in a table of `rows` rows."""
        if self.dim is None:
            return (rows,)
        return rows, self.dim + (SCALE_BYTES if self.quantized else 0)

    @property
    def numpy_dtype(self) -> np.dtype[Any]:
        """The dtype of the column's array; MissingDependencyError without a package for it."""
        if self.dtype == CHECKSUM:
            return np.dtype(np.uint32)
        return np.dtype(np.uint8) if self.quantized else as_dtype(self.dtype)

    @property
    def descr(self) -> str:
        """What a `.npy` header says of the dtype; of bfloat16, which it cannot say, <V2."""
        return self.numpy_dtype.newbyteorder("<").str

    @property
    def row_bytes(self) -> int:
        """Bytes in one row."""
        return self.numpy_dtype.itemsize * int(np.prod(self.shape(1), dtype=object))

    @property
    def block_shift(self) -> int:
        """A block of a lazy column has 1 << block_shift rows: as many as fit BLOCK_BYTES, or 1."""
        return max(0, (BLOCK_BYTES // max(1, self.row_bytes)).bit_length() - 1)

    @property
    def has_bits(self) -> bool:
        """Whether bits must tell which blocks are written: a hole reads as zeros, which may do."""
        return self.lazy and str(self.init) != "zeros"


def new_column(
    name: str,
    weight: Column,
    seed: int,
    *,
    dim: int | None = None,
    scalar: bool = False,
    dtype: npt.DTypeLike | None = None,
    init: str | Initial = "zeros",
) -> Column:
    """Return a column of a table with this `weight` and seed; see `Table.add_column`."""
    if scalar and dim is not None:
        raise ValueError(f"a scalar column has no width, got dim={dim}")
    width = weight.dim if dim is None else whole_number("dim", dim, 0, MAX_BYTES)
    return Column(
        name,
        dtype_name(weight.numpy_dtype if dtype is None else dtype),
        None if scalar else width,
        init if isinstance(init, Initial) else Initial.parse(init),
        column_seed(seed, name),
    )


def column_seed(seed: int, name: str) -> int:
    """Return the seed of a column's rows, given its table's seed.

    `weight` has the table's own. Any other has the first 8 bytes, little-endian, of the SHA-256 of
    the seed in decimal, a space, and the name: columns differ, and every machine finds the same.

    >>> column_seed(7, "weight"), column_seed(7, "context")
    (7, 5289154031884150243)
    """
    if name == "weight":
        return seed
    import hashlib  # OpenSSL behind it is a large part of what importing this package would cost

    return int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:8], "little")
