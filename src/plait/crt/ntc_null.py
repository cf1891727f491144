"""Empirical nulls from negative controls: matching, p-values, combination, cross-fitting."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.crt.arguments import option_names, real_number, whole_number
from plait.data.words import counted
from plait.errors import InputError, InputTypeError, OptionError, ShapeError

Array = NDArray[np.float64]
_SMALLEST_DENOMINATOR = 1e-12
_FISHER_FLOOR, _STOUFFER_FLOOR = 1e-300, 1e-15


@dataclass(frozen=True, slots=True, eq=False)
class UnitEffects:
    """Effects of units (genes or groups of control guides), and what they are matched on.

    Attributes
    ----------
    beta : (units, K) array
    n1 : (units,) array
        Treated cells.
    d : (units,) array
        What the covariates leave of the treatment, ``D = x'Mx``.
    pbar : (units,) array or None
        Mean logit of the propensities.
    """

    beta: Array
    n1: NDArray[np.int64]
    d: Array
    pbar: Array | None = None

    def __len__(self) -> int:
        return len(self.n1)

    def take(self, rows: NDArray[Any]) -> "UnitEffects":
        """Return some of the units, by number or by mask."""
        pbar = None if self.pbar is None else self.pbar[rows]
        return UnitEffects(self.beta[rows], self.n1[rows], self.d[rows], pbar)


@dataclass(frozen=True, slots=True)
class MatchingOptions:
    """How units are matched to negative controls.

    Attributes
    ----------
    n_n1_bins, n_d_bins : int
        Quantile bins of the treated cells and of log D (10 each).
    min_ntc_per_bin : int
        Controls that a bin needs; with fewer, neighbouring bins are added (50).
    use_pbar : bool
        Whether the mean logit propensity is matched too (False).
    n_pbar_bins : int
        Its bins (8).
    with_controls : bool
        Whether tested targets that are negative controls are among the units at whose quantiles
        bins are (True, as programDE). They have many more cells than others where all control
        guides have one target.
    """

    n_n1_bins: int = 10
    n_d_bins: int = 10
    min_ntc_per_bin: int = 50
    use_pbar: bool = False
    n_pbar_bins: int = 8
    with_controls: bool = True

    def __post_init__(self) -> None:
        for name in ("n_n1_bins", "n_d_bins", "min_ntc_per_bin", "n_pbar_bins"):
            whole_number(getattr(self, name), name)
        for name in ("use_pbar", "with_controls"):
            if not isinstance(getattr(self, name), (bool, np.bool_)):
                raise InputTypeError(f"{name} is {getattr(self, name)!r}; give True or False.")

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any] | None) -> "MatchingOptions":
        """Return the options of a dictionary.

        Raises
        ------
        InputTypeError
            They are no mapping, an option is unknown, or its value of another type; it is also a
            TypeError.
        """
        known = [field.name for field in fields(cls)]
        return cls(**option_names(options, known, "matching"))

    def matched_counts(
        self, tested: UnitEffects, real: UnitEffects, info: Mapping[str, Any]
    ) -> NDArray[np.int64]:
        """Return how many controls each unit was compared with, by what `matched_p_values` says."""
        found = self.bins(real).of(tested.n1, tested.d, tested.pbar if self.use_pbar else None)
        sizes = info["bin_sizes"]
        return np.array([sizes[tuple(int(b) for b in key)] for key in found], dtype=np.int64)

    def bins(self, real: UnitEffects) -> "MatchingBins":
        """Return the bins at the quantiles of real units."""
        return matching_bins(
            real.n1,
            real.d,
            real.pbar if self.use_pbar else None,
            n_n1_bins=self.n_n1_bins,
            n_d_bins=self.n_d_bins,
            n_pbar_bins=self.n_pbar_bins,
        )


@dataclass(frozen=True)
class MatchingBins:
    """Bins in which real units and negative controls are alike.

    Attributes
    ----------
    edges : tuple of arrays
        Of each axis (n1, log D, and perhaps the mean logit propensity); an axis without bins has
        none.
    """

    edges: tuple[Array, ...]

    @property
    def n_bins(self) -> tuple[int, ...]:
        """Number of bins of each axis."""
        return tuple(max(len(edges) - 1, 1) for edges in self.edges)

    def of(self, n1: ArrayLike, d: ArrayLike, pbar: ArrayLike | None = None) -> NDArray[np.intp]:
        """Return the bins of units, (units, axes); values beyond the edges are in the end bins."""
        axes = _axes(n1, d, pbar)
        if len(axes) != len(self.edges):
            raise ShapeError(
                f"units have {counted(len(axes), 'feature')} and bins "
                f"{counted(len(self.edges), 'axis', 'axes')}."
            )
        bins = np.zeros((len(axes[0]), len(axes)), dtype=np.intp)
        for a, (values, edges) in enumerate(zip(axes, self.edges, strict=True)):
            if len(edges):
                found = np.searchsorted(edges, values, side="right") - 1
                bins[:, a] = np.clip(found, 0, len(edges) - 2)
        return bins


def _axes(n1: ArrayLike, d: ArrayLike, pbar: ArrayLike | None) -> list[Array]:
    axes = [
        np.asarray(n1, dtype=np.float64),
        np.log(np.maximum(np.asarray(d, dtype=np.float64), _SMALLEST_DENOMINATOR)),
    ]
    if pbar is not None:
        axes.append(np.asarray(pbar, dtype=np.float64))
    if any(values.shape != (len(axes[0]),) for values in axes):
        raise ShapeError("n1, d and pbar must hold one value for each unit.")
    return axes


def matching_bins(
    n1: ArrayLike,
    d: ArrayLike,
    pbar: ArrayLike | None = None,
    *,
    n_n1_bins: int = 10,
    n_d_bins: int = 10,
    n_pbar_bins: int = 8,
) -> MatchingBins:
    """Return bins at the quantiles of the real units' features.

    Parameters
    ----------
    n1, d : (units,) arrays
        Treated cells, and their variation that the covariates leave, ``D = x'Mx``.
    pbar : (units,) array, optional
        Mean logit of the propensities.
    n_n1_bins, n_d_bins, n_pbar_bins : int
        Quantile bins of each axis; 1 or less does not bin, nor do fewer than three distinct edges.

    Returns
    -------
    MatchingBins
    """
    edges = []
    counts = (n_n1_bins, n_d_bins, n_pbar_bins)
    for values, count in zip(_axes(n1, d, pbar), counts, strict=False):
        if not len(values):
            raise InputError("bins are quantiles of the real units, and there are none.")
        own = np.unique(np.quantile(values, np.linspace(0, 1, max(count, 1) + 1)))
        edges.append(own if len(own) > 2 else np.empty(0))
    return MatchingBins(tuple(edges))


def matched_p_values(
    tested: UnitEffects,
    null: UnitEffects,
    real: UnitEffects,
    options: MatchingOptions,
    *,
    two_sided: bool = True,
    by_unit: bool = False,
    counted: NDArray[np.bool_] | None = None,
) -> tuple[Array, dict[str, Any]]:
    """Return p-values of units among the negative controls that are like them.

    Parameters
    ----------
    tested : UnitEffects
    null : UnitEffects
        The negative controls.
    real : UnitEffects
        The real units, at whose quantiles the bins are.
    options : MatchingOptions
    two_sided : bool
        Whether absolute effects are compared; else large ones are extreme.
    by_unit : bool
        Whether one p-value is made for a unit, of its largest absolute effect on any program.
    counted : (units,) array of bool, optional
        Units whose p-values are used, of which ``n_outside`` are counted; default all.

    Returns
    -------
    p : (units, K) array, or (units, 1)
    info : dict
        Of `matched_empirical_p_values`, and ``n_bins_n1``, ``n_bins_d``, ``n_bins_pbar`` (if
        used), ``min_ntc_per_bin``, ``use_pbar`` and ``n_outside``: units whose D is below or above
        that of every control, so that none is like them.
    """
    edges = options.bins(real)

    def statistic(units: UnitEffects) -> Array:
        return np.abs(units.beta).max(axis=1, keepdims=True) if by_unit else units.beta

    def bins(units: UnitEffects) -> NDArray[np.intp]:
        return edges.of(units.n1, units.d, units.pbar if options.use_pbar else None)

    p, info = matched_empirical_p_values(
        statistic(tested),
        bins(tested),
        statistic(null),
        bins(null),
        min_per_bin=options.min_ntc_per_bin,
        two_sided=two_sided and not by_unit,
    )
    names = ("n_bins_n1", "n_bins_d", "n_bins_pbar")
    info |= dict(zip(names, edges.n_bins, strict=False))
    is_outside = (tested.d < null.d.min()) | (tested.d > null.d.max())
    return p, info | {
        "min_ntc_per_bin": options.min_ntc_per_bin,
        "use_pbar": options.use_pbar,
        "n_outside": int((is_outside if counted is None else is_outside & counted).sum()),
    }


def matched_empirical_p_values(
    statistic: ArrayLike,
    bins: NDArray[np.intp],
    null_statistic: ArrayLike,
    null_bins: NDArray[np.intp],
    *,
    min_per_bin: int = 50,
    two_sided: bool = True,
) -> tuple[Array, dict[str, Any]]:
    """Return p-values of units among the negative controls that are like them.

    The controls of a unit's bin are its null where they are at least ``min_per_bin``; else those
    within the smallest Manhattan distance that holds so many; else all.

    Parameters
    ----------
    statistic : (units, K) array
    bins : (units, axes) array
        From `MatchingBins.of`.
    null_statistic : (controls, K) array
    null_bins : (controls, axes) array
    min_per_bin : int
    two_sided : bool
        Whether absolute values are compared; else large values are extreme.

    Returns
    -------
    p : (units, K) array
        ``(1 + #{control at least as extreme}) / (m + 1)`` among ``m`` controls.
    info : dict
        ``bin_sizes``: the number of controls used for each bin; ``fallback_counts``: bins whose
        own controls were too few.

    Raises
    ------
    InputError
        There are no controls, or the numbers of columns or rows differ.

    Notes
    -----
    Time O((controls + units) log controls) for each occupied bin and column.
    """
    observed, null = (np.asarray(a, dtype=np.float64) for a in (statistic, null_statistic))
    if observed.ndim != 2 or null.ndim != 2 or observed.shape[1] != null.shape[1]:
        raise ShapeError(f"statistics have shapes {observed.shape} and {null.shape}.")
    if len(bins) != len(observed) or len(null_bins) != len(null):
        raise ShapeError("every unit and every control needs its bins.")
    if not len(null):
        raise InputError("there are no negative controls to compare with.")
    if two_sided:
        observed, null = np.abs(observed), np.abs(null)
    p = np.ones(observed.shape)
    sizes: dict[tuple[int, ...], int] = {}
    widened = 0
    for key in np.unique(bins, axis=0) if len(bins) else []:
        distance = np.abs(null_bins - key).sum(axis=1)
        chosen, wider = _nearest(distance, min_per_bin, max(_span(bins), _span(null_bins)))
        widened += wider
        sizes[tuple(int(b) for b in key)] = int(chosen.sum())
        rows = np.flatnonzero((bins == key).all(axis=1))
        for k, column in enumerate(np.sort(null[chosen], axis=0).T):
            below = np.searchsorted(column, observed[rows, k], side="left")
            p[rows, k] = (1 + len(column) - below) / (len(column) + 1)
    return p, {"bin_sizes": sizes, "fallback_counts": widened}


def _span(bins: NDArray[np.intp]) -> int:
    return int(bins.max(initial=0)) + 1


def _nearest(
    distance: NDArray[np.intp], least: int, farthest: int
) -> tuple[NDArray[np.bool_], bool]:
    """Return which controls are used, and whether others than those of the bin itself."""
    for radius in range(farthest + 1):
        near = distance <= radius
        if near.sum() >= max(least, 1):
            return near, radius > 0
    return np.ones(len(distance), dtype=bool), True


def combine_fisher(p_values: ArrayLike, contributes: ArrayLike | None = None) -> Array:
    """Combine p-values of batches by Fisher's method.

    Parameters
    ----------
    p_values : (batches, ...) array
        Below 1e-300 they are raised to it.
    contributes : (batches, ...) array of bool, optional
        Which count; default all.

    Returns
    -------
    array
        The tail of a chi-square of two degrees of freedom per p-value; 1 where none counts.
    """
    from scipy.special import chdtrc

    p, counts = _contributions(p_values, contributes)
    chi2 = -2.0 * (np.log(np.maximum(p, _FISHER_FLOOR)) * counts).sum(axis=0)
    n = counts.sum(axis=0)
    return np.asarray(np.where(n > 0, chdtrc(2 * np.maximum(n, 1), np.maximum(chi2, 0.0)), 1.0))


def combine_stouffer(
    p_values: ArrayLike, effects: ArrayLike, contributes: ArrayLike | None = None
) -> Array:
    """Combine two-sided p-values of batches by Stouffer's method, with the effects' signs.

    Parameters
    ----------
    p_values : (batches, ...) array
        Two-sided; below 1e-15 they are raised to it.
    effects : (batches, ...) array
        Their signs are used; an effect of 0 counts as z = 0.
    contributes : (batches, ...) array of bool, optional
        Which count; default all.

    Returns
    -------
    array
        ``2 Phi(-|sum z| / sqrt(batches))`` with ``z = sign(effect) Phi^-1(1 - p / 2)``, uniform
        without effects; 1 where none counts.
    """
    signs = np.sign(np.asarray(effects, dtype=np.float64))
    return _stouffer(p_values, signs, contributes)


def combine_stouffer_abs(p_values: ArrayLike, contributes: ArrayLike | None = None) -> Array:
    """Combine two-sided p-values by Stouffer's method without signs, which is not calibrated.

    All z are positive, so p-values come out too small: two of 0.5 give 0.34. It is here to compare
    with programDE; use `combine_stouffer` or `combine_fisher`.

    Parameters
    ----------
    p_values : (batches, ...) array
    contributes : (batches, ...) array of bool, optional
        Which count; default all.

    Returns
    -------
    array
    """
    return _stouffer(p_values, np.ones(np.shape(p_values)), contributes)


def _stouffer(p_values: ArrayLike, signs: Array, contributes: ArrayLike | None) -> Array:
    from scipy.special import ndtr, ndtri

    p, counts = _contributions(p_values, contributes)
    if signs.shape != p.shape:
        raise ShapeError(f"p-values have shape {p.shape} and effects {signs.shape}.")
    z = -ndtri(np.maximum(p, _STOUFFER_FLOOR) / 2) * signs
    n = counts.sum(axis=0)
    total = (z * counts).sum(axis=0) / np.sqrt(np.maximum(n, 1))
    return np.asarray(np.where(n > 0, 2 * ndtr(-np.abs(total)), 1.0))


def _contributions(
    p_values: ArrayLike, contributes: ArrayLike | None
) -> tuple[Array, NDArray[np.bool_]]:
    p = np.asarray(p_values, dtype=np.float64)
    counts = np.ones(p.shape, bool) if contributes is None else np.asarray(contributes, bool)
    if counts.shape != p.shape:
        raise ShapeError(f"p-values have shape {p.shape} and contributes {counts.shape}.")
    if not ((p >= 0) & (p <= 1))[counts].all():
        raise InputError("p-values must be between 0 and 1.")
    return np.where(counts, p, 1.0), counts


def split_ntc_units(
    ids: ArrayLike, frac_A: float = 0.5, seed: int = 0
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Split negative-control units into a half A that is the null and a half B that is tested.

    Parameters
    ----------
    ids : (units,) array
    frac_A : float
        Share of A, in (0, 1); rounded half to even, at least one unit in each half.
    seed : int

    Returns
    -------
    A, B : arrays

    Raises
    ------
    InputError
        There are fewer than 2 units, ids are no vector, or the share is outside (0, 1).
    InputTypeError
        The share is no number, or the seed no whole one (also a TypeError).
    """
    units = np.asarray(ids)
    if units.ndim != 1:
        raise ShapeError(f"ids have {counted(units.ndim, 'dimension')}; a vector is expected.")
    if not 0.0 < real_number(frac_A, "frac_A") < 1.0:
        raise OptionError(f"frac_A is {frac_A} and must be between 0 and 1.")
    if len(units) < 2:
        raise InputError(
            f"{counted(len(units), 'unit')} of negative controls cannot be split; 2 are needed."
        )
    order = np.random.default_rng(whole_number(seed, "seed", least=0)).permutation(len(units))
    first = min(max(round(frac_A * len(units)), 1), len(units) - 1)
    return units[order[:first]], units[order[first:]]
