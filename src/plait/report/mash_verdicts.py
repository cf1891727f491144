"""Whether to believe a mash result: the traffic light and the settings behind it."""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from plait.data.words import counted
from plait.mash.results import FittedG, MashResult
from plait.numerics.mixture_weights import CERTIFIED
from plait.report.about import as_text, in_words, told
from plait.report.mash_findings import Findings
from plait.report.mash_words import WORDS
from plait.report.page import Verdict

_ENOUGH, _FEW = 1000, 100
_STRONG = 100
_HARDLY_NULL = 0.1
_AT_THE_EDGE = 0.01


def verdicts(result: MashResult, found: Findings, about: Mapping[str, Any]) -> list[Verdict]:
    """Return what was checked about a result, in the order in which one wants to know.

    Parameters
    ----------
    result : MashResult
    found : Findings
    about : mapping
        What is known from elsewhere: ``converged``, ``dual_gap``, ``train_size``; and ``doubts``,
        texts by title.
    """
    lamps: list[Verdict | None] = [_converged(result, about)]
    lamps.append(_enough(found, about))
    if isinstance(result.fitted_g, FittedG):
        lamps += [_null_weight(result.fitted_g, found), _grid(result.fitted_g)]
        lamps.append(_error_correlation(result.fitted_g))
    else:
        lamps.append(
            Verdict(
                "caution",
                "One context at a time",
                "Every context was analysed by itself (no patterns were learned): this is the "
                "screen that finds strong effects. For sharing, fit mash to all contexts.",
            )
        )
    lamps.append(_complete(found))
    doubts: Mapping[str, str] = about.get("doubts", {})
    own = [lamp for lamp in lamps if lamp is not None and lamp.title not in doubts]
    return own + [Verdict("caution", title, _sentence(text)) for title, text in doubts.items()]


def _sentence(text: str) -> str:
    """Return a warning as a sentence of the page, which names the options of commands alone."""
    text = re.sub(r"(--[\w-]+) \(\w+=\w*\)", r"\1", text)
    return text[:1].upper() + text[1:]


def _converged(result: MashResult, about: Mapping[str, Any]) -> Verdict:
    known = dict(result.optim) | dict(about)
    if known.get("method") == "fixed" or about.get("command") == "apply":
        return Verdict(
            "good",
            "Weights given",
            "The weights come from an earlier fit and were not fitted here.",
        )
    gap, converged = known.get("dual_gap"), known.get("converged")
    if gap is None and converged is None:
        return Verdict(
            "unknown",
            "Convergence not recorded",
            "The file does not say whether the weights converged. Keep the .json file that plait "
            "mash fit writes next to the .npz, or save a store.",
        )
    proof = "" if gap is None else (
        f" Dual gap {float(gap):.1e}: the mean log-likelihood per effect is provably within this "
        f"of the best possible (certified below {CERTIFIED:.0e})."
    )  # fmt: skip
    if converged:
        return Verdict("good", "Converged", f"The mixture weights are at their optimum.{proof}")
    return Verdict(
        "bad",
        "Not converged",
        f"The mixture weights are not certified to be the best ones.{proof} Fit again with "
        "--optmethod mixsqp or more iterations before using any number of this page.",
    )


def _enough(found: Findings, about: Mapping[str, Any]) -> Verdict:
    n, strong = found.n_effects, found.n_anywhere
    trained = about.get("train_size")
    how = f"{counted(n, 'effect')}, {strong:,} of them significant"
    if isinstance(trained, int) and trained < n:
        how += f"; the weights were fitted on {trained:,}, weighted to stand for all"
    if n < _FEW:
        return Verdict(
            "bad",
            "Too few effects",
            f"{how}. mash learns the prior from the effects; with fewer than {_FEW} the prior is "
            "hardly known, and with it every lfsr.",
        )
    if n < _ENOUGH or strong < _STRONG:
        what = f"fewer than {_ENOUGH:,} effects" if n < _ENOUGH else "few significant ones"
        return Verdict(
            "caution",
            "Little data",
            f"{how}. With {what} the patterns and their weights are roughly known only.",
        )
    return Verdict("good", "Enough data", f"{how}.")


def _null_weight(prior: FittedG, found: Findings) -> Verdict:
    if not prior.usepointmass:
        return Verdict(
            "caution",
            "No null component",
            "The prior holds no effects of exactly zero, so lfsr only speaks of the sign.",
        )
    null = float(prior.pi[0])
    if null < _HARDLY_NULL:
        return Verdict(
            "caution",
            "Few null effects",
            f"Only {null:.1%} of effects are estimated to be null. Were they selected for being "
            "significant, or is something shared by all of them (relatedness, population "
            "structure)? Then every lfsr is too small: fit on all effects or a random subset.",
        )
    if found.n_anywhere == 0 or null > 0.999:
        return Verdict(
            "caution",
            "Nearly all effects null",
            f"{null:.1%} of effects are estimated to be null: there is little to learn from.",
        )
    return Verdict(
        "good",
        "Plausible share of null effects",
        f"{null:.1%} of effects are estimated to be null in every context, so there is a "
        "background that the significant ones stand out from.",
    )


def _grid(prior: FittedG) -> Verdict | None:
    """Say when the largest prior size carries weight: then larger ones may be missing."""
    start = int(prior.usepointmass)
    table = np.asarray(prior.pi)[start:].reshape(len(prior.grid), len(prior.Ulist))
    last = float(table[int(np.argmax(prior.grid))].sum())
    if last <= _AT_THE_EDGE or len(prior.grid) < 2:
        return None
    return Verdict(
        "caution",
        "Effects at the end of the grid",
        f"The largest prior standard deviation ({float(np.max(prior.grid)):.3g}) carries "
        f"{last:.1%} of the weight: larger effects may be shrunken too much. Give a wider --grid.",
    )


def _error_correlation(prior: FittedG) -> Verdict:
    V = prior.V_hint
    if V is None:
        return Verdict(
            "unknown",
            "Error correlation not recorded",
            "The file does not say whether the fit knew how errors correlate between contexts "
            "(--v). Where contexts share samples and it did not, noise is taken for sharing.",
        )
    if np.array_equal(V, np.eye(len(V))):
        return Verdict(
            "unknown",
            "Errors taken as independent",
            "No correlation of the errors between contexts was given. Right where contexts share "
            "no samples; where they do, noise is taken for sharing (estimate it with plait mash "
            "estimate-null-corr-simple).",
        )
    largest = float(np.max(np.abs(V - np.diag(np.diag(V)))))
    return Verdict(
        "good",
        "Error correlation accounted for",
        f"The fit knows how errors correlate between contexts (up to {largest:.2f}).",
    )


def _complete(found: Findings) -> Verdict | None:
    if not found.n_empty:
        return None
    cells = found.n_effects * found.n_contexts
    return Verdict(
        "caution",
        "Empty cells",
        f"{found.n_empty:,} of {counted(cells, 'posterior cell')} "
        f"{'holds' if found.n_empty == 1 else 'hold'} no number and "
        f"{'is' if found.n_empty == 1 else 'are'} left out.",
    )


_SAID = (
    "doubts", "same_unit", "loglik", "n_effects", "n_conditions", "n_components_active", "alpha",
    "usepointmass", "null_loglik_total", "alt_loglik_total", "version", "seconds",
)  # fmt: skip
"""What a command records that stands elsewhere on the page."""


def settings_of(
    result: MashResult, found: Findings, about: Mapping[str, Any]
) -> dict[str, dict[str, str]]:
    """Return every setting, version and input in words, by heading."""
    from plait import __version__

    recorded = {name: value for name, value in about.items() if name not in _SAID}
    # A posterior whose weights were given says so; the fit that gave them says more.
    fitted = dict(result.optim) | recorded
    fitted.pop("seconds", None)
    origin = result.provenance
    chosen = {} if origin is None else dict(origin.options)
    if "outputlevel" in chosen:
        chosen["outputlevel"] = str(chosen["outputlevel"])
    chosen.pop("alpha", None)
    groups: dict[str, dict[str, Any]] = {
        "This page": {"plait": __version__, "significant: lfsr below": found.level},
        "Model": _model(result, found),
        "Mixture weights": in_words(fitted, WORDS),
    }
    return as_text(groups) | told(chosen, origin, WORDS, "How effects were estimated")


def _model(result: MashResult, found: Findings) -> dict[str, Any]:
    model: dict[str, Any] = {
        "effects": f"{found.n_effects:,}",
        "contexts": found.n_contexts,
        "alike between effects (--alpha)": {0.0: "effects (0)", 1.0: "z-scores (1)"}.get(
            float(result.alpha), f"between effects and z-scores ({result.alpha:g})"
        ),
        "log-likelihood": f"{result.loglik:,.3f}",
    }
    prior = result.fitted_g
    if isinstance(prior, FittedG):
        model |= {
            "covariances (--cov-methods, --ulist)": list(prior.Ulist),
            "standard deviations that scale them (--grid)": [float(f"{g:.4g}") for g in prior.grid],
            "null component": "yes" if prior.usepointmass else "no",
            "components with weight": f"{int(np.sum(prior.pi > 1e-10))} of {len(prior.pi)}",
        }
    return model
