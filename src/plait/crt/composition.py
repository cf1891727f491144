"""Usages of gene programs as compositions: the floor under them and the centered log-ratio."""

import logging
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.crt.arguments import real_number
from plait.data.words import counted
from plait.errors import DataWarning, InputError, InputTypeError, OptionError, ShapeError

Array = NDArray[np.float64]

_log = logging.getLogger("plait.crt")

_BLOCK_NUMBERS = 1 << 16
"""Usages of a block of cells; what is made of them stays in a core's second cache."""
_LOW_FLOOR = 1e-6
"""Of the median usage: a floor below it is no floor."""


def usage_floor(usage: NDArray[np.floating], quantile: float = 1e-4) -> float:
    """Return the floor under usages, a quantile of all their N K entries.

    Near-zero usages make logarithms run away; usages below the floor are raised to it.

    Parameters
    ----------
    usage : (N, K) array
        Finite and not negative, with a positive entry in every row (see `check_usage`).
    quantile : float
        Between 0 and 1, interpolated linearly between entries.

    Returns
    -------
    float
        Positive. Where the quantile is 0, as in factorisations with exact zeros, it is the smallest
        positive entry, with a warning.

    Raises
    ------
    OptionError
        The quantile is outside [0, 1].
    InputError
        No entry is positive.
    InputTypeError, ShapeError
        The usage is no matrix of numbers.

    Notes
    -----
    The floor is of all cells together: other cells, another floor. Memory is that of the entries
    below the quantile, time O(N K).
    """
    usage = _usages(usage)
    if not usage.size:
        raise InputError("there is no usage; there is nothing to put a floor under.")
    if not 0.0 <= real_number(quantile, "eps_quantile") <= 1.0:
        raise OptionError(f"eps_quantile is {quantile}; give a number between 0 and 1.")
    eps = quantile_of_usages(usage, quantile)
    if eps > 0.0:
        _note_low_floor(usage, eps)
        return eps
    zeros = 0
    smallest = np.inf
    for block in _blocks(usage):
        positive = block[block > 0.0]
        zeros += block.size - positive.size
        smallest = min(smallest, float(positive.min(initial=np.inf)))
    if not np.isfinite(smallest):
        raise InputError("no usage is positive; there is nothing to put a floor under.")
    warnings.warn(
        f"{zeros / usage.size:.3%} of the usages are 0, more than the quantile {quantile:g}, so "
        f"the floor is the smallest positive usage, {smallest:.3g}. Give eps= to choose another.",
        DataWarning,
        stacklevel=2,
    )
    return smallest


def _note_low_floor(usage: NDArray[np.floating], eps: float) -> None:
    """Tell that usages next to 0 have logarithms far below all others."""
    above = sum(int((block > eps / _LOW_FLOOR).sum()) for block in _blocks(usage))
    if above > usage.size / 2:
        _log.info(
            "the floor under usages is %.2g, less than a millionth of their median: usages next to "
            "0 are most of what varies, and effects are lost in them. Give as eps what you would "
            "call none: %.0e, a thousandth of the mean, say.",
            eps,
            1e-3 * float(usage.mean()),
            extra={"notice": True},
        )


def floor_usage(usage: NDArray[np.floating], eps: float) -> Array:
    """Return usages raised to at least ``eps``, rows scaled to sum to 1.

    Parameters
    ----------
    usage : (N, K) array
        Finite and not negative.
    eps : float
        Positive (`usage_floor`).

    Returns
    -------
    (N, K) array

    Raises
    ------
    OptionError, InputTypeError, ShapeError
        The floor is not positive, or the usage no matrix of numbers.
    """
    floored = np.maximum(_usages(usage).astype(np.float64), _positive(eps))
    floored /= floored.sum(axis=1, keepdims=True)
    return floored


def centered_log_ratio(usage: NDArray[np.floating], eps: float) -> Array:
    """Return the centered log-ratio of usages above a floor.

    ``Y_ik = log u'_ik - mean_j log u'_ij`` with ``u' = max(u, eps)``: the logarithm of a usage
    relative to the geometric mean of its cell.

    Parameters
    ----------
    usage : (N, K) array
        Rows need not sum to 1: a factor common to a row changes nothing but what is floored.
    eps : float
        Positive (`usage_floor`).

    Returns
    -------
    (N, K) array
        Rows sum to 0; a row with an entry that is not finite has none that is.

    Raises
    ------
    OptionError, InputTypeError, ShapeError
        The floor is not positive, or the usage no matrix of numbers.

    Notes
    -----
    Time O(N K), in blocks of cells: beside the result 1 MiB.
    """
    usage, eps = _usages(usage), _positive(eps)
    ratios = np.empty(usage.shape, dtype=np.float64)
    start = 0
    for block in _blocks(usage):
        logarithms = np.log(np.maximum(block, eps), out=ratios[start : start + len(block)])
        logarithms -= logarithms.mean(axis=1, keepdims=True)
        start += len(block)
    return ratios


def check_usage(
    usage: NDArray[np.floating], programs: tuple[str, ...], cells: NDArray[np.str_]
) -> None:
    """Refuse usages that are no composition.

    Raises
    ------
    InputError
        There are fewer than two programs or no cells, an entry is negative, infinite or not a
        number, or a cell uses no program.

    Warns
    -----
    DataWarning
        Rows sum to less than 0.5 or more than 1.5.
    """
    if usage.shape[0] == 0 or usage.shape[1] < 2:
        raise InputError(
            f"the usage has {counted(usage.shape[0], 'cell')} and "
            f"{counted(usage.shape[1], 'program')}; a log-ratio needs cells and at least 2 "
            "programs."
        )
    unusual: list[int] = []
    start = 0
    for block in _blocks(usage):
        bad = ~np.isfinite(block) | (block < 0.0)
        if bad.any():
            row, column = np.argwhere(bad)[0]
            raise InputError(
                f"the usage of program {programs[column]!r} by cell {str(cells[start + row])!r} is "
                f"{block[row, column]}; usages are finite and not negative. Check the programs "
                f"{', '.join(repr(programs[k]) for k in np.flatnonzero(bad.any(axis=0))[:10])}."
            )
        total = block.sum(axis=1)
        empty = np.flatnonzero(total == 0.0) + start
        if len(empty):
            some = ", ".join(repr(str(cell)) for cell in cells[empty[:3]])
            raise InputError(
                f"cells without any positive usage, the first being {some}: leave such cells out."
            )
        unusual += (np.flatnonzero((total < 0.5) | (total > 1.5)) + start).tolist()
        start += len(block)
    if unusual:
        first = unusual[0]
        warnings.warn(
            f"the usages of {len(unusual):,} of {counted(len(usage), 'cell')} sum to less than "
            f"0.5 or more than 1.5 (first: {str(cells[first])!r}, "
            f"{float(usage[first].sum()):.3g}). They are taken as they are, but the floor means "
            "something else in cells of another scale; divide each row by its sum.",
            DataWarning,
            stacklevel=3,
        )


def _usages(usage: Any) -> NDArray[np.floating]:
    values = np.asarray(usage)
    if values.dtype.kind not in "biuf":
        raise InputTypeError(f"the usage holds {values.dtype}; expected numbers.")
    if values.ndim != 2:
        raise ShapeError(
            f"the usage has {counted(values.ndim, 'dimension')}; expected a row for each cell."
        )
    return values


def _positive(eps: Any) -> float:
    if not 0.0 < real_number(eps, "eps") < np.inf:
        raise OptionError(f"eps is {eps}; the floor under usages is positive and finite.")
    return float(eps)


def _blocks(usage: NDArray[np.floating]) -> Iterator[Array]:
    height = max(1, _BLOCK_NUMBERS // max(1, usage.shape[1]))
    for start in range(0, len(usage), height):
        # In one memory layout, so that sums over a row have the same bits in any.
        yield np.ascontiguousarray(usage[start : start + height], dtype=np.float64)


def quantile_of_usages(usage: NDArray[np.floating], quantile: float) -> float:
    """Return a quantile of all entries; the floor by it, if it is above 0."""
    # Like np.quantile of the whole, but only the entries up to the quantile are ever held.
    position = quantile * (usage.size - 1)
    below = int(np.floor(position))
    wanted = min(below + 2, usage.size)
    smallest = np.empty(0)
    waiting: list[Array] = []
    for block in _blocks(usage):
        entries = block.ravel()
        if len(smallest) == wanted:
            entries = entries[entries < smallest[-1]]
        waiting.append(entries)
        if sum(map(len, waiting)) >= wanted:
            smallest = _first(np.concatenate([smallest, *waiting]), wanted)
            waiting = []
    smallest = np.sort(_first(np.concatenate([smallest, *waiting]), wanted))
    low, high = smallest[below], smallest[min(below + 1, usage.size - 1)]
    return float(np.interp(position - below, [0.0, 1.0], [low, high]))


def _first(entries: Array, count: int) -> Array:
    # The smallest entries, the largest of them last.
    return np.partition(entries, min(count, len(entries)) - 1)[:count]
