"""Mixed models of a design without variants: exact, or near one that is exact.

Both know the shares of variance, solutions ``P y`` for scores, forms ``g^T P g`` of any variants, P
itself, leading eigenvectors of the relationships, and how one variant more changes the fit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.execution.threads import single_threaded_blas
from plait.gwas.design import Design
from plait.numerics.krylov_reml import KrylovModel, Reference
from plait.numerics.reml import RestrictedModel, VarianceFit, projected_inverse

Array = NDArray[np.float64]

_LEAST_SAMPLES = 1000
"""Below, an exact model takes no more time than anything else."""
_SAMPLES_OF_A_TRAIT = 32
"""With fewer samples for each trait, products with all traits take as long as an exact model."""


class NullModel:
    """The model of a design for one relationship matrix, which is made tridiagonal: 4/3 N^3 flops.

    Parameters
    ----------
    design : Design
    relationships : (N, N) array
        Kept, and scaled in place to a mean of 1 on the diagonal.

    Attributes
    ----------
    relationships : (N, N) array
        Scaled.
    model : RestrictedModel
    fit : VarianceFit
    """

    def __init__(self, design: Design, relationships: Array) -> None:
        relationships /= _scale(relationships)
        self.relationships, self.design = relationships, design
        # Threaded BLAS is many times slower where other work shares the cores.
        with single_threaded_blas():
            self.model = RestrictedModel.of(self.relationships, design.basis, design.traits)
            self.fit: VarianceFit = self.model.fit()

    @property
    def h2(self) -> Array:
        """Shares of variance (T,)."""
        return self.fit.h2

    @property
    def noise(self) -> Array:
        """What chance there is in them (T,): none."""
        return np.zeros(len(self.h2))

    def projected_traits(self) -> tuple[Array, Array]:
        """Return ``P y`` (N, T), one row per sample, and ``y^T P y`` (T,)."""
        model, columns = self.model, []
        for t, value in enumerate(self.h2.tolist()):
            columns.append(model.solve(value, model.traits[:, t]))
        solved = np.column_stack(columns)
        lengths = np.einsum("it,it->t", solved, model.traits)
        with single_threaded_blas():
            return model.relationships.rotated_back(solved), lengths

    def variances(self, columns: Array) -> Array:
        """Return ``g^T P g`` (n, T) of genotypes, covariates projected out, as columns (N, n)."""
        from plait.gwas.mixed_kernels import tridiagonal_variances

        found = np.empty((columns.shape[1], len(self.h2)))
        rotated = self.model.relationships.rotated(columns)
        tridiagonal_variances(rotated, *self.model.factors(self.h2), found)
        return found

    def leading(self, count: int) -> tuple[Array, Array]:
        """Return the largest eigenvalues (k,) of ``M K M``, and eigenvectors (N, k)."""
        values, vectors = self.model.relationships.leading(count)
        return values, self.model.relationships.rotated_back(vectors)

    def inverse(self, h2: float) -> Array:
        """Return P (N, N) at a share."""
        return self.model.inverse(h2, self.relationships, self.design.basis)

    def reference(self) -> Reference | None:
        """Return what `LeftOutModel` needs; None where exact models do as well, or better."""
        n_samples = len(self.relationships)
        if n_samples < max(_LEAST_SAMPLES, _SAMPLES_OF_A_TRAIT * len(self.h2)):
            return None
        with single_threaded_blas():
            return Reference.of(self.model, self.h2, self.relationships, self.design.basis)


class LeftOutModel:
    """The model of a design for relationships much like those of an exact one: O(N^2).

    Attributes
    ----------
    design : Design
    model : KrylovModel
    """

    def __init__(self, design: Design, model: KrylovModel) -> None:
        self.design, self.model = design, model

    @classmethod
    def of(
        cls, design: Design, relationships: NDArray[np.float32], reference: Reference
    ) -> "LeftOutModel | None":
        """Prepare a matrix (N, N), kept and scaled; None where an exact model is called for."""
        relationships /= np.float32(_scale(relationships))
        with single_threaded_blas():
            model = KrylovModel.of(relationships, design.basis, design.traits, reference)
        return None if model is None else cls(design, model)

    @property
    def h2(self) -> Array:
        """Shares of variance (T,)."""
        return self.model.h2

    @property
    def noise(self) -> Array:
        """Their standard deviations (T,) by the choice of random vectors."""
        return self.model.noise

    def projected_traits(self) -> tuple[Array, Array]:
        """See `NullModel.projected_traits`."""
        return self.model.projected_traits()

    def variances(self, columns: Array) -> Array | None:
        """See `NullModel.variances`; None where it would take long."""
        return self.model.variances(columns)

    def leading(self, count: int) -> tuple[Array, Array]:
        """Return Ritz values (k,) and vectors (N, k), near the largest eigenvalues."""
        return self.model.matrix.leading(count)

    def inverse(self, h2: float) -> NDArray[np.float32]:
        """Return P (N, N) at a share, in single precision: N^3 flops."""
        matrix = self.model.matrix
        inverse: NDArray[np.float32] = projected_inverse(matrix.matrix, matrix.basis, h2, 0.0)
        return inverse


def _scale(relationships: NDArray[Any]) -> float:
    return float(np.mean(np.diagonal(relationships), dtype=np.float64))
