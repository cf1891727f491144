"""Numbers and lists in words."""

from collections.abc import Iterable, Sequence
from difflib import get_close_matches

_MOST_LISTED, _MOST_NEAR = 24, 3


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


def shortened(name: str, longest: int) -> str:
    """Return a name with its middle left out where it is longer than so many letters."""
    if len(name) <= longest:
        return name
    head = (longest - 1) * 2 // 3
    return f"{name[:head]}…{name[len(name) - (longest - 1 - head) :]}"


def listed(names: Sequence[str], most: int = _MOST_LISTED) -> str:
    """Return names separated by commas; of many the first, and how many more there are."""
    text = ", ".join(names[:most])
    more = len(names) - most
    return f"{text} and {more:,} more" if more > 0 else text


def known_names(asked: str, names: Iterable[object], most: int = _MOST_LISTED) -> str:
    """Return what there is in the place of a name that is not: the nearest names, and all.

    Parameters
    ----------
    asked : str
    names : iterable of object
        Written as text.
    most : int
        Of many names the first, and how many more there are.

    Notes
    -----
    Small and capital letters are alike; a name is near that has most of its letters in order.
    """
    known = [str(name) for name in names]
    if not known:
        return "there is none"
    of = {name.casefold(): name for name in reversed(known)}
    near = [of[name] for name in get_close_matches(asked.casefold(), of, _MOST_NEAR)]
    verb = "is" if len(known) == 1 else "are"
    said = f"there {verb} {listed([repr(name) for name in known], most)}"
    return f"near it: {', '.join(map(repr, near))}; {said}" if near else said
