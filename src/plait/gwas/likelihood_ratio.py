"""Likelihood-ratio tests of variants in a mixed model, by the likelihood of what covariates leave.

Likelihoods that are compared must be of the same data. The restricted one of a model with the
variant is of less data than that without, so both are taken of the contrasts of the model without
it (Welham and Thompson 1997, Journal of the Royal Statistical Society B 59): with ``V = h2 M K M +
(1 - h2) I`` on the space orthogonal to the covariates, twice the logarithm is ``-(N - p) ln(y^T P
y) - ln |V|`` and a constant, P the inverse of V once the variant is projected out (or not). Each of
the two models has the h2 that makes it most likely.

The likelihood of the whole data, covariates fitted, has no maximum here: relationships of centred
genotypes have the eigenvalue 0 along the constant, where nothing is left of the trait, and ``ln
|V|`` falls without end as h2 nears 1.
"""

import math
from functools import partial

import numpy as np
from numpy.typing import NDArray

from plait.gwas.null_models import NullModel
from plait.numerics.reml import maximum_near, search_of

Array = NDArray[np.float64]


class LikelihoodRatio:
    """Compares models with and without a variant.

    Parameters
    ----------
    null : NullModel
    """

    def __init__(self, null: NullModel) -> None:
        self.model, self.fit = null.model, null.fit

    def log10p(self, regressor: Array, trait: int) -> float:
        """Return log10 of the p-value of a variant, by the chi-square of one degree of freedom.

        ``regressor`` is what `RestrictedModel.prepared` returns.
        """
        from scipy.special import log_ndtr

        height = partial(self.model.likelihood_beside, regressor, trait)
        share = maximum_near(search_of(height), float(self.fit.h2[trait]), 1e-8)
        statistic = max(2.0 * (height(share) - float(self.fit.log_likelihood[trait])), 0.0)
        return (math.log(2.0) + float(log_ndtr(-math.sqrt(statistic)))) / math.log(10.0)
