"""Results as pages: one self-contained, interactive HTML file per result.

`write_mash_report` writes one; `Page` and its parts are what a page of any method is made of.
"""

from typing import TYPE_CHECKING, Any

from plait.report.page import (
    Citation,
    EffectTable,
    Figure,
    Numbers,
    Page,
    Section,
    Verdict,
    render,
    write_page,
)

if TYPE_CHECKING:
    from plait.report.mash import mash_page, write_mash_report

__all__ = [
    "Citation",
    "EffectTable",
    "Figure",
    "Numbers",
    "Page",
    "Section",
    "Verdict",
    "mash_page",
    "render",
    "write_mash_report",
    "write_page",
]


def __getattr__(name: str) -> Any:
    """Import the pages of mash when they are asked for: a scan's words need none of mash."""
    if name in ("mash_page", "write_mash_report"):
        from plait.report import mash

        return getattr(mash, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
