"""Which variants and samples are good enough to use: rules that are applied one after another."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.data.variants import KEY, variant_names
from plait.errors import InputError, OptionError
from plait.gwas.inputs import opened_genotypes
from plait.gwas.quality import VariantFilter
from plait.gwas.sample_quality import GenotypeQuality, genotype_quality
from plait.gwas.sex_chromosomes import HUMAN, meanings
from plait.io.genotypes import SelectedGenotypes

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import GenotypesLike

Flags = NDArray[np.bool_]

_POPULATIONS = ("unknown", "outbred")
_FAR = 3.0


@dataclass(frozen=True)
class QualityControl:
    """Rules for variants and samples, applied in this order; None switches one off.

    Attributes
    ----------
    min_call_rate : float or None
        Of variants: smallest share of samples with a genotype.
    min_sample_call_rate : float or None
        Of samples: smallest share with a genotype, of the variants that are left.
    min_minor_count : int or None
        Fewest copies of the rarer allele among the samples that are left. A scan asks for this of
        the samples of each trait (`plait.gwas.VariantFilter`).
    min_frequency : float or None
        Smallest frequency of the rarer allele.
    min_hardy_weinberg : float or None
        Smallest p-value of Hardy-Weinberg proportions, in an outbred population.
    population : {"unknown", "outbred"}
        Inbred lines and mixed populations violate Hardy-Weinberg proportions by design: the rule is
        applied where mating is known to be at random.

    Notes
    -----
    Monomorphic variants are always removed.
    """

    min_call_rate: float | None = 0.95
    min_sample_call_rate: float | None = 0.90
    min_minor_count: int | None = None
    min_frequency: float | None = None
    min_hardy_weinberg: float | None = 1e-6
    population: str = "unknown"

    def __post_init__(self) -> None:
        for name in ("min_sample_call_rate", "min_hardy_weinberg"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise OptionError(f"{name} is {value}; give a number between 0 and 1.")
        if self.population not in _POPULATIONS:
            raise OptionError(f"population is {self.population!r}; give 'unknown' or 'outbred'.")
        VariantFilter(self.min_call_rate, self.min_minor_count, self.min_frequency)


@dataclass(frozen=True, eq=False)
class CheckedGenotypes:
    """What quality control found of M variants and N samples.

    Attributes
    ----------
    quality : GenotypeQuality
        Of all variants and samples, before any is removed.
    removed_variants : dict of str to (M,) bool array
        Which variants each rule removes, of those that the rules before it kept.
    removed_samples : dict of str to (N,) bool array
    """

    quality: GenotypeQuality
    removed_variants: dict[str, Flags]
    removed_samples: dict[str, Flags]

    @property
    def kept_variants(self) -> Flags:
        """Which variants no rule removes (M,)."""
        gone: Flags = np.logical_or.reduce(list(self.removed_variants.values()))
        return ~gone

    @property
    def kept_samples(self) -> Flags:
        """Which samples no rule removes (N,)."""
        none = np.zeros(len(self.quality.samples), dtype=np.bool_)
        gone: Flags = np.logical_or.reduce([none, *self.removed_samples.values()])
        return ~gone

    def kept_variant_names(self) -> list[str]:
        """Return the names of the variants that are kept, for a list.

        See `plait.data.variants.variant_names`.
        """
        import polars as pl

        columns = {name: getattr(self.quality, name) for name in (*KEY, "id")}
        names = variant_names(pl.DataFrame(columns))
        return names.filter(pl.Series(self.kept_variants)).to_list()

    def select(self, genotypes: GenotypeSource) -> SelectedGenotypes:
        """Return the variants and samples that are kept, of the genotypes that were checked."""
        variants, samples = np.flatnonzero(self.kept_variants), np.flatnonzero(self.kept_samples)
        return SelectedGenotypes(genotypes, variants, samples)

    def variant_table(self) -> "DataFrame":
        """Return one row per variant, with the rule that removes it (``removed_by``)."""
        return _with_reasons(self.quality.variant_table(), self.removed_variants)

    def sample_table(self) -> "DataFrame":
        """Return one row per sample, with the rule that removes it (``removed_by``)."""
        return _with_reasons(self.quality.sample_table(), self.removed_samples)

    def summary(self) -> str:
        """Say how many variants and samples each rule removes."""
        f, kept = self.quality.inbreeding, self.kept_samples
        known = np.isfinite(f) & kept
        lines = [
            _told("variants", self.removed_variants, self.kept_variants),
            _told("samples", self.removed_samples, kept),
        ]
        if known.any():
            middle, spread = np.median(f[known]), f[known].std()
            far = int((np.abs(f[known] - middle) > _FAR * spread).sum())
            lines.append(
                f"F of these samples: median {middle:.3f}, from {f[known].min():.3f} to "
                f"{f[known].max():.3f}; {far:,} more than {_FAR:.0f} standard deviations from the "
                "median (a negative F may be a mixed sample)"
            )
        return "\n".join(lines)


def quality_control(
    genotypes: "GenotypesLike",
    rules: QualityControl | None = None,
    *,
    controls: Sequence[str] | None = None,
    hardy_weinberg_x: str = "females",
    sex_chromosomes: str = "auto",
    threads: int | None = None,
) -> CheckedGenotypes:
    """Apply rules of quality to variants and samples.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        Hard calls; of a path they are read.
    rules : QualityControl, optional
        Default: call rates of 95 % for variants and 90 % for samples, and no monomorphic variants.
    controls : sequence of str, optional
        Samples in which Hardy-Weinberg proportions are tested, as those without a disease, which
        may distort them. Default all.
    hardy_weinberg_x : {"females", "both"}
        See `genotype_quality`.
    sex_chromosomes : {"auto", "human", "none"}
        See `genotype_quality`; decided by all samples and variants.
    threads : int, optional
        They never change the numbers.

    Returns
    -------
    CheckedGenotypes

    Raises
    ------
    InputError
        There are no samples or no variants, or the rules leave none.
    LabelError
        A control is not among the samples.

    Notes
    -----
    Cost: N M / 4 bytes read, once more where variants lack genotypes, where samples are removed,
    and where controls are given.
    """
    rules = QualityControl() if rules is None else rules
    source = opened_genotypes(genotypes, "hardcall")

    if sex_chromosomes == "auto":
        named = set(meanings(source, sex_chromosomes).values())
        sex_chromosomes = "none" if named & set(HUMAN) else "human"

    def counted(
        variants: NDArray[np.intp] | None = None, samples: NDArray[np.intp] | None = None
    ) -> GenotypeQuality:
        part = SelectedGenotypes(source, variants, samples)
        return genotype_quality(
            part,
            hardy_weinberg_x=hardy_weinberg_x,
            sex_chromosomes=sex_chromosomes,
            threads=threads,
        )

    quality = counted()
    variants = _Removal("variant", source.n_variants)
    samples = _Removal("sample", source.n_samples)
    if rules.min_call_rate is not None:
        low = quality.variant_call_rate < rules.min_call_rate
        variants.remove(f"call rate < {rules.min_call_rate:g}", low)
    if rules.min_sample_call_rate is not None:
        found = quality if variants.left.all() else counted(np.flatnonzero(variants.left))
        few = found.sample_call_rate < rules.min_sample_call_rate
        samples.remove(f"call rate < {rules.min_sample_call_rate:g}", few)
    found = quality if samples.left.all() else counted(samples=np.flatnonzero(samples.left))
    limits = VariantFilter(None, rules.min_minor_count, rules.min_frequency)
    for rule, flags in limits.removed(found.counts).items():
        variants.remove(rule + _limit(rule, rules), flags)
    if rules.population == "outbred" and rules.min_hardy_weinberg is not None:
        name = f"Hardy-Weinberg p < {rules.min_hardy_weinberg:g}"
        if controls is not None:
            chosen = np.zeros(source.n_samples, dtype=np.bool_)
            chosen[source.sample_numbers(list(controls))] = True
            found = counted(samples=np.flatnonzero(chosen & samples.left))
            name += " in controls"
        with np.errstate(invalid="ignore"):
            variants.remove(name, found.hardy_weinberg < rules.min_hardy_weinberg)
    return CheckedGenotypes(quality, variants.removed, samples.removed)


class _Removal:
    """What rules that are applied one after another remove, and what is left."""

    def __init__(self, what: str, count: int) -> None:
        self.what, self.removed = what, dict[str, Flags]()
        self.left = np.ones(count, dtype=np.bool_)

    def remove(self, rule: str, flags: Flags) -> None:
        """Remove, of those that are left, the ones with a flag."""
        self.removed[rule] = flags & self.left
        self.left = self.left & ~flags
        if not self.left.any():
            raise InputError(f"no {self.what} is left; removed: {_counts(self.removed)}.")


def _limit(rule: str, rules: QualityControl) -> str:
    limits = {
        "minor allele count": rules.min_minor_count,
        "minor allele frequency": rules.min_frequency,
    }
    return f" < {limits[rule]:g}" if rule in limits else ""


def _counts(removed: dict[str, Flags]) -> str:
    return ", ".join(f"{int(flags.sum()):,} by {rule}" for rule, flags in removed.items())


def _told(what: str, removed: dict[str, Flags], kept: Flags) -> str:
    gone = f"removed {_counts(removed)}" if removed else "none removed"
    return f"{what}: {len(kept):,}; {gone}; kept {int(kept.sum()):,}"


def _with_reasons(table: "DataFrame", removed: dict[str, Flags]) -> "DataFrame":
    import polars as pl

    reasons = np.full(table.height, None, dtype=object)
    for rule, flags in removed.items():
        reasons[flags] = rule
    return table.with_columns(pl.Series("removed_by", reasons.tolist(), dtype=pl.String))
