"""What scans return of many variants and traits, in memory or in a store."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from plait.data.variants import KEY, UNKNOWN_IDS, variant_keys
from plait.errors import FileFormatError, LabelError, NotAvailableError, OptionError
from plait.gwas.variant_tables import (
    Piece,
    Table,
    check_p_threshold,
    write_parquet,
    write_partitioned,
    write_tsv,
)
from plait.io.atomic import STORE_MARKER
from plait.io.result import Result
from plait.io.store import local_path
from plait.numerics.order_statistics import column_medians
from plait.numerics.repeats import met, repeated
from plait.numerics.uniformity import inflation_of_medians
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame, Series
    from xarray import Dataset

Array = NDArray[np.float64]

GENOME_WIDE = 5e-8
VARIANT_COLUMNS = ("chrom", "pos", "id", "oa", "ea")
_CHUNK_BYTES = 8 << 20
_LARGEST_CHUNK = 8192
_LARGEST_OF_MANY = 16384
"""Where there are at least `_MANY_CHUNKS` such: a chunk takes time whatever its size."""
_MANY_CHUNKS = 6
_SMALLEST_CHUNK = 256


@dataclass(frozen=True, eq=False, repr=False)
class VariantResult(Result):
    """Statistics of M variants and T traits; base of what the scans return.

    Nothing here needs all of the arrays of variants at once, so that they may stay in a store.

    Attributes
    ----------
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`; `variants` has their names.
    traits : tuple of str
    filtered : dict of str to int
        How many tests (of one variant and trait) each rule left out.
    provenance : Provenance or None
    """

    frame_dims: ClassVar[tuple[str, ...]] = ("variants", "traits")
    statistics: ClassVar[tuple[str, ...]] = ()
    """The (M, T) arrays of float, in the order of tables; NaN where a variant was not tested."""
    tested_by: ClassVar[str] = ""
    """The one that tells by NaN whether a variant was tested."""
    surest_by: ClassVar[str] = ""
    """The one that holds log10 of the p-value by which variants are ranked."""
    command: ClassVar[str] = ""
    """The command of ``plait gwas`` that writes a folder with such a result."""
    folder_store: ClassVar[str] = ""
    """The store in that folder."""

    n: NDArray[np.int64]
    frequency: Array
    chrom: NDArray[np.str_]
    pos: NDArray[np.int64]
    id: NDArray[np.str_]
    oa: NDArray[np.str_]
    ea: NDArray[np.str_]
    traits: tuple[str, ...]
    filtered: dict[str, int] = field(default_factory=dict, kw_only=True)
    provenance: Provenance | None = field(default=None, kw_only=True)

    @property
    def values_per_trait(self) -> int:
        """Values of the widest array for each variant and trait."""
        return 1

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a store, or the folder of a scan, leaving the arrays of variants in the store.

        Parameters
        ----------
        path : str or path
            What `save` or a scan with ``out=`` wrote, or the folder that the command wrote.

        Raises
        ------
        FileFormatError
            There is no store of such a scan, or it is damaged.
        """
        return super().open(cls._store_in(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a store, or the store in the folder of a scan, into memory; see `open`."""
        return super().load(cls._store_in(path))

    @classmethod
    def _store_in(cls, path: str | os.PathLike[str]) -> str | os.PathLike[str]:
        """Return the store in the folder of a scan; anything but a folder on disk as it is."""
        local = local_path(path)
        if local is None or not local.is_dir() or (local / STORE_MARKER).exists():
            return path
        if (store := local / cls.folder_store).is_dir():
            return store
        from plait.gwas import AssociationResult, InteractionResult

        kinds: tuple[type[VariantResult], ...] = (AssociationResult, InteractionResult)
        other = next((kind for kind in kinds if (local / kind.folder_store).is_dir()), None)
        found = "" if other is None else f" (it is that of 'plait gwas {other.command}')"
        raise FileFormatError(
            f"{path} is not the folder of a scan: {cls.folder_store} is not in it{found}. Give "
            f"what 'plait gwas {cls.command} --out' wrote, or the store itself."
        )

    @cached_property
    def variants(self) -> NDArray[np.str_]:
        """Names of the variants, each another one.

        The id where it is known and no other variant has it, else ``chrom:pos:oa:ea``; where that
        repeats, with the id (if known) and a number added.
        """
        return self._over_parts(self.names_of, object).astype(np.str_)

    def names_of(self, rows: slice | NDArray[np.intp]) -> NDArray[np.object_]:
        """Return the names (see `variants`) of some variants, without making those of all."""
        own, names = self._has_own_id[rows], np.array(self.id[rows], dtype=object)
        if not own.all():
            names[~own] = self._keys(rows).to_numpy()[~own]
        if self._renamed:
            if isinstance(rows, slice):
                rows = np.arange(*rows.indices(len(self.n)))
            for place in np.flatnonzero(np.isin(rows, list(self._renamed))):
                names[place] = self._renamed[int(rows[place])]
        return names

    def placed(self, variants: Iterable[int | None]) -> dict[int, str]:
        """Return the names of variants, with their places where the names do not tell them."""
        rows = np.unique([variant for variant in variants if variant is not None]).astype(np.intp)
        columns = self.names_of(rows), self.chrom[rows], self.pos[rows]
        named = {}
        for row, name, chrom, pos in zip(rows.tolist(), *columns, strict=True):
            place = f"{chrom}:{pos}"
            named[row] = str(name) if name.startswith(place) else f"{name} ({place})"
        return named

    def to_frame(self, kind: str = "long", p_threshold: float | None = None) -> "DataFrame":
        """Return a table; see `plait.io.result.Result.to_frame`.

        Every row has the name of its variant (``variant``), and ``chrom``, ``pos``, ``id``, ``oa``
        and ``ea``.

        Parameters
        ----------
        kind : {"long", "wide"}
        p_threshold : float, optional
            Return the rows with a p-value of at most this; of a wide table, those of variants with
            such a p-value for some trait. Default: all, also those that were not tested.

        Raises
        ------
        OptionError
            ``kind`` is something else, or ``p_threshold`` is not above 0 and at most 1.
        """
        check_p_threshold(p_threshold)
        frame = self._full_frame(kind)
        if p_threshold is None:
            return frame
        if kind == "wide":
            return frame.filter(self._within(slice(None), p_threshold))
        return frame.filter(np.asarray(self.surest[:]).reshape(-1) <= np.log10(p_threshold))

    def _full_frame(self, kind: str) -> "DataFrame":
        import polars as pl

        frame = super().to_frame(kind)
        if kind == "wide":
            return frame
        repeated = np.repeat(np.arange(len(self.n)), len(self.traits))
        labels = [_as_series(getattr(self, name)[:], name) for name in VARIANT_COLUMNS]
        return pl.DataFrame(
            [frame["variant"], *(s.gather(repeated) for s in labels), *frame.get_columns()[1:]]
        )

    def to_xarray(self) -> "Dataset":
        """Return the arrays as an `xarray.Dataset`.

        Coordinates of ``variants`` are their names and ``chrom``, ``pos``, ``id``, ``oa``, ``ea``.
        """
        found = super().to_xarray().assign_coords(variants=self.variants.astype(object))
        return found.set_coords(list(VARIANT_COLUMNS))

    def _label_series(self, dimension: str, length: int) -> Any:
        import polars as pl

        if dimension == "variants":
            return pl.Series("variant", self.variants.tolist(), dtype=pl.String)
        return super()._label_series(dimension, length)

    def to_table(self, rows: slice = slice(None)) -> "DataFrame":
        """Return one row per variant: its columns, ``eaf``, and all statistics of each trait.

        Those of a trait are named as in ``beta.<trait>`` and ``n.<trait>``.

        Parameters
        ----------
        rows : slice
            Which variants; default all.
        """
        import polars as pl

        columns = {name: _as_series(getattr(self, name)[rows]) for name in VARIANT_COLUMNS}
        columns["eaf"] = _as_series(self.frequency[rows])
        flat = (name for name in (*self.statistics, "n") if len(self.dims[name]) == 2)
        values = {name: getattr(self, name)[rows] for name in flat}
        for number, trait in enumerate(self.traits):
            for name, array in values.items():
                columns[f"{name}.{trait}"] = _as_series(array[:, number])
        return pl.DataFrame(columns)

    def write_parquet(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        *,
        partition: str | None = None,
        p_threshold: float | None = None,
    ) -> None:
        """Write `to_table` as parquet, part by part, compressed by zstd and with statistics.

        Parameters
        ----------
        path : str or path
            The file; with ``partition`` a folder, made if it is not there.
        overwrite : bool
            Whether files that exist are replaced.
        partition : {"chromosome"}, optional
            Write a file of each chromosome, ``1.parquet`` and so on.
        p_threshold : float, optional
            Write the rows of variants that have a p-value of at most this for some trait, with what
            was found for all traits; as PLINK 2 does with ``--pfilter``, for one trait. Default:
            all rows, also of variants that were not tested.

        Raises
        ------
        OptionError
            ``partition`` is something else, or ``p_threshold`` is not above 0 and at most 1.
        OutputError
            A file exists or cannot be written, or the folder holds other files.

        Notes
        -----
        ``p_threshold`` is of tables alone: scans compute and keep all p-values, which lambda,
        pictures and mash need. The file of a chromosome of which no row is left has no rows.
        """
        self._write_parquet(path, self.to_table, overwrite, partition, p_threshold)

    def _write_parquet(
        self,
        path: str | os.PathLike[str],
        table: Table,
        overwrite: bool,
        partition: str | None,
        p_threshold: float | None,
    ) -> None:
        if partition is None:
            write_parquet(path, table, self._rows_of_tables(p_threshold), overwrite)
        elif partition == "chromosome":
            check_p_threshold(p_threshold)
            pieces = self.by_chromosome().items()
            kept = {name: self._kept(own, p_threshold) for name, own in pieces}
            write_partitioned(path, table, kept, overwrite)
        else:
            raise OptionError(f"partition is {partition!r}; give 'chromosome', or None.")

    def _rows_of_tables(self, p_threshold: float | None) -> Iterator[Piece]:
        """Return the variants of a table, in pieces; see `write_parquet`."""
        check_p_threshold(p_threshold)
        return self._kept(((rows, slice(None)) for rows in self.parts()), p_threshold)

    def _kept(self, pieces: Iterable[Piece], p_threshold: float | None) -> Iterator[Piece]:
        """Yield what a threshold leaves of pieces; nothing of a piece of which it leaves none."""
        for span, rows in pieces:
            if p_threshold is None:
                yield span, rows
                continue
            chosen = np.arange(span.start, span.stop)[rows][self._within(span, p_threshold)[rows]]
            if len(chosen):
                first, last = chosen[[0, -1]].tolist()
                yield slice(first, last + 1), chosen - first

    def _within(self, rows: slice, p_threshold: float) -> NDArray[np.bool_]:
        """Tell which of some variants have a p-value of at most this for some trait."""
        kept = np.asarray(self.surest[rows]) <= np.log10(p_threshold)  # not what is NaN: untested
        return np.asarray(kept.any(axis=1))

    def n_within(self, p_threshold: float) -> int:
        """Return how many variants have a p-value of at most this for some trait.

        They are the rows of tables that are written with this ``p_threshold``.

        Raises
        ------
        OptionError
            It is not above 0 and at most 1.
        """
        check_p_threshold(p_threshold)
        return sum(int(self._within(rows, p_threshold).sum()) for rows in self.parts())

    def by_chromosome(self) -> dict[str, list[Piece]]:
        """Return where the variants of each chromosome are, in pieces of `parts`.

        Chromosomes may be in any order, even variant by variant.
        """
        pieces: dict[str, list[Piece]] = {}
        for part in self.parts():
            names, number = np.unique(np.asarray(self.chrom[part]), return_inverse=True)
            order = np.argsort(number, kind="stable")
            rows = np.split(order, np.flatnonzero(np.diff(number[order])) + 1)
            for k in np.argsort([own[0] for own in rows]):
                first, last = rows[k][[0, -1]].tolist()
                span = slice(part.start + first, part.start + last + 1)
                # Variants that lie together need no number each, of which there may be millions.
                together = len(rows[k]) == last - first + 1
                within = slice(None) if together else rows[k] - first
                pieces.setdefault(str(names[k]), []).append((span, within))
        return pieces

    def write_tsv(
        self,
        path: str | os.PathLike[str],
        overwrite: bool = False,
        *,
        p_threshold: float | None = None,
    ) -> None:
        """Write `to_table` as text compressed by gzip, part by part; missing values are ``NA``.

        Parameters are those of `write_parquet`.
        """
        write_tsv(path, self.to_table, self._rows_of_tables(p_threshold), overwrite)

    def _number_of(self, trait: str) -> int:
        """Return which of the traits one is."""
        if trait not in self.traits:
            raise LabelError(f"there is no trait {trait!r}; there are {', '.join(self.traits)}.")
        return self.traits.index(trait)

    def parts(self) -> Iterator[slice]:
        """Yield the variants in parts, which are the chunks of a store."""
        rows = chunk_variants(len(self.traits) * self.values_per_trait, len(self.n))
        for start in range(0, len(self.n), rows):
            yield slice(start, min(start + rows, len(self.n)))

    def _over_parts(self, work: Callable[[slice], NDArray[Any]], dtype: Any) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *map(work, self.parts())])

    def _tested(self, rows: slice) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(getattr(self, self.tested_by)[rows]).any(axis=1))

    @cached_property
    def n_tested(self) -> int:
        """Variants that were tested for some trait."""
        return sum(int(self._tested(rows).sum()) for rows in self.parts())

    @property
    def mac(self) -> Array:
        """Copies of the rarer allele among the samples behind each test, (M, T).

        Expected ones, by the frequency: ``2 n min(f, 1 - f)``, half of that on Y and MT. Where no
        genotype is missing and all samples have the trait, they are counts. On X the allele of a
        male counts twice, as in the test (and in PLINK 2's ``A1_CT`` of ``--glm``).
        """
        options = {} if self.provenance is None else self.provenance.options
        frequency = np.asarray(self.frequency, dtype=np.float64)
        rarer: Array = np.minimum(frequency, 1 - frequency)
        each = np.where(np.isin(np.asarray(self.chrom[:]), options.get("haploid", ())), 1.0, 2.0)
        copies: Array = (each * rarer)[:, None] * np.asarray(self.n)
        return copies

    @property
    def surest(self) -> Array:
        """log10 of the p-values by which variants are ranked, (M, T)."""
        ranked: Array = getattr(self, self.surest_by)
        return ranked

    @cached_property
    def lambda_gc(self) -> Array:
        """Chi-square of the median p-value over that without any effect, (T,).

        Of p-values, not of squared statistics: these have other degrees of freedom with few
        samples, and at each variant in robust tests. NaN for a trait without tests.
        """

        def sizes() -> Iterator[Array]:
            for rows in self.parts():
                yield np.abs(self.surest[rows])

        return inflation_of_medians(column_medians(sizes, len(self.traits)))

    def headed(self, trait: str) -> str:
        """Return the heading of a picture of what was tested for a trait."""
        return trait

    def require_tests(self) -> None:
        """Refuse a result in which no variant was tested.

        Raises
        ------
        NotAvailableError
            It has no test; what left them out is said.
        """
        if not self.n_tested:
            raise NotAvailableError(f"no variant was tested; tests left out: {self.left_out}.")

    @property
    def n_samples(self) -> tuple[int, int]:
        """Samples behind the tests of a trait: of the trait with the fewest, and with the most."""
        return int(self._most_samples.min()), int(self._most_samples.max())

    @cached_property
    def _most_samples(self) -> NDArray[np.int64]:
        return np.asarray(np.max([self.n[rows].max(axis=0) for rows in self.parts()], axis=0))

    @property
    def left_out(self) -> str:
        """How many tests each rule left out, in words."""
        return ", ".join(f"{count:,} by {name}" for name, count in self.filtered.items())

    def _behind_tests(self) -> list[str]:
        """Say how many samples the tests are of, and which tests were left out."""
        lines = []
        if self._most_samples.size:
            fewest, most = self.n_samples
            lines.append(
                f"  samples: {most:,}" if fewest == most else f"  samples: {fewest:,} to {most:,}"
            )
        if self.filtered:
            lines.append(f"  tests left out: {self.left_out}")
        return lines

    def leads(self) -> tuple[NDArray[np.int64], list[int | None], Array]:
        """Return for each trait its hits, the variant of the smallest p-value, and its log10."""
        hits = np.zeros(len(self.traits), dtype=np.int64)
        surest: list[int | None] = [None] * len(self.traits)
        smallest = np.full(len(self.traits), np.inf)
        for rows in self.parts():
            logs = np.where(np.isnan(part := getattr(self, self.surest_by)[rows]), np.inf, part)
            hits += (logs < np.log10(GENOME_WIDE)).sum(axis=0)
            for k in np.flatnonzero(logs.min(axis=0) < smallest):
                best = int(logs[:, k].argmin())
                smallest[k], surest[k] = logs[best, k], rows.start + best
        return hits, surest, smallest

    def _keys(self, rows: slice | NDArray[np.intp]) -> "Series":
        import polars as pl

        columns = [_as_series(getattr(self, name)[rows], name) for name in KEY]
        return variant_keys(pl.DataFrame(columns))

    def _ids(self, rows: slice | NDArray[np.intp]) -> "Series":
        return _as_series(self.id[rows])

    @cached_property
    def _has_own_id(self) -> NDArray[np.bool_]:
        """Which variants have an id that no other variant has, as its id or as its key."""
        own = np.zeros(len(self.n), dtype=np.bool_)
        like_keys = False
        for rows in self.parts():
            ids = self._ids(rows)
            known = ~ids.is_in(UNKNOWN_IDS)
            if ids.str.contains(":", literal=True).any():
                like_keys = True
                known &= ids != self._keys(rows)
            own[rows] = known.to_numpy()
        own[repeated(lambda: self._hashes(self._ids, own))] = False
        if like_keys:
            all_of_them = np.ones_like(own)
            keys = met(
                lambda: self._hashes(self._ids, own), lambda: self._hashes(self._keys, all_of_them)
            )
            own[keys] = False
        return own

    def _hashes(
        self, names: "Callable[[slice], Series]", chosen: NDArray[np.bool_]
    ) -> Iterator[tuple[NDArray[np.intp], NDArray[np.uint64]]]:
        """Yield the numbers of chosen variants, and hashes of their names, in parts."""
        for rows in self.parts():
            here = np.flatnonzero(chosen[rows])
            if len(here):
                yield rows.start + here, names(rows).hash().to_numpy()[here]

    @cached_property
    def _renamed(self) -> dict[int, str]:
        """What variants are called that have no id of their own and whose keys repeat."""
        others = ~self._has_own_id
        if not others.any():
            return {}
        rows = repeated(lambda: self._hashes(self._keys, others))
        keys, ids = self._keys(rows).to_list(), self._ids(rows).to_list()
        total, seen = Counter(keys), Counter[str]()
        renamed = {}
        for row, key, label in zip(rows.tolist(), keys, ids, strict=True):
            if total[key] > 1:
                name = key if label in UNKNOWN_IDS else f"{key}:{label}"
                seen[name] += 1
                renamed[row] = name if seen[name] == 1 else f"{name}:{seen[name]}"
        return renamed


def chunk_variants(n_values: int, n_variants: int) -> int:
    """Return the variants of a chunk of a store: a power of two, of at most 8 MiB.

    ``n_values`` are those of a variant in the widest array.
    """
    are_many = n_variants >= _MANY_CHUNKS * _LARGEST_OF_MANY
    largest = _LARGEST_OF_MANY if are_many else _LARGEST_CHUNK
    rows = min(largest, max(_SMALLEST_CHUNK, _CHUNK_BYTES // (8 * n_values)))
    return int(2 ** (rows.bit_length() - 1))


def _as_series(values: Any, name: str = "") -> "Series":
    import polars as pl

    is_text = values.dtype.kind in "OU"
    return pl.Series(
        name, values.tolist() if is_text else values, dtype=pl.String if is_text else None
    )
