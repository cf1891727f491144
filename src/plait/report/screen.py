"""What is said about a perturbation screen: the answer, the verdicts, the figures, the table."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plait.crt.effect_plots import surest
from plait.crt.results import CRTResult, surest_effects, z_scores
from plait.data.p_values import p_value_text
from plait.data.words import counted
from plait.errors import NotAvailableError, OptionError
from plait.plot.effect_map import alike
from plait.report import screen_figures as draw
from plait.report.about import origin_line, own_citation, told
from plait.report.figures import BLUE, GREY, VERMILION, key_of
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
from plait.report.screen_verdicts import control_p_values, verdicts
from plait.report.screen_words import WORDS, with_commas

Array = NDArray[np.float64]

QUESTION = "What does each perturbation do to each program?"
_MOST_MAPPED, _MOST_PROGRAMS, _MOST_ROWS = 60, 24, 500
_FEWEST_SHOWN, _MOST_EQUAL = 15, 3
_OF_DRAWS = (
    *("sampler", "exceedances", "max_resamples", "bulk_above", "propensity_model"),
    *("resamples", "device"),
)
"""Settings of treatments that are drawn anew."""

_EFFECT = "An effect is the shift of the log of a program's usage relative to the other programs."
_CORRELATION = (
    "An effect is a rank-biserial correlation: how much oftener a treated cell has more of a "
    "program than an untreated one, than less of it; 1 is always, −1 never, 0 as often."
)

CITATIONS = (
    Citation(
        "Candès E, Fan Y, Janson L, Lv J (2018). Panning for gold: model-X knockoffs for high "
        "dimensional controlled variable selection. Journal of the Royal Statistical Society B 80, "
        "551–577.",
        "https://doi.org/10.1111/rssb.12265",
        "@article{candes2018panning,\n"
        "  title   = {Panning for gold: `model-X' knockoffs for high dimensional controlled "
        "variable selection},\n"
        "  author  = {Cand{\\`e}s, Emmanuel and Fan, Yingying and Janson, Lucas and Lv, Jinchi},\n"
        "  journal = {Journal of the Royal Statistical Society B},\n  volume  = {80},\n"
        "  pages   = {551--577},\n  year    = {2018},\n  doi     = {10.1111/rssb.12265}\n}",
    ),
    Citation(
        "Barry T, Wang X, Morris JA, Roeder K, Katsevich E (2021). SCEPTRE improves calibration "
        "and sensitivity in single-cell CRISPR screen analysis. Genome Biology 22, 344.",
        "https://doi.org/10.1186/s13059-021-02545-2",
        "@article{barry2021sceptre,\n"
        "  title   = {{SCEPTRE} improves calibration and sensitivity in single-cell {CRISPR} "
        "screen analysis},\n"
        "  author  = {Barry, Timothy and Wang, Xuran and Morris, John A. and Roeder, Kathryn and "
        "Katsevich, Eugene},\n"
        "  journal = {Genome Biology},\n  volume  = {22},\n  pages   = {344},\n"
        "  year    = {2021},\n  doi     = {10.1186/s13059-021-02545-2}\n}",
    ),
)


def screen_page(
    result: CRTResult,
    *,
    title: str | None = None,
    level: float = 0.1,
    controls: CRTResult | None = None,
) -> Page:
    """Say everything there is to say about the tests of a perturbation screen.

    Parameters
    ----------
    result : CRTResult
        With false discovery rates.
    title : str, optional
    level : float
        False discovery rate of what is called significant.
    controls : CRTResult, optional
        Groups of negative-control guides tested in the same way, which say whether p-values are
        to be believed.

    Returns
    -------
    Page

    Raises
    ------
    NotAvailableError
        The result holds no false discovery rates, or nothing was tested.
    OptionError
        ``level`` is not between 0 and 1.
    """
    if not 0.0 < level < 1.0:
        raise OptionError(f"level is {level}; give a number between 0 and 1.")
    found = np.nan_to_num(_known_rates(result), nan=1.0) < level
    order = surest(result)
    return Page(
        title=title or "What perturbations do",
        question=QUESTION,
        answer=answer(result, found, level),
        lead=_map(result, found, order),
        verdicts=verdicts(result, controls, level),
        sections=[
            _calibration_section(result, controls),
            _program_section(result, found, level),
        ],
        table=_table(result, found, order, level),
        settings=_settings(result, level),
        citations=(own_citation(), *CITATIONS),
        origin=origin_line(
            f"crt · {counted(len(result.units), 'perturbation')} × "
            f"{counted(len(result.programs), 'program')}",
            result.provenance,
        ),
    )


def write_screen_report(
    result: CRTResult,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
    level: float = 0.1,
    controls: CRTResult | None = None,
    overwrite: bool = False,
) -> Page:
    """Write the tests of a perturbation screen as one self-contained HTML page.

    Parameters
    ----------
    result, title, level, controls
        As in `screen_page`.
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
        As in `screen_page`.
    OutputError
        The file exists or cannot be written.
    DependencyError
        jinja2 or plotly is not installed.
    """
    check_page(path, overwrite)
    page = screen_page(result, title=title or Path(path).stem, level=level, controls=controls)
    write_page(page, path, overwrite)
    return page


def _known_rates(result: CRTResult) -> Array:
    """Return the false discovery rates, or say why there is none."""
    if result.q is None:
        raise NotAvailableError(
            "the result holds no false discovery rates: fdr=None was given. Test with fdr='BH'."
        )
    if np.isfinite(result.q).any():
        return result.q
    controls, others = int(result.is_control.sum()), result.status[~result.is_control]
    statuses = ", ".join(
        f"{int((others == status).sum()):,} {status}" for status in np.unique(others).tolist()
    )
    raise NotAvailableError(
        "nothing was tested that a page could show. Negative controls, which have no false "
        f"discovery rates: {controls:,} of {counted(len(result.units), 'target')}; the status of "
        f"the others is: {statuses or 'there are none'}."
    )


def answer(result: CRTResult, found: NDArray[np.bool_], level: float) -> list[str]:
    """Return the answer in two sentences."""
    tested = int(((result.status == "ok") & ~result.is_control).sum())
    pairs = int(np.isfinite(_rates(result)).sum())
    active = int(found.any(axis=1).sum())
    if not active:
        place = np.unravel_index(np.nanargmin(_rates(result)), found.shape)
        unit, program = (int(i) for i in place)
        return [
            f"None of {counted(pairs, 'effect')} of {counted(tested, 'perturbation')} on "
            f"{counted(len(result.programs), 'program')} is significant at a false discovery rate "
            f"of {level:g}.",
            f"The surest one is {result.units[unit]} on {result.programs[program]} (p = "
            f"{p_value_text(float(result.log10p[unit, program]))}).",
        ]
    unit, program = surest_effects(result, found)[0]
    verb = "raises" if result.beta[unit, program] > 0 else "lowers"
    return [
        f"{active:,} of {counted(tested, 'perturbation')} {'has' if active == 1 else 'have'} an "
        f"effect on at least one of {counted(len(result.programs), 'program')}: "
        f"{counted(int(found.sum()), 'effect')} at a false discovery rate of {level:g}.",
        f"The surest is that {result.units[unit]} {verb} {result.programs[program]} (p = "
        f"{p_value_text(float(result.log10p[unit, program]))}).{_broadest(result, found)}",
    ]


def _broadest(result: CRTResult, found: NDArray[np.bool_]) -> str:
    """Say which perturbation acts on more programs than any other; begins with a blank."""
    counts = found.sum(axis=1)
    if counts.max() == 1:
        return "" if len(result.programs) == 1 else " None acts on more than one program."
    names = [result.units[j] for j in np.flatnonzero(counts == counts.max())]
    of = f"({int(counts.max()):,} of {len(result.programs):,})"
    if len(names) == 1:
        return f" {names[0]} acts on more programs than any other {of}."
    if len(names) <= _MOST_EQUAL:
        both = " and ".join([", ".join(names[:-1]), names[-1]])
        return f" {both} act on the most programs {of}."
    return f" {len(names):,} perturbations act on as many programs as any {of}."


def _settings(result: CRTResult, level: float) -> dict[str, dict[str, str]]:
    about = {**result.settings, "level": level}
    if about.get("resamples") is None:
        about["device"] = None  # nothing is drawn there
    if about.get("method") == "ntc-empirical":
        about |= dict.fromkeys(_OF_DRAWS)  # targets are compared with controls as they are
    strata = about.get("strata")
    if isinstance(strata, Mapping) and strata.get("burden_key") is None:
        about["strata"] = {name: v for name, v in strata.items() if "burden" not in name}
    return told(with_commas(about), result.provenance, WORDS)


def _rates(result: CRTResult) -> Array:
    assert result.q is not None
    return result.q


def _map(result: CRTResult, found: NDArray[np.bool_], order: Sequence[int]) -> Figure:
    n_active = int(found.any(axis=1).sum())
    rows = np.array(order[: min(max(n_active, _FEWEST_SHOWN), _MOST_MAPPED)], dtype=np.intp)
    z = z_scores(result)[rows]
    rows = rows[alike(z)]
    columns = np.array(alike(z.T), dtype=np.intp)
    z = z_scores(result)[np.ix_(rows, columns)]
    names = [result.units[j] for j in rows]
    programs = [result.programs[k] for k in columns]
    spec = draw.effect_map(
        z, result.beta[np.ix_(rows, columns)], _rates(result)[np.ix_(rows, columns)], names,
        programs,
    )  # fmt: skip
    shown = (
        ("the one perturbation" if n_active == 1 else f"all {n_active:,} perturbations")
        + " with an effect"
        if n_active == len(rows)
        else f"the {counted(len(rows), 'surest perturbation')}"
    )
    cells = [
        [name, *(f"{value:+.3g}" for value in result.beta[j, columns])]
        for name, j in zip(names, rows, strict=True)
    ]
    return Figure(
        name="map",
        title="Effects of perturbations on programs",
        caption=(
            f"Rows: {shown}; columns: programs; both are arranged so that what is alike stands "
            f"together. Colour: {_colour(result)} (blue raises, orange lowers). Rows of the "
            "same colours are perturbations that may act in the same pathway. Effects are "
            "relative to the other programs: one that goes up lowers the others a little."
        ),
        description=(
            f"Heat map: effects of {counted(len(rows), 'perturbation')} on "
            f"{counted(len(programs), 'program')}."
        ),
        spec=spec,
        numbers=Numbers(["perturbation", *programs], cells),
        is_wide=len(programs) > 14,
        least_width=150 + 14 * len(programs) if len(programs) > 20 else 0,
        most_width=max(560, 260 + 34 * len(programs)),
    )


def _is_least_squares(result: CRTResult) -> bool:
    return result.se is not None or result.null_sd is not None


def _colour(result: CRTResult) -> str:
    """Return what the colours of the map are; see `plait.crt.z_scores`."""
    if not _is_least_squares(result):
        return "normal score of the p-value, with the sign of the correlation"
    error = "its standard deviation under the null" if result.null_sd is not None else "its error"
    return f"effect over {error}"


def _calibration_section(result: CRTResult, controls: CRTResult | None) -> Section:
    log10p, what = control_p_values(result, controls)
    chosen = np.isfinite(_rates(result))
    figure = draw.controls_qq(
        -result.log10p[chosen],
        -log10p,
        ("perturbations", what),
        "P-values of one unit on several programs go together, so a few points beside the band say "
        "nothing.",
    )
    return Section(
        "calibration-section",
        "Calibration",
        "Whether p-values are what they say: guides that target nothing must look like nothing.",
        [figure],
    )


def _program_section(result: CRTResult, found: NDArray[np.bool_], level: float) -> Section:
    up = (found & (result.beta > 0)).sum(axis=0)
    down = (found & (result.beta < 0)).sum(axis=0)
    spec = draw.found_by_program(result.programs, up, down)
    bars = Figure(
        name="by-program",
        title="Which programs respond",
        caption=(
            "How many perturbations have an effect on each program at a false discovery rate of "
            f"{level:g}: blue, those that raise it; orange, those that lower it."
        ),
        description="Bars: perturbations with an effect on each program.",
        spec=spec,
        key=key_of(spec),
        numbers=Numbers(
            ["program", "raised by", "lowered by"],
            [
                [name, f"{u:,}", f"{d:,}"]
                for name, u, d in zip(result.programs, up, down, strict=True)
            ],
        ),
    )
    tested = np.isfinite(_rates(result)).any(axis=1)
    units = [result.units[j] for j in np.flatnonzero(tested)]
    ranked = np.argsort(-(found.sum(axis=0)), kind="stable")[:_MOST_PROGRAMS]
    views = {
        result.programs[k]: draw.volcano(
            result.beta[tested, k], result.log10p[tested, k], found[tested, k], units,
            f"{'effect on' if _is_least_squares(result) else 'rank-biserial correlation,'} "
            f"{result.programs[k]}",
        )
        for k in ranked.tolist()
    }  # fmt: skip
    few = (
        ""
        if len(ranked) == len(result.programs)
        else f" The {len(ranked)} programs with most effects can be chosen."
    )
    volcano = Figure(
        name="volcano",
        title="How sure, against how large, program by program",
        caption=(
            "Each point is a perturbation: effect on the chosen program, and −log₁₀ of its "
            f"p-value. Coloured: significant at a false discovery rate of {level:g}; the surest "
            f"ones have their names.{few}"
        ),
        description="Scatter plot: minus log10 p against effect, one program at a time.",
        spec=next(iter(views.values())),
        views=views,
        key=[(BLUE, "raises"), (VERMILION, "lowers"), (GREY, "not significant")],
    )
    return Section(
        "programs-section",
        "Programs",
        _EFFECT if _is_least_squares(result) else _CORRELATION,
        [bars, volcano],
    )


def _table(
    result: CRTResult, found: NDArray[np.bool_], order: Sequence[int], level: float
) -> EffectTable:
    n_active = int(found.any(axis=1).sum())
    rows = list(order[: min(n_active or 50, _MOST_ROWS)])
    rows.sort(key=lambda j: (not found[j].any(), order.index(j)))
    if not n_active:
        note = f"No effect is significant; listed: {counted(len(rows), 'surest perturbation')}."
    elif len(rows) < n_active:
        note = f"The {len(rows):,} surest of {counted(n_active, 'perturbation')} with an effect."
    else:
        note = (
            f"All {n_active:,} perturbations with an effect." if n_active > 1 else "The only one."
        )
    errors = result.null_sd if result.null_sd is not None else result.se
    return EffectTable(
        title="Perturbations with an effect" if n_active else "The surest perturbations",
        intro=(
            "One row per perturbation, with its numbers for the program where it is surest. Where "
            "there is room, a strip shows every program: blue raises, orange lowers, faint is not "
            "significant. Choose a row to see all programs."
        ),
        note=note,
        effects=[result.units[j] for j in rows],
        contexts=list(result.programs),
        estimate=result.beta[rows],
        error=None if errors is None else errors[rows],
        rate=_rates(result)[rows],
        level=level,
        effect_name="perturbation",
        context_name="program",
        estimate_name="effect" if _is_least_squares(result) else "rank-biserial correlation",
        error_name="sd under the null" if result.null_sd is not None else "standard error",
        rate_name="q",
        file_name="perturbations.csv",
    )
