"""The options that the commands of ``plait sumstats`` share."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from plait.cli.options import INPUT, MODEL, option


class Format(StrEnum):
    """What a table is written as."""

    SSF = "ssf"
    PARQUET = "parquet"
    TSV = "tsv"


class Join(StrEnum):
    """Which variants are kept."""

    INNER = "inner"
    OUTER = "outer"


class Palindromic(StrEnum):
    """What becomes of A/T and C/G variants whose frequencies do not tell the strand."""

    DROP = "drop"
    KEEP_FORWARD = "keep_forward"
    INFER = "infer"


class Scale(StrEnum):
    """What the effects are."""

    BETA = "beta"
    Z = "z"


class Filters(StrEnum):
    """Which tool's filters."""

    MUNGESUMSTATS = "mungesumstats"
    LDSC = "ldsc"
    GWASLAB = "gwaslab"


Table = Annotated[
    Path,
    typer.Argument(
        metavar="FILE",
        show_default=False,
        help="A table of summary statistics: text (also .gz) or .parquet.",
    ),
]
Columns = Annotated[
    str | None,
    option(
        "--columns",
        metavar="LIST",
        panel=INPUT,
        show_default="found by their names",
        help="What the columns are: ea=A1,oa=A2,beta=b,se=se,p=p.",
    ),
]
DialectName = Annotated[
    str | None,
    option(
        "--dialect",
        metavar="NAME",
        panel=INPUT,
        show_default="found by the columns",
        help="The tool that wrote the table, as regenie, plink2-linear, saige.",
    ),
]
Variants = Annotated[
    Path | None,
    option(
        "--variants",
        metavar="FILE",
        panel=INPUT,
        help="A .bim or .pvar with the positions and alleles that the table lacks, by id.",
    ),
]
Build = Annotated[
    str | None,
    option(
        "--build",
        metavar="NAME",
        panel=INPUT,
        show_default="what the table says",
        help="Genome build of the positions: GRCh37 (hg19, b37), GRCh38 (hg38, b38), or of another "
        "species the name of its assembly.",
    ),
]
Context = Annotated[
    str | None,
    option(
        "--context",
        metavar="NAME",
        panel=INPUT,
        help="Which trait, population, method or study, of a table with several side by side.",
    ),
]
Test = Annotated[
    str | None,
    option(
        "--test",
        metavar="NAME",
        panel=INPUT,
        show_default="ADD",
        help="Which test's rows to take, where a column says it (TEST of REGENIE and PLINK): DOM, "
        "REC, ADD-INT_SNP and so on.",
    ),
]
Trait = Annotated[str | None, option("--trait", panel=INPUT, help="Name of the trait.")]
Metadata = Annotated[
    Path | None,
    option(
        "--metadata",
        metavar="FILE",
        panel=INPUT,
        show_default="FILE-meta.yaml, if there is one",
        help="Metadata for ssf (YAML): samples, genotyping_technology and so on.",
    ),
]
PalindromicRule = Annotated[
    Palindromic,
    option(
        "--palindromic",
        panel=MODEL,
        help="A/T and C/G variants whose frequencies do not tell the strand: drop them, take them "
        "as forward, or infer the strand from the other variants.",
    ),
]
Genome = Annotated[
    Path | None,
    option(
        "--genome",
        metavar="FILE",
        panel=INPUT,
        help="The reference genome (FASTA): insertions and deletions of all tables are written in "
        "one way (as short and as far to the left as they go) before they are compared.",
    ),
]
Filter = Annotated[
    Filters | None,
    option(
        "--filters",
        panel=MODEL,
        show_default="none",
        help="Leave out what another tool leaves out by default, before anything else is done. "
        "mungesumstats: info below 0.9, sample sizes more than 5 SD above the mean, positions "
        "with several pairs of alleles. ldsc: info below 0.9, minor allele frequency of 0.01 or "
        "less, no p, A/T, C/G and longer alleles, sample sizes below the 90th percentile / 1.5. "
        "gwaslab: nothing; writes its seven-digit STATUS of every row.",
    ),
]
AllowStandardised = Annotated[
    bool,
    option(
        "--allow-standardised",
        panel=MODEL,
        help="Make effects and errors of rows that have none from z, frequency and sample size: "
        "se = 1 / sqrt(2 f (1 - f) (n + z^2)), beta = z se, in standard deviations of the trait.",
    ),
]
PalindromicMaf = Annotated[
    float,
    option(
        "--palindromic-maf",
        panel=MODEL,
        help="Frequencies tell the strand where the rarer allele's is at most this in both.",
    ),
]
