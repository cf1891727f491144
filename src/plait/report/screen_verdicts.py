"""Whether to believe the tests of a perturbation screen: the traffic light and its reasons."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from plait.crt.results import CRTResult
from plait.report.page import Verdict
from plait.report.words import counted, listed

Array = NDArray[np.float64]

LEVEL = 0.05
"""Of negative controls: the share of their p-values below this should be as large."""
_FEWEST_CONTROLS = 5
_LIKELY, _SURE = 2.0, 3.0
_GROSS, _TOLD_APART = 1.5, 3.0
_FEW_TREATED = 20
_REMEDY = (
    "A confounder is missing from the covariates, or cells of one lane or batch share it: add it, "
    "or test with --sampler stratified or --null ntc-empirical."
)


def verdicts(result: CRTResult, controls: CRTResult | None, level: float) -> list[Verdict]:
    """Return what was checked, in the order in which one wants to know.

    Parameters
    ----------
    result : CRTResult
    controls : CRTResult or None
        Groups of negative-control guides, tested like the perturbations.
    level : float
        False discovery rate of what is significant.
    """
    lamps = [
        calibration(result, controls),
        _resolution(result, level),
        _tested(result),
        _cells(result),
        _fits(result),
    ]
    return [lamp for lamp in lamps if lamp is not None]


def control_p_values(result: CRTResult, controls: CRTResult | None) -> tuple[Array, str]:
    """Return log10 p of the negative controls (units, programs), and what the units are."""
    if controls is not None:
        return controls.log10p[controls.status == "ok"], "groups of negative-control guides"
    chosen = result.is_control & (result.status == "ok")
    return result.log10p[chosen], "negative-control targets"


def calibration(result: CRTResult, controls: CRTResult | None) -> Verdict:
    """Judge the p-values of negative controls.

    Programs of one unit are dependent, so the error of the share of small p-values is taken over
    units.
    """
    log10p, what = control_p_values(result, controls)
    if len(log10p) < _FEWEST_CONTROLS:
        return Verdict(
            "unknown",
            "Calibration not checked",
            f"There are {len(log10p)} {what}, too few to see whether their p-values are uniform. "
            "plait crt run makes groups of negative-control guides where the screen has enough.",
        )
    return share_verdict(list(log10p), what, _REMEDY)


def share_verdict(groups: Sequence[Array], what: str, remedy: str = "") -> Verdict:
    """Judge whether as many p-values are below 0.05 as chance makes.

    Parameters
    ----------
    groups : sequence of (n,) arrays
        log10 p of each unit without an effect; its tests are dependent.
    what : str
        What the units are, in the plural.
    remedy : str
        What is advised where p-values are too small.
    """
    shares = np.array([float(np.mean(log10p < np.log10(LEVEL))) for log10p in groups])
    weights = np.array([len(log10p) for log10p in groups], dtype=np.float64)
    total = int(weights.sum())
    share = float(weights @ shares / total)
    # The error of the ratio of two sums over units.
    few = len(groups) / max(len(groups) - 1, 1)
    spread = float(np.sqrt(few * ((weights * (shares - share)) ** 2).sum())) / total
    error = max(spread, np.sqrt(LEVEL * (1 - LEVEL) / total))
    off = (share - LEVEL) / error
    said = (
        f"{share:.1%} of {total:,} p-values of {len(groups):,} {what} are below {LEVEL:g}, where "
        f"{LEVEL:.0%} are expected (standard error {error:.1%})."
    )
    if off > _SURE and share > _GROSS * LEVEL:
        return Verdict(
            "bad",
            "P-values too small",
            f"{said} Perturbations without an effect look as if they had one. {remedy}".strip(),
        )
    if off > _LIKELY:
        return Verdict(
            "caution", "P-values may be too small", f"{said} Read weak findings with care."
        )
    if off < -_SURE and share < LEVEL / _GROSS:
        return Verdict(
            "caution", "P-values too large", f"{said} Findings are safe, but some are missed."
        )
    if share + 2.0 * error > _TOLD_APART * LEVEL:
        return Verdict("unknown", "Too few controls to tell", f"{said} So few cannot tell much.")
    return Verdict("good", "Calibrated", f"{said} That is what chance gives.")


def _resolution(result: CRTResult, level: float) -> Verdict | None:
    resamples = result.settings.get("resamples")
    if result.settings.get("method") != "empirical" or not resamples or result.q is None:
        return None
    smallest, tests = 1.0 / (resamples + 1.0), int(np.isfinite(result.q).sum())
    needed = level / max(tests, 1)
    if smallest <= needed:
        return None
    return Verdict(
        "caution",
        "P-values cannot be small",
        f"Counted in {resamples:,} resamples, no p-value is below {smallest:.1e}, while the first "
        f"of {tests:,} tests needs {needed:.1e} for a false discovery rate of {level:g}: single "
        "effects cannot be found. --method analytic has no such limit.",
    )


def _tested(result: CRTResult) -> Verdict:
    names = {
        "degenerate": "no cell, every cell, or just what the covariates say is treated",
        "no_variation": "strata leave nothing to vary",
    }
    left = [
        f"{counted(len(units), 'perturbation')} ({text}: {listed(units)})"
        for status, text in names.items()
        if (units := [result.units[j] for j in np.flatnonzero(result.status == status)])
    ]
    if not left:
        return Verdict(
            "good", "All tested", f"All {len(result.units):,} perturbations were tested."
        )
    return Verdict(
        "caution",
        "Some not tested",
        f"Not tested, with p = 1: {', '.join(left)}.",
    )


def _cells(result: CRTResult) -> Verdict:
    treated = result.n_treated[result.status == "ok"]
    if not len(treated):
        return Verdict("bad", "Nothing tested", "No perturbation could be tested.")
    few = int((treated < _FEW_TREATED).sum())
    said = (
        f"Perturbations have {int(np.median(treated)):,} treated cells in the middle "
        f"({int(treated.min()):,} to {int(treated.max()):,})."
    )
    if few > len(treated) / 2:
        return Verdict(
            "caution",
            "Few treated cells",
            f"{said} {few:,} have fewer than {_FEW_TREATED}: only large effects can be seen.",
        )
    return Verdict("good", "Enough treated cells", said)


def _fits(result: CRTResult) -> Verdict | None:
    if result.skew_status is None:
        return None
    status = result.skew_status[result.status == "ok"]
    refused = float((status != "ok").mean()) if status.size else 0.0
    said = f"{refused:.1%} of the skew-normal fits were refused, and draws counted instead."
    if refused > 0.2:
        return Verdict("caution", "Skew-normal fits refused", said)
    return Verdict("good", "Skew-normal fits accepted", said)
