"""A scan into a store, block by block: memory follows the block; killed scans go on."""

import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import TILE
from plait.data.genotypes import GenotypeSource
from plait.execution.blocks import Block, block_rows, workers_that_fit
from plait.execution.executors import Workforce, run_blocks
from plait.execution.memory import give_back
from plait.execution.progress import stage
from plait.execution.stored_output import StoredOutput, filled_store, write_region
from plait.gwas.passes import (
    VariantMethod,
    VariantScan,
    add_counts,
    arrays_of,
    blocks_within,
    found_out,
    joined,
    per_copy,
    readable,
)
from plait.gwas.sex_chromosomes import haploid_chromosomes
from plait.gwas.variant_results import VARIANT_COLUMNS, VariantResult, chunk_variants
from plait.io.store import distinct_dims
from plait.io.stored_arrays import Layout
from plait.provenance import Provenance

Found = TypeVar("Found", bound=VariantResult)

_BOTH = ("variants", "traits")
_COPIES = 8
"""Arrays of the size of a block's statistics that are alive while it is worked on (measured)."""
_LABEL_BYTES = 600
"""Of the text of a variant while its block is written."""
_PACKED_AT_ONCE = 4 * TILE
"""Variants that are read and tested at a time where they lie packed: more would only take room."""


def scan_to_store(
    method: VariantMethod[Found],
    genotypes: GenotypeSource,
    traits: tuple[str, ...],
    out: str | os.PathLike[str],
    identity: dict[str, Any],
    provenance: Provenance,
    started: float,
    force: Workforce,
    overwrite: bool,
) -> Found:
    """Scan all variants into a store.

    Parameters
    ----------
    method : VariantMethod
    genotypes : GenotypeSource
    traits : tuple of str
    out : str or path
        The store to make, a path or any fsspec URL that the workers can reach.
    identity : dict
        What the numbers depend on; a scan that was interrupted goes on if it has the same.
    provenance : Provenance
    started : float
        Of `time.perf_counter`, for the seconds of the provenance.
    force : Workforce
    overwrite : bool
        Whether a store that exists is replaced.

    Returns
    -------
    Result
        Of the kind that the method makes; its arrays of variants stay in the store.

    Raises
    ------
    CapacityError
        Not even the smallest block fits in memory.
    OutputError
        See `plait.execution.stored_output.filled_store`.
    """
    n_variants, n_traits = genotypes.n_variants, len(traits)
    width = n_traits * max(map(math.prod, method.inner.values()), default=1)
    unit = chunk_variants(width, n_variants)
    haploid, order = haploid_chromosomes(genotypes), method.order
    layouts = _layouts(method, n_variants, n_traits)
    size = {"size": [n_variants, n_traits, unit], "haploid": haploid, "gathered": order is not None}
    force = _fitting(force, method, genotypes, n_traits, unit)
    with filled_store(
        out,
        layouts,
        identity | size,
        n_items=n_variants,
        unit=unit,
        items="variants",
        force=force,
        overwrite=overwrite,
    ) as output:
        filtered: dict[str, int] = {}
        checks: dict[tuple[Any, ...], dict[str, Any]] = {}
        for about in output.finished.values():
            add_counts(filtered, about["filtered"])
            _add_checks(checks, about["checks"])
        with stage("scan", n_variants) as advance:
            if done := sum(len(block) for block in output.finished):
                advance(done, note=f"resumed after {done:,}")
            scanned = _scanned(method, genotypes, haploid, output, unit, force)
            for block, (digest, left_out) in scanned:
                _add_checks(checks, method.checks)
                about = {"filtered": left_out, "checks": list(checks.values())}
                output.record(block, digest, about)
                add_counts(filtered, left_out)
                advance(len(block))
        stored: dict[str, Any] = {name: output.stored(name) for name in output.arrays}
        make: Callable[..., Found] = method.result
        result = make(
            **stored,
            traits=traits,
            provenance=replace(provenance, seconds=time.perf_counter() - started),
            **found_out(method, filtered, list(checks.values())),
        )
        if order is None:
            output.complete(result)
        else:
            output.complete_in_order(result, np.argsort(order), tuple(layouts), unit)
    give_back()
    return method.result.open(out)


def _add_checks(
    known: dict[tuple[Any, ...], dict[str, Any]], more: Sequence[dict[str, Any]]
) -> None:
    """Add what was checked, once for each chromosome and group of traits."""
    for check in more:
        known[check["chromosome"], check["samples"], *check["h2"]] = check


def _fitting(
    force: Workforce,
    method: VariantMethod[Any],
    genotypes: GenotypeSource,
    n_traits: int,
    unit: int,
) -> Workforce:
    """Return a workforce of as many workers as have room, at least one."""
    rows = min(unit, genotypes.n_variants)
    per_sample = 4 * min(rows, _at_once(genotypes)) + method.bytes_per_sample
    values = 1 + sum(math.prod(method.inner.get(name, ())) for name in method.result.statistics)
    per_variant = 8 * values * _COPIES * n_traits + _LABEL_BYTES
    size = (unit, per_variant + per_sample * genotypes.n_samples // rows, force.memory)
    workers = force.workers
    if force.executor is None:
        workers = workers_that_fit(*size, workers, genotypes.n_variants)
    block_rows(*size, workers, genotypes.n_variants)  # raises where not even one unit fits
    return replace(force, workers=workers)


def _at_once(genotypes: GenotypeSource) -> int:
    """Return how many variants of a block are read and tested at a time."""
    most = readable(genotypes)
    return min(most, _PACKED_AT_ONCE) if genotypes.lies_packed else most


def _layouts(method: VariantMethod[Any], n_variants: int, n_traits: int) -> dict[str, Layout]:
    dims = {name: distinct_dims(method.result.dims[name]) for name in method.result.statistics}
    layouts = {
        name: Layout(own, (n_variants, n_traits, *method.inner.get(name, ())))
        for name, own in dims.items()
    }
    layouts["n"] = Layout(_BOTH, (n_variants, n_traits), "int64")
    layouts["frequency"] = Layout(("variants",), (n_variants,))
    for name in VARIANT_COLUMNS:
        layouts[name] = Layout(("variants",), (n_variants,), "int64" if name == "pos" else "str")
    return layouts


def _scanned(
    method: VariantMethod[Any],
    genotypes: GenotypeSource,
    haploid: Sequence[str],
    output: StoredOutput,
    unit: int,
    force: Workforce,
) -> Iterator[tuple[Block, tuple[str, dict[str, int]]]]:
    """Yield the blocks that were not finished, written, with their digests.

    Runs of variants follow one another: where one ends and the next one begins inside a chunk,
    their blocks are not written at the same time.
    """
    for part in method.passes():
        cut = [blocks_within(run, unit) for run in part.runs]
        left = [[b for b in blocks if b not in output.finished] for blocks in cut]
        if not any(left):
            continue
        scan = per_copy(part.make(), haploid)
        work = _WriteBlock(scan, output.target, _at_once(genotypes))
        for blocks in left:
            yield from run_blocks(work, blocks, force, "scan")


@dataclass(frozen=True, eq=False)
class _WriteBlock:
    """Scans a block of variants and writes it to its region of the store."""

    work: VariantScan
    target: str
    at_once: int

    def __call__(self, block: Block) -> tuple[str, dict[str, int]]:
        parts = blocks_within(block.rows, self.at_once)
        found = joined([self.work.run(part.rows) for part in parts])
        arrays: dict[str, NDArray[Any]] = arrays_of(found)
        variants = self.work.source.variants[block.rows].frame
        for name in VARIANT_COLUMNS:
            column = variants[name]
            arrays[name] = column.to_numpy() if name == "pos" else np.array(column.to_list(), "O")
        return write_region(self.target, block.rows, arrays), found.filtered
