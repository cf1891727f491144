"""Compiled loops of the mixed-model scan: arrays in, arrays out.

Per variant: g is the centred genotype, covariates projected out; ``s = g^T P y`` its score with a
trait and ``v = g^T P g`` the variance of that, ``P`` the inverse of the covariance between samples
on the space orthogonal to the covariates.
"""

import math

import numpy as np

from plait.gwas.kernels import COLLINEAR
from plait.numerics.compiled import njit
from plait.numerics.student_kernels import (
    log_gamma_step,
    table_of_log10_p,
    tabulated_log10_p,
)

_MUCH_EXPLAINED = 1e-2
_NEARLY_PERFECT = 0.99
_CARRIED = 0.1
"""Copies from which a sample carries an allele; fewer are the noise of imputation, or a mean."""


@njit(nogil=True, cache=True)
def left_by_covariates(squares, products, left, inexact):  # type: ignore[no-untyped-def]
    """Fill ``left`` (n,) of ``squares``, NaN where a variant is explained by the covariates.

    ``products`` (n, p - 1) are those with the basis of the covariates, without the constant.
    ``inexact`` marks where single precision was not enough.
    """
    for j in range(squares.shape[0]):
        value = squares[j]
        for c in range(products.shape[1]):
            value -= products[j, c] ** 2
        inexact[j] = value < _MUCH_EXPLAINED * squares[j]
        left[j] = value if value > COLLINEAR * squares[j] else np.nan


@njit(nogil=True, cache=True)
def calibrated_variances(left, projections, constants, weights, variances):  # type: ignore[no-untyped-def]
    """Fill ``v`` (n, T) from what is left of the squares, and products with k directions (n, k).

    ``v = c g^T g + sum_i (w_i - c) (u_i^T g)^2``; ``weights`` (T, k) are the differences.
    """
    for j in range(left.shape[0]):
        for t in range(constants.shape[0]):
            v = constants[t] * left[j]
            for i in range(projections.shape[1]):
                v += weights[t, i] * projections[j, i] ** 2
            variances[j, t] = v


@njit(nogil=True, cache=True)
def rare_variances(copies, left, inverses, averages, weights, reach, variances):  # type: ignore[no-untyped-def]
    """Fill ``v`` (n, T) from copies of the rarer allele (n, N): see `plait.gwas.calibration`.

    ``v = a^T P (a + 2 e) + e^T P e``: a are the copies of carriers, e what others have of dosages,
    or where a call is missing. The last term is taken for the average of P (m,) times ``e^T e``.
    ``inverses`` (N, N, m) have the shares side by side: they share what memory is waited for.
    """
    n_samples, n_shares = copies.shape[1], inverses.shape[2]
    carriers = np.empty(n_samples, dtype=np.int64)
    others = np.empty(n_samples, dtype=np.int64)
    found = np.empty(n_shares)  # v, then its logarithm
    for j in range(copies.shape[0]):
        g = copies[j]
        n_carriers, n_others = 0, 0
        total, square = 0.0, 0.0
        for i in range(n_samples):
            if g[i] >= _CARRIED:
                carriers[n_carriers] = i
                n_carriers += 1
            elif g[i] != 0.0:
                others[n_others] = i
                n_others += 1
                total += g[i]
                square += g[i] * g[i]
        rest = square - total * total / n_samples
        for k in range(n_shares):
            found[k] = averages[k] * rest
        for a in range(n_carriers):
            row, copies_of_a = inverses[carriers[a]], g[carriers[a]]
            for k in range(n_shares):
                found[k] += copies_of_a * copies_of_a * row[carriers[a], k]
            for b in range(a):
                product = 2.0 * copies_of_a * g[carriers[b]]
                for k in range(n_shares):
                    found[k] += product * row[carriers[b], k]
            for b in range(n_others):
                product = 2.0 * copies_of_a * g[others[b]]
                for k in range(n_shares):
                    found[k] += product * row[others[b], k]
        for k in range(n_shares):
            found[k] = math.log(found[k]) if found[k] > 0.0 else np.nan
        for t in range(weights.shape[0]):
            total = 0.0
            for k in range(n_shares):
                total += weights[t, k] * found[k]
            v = math.exp(total)
            if reach[t] < 1.0:  # 1 / v is linear in h2 for an eigenvector
                v = left[j] / (1.0 + reach[t] * (left[j] / v - 1.0))
            variances[j, t] = v


@njit(nogil=True, cache=True)
def tridiagonal_variances(rotated, pivots, below, variances):  # type: ignore[no-untyped-def]
    """Fill ``v`` (n, T) of rotated genotypes (N, n): ``|D^(-1/2) L^-1 z|^2``, ``V = L D L^T``.

    ``pivots`` (T, N) are the diagonals of D, ``below`` (T, N - 1) the subdiagonals of L.
    """
    n_samples, n = rotated.shape
    solved = np.empty(n)
    for t in range(pivots.shape[0]):
        inverse = 1.0 / pivots[t, 0]
        for j in range(n):
            solved[j] = rotated[0, j]
            variances[j, t] = solved[j] * solved[j] * inverse
        for i in range(1, n_samples):
            multiple, inverse = below[t, i - 1], 1.0 / pivots[t, i]
            for j in range(n):
                solved[j] = rotated[i, j] - multiple * solved[j]
                variances[j, t] += solved[j] * solved[j] * inverse


@njit(nogil=True, cache=True)
def mixed_statistics(scores, variances, lengths, df, beta, se, log10p, inexact):  # type: ignore[no-untyped-def]
    """Fill slopes, errors and p-values (n, T); ``lengths`` (T,) are ``y^T P y``.

    ``inexact`` (n,) is set where a variant nearly fits a trait.
    """
    constant, table = log_gamma_step(0.5 * df), table_of_log10_p(df)
    for j in range(scores.shape[0]):
        for t in range(scores.shape[1]):
            s, v = scores[j, t], variances[j, t]
            if not v > 0.0:
                beta[j, t], se[j, t], log10p[j, t] = np.nan, np.nan, np.nan
                continue
            explained = s * s / v
            inexact[j] |= explained > _NEARLY_PERFECT * lengths[t]
            beta[j, t] = s / v
            se[j, t] = math.sqrt(max(lengths[t] - explained, 0.0) / (df * v))
            t_value = beta[j, t] / se[j, t] if se[j, t] > 0.0 else np.inf
            log10p[j, t] = tabulated_log10_p(t_value, df, constant, table)
