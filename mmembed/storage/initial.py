"""The initial values of a column: a distribution, its spelling, and its rows.

Must not know columns or files. A row's values depend on (seed, row) alone, so any block of rows can
be drawn at any time and in any order.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .. import kernels
from ..kernels import packed
from ..narrow import is_narrow

_KINDS = {"constant": 0, "uniform": 1, "normal": 2}  # as `kernels.initial_rows` numbers them
_SHORT = {
    "zeros": ("constant", 0.0, 0.0),
    "ones": ("constant", 1.0, 0.0),
    "normal": ("normal", 0.0, 1.0),
}
_SPELLING = re.compile(r"\s*([a-z]+)\s*(?:\(([^()]*)\))?\s*")
_ALLOWED = (
    "'zeros', 'ones', 'constant(0.1)', 'uniform(-0.005, 0.005)', 'normal' or 'normal(0, 0.02)'"
)


@dataclass(frozen=True)
class Initial:
    """How the rows of a column start.

    Parameters
    ----------
    kind : "constant" (a), "uniform" (between a and b) or "normal" (mean a, deviation b).
    a, b : finite; b is 0 for a constant.

    Raises
    ------
    ValueError  the kind is unknown, a number is not finite, b < a (uniform) or b < 0 (normal).

    >>> Initial.parse("normal(0, 0.02)")
    Initial(kind='normal', a=0.0, b=0.02)
    >>> str(Initial.parse("constant(0)"))
    'zeros'
    """

    kind: str
    a: float
    b: float = 0.0

    def __post_init__(self) -> None:
        """Check every field."""
        # One spelling for each value: 1 is 1.0, and -0.0, which equals 0.0, is 0.0.
        object.__setattr__(self, "a", float(self.a) + 0.0)
        object.__setattr__(self, "b", float(self.b) + 0.0)
        if self.kind not in _KINDS:
            raise ValueError(
                f"no initial values of kind {self.kind!r}; there are: {', '.join(_KINDS)}"
            )
        if not (math.isfinite(self.a) and math.isfinite(self.b)):
            raise ValueError(f"initial values must be finite, got {self.a} and {self.b}")
        if self.kind == "constant" and self.b != 0:
            raise ValueError(f"a constant takes one number, got {self.a} and {self.b}")
        if self.kind == "uniform" and self.b < self.a:
            raise ValueError(f"uniform(a, b) needs a <= b, got {self.a} and {self.b}")
        if self.kind == "normal" and self.b < 0:
            raise ValueError(f"the deviation of normal(mean, deviation) must be >= 0, got {self.b}")

    @classmethod
    def parse(cls, text: str) -> Initial:
        """Return the value that `text` spells; `str` of it is the shortest such text.

        Raises
        ------
        TypeError   text is not a string.
        ValueError  it spells no initial value.
        """
        if not isinstance(text, str):
            raise TypeError(f"init must be a string such as {_ALLOWED}; got {text!r}")
        if text in _SHORT:
            return cls(*_SHORT[text])
        match = _SPELLING.fullmatch(text)
        kind, listed = match.groups() if match else (None, None)
        if kind not in _KINDS or listed is None:
            raise ValueError(f"init {text!r} is not understood; use {_ALLOWED}")
        try:
            numbers = [float(number) for number in listed.split(",")]
        except ValueError:
            raise ValueError(f"init {text!r} has something in it that is not a number") from None
        if len(numbers) != (1 if kind == "constant" else 2):
            raise ValueError(f"init {text!r} has the wrong count of numbers; use {_ALLOWED}")
        return cls(kind, *numbers)

    def __str__(self) -> str:
        """Return the shortest text that `parse` makes this value of."""
        for short, value in _SHORT.items():
            if value == (self.kind, self.a, self.b):
                return short
        return (
            f"constant({self.a})" if self.kind == "constant" else f"{self.kind}({self.a}, {self.b})"
        )

    def largest(self) -> float:
        """Return what no number in the arithmetic of the values is above, or inf."""
        if self.kind == "uniform":
            return max(abs(self.a), abs(self.b), self.b - self.a)
        return abs(self.a) + 7 * self.b  # 32-bit words draw no deviation above 6.8

    def fill(self, out: npt.NDArray[np.floating[Any]], first: int, seed: int) -> None:
        """Set out[i] to the initial value of row first + i.

        Parameters
        ----------
        out : (n, dim) or (n,) of a dtype of tables, contiguous; written. Narrow values are float32
            ones, rounded.
        first : the row that out[0] is.
        seed : 0..2**64-1.
        """
        self.draw(out, np.arange(first, first + out.shape[0], dtype=np.int64), seed)

    def draw(
        self, out: npt.NDArray[np.floating[Any]], ids: npt.NDArray[np.int64], seed: int
    ) -> None:
        """Set out[i] to the initial value of row ids[i]; see `fill`."""
        rows = out if out.ndim == 2 else out[:, None]
        if self.kind == "constant":
            out[...] = self.a
            return
        narrow = is_narrow(out.dtype)
        drawn = np.empty(rows.shape, np.float32) if narrow else rows
        kernels.initial_rows(ids, _KINDS[self.kind], self.a, self.b, seed, drawn)
        if narrow:
            rows[...] = packed.rounded(drawn, out.dtype)
