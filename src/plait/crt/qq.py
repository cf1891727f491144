"""Coordinates of quantile-quantile plots of p-values."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import number_array, real_number, whole_number
from plait.errors import InputError, OptionError

Array = NDArray[np.float64]
SMALLEST_P = 1e-300


def qq_expected_grid(m: int) -> Array:
    """Return the expected order statistics ``(i - 0.5) / m`` of ``m`` uniform p-values.

    Parameters
    ----------
    m : int
        Number of p-values, at least 1.

    Returns
    -------
    (m,) array
        Ascending.

    Raises
    ------
    InputError
        ``m`` is not positive.
    InputTypeError
        It is no whole number (also a TypeError).
    """
    if whole_number(m, "m") <= 0:
        raise InputError(f"a QQ plot needs at least one p-value, and m is {m}.")
    return (np.arange(1, m + 1) - 0.5) / m


expected_quantiles = qq_expected_grid
"""programDE's second name of `qq_expected_grid`."""


def qq_coords(pvals: ArrayLike) -> tuple[Array, Array]:
    """Return expected and observed ``-log10 p``, the smallest p-value first.

    Parameters
    ----------
    pvals : array
        p-values of any shape; those that are not finite are left out, those below 1e-300 are
        raised to it.

    Returns
    -------
    x, y : (m,) arrays

    Raises
    ------
    InputError
        No p-value is finite.
    InputTypeError
        They are no numbers (also a TypeError).
    """
    p = number_array(pvals, "the array of p-values").ravel()
    p = np.sort(np.clip(p[np.isfinite(p)], SMALLEST_P, 1.0))
    return -np.log10(qq_expected_grid(len(p))), -np.log10(p)


def bootstrap_qq_envelope(
    pvals: ArrayLike, n_boot: int = 200, alpha: float = 0.10, seed: int = 0
) -> tuple[Array, Array, Array]:
    """Return the band in which a QQ curve lies when its p-values are resampled.

    Parameters
    ----------
    pvals : array
        p-values; those that are not finite are left out.
    n_boot : int
        Resamples with replacement.
    alpha : float
        Share outside the band at every rank, in (0, 1).
    seed : int

    Returns
    -------
    x, low, high : (m,) arrays
        Expected ``-log10 p`` and the band of the observed ones.

    Raises
    ------
    InputError
        No p-value is finite, ``n_boot`` is below 1 or ``alpha`` outside (0, 1).
    InputTypeError
        A value is no number, or not a whole one (also a TypeError).

    Notes
    -----
    Time O(n_boot m log m), memory 8 n_boot m bytes.
    """
    if whole_number(n_boot, "n_boot") < 1 or not 0.0 < real_number(alpha, "alpha") < 1.0:
        raise OptionError(f"n_boot is {n_boot} (at least 1) and alpha {alpha} (between 0 and 1).")
    x = qq_coords(pvals)[0]
    random = np.random.default_rng(whole_number(seed, "seed", least=0))
    values = np.clip(number_array(pvals, "the array of p-values").ravel(), SMALLEST_P, 1.0)
    values = values[np.isfinite(values)]
    resampled = np.empty((n_boot, len(x)))
    for row in resampled:
        row[:] = np.sort(random.choice(values, size=len(values), replace=True))
    low, high = np.percentile(-np.log10(resampled), [50 * alpha, 100 - 50 * alpha], axis=0)
    return x, low, high


def is_bh_adjusted_like(pvals: ArrayLike) -> bool:
    """Tell whether p-values look adjusted for multiple testing, which a QQ plot is not for.

    Adjusted values pile up at 1 (more than a fifth of them), or are large (mean above 0.6) and
    much tied (less than a fifth distinct).

    Parameters
    ----------
    pvals : array
        Those that are not finite are left out.

    Returns
    -------
    bool
        False for no p-values.

    Raises
    ------
    InputTypeError
        They are no numbers (also a TypeError).
    """
    p = number_array(pvals, "the array of p-values").ravel()
    p = p[np.isfinite(p)]
    if not len(p):
        return False
    at_one = float((p >= 1.0 - 1e-12).mean())
    return at_one > 0.2 or bool(p.mean() > 0.6 and len(np.unique(p)) / len(p) < 0.2)
