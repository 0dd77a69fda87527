"""Every variant of every kernel that the GPU can be asked for, with what its code must show."""

from __future__ import annotations

import dataclasses
import itertools
from typing import Any

from mmembed.kernels.cuda import bag_gradients, bags, copies, norms, rules, segments, slots, sorting

INDEX = ("int32", "int64")
# (kind of the table, kind of what comes out or of gradients, elements of a wide load)
WIDE = [
    ("float32", "float32", 4),
    ("float64", "float64", 2),
    ("float16", "float16", 8),
    ("bfloat16", "bfloat16", 8),
    ("float16", "float32", 8),
    ("bfloat16", "float32", 8),
]
UPDATES = {
    "sgd": (rules.sgd, 0),
    "momentum": (rules.momentum, 1),
    "nesterov": (rules.nesterov, 1),
    "adagrad": (rules.adagrad, 1),
    "adam": (rules.adam, 2),
}
ROWWISE = {
    "rowwise_adagrad": (rules.rowwise_adagrad, rules.rowwise_adagrad_total, 0),
    "rowwise_adam": (rules.rowwise_adam, rules.rowwise_adam_square, 1),
}


@dataclasses.dataclass(frozen=True)
class Variant:
    """A kernel, and what is asked of its code.

    `loads`, `stores`: it has loads and stores of 128 bits. `flight`: of such loads, this many are
    under way at a time. `float64`: it may use float64.
    """

    name: str
    kernel: Any
    loads: bool = False
    stores: bool = False
    flight: int = 0
    float64: bool = False
    newest: bool = False  # needs compute capability 9.0
    fused: bool = False  # has products fused into sums: those of NVIDIA's pow()


def widths(wide):
    """Return every width that may be met: the wide one, and each power of two below."""
    return [2**k for k in range(wide.bit_length())]


def variants():
    """Yield every Variant."""
    yield from copying()
    for table, out, wide in WIDE:
        for width in widths(wide):
            yield from of_rows(table, out, width, width == wide)
    yield from sorting_()
    yield from caching()


def copying():
    for index in INDEX:
        yield Variant(f"check_ids-{index}", copies.check_ids(index))
        for unit in copies.UNITS:
            wide = unit == 16
            flight = 4 if wide else 0
            kernel = copies.gather(unit, index)
            yield Variant(f"gather-{unit}-{index}", kernel, wide, wide, flight)
            kernel = copies.gather_cached(unit, index)
            yield Variant(f"gather_cached-{unit}-{index}", kernel, wide, wide)
            yield Variant(f"put_rows-{unit}-{index}", copies.put_rows(unit, index), wide, wide)


def of_rows(table, out, width, wide):
    double = table == "float64"
    size = {"float64": 8, "float32": 4}.get(out, 2)
    stores = width * size >= 16
    name = f"{table}-{out}-{width}"
    for index in INDEX:
        for weighted in (False, True):
            kernel = bags.sum_bags(table, out, width, index, weighted)
            flight = ((3 if width == 8 else 5) if weighted else (4 if width == 8 else 7)) * wide
            label = f"sum_bags{'_weighted' * weighted}-{name}-{index}"
            yield Variant(label, kernel, wide, stores, flight, double)
        kernel = bags.max_bags(table, out, width, index)
        yield Variant(f"max_bags-{name}-{index}", kernel, wide, stores, 3 * wide, double)
        kernel = segments.segment_sum(table, out, width, index)
        yield Variant(f"segment_sum-{name}-{index}", kernel, wide, stores, 4 * wide, double)
        kernel = bag_gradients.weighted_segment_sum(table, out, width, index)
        label = f"weighted_segment_sum-{name}-{index}"
        yield Variant(label, kernel, wide, stores, 3 * wide, double)
        kernel = bag_gradients.weight_gradients(table, out, width, index)
        yield Variant(f"weight_gradients-{name}-{index}", kernel, wide, False, 0, double)
        yield from updates(table, out, width, index, wide)
        if table == out:
            kernel = segments.scatter_add(table, width, index)
            yield Variant(f"scatter_add-{name}-{index}", kernel, wide, wide, 4 * wide, double)
    if table == out:
        for kind in range(6):
            kernel = norms.row_norms(kind, table, width, "int64")
            fused = kind == norms.POWERS
            yield Variant(f"row_norms{kind}-{name}", kernel, wide, False, 0, True, fused=fused)
            kernel = norms.renorm(kind, table, width, "int64")
            yield Variant(f"renorm{kind}-{name}", kernel, wide, wide, 0, True, fused=fused)
    if table == out and width * size >= 4 and size >= 4:
        for index, vectors in itertools.product(INDEX, (False, True)):
            kernel = segments.scatter_add_atomic(table, width, index, vectors)
            label = f"scatter_add_atomic{'_vectors' * vectors}-{name}-{index}"
            yield Variant(label, kernel, wide, False, 0, double, vectors)


def updates(weight, values, width, index, wide):
    """Gradients have the kind of what comes out of a lookup."""
    double = weight == "float64"
    name = f"{weight}-{values}-{width}-{index}"
    for label, (rule, states) in UPDATES.items():
        kernel = segments.update(rule, states, weight, values, width, index)
        yield Variant(f"{label}-{name}", kernel, wide, wide, 3 * wide, double)
    for label, (rule, of_row, states) in ROWWISE.items():
        kernel = segments.update_rowwise(rule, of_row, states, weight, values, width, index)
        yield Variant(f"{label}-{name}", kernel, wide, wide, 0, True)


def sorting_():
    yield Variant("sum_chunks", sorting.sum_chunks())
    yield Variant("sums_to_places", sorting.sums_to_places())
    for key in INDEX:
        yield Variant(f"count_digits-{key}", sorting.count_digits(key))
        yield Variant(f"count_heads-{key}", sorting.count_heads(key))
        for place in INDEX:
            yield Variant(f"place_digits-{key}-{place}", sorting.place_digits(key, place))
            yield Variant(f"write_heads-{key}-{place}", sorting.write_heads(key, place))
            for index in INDEX:
                kernel = sorting.narrow(index, key, place)
                yield Variant(f"narrow-{index}-{key}-{place}", kernel)


def caching():
    for name in ("probe", "sweep", "count_flags", "write_flagged", "install", "pick"):
        yield Variant(name, getattr(slots, name)())
    for kind in INDEX:
        yield Variant(f"fill-{kind}", slots.fill(kind))
