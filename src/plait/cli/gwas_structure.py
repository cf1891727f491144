"""``plait gwas kinship`` and ``pca``: how samples are related, before any trait."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

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
from plait.cli.options import INPUT, MODEL, OUTPUT, documented, option
from plait.cli.outputs import TABLES, check_file, write_table
from plait.cli.records import beside, write_record
from plait.data.words import counted


class Relationship(StrEnum):
    """How relationships are scaled."""

    VANRADEN = "vanraden"
    GCTA = "gcta"
    DOMINANCE = "dominance"
    IBS = "ibs"


class Decomposition(StrEnum):
    """How components are computed."""

    AUTO = "auto"
    EXACT = "exact"
    RANDOMISED = "randomised"


def kinship(
    geno: Genotypes,
    out: Annotated[
        str,
        option(
            "--out",
            metavar="PREFIX",
            panel=OUTPUT,
            help="Writes PREFIX.grm.bin, PREFIX.grm.N.bin and PREFIX.grm.id, as GCTA does, and "
            "PREFIX.run.json.",
        ),
    ],
    method: Annotated[
        Relationship,
        option(
            "--method",
            panel=MODEL,
            help="vanraden: a variant counts by its variance; gcta: all variants count alike, for "
            "a pair those that both samples have a genotype of; dominance: deviations of "
            "genotypes from what their copies predict; ibs: the share of alleles in common.",
        ),
    ] = Relationship.VANRADEN,
    min_call_rate: MinCallRate = 0.95,
    min_maf: MinMaf = 0.01,
    keep_samples: KeepSamples = None,
    exclude_samples: ExcludeSamples = None,
    keep_variants: KeepVariants = None,
    exclude_variants: ExcludeVariants = None,
    map: MapFile = None,
    overwrite: options.Overwrite = False,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compute how the samples are related, from all variants."""
    from plait.io.relationship_files import (
        check_relationships_writable,
        relationship_paths,
        write_relationships,
    )

    check_relationships_writable(out, overwrite)
    paths = relationship_paths(out)
    about = beside(str(paths[0]).removesuffix(".grm.bin"))
    with session(threads, quiet, debug):
        import numpy as np

        from plait.gwas import close_relatives, relationship_matrix
        from plait.gwas.relationship_codings import ROWS

        choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map)
        genotypes = open_chosen(geno, choice, hard_calls=True)
        announce_compilation(quiet)
        found = relationship_matrix(
            genotypes,
            str(method),
            min_frequency=min_maf,
            min_call_rate=min_call_rate,
            by_chromosome=False,
            halves=method not in ROWS,
            memory=memory,
        )
        count, matrix = int(found.n_variants.sum()), _with_variants(found, geno)
        write_relationships(
            out,
            matrix,
            found.samples,
            found.pair_counts(),
            getattr(genotypes, "families", None),
            overwrite=overwrite,
        )
        own = np.diagonal(matrix)
        say(
            quiet,
            f"{counted(len(matrix), 'sample')} from {count:,} of "
            f"{counted(genotypes.n_variants, 'variant')}: own relationship {own.mean():.3f} on "
            f"average, {own.min():.3f} to {own.max():.3f}",
        )
        if method not in ROWS:
            say(quiet, close_relatives(found).summary())
    counts = {"samples": len(matrix), "variants": genotypes.n_variants, "variants_used": count}
    write_record(about, counts)
    say(quiet, "written: " + " · ".join(str(path) for path in (*paths, about)))


def pca(
    geno: Genotypes,
    out: Annotated[
        Path,
        option(
            "--out",
            metavar="FILE",
            panel=OUTPUT,
            help="A table for --covar (.csv, .tsv or .parquet); eigenvalues go to .run.json "
            "beside it.",
        ),
    ],
    covar: Annotated[
        Path | None,
        option(
            "--covar",
            metavar="FILE",
            panel=INPUT,
            help="Covariates to put the components beside, in one table.",
        ),
    ] = None,
    k: Annotated[int, option("--components", "-k", panel=MODEL, help="How many.")] = 10,
    method: Annotated[
        Decomposition,
        option("--method", panel=MODEL, help="auto: exact up to 5,000 samples."),
    ] = Decomposition.AUTO,
    r2: Annotated[
        float,
        option(
            "--r2",
            panel=MODEL,
            help="Variants with a larger squared correlation within 1 Mb are thinned; 1: none.",
        ),
    ] = 0.2,
    min_call_rate: MinCallRate = 0.95,
    min_maf: MinMaf = 0.05,
    exclude_region: Annotated[
        list[str] | None,
        option(
            "--exclude-region",
            metavar="REGION",
            panel=MODEL,
            help="Leave out 6:25000000-33500000, or all of X, or long-range linkage of a human "
            "genome: GRCh37, GRCh38. May be given several times.",
        ),
    ] = None,
    keep_samples: KeepSamples = None,
    exclude_samples: ExcludeSamples = None,
    keep_variants: KeepVariants = None,
    exclude_variants: ExcludeVariants = None,
    map: MapFile = None,
    overwrite: options.Overwrite = False,
    seed: options.Seed = 1,
    threads: options.Threads = None,
    memory: options.ScanMemory = None,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compute principal components of the samples, as covariates for a scan."""
    check_file(out, TABLES, overwrite)
    with session(threads, quiet, debug):
        from plait.gwas import principal_components
        from plait.gwas.structure import check_covariates
        from plait.io import read_covariates

        others = None if covar is None else read_covariates(covar)
        choice = Choice(keep_samples, exclude_samples, keep_variants, exclude_variants, map)
        genotypes = open_chosen(geno, choice, hard_calls=True)
        if others is not None:
            check_covariates(others, genotypes.samples, k)
        announce_compilation(quiet)
        found = principal_components(
            genotypes,
            k,
            str(method),
            r2=None if r2 == 1 else r2,
            min_frequency=min_maf,
            min_call_rate=min_call_rate,
            exclude_regions=tuple(exclude_region or ()),
            seed=seed,
            memory=memory,
        )
        table = _covariate_table(found.to_covariates(others))
        write_table(out, table, overwrite)
    write_record(
        beside(out),
        {"samples": table.height, "variants": genotypes.n_variants},
        eigenvalues=found.eigenvalues.tolist(),
        variance_explained=found.variance_explained.tolist(),
        residuals=found.residuals.tolist(),
    )
    for line in found.summary().splitlines():
        say(quiet, line)
    say(quiet, f"written: {out} ({counted(table.height, 'sample')}) · {beside(out)}")
    say(
        quiet, f"next: plait gwas scan --geno {geno} --pheno traits.csv --covar {out} --out scanned"
    )


def _with_variants(found: Any, geno: str) -> Any:
    """Return the matrix of relationships that any variant stands behind."""
    from plait.errors import InputError

    if not found.n_variants.sum():
        raise InputError(
            f"{geno} has no variant that is frequent and called enough: lower --min-maf or "
            "--min-call-rate."
        )
    return found.matrix()


def _covariate_table(covariates: Any) -> Any:
    import polars as pl

    columns = dict(zip(covariates.names, covariates.values.T, strict=True))
    table = pl.DataFrame({"IID": covariates.samples, **columns})
    return table.with_columns(pl.selectors.float().fill_nan(None))


COMMANDS = (
    ("kinship", kinship, "plait gwas kinship --geno demo/genotypes.bed --out related"),
    ("pca", pca, "plait gwas pca --geno demo/genotypes.bed --out pcs.csv -k 10"),
)


def register(app: typer.Typer) -> None:
    """Add the commands to those of ``plait gwas``."""
    for name, function, example in COMMANDS:
        documented(app, name, function, example, DOCS)
