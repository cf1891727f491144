"""Tests of pairs that go to a store block by block, so that a run that was killed goes on."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, get_type_hints

import numpy as np
from numpy.typing import NDArray

from plait.crt.gene_results import GeneTestResult
from plait.crt.gene_tests import NULL_DRAWS, BlockOfPairs
from plait.errors import OptionError
from plait.execution.blocks import Block, plan_blocks
from plait.execution.executors import Workforce, run_blocks
from plait.execution.progress import stage
from plait.execution.stored_output import filled_store, write_region
from plait.io.stored_arrays import Layout, StoredArray

_TYPES = {"p_method": "str", "converged": "bool", "stage": "int64"}


@dataclass(frozen=True, slots=True)
class StoreOptions:
    """Where what is found goes, block by block.

    Attributes
    ----------
    out : str or path
        A path or any fsspec URL.
    overwrite : bool
    keep_draws : bool
        Whether the null statistics of every pair are kept, too.
    """

    out: str | os.PathLike[str]
    overwrite: bool = False
    keep_draws: bool = False

    @classmethod
    def of(
        cls,
        out: str | os.PathLike[str] | None,
        overwrite: bool,
        keep_draws: bool,
        resampling: str,
    ) -> "StoreOptions | None":
        """Return the options, None without a store.

        Raises
        ------
        OptionError
            Null statistics are to be kept without a store, or where there are none.
        """
        if keep_draws and resampling == "analytic":
            raise OptionError(
                "keep_draws keeps null statistics, and analytic p-values are made without drawing "
                "any; give resampling='sceptre_staged'."
            )
        if keep_draws and out is None:
            raise OptionError(
                "keep_draws needs out: null statistics of all pairs go to a store, as memory may "
                "not hold them."
            )
        return None if out is None else cls(out, overwrite, keep_draws)


@dataclass(frozen=True, eq=False)
class _WriteBlock:
    """Tests a block of pairs and writes it to its region of the store."""

    work: BlockOfPairs
    target: str

    def __call__(self, block: Block) -> str:
        return write_region(self.target, block.rows, self.work(block))


def stored_result(
    work: BlockOfPairs,
    force: Workforce,
    options: StoreOptions,
    identity: Mapping[str, Any],
    assembled: Callable[[dict[str, NDArray[Any]]], tuple[GeneTestResult, NDArray[np.integer]]],
) -> GeneTestResult:
    """Test pairs into a store, and return their table.

    Parameters
    ----------
    work : BlockOfPairs
    force : Workforce
    options : StoreOptions
    identity : mapping
        Everything that the numbers depend on.
    assembled : callable
        Makes the result of what was found, of pairs in the order given to `BlockOfPairs.of`;
        returns with it, for each of its rows, the place of the pair (-1: not tested).

    Returns
    -------
    GeneTestResult
        In memory but for ``null_draws``, which stay in the store.
    """
    layouts = {name: _layout(name, len(work), work.kept) for name in work.names()}
    with filled_store(
        options.out,
        layouts,
        identity,
        n_items=len(work),
        unit=work.size,
        items="pairs",
        force=force,
        overwrite=options.overwrite,
    ) as output:
        writer = _WriteBlock(work, output.target)
        with stage("pairs", len(work)) as advance:
            if done := sum(len(block) for block in output.finished):
                advance(done, note=f"resumed after {done:,}")
            left = plan_blocks(len(work), work.size, output.finished)
            for block, digest in run_blocks(writer, left, force, "pairs"):
                output.record(block, digest)
                advance(len(block))
        place_of = np.empty(len(work), dtype=np.intp)
        place_of[work.order] = np.arange(len(work))
        found = {
            name: np.asarray(output.stored(name))[place_of]
            for name in output.arrays
            if name != NULL_DRAWS
        }
        found["p_method"] = found["p_method"].astype("<U12")
        result, places = assembled(found)
        rows = np.full(len(places), -1)
        rows[places >= 0] = place_of[places[places >= 0]]
        output.complete_in_order(result, rows, [NULL_DRAWS] if work.kept else [])
    if not work.kept:
        return result
    stored: Any = StoredArray(options.out, NULL_DRAWS)
    return replace(result, null_draws=stored)


def _layout(name: str, n: int, kept: int) -> Layout:
    if name == NULL_DRAWS:
        return Layout(("pairs", "resamples"), (n, kept))
    return Layout(("pairs",), (n,), _TYPES.get(name, "float64"))


def open_result(store: str | os.PathLike[str]) -> GeneTestResult:
    """Return a result of a store, in memory but for ``null_draws``, which stay there."""
    opened = GeneTestResult.open(store)
    hints = get_type_hints(GeneTestResult)
    read: dict[str, Any] = {}
    for name, dims in GeneTestResult.dims.items():
        values = getattr(opened, name)
        if values is None or dims != ("pairs",):
            continue
        held = np.asarray(values)
        read[name] = held.astype(np.str_) if "str_" in str(hints[name]) else held
    return replace(opened, **read)
