"""What a CUDA thread can do that Python cannot say: the one file of intrinsics.

Wide loads and stores through raw pointers, products that are not fused into a following sum,
atomics, and what the lanes of a warp tell each other. `simulated` has the same names for the
simulator; kernels import them from `target` and hold no other call of CUDA.

Must not know kernels, tables or launches.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import cuda, types
from numba.cuda.extending import intrinsic

_I8, _I16, _I32, _I64 = (ir.IntType(bits) for bits in (8, 16, 32, 64))
_F16, _F32, _F64 = ir.HalfType(), ir.FloatType(), ir.DoubleType()

# What a kind of element is: bytes in memory, and the type a kernel works with.
KINDS = {
    "u8": (1, types.uint8),
    "u16": (2, types.uint16),
    "u32": (4, types.uint32),
    "float16": (2, types.float32),
    "bfloat16": (2, types.float32),
    "float32": (4, types.float32),
    "float64": (8, types.float64),
}
_WORDS = {1: _I8, 2: _I16, 4: _I32}  # integers that a load or a store moves
MOST = 16  # bytes that one instruction moves

device = functools.partial(cuda.jit, device=True)


def pointer(kind: str) -> Any:
    """Return the type of a pointer to elements of a kind; int32 and int64 are kinds too."""
    if kind in ("int32", "int64", "uint32"):
        return types.CPointer(getattr(types, kind))
    size, real = KINDS[kind]
    if kind in ("float16", "bfloat16"):
        return types.CPointer(types.uint16)
    return types.CPointer(real if kind[0] != "u" else getattr(types, f"uint{8 * size}"))


def scalar(kind: str) -> Any:
    """Return the type of a number that is given to a kernel."""
    return getattr(types, kind)


i64, f32, f64 = types.int64, types.float32, types.float64


@device
def thread_index():
    """Return the number of this thread in its block."""
    return types.int64(cuda.threadIdx.x)


@device
def block_threads():
    """Return the number of threads of a block."""
    return types.int64(cuda.blockDim.x)


@device
def block_index():
    """Return the number of this block."""
    return types.int64(cuda.blockIdx.x)


@device
def blocks():
    """Return the number of blocks."""
    return types.int64(cuda.gridDim.x)


def _call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    found = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(found, arguments)


@intrinsic
def mul(typingctx, a, b):
    """a * b, rounded: the compiler may not fuse it with a sum, which would not be the CPU's."""

    def codegen(context, builder, signature, args):
        if signature.return_type == types.float32:
            return _call(builder, "llvm.nvvm.mul.rn.f", _F32, *args)
        return _call(builder, "llvm.nvvm.mul.rn.d", _F64, *args)

    real = types.float64 if types.float64 in (a, b) else types.float32
    return real(real, real), codegen


@device
def root(x):
    """Return the square root, rounded to the nearest."""
    return math.sqrt(x)


@device
def power(x, p):
    """Return x to the power p, both float64."""
    return math.pow(x, p)


@device
def absolute(x):
    """Return |x|."""
    return math.fabs(x)


# Loads and stores.


def _pieces(kind: str, width: int) -> tuple[int, int]:
    """Return how many instructions move `width` elements, and how many bytes each."""
    size = KINDS[kind][0] * width
    return max(1, size // MOST), min(size, MOST)


def _vector(kind: str, each: int) -> tuple[Any, int]:
    """Return (type of an element in a register, number of them) of a piece of `each` bytes."""
    if kind == "float64":
        return _F64, each // 8
    if kind == "float32":
        return _F32, each // 4
    word = _WORDS[min(each, 4)] if kind != "u8" else _I8
    return word, each * 8 // word.width


@functools.cache
def load(kind: str, width: int) -> Callable[..., Any]:
    """Return the function (p, i) → the `width` elements from p[i] on, as a tuple.

    Narrow elements come as float32. i * size must be a multiple of what one instruction moves.
    """
    number, each = _pieces(kind, width)
    element, count = _vector(kind, each)
    real = KINDS[kind][1]

    @intrinsic
    def loaded(typingctx, p, i):
        def codegen(context, builder, signature, args):
            lanes: list[Any] = []
            for piece in range(number):
                lanes += _unpacked(builder, kind, _read(builder, args, piece))
            return context.make_tuple(builder, signature.return_type, lanes)

        return types.UniTuple(real, width)(p, types.int64), codegen

    def _read(builder: Any, args: Any, piece: int) -> list[Any]:
        place = _place(builder, args, piece, each, kind)
        moved = element if count == 1 else ir.VectorType(element, count)
        value = builder.load(builder.bitcast(place, moved.as_pointer()))
        value.align = each
        if count == 1:
            return [value]
        return [builder.extract_element(value, ir.Constant(_I32, k)) for k in range(count)]

    return loaded


@functools.cache
def store(kind: str, width: int) -> Callable[..., Any]:
    """Return the procedure (p, i, values): set the `width` elements from p[i] on.

    float32 values of narrow elements are rounded to the nearest, ties to even; a NaN becomes the
    one positive quiet NaN.
    """
    number, each = _pieces(kind, width)
    element, count = _vector(kind, each)
    real = KINDS[kind][1]

    @intrinsic
    def stored(typingctx, p, i, values):
        def codegen(context, builder, signature, args):
            lanes = [builder.extract_value(args[2], k) for k in range(width)]
            words = _packed(builder, kind, lanes)
            for piece in range(number):
                _write(builder, args, piece, words[piece * count : (piece + 1) * count])
            return context.get_dummy_value()

        return types.none(p, types.int64, types.UniTuple(real, width)), codegen

    def _write(builder: Any, args: Any, piece: int, words: list[Any]) -> None:
        place = _place(builder, args, piece, each, kind)
        value, moved = words[0], element
        if count > 1:
            moved = ir.VectorType(element, count)
            value = ir.Constant(moved, ir.Undefined)
            for k, word in enumerate(words):
                value = builder.insert_element(value, word, ir.Constant(_I32, k))
        made = builder.store(value, builder.bitcast(place, moved.as_pointer()))
        made.align = each

    return stored


def _place(builder: Any, args: Any, piece: int, each: int, kind: str) -> Any:
    index = args[1]
    if piece:
        index = builder.add(index, ir.Constant(_I64, piece * each // KINDS[kind][0]))
    return builder.gep(args[0], [index])


def _unpacked(builder: Any, kind: str, words: list[Any]) -> list[Any]:
    """Take words of narrow elements apart, the low half first."""
    if kind not in ("float16", "bfloat16"):
        return words
    halves = []
    for word in words:
        halves.append(word if word.type == _I16 else builder.trunc(word, _I16))
        if word.type == _I32:
            halves.append(builder.trunc(builder.lshr(word, ir.Constant(_I32, 16)), _I16))
    if kind == "float16":
        return [builder.fpext(builder.bitcast(half, _F16), _F32) for half in halves]
    sixteen = ir.Constant(_I32, 16)
    return [
        builder.bitcast(builder.shl(builder.zext(half, _I32), sixteen), _F32) for half in halves
    ]


def _packed(builder: Any, kind: str, lanes: list[Any]) -> list[Any]:
    """Round float32 numbers to narrow elements, two in a word where there are two."""
    if kind not in ("float16", "bfloat16"):
        return lanes
    halves = [(_half if kind == "float16" else _brain)(builder, lane) for lane in lanes]
    if len(halves) == 1:
        return halves
    words = []
    for low, high in zip(halves[::2], halves[1::2], strict=True):
        above = builder.shl(builder.zext(high, _I32), ir.Constant(_I32, 16))
        words.append(builder.or_(above, builder.zext(low, _I32)))
    return words


def _half(builder: Any, x: Any) -> Any:
    bits = builder.bitcast(builder.fptrunc(x, _F16), _I16)
    nan = builder.fcmp_unordered("uno", x, x)
    return builder.select(nan, ir.Constant(_I16, 0x7E00), bits)


def _brain(builder: Any, x: Any) -> Any:
    bits = builder.bitcast(x, _I32)
    odd = builder.and_(builder.lshr(bits, ir.Constant(_I32, 16)), ir.Constant(_I32, 1))
    up = builder.add(bits, builder.add(odd, ir.Constant(_I32, 0x7FFF)))
    rounded = builder.trunc(builder.lshr(up, ir.Constant(_I32, 16)), _I16)
    nan = builder.fcmp_unordered("uno", x, x)
    return builder.select(nan, ir.Constant(_I16, 0x7FC0), rounded)


# Atomics.


@intrinsic
def atomic_min(typingctx, p, i, value):
    """p[i] = min(p[i], value), int64."""

    def codegen(context, builder, signature, args):
        place = builder.gep(args[0], [args[1]])
        builder.atomic_rmw("min", place, args[2], "monotonic")
        return context.get_dummy_value()

    return types.none(p, types.int64, types.int64), codegen


@functools.cache
def add_to(kind: str, width: int, vectors: bool) -> Callable[..., Any]:
    """Return the procedure (p, i, values): p[i + k] += values[k], each of them atomic.

    `vectors` : one instruction adds 4 float32, as from sm_90 on; p + i must be aligned to it.
    """
    real = KINDS[kind][1]
    suffix, letter = ("f64", "d") if kind == "float64" else ("f32", "f")
    each = 4 if vectors and kind == "float32" and width % 4 == 0 else 1

    @intrinsic
    def added(typingctx, p, i, values):
        def codegen(context, builder, signature, args):
            lanes = [builder.extract_value(args[2], k) for k in range(width)]
            for first in range(0, width, each):
                index = builder.add(args[1], ir.Constant(_I64, first))
                place = builder.ptrtoint(builder.gep(args[0], [index]), _I64)
                some = [place, *lanes[first : first + each]]
                names = ", ".join(f"${k + 1}" for k in range(each))
                form = f"v4.f32 [$0], {{{names}}}" if each == 4 else f"{suffix} [$0], {names}"
                kinds = ir.FunctionType(ir.VoidType(), [value.type for value in some])
                constraints = ",".join(["l", *[letter] * each, "~{memory}"])
                text = f"red.global.add.{form};"
                builder.call(ir.InlineAsm(kinds, text, constraints, side_effect=True), some)
            return context.get_dummy_value()

        return types.none(p, types.int64, types.UniTuple(real, width)), codegen

    return added


# Warps. Masks are int64 here: bit l is lane l.


@device
def sync_warp(mask):
    """Wait for the lanes of the mask; what they wrote can be read afterwards."""
    cuda.syncwarp(types.int32(mask))


@device
def lanes_with(mask, value):
    """Return the mask of the lanes whose int64 value is this lane's."""
    return types.int64(cuda.match_any_sync(types.int32(mask), value)) & 0xFFFFFFFF


@device
def lanes_where(mask, condition):
    """Return the mask of the lanes on which the condition holds."""
    return types.int64(cuda.ballot_sync(types.int32(mask), condition)) & 0xFFFFFFFF


@device
def from_lane(mask, value, lane):
    """Return the int64 value of another lane."""
    return cuda.shfl_sync(types.int32(mask), value, types.int32(lane))


@device
def from_below(mask, value, distance):
    """Return the int64 value of the lane that many below; the own one where there is none."""
    return cuda.shfl_up_sync(types.int32(mask), value, types.int32(distance))


@device
def count_bits(mask):
    """Return the number of bits that are set."""
    return types.int64(cuda.popc(mask))


@device
def first_bit(mask):
    """Return the number of the lowest bit that is set; -1 of 0."""
    return types.int64(cuda.ffs(mask)) - 1


@intrinsic
def shared_counts(typingctx):
    """Return 2048 int64 counters that the threads of a block share: 256 for each of 8 warps."""

    def codegen(context, builder, signature, args):
        kind, name = ir.ArrayType(_I64, 2048), "mmembed_counts"
        found = builder.module.globals.get(name)
        if found is None:
            found = ir.GlobalVariable(builder.module, kind, name, addrspace=3)
            found.linkage = "internal"
            found.initializer = ir.Constant(kind, ir.Undefined)
        return builder.addrspacecast(found, ir.PointerType(_I64))

    return types.CPointer(types.int64)(), codegen


@intrinsic
def not_unrolled(typingctx):
    """Keep the compiler from unrolling the loop that begins with this: it costs registers."""

    def codegen(context, builder, signature, args):
        kind = ir.FunctionType(ir.VoidType(), [])
        asm = ir.InlineAsm(kind, r".pragma \22nounroll\22;", "", side_effect=True)
        builder.call(asm, [], attrs=("convergent",))
        return context.get_dummy_value()

    return types.none(), codegen
