"""``plait gwas-to-mash``: from genotypes and phenotypes to what traits share, in one command."""

from pathlib import Path
from typing import Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.gwas import (
    Categorical,
    Components,
    CovariateNames,
    Covariates,
    DropMissing,
    Genotypes,
    Loco,
    MinCallRate,
    MinInfo,
    MinMac,
    MinMaf,
    MissingGenotypes,
    MissingOption,
    Model,
    ModelOption,
    Phenotypes,
    TraitNames,
    Transform,
    TransformOption,
    read_study,
)
from plait.cli.options import MODEL, OUTPUT

DOCS = "docs/gwas.md"
OUTPUTS = ("result.zarr", "associations.parquet", "manhattan.png", "qq.png", "report.html")
EXAMPLE = (
    "plait gwas-to-mash --geno demo/genotypes.bed --pheno demo/traits.csv --covar "
    "demo/covariates.csv --out my_study"
)


def gwas_to_mash(
    geno: Genotypes,
    pheno: Phenotypes,
    out: Annotated[
        Path,
        typer.Option(
            "--out",
            metavar="FOLDER",
            rich_help_panel=OUTPUT,
            help="Folder to write to. The same command goes on from the last finished stage.",
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
    strong_p: Annotated[
        float,
        typer.Option(
            "--strong-p",
            rich_help_panel=MODEL,
            help="Patterns are learned from variants with a p-value below this in some trait, one "
            "per signal.",
        ),
    ] = 1e-4,
    random_size: Annotated[
        int,
        typer.Option(
            "--random-size",
            rich_help_panel=MODEL,
            help="Weights are fitted on at most this many variants, thinned by linkage.",
        ),
    ] = 20_000,
    seed: options.Seed = 1,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Scan every trait, learn what the traits share, and say what each variant does in each."""
    from importlib.util import find_spec

    from plait.cli.mash_show import check_folder

    # What stands in the folder of a study is its own; in any other it would be lost.
    if not (out / "stages.json").exists():
        check_folder(out, OUTPUTS, overwrite=False)
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait.gwas import AssociationResult
        from plait.mash import get_pairwise_sharing
        from plait.studies import StudySettings
        from plait.studies import gwas_to_mash as study

        genotypes, table, others = read_study(
            geno, pheno, traits, covar, covariates, categorical, drop_missing_covariates, pcs
        )
        announce_compilation(quiet)
        result = study(
            genotypes,
            table,
            others,
            out,
            StudySettings(
                model=str(model),
                loco=loco,
                missing_genotypes=str(missing),
                transform=str(transform),
                min_call_rate=min_call_rate,
                min_minor_count=min_mac,
                min_frequency=min_maf or None,
                min_info=min_info or None,
                strong_p=strong_p,
                random_size=random_size,
                seed=seed,
            ),
            with_report=find_spec("plotly") is not None and find_spec("jinja2") is not None,
            with_figures=find_spec("matplotlib") is not None,
            tell=teller(quiet),
            **workers,
        )
        say(quiet, "")
        scanned = AssociationResult.open(out / "associations.zarr")
        for line in (*scanned.summary().splitlines(), *result.summary().splitlines()):
            say(quiet, line)
        names = result.condition_names or ()
        sharing = get_pairwise_sharing(result)
        width = max((len(name) for name in names), default=0)
        say(quiet, "sharing (same sign, within a factor of 2):")
        for i, name in enumerate(names):
            cells = "  ".join(f"{value:.2f}" for value in sharing[i])
            say(quiet, f"  {name:<{width}}  {cells}")
    made = [name for name in OUTPUTS if (out / name).exists()]
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in made))


def teller(quiet: bool) -> Any:
    """Return what tells a person that a stage is over."""

    def tell(name: str, what: str, seconds: float | None) -> None:
        took = "   kept" if seconds is None else f"{seconds:5.1f} s"
        say(quiet, f"{name:<8} {what:<52} {took}")

    return tell
