"""Monte Carlo p-values that stop early where they are large (Besag and Clifford 1991)."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.null_statistics import with_statistic
from plait.crt.resampling import blocks_of_resamples
from plait.data.words import counted
from plait.errors import OptionError, ShapeError

Array = NDArray[np.float64]

FIRST_STAGE = 1024
"""Resamples that every p-value has."""
TIE = 1e-6
"""Statistics that differ by less, relatively, are equal: null statistics come from rows of single
precision, and where few cells are treated a resample can be the data."""
_SINGLE_PRECISION = 2.0**-23


@dataclass(frozen=True, slots=True, eq=False)
class StagedPValues:
    """P-values of one unit's programs from as many resamples as each needs.

    Attributes
    ----------
    p_value : (programs,) array
        At least ``1 / (max_resamples + 1)``.
    resamples : (programs,) int64 array
        How many were looked at, without those that have no statistic.
    exceedances : (programs,) int64 array
        How many of them were at least as extreme as the observed statistic.
    """

    p_value: Array
    resamples: NDArray[np.int64]
    exceedances: NDArray[np.int64]


def staged_p_values(
    observed: ArrayLike,
    null_of_block: Callable[[int], Array],
    *,
    side: str = "both",
    exceedances: int = 20,
    max_resamples: int = 10**6,
    tie: float = TIE,
) -> StagedPValues:
    """Resample until each program has enough exceedances, or enough is enough.

    Parameters
    ----------
    observed : (programs,) array
        Where it is NaN the p-value is 1.
    null_of_block : callable
        Returns the null statistics (512, programs) of a block of resamples by its number, such as
        ``lambda block: null_effects_of_block(table, resampler, block)``. A row of NaN is of a
        treatment that could not be tested and counts for nothing; another NaN never exceeds.
    side : {"both", "left", "right"}
        What counts as an exceedance: ``|T_b| >= |T|``, ``T_b <= T`` or ``T_b >= T``.
    exceedances : int
        Enough of them (20): the standard error of a p-value is then p / sqrt(20) or less.
    max_resamples : int
        Enough of resamples (a million), those without a statistic among them.
    tie : float
        Statistics that differ by less, relatively, are equal (1e-6); see `tie_of_effects`.

    Returns
    -------
    StagedPValues

    Raises
    ------
    OptionError, ShapeError
        An option is out of range, or null statistics do not fit the observed ones.

    Notes
    -----
    With h the exceedances wanted: a program that has h or more in the first 1024 resamples has
    ``(1 + count) / 1025``; later, one whose h-th exceedance is resample l has ``h / l``; one that
    never has h has ``(1 + count) / (max_resamples + 1)``. Under exchangeability
    ``P(p <= a) <= a`` for every a: above h / 1025 the event is that of a test with 1024 resamples,
    below it is that the h-th exceedance comes no sooner than resample h / a, as in Besag and
    Clifford (1991, Biometrika 78). Where resamples have no statistic, these numbers are of the
    others: which they are says nothing of their statistics. Resamples are shared by all programs
    and end with the last one undecided.
    """
    if side not in ("both", "left", "right"):
        raise OptionError(f"side is {side!r}; give 'both', 'left' or 'right'.")
    if exceedances < 1 or max_resamples < 1:
        raise OptionError(
            f"exceedances are {exceedances} and max_resamples {max_resamples}; both must be at "
            "least 1."
        )
    t = _as_extreme(np.asarray(observed, dtype=np.float64), side)
    if t.ndim != 1:
        raise ShapeError(
            f"observed statistics have {counted(t.ndim, 'dimension')}; give one per program."
        )
    threshold = t - tie * np.abs(t)
    p = np.ones(t.size)
    used, counts = np.zeros(t.size, dtype=np.int64), np.zeros(t.size, dtype=np.int64)
    first = min(FIRST_STAGE, max_resamples)
    is_open = ~np.isnan(t)
    drawn = done = 0
    for block, size in blocks_of_resamples(max_resamples):
        if not is_open.any():
            break
        null = null_of_block(block)
        if null.ndim != 2 or null.shape[1] != t.size:
            raise ShapeError(
                f"null statistics have shape {null.shape}; {counted(t.size, 'program')} were "
                "observed."
            )
        exceeds = _as_extreme(with_statistic(null[:size]), side) >= threshold
        if drawn >= first and len(exceeds):
            _stop_at_last_exceedance(exceeds, exceedances, done, is_open, p, used, counts)
        counts[is_open] += exceeds[:, is_open].sum(axis=0)
        drawn, done = drawn + size, done + len(exceeds)
        if drawn == first:
            enough = is_open & (counts >= exceedances)
            p[enough], used[enough] = (1.0 + counts[enough]) / (done + 1.0), done
            is_open &= ~enough
    p[is_open], used[is_open] = (1.0 + counts[is_open]) / (done + 1.0), done
    return StagedPValues(p, used, counts)


def tie_of_effects(n_treated: float, denominator: float) -> float:
    """Return what single precision makes of the effects of a unit, relatively, at least `TIE`.

    Rounding of ``D = n_1 - |Q'x|^2`` is relative to n_1: where covariates leave little of a
    treatment, or nearly every cell is treated, it is more than that of the outcomes.
    """
    return max(TIE, _SINGLE_PRECISION * n_treated / denominator) if denominator > 0.0 else TIE


def set_ties(null: Array, observed: Array, tie: float = TIE) -> None:
    """Set null statistics that differ from the observed by rounding equal to them, in place.

    A resample that is the data, or as large with the other sign, then counts as such, and both
    tails hold it.

    Parameters
    ----------
    null : (resamples, programs) array
    observed : (programs,) array
    tie : float
        See `staged_p_values`.
    """
    from plait.crt.resampling_kernels import set_near

    set_near(null, observed, tie)


def _stop_at_last_exceedance(
    exceeds: NDArray[np.bool_],
    wanted: int,
    done: int,
    is_open: NDArray[np.bool_],
    p: Array,
    used: NDArray[np.int64],
    counts: NDArray[np.int64],
) -> None:
    """Close the programs whose last wanted exceedance is in this block, at that resample."""
    totals = counts + np.cumsum(exceeds, axis=0)
    for k in np.flatnonzero(is_open & (totals[-1] >= wanted)):
        used[k] = done + int(np.searchsorted(totals[:, k], wanted)) + 1
        p[k], counts[k] = wanted / used[k], wanted
        is_open[k] = False


def _as_extreme(statistics: Array, side: str) -> Array:
    """Return the statistics such that larger is more extreme."""
    if side == "both":
        return np.abs(statistics)
    return -statistics if side == "left" else statistics
