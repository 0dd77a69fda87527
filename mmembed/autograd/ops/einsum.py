"""Sums of products over named dimensions.

Must not know layers. Every step is an operation that records itself: a diagonal, a sum, a product
of two operands, a permutation.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from string import ascii_lowercase, ascii_uppercase
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..dtypes import Array
from ..recording import record
from ..variable import Variable, wrap
from . import reduce
from .operands import data, operands, quiet
from .shape import permute, squeeze

if TYPE_CHECKING:
    from ..tensor import Tensor

Labels: TypeAlias = list[str]
"""The names of an operand's dimensions; those of an ellipsis are .1, .2, ... from the last one."""

_ELLIPSIS = "..."
_LETTERS = ascii_uppercase + ascii_lowercase  # as the numbers of subscript lists mean them


@quiet
def einsum(*arguments: Any) -> Tensor:
    """Return products of the operands' elements, summed over the dimensions not in the output.

    Parameters
    ----------
    arguments : an equation and the operands, one by one or in one list: `einsum("bij,bjk->bik", a,
        b)`; or each operand followed by a list of subscripts 0..51, and at the end, if wanted, the
        list for the output: `einsum(a, [0, 1], b, [1, 2], [0, 2])`. Each letter of the equation
        names a dimension. A letter that stands twice with one operand takes the diagonal. `...`
        stands for any dimensions, which are broadcast; a dimension of size 1 is broadcast too.
        Without `->`, the output has the dimensions of the ellipsis, and then the letters that
        occur once, in alphabetical order, capitals first.

    Returns
    -------
    Tensor  a view of a single operand of which nothing is summed.

    Raises
    ------
    RuntimeError, ValueError, TypeError  the equation is wrong or does not fit (torch's texts).

    Operands are contracted from left to right. Source: torch.einsum. Differs: operands of several
    dtypes are promoted.
    """
    subscripts, output, tensors = _understood(arguments)
    names, sizes = _named(subscripts, tensors)
    wanted = _output_names(output, names, sizes)
    terms = [
        _simplified(tensor, labels, sizes) for tensor, labels in zip(tensors, names, strict=True)
    ]
    result, labels = terms[0]
    for position, (other, other_labels) in enumerate(terms[1:], start=1):
        later = {*wanted, *(label for _, more in terms[position + 1 :] for label in more)}
        result, labels = _summed(result, labels, later | set(other_labels))
        other, other_labels = _summed(other, other_labels, later | set(labels))
        result, labels = _product(result, labels, other, other_labels, later)
    result, labels = _summed(result, labels, set(wanted))
    return permute(result, [labels.index(label) for label in wanted])


# -- what was asked for ----------------------------------------------------------------------------


def _understood(arguments: tuple[Any, ...]) -> tuple[list[Labels], Labels | None, list[Variable]]:
    """Return each operand's subscripts, the output's (None: implicit), and the operands."""
    if len(arguments) < 2:
        raise ValueError(
            "einsum(): must specify the equation string and at least one operand, or at least one "
            "operand and its subscripts list"
        )
    output: Labels | None
    if isinstance(arguments[0], Variable | np.ndarray):
        lists = [_letters(subscripts) for subscripts in arguments[1::2]]
        output = _letters(arguments[-1]) if len(arguments) % 2 else None
        return lists, output, [_tensor(operand) for operand in arguments[: 2 * len(lists) : 2]]
    equation, *given = arguments
    if not isinstance(equation, str):
        raise TypeError(
            f"einsum(): argument 'equation' (position 1) must be str, not {type(equation).__name__}"
        )
    if len(given) == 1 and isinstance(given[0], Sequence):
        given = [*given[0]]
    left, arrow, right = equation.partition("->")
    subscripts = [
        _parsed(part, start, f"for operand {position}")
        for position, (part, start) in enumerate(_parts(left))
    ]
    if len(subscripts) != len(given):
        which = "fewer" if len(given) < len(subscripts) else "more"
        raise RuntimeError(
            f"einsum(): {which} operands were provided than specified in the equation"
        )
    output = _parsed(right, len(left) + 2, "for output") if arrow else None
    return subscripts, output, [_tensor(operand) for operand in given]


def _tensor(operand: Any) -> Variable:
    return operand if isinstance(operand, Variable) else wrap(np.asarray(operand))


def _letters(subscripts: Sequence[Any]) -> Labels:
    """Return a list of subscripts as letters."""
    for subscript in subscripts:
        if subscript is not ... and not 0 <= subscript < len(_LETTERS):
            raise ValueError(
                "einsum(): subscript in subscript list is not within the valid range [0, 52)"
            )
    return [_ELLIPSIS if subscript is ... else _LETTERS[subscript] for subscript in subscripts]


def _parts(left: str) -> list[tuple[str, int]]:
    """Return each operand's part of an equation, and where in the equation it begins."""
    parts = left.split(",")
    starts = [0]
    for part in parts:
        starts.append(starts[-1] + len(part) + 1)
    return list(zip(parts, starts, strict=False))


def _parsed(part: str, start: int, whose: str) -> Labels:
    """Return the letters and the ellipsis of one part of an equation, which begins at `start`."""
    is_output = whose == "for output"
    labels: Labels = []
    position = 0
    while position < len(part):
        letter = part[position]
        if letter == ".":
            if _ELLIPSIS in labels:
                but = "but an ellipsis (...)" if is_output else "for which an ellipsis"
                raise RuntimeError(f"einsum(): found '.' {whose} {but} was already found")
            if not part.startswith(_ELLIPSIS, position):
                which = " (...)" if is_output else ""
                raise RuntimeError(
                    f"einsum(): found '.' {whose} that is not part of any ellipsis{which}"
                )
            labels.append(_ELLIPSIS)
            position += 2
        elif letter in _LETTERS:
            labels.append(letter)
        elif letter != " ":
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {start + position} in the equation "
                "string, subscripts must be in [a-zA-Z]"
            )
        position += 1
    return labels


def _named(
    subscripts: list[Labels], tensors: list[Variable]
) -> tuple[list[Labels], dict[str, int]]:
    """Return the name of every dimension of every operand, and the size of each name."""
    names: list[Labels] = []
    sizes: dict[str, int] = {}
    for position, (given, tensor) in enumerate(zip(subscripts, tensors, strict=True)):
        letters = len(given) - given.count(_ELLIPSIS)
        hidden = tensor.ndim - letters
        if hidden < 0 or (hidden and _ELLIPSIS not in given):
            how, end = "does not match", " and no ellipsis was given"
            if _ELLIPSIS in given:
                how, end = "is more than", ""
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({letters}) {how} the number "
                f"of dimensions ({tensor.ndim}) for operand {position}{end}"
            )
        labels = _expanded(given, hidden)
        names.append(labels)
        for dim, (label, size) in enumerate(zip(labels, tensor.shape, strict=True)):
            first = tensor.shape[labels.index(label)]
            if size != first:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for operand {position} but the sizes "
                    f"don't match, {size} != {first}"
                )
            seen = sizes.setdefault(label, size)
            if size != seen and 1 not in (size, seen):
                raise RuntimeError(_misfit(label, dim - labels.index(label), position, size, seen))
            sizes[label] = size if seen == 1 else seen
    return names, sizes


def _expanded(given: Labels, hidden: int) -> Labels:
    """Return labels with the ellipsis replaced by the names of the dimensions that it covers."""
    if _ELLIPSIS not in given:
        return given
    at = given.index(_ELLIPSIS)
    return [*given[:at], *(f".{place}" for place in range(hidden, 0, -1)), *given[at + 1 :]]


def _misfit(label: str, dim: int, position: int, size: int, seen: int) -> str:
    if label.startswith("."):
        return (
            f"einsum(): dimension {dim} covered by ellipsis in operand {position} has size {size} "
            f"which does not broadcast with previously seen ellipsis with size {seen} for the "
            "respective dimension"
        )
    return (
        f"einsum(): subscript {label} has size {size} for operand {position} which does not "
        f"broadcast with previously seen size {seen}"
    )


def _output_names(output: Labels | None, names: list[Labels], sizes: dict[str, int]) -> Labels:
    """Return the names of the output's dimensions."""
    hidden = sum(label.startswith(".") for label in sizes)
    if output is None:
        met = Counter(label for labels in names for label in labels)
        once = sorted(label for label in sizes if label in _LETTERS and met[label] == 1)
        return _expanded([_ELLIPSIS, *once], hidden)
    for label in output:
        if output.count(label) > 1:
            raise RuntimeError(
                f"einsum(): output subscript {label} appears more than once in the output"
            )
        if label != _ELLIPSIS and label not in sizes:
            raise RuntimeError(
                f"einsum(): output subscript {label} does not appear in the equation for any input "
                "operand"
            )
    return _expanded(output, hidden)


# -- the steps -------------------------------------------------------------------------------------


def _simplified(tensor: Variable, labels: Labels, sizes: dict[str, int]) -> tuple[Variable, Labels]:
    """Return an operand with each name once, and without dimensions that are to be broadcast."""
    tensor, labels = _diagonal(tensor, labels)
    dropped = [dim for dim, label in enumerate(labels) if tensor.shape[dim] != sizes[label]]
    if dropped:
        tensor = squeeze(tensor, dropped)
    return tensor, [label for dim, label in enumerate(labels) if dim not in dropped]


def _diagonal(tensor: Variable, labels: Labels) -> tuple[Variable, Labels]:
    """Return the elements whose places agree in all dimensions of one name, as a view."""
    distinct = list(dict.fromkeys(labels))
    if len(distinct) == len(labels):
        return tensor, labels
    shape = tensor.shape
    places = [distinct.index(label) for label in labels]

    def diagonal(array: Array) -> Array:
        return np.einsum(array, places, range(len(distinct)))  # type: ignore[no-any-return]

    def rule(upstream: Any) -> Array:
        gradient = np.zeros(shape, upstream.dtype)
        diagonal(gradient)[...] = upstream
        return gradient

    taken = record("DiagonalBackward0", diagonal(tensor.array), (tensor, rule, ()), view_of=tensor)
    return taken, distinct


def _summed(tensor: Variable, labels: Labels, kept: set[str]) -> tuple[Variable, Labels]:
    """Return a tensor summed over the dimensions whose names are not kept."""
    gone = [dim for dim, label in enumerate(labels) if label not in kept]
    if gone:
        tensor = reduce.sum(tensor, gone)
    return tensor, [label for label in labels if label in kept]


def _product(
    a: Variable, a_labels: Labels, b: Variable, b_labels: Labels, kept: set[str]
) -> tuple[Variable, Labels]:
    """Return a * b, summed over the names that both have and that are not kept."""
    met = dict.fromkeys([*a_labels, *b_labels])
    labels = [label for label in met if label in kept]
    first, second = operands(a, b)

    def for_first(upstream: Any, y: Array) -> Array:
        return _contracted(upstream, labels, y, b_labels, a_labels)

    def for_second(upstream: Any, x: Array) -> Array:
        return _contracted(upstream, labels, x, a_labels, b_labels)

    x, y = data(first), data(second)
    product = record(
        "BmmBackward0",
        _contracted(x, a_labels, y, b_labels, labels),
        (first, for_first, (second,)),
        (second, for_second, (first,)),
    )
    return product, labels


def _contracted(x: Array, x_labels: Labels, y: Array, y_labels: Labels, wanted: Labels) -> Array:
    """Return the sum of x * y over what both have and is not wanted, by a product of matrices.

    Every name is wanted or belongs to both.
    """
    sizes = {
        **dict(zip(x_labels, x.shape, strict=True)),
        **dict(zip(y_labels, y.shape, strict=True)),
    }
    both = [label for label in x_labels if label in y_labels]
    stacked = [label for label in both if label in wanted]
    inner = [label for label in both if label not in wanted]
    rows = [label for label in x_labels if label not in both]
    columns = [label for label in y_labels if label not in both]

    def matrices(array: Array, labels: Labels, *groups: Labels) -> Array:
        order = [labels.index(label) for group in groups for label in group]
        shape = [math.prod(sizes[label] for label in group) for group in groups]
        return array.transpose(order).reshape(shape)

    first, second = (x, x_labels, stacked, rows, inner), (y, y_labels, stacked, inner, columns)
    product = (
        matrices(*first) @ matrices(*second) if inner else matrices(*first) * matrices(*second)
    )
    found = [*stacked, *rows, *columns]
    result = product.reshape([sizes[label] for label in found])
    return result.transpose([found.index(label) for label in wanted])
