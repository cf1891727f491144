"""VCF and BCF, read forward as they are written."""

import gzip
import os
import threading
import zlib
from array import array
from collections.abc import Iterator
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_dosages, row_numbers
from plait.data.genotypes import GenotypeSource, Rows, as_floats
from plait.data.variants import VariantTable
from plait.errors import (
    FileFormatError,
    MissingSidecarError,
    OptionError,
    TruncatedFileError,
)
from plait.io.genotype_files import (
    COUNTS,
    DOSAGES,
    MULTIALLELIC,
    HaploidNotice,
    VariantList,
    check_option,
    distinct_samples,
    library,
    require_file,
    swapped,
)
from plait.io.regions import Region, require_chromosome
from plait.io.vcf_fields import DOSAGE_FIELDS, Alternative, dosages_of, hard_calls_of

if TYPE_CHECKING:
    from polars import DataFrame

_END_OF_BGZF = bytes.fromhex("1f8b08040000000000ff0600424302001b0003000000000000000000")
_LOOKED_AT = 1000
"""Records that are looked at for the dosages that a header declares."""
_FAR = 2000
"""With an index, so many records are rather sought than read and thrown away."""


class VcfSource(GenotypeSource):
    """Genotypes of a VCF or BCF file.

    Parameters
    ----------
    path : path
        A .vcf, .vcf.gz or .bcf file.
    dosage : {"auto", "hardcall", "dosage", "DS", "GP"}
        "hardcall" reads GT. "dosage" reads the first of DS, GP and GT that a record has; "DS" and
        "GP" read that field, and GT of records without it. A sample without a value of the field
        has the dosage of its GT. "auto" is "dosage" if the header declares DS or GP, whether or
        not the first records have them, else "hardcall"; and "hardcall" too if no record of a file
        of at most 1,000 has them.
    count : {"ea", "oa"}
        Which allele is counted: ALT, or the others.
    multiallelic : {"split", "drop"}
        A record with several ALT alleles becomes one row for each of them, whose dosage is the
        number of copies of that ALT; or it is left out.
    region : str, optional
        ``chromosome:start-stop``, from 1, both included: variants that begin there. Needs an index
        (.tbi or .csi).
    threads : int
        Threads that decompress.

    Raises
    ------
    MissingSidecarError
        A region is asked for and there is no index.
    OptionError
        DS or GP is asked for and the header does not declare it.

    Notes
    -----
    A call with a missing allele ("0/.") is missing. The allele of a haploid genotype (of the Y
    chromosome, of mitochondria, of a haploid organism) counts twice, as in PLINK: 0 or 2 copies, so
    that frequencies and counts are on one scale. Its DS and GP are of that one allele and count
    twice as well; DS without a GT beside it is taken as that of a diploid. Genotypes of more than
    two alleles are an error. GP are taken in proportion where they do not add up to 1, and are
    missing where all are 0, as in PLINK 2.

    A VCF can only be read forward. Opening one goes through the sites once, without the genotypes,
    to list the variants. After that, consecutive blocks continue one stream, and nothing is read
    twice. Variants in between are passed over, which costs almost as much as reading them. Going
    back opens the file again and passes over all that comes before, unless the file is sorted and
    indexed: then places are sought. Whoever reads a file more than a few times or in any other
    order should convert it (`plait.io.convert_genotypes`).
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        dosage: str = "auto",
        count: str = "ea",
        multiallelic: str = "split",
        region: str | None = None,
        threads: int = 1,
    ) -> None:
        check_option("dosage", dosage, (*DOSAGES, *DOSAGE_FIELDS))
        check_option("count", count, COUNTS)
        check_option("multiallelic", multiallelic, MULTIALLELIC)
        self.path, self.dosage, self.count = Path(path), dosage, count
        self.multiallelic, self.region, self.threads = multiallelic, region, threads
        require_file(self.path)
        _check_end(self.path)
        self._has_index = _has_index(self.path)
        self._within = None if region is None else self._region(Region.parse(region))
        with_samples = self._open()
        self.samples = distinct_samples(self.path, list(with_samples.samples))
        self._fields = self._dosage_fields(with_samples)
        if dosage not in ("auto", "hardcall") or (dosage == "auto" and self._may_have_dosages()):
            self.kind = "dosage"
        self._haploid = HaploidNotice(self.path)
        self._lock = threading.Lock()
        self._stream: Iterator[Any] | None = None
        self._at = -1
        self._record: Any = None
        self._list_variants()

    def __reduce__(self) -> tuple[Any, ...]:
        options = (self.dosage, self.count, self.multiallelic, self.region, self.threads)
        return type(self), (self.path, *options)

    @property
    def n_variants(self) -> int:
        """Number of variants M, after those with several ALT alleles are split."""
        return len(self._records)

    @cached_property
    def variants(self) -> VariantTable:
        """All variants, in the order of the file."""
        return self._table if self.count == "ea" else swapped(self._table)

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read` and the notes on the order of reading."""
        if self.kind == "hardcall":
            return as_floats(self._read(variants, samples, np.dtype(np.int8)), dtype)
        as_dosages(np.empty(0, np.float32), dtype)  # refuse other types before reading
        return self._read(variants, samples, np.dtype(dtype))

    def close(self) -> None:
        """Close the file."""
        self._stream, self._record, self._at = None, None, -1

    def _read(
        self, variants: Rows, samples: NDArray[np.integer[Any]] | None, dtype: np.dtype[Any]
    ) -> NDArray[Any]:
        numbers = row_numbers(variants, self.n_variants)
        records, alleles = self._records[numbers], self._alleles[numbers]
        width = self.n_samples if samples is None else len(samples)
        values = np.empty((len(numbers), width), dtype)
        decode: Any = hard_calls_of
        if dtype != np.int8:
            decode = partial(dosages_of, fields=self._fields)
        with self._lock:
            for row in np.argsort(records, kind="stable"):
                record = self._go_to(int(records[row]))
                wanted = Alternative(int(alleles[row]), self.count == "oa")
                found, alone = decode(record, wanted, self.path)
                if alone.any():
                    self._haploid.say()
                values[row] = found if samples is None else found[samples]
        return values

    def _go_to(self, number: int) -> Any:
        """Return a record; the one read last is kept, as it may have a further ALT."""
        if self._at == number and self._record is not None:
            return self._record
        ahead = number - self._at
        can_seek = self._has_index and self._is_sorted
        # Whoever interrupts this finds no stream, never one that is a record ahead.
        stream, at = self._stream, self._at
        self._stream = self._record = record = None
        if stream is None or ahead < 0 or (ahead > _FAR and can_seek):
            start = number if can_seek else 0
            stream, at = self._records_from(start), start - 1
        while at < number:
            record = next(stream, None)
            if record is None:
                raise FileFormatError(f"{self.path} ended while it was read: was it replaced?")
            at += 1
        self._at = at
        self._record, self._stream = record, stream
        return record

    def _records_from(self, number: int) -> Iterator[Any]:
        """Yield the records from one on (0, or any if places can be sought)."""
        vcf = self._open()
        if self._within is None and number == 0:
            yield from _said_clearly(vcf, self.path, 0)
            return
        for chrom, run in self._runs:
            if number >= run.stop:
                continue
            start, last = int(self._pos[max(number, run.start)]), int(self._pos[run.stop - 1])
            first = run.start + int(np.searchsorted(self._pos[run], start))
            # A query also gives what begins before and reaches into the region: skip these, and
            # what comes before the record at the same position.
            skip = max(number, run.start) - first
            for record in _said_clearly(vcf(f"{chrom}:{start}-{last}"), self.path, first):
                if start > record.POS:
                    continue
                if skip > 0:
                    skip -= 1
                    continue
                yield record

    def _list_variants(self) -> None:
        """Go through the sites once."""
        table = VariantList()
        records, alleles, positions = array("q"), array("q"), array("q")
        starts: list[tuple[str, int]] = []
        for number, site in enumerate(self._sites()):
            chrom, pos, alts = site.CHROM, site.POS, site.ALT or ["."]
            positions.append(pos)
            if not starts or starts[-1][0] != chrom:
                starts.append((chrom, number))
            if len(alts) > 1 and self.multiallelic == "drop":
                continue
            for allele, alt in enumerate(alts, start=1):
                records.append(number)
                alleles.append(allele)
                table.add(chrom, pos, site.ID or ".", site.REF, alt)
        self._table = table.table()
        self._records = np.array(records, dtype=np.intp)
        self._alleles = np.array(alleles, dtype=np.intp)
        self._pos = np.array(positions, dtype=np.int64)
        stops = [*(start for _, start in starts), len(positions)][1:]
        self._runs = [(c, slice(a, b)) for (c, a), b in zip(starts, stops, strict=True)]
        names = [chrom for chrom, _ in self._runs]
        self._is_sorted = (
            len(set(names)) == len(names)
            and not any(":" in name for name in names)  # would be read as a region
            and all((np.diff(self._pos[run]) >= 0).all() for _, run in self._runs)
        )

    def _sites(self) -> Iterator[Any]:
        vcf = self._open(samples=[])
        if self._within is None:
            return _said_clearly(vcf, self.path, 0)
        within = self._within
        found = vcf(f"{within.chrom}:{within.start}-{within.stop}")
        return (site for site in _said_clearly(found, self.path, 0) if within.start <= site.POS)

    def _dosage_fields(self, vcf: Any) -> tuple[str, ...]:
        """Return the fields that dosages are read from, of those that the header declares."""
        declared = {
            line["ID"] for line in vcf.header_iter() if line["HeaderType"] == "FORMAT"
        } & set(DOSAGE_FIELDS)
        if self.dosage in DOSAGE_FIELDS:
            if self.dosage not in declared:
                raise OptionError(
                    f"the header of {self.path} declares no {self.dosage}; leave out "
                    f"dosage={self.dosage!r}."
                )
            return (self.dosage,)
        return tuple(field for field in DOSAGE_FIELDS if field in declared)

    def _may_have_dosages(self) -> bool:
        """Tell whether a record may have dosages: none has if the file ends before one is seen.

        Some headers declare what no record has; records without dosages may come first.
        """
        if not self._fields:
            return False
        known = list(self.samples[:1])
        for number, record in enumerate(_said_clearly(self._open(known), self.path, 0)):
            if number >= _LOOKED_AT or not set(self._fields).isdisjoint(record.FORMAT or ()):
                return True
        return False

    def _region(self, region: Region) -> Region:
        if not self._has_index:
            raise MissingSidecarError(
                f"{self.path} needs {self.path.name}.tbi or .csi beside it to read a region. Make "
                f"one: bcftools index {self.path} (a .vcf has first to be compressed by bgzip)."
            )
        require_chromosome(region.chrom, self._open().seqnames, self.path)
        return region

    def _open(self, samples: list[str] | None = None) -> Any:
        cyvcf2 = library("cyvcf2")
        try:
            return cyvcf2.VCF(
                os.fspath(self.path), gts012=True, samples=samples, threads=self.threads
            )
        except Exception as error:  # cyvcf2 raises plain exceptions
            distinct_samples(self.path, _header_samples(self.path))
            raise FileFormatError(f"{self.path} is not a VCF or BCF file ({error}).") from None


def read_vcf_sites(path: str | os.PathLike[str]) -> "DataFrame":
    """Read what a VCF or BCF says about variants, with or without genotypes.

    Parameters
    ----------
    path : path

    Returns
    -------
    polars.DataFrame
        ``chrom``, ``pos``, ``id``, ``oa``, ``ea`` and ``eaf``, a row for each ALT. Frequencies are
        those of the field AF of INFO, NaN where it is not there.

    Raises
    ------
    FileFormatError
        It is no VCF, or damaged.

    Notes
    -----
    The sites are gone through twice; genotypes are passed over.
    """
    import polars as pl

    source = VcfSource(path)
    eaf = array("d")
    for site in source._sites():
        found = site.INFO.get("AF")
        given = found if isinstance(found, tuple) else (found,)
        n_alleles = len(site.ALT or ["."])
        if len(given) != n_alleles:
            given = (None,) * n_alleles
        eaf.extend(float("nan") if value is None else value for value in given)
    frame = source.variants.frame.drop("cm")
    return frame.with_columns(eaf=pl.Series(np.array(eaf, dtype=np.float64)))


def _said_clearly(records: Any, path: Path, first: int) -> Iterator[Any]:
    """Yield records; what is wrong with a line is said with its place."""
    number = max(first, 0)
    try:
        for record in records:
            number += 1
            yield record
    except GeneratorExit:
        raise
    except Exception as error:  # cyvcf2 raises plain exceptions
        raise FileFormatError(
            f"{path}: record {number + 1} cannot be read ({error}). The file is damaged or cut off."
        ) from None


def _has_index(path: Path) -> bool:
    return any(path.with_name(path.name + suffix).exists() for suffix in (".tbi", ".csi"))


def _check_end(path: Path) -> None:
    """Raise where a file compressed in blocks lacks the empty block that ends it."""
    with path.open("rb") as stream:
        start = stream.read(14)
        if start[:4] != b"\x1f\x8b\x08\x04" or start[12:14] != b"BC":
            return
        stream.seek(max(path.stat().st_size - len(_END_OF_BGZF), 0))
        if stream.read() != _END_OF_BGZF:
            raise TruncatedFileError(
                f"{path} is cut off: the block that ends such files is not there. Copy it again."
            )


def _header_samples(path: Path) -> list[str]:
    """Return the samples of a header that the library refuses; none where it cannot be read."""
    with path.open("rb") as stream:
        is_gzip = stream.read(2) == b"\x1f\x8b"
    try:
        with gzip.open(path, "rb") if is_gzip else path.open("rb") as stream:
            for line in stream:
                if not line.startswith(b"#"):
                    return []
                if line.startswith(b"#CHROM"):
                    fields = line.decode(errors="replace").rstrip("\r\n").split("\t")
                    return fields[9:]
    except (OSError, EOFError, zlib.error):
        return []
    return []
