"""``plait sumstats``: tables of summary statistics, looked at, rewritten, aligned and joined."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.inputs import refuse_idle
from plait.cli.options import INPUT, MODEL, OUTPUT, command_group, documented, option
from plait.cli.records import beside, write_record
from plait.cli.summary_inputs import (
    Reading,
    is_fasta,
    open_genome,
    read_metadata,
    read_reference,
)
from plait.cli.sumstats_options import (
    AllowStandardised,
    Build,
    Columns,
    Context,
    DialectName,
    Filter,
    Filters,
    Format,
    Genome,
    Join,
    Metadata,
    Palindromic,
    PalindromicMaf,
    PalindromicRule,
    Scale,
    Table,
    Test,
    Trait,
    Variants,
)
from plait.cli.sumstats_words import (
    absent_chromosomes,
    builds,
    compared,
    contents,
    eqtl_lines,
    left_out,
    rows_of_other_things,
    say_counts,
    say_palindromic,
)
from plait.data.words import counted
from plait.errors import FileFormatError, OptionError, OutputError

if TYPE_CHECKING:
    from plait.data.effects import Effects
    from plait.data.summary_statistics import SummaryStatistics
    from plait.gwas.harmonisation import Harmonised

DOCS = "docs/gwas.md"


def check(
    file: Table,
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    test: Test = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Say what is in a table, and what looks wrong. GWAS-SSF is held against its standard.

    Of eQTL results (a row for each gene and variant), which the other commands do not take, it says
    what tool's they are and how they are joined.
    """
    with session(None, quiet, debug):
        from plait.gwas.table_checks import check_table
        from plait.io.summary_statistics import header_of

        reading = Reading(columns, dialect, variants, build, context, test=test)
        eqtl = reading.eqtl_format(file)
        if eqtl is not None:
            refuse_idle(("variants", "build", "context", "test"), True, "with eQTL results")
            for line in eqtl_lines(file, eqtl):
                say(quiet, line)
            return
        name, roles = reading.roles(file)
        say(quiet, f"{file}: dialect {name}")
        say(quiet, "columns: " + ", ".join(f"{role}={found}" for role, found in roles.items()))
        table = reading.table(file)
        checks = check_table(table, log10p_of_contexts=reading.log10p_of_contexts(file))
        for line in (*contents(table, checks), *builds(table)):
            say(quiet, line)
        flags = [*rows_of_other_things(table, header_of(file)), *checks.flags]
        for flag in flags:
            say(quiet, f"attention: {flag}")
        if not flags:
            say(quiet, compared(roles, checks))
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
    test: Test = None,
    trait: Trait = None,
    metadata: Metadata = None,
    filters: Filter = None,
    allow_standardised: AllowStandardised = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Write a table of any tool in another format, with what can be derived filled in."""
    _check_table_output(out, to, overwrite, filters)
    with session(None, quiet, debug):
        from plait.gwas.table_checks import check_table
        from plait.io import write_gwas_ssf, write_summary_statistics
        from plait.io.gwas_ssf import expressible_rows

        reading = Reading(columns, dialect, variants, build, context, allow_standardised, test)
        table = _filtered(reading.table(file, trait), filters, quiet)
        checks = check_table(table, log10p_of_contexts=reading.log10p_of_contexts(file))
        for line in contents(table, checks):
            say(quiet, line)
        for flag in checks.flags:
            say(quiet, f"attention: {flag}")
        if to is Format.SSF:
            given = read_metadata(file, metadata, reading.build)
            table = table.select(expressible_rows(table.frame, f"the rows of {file}"))
            write_gwas_ssf(table, out, _about(given, table, context), overwrite=overwrite)
        else:
            write_summary_statistics(table, out, extra=_status(filters, table), overwrite=overwrite)
        counts = {"rows": len(table), "left_out": dict(table.counts)}
        write_record(beside(out), counts, build=table.build)
    say(quiet, f"written: {out} ({counted(len(table), 'row')}){_beside(out, to, table)}")


def harmonise(
    file: Table,
    reference: Annotated[
        Path,
        option(
            "--reference",
            metavar="FILE",
            panel=INPUT,
            help="Whose alleles to take: a .bim, .pvar or VCF, a table of summary statistics, or "
            "the genome (FASTA, with or without .fai, also bgzip), whose allele becomes the other "
            "one.",
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
    test: Test = None,
    trait: Trait = None,
    metadata: Metadata = None,
    genome: Genome = None,
    palindromic: PalindromicRule = Palindromic.DROP,
    palindromic_maf: PalindromicMaf = 0.40,
    filters: Filter = None,
    allow_standardised: AllowStandardised = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Bring a table to the positions and alleles of a reference."""
    _check_table_output(out, to, overwrite, filters)
    with session(None, quiet, debug):
        from plait import gwas
        from plait.io import write_gwas_ssf, write_summary_statistics
        from plait.io.gwas_ssf import expressible_rows

        _refuse_beside_genome(reference)
        reading = Reading(columns, dialect, variants, build, context, allow_standardised, test)
        table = _filtered(reading.table(file, trait), filters, quiet)
        target, on_genome = read_reference(reference), is_fasta(reference)
        size = f"{len(target):,} {'sequences' if on_genome else 'variants'}"
        say(quiet, f"{file}: {counted(len(table), 'row')}; {reference}: {size}")
        for line in left_out(table):
            say(quiet, f"  {line}")
        found = gwas.harmonise(
            table,
            target,
            genome=open_genome(genome),
            palindromic=str(palindromic),
            palindromic_maf=palindromic_maf,
        )
        say_counts(found.counts, quiet)
        for line in absent_chromosomes(table, found.categories):
            say(quiet, line)
        say_palindromic(found.palindromic, quiet)
        if found.by_order.any():
            say(
                quiet,
                f"  {int(found.by_order.sum()):>12,} insertions and deletions either allele of "
                "which is in the genome: taken in the order of the other rows",
            )
        for flag in found.checks.flags:
            say(quiet, f"attention: {flag}")
        if to is Format.SSF:
            described = _about(read_metadata(file, metadata, reading.build), table, context)
            described |= {"harmonisation_reference": reference.name}
            held = expressible_rows(found.table.frame, f"the rows of {file} that fit")
            written, codes = found.table.select(held), found.hm_code[held]
            write_gwas_ssf(written, out, described, hm_code=codes, overwrite=overwrite)
        else:
            written, status = found.table, _status(filters, found.table, found, on_genome)
            write_summary_statistics(written, out, extra=status, overwrite=overwrite)
        counts = {"rows": dict(found.counts), "left_out": dict(table.counts)}
        write_record(beside(out), counts, build=found.table.build)
    say(quiet, f"written: {out} ({counted(len(written), 'row')}){_beside(out, to, written)}")


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
            help="Whose alleles to take, and whose variants alone: a .bim, .pvar, VCF or a table; "
            "or the genome (FASTA), to which all tables are brought.",
        ),
    ] = None,
    columns: Columns = None,
    dialect: DialectName = None,
    variants: Variants = None,
    build: Build = None,
    context: Context = None,
    test: Test = None,
    genome: Genome = None,
    palindromic: PalindromicRule = Palindromic.DROP,
    palindromic_maf: PalindromicMaf = 0.40,
    filters: Filter = None,
    allow_standardised: AllowStandardised = False,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Join the tables of several contexts, on one set of alleles, into effects for plait mash.

    Variants are called as a scan calls them: by their id, where it is known and no other variant
    has the same, else chrom:pos:oa:ea; STORE.variants.tsv says where each of them is.
    """
    from plait.io import check_store_writable
    from plait.io.text_output import check_text_writable

    if not out.rstrip("/").endswith(".zarr"):
        raise OutputError(f"{out}: the output must end in .zarr.")
    if filters is Filters.GWASLAB:
        raise OptionError(
            "a store of effects has no place for STATUS, and --filters gwaslab does "
            "nothing else: leave it out."
        )
    check_store_writable(out, overwrite)
    places = f"{out.rstrip('/')}.variants.tsv"
    check_text_writable(places, overwrite)
    with session(None, quiet, debug):
        from plait import gwas
        from plait.io import write_effects
        from plait.io.text_output import write_text

        _refuse_beside_genome(reference)
        reading = Reading(columns, dialect, variants, build, context, allow_standardised, test)
        _say_chosen(reading, tables, quiet)
        read = {
            context: _filtered(table, filters, quiet, f"{context}: ")
            for context, table in reading.tables(tables).items()
        }
        combined = gwas.combine_summary_statistics(
            read,
            join=str(join),
            reference=None if reference is None else read_reference(reference),
            genome=open_genome(genome),
            palindromic=str(palindromic),
            palindromic_maf=palindromic_maf,
            scale=str(scale),
        )
        effects = combined.effects
        is_shared = _say_contexts(read, effects, quiet, str(join), reference)
        write_effects(effects, out, overwrite)
        listed = combined.variants.write_csv(separator="\t", null_value="NA")
        write_text(listed, places, overwrite)
        counts = {"variants": effects.n_effects, "contexts": effects.n_contexts}
        told = _options(effects)
        write_record(beside(out), counts | {"rows": told["rows"]}, build=told["build"])
    say(quiet, f"written: {out} · {places}")
    if not is_shared:
        say(quiet, "no variant is in two contexts: nothing can be learned of what they share")
        return
    say(quiet, f"next: plait mash fit --effects {out} --alpha 1 --out my_result")
    say(
        quiet,
        "where contexts have samples in common their errors correlate, which tables do not tell: "
        "give --v FILE, the error_correlation.csv of their scan or what plait mash "
        f"estimate-null-corr-simple --effects {out} --out FILE finds",
    )


def _hold_against_standard(file: Path, quiet: bool) -> None:
    from plait.io import validate_gwas_ssf

    found = validate_gwas_ssf(file)
    for text in found.warnings:
        say(quiet, f"GWAS-SSF: {text}")
    for text in found.errors:
        say(quiet, f"GWAS-SSF, against the standard: {text}")
    if not found.valid:
        raise FileFormatError(
            f"{file} is not valid GWAS-SSF: {counted(len(found.errors), 'error')} (first: "
            f"{found.errors[0]})."
        )
    say(quiet, "GWAS-SSF: keeps to the standard")


def _say_chosen(reading: Reading, tables: Sequence[str], quiet: bool) -> None:
    """Say which tables of several contexts have rows by the smallest of their p-values alone."""
    import numpy as np

    from plait.gwas.table_checks import chosen_rows
    from plait.numerics.uniformity import log10_p_limit

    for file in dict.fromkeys(text.rpartition("=")[2] for text in tables):
        log10p = reading.log10p_of_contexts(Path(file))
        limit = float("nan") if log10p is None else log10_p_limit(log10p)
        if log10p is not None and np.isfinite(limit):
            say(quiet, f"attention: {file}: {chosen_rows(len(log10p), limit, True)}")


def _options(effects: "Effects") -> Mapping[str, Any]:
    """Return how effects were combined, and what became of the rows of each context's table."""
    assert effects.provenance is not None
    return effects.provenance.options


def _say_contexts(
    read: Mapping[str, "SummaryStatistics"],
    effects: Any,
    quiet: bool,
    join: str,
    reference: Path | None,
) -> bool:
    """Say what was combined; return whether any variant is in two contexts."""
    import numpy as np

    from plait.gwas.combination import target_name

    rows = _options(effects)["rows"]
    for number, (context, table) in enumerate(read.items()):
        say(quiet, f"{context}: {counted(len(table), 'row')}")
        for line in left_out(table):
            say(quiet, f"  {line}")
        brought_to = target_name(read, number, join, reference)
        say_counts(rows[context], quiet, brought_to, reference is None and join == "outer")
    measured = np.isfinite(effects.shat) & ~np.isnan(effects.bhat)
    everywhere = int(measured.all(axis=1).sum())
    say(
        quiet,
        f"{counted(len(measured), 'variant')} in {counted(measured.shape[1], 'context')}; "
        f"{everywhere:,} of them in all; missing: {counted(int((~measured).sum()), 'cell')}",
    )
    say(quiet, f"genome build: {_options(effects)['build'] or 'not stated'}")
    return bool((measured.sum(axis=1) > 1).any())


def _refuse_beside_genome(reference: Path | None) -> None:
    on_genome = reference is not None and is_fasta(reference)
    refuse_idle(("genome",), on_genome, "where --reference is a genome")
    refuse_idle(("palindromic_maf",), on_genome, "where --reference is a genome, of no frequencies")


def _filtered(
    table: "SummaryStatistics", filters: Filters | None, quiet: bool, whose: str = ""
) -> "SummaryStatistics":
    """Leave out what another tool leaves out, and say which of its rules could not be applied."""
    if filters is None:
        return table
    from plait.gwas import filter_summary_statistics

    found = filter_summary_statistics(table, str(filters))
    for rule in found.idle:
        say(quiet, f"{whose}filters {filters}: not applied, not in the table: {rule.words}")
    if found.dropped and not any(found.dropped.values()):
        say(quiet, f"{whose}filters {filters}: every row passes")
    return found.table


def _status(
    filters: Filters | None,
    table: "SummaryStatistics",
    harmonised: "Harmonised | None" = None,
    on_genome: bool = False,
) -> dict[str, Any] | None:
    from plait.gwas.status_codes import gwaslab_status

    if filters is not Filters.GWASLAB:
        return None
    return {"STATUS": gwaslab_status(table, harmonised, on_genome)}


def _check_table_output(
    out: Path, to: Format | None, overwrite: bool, filters: Filters | None
) -> None:
    from plait.io import check_writable
    from plait.io.summary_statistics import TABLE_SUFFIXES

    if to is Format.SSF and filters is Filters.GWASLAB:
        raise OptionError(
            "GWAS-SSF has no place for STATUS, and --filters gwaslab does nothing else: give "
            "--to tsv or --to parquet."
        )
    refuse_idle(("metadata",), to is not Format.SSF, "without --to ssf")
    text = (".tsv", ".tsv.gz")
    allowed = {None: TABLE_SUFFIXES, Format.PARQUET: (".parquet",)}.get(to, text)
    if not out.name.endswith(allowed):
        raise OutputError(f"{out}: the output must end in {' or '.join(allowed)}.")
    check_writable(out, overwrite)
    if out.name.endswith(text):
        check_writable(f"{out}-meta.yaml", overwrite)


def _beside(out: Path, to: Format | None, table: "SummaryStatistics") -> str:
    """Name the metadata that were written beside a table, if any were."""
    told = to is Format.SSF or (out.suffix != ".parquet" and table.build is not None)
    return f" · {out}-meta.yaml" if told else ""


def _about(
    given: Mapping[str, Any], table: "SummaryStatistics", context: str | None
) -> dict[str, Any]:
    """Return what metadata, perhaps for several traits, say of the one in a table."""
    from plait.io.gwas_ssf_metadata import metadata_of_trait

    traits = table.frame["trait"].drop_nulls().unique().to_list()
    return metadata_of_trait(given, context or (traits[0] if len(traits) == 1 else None))


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
