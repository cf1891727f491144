"""HapMap text (.hmp.txt): one marker per line, 11 columns of facts, then calls by letters."""

import gzip
import os
import warnings
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from plait.data.variants import VariantTable
from plait.errors import DataWarning, FileFormatError
from plait.io.genotype_files import distinct_samples

_COLUMNS = 11
_BOTH = {"R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC", "0": "+-"}
_MISSING = ("N", "NN", "", "--", "XX")


class HapMap(NamedTuple):
    """Hard calls (markers, samples) of the second allele, and their labels."""

    calls: NDArray[np.int8]
    variants: VariantTable
    samples: NDArray[np.str_]


def read_hapmap(path: str | os.PathLike[str]) -> HapMap:
    """Read a HapMap file whole: the effect allele is the second one of its column of alleles.

    Raises
    ------
    FileFormatError
        A line has another number of columns, or its position is not a number.
    """
    path = Path(path)
    try:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as stream:
            lines = stream.read().splitlines()
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path} cannot be read ({error}).") from None
    header = lines[0].split("\t") if lines else [""]
    if not header[0].lower().startswith("rs") or len(header) <= _COLUMNS:
        raise FileFormatError(
            f"{path}: expected 11 columns (rs#, alleles, chrom, pos, ...) and then samples, "
            "separated by tabs."
        )
    samples = distinct_samples(path, header[_COLUMNS:])
    calls = np.empty((len(lines) - 1, len(samples)), np.int8)
    facts: list[tuple[str, int, str, str, str]] = []
    strange = 0
    for row, line in enumerate(lines[1:]):
        fields = line.split("\t")
        if len(fields) != len(header):
            raise FileFormatError(
                f"{path}: line {row + 2} has {len(fields)} columns, the header {len(header)}."
            )
        if not fields[3].lstrip("-").isdigit():
            raise FileFormatError(f"{path}: line {row + 2} has the position {fields[3]!r}.")
        oa, ea = _two_alleles(fields[1], fields[_COLUMNS:])
        codes = {call: _copies(call, oa, ea) for call in set(fields[_COLUMNS:])}
        strange += sum(codes[call] == -2 for call in fields[_COLUMNS:])
        calls[row] = [max(codes[call], -1) for call in fields[_COLUMNS:]]
        facts.append((fields[2], int(fields[3]), oa, ea, fields[0]))
    if strange:
        warnings.warn(
            f"{path}: {strange} calls of a further allele are taken as missing.",
            DataWarning,
            stacklevel=3,
        )
    chrom, pos, other, effect, names = zip(*facts, strict=True) if facts else ((),) * 5
    return HapMap(calls, VariantTable.of(chrom, pos, other, effect, names), samples)


def _two_alleles(text: str, calls: list[str]) -> tuple[str, str]:
    """Return the first two alleles, by the column of alleles, else by the calls."""
    named = [allele for allele in text.upper().split("/") if allele not in ("", "N", "NA")]
    if len(named) < 2:
        letters = "".join(sorted(set(calls))).upper()
        seen = dict.fromkeys(letter for letter in letters if letter in "ACGT+-")
        named += [letter for letter in seen if letter not in named]
    return ((*named, ".", "."))[0], ((*named, ".", "."))[1]


def _copies(call: str, oa: str, ea: str) -> int:
    """Return the copies of the effect allele, -1 if missing, -2 if a further allele is called."""
    letters = call.upper()
    if letters in _MISSING and letters not in (2 * oa, 2 * ea):
        return -1
    if len(letters) == 1:
        letters = _BOTH.get(letters, 2 * letters)
    if "N" in letters:
        return -1
    if len(letters) != 2 or set(letters) - {oa, ea}:
        return -2
    return letters.count(ea)
