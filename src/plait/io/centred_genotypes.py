"""Tables of genotypes from which the mean of every marker was taken off: copies are found again."""

import logging
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from plait.data.words import counted
from plait.errors import FileFormatError

Single = NDArray[np.float32]
Flags = NDArray[np.bool_]

_CENTRED = 0.05
"""Largest mean of a marker that is centred: means may be those of more samples."""
_ROUNDED = 0.01
"""How far values may be from whole numbers apart, as they are written with few digits."""
_EXACT = 1e-5
"""How far they are in single precision."""
_MOST_COPIES = 2
EXCHANGED = " If this is a table of traits or covariates, it was given in the place of genotypes."
_log = logging.getLogger("plait.io")


def restore_copies(path: Path, rows: Single, samples: list[str], markers: list[str]) -> None:
    """Put copies of an allele in the place of centred values, marker by marker.

    What a marker's calls were lessened by is told by calls of none and two copies, which are two
    apart. Where only two values occur, one apart, the one that more samples have is taken for a
    homozygous call: effects of the marker are the same either way, and its frequency is f or
    1/2 + f. A value of 0 that is no whole number from the others is a missing call, which the mean
    stands for (where the mean is one copy, it is a call of one).

    Parameters
    ----------
    path : Path
        For messages.
    rows : (M, N) array
        Changed in place; NaN where missing. Markers without negative values stay as they are.
    samples, markers : list of str

    Raises
    ------
    FileFormatError
        Values of a marker are negative and not centred calls.
    """
    with np.errstate(invalid="ignore"):
        negative = rows < 0
    centred = np.flatnonzero(negative.any(axis=1))
    if not len(centred):
        return
    undecided = imputed = 0
    for row in centred:
        values = rows[row]
        known = ~np.isnan(values)
        if np.isinf(values).any():
            raise FileFormatError(_refusal(path, rows, negative, samples, markers))
        apart = values - np.min(values[known])
        copies = np.rint(apart)
        off = np.abs(apart - copies)
        # How exactly values are written, by those that are no mean.
        rounded = min(max(2 * float(off[known & (values != 0)].max()), _EXACT), _ROUNDED)
        with np.errstate(invalid="ignore"):
            is_call = (off <= rounded) & (copies <= _MOST_COPIES)
        is_mean = known & ~is_call & (values == 0)
        has_mean = abs(np.mean(values[known], dtype=np.float64)) < _CENTRED
        if not has_mean or not (is_call | is_mean | ~known).all():
            raise FileFormatError(_refusal(path, rows, negative, samples, markers))
        calls = copies[is_call]
        if calls.max() == 1:
            undecided += 1
            copies += calls.mean() > 0.5
        rows[row] = np.where(is_call, copies, np.float32(np.nan))
        imputed += int(is_mean.sum())
    _say(path, len(centred), len(markers), undecided, imputed)


def _say(path: Path, n_centred: int, n_markers: int, undecided: int, imputed: int) -> None:
    text = f"{path}: {n_centred:,} of {counted(n_markers, 'marker')} are centred; copies of "
    text += "alleles are taken from how far apart their values are"
    if imputed:
        text += f", and {counted(imputed, 'mean')} in the place of calls as missing"
    if undecided:
        text += (
            f". {counted(undecided, 'marker')} with two genotypes only: the more frequent one is "
            "taken as homozygous"
        )
    _log.info("%s", text, extra={"notice": True})


def _refusal(
    path: Path, rows: Single, negative: Flags, samples: list[str], markers: list[str]
) -> str:
    """Say which value is no copy of an allele; and of centred values why they tell no copies."""
    row, column = np.unravel_index(int(np.argmax(negative)), rows.shape)
    said = (
        f"{path}: marker {markers[row]!r} of sample {samples[column]!r} is {rows[row, column]:g}; "
        "expected copies of an allele, 0 to 2."
    )
    centred = negative.any(axis=1)
    if np.isinf(rows[centred]).any():
        return said + EXCHANGED
    if (np.abs(np.nanmean(rows[centred], axis=1, dtype=np.float64)) < _CENTRED).all():
        said += (
            f" {int(centred.sum()):,} of {len(markers):,} markers are centred about 0, and not all "
            "of their values are whole numbers apart (dosages, or scaled): frequencies and counts "
            "of alleles, which a scan asks for, cannot be told from these. Add to every marker the "
            "mean that was taken off (twice the frequency of the allele)."
        )
    return said + EXCHANGED
