"""What each unit of a screen under the null looks like, and whether p-values are uniform."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.ranks import rank_columns
from plait.data.p_values import p_value_text
from plait.data.words import counted
from plait.errors import InputError, ShapeError
from plait.numerics.uniformity import Uniformity, uniformity

Array = NDArray[np.float64]
UNIT_TYPES = ("real_gene", "ntc_group")
_SMALLEST_DENOMINATOR = 1e-12
_ONE = 1.0 - 1e-12
_SEPARATED = 1e-4
_LEVEL = 0.01
"""Of the test that calls p-values uniform or not."""
_FEWEST_TOLD = 50
"""p-values of which fewer are not said to be uniform: the test then sees only gross departures."""
_QUANTILES = {"q10": 0.1, "median": 0.5, "q90": 0.9}
_OF_UNIT = ("x_mean", "n_treated", "p_hat_mean")
_FRACTIONS = {
    "den_is_bad_frac": "den_is_bad",
    "beta_obs_nan_frac": "beta_obs_nan",
    "pvals_raw_eq1_frac": "pvals_raw_eq1_frac",
    "pvals_skew_eq1_frac": "pvals_skew_eq1_frac",
    "propensity_separation_frac": "propensity_separation_flag",
}
UNIT_FIELDS = (
    "unit_id", "unit_type", "guide_count", "x_mean", "n_treated", "n_control", "u_norm", "den",
    "den_is_bad", "beta_obs_nan", "pmin_raw", "pvals_raw_eq1_frac", "pmin_skew",
    "pvals_skew_eq1_frac", "p_hat_mean", "p_hat_min", "p_hat_max", "p_hat_var",
    "propensity_separation_flag", "propensity_auc", "null_nan_frac", "beta_null_mean",
    "beta_null_sd", "beta_null_skew", "null_z_mean", "null_z_sd", "null_z_skew", "z_obs", "p_raw",
    "p_skew", "seed_base", "skip_reason",
)  # fmt: skip
"""Columns of a table of units."""


def unit_diagnostics(
    unit_id: str,
    unit_type: str,
    treated: ArrayLike,
    design: Array,
    *,
    guide_count: int,
    seed_base: int,
    denominator: float = np.nan,
    probabilities: Array | None = None,
    beta: Array | None = None,
    null: Array | None = None,
    p_raw: Array | None = None,
    p_skew: Array | None = None,
) -> dict[str, Any]:
    """Return what one unit looks like: its treatment, propensities, null and p-values.

    Parameters
    ----------
    unit_id, unit_type : str
        The type is "real_gene" or "ntc_group".
    treated : (n1,) array of int
        Treated cells.
    design : (cells, p) array
        Covariates C.
    guide_count, seed_base : int
    denominator : float
        ``D = x'Mx``.
    probabilities : (cells,) array, optional
        Propensities; this and what follows are not needed where no cell or every cell is treated.
    beta : (K,) array
    null : (B, K) array
        The statistic in resamples.
    p_raw, p_skew : (K,) arrays

    Returns
    -------
    dict
        Of `UNIT_FIELDS`; what is of one program is of the first.

    Raises
    ------
    ShapeError
        The propensities are not of the cells of the design.
    InputError
        Some of the arrays are missing although treated and untreated cells are there.
    """
    cells = np.asarray(treated, dtype=np.intp)
    n_cells = len(design)
    record: dict[str, Any] = dict.fromkeys(UNIT_FIELDS, np.nan)
    record |= {
        "unit_id": unit_id,
        "unit_type": unit_type,
        "guide_count": int(guide_count),
        "x_mean": len(cells) / n_cells,
        "n_treated": len(cells),
        "n_control": n_cells - len(cells),
        "u_norm": float(np.linalg.norm(design[cells].sum(axis=0))),
        "seed_base": seed_base,
        "skip_reason": "",
    }
    if not 0 < len(cells) < n_cells:
        return record | {"skip_reason": "all_or_none"}
    given = (probabilities, beta, null, p_raw, p_skew)
    if any(values is None for values in given):
        raise InputError(
            f"the unit {unit_id!r} has treated and untreated cells; give its propensities, "
            "effects, resamples and p-values."
        )
    p_hat, effects, draws, raw, skew = (np.asarray(v, dtype=np.float64) for v in given)
    if p_hat.shape != (n_cells,):
        raise ShapeError(f"propensities have shape {p_hat.shape} for {counted(n_cells, 'cell')}.")
    record |= {
        "den": float(denominator),
        "den_is_bad": bool(denominator <= _SMALLEST_DENOMINATOR),
        "beta_obs_nan": bool(np.isnan(effects).any()),
        "pmin_raw": float(raw.min()),
        "pvals_raw_eq1_frac": float((raw >= _ONE).mean()),
        "pmin_skew": float(skew.min()),
        "pvals_skew_eq1_frac": float((skew >= _ONE).mean()),
        "null_nan_frac": float(np.isnan(draws).mean()),
        "p_raw": float(raw[0]),
        "p_skew": float(skew[0]),
    }
    return record | _of_propensities(p_hat, cells) | _of_null(draws[:, 0], float(effects[0]))


def _of_propensities(p_hat: Array, cells: NDArray[np.intp]) -> dict[str, Any]:
    low, high = float(p_hat.min()), float(p_hat.max())
    ranks = rank_columns(p_hat[:, None])[:, 0]
    n1, n0 = len(cells), len(p_hat) - len(cells)
    # Mann and Whitney's U over the number of pairs: how often a treated cell has the larger one.
    auc = (ranks[cells].sum() - n1 * (n1 + 1) / 2) / (n1 * n0)
    return {
        "p_hat_mean": float(p_hat.mean()),
        "p_hat_min": low,
        "p_hat_max": high,
        "p_hat_var": float(p_hat.var()),
        "propensity_separation_flag": low < _SEPARATED or high > 1.0 - _SEPARATED,
        "propensity_auc": float(auc),
    }


def _of_null(null: Array, observed: float) -> dict[str, float]:
    draws = null[np.isfinite(null)]
    if not len(draws):
        return {}
    mean, sd = float(draws.mean()), float(draws.std())
    found = {"beta_null_mean": mean, "beta_null_sd": sd, "beta_null_skew": skewness(draws)}
    if not sd > 0:
        return found
    z = (draws - mean) / sd
    return found | {
        "null_z_mean": float(z.mean()),
        "null_z_sd": float(z.std()),
        "null_z_skew": skewness(z),
        "z_obs": (observed - mean) / sd,
    }


def skewness(values: Array) -> float:
    """Return the bias-corrected skewness of a sample; NaN of fewer than 3 or equal values."""
    n = len(values)
    centred = values - values.mean()
    variance = float((centred**2).mean())
    if n < 3 or not variance > 0:
        return float("nan")
    return float((centred**3).mean() / variance**1.5 * np.sqrt(n * (n - 1)) / (n - 2))


def diagnostics_summary(
    records: Sequence[Mapping[str, Any]], *, B: int, seed_base: int
) -> dict[str, Any]:
    """Summarise the units of a screen under the null.

    Parameters
    ----------
    records : sequence of dict
        Of `unit_diagnostics`.
    B, seed_base : int
        Resamples and seed of the run.

    Returns
    -------
    dict
        ``B``, ``seed_base``, ``n_units``; for each type of unit its number, quantiles
        (``q10``, ``median``, ``q90``) of ``x_mean``, ``n_treated`` and ``p_hat_mean``, shares of
        bad denominators, missing effects, p-values of 1 and separated propensities, and under
        ``calibration`` how the first program's p-values compare with uniform ones, under
        ``calibration_by_treated`` the same of the thirds with fewest, middling and most treated
        cells; the shares of all units as ``overall_...``.
    """
    summary: dict[str, Any] = {"B": B, "seed_base": seed_base, "n_units": len(records)}
    for unit_type in UNIT_TYPES:
        own = [record for record in records if record["unit_type"] == unit_type]
        if own:
            summary[unit_type] = _summary_of_type(own, B)
    return summary | {f"overall_{name}": value for name, value in _shares(records).items()}


def _summary_of_type(records: Sequence[Mapping[str, Any]], B: int) -> dict[str, Any]:
    summary: dict[str, Any] = {"n_units": len(records)}
    for name in _OF_UNIT:
        values = _finite(records, name)
        for label, q in _QUANTILES.items():
            key = f"{name}_{label}"
            summary[key] = float(np.quantile(values, q)) if len(values) else None
    summary |= _shares(records)
    tested = {"raw": (_finite(records, "p_raw"), B), "skew": (_finite(records, "p_skew"), None)}
    summary["calibration"] = {
        name: asdict(uniformity(p, resamples=resamples)) if len(p) else None
        for name, (p, resamples) in tested.items()
    }
    third = thirds([record["n_treated"] for record in records])
    summary["calibration_by_treated"] = {
        name: {
            label: asdict(found)
            for label, found in uniformity_by(
                [record[column] for record in records], third, resamples=resamples
            ).items()
        }
        for name, column, resamples in (("raw", "p_raw", B), ("skew", "p_skew", None))
    }
    return summary


def _shares(records: Sequence[Mapping[str, Any]]) -> dict[str, float | None]:
    values = {name: _finite(records, column) for name, column in _FRACTIONS.items()}
    return {name: float(v.mean()) if len(v) else None for name, v in values.items()}


def _finite(records: Sequence[Mapping[str, Any]], name: str) -> Array:
    values = np.array([float(record[name]) for record in records])
    finite: Array = values[np.isfinite(values)]
    return finite


def uniformity_by(
    p_values: ArrayLike, strata: ArrayLike, *, resamples: int | None = None, level: float = 1e-3
) -> dict[str, Uniformity]:
    """Compare the p-values of each stratum of units with uniform ones.

    Parameters
    ----------
    p_values : (units,) or (units, K) array
        Programs of one unit share its resamples, so goodness of fit is for one program only.
    strata : (units,) array
        Such as a type of unit, or `thirds` of the treated cells.
    resamples, level
        See `plait.numerics.uniformity.uniformity`.

    Returns
    -------
    dict
        Stratum to how its p-values compare, in sorted order, of those with finite p-values.

    Raises
    ------
    ShapeError
        There is not one stratum for each unit.
    """
    p, labels = np.asarray(p_values, dtype=np.float64), np.asarray(strata).astype(str)
    if labels.shape != p.shape[:1]:
        raise ShapeError(f"p-values have shape {p.shape} and strata {labels.shape}.")
    return {
        str(label): uniformity(p[labels == label], resamples=resamples, level=level)
        for label in np.unique(labels)
        if np.isfinite(p[labels == label]).any()
    }


def uniformity_words(found: Uniformity | Mapping[str, Any]) -> str:
    """Say whether p-values are uniform, and by which numbers.

    Parameters
    ----------
    found : Uniformity or mapping
        One, or its fields by name as in `diagnostics_summary`.

    Returns
    -------
    str
        "uniform" where Kolmogorov and Smirnov's test has p of 0.01 or more, "too small" or "too
        large" where it has less, by the median. Of fewer than 50 p-values that it does not reject,
        that they cannot tell.
    """
    about = found if isinstance(found, Mapping) else asdict(found)
    numbers = (
        f"Kolmogorov-Smirnov p {_p_text(about['ks_p'])} for {about['count']:,} of them, inflation "
        f"{about['inflation']:.2f}"
    )
    if about["ks_p"] >= _LEVEL and about["count"] < _FEWEST_TOLD:
        return f"so few p-values cannot tell whether they are uniform ({numbers})"
    if about["ks_p"] >= _LEVEL:
        return f"p-values look uniform ({numbers})"
    how = "too small" if about["inflation"] > 1.0 else "too large or too much alike"
    return f"p-values are NOT uniform but {how} ({numbers})"


def _p_text(p: float) -> str:
    return "< 1e-300" if p < 1e-300 else f"= {p_value_text(math.log10(p))}"


def thirds(values: ArrayLike) -> NDArray[np.str_]:
    """Return "low", "middle" or "high" for the third that each value is in; equal ones together."""
    numbers = np.asarray(values, dtype=np.float64)
    edges = np.quantile(numbers, [1 / 3, 2 / 3])
    return np.array(["low", "middle", "high"])[np.searchsorted(edges, numbers, side="left")]


def summary_text(summary: Mapping[str, Any]) -> str:
    """Return a summary as JSON of two blanks' indent; what is not finite is null."""

    def plain(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): plain(v) for key, v in value.items()}
        if isinstance(value, (list, tuple)):
            return [plain(v) for v in value]
        if isinstance(value, np.generic):
            value = value.item()
        return None if isinstance(value, float) and not np.isfinite(value) else value

    return json.dumps(plain(summary), indent=2)
