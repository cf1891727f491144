"""What is given, opened: files and data frames are as good as genotypes and tables."""

import os
from typing import TYPE_CHECKING, TypeAlias

from plait.data.genotypes import GenotypeSource
from plait.data.phenotypes import SampleTable, named_as
from plait.data.summary_statistics import SummaryStatistics
from plait.errors import InputError, InputTypeError
from plait.io.genotypes import open_genotypes
from plait.io.phenotypes import is_frame, read_covariates, read_phenotypes

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from plait.data.variants import VariantTable
    from plait.io.fasta import Fasta

    GenotypesLike: TypeAlias = GenotypeSource | str | os.PathLike[str]
    TableLike: TypeAlias = SampleTable | str | os.PathLike[str] | pl.DataFrame | pd.DataFrame
    SummaryLike: TypeAlias = SummaryStatistics | str | os.PathLike[str]
    ReferenceLike: TypeAlias = (
        SummaryStatistics | VariantTable | pl.DataFrame | Fasta | str | os.PathLike[str]
    )


def open_study(
    genotypes: "GenotypesLike", traits: "TableLike", covariates: "TableLike | None" = None
) -> tuple[GenotypeSource, SampleTable, SampleTable | None]:
    """Return genotypes, traits and covariates, opened or read where they are not yet.

    Samples are called as in the genotypes, see `plait.data.phenotypes.named_as`.

    Parameters
    ----------
    genotypes : GenotypeSource or path
        See `plait.io.open_genotypes`.
    traits, covariates : SampleTable, path, or pandas or polars DataFrame
        See `plait.io.read_phenotypes` and `plait.io.read_covariates`.

    Raises
    ------
    InputTypeError
        Something is none of these.
    InputError
        There is no variant.
    """
    genotypes = opened_genotypes(genotypes)
    if not genotypes.n_variants:
        raise InputError(f"there is no variant in the genotypes ({genotypes.path or genotypes}).")
    if not isinstance(traits, SampleTable):
        _require_table("traits", traits)
        traits = read_phenotypes(traits)
    others = None if covariates is None else opened_covariates(covariates)
    samples, families = genotypes.samples, getattr(genotypes, "families", None)
    traits = named_as(traits, samples, families)
    return genotypes, traits, None if others is None else named_as(others, samples, families)


def opened_genotypes(genotypes: "GenotypesLike", dosage: str = "auto") -> GenotypeSource:
    """Return genotypes, opened where they are a path.

    Parameters
    ----------
    genotypes : GenotypeSource or path
    dosage : {"auto", "hardcall"}
        How a path is opened; see `plait.io.open_genotypes`.

    Raises
    ------
    InputTypeError
        They are neither.
    """
    if isinstance(genotypes, str | os.PathLike):
        return open_genotypes(genotypes, dosage=dosage)
    if isinstance(genotypes, GenotypeSource):
        return genotypes
    raise InputTypeError(
        f"the genotypes are {_kind(genotypes)}; give the path of a file, or what "
        "plait.io.open_genotypes returns."
    )


def opened_covariates(table: "TableLike", name: str = "covariates") -> SampleTable:
    """Return covariates, read where they are a path or a data frame.

    Parameters
    ----------
    table : SampleTable, path, or pandas or polars DataFrame
    name : str
        What they are, for messages.

    Raises
    ------
    InputTypeError
        They are none of these.
    """
    if isinstance(table, SampleTable):
        return table
    _require_table(name, table)
    return read_covariates(table)


def opened_summary(table: "SummaryLike", context: str | None = None) -> SummaryStatistics:
    """Return summary statistics, read where they are a path.

    Parameters
    ----------
    table : SummaryStatistics or path
        See `plait.io.summary_sources.read_table`.
    context : str, optional
        What the table is of.

    Raises
    ------
    InputTypeError
        It is neither.
    """
    if isinstance(table, SummaryStatistics):
        return table
    if not isinstance(table, str | os.PathLike):
        raise InputTypeError(
            f"the summary statistics are {_kind(table)}; give a path, or what "
            "plait.io.read_summary_statistics returns."
        )
    from plait.io.summary_sources import read_table

    return read_table(table, context)


def _require_table(name: str, table: object) -> None:
    if not isinstance(table, str | os.PathLike) and not is_frame(table):
        raise InputTypeError(
            f"the {name} are {_kind(table)}; give a path, a pandas or polars DataFrame with a "
            "column that names the samples, or a SampleTable."
        )


def _kind(given: object) -> str:
    return f"of the type {type(given).__name__}"
