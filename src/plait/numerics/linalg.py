"""Small dense linear algebra shared by the methods."""

import numpy as np
from numpy.typing import NDArray

from plait.errors import NotPositiveDefiniteError

Array = NDArray[np.float64]

TOLD = 0.999
"""Share of a variable that others tell, from which it has next to nothing of its own."""
NEARLY_TOLD = 0.99
"""Share from which it has little."""


def symmetrise(matrix: Array) -> Array:
    """Return the symmetric part of a matrix or of a stack of matrices."""
    return 0.5 * (matrix + np.swapaxes(matrix, -1, -2))


def is_identity(matrix: Array) -> bool:
    """Tell whether a matrix is exactly the identity."""
    return bool(np.array_equal(matrix, np.eye(matrix.shape[-1])))


def cov_to_cor(covariance: Array) -> Array:
    """Return the correlation matrix of a covariance (or of each of a stack), diagonal exactly 1."""
    scale = np.sqrt(np.diagonal(covariance, axis1=-2, axis2=-1))
    correlation: Array = covariance / (scale[..., :, None] * scale[..., None, :])
    index = np.arange(covariance.shape[-1])
    correlation[..., index, index] = 1.0
    return correlation


def multiple_correlations(covariance: Array) -> Array:
    """Return the squared multiple correlation (R,) of each variable with all others.

    Of a positive definite covariance S (R, R): ``1 - 1 / (S_rr (S^-1)_rr)``.
    """
    inverse = np.diagonal(np.linalg.inv(covariance))
    return np.asarray(1.0 - 1.0 / (np.diagonal(covariance) * inverse))


def told_by_others(covariance: Array, share: float = TOLD) -> list[int]:
    """Return the variables that tell one another; none if others tell at most a share of each.

    Those of which others tell nearly as much (`NEARLY_TOLD`) are among them: what is a combination
    has several parts, of which the small ones are told less well.
    """
    told = multiple_correlations(covariance)
    return np.flatnonzero(told > NEARLY_TOLD).tolist() if (told > share).any() else []


def psd_factor(covariance: Array, rank_tolerance: float = 1e-14) -> Array:
    """Return ``F`` (R x r) with ``F F^T`` equal to a positive semi-definite matrix of rank r.

    Eigenvalues at most ``rank_tolerance * R`` times the largest count as zero. Rows of ``F`` where
    the matrix has a zero variance are exactly zero, so that a coordinate that cannot vary is
    recognised without a tolerance.

    Cost: O(R^3).
    """
    values, vectors = np.linalg.eigh(symmetrise(covariance))
    keep = values > max(float(values[-1]), 0.0) * rank_tolerance * len(values)
    factor: Array = vectors[:, keep] * np.sqrt(values[keep])
    factor[np.diagonal(covariance) == 0.0] = 0.0
    return np.ascontiguousarray(factor)


def cholesky(stack: Array, what: str = "matrix") -> Array:
    """Cholesky factor of one matrix or of a stack; the error names the first that has none."""
    try:
        factors = np.asarray(np.linalg.cholesky(stack), dtype=np.float64)
    except np.linalg.LinAlgError:
        if stack.ndim == 2:
            raise NotPositiveDefiniteError(f"{what} is not positive definite.") from None
        smallest = np.linalg.eigvalsh(stack)[:, 0]
        first = int(np.argmax(smallest <= 0)) if np.any(smallest <= 0) else int(smallest.argmin())
        raise NotPositiveDefiniteError(
            f"{what} {first} is not positive definite (smallest eigenvalue {smallest[first]:.3g})."
        ) from None
    return factors


def project_positive_definite(covariance: Array, floor: float = 1e-8) -> Array:
    """Return the matrix with eigenvalues raised to ``floor`` times the largest, variances kept.

    A matrix that already satisfies the bound is returned unchanged.
    """
    values, vectors = np.linalg.eigh(symmetrise(covariance))
    if values[0] >= floor * values[-1]:
        return covariance
    lifted: Array = (vectors * np.maximum(values, floor * values[-1])) @ vectors.T
    scale = np.sqrt(np.diagonal(covariance) / np.diagonal(lifted))
    return symmetrise(lifted * np.outer(scale, scale))
