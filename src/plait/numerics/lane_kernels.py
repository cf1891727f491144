# mypy: disable-error-code="no-untyped-call,no-untyped-def,call-arg,import-untyped"
"""Vectors that compiled loops keep in registers: several numbers that are worked on together.

LLVM makes vectors of loops by itself where it can prove that arrays do not overlap, and where loops
are long. Sums of short rows that are looked up are neither; here they are written as vectors, which
LLVM cuts to what a processor has. Lane by lane the operations are IEEE's, so that bits are the same
on all of them.

`Lanes` are 16 float32, or 8 float64 or uint64. Arrays are contiguous; a place is the number of an
element among all of an array, rows one after another. Places are not checked.
"""

import math
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending, types
from numba.core import cgutils
from numba.core.datamodel import models
from numpy.typing import DTypeLike, NDArray

intrinsic: Any = extending.intrinsic  # what it makes has another signature in compiled functions

FLOATS = 16
"""Numbers of a vector of float32."""
DOUBLES = 8
"""Numbers of a vector of float64."""
WORDS = 8
"""Numbers of a vector of uint64."""

_LINE = 64
_INDEX = ir.IntType(64)
_ELEMENTS = {
    "float32": ir.FloatType(),
    "float64": ir.DoubleType(),
    "int32": ir.IntType(32),
    "uint64": ir.IntType(64),
}
_BYTES = {"float32": 4, "float64": 8, "int32": 4, "uint64": 8}


def at_cache_line(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Return an array, not filled, that begins where a cache line does: vectors lie in one each."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    room = np.empty(size + _LINE, dtype=np.uint8)
    start = -room.ctypes.data % _LINE
    return room[start : start + size].view(dtype).reshape(shape)


class Lanes(types.Type):
    """The type of a vector."""

    def __init__(self, element: str, count: int) -> None:
        self.element, self.count = element, count
        super().__init__(name=f"Lanes({element} x {count})")

    def of(self, element: str) -> ir.VectorType:
        """Return what LLVM calls as many numbers of a type."""
        return ir.VectorType(_ELEMENTS[element], self.count)


_FLOATS, _WORDS = Lanes("float32", FLOATS), Lanes("uint64", WORDS)
_DOUBLES = Lanes("float64", DOUBLES)


@extending.register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager, lanes):
        super().__init__(manager, lanes, lanes.of(lanes.element))


def _address(context, builder, kind, array, place, target):
    """Return a pointer to an element of an array, as one to ``target``."""
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [place]), target.as_pointer())


def _spread(builder, lanes, value):
    """Return a vector of equal numbers."""
    vector = lanes.of(lanes.element)
    zero = ir.Constant(ir.IntType(32), 0)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), value, zero)
    everywhere = ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), None)
    return builder.shuffle_vector(first, first, everywhere)


def _of_array(array):
    """Return the vector that fits the elements of an array."""
    return {types.float32: _FLOATS, types.float64: _DOUBLES, types.uint64: _WORDS}[array.dtype]


def _elementwise(name):
    """Return a function of two vectors, or of a vector and a number for all lanes."""

    @intrinsic
    def apply(typing, a, b):
        number = types.float32 if a is _FLOATS else types.uint64

        def generate(context, builder, signature, values):
            one, two = values
            if signature.args[1] == number:
                two = _spread(builder, a, two)
            return getattr(builder, name[a.element])(one, two)

        return a(a, b if isinstance(b, Lanes) else number), generate

    return apply


add = _elementwise({"float32": "fadd", "uint64": "add"})
subtract = _elementwise({"float32": "fsub", "uint64": "sub"})
multiply = _elementwise({"float32": "fmul"})
both = _elementwise({"uint64": "and_"})
differing = _elementwise({"uint64": "xor"})


@intrinsic
def zeros_like(typing, array):
    """Return a vector of zeros, for sums of the elements of an array."""
    lanes = _of_array(array)

    def generate(context, builder, signature, values):
        return ir.Constant(lanes.of(lanes.element), None)

    return lanes(array), generate


@intrinsic
def lanes_at(typing, array, place):
    """Return the elements from a place on."""
    lanes = _of_array(array)

    def generate(context, builder, signature, values):
        target = lanes.of(lanes.element)
        pointer = _address(context, builder, signature.args[0], *values, target)
        return builder.load(pointer, align=_BYTES[lanes.element])

    return lanes(array, types.int64), generate


@intrinsic
def converted_at(typing, like, array, place):
    """Return elements from a place on in the type of another array: float32 as float64, too."""
    lanes, element = _of_array(like), str(array.dtype)

    def generate(context, builder, signature, values):
        target = lanes.of(element)
        pointer = _address(context, builder, signature.args[1], *values[1:], target)
        numbers = builder.load(pointer, align=_BYTES[element])
        if element == lanes.element:
            return numbers
        return builder.fpext(numbers, lanes.of(lanes.element))

    return lanes(like, array, types.int64), generate


@intrinsic
def repeated_at(typing, array, place):
    """Return one element for all lanes."""
    lanes = _of_array(array)

    def generate(context, builder, signature, values):
        pointer = _address(context, builder, signature.args[0], *values, _ELEMENTS[lanes.element])
        return _spread(builder, lanes, builder.load(pointer))

    return lanes(array, types.int64), generate


@intrinsic
def add_product(typing, total, one, two):
    """Return ``total + one * two``, rounded once."""

    def generate(context, builder, signature, values):
        vector = total.of(total.element)
        name = f"llvm.fma.v{total.count}f{8 * _BYTES[total.element]}"
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector] * 3), name
        )
        return builder.call(function, [values[1], values[2], values[0]])

    return total(total, one, two), generate


@intrinsic
def sum_of(typing, lanes):
    """Return the sum of the numbers of a vector, its halves added until one is left."""

    def generate(context, builder, signature, values):
        left, short = values[0], ir.IntType(32)
        half = lanes.count // 2
        while half:
            nothing = ir.Constant(left.type, ir.Undefined)
            lower, upper = (
                ir.Constant(ir.VectorType(short, half), list(range(start, start + half)))
                for start in (0, half)
            )
            left = builder.fadd(
                builder.shuffle_vector(left, nothing, lower),
                builder.shuffle_vector(left, nothing, upper),
            )
            half //= 2
        return builder.extract_element(left, ir.Constant(short, 0))

    number: Any = {"float32": types.float32, "float64": types.float64}[lanes.element]
    return number(lanes), generate


@intrinsic
def put(typing, array, place, lanes):
    """Store a vector from a place on."""

    def generate(context, builder, signature, values):
        target = lanes.of(lanes.element)
        pointer = _address(context, builder, signature.args[0], *values[:2], target)
        builder.store(values[2], pointer, align=_BYTES[lanes.element])
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic
def add_to(typing, array, place, lanes):
    """Add a vector to elements of its type, float32 to float64, or uint64 to int32."""
    element = str(array.dtype)

    def generate(context, builder, signature, values):
        target = lanes.of(element)
        pointer = _address(context, builder, signature.args[0], *values[:2], target)
        old = builder.load(pointer, align=_BYTES[element])
        if element == lanes.element:
            new = builder.fadd(old, values[2])
        elif element == "float64":
            new = builder.fadd(old, builder.fpext(values[2], target))
        else:
            new = builder.add(old, builder.trunc(values[2], target))
        builder.store(new, pointer, align=_BYTES[element])
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), generate


@intrinsic
def count_bits(typing, words):
    """Count the set bits of each word."""

    def generate(context, builder, signature, values):
        vector = words.of("uint64")
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(vector, [vector]), f"llvm.ctpop.v{WORDS}i64"
        )
        return builder.call(function, values)

    return words(words), generate


@intrinsic
def of_codes(typing, word, none, low, high, both):
    """Return a number for each of 16 codes of two bits, the first of them in the lowest bits.

    It is told by which bits of the code are set.
    """

    def generate(context, builder, signature, values):
        integers = _FLOATS.of("int32")
        short = builder.trunc(values[0], _ELEMENTS["int32"])
        word = _spread(builder, Lanes("int32", FLOATS), short)
        numbers = [_spread(builder, _FLOATS, value) for value in values[1:]]

        def chosen(bit, unset, is_set):
            places = [2 * code + bit for code in range(FLOATS)]
            masks = ir.Constant(integers, [1 << place for place in places])
            found = builder.icmp_unsigned("!=", builder.and_(word, masks), integers(None))
            return builder.select(found, is_set, unset)

        without, beside = chosen(0, *numbers[:2]), chosen(0, *numbers[2:])
        return chosen(1, without, beside)

    number = types.float32
    return _FLOATS(types.uint64, number, number, number, number), generate


@intrinsic
def number_at(typing, array, place):
    """Return an element, whose place is not looked at as negative ones would be."""

    def generate(context, builder, signature, values):
        element = context.get_value_type(signature.args[0].dtype)
        return builder.load(_address(context, builder, signature.args[0], *values, element))

    return array.dtype(array, types.int64), generate


@intrinsic
def word_at(typing, octets, place):
    """Return eight consecutive bytes as one word, the first of them lowest."""

    def generate(context, builder, signature, values):
        pointer = _address(context, builder, signature.args[0], *values, _INDEX)
        return builder.load(pointer, align=1)

    return types.uint64(octets, types.int64), generate
