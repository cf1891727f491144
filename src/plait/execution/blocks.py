"""Blocks: how a long job is cut so that memory follows a budget and not the number of items.

The items of a job are effects, genes, variants or perturbations. A block is what one worker reads,
computes and writes at a time. It is a whole number of *units*; the unit depends on the width of the
data alone, so that sums over items, which are made unit by unit and added in order, have the same
bits whatever the budget and the number of workers.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from plait.errors import CapacityError

_MOST_UNITS = 8
"""More than this in a block gains nothing and makes progress, and what a crash loses, coarser."""


@dataclass(frozen=True, slots=True, order=True)
class Block:
    """The items ``start:stop``, the work of one worker at a time."""

    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The items as a slice."""
        return slice(self.start, self.stop)

    def __len__(self) -> int:
        return self.stop - self.start


def block_rows(unit: int, bytes_per_item: int, budget: int, workers: int, n_items: int) -> int:
    """Return how many items a block may have, in whole units.

    Parameters
    ----------
    unit : int
        Items of a unit: a whole number of grains (see `plait.io.stored_arrays.chunk_rows`).
    bytes_per_item : int
        Peak memory of an item while its block is worked on.
    budget : int
        Bytes that all blocks under way may take together.
    workers : int
        Blocks under way at the same time.
    n_items : int
        How many there are; a job smaller than a unit takes less.

    Raises
    ------
    CapacityError
        Not even one unit for each worker fits.
    """
    at_once = min(workers, -(-n_items // unit))
    needed = at_once * min(unit, n_items) * bytes_per_item
    if needed > budget:
        advice = "" if at_once == 1 else ", or let fewer workers work"
        raise CapacityError(
            f"the smallest blocks for {at_once} worker{'s' if at_once > 1 else ''} take "
            f"{needed / 2**20:,.0f} MiB and memory is {budget / 2**20:,.0f} MiB: "
            f"raise --memory (memory=){advice}."
        )
    units = budget // (at_once * unit * bytes_per_item)
    return unit * min(max(int(units), 1), _MOST_UNITS)


def workers_that_fit(
    unit: int, bytes_per_item: int, budget: int, workers: int, n_items: int
) -> int:
    """Return how many of the workers can have a block of one unit at the same time, at least 1.

    Parameters
    ----------
    unit, bytes_per_item, budget, workers, n_items
        As in `block_rows`.
    """
    return max(1, min(workers, budget // (min(unit, n_items) * bytes_per_item)))


def plan_blocks(n_items: int, rows: int, finished: Iterable[Block] = ()) -> list[Block]:
    """Cut the items that are not finished into blocks of at most ``rows`` items, in order.

    ``rows`` and the finished blocks are whole units, so that all blocks are.
    """
    blocks, position = [], 0
    for done in [*sorted(finished), Block(n_items, n_items)]:
        starts = range(position, done.start, rows)
        blocks += [Block(start, min(start + rows, done.start)) for start in starts]
        position = max(position, done.stop)
    return blocks
