"""BGEN 1.1 to 1.3: probabilities of genotypes, read as dosages."""

import logging
import os
import threading
import warnings
from array import array
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_dosages, hard_calls, row_numbers
from plait.data.genotypes import GenotypeSource, Rows, as_floats
from plait.data.variants import VariantTable
from plait.data.words import counted
from plait.errors import DataWarning, FileFormatError, MissingSidecarError, TruncatedFileError
from plait.io.genotype_files import (
    COUNTS,
    DOSAGES,
    HaploidNotice,
    VariantList,
    check_option,
    distinct_samples,
    family_samples,
    library,
    require_file,
    swapped,
)

_FIRST_ALLELE = ("reference", "unknown")
_INDEX_QUERY = (
    "SELECT chromosome, position, coalesce(nullif(rsid, ''), '.'), number_of_alleles, allele1, "
    "allele2, file_start_position + size_in_bytes FROM Variant ORDER BY file_start_position"
)
_Row = tuple[Any, ...]  # chromosome, position, name, number of alleles, the first two alleles
_log = logging.getLogger("plait.io")


class BgenSource(GenotypeSource):
    """Dosages of a .bgen file.

    Parameters
    ----------
    path : path
        The .bgen file. An index beside it (.bgen.bgi) makes opening faster.
    dosage : {"auto", "hardcall", "dosage"}
        "hardcall" rounds dosages within 0.1 of a whole number and takes others as missing; the
        others read dosages.
    count : {"ea", "oa"}
        Which allele is counted: the second, or the first.
    first_allele : {"reference", "unknown"}
        The format does not say which allele is the reference. This is recorded, and what is assumed
        is logged; dosages do not depend on it.
    sample_path : path, optional
        The .sample file. Default the names inside the .bgen, else the .sample beside it.

    Notes
    -----
    The allele of a haploid genotype counts twice, as in PLINK: dosages are 0 to 2 for all samples.
    Variants with more than two alleles are left out, with a `DataWarning`. A reader holds one file
    handle, so threads take turns with it; give each worker its own source.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dosage: str = "auto",
        count: str = "ea",
        first_allele: str = "reference",
        sample_path: str | os.PathLike[str] | None = None,
    ) -> None:
        check_option("dosage", dosage, DOSAGES)
        check_option("count", count, COUNTS)
        check_option("first_allele", first_allele, _FIRST_ALLELE)
        self.path, self.dosage, self.count = Path(path), dosage, count
        self.first_allele = first_allele
        self.sample_path = None if sample_path is None else Path(sample_path)
        self.kind = "hardcall" if dosage == "hardcall" else "dosage"
        require_file(self.path)
        if first_allele == "reference":
            _log.warning("%s: the first allele is taken as the reference.", self.path)
        self._reader: Any = None
        self._haploid = HaploidNotice(self.path)
        self._lock = threading.Lock()
        self.samples = self._sample_names()
        self._table, self._records = self._list_variants()
        self.close()  # a reader that came to the end of the file cannot go back

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self.dosage, self.count, self.first_allele, self.sample_path)
        return type(self), (self.path, *options)

    @property
    def n_variants(self) -> int:
        """Number of variants M with two alleles."""
        return len(self._records)

    @cached_property
    def variants(self) -> VariantTable:
        """All variants with two alleles, in the order of the file."""
        return self._table if self.count == "ea" else swapped(self._table)

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        is_hard = self.kind == "hardcall"
        kind = np.dtype(np.int8 if is_hard else dtype)
        if not is_hard:
            as_dosages(np.empty(0, np.float32), dtype)  # refuse other types before reading
        numbers = row_numbers(variants, self.n_variants)
        width = self.n_samples if samples is None else len(samples)
        values = np.empty((len(numbers), width), kind)
        with self._lock:
            for row, record in enumerate(self._records[numbers].tolist()):
                dosage = self._dosage(record)
                dosage = dosage if samples is None else dosage[samples]
                values[row] = hard_calls(dosage) if is_hard else dosage
        return as_floats(values, dtype) if is_hard else values

    def close(self) -> None:
        """Close the file."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def _dosage(self, record: int) -> NDArray[np.float32]:
        try:
            variant = self._open()[record]
            dosage: NDArray[np.float32] = variant.alt_dosage
            alone = variant.ploidy == 1
        except (ValueError, RuntimeError) as error:
            raise FileFormatError(
                f"{self.path}: variant {record + 1} cannot be read ({error})."
            ) from None
        if alone.any():
            self._haploid.say()
            dosage = np.where(alone, 2 * dosage, dosage)
        return self.ploidy - dosage if self.count == "oa" else dosage

    def _open(self) -> Any:
        if self._reader is None:
            bgen = library("bgen")
            try:
                self._reader = bgen.BgenReader(os.fspath(self.path))
            except (ValueError, RuntimeError, IndexError) as error:
                raise FileFormatError(f"{self.path} is not a BGEN file ({error}).") from None
            if not self._reader.header.nsamples:
                raise FileFormatError(f"{self.path} has no samples.")
        return self._reader

    def _sample_names(self) -> NDArray[np.str_]:
        reader = self._open()
        if self.sample_path is None and reader.header.has_sample_ids:
            return distinct_samples(self.path, reader.samples)
        place = self.sample_path or self.path.with_suffix(".sample")
        if not place.exists():
            raise MissingSidecarError(
                f"{self.path} does not name its samples and needs {place.name} beside it; it is "
                "not there (or give sample_path)."
            )
        rows = [line.split() for line in place.read_text(encoding="utf-8").splitlines()]
        rows = [row for row in rows if row]
        if len(rows) < 2 or len(rows[0]) < 2 or set(rows[1]) - set("0DCPB"):
            raise FileFormatError(
                f"{place}: expected two lines of header: names, and types (0, D, C, P or B)."
            )
        if len(rows) - 2 != reader.header.nsamples:
            raise FileFormatError(
                f"{place} has {len(rows) - 2} samples and {self.path} has "
                f"{reader.header.nsamples}: they do not belong together."
            )
        if any(len(row) < 2 for row in rows):
            raise FileFormatError(f"{place}: a line has fewer than 2 columns.")
        return family_samples(place, [row[0] for row in rows[2:]], [row[1] for row in rows[2:]])

    def _list_variants(self) -> tuple[VariantTable, NDArray[np.intp]]:
        """Return the variants with two alleles, and their numbers in the file."""
        index = self.path.with_name(self.path.name + ".bgi")
        rows = self._indexed(index) if index.exists() else self._scanned()
        table, kept, number = VariantList(), array("q"), -1
        for number, (chrom, pos, name, n_alleles, first, second) in enumerate(rows):
            if n_alleles == 2:
                table.add(chrom, pos, name, first, second)
                kept.append(number)
        if len(kept) < number + 1:
            warnings.warn(
                f"{self.path}: {number + 1 - len(kept)} variants with other than two alleles are "
                "left out.",
                DataWarning,
                stacklevel=3,
            )
        return table.table(), np.array(kept, dtype=np.intp)

    def _indexed(self, index: Path) -> Iterator[_Row]:
        import sqlite3

        count = end = 0
        try:
            connection = sqlite3.connect(index)
            try:
                for row in connection.execute(_INDEX_QUERY):
                    count, end = count + 1, row[-1]
                    yield row[:-1]
            finally:
                connection.close()
        except sqlite3.Error as error:
            raise FileFormatError(f"{index} is not an index of a BGEN file ({error}).") from None
        size, expected = self.path.stat().st_size, self._open().header.nvariants
        if end > size:
            raise TruncatedFileError(
                f"{self.path} has {counted(size, 'byte')}; by its index, {end:,}. It is cut off: "
                "copy it again."
            )
        if count != expected:
            raise TruncatedFileError(
                f"{index} lists {count:,} variants and {self.path} has {expected:,}: make the "
                "index again."
            )

    def _scanned(self) -> Iterator[_Row]:
        try:
            for variant in self._open():
                alleles = variant.alleles
                name = variant.rsid or variant.varid or "."
                first, second = (*alleles, ".", ".")[:2]
                yield variant.chrom, variant.pos, name, len(alleles), first, second
        except (ValueError, RuntimeError) as error:
            raise TruncatedFileError(f"{self.path} is damaged or cut off: {error}.") from None
