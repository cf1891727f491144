"""Variants: where each one is, and which of its alleles is counted."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from plait.errors import ShapeError

if TYPE_CHECKING:
    from polars import DataFrame, Series

COLUMNS = ("chrom", "pos", "id", "oa", "ea", "cm")
KEY = ("chrom", "pos", "oa", "ea")
UNKNOWN_IDS = (".", "")
"""What variants without an id have for one."""
_PART = 1 << 16


def variant_keys(frame: "DataFrame") -> "Series":
    """Return ``chrom:pos:oa:ea`` of variants; null where a part is."""
    import polars as pl

    return frame.select(pl.concat_str(*KEY, separator=":").alias("key"))["key"]


def find_names(wanted: Iterable[str], *columns: "Series") -> tuple[NDArray[np.bool_], list[str]]:
    """Tell which items have one of some names, and which of the names no item has.

    Parameters
    ----------
    wanted : iterable of str
    *columns : polars.Series
        Names of all items, one column for each kind of name that they have.
    """
    import polars as pl

    names = pl.Series(list(dict.fromkeys(wanted)), dtype=pl.String)
    found = np.zeros(len(columns[0]), dtype=np.bool_)
    lacking = names
    for own in columns:
        found |= own.is_in(names.implode()).to_numpy()
        lacking = lacking.filter(~lacking.is_in(own.implode()))
    return found, lacking.to_list()


def variant_names(frame: "DataFrame") -> "Series":
    """Return what variants are called, in results and in lists.

    Parameters
    ----------
    frame : polars.DataFrame
        ``chrom``, ``pos``, ``oa``, ``ea`` and ``id`` (M rows).

    Returns
    -------
    (M,) Series of str
        The id where it is known and no other variant has it, as its id or as its key, else
        ``chrom:pos:oa:ea``.
    """
    import polars as pl

    keyed = frame.select("id", variant_keys(frame))
    known = pl.col("id").is_not_null() & ~pl.col("id").is_in(UNKNOWN_IDS)
    own = known & pl.col("id").is_unique() & ~pl.col("id").is_in(keyed["key"].implode())
    return keyed.select(pl.when(own).then("id").otherwise("key").alias("name"))["name"]


@dataclass(frozen=True, eq=False)
class VariantTable:
    """Variants in the order of their file.

    Attributes
    ----------
    frame : polars.DataFrame
        ``chrom`` (text), ``pos`` (from 1), ``id`` (a label; may repeat), ``oa`` and ``ea`` (the
        other allele and the effect allele, whose copies are counted) and ``cm`` (centimorgans, NaN
        where unknown).
    """

    frame: "DataFrame"

    def __post_init__(self) -> None:
        if tuple(self.frame.columns) != COLUMNS:
            raise ShapeError(f"variants have the columns {COLUMNS}, not {self.frame.columns}.")

    @classmethod
    def of(
        cls,
        chrom: Sequence[str] | NDArray[Any],
        pos: Sequence[int] | NDArray[Any],
        oa: Sequence[str] | NDArray[Any],
        ea: Sequence[str] | NDArray[Any],
        id: Sequence[str] | NDArray[Any] | None = None,
        cm: Sequence[float] | NDArray[Any] | None = None,
    ) -> "VariantTable":
        """Make a table from columns of equal length."""
        import polars as pl

        columns = {
            "chrom": pl.Series(list(chrom), dtype=pl.String),
            "pos": pl.Series(np.asarray(pos, dtype=np.int64)),
            "id": pl.Series(["."] * len(chrom) if id is None else list(id), dtype=pl.String),
            "oa": pl.Series(list(oa), dtype=pl.String),
            "ea": pl.Series(list(ea), dtype=pl.String),
            "cm": pl.Series(np.full(len(chrom), np.nan) if cm is None else np.asarray(cm, float)),
        }
        lengths = {name: len(column) for name, column in columns.items()}
        if len(set(lengths.values())) > 1:
            raise ShapeError(f"the columns of the variants differ in length: {lengths}.")
        return cls(pl.DataFrame(columns))

    def __len__(self) -> int:
        return self.frame.height

    def __repr__(self) -> str:
        names = [name for name, _ in self.chromosomes]
        on = names[0] if len(names) == 1 else f"{len(names)} chromosomes"
        return f"VariantTable({len(self):,} variants on {on})"

    def __getitem__(self, rows: "slice | NDArray[Any]") -> "VariantTable":
        return VariantTable(self.frame[rows])

    @property
    def pos(self) -> NDArray[np.int64]:
        """Positions (M,)."""
        return self.frame["pos"].to_numpy()

    @cached_property
    def keys(self) -> "Series":
        """``chrom:pos:oa:ea``, what identifies a variant."""
        return variant_keys(self.frame)

    @cached_property
    def chromosomes(self) -> list[tuple[str, slice]]:
        """Runs of consecutive variants on one chromosome, in the order of the file."""
        names: list[str] = []
        starts: list[int] = []
        for start, part in self.parts():
            runs = part.frame["chrom"].rle().struct.unnest()
            places = start + np.r_[0, np.cumsum(runs["len"].to_numpy())[:-1]]
            for name, place in zip(runs["value"].to_list(), places.tolist(), strict=True):
                if not names or name != names[-1]:
                    names.append(name)
                    starts.append(place)
        bounds = pairwise([*starts, len(self)])
        return [(name, slice(*run)) for name, run in zip(names, bounds, strict=True)]

    @cached_property
    def digest(self) -> str:
        """A digest of places, ids and alleles; some 0.3 s for a million variants."""
        digest = hashlib.blake2b(digest_size=16)
        for _, part in self.parts():
            text = part.frame.drop("cm").write_csv(include_header=False, separator="\t")
            digest.update(text.encode())
        return f"blake2b:{digest.hexdigest()}"

    def arrays(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return columns as arrays, by name: of numbers, or of text."""
        return {name: _as_array(self.frame[name]) for name in names}

    def parts(self) -> "Iterator[tuple[int, VariantTable]]":
        """Yield the variants in parts, each with the number of its first one."""
        for start in range(0, len(self), _PART):
            yield start, self[start : start + _PART]


class VariantReader(Protocol):
    """Reads variants that stay in a file. It can be sent to other processes."""

    def frame(self, start: int, stop: int) -> "DataFrame":
        """Return the frame of the variants from one to, but without, another."""

    def arrays(self, names: Sequence[str], start: int, stop: int) -> dict[str, NDArray[Any]]:
        """Return some columns of them; see `VariantTable.arrays`."""

    def digest(self) -> str:
        """Return a digest of all of the file."""


class VariantsInFile(VariantTable):
    """Variants that stay in a file: consecutive ones are read when they are asked for.

    `frame`, and what is made of it, reads all of them, and keeps them; `pos` keeps positions alone.

    Parameters
    ----------
    count : int
        Number of variants M.
    reader : VariantReader
    first : int
        Number, in the file, of the first of them.
    """

    def __init__(self, count: int, reader: VariantReader, first: int = 0) -> None:
        self.__dict__.update(_count=count, _reader=reader, _first=first)  # the class is frozen

    _count: int
    _reader: VariantReader
    _first: int

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, rows: "slice | NDArray[Any]") -> VariantTable:
        if isinstance(rows, slice) and "frame" not in self.__dict__:
            start, stop, step = rows.indices(len(self))
            if step == 1 and start < stop:
                return VariantsInFile(stop - start, self._reader, self._first + start)
        return super().__getitem__(rows)

    @cached_property
    def frame(self) -> "DataFrame":
        """All of them; see `VariantTable`."""
        return self._reader.frame(self._first, self._first + self._count)

    @cached_property
    def pos(self) -> NDArray[np.int64]:
        """Positions (M,)."""
        return self.arrays(("pos",))["pos"]

    @cached_property
    def digest(self) -> str:
        """A digest of the file, and of which of its variants these are."""
        return f"{self._reader.digest()} {self._first}+{self._count}"

    def arrays(self, names: Sequence[str]) -> dict[str, NDArray[Any]]:
        """Return columns as arrays; see `VariantTable.arrays`."""
        if "frame" in self.__dict__:
            return super().arrays(names)
        first, last = self._first, self._first + self._count
        parts = [
            self._reader.arrays(names, start, min(start + _PART, last))
            for start in range(first, last, _PART)
        ]
        return {name: np.concatenate([part[name] for part in parts]) for name in names}


def _as_array(column: "Series") -> NDArray[Any]:
    if column.dtype.is_numeric():
        return column.to_numpy()
    return np.array(column.to_list(), dtype=np.str_)
