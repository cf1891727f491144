"""``plait gwas region``: the associations around one variant, and linkage with it."""

import shlex
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.genotype_choice import Choice, MapFile, open_chosen
from plait.cli.gwas_options import DOCS
from plait.cli.inputs import refuse_idle, split_list
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import FIGURES, check_file, use_no_window
from plait.cli.records import beside, write_record
from plait.cli.sumstats_options import Test
from plait.errors import (
    AmbiguousAlleleColumnsError,
    FileFormatError,
    LabelError,
    OptionError,
    UnknownDialectError,
)

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.regional import Locus

EXAMPLE = "plait gwas region scanned --geno demo/genotypes.bed --out region.png"
_LISTED = 10
_GENE_COLUMNS = ("chrom", "start", "end", "name")


def region(
    scanned: Annotated[
        Path,
        typer.Argument(
            metavar="SCAN",
            show_default=False,
            help="The folder of a scan, or a table of summary statistics.",
        ),
    ],
    out: Annotated[
        Path, option("--out", metavar="FILE", panel=OUTPUT, help="A .png, .pdf or .svg.")
    ],
    geno: Annotated[
        str | None,
        option(
            "--geno",
            metavar="FILE",
            panel=INPUT,
            help="Genotypes that linkage is taken from: those scanned, or a reference panel on "
            "the same genome build.",
        ),
    ] = None,
    map: MapFile = None,
    lead: Annotated[
        str | None,
        option(
            "--lead",
            metavar="ID",
            panel=MODEL,
            show_default="the smallest p-value",
            help="The variant in the middle: its id, or chrom:pos:oa:ea.",
        ),
    ] = None,
    window_kb: Annotated[
        float | None,
        option(
            "--window-kb",
            panel=MODEL,
            show_default="500; up to 5000 where variants are few",
            help="How far to both sides, in thousands of bases.",
        ),
    ] = None,
    traits: Annotated[
        str | None,
        option(
            "--traits",
            metavar="LIST",
            panel=MODEL,
            show_default="the surest",
            help="Traits to draw one below the other, separated by commas; 'all' for all of them. "
            "Of a table with several side by side: the one to draw.",
        ),
    ] = None,
    test: Test = None,
    genes: Annotated[
        Path | None,
        option(
            "--genes",
            metavar="FILE",
            panel=INPUT,
            help="Genes to draw below: a table with columns chrom, start, end and name.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Draw the associations around one variant, coloured by linkage with it."""
    refuse_idle(("map",), geno is None, "without --geno FILE")
    refuse_idle(("test",), scanned.is_dir(), "with the folder of a scan")
    check_file(out, FIGURES, overwrite)
    with session(None, quiet, debug):
        from plait import gwas, plot
        from plait.gwas.regional import locus_around

        result = _open_scan(scanned, traits, test)
        chosen = _trait_names(traits, result)
        genotypes = None if geno is None else open_chosen(geno, Choice(map=map))
        use_no_window()
        panels = gwas.plot_regional(
            result,
            genotypes,
            lead,
            window_kb=window_kb,
            traits=chosen,
            genes=None if genes is None else _read_genes(genes),
            caption=True,
        )
        plot.save_figure(panels[0], out, overwrite)
        locus = locus_around(result, None, lead, window_kb, chosen)
        drawn = _drawn(locus, is_chosen=window_kb is not None)
    write_record(beside(out), {"variants": len(locus.variants)}, window_kb=locus.window_kb)
    say(quiet, drawn)
    say(quiet, f"written: {out}")


def _open_scan(scanned: Path, traits: str | None, test: str | None) -> Any:
    """Return the result in the folder of a scan, or one trait of a table."""
    from plait.cli.summary_inputs import Reading
    from plait.gwas import AssociationResult

    if scanned.is_dir():
        return AssociationResult.open(scanned)
    reading = Reading(test=test)
    try:
        contexts = reading.contexts(scanned)
        replace(reading, context=contexts[0] if len(contexts) > 1 else None).roles(scanned)
    except (UnknownDialectError, AmbiguousAlleleColumnsError) as error:
        raise type(error)(
            f"{error} These are options of 'plait sumstats convert', which writes a table that is "
            "read here by itself."
        ) from None
    if len(contexts) > 1:
        return replace(reading, context=_one_of(contexts, traits, scanned)).table(scanned)
    table = reading.table(scanned)
    names = tuple(table.frame["trait"].drop_nulls().unique(maintain_order=True))
    if len(names) > 1:
        name = _one_of(names, traits, scanned)
        return table.select((table.frame["trait"] == name).fill_null(False).to_numpy())
    return table


def _one_of(names: tuple[str, ...], traits: str | None, scanned: Path) -> str:
    """Return the trait that was asked for, of a table of several."""
    wanted = split_list(traits)
    if wanted is not None and len(wanted) == 1 and wanted[0] in names:
        return wanted[0]
    listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
    absent = [name for name in wanted or [] if name not in names and name != "all"]
    if absent:
        raise LabelError(f"{scanned} has no trait {absent[0]!r}; there are {listed}.")
    raise OptionError(
        f"{scanned} holds {len(names)} traits ({listed}), and of a table one is drawn: say which, "
        f"as in --traits {shlex.quote(names[0])}. Of the folder of a scan several are."
    )


def _drawn(locus: "Locus", is_chosen: bool) -> str:
    """Say which variant is in the middle, and of how many; and where the window was widened."""
    import numpy as np

    from plait.data.p_values import p_value_text
    from plait.data.words import counted
    from plait.gwas.regional import WINDOWS_KB

    around = f"{locus.lead_name} ({locus.chrom}:{locus.variants['pos'][locus.lead]})"
    smallest = p_value_text(float(np.nanmin(locus.log10p[locus.lead])))
    traits = f" of {', '.join(locus.traits)}" if any(locus.traits) else ""
    said = (
        f"associations{traits} around {around}, p = {smallest}: "
        f"{counted(locus.variants.height, 'variant')} within {locus.window_kb:g} kb"
    )
    if is_chosen or locus.window_kb == WINDOWS_KB[0]:
        return said
    pos = locus.variants["pos"]
    near = int(((pos - pos[locus.lead]).abs() <= 1000 * WINDOWS_KB[0]).sum())
    return (
        f"{said}, as there {'is' if near == 1 else 'are'} {near:,} within {WINDOWS_KB[0]:g} kb "
        "(--window-kb)"
    )


def _trait_names(traits: str | None, result: Any) -> list[str] | None:
    if traits is None:
        return None
    if traits == "all":
        return list(getattr(result, "traits", ())) or None
    return split_list(traits)


def _read_genes(path: Path) -> "DataFrame":
    import polars as pl

    from plait.io.summary_statistics import read_table, to_numbers

    table = read_table(path)
    missing = [name for name in _GENE_COLUMNS if name not in table.columns]
    if missing:
        raise FileFormatError(
            f"{path} has no column {missing[0]!r}; genes have the columns "
            f"{', '.join(_GENE_COLUMNS)}."
        )
    numbers = [to_numbers(table[name], f"{path}: column {name!r}") for name in ("start", "end")]
    named = table.select(pl.col("chrom", "name").cast(pl.String)).with_columns(numbers)
    return named.drop_nulls()


def register(app: typer.Typer) -> None:
    """Add the command to those of ``plait gwas``."""
    documented(app, "region", region, EXAMPLE, DOCS)
