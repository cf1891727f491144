"""Figures of mash results: thin calls of `plait.plot`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.errors import InputError, LabelError
from plait.mash.data import MashData
from plait.mash.results import ChunkedApplyResult, MashResult, PosteriorMatrices, TrainApplyResult
from plait.mash.summaries import (
    as_prior_of,
    get_estimated_pi,
    get_lfsr,
    get_pairwise_sharing,
    get_pm,
    get_psd,
)
from plait.plot.forest import forest
from plait.plot.patterns import pattern
from plait.plot.sharing import sharing
from plait.plot.shrinkage import shrinkage
from plait.plot.weights import weights

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AnyResult = MashResult | PosteriorMatrices | TrainApplyResult | ChunkedApplyResult


def _names(m: Any, field: str) -> Any:
    return getattr(m.apply_result if isinstance(m, TrainApplyResult) else m, field, None)


def _row(m: AnyResult, i: int | str) -> int:
    count = len(get_pm(m))
    if isinstance(i, str):
        names = _names(m, "effect_names")
        found = [] if names is None else np.flatnonzero(np.asarray(names) == i)
        if len(found) != 1:
            raise LabelError(f"there is no effect named {i!r}.")
        return int(found[0])
    if not -count <= i < count:
        raise InputError(f"there is no effect {i}; give 0 to {count - 1}.")
    return int(i)


def mash_plot_meta(
    m: AnyResult,
    i: int | str,
    xlab: str = "Effect size",
    ylab: str = "Condition",
    labels: Sequence[str] | None = None,
    ci: float = 1.96,
    ax: "Axes | None" = None,
    boxes: bool = False,
) -> "Axes":
    """Draw a forest plot of one effect.

    Parameters
    ----------
    m : result
    i : int or str
        Row number or name of the effect.
    xlab, ylab : str
    labels : sequence of str, optional
        Default the condition names.
    ci : float
        Half-width of the bars in posterior standard deviations.
    ax : matplotlib Axes, optional
    boxes : bool
        Draw boxes with an area proportional to the precision.
    """
    row = _row(m, i)
    names = labels if labels is not None else _names(m, "condition_names")
    title = i if isinstance(i, str) else None
    return forest(
        get_pm(m)[row], get_psd(m)[row], names, ci=ci, boxes=boxes, xlab=xlab, ylab=ylab,
        title=title, ax=ax,
    )  # fmt: skip


def plot_sharing(
    m: AnyResult,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    cluster: bool | None = None,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the pairwise sharing of conditions; by default clustered above 8 conditions."""
    matrix = get_pairwise_sharing(m, factor, lfsr_thresh)
    within = "" if factor == 0 else f", within a factor of {1 / factor:g}"
    return sharing(
        matrix,
        _names(m, "condition_names"),
        cluster=len(matrix) > 8 if cluster is None else cluster,
        legend=f"share of effects with the same sign{within}",
        ax=ax,
    )


def plot_weights(m: AnyResult, most: int = 20, ax: "Axes | None" = None) -> "Axes":
    """Draw the estimated weight of every covariance pattern."""
    shares = get_estimated_pi(m)
    return weights(shares.to_numpy(), [str(name) for name in shares.index], most=most, ax=ax)


def plot_pattern(m: AnyResult, name: str, ax: "Axes | None" = None) -> "Axes":
    """Draw the leading pattern of one covariance matrix of the prior."""
    prior = as_prior_of(m)
    if name not in prior.Ulist:
        raise LabelError(f"there is no covariance {name!r}; they are {', '.join(prior.Ulist)}.")
    return pattern(prior.Ulist[name], _names(m, "condition_names"), title=name, ax=ax)


def plot_shrinkage(m: AnyResult, data: MashData, ax: "Axes | None" = None) -> "Axes":
    """Draw posterior means against the estimates they came from, coloured by lfsr."""
    estimate = data.Bhat * data.Shat_alpha
    keep = np.ones(estimate.shape, dtype=bool)
    if data.missing_mask is not None:
        keep = ~data.missing_mask
    return shrinkage(estimate[keep], get_pm(m)[keep], get_lfsr(m)[keep], ax=ax)
