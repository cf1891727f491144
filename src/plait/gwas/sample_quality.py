"""How good genotypes are: one pass for the table of the variants and that of the samples."""

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeCounts, GenotypeSource, HaploidCounts
from plait.data.ploidy import haploids
from plait.errors import InputError, OptionError
from plait.execution.grains import Grain, map_grains
from plait.execution.threads import resolve_threads
from plait.gwas.hardy_weinberg import hardy_weinberg_p, hardy_weinberg_x_p
from plait.gwas.inputs import opened_genotypes
from plait.gwas.sex_chromosomes import NOT_AUTOSOMES, meanings
from plait.io.result import Result
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import GenotypesLike

Array = NDArray[np.float64]
Counts = NDArray[np.int64]

_ON_X = ("females", "both")
_COUNTED = ("n0", "n1", "n2", "n_missing")
_HAPLOID = ("n_haploid", "haploid_copies", "n_without")
_PLACES = ("chrom", "pos", "id", "oa", "ea")


@dataclass(frozen=True, eq=False, repr=False)
class GenotypeQuality(Result):
    """Quality of M variants and N samples.

    Attributes
    ----------
    samples : (N,) array of str
    sample_call_rate : (N,) array
        Share of the variants with a genotype; of females without those on Y.
    heterozygous, expected_heterozygous : (N,) arrays
        Autosomal heterozygotes of the sample, and how many the frequencies let expect at the
        variants it has a genotype of.
    chrom, pos, id, oa, ea : (M,) arrays
    n0, n1, n2, n_missing : (M,) int arrays
        Samples with no, one and two copies of the effect allele, and without a genotype. Where
        sexes are known, those without a genotype on Y are all samples but the males that have one.
    n_haploid, haploid_copies, n_without : (M,) int arrays
        Samples with a genotype that have one copy: males on X, all on Y and MT; their copies of the
        effect allele, two for each; and samples that do not have the chromosome. See
        `plait.data.genotypes.HaploidCounts`.
    hardy_weinberg : (M,) array
        Exact p-value of Hardy-Weinberg proportions; on X see `genotype_quality`, NaN on Y and MT,
        and on X where the sexes of the samples are not known.
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "genotype_quality"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(
            ("sample_call_rate", "heterozygous", "expected_heterozygous"), ("samples",)
        ),
        **dict.fromkeys((*_PLACES, *_COUNTED, *_HAPLOID, "hardy_weinberg"), ("variants",)),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("samples",)

    samples: NDArray[np.str_]
    sample_call_rate: Array
    heterozygous: Counts
    expected_heterozygous: Array
    chrom: NDArray[np.str_]
    pos: Counts
    id: NDArray[np.str_]
    oa: NDArray[np.str_]
    ea: NDArray[np.str_]
    n0: Counts
    n1: Counts
    n2: Counts
    n_missing: Counts
    n_haploid: Counts
    haploid_copies: Counts
    n_without: Counts
    hardy_weinberg: Array
    provenance: Provenance | None = None

    @property
    def counts(self) -> GenotypeCounts:
        """How many samples carry each genotype."""
        haploid = HaploidCounts(self.n_haploid, self.haploid_copies, self.n_without)
        return GenotypeCounts(self.n0, self.n1, self.n2, self.n_missing, haploid)

    @property
    def variant_call_rate(self) -> Array:
        """Share of the samples with a genotype (M,); on Y of males, where sexes are known."""
        return self.counts.call_rate

    @property
    def inbreeding(self) -> Array:
        """``F = 1 - observed / expected`` heterozygotes (N,); NaN where none are expected."""
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio: Array = 1.0 - self.heterozygous / self.expected_heterozygous
        return np.where(self.expected_heterozygous > 0, ratio, np.nan)

    def __repr__(self) -> str:
        return f"GenotypeQuality({len(self.n0):,} variants, {len(self.samples):,} samples)"

    def summary(self) -> str:
        """Say in a line what was counted; `plait.gwas.quality_control` says what is wrong."""
        rates = (self.variant_call_rate, self.sample_call_rate)
        lowest, fewest = (float(rate.min()) for rate in rates)
        return f"{self!r}: call rates from {lowest:.3f} of variants, from {fewest:.3f} of samples"

    def variant_table(self) -> "DataFrame":
        """Return one row per variant."""
        import polars as pl

        counts = self.counts
        columns: dict[str, Any] = {name: getattr(self, name) for name in _PLACES}
        return pl.DataFrame(
            columns
            | {
                "eaf": counts.frequency,
                "mac": counts.minor_count,
                "call_rate": self.variant_call_rate,
            }
            | {name: getattr(self, name) for name in _COUNTED[:3]}
            | {"n_missing": self.n_missing - self.n_without}
            | {"hwe_p": self.hardy_weinberg}
        ).with_columns(pl.col("eaf", "hwe_p").fill_nan(None))

    def sample_table(self) -> "DataFrame":
        """Return one row per sample."""
        import polars as pl

        return pl.DataFrame(
            {
                "IID": self.samples,
                "call_rate": self.sample_call_rate,
                "n_heterozygous": self.heterozygous,
                "n_heterozygous_expected": self.expected_heterozygous,
                "F": self.inbreeding,
            }
        ).with_columns(pl.col("F").fill_nan(None))


@dataclass(frozen=True, eq=False)
class _Part:
    """What consecutive variants tell."""

    counts: Counts
    haploid: Counts
    p: Array
    missing: Counts
    lacked: Counts
    heterozygous: Counts
    expected: float
    expected_missing: Array


def genotype_quality(
    genotypes: "GenotypesLike",
    *,
    hardy_weinberg_x: str = "females",
    sex_chromosomes: str = "auto",
    threads: int | None = None,
) -> GenotypeQuality:
    """Count genotypes of every variant and of every sample, in one pass.

    Parameters
    ----------
    genotypes : path or GenotypeSource
        Hard calls; of a path they are read.
    hardy_weinberg_x : {"females", "both"}
        Whether Hardy-Weinberg proportions on chromosome X are tested in females, or in both sexes
        together (`plait.gwas.hardy_weinberg_x_p`), which also finds alleles that are not as
        frequent in males. Sexes are those of the .fam or .psam.
    sex_chromosomes : {"auto", "human", "none"}
        What chromosomes 23 to 26 are: X, Y, XY and MT, as PLINK numbers those of humans, or
        autosomes. "auto": the former where females are heterozygous on 23 and males are not; what
        was found is logged.
    threads : int, optional
        They never change the numbers.

    Returns
    -------
    GenotypeQuality

    Raises
    ------
    InputError
        There are no samples or no variants.
    OptionError
        ``hardy_weinberg_x`` or ``sex_chromosomes`` is none of these.

    Notes
    -----
    With n genotypes and frequency f a heterozygote is expected with probability
    ``2 f (1 - f) 2 n / (2 n - 1)``, which is unbiased in small samples. Chromosomes X, Y, XY and
    MT (with or without ``chr``) do not count for heterozygosity; chromosomes with other numbers all
    do, because numbers of autosomes differ between species. Males that are called heterozygous on X
    are left out of its test. Where sexes are known, whoever is not male has no Y, as in PLINK 2:
    calls there are missing, and do not lower call rates. Cost: N M / 4 bytes read.
    """
    if hardy_weinberg_x not in _ON_X:
        raise OptionError(f"hardy_weinberg_x is {hardy_weinberg_x!r}; give 'females' or 'both'.")
    genotypes = opened_genotypes(genotypes, "hardcall")
    started = time.perf_counter()
    n, m = genotypes.n_samples, genotypes.n_variants
    if not n or not m:
        raise InputError(f"there are {m} variants of {n} samples: nothing to count.")
    frame = genotypes.variants.frame
    meant = meanings(genotypes, sex_chromosomes)
    others, x = ([n for n, m in meant.items() if m in of] for of in (NOT_AUTOSOMES, ("X",)))
    autosomal = ~frame["chrom"].is_in(others).to_numpy()
    on_x = frame["chrom"].is_in(x).to_numpy()
    sexes = getattr(genotypes, "sexes", None)
    work = _Pass(genotypes, autosomal, _OnX.of(sexes, on_x, hardy_weinberg_x), meant)
    parts = list(map_grains(work, 0, m, threads=threads, label="genotype quality"))
    missing = np.sum([part.missing for part in parts], axis=0)
    lacked = np.sum([part.lacked for part in parts], axis=0)
    lacking = np.zeros(n)
    expected = 0.0
    for part in parts:  # in order, so that threads do not change the sums
        expected += part.expected
        lacking += part.expected_missing
    n2, n_missing, n1, n0 = np.concatenate([part.counts for part in parts]).T
    n_haploid, haploid_copies, n_without = np.concatenate([part.haploid for part in parts]).T
    texts = {
        name: np.array(frame[name].to_list(), dtype=np.str_) for name in ("chrom", "id", "oa", "ea")
    }
    return GenotypeQuality(
        samples=genotypes.samples,
        sample_call_rate=1.0 - (missing - lacked) / np.maximum(m - lacked, 1),
        heterozygous=np.sum([part.heterozygous for part in parts], axis=0),
        expected_heterozygous=np.maximum(expected - lacking, 0.0),
        pos=genotypes.variants.pos,
        **texts,
        n0=n0,
        n1=n1,
        n2=n2,
        n_missing=n_missing,
        n_haploid=n_haploid,
        haploid_copies=haploid_copies,
        n_without=n_without,
        hardy_weinberg=np.concatenate([part.p for part in parts]),
        provenance=Provenance(
            "gwas qc",
            {"hardy_weinberg_x": hardy_weinberg_x, "x": x},
            seconds=time.perf_counter() - started,
            threads=resolve_threads(threads),
        ),
    )


@dataclass(frozen=True, eq=False)
class _OnX:
    """Which variants are on chromosome X, and the sexes that their test needs."""

    variants: NDArray[np.bool_]
    males: NDArray[np.int64]
    females: NDArray[np.int64]
    both: bool

    @classmethod
    def of(cls, sexes: Any, variants: NDArray[np.bool_], rule: str) -> "_OnX":
        """Take the sexes, 1 male and 2 female, if they are known."""
        known = np.zeros(0, dtype=np.int64) if sexes is None else np.asarray(sexes)
        return cls(variants, np.flatnonzero(known == 1), np.flatnonzero(known == 2), rule == "both")

    def fill(self, p: Array, packed: NDArray[np.uint8], rows: slice) -> None:
        """Put the p-values of variants on X in their places."""
        from plait.data.genotype_kernels import count_genotypes, select_samples

        here = np.flatnonzero(self.variants[rows])
        if not len(here) or not len(self.females):
            return
        counts = [
            GenotypeCounts.of_codes(
                count_genotypes(select_samples(packed[here], samples), len(samples))
            )
            for samples in (self.females, self.males)
        ]
        females, males = counts
        if self.both:
            p[here] = hardy_weinberg_x_p(males.n0, males.n2, females.n0, females.n1, females.n2)
        else:
            p[here] = hardy_weinberg_p(females.n0, females.n1, females.n2)


class _Pass:
    """Counts the genotypes of one grain of variants."""

    def __init__(
        self,
        genotypes: GenotypeSource,
        autosomal: NDArray[np.bool_],
        on_x: _OnX,
        meant: Mapping[str, str],
    ) -> None:
        self.genotypes, self.autosomal, self.on_x, self.meant = genotypes, autosomal, on_x, meant

    def __call__(self, grain: Grain) -> _Part:
        from plait.data.genotype_kernels import count_genotypes
        from plait.gwas.sample_kernels import add_sample_sums

        n = self.genotypes.n_samples
        packed = self.genotypes.read_packed(grain.rows)
        found = haploids(self.genotypes, grain.rows, self.meant)
        lacked, haploid = np.zeros(n, dtype=np.int64), np.zeros((len(packed), 3), dtype=np.int64)
        if found is not None:
            packed = found.hide_calls(packed)
            lacked[~found.is_male] = found.males_only.sum()
        codes = count_genotypes(packed, n)
        if found is not None:
            among = found.count_calls(packed, codes)
            haploid = np.stack([among.n_called, among.allele_count, among.n_without], axis=1)
        counts = GenotypeCounts.of_codes(codes)
        autosomal = self.autosomal[grain.rows]
        called = np.maximum(counts.n_called, 1)
        f = np.nan_to_num(counts.frequency)
        expected = np.where(autosomal, 2 * f * (1 - f) * (2 * called / (2 * called - 1)), 0.0)
        missing, heterozygous = np.zeros((2, n), dtype=np.int64)
        lacking = np.zeros(n)
        add_sample_sums(packed, expected, missing, heterozygous, lacking)
        p = hardy_weinberg_p(counts.n0, counts.n1, counts.n2)
        p[~autosomal] = np.nan
        self.on_x.fill(p, packed, grain.rows)
        total = float(expected.sum())
        return _Part(codes, haploid, p, missing, lacked, heterozygous, total, lacking)
