"""Compiled loops of the association scan: arrays in, arrays out.

Notation (per variant, in a group of traits measured on the same N samples): g is the centred
genotype, 0 where missing; Q an orthonormal basis of the covariates, the constant first; y a
residual trait of length 1. ``u = Q^T g``, ``s = y^T g``, ``v = g^T g - u^T u``.
"""

import math

import numpy as np

from plait.numerics.compiled import njit
from plait.numerics.student_kernels import (
    log10_p,
    log_gamma_step,
    table_of_log10_p,
    tabulated_log10_p,
)

COLLINEAR = 1e-6
"""Share of a genotype's variation that covariates must leave for it to be tested."""
TESTED, EXPLAINED, CONSTANT_TRAIT, PERFECT = 0, 1, 2, 3
"""Why a test has no result: nothing is left of the variant, of the trait, or of its errors."""
MUCH_EXPLAINED = 1e-2
"""Share left below which single precision is not enough."""
_AS_LIKELY = 1.0 + 1e-7
_NEGLIGIBLE = 1e-20


@njit(nogil=True, cache=True)
def linear_statistics(  # type: ignore[no-untyped-def]
    products, squares, n_covariates, df, least, beta, se, log10p, reasons, inexact
):
    """Fill slopes, their errors and p-values of traits of length 1.

    ``products`` (n, covariates without the constant + traits) holds u and s. A variant that the
    covariates explain stays NaN, with `EXPLAINED` in ``reasons`` (n, T). ``inexact`` marks
    variants of which covariates leave less than the share ``least``, or that leave less than that
    of a trait: differences of products are then too rough.
    """
    n_traits = beta.shape[1]
    constant = log_gamma_step(0.5 * df)
    table = table_of_log10_p(df)
    for j in range(products.shape[0]):
        explained = 0.0
        for c in range(n_covariates):
            explained += products[j, c] ** 2
        v = squares[j] - explained
        inexact[j] = v < least * squares[j]
        if not v > COLLINEAR * squares[j]:
            beta[j] = np.nan
            se[j] = np.nan
            log10p[j] = np.nan
            reasons[j] = EXPLAINED
            continue
        for t in range(n_traits):
            s = products[j, n_covariates + t]
            rest = max(1.0 - s * s / v, 0.0)
            if rest < least:
                inexact[j] = True
            beta[j, t] = s / v
            se[j, t] = math.sqrt(rest / (df * v))
            t_value = s / math.sqrt(v) * math.sqrt(df / rest) if rest > 0.0 else np.inf
            log10p[j, t] = tabulated_log10_p(t_value, df, constant, table)


@njit(nogil=True, cache=True)
def complete_case_statistics(  # type: ignore[no-untyped-def]
    is_missing, rows, products, squares, basis, traits, least,
    beta, se, log10p, counts, reasons, inexact,
):  # fmt: skip
    """Redo the variants ``rows``, each on the samples that have its genotype ("drop").

    ``is_missing`` (rows, N) says which have not; ``basis`` (N, p) has the constant; the others are
    those of `linear_statistics`. Sums over the samples that are missing are taken off those over
    all: no variant is fitted anew. Where less than ``least`` is left of the length of a column of
    the basis, of the variant or of a trait, squared, that is too rough too: ``inexact`` says so,
    and what stands in the other outputs is without meaning.
    """
    n_samples, p = basis.shape
    n_traits = traits.shape[1]
    gram, cross = np.zeros((p, p)), np.zeros((p, n_traits))
    left, u, w = np.zeros(n_traits), np.zeros(p), np.zeros(p)
    for k in range(rows.shape[0]):
        j = rows[k]
        missing = _take_off(is_missing[k], basis, traits, gram, cross, left)
        counts[j] = n_samples - missing
        df = float(n_samples - missing - p - 1)
        if not (df > 0 and squares[j] > 0.0):
            beta[j] = np.nan
            se[j] = np.nan
            log10p[j] = np.nan
            reasons[j] = EXPLAINED
            inexact[j] = False
            continue
        u[0] = 0.0  # the genotype is centred at its mean over the samples that have it
        for a in range(1, p):
            u[a] = products[j, a - 1]
        inexact[j] = not _factorise(gram, least)
        if inexact[j]:
            continue
        _solve(gram, u, w)
        v = squares[j]
        for a in range(p):
            v -= w[a] * w[a]
        inexact[j] = v < least * squares[j]
        if inexact[j]:
            continue
        reasons[j] = TESTED
        constant = log_gamma_step(0.5 * df)
        for t in range(n_traits):
            s, rest = products[j, p - 1 + t], left[t]
            _solve(gram, cross[:, t], u)
            for a in range(p):
                s -= w[a] * u[a]
                rest -= u[a] * u[a]
            residual = rest - s * s / v
            if rest < least or residual < least * rest:
                inexact[j] = True
                break
            beta[j, t] = s / v
            se[j, t] = math.sqrt(residual / (df * v))
            log10p[j, t] = log10_p(beta[j, t] / se[j, t], df, constant)


@njit(nogil=True, cache=True)
def left_of_traits(is_missing, basis, traits, least, lengths, inexact):  # type: ignore[no-untyped-def]
    """Fill what covariates leave of traits of length 1, squared, on the samples with a genotype.

    ``lengths`` (rows, T) and ``inexact`` (rows,) are for the rows of ``is_missing`` (rows, N); see
    `complete_case_statistics`.
    """
    p, n_traits = basis.shape[1], traits.shape[1]
    gram, cross = np.zeros((p, p)), np.zeros((p, n_traits))
    left, u = np.zeros(n_traits), np.zeros(p)
    for k in range(is_missing.shape[0]):
        _take_off(is_missing[k], basis, traits, gram, cross, left)
        inexact[k] = not _factorise(gram, least)
        if inexact[k]:
            continue
        for t in range(n_traits):
            _solve(gram, cross[:, t], u)
            lengths[k, t] = left[t]
            for a in range(p):
                lengths[k, t] -= u[a] * u[a]
            if lengths[k, t] < least:
                inexact[k] = True


@njit(nogil=True, cache=True)
def _take_off(is_missing, basis, traits, gram, cross, left):  # type: ignore[no-untyped-def]
    """Fill products of the basis and of traits over the samples not missing; count the others."""
    p, n_traits = cross.shape
    missing = 0
    gram[:] = 0.0
    cross[:] = 0.0
    left[:] = 1.0
    for i in range(p):
        gram[i, i] = 1.0
    for i in range(is_missing.shape[0]):
        if not is_missing[i]:
            continue
        missing += 1
        for a in range(p):
            for b in range(a + 1):
                gram[a, b] -= basis[i, a] * basis[i, b]
            for t in range(n_traits):
                cross[a, t] -= basis[i, a] * traits[i, t]
        for t in range(n_traits):
            left[t] -= traits[i, t] ** 2
    return missing


@njit(nogil=True, cache=True)
def _factorise(a, least):  # type: ignore[no-untyped-def]
    """Cholesky factor of the identity less something, in its lower triangle.

    False where less than ``least`` is left of a diagonal element.
    """
    for i in range(a.shape[0]):
        for j in range(i + 1):
            total = a[i, j]
            for k in range(j):
                total -= a[i, k] * a[j, k]
            if i == j:
                if total < least:
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
