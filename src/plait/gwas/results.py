"""What a scan returns: the effect of every variant on every trait, with its error."""

import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.p_values import p_value_text
from plait.data.words import counted, listed
from plait.errors import DataWarning, NotAvailableError
from plait.gwas.trait_dependence import told_traits, why_not_for_mash
from plait.gwas.variant_results import VARIANT_COLUMNS, VariantResult
from plait.io import write_effects
from plait.numerics.student import normal_errors

if TYPE_CHECKING:
    from plait.data.summary_statistics import SummaryStatistics

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False, repr=False)
class AssociationResult(VariantResult):
    """Effects of M variants on T traits, one at a time.

    Attributes
    ----------
    beta, se : (M, T) arrays
        Effect of one copy of the effect allele, in the unit of the trait, and its standard error.
        On Y and MT a sample has 0 or 1 (`plait.gwas.sex_chromosomes.haploid_chromosomes`). NaN
        where a variant was not tested (see ``filtered``).
    log10p : (M, T) array
        log10 of the two-sided p-value.
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele among the samples of any trait.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`; `variants` has their names.
    traits : tuple of str
    V0 : (T, T) array
        Correlation of the errors between traits.
    h2, h2_se : (T,) array or None
        Of a mixed model: the share of each trait's variance that follows the relationships of all
        chromosomes, given the covariates, and its standard error.
    explained : (T,) array or None
        Of a whole-genome model: the share of each trait's variance, given the covariates, that is
        predicted from all chromosomes out of fold.
    n_cases : (T,) int array or None
        Of a logistic model: how many of the samples of each trait are cases. Effects are logs of
        odds ratios then.
    df, n_regressors : (T,) int array or None
        Degrees of freedom of the t tests of each trait where no genotype is missing, and how many
        columns take theirs: constant, covariates and variant. None where tests are not t tests
        (logistic models). See `degrees_of_freedom`.
    filtered : dict of str to int
        How many tests (of one variant and trait) each rule left out.
    checks : list of dict
        Of a mixed model, for each chromosome and each group of traits on the same samples: shares
        ``h2`` without the chromosome, how far they are from those of all (``h2_step``) and the
        noise of how they were found (``h2_noise``, 0 if exactly); and how far off calibrated
        standard errors were among the ``compared`` variants (``error``, root mean square, and
        ``worst``, relative; and in ``strata`` by copies of the rarer allele), with how many
        ``leading`` eigenvectors, None where variants were rotated instead (see
        `plait.gwas.calibration.calibrate`).
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "association"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("beta", "se", "log10p", "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
        "V0": ("traits", "traits"),
        **dict.fromkeys(("h2", "h2_se", "explained", "n_cases", "df", "n_regressors"), ("traits",)),
    }
    statistics: ClassVar[tuple[str, ...]] = ("beta", "se", "log10p")
    tested_by: ClassVar[str] = "se"
    surest_by: ClassVar[str] = "log10p"
    command: ClassVar[str] = "scan"
    folder_store: ClassVar[str] = "associations.zarr"

    beta: Array
    se: Array
    log10p: Array
    V0: Array
    h2: Array | None = None
    h2_se: Array | None = None
    explained: Array | None = None
    n_cases: NDArray[np.int64] | None = None
    df: NDArray[np.int64] | None = None
    n_regressors: NDArray[np.int64] | None = None
    checks: list[dict[str, Any]] = field(default_factory=list)

    def __repr__(self) -> str:
        size = f"{counted(len(self.beta), 'variant')} x {counted(len(self.traits), 'trait')}"
        return f"AssociationResult({size}; {self.n_tested:,} tested)"

    @property
    def t(self) -> Array:
        """Test statistics (M, T)."""
        ratio: Array = np.asarray(self.beta) / np.asarray(self.se)
        return ratio

    def degrees_of_freedom(self, rows: slice = slice(None)) -> NDArray[np.int64]:
        """Return those of the t tests of some variants (M, T): samples less columns.

        They differ from ``df`` where samples without a genotype were dropped for a variant.

        Raises
        ------
        NotAvailableError
            Tests are not t tests.
        """
        if self.n_regressors is None:
            raise NotAvailableError("these tests are not t tests; they have no degrees of freedom.")
        freedom: NDArray[np.int64] = np.asarray(self.n[rows]) - self.n_regressors
        return freedom

    @cached_property
    def counts_own_chromosome(self) -> bool:
        """Whether a mixed model took a variant's own chromosome into the relationships.

        So it does without ``loco``, and where all variants are on one chromosome; of relationships
        that were given it is not known. Effects are then
        accounted for twice, and tests are conservative (Listgarten et al. 2012).
        """
        options = {} if self.provenance is None else self.provenance.options
        if options.get("model") != "mixed" or options.get("relationships"):
            return False
        names = {name for rows in self.parts() for name in np.unique(self.chrom[rows]).tolist()}
        return options.get("loco") is False or len(names) == 1

    def summary(self) -> str:
        """Say in a few lines what was tested and found."""
        lines = [repr(self), *self._behind_tests()]
        if self.counts_own_chromosome:
            lines.append(
                "  relationships are of all variants, those on the chromosome of the tested one "
                "too: tests are conservative, and effects may be missed"
            )
        calibrated = [check for check in self.checks if check["leading"] is not None]
        if calibrated:
            error, worst = (max(check[name] for check in calibrated) for name in ("error", "worst"))
            compared = sum(check["compared"] for check in calibrated)
            lines.append(
                f"  standard errors are calibrated: off by {error:.2%} (root mean square), at most "
                f"{worst:.2%}, of the {compared:,} variants compared"
            )
        hits, surest, smallest = self.leads()
        placed = self.placed(surest)
        for number, trait in enumerate(self.traits):
            if (best := surest[number]) is None:
                lines.append(f"  {trait}: no variant tested")
                continue
            line = f"  {trait}: {counted(int(hits[number]), 'variant')} at p < 5e-8"
            line += f", lambda {self.lambda_gc[number]:.3f}"
            if self.h2 is not None and self.h2_se is not None:
                line += f", h2 {self.h2[number]:.2f}"
                if np.isfinite(self.h2_se[number]):
                    line += f" ({self.h2_se[number]:.2f})"
            if self.explained is not None:
                line += f", {self.explained[number]:.1%} predicted from other samples"
            if self.n_cases is not None:
                cases = int(self.n_cases[number])
                line += f", {cases:,} cases and {self._most_samples[number] - cases:,} controls"
            line += f", surest {placed[best]}"
            line += f", p = {p_value_text(float(smallest[number]))}"
            lines.append(line)
        return "\n".join(lines)

    def to_effects(self) -> Effects:
        """Return the effects, errors and error correlation, as `plait.mash` takes them.

        A variant that was not tested for a trait is a missing cell, never an effect of zero.
        Variants without any test are left out. Errors of t tests are widened for normal ones to
        give their p-values, as mash takes errors for normal: 50 samples would else have 1.8 times
        the effects beyond 3.3 errors that they should (`plait.mash.mash_set_data` does the same
        with ``df``; these effects need none).

        Raises
        ------
        NotAvailableError
            No variant was tested.

        Warns
        -----
        DataWarning
            Traits tell one another (`plait.gwas.trait_dependence`).
        """
        self._warn_of_told_traits()
        return self._effects(slice(0, len(self.beta)))

    def write_effects(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write what `to_effects` returns as a store, part by part.

        Raises
        ------
        NotAvailableError, OutputError
            No variant was tested; the store exists or cannot be written.
        """
        self.require_tests()
        self._warn_of_told_traits()
        parts = (self._effects(rows) for rows in self.parts() if self._tested(rows).any())
        write_effects(parts, path, overwrite)

    def write_ssf(
        self,
        folder: str | os.PathLike[str],
        metadata: Mapping[str, Any],
        overwrite: bool = False,
    ) -> list[Path]:
        """Write GWAS-SSF for each trait; see `plait.gwas.association_tables.write_ssf`."""
        from plait.gwas.association_tables import write_ssf

        return write_ssf(self, folder, metadata, overwrite)

    def to_summary_statistics(self, trait: str) -> "SummaryStatistics":
        """Return what was found for one trait, tested variants only.

        Raises
        ------
        LabelError
            There is no such trait.
        """
        import polars as pl

        from plait.data.summary_statistics import SummaryStatistics

        number = self._number_of(trait)
        names = {f"{name}.{trait}": name for name in ("beta", "se", "log10p", "n")}
        parts = []
        for rows in self.parts():
            table = self.to_table(rows).select(*VARIANT_COLUMNS, "eaf", *names).rename(names)
            parts.append(table.filter(np.isfinite(self.se[rows][:, number])))
        frame = pl.concat(parts).with_columns(pl.col("n").cast(pl.Float64))
        return SummaryStatistics.from_frame(frame, trait=trait)

    def _warn_of_told_traits(self) -> None:
        if told := told_traits(self.V0, self.traits):
            names = listed([repr(name) for name in told])
            warnings.warn(why_not_for_mash(names), DataWarning, stacklevel=3)

    def _effects(self, rows: slice) -> Effects:
        self.require_tests()
        tested = self._tested(rows)
        beta, se = self.beta[rows][tested], np.array(self.se[rows][tested])
        names = self.names_of(rows)[tested]
        known = np.isfinite(se)
        if self.n_regressors is not None:
            freedom = self.degrees_of_freedom(rows)[tested]
            se[known] = normal_errors(beta[known], se[known], freedom[known])
        return Effects(
            np.where(known, beta, np.nan),
            np.where(known, se, np.nan),
            self.V0,
            names.astype(np.str_),
            self.traits,
            self.provenance,
        )
