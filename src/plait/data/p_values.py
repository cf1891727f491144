"""p-values as text and as logarithms: they go below what a double can hold."""

import math
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike, NDArray

if TYPE_CHECKING:
    from polars import Series

Array = NDArray[np.float64]
_LN10 = math.log(10.0)
_LN2 = math.log(2.0)
_EXACT = 1e-300
"""Doubles below this have lost digits or will."""
_NUMBER = r"^\s*([+-]?(?:\d+\.?\d*|\.\d+))(?:[eEdD]([+-]?\d+))?\s*$"


def log10_of_text(values: "Series") -> Array:
    """Return log10 of numbers written as text, such as ``1.2e-412``.

    Parameters
    ----------
    values : polars.Series
        Text, or numbers; null where missing.

    Returns
    -------
    (M,) array
        NaN where missing, not a number, zero or negative.
    """
    import polars as pl

    if values.dtype == pl.String:
        values = values.str.strip_chars()
    numbers = values.cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy().copy()
    with np.errstate(divide="ignore", invalid="ignore"):
        logs: Array = np.log10(numbers)
    logs[np.isinf(logs)] = np.nan
    small = (numbers >= 0) & (numbers < _EXACT)
    if values.dtype == pl.String and small.any():
        # Only the few that a double cannot hold are taken apart.
        rows = np.flatnonzero(small)
        parts = values.gather(rows).str.extract_groups(_NUMBER).struct.unnest()
        mantissa = parts["1"].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        exponent = parts["2"].cast(pl.Float64, strict=False).fill_null(0.0).to_numpy()
        with np.errstate(divide="ignore", invalid="ignore"):
            exact = np.log10(mantissa) + exponent
        logs[rows] = np.where(np.isfinite(exact), exact, np.nan)
    return logs


def log10_p_of_z(z: ArrayLike) -> Array:
    """Return log10 of the two-sided normal p-values of z, at any depth."""
    from scipy.special import log_ndtr

    result: Array = np.minimum(
        (log_ndtr(-np.abs(np.asarray(z, np.float64))) + _LN2) / _LN10,
        0.0,
    )
    return result


def absolute_z_of_log10_p(log10_p: ArrayLike) -> Array:
    """Return ``|z|`` of two-sided normal p-values given as log10 (at most 0), at any depth."""
    from plait.numerics.gaussian import z_from_log_tail

    result: Array = np.abs(z_from_log_tail(np.asarray(log10_p, np.float64) * _LN10 - _LN2))
    return result


def p_value_text(log10p: float, decimals: int = 1) -> str:
    """Return a p-value as text, also one that is below the smallest double.

    Parameters
    ----------
    log10p : float
    decimals : int
        Significant digits after the first: with 1 (the default) ``9.4e-7``, and ``0.00050``.

    Returns
    -------
    str
        With a power of ten at 1e-4 and below.
    """
    if log10p > -4:
        return f"{10.0**log10p:#.{decimals + 1}g}".removesuffix(".")
    exponent = int(np.floor(log10p))
    digits = f"{10.0 ** (log10p - exponent):.{decimals}f}"
    if float(digits) >= 10.0:  # rounded up
        digits, exponent = f"{1.0:.{decimals}f}", exponent + 1
    return f"{digits}e{exponent}"
