"""``plait gwas-to-mash``: from genotypes and phenotypes to what traits share, in one command."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, clear_bars, say, session, workers_of
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
    KeptComponents,
    read_study,
    record_scan,
    scan_attention,
    variant_filter,
    with_components,
)
from plait.cli.gwas_options import (
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
)
from plait.cli.options import MODEL, OUTPUT
from plait.cli.records import RECORD

if TYPE_CHECKING:
    from plait.mash.results import MashResult

DOCS = "docs/gwas.md"
DRAWN = ("figures/manhattan.png", "figures/qq.png")
MOST_SHOWN = 12
"""Traits whose sharing is shown on the screen."""
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
            help="Folder to write to, new or empty. The same command goes on from the last "
            "finished stage.",
        ),
    ],
    traits: TraitNames = None,
    covar: Covariates = None,
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
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Scan every trait, learn what the traits share, and say what each variant does in each."""
    from importlib.util import find_spec

    from plait.studies.gwas_to_mash import KEPT, OUTPUTS, check_study_folder
    from plait.studies.gwas_to_mash import RECORD as STAGES

    check_study_folder(out, overwrite)
    with (
        session(threads, quiet, debug, log_json),
        workers_of(dask, memory, threads) as workers,
    ):
        from plait.gwas import AssociationResult
        from plait.studies import StudySettings
        from plait.studies import gwas_to_mash as study
        from plait.studies.gwas_to_mash import require_several

        rules = variant_filter(min_call_rate, min_mac, min_maf, min_info)
        settings = StudySettings(
            model=str(model),
            loco=loco,
            missing_genotypes=str(missing),
            transform=str(transform),
            **asdict(rules),
            strong_p=strong_p,
            random_size=random_size,
            seed=seed,
        )
        choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map, dosage)
        inputs = read_study(
            geno, choice, pheno, traits, covar, covariates, categorical, drop_missing_covariates
        )
        require_several(inputs[1])
        keep = KeptComponents(out, f"{KEPT}/components.zarr", STAGES, teller(quiet))
        with stages_alone(log_json):
            genotypes, table, others = with_components(
                inputs, pcs, geno, choice, workers["memory"], keep, str(model)
            )
        announce_compilation(quiet)
        with stages_alone(log_json):
            result = study(
                genotypes,
                table,
                others,
                out,
                settings,
                with_report=find_spec("plotly") is not None and find_spec("jinja2") is not None,
                with_figures=find_spec("matplotlib") is not None,
                overwrite=overwrite,
                tell=teller(quiet),
                **workers,
            )
        if not pcs:
            keep.drop()
        scanned = AssociationResult.open(out)
        found = [*scanned.summary().splitlines(), *result.summary().splitlines()]
        found += sharing_lines(result)
        found += scan_attention(scanned)
    for line in ("", *found):
        say(quiet, line)
    record_scan(out / RECORD, scanned)
    made = [name for name in (*OUTPUTS, *DRAWN, RECORD) if (out / name).exists()]
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in made))


def stages_alone(log_json: bool) -> AbstractContextManager[None]:
    """Keep the progress inside a stage from being told, where each of its lines would stay.

    On a terminal bars show that something moves, and go when the stage is over (see `teller`);
    programs want everything; elsewhere the stages of the road have a line each.
    """
    from plait.execution.progress import listen

    return nullcontext() if log_json or sys.stderr.isatty() else listen(None)


def sharing_lines(result: "MashResult") -> list[str]:
    """Return how much of their effects pairs of traits share, for the screen."""
    import numpy as np

    from plait.mash import get_pairwise_sharing

    names = list(result.condition_names or ())
    if len(names) > MOST_SHOWN:
        return []
    sharing = get_pairwise_sharing(result)
    head = "sharing (same sign, within a factor of 2):"
    if not np.isfinite(sharing).any():
        return [f"{head} no effect is significant"]
    width = max(len(name) for name in names)
    lines = [head]
    for name, row in zip(names, sharing, strict=True):
        cells = "  ".join(f"{value:4.2f}" if np.isfinite(value) else "   -" for value in row)
        lines.append(f"  {name:<{width}}  {cells}")
    if not np.isfinite(sharing).all():
        lines.append("  -: no effect is significant in either trait")
    return lines


def teller(quiet: bool) -> Any:
    """Return what tells a person that a stage is over."""

    def tell(name: str, what: str, seconds: float | None) -> None:
        clear_bars()
        took = "   kept" if seconds is None else f"{seconds:5.1f} s"
        say(quiet, f"{name:<8} {what:<52} {took}")

    return tell
