"""The `reduction` argument that all losses have.

Must not know any loss.
"""

from __future__ import annotations

from typing import Literal, TypeAlias, get_args

Reduction: TypeAlias = Literal["none", "mean", "sum"]


def check_reduction(reduction: str) -> None:
    """Raise ValueError (torch's text) for an unknown reduction."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"{reduction} is not a valid value for reduction (valid: none, mean, sum)")
