"""What an interaction scan returns: effects, and how they change with an environment."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from plait.data.effects import Effects
from plait.data.p_values import absolute_z_of_log10_p, p_value_text
from plait.data.words import counted
from plait.errors import NotAvailableError, OptionError
from plait.gwas.variant_results import VARIANT_COLUMNS, VariantResult
from plait.gwas.variant_tables import write_tsv
from plait.io import write_effects

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

_KINDS = ("main", "interaction")
EFFECTS = tuple(f"{name}_{kind}" for kind in _KINDS for name in ("beta", "se", "log10p"))
"""Names of what is estimated for each variant and trait."""
STATISTICS = (*EFFECTS, "covariance", "log10p_joint")
"""All that is found out of each variant and trait, but the number of samples."""
_OF_EFFECTS = ("bhat", "shat", "V", "effects")
_DEEP = -290.0
"""log10 of the p-values below which quantiles are those of an expansion."""
_ROUNDS = 20


class OfInteractions(VariantResult):
    """What results of interactions say of themselves, whatever the environments."""

    environment: str
    robust: bool
    log10p_joint: Array

    def __repr__(self) -> str:
        size = f"{counted(len(self.n), 'variant')} x {counted(len(self.traits), 'trait')}"
        return f"{type(self).__name__}({size}, environment {self.environment!r})"

    def headed(self, trait: str) -> str:
        """Return the heading of a picture of the interaction with a trait."""
        return f"{trait}: interaction with {self.environment}".removeprefix(": ")

    def summary(self) -> str:
        """Say in a few lines what was tested and found."""
        lines = [repr(self) + (", robust errors" if self.robust else ""), *self._behind_tests()]
        hits, surest, smallest = self.leads()
        placed = self.placed(surest)
        for number, trait in enumerate(self.traits):
            if (best := surest[number]) is None:
                lines.append(f"  {trait}: no variant tested")
                continue
            line = f"  {trait}: {counted(int(hits[number]), 'interaction')} at p < 5e-8"
            line += f", lambda {self.lambda_gc[number]:.3f}, surest {placed[best]}"
            line += f", p = {p_value_text(float(smallest[number]))}"
            lines.append(line)
        return "\n".join(lines)

    def _as_effects(
        self,
        beta: Array,
        covariance: Array,
        estimates: Array,
        of_estimates: Array,
        trait: int,
        tested: NDArray[np.bool_],
        rows: slice,
        contexts: tuple[str, ...],
    ) -> Effects | None:
        """Return effects (n, R) of the tested variants among some, None without any.

        ``estimates`` (n, 1 + q) are the main effects and the changes with the environments,
        ``of_estimates`` (n, 1 + q, 1 + q) the covariance of their errors.
        """
        if not tested.any():
            return None
        beta, covariance = beta[tested], covariance[tested]
        estimates, of_estimates = estimates[tested], of_estimates[tested]
        logs = np.asarray(self.surest[rows])[tested, trait]
        wider = _widening(estimates[:, 1:], of_estimates[:, 1:, 1:], logs)
        if not self.robust:
            # Robust joint tests have degrees of freedom of their own.
            logs = np.asarray(self.log10p_joint[rows])[tested, trait]
            wider = np.maximum(wider, _widening(estimates, of_estimates, logs))
        covariance *= wider[:, None, None]
        errors = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
        correlation = covariance / (errors[:, :, None] * errors[:, None, :])
        names = self.names_of(rows)[tested].astype(np.str_)
        return Effects(beta, errors, correlation, names, contexts, self.provenance)

    def _effects_of_parts(self, trait: str, found: Iterator[Effects | None]) -> Iterator[Effects]:
        """Yield the effects of the parts of the variants in which some are tested."""
        parts = (part for part in found if part is not None)
        if (first := next(parts, None)) is None:
            raise NotAvailableError(
                f"no variant was tested for {trait!r}; tests left out: {self.left_out}."
            )
        return chain([first], parts)

    def _joined(self, found: Iterator[Effects]) -> Effects:
        """Return the effects of all parts as one."""
        parts = list(found)
        bhat, shat, V, names = (
            np.concatenate([getattr(part, name) for part in parts]) for name in _OF_EFFECTS
        )
        return Effects(bhat, shat, V, names, parts[0].contexts, self.provenance)


def _widening(changes: Array, covariance: Array, log10p: Array) -> Array:
    """Return what covariances are multiplied by for normal errors to give the p-values of tests.

    Errors have as few degrees of freedom as samples, and robust ones fewer where carriers are few.
    Taken for normal, those of 40 samples make twice too many effects beyond 3.3 errors, and robust
    ones 8 times too many changes at 20 to 30 copies of an allele.
    """
    solved = np.linalg.solve(covariance, changes[..., None])[..., 0]
    squares = np.einsum("nq,nq->n", changes, solved)
    normal = _chi_square_of(log10p, changes.shape[1])
    ratio = np.divide(squares, normal, out=np.ones_like(squares), where=normal > 0)
    widened: Array = np.maximum(ratio, 1.0)
    return widened


def _chi_square_of(log10p: Array, q: int) -> Array:
    """Return the chi-square of q degrees of freedom that has a p-value, at any depth."""
    if q == 1:
        return absolute_z_of_log10_p(log10p) ** 2
    from scipy.special import gammainccinv, gammaln

    a, log_p = 0.5 * q, log10p * np.log(10.0)
    half: Array = gammainccinv(a, 10.0 ** np.maximum(log10p, _DEEP))
    deep = log10p < _DEEP
    for _ in range(_ROUNDS if deep.any() else 0):  # Q(a, x) = x^(a - 1) e^-x / Gamma(a) (1 + ...)
        more = np.log1p((a - 1.0) / half[deep])
        half[deep] = (a - 1.0) * np.log(half[deep]) - gammaln(a) + more - log_p[deep]
    return 2.0 * half


@dataclass(frozen=True, eq=False, repr=False)
class InteractionResult(OfInteractions):
    """Effects of M variants on T traits, and how they change with an environment.

    Attributes
    ----------
    beta_main, se_main, log10p_main : (M, T) arrays
        Effect of one copy of the effect allele where the environment is 0, its standard error, and
        log10 of its two-sided p-value. NaN where a variant was not tested.
    beta_interaction, se_interaction, log10p_interaction : (M, T) arrays
        Change of that effect with one unit of the environment.
    covariance : (M, T) array
        Of the errors of the two.
    log10p_joint : (M, T) array
        log10 of the p-value of no effect in any environment (2 degrees of freedom).
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele among the samples of any trait.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`.
    traits : tuple of str
    environment : str
    robust : bool
        Whether errors hold with unequal variances (HC3).
    filtered : dict of str to int
        How many tests each rule left out.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "interaction"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys((*STATISTICS, "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
    }
    statistics: ClassVar[tuple[str, ...]] = STATISTICS
    tested_by: ClassVar[str] = "se_interaction"
    surest_by: ClassVar[str] = "log10p_interaction"
    command: ClassVar[str] = "interaction"
    folder_store: ClassVar[str] = "interactions.zarr"

    beta_main: Array
    se_main: Array
    log10p_main: Array
    beta_interaction: Array
    se_interaction: Array
    log10p_interaction: Array
    covariance: Array
    log10p_joint: Array
    environment: str
    robust: bool = False

    __repr__ = OfInteractions.__repr__

    def effects_at(self, environments: ArrayLike, rows: slice = slice(None)) -> tuple[Array, Array]:
        """Return effects where the environment has given values.

        Parameters
        ----------
        environments : (R,) array
        rows : slice
            Of which variants (M); default all.

        Returns
        -------
        beta : (M, T, R) array
        covariance : (M, T, R, R) array
            Of their errors, of rank 2: the R effects lie on one line.
        """
        e = np.atleast_1d(np.asarray(environments, dtype=np.float64))
        names = ("beta_main", "beta_interaction", "se_main", "se_interaction", "covariance")
        at_0, change, error_at_0, error_of_change, covariance = (
            np.asarray(getattr(self, name)[rows])[..., None] for name in names
        )
        beta = at_0 + change * e
        main, slope = error_at_0[..., None] ** 2, error_of_change[..., None] ** 2
        both = covariance[..., None] * (e[:, None] + e)
        return beta, np.asarray(main + both + slope * np.outer(e, e))

    def to_effects(self, trait: str, environments: Sequence[float]) -> Effects:
        """Return the effects on a trait in two environments, as `plait.mash` takes them.

        Parameters
        ----------
        trait : str
        environments : sequence of two floats
            Values of the environment. The effects in any other follow from those in two.

        Returns
        -------
        Effects
            With V, the correlation of their errors, of each variant. Variants without a test are
            left out. Errors are widened for normal ones to give the p-value of the interaction and,
            unless robust, none below that of the joint test: mash takes errors for normal, and
            these have few degrees of freedom.

        Raises
        ------
        LabelError
            There is no such trait.
        OptionError
            There are not two environments that differ.
        NotAvailableError
            No variant was tested.
        """
        return self._joined(self._all_effects(trait, environments))

    def write_effects(
        self,
        path: str | os.PathLike[str],
        trait: str,
        environments: Sequence[float],
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

    def to_table(
        self, rows: slice = slice(None), environments: Sequence[float] = ()
    ) -> "DataFrame":
        """Return one row per variant, with ``beta_interaction.<trait>`` and so on.

        Parameters
        ----------
        rows : slice
            Which variants; default all.
        environments : sequence of float
            Values of the environment at which the effect is told too, as ``beta_at_20.<trait>``,
            with its error, ``se_at_20.<trait>``.

        Raises
        ------
        OptionError
            An environment is not a finite number, or is given twice.
        """
        import polars as pl

        places = checked_environments(environments)
        beta, covariance = self.effects_at(places, rows)
        errors = np.sqrt(np.maximum(np.diagonal(covariance, axis1=2, axis2=3), 0.0))
        more = {
            f"{name}_at_{written(value)}.{trait}": values[:, number, place]
            for number, trait in enumerate(self.traits)
            for place, value in enumerate(places)
            for name, values in (("beta", beta), ("se", errors))
        }
        return super().to_table(rows).with_columns(**{k: pl.Series(v) for k, v in more.items()})

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        environments: Sequence[float] = (),
        *,
        partition: str | None = None,
        p_threshold: float | None = None,
    ) -> None:
        """Write `to_table` as parquet, part by part; see `VariantResult.write_parquet`.

        ``p_threshold`` is of the p-values of the interaction.
        """

        def table(rows: slice) -> "DataFrame":
            return self.to_table(rows, environments)

        self._write_parquet(path, table, overwrite, partition, p_threshold)

    def write_tsv(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        environments: Sequence[float] = (),
        *,
        p_threshold: float | None = None,
    ) -> None:
        """Write `to_table` as text compressed by gzip, part by part; missing values are ``NA``.

        ``p_threshold`` is of the p-values of the interaction; see `VariantResult.write_parquet`.
        """
        pieces = self._rows_of_tables(p_threshold)
        write_tsv(path, lambda r: self.to_table(r, environments), pieces, overwrite)

    def _effects(self, trait: int, environments: list[float], rows: slice) -> Effects | None:
        beta, covariance = (values[:, trait] for values in self.effects_at(environments, rows))
        contexts = tuple(f"{self.environment}={written(value)}" for value in environments)
        names = ("beta_main", "beta_interaction", "se_main", "se_interaction", "covariance")
        at_0, change, error_at_0, error_of_change, both = (
            np.asarray(getattr(self, name)[rows])[:, trait] for name in names
        )
        estimates = np.stack([at_0, change], axis=1)
        of_estimates = np.stack([error_at_0**2, both, both, error_of_change**2], axis=1)
        tested = np.asarray(np.isfinite(beta).all(axis=1))
        slopes = estimates, of_estimates.reshape(-1, 2, 2), trait
        return self._as_effects(beta, covariance, *slopes, tested, rows, contexts)

    def _all_effects(self, trait: str, environments: Sequence[float]) -> Iterator[Effects]:
        """Yield the effects of parts of the variants in which some are tested."""
        number, places = self._number_of(trait), checked_environments(environments)
        if len(places) != 2:
            raise OptionError(
                f"environments are {len(places)} values; give two. The effects of a variant in all "
                "environments lie on one line, so that more than two have no errors of their own."
            )
        found = (self._effects(number, places, rows) for rows in self.parts())
        return self._effects_of_parts(trait, found)


def checked_environments(environments: Sequence[float]) -> list[float]:
    """Return values of the environment at which effects are told.

    Raises
    ------
    OptionError
        One is not a finite number, or is given twice.
    """
    found = np.atleast_1d(np.asarray(environments, dtype=np.float64))
    if found.ndim != 1 or not np.isfinite(found).all() or len(set(found.tolist())) < found.size:
        raise OptionError(
            f"environments are {found.tolist()}; give finite numbers, each of them once."
        )
    return [float(value) for value in found]


def written(value: float) -> str:
    """Return the shortest text of a number."""
    return np.format_float_positional(value, trim="-")
