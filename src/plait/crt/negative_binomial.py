"""The negative-binomial score test of a gene, as sceptre has it (Barry et al. 2021, 2024).

Counts are regressed on the covariates by a Poisson model; the size theta of a negative binomial
with these means is estimated, and the model is not fitted again. The effect of a treatment is
measured by the score of adding it to the model, standardised by its information, so that one fit
of a gene serves all treatments and all resamples of them.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import csc_array

from plait.errors import InputError, ShapeError

Array = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class GeneFit:
    """A gene's counts given the covariates.

    Attributes
    ----------
    coefficients : (columns,) array
        Of the Poisson regression, on the scale of logarithms; 0 for a column that the others
        determine among these cells.
    theta : float
        Size of the negative binomial: the variance is ``mu + mu^2 / theta``. In [0.01, 1000].
    converged : bool
        Whether the regression ended within 25 steps.
    counts, mean : (cells,) arrays
    parts : (3 + columns, cells) array
        What statistics are sums of: see `plait.crt.negative_binomial_kernels.fill_scores`.
    """

    coefficients: Array
    theta: float
    converged: bool
    counts: Array
    mean: Array
    parts: Array


@dataclass(frozen=True, eq=False)
class ScoreStatistics:
    """Statistics of J treatments on one gene.

    Attributes
    ----------
    z : (J,) array
        ``A / sqrt(V)``; NaN where the covariates determine the treatment.
    fold_change : (J,) array
        Counts of the treated cells over what the model expects of them.
    se_fold_change : (J,) array
    """

    z: Array
    fold_change: Array
    se_fold_change: Array


def fit_gene(design: Array, counts: Array) -> GeneFit:
    """Regress a gene's counts on a design.

    Parameters
    ----------
    design : (columns, cells) array
        Ones in the first row; best a well-conditioned basis (`GeneDesign.rows`).
    counts : (cells,) array
        Whole numbers, not all 0.

    Returns
    -------
    GeneFit

    Raises
    ------
    ShapeError
        The design and the counts are not of the same cells.
    InputError
        All counts are 0.

    Notes
    -----
    Iteratively reweighted least squares from means y + 0.1 to a relative change of the deviance
    below 1e-8; theta by Newton's method on its likelihood, else by the method of moments, else
    ``n / sum (y / mu - 1)^2``. Time O(cells x columns^2) for each of about six steps.
    """
    from plait.crt import negative_binomial_kernels as kernels

    y = np.ascontiguousarray(counts, dtype=np.float64)
    rows = np.ascontiguousarray(design, dtype=np.float64)
    if y.ndim != 1 or rows.ndim != 2 or rows.shape[1] != len(y):
        raise ShapeError(f"the design has shape {rows.shape} and the counts {y.shape}.")
    if not y.any():
        raise InputError("all counts of the gene are 0; there is nothing to regress.")
    q, n = rows.shape
    coefficients, mean, parts = np.empty(q), np.empty(n), np.empty((3 + q, n))
    theta, converged = kernels.fit_gene(rows, y, coefficients, mean, parts)
    return GeneFit(coefficients, float(theta), bool(converged), y, mean, parts)


def score_statistics(
    fit: GeneFit, treated: csc_array, chosen: NDArray[np.integer] | None = None
) -> ScoreStatistics:
    """Return the statistics of treatments on a gene.

    Parameters
    ----------
    fit : GeneFit
    treated : (cells, J) csc_array
        Something stored in treated cells.
    chosen : array of int, optional
        Columns of ``treated``; default all.

    Returns
    -------
    ScoreStatistics
        With a and w of the kernels' notation, ``z = sum a / sqrt(sum w - |sum d|^2)`` over treated
        cells; with means mu, ``fc = sum y / sum mu`` and ``se = sqrt(sum (y - fc mu)^2) / sum mu``.

    Notes
    -----
    Time O(treated cells x columns).
    """
    from plait.crt.negative_binomial_kernels import observed_statistics

    columns = np.arange(treated.shape[1]) if chosen is None else np.asarray(chosen)
    z, fold, error = (np.empty(len(columns)) for _ in range(3))
    observed_statistics(
        fit.parts,
        fit.counts,
        fit.mean,
        treated.indptr.astype(np.int64),
        treated.indices.astype(np.int32),
        columns.astype(np.int64),
        z,
        fold,
        error,
    )
    return ScoreStatistics(z, fold, error)
