"""Compiled loops of the scan of several environments: arrays in, arrays out.

Notation (per variant, of N samples): D (N, k) holds the centred genotype and its products with the
q = k - 1 environments, covariates projected out; ``A = D^T D``.
"""

import math

import numpy as np

from plait.gwas.interaction_kernels import SAMPLES, weigh
from plait.gwas.kernels import COLLINEAR
from plait.numerics.compiled import njit
from plait.numerics.fisher_kernels import log10_f
from plait.numerics.student_kernels import log_gamma_step

_NO_LEVERAGE_LEFT = 1e-6


@njit(nogil=True, cache=True)
def environment_statistics(  # type: ignore[no-untyped-def]
    products, squares, p, df, slopes, covariances, interaction, joint, left_of_trait
):
    """Fill slopes, their covariances and log10 p-values of unit traits.

    ``products`` (n, k (p + T)) holds those of the columns of D, before covariates are projected
    out, with the basis of the covariates and with the traits, column by column; ``squares``
    (n, k (k + 1) / 2) the lower triangle of their products with one another. ``slopes`` is
    (n, T, k), ``covariances`` (n, T, k, k); ``interaction`` and ``joint`` (n, T) are of F tests of
    the last q and of all k slopes, and ``left_of_trait`` (n, T) the squared lengths that these
    leave. What cannot be told from the covariates, or from the columns before it, stays NaN.
    """
    n, n_traits, k = slopes.shape
    width = p + n_traits
    q = k - 1
    constant = log_gamma_step(0.5 * df)
    L = np.zeros((k, k))
    inverse = np.zeros((k, k))
    z = np.zeros(k)
    for j in range(n):
        _gram(products[j], squares[j], p, width, L)
        if not _factor(L, squares[j], COLLINEAR):
            continue
        _invert_factor(L, inverse)
        for t in range(n_traits):
            explained = 0.0
            for a in range(k):
                value = products[j, a * width + p + t]
                for b in range(a):
                    value -= L[a, b] * z[b]
                z[a] = value / L[a, a]
                explained += z[a] ** 2
            rest = max(1.0 - explained, 0.0)
            left_of_trait[j, t] = rest
            for a in range(k):
                slopes[j, t, a] = 0.0
                for b in range(a, k):
                    slopes[j, t, a] += inverse[b, a] * z[b]
                for b in range(a + 1):
                    value = 0.0
                    for c in range(a, k):
                        value += inverse[c, a] * inverse[c, b]
                    covariances[j, t, a, b] = covariances[j, t, b, a] = rest / df * value
            changes = explained - z[0] ** 2
            if rest > 0.0:
                interaction[j, t] = log10_f(changes / rest, q, df, constant)
                joint[j, t] = log10_f(explained / rest, k, df, constant)
            else:
                interaction[j, t] = joint[j, t] = -np.inf


@njit(nogil=True, cache=True)
def robust_environments(  # type: ignore[no-untyped-def]
    genotypes, environments, basis, traits, products, squares, slopes, covariances,
    interaction, joint,
):  # fmt: skip
    """Replace covariances and tests by those that unequal variances do not disturb (HC3).

    ``A^-1 D^T diag(e^2 / (1 - l)^2) D A^-1``, as in `plait.gwas.interaction_kernels`. Tests are
    Hotelling's T^2 with Zhang's degrees of freedom (Pustejovsky and Tipton 2018, Journal of
    Business and Economic Statistics 36): that of q slopes is F with q and ``d - q + 1``, scaled by
    ``(d - q + 1) / (q d)``, where a Wishart matrix of d degrees of freedom varies as the estimated
    covariance does where variances are equal: ``d = q (q + 1) / sum of Var(v_st)``. With one slope
    that is Bell and McCaffrey's. Where no degree is left the test is NaN.
    """
    n, n_traits, k = slopes.shape
    n_samples, p = basis.shape
    L = np.zeros((k, k))
    inverse = np.zeros((k, k))
    D = np.empty((n_samples, k))
    room = np.empty(n_samples)
    for j in range(n):
        if np.isnan(slopes[j, 0, 0]):
            continue
        _gram(products[j], squares[j], p, p + n_traits, L)
        _factor(L, squares[j], 0.0)
        _invert_factor(L, inverse)
        given = genotypes[j], environments, basis, products[j], p + n_traits
        if not _columns(*given, inverse, D, room):
            slopes[j], covariances[j] = np.nan, np.nan
            interaction[j], joint[j] = np.nan, np.nan
            continue
        # In the orthonormal columns D L^-T, whose slopes are L^T of those of D.
        d_interaction = _wishart_degrees(basis, D, room, 1)
        d_joint = _wishart_degrees(basis, D, room, 0)
        for t in range(n_traits):
            z = np.zeros(k)
            for a in range(k):
                for b in range(a, k):
                    z[a] += L[b, a] * slopes[j, t, b]
            V = _meat(D, room, traits[:, t], z)
            # The last q of z are the changes in coordinates of their own.
            interaction[j, t] = _hotelling(z[1:], V[1:, 1:], d_interaction)
            joint[j, t] = _hotelling(z, V, d_joint)
            _back(V, inverse, covariances[j, t])


@njit(nogil=True, cache=True)
def _gram(products, squares, p, width, A):  # type: ignore[no-untyped-def]
    """Fill the lower triangle of ``D^T D``, covariates projected out."""
    place = 0
    for a in range(A.shape[0]):
        for b in range(a + 1):
            value = squares[place]
            for c in range(p):
                value -= products[a * width + c] * products[b * width + c]
            A[a, b] = value
            place += 1


@njit(nogil=True, cache=True)
def _factor(A, squares, least):  # type: ignore[no-untyped-def]
    """Factor ``A = L L^T`` in place; False where a column is less than ``least`` its own."""
    k = A.shape[0]
    place = -1
    for a in range(k):
        place += a + 1
        for b in range(a):
            value = A[a, b]
            for c in range(b):
                value -= A[a, c] * A[b, c]
            A[a, b] = value / A[b, b]
        left = A[a, a]
        for c in range(a):
            left -= A[a, c] ** 2
        if not left > least * squares[place]:
            return False
        A[a, a] = math.sqrt(left)
    return True


@njit(nogil=True, cache=True)
def _invert_factor(L, inverse):  # type: ignore[no-untyped-def]
    """Fill ``L^-1``, lower."""
    k = L.shape[0]
    for b in range(k):
        inverse[b, b] = 1.0 / L[b, b]
        for a in range(b + 1, k):
            value = 0.0
            for c in range(b, a):
                value -= L[a, c] * inverse[c, b]
            inverse[a, b] = value / L[a, a]


@njit(nogil=True, cache=True)
def _columns(  # type: ignore[no-untyped-def]
    genotype, environments, basis, products, width, inverse, D, room
):
    """Fill the orthonormal columns ``D L^-T`` and ``1 - l``; False where a sample is fitted."""
    n_samples, p = basis.shape
    k = D.shape[1]
    raw = np.empty(k)
    for i in range(n_samples):
        leverage = 0.0
        for c in range(p):
            leverage += basis[i, c] ** 2
        for a in range(k):
            raw[a] = genotype[i] * (environments[i, a - 1] if a else 1.0)
            for c in range(p):
                raw[a] -= basis[i, c] * products[a * width + c]
        for a in range(k):
            value = 0.0
            for b in range(a + 1):
                value += inverse[a, b] * raw[b]
            D[i, a] = value
            leverage += value**2
        room[i] = 1.0 - leverage
        if room[i] < _NO_LEVERAGE_LEFT:
            return False
    return True


@njit(nogil=True, cache=True)
def _meat(D, room, trait, z):  # type: ignore[no-untyped-def]
    """Return ``D^T diag(e^2 / (1 - l)^2) D`` of orthonormal columns."""
    k = D.shape[1]
    V = np.zeros((k, k))
    for i in range(D.shape[0]):
        e = trait[i]
        for a in range(k):
            e -= D[i, a] * z[a]
        weight = (e / room[i]) ** 2
        for a in range(k):
            for b in range(a + 1):
                V[a, b] += weight * D[i, a] * D[i, b]
    for a in range(k):
        for b in range(a):
            V[b, a] = V[a, b]
    return V


@njit(nogil=True, cache=True)
def _back(V, inverse, out):  # type: ignore[no-untyped-def]
    """Fill ``L^-T V L^-1``."""
    k = V.shape[0]
    for a in range(k):
        for b in range(a + 1):
            value = 0.0
            for c in range(a, k):
                for d in range(b, k):
                    value += inverse[c, a] * V[c, d] * inverse[d, b]
            out[a, b] = out[b, a] = value


@njit(nogil=True, cache=True)
def _wishart_degrees(basis, D, room, first):  # type: ignore[no-untyped-def]
    """Return Zhang's degrees of freedom of the slopes from ``first`` on.

    The estimate is ``sum_i u_i u_i^T e_i^2`` with ``u_i = S^(-1/2) d_i / (1 - l_i)``, S its mean
    with unit errors. Of residuals ``R = I - H``, the sum of its variances is ``2 sum_ij R_ij^2
    (u_i^T u_j)^2``. ``H = X X^T`` is that of the covariates and of D, X their orthonormal columns,
    so that one pass over the samples is enough: ``sum_ij H_ij^2 u_is u_it u_js u_jt`` is ``|X^T
    diag(u_s u_t) X|^2``, for N (p + k)^2 q (q + 1) flops.
    """
    n_samples, k = D.shape
    q = k - first
    S = np.zeros((q, q))
    for i in range(n_samples):
        for a in range(q):
            for b in range(a + 1):
                S[a, b] += D[i, first + a] * D[i, first + b] / room[i]
    _factor(S, np.zeros(q * (q + 1) // 2), 0.0)
    inverse = np.zeros((q, q))
    _invert_factor(S, inverse)
    n_u, p = q * (q + 1) // 2, basis.shape[1]
    width = p + k
    X, weighted = np.zeros((width, SAMPLES)), np.zeros((n_u * width, SAMPLES))
    part, moments = np.empty((width, n_u * width)), np.zeros((width, n_u * width))
    u, pairs, weights = np.empty(q), np.empty(n_u), np.zeros((n_u, SAMPLES))
    spread = 0.0
    for i in range(n_samples):
        length = 0.0
        for a in range(q):
            u[a] = 0.0
            for b in range(a + 1):
                u[a] += inverse[a, b] * D[i, first + b]
            u[a] /= room[i]
            length += u[a] ** 2
        spread += length**2 * (room[i] ** 2 - (1.0 - room[i]) ** 2)
        _pairs(u, pairs)
        place = i % SAMPLES
        for c in range(p):
            X[c, place] = basis[i, c]
        for a in range(k):
            X[p + a, place] = D[i, a]
        for a in range(n_u):
            weights[a, place] = pairs[a]
        if place == SAMPLES - 1 or i == n_samples - 1:
            weights[:, place + 1 :] = 0.0
            weigh(X, weights, weighted)
            np.dot(X, weighted.T, part)
            moments += part
    for value in moments.flat:
        spread += value**2
    return q * (q + 1) / (2.0 * spread) if spread > 0.0 else 0.0


@njit(nogil=True, cache=True)
def _pairs(values, out):  # type: ignore[no-untyped-def]
    """Fill the products of pairs, scaled so that those of two vectors give their square."""
    place = 0
    for a in range(values.shape[0]):
        for b in range(a):
            out[place] = math.sqrt(2.0) * values[a] * values[b]
            place += 1
        out[place] = values[a] ** 2
        place += 1


@njit(nogil=True, cache=True)
def _hotelling(z, V, degrees):  # type: ignore[no-untyped-def]
    """Return log10 p of ``z^T V^-1 z``, a Hotelling's T^2 of these degrees of freedom."""
    q = z.shape[0]
    df = degrees - q + 1.0
    factor = V.copy()
    if not df > 0.0 or not _factor(factor, np.zeros(q * (q + 1) // 2), 0.0):
        return np.nan
    total = 0.0
    x = np.empty(q)
    for a in range(q):
        value = z[a]
        for b in range(a):
            value -= factor[a, b] * x[b]
        x[a] = value / factor[a, a]
        total += x[a] ** 2
    return log10_f(total / degrees, q, df, log_gamma_step(0.5 * df))
