"""Restricted maximum likelihood near a model that is known exactly, from products alone.

Of two matrices that are much alike, as the relationships from all chromosomes and from all but one,
the first is made tridiagonal (`plait.numerics.reml`, 4/3 N^3 flops); the second needs some tens of
products with vectors. Solutions and forms come from Krylov spaces (`plait.numerics.krylov`), to the
precision that is asked. The determinant comes from random vectors z (Hutchinson 1990,
Communications in Statistics 19),

    ln|V| = ln|V_0| + sum_i w_i [z_i^T ln(h2 A + 1 - h2) z_i - z_i^T ln(h2 A_0 + 1 - h2) z_i],

``V = h2 A + (1 - h2) I`` on the space orthogonal to the covariates. Weights w_i are near 1 / m, so
that the same sum is right of the dimension and of the traces of ``A, A^2, A_0, A_0^2``, which are
known (calibration of Deville and Sarndal 1992, Journal of the American Statistical Association 87).
What is left to chance are differences of cubic and higher terms; their noise is measured.
"""

import math
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from plait.numerics.krylov import KrylovSpaces, ProjectedMatrix, Quadrature
from plait.numerics.reml import EDGE, LARGEST, RestrictedModel, Search, maximum_near

Array = NDArray[np.float64]

_PROBES = 64
_HIGHEST = 0.99
"""Shares above are left to exact models: there everything hangs on the smallest eigenvalues."""
_AROUND = 0.05
"""How far above the shares that are found likelihoods are sure too."""
_RESIDUAL = 1e-10
_STEPS = 60
_STEPS_OF_FORMS = 30
_PROBE_TOLERANCE = 1e-5
_FORM_TOLERANCE = 1e-4
_VARIANT_TOLERANCE = 1e-5
_NEARLY_PERFECT = 0.99
_CELLS = 12
"""Cells of the table of a determinant: of shares from 0.8 % to 99.2 %."""
_COEFFICIENTS = 12
_SAME = 1e-4
"""Singular values of the probes' moments, in units of the largest, that are taken for none."""


@dataclass(frozen=True, eq=False)
class Reference:
    """What is kept of an exact model, for models of matrices much like its own.

    Attributes
    ----------
    diagonal, off_diagonal : arrays
        Of the tridiagonal matrix.
    lifted : float
    n_covariates : int
    h2 : (T,) array
    squares : (m,) array
        Of the probes.
    nodes, weights : (m, k) arrays
        The probes' quadrature.
    moments : (2,) array
        Traces of A and A^2.
    """

    diagonal: Array
    off_diagonal: Array
    lifted: float
    n_covariates: int
    h2: Array
    squares: Array
    nodes: Array
    weights: Array
    moments: Array

    @classmethod
    def of(
        cls, model: RestrictedModel, h2: Array, relationships: Array, basis: Array
    ) -> "Reference | None":
        """Describe a model of ``relationships`` and ``basis``; None where that takes long."""
        matrix = ProjectedMatrix(relationships.astype(np.float32), basis)
        found = _of_probes(matrix, h2)
        if found is None:
            return None
        exact = model.relationships
        own = exact.diagonal, exact.off_diagonal, exact.lifted, model.n_covariates
        return cls(*own, h2, found.squares, *found.nodes(), np.array(matrix.moments()))


def _of_probes(matrix: ProjectedMatrix, h2: Array) -> Quadrature | None:
    """Return the quadrature of probes, the same ones for matrices of one size."""
    if h2.max() > _HIGHEST:
        return None
    random = np.random.default_rng(np.random.SeedSequence([len(matrix), _PROBES]))
    signs = random.integers(0, 2, (len(matrix), _PROBES)) * 2.0 - 1.0
    probes = matrix.project(signs).astype(np.float32)
    largest = np.array([_largest(h2)])
    found = Quadrature.of(matrix.times, probes, largest, _PROBE_TOLERANCE, _STEPS_OF_FORMS)
    return found if found.converged else None


def _largest(h2: Array) -> float:
    """Return the share up to which probes are sure, of those found for the reference."""
    return float(min(h2.max() + _AROUND, _HIGHEST))


@dataclass(frozen=True, eq=False)
class Determinant:
    """The determinant of ``h2 A + (1 - h2) I`` on the space orthogonal to the covariates.

    Attributes
    ----------
    reference : Reference
    nodes, weights : arrays
        What to add to the logarithm of the reference's: ``sum weight ln(h2 node + 1 - h2)``.
    table : (cells, k) array
        Of what that is between, to 1e-13 of the whole: `krylov_kernels.tabulate_log_determinant`.
    """

    reference: Reference
    nodes: Array
    weights: Array
    table: Array

    @classmethod
    def of(cls, reference: Reference, found: Quadrature, moments: Array) -> "Determinant":
        """Compare probes with those of the reference."""
        from plait.numerics.krylov_kernels import tabulate_log_determinant

        nodes, weights = found.nodes()
        by, _ = _calibrated(reference, nodes, weights, moments)
        both = np.concatenate([nodes.ravel(), reference.nodes.ravel()])
        signed = [by[:, None] * weights, -by[:, None] * reference.weights]
        signed_weights = np.concatenate([one.ravel() for one in signed])
        kept, table = signed_weights != 0.0, np.empty((_CELLS, _COEFFICIENTS))
        own = both[kept], signed_weights[kept]
        tabulate_log_determinant(reference.diagonal, reference.off_diagonal, *own, table)
        return cls(reference, *own, table)

    @property
    def numbers(self) -> tuple[Any, ...]:
        """What `krylov_kernels.determinant_without_covariates` takes."""
        known = self.reference
        own = known.diagonal, known.off_diagonal, self.nodes, self.weights
        return self.table, *own, known.lifted, known.n_covariates

    def logarithm(self, h2: float) -> float:
        """Return ``ln |h2 A + (1 - h2) I|``."""
        from plait.numerics.krylov_kernels import determinant_without_covariates

        return float(determinant_without_covariates(self.numbers, h2))


def _calibrated(
    reference: Reference, nodes: Array, weights: Array, moments: Array
) -> tuple[Array, Array]:
    """Return the weights of probes (m,), and what projects their moments out (m, m)."""
    sums = [(own * at**power).sum(axis=1)
            for at, own in ((nodes, weights), (reference.nodes, reference.weights))
            for power in (1, 2)]  # fmt: skip
    first, second, first_known, second_known = sums
    columns = np.column_stack(
        [reference.squares, first_known, second_known, first - first_known, second - second_known]
    )
    df = len(reference.diagonal) - reference.n_covariates
    known = np.concatenate([[df], reference.moments, moments - reference.moments])
    scales = np.maximum(np.abs(columns).max(axis=0), np.finfo(float).tiny)
    scaled, count = columns / scales, len(columns)
    equal = np.full(count, 1.0 / count)
    inverse = np.linalg.pinv(scaled, rcond=_SAME)
    by = equal + (known / scales - equal @ scaled) @ inverse
    return by, np.eye(count) - scaled @ inverse


def noise_of_score(reference: Reference, found: Quadrature, moments: Array, h2: float) -> float:
    """Return the standard deviation of the slope of ``-1/2 ln |V|`` in h2, from the probes."""
    nodes, weights = found.nodes()
    by, residual = _calibrated(reference, nodes, weights, moments)
    slopes = (weights * (nodes - 1.0) / (h2 * nodes + 1.0 - h2)).sum(axis=1)
    nodes, weights = reference.nodes, reference.weights
    slopes -= (weights * (nodes - 1.0) / (h2 * nodes + 1.0 - h2)).sum(axis=1)
    left = residual @ slopes
    free = float(np.trace(residual))
    return 0.5 * math.sqrt(float(left @ left) / free * float(by @ by))


@dataclass(frozen=True, eq=False)
class PreparedVariant:
    """A variant's products with the Krylov spaces of the traits, and its own quadrature.

    Attributes
    ----------
    genotype : (N,) array
        Covariates projected out.
    products : (T, k) array
    own : Quadrature
    """

    genotype: Array
    products: Array
    own: Quadrature

    def numbers(self, t: int) -> tuple[Array, Array, Array, float]:
        """Return what kernels take of it beside a trait."""
        own = self.own
        return self.products[t], own.diagonal[:, 0], own.after[:, 0], float(own.squares[0])


@dataclass(frozen=True, eq=False)
class KrylovModel:
    """The model of T traits on N samples, covariates projected out; see `RestrictedModel`.

    Attributes
    ----------
    matrix : ProjectedMatrix
    spaces : KrylovSpaces
        Of the traits.
    determinant : Determinant
    h2 : (T,) array
        The most likely shares, next to those of the reference.
    noise : (T,) array
        Standard deviation of h2 by the choice of probes; 0 at a boundary.
    limits : (T,) array
        Shares up to which forms and the determinant are sure. A variant with a large effect hides
        what the relationships explain, so that the share beside it may be far above that without
        it: there, `exact` is asked.
    """

    matrix: ProjectedMatrix
    spaces: KrylovSpaces
    determinant: Determinant
    h2: Array
    noise: Array
    limits: Array

    @classmethod
    def of(
        cls, relationships: NDArray[Any], basis: Array, traits: Array, reference: Reference
    ) -> "KrylovModel | None":
        """Prepare relationships K (N, N) and traits (N, T), and estimate h2.

        None where it would take long, eigenvalues being far apart, and where h2 is near 1 or much
        larger than that of the reference. ``relationships`` are rounded to single precision; of
        those, everything is in double but the probes.
        """
        matrix = ProjectedMatrix(relationships.astype(np.float32, order="C", copy=False), basis)
        found = _of_probes(matrix, reference.h2)
        if found is None:
            return None
        moments = np.array(matrix.moments())
        determinant = Determinant.of(reference, found, moments)
        spaces = KrylovSpaces(matrix.project(traits))
        largest, h2 = _largest(reference.h2), reference.h2
        while True:
            limits = np.minimum(h2 + _AROUND, largest)
            if not spaces.reach(matrix.times, limits, _RESIDUAL, _STEPS):
                return None
            model = cls(matrix, spaces, determinant, h2, np.zeros(len(h2)), limits)
            h2 = model._most_likely()
            if (h2 >= largest - EDGE).any():
                return None
            if (h2 < limits - EDGE).all():
                break
        model = cls(matrix, spaces, determinant, h2, np.zeros(len(h2)), limits)
        for t, value in enumerate(h2.tolist()):
            information = model._information(value, t)
            if information > 0:
                noise = noise_of_score(reference, found, moments, value)
                model.noise[t] = noise / information
        return model

    @property
    def df(self) -> int:
        """Degrees of freedom of the residuals, N - p."""
        return self.matrix.df

    def _log_likelihood(self, h2: float, t: int) -> float:
        """Return it but for a constant, maximised over the variance."""
        squares = self._trait_form(h2, t)
        return -0.5 * (self.df * math.log(squares) + self.determinant.logarithm(h2))

    def _trait_form(self, h2: float, t: int) -> float:
        """Return ``y^T P y``."""
        return float(self.spaces.lengths[t] * self.spaces.coefficients(h2, t)[0])

    def _most_likely(self) -> Array:
        # A variant that leaves likelihoods as they are: no products, and g^T P g is 1.
        none = np.zeros(self.spaces.diagonal.shape[1]), np.empty(0), np.empty(0), 1.0
        found = np.empty(len(self.h2))
        for t, (h2, limit) in enumerate(zip(self.h2.tolist(), self.limits.tolist(), strict=True)):
            found[t] = maximum_near(self._search(none, t, self.df), h2, 1e-8, limit)
        return found

    def _search(self, variant: tuple[Any, ...], t: int, df: int) -> Search:
        """Return a search for the most likely share of a trait with a variant's numbers."""
        from plait.numerics.krylov_kernels import highest_likelihood

        return partial(highest_likelihood, self._numbers(t), variant, self.determinant.numbers, df)

    def _numbers(self, t: int) -> tuple[Array, Array, float]:
        """Return what kernels take of a trait."""
        spaces = self.spaces
        return spaces.diagonal[t], spaces.after[t], float(spaces.lengths[t])

    def _information(self, h2: float, t: int) -> float:
        """Return the observed information on h2, 0 at a boundary."""
        if not EDGE < h2 < LARGEST - EDGE:
            return 0.0
        step = min(1e-3, 0.25 * h2, 0.25 * (1 - h2))
        left, middle, right = (self._log_likelihood(h2 + s, t) for s in (-step, 0.0, step))
        return (2 * middle - left - right) / step**2

    def projected_traits(self) -> tuple[Array, Array]:
        """Return ``P y`` (N, T), and ``y^T P y`` (T,)."""
        shares = list(enumerate(self.h2.tolist()))
        columns = [self.spaces.solution(h2, t) for t, h2 in shares]
        return np.column_stack(columns), np.array([self._trait_form(h2, t) for t, h2 in shares])

    def variances(self, columns: Array) -> Array | None:
        """Return ``g^T P g`` (n, T) of ``M g``, columns (N, n), to 1e-4; None where not soon."""
        times, given = self.matrix.times, columns.astype(np.float32)
        found = Quadrature.of(times, given, self.h2, _FORM_TOLERANCE, _STEPS_OF_FORMS)
        return found.forms(self.h2) if found.converged else None

    @cached_property
    def exact(self) -> RestrictedModel:
        """The model of the same matrix, made when it is first asked for: 4/3 N^3 flops."""
        traits = self.spaces.vectors[0] * self.spaces.lengths
        return RestrictedModel.of(self.matrix.matrix.astype(float), self.matrix.basis, traits)

    def prepared(self, genotypes: Array) -> list[PreparedVariant]:
        """Make variants ``M g`` (n, N) ready for `regression` and `share_beside`.

        Bits of a variant do not depend on which others it is with.
        """
        given, largest = genotypes.T.astype(np.float32), self.limits.max(keepdims=True)
        own = Quadrature.of(self.matrix.times, given, largest, _VARIANT_TOLERANCE, _STEPS)
        products = self.spaces.products(genotypes)
        return [
            PreparedVariant(genotype, of_spaces, own.of_vector(j))
            for j, (genotype, of_spaces) in enumerate(zip(genotypes, products, strict=True))
        ]

    def _forms(self, variant: PreparedVariant, t: int, h2: float) -> tuple[float, float, float]:
        """Return ``y^T P y``, ``g^T P y``, ``g^T P g``."""
        from plait.numerics.krylov_kernels import forms_of_variant

        found: tuple[float, float, float] = forms_of_variant(
            self._numbers(t), variant.numbers(t), h2
        )
        return found

    def _is_sure(self, variant: PreparedVariant, t: int, h2: float) -> bool:
        """Whether forms at a share are precise enough, and what the variant leaves of a trait."""
        if h2 > self.limits[t] or not variant.own.converged:
            return False
        yy, gy, gg = self._forms(variant, t, h2)
        return gy * gy <= _NEARLY_PERFECT * yy * gg

    def regression(self, variant: PreparedVariant, trait: int, h2: float) -> tuple[float, float]:
        """Return the slope of one more regressor, and its standard error."""
        if not self._is_sure(variant, trait, h2):
            return self.exact.regression(self._exactly(variant), trait, h2)
        yy, gy, gg = self._forms(variant, trait, h2)
        return gy / gg, math.sqrt((yy - gy * gy / gg) / ((self.df - 1) * gg))

    def share_beside(self, variant: PreparedVariant, trait: int, start: float) -> float:
        """Return h2 with one more regressor: the maximum next to a good guess."""
        limit = float(self.limits[trait])
        if self._is_sure(variant, trait, start):
            search = self._search(variant.numbers(trait), trait, self.df - 1)
            share = maximum_near(search, start, largest=limit)
            if share < limit - EDGE:
                return share
        return self.exact.share_beside(self._exactly(variant), trait, start)

    def _exactly(self, variant: PreparedVariant) -> Array:
        """Return a variant made ready for the exact model."""
        return self.exact.prepared(variant.genotype[None])[0]
