"""Batches of rows that each have their own error covariance, one row in each lane.

A missing cell is decoupled by a row and column of the identity in ``M``, and by zeros in ``y`` and
in the rows of the prior factor. Rows with a diagonal error covariance are kept apart from the
others: a row takes the same steps whatever the rows beside it.

Here and in the likelihoods and posteriors of rows, most steps that are called from one place are
inlined before they are compiled, which takes half the time.
"""

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.mash.lane_kernels import LANES, TILE, factor_tile, padded, solve_row, solve_tile, vectors
from plait.mash.row_instructions import scaled_row
from plait.numerics.compiled import njit

Array = NDArray[np.float64]


class Batch(NamedTuple):
    """Errors of the rows in the lanes: ``Sigma = M M^T`` and ``y = M^{-1} bhat``.

    ``inverse`` is the inverse diagonal of ``M``, 0 in cells that are not ``seen``; ``pivots`` is
    the same with 1 there. ``chol`` is only used where ``Sigma`` is not diagonal; ``root`` is the
    diagonal of ``M``, ``failed`` marks lanes where ``Sigma`` is not positive definite, and ``one``
    is a vector of ones.
    """

    y: Array
    seen: Array
    inverse: Array
    chol: Array
    pivots: Array
    root: Array
    failed: Array
    one: Array


@njit(inline="always")
def new_batch(width):  # type: ignore[no-untyped-def]
    """Allocate a batch of rows of this width."""
    size = padded(width)
    one = vectors(1)
    one[:] = 1.0
    return Batch(
        vectors(size),
        vectors(size),
        vectors(size),
        vectors(size * (size + 1)),
        vectors(size),
        vectors(size),
        vectors(1),
        one,
    )


@njit(nogil=True, cache=True)
def find_diagonal(sigma, observed, diagonal):  # type: ignore[no-untyped-def]
    """Tell of every row whether the observed block of its error covariance is diagonal."""
    n, width = observed.shape
    for row in range(n):
        diagonal[row] = True
        for i in range(width):
            for j in range(i):
                if sigma[row, i, j] != 0.0 and observed[row, i] and observed[row, j]:
                    diagonal[row] = False
            if not diagonal[row]:
                break


@njit(nogil=True, cache=True)
def load_rows(batch, bhat, sigma, observed, chosen, diagonal):  # type: ignore[no-untyped-def]
    """Fill a batch with the chosen rows; lanes beyond them get no observed cell.

    Returns the first row that has an error covariance that is not positive definite, or -1.
    """
    width = bhat.shape[1]
    stride = padded(width) + 1
    for buffer in (batch.y, batch.seen, batch.inverse):
        buffer[:] = 0.0
    batch.root[:] = 1.0
    batch.failed[:] = 0.0
    if not diagonal:
        batch.chol[:] = 0.0
        for i in range(padded(width)):
            place = i * (stride + 1) * LANES
            batch.chol[place : place + LANES] = 1.0
    for lane in range(chosen.shape[0]):
        row = chosen[lane]
        for i in range(width):
            if not observed[row, i]:
                continue
            place = i * LANES + lane
            batch.seen[place] = 1.0
            batch.y[place] = bhat[row, i]
            if not diagonal:
                for j in range(i + 1):
                    if observed[row, j]:
                        batch.chol[(i * stride + j) * LANES + lane] = sigma[row, i, j]
            elif sigma[row, i, i] > 0.0:
                batch.root[place] = math.sqrt(sigma[row, i, i])
                batch.inverse[place] = 1.0 / batch.root[place]
                batch.y[place] /= batch.root[place]
            else:
                batch.failed[lane] = 1.0
    if not diagonal:
        _factor(batch, padded(width))
    for lane in range(chosen.shape[0]):
        if batch.failed[lane] > 0.0:
            return chosen[lane]
    return -1


@njit(nogil=True, cache=True)
def _factor(batch, size):  # type: ignore[no-untyped-def]
    """Factorise the error covariances in place, and whiten the effects."""
    stride = size + 1
    for i in range(0, size, TILE):
        for j in range(0, i, TILE):
            solve_tile(batch.chol, batch.chol, batch.pivots, i, j, 0, stride)
        factor_tile(batch.chol, batch.root, batch.pivots, batch.failed, i, stride)
    for j in range(0, size, TILE):
        solve_row(batch.y, batch.chol, batch.pivots, 0, j, 0, stride)


@njit(nogil=True, cache=True)
def whiten_factor(batch, factor, diagonal, inverse, x):  # type: ignore[no-untyped-def]
    """Fill the rows of ``x`` with those of ``N^T`` from those of ``F^T`` (rank, padded width).

    With diagonal errors, ``inverse`` is the inverse of their roots in the order of the columns.
    """
    rank, size = factor.shape
    stride = size + 1
    numbers = factor.ravel()
    scale = inverse if diagonal else batch.seen
    for c in range(rank):
        scaled_row(numbers, scale, batch.one, x, c * size, 0, c * stride, size)
    x[rank * stride * LANES : padded(rank) * stride * LANES] = 0.0
    if diagonal:
        return
    for i in range(0, padded(rank), TILE):
        for j in range(0, size, TILE):
            solve_tile(x, batch.chol, batch.pivots, i, j, 0, stride)
