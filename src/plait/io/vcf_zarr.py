"""VCF-Zarr (specification 0.4): genotypes in chunks, in a folder, a .zip or an object store."""

import os
from collections.abc import Iterable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from plait.data.dosages import as_dosages, row_numbers
from plait.data.genotypes import GenotypeSource, Rows, as_floats
from plait.data.variants import VariantTable
from plait.errors import FileFormatError, ShapeError
from plait.io.atomic import replace_folder
from plait.io.genotype_files import (
    COUNTS,
    DOSAGES,
    MULTIALLELIC,
    HaploidNotice,
    check_option,
    distinct_samples,
    require_file,
)
from plait.io.vcf_fields import haploid, require_diploid

_VERSION = "0.4"
_CHUNK_VARIANTS = 1000
_CHUNK_SAMPLES = 10_000
_NEEDED = ("sample_id", "contig_id", "variant_contig", "variant_position", "variant_allele")
_ABSENT = -2


class VcfZarrSource(GenotypeSource):
    """Genotypes of a VCF-Zarr store.

    Parameters
    ----------
    path : str or path
        A folder, a .zip, or any URL that fsspec opens ("s3://...").
    dosage : {"auto", "hardcall", "dosage"}
        "hardcall" reads ``call_genotype``, "dosage" reads ``call_DS`` and the genotypes where there
        is none, or none of a sample; "auto" does so if the store has ``call_DS``.
    count : {"ea", "oa"}
        Which allele is counted: ALT, or the others.
    multiallelic : {"split", "drop"}
        A variant with several ALT alleles becomes one row for each of them, whose dosage is the
        number of copies of that ALT; or it is left out.

    Notes
    -----
    A call with a missing allele is missing, and one of more than two alleles an error. The allele
    of a haploid genotype counts twice, as in PLINK, and so does its ``call_DS`` where the store has
    ``call_genotype`` to tell. Chunks are read whole, so blocks that are not much smaller than the
    store's chunks read fastest. A chunk whose file was lost reads as what the store says that
    absent chunks hold (missing calls in the stores that plait writes).
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
        self.path, self.dosage, self.count = os.fspath(path), dosage, count
        self.multiallelic = multiallelic
        self._group = _open(self.path)
        self._haploid = HaploidNotice(self.path)
        self.samples = distinct_samples(self.path, self._labels("sample_id"))
        self._field = self._choose_field()
        self.kind = "dosage" if self._field == "call_DS" or dosage == "dosage" else "hardcall"
        self._table_of_alleles()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.path, self.dosage, self.count, self.multiallelic)

    @property
    def n_variants(self) -> int:
        """Number of variants M, after those with several ALT alleles are split."""
        return len(self._records)

    @cached_property
    def variants(self) -> VariantTable:
        """All variants, in the order of the store."""
        contigs = np.array(self._labels("contig_id"), dtype=object)
        chrom = contigs[self._values("variant_contig")[self._records]]
        pos = self._values("variant_position")[self._records]
        names = self._labels("variant_id") if "variant_id" in self._group else None
        labels = None if names is None else np.array(names, dtype=object)[self._records]
        ref = self._alleles_text[self._records, 0]
        alt = self._alleles_text[self._records, self._alleles]
        alt[alt == ""] = "."
        oa, ea = (ref, alt) if self.count == "ea" else (alt, ref)
        return VariantTable.of(chrom, pos, oa, ea, labels)

    def read(
        self,
        variants: Rows = slice(None),
        samples: NDArray[np.integer[Any]] | None = None,
        dtype: DTypeLike = np.float32,
    ) -> NDArray[Any]:
        """Return dosages; see `GenotypeSource.read`."""
        if self.kind == "dosage":
            as_dosages(np.empty(0, np.float32), dtype)  # refuse other types before reading
        numbers = row_numbers(variants, self.n_variants)
        if self._field == "call_genotype":
            return as_floats(self._calls(numbers, samples), dtype)
        return as_dosages(self._dosages(numbers, samples), dtype)

    def _calls(
        self, numbers: NDArray[np.intp], samples: NDArray[np.integer[Any]] | None
    ) -> NDArray[np.int8]:
        genotypes = self._rows("call_genotype", numbers, samples)
        require_diploid(genotypes, str(self.path))
        wanted = self._alleles[numbers][:, None]
        shape = genotypes.shape[:2]
        copies, present = np.zeros(shape, np.int8), np.zeros(shape, np.int8)
        missing = genotypes[:, :, 0] < 0
        for haplotype in range(genotypes.shape[2]):
            alleles = genotypes[:, :, haplotype]
            copies += alleles == wanted
            present += alleles != _ABSENT
            missing |= alleles == -1
        if self.count == "oa":
            copies = present - copies
        alone = (present == 1) & ~missing
        copies[alone] *= 2
        copies[missing] = -1
        if alone.any():
            self._haploid.say()
        return copies

    def _dosages(
        self, numbers: NDArray[np.intp], samples: NDArray[np.integer[Any]] | None
    ) -> NDArray[Any]:
        values = self._rows(self._field, numbers, samples)
        if values.ndim == 3:
            values = values[np.arange(len(numbers)), :, self._alleles[numbers] - 1]
        if "call_genotype" in self._group:
            alone = haploid(self._rows("call_genotype", numbers, samples)) & ~np.isnan(values)
            if alone.any():
                self._haploid.say()
                values = np.where(alone, 2 * values, values)
        values = self.ploidy - values if self.count == "oa" else values
        if "call_genotype" in self._group and np.isnan(values).any():
            # PLINK 2 writes the DS of a VCF only where it differs from the call.
            calls = self._calls(numbers, samples)
            by_call = np.isnan(values) & (calls >= 0)
            values = np.where(by_call, calls.astype(values.dtype), values)
        return values

    def _rows(
        self, name: str, numbers: NDArray[np.intp], samples: NDArray[np.integer[Any]] | None
    ) -> NDArray[Any]:
        """Return the values of the records that these variants are of, in their order."""
        records, order = np.unique(self._records[numbers], return_inverse=True)
        array = self._group[name]
        if not len(records):
            width = self.n_samples if samples is None else len(samples)
            return np.empty((0, width, *array.shape[2:]), array.dtype)
        is_run = records[-1] - records[0] + 1 == len(records)
        rows = slice(int(records[0]), int(records[-1]) + 1) if is_run else records
        try:
            if samples is None:
                found = np.asarray(array[rows] if is_run else array.oindex[rows])
            else:
                found = np.asarray(array.oindex[rows, np.asarray(samples)])
        except Exception as error:  # codecs raise what they like
            raise FileFormatError(
                f"{self.path}: {name} of records {records[0] + 1} to {records[-1] + 1} "
                f"cannot be read ({error}): the store is damaged."
            ) from None
        return found if np.array_equal(order, np.arange(len(found))) else found[order]

    def _choose_field(self) -> str:
        has_genotypes, has_dosages = (f in self._group for f in ("call_genotype", "call_DS"))
        if has_dosages and self.dosage != "hardcall":
            return "call_DS"
        if has_genotypes:
            return "call_genotype"
        raise FileFormatError(
            f"{self.path} has no call_genotype"
            + (", only dosages (call_DS)." if has_dosages else " and no call_DS.")
        )

    def _table_of_alleles(self) -> None:
        text = np.array(self._values("variant_allele").astype(object))
        if text.ndim != 2 or text.shape[1] < 1:
            raise FileFormatError(f"{self.path}: variant_allele is a table (variants, alleles).")
        shape = self._group[self._field].shape
        if shape[:2] != (len(text), len(self.samples)):
            raise FileFormatError(
                f"{self.path}: {self._field} has the shape {shape}; there are {len(text):,} "
                f"variants and {len(self.samples):,} samples."
            )
        if text.shape[1] == 1:
            text = np.column_stack([text, np.full(len(text), "", dtype=object)])
        self._alleles_text = text
        n_alts = np.maximum((text[:, 1:] != "").sum(axis=1), 1)
        kept = np.arange(len(text))
        if self.multiallelic == "drop":
            kept = kept[n_alts == 1]
        self._records = np.repeat(kept, n_alts[kept])
        starts = np.cumsum(n_alts[kept]) - n_alts[kept]
        self._alleles = np.arange(1, len(self._records) + 1) - np.repeat(starts, n_alts[kept])

    def _values(self, name: str) -> NDArray[Any]:
        try:
            return np.asarray(self._group[name][:])
        except Exception as error:  # codecs raise what they like
            raise FileFormatError(f"{self.path}: {name} cannot be read ({error}).") from None

    def _labels(self, name: str) -> list[str]:
        return [str(label) for label in self._values(name).tolist()]


def write_vcf_zarr(
    path: str | os.PathLike[str],
    genotypes: GenotypeSource | Iterable[NDArray[Any]],
    variants: VariantTable | None = None,
    samples: Any = None,
    *,
    overwrite: bool = False,
) -> None:
    """Write a VCF-Zarr store: diploid calls, or dosages.

    Parameters
    ----------
    path : path
        A folder that ends in .vcz or .zarr.
    genotypes : GenotypeSource or iterable of (variants, N) arrays
        A source, or blocks: int8 with -1 where missing makes ``call_genotype``, floats with NaN
        where missing make ``call_DS``. The other allele is written as REF, the effect allele as
        ALT.
    variants : VariantTable, optional
        Needed with blocks.
    samples : sequence of str, optional
        Needed with blocks.
    overwrite : bool
        Whether a store that exists is replaced.

    Raises
    ------
    ShapeError
        Blocks do not add up to the variants and samples.
    OutputError
        The store exists or cannot be written.
    """
    import zarr

    if isinstance(genotypes, GenotypeSource):
        variants, samples = genotypes.variants, genotypes.samples
        blocks = source_blocks(genotypes)
    elif variants is None or samples is None:
        raise ShapeError("blocks of genotypes come with their variants and samples.")
    else:
        blocks = iter(genotypes)
    names = [str(name) for name in samples]
    with replace_folder(path, overwrite) as folder:
        group = zarr.open_group(folder, mode="w", zarr_format=3)
        _write_labels(group, variants, names)
        writer = _CallWriter(group, len(variants), len(names))
        for block in blocks:
            writer.add(block)
        writer.finish()
        from plait import __version__

        group.attrs.update({"vcf_zarr_version": _VERSION, "source": f"plait-{__version__}"})


def source_blocks(source: GenotypeSource) -> Iterator[NDArray[Any]]:
    """Yield the genotypes of a source block by block, hard calls as int8."""
    dtype = np.int8 if source.kind == "hardcall" else np.float32
    for rows in source.blocks(by_chromosome=False):
        yield source.read(rows, dtype=dtype)


class _CallWriter:
    """Writes whole chunks of calls, whatever the size of the blocks that come in."""

    def __init__(self, group: Any, n_variants: int, n_samples: int) -> None:
        self.group, self.shape = group, (n_variants, n_samples)
        self.waiting: list[NDArray[Any]] = []
        self.written = self.received = 0
        self.arrays: dict[str, Any] = {}

    def add(self, block: NDArray[Any]) -> None:
        if block.ndim != 2 or block.shape[1] != self.shape[1]:
            raise ShapeError(f"a block has the shape {block.shape}; {self.shape[1]} samples.")
        self.waiting.append(block)
        self.received += len(block)
        if self.received > self.shape[0]:
            raise ShapeError(f"more rows of genotypes than the {self.shape[0]:,} variants.")
        if self.received - self.written >= _CHUNK_VARIANTS:
            self._write((self.received - self.written) // _CHUNK_VARIANTS * _CHUNK_VARIANTS)

    def finish(self) -> None:
        if self.received != self.shape[0]:
            raise ShapeError(
                f"{self.received:,} rows of genotypes, but {self.shape[0]:,} variants."
            )
        if not self.waiting:
            self.waiting = [np.empty((0, self.shape[1]), np.int8)]
        self._write(self.received - self.written)

    def _write(self, count: int) -> None:
        rows = np.concatenate(self.waiting)
        self.waiting = [rows[count:]] if count < len(rows) else []
        rows, place = rows[:count], slice(self.written, self.written + count)
        self.written += count
        if rows.dtype.kind == "f":
            self._array("call_DS", np.float32, float("nan"))[place] = rows.astype(np.float32)
            return
        genotypes = np.stack([rows > 1, rows > 0], axis=-1).astype(np.int8)
        genotypes = np.sort(genotypes, axis=-1)
        genotypes[rows < 0] = -1
        arrays = (
            self._array("call_genotype", np.int8, -1, ploidy=True),
            self._array("call_genotype_mask", np.bool_, True, ploidy=True),
            self._array("call_genotype_phased", np.bool_, False),
        )
        if count:
            arrays[0][place] = genotypes
            arrays[1][place] = genotypes < 0
            arrays[2][place] = np.zeros(rows.shape, np.bool_)

    def _array(self, name: str, dtype: Any, fill: Any, ploidy: bool = False) -> Any:
        if name not in self.arrays:
            last = (2,) if ploidy else ()
            dimensions = ["variants", "samples", *(["ploidy"] if ploidy else [])]
            self.arrays[name] = _create(
                self.group,
                name,
                dimensions,
                shape=(*self.shape, *last),
                chunks=(*_chunks(*self.shape), *last),
                dtype=dtype,
                fill_value=fill,
            )
        return self.arrays[name]


def _chunks(n_variants: int, n_samples: int) -> tuple[int, int]:
    return min(_CHUNK_VARIANTS, max(n_variants, 1)), min(_CHUNK_SAMPLES, max(n_samples, 1))


def _create(group: Any, name: str, dimensions: list[str], **options: Any) -> Any:
    from zarr.codecs import BloscCodec

    codec = BloscCodec(cname="zstd", clevel=7)
    return group.create_array(name, dimension_names=dimensions, compressors=[codec], **options)


def _write_labels(group: Any, variants: VariantTable, names: list[str]) -> None:
    text = np.dtypes.StringDType()
    frame = variants.frame
    contigs = frame["chrom"].unique(maintain_order=True).to_list()
    number = {contig: at for at, contig in enumerate(contigs)}
    ref, alt = frame["oa"].to_list(), frame["ea"].to_list()
    index = np.array([number[chrom] for chrom in frame["chrom"].to_list()], dtype=np.int32)
    pos, lengths = variants.pos.astype(np.int32), np.array([len(a) for a in ref], dtype=np.int32)
    alleles = np.array([ref, alt], dtype=text).T.reshape(-1, 2)
    alone, pairs = ["variants"], ["variants", "alleles"]
    size = _chunks(len(frame), 1)[0]
    columns: list[tuple[str, list[str], NDArray[Any]]] = [
        ("sample_id", ["samples"], np.array(names, dtype=text)),
        ("contig_id", ["contigs"], np.array(contigs, dtype=text)),
        ("filter_id", ["filters"], np.array(["PASS"], dtype=text)),
        ("filter_description", ["filters"], np.array(["All filters passed"], dtype=text)),
        ("variant_contig", alone, index),
        ("variant_position", alone, pos),
        ("variant_length", alone, lengths),
        ("variant_id", alone, np.array(frame["id"].to_list(), dtype=text)),
        ("variant_id_mask", alone, (frame["id"] == ".").to_numpy()),
        ("variant_quality", alone, np.full(len(frame), np.nan, np.float32)),
        ("variant_filter", ["variants", "filters"], np.ones((len(frame), 1), np.bool_)),
        ("variant_allele", pairs, np.ascontiguousarray(alleles)),
        (
            "region_index",
            ["region_index_values", "region_index_fields"],
            _region_index(index, pos, lengths, size),
        ),
    ]
    for name, dimensions, values in columns:
        first = size if dimensions[0] == "variants" else max(len(values), 1)
        chunks = (first, *(max(width, 1) for width in values.shape[1:]))
        _create(group, name, dimensions, data=values, chunks=chunks)


def _region_index(
    contig: NDArray[np.int32], pos: NDArray[np.int32], lengths: NDArray[np.int32], size: int
) -> NDArray[np.int32]:
    """Return chunk, contig, first, last and furthest position, and count, of each run."""
    rows = []
    for chunk, start in enumerate(range(0, len(pos), size)):
        stop = min(start + size, len(pos))
        breaks = np.flatnonzero(np.diff(contig[start:stop])) + 1 + start
        for a, b in zip([start, *breaks], [*breaks, stop], strict=True):
            furthest = int((pos[a:b] + lengths[a:b] - 1).max())
            rows.append((chunk, contig[a], pos[a], pos[b - 1], furthest, b - a))
    return np.array(rows, dtype=np.int32).reshape(-1, 6)


def _open(path: str) -> Any:
    import zarr
    from zarr.errors import BaseZarrError

    store: Any = path
    if "://" not in path:
        require_file(Path(path))
    try:
        if path.endswith(".zip") and "://" not in path:
            store = zarr.storage.ZipStore(path, mode="r")
        group: Any = zarr.open_group(store, mode="r")
        version = group.attrs.get("vcf_zarr_version")
    except (BaseZarrError, OSError, ValueError, KeyError) as error:
        raise FileFormatError(f"{path} is not a VCF-Zarr store ({error}).") from None
    except Exception as error:
        if type(error).__name__ != "BadZipFile":
            raise
        raise FileFormatError(f"{path} is not a .zip file, or is cut off ({error}).") from None
    if version is None:
        raise FileFormatError(
            f"{path} is not a VCF-Zarr store: it lacks the attribute vcf_zarr_version."
        )
    lacking = [name for name in _NEEDED if name not in group]
    if lacking:
        raise FileFormatError(
            f"{path} lacks the array {lacking[0]}: it was not written to its end."
        )
    return group
