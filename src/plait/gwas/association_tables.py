"""The tables of all effects in the folder of a scan: one for all traits, or GWAS-SSF for each."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from plait.data.summary_statistics import SummaryStatistics
from plait.data.variants import VariantTable
from plait.errors import InputError, OptionError
from plait.gwas.variant_tables import check_p_threshold, file_names
from plait.io.gwas_ssf import expressible_rows, fits_gwas_ssf, write_gwas_ssf
from plait.io.gwas_ssf_metadata import metadata_of_traits, metadata_path
from plait.io.summary_statistics import chromosome_names

if TYPE_CHECKING:
    from polars import DataFrame

    from plait.gwas.results import AssociationResult

_log = logging.getLogger("plait.gwas")

TABLES = {
    "parquet": "associations.parquet",
    "tsv": "associations.tsv.gz",
    "ssf": "associations.ssf",
}
"""What the table of each format is called; that of GWAS-SSF is a folder with a file per trait."""
_SUFFIX = ".tsv.gz"


def write_tables(
    result: "AssociationResult",
    folder: str | os.PathLike[str],
    form: str,
    metadata: Mapping[str, Any] | None = None,
    p_threshold: float | None = None,
) -> list[str]:
    """Write the effects in one format, and remove the tables of an earlier scan in others.

    Parameters
    ----------
    result : AssociationResult
    folder : path
    form : {"parquet", "tsv", "ssf"}
    metadata : mapping, optional
        Of GWAS-SSF; see `write_ssf`.
    p_threshold : float, optional
        Largest p-value of the rows of other tables; see
        `plait.gwas.variant_results.VariantResult.write_parquet`. Default: all rows.

    Returns
    -------
    list of str
        The names of the tables, within the folder.

    Raises
    ------
    OptionError
        See `check_threshold`.
    """
    check_threshold(form, p_threshold)
    place = Path(folder)
    if form == "ssf":
        files = write_ssf(result, place / TABLES["ssf"], metadata or {}, overwrite=True)
        written = [f"{TABLES['ssf']}/{file.name}" for file in files]
        _remove_ssf(place / TABLES["ssf"], keep=[file.name for file in files])
    else:
        write = {"parquet": result.write_parquet, "tsv": result.write_tsv}[form]
        write(place / TABLES[form], overwrite=True, p_threshold=p_threshold)
        written = [TABLES[form]]
        _remove_ssf(place / TABLES["ssf"], keep=())
    for other in {"parquet", "tsv"} - {form}:
        (place / TABLES[other]).unlink(missing_ok=True)
    return written


def check_threshold(form: str, p_threshold: float | None) -> None:
    """Refuse a largest p-value that the tables of a format cannot have.

    Raises
    ------
    OptionError
        It is not above 0 and at most 1, or the format is that of GWAS-SSF.
    """
    check_p_threshold(p_threshold)
    if form == "ssf" and p_threshold is not None:
        raise OptionError(
            "GWAS-SSF asks for all variants that were tested, whatever their p-values: leave out "
            "p_threshold, or write parquet or tsv."
        )


def write_ssf(
    result: "AssociationResult",
    folder: str | os.PathLike[str],
    metadata: Mapping[str, Any],
    overwrite: bool = False,
) -> list[Path]:
    """Write a GWAS-SSF file and its metadata for each trait into a folder.

    Parameters
    ----------
    result : AssociationResult
    folder : path
        Made if it is not there. Other files in it are left as they are.
    metadata : mapping
        Keys of the standard for all traits, and below ``traits`` those of one trait (see
        `plait.io.gwas_ssf_metadata.metadata_of_traits`). The size of one sample, cases and
        controls of a logistic model, assembly excepted all that tables tell need not be given.
    overwrite : bool

    Returns
    -------
    list of Path
        The tables, in the order of the traits; see `ssf_names`.

    Raises
    ------
    InputError, LabelError
        See `check_ssf`.
    OutputError
        A file exists or cannot be written.

    Notes
    -----
    Variants that the standard cannot hold (other chromosomes than 1 to 22, X, Y and MT, other
    alleles than A, C, G and T) are left out, which is logged.
    """
    place = Path(folder)
    names = ssf_names(result.traits)
    about = metadata_of_traits(metadata, result.traits)
    place.mkdir(exist_ok=True)
    for number, trait in enumerate(result.traits):
        table = _expressible(result.to_summary_statistics(trait), trait)
        told = _with_cases(about[trait], result, number, table)
        write_gwas_ssf(table, place / names[trait], told, overwrite=overwrite)
    return [place / names[trait] for trait in result.traits]


def check_ssf(
    traits: Sequence[str],
    metadata: Mapping[str, Any],
    variants: VariantTable | None = None,
    where: str = "metadata",
) -> None:
    """Refuse, before a scan, what `write_ssf` could not write after it.

    Parameters
    ----------
    traits : sequence of str
    metadata : mapping
    variants : VariantTable, optional
        The variants to be scanned.
    where : str
        What the metadata were read from, for messages.

    Raises
    ------
    LabelError
        Two traits would have the same file, or a trait is described that there is none of.
    InputError
        Metadata are missing or wrong, or the standard can hold none of the variants.
    """
    ssf_names(traits)
    metadata_of_traits(metadata, traits, where)
    if variants is not None and len(variants) and not fits_gwas_ssf(_human(variants.frame)).any():
        first = variants.frame.row(0, named=True)
        raise InputError(
            "GWAS-SSF has chromosomes 1 to 22, X, Y and MT and alleles of the letters A, C, G and "
            f"T: none of the {len(variants):,} variants can be written (the first is on chromosome "
            f"{first['chrom']!r} with the alleles {first['oa']} and {first['ea']}). Write a table "
            "of another format."
        )


def ssf_names(traits: Sequence[str]) -> dict[str, str]:
    """Return the name of the file of each trait (see `plait.gwas.variant_tables.file_names`).

    Raises
    ------
    LabelError
        Two traits would have the same file.
    """
    return file_names(traits, _SUFFIX, "traits")


def _human(frame: "DataFrame") -> "DataFrame":
    return frame.with_columns(chromosome_names(frame["chrom"]))


def _expressible(table: SummaryStatistics, trait: str) -> SummaryStatistics:
    """Return the rows that the standard can hold, with its chromosomes."""
    frame = _human(table.frame)
    held = expressible_rows(frame, f"the variants that were tested for {trait!r}")
    return replace(table, frame=frame.filter(held))


def _with_cases(
    about: dict[str, Any], result: "AssociationResult", number: int, table: SummaryStatistics
) -> dict[str, Any]:
    """Return the metadata of a trait with the cases and controls of its one sample, if it has."""
    samples = about["samples"]
    if result.n_cases is None or len(samples) != 1 or not len(table):
        return about
    cases = int(result.n_cases[number])
    told = {
        "case_control_study": True,
        "case_count": cases,
        "control_count": int(np.nanmax(table.column("n"))) - cases,
    }
    return about | {"samples": [told | samples[0]]}


def _remove_ssf(folder: Path, keep: Sequence[str]) -> None:
    """Remove GWAS-SSF files with their metadata from a folder, and the folder if it is empty."""
    if not folder.is_dir():
        return
    for table in folder.glob(f"*{_SUFFIX}"):
        if table.name not in keep and metadata_path(table).is_file():
            table.unlink()
            metadata_path(table).unlink()
    if not any(folder.iterdir()):
        folder.rmdir()
