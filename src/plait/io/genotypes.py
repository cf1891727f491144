"""The one door to genotypes: `open_genotypes` finds out the format; parts of a source; copies."""

import inspect
import logging
import os
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_slices, row_numbers
from plait.data.genotypes import GenotypeSource, Packed, Rows
from plait.data.variants import VariantTable, find_names
from plait.errors import (
    LabelError,
    MissingSidecarError,
    OptionError,
    OutputError,
    ShapeError,
    UnknownGenotypeFormatError,
)
from plait.io import dense_genotypes
from plait.io.bgen import BgenSource
from plait.io.dense_genotypes import DenseSource
from plait.io.exchanged_files import genotype_format
from plait.io.genotype_files import COUNTS, DOSAGES, check_option, distinct_samples
from plait.io.pgen import PgenSource
from plait.io.plink import BedSource, write_bed
from plait.io.regions import Region, require_chromosome
from plait.io.trees import TreeSource
from plait.io.vcf import VcfSource
from plait.io.vcf_fields import DOSAGE_FIELDS
from plait.io.vcf_zarr import VcfZarrSource, source_blocks, write_vcf_zarr

FORMATS: dict[str, Callable[..., GenotypeSource]] = {
    "bed": BedSource,
    "pgen": PgenSource,
    "vcf": VcfSource,
    "bgen": BgenSource,
    "vcf-zarr": VcfZarrSource,
    "trees": TreeSource,
    "dense": DenseSource,
}
_SUFFIXES = {
    "bed": (".bed", ".bim", ".fam", ".bim.gz", ".fam.gz"),
    "pgen": (".pgen", ".pvar", ".psam", ".pvar.zst"),
    "vcf": (".vcf", ".vcf.gz", ".vcf.bgz", ".bcf"),
    "bgen": (".bgen",),
    "vcf-zarr": (".vcz", ".zarr", ".zarr.zip", ".vcz.zip"),
    "trees": (".trees", ".tsz"),
    "dense": dense_genotypes.SUFFIXES,
}
_MAIN_SUFFIX = {"bed": ".bed", "pgen": ".pgen"}
_MARKS_EXCLUDED = ("bed", "pgen", "dense")
"""Formats in which a negative position means that a variant is not to be used."""
_HARD_CALLS = ("bed", "trees")
_BESIDE = {"bgen": [".sample"]}
_ZARR_SUFFIXES = (".vcz", ".zarr")
_log = logging.getLogger("plait.io")


def open_genotypes(
    path: str | os.PathLike[str],
    format: str | None = None,
    *,
    samples: Sequence[str] | None = None,
    region: str | None = None,
    variants: Any = None,
    dosage: str = "auto",
    count: str = "ea",
    **options: Any,
) -> GenotypeSource:
    """Open genotypes of any format that plait reads.

    Parameters
    ----------
    path : str or path
        PLINK .bed (or .bim, .fam, or the common prefix), PLINK 2 .pgen (likewise), .vcf, .vcf.gz,
        .bcf, .bgen, VCF-Zarr (.vcz, .zarr, .zarr.zip, also a URL), a tree sequence (.trees, .tsz),
        or a table (.csv, .tsv, other text, .parquet, .npy, .npz, .hmp.txt).
    format : {"bed", "pgen", "vcf", "bgen", "vcf-zarr", "trees", "dense"}, optional
        Default by the suffix, else by the first bytes.
    samples : sequence of str, optional
        The samples to keep, in this order.
    region : str, optional
        ``chromosome:start-stop``, from 1, both included: the variants at these positions. The
        chromosome is written as the file writes it. A VCF needs an index for this.
    variants : slice, integers, booleans or names, optional
        The variants to keep. Names are ids or ``chrom:pos:oa:ea``; a name that several variants
        have keeps all of them, in the order of the file. After ``region``, numbers count from its
        first variant.
    dosage : {"auto", "hardcall", "dosage", "DS", "GP"}
        Whether dosages are read where there are some ("auto"), hard calls, or dosages always; of a
        VCF also from which field, where GT shall stand in for records without it.
    count : {"ea", "oa"}
        Which allele is counted. The effect allele is the first of a .bim, ALT in .pgen, VCF and
        VCF-Zarr, and the second in BGEN.
    **options
        Further options of the format's source: ``multiallelic``, ``threads``, ``first_allele``,
        ``sample_path``, ``map``, ``chromosome``.

    Returns
    -------
    GenotypeSource

    Raises
    ------
    UnknownGenotypeFormatError
        Neither the suffix nor the first bytes say what the file is.
    MissingSidecarError, TruncatedFileError, UnsupportedLayoutError, FileFormatError
        There is no such file, a file beside it is missing, or the file is damaged.
    LabelError
        A sample, a variant or a chromosome is not there.

    Notes
    -----
    Variants at a negative position, by which PLINK 1 and 2 and maps of tables mark those that are
    not to be used, are left out and counted in the log. Position 0 only says that the place is not
    known.
    """
    check_option("dosage", dosage, (*DOSAGES, *DOSAGE_FIELDS))
    check_option("count", count, COUNTS)
    if format is not None:
        check_option("format", format, tuple(FORMATS))
    place, name = _find(os.fspath(path), format)
    options["count"] = count
    if dosage in DOSAGE_FIELDS and name != "vcf":
        raise OptionError(
            f"{place} is no VCF, and has no field {dosage}; leave out dosage={dosage!r}."
        )
    if name not in _HARD_CALLS:
        options["dosage"] = dosage
    elif dosage == "dosage":
        raise OptionError(f"{place} holds hard calls only; leave out dosage='dosage'.")
    if name == "vcf" and region is not None:
        options["region"] = region
    source_class = FORMATS[name]
    known = inspect.signature(source_class).parameters
    unknown = [option for option in options if option not in known]
    if unknown:
        raise OptionError(f"{unknown[0]} is not an option of genotypes of the format {name}.")
    source = source_class(place, **options)
    rows: Any = _not_excluded(source, place) if name in _MARKS_EXCLUDED else None
    if region is not None and name != "vcf":
        inside = variants_in_region(source.variants, region, place)
        rows = inside if rows is None else np.intersect1d(inside, rows)
    if variants is not None:
        chosen = _choose(source.variants if rows is None else source.variants[rows], variants)
        rows = chosen if rows is None else row_numbers(rows, source.n_variants)[chosen]
    numbers = None if samples is None else source.sample_numbers(list(samples))
    if rows is None and numbers is None:
        return source
    return SelectedGenotypes(source, rows, numbers)


def genotype_files(path: str | os.PathLike[str], format: str | None = None) -> list[str | Path]:
    """Return the files that genotypes consist of, the one that holds the genotypes first.

    Parameters
    ----------
    path, format
        As `open_genotypes` takes them.

    Raises
    ------
    UnknownGenotypeFormatError, MissingSidecarError
        As `open_genotypes`.
    """
    place, name = _find(os.fspath(path), format)
    if isinstance(place, str):
        return [place]
    beside = [suffix for suffix in _SUFFIXES[name] if name in _MAIN_SUFFIX] + _BESIDE.get(name, [])
    files = dict.fromkeys([place, *(place.with_suffix(suffix) for suffix in beside)])
    return [file for file in files if file.exists()]


def _not_excluded(source: GenotypeSource, place: Any) -> NDArray[np.intp] | None:
    """Return the variants that no negative position marks as excluded; None if that is all."""
    parts = [part.pos < 0 for _, part in source.variants.parts()]
    out = np.concatenate([np.zeros(0, dtype=np.bool_), *parts])
    if not out.any():
        return None
    count, first = int(out.sum()), int(np.argmax(out))
    _log.info(
        "%s: %s left out for a negative position, which marks what PLINK excludes (first: %s)",
        place,
        "1 variant" if count == 1 else f"{count:,} variants",
        source.variants[first : first + 1].keys[0],
        extra={"notice": True},
    )
    return np.flatnonzero(~out)


class SelectedGenotypes(GenotypeSource):
    """Some variants or samples of another source, read only when asked for.

    Parameters
    ----------
    source : GenotypeSource
    variants : slice or integers, optional
        Rows of the source's variants, in the order wanted. Default all.
    samples : integers, optional
        Numbers of the source's samples, in the order wanted, each once. Default all.
    """

    def __init__(
        self,
        source: GenotypeSource,
        variants: Rows | None = None,
        samples: NDArray[np.integer[Any]] | None = None,
    ) -> None:
        self.source, self.kind, self.ploidy = source, source.kind, source.ploidy
        self.path, self.lies_packed = source.path, source.lies_packed
        rows = row_numbers(slice(None) if variants is None else variants, source.n_variants)
        # A run of variants is kept as such, and read as such.
        runs = as_slices(rows)
        self._rows: slice | NDArray[np.intp] = rows
        if len(runs) <= 1:
            self._rows = runs[0] if runs else slice(0, 0)
        self._samples = None if samples is None else np.asarray(samples, dtype=np.intp)
        self.samples = source.samples
        if self._samples is not None:
            numbers = self._samples
            if len(numbers) and not (numbers.min() >= 0 and numbers.max() < source.n_samples):
                raise ShapeError(f"samples are numbered 0 to {source.n_samples - 1}.")
            self.samples = distinct_samples("samples", source.samples[numbers].tolist())
            if np.array_equal(numbers, np.arange(source.n_samples)):
                self._samples = None
        # What else a source knows of its samples.
        for name in ("families", "sexes"):
            known = getattr(source, name, None)
            if known is not None:
                setattr(self, name, known if self._samples is None else known[self._samples])

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.source, self._rows, self._samples)

    @property
    def n_variants(self) -> int:
        """Number of variants kept."""
        if isinstance(self._rows, slice):
            return int(self._rows.stop - self._rows.start)
        return len(self._rows)

    @cached_property
    def variants(self) -> VariantTable:
        """The variants kept."""
        return self.source.variants[self._rows]

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        return self.source.read(self._composed(variants), self._chosen(samples), dtype)

    def read_packed(
        self, variants: slice, samples: NDArray[np.integer[Any]] | None = None
    ) -> Packed:
        """Return hard calls in two bits each; see `GenotypeSource.read_packed`."""
        rows, chosen = self._composed(variants), self._chosen(samples)
        runs = [rows] if isinstance(rows, slice) else as_slices(rows)
        parts = [self.source.read_packed(run, chosen) for run in runs or [slice(0, 0)]]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Close the source."""
        self.source.close()

    def _composed(self, variants: Rows) -> Rows:
        """Return rows of the source, as a slice if they are consecutive."""
        if isinstance(variants, slice) and isinstance(self._rows, slice):
            start, stop, step = variants.indices(self.n_variants)
            if step == 1:
                first = int(self._rows.start)
                return slice(first + start, first + max(start, stop))
        numbers = row_numbers(variants, self.n_variants)
        if isinstance(self._rows, slice):
            return numbers + int(self._rows.start)
        rows: NDArray[np.intp] = self._rows[numbers]
        return rows

    def _chosen(self, samples: NDArray[np.integer[Any]] | None) -> NDArray[Any] | None:
        if self._samples is None or samples is None:
            return self._samples if samples is None else samples
        chosen: NDArray[Any] = self._samples[samples]
        return chosen


def variants_in_region(variants: VariantTable, region: str, place: Any) -> NDArray[np.intp]:
    """Return the numbers of the variants that begin in a region.

    Raises
    ------
    LabelError
        There is no such chromosome; the message says if it only has another prefix.
    """
    within = Region.parse(region)
    require_chromosome(within.chrom, (name for name, _ in variants.chromosomes), place)
    on_it = (variants.frame["chrom"] == within.chrom).to_numpy()
    pos = variants.pos
    return np.flatnonzero(on_it & (pos >= within.start) & (pos <= within.stop))


def convert_genotypes(
    source: GenotypeSource | str | os.PathLike[str],
    path: str | os.PathLike[str],
    *,
    overwrite: bool = False,
) -> None:
    """Write genotypes as PLINK bed (hard calls) or VCF-Zarr (hard calls or dosages).

    Parameters
    ----------
    source : GenotypeSource, str or path
        A path is opened as by `open_genotypes`.
    path : path
        Ends in .bed, .vcz or .zarr.
    overwrite : bool
        Whether what exists is replaced.

    Raises
    ------
    OptionError
        Dosages are to be written as bed: open the source with ``dosage="hardcall"``.
    FileFormatError
        The source is a path to no genotypes.
    OutputError
        The suffix is another one, or the output exists or cannot be written.
    """
    place = Path(path)
    if not isinstance(source, GenotypeSource):
        source = open_genotypes(source)
    if place.suffix == ".bed":
        if source.kind != "hardcall":
            raise OptionError(
                "a .bed holds hard calls; open the genotypes with dosage='hardcall', or write a "
                ".vcz."
            )
        blocks = source_blocks(source)
        write_bed(place, blocks, source.variants, source.samples, overwrite=overwrite)
    elif place.suffix in _ZARR_SUFFIXES:
        write_vcf_zarr(place, source, overwrite=overwrite)
    else:
        raise OutputError(f"{place}: genotypes are written as .bed, .vcz or .zarr.")


def _choose(table: VariantTable, wanted: Any) -> NDArray[np.intp]:
    """Return the numbers of variants given as numbers, a mask or names."""
    if isinstance(wanted, slice):
        return row_numbers(wanted, len(table))
    chosen = np.asarray(wanted)
    if chosen.dtype == np.bool_:
        if chosen.shape != (len(table),):
            raise ShapeError(f"{chosen.shape} booleans choose among {len(table)} variants.")
        return np.flatnonzero(chosen)
    if chosen.dtype.kind not in "UOT" or not chosen.size:
        return row_numbers(chosen, len(table))
    names = dict.fromkeys(map(str, chosen.tolist()))
    found, lacking = find_names(names, table.frame["id"], table.keys)
    if lacking:
        raise LabelError(
            f"{len(lacking)} of {len(names)} variants are not there (first: {lacking[0]!r})."
        )
    return np.flatnonzero(found)


def _find(text: str, format: str | None) -> tuple[str | Path, str]:
    """Return the file to open and its format."""
    if "://" in text:
        return text, format or "vcf-zarr"
    path = Path(text)
    for name, suffixes in _SUFFIXES.items():
        for suffix in sorted(suffixes, key=len, reverse=True):
            if format in (None, name) and path.name.lower().endswith(suffix):
                main = _MAIN_SUFFIX.get(name)
                if main is not None and suffix != main:
                    path = path.with_name(path.name[: -len(suffix)] + main)
                return _existing(path), name
    for name, main in _MAIN_SUFFIX.items():
        with_suffix = path.with_name(path.name + main)
        if format in (None, name) and not path.exists() and with_suffix.exists():
            return with_suffix, name
    if format is None:
        return path, _sniff(_existing(path))
    return _existing(path), format


def _existing(path: Path) -> Path:
    if not path.exists():
        raise MissingSidecarError(f"{path}: there is no such file.")
    return path


def _sniff(path: Path) -> str:
    """Return the format by the first bytes."""
    if path.is_dir():
        if any((path / name).exists() for name in ("zarr.json", ".zgroup")):
            return "vcf-zarr"
    elif (found := genotype_format(path)) is not None:
        return found
    elif dense_genotypes.is_table(path):
        return "dense"
    tried = [*FORMATS]
    raise UnknownGenotypeFormatError(
        f"{path}: neither its suffix nor its first bytes are those of genotypes (tried "
        f"{', '.join(tried)}). If you know the format, say so (format=...).",
        tried=tried,
    )
