"""Activations and dropout as torch's functionals have them: in place if asked.

Must not know modules, formulas or tables.
"""

from __future__ import annotations

from ..autograd import Tensor, ops


def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """Return max(input, 0), which replaces the input if `inplace`.

    Source: torch.nn.functional.relu.
    """
    return input.relu_() if inplace else ops.relu(input)


def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Return input with each element zeroed with probability p, and the others divided by 1 - p.

    Parameters
    ----------
    input : floating, any shape.
    p : 0..1.
    training : if False, the input itself is returned, and nothing is drawn.
    inplace : the result replaces the input.

    Raises
    ------
    ValueError    p is outside 0..1 (torch's text).
    RuntimeError  the input is not floating, or may not be changed in place (torch's texts).

    Source: torch.nn.functional.dropout. Differs: other draws than torch's generator gives.
    """
    if not inplace or not training or p == 0:
        return ops.dropout(input, p, training)
    ops.check_probability(p)
    return input.mul_(ops.dropout_factors(input, p))
