"""What a column is: a name, a type, a width and how its rows start; all of it checked.

Must not know bytes on disk, files or arrays of rows.
"""

from __future__ import annotations

import operator
import re
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .initial import Initial

DTYPES = ("float32", "float64")
MAX_NAME = 100  # characters; with ".npy" and a digest behind it a file name stays below 255
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
    """Return "float32" or "float64"; raises TypeError for every other dtype or byte order."""
    try:
        for name in DTYPES if dtype is not None else ():  # to NumPy, None is float64
            if np.dtype(dtype) == np.dtype(name):
                return name
    except TypeError:
        pass
    raise TypeError(f"a table's dtype must be {' or '.join(DTYPES)}, got {dtype!r}")


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

    def __post_init__(self) -> None:
        """Check every field."""
        check_name(self.name)
        if self.dtype not in DTYPES:
            raise TypeError(f"a column's dtype must be {' or '.join(DTYPES)}, got {self.dtype!r}")
        if self.dim is not None:
            whole_number("dim", self.dim, 0, MAX_BYTES)
        whole_number("seed", self.seed, 0, 2**64 - 1)
        with np.errstate(over="ignore"):
            largest = np.dtype(self.dtype).type(self.init.largest())
        if not np.isfinite(largest):
            raise ValueError(f"initial values {str(self.init)!r} do not fit {self.dtype}")

    def shape(self, rows: int) -> tuple[int, ...]:
        """Return the shape of the column's array in a table of `rows` rows."""
        return (rows,) if self.dim is None else (rows, self.dim)

    @property
    def row_bytes(self) -> int:
        """Bytes in one row."""
        return np.dtype(self.dtype).itemsize * (1 if self.dim is None else self.dim)


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
