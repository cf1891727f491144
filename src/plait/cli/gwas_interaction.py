"""``plait gwas interaction``: whether effects change with an environment."""

from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session, workers_of
from plait.cli.genotype_choice import (
    Choice,
    Dosage,
    DosageOption,
    ExcludeSamples,
    ExcludeVariants,
    KeepSamples,
    KeepVariants,
    MapFile,
)
from plait.cli.gwas import (
    COMPONENTS,
    KeptComponents,
    draw_scan,
    finish,
    read_study,
    record_scan,
    say_rows,
    say_study,
    variant_filter,
    with_components,
)
from plait.cli.gwas_options import (
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
    OutFolder,
    Phenotypes,
    TraitNames,
    Transform,
    TransformOption,
)
from plait.cli.inputs import split_list
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import check_folder
from plait.cli.records import RECORD
from plait.errors import OptionError

if TYPE_CHECKING:
    from plait.data.phenotypes import SampleTable
    from plait.gwas import EnvironmentsResult, InteractionResult, VariantFilter

    Found: TypeAlias = InteractionResult | EnvironmentsResult

STORE = "interactions.zarr"
UNFINISHED = ".interaction.json"
"""Tells a folder whose scan is done and whose table and pictures are not."""
EXAMPLE = (
    "plait gwas interaction --geno demo/genotypes.bed --pheno demo/traits.csv --covar "
    "demo/covariates.csv --environment age --robust --out interactions"
)


class Format(StrEnum):
    """The table of all effects."""

    PARQUET = "parquet"
    TSV = "tsv"


TABLES = {Format.PARQUET: "interactions.parquet", Format.TSV: "interactions.tsv.gz"}
FILES = (STORE, *TABLES.values(), RECORD)


def interaction(
    geno: Genotypes,
    pheno: Phenotypes,
    covar: Annotated[
        Path,
        option(
            "--covar",
            metavar="FILE",
            panel=INPUT,
            help="Covariates, as the traits; the environments are some of them.",
        ),
    ],
    environment: Annotated[
        str,
        option(
            "--environment",
            metavar="LIST",
            panel=INPUT,
            help="Columns of the environments: numbers, or text (groups); several are tested "
            "together.",
        ),
    ],
    out: OutFolder,
    traits: TraitNames = None,
    covariates: CovariateNames = None,
    categorical: Categorical = None,
    drop_missing_covariates: DropMissing = False,
    pcs: Components = 0,
    keep_samples: KeepSamples = None,
    exclude_samples: ExcludeSamples = None,
    keep_variants: KeepVariants = None,
    exclude_variants: ExcludeVariants = None,
    map: MapFile = None,
    dosage: DosageOption = Dosage.AUTO,
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
    at: Annotated[
        str | None,
        option(
            "--at",
            metavar="LIST",
            panel=OUTPUT,
            help="Values of one environment at which the table tells the effect, too: 10,20.",
        ),
    ] = None,
    table: Annotated[
        Format, option("--format", panel=OUTPUT, help="Table of all effects; tsv is .tsv.gz.")
    ] = Format.PARQUET,
    p_threshold: Annotated[
        float | None,
        option(
            "--p-threshold",
            metavar="P",
            panel=OUTPUT,
            show_default="all variants",
            help="Variants in the table: those with p <= P of the interaction for some trait. The "
            "store, lambda and pictures have all.",
        ),
    ] = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Test for every variant and trait whether the effect changes with the environment."""
    from plait.gwas.variant_tables import check_p_threshold

    check_folder(out, FILES, overwrite, UNFINISHED)
    check_p_threshold(p_threshold)
    places = _environments(at)
    chosen: dict[str, Any] = {"robust": robust, "transform": str(transform)}
    with session(threads, quiet, debug, log_json), workers_of(dask, memory, threads) as workers:
        from plait.gwas.interaction import environment_among

        named = split_list(environment) or []
        wanted = None
        if covariates is not None:
            wanted = ",".join(dict.fromkeys([*(split_list(covariates) or ()), *named]))
        choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map, dosage)
        rules = variant_filter(min_call_rate, min_mac, min_maf, min_info)
        study = read_study(
            geno, choice, pheno, traits, covar, wanted, categorical, drop_missing_covariates
        )
        alone = environment_among(study[2], named)
        if places and len(alone.names) > 1:
            raise OptionError(
                f"--at is for one environment; there are {len(alone.names)} ("
                f"{', '.join(alone.names)}). The table tells the effect in each group; in Python "
                "effects_at gives those at chosen values of several environments."
            )
        keep = KeptComponents(out, COMPONENTS, UNFINISHED)
        study = with_components(study, pcs, geno, choice, workers["memory"], keep)
        say_study(quiet, *study, are_named=traits is not None)
        announce_compilation(quiet)
        found = _scan_into(out, study, alone, chosen, rules, workers)
        found.require_tests()
        name = _write_table(found, out, table, places, p_threshold)
        written = (STORE, name, *draw_scan(found, out), RECORD)
        for line in [*found.summary().splitlines(), *interaction_attention(found)]:
            say(quiet, line)
        rows = say_rows(quiet, found, p_threshold)
    record_scan(out / RECORD, found, rows)
    finish(out, UNFINISHED)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in written))


def interaction_attention(found: "Found") -> list[str]:
    """Return the line that says why not to trust the p-values of interactions; or none."""
    from plait.report.scan import interaction_warning

    warning = interaction_warning(found)
    return [f"attention: {warning}"] if warning else []


def _scan_into(
    out: Path,
    study: tuple[Any, Any, Any],
    environment: "SampleTable",
    chosen: dict[str, Any],
    rules: "VariantFilter",
    workers: dict[str, Any],
) -> "Found":
    """Scan into the store of a folder, or open the store where the same scan was done already."""
    from plait import gwas
    from plait.data.fingerprints import study_fingerprints
    from plait.io.folders import made_folder
    from plait.studies.stages import Stages

    genotypes, phenotypes, others = study

    def run() -> None:
        gwas.scan_interaction(
            genotypes, phenotypes, environment, others, variant_filter=rules, **chosen,
            out=out / STORE, overwrite=True, **workers,
        )  # fmt: skip

    stages = Stages(out, study_fingerprints(*study), lambda *_: None, UNFINISHED)
    options = {"environment": ", ".join(environment.names), **chosen, **asdict(rules)}
    with made_folder(out):
        stages.run("interaction", "", run, (STORE,), options)
    kind = gwas.InteractionResult if len(environment.names) == 1 else gwas.EnvironmentsResult
    return kind.open(out / STORE)


def _write_table(
    found: "Found",
    out: Path,
    table: Format,
    environments: list[float],
    p_threshold: float | None,
) -> str:
    """Write the effects in one format, and remove the table of an earlier scan in the other."""
    write = {Format.PARQUET: found.write_parquet, Format.TSV: found.write_tsv}[table]
    more: dict[str, Any] = {"environments": environments} if environments else {}
    write(out / TABLES[table], overwrite=True, p_threshold=p_threshold, **more)
    for other in set(Format) - {table}:
        (out / TABLES[other]).unlink(missing_ok=True)
    return TABLES[table]


def _environments(at: str | None) -> list[float]:
    from plait.gwas.interaction_results import checked_environments

    try:
        values = [float(text) for text in split_list(at) or []]
    except ValueError:
        raise OptionError(f"--at {at!r} is not a list of numbers, such as 10,20.") from None
    return checked_environments(values)


def register(app: typer.Typer) -> None:
    """Add the command to those of ``plait gwas``."""
    documented(app, "interaction", interaction, EXAMPLE, DOCS)
