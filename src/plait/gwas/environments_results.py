"""What an interaction scan of several environments, or of more than two groups, returns."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.effects import Effects
from plait.errors import OptionError
from plait.gwas.interaction_results import OfInteractions, written
from plait.gwas.variant_results import VARIANT_COLUMNS
from plait.io import write_effects

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

STATISTICS = ("coefficients", "covariance", "log10p_interaction", "log10p_joint")
"""All that is found out of each variant and trait, but the number of samples."""


@dataclass(frozen=True, eq=False, repr=False)
class EnvironmentsResult(OfInteractions):
    """Effects of M variants on T traits, and how they change with q environments.

    Attributes
    ----------
    coefficients : (M, T, 1 + q) array
        Effect of one copy of the effect allele where all environments are 0 (of groups: in the
        group without an indicator), and its changes with one unit of each. NaN where a variant was
        not tested.
    covariance : (M, T, 1 + q, 1 + q) array
        Of their errors.
    log10p_interaction : (M, T) array
        log10 of the p-value of no change with any environment (q degrees of freedom).
    log10p_joint : (M, T) array
        log10 of the p-value of no effect in any environment (1 + q degrees of freedom).
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele among the samples of any trait.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`.
    traits : tuple of str
    terms : tuple of str
        What coefficients are of: ``main``, and the environments.
    environment : str
        All environments in words.
    groups : tuple of str or None
        Where the environments are the indicators of one text: the R = 1 + q groups, that without an
        indicator first: ``(others)`` where those are of several values, or of an unknown one.
    robust : bool
        Whether errors hold with unequal variances (HC3).
    filtered : dict of str to int
        How many tests each rule left out.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "environments"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "coefficients": ("variants", "traits", "terms"),
        "covariance": ("variants", "traits", "terms", "terms"),
        **dict.fromkeys(("log10p_interaction", "log10p_joint", "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
    }
    statistics: ClassVar[tuple[str, ...]] = STATISTICS
    tested_by: ClassVar[str] = "log10p_interaction"
    surest_by: ClassVar[str] = "log10p_interaction"
    command: ClassVar[str] = "interaction"
    folder_store: ClassVar[str] = "interactions.zarr"

    coefficients: Array
    covariance: Array
    log10p_interaction: Array
    log10p_joint: Array
    terms: tuple[str, ...]
    environment: str
    groups: tuple[str, ...] | None = None
    robust: bool = False

    __repr__ = OfInteractions.__repr__

    @property
    def values_per_trait(self) -> int:
        """Values of the widest array for each variant and trait."""
        return len(self.terms) ** 2

    def effects_at(
        self, environments: ArrayLike | None = None, rows: slice = slice(None)
    ) -> tuple[Array, Array]:
        """Return effects where the environments have given values.

        Parameters
        ----------
        environments : (R, q) array, optional
            A row for each place, in the order of ``terms``. Default: the groups.
        rows : slice
            Of which variants (M); default all.

        Returns
        -------
        beta : (M, T, R) array
        covariance : (M, T, R, R) array
            Of their errors, of rank 1 + q at most.

        Raises
        ------
        OptionError
            Environments have another shape, or are not given and there are no groups.
        """
        places = self._places(environments)
        beta = np.asarray(self.coefficients[rows]) @ places.T
        covariance = places @ np.asarray(self.covariance[rows]) @ places.T
        return beta, covariance

    def to_effects(self, trait: str, environments: ArrayLike | None = None) -> Effects:
        """Return the effects on a trait in several environments, as `plait.mash` takes them.

        Parameters
        ----------
        trait : str
        environments : (R, q) array, optional
            As in `effects_at`: the groups, or at most 1 + q places of which none follows from the
            others.

        Returns
        -------
        Effects
            With V (J, R, R), the correlation of their errors, of each variant. Variants without a
            test are left out. Errors are widened, as by `InteractionResult.to_effects`.

        Raises
        ------
        LabelError
            There is no such trait.
        OptionError
            Environments are not given, or effects in some follow from those in the others.
        NotAvailableError
            No variant was tested.
        """
        return self._joined(self._all_effects(trait, environments))

    def write_effects(
        self,
        path: str | os.PathLike[str],
        trait: str,
        environments: ArrayLike | None = None,
        overwrite: bool = False,
    ) -> None:
        """Write what `to_effects` returns as a store, part by part.

        Raises
        ------
        LabelError, OptionError, NotAvailableError
            As of `to_effects`.
        OutputError
            The store exists or cannot be written.
        """
        write_effects(self._all_effects(trait, environments), path, overwrite)

    def to_table(self, rows: slice = slice(None)) -> "DataFrame":
        """Return one row per variant, with ``log10p_interaction.<trait>`` and so on.

        Effects are those in each group, ``beta_<group>.<trait>`` and ``se_<group>.<trait>``; of
        environments that are no groups the coefficients, ``beta_main.<trait>`` and
        ``beta_<environment>.<trait>``. Covariances are in the store.
        """
        import polars as pl

        names = self.terms if self.groups is None else self.groups
        places = np.eye(len(self.terms)) if self.groups is None else self._places(None)
        beta = np.asarray(self.coefficients[rows]) @ places.T
        covariance = places @ np.asarray(self.covariance[rows]) @ places.T
        errors = np.sqrt(np.diagonal(covariance, axis1=2, axis2=3))
        more = {
            f"{name}_{term}.{trait}": pl.Series(values[:, number, place])
            for number, trait in enumerate(self.traits)
            for place, term in enumerate(names)
            for name, values in (("beta", beta), ("se", errors))
        }
        first = super().to_table(rows)
        return first.with_columns(**more)

    def _places(self, environments: ArrayLike | None) -> Array:
        """Return the rows (R, 1 + q) that make effects of coefficients."""
        q = len(self.terms) - 1
        if environments is None:
            if self.groups is None:
                raise OptionError(
                    f"give environments, rows of {q} values: {', '.join(self.terms[1:])}."
                )
            environments = np.concatenate([np.zeros((1, q)), np.eye(q)])
        values = np.asarray(environments, dtype=np.float64)
        if values.ndim != 2 or values.shape[1] != q or not np.isfinite(values).all():
            raise OptionError(
                f"environments have shape {values.shape}; give rows of {q} finite numbers: "
                f"{', '.join(self.terms[1:])}."
            )
        return np.concatenate([np.ones((len(values), 1)), values], axis=1)

    def _contexts(self, places: Array, are_groups: bool) -> tuple[str, ...]:
        if are_groups and self.groups is not None:
            return self.groups
        names = self.terms[1:]
        return tuple(
            ",".join(f"{name}={written(v)}" for name, v in zip(names, row, strict=True))
            for row in places[:, 1:].tolist()
        )

    def _effects(
        self, trait: int, environments: ArrayLike | None, contexts: tuple[str, ...], rows: slice
    ) -> Effects | None:
        beta, covariance = (values[:, trait] for values in self.effects_at(environments, rows))
        estimates = np.asarray(self.coefficients[rows])[:, trait]
        of_estimates = np.asarray(self.covariance[rows])[:, trait]
        tested = ~np.isnan(self.log10p_interaction[rows][:, trait])
        slopes = estimates, of_estimates, trait
        return self._as_effects(beta, covariance, *slopes, tested, rows, contexts)

    def _all_effects(self, trait: str, environments: ArrayLike | None) -> Iterator[Effects]:
        """Yield the effects of parts of the variants in which some are tested."""
        number, places = self._number_of(trait), self._places(environments)
        if np.linalg.matrix_rank(places) < len(places):
            raise OptionError(
                f"effects in some of the {len(places)} environments follow from those in the "
                f"others, and have no errors of their own. Give at most {len(self.terms)} that do "
                "not lie on a line, plane, and so on."
            )
        contexts = self._contexts(places, environments is None)
        found = (self._effects(number, environments, contexts, rows) for rows in self.parts())
        return self._effects_of_parts(trait, found)


def group_names(terms: Sequence[str], values: Array, base: str | None) -> tuple[str, ...] | None:
    """Return the names of groups whose indicators environments are; None where they are others.

    Parameters
    ----------
    terms : sequence of str
        The q environments.
    values : (N, q) array
    base : str or None
        The group without an indicator; None: not known by name.
    """
    heads = {term.partition("=")[0] for term in terms}
    if len(terms) < 2 or len(heads) > 1 or not all("=" in term for term in terms):
        return None
    if not np.isin(values, (0.0, 1.0)).all() or (values.sum(axis=1) > 1).any():
        return None
    return (f"{heads.pop()}={base or '(others)'}", *terms)
