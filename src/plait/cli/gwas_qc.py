"""``plait gwas qc``: what the genotypes are like, and which of them are good enough to use."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from plait.cli import options
from plait.cli.console import announce_compilation, say, session
from plait.cli.genotype_choice import (
    Choice,
    ExcludeSamples,
    ExcludeVariants,
    KeepSamples,
    KeepVariants,
    MapFile,
    open_chosen,
)
from plait.cli.gwas_options import DOCS, Genotypes, MinCallRate, MinMaf
from plait.cli.inputs import refuse_idle
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import check_folder, write_table
from plait.cli.records import RECORD, write_record
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    from plait.gwas import CheckedGenotypes

EXAMPLE = "plait gwas qc --geno demo/genotypes.bed --out checked"
TABLES = ("variants.parquet", "samples.csv")
LISTS = ("kept_variants.txt", "kept_samples.txt")


class SexesOnX(StrEnum):
    """Who is tested for Hardy-Weinberg proportions on chromosome X."""

    FEMALES = "females"
    BOTH = "both"


class SexChromosomes(StrEnum):
    """What chromosomes 23 to 26 are."""

    AUTO = "auto"
    HUMAN = "human"
    NONE = "none"


class Population(StrEnum):
    """Whether Hardy-Weinberg proportions can be asked for."""

    UNKNOWN = "unknown"
    OUTBRED = "outbred"


def qc(
    geno: Genotypes,
    out: Annotated[
        Path,
        option(
            "--out",
            metavar="FOLDER",
            panel=OUTPUT,
            help="Folder to write tables, lists of what is kept, and run.json to.",
        ),
    ],
    keep_samples: KeepSamples = None,
    exclude_samples: ExcludeSamples = None,
    keep_variants: KeepVariants = None,
    exclude_variants: ExcludeVariants = None,
    map: MapFile = None,
    pheno: Annotated[
        Path | None,
        option(
            "--pheno",
            metavar="FILE",
            panel=INPUT,
            help="Cases and controls: Hardy-Weinberg is tested in the controls.",
        ),
    ] = None,
    trait: Annotated[
        str | None,
        option(
            "--trait",
            metavar="NAME",
            panel=INPUT,
            show_default="the only one",
            help="The trait of --pheno that tells cases from controls.",
        ),
    ] = None,
    min_call_rate: MinCallRate = 0.95,
    min_sample_call_rate: Annotated[
        float,
        option(
            "--min-sample-call-rate",
            panel=MODEL,
            help="Smallest share of the variants with a genotype, for a sample to be kept.",
        ),
    ] = 0.90,
    min_mac: Annotated[
        int,
        option(
            "--min-mac",
            panel=MODEL,
            help="Fewest copies of the rarer allele; scans ask for 20 of the samples of a trait.",
        ),
    ] = 0,
    min_maf: MinMaf = 0.0,
    population: Annotated[
        Population,
        option(
            "--population",
            panel=MODEL,
            help="outbred: mating is at random, and variants that violate Hardy-Weinberg "
            "proportions are removed.",
        ),
    ] = Population.UNKNOWN,
    min_hwe_p: Annotated[
        float,
        option("--min-hwe-p", panel=MODEL, help="Smallest p-value of Hardy-Weinberg proportions."),
    ] = 1e-6,
    hwe_x: Annotated[
        SexesOnX,
        option(
            "--hwe-x",
            panel=MODEL,
            help="Hardy-Weinberg on chromosome X: in females, or in both sexes together, which "
            "also finds alleles that are not as frequent in males.",
        ),
    ] = SexesOnX.FEMALES,
    sex_chromosomes: Annotated[
        SexChromosomes,
        option(
            "--sex-chromosomes",
            panel=MODEL,
            help="What chromosomes 23 to 26 are. human: X, Y, XY and MT, as PLINK numbers them; "
            "none: autosomes; auto: human if females are heterozygous on 23 and males are not.",
        ),
    ] = SexChromosomes.AUTO,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Count genotypes, and say which variants and samples are good enough to use."""
    refuse_idle(
        ("pheno", "trait", "min_hwe_p"),
        population is not Population.OUTBRED,
        "without --population outbred",
    )
    refuse_idle(("trait",), pheno is None, "without --pheno FILE")
    check_folder(out, (*TABLES, *LISTS, RECORD), overwrite)
    choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map)
    with session(threads, quiet, debug):
        from plait.gwas import QualityControl, quality_control

        rules = QualityControl(
            min_call_rate, min_sample_call_rate, min_mac or None, min_maf or None,
            min_hwe_p, str(population),
        )  # fmt: skip
        genotypes = open_chosen(geno, choice, hard_calls=True)
        controls = None if pheno is None else _controls(pheno, trait, set(genotypes.samples))
        announce_compilation(quiet)
        found = quality_control(
            genotypes,
            rules,
            controls=controls,
            hardy_weinberg_x=str(hwe_x),
            sex_chromosomes=str(sex_chromosomes),
        )
        out.mkdir(exist_ok=True)
        _write(out, found, overwrite)
    kept = {"variants": found.kept_variants, "samples": found.kept_samples}
    removed = {"variants": found.removed_variants, "samples": found.removed_samples}
    write_record(
        out / RECORD,
        {"samples": genotypes.n_samples, "variants": genotypes.n_variants},
        removed={
            what: {r: int(f.sum()) for r, f in rules.items()} for what, rules in removed.items()
        },
        kept={what: int(flags.sum()) for what, flags in kept.items()},
    )
    for line in found.summary().splitlines():
        say(quiet, line)
    say(quiet, "written: " + " · ".join(f"{out}/{name}" for name in (*TABLES, *LISTS, RECORD)))
    if not all(flags.all() for flags in kept.values()):
        lists = f"--keep-variants {out}/{LISTS[0]} --keep-samples {out}/{LISTS[1]}"
        say(quiet, f"next: plait gwas scan --geno {geno} {lists}, with traits and covariates")


def _controls(pheno: Path, trait: str | None, genotyped: set[str]) -> list[str]:
    """Return the samples that are controls of the trait."""
    import numpy as np

    from plait.gwas.binary import binary_traits, cases_and_controls
    from plait.io import read_phenotypes

    table = read_phenotypes(pheno, None if trait is None else [trait])
    if len(table.names) > 1:
        raise OptionError(
            f"{pheno} has {len(table.names)} traits ({', '.join(table.names[:5])}); say which one "
            "tells cases from controls: --trait NAME."
        )
    if not binary_traits(table):
        raise InputError(
            f"{pheno}: {table.names[0]} is not written 0 and 1, or 1 and 2: it does not tell cases "
            "from controls."
        )
    values = cases_and_controls(table).values[:, 0]
    controls = [str(name) for name in np.asarray(table.samples)[values == 0] if name in genotyped]
    if not controls:
        raise InputError(f"no control of {table.names[0]!r} in {pheno} has genotypes.")
    return controls


def _write(out: Path, found: "CheckedGenotypes", overwrite: bool) -> None:
    from plait.io import replace_file

    for name, table in zip(TABLES, (found.variant_table(), found.sample_table()), strict=True):
        write_table(out / name, table, overwrite)
    lists = found.kept_variant_names(), found.quality.samples[found.kept_samples].tolist()
    for name, names in zip(LISTS, lists, strict=True):
        with replace_file(out / name, overwrite) as temporary:
            temporary.write_text("".join(f"{item}\n" for item in names), encoding="utf-8")


def register(app: typer.Typer) -> None:
    """Add the command to those of ``plait gwas``."""
    documented(app, "qc", qc, EXAMPLE, DOCS)
