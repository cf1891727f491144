"""P-values from null statistics: by counting, and by a skew-normal fitted to them."""

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import number_array
from plait.errors import InputError, ShapeError
from plait.numerics import skew_normal

Array = NDArray[np.float64]
_SMALLEST_P = 1e-250
_LEVELS = np.arange(180, 199)
"""In 200ths: where fitted and empirical tails are compared."""


@dataclass(frozen=True, slots=True, eq=False)
class SkewNormalPValues:
    """P-values of programs from skew-normals fitted to their null statistics."""

    p_values: Array
    """(programs,), in (0, 1]."""
    parameters: Array
    """(programs, 3): location, scale and shape of the standardised null; NaN without a fit."""
    status: NDArray[np.str_]
    """(programs,): 'ok', or why the null statistics were counted instead: 'outlier', 'tail',
    'nonfinite' (no finite fit) or 'degenerate' (null statistics do not vary)."""


def empirical_p_values(
    observed: ArrayLike, null: ArrayLike, *, side: str = "both", two_sided: str = "abs"
) -> Array:
    """Return the share of null statistics at least as extreme as the observed.

    Parameters
    ----------
    observed : (programs,) array
        Where it is NaN the p-value is 1.
    null : (resamples, programs) array
        A NaN is never counted as extreme, but as a draw.
    side : {"both", "left", "right"}
    two_sided : {"abs", "double_tail"}
        For both sides: count ``|T_b| >= |T|``, or double the smaller of the two tails (at most 1).

    Returns
    -------
    (programs,) array
        ``(1 + count) / (resamples + 1)``; ties count as extreme.
    """
    t, draws = _checked(observed, null)
    _check_side(side)
    if two_sided not in ("abs", "double_tail"):
        raise InputError(f"two_sided is {two_sided!r}; give 'abs' or 'double_tail'.")
    if side == "both" and two_sided == "double_tail":
        p = np.minimum(2.0 * np.minimum(_share(t, draws, 1), _share(t, draws, -1)), 1.0)
    else:
        p = _share(t, draws, {"right": 1, "left": -1, "both": 0}[side])
    return np.where(np.isnan(t), 1.0, p)


def compute_null_pvals_from_null_stats(null_stats: ArrayLike, side_code: int = 0) -> Array:
    """Return each null statistic's p-value among the others.

    Parameters
    ----------
    null_stats : (resamples,) or (resamples, programs) array
    side_code : {-1, 0, 1}
        Left, two-sided (absolute values) or right.

    Returns
    -------
    array of the same shape
        ``(1 + #{others >= T_b}) / resamples``; of distinct values a permutation of
        1/resamples, ..., 1.

    Raises
    ------
    InputError
        There is no null statistic, one is NaN, they have more than two dimensions, or the code is
        none of the three.
    InputTypeError
        They are no numbers (also a TypeError).

    Notes
    -----
    Time O(resamples log resamples) for each column.
    """
    null = number_array(null_stats, "the array of null statistics")
    if null.ndim not in (1, 2) or null.size == 0:
        raise InputError(
            f"null statistics have shape {null.shape}; give resamples, or resamples x programs."
        )
    if side_code not in (-1, 0, 1):
        raise InputError(f"side_code is {side_code!r}; give -1 (left), 0 (both) or 1 (right).")
    if np.isnan(null).any():
        raise InputError("null statistics hold NaN; leave out the resamples that have none.")
    draws = null.reshape(null.shape[0], -1)
    extreme = np.abs(draws) if side_code == 0 else side_code * draws
    count = draws.shape[0]
    p = np.empty_like(extreme)
    for k in range(draws.shape[1]):
        below = np.searchsorted(np.sort(extreme[:, k]), extreme[:, k], side="left")
        p[:, k] = (count - below) / count
    return p.reshape(null.shape)


crt_null_pvals_from_null_stats_fast = compute_null_pvals_from_null_stats
crt_null_pvals_from_null_stats_matrix = compute_null_pvals_from_null_stats


def skew_normal_p_values(
    observed: ArrayLike, null: ArrayLike, *, side: str = "both"
) -> SkewNormalPValues:
    """Return p-values from skew-normals fitted by moments to the standardised null statistics.

    Parameters
    ----------
    observed : (programs,) array
    null : (resamples, programs) array
    side : {"both", "left", "right"}

    Returns
    -------
    SkewNormalPValues

    Notes
    -----
    A fit is used where no null statistic lies far outside (1.5 times the fitted normal's expected
    extreme) and its tail is nowhere half or less of the empirical one between the 90th and 99th
    percentile. Elsewhere the null statistics are counted, both tails doubled. Where they do not
    vary, absolute values are counted.
    """
    tests = SkewNormalTests(side)
    tests.add(observed, null)
    return tests.p_values()


class SkewNormalTests:
    """`skew_normal_p_values` of several units, fitted together.

    Of the null statistics of a unit little is kept. The numbers of a unit are the same bits
    whichever others there are.

    Parameters
    ----------
    side : {"both", "left", "right"}
    """

    def __init__(self, side: str) -> None:
        _check_side(side)
        self._side = side
        self._counted: list[tuple[Array, NDArray[np.str_]]] = []
        self._compared: list[_Compared] = []

    def add(self, observed: ArrayLike, null: ArrayLike) -> None:
        """Add the tests of one unit; for the arguments see `skew_normal_p_values`."""
        from plait.numerics.skew_normal_kernels import column_moments, standardise

        t, draws = _checked(observed, null)
        mean, deviation, largest = np.empty((3, t.size))
        column_moments(draws, mean, deviation, largest)
        # A column of one repeated number has a deviation of rounding errors.
        is_fitted = np.isfinite(t) & (deviation > 1e-12 * largest)
        some, others = np.flatnonzero(is_fitted), np.flatnonzero(~is_fitted)
        p, status = np.ones(t.size), np.full(t.size, "fitted", dtype="<U10")
        if len(others):
            p[others] = empirical_p_values(t[others], draws[:, others], side=self._side)
            status[others] = np.where(np.isfinite(t[others]), "degenerate", "nonfinite")
        z = np.empty((len(some), len(draws)))
        standardise(draws, some, mean, deviation, z)
        self._counted.append((p, status))
        self._compared.append(_Compared.of((t[some] - mean[some]) / deviation[some], z))

    def p_values(self) -> SkewNormalPValues:
        """Return the p-values of all tests, unit after unit."""
        p, status = (np.concatenate(parts) for parts in zip(*self._counted, strict=True))
        parameters = np.full((p.size, 3), np.nan)
        some = status == "fitted"
        compared = _Compared._make(map(np.concatenate, zip(*self._compared, strict=True)))
        p[some], parameters[some], status[some] = _calibrated(compared, self._side)
        return SkewNormalPValues(p, parameters, status)


def calibrated_p_value(
    observed: float, null: ArrayLike, *, side: str = "both"
) -> tuple[float, tuple[float, float, float], str]:
    """Return one p-value by the skew-normal fitted to null statistics, taken as they are.

    Parameters
    ----------
    observed : float
    null : (resamples,) array
        Not standardised here; see `skew_normal_p_values`, which does, and for the diagnostics.
    side : {"both", "left", "right"}

    Returns
    -------
    p_value : float
        In (0, 1]; counted (both tails doubled) unless the status is 'ok'.
    parameters : tuple of float
        Location, scale and shape; NaN without a finite fit.
    status : {"ok", "outlier", "tail", "nonfinite"}
    """
    _check_side(side)
    draws = np.array(null, dtype=np.float64)  # a copy, to be put in order
    compared = _Compared.of(np.array([observed], dtype=np.float64), draws[None])
    p, parameters, status = _calibrated(compared, side)
    location, scale, shape = parameters[0].tolist()
    return float(p[0]), (location, scale, shape), str(status[0])


class _Compared(NamedTuple):
    """What is kept of the null statistics of some tests, and of the observed ones among them.

    The tests are always first; for the last five see `compare_with_ordered`.
    """

    observed: Array
    moments: Array
    resamples: NDArray[np.int64]
    extremes: Array
    counts: NDArray[np.int64]
    is_right: NDArray[np.bool_]
    tails: Array

    @classmethod
    def of(cls, observed: Array, null: Array) -> "_Compared":
        """Return it of rows of null statistics (tests, resamples), which are put in order."""
        from plait.numerics.skew_normal_kernels import compare_with_ordered

        tests, count = null.shape
        moments = skew_normal.moments_of_samples(null)
        null.sort(axis=1)
        # ceil(B i / 200) in integers: floating point would round some up.
        ranks = np.minimum(-(-count * _LEVELS // 200), count - 1)
        compared = cls(
            observed,
            moments.T,
            np.full(tests, count),
            np.empty((tests, 2)),
            np.empty((tests, 2), dtype=np.int64),
            np.empty(tests, dtype=np.bool_),
            np.empty((tests, len(ranks))),
        )
        compare_with_ordered(null, observed, ranks, *compared[3:])
        return compared


def _calibrated(compared: _Compared, side: str) -> tuple[Array, Array, NDArray[np.str_]]:
    """Return p-values, parameters and statuses of tests."""
    at_least, at_most = (1.0 + compared.counts.T) / (compared.resamples + 1.0)
    if side == "both":
        p = np.minimum(2.0 * np.minimum(at_least, at_most), 1.0)
    else:
        p = at_least if side == "right" else at_most
    p[np.isnan(compared.observed)] = 1.0
    fits = skew_normal.fits_of_moments(*compared.moments.T)
    is_finite = np.all(np.isfinite(fits), axis=0)
    status = np.where(is_finite, "ok", "nonfinite").astype("<U10")
    status[is_finite & _has_outliers(compared, fits[3], fits[4])] = "outlier"
    some = np.flatnonzero(status == "ok")
    usable = _Compared._make(part[some] for part in compared)
    fitted, is_thin = _fitted_tails(usable, fits[:3, some], side)
    status[some[is_thin]] = "tail"
    p[some[~is_thin]] = fitted[~is_thin]
    return p, np.where(is_finite[:, None], fits[:3].T, np.nan), status


def _has_outliers(compared: _Compared, mean: Array, deviation: Array) -> NDArray[np.bool_]:
    """Return whether null statistics reach far beyond the extremes of a normal distribution."""
    extreme = deviation * np.sqrt(2.0 * np.log(compared.resamples))
    smallest, largest = compared.extremes.T
    with np.errstate(divide="ignore", invalid="ignore"):
        above, below = largest / (mean + extreme), smallest / (mean - extreme)
    inside: NDArray[np.bool_] = (above <= 1.5) & (below <= 1.5)
    return ~inside


def _fitted_tails(
    compared: _Compared, parameters: Array, side: str
) -> tuple[Array, NDArray[np.bool_]]:
    """Return fitted p-values, and where the fitted tail is much below the null statistics'."""
    location, scale, shape = parameters
    sign = np.where(compared.is_right, 1.0, -1.0)
    log_fitted = skew_normal.log_upper_tail(
        compared.tails, (sign * location)[:, None], scale[:, None], (sign * shape)[:, None]
    )
    is_thin = np.any(np.log1p(-_LEVELS / 200) - log_fitted > math.log(2.0), axis=1)
    if side != "both":
        sign = np.full(len(sign), 1.0 if side == "right" else -1.0)
    log_p = skew_normal.log_upper_tail(
        sign * compared.observed, sign * location, scale, sign * shape
    )
    p = np.exp(log_p) * (2.0 if side == "both" else 1.0)
    return np.clip(p, _SMALLEST_P, 1.0), is_thin


def _share(observed: Array, draws: Array, side: int) -> Array:
    """``(1 + count) / (resamples + 1)`` of every column."""
    from plait.crt.resampling_kernels import count_extreme

    counts = np.zeros(observed.size, dtype=np.int64)
    count_extreme(draws, observed, side, counts)
    share: Array = (1.0 + counts) / (draws.shape[0] + 1.0)
    return share


def _check_side(side: str) -> None:
    if side not in ("both", "left", "right"):
        raise InputError(f"side is {side!r}; give 'both', 'left' or 'right'.")


def _checked(observed: ArrayLike, null: ArrayLike) -> tuple[Array, Array]:
    t = np.asarray(observed, dtype=np.float64)
    draws = np.asarray(null, dtype=np.float64)
    if t.ndim != 1 or draws.ndim != 2 or draws.shape[1] != t.size or draws.shape[0] == 0:
        raise ShapeError(
            f"observed statistics have shape {t.shape} and null statistics {draws.shape}; "
            "programs, and resamples x programs with at least one resample, are needed."
        )
    return t, draws
