"""Vectors of 64 bytes, prefetches and rows, as values and functions of Numba's compiled code.

`at` is a place in an array's memory: a number of elements, from its first one. Nothing is checked.
Operations are on single elements and never fused, so that the processor does not decide on any bit.

Must not know tables, ids or kernels.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import binding as llvm
from llvmlite import ir
from numba.core import cgutils, types
from numba.core.datamodel import models
from numba.core.types.containers import Tuple
from numba.extending import intrinsic, overload, register_model
from numba.np.arrayobj import populate_array

BYTES = 64  # of a vector: a cache line, and what the widest processors take at once
# Whether `store_past` is worth while: stores of 16 bytes past the cache were slower than others.
STREAMS = any(llvm.get_host_cpu_features().get(unit) for unit in ("avx2", "avx512f"))
LANES = 8  # partial sums of a sum of squares

_INT32 = ir.IntType(32)


class Vector(types.Type):
    """The type of some numbers that are worked on at once."""

    def __init__(self, dtype: Any, lanes: int) -> None:
        super().__init__(name=f"Vector({dtype}, {lanes})")
        self.dtype = dtype
        self.lanes = lanes


@register_model(Vector)
class _VectorModel(models.PrimitiveModel):  # type: ignore[misc]
    def __init__(self, dmm: Any, fe_type: Vector) -> None:
        element = dmm.lookup(fe_type.dtype).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(element, fe_type.lanes))


def _line_of(array: Any) -> Vector:
    return Vector(array.dtype, BYTES * 8 // array.dtype.bitwidth)


def _lanes_of(array: Any) -> Vector:
    return Vector(array.dtype, LANES)


def _itemsize(array: Any) -> int:
    return int(array.dtype.bitwidth) // 8


def _pointer(context: Any, builder: Any, array_type: Any, array: Any, at: Any) -> Any:
    return builder.gep(context.make_array(array_type)(context, builder, array).data, [at])


def _alike(builder: Any, vector: Any, x: Any) -> Any:
    """Return a vector whose elements are all x."""
    nothing = ir.Constant(vector, ir.Undefined)
    one = builder.insert_element(nothing, x, ir.Constant(_INT32, 0))
    first = ir.Constant(ir.VectorType(_INT32, vector.count), None)
    return builder.shuffle_vector(one, nothing, first)


def _first(builder: Any, lanes: int, count: Any) -> Any:
    """Return the mask of the first `count` lanes."""
    numbers = ir.VectorType(_INT32, lanes)
    count = _alike(builder, numbers, builder.trunc(count, _INT32))
    return builder.icmp_signed("<", ir.Constant(numbers, list(range(lanes))), count)


def _masked(builder: Any, what: str, vector: Any, result: Any, arguments: list[Any]) -> Any:
    """Call LLVM's masked load or store."""
    element = {"float": "f32", "double": "f64", "i64": "i64"}[str(vector.element)]
    function = cgutils.get_or_insert_function(
        builder.module,
        ir.FunctionType(result, [argument.type for argument in arguments]),
        f"llvm.masked.{what}.v{vector.count}{element}.p0",
    )
    return builder.call(function, arguments)


@intrinsic
def width(typing: Any, array: Any) -> Any:
    """Return how many elements of an array are in a vector of `load`."""
    lanes = _line_of(array).lanes

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.get_constant(types.intp, lanes)

    return types.intp(array), code


@intrinsic
def prefetch(typing: Any, array: Any, at: Any) -> Any:
    """Ask for the cache line of an element."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], *arguments)
        byte = ir.IntType(8).as_pointer()
        function = cgutils.get_or_insert_function(
            builder.module,
            ir.FunctionType(ir.VoidType(), [byte, _INT32, _INT32, _INT32]),
            "llvm.prefetch.p0",
        )
        read_second_level_data = [ir.Constant(_INT32, n) for n in (0, 2, 1)]
        builder.call(function, [builder.bitcast(place, byte), *read_second_level_data])
        return context.get_dummy_value()

    return types.void(array, types.intp), code


def _view(context: Any, builder: Any, dtype: Any, place: Any, size: Any) -> Any:
    """Return `size` elements from a place on as an array that owns nothing."""
    result = types.Array(dtype, 1, "C")
    itemsize = context.get_constant(types.intp, dtype.bitwidth // 8)
    view = context.make_array(result)(context, builder)
    populate_array(
        view, data=place, shape=[size], strides=[itemsize], itemsize=itemsize, meminfo=None
    )
    return view._getvalue()


@intrinsic
def row(typing: Any, array: Any, at: Any, size: Any) -> Any:
    """Return `size` elements from a place on, as an array which shares their memory."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        place = _pointer(context, builder, signature.args[0], *arguments[:2])
        return _view(context, builder, array.dtype, place, arguments[2])

    return types.Array(array.dtype, 1, "C")(array, types.intp, types.intp), code


@intrinsic
def rows(typing: Any, tables: Any, i: Any) -> Any:
    """Return row i of each table of a tuple, as arrays which share their memory."""
    views = Tuple([types.Array(table.dtype, 1, "C") for table in tables])

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        found = []
        for number, kind in enumerate(tables):
            array = builder.extract_value(arguments[0], number)
            table = context.make_array(kind)(context, builder, array)
            begin = builder.mul(arguments[1], builder.extract_value(table.strides, 0))
            byte = ir.IntType(8).as_pointer()
            place = builder.gep(builder.bitcast(table.data, byte), [begin])
            place = builder.bitcast(place, table.data.type)
            size = builder.extract_value(table.shape, 1)
            found.append(_view(context, builder, kind.dtype, place, size))
        return context.make_tuple(builder, views, found)

    return views(tables, types.intp), code


@intrinsic
def rounded(typing: Any, array: Any, numbers: Any) -> Any:
    """Return a tuple of numbers in the dtype of an array."""
    result = Tuple([array.dtype for _ in numbers])

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return context.cast(builder, arguments[1], numbers, result)

    return result(array, numbers), code


def _loader(vector_of: Callable[[Any], Vector]) -> tuple[Any, Any]:
    """Return a function that loads a vector, and one that loads the first elements of one."""

    @intrinsic
    def whole(typing: Any, array: Any, at: Any) -> Any:
        vector = vector_of(array)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            place = _pointer(context, builder, signature.args[0], *arguments)
            place = builder.bitcast(place, context.get_value_type(vector).as_pointer())
            return builder.load(place, align=_itemsize(array))

        return vector(array, types.intp), code

    @intrinsic
    def some(typing: Any, array: Any, at: Any, count: Any) -> Any:
        vector = vector_of(array)

        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, start, number = arguments
            value = context.get_value_type(vector)
            place = _pointer(context, builder, signature.args[0], table, start)
            place = builder.bitcast(place, value.as_pointer())
            align = ir.Constant(_INT32, _itemsize(array))
            mask = _first(builder, vector.lanes, number)
            rest = ir.Constant(value, None)
            return _masked(builder, "load", value, value, [place, align, mask, rest])

        return vector(array, types.intp, types.intp), code

    return whole, some


load, load_some = _loader(_line_of)  # BYTES; the elements that are not there are 0
load_lanes, load_some_lanes = _loader(_lanes_of)  # LANES elements, likewise


def _storer(past: bool) -> Any:
    """Return a function that writes a vector; `past` the cache, where its place is a whole line."""

    @intrinsic
    def write(typing: Any, array: Any, at: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            table, start, elements = arguments
            place = _pointer(context, builder, signature.args[0], table, start)
            place = builder.bitcast(place, elements.type.as_pointer())
            written = builder.store(elements, place, align=BYTES if past else _itemsize(array))
            if past:
                mark = builder.module.add_metadata([ir.Constant(_INT32, 1)])
                written.set_metadata("nontemporal", mark)
            return context.get_dummy_value()

        return types.void(array, types.intp, value), code

    return write


store, store_past = _storer(False), _storer(True)


@intrinsic
def fence(typing: Any) -> Any:
    """Let other threads see what was stored past the cache."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        builder.fence("seq_cst")
        return context.get_dummy_value()

    return types.void(), code


@intrinsic
def store_some(typing: Any, array: Any, at: Any, count: Any, value: Any) -> Any:
    """Write the first `count` elements of a vector at a place."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, start, number, elements = arguments
        place = _pointer(context, builder, signature.args[0], table, start)
        place = builder.bitcast(place, elements.type.as_pointer())
        align = ir.Constant(_INT32, _itemsize(array))
        mask = _first(builder, value.lanes, number)
        _masked(builder, "store", elements.type, ir.VoidType(), [elements, place, align, mask])
        return context.get_dummy_value()

    return types.void(array, types.intp, types.intp, value), code


@intrinsic
def item(typing: Any, array: Any, at: Any) -> Any:
    """Return one element; whole numbers as int64.

    An index in brackets may be negative, and costs a test.
    """
    whole = isinstance(array.dtype, types.Integer)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        element = builder.load(_pointer(context, builder, signature.args[0], *arguments))
        return builder.sext(element, ir.IntType(64)) if whole else element

    return (types.int64 if whole else array.dtype)(array, types.intp), code


@intrinsic
def copy(typing: Any, array: Any, at: Any, out: Any, to: Any, count: Any) -> Any:
    """Copy `count` elements to a place of another array of the same dtype."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        table, start, target, begin, number = arguments
        source = _pointer(context, builder, signature.args[0], table, start)
        place = _pointer(context, builder, signature.args[2], target, begin)
        cgutils.raw_memcpy(builder, place, source, number, _itemsize(array))
        return context.get_dummy_value()

    return types.void(array, types.intp, out, types.intp, types.intp), code


@intrinsic
def filled(typing: Any, array: Any, x: Any) -> Any:
    """Return a vector as `load` does, all elements of which are x, rounded to the array's dtype."""
    vector = _line_of(array)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _alike(builder, context.get_value_type(vector), arguments[1])

    return vector(array, array.dtype), code


@intrinsic
def zeros(typing: Any) -> Any:
    """Return `LANES` zeros, float64."""
    vector = Vector(types.float64, LANES)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return ir.Constant(context.get_value_type(vector), None)

    return vector(), code


@intrinsic
def in_float64(typing: Any, vector: Any) -> Any:
    """Return the elements of a vector as float64."""
    result = Vector(types.float64, vector.lanes)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        if vector == result:
            return arguments[0]
        return builder.fpext(arguments[0], context.get_value_type(result))

    return result(vector), code


@intrinsic
def in_order(typing: Any, vector: Any) -> Any:
    """Return 0 plus the elements of a vector, from the first to the last."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        total = ir.Constant(arguments[0].type.element, 0.0)
        for lane in range(vector.lanes):
            element = builder.extract_element(arguments[0], ir.Constant(_INT32, lane))
            total = builder.fadd(total, element)
        return total

    return vector.dtype(vector), code


@intrinsic
def numbered(typing: Any, vector: Any, number: Any) -> Any:
    """Return an int64 for every lane of a vector."""
    result = Vector(types.int64, vector.lanes)

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        return _alike(builder, context.get_value_type(result), arguments[1])

    return result(vector, types.int64), code


@intrinsic
def where_larger(typing: Any, x: Any, best: Any, chosen: Any, other: Any) -> Any:
    """Return the elements of `chosen` in lanes where x > best, and those of `other` elsewhere."""

    def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        ours, theirs, yes, no = arguments
        return builder.select(builder.fcmp_ordered(">", ours, theirs), yes, no)

    return chosen(x, best, chosen, other), code


def _operation(name: str) -> Any:
    @intrinsic
    def apply(typing: Any, a: Any, b: Any) -> Any:
        def code(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return getattr(builder, name)(*arguments)

        return a(a, b), code

    # Numba wants the signature of the lambda, which cannot have annotations.
    def on_vectors(a, b):  # type: ignore[no-untyped-def]
        return (lambda a, b: apply(a, b)) if isinstance(a, Vector) and a == b else None

    return on_vectors


for _operator, _name in (
    (operator.add, "fadd"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    overload(_operator)(_operation(_name))
