"""From files named on the command line to data."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.console import say
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from plait.mash.data import MashData

ALL_CANONICAL = "all"


def split_list(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def split_numbers(text: str | None, option: str) -> "NDArray[np.float64] | None":
    """Return the numbers of an option that takes several."""
    import numpy as np

    if text is None:
        return None
    try:
        return np.array([float(part) for part in text.replace(",", " ").split()])
    except ValueError:
        raise OptionError(f"{option} is {text!r}; give numbers.") from None


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
    resets: dict[str, Any] = {
        "alpha": alpha,
        "zero_Shat_reset": zero_shat_reset,
        "zero_Bhat_Shat_reset": zero_bhat_shat_reset,
    }
    chosen = split_list(conditions)
    if effects is not None:
        if bhat is not None or shat is not None or v is not None:
            raise OptionError("--effects replaces --bhat, --shat and --v: give one or the other.")
        data = _load_store(effects, chosen, missing, resets)
    elif bhat is not None:
        data = _load_tables(bhat, shat, v, chosen, missing, resets, quiet)
    else:
        raise OptionError("give the effects: --bhat FILE (and --shat FILE), or --effects STORE.")
    holes = "" if data.missing_mask is None else f", {int(data.missing_mask.sum()):,} cells missing"
    say(quiet, f"{data.n_effects:,} effects x {data.n_conditions} conditions{holes}")
    return data


def _load_store(
    effects: str, chosen: list[str] | None, missing: str | None, settings: dict[str, Any]
) -> "MashData":
    from plait.io import read_effects
    from plait.mash import mash_set_data

    source = read_effects(effects)
    with errors_naming(effects):
        if chosen is not None:
            source = source.select(contexts=chosen)
        return mash_set_data(source, missing=missing or "exact", **settings)


def _load_tables(
    bhat: Path,
    shat: Path | None,
    v: Path | None,
    chosen: list[str] | None,
    missing: str | None,
    settings: dict[str, Any],
    quiet: bool,
) -> "MashData":
    from plait.io import read_effect_tables, read_square
    from plait.mash import mash_set_data

    table, errors = read_effect_tables(bhat, shat, chosen)
    if errors is None:
        say(quiet, f"{bhat}: no --shat, so the effects are taken for z-scores (standard error 1)")
    names, rows = table.column_names, table.row_names
    if errors is not None:
        names = names if names is not None else errors.column_names
        rows = rows if rows is not None else errors.row_names
    correlation = None if v is None else read_square(v, names).values
    with errors_naming(*(str(path) for path in (bhat, shat, v) if path is not None)):
        return mash_set_data(
            table.values,
            None if errors is None else errors.values,
            V=correlation,
            condition_names=names,
            effect_names=None if rows is None else list(rows),
            missing=missing or "auto",
            **settings,
        )


@contextmanager
def errors_naming(*places: str) -> Iterator[None]:
    """Let errors about values say in which files they are."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{', '.join(places)}: {error}") from None


def load_covariances(data: "MashData", ulist: Path | None, methods: str | None) -> dict[str, Any]:
    """Return the covariances that --ulist and --cov-methods ask for.

    Without a file: the canonical ones. With a file: those in it, and the canonical ones that are
    named explicitly.
    """
    from plait.io import read_covariances
    from plait.mash import cov_canonical
    from plait.mash.covariances import CANONICAL

    found: dict[str, Any] = {}
    wanted = split_list(methods)
    if wanted is not None and not wanted:
        raise OptionError("--cov-methods is empty; leave it out for all canonical covariances.")
    if wanted in (None, [ALL_CANONICAL]) and (ulist is None or wanted is not None):
        found = cov_canonical(data, CANONICAL)
    elif wanted is not None and wanted != ["none"]:
        found = cov_canonical(data, wanted)
    if ulist is not None:
        given = read_covariances(ulist, data.n_conditions)
        if twice := sorted(set(given) & set(found)):
            raise InputError(
                f"{ulist}: the name {twice[0]!r} is that of a canonical covariance too; rename it."
            )
        found |= given
    if not found:
        raise OptionError("there are no covariances: give --ulist or --cov-methods.")
    return found


def strong_rows(
    data: "MashData", strong: str | None, all_effects: bool, level: float, quiet: bool
) -> Any:
    """Return the rows that covariances are learned from; None is all."""
    from plait.mash import get_significant_results, mash_1by1

    if all_effects:
        if strong is not None:
            raise OptionError("--strong and --all-effects cannot be combined.")
        return None
    if strong is None:
        screen = mash_1by1(data)
    else:
        from plait.cli.results import read_result

        screen = read_result(strong)
        if screen.n_effects != data.n_effects:
            raise InputError(
                f"{strong} is for {screen.n_effects:,} effects and the tables have "
                f"{data.n_effects:,}; screen these tables."
            )
    rows = get_significant_results(screen, thresh=level)
    if len(rows) == 0:
        raise InputError(
            f"no effect has an lfsr below {level:g} in the screen, so there is nothing to learn "
            "from: raise --level, or use --all-effects."
        )
    say(quiet, f"learning from {len(rows):,} strong effects (lfsr < {level:g} in one condition)")
    return rows
