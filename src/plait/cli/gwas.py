"""``plait gwas``: from genotypes and phenotypes to effects."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

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
    open_chosen,
)
from plait.cli.gwas_options import (
    DOCS,
    Categorical,
    Components,
    CovariateNames,
    Covariates,
    DropMissing,
    Format,
    Genotypes,
    Loco,
    Metadata,
    MinCallRate,
    MinInfo,
    MinMac,
    MinMaf,
    MissingGenotypes,
    MissingOption,
    Model,
    ModelOption,
    OutFolder,
    Phenotypes,
    PThreshold,
    RelationshipFiles,
    TableFormat,
    Test,
    TestOption,
    TraitNames,
    Transform,
    TransformOption,
)
from plait.cli.inputs import refuse_idle, split_list
from plait.cli.options import command_group, documented
from plait.cli.outputs import check_folder, use_no_window, write_table
from plait.cli.records import RECORD, write_record
from plait.data.words import counted, listed
from plait.errors import OptionError

if TYPE_CHECKING:
    from plait.gwas import AssociationResult, VariantFilter
    from plait.gwas.variant_results import VariantResult

EXAMPLE = (
    "plait gwas scan --geno demo/genotypes.bed --pheno demo/traits.csv --covar "
    "demo/covariates.csv --out scanned"
)
STORE = "associations.zarr"
FILES = (STORE, "effects.zarr", RECORD)
PICTURES = ("manhattan.png", "qq.png")
UNFINISHED = ".scan.json"
"""Tells a folder whose scan is done and whose tables and pictures are not."""
_LISTED = 6
"""Traits that are named before a scan."""
COMPONENTS = ".components.zarr"
"""The principal components of a scan that is not finished yet."""


def scan(
    geno: Genotypes,
    pheno: Phenotypes,
    out: OutFolder,
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
    relationships: RelationshipFiles = None,
    test: TestOption = Test.WALD,
    missing: MissingOption = MissingGenotypes.MEAN,
    transform: TransformOption = Transform.NONE,
    min_call_rate: MinCallRate = 0.95,
    min_mac: MinMac = 20,
    min_maf: MinMaf = 0.0,
    min_info: MinInfo = 0.0,
    seed: options.Seed = 1,
    table: TableFormat = Format.PARQUET,
    p_threshold: PThreshold = None,
    metadata: Metadata = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    dask: options.Dask = None,
    log_json: options.LogJson = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Regress every trait on every variant, and write effects, errors, p-values and pictures."""
    described = _check_outputs(out, table, p_threshold, metadata, overwrite)
    chosen: dict[str, Any] = {
        "model": str(model),
        "loco": loco,
        "test": str(test),
        "missing_genotypes": str(missing),
        "transform": str(transform),
        "seed": seed,
    }
    with session(threads, quiet, debug, log_json), workers_of(dask, memory, threads) as workers:
        from plait.gwas.model import check_options

        given = relationships is not None
        options_of_model = str(model), loco, str(missing), str(transform), str(test)
        check_options(*options_of_model, has_relationships=given)
        if relationships is not None:
            from plait.gwas.given_relationships import opened_relationships

            chosen["relationships"] = opened_relationships(relationships)
        rules = variant_filter(min_call_rate, min_mac, min_maf, min_info)
        choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map, dosage)
        study = read_study(
            geno, choice, pheno, traits, covar, covariates, categorical, drop_missing_covariates
        )
        if described is not None:
            from plait.gwas.association_tables import check_ssf

            check_ssf(study[1].names, described, study[0].variants, str(metadata))
        keep = KeptComponents(out, COMPONENTS, UNFINISHED)
        study = with_components(study, pcs, geno, choice, workers["memory"], keep, str(model))
        say_study(quiet, *study, are_named=traits is not None)
        announce_compilation(quiet)
        result = _scan_into(out, study, chosen, rules, workers)
        del study  # its table of variants takes tens of MB, and the store has them
        written = write_scan(result, out, str(table), described, p_threshold)
        attention = untested_attention(result) + scan_attention(result)
        for line in [*result.summary().splitlines(), *attention]:
            say(quiet, line)
        rows = say_rows(quiet, result, p_threshold)
    record_scan(out / RECORD, result, rows)
    finish(out, UNFINISHED)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in (*written, RECORD)))
    if len(result.traits) > 1:
        say(quiet, "next: what the traits share: plait gwas-to-mash, with the same inputs")


def _check_outputs(
    out: Path, table: Format, p_threshold: float | None, metadata: Path | None, overwrite: bool
) -> dict[str, Any] | None:
    """Refuse what cannot be written, before the work starts; return the metadata."""
    from plait.gwas.association_tables import check_threshold
    from plait.io.metadata_yaml import read_yaml_file

    check_folder(out, FILES, overwrite, UNFINISHED)
    check_threshold(str(table), p_threshold)
    refuse_idle(("metadata",), table is not Format.SSF, "without --format ssf")
    if table is Format.SSF and metadata is None:
        raise OptionError("--format ssf needs --metadata FILE (YAML): what traits and samples are.")
    return None if metadata is None else read_yaml_file(metadata)


def say_study(quiet: bool, genotypes: Any, phenotypes: Any, others: Any, are_named: bool) -> None:
    """Say how much is scanned; and which columns are traits, where nobody named them."""
    names = phenotypes.names
    traits = counted(len(names), "trait")
    if not are_named:
        listed = ", ".join(names[:_LISTED]) + (", ..." if len(names) > _LISTED else "")
        traits += f": {listed}"
        traits += " (all columns; --traits chooses among them)" if len(names) > 1 else ""
    say(quiet, f"{counted(genotypes.n_variants, 'variant')} x {traits}")
    counts = {"genotypes": genotypes.n_samples, "traits": len(phenotypes.samples)}
    if others is not None:
        counts["covariates"] = len(others.samples)
    say(quiet, "samples with " + ", ".join(f"{what}: {n:,}" for what, n in counts.items()))


def scan_attention(result: "AssociationResult") -> list[str]:
    """Return the line that says why not to trust the p-values of a scan; none where one may."""
    from plait.report.scan import scan_warning

    warning = scan_warning(result)
    return [f"attention: {warning}"] if warning else []


def untested_attention(result: "AssociationResult") -> list[str]:
    """Return the line that names traits without any test; none where all have some."""
    from plait.studies.trait_checks import traits_without_tests

    names = listed([repr(name) for name in traits_without_tests(result)])
    return [f"attention: no variant was tested for {names}; see tests left out"] if names else []


def say_rows(
    quiet: bool, result: "VariantResult", p_threshold: float | None
) -> dict[str, dict[str, int]]:
    """Say how many of the variants are in the table, and return it to be recorded.

    Nothing is said where all of them are.
    """
    if p_threshold is None:
        return {}
    kept, total = result.n_within(p_threshold), len(result.n)
    limit = f"{p_threshold:g}".replace("e-0", "e-")
    limit += " for some trait" if len(result.traits) > 1 else ""
    say(
        quiet,
        f"table: {kept:,} of {counted(total, 'variant')}, those with p <= {limit}; "
        f"{result.folder_store} has all",
    )
    return {"table_rows": {"kept": kept, "of": total}}


def _scan_into(
    out: Path,
    study: tuple[Any, Any, Any],
    chosen: dict[str, Any],
    rules: "VariantFilter",
    workers: dict[str, Any],
) -> "AssociationResult":
    """Scan into the store of a folder, or open the store where the same scan was done already."""
    from plait import gwas
    from plait.data.fingerprints import study_fingerprints
    from plait.io.folders import made_folder
    from plait.provenance import fingerprint
    from plait.studies.stages import Stages

    genotypes, phenotypes, others = study

    def run() -> None:
        gwas.scan(
            genotypes, phenotypes, others, variant_filter=rules, **chosen,
            out=out / STORE, overwrite=True, **workers,
        )  # fmt: skip

    inputs = study_fingerprints(*study)
    if (given := chosen.get("relationships")) is not None:
        inputs["relationships"] = fingerprint(given.matrix)
        inputs["samples of relationships"] = fingerprint(given.samples)
    options = {name: value for name, value in chosen.items() if name != "relationships"}
    stages = Stages(out, inputs, lambda *_: None, UNFINISHED)
    with made_folder(out):
        stages.run("scan", "", run, (STORE,), options | asdict(rules))
    return gwas.AssociationResult.open(out / STORE)


def variant_filter(
    min_call_rate: float, min_mac: int, min_maf: float, min_info: float
) -> "VariantFilter":
    """Return the rules for variants; a smallest frequency or quality of 0 is none."""
    from plait.gwas import VariantFilter

    return VariantFilter(min_call_rate, min_mac, min_maf or None, min_info or None)


def record_scan(
    place: Path, result: "VariantResult", more: Mapping[str, dict[str, int]] | None = None
) -> None:
    """Write the record of a command that scanned, with more counts than those of the result."""
    origin = result.provenance
    settings = {} if origin is None else origin.options
    counts = {name: value for name, value in settings.items() if name.startswith("n_")}
    counts |= {"variants": len(result.pos), "traits": len(result.traits)}
    write_record(
        place,
        counts | {"filtered": dict(result.filtered), **(more or {})},
        lambda_gc=dict(zip(result.traits, result.lambda_gc.tolist(), strict=True)),
        covariates=settings.get("covariates"),
        fingerprints={} if origin is None else origin.inputs,
    )


def read_study(
    geno: str,
    choice: Choice,
    pheno: Path,
    traits: str | None,
    covar: Path | None,
    covariates: str | None,
    categorical: str | None,
    drop_missing_covariates: bool,
) -> tuple[Any, Any, Any]:
    """Return genotypes, traits and covariates (complete, or None)."""
    from plait.gwas.inputs import open_study
    from plait.io import read_covariates, read_phenotypes

    about_covariates = ("covariates", "categorical", "drop_missing_covariates")
    refuse_idle(about_covariates, covar is None, "without --covar FILE")
    genotypes = open_chosen(geno, choice)
    table = read_phenotypes(pheno, split_list(traits))
    others = None
    if covar is not None:
        others = read_covariates(covar, split_list(covariates), split_list(categorical) or ())
        if drop_missing_covariates:
            others = others.complete()
    return open_study(genotypes, table, others)


class KeptComponents(NamedTuple):
    """Where a run keeps its principal components, so that it goes on with them when it was killed.

    Attributes
    ----------
    folder : Path
        Of the run; made when there is something to keep.
    store, record : str
        The components, and the stages that are done (`plait.studies.stages`), in the folder.
    tell : callable
        As `plait.studies.stages.Stages` takes it.
    """

    folder: Path
    store: str
    record: str
    tell: Callable[[str, str, float | None], None] = lambda *_: None

    def drop(self) -> None:
        """Remove them after a run without components, of which they are not."""
        from plait.studies.stages import Stages

        Stages(self.folder, {}, self.tell, self.record).drop("pcs", (self.store,))


def with_components(
    study: tuple[Any, Any, Any],
    pcs: int,
    geno: str,
    choice: Choice,
    memory: str | None,
    keep: KeptComponents,
    model: str = "linear",
) -> tuple[Any, Any, Any]:
    """Return genotypes, traits and covariates, principal components among the latter.

    What a scan would refuse is refused first: components of many samples take long.
    """
    if not pcs:
        return study
    from plait.data.fingerprints import study_fingerprints
    from plait.gwas import PrincipalComponents, principal_components
    from plait.gwas.model import checked_samples
    from plait.gwas.structure import check_covariates
    from plait.studies.stages import Stages

    genotypes, table, others = study
    checked_samples(model, genotypes, table, others)
    if others is not None:
        check_covariates(others, genotypes.samples, pcs)
    calls = (
        genotypes if genotypes.kind == "hardcall" else open_chosen(geno, choice, hard_calls=True)
    )
    store = keep.folder / keep.store

    def work() -> None:
        found = principal_components(calls, pcs, memory=memory)
        for folder in (keep.folder, store.parent):
            folder.mkdir(exist_ok=True)
        found.save(store, overwrite=True)

    stages = Stages(keep.folder, study_fingerprints(calls), keep.tell, keep.record)
    stages.run("pcs", f"{counted(pcs, 'principal component')}", work, (keep.store,), {"k": pcs})
    return genotypes, table, PrincipalComponents.load(store).to_covariates(others)


def finish(folder: Path, unfinished: str) -> None:
    """Remove from a folder what was kept in case that the run would be killed."""
    import shutil

    if (folder / COMPONENTS).exists():
        shutil.rmtree(folder / COMPONENTS)
    (folder / unfinished).unlink()


def write_scan(
    result: "AssociationResult",
    out: Path,
    table: str,
    metadata: dict[str, Any] | None,
    p_threshold: float | None,
) -> list[str]:
    """Write what a scan found into its folder, beside the store; return the names of the files."""
    import polars as pl

    from plait.execution.memory import give_back
    from plait.gwas.association_tables import write_tables

    written = [STORE]
    written += write_tables(result, out, table, metadata, p_threshold)
    give_back()
    result.write_effects(out / "effects.zarr", overwrite=True)
    correlation = pl.DataFrame(
        {"trait": list(result.traits)} | dict(zip(result.traits, result.V0.T, strict=True))
    )
    write_table(out / "error_correlation.csv", correlation, overwrite=True)
    give_back()  # what the tables took, before the pictures take theirs
    return [*written, "effects.zarr", "error_correlation.csv", *draw_scan(result, out)]


def draw_scan(result: "VariantResult", out: Path) -> list[str]:
    """Draw what a scan found into its folder, where pictures can be made; return their names."""
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        return []
    from plait import gwas
    from plait.plot import save_figure

    use_no_window()
    for name, draw in zip(PICTURES, (gwas.plot_manhattan, gwas.plot_qq), strict=True):
        save_figure(draw(result, caption=True), out / name, overwrite=True)
    return list(PICTURES)


app = command_group("From genotypes and phenotypes to effects.", DOCS)
documented(app, "scan", scan, EXAMPLE, DOCS)
