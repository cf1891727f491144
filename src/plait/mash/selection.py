"""Which effects the weights are fitted on, and which ones patterns are learned from."""

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
from plait.mash.stored import StoredData, score_bins, strengths

Array = NDArray[np.float64]
Rows = NDArray[np.intp]
Flags = NDArray[np.bool_]

_DRAWN_TOGETHER = 1 << 20
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
        """Return inverse inclusion probabilities (spec 15.3).

        The strong stratum is complete (weight 1); a background effect stands for
        ``(J - n_top) / n_background`` effects.
        """
        n_background = int(self.is_background.sum())
        n_top = len(self.rows) - n_background
        if len(self.rows) == self.n_effects:
            return np.ones(len(self.rows))
        if n_background == 0:
            raise OptionError(
                "background_fraction 0 leaves no background effects that could be weighted up: "
                "raise it, or use weighting='none' (biased towards effects that are not null)."
            )
        stands_for = (self.n_effects - n_top) / n_background
        return np.where(self.is_background, stands_for, 1.0)


def select_training_effects(
    data: MashData | StoredData,
    n_train: int,
    method: str = "random",
    seed: int = 123,
    background_fraction: float = 0.2,
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
    return select_effects(data, n_train, method, seed, background_fraction).rows


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
    if isinstance(data, StoredData):
        top = _strongest_stored(data, n_top, force or workforce())
    else:
        top = _strongest(strengths(data), np.arange(size), n_top)
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
    starts = np.arange(0, total, _DRAWN_TOGETHER)
    sizes = np.minimum(total - starts, _DRAWN_TOGETHER)
    counts = random.multivariate_hypergeometric(sizes, count, method="marginals")
    drawn = [
        start + np.sort(random.choice(size, n, replace=False))
        for start, size, n in zip(starts, sizes, counts, strict=True)
    ]
    return np.concatenate(drawn).astype(np.intp)


def _strongest(scores: Array, rows: Rows, count: int) -> Rows:
    """Return the rows with the largest scores, ties by row, sorted."""
    return np.sort(rows[np.lexsort((rows, -scores))[:count]]).astype(np.intp)


def _strongest_stored(data: StoredData, count: int, force: Workforce) -> Rows:
    """Find the strongest effects in a store.

    The counts of leading bits of the scores tell how large a score must be; what is at least that
    large is collected.
    """
    at_least = np.cumsum(data.known.scores[::-1])[::-1]
    bound = int(np.flatnonzero(at_least >= count)[-1])
    found = data.map_blocks(partial(_at_least, data, bound), force, "strongest effects")
    scores, rows = zip(*(part for _, part in found), strict=True)
    return _strongest(np.concatenate(scores), np.concatenate(rows), count)


def _at_least(data: StoredData, bound: int, block: Block) -> tuple[Array, Rows]:
    scores = strengths(data.read(block.rows))
    found = np.flatnonzero(score_bins(scores) >= bound)
    return scores[found], block.start + found


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
    sample = data.read(draw_rows(data.n_effects, min(_SCREENED, data.n_effects), seed))
    fits: Any = mash_1by1(sample).fitted_g
    priors = [NormalMixture(np.array(fit["pi"]), np.array(fit["sd"])) for fit in fits]
    work = partial(_surely_signed, data, priors, level)
    force = workforce(executor, memory, threads)
    rates, rows = zip(*(part for _, part in data.map_blocks(work, force, "screening")), strict=True)
    return _strongest(-np.concatenate(rates), np.concatenate(rows), most)


def _surely_signed(
    data: StoredData, priors: list[NormalMixture], level: float, block: Block
) -> tuple[Array, Rows]:
    part = data.read(block.rows)
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
    return smallest[found], block.start + found
