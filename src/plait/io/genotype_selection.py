"""Some samples and variants of genotypes, by lists of names to keep or to leave out."""

import logging
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.data.sample_names import renaming_advice
from plait.data.variants import UNKNOWN_IDS, find_names
from plait.errors import FileFormatError, LabelError
from plait.io.genotypes import SelectedGenotypes

if TYPE_CHECKING:
    from polars import Series

_log = logging.getLogger("plait.io")

_HEADERS = ("IID", "FID", "ID", "SNP")


def read_names(path: str | os.PathLike[str]) -> list[str]:
    """Read a list of samples or variants.

    Parameters
    ----------
    path : path
        Text with a name in each line, or PLINK's two columns (family and sample), of which the
        second one is taken. Blank lines, and a header that begins with ``#`` or is ``IID``,
        ``FID IID``, ``ID`` or ``SNP``, are skipped.

    Raises
    ------
    FileFormatError
        The file cannot be read, has no names, or lines of three columns or more.
    """
    place = Path(path)
    try:
        lines = place.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise FileFormatError(f"{path}: this list of names cannot be read ({error}).") from error
    names: list[str] = []
    for number, line in enumerate(lines, start=1):
        words = line.split()
        if not words or words[0].startswith("#") or (not names and words[0] in _HEADERS):
            continue
        if len(words) > 2:
            raise FileFormatError(
                f"{path}: line {number} has {len(words)} columns. Give a name in each line, or a "
                "family and a sample."
            )
        names.append(words[-1])
    if not names:
        raise FileFormatError(f"{path}: there is no name in this list.")
    return names


def select_genotypes(
    genotypes: GenotypeSource,
    *,
    keep_samples: Sequence[str] | None = None,
    exclude_samples: Sequence[str] | None = None,
    keep_variants: Sequence[str] | None = None,
    exclude_variants: Sequence[str] | None = None,
) -> GenotypeSource:
    """Return some of the samples and variants, in the order of the genotypes.

    Parameters
    ----------
    genotypes : GenotypeSource
    keep_samples, keep_variants : sequence of str, optional
        All others are left out. Default: all are kept.
    exclude_samples, exclude_variants : sequence of str, optional
        These are left out, of those that are kept.

    Returns
    -------
    GenotypeSource
        Read only when asked for. The same one, if nothing is left out.

    Raises
    ------
    LabelError
        None of the names of a list is there, or nothing is left.

    Notes
    -----
    Variants are named by their id or as ``chrom:pos:oa:ea``; a name that several variants have
    means all of them. Names that are not there are counted in the log.
    """
    import polars as pl

    own = pl.Series(genotypes.samples.tolist(), dtype=pl.String)
    samples = _chosen("samples", [own], keep_samples, exclude_samples)
    variants = np.ones(genotypes.n_variants, dtype=np.bool_)
    if keep_variants is not None or exclude_variants is not None:
        table = genotypes.variants
        names = [table.frame["id"], table.keys]
        variants = _chosen("variants", names, keep_variants, exclude_variants)
    if samples.all() and variants.all():
        return genotypes
    return SelectedGenotypes(genotypes, np.flatnonzero(variants), np.flatnonzero(samples))


def _chosen(
    what: str,
    names: Sequence["Series"],
    keep: Sequence[str] | None,
    exclude: Sequence[str] | None,
) -> NDArray[np.bool_]:
    """Tell which items stay; ``names`` has one or more columns of the names of all items."""
    kept = np.ones(len(names[0]), dtype=np.bool_)
    if keep is not None:
        kept &= _named(what, "keep", names, keep)
    if exclude is not None:
        kept &= ~_named(what, "leave out", names, exclude)
    if len(kept) and not kept.any():
        raise LabelError(f"none of the {len(kept):,} {what} is left to use.")
    return kept


def _named(
    what: str, verb: str, names: Sequence["Series"], wanted: Iterable[str]
) -> NDArray[np.bool_]:
    asked = dict.fromkeys(map(str, wanted))
    found, absent = find_names((name for name in asked if name not in UNKNOWN_IDS), *names)
    nowhere = {*absent, *UNKNOWN_IDS}
    lacking = [name for name in asked if name in nowhere]
    if not found.any():
        advice = ""
        if what == "samples" and len(names[0]):
            advice = renaming_advice("list", lacking, "genotypes", names[0].to_list())
        first = [repr(own[0]) for own in names if len(own) and own[0] not in UNKNOWN_IDS]
        raise LabelError(
            f"none of the {len(asked):,} {what} to {verb} is in the genotypes (the first name is "
            f"{lacking[0]!r}; the first of the genotypes is {' or '.join(first) or 'none'})."
            + advice
        )
    if lacking:
        _log.warning(
            "%d of %d %s to %s are not in the genotypes (first: %r)",
            len(lacking), len(asked), what, verb, lacking[0],
        )  # fmt: skip
    return found
