"""Grains: the fixed units of arithmetic, so that results do not depend on how work is cut.

A BLAS product may round a row differently when the matrix has another number of rows or another
number of threads. Rows are therefore always processed in tiles of `GRAIN` rows aligned to the
absolute row number, padded at the ends, with single-threaded BLAS; sums over rows add the sums of
the grains in order. A block that starts or ends inside a grain computes that grain with the rows
it has at their own places, which gives those rows the same bits.
"""

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.execution.progress import stage
from plait.execution.threads import resolve_threads, single_threaded_blas

GRAIN = 1024
"""Rows of one grain: a 1024 x 20 tile of float64 and its products stay in the L2 cache."""

Output = TypeVar("Output")


@dataclass(frozen=True, slots=True)
class Grain:
    """One unit of work: rows ``start:stop``, sitting at ``offset`` inside their tile."""

    index: int
    start: int
    stop: int

    @property
    def rows(self) -> slice:
        """The absolute rows of this grain."""
        return slice(self.start, self.stop)

    @property
    def offset(self) -> int:
        """Place of the first row inside the tile."""
        return self.start - self.index * GRAIN

    @property
    def tile_rows(self) -> slice:
        """The rows of the tile that hold data; the others are padding."""
        return slice(self.offset, self.offset + self.stop - self.start)

    def pad(self, values: NDArray[np.float64], fill: float = 0.0) -> NDArray[np.float64]:
        """Return ``values`` (the rows of this grain) in a full tile, padding with ``fill``."""
        if len(values) == GRAIN:
            return values
        tile = np.full((GRAIN, *values.shape[1:]), fill)
        tile[self.tile_rows] = values
        return tile


def grains(start: int, stop: int) -> list[Grain]:
    """Cut the absolute rows ``start:stop`` into grains aligned to multiples of `GRAIN`."""
    return [
        Grain(index, max(start, index * GRAIN), min(stop, (index + 1) * GRAIN))
        for index in range(start // GRAIN, -(-stop // GRAIN))
    ]


def map_grains(
    function: Callable[[Grain], Output],
    start: int,
    stop: int,
    *,
    threads: int | None = None,
    label: str | None = None,
) -> Iterator[Output]:
    """Yield ``function(grain)`` for every grain of the rows ``start:stop``, in grain order.

    Grains run on a pool of ``threads`` threads with single-threaded BLAS. At most a few grains per
    thread are under way or waiting to be consumed, so memory does not grow with the number of
    rows. ``label`` names the progress stage; without it no progress is reported.
    """
    work = grains(start, stop)
    workers = min(resolve_threads(threads), len(work))
    with single_threaded_blas(), stage(label, stop - start) as advance:
        if workers <= 1:
            for grain in work:
                yield function(grain)
                advance(grain.stop - grain.start)
            return
        with ThreadPoolExecutor(workers) as pool:
            pending: deque[tuple[Grain, Future[Output]]] = deque()
            queue = iter(work)
            try:
                for grain in queue:
                    pending.append((grain, pool.submit(function, grain)))
                    if len(pending) < 4 * workers:
                        continue
                    first, future = pending.popleft()
                    yield future.result()
                    advance(first.stop - first.start)
                while pending:
                    first, future = pending.popleft()
                    yield future.result()
                    advance(first.stop - first.start)
            finally:
                for _, future in pending:
                    future.cancel()


def sum_in_order(values: NDArray[np.float64]) -> float:
    """Sum a vector grain by grain, in order: the same bits however it was computed."""
    return float(sum(float(np.sum(values[g.rows])) for g in grains(0, len(values))))
