"""Results as pages: one self-contained, interactive HTML file per result.

`write_mash_report` writes one; `Page` and its parts are what a page of any method is made of.
"""

from plait.report.mash import mash_page, write_mash_report
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
