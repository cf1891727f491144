"""PLINK 2 genotypes: .pgen with its .pvar (or .pvar.zst) and .psam."""

import os
import re
import threading
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_dosages, row_numbers
from plait.data.genotypes import GenotypeSource, Packed, Rows, as_floats, pack
from plait.data.variants import VariantTable
from plait.data.words import counted
from plait.errors import FileFormatError, MissingSidecarError, TruncatedFileError
from plait.io.genotype_files import (
    COUNTS,
    DOSAGES,
    MULTIALLELIC,
    check_option,
    family_samples,
    library,
    require_file,
)

_MAGIC = b"\x6c\x1b"
_MISSING = -9
_FIXED_WIDTH = {2: False, 3: True, 4: True}  # storage mode: whether dosages are stored
_VARIABLE_WIDTH = 0x10
_RECORDS_PER_BLOCK = 1 << 16
_DOSAGE_BITS = 0x60
_PVAR = ("#CHROM", "POS", "ID", "REF", "ALT")
_SEXES = {"1": 1, "M": 1, "2": 2, "F": 2}


class PgenSource(GenotypeSource):
    """Hard calls or dosages of a .pgen file.

    Parameters
    ----------
    path : path
        The .pgen file, with .pvar (or .pvar.zst) and .psam beside it.
    dosage : {"auto", "hardcall", "dosage"}
        Dosages where the file has any, hard calls, or dosages in any case.
    count : {"ea", "oa"}
        Which allele is counted: ALT, or the others.
    multiallelic : {"split", "drop"}
        A variant with several ALT alleles becomes one row for each of them, whose dosage is the
        number of copies of that ALT; or it is left out.

    Attributes
    ----------
    families : (N,) array of str, or None
        None where the .psam has none.
    sexes : (N,) array of int
        1 male, 2 female, 0 unknown.

    Notes
    -----
    A reader holds one file handle, so threads take turns with it; give each worker its own source.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dosage: str = "auto",
        count: str = "ea",
        multiallelic: str = "split",
    ) -> None:
        check_option("dosage", dosage, DOSAGES)
        check_option("count", count, COUNTS)
        check_option("multiallelic", multiallelic, MULTIALLELIC)
        self.path, self.dosage, self.count = Path(path), dosage, count
        self.multiallelic = multiallelic
        require_file(self.path)
        has_dosages = _check_header(self.path)
        if dosage == "dosage" or (dosage == "auto" and has_dosages):
            self.kind = "dosage"
        self.samples, self.families, self.sexes = _read_samples(_sidecar(self.path, ".psam"))
        self._frame = _read_variants(_sidecar(self.path, ".pvar", ".pvar.zst"))
        n_alts = self._frame["ALT"].str.count_matches(",", literal=True).to_numpy() + 1
        self._offsets = np.concatenate([[0], np.cumsum(n_alts + 1)]).astype(np.uintp)
        kept = np.arange(len(n_alts)) if multiallelic == "split" else np.flatnonzero(n_alts == 1)
        self._records = np.repeat(kept, n_alts[kept]).astype(np.uint32)
        first = np.concatenate([[0], np.cumsum(n_alts[kept])[:-1]])[: len(kept)]
        self._alleles = np.arange(1, len(self._records) + 1) - np.repeat(first, n_alts[kept])
        self._reader: Any = None
        self._lock = threading.Lock()
        self._open()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.dosage, self.count, self.multiallelic)

    @property
    def n_variants(self) -> int:
        """Number of variants M, after those with several ALT alleles are split."""
        return len(self._records)

    @cached_property
    def variants(self) -> VariantTable:
        """All variants, in the order of the file."""
        import polars as pl

        frame = self._frame[self._records]
        if len(self._offsets) and (np.diff(self._offsets) > 2).any():
            number = pl.Series("number", self._alleles - 1)
            split = frame.with_columns(number).select(
                pl.col("ALT").str.split(",").list.get(pl.col("number"))
            )
            frame = frame.with_columns(split["ALT"])
        ea, oa = ("ALT", "REF") if self.count == "ea" else ("REF", "ALT")
        cm = pl.col("CM") if "CM" in frame.columns else pl.lit("nan")
        return VariantTable(
            frame.select(
                chrom="#CHROM",
                pos=_numbers(self.path, frame["POS"]),
                id="ID",
                oa=oa,
                ea=ea,
                cm=cm.cast(pl.Float64, strict=False).fill_null(float("nan")),
            )
        )

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        if self.kind == "hardcall":
            calls = self._read(variants, samples, np.dtype(np.int8))
            calls[calls == _MISSING] = -1
            return as_floats(calls, dtype)
        as_dosages(np.empty(0, np.float32), dtype)  # refuse other types before reading
        values = self._read(variants, samples, np.dtype(dtype))
        values[values == _MISSING] = np.nan
        return values

    def read_packed(
        self, variants: slice, samples: NDArray[np.integer[Any]] | None = None
    ) -> Packed:
        """Return hard calls in two bits each; see `GenotypeSource.read_packed`."""
        if self.kind == "dosage":
            return super().read_packed(variants, samples)
        return pack(self._read(variants, samples, np.dtype(np.int8)))

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _open(self) -> Any:
        if self._reader is None:
            pgenlib = library("pgenlib")
            try:
                self._reader = pgenlib.PgenReader(
                    os.fsencode(self.path),
                    raw_sample_ct=len(self.samples),
                    variant_ct=len(self._offsets) - 1,
                    allele_idx_offsets=self._offsets,
                )
            except RuntimeError as error:
                text = error.args[0]
                said = text.decode() if isinstance(text, bytes) else str(text)
                raise FileFormatError(
                    f"{self.path} and its .pvar and .psam do not belong together, or it is "
                    f"damaged: {said.strip()}"
                ) from None
        return self._reader

    def _read(
        self, variants: Rows, samples: NDArray[np.integer[Any]] | None, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        """Return what pgenlib gives, -9 where missing."""
        numbers = row_numbers(variants, self.n_variants)
        records, alleles = self._records[numbers], self._alleles[numbers]
        chosen, order = (None, None) if samples is None else np.unique(samples, return_inverse=True)
        width = self.n_samples if chosen is None else len(chosen)
        values = np.empty((len(numbers), width), dtype)
        if not values.size:
            return values if order is None else values[:, order]
        with self._lock:
            reader = self._open()
            read = reader.read_list if dtype == np.int8 else reader.read_dosages_list
            try:
                reader.change_sample_subset(None if chosen is None else chosen.astype(np.uint32))
                for allele in np.unique(alleles):
                    rows = np.flatnonzero(alleles == allele)
                    # REF is counted directly where it is the only other allele.
                    wanted = 0 if self.count == "oa" and self._all_biallelic else int(allele)
                    part = (
                        values if len(rows) == len(values) else np.empty((len(rows), width), dtype)
                    )
                    read(records[rows], part, wanted)
                    if self.count == "oa" and wanted:
                        part[part != _MISSING] = self.ploidy - part[part != _MISSING]
                    if part is not values:
                        values[rows] = part
            except RuntimeError as error:
                raise FileFormatError(
                    f"{self.path}: genotypes of variants {numbers.min() + 1} to "
                    f"{numbers.max() + 1} cannot be read ({error}): the file is damaged, or has "
                    "dosages of variants with several ALT alleles, which pgenlib does not read."
                ) from None
        return values if order is None else values[:, order]

    @cached_property
    def _all_biallelic(self) -> bool:
        return bool((np.diff(self._offsets) == 2).all())


def _sidecar(path: Path, *suffixes: str) -> Path:
    for suffix in suffixes:
        if (place := path.with_suffix(suffix)).exists():
            return place
    names = " or ".join(path.with_suffix(suffix).name for suffix in suffixes)
    raise MissingSidecarError(f"{path} needs {names} beside it; it is not there.")


def _check_header(path: Path) -> bool:
    """Return whether dosages are stored, after checking the size of the file."""
    with path.open("rb") as stream:
        start = stream.read(12)
        if start[:2] != _MAGIC or len(start) < 12:
            raise FileFormatError(f"{path} is not a PLINK 2 .pgen file: it begins {start[:3]!r}.")
        mode = start[2]
        if mode == 1:
            raise FileFormatError(f"{path} is a PLINK 1 file: rename it to .bed, with .bim, .fam.")
        if mode in _FIXED_WIDTH:
            return _FIXED_WIDTH[mode]
        n_variants, form = int.from_bytes(start[3:7], "little"), start[11]
        if mode != _VARIABLE_WIDTH or form & 15 > 7 or not n_variants:
            return True  # rare layouts: pgenlib looks for dosages variant by variant
        return _check_records(path, stream, n_variants, form)


def _check_records(path: Path, stream: Any, n_variants: int, form: int) -> bool:
    """Go through the types and lengths of records, block by block (PGEN specification, 2.2)."""
    n_blocks = -(-n_variants // _RECORDS_PER_BLOCK)
    offsets = np.frombuffer(stream.read(8 * n_blocks), dtype="<u8")
    has_types, length_bytes, count_bytes = form & 4, 1 + (form & 3), (form >> 4) & 3
    has_dosages, end = False, 0
    for number in range(n_blocks):
        size = min(_RECORDS_PER_BLOCK, n_variants - number * _RECORDS_PER_BLOCK)
        types = np.frombuffer(stream.read(size if has_types else -(-size // 2)), dtype=np.uint8)
        has_dosages |= bool(has_types and (types & _DOSAGE_BITS).any())
        lengths = np.frombuffer(stream.read(size * length_bytes), dtype=np.uint8)
        stream.seek(size * count_bytes + (-(-size // 8) if form >> 6 == 3 else 0), os.SEEK_CUR)
        if len(offsets) < n_blocks or len(lengths) < size * length_bytes:
            end = -1
            break
        places = 256 ** np.arange(length_bytes, dtype=np.int64)
        end = int(offsets[number]) + int((lengths.reshape(size, -1) * places).sum())
    found = path.stat().st_size
    if end < 0 or found < end:
        needed = f"its {n_variants:,} variants take {end:,}" if end > 0 else "its header takes more"
        raise TruncatedFileError(
            f"{path} has {counted(found, 'byte')}; {needed}. It is cut off: copy it again."
        )
    return has_dosages


def _read_table(place: Path, header_begins: bytes) -> Any:
    """Return the columns of a table whose header begins so, as text, without its meta lines."""
    import polars as pl

    data = place.read_bytes()
    if place.suffix == ".zst":
        zstandard = library("zstandard")
        try:
            with zstandard.ZstdDecompressor().stream_reader(data) as stream:
                data = stream.read()
        except zstandard.ZstdError as error:
            raise FileFormatError(f"{place} is damaged ({error}).") from None
    start = 0
    while data[start : start + 2] == b"##":
        start = data.find(b"\n", start) + 1 or len(data)
    data = data[start:]
    header = data.split(b"\n", 1)[0].rstrip(b"\r")
    if not header.startswith(header_begins):
        raise FileFormatError(
            f"{place}: expected a header that begins {header_begins.decode()!r}, not "
            f"{header[:40].decode(errors='replace')!r}."
        )
    if b"\t" not in header:
        data = re.sub(rb"[ \t]*(\r?\n)[ \t]*", b"\n", re.sub(rb"[ \t]+", b"\t", data.strip()))
    try:
        return pl.read_csv(data, separator="\t", infer_schema=False, quote_char=None)
    except pl.exceptions.PolarsError as error:
        raise FileFormatError(f"{place} is not a table ({error}).") from None


def _read_variants(place: Path) -> Any:
    frame = _read_table(place, b"#CHROM")
    lacking = [name for name in _PVAR if name not in frame.columns]
    if lacking:
        raise FileFormatError(f"{place} lacks the column {lacking[0]}.")
    frame = frame.select([*_PVAR, *(["CM"] if "CM" in frame.columns else [])])
    if frame["ALT"].null_count():  # the last of the columns: a shorter line lacks it
        row = int(frame["ALT"].is_null().arg_max() or 0)
        raise FileFormatError(f"{place}: variant {row + 1} lacks columns. Is the file cut off?")
    return frame


def read_pvar(place: Path) -> VariantTable:
    """Read the variants of a .pvar (or .pvar.zst), one row for each ALT allele."""
    import polars as pl

    frame = _read_variants(place).with_columns(pl.col("ALT").str.split(",")).explode("ALT")
    cm = pl.col("CM") if "CM" in frame.columns else pl.lit("nan")
    return VariantTable(
        frame.select(
            chrom="#CHROM",
            pos=_numbers(place, frame["POS"]),
            id="ID",
            oa="REF",
            ea="ALT",
            cm=cm.cast(pl.Float64, strict=False).fill_null(float("nan")),
        )
    )


def _read_samples(
    place: Path,
) -> tuple[NDArray[np.str_], NDArray[np.str_] | None, NDArray[np.int64]]:
    """Return names of the samples, families, and sexes: 1 male, 2 female, 0 unknown."""
    frame = _read_table(place, b"#")
    names = [name.removeprefix("#") for name in frame.columns]
    if "IID" not in names:
        raise FileFormatError(f"{place} lacks the column IID.")
    own = frame.to_series(names.index("IID")).to_list()
    families = frame.to_series(names.index("FID")).to_list() if "FID" in names else None
    said = frame.to_series(names.index("SEX")).to_list() if "SEX" in names else [None] * len(own)
    sexes = np.array([_SEXES.get(str(sex).upper(), 0) for sex in said], dtype=np.int64)
    known = None if families is None else np.array(families, dtype=np.str_)
    return family_samples(place, families or ["0"] * len(own), own), known, sexes


def _numbers(path: Path, text: Any) -> Any:
    import polars as pl

    numbers = text.cast(pl.Int64, strict=False)
    if numbers.null_count():
        row = int(numbers.is_null().arg_max() or 0)
        raise FileFormatError(f"{path.with_suffix('.pvar')}: {text[row]!r} is not a position.")
    return numbers
