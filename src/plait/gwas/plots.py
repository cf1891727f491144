"""Figures of a scan: thin calls of `plait.plot`."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait import plot
from plait.data.summary_statistics import SummaryStatistics
from plait.errors import LabelError
from plait.gwas.interaction_results import OfInteractions
from plait.gwas.regional import locus_around
from plait.gwas.results import AssociationResult
from plait.gwas.variant_results import VariantResult
from plait.io.summary_statistics import chromosome_names

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from polars import DataFrame

    from plait.gwas.inputs import GenotypesLike

_VALUES_AT_ONCE = 1 << 19
"""Numbers, 4 MiB of them, that are read at a time."""

_INTERACTIONS = (
    "p-values of interactions against those that chance alone would give, both as −log₁₀. Grey: "
    "where 95% of them lie without any interaction. Points that leave the band only at the right "
    "are signals. Points above it from the start, and a lambda (the ratio of the medians) above 1, "
    "come from relatives, structure, many true interactions in linkage, and, unless errors are "
    "robust, from a variance of the trait that changes with the environment."
)

_ALLOWED_FOR = (
    "Observed p-values against those that chance alone would give, both as −log₁₀. Grey: where 95% "
    "of them lie without any effect. Points that leave the band only at the right are signals. "
    "Relatives and population structure are allowed for: points above the band from the start, and "
    "a lambda (the ratio of the medians) above 1, are mostly of many true effects in linkage."
)


def plot_manhattan(
    result: VariantResult,
    trait: str | None = None,
    *,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the Manhattan plot of one trait, or of the surest of all traits at every variant.

    Parameters
    ----------
    result : AssociationResult, InteractionResult or EnvironmentsResult
        Of the latter two, the p-values of the interaction are drawn.
    trait : str, optional
        Default all of them: each variant has the height of its smallest p-value, and those above
        the line the colour of that trait.
    caption : bool
        Write below the figure how to read it.
    ax : matplotlib Axes, optional
    """
    result.require_tests()
    overlaid = trait is None and len(result.traits) > 1
    return plot.manhattan(
        result.chrom,
        result.pos,
        _Smallest(result) if overlaid else _OneTrait(result, trait),
        labels=_Names(result),
        traits=result.traits if overlaid else None,
        trait_of=_Surest(result) if overlaid else None,
        title=result.headed("surest of all traits" if overlaid else trait or result.traits[0]),
        caption=caption,
        ax=ax,
    )


def plot_qq(
    result: VariantResult,
    trait: str | None = None,
    *,
    caption: bool = False,
    ax: "Axes | None" = None,
) -> "Axes":
    """Draw the QQ plot of one trait, or of all of them overlaid; see `plot_manhattan`."""
    result.require_tests()
    text = _qq_caption(result) if caption else False
    if trait is None:
        title = result.headed("") or None
        return plot.qq(result.surest, result.traits, title=title, caption=text, ax=ax)
    values = _OneTrait(result, trait)
    return plot.qq(values[:], title=result.headed(trait), caption=text, ax=ax)


def _qq_caption(result: VariantResult) -> bool | str:
    """Return how to read the QQ plot of a result; True where that is as of any p-values."""
    if isinstance(result, OfInteractions):
        return _INTERACTIONS
    origin = result.provenance
    model = None if origin is None else origin.options.get("model")
    return True if model in (None, "linear", "logistic") else _ALLOWED_FOR


def plot_regional(
    result: AssociationResult | SummaryStatistics,
    genotypes: "GenotypesLike | None" = None,
    lead: str | None = None,
    *,
    window_kb: float | None = None,
    traits: str | Sequence[str] | None = None,
    genes: "DataFrame | None" = None,
    title: str | None = None,
    caption: bool = False,
    axes: "Sequence[Axes] | None" = None,
) -> "list[Axes]":
    """Draw the associations around a lead variant, coloured by linkage with it.

    Parameters
    ----------
    result, genotypes, lead, window_kb, traits
        See `plait.gwas.regional.locus_around`. Several traits are drawn one below the other.
    genes : polars.DataFrame, optional
        ``chrom``, ``start``, ``end`` and ``name`` of genes to draw below.
    title : str, optional
    caption : bool
        Write below the figure how to read it.
    axes : sequence of matplotlib Axes, optional
        One per trait, and one more for genes.

    Returns
    -------
    list of matplotlib.axes.Axes
    """
    locus = locus_around(result, genotypes, lead, window_kb, traits)
    track = None
    if genes is not None:
        bare = chromosome_names(genes["chrom"]) == chromosome_names(locus.variants["chrom"])[0]
        track = list(genes.filter(bare).select("start", "end", "name").iter_rows())
    return plot.regional(
        locus.variants["pos"].to_numpy(),
        locus.log10p,
        None if genotypes is None else locus.r2,
        locus.lead,
        locus.traits,
        chrom=locus.chrom.removeprefix("chr"),
        lead_name=locus.lead_name,
        window=locus.window,
        genes=track,
        title=title,
        caption=caption,
        axes=axes,
    )


class _Names(Sequence[str]):
    """The names of variants, made when they are asked for: a picture shows a few."""

    def __init__(self, result: VariantResult) -> None:
        self._result = result

    def __len__(self) -> int:
        return len(self._result.n)

    def __getitem__(self, row: Any) -> Any:
        return str(self._result.names_of(slice(int(row), int(row) + 1))[0])


class _OfVariants(ABC):
    """Numbers of all variants, of which those that are asked for are made of the results."""

    def __init__(self, result: VariantResult) -> None:
        self._result = result
        self.shape = (len(result.n),)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> NDArray[Any]:
        start, stop, _ = rows.indices(len(self))
        step = max(_VALUES_AT_ONCE // len(self._result.traits), 1)
        parts = [slice(first, min(first + step, stop)) for first in range(start, stop, step)]
        return np.concatenate(
            [self._made(self._result.surest[part]) for part in parts or [slice(0, 0)]]
        )

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> NDArray[Any]:
        made: NDArray[Any] = self[:]
        return made if dtype is None else made.astype(dtype)

    @abstractmethod
    def _made(self, values: NDArray[np.float64]) -> NDArray[Any]:
        """Return a number of each variant, of those of its traits (n, T)."""


class _Smallest(_OfVariants):
    """The smallest p-value of each variant, as a logarithm."""

    def _made(self, values: NDArray[np.float64]) -> NDArray[Any]:
        smallest: NDArray[Any] = np.fmin.reduce(values, axis=1)
        return smallest


class _Surest(_OfVariants):
    """The trait of that p-value."""

    def _made(self, values: NDArray[np.float64]) -> NDArray[Any]:
        which: NDArray[Any] = np.argmin(np.nan_to_num(values, nan=1.0), axis=1)
        return which


class _OneTrait(_OfVariants):
    """The p-values of a trait, as logarithms."""

    def __init__(self, result: VariantResult, trait: str | None) -> None:
        super().__init__(result)
        trait = result.traits[0] if trait is None else trait
        if trait not in result.traits:
            raise LabelError(f"there is no trait {trait!r}; there are {', '.join(result.traits)}.")
        self._number = result.traits.index(trait)

    def _made(self, values: NDArray[np.float64]) -> NDArray[Any]:
        own: NDArray[Any] = values[:, self._number].copy()
        return own


def surest_of_traits(result: VariantResult) -> tuple[NDArray[np.float64], NDArray[np.intp]]:
    """Return the smallest p-value of each variant, as a logarithm, and of which trait it is."""
    return _Smallest(result)[:], _Surest(result)[:]
