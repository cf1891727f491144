"""Whether to believe the tests of a perturbation screen: the traffic light and its reasons."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.ntc_empirical import FEWEST_GUIDES, are_few_guides
from plait.crt.results import CRTResult
from plait.data.p_values import p_value_text
from plait.data.words import counted, listed
from plait.numerics.dependent_shares import (
    clustered_effective,
    effective_tests,
    share_interval,
)
from plait.report.page import Verdict

Array = NDArray[np.float64]

LEVEL = 0.05
"""Of negative controls: the share of their p-values below this should be as large."""
CHANCE = "That is what chance gives."
_FEWEST_CONTROLS = 5
_CONTROL_NAME = re.compile(
    r"(^|[^a-z0-9])(ntc?|neg|safe|ctrl|scr|luc|[el]?gfp|lacz|rosa26|aavs1)[0-9]*([^a-z0-9]|$)"
    r"|non.?target|negative|safe.?target|control|scramble|intergenic",
    re.IGNORECASE,
)
"""What targets of guides that do nothing are called, beside the names that are known."""
_GROSS, _TOLD_APART = 1.5, 3.0
_FEW_TREATED, _MOST_NAMED, _WORST_NAMED = 20, 24, 5
_NEARLY_ALL = 0.95
"""Share of perturbations with enough treated cells from which on there are enough of them."""
_GROUPS, _TARGETS = "groups of negative-control guides", "negative-control targets"
_CELL = "treated cell"
NON_TARGETING_GROUPS = "groups of non-targeting guides"
_ONE = {
    _GROUPS: "group of negative-control guides",
    _TARGETS: "negative-control target",
    NON_TARGETING_GROUPS: "group of non-targeting guides",
}
_HOW_GROUPS = (
    " plait crt run makes groups of negative-control guides, which share none, where the screen "
    "has enough such guides and other targets."
)
_MISTRUST = (
    "Guides without an effect look as if they had one: do not take discoveries at face value."
)
PERTURBED_THEMSELVES = (
    "In a screen with one guide per cell the cells compared with are perturbed themselves, and "
    "even controls differ from them"
)
_AGAINST_CONTROLS = ", or take --null ntc-empirical, where controls are the null"
_CONFOUNDER = (
    "Otherwise a confounder is missing from the covariates, or cells of one lane or batch share "
    "it: add it"
)
_OF_STRATA = (
    "It learns only from strata (cells of one batch and of like propensity) that have both treated "
    "and untreated cells"
)
_BINS = "20 bins of the propensity are too few where treatment goes strongly with covariates"
_GUIDE = "docs/crt.md says when"
_TOO_LARGE = (
    "With so few, p-values are too large where the number of treated cells is drawn, too: "
    "--sampler stratified keeps it (docs/crt.md has the sizes)."
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


def judged_controls(
    result: CRTResult, controls: CRTResult | None
) -> tuple[CRTResult, NDArray[np.bool_], str]:
    """Return the tests of negative controls: a result, which of its units, what they are."""
    if controls is not None:
        return controls, controls.status == "ok", _GROUPS
    return result, result.is_control & (result.status == "ok"), _TARGETS


def control_p_values(result: CRTResult, controls: CRTResult | None) -> tuple[Array, str]:
    """Return log10 p of the negative controls (units, programs), and what the units are."""
    judged, chosen, what = judged_controls(result, controls)
    return judged.log10p[chosen], what


def calibration(result: CRTResult, controls: CRTResult | None) -> Verdict:
    """Judge the p-values of negative controls.

    Programs of one unit are dependent as their usages are given the covariates, which says how
    many independent tests they stand for; where that is not known, their p-values say it.
    """
    judged, chosen, what = judged_controls(result, controls)
    log10p = judged.log10p[chosen]
    if controls is None and result.settings.get("method") == "ntc-empirical":
        return _among_controls(result)
    if len(log10p) < _FEWEST_CONTROLS:
        count, name = len(log10p), what if len(log10p) != 1 else _ONE[what]
        more = "" if controls is not None else _HOW_GROUPS
        return Verdict(
            "unknown",
            "Calibration not checked",
            f"There {'is' if count == 1 else 'are'} {count} {name}, too few to see whether "
            f"p-values are uniform: at least {_FEWEST_CONTROLS} are needed.{more}"
            f"{_named_otherwise(result, controls)}",
        )
    units = np.repeat(np.arange(len(log10p)), log10p.shape[1])
    sides = 2 if judged.settings.get("side", "both") == "both" else 1
    if judged.residual_correlation is None:
        effective = clustered_effective(10.0 ** log10p.ravel(), LEVEL, units, sides=sides)
    else:
        effective = len(log10p) * effective_tests(judged.residual_correlation, LEVEL, sides)
    return share_verdict(log10p.ravel(), units, effective, what, _remedy(judged))


def like_controls(targets: Iterable[str]) -> list[str]:
    """Return the targets whose names look like those of negative controls."""
    return [name for name in dict.fromkeys(targets) if _CONTROL_NAME.search(name)]


def _named_otherwise(result: CRTResult, controls: CRTResult | None) -> str:
    """Say how controls are found, where none are."""
    if controls is not None or result.is_control.any():
        return ""
    found = like_controls(result.units)
    seen = f" These look like controls: {listed(found)}." if found else ""
    return f" If controls are targets of another name, say which: --controls NAME.{seen}"


def _remedy(judged: CRTResult) -> str:
    """Say why p-values may be too small; controls are a null only where they are many."""
    guides, size = (judged.settings.get(name) for name in ("control_guides", "guides_of_target"))
    are_many = guides is not None and size is not None and not are_few_guides(guides, size)
    return (
        f"{PERTURBED_THEMSELVES}: test cells of one target and of non-targeting guides alone"
        f"{_AGAINST_CONTROLS if are_many else ''}. {_CONFOUNDER}{_strata_advice(judged)}"
    )


def _strata_advice(judged: CRTResult) -> str:
    """Say what strata can do about a confounder, and what they cannot; ends a sentence."""
    if judged.settings.get("sampler") != "stratified":
        return f", or test with --sampler stratified ({_GUIDE}). {_OF_STRATA}, and {_BINS}."
    ranks = judged.settings.get("ranks")
    are_raw = isinstance(ranks, Mapping) and ranks.get("use") != "residual"
    what = (
        "rank log-ratios given the covariates (ranks={'use': 'residual'}), for which strata adjust "
        "only in part"
        if are_raw
        else f"make more strata, as {_BINS}"
    )
    return f", or {what} ({_GUIDE})."


def _among_controls(result: CRTResult) -> Verdict:
    """Judge p-values among pseudo-genes by how many guides these are made of."""
    guides, size = (result.settings.get(name) for name in ("control_guides", "guides_per_unit"))
    said = (
        "P-values are shares of pseudo-genes made of negative-control guides, so that these guides "
        "cannot check them."
    )
    if guides is None or size is None or not are_few_guides(guides, size):
        return Verdict(
            "unknown", "Calibration not checked", f"{said} They hold if the guides do nothing."
        )
    return Verdict(
        "caution",
        "P-values may be too small",
        f"{said} Controls have {counted(guides, 'guide')}, and pseudo-genes of {size:,} share so "
        "many of them that they differ less than targets do. "
        f"{FEWEST_GUIDES * size:,} guides are needed; with these, do not rely on weak findings, or "
        "leave --null out.",
    )


def share_verdict(
    log10p: Array,
    groups: NDArray[Any],
    effective: float,
    what: str,
    remedy: str = "",
    more: str = "",
) -> Verdict:
    """Judge whether as many p-values are below 0.05 as chance makes.

    Parameters
    ----------
    log10p : (n,) array
        Of tests without an effect.
    groups : (n,) array
        Labels of the units that they are of.
    effective : float
        How many independent tests they stand for.
    what : str
        What the units are, in the plural.
    remedy : str
        Why p-values may be too small, and what to do.
    more : str
        What else was found in these tests.

    Notes
    -----
    The 95 % interval of the share (`plait.numerics.dependent_shares.share_interval`) decides. "Too
    small": all of it is above 7.5 %, and without the unit with most small p-values above 5 %, so
    that one guide that does something does not condemn the others. "May be too small": it is above
    5 %. "Too large": it is below 3.3 %. "Too few": it reaches beyond 15 %.
    """
    is_below = _below(log10p)
    share, count = float(is_below.mean()), len(log10p)
    low, high = share_interval(share, effective)
    names, codes = np.unique(groups, return_inverse=True)
    said = (
        f"{share:.1%} of {counted(count, 'p-value')} of {len(names):,} "
        f"{what if len(names) != 1 else _ONE[what]} are below {LEVEL:g}, where "
        f"{LEVEL:.0%} are expected (95% interval {low:.1%} to {high:.1%})."
        f"{' ' if more else ''}{more}"
    )
    if low > LEVEL:
        rest = codes != np.argmax(np.bincount(codes, is_below - LEVEL))
        others = float(is_below[rest].mean()) if rest.any() else 0.0
        is_common = share_interval(others, effective * float(rest.mean()))[0] > LEVEL
        if low > _GROSS * LEVEL and is_common:
            return Verdict("bad", "P-values too small", f"{said} {_MISTRUST} {remedy}".strip())
        where = "" if is_common else " Most of it comes from one of them."
        return Verdict(
            "caution",
            "P-values may be too small",
            f"{said}{where} Read weak findings with care.",
        )
    if high < LEVEL / _GROSS:
        return Verdict(
            "caution", "P-values too large", f"{said} Findings are safe, but some are missed."
        )
    if high > _TOLD_APART * LEVEL:
        return Verdict("unknown", "Too few controls to tell", f"{said} So few cannot tell much.")
    return Verdict("good", "Calibrated", f"{said} {CHANCE}")


def _below(log10p: Array) -> NDArray[np.bool_]:
    return np.asarray(log10p < np.log10(LEVEL))


def _resolution(result: CRTResult, level: float) -> Verdict | None:
    method, resamples = result.settings.get("method"), result.settings.get("resamples")
    if result.q is None:
        return None
    if method == "empirical" and resamples:
        smallest, how = 1.0 / (resamples + 1.0), f"Counted in {counted(resamples, 'resample')}"
        better = "--method analytic has no such limit."
    elif method == "ntc-empirical" and "smallest_p" in result.settings:
        smallest, how = result.settings["smallest_p"], "Counted among pseudo-genes of like targets"
        better = "Without --null there is no such limit."
    else:
        return None
    tests = int(np.isfinite(result.q).sum())
    needed = level / max(tests, 1)
    if smallest <= needed:
        return None
    return Verdict(
        "caution",
        "P-values cannot be small",
        f"{how}, no p-value is below {p_value_text(np.log10(smallest))}, while the first of "
        f"{counted(tests, 'test')} needs {p_value_text(np.log10(needed))} for a false discovery "
        f"rate of {level:g}: an effect that stands alone cannot be found. "
        f"{better}",
    )


def _tested(result: CRTResult) -> Verdict:
    left = result.untested(most=_MOST_NAMED)
    if not left:
        return Verdict(
            "good", "All tested", f"All were tested: {counted(len(result.units), 'perturbation')}."
        )
    return Verdict(
        "caution",
        "Some not tested",
        f"Not tested, with p = 1: {left}.",
    )


def _cells(result: CRTResult) -> Verdict:
    """Judge whether perturbations have enough treated cells to show effects.

    "Few": fewer than 20, below which analytic p-values are drawn, too. Nearly all have enough: at
    least 95 % of them.
    """
    chosen = np.flatnonzero((result.status == "ok") & ~result.is_control)
    treated = result.n_treated[chosen]
    if not len(treated):
        return Verdict("bad", "Nothing tested", "No perturbation could be tested.")
    count, few = len(treated), int((treated < _FEW_TREATED).sum())
    middle = (
        f"The median is {counted(int(np.median(treated)), _CELL)} ({int(treated.min()):,} to "
        f"{int(treated.max()):,})."
    )
    if count == 1:
        middle = f"The one perturbation that was tested has {counted(int(treated[0]), _CELL)}."
    if not few:
        said = f"All {count:,} perturbations have at least {_FEW_TREATED} treated cells. {middle}"
        return Verdict("good", "Enough treated cells", middle if count == 1 else said)
    worst = chosen[np.argsort(treated, kind="stable")[:few]]
    names = [f"{result.units[j]} ({int(result.n_treated[j]):,})" for j in worst]
    said = (
        f"{few:,} of {counted(count, 'perturbation')} ({few / count:.1%}) "
        f"{'has' if few == 1 else 'have'} fewer than {_FEW_TREATED} treated cells, so that only "
        f"large effects of {'it' if few == 1 else 'these'} can be seen, and that none was found "
        f"says little: {listed(names, _WORST_NAMED)}. {middle}"
    )
    if few <= (1.0 - _NEARLY_ALL) * count:
        return Verdict("good", "Enough treated cells", said)
    if result.settings.get("sampler") == "bernoulli":
        said += f" {_TOO_LARGE}"
    if few > count / 2:
        return Verdict("bad", "Few treated cells", said)
    return Verdict("caution", "Some have few treated cells", said)


def _fits(result: CRTResult) -> Verdict | None:
    if result.skew_status is None:
        return None
    status = result.skew_status[result.status == "ok"]
    refused = float((status != "ok").mean()) if status.size else 0.0
    said = f"{refused:.1%} of the skew-normal fits were refused, and draws counted instead."
    if refused > 0.2:
        return Verdict("caution", "Skew-normal fits refused", said)
    return Verdict("good", "Skew-normal fits accepted", said)
