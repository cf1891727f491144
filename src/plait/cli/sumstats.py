"""``plait sumstats``: tables of summary statistics, looked at, rewritten, aligned and joined."""

from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.inputs import refuse_idle
from plait.cli.options import INPUT, MODEL, OUTPUT, command_group, documented, option
from plait.cli.records import beside, write_record
from plait.cli.summary_inputs import Reading, read_metadata, read_reference
from plait.errors import FileFormatError, InputError, OutputError

if TYPE_CHECKING:
    from plait.data.effects import Effects
    from plait.data.summary_statistics import SummaryStatistics

DOCS = "docs/gwas.md"

WORDS = {
    "forward": "fit as they are",
    "flipped": "flipped: effect and other allele exchanged",
    "strand": "on the other strand",
    "strand_flipped": "on the other strand, and flipped",
    "palindromic_dropped": "left out: A/T or C/G, strand unknown",
    "no_match": "left out: other alleles than the reference",
    "not_in_reference": "left out: position not in the reference",
    "incomplete": "left out: no position or allele",
    "duplicate": "left out: the variant occurs again",
    "added": "of those, variants added to the reference",
}
"""What happens to a row when it is brought to a reference."""
_LOST = {
    "no_estimate": "no estimate: not tested",
    "bad_se": "no usable standard error",
    "bad_ratio": "an odds or hazard ratio that is not positive",
}


class Format(StrEnum):
    """What a table is written as."""

    SSF = "ssf"
    PARQUET = "parquet"
    TSV = "tsv"


class Join(StrEnum):
    """Which variants are kept."""

    INNER = "inner"
    OUTER = "outer"


class Palindromic(StrEnum):
    """What becomes of A/T and C/G variants whose frequencies do not tell the strand."""

    DROP = "drop"
    KEEP_FORWARD = "keep_forward"
    INFER = "infer"


class Scale(StrEnum):
    """What the effects are."""

    BETA = "beta"
    Z = "z"


Table = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="A table of summary statistics: text (also .gz) or .parquet.",
    ),
]
Columns = Annotated[
    str | None,
    option(
        "--columns",
        metavar="LIST",
        panel=INPUT,
        show_default="found by their names",
        help="What the columns are: ea=A1,oa=A2,beta=b,se=se,p=p.",
    ),
]
DialectName = Annotated[
    str | None,
    option(
        "--dialect",
        metavar="NAME",
        panel=INPUT,
        show_default="found by the columns",
        help="The tool that wrote the table, as regenie, plink2-linear, saige.",
    ),
]
Variants = Annotated[
    Path | None,
    option(
        "--variants",
        metavar="FILE",
        panel=INPUT,
        help="A .bim or .pvar with the positions and alleles that the table lacks, by id.",
    ),
]
Build = Annotated[
    str | None,
    option("--build", panel=INPUT, help="Genome build of the positions: GRCh37 or GRCh38."),
]
Context = Annotated[
    str | None,
    option(
        "--context",
        metavar="NAME",
        panel=INPUT,
        help="Which trait, population, method or study, of a table with several side by side.",
    ),
]
Trait = Annotated[str | None, option("--trait", panel=INPUT, help="Name of the trait.")]
Metadata = Annotated[
    Path | None,
    option(
        "--metadata",
        metavar="FILE",
        panel=INPUT,
        show_default="FILE-meta.yaml, if there is one",
        help="Metadata for ssf (YAML): samples, genotyping_technology and so on.",
    ),
]
PalindromicRule = Annotated[
    Palindromic,
    option(
        "--palindromic",
        panel=MODEL,
        help="A/T and C/G variants whose frequencies do not tell the strand: drop them, take them "
        "as forward, or infer the strand from the other variants.",
    ),
]
PalindromicMaf = Annotated[
    float,
    option(
        "--palindromic-maf",
        panel=MODEL,
        help="Frequencies tell the strand where the rarer allele's is at most this in both.",
    ),
]


def check(
    file: Table,
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say what is in a table, and what looks wrong. GWAS-SSF is held against its standard."""
    with session(None, quiet, debug):
        from plait.gwas.table_checks import check_table

        reading = Reading(columns, dialect, variants, build, context)
        name, roles = reading.roles(file)
        say(quiet, f"{file}: dialect {name}")
        say(quiet, "columns: " + ", ".join(f"{role}={found}" for role, found in roles.items()))
        table = reading.table(file)
        for line in (*_contents(table), *_builds(table)):
            say(quiet, line)
        flags = check_table(table).flags
        for flag in flags:
            say(quiet, f"attention: {flag}")
        if not flags:
            say(quiet, "nothing in it disagrees: effects, errors, p-values, frequencies, sizes")
        if name == "gwas-ssf":
            _hold_against_standard(file, quiet)


def convert(
    file: Table,
    out: Annotated[
        Path,
        option("--out", metavar="FILE", panel=OUTPUT, help="The table to write."),
    ],
    to: Annotated[
        Format,
        option(
            "--to",
            panel=OUTPUT,
            help="ssf: GWAS-SSF with its metadata (.tsv, .tsv.gz); parquet; tsv (.tsv, .tsv.gz).",
        ),
    ],
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    trait: Trait = None,
    metadata: Metadata = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a table of any tool in another format, with what can be derived filled in."""
    _check_table_output(out, to, overwrite)
    with session(None, quiet, debug):
        table = Reading(columns, dialect, variants, build, context).table(file, trait)
        for line in _contents(table):
            say(quiet, line)
        if to is Format.SSF:
            given = read_metadata(file, metadata, build)
            _write_ssf(table, out, _about(given, table, context), overwrite)
        else:
            from plait.io import write_summary_statistics

            write_summary_statistics(table, out, overwrite=overwrite)
        counts = {"rows": len(table), "left_out": dict(table.counts)}
        write_record(beside(out), counts, build=table.build)
    also = f" · {out}-meta.yaml" if to is Format.SSF else ""
    say(quiet, f"written: {out} ({len(table):,} rows){also}")


def harmonise(
    file: Table,
    reference: Annotated[
        Path,
        option(
            "--reference",
            metavar="FILE",
            panel=INPUT,
            help="Whose alleles to take: a .bim, .pvar or VCF, or a table of summary statistics.",
        ),
    ],
    out: Annotated[
        Path,
        option("--out", metavar="FILE", panel=OUTPUT, help="A .tsv, .tsv.gz or .parquet."),
    ],
    to: Annotated[
        Format | None,
        option(
            "--to",
            panel=OUTPUT,
            show_default="by the name",
            help="ssf: GWAS-SSF with its metadata, and hm_code for each row; parquet; tsv.",
        ),
    ] = None,
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    trait: Trait = None,
    metadata: Metadata = None,
    palindromic: PalindromicRule = Palindromic.DROP,
    palindromic_maf: PalindromicMaf = 0.40,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Bring a table to the positions and alleles of a reference."""
    _check_table_output(out, to, overwrite)
    with session(None, quiet, debug):
        from plait import gwas
        from plait.io import write_summary_statistics

        table = Reading(columns, dialect, variants, build, context).table(file, trait)
        target = read_reference(reference)
        say(quiet, f"{file}: {len(table):,} rows; {reference}: {len(target):,} variants")
        found = gwas.harmonise(
            table, target, palindromic=str(palindromic), palindromic_maf=palindromic_maf
        )
        _say_counts(found.counts, quiet)
        _say_palindromic(found.palindromic, quiet)
        for flag in found.checks.flags:
            say(quiet, f"attention: {flag}")
        if to is Format.SSF:
            described = _about(read_metadata(file, metadata, build), table, context)
            described |= {"harmonisation_reference": reference.name}
            _write_ssf(found.table, out, described, overwrite, found.hm_code)
        else:
            write_summary_statistics(found.table, out, overwrite=overwrite)
        counts = {"rows": dict(found.counts), "left_out": dict(table.counts)}
        write_record(beside(out), counts, build=found.table.build)
    say(quiet, f"written: {out} ({len(found.table):,} rows)")


def combine(
    tables: Annotated[
        list[str],
        typer.Argument(
            metavar="NAME=FILE ...",
            show_default=False,
            help="The tables, each with the name of its context (a trait, a tissue, a cohort). "
            "Without a name: all contexts of a table with several side by side (the traits of a "
            "scan); with the name of one of them: that one.",
        ),
    ],
    out: Annotated[
        str,
        option("--out", metavar="STORE", panel=OUTPUT, help="Store of effects (.zarr)."),
    ],
    join: Annotated[
        Join,
        option(
            "--join",
            panel=MODEL,
            help="inner: variants of all tables; outer: of any, what was not measured is missing.",
        ),
    ] = Join.OUTER,
    scale: Annotated[
        Scale, option("--scale", panel=MODEL, help="Effects and errors, or z with error 1.")
    ] = Scale.BETA,
    reference: Annotated[
        Path | None,
        option(
            "--reference",
            metavar="FILE",
            panel=INPUT,
            show_default="the first table",
            help="Whose alleles to take, and whose variants alone: a .bim, .pvar, VCF or a table.",
        ),
    ] = None,
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    palindromic: PalindromicRule = Palindromic.DROP,
    palindromic_maf: PalindromicMaf = 0.40,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Join the tables of several contexts, on one set of alleles, into effects for plait mash."""
    from plait.io import check_store_writable

    if not out.rstrip("/").endswith(".zarr"):
        raise OutputError(f"{out}: the output must end in .zarr.")
    check_store_writable(out, overwrite)
    with session(None, quiet, debug):
        from plait import gwas
        from plait.io import write_effects

        read = Reading(columns, dialect, variants, build, context).tables(tables)
        effects = gwas.combine_summary_statistics(
            read,
            join=str(join),
            reference=None if reference is None else read_reference(reference),
            palindromic=str(palindromic),
            palindromic_maf=palindromic_maf,
            scale=str(scale),
        )
        _say_contexts(read, effects, quiet)
        write_effects(effects, out, overwrite)
        counts = {"variants": effects.n_effects, "contexts": effects.n_contexts}
        write_record(beside(out), counts | {"rows": _rows(effects)})
    say(quiet, f"written: {out}")
    say(quiet, f"next: plait mash fit --effects {out} --alpha 1 --out my_result")


def _contents(table: "SummaryStatistics") -> list[str]:
    """Say in words what a table holds."""
    import numpy as np
    import polars as pl

    from plait.data.summary_derivations import lambda_gc

    frame, lines = table.frame, [f"{table!r}"]
    lines += _left_out(table)
    pairs = frame.select((pl.col("ea") + pl.col("oa")).alias("pair"))["pair"]
    single = int((pairs.str.len_bytes() == 2).sum())
    palindromic = int(pairs.is_in(["AT", "TA", "CG", "GC"]).sum())
    incomplete = frame.select(
        pl.any_horizontal(pl.col("chrom", "pos", "ea", "oa").is_null())
    ).to_series()
    repeated = len(table) - table.keys.n_unique()
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
                f"{len(table):,} rows"
            )
        else:
            lines.append(f"{title}: not in the table")
    log10p, z = table.column("log10p"), table.column("z")
    if np.isfinite(log10p).any():
        lines.append(f"smallest p: 10^{np.nanmin(log10p):.1f}; lambda {lambda_gc(z):.3f}")
    return lines


def _left_out(table: "SummaryStatistics") -> list[str]:
    return [
        f"left out: {count:,} rows with {_LOST.get(name, name)}"
        for name, count in table.counts.items()
    ]


def _builds(table: "SummaryStatistics") -> list[str]:
    from plait.gwas.table_checks import builds_excluded

    stated = table.build or "not stated"
    why = [f"not {build}: {reason}" for build, reason in builds_excluded(table.frame).items()]
    return [f"genome build: {stated}" + "".join(f"; {reason}" for reason in why)]


def _hold_against_standard(file: Path, quiet: bool) -> None:
    from plait.io import validate_gwas_ssf

    found = validate_gwas_ssf(file)
    for text in found.warnings:
        say(quiet, f"GWAS-SSF: {text}")
    for text in found.errors:
        say(quiet, f"GWAS-SSF, against the standard: {text}")
    if not found.valid:
        raise FileFormatError(
            f"{file} is not valid GWAS-SSF: {len(found.errors)} errors (first: {found.errors[0]})."
        )
    say(quiet, "GWAS-SSF: keeps to the standard")


def _say_counts(counts: Mapping[str, int], quiet: bool, indent: str = "  ") -> None:
    for name, count in counts.items():
        if count:
            say(quiet, f"{indent}{count:>12,} {WORDS[name]}")


def _say_palindromic(decided: Mapping[str, int], quiet: bool) -> None:
    if any(decided.values()):
        say(
            quiet,
            f"  A/T and C/G: {decided['by_frequency']:,} decided by frequency, "
            f"{decided['by_assumption']:,} by assumption, {decided['dropped']:,} left out",
        )


def _rows(effects: "Effects") -> Mapping[str, Mapping[str, int]]:
    """Return what became of the rows of each context's table."""
    assert effects.provenance is not None
    found: Mapping[str, Mapping[str, int]] = effects.provenance.options["rows"]
    return found


def _say_contexts(read: Mapping[str, "SummaryStatistics"], effects: Any, quiet: bool) -> None:
    import numpy as np

    rows = _rows(effects)
    for context, table in read.items():
        say(quiet, f"{context}: {len(table):,} rows")
        for line in _left_out(table):
            say(quiet, f"  {line}")
        _say_counts(rows[context], quiet)
    measured = np.isfinite(effects.shat) & ~np.isnan(effects.bhat)
    everywhere = int(measured.all(axis=1).sum())
    say(
        quiet,
        f"{len(measured):,} variants in {measured.shape[1]} contexts; {everywhere:,} of them in "
        f"all; {int((~measured).sum()):,} cells are missing",
    )


def _check_table_output(out: Path, to: Format | None, overwrite: bool) -> None:
    from plait.io import check_writable
    from plait.io.summary_statistics import TABLE_SUFFIXES

    refuse_idle(("metadata",), to is not Format.SSF, "without --to ssf")
    text = (".tsv", ".tsv.gz")
    allowed = {None: TABLE_SUFFIXES, Format.PARQUET: (".parquet",)}.get(to, text)
    if not out.name.endswith(allowed):
        raise OutputError(f"{out}: the output must end in {' or '.join(allowed)}.")
    check_writable(out, overwrite)
    if to is Format.SSF:
        check_writable(f"{out}-meta.yaml", overwrite)


def _about(
    given: Mapping[str, Any], table: "SummaryStatistics", context: str | None
) -> dict[str, Any]:
    """Return what metadata, perhaps for several traits, say of the one in a table."""
    from plait.io.gwas_ssf_metadata import metadata_of_trait

    traits = table.frame["trait"].drop_nulls().unique().to_list()
    return metadata_of_trait(given, context or (traits[0] if len(traits) == 1 else None))


def _write_ssf(
    table: "SummaryStatistics",
    out: Path,
    metadata: dict[str, Any],
    overwrite: bool,
    hm_code: Any = None,
) -> None:
    from plait.io import write_gwas_ssf

    try:
        write_gwas_ssf(table, out, metadata, hm_code=hm_code, overwrite=overwrite)
    except OutputError:
        raise
    except InputError as error:
        if "metadata of" not in str(error):
            raise
        raise InputError(f"{error} Give them with --metadata FILE (YAML).") from None


COMMANDS = (
    ("check", check, "plait sumstats check height.regenie"),
    ("convert", convert, "plait sumstats convert height.regenie --to parquet --out height.parquet"),
    (
        "harmonise",
        harmonise,
        "plait sumstats harmonise height.regenie --reference genotypes.bim --out height.tsv.gz",
    ),
    (
        "combine",
        combine,
        "plait sumstats combine height=height.regenie bmi=bmi.regenie --out effects.zarr",
    ),
)

app = command_group("Tables of summary statistics: what is in them, and joining them.", DOCS)

for _name, _function, _example in COMMANDS:
    documented(app, _name, _function, _example, DOCS)
