"""Reference genomes in FASTA, read where they are asked for."""

import gzip
import logging
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from plait.errors import FileFormatError, LabelError

_log = logging.getLogger("plait.io")

SUFFIXES = tuple(f"{suffix}{packed}" for suffix in (".fa", ".fasta", ".fna")
                 for packed in ("", ".gz", ".bgz"))  # fmt: skip
_GZIP = b"\x1f\x8b"
_BGZF = b"\x1f\x8b\x08\x04"
_BGZF_HEADER = 18
_CHUNK = 1 << 18
"""Bases that are read and held at a time."""


def is_fasta(path: str | os.PathLike[str]) -> bool:
    """Tell by its name whether a file is FASTA."""
    return Path(path).name.lower().endswith(SUFFIXES)


@dataclass(frozen=True)
class _Sequence:
    """A line of a .fai: bases, where they begin, and bases and bytes of a line."""

    length: int
    offset: int
    line_bases: int
    line_bytes: int

    def byte_of(self, base: int) -> int:
        line, column = divmod(base, self.line_bases)
        return self.offset + line * self.line_bytes + column


class Fasta:
    """The sequences of a FASTA file, of which the parts that are asked for are read.

    Parameters
    ----------
    path : path
        Text, or compressed with bgzip. Where ``path.fai`` is beside it (``samtools faidx``), that
        is used; otherwise the file is read through once and its index held in memory.

    Attributes
    ----------
    path : Path
    lengths : dict of str to int
        Bases of each sequence. Names are as plait spells chromosomes: without ``chr``, X, Y, MT.

    Raises
    ------
    FileFormatError
        The file is no FASTA, its lines differ in length within a sequence, it is compressed with
        gzip, or the index is of another file.

    Notes
    -----
    Cost: one seek for each 262,144 bases that hold something asked for; ask in the order of
    positions. Without ``.fai`` one pass over the file, some seconds per gigabase. Memory: the index
    and one such piece. Not for use by several threads at once.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise FileFormatError(f"{self.path}: there is no such file.")
        with self.path.open("rb") as stream:
            start = stream.read(4)
        if start[:2] == _GZIP and start != _BGZF:
            raise FileFormatError(_packed(self.path))
        self._bytes = _Blocks(self.path) if start == _BGZF else _Plain(self.path)
        index = self.path.with_name(f"{self.path.name}.fai")
        if index.is_file():
            found = _read_index(index)
            self._check_index(index, found)
        else:
            _log.info("%s: no .fai beside it; reading it through once", self.path)
            with gzip.open(self.path) if start == _BGZF else self.path.open("rb") as stream:
                found = _make_index(self.path, stream)
        self._sequences = _by_usual_name(found)
        self.lengths = {name: one.length for name, one in self._sequences.items()}
        self._held: tuple[str, int, bytes] = ("", -1, b"")

    def __len__(self) -> int:
        return len(self.lengths)

    def __repr__(self) -> str:
        return f"Fasta({self.path.name}, {len(self):,} sequences)"

    def __contains__(self, chrom: object) -> bool:
        return chrom in self._sequences

    def sequence(self, chrom: str, first: int, last: int) -> str:
        """Return the bases from one position to another, both included, in capital letters.

        Parameters
        ----------
        chrom : str
        first, last : int
            From 1. What lies before the beginning or beyond the end is left out.

        Raises
        ------
        LabelError
            There is no such sequence.
        """
        start, stop = max(first - 1, 0), min(last, self._of(chrom).length)
        if stop <= start:
            return ""
        parts = []
        for number in range(start // _CHUNK, (stop - 1) // _CHUNK + 1):
            chunk, origin = self._chunk(chrom, number), number * _CHUNK
            parts.append(chunk[max(start - origin, 0) : max(stop - origin, 0)])
        return b"".join(parts).decode("ascii")

    def letters(self, chrom: str, positions: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Return the bases at positions (M,), as ASCII codes; 0 where there is none.

        Raises
        ------
        LabelError
            There is no such sequence.
        """
        bases = np.asarray(positions, dtype=np.int64) - 1
        found = np.zeros(len(bases), dtype=np.uint8)
        inside = np.flatnonzero((bases >= 0) & (bases < self._of(chrom).length))
        order = inside[np.argsort(bases[inside], kind="stable")]
        numbers = bases[order] // _CHUNK
        for rows in np.split(order, np.flatnonzero(np.diff(numbers)) + 1):
            if len(rows):
                number = int(bases[rows[0]] // _CHUNK)
                chunk = np.frombuffer(self._chunk(chrom, number), dtype=np.uint8)
                found[rows] = chunk[bases[rows] - number * _CHUNK]
        return found

    def _of(self, chrom: str) -> _Sequence:
        if chrom not in self._sequences:
            names = ", ".join(list(self.lengths)[:30])
            raise LabelError(f"{self.path} has no sequence {chrom!r}; it has {names}.")
        return self._sequences[chrom]

    def _chunk(self, chrom: str, number: int) -> bytes:
        if self._held[:2] != (chrom, number):
            one = self._of(chrom)
            start, stop = number * _CHUNK, min((number + 1) * _CHUNK, one.length)
            raw = self._bytes.read(one.byte_of(start), one.byte_of(stop - 1) + 1)
            bases = raw.translate(None, b"\r\n").upper()
            if len(bases) != stop - start:
                raise FileFormatError(
                    f"{self.path} does not end where its index says: {chrom} has no bases "
                    f"{start + 1:,} to {stop:,}. Make the index again: samtools faidx."
                )
            self._held = (chrom, number, bases)
        return self._held[2]

    def _check_index(self, index: Path, found: dict[str, _Sequence]) -> None:
        """Refuse an index of another file: sequences begin below their names, and end in it."""
        for name, one in found.items():
            header = self._bytes.read(max(one.offset - 1, 0), one.offset)
            end = one.byte_of(max(one.length - 1, 0))
            if header != b"\n" or (one.length and not self._bytes.read(end, end + 1).strip()):
                raise FileFormatError(
                    f"{index} is not the index of {self.path}: {name} is not where it says. Make "
                    "it again (samtools faidx), or remove it: plait then reads the file through."
                )


@dataclass(frozen=True)
class _Plain:
    """Bytes of a file, which is opened for each piece: nothing is left open."""

    path: Path

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop``."""
        with self.path.open("rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)


class _Blocks:
    """Bytes of a file compressed with bgzip: gzip members that say how long they are."""

    def __init__(self, path: Path) -> None:
        self._file, places, sizes, place = _Plain(path), [], [], 0
        end = path.stat().st_size
        with path.open("rb") as stream:
            while place < end:
                stream.seek(place)
                head = stream.read(_BGZF_HEADER)
                if head[:4] != _BGZF or head[12:16] != b"BC\x02\x00":
                    raise FileFormatError(_packed(path))
                length = int.from_bytes(head[16:18], "little") + 1
                if place + length > end:
                    raise FileFormatError(f"{path} is cut short.")
                stream.seek(place + length - 4)
                places.append(place)
                sizes.append(int.from_bytes(stream.read(4), "little"))
                place += length
        self._places = [*places, end]
        self._starts = np.concatenate([[0], np.cumsum(sizes, dtype=np.int64)])

    def read(self, start: int, stop: int) -> bytes:
        """Return bytes ``start`` to ``stop`` of what was compressed."""
        first = max(int(np.searchsorted(self._starts, start, side="right")) - 1, 0)
        last = int(np.searchsorted(self._starts, stop, side="left"))
        parts = []
        for number in range(first, min(last, len(self._places) - 1)):
            packed = self._file.read(self._places[number], self._places[number + 1])
            try:
                parts.append(zlib.decompress(packed, wbits=31))
            except zlib.error as error:
                raise FileFormatError(f"{self._file.path} is damaged: {error}.") from None
        origin = int(self._starts[first])
        return b"".join(parts)[start - origin : stop - origin]


def _packed(path: Path) -> str:
    return (
        f"{path} is compressed with gzip, in which no place can be sought. Decompress it (gunzip), "
        "or compress it with bgzip."
    )


def _by_usual_name(found: dict[str, _Sequence]) -> dict[str, _Sequence]:
    import polars as pl

    from plait.io.summary_statistics import chromosome_names

    usual = chromosome_names(pl.Series(list(found), dtype=pl.String)).to_list()
    named: dict[str, _Sequence] = {}
    for name, one in zip(usual, found.values(), strict=True):
        named.setdefault(name, one)
    return named


def _read_index(path: Path) -> dict[str, _Sequence]:
    found = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        name, *numbers = line.split("\t")
        if len(numbers) < 4 or not all(text.isdigit() for text in numbers[:4]):
            raise FileFormatError(
                f"{path}: line {number} is not of an index of FASTA (name, length, offset, bases "
                "and bytes of a line, separated by tabs)."
            )
        found[name] = _Sequence(*map(int, numbers[:4]))
    if not found:
        raise FileFormatError(f"{path} is empty.")
    return found


def _make_index(path: Path, stream: BinaryIO | gzip.GzipFile) -> dict[str, _Sequence]:
    """Read a file through, and note where its sequences and lines are."""
    found: dict[str, _Sequence] = {}
    name, place, offset, length = "", 0, 0, 0
    bases = width = 0
    ended = False  # a line shorter than the others is a sequence's last
    try:
        for line in stream:
            size = len(line)
            place += size
            if size == width and not ended and line[:1] != b">":
                length += bases
                continue
            if line.startswith(b">"):
                if name:
                    found[name] = _Sequence(length, offset, bases or 1, width or 1)
                name = line[1:].split()[0].decode() if line[1:].split() else ""
                if not name or name in found:
                    raise FileFormatError(f"{path}: a sequence has no name, or that of another.")
                offset, length, bases, width, ended = place, 0, 0, 0, False
                continue
            own = len(line.rstrip(b"\r\n"))
            if not own:
                ended = True
                continue
            if not name:
                raise FileFormatError(f"{path} is no FASTA: it does not begin with '>'.")
            if width and (ended or own > bases):
                raise FileFormatError(
                    f"{path}: lines of {name} differ in length, so that no place can be sought. "
                    "Write it again with lines of one length (samtools faidx demands it too)."
                )
            if width:
                ended = True
            else:
                bases, width = own, size
            length += own
    except (EOFError, OSError, zlib.error) as error:
        raise FileFormatError(f"{path} is damaged or cut short: {error}.") from None
    if not name:
        raise FileFormatError(f"{path} is empty.")
    found[name] = _Sequence(length, offset, bases or 1, width or 1)
    return found
