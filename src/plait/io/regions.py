"""Regions of the genome, as in "chr2:1000-2000" (from 1, both ends included)."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from plait.errors import LabelError, OptionError

_LAST = (1 << 31) - 1
_FORM = re.compile(r"^(?P<chrom>.+?)(?::(?P<start>[\d,]+)(?:-(?P<stop>[\d,]+)?)?)?$")


@dataclass(frozen=True)
class Region:
    """A stretch of one chromosome, from ``start`` to ``stop``, both included.

    Attributes
    ----------
    chrom : str
    start, stop : int
    """

    chrom: str
    start: int = 1
    stop: int = _LAST

    @classmethod
    def parse(cls, text: str) -> "Region":
        """Read ``chromosome``, ``chromosome:start-``, or ``chromosome:start-stop``.

        Raises
        ------
        OptionError
            This is not a region.
        """
        found = _FORM.match(text.strip())
        if found is None:
            raise OptionError(f"region is {text!r}; expected 'chromosome:start-stop'.")
        start = int((found["start"] or "1").replace(",", "") or 0)
        stop = int(found["stop"].replace(",", "") or 0) if found["stop"] else _LAST
        if found["start"] and not found["stop"] and not text.rstrip().endswith("-"):
            stop = start
        if not 1 <= start <= stop:
            raise OptionError(
                f"region is {text!r}; positions count from 1 and the first is not after the last."
            )
        return cls(found["chrom"], start, stop)


def require_chromosome(chrom: str, known: Iterable[str], place: object) -> None:
    """Raise a LabelError unless a chromosome occurs, naming the one that was meant.

    Names are never changed silently: a file that says "chr1" is asked for "chr1".
    """
    names = list(dict.fromkeys(known))
    if chrom in names:
        return
    meant = chrom[3:] if chrom.lower().startswith("chr") else f"chr{chrom}"
    if meant in names:
        hint = f"this file writes it {meant!r}"
    else:
        hint = f"there are {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}"
    raise LabelError(f"{place} has no chromosome {chrom!r}; {hint}.")
