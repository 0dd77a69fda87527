"""A function of numbers, made one of tuples of numbers: what a thread does with a wide load.

Must not know memory, kernels or rows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .target import device


def lifted(
    function: Callable[..., Any], width: int, tuples: int, numbers: int = 0, results: int = 1
) -> Callable[..., Any]:
    """Return the function that applies another to each of `width` elements.

    Parameters
    ----------
    function : takes `tuples` elements, then `numbers` numbers; it is a device function.
    results : how many numbers it returns; if more than 1, in a tuple, and then the function that
        is made returns a tuple of that many tuples.
    """
    vectors = [f"v{k}" for k in range(tuples)]
    scalars = [f"n{k}" for k in range(numbers)]
    lines = [f"def each({', '.join(vectors + scalars)}):"]
    for j in range(width):
        given = ", ".join([f"{v}[{j}]" for v in vectors] + scalars)
        lines.append(f"    r{j} = function({given})")
    if results == 1:
        lines.append(f"    return ({''.join(f'r{j}, ' for j in range(width))})")
    else:
        parts = (f"({''.join(f'r{j}[{k}], ' for j in range(width))})" for k in range(results))
        lines.append(f"    return ({', '.join(parts)})")
    names: dict[str, Any] = {"function": function}
    exec("\n".join(lines), names)
    return device(names["each"])


def filled(width: int, value: Any) -> tuple[Any, ...]:
    """Return a tuple that a kernel can use as a constant."""
    return (value,) * width
