"""From files named on the command line to data."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.console import say
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    from plait.mash.data import MashData


def split_list(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def load_data(
    bhat: Path | None,
    shat: Path | None,
    effects: str | None,
    v: Path | None,
    *,
    alpha: float = 0.0,
    conditions: str | None = None,
    missing: str | None = None,
    zero_shat_reset: float = 0.0,
    zero_bhat_shat_reset: float = 0.0,
    quiet: bool = False,
) -> "MashData":
    """Read the tables (or the effects store) of a command and check them."""
    from plait.io import read_effect_tables, read_effects, read_square
    from plait.mash.data import mash_set_data

    resets: dict[str, Any] = {
        "zero_Shat_reset": zero_shat_reset,
        "zero_Bhat_Shat_reset": zero_bhat_shat_reset,
    }
    if effects is not None:
        if bhat is not None or shat is not None or v is not None:
            raise OptionError("--effects replaces --bhat, --shat and --v: give one or the other.")
        source = read_effects(effects)
        chosen = split_list(conditions)
        if chosen:
            source = source.select(contexts=chosen)
        return mash_set_data(source, alpha=alpha, missing=missing or "exact", **resets)
    if bhat is None:
        raise OptionError("give --bhat (and --shat), or --effects.")
    table, errors = read_effect_tables(bhat, shat, split_list(conditions))
    if errors is None:
        say(quiet, f"{bhat}: no --shat, the effects are taken as z-scores (standard error 1)")
    names = None if table.column_names is None else list(table.column_names)
    correlation = None if v is None else read_square(v, names).values
    try:
        return mash_set_data(
            table.values,
            None if errors is None else errors.values,
            alpha=alpha,
            V=correlation,
            condition_names=names,
            effect_names=None if table.row_names is None else list(table.row_names),
            missing=missing or "auto",
            **resets,
        )
    except InputError as error:
        where = f"{bhat}" if shat is None else f"{bhat}, {shat}"
        text = str(error)
        for python, option in (
            ("zero_Bhat_Shat_reset", "zero_Bhat_Shat_reset (--zero-bhat-shat-reset)"),
            ("zero_Shat_reset", "zero_Shat_reset (--zero-shat-reset)"),
        ):
            if python in text:
                text = text.replace(python, option)
                break
        raise type(error)(f"{where}: {text}") from None
