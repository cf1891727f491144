"""What a table of summary statistics looks like when something about it is wrong."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.p_values import log10_p_of_z, p_value_text
from plait.data.summary_derivations import lambda_gc
from plait.data.summary_statistics import SummaryStatistics
from plait.errors import GenomeBuildError, HarmonisationError
from plait.numerics.uniformity import log10_p_limit

if TYPE_CHECKING:
    from polars import DataFrame

Array = NDArray[np.float64]

_LENGTHS = {
    "GRCh37": (
        249250621, 243199373, 198022430, 191154276, 180915260, 171115067, 159138663, 146364022,
        141213431, 135534747, 135006516, 133851895, 115169878, 107349540, 102531392, 90354753,
        81195210, 78077248, 59128983, 63025520, 48129895, 51304566, 155270560,
    ),
    "GRCh38": (
        248956422, 242193529, 198295559, 190214555, 181538259, 170805979, 159345973, 145138636,
        138394717, 133797422, 135086622, 133275309, 114364328, 107043718, 101991189, 90338345,
        83257441, 80373285, 58617616, 64444167, 46709983, 50818468, 156040895,
    ),
}  # fmt: skip
"""Lengths of chromosomes 1 to 22 and X."""
_CHROMOSOMES = (*map(str, range(1, 23)), "X")
_SHARED_NAMES = 10
_UNUSABLE = 0.1
"""Share of rows without a usable standard error from which on the column may be another one."""
_EXCHANGED = (
    "the columns of alleles may be exchanged, and with them the signs of effects, or frequencies "
    "be of the other allele"
)


@dataclass(frozen=True)
class TableChecks:
    """Checks of one table; NaN where it lacks what a check needs.

    Attributes
    ----------
    n_variants : int
    chromosomes : dict of str to int
        Rows on each chromosome.
    lambda_gc : float
        Median of z squared over its value under the null; NaN where rows were chosen by p.
    sign_agreement : float
        Share of rows in which z and beta have the same sign.
    p_disagreements : int
        Rows with p in 1e-6 to 1 in which -log10 p and that of z differ by more than 0.1, and which
        are not of Student's distribution for so many samples.
    p_smaller : float
        Share of those rows in which p is smaller than that of z.
    trait_sd : float
        Median of ``se sqrt(2 f (1 - f) n)``, which estimates the standard deviation of the trait.
    trait_sd_cv : float
        Its coefficient of variation over variants; above 0.2 frequencies, sample sizes or
        standard errors do not belong together.
    frequency_differences : int
        Rows whose frequency differs from the reference's by more than 0.2; 0 without reference.
    incomplete : int
        Rows without a chromosome, a position or an allele.
    log10p_limit : float
        log10 of the p-value that no row exceeds, where rows were chosen by it; NaN where they were
        not (`plait.numerics.uniformity.log10_p_limit`).
    in_any_context : bool
        Whether they were chosen by the smallest p-value of several contexts.
    bad_errors : int
        Rows that were left out for a standard error that is zero, negative or missing.
    numbers_for_alleles : int
        Rows with an allele like 0.25.
    """

    n_variants: int
    chromosomes: dict[str, int]
    lambda_gc: float
    sign_agreement: float
    p_disagreements: int
    p_smaller: float
    trait_sd: float
    trait_sd_cv: float
    frequency_differences: int = 0
    incomplete: int = 0
    log10p_limit: float = float("nan")
    in_any_context: bool = False
    bad_errors: int = 0
    numbers_for_alleles: int = 0

    @property
    def alleles_look_exchanged(self) -> bool:
        """Whether more frequencies differ from the reference's than populations make."""
        return self.frequency_differences > self.n_variants / 4

    @property
    def on_frequencies(self) -> str:
        """What is to be said of frequencies that differ from the reference's."""
        return (
            f"{self.frequency_differences:,} frequencies differ from the reference's by more than "
            "0.2" + (f": {_EXCHANGED}" if self.alleles_look_exchanged else "")
        )

    @property
    def flags(self) -> list[str]:
        """What deserves attention, in words."""
        found = []
        if self.trait_sd_cv > 0.2:
            found.append(
                f"standard errors, frequencies and sample sizes disagree (the implied standard "
                f"deviation of the trait varies by {self.trait_sd_cv:.0%})"
            )
        if self.sign_agreement < 1:
            found.append(f"z and beta differ in sign in {1 - self.sign_agreement:.2%} of rows")
        if self.p_disagreements:
            found.append(
                f"p and z disagree in {self.p_disagreements:,} of {self.n_variants:,} rows (p is "
                f"smaller in {self.p_smaller:.0%} of them): p may be of another test than the "
                "effects and their errors, which are what plait works with"
            )
        if self.frequency_differences:
            found.append(self.on_frequencies)
        if self.incomplete:
            found.append(
                f"{self.incomplete:,} of {self.n_variants:,} rows lack a position or an allele, "
                "and cannot be brought to the alleles of another table"
            )
        rows = self.n_variants + self.bad_errors
        if self.bad_errors > _UNUSABLE * rows:
            found.append(
                f"{self.bad_errors:,} of {rows:,} rows have a standard error that is zero, "
                "negative or missing: the column that was taken for it may be another one "
                "(--columns)"
            )
        if self.numbers_for_alleles:
            found.append(
                f"{self.numbers_for_alleles:,} of {self.n_variants:,} rows have numbers for "
                "alleles: the columns of alleles are others (--columns)"
            )
        if np.isfinite(self.log10p_limit):
            found.append(chosen_rows(self.n_variants, self.log10p_limit, self.in_any_context))
        return found


def chosen_rows(n_variants: int, log10p_limit: float, in_any_context: bool) -> str:
    """Say that the rows of a table were chosen by their p-values, and what that does to mash."""
    in_context = " in any of its contexts" if in_any_context else ""
    return (
        f"all of {n_variants:,} rows have p <= {p_value_text(log10p_limit)}{in_context}, which "
        "chance does not make: rows with larger p-values were left out, or all are of one signal. "
        "mash learns from all effects how many are null, and would take none for it: give it the "
        "whole table"
    )


def check_table(
    table: SummaryStatistics,
    reference_frequency: Array | None = None,
    log10p_of_contexts: Array | None = None,
) -> TableChecks:
    """Check a table against itself, and its frequencies against those of a reference.

    Parameters
    ----------
    table : SummaryStatistics
    reference_frequency : (M,) array, optional
        Frequency of each row's effect allele in the reference; NaN where unknown.
    log10p_of_contexts : (K, T) array, optional
        log10 of the p-values of all contexts of the file that the table is one context of. Rows may
        have been chosen by the smallest.
    """
    import polars as pl

    beta, se, z, log10p = (table.column(name) for name in ("beta", "se", "z", "log10p"))
    eaf, n = table.column("eaf"), table.column("n")
    signed = (beta != 0) & (z != 0) & np.isfinite(beta) & np.isfinite(z)
    agree = np.sign(beta[signed]) == np.sign(z[signed])
    compared = (log10p > -6) & np.isfinite(z)
    lower = log10_p_of_z(z[compared]) - log10p[compared]
    apart = (np.abs(lower) > 0.1) & ~_may_be_student(z[compared], log10p[compared], n[compared])
    with np.errstate(invalid="ignore"):
        deviation = se * np.sqrt(2 * eaf * (1 - eaf) * n)
    deviation = deviation[np.isfinite(deviation) & (deviation > 0)]
    differs = 0
    if reference_frequency is not None:
        with np.errstate(invalid="ignore"):
            differs = int((np.abs(eaf - reference_frequency) > 0.2).sum())
    keys = [pl.col(name).is_null() for name in ("chrom", "pos", "ea", "oa")]
    incomplete = table.frame.select(pl.any_horizontal(keys)).to_series()
    is_number = [pl.col(name).str.contains(r"^[+-]?\d*\.\d") for name in ("ea", "oa")]
    numbers = table.frame.select(pl.any_horizontal(is_number)).to_series()
    counts = table.frame["chrom"].drop_nulls().value_counts(sort=True)
    limit, in_any = log10_p_limit(log10p), False
    if np.isnan(limit) and log10p_of_contexts is not None:
        limit, in_any = log10_p_limit(log10p_of_contexts), True
    return TableChecks(
        n_variants=len(table),
        chromosomes=dict(counts.iter_rows()),
        lambda_gc=lambda_gc(z) if np.isnan(limit) else float("nan"),
        sign_agreement=float(agree.mean()) if agree.size else float("nan"),
        p_disagreements=int(apart.sum()),
        p_smaller=float((lower[apart] > 0).mean()) if apart.any() else float("nan"),
        trait_sd=float(np.median(deviation)) if deviation.size else float("nan"),
        trait_sd_cv=float(deviation.std() / deviation.mean()) if deviation.size else float("nan"),
        frequency_differences=differs,
        incomplete=int(incomplete.sum()),
        log10p_limit=limit,
        in_any_context=in_any and not np.isnan(limit),
        bad_errors=table.counts.get("bad_se", 0),
        numbers_for_alleles=int(numbers.sum()),
    )


def _may_be_student(z: Array, log10p: Array, n: Array) -> NDArray[np.bool_]:
    """Tell which p-values lie between those of z and of t with half as many degrees as samples.

    How many covariates there were is not known.
    """
    from scipy.special import stdtr

    with np.errstate(divide="ignore", invalid="ignore"):
        heaviest = np.log10(2 * stdtr(n / 2, -np.abs(z)))
    found: NDArray[np.bool_] = (log10p > log10_p_of_z(z)) & (log10p < heaviest + 0.1)
    return found


def require_same_build(
    name: str,
    frame: "DataFrame",
    build: str | None,
    other_name: str,
    other: "DataFrame",
    other_build: str | None,
) -> None:
    """Raise where two tables' positions are of different genome builds.

    Parameters
    ----------
    name, frame, build
        A table with the columns ``chrom``, ``pos`` and, if it has them, ``rsid`` and ``id``.
    other_name, other, other_build
        The other table.

    Raises
    ------
    GenomeBuildError
        The builds that were declared differ, positions lie beyond the chromosomes of the declared
        build, or most of the variants that have the same rs number have other positions.
    HarmonisationError
        Most of them have the same positions, on chromosomes that are named otherwise.
    """
    import polars as pl

    advice = "Lift one of them over first; plait never does so by itself."
    if build is not None and other_build is not None and build != other_build:
        raise GenomeBuildError(f"{name} is on {build} and {other_name} on {other_build}. {advice}")
    for label, table, declared in ((name, frame, build), (other_name, other, other_build)):
        impossible = builds_excluded(table)
        if declared in impossible:
            raise GenomeBuildError(
                f"{label} is said to be on {declared}, but {impossible[declared]}."
            )
    both = _named_in_both(frame, other)
    if both.height < _SHARED_NAMES:
        return
    renamed = both.filter(
        pl.col("pos") == pl.col("pos_other"), pl.col("chrom") != pl.col("chrom_other")
    )
    if renamed.height > both.height / 2:
        _refuse_renamed(name, other_name, both.height, renamed)
    moved = both.filter(pl.col("pos") != pl.col("pos_other")).height + renamed.height
    if moved > both.height / 2:
        raise GenomeBuildError(
            f"{moved:,} of the {both.height:,} variants that {name} and {other_name} both name by "
            f"rs number are at other positions: they are on different genome builds. {advice}"
        )


def _refuse_renamed(name: str, other_name: str, shared: int, renamed: "DataFrame") -> None:
    first = renamed.row(0, named=True)
    raise HarmonisationError(
        f"{renamed.height:,} of the {shared:,} variants that {name} and {other_name} both name by "
        "rs number have the same positions on chromosomes with other names "
        f"({first['chrom']!r} and {first['chrom_other']!r}): name the chromosomes of one as those "
        "of the other."
    )


def builds_excluded(frame: "DataFrame") -> dict[str, str]:
    """Return the builds that cannot be, because a position lies beyond their chromosome's end."""
    import polars as pl

    last = dict(frame.group_by("chrom").agg(pl.col("pos").max()).iter_rows())
    excluded: dict[str, str] = {}
    for build, lengths in _LENGTHS.items():
        for chromosome, length in zip(_CHROMOSOMES, lengths, strict=True):
            position = last.get(chromosome)
            if position is not None and position > length:
                excluded[build] = (
                    f"position {chromosome}:{position} lies beyond the end of the chromosome "
                    f"({length:,})"
                )
                break
    return excluded


def build_of_lengths(lengths: Mapping[str, int]) -> str | None:
    """Return the human genome build whose chromosomes 1 to 22 and X have these lengths.

    Parameters
    ----------
    lengths : mapping of chromosome to bases
        None is returned where it has none of these chromosomes, or one of another length.
    """
    for build, known in _LENGTHS.items():
        named = dict(zip(_CHROMOSOMES, known, strict=True))
        shared = named.keys() & lengths.keys()
        if shared and all(named[name] == lengths[name] for name in shared):
            return build
    return None


def _named_in_both(frame: "DataFrame", other: "DataFrame") -> "DataFrame":
    """Return ``chrom`` and ``pos`` of the rs numbers of two tables, and those in the other."""
    import polars as pl

    def named(table: "DataFrame") -> "DataFrame":
        columns = [name for name in ("rsid", "id") if name in table.columns]
        if not columns:
            return pl.DataFrame(schema={"name": pl.String, "chrom": pl.String, "pos": pl.Int64})
        usable = [
            pl.when(pl.col(column).str.contains(r"^rs\d+$")).then(pl.col(column))
            for column in columns
        ]
        return (
            table.select(pl.coalesce(usable).alias("name"), "chrom", "pos")
            .drop_nulls()
            .unique("name", keep="none")
        )

    return named(frame).join(named(other), on="name", suffix="_other")
