"""What the commands of ``plait sumstats`` say of tables and of their rows."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.console import say
from plait.data.words import counted

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from plait.data.summary_statistics import SummaryStatistics
    from plait.gwas.table_checks import TableChecks
    from plait.io.eqtl_contents import EqtlContents
    from plait.io.eqtl_formats import EqtlFormat

WORDS = {
    "forward": "fit as they are",
    "flipped": "flipped: effect and other allele exchanged",
    "strand": "on the other strand",
    "strand_flipped": "on the other strand, and flipped",
    "palindromic_dropped": "left out: A/T or C/G, strand unknown",
    "no_match": "left out: other alleles than {}",
    "not_in_reference": "left out: position not in {}",
    "incomplete": "left out: no position or allele",
    "duplicate": "left out: the variant occurs again",
    "indel_undecided": "left out: insertion or deletion either allele of which is in the genome",
    "added": "of those, variants added to it",
}
"""What happens to a row when it is brought to a reference, of which the name is filled in."""
_LOST = {
    "no_estimate": "no estimate: not tested",
    "bad_se": "no usable standard error",
    "bad_ratio": "an odds or hazard ratio that is not positive",
    "failed": "an estimate that the tool marks as failed",
}
"""Why a row is not read."""
_GENES = frozenset(
    ["gene", "gene_id", "geneid", "gene_name", "genesymbol", "gene_symbol", "ensembl_id", "symbol",
     "phenotype_id", "molecular_trait_id", "phe_id", "probe", "probe_id", "protein", "trait_id"]
)  # fmt: skip
"""What a column may be called that says what a variant's effect is on."""


def contents(table: "SummaryStatistics", checks: "TableChecks") -> list[str]:
    """Say in words what a table holds."""
    import numpy as np
    import polars as pl

    from plait.data.p_values import p_value_text
    from plait.gwas.variant_matching import palindromic_of

    frame, lines = table.frame, [f"{table!r}"]
    lines += left_out(table)
    if table.standardised:
        lines.append(
            f"effects of {counted(table.standardised, 'row')} made of z, frequency and sample "
            "size: in standard deviations of the trait"
        )
    pairs = frame.select((pl.col("ea") + pl.col("oa")).alias("pair"))["pair"]
    single = int((pairs.str.len_bytes() == 2).sum())
    palindromic = int(palindromic_of(frame).sum())
    incomplete = frame.select(
        pl.any_horizontal(pl.col("chrom", "pos", "ea", "oa").is_null())
    ).to_series()
    repeated = _repeated(table)
    lines.append(
        f"variants: {single:,} of single letters, {palindromic:,} of them A/T or C/G; "
        f"{int(pairs.is_not_null().sum()) - single:,} longer; {int(incomplete.sum()):,} without a "
        f"position or an allele; {repeated:,} that occur again"
    )
    chromosomes = frame["chrom"].drop_nulls().unique(maintain_order=True).to_list()
    if chromosomes:
        lines.append(f"chromosomes: {', '.join(chromosomes[:30])}")
    for name, title in (("eaf", "frequency"), ("n", "sample size"), ("info", "info")):
        values = table.column(name)
        known = values[np.isfinite(values)]
        if len(known):
            lines.append(
                f"{title}: {known.min():g} to {known.max():g}, in {len(known):,} of "
                f"{counted(len(table), 'row')}"
            )
        else:
            lines.append(f"{title}: not in the table")
    log10p = table.column("log10p")
    if np.isfinite(log10p).any():
        smallest = p_value_text(float(np.nanmin(log10p)))
        lines.append(f"smallest p: {smallest}; {_lambda(checks, checks.in_any_context)}")
    return lines


def compared(roles: Mapping[str, str], checks: "TableChecks") -> str:
    """Say that nothing disagrees, and what of a table that was held against what.

    What a table lacks is derived from the rest, with which it agrees.
    """
    effects, errors = {"beta", "odds_ratio", "hazard_ratio"}, {"se", "ci_lower", "t"}
    estimates = bool(effects & roles.keys()) and bool(errors & roles.keys())
    is_tested = bool({"p", "log10p", "neg_log10_p"} & roles.keys())
    held = [
        words
        for words, there in (
            ("p-values and z", is_tested and ("z" in roles or estimates)),
            ("z and effects", "z" in roles and bool(effects & roles.keys())),
            ("errors, frequencies and sample sizes", not math.isnan(checks.trait_sd)),
        )
        if there
    ]
    if not held:
        return "nothing in it could be held against anything else in it"
    return "nothing in it disagrees: " + "; ".join(held)


def _lambda(found: "TableChecks | EqtlContents", in_any_context: bool = False) -> str:
    from plait.data.p_values import p_value_text

    if math.isnan(found.log10p_limit):
        return f"lambda {found.lambda_gc:.3f}"
    limit = p_value_text(found.log10p_limit)
    where = " in one context or another" if in_any_context else ""
    return f"lambda cannot be told: only rows with p <= {limit}{where} are there"


def _repeated(table: "SummaryStatistics") -> int:
    """Return how many rows are of a variant that an earlier row is of, too."""
    keys = table.keys.drop_nulls()
    return len(keys) - keys.n_unique()


def rows_of_other_things(table: "SummaryStatistics", header: Sequence[str]) -> list[str]:
    """Say where the rows of a table are not one for each variant."""
    if len(table) and table.keys.null_count() == len(table):
        return [
            "no row names a variant, by position and alleles or by id: this is no table of "
            "variants, or its columns are called otherwise (--columns)"
        ]
    gene = next((name for name in header if name.lower() in _GENES), None)
    if gene is None or not _repeated(table):
        return []
    return [
        f"variants occur again and there is a column {gene!r}: if rows are for each gene and "
        "variant (eQTL), join them with those of other tissues in Python, plait.io.read_contexts("
        f"..., columns={{'gene': {gene!r}, 'variant': ..., 'beta': ..., 'se': ...}})"
    ]


def left_out(table: "SummaryStatistics") -> list[str]:
    """Say which rows of a table were left out, and why."""
    from plait.gwas.summary_filters import PRESETS

    filtered = {rule.reason: rule.words for rules in PRESETS.values() for rule in rules}
    return [
        f"left out: {counted(count, 'row')} with {(_LOST | filtered).get(name, name)}"
        for name, count in table.counts.items()
    ]


def builds(table: "SummaryStatistics") -> list[str]:
    """Say on which build the positions are, and on which they cannot be."""
    from plait.gwas.table_checks import builds_excluded

    stated = table.build or "not stated"
    why = [f"not {build}: {reason}" for build, reason in builds_excluded(table.frame).items()]
    return [f"genome build: {stated}" + "".join(f"; {reason}" for reason in why)]


def eqtl_lines(file: Path, found: "EqtlFormat") -> list[str]:
    """Say what is in a table of eQTL results, and what can be done with it."""
    from plait.io.eqtl_contents import eqtl_contents

    inside = eqtl_contents(file, found)
    known = "" if found.confirmed else ", known from documentation only"
    lines = [
        f"{file}: eQTL results, format {found.name}{known}: a row for each gene and variant",
        "columns: " + ", ".join(f"{role}={name}" for role, name in found.roles.items()),
        f"{counted(inside.n_effects, 'effect')} with standard errors, of "
        f"{counted(inside.n_genes, 'gene')} and {counted(inside.n_variants, 'variant')}; largest "
        f"|z| {inside.largest_z:.1f}; {_lambda(inside)}",
    ]
    if inside.n_placed:
        build = f" (on {' and '.join(inside.builds)})" if inside.builds else ""
        lines.append(
            f"position and alleles{build} are told by {counted(inside.n_placed, 'variant id')}; "
            "effects are of the last allele"
        )
    else:
        lines.append("variant ids do not tell positions, nor which allele the effects are of")
    if len(inside.builds) > 1:
        lines.append("attention: variants are on different genome builds")
    if inside.n_repeated:
        lines.append(
            f"attention: genes and variants of {counted(inside.n_repeated, 'row')} occur again "
            "with other numbers"
        )
    named = "" if found.confirmed else f", format={found.name!r}"
    return [
        *lines,
        "convert, harmonise and combine take a row for each variant, not this. Join it with those "
        "of other tissues in Python, for plait mash: "
        f"plait.io.read_contexts({{'tissue': {str(file)!r}, ...}}{named})",
    ]


def say_counts(
    counts: Mapping[str, int], quiet: bool, reference: str = "the reference", kept: bool = False
) -> None:
    """Say what became of the rows of a table.

    Parameters
    ----------
    counts : mapping
        Rows by the names of `WORDS`.
    quiet : bool
    reference : str
        What the table was brought to.
    kept : bool
        Whether variants that are not there were added to it, so that none of them was left out.
    """
    added = {"no_match", "not_in_reference"} if kept else set()
    for name, count in counts.items():
        if count:
            words = WORDS[name].format(reference)
            words = words.removeprefix("left out: ") if name in added else words
            say(quiet, f"  {count:>12,} {words}")


def absent_chromosomes(table: "SummaryStatistics", categories: "NDArray[Any]") -> list[str]:
    """Name the chromosomes of a table of which the reference has no position."""
    import polars as pl

    from plait.gwas.variant_matching import NOT_IN_REFERENCE

    lost = pl.Series(categories == NOT_IN_REFERENCE)
    placed = table.frame.select("chrom", lost=lost).drop_nulls()
    wholly = placed.group_by("chrom", maintain_order=True).agg(pl.col("lost").all())
    names = wholly.filter("lost")["chrom"].to_list()
    if not names:
        return []
    plural = "s" if len(names) > 1 else ""
    return [f"  of chromosome{plural} {', '.join(names)} nothing is in the reference"]


def say_palindromic(decided: Mapping[str, int], quiet: bool) -> None:
    """Say how the strand of A/T and C/G variants was decided."""
    if any(decided.values()):
        say(
            quiet,
            f"  A/T and C/G: {decided['by_frequency']:,} decided by frequency, "
            f"{decided['by_assumption']:,} by assumption, {decided['dropped']:,} left out",
        )
