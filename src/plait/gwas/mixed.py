"""The mixed-model scan: a linear scan that knows how the samples are related (spec 5.2).

    trait = covariates + beta * copies of the effect allele + u + error,  u ~ N(0, s2 h2 K)

The share h2 is estimated once per trait (and chromosome, when that is left out of K), without any
variant (Kang et al. 2010, Nature Genetics 42). In the eigenbasis of K the regression of a variant
is a weighted one, so that genotypes are rotated once for all traits; variants with small p-values
are done again in double precision with h2 estimated beside the variant.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from plait.data.genotype_blocks import GenotypeBlock
from plait.data.genotypes import GenotypeSource
from plait.errors import OptionError
from plait.execution.threads import single_threaded_blas
from plait.gwas.design import Design
from plait.gwas.linear import Associations, GroupedScan
from plait.gwas.quality import VariantFilter
from plait.gwas.relationship import relationship_matrix
from plait.numerics.reml import SpectralModel, VarianceFit

Array = NDArray[np.float64]

EXACT_BELOW = 1e-4
"""p-value from which the variance share is estimated again beside the variant."""


@dataclass(frozen=True, eq=False)
class NullModel:
    """The model of a design without variants, for one relationship matrix.

    Attributes
    ----------
    rotation : (N, N) array
        Eigenvectors of K as columns.
    model : SpectralModel
    fit : VarianceFit
    """

    rotation: Array
    model: SpectralModel
    fit: VarianceFit

    @classmethod
    def of(cls, design: Design, relationships: Array) -> "NullModel":
        """Estimate the variance shares of all traits of a design.

        Relationships (N, N) are scaled to a mean of 1 on the diagonal.
        """
        scaled = relationships / np.mean(np.diagonal(relationships))
        # A threaded eigendecomposition is many times slower where other work shares the cores.
        with single_threaded_blas():
            values, vectors = np.linalg.eigh(scaled)
            model = SpectralModel(values, vectors.T @ design.traits, vectors.T @ design.basis)
            return cls(vectors, model, model.fit())

    def whitened_residuals(self) -> Array:
        """Return ``V^-1/2 (y - X a)`` (N, T), each of length 1, one row per sample."""
        model, columns = self.model, []
        for t, value in enumerate(self.fit.h2.tolist()):
            root = model.variances(value) ** -0.5
            basis = np.linalg.qr(model.covariates * root[:, None])[0]
            y = model.traits[:, t] * root
            y = self.rotation @ (y - basis @ (basis.T @ y))
            columns.append(y / np.linalg.norm(y))
        return np.column_stack(columns)


class MixedScan:
    """Scans variants of one design under one null model.

    Parameters
    ----------
    design : Design
    null : NullModel
    rules : VariantFilter
    exact_below : float
        See `EXACT_BELOW`; 0 keeps the variance shares of the null model, 1 estimates all again.
    """

    def __init__(
        self,
        design: Design,
        null: NullModel,
        rules: VariantFilter,
        exact_below: float = EXACT_BELOW,
    ) -> None:
        if not 0 <= exact_below <= 1:
            raise OptionError(f"exact_below is {exact_below}; give a p-value between 0 and 1.")
        self.design, self.null, self.rules = design, null, rules
        self.columns = design.columns
        self.exact_below = exact_below
        self.rotation = null.rotation.astype(np.float32)
        self.weights, self.regressors, self.squares = self._weighted()

    def _weighted(self) -> tuple[NDArray[np.float32], NDArray[np.float32], Array]:
        """Return weights (N, T), what genotypes are multiplied by, and ``y^T P y`` (T,).

        For each trait the regressors are an orthonormal basis of the weighted covariates (p
        columns), then the weighted residual trait.
        """
        model, h2 = self.null.model, self.null.fit.h2
        weights, columns = np.empty((len(model.values), len(h2))), []
        squares = np.empty(len(h2))
        for t, value in enumerate(h2.tolist()):
            root = model.variances(value) ** -0.5
            basis = np.linalg.qr(model.covariates * root[:, None])[0]
            y = model.traits[:, t] * root
            y = y - basis @ (basis.T @ y)
            weights[:, t] = root**2
            squares[t] = y @ y
            columns.append(np.column_stack([basis, y]) * root[:, None])
        return weights.astype(np.float32), np.hstack(columns).astype(np.float32), squares

    def run(self, block: GenotypeBlock) -> Associations:
        """Return the statistics of some variants, whatever the cut the same bits."""
        from plait.gwas.kernels import mixed_statistics

        block = block.of_samples(self.design.rows)
        n, n_samples = len(block), block.n_samples
        n_traits, p = self.weights.shape[1], self.design.basis.shape[1]
        beta, se, log10p = np.full((3, n, n_traits), np.nan)
        for part, tile, used in block.tiles(np.float32):
            rotated = tile[:, :n_samples] @ self.rotation
            products = (rotated @ self.regressors).astype(np.float64)[used]
            squares = (rotated**2 @ self.weights).astype(np.float64)[used]
            outputs = beta[part], se[part], log10p[part]
            mixed_statistics(products, squares, self.squares, p, float(self.design.df), *outputs)
        removed = self.rules.removed(block.calls)
        gone = np.logical_or.reduce(list(removed.values()))
        untested = ~gone & np.isnan(beta[:, 0])
        for array in (beta, se, log10p):
            array[gone] = np.nan
        self._estimate_again(block, beta, se, log10p)
        beta *= self.design.lengths
        se *= self.design.lengths
        filtered = {name: int(flags.sum()) * n_traits for name, flags in removed.items()}
        filtered["explained by the covariates"] = int(untested.sum()) * n_traits
        used_samples = np.full((n, n_traits), n_samples)
        return Associations(beta, se, log10p, used_samples, block.calls.frequency, filtered)

    def _estimate_again(self, block: GenotypeBlock, beta: Array, se: Array, log10p: Array) -> None:
        """Do variants with small p-values again, with the variance share beside each of them."""
        if self.exact_below == 0:
            return
        with np.errstate(invalid="ignore"):
            small = log10p <= np.log10(self.exact_below)
        for j in np.flatnonzero(small.any(axis=1)):
            rotated = self.null.rotation.T @ block.centred(np.array([j]))[0]
            for t in np.flatnonzero(small[j]):
                beta[j, t], se[j, t], log10p[j, t] = self._one(rotated, int(t))

    def _one(self, genotype: Array, t: int) -> tuple[float, float, float]:
        """Return slope, error and log10 p of one rotated variant, by its own variance share."""
        from plait.numerics.student import log10_p_value

        null = self.null.model
        X = np.column_stack([null.covariates, genotype])
        model = SpectralModel(null.values, null.traits[:, [t]], X)
        root = model.variances(model.near(float(self.null.fit.h2[t]))) ** -0.5
        basis, triangle = np.linalg.qr(X * root[:, None])
        y = null.traits[:, t] * root
        coordinates = basis.T @ y
        residual = y - basis @ coordinates
        beta = coordinates[-1] / triangle[-1, -1]
        se = np.sqrt(residual @ residual / self.design.df) / abs(triangle[-1, -1])
        return float(beta), float(se), float(log10_p_value(beta / se, self.design.df))


class MixedModel:
    """The mixed models of all designs.

    Attributes
    ----------
    h2, h2_se : (T,) arrays
        Share of each trait's variance that follows the relationships of all chromosomes.
    residuals : list of (N, T) arrays
        One per design: whitened, each column of length 1.
    """

    def __init__(
        self,
        genotypes: GenotypeSource,
        designs: list[Design],
        rules: VariantFilter,
        loco: bool,
        exact_below: float,
        memory: int | str | None,
        threads: int,
    ) -> None:
        self.genotypes, self.designs, self.rules = genotypes, designs, rules
        self.loco, self.exact_below = loco, exact_below
        self._samples = np.unique(np.concatenate([design.rows for design in designs]))
        self._relationships = relationship_matrix(
            genotypes, samples=self._samples, by_chromosome=loco, memory=memory, threads=threads
        )
        n_traits = sum(len(design.columns) for design in designs)
        self.h2, self.h2_se = np.empty(n_traits), np.empty(n_traits)
        self.residuals: list[Array] = []
        self._everything = self._nulls()
        for design, null in zip(designs, self._everything, strict=True):
            self.h2[design.columns], self.h2_se[design.columns] = null.fit.h2, null.fit.se
            self.residuals.append(null.whitened_residuals())

    def passes(self) -> Iterator[tuple[list[slice], Callable[[], GroupedScan]]]:
        """Yield the variants of each pass, and what prepares it."""
        if not self.loco:
            everything = [slice(0, self.genotypes.n_variants)]
            yield everything, lambda: self._scan(self._everything)
            return
        runs = self.genotypes.variants.chromosomes
        for name in dict.fromkeys(name for name, _ in runs):
            where = [run for chromosome, run in runs if chromosome == name]
            yield where, partial(self._without, name)

    def _without(self, name: str) -> GroupedScan:
        return self._scan(self._nulls(name))

    def _nulls(self, without: str | None = None) -> list["NullModel"]:
        matrix = self._relationships.matrix(without=without)
        nulls = []
        for design in self.designs:
            rows = np.searchsorted(self._samples, design.rows)
            nulls.append(NullModel.of(design, matrix[np.ix_(rows, rows)]))
        return nulls

    def _scan(self, nulls: list["NullModel"]) -> GroupedScan:
        pairs = zip(self.designs, nulls, strict=True)
        groups = [MixedScan(design, null, self.rules, self.exact_below) for design, null in pairs]
        return GroupedScan(self.genotypes, groups, len(self.h2))
