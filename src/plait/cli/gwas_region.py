"""``plait gwas region``: the associations around one variant, and linkage with it."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import say, session
from plait.cli.gwas import DOCS
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import FIGURES, check_file, use_no_window
from plait.errors import FileFormatError

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.regional import Locus

EXAMPLE = "plait gwas region scanned --geno demo/genotypes.bed --out region.png"
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
        float,
        option("--window-kb", panel=MODEL, help="How far to both sides, in thousands of bases."),
    ] = 500.0,
    traits: Annotated[
        str | None,
        option(
            "--traits",
            metavar="LIST",
            panel=MODEL,
            show_default="the surest",
            help="Traits to draw one below the other, separated by commas; 'all' for all of them.",
        ),
    ] = None,
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
    check_file(out, FIGURES, overwrite)
    with session(None, quiet, debug):
        from plait import gwas, plot
        from plait.gwas.regional import locus_around
        from plait.io import open_genotypes

        result = _open_scan(scanned)
        chosen = _trait_names(traits, result)
        genotypes = None if geno is None else open_genotypes(geno)
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
        drawn = _drawn(locus_around(result, None, lead, window_kb, chosen), window_kb)
    say(quiet, drawn)
    say(quiet, f"written: {out}")


def _open_scan(scanned: Path) -> Any:
    """Return the result in the folder of a scan, or a table of summary statistics."""
    from plait.cli.summary_inputs import Reading
    from plait.gwas import AssociationResult

    return AssociationResult.open(scanned) if scanned.is_dir() else Reading().table(scanned)


def _drawn(locus: "Locus", window_kb: float) -> str:
    """Say which variant is in the middle, and of how many."""
    import numpy as np

    around = f"{locus.lead_name} ({locus.chrom}:{locus.variants['pos'][locus.lead]})"
    smallest = np.nanmin(locus.log10p[locus.lead])
    traits = f" of {', '.join(locus.traits)}" if any(locus.traits) else ""
    return (
        f"associations{traits} around {around}, p = 10^{smallest:.1f}: "
        f"{locus.variants.height:,} variants within {window_kb:g} kb"
    )


def _trait_names(traits: str | None, result: Any) -> list[str] | None:
    if traits is None:
        return None
    if traits == "all":
        return list(getattr(result, "traits", ())) or None
    return [name.strip() for name in traits.split(",") if name.strip()]


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
