"""What pages of all methods say about themselves: by what, when, with which settings."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from plait.provenance import Provenance, json_safe
from plait.report.page import Citation

Words = Mapping[str, tuple[str, Mapping[str, str]]]
"""Of each setting: what a person calls it, and what the values mean that are words of the code."""


def own_citation() -> Citation:
    """Return how to cite plait."""
    from plait import __version__

    return Citation(
        f"The plait developers. plait: effects across contexts, version {__version__}.",
        "",
        "@software{plait,\n  title   = {plait: effects across contexts},\n"
        f"  author  = {{{{The plait developers}}}},\n  version = {{{__version__}}}\n}}",
    )


def moment(origin: Provenance) -> str:
    """Return when a result was made, as a person reads it."""
    return origin.created.replace("T", " ").replace("+00:00", " UTC")


def origin_line(what: str, origin: Provenance | None) -> str:
    """Return one line: what is on the page, by which version, when."""
    if origin is None:
        return what
    return " · ".join([what, f"plait {origin.version}", moment(origin)])


def in_words(settings: Mapping[str, Any], words: Words) -> dict[str, Any]:
    """Return settings under the names that a person gives them, with values in words.

    Parameters
    ----------
    settings : mapping
        Settings inside a setting are taken as if they stood beside it.
    words : mapping
        Settings without words keep their name, with blanks.

    Returns
    -------
    dict
        For `as_text`; without those that are None.
    """
    said: dict[str, Any] = {}
    for name, value in settings.items():
        if isinstance(value, Mapping):
            said |= in_words(value, words)
        elif value is not None:
            title, values = words.get(name, (name.replace("_", " "), {}))
            if isinstance(value, bool):
                value = "yes" if value else "no"
            said[title] = values.get(value, value) if isinstance(value, str) else value
    return said


def told(
    settings: Mapping[str, Any],
    origin: Provenance | None,
    words: Words,
    heading: str = "How it was tested",
) -> dict[str, dict[str, str]]:
    """Return how a result was made, in words and by heading: for the settings of a page.

    Parameters
    ----------
    settings : mapping
        What was chosen, under the names of the code.
    origin : Provenance or None
        When, on what and with which versions; without its options, which ``settings`` are.
    words : mapping
        See `in_words`.
    heading : str
        Of what was chosen.
    """
    groups = {heading: in_words(settings, words)}
    if origin is not None:
        groups |= {
            "Run": {
                "analysis": origin.method,
                "when": moment(origin),
                "time": None if origin.seconds is None else f"{origin.seconds:.1f} s",
                "threads": origin.threads,
                "seed": None if "seed" in settings else origin.seed,
            },
            "Fingerprints of the inputs": in_words(origin.inputs, words),
            "Versions": {"plait": origin.version, "Python": origin.python, **origin.libraries},
        }
    return as_text(groups)


def as_text(groups: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, str]]:
    """Return settings as a person reads them, without those that are None."""
    return {
        heading: {str(name): _text(value) for name, value in group.items() if value is not None}
        for heading, group in groups.items()
        if any(value is not None for value in group.values())
    }


def _text(value: Any) -> str:
    """Return a value as a person reads it."""
    value = json_safe(value)
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Sequence) and all(isinstance(part, str | int | float) for part in value):
        return ", ".join(_text(part) for part in value)
    return json.dumps(value)
