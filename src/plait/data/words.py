"""Numbers and lists in words."""

from collections.abc import Sequence

_MOST_LISTED = 24


def counted(count: int, noun: str, nouns: str | None = None) -> str:
    """Return a number with its noun.

    Parameters
    ----------
    count : int
    noun : str
        What one of them is called.
    nouns : str, optional
        What several are called. Default: the noun with an s.
    """
    return f"{count:,} {noun if count == 1 else nouns or f'{noun}s'}"


def listed(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    """Return names separated by commas; of many the first, and how many more there are."""
    text = ", ".join(names[:most])
    more = len(names) - most
    return f"{text} and {more:,} more" if more > 0 else text
