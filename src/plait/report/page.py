"""The page itself: one HTML file with everything inside, whatever method it is about.

A method says what there is to say (`Page`: the answer, verdicts, figures, a table of effects,
settings, citations); this module makes a file of it that needs no network and no other file.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from plait.errors import DependencyError
from plait.io import check_writable, replace_file
from plait.plot import style
from plait.report.figures import numbers

Array = NDArray[np.float64]
State = Literal["good", "caution", "bad", "unknown"]

_RANK: dict[State, int] = {"good": 0, "unknown": 1, "caution": 2, "bad": 3}
_OPTION = re.compile(r"(?<![\w-])--[a-z][a-z0-9-]*")
_POWER = re.compile(r"(?<![\w.])(?:p = )?\d+(?:\.\d+)?e-\d+")
_OVERALL: dict[State, str] = {
    "good": "Sound",
    "unknown": "Sound as far as the file tells",
    "caution": "Read with care",
    "bad": "Do not rely on this",
}


@dataclass(frozen=True)
class Verdict:
    """One lamp of the traffic light: what was checked, and what was found in numbers."""

    state: State
    title: str
    reason: str


@dataclass(frozen=True)
class Numbers:
    """The numbers behind a figure, for those who cannot or will not look at it."""

    head: Sequence[str]
    rows: Sequence[Sequence[str]]


@dataclass(frozen=True)
class Figure:
    """A figure with the text that says how to read it.

    Attributes
    ----------
    name : str
        Unique on the page; letters, digits and hyphens.
    title, caption : str
    description : str
        What a screen reader says instead of the picture.
    spec : dict
        Plotly's ``data`` and ``layout``; colours may be ``var(--name)`` of the style sheet.
    numbers : Numbers, optional
    key : sequence of (colour, text)
        What the colours mean.
    is_wide : bool
        Whether it takes the whole width of the page.
    least_width : int
        Below this width, in pixels, it scrolls inside its frame.
    most_width : int
        It is never wider than this; 0 is no limit.
    views : mapping of str to dict
        Pictures like ``spec``, one of which is chosen from a list; the first one is ``spec``.
        Empty: there is nothing to choose.
    """

    name: str
    title: str
    caption: str
    description: str
    spec: Mapping[str, Any]
    numbers: Numbers | None = None
    key: Sequence[tuple[str, str]] = ()
    is_wide: bool = False
    least_width: int = 0
    most_width: int = 0
    views: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def height(self) -> int:
        """Height in pixels."""
        return int(self.spec["layout"]["height"])


@dataclass(frozen=True)
class Section:
    """Some figures under one heading, and facts: names with texts."""

    name: str
    title: str
    intro: str
    figures: Sequence[Figure]
    facts: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class EffectTable:
    """Effects to sort, search and look at one by one: an estimate and an error per context.

    Attributes
    ----------
    title, intro, note : str
        ``note`` says which effects of how many these are.
    effects, contexts : sequence of str
    estimate, error, rate : (n, R) arrays
        ``rate`` is what is small where one is sure: an lfsr, a p-value. Of estimates without an
        error, ``error`` is None, and neither a column nor bars are shown.
    level : float
        Below it, a context counts as significant.
    effect_name, context_name : str
        What a row and a context are, in one word.
    estimate_name, error_name, rate_name : str
    file_name : str
        Of the table that is downloaded.
    """

    title: str
    intro: str
    note: str
    effects: Sequence[str]
    contexts: Sequence[str]
    estimate: Array
    error: Array | None
    rate: Array
    level: float
    effect_name: str = "effect"
    context_name: str = "context"
    estimate_name: str = "posterior mean"
    error_name: str = "posterior sd"
    rate_name: str = "lfsr"
    file_name: str = "effects.csv"

    def to_json(self) -> dict[str, Any]:
        """Return what the page needs of it; arrays row by row, to five digits."""
        return {
            "effects": list(self.effects),
            "contexts": list(self.contexts),
            "estimate": numbers(self.estimate.ravel(), 5),
            "error": None if self.error is None else numbers(self.error.ravel(), 5),
            "rate": numbers(self.rate.ravel(), 5),
            "level": self.level,
            "names": {
                "effect": self.effect_name,
                "context": self.context_name,
                "estimate": self.estimate_name,
                "error": self.error_name,
                "rate": self.rate_name,
            },
            "file": self.file_name,
        }


@dataclass(frozen=True)
class Citation:
    """Something to cite: as text, and for a reference manager."""

    text: str
    url: str
    bibtex: str


@dataclass(frozen=True)
class Page:
    """Everything a page says.

    Attributes
    ----------
    title, question : str
    answer : sequence of str
        Two sentences with the numbers of the result.
    lead : Figure or None
        The one figure of the first screen; None where there is nothing to draw.
    verdicts : sequence of Verdict
    sections : sequence of Section
    table : EffectTable or None
    settings : mapping of heading to mapping of name to text
    citations : sequence of Citation
    origin : str
        One line: by what, when.
    """

    title: str
    question: str
    answer: Sequence[str]
    lead: Figure | None
    verdicts: Sequence[Verdict]
    sections: Sequence[Section]
    table: EffectTable | None
    settings: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    citations: Sequence[Citation] = ()
    origin: str = ""

    @property
    def state(self) -> State:
        """The worst of the verdicts."""
        states: list[State] = [verdict.state for verdict in self.verdicts]
        return max(states, key=_RANK.__getitem__, default="unknown")

    @property
    def verdict(self) -> str:
        """What the traffic light says in words."""
        return _OVERALL[self.state]

    @property
    def reasons(self) -> list[str]:
        """The lamps that the verdict comes from: those that are not good, all where all are."""
        others = [verdict for verdict in self.verdicts if verdict.state != "good"]
        return [verdict.title.lower() for verdict in others or self.verdicts]

    @property
    def figures(self) -> list[Figure]:
        """Every figure, in the order of the page."""
        first = [] if self.lead is None else [self.lead]
        return [*first, *(figure for part in self.sections for figure in part.figures)]


def render(page: Page) -> str:
    """Return a page as one HTML text that needs nothing else.

    Parameters
    ----------
    page : Page

    Returns
    -------
    str

    Raises
    ------
    DependencyError
        jinja2 or plotly is not installed.
    """
    environment = _environment()
    from markupsafe import Markup

    data = {
        "figures": {
            figure.name: list(figure.views.values()) or [figure.spec] for figure in page.figures
        },
        "table": None if page.table is None else page.table.to_json(),
    }
    return str(
        environment.get_template("page.html").render(
            page=page,
            colours={
                "blue": style.BLUE, "vermilion": style.VERMILION, "grey": style.GREY,
                "ink": style.INK,
                **{f"trait-{number}": colour for number, colour in enumerate(style.COLOURS)},
            },
            # Files of this package, and JSON in which nothing can end the script element.
            style=Markup(_asset("page.css")),
            script=Markup(_asset("page.js")),
            plotly=Markup(_plotly()),
            data=Markup(embedded_json(data)),
        )
    )  # fmt: skip


def write_page(page: Page, path: str | os.PathLike[str], overwrite: bool = False) -> int:
    """Write a page to a file, whole or not at all.

    Parameters
    ----------
    page : Page
    path : str or path
    overwrite : bool
        Whether a file that exists is replaced.

    Returns
    -------
    int
        Bytes written.

    Raises
    ------
    OutputError
        The file exists or cannot be written.
    DependencyError
        jinja2 or plotly is not installed.
    """
    text = render(page).encode("utf-8", errors="replace")
    with replace_file(path, overwrite) as temporary:
        temporary.write_bytes(text)
    return len(text)


def check_page(path: str | os.PathLike[str], overwrite: bool = False) -> None:
    """Refuse at once, before any work, a page that cannot be written or made."""
    check_writable(path, overwrite)
    check_libraries()


def check_libraries() -> None:
    """Refuse at once, before any work, where a library of the page is missing."""
    _environment()
    _plotly()


def embedded_json(value: Any) -> str:
    """Return JSON that may stand inside a script element: no label can end the element."""
    text = json.dumps(value, allow_nan=False, separators=(",", ":"))
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text


def unbroken(text: Any) -> Any:
    """Return text as HTML; options of commands, ``--sampler``, and 1e-11 stay in one line."""
    from markupsafe import Markup, escape

    # Escaped text; an option, or a power of ten, has nothing in it that is.
    options = _OPTION.sub(r"<code>\g<0></code>", str(escape(text)))
    return Markup(_POWER.sub(r'<span class="power">\g<0></span>', options))


@cache
def _environment() -> Any:
    try:
        import jinja2
    except ModuleNotFoundError as error:
        raise _missing(error, "jinja2") from None
    environment = jinja2.Environment(
        loader=jinja2.FunctionLoader(_asset),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    environment.filters["unbroken"] = unbroken
    return environment


@cache
def _plotly() -> str:
    """Return Plotly's own script, which comes with its Python package."""
    try:
        from plotly.offline import get_plotlyjs
    except ModuleNotFoundError as error:
        raise _missing(error, "plotly") from None
    return str(get_plotlyjs())


def _asset(name: str) -> str:
    return (files("plait.report") / "templates" / name).read_text(encoding="utf-8")


def _missing(error: ModuleNotFoundError, library: str) -> Exception:
    if error.name is None or error.name.split(".")[0] != library:
        return error
    return DependencyError(
        f"{library} is required for reports; install it with: pip install 'plait[plot]'",
        name=library,
    )
