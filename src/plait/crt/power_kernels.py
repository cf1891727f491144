"""Compiled loops of the power of a gene's score test against a fold change in treated cells.

With fitted means mu for cells without an effect, treated cells have the mean ``mu (1 + f)`` and,
as the covariates take up the share h of a treatment, the gene's regression finds
``mu (1 + f h)``. Cells then have scores ``e = (y - mu (1 + f h)) / (1 + mu (1 + f h) / theta)``.
A tail of z beyond t is, to first order in resampled treatments x with chances p (see
`plait.crt.gene_tail_kernels.project_variance`), that of ``sum x b`` with ``b = e - g t / (2
sqrt V)``. Given how many cells are treated, the p-value of data is that of the signed root r of

    r^2 / 2 = max over s and u of  s sum_treated b + u n_treated - sum ln(1 - p + p e^(s b + u)),

a sum over all cells, treated ones among them, whose counts are random. A pair is found where
this depth exceeds that of the threshold. At the tilt (s, u) that expected data have at the
threshold the sum is one of independent functions of the cells' counts; since the tilt is that of a
maximum, that it is another one in other data changes the depth to second order only. So power is
the probability that this sum of independent terms exceeds a constant: three cumulants give it, of
expectations over negative binomial counts. Large counts move the treated cells' sum and the
resamples' tails together here, and no moments of their tails are needed.

Cells of like means are taken together, `Groups`, so that time does not depend on how many there
are.
"""

import math
from typing import Any, NamedTuple

import numpy as np

from plait.crt.gene_tail_kernels import project_variance
from plait.crt.negative_binomial_kernels import add_products
from plait.numerics.compiled import njit
from plait.numerics.factor_kernels import cholesky, solve_factored
from plait.numerics.saddlepoint_kernels import ANY_ORDER, exp_of_negative

MOST_NODES = 320
"""Counts, or ranges of them, that stand for the law of a group's counts."""
_SMALLEST_RATIO = 0.02
"""Of a mean that is found to one that is fitted, where covariates would take up more."""
_FINENESS = 8
"""Counts of so many on are taken together, in ranges of a share of the count."""
_RANGES_OF_SCALE = 2.5
"""Of the standard deviation or, if that is larger, of what divides the tail by e."""
_REACH = 8.0
_NO_MASS = 1e-7
_SMALLEST_TILT = 0.05
"""Over the standard deviation of a resample's sum: nearer 0 a tilt says nothing of its tail."""
_LARGEST_TILT = 200.0
_LARGEST_STEP = 3.0
_SAME_ROOT = 5e-4
_SAME_TOTAL = 1e-3
_NO_SKEWNESS = 1e-4
_NO_TERM = 1e-6
_LARGEST_CHANGE = 1023.0
_STEPS = 40
_SAME_CHANGE = 1e-4
"""Relative to the fold change."""
_SAME_POWER = 1e-3
_NO_TAIL = 3.2905267
"""The normal quantile of half of that."""


class Groups(NamedTuple):
    """Cells that are taken together, treated ones and others apart.

    ``count`` of them, and of each their average ``mean`` (fitted), ``chance`` of treatment, and
    what `prepare_pair` fills: ``taken_up``, ``g``, ``influence``, and ``spread``, the variance of
    the last.
    """

    is_treated: Any
    count: Any
    mean: Any
    chance: Any
    taken_up: Any
    g: Any
    influence: Any
    spread: Any


class Pair(NamedTuple):
    """What the power of a pair depends on, but for the change.

    ``variance`` and ``lack`` are those of `prepare_pair`, ``quantile`` is the normal one of the
    threshold. ``sides`` is 0 (both), 1 (right) or -1 (left); ``can_fall`` says whether a p-value of
    the left side can be small enough at all (`log_chance_of_none`). ``nodes`` (3, groups x
    `MOST_NODES`) holds values meanwhile: counts, their masses, and b.
    """

    groups: Any
    theta: Any
    n_treated: Any
    variance: Any
    lack: Any
    quantile: Any
    sides: Any
    can_fall: Any
    nodes: Any


class Tilt(NamedTuple):
    """Where expected data are at the threshold, and what the depth exceeds there."""

    slope: float
    shift: float
    depth: float


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
    """Fill what a treatment's power needs of every cell; return V and how far it is off.

    The second is what the root of the treatment's own V lacks of the mean's beyond first order:
    of a permutation much, where covariates say something of the treatment.

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
    own, first_order = 0.0, -level
    for i in treated:
        own += parts[1, i]
        first_order += g[i]
    for j in range(3, parts.shape[0]):
        total = 0.0
        for i in treated:
            total += parts[j, i]
        own -= total * total
    root = math.sqrt(variance)
    return variance, root + first_order / (2.0 * root) - math.sqrt(max(own, 0.0))


@njit(nogil=True, cache=True, error_model="numpy")
def log_chance_of_none(groups, theta):  # type: ignore[no-untyped-def]
    """Return the log probability of as many treated cells as there are, and no count in them.

    No decrease has a much smaller p-value. The treated cells without counts are taken as Poisson,
    which is also below what permutations have.
    """
    treated, bare = 0.0, 0.0
    for k in range(groups.count.shape[0]):
        own = groups.count[k] * groups.chance[k]
        treated += own
        bare += own * math.exp(-theta * math.log1p(groups.mean[k] / theta))
    first = round(treated)
    count, term, total = first, 1.0, 1.0
    while term > _NO_TERM * total:  # of the Poisson tail, relative to its first term
        count += 1
        term *= bare / count
        total += term
    log_first = first * math.log(bare) - bare - math.lgamma(first + 1.0)
    return bare - treated + log_first + math.log(total)


@njit(nogil=True, cache=True, error_model="numpy")
def fill_law(mean, theta, values, masses):  # type: ignore[no-untyped-def]
    """Fill counts and their probabilities under a negative binomial; return how many.

    Large counts stand for ranges of counts about them.
    """
    values[0], masses[0] = 0.0, 1.0
    if not mean > 0.0:
        return 1
    spread = math.sqrt(mean + mean * mean / theta)
    base = -theta * math.log1p(mean / theta) - math.lgamma(theta)
    log_ratio = -math.log1p(theta / mean)
    ratio = math.exp(log_ratio)
    widest = max(spread, mean / theta) / _RANGES_OF_SCALE
    count = max(0.0, math.floor(mean - _REACH * spread))
    total, k, mass = 0.0, 0, 0.0
    while k < values.shape[0]:
        width = max(1.0, math.floor(min(count / _FINENESS, widest)))
        middle = count + 0.5 * (width - 1.0)
        if k > 0 and width == 1.0:
            mass *= (count - 1.0 + theta) / count * ratio
        else:
            log_mass = base + math.lgamma(middle + theta) - math.lgamma(middle + 1.0)
            mass = width * math.exp(log_mass + middle * log_ratio)
        values[k], masses[k] = middle, mass
        total += mass
        count += width
        k += 1
        if middle > mean and mass < _NO_MASS * total:
            break
    masses[:k] /= total
    return k


@njit(nogil=True, cache=True, error_model="numpy")
def _lay_out(pair, change, sign, ends):  # type: ignore[no-untyped-def]
    """Fill the nodes of all groups, and where those of each end; return variance and skewness.

    Of a resample's sum; b is centred.
    """
    groups, theta = pair.groups, pair.theta
    values, masses, b = pair.nodes
    tilt = pair.quantile / (2.0 * math.sqrt(pair.variance))
    first, weight, centre = 0, 0.0, 0.0
    for k in range(groups.count.shape[0]):
        true = groups.mean[k] * (1.0 + change * groups.is_treated[k])
        found = groups.mean[k] * max(1.0 + change * groups.taken_up[k], _SMALLEST_RATIO)
        last = first + MOST_NODES
        last = first + fill_law(true, theta, values[first:last], masses[first:last])
        chance = groups.chance[k]
        v = groups.count[k] * chance * (1.0 - chance)
        scale = sign / (1.0 + found / theta)
        for i in range(first, last):
            b[i] = (values[i] - found) * scale - tilt * groups.g[k]
            centre += v * masses[i] * b[i]
        weight += v
        ends[k] = first = last
    centre /= weight
    second, third, start = 0.0, 0.0, 0
    for k in range(ends.shape[0]):
        chance = groups.chance[k]
        v = groups.count[k] * chance * (1.0 - chance)
        for i in range(start, ends[k]):
            b[i] -= centre
            square = v * masses[i] * b[i] * b[i]
            second += square
            third += square * b[i] * (1.0 - 2.0 * chance)
        start = ends[k]
    return second, third / (second * math.sqrt(second)), weight


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _log_of_one_more(x):  # type: ignore[no-untyped-def]
    """``ln(1 + x)`` for x from 0 to 1 with 9 digits, without a call: loops are vectorised."""
    z = x / (2.0 + x)
    z2 = z * z
    y = 1.0 / 13.0 + z2 * (1.0 / 15.0 + z2 * (1.0 / 17.0))
    y = 1.0 / 7.0 + z2 * (1.0 / 9.0 + z2 * (1.0 / 11.0 + z2 * y))
    return 2.0 * z * (1.0 + z2 * (1.0 / 3.0 + z2 * (1.0 / 5.0 + z2 * y)))


@njit(nogil=True, cache=True, fastmath=ANY_ORDER, error_model="numpy", forceinline=True)
def _sums_of_group(odds, b, masses, slope, shift):  # type: ignore[no-untyped-def]
    level = q0 = q1 = v0 = v1 = v2 = 0.0
    for i in range(b.shape[0]):
        x = odds + slope * b[i] + shift
        e = exp_of_negative(-abs(x))
        inverse = 1.0 / (1.0 + e)
        q = masses[i] * (inverse if x > 0.0 else e * inverse)
        v = masses[i] * e * inverse * inverse
        level += masses[i] * (_log_of_one_more(e) + max(x, 0.0))
        q0 += q
        q1 += q * b[i]
        v0 += v
        v1 += v * b[i]
        v2 += v * b[i] * b[i]
    return level, q0, q1, v0, v1, v2


@njit(nogil=True, cache=True, error_model="numpy")
def _sums(pair, ends, slope, shift):  # type: ignore[no-untyped-def]
    """Return expected sums at a tilt: of levels, q, q b, v, v b and v b^2, with v = q (1 - q)."""
    _, masses, b = pair.nodes
    level = q0 = q1 = v0 = v1 = v2 = 0.0
    start = 0
    for k in range(ends.shape[0]):
        chance, n = pair.groups.chance[k], pair.groups.count[k]
        odds = math.log(chance / (1.0 - chance))
        part = slice(start, ends[k])
        own = _sums_of_group(odds, b[part], masses[part], slope, shift)
        level += n * (own[0] + math.log(1.0 - chance))
        q0 += n * own[1]
        q1 += n * own[2]
        v0 += n * own[3]
        v1 += n * own[4]
        v2 += n * own[5]
        start = ends[k]
    return level, q0, q1, v0, v1, v2


@njit(nogil=True, cache=True, error_model="numpy")
def _threshold(pair, ends, second, skewness, weight):  # type: ignore[no-untyped-def]
    """Return the `Tilt` at which expected data have the p-value of the threshold.

    The double saddlepoint (Skovgaard 1987) in Barndorff-Nielsen's form, by Newton's method. Of
    thresholds near the mean, Cornish and Fisher's. The depth is infinite where no sum of treated
    cells has such a p-value.
    """
    deviation = math.sqrt(second)
    low, high = _SMALLEST_TILT / deviation, _LARGEST_TILT / deviation
    slope, shift = max(pair.quantile / deviation / (1.0 + max(skewness, 0.0)), low), 0.0
    z = pair.quantile
    for _ in range(_STEPS):
        level, q0, q1, v0, v1, v2 = _sums(pair, ends, slope, shift)
        missing = pair.n_treated - q0
        # To second order, as at the shift where as many cells are treated as should be.
        reached = q1 + v1 / v0 * missing
        level += -shift * pair.n_treated - 0.5 * missing * missing / v0
        curvature = v2 - v1 * v1 / v0
        depth = slope * reached - level
        is_near = abs(missing) < _SAME_TOTAL * math.sqrt(v0)
        root = math.sqrt(2.0 * max(depth, 1e-300))
        found = root + math.log(slope * math.sqrt(curvature * v0 / weight) / root) / root
        if is_near and abs(found - z) < _SAME_ROOT:
            return Tilt(slope, shift, depth)
        if is_near and slope <= _SMALLEST_TILT / deviation and found >= z:
            quantile = z + skewness / 6.0 * (z * z - 1.0)
            return Tilt(slope, shift, slope * deviation * quantile - level)
        if is_near and found < z:
            low = max(low, slope)
        elif is_near:
            high = min(high, slope)
        if high - low < 1e-9 * high:
            break
        step = (z - found) * root / (slope * curvature)
        step = min(max(step, -0.7 * slope), 2.0 * slope)
        if not low < slope + step < high:
            step = math.sqrt(low * high) - slope
        change = (missing - v1 * step) / v0
        slope += step
        shift += min(max(change, -_LARGEST_STEP), _LARGEST_STEP)
    return Tilt(slope, shift, np.inf)


@njit(nogil=True, cache=True, error_model="numpy")
def _chance_beyond(pair, change, sign, ends, tilt):  # type: ignore[no-untyped-def]
    """Return the probability that data are deeper than the tilt's depth.

    Of a gamma distribution with the depth's three cumulants (Wilson and Hilferty 1931); 0 where
    not even the deepest counts of the treated cells are.
    """
    groups = pair.groups
    values, masses, b = pair.nodes
    slope, shift, depth = tilt
    mean = most = slope * pair.quantile * pair.lack
    variance = third = 0.0
    start = 0
    for k in range(ends.shape[0]):
        true = groups.mean[k] * (1.0 + change * groups.is_treated[k])
        log_rest = math.log(1.0 - groups.chance[k])
        odds = math.log(groups.chance[k]) - log_rest
        own, square, largest = 0.0, 0.0, -np.inf
        for i in range(start, ends[k]):
            exponent = slope * b[i] + shift
            x = odds + exponent
            level = math.log1p(math.exp(-abs(x))) + max(x, 0.0) + log_rest
            regressed = slope * sign * groups.influence[k] * (values[i] - true)
            b[i] = groups.is_treated[k] * exponent - level - regressed  # its depth, from here on
            own += masses[i] * b[i]
            largest = max(largest, b[i])
        for i in range(start, ends[k]):
            d = b[i] - own
            square += masses[i] * d * d
            third += groups.count[k] * masses[i] * d * d * d
        mean += groups.count[k] * own
        variance += groups.count[k] * square
        variance += (
            slope * slope * groups.count[k] * groups.spread[k] * true * (1.0 + true / pair.theta)
        )
        most += groups.count[k] * (largest if groups.is_treated[k] > 0.0 else own)
        start = ends[k]
    if not most >= depth:
        return 0.0
    deviation = math.sqrt(variance)
    skewness = third / (variance * deviation)
    x = (depth - mean) / deviation
    if abs(skewness) > _NO_SKEWNESS:
        base = max(1.0 + 0.5 * skewness * x, 0.0)
        x = 6.0 / skewness * (base ** (1.0 / 3.0) - 1.0) + skewness / 6.0
    return 0.5 * math.erfc(x / math.sqrt(2.0))


@njit(nogil=True, cache=True, error_model="numpy")
def tail_power(pair, change, sign):  # type: ignore[no-untyped-def]
    """Return the probability that z is beyond the quantile's tail on one side."""
    if sign < 0.0 and not pair.can_fall:
        return 0.0
    ends = np.empty(pair.groups.count.shape[0], dtype=np.int64)
    second, skewness, weight = _lay_out(pair, change, sign, ends)
    tilt = _threshold(pair, ends, second, skewness, weight)
    if tilt.depth == np.inf:
        return 0.0
    return _chance_beyond(pair, change, sign, ends, tilt)


@njit(nogil=True, cache=True, error_model="numpy")
def power_at(pair, change):  # type: ignore[no-untyped-def]
    """Return the power at a fold change of ``1 + change``, of both sides together or of one.

    On the other side than the change's less is found than without one, which may be nothing.
    """
    total = 0.0
    for sign in (-1.0, 1.0):
        is_other = sign * change < 0.0 and pair.quantile > _NO_TAIL
        if (pair.sides == 0 and not is_other) or pair.sides == sign:
            total += tail_power(pair, change, sign)
    return min(total, 1.0)


@njit(nogil=True, cache=True, error_model="numpy")
def smallest_change(pair, power, sign):  # type: ignore[no-untyped-def]
    """Return the change (of a fold change ``1 + change``) on one side that is found with a power.

    NaN where none is: where even the loss of all counts, or a thousandfold gain, is not.
    """
    low, high = 0.0, -1.0 if sign < 0.0 else 0.25
    at_low = -power
    while True:
        at_high = tail_power(pair, high, sign) - power
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
        found = tail_power(pair, middle, sign) - power
        if abs(found) < _SAME_POWER:
            return middle
        if found > 0.0:
            high, at_high = middle, found
        else:
            low, at_low = middle, found
    return 0.5 * (low + high)
