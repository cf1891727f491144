"""What the readers of genotypes share: their libraries, options, and the names of samples."""

import importlib
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.labels import first_repeat
from plait.data.variants import VariantTable
from plait.errors import DependencyError, DuplicateSampleError, MissingSidecarError, OptionError

COUNTS = ("ea", "oa")
DOSAGES = ("auto", "hardcall", "dosage")
MULTIALLELIC = ("split", "drop")
_VARIANTS_OF_A_PART = 1 << 16
_log = logging.getLogger("plait.io")


def library(name: str, install: str = "'plait[genotypes]'") -> Any:
    """Import a library that reads genotypes; ``install`` is what pip is to install.

    Raises
    ------
    DependencyError
        It is not installed.
    """
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] != name.split(".")[0]:
            raise
        raise DependencyError(
            f"{name} is required for these genotypes; install it with: pip install {install}",
            name=name,
        ) from None


class HaploidNotice:
    """Says once, in the log, that a file has genotypes of one allele."""

    def __init__(self, place: object) -> None:
        self._place, self._is_said = place, False

    def say(self) -> None:
        """Say it, if it was not said before."""
        if not self._is_said:
            self._is_said = True
            _log.warning(
                "%s has haploid genotypes: their allele counts twice, as in homozygotes.",
                self._place,
            )


class VariantList:
    """Variants collected one by one into a table, never all of them as Python objects."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, str, str, str]] = []
        self._parts: list[Any] = []

    def add(self, chrom: str, pos: int, name: str, oa: str, ea: str) -> None:
        """Add a variant."""
        self._waiting.append((chrom, pos, name, oa, ea))
        if len(self._waiting) >= _VARIANTS_OF_A_PART:
            self._store()

    def table(self) -> VariantTable:
        """Return all of them."""
        import polars as pl

        self._store()
        return VariantTable(pl.concat(self._parts))

    def _store(self) -> None:
        columns = zip(*self._waiting, strict=True) if self._waiting else ((),) * 5
        chrom, pos, name, oa, ea = columns
        self._parts.append(VariantTable.of(chrom, pos, oa, ea, name).frame)
        self._waiting = []


def swapped(variants: VariantTable) -> VariantTable:
    """Return variants whose other allele is the effect allele."""
    return VariantTable(variants.frame.select("chrom", "pos", "id", oa="ea", ea="oa", cm="cm"))


def check_option(name: str, value: str, allowed: Sequence[str]) -> None:
    """Raise an OptionError unless the value is among those allowed."""
    if value not in allowed:
        raise OptionError(f"{name} is one of {', '.join(map(repr, allowed))}, not {value!r}.")


def require_file(path: Path) -> None:
    """Raise a MissingSidecarError unless there is such a file."""
    if not path.exists():
        raise MissingSidecarError(f"{path}: there is no such file.")


def distinct_samples(place: Any, names: Sequence[str]) -> NDArray[np.str_]:
    """Return names of samples as an array.

    Raises
    ------
    DuplicateSampleError
        A name occurs twice; the message says where, and in which file.
    """
    twice = [name for name, times in Counter(names).items() if times > 1]
    if twice:
        some = ", ".join(map(repr, twice[:10]))
        more = f" and {len(twice) - 10:,} others" if len(twice) > 10 else ""
        raise DuplicateSampleError(
            f"{place}: more than one sample is called {some}{more}. Remove or rename them."
        )
    return np.array(names, dtype=np.str_)


def family_samples(place: Path, families: Sequence[str], names: Sequence[str]) -> NDArray[np.str_]:
    """Return names of samples: their own where those differ, else ``family:name``.

    Raises
    ------
    DuplicateSampleError
        Two samples have the same family and name.
    """
    if len(set(names)) < len(names):
        names = [f"{family}:{name}" for family, name in zip(families, names, strict=True)]
    if len(set(names)) < len(names):
        first, second = first_repeat(names)
        raise DuplicateSampleError(
            f"{place}: rows {first + 1} and {second + 1} are the same sample, {names[first]!r} "
            "(family and name)."
        )
    return np.array(names, dtype=np.str_)
