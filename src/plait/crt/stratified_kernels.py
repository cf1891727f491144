"""Compiled loops of analytic p-values under permutation within strata.

Notation of `plait.crt.analytic_kernels`; stratum h has n cells of which m are treated in every
resample, and p is m / n in each of them. Cells come in the order of strata, and only of those that
vary (0 < m < n): cells ``starts[h]:starts[h + 1]`` belong to stratum h.
"""

import math

import numpy as np

from plait.crt.analytic_kernels import (
    BEYOND_SUPPORT,
    FEW_CELLS,
    FEWEST_CELLS,
    LARGEST_SKEWNESS,
    OK,
    PROJECTIONS,
    SECOND_ORDER,
    SKEWED,
)
from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import (
    ANY_ORDER,
    NEAR_MEAN,
    exp_of_negative,
    first_saddlepoint,
    log_sum,
    tail_near_mean,
    tail_of_signed_root,
)

_STEPS = 100
_CONVERGED = 1e-9
_SMALLEST_VARIANCE = 1e-300
_CHUNK = 256
"""Cells of which a product of numbers from 1 to 2 is made: below the largest double."""
_SUMS_OF_STRATUM = 4
_CELLS_NEAR = 1024
"""Cells whose values stay in a core's second cache."""


@njit(nogil=True, cache=True)
def finite_population(sizes, treated, factors):  # type: ignore[no-untyped-def]
    """Write what turns power sums of a stratum into cumulants of the sum of m of its n cells.

    Columns of ``factors`` (strata, 4): the factors of P2 and P3 for the variance and the third
    cumulant, and of P4 and P2^2 for the fourth. With Pk the sums of powers of deviations from the
    mean, the moments of a sample without replacement follow from the chances that 1, 2, 3 and 4
    given cells are in it (``chance``), because ``sum d = 0``.
    """
    chance = np.zeros(5)
    for h in range(sizes.shape[0]):
        n, m = float(sizes[h]), float(treated[h])
        chance[0] = 1.0
        for k in range(4):
            chance[k + 1] = chance[k] * (m - k) / (n - k) if n > k else 0.0
        variance = chance[1] - chance[2]
        factors[h, 0] = variance
        factors[h, 1] = variance * (n - 2.0 * m) / (n - 2.0) if n > 2 else 0.0
        factors[h, 2] = chance[1] - 7.0 * chance[2] + 12.0 * chance[3] - 6.0 * chance[4]
        factors[h, 3] = 3.0 * (chance[2] - 2.0 * chance[3] + chance[4] - variance * variance)


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def centre_by_stratum(values, starts, means):  # type: ignore[no-untyped-def]
    """Subtract each stratum's mean in place, and write it to ``means``."""
    for h in range(starts.shape[0] - 1):
        part = values[starts[h] : starts[h + 1]]
        total = 0.0
        for i in range(part.shape[0]):
            total += part[i]
        means[h] = total / part.shape[0]
        for i in range(part.shape[0]):
            part[i] -= means[h]


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy")
def project_within_strata(  # type: ignore[no-untyped-def]
    p, basis, order, starts, factors, centred, projection, g, means
):
    """Write ``Q'p``, the basis about its means in strata, and ``g = -2 Q_i . Q'p`` likewise.

    ``p`` (N,) of all cells, ``basis`` (columns, N), ``centred`` (columns, cells that vary), ``g``
    (cells that vary,), ``factors`` of `finite_population`. Returns ``E |Q'(x - p)|^2``.
    """
    spread = 0.0
    g[:] = 0.0
    for j in range(basis.shape[0]):
        column, values = basis[j], centred[j]
        u = 0.0
        for i in range(p.shape[0]):
            u += column[i] * p[i]
        projection[j] = u
        for i in range(order.shape[0]):
            values[i] = column[order[i]]
        centre_by_stratum(values, starts, means)
        for i in range(order.shape[0]):
            g[i] -= 2.0 * u * values[i]
        for h in range(starts.shape[0] - 1):
            square = 0.0
            for i in range(starts[h], starts[h + 1]):
                square += values[i] * values[i]
            spread += factors[h, 0] * square
    return spread


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _power_sums(residuals, g, threshold, sums):  # type: ignore[no-untyped-def]
    """Write P2, P3 and P4 of ``r - t g``, then of ``r + t g``, then P2 of r, of one stratum."""
    a2, a3, a4, b2, b3, b4, square = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    for i in range(residuals.shape[0]):
        r, shift = residuals[i], threshold * g[i]
        square += r * r
        d = r - shift
        d2 = d * d
        a2 += d2
        a3 += d2 * d
        a4 += d2 * d2
        d = r + shift
        d2 = d * d
        b2 += d2
        b3 += d2 * d
        b4 += d2 * d2
    sums[0], sums[1], sums[2], sums[3], sums[4], sums[5] = a2, a3, a4, b2, b3, b4
    sums[6] = square


@njit(nogil=True, cache=True)
def stratified_sums(  # type: ignore[no-untyped-def]
    residuals, order, starts, treated, factors, g, thresholds, buffer, sums
):
    """Fill cumulants of ``sum x w`` over the strata that vary, for all programs of one unit.

    ``residuals`` (K, N) float32; ``g`` centred by stratum; ``sums`` (K, `N_SUMS`) as of
    `weighted_sums`: mean and variance of ``sum x r``, then the second to fourth cumulant and
    ``sum (v d^2)^2`` (d the deviation of w from its stratum's mean) for either sign of r.
    """
    powers = np.zeros(7)
    means = np.zeros(treated.shape[0])
    sums[:] = 0.0
    for program in range(residuals.shape[0]):
        row, out = residuals[program], sums[program]
        for i in range(order.shape[0]):
            buffer[i] = row[order[i]]
        centre_by_stratum(buffer, starts, means)
        for h in range(treated.shape[0]):
            begin, end = starts[h], starts[h + 1]
            _power_sums(buffer[begin:end], g[begin:end], thresholds[program], powers)
            n = end - begin
            v = treated[h] / n * (1.0 - treated[h] / n)
            out[0] += treated[h] * means[h]
            out[1] += factors[h, 0] * powers[6]
            for side in range(2):
                p2, p3, p4 = powers[3 * side], powers[3 * side + 1], powers[3 * side + 2]
                sign = 1.0 if side == 0 else -1.0
                out[2 + 4 * side] += factors[h, 0] * p2
                out[3 + 4 * side] += sign * factors[h, 1] * p3
                out[4 + 4 * side] += factors[h, 2] * p4 + factors[h, 3] * p2 * p2
                out[5 + 4 * side] += v * v * p4


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _tilted_chunk(s, shift, d):  # type: ignore[no-untyped-def]
    """Return sums over cells with log odds ``s d + shift`` of treatment, q their probability.

    Of q, q (1 - q), the same times d and d^2, and q d; then a and b of ``sum ln(1 + e^(s d +
    shift)) = a + ln b``.
    """
    total, variance, cross, square, mean = 0.0, 0.0, 0.0, 0.0, 0.0
    linear, product = 0.0, 1.0
    for i in range(d.shape[0]):
        a = s * d[i] + shift
        e = exp_of_negative(-abs(a))
        inverse = 1.0 / (1.0 + e)
        q = inverse if a > 0.0 else e * inverse
        v = e * inverse * inverse
        total += q
        mean += q * d[i]
        variance += v
        cross += v * d[i]
        square += v * d[i] * d[i]
        linear += a if a > 0.0 else 0.0
        product *= 1.0 + e
    return total, variance, cross, square, mean, linear, product


@njit(nogil=True, cache=True, forceinline=True)
def _tilt(s, shifts, d, starts, strata, log_odds, treated):  # type: ignore[no-untyped-def]
    """Fill each stratum's sums (total, variance, cross, square); return ``K - sum m tau`` and K_s.

    ``shifts`` are tau + log odds of p.
    """
    level, mean = 0.0, 0.0
    for h in range(treated.shape[0]):
        strata[h, :] = 0.0
        for start in range(starts[h], starts[h + 1], _CHUNK):
            stop = min(start + _CHUNK, starts[h + 1])
            total, variance, cross, square, part, linear, product = _tilted_chunk(
                s, shifts[h], d[start:stop]
            )
            strata[h, 0] += total
            strata[h, 1] += variance
            strata[h, 2] += cross
            strata[h, 3] += square
            mean += part
            level += linear + math.log(product)
        n = starts[h + 1] - starts[h]
        level += n * math.log1p(-treated[h] / n) - treated[h] * (shifts[h] - log_odds[h])
        strata[h, 1] = max(strata[h, 1], _SMALLEST_VARIANCE)
    return level, mean


@njit(nogil=True, cache=True)
def _newton_step(gap, strata, treated, direction):  # type: ignore[no-untyped-def]
    """Fill the step of all shifts; return that of s, the curvature in s and the decrement."""
    curvature, rest = 0.0, gap
    for h in range(treated.shape[0]):
        variance, cross = strata[h, 1], strata[h, 2]
        curvature += strata[h, 3] - cross * cross / variance
        rest -= cross * (strata[h, 0] - treated[h]) / variance
    if not curvature > 0.0:
        return np.nan, curvature, np.nan
    step = -rest / curvature
    decrement = -gap * step
    for h in range(treated.shape[0]):
        gap_of_stratum = strata[h, 0] - treated[h]
        direction[h] = -(gap_of_stratum + strata[h, 2] * step) / strata[h, 1]
        decrement -= gap_of_stratum * direction[h]
    return step, curvature, decrement


@njit(nogil=True, cache=True, forceinline=True)
def log_tail_within_strata(c, d, starts, treated, variance, skewness, shifts):  # type: ignore[no-untyped-def]
    """Return ``ln P(sum x d >= c)`` given the strata's treated cells (NaN without a root), and s.

    Fills ``shifts`` (strata,): a cell's log odds of treatment under the tilted law are ``s d +
    shift``.

    Skovgaard's (1987) double saddlepoint in Barndorff-Nielsen's form: the minimum of the convex
    ``K(s, tau) - s c - sum tau m`` by Newton's method with halved steps. ``d`` has mean 0 in each
    stratum; ``variance`` and ``skewness`` are those of the sum.
    """
    deviation = math.sqrt(variance)
    z = c / deviation
    if abs(z) < NEAR_MEAN:
        return tail_near_mean(z, skewness), 0.0
    n_strata = treated.shape[0]
    strata = np.zeros((n_strata, _SUMS_OF_STRATUM))
    log_odds, scale = np.zeros(n_strata), 0.0
    for h in range(n_strata):
        n = starts[h + 1] - starts[h]
        log_odds[h] = math.log(treated[h] / (n - treated[h]))
        scale -= math.log(treated[h] * (1.0 - treated[h] / n))
    shifts[:] = log_odds
    direction = np.zeros(n_strata)
    s, step_of_s, length, lowest, decrement = 0.0, 0.0, 1.0, np.inf, 0.0
    trial = first_saddlepoint(z, skewness) / deviation
    trial_shifts = shifts.copy()
    for _ in range(_STEPS):
        level, mean = _tilt(trial, trial_shifts, d, starts, strata, log_odds, treated)
        level -= trial * c
        # Rounding of the sum of so many terms is no increase.
        if not level <= lowest - 1e-4 * length * decrement + 1e-9:
            length *= 0.5
        else:
            s, lowest, length = trial, level, 1.0
            shifts[:] = trial_shifts
            step_of_s, curvature, decrement = _newton_step(mean - c, strata, treated, direction)
            if not math.isfinite(decrement):
                return np.nan, s
            if decrement < _CONVERGED:
                for h in range(n_strata):
                    scale += math.log(strata[h, 1])
                root = (s + step_of_s) * math.sqrt(curvature) * math.exp(0.5 * scale)
                return tail_of_signed_root(0.5 * decrement - lowest, root), s
        trial = s + length * step_of_s
        for h in range(n_strata):
            trial_shifts[h] = shifts[h] + length * direction[h]
    return np.nan, s


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _shifted_projection(s, shift, share, d, column):  # type: ignore[no-untyped-def]
    """One stratum's part of one entry of ``Q'(q - p)``, q the tilted probabilities."""
    total = 0.0
    for i in range(d.shape[0]):
        a = s * d[i] + shift
        e = exp_of_negative(-abs(a))
        q = 1.0 / (1.0 + e) if a > 0.0 else e / (1.0 + e)
        total += (q - share) * column[i]
    return total


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _fill_weights(residuals, sign, t, basis, projection, weights):  # type: ignore[no-untyped-def]
    """Write ``w = sign r - t g`` about its mean in each stratum, ``g = -2 Q_i . projection``."""
    for i in range(weights.shape[0]):
        weights[i] = sign * residuals[i]
    for j in range(basis.shape[0]):
        column, factor = basis[j], 2.0 * t * projection[j]
        for i in range(weights.shape[0]):
            weights[i] += factor * column[i]


@njit(nogil=True, cache=True, forceinline=True)
def _log_tail(  # type: ignore[no-untyped-def]
    residuals, sign, t, mean, starts, treated, basis, projection, level, cumulants, weights
):
    """``ln P(sign S - t D >= 0)`` and whether it is to be trusted.

    D is projected about p, and about the mean q of the tilted law where second order counts:
    ``D = level + |a|^2 - 2 a . Q'x`` with ``a = Q'p`` (``projection``), then ``a = Q'q``; ``mean``
    is that of ``sign S``. ``basis`` and ``residuals`` are of the cells that vary, less their means
    in their strata.
    """
    variance, third = cumulants[0], cumulants[1]
    if abs(third) > LARGEST_SKEWNESS * variance**1.5:
        return np.nan, SKEWED
    if variance * variance < FEWEST_CELLS * cumulants[3]:
        return np.nan, FEW_CELLS
    n_columns = basis.shape[0]
    shifts, about = np.empty(treated.shape[0]), projection.copy()
    log_p = np.nan
    for _ in range(PROJECTIONS):
        square, cross = 0.0, 0.0
        for j in range(n_columns):
            square += about[j] * about[j]
            cross += about[j] * projection[j]
        c = t * (level + square - 2.0 * cross) - mean
        _fill_weights(residuals, sign, t, basis, about, weights)
        log_p, s = log_tail_within_strata(
            c, weights, starts, treated, variance, third / variance**1.5, shifts
        )
        if math.isnan(log_p):
            return (0.0, OK) if c < 0.0 else (-np.inf, BEYOND_SUPPORT)
        distance = 0.0
        for j in range(n_columns):
            now = projection[j]
            for h in range(treated.shape[0]):
                begin, end = starts[h], starts[h + 1]
                now += _shifted_projection(
                    s,
                    shifts[h],
                    treated[h] / (end - begin),
                    weights[begin:end],
                    basis[j, begin:end],
                )
            distance += (now - about[j]) ** 2
            about[j] = now
        if abs(s * t) * distance < SECOND_ORDER:
            break
    return log_p, OK


@njit(nogil=True, cache=True)
def stratified_tails(  # type: ignore[no-untyped-def]
    residuals, order, starts, treated, basis, projection, level, programs, thresholds, signs, other,
    means, cumulants, buffer, weights, log_p, status
):  # fmt: skip
    """Fill natural logarithms of p-values of some programs of one unit; see `saddlepoint_tails`.

    ``means`` (programs,) of S; ``cumulants`` (programs, 2, 4), for the observed sign and the other,
    the second to fourth and ``sum (v d^2)^2``; the rest as of `_log_tail`.
    """
    centres = np.zeros(treated.shape[0])
    for place in range(programs.shape[0]):
        row = residuals[programs[place]]
        for i in range(order.shape[0]):
            buffer[i] = row[order[i]]
        centre_by_stratum(buffer, starts, centres)
        total, worst = -np.inf, OK
        for side in range(2 if other else 1):
            sign = signs[place] if side == 0 else -signs[place]
            tail, found = _log_tail(
                buffer,
                sign,
                thresholds[place],
                sign * means[place],
                starts,
                treated,
                basis,
                projection,
                level,
                cumulants[place, side],
                weights,
            )
            total = log_sum(total, tail)
            # Observed is possible; on the other side nothing may be so far out.
            worst = max(worst, found if side == 0 or found != BEYOND_SUPPORT else OK)
        log_p[place], status[place] = min(total, 0.0), worst


@njit(nogil=True, cache=True)
def add_by_stratum(outcomes, basis, strata, sums):  # type: ignore[no-untyped-def]
    """Add outcomes and basis (N, columns) of each cell, and squares, to sums of its stratum.

    ``strata`` (units, N); ``sums`` (units, 2, most strata, columns), the outcomes' columns first
    and a multiple of 8 of them, which one instruction adds.
    """
    n_cells, n_outcomes, n_basis = outcomes.shape[0], outcomes.shape[1], basis.shape[1]
    near = np.zeros((_CELLS_NEAR, sums.shape[3]))
    # All units of some cells, whose values then still are in a core's cache.
    for begin in range(0, n_cells, _CELLS_NEAR):
        end = min(begin + _CELLS_NEAR, n_cells)
        near[: end - begin, :n_outcomes] = outcomes[begin:end]
        near[: end - begin, n_outcomes : n_outcomes + n_basis] = basis[begin:end]
        for unit in range(strata.shape[0]):
            for i in range(begin, end):
                stratum, row = strata[unit, i], near[i - begin]
                total, square = sums[unit, 0, stratum], sums[unit, 1, stratum]
                for k in range(row.shape[0]):
                    total[k] += row[k]
                    square[k] += row[k] * row[k]
