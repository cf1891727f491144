"""Ridge regression in folds, and stacking of its predictions, from sums of products alone.

Samples are in K folds. Of Z (N, B) and y only ``Z_k^T Z_k`` and ``Z_k^T y_k`` of each fold k are
needed: what leaves folds out is a difference of sums (Mbatchou et al. 2021, Nature Genetics 53).
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dposv

from plait.errors import NotPositiveDefiniteError

Array = NDArray[np.float64]


def ridge_coefficients(gram: Array, cross: Array, penalty: float | Array) -> Array:
    """Return ``(gram + diag(penalty))^-1 cross``, (B,) or (B, T) as ``cross`` is.

    Parameters
    ----------
    gram : (B, B) array
    cross : (B,) or (B, T) array
    penalty : float or (B,) array

    Raises
    ------
    NotPositiveDefiniteError
        The penalised matrix is singular.

    Notes
    -----
    Cost: B^3 / 3 flops, by Cholesky. For the handful of penalties of a grid that is a fraction of
    an eigendecomposition, which would serve all of them.
    """
    matrix = np.array(gram, order="F")
    matrix[np.diag_indices(len(matrix))] += penalty
    _, solution, failed = dposv(matrix, cross, lower=1, overwrite_a=1)
    if failed:
        raise NotPositiveDefiniteError(
            "the products of the predictors with their penalty are not positive definite."
        )
    return np.asarray(solution)


@dataclass(frozen=True, eq=False)
class FoldedRidge:
    """Ridge regressions of T traits on the same predictors, in K folds, with R penalties.

    Attributes
    ----------
    coefficients : (K, R, B, T) array
        ``b_-k``, fitted without fold k.
    held_out : (K, R, T) array
        ``y_k^T Z_k b_-k``: predictions of fold k with the trait that they predict.
    nested : (K, R, T) array
        The same of the other folds j, summed, where neither fold k nor j was seen:
        ``sum_j y_j^T Z_j b_-jk``.
    nested_squares : (K, R, T) array
        ``sum_j |Z_j b_-jk|^2``.
    """

    coefficients: Array
    held_out: Array
    nested: Array
    nested_squares: Array


def ridge_in_folds(grams: Array, crosses: Array, penalties: Array) -> FoldedRidge:
    """Regress traits on predictors without each fold, and without each pair of folds.

    Parameters
    ----------
    grams : (K, B, B) array
        ``Z_k^T Z_k`` of each fold.
    crosses : (K, B, T) array
        ``Z_k^T Y_k``.
    penalties : (R,) array
        Positive.

    Notes
    -----
    Cost: R K (K + 1) / 2 Cholesky decompositions, whatever the number of traits.
    """
    n_folds, size, n_traits = crosses.shape
    gram, cross = grams.sum(axis=0), crosses.sum(axis=0)
    coefficients = np.empty((n_folds, len(penalties), size, n_traits))
    held_out, nested, squares = np.zeros((3, n_folds, len(penalties), n_traits))
    for k in range(n_folds):
        for j in range(k + 1):
            out = [k] if j == k else [k, j]
            left_gram = gram - grams[out].sum(axis=0)
            left_cross = cross - crosses[out].sum(axis=0)
            for r, penalty in enumerate(penalties.tolist()):
                b = ridge_coefficients(left_gram, left_cross, penalty)
                if j == k:
                    coefficients[k, r] = b
                    held_out[k, r] = np.einsum("bt,bt->t", b, crosses[k])
                    continue
                for unseen, other in ((k, j), (j, k)):
                    nested[unseen, r] += np.einsum("bt,bt->t", b, crosses[other])
                    squares[unseen, r] += np.einsum("bt,bt->t", b, grams[other] @ b)
    return FoldedRidge(coefficients, held_out, nested, squares)


@dataclass(frozen=True, eq=False)
class StackedProducts:
    """Products of P predictions of one trait with one another and with the trait, in K folds.

    The prediction of a sample in fold k is by a regression that did not see fold k.

    Attributes
    ----------
    grams : (K, P, P) array
        ``W_k^T W_k``.
    held_out, nested, nested_squares : (K, P) arrays
        See `FoldedRidge`.
    counts : (K,) int array
        Samples in each fold.
    kinds : (P,) int array
        Numbers from 0: predictions that share one add up to a prediction of their own.
    """

    grams: Array
    held_out: Array
    nested: Array
    nested_squares: Array
    counts: NDArray[np.int64]
    kinds: NDArray[np.intp]

    def coefficients(
        self,
        k: int,
        shares: Array,
        kept: NDArray[np.bool_] | None = None,
        alike: bool = False,
    ) -> Array:
        """Return the coefficients (shares, P) of the predictions, fitted without fold k.

        The trait is ``W (E c + d) + error``, with the sums of each kind ``W E``: ``c`` is what
        predictions of a kind have in common, ``d`` how each differs. Scaled to the same length,
        both are normal and explain ``h`` of the variance each, h in ``shares``: a ridge regression
        on predictions and sums with penalties ``P (1 - h) / h`` and ``kinds (1 - h) / h``.

        Parameters
        ----------
        k : int
        shares : array
        kept : (P,) bool array, optional
            The predictions that may be used; coefficients of others are 0. Default all.
        alike : bool
            Predictions of a kind do not differ (``d`` is 0): only their sums are weighted. Default
            False.

        Notes
        -----
        ``W_j`` has seen the trait of fold k, and a fit to ``W_j^T y_j`` would favour whatever
        follows y_k by chance: held-out fold k would not be held out. ``nested`` has not seen it.
        """
        use = np.arange(len(self.kinds)) if kept is None else np.flatnonzero(kept)
        some = np.ix_(use, use)
        n_rest, n_kinds = self.counts.sum() - self.counts[k], int(self.kinds.max()) + 1
        total = self.total[some]
        scale = _reciprocal(np.sqrt(np.diagonal(total) / self.counts.sum()))
        gram = (total - self.grams[k][some]) * scale * scale[:, None]
        cross = self.nested[k, use] * _reciprocal(np.sqrt(self.nested_squares[k, use] / n_rest))
        sums = np.zeros((len(use), n_kinds))
        sums[np.arange(len(use)), self.kinds[use]] = _reciprocal(scale)
        summed = gram @ sums
        length = _reciprocal(np.sqrt(np.einsum("pr,pr->r", sums, summed) / n_rest))
        sums, summed = sums * length, summed * length
        design = np.block([[gram, summed], [summed.T, sums.T @ summed]])
        target = np.concatenate([cross, sums.T @ cross])
        penalty = np.repeat([float(len(use)), float(n_kinds)], [len(use), n_kinds])
        fitted = slice(len(use) if alike else 0, None)
        design, target, penalty = design[fitted, fitted], target[fitted], penalty[fitted]
        found = np.zeros((len(shares), len(use) + n_kinds))
        for i, h in enumerate(shares.tolist()):
            found[i, fitted] = ridge_coefficients(design, target, penalty * (1 - h) / h)
        apart, common = found[:, : len(use)], found[:, len(use) :]
        coefficients = np.zeros((len(shares), len(self.kinds)))
        coefficients[:, use] = (apart + common @ sums.T) * scale
        return coefficients

    def squared_errors(self, k: int, coefficients: Array, trait_square: float) -> Array:
        """Return ``|y_k - W_k b|^2`` for each of the coefficients (shares, P)."""
        fitted = np.einsum("hp,hp->h", coefficients, coefficients @ self.grams[k])
        errors: Array = trait_square - 2 * coefficients @ self.held_out[k] + fitted
        return errors

    @cached_property
    def total(self) -> Array:
        """``W^T W`` (P, P) of all folds."""
        total: Array = self.grams.sum(axis=0)
        return total


def _reciprocal(values: Array) -> Array:
    """Return 1 / values, and 0 where they are 0."""
    result: Array = np.divide(1.0, values, out=np.zeros_like(values), where=values > 0)
    return result
