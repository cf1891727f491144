"""Compiled likelihoods of rows that each have their own error covariance.

Notation as in `plait.mash.kernels`. One tridiagonal reduction of ``A = N N^T`` (or of ``N^T N``,
where the prior has a smaller rank than the row has cells) serves all scales of a base matrix.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.mash.lane_kernels import LANES, TILE, multiply_row, padded, vectors
from plait.mash.row_batch_kernels import whiten_factor
from plait.mash.row_instructions import (
    copy_vectors,
    gram_tile,
    grid_tile,
    multiply_symmetric,
    reflect,
    reflector,
    scaled_row,
    update_symmetric,
)
from plait.numerics.compiled import njit

_LOG_2PI = math.log(2.0 * math.pi)
_LOG_2 = math.log(2.0)

Array = NDArray[np.float64]


class LikelihoodWork(NamedTuple):
    """Matrices and vectors of one batch; ``level``, ``square``, ``cells``: see `fill_levels`."""

    width: int
    a: Array
    x: Array
    n: Array
    v: Array
    w: Array
    p: Array
    off: Array
    scales: Array
    fraction: Array
    exponent: Array
    form: Array
    level: Array
    square: Array
    cells: Array
    narrow: NDArray[np.bool_]


@njit(inline="always")
def new_likelihood_work(width, scales):  # type: ignore[no-untyped-def]
    """Allocate for rows of this width and at most this many scales."""
    size = padded(width)
    whole = size * (size + 1)
    return LikelihoodWork(
        width,
        vectors(whole),
        vectors(whole),
        vectors(whole),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        np.zeros(padded(scales)),
        vectors(TILE),
        vectors(TILE),
        vectors(TILE),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES, dtype=np.bool_),
    )


@njit(inline="always")
def _tridiagonalise(work, width, stride):  # type: ignore[no-untyped-def]
    """Reduce A to tridiagonal form by reflections, rotating v along.

    The diagonal stays in ``a``, what is beside it goes to ``off`` (Golub and Van Loan, 8.3.1).
    """
    size = padded(width)
    a, w, p = work.a, work.w, work.p
    w[:] = 0.0
    work.off[:] = 0.0
    for k in range(width - 2):
        reflector(a, w, work.off, k, width, stride)
        # Whole tiles: the reflector is zero where a tile begins before it.
        first = (k + 1) // TILE * TILE
        for i in range(first, size, TILE):
            multiply_symmetric(a, w, p, i, first, stride)
        reflect(w, p, work.v, first, size)
        for i in range(first, size, TILE):
            update_symmetric(a, w, p, i, first, stride)
    if width > 1:
        copy_vectors(a, work.off, (width - 1) * stride + width - 2, width - 1, 1)


@njit(inline="always")
def _fill_wide(batch, work, factor, product, diagonal):  # type: ignore[no-untyped-def]
    """Fill ``A = N N^T`` and ``v = y``, of the width of the data."""
    rank, size = factor.shape
    stride = size + 1
    copy_vectors(batch.y, work.v, 0, 0, size)
    if diagonal:
        numbers = product.ravel()
        for i in range(size):
            scaled_row(
                numbers, batch.inverse, batch.inverse, work.a, i * size, i, i * stride, i + 1
            )
        return
    whiten_factor(batch, factor, diagonal, batch.inverse, work.x)
    for c in range(padded(rank)):
        for i in range(size):
            copy_vectors(work.x, work.n, c * stride + i, i * stride + c, 1)
    for i in range(0, size, TILE):
        for j in range(0, i + 1, TILE):
            gram_tile(work.n, work.a, i, j, 0, rank, stride, stride)


@njit(inline="always")
def _fill_narrow(batch, work, factor, diagonal):  # type: ignore[no-untyped-def]
    """Fill ``A = N^T N`` and ``v = N^T y``, of the rank of the prior."""
    rank, size = factor.shape
    stride = size + 1
    whiten_factor(batch, factor, diagonal, batch.inverse, work.x)
    for i in range(0, padded(rank), TILE):
        multiply_row(work.x, batch.y, work.v, i, 0, size, stride)
        for j in range(0, i + 1, TILE):
            gram_tile(work.x, work.a, i, j, 0, size, stride, stride)


@njit(inline="always")
def _grid(work, width, narrow, scales, places, chosen, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` for every scale from a tridiagonal A, in the lanes where it is for them."""
    stride = work.v.shape[0] // LANES + 1
    for c in range(work.scales.shape[0]):
        work.scales[c] = scales[c] if c < scales.shape[0] else 0.0
    for first in range(0, scales.shape[0], TILE):
        grid_tile(
            work.a,
            work.off,
            work.v,
            work.scales,
            work.fraction,
            work.exponent,
            work.form,
            first,
            width,
            stride,
        )
        for g in range(min(TILE, scales.shape[0] - first)):
            for lane in range(chosen.shape[0]):
                if work.narrow[lane] != narrow:
                    continue
                at = g * LANES + lane
                form = work.form[at]
                if narrow:
                    form = max(work.square[lane] - scales[first + g] * form, 0.0)
                log_det = math.log(work.fraction[at]) + _LOG_2 * work.exponent[at]
                out[places[first + g], chosen[lane]] = work.level[lane] - 0.5 * (form + log_det)


@njit(inline="always")
def fill_levels(batch, work):  # type: ignore[no-untyped-def]
    """Fill log-density without prior and quadratic form, ``|y|^2``, and number of cells."""
    for buffer in (work.level, work.square, work.cells):
        buffer[:] = 0.0
    for i in range(batch.y.shape[0] // LANES):
        for lane in range(LANES):
            at = i * LANES + lane
            work.level[lane] -= 0.5 * _LOG_2PI * batch.seen[at] + math.log(batch.root[at])
            work.square[lane] += batch.y[at] * batch.y[at]
            work.cells[lane] += batch.seen[at]


@njit(inline="always")
def fill_line(batch, work, factor, diagonal, scales, places, chosen, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` for every scale of a base matrix of rank 1."""
    whiten_factor(batch, factor, diagonal, batch.inverse, work.x)
    work.form[:] = 0.0
    work.fraction[:] = 0.0
    for i in range(factor.shape[1]):
        for lane in range(LANES):
            value = work.x[i * LANES + lane]
            work.form[lane] += value * value
            work.fraction[lane] += value * batch.y[i * LANES + lane]
    for lane in range(chosen.shape[0]):
        length2, inner = work.form[lane], work.fraction[lane]
        along = inner * inner / length2 if length2 > 0.0 else 0.0
        across = max(work.square[lane] - along, 0.0)
        for c in range(scales.shape[0]):
            denominator = 1.0 + scales[c] * length2
            form = across + along / denominator + math.log(denominator)
            out[places[c], chosen[lane]] = work.level[lane] - 0.5 * form


@njit(inline="always")
def fill_base(batch, work, factor, product, diagonal, scales, places, chosen, out):  # type: ignore[no-untyped-def]
    """Fill ``out`` for every scale of any other base matrix.

    Rows with at most as many cells as the rank take the wide form, others the narrow one.
    """
    rank, stride = factor.shape[0], factor.shape[1] + 1
    some_wide, some_narrow = False, False
    for lane in range(chosen.shape[0]):
        work.narrow[lane] = work.cells[lane] > rank
        some_narrow |= work.narrow[lane]
        some_wide |= not work.narrow[lane]
    for narrow in (False, True):
        if not (some_narrow if narrow else some_wide):
            continue
        width = work.width
        if narrow:
            width = rank
            _fill_narrow(batch, work, factor, diagonal)
        else:
            _fill_wide(batch, work, factor, product, diagonal)
        _tridiagonalise(work, width, stride)
        _grid(work, width, narrow, scales, places, chosen, out)
