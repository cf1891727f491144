"""What is said about a mash result: the answer, the verdicts, the figures, the table."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted, listed
from plait.gwas.results import AssociationResult
from plait.mash.results import FittedG, MashResult
from plait.plot.sharing import clustered_order
from plait.report import figures as draw
from plait.report.about import moment, own_citation
from plait.report.mash_findings import MOST_ROWS, Findings, collect, labels_of
from plait.report.mash_verdicts import settings_of, verdicts
from plait.report.page import (
    Citation,
    EffectTable,
    Figure,
    Numbers,
    Page,
    Section,
    check_page,
    write_page,
)
from plait.report.scan import collect_scan, inflation_verdict, scan_section

Array = NDArray[np.float64]

QUESTION = "Which effects are real, and in which contexts are they shared?"
_SHOWN_PATTERNS = 6
_SHOWN_WEIGHTS = 16
_UNCERTAIN_SHOWN = 50
_CLUSTERED = 8

CITATIONS = (
    Citation(
        "Urbut SM, Wang G, Carbonetto P, Stephens M (2019). Flexible statistical methods for "
        "estimating and testing effects in genomic studies with multiple conditions. "
        "Nature Genetics 51, 187–195.",
        "https://doi.org/10.1038/s41588-018-0268-8",
        "@article{urbut2019mash,\n"
        "  title   = {Flexible statistical methods for estimating and testing effects in genomic "
        "studies with multiple conditions},\n"
        "  author  = {Urbut, Sarah M. and Wang, Gao and Carbonetto, Peter and Stephens, Matthew},\n"
        "  journal = {Nature Genetics},\n  volume  = {51},\n  pages   = {187--195},\n"
        "  year    = {2019},\n  doi     = {10.1038/s41588-018-0268-8}\n}",
    ),
)


def mash_page(
    result: MashResult,
    *,
    title: str | None = None,
    level: float = 0.05,
    described: Mapping[str, Any] | None = None,
    scan: AssociationResult | None = None,
    most: int = MOST_ROWS,
) -> Page:
    """Say everything there is to say about a mash result.

    Parameters
    ----------
    result : MashResult
        With a posterior. Its arrays may be lazy: they are read block by block, once.
    title : str, optional
    level : float
        Effects count as significant where their lfsr is below this.
    described : mapping, optional
        What ``plait mash fit`` wrote beside the arrays (``<out>.json``), used where the result
        itself does not know. ``same_unit`` false: contexts are in different units, so that
        sharing is told by signs.
    scan : AssociationResult, optional
        The scan that made the effects: its pictures and settings are on the page then. Its arrays
        may stay in their store.
    most : int
        Effects in the table.

    Returns
    -------
    Page

    Raises
    ------
    NotAvailableError
        The result holds no posterior.
    OptionError
        ``level`` is not between 0 and 1.
    """
    found = collect(result, level, most)
    contexts = _contexts(result, found.n_contexts)
    names = labels_of(result.effect_names, found.surest.rows)
    about = dict(described or {})
    lamps = verdicts(result, found, about)
    sections = _sections(result, found, contexts, about.get("same_unit", True))
    if scan is not None and scan.n_tested:
        scanned = collect_scan(scan)
        lamps.insert(0, inflation_verdict(scanned))
        sections.insert(0, scan_section(scan, scanned))
    return Page(
        title=title or "Effects across contexts",
        question=QUESTION,
        answer=answer(found, contexts, names, about.get("same_unit", True)),
        lead=_lead(found, contexts),
        verdicts=lamps,
        sections=sections,
        table=_table(found, contexts, names),
        settings=settings_of(result, found, about),
        citations=(own_citation(), *CITATIONS),
        origin=_origin(result, found, about),
    )


def write_mash_report(
    result: MashResult,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    level: float = 0.05,
    described: Mapping[str, Any] | None = None,
    scan: AssociationResult | None = None,
    overwrite: bool = False,
) -> Page:
    """Write a mash result as one self-contained HTML page.

    Parameters
    ----------
    result, title, level, described, scan
        As in `mash_page`.
    path : str or path
        The page: one file that needs no network.
    overwrite : bool
        Whether a file that exists is replaced.

    Returns
    -------
    Page
        What was written.

    Raises
    ------
    NotAvailableError, OptionError
        As in `mash_page`.
    OutputError
        The file exists or cannot be written.
    DependencyError
        jinja2 or plotly is not installed.
    """
    check_page(path, overwrite)
    name = title or Path(path).stem
    page = mash_page(result, title=name, level=level, described=described, scan=scan)
    write_page(page, path, overwrite)
    return page


def _contexts(result: MashResult, count: int) -> list[str]:
    names = result.condition_names
    if names is None or len(names) != count:
        return [f"context {i + 1}" for i in range(count)]
    return [str(name) for name in names]


def answer(
    found: Findings, contexts: Sequence[str], names: Sequence[str], same_unit: bool = True
) -> list[str]:
    """Return the answer in two sentences; sizes in different units are not compared."""
    where = f"{found.n_contexts} contexts" if found.n_contexts > 1 else "the one context"
    if found.n_anywhere == 0:
        return _no_answer(found, contexts, names, where)
    share = found.n_anywhere / found.n_effects
    first = (
        f"{found.n_anywhere:,} of {counted(found.n_effects, 'effect')} ({share:.1%}) "
        f"{'is' if found.n_anywhere == 1 else 'are'} significant (lfsr < {found.level:g}) in at "
        f"least one of {where}, and {_wrong(found.expected_wrong)}."
    )
    return [first, _sharing_sentence(found, contexts, same_unit)]


def _no_answer(
    found: Findings, contexts: Sequence[str], names: Sequence[str], where: str
) -> list[str]:
    second = "Nothing can therefore be said about sharing among real effects"
    best = found.surest.lfsr[0]
    if np.isfinite(best).any():
        r = int(np.nanargmin(best))
        second += (
            f"; the surest effect is {names[0]} in {contexts[r]}, with an lfsr of "
            f"{draw.rate_text(float(best[r]))}"
        )
    if found.n_effects == 1:
        return [
            f"The effect is not significant (lfsr < {found.level:g}) in any of {where}.",
            second + ".",
        ]
    return [
        f"None of {found.n_effects:,} effects is significant (lfsr < {found.level:g}) in any of "
        f"{where}.",
        second + ".",
    ]  # fmt: skip


def _wrong(rate: float) -> str:
    """Say what share of the signs is expected to be wrong."""
    if rate < 1e-4:
        return "fewer than 1 in 10,000 of these calls are expected to have the wrong sign"
    return f"about 1 in {round(1 / rate):,} of these calls is expected to have the wrong sign"


def _sharing_sentence(found: Findings, contexts: Sequence[str], same_unit: bool) -> str:
    how = "same sign, within a factor of 2"
    if not same_unit:
        how = "same sign; sizes are in different units"
    upper = np.triu_indices(found.n_contexts, 1)
    pairs = (found.sharing if same_unit else found.same_sign)[upper]
    known = np.flatnonzero(np.isfinite(pairs))
    if len(known) == 0:
        return "With one context there is no sharing to speak of."

    def pair(k: int) -> str:
        i, j = upper[0][known[k]], upper[1][known[k]]
        return f"{contexts[i]} and {contexts[j]} ({pairs[known[k]]:.0%})"

    if found.n_anywhere == 1:
        return _sharing_of_one(found, contexts, same_unit, how)
    what = "their effects" if same_unit else "the signs of their effects"
    if found.n_contexts == 2:
        return f"The two contexts share {pairs[0]:.0%} of {what} ({how})."
    values = pairs[known]
    if f"{values.min():.0%}" == f"{values.max():.0%}":
        return f"Any two contexts share {values[0]:.0%} of {what} ({how})."
    return (
        f"Two contexts typically share {np.median(values):.0%} of {what} ({how}): "
        f"most {pair(int(np.argmax(values)))}, least {pair(int(np.argmin(values)))}."
    )


def _sharing_of_one(found: Findings, contexts: Sequence[str], same_unit: bool, how: str) -> str:
    """Say where the one significant effect is alike: shares of pairs would all be 0% or 100%."""
    mean, is_sure = found.surest.mean[0], found.surest.lfsr[0] < found.level
    first = int(np.argmax(np.where(is_sure, np.abs(mean), -1.0)))
    alike = (found.sharing if same_unit else found.same_sign)[first] > 0
    others = [r for r in range(found.n_contexts) if r != first]
    same = [contexts[r] for r in others if alike[r]]
    if len(others) == 1:
        where = f"{'' if same else 'not '}alike ({how}) in {contexts[others[0]]}"
    elif same:
        where = f"alike ({how}) in {len(same)} of {len(others)} others: {listed(same, _CLUSTERED)}"
    else:
        where = f"alike ({how}) in none of {len(others)} others"
    return f"Compared with {contexts[first]}, it is {where}."


def _lead(found: Findings, contexts: Sequence[str]) -> Figure | None:
    """Return the bars of what was found; where nothing was, the answer says so in words alone."""
    if found.n_anywhere == 0:
        return None
    everywhere = np.full(found.n_contexts, found.n_everywhere)
    alone = found.alone
    if found.n_contexts == 1:
        alone = np.zeros_like(alone)
    several = found.significant - alone - everywhere
    spec = draw.found_by_context(contexts, alone, several, everywhere)
    head = ["context", "significant", "in all contexts", "in this one alone"]
    rows = [
        [name, f"{total:,}", f"{found.n_everywhere:,}", f"{only:,}"]
        for name, total, only in zip(contexts, found.significant, found.alone, strict=True)
    ]
    return Figure(
        name="found",
        title="Significant effects in each context",
        caption=(
            f"The length of a bar is the number of effects with lfsr < {found.level:g} in that "
            "context; its colours say in how many others the same effects are significant. "
            "Significant in one context alone does not mean absent from the others: whether the "
            "sizes agree is shown under sharing."
        ),
        description=f"Bars: significant effects in each of {counted(found.n_contexts, 'context')}.",
        key=draw.key_of(spec),
        spec=spec,
        numbers=Numbers(head, rows),
    )


def _sections(
    result: MashResult, found: Findings, contexts: Sequence[str], same_unit: bool
) -> list[Section]:
    sections = []
    if found.n_contexts > 1 and found.n_anywhere:
        sections.append(_sharing_section(found, contexts, same_unit))
    if isinstance(result.fitted_g, FittedG):
        sections.append(_prior_section(result.fitted_g, contexts))
    sections.append(_certainty_section(result, found, contexts))
    return sections


def _sharing_section(found: Findings, contexts: Sequence[str], same_unit: bool) -> Section:
    units = "" if same_unit else " Contexts are in different units, which sizes depend on."
    order = list(range(len(contexts)))
    if len(contexts) > _CLUSTERED:
        order = clustered_order(found.sharing)
    names = [contexts[i] for i in order]
    sharing = found.sharing[np.ix_(order, order)]
    cells = [
        [name, *("" if np.isnan(v) else f"{v:.2f}" for v in row)]
        for name, row in zip(names, sharing, strict=True)
    ]
    arranged = (
        " Contexts that share much stand next to each other." if order != sorted(order) else ""
    )
    heat = Figure(
        name="sharing",
        title="How much pairs of contexts share",
        caption=(
            "Each cell: of the effects significant in one or both contexts, the percentage with "
            "the same sign and a size within a factor of 2 in both. Blocks of strongly coloured "
            f"cells are groups of contexts in which effects are much the same.{arranged}{units}"
        ),
        description=f"Heat map: pairwise sharing of {len(names)} contexts.",
        spec=draw.sharing_map(sharing, names),
        numbers=Numbers(["", *names], cells),
        is_wide=len(names) > 14,
        least_width=150 + 11 * len(names) if len(names) > 20 else 0,
        most_width=max(560, 230 + 36 * len(names)),
    )
    total = max(int(found.similar.sum()), 1)
    similar = Figure(
        name="similar",
        title="In how many contexts an effect is alike",
        caption=(
            "Each significant effect is compared with itself in the context where it is strongest: "
            "in how many contexts (that one included) does it have the same sign and a size within "
            "a factor of 2? A peak at the right: effects shared by all; at the left: effects of "
            f"one context; both: two kinds of effects.{units}"
        ),
        description="Bars: significant effects by the number of contexts in which they are alike.",
        spec=draw.similar_counts(found.similar),
        numbers=Numbers(
            ["contexts", "effects", "share"],
            [[str(k + 1), f"{n:,}", f"{n / total:.1%}"] for k, n in enumerate(found.similar)],
        ),
        is_wide=len(names) > 14,
        most_width=820,
    )
    return Section(
        "sharing-section",
        "Sharing",
        "How similar effects are between contexts, among effects that are significant somewhere.",
        [heat, similar],
    )


def _prior_section(prior: FittedG, contexts: Sequence[str]) -> Section:
    names, weights, null = covariance_weights(prior)
    order = np.argsort(-weights, kind="stable")
    ranked = [(names[i], float(weights[i])) for i in order]
    shown = [(name, w, draw.BLUE) for name, w in ranked if w >= 0.001][:_SHOWN_WEIGHTS]
    rest = float(weights.sum()) - sum(w for _, w, _ in shown)
    bars = ([] if null is None else [("null", null, draw.GREY)]) + shown
    if rest >= 0.001:
        bars.append((f"{counted(len(names) - len(shown), 'other')}", rest, draw.SKY))
    bars = bars or [("all", 1.0, draw.BLUE)]
    table = [[name, f"{weight:.4f}"] for name, weight in ranked]
    figure = Figure(
        name="weights",
        title="Estimated weights of the patterns",
        caption=(
            "The estimated fraction of all effects that follows each pattern of sharing, added up "
            "over effect sizes; grey: no effect in any context. Similar patterns trade weight with "
            "one another, so read groups of bars, not the third digit."
        ),
        description="Bars: mixture weights by covariance pattern.",
        spec=draw.weight_bars(*(list(part) for part in zip(*bars, strict=True))),
        numbers=Numbers(
            ["pattern", "weight"], ([] if null is None else [["null", f"{null:.4f}"]]) + table
        ),
        is_wide=True,
        most_width=820,
    )
    heavy = [i for i in order if weights[i] >= 0.001][:_SHOWN_PATTERNS]
    patterns = [
        _pattern(prior, names[i], float(weights[i]), contexts, k) for k, i in enumerate(heavy)
    ]
    canonical = all(_is_canonical(np.asarray(U)) for U in prior.Ulist.values())
    return Section(
        "prior-section",
        "The canonical patterns" if canonical else "The patterns that were learned",
        "Patterns of effects across contexts that were given, not learned from the data (effects "
        "in one context, alike in all, or each by itself), and how common each is."
        if canonical
        else "The prior that the data support: which patterns of effects across contexts exist, "
        "and how common each is.",
        [figure, *patterns],
    )


def _is_canonical(U: Array) -> bool:
    """Tell whether a pattern is one of those of `plait.mash.cov_canonical`, up to its scale.

    They have one variance, or one of one context and zeros, and the same correlation everywhere.
    """
    variances = np.diag(U)
    if np.count_nonzero(U) == np.count_nonzero(variances) <= 1:
        return True
    off = U[~np.eye(len(U), dtype=bool)]
    return bool((variances == variances[0]).all() and (off == off[:1]).all())


def covariance_weights(prior: FittedG) -> tuple[list[str], Array, float | None]:
    """Return the covariances' names, their weights over all sizes, and the weight of the null."""
    start = int(prior.usepointmass)
    table = np.asarray(prior.pi)[start:].reshape(len(prior.grid), len(prior.Ulist))
    null = float(prior.pi[0]) if prior.usepointmass else None
    return [str(name) for name in prior.Ulist], table.sum(axis=0), null


def _pattern(prior: FittedG, name: str, weight: float, contexts: Sequence[str], k: int) -> Figure:
    matrix = np.asarray(prior.Ulist[name])
    width = len(matrix)
    # A result for contrasts of the contexts has other columns than its prior.
    labels = list(contexts) if len(contexts) == width else [f"{i + 1}" for i in range(width)]
    return Figure(
        name=f"pattern-{k}",
        title=f"Pattern {name}: {weight:.1%} of effects",
        caption=(
            "Left: correlation of effects between contexts under this pattern (blue: same "
            "direction, orange: opposite, empty: no effect there). Right: its main direction, "
            "the top eigenvector scaled to 1; per cent: how much of the matrix it makes up."
        )
        if k == 0
        else "",
        description=f"Correlations and main direction of the pattern {name}.",
        spec=draw.pattern(matrix, labels),
    )


def _certainty_section(result: MashResult, found: Findings, contexts: Sequence[str]) -> Section:
    points = found.points
    effects = labels_of(result.effect_names, points.rows)
    cells = found.n_effects * found.n_contexts - found.n_empty
    few = "" if len(points.rows) == cells else (
        f" Drawn are {len(points.rows):,} of {counted(cells, 'point')}: where points crowd, a "
        "random selection of them, so do not read densities."
    )  # fmt: skip
    spec = draw.lfsr_against_effect(
        points.mean, points.lfsr, effects, [contexts[r] for r in points.contexts], found.level
    )
    figure = Figure(
        name="certainty",
        title="How sure, against how large",
        caption=(
            "Each point is one effect in one context; height: −log₁₀ of its local false sign rate. "
            f"Above the dashed line (lfsr = {found.level:g}) the sign is called. Points should "
            "rise on both sides of zero like a V; a cloud of points high up near zero would "
            f"deserve distrust. Values beyond 30 stand at the upper edge.{few}"
        ),
        description="Scatter plot: minus log10 lfsr against posterior mean.",
        key=draw.key_of(spec),
        spec=spec,
        is_wide=True,
    )
    return Section(
        "certainty-section",
        "Certainty",
        "The local false sign rate (lfsr) is the probability that the sign of an effect is wrong "
        "or that there is no effect, given all contexts together.",
        [figure],
    )


def _table(found: Findings, contexts: Sequence[str], names: Sequence[str]) -> EffectTable:
    surest = found.surest
    kept = min(found.n_anywhere, len(surest.rows))
    if kept == 0:
        kept = min(_UNCERTAIN_SHOWN, len(surest.rows))
        title = "The surest effects"
        note = f"No effect is significant; these are the {kept:,} surest of {found.n_effects:,}."
    elif kept < found.n_anywhere:
        title = "Significant effects"
        note = (
            f"The {kept:,} surest of {found.n_anywhere:,} significant effects are in this page; "
            "for all of them: plait mash significant RESULT --out significant.csv"
        )
    else:
        title = "Significant effects"
        note = f"All {found.n_anywhere:,} significant effects." if kept > 1 else "The only one."
    return EffectTable(
        title=title,
        intro=(
            "One row per effect, with its numbers in the context where it is surest. The strip "
            "shows every context: blue raises, orange lowers, faint is not significant. Choose a "
            "row to see the effect everywhere."
        ),
        note=note,
        effects=names[:kept],
        contexts=contexts,
        estimate=surest.mean[:kept],
        error=surest.sd[:kept],
        rate=surest.lfsr[:kept],
        level=found.level,
        file_name="surest_effects.csv",
    )


def _origin(result: MashResult, found: Findings, about: Mapping[str, Any]) -> str:
    origin = result.provenance
    version = about.get("version") if origin is None else origin.version
    parts = [
        f"mash · {counted(found.n_effects, 'effect')} × {counted(found.n_contexts, 'context')}"
    ]
    if version:
        parts.append(f"plait {version}")
    if origin is not None:
        parts.append(moment(origin))
    return " · ".join(parts)
