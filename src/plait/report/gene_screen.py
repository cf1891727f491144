"""What is said about a gene-level screen: discoveries, and whether to believe them."""

import os
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plait.crt.gene_design import formula_by_assigned
from plait.crt.gene_plots import pair_names
from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_screen import GeneScreen
from plait.data.p_values import p_value_text
from plait.data.words import counted, listed
from plait.errors import NotAvailableError
from plait.numerics.dependent_shares import clustered_effective
from plait.report import screen_figures as draw
from plait.report.about import origin_line, own_citation, told
from plait.report.figures import BLUE, GREY, VERMILION
from plait.report.gene_figures import cells_section, counts_figure, pairs_figure, power_figure
from plait.report.page import (
    EffectTable,
    Figure,
    Page,
    Section,
    Verdict,
    check_page,
    write_page,
)
from plait.report.screen import CITATIONS
from plait.report.screen_verdicts import (
    CHANCE,
    LEVEL,
    NON_TARGETING_GROUPS,
    PERTURBED_THEMSELVES,
    like_controls,
    share_verdict,
)
from plait.report.screen_words import WORDS, formula_in_words, with_commas

Array = NDArray[np.float64]

QUESTION = "What does each perturbation do to the expression of each gene?"
_MOST_ROWS, _FEWEST_ROWS = 500, 50
_POWERFUL = 0.5


def gene_screen_page(
    discovery: GeneTestResult,
    *,
    calibration: GeneTestResult | None = None,
    power: GeneTestResult | None = None,
    screen: GeneScreen | None = None,
    title: str | None = None,
) -> Page:
    """Say what was discovered in a gene-level screen.

    Parameters
    ----------
    discovery : GeneTestResult
        Of `plait.crt.GeneScreen.run_discovery`, with pairs that were tested.
    calibration, power : GeneTestResult, optional
        Of the calibration check and the power check of the same screen.
    screen : GeneScreen, optional
        The screen itself: its cells and guides, and the expression of the surest pairs, are shown
        too.
    title : str, optional

    Returns
    -------
    Page

    Raises
    ------
    NotAvailableError
        No pair was tested.
    """
    if not discovery.pass_qc.any():
        raise NotAvailableError("no pair was tested; there is nothing to show.")
    lamps = [calibrated(calibration, discovery), _powerful(power), _tested(discovery)]
    return Page(
        title=title or "What perturbations do to genes",
        question=QUESTION,
        answer=_answer(discovery),
        lead=_volcano(discovery),
        verdicts=[lamp for lamp in lamps if lamp is not None],
        sections=_sections(discovery, calibration, power, screen),
        table=_table(discovery),
        settings=_settings(discovery),
        citations=(own_citation(), *CITATIONS),
        origin=origin_line(f"crt · {counted(len(discovery), 'pair')}", discovery.provenance),
    )


def write_gene_screen_report(
    discovery: GeneTestResult,
    path: str | os.PathLike[str],
    *,
    calibration: GeneTestResult | None = None,
    power: GeneTestResult | None = None,
    screen: GeneScreen | None = None,
    title: str | None = None,
    overwrite: bool = False,
) -> Page:
    """Write a gene-level screen as one self-contained HTML page.

    Parameters
    ----------
    discovery, calibration, power, screen, title
        As in `gene_screen_page`.
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
    NotAvailableError
        As in `gene_screen_page`.
    OutputError
        The file exists or cannot be written.
    DependencyError
        jinja2 or plotly is not installed.
    """
    check_page(path, overwrite)
    page = gene_screen_page(
        discovery,
        calibration=calibration,
        power=power,
        screen=screen,
        title=title or Path(path).stem,
    )
    write_page(page, path, overwrite)
    return page


def _found(result: GeneTestResult) -> NDArray[np.bool_]:
    if result.significant is None:
        return np.zeros(len(result), dtype=bool)
    return np.asarray(result.significant & result.pass_qc)


def _answer(result: GeneTestResult) -> list[str]:
    found = _found(result)
    tested = int(result.pass_qc.sum())
    best = int(np.argmin(np.where(result.pass_qc, result.log10_p, np.inf)))
    verb = "raises" if result.log_2_fold_change[best] > 0 else "lowers"
    fold = f"{result.log_2_fold_change[best]:+.2f}".replace("-", "−")
    who = result.grna_target if result.grna_id is None else result.grna_id
    target, gene = who[best], result.response_id[best]
    surest = (
        f"{target} {verb} {'itself' if gene == target else gene} (log₂ fold change {fold}, "
        f"p = {p_value_text(float(result.log10_p[best]))})"
    )
    if not found.any():
        return [
            f"None of {counted(tested, 'pair')} of a target and a gene is significant at a false "
            f"discovery rate of {result.level:g}.",
            f"The surest would be that {surest}.",
        ]
    targets, genes = (
        len(np.unique(names[found])) for names in (result.grna_target, result.response_id)
    )
    return [
        f"{int(found.sum()):,} of {counted(tested, 'pair')} of a target and a gene "
        f"{'is' if found.sum() == 1 else 'are'} significant at a false discovery rate of "
        f"{result.level:g}: {counted(targets, 'target')} {'acts' if targets == 1 else 'act'} on "
        f"{counted(genes, 'gene')}.",
        f"The surest is that {surest}.",
    ]


def _volcano(result: GeneTestResult) -> Figure:
    tested = result.pass_qc & np.isfinite(result.log_2_fold_change)
    spec = draw.volcano(
        result.log_2_fold_change[tested],
        result.log10_p[tested],
        _found(result)[tested],
        pair_names(result, np.flatnonzero(tested), "itself"),
        "log₂ fold change",
    )
    return Figure(
        name="volcano",
        title="How sure, against how large",
        caption=(
            "Each point is a pair of a target and a gene: log₂ of the fold change of expression in "
            "treated cells, and −log₁₀ of its p-value. Coloured: significant at a false discovery "
            f"rate of {result.level:g}. Where points crowd, some are left out."
        ),
        description="Scatter plot: minus log10 p against log2 fold change.",
        spec=spec,
        key=[(BLUE, "raises"), (VERMILION, "lowers"), (GREY, "not significant")],
    )


def calibrated(
    calibration: GeneTestResult | None, discovery: GeneTestResult | None = None
) -> Verdict:
    """Judge the tests of groups of non-targeting guides, on which those of a discovery rest.

    Tests of one group hang together, and tests of one gene, as groups share guides.
    """
    if calibration is None or not calibration.pass_qc.any():
        return Verdict(
            "unknown",
            "Calibration not checked",
            "There are no tests of non-targeting guides beside these; without them nobody knows "
            f"whether p-values are what they say.{_named_otherwise(calibration, discovery)}",
        )
    tested = calibration.pass_qc
    log10p, groups = calibration.log10_p[tested], calibration.grna_target[tested]
    sides = 2 if calibration.settings.get("side", "both") == "both" else 1
    effective = clustered_effective(
        10.0**log10p, LEVEL, groups, calibration.response_id[tested], sides=sides
    )
    wrong = int(_found(calibration).sum())
    noun = "false discovery" if wrong == 1 else "false discoveries"
    verdict = share_verdict(
        log10p,
        groups,
        effective,
        NON_TARGETING_GROUPS,
        _remedy(calibration, discovery),
        f"There {'is' if wrong == 1 else 'are'} {wrong:,} {noun} among them.",
    )
    if wrong <= 1 or verdict.state != "good":
        return verdict
    return Verdict(
        "caution",
        "False discoveries among controls",
        f"{verdict.reason.removesuffix(CHANCE)}As many small p-values as chance gives, but some "
        f"are far too small: with a false discovery rate of {calibration.level:g} there should "
        "hardly be one. Read findings near the level with care.",
    )


def _named_otherwise(calibration: GeneTestResult | None, discovery: GeneTestResult | None) -> str:
    """Say how controls are named, where there is no test of any and some targets look like them."""
    if calibration is not None or discovery is None:
        return ""
    found = like_controls(np.unique(discovery.grna_target).tolist())
    return (
        f" These targets look like controls: {listed(found)}; call them non-targeting in the table "
        "of targets."
        if found
        else ""
    )


def _settings(result: GeneTestResult) -> dict[str, dict[str, str]]:
    formula = formula_in_words(str(result.settings.get("formula", "")))
    about = with_commas({**result.settings, "formula": formula or None})
    return told(about, result.provenance, WORDS)


def _remedy(calibration: GeneTestResult, discovery: GeneTestResult | None) -> str:
    """Say why p-values may be too small, and what to do."""
    why = "A confounder may be missing from the covariates."
    formula = str(calibration.settings.get("formula"))
    if "grna_n_nonzero" in formula:
        why = (
            f"{why} With fewer than 1,000 genes, guides with counts among the covariates do this: "
            f"give --formula '{formula_by_assigned(formula)}'."
        )
    elif calibration.settings.get("control_group") == "complement" and "grna_" not in formula:
        why = (
            f"{PERTURBED_THEMSELVES}: compare with cells of non-targeting guides (--control-group "
            "nt_cells). Otherwise a confounder is missing from the covariates."
        )
    if discovery is None:
        return why
    rates = discovery.rates_from_calibration(calibration)[discovery.pass_qc]
    found = int((rates < discovery.level).sum())
    return (
        f"{why} With the controls themselves as the null, {counted(found, 'pair')} "
        f"{'has' if found == 1 else 'have'} a false discovery rate below {discovery.level:g} "
        "(in Python: rates_from_calibration)."
    )


def _powerful(power: GeneTestResult | None) -> Verdict | None:
    if power is None or not power.pass_qc.any():
        return None
    log10p = power.log10_p[power.pass_qc]
    seen = float((log10p < np.log10(LEVEL)).mean())
    said = (
        f"Of {counted(len(log10p), 'positive control')} {seen:.0%} have a p-value below {LEVEL:g}; "
        f"the median is {p_value_text(float(np.median(log10p)))}."
    )
    if seen < _POWERFUL:
        return Verdict("caution", "Positive controls missed", f"{said} Real effects are missed.")
    return Verdict("good", "Positive controls found", said)


def _tested(result: GeneTestResult) -> Verdict:
    left = int((~result.pass_qc).sum())
    if not left:
        return Verdict(
            "good", "All pairs tested", f"All were tested: {counted(len(result), 'pair')}."
        )
    said = (
        f"{left:,} of {counted(len(result), 'pair')} have too few treated or control cells with "
        "counts of the gene, and were not tested."
    )
    return Verdict(
        "caution" if left > len(result) / 2 else "good", "Pairs with too few counts left out", said
    )


def _sections(
    result: GeneTestResult,
    calibration: GeneTestResult | None,
    power: GeneTestResult | None,
    screen: GeneScreen | None,
) -> list[Section]:
    checked = () if calibration is None else -calibration.log10_p[calibration.pass_qc]
    has_power = power is not None and bool(power.pass_qc.any())
    checks = [
        draw.controls_qq(
            -result.log10_p[result.pass_qc],
            np.asarray(checked),
            ("pairs of a target and a gene", "non-targeting guides"),
            is_wide=not has_power,
        )
    ]
    if power is not None and has_power:
        checks.append(power_figure(power, calibration))
    sections = [
        Section(
            "calibration-section",
            "Checks",
            "Whether p-values are what they say: guides that target nothing must look like "
            "nothing, and those that must have an effect should show it.",
            checks,
        )
    ]
    if screen is not None and screen.cells is not None:
        sections += [
            Section(
                "pairs-section",
                "Single pairs",
                "The counts of genes that tests are made of.",
                [pairs_figure(screen, result), counts_figure(result)],
            ),
            cells_section(screen),
        ]
    return sections


def _table(result: GeneTestResult) -> EffectTable:
    found = _found(result)
    usable = np.flatnonzero(result.pass_qc & np.isfinite(result.log_2_fold_change))
    order = usable[np.argsort(result.log10_p[usable], kind="stable")]
    count = int(found.sum())
    rows = order[: min(max(count, _FEWEST_ROWS), _MOST_ROWS)]
    fold = np.maximum(result.fold_change[rows], np.finfo(float).tiny)
    rate = result.q_value if result.q_value is not None else 10.0**result.log10_p
    names = _names(result)
    return EffectTable(
        title="The surest pairs",
        intro="One row per pair of a target and a gene. Blue raises, orange lowers.",
        note=_note(len(rows), count, int(result.pass_qc.sum())),
        effects=[names[i] for i in rows],
        contexts=["expression"],
        estimate=result.log_2_fold_change[rows][:, None],
        error=(result.se_fold_change[rows] / fold / np.log(2.0))[:, None],
        rate=np.asarray(rate)[rows][:, None],
        level=result.level,
        effect_name="pair",
        estimate_name="log₂ fold change",
        error_name="standard error",
        rate_name="p" if result.q_value is None else "q",
        file_name="pairs.csv",
    )


def _note(rows: int, found: int, tested: int) -> str:
    """Say which pairs are in the table; those with an effect come first."""
    if rows == found:
        said = f"Listed: {counted(found, 'pair')} that {'is' if found == 1 else 'are'} significant"
    else:
        said = f"Listed: the surest, {counted(rows, 'pair')}; significant: {found:,}"
    return f"{said}, of {tested:,} that were tested. All are in discovery.tsv."


def _names(result: GeneTestResult) -> list[str]:
    return pair_names(result, np.arange(len(result)))
