"""Compiled loops of the scan of cases and controls: arrays in, arrays out.

Notation (per variant and trait): g copies of the rarer allele, mu the probabilities without
variants, ``w = mu (1 - mu)``, L the covariates, orthonormal in the metric of w, the constant first,
``u = L^T w g``, ``s = g^T (y - mu)``, ``v = g^T w g - u^T u``.
"""

import math

import numpy as np

from plait.gwas.kernels import COLLINEAR, MUCH_EXPLAINED
from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import log_normal_tail, log_two_sided

_FARTHEST = 16.0
_SPACING = 0.25
N_SHIFTS = int(2.0 * _FARTHEST / _SPACING) + 1
"""Shifts of log odds, from -16 to 16, at which totals over all samples are tabulated."""
_LONGEST_STEP = 2.0
_STEPS = 500
_AT_REST = 1e-8
_LOG_2 = math.log(2.0)
_LOG_10 = math.log(10.0)


@njit(nogil=True, cache=True)
def score_statistics(products, squares, p, cut, beta, se, log10p, again):  # type: ignore[no-untyped-def]
    """Fill one-step effects, errors and normal p-values of logistic score tests.

    For every trait ``products`` (n, T (p + 1)) holds those of the genotype with the weighted
    covariates and with the residuals, ``squares`` (n, T) its weighted square. ``again`` marks what
    `saddlepoint_statistics` is to do: statistics beyond ``cut``, and where single precision is not
    enough.
    """
    for j in range(squares.shape[0]):
        for t in range(squares.shape[1]):
            base = t * (p + 1)
            v = squares[j, t]
            for c in range(p):
                v -= products[j, base + c] ** 2
            again[j, t] = v < MUCH_EXPLAINED * squares[j, t]
            if not v > 0.0:
                continue
            s = products[j, base + p]
            z = abs(s) / math.sqrt(v)
            again[j, t] |= z > cut
            beta[j, t] = s / v
            se[j, t] = 1.0 / math.sqrt(v)
            log10p[j, t] = min((_LOG_2 + log_normal_tail(z)) / _LOG_10, 0.0)


@njit(nogil=True, cache=True)
def totals_of_shifted(probabilities, totals):  # type: ignore[no-untyped-def]
    """Fill sums over all samples of mu, and its first three derivatives, at shifted log odds.

    ``probabilities`` (T, N); ``totals`` (T, `N_SHIFTS`, 4).
    """
    for t in range(probabilities.shape[0]):
        for k in range(N_SHIFTS):
            lowered = math.exp(_FARTHEST - k * _SPACING)
            sums = totals[t, k]
            sums[:] = 0.0
            for i in range(probabilities.shape[1]):
                p = probabilities[t, i]
                m = p / (p + (1.0 - p) * lowered)
                w = m * (1.0 - m)
                sums[0] += m
                sums[1] += w
                sums[2] += w * (1.0 - 2.0 * m)
                sums[3] += w * (1.0 - 6.0 * w)


@njit(nogil=True, cache=True)
def saddlepoint_statistics(  # type: ignore[no-untyped-def]
    copies, signs, rows, loadings, probabilities, residuals, totals, cut, beta, se, log10p, again
):
    """Do the tests marked in ``again`` in double precision; beyond cut, in full.

    In full is the saddlepoint's p-value and the penalised estimate of `firth_slope`, with an error
    that goes with that p-value left to the caller: ``again`` marks these afterwards. Of the
    variants ``rows``, ``copies`` (rows, N) are those of the rarer allele and ``signs`` 1 where that
    is the effect allele, else -1. ``loadings`` are (T, N, p), ``probabilities`` and ``residuals``
    (T, N), ``totals`` those of `totals_of_shifted`. Samples without the rarer allele enter sums by
    what is known of all (Dey et al. 2017), so that a rare variant costs what its carriers cost.
    """
    n_traits, n_samples, p = loadings.shape
    terms, chances, outcomes = np.empty((3, n_samples))
    carriers = np.empty(n_samples, dtype=np.int64)
    u = np.empty(p)
    for row in range(rows.shape[0]):
        j, sign, g = rows[row], signs[row], copies[row]
        n_carriers = 0
        for i in range(n_samples):
            if g[i] != 0.0:
                carriers[n_carriers] = i
                n_carriers += 1
        sparse = 2 * n_carriers < n_samples
        for t in range(n_traits):
            if not again[j, t]:
                continue
            again[j, t] = False
            score, total = _weighted_sums(
                g, carriers, n_carriers, loadings[t], probabilities[t], residuals[t], u
            )
            v = total - np.sum(u * u)
            if not v > COLLINEAR * (total - u[0] * u[0]):
                beta[j, t], se[j, t], log10p[j, t] = np.nan, np.nan, np.nan
                continue
            z = abs(score) / math.sqrt(v)
            beta[j, t] = sign * score / v
            se[j, t] = 1.0 / math.sqrt(v)
            log10p[j, t] = min((_LOG_2 + log_normal_tail(z)) / _LOG_10, 0.0)
            if not z > cut:
                continue
            followed = n_carriers if sparse else n_samples
            mean = loadings[t, 0, 0] * u[0]
            rest, others = _follow(
                g, carriers, followed, sparse, mean, u,
                loadings[t], probabilities[t], residuals[t], terms, chances, outcomes,
            )  # fmt: skip
            used = terms[:followed], chances[:followed]
            extra = max(v - rest, 0.0) if sparse else 0.0
            log_p = log_two_sided(score, *used, extra)
            if log_p > -np.inf:
                log10p[j, t] = log_p / _LOG_10
            beta[j, t] = sign * firth_slope(
                *used, outcomes[:followed], mean, sparse, others, totals[t]
            )
            again[j, t] = True


@njit(nogil=True, cache=True)
def _weighted_sums(copies, carriers, n_carriers, loadings, probabilities, residuals, u):  # type: ignore[no-untyped-def]
    """Return score and weighted square of a genotype; fill its products with the covariates."""
    u[:] = 0.0
    score, total = 0.0, 0.0
    for k in range(n_carriers):
        i = carriers[k]
        g = copies[i]
        weighted = g * probabilities[i] * (1.0 - probabilities[i])
        score += g * residuals[i]
        total += g * weighted
        for c in range(u.shape[0]):
            u[c] += weighted * loadings[i, c]
    return score, total


@njit(nogil=True, cache=True)
def _follow(  # type: ignore[no-untyped-def]
    copies, carriers, followed, sparse, mean, u,
    loadings, probabilities, residuals, terms, chances, outcomes,
):  # fmt: skip
    """Fill genotypes less covariates, probabilities and outcomes of the samples to be followed.

    Return their part of v, and the sums over the others that `firth_slope` takes.
    """
    variance, linear, square, slope = 0.0, 0.0, np.sum(u[1:] * u[1:]), 0.0
    for k in range(followed):
        i = carriers[k] if sparse else k
        left, chance = copies[i], probabilities[i]
        for c in range(u.shape[0]):
            left -= loadings[i, c] * u[c]
        terms[k], chances[k], outcomes[k] = left, chance, chance + residuals[i]
        w, explained = chance * (1.0 - chance), copies[i] - mean - left
        variance += left * left * w
        linear += w * explained
        square -= w * explained * explained
        slope += residuals[i] * explained
    return variance, (linear, max(square, 0.0), slope)


@njit(nogil=True, cache=True)
def firth_slope(terms, chances, outcomes, mean, sparse, others, totals):  # type: ignore[no-untyped-def]
    """Return the slope b of ``logit P = null + a + b x``, with Firth's penalty on a and b.

    x is g less what the covariates but the constant explain of it, h: ``terms`` of the samples
    that are followed (the carriers if ``sparse``, else all) plus ``mean``; it is -h in the others.
    The covariates' effects stay as they are in the null predictor; the constant does not, since
    with a common allele and a large effect the others' risk falls as that of carriers rises.

    The others are known by sums. Of h, which is small in them, the sums go to second order with
    weights and probabilities that move with a as their totals do (exact for rare cases): ``others``
    holds ``- sum w h``, ``sum w h^2`` and ``- sum h (y - mu)`` over them. Penalised scores are
    those of Firth (1993, Biometrika 80): ``sum (y - m + l (1/2 - m)) x`` with leverages l.
    """
    widest, n_cases = 0.0, totals[N_SHIFTS // 2, 0]
    cases_elsewhere = n_cases
    for k in range(terms.shape[0]):
        widest = max(widest, abs(terms[k] + mean))
        cases_elsewhere -= outcomes[k]
    longest = limit = _LONGEST_STEP / widest
    a, b, before = 0.0, 0.0, 0.0
    known = terms, chances, outcomes, mean, sparse, others, totals, n_cases, cases_elsewhere
    for _ in range(_STEPS):
        found, step_a, step_b = _penalised_step(a, b, *known)
        if not found:
            break
        # Where the likelihood is flat a full step goes far beyond, and the next one back.
        limit = 0.5 * limit if before * step_b < 0.0 else min(2.0 * limit, longest)
        scale = min(1.0, limit / max(abs(step_b), 1e-300), _LONGEST_STEP / max(abs(step_a), 1e-300))
        before, moved = scale * step_b, scale * step_a
        if sparse:
            moved = min(max(a + moved, -_FARTHEST), _FARTHEST) - a
        a += moved
        b += before
        if abs(step_b) * widest < _AT_REST and (abs(step_a) < _AT_REST or moved == 0.0):
            break
    return b


@njit(nogil=True, cache=True)
def _penalised_step(  # type: ignore[no-untyped-def]
    a, b, terms, chances, outcomes, mean, sparse, others, totals, n_cases, cases_elsewhere
):
    """Return whether a and b can be told apart, and the full step of both to the penalised root.

    Inputs as in `firth_slope`, with the cases among all samples and among those not followed.
    """
    score_a, score_b, i_aa, i_ab, i_bb = 0.0, 0.0, 0.0, 0.0, 0.0
    bend0, bend1, bend2, bend3 = 0.0, 0.0, 0.0, 0.0
    if sparse:
        linear, square, slope = others
        t0, i_aa, t2 = _totals_at(a, totals)
        weight = totals[N_SHIFTS // 2, 1]
        growth, rise = i_aa / weight, (t0 - n_cases) / weight
        score_a = cases_elsewhere - t0 - b * growth * linear
        score_b = slope - rise * linear - b * growth * square
        i_ab, i_bb, bend0 = growth * linear, growth * square, 0.5 * t2
    lowered = math.exp(-a)
    for k in range(terms.shape[0]):
        x, p, y = terms[k] + mean, chances[k], outcomes[k]
        m = p / (p + (1.0 - p) * math.exp(-a - b * x))
        w = m * (1.0 - m)
        bend = w * (0.5 - m)
        score_a += y - m
        score_b += x * (y - m)
        i_aa += w
        i_ab += w * x
        i_bb += w * x * x
        bend0 += bend
        bend1 += bend * x
        bend2 += bend * x * x
        bend3 += bend * x * x * x
        if sparse:  # it is in the totals as one without the allele
            m = p / (p + (1.0 - p) * lowered)
            w = m * (1.0 - m)
            score_a += m
            i_aa -= w
            bend0 -= w * (0.5 - m)
    determinant = i_aa * i_bb - i_ab * i_ab
    if not determinant > 0.0:
        return False, 0.0, 0.0
    v_aa, v_ab, v_bb = i_bb / determinant, -i_ab / determinant, i_aa / determinant
    score_a += v_aa * bend0 + 2.0 * v_ab * bend1 + v_bb * bend2
    score_b += v_aa * bend1 + 2.0 * v_ab * bend2 + v_bb * bend3
    return True, v_aa * score_a + v_ab * score_b, v_ab * score_a + v_bb * score_b


@njit(nogil=True, cache=True)
def _totals_at(a, totals):  # type: ignore[no-untyped-def]
    """Interpolate the totals of a trait at a shift, by cubics."""
    position = (a + _FARTHEST) / _SPACING
    k = min(int(position), N_SHIFTS - 2)
    f = position - k
    low, high = totals[k], totals[k + 1]
    result = np.empty(3)
    for c in range(3):
        change = high[c] - low[c]
        at_low = _SPACING * low[c + 1] - change
        at_high = change - _SPACING * high[c + 1]
        bend = f * (1.0 - f) * ((1.0 - f) * at_low + f * at_high)
        result[c] = low[c] + f * change + bend
    return result[0], result[1], result[2]
