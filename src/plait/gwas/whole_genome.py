"""Whole-genome regression: a linear scan of what other chromosomes do not predict.

    trait = covariates + prediction from the other chromosomes + beta * copies + error

Predictions are made in two levels without any matrix of samples by samples, as in REGENIE
(Mbatchou et al. 2021, Nature Genetics 53): ridge regressions on blocks of consecutive variants,
with five penalties each, then a ridge regression on their predictions. Samples are in folds, and
the prediction of a sample comes from fits that did not see its fold, at both levels.

Four things differ from what is published there.

1. The second level is fitted to products with predictions that have not seen the fold it leaves
   out (`plait.numerics.ridge.StackedProducts`). Predictions that have seen it make noise predict
   itself: 10 % of its variance with 200 blocks and 1000 samples, less with fewer blocks for each
   sample. That much is taken off the trait, and off effects.
2. Coefficients of the second level shrink towards a common one, not towards 0: the sum of all
   blocks is a prediction too.
3. Where the mean predicts better than the blocks, these get the same weights, and what they predict
   is taken off all the same. Populations that differ a little in a trait are followed by a fit
   whose errors outweigh that, while tests find the populations on every chromosome. The sum of all
   blocks follows them with five coefficients that are nearly one. For noise that costs a few of N
   degrees of freedom: standard errors grow by 1 % with 400 samples.
4. Without a chromosome the second level is fitted again. Populations differ on all chromosomes; in
   one fit each carries a part of that, and what is left without one can be worse than nothing.

Tests are conservative where samples are alike, most of all with close relatives. What a prediction
from relatives leaves of a trait varies less along genotypes that relatives share than along others,
while the error of a test is taken from its variance along all. Measured at variants without effects
(1,000 to 1,200 samples; lambda, and the rate of p < 0.001 over 0.001): two populations 0.94, 0.77;
sibships of four 0.92; sibships of four from two populations, variance share 0.7, 0.81 to 0.87,
0.35. The mixed model's lambda was 0.97 to 1.01 on the same data. Scaling by the variance of all
scores would take the signal of a polygenic trait for inflation, and is not done.
"""

import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.data.genotypes import GenotypeSource
from plait.errors import InputError
from plait.execution.executors import workforce
from plait.execution.threads import single_threaded_blas
from plait.gwas.chromosome_runs import gathered
from plait.gwas.design import Design, without
from plait.gwas.linear import LinearScan
from plait.gwas.quality import VariantFilter

_log = logging.getLogger("plait.gwas")

Array = NDArray[np.float64]


class WholeGenomeModel:
    """Predictions of traits from the genome, without each chromosome, and the scans they leave.

    With close relatives take the mixed model: tests are conservative here (lambda down to 0.81).

    Parameters
    ----------
    genotypes : GenotypeSource
    designs : list of Design
    rules : VariantFilter
        Which variants are tested. Predictors are those called in 95 % of the samples whose rarer
        allele has a frequency of 0.01.
    missing_genotypes : {"mean", "drop"}
        Of the tests (see `LinearScan`); a missing genotype of a predictor is its mean.
    precision : {"single", "double"}
        Of products with genotypes and of predictions.
    memory : int or str, optional
        Bytes; predictions of blocks that need more than half of it go to a store meanwhile.
    threads : int, optional
        They never change the numbers.
    seed : int
        Of the folds.
    folder : str or path, optional
        Where that store is, while the model is fitted. Default: that of temporary files.

    Attributes
    ----------
    explained : (T,) array
        Share of the variance of a trait (less covariates) that is predicted out of fold, from all
        chromosomes; 0 where nothing predicts better than the mean.
    shares : (T,) array
        The share that was chosen for the penalty of the second level, out of five.
    residuals : list of (N, T) arrays
        For each design, what is left by predictions from all chromosomes, each of length 1.
    n_predictors, n_blocks : int
        Variants that predict, and their blocks.
    genotypes : GenotypeSource
    order : (M,) array of int or None
        Rows of its variants among those that were given, where chromosomes alternate there (see
        `plait.gwas.chromosome_runs`).

    Raises
    ------
    InputError
        Predictors are on one chromosome only.
    TooFewSamplesError
        A trait is measured on fewer than 10 samples.
    CapacityError
        A block, or the products of the predictions with one another, do not fit in memory.

    Notes
    -----
    With N samples, M predictors, blocks of B = 1000 and T traits of one pattern of missing values,
    the first level takes N M B flops, read once, and 25 B^2 M more for decompositions; the second
    N P^2 + 5 C P^3 / 3 for each trait, with P = 5 M / B predictions of 4 N bytes each and C
    chromosomes.
    """

    def __init__(
        self,
        genotypes: GenotypeSource,
        designs: list[Design],
        rules: VariantFilter,
        missing_genotypes: str = "mean",
        precision: str = "single",
        memory: int | str | None = None,
        threads: int | None = None,
        seed: int = 1,
        folder: str | os.PathLike[str] | None = None,
    ) -> None:
        self.genotypes, self.order = gathered(genotypes)
        self.designs, self.rules = designs, rules
        self.missing_genotypes, self.precision = missing_genotypes, precision
        from plait.gwas.genome_prediction import predict_out_of_fold, predictor_blocks

        n_traits = sum(len(design.columns) for design in designs)
        self.explained, self.shares = np.zeros((2, n_traits))
        self._predicted: list[NDArray[Any]] = []
        self._scan_of(designs)  # says what is wrong with options before the long work
        dtype = np.dtype(np.float32 if precision == "single" else np.float64)
        force = workforce(None, memory, threads)
        blocks = predictor_blocks(self.genotypes, designs, force)
        self.n_blocks = len(blocks)
        self.n_predictors = sum(len(block.variants) for block in blocks)
        self.chromosomes = tuple(dict.fromkeys(block.chromosome for block in blocks))
        if len(self.chromosomes) < 2:
            found = f"chromosome {self.chromosomes[0]}" if self.chromosomes else "no chromosome"
            raise InputError(
                f"variants that can predict (called in 95 % of the samples, frequency at least "
                f"0.01) are on {found} only; model='whole-genome' tests each chromosome beside a "
                "prediction from the others, and needs two. Use model='mixed' or 'linear'."
            )
        _log.info(
            "whole-genome regression: %s predictors in %s blocks on %d chromosomes",
            f"{self.n_predictors:,}",
            f"{self.n_blocks:,}",
            len(self.chromosomes),
        )
        given = self.genotypes, designs, blocks, dtype, seed, force, folder
        predicted = predict_out_of_fold(*given)
        for design, part in zip(designs, predicted, strict=True):
            self.explained[design.columns] = part.explained
            self.shares[design.columns] = part.shares
            self._predicted.append(part.predictions)
        self.residuals = [self._left(d)[0] for d in range(len(designs))]

    @property
    def runs(self) -> dict[str, list[slice]]:
        """Runs of variants on each chromosome."""
        runs: dict[str, list[slice]] = {}
        for name, run in self.genotypes.variants.chromosomes:
            runs.setdefault(name, []).append(run)
        return runs

    def passes(self) -> Iterator[tuple[list[slice], Callable[[], LinearScan]]]:
        """Yield the runs of variants of each chromosome, and what prepares their scan."""
        for name, own in self.runs.items():
            yield own, partial(self._scan, name)

    def predictions(self, d: int, without: str = "") -> NDArray[Any]:
        """Return predictions (N, T) of the traits of a design, as these are of length 1.

        Parameters
        ----------
        d : int
            Number of the design.
        without : str
            The chromosome that does not predict. Default: all do.
        """
        known = without in self.chromosomes
        found: NDArray[Any] = self._predicted[d][
            1 + self.chromosomes.index(without) if known else 0
        ]
        return found

    def _scan(self, chromosome: str) -> LinearScan:
        designs = []
        for d, design in enumerate(self.designs):
            traits, lengths = self._left(d, chromosome)
            designs.append(replace(design, traits=traits, lengths=design.lengths * lengths))
        return self._scan_of(designs)

    def _scan_of(self, designs: list[Design]) -> LinearScan:
        return LinearScan(
            self.genotypes,
            designs,
            len(self.explained),
            self.missing_genotypes,
            self.precision,
            self.rules,
            self.designs,
        )

    def _left(self, d: int, without: str = "") -> tuple[Array, Array]:
        """Return what predictions leave of the traits of a design, of length 1, and the lengths."""
        design = self.designs[d]
        left = without_covariates(design.traits - self.predictions(d, without), design.basis)
        lengths = np.linalg.norm(left, axis=0)
        return left / lengths, lengths


def without_covariates(values: Array, basis: Array) -> Array:
    """Return what covariates leave of columns (see `plait.gwas.design.without`)."""
    with single_threaded_blas():
        return without(values, basis)
