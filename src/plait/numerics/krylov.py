"""Functions of a large symmetric matrix from products with it: the Lanczos iteration.

Of ``f_h(A) = (h A + (1 - h) I)^-1`` a likelihood needs products with vectors, ``f_h(A) y``, forms
``g^T f_h(A) g`` and the determinant. A Krylov space does not depend on h, so that k products ``A
v`` serve every h: they make A tridiagonal on the space of ``y, A y, ..., A^(k-1) y``, and forms
from that are those of Gauss quadrature with k nodes, exact for polynomials of degree 2 k - 1 (Golub
and Meurant 2010, Matrices, Moments and Quadrature, chapter 6). Where eigenvalues lie close
together but for a few, k is 3 to 30, whatever N.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg.lapack import dptsv

Array = NDArray[np.float64]
Times = Callable[[NDArray[Any]], NDArray[Any]]

_NOTHING = 1e-15
_MORE = 8
"""Vectors that are iterated beside those that are asked for."""
_POWERS = 4


@dataclass(frozen=True, eq=False)
class ProjectedMatrix:
    """``A = M K M``, ``M = I - X X^T``, of which only products are asked.

    Attributes
    ----------
    matrix : (N, N) float32 array
        K, symmetric. That it is kept in single precision is a choice of K: products in double
        precision are those of the very same matrix.
    basis : (N, p) array
        X, orthonormal.
    """

    matrix: NDArray[np.float32]
    basis: Array

    def __len__(self) -> int:
        return len(self.matrix)

    @property
    def df(self) -> int:
        """Dimension of the space orthogonal to X."""
        return int(self.basis.shape[0] - self.basis.shape[1])

    def project(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Return ``M columns`` in the precision of the columns."""
        basis = self.basis.astype(columns.dtype, copy=False)
        projected: NDArray[Any] = columns - basis @ (basis.T @ columns)
        return projected

    def times(self, columns: NDArray[Any]) -> NDArray[Any]:
        """Return the product of A and columns of M, in the precision of the columns.

        Bits of a column do not depend on which others it is with.
        """
        basis = np.ascontiguousarray(self.basis, dtype=columns.dtype)
        product = multiplied(self.matrix, columns)
        product -= multiplied(basis, multiplied(np.ascontiguousarray(basis.T), product))
        return product

    def leading(self, count: int) -> tuple[Array, Array]:
        """Return Ritz values (k,), descending, and orthonormal vectors (N, k), orthogonal to X.

        By subspace iteration from random vectors (Halko, Martinsson and Tropp 2011, SIAM Review
        53): near the largest eigenvalues where these stand apart, and somewhere among them where
        they do not.
        """
        if not count:
            return np.empty(0), np.empty((len(self), 0))
        random = np.random.default_rng(np.random.SeedSequence([len(self), count]))
        start = random.standard_normal((len(self), count + _MORE), dtype=np.float32)
        found = np.linalg.qr(self.project(start))[0]
        for _ in range(_POWERS):
            found = np.linalg.qr(self.times(found))[0]
        vectors = np.linalg.qr(self.project(found.astype(np.float64)))[0]
        inner = vectors.T @ self.times(vectors.astype(np.float32)).astype(np.float64)
        values, within = np.linalg.eigh(0.5 * (inner + inner.T))
        return values[::-1][:count].copy(), vectors @ within[:, ::-1][:, :count]

    def moments(self) -> tuple[float, float]:
        """Return the traces of A and of A^2; 2 N^2 p flops."""
        products = multiplied(self.matrix, self.basis)
        inner = self.basis.T @ products
        trace = float(np.trace(self.matrix, dtype=np.float64) - np.trace(inner))
        # Sums along rows in single precision, of rows in double: 1e-6 of the whole.
        squares = np.vecdot(self.matrix, self.matrix).sum(dtype=np.float64)
        return trace, float(squares - 2.0 * (products**2).sum() + (inner**2).sum())


def multiplied(matrix: NDArray[Any], columns: NDArray[Any]) -> NDArray[Any]:
    """Return ``matrix @ columns``, (m, n), in the precision of the columns.

    That is the precision of the matrix, or double. Bits of an element depend on its row and column
    alone.
    """
    from plait.numerics.krylov_kernels import multiply

    product = np.empty((len(matrix), columns.shape[1]), dtype=columns.dtype)
    multiply(matrix, np.ascontiguousarray(columns.T), product)
    return product


def lanczos(times: Times, start: NDArray[Any], most: int) -> Iterator[tuple[Array, Array]]:
    """Yield the next number on the diagonal of T, and beside it, of each column: (n,) each.

    ``start`` (N, n) are unit vectors, or 0. Without orthogonalisation anew: eigenvalues that are
    found may be found again, which does no harm to forms and solutions (Greenbaum 1989, Linear
    Algebra and its Applications 113).
    """
    from plait.numerics.krylov_kernels import advance

    current, previous = start, np.zeros_like(start)
    before = np.zeros(start.shape[1])
    for _ in range(most):
        following = times(current)
        diagonal, after = np.empty((2, start.shape[1]))
        advance(previous, current, following, before, diagonal, after)
        yield diagonal, after
        previous, current, before = current, following, after


@dataclass(frozen=True, eq=False)
class Quadrature:
    """Tridiagonal matrices T of n vectors g, for forms ``g^T f(A) g``.

    Attributes
    ----------
    diagonal, after : (k, n) arrays
    counts : (n,) int array
        How many steps of each vector count: those until its forms stood still.
    squares : (n,) array
        ``g^T g``.
    ended : (n,) bool array
        Whether forms stood still.
    """

    diagonal: Array
    after: Array
    counts: NDArray[np.int64]
    squares: Array
    ended: NDArray[np.bool_]

    @classmethod
    def of(
        cls, times: Times, columns: NDArray[Any], shares: Array, tolerance: float, most: int
    ) -> "Quadrature":
        """Iterate until relative errors of ``g^T f_h(A) g`` at all shares h are some ``tolerance``.

        ``columns`` (N, n) are orthogonal to X. Each vector ends by itself, so that its forms do not
        depend on which others it is with. Forms grow from step to step, by less and less: the error
        that is left is taken for a geometric series, as slow as the slower of the last two changes,
        which may be several times too small where A is far from a multiple of the identity.
        """
        from plait.numerics.krylov_kernels import sums_of_squares

        n = columns.shape[1]
        squares = np.empty(n)
        sums_of_squares(columns, squares)
        lengths = np.where(squares > 0.0, np.sqrt(squares), 1.0).astype(columns.dtype)
        counts, ended = np.zeros(n, dtype=np.int64), squares == 0.0
        diagonals, afters = [], []
        last, change, ratio = np.zeros((n, len(shares))), np.ones(()), np.ones(())
        for diagonal, after in lanczos(times, np.ascontiguousarray(columns / lengths), most):
            diagonals.append(diagonal)
            afters.append(after)
            counts[~ended] += 1
            found = cls(np.array(diagonals), np.array(afters), counts, np.ones(n), ended)
            forms = found.forms(shares)
            before, faster = change, ratio
            change = np.abs(forms - last)
            ratio = change / np.maximum(before, _NOTHING)
            slower = np.maximum(ratio, faster)
            left = change * slower <= tolerance * forms * (1.0 - slower)
            ended |= (left | (change <= _NOTHING)).all(axis=1)
            last = forms
            if ended.all():
                break
        return cls(np.array(diagonals), np.array(afters), counts, squares, ended)

    @property
    def converged(self) -> bool:
        """Whether all forms stood still."""
        return bool(self.ended.all())

    def of_vector(self, j: int) -> "Quadrature":
        """Return what belongs to one of the vectors."""
        only, steps = slice(j, j + 1), self.counts[j]
        diagonal, after = self.diagonal[:steps, only].copy(), self.after[:steps, only].copy()
        return Quadrature(diagonal, after, self.counts[only], self.squares[only], self.ended[only])

    def forms(self, shares: Array) -> Array:
        """Return ``g^T f_h(A) g`` (n, m) at m shares."""
        from plait.numerics.krylov_kernels import resolvents

        forms = np.empty((len(self.counts), len(shares)))
        resolvents(self.diagonal, self.after, self.counts, shares, forms)
        forms *= self.squares[:, None]
        return forms

    def nodes(self) -> tuple[Array, Array]:
        """Return nodes and weights (n, k) of ``g^T f(A) g = sum_k weight f(node)``."""
        k, n = self.diagonal.shape
        matrices = np.zeros((n, k, k))
        place = np.arange(k)
        inside = place[:, None] < self.counts
        coupled = place[:, None] < self.counts - 1
        matrices[:, place, place] = np.where(inside, self.diagonal, 1.0).T
        below = np.where(coupled, self.after, 0.0)[:-1].T
        matrices[:, place[1:], place[:-1]] = below
        matrices[:, place[:-1], place[1:]] = below
        nodes, vectors = np.linalg.eigh(matrices)
        return nodes, vectors[:, 0, :] ** 2 * self.squares[:, None]


class KrylovSpaces:
    """Krylov spaces of T vectors y, for ``f_h(A) y`` at any share h, in double precision.

    Parameters
    ----------
    columns : (N, T) array
        The vectors y, orthogonal to X.

    Attributes
    ----------
    lengths : (T,) array
    vectors : list of (N, T) arrays
        The unit vectors of each step; the spaces grow in `reach`.
    diagonal, after : (T, k) arrays
        Of the tridiagonal matrices on the spaces.
    """

    def __init__(self, columns: Array) -> None:
        self.lengths = np.linalg.norm(columns, axis=0)
        self.vectors: list[Array] = []
        self.diagonal, self.after = np.empty((2, len(self.lengths), 0))
        self._next = np.ascontiguousarray(columns / self.lengths)

    def reach(self, times: Times, shares: Array, tolerance: float, most: int) -> bool:
        """Take steps until residuals at some shares (T,) are small; False if ``most`` do not do.

        Residuals ``(h A + 1 - h) x - y`` are measured in lengths of y.
        """
        while len(self.vectors) < 2 or self.residuals(shares).max() > tolerance:
            if len(self.vectors) == most:
                return False
            self._step(times)
        return True

    def _step(self, times: Times) -> None:
        from plait.numerics.krylov_kernels import advance

        first = not self.vectors
        previous = np.zeros_like(self._next) if first else self.vectors[-1]
        diagonal, after = np.empty((2, len(self.lengths)))
        before = np.zeros(len(self.lengths)) if first else np.ascontiguousarray(self.after[:, -1])
        following = times(self._next)
        advance(previous, self._next, following, before, diagonal, after)
        self.vectors.append(self._next)
        self.diagonal = np.column_stack([self.diagonal, diagonal])
        self.after = np.column_stack([self.after, after])
        self._next = following

    def coefficients(self, h2: float, t: int) -> Array:
        """Return the solution ``f_h(A) y`` in the unit vectors (k,)."""
        first = np.zeros(len(self.vectors))
        first[0] = self.lengths[t]
        diagonal = h2 * self.diagonal[t] + 1.0 - h2
        solved: Array = dptsv(diagonal, h2 * self.after[t, :-1], first)[2]
        return solved

    def residuals(self, shares: Array) -> Array:
        """Return lengths of residuals (T,), in lengths of y."""
        last = np.array([self.coefficients(h2, t)[-1] for t, h2 in enumerate(shares.tolist())])
        left: Array = np.abs(shares * self.after[:, -1] * last) / self.lengths
        return left

    def products(self, rows: Array) -> Array:
        """Return products (n, T, k) of the unit vectors with vectors (n, N)."""
        return np.stack([multiplied(rows, one) for one in self.vectors], axis=2)

    def solution(self, h2: float, t: int) -> Array:
        """Return ``f_h(A) y`` (N,)."""
        columns = np.column_stack([one[:, t] for one in self.vectors])
        solved: Array = columns @ self.coefficients(h2, t)
        return solved
