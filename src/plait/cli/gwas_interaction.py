"""``plait gwas interaction``: whether effects change with an environment."""

import json
from pathlib import Path
from typing import Annotated

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.gwas import (
    DOCS,
    Categorical,
    Components,
    CovariateNames,
    DropMissing,
    Genotypes,
    MinCallRate,
    MinInfo,
    MinMac,
    MinMaf,
    Phenotypes,
    TraitNames,
    Transform,
    TransformOption,
    read_study,
)
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option

FILES = ("interactions.zarr", "interactions.parquet", "run.json")
EXAMPLE = (
    "plait gwas interaction --geno demo/genotypes.bed --pheno demo/traits.csv --covar "
    "demo/covariates.csv --environment age --robust --out interactions"
)


def interaction(
    geno: Genotypes,
    pheno: Phenotypes,
    covar: Annotated[
        Path,
        option(
            "--covar",
            metavar="FILE",
            panel=INPUT,
            help="Covariates, as the traits; the environment is one of them.",
        ),
    ],
    environment: Annotated[
        str,
        option("--environment", metavar="NAME", panel=INPUT, help="Column of the environment."),
    ],
    out: Annotated[
        Path, option("--out", metavar="FOLDER", panel=OUTPUT, help="Folder to write to.")
    ],
    traits: TraitNames = None,
    covariates: CovariateNames = None,
    categorical: Categorical = None,
    drop_missing_covariates: DropMissing = False,
    pcs: Components = 0,
    robust: Annotated[
        bool,
        option(
            "--robust",
            panel=MODEL,
            help="Errors that hold where the variance differs among samples (HC3).",
        ),
    ] = False,
    transform: TransformOption = Transform.NONE,
    min_call_rate: MinCallRate = 0.95,
    min_mac: MinMac = 20,
    min_maf: MinMaf = 0.0,
    min_info: MinInfo = 0.0,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test for every variant and trait whether the effect changes with an environment."""
    from plait.cli.mash_show import check_folder

    check_folder(out, FILES, overwrite)
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait import gwas
        from plait.io import replace_file

        wanted = None if covariates is None else f"{covariates},{environment}"
        genotypes, phenotypes, others = read_study(
            geno, pheno, traits, covar, wanted, categorical, drop_missing_covariates, pcs
        )
        announce_compilation(quiet)
        found = gwas.scan_interaction(
            genotypes,
            phenotypes,
            others.select([environment]),
            others,
            robust=robust,
            transform=str(transform),
            variant_filter=gwas.VariantFilter(
                min_call_rate, min_mac, min_maf or None, min_info or None
            ),
            **workers,
        )
        out.mkdir(exist_ok=True)
        store, table, record = (out / name for name in FILES)
        found.save(store, overwrite)
        with replace_file(table, overwrite) as temporary:
            found.to_table().write_parquet(temporary, compression="zstd")
        about = {} if found.provenance is None else found.provenance.to_dict()
        with replace_file(record, overwrite) as temporary:
            text = json.dumps(about | {"filtered": found.filtered}, indent=2)
            temporary.write_text(text + "\n", encoding="utf-8")
    for line in found.summary().splitlines():
        say(quiet, line)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in FILES))


def register(app: typer.Typer) -> None:
    """Add the command to those of ``plait gwas``."""
    documented(app, "interaction", interaction, EXAMPLE, DOCS)
