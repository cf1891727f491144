"""The statistics of variants beside several environments, block by block."""

from dataclasses import dataclass
from itertools import combinations_with_replacement

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock, padded
from plait.data.genotypes import GenotypeSource
from plait.gwas.design import Design
from plait.gwas.environments_results import STATISTICS
from plait.gwas.interaction_scan import EXPLAINED, FITTED, PERFECT, of_groups
from plait.gwas.linear import NOTHING
from plait.gwas.quality import VariantFilter
from plait.gwas.sex_chromosomes import known_meanings

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class EnvironmentStatistics:
    """Statistics of consecutive variants; names and shapes as in `EnvironmentsResult`."""

    coefficients: Array
    covariance: Array
    log10p_interaction: Array
    log10p_joint: Array
    n: NDArray[np.int64]
    frequency: Array
    filtered: dict[str, int]


class EnvironmentsScan:
    """The scan of interactions with q environments, which the covariates of designs span.

    Parameters
    ----------
    source : GenotypeSource
    designs : list of Design
    environments : list of (N, q) arrays
        Those of the samples of each design.
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
        self.n_terms = 1 + environments[0].shape[1]
        rules = VariantFilter() if rules is None else rules
        self.groups = [
            _Group(design, values, robust, rules)
            for design, values in zip(designs, environments, strict=True)
        ]

    def run(self, rows: slice) -> EnvironmentStatistics:
        """Return the statistics of some variants, whatever the cut the same bits."""
        k = self.n_terms
        shapes = dict.fromkeys(STATISTICS, ()) | {"coefficients": (k,), "covariance": (k, k)}
        given = self.source, self.meanings, self.groups, rows, self.n_traits, shapes
        return EnvironmentStatistics(**of_groups(*given))


class _Group:
    """The traits of one design."""

    def __init__(
        self, design: Design, environments: Array, robust: bool, rules: VariantFilter
    ) -> None:
        self.design, self.robust, self.rules = design, robust, rules
        # Centred and scaled, so that g and its products with them are as different as they can be.
        centre, scale = environments.mean(axis=0), environments.std(axis=0)
        self.environments = np.ascontiguousarray((environments - centre) / scale)
        k = 1 + environments.shape[1]
        self.in_units = np.eye(k)
        self.in_units[0, 1:] = -centre / scale
        self.in_units[1:, 1:] = np.diag(1.0 / scale)
        powers = np.concatenate([np.ones((len(environments), 1)), self.environments], axis=1)
        plain = np.concatenate([design.basis, design.traits], axis=1)
        products = np.concatenate([plain * powers[:, [a]] for a in range(k)], axis=1)
        pairs = [(b, a) for a, b in combinations_with_replacement(range(k), 2)]
        squares = np.stack([powers[:, a] * powers[:, b] for a, b in sorted(pairs)], axis=1)
        self.regressors, self.powers = padded(products, np.float64), padded(squares, np.float64)

    def run(self, block: GenotypeBlock) -> tuple[dict[str, Array], dict[str, int]]:
        from plait.gwas.environments_kernels import environment_statistics, robust_environments

        design, n = self.design, len(block)
        block = block.of_samples(design.rows)
        p, n_traits = design.basis.shape[1], design.traits.shape[1]
        k = 1 + self.environments.shape[1]
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        df = float(design.df - k + 1)
        slopes = np.full((n, n_traits, k), np.nan)
        covariances = np.full((n, n_traits, k, k), np.nan)
        tests = np.full((2, n, n_traits), np.nan)
        left_of_trait = np.full((n, n_traits), np.nan)
        explained = np.zeros(n, dtype=bool)
        for part, tile, used in block.tiles(np.float64):
            products = (tile @ self.regressors)[used]
            squares = (tile**2 @ self.powers)[used]
            outputs = slopes[part], covariances[part], tests[0, part], tests[1, part]
            environment_statistics(products, squares, p, df, *outputs, left_of_trait[part])
            explained[part] = np.isnan(outputs[0][:, 0, 0])
            outputs[0][gone[part]] = np.nan
            if self.robust:
                known = self.environments, design.basis, design.traits, products, squares
                robust_environments(tile[used], *known, *outputs)
        covariances[gone] = np.nan
        tests[:, gone] = np.nan
        explained &= ~gone
        why = {**removed, EXPLAINED: explained}
        filtered = {name: int(flags.sum()) * n_traits for name, flags in why.items()}
        if self.robust:
            perfect = ~(gone | explained) & np.isnan(slopes[:, 0, 0])
            filtered[FITTED] = int(perfect.sum()) * n_traits
            left = ~(gone | explained | perfect)[:, None]
            few, few_joint = left & np.isnan(tests)
            filtered["too few degrees of freedom for robust errors"] = int(few.sum())
            filtered["too few degrees of freedom for the robust joint test alone"] = int(
                (few_joint & ~few).sum()
            )
        no_error = ~(gone | np.isnan(slopes[:, 0, 0]))[:, None] & (left_of_trait <= NOTHING)
        filtered[PERFECT] = int(no_error.sum())
        slopes[no_error], covariances[no_error], tests[:, no_error] = np.nan, np.nan, np.nan
        lengths = design.lengths[:, None]
        found = {
            "coefficients": slopes @ self.in_units.T * lengths,
            "covariance": self.in_units @ covariances @ self.in_units.T * lengths[..., None] ** 2,
            "log10p_interaction": tests[0],
            "log10p_joint": tests[1],
        }
        return found, filtered
