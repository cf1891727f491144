"""The statistics of variants beside an environment, block by block."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock, padded, read_block
from plait.data.genotypes import GenotypeSource
from plait.gwas.design import Design, rows_of_any
from plait.gwas.interaction_results import STATISTICS
from plait.gwas.linear import NOTHING
from plait.gwas.quality import VariantFilter
from plait.gwas.sex_chromosomes import known_meanings
from plait.numerics.student import log10_p_value

Array = NDArray[np.float64]

EXPLAINED = "collinearity with covariates or main effect, or no variation in a group"
FITTED = "a sample fitted perfectly, without robust errors"
PERFECT = "a perfect fit of the trait"
"""Why a variant is not tested: a sample is fitted where a group has one carrier, say."""


@dataclass(frozen=True, eq=False)
class Interactions:
    """Statistics of consecutive variants; names and shapes as in `InteractionResult`."""

    beta_main: Array
    se_main: Array
    log10p_main: Array
    beta_interaction: Array
    se_interaction: Array
    log10p_interaction: Array
    covariance: Array
    log10p_joint: Array
    n: NDArray[np.int64]
    frequency: Array
    filtered: dict[str, int]


class InteractionScan:
    """The interaction scan of some designs, whose covariates span the environment.

    Parameters
    ----------
    source : GenotypeSource
    designs : list of Design
    environments : list of (N,) arrays
        The environment of the samples of each design.
    n_traits : int
    robust : bool
    rules : VariantFilter
    """

    def __init__(
        self,
        source: GenotypeSource,
        designs: list[Design],
        environments: list[Array],
        n_traits: int,
        robust: bool = False,
        rules: VariantFilter | None = None,
    ) -> None:
        self.source, self.n_traits = source, n_traits
        self.meanings = known_meanings(source)
        rules = VariantFilter() if rules is None else rules
        self.groups = [
            _Group(design, environment, robust, rules)
            for design, environment in zip(designs, environments, strict=True)
        ]

    def run(self, rows: slice) -> Interactions:
        """Return the statistics of some variants, whatever the cut the same bits."""
        shapes: dict[str, tuple[int, ...]] = dict.fromkeys(STATISTICS, ())
        given = self.source, self.meanings, self.groups, rows, self.n_traits, shapes
        return Interactions(**of_groups(*given))


def of_groups(
    source: GenotypeSource,
    meanings: Mapping[str, str],
    groups: Sequence[Any],
    rows: slice,
    n_traits: int,
    shapes: Mapping[str, tuple[int, ...]],
) -> dict[str, Any]:
    """Return the statistics of some variants by groups of traits, each with a design of its own.

    Parameters
    ----------
    source : GenotypeSource
    meanings : mapping of str to str
        What its chromosomes are; see `plait.gwas.sex_chromosomes.known_meanings`.
    groups : sequence
        Their ``run(block)`` returns arrays by name and how many tests each rule left out.
    rows : slice
    n_traits : int
    shapes : mapping of str to tuple of int
        Of what is found of one variant and trait.
    """
    n, block = rows.stop - rows.start, read_block(source, rows, meanings=meanings)
    values = {name: np.full((n, n_traits, *shape), np.nan) for name, shape in shapes.items()}
    counts, filtered = np.zeros((n, n_traits), dtype=np.int64), dict[str, int]()
    for group in groups:
        found, left_out = group.run(block)
        columns = group.design.columns
        for name, array in found.items():
            values[name][:, columns] = array
        counts[:, columns] = len(group.design.rows)
        for name, count in left_out.items():
            filtered[name] = filtered.get(name, 0) + count
    everyone = rows_of_any([group.design for group in groups])
    frequency = block.of_samples(everyone).calls.frequency
    return {**values, "n": counts, "frequency": frequency, "filtered": filtered}


class _Group:
    """The traits of one design."""

    def __init__(
        self, design: Design, environment: Array, robust: bool, rules: VariantFilter
    ) -> None:
        self.design, self.robust, self.rules = design, robust, rules
        # Centred and scaled, so that g and g E are as different as they can be.
        self.centre, self.scale = float(environment.mean()), float(environment.std())
        self.environment = (environment - self.centre) / self.scale
        plain = np.concatenate([design.basis, design.traits], axis=1)
        n_samples = len(environment)
        e = self.environment[:, None]
        powers = np.concatenate([np.ones((n_samples, 1)), e, e * e], axis=1)
        self.regressors = padded(np.concatenate([plain, plain * e], axis=1), np.float64)
        self.powers = padded(powers, np.float64)

    def run(self, block: GenotypeBlock) -> tuple[dict[str, Array], dict[str, int]]:
        from plait.gwas.interaction_kernels import interaction_statistics, robust_covariances

        design, n = self.design, len(block)
        block = block.of_samples(design.rows)
        p, n_traits = design.basis.shape[1], design.traits.shape[1]
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        df = float(design.df - 1)
        slopes = np.full((n, n_traits, 2), np.nan)
        covariances = np.full((n, n_traits, 3), np.nan)
        joint = np.full((n, n_traits), np.nan)
        freedom = np.full((n, 2), df)
        left = np.full((n, n_traits), np.nan)
        explained = np.zeros(n, dtype=bool)
        for part, tile, used in block.tiles(np.float64):
            products = (tile @ self.regressors)[used]
            squares = (tile**2 @ self.powers)[used]
            outputs = slopes[part], covariances[part], joint[part]
            interaction_statistics(products, squares, p, df, *outputs, left[part])
            explained[part] = np.isnan(outputs[0][:, 0, 0])
            outputs[0][gone[part]] = np.nan
            if self.robust:
                known = self.environment, design.basis, design.traits, products, squares
                shift = self.centre / self.scale
                robust_covariances(tile[used], *known, shift, *outputs, freedom[part])
        for array in (covariances, joint):
            array[gone] = np.nan
        explained &= ~gone
        perfect = ~(gone | explained) & np.isnan(slopes[:, 0, 0])
        why = {**removed, EXPLAINED: explained, FITTED: perfect}
        filtered = {name: int(flags.sum()) * n_traits for name, flags in why.items()}
        no_error = ~(gone | explained | perfect)[:, None] & (left <= NOTHING)
        filtered[PERFECT] = int(no_error.sum())
        for array in (slopes, covariances, joint):
            array[no_error] = np.nan
        return self._in_units(slopes, covariances, joint, freedom), filtered

    def _in_units(self, slopes: Array, covariances: Array, joint: Array, df: Array) -> Any:
        """Return effects in the units of trait and environment, the main one where that is 0."""
        lengths, shift = self.design.lengths, self.centre / self.scale
        at_mean, slope = slopes[..., 0], slopes[..., 1]
        v_mean, v_both, v_slope = np.moveaxis(covariances, -1, 0)
        main = at_mean - shift * slope
        v_main = v_mean - 2.0 * shift * v_both + shift**2 * v_slope
        # The two parts may cancel to rounding, never below 0.
        se_main, se_slope = np.sqrt(np.maximum(v_main, 0.0)), np.sqrt(v_slope)
        with np.errstate(divide="ignore", invalid="ignore"):
            log10p = [
                log10_p_value(b / s, df[:, [k]])
                for k, (b, s) in enumerate(((main, se_main), (slope, se_slope)))
            ]
        return {
            "beta_main": main * lengths,
            "se_main": se_main * lengths,
            "log10p_main": log10p[0],
            "beta_interaction": slope * lengths / self.scale,
            "se_interaction": se_slope * lengths / self.scale,
            "log10p_interaction": log10p[1],
            "covariance": (v_both - shift * v_slope) * lengths**2 / self.scale,
            "log10p_joint": joint,
        }
