"""Vector instructions for likelihoods and posteriors of rows with their own error covariances.

Buffers are laid out as in `plait.mash.lane_kernels`: entry (i, j) of a matrix is the vector number
``i * stride + j``, and each lane holds another row of data.
"""

from typing import Any

from llvmlite import ir  # type: ignore[import-untyped]

from plait.mash.lane_kernels import (
    INDEX,
    LANES,
    ONES,
    TILE,
    VECTOR,
    ZERO,
    ZEROS,
    Emitter,
    instruction,
)

_WHOLE = ir.VectorType(ir.IntType(64), LANES)
_MANTISSA = 52
_CLEAR = 1e-280


def _constants(value: float) -> Any:
    return ir.Constant(VECTOR, [value] * LANES)


def _integers(value: int) -> Any:
    return ir.Constant(_WHOLE, [value] * LANES)


def _copy_vectors(emit: Emitter) -> None:
    """Copy ``count`` vectors from ``begin`` to ``place``."""
    source, target, begin, place, count = emit.values
    with emit.loop(ZERO, count) as (k, _):
        value = emit.load(source, emit.builder.add(begin, k))
        emit.store(value, target, emit.builder.add(place, k))


def _scaled_row(emit: Emitter) -> None:
    """Fill ``out`` from ``place`` with ``numbers[at + k] scale[k] other[i]``, ``k < count``."""
    numbers, scale, other, out, at, i, place, count = emit.values
    factor = emit.load(other, i)
    with emit.loop(ZERO, count) as (k, _):
        number = emit.splat(numbers, emit.builder.add(at, k))
        value = emit.builder.fmul(emit.builder.fmul(number, factor), emit.load(scale, k))
        emit.store(value, out, emit.builder.add(place, k))


def _gram_tile(emit: Emitter) -> None:
    """Fill tile (i, j) of ``out`` with ``x x^T``, summing over columns ``first <= k < last``.

    The rows of ``out`` are ``across`` vectors apart.
    """
    x, out, i, j, first, last, stride, across = emit.values
    found = emit.products(x, emit.rows(i, stride), x, emit.rows(j, stride), first, last)
    rows = emit.rows(i, across)
    for (r, s), value in found.items():
        emit.store(value, out, emit.at(rows[r], j, s))


def _shifted_row(emit: Emitter) -> None:
    """Fill row ``i`` of ``out``, up to the diagonal, with ``I + scales[number] gram``."""
    gram, scales, out, number, i, stride = emit.values
    scale, row = emit.splat(scales, number), emit.builder.mul(i, stride)
    with emit.loop(ZERO, i) as (j, _):
        place = emit.builder.add(row, j)
        emit.store(emit.builder.fmul(scale, emit.load(gram, place)), out, place)
    place = emit.builder.add(row, i)
    emit.store(emit.mul_add(scale, emit.load(gram, place), ONES), out, place)


def _row_moments(emit: Emitter) -> None:
    """Fill ``inner`` and ``squares`` with ``x t`` and the sums of ``x^2`` of rows ``i .. i + 3``.

    Sums run over the columns ``first <= k < last``.
    """
    x, t, inner, squares, i, first, last, stride = emit.values
    rows = emit.rows(i, stride)
    sums = emit.variables([ZEROS] * (2 * TILE))
    with emit.loop(first, last) as (k, _):
        other = emit.load(t, k)
        for r in range(TILE):
            value = emit.load(x, emit.builder.add(rows[r], k))
            for place, factor in ((sums[r], other), (sums[TILE + r], value)):
                emit.builder.store(emit.mul_add(value, factor, emit.builder.load(place)), place)
    for r in range(TILE):
        emit.store(emit.builder.load(sums[r]), inner, emit.at(r))
        emit.store(emit.builder.load(sums[TILE + r]), squares, emit.at(r))


def _reflector(emit: Emitter) -> None:
    """Fill ``w``, of length sqrt(2), so that ``I - w w^T`` clears column ``k`` below ``k + 1``.

    A lane where it is clear already gets no reflection: where a row misses cells, what is left of
    its matrix falls towards the smallest numbers. The entry above goes to ``off[k + 1]``.
    """
    a, w, off, k, size, stride = emit.values
    builder = emit.builder
    (total,) = emit.variables([ZEROS])
    with emit.loop(emit.at(k, 2), size) as (i, _):
        value = emit.load(a, builder.add(builder.mul(i, stride), k))
        builder.store(emit.mul_add(value, value, builder.load(total)), total)
    norm2 = builder.load(total)
    clear = builder.fcmp_ordered("<", norm2, _constants(_CLEAR))
    below = emit.at(k, 1)
    head = emit.load(a, builder.add(builder.mul(below, stride), k))
    length = emit.sqrt(emit.mul_add(head, head, norm2))
    positive = builder.fcmp_ordered(">", head, ZEROS)
    turned = builder.select(positive, builder.fneg(length), length)
    own = builder.fsub(head, turned)
    scale = emit.sqrt(builder.fdiv(_constants(2.0), emit.mul_add(own, own, norm2)))
    scale = builder.select(clear, ZEROS, scale)
    emit.store(builder.select(clear, head, turned), off, below)
    emit.store(ZEROS, w, k)
    emit.store(builder.select(clear, ZEROS, builder.fmul(own, scale)), w, below)
    with emit.loop(emit.at(k, 2), size) as (i, _):
        value = emit.load(a, builder.add(builder.mul(i, stride), k))
        emit.store(builder.fmul(value, scale), w, i)


def _multiply_symmetric(emit: Emitter) -> None:
    """Do what the rows ``i .. i + 3`` of the lower triangle of ``a`` add to ``p = a w``.

    Columns before ``first`` are left out; the rows above have been done.
    """
    a, w, p, i, first, stride = emit.values
    builder, rows = emit.builder, emit.rows(i, stride)
    own = [emit.load(w, emit.at(i, r)) for r in range(TILE)]
    sums = emit.variables([ZEROS] * TILE)
    with emit.loop(first, i) as (j, _):
        other, total = emit.load(w, j), emit.load(p, j)
        for r in range(TILE):
            value = emit.load(a, builder.add(rows[r], j))
            builder.store(emit.mul_add(value, other, builder.load(sums[r])), sums[r])
            total = emit.mul_add(value, own[r], total)
        emit.store(total, p, j)
    totals = [builder.load(place) for place in sums]
    for r in range(TILE):
        for s in range(r + 1):
            value = emit.load(a, emit.at(rows[r], i, s))
            totals[r] = emit.mul_add(value, own[s], totals[r])
            if s < r:
                totals[s] = emit.mul_add(value, own[r], totals[s])
    for r in range(TILE):
        emit.store(totals[r], p, emit.at(i, r))


def _reflect(emit: Emitter) -> None:
    """Apply the reflection to ``v``, and make of ``p = a w`` what `update_symmetric` needs."""
    w, p, v, first, size = emit.values
    builder = emit.builder
    sums = emit.variables([ZEROS, ZEROS])
    with emit.loop(first, size) as (i, _):
        own = emit.load(w, i)
        for place, vector in zip(sums, (p, v), strict=True):
            builder.store(emit.mul_add(own, emit.load(vector, i), builder.load(place)), place)
    half = builder.fmul(builder.load(sums[0]), _constants(0.5))
    along = builder.load(sums[1])
    with emit.loop(first, size) as (i, _):
        own = emit.load(w, i)
        emit.store(emit.mul_sub(half, own, emit.load(p, i)), p, i)
        emit.store(emit.mul_sub(along, own, emit.load(v, i)), v, i)


def _update_symmetric(emit: Emitter) -> None:
    """Subtract ``w p^T + p w^T`` from the rows ``i .. i + 3`` of the lower triangle of ``a``."""
    a, w, p, i, first, stride = emit.values
    builder, rows = emit.builder, emit.rows(i, stride)
    left = [emit.load(w, emit.at(i, r)) for r in range(TILE)]
    right = [emit.load(p, emit.at(i, r)) for r in range(TILE)]
    with emit.loop(first, emit.at(i, TILE)) as (j, _):
        w_j, p_j = emit.load(w, j), emit.load(p, j)
        for r in range(TILE):
            place = builder.add(rows[r], j)
            value = emit.mul_sub(left[r], p_j, emit.load(a, place))
            emit.store(emit.mul_sub(right[r], w_j, value), a, place)


def _grid_tile(emit: Emitter) -> None:
    """For four scales s: determinant of ``I + s A`` and ``v^T (I + s A)^{-1} v``, A tridiagonal.

    Every pivot is at least 1 because A is positive semi-definite. The determinant is
    ``2^exponent fraction``, which cannot overflow; an infinite pivot makes ``form`` NaN.
    """
    a, off, v, scales, fraction, exponent, form, first, size, stride = emit.values
    builder = emit.builder
    scale = [emit.splat(scales, emit.at(first, g)) for g in range(TILE)]
    # Per scale: inverse pivot before, carried residual, fraction, form; then its exponent.
    state = [emit.variables([ZEROS, ZEROS, ONES, ZEROS, _integers(0)]) for _ in range(TILE)]
    with emit.loop(ZERO, size) as (i, _):
        here = emit.load(a, builder.add(builder.mul(i, stride), i))
        before, own = emit.load(off, i), emit.load(v, i)
        for s, places in zip(scale, state, strict=True):
            inverse, carry, product, total, power = (builder.load(place) for place in places)
            beside = builder.fmul(s, before)
            ratio = builder.fmul(beside, inverse)
            pivot = emit.mul_sub(ratio, beside, emit.mul_add(s, here, ONES))
            low = builder.fcmp_ordered("<", pivot, ONES)
            pivot = builder.select(low, ONES, pivot)
            inverse = builder.fdiv(ONES, pivot)
            carry = emit.mul_sub(ratio, carry, own)
            weighted = builder.fmul(carry, inverse)
            total = emit.mul_add(carry, weighted, emit.mul_add(pivot, ZEROS, total))
            bits = builder.bitcast(builder.fmul(product, pivot), _WHOLE)
            raised = builder.lshr(bits, _integers(_MANTISSA))
            power = builder.add(power, builder.sub(raised, _integers(1023)))
            bits = builder.and_(bits, _integers((1 << _MANTISSA) - 1))
            product = builder.bitcast(builder.or_(bits, _integers(1023 << _MANTISSA)), VECTOR)
            values = (inverse, carry, product, total, power)
            for value, place in zip(values, places, strict=True):
                builder.store(value, place)
    for g, places in enumerate(state):
        _, _, product, total, power = (builder.load(place) for place in places)
        at = ir.Constant(INDEX, g)
        emit.store(product, fraction, at)
        emit.store(total, form, at)
        emit.store(builder.sitofp(power, VECTOR), exponent, at)


copy_vectors = instruction(_copy_vectors, "source target", "begin place count")
scaled_row = instruction(_scaled_row, "numbers scale other out", "at i place count")
gram_tile = instruction(_gram_tile, "x out", "i j first last stride across")
shifted_row = instruction(_shifted_row, "gram scales out", "number i stride")
row_moments = instruction(_row_moments, "x t inner squares", "i first last stride")
reflector = instruction(_reflector, "a w off", "k size stride")
multiply_symmetric = instruction(_multiply_symmetric, "a w p", "i first stride")
reflect = instruction(_reflect, "w p v", "first size")
update_symmetric = instruction(_update_symmetric, "a w p", "i first stride")
grid_tile = instruction(_grid_tile, "a off v scales fraction exponent form", "first size stride")
