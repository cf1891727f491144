"""The options that the commands of ``plait gwas`` share, each with one name and one meaning."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

from plait.cli.options import INPUT, MODEL, OUTPUT, option

DOCS = "docs/gwas.md"


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


class Test(StrEnum):
    """The test of a variant in a mixed model."""

    WALD = "wald"
    LRT = "lrt"
    SCORE = "score"


class Transform(StrEnum):
    """What is done to traits first."""

    NONE = "none"
    RANK = "rank"
    RANK_RESIDUALS = "rank-residuals"


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
        help="Genotypes: PLINK .bed, .pgen, .vcf.gz, .bcf, .bgen, VCF-Zarr, .trees, or a table.",
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
        metavar="MODEL",
        panel=MODEL,
        help="linear: samples are unrelated; mixed and, for many samples, whole-genome: they may "
        "be related and structured; logistic and whole-genome-logistic: of cases and controls.",
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
RelationshipFiles = Annotated[
    str | None,
    option(
        "--relationships",
        metavar="FILE",
        panel=INPUT,
        help="Mixed: how samples are related, instead of by the genotypes (no --loco then): prefix "
        "of .grm.bin and .grm.id, or a square table with names.",
    ),
]
TestOption = Annotated[
    Test,
    option(
        "--test",
        panel=MODEL,
        help="Mixed: wald, a t test; lrt, ratio of likelihoods (GEMMA's p_lrt; each variant by "
        "itself: slow); score.",
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
    option(
        "--transform",
        panel=MODEL,
        help="rank: traits become normal scores of ranks; rank-residuals: what covariates leave of "
        "them does.",
    ),
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
OutFolder = Annotated[
    Path,
    option(
        "--out",
        metavar="FOLDER",
        panel=OUTPUT,
        help="Folder to write to, new or empty. The same command goes on with a scan that was "
        "killed.",
    ),
]
TableFormat = Annotated[
    Format,
    option(
        "--format",
        panel=OUTPUT,
        help="Table of all effects: parquet; tsv (.tsv.gz); ssf, a GWAS-SSF file per trait.",
    ),
]
PThreshold = Annotated[
    float | None,
    option(
        "--p-threshold",
        metavar="P",
        panel=OUTPUT,
        show_default="all variants",
        help="Variants in the table: those with p <= P for some trait, as PLINK's --pfilter. The "
        "store, lambda and pictures have all.",
    ),
]
Metadata = Annotated[
    Path | None,
    option("--metadata", metavar="FILE", panel=OUTPUT, help="Metadata of GWAS-SSF (YAML)."),
]
