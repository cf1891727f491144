"""From files named on the command line to data."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from plait.cli.console import say
from plait.cli.invocation import current
from plait.data.words import counted
from plait.errors import InputError, OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from plait.mash.data import MashData
    from plait.mash.stored import StoredData

ALL_CANONICAL = "all"
_COPIES = 8
"""Arrays of the size of the effects that a command makes of data in memory."""
_COPIES_OF_V = 3
"""The same, of the size of the error correlations where every effect has its own."""


def split_list(text: str | None) -> list[str] | None:
    """Return the parts of a comma-separated list."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def refuse_idle(parameters: Sequence[str], are_idle: bool, when: str) -> None:
    """Refuse options that were given and would do nothing, ``when`` saying why."""
    running = current()
    for name in parameters:
        if are_idle and running is not None and name in running.given:
            raise OptionError(f"{running.flags[name].name} does nothing {when}: leave it out.")


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
    workers: Mapping[str, Any] | None = None,
) -> "MashData | StoredData":
    """Read the tables of a command, or open its effects store, and check them.

    ``workers`` are the ``executor``, ``memory`` and ``threads`` that look over a store.
    """
    resets: dict[str, Any] = {
        "alpha": alpha,
        "zero_Shat_reset": zero_shat_reset,
        "zero_Bhat_Shat_reset": zero_bhat_shat_reset,
    }
    chosen = split_list(conditions)
    if effects is not None:
        if bhat is not None or shat is not None:
            raise OptionError("--effects replaces --bhat and --shat: give one or the other.")
        resettable = ("zero_shat_reset", "zero_bhat_shat_reset")
        refuse_idle(resettable, True, "with --effects")
        stored = _open_store(effects, v, chosen, missing, alpha, workers or {})
        _say_size(stored, stored.known.n_missing, quiet)
        return stored
    if bhat is None:
        raise OptionError("give the effects: --bhat FILE (and --shat FILE), or --effects STORE.")
    data = _load_tables(bhat, shat, v, chosen, missing, resets, quiet)
    _say_size(data, 0 if data.missing_mask is None else int(data.missing_mask.sum()), quiet)
    return data


def _say_size(data: "MashData | StoredData", n_missing: int, quiet: bool) -> None:
    holes = f", {counted(n_missing, 'cell')} missing" if n_missing else ""
    say(
        quiet,
        f"{counted(data.n_effects, 'effect')} x {counted(data.n_conditions, 'condition')}{holes}",
    )


def _open_store(
    effects: str,
    v: Path | None,
    chosen: list[str] | None,
    missing: str | None,
    alpha: float,
    workers: Mapping[str, Any],
) -> "StoredData":
    from plait.io import read_square
    from plait.mash import mash_open_data
    from plait.mash.stored import stored_conditions

    way = "exact" if missing in (None, "auto") else str(missing)
    V = None if v is None else read_square(v, stored_conditions(effects, chosen)).values
    with errors_naming(*(str(place) for place in (effects, v) if place is not None)):
        return mash_open_data(effects, alpha, V=V, conditions=chosen, missing=way, **workers)


def in_memory(data: "MashData | StoredData", memory: str | None = None) -> "MashData":
    """Return data that a command needs whole, if there is room for them."""
    from plait.errors import CapacityError
    from plait.execution.memory import memory_budget
    from plait.mash import StoredData

    if not isinstance(data, StoredData):
        return data
    matrices = 0 if data.V is not None else _COPIES_OF_V * data.n_conditions
    needed = 8 * data.n_effects * data.n_conditions * (_COPIES + matrices)
    budget = memory_budget(memory)
    if needed > budget:
        raise CapacityError(
            f"this needs all {counted(data.n_effects, 'effect')} in memory, about "
            f"{needed / 2**30:.1f} GiB, and there are {budget / 2**30:.1f} GiB: raise --memory; "
            "'fit' and 'apply' with --out NAME.zarr and --outputlevel 2 work block by block."
        )
    return data.read(slice(None))


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


def load_covariances(
    data: "MashData | StoredData", ulist: Path | None, methods: str | None
) -> dict[str, Any]:
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


def strong_data(
    data: "MashData | StoredData",
    strong: str | None,
    all_effects: bool,
    level: float,
    quiet: bool,
    workers: Mapping[str, Any],
) -> "MashData":
    """Return the data of the effects that covariances are learned from."""
    from plait.mash import StoredData, subset_mash_data

    if all_effects:
        if strong is not None:
            raise OptionError("--strong and --all-effects cannot be combined.")
        refuse_idle(("level",), True, "with --all-effects")
        return in_memory(data, workers.get("memory"))
    rows = _strong_rows(data, strong, level, workers)
    if len(rows) == 0:
        raise InputError(
            f"no effect has an lfsr below {level:g} in the screen, so there is nothing to learn "
            "from: raise --level, or use --all-effects."
        )
    say(
        quiet,
        f"learning from {counted(len(rows), 'strong effect')} (lfsr < {level:g} in one condition)",
    )
    return data.read(rows) if isinstance(data, StoredData) else subset_mash_data(data, rows)


def _strong_rows(
    data: "MashData | StoredData", strong: str | None, level: float, workers: Mapping[str, Any]
) -> Any:
    from plait.mash import StoredData, get_significant_results, mash_1by1, strong_effects

    if strong is None:
        if isinstance(data, StoredData):
            return strong_effects(data, level, **workers)
        return get_significant_results(mash_1by1(data), thresh=level)
    from plait.cli.results import read_result

    screen = read_result(strong)
    if screen.n_effects != data.n_effects:
        raise InputError(
            f"{strong} is for {counted(screen.n_effects, 'effect')} and the data have "
            f"{data.n_effects:,}; screen these data."
        )
    return get_significant_results(screen, thresh=level)
