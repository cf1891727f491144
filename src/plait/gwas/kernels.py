"""Compiled loops of the association scan: arrays in, arrays out.

Notation (per variant, in a group of traits measured on the same N samples): g is the centred
genotype, 0 where missing; Q an orthonormal basis of the covariates, the constant first; y a
residual trait of length 1. ``u = Q^T g``, ``s = y^T g``, ``v = g^T g - u^T u``.
"""

import math

import numpy as np
from numba import njit

from plait.numerics.student_kernels import log10_p, log_gamma_step

COLLINEAR = 1e-6
"""Share of a genotype's variation that covariates must leave for it to be tested."""
_WEIGHTED_COLLINEAR = 1e-5
_MUCH_EXPLAINED = 1e-2
_NEARLY_PERFECT = 0.99
_DEPENDENT = 1e-9
_AS_LIKELY = 1.0 + 1e-7
_NEGLIGIBLE = 1e-20


@njit(nogil=True, cache=True)
def centred_values(counts, values, frequency, squares):  # type: ignore[no-untyped-def]
    """From counts by code: ``values[j, code]``, the effect allele's frequency, and ``g^T g``.

    A missing genotype has the value 0: it is imputed by the mean.
    """
    for j in range(counts.shape[0]):
        n2, n1, n0 = counts[j, 0], counts[j, 2], counts[j, 3]
        called = n0 + n1 + n2
        if called == 0:
            values[j] = 0.0
            frequency[j] = np.nan
            squares[j] = 0.0
            continue
        mean = (n1 + 2.0 * n2) / called
        frequency[j] = 0.5 * mean
        values[j, 0] = 2.0 - mean
        values[j, 1] = 0.0
        values[j, 2] = 1.0 - mean
        values[j, 3] = -mean
        # From differences, so that a nearly constant genotype does not cancel.
        squares[j] = n2 * (2.0 - mean) ** 2 + n1 * (1.0 - mean) ** 2 + n0 * mean**2


@njit(nogil=True, cache=True)
def linear_statistics(  # type: ignore[no-untyped-def]
    products, squares, n_covariates, df, beta, se, log10p, inexact
):
    """Fill slopes, their errors and p-values of traits of length 1 (spec 5.1).

    ``products`` (n, covariates without the constant + traits) holds u and s. A variant that the
    covariates explain stays NaN. ``inexact`` marks where single precision was not enough.
    """
    n_traits = beta.shape[1]
    constant = log_gamma_step(0.5 * df)
    for j in range(products.shape[0]):
        explained = 0.0
        for c in range(n_covariates):
            explained += products[j, c] ** 2
        v = squares[j] - explained
        inexact[j] = v < _MUCH_EXPLAINED * squares[j]
        if not v > COLLINEAR * squares[j]:
            beta[j] = np.nan
            se[j] = np.nan
            log10p[j] = np.nan
            continue
        for t in range(n_traits):
            s = products[j, n_covariates + t]
            r2 = s * s / v
            if r2 > _NEARLY_PERFECT:
                inexact[j] = True
            rest = max(1.0 - r2, 0.0)
            beta[j, t] = s / v
            se[j, t] = math.sqrt(rest / (df * v))
            t_value = s / math.sqrt(v) * math.sqrt(df / rest) if rest > 0.0 else np.inf
            log10p[j, t] = log10_p(t_value, df, constant)


@njit(nogil=True, cache=True)
def complete_case_statistics(  # type: ignore[no-untyped-def]
    packed, rows, products, squares, basis, traits, beta, se, log10p, counts
):
    """Redo the variants ``rows``, each on the samples that have its genotype (spec 5.1, "drop").

    ``basis`` (N, p) has the constant; ``products`` are those of `linear_statistics`. Sums over the
    samples that are missing are taken off those over all: no variant is fitted anew.
    """
    n_samples, p = basis.shape
    n_traits = traits.shape[1]
    gram, cross = np.zeros((p, p)), np.zeros((p, n_traits))
    left, u, w = np.zeros(n_traits), np.zeros(p), np.zeros(p)
    for j in rows:
        missing = 0
        gram[:] = 0.0
        cross[:] = 0.0
        left[:] = 1.0
        for i in range(p):
            gram[i, i] = 1.0
        for i in range(n_samples):
            if (packed[j, i >> 2] >> (2 * (i & 3))) & 3 != 1:
                continue
            missing += 1
            for a in range(p):
                for b in range(a + 1):
                    gram[a, b] -= basis[i, a] * basis[i, b]
                for t in range(n_traits):
                    cross[a, t] -= basis[i, a] * traits[i, t]
            for t in range(n_traits):
                left[t] -= traits[i, t] ** 2
        counts[j] = n_samples - missing
        df = float(n_samples - missing - p - 1)
        u[0] = 0.0  # the genotype is centred at its mean over the samples that have it
        for a in range(1, p):
            u[a] = products[j, a - 1]
        usable = df > 0 and _factorise(gram)
        v = squares[j]
        if usable:
            _solve(gram, u, w)
            for a in range(p):
                v -= w[a] * w[a]
        if not (usable and v > COLLINEAR * squares[j]):
            beta[j] = np.nan
            se[j] = np.nan
            log10p[j] = np.nan
            continue
        constant = log_gamma_step(0.5 * df)
        for t in range(n_traits):
            s, rest = products[j, p - 1 + t], left[t]
            _solve(gram, cross[:, t], u)
            for a in range(p):
                s -= w[a] * u[a]
                rest -= u[a] * u[a]
            beta[j, t] = s / v
            residual = max(rest - s * s / v, 0.0)
            se[j, t] = math.sqrt(residual / (df * v))
            t_value = beta[j, t] / se[j, t] if se[j, t] > 0.0 else np.inf
            log10p[j, t] = log10_p(t_value, df, constant)


@njit(nogil=True, cache=True)
def _factorise(a):  # type: ignore[no-untyped-def]
    """Cholesky factor of a matrix that is the identity less something, in its lower triangle."""
    for i in range(a.shape[0]):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            if i == j:
                if total < _DEPENDENT:
                    return False
                a[i, i] = math.sqrt(total)
            else:
                a[i, j] = total / a[j, j]
    return True


@njit(nogil=True, cache=True)
def _solve(factor, b, out):  # type: ignore[no-untyped-def]
    """Solve ``L out = b``."""
    for i in range(b.shape[0]):
        total = b[i]
        for k in range(i):
            total -= factor[i, k] * out[k]
        out[i] = total / factor[i, i]


@njit(nogil=True, cache=True)
def prune_block(squares, numbers, first, frequencies, alive, n_old, limit):  # type: ignore[no-untyped-def]
    """Clear ``alive`` of variants that correlate with a commoner one of their window.

    ``numbers`` are the kept variants before the block (``n_old``) and those of the block, whose
    squared correlations with all of them are ``squares`` (block, all). The window of variant b of
    the block begins at the variant number ``first[b]``.
    """
    for b in range(squares.shape[0]):
        own = n_old + b
        if not alive[own]:
            continue
        for other in range(own):
            if not alive[other] or numbers[other] < first[b] or squares[b, other] <= limit:
                continue
            if frequencies[own] > frequencies[other]:
                alive[other] = False
            else:
                alive[own] = False
                break


@njit(nogil=True, cache=True)
def mixed_statistics(products, squares, left, p, df, beta, se, log10p):  # type: ignore[no-untyped-def]
    """Fill slopes, errors and p-values of weighted regressions (spec 5.2).

    For every trait ``products`` (n, T (p + 1)) holds those of the weighted genotype with a basis of
    the weighted covariates and with the residual trait, ``squares`` (n, T) its square, and ``left``
    (T,) the square of the residual trait. A variant that the covariates explain stays NaN.
    """
    constant = log_gamma_step(0.5 * df)
    for j in range(squares.shape[0]):
        for t in range(squares.shape[1]):
            base = t * (p + 1)
            v = squares[j, t]
            for c in range(p):
                v -= products[j, base + c] ** 2
            if not v > _WEIGHTED_COLLINEAR * squares[j, t]:
                continue
            s = products[j, base + p]
            rest = max(left[t] - s * s / v, 0.0)
            beta[j, t] = s / v
            se[j, t] = math.sqrt(rest / (df * v))
            t_value = beta[j, t] / se[j, t] if se[j, t] > 0.0 else np.inf
            log10p[j, t] = log10_p(t_value, df, constant)


@njit(nogil=True, cache=True)
def exact_hardy_weinberg(n0, n1, n2, mid_p, out):  # type: ignore[no-untyped-def]
    """Fill p-values; see `plait.gwas.hardy_weinberg`."""
    for j in range(n0.shape[0]):
        observed = n1[j]
        n = n0[j] + observed + n2[j]
        rare = 2 * min(n0[j], n2[j]) + observed
        if rare == 0:
            out[j] = 1.0
            continue
        mode = rare * (2 * n - rare) // (2 * n)
        mode += (mode ^ rare) & 1
        # Relative to P(mode) = 1: first the one that was observed, then the sums.
        p_observed = 1.0
        h = mode
        while h < observed:
            a = (rare - h) // 2
            p_observed *= 4.0 * a * (n - h - a) / ((h + 2.0) * (h + 1.0))
            h += 2
        while h > observed:
            a = (rare - h) // 2
            p_observed *= h * (h - 1.0) / (4.0 * (a + 1.0) * (n - h - a + 1.0))
            h -= 2
        limit = p_observed * _AS_LIKELY
        total, tail, ties = 0.0, 0.0, 0.0
        for direction in range(2):
            p = 1.0
            h = mode
            first = True
            while True:
                if not (first and direction == 1):  # the mode itself once
                    total += p
                    if p <= limit:
                        tail += p
                        if p * _AS_LIKELY >= p_observed:
                            ties += p
                first = False
                a = (rare - h) // 2
                b = n - h - a
                if direction == 0:
                    if a == 0 or b == 0:
                        break
                    p *= 4.0 * a * b / ((h + 2.0) * (h + 1.0))
                    h += 2
                else:
                    if h < 2:
                        break
                    p *= h * (h - 1.0) / (4.0 * (a + 1.0) * (b + 1.0))
                    h -= 2
                if p < _NEGLIGIBLE * p_observed and p < _NEGLIGIBLE * total:
                    break
        out[j] = min((tail - 0.5 * ties if mid_p else tail) / total, 1.0)
