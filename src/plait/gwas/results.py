"""What a scan returns: the effect of every variant on every trait, with its error."""

import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from plait.data.effects import Effects
from plait.errors import FileFormatError, LabelError, NotAvailableError
from plait.io import replace_file, write_effects
from plait.io.atomic import STORE_MARKER
from plait.io.result import Result
from plait.io.store import local_path
from plait.numerics.order_statistics import column_medians
from plait.provenance import Provenance

if TYPE_CHECKING:
    from polars import DataFrame, Series
    from xarray import Dataset

    from plait.data.summary_statistics import SummaryStatistics

Array = NDArray[np.float64]

GENOME_WIDE = 5e-8
_MEDIAN_CHI2 = 0.4549364231195724
"""Median of chi-square with 1 degree of freedom."""
_GROUP_BYTES = 1 << 23
_CHUNK_BYTES = 8 << 20
_LARGEST_CHUNK = 8192
_SMALLEST_CHUNK = 256
_UNKNOWN = ("", ".")
SCAN_STORE = "associations.zarr"
"""The store in the folder of a scan."""
VARIANT_COLUMNS = ("chrom", "pos", "id", "oa", "ea")


@dataclass(frozen=True, eq=False, repr=False)
class AssociationResult(Result):
    """Effects of M variants on T traits, one at a time.

    Attributes
    ----------
    beta, se : (M, T) arrays
        Effect of one copy of the effect allele, in the unit of the trait, and its standard error.
        NaN where a variant was not tested (see ``filtered``).
    log10p : (M, T) array
        log10 of the two-sided p-value.
    n : (M, T) int array
        Samples behind each test.
    frequency : (M,) array
        Frequency of the effect allele.
    chrom, pos, id, oa, ea : (M,) arrays
        The variants, as in `plait.data.variants.VariantTable`; `variants` has their names.
    traits : tuple of str
    V0 : (T, T) array
        Correlation of the errors between traits.
    h2, h2_se : (T,) array or None
        Of a mixed model: the share of each trait's variance that follows the relationships of all
        chromosomes, given the covariates, and its standard error.
    explained : (T,) array or None
        Of a whole-genome model: the share of each trait's variance, given the covariates, that is
        predicted from all chromosomes out of fold.
    n_cases : (T,) int array or None
        Of a logistic model: how many of the samples of each trait are cases. Effects are logs of
        odds ratios then.
    filtered : dict of str to int
        How many tests (of one variant and trait) each rule left out.
    checks : list of dict
        Of a mixed model, for each chromosome and each group of traits on the same samples: how far
        off calibrated standard errors were among the ``compared`` variants (``error``, root mean
        square, and ``worst``, relative; and in ``strata`` by copies of the rarer allele), with how
        many ``leading`` eigenvectors, None where variants were rotated instead (see
        `plait.gwas.calibration.calibrate`).
    provenance : Provenance or None
    """

    kind: ClassVar[str] = "association"
    dims: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(("beta", "se", "log10p", "n"), ("variants", "traits")),
        **dict.fromkeys(("frequency", *VARIANT_COLUMNS), ("variants",)),
        "V0": ("traits", "traits"),
        **dict.fromkeys(("h2", "h2_se", "explained", "n_cases"), ("traits",)),
    }
    frame_dims: ClassVar[tuple[str, ...]] = ("variants", "traits")

    beta: Array
    se: Array
    log10p: Array
    n: NDArray[np.int64]
    frequency: Array
    chrom: NDArray[np.str_]
    pos: NDArray[np.int64]
    id: NDArray[np.str_]
    oa: NDArray[np.str_]
    ea: NDArray[np.str_]
    traits: tuple[str, ...]
    V0: Array
    h2: Array | None = None
    h2_se: Array | None = None
    explained: Array | None = None
    n_cases: NDArray[np.int64] | None = None
    filtered: dict[str, int] = field(default_factory=dict)
    checks: list[dict[str, Any]] = field(default_factory=list)
    provenance: Provenance | None = None

    def __repr__(self) -> str:
        size = f"{_counted(len(self.beta), 'variant')} x {_counted(len(self.traits), 'trait')}"
        return f"AssociationResult({size}; {self.n_tested:,} tested)"

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """Open a store, or the folder of a scan, leaving the arrays of variants in the store.

        Parameters
        ----------
        path : str or path
            What `save` or ``scan(out=...)`` wrote, or the folder that ``plait gwas scan --out``
            or ``plait gwas-to-mash --out`` wrote.

        Raises
        ------
        FileFormatError
            There is no store of a scan, or it is damaged.
        """
        return super().open(_store_in(path))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a store, or the store in the folder of a scan, into memory; see `open`."""
        return super().load(_store_in(path))

    @cached_property
    def variants(self) -> NDArray[np.str_]:
        """Names of the variants, each another one.

        The id where it is known and no other variant has it, else ``chrom:pos:oa:ea``; where that
        repeats, with the id (if known) and a number added.
        """
        return self._over_parts(self.names_of, object).astype(np.str_)

    def names_of(self, rows: slice | NDArray[np.intp]) -> NDArray[np.object_]:
        """Return the names (see `variants`) of some variants, without making those of all."""
        keys, ids = self._keys(rows).to_numpy(), np.asarray(self.id[rows], dtype=object)
        names: NDArray[np.object_] = np.where(self._has_own_id[rows], ids, keys)
        if self._renamed:
            if isinstance(rows, slice):
                rows = np.arange(*rows.indices(len(self.beta)))
            for place in np.flatnonzero(np.isin(rows, list(self._renamed))):
                names[place] = self._renamed[int(rows[place])]
        return names

    def to_frame(self, kind: str = "long") -> "DataFrame":
        """Return a table; see `plait.io.result.Result.to_frame`.

        Every row has the name of its variant (``variant``), and ``chrom``, ``pos``, ``id``, ``oa``
        and ``ea``.
        """
        import polars as pl

        frame = super().to_frame(kind)
        if kind == "wide":
            return frame
        repeated = np.repeat(np.arange(len(self.beta)), len(self.traits))
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

    @property
    def t(self) -> Array:
        """Test statistics (M, T)."""
        ratio: Array = np.asarray(self.beta) / np.asarray(self.se)
        return ratio

    @cached_property
    def lambda_gc(self) -> Array:
        """Median of the squared statistics over that without any effect, (T,)."""

        def squares() -> Iterator[Array]:
            for rows in self._parts():
                yield (self.beta[rows] / self.se[rows]) ** 2

        return column_medians(squares, len(self.traits)) / _MEDIAN_CHI2

    def summary(self) -> str:
        """Say in a few lines what was tested and found."""
        lines = [repr(self)]
        if self._most_samples.size:
            fewest, most = self.n_samples
            lines.append(
                f"  samples: {most:,}" if fewest == most else f"  samples: {fewest:,} to {most:,}"
            )
        if self.filtered:
            left_out = ", ".join(f"{name} {count:,}" for name, count in self.filtered.items())
            lines.append(f"  tests left out: {left_out}")
        calibrated = [check for check in self.checks if check["leading"] is not None]
        if calibrated:
            error, worst = (max(check[name] for check in calibrated) for name in ("error", "worst"))
            compared = sum(check["compared"] for check in calibrated)
            lines.append(
                f"  standard errors are calibrated: off by {error:.2%} (root mean square), at most "
                f"{worst:.2%}, of the {compared:,} variants compared"
            )
        hits, surest = self.leads()
        for number, trait in enumerate(self.traits):
            line = f"  {trait}: {_counted(int(hits[number]), 'variant')} at p < 5e-8"
            line += f", lambda {self.lambda_gc[number]:.3f}"
            if self.h2 is not None and self.h2_se is not None:
                line += f", h2 {self.h2[number]:.2f}"
                if np.isfinite(self.h2_se[number]):
                    line += f" ({self.h2_se[number]:.2f})"
            if self.explained is not None:
                line += f", {self.explained[number]:.1%} predicted from other samples"
            if self.n_cases is not None:
                cases = int(self.n_cases[number])
                line += f", {cases:,} cases and {self._most_samples[number] - cases:,} controls"
            if (best := surest[number]) is not None:
                name, place = (
                    self.names_of(slice(best, best + 1))[0],
                    f"{self.chrom[best]}:{self.pos[best]}",
                )
                line += f", surest {name}" + ("" if name.startswith(place) else f" ({place})")
                line += f" log10 p {self.log10p[best][number]:.1f}"
            lines.append(line)
        return "\n".join(lines)

    def to_effects(self) -> Effects:
        """Return the effects, errors and error correlation, as `plait.mash` takes them.

        A variant that was not tested for a trait is a missing cell, never an effect of zero.
        Variants without any test are left out.

        Raises
        ------
        NotAvailableError
            No variant was tested.
        """
        return self._effects(slice(0, len(self.beta)))

    def write_effects(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write what `to_effects` returns as a store, part by part.

        Raises
        ------
        NotAvailableError, OutputError
            No variant was tested; the store exists or cannot be written.
        """
        self._require_tests()
        parts = (self._effects(rows) for rows in self._parts() if self._tested(rows).any())
        write_effects(parts, path, overwrite)

    def to_table(self, rows: slice = slice(None)) -> "DataFrame":
        """Return one row per variant, with ``beta.<trait>``, ``se.``, ``log10p.`` and ``n.``.

        Parameters
        ----------
        rows : slice
            Which variants; default all.
        """
        import polars as pl

        columns = {name: _as_series(getattr(self, name)[rows]) for name in VARIANT_COLUMNS}
        columns["eaf"] = _as_series(self.frequency[rows])
        values = {name: getattr(self, name)[rows] for name in ("beta", "se", "log10p", "n")}
        for number, trait in enumerate(self.traits):
            for name, array in values.items():
                columns[f"{name}.{trait}"] = _as_series(array[:, number])
        return pl.DataFrame(columns)

    def write_parquet(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write `to_table` as a parquet file, part by part."""
        from polars.io.plugins import register_io_source

        def tables(*_: Any) -> Iterator["DataFrame"]:
            for rows in self._parts():
                yield self.to_table(rows)

        lazy = register_io_source(tables, schema=self.to_table(slice(0, 0)).schema)
        with replace_file(path, overwrite) as temporary:
            rows = max(_GROUP_BYTES // (32 * len(self.traits)), _LARGEST_CHUNK)
            lazy.sink_parquet(temporary, compression="zstd", row_group_size=rows)

    def write_tsv(self, path: str | os.PathLike[str], overwrite: bool = False) -> None:
        """Write `to_table` as text compressed by gzip, part by part; missing values are ``NA``."""
        import gzip

        with (
            replace_file(path, overwrite) as temporary,
            gzip.GzipFile(temporary, "wb", mtime=0) as stream,
        ):
            for rows in self._parts():
                table = self.to_table(rows).fill_nan(None)
                text = table.write_csv(
                    separator="\t", null_value="NA", include_header=rows.start == 0
                )
                stream.write(text.encode())

    def write_ssf(
        self,
        folder: str | os.PathLike[str],
        metadata: Mapping[str, Any],
        overwrite: bool = False,
    ) -> list[Path]:
        """Write GWAS-SSF for each trait; see `plait.gwas.association_tables.write_ssf`."""
        from plait.gwas.association_tables import write_ssf

        return write_ssf(self, folder, metadata, overwrite)

    def to_summary_statistics(self, trait: str) -> "SummaryStatistics":
        """Return what was found for one trait, tested variants only.

        Raises
        ------
        LabelError
            There is no such trait.
        """
        import polars as pl

        from plait.data.summary_statistics import SummaryStatistics

        if trait not in self.traits:
            raise LabelError(f"there is no trait {trait!r}; there are {', '.join(self.traits)}.")
        number = self.traits.index(trait)
        names = {f"{name}.{trait}": name for name in ("beta", "se", "log10p", "n")}
        parts = []
        for rows in self._parts():
            table = self.to_table(rows).select(*VARIANT_COLUMNS, "eaf", *names).rename(names)
            parts.append(table.filter(np.isfinite(self.se[rows][:, number])))
        frame = pl.concat(parts).with_columns(pl.col("n").cast(pl.Float64))
        return SummaryStatistics.from_frame(frame, trait=trait)

    def _parts(self) -> Iterator[slice]:
        """Yield the variants in parts, which are the chunks of a store."""
        rows = chunk_variants(len(self.traits))
        for start in range(0, len(self.beta), rows):
            yield slice(start, min(start + rows, len(self.beta)))

    def _over_parts(self, work: Callable[[slice], NDArray[Any]], dtype: Any) -> NDArray[Any]:
        return np.concatenate([np.empty(0, dtype), *map(work, self._parts())])

    def _tested(self, rows: slice) -> NDArray[np.bool_]:
        return np.asarray(np.isfinite(self.se[rows]).any(axis=1))

    @cached_property
    def n_tested(self) -> int:
        """Variants that were tested for some trait."""
        return sum(int(self._tested(rows).sum()) for rows in self._parts())

    def _require_tests(self) -> None:
        if not self.n_tested:
            why = ", ".join(f"{name} {count:,}" for name, count in self.filtered.items())
            raise NotAvailableError(f"no variant was tested; tests left out: {why}.")

    @property
    def n_samples(self) -> tuple[int, int]:
        """Samples behind the tests of a trait: of the trait with the fewest, and with the most."""
        return int(self._most_samples.min()), int(self._most_samples.max())

    @cached_property
    def _most_samples(self) -> NDArray[np.int64]:
        return np.asarray(np.max([self.n[rows].max(axis=0) for rows in self._parts()], axis=0))

    def leads(self) -> tuple[NDArray[np.int64], list[int | None]]:
        """Return for each trait the number of hits, and the variant of the smallest p-value."""
        hits = np.zeros(len(self.traits), dtype=np.int64)
        surest: list[int | None] = [None] * len(self.traits)
        smallest = np.full(len(self.traits), np.inf)
        for rows in self._parts():
            logs = np.where(np.isnan(part := self.log10p[rows]), np.inf, part)
            hits += (logs < np.log10(GENOME_WIDE)).sum(axis=0)
            for k in np.flatnonzero(logs.min(axis=0) < smallest):
                best = int(logs[:, k].argmin())
                smallest[k], surest[k] = logs[best, k], rows.start + best
        return hits, surest

    def _effects(self, rows: slice) -> Effects:
        self._require_tests()
        tested = self._tested(rows)
        beta, se = self.beta[rows][tested], self.se[rows][tested]
        names = self.names_of(rows)[tested]
        known = np.isfinite(se)
        return Effects(
            np.where(known, beta, np.nan),
            np.where(known, se, np.nan),
            self.V0,
            names.astype(np.str_),
            self.traits,
            self.provenance,
        )

    def _keys(self, rows: slice | NDArray[np.intp]) -> "Series":
        import polars as pl

        names = ("chrom", "pos", "oa", "ea")
        frame = pl.DataFrame([_as_series(getattr(self, name)[rows], name) for name in names])
        return frame.select(pl.concat_str(*names, separator=":"))["chrom"]

    @cached_property
    def _key_hashes(self) -> NDArray[np.uint64]:
        return self._over_parts(lambda rows: self._keys(rows).hash().to_numpy(), np.uint64)

    @cached_property
    def _has_own_id(self) -> NDArray[np.bool_]:
        """Which variants have an id that no other variant has, as its id or as its key."""

        def ids(rows: slice) -> "Series":
            return _as_series(self.id[rows])

        hashes = self._over_parts(lambda rows: ids(rows).hash().to_numpy(), np.uint64)
        known = self._over_parts(lambda rows: ~ids(rows).is_in(_UNKNOWN).to_numpy(), np.bool_)
        own: NDArray[np.bool_] = known & ~_repeats(hashes) & ~np.isin(hashes, self._key_hashes)
        return own

    @cached_property
    def _renamed(self) -> dict[int, str]:
        """What variants are called that have no id of their own and whose keys repeat."""
        rows = np.flatnonzero(~self._has_own_id)
        suspects = rows[_repeats(self._key_hashes[rows])].tolist()
        keys = {row: str(self._keys(slice(row, row + 1))[0]) for row in suspects}
        total, seen = Counter(keys.values()), Counter[str]()
        renamed = {}
        for row, key in keys.items():
            if total[key] > 1:
                name = key if (label := str(self.id[row])) in _UNKNOWN else f"{key}:{label}"
                seen[name] += 1
                renamed[row] = name if seen[name] == 1 else f"{name}:{seen[name]}"
        return renamed


def _repeats(values: NDArray[np.uint64]) -> NDArray[np.bool_]:
    """Tell which values occur more than once."""
    _, which, times = np.unique(values, return_inverse=True, return_counts=True)
    repeated: NDArray[np.bool_] = times[which] > 1
    return repeated


def _store_in(path: str | os.PathLike[str]) -> str | os.PathLike[str]:
    """Return the store in the folder of a scan; anything but a folder of this machine as it is."""
    local = local_path(path)
    if local is None or not local.is_dir() or (local / STORE_MARKER).exists():
        return path
    if (store := local / SCAN_STORE).is_dir():
        return store
    raise FileFormatError(
        f"{path} is not the folder of a scan: {SCAN_STORE} is not in it. Give what "
        "'plait gwas scan --out' wrote, or the store itself."
    )


def chunk_variants(n_traits: int) -> int:
    """Return the variants of a chunk of a store: a power of two, of at most 8 MiB."""
    rows = min(_LARGEST_CHUNK, max(_SMALLEST_CHUNK, _CHUNK_BYTES // (8 * n_traits)))
    return int(2 ** (rows.bit_length() - 1))


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def _as_series(values: Any, name: str = "") -> "Series":
    import polars as pl

    is_text = values.dtype.kind in "OU"
    return pl.Series(
        name, values.tolist() if is_text else values, dtype=pl.String if is_text else None
    )
