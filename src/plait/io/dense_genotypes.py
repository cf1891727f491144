"""Genotypes as a plain table, samples by markers: text, Parquet or NumPy; and HapMap."""

import gzip
import os
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_dosages, hard_calls, other_allele, row_numbers
from plait.data.genotypes import GenotypeSource, Rows, as_floats
from plait.data.labels import first_repeat
from plait.data.variants import VariantTable
from plait.errors import FileFormatError, LabelError, OptionError, ShapeError
from plait.io.centred_genotypes import EXCHANGED, restore_copies
from plait.io.genotype_files import (
    COUNTS,
    DOSAGES,
    check_option,
    distinct_samples,
    require_file,
    swapped,
)
from plait.io.hapmap import read_hapmap

HAPMAP_SUFFIXES = (".hmp.txt", ".hmp.txt.gz", ".hmp")
SUFFIXES = (
    ".csv", ".tsv", ".tab", ".csv.gz", ".tsv.gz", ".tab.gz", ".parquet", ".npy", ".npz",
    *HAPMAP_SUFFIXES,
)  # fmt: skip
_MISSING = ("NA", "NaN", "nan", ".", "-9", "")
_MAP_COLUMNS = {
    "id": (
        "marker", "markerid", "marker_id", "snp", "snpid", "snp_id", "id", "rs", "rsid", "name",
        "variant",
    ),
    "chrom": ("chrom", "chromosome", "chr", "#chrom"),
    "pos": ("pos", "position", "bp", "base_pair_location"),
    "oa": ("oa", "ref", "other_allele"),
    "ea": ("ea", "alt", "effect_allele"),
}  # fmt: skip
_DELIMITERS = (b"\t", b",", b";")
_LONGEST_LINE = 1 << 28


class DenseSource(GenotypeSource):
    """Genotypes of a table with a row for each sample and a column for each marker.

    Parameters
    ----------
    path : path
        Text (.csv, .tsv, .tab or another suffix, also .gz; separated by tabs, commas, semicolons or
        blanks) or .parquet with a header of marker names and names of samples in the first column,
        as JWAS reads it; .npy, an array (samples, markers); .npz with such an array and,
        optionally, ``samples`` and ``markers``; or .hmp.txt (HapMap).
    dosage : {"auto", "hardcall", "dosage"}
        "auto" takes values that are all 0, 1 or 2 as hard calls. "hardcall" rounds others within
        0.1 of these and takes the rest as missing.
    count : {"ea", "oa"}
        Whether the values are taken as they are, or as the copies of the other allele.
    map : path, optional
        A table with the columns MARKER (or markerID, SNP, id), CHROM and POS, and optionally REF
        and ALT. Without one, markers are numbered on chromosome "0" and their alleles are unknown
        (".").

    Raises
    ------
    FileFormatError
        It is not such a table, or values are not copies of an allele: centred dosages, and those
        that were scaled, do not tell frequencies and counts of alleles.

    Notes
    -----
    Calls of text and .parquet may be centred, marker by marker: copies are found again (see
    `plait.io.centred_genotypes.restore_copies`). A .npy is mapped, not read. The others keep
    samples beside one another, so that a marker cannot be read without the rest: they are read
    whole, once, into one byte per hard call or four per dosage. Convert large ones
    (`plait.io.convert_genotypes`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dosage: str = "auto",
        count: str = "ea",
        map: str | os.PathLike[str] | None = None,
    ) -> None:
        check_option("dosage", dosage, DOSAGES)
        check_option("count", count, COUNTS)
        self.path, self.dosage, self.count = Path(path), dosage, count
        self.map = None if map is None else Path(map)
        require_file(self.path)
        if self.path.name.endswith(HAPMAP_SUFFIXES):
            if map is not None:
                raise OptionError(f"{self.path} has positions of its own; leave out map.")
            self._values, table, self.samples = read_hapmap(self.path)
        else:
            self._values, samples, markers = _read_dense(self.path)
            self.samples = distinct_samples(self.path, samples)
            table = _place(markers, self.map, self.path)
        whole = self._values.dtype.kind == "i"
        is_hard = dosage == "hardcall" or (whole and dosage == "auto")
        self.kind = "hardcall" if is_hard else "dosage"
        if count == "oa":
            table = swapped(table)
        self._variants = table

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.dosage, self.count, self.map)

    @property
    def n_variants(self) -> int:
        """Number of markers M."""
        return len(self._variants)

    @property
    def variants(self) -> VariantTable:
        """All markers, in the order of the table."""
        return self._variants

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        if self.kind == "dosage":
            as_dosages(np.empty(0, np.float32), dtype)  # refuse other types before reading
        values = np.array(self._values[row_numbers(variants, self.n_variants)])
        if samples is not None:
            values = values[:, samples]
        if values.dtype != np.int8 and self.kind == "hardcall":
            values = hard_calls(values)
        if values.dtype == np.int8:
            return as_floats(self._counted(values), dtype)
        return as_dosages(self.ploidy - values if self.count == "oa" else values, dtype)

    def _counted(self, calls: NDArray[np.int8]) -> NDArray[np.int8]:
        calls = np.where((calls < 0) | (calls > self.ploidy), np.int8(-1), calls)
        return other_allele(calls, self.ploidy) if self.count == "oa" else calls


def _read_dense(path: Path) -> tuple[NDArray[Any], list[str], list[str]]:
    """Return values (markers, samples), int8 if all are hard calls, names of samples, markers."""
    if path.suffix in (".npy", ".npz"):
        return _read_arrays(path)
    import polars as pl

    try:
        if path.suffix == ".parquet":
            frame = pl.read_parquet(path)
        else:
            frame = _read_text(path, null_values=list(_MISSING))
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{path} is not such a table ({error}).") from None
    if frame.width < 2:
        raise FileFormatError(f"{path}: expected names of samples and then markers.")
    samples = [str(name) for name in frame.to_series(0).to_list()]
    markers = frame.columns[1:]
    rows = np.empty((len(markers), len(samples)), np.float32)
    for row, name in enumerate(markers):
        column = frame[name]
        numbers = column.cast(pl.Float32, strict=False)
        if numbers.null_count() > column.null_count():
            bad = int((numbers.is_null() & column.is_not_null()).arg_max() or 0)
            raise FileFormatError(
                f"{path}: marker {name!r} of sample {samples[bad]!r} is {column[bad]!r}; expected "
                f"a number.{EXCHANGED}"
            )
        rows[row] = numbers.fill_null(float("nan")).to_numpy()
    restore_copies(path, rows, samples, markers)
    return _compact(rows), samples, markers


def is_table(path: Path) -> bool:
    """Tell by its first two lines whether a file of any suffix is a table of genotypes as text."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as stream:
            lines = [stream.readline(_LONGEST_LINE).rstrip(b"\r\n") for _ in range(2)]
    except (OSError, EOFError, zlib.error):
        return False
    delimiter = _delimiter(lines[0])
    header, first = (line.split(delimiter.strip() or None) for line in lines)
    if b"\0" in lines[0] or len(header) < 2 or len(header) != len(first):
        return False
    try:
        for cell in first[1:]:
            if (text := cell.decode().strip()) not in _MISSING:
                float(text)
    except ValueError:  # also where it is not text
        return False
    return True


def _delimiter(header: bytes) -> bytes:
    return next((mark for mark in _DELIMITERS if mark in header), b" ")


def _read_text(path: Path, **options: Any) -> Any:
    """Return a table with a header as text, whatever separates its columns."""
    import polars as pl

    data = path.read_bytes()
    if path.suffix == ".gz":
        data = gzip.decompress(data)
    delimiter = _delimiter(data.split(b"\n", 1)[0])
    if delimiter == b" ":  # runs of blanks separate once, and those at the ends do not
        lines = (b" ".join(line.split()) for line in data.splitlines())
        data = b"\n".join(line for line in lines if line)
    return pl.read_csv(data, separator=delimiter.decode(), infer_schema=False, **options)


def _read_arrays(path: Path) -> tuple[NDArray[Any], list[str], list[str]]:
    try:
        # A mapped array stays in the file; of an archive the arrays are read.
        found = np.load(path, mmap_mode="r" if path.suffix == ".npy" else None)
        arrays = {"": found} if path.suffix == ".npy" else {n: found[n] for n in found.files}
    except Exception as error:  # NumPy raises pickle, zip, value and end-of-file errors here
        raise FileFormatError(f"{path} cannot be read ({error}).") from None
    tables = [array for array in arrays.values() if array.ndim == 2]
    if len(tables) != 1 or tables[0].dtype.kind not in "biuf":
        raise FileFormatError(f"{path}: expected one array (samples, markers) of numbers.")
    values = tables[0].T
    names = []
    for name, size in (("samples", values.shape[1]), ("markers", values.shape[0])):
        labels = arrays.get(name, np.arange(1, size + 1))
        if labels.shape != (size,):
            raise ShapeError(f"{path}: {name} has the shape {labels.shape}, not ({size},).")
        names.append([str(label) for label in labels.tolist()])
    if path.suffix == ".npz" or (values.dtype.kind != "f" and values.dtype != np.int8):
        values = _compact(np.ascontiguousarray(values))
    return values, names[0], names[1]


def _compact(values: NDArray[Any]) -> NDArray[Any]:
    """Return hard calls as int8 where all values are, else float32."""
    is_missing = np.isnan(values) if values.dtype.kind == "f" else values < 0
    if ((values == 0) | (values == 1) | (values == 2) | is_missing).all():
        return np.where(is_missing, -1, values).astype(np.int8)
    return values.astype(np.float32)


def _place(markers: list[str], map: Path | None, path: Path) -> VariantTable:
    """Return the table of the markers, with what the map says of them."""
    if len(set(markers)) < len(markers):
        first, second = first_repeat(markers)
        raise LabelError(
            f"{path}: markers {first + 1} and {second + 1} are both {markers[first]!r}."
        )
    unknown = ["."] * len(markers)
    if map is None:
        numbers = np.arange(1, len(markers) + 1)
        return VariantTable.of(["0"] * len(markers), numbers, unknown, unknown, markers)
    frame = _read_map(map)
    at = {name: row for row, name in enumerate(frame["id"].to_list())}
    lacking = [name for name in markers if name not in at]
    if lacking:
        raise LabelError(
            f"{map} lacks {len(lacking)} of the {len(markers)} markers (first: {lacking[0]!r})."
        )
    frame = frame[[at[name] for name in markers]]
    oa, ea = (frame[n].to_list() if n in frame.columns else unknown for n in ("oa", "ea"))
    return VariantTable.of(frame["chrom"].to_list(), frame["pos"].to_numpy(), oa, ea, markers)


def _read_map(map: Path) -> Any:
    import polars as pl

    require_file(map)
    try:
        frame = _read_text(map)
    except (pl.exceptions.PolarsError, OSError, EOFError, zlib.error) as error:
        raise FileFormatError(f"{map} is not a table ({error}).") from None
    names = {column.lower(): column for column in reversed(frame.columns)}
    found = {
        ours: next((names[name] for name in theirs if name in names), None)
        for ours, theirs in _MAP_COLUMNS.items()
    }
    for ours in ("id", "chrom", "pos"):
        if found[ours] is None:
            raise FileFormatError(
                f"{map} lacks a column of {ours} (one of {', '.join(_MAP_COLUMNS[ours])}); it has "
                f"{', '.join(frame.columns[:8])}."
            )
    frame = frame.select(**{ours: pl.col(name) for ours, name in found.items() if name})
    pos = frame["pos"].cast(pl.Int64, strict=False)
    if pos.null_count():
        row = int(pos.is_null().arg_max() or 0)
        raise FileFormatError(f"{map}: row {row + 1} has the position {frame['pos'][row]!r}.")
    return frame.with_columns(pos)
