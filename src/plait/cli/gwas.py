"""``plait gwas``: from genotypes and phenotypes to effects."""

import json
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import write_table
from plait.errors import OptionError

if TYPE_CHECKING:
    from plait.gwas import AssociationResult

DOCS = "docs/gwas.md"
EXAMPLE = (
    "plait gwas scan --geno demo/genotypes.bed --pheno demo/traits.csv --covar "
    "demo/covariates.csv --out scanned"
)
STORE = "associations.zarr"
RECORD = "run.json"
FILES = (STORE, "effects.zarr", RECORD)
UNFINISHED = ".scan.json"
"""Tells a folder whose scan is done and whose tables and pictures are not."""


class Model(StrEnum):
    """The regression of a variant."""

    LINEAR = "linear"
    MIXED = "mixed"
    WHOLE_GENOME = "whole-genome"
    LOGISTIC = "logistic"
    WHOLE_GENOME_LOGISTIC = "whole-genome-logistic"


class MissingGenotypes(StrEnum):
    """What becomes of samples without a genotype."""

    MEAN = "mean"
    DROP = "drop"


class Transform(StrEnum):
    """What is done to traits first."""

    NONE = "none"
    RANK = "rank"


class Format(StrEnum):
    """The table of all effects."""

    PARQUET = "parquet"
    TSV = "tsv"
    SSF = "ssf"


Genotypes = Annotated[
    str,
    option(
        "--geno",
        metavar="FILE",
        panel=INPUT,
        help="Genotypes: PLINK .bed, .pgen, .vcf.gz, .bcf, .bgen, VCF-Zarr, or a table.",
    ),
]
Phenotypes = Annotated[
    Path,
    option(
        "--pheno",
        metavar="FILE",
        panel=INPUT,
        help="Traits, one row per sample, a column with their names: .csv, .tsv (also .gz), "
        ".parquet.",
    ),
]
TraitNames = Annotated[
    str | None,
    option(
        "--traits",
        metavar="LIST",
        panel=INPUT,
        show_default="all columns",
        help="Traits to scan, separated by commas.",
    ),
]
Covariates = Annotated[
    Path | None,
    option(
        "--covar",
        metavar="FILE",
        panel=INPUT,
        help="Covariates, as the traits; text becomes groups.",
    ),
]
CovariateNames = Annotated[
    str | None,
    option(
        "--covariates",
        metavar="LIST",
        panel=INPUT,
        show_default="all columns",
        help="Covariates to use, separated by commas.",
    ),
]
Categorical = Annotated[
    str | None,
    option(
        "--categorical",
        metavar="LIST",
        panel=INPUT,
        help="Covariates whose numbers are names of groups.",
    ),
]
DropMissing = Annotated[
    bool,
    option(
        "--drop-missing-covariates",
        panel=INPUT,
        help="Leave samples with a missing covariate out.",
    ),
]
Components = Annotated[
    int,
    option(
        "--pcs",
        metavar="K",
        panel=INPUT,
        help="Principal components of the genotypes to add to the covariates.",
    ),
]
ModelOption = Annotated[
    Model,
    option(
        "--model",
        panel=MODEL,
        help="mixed and, for many samples, whole-genome allow for relatedness and structure; the "
        "logistic models are for cases and controls.",
    ),
]
Loco = Annotated[
    bool | None,
    option(
        "--loco/--no-loco",
        panel=MODEL,
        show_default="with two chromosomes or more",
        help="Mixed: leave the chromosome of a variant out of the relationships.",
    ),
]
MissingOption = Annotated[
    MissingGenotypes,
    option(
        "--missing",
        panel=MODEL,
        help="Missing genotypes: the mean of the variant, or drop those samples for it.",
    ),
]
TransformOption = Annotated[
    Transform,
    option("--transform", panel=MODEL, help="rank: traits become normal scores of ranks."),
]
MinCallRate = Annotated[
    float,
    option("--min-call-rate", panel=MODEL, help="Smallest share of samples with a genotype."),
]
MinMac = Annotated[
    int,
    option("--min-mac", panel=MODEL, help="Fewest copies of the rarer allele, per trait."),
]
MinMaf = Annotated[
    float, option("--min-maf", panel=MODEL, help="Smallest frequency of the rarer allele.")
]
MinInfo = Annotated[
    float,
    option("--min-info", panel=MODEL, help="Smallest imputation quality of dosages (MaCH r2)."),
]


def scan(
    geno: Genotypes,
    pheno: Phenotypes,
    out: Annotated[
        Path,
        option(
            "--out",
            metavar="FOLDER",
            panel=OUTPUT,
            help="Folder to write to. The same command goes on with a scan that was killed.",
        ),
    ],
    traits: TraitNames = None,
    covar: Covariates = None,
    covariates: CovariateNames = None,
    categorical: Categorical = None,
    drop_missing_covariates: DropMissing = False,
    pcs: Components = 0,
    model: ModelOption = Model.LINEAR,
    loco: Loco = None,
    missing: MissingOption = MissingGenotypes.MEAN,
    transform: TransformOption = Transform.NONE,
    min_call_rate: MinCallRate = 0.95,
    min_mac: MinMac = 20,
    min_maf: MinMaf = 0.0,
    min_info: MinInfo = 0.0,
    seed: options.Seed = 1,
    table: Annotated[
        Format,
        option(
            "--format",
            panel=OUTPUT,
            help="Table of all effects: parquet; tsv (.tsv.gz); ssf, a GWAS-SSF file per trait.",
        ),
    ] = Format.PARQUET,
    metadata: Annotated[
        Path | None,
        option("--metadata", metavar="FILE", panel=OUTPUT, help="Metadata of GWAS-SSF (YAML)."),
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Regress every trait on every variant, and write effects, errors, p-values and pictures."""
    from plait.cli.mash_show import check_folder

    was_killed = (out / UNFINISHED).exists()
    check_folder(out, () if was_killed else FILES, overwrite)
    if table is Format.SSF and metadata is None:
        raise OptionError("--format ssf needs --metadata FILE (YAML): what traits and samples are.")
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait import gwas
        from plait.data.fingerprints import study_fingerprints
        from plait.studies.stages import Stages

        genotypes, phenotypes, others = read_study(
            geno, pheno, traits, covar, covariates, categorical, drop_missing_covariates, pcs
        )
        say(quiet, f"{genotypes.n_variants:,} variants x {len(phenotypes.names)} traits")
        counts = {"genotypes": genotypes.n_samples, "traits": len(phenotypes.samples)}
        if others is not None:
            counts["covariates"] = len(others.samples)
        say(quiet, "samples with " + ", ".join(f"{what}: {n:,}" for what, n in counts.items()))
        announce_compilation(quiet)
        out.mkdir(exist_ok=True)
        chosen: dict[str, Any] = {
            "model": str(model),
            "loco": loco,
            "missing_genotypes": str(missing),
            "transform": str(transform),
            "seed": seed,
        }
        rules = gwas.VariantFilter(min_call_rate, min_mac, min_maf or None, min_info or None)
        inputs = study_fingerprints(genotypes, phenotypes, others)
        stages = Stages(out, inputs, lambda *_: None, UNFINISHED)

        def run() -> None:
            gwas.scan(
                genotypes, phenotypes, others, **chosen, variant_filter=rules,
                out=out / STORE, overwrite=True, **workers,
            )  # fmt: skip

        stages.run("scan", "", run, (STORE,), chosen | asdict(rules))
        result = gwas.AssociationResult.open(out / STORE)
        written = write_scan(result, out, str(table), metadata)
        (out / UNFINISHED).unlink()
        for line in result.summary().splitlines():
            say(quiet, line)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in written))
    if len(result.traits) > 1:
        say(quiet, "next: what the traits share: plait gwas-to-mash, with the same inputs")


def read_study(
    geno: str,
    pheno: Path,
    traits: str | None,
    covar: Path | None,
    covariates: str | None,
    categorical: str | None,
    drop_missing_covariates: bool,
    pcs: int,
) -> tuple[Any, Any, Any]:
    """Return genotypes, traits and covariates (complete, or None)."""
    from plait.io import open_genotypes, read_covariates, read_phenotypes

    genotypes = open_genotypes(geno)
    table = read_phenotypes(pheno, _names(traits))
    others = None
    if covar is not None:
        others = read_covariates(covar, _names(covariates), _names(categorical) or ())
        if drop_missing_covariates:
            others = others.complete()
    if pcs:
        from plait.gwas import principal_components

        others = principal_components(genotypes, pcs).to_covariates(others)
    return genotypes, table, others


def write_scan(
    result: "AssociationResult", out: Path, table: str, metadata: Path | None
) -> list[str]:
    """Write what a scan found into its folder, beside the store; return the names of the files."""
    from importlib.util import find_spec

    import polars as pl

    from plait.io import replace_file

    written = [STORE]
    written += _write_tables(result, out, table, metadata)
    result.write_effects(out / "effects.zarr", overwrite=True)
    correlation = pl.DataFrame(
        {"trait": list(result.traits)} | dict(zip(result.traits, result.V0.T, strict=True))
    )
    write_table(out / "error_correlation.csv", correlation, overwrite=True)
    written += ["effects.zarr", "error_correlation.csv"]
    if find_spec("matplotlib") is not None:
        from plait import gwas
        from plait.cli.mash_show import use_no_window
        from plait.plot import save_figure

        use_no_window()
        for name, draw in (("manhattan.png", gwas.plot_manhattan), ("qq.png", gwas.plot_qq)):
            save_figure(draw(result, caption=True), out / name, overwrite=True)
            written.append(name)
    about = {} if result.provenance is None else result.provenance.to_dict()
    with replace_file(out / RECORD, overwrite=True) as temporary:
        temporary.write_text(json.dumps(about | {"filtered": result.filtered}, indent=2) + "\n")
    return [*written, RECORD]


def _write_tables(
    result: "AssociationResult", out: Path, table: str, metadata: Path | None
) -> list[str]:
    """Write all effects as a table, or one for each trait."""
    if table == "parquet":
        result.write_parquet(out / "associations.parquet", overwrite=True)
        return ["associations.parquet"]
    if table == "tsv":
        result.write_tsv(out / "associations.tsv.gz", overwrite=True)
        return ["associations.tsv.gz"]
    from plait.io.gwas_ssf import write_gwas_ssf
    from plait.io.metadata_yaml import read_yaml

    described = (
        {} if metadata is None else read_yaml(metadata.read_text(encoding="utf-8"), str(metadata))
    )
    for trait in result.traits:
        name = f"{trait}.tsv.gz"
        write_gwas_ssf(result.to_summary_statistics(trait), out / name, described, overwrite=True)
    return [f"{trait}.tsv.gz" for trait in result.traits]


def _names(text: str | None) -> list[str] | None:
    return None if text is None else [name.strip() for name in text.split(",") if name.strip()]


app = typer.Typer(
    help="From genotypes and phenotypes to effects.",
    epilog=f"Docs: {DOCS}",
    rich_markup_mode="rich",
    invoke_without_command=True,
)


@app.callback()
def about(context: typer.Context) -> None:
    """Go from genotypes and phenotypes to effects."""
    if context.invoked_subcommand is None:
        print(context.get_help())


documented(app, "scan", scan, EXAMPLE, DOCS)
