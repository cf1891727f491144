"""Bringing summary statistics to the alleles of a reference."""

import logging
import os
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.summary_statistics import SummaryStatistics, described, standard_build
from plait.data.variants import VariantTable
from plait.errors import (
    DataWarning,
    GenomeBuildError,
    HarmonisationError,
    InputTypeError,
    OptionError,
)
from plait.gwas.inputs import opened_summary
from plait.gwas.table_checks import (
    TableChecks,
    build_of_lengths,
    check_table,
    require_same_build,
)
from plait.gwas.variant_matching import (
    DUPLICATE,
    FLIPPED,
    FORWARD,
    INCOMPLETE,
    NO_MATCH,
    NOT_IN_REFERENCE,
    PALINDROMIC_DROPPED,
    ROUNDING,
    STRAND,
    STRAND_FLIPPED,
    USUAL,
    counts_of,
    distinct,
    match,
    match_genome,
    palindromic_of,
)
from plait.io.fasta import Fasta
from plait.io.summary_sources import read_reference

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import ReferenceLike, SummaryLike

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_log = logging.getLogger("plait.gwas")

_CODE, _CODE_BY_FREQUENCY, _CODE_BY_ASSUMPTION = 10, 1, 5
"""Of the GWAS Catalog, for rows that fit as they are; flipped and other strands follow in order."""
_PALINDROMIC = ("drop", "keep_forward", "infer")
_TELLING = 50
"""Rows from which it is said that positions are another build's."""
_MIXED = 0.05
"""Share of rows on the other strand from which it is said that they are."""


@dataclass(frozen=True, eq=False)
class Harmonised:
    """A table brought to the alleles of a reference.

    Attributes
    ----------
    table : SummaryStatistics
        The rows that fit, with the reference's alleles: ``ea`` its effect allele.
    categories : (M,) array of int
        What happened to each row that was given: numbers into `CATEGORIES`.
    reference_rows : (rows of table,) array of int
        The reference's variant of each row of the table; against a genome, numbers of the distinct
        variants that were found.
    counts : dict of str to int
        Rows of each category.
    hm_code : (rows of table,) array of int
        What happened to each row of the table in the codes of the GWAS Catalog: 10 as it is, 11
        flipped, 12 on the other strand, 13 both; 1 to 4 the same for palindromic rows decided by
        frequency, 5 to 8 for those whose strand was assumed.
    palindromic : dict of str to int
        Palindromic rows decided by frequency, by assumption, and dropped.
    checks : TableChecks
        Checks of the table.
    by_order : (rows of table,) array of bool
        Insertions and deletions either allele of which stands in the genome, and which were taken
        in the order of the other rows; only where the reference is a genome.
    """

    table: SummaryStatistics
    categories: NDArray[np.int8] = field(repr=False)
    reference_rows: Rows = field(repr=False)
    hm_code: NDArray[np.int8] = field(repr=False)
    counts: dict[str, int]
    palindromic: dict[str, int]
    checks: TableChecks = field(repr=False)
    by_order: NDArray[np.bool_] = field(repr=False)


@dataclass(frozen=True)
class Called:
    """What a table and its reference are called in messages.

    ``others_are_added``: variants that the reference lacks are added to it afterwards, so that a
    table that has no other is warned of and not refused.
    """

    table: str
    reference: str
    others_are_added: bool = False


def harmonise(
    table: "SummaryLike",
    reference: "ReferenceLike",
    *,
    genome: "Fasta | str | os.PathLike[str] | None" = None,
    palindromic: str = "drop",
    palindromic_maf: float = 0.40,
    reference_build: str | None = None,
    called: Called | None = None,
) -> Harmonised:
    """Bring a table to the alleles of a reference.

    Parameters
    ----------
    table : SummaryStatistics or path
        Of a path see `plait.io.summary_sources.read_table`.
    reference : SummaryStatistics, VariantTable, polars.DataFrame, plait.io.Fasta or path
        Variants with ``chrom``, ``pos``, ``ea``, ``oa`` and, if known, ``eaf``. A variant that
        occurs twice counts once. Or a genome: its allele becomes ``oa``. A path is that of a
        .bim, .pvar or VCF, a table, or a FASTA.
    genome : plait.io.Fasta or path, optional
        With variants as reference: where insertions and deletions, the table's and the
        reference's, are moved to the left before they are compared.
    palindromic : {"drop", "keep_forward", "infer"}
        What happens to A/T and C/G variants whose strand the frequencies do not tell: they are
        left out, taken to be on the forward strand, or taken to be on the strand of more than
        99 % of the other variants of single letters and left out when there is no such strand.
    palindromic_maf : float
        Frequencies tell the strand where the minor allele's is at most this in both.
    reference_build : str, optional
        Genome build of the reference, where it does not say. A genome says it by the lengths of
        its chromosomes.
    called : Called, optional
        How messages call the two; default: by the trait of the table, and "the reference".

    Returns
    -------
    Harmonised
        Without frequencies on both sides (a .bim has none) ``palindromic="drop"`` leaves out every
        A/T and C/G row, which is logged as a warning.

    Raises
    ------
    OptionError
        An option is unknown or out of range, or does nothing with this reference.
    InputTypeError
        The table or the reference is none of these.
    HarmonisationError
        No row fits.
    GenomeBuildError
        The positions are of different genome builds; also where a quarter of the A/T and C/G
        variants and of the insertions and deletions are not in the genome.

    Notes
    -----
    With the reference's alleles (A, B), a row (ea, oa) fits as (A, B), flipped as (B, A), or as
    one of these after complementing both letters. Flipping negates beta and z and turns ``eaf``
    into ``1 - eaf``. Insertions and deletions fit as exact text only, or after letters that both
    alleles share at their ends are taken off and, with a genome, they are moved to the left
    (`plait.gwas.variant_normalisation`); they are never complemented. Of rows that come to be the
    same variant the one with the largest n is kept, then the smallest p. Memory: a few copies of
    the table's keys.

    A genome alone knows no frequencies: of A/T and C/G variants the letters decide and the rule
    ``palindromic`` says which are kept. Both alleles of a deletion stand in it, and so do those
    of an insertion that repeats what follows it: these are taken as the other rows are, if more
    than 99 % of the others have the genome's allele in the same column, and left out otherwise
    (``indel_undecided``).
    """
    if palindromic not in _PALINDROMIC:
        raise OptionError(f"palindromic is {palindromic!r}; give one of {_PALINDROMIC}.")
    if not 0 <= palindromic_maf <= 0.5:
        raise OptionError(f"palindromic_maf is {palindromic_maf}; it is between 0 and 0.5.")
    table = opened_summary(table)
    if isinstance(reference, str | os.PathLike):
        reference = read_reference(reference)
    genome = Fasta(genome) if isinstance(genome, str | os.PathLike) else genome
    called = called or Called(_name(table), "the reference")
    target, build, categories, rows, by_order = _placed(
        table, reference, genome, reference_build, called
    )
    base, by = _resolve_palindromic(table, target, categories, rows, palindromic, palindromic_maf)
    _say_why_dropped(by["dropped"], table, target, called)
    _drop_duplicates(table, categories, rows)
    counts = counts_of(categories)
    kept = np.flatnonzero(categories <= STRAND_FLIPPED)
    if not len(kept) and len(table):
        why = _explain(counts, called, len(table), reference, target)
        if not called.others_are_added or counts["not_in_reference"] <= len(table) / 2:
            raise HarmonisationError(why)
        why += " Its variants are added, and it has no cell beside another table's."
        warnings.warn(why, DataWarning, stacklevel=4)
    result = _rewritten(table, target, categories, rows, kept, build)
    _log.info("harmonised %s of %s rows: %s", f"{len(kept):,}", f"{len(table):,}", counts)
    return Harmonised(
        table=result,
        categories=categories,
        reference_rows=rows[kept],
        hm_code=base[kept] + categories[kept],
        counts=counts,
        palindromic=by,
        checks=check_table(result, target["eaf"].to_numpy()[rows[kept]]),
        by_order=by_order[kept],
    )


def flip(table: SummaryStatistics) -> SummaryStatistics:
    """Return the table with effect and other allele exchanged."""
    import polars as pl

    frame = table.frame.with_columns(
        ea=pl.col("oa"),
        oa=pl.col("ea"),
        beta=0.0 - pl.col("beta"),
        z=0.0 - pl.col("z"),
        eaf=1.0 - pl.col("eaf"),
    )
    return replace(table, frame=frame)


def _placed(
    table: SummaryStatistics,
    reference: "SummaryStatistics | VariantTable | DataFrame | Fasta",
    genome: Fasta | None,
    build: str | None,
    called: Called,
) -> tuple["DataFrame", str | None, NDArray[np.int8], Rows, NDArray[np.bool_]]:
    """Return the reference's variants and build, how each row fits them and where, and by_order."""
    name = called.table
    of_genome = None if genome is None else build_of_lengths(genome.lengths)
    if isinstance(reference, Fasta):
        if genome is not None:
            raise OptionError("genome does nothing where the reference is a genome: leave it out.")
        build = standard_build(build) or build_of_lengths(reference.lengths)
        nothing = table.frame[:0]
        require_same_build(name, table.frame, table.build, str(reference.path), nothing, build)
        found = match_genome(table.frame, reference)
        _require_genome(name, table.frame, found.categories, reference)
        return found.target, build, found.categories, found.rows, found.by_order
    target, build = as_reference(reference, build)
    if len(table):
        require_same_build(name, table.frame, table.build, called.reference, target, build)
    if genome is not None:
        of_table = build or table.build
        require_same_build(name, table.frame, of_table, str(genome.path), target[:0], of_genome)
    categories, rows = match(table.frame, target, genome)
    return target, build or of_genome, categories, rows, np.zeros(len(table), dtype=bool)


def _require_genome(
    name: str, frame: "DataFrame", categories: NDArray[np.int8], genome: Fasta
) -> None:
    """Refuse positions that are another build's.

    Whatever the genome's letter is, an allele of most pairs or its complement is that letter: only
    pairs that have two letters in all, and longer alleles, show that positions are wrong.
    """
    import polars as pl

    there = ~np.isin(categories, (NOT_IN_REFERENCE, INCOMPLETE))
    long = frame.select(
        pl.all_horizontal(pl.col("ea", "oa").str.contains("^[ACGT]+$"))
        & pl.any_horizontal(pl.col("ea", "oa").str.len_bytes() > 1)
    ).to_series()
    telling = there & (palindromic_of(frame) | long.fill_null(False).to_numpy())
    wrong, count = int((categories[telling] == NO_MATCH).sum()), int(telling.sum())
    if count >= _TELLING and wrong > count / 4:
        raise GenomeBuildError(
            f"{wrong:,} of the {count:,} A/T and C/G variants, insertions and deletions of {name} "
            f"are not in {genome.path} at their positions: it is another genome build, or another "
            "genome. Lift one of them over first; plait never does so by itself."
        )
    others = categories[there & ~telling & (categories <= STRAND_FLIPPED)]
    reverse = float((others >= STRAND).mean()) if len(others) else 0.0
    if len(others) >= _TELLING and _MIXED < reverse < 1 - _MIXED:
        _log.warning(
            "%.0f %% of the rows of %s fit %s on the other strand only. A table of one strand has "
            "none; positions of another genome build have half",
            100 * reverse,
            name,
            genome.path,
        )


def as_reference(
    reference: "SummaryStatistics | VariantTable | DataFrame", build: str | None
) -> tuple["DataFrame", str | None]:
    """Return chrom, pos, ea, oa, eaf, id and rsid of a reference, and its build."""
    import polars as pl

    if isinstance(reference, SummaryStatistics):
        build = build or reference.build
    frame = reference if isinstance(reference, pl.DataFrame) else getattr(reference, "frame", None)
    if frame is None or not {"chrom", "pos", "ea", "oa"} <= set(frame.columns):
        raise InputTypeError(
            "the reference is to be SummaryStatistics, a VariantTable, or a polars DataFrame with "
            f"the columns chrom, pos, ea and oa, not {type(reference).__name__}."
        )
    names = [name for name in ("id", "rsid") if name in frame.columns]
    eaf = pl.col("eaf") if "eaf" in frame.columns else pl.lit(np.nan)
    upper = [pl.col(name).cast(pl.String).str.to_uppercase() for name in ("ea", "oa")]
    target = frame.select(
        pl.col("chrom").cast(pl.String),
        pl.col("pos").cast(pl.Int64),
        *upper,
        eaf.cast(pl.Float64).fill_null(np.nan).alias("eaf"),
        *names,
    ).drop_nulls(["chrom", "pos", "ea", "oa"])
    return distinct(target), standard_build(build)


def _resolve_palindromic(
    table: SummaryStatistics,
    target: "DataFrame",
    categories: NDArray[np.int8],
    rows: Rows,
    rule: str,
    limit: float,
) -> tuple[NDArray[np.int8], dict[str, int]]:
    """Decide the strand of palindromic rows, in place.

    Returns the catalogue's code of each row if it fits as it is, and counts of palindromic rows.
    """
    palindromic = palindromic_of(table.frame) & (rows >= 0)
    found = np.flatnonzero(rows >= 0)  # AAA and AAT become A and T
    palindromic[found] |= palindromic_of(target[rows[found]])
    strand = usual_strand(table, categories, palindromic | (rows < 0))
    letters = np.flatnonzero(palindromic)
    ours = table.column("eaf")[letters]
    ours = np.where(categories[letters] == FLIPPED, 1 - ours, ours)
    theirs = target["eaf"].to_numpy()[rows[letters]]
    with np.errstate(invalid="ignore"):
        rare = [np.minimum(f, 1 - f) <= limit + ROUNDING for f in (ours, theirs)]
        # A frequency of exactly one half has no side.
        told = rare[0] & rare[1] & (ours != 0.5) & (theirs != 0.5)
        opposite = told & ((ours > 0.5) != (theirs > 0.5))
    on_other_strand = {FORWARD: STRAND_FLIPPED, FLIPPED: STRAND}
    swapped = np.array([on_other_strand.get(int(c), c) for c in categories[letters]], np.int8)
    decided = np.where(opposite, swapped, categories[letters]).astype(np.int8)
    left = ~told
    if rule == "infer":
        if strand == STRAND:
            decided[left] = swapped[left]
        elif strand is None:
            decided[left] = PALINDROMIC_DROPPED
    elif rule == "drop":
        decided[left] = PALINDROMIC_DROPPED
    categories[letters] = decided
    base = np.full(len(categories), _CODE, dtype=np.int8)
    base[letters] = np.where(told, _CODE_BY_FREQUENCY, _CODE_BY_ASSUMPTION)
    dropped = int((decided == PALINDROMIC_DROPPED).sum())
    return base, {
        "by_frequency": int(told.sum()),
        "by_assumption": int(left.sum()) - dropped,
        "dropped": dropped,
    }


def usual_strand(
    table: SummaryStatistics, categories: NDArray[np.int8], ambiguous: NDArray[np.bool_]
) -> int | None:
    """Return on which strand of a reference more than 99 % of the rows of a table are.

    Parameters
    ----------
    table : SummaryStatistics
        M rows.
    categories : (M,) array
        How they fit; see `plait.gwas.variant_matching.match`.
    ambiguous : (M,) array of bool
        Rows that do not count: palindromic ones, and those that do not fit.

    Returns
    -------
    int or None
        ``FORWARD``, ``STRAND`` (the other one), or None where there is no such strand.
    """
    import polars as pl

    # Insertions and deletions are never complemented: they say nothing of the strand.
    single = table.frame.select(
        pl.all_horizontal(pl.col("ea", "oa").str.len_bytes() == 1).fill_null(False)
    ).to_series()
    others = categories[~ambiguous & single.to_numpy()]
    if not len(others):
        return None
    forward = others <= FLIPPED
    if forward.mean() > USUAL:
        return FORWARD
    return STRAND if (~forward).mean() > USUAL else None


def _say_why_dropped(
    count: int, table: SummaryStatistics, target: "DataFrame", called: Called
) -> None:
    """Say what to do where no frequency at all tells the strand of A/T and C/G rows."""
    known = {called.table: table.column("eaf"), called.reference: target["eaf"].to_numpy()}
    lacking = [name for name, frequencies in known.items() if np.isnan(frequencies).all()]
    if count and lacking:
        _log.warning(
            "%s A/T and C/G rows of %s left out: there are no allele frequencies, which tell their "
            "strand, in %s. Take a table and a reference that have them (a .bim has none, a VCF "
            "has AF), or say which strand they are of: palindromic='infer', as the other rows, or "
            "palindromic='keep_forward'",
            f"{count:,}",
            called.table,
            " and in ".join(lacking),
        )


def _drop_duplicates(table: SummaryStatistics, categories: NDArray[np.int8], rows: Rows) -> None:
    """Keep one row of each variant: the largest n, then the smallest p, then the first."""
    fits = np.flatnonzero(categories <= STRAND_FLIPPED)
    n = np.nan_to_num(table.column("n")[fits], nan=-1.0)
    log10p = np.nan_to_num(table.column("log10p")[fits], nan=1.0)
    order = fits[np.lexsort((fits, log10p, -n, rows[fits]))]
    again = order[1:][rows[order[1:]] == rows[order[:-1]]]
    if len(again):
        mask = np.zeros(len(categories), dtype=bool)
        mask[again] = True
        _log.warning("variants that occur again: %s; left out", described(table.frame, mask))
        categories[again] = DUPLICATE


def _rewritten(
    table: SummaryStatistics,
    target: "DataFrame",
    categories: NDArray[np.int8],
    rows: Rows,
    kept: Rows,
    build: str | None,
) -> SummaryStatistics:
    """Return the rows that fit with the reference's positions and alleles."""
    import polars as pl

    reference = target[rows[kept]]
    flipped = pl.Series(np.isin(categories[kept], (FLIPPED, STRAND_FLIPPED)))
    turned = pl.when(flipped)
    frame = table.frame[kept].with_columns(
        *(reference[name] for name in ("chrom", "pos", "ea", "oa")),
        turned.then(0.0 - pl.col("beta")).otherwise("beta").alias("beta"),
        turned.then(0.0 - pl.col("z")).otherwise("z").alias("z"),
        turned.then(1.0 - pl.col("eaf")).otherwise("eaf").alias("eaf"),
    )
    return replace(table, frame=frame, build=table.build or build)


def _name(table: SummaryStatistics) -> str:
    """Return how a table is called in messages: by its trait, if it has one."""
    traits = table.frame["trait"].drop_nulls().unique()
    return f"the table of {traits[0]!r}" if len(traits) == 1 else "the table"


_LOST = {
    "palindromic_dropped": "are A/T or C/G, of unknown strand",
    "no_match": "have other alleles",
    "not_in_reference": "are at other positions",
    "incomplete": "lack a position or an allele",
    "duplicate": "occur again",
    "indel_undecided": "are insertions or deletions either allele of which is in the genome",
}


def _explain(
    counts: Mapping[str, int],
    called: Called,
    n_rows: int,
    reference: object,
    target: "DataFrame",
) -> str:
    lost = ", ".join(f"{counts[name]:,} {words}" for name, words in _LOST.items() if counts[name])
    to = f"the {target.height:,} variants of {called.reference}"
    if isinstance(reference, Fasta):
        to = str(reference.path)
    message = f"none of the {n_rows:,} rows of {called.table} fits {to}: {lost}."
    if counts["not_in_reference"] > n_rows / 2:
        message += (
            f" Most positions are not in {called.reference}: the two are on different genome "
            "builds, cover other regions, or name chromosomes differently."
        )
    elif counts["no_match"] > n_rows / 2:
        message += " Positions are there and alleles differ: probably another genome build."
    elif counts["incomplete"] > n_rows / 2:
        message += " Most rows lack a position or an allele."
    return message
