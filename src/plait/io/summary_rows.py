"""Which rows of a table of summary statistics are read, by what its tool says of them."""

import logging
from pathlib import Path
from typing import TYPE_CHECKING

from plait.data.summary_statistics import described
from plait.errors import InputError, LabelError

if TYPE_CHECKING:
    from polars import DataFrame, Expr

_log = logging.getLogger("plait.io")

_NOT_HARMONISED = ("9", "14", "15", "16", "17", "18")
_REGENIE_FAILED = "TEST_FAIL"
_NO, _YES = ("0", "0.0", "false", "f"), ("1", "1.0", "true", "t")
_ESTIMATES = ("beta", "odds_ratio", "hazard_ratio", "z")


def of_test(frame: "DataFrame", test: str | None, path: Path) -> "DataFrame":
    """Return the rows of one test, where there is a column of them; None: all rows.

    Raises
    ------
    LabelError
        There are none; the message names those that there are.
    """
    if test is None or "test" not in frame.columns:
        return frame
    kept = frame.filter(frame["test"].eq_missing(test) | frame["test"].is_null())
    if kept.is_empty() and not frame.is_empty():
        found = ", ".join(map(repr, frame["test"].unique().sort().head(10).to_list()))
        raise LabelError(
            f"{path}: no row is of the test {test!r}; there are {found}. Say which: "
            "read_summary_statistics(path, test=...)"
        )
    if kept.height < frame.height:
        _log.info(
            "%s: %s rows of other tests than %s left out",
            path,
            f"{frame.height - kept.height:,}",
            test,
        )
    return kept


def harmonised(frame: "DataFrame", path: Path) -> "DataFrame":
    """Leave out rows that could not be harmonised: their strand or place is not known."""
    if "hm_code" not in frame.columns:
        return frame
    kept = frame.filter(~frame["hm_code"].is_in(_NOT_HARMONISED).fill_null(False)).drop("hm_code")
    if kept.height < frame.height:
        _log.warning(
            "%s: %s rows that could not be harmonised (hm_code 9 and 14 to 18) left out",
            path,
            f"{frame.height - kept.height:,}",
        )
    return kept


def of_success(frame: "DataFrame", path: Path) -> tuple["DataFrame", int]:
    """Leave out rows whose estimate the tool marks as failed; return how many.

    Rows of low confidence are kept, and counted in the log. Columns that say such things are not
    in the frame that is returned. Rows without an estimate are not looked at.

    Raises
    ------
    InputError
        All estimates are marked.
    """
    import polars as pl

    marks = {
        "error_code": pl.col("error_code").is_not_null(),
        "remark": pl.col("remark").str.contains(_REGENIE_FAILED, literal=True),
        "converged": _is_one_of("converged", _NO),
        "low_confidence": _is_one_of("low_confidence", _YES),
    }
    marks = {name: mark.fill_null(False) for name, mark in marks.items() if name in frame.columns}
    if not marks:
        return frame, 0
    given = [pl.col(name).is_not_null() for name in _ESTIMATES if name in frame.columns]
    estimated = pl.any_horizontal(given) if given else pl.lit(True)
    said = frame.select(mark & estimated for mark in marks.values())
    rest = frame.drop(marks)
    unsure = said.select(pl.col("^low_confidence$"))
    if unsure.width and (count := int(unsure.to_series().sum())):
        _log.warning(
            "%s: %s of %s rows are of low confidence, says the tool; they are kept",
            path,
            f"{count:,}",
            f"{frame.height:,}",
        )
    failed = said.drop("low_confidence", strict=False)
    if not failed.width:
        return rest, 0
    out = failed.select(pl.any_horizontal(pl.all())).to_series().to_numpy()
    if not out.any():
        return rest, 0
    message = f"{path}: marked as failed by the tool: {described(rest, out)}"
    if out.all():
        raise InputError(f"{message}. That is every row.")
    _log.warning("%s; left out", message)
    return rest.filter(~out), int(out.sum())


def _is_one_of(name: str, words: tuple[str, ...]) -> "Expr":
    import polars as pl

    return pl.col(name).str.strip_chars().str.to_lowercase().is_in(words)
