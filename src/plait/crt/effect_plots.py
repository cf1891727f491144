"""Figures of a tested screen; each returns Axes that are ready for a paper."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait import plot
from plait.crt.arguments import real_number, whole_number
from plait.crt.results import CRTResult, z_scores
from plait.errors import LabelError, NotAvailableError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Array = NDArray[np.float64]


def plot_volcano(result: CRTResult, program: str, level: float = 0.1, **options: Any) -> "Axes":
    """Draw every perturbation's effect on one program.

    Parameters
    ----------
    result : CRTResult
        With false discovery rates.
    program : str
    level : float
        False discovery rate of what is coloured.
    **options
        ``title``, ``caption`` and ``ax`` of `plait.plot.volcano`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LabelError
        There is no such program.
    NotAvailableError
        The result holds no false discovery rates.
    InputTypeError
        The level is no number (also a TypeError).
    DependencyError
        Matplotlib is not installed.
    """
    if program not in result.programs:
        raise LabelError(
            f"there is no program {program!r}; there are {', '.join(result.programs[:8])}"
            f"{' and more' if len(result.programs) > 8 else ''}."
        )
    k, q, level = result.programs.index(program), _rates(result), real_number(level, "level")
    tested = np.flatnonzero(np.isfinite(q).any(axis=1))
    return plot.volcano(
        result.beta[tested, k],
        result.log10p[tested, k],
        q[tested, k] < level,
        [result.units[j] for j in tested],
        xlabel=f"effect on {program}",
        **options,
    )


def plot_effect_map(
    result: CRTResult, level: float = 0.1, most: int = 60, **options: Any
) -> "Axes":
    """Draw the effects of the surest perturbations on all programs.

    Parameters
    ----------
    result : CRTResult
        With false discovery rates.
    level : float
        False discovery rate of what has a dot.
    most : int
        Perturbations that are shown.
    **options
        ``title``, ``caption`` and ``ax`` of `plait.plot.effect_map`.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NotAvailableError
        The result holds no false discovery rates.
    InputTypeError, OptionError
        The level is no number, or ``most`` no whole number of at least 1.
    DependencyError
        Matplotlib is not installed.
    """
    q = _rates(result)
    level = real_number(level, "level")
    rows = surest(result)[: whole_number(most, "most", least=1)]
    return plot.effect_map(
        z_scores(result)[rows],
        [result.units[j] for j in rows],
        result.programs,
        q[rows] < level,
        **options,
    )


def plot_calibration(
    result: CRTResult,
    controls: CRTResult | None = None,
    *,
    title: str | None = None,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the p-values of perturbations, and of negative controls, against chance.

    Parameters
    ----------
    result : CRTResult
    controls : CRTResult, optional
        Of `control_group_effects`; without it the targets that are controls are drawn.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    NotAvailableError
        Nothing was tested.
    DependencyError
        Matplotlib is not installed.
    """
    is_tested = result.status == "ok"
    judged, chosen = (
        (result, is_tested & result.is_control)
        if controls is None
        else (controls, controls.status == "ok")
    )
    tests, controls_log10p = result.log10p[is_tested & ~result.is_control], judged.log10p[chosen]
    if not tests.size + controls_log10p.size:
        raise NotAvailableError("no perturbation was tested; there are no p-values to draw.")
    return plot.controls_qq(tests, controls_log10p, title=title, caption=caption, ax=ax)


def surest(result: CRTResult) -> list[int]:
    """Return the tested perturbations that are no controls, the surest first."""
    is_known = np.isfinite(_rates(result))
    best = np.where(is_known, result.log10p, np.inf).min(axis=1)
    # Of equal p-values, as counted ones are, the largest effect over its error is the surest.
    is_best = is_known & (result.log10p == best[:, None])
    largest = np.where(is_best, np.abs(z_scores(result)), -1.0).max(axis=1)
    order: Sequence[int] = np.lexsort((-largest, best)).tolist()
    return [j for j in order if np.isfinite(best[j])]


def _rates(result: CRTResult) -> Array:
    if result.q is None:
        raise NotAvailableError("the result holds no false discovery rates (fdr=None was given).")
    return result.q
