"""Figures of mash results: thin calls of `plait.plot`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait import plot
from plait.errors import InputError, LabelError, NotAvailableError
from plait.io.stored_arrays import find_label
from plait.mash.data import MashData
from plait.mash.results import ChunkedApplyResult, MashResult, PosteriorMatrices, TrainApplyResult
from plait.mash.summaries import (
    as_prior_of,
    get_estimated_pi,
    get_lfsr,
    get_pairwise_sharing,
    get_pm,
    quantity,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes

AnyResult = MashResult | PosteriorMatrices | TrainApplyResult | ChunkedApplyResult


def mash_plot_meta(
    m: AnyResult,
    i: int | str,
    xlab: str = "Effect size",
    ylab: str = "Condition",
    labels: Sequence[str] | None = None,
    ci: float = 1.96,
    ax: "Axes | None" = None,
    boxes: bool = False,
    *,
    data: MashData | None = None,
    caption: bool = False,
) -> "Axes":
    """Draw a forest plot of one effect: posterior means and bars, the first condition on top.

    Parameters
    ----------
    m : result
    i : int or str
        Row number (from 0) or name of the effect.
    xlab, ylab : str
    labels : sequence of str, optional
        Default the condition names.
    ci : float
        Half length of the bars in posterior standard deviations.
    ax : matplotlib Axes, optional
    boxes : bool
        Draw squares whose area is proportional to the precision.
    data : MashData, optional
        The data the result came from: draws the estimates before shrinkage too.
    caption : bool
        Write below the figure how to read it.

    Returns
    -------
    matplotlib.axes.Axes

    Raises
    ------
    LabelError, InputError
        There is no such effect.
    DependencyError
        Matplotlib is not installed.
    """
    row = find_effect(m, i)
    names = _names(m, "effect_names")
    return plot.forest(
        quantity(m, "posterior_mean")[row],
        quantity(m, "posterior_sd")[row],
        _names(m, "condition_names") if labels is None else labels,
        ci=ci,
        boxes=boxes,
        lfsr=quantity(m, "lfsr")[row],
        before=None if data is None else _estimates(data, row),
        xlabel=xlab,
        ylabel=ylab,
        title=None if names is None else str(names[row]),
        caption=caption,
        ax=ax,
    )


def plot_sharing(
    m: AnyResult,
    factor: float = 0.5,
    lfsr_thresh: float = 0.05,
    cluster: bool | None = None,
    ax: "Axes | None" = None,
    *,
    caption: bool = False,
) -> "Axes":
    """Draw the pairwise sharing of conditions as a heat map; see `get_pairwise_sharing`.

    By default conditions that share much stand next to each other where there are more than 8.
    """
    within = "same sign" if factor == 0 else f"same sign, within a factor of {1 / factor:.3g}"
    return plot.sharing(
        get_pairwise_sharing(m, factor, lfsr_thresh),
        _names(m, "condition_names"),
        cluster=cluster,
        legend=f"share of effects ({within})",
        caption=caption,
        ax=ax,
    )


def plot_weights(
    m: AnyResult, most: int = 20, ax: "Axes | None" = None, *, caption: bool = False
) -> "Axes":
    """Draw the estimated weight of every covariance, summed over the grid."""
    shares = get_estimated_pi(m)
    names = [str(name) for name in shares.index]
    return plot.weights(shares.to_numpy(), names, largest=most, caption=caption, ax=ax)


def plot_patterns(m: AnyResult, most: int = 5, *, caption: bool = False) -> "list[Axes]":
    """Draw the main direction of the covariances that carry most weight, one panel each."""
    prior = as_prior_of(m)
    shares = get_estimated_pi(m)
    ranked = shares[[name in prior.Ulist for name in shares.index]].sort_values(
        ascending=False, kind="stable"
    )
    chosen = [str(name) for name in ranked.index[: max(most, 1)] if ranked[name] >= 0.001]
    if not chosen:
        raise NotAvailableError("no covariance carries weight: all effects are estimated to be 0.")
    return plot.patterns(
        np.stack([prior.Ulist[name] for name in chosen]),
        _names(m, "condition_names"),
        [f"{name}: {ranked[name]:.1%}" for name in chosen],
        caption=caption,
    )


def plot_pattern(
    m: AnyResult, name: str, ax: "Axes | None" = None, *, caption: bool = False
) -> "Axes":
    """Draw the main direction of one covariance of the prior over the conditions."""
    prior = as_prior_of(m)
    if name not in prior.Ulist:
        raise LabelError(f"there is no covariance {name!r}; they are {', '.join(prior.Ulist)}.")
    axes = None if ax is None else [ax]
    return plot.patterns(
        prior.Ulist[name][None], _names(m, "condition_names"), [name], caption=caption, axes=axes
    )[0]


def plot_shrinkage(
    m: AnyResult, data: MashData, ax: "Axes | None" = None, *, caption: bool = False
) -> "Axes":
    """Draw posterior means against the estimates they came from, coloured by lfsr."""
    return plot.shrinkage(
        _estimates(data, slice(None))[0], get_pm(m), get_lfsr(m), caption=caption, ax=ax
    )


def find_effect(m: AnyResult, i: int | str) -> int:
    """Return the row of an effect given by number or name."""
    count = len(quantity(m, "posterior_mean"))
    if isinstance(i, str):
        names = _names(m, "effect_names")
        if names is None:
            raise LabelError(f"the effects have no names; give a row number instead of {i!r}.")
        found = find_label(names, i)
        if len(found) != 1:
            raise LabelError(f"there is no effect named {i!r} among the {count}.")
        return found[0]
    if not -count <= i < count:
        raise InputError(f"there is no effect {i}; give a row number from 0 to {count - 1}.")
    return int(i) % count


def _names(m: AnyResult, field: str) -> Any:
    return getattr(m.apply_result if isinstance(m, TrainApplyResult) else m, field, None)


def _estimates(
    data: MashData, rows: int | slice
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return estimates and errors on their own scale, NaN where nothing was measured."""
    scale = data.Shat_alpha[rows]
    effect, error = data.Bhat[rows] * scale, data.Shat[rows] * scale
    if data.missing_mask is not None:
        hidden = data.missing_mask[rows]
        effect, error = np.where(hidden, np.nan, effect), np.where(hidden, np.nan, error)
    return effect, error
