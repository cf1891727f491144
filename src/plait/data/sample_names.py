"""Names of samples that two tables write differently: said, never mended."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

_LOOKED_AT = 1000
"""Names that prefixes and suffixes are looked for in."""
_CHANCE = 0.1
"""Share of the smaller table below which names match by a prefix or a suffix by chance."""


class _Change(NamedTuple):
    """What would make names match: in words, and what it does to the names of each table."""

    words: str
    first: Callable[[str], str]
    second: Callable[[str], str]


def no_overlap(ours: str, first: Sequence[str], theirs: str, second: Sequence[str]) -> str:
    """Return the message on two tables that have no sample in common.

    Parameters
    ----------
    ours, theirs : str
        What the tables are, in the plural, as "genotypes".
    first, second : sequence of str
        The samples of each; one or more.

    Returns
    -------
    str
        The first three names of both, and which change would make how many of them match: a prefix
        or suffix of all names of one table, family names, leading zeros, case or separators.
    """
    message = (
        f"{ours} and {theirs} have no sample in common: {ours} begin "
        f"{', '.join(map(repr, first[:3]))}, {theirs} begin {', '.join(map(repr, second[:3]))}."
    )
    return message + renaming_advice(ours, first, theirs, second)


def renaming_advice(ours: str, first: Sequence[str], theirs: str, second: Sequence[str]) -> str:
    """Return the sentence on the change that makes most names match; empty where none does."""
    best, most = "", 0
    for change in _changes(ours, first, theirs, second):
        count = len({change.first(name) for name in first} & {change.second(s) for s in second})
        if count > most:
            best, most = change.words, count
    if not most:
        return ""
    return f" {most:,} would match with {best}: rename the samples of one of the two."


def _changes(
    ours: str, first: Sequence[str], theirs: str, second: Sequence[str]
) -> Iterator[_Change]:
    """Yield what may make names match, the plainest first."""
    for where, names, others in ((ours, first, second), (theirs, second, first)):
        for what, change in _affixes(names, others):
            words = f"the {what} of the {where} left out"
            yield _Change(words, *((change, str) if where == ours else (str, change)))
    for what, change in _USUAL:
        yield _Change(f"{what} in the {ours}", change, str)
        yield _Change(f"{what} in the {theirs}", str, change)
        yield _Change(f"{what} in both", change, change)


def _affixes(
    names: Sequence[str], others: Sequence[str]
) -> Iterator[tuple[str, Callable[[str], str]]]:
    """Yield the prefix and the suffix without which most names of a table are in the other one."""
    known = set(others)
    enough = _CHANCE * min(len(names), len(others), _LOOKED_AT)
    before: Counter[str] = Counter()
    after: Counter[str] = Counter()
    for name in names[:_LOOKED_AT]:
        before.update(name[:cut] for cut in range(1, len(name)) if name[cut:] in known)
        after.update(name[cut:] for cut in range(1, len(name)) if name[:cut] in known)
    for what, counts in (("prefix", before), ("suffix", after)):
        for affix, count in counts.most_common(1):
            if count >= enough:
                yield f"{what} {affix!r}", _without(what, affix)


def _without(what: str, affix: str) -> Callable[[str], str]:
    if what == "prefix":
        return lambda name: name.removeprefix(affix)
    return lambda name: name.removesuffix(affix)


def _without_family(name: str) -> str:
    """Return what follows the first separator, or one half of a name that stands there twice."""
    half = len(name) // 2
    if len(name) % 2 and not name[half].isalnum() and name[:half] == name[half + 1 :]:
        return name[:half]
    return re.split("[_:]", name, maxsplit=1)[-1]


def _without_zeros(name: str) -> str:
    return re.sub(r"(?<!\d)0+(?=\d)", "", name)


def _without_separators(name: str) -> str:
    return "".join(character for character in name if character.isalnum())


def _without_decimals(name: str) -> str:
    """Return the whole number that a name is, where a table took names for numbers."""
    return re.sub(r"(?<=\d)\.0+$", "", name)


def _bare(name: str) -> str:
    # Decimals first: without its separator, 1.0 would be 10.
    own = _without_family(_without_decimals(name))
    return _without_zeros(_without_separators(own).casefold())


_USUAL: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("a family name such as 'FID_' left out", _without_family),
    ("leading zeros left out", _without_zeros),
    ("capital and small letters the same", str.casefold),
    ("decimals such as '.0' left out", _without_decimals),
    ("'-', '.', '_' and blanks left out", _without_separators),
    ("family names, leading zeros, decimals, separators and case all left out", _bare),
)
