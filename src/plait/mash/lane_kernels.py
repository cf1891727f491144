"""Small dense linear algebra on many matrices at a time, one in each lane of a vector register.

The matrices of `LANES` rows of data lie interleaved in a flat buffer: their entries (i, j) are the
vector number ``i * stride + j``. Sums run over tiles of 4 x 4 entries that stay in registers, which
LLVM does not arrange by itself: so these steps are written as vector instructions. Widths are
padded to whole tiles; ``stride`` is the padded width plus one, which keeps rows apart in the cache.
"""

from collections.abc import Callable
from inspect import Parameter, Signature
from typing import Any

import numpy as np
from llvmlite import binding, ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from plait.numerics.compiled import njit

TILE = 4


def _lanes() -> int:
    """Doubles in a vector register, if there are enough registers for a tile of longer ones."""
    return 8 if binding.get_host_cpu_features().get("avx512f", False) else 4


LANES = _lanes()
_LINE = 8
_DOUBLE = ir.DoubleType()
VECTOR = ir.VectorType(_DOUBLE, LANES)
INDEX = ir.IntType(64)
ZERO = ir.Constant(INDEX, 0)
ONES = ir.Constant(VECTOR, [1.0] * LANES)
ZEROS = ir.Constant(VECTOR, [0.0] * LANES)

Tile = dict[tuple[int, int], Any]


@njit(nogil=True, cache=True)
def padded(width):  # type: ignore[no-untyped-def]
    """Return a width rounded up to whole tiles."""
    return (width + TILE - 1) // TILE * TILE


@njit(nogil=True, cache=True)
def vectors(count):  # type: ignore[no-untyped-def]
    """Return a buffer of zero vectors, aligned to cache lines."""
    raw = np.zeros(count * LANES + _LINE)
    skip = (-(raw.ctypes.data // 8)) % _LINE
    return raw[skip : skip + count * LANES]


class Emitter:
    """Emits vector instructions. Places in buffers are counted in vectors."""

    def __init__(self, context: Any, builder: Any, signature: Any, args: Any) -> None:
        self.builder = builder
        self.values = [
            context.make_array(kind)(context, builder, value).data
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(signature.args, args, strict=True)
        ]

    def at(self, *terms: Any) -> Any:
        """Return the sum of indices, which may be constants."""
        total = ir.Constant(INDEX, sum(term for term in terms if isinstance(term, int)))
        for term in terms:
            total = total if isinstance(term, int) else self.builder.add(total, term)
        return total

    def rows(self, first: Any, stride: Any, count: int = TILE) -> list[Any]:
        """Return where consecutive matrix rows begin."""
        begin = [self.builder.mul(first, stride)]
        for _ in range(count - 1):
            begin.append(self.builder.add(begin[-1], stride))
        return begin

    def _address(self, buffer: Any, element: Any, kind: Any) -> Any:
        address = self.builder.gep(buffer, [element], source_etype=_DOUBLE)
        return self.builder.bitcast(address, kind.as_pointer())

    def _vector(self, buffer: Any, place: Any) -> Any:
        return self._address(buffer, self.builder.mul(place, ir.Constant(INDEX, LANES)), VECTOR)

    def load(self, buffer: Any, place: Any) -> Any:
        """Load a vector."""
        return self.builder.load(self._vector(buffer, place), align=8)

    def store(self, value: Any, buffer: Any, place: Any) -> None:
        """Store a vector."""
        self.builder.store(value, self._vector(buffer, place), align=8)

    def splat(self, array: Any, element: Any) -> Any:
        """Load one number into all lanes."""
        number = self.builder.load(self._address(array, element, _DOUBLE))
        nothing, lane = ir.Constant(VECTOR, ir.Undefined), ir.IntType(32)
        single = self.builder.insert_element(nothing, number, ir.Constant(lane, 0))
        zeros = ir.Constant(ir.VectorType(lane, LANES), [0] * LANES)
        return self.builder.shuffle_vector(single, nothing, zeros)

    def _call(self, name: str, *operands: Any) -> Any:
        kind = ir.FunctionType(VECTOR, [VECTOR] * len(operands))
        name = f"llvm.{name}.v{LANES}f64"
        function: Any = cgutils.get_or_insert_function(self.builder.module, kind, name)  # type: ignore[no-untyped-call]
        return self.builder.call(function, operands)

    def mul_add(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``a b + c``, with one rounding where the machine can."""
        return self._call("fmuladd", a, b, c)

    def mul_sub(self, a: Any, b: Any, c: Any) -> Any:
        """Return ``c - a b``."""
        return self._call("fmuladd", self.builder.fneg(a), b, c)

    def sqrt(self, a: Any) -> Any:
        """Return the square root."""
        return self._call("sqrt", a)

    def variables(self, initial: list[Any]) -> list[Any]:
        """Return places for vectors that change in a loop; they become registers."""
        places = [cgutils.alloca_once(self.builder, value.type) for value in initial]  # type: ignore[no-untyped-call]
        for value, place in zip(initial, places, strict=True):
            self.builder.store(value, place)
        return places

    def loop(self, first: Any, last: Any) -> Any:
        """Emit what follows for every index ``first <= k < last``: ``with ... as (k, _)``."""
        return cgutils.for_range_slice(self.builder, first, last, ir.Constant(INDEX, 1), INDEX)

    def products(
        self, left: Any, lefts: list[Any], right: Any, rights: list[Any], first: Any, last: Any
    ) -> Tile:
        """Return ``sum_k left[r, k] right[s, k]`` over ``first <= k < last``."""
        pairs = [(r, s) for r in range(len(lefts)) for s in range(len(rights))]
        sums = dict(zip(pairs, self.variables([ZEROS] * len(pairs)), strict=True))
        with self.loop(first, last) as (k, _):
            a = [self.load(left, self.builder.add(row, k)) for row in lefts]
            b = [self.load(right, self.builder.add(row, k)) for row in rights]
            for (r, s), place in sums.items():
                self.builder.store(self.mul_add(a[r], b[s], self.builder.load(place)), place)
        return {pair: self.builder.load(place) for pair, place in sums.items()}


def instruction(emit: Callable[[Emitter], None], buffers: str, indices: str) -> Any:
    """Make a function for compiled code with these arguments, from what emits its instructions."""
    names, whole = buffers.split(), indices.split()
    kinds = [types.Array(types.float64, 1, "C")] * len(names) + [types.intp] * len(whole)

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        emit(Emitter(context, builder, signature, args))
        return context.get_dummy_value()

    def typed(*_: Any) -> Any:
        return types.void(*kinds), generate

    typed.__name__, typed.__doc__ = emit.__name__.lstrip("_"), emit.__doc__
    parameters = [
        Parameter(name, Parameter.POSITIONAL_OR_KEYWORD) for name in ("typing", *names, *whole)
    ]
    typed.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return intrinsic(typed)


def _solve(emit: Emitter, count: int) -> None:
    x, factor, inverse, i, j, first, stride = emit.values
    rows, below = emit.rows(i, stride, count), emit.rows(j, stride)
    found = emit.products(x, rows, factor, below, first, j)
    for s in range(TILE):
        known = [emit.load(factor, emit.at(below[s], j, e)) for e in range(s)]
        scale = emit.load(inverse, emit.at(j, s))
        for r in range(count):
            place = emit.at(rows[r], j, s)
            value = emit.builder.fsub(emit.load(x, place), found[r, s])
            for e in range(s):
                value = emit.mul_sub(found[r, e], known[e], value)
            found[r, s] = emit.builder.fmul(value, scale)
            emit.store(found[r, s], x, place)


def _solve_tile(emit: Emitter) -> None:
    """Solve ``x factor^T = b`` in place, columns ``j .. j + 3`` of the rows ``i .. i + 3``.

    ``inverse`` holds the inverse diagonal of the factor; x is zero before column ``first``.
    """
    _solve(emit, TILE)


def _solve_row(emit: Emitter) -> None:
    """Do what `solve_tile` does for row ``i`` alone."""
    _solve(emit, 1)


def _factor_tile(emit: Emitter) -> None:
    """Factorise the tile on the diagonal at ``i`` in place, those before it being done.

    Also fills the diagonal of the factor and its inverse, and sets ``failed`` to 1 in lanes that
    are not positive definite.
    """
    factor, diagonal, inverse, failed, i, stride = emit.values
    builder, rows = emit.builder, emit.rows(i, stride)
    found = emit.products(factor, rows, factor, rows, ZERO, i)
    bad = emit.load(failed, ZERO)
    scales: list[Any] = []
    for r in range(TILE):
        for s in range(r + 1):
            place = emit.at(rows[r], i, s)
            value = builder.fsub(emit.load(factor, place), found[r, s])
            for e in range(s):
                value = emit.mul_sub(found[r, e], found[s, e], value)
            if s < r:
                found[r, s] = builder.fmul(value, scales[s])
            else:
                good = builder.fcmp_ordered(">", value, ZEROS)
                bad = builder.select(good, bad, ONES)
                found[r, s] = emit.sqrt(value)
                scales.append(builder.fdiv(ONES, found[r, s]))
                emit.store(found[r, s], diagonal, emit.at(i, s))
                emit.store(scales[s], inverse, emit.at(i, s))
            emit.store(found[r, s], factor, place)
    emit.store(bad, failed, ZERO)


def _add_moments(emit: Emitter) -> None:
    """Add tile (i, j) of ``weight (t t^T - x x^T)`` to the vectors of ``sums`` from ``place``.

    x is zero before its diagonal and ends at column ``last``.
    """
    x, t, weight, sums, place, i, j, last, stride = emit.values
    builder = emit.builder
    products = emit.products(x, emit.rows(i, stride), x, emit.rows(j, stride), i, last)
    share = emit.load(weight, ZERO)
    left = [emit.load(t, emit.at(i, r)) for r in range(TILE)]
    right = [emit.load(t, emit.at(j, s)) for s in range(TILE)]
    for number, (r, s) in enumerate(products):
        value = builder.fsub(builder.fmul(left[r], right[s]), products[r, s])
        at = emit.at(place, number)
        emit.store(emit.mul_add(share, value, emit.load(sums, at)), sums, at)


def _multiply_row(emit: Emitter) -> None:
    """Fill ``out[i .. i + 3]`` with ``sum_k x[., k] z[k]`` over ``first <= k < last``."""
    x, z, out, i, first, last, stride = emit.values
    found = emit.products(z, [ZERO], x, emit.rows(i, stride), first, last)
    for s in range(TILE):
        emit.store(found[0, s], out, emit.at(i, s))


def _add_prior(emit: Emitter, errors: Callable[[Any, Any, Any], Any], rest: list[Any]) -> None:
    prior, seen, out, i, width, stride = rest
    row, numbers = emit.builder.mul(i, stride), emit.builder.mul(i, width)
    present = emit.load(seen, i)
    with emit.loop(ZERO, emit.at(i, 1)) as (j, _):
        both = emit.builder.fmul(present, emit.load(seen, j))
        u = emit.splat(prior, emit.builder.add(numbers, j))
        value = emit.mul_add(u, both, errors(row, numbers, j))
        emit.store(value, out, emit.builder.add(row, j))
    place = emit.builder.add(row, i)
    missing = emit.builder.fsub(ONES, present)
    emit.store(emit.builder.fadd(emit.load(out, place), missing), out, place)


def _total_row(emit: Emitter) -> None:
    """Fill row ``i`` of ``out``, up to the diagonal, with ``errors + prior``.

    ``prior`` (width, width) holds numbers common to the lanes that count where both cells are
    ``seen``; a cell that is not gets 1 on the diagonal.
    """
    errors, *rest = emit.values

    def given(row: Any, _: Any, j: Any) -> Any:
        return emit.load(errors, emit.builder.add(row, j))

    _add_prior(emit, given, rest)


def _scaled_total_row(emit: Emitter) -> None:
    """Do what `total_row` does for errors ``scale_i correlation_ij scale_j``."""
    scale, correlation, *rest = emit.values
    own = emit.load(scale, rest[3])

    def scaled(_: Any, numbers: Any, j: Any) -> Any:
        scales = emit.builder.fmul(own, emit.load(scale, j))
        number = emit.splat(correlation, emit.builder.add(numbers, j))
        return emit.builder.fmul(scales, number)

    _add_prior(emit, scaled, rest)


solve_tile = instruction(_solve_tile, "x factor inverse", "i j first stride")
solve_row = instruction(_solve_row, "x factor inverse", "i j first stride")
factor_tile = instruction(_factor_tile, "factor diagonal inverse failed", "i stride")
add_moments = instruction(_add_moments, "x t weight sums", "place i j last stride")
multiply_row = instruction(_multiply_row, "x z out", "i first last stride")
total_row = instruction(_total_row, "errors prior seen out", "i width stride")
scaled_total_row = instruction(
    _scaled_total_row, "scale correlation prior seen out", "i width stride"
)
