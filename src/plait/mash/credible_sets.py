"""Credible sets, renumbered by their strongest evidence."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.errors import InputError, NotAvailableError, OptionError, ShapeError
from plait.mash.summaries import AnyResult, get_log10bf

Array = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class CredibleSetSummary:
    """One credible set.

    Attributes
    ----------
    credible_set, old_credible_set : int
        Number by falling evidence from 1, and the number it had.
    n_effects : int
    lead_effect : int
        Row of the largest log10 Bayes factor.
    lead_log10bf, mean_log10bf : float
        Largest and mean finite value; ``-inf`` and NaN where there is none.
    """

    credible_set: int
    old_credible_set: int
    n_effects: int
    lead_effect: int
    lead_log10bf: float
    mean_log10bf: float


def renumber_credible_sets_by_logbf(
    credible_set: ArrayLike, log10bf: ArrayLike, unassigned_label: int = 0
) -> tuple[NDArray[np.int64], list[CredibleSetSummary]]:
    """Renumber credible sets from 1 by falling lead log10 Bayes factor.

    Parameters
    ----------
    credible_set : (J,) integer array
        Set of every effect.
    log10bf : (J,) array
    unassigned_label : int
        Label of the effects that belong to no set; they keep it.

    Returns
    -------
    (J,) array, list of CredibleSetSummary
        Ties of the lead are ordered by the old number.

    Raises
    ------
    InputError
        The labels are not integers, or the two are not vectors of equal length.
    """
    labels, evidence = _checked(credible_set, log10bf)
    found = []
    for label in np.unique(labels[labels != unassigned_label]):
        rows = np.flatnonzero(labels == label)
        finite = np.isfinite(evidence[rows])
        ranked = np.where(finite, evidence[rows], -np.inf)
        lead = int(np.argmax(ranked))
        mean = float(evidence[rows][finite].mean()) if finite.any() else float("nan")
        found.append((float(ranked[lead]), int(label), len(rows), int(rows[lead]), mean))
    found.sort(key=lambda item: (-item[0], item[1]))
    renumbered = np.full(len(labels), unassigned_label, dtype=np.int64)
    summaries = []
    for number, (best, label, size, lead, mean) in enumerate(found, start=1):
        renumbered[labels == label] = number
        summaries.append(CredibleSetSummary(number, label, size, lead, best, mean))
    return renumbered, summaries


def _checked(credible_set: Any, log10bf: Any) -> tuple[NDArray[np.int64], Array]:
    labels = np.asarray(credible_set)
    evidence = np.asarray(log10bf, dtype=np.float64)
    if labels.ndim != 1 or evidence.ndim != 1:
        raise ShapeError("credible_set and log10bf must be one-dimensional.")
    if labels.shape != evidence.shape:
        raise ShapeError(
            f"credible_set and log10bf must be equally long, not {len(labels)} and {len(evidence)}."
        )
    if labels.dtype.kind not in "iu":
        raise InputError("credible_set must hold integer labels.")
    return labels.astype(np.int64), evidence


def renumber_credible_sets_from_result(
    m: AnyResult, credible_set: ArrayLike, unassigned_label: int = 0
) -> tuple[NDArray[np.int64], list[CredibleSetSummary]]:
    """Apply `renumber_credible_sets_by_logbf` with the Bayes factors of a result.

    Raises
    ------
    NotAvailableError
        The result has no Bayes factors.
    """
    log10bf = get_log10bf(m)
    if log10bf is None:
        raise NotAvailableError("log10bf is not available in this result.")
    return renumber_credible_sets_by_logbf(credible_set, log10bf, unassigned_label)


def format_credible_set_report(
    summary: Sequence[CredibleSetSummary], top_n: int | None = None
) -> str:
    """Return a fixed-width table of the first ``top_n`` credible sets (default all)."""
    if top_n is not None and top_n <= 0:
        raise OptionError(f"top_n is {top_n}; it must be positive.")
    lines = [f"{'set':>5} {'old':>5} {'effects':>8} {'lead':>8} {'lead log10BF':>13} {'mean':>10}"]
    lines += [
        f"{s.credible_set:>5} {s.old_credible_set:>5} {s.n_effects:>8} {s.lead_effect:>8} "
        f"{s.lead_log10bf:>13.4g} {s.mean_log10bf:>10.4g}"
        for s in list(summary)[:top_n]
    ]
    return "\n".join(lines)
