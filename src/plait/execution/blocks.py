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


def block_rows(unit: int, bytes_per_item: int, budget: int, workers: int) -> int:
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

    Raises
    ------
    CapacityError
        Not even one unit for each worker fits.
    """
    units = budget // (workers * unit * bytes_per_item)
    if units < 1:
        needed = workers * unit * bytes_per_item
        raise CapacityError(
            f"the smallest blocks for {workers} workers take {needed / 2**20:,.0f} MiB and "
            f"memory is {budget / 2**20:,.0f} MiB: raise memory, or lower threads."
        )
    return unit * min(int(units), _MOST_UNITS)


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
