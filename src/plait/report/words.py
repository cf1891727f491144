"""Numbers and lists in words."""

from collections.abc import Sequence

_MOST_LISTED = 24


def counted(count: int, noun: str) -> str:
    """Return a number with its noun."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Return names separated by commas; of many the first, and how many more there are."""
    text = ", ".join(names[:_MOST_LISTED])
    more = len(names) - _MOST_LISTED
    return f"{text} and {more:,} more" if more > 0 else text
