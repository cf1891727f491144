"""Compiled loops of the power of a gene's score test against a fold change in treated cells.

With fitted means mu for cells without an effect, treated cells have the mean ``mu (1 + f)`` and,
as the covariates take up the share h of a treatment, the gene's regression finds
``mu (1 + f h)``. Cells then have scores ``e = (y - mu (1 + f h)) / (1 + mu (1 + f h) / theta)``.
A tail of z beyond t is, to first order in resampled treatments x with chances p (see
`plait.crt.gene_tail_kernels.project_variance`), that of ``sum (x - p) (e - s g)`` with
``s = t / (2 sqrt V)``; both what treatments find and what resamples would are described by
expected cumulants of this sum over negative binomial counts. What shifts ``e - s g`` of all cells
alike is left out: it moves the sum with the number of treated cells, of which z, divided by the
root of its variance in the resample, knows nothing; that tells with few treated cells.

Expected cumulants are those of data with rarer and larger counts than most data have. With few
treated cells, of genes that vary much, the law of resamples is therefore that of draws from cells
with typical counts, quantiles at evenly spread probabilities, and since treated cells are among
those drawn from, it is looked for where the sum of the treated cells and its threshold meet:
`critical_sum`, from which on an increase is found whatever the fold change.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from plait.crt.gene_tail_kernels import project_variance
from plait.crt.negative_binomial_kernels import add_products, cholesky, solve_factored
from plait.numerics.compiled import njit
from plait.numerics.saddlepoint_kernels import ANY_ORDER

_SMALLEST_RATIO = 0.02
"""Of a mean that is found to one that is fitted, where covariates would take up more."""
_ROUNDS = 4
_NO_SKEWNESS = 1e-4
_LARGEST_CORRECTION = 0.25
_LARGEST_CHANGE = 1023.0
_STEPS = 40
_NO_TERM = 1e-6
_GOLDEN = 0.6180339887498949
_LARGEST_COUNT = 1_000_000
_SAME_QUANTILE = 1e-3
_SAME_CRITICAL = 0.01
_SAME_CHANGE = 1e-4
"""Relative to the fold change."""
_SAME_POWER = 1e-3


class Pair(NamedTuple):
    """What the power of a pair depends on, but for the change.

    ``mean``, ``is_treated``, ``chances`` (of treatment), ``taken_up``, ``influence`` and ``g`` are
    of cells, the last three of `prepare_pair`, as are ``variance`` and ``observed``. ``quantile``
    is the normal one of the threshold. ``sides`` is 0 (both), 1 (right) or -1 (left); ``can_fall``
    says whether a p-value of the left side can be small enough at all (`log_chance_of_none`).
    ``n_treated`` is how many cells are treated. With few, of genes that vary much, ``counts`` are
    `typical_counts`, and ``critical`` is `critical_sum`, else NaN.
    """

    mean: Any
    theta: Any
    is_treated: Any
    chances: Any
    taken_up: Any
    influence: Any
    g: Any
    variance: Any
    observed: Any
    quantile: Any
    sides: Any
    can_fall: Any
    counts: Any
    n_treated: Any
    critical: Any


class Cumulants(NamedTuple):
    """Expected sums over cells at a fold change.

    Of what is observed: ``shift``, ``variance`` and ``third``, the first three cumulants. Of what
    resamples find, sums of moments of the score e and of g: ``ee`` that of ``v e^2``, ``eg`` of
    ``v e g`` and so on, ``eeee`` of fourth moments. ``together`` is how the two go together,
    ``unsure`` the spread of the second, ``draws`` the sum of ``v = p (1 - p)`` and ``odd`` that of
    ``v (1 - 2 p)``.
    """

    shift: float
    variance: float
    third: float
    ee: float
    eg: float
    gg: float
    eee: float
    eeg: float
    egg: float
    ggg: float
    eeee: float
    together: float
    unsure: float
    draws: float
    odd: float


@njit(nogil=True, cache=True, error_model="numpy")
def fill_projection(design, mean, factor):  # type: ignore[no-untyped-def]
    """Fill the Cholesky factor of ``X' diag(mean) X``, of a Poisson regression with these means."""
    buffer = np.empty(mean.shape[0])
    factor[:] = 0.0
    add_products(design, 0, mean, buffer, factor)
    cholesky(factor)


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_fitted(design, factor, coefficients, out):  # type: ignore[no-untyped-def]
    solve_factored(factor, coefficients)
    out[:] = 0.0
    for j in range(design.shape[0]):
        for i in range(out.shape[0]):
            out[i] += design[j, i] * coefficients[j]


@njit(nogil=True, cache=True, error_model="numpy")
def prepare_pair(  # type: ignore[no-untyped-def]
    design, factor, parts, mean, treated, chances, is_permuted, taken_up, influence, g
):
    """Fill what a treatment's power needs of every cell; return V and ``sum (x - p) g``.

    ``taken_up``: the share h of the treatment that the regression takes for covariates.
    ``influence``: what a cell's residual takes from ``sum (x - p) e`` by changing the regression.
    ``g``: coefficients of V.
    """
    q, n = design.shape
    toward, correction = np.zeros(q), np.zeros(q)
    for j in range(q):
        for i in treated:
            toward[j] += mean[i] * design[j, i]
            correction[j] += parts[1, i] * design[j, i]
        for i in range(n):
            correction[j] -= chances[i] * parts[1, i] * design[j, i]
    _fill_fitted(design, factor, toward, taken_up)
    _fill_fitted(design, factor, correction, influence)
    variance, level = project_variance(parts, chances, is_permuted, g)
    observed = -level
    for i in treated:
        observed += g[i]
    return variance, observed


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _centres(pair, change):  # type: ignore[no-untyped-def]
    """Return the means of scores and of ``g``, weighted by how much a cell's treatment varies."""
    mean, chances = pair.mean, pair.chances
    weight, centre, centre_of_g = 0.0, 0.0, 0.0
    for i in range(mean.shape[0]):
        found = mean[i] * max(1.0 + change * pair.taken_up[i], _SMALLEST_RATIO)
        true = mean[i] * (1.0 + change * pair.is_treated[i])
        v = chances[i] * (1.0 - chances[i])
        weight += v
        centre += v * (true - found) / (1.0 + found / pair.theta)
        centre_of_g += v * pair.g[i]
    return centre / weight, centre_of_g / weight


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def cumulants_at(pair, change):  # type: ignore[no-untyped-def]
    """Return `Cumulants` at a fold change of ``1 + change``."""
    mean, theta, is_treated, chances = pair.mean, pair.theta, pair.is_treated, pair.chances
    taken_up, influence, g = pair.taken_up, pair.influence, pair.g
    n = mean.shape[0]
    centre, centre_of_g = _centres(pair, change)
    shift = variance = third = 0.0
    ee = eg = gg = eee = eeg = egg = ggg = eeee = 0.0
    together = unsure = draws = odds = 0.0
    for i in range(n):
        found = mean[i] * max(1.0 + change * taken_up[i], _SMALLEST_RATIO)
        true = mean[i] * (1.0 + change * is_treated[i])
        scale = 1.0 / (1.0 + found / theta)
        spread = true / theta
        k2 = true * (1.0 + spread)
        k3 = k2 * (1.0 + 2.0 * spread)
        k4 = k2 * (1.0 + 6.0 * spread * (1.0 + spread))
        p = chances[i]
        v = p * (1.0 - p)
        contrast = is_treated[i] - p
        weight = contrast * scale - influence[i]
        score = (true - found) * scale
        # What is observed: mean, variance and third cumulant.
        shift += contrast * score
        variance += weight * weight * k2
        third += weight * weight * weight * k3
        # What resamples find: moments of e, with those of g.
        e1, d = score - centre, g[i] - centre_of_g
        square = scale * scale
        m2, m3 = k2 * square, k3 * square * scale
        m4 = k4 * square * square + 3.0 * m2 * m2
        e2 = m2 + e1 * e1
        e3 = m3 + 3.0 * e1 * m2 + e1 * e1 * e1
        e4 = m4 + 4.0 * e1 * m3 + 6.0 * e1 * e1 * m2 + e1 * e1 * e1 * e1
        odd = v * (1.0 - 2.0 * p)
        ee += v * e2
        eg += v * d * e1
        gg += v * d * d
        eee += odd * e3
        eeg += odd * d * e2
        egg += odd * d * d * e1
        ggg += odd * d * d * d
        eeee += v * (1.0 - 6.0 * v) * e4
        # How the two go together, and the spread of the second.
        together += v * weight * (k3 * square + 2.0 * e1 * k2 * scale)
        unsure += v * v * (m4 - m2 * m2 + 4.0 * e1 * (m3 + e1 * m2))
        draws += v
        odds += odd
    return Cumulants(
        shift,
        variance,
        third,
        ee,
        eg,
        gg,
        eee,
        eeg,
        egg,
        ggg,
        eeee,
        together,
        unsure,
        draws,
        odds,
    )


@njit(nogil=True, cache=True, error_model="numpy")
def log_chance_of_none(mean, theta, chances):  # type: ignore[no-untyped-def]
    """Return the log probability of as many treated cells as there are, and no count in them.

    No decrease has a much smaller p-value. The treated cells without counts are taken as Poisson,
    which is also below what permutations have.
    """
    treated, bare = 0.0, 0.0
    for i in range(mean.shape[0]):
        treated += chances[i]
        bare += chances[i] * math.exp(-theta * math.log1p(mean[i] / theta))
    first = round(treated)
    count, term, total = first, 1.0, 1.0
    while term > _NO_TERM * total:  # of the Poisson tail, relative to its first term
        count += 1
        term *= bare / count
        total += term
    log_first = first * math.log(bare) - bare - math.lgamma(first + 1.0)
    return bare - treated + log_first + math.log(total)


@njit(nogil=True, cache=True, error_model="numpy")
def _quantile(z, skewness, kurtosis):  # type: ignore[no-untyped-def]
    """Return the quantile of a standardised sum that the normal z stands for.

    That of a gamma distribution with the skewness (Wilson and Hilferty 1931), which grows with z
    everywhere, as Cornish and Fisher's expansion does not; with their term of the kurtosis, where
    that is less than a gamma distribution's. Where it is more, it is that of rare large counts:
    most data do not have them, and a resample has no more of them than there are.
    """
    root = z
    if abs(skewness) > _NO_SKEWNESS:
        base = max(1.0 + skewness * z / 6.0 - skewness * skewness / 36.0, 0.0)
        root = 2.0 / skewness * (base * base * base - 1.0)
    change = (kurtosis - 1.5 * skewness * skewness) / 24.0 * z * (z * z - 3.0)
    return root + min(max(change, -_LARGEST_CORRECTION * abs(root)), 0.0)


@njit(nogil=True, cache=True, error_model="numpy")
def _count_at(mean, theta, share):  # type: ignore[no-untyped-def]
    """Return the quantile of a negative binomial distribution."""
    term = math.exp(-theta * math.log1p(mean / theta))
    ratio = mean / (mean + theta)
    total, count = term, 0
    while total < share and count < _LARGEST_COUNT:
        term *= (theta + count) / (count + 1.0) * ratio
        total += term
        count += 1
    return count


@njit(nogil=True, cache=True, error_model="numpy")
def typical_counts(mean, theta):  # type: ignore[no-untyped-def]
    """Return counts of cells as they typically are: quantiles at evenly spread probabilities."""
    counts = np.empty(mean.shape[0])
    share = 0.5
    for i in range(mean.shape[0]):
        share = (share + _GOLDEN) % 1.0
        counts[i] = _count_at(mean[i], theta, share)
    return counts


@njit(nogil=True, cache=True, error_model="numpy")
def _fill_typical_scores(pair, change, scores):  # type: ignore[no-untyped-def]
    """Fill the scores of typical counts, of treated cells at a fold change."""
    theta = pair.theta
    place = 0.5
    for i in range(scores.shape[0]):
        found = pair.mean[i] * max(1.0 + change * pair.taken_up[i], _SMALLEST_RATIO)
        count = pair.counts[i]
        if pair.is_treated[i] > 0.0:
            true = pair.mean[i] * (1.0 + change)
            count = _count_at(true, theta, place / pair.n_treated)
            place += 1.0
        scores[i] = (count - found) / (1.0 + found / theta)


@njit(nogil=True, cache=True, error_model="numpy")
def _typical_quantile(pair, scores, sign, tilt, start):  # type: ignore[no-untyped-def]
    """Return the quantile of a resample's sum where cells have typical counts.

    A resample's sum, given how many cells it treats, is one of so many draws from the cells; its
    tail is Lugannani and Rice's (1980) in Barndorff-Nielsen's form, solved for its argument.
    """
    n = scores.shape[0]
    weight, centre = 0.0, 0.0
    largest = -np.inf
    for i in range(n):
        v = pair.chances[i] * (1.0 - pair.chances[i])
        a = sign * scores[i] - tilt * pair.g[i]
        weight += v
        centre += v * a
        largest = max(largest, a)
    centre /= weight
    largest -= centre
    low, high, s = 0.0, np.inf, start
    mean = 0.0
    for _ in range(_STEPS):
        m0 = m1 = m2 = 0.0
        for i in range(n):
            v = pair.chances[i] * (1.0 - pair.chances[i])
            a = sign * scores[i] - tilt * pair.g[i] - centre
            e = v * math.exp(s * (a - largest))
            m0 += e
            m1 += e * a
            m2 += e * a * a
        m1 /= m0
        m2 = m2 / m0 - m1 * m1
        draws = pair.n_treated
        mean = draws * m1
        depth = s * mean - draws * (math.log(m0 / weight) + s * largest)
        root = math.sqrt(2.0 * max(depth, 1e-300))
        other = s * math.sqrt(draws * m2)
        reached = root + math.log(other / root) / root
        if abs(reached - pair.quantile) < _SAME_QUANTILE:
            break
        if reached < pair.quantile:
            low = s
        else:
            high = s
        step = s * pair.quantile / max(reached, 0.1 * pair.quantile)
        s = step if low < step < high else (2.0 * low if high == np.inf else 0.5 * (low + high))
    return mean, s


@njit(nogil=True, cache=True, error_model="numpy")
def _excess(pair, change, scores):  # type: ignore[no-untyped-def]
    """Return by how much the expected sum exceeds its threshold, and the sum."""
    sums = cumulants_at(pair, change)
    _fill_typical_scores(pair, change, scores)
    tilt, threshold = 0.0, 0.0
    argument = pair.quantile / math.sqrt(sums.ee)
    for _ in range(_ROUNDS):
        threshold, argument = _typical_quantile(pair, scores, 1.0, tilt, argument)
        tilt = threshold / (2.0 * pair.variance)
    return sums.shift - threshold - tilt * pair.observed, sums.shift


@njit(nogil=True, cache=True, error_model="numpy")
def critical_sum(pair):  # type: ignore[no-untyped-def]
    """Return the sum of treated scores from which on an increase is found; infinite if none is."""
    scores = np.empty(pair.mean.shape[0])
    low, high = 0.0, 0.5
    while True:
        excess, reached = _excess(pair, high, scores)
        if excess >= 0.0:
            break
        if high >= _LARGEST_CHANGE:
            return np.inf
        low, high = high, min(2.0 * high + 0.5, _LARGEST_CHANGE)
    while high - low > _SAME_CRITICAL * (1.0 + high):
        middle = 0.5 * (low + high)
        excess, reached = _excess(pair, middle, scores)
        if excess >= 0.0:
            high = middle
        else:
            low = middle
    return reached


@njit(nogil=True, cache=True, error_model="numpy")
def _chance_above(sums, critical):  # type: ignore[no-untyped-def]
    """Return the probability of a larger sum, of a gamma distribution with its three cumulants."""
    deviation = math.sqrt(sums.variance)
    skewness = sums.third / (sums.variance * deviation)
    x = (critical - sums.shift) / deviation
    if skewness > _NO_SKEWNESS:  # Wilson and Hilferty (1931)
        base = max(1.0 + 0.5 * skewness * x, 0.0)
        x = 6.0 / skewness * (base ** (1.0 / 3.0) - 1.0) + skewness / 6.0
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def tail_power(sums, pair, sign):  # type: ignore[no-untyped-def]
    """Return the probability that z is beyond the quantile's tail on one side.

    ``sums`` are `Cumulants`. The threshold comes from those of what resamples find, to the fourth;
    the probability is Edgeworth's of what is observed, whose variance has that of the threshold,
    too.
    """
    balance = sums.odd / sums.draws  # 1 - 2 p of a permutation
    tilt, threshold, spread, slope = 0.0, 0.0, 1.0, 1.0
    for _ in range(_ROUNDS):
        s = sign * tilt
        second = sums.ee - 2.0 * s * sums.eg + s * s * sums.gg
        third = sums.eee - 3.0 * s * sums.eeg + 3.0 * s * s * sums.egg - s * s * s * sums.ggg
        spread = math.sqrt(second)
        skewness = sign * third / (second * spread)
        kurtosis = sums.eeee / (second * second) - 3.0 * balance * balance / sums.draws
        slope = _quantile(pair.quantile, skewness, kurtosis)
        threshold = spread * slope
        tilt = threshold / (2.0 * pair.variance)
    threshold += tilt * pair.observed
    total = sums.variance - sign * slope * sums.together / spread
    total += slope * slope * sums.unsure / (4.0 * spread * spread)
    if not total > 0.0:
        return np.nan
    deviation = math.sqrt(total)
    skewness = sign * sums.third / (total * deviation)
    x = (threshold - sign * sums.shift) / deviation
    tail = 0.5 * math.erfc(x / math.sqrt(2.0))
    density = math.exp(-0.5 * x * x) / math.sqrt(2.0 * math.pi)
    return min(max(tail + density * skewness / 6.0 * (x * x - 1.0), 0.0), 1.0)


@njit(nogil=True, cache=True, error_model="numpy", forceinline=True)
def power_at(pair, change):  # type: ignore[no-untyped-def]
    """Return the power at a fold change of ``1 + change``, of both sides together or of one."""
    sums = cumulants_at(pair, change)
    total = 0.0
    for sign in (-1.0, 1.0):
        if (pair.sides == 0 or pair.sides == sign) and (sign > 0.0 or pair.can_fall):
            if sign > 0.0 and not np.isnan(pair.critical):
                total += _chance_above(sums, pair.critical)
            else:
                total += tail_power(sums, pair, sign)
    return min(total, 1.0)


@njit(nogil=True, cache=True, error_model="numpy")
def smallest_change(pair, power, sign):  # type: ignore[no-untyped-def]
    """Return the change (of a fold change ``1 + change``) on one side that is found with a power.

    NaN where none is: where even the loss of all counts, or a thousandfold gain, is not.
    """
    low, high = 0.0, -1.0 if sign < 0.0 else 0.25
    at_low = -power
    while True:
        at_high = power_at(pair, high) - power
        if at_high >= 0.0:
            break
        if sign < 0.0 or high >= _LARGEST_CHANGE:
            return np.nan
        low, at_low, high = high, at_high, 2.0 * high
    for step in range(_STEPS):
        if abs(high - low) < _SAME_CHANGE * (1.0 + high):
            break
        share = at_low / (at_low - at_high) if step % 3 else 0.5
        middle = low + min(max(share, 0.05), 0.95) * (high - low)
        found = power_at(pair, middle) - power
        if abs(found) < _SAME_POWER:
            return middle
        if found > 0.0:
            high, at_high = middle, found
        else:
            low, at_low = middle, found
    return 0.5 * (low + high)
