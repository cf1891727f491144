"""Whole-genome regression of cases and controls: score tests beside a prediction.

    logit P(case) = covariates + c * prediction from the other chromosomes + beta * copies

The prediction is that of `plait.gwas.whole_genome` for the outcomes 0 and 1. It enters as a
covariate: its coefficient c, which takes it to the scale of log odds, is fitted for each chromosome
that is left out. Tests are those of `plait.gwas.binary`, with saddlepoint p-values and penalised
effects, the prediction among the covariates. With close relatives they are conservative, for the
reason given in `plait.gwas.whole_genome`: null lambdas of 0.84 to 0.94 in sibships of four from two
populations.

A prediction from few cases is noisy, and regressions on what is noisy fit too small a coefficient:
the populations that it stands for are then taken out by 50 to 80 %, and left in the statistics.
Where outcomes have a smaller slope on their prediction than 1, c is therefore the one at which
probabilities have the slope 1, as the linear scan subtracts the whole prediction. It is an offset
then, as in REGENIE, not a covariate (which would be fitted again with each variant), and residuals
are scaled to the variance of their probabilities, since they carry the noise of the prediction.
Populations are taken off so even where they differ too little in a trait for it to be predicted
(see `plait.gwas.whole_genome`). Of p-values of variants without effects, in two populations (FST
0.05), this share was below 0.05, with a standard error of 0.001 (logistic: 0.005 to 0.007), as
`benchmarks/gwas_few_cases.py` finds, which has more:

    samples, risks        logistic  with a component  whole-genome-logistic  with a component
    1,500, 0.03 and 0.06     0.094             0.048                  0.048             0.048
    1,000, 0.03 and 0.09     0.143             0.050                  0.052             0.050
    1,500, 0.30 and 0.36     0.089             0.050                  0.048             0.051
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial

import numpy as np
from numpy.typing import NDArray

from plait.errors import ConvergenceError
from plait.gwas.binary import BinaryDesign, BinaryScan, fit_null, weighted_basis
from plait.gwas.whole_genome import WholeGenomeModel, without_covariates

Array = NDArray[np.float64]


class WholeGenomeLogistic:
    """The scans of binary traits that predictions without each chromosome make.

    Parameters
    ----------
    model : WholeGenomeModel
        Of the designs of ``nulls``.
    nulls : list of BinaryDesign
        The regressions without variants and predictions.
    names : sequence of str
        Of all traits.

    Attributes
    ----------
    everything : list of BinaryDesign
        One for each trait: the regression with the prediction from all chromosomes.
    """

    def __init__(
        self, model: WholeGenomeModel, nulls: list[BinaryDesign], names: Sequence[str]
    ) -> None:
        self.model, self.nulls, self.names = model, nulls, names
        self.everything = self._beside("")

    def passes(self) -> Iterator[tuple[list[slice], Callable[[], BinaryScan]]]:
        """Yield the runs of variants of each chromosome, and what prepares their scan."""
        for name, runs in self.model.runs.items():
            yield runs, partial(self._scan, name)

    def _scan(self, chromosome: str) -> BinaryScan:
        model = self.model
        designs = self._beside(chromosome)
        return BinaryScan(model.genotypes, designs, len(self.names), model.precision, model.rules)

    def _beside(self, without: str) -> list[BinaryDesign]:
        """Fit every trait beside its prediction; traits have different ones, so one by one."""
        return [
            self._fitted(null, d, t, without)
            for d, null in enumerate(self.nulls)
            for t in range(len(null.design.columns))
        ]

    def _fitted(self, null: BinaryDesign, d: int, t: int, without: str) -> BinaryDesign:
        design, column = null.design, null.design.columns[[t]]
        prediction = self.model.predictions(d, without)[:, [t]].astype(np.float64)
        apart = without_covariates(prediction, design.basis)[:, 0] * design.lengths[t]
        outcomes = np.rint(null.probabilities[t] + null.residuals[t])
        beside, missing = design.basis, 0.0
        if square := float(apart @ apart):
            beside = np.column_stack([beside, apart / np.sqrt(square)])
            missing = max(1.0 - float(apart @ outcomes) / square, 0.0)
        # Fitted probabilities have the products with covariates and prediction that outcomes have.
        probabilities = fit_null(beside, outcomes + missing * apart)
        if probabilities is None:
            raise ConvergenceError(
                f"trait {self.names[column[0]]!r}: covariates and the prediction from the genome "
                "tell some cases and controls apart without error, so that the logistic regression "
                "has no fit. Use model='logistic' or 'whole-genome' for this trait."
            )
        residuals = outcomes - probabilities
        if missing:
            beside = design.basis
            expected = float(probabilities @ (1.0 - probabilities))
            residuals /= max(1.0, np.sqrt(residuals @ residuals / expected))
        own = type(design)(design.rows, column, beside, design.traits[:, [t]], design.lengths[[t]])
        return BinaryDesign(
            own,
            probabilities[None],
            residuals[None],
            weighted_basis(beside, probabilities)[None],
            null.n_cases[[t]],
        )
