"""Compiled posterior summaries of rows that each have their own error covariance.

Notation as in `plait.mash.kernels`. The coefficients of a component have the precision
``H = I + s N^T N = C C^T``. With ``x = B C^{-T}``, B the factor rows of the output coordinates, the
output has mean ``s x C^{-1} N^T y`` and covariance ``s x x^T``: nothing cancels, whatever the ratio
of prior to error. ``N^T N`` serves all scales of a base matrix.

Conditions are taken in an order of their own for every base matrix, in which its factor is upper
triangular (`Components.triangular`): then x is too, and sums run over half of it. That order grades
the columns of the factor, so that H is well conditioned but for the scales of its rows.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.mash.lane_kernels import (
    LANES,
    TILE,
    factor_tile,
    multiply_row,
    padded,
    solve_row,
    solve_tile,
    vectors,
)
from plait.mash.row_batch_kernels import whiten_factor
from plait.mash.row_instructions import copy_vectors, gram_tile, row_moments, shifted_row
from plait.numerics.compiled import njit

_SQRT_HALF = math.sqrt(0.5)
_NEGLIGIBLE = 1e-14
_ROUNDING = 1e-13

Array = NDArray[np.float64]


class Totals(NamedTuple):
    """Sums over the components so far, of the rows in the lanes (output width, but per lane).

    ``spread`` sums squares about the current ``centre``. ``share`` and ``rest`` are the share of
    the last component in the weight so far, and the weight of its step in ``spread``.
    """

    weight: Array
    smallest: Array
    share: Array
    rest: Array
    centre: Array
    spread: Array
    step: Array
    negative: Array
    positive: Array
    zero: Array


class PosteriorWork(NamedTuple):
    """Matrices and vectors of one component, in the notation of this module.

    ``h`` holds H and then C, with its diagonal in ``root`` and the inverse of that in ``pivots``;
    ``g`` is ``N^T y`` and ``t`` is ``C^{-1} g``. ``inverse`` and ``y`` are those of the batch in
    the order of the base matrix. ``moves`` is 1 where the component moves an output, and ``w``
    are its weights; ``natural`` is the order 0, 1, ... of the outputs. At rank 1, ``tail`` is the
    tail of all outputs, and ``t`` and ``g`` are mean and variance of the one coefficient.
    """

    x: Array
    gram: Array
    h: Array
    outward: Array
    covariance: Array
    g: Array
    t: Array
    inverse: Array
    y: Array
    root: Array
    pivots: Array
    failed: Array
    inner: Array
    squares: Array
    mean: Array
    variance: Array
    moves: Array
    w: Array
    tail: Array
    natural: NDArray[np.int64]


@njit(inline="always")
def new_totals(width):  # type: ignore[no-untyped-def]
    """Allocate for this many output coordinates."""
    size = padded(width)
    return Totals(
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        np.zeros(LANES),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
    )


@njit(inline="always")
def new_posterior_work(width, outputs, want_cov):  # type: ignore[no-untyped-def]
    """Allocate for rows of this width and this many output coordinates."""
    natural = np.zeros(outputs, dtype=np.int64)
    for q in range(outputs):
        natural[q] = q
    size, wide = padded(width), padded(outputs)
    whole, tall = size * (size + 1), wide * (size + 1)
    return PosteriorWork(
        vectors(max(whole, tall)),
        vectors(whole),
        vectors(whole),
        vectors(tall),
        vectors(wide * (wide + 1) if want_cov else 1),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(1),
        vectors(TILE),
        vectors(TILE),
        vectors(wide),
        vectors(wide),
        vectors(wide),
        np.zeros(LANES),
        np.zeros(LANES),
        natural,
    )


# ---------------------------------------------------------------- sums over components


@njit(nogil=True, cache=True, error_model="numpy")
def _add_moments(totals, w, mean, variance, width):  # type: ignore[no-untyped-def]
    """Add a component's mean and variance (West's update: all terms are positive)."""
    for lane in range(LANES):
        totals.weight[lane] += w[lane]
        totals.share[lane] = w[lane] / totals.weight[lane] if w[lane] > 0.0 else 0.0
        totals.rest[lane] = w[lane] * (1.0 - totals.share[lane])
    for q in range(width):
        for lane in range(LANES):
            at = q * LANES + lane
            step = mean[at] - totals.centre[at]
            totals.step[at] = step
            totals.centre[at] += totals.share[lane] * step
            totals.spread[at] += w[lane] * variance[at] + totals.rest[lane] * step * step


@njit(nogil=True, cache=True, error_model="numpy")
def _add_tails(totals, w, mean, variance, moves, width):  # type: ignore[no-untyped-def]
    """Add a component's sign probabilities."""
    for q in range(width):
        for lane in range(LANES):
            share, at = w[lane], q * LANES + lane
            if share == 0.0:
                continue
            if moves[at] == 0.0:
                totals.zero[at] += share
                continue
            tail = 0.5 * math.erfc(abs(mean[at]) / math.sqrt(variance[at]) * _SQRT_HALF)
            if mean[at] > 0.0:
                totals.negative[at] += share * tail
                totals.positive[at] += share * (1.0 - tail)
            else:
                totals.negative[at] += share * (1.0 - tail)
                totals.positive[at] += share * tail


@njit(nogil=True, cache=True)
def _add_line_tails(totals, w, tail, mean, moves, width):  # type: ignore[no-untyped-def]
    """Do what `_add_tails` does where all coordinates move together, with one tail."""
    for q in range(width):
        for lane in range(LANES):
            at = q * LANES + lane
            moved = w[lane] * moves[at]
            totals.zero[at] += w[lane] - moved
            small = moved * tail[lane]
            up = mean[at] > 0.0
            totals.negative[at] += small if up else moved - small
            totals.positive[at] += moved - small if up else small


@njit(inline="always")
def _update_smallest(totals, width):  # type: ignore[no-untyped-def]
    """Smallest tail of any output so far, of every row: 0 until all outputs have one."""
    for lane in range(LANES):
        totals.smallest[lane] = 1.0
    for q in range(width):
        for lane in range(LANES):
            at = q * LANES + lane
            tail = min(totals.negative[at], totals.positive[at])
            totals.smallest[lane] = min(totals.smallest[lane], tail)


@njit(nogil=True, cache=True)
def _add_covariance(totals, w, scale, covariance, chosen, order, cov):  # type: ignore[no-untyped-def]
    """Add a component to the lower triangles of the covariances, after `_add_moments`."""
    width = cov.shape[1]
    stride = padded(width) + 1
    for lane in range(chosen.shape[0]):
        if w[lane] == 0.0:
            continue
        share, rest = w[lane] * scale, totals.rest[lane]
        target = cov[chosen[lane]]
        for i in range(width):
            q = order[i]
            for j in range(i + 1):
                s = order[j]
                steps = totals.step[q * LANES + lane] * totals.step[s * LANES + lane]
                own = covariance[(i * stride + j) * LANES + lane]
                target[max(q, s), min(q, s)] += rest * steps + share * own


@njit(inline="always")
def finish(totals, chosen, want_cov, mean, sd, negative, zeros, lfsr, cov):  # type: ignore[no-untyped-def]
    """Write the totals of a batch to the output rows."""
    width = mean.shape[1]
    for lane in range(chosen.shape[0]):
        j = chosen[lane]
        for q in range(width):
            at = q * LANES + lane
            zero = totals.zero[at]
            mean[j, q] = totals.centre[at]
            sd[j, q] = math.sqrt(totals.spread[at])
            negative[j, q] = min(totals.negative[at], 1.0)
            zeros[j, q] = min(zero, 1.0)
            lfsr[j, q] = min(zero + min(totals.negative[at], totals.positive[at]), 1.0)
            if want_cov:
                for s in range(q):
                    cov[j, s, q] = cov[j, q, s]


# ---------------------------------------------------------------- components


@njit(inline="always")
def _fill_outward(work, factor, slack):  # type: ignore[no-untyped-def]
    """Factor rows of the conditions in the order of the factor's columns, common to all lanes."""
    rank, width = factor.shape[0], work.natural.shape[0]
    stride = factor.shape[1] + 1
    work.outward[:] = 0.0
    for i in range(width):
        for c in range(max(0, i - slack), rank):
            number = factor[c, i]
            place = (i * stride + c) * LANES
            for lane in range(LANES):
                work.outward[place + lane] = number


@njit(inline="always")
def _fill_moves(work, factor):  # type: ignore[no-untyped-def]
    """Which conditions a component can move: those with a variance."""
    for q in range(work.natural.shape[0]):
        moves = 0.0
        for c in range(factor.shape[0]):
            if factor[c, q] != 0.0:
                moves = 1.0
        work.moves[q * LANES : (q + 1) * LANES] = moves


@njit(inline="always")
def _fill_mapped(work, factor, back, chosen, output_map):  # type: ignore[no-untyped-def]
    """Factor rows ``sum_i A_qi back_i F_i`` of mapped outputs, and which of them can move.

    A row that cancels to rounding is zero.
    """
    rank, stride = factor.shape[0], factor.shape[1] + 1
    work.outward[:] = 0.0
    work.moves[:] = 0.0
    for lane in range(chosen.shape[0]):
        for q in range(output_map.shape[0]):
            moved, whole = 0.0, 0.0
            for c in range(rank):
                total, absolute = 0.0, 0.0
                for i in range(back.shape[1]):
                    term = output_map[q, i] * back[chosen[lane], i] * factor[c, i]
                    total += term
                    absolute += abs(term)
                work.outward[(q * stride + c) * LANES + lane] = total
                moved += total * total
                whole += absolute * absolute
            if moved > _ROUNDING * whole:
                work.moves[q * LANES + lane] = 1.0
            else:
                for c in range(rank):
                    work.outward[(q * stride + c) * LANES + lane] = 0.0


@njit(inline="always")
def _fill_gram(work, batch, rotated, triangular, order, diagonal):  # type: ignore[no-untyped-def]
    """Fill ``gram = N^T N`` and ``g = N^T y``."""
    rank, size = rotated.shape
    width, stride = order.shape[0], size + 1
    if diagonal:
        for i in range(width):
            copy_vectors(batch.inverse, work.inverse, order[i], i, 1)
            copy_vectors(batch.y, work.y, order[i], i, 1)
    else:
        copy_vectors(batch.y, work.y, 0, 0, size)
    factor = triangular if diagonal else rotated
    whiten_factor(batch, factor, diagonal, work.inverse, work.x)
    for i in range(0, padded(rank), TILE):
        multiply_row(work.x, work.y, work.g, i, 0, size, stride)
        for j in range(0, i + 1, TILE):
            # With diagonal errors the rows of N^T end where those of the factor do.
            last = min(size, j + TILE + width - rank) if diagonal else size
            gram_tile(work.x, work.gram, i, j, 0, last, stride, stride)


@njit(nogil=True, cache=True)
def _solve(work, scales, number, rank, slack, order, stride):  # type: ignore[no-untyped-def]
    """Fill ``x``, and the mean and variance of the outputs, of one component.

    Row i of the outward factor, and so of x, is zero before column ``i - slack``. H cannot fail to
    be positive definite: it is the identity and more.
    """
    size, outputs = padded(rank), order.shape[0]
    for i in range(size):
        shifted_row(work.gram, scales, work.h, number, i, stride)
    for i in range(0, size, TILE):
        for j in range(0, i, TILE):
            solve_tile(work.h, work.h, work.pivots, i, j, 0, stride)
        factor_tile(work.h, work.root, work.pivots, work.failed, i, stride)
    copy_vectors(work.g, work.t, 0, 0, size)
    for j in range(0, size, TILE):
        solve_row(work.t, work.h, work.pivots, 0, j, 0, stride)
    scale = scales[number]
    for i in range(0, padded(outputs), TILE):
        first = max(0, i - slack) // TILE * TILE
        for r in range(i, i + TILE):
            begin = r * stride + first
            copy_vectors(work.outward, work.x, begin, begin, size - first)
        for j in range(first, size, TILE):
            solve_tile(work.x, work.h, work.pivots, i, j, first, stride)
        row_moments(work.x, work.t, work.inner, work.squares, i, first, size, stride)
        for r in range(min(TILE, outputs - i)):
            place = order[i + r] * LANES
            for lane in range(LANES):
                work.mean[place + lane] = scale * work.inner[r * LANES + lane]
                work.variance[place + lane] = scale * work.squares[r * LANES + lane]


@njit(nogil=True, cache=True)
def _fill_covariance(work, rank, slack, outputs, stride):  # type: ignore[no-untyped-def]
    """Fill ``covariance = x x^T`` of a component, up to its scale."""
    across = padded(outputs) + 1
    for i in range(0, padded(outputs), TILE):
        first = max(0, i - slack) // TILE * TILE
        for j in range(0, i + 1, TILE):
            gram_tile(work.x, work.covariance, i, j, first, padded(rank), stride, across)


@njit(inline="always")
def _find_weights(weights, component, first, chosen, totals, w):  # type: ignore[no-untyped-def]
    """Weights of a component in the lanes; returns whether any row needs it.

    A row leaves the component out (weight 0) if its weight is below 1e-14 of the smallest tail that
    the row had at the last base matrix. Tails only grow, so that is right in any order of the
    components: what is left out cannot change any tail, mean or variance visibly. The rule looks
    at one row alone, so that the result of a row does not depend on those beside it.
    """
    w[:] = 0.0
    needed = False
    for lane in range(chosen.shape[0]):
        share = weights[component, first + chosen[lane]]
        if share > 0.0 and share >= _NEGLIGIBLE * totals.smallest[lane]:
            w[lane] = share
            needed = True
    return needed


@njit(inline="always")
def _project_line(work, batch):  # type: ignore[no-untyped-def]
    """Fill ``squares`` with ``|N|^2`` and ``inner`` with ``N^T y``, of a prior of rank 1."""
    for lane in range(LANES):
        work.squares[lane] = 0.0
        work.inner[lane] = 0.0
    for i in range(batch.y.shape[0] // LANES):
        for lane in range(LANES):
            value = work.x[i * LANES + lane]
            work.squares[lane] += value * value
            work.inner[lane] += value * batch.y[i * LANES + lane]


@njit(inline="always")
def _solve_line(work, scale, outputs, stride):  # type: ignore[no-untyped-def]
    """Mean, variance and tail of a component of rank 1: all outputs are multiples of one number."""
    for lane in range(LANES):
        variance = scale / (1.0 + scale * work.squares[lane])
        work.t[lane] = variance * work.inner[lane]
        work.g[lane] = variance
        z = abs(work.inner[lane]) * math.sqrt(variance)
        work.tail[lane] = 0.5 * math.erfc(z * _SQRT_HALF)
    for q in range(outputs):
        for lane in range(LANES):
            number = work.outward[q * stride * LANES + lane]
            work.mean[q * LANES + lane] = number * work.t[lane]
            work.variance[q * LANES + lane] = number * number * work.g[lane]


@njit(nogil=True, cache=True)
def _line_covariance(work, outputs, stride):  # type: ignore[no-untyped-def]
    """Fill ``covariance`` with that of a component of rank 1."""
    across = padded(outputs) + 1
    for q in range(outputs):
        for s in range(q + 1):
            left, right, place = q * stride * LANES, s * stride * LANES, (q * across + s) * LANES
            for lane in range(LANES):
                product = work.outward[left + lane] * work.outward[right + lane]
                work.covariance[place + lane] = work.g[lane] * product


@njit(nogil=True, cache=True)
def _prepare(work, batch, rotated, triangular, order, slack, mapped, chosen, diagonal):  # type: ignore[no-untyped-def]
    """Do what all scales of a base matrix share."""
    use_map, output_map, back = mapped
    rank = rotated.shape[0]
    if use_map:
        _fill_mapped(work, rotated, back, chosen, output_map)
    else:
        _fill_outward(work, rotated if rank == 1 else triangular, slack)
        _fill_moves(work, rotated)
    if rank == 1:
        whiten_factor(batch, rotated, diagonal, batch.inverse, work.x)
        _project_line(work, batch)
    else:
        _fill_gram(work, batch, rotated, triangular, order, diagonal)


@njit(inline="always")
def add_base(work, batch, totals, prior, mapped, weights, first, chosen, diagonal, want_cov, cov):  # type: ignore[no-untyped-def]
    """Add the components of one base matrix (rank 0: the null) to the totals of a batch."""
    rotated, triangular, order, scales, places = prior
    use_map = mapped[0]
    rank, width, stride = rotated.shape[0], order.shape[0], rotated.shape[1] + 1
    outputs = work.natural.shape[0]
    # The order that the outputs are solved in, and how far their rows begin before the diagonal.
    order_out = work.natural if use_map or rank == 1 else order
    slack = outputs if use_map else width - rank
    ready = False
    _update_smallest(totals, outputs)
    for number in range(scales.shape[0]):
        scale = scales[number]
        if not _find_weights(weights, places[number], first, chosen, totals, work.w):
            continue
        moving = rank > 0 and scale > 0.0
        if moving and not ready:
            _prepare(work, batch, rotated, triangular, order, slack, mapped, chosen, diagonal)
            ready = True
        if not moving:
            work.mean[:] = 0.0
            work.variance[:] = 0.0
            work.moves[:] = 0.0
            ready = False
        elif rank == 1:
            _solve_line(work, scale, outputs, stride)
        else:
            _solve(work, scales, number, rank, slack, order_out, stride)
        _add_moments(totals, work.w, work.mean, work.variance, outputs)
        if moving and rank == 1:
            _add_line_tails(totals, work.w, work.tail, work.mean, work.moves, outputs)
        else:
            _add_tails(totals, work.w, work.mean, work.variance, work.moves, outputs)
        if want_cov:
            if moving and rank == 1:
                _line_covariance(work, outputs, stride)
                scale = 1.0
            elif moving:
                _fill_covariance(work, rank, slack, outputs, stride)
            else:
                work.covariance[:] = 0.0
            _add_covariance(totals, work.w, scale, work.covariance, chosen, order_out, cov)
