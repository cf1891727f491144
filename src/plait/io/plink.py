"""PLINK 1 binary genotypes: .bed with its .bim and .fam."""

import os
from collections.abc import Iterable
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import row_numbers
from plait.data.genotypes import GenotypeSource, Packed, Rows, as_floats, pack
from plait.data.variants import VariantTable
from plait.data.words import counted
from plait.errors import (
    FileFormatError,
    MissingSidecarError,
    OptionError,
    ShapeError,
    TruncatedFileError,
    UnsupportedLayoutError,
)
from plait.io.atomic import replace_file
from plait.io.genotype_files import family_samples
from plait.io.plink_tables import TextRows, bim_variants, read_table, require_filled

MAGIC = b"\x6c\x1b"
_VARIANT_MAJOR = b"\x01"
_HEADER = 3
_GAP = 32 * 2**10
"""Bytes that are read in less time than it takes to ask for others."""
_SPAN = 4 * 2**20
"""Bytes of rows that are read together, with what lies between them."""
_FAM_COLUMNS = ("family", "sample", "father", "mother", "sex", "phenotype")


class BedSource(GenotypeSource):
    """Hard calls of a .bed file, read as they are packed.

    Parameters
    ----------
    path : path
        The .bed file, with .bim (or .bim.gz) and .fam (or .fam.gz) beside it.
    count : {"ea", "oa"}
        Which allele is counted: the first of the .bim (its fifth column), or the second.

    Attributes
    ----------
    families : (N,) array of str
    sexes : (N,) array of int
        1 male, 2 female, 0 unknown.

    Notes
    -----
    Samples are called by their own names where those differ, else ``family:name``. Phenotypes of
    the .fam are not read.
    """

    lies_packed = True

    def __init__(self, path: str | os.PathLike[str], count: str = "ea") -> None:
        if count not in ("ea", "oa"):
            raise OptionError(f"count is 'ea' or 'oa', not {count!r}.")
        self.path, self.count = Path(path), count
        fam = read_table(_sidecar(self.path, ".fam"), _FAM_COLUMNS)
        require_filled(fam, _sidecar(self.path, ".fam"), ("family", "sample"))
        self.families: NDArray[np.str_] = np.array(fam["family"].to_list(), dtype=np.str_)
        self.sexes: NDArray[np.int64] = (
            fam["sex"].str.to_integer(strict=False).fill_null(0).to_numpy()
        )
        self.samples = family_samples(
            _sidecar(self.path, ".fam"), self.families.tolist(), fam["sample"].to_list()
        )
        self._row_bytes = -(-len(self.samples) // 4)
        self._descriptor = -1
        self._bim = TextRows.of(_sidecar(self.path, ".bim"))
        self._check()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.count)

    @property
    def n_variants(self) -> int:
        """Number of variants M."""
        return self._bim.count

    @cached_property
    def variants(self) -> VariantTable:
        """All variants, in the order of the file; they stay in the .bim."""
        return bim_variants(self._bim, self.count)

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        from plait.data.genotype_kernels import unpack_calls

        packed = self._rows(variants)
        if samples is not None:
            packed = _select(packed, samples)
        calls = unpack_calls(packed, self.n_samples if samples is None else len(samples))
        return as_floats(calls, dtype)

    def read_packed(
        self, variants: slice, samples: NDArray[np.integer[Any]] | None = None
    ) -> Packed:
        """Return the calls as they lie in the file; see `GenotypeSource.read_packed`."""
        packed = self._rows(variants)
        return packed if samples is None else _select(packed, samples)

    def close(self) -> None:
        """Close the file."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _rows(self, variants: Rows) -> Packed:
        if isinstance(variants, slice):
            start, stop, step = variants.indices(self.n_variants)
            if step == 1:
                return self._clean(self._read_rows(start, max(stop - start, 0)))
        numbers = row_numbers(variants, self.n_variants)
        packed = np.empty((len(numbers), self._row_bytes), dtype=np.uint8)
        for some in self._near_one_another(numbers):
            first, last = int(numbers[some][0]), int(numbers[some][-1])
            packed[some] = self._read_rows(first, last - first + 1)[numbers[some] - first]
        return self._clean(packed)

    def _near_one_another(self, numbers: NDArray[np.integer[Any]]) -> list[slice]:
        """Cut ascending rows where reading what lies between takes longer than to read anew."""
        if not len(numbers):
            return []
        apart, windows = np.diff(numbers), numbers // max(_SPAN // self._row_bytes, 1)
        cut = (apart <= 0) | (apart * self._row_bytes > _GAP) | (np.diff(windows) > 0)
        edges = [0, *(np.flatnonzero(cut) + 1).tolist(), len(numbers)]
        return [slice(start, stop) for start, stop in pairwise(edges)]

    def _read_rows(self, start: int, count: int) -> Packed:
        if self._descriptor < 0:
            self._descriptor = os.open(self.path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        size = count * self._row_bytes
        data = os.pread(self._descriptor, size, _HEADER + start * self._row_bytes)
        if len(data) < size:
            raise TruncatedFileError(f"{self.path} ended while it was read: was it replaced?")
        return np.frombuffer(data, dtype=np.uint8).reshape(count, self._row_bytes)

    def _clean(self, packed: Packed) -> Packed:
        """Mark what is beyond the last sample missing, and swap the alleles if asked."""
        left_over = -self.n_samples % 4
        if not left_over and self.count == "ea":
            return packed
        packed = packed.copy()
        if self.count == "oa":  # 00 and 11 change places: both bits flip where they are equal
            same = ~(packed ^ (packed >> 1)) & 0x55
            packed ^= same | (same << 1)
        if left_over and len(packed):
            used = (1 << 2 * (4 - left_over)) - 1
            packed[:, -1] = (packed[:, -1] & used) | (0x55 & ~used & 0xFF)
        return packed

    def _check(self) -> None:
        """Check the size of the file."""
        try:
            with self.path.open("rb") as stream:
                magic = stream.read(_HEADER)
        except FileNotFoundError:
            raise MissingSidecarError(f"{self.path}: there is no such file.") from None
        if magic[:2] != MAGIC:
            raise FileFormatError(f"{self.path} is not a PLINK .bed file: it begins {magic!r}.")
        if magic[2:] != _VARIANT_MAJOR:
            raise UnsupportedLayoutError(
                f"{self.path} is stored sample by sample. Convert it: plink2 --bfile "
                f"{self.path.with_suffix('')} --make-bed --out NEW."
            )
        size = self.path.stat().st_size
        expected = _HEADER + self.n_variants * self._row_bytes
        if size != expected:
            raise TruncatedFileError(
                f"{self.path} has {counted(size, 'byte')}; "
                f"{counted(self.n_variants, 'variant')} (.bim) of "
                f"{counted(len(self.samples), 'sample')} (.fam) take {expected:,}. Either it is "
                "cut off, or these files do not belong together."
            )


def write_bed(
    path: str | os.PathLike[str],
    calls: Iterable[NDArray[np.int8]],
    variants: VariantTable,
    samples: Any,
    *,
    overwrite: bool = False,
) -> None:
    """Write .bed, .bim and .fam.

    Parameters
    ----------
    path : path
        The .bed file.
    calls : iterable of (variants, N) int8 arrays
        Copies of the effect allele, -1 where missing, block by block.
    variants : VariantTable
    samples : sequence of str
        Names (N,); families are 0, unknown, so that tables with ``#IID`` alone match them.
    overwrite : bool
        Whether files that exist are replaced.

    Raises
    ------
    ShapeError
        Blocks do not add up to the variants and samples.
    OutputError
        A file exists or cannot be written.
    """
    path = Path(path)
    names = [str(name) for name in samples]
    with (
        replace_file(path, overwrite) as bed,
        replace_file(path.with_suffix(".bim"), overwrite) as bim,
        replace_file(path.with_suffix(".fam"), overwrite) as fam,
    ):
        written = 0
        with bed.open("wb") as stream:
            stream.write(MAGIC + _VARIANT_MAJOR)
            for block in calls:
                if block.shape[1] != len(names):
                    raise ShapeError(f"a block has {block.shape[1]} samples, not {len(names)}.")
                stream.write(_padded_with_zeros(pack(block), len(names)).tobytes())
                written += len(block)
        if written != len(variants):
            raise ShapeError(f"{written:,} rows of calls, but {len(variants):,} variants.")
        frame = variants.frame.select("chrom", "id", "cm", "pos", "ea", "oa")
        frame.fill_nan(0.0).write_csv(bim, separator="\t", include_header=False)
        lines = (f"0\t{name}\t0\t0\t0\t-9\n" for name in names)
        fam.write_text("".join(lines), encoding="utf-8")


def _padded_with_zeros(packed: Packed, n_samples: int) -> Packed:
    """Return packed calls with zeros beyond the last sample, as PLINK writes them."""
    left_over = -n_samples % 4
    if left_over:
        packed[:, -1] &= (1 << 2 * (4 - left_over)) - 1
    return packed


def _select(packed: Packed, samples: NDArray[np.integer[Any]]) -> Packed:
    from plait.data.genotype_kernels import select_samples

    chosen: Packed = select_samples(packed, np.asarray(samples, dtype=np.int64))
    return chosen


def _sidecar(path: Path, suffix: str) -> Path:
    """Return the file beside a .bed, compressed or not."""
    for candidate in (path.with_suffix(suffix), path.with_suffix(f"{suffix}.gz")):
        if candidate.exists():
            return candidate
    raise MissingSidecarError(
        f"{path} needs {path.with_suffix(suffix).name} (or .gz) beside it; it is not there."
    )
