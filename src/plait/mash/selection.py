"""Which effects the weights are fitted on, and which ones patterns are learned from."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from plait.errors import OptionError
from plait.execution.blocks import Block
from plait.execution.executors import Workforce, workforce
from plait.mash.ash import NormalMixture, ash, mash_1by1
from plait.mash.data import MashData
from plait.mash.stored import StoredData, strengths
from plait.numerics.order_statistics import leading_bits

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

_DRAWN_TOGETHER = 1 << 20
_MOST_IN_AN_URN = 10**9
"""From here on NumPy's urns (hypergeometric draws) do not hold all rows."""

_SCREENED = 100_000


@dataclass(frozen=True, eq=False)
class Selection:
    """Some of the effects, and how they were chosen.

    Attributes
    ----------
    rows : (n,) sorted array of row numbers
    is_background : (n,) bool array
        Which were drawn at random from those that are not among the strongest.
    n_effects : int
        Number of effects there are.
    """

    rows: Rows
    is_background: Flags
    n_effects: int

    def inclusion_weights(self) -> Array:
        """Return inverse inclusion probabilities.

        The strong stratum is complete (weight 1); a background effect stands for
        ``(J - n_top) / n_background`` effects.
        """
        n_background = int(self.is_background.sum())
        n_top = len(self.rows) - n_background
        if len(self.rows) == self.n_effects:
            return np.ones(len(self.rows))
        if n_background == 0:
            raise OptionError(
                f"background_fraction of the n_train {n_top} effects rounds to no effects drawn at "
                "random, which alone could be weighted up: raise either, or use weighting='none' "
                "(biased towards effects that are not null)."
            )
        stands_for = (self.n_effects - n_top) / n_background
        return np.where(self.is_background, stands_for, 1.0)


def select_training_effects(
    data: MashData | StoredData,
    n_train: int,
    method: str = "random",
    seed: int = 123,
    background_fraction: float = 0.2,
    *,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Rows:
    """Choose the effects on which the mixture weights are fitted.

    Parameters
    ----------
    data : MashData or StoredData
    n_train : int
        1 to J.
    method : {"random", "topz_random"}
        All at random, or the largest ``max |z|`` and a random background.
    seed : int
    background_fraction : float
        Share of the background in ``"topz_random"``.
    executor, memory, threads
        Who looks through data in a store, as in `mash_open_data`.

    Returns
    -------
    (n_train,) sorted array of row numbers

    Raises
    ------
    OptionError
        ``n_train``, ``method`` or ``background_fraction`` is out of range.

    Notes
    -----
    Memory O(n_train) for data in a store, which are read once for ``"topz_random"``.
    """
    force = workforce(executor, memory, threads) if isinstance(data, StoredData) else None
    return select_effects(data, n_train, method, seed, background_fraction, force).rows


def select_effects(
    data: MashData | StoredData,
    n_train: int,
    method: str = "random",
    seed: int = 123,
    background_fraction: float = 0.2,
    force: Workforce | None = None,
) -> Selection:
    """Choose effects and remember how; see `select_training_effects`."""
    size = data.n_effects
    if not 0 < n_train <= size:
        raise OptionError(f"n_train is {n_train}; it must be from 1 to the {size} effects.")
    if not 0 <= background_fraction <= 1:
        raise OptionError(f"background_fraction is {background_fraction:g}; it must be in [0, 1].")
    if method == "random":
        rows = draw_rows(size, n_train, seed)
        return Selection(rows, np.ones(n_train, bool), size)
    if method != "topz_random":
        raise OptionError(f"select_method {method!r} is unknown; choose 'random' or 'topz_random'.")
    n_background = round(background_fraction * n_train)
    n_top = n_train - n_background
    if n_top == 0:
        top: Rows = np.empty(0, dtype=np.intp)
    elif isinstance(data, StoredData):
        top = _strongest_stored(data, n_top, force or workforce())
    else:
        top = _strongest(strengths(data), np.arange(size), n_top)[1]
    # The background is drawn among the rows that are left, counted in their order.
    background = draw_rows(size - n_top, n_background, seed)
    background += np.searchsorted(top - np.arange(n_top), background, side="right")
    rows = np.concatenate([top, background])
    order = np.argsort(rows)
    return Selection(rows[order], (np.arange(n_train) >= n_top)[order], size)


def draw_rows(total: int, count: int, seed: int) -> Rows:
    """Draw row numbers without replacement; memory O(count), however many rows there are."""
    random = np.random.default_rng(seed)
    if total <= _DRAWN_TOGETHER:
        return np.sort(random.choice(total, count, replace=False)).astype(np.intp)
    if total >= _MOST_IN_AN_URN:
        return _first_distinct(random, total, count)
    starts = np.arange(0, total, _DRAWN_TOGETHER)
    sizes = np.minimum(total - starts, _DRAWN_TOGETHER)
    counts = random.multivariate_hypergeometric(sizes, count, method="marginals")
    drawn = [
        start + np.sort(random.choice(size, n, replace=False))
        for start, size, n in zip(starts, sizes, counts, strict=True)
    ]
    return np.concatenate(drawn).astype(np.intp)


def _first_distinct(random: np.random.Generator, total: int, count: int) -> Rows:
    """Draw with replacement, and keep the first ``count`` that differ, sorted."""
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < count:
        more = random.integers(total, size=max(count - len(drawn), _SCREENED))
        drawn = np.concatenate([drawn, more])
        _, first = np.unique(drawn, return_index=True)
        drawn = drawn[np.sort(first)]
    return np.sort(drawn[:count]).astype(np.intp)


def _strongest(scores: Array, rows: Rows, count: int) -> tuple[Array, Rows]:
    """Return the largest scores and their rows, ties by row, in the order of the rows."""
    if len(rows) > count:
        best = np.lexsort((rows, -scores))[:count]
        scores, rows = scores[best], rows[best]
    order = np.argsort(rows)
    return scores[order], rows[order].astype(np.intp)


def _strongest_of(found: Iterable[tuple[Array, Rows]], count: int) -> Rows:
    """Return the strongest rows of several parts, holding little more than ``count`` of them."""
    scores, rows = np.empty(0), np.empty(0, dtype=np.intp)
    for more_scores, more_rows in found:
        scores = np.concatenate([scores, more_scores])
        rows = np.concatenate([rows, more_rows])
        if len(rows) > 2 * count:
            scores, rows = _strongest(scores, rows, count)
    return _strongest(scores, rows, count)[1]


def _strongest_stored(data: StoredData, count: int, force: Workforce) -> Rows:
    """Find the strongest effects in a store.

    The counts of leading bits of the scores tell how large a score must be; of what is at least
    that large no block sends more than could be among the strongest.
    """
    at_least = np.cumsum(data.known.score_counts[::-1])[::-1]
    bound = int(data.known.score_bins[np.flatnonzero(at_least >= count)[-1]])
    work = partial(_at_least, data, bound, count)
    blocks = data.map_blocks(work, force, "strongest effects")
    return _strongest_of((part for _, part in blocks), count)


def _at_least(data: StoredData, bound: int, most: int, block: Block) -> tuple[Array, Rows]:
    scores = strengths(data.read(block.rows, labelled=False))
    found = np.flatnonzero(leading_bits(scores) >= bound)
    return _strongest(scores[found], block.start + found, most)


def strong_effects(
    data: StoredData,
    level: float = 0.05,
    most: int = 100_000,
    *,
    seed: int = 123,
    executor: Any = None,
    memory: int | str | None = None,
    threads: int | None = None,
) -> Rows:
    """Find the effects in a store that are significant in at least one condition by itself.

    What `mash_1by1` and `get_significant_results` do for data in memory: the effects from which
    covariance patterns are learned.

    Parameters
    ----------
    data : StoredData
    level : float
        An effect counts when its smallest lfsr, over the conditions, is below this.
    most : int
        At most so many are returned, those with the smallest lfsr.
    seed : int
        Of the (at most 100,000) random effects on which the prior of each condition is fitted.
    executor, memory, threads
        As in `mash_open_data`.

    Returns
    -------
    sorted array of row numbers

    Notes
    -----
    The lfsr of a z-score is at least ``Phi(-|z|)`` under any mixture of centred normals, so only
    cells where that is below ``level`` are looked at closely.
    """
    drawn = draw_rows(data.n_effects, min(_SCREENED, data.n_effects), seed)
    sample = data.read(drawn, labelled=False)
    fits: Any = mash_1by1(sample).fitted_g
    priors = [NormalMixture(np.array(fit["pi"]), np.array(fit["sd"])) for fit in fits]
    work = partial(_surely_signed, data, priors, level, most)
    blocks = data.map_blocks(work, workforce(executor, memory, threads), "screening")
    return _strongest_of((part for _, part in blocks), most)


def _surely_signed(
    data: StoredData, priors: list[NormalMixture], level: float, most: int, block: Block
) -> tuple[Array, Rows]:
    """Return minus the smallest lfsr, and the rows, of the effects of a block that are strong."""
    part = data.read(block.rows, labelled=False)
    observed = part.observed(slice(None))
    smallest = np.ones(len(part.Bhat))
    for r, prior in enumerate(priors):
        effects, errors = part.Bhat[:, r], part.Shat[:, r]
        look = ndtr(-np.abs(effects / errors)) < level
        if observed is not None:
            look &= observed[:, r]
        cells = np.flatnonzero(look)
        if len(cells):
            rates = ash(effects[cells], errors[cells], g=prior, fixg=True).lfsr
            smallest[cells] = np.minimum(smallest[cells], rates)
    found = np.flatnonzero(smallest < level)
    return _strongest(-smallest[found], block.start + found, most)
