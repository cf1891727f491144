"""Several tables of summary statistics as effects, on one set of alleles."""

import logging
import os
import warnings
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import UNKNOWN_IDS, VariantTable, variant_names
from plait.data.words import counted
from plait.errors import DataWarning, HarmonisationError, OptionError, ShapeError
from plait.gwas.harmonisation import Called, as_reference, harmonise, usual_strand
from plait.gwas.inputs import opened_summary
from plait.gwas.table_checks import check_table
from plait.gwas.variant_matching import (
    FORWARD,
    NO_MATCH,
    NOT_IN_REFERENCE,
    PALINDROMIC_DROPPED,
    STRAND,
    STRAND_FLIPPED,
    complement,
    counts_of,
    distinct,
    palindromic_of,
)
from plait.io.fasta import Fasta
from plait.io.summary_sources import read_reference
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.inputs import ReferenceLike, SummaryLike

Array = NDArray[np.float64]
Rows = NDArray[np.int64]
_log = logging.getLogger("plait.gwas")


@dataclass(frozen=True, eq=False)
class Combined:
    """Effects of several tables, and where their variants are.

    Attributes
    ----------
    effects : Effects
        ``provenance.options["rows"]`` counts what happened to the rows of each context, as
        `Harmonised.counts` does, and how many were ``added`` to the reference's; ``["build"]`` is
        the genome build of the positions, None where no table says it.
    variants : polars.DataFrame
        One row for each effect: its ``name``, ``chrom``, ``pos``, ``id``, ``oa`` and ``ea``, the
        allele that the effect is of.
    """

    effects: Effects
    variants: "DataFrame"


def combine_summary_statistics(
    tables: "Mapping[str, SummaryLike]",
    *,
    join: str = "outer",
    reference: "ReferenceLike | None" = None,
    genome: "Fasta | str | os.PathLike[str] | None" = None,
    palindromic: str = "drop",
    palindromic_maf: float = 0.40,
    scale: str = "beta",
) -> Combined:
    """Join the tables of several contexts, on one set of alleles.

    Parameters
    ----------
    tables : mapping of context to SummaryStatistics or path
        Of a file with several contexts side by side, the one of that name.
    join : {"outer", "inner"}
        All variants, with cells that were not measured (``shat = inf``), or those of all contexts.
        Outer: a table that has no variant of those before it is warned of (`DataWarning`) and its
        variants are added; unless most of its positions are theirs, with other alleles.
    reference : optional
        See `harmonise`; only its variants are kept. Default: the first context; with
        ``join="outer"`` variants that it lacks are added in the order of the contexts, with letters
        of its strand where more than 99 % of a table's other rows tell which that is (else "infer"
        leaves A/T and C/G out). With a genome all tables are brought to it first, and then joined
        like that.
    genome, palindromic, palindromic_maf
        See `harmonise`.
    scale : {"beta", "z"}
        Effects with standard errors, or z with standard error 1.

    Returns
    -------
    Combined
        A variant is called by its id (its rs number, where a table has both) in the reference or,
        without one, in the first table that has the variant, where that is known and no other
        variant has the same; else ``chrom:pos:oa:ea``. A scan names its variants by the same rule.

    Warns
    -----
    DataWarning
        Something looks wrong with a table: `plait.gwas.table_checks.TableChecks.flags`, which
        ``plait sumstats check`` says, too.

    Raises
    ------
    OptionError
        An option is unknown or out of range.
    ShapeError
        There are no tables.
    HarmonisationError, GenomeBuildError
        See `harmonise`; also when no variant is in all contexts.
    """
    if join not in ("outer", "inner"):
        raise OptionError(f"join is {join!r}; give 'outer' or 'inner'.")
    if not tables:
        raise ShapeError("there are no tables to combine.")
    options: dict[str, Any] = {"palindromic": palindromic, "palindromic_maf": palindromic_maf}
    opened = {str(name): opened_summary(table, str(name)) for name, table in tables.items()}
    for name, table in opened.items():
        for flag in check_table(table).flags:
            warnings.warn(f"the table of {name!r}: {flag}.", DataWarning, stacklevel=2)
    if isinstance(reference, str | os.PathLike):
        reference = read_reference(reference)
    genome = Fasta(genome) if isinstance(genome, str | os.PathLike) else genome
    fitted: dict[str, dict[str, int]] = {}
    if isinstance(reference, Fasta):
        found = {
            name: harmonise(
                table, reference, called=Called(f"the table of {name!r}", "the genome"), **options
            )
            for name, table in opened.items()
        }
        fitted = {name: dict(one.counts) for name, one in found.items()}
        opened = {name: one.table for name, one in found.items()}
    variants = None if isinstance(reference, Fasta) else reference
    target, placed, rows_of, build = _placed(
        opened, join, variants, genome, options, scale, on_one_strand=bool(fitted)
    )
    for name, counts in fitted.items():
        rows_of[name] = counts | {
            key: rows_of[name][key] for key in ("added",) if key in rows_of[name]
        }
    bhat = np.zeros((target.height, len(placed)))
    shat = np.full(bhat.shape, np.inf)
    for column, (rows, effects, errors) in enumerate(placed.values()):
        bhat[rows, column], shat[rows, column] = effects, errors
    measured = np.isfinite(shat)
    kept = measured.all(axis=1) if join == "inner" else measured.any(axis=1)
    if not kept.any():
        raise HarmonisationError(f"no variant is in all of the contexts {', '.join(placed)}.")
    named = _named(target.filter(kept))
    _log.info("combined %s contexts: %s variants", len(placed), f"{int(kept.sum()):,}")
    settings = {"join": join, "scale": scale, **options, "build": build, "rows": rows_of}
    made = Provenance("combine_summary_statistics", settings)
    labels = np.array(named["name"].to_list(), dtype=np.str_)
    return Combined(
        Effects(bhat[kept], shat[kept], effects=labels, contexts=tuple(placed), provenance=made),
        named,
    )


def _placed(
    tables: Mapping[str, SummaryStatistics],
    join: str,
    reference: "SummaryStatistics | VariantTable | DataFrame | None",
    genome: Fasta | None,
    options: dict[str, Any],
    scale: str,
    on_one_strand: bool,
) -> tuple[
    "DataFrame", dict[str, tuple[Rows, Array, Array]], dict[str, dict[str, int]], str | None
]:
    """Return all variants, rows and estimates of contexts, what rows came to, and the build."""
    first = next(iter(tables))
    target, build = as_reference(tables[first] if reference is None else reference, None)
    placed: dict[str, tuple[Rows, Array, Array]] = {}
    rows_of: dict[str, dict[str, int]] = {}
    for number, (context, table) in enumerate(tables.items()):
        # The first context is the reference: its strand is the strand by definition, and that of
        # the other contexts in its file.
        same_file = table.file is not None and table.file == tables[first].file
        own = reference is None and (on_one_strand or context == first or same_file)
        grows = join == "outer" and reference is None
        settings = options | ({"palindromic": "keep_forward"} if own else {})
        fits = harmonise(
            table,
            target,
            genome=genome,
            reference_build=build,
            called=Called(
                f"the table of {context!r}", target_name(tables, number, join, reference), grows
            ),
            **settings,
        )
        if fits.checks.alleles_look_exchanged:
            text = f"the table of {context!r}: {fits.checks.on_frequencies}."
            warnings.warn(text, DataWarning, stacklevel=3)
        rows, estimates = fits.reference_rows, fits.table.estimates(scale)
        rows_of[context] = dict(fits.counts)
        if grows:
            categories = fits.categories.copy()
            turned = _on_strand_of_target(table, categories, settings["palindromic"], context)
            target, added, taken = _extended(target, turned, categories)
            rows_of[context] = counts_of(categories) | {"added": len(added)}
            more = table.select(taken).estimates(scale)
            rows = np.concatenate([rows, added])
            estimates = (
                np.concatenate([estimates[0], more[0]]),
                np.concatenate([estimates[1], more[1]]),
            )
        placed[context] = (rows, *estimates)
        build = build or table.build
    return target, placed, rows_of, build


def target_name(contexts: Iterable[str], number: int, join: str, reference: object = None) -> str:
    """Return how messages call what the table of a context, by its number, is brought to."""
    if reference is not None:
        return "the reference"
    if join == "outer" and number > 1:
        return "the tables before it"
    return f"the table of {next(iter(contexts))!r}"


def _on_strand_of_target(
    table: SummaryStatistics, categories: NDArray[np.int8], rule: str, context: str
) -> SummaryStatistics:
    """Return a table with the letters of its new variants on the strand of those before them.

    Else a later table, whose strand its other rows tell, would meet new A/T and C/G variants on the
    other strand, and have the wrong sign. With the rule "infer" those of a table without a strand
    are left out, by their categories, in place.
    """
    import polars as pl

    if rule == "keep_forward":
        return table
    new = np.isin(categories, (NOT_IN_REFERENCE, NO_MATCH))
    palindromic = palindromic_of(table.frame)
    strand = usual_strand(table, categories, palindromic | (categories > STRAND_FLIPPED))
    if strand == STRAND:
        single = pl.all_horizontal(pl.col("ea", "oa").str.len_bytes() == 1)
        turned = pl.when(pl.Series(new) & single)
        letters = [
            turned.then(complement(pl.col(name))).otherwise(name).alias(name)
            for name in ("ea", "oa")
        ]
        return replace(table, frame=table.frame.with_columns(letters))
    unknown = new & palindromic
    if strand != FORWARD and rule == "infer" and unknown.any():
        categories[unknown] = PALINDROMIC_DROPPED
        _log.warning(
            "A/T and C/G variants of the table of %r that the tables before it lack are left out "
            "(%s): its other rows do not tell its strand. Where it is the forward strand, say so: "
            "palindromic='keep_forward'",
            context,
            counted(int(unknown.sum()), "row"),
        )
    return table


def _extended(
    target: "DataFrame", table: SummaryStatistics, categories: NDArray[np.int8]
) -> tuple["DataFrame", Rows, Rows]:
    """Add the variants that the reference lacks; return it, their rows there and in the table."""
    import polars as pl

    new = np.flatnonzero((categories == NOT_IN_REFERENCE) | (categories == NO_MATCH))
    frame = table.frame[new].with_columns(
        row=pl.Series(new), sample=pl.col("n").fill_nan(-1.0), tail=pl.col("log10p").fill_nan(1.0)
    )
    # Of a variant that occurs twice the same row is taken as among those that fit.
    frame = frame.sort(["sample", "tail"], descending=[True, False], maintain_order=True)
    frame = distinct(frame).sort("row")
    added = np.arange(target.height, target.height + frame.height)
    return (
        pl.concat([target, frame.select(target.columns)]),
        added,
        frame["row"].to_numpy(),
    )


def _named(target: "DataFrame") -> "DataFrame":
    """Return name, chrom, pos, id, oa and ea of variants."""
    import polars as pl

    ids = [
        pl.when(~pl.col(name).is_in(UNKNOWN_IDS)).then(name)
        for name in ("rsid", "id")
        if name in target.columns
    ]
    known = target.with_columns(id=pl.coalesce(*ids, pl.lit(None, dtype=pl.String)))
    return known.select(variant_names(known), "chrom", "pos", "id", "oa", "ea")
